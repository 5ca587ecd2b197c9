//! Charges, agreements with their consent, and answers about them, once their own period is over: what is forgotten.

use crate::card::id::{AgreementId, ChargeId, Token};
use crate::card::tenant::TenantId;

/// Something that is older than its tenant keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outlived {
    /// A charge that has not changed for so long.
    Charge {
        /// Whose.
        tenant: TenantId,
        /// Which.
        id: ChargeId,
    },
    /// An agreement that ended so long ago, of a card that was erased so long ago.
    Agreement {
        /// Whose.
        tenant: TenantId,
        /// The card.
        token: Token,
        /// Which.
        id: AgreementId,
    },
    /// An answer, kept for its replay, about a charge or an agreement that is forgotten.
    Answer {
        /// The store's own number of it.
        row: i64,
    },
}

/// What keeps a record though its period is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeptBy {
    /// A legal hold of its card.
    Hold,
    /// Somebody or something still has to find out what became of it, or an authorization is open.
    Open,
}

/// Where a look through all records stands: charges first, then agreements, then answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutlivedPlace {
    /// After the charge with this number of the store's own.
    Charges(i64),
    /// After this agreement; none at the first.
    Agreements(Option<(Token, AgreementId)>),
    /// After the answer with this number of the store's own.
    Answers(i64),
}

impl OutlivedPlace {
    /// Where a look begins.
    pub const START: Self = Self::Charges(0);
}

/// Some of the records that are older than their tenants keep them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutlivedPage {
    /// They, each with what keeps it, if anything does.
    pub records: Vec<(Outlived, Option<KeptBy>)>,
    /// Where to go on; none at the end.
    pub after: Option<OutlivedPlace>,
}
