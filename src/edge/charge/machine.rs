//! The charge machine: pure functions from a charge and what was learnt to the charge as it shall be.
//!
//! `attempt: sending → approved | declined | failed | pending | unknown`, `unknown, pending → approved | declined | failed | manual`.
//! An attempt that is settled stays as it is. A charge's status and amounts follow from its operations; the first operation is the
//! sale, authorization or verification itself.

use super::route;
use crate::card::id::AttemptId;
use crate::clock::Time;
use crate::edge::store::{
    Attempt, AttemptState, ChargeRow, ChargeStatus, DisputeRow, Operation, OperationKind, Outbound,
};
use crate::wire::forwarder::{Answer, Outcome, Sent, Verdict};

/// The code of a charge whose partial approval was reversed.
pub const PARTIAL_APPROVAL: &str = "partial_approval";
/// The code of a charge whose partial approval could not be reversed.
pub const REVERSAL_FAILED: &str = "reversal_failed";
/// The code of a verification whose small hold could not be released.
pub const HOLD_NOT_RELEASED: &str = "hold_not_released";

/// The code of a charge that was found approved after an undo of it had left, of which nobody knows what became.
const UNDO_OPEN: &str = "undo_open";

/// The error of an attempt that a person settled as approved without the processor's id of it, where nothing can be done to the payment
/// later without; the code of its charge.
pub const TRANSACTION_UNKNOWN: &str = "transaction_unknown";

/// The error of an attempt that its processor holds for review.
pub(super) const HELD_FOR_REVIEW: &str = "held_for_review";
/// The class of a check of a card that its processor does not vouch for.
const RISK: &str = "risk";

/// The error of an attempt that was refused before anybody looked into it: credential, network, rate.
const AT_THE_DOOR: &str = "refused_at_the_door";

/// The error of an attempt of which its processor told that it did not hold after all.
const REVERSED: &str = "reversed";
/// The error of an attempt that its processor does not have, long after it must.
const NOT_FOUND: &str = "not_found";
/// The error of an attempt that was undone before it was known.
const VOIDED: &str = "voided";
/// The error of an attempt of which a person says that it was undone.
pub(super) const VOIDED_BY_HAND: &str = "voided_by_hand";

/// A dispute has a handful of steps.
const DISPUTES_MAX: usize = 20;

/// By which way something was learnt of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It was sent for the first time.
    Sent,
    /// It was sent again, under the same id: only what speaks of the money counts, a refusal may be of the second send alone.
    Resent,
    /// The processor was asked for it.
    LookedUp {
        /// Whether so much time has passed that `not found` proves something.
        settled: bool,
    },
    /// The processor told of it by itself.
    Told,
}

/// What was learnt, how and when.
#[derive(Clone, Copy, Debug)]
pub struct Learnt<'a> {
    /// What came back.
    pub outcome: &'a Outcome,
    /// By which way.
    pub how: How,
    /// When.
    pub now: Time,
    /// How long such an authorization holds at this destination.
    pub hold_seconds: i64,
}

/// The charge after something was learnt of one of its attempts; `None` if that changes nothing.
pub fn learn(charge: &ChargeRow, attempt: AttemptId, learnt: Learnt<'_>) -> Option<ChargeRow> {
    let mut next = charge.clone();
    let at = next.operations.iter().position(|o| o.attempts.iter().any(|a| a.id == attempt))?;
    let operation = next.operations.get_mut(at)?;
    let (kind, undoes, checks) = (operation.kind, is_undo(operation), is_check(operation));
    let one = operation.attempts.iter_mut().find(|a| a.id == attempt)?;
    let state = state_after(one, learnt, checks)?;
    write_attempt(one, state, learnt);
    if at == 0 && state == AttemptState::Approved {
        approve(&mut next, kind, learnt);
    }
    if undoes && state == AttemptState::Approved {
        release_unknown(&mut next, learnt.now);
    }
    restate(&mut next);
    moved(&mut next, learnt.now);
    Some(next)
}

/// The charge after a restart: whatever was being sent may have been sent.
pub fn restarted(charge: &ChargeRow, now: Time) -> Option<ChargeRow> {
    let mut next = charge.clone();
    let mut any = false;
    for attempt in next.operations.iter_mut().flat_map(|operation| &mut operation.attempts) {
        if attempt.state == AttemptState::Sending {
            attempt.state = AttemptState::Unknown;
            attempt.outbound = Outbound::MaybeSent;
            attempt.error = Some("restarted".to_owned());
            attempt.finished_at = Some(now);
            any = true;
        }
    }
    restate(&mut next);
    moved(&mut next, now);
    any.then_some(next)
}

/// The charge after an attempt could not be found out in time: a person must settle it.
pub fn give_up(charge: &ChargeRow, attempt: AttemptId, now: Time) -> Option<ChargeRow> {
    let mut next = charge.clone();
    let one = next.operations.iter_mut().flat_map(|o| &mut o.attempts).find(|a| a.id == attempt)?;
    if !matches!(one.state, AttemptState::Unknown | AttemptState::Pending) {
        return None;
    }
    one.state = AttemptState::Manual;
    one.finished_at = Some(now);
    restate(&mut next);
    moved(&mut next, now);
    Some(next)
}

/// The charge after its processor told that what it had approved did not hold. What becomes of it then is no machine's to say: it may
/// be done again by itself, or have to be done anew. A person settles it.
pub fn reversed(charge: &ChargeRow, attempt: AttemptId, answer: &Answer, now: Time) -> Option<ChargeRow> {
    let mut next = charge.clone();
    let one = next.operations.iter_mut().flat_map(|o| &mut o.attempts).find(|a| a.id == attempt)?;
    if one.state != AttemptState::Approved {
        return None;
    }
    one.state = AttemptState::Manual;
    one.error = Some(REVERSED.to_owned());
    one.processor_code.clone_from(&answer.processor_code);
    one.message.clone_from(&answer.message);
    one.finished_at = Some(now);
    restate(&mut next);
    moved(&mut next, now);
    Some(next)
}

/// The charge with what its processor told of a dispute of it; `None` if that was told before, or too much was.
pub fn disputed(charge: &ChargeRow, dispute: DisputeRow) -> Option<ChargeRow> {
    let is_same = |known: &DisputeRow| DisputeRow { at: dispute.at, ..known.clone() } == dispute;
    if charge.disputes.iter().any(is_same) || charge.disputes.len() >= DISPUTES_MAX {
        return None;
    }
    let mut next = charge.clone();
    let now = dispute.at;
    next.disputes.push(dispute);
    moved(&mut next, now);
    Some(next)
}

/// The charge with one more operation, its attempt about to be sent.
pub fn with_operation(charge: &ChargeRow, operation: Operation, now: Time) -> ChargeRow {
    let mut next = charge.clone();
    next.operations.push(operation);
    restate(&mut next);
    moved(&mut next, now);
    next
}

/// The charge with an attempt about to be sent once more.
pub fn with_resend(charge: &ChargeRow, attempt: AttemptId, now: Time) -> Option<ChargeRow> {
    let mut next = charge.clone();
    let one = next.operations.iter_mut().flat_map(|o| &mut o.attempts).find(|a| a.id == attempt)?;
    one.tries = one.tries.saturating_add(1);
    one.resent_at = Some(now);
    moved(&mut next, now);
    Some(next)
}

/// The charge with an operation that could not even be begun, and that a person must settle.
pub fn with_failed(charge: &ChargeRow, mut operation: Operation, error: &str, now: Time) -> ChargeRow {
    for attempt in &mut operation.attempts {
        attempt.state = AttemptState::Manual;
        attempt.outbound = Outbound::NotSent;
        attempt.error = Some(error.to_owned());
        attempt.finished_at = Some(now);
        attempt.tries = 0;
    }
    with_operation(charge, operation, now)
}

/// Whether something was approved that must be given back at once: a part that nobody wanted, or the hold of a verification.
pub fn needs_reversal(charge: &ChargeRow) -> bool {
    let Some((first, rest)) = charge.operations.split_first() else { return false };
    is_reversed(charge, first) && last_undo(rest).is_none()
}

/// Whether what was approved is not wanted, or not for long.
fn is_reversed(charge: &ChargeRow, first: &Operation) -> bool {
    let approved = matches!(first.status, ChargeStatus::Approved | ChargeStatus::Authorized);
    approved && (charge.amount_offered.is_some() || is_hold(first))
}

/// Whether an undo of the charge left, or may have: there is never a second one, which would give back more than was taken.
pub fn is_undoing(charge: &ChargeRow) -> bool {
    charge.operations.split_first().is_some_and(|(_, rest)| last_undo(rest).is_some())
}

/// Whether an undo of the charge may be at its processor and nobody knows what became of it.
pub fn has_open_undo(charge: &ChargeRow) -> bool {
    let undo = charge.operations.split_first().and_then(|(_, rest)| last_undo(rest));
    undo.is_some_and(|status| !is_final(status))
}

/// Whether an attempt of an operation may still be sent again: not the payment once an undo of it has left, and no undo that was made
/// because nobody knew of the payment, once it is known. Sent again, either would undo what was found to stand, or do what was undone.
pub fn may_be_sent_again(charge: &ChargeRow, operation: &Operation) -> bool {
    let Some((first, rest)) = charge.operations.split_first() else { return false };
    let has_left = |a: &Attempt| a.state != AttemptState::Failed || !was_not_taken(a);
    if first.id == operation.id {
        return !rest.iter().any(|o| is_undo(o) && o.attempts.iter().any(has_left));
    }
    let is_known = first.attempts.last().is_some_and(|attempt| is_settled(attempt.state));
    !is_by_vault(first, operation) || !is_known || is_reversed(charge, first)
}

/// The attempts that still have to be found out about, in the order of the operations.
pub fn unsettled(charge: &ChargeRow) -> impl Iterator<Item = (&Operation, &Attempt)> {
    let attempts = charge.operations.iter().flat_map(|o| o.attempts.iter().map(move |a| (o, a)));
    attempts.filter(|(_, attempt)| !is_settled(attempt.state))
}

/// Whether a status is one that nothing but a caller's next operation changes.
pub const fn is_final(status: ChargeStatus) -> bool {
    match status {
        ChargeStatus::Processing | ChargeStatus::Pending | ChargeStatus::Unknown => false,
        ChargeStatus::Authorized
        | ChargeStatus::Approved
        | ChargeStatus::Declined
        | ChargeStatus::Failed
        | ChargeStatus::Voided
        | ChargeStatus::Manual => true,
    }
}

/// Whether an attempt's outcome is known, or given up.
pub const fn is_settled(state: AttemptState) -> bool {
    match state {
        AttemptState::Sending | AttemptState::Unknown | AttemptState::Pending => false,
        AttemptState::Approved | AttemptState::Declined | AttemptState::Failed | AttemptState::Manual => true,
    }
}

/// A check of a card that is held for review is declined: whoever asked cannot use the card before somebody has looked at it, which
/// may take a month and is seen in no list where the check is of no money; and as it holds none, nothing is to be undone. A payment
/// that is held waits (contracts.md), and so does a check that holds a small amount, until that is released.
fn state_after(attempt: &Attempt, learnt: Learnt<'_>, checks: bool) -> Option<AttemptState> {
    if is_settled(attempt.state) {
        return None;
    }
    let answer = learnt.outcome.answer.as_ref();
    // Of several sends, an outcome belongs to one; what it says of refusal does not speak for the others.
    let how = if learnt.how == How::Sent && attempt.tries > 1 { How::Resent } else { learnt.how };
    match how {
        How::Sent => Some(match (learnt.outcome.sent, answer) {
            (Sent::Not, _) => AttemptState::Failed,
            (Sent::Maybe | Sent::Yes, None) => AttemptState::Unknown,
            (Sent::Maybe | Sent::Yes, Some(answer)) => first_answer(answer),
        }),
        How::Resent | How::Told => answer.and_then(money_answer),
        How::LookedUp { settled } => answer.and_then(|answer| {
            let missing = answer.verdict == Verdict::NotFound && !answer.unknown;
            if missing && settled && attempt.state == AttemptState::Unknown {
                return Some(AttemptState::Failed);
            }
            money_answer(answer)
        }),
    }
    .map(|state| {
        let is_held = checks && answer.is_some_and(|answer| answer.held_for_review);
        if is_held && state == AttemptState::Pending { AttemptState::Declined } else { state }
    })
    .filter(|state| *state != attempt.state)
}

const fn first_answer(answer: &Answer) -> AttemptState {
    if answer.unknown || is_duplicate_refusal(answer) {
        return AttemptState::Unknown;
    }
    match answer.verdict {
        Verdict::Approved if answer.held_for_review => AttemptState::Pending,
        Verdict::Approved => AttemptState::Approved,
        Verdict::Declined => AttemptState::Declined,
        Verdict::Pending => AttemptState::Pending,
        Verdict::Error => AttemptState::Failed,
        // Of a verb this means nothing; of the transaction it changes, it may mean that it is not there yet.
        Verdict::NotFound => AttemptState::Unknown,
    }
}

/// What an answer that is not the first says of the money, if anything. A refusal at the door or an outage is of the question alone,
/// whatever the connector's rules call it; so is the refusal of a duplicate.
const fn money_answer(answer: &Answer) -> Option<AttemptState> {
    let busy_or_broken = matches!(answer.http_status, 408 | 409 | 500..);
    if answer.unknown || busy_or_broken || is_at_the_door(answer) || is_duplicate_refusal(answer) {
        return None;
    }
    match answer.verdict {
        Verdict::Approved if answer.held_for_review => Some(AttemptState::Pending),
        Verdict::Approved => Some(AttemptState::Approved),
        Verdict::Declined => Some(AttemptState::Declined),
        Verdict::Pending => Some(AttemptState::Pending),
        Verdict::Error | Verdict::NotFound => None,
    }
}

/// Whether the request was refused before anybody looked into it: credential, network, rate.
pub const fn is_at_the_door(answer: &Answer) -> bool {
    matches!(answer.http_status, 401 | 403 | 407 | 429)
}

/// Whether the processor declined because it has the same already: that says what it has, not what became of it.
const fn is_duplicate_refusal(answer: &Answer) -> bool {
    answer.duplicate && matches!(answer.verdict, Verdict::Declined)
}

fn write_attempt(attempt: &mut Attempt, state: AttemptState, learnt: Learnt<'_>) {
    let (outcome, now) = (learnt.outcome, learnt.now);
    let sent = match outcome.sent {
        Sent::Not => Outbound::NotSent,
        Sent::Maybe => Outbound::MaybeSent,
        Sent::Yes => Outbound::Sent,
    };
    attempt.state = state;
    attempt.finished_at = Some(now);
    attempt.error.clone_from(&outcome.error);
    let Some(answer) = &outcome.answer else {
        attempt.outbound = sent;
        attempt.upstream_us = Some(outcome.upstream_us).filter(|us| *us > 0);
        return;
    };
    match learnt.how {
        // The question was answered; what became of the attempt's own bytes follows from the answer.
        How::LookedUp { .. } if state == AttemptState::Failed => {
            attempt.error = Some(NOT_FOUND.to_owned());
        }
        How::LookedUp { .. } | How::Told => attempt.outbound = Outbound::Sent,
        How::Sent | How::Resent => {
            attempt.outbound = sent;
            attempt.upstream_us = Some(outcome.upstream_us);
            if state == AttemptState::Failed && is_at_the_door(answer) {
                attempt.error = Some(AT_THE_DOOR.to_owned());
            }
        }
    }
    attempt.processor_code.clone_from(&answer.processor_code);
    attempt.decline_class.clone_from(&answer.decline_class);
    attempt.message.clone_from(&answer.message);
    if answer.held_for_review && matches!(state, AttemptState::Pending | AttemptState::Declined) {
        attempt.error = Some(HELD_FOR_REVIEW.to_owned());
        if state == AttemptState::Declined {
            attempt.decline_class.get_or_insert_with(|| RISK.to_owned());
        }
    }
    // What is told by itself may go by the id of an event; the one that answered the request is the one to go on with.
    let keeps_id = learnt.how == How::Told && attempt.transaction_id.is_some();
    if answer.transaction_id.is_some() && !keeps_id {
        attempt.transaction_id.clone_from(&answer.transaction_id);
    }
    if answer.network_transaction_id.is_some() {
        attempt.network_transaction_id.clone_from(&answer.network_transaction_id);
    }
    if answer.avs_raw.is_some() || answer.avs_zip.is_some() {
        attempt.avs = Some((answer.avs_raw.clone(), answer.avs_zip.clone()));
    }
}

/// The first operation was approved: how much of it.
fn approve(charge: &mut ChargeRow, kind: OperationKind, learnt: Learnt<'_>) {
    let answer = learnt.outcome.answer.as_ref();
    let asked = charge.operations.first().map_or(charge.amount, |operation| operation.amount);
    // Who says that it took less took less, whether its connector has a rule for that or not.
    let is_less = |approved: i64| 0 < approved && approved < asked;
    let partial = answer.filter(|answer| answer.partial || answer.amount_approved.is_some_and(is_less));
    let approved = partial.map_or(asked, |answer| answer.amount_approved.unwrap_or(0).clamp(0, asked));
    match kind {
        OperationKind::Verify => charge.amount_authorized = approved,
        OperationKind::Sale | OperationKind::Authorize => {
            charge.amount_authorized = approved;
            if partial.is_some() && !charge.allow_partial {
                charge.amount_offered = Some(approved);
            } else if kind == OperationKind::Authorize {
                charge.expires_at = Some(learnt.now.plus_seconds(learnt.hold_seconds));
            }
        }
        OperationKind::Capture | OperationKind::Refund | OperationKind::Void => {}
    }
}

/// What was undone without being known, or before its processor had answered, is known now: it moves no money.
pub(super) fn release_unknown(charge: &mut ChargeRow, now: Time) {
    let first = charge.operations.first_mut();
    for attempt in first.into_iter().flat_map(|operation| &mut operation.attempts) {
        if matches!(attempt.state, AttemptState::Unknown | AttemptState::Pending) {
            attempt.state = AttemptState::Failed;
            attempt.error = Some(VOIDED.to_owned());
            attempt.finished_at = Some(now);
        }
    }
}

/// Whether an operation failed because it was undone; one that had failed before stays so.
fn was_unknown(operation: &Operation) -> bool {
    operation.attempts.last().is_some_and(|attempt| attempt.error.as_deref() == Some(VOIDED))
}

fn is_voided_by_hand(operation: &Operation) -> bool {
    operation.attempts.last().is_some_and(|attempt| attempt.error.as_deref() == Some(VOIDED_BY_HAND))
}

fn moved(charge: &mut ChargeRow, now: Time) {
    charge.revision = charge.revision.saturating_add(1);
    charge.updated_at = charge.updated_at.max(now);
}

/// Makes status and amounts follow from the operations.
pub fn restate(charge: &mut ChargeRow) {
    for operation in &mut charge.operations {
        operation.status = operation_status(operation);
    }
    let Some((first, rest)) = charge.operations.split_first() else { return };
    let last_undo = last_undo(rest);
    let voided = last_undo == Some(ChargeStatus::Approved);
    let open = open_undo(first, rest);
    let captured = sum(rest, OperationKind::Capture, |status| status == ChargeStatus::Approved);
    let refunded = sum(rest, OperationKind::Refund, |status| status == ChargeStatus::Approved);
    let closed =
        rest.iter().any(|o| o.kind == OperationKind::Capture && o.last && o.status == ChargeStatus::Approved);
    let (status, code) = match first.status {
        ChargeStatus::Approved | ChargeStatus::Authorized if charge.amount_offered.is_some() => {
            reversal_status(last_undo, (ChargeStatus::Declined, PARTIAL_APPROVAL))
        }
        ChargeStatus::Approved | ChargeStatus::Authorized if is_hold(first) => match last_undo {
            Some(ChargeStatus::Declined | ChargeStatus::Failed | ChargeStatus::Manual) => {
                (ChargeStatus::Approved, Some(HOLD_NOT_RELEASED.to_owned()))
            }
            Some(ChargeStatus::Approved) => (ChargeStatus::Approved, None),
            other => (other.unwrap_or(ChargeStatus::Processing), None),
        },
        // It was undone while nobody knew of it, and may have been found approved in between.
        ChargeStatus::Approved if voided => (ChargeStatus::Voided, None),
        ChargeStatus::Authorized if voided && captured == 0 => (ChargeStatus::Voided, None),
        ChargeStatus::Approved | ChargeStatus::Authorized if open.is_some() => {
            reversal_status(open, (ChargeStatus::Voided, UNDO_OPEN))
        }
        ChargeStatus::Authorized if voided || closed || captured >= charge.amount_authorized => {
            (ChargeStatus::Approved, lacks_transaction(first))
        }
        ChargeStatus::Unknown | ChargeStatus::Manual if voided => (ChargeStatus::Voided, None),
        ChargeStatus::Failed if voided && was_unknown(first) => (ChargeStatus::Voided, None),
        ChargeStatus::Failed if is_voided_by_hand(first) => (ChargeStatus::Voided, None),
        ChargeStatus::Declined | ChargeStatus::Failed if route::goes_on(charge) => {
            (ChargeStatus::Processing, None)
        }
        status @ (ChargeStatus::Declined | ChargeStatus::Failed | ChargeStatus::Unknown) => {
            (status, why(first))
        }
        status @ (ChargeStatus::Authorized | ChargeStatus::Approved) => (status, lacks_transaction(first)),
        status @ (ChargeStatus::Processing
        | ChargeStatus::Pending
        | ChargeStatus::Voided
        | ChargeStatus::Manual) => (status, None),
    };
    let sold = first.kind == OperationKind::Sale && first.status == ChargeStatus::Approved;
    let given_back = voided && (charge.amount_offered.is_some() || is_hold(first));
    if given_back {
        charge.amount_authorized = 0;
    }
    // Until it is known whether it was undone, nothing is said to be paid.
    let stands = !voided && open.is_none();
    charge.amount_captured = match sold {
        true if stands => charge.amount_authorized,
        true => 0,
        false => captured,
    };
    charge.amount_refunded = refunded;
    charge.status = status;
    charge.code = code;
}

/// Whether an operation releases or gives back all that the first one did.
const fn is_undo(operation: &Operation) -> bool {
    operation.undoes || matches!(operation.kind, OperationKind::Void)
}

/// Whether an operation is an undo that no caller asked for; a void that says nothing of it is a caller's where there are such.
fn is_by_vault(first: &Operation, operation: &Operation) -> bool {
    let is_void = operation.kind == OperationKind::Void;
    operation.undoes || (is_void && first.kind != OperationKind::Authorize)
}

/// How an undo stands that no caller asked for, and that may have undone the payment or may do so yet.
fn open_undo(first: &Operation, rest: &[Operation]) -> Option<ChargeStatus> {
    let last = last_that_left(rest).filter(|operation| is_by_vault(first, operation));
    let may_have = |status: &ChargeStatus| !is_final(*status) || *status == ChargeStatus::Manual;
    last.map(|operation| operation.status).filter(may_have)
}

/// How the last void that left stands, or the refund in its place; one that certainly did not, or that its processor does not have, is
/// as if it had not been.
fn last_undo(operations: &[Operation]) -> Option<ChargeStatus> {
    last_that_left(operations).map(|operation| operation.status)
}

/// Whether an attempt that failed certainly got no further than its processor's door: then it can be made again as another.
fn was_not_taken(attempt: &Attempt) -> bool {
    attempt.outbound == Outbound::NotSent || attempt.error.as_deref() == Some(AT_THE_DOOR)
}

fn last_that_left(operations: &[Operation]) -> Option<&Operation> {
    let never_was = |a: &Attempt| was_not_taken(a) || a.error.as_deref() == Some(NOT_FOUND);
    let left = |operation: &&Operation| {
        operation.attempts.last().is_none_or(|a| a.state != AttemptState::Failed || !never_was(a))
    };
    operations.iter().rev().filter(|operation| is_undo(operation)).find(left)
}

/// The status while something that was approved is given back, and after.
fn reversal_status(undo: Option<ChargeStatus>, done: (ChargeStatus, &str)) -> (ChargeStatus, Option<String>) {
    match undo {
        None => (ChargeStatus::Processing, None),
        Some(ChargeStatus::Approved) => (done.0, Some(done.1.to_owned())),
        Some(status @ (ChargeStatus::Processing | ChargeStatus::Pending | ChargeStatus::Unknown)) => {
            (status, Some(done.1.to_owned()))
        }
        Some(
            ChargeStatus::Authorized
            | ChargeStatus::Declined
            | ChargeStatus::Failed
            | ChargeStatus::Voided
            | ChargeStatus::Manual,
        ) => (ChargeStatus::Manual, Some(REVERSAL_FAILED.to_owned())),
    }
}

fn operation_status(operation: &Operation) -> ChargeStatus {
    match operation.attempts.last().map(|attempt| attempt.state) {
        None | Some(AttemptState::Sending) => ChargeStatus::Processing,
        Some(AttemptState::Unknown) => ChargeStatus::Unknown,
        Some(AttemptState::Pending) => ChargeStatus::Pending,
        Some(AttemptState::Approved) if operation.kind == OperationKind::Authorize => {
            ChargeStatus::Authorized
        }
        Some(AttemptState::Approved) => ChargeStatus::Approved,
        Some(AttemptState::Declined) => ChargeStatus::Declined,
        Some(AttemptState::Failed) => ChargeStatus::Failed,
        Some(AttemptState::Manual) => ChargeStatus::Manual,
    }
}

/// Whether a verification was made with a small amount, because the processor takes none of zero.
const fn is_hold(operation: &Operation) -> bool {
    matches!(operation.kind, OperationKind::Verify) && operation.amount > 0
}

/// Whether it checks a card without money.
const fn is_check(operation: &Operation) -> bool {
    matches!(operation.kind, OperationKind::Verify) && operation.amount == 0
}

/// Whether a verification's small amount is held for review: it is released, as the card cannot be used before.
pub fn is_held_hold(operation: &Operation) -> bool {
    let last = operation.attempts.last();
    is_hold(operation) && last.is_some_and(|attempt| attempt.error.as_deref() == Some(HELD_FOR_REVIEW))
}

fn why(operation: &Operation) -> Option<String> {
    let attempt = operation.attempts.last()?;
    attempt.processor_code.clone().or_else(|| attempt.error.clone())
}

/// What stands and cannot be captured, refunded or voided from here says so.
fn lacks_transaction(operation: &Operation) -> Option<String> {
    let error = operation.attempts.last().and_then(|attempt| attempt.error.clone());
    error.filter(|error| error == TRANSACTION_UNKNOWN)
}

/// The amounts of what callers asked for.
pub(super) fn sum(
    operations: &[Operation],
    kind: OperationKind,
    counts: impl Fn(ChargeStatus) -> bool,
) -> i64 {
    operations
        .iter()
        .filter(|operation| operation.kind == kind && !operation.undoes && counts(operation.status))
        .fold(0, |sum: i64, operation| sum.saturating_add(operation.amount))
}
