//! Stripe's wire form.

use super::*;

const STRIPE_CARD: [(&str, &str); 5] = [
    ("payment_method_data[type]", "card"),
    ("payment_method_data[card][exp_month]", "12"),
    ("payment_method_data[card][exp_year]", "2030"),
    ("confirm", "true"),
    ("expand[0]", "latest_charge"),
];

fn intent<'a>(number: &'a str, attempt: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut pairs = vec![
        ("amount", "2000"),
        ("currency", "usd"),
        ("payment_method_data[card][number]", number),
        ("metadata[attempt]", attempt),
    ];
    pairs.extend(STRIPE_CARD);
    pairs.extend_from_slice(more);
    pairs
}

#[test]
fn a_stripe_intent_succeeds_and_is_found_three_ways() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let zip = ("payment_method_data[billing_details][address][postal_code]", "10001");
    let got = sandbox.form("/v1/payment_intents", "k", &intent(APPROVED, "att_1", &[zip])).unwrap();
    assert_eq!((got.status, got.json["status"].as_str()), (200, Some("succeeded")));
    assert_eq!(got.json["amount_received"], 2000);
    let card = &got.json["latest_charge"]["payment_method_details"]["card"];
    assert_eq!(card["checks"]["address_postal_code_check"], "pass");
    assert!(card["network_transaction_id"].is_string());
    let id = got.json["id"].as_str().unwrap();
    assert_eq!(sandbox.get(&format!("/v1/payment_intents/{id}")).json["id"], id);
    assert_eq!(sandbox.get("/v1/payment_intents?limit=3").json["data"][0]["id"], id);
    let search = sandbox.get("/v1/payment_intents/search?query=metadata%5B%27attempt%27%5D%3A%27att_1%27");
    assert_eq!(search.json["data"][0]["metadata"]["attempt"], "att_1");
    let again = sandbox.form("/v1/payment_intents", "k", &intent(APPROVED, "att_1", &[zip])).unwrap();
    assert!(again.is_replay());
    assert_eq!(got.json, again.json);
    let other = sandbox.form("/v1/payment_intents", "k", &intent(APPROVED, "att_2", &[])).unwrap();
    assert_eq!((other.status, other.json["error"]["type"].as_str()), (400, Some("idempotency_error")));
    assert_eq!(sandbox.get(&format!("/v1/payments/{id}")).status, 404, "the forms do not see each other");
}

#[test]
fn stripe_declines_hold_the_intent_and_both_codes() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    for (number, code, decline) in [
        ("4000000000009995", "card_declined", Some("insufficient_funds")),
        ("4000000000000002", "card_declined", Some("generic_decline")),
        ("4000000000000069", "expired_card", None),
        ("4242424242424241", "incorrect_number", None),
    ] {
        let got = sandbox.form("/v1/payment_intents", number, &intent(number, "att", &[])).unwrap();
        let error = &got.json["error"];
        assert_eq!((got.status, error["type"].as_str()), (402, Some("card_error")));
        assert_eq!((error["code"].as_str(), error["decline_code"].as_str()), (Some(code), decline));
        assert_eq!(error["payment_intent"]["status"], "requires_payment_method");
    }
    let expired = [("payment_method_data[card][exp_year]", "2020")];
    let mut pairs = intent(APPROVED, "att", &[]);
    pairs.retain(|(name, _)| *name != expired[0].0);
    pairs.extend(expired);
    let got = sandbox.form("/v1/payment_intents", "exp", &pairs).unwrap();
    assert_eq!((got.status, got.json["error"]["code"].as_str()), (402, Some("invalid_expiry_year")));
}

#[test]
fn stripe_authentication_depends_on_who_is_there() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let present = sandbox.form("/v1/payment_intents", "p", &intent("4000002760003184", "att", &[])).unwrap();
    assert_eq!((present.status, present.json["status"].as_str()), (200, Some("requires_action")));
    let cancel = format!("/v1/payment_intents/{}/cancel", present.json["id"].as_str().unwrap());
    assert_eq!(sandbox.form(&cancel, "c", &[]).unwrap().json["status"], "canceled");
    let absent = intent("4000002760003184", "att", &[("off_session", "true")]);
    let absent = sandbox.form("/v1/payment_intents", "a", &absent).unwrap();
    assert_eq!(
        (absent.status, absent.json["error"]["code"].as_str()),
        (402, Some("authentication_required"))
    );
}

#[test]
fn stripe_captures_cancels_and_refunds_within_the_money_rules() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let manual = [("capture_method", "manual")];
    let hold = sandbox.form("/v1/payment_intents", "h", &intent(APPROVED, "h", &manual)).unwrap();
    assert_eq!(
        (&hold.json["status"], &hold.json["amount_capturable"]),
        (&"requires_capture".into(), &2000.into())
    );
    let id = hold.json["id"].as_str().unwrap();
    let capture = format!("/v1/payment_intents/{id}/capture");
    assert_eq!(sandbox.form(&capture, "c0", &[("amount_to_capture", "2001")]).unwrap().status, 400);
    let captured = sandbox.form(&capture, "c1", &[("amount_to_capture", "1500")]).unwrap();
    assert_eq!(
        (&captured.json["status"], &captured.json["amount_received"]),
        (&"succeeded".into(), &1500.into())
    );
    let twice = sandbox.form(&capture, "c2", &[]).unwrap();
    assert_eq!(
        (twice.status, twice.json["error"]["code"].as_str()),
        (400, Some("payment_intent_unexpected_state"))
    );
    assert_eq!(sandbox.form(&format!("/v1/payment_intents/{id}/cancel"), "x", &[]).unwrap().status, 400);
    let much = sandbox.form("/v1/refunds", "r0", &[("payment_intent", id), ("amount", "1501")]).unwrap();
    assert_eq!(much.status, 400);
    let refund =
        sandbox.form("/v1/refunds", "r1", &[("payment_intent", id), ("metadata[attempt]", "rf")]).unwrap();
    assert_eq!((refund.json["status"].as_str(), &refund.json["amount"]), (Some("succeeded"), &1500.into()));
    let over = sandbox.form("/v1/refunds", "r2", &[("payment_intent", id), ("amount", "1")]).unwrap();
    assert_eq!(over.json["error"]["code"], "charge_already_refunded");
    let seen = sandbox.get(&format!("/v1/refunds/{}", refund.json["id"].as_str().unwrap()));
    assert_eq!(seen.json["metadata"]["attempt"], "rf");
    let listed = sandbox.get(&format!("/v1/refunds?payment_intent={id}")).json;
    assert_eq!(listed["data"], json!([seen.json]));
}

#[test]
fn stripe_setup_intents_verify_for_nothing() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let pairs = intent(APPROVED, "s", &[("usage", "off_session")]);
    let got = sandbox.form("/v1/setup_intents", "s", &pairs).unwrap();
    assert_eq!(
        (got.json["object"].as_str(), got.json["status"].as_str()),
        (Some("setup_intent"), Some("succeeded"))
    );
    assert_eq!(sandbox.ledger()[0]["kind"], "verify");
    let declined = sandbox.form("/v1/setup_intents", "d", &intent("4000000000000002", "d", &[])).unwrap();
    assert_eq!(
        (declined.status, &declined.json["error"]["setup_intent"]["object"]),
        (402, &"setup_intent".into())
    );
}

#[test]
fn a_list_is_read_page_by_page() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    for n in 0..5 {
        let attempt = format!("att_{n}");
        assert_eq!(
            sandbox.form("/v1/payment_intents", &attempt, &intent(APPROVED, &attempt, &[])).unwrap().status,
            200
        );
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = sandbox.get(&format!("/v1/payment_intents?limit=2{after}")).json;
        for intent in page["data"].as_array().unwrap() {
            seen.push(intent["metadata"]["attempt"].as_str().unwrap().to_owned());
            after = format!("&starting_after={}", intent["id"].as_str().unwrap());
        }
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(seen, ["att_4", "att_3", "att_2", "att_1", "att_0"]);
}

#[test]
fn a_look_up_by_reference_lags_behind() {
    let (_directory, path) = place();
    let sandbox = Running::start_as(&path, |settings| settings.search_lag_s = 60);
    sandbox.form("/v1/payment_intents", "k", &intent(APPROVED, "att_1", &[])).unwrap();
    sandbox.post("/v1/payments", "k", &sale("r", APPROVED, 100)).unwrap();
    let found = || {
        let search =
            sandbox.get("/v1/payment_intents/search?query=metadata%5B%27attempt%27%5D%3A%27att_1%27");
        let listed = sandbox.get("/v1/payments?reference=r");
        [search, listed].map(|got| got.json["data"].as_array().unwrap().len())
    };
    assert_eq!(found(), [0, 0]);
    assert_eq!(
        sandbox.get("/v1/payment_intents").json["data"].as_array().unwrap().len(),
        1,
        "a list does not lag"
    );
    sandbox.advance(61);
    assert_eq!(found(), [1, 1]);
}
