//! A whole small log, exported, signed and verified; and everything that may be done to it.

use std::io;

use data_encoding::{BASE64, HEXLOWER};
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::canonical::TenantPlace;
use super::cards::{CardFault, Cards};
use super::catalogue;
use super::chain::{Chain, NO_PREV};
use super::event::{
    Actor, EventDraft, EventOutcome, Facts, Opening, Origin, Statement, StatementLine, Target,
};
use super::export::{
    CardState, ExportError, Header, Log, RecordKind, RecordState, Row, checkpoint_line, export,
};
use super::openings::{OpeningCounts, OpeningFault};
use super::proof::Proof;
use super::read::OwnedLeaf;
use super::records::RecordFault;
use super::tree::tests::Kept;
use super::tree::{Frontier, inclusion_path};
use super::verify::{Fault, Report, verify};
use crate::attest::merkle::{Hash, leaf_hash, sha256};
use crate::attest::note::{Checkpoint, NoteError, VerifierKey, checkpoint_text, signed_note};
use crate::attest::{NO_OPENING, Opened, Stated, opening_hash, statement_bytes};
use crate::card::id::{EventId, IdBytes, Token};
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::edge::store::CardStatus;

const ORIGIN: &str = "vault.example/n1";
const START: Time = Time::from_micros(1_700_000_000_000_000);

/// The keeper's signing key.
struct Signer(Ed25519KeyPair);

impl Signer {
    fn of(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    fn public_key(&self) -> [u8; 32] {
        self.0.public_key().as_ref().try_into().unwrap()
    }

    fn key(&self) -> VerifierKey {
        VerifierKey::new(ORIGIN, self.public_key()).unwrap()
    }

    fn checkpoint(&self, leaves: &[Vec<u8>]) -> String {
        let (_, frontier) = Kept::of(leaves.iter().map(|leaf| leaf_hash(leaf)));
        let text = checkpoint_text(ORIGIN, frontier.size(), &frontier.root());
        let signature = self.0.sign(text.as_bytes()).as_ref().try_into().unwrap();
        signed_note(&text, ORIGIN, &self.public_key(), &signature)
    }

    fn statement(&self, boot: &str, lines: &[(&str, u64, Hash)]) -> Statement {
        let stated: Vec<Stated<'_>> =
            lines.iter().map(|(purpose, seq, hash)| Stated { purpose, seq: *seq, hash: *hash }).collect();
        Statement {
            boot: boot.into(),
            openings: stated
                .iter()
                .map(|line| StatementLine {
                    purpose: line.purpose.into(),
                    seq: line.seq,
                    hash: HEXLOWER.encode(&line.hash),
                })
                .collect(),
            signature: BASE64.encode(self.0.sign(&statement_bytes(boot, &stated)).as_ref()),
        }
    }
}

fn token(number: u8) -> Token {
    Token(IdBytes([number; 18]))
}

fn draft(action: &'static str, number: u8, facts: Facts) -> EventDraft {
    EventDraft {
        id: EventId(IdBytes([number; 18])),
        tenant: number.is_multiple_of(2).then_some(TenantId(1)),
        actor: Actor::System("test".into()),
        origin: Origin::default(),
        action,
        outcome: EventOutcome::Ok,
        target: Target { kind: "log".into(), id: String::new(), version: None },
        keys: Vec::new(),
        facts,
    }
}

fn card_event(action: &'static str, number: u8, version: Option<u32>, digest: Option<u8>) -> EventDraft {
    let card_sha256 = digest.map(|byte| HEXLOWER.encode(&[byte; 32]));
    let target = Target { kind: "card".into(), id: token(number).to_string(), version };
    EventDraft { target, ..draft(action, number, Facts { card_sha256, ..Facts::default() }) }
}

fn opening_event(opening: Opening, event: u8) -> EventDraft {
    draft(catalogue::CHARGE_SEND, event, Facts { opening: Some(Box::new(opening)), ..Facts::default() })
}

fn statement_event(statement: Statement) -> EventDraft {
    draft(
        catalogue::KEEPER_STATEMENT,
        200,
        Facts { statement: Some(Box::new(statement)), ..Facts::default() },
    )
}

/// So many openings of one boot for charges, each with its event's number, and the running hash after each.
fn openings(boot: &str, count: u8) -> Vec<(EventDraft, Hash)> {
    let mut hash = NO_OPENING;
    (1..=count)
        .map(|number| {
            let opened = Opened {
                boot,
                seq: u64::from(number),
                purpose: "charge",
                token: token(1),
                destination: "sandbox",
                event: EventId(IdBytes([100 + number; 18])),
            };
            hash = opening_hash(&hash, &opened);
            let opening = Opening {
                boot: boot.into(),
                seq: opened.seq,
                purpose: "charge".into(),
                token: opened.token,
                tokens: Vec::new(),
                destination: "sandbox".into(),
                hash: HEXLOWER.encode(&hash),
            };
            (opening_event(opening, 100 + number), hash)
        })
        .collect()
}

fn leaves_of(drafts: &[EventDraft]) -> Vec<Vec<u8>> {
    let mut chain = Chain::new("n1");
    drafts
        .iter()
        .enumerate()
        .map(|(at, draft)| chain.append(draft, START.plus_seconds(at as i64)).leaf)
        .collect()
}

/// A log with a bit of everything: two cards, three openings out of order, a statement over two of them.
fn story() -> Vec<EventDraft> {
    let opened = openings("b1", 3);
    vec![
        draft(catalogue::KEEPER_STARTED, 9, Facts { note: Some("b1".into()), ..Facts::default() }),
        card_event(catalogue::CARD_CREATE, 1, Some(1), Some(11)),
        card_event(catalogue::CARD_CREATE, 2, Some(1), Some(12)),
        opened[1].0.clone(),
        opened[0].0.clone(),
        card_event(catalogue::CARD_UPDATE, 1, Some(2), Some(21)),
        opened[2].0.clone(),
        statement_event(Signer::of(7).statement("b1", &[("charge", 2, opened[1].1)])),
        card_event(catalogue::CARD_SUSPEND, 2, None, None),
    ]
}

fn file_of(leaves: &[Vec<u8>], note: &str) -> Vec<u8> {
    let mut file = Vec::new();
    Header { origin: ORIGIN.into(), frontier: Frontier::default() }.write(&mut file).unwrap();
    for leaf in leaves {
        file.extend_from_slice(leaf);
        file.push(b'\n');
    }
    file.extend_from_slice(&checkpoint_line(note));
    file.push(b'\n');
    file
}

fn signed(leaves: &[Vec<u8>]) -> Vec<u8> {
    file_of(leaves, &Signer::of(7).checkpoint(leaves))
}

fn check(file: &[u8]) -> Report {
    verify(file, &Signer::of(7).key(), None, None).unwrap()
}

fn faults(report: &Report) -> Vec<(Option<u64>, Fault)> {
    report.failures.iter().map(|failure| (failure.seq, failure.fault.clone())).collect()
}

/// The leaves, each read, changed, written again and chained anew: what somebody does who owns the log but not the key.
fn rewritten(leaves: &[Vec<u8>], rechain: bool, mut change: impl FnMut(&mut OwnedLeaf)) -> Vec<Vec<u8>> {
    let mut prev = NO_PREV;
    leaves
        .iter()
        .map(|bytes| {
            let mut leaf = OwnedLeaf::read(bytes).unwrap();
            if rechain {
                leaf.prev = prev;
            }
            change(&mut leaf);
            let mut out = Vec::new();
            leaf.view().write(&mut out);
            prev = sha256(&out);
            out
        })
        .collect()
}

struct MemoryLog {
    note: Option<String>,
    leaves: Vec<Vec<u8>>,
}

impl Log for MemoryLog {
    fn checkpoint(&mut self) -> io::Result<Option<String>> {
        Ok(self.note.clone())
    }

    fn leaves(&mut self, size: u64, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        self.leaves.iter().take(size as usize).try_for_each(|leaf| each(leaf))
    }

    fn cards(&mut self, _each: &mut dyn FnMut(CardState)) -> io::Result<()> {
        Ok(())
    }

    fn records(&mut self, _each: &mut dyn FnMut(RecordState)) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_honest_log_is_exported_and_holds() {
    let leaves = leaves_of(&story());
    let note = Signer::of(7).checkpoint(&leaves[..8]);
    let (mut log, mut file) = (MemoryLog { note: Some(note), leaves: leaves.clone() }, Vec::new());
    // The last event came after the checkpoint and waits for the next.
    assert_eq!(export(&mut log, &mut file).unwrap(), 8);
    let report = check(&file);
    assert_eq!(report.failures, []);
    assert!(report.holds());
    assert_eq!((report.events, report.from, report.origin.as_str()), (8, 0, ORIGIN));
    assert_eq!(report.checkpoint.map(|checkpoint| checkpoint.size), Some(8));
    let counts =
        OpeningCounts { statements: 1, openings: 3, stated: 2, not_yet_stated: 1, ..Default::default() };
    assert_eq!(report.openings, counts);
    assert_eq!(file, file_of(&leaves[..8], &Signer::of(7).checkpoint(&leaves[..8])));
}

#[test]
fn a_log_without_checkpoint_or_shorter_than_it_is_not_exported() {
    let leaves = leaves_of(&story());
    let export_of = |note: Option<String>, count: usize| {
        export(&mut MemoryLog { note, leaves: leaves[..count].to_vec() }, &mut Vec::new())
    };
    assert!(matches!(export_of(None, 9), Err(ExportError::NoCheckpoint)));
    assert!(matches!(export_of(Some("?".into()), 9), Err(ExportError::Checkpoint)));
    let note = Signer::of(7).checkpoint(&leaves);
    assert!(matches!(export_of(Some(note), 8), Err(ExportError::Short)));
}

/// The exported form is pinned: other verifiers are built against it.
#[test]
fn the_exported_file_is_the_vector() {
    let file = String::from_utf8(signed(&leaves_of(&story()))).unwrap();
    assert_eq!(file, include_str!("../../../tests/vectors/audit/export.ndjson"));
    let key = include_str!("../../../tests/vectors/audit/export.vkey");
    assert_eq!(format!("{}\n", Signer::of(7).key()), key);
}

#[test]
fn every_way_of_rewriting_a_log_is_named_with_its_place() {
    let leaves = leaves_of(&story());
    let found = |leaves: &[Vec<u8>]| faults(&check(&signed(leaves)));
    let at = |seq: u64, fault: Fault| (Some(seq), fault);

    let renumbered = rewritten(&leaves, true, |leaf| leaf.seq += u64::from(leaf.seq >= 4));
    assert_eq!(found(&renumbered)[0], at(5, Fault::Sequence { expected: 4 }));
    let unchained = rewritten(&leaves, false, |leaf| {
        if leaf.seq == 3 {
            leaf.target.id = "x".into();
        }
    });
    assert_eq!(found(&unchained)[0], at(4, Fault::Prev));
    let moved = rewritten(&leaves, true, |leaf| {
        if leaf.seq == 3 {
            leaf.node = "n2".into();
        }
    });
    assert_eq!(found(&moved)[0], at(3, Fault::Node));
    let earlier = rewritten(&leaves, true, |leaf| {
        if leaf.seq == 3 {
            leaf.time = START;
        }
    });
    assert_eq!(found(&earlier)[0], at(3, Fault::Time));
    // The tenant's events are those with an even number: 2, 5 (as 200's statement) and the last.
    let mut of_tenant =
        leaves.iter().map(|leaf| OwnedLeaf::read(leaf).unwrap()).filter(|l| l.tenant.is_some());
    let (first, second) = (of_tenant.next().unwrap(), of_tenant.next().unwrap());
    let skipped = rewritten(&leaves, true, |leaf| {
        if let Some(place) = &mut leaf.tenant {
            place.seq += 1;
        }
    });
    assert_eq!(found(&skipped)[0], at(first.seq, Fault::TenantSequence { expected: 0 }));
    let bent = rewritten(&leaves, true, |leaf| {
        if leaf.seq == second.seq {
            leaf.tenant = leaf.tenant.map(|place| TenantPlace { prev: NO_PREV, ..place });
        }
    });
    assert_eq!(found(&bent)[0], at(second.seq, Fault::TenantPrev));
}

#[test]
fn a_log_rewritten_without_the_key_does_not_meet_the_root() {
    let leaves = leaves_of(&story());
    let note = Signer::of(7).checkpoint(&leaves);
    let edited = leaves_of(&{
        let mut drafts = story();
        drafts[8].target.id = token(1).to_string();
        drafts
    });
    assert_eq!(faults(&check(&file_of(&edited, &note))), [(None, Fault::Root)]);
    let other = file_of(&leaves, &Signer::of(8).checkpoint(&leaves));
    assert_eq!(faults(&check(&other)), [(None, Fault::Note(NoteError::NotSigned))]);
    let short = file_of(&leaves[..8], &note);
    assert_eq!(faults(&check(&short)), [(None, Fault::Size { expected: 9, found: 8 })]);
    let elsewhere = String::from_utf8(signed(&leaves)).unwrap().replacen(
        "\"origin\":\"vault.example/n1",
        "\"origin\":\"vault.example/x/n1",
        1,
    );
    assert_eq!(faults(&check(elsewhere.as_bytes())), [(None, Fault::Origin)]);
}

#[test]
fn a_log_rolled_back_or_forked_behind_a_kept_checkpoint_is_found() {
    let leaves = leaves_of(&story());
    let key = Signer::of(7).key();
    let kept_at = |size: usize| key.open_checkpoint(&Signer::of(7).checkpoint(&leaves[..size])).unwrap();
    let against = |file: &[u8], kept: &Checkpoint| faults(&verify(file, &key, Some(kept), None).unwrap());
    for size in 0..=9 {
        assert_eq!(against(&signed(&leaves), &kept_at(size)), []);
    }
    let older = signed(&leaves[..6]);
    assert_eq!(check(&older).failures, []);
    assert_eq!(against(&older, &kept_at(7)), [(None, Fault::RolledBack { kept: 7, found: 6 })]);
    let forked = leaves_of(&{
        let mut drafts = story();
        drafts[5].facts.note = Some("other".into());
        drafts
    });
    assert_eq!(against(&signed(&forked), &kept_at(5)), []);
    assert_eq!(against(&signed(&forked), &kept_at(6)), [(None, Fault::Rewritten { kept: 6 })]);
    let foreign = Checkpoint { origin: "vault.example/n2".into(), ..kept_at(6) };
    assert_eq!(against(&signed(&leaves), &foreign), [(None, Fault::KeptOrigin)]);
}

#[test]
fn an_export_may_begin_later_and_says_so() {
    let leaves = leaves_of(&story());
    let (key, note) = (Signer::of(7).key(), Signer::of(7).checkpoint(&leaves));
    let mut file = Vec::new();
    let (_, frontier) = Kept::of(leaves[..5].iter().map(|leaf| leaf_hash(leaf)));
    Header { origin: ORIGIN.into(), frontier }.write(&mut file).unwrap();
    let head = file.len();
    for leaf in &leaves[5..] {
        file.extend_from_slice(leaf);
        file.push(b'\n');
    }
    file.extend_from_slice(&checkpoint_line(&note));
    file.push(b'\n');
    let report = check(&file);
    assert_eq!(report.failures, []);
    assert_eq!((report.from, report.events), (5, 4));
    let kept = |size: usize| key.open_checkpoint(&Signer::of(7).checkpoint(&leaves[..size])).unwrap();
    for size in 5..=9 {
        assert!(verify(file.as_slice(), &key, Some(&kept(size)), None).unwrap().holds());
    }
    let early = verify(file.as_slice(), &key, Some(&kept(4)), None).unwrap();
    assert_eq!(faults(&early), [(None, Fault::KeptBefore { kept: 4 })]);
    let rows = verify(file.as_slice(), &key, None, Some(&mut |_| Ok(()))).unwrap();
    assert_eq!(faults(&rows), [(None, Fault::CardsOfPart)]);
    for at in 0..head {
        let mut edited = file.clone();
        edited[at] ^= 1;
        assert!(!check(&edited).holds(), "byte {at}");
    }
}

fn openings_of(events: &[EventDraft]) -> Report {
    check(&signed(&leaves_of(events)))
}

#[test]
fn an_opening_that_a_statement_counts_has_exactly_one_event() {
    let (signer, opened) = (Signer::of(7), openings("b1", 4));
    let states =
        |count: usize, hash: Hash| statement_event(signer.statement("b1", &[("charge", count as u64, hash)]));
    let events = |order: &[usize]| order.iter().map(|at| opened[*at].0.clone()).collect::<Vec<_>>();
    let with = |order: &[usize], more: Vec<EventDraft>| openings_of(&[events(order), more].concat());

    // Whatever the order, and also when the statement comes before the events that it counts.
    assert!(with(&[2, 0, 3, 1], vec![states(4, opened[3].1)]).holds());
    assert!(openings_of(&[vec![states(4, opened[3].1)], events(&[3, 1, 0, 2])].concat()).holds());

    let missing = with(&[0, 2, 3], vec![states(4, opened[3].1)]);
    let fault = OpeningFault::Missing { stated: 4, missing: 2 };
    assert_eq!(faults(&missing), [(Some(3), Fault::Opening(fault))]);
    let last = with(&[0, 1, 2], vec![states(4, opened[3].1)]);
    let fault = OpeningFault::Missing { stated: 4, missing: 4 };
    assert_eq!(faults(&last), [(Some(3), Fault::Opening(fault))]);
    let twice = with(&[0, 1, 1], vec![states(2, opened[1].1)]);
    assert_eq!(faults(&twice), [(Some(2), Fault::Opening(OpeningFault::Twice { seq: 2 }))]);
    let bent = with(&[0, 1], vec![states(2, opened[0].1)]);
    assert_eq!(faults(&bent), [(Some(2), Fault::Opening(OpeningFault::StatementHash { stated: 2 }))]);
    let replayed = with(&[0, 1, 2], vec![states(3, opened[2].1), states(2, opened[1].1)]);
    assert_eq!(faults(&replayed), [(Some(4), Fault::Opening(OpeningFault::StatementOlder { stated: 2 }))]);
    assert!(with(&[0, 1], vec![states(2, opened[1].1), states(2, opened[1].1)]).holds());
    let none = statement_event(signer.statement("b1", &[("reseal", 0, NO_OPENING)]));
    assert!(with(&[], vec![none]).holds());
}

#[test]
fn an_opening_event_that_says_something_else_is_found() {
    let opened = openings("b1", 3);
    let stated = statement_event(Signer::of(7).statement("b1", &[("charge", 3, opened[2].1)]));
    let bend = |change: &dyn Fn(&mut EventDraft)| {
        let mut events: Vec<EventDraft> = opened.iter().map(|(event, _)| event.clone()).collect();
        change(&mut events[1]);
        events.push(stated.clone());
        faults(&openings_of(&events))
    };
    let wrong = [(Some(1), Fault::Opening(OpeningFault::Hash { seq: 2 }))];
    let opening = |event: &mut EventDraft, change: &dyn Fn(&mut Opening)| {
        change(event.facts.opening.as_mut().unwrap());
    };
    assert_eq!(bend(&|_| ()), []);
    assert_eq!(bend(&|event| event.id = EventId(IdBytes([99; 18]))), wrong);
    assert_eq!(bend(&|event| opening(event, &|o| o.token = token(2))), wrong);
    assert_eq!(bend(&|event| opening(event, &|o| o.destination = "thief".into())), wrong);
    let form = bend(&|event| opening(event, &|o| o.hash = "AB".repeat(32)));
    assert_eq!(form[0], (Some(1), Fault::Opening(OpeningFault::Form)));
    let elsewhere = bend(&|event| opening(event, &|o| o.boot = "b2".into()));
    assert!(elsewhere.contains(&(Some(3), Fault::Opening(OpeningFault::Missing { stated: 3, missing: 2 }))));
}

#[test]
fn a_statement_that_the_keeper_did_not_sign_is_found() {
    let opened = openings("b1", 2);
    let events = |statement: Statement| {
        let mut events: Vec<EventDraft> = opened.iter().map(|(event, _)| event.clone()).collect();
        events.push(statement_event(statement));
        faults(&openings_of(&events))
    };
    let honest = Signer::of(7).statement("b1", &[("charge", 2, opened[1].1), ("reseal", 0, NO_OPENING)]);
    assert_eq!(events(honest.clone()), []);
    let wrong = [(Some(2), Fault::Opening(OpeningFault::StatementSignature))];
    assert_eq!(events(Signer::of(8).statement("b1", &[("charge", 2, opened[1].1)])), wrong);
    let mut fewer = honest.clone();
    fewer.openings[0].seq = 1;
    assert_eq!(events(fewer), wrong);
    let mut unsorted = honest;
    unsorted.openings.reverse();
    assert_eq!(events(unsorted), [(Some(2), Fault::Opening(OpeningFault::StatementForm))]);
}

#[test]
fn openings_that_no_statement_covers_are_counted_by_whether_their_boot_lives() {
    let (first, second) = (openings("b1", 4), openings("b2", 2));
    let mut events: Vec<EventDraft> = vec![first[0].0.clone(), first[1].0.clone(), first[3].0.clone()];
    events.push(statement_event(Signer::of(7).statement("b1", &[("charge", 1, first[0].1)])));
    events.extend(second.iter().map(|(event, _)| event.clone()));
    let report = openings_of(&events);
    assert_eq!(report.failures, []);
    let counts = OpeningCounts {
        statements: 1,
        openings: 5,
        stated: 1,
        not_yet_stated: 2,
        never_stated: 2,
        skipped: 1,
    };
    assert_eq!(report.openings, counts);
}

#[test]
fn openings_that_a_living_keeper_leaves_unstated_are_found() {
    let opened = openings("b1", 3);
    let stated = statement_event(Signer::of(7).statement("b1", &[("charge", 1, opened[0].1)]));
    // The second opening goes unstated; after so many seconds comes the last event.
    let after = |seconds: i64, last: &EventDraft| {
        let mut chain = Chain::new("n1");
        let early = [&opened[0].0, &stated, &opened[1].0];
        let mut leaves: Vec<_> = early.iter().map(|event| chain.append(event, START).leaf).collect();
        leaves.push(chain.append(last, START.plus_seconds(seconds)).leaf);
        faults(&check(&signed(&leaves)))
    };
    let not_stated = [(Some(2), Fault::Opening(OpeningFault::NotStated { seq: 2 }))];
    assert_eq!(after(600, &opened[2].0), []);
    assert_eq!(after(601, &opened[2].0), not_stated);
    // A statement that leaves it out shows as well that the keeper went on.
    assert_eq!(after(601, &stated), not_stated);
    let all = statement_event(Signer::of(7).statement("b1", &[("charge", 2, opened[1].1)]));
    assert_eq!(after(601, &all), []);
    // A vault that stood still, or was started anew, did not go on.
    let read = draft(catalogue::LOG_READ, 1, Facts::default());
    assert_eq!(after(9_000, &read), []);
    assert_eq!(after(9_000, &openings("b2", 1)[0].0), []);
}

#[test]
fn a_card_row_that_is_not_what_the_log_says_is_found() {
    let mut drafts = story();
    drafts.push(card_event(catalogue::CARD_CREATE, 3, Some(1), Some(13)));
    drafts.push(card_event(catalogue::CARD_ERASE, 3, None, None));
    let mut refused = card_event(catalogue::CARD_ERASE, 1, None, None);
    refused.outcome = EventOutcome::Denied("legal_hold".into());
    drafts.push(refused);
    let file = signed(&leaves_of(&drafts));
    let row = |number: u8, version: u32, digest: Option<u8>, status: CardStatus| CardState {
        token: token(number),
        version,
        digest: digest.map(|byte| [byte; 32]),
        status,
        held: false,
        erase_asked: false,
    };
    let honest = [
        row(2, 1, Some(12), CardStatus::Suspended),
        row(1, 2, Some(21), CardStatus::Active),
        row(3, 1, None, CardStatus::Erased),
    ];
    let compare = |rows: Vec<CardState>| {
        let report = verify(
            file.as_slice(),
            &Signer::of(7).key(),
            None,
            Some(&mut |take| {
                rows.iter().copied().map(Row::Card).for_each(take);
                Ok(())
            }),
        )
        .unwrap();
        assert_eq!(report.cards, Some(rows.len() as u64));
        faults(&report)
    };
    let with = |row: CardState| {
        compare(honest.iter().filter(|other| other.token != row.token).copied().chain([row]).collect())
    };
    assert_eq!(compare(honest.to_vec()), []);
    assert_eq!(with(row(3, 1, Some(13), CardStatus::Erasing)), []);
    let one = |seq: u64, fault: CardFault| vec![(Some(seq), Fault::Card(fault))];
    let rolled_back = CardFault::RolledBack { token: token(1), found: 1, logged: 2 };
    assert_eq!(with(row(1, 1, Some(11), CardStatus::Active)), one(5, rolled_back));
    let newer = CardFault::Newer { token: token(1), found: 3, logged: 2 };
    assert_eq!(with(row(1, 3, Some(21), CardStatus::Active)), one(5, newer));
    assert_eq!(with(row(1, 2, Some(11), CardStatus::Active)), one(5, CardFault::Digest(token(1))));
    assert_eq!(with(row(1, 2, None, CardStatus::Erased)), one(5, CardFault::Status(token(1))));
    assert_eq!(with(row(2, 1, Some(12), CardStatus::Active)), one(8, CardFault::Status(token(2))));
    assert_eq!(with(row(3, 1, Some(13), CardStatus::Active)), one(10, CardFault::Status(token(3))));
    assert_eq!(with(row(3, 1, Some(13), CardStatus::Erased)), one(10, CardFault::Digest(token(3))));
    let extra = with(row(4, 1, Some(14), CardStatus::Active));
    assert_eq!(extra, [(None, Fault::Card(CardFault::Extra(token(4))))]);
    assert_eq!(compare(honest[..2].to_vec()), one(10, CardFault::Missing(token(3))));
}

#[test]
fn a_legal_hold_that_is_not_what_the_log_says_is_found() {
    let hold = |number: u8, note: &str| {
        let mut event = card_event(catalogue::CARD_HOLD, number, None, None);
        event.facts.note = Some(note.into());
        event
    };
    let mut asked = card_event(catalogue::CARD_SUSPEND, 2, None, None);
    asked.facts.note = Some("legal_hold".into());
    let mut drafts: Vec<_> =
        (1..=3).map(|number| card_event(catalogue::CARD_CREATE, number, Some(1), Some(number))).collect();
    // Of two holds of the first card one was released.
    drafts.extend([hold(1, "set"), hold(1, "set"), hold(1, "released_one")]);
    drafts.extend([hold(2, "set"), asked.clone(), hold(3, "set"), hold(3, "released")]);
    let told = |drafts: &[EventDraft]| {
        let (mut cards, mut faults) = (Cards::default(), Vec::new());
        for leaf in leaves_of(drafts) {
            cards.take(&OwnedLeaf::read(&leaf).unwrap(), &mut faults);
        }
        (cards, faults)
    };
    let row = |number: u8, held: bool, erase_asked: bool, status| CardState {
        token: token(number),
        version: 1,
        digest: Some([number; 32]),
        status,
        held,
        erase_asked,
    };
    let wrong = |at: u64, number: u8| Some((Some(at), CardFault::Hold(token(number))));
    for (row, expected) in [
        (row(1, true, false, CardStatus::Active), None),
        (row(1, false, false, CardStatus::Active), wrong(5, 1)),
        (row(1, true, true, CardStatus::Active), wrong(5, 1)),
        (row(2, true, true, CardStatus::Suspended), None),
        (row(2, true, false, CardStatus::Suspended), wrong(7, 2)),
        (row(2, false, true, CardStatus::Suspended), wrong(7, 2)),
        (row(3, false, false, CardStatus::Active), None),
        (row(3, true, false, CardStatus::Active), wrong(9, 3)),
    ] {
        let (mut cards, faults) = told(&drafts);
        assert_eq!((cards.compare(&row), faults), (expected, Vec::new()), "{row:?}");
    }
    // The release lets the erase that waited take place.
    drafts.extend([hold(2, "released"), card_event(catalogue::CARD_ERASE, 2, None, None)]);
    let erased = |held, asked| CardState { digest: None, ..row(2, held, asked, CardStatus::Erased) };
    assert_eq!(told(&drafts).0.compare(&erased(false, false)), None);
    assert_eq!(told(&drafts).0.compare(&erased(true, false)), wrong(11, 2));
    // A hold that says neither is no event.
    drafts.push(hold(1, "perhaps"));
    assert_eq!(told(&drafts).1, [(12, CardFault::Event)]);
}

/// The events of a principal that was made and given another credential, and of a tenant.
fn record_events() -> Vec<EventDraft> {
    let event = |action, number, kind: &str, digest: Option<u8>| {
        let row_sha256 = digest.map(|byte| HEXLOWER.encode(&[byte; 32]));
        let target = Target { kind: kind.into(), id: format!("{kind}-1"), version: None };
        EventDraft { target, ..draft(action, number, Facts { row_sha256, ..Facts::default() }) }
    };
    let mut refused = event(catalogue::PRINCIPAL_ROTATE, 4, "principal", Some(5));
    refused.outcome = EventOutcome::Denied("overlap".into());
    vec![
        event(catalogue::TENANT_CREATE, 1, "tenant", Some(1)),
        event(catalogue::PRINCIPAL_CREATE, 2, "principal", Some(2)),
        event(catalogue::PRINCIPAL_ROTATE, 3, "principal", Some(3)),
        refused,
        // As events were before they carried a digest.
        EventDraft {
            target: Target { kind: "principal".into(), id: "old".into(), version: None },
            ..event(catalogue::PRINCIPAL_CREATE, 5, "principal", None)
        },
    ]
}

#[test]
fn a_principal_or_tenant_whose_row_was_edited_added_or_removed_is_found() {
    let file = signed(&leaves_of(&record_events()));
    let record = |kind, id: &str, digest| RecordState { kind, id: id.into(), digest: [digest; 32] };
    let (tenant, principal) = (RecordKind::Tenant, RecordKind::Principal);
    let honest = vec![record(tenant, "tenant-1", 1), record(principal, "principal-1", 3)];
    let compare = |rows: Vec<RecordState>| {
        let mut give = |take: &mut dyn FnMut(Row)| {
            rows.iter().cloned().map(Row::Record).for_each(&mut *take);
            take(Row::Record(record(principal, "old", 77)));
            Ok(())
        };
        let report = verify(file.as_slice(), &Signer::of(7).key(), None, Some(&mut give)).unwrap();
        assert_eq!(report.records, Some(rows.len() as u64 + 1));
        faults(&report)
    };
    assert_eq!(compare(honest.clone()), []);
    let fault = |at, fault| (at, Fault::Record(fault));
    // Its scopes were edited, or it was put back to what it was before it got another credential.
    for digest in [9, 2, 5] {
        let edited = vec![honest[0].clone(), record(principal, "principal-1", digest)];
        let expected = fault(Some(2), RecordFault::Digest(principal, "principal-1".into()));
        assert_eq!(compare(edited), [expected]);
    }
    let edited = vec![record(tenant, "tenant-1", 4), honest[1].clone()];
    assert_eq!(compare(edited), [fault(Some(0), RecordFault::Digest(tenant, "tenant-1".into()))]);
    let gone = vec![honest[0].clone()];
    assert_eq!(compare(gone), [fault(Some(2), RecordFault::Missing(principal, "principal-1".into()))]);
    // Nobody said that there is this one; one id is another of the other kind; and none comes twice.
    for extra in [record(principal, "principal-2", 3), record(principal, "tenant-1", 1), honest[1].clone()] {
        let expected = fault(None, RecordFault::Extra(extra.kind, extra.id.clone()));
        assert_eq!(compare([honest.clone(), vec![extra]].concat()), [expected]);
    }
}

#[test]
fn a_proof_holds_for_its_event_only() {
    let leaves = leaves_of(&story());
    let (key, note) = (Signer::of(7).key(), Signer::of(7).checkpoint(&leaves));
    let (kept, _) = Kept::of(leaves.iter().map(|leaf| leaf_hash(leaf)));
    for (index, leaf) in leaves.iter().enumerate() {
        let path = inclusion_path(&kept, index as u64, 9).unwrap();
        let proof = Proof::new(leaf, index as u64, &path, &note);
        assert_eq!(proof.verify(&key).unwrap().size, 9);
        assert_eq!(Proof::read_text(leaf, &proof.text()), Some(proof.clone()));
        let json = serde_json::to_string(&proof).unwrap();
        assert_eq!(serde_json::from_str::<Proof>(&json).unwrap(), proof);
        let other = &leaves[(index + 1) % 9];
        assert_eq!(Proof::new(other, index as u64, &path, &note).verify(&key), None);
        assert_eq!(Proof::new(leaf, (index as u64 + 1) % 9, &path, &note).verify(&key), None);
        assert_eq!(proof.verify(&Signer::of(8).key()), None);
    }
    let alone = Proof::new(&leaves[0], 0, &[], &Signer::of(7).checkpoint(&leaves[..1]));
    assert!(alone.verify(&key).is_some());
    assert!(alone.text().starts_with("c2sp.org/tlog-proof@v1\nindex 0\n\nvault.example/n1\n1\n"));
    assert_eq!(Proof::read_text(&leaves[0], &alone.text()), Some(alone));
}

proptest! {
    #[test]
    fn any_edited_byte_is_found(at: prop::sample::Index, to: u8) {
        let mut file = signed(&leaves_of(&story()));
        let at = at.index(file.len());
        prop_assume!(file[at] != to);
        file[at] = to;
        prop_assert!(!check(&file).holds());
    }

    #[test]
    fn any_cut_is_found(at: prop::sample::Index) {
        let file = signed(&leaves_of(&story()));
        prop_assert!(!check(&file[..at.index(file.len())]).holds());
    }

    #[test]
    fn any_removed_repeated_or_moved_line_is_found(at: prop::sample::Index, to: prop::sample::Index, kind in 0..3) {
        let file = signed(&leaves_of(&story()));
        let mut lines: Vec<&[u8]> = file.split_inclusive(|byte| *byte == b'\n').collect();
        let (at, to) = (at.index(lines.len()), to.index(lines.len()));
        prop_assume!(kind != 2 || at != to);
        match kind {
            0 => { lines.remove(at); }
            1 => lines.insert(to, lines[at]),
            _ => lines.swap(at, to),
        }
        prop_assert!(!check(&lines.concat()).holds());
    }

    #[test]
    fn any_inserted_byte_is_found(at: prop::sample::Index, byte: u8) {
        let mut file = signed(&leaves_of(&story()));
        file.insert(at.index(file.len() + 1), byte);
        prop_assert!(!check(&file).holds());
    }
}
