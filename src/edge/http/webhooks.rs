//! `/v1/webhook_endpoints` and `/v1/webhook_events`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::code::Code;
use super::extract::{Body, IdempotencyKey, OptionalBody, PathIds, Query, read_json};
use super::problem::Problem;
use super::reply;
use super::tokens::{List, display, display_some};
use crate::card::id::{EndpointId, NoticeId};
use crate::card::stray;
use crate::clock::Time;
use crate::edge::App;
use crate::edge::directory::Caller;
use crate::edge::store::webhooks::{KINDS, fits};
use crate::edge::store::{Delivery, DeliveryState};
use crate::edge::webhooks::{self, EndpointChange, NewEndpoint, Replay, Shown, endpoint_json};

/// What a list of deliveries may ask for.
pub(super) const DELIVERIES_QUERY: &[&str] = &["limit", "starting_after", "status"];

const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 100;
const EVENTS_MAX: usize = KINDS.len();
const DESCRIPTION_BYTES_MAX: usize = 255;
const KEEP_OLD_HOURS_DEFAULT: i64 = 24;
const KEEP_OLD_HOURS_MAX: i64 = 168;

/// A body of `POST /v1/webhook_endpoints`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewBody {
    url: String,
    events: Vec<String>,
    description: Option<String>,
    #[serde(default = "yes")]
    enabled: bool,
}

const fn yes() -> bool {
    true
}

/// A body of `PATCH /v1/webhook_endpoints/{id}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeBody {
    url: Option<String>,
    events: Option<Vec<String>>,
    /// An empty one takes it away.
    description: Option<String>,
    enabled: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RotateBody {
    keep_old_hours: Option<i64>,
}

/// A body of `POST …/replay`: one event, or what happened since.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayBody {
    event: Option<String>,
    since: Option<String>,
    failed_only: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// `POST /v1/webhook_endpoints`
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    body: Body<NewBody>,
) -> Result<Response, Problem> {
    let NewBody { url, events, description, enabled } = body.value;
    check_url(&url)?;
    check_events(&events)?;
    check_description(description.as_deref())?;
    let new = NewEndpoint { url, events, description: description.filter(|text| !text.is_empty()), enabled };
    Ok(shown(&webhooks::create(&app, &caller, (&key, &body.bytes), new).await?))
}

/// `GET /v1/webhook_endpoints`
pub(super) async fn list(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    let rows = webhooks::endpoints(&app, &caller).await?;
    let data: Vec<_> = rows.iter().map(endpoint_json).collect();
    Ok(reply::json(StatusCode::OK, &List { data, has_more: false }))
}

/// `GET /v1/webhook_endpoints/{id}`
pub(super) async fn read(State(app): State<App>, caller: Caller, path: PathIds) -> Result<Response, Problem> {
    let row = webhooks::endpoint(&app, &caller, id_of(&path)?).await?;
    Ok(reply::json(StatusCode::OK, &endpoint_json(&row)))
}

/// `PATCH /v1/webhook_endpoints/{id}`
pub(super) async fn update(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
    body: Body<ChangeBody>,
) -> Result<Response, Problem> {
    let ChangeBody { url, events, description, enabled } = body.value;
    url.as_deref().map_or(Ok(()), check_url)?;
    events.as_deref().map_or(Ok(()), check_events)?;
    check_description(description.as_deref())?;
    let description = description.map(|text| Some(text).filter(|text| !text.is_empty()));
    let change = EndpointChange { url, events, description, enabled };
    let row = webhooks::update(&app, &caller, id_of(&path)?, change).await?;
    Ok(reply::json(StatusCode::OK, &endpoint_json(&row)))
}

/// `DELETE /v1/webhook_endpoints/{id}`
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
) -> Result<StatusCode, Problem> {
    webhooks::delete(&app, &caller, id_of(&path)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/webhook_endpoints/{id}/rotate_secret`
pub(super) async fn rotate(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
    IdempotencyKey(key): IdempotencyKey,
    OptionalBody(body): OptionalBody,
) -> Result<Response, Problem> {
    let asked = if body.is_empty() { RotateBody { keep_old_hours: None } } else { read_json(&body)? };
    let hours = asked.keep_old_hours.unwrap_or(KEEP_OLD_HOURS_DEFAULT);
    if !(0..=KEEP_OLD_HOURS_MAX).contains(&hours) {
        return Err(Problem::about(Code::InvalidValue, "keep_old_hours"));
    }
    Ok(shown(&webhooks::rotate(&app, &caller, id_of(&path)?, (&key, &body), hours).await?))
}

/// `POST /v1/webhook_endpoints/{id}/test`
pub(super) async fn test(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
    IdempotencyKey(key): IdempotencyKey,
    OptionalBody(body): OptionalBody,
) -> Result<Response, Problem> {
    if !body.is_empty() {
        let Nothing {} = read_json(&body)?;
    }
    Ok(shown(&webhooks::test(&app, &caller, id_of(&path)?, (&key, &body)).await?))
}

/// `GET /v1/webhook_endpoints/{id}/deliveries`
pub(super) async fn deliveries(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
    query: Query,
) -> Result<Response, Problem> {
    let status = query.parsed("status", |word| {
        let all = [DeliveryState::Waiting, DeliveryState::Delivered, DeliveryState::Failed];
        all.into_iter().find(|state| state_word(*state) == word)
    })?;
    let after = query.parsed("starting_after", NoticeId::parse)?;
    let page = (after, query.limit(LIMIT_DEFAULT, LIMIT_MAX)?);
    let page = webhooks::deliveries(&app, &caller, id_of(&path)?, status, page).await?;
    let data: Vec<_> = page.rows.iter().map(DeliveryAnswer::of).collect();
    Ok(reply::json(StatusCode::OK, &List { data, has_more: page.more }))
}

/// `POST /v1/webhook_endpoints/{id}/replay`
pub(super) async fn replay(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
    IdempotencyKey(key): IdempotencyKey,
    body: Body<ReplayBody>,
) -> Result<Response, Problem> {
    let what = match (&body.value.event, &body.value.since) {
        (Some(event), None) if body.value.failed_only.is_none() => {
            let id = NoticeId::parse(event);
            Replay::One(id.ok_or_else(|| Problem::about(Code::InvalidValue, "event"))?)
        }
        (None, Some(since)) => {
            let since = Time::parse(since).ok_or_else(|| Problem::about(Code::InvalidValue, "since"))?;
            Replay::Since(since, body.value.failed_only.unwrap_or(false))
        }
        (None, None) => return Err(Problem::about(Code::MissingField, "event")),
        (Some(_), _) => return Err(Problem::about(Code::InvalidValue, "event")),
    };
    Ok(shown(&webhooks::replay(&app, &caller, id_of(&path)?, (&key, &body.bytes), what).await?))
}

/// `GET /v1/webhook_events/{id}`: the body that is posted, byte for byte.
pub(super) async fn event(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
) -> Result<Response, Problem> {
    let id = NoticeId::parse(path.text("id")).ok_or_else(|| Problem::of(Code::NotFound))?;
    let notice = webhooks::notice(&app, &caller, id).await?;
    Ok(reply::written(StatusCode::OK, notice.body.into_bytes()))
}

#[derive(Serialize)]
struct DeliveryAnswer<'a> {
    #[serde(serialize_with = "display")]
    event: NoticeId,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(serialize_with = "display")]
    created_at: Time,
    status: &'static str,
    attempts: u32,
    #[serde(serialize_with = "display_some")]
    next_attempt_at: Option<Time>,
    #[serde(serialize_with = "display_some")]
    last_attempt_at: Option<Time>,
    response_status: Option<u16>,
    error: Option<&'a str>,
    response_ms: Option<u64>,
}

impl<'a> DeliveryAnswer<'a> {
    fn of(row: &'a Delivery) -> Self {
        Self {
            event: row.notice,
            kind: &row.kind,
            created_at: row.created_at,
            status: state_word(row.state),
            attempts: row.attempts,
            next_attempt_at: (row.state == DeliveryState::Waiting).then_some(row.due),
            last_attempt_at: row.last_at,
            response_status: row.status,
            error: row.error.as_deref(),
            response_ms: row.micros.map(|micros| micros / 1_000),
        }
    }
}

const fn state_word(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Waiting => "waiting",
        DeliveryState::Delivered => "delivered",
        DeliveryState::Failed => "failed",
    }
}

fn shown(shown: &Shown) -> Response {
    let status = StatusCode::from_u16(shown.status).unwrap_or(StatusCode::OK);
    let response =
        if shown.body.is_null() { status.into_response() } else { reply::json(status, &shown.body) };
    if shown.replayed { reply::replayed(response) } else { response }
}

fn id_of(path: &PathIds) -> Result<EndpointId, Problem> {
    EndpointId::parse(path.text("id")).ok_or_else(|| Problem::of(Code::EndpointNotFound))
}

fn check_url(url: &str) -> Result<(), Problem> {
    if webhooks::place_of(url).is_none() {
        return Err(Problem::about(Code::InvalidValue, "url"));
    }
    if stray::in_free_text(url) {
        return Err(Problem::about(Code::StrayNumber, "url"));
    }
    Ok(())
}

/// Each takes one event at least: a misspelt one would say nothing for ever.
fn check_events(events: &[String]) -> Result<(), Problem> {
    let takes_some = |one: &String| KINDS.iter().any(|kind| fits(one, kind));
    let is_sound = (1..=EVENTS_MAX).contains(&events.len()) && events.iter().all(takes_some);
    if is_sound { Ok(()) } else { Err(Problem::about(Code::InvalidValue, "events")) }
}

fn check_description(text: Option<&str>) -> Result<(), Problem> {
    let Some(text) = text else { return Ok(()) };
    if text.len() > DESCRIPTION_BYTES_MAX {
        return Err(Problem::about(Code::InvalidValue, "description"));
    }
    if stray::in_free_text(text) { Err(Problem::about(Code::StrayNumber, "description")) } else { Ok(()) }
}
