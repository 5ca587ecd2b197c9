//! A data key, a fingerprint key and a KEK take over from others, again and again, while cards are stored, changed and erased and processes are killed:
//! no record is unreadable, lost or doubled, none is left under the key that was emptied, and the log verifies. The long run is the same
//! test with other numbers:
//!
//! ```text
//! CARDVAULT_CRASH_ROTATIONS=20 CARDVAULT_CRASH_ROTATED=20000 cargo test --test crash -- --nocapture --exact \
//!     rotation::whatever_dies_no_card_is_lost_while_keys_change
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cardvault::card::tenant::Mode;
use cardvault::tools::client::Client;
use serde_json::json;
use tokio::sync::RwLock;

use crate::common::numbers::volume;
use crate::common::{BILLING, Vault, card, run, store, text};

const CARDS: u64 = 400;
const ROTATIONS: usize = 1;
const ROLES: [&str; 3] = ["edge", "keeper", "supervisor"];
/// A key is empty long before; a test that hangs must end.
const EMPTY_MAX: Duration = Duration::from_secs(90);
const ANSWERED_MAX: Duration = Duration::from_secs(40);

#[expect(clippy::disallowed_methods, reason = "the size of a test is no setting of the product")]
fn asked(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

fn keys(vault: &Vault, args: &[&str]) -> (i32, String) {
    run(&[&["keys", "--config", vault.config().to_str().unwrap()], args].concat())
}

/// Ids of the keys of this purpose in this state.
fn ids_of(vault: &Vault, purpose: &str, state: &str) -> Vec<String> {
    let (code, said) = keys(vault, &["list"]);
    assert_eq!(code, 0, "{said}");
    let is_one = |line: &Vec<&str>| line.get(1) == Some(&purpose) && line.contains(&state);
    let lines = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.filter(is_one).map(|line| line[0].to_owned()).collect()
}

/// Changes the expiry of cards in turn until told to stop; gives the month that each was answered with last.
async fn change(
    client: Arc<RwLock<Client>>,
    ids: Arc<Vec<String>>,
    over: Arc<AtomicBool>,
) -> BTreeMap<usize, u64> {
    let mut months = BTreeMap::new();
    for (at, month) in (0..ids.len()).cycle().zip((1..=12).cycle()) {
        if over.load(Ordering::SeqCst) {
            break;
        }
        let body = json!({"card": {"exp_month": month, "exp_year": 2031}});
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < ANSWERED_MAX, "a change is not answered");
            let asking = client.read().await.clone();
            match asking.request("PATCH", &format!("/v1/tokens/{}", ids[at]), &[], &body).await {
                Ok(answer) if answer.status == 200 => break,
                Ok(answer) => assert!(matches!(answer.status, 409 | 503), "{}", text(&answer)),
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        months.insert(at, month);
    }
    months
}

fn kill(mut vault: Vault, role: &'static str) -> Vault {
    if role == "supervisor" {
        vault.kill();
        vault.serve();
    } else {
        vault.kill_role(role);
    }
    vault
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_dies_no_card_is_lost_while_keys_change() {
    // Slow enough that something dies in the middle.
    let cards = asked("CARDVAULT_CRASH_ROTATED", CARDS);
    let pace = format!("\n[limits]\nreseals_per_second_max = {}\n", cards.max(400) / 2);
    let mut vault = Vault::start_with(|config| config + &pace);
    vault.tenant("acme", Mode::Test);
    let credential = vault.principal(crate::common::order("billing", Some("acme"), &BILLING));
    let client = vault.client(&credential);
    let mut ids = Vec::new();
    for n in 0..cards {
        let stored = store(&client, &format!("k-{n}"), &card(&volume(n), &format!("c-{n}"))).await;
        ids.push(stored["id"].as_str().unwrap().to_owned());
    }
    let (client, ids) = (Arc::new(RwLock::new(client)), Arc::new(ids));
    let rotations = usize::try_from(asked("CARDVAULT_CRASH_ROTATIONS", ROTATIONS as u64)).unwrap();
    let mut months = BTreeMap::new();
    for rotation in 0..rotations {
        let over = Arc::new(AtomicBool::new(false));
        let changing = tokio::spawn(change(Arc::clone(&client), Arc::clone(&ids), Arc::clone(&over)));
        let before = ids_of(&vault, "data", "active");
        let hashed_before = ids_of(&vault, "fingerprint", "active");
        for purpose in ["data", "fingerprint"] {
            let (code, said) = keys(&vault, &["rotate", purpose, "--tenant", "acme"]);
            assert_eq!(code, 0, "{said}");
        }
        for (at, role) in ROLES.into_iter().enumerate() {
            tokio::time::sleep(Duration::from_millis(150 + 40 * ((rotation + at) as u64 % 5))).await;
            vault = tokio::task::spawn_blocking(move || kill(vault, role)).await.unwrap();
            *client.write().await = vault.client(&credential);
            let (code, said) = keys(&vault, &["rotate", "kek"]);
            assert_eq!(code, 0, "{said}");
        }
        let began = Instant::now();
        while !keys(&vault, &["progress"]).1.contains("empty") {
            assert!(began.elapsed() < EMPTY_MAX, "{}", keys(&vault, &["progress"]).1);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        over.store(true, Ordering::SeqCst);
        months.extend(changing.await.unwrap());
        // The vault itself counts what needs the key, and finds nothing.
        for key in [&before[0], &hashed_before[0]] {
            let (code, said) = keys(&vault, &["destroy", key]);
            assert_eq!(code, 0, "{said}");
        }
    }
    let client = client.read().await.clone();
    for (at, id) in ids.iter().enumerate() {
        let read = client.get(&format!("/v1/tokens/{id}")).await.unwrap();
        assert_eq!(read.status, 200, "{at}: {}", text(&read));
        let month = months.get(&at).copied().unwrap_or(12);
        assert_eq!(read.json()["card"]["exp_month"], month, "{at}");
        assert_eq!(read.json()["card"]["last4"], volume(at as u64)[12..], "{at}");
    }
    // Each number is found under the fingerprint key of now.
    for (at, id) in ids.iter().enumerate().step_by(7) {
        let mut body = card(&volume(at as u64), &format!("c-{at}"));
        body["on_duplicate"] = json!("return_existing");
        let again = client.post("/v1/tokens", &format!("again-{at}"), &body).await.unwrap();
        assert_eq!((again.status, &again.json()["id"]), (200, &json!(id)), "{at}");
    }
    let listed = client.get("/v1/tokens?customer=c-1").await.unwrap().json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
    eprintln!("{cards} cards, {rotations} rotations, {} kills", rotations * ROLES.len());
}

/// The supervisor dies at any instant of a change of the KEK: what is on disk fits together, and the next start opens everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_kek_that_is_cut_off_leaves_one_that_fits() {
    let mut vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let credential = vault.principal(crate::common::order("billing", Some("acme"), &BILLING));
    let stored = store(&vault.client(&credential), "k", &card(&volume(1), "c")).await;
    let path = format!("/v1/tokens/{}", stored["id"].as_str().unwrap());
    // From before the first step to after the last: a change takes some milliseconds.
    for delay in [0, 3, 6, 10, 16] {
        let config = vault.config();
        let asking =
            std::thread::spawn(move || run(&["keys", "--config", config.to_str().unwrap(), "rotate", "kek"]));
        // The command itself takes a while to start.
        std::thread::sleep(Duration::from_millis(15 + delay));
        vault.kill();
        let _ = asking.join().unwrap();
        vault.serve();
        let read = vault.client(&credential).get(&path).await.unwrap();
        assert_eq!(read.status, 200, "after {delay} ms: {}", text(&read));
        let (code, said) = keys(&vault, &["list"]);
        let kek =
            |state: &str| said.lines().filter(|line| line.contains(" kek ") && line.contains(state)).count();
        assert!(code == 0 && kek("active") == 1 && kek("retired") == 0, "{said}");
    }
    let (code, said) = keys(&vault, &["rotate", "kek"]);
    assert_eq!(code, 0, "{said}");
    let (_, said) = keys(&vault, &["list"]);
    assert!(!said.lines().any(|line| line.contains(" kek ") && line.contains("pending")), "{said}");
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
}
