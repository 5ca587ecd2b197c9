//! Holds the log's opening events against the keeper's statements.
//!
//! Openings of one boot and purpose are numbered from 1 and chained by a running hash; their events may be committed in
//! any order; one event may record several of them, which follow each other. A statement says "so many, and the hash after the last": every opening that it counts must have exactly
//! one event, and the hashes must meet. Openings after a boot's last statement are only counted: the next statement
//! covers them, or the boot ended before it made one. But a boot that is seen to go on must have stated them in time, or
//! somebody who keeps the statements out of the log could keep openings out of it too.
//!
//! So that an honest log never fails, the keeper counts an opening in a statement only once its event must be there: it was
//! released with a grant, or acknowledged as unused, or it is older than an edge needs to come back and account for it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::event::{Opening, Statement};
use super::read::read_hash;
use crate::attest::merkle::Hash;
use crate::attest::note::VerifierKey;
use crate::attest::{NO_OPENING, Opened, Stated, opening_hash, statement_bytes};
use crate::card::id::{EventId, Token};
use crate::clock::Time;

/// How many openings a statement may lag behind the log: it is made just before each checkpoint.
const STATEMENT_LAG_MAX: usize = 1 << 20;
/// How long an opening may go unstated while its boot goes on: ten times the longest time between checkpoints.
const UNSTATED_SECONDS_MAX: i64 = 600;

/// What is wrong with an opening or a statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpeningFault {
    /// Number 0, or a hash that is none.
    #[error("the opening's number or hash is malformed")]
    Form,
    /// The number was used already.
    #[error("opening {seq} is accounted for twice")]
    Twice {
        /// Its number.
        seq: u64,
    },
    /// The running hash is not the one that follows.
    #[error("the running hash of opening {seq} does not follow from the openings before it")]
    Hash {
        /// Its number.
        seq: u64,
    },
    /// Purposes unsorted or a hash that is none.
    #[error("the statement is malformed")]
    StatementForm,
    /// Not signed by the key.
    #[error("the statement's signature is wrong")]
    StatementSignature,
    /// It counts less than one before it.
    #[error("the statement counts {stated} openings, fewer than one before it")]
    StatementOlder {
        /// What it counts.
        stated: u64,
    },
    /// The hash is not that of the events.
    #[error("the statement's running hash after {stated} openings is not that of their events")]
    StatementHash {
        /// What it counts.
        stated: u64,
    },
    /// The keeper's statements are kept out of the log.
    #[error("opening {seq} was not stated within {UNSTATED_SECONDS_MAX} seconds although its keeper went on")]
    NotStated {
        /// Its number.
        seq: u64,
    },
    /// An opening without an event.
    #[error("the statement counts {stated} openings, but opening {missing} has no event")]
    Missing {
        /// What it counts.
        stated: u64,
        /// The first that has none.
        missing: u64,
    },
}

/// What was found, when nothing is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpeningCounts {
    /// Statements whose signature was verified.
    pub statements: u64,
    /// Opening events.
    pub openings: u64,
    /// Of them, covered by a statement.
    pub stated: u64,
    /// Of them, of the latest boot and not yet stated.
    pub not_yet_stated: u64,
    /// Of them, of an ended boot and never stated.
    pub never_stated: u64,
    /// Numbers skipped by unstated openings: their events were in flight at the end of the log or of the boot.
    pub skipped: u64,
}

/// All openings of a log so far.
#[derive(Debug)]
pub struct Openings {
    accounts: BTreeMap<(String, String), Account>,
    latest_boot: String,
    /// When each boot last opened or stated something.
    seen: HashMap<String, Time>,
    now: Time,
    statements: u64,
}

impl Default for Openings {
    fn default() -> Self {
        Self {
            accounts: BTreeMap::new(),
            latest_boot: String::new(),
            seen: HashMap::new(),
            now: Time::from_micros(0),
            statements: 0,
        }
    }
}

/// A place in the log with what is wrong there.
pub type Found = (u64, OpeningFault);

impl Openings {
    /// The log has come to this instant.
    pub const fn tick(&mut self, now: Time) {
        self.now = now;
    }

    /// Takes an opening event at this place of the log.
    pub fn open(&mut self, at: u64, event: EventId, opening: &Opening, faults: &mut Vec<Found>) {
        self.live(&opening.boot);
        let is_whole = opening.seq >= count_of(opening)
            && opening.tokens.last().is_none_or(|last| *last == opening.token);
        let Some(hash) = read_hash(&opening.hash).filter(|_| is_whole) else {
            faults.push((at, OpeningFault::Form));
            return;
        };
        let account = self.accounts.entry((opening.boot.clone(), opening.purpose.clone())).or_default();
        let first = opening.seq.saturating_sub(count_of(opening) - 1);
        if first <= account.last || account.is_taken(first, opening.seq) {
            faults.push((at, OpeningFault::Twice { seq: opening.seq }));
            return;
        }
        let time = self.now;
        account.waiting.insert(first, Waiting { at, time, event, hash, opening: opening.clone() });
        account.join(faults);
    }

    /// Takes a statement at this place of the log; says whether its signature is good.
    pub fn state(&mut self, at: u64, statement: &Statement, key: &VerifierKey, faults: &mut Vec<Found>) {
        let lines: Option<Vec<Stated<'_>>> = statement
            .openings
            .iter()
            .map(|line| Some(Stated { purpose: &line.purpose, seq: line.seq, hash: read_hash(&line.hash)? }))
            .collect();
        let sorted = statement.openings.is_sorted_by(|a, b| a.purpose < b.purpose);
        let signature = data_encoding::BASE64.decode(statement.signature.as_bytes());
        let (Some(lines), true, Ok(signature)) = (lines, sorted, signature) else {
            faults.push((at, OpeningFault::StatementForm));
            return;
        };
        if !key.verifies(&statement_bytes(&statement.boot, &lines), &signature) {
            faults.push((at, OpeningFault::StatementSignature));
            return;
        }
        self.statements += 1;
        self.live(&statement.boot);
        for line in lines {
            let account = self.accounts.entry((statement.boot.clone(), line.purpose.to_owned())).or_default();
            account.state(at, line.seq, line.hash, faults);
        }
    }

    /// What the log says in all; openings that a statement counts without an event are faults now.
    pub fn finish(self, faults: &mut Vec<Found>) -> OpeningCounts {
        let mut counts = OpeningCounts { statements: self.statements, ..OpeningCounts::default() };
        for ((boot, _), account) in self.accounts {
            for (stated, (at, _)) in &account.ahead {
                faults.push((*at, OpeningFault::Missing { stated: *stated, missing: account.last + 1 }));
            }
            let seen = self.seen.get(&boot).copied().unwrap_or(self.now);
            let deadline = seen.plus_seconds(-UNSTATED_SECONDS_MAX);
            if let Some(unstated) = account.first_unstated().filter(|unstated| unstated.time < deadline) {
                faults.push((unstated.at, OpeningFault::NotStated { seq: unstated.seq }));
            }
            let waiting = account.waiting.values().map(|waiting| count_of(&waiting.opening)).sum::<u64>();
            let open = account.last - account.stated + waiting;
            counts.openings += account.last + waiting;
            counts.stated += account.stated;
            if boot == self.latest_boot {
                counts.not_yet_stated += open;
            } else {
                counts.never_stated += open;
            }
            let highest = account.waiting.values().next_back().map_or(account.last, |last| last.opening.seq);
            counts.skipped += highest - account.last - waiting;
        }
        counts
    }

    /// This boot is alive now; one that was not heard of before is the latest.
    pub fn live(&mut self, boot: &str) {
        if let Some(seen) = self.seen.get_mut(boot) {
            *seen = self.now;
            return;
        }
        self.seen.insert(boot.to_owned(), self.now);
        boot.clone_into(&mut self.latest_boot);
    }
}

/// The cards that an event records as opened.
fn tokens_of(opening: &Opening) -> &[Token] {
    if opening.tokens.is_empty() { std::slice::from_ref(&opening.token) } else { &opening.tokens }
}

fn count_of(opening: &Opening) -> u64 {
    u64::try_from(tokens_of(opening).len()).unwrap_or(u64::MAX)
}

/// The openings of one boot and purpose.
#[derive(Debug)]
struct Account {
    /// The last opening up to which all have their events.
    last: u64,
    /// The openings up to `last`, itself at the end; those before the last stated are dropped.
    joined: VecDeque<Joined>,
    /// What the last statement counted.
    stated: u64,
    /// Events whose predecessors have not come yet, by the first opening that each records.
    waiting: BTreeMap<u64, Waiting>,
    /// Statements whose openings have not all come yet: what each counts, where it stands, its hash.
    ahead: BTreeMap<u64, (u64, Hash)>,
}

/// An opening that was chained.
#[derive(Clone, Copy, Debug)]
struct Joined {
    seq: u64,
    at: u64,
    time: Time,
    hash: Hash,
}

#[derive(Debug)]
struct Waiting {
    at: u64,
    time: Time,
    event: EventId,
    hash: Hash,
    opening: Opening,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            last: 0,
            joined: VecDeque::from([Joined { seq: 0, at: 0, time: Time::from_micros(0), hash: NO_OPENING }]),
            stated: 0,
            waiting: BTreeMap::new(),
            ahead: BTreeMap::new(),
        }
    }
}

impl Account {
    /// Chains the events that have all their predecessors.
    fn join(&mut self, faults: &mut Vec<Found>) {
        while let Some(waiting) = self.waiting.remove(&(self.last + 1)) {
            let Waiting { at, time, event, hash: said, opening } = waiting;
            let mut hash = self.joined.back().map_or(NO_OPENING, |joined| joined.hash);
            for token in tokens_of(&opening) {
                let seq = self.last + 1;
                let (boot, purpose, destination) = (&opening.boot, &opening.purpose, &opening.destination);
                let opened = Opened { boot, seq, purpose, token: *token, destination, event };
                hash = opening_hash(&hash, &opened);
                if seq == opening.seq && hash != said {
                    faults.push((at, OpeningFault::Hash { seq }));
                    // Going on from what the event says keeps one bad event from spoiling all that follow.
                    hash = said;
                }
                self.last = seq;
                self.joined.push_back(Joined { seq, at, time, hash });
                if self.joined.len() > STATEMENT_LAG_MAX {
                    self.joined.pop_front();
                }
                if let Some((at, stated)) = self.ahead.remove(&seq) {
                    self.meet(at, seq, stated, faults);
                }
            }
        }
    }

    /// Whether an event that waits records any of these openings.
    fn is_taken(&self, first: u64, last: u64) -> bool {
        let before = self.waiting.range(..=last).next_back();
        before.is_some_and(|(_, waiting)| waiting.opening.seq >= first)
    }

    fn state(&mut self, at: u64, stated: u64, hash: Hash, faults: &mut Vec<Found>) {
        let ahead = self.ahead.keys().next_back().copied().unwrap_or(0);
        if stated < self.stated.max(ahead) {
            faults.push((at, OpeningFault::StatementOlder { stated }));
        } else if stated > self.last {
            if let Some((_, other)) = self.ahead.insert(stated, (at, hash))
                && other != hash
            {
                faults.push((at, OpeningFault::StatementHash { stated }));
            }
        } else {
            self.meet(at, stated, hash, faults);
        }
    }

    fn meet(&mut self, at: u64, stated: u64, hash: Hash, faults: &mut Vec<Found>) {
        let back = usize::try_from(self.last - stated).unwrap_or(usize::MAX);
        let index = self.joined.len().checked_sub(back.saturating_add(1));
        if index.and_then(|index| self.joined.get(index)).map(|joined| joined.hash) != Some(hash) {
            faults.push((at, OpeningFault::StatementHash { stated }));
            return;
        }
        self.stated = stated;
        self.joined.drain(..index.unwrap_or(0));
    }

    /// The first opening that has an event and that no statement counts.
    fn first_unstated(&self) -> Option<Joined> {
        let joined = self.joined.iter().find(|joined| joined.seq > self.stated).copied();
        joined.or_else(|| {
            let (seq, waiting) = self.waiting.first_key_value()?;
            Some(Joined { seq: *seq, at: waiting.at, time: waiting.time, hash: waiting.hash })
        })
    }
}
