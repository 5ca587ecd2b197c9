//! The bytes of a leaf: canonical JSON (RFC 8785) of one event, written directly and read back strictly.
//!
//! One object without white space, keys sorted, integers only (below 2^53), strings escaped as RFC 8785 says. An absent value and an
//! empty list are left out; an object with nothing in it is left out; strings are always written.
//!
//! | key | value |
//! |---|---|
//! | `action` | one of [`super::catalogue`] |
//! | `actor` | `{"id","type"}`; type `person`, `application`, `system`, `unknown` |
//! | `facts` | `{"attempt","card_sha256","count","customer","fields","note","opening","statement"}`, see [`Facts`] |
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
//! `facts.opening` is `{"boot","destination","hash","purpose","seq","token"}`, `facts.statement` is `{"boot","openings","signature"}`
//! with openings of `{"hash","purpose","seq"}`.

use data_encoding::HEXLOWER;

use super::event::{Actor, EventOutcome, Facts, Opening, Origin, Statement, Target};
use crate::attest::json::{digit, write_list, write_string, write_u64};
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
        write_time(object.key("time"), self.time);
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
    object.number_if("count", facts.count);
    object.string_if("customer", facts.customer.as_deref());
    if !facts.fields.is_empty() {
        write_list(object.key("fields"), &facts.fields, |out, field| write_string(out, field));
    }
    object.string_if("note", facts.note.as_deref());
    if let Some(opening) = &facts.opening {
        write_opening(object.key("opening"), opening);
    }
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

/// `9999-12-31T23:59:59.999999Z`: past it the calendar's own printing decides.
const FAST_MICROS_MAX: i64 = 253_402_300_799_999_999;

/// Writes an instant as [`Time`]'s own printing does, some ten times faster.
fn write_time(out: &mut Vec<u8>, time: Time) {
    let Ok(micros) = u64::try_from(time.micros) else { return write_string(out, &time.to_string()) };
    if time.micros > FAST_MICROS_MAX {
        return write_string(out, &time.to_string());
    }
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (year, month, day) = civil(seconds / 86_400);
    let of_day = seconds % 86_400;
    out.push(b'"');
    for (value, width, then) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (of_day / 3_600, 2, b':'),
        (of_day / 60 % 60, 2, b':'),
        (of_day % 60, 2, b'.'),
        (micros, 6, b'Z'),
    ] {
        let mut place = 10_u64.pow(width - 1);
        while place > 0 {
            out.push(digit(value / place));
            place /= 10;
        }
        out.push(then);
    }
    out.push(b'"');
}

/// The Gregorian date of a day since 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms").
const fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}
