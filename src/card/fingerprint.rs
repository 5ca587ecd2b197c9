//! The keyed hash of a whole PAN (PCI DSS 3.5.1.1), as it leaves the keeper. Callers see `fp_` ids, which do not contain it.

use serde::{Deserialize, Serialize};

/// A number's keyed hash under the tenant's fingerprint key and, for as long as older ones are not destroyed, under those: whoever
/// looks for a number that is stored has to look for all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The id of the key in use.
    pub key: u32,
    /// HMAC-SHA-256 under it.
    pub hash: [u8; 32],
    /// The same under the keys before.
    pub before: Vec<[u8; 32]>,
}

impl Fingerprint {
    /// Under this key, with none before it.
    pub const fn under(key: u32, hash: [u8; 32]) -> Self {
        Self { key, hash, before: Vec::new() }
    }

    /// Whether this is the number of which `hash` is the keyed hash, under the key in use or one before.
    pub fn is_of(&self, hash: &[u8; 32]) -> bool {
        self.hash == *hash || self.before.contains(hash)
    }
}
