//! How a card lies in the store: envelope v1, one per field, so that an expiry update never opens the PAN.
//!
//! `format(1) = 0x01 ‖ key id(4, big-endian) ‖ nonce(12) ‖ AES-256-GCM(record key, padded field) ‖ tag(16)`
//!
//! record key = HKDF-SHA-256(data key; info) and AAD = info, where info is the length-prefixed (u16, big-endian)
//! concatenation of: environment id (16 bytes), tenant (4), token (18), field name, the field's own version (4), key id (4),
//! policy id (4). Padded lengths: PAN 20, expiry 4, zip 16. Together 139 bytes for the three fields.

use serde::{Deserialize, Serialize};

/// The first byte of every envelope.
pub const FORMAT_V1: u8 = 1;
/// What an envelope adds to its padded field: format, key id, nonce, tag.
pub const OVERHEAD_BYTES: usize = 1 + 4 + 12 + 16;

/// One of the sealed fields of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Field {
    /// The primary account number.
    Pan,
    /// Month and year.
    Expiry,
    /// Billing zip (postal code).
    Zip,
}

impl Field {
    /// Its name in the envelope's info.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pan => "pan",
            Self::Expiry => "expiry",
            Self::Zip => "zip",
        }
    }

    /// The length of its clear text after padding, in bytes.
    pub const fn padded_bytes(self) -> usize {
        match self {
            Self::Pan => 20,
            Self::Expiry => 4,
            Self::Zip => 16,
        }
    }
}

/// A sealed field and the version of that field which is bound into it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedField {
    /// Counts the changes of this field, from 1.
    pub version: u32,
    /// The envelope.
    #[serde(with = "serde_bytes")]
    pub envelope: Vec<u8>,
}

impl SealedField {
    /// The id of the data key it is sealed under; `None` if these bytes are no envelope v1.
    pub fn key_id(&self) -> Option<u32> {
        match self.envelope.as_slice() {
            [FORMAT_V1, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
            _ => None,
        }
    }
}

/// A card as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedCard {
    /// The destination set that the card may be sent to, by the supervisor's configuration; bound into each envelope.
    pub policy: u32,
    /// The sealed PAN.
    pub pan: SealedField,
    /// The sealed expiry.
    pub expiry: SealedField,
    /// The sealed billing zip, if one was given.
    pub zip: Option<SealedField>,
}

impl SealedCard {
    /// SHA-256 over policy and the length-prefixed fields with their versions: what card events carry, so that a row
    /// rolled back behind the log is found.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        hash.update(&self.policy.to_be_bytes());
        for field in [Some(&self.pan), Some(&self.expiry), self.zip.as_ref()] {
            let (version, envelope) =
                field.map_or((0, [].as_slice()), |f| (f.version, f.envelope.as_slice()));
            hash.update(&version.to_be_bytes());
            hash.update(&u16::try_from(envelope.len()).unwrap_or(u16::MAX).to_be_bytes());
            hash.update(envelope);
        }
        let mut out = [0; 32];
        out.copy_from_slice(hash.finish().as_ref());
        out
    }

    /// The ids of the keys that its fields are sealed under, each once, ascending.
    pub fn key_ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = [Some(&self.pan), Some(&self.expiry), self.zip.as_ref()]
            .into_iter()
            .flatten()
            .filter_map(SealedField::key_id)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}
