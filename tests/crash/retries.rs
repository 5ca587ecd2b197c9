//! SIGKILL of the edge while retries are made and routes move on: each is one more attempt with a key of its own, and no money moves
//! twice.

use std::time::{Duration, Instant};

use cardvault::card::tenant::Mode;
use cardvault::tools::client::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::common::numbers::complete;
use crate::common::{Vault, card, order, store, text};
use crate::{SETTLED_MAX, paid};

const CHARGES: usize = 48;
const SCOPES: [&str; 5] = ["tokens:create", "tokens:read", "tokens:update", "charges:create", "charges:read"];
/// What becomes of the new numbers: approved, answered slowly, dropped after and before charging, answered 500.
const SUFFIXES: [u32; 6] = [0, 970, 971, 972, 973, 0];

/// Asks until it is answered as it should be, whatever the vault does meanwhile.
async fn insist(client: &Client, method: &str, path: &str, key: &str, body: Option<&Value>) -> Value {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < SETTLED_MAX, "{method} {path} is not answered");
        let headers = [("idempotency-key", key)];
        let asked = match body {
            Some(body) => client.request(method, path, &headers, body).await,
            None => client.request(method, path, &[], None).await,
        };
        if let Ok(answer) = asked {
            match answer.status {
                200 | 201 => return answer.json(),
                202 | 409 | 500.. => {}
                _ => panic!("{method} {path}: {}", text(&answer)),
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A charge that is declined, and tried again every two seconds; meanwhile its customer brings another card.
async fn renew(client: Client, at: usize) -> String {
    let (name, old) = (format!("inv-{at}"), complete(&format!("468738{at:06}902")));
    let stored = store(&client, &format!("t-{at}"), &card(&old, "c-1")).await;
    let token = stored["id"].as_str().unwrap();
    let consent = json!({"type": "recurring", "consent": {"by": "shopper", "at": "2026-11-01T00:00:00Z"}});
    let agreements = format!("/v1/tokens/{token}/agreements");
    let agreed = insist(&client, "POST", &agreements, &format!("a-{at}"), Some(&consent)).await;
    let body = json!({
        "token": token, "amount": 100, "currency": "USD", "invoice": name, "initiator": "merchant",
        "destination": "sandbox", "retry": "schedule",
    });
    let charge = insist(&client, "POST", "/v1/charges", &name, Some(&body)).await;
    assert_eq!(charge["status"], "declined", "{charge}");
    let new = complete(&format!("468739{at:06}{:03}", SUFFIXES[at % SUFFIXES.len()]));
    let update = json!({"card": {"number": new, "exp_month": 12, "exp_year": 2031}});
    tokio::time::sleep(Duration::from_millis(60 * at as u64)).await;
    insist(&client, "PATCH", &format!("/v1/tokens/{token}"), "-", Some(&update)).await;
    let verification = json!({"token": token, "destination": "sandbox", "agreement": agreed["id"]});
    let verified =
        insist(&client, "POST", "/v1/verifications", &format!("v-{at}"), Some(&verification)).await;
    assert_eq!(verified["status"], "approved", "{verified}");
    charge["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_edge_dies_while_retries_are_made() {
    let retries = format!("\n[retries]\nsoft = [{}]\n", "\"2s\", ".repeat(18));
    let vault = Vault::start_with(|config| config + &retries);
    vault.tenant("acme", Mode::Test);
    let client = vault.client(&vault.principal(order("invoicing", Some("acme"), &SCOPES)));
    let mut workers = JoinSet::new();
    for at in 0..CHARGES {
        let client = client.clone();
        workers.spawn(async move { renew(client, at).await });
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let vault = tokio::task::spawn_blocking(move || {
        for _ in 0..4 {
            vault.kill_role("edge");
            std::thread::sleep(Duration::from_millis(900));
        }
        vault
    });
    let mut vault = vault.await.unwrap();
    let mut tries = 0;
    let ids = workers.join_all().await;
    let began = Instant::now();
    for id in &ids {
        let charge = loop {
            let charge = insist(&client, "GET", &format!("/v1/charges/{id}"), "-", None).await;
            if charge["retries"]["status"] == "ended" {
                break charge;
            }
            assert!(began.elapsed() < SETTLED_MAX, "not settled: {charge}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert_eq!(charge["status"], "approved", "{charge}");
        assert_eq!(charge["amount_captured"], 100, "{charge}");
        tries += charge["attempts"].as_array().unwrap().len();
    }
    let paid = paid(&vault);
    let doubled: Vec<_> = paid.iter().filter(|(_, count)| **count != 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    assert_eq!(paid.len(), CHARGES, "lost");
    assert!(tries >= 2 * CHARGES, "{tries} attempts");
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
}

/// What is known at all is known by then.
const LOST_AFTER: Duration = Duration::from_secs(20);
/// A destination that refuses every connection stands first in the route.
const ROUTE: &str = r#"
[destination.dead]
connector = "sandbox"
mode = "test"
endpoint = "https://127.0.0.1:1"
trust = "tls/ca.pem"
credentials.secret_key = "credentials/sandbox_secret_key"
[[route]]
destinations = ["dead", "sandbox", "stripe_sandbox"]
failover = "soft_decline"
"#;

/// Charges until it is final, or for so long that only what cannot be asked for is not.
async fn ask(client: &Client, name: &str, body: &Value) -> Value {
    let (began, mut last) = (Instant::now(), Value::Null);
    while last["status"] != "unknown" || last["destination"] != "dead" || began.elapsed() < LOST_AFTER {
        assert!(began.elapsed() < SETTLED_MAX, "not settled: {last}");
        let headers = [("idempotency-key", name), ("prefer", "wait=5")];
        if let Ok(answer) = client.request("POST", "/v1/charges", &headers, body).await {
            match answer.status {
                201 => return answer.json(),
                202 => last = answer.json(),
                409 | 500.. => {}
                _ => panic!("{name}: {}", text(&answer)),
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_edge_dies_while_routes_move_on() {
    let vault = Vault::start_with(|config| config + ROUTE);
    vault.tenant("acme", Mode::Test);
    let client = vault.client(&vault.principal(order("invoicing", Some("acme"), &SCOPES)));
    let mut workers = JoinSet::new();
    for at in 0..CHARGES {
        let client = client.clone();
        let suffix = if at % 7 == 0 { 902 } else { SUFFIXES[at % SUFFIXES.len()] };
        let number = complete(&format!("468738{at:06}{suffix:03}"));
        workers.spawn(async move {
            let token = store(&client, &format!("t-{at}"), &card(&number, "c-1")).await;
            tokio::time::sleep(Duration::from_millis(60 * at as u64)).await;
            let name = format!("inv-{at}");
            let body = json!({
                "token": token["id"], "amount": 100, "currency": "USD", "invoice": name, "initiator": "customer",
            });
            (name.clone(), ask(&client, &name, &body).await)
        });
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    let vault = tokio::task::spawn_blocking(move || {
        for _ in 0..4 {
            vault.kill_role("edge");
            std::thread::sleep(Duration::from_millis(500));
        }
        vault
    });
    let mut vault = vault.await.unwrap();
    let charges = workers.join_all().await;
    let paid = paid(&vault);
    for (name, charge) in &charges {
        let status = charge["status"].as_str().unwrap();
        let count = paid.get(name).copied().unwrap_or(0);
        assert_eq!(count, i64::from(status == "approved"), "{charge}");
        // Of what was about to leave for a processor that cannot be asked nobody knows: it goes nowhere else.
        let is_lost = status == "unknown" && charge["destination"] == "dead";
        assert!(is_lost || matches!(status, "approved" | "declined"), "{charge}");
    }
    let went_on = charges.iter().filter(|(_, charge)| charge["attempts"].as_array().unwrap().len() > 1);
    assert!(went_on.count() > CHARGES / 2, "routes moved on");
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
}
