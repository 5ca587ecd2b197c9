//! The sandbox's own verbs, for tests and demonstrations: only from loopback, without a credential.
//!
//! - `POST /sandbox/clock {"advance_s": N}` moves the clock on and decides what was pending.
//! - `GET /sandbox/ledger` is the ledger, `GET /sandbox/numbers` the table of behaviours.
//! - `POST /sandbox/faults {"fault", "count", "charges"?, "operation"?, "repeats"?}`: the next so many new requests (of
//!   that operation: a kind of the ledger's, or `lookup`) meet the fault, whatever their card; with `repeats` those that
//!   come again under a key with a stored answer. A count of 0 ends it.

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::book::{Script, Target};
use super::numbers::{self, Fault};
use super::processor::{Arrived, Sandbox};
use super::reply::{Answer, Reply};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_s: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Faults {
    fault: Fault,
    count: u32,
    #[serde(default = "yes")]
    charges: bool,
    operation: Option<String>,
    #[serde(default)]
    repeats: bool,
}

fn yes() -> bool {
    true
}

/// One of the verbs.
pub(super) async fn answer(sandbox: &Sandbox, arrived: &Arrived) -> Response<Answer> {
    match (&arrived.parts.method, arrived.parts.uri.path()) {
        (&Method::POST, "/sandbox/clock") => clock(sandbox, &arrived.body).send(),
        (&Method::POST, "/sandbox/faults") => faults(sandbox, &arrived.body).send(),
        (&Method::GET, "/sandbox/numbers") => Reply::json(StatusCode::OK, &numbers::as_json()).send(),
        (&Method::GET, "/sandbox/ledger") => ledger(sandbox).await,
        (_, _) => Reply::json(StatusCode::NOT_FOUND, &json!({ "error": { "code": "not_found" } })).send(),
    }
}

fn clock(sandbox: &Sandbox, body: &[u8]) -> Reply {
    let Ok(Advance { advance_s }) = serde_json::from_slice(body) else {
        return invalid("advance_s must be seconds.");
    };
    sandbox.advance_clock(i64::from(advance_s));
    let now = sandbox.now();
    let settled = sandbox.book().settle_pending(now);
    let status = if settled.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Reply::json(status, &json!({ "now": now.to_string() }))
}

fn faults(sandbox: &Sandbox, body: &[u8]) -> Reply {
    let Ok(script) = serde_json::from_slice::<Faults>(body) else {
        return invalid("fault must be one of the table's, count a number.");
    };
    let Faults { fault, count, charges, operation, repeats } = script;
    let only = match operation.as_deref().map(target) {
        Some(None) => return invalid("operation must be one of the ledger's kinds, or lookup."),
        Some(Some(target)) => Some(target),
        None => None,
    };
    let script = Script { fault, charges, repeats, only, left: count };
    sandbox.book().set_script((count > 0).then_some(script));
    Reply::json(StatusCode::OK, &json!({ "count": count }))
}

fn target(word: &str) -> Option<Target> {
    if word == "lookup" {
        return Some(Target::LookUp);
    }
    serde_json::from_value(word.into()).ok().map(Target::Operation)
}

/// The file as it is durable now.
async fn ledger(sandbox: &Sandbox) -> Response<Answer> {
    let end = sandbox.book().end();
    let broken =
        || Reply::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": { "code": "ledger_broken" } }));
    if sandbox.until_durable(end).await.is_err() {
        return broken().send();
    }
    let Some(body) = sandbox.read_all(end) else { return broken().send() };
    let mut response = Reply { status: StatusCode::OK, body, replayed: false }.send();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

fn invalid(message: &str) -> Reply {
    Reply::json(
        StatusCode::BAD_REQUEST,
        &json!({ "error": { "code": "invalid_request", "message": message } }),
    )
}
