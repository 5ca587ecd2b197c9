//! A keeper without keys and, behind it, a processor that does what its case says and remembers everything: the truth that the
//! machine is held against.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::Class;
use crate::card::id::{AttemptId, Token};
use crate::clock::ManualClock;
use crate::person::credential::hash_of;
use crate::wire::forwarder::{Answer, Outcome, Sent, Verdict};
use crate::wire::frame::{self, FrameReader};
use crate::wire::keeper::{
    ChargeRead, Digested, FromKeeper, Known, LookUp, Prepare, Prepared, ReadCharge, Refusal, RefusalCode,
    ToKeeper, Verb,
};

/// How the processor takes the operation that a case is about, when it comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reaction {
    Approves,
    /// Half of it.
    ApprovesPart,
    Declines,
    /// Says it when it is asked for it.
    ApprovesLater,
    DeclinesLater,
    /// Holds it for review, which never ends.
    Holds,
    /// Nothing left for it.
    NotSent,
    /// It was done, and the answer is lost.
    LosesDone,
    /// Nothing was done, and no answer comes.
    LosesUndone,
    /// 500, and it was done.
    BreaksDone,
    /// 500, and nothing was done.
    BreaksUndone,
    /// Refused before it was processed.
    Refuses,
    /// It was done; nothing that is asked for it is ever answered.
    NeverTells,
    /// 500, and it was done; it answers what is asked for it only when an undo has left, and that gets lost on its way.
    TurnsUp,
    /// It was done; nothing that is asked for it is ever answered, and its undo is done as well, and that answer gets lost.
    LosesUndo,
}

impl Reaction {
    pub(super) const ALL: [Self; 15] = [
        Self::Approves,
        Self::ApprovesPart,
        Self::Declines,
        Self::ApprovesLater,
        Self::DeclinesLater,
        Self::Holds,
        Self::NotSent,
        Self::LosesDone,
        Self::LosesUndone,
        Self::BreaksDone,
        Self::BreaksUndone,
        Self::Refuses,
        Self::NeverTells,
        Self::TurnsUp,
        Self::LosesUndo,
    ];
}

/// What became of an attempt at the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    Nothing,
    Approved(i64),
    Declined,
    Pending { approves: Option<bool> },
}

/// An attempt that came to the processor.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) token: Token,
    pub(super) verb: Verb,
    asked: i64,
    pub(super) truth: Truth,
    pub(super) is_voided: bool,
    /// The transaction that it was done to.
    previous: Option<String>,
    sends: u32,
    /// It was looked up, and not found.
    missed: bool,
    is_mute: bool,
}

/// The keeper's memory and the processor's.
pub(super) struct World {
    pub(super) clock: ManualClock,
    /// How the operation of a card's case is taken, and which it is.
    pub(super) reactions: BTreeMap<Token, (Verb, Reaction)>,
    /// Cards whose requests can never be rendered again.
    pub(super) once_only: Vec<Token>,
    pub(super) done: BTreeMap<AttemptId, Done>,
    pub(super) unacknowledged: HashMap<AttemptId, Outcome>,
    pub(super) faults: Vec<String>,
    /// How far each look-up moves the clock.
    pub(super) look_seconds: i64,
    held: HashMap<u64, Box<Prepare>>,
    next_held: u64,
}

impl World {
    pub(super) fn new(clock: ManualClock, look_seconds: i64) -> Self {
        Self {
            clock,
            reactions: BTreeMap::new(),
            once_only: Vec::new(),
            done: BTreeMap::new(),
            unacknowledged: HashMap::new(),
            faults: Vec::new(),
            look_seconds,
            held: HashMap::new(),
            next_held: 0,
        }
    }

    /// The keeper dies, or is asked no more for what it knew of this card.
    pub(super) fn forget(&mut self, token: Token) {
        let of_card: Vec<_> = self.done.iter().filter(|(_, d)| d.token == token).map(|(id, _)| *id).collect();
        self.unacknowledged.retain(|attempt, _| !of_card.contains(attempt));
    }

    /// As the keeper does it: of the first that were asked for, here up to the third outcome.
    fn known(&self, attempts: &[AttemptId]) -> Vec<Known> {
        let mut known = Vec::new();
        let mut outcomes = 0;
        for attempt in attempts {
            let outcome = self.unacknowledged.get(attempt);
            outcomes += usize::from(outcome.is_some());
            if outcomes > 2 {
                break;
            }
            known.push(outcome.map_or(Known::Nothing, |outcome| Known::Outcome(Box::new(outcome.clone()))));
        }
        known
    }

    fn prepare(&mut self, prepare: Box<Prepare>) -> Prepared {
        self.next_held += 1;
        let once_only = self.once_only.contains(&prepare.token) && prepare.sealed.is_some();
        // The same operation has the same bytes.
        let named = format!(
            "{} {:?} {} {:?}",
            prepare.attempt, prepare.verb, prepare.amount, prepare.previous_transaction
        );
        let prepared = Prepared {
            held: self.next_held,
            mac: hash_of(named.as_bytes()),
            connector_version: super::VERSION,
            opening: None,
            once_only,
        };
        self.held.insert(self.next_held, prepare);
        prepared
    }

    fn release(&mut self, held: u64) -> Option<Outcome> {
        let prepare = self.held.remove(&held)?;
        let class = Class::of_destination(&prepare.destination);
        let outcome = self.take(&prepare, class);
        self.unacknowledged.insert(prepare.attempt, outcome.clone());
        Some(outcome)
    }

    /// A request comes to the processor, for the first time or again.
    fn take(&mut self, prepare: &Prepare, class: Class) -> Outcome {
        let id = prepare.attempt;
        let Some(before) = self.done.get_mut(&id) else { return self.take_first(prepare) };
        before.sends += 1;
        let may_resend = std::mem::take(&mut before.missed);
        let before = before.clone();
        let asked = before.asked;
        let may = match class {
            Class::Replay | Class::SuccessOnly => true,
            // What certainly did not leave changed nothing.
            Class::NaturalKey => may_resend || before.sends == 1,
            Class::None | Class::Blind => false,
        };
        let is_once_only = prepare.sealed.is_some() && self.once_only.contains(&prepare.token);
        let is_payment = matches!(before.verb, Verb::Sale | Verb::Authorize);
        let has_undo =
            self.done.values().any(|d| d.token == prepare.token && d.verb == Verb::Void && d.sends > 0);
        if is_payment && has_undo {
            self.faults.push(format!("{class:?} was sent again after its undo: {before:?}"));
        }
        if !may || is_once_only {
            self.faults.push(format!("{class:?} was sent {} times: {before:?}", before.sends));
        }
        if before.is_mute {
            return silent(id, Sent::Maybe);
        }
        match before.truth {
            Truth::Nothing => {
                self.set(id, Truth::Approved(prepare.amount));
                said(id, verdict(Verdict::Approved, id))
            }
            Truth::Approved(_) | Truth::Declined | Truth::Pending { .. } if class == Class::NaturalKey => {
                said(id, Answer { unknown: true, duplicate: true, ..verdict(Verdict::Error, id) })
            }
            truth @ (Truth::Approved(_) | Truth::Declined | Truth::Pending { .. }) => {
                said(id, answer_of(truth, (id, asked)))
            }
        }
    }

    /// Only the operation that its case is about meets the case's reaction: what undoes it is taken as it comes.
    fn take_first(&mut self, prepare: &Prepare) -> Outcome {
        let of_case = self.reactions.get(&prepare.token).filter(|(verb, _)| *verb == prepare.verb);
        let reaction = of_case.map_or(Reaction::Approves, |(_, reaction)| *reaction);
        let turns_up =
            |(verb, reaction): &(Verb, Reaction)| *reaction == Reaction::TurnsUp && *verb != prepare.verb;
        if self.reactions.get(&prepare.token).is_some_and(turns_up) {
            for payment in self.done.values_mut().filter(|done| done.token == prepare.token) {
                payment.is_mute = false;
            }
            return self.enter(prepare, Reaction::LosesUndone, prepare.amount);
        }
        let loses_undo =
            |(verb, reaction): &(Verb, Reaction)| *reaction == Reaction::LosesUndo && *verb != prepare.verb;
        if self.reactions.get(&prepare.token).is_some_and(loses_undo) {
            return self.enter(prepare, Reaction::LosesDone, prepare.amount);
        }
        self.enter(prepare, reaction, prepare.amount)
    }

    fn enter(&mut self, prepare: &Prepare, reaction: Reaction, amount: i64) -> Outcome {
        let id = prepare.attempt;
        let (truth, outcome) = match reaction {
            Reaction::Approves => (Truth::Approved(amount), said(id, verdict(Verdict::Approved, id))),
            Reaction::ApprovesPart => {
                let part = Answer {
                    partial: true,
                    amount_approved: Some(amount / 2),
                    ..verdict(Verdict::Approved, id)
                };
                (Truth::Approved(amount / 2), said(id, part))
            }
            Reaction::Declines => (Truth::Declined, said(id, verdict(Verdict::Declined, id))),
            Reaction::ApprovesLater => pending(id, true),
            Reaction::DeclinesLater => pending(id, false),
            Reaction::Holds => {
                let held = Truth::Pending { approves: None };
                (held, said(id, answer_of(held, (id, amount))))
            }
            Reaction::NotSent => (Truth::Nothing, silent(id, Sent::Not)),
            Reaction::LosesDone | Reaction::NeverTells | Reaction::LosesUndo => {
                (Truth::Approved(amount), silent(id, Sent::Maybe))
            }
            Reaction::LosesUndone => (Truth::Nothing, silent(id, Sent::Maybe)),
            Reaction::BreaksDone | Reaction::TurnsUp => (Truth::Approved(amount), said(id, broken(id))),
            Reaction::BreaksUndone => (Truth::Nothing, said(id, broken(id))),
            Reaction::Refuses => (Truth::Nothing, said(id, verdict(Verdict::Error, id))),
        };
        let done = Done {
            token: prepare.token,
            verb: prepare.verb,
            asked: amount,
            truth: Truth::Nothing,
            is_voided: false,
            previous: prepare.previous_transaction.clone(),
            sends: u32::from(reaction != Reaction::NotSent),
            missed: false,
            is_mute: matches!(reaction, Reaction::NeverTells | Reaction::TurnsUp | Reaction::LosesUndo),
        };
        self.done.insert(id, done);
        self.set(id, truth);
        outcome
    }

    /// What an attempt did. A void undoes what it names; where that is not known, whatever came of this card.
    fn set(&mut self, id: AttemptId, truth: Truth) {
        let Some(done) = self.done.get_mut(&id) else { return };
        done.truth = truth;
        let (token, previous) = (done.token, done.previous.clone());
        if done.verb != Verb::Void || !matches!(truth, Truth::Approved(_)) {
            return;
        }
        for (other, payment) in &mut self.done {
            let is_payment = matches!(payment.verb, Verb::Sale | Verb::Authorize | Verb::Verify);
            let is_named = previous.as_ref().is_none_or(|previous| *previous == transaction(*other));
            if payment.token == token && is_payment && is_named {
                payment.is_voided = true;
            }
        }
    }

    fn look_up(&mut self, ask: &LookUp) -> Outcome {
        self.clock.advance_seconds(self.look_seconds);
        let id = ask.attempt;
        let Some(done) = self.done.get_mut(&id) else {
            return said(id, verdict(Verdict::NotFound, id));
        };
        if done.is_mute {
            return silent(id, Sent::Maybe);
        }
        let asked = done.asked;
        match done.truth {
            Truth::Nothing => {
                done.missed = true;
                said(id, verdict(Verdict::NotFound, id))
            }
            Truth::Pending { approves: None } => said(id, answer_of(done.truth, (id, asked))),
            Truth::Pending { approves: Some(true) } => {
                let amount = done.asked;
                self.set(id, Truth::Approved(amount));
                said(id, verdict(Verdict::Approved, id))
            }
            Truth::Pending { approves: Some(false) } => {
                done.truth = Truth::Declined;
                said(id, verdict(Verdict::Declined, id))
            }
            truth @ (Truth::Approved(_) | Truth::Declined) => said(id, answer_of(truth, (id, asked))),
        }
    }

    fn answer(&mut self, ask: ToKeeper) -> FromKeeper {
        match ask {
            ToKeeper::ReadCharge(read) => FromKeeper::ChargeRead(Box::new(read_charge(&read))),
            ToKeeper::Digest(ask) => {
                FromKeeper::Digested(digests(&ask.route, &ask.idempotency_key, &ask.body))
            }
            ToKeeper::Prepare(prepare) => FromKeeper::Prepared(Box::new(self.prepare(prepare))),
            ToKeeper::Release { held, .. } => match self.release(held) {
                Some(outcome) => FromKeeper::Outcome(Box::new(outcome)),
                None => FromKeeper::Refused(Refusal::of(RefusalCode::HeldGone)),
            },
            ToKeeper::Discard { held } => {
                self.held.remove(&held);
                FromKeeper::Done
            }
            ToKeeper::LookUp(ask) => FromKeeper::Outcome(Box::new(self.look_up(&ask))),
            ToKeeper::Openings { .. } => FromKeeper::Openings(Vec::new()),
            // In pages of one: what a page leaves is in the next.
            ToKeeper::Outcomes { after } => {
                let next = self.unacknowledged.keys().copied().filter(|attempt| Some(*attempt) > after).min();
                FromKeeper::Outcomes(next.into_iter().collect())
            }
            ToKeeper::Known(attempts) => FromKeeper::Known(self.known(&attempts)),
            ToKeeper::Acknowledge { outcomes, .. } => {
                self.unacknowledged.retain(|attempt, _| !outcomes.contains(attempt));
                FromKeeper::Done
            }
            ToKeeper::Hello
            | ToKeeper::Seal(_)
            | ToKeeper::OpenExpiry(_)
            | ToKeeper::CompareZip(_)
            | ToKeeper::State
            | ToKeeper::SignCheckpoint(_)
            | ToKeeper::ReadForward(_)
            | ToKeeper::ShowForward(_)
            | ToKeeper::PrepareForward(_)
            | ToKeeper::ReadWebhook(_)
            | ToKeeper::ExpireBy(_)
            | ToKeeper::WebhookSecret(_)
            | ToKeeper::SignWebhook(_)
            | ToKeeper::Reseal(_) => FromKeeper::Refused(Refusal::of(RefusalCode::Internal)),
        }
    }
}

/// Answers until the line breaks.
pub(super) fn serve(pair: &UnixStream, world: &Arc<Mutex<World>>) {
    let mut reader = FrameReader::new(pair.try_clone().unwrap());
    while let Ok((id, ask)) = reader.read::<ToKeeper>() {
        let answer = world.lock().unwrap().answer(ask);
        if frame::write(&mut &*pair, id, &answer).is_err() {
            return;
        }
    }
}

fn digests(route: &str, key: &str, body: &[u8]) -> Digested {
    let key = hash_of(format!("{route} {key}").as_bytes());
    Digested { key, body: hash_of(body) }
}

fn read_charge(read: &ReadCharge) -> ChargeRead {
    let body: Value = serde_json::from_slice(&read.body).unwrap();
    let word = |name: &str| body[name].as_str().map(str::to_owned);
    ChargeRead {
        held: None,
        has_cvc: false,
        token: body["token"].as_str().and_then(Token::parse),
        amount: body["amount"].as_i64().unwrap_or(0),
        currency: word("currency").unwrap_or_default(),
        destination: word("destination"),
        invoice: word("invoice"),
        period: String::new(),
        customer_initiated: true,
        agreement: None,
        retry: None,
        capture: body["capture"] != false,
        allow_partial: body["allow_partial"] == true,
        statement_descriptor: None,
        description: None,
        metadata: BTreeMap::new(),
        digests: digests(&read.route, &read.idempotency_key, &read.body),
    }
}

fn transaction(attempt: AttemptId) -> String {
    format!("pay-{attempt}")
}

fn verdict(verdict: Verdict, attempt: AttemptId) -> Answer {
    Answer { transaction_id: Some(transaction(attempt)), ..super::super::tests::answer(verdict) }
}

fn broken(attempt: AttemptId) -> Answer {
    Answer { unknown: true, http_status: 500, transaction_id: None, ..verdict(Verdict::Error, attempt) }
}

fn pending(attempt: AttemptId, approves: bool) -> (Truth, Outcome) {
    (Truth::Pending { approves: Some(approves) }, said(attempt, verdict(Verdict::Pending, attempt)))
}

fn answer_of(truth: Truth, (attempt, asked): (AttemptId, i64)) -> Answer {
    match truth {
        Truth::Approved(amount) if amount < asked => {
            Answer { partial: true, amount_approved: Some(amount), ..verdict(Verdict::Approved, attempt) }
        }
        Truth::Approved(_) => verdict(Verdict::Approved, attempt),
        Truth::Declined => verdict(Verdict::Declined, attempt),
        Truth::Pending { approves } => {
            Answer { held_for_review: approves.is_none(), ..verdict(Verdict::Pending, attempt) }
        }
        Truth::Nothing => verdict(Verdict::NotFound, attempt),
    }
}

fn said(attempt: AttemptId, answer: Answer) -> Outcome {
    Outcome { attempt, ..super::super::tests::said(0, answer) }
}

fn silent(attempt: AttemptId, sent: Sent) -> Outcome {
    Outcome { attempt, ..super::super::tests::silent(0, sent) }
}
