//! Creates under SIGKILL: every acknowledged token is there with its own card and charges, no card stands under a wrong token, and the
//! log verifies. The big run that the product promises is the same test with other numbers; it prints what it did:
//!
//! ```text
//! CARDVAULT_CRASH_CREATES=100000 CARDVAULT_CRASH_KILLS=20 cargo test --test crash -- --nocapture --exact \
//!     tokens::every_acknowledged_token_is_there_with_its_own_card
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cardvault::card::tenant::Mode;
use cardvault::tools::client::Client;
use serde_json::{Value, json};
use tokio::sync::RwLock;
use tokio::task::JoinSet;

use crate::common::numbers::volume;
use crate::common::{Vault, order, text};

/// How many cards, and how often a process is killed, unless the environment says otherwise.
const CARDS: usize = 3_000;
const KILLS: usize = 6;
const AT_ONCE: usize = 16;
/// A charge waits for the processor, so more of them go on at once.
const CHARGED_AT_ONCE: usize = 64;
/// The sandbox approves numbers whose three digits before the check digit are below this.
const APPROVED: usize = 900;
/// A key is sent again until it is answered; a test that hangs must end.
const ANSWERED_MAX: Duration = Duration::from_secs(40);
const ROLES: [&str; 4] = ["edge", "keeper", "forwarder", "supervisor"];

/// The size of a run.
#[derive(Clone, Copy)]
struct Size {
    cards: usize,
    kills: usize,
}

impl Size {
    #[expect(clippy::disallowed_methods, reason = "the size of a test is no setting of the product")]
    fn asked() -> Self {
        let number = |name: &str, usual| match std::env::var(name) {
            Ok(text) => text.parse().unwrap(),
            Err(_) => usual,
        };
        Self {
            cards: number("CARDVAULT_CRASH_CREATES", CARDS),
            kills: number("CARDVAULT_CRASH_KILLS", KILLS),
        }
    }
}

/// The number of a card: one that is approved.
fn number(n: usize) -> String {
    volume(u64::try_from(n / APPROVED * 1_000 + n % APPROVED).unwrap())
}

/// What tells a card from all others: first six and last four do not, so its customer does as well.
fn body(n: usize) -> Value {
    let (month, year) = (n % 12 + 1, 2027 + n % 10);
    json!({
        "card": {"number": number(n), "exp_month": month, "exp_year": year},
        "billing": {"zip": format!("{:05}", n % 100_000)}, "customer": format!("c-{n}"),
    })
}

/// Whether an answer is the card of this number.
fn is_its_own(answer: &Value, n: usize) -> bool {
    let sent = body(n);
    let number = sent["card"]["number"].as_str().unwrap();
    answer["card"]["last4"] == number[12..]
        && answer["card"]["exp_month"] == sent["card"]["exp_month"]
        && answer["card"]["exp_year"] == sent["card"]["exp_year"]
        && answer["customer"] == sent["customer"]
}

/// Stores a card under one key until the answer comes, whatever dies meanwhile.
async fn create(client: &RwLock<Client>, n: usize) -> String {
    let (body, began) = (body(n), Instant::now());
    loop {
        assert!(began.elapsed() < ANSWERED_MAX, "card {n} is not answered");
        let asking = client.read().await.clone();
        match asking.post("/v1/tokens", &format!("k-{n}"), &body).await {
            Ok(answer) if answer.status == 201 => {
                assert!(is_its_own(&answer.json(), n), "card {n}: {}", text(&answer));
                return answer.json()["id"].as_str().unwrap().to_owned();
            }
            Ok(answer) => assert!(matches!(answer.status, 409 | 503), "card {n}: {}", text(&answer)),
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Kills a process whenever another part of the cards is stored; which and when is left to chance.
async fn kill_at_random(
    vault: Vault,
    client: &RwLock<Client>,
    credential: &str,
    done: &AtomicUsize,
    size: Size,
) -> (Vault, Vec<&'static str>) {
    let (mut vault, mut killed) = (vault, Vec::new());
    for kill in 0..size.kills {
        let chance = cardvault::random::make_bytes::<3>().unwrap();
        let role = ROLES[usize::from(chance[0]) % ROLES.len()];
        let part = size.cards / (size.kills + 1);
        killed.push(role);
        let at = kill * part + usize::from(chance[1]) * part / 256;
        while done.load(Ordering::SeqCst) < at {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_micros(u64::from(chance[2]) * 50)).await;
        vault = tokio::task::spawn_blocking(move || {
            match role {
                "supervisor" => {
                    vault.kill();
                    vault.serve();
                }
                role => vault.kill_role(role),
            }
            vault
        })
        .await
        .unwrap();
        *client.write().await = vault.client(credential);
    }
    (vault, killed)
}

/// Reads a card back and charges it.
async fn read_and_charge(client: &Client, token: &str, n: usize) {
    let read = client.get(&format!("/v1/tokens/{token}")).await.unwrap();
    assert!(read.status == 200 && is_its_own(&read.json(), n), "card {n}: {}", text(&read));
    let charge = json!({
        "token": token, "amount": 100, "currency": "USD", "destination": "sandbox",
        "invoice": format!("inv-{n}"), "initiator": "customer",
    });
    let charged = client.post("/v1/charges", &format!("charge-{n}"), &charge).await.unwrap();
    let status = &charged.json()["status"];
    assert!(charged.status == 201 && status == "approved", "card {n}: {}", text(&charged));
}

/// Reads and charges every card, many at a time.
async fn read_and_charge_all(client: &Client, made: &Arc<Vec<(String, usize)>>) {
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..CHARGED_AT_ONCE {
        let (client, made, next) = (client.clone(), Arc::clone(made), Arc::clone(&next));
        workers.spawn(async move {
            while let Some((token, n)) = made.get(next.fetch_add(1, Ordering::SeqCst)) {
                read_and_charge(&client, token, *n).await;
            }
        });
    }
    workers.join_all().await;
}

/// What is sealed under a token is its own card too: the processor was sent the number that was stored under it, once.
fn compare_with_ledger(vault: &Vault, made: &[(String, usize)]) {
    let ledger = BufReader::new(File::open(vault.beside("ledger.ndjson")).unwrap());
    let mut sales = BTreeMap::new();
    for line in ledger.lines() {
        let entry: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if entry["kind"] == "sale" {
            let word = |name: &str| entry[name].as_str().unwrap().to_owned();
            let before = sales.insert(word("invoice"), (word("status"), word("last4")));
            assert!(before.is_none(), "two sales for {}", entry["invoice"]);
        }
    }
    assert_eq!(sales.len(), made.len());
    for (_, n) in made {
        let (status, last_four) = &sales[&format!("inv-{n}")];
        assert!(status == "approved" && *last_four == number(*n)[12..], "card {n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_token_is_there_with_its_own_card() {
    let (size, began) = (Size::asked(), Instant::now());
    let vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let credential =
        vault.principal(order("billing", Some("acme"), &["tokens:create", "tokens:read", "charges:create"]));
    let client = Arc::new(RwLock::new(vault.client(&credential)));
    let (next, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut workers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (client, next, done) = (Arc::clone(&client), Arc::clone(&next), Arc::clone(&done));
        workers.spawn(async move {
            let mut made = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::SeqCst);
                if n >= size.cards {
                    return made;
                }
                made.push((create(&client, n).await, n));
                done.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let (mut vault, killed) = kill_at_random(vault, &client, &credential, &done, size).await;
    let mut made = BTreeMap::new();
    for worker in workers.join_all().await {
        made.extend(worker);
    }
    let stored_in = began.elapsed();
    assert_eq!(made.len(), size.cards, "two cards have one token");
    let made = Arc::new(made.into_iter().collect::<Vec<_>>());
    read_and_charge_all(&vault.client(&credential), &made).await;
    compare_with_ledger(&vault, &made);
    // One token for each key, however often it was sent.
    assert_eq!(vault.count("cards"), i64::try_from(size.cards).unwrap());
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
    eprintln!(
        "{} cards stored in {:.1} s through {} kills ({}); all read back and charged, the log verified: {:.1} s",
        made.len(),
        stored_in.as_secs_f64(),
        killed.len(),
        killed.join(", "),
        began.elapsed().as_secs_f64(),
    );
}
