//! Whether the process answers and whether the vault can do its work; figures. All of it on the metrics listener too.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;

use super::reply;
use crate::edge::App;

#[derive(Serialize)]
struct Live {
    live: bool,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    parts: Parts,
}

/// Each part says `ok` or what is wrong with it.
#[derive(Serialize)]
struct Parts {
    store: &'static str,
    keeper: &'static str,
    log: &'static str,
    recovery: &'static str,
    /// Webhooks wait without it; nothing else does, so the vault is ready. `off`: the operator names no host that webhooks may go to.
    courier: &'static str,
}

/// `GET /livez`
pub async fn livez() -> Response {
    reply::json(StatusCode::OK, &Live { live: true })
}

/// `GET /readyz`
pub async fn readyz(State(app): State<App>) -> Response {
    let health = app.store.health();
    let lag_max_ms = app.store.event_lag_max_seconds().saturating_mul(1_000);
    let say = |ok: bool, wrong: &'static str| if ok { "ok" } else { wrong };
    let is_off = app.directory.webhooks().hosts.is_empty();
    let parts = Parts {
        store: say(health.writable, "not_writable"),
        keeper: say(app.keeper.is_connected(), "not_connected"),
        log: say(health.event_lag_ms < lag_max_ms, "lagging"),
        recovery: say(app.is_recovered(), "under_way"),
        courier: if is_off { "off" } else { say(app.courier.is_connected(), "not_connected") },
    };
    let ready = [parts.store, parts.keeper, parts.log, parts.recovery].iter().all(|part| *part == "ok");
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    reply::json(status, &Ready { ready, parts })
}

async fn metrics(State(app): State<App>) -> Response {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    reply::text(TYPE, app.metrics.write(&app))
}

/// The router of the metrics listener, which is on loopback only.
pub fn metrics_router(app: &App) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(app.clone())
}
