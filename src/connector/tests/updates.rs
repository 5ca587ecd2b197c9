//! `[card_update]`: what an answer says of the card itself, and that nothing prints it.

use super::super::{CardUpdate, Connector, Mapped, Operation, Outcome, UpdateKind, builtin};

/// A connector that reads an updater's word.
const TOLD: &str = r#"name = "told"
version = 1
evidence = "documented"
source = "https://docs.told.example"
date = "2026-11-29"
[endpoint]
test = "https://test.told.example"
[idempotency]
kind = "none"
[op.sale]
method = "POST"
path = "/pay"
encoding = "json"
body = { pan = "{card.number}" }
[op.refund]
method = "POST"
path = "/refund"
encoding = "json"
body = { id = "{prev.transaction}" }
[response]
format = "json"
[card_update]
kind = { path = "au.code", map = "updater" }
number = ["au.number", "au.pan"]
expiry = { path = "au.expiry", after = "exp " }
expiry_form = "MM/YY"
[map.updater]
A = "updated"
E = "expiry"
C = "closed"
Q = "contact"
[[rule]]
http = 200
outcome = "approved"
[[rule]]
http = "5xx"
outcome = "error"
unknown = true
"#;

const NEW: &str = "4687380000770009";

fn told(edit: impl Fn(&str) -> String) -> Connector {
    Connector::parse("told.toml", &edit(TOLD)).unwrap()
}

fn map(connector: &Connector, answer: &str) -> Mapped {
    connector.map(Operation::Sale, 200, answer.as_bytes())
}

/// Kind, number and expiry.
type Facts = (UpdateKind, Option<String>, Option<(u16, u16)>);

fn facts(update: Option<CardUpdate>) -> Option<Facts> {
    update.map(|update| (update.kind, update.number.map(|number| number.to_string()), update.expiry))
}

#[test]
fn an_answer_says_what_the_card_has_become() {
    let connector = told(str::to_owned);
    assert!(connector.updates_cards());
    let of = |answer: &str| facts(map(&connector, answer).card_update);
    let new = || Some(NEW.to_owned());
    let whole = format!(r#"{{"au":{{"code":"A","number":"{NEW}","expiry":"exp 03/31"}}}}"#);
    assert_eq!(of(&whole), Some((UpdateKind::Updated, new(), Some((3, 31)))));
    let grouped = r#"{"au":{"code":"A","pan":"4687 3800-0077 0009"}}"#;
    assert_eq!(of(grouped), Some((UpdateKind::Updated, new(), None)));
    assert_eq!(
        of(r#"{"au":{"code":"E","expiry":"03/31"}}"#),
        Some((UpdateKind::Expiry, None, Some((3, 31))))
    );
    assert_eq!(of(r#"{"au":{"code":"E","expiry":"2031"}}"#), Some((UpdateKind::Expiry, None, None)));
    assert_eq!(of(r#"{"au":{"code":"C"}}"#), Some((UpdateKind::Closed, None, None)));
    assert_eq!(of(r#"{"au":{"code":"Q"}}"#), Some((UpdateKind::Contact, None, None)));
    // What the updater does not say to have changed has not.
    for answer in [r#"{"au":{"code":"V","number":"1"}}"#, r#"{"au":{"expiry":"03/31"}}"#, "{}"] {
        assert_eq!(of(answer), None, "{answer}");
    }
    // Only the answer of what was put to the issuer, and only one that is believed.
    assert!(connector.map(Operation::Refund, 200, whole.as_bytes()).card_update.is_none());
    assert!(connector.map(Operation::Sale, 500, whole.as_bytes()).card_update.is_none());
    assert!(connector.map(Operation::Sale, 200, b"no JSON").card_update.is_none());
}

#[test]
fn without_a_word_a_number_or_an_expiry_makes_the_update() {
    let connector = told(|text| {
        let text = text.replace("kind = { path = \"au.code\", map = \"updater\" }\n", "");
        text.split_once("[map.updater]").map(|(head, _)| head.to_owned()).unwrap()
            + "[[rule]]\nhttp = 200\noutcome = \"approved\"\n"
    });
    let of = |answer: &str| facts(map(&connector, answer).card_update).map(|(kind, ..)| kind);
    assert_eq!(of(&format!(r#"{{"au":{{"number":"{NEW}","expiry":"03/31"}}}}"#)), Some(UpdateKind::Updated));
    assert_eq!(of(r#"{"au":{"expiry":"03/31"}}"#), Some(UpdateKind::Expiry));
    assert_eq!(of(r#"{"au":{"expiry":"never"}}"#), None);
}

#[test]
fn nothing_that_is_written_holds_the_number() {
    let answer = format!(r#"{{"au":{{"code":"A","number":"{NEW}","expiry":"03/31"}}}}"#);
    let mapped = map(&told(str::to_owned), &answer);
    let json = serde_json::to_value(&mapped.card_update).unwrap();
    assert_eq!(json, serde_json::json!({"kind": "updated", "number": true, "expiry": true}));
    let whole = serde_json::to_value(&mapped).unwrap();
    assert!(whole.get("card_update").is_none(), "what is written for others says nothing of it");
    let written = [
        json.to_string(),
        whole.to_string(),
        format!("{mapped:?}{:?}", mapped.card_update),
        String::from_utf8_lossy(&postcard::to_stdvec(&mapped).unwrap()).into_owned(),
    ];
    for text in written {
        assert!(!text.contains(NEW) && !text.contains("0009"), "a number was written");
    }
}

#[test]
fn every_fault_of_it_is_found() {
    for (old, new, expected) in [
        ("kind = {", "kinds = {", "`kinds` is not known in [card_update]; did you mean `kind`?"),
        ("map = \"updater\" }", "map = \"update\" }", "there is no such map; write [map.update]"),
        ("{ path = \"au.code\", map = \"updater\" }", "\"au.code\"", "`kind` has no map"),
        (
            "A = \"updated\"",
            "A = \"new\"",
            "gives `new`, which an account updater does not say; write one of: updated",
        ),
        ("expiry_form = \"MM/YY\"\n", "", "`expiry` has no `expiry_form`; write expiry_form = \"MM/YY\""),
        (
            "expiry = { path = \"au.expiry\", after = \"exp \" }\n",
            "",
            "does not say where both month and year stand",
        ),
        (
            "expiry_form = \"MM/YY\"",
            "exp_month = \"au.month\"",
            "does not say where both month and year stand",
        ),
        ("\"MM/YY\"", "\"MM\"", "`expiry_form` does not say how an expiry is written"),
        ("[\"au.number\", \"au.pan\"]", "[]", "`number` has no path"),
        (
            "[\"au.number\", \"au.pan\"]",
            "\"//au/number\"",
            "a path of [card_update] is not of the answers' format",
        ),
        ("\"au.pan\"]", "\"au..pan\"]", "a path is malformed"),
    ] {
        assert!(TOLD.contains(old), "the row for {expected} replaces nothing");
        let Err(faults) = Connector::parse("told.toml", &TOLD.replacen(old, new, 1)) else {
            panic!("nobody noticed: {expected}")
        };
        let said: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|fault| fault.contains(expected)), "{expected} not in {said:#?}");
    }
    let empty = TOLD.split_once("kind = { path").unwrap().0.to_owned()
        + "[[rule]]\nhttp = 200\noutcome = \"approved\"\n";
    let faults = Connector::parse("told.toml", &empty).unwrap_err();
    assert!(faults.iter().any(|fault| fault.to_string().contains("[card_update] says nothing")));
}

#[test]
fn a_person_is_told_what_a_connector_reads() {
    let lines = |name: &str| {
        let all = builtin(name).unwrap().explain();
        all.into_iter().find(|(heading, _)| *heading == "card updates").map(|(_, lines)| lines.join("; "))
    };
    assert!(lines("sandbox").unwrap().contains("a new number, which goes into the vault and nowhere else"));
    let adyen = lines("adyen").unwrap();
    assert!(adyen.contains("a new expiry") && !adyen.contains("number, which"), "{adyen}");
    assert_eq!(lines("stripe"), None);
}

#[test]
fn worldpay_names_the_card_that_was_charged() {
    let answer = |updater: &str| {
        format!(
            r#"<?xml version="1.0" encoding="UTF-8"?><!DOCTYPE paymentService PUBLIC "-//WorldPay//DTD WorldPay PaymentService v1//EN" "http://dtd.worldpay.com/paymentService_v1.dtd">
            <paymentService version="1.4" merchantCode="M"><reply><orderStatus orderCode="o-1"><payment><paymentMethod>VISA-SSL</paymentMethod>
            <amount value="5000" currencyCode="GBP" exponent="2" debitCreditIndicator="credit"/><lastEvent>AUTHORISED</lastEvent>
            {updater}</payment></orderStatus></reply></paymentService>"#
        )
    };
    let old = r#"<originalCard><paymentMethod>VISA_CREDIT-SSL</paymentMethod><cardNumber>4444333322221111</cardNumber><expiryDate><date month="01" year="2027"/></expiryDate></originalCard>"#;
    let new = format!(
        r#"<newCard><paymentMethod>VISA_CREDIT-SSL</paymentMethod><cardNumber>{NEW}</cardNumber><expiryDate><date month="03" year="2031"/></expiryDate></newCard>"#
    );
    for (updater, expected) in [
        (
            format!("<accountUpdater>{old}{new}</accountUpdater>"),
            Some((UpdateKind::Updated, Some(NEW.to_owned()), Some((3, 2031)))),
        ),
        (format!("<accountUpdater>{old}</accountUpdater>"), None),
        (String::new(), None),
    ] {
        let mapped = builtin("worldpay").unwrap().map(Operation::Authorize, 200, answer(&updater).as_bytes());
        assert_eq!(mapped.outcome, Outcome::Approved);
        assert_eq!(facts(mapped.card_update), expected);
    }
}

/// As the vendor's own client has it in its tests, under the present name of the schema.
#[test]
fn vantiv_names_the_card_that_was_charged() {
    let answer = |updater: &str| {
        format!(
            r#"<cnpOnlineResponse version="11.4" response="0" message="Valid Format" xmlns="http://www.vantivcnp.com/schema">
            <saleResponse id="" reportGroup="101"><cnpTxnId>701777775456002000</cnpTxnId><response>000</response>
            <message>Approved</message><accountUpdater><originalCardInfo><type>VI</type><number>4000162019882000</number>
            <expDate>1110</expDate></originalCardInfo>{updater}</accountUpdater></saleResponse></cnpOnlineResponse>"#
        )
    };
    let of = |updater: &str| {
        let mapped = builtin("vantiv").unwrap().map(Operation::Sale, 200, answer(updater).as_bytes());
        facts(mapped.card_update)
    };
    let new =
        "<newCardInfo><type>VI</type><number>4457010000000009</number><expDate>1134</expDate></newCardInfo>";
    assert_eq!(of(new), Some((UpdateKind::Updated, Some("4457010000000009".to_owned()), Some((11, 34)))));
    let code = |code: u16| {
        format!("<extendedCardResponse><message>said</message><code>{code}</code></extendedCardResponse>")
    };
    assert_eq!(of(&code(501)), Some((UpdateKind::Closed, None, None)));
    assert_eq!(of(&code(504)), Some((UpdateKind::Contact, None, None)));
    assert_eq!(of(""), None);
}

#[test]
fn adyen_and_checkout_tell_the_expiry_and_keep_the_number() {
    for (status, kind) in [
        ("CardChanged", UpdateKind::Updated),
        ("CardExpiryChanged", UpdateKind::Expiry),
        ("CloseAccount", UpdateKind::Closed),
        ("ContactCardAccountHolder", UpdateKind::Contact),
    ] {
        let answer = serde_json::json!({ "pspReference": "8515000000000000", "resultCode": "Authorised",
            "additionalData": { "realtimeAccountUpdaterStatus": status, "expiryDate": "8/2033" } });
        let mapped = builtin("adyen").unwrap().map(Operation::Sale, 200, answer.to_string().as_bytes());
        assert_eq!(facts(mapped.card_update), Some((kind, None, Some((8, 2033)))));
    }
    // It is in every answer of an account that asked for it.
    let usual = br#"{"resultCode":"Authorised","additionalData":{"expiryDate":"8/2030"}}"#;
    assert!(builtin("adyen").unwrap().map(Operation::Sale, 200, usual).card_update.is_none());
    let checkout = |status: &str| {
        let answer = serde_json::json!({ "id": "pay_1", "approved": true, "status": "Authorized",
            "response_code": "10000",
            "source": { "account_update_status": status, "expiry_month": 8, "expiry_year": 2033 } });
        let mapped = builtin("checkout").unwrap().map(Operation::Sale, 201, answer.to_string().as_bytes());
        facts(mapped.card_update)
    };
    assert_eq!(checkout("card_expiry_updated"), Some((UpdateKind::Expiry, None, Some((8, 2033)))));
    assert_eq!(checkout("update_failed"), None);
}
