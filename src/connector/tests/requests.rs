//! What the built-in connectors send.

use super::super::{
    Amount, Connector, Initiator, Operation, Previous, Reason, RenderError, StoredCredential, Use, Values,
    builtin,
};
use super::{NUMBER, merchant, sale};

fn pairs(connector: &Connector, operation: Operation, values: &Values<'_>) -> Vec<(String, String)> {
    let rendered = connector.render(operation, values).unwrap();
    form_urlencoded::parse(&rendered.body).into_owned().collect()
}

fn get<'p>(pairs: &'p [(String, String)], key: &str) -> Option<&'p str> {
    pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
}

#[test]
fn every_builtin_connector_is_sound() {
    for name in super::super::builtin_names() {
        let text = super::super::builtin_text(name).unwrap();
        let connector = match Connector::parse(name, text) {
            Ok(connector) => connector,
            Err(faults) => {
                panic!("{}", faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
            }
        };
        assert_eq!(connector.name(), name);
        // Sale, authorize, capture, refund and void at least, and a verification or a look-up.
        assert!(connector.operations().count() >= 6, "{name}");
        assert_eq!(connector.requires(Operation::Sale), Vec::<String>::new());
    }
}

#[test]
fn a_stripe_sale() {
    let stripe = builtin("stripe").unwrap();
    let rendered = stripe.render(Operation::Sale, &sale()).unwrap();
    assert_eq!((rendered.method, rendered.path_and_query.as_str()), ("POST", "/v1/payment_intents"));
    let headers: Vec<(&str, &str)> = rendered.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(
        headers,
        [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Authorization", "Bearer sk_test_canary"),
            ("Stripe-Version", "2024-12-18.acacia"),
            ("Idempotency-Key", "att_test"),
        ]
    );
    let expected = [
        ("amount", "2020"),
        ("currency", "usd"),
        ("capture_method", "automatic"),
        ("confirm", "true"),
        ("payment_method_types[0]", "card"),
        ("payment_method_data[type]", "card"),
        ("payment_method_data[card][number]", NUMBER),
        ("payment_method_data[card][exp_month]", "3"),
        ("payment_method_data[card][exp_year]", "2030"),
        ("payment_method_data[billing_details][address][postal_code]", "94107"),
        ("metadata[attempt]", "att_test"),
        ("expand[0]", "latest_charge"),
    ];
    let sent = pairs(&stripe, Operation::Sale, &sale());
    assert_eq!(sent.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), expected);
}

#[test]
fn stored_credentials_at_stripe() {
    let stripe = builtin("stripe").unwrap();
    let kind = "payment_method_options[card][stored_credential_transaction_type]";
    let ntid = "payment_method_options[card][mit_exemption][network_transaction_id]";

    let sent = pairs(&stripe, Operation::Sale, &merchant());
    assert_eq!(get(&sent, kind), Some("stored_off_session_recurring"));
    assert_eq!(get(&sent, ntid), Some("1098510912210968"));
    assert_eq!(get(&sent, "off_session"), None);

    let stored = merchant().stored_credential.unwrap();
    let with =
        |stored| pairs(&stripe, Operation::Authorize, &Values { stored_credential: Some(stored), ..sale() });
    let sent = with(StoredCredential { reason: Reason::Unscheduled, ..stored });
    assert_eq!(get(&sent, kind), Some("stored_off_session_unscheduled"));
    let sent = with(StoredCredential { ntid: None, ..stored });
    assert_eq!((get(&sent, kind), get(&sent, "off_session")), (None, Some("true")));
    let customer = StoredCredential { initiator: Initiator::Customer, ..stored };
    let sent = with(StoredCredential { usage: Use::Initial, ..customer });
    assert_eq!((get(&sent, kind), get(&sent, ntid)), (Some("setup_on_session"), None));
    assert_eq!(get(&with(customer), kind), Some("stored_on_session"));
    assert_eq!(get(&sent, "capture_method"), Some("manual"));
}

#[test]
fn what_follows_a_stripe_sale() {
    let stripe = builtin("stripe").unwrap();
    let previous = Previous { transaction: Some("pi_3OA/../x"), ..Previous::default() };
    let values = Values { card: None, previous, ..sale() };
    let path = |operation| stripe.render(operation, &values).unwrap().path_and_query;
    assert_eq!(path(Operation::Capture), "/v1/payment_intents/pi_3OA%2F..%2Fx/capture");
    assert_eq!(path(Operation::Void), "/v1/payment_intents/pi_3OA%2F..%2Fx/cancel");
    assert_eq!(path(Operation::Refund), "/v1/refunds");
    assert_eq!(
        path(Operation::Lookup),
        "/v1/payment_intents/search?query=metadata%5B%27attempt%27%5D%3A%27att_test%27&expand%5B0%5D=data.latest_charge"
    );
    let sent = pairs(&stripe, Operation::Capture, &values);
    assert_eq!(get(&sent, "amount_to_capture"), Some("2020"));
    let sent = pairs(&stripe, Operation::Refund, &values);
    assert_eq!((get(&sent, "amount"), get(&sent, "payment_intent")), (Some("2020"), Some("pi_3OA/../x")));
    let lookup = stripe.render(Operation::Lookup, &values).unwrap();
    assert_eq!(lookup.method, "GET");
    assert!(lookup.body.is_empty());
    assert!(lookup.headers.iter().all(|(name, _)| name != "Idempotency-Key" && name != "Content-Type"));
    let none = Values { previous: Previous::default(), ..values };
    assert_eq!(
        stripe.render(Operation::Refund, &none).err(),
        Some(RenderError::Missing("prev.transaction".to_owned()))
    );
}

#[test]
fn a_sandbox_sale_and_what_follows() {
    let sandbox = builtin("sandbox").unwrap();
    let values = Values { invoice: Some("INV-\"1\""), ..merchant() };
    let rendered = sandbox.render(Operation::Sale, &values).unwrap();
    assert_eq!((rendered.method, rendered.path_and_query.as_str()), ("POST", "/v1/payments"));
    let text = std::str::from_utf8(&rendered.body).unwrap();
    assert_eq!(
        text,
        r#"{"reference":"att_test","operation":"sale","amount":2020,"currency":"USD","card":{"number":"4242424242424242","exp_month":3,"exp_year":2030},"billing":{"zip":"94107"},"stored_credential":{"use":"subsequent","initiator":"merchant","reason":"recurring","network_transaction_id":"1098510912210968"},"invoice":"INV-\"1\"","allow_partial":false}"#
    );
    let bare = Values { billing: Default::default(), ..sale() };
    let rendered = sandbox.render(Operation::Verify, &bare).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&rendered.body).unwrap();
    // An object whose leaves are all left out is left out as well.
    assert!(json.get("billing").is_none() && json.get("stored_credential").is_none());
    assert_eq!(json["amount"], 0);
    let previous = Previous { transaction: Some("pay_1"), ..Previous::default() };
    let values = Values { previous, capture_final: true, ..sale() };
    let capture = sandbox.render(Operation::Capture, &values).unwrap();
    assert_eq!(capture.path_and_query, "/v1/payments/pay_1/captures");
    assert_eq!(capture.body.as_slice(), br#"{"reference":"att_test","amount":2020,"final":true}"#);
    let lookup = sandbox.render(Operation::Lookup, &values).unwrap();
    assert_eq!(lookup.path_and_query, "/v1/payments?reference=att_test");
}

/// Golden: what Stripe is told for our minor units.
#[test]
fn amounts_at_stripe() {
    let stripe = builtin("stripe").unwrap();
    let amount = |minor, currency| {
        let values = Values { amount: Some(Amount { minor, currency }), ..sale() };
        stripe.render(Operation::Sale, &values).map(|rendered| {
            let pairs: Vec<(String, String)> = form_urlencoded::parse(&rendered.body).into_owned().collect();
            format!("{} {}", get(&pairs, "amount").unwrap(), get(&pairs, "currency").unwrap())
        })
    };
    let refused = Err(RenderError::AmountNotRepresentable);
    assert_eq!(amount(500, "USD").unwrap(), "500 usd");
    assert_eq!(amount(500, "JPY").unwrap(), "500 jpy");
    assert_eq!(amount(500, "CLP").unwrap(), "500 clp");
    assert_eq!(amount(5, "ISK").unwrap(), "500 isk");
    assert_eq!(amount(5, "UGX").unwrap(), "500 ugx");
    assert_eq!(amount(5120, "KWD").unwrap(), "5120 kwd");
    assert_eq!(amount(5124, "KWD"), refused);
    assert_eq!(amount(500, "MGA").unwrap(), "5 mga");
    assert_eq!(amount(550, "MGA"), refused);
    assert_eq!(amount(-1, "USD"), refused);
    assert_eq!(amount(i64::MAX, "ISK"), refused);
    assert_eq!(amount(500, "XXX"), Err(RenderError::UnknownCurrency));
    assert_eq!(stripe.check_amount(5124, "KWD"), Err(RenderError::AmountNotRepresentable));
    assert_eq!(stripe.check_amount(5120, "KWD"), Ok(()));
}

/// Golden: the sandbox counts like ISO 4217, and so do we.
#[test]
fn amounts_at_the_sandbox() {
    let sandbox = builtin("sandbox").unwrap();
    for (minor, currency) in [(500, "JPY"), (5124, "KWD"), (5, "ISK"), (500, "CLP"), (5, "UGX"), (1, "USD")] {
        let values = Values { amount: Some(Amount { minor, currency }), ..sale() };
        let rendered = sandbox.render(Operation::Sale, &values).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&rendered.body).unwrap();
        assert_eq!((json["amount"].as_i64(), json["currency"].as_str()), (Some(minor), Some(currency)));
    }
}

#[test]
fn a_mac_covers_the_card_and_no_secret() {
    let stripe = builtin("stripe").unwrap();
    let mut values = sale();
    let mac = |values: &Values<'_>| stripe.render_for_mac(Operation::Sale, values).unwrap();
    let plain = mac(&values);
    let holds = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds(&plain, NUMBER) && holds(&plain, "att_test"));
    assert!(!holds(&plain, "sk_test_canary") && !holds(&plain, "Authorization"));
    // The verification code's value never shows; that there was one does.
    if let Some(card) = values.card.as_mut() {
        card.cvc = Some("737");
    }
    let first = mac(&values);
    if let Some(card) = values.card.as_mut() {
        card.cvc = Some("123");
    }
    assert_eq!(*first, *mac(&values));
    assert_ne!(*first, *plain);
    assert!(!holds(&first, "123") && !holds(&first, "737"));
    values.credentials = &[("secret_key", "rotated")];
    assert_eq!(*first, *mac(&values));
    values.amount = Some(Amount { minor: 2021, currency: "USD" });
    assert_ne!(*first, *mac(&values));
}

#[test]
fn showing_a_request_shows_no_secret() {
    for name in ["stripe", "sandbox"] {
        let connector = builtin(name).unwrap();
        let mut values = sale();
        if let Some(card) = values.card.as_mut() {
            card.cvc = Some("737");
        }
        let shown = connector.render_for_show(Operation::Sale, &values).unwrap();
        let body = String::from_utf8_lossy(&shown.body).into_owned();
        let headers: String = shown.headers.iter().map(|(n, v)| format!("{n}: {}\n", **v)).collect();
        assert!(body.contains("424242…4242") && body.contains("‹cvc›"), "{body}");
        assert!(headers.contains("Authorization: Bearer ‹secret_key›\n"));
        for secret in [NUMBER, "737", "sk_test_canary"] {
            assert!(!body.contains(secret) && !headers.contains(secret));
        }
    }
}

#[test]
fn errors_hold_no_value() {
    let stripe = builtin("stripe").unwrap();
    let secrets = [("secret_key", "sk_test_\ncanary")];
    let values = Values { credentials: &secrets, ..sale() };
    let error = stripe.render(Operation::Sale, &values).unwrap_err();
    assert_eq!(error, RenderError::Unsendable("header `Authorization`".to_owned()));
    assert!(!format!("{error} {error:?}").contains("canary"));
    let values = Values { attempt_id: "canary\r\nX-Evil: 1", ..sale() };
    let error = stripe.render(Operation::Sale, &values).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("canary"));
    let values = Values { amount: None, ..sale() };
    assert_eq!(
        stripe.render(Operation::Sale, &values).err(),
        Some(RenderError::Missing("amount.minor".to_owned()))
    );
    let long = "x".repeat(70_000);
    let values = Values { description: Some(&long), ..sale() };
    assert_eq!(stripe.render(Operation::Sale, &values).err(), Some(RenderError::TooLarge));
    let previous = Previous { transaction: Some(&long), ..Previous::default() };
    let values = Values { previous, ..sale() };
    assert_eq!(stripe.render(Operation::Void, &values).err(), Some(RenderError::TooLarge));
    let values = Values { attempt_id: &long, ..sale() };
    assert_eq!(stripe.render(Operation::Lookup, &values).err(), Some(RenderError::TooLarge));
    assert_eq!(format!("{:?}", sale()), "Values(REDACTED)");
    assert_eq!(format!("{:?}", stripe.render(Operation::Sale, &sale()).unwrap()), "Rendered(REDACTED)");
}
