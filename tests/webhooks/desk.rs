//! A vault whose webhooks go to the test's receiver, and a client that may do everything with them.

use std::time::{Duration, Instant};

use cardvault::card::tenant::Mode;
use cardvault::tools::client::{Answer, Client, Payload};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::numbers::complete;
use crate::common::{Vault, card, order, signal, store, text, wait_for};
use crate::receiver::{Arrived, Receiver};

pub(crate) const VISA: &str = "4242424242424242";
pub(crate) const SCOPES: [&str; 10] = [
    "tokens:create",
    "tokens:read",
    "tokens:update",
    "tokens:erase",
    "charges:create",
    "charges:read",
    "charges:capture",
    "charges:refund",
    "webhooks:read",
    "webhooks:manage",
];
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Desk {
    pub(crate) vault: Vault,
    pub(crate) receiver: Receiver,
    pub(crate) client: Client,
    credential: String,
}

impl Desk {
    /// With these times between attempts, and whatever else of `[webhooks]`.
    pub(crate) fn open(retry_seconds: &str, more: &str) -> Self {
        let mut vault = Vault::make(|config| config);
        let receiver = Receiver::start(&vault.path("tls"));
        vault.serve();
        assert!(vault.plain("/readyz").contains("\"courier\":\"off\""));
        assert!(vault.processes().iter().all(|(role, _)| role != "courier"));
        let config = std::fs::read_to_string(vault.config()).unwrap();
        let webhooks = format!(
            "\n[webhooks]\nhosts = [\"{}\"]\ntrust = \"tls/ca.pem\"\nretry_seconds = {retry_seconds}\n\
             timeout_seconds = 3\n{more}\n",
            receiver.address
        );
        std::fs::write(vault.config(), config + &webhooks).unwrap();
        // There is a courier once there is a host.
        signal(vault.supervisor(), Signal::HUP);
        wait_for("a courier", || vault.plain("/readyz").contains("\"courier\":\"ok\"").then_some(()));
        vault.tenant("acme", Mode::Test);
        let credential = vault.principal(order("shop", Some("acme"), &SCOPES));
        let client = vault.client(&credential);
        Self { vault, receiver, client, credential }
    }

    /// The same client, after the vault was served anew.
    pub(crate) fn reconnect(&mut self) {
        self.client = self.vault.client(&self.credential);
    }

    /// Makes an endpoint at a path of the receiver: (id, secret).
    pub(crate) async fn endpoint(&self, path: &str, events: &[&str]) -> (String, String) {
        let body = json!({"url": self.url(path), "events": events});
        let made = self.post("/v1/webhook_endpoints", &format!("endpoint-{path}"), &body).await;
        assert_eq!(made.status, 201, "{}", text(&made));
        let made = made.json();
        (word(&made, "id").to_owned(), word(&made, "secret").to_owned())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.receiver.address)
    }

    pub(crate) async fn post(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.client.post(path, key, body).await.unwrap()
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        let payload = if body.is_null() { Payload::None } else { Payload::Json(body) };
        self.client.request(method, path, &[], payload).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.client.get(path).await.unwrap();
        assert_eq!(answer.status, 200, "{}", text(&answer));
        answer.json()
    }

    pub(crate) async fn token(&self, key: &str, number: &str) -> String {
        store(&self.client, key, &card(number, "c-secret")).await["id"].as_str().unwrap().to_owned()
    }

    /// Charges a card; gives the charge as it was answered.
    pub(crate) async fn charge(&self, token: &str, invoice: &str) -> Value {
        let body = json!({
            "token": token, "amount": 1250, "currency": "USD", "invoice": invoice, "initiator": "customer",
            "destination": "sandbox", "description": "secret words",
        });
        let answer = self.post("/v1/charges", invoice, &body).await;
        assert!(matches!(answer.status, 201 | 202), "{}", text(&answer));
        answer.json()
    }

    /// What arrived at a path, once it is so much.
    pub(crate) async fn arrived(&self, path: &str, is_enough: impl Fn(&[Arrived]) -> bool) -> Vec<Arrived> {
        let began = Instant::now();
        loop {
            let arrived = self.receiver.at(path);
            if is_enough(&arrived) {
                return arrived;
            }
            let kinds: Vec<_> = arrived.iter().map(|one| one.kind()).collect();
            assert!(began.elapsed() < PATIENCE, "not enough at {path}: {kinds:?}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// The endpoint once it is as it should be.
    pub(crate) async fn until(&self, id: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        self.until_at(&format!("/v1/webhook_endpoints/{id}"), what, is).await
    }

    pub(crate) async fn until_at(&self, path: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let now = self.get(path).await;
            if is(&now) {
                return now;
            }
            assert!(began.elapsed() < PATIENCE, "not {what}: {now}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A number of the volume range whose behaviour is chosen by its suffix.
pub(crate) fn behaving(sequence: usize, suffix: u32) -> String {
    complete(&format!("468738{sequence:06}{suffix:03}"))
}

pub(crate) fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Status and code of a problem.
pub(crate) fn refusal(answer: &Answer) -> (u16, String) {
    (answer.status, word(&answer.json(), "code").to_owned())
}
