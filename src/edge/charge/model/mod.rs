//! A walk through every transition of the machine: each operation, at a destination of each class of idempotency, with each way that a
//! processor can take it, and the process dies at each durable step, just before it or just after. The machine, its recovery and the
//! store are the product's own; a small model knows what the processor did, and both must agree in the end.

mod case;
mod life;
mod mortal;
mod processor;

use std::collections::{BTreeMap, BTreeSet};

use self::case::{Case, Class, Under};
use self::life::Place;
use self::mortal::{Death, transition};
use self::processor::{Done, Reaction, Truth, World};
use crate::card::id::Token;
use crate::edge::store::{AttemptState, ChargeRow, ChargeStatus, OperationKind};
use crate::wire::keeper::Verb;

const VERSION: [u8; 32] = [7; 32];
/// What a verification holds where a processor takes none of zero.
const HOLD: i64 = 100;
/// Seconds by which a look-up moves the clock: whatever settles has settled with the second.
const LOOK_SECONDS: i64 = 20;
/// The same where only a month's silence makes an end.
const LOOK_SECONDS_LONG: i64 = 86_400;
/// So many cases are walked over one database.
const AT_ONCE: usize = 300;

/// What the processor did for a card, in the end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stands {
    payments: usize,
    captured: i64,
    refunded: i64,
}

fn truth(world: &World, token: Token) -> Stands {
    let mut stands = Stands::default();
    let of_card = world.done.values().filter(|done| done.token == token && !done.is_voided);
    let approved = |done: &Done| match done.truth {
        Truth::Approved(amount) => Some(amount),
        Truth::Nothing | Truth::Declined | Truth::Pending { .. } => None,
    };
    for (done, amount) in of_card.filter_map(|done| Some((done, approved(done)?))) {
        match done.verb {
            Verb::Sale => {
                stands.payments += 1;
                stands.captured += amount;
            }
            Verb::Authorize | Verb::Verify => stands.payments += 1,
            Verb::Capture => stands.captured += amount,
            Verb::Refund => stands.refunded += amount,
            Verb::Void => {}
        }
    }
    stands
}

/// What is wrong with how a case ended.
fn judge(case: &Case, row: Option<&ChargeRow>, stands: &Stands) -> Option<String> {
    let Some(row) = row else { return Some("nothing was made of it".to_owned()) };
    let mut attempts = row.operations.iter().flat_map(|operation| &operation.attempts);
    let is_manual = row.status == ChargeStatus::Manual || attempts.any(|a| a.state == AttemptState::Manual);
    if stands.payments > 1 {
        return Some("paid twice".to_owned());
    }
    if is_manual {
        return (!case.may_be_manual()).then(|| "left to a person, and could be found out".to_owned());
    }
    // A released hold is gone, and its verification stands.
    let is_released = case.under == Under::Hold && stands.payments == 0;
    let is_approved = matches!(row.status, ChargeStatus::Approved | ChargeStatus::Authorized);
    let agree = (row.amount_captured, row.amount_refunded) == (stands.captured, stands.refunded)
        && (is_approved == (stands.payments == 1) || is_released);
    (!agree).then(|| "the processor has something else".to_owned())
}

/// Lives through all cases, and gives what was seen and how many durable steps each case made in its first life.
fn walk(cases: &[Case], look_seconds: i64) -> (Place, BTreeMap<Token, usize>) {
    let place = Place::make(cases, look_seconds);
    let lives = cases.iter().map(|case| case.deaths.len()).max().unwrap_or(0);
    let mut steps = BTreeMap::new();
    for life in 0..=lives {
        place.live(cases, life);
        if life == 0 {
            steps = place.fates.lock().unwrap().steps.clone();
        }
    }
    let world = place.world.lock().unwrap();
    let fates = place.fates.lock().unwrap();
    let rows: BTreeMap<Token, &ChargeRow> = fates.charges.values().map(|row| (row.token, row)).collect();
    let mut wrong: Vec<String> = world.faults.iter().chain(&fates.faults).cloned().collect();
    for case in cases {
        let (row, stands) = (rows.get(&case.token).copied(), truth(&world, case.token));
        wrong.extend(
            judge(case, row, &stands).map(|what| format!("{what}: {case:?}\n  {stands:?}\n  {row:?}")),
        );
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong[..wrong.len().min(8)].join("\n")
    );
    drop((world, fates));
    (place, steps)
}

/// Every operation, class and reaction.
fn all_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for under in Under::ALL {
        for class in Class::ALL {
            cases.extend(Reaction::ALL.into_iter().map(|reaction| Case::new(under, class, reaction)));
        }
    }
    cases.retain(Case::exists);
    cases
}

/// Every transition that there is, of every operation.
fn expected() -> BTreeSet<String> {
    use AttemptState::{Approved, Declined, Failed, Manual, Pending, Sending, Unknown};
    let kinds = [
        OperationKind::Sale,
        OperationKind::Authorize,
        OperationKind::Verify,
        OperationKind::Capture,
        OperationKind::Refund,
        OperationKind::Void,
    ];
    let steps = [
        (None, Sending),
        (Some(Sending), Approved),
        (Some(Sending), Declined),
        (Some(Sending), Failed),
        (Some(Sending), Pending),
        (Some(Sending), Unknown),
        (Some(Unknown), Approved),
        (Some(Unknown), Declined),
        (Some(Unknown), Failed),
        (Some(Unknown), Pending),
        (Some(Unknown), Manual),
        (Some(Pending), Approved),
        (Some(Pending), Declined),
        (Some(Pending), Manual),
    ];
    let mut all: BTreeSet<String> =
        kinds.iter().flat_map(|kind| steps.map(|(from, to)| transition((*kind, from, to)))).collect();
    // The small amount of a verification was released while it was held for review.
    all.insert(transition((OperationKind::Verify, Some(Pending), Failed)));
    all
}

/// What walks have reached.
#[derive(Default)]
struct Seen {
    transitions: BTreeSet<String>,
    statuses: BTreeSet<&'static str>,
}

impl Seen {
    fn add(&mut self, place: &Place) {
        let fates = place.fates.lock().unwrap();
        self.transitions.extend(fates.transitions.iter().cloned());
        self.statuses.extend(&fates.statuses);
    }
}

/// The same cases, and the process dies at each of their durable steps, just before it and just after; at so many of the classes in
/// turn, as a death is much the same in each.
fn dying(plain: &[Case], steps: &BTreeMap<Token, usize>, classes: usize) -> Vec<Case> {
    let mut dying = Vec::new();
    let ends = |case: &Case| {
        [false, true]
            .into_iter()
            .flat_map(|is_after| (0..steps[&case.token]).map(move |step| Death { step, is_after }))
            .collect::<Vec<_>>()
    };
    for case in plain {
        for (more, death) in ends(case).into_iter().enumerate() {
            let place = Class::ALL.iter().position(|class| *class == case.class).unwrap();
            // Counted from the case itself, so that the classes take turns however many cases there are.
            let turn = case.under as usize + case.reaction as usize;
            if (turn + more + place) % Class::ALL.len() >= classes {
                continue;
            }
            let at = dying.len();
            let mut next = Case::new(case.under, case.class, case.reaction);
            next.forgets = (place + usize::from(death.is_after)) % 2 == 0;
            next.once_only = at % 5 == 0;
            next.deaths = vec![death];
            // Some die again while they are found out about.
            if at % 3 == 0 {
                next.deaths.push(Death { step: at % 4, is_after: at % 7 < 3 });
            }
            dying.push(next);
        }
    }
    dying
}

/// How many of the five classes die at each step; all of them with `CARDVAULT_MODEL_CLASSES=5`.
#[expect(clippy::disallowed_methods, reason = "the size of a test is no setting of the product")]
fn classes() -> usize {
    std::env::var("CARDVAULT_MODEL_CLASSES").map_or(2, |text| text.parse().unwrap())
}

#[test]
fn every_transition_survives_a_death_at_each_durable_step() {
    let (held, plain): (Vec<_>, Vec<_>) = all_cases().into_iter().partition(Case::waits);
    let mut seen = Seen::default();
    let (place, steps) = walk(&plain, LOOK_SECONDS);
    seen.add(&place);
    seen.add(&walk(&held, LOOK_SECONDS_LONG).0);
    let dying = dying(&plain, &steps, classes());
    std::thread::scope(|scope| {
        let walks: Vec<_> =
            dying.chunks(AT_ONCE).map(|cases| scope.spawn(|| walk(cases, LOOK_SECONDS).0)).collect();
        for walk in walks {
            seen.add(&walk.join().unwrap());
        }
    });
    let expected = expected();
    let never: Vec<_> = expected.difference(&seen.transitions).collect();
    assert!(never.is_empty(), "never reached: {never:#?}");
    let others: Vec<_> = seen.transitions.difference(&expected).collect();
    assert!(others.is_empty(), "not in the table: {others:#?}");
    assert_eq!(seen.statuses.len(), 9, "{:?}", seen.statuses);
}

#[test]
fn a_store_that_fails_while_charges_are_taken_up_leaves_none_being_sent() {
    let mut case = Case::new(Under::Sale, Class::Replay, Reaction::Approves);
    case.deaths = vec![Death { step: 0, is_after: true }];
    let cases = [case];
    let place = Place::make(&cases, LOOK_SECONDS);
    place.live(&cases, 0);
    place.fates.lock().unwrap().refusals = 20;
    place.live(&cases, 1);
    let fates = place.fates.lock().unwrap();
    assert_eq!(fates.refusals, 0);
    let statuses: Vec<_> = fates.charges.values().map(|row| row.status).collect();
    assert_eq!(statuses, [ChargeStatus::Approved]);
}
