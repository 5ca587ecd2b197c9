//! SIGKILL of each process while charges are under way: afterwards the sandbox's ledger and the vault say the same of every invoice.
//! Doubled: more than one approved, unvoided sale. Lost: approved on one side only.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test: what fails here fails it"
)]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "shared with other tests, which use the rest")]
mod common;
mod operations;
mod retries;
mod rotation;
mod runs;
mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cardvault::card::tenant::Mode;
use cardvault::tools::client::Client;
use common::numbers::complete;
use common::{Vault, card, store};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

const SCOPES: [&str; 3] = ["tokens:create", "charges:create", "charges:read"];
const INVOICES: usize = 120;
const AT_ONCE: usize = 8;
/// Everything is settled long before; a test that hangs must end.
const SETTLED_MAX: Duration = Duration::from_secs(120);
/// Approve, decline, answer slowly, drop after and before charging, answer 500.
const SUFFIXES: [u32; 8] = [0, 0, 902, 970, 971, 972, 973, 970];

/// What a caller knows of a vault that comes and goes.
struct Caller {
    vault: Mutex<Vault>,
    client: Mutex<Client>,
    credential: String,
}

impl Caller {
    async fn start() -> (Arc<Self>, Vec<String>) {
        let vault = Vault::start();
        vault.tenant("acme", Mode::Test);
        let credential = vault.principal(common::order("invoicing", Some("acme"), &SCOPES));
        let client = vault.client(&credential);
        let mut tokens = Vec::new();
        for (at, suffix) in SUFFIXES.into_iter().cycle().take(INVOICES).enumerate() {
            let number = complete(&format!("468738{at:06}{suffix:03}"));
            let stored = store(&client, &format!("t-{at}"), &card(&number, "c-1")).await;
            tokens.push(stored["id"].as_str().unwrap().to_owned());
        }
        let caller = Self { vault: Mutex::new(vault), client: Mutex::new(client), credential };
        (Arc::new(caller), tokens)
    }

    /// Asks for a charge under one key until it is final, whatever the vault does meanwhile.
    async fn charge(&self, token: &str, invoice: &str) -> Value {
        let body = json!({
            "token": token, "amount": 100, "currency": "USD", "invoice": invoice, "initiator": "customer",
            "destination": "sandbox",
        });
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < SETTLED_MAX, "{invoice} is not settled");
            let client = self.client.lock().await.clone();
            if let Ok(answer) = client.post("/v1/charges", invoice, &body).await {
                match answer.status {
                    201 => return answer.json(),
                    202 | 409 | 500.. => {}
                    status => panic!("{invoice}: {status} {}", answer.json()),
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Charges all invoices, calls `harm` meanwhile, and compares both sides.
async fn survive<F: Future<Output = ()>>(harm: impl FnOnce(Arc<Caller>) -> F) {
    let (caller, tokens) = Caller::start().await;
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let tokens = Arc::new(tokens);
    let mut workers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (caller, tokens, next) = (Arc::clone(&caller), Arc::clone(&tokens), Arc::clone(&next));
        workers.spawn(async move {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let Some(token) = tokens.get(at) else { return done };
                let invoice = format!("inv-{at}");
                done.push((invoice.clone(), caller.charge(token, &invoice).await));
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    harm(Arc::clone(&caller)).await;
    let mut charges = BTreeMap::new();
    while let Some(done) = workers.join_next().await {
        charges.extend(done.unwrap());
    }
    assert_eq!(charges.len(), INVOICES);
    let mut vault = caller.vault.lock().await;
    compare(&charges, &paid(&vault));
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
}

/// Approved, unvoided sales by invoice, whatever their key.
fn paid(vault: &Vault) -> BTreeMap<String, i64> {
    let text = std::fs::read_to_string(vault.beside("ledger.ndjson")).unwrap();
    let ledger: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let voided = |sale: &Value| {
        ledger.iter().any(|e| e["kind"] == "void" && e["status"] != "error" && e["parent"] == sale["id"])
    };
    let mut paid = BTreeMap::new();
    for sale in ledger.iter().filter(|e| e["kind"] == "sale" && e["status"] == "approved") {
        if !voided(sale) {
            *paid.entry(sale["invoice"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    paid
}

fn compare(charges: &BTreeMap<String, Value>, paid: &BTreeMap<String, i64>) {
    for (invoice, charge) in charges {
        let status = charge["status"].as_str().unwrap();
        assert!(matches!(status, "approved" | "declined" | "failed"), "{invoice}: {charge}");
        let expected = i64::from(status == "approved");
        assert_eq!(paid.get(invoice).copied().unwrap_or(0), expected, "{invoice}: {charge}");
    }
    assert!(paid.keys().all(|invoice| charges.contains_key(invoice)));
    assert!(paid.len() > INVOICES / 2);
}

async fn kill_role(caller: Arc<Caller>, role: &'static str) {
    for _ in 0..3 {
        let caller = Arc::clone(&caller);
        tokio::task::spawn_blocking(move || caller.vault.blocking_lock().kill_role(role)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_edge_dies() {
    survive(|caller| kill_role(caller, "edge")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keeper_dies() {
    survive(|caller| kill_role(caller, "keeper")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_forwarder_dies() {
    survive(|caller| kill_role(caller, "forwarder")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_dies() {
    survive(|caller| async move {
        for _ in 0..2 {
            let again = Arc::clone(&caller);
            let restart = move || {
                let mut vault = again.vault.blocking_lock();
                vault.kill();
                vault.serve();
                *again.client.blocking_lock() = vault.client(&again.credential);
            };
            tokio::task::spawn_blocking(restart).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
    .await;
}
