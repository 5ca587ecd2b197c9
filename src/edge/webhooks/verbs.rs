//! What callers do with endpoints: make, list, change, delete, rotate, try out, replay. Each change is an event.

use serde_json::{Value, json};

use super::super::App;
use super::super::audit::catalogue;
use super::super::audit::event::{EventDraft, Facts};
use super::super::directory::Caller;
use super::super::store::{
    Change, CommitError, Delivery, DeliveryState, EndpointRow, Idempotency, NoticeRow, Page, RowChange,
    StoredAnswer, StoredIdempotency, WebhookChange,
};
use super::super::working::Working;
use super::{Error, event, place_of};
use crate::card::id::{EndpointId, NoticeId};
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::wire::keeper::{Digest, Digested, WebhookSecret};

/// Another change may come first so often.
const TRIES_MAX: usize = 8;
/// Notices that are read at once.
const REPLAY_PAGE: usize = 500;
/// Notices of one replay. They are one change, so that a key is kept with all that was done under it or with nothing: more would hold up
/// what waits behind it.
const REPLAY_MAX: usize = 2_000;
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

/// An answer that is kept with its idempotency key.
#[derive(Clone, Debug)]
pub struct Shown {
    /// HTTP status.
    pub status: u16,
    /// The body: of an endpoint that was made or got another secret, with the secret in it. Null: there is none.
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
    let claim = Claim::take(app, caller, (ROUTE, ROUTE.to_owned()), key, body).await?;
    if let Some(before) = claim.answered(app).await? {
        return with_secret(app, caller, before).await;
    }
    check_host(app, &new.url)?;
    let now = app.clock.now();
    let key = Some(key_of_new(app, caller.tenant_id(), now)?);
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
        key,
        previous_until: None,
        previous_key: None,
        failing_since: None,
        created_at: now,
        updated_at: now,
    };
    let events = vec![told(caller, catalogue::WEBHOOK_CREATE, &row, now, Facts::default())?];
    show_once(app, caller, &claim, 201, row, events).await
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
    let claim = Claim::take(app, caller, (ROUTE, route_of(id, "rotate_secret")), key, body).await?;
    if let Some(before) = claim.answered(app).await? {
        return with_secret(app, caller, before).await;
    }
    for _ in 0..TRIES_MAX {
        let mut row = endpoint(app, caller, id).await?;
        let now = app.clock.now();
        row.revision = row.revision.saturating_add(1);
        row.generation = row.generation.saturating_add(1);
        row.previous_until = (keep_old_hours > 0).then(|| now.plus_seconds(keep_old_hours * 3_600));
        let before = row.key.or_else(|| app.keys.first_webhook_key(row.tenant));
        row.previous_key = before.filter(|_| keep_old_hours > 0);
        row.key = Some(key_of_new(app, row.tenant, now)?);
        row.updated_at = now;
        let events = vec![told(caller, catalogue::WEBHOOK_ROTATE, &row, now, Facts::default())?];
        match show_once(app, caller, &claim, 200, row, events).await {
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
pub async fn test(
    app: &App,
    caller: &Caller,
    id: EndpointId,
    (key, body): (&str, &[u8]),
) -> Result<Shown, Error> {
    const ROUTE: &str = "POST /v1/webhook_endpoints/{id}/test";
    let claim = Claim::take(app, caller, (ROUTE, route_of(id, "test")), key, body).await?;
    if let Some(before) = claim.answered(app).await? {
        return Ok(before);
    }
    let row = enabled(app, caller, id).await?;
    let rows = vec![RowChange::Webhook(WebhookChange::Test { tenant: row.tenant, endpoint: id })];
    let change = Change { rows, ..Change::default() };
    claim.commit(app, (202, Value::Null), change).await
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
pub async fn replay(
    app: &App,
    caller: &Caller,
    id: EndpointId,
    (key, body): (&str, &[u8]),
    what: Replay,
) -> Result<Shown, Error> {
    const ROUTE: &str = "POST /v1/webhook_endpoints/{id}/replay";
    let claim = Claim::take(app, caller, (ROUTE, route_of(id, "replay")), key, body).await?;
    if let Some(before) = claim.answered(app).await? {
        return Ok(before);
    }
    let row = enabled(app, caller, id).await?;
    let (notices, next_since) = match what {
        Replay::One(notice_id) => (vec![notice(app, caller, notice_id).await?.id], None),
        Replay::Since(since, failed_only) => since_then(app, &row, since, failed_only).await?,
    };
    let count = notices.len();
    let answer = json!({"replayed": count, "next_since": next_since.map(|at| at.to_string())});
    let mut change = Change::default();
    if count > 0 {
        let facts = Facts { count: u64::try_from(count).ok(), ..Facts::default() };
        change.events.push(told(caller, catalogue::WEBHOOK_REPLAY, &row, app.clock.now(), facts)?);
        let redeliver = WebhookChange::Redeliver { tenant: row.tenant, endpoint: id, notices };
        change.rows.push(RowChange::Webhook(redeliver));
    }
    claim.commit(app, (202, answer), change).await
}

/// What an endpoint wants of what happened since then, and where to go on if there is more than one request takes.
async fn since_then(
    app: &App,
    row: &EndpointRow,
    since: Time,
    failed_only: bool,
) -> Result<(Vec<NoticeId>, Option<Time>), Error> {
    let (mut after, mut wanted) = (None, Vec::new());
    loop {
        let of = (row.tenant, row.id);
        let page = app.store.webhook_notices_since(of, (since, failed_only), after, REPLAY_PAGE).await?;
        let ids: Vec<_> = page.iter().filter(|one| row.wants(&one.kind)).map(|one| one.id).collect();
        let here = page.first().map(|one| one.created_at);
        // What one commit told has one time, and a request that goes on from there must come past it.
        if wanted.len() + ids.len() > REPLAY_MAX && here > Some(since) {
            return Ok((wanted, here));
        }
        wanted.extend(ids);
        after = page.last().map(|last| last.id);
        if page.len() < REPLAY_PAGE {
            return Ok((wanted, None));
        }
    }
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

/// The webhook key that a new secret is derived from.
fn key_of_new(app: &App, tenant: TenantId, now: Time) -> Result<u32, Error> {
    let key = app.keys.webhook_key(tenant, now);
    key.ok_or_else(|| {
        tracing::error!(code = "webhook_key", "no webhook key may be used: `cardvault keys rotate webhook`");
        CommitError::Unavailable("webhook_key").into()
    })
}

/// The webhook key of a secret of this endpoint, if that is good yet.
async fn key_of(app: &App, caller: &Caller, id: EndpointId, generation: u32) -> Result<Option<u32>, Error> {
    let tenant = caller.tenant_id();
    let Some(row) = app.store.webhook_endpoint(tenant, id).await? else { return Ok(None) };
    let Some(first) = app.keys.first_webhook_key(tenant) else { return Ok(None) };
    let newest = (row.generation == generation).then(|| row.key.unwrap_or(first));
    let before = || {
        let is_before = row.generation.checked_sub(1) == Some(generation);
        row.key_before(first, app.clock.now()).filter(|_| is_before)
    };
    Ok(newest.or_else(before).filter(|key| !app.keys.is_compromised(*key)))
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

/// A verb on an endpoint as a request of its own: the same key may be used at another.
fn route_of(id: EndpointId, verb: &str) -> String {
    format!("POST /v1/webhook_endpoints/{id}/{verb}")
}

/// The idempotency key of a request, which nobody else works on while this lives.
struct Claim {
    tenant: TenantId,
    route: &'static str,
    digests: Digested,
    _working: Working,
}

impl Claim {
    async fn take(
        app: &App,
        caller: &Caller,
        (route, of): (&'static str, String),
        key: &str,
        body: &[u8],
    ) -> Result<Self, Error> {
        let tenant = caller.tenant_id();
        let ask = Digest { tenant, route: of, idempotency_key: key.to_owned(), body: body.to_vec() };
        let digests = app.keeper.digest(ask).await?;
        let working = Working::take(app, digests.key).ok_or(Error::InProgress)?;
        Ok(Self { tenant, route, digests, _working: working })
    }

    /// What the same request was answered with before. It is looked at before anything else: what the request is about may have gone since.
    async fn answered(&self, app: &App) -> Result<Option<Shown>, Error> {
        let stored = app.store.idempotency(self.tenant, self.route, &self.digests.key).await?;
        stored.map(|stored| self.again(stored)).transpose()
    }

    fn again(&self, stored: StoredIdempotency) -> Result<Shown, Error> {
        match stored.answer {
            StoredAnswer::Frozen { status, body, .. } if stored.body_mac == Some(self.digests.body) => {
                let body = serde_json::from_slice(&body).unwrap_or_default();
                Ok(Shown { status, body, replayed: true })
            }
            StoredAnswer::Frozen { .. }
            | StoredAnswer::Card { .. }
            | StoredAnswer::Reserved { .. }
            | StoredAnswer::Forgotten => Err(Error::KeyReused),
        }
    }

    /// Commits a change together with its answer.
    async fn commit(
        &self,
        app: &App,
        (status, body): (u16, Value),
        mut change: Change,
    ) -> Result<Shown, Error> {
        change.idempotency = Some(Idempotency {
            tenant: self.tenant,
            route: self.route,
            key: self.digests.key,
            body_mac: self.digests.body,
            subject_token: None,
            answer: StoredAnswer::Frozen { status, location: None, body: body.to_string().into_bytes() },
        });
        match app.store.commit(change).await {
            Ok(_) => Ok(Shown { status, body, replayed: false }),
            Err(CommitError::KeyTaken(stored)) => self.again(*stored),
            Err(CommitError::NotFound) => Err(Error::EndpointUnknown),
            Err(error) => Err(error.into()),
        }
    }
}

/// Commits an endpoint whose answer shows a secret. What is stored for a replay is the answer without it.
async fn show_once(
    app: &App,
    caller: &Caller,
    claim: &Claim,
    status: u16,
    row: EndpointRow,
    events: Vec<EventDraft>,
) -> Result<Shown, Error> {
    let body = endpoint_json(&row);
    let rows = vec![RowChange::Webhook(WebhookChange::Put(Box::new(row)))];
    let shown = claim.commit(app, (status, body), Change { rows, events, idempotency: None }).await?;
    with_secret(app, caller, shown).await
}

async fn with_secret(app: &App, caller: &Caller, mut shown: Shown) -> Result<Shown, Error> {
    let text = |name: &str| shown.body.get(name).and_then(Value::as_str);
    let endpoint = text("id").and_then(EndpointId::parse).ok_or(Error::EndpointUnknown)?;
    let at = text("updated_at").and_then(Time::parse);
    let is_fresh = at.is_some_and(|at| app.clock.now() < at.plus_seconds(SECRET_SHOWN_SECONDS));
    let generation = shown.body.get("secret_generation").and_then(Value::as_u64);
    let generation = generation.and_then(|n| u32::try_from(n).ok()).ok_or(Error::EndpointUnknown)?;
    if is_fresh && let Some(key) = key_of(app, caller, endpoint, generation).await? {
        let which = WebhookSecret { tenant: caller.tenant_id(), endpoint, generation, key };
        let secret = app.keeper.webhook_secret(which).await?;
        if let Value::Object(members) = &mut shown.body {
            members.insert("secret".to_owned(), Value::String(secret));
        }
    }
    Ok(shown)
}
