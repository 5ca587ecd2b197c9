//! What is refused is refused before anything is sent, and keeps no key.

use cardvault::card::id::{ChargeId, RefundId};
use cardvault::card::tenant::Mode;
use cardvault::clock::{Clock, SystemClock};
use cardvault::supervisor::admin::AdminRequest;
use cardvault::tools::client::Client;
use cardvault::wire::control::AdminAnswer;
use serde_json::{Value, json};

use crate::common::{card, numbers, order, store, text};
use crate::desk::{Desk, SCOPES, VISA, refusal, sale, word};

#[tokio::test]
async fn nothing_is_sent_for_a_charge_that_is_refused() {
    let mut desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let change = |name: &str, value: Value| {
        let mut body = sale(&token, "inv-1");
        if value.is_null() {
            body.as_object_mut().unwrap().remove(name);
        } else {
            body[name] = value;
        }
        body
    };
    for (body, status, name) in [
        (change("amount", json!(1.5)), 422, "amount_invalid"),
        (change("amount", json!("1250")), 422, "amount_invalid"),
        (change("amount", json!(0)), 422, "amount_invalid"),
        (change("amount", json!(-1)), 422, "amount_invalid"),
        (change("currency", json!("usd")), 422, "currency_invalid"),
        (change("destination", json!("nowhere")), 422, "destination_unknown"),
        (change("destination", Value::Null), 422, "destination_required"),
        (change("token", json!("tok_00000000v00000000v00000000v00000")), 404, "token_not_found"),
        (change("initiator", Value::Null), 422, "missing_field"),
        (change("invoice", json!(VISA)), 422, "stray_number"),
        (change("agreement", json!("agr_none")), 422, "agreement_required"),
        (change("card", json!({"number": VISA})), 422, "unknown_field"),
    ] {
        let answer = desk.charge("k-1", &body).await;
        assert_eq!(refusal(&answer), (status, name.to_owned()), "{}", text(&answer));
        assert_eq!(answer.json()["outbound"], "not_sent");
    }
    desk.vault.tenant("globex", Mode::Test);
    let other = desk.vault.application("other", "globex", &SCOPES);
    let answer = other.post("/v1/charges", "k-1", &sale(&token, "inv-1")).await.unwrap();
    assert_eq!(refusal(&answer), (404, "token_not_found".to_owned()));
    let reader = desk.vault.application("reader", "acme", &["charges:read"]);
    let answer = reader.post("/v1/charges", "k-1", &sale(&token, "inv-1")).await.unwrap();
    assert_eq!(refusal(&answer), (403, "scope_missing".to_owned()));
    let mut limited = order("limited", Some("acme"), &SCOPES);
    limited.charge_max.insert("USD".to_owned(), 1249);
    let limited = desk.vault.client(&desk.vault.principal(limited));
    let answer = limited.post("/v1/charges", "k-1", &sale(&token, "inv-1")).await.unwrap();
    assert_eq!(refusal(&answer), (403, "limit_exceeded".to_owned()));
    let mut euros = sale(&token, "inv-1");
    (euros["currency"], euros["amount"]) = ("EUR".into(), 1.into());
    let answer = limited.post("/v1/charges", "k-1", &euros).await.unwrap();
    assert_eq!(refusal(&answer), (403, "limit_exceeded".to_owned()), "a currency without a limit");

    let path = format!("/v1/tokens/{token}");
    let restate = |status: &str| json!({ "status": status });
    let patched = desk.client.request("PATCH", &path, &[], &restate("suspended")).await.unwrap();
    assert_eq!(patched.status, 200, "{}", text(&patched));
    let answer = desk.charge("k-1", &sale(&token, "inv-1")).await;
    assert_eq!(refusal(&answer), (409, "token_suspended".to_owned()));
    assert_eq!(desk.ledger(), Vec::<Value>::new());
    let patched = desk.client.request("PATCH", &path, &[], &restate("active")).await.unwrap();
    assert_eq!(patched.status, 200);
    assert_eq!(desk.charge("k-1", &sale(&token, "inv-1")).await.status, 201, "a refusal keeps no key");
    desk.vault.stop();
    let (code, said) = desk.vault.verify();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn another_tenants_charge_looks_like_one_that_never_was() {
    let desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let mut hold = sale(&token, "inv-1");
    hold["capture"] = false.into();
    let held = word(&desk.charge("k-1", &hold).await.json(), "id").to_owned();
    let captures = format!("/v1/charges/{held}/captures");
    assert_eq!(desk.post(&captures, "c-1", &json!({"amount": 1000})).await.status, 201);
    let back = desk.post(&format!("/v1/charges/{held}/refunds"), "r-1", &json!({"amount": 100})).await.json();
    let refund = word(&back, "id").to_owned();
    let before = (desk.get(&format!("/v1/charges/{held}")).await, desk.ledger().len());
    desk.vault.tenant("globex", Mode::Test);
    let other = desk.vault.application("other", "globex", &SCOPES);
    let now = SystemClock.now();
    let (no_charge, no_refund) =
        (ChargeId::make(now).unwrap().to_string(), RefundId::make(now).unwrap().to_string());
    for (method, path, ours, none) in [
        ("GET", "/v1/charges/ID", &held, &no_charge),
        ("POST", "/v1/charges/ID/captures", &held, &no_charge),
        ("POST", "/v1/charges/ID/refunds", &held, &no_charge),
        ("POST", "/v1/charges/ID/void", &held, &no_charge),
        ("GET", "/v1/refunds/ID", &refund, &no_refund),
        ("GET", "/v1/refunds?starting_after=ID", &refund, &no_refund),
        ("GET", "/v1/charges/ID", &refund, &no_refund),
    ] {
        let ask = async |id: &str| {
            let headers = [("idempotency-key", "x-1"), ("request-id", "the-same-1")];
            other.request(method, &path.replace("ID", id), &headers, None).await.unwrap()
        };
        let (there, nowhere) = (ask(ours).await, ask(none).await);
        assert_eq!(refusal(&there), (404, "charge_not_found".to_owned()), "{method} {path}");
        assert_eq!(there.body, nowhere.body, "{method} {path}");
    }
    for list in ["/v1/charges", "/v1/refunds", "/v1/charges?invoice=inv-1", "/v1/refunds?customer=c-1"] {
        assert_eq!(other.get(list).await.unwrap().json()["data"], json!([]), "{list}");
        let lines = if list.contains('?') {
            format!("{list}&format=ndjson")
        } else {
            format!("{list}?format=ndjson")
        };
        assert!(other.get(&lines).await.unwrap().body.is_empty(), "{list}");
    }
    assert_eq!((desk.get(&format!("/v1/charges/{held}")).await, desk.ledger().len()), before);
}

/// Test and live never meet: not the numbers, and not the destinations either.
#[tokio::test]
async fn a_live_card_never_goes_to_a_test_destination() {
    let desk = Desk::open();
    desk.vault.tenant("live", Mode::Live);
    let live = desk.vault.application("live", "live", &SCOPES);
    let number = &numbers::of_one_place("999999", "1234", 1)[0];
    let token = store(&live, "t-1", &card(number, "c-1")).await["id"].as_str().unwrap().to_owned();
    for destination in [json!("sandbox"), json!("stripe_sandbox"), Value::Null] {
        let mut body = sale(&token, "inv-1");
        body["destination"] = destination;
        let answer = live.post("/v1/charges", "k-1", &body).await.unwrap();
        assert_eq!(refusal(&answer), (422, "destination_unknown".to_owned()), "{}", text(&answer));
    }
    assert_eq!(desk.ledger(), Vec::<Value>::new());
}

#[tokio::test]
async fn credentials_and_connectors_are_read_again_by_the_same_keeper() {
    let desk = Desk::open_with(|text| text);
    let token = desk.token("t-1", VISA).await;
    let keeper = desk.vault.process("keeper");
    let credential = desk.vault.path("credentials/sandbox_secret_key");
    let right = std::fs::read(&credential).unwrap();
    let connector = desk.vault.path("connectors/sandbox.toml");
    let plain = std::fs::read_to_string(&connector).unwrap();
    let strict = plain.replacen("[op.sale]\n", "[op.sale]\nrequires = [\"billing.name\"]\n", 1);
    let mut invoices = 0;
    let mut until = async |status: u16, word_of_it: &str| {
        assert!(!matches!(desk.vault.ask(AdminRequest::Reload), AdminAnswer::Refused(_)));
        // The keeper hears of it a moment later.
        for _ in 0..100 {
            invoices += 1;
            let name = format!("inv-{invoices}");
            let answer = desk.charge(&name, &sale(&token, &name)).await;
            let said = answer.json();
            if answer.status == status && [&said["status"], &said["code"]].contains(&&json!(word_of_it)) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("no {status} {word_of_it}");
    };
    until(201, "approved").await;
    std::fs::write(&credential, "sk_test_another").unwrap();
    until(201, "failed").await;
    std::fs::write(&credential, right).unwrap();
    until(201, "approved").await;
    std::fs::write(&connector, strict).unwrap();
    until(422, "required_by_connector").await;
    std::fs::write(&connector, plain).unwrap();
    until(201, "approved").await;
    // A credential that is missing leaves everything as it is.
    std::fs::remove_file(&credential).unwrap();
    assert!(
        matches!(desk.vault.ask(AdminRequest::Reload), AdminAnswer::Refused(why) if why.contains("destination."))
    );
    assert_eq!(desk.charge("last", &sale(&token, "last")).await.json()["status"], "approved");
    assert_eq!(desk.vault.process("keeper"), keeper);
}

#[tokio::test]
async fn a_day_has_a_sum_that_no_restart_forgets() {
    let mut desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let mut limited = order("limited", Some("acme"), &SCOPES);
    limited.day_max.insert("USD".to_owned(), 3750);
    let credential = desk.vault.principal(limited);
    let limited = desk.vault.client(&credential);
    let poor = desk.token("t-2", "4000000000000002").await;
    let charge = async |client: &Client, token: &str, invoice: &str, status: u16| {
        let answer = client.post("/v1/charges", invoice, &sale(token, invoice)).await.unwrap();
        assert_eq!(answer.status, status, "{invoice}: {}", text(&answer));
        answer.json()
    };
    // Two that count; a decline and a void do not, nor what somebody else charges.
    charge(&limited, &token, "a", 201).await;
    charge(&limited, &poor, "b", 201).await;
    charge(&desk.client, &token, "c", 201).await;
    let mut hold = sale(&token, "d");
    hold["capture"] = false.into();
    let held = limited.post("/v1/charges", "d", &hold).await.unwrap().json();
    let void = format!("/v1/charges/{}/void", word(&held, "id"));
    assert_eq!(limited.post(&void, "v", &json!({})).await.unwrap().status, 201);
    charge(&limited, &token, "e", 201).await;
    desk.vault.kill_role("edge");
    let limited = desk.vault.client(&credential);
    let verification = json!({ "token": token, "destination": "sandbox" });
    assert_eq!(limited.post("/v1/verifications", "w", &verification).await.unwrap().status, 201);
    charge(&limited, &token, "f", 201).await;
    charge(&limited, &token, "g", 403).await;
    desk.vault.kill();
    desk.vault.serve();
    charge(&desk.vault.client(&credential), &token, "h", 403).await;
}
