//! A person settles what could not be found out: with a word on what became of it and a reason. Only what is `manual`, or `unknown` for
//! longer than its processor needs to know it. By the same verb the processor's id of a payment that stands can be added later.

use super::machine;
use super::send::{By, Claim, count, event_about};
use super::{Answered, Error, answer, create, retries};
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::edge::App;
use crate::edge::audit::catalogue;
use crate::edge::audit::event::{Actor, Facts, Origin};
use crate::edge::directory::Caller;
use crate::edge::keeper::PROCESSOR_SECONDS_MAX;
use crate::edge::store::{
    Attempt, AttemptState, Change, ChargeRow, ChargeStatus, CommitError, Operation, OperationKind, RowChange,
};
use crate::edge::working::Working;
use crate::wire::control::DestinationInfo;
use crate::wire::keeper::Digest;
use crate::wire::resolution::{Resolution, Word};

const ROUTE: &str = "POST /v1/charges/{id}/resolve";
/// How often it starts again when another change of the charge came first.
const TRIES_MAX: u32 = 8;
/// The error of an attempt that a person settled; its message is the reason.
const SETTLED_BY_HAND: &str = "settled_by_hand";

/// Settles a charge, or one of its operations, by the word of who calls.
pub async fn settle(
    app: &App,
    caller: &Caller,
    id: &str,
    once: (&str, &[u8]),
    said: &Resolution,
) -> Result<Answered, Error> {
    let by = By { actor: caller.actor(), origin: caller.origin() };
    settle_by(app, (caller.tenant_id(), by), id, once, said).await
}

/// The same by the word of a person whom the supervisor knows, and another who approved it; `once` is the id of their request.
pub async fn settle_approved(
    app: &App,
    (tenant, actor): (TenantId, Actor),
    id: &str,
    once: &str,
    said: &Resolution,
) -> Result<Answered, Error> {
    let by = By { actor, origin: Origin::default() };
    settle_by(app, (tenant, by), id, (once, once.as_bytes()), said).await
}

async fn settle_by(
    app: &App,
    (tenant, by): (TenantId, By),
    id: &str,
    (key, body): (&str, &[u8]),
    said: &Resolution,
) -> Result<Answered, Error> {
    let digest = Digest {
        tenant,
        route: ROUTE.replace("{id}", id),
        idempotency_key: key.to_owned(),
        body: body.to_vec(),
    };
    let digests = app.keeper.digest(digest).await?;
    let _guard = Working::take(app, digests.key).ok_or(Error::InProgress)?;
    let claim = Claim {
        tenant,
        route: ROUTE,
        key: digests.key,
        body_mac: digests.body,
        token: None,
        operation: None,
    };
    if let Some(stored) = app.store.idempotency(tenant, ROUTE, &claim.key).await? {
        return create::replay(app, &claim, stored).await;
    }
    for _ in 0..TRIES_MAX {
        let charge = app.store.charge(tenant, id).await?.ok_or(Error::ChargeUnknown)?;
        if charge.id.to_string() != id {
            return Err(Error::ChargeUnknown);
        }
        let now = app.clock.now();
        let hold_seconds = super::terms::hold_seconds(app, &charge).await;
        let next = settled(&charge, said, terms(app, &charge, (now, hold_seconds)))?;
        let mut event = event_about(app, &next, catalogue::CHARGE_RESOLVE, &by)?;
        event.facts = Facts { note: Some(answer::status_word(next.status).to_owned()), ..Facts::default() };
        let change = Change {
            rows: vec![RowChange::PutCharge(Box::new(next.clone()))],
            events: vec![event],
            idempotency: claim.frozen(&next),
        };
        match app.store.commit(change).await {
            Ok(_) => {
                count(app, &charge, &next);
                return answer::answered(&next, None).ok_or(Error::ChargeUnknown);
            }
            Err(CommitError::Conflict) => {}
            Err(CommitError::KeyTaken(stored)) => return create::replay(app, &claim, *stored).await,
            Err(error) => return Err(error.into()),
        }
    }
    Err(CommitError::Conflict.into())
}

/// What settling goes by, besides the word.
#[derive(Clone, Copy, Debug)]
struct Terms {
    now: Time,
    /// How long such an authorization holds.
    hold_seconds: i64,
    /// How long what is unknown stays the machine's.
    unknown_seconds: i64,
    /// Whether nothing can be done to the payment later without the processor's id of it.
    needs_transaction: bool,
}

fn terms(app: &App, charge: &ChargeRow, (now, hold_seconds): (Time, i64)) -> Terms {
    let destinations = app.directory.destinations();
    let to = destinations.iter().find(|to| to.name == charge.destination);
    let needs_transaction = to.is_some_and(|to| to.later_needs_transaction);
    Terms { now, hold_seconds, unknown_seconds: unknown_seconds(to), needs_transaction }
}

/// What is unknown may be settled by hand when the processor must know it, and never while a send of it may be under way: that takes
/// as long as the connector waits for an answer, or the keeper is waited for.
fn unknown_seconds(to: Option<&DestinationInfo>) -> i64 {
    let longest = to.map_or(0, |to| to.settle_seconds.max(to.timeout_seconds)).max(PROCESSOR_SECONDS_MAX);
    i64::try_from(longest).unwrap_or(i64::MAX)
}

/// The charge as a person says that it is.
fn settled(charge: &ChargeRow, said: &Resolution, terms: Terms) -> Result<ChargeRow, Error> {
    let mut next = charge.clone();
    let now = terms.now;
    let at = match operation_meant(charge, said.operation.as_deref(), (now, terms.unknown_seconds)) {
        Err(Error::State) => return with_transaction(charge, said, now),
        meant => meant?,
    };
    if at > 0 && charge.amount_offered.is_some() && said.outcome == Word::Approved && said.operation.is_none()
    {
        // A part that was to be given back and could not be: it is kept.
        next.amount_offered = None;
    }
    let is_of_undo = at > 0 && charge.operations.get(at).is_some_and(|operation| operation.undoes);
    if is_of_undo
        && said.operation.is_none()
        && said.outcome != Word::Voided
        && charge.status == ChargeStatus::Manual
        && charge.amount_offered.is_none()
    {
        // The payment is approved, and so may its undo be: nobody can tell which of them the word is about.
        return Err(Error::OperationRequired);
    }
    if at == 0 && machine::has_open_undo(charge) {
        // Whether it stands is the undo's to say, and that may come yet.
        return Err(Error::State);
    }
    let kept = next.amount_offered.is_none() && charge.amount_offered.is_some();
    let operation = next.operations.get_mut(at).ok_or(Error::State)?;
    let (kind, amount) = (operation.kind, operation.amount);
    let undoes = operation.undoes || kind == OperationKind::Void;
    let state = match said.outcome {
        Word::Approved if kept => AttemptState::Declined,
        Word::Approved => AttemptState::Approved,
        Word::Declined => AttemptState::Declined,
        Word::Voided if at == 0 => AttemptState::Failed,
        // Of what was to undo the charge, voided says that it worked.
        Word::Voided if undoes => AttemptState::Approved,
        Word::Voided => return Err(Error::State),
    };
    let attempt = operation.attempts.last_mut().ok_or(Error::State)?;
    attempt.state = state;
    attempt.finished_at = Some(now);
    attempt.message = Some(said.reason.trim().to_owned());
    attempt.processor_code = None;
    if said.processor_transaction_id.is_some() {
        attempt.transaction_id.clone_from(&said.processor_transaction_id);
    }
    let lacks_transaction = terms.needs_transaction && attempt.transaction_id.is_none();
    let error = match said.outcome {
        Word::Voided if at == 0 => machine::VOIDED_BY_HAND,
        // It stands, and nobody can capture, refund or void it from here before its id is added.
        Word::Approved if at == 0 && kind != OperationKind::Verify && lacks_transaction => {
            machine::TRANSACTION_UNKNOWN
        }
        Word::Approved | Word::Declined | Word::Voided => SETTLED_BY_HAND,
    };
    attempt.error = Some(error.to_owned());
    match (at, said.outcome) {
        (0, Word::Approved) => {
            next.amount_authorized = amount;
            let expires_at = now.plus_seconds(terms.hold_seconds);
            next.expires_at = (kind == OperationKind::Authorize).then_some(expires_at);
        }
        // What undid it did so: that is known of the charge then as well.
        (1.., Word::Approved | Word::Voided) if undoes && !kept => machine::release_unknown(&mut next, now),
        (_, Word::Approved | Word::Declined | Word::Voided) => {}
    }
    retries::end(&mut next, SETTLED_BY_HAND);
    next.revision = next.revision.saturating_add(1);
    next.updated_at = next.updated_at.max(now);
    Ok(next)
}

/// The charge with the processor's id of a payment, capture or refund that stands and had none. The word can only be `approved`:
/// nothing else of it changes.
fn with_transaction(charge: &ChargeRow, said: &Resolution, now: Time) -> Result<ChargeRow, Error> {
    let id = said
        .processor_transaction_id
        .as_ref()
        .filter(|_| said.outcome == Word::Approved)
        .ok_or(Error::State)?;
    let mut next = charge.clone();
    let is_meant = |operation: &Operation| said.operation.as_ref().is_none_or(|id| operation.id == *id);
    let lacks =
        |attempt: &Attempt| attempt.state == AttemptState::Approved && attempt.transaction_id.is_none();
    let meant = next.operations.iter_mut().filter(|operation| is_meant(operation));
    let attempt = meant.filter_map(|operation| operation.attempts.last_mut()).find(|attempt| lacks(attempt));
    let attempt = attempt.ok_or(Error::State)?;
    attempt.transaction_id = Some(id.clone());
    if attempt.error.as_deref() == Some(machine::TRANSACTION_UNKNOWN) {
        attempt.error = Some(SETTLED_BY_HAND.to_owned());
        attempt.message = Some(said.reason.trim().to_owned());
    }
    machine::restate(&mut next);
    next.revision = next.revision.saturating_add(1);
    next.updated_at = next.updated_at.max(now);
    Ok(next)
}

/// The operation that is to be settled: the one named, or the only one that can be.
fn operation_meant(
    charge: &ChargeRow,
    named: Option<&str>,
    (now, settle_seconds): (Time, i64),
) -> Result<usize, Error> {
    let can_be = |operation: &Operation| {
        let last = operation.attempts.last();
        last.is_some_and(|attempt| match attempt.state {
            AttemptState::Manual => true,
            AttemptState::Unknown => attempt
                .finished_at
                .max(attempt.resent_at)
                .is_some_and(|at| now >= at.plus_seconds(settle_seconds)),
            AttemptState::Sending
            | AttemptState::Pending
            | AttemptState::Approved
            | AttemptState::Declined
            | AttemptState::Failed => false,
        })
    };
    let mut open = charge.operations.iter().enumerate().filter(|(_, operation)| can_be(operation));
    match named {
        Some(id) => open.find(|(_, operation)| operation.id == id).map(|(at, _)| at).ok_or(Error::State),
        None => {
            let Some((at, _)) = open.next() else {
                // A reversal that was refused leaves a charge `manual` without an open attempt.
                let undo = charge.operations.iter().rposition(|o| o.undoes || o.kind == OperationKind::Void);
                return undo.filter(|_| charge.status == ChargeStatus::Manual).ok_or(Error::State);
            };
            if at > 0 && open.next().is_some() { Err(Error::OperationRequired) } else { Ok(at) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, charge, learn, said, silent};
    use super::*;
    use crate::card::id::{AttemptId, IdBytes};
    use crate::wire::forwarder::{Sent, Verdict};

    const LONG_AFTER: i64 = 86_400;

    fn by_hand(charge: &ChargeRow, outcome: Word, operation: Option<&str>) -> Result<ChargeRow, Error> {
        let said = Resolution {
            outcome,
            reason: "seen".to_owned(),
            processor_transaction_id: None,
            operation: operation.map(str::to_owned),
        };
        let now = charge.created_at.plus_seconds(LONG_AFTER);
        settled(charge, &said, Terms { now, hold_seconds: 1, unknown_seconds: 150, needs_transaction: true })
    }

    /// A sale that nobody knows of, and a void of it that left.
    fn undoing() -> (ChargeRow, AttemptId) {
        let lost = learn(&charge(OperationKind::Sale, false), &silent(1, Sent::Maybe));
        let (attempt, now) = (AttemptId(IdBytes([2; 18])), lost.created_at);
        let undo = create::make_operation((OperationKind::Void, lost.amount), attempt, now).unwrap();
        let undoing = machine::with_operation(&lost, Operation { undoes: true, ..undo }, now);
        (learn(&undoing, &silent(2, Sent::Maybe)), attempt)
    }

    #[test]
    fn a_payment_whose_undo_is_open_is_not_settled_by_hand() {
        let (undoing, attempt) = undoing();
        let (sale, undo) = (undoing.operations[0].id.clone(), undoing.operations[1].id.clone());
        for outcome in [Word::Approved, Word::Declined, Word::Voided] {
            for named in [None, Some(sale.as_str())] {
                assert!(matches!(by_hand(&undoing, outcome, named), Err(Error::State)), "{outcome:?}");
            }
        }
        let undone = by_hand(&undoing, Word::Approved, Some(&undo)).unwrap();
        assert_eq!((undone.status, undone.amount_captured), (ChargeStatus::Voided, 0));
        // When nobody can find out about the undo either, both are a person's; nothing is paid before both are known.
        let given_up = machine::give_up(&undoing, attempt, undoing.updated_at).unwrap();
        let sold = by_hand(&given_up, Word::Approved, Some(&sale)).unwrap();
        assert_eq!((sold.status, sold.amount_captured), (ChargeStatus::Manual, 0));
        for outcome in [Word::Approved, Word::Declined] {
            assert!(matches!(by_hand(&sold, outcome, None), Err(Error::OperationRequired)), "{outcome:?}");
        }
        let stands = by_hand(&sold, Word::Declined, Some(&undo)).unwrap();
        assert_eq!((stands.status, stands.amount_captured), (ChargeStatus::Approved, stands.amount));
        for (outcome, named) in [(Word::Approved, Some(undo.as_str())), (Word::Voided, None)] {
            let undone = by_hand(&sold, outcome, named).unwrap();
            assert_eq!((undone.status, undone.amount_captured), (ChargeStatus::Voided, 0));
        }
        // What comes of the undo after the payment was found approved decides.
        let voided = learn(&undoing, &said(2, answer(Verdict::Approved)));
        assert_eq!((voided.status, voided.amount_captured), (ChargeStatus::Voided, 0));
    }
}
