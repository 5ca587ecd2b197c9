//! Captures, refunds and voids: operations on a charge, each with its own key and attempts, through the same machine. They need no
//! card, so they work after its erasure; a connector that wants one for a refund gets it while it is there, and says so before the
//! erase.

use std::sync::Arc;

use super::create::{self, Draft};
use super::send::{By, Claim};
use super::{Answered, Error, Hold, machine, refundable, rules};
use crate::card::id::{AttemptId, EventId};
use crate::edge::App;
use crate::edge::directory::Caller;
use crate::edge::keeper::KeeperError;
use crate::edge::store::{ChargeRow, CommitError, Operation, OperationKind};
use crate::edge::working::Working;
use crate::wire::keeper::{Digest, Prepare, RefusalCode, StoredCredential, Verb};

/// What the keeper names when a request needs the processor's id of the payment and there is none: no caller can send it.
const PREVIOUS_TRANSACTION: &str = "prev.transaction";
/// How often an operation starts again when another change of the charge came first.
const TRIES_MAX: u32 = 8;

/// What is to be done with a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Capture it, or part of it.
    Capture {
        /// In minor units; all that is left if none.
        amount: Option<i64>,
        /// Nothing more will be captured.
        last: bool,
    },
    /// Give it back, or part of it.
    Refund {
        /// In minor units; all that is left if none.
        amount: Option<i64>,
    },
    /// Release the authorization.
    Void,
}

impl Follow {
    const fn route(self) -> &'static str {
        match self {
            Self::Capture { .. } => "POST /v1/charges/{id}/captures",
            Self::Refund { .. } => "POST /v1/charges/{id}/refunds",
            Self::Void => "POST /v1/charges/{id}/void",
        }
    }

    /// The operation that it makes of a charge as it stands.
    fn decide(self, charge: &ChargeRow) -> Result<(OperationKind, i64, bool), Error> {
        match self {
            Self::Capture { amount, last } => {
                Ok((OperationKind::Capture, rules::capture_amount(charge, amount)?, last))
            }
            Self::Refund { amount } => {
                Ok((OperationKind::Refund, rules::refund_amount(charge, amount)?, false))
            }
            Self::Void => {
                rules::may_void(charge)?;
                Ok((OperationKind::Void, charge.amount_authorized, false))
            }
        }
    }
}

/// Captures, refunds or voids a charge.
pub async fn follow(
    app: &App,
    caller: &Caller,
    id: &str,
    (key, body): (&str, &[u8]),
    what: Follow,
    hold: Hold,
) -> Result<Answered, Error> {
    let (tenant, route) = (caller.tenant_id(), what.route());
    let digest = Digest {
        tenant,
        route: route.replace("{id}", id),
        idempotency_key: key.to_owned(),
        body: body.to_vec(),
    };
    let digests = app.keeper.digest(digest).await?;
    let guard = Arc::new(Working::take(app, digests.key).ok_or(Error::InProgress)?);
    let mut claim =
        Claim { tenant, route, key: digests.key, body_mac: digests.body, token: None, operation: None };
    if let Some(stored) = app.store.idempotency(tenant, route, &claim.key).await? {
        return create::replay(app, &claim, stored).await;
    }
    let by = By { actor: caller.actor(), origin: caller.origin() };
    let mut with_card = false;
    for _ in 0..TRIES_MAX {
        let charge = app.store.charge(tenant, id).await?.ok_or(Error::ChargeUnknown)?;
        if charge.id.to_string() != id {
            return Err(Error::ChargeUnknown);
        }
        let (kind, amount, last) = what.decide(&charge)?;
        let last = last || (kind == OperationKind::Capture && captures_once(app, &charge));
        let now = app.clock.now();
        let operation =
            Operation { last, ..create::make_operation((kind, amount), AttemptId::make(now)?, now)? };
        let draft = draft(app, charge, operation, with_card).await?;
        claim.operation = draft.charge.operations.last().map(|operation| operation.id.clone());
        match create::run(app, draft, by.clone(), claim.clone(), Arc::clone(&guard), hold).await {
            Ok(answered) => return Ok(answered),
            Err(Error::Commit(CommitError::Conflict)) => {}
            Err(Error::Commit(CommitError::KeyTaken(stored))) => {
                return create::replay(app, &claim, *stored).await;
            }
            Err(Error::Keeper(KeeperError::Refused(refusal)))
                if refusal.code == RefusalCode::RequiredByConnector
                    && refusal.param.as_deref() == Some(PREVIOUS_TRANSACTION) =>
            {
                return Err(Error::TransactionUnknown);
            }
            Err(Error::Keeper(KeeperError::Refused(refusal)))
                if !with_card && refusal.code == RefusalCode::RequiredByConnector =>
            {
                with_card = true;
            }
            Err(error) => return Err(error),
        }
    }
    Err(CommitError::Conflict.into())
}

/// Whether the processor releases what a capture leaves: then there is nothing left, whatever the caller said.
fn captures_once(app: &App, charge: &ChargeRow) -> bool {
    let destinations = app.directory.destinations();
    destinations.iter().any(|to| to.name == charge.destination && to.captures_once)
}

/// Whether a refund of a captured authorization names the capture.
pub(super) fn refunds_capture(app: &App, charge: &ChargeRow) -> bool {
    let destinations = app.directory.destinations();
    destinations.iter().any(|to| to.name == charge.destination && to.refunds_capture)
}

/// A charge with one more operation, fresh, and the request that it needs.
pub(super) async fn draft(
    app: &App,
    charge: ChargeRow,
    operation: Operation,
    with_card: bool,
) -> Result<Draft, Error> {
    let now = app.clock.now();
    let event = EventId::make(now)?;
    let attempt = operation.attempts.last().map(|attempt| attempt.id).ok_or(Error::State)?;
    let prepare = prepare_for(app, &charge, &operation, (attempt, event), with_card, None).await?;
    let keys = prepare.sealed.as_ref().map(crate::card::sealed::SealedCard::key_ids).unwrap_or_default();
    let charge = machine::with_operation(&charge, operation, now);
    Ok(Draft { charge, attempt, prepare, keys, slot: None, taken: None })
}

/// The request of an operation, as its first send has it and each later one must.
pub(super) async fn prepare_for(
    app: &App,
    charge: &ChargeRow,
    operation: &Operation,
    (attempt, event): (AttemptId, EventId),
    with_card: bool,
    stored_credential: Option<StoredCredential>,
) -> Result<Box<Prepare>, Error> {
    let sealed = if with_card { Some(refundable::sealed_card(app, charge).await?) } else { None };
    let (previous_transaction, previous_amount) = match operation.kind {
        OperationKind::Capture | OperationKind::Refund | OperationKind::Void => {
            rules::previous(charge, operation.kind, refunds_capture(app, charge))
        }
        OperationKind::Sale | OperationKind::Authorize | OperationKind::Verify => (None, None),
    };
    let previous_attempt = previous_transaction.as_deref().and_then(|id| rules::attempt_of(charge, id));
    Ok(Box::new(Prepare {
        held: None,
        tenant: charge.tenant,
        token: charge.token,
        sealed,
        destination: charge.destination.clone(),
        verb: verb_of(operation),
        attempt,
        event,
        amount: operation.amount,
        currency: charge.currency.clone(),
        invoice: charge.invoice.clone(),
        customer: charge.customer.clone(),
        description: charge.description.clone(),
        statement_descriptor: charge.statement_descriptor.clone(),
        allow_partial: charge.allow_partial,
        last: operation.last,
        stored_credential,
        previous_transaction,
        previous_amount,
        previous_attempt,
    }))
}

/// What an operation is at the processor.
pub(super) const fn verb_of(operation: &Operation) -> Verb {
    match operation.kind {
        OperationKind::Sale => Verb::Sale,
        OperationKind::Authorize => Verb::Authorize,
        OperationKind::Capture => Verb::Capture,
        OperationKind::Refund => Verb::Refund,
        OperationKind::Void => Verb::Void,
        OperationKind::Verify if operation.amount > 0 => Verb::Authorize,
        OperationKind::Verify => Verb::Verify,
    }
}
