//! What is refused is refused before anything is sent, and keeps no key.

use cardvault::card::tenant::Mode;
use cardvault::tools::client::Client;
use serde_json::{Value, json};

use crate::common::{order, text};
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
