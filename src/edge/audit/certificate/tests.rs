//! A certificate over a small log, and everything that may be done to it.

use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::Value;

use super::super::chain::Chain;
use super::super::event::{Actor, EventDraft, Facts, Origin, Target};
use super::super::tree::inclusion_path;
use super::super::tree::tests::Kept;
use super::*;
use crate::attest::merkle::{Hash, leaf_hash};
use crate::attest::note::{checkpoint_text, signed_note};
use crate::card::id::{EventId, IdBytes};
use crate::card::tenant::TenantId;

const ORIGIN: &str = "vault.example/n1";
const START: Time = Time::from_micros(1_700_000_000_000_000);
const TERMS: ErasureTerms = ErasureTerms { destroy_within_days: 30, key_backups_kept_days: 90 };

fn signer(seed: u8) -> (Ed25519KeyPair, VerifierKey) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let public_key = pair.public_key().as_ref().try_into().unwrap();
    (pair, VerifierKey::new(ORIGIN, public_key).unwrap())
}

pub(crate) fn key() -> VerifierKey {
    signer(7).1
}

fn token(number: u8) -> String {
    Token(IdBytes([number; 18])).to_string()
}

fn draft(action: &'static str, kind: &str, id: String) -> EventDraft {
    EventDraft {
        id: EventId(IdBytes([9; 18])),
        tenant: Some(TenantId(3)),
        actor: Actor::System("store".into()),
        origin: Origin::default(),
        action,
        outcome: EventOutcome::Ok,
        target: Target { kind: kind.into(), id, version: None },
        keys: Vec::new(),
        facts: Facts::default(),
    }
}

fn destroyed(key: u32, kept_days: u64) -> EventDraft {
    let facts = Facts { count: Some(kept_days), ..Facts::default() };
    EventDraft { facts, keys: vec![key], ..draft(catalogue::KEY_DESTROY, "key", key.to_string()) }
}

/// Day 0: a card that keys 4 and 6 may have sealed is erased. Day 1: its bytes are gone, and those of another. Day 28, 29: so are the keys.
fn story() -> Vec<(i64, EventDraft)> {
    let facts = Facts { count: Some(2), fields: TERMS.words(), ..Facts::default() };
    let erased = EventDraft { facts, keys: vec![4, 6], ..draft(catalogue::CARD_ERASED, "card", token(1)) };
    vec![
        (0, draft(catalogue::CARD_ERASE, "card", token(1))),
        (0, erased),
        (1, draft(catalogue::CARD_SCRUBBED, "card", token(2))),
        (1, draft(catalogue::CARD_SCRUBBED, "card", token(1))),
        (28, destroyed(6, 100)),
        (29, destroyed(4, 7)),
    ]
}

/// The evidence of these events of the story, under a checkpoint of all of it.
fn evidence(places: &[usize], seed: u8) -> Evidence {
    let mut chain = Chain::new("n1");
    let leaves: Vec<Vec<u8>> = story()
        .iter()
        .map(|(day, draft)| chain.append(draft, START.plus_seconds(day * DAY_SECONDS)).leaf)
        .collect();
    let (kept, frontier) = Kept::of(leaves.iter().map(|leaf| leaf_hash(leaf)));
    let (pair, key) = signer(seed);
    let text = checkpoint_text(ORIGIN, frontier.size(), &frontier.root());
    let public_key: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
    let signature = pair.sign(text.as_bytes()).as_ref().try_into().unwrap();
    let proven = |at: &usize| {
        let path: Vec<Hash> = inclusion_path(&kept, *at as u64, frontier.size()).unwrap();
        Proven::new(&leaves[*at], *at as u64, &path)
    };
    Evidence {
        checkpoint: signed_note(&text, key.name(), &public_key, &signature),
        events: places.iter().map(proven).collect(),
    }
}

fn issue(places: &[usize], day: i64) -> Certificate {
    Certificate::issue(&key(), evidence(places, 7), START.plus_seconds(day * DAY_SECONDS)).unwrap()
}

/// One that is final.
pub(crate) fn whole() -> Certificate {
    issue(&[1, 3, 4, 5], 200)
}

fn day(days: i64) -> Option<String> {
    Some(START.plus_seconds(days * DAY_SECONDS).to_string())
}

#[test]
fn a_certificate_is_planned_until_all_has_happened_and_then_final() {
    let planned = issue(&[1, 3, 4], 28);
    assert_eq!((planned.status, &planned.unrecoverable_after), (Standing::Planned, &day(30 + 90)));
    assert_eq!((planned.tenant, planned.rows_removed, planned.token.as_str()), (3, 2, token(1).as_str()));
    assert_eq!((&planned.scrubbed_at, planned.keys[0].destroyed_at.as_ref()), (&day(1), None));
    // Bytes that may be in a file keep it from being final as well.
    assert_eq!(issue(&[1, 4, 5], 29).status, Standing::Planned);
    let late = issue(&[1, 3, 4], 120);
    assert_eq!((late.status, &late.unrecoverable_after), (Standing::Overdue, &None));
    let whole = whole();
    // Key 6 went first, and its backups are the last to go.
    assert_eq!((whole.status, &whole.unrecoverable_after), (Standing::Final, &day(28 + 100)));
    for certificate in [planned, late, whole] {
        let read = Certificate::read(&serde_json::to_vec(&certificate).unwrap()).unwrap();
        assert_eq!(read.verify(&key()).unwrap().size, 6);
    }
}

#[test]
fn evidence_of_something_else_is_refused() {
    for (places, fault) in [
        (&[][..], Fault::NoErasure),
        (&[0], Fault::NoErasure),
        (&[3, 1], Fault::NoErasure),
        (&[1, 2], Fault::Unrelated(2)),
        (&[1, 3, 3], Fault::Unrelated(3)),
        (&[1, 4, 5, 4], Fault::Unrelated(4)),
        (&[1, 0], Fault::Unrelated(2)),
    ] {
        let refused = Certificate::issue(&key(), evidence(places, 7), START).unwrap_err();
        assert_eq!(refused, fault, "{places:?}");
    }
}

#[test]
fn another_logs_checkpoint_or_key_is_refused() {
    let mut foreign = whole();
    foreign.evidence.checkpoint = evidence(&[], 8).checkpoint;
    assert!(foreign.verify(&key()).unwrap_err().contains(&Fault::Checkpoint));
    let other = signer(8).1;
    assert!(whole().verify(&other).unwrap_err().contains(&Fault::OtherLog));
    // Whoever has no key signs under his own, and it is not the one that was published.
    let forged = Certificate::issue(&other, evidence(&[1, 3, 4, 5], 8), START).unwrap();
    assert!(forged.verify(&other).is_ok());
    assert_eq!(
        forged.verify(&key()).unwrap_err(),
        [Fault::OtherLog, Fault::Checkpoint, Fault::Inclusion(1)][..2]
    );
}

#[test]
fn what_the_events_do_not_say_is_named() {
    let edited = |edit: fn(&mut Certificate)| {
        let mut certificate = whole();
        edit(&mut certificate);
        certificate.verify(&key()).unwrap_err()
    };
    assert_eq!(edited(|it| it.unrecoverable_after = day(28)), [Fault::Field("unrecoverable_after")]);
    assert_eq!(edited(|it| it.keys.truncate(1)), [Fault::Field("keys")]);
    assert_eq!(edited(|it| it.token = token(2)), [Fault::Field("token")]);
    // A key whose end was left out lives, as far as anybody can tell.
    let missing = edited(|it| drop(it.evidence.events.pop()));
    assert_eq!(missing, ["status", "keys", "unrecoverable_after"].map(Fault::Field));
}

/// All strings and numbers in a JSON value, to be changed in turn.
fn leaves(value: &mut Value) -> Vec<&mut Value> {
    match value {
        Value::Array(list) => list.iter_mut().flat_map(leaves).collect(),
        Value::Object(members) => members.values_mut().flat_map(leaves).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => vec![value],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_byte_of_a_certificate_can_be_changed(which: prop::sample::Index, at: prop::sample::Index, to in 0_u8..128) {
        let mut value = serde_json::to_value(whole()).unwrap();
        let mut all = leaves(&mut value);
        let place = which.index(all.len());
        let edited = match &*all[place] {
            Value::String(text) => {
                let mut bytes = text.clone().into_bytes();
                let at = at.index(bytes.len());
                prop_assume!(bytes[at] != to);
                bytes[at] = to;
                // In the middle of a letter of several bytes it is no text any more.
                let Ok(text) = String::from_utf8(bytes) else { return Ok(()) };
                Value::String(text)
            }
            Value::Number(number) => {
                let mut digits = number.to_string().into_bytes();
                let at = at.index(digits.len());
                digits[at] = b'0' + to % 10;
                let text = String::from_utf8(digits).unwrap();
                prop_assume!(text != number.to_string());
                let Ok(number) = serde_json::from_str::<u64>(&text) else { return Ok(()) };
                Value::from(number)
            }
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return Ok(()),
        };
        *all[place] = edited;
        let read = Certificate::read(&serde_json::to_vec(&value).unwrap());
        prop_assert!(read.is_err() || read.unwrap().verify(&key()).is_err(), "{place}");
    }
}
