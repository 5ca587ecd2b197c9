//! The key-encryption key: wraps and unwraps keys, nothing else.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};

use super::{KeyBytes, KeyError, Mac, key_bytes};
use crate::random;
use crate::wire::keys::{KeyOrder, WrappedKey};

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// More than the making of a schedule takes.
const STACK_BYTES: usize = 32 * 1024;

/// A KEK and the environment that it serves.
pub struct Kek {
    /// In a place of its own, which is wiped at its end: each move of it would leave a copy.
    cipher: Box<Aes256Gcm>,
    environment: [u8; 16],
}

impl Kek {
    /// From the 32 bytes that a root provider gave.
    pub fn new(key: &[u8], environment: [u8; 16]) -> Result<Self, KeyError> {
        let cipher = schedule(key);
        wipe_stack();
        Ok(Self { cipher: cipher?, environment })
    }

    /// Makes a key for this order and wraps it: `nonce(12) ‖ ciphertext(32) ‖ tag(16)`, AAD = [`aad`](Self::aad).
    pub fn make_wrapped(&self, order: KeyOrder) -> Result<WrappedKey, KeyError> {
        let key: KeyBytes = Box::new(zeroize::Zeroizing::new(random::make_bytes::<32>()?));
        let check_value = Mac::new(key.as_slice()).check_value();
        let wrapped = self.wrap_key(order, &key)?;
        Ok(WrappedKey { order, wrapped, check_value })
    }

    /// The same key wrapped under another KEK.
    pub fn rewrap(&self, key: &WrappedKey, under: &Self) -> Result<WrappedKey, KeyError> {
        let wrapped = under.wrap_key(key.order, &*self.unwrap_key(key)?)?;
        Ok(WrappedKey { order: key.order, wrapped, check_value: key.check_value.clone() })
    }

    fn wrap_key(&self, order: KeyOrder, key: &[u8; 32]) -> Result<Vec<u8>, KeyError> {
        let mut key = zeroize::Zeroizing::new(*key);
        let nonce = random::make_bytes::<NONCE_BYTES>()?;
        let tag = self
            .cipher
            .encrypt_inout_detached(&Nonce::from(nonce), &self.aad(order), key.as_mut_slice().into())
            .map_err(|_| KeyError::DoesNotUnwrap)?;
        Ok([nonce.as_slice(), key.as_slice(), tag.as_slice()].concat())
    }

    /// Unwraps a key, if it was wrapped under this KEK for this order in this environment.
    pub(in crate::keeper) fn unwrap_key(&self, key: &WrappedKey) -> Result<KeyBytes, KeyError> {
        let (nonce, rest) = key.wrapped.split_first_chunk::<NONCE_BYTES>().ok_or(KeyError::DoesNotUnwrap)?;
        let (sealed, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(KeyError::DoesNotUnwrap)?;
        let mut bytes = key_bytes(sealed).ok_or(KeyError::DoesNotUnwrap)?;
        self.cipher
            .decrypt_inout_detached(
                &Nonce::from(*nonce),
                &self.aad(key.order),
                bytes.as_mut_slice().into(),
                &Tag::from(*tag),
            )
            .map_err(|_| KeyError::DoesNotUnwrap)?;
        if Mac::new(bytes.as_slice()).check_value() == key.check_value {
            Ok(bytes)
        } else {
            Err(KeyError::CheckValue)
        }
    }

    /// `"cardvault/key/v1" ‖ environment(16) ‖ key id(4) ‖ tenant(4; 0 for none) ‖ epoch(4) ‖ purpose`, all of fixed length
    /// but the last.
    fn aad(&self, order: KeyOrder) -> Vec<u8> {
        let tenant = order.tenant.map_or(0, |t| t.0);
        [
            b"cardvault/key/v1".as_slice(),
            &self.environment,
            &order.id.to_be_bytes(),
            &tenant.to_be_bytes(),
            &order.epoch.to_be_bytes(),
            order.purpose.name().as_bytes(),
        ]
        .concat()
    }
}

/// The key schedule, which begins with the key itself. It is made on the stack, below whoever calls this.
#[inline(never)]
fn schedule(key: &[u8]) -> Result<Box<Aes256Gcm>, KeyError> {
    Aes256Gcm::new_from_slice(key).map(Box::new).map_err(|_| KeyError::DoesNotUnwrap)
}

/// Overwrites what a function that has returned left below its caller.
#[inline(never)]
fn wipe_stack() {
    let mut space = [0_u8; STACK_BYTES];
    std::hint::black_box(&mut space);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::tenant::TenantId;
    use crate::wire::keys::KeyPurpose;

    fn order(id: u32, tenant: u32) -> KeyOrder {
        KeyOrder { id, purpose: KeyPurpose::Data, tenant: Some(TenantId(tenant)), epoch: 24_322, version: 1 }
    }

    #[test]
    fn a_wrapped_key_opens_only_where_it_belongs() {
        let kek = Kek::new(&[7; 32], [1; 16]).unwrap();
        let made = kek.make_wrapped(order(3, 1)).unwrap();
        assert_eq!(made.wrapped.len(), 60);
        assert!(kek.unwrap_key(&made).is_ok());
        for other in [Kek::new(&[8; 32], [1; 16]).unwrap(), Kek::new(&[7; 32], [2; 16]).unwrap()] {
            assert_eq!(other.unwrap_key(&made).unwrap_err(), KeyError::DoesNotUnwrap);
        }
        for moved in [order(4, 1), order(3, 2), KeyOrder { epoch: 1, ..order(3, 1) }] {
            let moved = WrappedKey { order: moved, ..made.clone() };
            assert_eq!(kek.unwrap_key(&moved).unwrap_err(), KeyError::DoesNotUnwrap);
        }
    }

    #[test]
    fn a_key_that_is_wrapped_again_is_the_same_key_under_the_other_kek_only() {
        let [old, new] = [7, 8].map(|byte| Kek::new(&[byte; 32], [1; 16]).unwrap());
        let made = old.make_wrapped(order(3, 1)).unwrap();
        let again = old.rewrap(&made, &new).unwrap();
        assert_eq!(new.unwrap_key(&again).unwrap().as_slice(), old.unwrap_key(&made).unwrap().as_slice());
        assert_eq!(old.unwrap_key(&again).unwrap_err(), KeyError::DoesNotUnwrap);
        assert_eq!(new.rewrap(&made, &old).unwrap_err(), KeyError::DoesNotUnwrap);
    }

    #[test]
    fn any_edited_byte_is_found() {
        let kek = Kek::new(&[7; 32], [1; 16]).unwrap();
        let made = kek.make_wrapped(order(3, 1)).unwrap();
        for at in 0..made.wrapped.len() {
            let mut edited = made.clone();
            edited.wrapped[at] ^= 1;
            assert!(kek.unwrap_key(&edited).is_err());
        }
        let edited = WrappedKey { check_value: "000000".into(), ..made };
        assert_eq!(kek.unwrap_key(&edited).unwrap_err(), KeyError::CheckValue);
    }
}
