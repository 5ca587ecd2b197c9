//! `[webhook]`: what proves one, what it means, and what of it is a fault of the file.

use proptest::prelude::*;
use ring::hmac;
use serde_json::{Value, json};

use super::super::{
    Connector, DeclineClass, Delivery, Notification, Operation, Outcome, Says, Stated, Untrusted, builtin,
    builtin_text,
};
use super::CONNECTORS;

/// Published with Adyen's libraries and documents.
const ADYEN_KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";
const ADYEN_SIGNATURE: &str = "coqCmt/IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU+iCWo0=";
const NOW: i64 = 1_800_000_000;

fn adyen_item(signature: &str) -> Value {
    json!({
        "additionalData": { "hmacSignature": signature },
        "amount": { "value": 1130, "currency": "EUR" },
        "pspReference": "7914073381342284", "eventCode": "AUTHORISATION", "eventDate": "2026-11-29T10:00:00+01:00",
        "merchantAccountCode": "TestMerchant", "merchantReference": "TestPayment-1407325143704",
        "paymentMethod": "visa", "reason": "033899:1111:03/2030", "success": "true",
    })
}

fn in_a_body(items: &[Value]) -> Vec<u8> {
    let items: Vec<Value> = items.iter().map(|item| json!({ "NotificationRequestItem": item })).collect();
    json!({ "live": "false", "notificationItems": items }).to_string().into_bytes()
}

fn read(
    connector: &Connector,
    headers: &[(&str, &str)],
    body: &[u8],
    sets: &[Vec<(&str, &str)>],
) -> Result<Vec<Notification>, Untrusted> {
    let headers: Vec<(String, String)> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    connector.read_webhook(&Delivery { headers: &headers, body, unix_s: NOW }, sets)
}

/// An item of Adyen's, signed with the key above.
fn signed(edit: impl Fn(&mut Value)) -> Value {
    let mut item = adyen_item("");
    edit(&mut item);
    let text = |pointer: &str| match item.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let message = [
        "/pspReference",
        "/originalReference",
        "/merchantAccountCode",
        "/merchantReference",
        "/amount/value",
        "/amount/currency",
        "/eventCode",
        "/success",
    ]
    .map(text)
    .join(":");
    let key = data_encoding::HEXUPPER.decode(ADYEN_KEY.as_bytes()).unwrap();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), message.as_bytes());
    item["additionalData"]["hmacSignature"] = data_encoding::BASE64.encode(tag.as_ref()).into();
    item
}

#[test]
fn adyen_s_own_example_is_believed_and_nothing_that_was_changed() {
    let adyen = builtin("adyen").unwrap();
    let key = vec![("webhook_hmac_key", ADYEN_KEY)];
    let body = in_a_body(&[adyen_item(ADYEN_SIGNATURE)]);
    let told = read(&adyen, &[], &body, std::slice::from_ref(&key)).unwrap();
    let [one] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((one.says, one.mapped.outcome), (Says::Approved, Outcome::Approved));
    assert_eq!(one.of, [Operation::Sale, Operation::Authorize, Operation::Verify]);
    assert_eq!(one.reference.as_deref(), Some("TestPayment-1407325143704"));
    assert_eq!(one.mapped.transaction_id.as_deref(), Some("7914073381342284"));
    assert_eq!(one.stated, Stated::Amount(1130, "EUR".to_owned()));
    // The reason of an approval holds the card's expiry.
    assert_eq!((&one.mapped.message, &one.mapped.processor_code), (&None, &None));
    // The second published example: another key.
    let other = "DFB1EB5485895CFA84146406857104ABB4CBCABDC8AAF103A624C8F6A3EAAB00";
    let body = in_a_body(&[adyen_item("Ny9gS2veKo5E4w8/OL6xz1/wvT/hYkAXy1xNc/QvO4I=")]);
    assert_eq!(read(&adyen, &[], &body, std::slice::from_ref(&key)).unwrap_err(), Untrusted::Signature);
    // Two keys while rotating: either.
    assert!(read(&adyen, &[], &body, &[key.clone(), vec![("webhook_hmac_key", other)]]).is_ok());
    for (path, value) in [
        ("/amount/value", json!(1131)),
        ("/amount/currency", json!("USD")),
        ("/success", json!("false")),
        ("/eventCode", json!("CAPTURE")),
        ("/merchantReference", json!("TestPayment-1407325143705")),
        ("/pspReference", json!("7914073381342285")),
    ] {
        let mut item = adyen_item(ADYEN_SIGNATURE);
        *item.pointer_mut(path).unwrap() = value;
        let refused = read(&adyen, &[], &in_a_body(&[item]), std::slice::from_ref(&key));
        assert_eq!(refused.unwrap_err(), Untrusted::Signature, "{path}");
    }
    for (signature, why) in
        [("", Untrusted::Unsigned), ("!", Untrusted::Unsigned), ("AAAA", Untrusted::Signature)]
    {
        let refused = read(&adyen, &[], &in_a_body(&[adyen_item(signature)]), std::slice::from_ref(&key));
        assert_eq!(refused.unwrap_err(), why);
    }
    // One of two that is not signed: neither counts.
    let two = in_a_body(&[signed(|_| {}), adyen_item("AAAA")]);
    assert_eq!(read(&adyen, &[], &two, std::slice::from_ref(&key)).unwrap_err(), Untrusted::Signature);
    // Without a key nothing is believed; an empty one would be anybody's.
    assert_eq!(read(&adyen, &[], &body, &[]).unwrap_err(), Untrusted::Signature);
    assert_eq!(
        read(&adyen, &[], &body, &[vec![("webhook_hmac_key", "")]]).unwrap_err(),
        Untrusted::Signature
    );
    for garbage in ["", "x", "[]", "{}", "{\"notificationItems\":[]}", "{\"notificationItems\":[{}]}"] {
        let refused = read(&adyen, &[], garbage.as_bytes(), std::slice::from_ref(&key));
        assert_eq!(refused.unwrap_err(), Untrusted::Unreadable, "{garbage}");
    }
}

#[test]
fn a_user_name_and_password_are_asked_for_where_the_operator_gave_them() {
    let adyen = builtin("adyen").unwrap();
    let with = vec![("webhook_hmac_key", ADYEN_KEY), ("webhook_basic_auth", "dXNlcjpwYXNz")];
    let body = in_a_body(&[signed(|_| {})]);
    assert!(
        read(&adyen, &[("authorization", "Basic dXNlcjpwYXNz")], &body, std::slice::from_ref(&with)).is_ok()
    );
    for headers in [
        &[][..],
        &[("authorization", "Basic dXNlcjpwYXNy")],
        &[("authorization", "Basic dXNlcjpwYXNz"), ("authorization", "Basic dXNlcjpwYXNz")],
    ] {
        let refused = read(&adyen, headers, &body, std::slice::from_ref(&with));
        assert_eq!(refused.unwrap_err(), Untrusted::Header);
    }
}

#[test]
fn each_event_of_adyen_says_what_it_means() {
    let adyen = builtin("adyen").unwrap();
    let of = |event: &str, success: &str| {
        let item = signed(|item| {
            item["eventCode"] = event.into();
            item["success"] = success.into();
            item["reason"] = "Insufficient balance".into();
        });
        let told = read(&adyen, &[], &in_a_body(&[item]), &[vec![("webhook_hmac_key", ADYEN_KEY)]]).unwrap();
        told.into_iter().next().unwrap()
    };
    for (event, success, says, first) in [
        ("AUTHORISATION", "false", Says::Declined, Some(Operation::Sale)),
        ("CAPTURE", "true", Says::Approved, Some(Operation::Capture)),
        ("CAPTURE", "false", Says::Declined, Some(Operation::Capture)),
        ("CAPTURE_FAILED", "true", Says::Reversed, Some(Operation::Capture)),
        ("REFUND", "true", Says::Approved, Some(Operation::Refund)),
        ("REFUND_FAILED", "true", Says::Reversed, Some(Operation::Refund)),
        ("REFUNDED_REVERSED", "true", Says::Reversed, Some(Operation::Refund)),
        ("CANCELLATION", "true", Says::Approved, Some(Operation::Void)),
        ("CANCELLATION", "false", Says::Declined, Some(Operation::Void)),
        ("NOTIFICATION_OF_CHARGEBACK", "true", Says::DisputeOpened, Some(Operation::Sale)),
        ("CHARGEBACK", "true", Says::ChargedBack, Some(Operation::Sale)),
        ("CHARGEBACK_REVERSED", "true", Says::ChargebackReversed, Some(Operation::Sale)),
        ("SECOND_CHARGEBACK", "true", Says::ChargedBackAgain, Some(Operation::Sale)),
        ("PREARBITRATION_LOST", "true", Says::Noted, Some(Operation::Sale)),
        ("REPORT_AVAILABLE", "true", Says::Ignored, None),
        ("AN_EVENT_OF_TOMORROW", "true", Says::Ignored, None),
    ] {
        let told = of(event, success);
        assert_eq!((told.says, told.of.first().copied()), (says, first), "{event}");
    }
    let declined = of("AUTHORISATION", "false").mapped;
    assert_eq!((declined.outcome, declined.unknown), (Outcome::Declined, false));
    assert_eq!(declined.message.as_deref(), Some("Insufficient balance"));
    assert!(declined.decline_class.is_some_and(|class| class != DeclineClass::Error));
}

fn hex_tag(key: &str, message: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    data_encoding::HEXLOWER.encode(hmac::sign(&key, message).as_ref())
}

#[test]
fn a_signature_over_the_whole_body_stands_in_a_header() {
    let checkout = builtin("checkout").unwrap();
    let body = json!({
        "id": "evt_1", "type": "payment_captured",
        "data": { "id": "pay_1", "action_id": "act_1", "reference": "att_x", "amount": 1250, "currency": "USD",
                  "response_code": "10000" },
    })
    .to_string();
    let sets = [vec![("webhook_key", "key-one")], vec![("webhook_key", "key-two")]];
    for key in ["key-one", "key-two"] {
        let tag = hex_tag(key, body.as_bytes());
        let told = read(&checkout, &[("cko-signature", &tag)], body.as_bytes(), &sets).unwrap();
        assert_eq!((told[0].says, told[0].of.as_slice()), (Says::Approved, &[Operation::Capture][..]));
        assert_eq!(told[0].mapped.transaction_id.as_deref(), Some("act_1"));
        assert_eq!(told[0].original.as_deref(), Some("pay_1"));
        let changed = body.replace("1250", "1251");
        let refused = read(&checkout, &[("Cko-Signature", &tag)], changed.as_bytes(), &sets);
        assert_eq!(refused.unwrap_err(), Untrusted::Signature);
    }
    let other = hex_tag("key-three", body.as_bytes());
    assert_eq!(
        read(&checkout, &[("Cko-Signature", &other)], body.as_bytes(), &sets).unwrap_err(),
        Untrusted::Signature
    );
    assert_eq!(read(&checkout, &[], body.as_bytes(), &sets).unwrap_err(), Untrusted::Unsigned);
    // What is signed and holds nothing is another matter than what is not signed.
    let tag = hex_tag("key-one", b"nonsense");
    assert_eq!(
        read(&checkout, &[("Cko-Signature", &tag)], b"nonsense", &sets).unwrap_err(),
        Untrusted::Unreadable
    );
}

/// The sandbox's connector with webhooks as Stripe signs them: `t=…,v1=…` over time and body.
fn timed(edit: impl Fn(String) -> String) -> Result<Connector, Vec<super::super::Fault>> {
    let text = builtin_text("sandbox").unwrap().replacen(
        "[credentials]",
        "[credentials]\nhook = { optional = true, note = \"whsec_…\" }",
        1,
    );
    let section = r#"
[webhook]
item = "data.object"
reference = "metadata.attempt"
field.amount_approved = "amount"
field.currency = "currency"

[webhook.verify]
alg = "hmac-sha256"
secret = "hook"
msg = "{time}.{body}"
enc = ["hex"]
header = "Stripe-Signature"
part = "v1"
time = "t"
tolerance_s = 300

[[webhook.event]]
status = "succeeded"
of = ["sale"]
outcome = "approved"
"#;
    Connector::parse("timed.toml", &edit(text + section))
}

#[test]
fn a_signature_has_a_time() {
    let timed = timed(|text| text).unwrap();
    let body = br#"{"data":{"object":{"status":"succeeded","amount":500,"currency":"usd","metadata":{"attempt":"att_1"}}}}"#;
    let sets = [vec![("hook", "whsec_test")]];
    let tag = |seconds: i64| hex_tag("whsec_test", &[seconds.to_string().as_bytes(), b".", body].concat());
    for (header, expected) in [
        (format!("t={NOW},v1={}", tag(NOW)), Ok(())),
        (format!("t={}, v1={}", NOW - 300, tag(NOW - 300)), Ok(())),
        // While the processor rotates its key, one of several is ours.
        (format!("t={NOW},v1={},v1={},v0=x", "00".repeat(32), tag(NOW)), Ok(())),
        (format!("t={},v1={}", NOW - 301, tag(NOW - 301)), Err(Untrusted::Time)),
        (format!("t={},v1={}", NOW + 301, tag(NOW + 301)), Err(Untrusted::Time)),
        // A fresh time over an old signature.
        (format!("t={NOW},v1={}", tag(NOW - 400)), Err(Untrusted::Signature)),
        (format!("v1={}", tag(NOW)), Err(Untrusted::Unsigned)),
        (format!("t={NOW},v0={}", tag(NOW)), Err(Untrusted::Unsigned)),
        ("t=x,v1=x".to_owned(), Err(Untrusted::Unsigned)),
    ] {
        let read = read(&timed, &[("stripe-signature", &header)], body, &sets);
        assert_eq!(read.as_ref().map(|_| ()).map_err(|why| *why), expected, "{header}");
        if let Ok(told) = read {
            assert_eq!(told[0].stated, Stated::Amount(500, "USD".to_owned()));
        }
    }
}

#[test]
fn every_fault_of_a_webhook_section_is_found_when_it_is_loaded() {
    for (from, to, said) in [
        ("alg = \"hmac-sha256\"", "alg = \"sha256\"", "a hash without a key proves nothing"),
        ("secret = \"hook\"\n", "", "[webhook.verify] has no `secret`"),
        ("secret = \"hook\"", "secret = \"hok\"", "`secret` names no credential"),
        ("msg = \"{time}.{body}\"", "msg = \"{time}\"", "`msg` does not hold the body"),
        (
            "msg = \"{time}.{body}\"",
            "msg = \"{body}\"",
            "the time of a signature is either checked or signed",
        ),
        ("time = \"t\"\n", "", "`time` and `tolerance_s` do not stand together"),
        ("tolerance_s = 300", "tolerance_s = 100000", "`tolerance_s` is not between"),
        ("msg = \"{time}.{body}\"", "msg = \"{time}.{body}.{hook}\"", "`{hook}` is not known here"),
        ("msg = \"{time}.{body}\"", "msg = \"{time}.{body}.{cred.hook}\"", "the message holds a credential"),
        ("enc = [\"hex\"]\n", "", "[webhook.verify] has no `enc`"),
        ("header = \"Stripe-Signature\"\n", "", "does not say where the signature is"),
        ("reference = \"metadata.attempt\"\n", "", "nothing in [webhook] says which attempt"),
        ("status = \"succeeded\"\n", "", "an event without a test"),
        ("of = [\"sale\"]\n", "", "[[webhook.event]] has no `of`"),
        ("of = [\"sale\"]", "of = [\"lookup\"]", "a look-up is not told of"),
        ("outcome = \"approved\"\n", "outcome = \"aproved\"\n", "`outcome` has an unknown word"),
        (
            "item = \"data.object\"",
            "item = \"data.object\"\nitems = \"x\"",
            "`items` is not known in [webhook]",
        ),
        ("item = \"data.object\"", "item = \"//x\"", "a path of [webhook] is not of its format"),
        ("item = \"data.object\"", "item = \"data.object\"\nanswer = \"a\\nb\"", "`answer` is no short line"),
        ("optional = true, ", "", ""),
    ] {
        let parsed = timed(|text| {
            let (head, tail) = text.split_once("[webhook]").unwrap();
            let edited = if head.contains(from) {
                (head.replacen(from, to, 1), tail.to_owned())
            } else {
                (head.to_owned(), tail.replacen(from, to, 1))
            };
            let edited = format!("{}[webhook]{}", edited.0, edited.1);
            assert_ne!(edited, text, "{from}");
            edited
        });
        match parsed {
            Ok(_) => assert_eq!(said, "", "nobody noticed: {from} as {to}"),
            Err(faults) => {
                let all: Vec<String> = faults.iter().map(ToString::to_string).collect();
                assert!(!said.is_empty() && all.iter().any(|fault| fault.contains(said)), "{said}: {all:#?}");
                assert!(faults.iter().all(|fault| fault.line > 0 && !fault.instead.is_empty()));
            }
        }
    }
    // An event behind one that takes all of its kind.
    let twice = timed(|text| {
        text + "\n[[webhook.event]]\nstatus = \"succeeded\"\namount = 1\nof = [\"sale\"]\noutcome = \"declined\"\n"
    });
    assert!(twice.unwrap_err()[0].problem.contains("can never match"));
}

#[test]
fn what_decides_must_be_signed() {
    let adyen = builtin_text("adyen").unwrap();
    for part in ["{item.success}", "{item.merchantReference}:", "{item.amount.value}:", "{item.eventCode}:"] {
        let text = adyen.replacen(part, "", 1);
        assert_ne!(text, adyen);
        let faults = Connector::parse("adyen.toml", &text).unwrap_err();
        assert!(
            faults.iter().any(|fault| fault.problem.contains("the signature does not cover it")),
            "{faults:?}"
        );
    }
    // A credential that may be missing may not stand in a request.
    let text = adyen.replacen("{cred.merchant_account}", "{cred.webhook_basic_auth}", 1);
    let faults = Connector::parse("adyen.toml", &text).unwrap_err();
    assert!(
        faults.iter().any(|fault| fault.problem.contains("is optional and stands in a request")),
        "{faults:?}"
    );
}

#[test]
fn what_is_shown_of_a_notification_holds_no_value() {
    let adyen = builtin("adyen").unwrap();
    let told = adyen.map_webhook(&in_a_body(&[adyen_item("")])).unwrap();
    let shown = format!("{told:?}");
    assert!(
        shown.contains("Approved") && !shown.contains("7914") && !shown.contains("TestPayment"),
        "{shown}"
    );
    assert!(adyen.map_webhook(b"{}").is_none() && builtin("sandbox").unwrap().map_webhook(b"{}").is_none());
}

proptest! {
    #[test]
    fn no_webhook_breaks_the_reading(
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            ".{0,80}".prop_map(String::into_bytes),
            (".{0,20}", any::<f64>(), any::<bool>()).prop_map(|(text, number, flag)| in_a_body(&[json!({
                "pspReference": text, "amount": { "value": number, "currency": text }, "success": flag,
                "eventCode": "CAPTURE", "merchantReference": [text], "additionalData": { "hmacSignature": text },
            })])),
        ],
        header in ".{0,60}",
    ) {
        for (_, connector) in CONNECTORS.iter().filter(|(_, connector)| connector.has_webhook()) {
            let fields = connector.webhook_credentials();
            let sets = [fields.iter().map(|field| (*field, "00ff")).collect::<Vec<_>>()];
            let headers = [("cko-signature", header.as_str()), ("authorization", header.as_str())];
            prop_assert!(read(connector, &headers, &body, &sets).is_err());
            for one in connector.map_webhook(&body).into_iter().flatten() {
                let bounded = |text: &Option<String>| text.as_ref().is_none_or(|text| text.len() <= 255);
                prop_assert!(bounded(&one.reference) && bounded(&one.original) && bounded(&one.mapped.transaction_id));
            }
        }
        let timed = timed(|text| text).unwrap();
        prop_assert!(read(&timed, &[("stripe-signature", &header)], &body, &[vec![("hook", "k")]]).is_err());
    }
}
