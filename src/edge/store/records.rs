//! Sealed records, each the sealed fields of one version of one card: what is sealed again when a key takes over from another.

use crate::card::fingerprint::Fingerprint;
use crate::card::id::{EventId, Token};
use crate::card::sealed::SealedCard;
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::erasure::ErasureTerms;

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
    /// Tenants with a fingerprint key that was taken over from and is not destroyed, whether it is being emptied or not: one number may
    /// be found in two places.
    pub moving: Vec<TenantId>,
    /// The data keys of each tenant that seal or have sealed, and are not destroyed: when a card of the tenant is erased, each of them
    /// may have sealed it at some time.
    pub sealing: Vec<(TenantId, u32)>,
    /// The times that hold for what is erased now; the event of each erasure says them.
    pub terms: ErasureTerms,
}

/// A data key that may have sealed a card which is erased: it is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasedKey {
    /// Its id.
    pub key: u32,
    /// Whose.
    pub tenant: TenantId,
    /// When the first such card was erased.
    pub since: Time,
    /// When no record was left under it.
    pub emptied: Option<Time>,
    /// The event that says that it is destroyed.
    pub destroyed: Option<EventId>,
}

/// What became of data keys that are to go; those under which nothing was erased are passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyMark {
    /// No record is left under these.
    Emptied(Vec<u32>),
    /// A record was found under this one after all.
    Needed(u32),
    /// This one is destroyed, as the event says.
    Destroyed(u32, EventId),
}

/// Where the log tells of an erasure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// The event that was written with it.
    pub event: EventId,
    /// The event that says that its bytes are gone from every file.
    pub scrubbed: Option<EventId>,
}

/// A card that no agreement keeps, and that was not used for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleCard {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub token: Token,
    /// The latest of its creation, its last use that worked, and the end of its last agreement.
    pub since: Time,
    /// Whether a legal hold keeps it.
    pub held: bool,
}

/// Some of the idle cards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdlePage {
    /// They, in the order of their tokens.
    pub cards: Vec<IdleCard>,
    /// Where to go on; none at the end.
    pub after: Option<Token>,
}

/// A legal hold of a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegalHold {
    /// Whose word it is, such as a case's number; empty for one without a reference.
    pub reference: String,
    /// When it was set; none if that was before there were references.
    pub since: Option<Time>,
}
