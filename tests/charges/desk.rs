//! A billing desk: a vault, the sandbox, and a client that may do everything with charges.

use std::time::{Duration, Instant};

use cardvault::card::tenant::Mode;
use cardvault::tools::client::{Answer, Client, Payload};
use serde_json::{Value, json};

use crate::common::numbers::complete;
use crate::common::{Vault, card, order, store, text};

pub(crate) const VISA: &str = "4242424242424242";
pub(crate) const SCOPES: [&str; 8] = [
    "tokens:create",
    "tokens:read",
    "tokens:update",
    "tokens:erase",
    "charges:create",
    "charges:read",
    "charges:capture",
    "charges:refund",
];
/// Long enough for look-ups that wait until the processor must have it.
const FINAL_MAX: Duration = Duration::from_secs(90);

pub(crate) struct Desk {
    pub(crate) vault: Vault,
    pub(crate) client: Client,
    credential: String,
}

impl Desk {
    pub(crate) fn open() -> Self {
        Self::at(Vault::start())
    }

    /// The same, with the sandbox's connector changed by `edit`.
    pub(crate) fn open_with(edit: impl Fn(String) -> String) -> Self {
        let mut vault = Vault::make(|config| config + "\n[connectors]\ndirectory = \"connectors\"\n");
        let connectors = vault.path("connectors");
        std::fs::create_dir(&connectors).unwrap();
        let text = cardvault::connector::builtin_text("sandbox").unwrap().to_owned();
        std::fs::write(connectors.join("sandbox.toml"), edit(text)).unwrap();
        vault.serve();
        Self::at(vault)
    }

    pub(crate) fn at(vault: Vault) -> Self {
        vault.tenant("acme", Mode::Test);
        let credential = vault.principal(order("invoicing", Some("acme"), &SCOPES));
        let client = vault.client(&credential);
        Self { vault, client, credential }
    }

    /// The same client, after the vault was served anew.
    pub(crate) fn reconnect(&mut self) {
        self.client = self.vault.client(&self.credential);
    }

    pub(crate) async fn token(&self, key: &str, number: &str) -> String {
        store(&self.client, key, &card(number, "c-1")).await["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn post(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.client.post(path, key, body).await.unwrap()
    }

    pub(crate) async fn charge(&self, key: &str, body: &Value) -> Answer {
        self.post("/v1/charges", key, body).await
    }

    /// A charge whose caller has a preference.
    pub(crate) async fn charge_prefer(&self, key: &str, prefer: &str, body: &Value) -> Answer {
        let headers = [("idempotency-key", key), ("prefer", prefer)];
        self.client.request("POST", "/v1/charges", &headers, Payload::Json(body)).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.client.get(path).await.unwrap();
        assert_eq!(answer.status, 200, "{}", text(&answer));
        answer.json()
    }

    /// The charge when it is final.
    pub(crate) async fn settled(&self, answer: &Answer) -> Value {
        let mut charge = answer.json();
        let began = Instant::now();
        while matches!(word(&charge, "status"), "processing" | "pending" | "unknown") {
            assert!(began.elapsed() < FINAL_MAX, "{charge}");
            tokio::time::sleep(Duration::from_millis(100)).await;
            charge = self.get(&format!("/v1/charges/{}", word(&charge, "id"))).await;
        }
        charge
    }

    /// A token with an agreement, and the body with which the merchant charges it.
    pub(crate) async fn merchants(&self, key: &str, number: &str) -> (String, Value) {
        let token = self.token(key, number).await;
        self.agree(&token, &format!("agreement-{key}")).await;
        let mut body = sale(&token, key);
        body["initiator"] = "merchant".into();
        (token, body)
    }

    /// Makes an agreement; gives its id.
    pub(crate) async fn agree(&self, token: &str, key: &str) -> String {
        let consent =
            json!({"type": "recurring", "consent": {"by": "shopper", "at": "2026-11-01T00:00:00Z"}});
        let made = self.post(&format!("/v1/tokens/{token}/agreements"), key, &consent).await;
        assert_eq!(made.status, 201, "{}", text(&made));
        word(&made.json(), "id").to_owned()
    }

    pub(crate) async fn patch(&self, token: &str, body: &Value) -> Answer {
        self.client.request("PATCH", &format!("/v1/tokens/{token}"), &[], body).await.unwrap()
    }

    /// The charge when it is as it should be.
    pub(crate) async fn until(&self, id: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let charge = self.get(&format!("/v1/charges/{id}")).await;
            if is(&charge) {
                return charge;
            }
            assert!(began.elapsed() < FINAL_MAX, "not {what}: {charge}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the sandbox's next requests meet.
    pub(crate) async fn script(&self, script: &Value) {
        self.at_the_sandbox("/sandbox/faults", script).await;
    }

    /// One of the sandbox's own verbs.
    pub(crate) async fn at_the_sandbox(&self, path: &str, body: &Value) {
        let port = std::fs::read_to_string(self.vault.beside("sandbox.port")).unwrap();
        let ca = std::fs::read(self.vault.path("tls/ca.pem")).unwrap();
        let sandbox = Client::new(&format!("https://127.0.0.1:{}", port.trim()), Some(&ca), None).unwrap();
        let answer = sandbox.post(path, "-", body).await.unwrap();
        assert_eq!(answer.status, 200, "{}", text(&answer));
    }

    /// All entries of the sandbox's ledger.
    pub(crate) fn ledger(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.vault.beside("ledger.ndjson")).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Approved sales of an invoice, without those that were voided since.
    pub(crate) fn paid(&self, invoice: &str) -> Vec<Value> {
        let ledger = self.ledger();
        let voided = |sale: &Value| {
            ledger.iter().any(|e| e["kind"] == "void" && e["status"] != "error" && e["parent"] == sale["id"])
        };
        let is_paid = |e: &&Value| {
            e["kind"] == "sale" && e["status"] == "approved" && e["invoice"] == invoice && !voided(e)
        };
        ledger.iter().filter(is_paid).cloned().collect()
    }
}

pub(crate) fn sale(token: &str, invoice: &str) -> Value {
    json!({
        "token": token, "amount": 1250, "currency": "USD", "invoice": invoice, "initiator": "customer",
        "destination": "sandbox", "metadata": { "run": "november" },
    })
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
