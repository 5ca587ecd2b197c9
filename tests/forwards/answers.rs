//! What comes back: whatever the destination says, without a card number that is not declared, and a word where nothing can.

use serde_json::{Value, json};

use crate::common::text;
use crate::desk::{Desk, MASTERCARD, VISA, request, word};

#[tokio::test]
async fn a_number_parked_under_one_token_is_not_read_back_under_another() {
    let mut desk = Desk::open();
    let (first, second) = (desk.token("t-1", VISA).await, desk.token("t-2", MASTERCARD).await);
    assert_eq!(desk.forward("k-1", &request(&first)).await.status, 201);
    let ask =
        |token: &str| json!({"token": token, "destination": "shop", "method": "GET", "path": "/v1/parked"});
    for (key, token, own) in [("k-2", &second, false), ("k-3", &first, true)] {
        let answer = desk.forward(key, &ask(token)).await;
        let forward = answer.json();
        let body = &forward["upstream"]["body"];
        let said = text(&answer);
        assert_eq!(word(&forward, "status"), "answered", "{said}");
        for number in [VISA, MASTERCARD, "5105105105105100"] {
            assert!(!said.contains(number), "{said}");
        }
        assert_eq!((&body["number"], &body["[redacted]"]), (&"[redacted]".into(), &true.into()));
        assert_eq!((word(body, "id"), &body["amount"]), ("4000001234567899", &1250.into()));
        assert!(said.contains("\"rate\":1.1"));
        // This card's own number goes in every form.
        let hex: String = VISA.bytes().map(|b| format!("{b:02x}")).collect();
        let dotted: String = VISA.chars().map(|c| format!("{c}.")).collect();
        assert_eq!(said.contains(&hex) || said.contains(&dotted), !own);
        let read = desk.read(word(&forward, "id")).await;
        assert_eq!(read.json(), forward);
    }
    // Nor does it lie in any file or log of the vault.
    desk.vault.stop();
    for name in ["data/vault.db", "data/vault.db-wal"] {
        let bytes = std::fs::read(desk.vault.path(name)).unwrap_or_default();
        assert!(!bytes.windows(VISA.len()).any(|window| window == VISA.as_bytes()), "{name}");
    }
    assert!(!desk.vault.log().contains(VISA));
}

#[tokio::test]
async fn each_answer_and_each_lack_of_one_has_its_status_and_says_whether_bytes_left() {
    let mut desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    for (path, status, outbound, error, upstream) in [
        ("refused", "answered", "sent", None, Some(402)),
        ("redirect", "answered", "sent", None, Some(302)),
        ("large", "unknown", "maybe_sent", Some("too_large"), None),
        ("gzip", "unknown", "sent", Some("encoding"), Some(200)),
        ("hang", "unknown", "maybe_sent", Some("timeout"), None),
    ] {
        let mut body = request(&token);
        body["path"] = format!("/v1/{path}").into();
        let answer = desk.forward(path, &body).await;
        let forward = answer.json();
        let said = (answer.status, word(&forward, "status"), word(&forward, "outbound"));
        assert_eq!(said, (201, status, outbound), "{path}: {}", text(&answer));
        assert_eq!(forward["error"], error.map_or(Value::Null, Value::from), "{path}");
        assert_eq!(forward["upstream"]["status"], upstream.map_or(Value::Null, Value::from), "{path}");
        assert_eq!(desk.forward(path, &body).await.json(), forward, "{path}: a replay");
    }
    assert_eq!(desk.upstream.arrived().len(), 5);
    // A destination that is down was sent nothing.
    drop(std::mem::replace(&mut desk.upstream, crate::upstream::Upstream::start(&desk.vault.path("tls"))));
    let answer = desk.forward("down", &request(&token)).await;
    let forward = answer.json();
    assert_eq!((word(&forward, "status"), word(&forward, "outbound")), ("failed", "not_sent"));
    assert_eq!((word(&forward, "error"), &forward["upstream"]), ("connect", &Value::Null));
}
