//! Charges and refunds, shown. A person's look is an event before the answer, an application's within a second.

use super::Error;
use crate::card::id::{ChargeId, EventId};
use crate::edge::App;
use crate::edge::audit::catalogue;
use crate::edge::audit::event::{EventDraft, EventOutcome, Facts, Target};
use crate::edge::directory::Caller;
use crate::edge::store::{Change, ChargeFilter, ChargeRow, Operation, OperationKind, Page};

/// How many charges a list of refunds looks through at once.
const REFUNDS_SCAN: usize = 200;

/// A charge of the caller's tenant.
pub async fn charge(app: &App, caller: &Caller, id: &str) -> Result<ChargeRow, Error> {
    let row = app.store.charge(caller.tenant_id(), id).await?.ok_or(Error::ChargeUnknown)?;
    if row.id.to_string() != id {
        return Err(Error::ChargeUnknown);
    }
    log_read(app, caller, catalogue::CHARGE_READ, ("charge", id.to_owned()), None).await?;
    Ok(row)
}

/// Charges, newest first, older than `after`.
pub async fn charges(
    app: &App,
    caller: &Caller,
    filter: &ChargeFilter,
    after: Option<ChargeId>,
    limit: usize,
) -> Result<Page<ChargeRow>, Error> {
    let page = app.store.charges(caller.tenant_id(), filter, after, limit).await?;
    log_read(app, caller, catalogue::CHARGE_LIST, ("charge", String::new()), Some(page.rows.len())).await?;
    Ok(page)
}

/// The charge of a refund.
pub async fn refund(app: &App, caller: &Caller, id: &str) -> Result<ChargeRow, Error> {
    let row = app.store.charge(caller.tenant_id(), id).await?.ok_or(Error::ChargeUnknown)?;
    if !row.operations.iter().any(|o| o.kind == OperationKind::Refund && o.id == id) {
        return Err(Error::ChargeUnknown);
    }
    log_read(app, caller, catalogue::CHARGE_READ, ("charge", row.id.to_string()), None).await?;
    Ok(row)
}

/// Charges with the refunds that fit the filter, newest charge first; each page is of whole charges, so that it may hold more refunds
/// than `limit`.
pub async fn refunds(
    app: &App,
    caller: &Caller,
    filter: &ChargeFilter,
    mut after: Option<ChargeId>,
    limit: usize,
) -> Result<Page<ChargeRow>, Error> {
    // A charge may be older than its refund, and stand elsewhere: those parts of the filter are the refund's.
    let of_charges = ChargeFilter { status: None, created_from: None, ..filter.clone() };
    let mut found = Page { rows: Vec::new(), more: true };
    let mut refunds = 0;
    while found.more && refunds < limit {
        let page = app.store.charges(caller.tenant_id(), &of_charges, after, REFUNDS_SCAN).await?;
        found.more = page.more;
        for mut row in page.rows {
            if refunds >= limit {
                found.more = true;
                break;
            }
            after = Some(row.id);
            let of_charge = row.operations.first().and_then(transaction).map(str::to_owned);
            row.operations.retain(|operation| {
                operation.kind != OperationKind::Refund || fits(operation, of_charge.as_deref(), filter)
            });
            let count = row.operations.iter().filter(|o| o.kind == OperationKind::Refund).count();
            refunds += count;
            if count > 0 {
                found.rows.push(row);
            }
        }
    }
    log_read(app, caller, catalogue::CHARGE_LIST, ("charge", String::new()), Some(found.rows.len())).await?;
    Ok(found)
}

/// Whether a refund fits what a filter says of status, time and transaction; that of its charge finds all of its refunds.
fn fits(refund: &Operation, of_charge: Option<&str>, filter: &ChargeFilter) -> bool {
    let wanted = filter.processor_transaction_id.as_deref();
    filter.status.is_none_or(|status| refund.status == status)
        && filter.created_from.is_none_or(|from| refund.created_at >= from)
        && filter.created_before.is_none_or(|before| refund.created_at < before)
        && (wanted.is_none() || wanted == of_charge || wanted == transaction(refund))
}

fn transaction(operation: &Operation) -> Option<&str> {
    operation.attempts.iter().rev().find_map(|attempt| attempt.transaction_id.as_deref())
}

/// Tells of a look at something: a person's is an event before the answer, an application's within a second.
pub(in crate::edge) async fn log_read(
    app: &App,
    caller: &Caller,
    action: &'static str,
    (kind, id): (&str, String),
    count: Option<usize>,
) -> Result<(), Error> {
    let event = EventDraft {
        id: EventId::make(app.clock.now())?,
        tenant: Some(caller.tenant_id()),
        actor: caller.actor(),
        origin: caller.origin(),
        action,
        outcome: EventOutcome::Ok,
        target: Target { kind: kind.to_owned(), id, version: None },
        keys: Vec::new(),
        facts: Facts { count: count.and_then(|n| u64::try_from(n).ok()), ..Facts::default() },
    };
    if caller.is_person() {
        app.store.commit(Change { events: vec![event], ..Change::default() }).await?;
        return Ok(());
    }
    app.store.append_events(vec![event]).map_err(|_| Error::LogLagging)
}
