//! Audit events: who did what to what, when, from where, and how it ended (PCI DSS 10.2.2).
//!
//! A leaf of the log is one event as canonical JSON (RFC 8785): the fields of [`EventDraft`] plus what the log adds when it
//! appends: `v`, `node`, `seq`, `prev`, `tenant_seq`, `tenant_prev`, `time`.

use serde::{Deserialize, Serialize};

use crate::card::id::{AttemptId, EventId, RequestId, Token};
use crate::card::tenant::TenantId;

/// Who acted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "id", rename_all = "snake_case")]
pub enum Actor {
    /// A person, by principal id.
    Person(String),
    /// An application, by principal id.
    Application(String),
    /// The vault itself: recovery, the scrubber, the keeper.
    System(String),
    /// Somebody who could not prove who they are.
    Unknown(String),
}

/// From where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The peer's address.
    pub ip: Option<String>,
    /// The request.
    pub request: Option<RequestId>,
}

/// How it ended; the code is one of ours, never a caller's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventOutcome {
    /// Done.
    Ok,
    /// Refused.
    Denied(String),
    /// Failed.
    Error(String),
}

/// What it was done to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `card`, `charge`, `principal`, `tenant`, `key`, `log`, …
    pub kind: String,
    /// Its id: a token id, a charge id, …; never a caller's reference.
    pub id: String,
    /// Its version after the change, where it has one.
    pub version: Option<u32>,
}

/// The running account of what the keeper opened: sequence and hash as the keeper gave them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// The keeper's boot: random, one for each start.
    pub boot: String,
    /// Counts the openings of this boot and purpose, from 1.
    pub seq: u64,
    /// Why the PAN was opened: `charge`, `reseal`, `forward`.
    pub purpose: String,
    /// The card.
    pub token: Token,
    /// All cards, in order, where one event records several openings: they are numbered up to `seq`, and the last is `token`.
    pub tokens: Vec<Token>,
    /// Where it was to go: a destination's name, or empty for a re-seal.
    pub destination: String,
    /// The running hash after this opening, hex: SHA-256(previous hash ‖ length-prefixed (boot, seq, purpose, token,
    /// destination, event id)).
    pub hash: String,
}

/// What the keeper says it opened, signed by it just before a checkpoint; one line for each purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The keeper's boot.
    pub boot: String,
    /// Each purpose with the last sequence number and running hash (hex), sorted by purpose.
    pub openings: Vec<StatementLine>,
    /// Ed25519 signature, base64, over the canonical JSON of `boot` and `openings`, prefixed `cardvault/statement/v1\n`.
    pub signature: String,
}

/// The last opening of one purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementLine {
    /// The purpose.
    pub purpose: String,
    /// Its last sequence number; 0 for none.
    pub seq: u64,
    /// The running hash after it, hex; 64 zeros for none.
    pub hash: String,
}

/// What else an event may carry. Never PAN, CVC, expiry, zip, fingerprint, nor what a caller sent as a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// SHA-256 (hex) of the sealed card after the change.
    pub card_sha256: Option<String>,
    /// Cards that were sealed again.
    pub cards: Vec<CardFacts>,
    /// A pseudonym of the customer reference: in a draft as the keeper keyed it, in a leaf salted as well; the salt goes with the
    /// customer's last card.
    pub customer: Option<String>,
    /// The attempt at a processor.
    pub attempt: Option<AttemptId>,
    /// SHA-256 (hex) of a principal's or tenant's row after the change.
    pub row_sha256: Option<String>,
    /// An opening of a PAN.
    pub opening: Option<Box<Opening>>,
    /// A statement of the keeper.
    pub statement: Option<Box<Statement>>,
    /// Which fields changed, or another list of our own words.
    pub fields: Vec<String>,
    /// A number: how many reads, rows, keys.
    pub count: Option<u64>,
    /// A reason or state in our own words.
    pub note: Option<String>,
}

/// A card among several that one event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardFacts {
    /// SHA-256 (hex) of its sealed fields after the change.
    pub sha256: String,
    /// Which.
    pub token: Token,
    /// Which version of it these are.
    pub version: u32,
}

/// An event before the log has given it its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventDraft {
    /// Its id.
    pub id: EventId,
    /// Whose log it also belongs to; none for the installation's own.
    pub tenant: Option<TenantId>,
    /// Who.
    pub actor: Actor,
    /// From where.
    pub origin: Origin,
    /// What, such as `card.create`, `card.read`, `charge.send`; the list is in the catalogue of [`super`].
    pub action: &'static str,
    /// How it ended.
    pub outcome: EventOutcome,
    /// To what.
    pub target: Target,
    /// The data keys involved.
    pub keys: Vec<u32>,
    /// What else.
    pub facts: Facts,
}
