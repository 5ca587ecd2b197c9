//! `/v1/charges`, `/v1/verifications`, `/v1/refunds`: charging a card over the API.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequestParts, State};
use axum::http::header::LOCATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;

use serde::Deserialize;

use super::code::Code;
use super::export::{self, Ask, Listed};
use super::extract::{IdempotencyKey, OptionalBody, PathIds, Query, RawBody, read_json};
use super::problem::Problem;
use super::reply;
use crate::card::id::ChargeId;
use crate::card::stray;
use crate::clock::Time;
use crate::edge::App;
use crate::edge::charge::answer;
use crate::edge::charge::{self, Answered, Follow, Hold};
use crate::edge::directory::Caller;
use crate::edge::store::ChargeFilter;
use crate::wire::resolution::{Fault, Resolution};

/// What a list may ask for.
pub(super) const LIST_QUERY: &[&str] = &[
    "invoice",
    "customer",
    "status",
    "destination",
    "processor_transaction_id",
    "created[gte]",
    "created[lt]",
    "format",
    "limit",
    "starting_after",
];
/// From so many digits on a run is looked at: the largest amounts have fewer.
const DIGITS_STRAY_MIN: usize = 15;

/// What the processor took, as seen from here, in milliseconds.
const UPSTREAM_MS: HeaderName = HeaderName::from_static("vault-upstream-ms");
/// What the processor says it took, in milliseconds.
const PROCESSOR_MS: HeaderName = HeaderName::from_static("vault-processor-ms");
const PREFER: HeaderName = HeaderName::from_static("prefer");

impl FromRequestParts<App> for Hold {
    type Rejection = Problem;

    /// `Prefer: respond-async` and `wait=N` (RFC 7240) shorten how long the caller is held; they never lengthen it.
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Ok(Self(hold_of(&parts.headers, app.limits.charge_seconds_max)))
    }
}

fn hold_of(headers: &HeaderMap, seconds_max: u64) -> Duration {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split([',', ';'])).map(str::trim);
    let (mut seconds, mut respond_async) = (None, false);
    for preference in preferences.by_ref() {
        if preference.eq_ignore_ascii_case("respond-async") {
            respond_async = true;
        } else if let Some((name, n)) = preference.split_once('=')
            && name.trim().eq_ignore_ascii_case("wait")
        {
            seconds = n.trim().parse::<u64>().ok();
        }
    }
    let asked = seconds.unwrap_or(if respond_async { 0 } else { seconds_max });
    Duration::from_secs(asked.min(seconds_max))
}

/// `POST /v1/charges`: charges a card.
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    hold: Hold,
    RawBody(body): RawBody,
) -> Result<Response, Problem> {
    Ok(write(charge::create(&app, &caller, (&key, &body), false, hold).await?))
}

/// `POST /v1/verifications`: verifies a card.
pub(super) async fn verify(
    State(app): State<App>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    hold: Hold,
    RawBody(body): RawBody,
) -> Result<Response, Problem> {
    Ok(write(charge::create(&app, &caller, (&key, &body), true, hold).await?))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaptureBody {
    amount: Option<i64>,
    #[serde(default, rename = "final")]
    last: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RefundBody {
    amount: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct VoidBody {}

/// `POST /v1/charges/{id}/captures`: captures an authorization, or part of it.
pub(super) async fn capture(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
    IdempotencyKey(key): IdempotencyKey,
    hold: Hold,
    OptionalBody(body): OptionalBody,
) -> Result<Response, Problem> {
    let read: CaptureBody = read_optional(&body)?;
    let what = Follow::Capture { amount: read.amount, last: read.last };
    Ok(write(charge::follow(&app, &caller, path.text("id"), (&key, &body), what, hold).await?))
}

/// `POST /v1/charges/{id}/refunds`: gives a charge back, or part of it.
pub(super) async fn refund(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
    IdempotencyKey(key): IdempotencyKey,
    hold: Hold,
    OptionalBody(body): OptionalBody,
) -> Result<Response, Problem> {
    let read: RefundBody = read_optional(&body)?;
    let what = Follow::Refund { amount: read.amount };
    Ok(write(charge::follow(&app, &caller, path.text("id"), (&key, &body), what, hold).await?))
}

/// `POST /v1/charges/{id}/void`: releases an authorization.
pub(super) async fn void(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
    IdempotencyKey(key): IdempotencyKey,
    hold: Hold,
    OptionalBody(body): OptionalBody,
) -> Result<Response, Problem> {
    let VoidBody {} = read_optional(&body)?;
    Ok(write(charge::follow(&app, &caller, path.text("id"), (&key, &body), Follow::Void, hold).await?))
}

/// `POST /v1/charges/{id}/resolve`: settles what could not be found out, by a person's word.
pub(super) async fn resolve(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
    IdempotencyKey(key): IdempotencyKey,
    RawBody(body): RawBody,
) -> Result<Response, Problem> {
    if app.directory.needs_two_persons() {
        return Err(Problem::of(Code::TwoPersonsRequired));
    }
    let said: Resolution = read_json(&body)?;
    let exempt = |id: &str| app.directory.is_exempt(caller.principal.tenant, "processor_transaction_id", id);
    said.check(exempt).map_err(|fault| match fault {
        Fault::Invalid(param) => Problem::about(Code::InvalidValue, param),
        Fault::Stray(param) => Problem::about(Code::StrayNumber, param),
    })?;
    Ok(write(charge::settle(&app, &caller, path.text("id"), (&key, &body), &said).await?))
}

/// `DELETE /v1/charges/{id}/retries`: ends the schedule of retries.
pub(super) async fn stop_retries(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
) -> Result<Response, Problem> {
    let row = charge::stop_retries(&app, &caller, path.text("id")).await?;
    Ok(reply::written(StatusCode::OK, answer::charge_json(&row)))
}

/// `GET /v1/charges/{id}`: shows a charge.
pub(super) async fn read(State(app): State<App>, caller: Caller, path: PathIds) -> Result<Response, Problem> {
    let row = charge::charge(&app, &caller, path.text("id")).await?;
    Ok(reply::written(StatusCode::OK, answer::charge_json(&row)))
}

/// `GET /v1/refunds/{id}`: shows a refund.
pub(super) async fn read_refund(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
) -> Result<Response, Problem> {
    let id = path.text("id");
    let row = charge::refund(&app, &caller, id).await?;
    let refund = row.operations.iter().find(|operation| operation.id == id);
    let refund = refund.ok_or_else(|| Problem::of(Code::ChargeNotFound))?;
    Ok(reply::written(StatusCode::OK, answer::operation_json(&row, refund)))
}

/// `GET /v1/charges`: lists charges, newest first; as JSON, NDJSON or CSV.
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let after = query.parsed("starting_after", ChargeId::parse)?;
    let ask = Ask { what: Listed::Charges, filter: filter_of(&query)?, after };
    export::list(app, caller, (&query, &headers), ask).await
}

/// `GET /v1/refunds`: lists refunds, newest charge first; as JSON, NDJSON or CSV.
pub(super) async fn list_refunds(
    State(app): State<App>,
    caller: Caller,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut after = query.parsed("starting_after", |id| ChargeId::parse(id).or(starts_refund(id)))?;
    if let Some(id) = query.get("starting_after").filter(|id| id.starts_with("rf_")) {
        after = Some(charge::refund(&app, &caller, id).await?.id);
    }
    let ask = Ask { what: Listed::Refunds, filter: filter_of(&query)?, after };
    export::list(app, caller, (&query, &headers), ask).await
}

/// A refund's id stands in for its charge's until that is looked up.
fn starts_refund(id: &str) -> Option<ChargeId> {
    crate::card::id::RefundId::parse(id).map(|refund| ChargeId(refund.0))
}

fn filter_of(query: &Query) -> Result<ChargeFilter, Problem> {
    let text = |name| query.get(name).map(str::to_owned);
    Ok(ChargeFilter {
        invoice: text("invoice"),
        customer: text("customer"),
        status: query.parsed("status", answer::status_from_word)?,
        destination: text("destination"),
        processor_transaction_id: text("processor_transaction_id"),
        created_from: query.parsed("created[gte]", Time::parse)?,
        created_before: query.parsed("created[lt]", Time::parse)?,
        refunded_with_card: None,
    })
}

fn read_optional<T: Default + serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    if body.is_empty() {
        return Ok(T::default());
    }
    if holds_a_number(body) {
        return Err(Problem::about(Code::StrayNumber, "body"));
    }
    read_json(body)
}

/// No amount has so many digits; a card number sent as one is refused unread, before it is an integer on some stack.
fn holds_a_number(body: &[u8]) -> bool {
    let runs = body.split(|byte| !byte.is_ascii_digit()).filter(|run| run.len() >= DIGITS_STRAY_MIN);
    runs.filter_map(|run| std::str::from_utf8(run).ok()).any(stray::in_free_text)
}

fn write(answered: Answered) -> Response {
    let status = StatusCode::from_u16(answered.status).unwrap_or(StatusCode::ACCEPTED);
    let mut response = reply::written(status, answered.body);
    let headers = response.headers_mut();
    if let Some(location) = answered.location.and_then(|path| HeaderValue::try_from(path).ok()) {
        headers.insert(LOCATION, location);
    }
    for (name, micros) in [(UPSTREAM_MS, answered.upstream_us), (PROCESSOR_MS, answered.processor_us)] {
        let value = micros.map(|micros| format!("{:.3}", answer::millis(micros)));
        if let Some(value) = value.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(name, value);
        }
    }
    if answered.replayed { reply::replayed(response) } else { response }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_shortens_the_hold_and_never_lengthens_it() {
        let hold = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(PREFER, text.parse().unwrap());
            hold_of(&headers, 90).as_secs()
        };
        assert_eq!(hold("respond-async"), 0);
        assert_eq!(hold("respond-async, wait=5"), 5);
        assert_eq!(hold("wait = 7"), 7);
        assert_eq!(hold("wait=1000"), 90);
        assert_eq!(hold("handling=strict"), 90);
        assert_eq!(hold_of(&HeaderMap::new(), 90).as_secs(), 90);
    }
}
