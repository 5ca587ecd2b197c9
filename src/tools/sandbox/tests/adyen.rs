//! Adyen's wire form.

use super::family::*;
use super::*;

fn post(sandbox: &Running, path: &str, key: &str, body: &Value) -> Got {
    sandbox.post(path, key, body).unwrap()
}

#[test]
fn a_payment_is_authorised_captured_refunded_and_told_of() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let mut body = adyen_sale("r1", APPROVED);
    body["additionalData"] = json!({ "manualCapture": "true" });
    let got = post(&sandbox, "/checkout/v71/payments", "k1", &body);
    assert_eq!((got.status, got.json["resultCode"].as_str()), (200, Some("Authorised")));
    assert!(got.head.contains("idempotency-key: k1"));
    assert_eq!(got.json["merchantReference"], "r1");
    let data = &got.json["additionalData"];
    assert_eq!(data["networkTxReference"].as_str().unwrap().len(), 15);
    assert_eq!((&data["avsResultRaw"], &data["cardSummary"]), (&"Y".into(), &"4242".into()));
    let psp = got.json["pspReference"].as_str().unwrap();
    assert_eq!(psp.len(), 16);
    assert_eq!(sandbox.amounts("adyen", "r1"), [1000, 0, 0, 0]);
    let part = |value: i64, reference: &str| json!({ "merchantAccount": "Shop", "reference": reference, "amount": { "currency": "USD", "value": value } });
    let captures = format!("/v71/payments/{psp}/captures");
    let captured = post(&sandbox, &captures, "c1", &part(700, "c1"));
    assert_eq!((captured.status, captured.json["status"].as_str()), (201, Some("received")));
    assert_eq!(captured.json["paymentPspReference"], psp);
    let refunds = format!("/v71/payments/{psp}/refunds");
    assert_eq!(post(&sandbox, &refunds, "f1", &part(200, "f1")).json["status"], "received");
    // Taken note of too; that it cannot be done is told later.
    assert_eq!(post(&sandbox, &refunds, "f2", &part(501, "f2")).json["status"], "received");
    assert_eq!(sandbox.amounts("adyen", "r1"), [1000, 700, 200, 0]);
    let told = sandbox.get("/sandbox/webhooks").json;
    let items: Vec<_> = told["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let item = &one["body"]["notificationItems"][0]["NotificationRequestItem"];
            ["eventCode", "merchantReference", "success"].map(|name| item[name].as_str().unwrap().to_owned())
        })
        .collect();
    let expected = [
        ["AUTHORISATION", "r1", "true"],
        ["CAPTURE", "c1", "true"],
        ["REFUND", "f1", "true"],
        ["REFUND", "f2", "false"],
    ];
    assert_eq!(items, expected.map(|item| item.map(str::to_owned)));
}

#[test]
fn a_reversal_cancels_or_gives_back() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let sale = post(&sandbox, "/v71/payments", "s", &adyen_sale("s", APPROVED));
    let mut held = adyen_sale("h", APPROVED);
    held["captureDelayHours"] = 72.into();
    let held = post(&sandbox, "/v71/payments", "h", &held);
    for (got, what) in [(&sale, "reversals"), (&held, "reversals"), (&held, "cancels")] {
        let psp = got.json["pspReference"].as_str().unwrap();
        let body = json!({ "merchantAccount": "Shop", "reference": "x" });
        let done = post(&sandbox, &format!("/v71/payments/{psp}/{what}"), &format!("{psp}{what}"), &body);
        assert_eq!((done.status, done.json["status"].as_str()), (201, Some("received")));
    }
    assert_eq!(sandbox.amounts("adyen", "s"), [1000, 1000, 1000, 0]);
    assert_eq!(sandbox.amounts("adyen", "h"), [1000, 0, 0, 1000], "the second came too late");
}

#[test]
fn the_classic_api_is_there_too() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let body = json!({
        "merchantAccount": "Shop", "reference": "r", "amount": { "value": "1000", "currency": "USD" },
        "card": { "number": APPROVED, "expiryMonth": 8, "expiryYear": 2030, "holderName": "A" },
    });
    let paid = post(&sandbox, "/pal/servlet/Payment/v68/authorise", "a", &body);
    let psp = &paid.json["pspReference"];
    let capture = json!({
        "merchantAccount": "Shop", "reference": "c", "originalReference": psp,
        "modificationAmount": { "value": "1000", "currency": "USD" },
    });
    let captured = post(&sandbox, "/pal/servlet/Payment/v68/capture", "c", &capture);
    assert_eq!(captured.json["response"], "[capture-received]");
    assert_eq!(sandbox.amounts("adyen", "r"), [1000, 1000, 0, 0]);
}

#[test]
fn what_is_wrong_is_said_in_adyens_words() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    for (pointer, value, status, code) in [
        ("/paymentMethod/number", json!("4242424242424241"), 422, "101"),
        ("/amount/value", json!("x"), 422, "100"),
        ("/amount/currency", json!("usd"), 422, "138"),
        ("/reference", json!(""), 422, "130"),
        ("/merchantAccount", json!(""), 403, "901"),
        ("/paymentMethod/expiryMonth", json!(13), 422, "140"),
    ] {
        let mut body = adyen_sale("r", APPROVED);
        *body.pointer_mut(pointer).unwrap() = value;
        let got = post(&sandbox, "/v71/payments", "k", &body);
        assert_eq!((got.status, got.json["errorCode"].as_str()), (status, Some(code)), "{pointer}");
    }
    let none =
        json!({ "merchantAccount": "Shop", "reference": "x", "amount": { "currency": "USD", "value": 1 } });
    let got = post(&sandbox, "/v71/payments/NONE/captures", "n", &none);
    assert_eq!((got.status, got.json["errorCode"].as_str()), (422, Some("167")));
    assert!(sandbox.ledger().is_empty());
    let body = adyen_sale("r", APPROVED).to_string();
    for (key, status) in [("sk_test_one", 200), ("sk_test_two", 401)] {
        let head = format!("POST /v71/payments HTTP/1.1\r\nX-API-Key: {key}");
        assert_eq!(sandbox.send(&head, &body).unwrap().status, status);
    }
}

#[test]
fn a_key_lives_a_month_conflicts_and_is_busy() {
    let (_directory, path) = place();
    let sandbox = Running::start_as(&path, |settings| settings.processor_ms = 1000);
    let body = adyen_sale("r", APPROVED);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| post(&sandbox, "/v71/payments", "k", &body));
        std::thread::sleep(Duration::from_millis(300));
        let second = post(&sandbox, "/v71/payments", "k", &body);
        assert_eq!((second.status, second.json["errorCode"].as_str()), (409, Some("704")));
        assert!(second.head.contains("transient-error: true"));
        assert_eq!(slow.join().unwrap().status, 200);
    });
    let other = post(&sandbox, "/v71/payments", "k", &adyen_sale("other", APPROVED));
    assert_eq!(other.status, 422);
    sandbox.advance(31 * 86_400 - 60);
    assert!(post(&sandbox, "/v71/payments", "k", &body).is_replay());
    sandbox.advance(120);
    assert!(!post(&sandbox, "/v71/payments", "k", &body).is_replay());
    assert_eq!(sandbox.charged("r"), 2);
}

#[test]
fn who_is_there_is_sent_to_authenticate() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let mut body = adyen_sale("a", "4000002760003184");
    let absent = post(&sandbox, "/v71/payments", "a", &body);
    assert_eq!(
        (absent.json["resultCode"].as_str(), absent.json["refusalReasonCode"].as_str()),
        (Some("Refused"), Some("38"))
    );
    body["shopperInteraction"] = "Ecommerce".into();
    assert_eq!(post(&sandbox, "/v71/payments", "p", &body).json["resultCode"], "RedirectShopper");
}
