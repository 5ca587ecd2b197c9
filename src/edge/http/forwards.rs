//! `/v1/forwards`: callers' own requests with a card in them.

use std::time::Instant;

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;

use super::extract::{IdempotencyKey, PathIds, RawBody};
use super::problem::Problem;
use super::reply;
use crate::edge::App;
use crate::edge::charge::Hold;
use crate::edge::charge::answer::millis;
use crate::edge::directory::Caller;
use crate::edge::forward::{self, Made, forward_json};
use crate::edge::store::{ForwardRow, ForwardStatus};

/// The status of the destination's answer.
const UPSTREAM_STATUS: HeaderName = HeaderName::from_static("vault-upstream-status");
/// What the destination took, as seen from here, in milliseconds.
const UPSTREAM_MS: HeaderName = HeaderName::from_static("vault-upstream-ms");
/// What the vault took besides, in milliseconds.
const OVERHEAD_MS: HeaderName = HeaderName::from_static("vault-overhead-ms");

/// `POST /v1/forwards`: sends a request with a card in it, or shows what would be sent.
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    hold: Hold,
    RawBody(body): RawBody,
) -> Result<Response, Problem> {
    let began = Instant::now();
    match forward::create(&app, &caller, (&key, &body), hold).await? {
        Made::Shown(json) => Ok(reply::written(StatusCode::OK, json)),
        Made::Forward { row, replayed } => {
            let mut response = write(&row);
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            if replayed {
                return Ok(reply::replayed(response));
            }
            put(&mut response, OVERHEAD_MS, ms(micros.saturating_sub(row.upstream_us.unwrap_or(0))));
            Ok(response)
        }
    }
}

/// `GET /v1/forwards/{id}`: shows a forward and its answer.
pub(super) async fn read(State(app): State<App>, caller: Caller, path: PathIds) -> Result<Response, Problem> {
    let row = forward::read(&app, &caller, path.text("id")).await?;
    Ok(reply::written(StatusCode::OK, forward_json(&row)))
}

/// 201 when final, 202 with Location until then.
fn write(row: &ForwardRow) -> Response {
    let is_final = row.status != ForwardStatus::Sending;
    let status = if is_final { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    let mut response = reply::written(status, forward_json(row));
    put(&mut response, LOCATION, format!("/v1/forwards/{}", row.id));
    if let Some(status) = row.upstream_status {
        put(&mut response, UPSTREAM_STATUS, status.to_string());
    }
    if let Some(micros) = row.upstream_us {
        put(&mut response, UPSTREAM_MS, ms(micros));
    }
    response
}

fn ms(micros: u64) -> String {
    format!("{:.3}", millis(micros))
}

fn put(response: &mut Response, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        response.headers_mut().insert(name, value);
    }
}
