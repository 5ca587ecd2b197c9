//! What callers do with endpoints: make, list, change, delete, rotate, try out, replay. Each change is an event.

use serde_json::{Value, json};

use super::super::App;
use super::super::audit::catalogue;
use super::super::audit::event::{EventDraft, Facts};
use super::super::directory::Caller;
use super::super::store::{
    Change, CommitError, Delivery, DeliveryState, EndpointRow, Idempotency, NoticeRow, Page, RowChange,
    StoredAnswer, WebhookChange,
};
use super::{Error, event, place_of};
use crate::card::id::{EndpointId, NoticeId};
use crate::clock::Time;
use crate::wire::keeper::{Digest, Digested, WebhookSecret};

/// Another change may come first so often.
const TRIES_MAX: usize = 8;
/// Notices of one commit.
const REPLAY_PAGE: usize = 500;
/// Notices of one replay.
const REPLAY_MAX: usize = 10_000;
/// For so long the same request again is shown the secret again: its answer may have been lost.
const SECRET_SHOWN_SECONDS: i64 = 3_600;

/// An endpoint to make.
#[derive(Clone, Debug)]
pub struct NewEndpoint {
    /// Where it is.
    pub url: String,
    /// What it is told.
    pub events: Vec<String>,
    /// The caller's own words.
    pub description: Option<String>,
    /// Whether anything is sent.
    pub enabled: bool,
}

/// A change of an endpoint; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct EndpointChange {
    /// Where it is.
    pub url: Option<String>,
    /// What it is told.
    pub events: Option<Vec<String>>,
    /// The caller's own words.
    pub description: Option<Option<String>>,
    /// Whether anything is sent.
    pub enabled: Option<bool>,
}

/// What is to be delivered once more.
#[derive(Clone, Copy, Debug)]
pub enum Replay {
    /// This.
    One(NoticeId),
    /// What happened since then, or of it only what could not be delivered.
    Since(Time, bool),
}

/// How much is delivered once more.
#[derive(Clone, Copy, Debug)]
pub struct Replayed {
    /// So many.
    pub count: usize,
    /// Where to go on, if there is more than one request takes.
    pub next_since: Option<Time>,
}

/// An answer with a secret in it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// HTTP status.
    pub status: u16,
    /// The endpoint, and the secret.
    pub body: Value,
    /// Whether it was given before.
    pub replayed: bool,
}

/// An endpoint as the API writes it.
pub fn endpoint_json(row: &EndpointRow) -> Value {
    json!({
        "id": row.id.to_string(),
        "url": row.url,
        "events": row.events,
        "description": row.description,
        "enabled": row.enabled,
        "disabled_reason": row.disabled_reason,
        "failing_since": row.failing_since.map(|at| at.to_string()),
        "secret_generation": row.generation,
        "old_secret_until": row.previous_until.map(|at| at.to_string()),
        "created_at": row.created_at.to_string(),
        "updated_at": row.updated_at.to_string(),
    })
}

/// Makes an endpoint; the answer shows its secret.
pub async fn create(
    app: &App,
    caller: &Caller,
    (key, body): (&str, &[u8]),
    new: NewEndpoint,
) -> Result<Shown, Error> {
    const ROUTE: &str = "POST /v1/webhook_endpoints";
    check_host(app, &new.url)?;
    let digests = digest(app, caller, ROUTE.to_owned(), key, body).await?;
    let now = app.clock.now();
    let row = EndpointRow {
        id: EndpointId::make(now)?,
        tenant: caller.tenant_id(),
        revision: 1,
        url: new.url,
        events: new.events,
        description: new.description,
        enabled: new.enabled,
        disabled_reason: None,
        generation: 1,
        previous_until: None,
        failing_since: None,
        created_at: now,
        updated_at: now,
    };
    let events = vec![told(caller, catalogue::WEBHOOK_CREATE, &row, now, Facts::default())?];
    show_once(app, caller, (ROUTE, &digests), 201, row, events).await
}

/// Gives an endpoint another secret; the old one signs as well for so many hours.
pub async fn rotate(
    app: &App,
    caller: &Caller,
    id: EndpointId,
    (key, body): (&str, &[u8]),
    keep_old_hours: i64,
) -> Result<Shown, Error> {
    const ROUTE: &str = "POST /v1/webhook_endpoints/{id}/rotate_secret";
    let route = format!("POST /v1/webhook_endpoints/{id}/rotate_secret");
    let digests = digest(app, caller, route, key, body).await?;
    for _ in 0..TRIES_MAX {
        let mut row = endpoint(app, caller, id).await?;
        let now = app.clock.now();
        row.revision = row.revision.saturating_add(1);
        row.generation = row.generation.saturating_add(1);
        row.previous_until = (keep_old_hours > 0).then(|| now.plus_seconds(keep_old_hours * 3_600));
        row.updated_at = now;
        let events = vec![told(caller, catalogue::WEBHOOK_ROTATE, &row, now, Facts::default())?];
        match show_once(app, caller, (ROUTE, &digests), 200, row, events).await {
            Err(Error::Commit(CommitError::Conflict)) => {}
            settled => return settled,
        }
    }
    Err(CommitError::Conflict.into())
}

/// Endpoints of the caller's tenant.
pub async fn endpoints(app: &App, caller: &Caller) -> Result<Vec<EndpointRow>, Error> {
    let mut rows = app.store.webhook_endpoints().await?;
    rows.retain(|row| row.tenant == caller.tenant_id());
    Ok(rows)
}

/// An endpoint of the caller's tenant.
pub async fn endpoint(app: &App, caller: &Caller, id: EndpointId) -> Result<EndpointRow, Error> {
    app.store.webhook_endpoint(caller.tenant_id(), id).await?.ok_or(Error::EndpointUnknown)
}

/// Changes an endpoint. To switch one on forgets that it failed.
pub async fn update(
    app: &App,
    caller: &Caller,
    id: EndpointId,
    change: EndpointChange,
) -> Result<EndpointRow, Error> {
    if let Some(url) = &change.url {
        check_host(app, url)?;
    }
    for _ in 0..TRIES_MAX {
        let mut row = endpoint(app, caller, id).await?;
        let before = row.clone();
        let EndpointChange { url, events, description, enabled } = change.clone();
        row.url = url.unwrap_or(row.url);
        row.events = events.unwrap_or(row.events);
        row.description = description.unwrap_or(row.description);
        if let Some(enabled) = enabled {
            row.enabled = enabled;
            row.disabled_reason = None;
            row.failing_since = None;
        }
        let fields: Vec<String> = [
            ("url", row.url != before.url),
            ("events", row.events != before.events),
            ("description", row.description != before.description),
            ("enabled", row.enabled != before.enabled),
        ]
        .into_iter()
        .filter(|(_, changed)| *changed)
        .map(|(name, _)| name.to_owned())
        .collect();
        if row == before {
            return Ok(row);
        }
        let now = app.clock.now();
        row.revision = row.revision.saturating_add(1);
        row.updated_at = now;
        let facts = Facts { fields, ..Facts::default() };
        let events = vec![told(caller, catalogue::WEBHOOK_UPDATE, &row, now, facts)?];
        let put = WebhookChange::Put(Box::new(row.clone()));
        match commit(app, put, events).await {
            Err(Error::Commit(CommitError::Conflict)) => {}
            settled => return settled.map(|()| row),
        }
    }
    Err(CommitError::Conflict.into())
}

/// Forgets an endpoint.
pub async fn delete(app: &App, caller: &Caller, id: EndpointId) -> Result<(), Error> {
    let row = endpoint(app, caller, id).await?;
    let events = vec![told(caller, catalogue::WEBHOOK_DELETE, &row, app.clock.now(), Facts::default())?];
    let delete = WebhookChange::Delete { tenant: row.tenant, endpoint: id };
    match commit(app, delete, events).await {
        Err(Error::Commit(CommitError::NotFound)) => Err(Error::EndpointUnknown),
        settled => settled,
    }
}

/// Has an endpoint told that it is tried out.
pub async fn test(app: &App, caller: &Caller, id: EndpointId) -> Result<(), Error> {
    let row = enabled(app, caller, id).await?;
    commit(app, WebhookChange::Test { tenant: row.tenant, endpoint: id }, Vec::new()).await
}

/// The deliveries of an endpoint, newest first.
pub async fn deliveries(
    app: &App,
    caller: &Caller,
    id: EndpointId,
    state: Option<DeliveryState>,
    (after, limit): (Option<NoticeId>, usize),
) -> Result<Page<Delivery>, Error> {
    let row = endpoint(app, caller, id).await?;
    Ok(app.store.webhook_deliveries((row.tenant, id), state, after, limit).await?)
}

/// What was told, as it is posted.
pub async fn notice(app: &App, caller: &Caller, id: NoticeId) -> Result<NoticeRow, Error> {
    app.store.webhook_notice(caller.tenant_id(), id).await?.ok_or(Error::NoticeUnknown)
}

/// Has what an endpoint wants delivered once more, with the same ids.
pub async fn replay(app: &App, caller: &Caller, id: EndpointId, what: Replay) -> Result<Replayed, Error> {
    let row = enabled(app, caller, id).await?;
    let (since, failed_only) = match what {
        Replay::One(notice_id) => {
            let one = notice(app, caller, notice_id).await?;
            again(app, caller, &row, vec![one.id]).await?;
            return Ok(Replayed { count: 1, next_since: None });
        }
        Replay::Since(since, failed_only) => (since, failed_only),
    };
    let (mut after, mut count) = (None, 0);
    loop {
        let of = (row.tenant, id);
        let page = app.store.webhook_notices_since(of, (since, failed_only), after, REPLAY_PAGE).await?;
        let Some(last) = page.last() else { return Ok(Replayed { count, next_since: None }) };
        if count + page.len() > REPLAY_MAX {
            return Ok(Replayed { count, next_since: page.first().map(|one| one.created_at) });
        }
        after = Some(last.id);
        let is_last = page.len() < REPLAY_PAGE;
        let wanted: Vec<_> = page.iter().filter(|one| row.wants(&one.kind)).map(|one| one.id).collect();
        if !wanted.is_empty() {
            count += wanted.len();
            again(app, caller, &row, wanted).await?;
        }
        if is_last {
            return Ok(Replayed { count, next_since: None });
        }
    }
}

async fn again(app: &App, caller: &Caller, row: &EndpointRow, notices: Vec<NoticeId>) -> Result<(), Error> {
    let facts = Facts { count: u64::try_from(notices.len()).ok(), ..Facts::default() };
    let events = vec![told(caller, catalogue::WEBHOOK_REPLAY, row, app.clock.now(), facts)?];
    let redeliver = WebhookChange::Redeliver { tenant: row.tenant, endpoint: row.id, notices };
    commit(app, redeliver, events).await
}

async fn enabled(app: &App, caller: &Caller, id: EndpointId) -> Result<EndpointRow, Error> {
    let row = endpoint(app, caller, id).await?;
    if row.enabled { Ok(row) } else { Err(Error::Disabled) }
}

/// An endpoint lies within the operator's hosts.
fn check_host(app: &App, url: &str) -> Result<(), Error> {
    let place = place_of(url).ok_or(Error::HostNotAllowed)?;
    let rules = app.directory.webhooks();
    let is_there = rules.hosts.iter().any(|(host, port)| *host == place.host && *port == place.port);
    if is_there { Ok(()) } else { Err(Error::HostNotAllowed) }
}

fn told(
    caller: &Caller,
    action: &'static str,
    row: &EndpointRow,
    now: Time,
    facts: Facts,
) -> Result<EventDraft, Error> {
    Ok(event((caller.actor(), caller.origin()), action, row, now, facts)?)
}

async fn commit(app: &App, change: WebhookChange, events: Vec<EventDraft>) -> Result<(), Error> {
    let rows = vec![RowChange::Webhook(change)];
    app.store.commit(Change { rows, events, idempotency: None }).await?;
    Ok(())
}

async fn digest(
    app: &App,
    caller: &Caller,
    route: String,
    key: &str,
    body: &[u8],
) -> Result<Digested, Error> {
    let tenant = caller.tenant_id();
    let ask = Digest { tenant, route, idempotency_key: key.to_owned(), body: body.to_vec() };
    Ok(app.keeper.digest(ask).await?)
}

/// Commits an endpoint whose answer shows a secret. What is stored for a replay is the answer without it.
async fn show_once(
    app: &App,
    caller: &Caller,
    (route, digests): (&'static str, &Digested),
    status: u16,
    row: EndpointRow,
    events: Vec<EventDraft>,
) -> Result<Shown, Error> {
    let body = endpoint_json(&row);
    let idempotency = Idempotency {
        tenant: caller.tenant_id(),
        route,
        key: digests.key,
        body_mac: digests.body,
        subject_token: None,
        answer: StoredAnswer::Frozen { status, location: None, body: body.to_string().into_bytes() },
    };
    let rows = vec![RowChange::Webhook(WebhookChange::Put(Box::new(row)))];
    let change = Change { rows, events, idempotency: Some(idempotency) };
    match app.store.commit(change).await {
        Ok(_) => with_secret(app, caller, Shown { status, body, replayed: false }).await,
        Err(CommitError::KeyTaken(stored)) if stored.body_mac == Some(digests.body) => match stored.answer {
            StoredAnswer::Frozen { status, body, .. } => {
                let body = serde_json::from_slice(&body).unwrap_or_default();
                with_secret(app, caller, Shown { status, body, replayed: true }).await
            }
            StoredAnswer::Card { .. } | StoredAnswer::Reserved { .. } => Err(Error::KeyReused),
        },
        Err(CommitError::KeyTaken(_)) => Err(Error::KeyReused),
        Err(error) => Err(error.into()),
    }
}

async fn with_secret(app: &App, caller: &Caller, mut shown: Shown) -> Result<Shown, Error> {
    let text = |name: &str| shown.body.get(name).and_then(Value::as_str);
    let endpoint = text("id").and_then(EndpointId::parse).ok_or(Error::EndpointUnknown)?;
    let at = text("updated_at").and_then(Time::parse);
    let is_fresh = at.is_some_and(|at| app.clock.now() < at.plus_seconds(SECRET_SHOWN_SECONDS));
    let generation = shown.body.get("secret_generation").and_then(Value::as_u64);
    let generation = generation.and_then(|n| u32::try_from(n).ok()).ok_or(Error::EndpointUnknown)?;
    if is_fresh {
        let which = WebhookSecret { tenant: caller.tenant_id(), endpoint, generation };
        let secret = app.keeper.webhook_secret(which).await?;
        if let Value::Object(members) = &mut shown.body {
            members.insert("secret".to_owned(), Value::String(secret));
        }
    }
    Ok(shown)
}
