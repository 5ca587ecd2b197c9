//! Sealed records, each the sealed fields of one version of one card: what is sealed again when a key takes over from another.

use crate::card::fingerprint::Fingerprint;
use crate::card::id::Token;
use crate::card::sealed::SealedCard;
use crate::card::tenant::TenantId;

/// Where a record stands in the order in which [`Store::sealed_records`](super::Store::sealed_records) gives them: those of current
/// versions first, oldest token first, then those of versions before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPlace {
    /// Whether it is of a version before the current one.
    pub is_old: bool,
    /// Whose.
    pub token: Token,
    /// Which version.
    pub version: u32,
}

/// A sealed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRecord {
    /// Where it stands.
    pub place: RecordPlace,
    /// Whose card it is.
    pub tenant: TenantId,
    /// The store's own number of it; it stays for as long as the record.
    pub row: i64,
    /// The sealed fields; an old version may have lost its number.
    pub sealed: SealedCard,
    /// The fingerprint key that its number is found under; none where it is the tenant's first, or the version is not current.
    pub fingerprint_key: Option<u32>,
}

/// A record that was sealed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resealed {
    /// The record as it was read.
    pub record: SealedRecord,
    /// The same fields under another key.
    pub now: SealedCard,
    /// The number's keyed hash under the fingerprint key in use, which a current version is found under from now on.
    pub fingerprint: Option<Fingerprint>,
}

/// What the store does about records under these keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyWatch {
    /// Records that come under these data or fingerprint keys are counted ([`Store::watched_seals`](super::Store::watched_seals)): they were sealed before
    /// another key took over, and whoever seals them all again has to look once more.
    pub counted: Vec<u32>,
    /// No record is taken under these: their change fails as unavailable (`key_destroyed`).
    pub barred: Vec<u32>,
    /// Tenants with numbers that are being moved from one fingerprint key to another: until that is done, one number may be found in
    /// two places.
    pub moving: Vec<TenantId>,
}
