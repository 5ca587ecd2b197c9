//! Reads a leaf back, strictly: bytes that this version would not write are no leaf.

use std::borrow::Cow;

use data_encoding::HEXLOWER;
use serde::Deserialize;

use super::canonical::{LEAF_BYTES_MAX, Leaf, TenantPlace, VERSION};
use super::event::{Actor, CardFacts, EventOutcome, Facts, Opening, Origin, Statement, Target};
use crate::attest::merkle::Hash;
use crate::card::id::{AttemptId, EventId, RequestId, Token};
use crate::card::tenant::TenantId;
use crate::clock::Time;

/// Why bytes are no leaf; none of them quotes the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// Too long.
    #[error("a leaf is at most 64 KiB")]
    Long,
    /// Not the JSON of an event.
    #[error("not the JSON of an event")]
    Shape,
    /// Written by another version.
    #[error("a format version that this verifier does not know")]
    Version,
    /// An id, hash or time that is none.
    #[error("an id, hash or time in it is malformed")]
    Value,
    /// An event all the same, but not in its one spelling.
    #[error("not in canonical form")]
    NotCanonical,
}

/// A leaf that was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedLeaf {
    /// The node whose log this is.
    pub node: String,
    /// Its place, from 0.
    pub seq: u64,
    /// SHA-256 of the leaf before.
    pub prev: Hash,
    /// Whose log it also belongs to, and its place there.
    pub tenant: Option<TenantPlace>,
    /// When.
    pub time: Time,
    /// Its id.
    pub id: EventId,
    /// Who.
    pub actor: Actor,
    /// From where.
    pub origin: Origin,
    /// What.
    pub action: String,
    /// How it ended.
    pub outcome: EventOutcome,
    /// To what.
    pub target: Target,
    /// The data keys involved.
    pub keys: Vec<u32>,
    /// What else.
    pub facts: Facts,
}

impl OwnedLeaf {
    /// Reads the canonical JSON of a leaf and nothing else.
    pub fn read(bytes: &[u8]) -> Result<Self, LeafError> {
        if bytes.len() > LEAF_BYTES_MAX {
            return Err(LeafError::Long);
        }
        let text: LeafText<'_> = serde_json::from_slice(bytes).map_err(|_| LeafError::Shape)?;
        if text.v != VERSION {
            return Err(LeafError::Version);
        }
        let leaf = text.into_leaf().ok_or(LeafError::Value)?;
        let mut again = Vec::with_capacity(bytes.len());
        leaf.view().write(&mut again);
        if again == bytes { Ok(leaf) } else { Err(LeafError::NotCanonical) }
    }

    /// The same leaf, borrowed, as it is written.
    pub fn view(&self) -> Leaf<'_> {
        Leaf {
            node: &self.node,
            seq: self.seq,
            prev: self.prev,
            tenant: self.tenant,
            time: self.time,
            id: self.id,
            actor: &self.actor,
            origin: &self.origin,
            action: &self.action,
            outcome: &self.outcome,
            target: &self.target,
            keys: &self.keys,
            facts: &self.facts,
        }
    }
}

/// Reads a hash in lower-case hex.
pub fn read_hash(text: &str) -> Option<Hash> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LeafText<'a> {
    #[serde(borrow)]
    action: Cow<'a, str>,
    actor: Actor,
    #[serde(default)]
    facts: FactsText<'a>,
    id: Cow<'a, str>,
    #[serde(default)]
    keys: Vec<u32>,
    node: Cow<'a, str>,
    #[serde(default)]
    origin: OriginText<'a>,
    outcome: EventOutcome,
    prev: Cow<'a, str>,
    seq: u64,
    target: Target,
    tenant: Option<TenantId>,
    tenant_prev: Option<Cow<'a, str>>,
    tenant_seq: Option<u64>,
    time: Cow<'a, str>,
    v: u64,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OriginText<'a> {
    ip: Option<String>,
    #[serde(borrow)]
    request: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FactsText<'a> {
    #[serde(borrow)]
    attempt: Option<Cow<'a, str>>,
    card_sha256: Option<String>,
    #[serde(borrow, default)]
    cards: Vec<CardText<'a>>,
    count: Option<u64>,
    customer: Option<String>,
    #[serde(default)]
    fields: Vec<String>,
    note: Option<String>,
    opening: Option<OpeningText<'a>>,
    row_sha256: Option<String>,
    statement: Option<Statement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OpeningText<'a> {
    boot: String,
    destination: String,
    hash: String,
    purpose: String,
    seq: u64,
    #[serde(borrow)]
    token: Cow<'a, str>,
    #[serde(borrow, default)]
    tokens: Vec<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CardText<'a> {
    sha256: String,
    #[serde(borrow)]
    token: Cow<'a, str>,
    version: u32,
}

impl LeafText<'_> {
    fn into_leaf(self) -> Option<OwnedLeaf> {
        let tenant = match (self.tenant, self.tenant_seq, self.tenant_prev) {
            (None, None, None) => None,
            (Some(tenant), Some(seq), Some(prev)) => {
                Some(TenantPlace { tenant, seq, prev: read_hash(&prev)? })
            }
            _ => return None,
        };
        Some(OwnedLeaf {
            node: self.node.into_owned(),
            seq: self.seq,
            prev: read_hash(&self.prev)?,
            tenant,
            time: Time::parse(&self.time)?,
            id: EventId::parse(&self.id)?,
            actor: self.actor,
            origin: Origin {
                ip: self.origin.ip,
                request: read_id(self.origin.request.as_deref(), RequestId::parse)?,
            },
            action: self.action.into_owned(),
            outcome: self.outcome,
            target: self.target,
            keys: self.keys,
            facts: self.facts.into_facts()?,
        })
    }
}

impl FactsText<'_> {
    fn into_facts(self) -> Option<Facts> {
        let opening = match self.opening {
            None => None,
            Some(text) => Some(Opening {
                token: Token::parse(&text.token)?,
                tokens: text.tokens.iter().map(|token| Token::parse(token)).collect::<Option<_>>()?,
                boot: text.boot,
                seq: text.seq,
                purpose: text.purpose,
                destination: text.destination,
                hash: text.hash,
            }),
        };
        let card = |text: CardText<'_>| {
            let token = Token::parse(&text.token)?;
            Some(CardFacts { sha256: text.sha256, token, version: text.version })
        };
        Some(Facts {
            card_sha256: self.card_sha256,
            cards: self.cards.into_iter().map(card).collect::<Option<_>>()?,
            customer: self.customer,
            attempt: read_id(self.attempt.as_deref(), AttemptId::parse)?,
            opening: opening.map(Box::new),
            row_sha256: self.row_sha256,
            statement: self.statement.map(Box::new),
            fields: self.fields,
            count: self.count,
            note: self.note,
        })
    }
}

/// None for malformed, `Some(None)` for absent.
fn read_id<T>(text: Option<&str>, parse: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    text.map_or(Some(None), |text| parse(text).map(Some))
}
