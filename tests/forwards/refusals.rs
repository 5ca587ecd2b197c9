//! What a destination does not declare is refused, before anything is opened or sent, and keeps no key.

use cardvault::card::tenant::Mode;
use cardvault::wire::control::PrincipalOrder;
use serde_json::{Value, json};

use crate::common::{count_of, events, order, text};
use crate::desk::{Desk, MASTERCARD, SCOPES, VISA, refusal, request};

/// The request with one place changed; `null` takes it away.
fn with(token: &str, at: &str, value: Value) -> Value {
    let mut body = request(token);
    let (path, last) = at.rsplit_once('/').unwrap();
    let place = body.pointer_mut(path).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        place.remove(last);
    } else {
        place.insert(last.to_owned(), value);
    }
    body
}

/// What is refused, with its code and the part of the request that the problem names.
fn refused(token: &str) -> Vec<(Value, &'static str, &'static str)> {
    let change = |at: &str, value: Value| with(token, at, value);
    vec![
        (change("/destination", json!("nowhere")), "destination_unknown", "destination"),
        // A charge's destination takes no forwards.
        (change("/destination", json!("sandbox")), "destination_unknown", "destination"),
        (change("/method", json!("DELETE")), "not_declared", "method"),
        (change("/method", json!("POST\r\nx: y")), "not_declared", "method"),
        (change("/path", json!("/v2/cards")), "not_declared", "path"),
        (change("/path", json!("/v1/a/b")), "not_declared", "path"),
        (change("/path", json!("/v1/..")), "not_declared", "path"),
        (change("/path", json!("/v1/%2e%2e")), "not_declared", "path"),
        (change("/path", json!("//evil.example/v1/x")), "not_declared", "path"),
        (change("/path", json!("/v1/cards?x=1")), "not_declared", "path"),
        (change("/path", json!("/v1/cards#x")), "not_declared", "path"),
        (change("/query", json!([["x", "1"]])), "not_declared", "query"),
        (change("/query", json!([["expand", "{{ card.number }}"]])), "placeholder_misplaced", "query"),
        (change("/query", json!([["expand", MASTERCARD]])), "stray_number", "query"),
        (change("/path", json!("/v1/a b\r\nx: y")), "not_declared", "path"),
        (change("/path", json!("/v1/{{ card.number }}")), "placeholder_misplaced", "path"),
        (change("/path", json!(format!("/v1/{MASTERCARD}"))), "stray_number", "path"),
        (change("/headers/x-other", json!("1")), "not_declared", "headers"),
        (change("/headers/Authorization", json!("Bearer mine")), "credential_not_accepted", "headers"),
        (change("/headers/cookie", json!("a=b")), "credential_not_accepted", "headers"),
        (change("/headers/proxy-authorization", json!("x")), "credential_not_accepted", "headers"),
        (change("/headers/Host", json!("evil.example")), "not_declared", "headers"),
        (change("/headers/content-type", json!("text/plain")), "not_declared", "headers"),
        (change("/headers/transfer-encoding", json!("chunked")), "not_declared", "headers"),
        (change("/headers/x-note", json!("a\r\nx-evil: b")), "invalid_value", "headers"),
        (change("/headers/x-note", json!("a\u{0}")), "invalid_value", "headers"),
        (change("/headers/x-note", json!(7)), "invalid_value", "headers"),
        (change("/headers/X-Card", json!("1")), "duplicate_field", "headers"),
        (change("/headers/x-note", json!("{{ card.number }}")), "placeholder_misplaced", "headers"),
        (change("/headers/x-note", json!(MASTERCARD)), "stray_number", "headers"),
        (change("/headers", json!(["a"])), "invalid_value", "headers"),
        (change("/body/other", json!(1)), "not_declared", "body"),
        (change("/body/other", json!({})), "not_declared", "body"),
        (change("/body/note", json!({"deep": 1})), "not_declared", "body"),
        (change("/body/note", json!("{{ card.number }}")), "placeholder_misplaced", "body"),
        (change("/body/metadata", json!({"park": "{{card.number}}"})), "placeholder_misplaced", "body"),
        (change("/body/metadata", json!({"{{ card.number }}": 1})), "placeholder_misplaced", "body"),
        (change("/body/card/cvc", json!("{{ card.cvc }}")), "placeholder_unknown", "body"),
        (change("/body/card/number", json!("{{ card.numbers }}")), "placeholder_unknown", "body"),
        (change("/body/card/number", json!("{{ card.number | yy }}")), "placeholder_unknown", "body"),
        (change("/body/card/number", json!("{{ card.number")), "placeholder_unknown", "body"),
        (change("/body/card/number", json!("x{{ card.number | number }}")), "placeholder_misplaced", "body"),
        (change("/body/card/number", json!(MASTERCARD)), "stray_number", "body"),
        (change("/body/card/number", json!(5_555_555_555_554_444_u64)), "stray_number", "body"),
        (change("/body/metadata", json!({"a": "card 5555 5555 5555 4444"})), "stray_number", "body"),
        (change("/body/card/cvc", json!("123")), "cvc_not_accepted", "body"),
        (change("/body/card/security_code", json!(1234)), "cvc_not_accepted", "body"),
        (change("/body/card", json!({"csc": "123"})), "cvc_not_accepted", "body"),
        (change("/body/card", json!({"cid": 1234})), "cvc_not_accepted", "body"),
        (change("/body/card", json!({"CardSecVal": "123"})), "cvc_not_accepted", "body"),
        (change("/body/card", json!({"cardValidationNum": "123"})), "cvc_not_accepted", "body"),
        (change("/body/metadata", json!({"cvd_value": "123"})), "cvc_not_accepted", "body"),
        (change("/body/metadata", json!({"cvd": {"value": ["123"]}})), "cvc_not_accepted", "body"),
        (change("/body/merchant", json!({"key": "mine"})), "credential_not_accepted", "body"),
        (change("/body/merchant", json!({"KEY": "mine"})), "credential_not_accepted", "body"),
        (change("/body/merchant", json!("mine")), "nothing_to_fill", "body"),
        (change("/body", json!([1])), "not_declared", "body"),
        (change("/body_form", json!([["note", "x"]])), "invalid_value", "body"),
        (change("/method", json!("GET")), "invalid_value", "body"),
        (change("/unknown", json!(1)), "unknown_field", ""),
        (change("/dry_run", json!("yes")), "wrong_type", ""),
        (change("/method", Value::Null), "missing_field", "method"),
    ]
}

#[tokio::test]
async fn nothing_is_opened_or_sent_for_a_forward_that_is_refused() {
    let mut desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    for (body, code, param) in refused(&token) {
        let answer = desk.forward("k-1", &body).await;
        let problem = answer.json();
        assert_eq!(refusal(&answer), (422, code.to_owned()), "{body}: {}", text(&answer));
        assert_eq!(problem["outbound"], "not_sent");
        assert_eq!(problem["param"].as_str().unwrap_or_default(), param, "{body}");
        for quoted in ["evil", "mine", "{{", MASTERCARD] {
            assert!(!text(&answer).contains(quoted), "{}", text(&answer));
        }
    }
    for (xml, code) in [
        ("<!DOCTYPE order [<!ENTITY a \"b\">]><order/>", "invalid_value"),
        ("<?php x ?><order/>", "invalid_value"),
        ("<order><note>&own;</note></order>", "invalid_value"),
        ("<order><note></order></note>", "invalid_value"),
        ("<order/><order/>", "invalid_value"),
        ("<order xmlns=\"{{ card.number }}\"/>", "invalid_value"),
        ("<order xmlns:a=\"urn:5555555555554444\"/>", "invalid_value"),
        ("<order><other/></order>", "not_declared"),
        ("<order><note>x</note></order>", "nothing_to_fill"),
        ("<order><merchant><key>mine</key></merchant></order>", "credential_not_accepted"),
        ("<order><merchant><key/></merchant><note>{{ card.number }}</note></order>", "placeholder_misplaced"),
        (
            "<order><merchant><key/></merchant><card><number>{{ pan }}</number></card></order>",
            "placeholder_unknown",
        ),
    ] {
        let body =
            json!({"token": token, "destination": "xml", "method": "POST", "path": "/v1/x", "body_xml": xml});
        let answer = desk.forward("k-1", &body).await;
        assert_eq!(refusal(&answer), (422, code.to_owned()), "{xml}: {}", text(&answer));
    }
    // A destination outside the set that the card is bound to.
    let other_set = json!({
        "token": token, "destination": "ledger", "method": "POST", "path": "/v1/x", "body": {"card": {"n": "{{ card.number }}"}},
    });
    assert_eq!(refusal(&desk.forward("k-1", &other_set).await), (422, "destination_unknown".to_owned()));
    // A card without a zip has nothing for its placeholder.
    let bare = crate::common::store(&desk.client, "t-2", &crate::common::card(MASTERCARD, "c-2")).await;
    let answer = desk.forward("k-1", &request(bare["id"].as_str().unwrap())).await;
    assert_eq!(refusal(&answer), (422, "nothing_to_fill".to_owned()), "{}", text(&answer));

    assert!(desk.upstream.arrived().is_empty());
    let log = events(&desk.vault.assessor()).await;
    assert_eq!(count_of(&log, "forward.send") + count_of(&log, "opening.unused"), 0);
    assert_eq!(desk.forward("k-1", &request(&token)).await.status, 201, "a refusal keeps no key");
    desk.vault.stop();
    let (code, said) = desk.vault.verify();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn who_may_not_send_there_and_which_card_may_not_be_sent() {
    let desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let body = request(&token);
    let reader = desk.vault.application("reader", "acme", &["tokens:read", "charges:create"]);
    let answer = reader.post("/v1/forwards", "k", &body).await.unwrap();
    assert_eq!(refusal(&answer), (403, "scope_missing".to_owned()));
    // A principal that is limited to another destination, for charges and for forwards.
    let limited = PrincipalOrder {
        destinations: vec!["sandbox".to_owned()],
        ..order("limited", Some("acme"), &SCOPES)
    };
    let limited = desk.vault.client(&desk.vault.principal(limited));
    let answer = limited.post("/v1/forwards", "k", &body).await.unwrap();
    assert_eq!(refusal(&answer), (422, "destination_unknown".to_owned()));
    let mut charge =
        json!({"token": token, "amount": 100, "currency": "USD", "invoice": "i", "initiator": "customer"});
    charge["destination"] = "stripe_sandbox".into();
    let answer = limited.post("/v1/charges", "c-1", &charge).await.unwrap();
    assert_eq!(refusal(&answer), (422, "destination_unknown".to_owned()));
    charge["destination"] = "sandbox".into();
    assert_eq!(limited.post("/v1/charges", "c-1", &charge).await.unwrap().status, 201);
    desk.vault.tenant("globex", Mode::Test);
    let other = desk.vault.application("other", "globex", &SCOPES);
    let answer = other.post("/v1/forwards", "k", &body).await.unwrap();
    assert_eq!(refusal(&answer), (404, "token_not_found".to_owned()));
    let made = desk.forward("k-1", &body).await.json();
    let path = format!("/v1/forwards/{}", made["id"].as_str().unwrap());
    for client in [&other, &limited] {
        let answer = client.get(&path).await.unwrap();
        assert_eq!(refusal(&answer), (404, "forward_not_found".to_owned()));
    }
    let card = format!("/v1/tokens/{token}");
    let suspend = desk.client.request("PATCH", &card, &[], &json!({"status": "suspended"})).await.unwrap();
    assert_eq!(suspend.status, 200, "{}", text(&suspend));
    assert_eq!(refusal(&desk.forward("k-2", &body).await), (409, "token_suspended".to_owned()));
    assert_eq!(desk.upstream.arrived().len(), 1);
}
