//! What must be refused, each with its status, code and param, nothing changed, and nothing of it quoted.

use std::collections::BTreeMap;
use std::time::Duration;

use cardvault::card::tenant::Mode;
use cardvault::clock::{Clock, SystemClock};
use cardvault::tools::client::{Answer, Client};
use cardvault::wire::control::PrincipalOrder;
use serde_json::json;

use crate::common::{BILLING, Vault, card, count_of, events, numbers, order, store, text};

const VISA: &str = "4242424242424242";
const JSON: (&str, &str) = ("content-type", "application/json");

/// Everything that a refused request could have changed.
fn rows(vault: &Vault) -> BTreeMap<&'static str, i64> {
    [
        "cards",
        "sealed",
        "card_versions",
        "answers",
        "body_macs",
        "agreements",
        "charges",
        "principals",
        "tenants",
    ]
    .into_iter()
    .map(|table| (table, vault.count(table)))
    .collect()
}

fn problem(answer: &Answer) -> (u16, String, Option<String>) {
    let value = answer.json();
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", text(answer));
    assert_eq!(value["status"], answer.status);
    assert_eq!(value["type"], format!("urn:cardvault:problem:{}", value["code"].as_str().unwrap()));
    assert_eq!(value["outbound"], "not_sent");
    let word = |name: &str| value[name].as_str().map(str::to_owned);
    (answer.status, word("code").unwrap(), word("param"))
}

/// A run of digits of a card number that is neither its first six nor its last four.
fn is_quoted(answer: &Answer, number: &str) -> bool {
    holds_part_of(&format!("{:?} {}", answer.headers, String::from_utf8_lossy(&answer.body)), number)
}

/// Seven digits in a row: the microseconds of a log line are six, and may be any.
fn holds_part_of(text: &str, number: &str) -> bool {
    number.as_bytes().windows(7).any(|part| text.contains(std::str::from_utf8(part).unwrap()))
}

async fn post(client: &Client, key: &str, body: &str) -> Answer {
    client.request("POST", "/v1/tokens", &[JSON, ("idempotency-key", key)], body.as_bytes()).await.unwrap()
}

/// Edits of a good body: what is replaced (nothing: all of it) by what, and the refusal: status, code, param.
const BODIES: &[(&str, &str, u16, &str, &str)] = &[
    ("", "", 400, "malformed_json", ""),
    ("", "{", 400, "malformed_json", ""),
    ("\"card\":", "'card':", 400, "malformed_json", ""),
    ("\"c-1\"}", "\"c-1\"} x", 400, "malformed_json", ""),
    ("", "[]", 422, "wrong_type", ""),
    (
        "",
        r#"[{"number":"4242424242424242","exp_month":12,"exp_year":2030},null,"c-1",null,null,null]"#,
        422,
        "wrong_type",
        "",
    ),
    ("", r#"{"card":["4242424242424242",12,2030,null]}"#, 422, "wrong_type", ""),
    ("", r#"{"card":"4242424242424242"}"#, 422, "wrong_type", ""),
    ("", "{}", 422, "missing_field", "card.number"),
    ("\"customer\"", "\"holder\"", 422, "unknown_field", ""),
    ("\"number\"", "\"4242424242424242\"", 422, "unknown_field", ""),
    ("{\"card\"", "{\"customer\":\"c-2\",\"card\"", 422, "duplicate_field", "customer"),
    ("\"number\"", "\"number\":\"5555555555554444\",\"number\"", 422, "duplicate_field", "card.number"),
    ("\"4242424242424242\"", "4242424242424242", 422, "wrong_type", ""),
    ("\"4242424242424242\"", "null", 422, "missing_field", "card.number"),
    ("4242424242424242", "4242424242424241", 422, "card_number_invalid", "card.number"),
    ("4242424242424242", "42424242424", 422, "card_number_invalid", "card.number"),
    ("4242424242424242", "42424242424242424242", 422, "card_number_invalid", "card.number"),
    ("4242424242424242", "4242 4242 4242 4242", 422, "card_number_invalid", "card.number"),
    ("4242424242424242", "LIVE", 422, "live_number_in_test", "card.number"),
    ("\"exp_month\":12", "\"exp_month\":13", 422, "expiry_invalid", "card.exp_month"),
    ("\"exp_month\":12", "\"exp_month\":0", 422, "expiry_invalid", "card.exp_month"),
    ("\"exp_month\":12,", "", 422, "missing_field", "card.exp_month"),
    ("2030", "2090", 422, "expiry_invalid", "card.exp_year"),
    ("2030", "203", 422, "expiry_invalid", "card.exp_year"),
    ("2030", "2020", 422, "card_expired", "card.exp_year"),
    ("2030", "20.5", 422, "wrong_type", ""),
    ("\"number\"", "\"cvc\":\"123\",\"number\"", 422, "cvc_not_accepted", "card.cvc"),
    ("\"number\"", "\"cvv\":123,\"number\"", 422, "cvc_not_accepted", "card.cvc"),
    ("\"c-1\"", "\"4242424242424242\"", 422, "stray_number", "customer"),
    ("\"c-1\"", "\"4242 4242-4242 4242\"", 422, "stray_number", "customer"),
    ("\"c-1\"", "\"\"", 422, "invalid_value", "customer"),
    ("\"c-1\"", "\"LONG\"", 422, "invalid_value", "customer"),
    ("\"c-1\"", "\"c\",\"metadata\":{\"csc\":\"123\"}", 422, "cvc_not_accepted", "metadata"),
    ("\"c-1\"", "\"c\",\"metadata\":{\"Card Code\":\"1234\"}", 422, "cvc_not_accepted", "metadata"),
    ("\"c-1\"", "\"c\",\"metadata\":{\"a\":\"is 4242 4242 4242 4242\"}", 422, "stray_number", "metadata"),
    ("\"c-1\"", "\"c\",\"metadata\":{\"4242424242424242\":\"x\"}", 422, "stray_number", "metadata"),
    ("\"c-1\"", "\"c\",\"metadata\":{\"a\":1}", 422, "wrong_type", ""),
    ("\"c-1\"", "\"c\",\"metadata\":{\"a\":\"1\",\"a\":\"2\"}", 422, "invalid_value", "metadata"),
    ("\"c-1\"", "\"c-1\",\"on_duplicate\":\"merge\"", 422, "invalid_value", "on_duplicate"),
    ("\"c-1\"", "\"c-1\",\"status\":\"suspended\"", 422, "unknown_field", ""),
    ("\"c-1\"", "\"c\",\"billing\":{\"zip\":\"4242424242424242\"}", 422, "invalid_value", "billing.zip"),
    ("\"c-1\"", "\"LARGE\"", 413, "body_too_large", ""),
];

#[tokio::test]
async fn each_wrong_body_has_its_code_and_changes_nothing() {
    let vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let (client, assessor) = (vault.application("billing", "acme", &BILLING), vault.assessor());
    let good = card(VISA, "c-1").to_string();
    let before = rows(&vault);
    for (n, (from, to, status, code, param)) in BODIES.iter().enumerate() {
        assert!(good.contains(from), "case {n}");
        let body = if from.is_empty() { (*to).to_owned() } else { good.replacen(from, to, 1) };
        let body = body.replace("LIVE", &numbers::complete("999999000000000"));
        let body = body.replace("LONG", &"c".repeat(129)).replace("LARGE", &"c".repeat(17 << 10));
        let answer = post(&client, &format!("k-{n}"), &body).await;
        assert_eq!(problem(&answer), (*status, (*code).to_owned(), named(param)), "case {n}");
        assert!(!is_quoted(&answer, VISA), "case {n}");
    }
    assert_eq!(rows(&vault), before);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(count_of(&events(&assessor).await, "pan.unexpected"), 4);
    // The same keys are free: no refusal was kept.
    for n in 0..BODIES.len() {
        let made = post(&client, &format!("k-{n}"), &good).await;
        assert_eq!(made.status, 201, "{}", text(&made));
    }
}

const KEY: (&str, &str) = ("idempotency-key", "k-1");
type Head = &'static [(&'static str, &'static str)];

/// Method, path, head, and the refusal: status, code, param.
const HEADS: &[(&str, &str, Head, u16, &str, &str)] = &[
    ("POST", "/v1/tokens", &[KEY], 415, "unsupported_content_type", ""),
    ("POST", "/v1/tokens", &[KEY, ("content-type", "text/plain")], 415, "unsupported_content_type", ""),
    ("POST", "/v1/tokens", &[JSON], 400, "idempotency_key_missing", "Idempotency-Key"),
    ("POST", "/v1/tokens", &[JSON, (KEY.0, "a b")], 400, "idempotency_key_invalid", "Idempotency-Key"),
    ("POST", "/v1/tokens", &[JSON, (KEY.0, "LONG")], 400, "idempotency_key_invalid", "Idempotency-Key"),
    ("POST", "/v1/tokens", &[JSON, (KEY.0, VISA)], 422, "stray_number", "Idempotency-Key"),
    ("POST", "/v1/tokens", &[JSON, KEY, ("request-id", VISA)], 422, "stray_number", "Request-Id"),
    ("POST", "/v1/tokens?number=4242424242424242", &[JSON, KEY], 400, "unknown_parameter", ""),
    ("GET", "/v1/tokens/4242424242424242", &[], 422, "stray_number", "path"),
    ("GET", "/v1/tokens/4242-4242%204242%2d4242", &[], 422, "stray_number", "path"),
    ("GET", "/v1/4242424242424242", &[], 422, "stray_number", "path"),
    ("GET", "/v1/tokens?customer=4242424242424242", &[], 422, "stray_number", "customer"),
    ("GET", "/v1/tokens?customer=4242%204242+4242-4242", &[], 422, "stray_number", "customer"),
    ("GET", "/v1/tokens?4242424242424242=1", &[], 400, "unknown_parameter", ""),
    ("GET", "/v1/tokens?customer=a&customer=b", &[], 400, "invalid_parameter", "customer"),
    ("GET", "/v1/tokens?customer=a&limit=0", &[], 400, "invalid_parameter", "limit"),
    ("GET", "/v1/tokens?customer=a&starting_after=x", &[], 400, "invalid_parameter", "starting_after"),
    ("GET", "/v1/tokens", &[], 422, "missing_field", "customer"),
    ("GET", "/v1/tokens/UNKNOWN", &[], 404, "token_not_found", ""),
    ("PATCH", "/v1/tokens/UNKNOWN", &[JSON], 404, "token_not_found", ""),
    ("DELETE", "/v1/tokens/UNKNOWN", &[], 404, "token_not_found", ""),
    ("GET", "/v1/nothing", &[], 404, "route_unknown", ""),
    ("PUT", "/v1/tokens", &[JSON, KEY], 405, "method_not_allowed", ""),
];

#[tokio::test]
async fn each_wrong_head_path_and_query_has_its_code_and_changes_nothing() {
    let vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let client = vault.application("billing", "acme", &BILLING);
    let good = card(VISA, "c-1").to_string();
    let before = rows(&vault);
    let unknown = cardvault::card::id::Token::make(SystemClock.now()).unwrap().to_string();
    let long = "k".repeat(256);
    for (n, (method, path, head, status, code, param)) in HEADS.iter().enumerate() {
        let head: Vec<_> =
            head.iter().map(|(name, value)| (*name, if *value == "LONG" { &long } else { *value })).collect();
        let body = if *method == "GET" { "" } else { good.as_str() };
        let path = path.replace("UNKNOWN", &unknown);
        let answer = client.request(method, &path, &head, body.as_bytes()).await.unwrap();
        assert_eq!(
            problem(&answer),
            (*status, (*code).to_owned(), named(param)),
            "case {n}: {method} {code}"
        );
        assert!(!is_quoted(&answer, VISA), "case {n}");
    }
    assert_eq!(rows(&vault), before);
    assert!(!holds_part_of(&vault.log(), VISA));
}

fn named(param: &str) -> Option<String> {
    (!param.is_empty()).then(|| param.to_owned())
}

/// A tenant whose identifiers are card numbers by chance says so in the configuration; free text is never exempt.
#[tokio::test]
async fn an_exempt_identifier_is_let_through_until_the_configuration_says_otherwise() {
    let vault =
        Vault::start_with(|config| format!("{config}\n[exempt.acme]\ncustomer = [\"424242##########\"]\n"));
    let [acme, other] = ["acme", "other"].map(|tenant| {
        vault.tenant(tenant, Mode::Test);
        vault.application(&format!("billing-{tenant}"), tenant, &BILLING)
    });
    let made = store(&acme, "k-1", &card(VISA, VISA)).await;
    assert_eq!(made["customer"], VISA);
    let list = format!("/v1/tokens?customer={VISA}");
    assert_eq!(acme.get(&list).await.unwrap().json()["data"], json!([made]));
    let refused = (422, "stray_number".to_owned(), named("customer"));
    for answer in [
        other.post("/v1/tokens", "k-1", &card(VISA, VISA)).await.unwrap(),
        other.get(&list).await.unwrap(),
        acme.post("/v1/tokens", "k-2", &card(VISA, "5555555555554444")).await.unwrap(),
    ] {
        assert_eq!(problem(&answer), refused);
        assert!(answer.json()["detail"].as_str().unwrap().contains("prefix it with a letter"));
    }
    let mut words = card(VISA, "c-1");
    words["metadata"] = json!({"customer": VISA});
    let free = acme.post("/v1/tokens", "k-3", &words).await.unwrap();
    assert_eq!(problem(&free), (422, "stray_number".to_owned(), named("metadata")));

    let config = std::fs::read_to_string(vault.config()).unwrap();
    std::fs::write(vault.config(), config.split("[exempt.acme]").next().unwrap()).unwrap();
    vault.ask(cardvault::supervisor::admin::AdminRequest::Reload);
    assert_eq!(problem(&acme.get(&list).await.unwrap()), refused);
    assert_eq!(problem(&acme.post("/v1/tokens", "k-4", &card(VISA, VISA)).await.unwrap()), refused);
}

#[tokio::test]
async fn who_may_not_is_told_so_and_the_log_says_it() {
    let vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let (client, assessor) = (vault.application("billing", "acme", &BILLING), vault.assessor());
    let id = store(&client, "k-1", &card(VISA, "c-1")).await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/tokens/{id}");
    let before = rows(&vault);

    let nobody = cardvault::tools::client::Client::new(
        vault.api(),
        Some(&std::fs::read(vault.path("tls/ca.pem")).unwrap()),
        None,
    )
    .unwrap();
    let stranger = vault.client("cv_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    for unknown in [&nobody, &stranger] {
        let answer = unknown.get(&path).await.unwrap();
        assert_eq!(problem(&answer), (401, "unauthenticated".to_owned(), None));
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    let expiring = vault.principal(PrincipalOrder {
        expires_at: Some(SystemClock.now().plus_seconds(1)),
        ..order("expiring", Some("acme"), &["tokens:read"])
    });
    let expiring = vault.client(&expiring);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(problem(&expiring.get(&path).await.unwrap()), (401, "unauthenticated".to_owned(), None));

    let reader = vault.application("reader", "acme", &["tokens:read"]);
    assert_eq!(reader.get(&path).await.unwrap().status, 200);
    let create = reader.post("/v1/tokens", "k-2", &card(VISA, "c-1")).await.unwrap();
    assert_eq!(problem(&create), (403, "scope_missing".to_owned(), None));
    let erase = reader.request("DELETE", &path, &[], None).await.unwrap();
    assert_eq!(problem(&erase), (403, "scope_missing".to_owned(), None));
    let change = reader.request("PATCH", &path, &[], &json!({"status": "suspended"})).await.unwrap();
    assert_eq!(problem(&change), (403, "scope_missing".to_owned(), None));
    assert_eq!(reader.get("/v1/audit/events").await.unwrap().status, 403);
    // An assessor reads the log and no card.
    assert_eq!(assessor.get(&path).await.unwrap().status, 403);

    tokio::time::sleep(Duration::from_secs(1)).await;
    let events = events(&assessor).await;
    assert_eq!(count_of(&events, "auth.denied"), 8);
    let mut now = rows(&vault);
    // Two principals were made meanwhile.
    *now.get_mut("principals").unwrap() -= 2;
    assert_eq!(now, before);
}

#[tokio::test]
async fn another_tenants_token_looks_like_one_that_never_was() {
    let vault = Vault::start();
    let mut clients = Vec::new();
    for tenant in ["acme", "other"] {
        vault.tenant(tenant, Mode::Test);
        clients.push(vault.application(&format!("billing-{tenant}"), tenant, &BILLING));
    }
    let [acme, other] = [&clients[0], &clients[1]];
    let mine = store(acme, "k-1", &card(VISA, "c-1")).await;
    let theirs = store(other, "k-1", &card(VISA, "c-1")).await;
    assert_ne!(mine["fingerprint"], theirs["fingerprint"]);
    let unknown = cardvault::card::id::Token::make(SystemClock.now()).unwrap().to_string();
    let id = mine["id"].as_str().unwrap();
    let agreement = json!({"type": "recurring", "consent": {"by": "c", "at": "2026-11-22T00:00:00Z"}});
    for (method, rest, body) in [
        ("GET", "", None),
        ("DELETE", "", None),
        ("PATCH", "", Some(json!({"status": "suspended"}))),
        ("GET", "/agreements", None),
        ("POST", "/agreements", Some(agreement)),
    ] {
        let ask = async |token: &str| {
            let path = format!("/v1/tokens/{token}{rest}");
            let headers = [("idempotency-key", "k-9"), ("request-id", "the-same-1")];
            other.request(method, &path, &headers, body.as_ref()).await.unwrap()
        };
        let (there, nowhere) = (ask(id).await, ask(&unknown).await);
        assert_eq!(problem(&there), (404, "token_not_found".to_owned(), None), "{method} {rest}");
        assert_eq!((&there.body, there.status), (&nowhere.body, nowhere.status));
    }
    let listed = other.get("/v1/tokens?customer=c-1").await.unwrap().json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    assert_eq!(listed["data"][0]["id"], theirs["id"]);
    let after = other.get(&format!("/v1/tokens?customer=c-1&starting_after={id}")).await.unwrap();
    assert!(!text(&after).contains(id));
    assert_eq!(acme.get(&format!("/v1/tokens/{id}")).await.unwrap().json(), mine);

    // A tenant that is switched off is told so, and its cards stay.
    vault.ask(cardvault::supervisor::admin::AdminRequest::TenantDisable { name: "other".to_owned() });
    let off = other.get("/v1/tokens?customer=c-1").await.unwrap();
    assert_eq!(problem(&off), (403, "tenant_disabled".to_owned(), None));
    assert_eq!(acme.get(&format!("/v1/tokens/{id}")).await.unwrap().status, 200);
}

#[tokio::test]
async fn whoever_searches_for_a_number_by_its_fingerprint_is_stopped() {
    let vault = Vault::start();
    vault.tenant("live", Mode::Live);
    let (client, assessor) = (vault.application("billing", "live", &BILLING), vault.assessor());
    let mut answered = 0;
    for (n, number) in numbers::of_one_place("999999", "1234", 70).iter().enumerate() {
        let answer = client.post("/v1/tokens", &format!("k-{n}"), &card(number, "c-1")).await.unwrap();
        match answer.status {
            201 => answered += 1,
            _ => assert_eq!(
                problem(&answer),
                (429, "fingerprint_budget".to_owned(), Some("card.number".to_owned()))
            ),
        }
    }
    assert_eq!(answered, 60);
    assert_eq!(vault.count("cards"), 60);
    // Numbers that were answered go on being answered; a place of its own has a budget of its own.
    let again = &numbers::of_one_place("999999", "1234", 1)[0];
    store(&client, "again", &card(again, "c-2")).await;
    store(&client, "apart", &card(&numbers::of_one_place("999999", "1235", 1)[0], "c-1")).await;
    // A keeper that starts anew does not start with a full budget.
    vault.kill_role("keeper");
    let mut after = 0;
    for (n, number) in numbers::of_one_place("999998", "1234", 70).iter().enumerate() {
        let answer = client.post("/v1/tokens", &format!("r-{n}"), &card(number, "c-1")).await.unwrap();
        after += i32::from(answer.status == 201);
    }
    assert!((1..=30).contains(&after), "{after} after a restart");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(count_of(&events(&assessor).await, "fingerprint.limit") >= 1);

    // Test numbers are refused here.
    let test = client.post("/v1/tokens", "test", &card(VISA, "c-1")).await.unwrap();
    assert_eq!(problem(&test), (422, "test_number_in_live".to_owned(), Some("card.number".to_owned())));
}
