//! A person settles what could not be found out: with a word on what became of it and a reason. Only what is `manual`, or `unknown` for
//! longer than its processor needs to know it.

use super::machine;
use super::send::{By, Claim, count, event_about};
use super::{Answered, Error, Held, answer, create, retries, working};
use crate::clock::Time;
use crate::edge::App;
use crate::edge::audit::catalogue;
use crate::edge::audit::event::Facts;
use crate::edge::directory::Caller;
use crate::edge::store::{
    AttemptState, Change, ChargeRow, ChargeStatus, CommitError, Operation, OperationKind, RowChange,
};
use crate::wire::keeper::Digest;

const ROUTE: &str = "POST /v1/charges/{id}/resolve";
/// How often it starts again when another change of the charge came first.
const TRIES_MAX: u32 = 8;
/// What is unknown may be settled by hand when the processor must know it, and no sooner than this.
const UNKNOWN_SECONDS_MIN: i64 = 60;
/// The error of an attempt that a person settled; its message is the reason.
const SETTLED_BY_HAND: &str = "settled_by_hand";

/// What became of it, by a person's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// It was done.
    Approved,
    /// It was not, and will not be.
    Declined,
    /// It was undone: nothing moved in the end.
    Voided,
}

/// What a person says of a charge.
#[derive(Clone, Debug)]
pub struct Resolution {
    /// What became of it.
    pub outcome: Word,
    /// Why they know; at least a few letters.
    pub reason: String,
    /// The processor's id of it, if they found it.
    pub transaction_id: Option<String>,
    /// Which capture, refund or void it is about; the charge's own operation, or the only one that is open, if none.
    pub operation: Option<String>,
}

/// Settles a charge, or one of its operations.
pub async fn settle(
    app: &App,
    caller: &Caller,
    id: &str,
    (key, body): (&str, &[u8]),
    said: &Resolution,
) -> Result<Answered, Error> {
    let tenant = caller.tenant_id();
    let digest = Digest {
        tenant,
        route: ROUTE.replace("{id}", id),
        idempotency_key: key.to_owned(),
        body: body.to_vec(),
    };
    let digests = app.keeper.digest(digest).await?;
    let _guard = Held::take(app, working, digests.key).ok_or(Error::InProgress)?;
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
    let by = By { actor: caller.actor(), origin: caller.origin() };
    for _ in 0..TRIES_MAX {
        let charge = app.store.charge(tenant, id).await?.ok_or(Error::ChargeUnknown)?;
        if charge.id.to_string() != id {
            return Err(Error::ChargeUnknown);
        }
        let now = app.clock.now();
        let hold_seconds = super::terms::hold_seconds(app, &charge).await;
        let next = settled(&charge, said, (now, hold_seconds, settle_seconds(app, &charge)))?;
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

fn settle_seconds(app: &App, charge: &ChargeRow) -> i64 {
    let destinations = app.directory.destinations();
    let to = destinations.iter().find(|to| to.name == charge.destination);
    to.and_then(|to| i64::try_from(to.settle_seconds).ok()).unwrap_or(0).max(UNKNOWN_SECONDS_MIN)
}

/// The charge as a person says that it is.
fn settled(
    charge: &ChargeRow,
    said: &Resolution,
    (now, hold_seconds, settle_seconds): (Time, i64, i64),
) -> Result<ChargeRow, Error> {
    let mut next = charge.clone();
    let at = operation_meant(charge, said.operation.as_deref(), (now, settle_seconds))?;
    if at > 0 && charge.amount_offered.is_some() && said.outcome == Word::Approved && said.operation.is_none()
    {
        // A part that was to be given back and could not be: it is kept.
        next.amount_offered = None;
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
    let is_voided = at == 0 && said.outcome == Word::Voided;
    let error = if is_voided { machine::VOIDED_BY_HAND } else { SETTLED_BY_HAND };
    attempt.error = Some(error.to_owned());
    attempt.message = Some(said.reason.trim().to_owned());
    attempt.processor_code = None;
    if said.transaction_id.is_some() {
        attempt.transaction_id.clone_from(&said.transaction_id);
    }
    match (at, said.outcome) {
        (0, Word::Approved) => {
            next.amount_authorized = amount;
            next.expires_at = (kind == OperationKind::Authorize).then(|| now.plus_seconds(hold_seconds));
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
