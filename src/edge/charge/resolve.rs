//! What to do when nobody knows: by the class of the destination an attempt is sent again under its own id, looked up, or undone,
//! until it is known or the time for it is over; then a person must settle it. Never under a new id.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::follow::{prepare_for, verb_of};
use super::machine::{self, How};
use super::send::{self, By, Claim};
use super::{Error, Held, create, pending, refundable, resolving, route, undo};
use crate::card::id::{AttemptId, EventId};
use crate::clock::Time;
use crate::edge::App;
use crate::edge::keeper::KeeperError;
use crate::edge::store::{Attempt, AttemptState, ChargeRow, Operation, OperationKind};
use crate::random;
use crate::wire::control::DestinationInfo;
use crate::wire::forwarder::{Outcome, Sent, Verdict};
use crate::wire::keeper::{Known, LookUp, RefusalCode};

/// After this an attempt that could not be found out is a person's.
const RESOLVE_SECONDS_MAX: u64 = 15 * 60;
/// So long after the settle time it is still looked up.
const SETTLED_SECONDS: u64 = 5 * 60;
/// As long as a caller may wait.
const PENDING_HELD: Duration = Duration::from_secs(120);
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How often what is not known is looked into, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The first wait; each is twice the one before.
    pub(super) first: Duration,
    /// The longest wait.
    pub(super) longest: Duration,
    /// The longest wait between two questions for what is pending.
    pub(super) longest_pending: Duration,
    /// As long as a caller may wait for it, what is pending is looked into like what is unknown.
    pub(super) pending_held: Duration,
    /// What could not be found out in this time, or that of its destination if that is longer, is a person's.
    pub(super) found_out: Duration,
    /// The same as a number of rounds: what a test can count on.
    pub(super) rounds_max: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: BACKOFF_FIRST,
            longest: BACKOFF_MAX,
            longest_pending: pending::INTERVAL_MAX,
            pending_held: PENDING_HELD,
            found_out: Duration::from_secs(RESOLVE_SECONDS_MAX),
            rounds_max: u32::MAX,
        }
    }
}

/// So many answers to a resend that say nothing, and it is looked up only: a stored 500 is replayed for as long as its key lives,
/// and each resend would put off what `not found` proves.
const SAID_NOTHING_MAX: u32 = 2;

/// The next thing to do about an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Send it again, the same bytes under the same id.
    Resend,
    /// Ask the processor for it.
    LookUp,
    /// Release or give back whatever it may have done.
    Undo,
    /// Nothing but waiting.
    Wait,
    /// Leave it to a person.
    GiveUp,
}

/// A resend that may have reached the processor.
#[derive(Clone, Copy, Debug)]
struct LastSend {
    /// When it ended, as seen from here.
    at: Time,
    /// Whether it was answered.
    answered: bool,
}

/// What was tried on an attempt so far, in this process.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    /// It can never be sent again with the same bytes.
    not_resendable: bool,
    /// The last resend said nothing: look it up before the next.
    look_next: bool,
    /// The processor has the first send at work: `not found` proves nothing.
    in_flight: bool,
    /// It was looked up and not found after the settle time.
    missing: bool,
    /// It was tried to undo it.
    undone: bool,
    /// How many resends were answered, and the answers said nothing of the money.
    said_nothing: u32,
    /// The last resend that may be at work there.
    last_send: Option<LastSend>,
    /// How many rounds were about it.
    rounds: u32,
}

impl Memory {
    /// A resend ended. If its answer settles the attempt, nobody asks for this any more.
    fn note_resend(&mut self, outcome: &Outcome, now: Time) {
        let answer = outcome.answer.as_ref();
        let at_the_door = answer.is_some_and(machine::is_at_the_door);
        if outcome.sent != Sent::Not && !at_the_door {
            self.said_nothing = self.said_nothing.saturating_add(u32::from(answer.is_some()));
            self.last_send = Some(LastSend { at: now, answered: answer.is_some() });
        }
        self.in_flight = answer.is_some_and(|answer| answer.unknown && answer.duplicate);
        // Not found before it was sent again says nothing of what was sent since.
        self.missing &= outcome.sent == Sent::Not;
        // What was sent and said nothing of the money: the next question is another.
        self.look_next = outcome.sent != Sent::Not && !self.in_flight;
    }

    /// Whether the next question is a look-up, where there is one.
    const fn looks(&self) -> bool {
        self.look_next || self.said_nothing >= SAID_NOTHING_MAX
    }
}

/// Finds out about a charge until nothing of it is open; gives it as it stands then.
pub(super) async fn run(app: &App, mut charge: ChargeRow, claim: Option<&Claim>) -> ChargeRow {
    let _held = loop {
        if let Some(held) = Held::take(app, resolving, charge.id) {
            break held;
        }
        // Another task is at it; its end is ours too, unless our attempt came too late for it.
        tokio::time::sleep(BACKOFF_FIRST).await;
        charge = create::as_it_stands(app, charge).await;
        if !is_open(&charge) {
            return charge;
        }
    };
    let mut began = (Instant::now(), 0);
    let mut reverses = false;
    let mut memory: HashMap<AttemptId, Memory> = HashMap::new();
    for round in 0_u32.. {
        if !is_open(&charge) {
            return charge;
        }
        if machine::needs_reversal(&charge) && !reverses {
            // However late it became known what there is to give back: that has its own time.
            (began, reverses) = ((Instant::now(), round), true);
        }
        let (half_over, over) = how_late(app, &charge, began, round);
        if round > 0 || !(machine::needs_reversal(&charge) || route::goes_on(&charge)) {
            // What is not known may need an undo soon: a long wait does not hold that up.
            let asked = app.charges.waits.left(&charge.destination).min(BACKOFF_MAX);
            tokio::time::sleep(backoff(app.charges.pace, round).max(asked)).await;
            charge = create::as_it_stands(app, charge).await;
        }
        let Some(slot) = app.charges.slots.take(&charge.destination).await else { return charge };
        // Its time is that in which it can be asked about.
        began.0 += slot.waited;
        if route::goes_on(&charge) {
            charge = Box::pin(route::go_on(app, charge, claim, over)).await;
            continue;
        }
        if machine::needs_reversal(&charge) {
            charge = undo::reverse(app, charge, claim, over).await;
            continue;
        }
        let is_left_alone = !app.charges.waits.left(&charge.destination).is_zero();
        let is_held = began.0.elapsed() < app.charges.pace.pending_held;
        if pending::is_all(&charge) && (!is_held || is_left_alone) {
            pending::watch(app, &charge);
            return charge;
        }
        // In turn, where several are open: what became of an undo says what became of the payment, and the other way round.
        let turn = |(_, attempt): &(_, &Attempt)| {
            let rounds = memory.get(&attempt.id).map_or(0, |known| known.rounds);
            (rounds, attempt.state == AttemptState::Pending)
        };
        let open = waiting(&charge).min_by_key(turn);
        let open = open.map(|(operation, attempt)| (operation.clone(), attempt.clone()));
        let Some((operation, attempt)) = open else { return charge };
        let known = memory.entry(attempt.id).or_default();
        known.rounds = known.rounds.saturating_add(1);
        charge = one_round(app, charge, (&operation, &attempt), known, (half_over, over), claim).await;
    }
    charge
}

/// Whether half of the time to find out is over, and all of it: where `not found` proves something late, until then and a little longer.
fn how_late(app: &App, charge: &ChargeRow, (began, first): (Instant, u32), round: u32) -> (bool, bool) {
    let destinations = app.directory.destinations();
    let to = destinations.iter().find(|to| to.name == charge.destination);
    let pace = &app.charges.pace;
    let settled = to.map_or(0, |to| to.settle_seconds.saturating_add(SETTLED_SECONDS));
    let longest = Duration::from_secs(settled).max(pace.found_out);
    let (since, rounds) = (began.elapsed(), round.saturating_sub(first));
    let is_over = |parts| since >= longest / parts || rounds >= pace.rounds_max / parts;
    (is_over(2), is_over(1))
}

/// Asks once for what the processor answers later.
pub(super) async fn ask_pending(app: &App, charge: ChargeRow) {
    let Some(_held) = Held::take(app, resolving, charge.id) else { return };
    let Some(_slot) = app.charges.slots.take(&charge.destination).await else { return };
    let pending = waiting(&charge).find(|(_, attempt)| attempt.state == AttemptState::Pending);
    let Some((operation, attempt)) = pending.map(|(operation, attempt)| (operation.clone(), attempt.clone()))
    else {
        return;
    };
    let early = (false, false);
    one_round(app, charge, (&operation, &attempt), &mut Memory::default(), early, None).await;
}

/// Whether a task must still look into a charge; what is being sent has a task of its own.
fn is_open(charge: &ChargeRow) -> bool {
    machine::needs_reversal(charge) || route::goes_on(charge) || waiting(charge).next().is_some()
}

fn waiting(charge: &ChargeRow) -> impl Iterator<Item = (&Operation, &Attempt)> {
    machine::unsettled(charge).filter(|(_, attempt)| attempt.state != AttemptState::Sending)
}

async fn one_round(
    app: &App,
    charge: ChargeRow,
    (operation, attempt): (&Operation, &Attempt),
    known: &mut Memory,
    (half_over, over): (bool, bool),
    claim: Option<&Claim>,
) -> ChargeRow {
    match ask_keeper(app, attempt).await {
        Kept::Outcome(outcome) => {
            let charge = send::record(app, charge, &outcome, How::Sent, &By::vault(), claim).await;
            send::acknowledge(app, vec![attempt.id], Vec::new());
            return charge;
        }
        Kept::UnderWay if !over => return charge,
        Kept::UnderWay | Kept::Nothing => {}
    }
    let destinations = app.directory.destinations();
    let to = destinations.iter().find(|to| to.name == charge.destination);
    let now = app.clock.now();
    known.not_resendable |= !machine::may_be_sent_again(&charge, operation);
    // A hold whose release is refused again and again (a credential that is wrong for good) waits for the processor or a person.
    known.undone |= machine::is_held_hold(operation) && charge.operations.len() > RELEASES_MAX;
    let step = match to {
        Some(to) => next_step(to, operation, attempt, known, (half_over, over), now),
        // The destination was taken out of the configuration: only a person can ask there.
        None if over => Step::GiveUp,
        None => Step::Wait,
    };
    match (step, to) {
        (Step::Resend, _) => resend(app, charge, (operation, attempt), known, claim).await,
        (Step::LookUp, Some(to)) => look_up(app, charge, (operation, attempt), known, to, claim).await,
        (Step::Undo, Some(to)) => undo_unknown(app, charge, known, to, claim).await,
        (Step::GiveUp, _) => match machine::give_up(&charge, attempt.id, now) {
            Some(next) if send::commit_moved(app, &charge, &next, attempt.id).await => next,
            Some(_) | None => charge,
        },
        (Step::LookUp | Step::Undo | Step::Wait, _) => charge,
    }
}

/// Which step an attempt needs, by the destination's class (contracts.md, "Sending, and not knowing").
fn next_step(
    to: &DestinationInfo,
    operation: &Operation,
    attempt: &Attempt,
    known: &Memory,
    (half_over, over): (bool, bool),
    now: Time,
) -> Step {
    if attempt.state == AttemptState::Pending {
        if machine::is_held_hold(operation) && !known.undone && undo::verb_of_undo(to, operation).is_some() {
            return Step::Undo;
        }
        return if to.can_look_up { Step::LookUp } else { Step::Wait };
    }
    if over {
        return Step::GiveUp;
    }
    // A tenth of the key's life is kept as margin.
    let remembered_seconds = i64::try_from(to.idempotency_seconds / 10 * 9).unwrap_or(i64::MAX);
    let may_resend = !attempt.once_only
        && !known.not_resendable
        && send::hex(&to.connector_version) == attempt.connector_version;
    let in_life = now < attempt.started_at.plus_seconds(remembered_seconds);
    let resend = match class_of(to, operation) {
        "replay" | "success-only" => may_resend && in_life && !(known.looks() && to.can_look_up),
        "natural-key" => may_resend && known.missing,
        _ => false,
    };
    if resend {
        return Step::Resend;
    }
    if undo::verb_of_undo(to, operation).is_some() && !known.undone && (half_over || !to.can_look_up) {
        return Step::Undo;
    }
    if to.can_look_up { Step::LookUp } else { Step::Wait }
}

/// The class of idempotency of an operation: what is done to a payment may have another than the payment itself.
fn class_of<'a>(to: &'a DestinationInfo, operation: &Operation) -> &'a str {
    match operation.kind {
        OperationKind::Sale | OperationKind::Authorize | OperationKind::Verify => &to.idempotency,
        OperationKind::Capture | OperationKind::Refund | OperationKind::Void => &to.idempotency_later,
    }
}

/// How often it is tried to release what a check holds that is held for review.
const RELEASES_MAX: usize = 8;

/// What the keeper still has of an attempt.
enum Kept {
    Outcome(Box<Outcome>),
    UnderWay,
    Nothing,
}

/// After a lost line or a restart the outcome may have arrived while nobody was there, or be on its way still.
async fn ask_keeper(app: &App, attempt: &Attempt) -> Kept {
    // A second send of the process before this one may be under way as well, whatever the first one met.
    let from_before = app.charges.is_from_before(attempt.id.0) && attempt.resent_at.is_some();
    if !from_before && !matches!(attempt.error.as_deref(), Some("keeper_down" | "restarted")) {
        return Kept::Nothing;
    }
    match app.keeper.known(vec![attempt.id]).await.map(|mut known| known.pop()) {
        Ok(Some(Known::Outcome(outcome))) => Kept::Outcome(outcome),
        Ok(Some(Known::Nothing)) => Kept::Nothing,
        Ok(Some(Known::UnderWay) | None) | Err(_) => Kept::UnderWay,
    }
}

async fn resend(
    app: &App,
    charge: ChargeRow,
    (operation, attempt): (&Operation, &Attempt),
    known: &mut Memory,
    claim: Option<&Claim>,
) -> ChargeRow {
    let now = app.clock.now();
    let Ok(event) = EventId::make(now) else { return charge };
    let prepared = match prepare_again(app, &charge, (operation, attempt), event).await {
        Ok(prepared) => prepared,
        Err(error) => {
            known.not_resendable = !is_passing(&error);
            return charge;
        }
    };
    let same = send::hex(&prepared.mac) == attempt.mac
        && send::hex(&prepared.connector_version) == attempt.connector_version;
    let next = machine::with_resend(&charge, attempt.id, now).filter(|_| same && !prepared.once_only);
    let Some(mut next) = next else {
        known.not_resendable = true;
        send::discard(app, *prepared).await;
        return charge;
    };
    let by = By::vault();
    let keys = Vec::new();
    let ids = (attempt.id, event);
    let Ok(grant) = send::commit_sending(app, &mut next, ids, &prepared, &by, keys, None).await else {
        return charge;
    };
    let outcome = send::release(app, prepared.held, grant, attempt.id).await;
    known.note_resend(&outcome, app.clock.now());
    let charge = send::record(app, next, &outcome, How::Resent, &by, claim).await;
    let openings = prepared.opening.iter().map(|_| event).collect();
    send::acknowledge(app, vec![attempt.id], openings);
    charge
}

async fn prepare_again(
    app: &App,
    charge: &ChargeRow,
    (operation, attempt): (&Operation, &Attempt),
    event: EventId,
) -> Result<Box<crate::wire::keeper::Prepared>, Error> {
    let with_card = match operation.kind {
        OperationKind::Sale | OperationKind::Authorize | OperationKind::Verify => true,
        OperationKind::Refund => refundable::needs_card(app, charge),
        OperationKind::Capture | OperationKind::Void => false,
    };
    let mut credential = None;
    if let Some(id) = charge.agreement.filter(|_| with_card && operation.kind != OperationKind::Refund) {
        let rows = app.store.agreements(charge.tenant, charge.token).await?;
        let row = rows.into_iter().find(|row| row.id == id);
        let by_customer = charge.initiator == "customer";
        let place = (charge.destination.as_str(), charge.currency.as_str());
        credential = row.map(|row| create::stored_credential(&row, by_customer, place, charge.created_at));
    }
    let ids = (attempt.id, event);
    send::prepare(app, prepare_for(app, charge, operation, ids, with_card, credential).await?).await
}

async fn look_up(
    app: &App,
    charge: ChargeRow,
    (operation, attempt): (&Operation, &Attempt),
    known: &mut Memory,
    to: &DestinationInfo,
    claim: Option<&Claim>,
) -> ChargeRow {
    known.look_next = false;
    let previous = match operation.kind {
        OperationKind::Capture | OperationKind::Refund | OperationKind::Void => {
            super::rules::previous(&charge, operation.kind, to.refunds_capture).0
        }
        OperationKind::Sale | OperationKind::Authorize | OperationKind::Verify => None,
    };
    let ask = LookUp {
        destination: charge.destination.clone(),
        attempt: attempt.id,
        verb: verb_of(operation),
        transaction: attempt.transaction_id.clone(),
        previous_transaction: previous,
    };
    let Ok(outcome) = app.keeper.look_up(Box::new(ask)).await else { return charge };
    let settled = is_settled(attempt, to, known.last_send, app.clock.now()) && !known.in_flight;
    let missing = outcome.answer.as_ref().is_some_and(|a| a.verdict == Verdict::NotFound && !a.unknown);
    known.missing = missing && settled;
    let resendable = class_of(to, operation) == "natural-key" && !attempt.once_only && !known.not_resendable;
    // Where the vendor refuses a second send of the same key, not found means: send it.
    let how = How::LookedUp { settled: settled && !resendable };
    send::record(app, charge, &outcome, how, &By::vault(), claim).await
}

/// Whether `not found` proves something by now: counted from the last send that may have arrived. A processor that was cut off in the
/// middle may be at work for as long as its answer would have been waited for.
fn is_settled(attempt: &Attempt, to: &DestinationInfo, last_send: Option<LastSend>, now: Time) -> bool {
    let settle = i64::try_from(to.settle_seconds).unwrap_or(i64::MAX);
    let slow =
        matches!(attempt.error.as_deref(), Some("timeout" | "restarted" | "keeper_down" | "forwarder_lost"));
    // Of a resend before a restart nobody knows whether it was answered.
    let (resent_at, unanswered) = match last_send {
        Some(last) => (Some(last.at), !last.answered),
        None => (attempt.resent_at, attempt.resent_at.is_some()),
    };
    let at_work = i64::try_from(to.timeout_seconds).unwrap_or(i64::MAX);
    let settle = if slow || unanswered { settle.max(at_work) } else { settle };
    let since = attempt.finished_at.max(resent_at);
    let until = to.until_seconds.map(|until| i64::try_from(until).unwrap_or(i64::MAX));
    let in_time = until.is_none_or(|until| now < attempt.started_at.plus_seconds(until));
    attempt.finished_at.is_some() && in_time && since.is_some_and(|since| now >= since.plus_seconds(settle))
}

/// Releases or gives back what an attempt that nobody knows of may have done.
async fn undo_unknown(
    app: &App,
    charge: ChargeRow,
    known: &mut Memory,
    to: &DestinationInfo,
    claim: Option<&Claim>,
) -> ChargeRow {
    if machine::is_undoing(&charge) {
        known.undone = true;
        return charge;
    }
    let undone = match undo::make(to, &charge, app.clock.now()) {
        Ok(Some(operation)) => undo::carry_out(app, &charge, operation, claim).await,
        Ok(None) => Err(Error::State),
        Err(error) => Err(error),
    };
    match undone {
        Ok(charge) => {
            // What was refused at the door is made again.
            known.undone = machine::is_undoing(&charge);
            charge
        }
        Err(error) => {
            known.undone = !is_passing(&error);
            charge
        }
    }
}

/// Whether the same may work a little later.
pub(super) fn is_passing(error: &Error) -> bool {
    match error {
        Error::Keeper(KeeperError::Refused(refusal) | KeeperError::RefusedAfterOpening(refusal, _)) => {
            matches!(
                refusal.code,
                RefusalCode::Busy
                    | RefusalCode::ForwarderDown
                    | RefusalCode::HeldGone
                    | RefusalCode::KeyUnavailable
                    | RefusalCode::Internal
            )
        }
        Error::Keeper(KeeperError::Down | KeeperError::Busy | KeeperError::Confused)
        | Error::Commit(_)
        | Error::Store(_)
        | Error::Randomness(_) => true,
        Error::TokenUnknown
        | Error::TokenErased { .. }
        | Error::TokenErasing
        | Error::TokenSuspended
        | Error::KeyReused
        | Error::InProgress
        | Error::DestinationUnknown
        | Error::DestinationRequired
        | Error::VerificationUnsupported
        | Error::CurrencyRequired
        | Error::CurrencyUnsupported
        | Error::LimitExceeded
        | Error::LimitsUnknown
        | Error::AgreementRequired
        | Error::NetworkForbids(_)
        | Error::OperationRequired
        | Error::ChargeUnknown
        | Error::Forgotten
        | Error::ForwardUnknown
        | Error::AlreadyCharged(_)
        | Error::InFlight(_)
        | Error::InvoiceTaken(_)
        | Error::InRun(_)
        | Error::RunUnknown
        | Error::RunState
        | Error::RunTotals
        | Error::RunHeader
        | Error::UploadCut
        | Error::UploadDiffers
        | Error::State
        | Error::TransactionUnknown
        | Error::RefundsNeedCard { .. }
        | Error::AmountTooLarge
        | Error::AmountInvalid
        | Error::LogLagging
        | Error::BrokenOff => false,
    }
}

/// 0.2 s, doubling to 60 s.
fn backoff(pace: Pace, round: u32) -> Duration {
    jittered(pace.first.saturating_mul(1 << round.min(16)).min(pace.longest))
}

/// A quarter more or less, so that charges that broke together do not come back together.
pub(super) fn jittered(base: Duration) -> Duration {
    let jitter = random::make_bytes::<1>().map_or(128, |[byte]| u32::from(byte));
    base.saturating_mul(192 + jitter / 2) / 256
}

/// Looks into a charge in a task of its own.
pub(super) fn spawn(app: &App, charge: ChargeRow) {
    if pending::is_all(&charge) {
        pending::watch(app, &charge);
    } else if is_open(&charge) {
        let app = Arc::clone(app);
        tokio::spawn(async move { drop(run(&app, charge, None).await) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::id::IdBytes;
    use crate::wire::keeper::Verb;

    const NOW: Time = Time::from_micros(1_800_000_000_000_000);

    fn to(idempotency: &str, can_look_up: bool) -> DestinationInfo {
        DestinationInfo {
            idempotency: idempotency.to_owned(),
            idempotency_later: idempotency.to_owned(),
            can_look_up,
            ..super::super::tests::destination()
        }
    }

    fn sale() -> Operation {
        let mut sale =
            create::make_operation((OperationKind::Sale, 100), AttemptId(IdBytes([1; 18])), NOW).unwrap();
        let attempt = &mut sale.attempts[0];
        attempt.state = AttemptState::Unknown;
        attempt.connector_version = send::hex(&[7; 32]);
        attempt.finished_at = Some(NOW);
        sale
    }

    fn step(
        to: &DestinationInfo,
        sale: &Operation,
        known: Memory,
        (half, over): (bool, bool),
        after: i64,
    ) -> Step {
        next_step(to, sale, &sale.attempts[0], &known, (half, over), NOW.plus_seconds(after))
    }

    #[test]
    fn each_class_has_its_steps() {
        let early = (false, false);
        let fresh = Memory::default();
        let undone = Memory { undone: true, ..fresh };
        let missing = Memory { missing: true, ..fresh };
        for class in ["replay", "success-only"] {
            assert_eq!(step(&to(class, true), &sale(), fresh, early, 1), Step::Resend);
            assert_eq!(
                step(&to(class, true), &sale(), Memory { look_next: true, ..fresh }, early, 1),
                Step::LookUp
            );
            assert_eq!(
                step(&to(class, false), &sale(), Memory { look_next: true, ..fresh }, early, 1),
                Step::Resend
            );
            // The key is about to be forgotten.
            assert_eq!(step(&to(class, true), &sale(), fresh, early, 901), Step::LookUp);
        }
        assert_eq!(step(&to("natural-key", true), &sale(), fresh, early, 1), Step::LookUp);
        assert_eq!(step(&to("natural-key", true), &sale(), missing, early, 9), Step::Resend);
        assert_eq!(step(&to("none", true), &sale(), missing, early, 9), Step::LookUp);
        assert_eq!(step(&to("none", true), &sale(), fresh, (true, false), 9), Step::Undo);
        assert_eq!(step(&to("none", true), &sale(), undone, (true, false), 9), Step::LookUp);
        assert_eq!(step(&to("none", false), &sale(), fresh, early, 1), Step::Undo);
        assert_eq!(step(&to("none", false), &sale(), undone, early, 1), Step::Wait);
        for class in ["replay", "success-only", "natural-key", "none"] {
            assert_eq!(step(&to(class, true), &sale(), missing, (true, true), 1), Step::GiveUp);
        }
    }

    #[test]
    fn what_was_sent_again_is_looked_up_before_the_next_send() {
        let outcome = |sent| Outcome {
            attempt: sale().attempts[0].id,
            sent,
            answer: None,
            error: None,
            credentials_changed: false,
            card_update: None,
            upstream_us: 0,
            forwarded: None,
        };
        let (to, early) = (to("natural-key", true), (false, false));
        for (sent, next) in [(Sent::Not, Step::Resend), (Sent::Maybe, Step::LookUp)] {
            let mut known = Memory { missing: true, ..Memory::default() };
            known.note_resend(&outcome(sent), NOW);
            assert_eq!(step(&to, &sale(), known, early, 9), next);
        }
    }

    #[test]
    fn what_is_done_to_a_payment_may_have_a_class_of_its_own() {
        let to = DestinationInfo { idempotency_later: "replay".to_owned(), ..to("natural-key", true) };
        let mut refund = sale();
        refund.kind = OperationKind::Refund;
        let early = (false, false);
        assert_eq!(step(&to, &refund, Memory::default(), early, 1), Step::Resend);
        assert_eq!(step(&to, &sale(), Memory::default(), early, 1), Step::LookUp);
    }

    #[test]
    fn what_cannot_be_sent_again_with_the_same_bytes_is_looked_up() {
        let (early, fresh) = ((false, false), Memory::default());
        let mut with_cvc = sale();
        with_cvc.attempts[0].once_only = true;
        assert_eq!(step(&to("replay", true), &with_cvc, fresh, early, 1), Step::LookUp);
        let mut of_another_connector = sale();
        of_another_connector.attempts[0].connector_version = send::hex(&[8; 32]);
        assert_eq!(step(&to("replay", true), &of_another_connector, fresh, early, 1), Step::LookUp);
        let other_bytes = Memory { not_resendable: true, missing: true, ..fresh };
        for class in ["replay", "natural-key"] {
            assert_eq!(step(&to(class, true), &sale(), other_bytes, early, 1), Step::LookUp);
        }
        // What nothing undoes is left to a person.
        let irrevocable = DestinationInfo { undo_sale: None, ..to("none", false) };
        assert_eq!(step(&irrevocable, &sale(), fresh, (true, false), 1), Step::Wait);
        let mut refund = sale();
        refund.kind = OperationKind::Refund;
        assert_eq!(step(&to("none", false), &refund, fresh, (true, false), 1), Step::Wait);
        let mut pending = sale();
        pending.attempts[0].state = AttemptState::Pending;
        assert_eq!(step(&to("replay", true), &pending, fresh, early, 1), Step::LookUp);
    }

    #[test]
    fn the_connector_says_what_undoes() {
        let by_refund = DestinationInfo { undo_sale: Some(Verb::Refund), ..to("replay", true) };
        let mut charge = super::super::tests::charge(OperationKind::Sale, false);
        let undo = |to: &DestinationInfo, charge: &ChargeRow| undo::make(to, charge, NOW).unwrap();
        let of = |operation: Operation| (operation.kind, operation.undoes, operation.amount);
        let all = charge.amount;
        assert_eq!(undo(&by_refund, &charge).map(of), Some((OperationKind::Refund, true, all)));
        assert_eq!(undo(&to("replay", true), &charge).map(of), Some((OperationKind::Void, true, all)));
        charge.amount_authorized = 300;
        assert_eq!(undo(&by_refund, &charge).map(of), Some((OperationKind::Refund, true, 300)));
        let nothing = DestinationInfo { undo_sale: None, ..by_refund };
        assert_eq!(undo(&nothing, &charge), None);
        charge.operations[0].kind = OperationKind::Authorize;
        assert_eq!(undo(&nothing, &charge).map(of), Some((OperationKind::Void, true, 300)));
    }

    #[test]
    fn not_found_proves_nothing_too_early() {
        let to = to("none", true);
        let mut attempt = sale().attempts.remove(0);
        assert!(!is_settled(&attempt, &to, None, NOW.plus_seconds(4)));
        assert!(is_settled(&attempt, &to, None, NOW.plus_seconds(5)));
        attempt.error = Some("timeout".to_owned());
        assert!(!is_settled(&attempt, &to, None, NOW.plus_seconds(29)));
        assert!(is_settled(&attempt, &to, None, NOW.plus_seconds(30)));
        let slower = DestinationInfo { timeout_seconds: 80, ..to.clone() };
        assert!(!is_settled(&attempt, &slower, None, NOW.plus_seconds(79)));
        assert!(is_settled(&attempt, &slower, None, NOW.plus_seconds(80)));
        // What was sent again counts from then.
        attempt.resent_at = Some(NOW.plus_seconds(100));
        assert!(!is_settled(&attempt, &to, None, NOW.plus_seconds(129)));
        assert!(is_settled(&attempt, &to, None, NOW.plus_seconds(130)));
        let last = |answered| Some(LastSend { at: NOW.plus_seconds(170), answered });
        assert!(!is_settled(&attempt, &to, last(false), NOW.plus_seconds(199)));
        attempt.error = None;
        assert!(!is_settled(&attempt, &to, last(true), NOW.plus_seconds(174)));
        assert!(is_settled(&attempt, &to, last(true), NOW.plus_seconds(175)));
    }

    #[test]
    fn not_found_proves_nothing_too_late() {
        let to = DestinationInfo { until_seconds: Some(900), ..to("none", true) };
        let attempt = sale().attempts.remove(0);
        assert!(is_settled(&attempt, &to, None, NOW.plus_seconds(899)));
        assert!(!is_settled(&attempt, &to, None, NOW.plus_seconds(900)));
    }

    #[test]
    fn the_wait_doubles_and_ends_at_a_minute() {
        for (round, millis) in [(0, 200), (1, 400), (5, 6_400), (12, 60_000), (1_000, 60_000)] {
            let wait = backoff(Pace::default(), round).as_millis();
            assert!((millis * 3 / 4..=millis * 5 / 4).contains(&wait), "{round}: {wait}");
        }
    }
}
