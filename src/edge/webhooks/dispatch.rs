//! Delivery: takes what is due for each endpoint, has it signed and posted, and writes what became of it.
//!
//! Each endpoint has so many places of its own; one at which nothing works has few. So a slow or dead endpoint holds up nobody else's
//! deliveries, and what waits for it waits in the database.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::App;
use super::super::audit::catalogue;
use super::super::audit::event::{Actor, Facts, Origin};
use super::super::store::{
    Attempted, Change, CommitError, DeliveryState, Due, EndpointRow, RowChange, WebhookChange,
};
use super::{AtWork, Error, Going, event, place_of};
use crate::clock::Time;
use crate::random;
use crate::wire::control::WebhookRules;
use crate::wire::courier::{Post, Posted};
use crate::wire::keeper::{SignWebhook, WebhookSecret};

/// Deliveries to one endpoint at once.
const OF_ENDPOINT_MAX: usize = 32;
/// The same where nothing works.
const OF_FAILING_MAX: usize = 4;
/// Nothing wakes it for what falls due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What ends or happens within this time is looked at together.
const GATHER: Duration = Duration::from_millis(20);
/// Our own faults are not the endpoint's: the attempt does not count, and is made again after this.
const OWN_FAULT_PAUSE: Duration = Duration::from_secs(1);
/// One answer keeps everything else of an endpoint back for so long at most: it may be a mistake.
const LEFT_ALONE_MAX: Duration = Duration::from_hours(1);
const COUNT_EVERY: Duration = Duration::from_secs(10);
const COUNT_MAX: usize = 10_000;
const PRUNE_EVERY: Duration = Duration::from_mins(10);
/// The endpoint is not there any more and never will be (Standard Webhooks).
const GONE: u16 = 410;

/// Delivers until the process ends.
pub(in crate::edge) async fn run(app: App) {
    let at_work = Arc::new(AtWork::new());
    let (mut counted, mut pruned) = (None::<Instant>, None::<Instant>);
    let is_over = |since: &Option<Instant>, every| since.is_none_or(|since| since.elapsed() >= every);
    loop {
        if turn(&app, &at_work).await.is_err() {
            tracing::warn!(code = "webhooks", "it could not be looked which webhooks are due");
        }
        if is_over(&counted, COUNT_EVERY) {
            count(&app).await;
            counted = Some(Instant::now());
        }
        if is_over(&pruned, PRUNE_EVERY) {
            prune(&app).await;
            pruned = Some(Instant::now());
        }
        tokio::select! {
            () = app.store.webhooks_told().notified() => {}
            () = at_work.freed.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// Begins what is due and has a place.
async fn turn(app: &App, at_work: &Arc<AtWork>) -> Result<(), Error> {
    let now = app.clock.now();
    let tenants = app.directory.tenants();
    for row in app.store.webhook_endpoints().await? {
        if !row.enabled || tenants.get(&row.tenant).is_none_or(|tenant| tenant.disabled) {
            continue;
        }
        if at_work.is_left_alone(&row) {
            continue;
        }
        let max = if row.failing_since.is_some() { OF_FAILING_MAX } else { OF_ENDPOINT_MAX };
        // What is under way stands first among them: it has waited longest.
        let due = app.store.webhooks_due((row.tenant, row.id), now, max).await?;
        let row = Arc::new(row);
        for one in due {
            if let Some(going) = at_work.begin((row.id, one.notice)) {
                tokio::spawn(deliver(Arc::clone(app), Arc::clone(&row), one, going));
            }
        }
    }
    Ok(())
}

async fn deliver(app: App, row: Arc<EndpointRow>, due: Due, going: Going) {
    let delivered = match attempt(&app, &row, &due).await {
        Ok(posted) => {
            if let Some(seconds) = asked_for(&app.directory.webhooks(), &posted) {
                going.at_work.leave_alone(&row, Duration::from_secs(seconds).min(LEFT_ALONE_MAX));
            }
            settle(&app, &row, &due, posted).await
        }
        Err(error) => Err(error),
    };
    if delivered.is_err() {
        app.metrics.webhook("put_off");
        tokio::time::sleep(OWN_FAULT_PAUSE).await;
    }
    drop(going);
}

/// Has it signed and posted. `Err`: nobody tried, or nobody knows; either way it is tried again.
async fn attempt(app: &App, row: &EndpointRow, due: &Due) -> Result<Posted, Error> {
    let now = app.clock.now();
    let Some(place) = place_of(&row.url) else { return Ok(Posted::failed("url")) };
    let (id, timestamp) = (due.notice.to_string(), now.seconds());
    let body = due.body.as_bytes().to_vec();
    let first = app.keys.first_webhook_key(row.tenant).ok_or(CommitError::Unavailable("webhook_key"))?;
    let (key, generation) = (row.key.unwrap_or(first), row.generation);
    let secret = WebhookSecret { tenant: row.tenant, endpoint: row.id, generation, key };
    let before = row.key_before(first, now).filter(|key| !app.keys.is_compromised(*key));
    let ask = SignWebhook { secret, before, id: id.clone(), timestamp, body };
    let body = ask.body.clone();
    let signature = app.keeper.sign_webhook(Box::new(ask)).await?;
    let header = |name: &str, value: String| (name.to_owned(), value);
    let headers = vec![
        header("content-type", "application/json".to_owned()),
        header("webhook-id", id),
        header("webhook-timestamp", timestamp.to_string()),
        header("webhook-signature", signature),
    ];
    let post = Post { host: place.host, port: place.port, path: place.path, headers, body };
    let posted = app.courier.post(post).await.map_err(|_| CommitError::Unavailable("courier"))?;
    match posted.error.as_deref() {
        Some("busy") => Err(CommitError::Unavailable("courier").into()),
        Some(_) | None => Ok(posted),
    }
}

/// Writes what became of an attempt, and what that says of the endpoint.
async fn settle(app: &App, row: &EndpointRow, due: &Due, posted: Posted) -> Result<(), Error> {
    let now = app.clock.now();
    let rules = app.directory.webhooks();
    let worked = posted.error.is_none() && posted.status.is_some_and(|status| (200..300).contains(&status));
    let attempts = due.attempts.saturating_add(1);
    let asked = asked_for(&rules, &posted).unwrap_or(0);
    let (state, next) =
        if worked { (DeliveryState::Delivered, now) } else { after(&rules, attempts, asked, now)? };
    app.metrics.webhook(match state {
        DeliveryState::Waiting => "retried",
        DeliveryState::Delivered => "delivered",
        DeliveryState::Failed => "failed",
    });
    let is_gone = posted.status == Some(GONE);
    let attempted = Attempted {
        tenant: row.tenant,
        endpoint: row.id,
        notice: due.notice,
        state,
        due: next,
        attempts,
        at: now,
        status: posted.status,
        error: posted.error,
        micros: posted.micros,
    };
    let rows = vec![RowChange::Webhook(WebhookChange::Attempted(Box::new(attempted)))];
    app.store.commit(Change { rows, ..Change::default() }).await?;
    if !worked || row.failing_since.is_some() {
        note_health(app, row, worked, is_gone).await?;
    }
    Ok(())
}

/// For how many seconds the receiver asks to be left alone; no longer than the schedule's longest time.
fn asked_for(rules: &WebhookRules, posted: &Posted) -> Option<u64> {
    let longest = rules.retry_seconds.iter().copied().max()?;
    posted.retry_after_seconds.map(|seconds| longest.min(seconds.into()))
}

/// Where a delivery stands after so many failed attempts, and when the next one is due: not before what the receiver asked for.
fn after(rules: &WebhookRules, attempts: u32, asked: u64, now: Time) -> Result<(DeliveryState, Time), Error> {
    let done = usize::try_from(attempts).unwrap_or(usize::MAX).saturating_sub(1);
    let Some(seconds) = rules.retry_seconds.get(done) else { return Ok((DeliveryState::Failed, now)) };
    let seconds = asked.max(*seconds);
    // Up to a tenth later, so that what failed together does not come back together.
    let part = u64::from(u16::from_be_bytes(random::make_bytes::<2>()?));
    let micros = seconds.saturating_mul(1_000_000).saturating_mul(655_360 + part) / 655_360;
    let due = Time::from_micros(now.micros.saturating_add(i64::try_from(micros).unwrap_or(i64::MAX)));
    Ok((DeliveryState::Waiting, due))
}

/// Remembers since when nothing works at an endpoint, and switches it off when that has been too long, or when it says that it is gone.
async fn note_health(app: &App, seen: &EndpointRow, worked: bool, is_gone: bool) -> Result<(), Error> {
    let Some(mut row) = app.store.webhook_endpoint(seen.tenant, seen.id).await? else { return Ok(()) };
    let now = app.clock.now();
    if !row.enabled || row.url != seen.url {
        return Ok(());
    }
    let limit = i64::try_from(app.directory.webhooks().disable_after_seconds).unwrap_or(i64::MAX);
    let too_long = |since: Time| since.plus_seconds(limit) <= now;
    let mut events = Vec::new();
    row.revision = row.revision.saturating_add(1);
    match (worked, row.failing_since) {
        (true, None) => return Ok(()),
        (true, Some(_)) => row.failing_since = None,
        (false, since) if is_gone || since.is_some_and(too_long) => {
            row.enabled = false;
            row.disabled_reason = Some(if is_gone { "gone" } else { "failing" }.to_owned());
            row.updated_at = now;
            let by = (Actor::System("webhooks".to_owned()), Origin::default());
            let facts = Facts { note: row.disabled_reason.clone(), ..Facts::default() };
            events.push(event(by, catalogue::WEBHOOK_DISABLE, &row, now, facts)?);
            tracing::warn!(code = "webhook_disabled", endpoint = %row.id, "a webhook endpoint was switched off");
        }
        (false, Some(_)) => return Ok(()),
        (false, None) => row.failing_since = Some(now),
    }
    let rows = vec![RowChange::Webhook(WebhookChange::Put(Box::new(row)))];
    match app.store.commit(Change { rows, events, idempotency: None }).await {
        // Somebody else has changed it: the next attempt says it again.
        Ok(_) | Err(CommitError::Conflict) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// How many deliveries wait, for the figures.
async fn count(app: &App) {
    let mut waiting = 0;
    for row in app.store.webhook_endpoints().await.unwrap_or_default() {
        let of = (row.tenant, row.id);
        waiting += app.store.webhooks_waiting(of, COUNT_MAX).await.unwrap_or_default();
    }
    app.metrics.webhooks_waiting(waiting);
}

async fn prune(app: &App) {
    let keep = i64::try_from(app.directory.webhooks().keep_seconds).unwrap_or(i64::MAX);
    let before = app.clock.now().plus_seconds(keep.saturating_neg());
    let rows = vec![RowChange::Webhook(WebhookChange::Prune(before))];
    if app.store.commit(Change { rows, ..Change::default() }).await.is_err() {
        tracing::warn!(code = "webhooks_prune", "old webhooks could not be forgotten");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_tried_as_often_as_the_schedule_says_and_no_more() {
        let rules = WebhookRules { retry_seconds: vec![5, 300], ..WebhookRules::default() };
        let now = Time::from_micros(1_795_000_000_000_000);
        for (attempts, seconds) in [(1, 5), (2, 300)] {
            let (state, due) = after(&rules, attempts, 0, now).unwrap();
            assert_eq!(state, DeliveryState::Waiting);
            assert!(due >= now.plus_seconds(seconds) && due <= now.plus_seconds(seconds + seconds / 10 + 1));
        }
        assert_eq!(after(&rules, 3, 60, now).unwrap(), (DeliveryState::Failed, now));
    }

    #[test]
    fn what_the_receiver_asks_for_is_kept_to_within_the_schedules_longest_time() {
        let rules = WebhookRules { retry_seconds: vec![5, 300, 20], ..WebhookRules::default() };
        let now = Time::from_micros(1_795_000_000_000_000);
        let asking =
            |seconds| Posted { status: Some(503), retry_after_seconds: seconds, ..Posted::failed("") };
        for (seconds, attempts, least) in
            [(None, 1, 5), (Some(1), 1, 5), (Some(60), 1, 60), (Some(60), 2, 300), (Some(172_800), 1, 300)]
        {
            let asked = asked_for(&rules, &asking(seconds)).unwrap_or(0);
            let (_, due) = after(&rules, attempts, asked, now).unwrap();
            let most = now.plus_seconds(least + least / 10 + 1);
            assert!(due >= now.plus_seconds(least) && due <= most, "{seconds:?} {attempts}");
        }
    }
}
