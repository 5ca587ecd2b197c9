//! A forward as the API writes it.

use serde::Serialize;
use serde_json::value::RawValue;

use super::send::status_word;
use crate::clock::Time;
use crate::edge::charge::answer::millis;
use crate::edge::store::{ForwardRow, ForwardStatus, Outbound};

#[derive(Serialize)]
struct Forward<'a> {
    id: String,
    token: String,
    destination: &'a str,
    method: &'a str,
    path: &'a str,
    status: &'static str,
    outbound: Outbound,
    error: Option<&'a str>,
    created_at: String,
    finished_at: Option<String>,
    upstream: Option<Upstream<'a>>,
}

#[derive(Serialize)]
struct Upstream<'a> {
    status: Option<u16>,
    ms: Option<f64>,
    headers: serde_json::Map<String, serde_json::Value>,
    body: Body<'a>,
    /// The answer went with its card.
    erased: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Json(Box<RawValue>),
    Text(&'a str),
    None,
}

/// The JSON of a forward.
pub fn forward_json(row: &ForwardRow) -> Vec<u8> {
    let answer = row.answer.as_ref();
    let body = match answer {
        None => Body::None,
        Some(answer) if answer.is_json => {
            RawValue::from_string(answer.body.clone()).map_or(Body::Text(&answer.body), Body::Json)
        }
        Some(answer) => Body::Text(&answer.body),
    };
    let headers = answer.map_or(&[][..], |answer| &answer.headers).iter();
    let upstream = (row.upstream_status.is_some() || row.upstream_us.is_some()).then(|| Upstream {
        status: row.upstream_status,
        ms: row.upstream_us.map(millis),
        headers: headers.map(|(name, value)| (name.clone(), value.clone().into())).collect(),
        body,
        erased: row.status == ForwardStatus::Answered && answer.is_none(),
    });
    let forward = Forward {
        id: row.id.to_string(),
        token: row.token.to_string(),
        destination: &row.destination,
        method: &row.method,
        path: &row.path,
        status: status_word(row.status),
        outbound: row.outbound,
        error: row.error.as_deref(),
        created_at: row.created_at.to_string(),
        finished_at: row.finished_at.as_ref().map(Time::to_string),
        upstream,
    };
    serde_json::to_vec(&forward).unwrap_or_default()
}
