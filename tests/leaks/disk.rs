//! A disk that is full: whatever is refused for want of room, each with a number of its own, and what happens once there is room.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cardvault::tools::client::Client;
use serde_json::json;

use crate::common::disk::store_until_full;
use crate::common::{Vault, store, text, wait_for};
use crate::{Answers, CODE, Canaries, JSON, ZIP, body};

/// Room for the database of a few hundred cards and its write-ahead log.
pub(crate) const DISK_KIB: u32 = 12 << 10;
/// Creates that are refused after the first.
const REFUSED: usize = 8;
/// Reads stop before, because the log cannot be written.
const LAGGING_MAX: Duration = Duration::from_secs(30);

/// What was refused on a full disk, and is asked again when there is room.
pub(crate) struct Full {
    filler: PathBuf,
    token: String,
    refused: Vec<(String, String)>,
}

/// Fills the disk and asks for everything that changes something.
pub(crate) async fn fill(
    vault: &Vault,
    client: &Client,
    canaries: &mut Canaries,
    answers: &mut Answers,
) -> Full {
    let number = canaries.make("stored before the disk was full", 0);
    let first = store(client, "first", &serde_json::from_str(&body(&number)).unwrap()).await;
    let token = first["id"].as_str().unwrap().to_owned();
    let filler = vault.fill_disk();
    let stored = store_until_full(client, |_| {
        let number = canaries.make("stored or refused while the disk became full", 0);
        serde_json::from_str(&body(&number)).unwrap()
    })
    .await;
    stored.iter().for_each(|answer| answers.take(answer));
    let mut refused = Vec::new();
    for n in 0..REFUSED {
        let (key, number) = (format!("full-{n}"), canaries.make("refused for want of room", 0));
        let head = [JSON, ("idempotency-key", key.as_str())];
        answers.ask(client, ("POST", "/v1/tokens"), &head, &body(&number), 503).await;
        refused.push((key, number));
    }
    let full = Full { filler, token, refused };
    full.change(client, canaries, answers).await;
    full
}

impl Full {
    /// Changes, charges and verifications; nothing of it is kept, and nothing is sent.
    async fn change(&self, client: &Client, canaries: &mut Canaries, answers: &mut Answers) {
        let token = &self.token;
        let number = canaries.make("change refused for want of room", 0);
        let change = format!(r#"{{"card":{{"number":"{number}"}},"billing":{{"zip":"{ZIP}"}}}}"#);
        let charge = format!(
            r#"{{"token":"{token}","amount":100,"currency":"USD","destination":"sandbox","invoice":"full","initiator":"customer","cvc":"{CODE}"}}"#
        );
        let verification = format!(r#"{{"token":"{token}","destination":"sandbox","cvc":"{CODE}"}}"#);
        let consent = r#"{"type":"recurring","consent":{"by":"c-1","at":"2026-11-22T00:00:00Z"}}"#;
        let path = format!("/v1/tokens/{token}");
        let head = [JSON, ("idempotency-key", "changed")];
        for (method, path, sent) in [
            ("PATCH", path.as_str(), change.as_str()),
            ("POST", "/v1/charges", &charge),
            ("POST", "/v1/verifications", &verification),
            ("POST", &format!("{path}/agreements"), consent),
            ("DELETE", &path, ""),
        ] {
            let head = if sent.is_empty() { &head[1..] } else { &head };
            answers.ask(client, (method, path), head, sent, 503).await;
        }
    }

    /// Reads until they are refused too: their events wait for a log that cannot be written.
    pub(crate) async fn read_until_refused(&self, client: &Client, answers: &mut Answers) {
        let began = Instant::now();
        loop {
            let read = client.get(&format!("/v1/tokens/{}", self.token)).await.unwrap();
            answers.take(&read);
            match read.status {
                200 => assert!(began.elapsed() < LAGGING_MAX, "reads go on without a log"),
                503 => return assert_eq!(read.json()["code"], "log_lagging"),
                _ => panic!("{}", text(&read)),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Makes room, and stores what was refused.
    pub(crate) async fn make_room(&self, vault: &Vault, client: &Client, answers: &mut Answers) {
        std::fs::remove_file(&self.filler).unwrap();
        wait_for("room", || vault.plain("/readyz").starts_with("HTTP/1.1 200").then_some(()));
        // The search held this thread: the client has yet to hear of connections that ended meanwhile.
        tokio::time::sleep(Duration::from_millis(100)).await;
        for (key, number) in &self.refused {
            let head = [JSON, ("idempotency-key", key.as_str())];
            answers.ask(client, ("POST", "/v1/tokens"), &head, &body(number), 201).await;
        }
        let charge = json!({
            "token": self.token, "amount": 100, "currency": "USD", "destination": "sandbox", "invoice": "room",
            "initiator": "customer", "cvc": CODE,
        });
        let charged = client.post("/v1/charges", "room", &charge).await.unwrap();
        assert_eq!(
            (charged.status, &charged.json()["status"]),
            (201, &json!("approved")),
            "{}",
            text(&charged)
        );
        answers.take(&charged);
    }
}
