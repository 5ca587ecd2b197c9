//! Leaves of the log: one spelling each, which any JSON reader reads and only the strict one takes.

use cardvault::card::id::{AttemptId, EventId, IdBytes, RequestId, Token};
use cardvault::card::tenant::TenantId;
use cardvault::clock::Time;
use cardvault::edge::audit::canonical::TenantPlace;
use cardvault::edge::audit::event::{
    Actor, CardFacts, EventOutcome, Facts, Opening, Origin, Statement, StatementLine, Target,
};
use cardvault::edge::audit::read::{LeafError, OwnedLeaf};
use proptest::option::of;
use proptest::prelude::*;
use serde_json::Value;

/// Integers that every JSON reader holds exactly.
const EXACT: std::ops::Range<u64> = 0..1 << 53;

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,12}", "[\\x00-\\x7f]{0,12}", "[\"\\\\/\u{7f}é\u{2028}\u{1f600}]{0,6}"]
}

fn id() -> impl Strategy<Value = IdBytes> {
    any::<[u8; 18]>().prop_map(IdBytes)
}

fn opening() -> impl Strategy<Value = Opening> {
    let tokens = prop::collection::vec(id().prop_map(Token), 0..3);
    (text(), EXACT, text(), (id(), tokens), text(), text()).prop_map(
        |(boot, seq, purpose, (token, tokens), destination, hash)| Opening {
            boot,
            seq,
            purpose,
            token: Token(token),
            tokens,
            destination,
            hash,
        },
    )
}

fn statement() -> impl Strategy<Value = Statement> {
    let line = (text(), EXACT, text()).prop_map(|(purpose, seq, hash)| StatementLine { purpose, seq, hash });
    (text(), prop::collection::vec(line, 0..3), text()).prop_map(|(boot, openings, signature)| Statement {
        boot,
        openings,
        signature,
    })
}

fn facts() -> impl Strategy<Value = Facts> {
    let words = (of(text()), of(text()), of(text()), of(text()));
    let card = (text(), id(), any::<u32>());
    let card = card.prop_map(|(sha256, token, version)| CardFacts { sha256, token: Token(token), version });
    let cards = prop::collection::vec(card, 0..3);
    let lists = (prop::collection::vec(text(), 0..3), cards, of(EXACT), of(id()));
    (words, lists, of(opening()), of(statement())).prop_map(
        |((card_sha256, customer, row_sha256, note), (fields, cards, count, attempt), opening, statement)| {
            Facts {
                card_sha256,
                cards,
                customer,
                attempt: attempt.map(AttemptId),
                row_sha256,
                opening: opening.map(Box::new),
                statement: statement.map(Box::new),
                fields,
                count,
                note,
            }
        },
    )
}

fn leaf() -> impl Strategy<Value = OwnedLeaf> {
    let actor = (0..4, text()).prop_map(|(kind, id)| match kind {
        0 => Actor::Person(id),
        1 => Actor::Application(id),
        2 => Actor::System(id),
        _ => Actor::Unknown(id),
    });
    let outcome = (0..3, text()).prop_map(|(kind, code)| match kind {
        0 => EventOutcome::Ok,
        1 => EventOutcome::Denied(code),
        _ => EventOutcome::Error(code),
    });
    let tenant = (any::<u32>(), EXACT, any::<[u8; 32]>()).prop_map(|(tenant, seq, prev)| TenantPlace {
        tenant: TenantId(tenant),
        seq,
        prev,
    });
    let origin =
        (of(text()), of(id())).prop_map(|(ip, request)| Origin { ip, request: request.map(RequestId) });
    let target =
        (text(), text(), of(any::<u32>())).prop_map(|(kind, id, version)| Target { kind, id, version });
    let place = (text(), EXACT, any::<[u8; 32]>(), of(tenant), 0_i64..4_102_444_800_000_000, id());
    let what = (actor, origin, text(), outcome, target, prop::collection::vec(any::<u32>(), 0..3), facts());
    (place, what).prop_map(|((node, seq, prev, tenant, time, id), what)| {
        let (actor, origin, action, outcome, target, keys, facts) = what;
        let (time, id) = (Time::from_micros(time), EventId(id));
        OwnedLeaf { node, seq, prev, tenant, time, id, actor, origin, action, outcome, target, keys, facts }
    })
}

fn written(leaf: &OwnedLeaf) -> Vec<u8> {
    let mut out = Vec::new();
    leaf.view().write(&mut out);
    out
}

/// The same object with its members in another order: rotated by so many.
fn rotated(value: &Value, by: usize) -> String {
    let Value::Object(members) = value else { return value.to_string() };
    let mut parts: Vec<String> =
        members.iter().map(|(key, value)| format!("{}:{value}", Value::from(key.as_str()))).collect();
    let by = by % parts.len();
    parts.rotate_left(by);
    format!("{{{}}}", parts.join(","))
}

proptest! {
    #[test]
    fn a_leaf_reads_back_as_what_was_written(leaf in leaf()) {
        let bytes = written(&leaf);
        let read = OwnedLeaf::read(&bytes);
        prop_assert_eq!(read.as_ref(), Ok(&leaf));
        prop_assert_eq!(written(&read.unwrap()), bytes);
    }

    /// For what a leaf is made of, members in the order of their names and no white space is all that RFC 8785 asks for beyond
    /// what a common JSON writer does.
    #[test]
    fn its_spelling_is_that_of_another_json_writer(leaf in leaf()) {
        let bytes = written(&leaf);
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        prop_assert_eq!(serde_json::to_string(&value).unwrap().into_bytes(), bytes);
    }

    #[test]
    fn the_order_of_members_says_nothing_and_only_one_is_taken(leaf in leaf(), by in 1_usize..100) {
        let bytes = written(&leaf);
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        let other = rotated(&value, by);
        prop_assert_eq!(&serde_json::from_str::<Value>(&other).unwrap(), &value);
        if other.as_bytes() != bytes {
            prop_assert_eq!(OwnedLeaf::read(other.as_bytes()), Err(LeafError::NotCanonical));
        }
        let spaced = serde_json::to_string_pretty(&value).unwrap();
        prop_assert_eq!(OwnedLeaf::read(spaced.as_bytes()), Err(LeafError::NotCanonical));
    }

    #[test]
    fn no_two_leaves_share_a_spelling(one in leaf(), other in leaf()) {
        prop_assert_eq!(one == other, written(&one) == written(&other));
    }
}
