//! A disk that is full: what cannot be kept is refused, nothing is half done, and the vault works again when there is room. While the
//! log cannot be written, nobody reads for long.

use std::time::{Duration, Instant};

use cardvault::card::tenant::Mode;
use cardvault::tools::client::{Answer, Client};
use serde_json::{Value, json};

use crate::common::disk::store_until_full;
use crate::common::{BILLING, Vault, card, count_of, events, numbers, store, text, wait_for};

/// Room for the database of a few hundred cards and its write-ahead log.
const DISK_KIB: u32 = 12 << 10;
/// What waits for room is written at the latest then.
const RECOVERED_MAX: Duration = Duration::from_secs(20);
const CHECKPOINT_MAX: Duration = Duration::from_secs(75);

/// Whatever changes something is refused the same way, and nothing is sent.
async fn each_change_is_refused(vault: &Vault, client: &Client, first: &str, charge: &Value) {
    let ledger = || std::fs::read(vault.beside("ledger.ndjson")).unwrap_or_default();
    let sent = ledger();
    let head = [("idempotency-key", "k")];
    for (method, path, body) in [
        ("POST", "/v1/charges", Some(charge)),
        ("PATCH", first, Some(&json!({"status": "suspended"}))),
        ("DELETE", first, None),
    ] {
        let answer = client.request(method, path, &head, body).await.unwrap();
        let problem = answer.json();
        assert_eq!(
            (answer.status, &problem["retryable"]),
            (503, &json!(true)),
            "{method}: {}",
            text(&answer)
        );
        assert!(matches!(problem["code"].as_str(), Some("disk_full" | "store_unavailable")), "{problem}");
    }
    assert_eq!(ledger(), sent);
    assert!(vault.plain("/readyz").starts_with("HTTP/1.1 503"));
}

/// Reads go on for as long as their events may wait, and then stop.
async fn reads_stop_when_the_log_lags(client: &Client, first: &str, shown: &Value) {
    let since = Instant::now();
    assert_eq!(client.get(first).await.unwrap().json(), *shown);
    let (stopped, problem) = loop {
        let answer = client.get(first).await.unwrap();
        if answer.status != 200 {
            break (since.elapsed(), answer);
        }
        assert!(since.elapsed() < Duration::from_secs(15), "reads go on without a log");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(stopped > Duration::from_secs(8), "{stopped:?}");
    assert_eq!(
        (problem.status, &problem.json()["code"], &problem.json()["retryable"]),
        (503, &json!("log_lagging"), &json!(true))
    );
    for path in ["/v1/tokens?customer=c-0", "/v1/charges?limit=1"] {
        let answer = client.get(path).await.unwrap();
        assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("log_lagging")), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_changes_and_then_reads_until_there_is_room() {
    let Some(vault) = Vault::start_on_disk(DISK_KIB, |config| config) else { return };
    vault.tenant("acme", Mode::Test);
    let scopes: Vec<&str> = BILLING.into_iter().chain(["charges:create", "charges:read"]).collect();
    let (client, assessor) = (vault.application("billing", "acme", &scopes), vault.assessor());
    let mut kept = vec![store(&client, "first", &card("4242424242424242", "c-0")).await];
    let filler = vault.fill_disk();
    let body = |n| card(&numbers::volume(u64::try_from(n).unwrap()), "c-1");
    let answers = store_until_full(&client, body).await;
    let refused = answers.len() - 1;
    kept.extend(answers[..refused].iter().map(Answer::json));
    let first = format!("/v1/tokens/{}", kept[0]["id"].as_str().unwrap());

    let charge = json!({
        "token": kept[0]["id"], "amount": 100, "currency": "USD", "destination": "sandbox", "invoice": "i-1",
        "initiator": "customer",
    });
    each_change_is_refused(&vault, &client, &first, &charge).await;

    reads_stop_when_the_log_lags(&client, &first, &kept[0]).await;

    std::fs::remove_file(filler).unwrap();
    let again = Instant::now();
    wait_for("room", || vault.plain("/readyz").starts_with("HTTP/1.1 200").then_some(()));
    assert!(again.elapsed() < RECOVERED_MAX);
    assert_eq!(client.get(&first).await.unwrap().json(), kept[0]);
    // Each card is whole or not there; the key that was refused is free, the others answer as they did.
    assert_eq!(vault.count("cards"), i64::try_from(kept.len()).unwrap());
    assert_eq!(vault.count("charges"), 0);
    for n in [refused, 0] {
        store(&client, &format!("k-{n}"), &body(n)).await;
    }
    for card in &kept {
        let read = client.get(&format!("/v1/tokens/{}", card["id"].as_str().unwrap())).await.unwrap();
        assert_eq!((read.status, &read.json()), (200, card));
    }
    let charged = client.post("/v1/charges", "k", &charge).await.unwrap();
    assert_eq!((charged.status, &charged.json()["status"]), (201, &json!("approved")), "{}", text(&charged));
    // Every read that was answered is in the log, those while it could not be written too.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(count_of(&events(&assessor).await, "card.read") > kept.len() + 50);
    // The log as far as the next checkpoint, which is a minute away at most, accounts for all.
    let since = Instant::now();
    while let (code, said) = vault.verify()
        && code != 0
    {
        assert!(since.elapsed() < CHECKPOINT_MAX, "{said}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
