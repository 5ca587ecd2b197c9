//! The fingerprint: a keyed hash of the whole PAN (PCI DSS 3.5.1.1), under a key of its own.

use super::Pan;
use crate::card::fingerprint::Fingerprint;
use crate::keeper::keys::{FingerprintKeys, KeyError, Mac};

/// The number's hash under the key in use, and under each key before it that is not destroyed.
pub(in crate::keeper) fn derive_fingerprint(
    keys: &FingerprintKeys,
    pan: &Pan,
) -> Result<Fingerprint, KeyError> {
    let (key, mac) = keys.current()?;
    let before = keys.before().map(|mac| hash(mac, pan)).collect();
    Ok(Fingerprint { key, hash: hash(mac, pan), before })
}

/// HMAC-SHA-256(fingerprint key, length-prefixed ("fp1", digits)).
pub(in crate::keeper) fn hash(key: &Mac, pan: &Pan) -> [u8; 32] {
    key.sum(&[b"fp1", pan.expose_digits()])
}
