//! The order of one attempt: the keeper prepares; one change makes attempt and disclosure durable; the keeper releases against its
//! grant; one change records the outcome. Whoever calls this runs in a task of its own, so that a caller who hangs up stops nothing.

use std::sync::Arc;
use std::time::Duration;

use super::Error;
use super::answer;
use super::limits;
use super::machine::{self, How, Learnt};
use super::{declines, retries, terms, updater};
use crate::card::id::{AttemptId, EventId, Token};
use crate::card::tenant::TenantId;
use crate::edge::App;
use crate::edge::attest::{opening_of, unused_event};
use crate::edge::audit::catalogue;
use crate::edge::audit::event::{Actor, EventDraft, EventOutcome, Facts, Origin, Target};
use crate::edge::keeper::KeeperError;
use crate::edge::store::{
    AgreementRow, Attempt, AttemptState, Change, ChargeRow, ChargeStatus, CommitError, FirstPayment,
    Idempotency, OperationKind, Outbound, RowChange, StoredAnswer,
};
use crate::wire::forwarder::{Outcome, Sent};
use crate::wire::keeper::{Opened, Prepare, Prepared, RefusalCode};

/// Between two tries to commit an outcome that the store does not take.
const COMMIT_AGAIN: Duration = Duration::from_millis(500);

/// Who is behind an attempt, for its events.
#[derive(Clone, Debug)]
pub(super) struct By {
    pub(super) actor: Actor,
    pub(super) origin: Origin,
}

impl By {
    /// The vault itself.
    pub(super) fn vault() -> Self {
        Self { actor: Actor::System("resolver".to_owned()), origin: Origin::default() }
    }
}

/// The idempotency key of a request, and what it is about.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) tenant: TenantId,
    pub(super) route: &'static str,
    pub(super) key: [u8; 32],
    pub(super) body_mac: [u8; 32],
    /// The card, whose erasure erases the body's hash; none where the body says nothing of it.
    pub(super) token: Option<Token>,
    /// The operation that is answered with; none for the charge as a whole.
    pub(super) operation: Option<String>,
}

impl Claim {
    pub(super) fn with(&self, answer: StoredAnswer) -> Idempotency {
        Idempotency {
            tenant: self.tenant,
            route: self.route,
            key: self.key,
            body_mac: self.body_mac,
            subject_token: self.token,
            answer,
        }
    }

    fn reserved(&self, charge: &ChargeRow) -> Idempotency {
        let subject = self.operation.clone().unwrap_or_else(|| charge.id.to_string());
        self.with(StoredAnswer::Reserved { subject })
    }

    /// The frozen answer, if the charge or operation has reached its first final status.
    pub(super) fn frozen(&self, charge: &ChargeRow) -> Option<Idempotency> {
        let answer = answer::answered(charge, self.operation.as_deref())?;
        (answer.status == 201).then(|| {
            self.with(StoredAnswer::Frozen { status: 201, location: answer.location, body: answer.body })
        })
    }
}

/// A first attempt before it is prepared.
pub(super) fn make_attempt(id: AttemptId, now: crate::clock::Time) -> Attempt {
    Attempt {
        id,
        state: AttemptState::Sending,
        outbound: Outbound::MaybeSent,
        connector_version: String::new(),
        mac: String::new(),
        once_only: false,
        started_at: now,
        finished_at: None,
        tries: 1,
        resent_at: None,
        processor_code: None,
        decline_class: None,
        message: None,
        transaction_id: None,
        network_transaction_id: None,
        avs: None,
        error: None,
        upstream_us: None,
        rule: None,
        destination: None,
    }
}

/// Has a request rendered and held. An opening that led nowhere is accounted for.
pub(super) async fn prepare(app: &App, ask: Box<Prepare>) -> Result<Box<Prepared>, Error> {
    let of = (ask.tenant, ask.token, ask.attempt);
    accounted(app, of, app.keeper.prepare(ask).await).await
}

/// What the keeper prepared; an opening that led nowhere, or a card that did not open, is told in the log.
pub(in crate::edge) async fn accounted(
    app: &App,
    (tenant, token, attempt): (TenantId, Token, AttemptId),
    prepared: Result<Box<Prepared>, KeeperError>,
) -> Result<Box<Prepared>, Error> {
    match prepared {
        Ok(prepared) => Ok(prepared),
        Err(KeeperError::Refused(refusal)) if refusal.code == RefusalCode::CardUnreadable => {
            let event = EventDraft {
                id: EventId::make(app.clock.now())?,
                tenant: Some(tenant),
                actor: Actor::System("keeper".to_owned()),
                origin: Origin::default(),
                action: catalogue::CARD_UNREADABLE,
                outcome: EventOutcome::Error("card_unreadable".to_owned()),
                target: Target { kind: "card".to_owned(), id: token.to_string(), version: None },
                keys: Vec::new(),
                facts: Facts { attempt: Some(attempt), ..Facts::default() },
            };
            // The refusal stands whether or not the log takes it now.
            drop(app.store.append_events(vec![event]));
            Err(KeeperError::Refused(refusal).into())
        }
        Err(KeeperError::RefusedAfterOpening(refusal, opened)) => {
            account_unused(app, *opened).await;
            Err(KeeperError::Refused(refusal).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Wipes what is held and accounts for its opening.
pub(in crate::edge) async fn discard(app: &App, prepared: Prepared) {
    // If the keeper does not answer, what it held goes after five seconds.
    drop(app.keeper.discard(prepared.held).await);
    if let Some(opened) = prepared.opening {
        account_unused(app, opened).await;
    }
}

async fn account_unused(app: &App, opened: Opened) {
    let event = opened.event;
    let change = Change { events: vec![unused_event(opened)], ..Change::default() };
    if app.store.commit(change).await.is_ok() {
        acknowledge(app, Vec::new(), vec![event]);
    }
    // Otherwise the keeper still has it, and the next edge writes it.
}

/// Tells the keeper what is in the log; nobody waits for it.
pub(in crate::edge) fn acknowledge(app: &App, outcomes: Vec<AttemptId>, openings: Vec<EventId>) {
    let app = Arc::clone(app);
    tokio::spawn(async move {
        // Lost acknowledgements are asked for again after a restart.
        drop(app.keeper.acknowledge(outcomes, openings).await);
    });
}

/// The first change: charge, attempt, reservation, disclosure. Gives the grant; if it fails, what was prepared is wiped.
pub(super) async fn commit_sending(
    app: &App,
    charge: &mut ChargeRow,
    (attempt, event): (AttemptId, EventId),
    prepared: &Prepared,
    by: &By,
    keys: Vec<u32>,
    claim: Option<&Claim>,
) -> Result<u64, Error> {
    let mut kind = OperationKind::Sale;
    for operation in &mut charge.operations {
        for one in operation.attempts.iter_mut().filter(|one| one.id == attempt) {
            kind = operation.kind;
            one.mac = hex(&prepared.mac);
            one.connector_version = hex(&prepared.connector_version);
            one.once_only = prepared.once_only;
        }
    }
    let event = EventDraft {
        id: event,
        tenant: Some(charge.tenant),
        actor: by.actor.clone(),
        origin: by.origin.clone(),
        action: send_action(kind),
        outcome: EventOutcome::Ok,
        target: target(charge),
        keys,
        facts: Facts {
            attempt: Some(attempt),
            opening: prepared.opening.clone().map(opening_of),
            ..Facts::default()
        },
    };
    let change = Change {
        rows: vec![RowChange::PutCharge(Box::new(charge.clone()))],
        events: vec![event],
        idempotency: claim.map(|claim| claim.reserved(charge)),
    };
    match app.store.commit(change).await {
        Ok(committed) => {
            app.charges.unnamed.note(charge);
            Ok(committed.grant.seq)
        }
        Err(error) => {
            discard(app, prepared.clone()).await;
            Err(error.into())
        }
    }
}

/// Releases what is held and waits for what becomes of it.
pub(in crate::edge) async fn release(app: &App, held: u64, grant: u64, attempt: AttemptId) -> Outcome {
    let without_answer = |sent, error: &str| Outcome {
        attempt,
        sent,
        answer: None,
        error: Some(error.to_owned()),
        credentials_changed: false,
        card_update: None,
        upstream_us: 0,
        forwarded: None,
    };
    match app.keeper.release(held, grant).await {
        Ok(outcome) => *outcome,
        Err(KeeperError::Refused(refusal) | KeeperError::RefusedAfterOpening(refusal, _)) => without_answer(
            Sent::Not,
            if refusal.code == RefusalCode::HeldGone { "held_gone" } else { "refused" },
        ),
        Err(KeeperError::Busy) => without_answer(Sent::Not, "busy"),
        Err(KeeperError::Down | KeeperError::Confused) => without_answer(Sent::Maybe, "keeper_down"),
    }
}

/// The second change: what was learnt, its event, the frozen answer when final. It is tried until it is in: an outcome is never
/// dropped. Gives the charge as it is then.
pub(super) async fn record(
    app: &App,
    mut charge: ChargeRow,
    outcome: &Outcome,
    how: How,
    by: &By,
    claim: Option<&Claim>,
) -> ChargeRow {
    let attempt = outcome.attempt;
    app.charges.waits.note(&charge.destination, outcome);
    if outcome.credentials_changed {
        tell_of_credentials(app, &charge, attempt);
    }
    let (mut claim, mut with_agreement) = (claim, true);
    let hold_seconds = terms::hold_seconds(app, &charge).await;
    loop {
        let learnt = Learnt { outcome, how, now: app.clock.now(), hold_seconds };
        let Some(mut next) = machine::learn(&charge, attempt, learnt) else { return charge };
        let declined = declines::note(app, &mut next, outcome, learnt.now).await;
        let update = updater::read(app, &next, outcome).await;
        if next.plan.is_some() {
            machine::restate(&mut next);
            let policy = &app.directory.charging().retries;
            updater::proceed(&mut next, update.as_ref(), policy, learnt.now);
        }
        let Ok(event) = outcome_event(app, &next, attempt, by) else {
            tokio::time::sleep(COMMIT_AGAIN).await;
            continue;
        };
        let mut change = Change {
            rows: vec![RowChange::PutCharge(Box::new(next.clone()))],
            events: vec![event],
            idempotency: claim.and_then(|claim| claim.frozen(&next)),
        };
        change.rows.extend(declined);
        let added = update.as_ref().map_or(Ok(()), |update| update.add_to(app, &next, outcome, &mut change));
        if added.is_err() {
            tokio::time::sleep(COMMIT_AGAIN).await;
            continue;
        }
        let is_stopped = update.as_ref().is_some_and(updater::Update::stops);
        if with_agreement && !is_stopped {
            update_agreement(app, &next, outcome, by, &mut change).await;
        }
        match app.store.commit(change).await {
            Ok(_) => {
                count(app, &charge, &next);
                app.charges.unnamed.learnt(&next, attempt);
                retries::heard(app, &next, outcome);
                if is_stopped || update.is_some_and(|update| update.changes_card()) {
                    // Other charges of the card have waited for it, or cannot be tried any more.
                    retries::wake(app, next.tenant, next.token);
                }
                return next;
            }
            // Somebody asked for the answer meanwhile and so froze it.
            Err(CommitError::KeyTaken(_)) => claim = None,
            Err(CommitError::NotFound) if with_agreement => with_agreement = false,
            Err(error) => {
                if !matches!(error, CommitError::Conflict) {
                    tracing::warn!(code = "outcome_waits", "an outcome could not be committed yet");
                    tokio::time::sleep(COMMIT_AGAIN).await;
                }
                if let Ok(Some(row)) = app.store.charge(charge.tenant, &charge.id.to_string()).await {
                    charge = row;
                }
            }
        }
    }
}

/// Says that a processor took the credentials no more: in the log, the figures and the event log.
fn tell_of_credentials(app: &App, charge: &ChargeRow, attempt: AttemptId) {
    let destination = charge.destination.as_str();
    tracing::warn!(
        code = "credentials_refused",
        destination,
        "a processor refused the credentials: the other ones of the two are used from now on"
    );
    app.metrics.credentials_refused(destination);
    let Ok(id) = EventId::make(app.clock.now()) else { return };
    let event = EventDraft {
        id,
        tenant: Some(charge.tenant),
        actor: Actor::System("keeper".to_owned()),
        origin: Origin::default(),
        action: catalogue::CREDENTIALS_REFUSED,
        outcome: EventOutcome::Error("credentials_refused".to_owned()),
        target: Target { kind: "destination".to_owned(), id: destination.to_owned(), version: None },
        keys: Vec::new(),
        facts: Facts { attempt: Some(attempt), ..Facts::default() },
    };
    // The figures and the outcome's own event say it too.
    drop(app.store.append_events(vec![event]));
}

/// Commits a charge that a decision of ours changed: a restart, giving up. `false` if another change came first.
pub(super) async fn commit_moved(
    app: &App,
    before: &ChargeRow,
    next: &ChargeRow,
    attempt: AttemptId,
) -> bool {
    commit_moved_by(app, (before, next), attempt, &By::vault()).await
}

/// The same, by somebody.
pub(super) async fn commit_moved_by(
    app: &App,
    (before, next): (&ChargeRow, &ChargeRow),
    attempt: AttemptId,
    by: &By,
) -> bool {
    try_moved(app, (before, next), attempt, by).await.is_ok()
}

/// The same, and says why it is not committed.
pub(super) async fn try_moved(
    app: &App,
    (before, next): (&ChargeRow, &ChargeRow),
    attempt: AttemptId,
    by: &By,
) -> Result<(), Error> {
    let change = Change {
        rows: vec![RowChange::PutCharge(Box::new(next.clone()))],
        events: vec![outcome_event(app, next, attempt, by)?],
        idempotency: None,
    };
    app.store.commit(change).await?;
    count(app, before, next);
    Ok(())
}

pub(super) fn count(app: &App, before: &ChargeRow, next: &ChargeRow) {
    if before.status != next.status {
        app.metrics.charge(answer::status_word(next.status));
        if limits::is_freed(next.status) && !limits::is_freed(before.status) {
            app.charges.limits.give_back(next);
        }
    }
    for _ in 0..left_to_a_person(before, next) {
        app.metrics.charge(answer::status_word(ChargeStatus::Manual));
    }
}

/// How many captures, refunds and voids came to be a person's where the charge itself did not say so.
fn left_to_a_person(before: &ChargeRow, next: &ChargeRow) -> usize {
    if before.status != next.status && next.status == ChargeStatus::Manual {
        return 0;
    }
    let was_manual =
        |id: &str| before.operations.iter().any(|o| o.id == id && o.status == ChargeStatus::Manual);
    let later = next.operations.iter().skip(1);
    later.filter(|o| o.status == ChargeStatus::Manual && !was_manual(&o.id)).count()
}

/// What an outcome means for the agreement: the customer's first approval gives it the network transaction id, and brings it back
/// after a change of the number; the networks' stop ends it.
async fn update_agreement(app: &App, charge: &ChargeRow, outcome: &Outcome, by: &By, change: &mut Change) {
    let (Some(id), Some(answer)) = (charge.agreement, &outcome.answer) else { return };
    let first = charge.operations.first();
    let state = first.and_then(|o| o.attempts.iter().find(|a| a.id == outcome.attempt)).map(|a| a.state);
    let stops =
        state == Some(AttemptState::Declined) && declines::stops_agreement(app, &charge.destination, answer);
    let approved = state == Some(AttemptState::Approved) && charge.initiator == "customer";
    // Whoever has the first payment's no more begins with that of the earliest one since, as Mastercard recommends
    // (https://docs.stripe.com/payments/cards/mastercard-tlid).
    let links = state == Some(AttemptState::Approved) && answer.transaction_link_id.is_some();
    if !stops && !approved && !links {
        return;
    }
    let Ok(rows) = app.store.agreements(charge.tenant, charge.token).await else { return };
    let Some(mut row) = rows.into_iter().find(|row| row.id == id) else { return };
    // A charge that began before the number changed paid with the old one.
    let renews = approved && row.awaits_customer() && row.ended_at.is_some_and(|at| at <= charge.created_at);
    if row.ended_at.is_some() && !renews {
        return;
    }
    let before = row.clone();
    if stops {
        row.ended_at = Some(app.clock.now());
        row.ended_reason = Some("network_stop".to_owned());
    } else if renews {
        (row.ended_at, row.ended_reason) = (None, None);
        row.first_payments.clear();
        row.network_transaction_id.clone_from(&answer.network_transaction_id);
        row.transaction_link_id.clone_from(&answer.transaction_link_id);
    } else {
        if approved && row.network_transaction_id.is_none() && answer.network_transaction_id.is_some() {
            row.network_transaction_id.clone_from(&answer.network_transaction_id);
        }
        if row.transaction_link_id.is_none() {
            row.transaction_link_id.clone_from(&answer.transaction_link_id);
        }
    }
    if approved && let Some(transaction) = &answer.transaction_id {
        row.first_payments.entry(charge.destination.clone()).or_insert_with(|| FirstPayment {
            transaction_id: transaction.clone(),
            amount: charge.amount,
            currency: charge.currency.clone(),
        });
    }
    if row == before {
        return;
    }
    if stops || renews {
        let Ok(event) = agreement_event(app, &row, by, stops) else { return };
        change.events.push(event);
    }
    // If the number changes in this moment, this is decided anew.
    row.revision = row.revision.saturating_add(1);
    change.rows.push(RowChange::PutAgreement(Box::new(row)));
}

fn agreement_event(
    app: &App,
    agreement: &AgreementRow,
    by: &By,
    stops: bool,
) -> Result<EventDraft, crate::random::NoRandomness> {
    let (action, note) = if stops {
        (catalogue::AGREEMENT_END, "network_stop")
    } else {
        (catalogue::AGREEMENT_RENEW, AgreementRow::NUMBER_CHANGED)
    };
    Ok(EventDraft {
        id: EventId::make(app.clock.now())?,
        tenant: Some(agreement.tenant),
        actor: by.actor.clone(),
        origin: by.origin.clone(),
        action,
        outcome: EventOutcome::Ok,
        target: Target { kind: "agreement".to_owned(), id: agreement.id.to_string(), version: None },
        keys: Vec::new(),
        facts: Facts { note: Some(note.to_owned()), ..Facts::default() },
    })
}

/// An event about a charge as a whole, its outcome and facts still to be said.
pub(super) fn event_about(
    app: &App,
    charge: &ChargeRow,
    action: &'static str,
    by: &By,
) -> Result<EventDraft, crate::random::NoRandomness> {
    Ok(EventDraft {
        id: EventId::make(app.clock.now())?,
        tenant: Some(charge.tenant),
        actor: by.actor.clone(),
        origin: by.origin.clone(),
        action,
        outcome: EventOutcome::Ok,
        target: target(charge),
        keys: Vec::new(),
        facts: Facts::default(),
    })
}

fn outcome_event(
    app: &App,
    charge: &ChargeRow,
    attempt: AttemptId,
    by: &By,
) -> Result<EventDraft, crate::random::NoRandomness> {
    let operation = charge.operations.iter().find(|o| o.attempts.iter().any(|a| a.id == attempt));
    let (kind, status) = operation
        .map_or((OperationKind::Sale, charge.status), |operation| (operation.kind, operation.status));
    Ok(EventDraft {
        id: EventId::make(app.clock.now())?,
        tenant: Some(charge.tenant),
        actor: by.actor.clone(),
        origin: by.origin.clone(),
        action: outcome_action(kind),
        outcome: match status {
            ChargeStatus::Declined => EventOutcome::Denied("declined".to_owned()),
            ChargeStatus::Failed | ChargeStatus::Unknown | ChargeStatus::Manual => {
                EventOutcome::Error(answer::status_word(status).to_owned())
            }
            ChargeStatus::Processing
            | ChargeStatus::Pending
            | ChargeStatus::Authorized
            | ChargeStatus::Approved
            | ChargeStatus::Voided => EventOutcome::Ok,
        },
        target: target(charge),
        keys: Vec::new(),
        facts: Facts {
            attempt: Some(attempt),
            note: Some(answer::status_word(charge.status).to_owned()),
            ..Facts::default()
        },
    })
}

fn target(charge: &ChargeRow) -> Target {
    Target { kind: "charge".to_owned(), id: charge.id.to_string(), version: Some(charge.revision) }
}

const fn send_action(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Sale | OperationKind::Authorize => catalogue::CHARGE_SEND,
        OperationKind::Capture => catalogue::CHARGE_CAPTURE,
        OperationKind::Refund => catalogue::REFUND_SEND,
        OperationKind::Void => catalogue::VOID_SEND,
        OperationKind::Verify => catalogue::VERIFY_SEND,
    }
}

const fn outcome_action(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Sale | OperationKind::Authorize | OperationKind::Capture => catalogue::CHARGE_OUTCOME,
        OperationKind::Refund => catalogue::REFUND_OUTCOME,
        OperationKind::Void => catalogue::VOID_OUTCOME,
        OperationKind::Verify => catalogue::VERIFY_OUTCOME,
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::create::make_operation;
    use super::*;
    use crate::card::id::IdBytes;

    #[test]
    fn a_refund_that_becomes_a_persons_is_counted_once() {
        let mut before = super::super::tests::charge(OperationKind::Sale, false);
        before.operations[0].attempts[0].state = AttemptState::Approved;
        let attempt = AttemptId(IdBytes([2; 18]));
        let now = before.created_at;
        before.operations.push(make_operation((OperationKind::Refund, 400), attempt, now).unwrap());
        before.operations[1].attempts[0].state = AttemptState::Unknown;
        machine::restate(&mut before);
        let next = machine::give_up(&before, attempt, now).unwrap();
        assert_eq!(next.status, ChargeStatus::Approved);
        assert_eq!(left_to_a_person(&before, &next), 1);
        assert_eq!(left_to_a_person(&next, &next), 0);
        // The charge's own status is counted by itself.
        let mut both = next.clone();
        both.status = ChargeStatus::Manual;
        assert_eq!(left_to_a_person(&before, &both), 0);
    }
}
