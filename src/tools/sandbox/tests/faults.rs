//! What goes wrong on the way back, and what a second request learns.

use super::*;

#[test]
fn a_fault_meets_the_first_request_and_the_next_learns_the_outcome() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    for (behaviour, first_status, charges) in [
        (Behaviour::DropCharged, None, true),
        (Behaviour::DropUncharged, None, false),
        (Behaviour::Error500Charged, Some(500), true),
        (Behaviour::Error500Uncharged, Some(500), false),
        (Behaviour::Garbage, Some(200), true),
        (Behaviour::Empty, Some(200), true),
        (Behaviour::RateLimited, Some(429), false),
        (Behaviour::Unavailable, Some(503), false),
        (Behaviour::Redirect, Some(302), false),
        (Behaviour::Redirect307, Some(307), false),
        (Behaviour::PanEcho500, Some(500), true),
    ] {
        let name = format!("{behaviour:?}");
        let body = sale(&name, &number(0, 3, behaviour), 100);
        let first = sandbox.post("/v1/payments", &name, &body);
        assert_eq!(first.as_ref().map(|got| got.status), first_status, "{name}");
        assert!(first.is_none_or(|got| got.json["status"] != "approved"), "{name}");
        assert_eq!(sandbox.charged(&name), usize::from(charges), "{name}");
        let found = sandbox.get(&format!("/v1/payments?reference={name}"));
        assert_eq!(found.json["data"].as_array().unwrap().len(), usize::from(charges), "{name}");
        let second = sandbox.post("/v1/payments", &name, &body).unwrap();
        assert_eq!((second.status, second.json["status"].as_str()), (200, Some("approved")), "{name}");
        assert_eq!(sandbox.charged(&name), 1, "{name}");
    }
}

#[test]
fn a_stored_500_is_replayed_for_as_long_as_its_key_lives() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    for (behaviour, charges) in [(Behaviour::Stored500Charged, 1), (Behaviour::Stored500Uncharged, 0)] {
        let name = format!("{behaviour:?}");
        let body = sale(&name, &number(0, 3, behaviour), 100);
        for _ in 0..3 {
            assert_eq!(sandbox.post("/v1/payments", &name, &body).unwrap().status, 500);
        }
        assert_eq!(sandbox.charged(&name), charges);
    }
}

#[test]
fn the_card_number_is_echoed_only_where_the_table_says() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    for (behaviour, status) in
        [(Behaviour::PanEcho, 200), (Behaviour::PanEchoDeclined, 402), (Behaviour::PanEcho500, 500)]
    {
        let pan = number(1, 5, behaviour);
        let got = sandbox.post("/v1/payments", &format!("{behaviour:?}"), &sale("echo", &pan, 100)).unwrap();
        assert_eq!(got.status, status);
        assert!(got.text.contains(&pan));
    }
    assert!(!std::fs::read_to_string(&path).unwrap().contains(&number(1, 5, Behaviour::PanEcho)));
}

#[test]
fn lengths_lie_in_both_directions() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let long = sale("long", &number(0, 1, Behaviour::LengthLong), 100).to_string();
    let got = sandbox.send("POST /v1/payments HTTP/1.1\r\nIdempotency-Key: long", &long).unwrap();
    let promised: usize =
        got.head.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
    assert_eq!(got.json["status"], "approved");
    assert_eq!(promised, got.text.len() + 64);
    let short = sale("short", &number(0, 1, Behaviour::LengthShort), 100).to_string();
    let all = sandbox.raw("POST /v1/payments HTTP/1.1\r\nIdempotency-Key: short", &short);
    let text = String::from_utf8(all).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2);
    assert!(text.ends_with('}') && text.contains("pay_forged"));
}

#[test]
fn a_drip_is_slow_and_a_huge_answer_huge() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let huge = sale("huge", &number(0, 1, Behaviour::Huge), 100).to_string();
    assert!(sandbox.raw("POST /v1/payments HTTP/1.1\r\nIdempotency-Key: huge", &huge).len() > 64 << 20);
    let mut stream = TcpStream::connect(sandbox.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(900))).unwrap();
    let drip = sale("drip", &number(0, 1, Behaviour::SlowDrip), 100).to_string();
    write!(
        stream,
        "POST /v1/payments HTTP/1.1\r\nHost: x\r\nIdempotency-Key: drip\r\nAuthorization: Bearer sk_test_one\r\n\
         Content-Length: {}\r\n\r\n{drip}",
        drip.len()
    )
    .unwrap();
    let (start, mut body) = (Instant::now(), 0);
    let mut some = [0; 4096];
    while start.elapsed() < Duration::from_millis(700) {
        let read = stream.read(&mut some).unwrap();
        body = if read > 64 { 0 } else { body + read };
    }
    assert!((1..8).contains(&body), "{body}");
    assert_eq!(sandbox.charged("drip"), 1);
}

#[test]
fn scripted_faults_meet_the_next_requests_of_an_operation() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let script = json!({ "fault": "drop", "count": 1, "operation": "refund" });
    assert_eq!(sandbox.post("/sandbox/faults", "-", &script).unwrap().status, 200);
    let made = sandbox.post("/v1/payments", "s", &sale("s", APPROVED, 100)).unwrap();
    let refunds = format!("/v1/payments/{}/refunds", made.json["id"].as_str().unwrap());
    let body = json!({ "reference": "r", "amount": 60 });
    assert!(sandbox.post(&refunds, "r", &body).is_none());
    assert_eq!(sandbox.charged("r"), 1);
    assert!(sandbox.post(&refunds, "r", &body).unwrap().is_replay());
    assert_eq!(sandbox.charged("r"), 1);
}

#[test]
fn some_cards_are_trouble_later() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    for (behaviour, operation, what) in [
        (Behaviour::CaptureDrop, "authorize", "captures"),
        (Behaviour::RefundDrop, "sale", "refunds"),
        (Behaviour::VoidDrop, "authorize", "voids"),
    ] {
        let body = payment(operation, what, &number(0, 1, behaviour), 100);
        let made = sandbox.post("/v1/payments", what, &body).unwrap();
        let path = format!("/v1/payments/{}/{what}", made.json["id"].as_str().unwrap());
        let mut later = json!({ "reference": format!("later-{what}") });
        if what != "voids" {
            later["amount"] = 40.into();
        }
        assert!(sandbox.post(&path, &format!("later-{what}"), &later).is_none());
        let again = sandbox.post(&path, &format!("later-{what}"), &later).unwrap();
        assert_eq!((again.status, again.is_replay()), (200, true));
        assert_eq!(sandbox.charged(&format!("later-{what}")), 1);
    }
    let body = sale("declined", &number(0, 1, Behaviour::RefundDeclined), 100);
    let made = sandbox.post("/v1/payments", "declined", &body).unwrap();
    let refunds = format!("/v1/payments/{}/refunds", made.json["id"].as_str().unwrap());
    let refund = sandbox.post(&refunds, "r", &json!({ "reference": "r", "amount": 100 })).unwrap();
    assert_eq!((refund.status, refund.json["status"].as_str()), (402, Some("declined")));
}

#[test]
fn a_delay_is_two_seconds_and_a_look_up_can_fail_too() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let start = Instant::now();
    let body = sale("slow", &number(0, 1, Behaviour::Delay), 100);
    assert_eq!(sandbox.post("/v1/payments", "slow", &body).unwrap().status, 200);
    assert!(start.elapsed() >= Duration::from_secs(2));
    let script = json!({ "fault": "unavailable", "count": 1, "operation": "lookup" });
    assert_eq!(sandbox.post("/sandbox/faults", "-", &script).unwrap().status, 200);
    assert_eq!(sandbox.get("/v1/payments?reference=slow").status, 503);
    assert_eq!(sandbox.get("/v1/payments?reference=slow").status, 200);
}
