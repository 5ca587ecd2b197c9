//! Worldpay's wire form.

use super::family::*;
use super::*;

fn send(sandbox: &Running, body: &str) -> Got {
    sandbox.send(&format!("POST {WPG} HTTP/1.1"), body).unwrap()
}

fn modify(code: &str, inner: &str) -> String {
    wpg(&format!("<modify><orderModification orderCode=\"{code}\">{inner}</orderModification></modify>"))
}

fn amount(value: i64) -> String {
    format!("<amount value=\"{value}\" currencyCode=\"USD\" exponent=\"2\" debitCreditIndicator=\"credit\"/>")
}

fn inquiry(code: &str) -> String {
    wpg(&format!("<inquiry><orderInquiry orderCode=\"{code}\"/></inquiry>"))
}

fn last_event(got: &Got) -> String {
    xml(got).text(&["reply", "orderStatus", "payment", "lastEvent"]).to_owned()
}

fn error(got: &Got) -> (String, String) {
    let root = xml(got);
    let reply = root.child("reply").unwrap();
    let error = reply.child("error").or_else(|| reply.at(&["orderStatus", "error"])).unwrap();
    (error.attribute("code").to_owned(), error.text(&[]).to_owned())
}

#[test]
fn an_order_is_authorised_captured_refunded_and_inquired() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let got = send(&sandbox, &order("o-1", APPROVED, ""));
    assert!(got.text.contains("<!DOCTYPE paymentService") && got.head.contains("text/xml"));
    let root = xml(&got);
    let payment = root.at(&["reply", "orderStatus", "payment"]).unwrap();
    assert_eq!(root.attribute("merchantCode"), "SHOP");
    assert_eq!([payment.text(&["paymentMethod"]), payment.text(&["lastEvent"])], ["VISA-SSL", "AUTHORISED"]);
    assert_eq!(payment.text(&["schemeResponse", "transactionIdentifier"]).len(), 15);
    let much = modify("o-1", &format!("<capture>{}</capture>", amount(1001)));
    assert_eq!(error(&send(&sandbox, &much)).0, "5");
    let captured = send(&sandbox, &modify("o-1", &format!("<capture>{}</capture>", amount(700))));
    assert!(xml(&captured).at(&["reply", "ok", "captureReceived", "amount"]).is_some());
    let refund = modify("o-1", &format!("<refund reference=\"rf-1\">{}</refund>", amount(200)));
    let refunded = xml(&send(&sandbox, &refund));
    let received = refunded.at(&["reply", "ok", "refundReceived"]).unwrap();
    assert_eq!([received.attribute("orderCode"), received.attribute("reference")], ["o-1", "rf-1"]);
    // A modification with a reference of its own cannot come twice.
    assert_eq!(error(&send(&sandbox, &refund)), ("5".to_owned(), "Duplicate Order".to_owned()));
    assert_eq!(sandbox.amounts("worldpay", "o-1"), [1000, 700, 200, 0]);
    let stands = send(&sandbox, &inquiry("o-1"));
    assert_eq!(last_event(&stands), "REFUNDED");
    for (account, value) in
        [("IN_PROCESS_AUTHORISED", 300), ("IN_PROCESS_CAPTURED", 500), ("IN_PROCESS_REFUNDED", 200)]
    {
        assert!(
            stands.text.contains(&format!("<balance accountType=\"{account}\"><amount value=\"{value}\""))
        );
    }
}

#[test]
fn a_modification_comes_again_under_its_key() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    send(&sandbox, &order("o", APPROVED, "captureDelay=\"0\""));
    let keyed = |key: &str, body: &str| {
        sandbox.send(&format!("POST {WPG} HTTP/1.1\r\nIdempotency-Key: {key}"), body).unwrap()
    };
    let refund = |value| modify("o", &format!("<refund reference=\"rf\">{}</refund>", amount(value)));
    for _ in 0..2 {
        let received = xml(&keyed("k", &refund(200)));
        assert!(received.at(&["reply", "ok", "refundReceived"]).is_some());
    }
    assert_eq!(error(&keyed("k", &refund(201))).0, "9");
    assert_eq!(error(&keyed("k2", &refund(200))).1, "Duplicate Order");
    // An order is known by its code, whatever its key.
    assert_eq!(error(&keyed("k", &order("o", APPROVED, ""))).1, "Duplicate Order");
    assert_eq!(sandbox.amounts("worldpay", "o"), [1000, 1000, 200, 0]);
}

#[test]
fn the_order_code_is_the_key() {
    let (_directory, path) = place();
    let sandbox = Running::start_as(&path, |settings| settings.search_lag_s = 300);
    let first = send(&sandbox, &order("o", APPROVED, ""));
    assert_eq!(last_event(&first), "AUTHORISED");
    let second = send(&sandbox, &order("o", APPROVED, ""));
    assert_eq!(error(&second), ("5".to_owned(), "Duplicate Order".to_owned()));
    let other = send(&sandbox, &order("o", "5555555555554444", ""));
    assert_eq!(error(&other).1, "Duplicate Order");
    // A refused order's code is used up as well, and an inquiry lags behind.
    let refused = send(&sandbox, &order("d", "4000000000000002", ""));
    assert_eq!((last_event(&refused).as_str(), Family::Worldpay.code(&refused).as_str()), ("REFUSED", "5"));
    assert_eq!(error(&send(&sandbox, &order("d", APPROVED, ""))).1, "Duplicate Order");
    assert_eq!(error(&send(&sandbox, &inquiry("o"))).1, "Could not find payment for order");
    sandbox.advance(400 * 86_400);
    assert_eq!(last_event(&send(&sandbox, &inquiry("o"))), "AUTHORISED");
    assert_eq!(error(&send(&sandbox, &order("o", APPROVED, ""))).1, "Duplicate Order");
    assert_eq!(sandbox.amounts("worldpay", "o"), [1000, 0, 0, 0]);
}

#[test]
fn a_sale_is_captured_by_itself_and_a_cancel_knows_its_time() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    send(&sandbox, &order("s", APPROVED, "captureDelay=\"0\""));
    assert_eq!(last_event(&send(&sandbox, &inquiry("s"))), "CAPTURED");
    assert_eq!(error(&send(&sandbox, &modify("s", "<cancel/>"))).0, "5");
    assert!(
        xml(&send(&sandbox, &modify("s", "<cancelOrRefund/>")))
            .at(&["reply", "ok", "voidReceived"])
            .is_some()
    );
    assert_eq!(sandbox.amounts("worldpay", "s"), [1000, 1000, 1000, 0]);
    send(&sandbox, &order("h", APPROVED, "captureDelay=\"OFF\""));
    assert!(xml(&send(&sandbox, &modify("h", "<cancel/>"))).at(&["reply", "ok", "cancelReceived"]).is_some());
    assert_eq!(last_event(&send(&sandbox, &inquiry("h"))), "CANCELLED");
    assert_eq!(sandbox.amounts("worldpay", "h"), [1000, 0, 0, 1000]);
}

#[test]
fn what_is_wrong_is_said_in_worldpays_words() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let wrong = send(&sandbox, &order("w", "4242424242424241", ""));
    assert_eq!(error(&wrong).0, "5");
    assert!(error(&wrong).1.contains("Card number not recognised"));
    assert_eq!(error(&send(&sandbox, "<paymentService")).0, "2");
    assert_eq!(error(&send(&sandbox, &wpg("<other/>"))).0, "2");
    assert_eq!(error(&send(&sandbox, &order("", APPROVED, ""))).0, "5");
    assert_eq!(error(&send(&sandbox, &modify("none", "<cancel/>"))).1, "Could not find payment for order");
    assert!(sandbox.ledger().is_empty());
    // Basic, with the secret for a password.
    let pair = data_encoding::BASE64.encode(b"user:sk_test_one");
    let mut stream = TcpStream::connect(sandbox.address).unwrap();
    let body = order("b", APPROVED, "");
    write!(
        stream,
        "POST {WPG} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic {pair}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(last_event(&Got::parse(&all).unwrap()), "AUTHORISED");
}

#[test]
fn plain_text_with_status_200_leaves_the_order_to_be_inquired() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let got = send(&sandbox, &order("p", &number(0, 1, Behaviour::PlainText), ""));
    assert_eq!((got.status, got.text.as_str()), (200, "Temporary Failure, please Retry"));
    assert!(got.head.contains("text/plain"));
    assert_eq!(last_event(&send(&sandbox, &inquiry("p"))), "AUTHORISED");
    sandbox.script(&json!({ "fault": "plain_text", "count": 1, "charges": false, "wire": "worldpay" }));
    assert_eq!(send(&sandbox, &order("q", APPROVED, "")).text, "Temporary Failure, please Retry");
    assert_eq!(error(&send(&sandbox, &inquiry("q"))).1, "Could not find payment for order");
    assert_eq!(last_event(&send(&sandbox, &order("q", APPROVED, ""))), "AUTHORISED");
}
