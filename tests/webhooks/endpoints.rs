//! Endpoints as callers manage them: who may, what is refused, secrets and their rotation.

use cardvault::card::tenant::Mode;
use serde_json::{Value, json};

use crate::common::{count_of, events, order, text};
use crate::desk::{Desk, SCOPES, VISA, refusal, word};

const ENDPOINTS: &str = "/v1/webhook_endpoints";

#[tokio::test]
async fn a_secret_is_shown_once_and_two_sign_while_it_rotates() {
    let desk = Desk::open("[1]", "");
    let assessor = desk.vault.assessor();
    let (id, first) = desk.endpoint("/hook", &["charge.*"]).await;
    let path = format!("{ENDPOINTS}/{id}");
    assert!(desk.get(&path).await.get("secret").is_none());
    // The same request again, whose answer may have been lost.
    let body = json!({"url": desk.url("/hook"), "events": ["charge.*"]});
    let again = desk.post(ENDPOINTS, "endpoint-/hook", &body).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(word(&again.json(), "secret"), first);
    let other = json!({"url": desk.url("/other"), "events": ["charge.*"]});
    let reused = refusal(&desk.post(ENDPOINTS, "endpoint-/hook", &other).await);
    assert_eq!(reused, (422, "idempotency_key_reused".to_owned()));

    let token = desk.token("t", VISA).await;
    let rotate = format!("{path}/rotate_secret");
    let rotated = desk.post(&rotate, "rotate-1", &json!({"keep_old_hours": 1})).await;
    assert_eq!(rotated.status, 200, "{}", text(&rotated));
    let second = word(&rotated.json(), "secret").to_owned();
    assert_ne!(first, second);
    desk.charge(&token, "inv-1").await;
    let both = desk.arrived("/hook", |all| !all.is_empty()).await;
    assert_eq!(both[0].signatures(), 2);
    assert_eq!((both[0].signed_with(&first), both[0].signed_with(&second)), (1, 1));
    let third = desk.post(&rotate, "rotate-2", &json!({"keep_old_hours": 0})).await.json();
    assert_eq!(third["old_secret_until"], Value::Null);
    desk.charge(&token, "inv-2").await;
    let one = desk.arrived("/hook", |all| all.len() == 2).await;
    assert_eq!((one[1].signatures(), one[1].signed_with(word(&third, "secret"))), (1, 1));
    let far = desk.post(&rotate, "rotate-3", &json!({"keep_old_hours": 1000})).await;
    assert_eq!(refusal(&far).0, 422);
    // No secret lies in the database, in any form that it is shown or used in.
    let database = std::fs::read(desk.vault.path("data/vault.db")).unwrap();
    let wal = std::fs::read(desk.vault.path("data/vault.db-wal")).unwrap_or_default();
    for secret in [&first, &second] {
        let text = secret.strip_prefix("whsec_").unwrap();
        let raw = data_encoding::BASE64.decode(text.as_bytes()).unwrap();
        for file in [&database, &wal] {
            assert!(!file.windows(text.len()).any(|part| part == text.as_bytes()));
            assert!(!file.windows(raw.len()).any(|part| part == raw));
        }
    }
    assert_eq!(desk.send("DELETE", &path, &Value::Null).await.status, 204);
    assert_eq!(refusal(&desk.client.get(&path).await.unwrap()).0, 404);
    desk.charge(&token, "inv-3").await;
    let log = events(&assessor).await;
    let counts = ["webhook.create", "webhook.rotate", "webhook.delete"].map(|action| count_of(&log, action));
    assert_eq!(counts, [1, 2, 1]);
    assert_eq!(desk.receiver.at("/hook").len(), 2);
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_and_another_tenant_sees_nothing() {
    let desk = Desk::open("[1]", "");
    let good = desk.url("/hook");
    let port = desk.receiver.address.port();
    for (url, events, code) in [
        ("https://127.0.0.1:1/x".to_owned(), json!(["*"]), "host_not_allowed"),
        (format!("https://localhost:{port}/"), json!(["*"]), "host_not_allowed"),
        ("https://169.254.169.254/latest".to_owned(), json!(["*"]), "host_not_allowed"),
        (good.replace("https", "http"), json!(["*"]), "invalid_value"),
        (good.replace("127", "u:p@127"), json!(["*"]), "invalid_value"),
        (format!("{good}/{VISA}"), json!(["*"]), "stray_number"),
        (good.clone(), json!([]), "invalid_value"),
        (good.clone(), json!(["charge.aproved"]), "invalid_value"),
        (good.clone(), json!("charge.approved"), "wrong_type"),
    ] {
        let body = json!({"url": url, "events": events});
        let answer = desk.post(ENDPOINTS, "k", &body).await;
        assert_eq!(refusal(&answer), (422, code.to_owned()), "{body}");
        assert!(!text(&answer).contains("169.254"), "quoted");
    }
    let (id, _) = desk.endpoint("/hook", &["charge.*"]).await;
    let path = format!("{ENDPOINTS}/{id}");
    let moved = desk.send("PATCH", &path, &json!({"url": "https://127.0.0.1:1/x"})).await;
    assert_eq!(refusal(&moved), (422, "host_not_allowed".to_owned()));

    desk.vault.tenant("other", Mode::Test);
    let other = desk.vault.client(&desk.vault.principal(order("spy", Some("other"), &SCOPES)));
    let token = desk.token("t", VISA).await;
    desk.charge(&token, "inv-1").await;
    let told = desk.arrived("/hook", |all| !all.is_empty()).await;
    let own = format!("/v1/webhook_events/{}", told[0].id());
    assert_eq!(desk.client.get(&own).await.unwrap().status, 200);
    assert_eq!(other.get(ENDPOINTS).await.unwrap().json()["data"], json!([]));
    for path in [path.clone(), format!("{path}/deliveries"), own] {
        assert_eq!(other.get(&path).await.unwrap().status, 404, "{path}");
    }
    for (verb, body) in
        [("rotate_secret", json!({})), ("test", json!({})), ("replay", json!({"event": told[0].id()}))]
    {
        let answer = other.post(&format!("{path}/{verb}"), "k", &body).await.unwrap();
        assert_eq!(answer.status, 404, "{verb}");
    }
    let reader = desk.vault.application("reader", "acme", &["webhooks:read"]);
    assert_eq!(reader.get(&path).await.unwrap().status, 200);
    assert_eq!(refusal(&reader.post(ENDPOINTS, "k", &json!({})).await.unwrap()).0, 403);

    // A tenant has so many endpoints; nothing of another's charges reaches it.
    for n in 1..20 {
        desk.endpoint(&format!("/more-{n}"), &["token.erased"]).await;
    }
    let body = json!({"url": good, "events": ["*"]});
    assert_eq!(refusal(&desk.post(ENDPOINTS, "too-many", &body).await), (409, "too_many".to_owned()));
    let made = other.post(ENDPOINTS, "k", &json!({"url": desk.url("/spy"), "events": ["*"]})).await.unwrap();
    assert_eq!(made.status, 201);
    desk.charge(&token, "inv-2").await;
    desk.arrived("/hook", |all| all.len() == 2).await;
    let test = format!("{ENDPOINTS}/{}/test", word(&made.json(), "id"));
    assert_eq!(other.post(&test, "k", &json!({})).await.unwrap().status, 202);
    let spied = desk.arrived("/spy", |all| !all.is_empty()).await;
    assert_eq!(spied.iter().map(|one| one.kind()).collect::<Vec<_>>(), ["webhook_endpoint.test"]);
}

#[tokio::test]
async fn a_tenant_without_endpoints_writes_nothing_and_hosts_follow_a_reload() {
    let mut desk = Desk::open("[1]", "");
    let token = desk.token("t", VISA).await;
    desk.charge(&token, "inv-1").await;
    for table in ["webhook_notices", "webhook_deliveries", "webhook_sequences"] {
        assert_eq!(desk.vault.count(table), 0, "{table}");
    }
    let (id, _) = desk.endpoint("/hook", &["charge.*"]).await;
    // A second host is on another port, so the courier is another process; the first stays allowed.
    let second = crate::receiver::Receiver::start(&desk.vault.path("tls"));
    let config = std::fs::read_to_string(desk.vault.config()).unwrap();
    let (one, two) = (desk.receiver.address.to_string(), second.address.to_string());
    let config = config.replace(&format!("\"{one}\""), &format!("\"{one}\", \"{two}\""));
    std::fs::write(desk.vault.config(), config).unwrap();
    let before = desk.vault.process("courier");
    crate::common::signal(desk.vault.supervisor(), rustix::process::Signal::HUP);
    crate::common::wait_for("another courier", || {
        let now = desk.vault.processes().into_iter().find(|(role, _)| role == "courier")?;
        (now.1 != before).then_some(())
    });
    let path = format!("{ENDPOINTS}/{id}");
    let mut moved = desk.send("PATCH", &path, &json!({"url": format!("https://{two}/moved")})).await;
    for _ in 0..100 {
        if moved.status == 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        moved = desk.send("PATCH", &path, &json!({"url": format!("https://{two}/moved")})).await;
    }
    assert_eq!(moved.status, 200, "{}", text(&moved));
    desk.charge(&token, "inv-2").await;
    desk.receiver = second;
    desk.arrived("/moved", |all| all.len() == 1).await;
    assert!(desk.vault.plain("/readyz").contains("\"courier\":\"ok\""));
}
