//! One exchange: a rendered request goes out at most once, and its outcome says truly whether bytes left.
//!
//! Invariant: `Sent::Not` is said only of a request of which the kernel took no byte, after its connection was dropped.
//! Invariant: a request is written again only if that is so (`no_request_is_sent_twice`).

use std::future::Future;
use std::time::Instant;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT_ENCODING, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Uri};
use tokio::time::timeout_at;

use super::answer;
use super::connection::{Connection, Got};
use super::dial::dial;
use super::fault::{Fault, failed};
use super::forward;
use super::routes::{Limits, Reads, Route, Target};
use super::steps;
use crate::wire::forwarder::{Exchange, Exchanged, Outcome, Sent};

/// Headers that are the forwarder's own.
const FRAMING: [&str; 8] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "te",
    "upgrade",
    "expect",
    "accept-encoding",
];

/// The credential was not taken.
const UNAUTHORIZED: u16 = 401;

/// What is known of an exchange that has ended.
pub(super) struct Ended {
    /// The answer.
    pub(super) got: Result<Got, Fault>,
    /// When the first byte was written, if one was.
    pub(super) first_write: Option<Instant>,
}

/// Carries out an exchange within its destination's time.
pub(super) async fn run(route: &Route, mut exchange: Exchange) -> Exchanged {
    let attempt = exchange.attempt;
    if let Reads::Mapped(connector) = &route.reads
        && !exchange.steps.is_empty()
        && let Err(outcome) = Box::pin(steps::carry_out(route, connector, &mut exchange)).await
    {
        return outcome.into();
    }
    let body = Bytes::from(std::mem::take(&mut exchange.body));
    let parts = (exchange.method.as_str(), exchange.path.as_str(), exchange.headers.as_slice());
    let Some(request) = build(&route.target, parts, body) else {
        return failed(attempt, Sent::Not, Fault::Request, 0).into();
    };
    let Ended { got, first_write } = send(&route.target, route.limits(), request, exchange.pooled).await;
    let upstream_us = first_write.map_or(0, |at| u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX));
    let got = match (got, first_write) {
        (Ok(got), _) => got,
        (Err(fault), Some(_)) => return failed(attempt, Sent::Maybe, fault, upstream_us).into(),
        (Err(fault), None) => return failed(attempt, Sent::Not, fault, 0).into(),
    };
    if got.status == UNAUTHORIZED {
        for step in &route.steps {
            step.forget().await;
        }
    }
    let mut new_card = None;
    let (answer, forwarded, fault) = match &route.reads {
        Reads::Mapped(connector) => {
            let said = answer::read(connector, &exchange, got);
            new_card = said.new_card;
            (Some(said.answer), None, said.fault)
        }
        Reads::Whole(rules) => {
            let (forwarded, fault) = forward::read(rules, std::mem::take(&mut exchange.scrub), got).await;
            (None, forwarded, fault)
        }
    };
    let outcome = Outcome {
        attempt,
        sent: Sent::Yes,
        answer,
        error: fault.map(|fault| fault.word().to_owned()),
        credentials_changed: false,
        card_update: None,
        upstream_us,
        forwarded,
    };
    Exchanged { outcome, new_card }
}

/// Over a waiting connection if there is one and it may be used, else over a fresh one. A waiting connection that turns out
/// to be dead before anything was written is replaced by a fresh one, once.
pub(super) async fn send(
    target: &Target,
    limits: Limits,
    request: Request<Full<Bytes>>,
    pooled: bool,
) -> Ended {
    let until = tokio::time::Instant::now() + limits.within;
    if let Some(connection) = pooled.then(|| target.pool.take()).flatten() {
        let ended = over(connection, (target, limits.body_bytes_max), request.clone(), until).await;
        let is_unsent = ended.first_write.is_none() && tokio::time::Instant::now() < until;
        if ended.got.is_ok() || !is_unsent {
            return ended;
        }
    }
    match dial(target, until).await {
        Ok(connection) => over(connection, (target, limits.body_bytes_max), request, until).await,
        Err(fault) => Ended { got: Err(fault), first_write: None },
    }
}

async fn over(
    mut connection: Connection,
    (target, body_bytes_max): (&Target, usize),
    request: Request<Full<Bytes>>,
    until: tokio::time::Instant,
) -> Ended {
    let meter = connection.meter();
    let got = in_time(until, connection.exchange(request, body_bytes_max)).await;
    match got {
        Ok(_) => target.pool.give_back(connection),
        // Before the meter is read: what hyper or TLS still hold must never be written.
        Err(_) => drop(connection),
    }
    Ended { got, first_write: meter.first_write() }
}

async fn in_time<T>(
    until: tokio::time::Instant,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    timeout_at(until, work).await.unwrap_or(Err(Fault::Timeout))
}

/// The request in HTTP's own types, which take no line break where none belongs; `None` if it cannot be written.
pub(super) fn build(
    target: &Target,
    (method, path, own): (&str, &str, &[(String, String)]),
    body: Bytes,
) -> Option<Request<Full<Bytes>>> {
    if !path.starts_with('/') {
        return None;
    }
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
    let path = format!("{}{path}", target.prefix);
    *request.uri_mut() = Uri::from(PathAndQuery::try_from(path).ok()?);
    let headers = request.headers_mut();
    headers.insert(HOST, target.host_header.clone());
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(USER_AGENT, HeaderValue::from_static("cardvault"));
    for (name, value) in own {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let mut value = HeaderValue::from_str(value).ok()?;
        if FRAMING.contains(&name.as_str()) {
            return None;
        }
        // It may be a credential: nothing that prints headers may print it.
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Some(request)
}
