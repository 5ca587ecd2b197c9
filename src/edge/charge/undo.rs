//! Undoing what a charge's first operation did: what was approved and not wanted, or what nobody knows of.

use super::follow::{draft, verb_of};
use super::machine::{self, How};
use super::send::{self, By, Claim};
use super::{Error, create, refundable, resolve};
use crate::card::id::AttemptId;
use crate::clock::Time;
use crate::edge::App;
use crate::edge::store::{ChargeRow, Operation, OperationKind};
use crate::wire::control::DestinationInfo;
use crate::wire::keeper::Verb;

/// Gives back what was approved and not wanted. At the end of the time a person must.
pub(super) async fn reverse(app: &App, charge: ChargeRow, claim: Option<&Claim>, over: bool) -> ChargeRow {
    let now = app.clock.now();
    let destinations = app.directory.destinations();
    let to = destinations.iter().find(|to| to.name == charge.destination);
    let operation = match to.map(|to| make(to, &charge, now)) {
        Some(Ok(operation)) => operation,
        Some(Err(_)) => return charge,
        // The destination was taken out of the configuration: it may come back.
        None if !over => return charge,
        None => None,
    };
    let why = match operation {
        None => "no_way_to_undo",
        Some(_) if over => "gave_up",
        Some(operation) => match carry_out(app, &charge, operation, claim).await {
            Ok(charge) => return charge,
            Err(error) if resolve::is_passing(&error) => return charge,
            Err(_) => "void_refused",
        },
    };
    let Ok(attempt) = AttemptId::make(now) else { return charge };
    let amount = charge.amount_authorized;
    let Ok(operation) = create::make_operation((OperationKind::Void, amount), attempt, now) else {
        return charge;
    };
    let next = machine::with_failed(&charge, operation, why, now);
    if send::commit_moved(app, &charge, &next, attempt).await { next } else { charge }
}

/// What the connector has to undo an operation that began a charge.
pub(super) fn verb_of_undo(to: &DestinationInfo, operation: &Operation) -> Option<Verb> {
    match verb_of(operation) {
        Verb::Sale => to.undo_sale,
        Verb::Authorize => to.undo_authorize,
        Verb::Capture | Verb::Refund | Verb::Void | Verb::Verify => None,
    }
}

/// The operation that undoes a charge's first one, all of it; none if its connector has none.
pub(super) fn make(to: &DestinationInfo, charge: &ChargeRow, now: Time) -> Result<Option<Operation>, Error> {
    let first = charge.operations.first();
    let Some((first, verb)) = first.and_then(|first| Some((first, verb_of_undo(to, first)?))) else {
        return Ok(None);
    };
    // Of what is unknown nobody knows how much was taken; a refund names what was asked for.
    let amount = if charge.amount_authorized > 0 { charge.amount_authorized } else { first.amount };
    let kind = if verb == Verb::Refund { OperationKind::Refund } else { OperationKind::Void };
    let operation = create::make_operation((kind, amount), AttemptId::make(now)?, now)?;
    Ok(Some(Operation { undoes: true, ..operation }))
}

/// Prepares, commits, sends and records it.
pub(super) async fn carry_out(
    app: &App,
    charge: &ChargeRow,
    operation: Operation,
    claim: Option<&Claim>,
) -> Result<ChargeRow, Error> {
    let with_card = operation.kind == OperationKind::Refund && refundable::needs_card(app, charge);
    let draft = draft(app, charge.clone(), operation, with_card).await?;
    let (mut next, attempt, event) = (draft.charge, draft.attempt, draft.prepare.event);
    let prepared = send::prepare(app, draft.prepare).await?;
    let by = By::vault();
    let ids = (attempt, event);
    let grant = send::commit_sending(app, &mut next, ids, &prepared, &by, draft.keys, None).await?;
    let outcome = send::release(app, prepared.held, grant, attempt).await;
    let next = send::record(app, next, &outcome, How::Sent, &by, claim).await;
    let openings = prepared.opening.iter().map(|_| event).collect();
    send::acknowledge(app, vec![attempt], openings);
    Ok(next)
}
