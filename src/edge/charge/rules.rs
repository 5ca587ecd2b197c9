//! Which capture, refund or void fits a charge as it stands: pure, decided before anything is sent.

use super::Error;
use super::machine::sum;
use crate::card::id::AttemptId;
use crate::edge::store::{ChargeRow, ChargeStatus, Operation, OperationKind};

/// The amount that a capture takes: the one asked for, or all that is left.
pub fn capture_amount(charge: &ChargeRow, asked: Option<i64>) -> Result<i64, Error> {
    let (first, rest) = charge.operations.split_first().ok_or(Error::State)?;
    let closing = rest.iter().any(|o| {
        counts(o.status) && (o.kind == OperationKind::Void || (o.kind == OperationKind::Capture && o.last))
    });
    let open = charge.status == ChargeStatus::Authorized && first.kind == OperationKind::Authorize;
    if !open || closing {
        return Err(Error::State);
    }
    let left = charge.amount_authorized.saturating_sub(sum(rest, OperationKind::Capture, counts));
    of_what_is_left(left, asked)
}

/// The amount that a refund gives back: the one asked for, or all that is left.
pub fn refund_amount(charge: &ChargeRow, asked: Option<i64>) -> Result<i64, Error> {
    let (first, rest) = charge.operations.split_first().ok_or(Error::State)?;
    let paid = first.kind != OperationKind::Verify
        && charge.amount_offered.is_none()
        && matches!(charge.status, ChargeStatus::Approved | ChargeStatus::Authorized);
    if !paid {
        return Err(Error::State);
    }
    let left = charge.amount_captured.saturating_sub(sum(rest, OperationKind::Refund, counts));
    of_what_is_left(left, asked)
}

/// Whether a charge can be voided: authorized, nothing captured or about to be.
pub fn may_void(charge: &ChargeRow) -> Result<(), Error> {
    let (first, rest) = charge.operations.split_first().ok_or(Error::State)?;
    let untouched = rest.iter().all(|operation| !counts(operation.status));
    let open = charge.status == ChargeStatus::Authorized && first.kind == OperationKind::Authorize;
    if open && untouched { Ok(()) } else { Err(Error::State) }
}

/// The transaction that a capture, refund or void is about, and its amount: a refund of a captured authorization names the
/// capture only where the processor gave it an id of its own, or wants it so (`of_capture`: the newest, where there are several).
pub fn previous(charge: &ChargeRow, kind: OperationKind, of_capture: bool) -> (Option<String>, Option<i64>) {
    // Of the attempt that stands alone: the id of one before, which was declined or not sent, is another transaction's.
    let id = |operation: &Operation| operation.attempts.last().and_then(|a| a.transaction_id.clone());
    let first = charge.operations.first();
    let captures = || {
        charge
            .operations
            .iter()
            .filter(|o| o.kind == OperationKind::Capture && o.status == ChargeStatus::Approved)
    };
    match kind {
        OperationKind::Refund if of_capture && captures().next().is_some() => {
            let capture = captures().next_back();
            (capture.and_then(id).or_else(|| first.and_then(id)), capture.map(|o| o.amount))
        }
        OperationKind::Refund if captures().count() == 1 => {
            let capture = captures().next();
            let transaction = first.and_then(id).or_else(|| capture.and_then(id));
            (transaction, capture.map(|o| o.amount))
        }
        OperationKind::Refund
        | OperationKind::Sale
        | OperationKind::Authorize
        | OperationKind::Capture
        | OperationKind::Void
        | OperationKind::Verify => (first.and_then(id), first.map(|o| o.amount)),
    }
}

/// The attempt that made a transaction.
pub fn attempt_of(charge: &ChargeRow, transaction: &str) -> Option<AttemptId> {
    let attempts = charge.operations.iter().flat_map(|operation| &operation.attempts);
    attempts.into_iter().find(|attempt| attempt.transaction_id.as_deref() == Some(transaction)).map(|a| a.id)
}

fn of_what_is_left(left: i64, asked: Option<i64>) -> Result<i64, Error> {
    if left <= 0 {
        return Err(Error::State);
    }
    match asked {
        None => Ok(left),
        Some(amount) if amount <= 0 => Err(Error::AmountInvalid),
        Some(amount) if amount > left => Err(Error::AmountTooLarge),
        Some(amount) => Ok(amount),
    }
}

/// Whether an operation's amount is taken, or may be.
const fn counts(status: ChargeStatus) -> bool {
    match status {
        ChargeStatus::Declined | ChargeStatus::Failed | ChargeStatus::Voided => false,
        ChargeStatus::Processing
        | ChargeStatus::Pending
        | ChargeStatus::Authorized
        | ChargeStatus::Approved
        | ChargeStatus::Unknown
        | ChargeStatus::Manual => true,
    }
}
