//! The sandbox's own verbs, for tests and demonstrations: only from loopback, without a credential.
//!
//! - `POST /sandbox/clock {"advance_s": N}` moves the clock on and decides what was pending.
//! - `GET /sandbox/ledger` is the ledger, `GET /sandbox/numbers` the table of behaviours.
//! - `GET /sandbox/ledger/references?wire=&reference=` is what became of each reference, one JSON object a line.
//! - `POST /sandbox/faults` takes one script or a list of them, and replaces those before: `{"fault", "count",
//!   "charges"?, "operation"?, "repeats"?, "at"?, "retry_after"?, "skip"?, "wire"?, "lasting"?}`. After `skip` of them the next `count`
//!   new requests (of that operation: a kind of the ledger's, `lookup` or `webhook`) meet the fault, whatever their
//!   card, `at` so many bytes of the answer; `retry_after` is `{"seconds", "date"?}`, for `rate_limited` and
//!   `unavailable`; with `repeats` those that come again under a key with a stored answer;
//!   `lasting` stores the fault with the key. A count of 0 ends it. `{"fault": "refuse", "for_ms": N}` closes the
//!   listener for a while. `{"seed", "per_mille", "faults"?}` has faults by chance, with `per_mille` 0 none. Connections
//!   are refused by chance before it is known what they are for: these verbs have to be asked for again then. `GET`
//!   counts what was met.
//! - `POST /sandbox/rules {"wire"?, "idempotency"?, "key_ttl_s"?, "duplicate_window_s"?, "search_lag_s"?, "settle_s"?}`
//!   changes the rules of a wire form or of all; `GET` shows them.
//! - `GET /sandbox/webhooks` shows the newest of what Adyen's webhooks told, or would have.

use std::time::Duration;

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::faults::{Chance, RetryAfter, Script, Target};
use super::ledger::Wire;
use super::numbers::{self, Fault};
use super::processor::{Arrived, Sandbox};
use super::read_back;
use super::reply::{Answer, Reply};
use super::rules::Rules;

/// A listener is closed no longer than this.
const REFUSES_MS_MAX: u64 = 600_000;

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
    at: Option<u32>,
    retry_after: Option<RetryAfter>,
    #[serde(default)]
    skip: u32,
    wire: Option<Wire>,
    #[serde(default)]
    lasting: bool,
}

fn yes() -> bool {
    true
}

/// Closes the listener.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusing {
    fault: Fault,
    for_ms: u64,
}

#[derive(Deserialize)]
struct Changed {
    wire: Option<Wire>,
    #[serde(flatten)]
    rules: serde_json::Map<String, Value>,
}

/// One of the verbs.
pub(super) async fn answer(sandbox: &Sandbox, arrived: &Arrived) -> Response<Answer> {
    match (&arrived.parts.method, arrived.parts.uri.path()) {
        (&Method::POST, "/sandbox/clock") => clock(sandbox, &arrived.body).send(),
        (&Method::POST, "/sandbox/faults") => faults(sandbox, &arrived.body).send(),
        (&Method::GET, "/sandbox/faults") => {
            Reply::json(StatusCode::OK, &sandbox.book().faults().as_json()).send()
        }
        (&Method::POST, "/sandbox/rules") => change_rules(sandbox, &arrived.body).send(),
        (&Method::GET, "/sandbox/rules") => rules(sandbox).send(),
        (&Method::GET, "/sandbox/numbers") => Reply::json(StatusCode::OK, &numbers::as_json()).send(),
        (&Method::GET, "/sandbox/ledger") => ledger(sandbox).await,
        (&Method::GET, "/sandbox/ledger/references") => references(sandbox, arrived).await,
        (&Method::GET, "/sandbox/webhooks") => Reply::json(StatusCode::OK, &sandbox.told()).send(),
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
    if let Ok(Refusing { fault, for_ms }) = serde_json::from_slice(body) {
        if fault != Fault::Refuse || for_ms > REFUSES_MS_MAX {
            return invalid("for_ms goes with the fault refuse, and is at most 600000.");
        }
        sandbox.refuse_for(Duration::from_millis(for_ms));
        return Reply::json(StatusCode::OK, &json!({ "for_ms": for_ms }));
    }
    if let Ok(chance) = serde_json::from_slice::<Chance>(body) {
        if chance.per_mille > 1000 || chance.faults.is_empty() {
            return invalid("per_mille must be 0 to 1000, and faults must not be empty.");
        }
        let per_mille = chance.per_mille;
        sandbox.book().faults().set(Vec::new(), (per_mille > 0).then_some(chance));
        return Reply::json(StatusCode::OK, &json!({ "per_mille": per_mille }));
    }
    let one = serde_json::from_slice::<Faults>(body).map(|one| vec![one]);
    let Ok(all) = one.or_else(|_| serde_json::from_slice::<Vec<Faults>>(body)) else {
        return invalid("fault must be one of the table's, count a number.");
    };
    let scripts: Result<Vec<Script>, &'static str> = all.into_iter().map(script).collect();
    let scripts = match scripts {
        Ok(scripts) => scripts,
        Err(wrong) => return invalid(wrong),
    };
    let count: u32 = scripts.iter().map(|script| script.left).sum();
    sandbox.book().faults().set(scripts, None);
    Reply::json(StatusCode::OK, &json!({ "count": count }))
}

fn script(asked: Faults) -> Result<Script, &'static str> {
    let Faults { fault, count, charges, operation, repeats, at, retry_after, skip, wire, lasting } = asked;
    let only = match operation.as_deref().map(target) {
        Some(None) => return Err("operation must be one of the ledger's kinds, lookup or webhook."),
        Some(Some(target)) => Some(target),
        None => None,
    };
    let is_early = matches!(fault, Fault::Refuse | Fault::ResetBefore);
    if is_early && (only.is_some() || repeats) {
        return Err("This fault comes before the request is read: it cannot tell operations apart.");
    }
    if fault == Fault::Refuse && wire.is_some() {
        return Err("This fault comes before anything is read: it cannot tell wire forms apart.");
    }
    if only == Some(Target::Webhook) && !matches!(fault, Fault::Duplicate | Fault::Delay) {
        return Err("A webhook can come twice (duplicate) or two seconds late (delay).");
    }
    let has_place =
        matches!(fault, Fault::Reset | Fault::Stall | Fault::Truncate | Fault::Garbage | Fault::Duplicate);
    if at.is_some() && !has_place {
        return Err("at goes with reset, stall, truncate and garbage.");
    }
    if retry_after.is_some() && !matches!(fault, Fault::RateLimited | Fault::Unavailable) {
        return Err("retry_after goes with rate_limited and unavailable.");
    }
    Ok(Script { fault, at, retry_after, charges, lasting, repeats, only, wire, skip, left: count })
}

fn target(word: &str) -> Option<Target> {
    match word {
        "lookup" => Some(Target::LookUp),
        "webhook" => Some(Target::Webhook),
        kind => serde_json::from_value(kind.into()).ok().map(Target::Operation),
    }
}

fn change_rules(sandbox: &Sandbox, body: &[u8]) -> Reply {
    let changed = serde_json::from_slice::<Changed>(body)
        .and_then(|changed| Ok((changed.wire, serde_json::from_value::<Rules>(changed.rules.into())?)));
    let Ok((wire, said)) = changed else {
        return invalid(
            "wire must be json, stripe, adyen, authorize_net or worldpay, idempotency replay, success_only, natural_key \
             or none, and what ends in _s seconds.",
        );
    };
    sandbox.book().rules().change(wire, said);
    rules(sandbox)
}

fn rules(sandbox: &Sandbox) -> Reply {
    let book = sandbox.book();
    let rules: Vec<Value> =
        Wire::ALL.iter().map(|wire| json!({ "wire": wire, "rules": book.in_force(*wire) })).collect();
    Reply::json(StatusCode::OK, &json!({ "data": rules }))
}

/// The file as it is durable now.
async fn ledger(sandbox: &Sandbox) -> Response<Answer> {
    match read(sandbox).await {
        Some(body) => lines(body),
        None => broken().send(),
    }
}

async fn references(sandbox: &Sandbox, arrived: &Arrived) -> Response<Answer> {
    let wire = match arrived.query("wire").map(|word| serde_json::from_value::<Wire>(word.into())) {
        None => None,
        Some(Ok(wire)) => Some(wire),
        Some(Err(_)) => {
            return invalid("wire must be json, stripe, adyen, authorize_net or worldpay.").send();
        }
    };
    let Some(ledger) = read(sandbox).await else { return broken().send() };
    let mut body = Vec::new();
    for standing in read_back::standings(&ledger, wire, arrived.query("reference").as_deref()) {
        body.extend(serde_json::to_vec(&standing).unwrap_or_default());
        body.push(b'\n');
    }
    lines(body)
}

async fn read(sandbox: &Sandbox) -> Option<Vec<u8>> {
    let end = sandbox.book().end();
    sandbox.until_durable(end).await.ok()?;
    sandbox.read_all(end)
}

fn lines(body: Vec<u8>) -> Response<Answer> {
    let mut reply = Reply::json(StatusCode::OK, &Value::Null);
    reply.body = body;
    let mut response = reply.send();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

fn broken() -> Reply {
    Reply::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": { "code": "ledger_broken" } }))
}

fn invalid(message: &str) -> Reply {
    Reply::json(
        StatusCode::BAD_REQUEST,
        &json!({ "error": { "code": "invalid_request", "message": message } }),
    )
}
