//! Cards sealed again: what the edge asks of the keeper when a key takes over from another.

use serde::{Deserialize, Serialize};

use super::keeper::Opened;
use crate::card::fingerprint::Fingerprint;
use crate::card::id::{EventId, Token};
use crate::card::sealed::SealedCard;
use crate::card::tenant::TenantId;

/// Cards that are sealed again at once: few enough that their event is a leaf of ordinary length.
pub const RESEAL_MAX: usize = 128;

/// Cards to seal again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reseal {
    /// Whose.
    pub tenant: TenantId,
    /// The event that will record the openings.
    pub event: EventId,
    /// Cards with their sealed fields; at most [`RESEAL_MAX`].
    pub cards: Vec<(Token, SealedCard)>,
}

/// Cards that were sealed again.
#[derive(Debug, Serialize, Deserialize)]
pub struct Resealed {
    /// The key that they are under now.
    pub key: u32,
    /// One for each, in their order; none for one that does not open.
    pub cards: Vec<Option<ResealedCard>>,
    /// The openings, if any number was opened.
    pub opened: Option<Opened>,
}

/// A card that was sealed again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResealedCard {
    /// The sealed fields.
    pub sealed: SealedCard,
    /// The number's keyed hash, while a fingerprint key takes over from another.
    pub fingerprint: Option<Fingerprint>,
}
