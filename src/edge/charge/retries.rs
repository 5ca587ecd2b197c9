//! The schedule of retries at work: a task looks for what is due, soonest first, and makes one more attempt of each. What is due lies in
//! the charges' rows, so that it outlives every process. A schedule ends when the charge is paid, when its card or agreement is gone,
//! when the networks' rules say never, and by hand.

use std::sync::Arc;
use std::time::Duration;

use super::send::{By, event_about};
use super::{Error, Held, again, answer, declines, machine, resolve, retrying, schedule};
use crate::card::id::{ChargeId, Token};
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::edge::App;
use crate::edge::audit::catalogue;
use crate::edge::audit::event::{Actor, Facts, Origin};
use crate::edge::directory::Caller;
use crate::edge::store::{
    AgreementRow, CardRow, CardStatus, Change, ChargeRow, CommitError, RetryState, RowChange,
};
use crate::wire::forwarder::{Outcome, Verdict};

/// Charges that are looked at together.
const BATCH: usize = 64;
/// Between two looks, at the most: what another process put there is seen then.
const LOOK: Duration = Duration::from_secs(5);
/// After a batch that was full, or that could not be worked on.
const LOOK_SOON: Duration = Duration::from_millis(250);
/// Between two rounds of pruning.
const PRUNE: Duration = Duration::from_hours(1);
/// A retry that cannot be made for a reason of ours is put off by this.
const PUT_OFF_SECONDS: i64 = 3_600;
/// How often a stop starts again when another change of the charge came first.
const TRIES_MAX: u32 = 8;

/// Works on what is due until the process ends.
pub async fn run(app: App) {
    review_all(&app).await;
    let mut pruned: Option<tokio::time::Instant> = None;
    loop {
        if pruned.is_none_or(|at| at.elapsed() >= PRUNE) {
            declines::prune(&app).await;
            pruned = Some(tokio::time::Instant::now());
        }
        let wait = look(&app).await;
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = app.charges.retry_due.notified() => {}
        }
    }
}

/// Begins what is due; gives how long to wait.
async fn look(app: &App) -> Duration {
    let Ok(list) = app.store.retries(BATCH).await else { return LOOK };
    let now = app.clock.now();
    let mut wait = LOOK;
    for (due, tenant, id) in list {
        if due > now {
            let micros = due.micros.saturating_sub(now.micros);
            return wait.min(Duration::from_micros(u64::try_from(micros).unwrap_or(0)));
        }
        wait = LOOK_SOON;
        if let Some(held) = Held::take(app, retrying, id) {
            tokio::spawn(work(Arc::clone(app), (tenant, id), held));
        }
    }
    wait
}

async fn work(app: App, (tenant, id): (TenantId, ChargeId), held: Held<ChargeId>) {
    let Ok(_slot) = app.charges.retry_slots.acquire().await else { return };
    let Ok(Some(charge)) = app.store.charge(tenant, &id.to_string()).await else { return };
    let now = app.clock.now();
    let Some(retries) = charge.retries().filter(|retries| retries.due().is_some_and(|due| due <= now)) else {
        return;
    };
    if retries.state == RetryState::Waiting || retries.until < now {
        return change(&app, &charge, schedule::ended("schedule_over")).await;
    }
    let until = retries.until;
    if !serves(&app, tenant) {
        return change(&app, &charge, schedule::at(now.plus_seconds(PUT_OFF_SECONDS), until)).await;
    }
    let by = vault();
    let begin = |next: &mut ChargeRow| {
        if let Some(retries) = next.retries_mut() {
            retries.made = retries.made.saturating_add(1);
            retries.state = RetryState::Running;
        }
    };
    let to = charge.destination.clone();
    match again::attempt(&app, &charge, &to, (&by, None), begin).await {
        Ok(after) => {
            app.metrics.retry(answer::status_word(after.status));
            drop(held);
            resolve::spawn(&app, after);
        }
        Err(error) => match state_after(&app, &charge, error, now, until).await {
            Some(state) => change(&app, &charge, state).await,
            // The same may work a little later, and nothing was committed.
            None => tokio::time::sleep(LOOK_SOON).await,
        },
    }
}

/// Where the schedule stands after an attempt that could not be begun; none if the same may work in a moment.
async fn state_after(
    app: &App,
    charge: &ChargeRow,
    error: Error,
    now: Time,
    until: Time,
) -> Option<RetryState> {
    if let Error::NetworkForbids(forbidden) = error {
        return Some(forbidden.until.map_or(schedule::ended("network_rule"), |at| schedule::at(at, until)));
    }
    if matches!(error, Error::DestinationUnknown) {
        return Some(schedule::at(now.plus_seconds(PUT_OFF_SECONDS), until));
    }
    let no_agreement = matches!(error, Error::AgreementRequired);
    if no_agreement && awaits_customer(app, charge).await {
        return Some(RetryState::Waiting);
    }
    if resolve::is_passing(&error) {
        return None;
    }
    let is_gone = matches!(error, Error::TokenUnknown | Error::TokenErased { .. } | Error::TokenErasing);
    let why = if no_agreement {
        "agreement_ended"
    } else if is_gone {
        "token_erased"
    } else if matches!(error, Error::TokenSuspended) {
        "token_suspended"
    } else {
        "refused"
    };
    Some(schedule::ended(why))
}

/// Whether the agreement waits for its customer, who has another number now.
async fn awaits_customer(app: &App, charge: &ChargeRow) -> bool {
    let rows = app.store.agreements(charge.tenant, charge.token).await.unwrap_or_default();
    rows.iter().any(|row| Some(row.id) == charge.agreement && AgreementRow::awaits_customer(row))
}

fn serves(app: &App, tenant: TenantId) -> bool {
    app.directory.tenants().get(&tenant).is_some_and(|tenant| !tenant.disabled)
}

fn vault() -> By {
    By { actor: Actor::System("retries".to_owned()), origin: Origin::default() }
}

/// Commits a change of the schedule alone. If another change came first, the next look sees it.
async fn change(app: &App, charge: &ChargeRow, state: RetryState) {
    if put(app, charge, state, &vault()).await.is_err() {
        tokio::time::sleep(LOOK_SOON).await;
    }
}

async fn put(app: &App, charge: &ChargeRow, state: RetryState, by: &By) -> Result<ChargeRow, Error> {
    let now = app.clock.now();
    let mut next = charge.clone();
    let retries = next.retries_mut().ok_or(Error::State)?;
    let note = match &state {
        RetryState::Running => "running",
        RetryState::Scheduled(_) => "scheduled",
        RetryState::Waiting => "waiting",
        RetryState::Ended(why) => why,
    };
    let mut event = event_about(app, charge, catalogue::CHARGE_RETRY, by)?;
    event.facts = Facts { note: Some(note.to_owned()), ..Facts::default() };
    retries.state = state;
    next.revision = next.revision.saturating_add(1);
    next.updated_at = next.updated_at.max(now);
    event.target.version = Some(next.revision);
    let change = Change {
        rows: vec![RowChange::PutCharge(Box::new(next.clone()))],
        events: vec![event],
        idempotency: None,
    };
    app.store.commit(change).await?;
    app.charges.retry_due.notify_one();
    Ok(next)
}

/// Ends a charge's schedule by hand; an attempt that is under way runs to its end. Safe to ask again.
pub async fn stop(app: &App, caller: &Caller, id: &str) -> Result<ChargeRow, Error> {
    let by = By { actor: caller.actor(), origin: caller.origin() };
    for _ in 0..TRIES_MAX {
        let charge = app.store.charge(caller.tenant_id(), id).await?.ok_or(Error::ChargeUnknown)?;
        if charge.id.to_string() != id {
            return Err(Error::ChargeUnknown);
        }
        match charge.retries().map(|retries| &retries.state) {
            None => return Err(Error::State),
            Some(RetryState::Ended(_)) => return Ok(charge),
            Some(RetryState::Running | RetryState::Scheduled(_) | RetryState::Waiting) => {}
        }
        match put(app, &charge, schedule::ended("stopped"), &by).await {
            Err(Error::Commit(CommitError::Conflict)) => {}
            ended => return ended,
        }
    }
    Err(CommitError::Conflict.into())
}

/// A card or one of its agreements has changed: what waits for that, or for a later time, is tried at once, if so configured; and what
/// cannot be tried any more ends.
pub fn wake(app: &App, tenant: TenantId, token: Token) {
    let app = Arc::clone(app);
    tokio::spawn(async move {
        for id in app.store.retries_of(token).await.unwrap_or_default() {
            review(&app, tenant, id).await;
        }
    });
}

/// An outcome was committed: what it scheduled is looked at in time, and it may have renewed or ended an agreement.
pub(super) fn heard(app: &App, charge: &ChargeRow, outcome: &Outcome) {
    if charge.retry_due().is_some() {
        app.charges.retry_due.notify_one();
    }
    let Some(answer) = outcome.answer.as_ref().filter(|_| charge.agreement.is_some()) else { return };
    let renews = answer.verdict == Verdict::Approved && charge.initiator == "customer";
    let stops = declines::stops_agreement(app, &charge.destination, answer);
    if renews || stops {
        wake(app, charge.tenant, charge.token);
    }
}

/// After a start: cards that changed while nobody could be told.
async fn review_all(app: &App) {
    for (_, tenant, id) in app.store.retries(usize::MAX).await.unwrap_or_default() {
        review(app, tenant, id).await;
    }
}

/// Looks at a charge that is not due yet: its card may be gone, or another than its last attempt had.
async fn review(app: &App, tenant: TenantId, id: ChargeId) {
    for _ in 0..TRIES_MAX {
        let Ok(Some(charge)) = app.store.charge(tenant, &id.to_string()).await else { return };
        let now = app.clock.now();
        if charge.retry_due().is_none_or(|due| due <= now) {
            return;
        }
        let Some(state) = state_now(app, &charge, now).await else { return };
        if put(app, &charge, state, &vault()).await.is_ok() {
            return;
        }
        // Another change came first, or the store cannot write now.
        tokio::time::sleep(LOOK_SOON).await;
    }
}

/// Where the schedule of a charge stands now that its card or agreement has changed; none if it stays as it is.
async fn state_now(app: &App, charge: &ChargeRow, now: Time) -> Option<RetryState> {
    let card = app.store.card(charge.tenant, charge.token).await.ok()??;
    match card.status {
        CardStatus::Erasing | CardStatus::Erased => return Some(schedule::ended("token_erased")),
        CardStatus::Suspended => return Some(schedule::ended("token_suspended")),
        CardStatus::Active => {}
    }
    let agreements = app.store.agreements(charge.tenant, charge.token).await.ok()?;
    let agreement = agreements.iter().find(|row| Some(row.id) == charge.agreement);
    let is_over = |row: &&AgreementRow| row.ended_at.is_some() && !row.awaits_customer();
    if agreement.filter(is_over).is_some() {
        return Some(schedule::ended("agreement_ended"));
    }
    let is_waiting = charge.retries().is_some_and(|retries| retries.state == RetryState::Waiting);
    // A new number waits for its customer: to try before would only put it back.
    let in_vain = is_waiting && agreement.is_some_and(AgreementRow::awaits_customer);
    let tries = app.directory.charging().retries.at_card_update && !in_vain;
    (tries && is_another(app, charge, &card).await).then_some(RetryState::Scheduled(now))
}

/// Whether number, expiry or zip are others than the last attempt had.
async fn is_another(app: &App, charge: &ChargeRow, card: &CardRow) -> bool {
    let before = declines::charged_card(app, charge).await;
    let versions = |card: &CardRow| {
        let sealed = card.sealed.as_ref()?;
        Some((sealed.pan.version, sealed.expiry.version, sealed.zip.as_ref().map(|zip| zip.version)))
    };
    before.is_none_or(|before| versions(&before) != versions(card))
}

/// Ends a schedule whose attempt a person settled.
pub(super) fn end(charge: &mut ChargeRow, why: &str) {
    if let Some(retries) = charge.retries_mut().filter(|retries| retries.state == RetryState::Running) {
        retries.state = schedule::ended(why);
    }
    machine::restate(charge);
}
