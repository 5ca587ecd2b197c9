//! The key hierarchy.
//!
//! ```text
//! root provider ── wraps ──► KEK (handed over by the unsealer)
//!                             │ wraps (AES-256-GCM, the key's order and the environment as AAD)
//!   per tenant  ──────────────┼─► data keys, one an epoch (month of sealing)  ── HKDF ──► record keys ── seal fields
//!                             ├─► fingerprint key   HMAC-SHA-256 over the whole PAN
//!                             ├─► body-MAC key      HMAC-SHA-256 over bodies, idempotency keys, rendered requests
//!                             ├─► pseudonym key     HMAC-SHA-256 over customer references, for the log
//!                             └─► webhook key       HMAC-SHA-256 ── derives ──► an endpoint's secrets ── HMAC-SHA-256 over what is posted
//!   per installation ───────────► checkpoint key    Ed25519, signs checkpoints and statements
//! ```
//! A [`Kek`] can wrap and unwrap keys, a [`Dek`] can seal and open fields, a [`Mac`] can neither; no type can do both.

mod dek;
mod kek;
mod mac;
mod ring_of_keys;

pub use dek::Dek;
pub use kek::Kek;
pub use mac::Mac;
pub use ring_of_keys::{FingerprintKeys, KeyRing, TenantKeys};

/// Why a key could not be used. It names no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The root key, the environment or the binding is another: wrapped elsewhere, swapped or edited.
    #[error(
        "a wrapped key does not open: the root key or the environment is another, or the key store was edited; \
         restore the key store that belongs to this installation"
    )]
    DoesNotUnwrap,
    /// It opens, and its check value is another.
    #[error("a key's check value is wrong: the key store was edited; restore it")]
    CheckValue,
    /// The unsealer ended before it handed the KEK over.
    #[error("the unsealer ended before it handed the KEK over")]
    NotHandedOver,
    /// There is none for this purpose.
    #[error("there is no key for this purpose")]
    Missing,
    /// There is one, and its cryptoperiod is over.
    #[error("the cryptoperiod of the key is over; rotate it (`cardvault keys rotate`)")]
    Expired,
    /// No randomness.
    #[error("the operating system's random number generator failed")]
    Randomness,
}

impl From<crate::random::NoRandomness> for KeyError {
    fn from(_: crate::random::NoRandomness) -> Self {
        Self::Randomness
    }
}

/// 256 bits of key, on the heap so that a move copies a pointer, wiped when dropped.
pub(in crate::keeper) type KeyBytes = Box<zeroize::Zeroizing<[u8; 32]>>;

pub(in crate::keeper) fn key_bytes(from: &[u8]) -> Option<KeyBytes> {
    let mut key: KeyBytes = Box::new(zeroize::Zeroizing::new([0; 32]));
    if from.len() != key.len() {
        return None;
    }
    key.copy_from_slice(from);
    Some(key)
}
