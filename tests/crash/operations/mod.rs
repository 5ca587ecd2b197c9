//! Sales, captures, partial refunds, voids, card updates and erasures through a destination of each class of idempotency, under
//! faults of every kind and SIGKILL of any process: afterwards the ledgers agree to the cent, nothing is doubled or lost, and what is
//! left to a person is what the sandbox's ledger says nobody can find out, one by one. The big run is the same test with other numbers; it prints
//! what it did:
//!
//! ```text
//! CARDVAULT_CRASH_OPERATIONS=10000 cargo test --test crash -- --nocapture --exact \
//!     operations::no_operation_is_doubled_or_lost_whatever_dies
//! ```
//!
//! `CARDVAULT_CRASH_SEED` repeats what one run did (but for what the kernel decides), `CARDVAULT_CRASH_EVERY` says after how many
//! operations a process is killed, `CARDVAULT_CRASH_FAULTS` how many of a thousand requests meet a fault, `CARDVAULT_CRASH_SETTLE_S`
//! how long it is waited for what is unknown.

mod caller;
mod compare;
mod place;
mod plan;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use caller::{Caller, Told};
use compare::{Figures, Marks, compare};
use place::Place;
use plan::{Dice, Lane, Story};

/// So many operations, and after how many of them a process is killed, unless the environment says otherwise.
const OPERATIONS: usize = 300;
const EVERY: usize = 60;
const AT_ONCE: usize = 32;
const FAULTS_PER_MILLE: usize = 100;
/// What can be found out is found out by then.
const SETTLE_S: usize = 40;
/// After so many operations everything settles: no look-up of Authorize.Net shows more than a thousand payments.
const ROUND: usize = 1_500;

/// The size of a run.
#[derive(Clone, Copy, Debug)]
struct Size {
    operations: usize,
    every: usize,
    seed: u64,
    per_mille: u16,
    settle: Duration,
}

impl Size {
    #[expect(clippy::disallowed_methods, reason = "the size of a test is no setting of the product")]
    fn asked() -> Self {
        let number = |name: &str, usual: usize| match std::env::var(name) {
            Ok(text) => text.parse().unwrap(),
            Err(_) => usual,
        };
        let chance = usize::from(u16::from_le_bytes(cardvault::random::make_bytes().unwrap()));
        Self {
            operations: number("CARDVAULT_CRASH_OPERATIONS", OPERATIONS),
            every: number("CARDVAULT_CRASH_EVERY", EVERY),
            seed: number("CARDVAULT_CRASH_SEED", chance) as u64,
            per_mille: u16::try_from(number("CARDVAULT_CRASH_FAULTS", FAULTS_PER_MILLE)).unwrap(),
            settle: Duration::from_secs(number("CARDVAULT_CRASH_SETTLE_S", SETTLE_S) as u64),
        }
    }
}

/// What is told next: first the stories that waited for the processor to settle, then new ones until enough is done.
struct Next {
    waiting: Vec<Told>,
    /// The place of the next new story.
    at: usize,
    until: usize,
    seed: u64,
}

/// Tells stories, many at once, until so many operations are done; gives those that were told, whole or in part.
async fn tell(caller: &Arc<Caller>, next: Next) -> (Vec<Told>, usize) {
    let next = Arc::new(Mutex::new(next));
    let mut workers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (caller, next) = (Arc::clone(caller), Arc::clone(&next));
        workers.spawn(async move {
            let mut told = Vec::new();
            loop {
                let (waited, new) = {
                    let mut next = next.lock().unwrap();
                    let waited = next.waiting.pop();
                    if waited.is_none() && caller.done.load(Ordering::SeqCst) >= next.until {
                        return told;
                    }
                    next.at += usize::from(waited.is_none());
                    (waited, Story::make(next.seed, next.at))
                };
                told.push(match waited {
                    Some(story) => caller.go_on(story, true).await,
                    None => caller.go_on(caller.begin(new).await, false).await,
                });
            }
        });
    }
    let told = workers.join_all().await.into_iter().flatten().collect();
    let at = next.lock().unwrap().at;
    (told, at)
}

/// The charges of all stories as they stand.
async fn charges(caller: &Caller, told: &[Told]) -> Vec<(Lane, Value)> {
    let mut all = Vec::new();
    for story in told {
        for id in &story.charges {
            let path = format!("/v1/charges/{id}");
            let answer = caller.insist("GET", &path, "-", None, Duration::from_secs(60)).await;
            all.push((story.story.lane, answer.json()));
        }
    }
    all
}

/// How many attempts of a charge are open, without those of which the ledger says that nobody can learn what became of them.
fn open(lane: Lane, charge: &Value, marks: &Marks) -> usize {
    let attempts = charge["attempts"].as_array().unwrap().iter();
    let is_open = |one: &&Value| matches!(one["status"].as_str(), Some("sending" | "unknown" | "pending"));
    let can_be_learnt = |one: &&Value| !marks.has(lane, one);
    attempts.filter(is_open).filter(can_be_learnt).count() + usize::from(charge["status"] == "processing")
}

/// Waits until nothing is open that can be found out, or for as long as that takes.
async fn until_settled(
    caller: &Caller,
    place: &Place,
    told: &[Told],
    settle: Duration,
) -> Vec<(Lane, Value)> {
    let began = Instant::now();
    loop {
        let all = charges(caller, told).await;
        let marks = Marks::of(&place.ledger());
        let left: usize = all.iter().map(|(lane, charge)| open(*lane, charge, &marks)).sum();
        if left == 0 || began.elapsed() > settle {
            eprintln!("settled in {:.1} s, {left} open", began.elapsed().as_secs_f64());
            return all;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn print(all: &BTreeMap<Lane, Figures>) {
    let heads = ["charges", "payments", "captures", "refunds", "voids", "captured", "refunded"];
    eprint!("{:<20}", "destination");
    for head in heads.iter().chain(&["doubled", "lost", "manual", "unresolvable"]) {
        eprint!("{head:>13}");
    }
    eprintln!();
    for (lane, of) in all {
        let money = |minor: i64| format!("{}.{:02}", minor / 100, minor % 100);
        let cells = [
            of.charges.to_string(),
            of.payments.to_string(),
            of.captures.to_string(),
            of.refunds.to_string(),
            of.voids.to_string(),
            money(of.captured),
            money(of.refunded),
            of.doubled.len().to_string(),
            of.lost.len().to_string(),
            of.manual.to_string(),
            of.unresolvable.len().to_string(),
        ];
        eprintln!("{:<20}{}", lane.destination(), cells.map(|cell| format!("{cell:>13}")).concat());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_operation_is_doubled_or_lost_whatever_dies() {
    let (size, began) = (Size::asked(), Instant::now());
    eprintln!("seed {}: {size:?}", size.seed);
    let mut place = Place::open().await;
    let caller = Arc::new(Caller { client: Arc::clone(&place.client), done: AtomicUsize::new(0) });
    let mut dice = Dice::new(size.seed, usize::MAX);
    let (mut told, mut killed, mut at): (Vec<Told>, Vec<&str>, usize) = (Vec::new(), Vec::new(), 0);
    let mut all = Vec::new();
    loop {
        let (waiting, over): (Vec<_>, Vec<_>) = told.into_iter().partition(Told::waits);
        let from = caller.done.load(Ordering::SeqCst);
        if waiting.is_empty() && from >= size.operations {
            told = over;
            break;
        }
        let until = size.operations.min(from + ROUND);
        let kills = (1..).map(|n| n * size.every).skip_while(|n| *n < from).take_while(|n| *n < until);
        let kills: Vec<usize> = kills.collect();
        let is_over = Arc::new(AtomicBool::new(false));
        place.faults(size.seed + at as u64, size.per_mille).await;
        let next = Next { waiting, at, until, seed: size.seed };
        let telling = async {
            let told = tell(&caller, next).await;
            is_over.store(true, Ordering::SeqCst);
            told
        };
        let ((ended, reached), (left, roles)) =
            tokio::join!(telling, place.kill(&mut dice, &caller.done, &kills, &is_over));
        (place, at) = (left, reached);
        killed.extend(roles);
        told = over.into_iter().chain(ended).collect();
        place.faults(size.seed, 0).await;
        all = until_settled(&caller, &place, &told, size.settle).await;
        place.settle().await;
    }
    let ledger = place.ledger();
    let figures = compare(&all, &ledger);
    let done: usize = told.iter().map(|story| story.done).sum();
    place.vault.stop();
    let (code, said) = place.vault.verify();
    eprintln!(
        "{done} operations of {} stories in {:.1} s through {} kills ({})",
        told.len(),
        began.elapsed().as_secs_f64(),
        killed.len(),
        killed.join(", ")
    );
    print(&figures);
    assert_eq!(code, 0, "{said}");
    assert_eq!(place.files_with_numbers(), Vec::<std::path::PathBuf>::new());
    judge(&figures);
}

fn judge(figures: &BTreeMap<Lane, Figures>) {
    let mut wrong = Vec::new();
    for (lane, of) in figures {
        for (what, cases) in [("doubled", &of.doubled), ("lost", &of.lost), ("given up", &of.given_up)] {
            wrong.extend(cases.iter().map(|case| format!("{} {what}: {case}", lane.destination())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
