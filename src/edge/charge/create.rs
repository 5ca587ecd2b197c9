//! Charges and verifications, from the caller's body to the answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::machine::{self, How};
use super::send::{self, By, Claim};
use super::{Answered, Error, Hold, answer, declines, limits, resolve, route, schedule};
use crate::card::id::{AgreementId, AttemptId, ChargeId, EventId, OperationId, Token};
use crate::card::tenant::{Mode, TenantId};
use crate::clock::Time;
use crate::edge::App;
use crate::edge::directory::{Caller, Principal};
use crate::edge::store::{
    AgreementRow, CardRow, CardStatus, Change, ChargeRow, ChargeStatus, CommitError, OfRun, Operation,
    OperationKind, Plan, RouteLeft, RunOrder, StoreError, StoredAnswer, StoredIdempotency,
};
use crate::edge::working::Working;
use crate::wire::control::DestinationInfo;
use crate::wire::forwarder::Sent as Left;
use crate::wire::keeper::{ChargeRead, Digested, Prepare, ReadCharge, StoredCredential, Verb};

const CHARGES: &str = "POST /v1/charges";
const VERIFICATIONS: &str = "POST /v1/verifications";
/// The currency of a verification that says none, if the destination leaves the choice.
const VERIFY_CURRENCY: &str = "USD";
const TOO_MANY_REQUESTS: u16 = 429;

/// Charges a card, or verifies it.
pub async fn create(
    app: &App,
    caller: &Caller,
    (key, body): (&str, &[u8]),
    verification: bool,
    hold: Hold,
) -> Result<Answered, Error> {
    let route = if verification { VERIFICATIONS } else { CHARGES };
    let read = app
        .keeper
        .read_charge(ReadCharge {
            tenant: caller.tenant_id(),
            route: route.to_owned(),
            verification,
            idempotency_key: key.to_owned(),
            body: body.to_vec(),
        })
        .await?;
    let held = read.held;
    let begun = begin(app, caller, *read, (route, verification), hold).await;
    let is_unused = begun.as_ref().map_or(true, |answered| answered.replayed);
    if is_unused && let Some(held) = held {
        let keeper = app.keeper.clone();
        // A CVC that is not used goes at once; without this it would go after five seconds.
        tokio::spawn(async move { drop(keeper.discard(held).await) });
    }
    begun
}

async fn begin(
    app: &App,
    caller: &Caller,
    read: ChargeRead,
    (route, verification): (&'static str, bool),
    hold: Hold,
) -> Result<Answered, Error> {
    let tenant = caller.tenant_id();
    let token = read.token.ok_or(Error::TokenUnknown)?;
    let guard = Arc::new(Working::take(app, read.digests.key).ok_or(Error::InProgress)?);
    let claim = Claim {
        tenant,
        route,
        key: read.digests.key,
        body_mac: read.digests.body,
        token: Some(token),
        operation: None,
    };
    let (stored, card) =
        tokio::join!(app.store.idempotency(tenant, route, &claim.key), app.store.card(tenant, token));
    if let Some(stored) = stored? {
        return Box::pin(replay(app, &claim, stored)).await;
    }
    let card = chargeable(card?)?;
    let (to, route) = choose_destination(app, (mode_of(caller), &caller.principal), &card, &read)?;
    let agreement = choose_agreement(app, &card, &read).await?;
    let slot = if read.customer_initiated {
        None
    } else {
        declines::enter(app, &card, &to.name, agreement.as_ref()).await?
    };
    let plan = plan(app, &read, verification, route);
    let mut draft = draft(app, (read, verification), &card, &to, agreement.as_ref())?;
    draft.charge.plan = plan;
    draft.slot = slot;
    draft.charge.principal = Some(caller.principal.id);
    let (amount, currency) = (draft.charge.amount, draft.charge.currency.clone());
    draft.taken = Some(app.charges.limits.take(&caller.principal.row, &draft.charge)?);
    let by = By { actor: caller.actor(), origin: caller.origin() };
    match run(app, draft, by, claim.clone(), guard, hold).await {
        Err(Error::Commit(CommitError::KeyTaken(stored))) => Box::pin(replay(app, &claim, *stored)).await,
        Err(Error::Commit(CommitError::InvoiceTaken { charge })) => {
            Err(Box::pin(verdict(app, caller, (token, amount, &currency), charge)).await)
        }
        Err(Error::Commit(CommitError::InvoiceInRun { run })) => Err(Error::InRun(run)),
        Err(Error::Commit(CommitError::NotFound)) => Err(Error::TokenErased { scrubbed_at: None }),
        ended @ (Ok(_) | Err(_)) => ended,
    }
}

/// A charge before its first attempt is prepared.
pub(super) struct Draft {
    pub(super) charge: ChargeRow,
    pub(super) attempt: AttemptId,
    pub(super) prepare: Box<Prepare>,
    pub(super) keys: Vec<u32>,
    /// What is held until the outcome is counted.
    pub(super) slot: Option<declines::Slot>,
    /// What it takes of the principal's limits until it is committed.
    pub(super) taken: Option<limits::Taken>,
}

/// What a task that sends gives at its end.
pub(super) struct Sent {
    pub(super) charge: ChargeRow,
    pub(super) upstream_us: u64,
    pub(super) processor_us: Option<u64>,
}

/// What speaks against a line of a run before anything is done about it.
pub(super) async fn check_line(app: &App, caller: &Caller, order: &RunOrder) -> Result<(), Error> {
    let card = chargeable(app.store.card(caller.tenant_id(), order.token).await?)?;
    let read = read_of(order);
    choose_destination(app, (mode_of(caller), &caller.principal), &card, &read)?;
    if limits::is_over_the_largest(&caller.principal.row, order.amount, &order.currency) {
        return Err(Error::LimitExceeded);
    }
    choose_agreement(app, &card, &read).await.map(drop)
}

/// Where a line that names no destination goes: first of all, and where that is not reached.
pub(super) async fn destinations_of_line(
    app: &App,
    principal: &Principal,
    (tenant, mode): (TenantId, Mode),
    order: &RunOrder,
) -> Result<Vec<String>, Error> {
    let card = chargeable(app.store.card(tenant, order.token).await?)?;
    let (to, left) = choose_destination(app, (Some(mode), principal), &card, &read_of(order))?;
    let others = left.into_iter().flat_map(|left| left.destinations);
    Ok(std::iter::once(to.name).chain(others).collect())
}

/// The same choice from this destination of the route on, if it is one: those before it make a pause.
fn starting_at(
    app: &App,
    (to, left): (DestinationInfo, Option<RouteLeft>),
    at: &str,
) -> (DestinationInfo, Option<RouteLeft>) {
    let place = left.as_ref().and_then(|left| left.destinations.iter().position(|name| name == at));
    let all = app.directory.destinations();
    let known = all.iter().find(|known| known.name == at && known.mode == to.mode);
    match (left, place, known) {
        (Some(mut left), Some(place), Some(known)) if to.name != at => {
            left.destinations.drain(..=place);
            (known.clone(), Some(left))
        }
        (left, _, _) => (to, left),
    }
}

/// A line's charge, as far as it got within its first attempt.
pub(super) struct OfLine {
    pub(super) id: ChargeId,
    pub(super) status: ChargeStatus,
    /// The processor said that it is asked too much, or was not reached at all.
    pub(super) too_much: bool,
    /// For so long it asked to be left alone; zero if it did not.
    pub(super) wait: Duration,
}

/// Charges a line of a run, once, at the place of its route that it has now: with a caller's own charge it shares all but the caller. What is not known afterwards is left to
/// the resolver.
pub(super) async fn charge_line(
    app: &App,
    principal: &Principal,
    (tenant, mode): (TenantId, Mode),
    (order, of): (&RunOrder, OfRun),
    (by, at): (&By, &str),
) -> Result<OfLine, Error> {
    let card = chargeable(app.store.card(tenant, order.token).await?)?;
    let read = read_of(order);
    let chosen = choose_destination(app, (Some(mode), principal), &card, &read)?;
    let (to, route) = starting_at(app, chosen, at);
    let agreement = choose_agreement(app, &card, &read).await?;
    let slot = if order.by_customer {
        None
    } else {
        declines::enter(app, &card, &to.name, agreement.as_ref()).await?
    };
    let plan = plan(app, &read, false, route);
    let Draft { mut charge, attempt, prepare, keys, .. } =
        draft(app, (read, false), &card, &to, agreement.as_ref())?;
    (charge.principal, charge.run, charge.plan) = (Some(principal.id), Some(of), plan);
    let taken = app.charges.limits.take(&principal.row, &charge)?;
    let event = prepare.event;
    let prepared = send::prepare(app, prepare).await?;
    let grant = send::commit_sending(app, &mut charge, (attempt, event), &prepared, by, keys, None).await?;
    taken.keep();
    let outcome = send::release(app, prepared.held, grant, attempt).await;
    let charge = send::record(app, charge, &outcome, How::Sent, by, None).await;
    let openings = prepared.opening.iter().map(|_| event).collect();
    send::acknowledge(app, vec![attempt], openings);
    drop(slot);
    let refused = outcome.answer.as_ref().is_some_and(|answer| answer.http_status == TOO_MANY_REQUESTS);
    let has_failed = charge.status == ChargeStatus::Failed;
    // That it goes on elsewhere is no news of the destination that was not reached.
    let too_much =
        (has_failed && refused) || (outcome.sent == Left::Not && (has_failed || route::goes_on(&charge)));
    let of_line = OfLine { id: charge.id, status: charge.status, too_much, wait: outcome.wait() };
    resolve::spawn(app, charge);
    Ok(of_line)
}

/// A line as the body of a charge would be read.
fn read_of(order: &RunOrder) -> ChargeRead {
    ChargeRead {
        held: None,
        has_cvc: false,
        token: Some(order.token),
        amount: order.amount,
        currency: order.currency.clone(),
        destination: order.destination.clone(),
        invoice: Some(order.invoice.clone()),
        period: order.period.clone(),
        customer_initiated: order.by_customer,
        agreement: order.agreement.map(|id| id.to_string()),
        capture: true,
        allow_partial: false,
        statement_descriptor: order.statement_descriptor.clone(),
        description: order.description.clone(),
        metadata: order.metadata.clone(),
        retry: None,
        // A line is known by its run and number; there is no caller's key.
        digests: Digested { key: [0; 32], body: [0; 32] },
    }
}

/// Runs a draft in a task of its own and answers when it is final, or as it stands when the caller was held long enough.
pub(super) async fn run(
    app: &App,
    draft: Draft,
    by: By,
    claim: Claim,
    guard: Arc<Working>,
    hold: Hold,
) -> Result<Answered, Error> {
    let (begun, has_begun) = oneshot::channel();
    let operation = claim.operation.clone();
    let task = tokio::spawn(send_first(Arc::clone(app), draft, by, (claim, guard), begun));
    let started = has_begun.await.map_err(|_| Error::BrokenOff)??;
    let sent = wait(task, hold).await;
    let charge = match &sent {
        Some(sent) => &sent.charge,
        None => &as_it_stands(app, started).await,
    };
    let mut answered = answer::answered(charge, operation.as_deref()).ok_or(Error::ChargeUnknown)?;
    if let Some(sent) = &sent {
        answered.upstream_us = Some(sent.upstream_us).filter(|us| *us > 0);
        answered.processor_us = sent.processor_us;
    }
    Ok(answered)
}

/// Waits for a task as long as a caller is held.
pub(in crate::edge) async fn wait<T>(task: tokio::task::JoinHandle<Option<T>>, hold: Hold) -> Option<T> {
    if hold.0 == Duration::ZERO {
        return None;
    }
    tokio::time::timeout(hold.0, task).await.ok()?.ok()?
}

/// The charge as the store has it; as it was begun, if that cannot be read now.
pub(super) async fn as_it_stands(app: &App, begun: ChargeRow) -> ChargeRow {
    match app.store.charge(begun.tenant, &begun.id.to_string()).await {
        Ok(Some(row)) => row,
        Ok(None) | Err(_) => begun,
    }
}

/// Prepares, commits, sends, records; then finds out what is not known. `begun` hears of the first change.
pub(super) async fn send_first(
    app: App,
    draft: Draft,
    by: By,
    (claim, guard): (Claim, Arc<Working>),
    begun: oneshot::Sender<Result<ChargeRow, Error>>,
) -> Option<Sent> {
    let Draft { mut charge, attempt, prepare, keys, slot, taken } = draft;
    let event = prepare.event;
    let prepared = match send::prepare(&app, prepare).await {
        Ok(prepared) => prepared,
        Err(error) => {
            drop(taken);
            drop(begun.send(Err(error)));
            return None;
        }
    };
    let ids = (attempt, event);
    let committed = send::commit_sending(&app, &mut charge, ids, &prepared, &by, keys, Some(&claim)).await;
    let grant = match committed {
        Ok(grant) => grant,
        Err(error) => {
            drop(taken);
            drop(begun.send(Err(error)));
            return None;
        }
    };
    taken.into_iter().for_each(limits::Taken::keep);
    // Who asked may have hung up; the charge goes on.
    drop(begun.send(Ok(charge.clone())));
    let outcome = send::release(&app, prepared.held, grant, attempt).await;
    let charge = send::record(&app, charge, &outcome, How::Sent, &by, Some(&claim)).await;
    let openings = prepared.opening.iter().map(|_| event).collect();
    send::acknowledge(&app, vec![attempt], openings);
    drop((guard, slot));
    let processor_us = outcome.answer.as_ref().and_then(|answer| answer.processor_us);
    let charge = finish(&app, charge, &claim).await;
    Some(Sent { charge, upstream_us: outcome.upstream_us, processor_us })
}

/// Gives back what nobody wanted and finds out what is not known.
async fn finish(app: &App, charge: ChargeRow, claim: &Claim) -> ChargeRow {
    let open = machine::needs_reversal(&charge)
        || route::goes_on(&charge)
        || machine::unsettled(&charge).next().is_some();
    // Boxed, as the rest of what is rare here: each charge would carry the room for it.
    if open { Box::pin(resolve::run(app, charge, Some(claim))).await } else { charge }
}

/// The answer to a request that was made before.
pub(super) async fn replay(app: &App, claim: &Claim, stored: StoredIdempotency) -> Result<Answered, Error> {
    match stored.body_mac {
        None => return Err(Error::TokenErased { scrubbed_at: None }),
        Some(mac) if mac != claim.body_mac => return Err(Error::KeyReused),
        Some(_) => {}
    }
    match stored.answer {
        StoredAnswer::Frozen { status, location, body } => {
            Ok(Answered { status, location, body, replayed: true, upstream_us: None, processor_us: None })
        }
        StoredAnswer::Reserved { subject } => {
            let charge = app.store.charge(claim.tenant, &subject).await?.ok_or(Error::Forgotten)?;
            let operation = ChargeId::parse(&subject).is_none().then_some(subject);
            let claim = Claim { operation, ..claim.clone() };
            let mut answered =
                answer::answered(&charge, claim.operation.as_deref()).ok_or(Error::ChargeUnknown)?;
            answered.replayed = true;
            if let Some(idempotency) = claim.frozen(&charge) {
                let change = Change { idempotency: Some(idempotency), ..Change::default() };
                // The first final answer is what replays; if somebody else froze it, it says the same.
                drop(app.store.commit(change).await);
            }
            Ok(answered)
        }
        StoredAnswer::Forgotten => Err(Error::Forgotten),
        StoredAnswer::Card { .. } => Err(Error::KeyReused),
    }
}

/// What to say of an invoice that has a charge already.
async fn verdict(
    app: &App,
    caller: &Caller,
    (token, amount, currency): (Token, i64, &str),
    id: ChargeId,
) -> Error {
    match app.store.charge(caller.tenant_id(), &id.to_string()).await {
        Ok(Some(row)) if (row.token, row.amount, row.currency.as_str()) == (token, amount, currency) => {
            match row.status {
                ChargeStatus::Approved | ChargeStatus::Authorized => Error::AlreadyCharged(id),
                ChargeStatus::Processing
                | ChargeStatus::Pending
                | ChargeStatus::Unknown
                | ChargeStatus::Manual => Error::InFlight(id),
                ChargeStatus::Declined | ChargeStatus::Failed if row.retry_due().is_some() => {
                    Error::InFlight(id)
                }
                ChargeStatus::Declined | ChargeStatus::Failed | ChargeStatus::Voided => {
                    Error::InvoiceTaken(id)
                }
            }
        }
        Ok(_) => Error::InvoiceTaken(id),
        Err(error) => error.into(),
    }
}

/// The card, if it may be used.
pub(in crate::edge) fn chargeable(card: Option<CardRow>) -> Result<CardRow, Error> {
    let card = card.ok_or(Error::TokenUnknown)?;
    match card.status {
        CardStatus::Active => Ok(card),
        CardStatus::Suspended => Err(Error::TokenSuspended),
        CardStatus::Erasing => Err(Error::TokenErasing),
        CardStatus::Erased => Err(Error::TokenErased { scrubbed_at: card.scrubbed_at }),
    }
}

fn mode_of(caller: &Caller) -> Option<Mode> {
    caller.tenant.map(|(_, mode)| mode)
}

/// The destination that is named; else the one that a route leads to, with what is left of it; else the only one there is.
fn choose_destination(
    app: &App,
    (mode, principal): (Option<Mode>, &Principal),
    card: &CardRow,
    read: &ChargeRead,
) -> Result<(DestinationInfo, Option<RouteLeft>), Error> {
    let all = app.directory.destinations();
    let mut fitting = all.iter().filter(|to| Some(to.mode) == mode && principal.may_send_to(&to.name));
    if let Some(name) = &read.destination {
        let to = fitting.find(|to| to.name == *name).cloned().ok_or(Error::DestinationUnknown)?;
        return Ok((to, None));
    }
    if let Some((to, mut left)) = mode.map_or(Ok(None), |mode| route::choose(app, mode, card, read))? {
        // A route leads no principal where it may not send cards.
        left.destinations.retain(|name| principal.may_send_to(name));
        if principal.may_send_to(&to.name) {
            return Ok((to, Some(left)));
        }
        let name = left.destinations.first().cloned().ok_or(Error::DestinationUnknown)?;
        left.destinations.remove(0);
        let to = fitting.find(|to| to.name == name).cloned().ok_or(Error::DestinationUnknown)?;
        return Ok((to, Some(left)));
    }
    let first = fitting.next().cloned().ok_or(Error::DestinationUnknown)?;
    if fitting.next().is_some() { Err(Error::DestinationRequired) } else { Ok((first, None)) }
}

/// What a charge is to try beyond its first attempt; nothing for most.
fn plan(app: &App, read: &ChargeRead, verification: bool, route: Option<RouteLeft>) -> Option<Box<Plan>> {
    let policy = &app.directory.charging().retries;
    let asked = read.retry.unwrap_or(policy.by_default && !read.customer_initiated);
    let retries = (asked && !verification).then(|| schedule::begin(policy, app.clock.now()));
    let route = route.filter(|left| !left.destinations.is_empty());
    (retries.is_some() || route.is_some()).then(|| Box::new(Plan { retries, route }))
}

/// The agreement that a charge falls under: the one named, or for a merchant's charge the only live one.
async fn choose_agreement(
    app: &App,
    card: &CardRow,
    read: &ChargeRead,
) -> Result<Option<AgreementRow>, Error> {
    if read.customer_initiated && read.agreement.is_none() {
        return Ok(None);
    }
    let rows = app.store.agreements(card.tenant, card.token).await?;
    // The customer's own charge is what an agreement waits for after a change of the number.
    let usable =
        |row: &AgreementRow| row.ended_at.is_none() || (read.customer_initiated && row.awaits_customer());
    let mut usable = rows.into_iter().filter(usable);
    let chosen = match &read.agreement {
        Some(text) => {
            let id = AgreementId::parse(text).ok_or(Error::AgreementRequired)?;
            usable.find(|row| row.id == id)
        }
        None => usable.next().filter(|_| usable.next().is_none()),
    };
    chosen.map(Some).ok_or(Error::AgreementRequired)
}

/// The stored-credential facts of a charge of `at` under an agreement, in this currency at this destination. What networks and
/// processors gave belongs to the number that it was given for.
pub(super) fn stored_credential(
    agreement: &AgreementRow,
    by_customer: bool,
    (destination, currency): (&str, &str),
    at: Time,
) -> StoredCredential {
    let of_this_number = agreement.ended_at.is_none_or(|ended| ended > at) || !agreement.awaits_customer();
    let network_transaction_id = agreement.network_transaction_id.clone().filter(|_| of_this_number);
    let first = agreement.first_payments.get(destination).filter(|_| of_this_number);
    let initial = by_customer && network_transaction_id.is_none() && first.is_none();
    StoredCredential {
        usage: if initial { "initial" } else { "subsequent" }.to_owned(),
        initiator: if by_customer { "customer" } else { "merchant" }.to_owned(),
        reason: agreement.kind.clone(),
        network_transaction_id,
        transaction_link_id: agreement.transaction_link_id.clone().filter(|_| of_this_number),
        original_amount: first.filter(|first| first.currency == currency).map(|first| first.amount),
        previous: first.map(|first| first.transaction_id.clone()),
    }
}

fn draft(
    app: &App,
    (read, verification): (ChargeRead, bool),
    card: &CardRow,
    to: &DestinationInfo,
    agreement: Option<&AgreementRow>,
) -> Result<Draft, Error> {
    let now = app.clock.now();
    let (attempt, event) = (AttemptId::make(now)?, EventId::make(now)?);
    let sealed = card.sealed.clone().ok_or(StoreError::Corrupt("an active card without sealed fields"))?;
    let (kind, verb, amount, currency) = match (verification, read.capture) {
        (true, _) => verification_of(to, read.currency)?,
        (false, true) => (OperationKind::Sale, Verb::Sale, read.amount, read.currency),
        (false, false) => (OperationKind::Authorize, Verb::Authorize, read.amount, read.currency),
    };
    let invoice = read.invoice.unwrap_or_default();
    let keys = sealed.key_ids();
    let prepare = Box::new(Prepare {
        held: read.held,
        tenant: card.tenant,
        token: card.token,
        sealed: Some(sealed),
        destination: to.name.clone(),
        verb,
        attempt,
        event,
        amount,
        currency: currency.clone(),
        invoice: invoice.clone(),
        customer: card.customer.clone(),
        description: read.description.clone(),
        statement_descriptor: read.statement_descriptor.clone(),
        allow_partial: read.allow_partial,
        last: false,
        stored_credential: agreement
            .map(|row| stored_credential(row, read.customer_initiated, (&to.name, &currency), now)),
        previous_transaction: None,
        previous_amount: None,
        previous_attempt: None,
    });
    let operation = make_operation((kind, amount), attempt, now)?;
    let charge = ChargeRow {
        id: ChargeId::make(now)?,
        tenant: card.tenant,
        revision: 1,
        token: card.token,
        card_version: card.version,
        customer: card.customer.clone(),
        destination: to.name.clone(),
        amount,
        currency,
        invoice: if verification { String::new() } else { invoice },
        period: read.period,
        initiator: if read.customer_initiated { "customer" } else { "merchant" }.to_owned(),
        principal: None,
        run: None,
        agreement: agreement.map(|row| row.id),
        capture: read.capture,
        allow_partial: read.allow_partial,
        description: read.description,
        statement_descriptor: read.statement_descriptor,
        metadata: read.metadata,
        status: ChargeStatus::Processing,
        code: None,
        amount_offered: None,
        amount_authorized: 0,
        amount_captured: 0,
        amount_refunded: 0,
        created_at: now,
        updated_at: now,
        expires_at: None,
        refund_needs_card: to.refund_needs_card && !verification,
        operations: vec![operation],
        disputes: Vec::new(),
        plan: None,
    };
    Ok(Draft { charge, attempt, prepare, keys, slot: None, taken: None })
}

/// How a destination verifies: with a zero amount, else with its smallest, which is released again.
fn verification_of(
    to: &DestinationInfo,
    currency: String,
) -> Result<(OperationKind, Verb, i64, String), Error> {
    let asked = Some(currency).filter(|currency| !currency.is_empty());
    if to.can_verify {
        let currency = asked.unwrap_or_else(|| VERIFY_CURRENCY.to_owned());
        return Ok((OperationKind::Verify, Verb::Verify, 0, currency));
    }
    let smallest = &to.smallest_amounts;
    let first = smallest.keys().next().ok_or(Error::VerificationUnsupported)?;
    let currency = match asked {
        Some(currency) => currency,
        None if smallest.contains_key(VERIFY_CURRENCY) => VERIFY_CURRENCY.to_owned(),
        None if smallest.len() == 1 => first.clone(),
        None => return Err(Error::CurrencyRequired),
    };
    let amount = *smallest.get(&currency).ok_or(Error::CurrencyUnsupported)?;
    Ok((OperationKind::Verify, Verb::Authorize, amount, currency))
}

pub(super) fn make_operation(
    (kind, amount): (OperationKind, i64),
    attempt: AttemptId,
    now: Time,
) -> Result<Operation, Error> {
    let id = match kind {
        OperationKind::Refund => crate::card::id::RefundId::make(now)?.to_string(),
        OperationKind::Sale
        | OperationKind::Authorize
        | OperationKind::Capture
        | OperationKind::Void
        | OperationKind::Verify => OperationId::make(now)?.to_string(),
    };
    Ok(Operation {
        id,
        kind,
        amount,
        last: false,
        undoes: false,
        status: ChargeStatus::Processing,
        created_at: now,
        attempts: vec![send::make_attempt(attempt, now)],
    })
}
