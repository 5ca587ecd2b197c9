//! The fingerprint: a keyed hash of the whole PAN (PCI DSS 3.5.1.1), under a key of its own.

use super::Pan;
use crate::keeper::keys::Mac;

/// HMAC-SHA-256(fingerprint key, length-prefixed ("fp1", digits)).
pub(in crate::keeper) fn derive_fingerprint(key: &Mac, pan: &Pan) -> [u8; 32] {
    key.sum(&[b"fp1", pan.expose_digits()])
}
