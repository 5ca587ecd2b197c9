//! `/v1/admin`: shows of principals, tenants and destinations; who belongs to a tenant sees that tenant's. Changes go over the
//! supervisor's local socket.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::reply;
use super::tokens::{List, display, display_some};
use crate::card::id::PrincipalId;
use crate::card::tenant::{Mode, TenantId};
use crate::clock::Time;
use crate::edge::App;
use crate::edge::directory::Caller;
use crate::edge::store::PrincipalKind;

#[derive(Serialize)]
struct PrincipalAnswer<'a> {
    #[serde(serialize_with = "display")]
    id: PrincipalId,
    name: &'a str,
    kind: PrincipalKind,
    tenant: Option<&'a str>,
    scopes: &'a [String],
    credentials: usize,
    charge_max: &'a BTreeMap<String, i64>,
    day_max: &'a BTreeMap<String, i64>,
    destinations: &'a [String],
    #[serde(serialize_with = "display")]
    created_at: Time,
    #[serde(serialize_with = "display_some")]
    expires_at: Option<Time>,
    disabled: bool,
}

#[derive(Serialize)]
struct TenantAnswer<'a> {
    #[serde(serialize_with = "display")]
    id: TenantId,
    name: &'a str,
    mode: Mode,
    disabled: bool,
    #[serde(serialize_with = "display")]
    created_at: Time,
}

#[derive(Serialize)]
struct DestinationAnswer<'a> {
    name: &'a str,
    connector: &'a str,
    connector_sha256: String,
    mode: Mode,
    idempotency: &'a str,
    can_look_up: bool,
    can_verify: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    Charged(DestinationAnswer<'a>),
    Forward { name: &'a str, kind: &'static str, mode: Mode },
}

/// `GET /v1/admin/principals`
pub(super) async fn principals(State(app): State<App>, caller: Caller) -> Response {
    let tenants = app.directory.tenants();
    let principals = app.directory.principals();
    let own = caller.principal.tenant;
    let data: Vec<_> = principals
        .iter()
        .filter(|principal| own.is_none() || principal.tenant == own)
        .map(|principal| PrincipalAnswer {
            id: principal.id,
            name: &principal.name,
            kind: principal.kind,
            tenant: principal.tenant.and_then(|id| tenants.get(&id)).map(|tenant| tenant.name.as_str()),
            scopes: &principal.row.scopes,
            credentials: principal.row.credentials.len(),
            charge_max: &principal.row.charge_max,
            day_max: &principal.row.day_max,
            destinations: &principal.row.destinations,
            created_at: principal.row.created_at,
            expires_at: principal.row.expires_at,
            disabled: principal.row.disabled,
        })
        .collect();
    reply::json(StatusCode::OK, &List { data, has_more: false })
}

/// `GET /v1/admin/tenants`
pub(super) async fn tenants(State(app): State<App>, caller: Caller) -> Response {
    let tenants = app.directory.tenants();
    let own = caller.principal.tenant;
    let mut sorted: Vec<_> =
        tenants.values().filter(|tenant| own.is_none_or(|own| tenant.id == own)).collect();
    sorted.sort_by_key(|tenant| tenant.id);
    let data: Vec<_> = sorted
        .into_iter()
        .map(|tenant| TenantAnswer {
            id: tenant.id,
            name: &tenant.name,
            mode: tenant.mode,
            disabled: tenant.disabled,
            created_at: tenant.created_at,
        })
        .collect();
    reply::json(StatusCode::OK, &List { data, has_more: false })
}

/// `GET /v1/admin/destinations`
pub(super) async fn destinations(State(app): State<App>, caller: Caller) -> Response {
    let destinations = app.directory.destinations();
    let own = caller.tenant.map(|(_, mode)| mode);
    let forwards = app.directory.forwards();
    let forwards = forwards
        .iter()
        .filter(|forward| own.is_none_or(|mode| forward.mode == mode))
        .map(|forward| Shown::Forward { name: &forward.name, kind: "forward", mode: forward.mode });
    let data: Vec<_> = destinations
        .iter()
        .filter(|destination| own.is_none_or(|mode| destination.mode == mode))
        .map(|destination| DestinationAnswer {
            name: &destination.name,
            connector: &destination.connector,
            connector_sha256: data_encoding::HEXLOWER.encode(&destination.connector_version),
            mode: destination.mode,
            idempotency: &destination.idempotency,
            can_look_up: destination.can_look_up,
            can_verify: destination.can_verify,
        })
        .map(Shown::Charged)
        .chain(forwards)
        .collect();
    reply::json(StatusCode::OK, &List { data, has_more: false })
}
