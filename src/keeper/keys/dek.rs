//! Data keys: seal and open fields, each under a record key of its own.
//!
//! A record key is HKDF-SHA-256 (RFC 5869, empty salt) of the data key with the record's binding as info, so that no key
//! meets two records and the random 96-bit nonce can never repeat under one key in practice.

use std::sync::atomic::{AtomicU64, Ordering};

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use ring::hkdf;

use super::{KeyBytes, KeyError};
use crate::random;

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// A data key, and how many fields it has sealed.
pub struct Dek {
    key: Box<hkdf::Prk>,
    seals: AtomicU64,
}

struct Len32;

impl hkdf::KeyType for Len32 {
    fn len(&self) -> usize {
        32
    }
}

impl Dek {
    /// From 32 key bytes.
    pub fn new(key: &[u8]) -> Self {
        let key = Box::new(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(key));
        Self { key, seals: AtomicU64::new(0) }
    }

    /// How many fields it has sealed since this was asked last.
    pub fn take_seals(&self) -> u64 {
        self.seals.swap(0, Ordering::Relaxed)
    }

    /// Appends `nonce ‖ ciphertext ‖ tag` of `padded` to `out`; `info` names the record and is the AAD as well.
    pub fn seal(&self, info: &[u8], padded: &[u8], out: &mut Vec<u8>) -> Result<(), KeyError> {
        let nonce = random::make_bytes::<NONCE_BYTES>()?;
        out.extend_from_slice(&nonce);
        let start = out.len();
        out.extend_from_slice(padded);
        let body = out.get_mut(start..).unwrap_or_default();
        let tag = self
            .derive_record_cipher(info)?
            .encrypt_inout_detached(&Nonce::from(nonce), info, body.into())
            .map_err(|_| KeyError::DoesNotUnwrap)?;
        out.extend_from_slice(&tag);
        self.seals.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Opens `nonce ‖ ciphertext ‖ tag` into `padded`; `false`, with `padded` wiped, if anything at all does not fit.
    pub fn open(&self, info: &[u8], sealed: &[u8], padded: &mut [u8]) -> bool {
        let opened = self.try_open(info, sealed, padded).is_some();
        if !opened {
            zeroize::Zeroize::zeroize(padded);
        }
        opened
    }

    fn try_open(&self, info: &[u8], sealed: &[u8], padded: &mut [u8]) -> Option<()> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let (body, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        if body.len() != padded.len() {
            return None;
        }
        padded.copy_from_slice(body);
        self.derive_record_cipher(info)
            .ok()?
            .decrypt_inout_detached(&Nonce::from(*nonce), info, padded.into(), &Tag::from(*tag))
            .ok()
    }

    fn derive_record_cipher(&self, info: &[u8]) -> Result<Aes256Gcm, KeyError> {
        let mut key: KeyBytes = Box::new(zeroize::Zeroizing::new([0; 32]));
        self.key
            .expand(&[info], Len32)
            .and_then(|okm| okm.fill(key.as_mut_slice()))
            .map_err(|_| KeyError::DoesNotUnwrap)?;
        Aes256Gcm::new_from_slice(key.as_slice()).map_err(|_| KeyError::DoesNotUnwrap)
    }
}
