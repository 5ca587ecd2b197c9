//! What stands before and after every handler: request id, credential, scope, rate, the stray-number guard on what is not the body;
//! then the problem's body, the headers of every answer, the figures and the log line.

use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;

use super::code::Code;
use super::extract::{Query, looks_like_a_card};
use super::problem::{self, Problem};
use super::routes::Route;
use crate::card::id::{EventId, RequestId};
use crate::card::stray;
use crate::edge::App;
use crate::edge::audit::catalogue;
use crate::edge::audit::event::{Actor, EventDraft, EventOutcome, Facts, Origin, Target};
use crate::edge::directory::{Caller, Denied, Principal};

/// The header of request ids.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const REQUEST_ID_BYTES: std::ops::RangeInclusive<usize> = 8..=64;
/// Longer than any credential of ours: what is longer is not worth hashing.
const CREDENTIAL_BYTES_MAX: usize = 256;

/// The peer of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// A route and the application it belongs to: the state of the guard.
#[derive(Clone)]
pub(super) struct Guarded {
    pub(super) app: App,
    pub(super) route: &'static Route,
}

/// The request's id: ours, and how it is written in answers and logs.
struct RequestName {
    id: RequestId,
    text: HeaderValue,
}

/// Runs a handler behind the guard.
pub(super) async fn guard(State(of): State<Guarded>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let Ok((name, stray_id)) = name_of(request.headers(), &of.app) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let (response, caller) = match admit(&of, &mut request, &name, stray_id) {
        Ok(caller) => (run(&of.app, next, request).await, caller),
        Err((problem, caller)) => (problem.into_response(), caller),
    };
    finish(&of.app, of.route, &name, caller.as_deref(), response, began)
}

/// Runs a handler; a panic in it ends this request and nothing else. What it held is wiped when it is freed.
async fn run(app: &App, next: Next, request: Request) -> Response {
    let mut handler = std::pin::pin!(next.run(request));
    let caught = poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(context)));
        polled.map_or_else(|_| Poll::Ready(None), |polled| polled.map(Some))
    });
    match caught.await {
        Some(response) => response,
        None => {
            app.metrics.panicked();
            Problem::of(Code::Internal).into_response()
        }
    }
}

/// Answers where no route is: the path itself is never logged or quoted.
pub(super) async fn no_route(of: Guarded, request: Request, code: Code) -> Response {
    let began = Instant::now();
    let Ok((name, stray_id)) = name_of(request.headers(), &of.app) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let problem = match guard_line(&request, stray_id) {
        Ok(()) => Problem::of(code),
        Err(problem) => problem,
    };
    finish(&of.app, of.route, &name, None, problem.into_response(), began)
}

type Refused = (Problem, Option<Arc<Principal>>);

/// All that is checked before the handler; puts caller and query into the extensions.
fn admit(
    of: &Guarded,
    request: &mut Request,
    name: &RequestName,
    stray_id: bool,
) -> Result<Option<Arc<Principal>>, Refused> {
    let ip = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    let principal = match of.route.scope {
        None => None,
        Some(scope) => {
            let now = of.app.clock.now();
            let denied = |denied: Denied, principal: Option<Arc<Principal>>| {
                log_denied(&of.app, of.route, name.id, ip, denied, principal.as_deref());
                (Problem::from(denied), principal)
            };
            let credential = bearer(request.headers()).ok_or_else(|| denied(Denied::Credential, None))?;
            let principal =
                of.app.directory.authenticate(credential, now).map_err(|why| denied(why, None))?;
            let scope = of.route.or.filter(|_| !principal.may_use(scope)).unwrap_or(scope);
            let tenant = of.app.directory.authorize(&principal, scope);
            let tenant = tenant.map_err(|why| denied(why, Some(principal.clone())))?;
            if let Err(wait) = principal.count_request() {
                let problem = Problem::of(Code::RateLimited).retry_after(wait.as_secs() + 1);
                return Err((problem, Some(principal)));
            }
            let caller = Caller { principal: principal.clone(), request: name.id, ip, tenant };
            request.extensions_mut().insert(caller);
            Some(principal)
        }
    };
    let tenant = principal.as_ref().and_then(|principal| principal.tenant);
    let exempt = |field: &str, text: &str| of.app.directory.is_exempt(tenant, field, text);
    let query = guard_line(request, stray_id)
        .and_then(|()| Query::read(request.uri().query().unwrap_or_default(), of.route.query, exempt));
    match query {
        Ok(query) => {
            if !of.route.query.is_empty() {
                request.extensions_mut().insert(query);
            }
            Ok(principal)
        }
        Err(problem) => Err((problem, principal)),
    }
}

/// The stray-number guard on request id and path.
fn guard_line(request: &Request, stray_id: bool) -> Result<(), Problem> {
    if stray_id {
        return Err(Problem::about(Code::StrayNumber, "Request-Id"));
    }
    let path = request.uri().path();
    // Few paths have that many digits in a row of digits, blanks and dashes; only those are decoded.
    let stray = path.split('/').filter(|segment| segment.len() >= 12).any(|segment| {
        let decoded = percent_decode_str(segment).decode_utf8_lossy();
        looks_like_a_card(&decoded)
    });
    if stray { Err(Problem::about(Code::StrayNumber, "path")) } else { Ok(()) }
}

/// The credential of an `Authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    let (scheme, credential) = value.split_at_checked(7)?;
    let fits = scheme.eq_ignore_ascii_case(b"bearer ")
        && credential.len() <= CREDENTIAL_BYTES_MAX
        && values.next().is_none();
    fits.then_some(credential)
}

/// The caller's own id if it is well-formed, else a new one; and whether the caller's looks like a card number.
fn name_of(headers: &HeaderMap, app: &App) -> Result<(RequestName, bool), crate::random::NoRandomness> {
    let sent = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let stray_id = sent.is_some_and(stray::in_free_text);
    let well_formed = sent.filter(|text| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        !stray_id && REQUEST_ID_BYTES.contains(&text.len()) && text.bytes().all(plain)
    });
    if let Some(id) = well_formed.and_then(RequestId::parse) {
        let text = HeaderValue::try_from(id.to_string()).map_err(|_| crate::random::NoRandomness)?;
        return Ok((RequestName { id, text }, false));
    }
    let id = RequestId::make(app.clock.now())?;
    let text = match well_formed {
        Some(text) => HeaderValue::from_str(text),
        None => HeaderValue::try_from(id.to_string()),
    };
    Ok((RequestName { id, text: text.map_err(|_| crate::random::NoRandomness)? }, stray_id))
}

/// A refusal of who or what may is an event.
fn log_denied(
    app: &App,
    route: &Route,
    request: RequestId,
    ip: Option<IpAddr>,
    denied: Denied,
    principal: Option<&Principal>,
) {
    let origin = Origin { ip: ip.map(|ip| ip.to_string()), request: Some(request) };
    log_refused(app, route, catalogue::AUTH_DENIED, origin, denied.code(), principal);
}

/// Card numbers where none belong, and more fingerprints or zips than there may be, are events as well.
fn log_suspect(app: &App, route: &Route, request: RequestId, principal: Option<&Principal>, code: Code) {
    let action = if code == Code::StrayNumber {
        catalogue::PAN_UNEXPECTED
    } else if code == Code::FingerprintBudget {
        catalogue::FINGERPRINT_LIMIT
    } else if code == Code::ZipBudget {
        catalogue::ZIP_LIMIT
    } else {
        return;
    };
    let origin = Origin { ip: None, request: Some(request) };
    log_refused(app, route, action, origin, code.spec().name, principal);
}

/// Appends the event of a refusal. A flood of them is counted, not written one by one.
fn log_refused(
    app: &App,
    route: &Route,
    action: &'static str,
    origin: Origin,
    code: &str,
    principal: Option<&Principal>,
) {
    if app.denials.check().is_err() {
        app.denials_unlogged.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let Ok(id) = EventId::make(app.clock.now()) else { return };
    let unlogged = app.denials_unlogged.swap(0, Ordering::Relaxed);
    let event = EventDraft {
        id,
        tenant: principal.and_then(|p| p.tenant),
        actor: principal.map_or_else(|| Actor::Unknown("bearer".to_owned()), Principal::actor),
        origin,
        action,
        outcome: EventOutcome::Denied(code.to_owned()),
        target: Target { kind: "route".to_owned(), id: route.operation.to_owned(), version: None },
        keys: Vec::new(),
        facts: Facts { count: (unlogged > 0).then_some(unlogged), ..Facts::default() },
    };
    if app.store.append_events(vec![event]).is_err() {
        tracing::warn!(code = "log_lagging", "a refusal could not be logged");
    }
}

/// The end of every request: the problem's body, common headers, figures, the log line.
fn finish(
    app: &App,
    route: &'static Route,
    name: &RequestName,
    principal: Option<&Principal>,
    response: Response,
    began: Instant,
) -> Response {
    let text = name.text.to_str().unwrap_or_default();
    let (mut response, code) = problem::written(response, text);
    if let Some(code) = code {
        log_suspect(app, route, name.id, principal, code);
    }
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REQUEST_ID, name.text.clone());
    let status = response.status().as_u16();
    let took = began.elapsed();
    app.metrics.request(route, status, took);
    if status >= 400 || tracing::enabled!(tracing::Level::DEBUG) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let code = code.map_or("", |code| code.spec().name);
        let principal = principal.map(|p| tracing::field::display(p.id));
        match status {
            500.. => {
                tracing::warn!(
                    request = text,
                    route = route.operation,
                    status,
                    code,
                    principal,
                    ms,
                    "answered"
                );
            }
            400..500 => {
                tracing::info!(
                    request = text,
                    route = route.operation,
                    status,
                    code,
                    principal,
                    ms,
                    "answered"
                );
            }
            _ => {
                tracing::debug!(
                    request = text,
                    route = route.operation,
                    status,
                    code,
                    principal,
                    ms,
                    "answered"
                );
            }
        }
    }
    response
}
