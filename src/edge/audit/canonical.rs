//! The bytes of a leaf: canonical JSON (RFC 8785) of one event, written directly and read back strictly.
//!
//! One object without white space, keys sorted, integers only (below 2^53), strings escaped as RFC 8785 says. An absent value and an
//! empty list are left out; an object with nothing in it is left out; strings are always written.
//!
//! | key | value |
//! |---|---|
//! | `action` | one of [`super::catalogue`] |
//! | `actor` | `{"id","type"}`; type `person`, `application`, `system`, `unknown` |
//! | `facts` | `{"attempt","card_sha256","cards","count","customer","fields","note","opening","row_sha256","statement"}`, see [`Facts`] |
//! | `id` | the event's id, `evt_…` |
//! | `keys` | ids of the data keys involved |
//! | `node` | the node whose log this is |
//! | `origin` | `{"ip","request"}` |
//! | `outcome` | `"ok"`, `{"denied":code}` or `{"error":code}` |
//! | `prev` | SHA-256 (hex) of the leaf before; 64 zeros for the first |
//! | `seq` | the place in the log, from 0 |
//! | `target` | `{"id","kind","version"}` |
//! | `tenant` | the tenant's number; left out for the installation's own events, and so are the next two |
//! | `tenant_prev` | SHA-256 (hex) of this tenant's leaf before; 64 zeros for its first |
//! | `tenant_seq` | the place among this tenant's events, from 0 |
//! | `time` | RFC 3339, UTC, six decimals, ends in `Z` |
//! | `v` | 1 |
//!
//! `facts.cards` is a list of `{"sha256","token","version"}`, `facts.opening` is
//! `{"boot","destination","hash","purpose","seq","token","tokens"}`, `facts.statement` is `{"boot","openings","signature"}`
//! with openings of `{"hash","purpose","seq"}`.

use data_encoding::HEXLOWER;

use super::event::{Actor, EventOutcome, Facts, Opening, Origin, Statement, Target};
use crate::attest::json::{write_list, write_string, write_u64};
use crate::attest::merkle::Hash;
use crate::card::id::EventId;
use crate::card::tenant::TenantId;
use crate::clock::Time;

/// The version of the format: the value of `v`.
pub const VERSION: u64 = 1;
/// The longest leaf, in bytes.
pub const LEAF_BYTES_MAX: usize = 64 * 1024;

/// A leaf: an event and its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf<'a> {
    /// The node whose log this is.
    pub node: &'a str,
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
    pub actor: &'a Actor,
    /// From where.
    pub origin: &'a Origin,
    /// What.
    pub action: &'a str,
    /// How it ended.
    pub outcome: &'a EventOutcome,
    /// To what.
    pub target: &'a Target,
    /// The data keys involved.
    pub keys: &'a [u32],
    /// What else.
    pub facts: &'a Facts,
}

/// An event's place among the events of its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantPlace {
    /// Whose.
    pub tenant: TenantId,
    /// From 0.
    pub seq: u64,
    /// SHA-256 of this tenant's leaf before.
    pub prev: Hash,
}

impl Leaf<'_> {
    /// Appends the canonical JSON to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut object = Object::open(out);
        object.string("action", self.action);
        write_actor(object.key("actor"), self.actor);
        if *self.facts != Facts::default() {
            write_facts(object.key("facts"), self.facts);
        }
        object.shown("id", self.id);
        if !self.keys.is_empty() {
            write_list(object.key("keys"), self.keys, |out, key| write_u64(out, u64::from(*key)));
        }
        object.string("node", self.node);
        if self.origin.ip.is_some() || self.origin.request.is_some() {
            let mut origin = Object::open(object.key("origin"));
            origin.string_if("ip", self.origin.ip.as_deref());
            origin.shown_if("request", self.origin.request);
            origin.close();
        }
        write_outcome(object.key("outcome"), self.outcome);
        object.hash("prev", &self.prev);
        object.number("seq", self.seq);
        let mut target = Object::open(object.key("target"));
        target.string("id", &self.target.id);
        target.string("kind", &self.target.kind);
        target.number_if("version", self.target.version.map(u64::from));
        target.close();
        if let Some(place) = &self.tenant {
            object.number("tenant", u64::from(place.tenant.0));
            object.hash("tenant_prev", &place.prev);
            object.number("tenant_seq", place.seq);
        }
        object.shown("time", self.time);
        object.number("v", VERSION);
        object.close();
    }
}

fn write_actor(out: &mut Vec<u8>, actor: &Actor) {
    let (kind, id) = match actor {
        Actor::Person(id) => ("person", id),
        Actor::Application(id) => ("application", id),
        Actor::System(id) => ("system", id),
        Actor::Unknown(id) => ("unknown", id),
    };
    let mut object = Object::open(out);
    object.string("id", id);
    object.string("type", kind);
    object.close();
}

fn write_outcome(out: &mut Vec<u8>, outcome: &EventOutcome) {
    let (word, code) = match outcome {
        EventOutcome::Ok => return write_string(out, "ok"),
        EventOutcome::Denied(code) => ("denied", code),
        EventOutcome::Error(code) => ("error", code),
    };
    let mut object = Object::open(out);
    object.string(word, code);
    object.close();
}

fn write_facts(out: &mut Vec<u8>, facts: &Facts) {
    let mut object = Object::open(out);
    object.shown_if("attempt", facts.attempt);
    object.string_if("card_sha256", facts.card_sha256.as_deref());
    if !facts.cards.is_empty() {
        write_list(object.key("cards"), &facts.cards, |out, card| {
            let mut object = Object::open(out);
            object.string("sha256", &card.sha256);
            object.shown("token", card.token);
            object.number("version", u64::from(card.version));
            object.close();
        });
    }
    object.number_if("count", facts.count);
    object.string_if("customer", facts.customer.as_deref());
    if !facts.fields.is_empty() {
        write_list(object.key("fields"), &facts.fields, |out, field| write_string(out, field));
    }
    object.string_if("note", facts.note.as_deref());
    if let Some(opening) = &facts.opening {
        write_opening(object.key("opening"), opening);
    }
    object.string_if("row_sha256", facts.row_sha256.as_deref());
    if let Some(statement) = &facts.statement {
        write_statement(object.key("statement"), statement);
    }
    object.close();
}

fn write_opening(out: &mut Vec<u8>, opening: &Opening) {
    let mut object = Object::open(out);
    object.string("boot", &opening.boot);
    object.string("destination", &opening.destination);
    object.string("hash", &opening.hash);
    object.string("purpose", &opening.purpose);
    object.number("seq", opening.seq);
    object.shown("token", opening.token);
    if !opening.tokens.is_empty() {
        write_list(object.key("tokens"), &opening.tokens, |out, token| write_string(out, &token.to_string()));
    }
    object.close();
}

fn write_statement(out: &mut Vec<u8>, statement: &Statement) {
    let mut object = Object::open(out);
    object.string("boot", &statement.boot);
    write_list(object.key("openings"), &statement.openings, |out, line| {
        let mut object = Object::open(out);
        object.string("hash", &line.hash);
        object.string("purpose", &line.purpose);
        object.number("seq", line.seq);
        object.close();
    });
    object.string("signature", &statement.signature);
    object.close();
}

/// Writes the members of an object; the caller names them in sorted order.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    fn close(self) {
        self.out.push(b'}');
    }

    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    fn string(&mut self, key: &str, value: &str) {
        write_string(self.key(key), value);
    }

    fn string_if(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.string(key, value);
        }
    }

    fn number(&mut self, key: &str, value: u64) {
        write_u64(self.key(key), value);
    }

    fn number_if(&mut self, key: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.number(key, value);
        }
    }

    fn hash(&mut self, key: &str, value: &Hash) {
        let out = self.key(key);
        let mut text = [0; 64];
        HEXLOWER.encode_mut(value, &mut text);
        out.push(b'"');
        out.extend_from_slice(&text);
        out.push(b'"');
    }

    /// An id: its text needs no escapes.
    fn shown(&mut self, key: &str, value: impl std::fmt::Display) {
        use std::io::Write as _;
        // Writing to a Vec cannot fail.
        let _ = write!(self.key(key), "\"{value}\"");
    }

    fn shown_if(&mut self, key: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.shown(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::id::{AttemptId, IdBytes, RequestId, Token};
    use crate::edge::audit::event::{CardFacts, StatementLine};
    use crate::edge::audit::read::{LeafError, OwnedLeaf};
    use proptest::prelude::*;

    /// Every field filled.
    pub(crate) fn full() -> OwnedLeaf {
        OwnedLeaf {
            node: "n1".into(),
            seq: 7,
            prev: [0xab; 32],
            tenant: Some(TenantPlace { tenant: TenantId(3), seq: 2, prev: [0xcd; 32] }),
            time: Time::from_micros(1_700_000_000_123_456),
            id: EventId(IdBytes([1; 18])),
            actor: Actor::Application("prn_x".into()),
            origin: Origin { ip: Some("203.0.113.9".into()), request: Some(RequestId(IdBytes([2; 18]))) },
            action: "charge.send".into(),
            outcome: EventOutcome::Denied("token_suspended".into()),
            target: Target { kind: "card".into(), id: "tok_x".into(), version: Some(4) },
            keys: vec![1, 70_000],
            facts: Facts {
                card_sha256: Some("ef".repeat(32)),
                cards: Vec::new(),
                customer: Some("0123".into()),
                row_sha256: None,
                attempt: Some(AttemptId(IdBytes([3; 18]))),
                opening: Some(Box::new(Opening {
                    boot: "b1".into(),
                    seq: 9,
                    purpose: "charge".into(),
                    token: Token(IdBytes([4; 18])),
                    tokens: Vec::new(),
                    destination: "sandbox".into(),
                    hash: "12".repeat(32),
                })),
                statement: Some(Box::new(Statement {
                    boot: "b1".into(),
                    openings: vec![StatementLine { purpose: "charge".into(), seq: 9, hash: "12".repeat(32) }],
                    signature: "AAAA".into(),
                })),
                fields: vec!["expiry".into(), "zip".into()],
                count: Some(0),
                note: Some("quote \" slash \\ tab \t bell \u{7} del \u{7f} é \u{1f600}".into()),
            },
        }
    }

    /// Nothing filled that may be absent.
    fn bare() -> OwnedLeaf {
        OwnedLeaf {
            tenant: None,
            origin: Origin::default(),
            outcome: EventOutcome::Ok,
            target: Target { version: None, ..full().target },
            keys: Vec::new(),
            facts: Facts::default(),
            ..full()
        }
    }

    /// An event about two cards that were opened and sealed again.
    fn several() -> OwnedLeaf {
        let tokens = [4, 5].map(|n| Token(IdBytes([n; 18]))).to_vec();
        let card =
            |(token, version): (&Token, u32)| CardFacts { sha256: "ef".repeat(32), token: *token, version };
        let opening = Opening {
            boot: "b1".into(),
            seq: 2,
            purpose: "reseal".into(),
            token: tokens[1],
            tokens: tokens.clone(),
            destination: String::new(),
            hash: "12".repeat(32),
        };
        let facts = Facts {
            cards: tokens.iter().zip([1, 3]).map(card).collect(),
            opening: Some(Box::new(opening)),
            ..Facts::default()
        };
        OwnedLeaf { action: "card.reseal".into(), facts, ..bare() }
    }

    fn written(leaf: &OwnedLeaf) -> String {
        let mut out = Vec::new();
        leaf.view().write(&mut out);
        String::from_utf8(out).unwrap()
    }

    /// Vectors are added to, never edited: other verifiers are built against them.
    #[test]
    fn leaves_are_written_as_the_vectors_say() {
        let vectors = include_str!("../../../tests/vectors/audit/leaves.ndjson");
        let error = OwnedLeaf { outcome: EventOutcome::Error("io".into()), ..bare() };
        let person = OwnedLeaf { actor: Actor::Person("prn_y".into()), ..bare() };
        let row = Facts { note: Some("test".into()), row_sha256: Some("9a".repeat(32)), ..Facts::default() };
        let row = OwnedLeaf { facts: row, ..bare() };
        let leaves = [full(), bare(), error, person, row, several()];
        assert_eq!(vectors.lines().count(), leaves.len());
        for (leaf, vector) in leaves.iter().zip(vectors.lines()) {
            assert_eq!(written(leaf), vector);
            assert_eq!(OwnedLeaf::read(vector.as_bytes()).as_ref(), Ok(leaf));
        }
    }

    #[test]
    fn only_the_one_spelling_is_read() {
        let text = written(&full());
        let spaced = text.replacen("\":", "\": ", 1);
        let unsorted = text.replacen("\"ip\":\"203.0.113.9\",", "", 1).replacen(
            "\"},\"outcome\"",
            "\",\"ip\":\"203.0.113.9\"},\"outcome\"",
            1,
        );
        let zoned = text.replacen(".123456Z", ".123456+00:00", 1);
        let escaped = text.replacen('é', "\\u00e9", 1);
        let nulled = written(&bare()).replacen("\"keys\"", "", 1).replacen(
            "\"id\":\"evt",
            "\"facts\":null,\"id\":\"evt",
            1,
        );
        let empty = written(&bare()).replacen("\"node\"", "\"keys\":[],\"node\"", 1);
        for other in [spaced, unsorted, zoned, escaped, empty] {
            assert_ne!(other, text);
            assert_eq!(OwnedLeaf::read(other.as_bytes()), Err(LeafError::NotCanonical));
        }
        assert_eq!(OwnedLeaf::read(nulled.as_bytes()), Err(LeafError::Shape));
        let later = text.replacen("\"v\":1", "\"v\":2", 1);
        assert_eq!(OwnedLeaf::read(later.as_bytes()), Err(LeafError::Version));
        let unknown = text.replacen("\"v\":1", "\"v\":1,\"w\":1", 1);
        assert_eq!(OwnedLeaf::read(unknown.as_bytes()), Err(LeafError::Shape));
        let half = text.replacen("\"tenant_seq\":2,", "", 1);
        assert_eq!(OwnedLeaf::read(half.as_bytes()), Err(LeafError::Value));
        assert_eq!(OwnedLeaf::read(&vec![b' '; LEAF_BYTES_MAX + 1]), Err(LeafError::Long));
    }

    proptest! {
        #[test]
        fn strings_are_escaped_as_every_json_writer_does(text: String) {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn control_characters_are_escaped_too(text in "[\\x00-\\x22\\x5b-\\x5e\\x7f]{0,8}") {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn numbers_are_decimal(value: u64) {
            let mut out = Vec::new();
            write_u64(&mut out, value);
            prop_assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }

        #[test]
        fn any_words_in_an_event_read_back(words in prop::collection::vec(any::<String>(), 6), count: Option<u32>) {
            let mut leaf = full();
            leaf.actor = Actor::Unknown(words[0].clone());
            leaf.outcome = EventOutcome::Error(words[1].clone());
            leaf.target.id = words[2].clone();
            leaf.facts.note = Some(words[3].clone());
            leaf.facts.fields = words[4..].to_vec();
            leaf.facts.count = count.map(u64::from);
            let text = written(&leaf);
            prop_assert_eq!(OwnedLeaf::read(text.as_bytes()), Ok(leaf));
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert!(value.is_object());
        }

        #[test]
        fn no_edited_byte_is_read_as_the_same_event(at: prop::sample::Index, to: u8) {
            let mut bytes = written(&full()).into_bytes();
            let at = at.index(bytes.len());
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            prop_assert_ne!(OwnedLeaf::read(&bytes), Ok(full()));
        }
    }
}
