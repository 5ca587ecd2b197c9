//! What is refused, with which code, and that nothing of it is quoted or changed.

use std::collections::BTreeMap;

use axum::http::Method;
use serde_json::Value;

use super::{Got, Vault, card, credential};
use crate::card::stray::Exemptions;
use crate::card::tenant::TenantId;
use crate::edge::admin;
use crate::edge::http::routes::ROUTES;
use crate::edge::scope::Scope;
use crate::edge::store::PrincipalKind;
use crate::wire::control::{Limits, TenantInfo};

const VISA: &str = "4242424242424242";

#[tokio::test]
async fn who_is_unknown_or_lacks_the_scope_gets_no_further() {
    let vault = Vault::start().await;
    let nobody = vault.get("nobody", "/v1/tokens/tok_x").await;
    assert_eq!(nobody.code(), (401, "unauthenticated"));
    assert_eq!(nobody.head["www-authenticate"], "Bearer");
    let reader = vault.create("reader", "k1", &card(VISA, "")).await;
    assert_eq!(reader.code(), (403, "scope_missing"));
    let admin = vault.create("admin", "k1", &card(VISA, "")).await;
    assert_eq!(admin.code(), (403, "tenant_required"));
    assert_eq!(vault.get("billing", "/v1/admin/principals").await.code(), (403, "scope_missing"));
    let shown = vault.get("admin", "/v1/admin/principals").await;
    assert_eq!(shown.body["data"].as_array().unwrap().len(), 5);
    assert!(!shown.text.contains(&credential("admin")));
    let flushed = vault.app.store.commit(crate::edge::store::Change::default());
    drop(flushed.await);
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let denied = vault.actions().await.iter().filter(|action| *action == "auth.denied").count();
    assert_eq!(denied, 4);
}

#[tokio::test]
async fn a_credential_ends_with_its_time_its_principal_and_its_tenant() {
    let vault = Vault::start().await;
    let now = crate::clock::Clock::now(&vault.clock);
    let change = |edit: fn(&mut crate::edge::store::PrincipalRow, crate::clock::Time)| {
        let rows = vault.app.directory.principals();
        let rows = rows.iter().map(|p| {
            let mut row = p.row.clone();
            edit(&mut row, now);
            row
        });
        vault.app.directory.set_principals(rows.collect());
    };
    change(|row, now| row.expires_at = Some(now.plus_seconds(60)));
    assert_eq!(vault.get("billing", "/v1/tokens/x").await.status, 404);
    vault.clock.advance_seconds(61);
    assert_eq!(vault.get("billing", "/v1/tokens/x").await.status, 401);
    change(|row, _| row.expires_at = None);
    assert_eq!(vault.get("billing", "/v1/tokens/x").await.status, 404);
    change(|row, _| row.disabled = true);
    assert_eq!(vault.get("billing", "/v1/tokens/x").await.status, 401);
    change(|row, _| row.disabled = false);
    vault.app.directory.set_tenants(Vec::new());
    assert_eq!(vault.get("billing", "/v1/tokens/x").await.code(), (403, "tenant_disabled"));
}

#[tokio::test]
async fn another_tenant_s_token_looks_like_an_unknown_one() {
    let vault = Vault::start().await;
    let path = format!("/v1/tokens/{}", vault.create("billing", "k1", &card(VISA, "")).await.id());
    let unknown = "/v1/tokens/tok_00000000v00000000v00000000v00000";
    for method in [Method::GET, Method::DELETE] {
        let [other, none, garbled] = [path.as_str(), unknown, "/v1/tokens/whatever"]
            .map(|path| vault.ask("other", method.clone(), path).header("request-id", "same-request-1"));
        let (other, none, garbled) = (other.send().await, none.send().await, garbled.send().await);
        assert_eq!(other.code(), (404, "token_not_found"));
        assert_eq!(other.text, none.text);
        assert_eq!(other.text, garbled.text);
    }
    let patch = vault.ask("other", Method::PATCH, &path).json("{}").send().await;
    assert_eq!(patch.code(), (404, "token_not_found"));
    assert_eq!(vault.get("billing", &path).await.status, 200);
}

#[tokio::test]
async fn numbers_in_stray_places_are_refused_by_name_and_never_quoted() {
    let vault = Vault::start().await;
    let named = |got: &Got, param: &str| {
        assert_eq!(got.code(), (422, "stray_number"), "{}", got.text);
        assert_eq!(got.body["param"], param);
        assert!(!got.text.contains("4242424"));
        assert!(!format!("{:?}", got.head).contains("4242424"));
    };
    let spaced = "4242%204242%204242%204242";
    named(&vault.get("billing", &format!("/v1/tokens/{VISA}")).await, "path");
    named(&vault.get("billing", &format!("/v1/tokens/{spaced}")).await, "path");
    named(&vault.get("billing", &format!("/nowhere/{VISA}")).await, "path");
    named(&vault.get("billing", &format!("/v1/tokens?customer={VISA}")).await, "customer");
    named(&vault.get("billing", &format!("/v1/tokens?customer={spaced}")).await, "customer");
    named(&vault.create("billing", VISA, &card(VISA, "")).await, "Idempotency-Key");
    let id = vault.ask("billing", Method::GET, "/v1/tokens/x").header("request-id", VISA).send().await;
    named(&id, "Request-Id");
    let name = vault.get("billing", &format!("/v1/tokens?{VISA}=1")).await;
    assert_eq!(name.code(), (400, "unknown_parameter"));
    assert!(!name.text.contains("4242424"));
    let consent = format!(
        r#"{{"type":"recurring","consent":{{"by":"card {VISA} of jane","at":"2026-11-22T10:00:00Z"}}}}"#
    );
    let path = format!("/v1/tokens/{}/agreements", vault.create("billing", "k1", &card(VISA, "")).await.id());
    named(&vault.ask("billing", Method::POST, &path).key("a1").json(&consent).send().await, "consent.by");
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let told = vault.actions().await.iter().filter(|action| *action == "pan.unexpected").count();
    assert_eq!(told, 8);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_has_its_code() {
    let vault = Vault::start().await;
    let post = || vault.ask("billing", Method::POST, "/v1/tokens");
    let body = card(VISA, "");
    assert_eq!(post().json(&body).send().await.code(), (400, "idempotency_key_missing"));
    assert_eq!(post().key("a b").json(&body).send().await.code(), (400, "idempotency_key_invalid"));
    assert_eq!(post().key("k").send().await.code(), (415, "unsupported_content_type"));
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(5_000));
    assert_eq!(post().key("k").json(&large).send().await.code(), (413, "body_too_large"));
    assert_eq!(post().key("k").json("{\"card\":").send().await.code(), (400, "malformed_json"));
    assert_eq!(vault.get("billing", "/v1/nothing").await.code(), (404, "route_unknown"));
    let put = vault.ask("billing", Method::PUT, "/v1/tokens").send().await;
    assert_eq!(put.code(), (405, "method_not_allowed"));
    let allow = put.head["allow"].to_str().unwrap();
    assert!(allow.contains("POST") && allow.contains("GET"), "{allow}");
    assert_eq!(vault.get("billing", "/v1/tokens").await.code(), (422, "missing_field"));
    assert_eq!(
        vault.get("billing", "/v1/tokens?customer=c&limit=0").await.code(),
        (400, "invalid_parameter")
    );
    assert!(vault.actions().await.iter().all(|action| action != "card.create"));
}

#[tokio::test]
async fn who_belongs_to_a_tenant_is_shown_that_tenant_only() {
    let vault = Vault::start().await;
    vault.add("local", PrincipalKind::Person, Some(1), &["admin:read"]).await;
    let names = async |who: &str, what: &str| {
        let shown = vault.get(who, &format!("/v1/admin/{what}")).await;
        let data = shown.body["data"].as_array().unwrap();
        let mut names: Vec<_> = data.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names("admin", "tenants").await, ["acme", "globex"]);
    assert_eq!(
        names("admin", "principals").await,
        ["admin", "billing", "local", "other", "person", "reader"]
    );
    assert_eq!(names("local", "tenants").await, ["acme"]);
    assert_eq!(names("local", "principals").await, ["billing", "local", "person", "reader"]);
}

/// A command that broke off after the key store had it is told by the next start, once.
#[tokio::test]
async fn a_tenant_of_the_key_store_gets_into_the_log() {
    let vault = Vault::start().await;
    let mut tenants: Vec<_> = vault.app.directory.tenants().values().cloned().collect();
    tenants.sort_by_key(|tenant| tenant.id);
    tenants[1].disabled = true;
    tenants.push(TenantInfo {
        id: TenantId(3),
        name: "initech".to_owned(),
        disabled: false,
        ..tenants[0].clone()
    });
    let told = async || {
        admin::settle_tenants(&vault.app, &tenants).await.unwrap();
        let actions = vault.actions().await;
        actions.into_iter().filter(|action| action.starts_with("tenant.")).collect::<Vec<_>>()
    };
    assert_eq!(told().await, ["tenant.disable", "tenant.create"]);
    assert_eq!(told().await, ["tenant.disable", "tenant.create"]);
    let rows = vault.app.store.tenants().await.unwrap();
    let mut rows: Vec<_> = rows.iter().map(|row| (row.id.0, row.name.as_str(), row.disabled)).collect();
    rows.sort_unstable();
    assert_eq!(rows, [(1, "acme", false), (2, "globex", true), (3, "initech", false)]);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let vault = Vault::start_with(Limits { body_seconds_max: 1, ..Limits::default() }).await;
    let mut ask = vault.ask("billing", Method::POST, "/v1/tokens").key("k1").json("");
    ask.body = axum::body::Body::new(Never);
    let began = std::time::Instant::now();
    let got = ask.send().await;
    assert_eq!(got.code(), (408, "body_timeout"), "{}", got.text);
    assert!((1..10).contains(&began.elapsed().as_secs()));
}

/// A body of which nothing ever comes.
struct Never;

impl axum::body::HttpBody for Never {
    type Data = axum::body::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test]
async fn each_post_needs_a_key_of_its_own() {
    let vault = Vault::start().await;
    // What a processor sends is signed instead.
    for route in ROUTES.iter().filter(|route| route.method == "POST" && route.scope.is_some()) {
        let path = route.path.replace(['{', '}'], "");
        let ask = || vault.ask("billing", Method::POST, &path).json("{}");
        assert_eq!(ask().send().await.code(), (400, "idempotency_key_missing"), "{path}");
        let twice = ask().key("k1").key("k2").send().await;
        assert_eq!(twice.code(), (400, "idempotency_key_invalid"), "{path}");
        let stray = ask().key("4242-4242-4242-4242").send().await;
        assert_eq!(stray.code(), (422, "stray_number"), "{path}");
    }
}

/// Each route asks for its own scope: with every other one a caller gets no further, with that one alone it does.
#[tokio::test]
async fn each_scope_opens_its_own_routes_and_no_other() {
    let vault = Vault::start().await;
    for (n, route) in ROUTES.iter().enumerate() {
        let Some(scope) = route.scope else { continue };
        let tenant = scope.needs_tenant().then_some(1);
        let fits = |other: &&Scope| tenant.is_some() || !other.needs_tenant();
        let others: Vec<_> = Scope::ALL
            .iter()
            .filter(|other| **other != scope && Some(**other) != route.or)
            .filter(fits)
            .map(|other| other.name())
            .collect();
        let (with, without) = (format!("with-{n}"), format!("without-{n}"));
        vault.add(&with, PrincipalKind::Person, tenant, &[scope.name()]).await;
        vault.add(&without, PrincipalKind::Person, tenant, &others).await;
        let path = route.path.replace(['{', '}'], "");
        let method = Method::from_bytes(route.method.as_bytes()).unwrap();
        let refused = vault.ask(&without, method.clone(), &path).send().await;
        assert_eq!(refused.code(), (403, "scope_missing"), "{} {}", route.method, route.path);
        // Where another scope does as well, it needs no tenant.
        let or = format!("or-{n}");
        vault.add(&or, PrincipalKind::Person, None, &[route.or.unwrap_or(scope).name()]).await;
        for who in std::iter::once(with).chain(route.or.map(|_| or)) {
            let let_in = vault.ask(&who, method.clone(), &path).send().await;
            assert!(!matches!(let_in.status, 401 | 403), "{} {}: {}", route.method, route.path, let_in.text);
        }
    }
}

/// The tenant's pattern lets its own identifiers through, in its field and in a query as well.
#[tokio::test]
async fn an_identifier_that_a_tenant_exempts_is_no_stray_number() {
    let vault = Vault::start().await;
    let patterns = || vec!["424242##########".to_owned()];
    let fields = ["customer", "idempotency_key"].map(|field| (field.to_owned(), patterns()));
    let fields = BTreeMap::from(fields);
    vault.app.directory.set_exemptions(Exemptions(BTreeMap::from([("acme".to_owned(), fields)])));
    assert_eq!(vault.get("billing", &format!("/v1/tokens?customer={VISA}")).await.status, 200);
    assert_eq!(vault.get("billing", &format!("/v1/charges?customer={VISA}")).await.status, 200);
    assert_eq!(vault.create("billing", VISA, &card(VISA, "")).await.status, 201);
    assert_eq!(vault.create("other", VISA, &card(VISA, "")).await.code(), (422, "stray_number"));
    for (who, path) in [
        ("billing", format!("/v1/charges?invoice={VISA}")),
        ("billing", "/v1/tokens?customer=4000056655665556".to_owned()),
        ("billing", format!("/v1/tokens/{VISA}")),
        ("other", format!("/v1/tokens?customer={VISA}")),
    ] {
        let refused = vault.get(who, &path).await;
        assert_eq!(refused.code(), (422, "stray_number"), "{}", refused.text);
        assert!(refused.body["detail"].as_str().unwrap().contains("prefix it with a letter"));
    }
}

#[tokio::test]
async fn every_answer_carries_a_request_id() {
    let vault = Vault::start().await;
    let made = vault.get("billing", "/v1/tokens/x").await;
    let id = made.head["request-id"].to_str().unwrap();
    assert!(id.starts_with("req_") && made.body["request_id"] == id);
    let given =
        vault.ask("billing", Method::GET, "/livez").header("request-id", "job-2026.11_a").send().await;
    assert_eq!((given.status, given.head["request-id"].to_str().unwrap()), (200, "job-2026.11_a"));
    let bad = vault.ask("billing", Method::GET, "/livez").header("request-id", "no blanks here").send().await;
    assert!(bad.head["request-id"].to_str().unwrap().starts_with("req_"));
}

#[tokio::test]
async fn the_description_matches_the_router() {
    let vault = Vault::start().await;
    let described = vault.get("nobody", "/openapi.json").await.body;
    let mut count = 0;
    for (path, methods) in described["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            count += 1;
            let path = path.replace("{token}", "tok_x").replace("{agreement}", "agr_x");
            let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).unwrap();
            let got = vault.ask("nobody", method, &path).send().await;
            let expected = if operation.get("security").is_some() { 401 } else { 200 };
            let unready = path == "/readyz" && got.status == 503;
            let is_nobody_s = path.starts_with("/v1/webhooks/") && got.code() == (404, "not_found");
            assert!(got.status == expected || unready || is_nobody_s, "{path} {}", got.text);
        }
    }
    assert_eq!(count, ROUTES.len());
    for route in ROUTES {
        let got = vault.ask("admin", Method::TRACE, &route.path.replace(['{', '}'], "")).send().await;
        assert_eq!(got.code(), (405, "method_not_allowed"), "{}", route.path);
        assert!(got.head["allow"].to_str().unwrap().contains(route.method));
    }
}

#[tokio::test]
async fn a_principal_over_its_rate_is_told_when_to_come_back() {
    let limits = Limits { requests_per_second_max: 1, requests_burst_max: 3, ..Limits::default() };
    let vault = Vault::start_with(limits).await;
    for _ in 0..3 {
        assert_eq!(vault.get("reader", "/v1/tokens/x").await.status, 404);
    }
    let got = vault.get("reader", "/v1/tokens/x").await;
    assert_eq!(got.code(), (429, "rate_limited"));
    assert!(got.head["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(got.body["retryable"], Value::Bool(true));
    assert_eq!(vault.get("billing", "/v1/tokens/x").await.status, 404);
}
