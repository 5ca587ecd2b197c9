//! What the ledger and the webhooks tell.

use std::net::TcpListener;
use std::sync::mpsc;

use super::family::*;
use super::*;

/// How many operations under a reference nobody could learn the outcome of.
fn unresolvable(sandbox: &Running, wire: &str, reference: &str) -> i64 {
    let all = sandbox.standings(wire);
    all.iter().find(|one| one["reference"] == reference).unwrap()["unresolvable"].as_i64().unwrap()
}

fn with_cvc(reference: &str) -> Value {
    let mut body = adyen_sale(reference, APPROVED);
    body["paymentMethod"]["cvc"] = "123".into();
    body
}

#[test]
fn only_what_nobody_can_learn_is_marked() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let drop_next = |charges: bool| {
        sandbox.script(&json!({ "fault": "drop", "count": 1, "charges": charges }));
    };
    // The same request again tells; with a verification code it cannot be made again, and Adyen has no look-ups.
    drop_next(true);
    assert!(sandbox.post("/v71/payments", "a", &adyen_sale("a", APPROVED)).is_none());
    drop_next(true);
    assert!(sandbox.post("/v71/payments", "b", &with_cvc("b")).is_none());
    drop_next(false);
    assert!(sandbox.post("/v71/payments", "c", &with_cvc("c")).is_none());
    sandbox.script(&json!({ "fault": "error_500", "count": 1, "lasting": true }));
    assert_eq!(sandbox.post("/v71/payments", "d", &adyen_sale("d", APPROVED)).unwrap().status, 500);
    sandbox.script(&json!({ "fault": "rate_limited", "count": 1, "charges": false }));
    assert_eq!(sandbox.post("/v71/payments", "e", &with_cvc("e")).unwrap().status, 429);
    let marked = ["a", "b", "c", "d", "e"].map(|reference| unresolvable(&sandbox, "adyen", reference));
    assert_eq!(marked, [0, 1, 1, 1, 0]);
    // Where look-ups find it by its reference, it is not; a transaction without one is.
    for family in [Family::Plain, Family::Stripe, Family::NetXml, Family::Worldpay] {
        drop_next(true);
        assert!(family.send(&sandbox, "r", APPROVED).is_none());
        assert_eq!(unresolvable(&sandbox, family.wire(), "r"), 0, "{family:?}");
    }
    drop_next(true);
    assert!(Family::NetXml.send(&sandbox, "", APPROVED).is_none());
    assert_eq!(unresolvable(&sandbox, "authorize_net", ""), 1);
    let line = sandbox.ledger().into_iter().find(|line| line["reference"] == "b").unwrap();
    assert_eq!((&line["unresolvable"], &line["fault"]), (&true.into(), &"drop".into()));
}

/// Takes notifications and answers each with the next of these statuses, the last of them for ever.
fn listener(statuses: &'static [u16]) -> (SocketAddr, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (told, heard) = mpsc::channel();
    std::thread::spawn(move || {
        let mut answers = statuses.iter();
        let mut status = 200;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let (mut bytes, mut some) = (Vec::new(), [0; 4096]);
            let body = loop {
                let Ok(n @ 1..) = stream.read(&mut some) else { return };
                bytes.extend_from_slice(&some[..n]);
                if let Some(Ok(body)) = bytes
                    .windows(4)
                    .position(|four| four == b"\r\n\r\n")
                    .map(|at| serde_json::from_slice::<Value>(&bytes[at + 4..]))
                {
                    break body;
                }
            };
            status = answers.next().copied().unwrap_or(status);
            let _ = write!(stream, "HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            if told.send(body).is_err() {
                return;
            }
        }
    });
    (address, heard)
}

#[test]
fn webhooks_are_signed_and_told_until_they_are_taken() {
    let (directory, path) = place();
    let key_file = directory.path().join("hmac");
    std::fs::write(&key_file, "00112233445566778899aabbccddeeff\n").unwrap();
    let (address, heard) = listener(&[500, 200]);
    let webhooks = Webhooks::new(&format!("http://{address}/hooks/adyen"), None, &key_file).unwrap();
    let sandbox = Running::start_with(&path, |_| {}, Rules::default(), Some(webhooks));
    sandbox.script(&json!({ "fault": "drop", "count": 1 }));
    let mut pending = with_cvc("r");
    pending["paymentMethod"]["number"] = number(0, 1, Behaviour::Pending).into();
    assert!(sandbox.post("/v71/payments", "k", &pending).is_none());
    assert_eq!(unresolvable(&sandbox, "adyen", "r"), 0, "the webhook will tell");
    sandbox.script(&json!({ "fault": "drop", "count": 1, "charges": false }));
    assert!(sandbox.post("/v71/payments", "n", &with_cvc("n")).is_none());
    assert_eq!(unresolvable(&sandbox, "adyen", "n"), 1, "no webhook tells of what was not done");
    sandbox.advance(6);
    let (first, again) = (heard.recv_timeout(PATIENCE).unwrap(), heard.recv_timeout(PATIENCE).unwrap());
    assert_eq!(first, again, "what was not taken is told again");
    let item = &first["notificationItems"][0]["NotificationRequestItem"];
    assert_eq!((&item["eventCode"], &item["success"]), (&"AUTHORISATION".into(), &"true".into()));
    let text = |name: &str| item[name].as_str().unwrap().to_owned();
    let signed = [
        text("pspReference"),
        text("originalReference"),
        text("merchantAccountCode"),
        text("merchantReference"),
        item["amount"]["value"].to_string(),
        item["amount"]["currency"].as_str().unwrap().to_owned(),
        text("eventCode"),
        text("success"),
    ];
    let key = data_encoding::HEXLOWER.decode(b"00112233445566778899aabbccddeeff").unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
    let tag =
        data_encoding::BASE64.decode(item["additionalData"]["hmacSignature"].as_str().unwrap().as_bytes());
    assert!(ring::hmac::verify(&key, signed.join(":").as_bytes(), &tag.unwrap()).is_ok());
    sandbox.script(&json!({ "fault": "duplicate", "count": 1, "operation": "webhook" }));
    assert_eq!(sandbox.post("/v71/payments", "t", &adyen_sale("t", APPROVED)).unwrap().status, 200);
    let (first, twice) = (heard.recv_timeout(PATIENCE).unwrap(), heard.recv_timeout(PATIENCE).unwrap());
    assert_eq!(first["notificationItems"][0]["NotificationRequestItem"]["merchantReference"], "t");
    assert_eq!(first, twice);
    let start = Instant::now();
    while sandbox.get("/sandbox/webhooks").json["data"][0]["delivered"] != true {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_read_back_tells_what_was_done_to_each_reference() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let hold = sandbox.post("/v1/payments", "h", &payment("authorize", "h", APPROVED, 1000)).unwrap();
    let id = hold.json["id"].as_str().unwrap();
    let capture = json!({ "reference": "c", "amount": 600 });
    assert_eq!(sandbox.post(&format!("/v1/payments/{id}/captures"), "c", &capture).unwrap().status, 200);
    let pending = sale("p", &number(0, 1, Behaviour::PendingDeclined), 100);
    assert_eq!(sandbox.post("/v1/payments", "p", &pending).unwrap().json["status"], "pending");
    let standing = |reference: &str| {
        let all = sandbox.standings("json");
        all.into_iter().find(|one| one["reference"] == reference).unwrap()
    };
    assert_eq!(standing("p")["pending"], 1);
    sandbox.advance(6);
    assert_eq!((&standing("p")["pending"], &standing("p")["payments"]), (&0.into(), &0.into()));
    let held = standing("h");
    assert_eq!(held["operations"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&held["operations"][1]["reference"], &held["operations"][1]["amount"]),
        (&"c".into(), &600.into())
    );
    assert_eq!(sandbox.amounts("json", "h"), [1000, 600, 0, 0]);
}
