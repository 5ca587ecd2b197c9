//! What is erased, and the keys that may have sealed it: they are destroyed in time, whatever dies, and then no backup brings it back.

use std::path::Path;
use std::time::{Duration, Instant};

use cardvault::card::tenant::Mode;
use cardvault::tools::client::Client;
use serde_json::{Value, json};

use crate::common::{
    BILLING, PATIENCE, Vault, card, count_of, events, name, numbers, order, run, store, text, wait_for,
};

/// Ids of the tenant's data keys in this state.
fn data_keys(vault: &Vault, state: &str) -> Vec<String> {
    let (code, said) = run(&["keys", "--config", vault.config().to_str().unwrap(), "list"]);
    assert_eq!(code, 0, "{said}");
    let lines = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let is_one = |line: &Vec<&str>| line.get(1..3) == Some(&["data", "acme"][..]) && line.contains(&state);
    lines.filter(is_one).map(|line| line[0].to_owned()).collect()
}

/// The wrapped bytes of a key, as the key store has them.
fn wrapped(vault: &Vault, id: &str) -> String {
    let id: u64 = id.parse().unwrap();
    let store: Value =
        serde_json::from_slice(&std::fs::read(vault.path("keys/keystore.json")).unwrap()).unwrap();
    let key = store["keys"].as_array().unwrap().iter().find(|key| key["id"] == id).unwrap();
    key["wrapped"].as_str().unwrap().to_owned()
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// As if what was erased had been erased so many days earlier: the vault's own clock cannot be moved.
fn age(vault: &Vault, days: i64) {
    let micros = days * 86_400 * 1_000_000;
    let aged = vault.database().execute("update erased_keys set since = since - ?1", [micros]).unwrap();
    assert!(aged > 0, "no key is to go");
}

/// As if each state of this key had begun so many days earlier: the supervisor goes by that, whatever the edge asks.
fn age_key(vault: &Vault, id: &str, days: i64) {
    let (file, id) = (vault.path("keys/keystore.json"), id.parse::<u64>().unwrap());
    let mut store: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let keys = store["keys"].as_array_mut().unwrap();
    let key = keys.iter_mut().find(|key| key["id"] == id).unwrap();
    for step in key["history"].as_array_mut().unwrap() {
        step["at"] = json!(step["at"].as_i64().unwrap() - days * 86_400 * 1_000_000);
    }
    std::fs::write(&file, serde_json::to_vec(&store).unwrap()).unwrap();
}

/// The certificate of an erasure, once a checkpoint covers it, and what `cardvault erase verify` says of it.
async fn certificate(vault: &Vault, who: &Client, link: &str) -> (Value, i32, String) {
    let mut got = who.get(link).await.unwrap();
    let end = Instant::now() + PATIENCE;
    while got.status == 409 && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(100)).await;
        got = who.get(link).await.unwrap();
    }
    assert_eq!(got.status, 200, "{}", text(&got));
    let file = vault.beside("certificate.json");
    std::fs::write(&file, &got.body).unwrap();
    let key = vault.path("keys/audit.pub");
    let (code, said) = run(&["erase", "verify", name(&file), "--key", name(&key)]);
    (got.json(), code, said)
}

/// Until another key took over and nothing is left under this one, and from then until it may go: no sooner than planned.
fn wait_until_empty(vault: &mut Vault, key: &str) {
    let sql = "select emptied is not null from erased_keys where key = ?1";
    let end = Instant::now() + PATIENCE * 2;
    while !vault.database().query_row(sql, [key.parse::<u32>().unwrap()], |row| row.get(0)).unwrap_or(false) {
        assert!(Instant::now() < end, "the old key is not empty");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(data_keys(vault, "retired"), [key], "it is gone sooner than planned");
    vault.stop();
    age_key(vault, key, 13);
    vault.serve();
}

/// Sixty cards a second, and a step that something died in is asked for again within seconds.
fn wait_for_end_of(vault: &Vault, key: &str) {
    let end = Instant::now() + PATIENCE * 2;
    while !data_keys(vault, "destroyed").iter().any(|gone| gone == key) {
        assert!(Instant::now() < end, "the old key lives");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The certificate once it is final: bytes may not be gone from every file yet.
async fn final_certificate(vault: &Vault, who: &Client, link: &str) -> String {
    let mut last = certificate(vault, who, link).await;
    let end = Instant::now() + PATIENCE;
    while last.0["status"] != "final" && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(100)).await;
        last = certificate(vault, who, link).await;
    }
    assert_eq!(last.1, 0, "{}", last.2);
    last.2
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_what_is_erased_are_destroyed_in_time_whatever_dies() {
    // Slow enough that something dies while cards are sealed again.
    let mut vault = Vault::start_with(|config| config + "\n[limits]\nreseals_per_second_max = 60\n");
    vault.tenant("acme", Mode::Test);
    let credential = vault.principal(order("billing", Some("acme"), &BILLING));
    let client = vault.client(&credential);
    let mut paths = Vec::new();
    for n in 0..60 {
        let stored = store(&client, &format!("k-{n}"), &card(&numbers::volume(n), &format!("c-{n}"))).await;
        paths.push(format!("/v1/tokens/{}", stored["id"].as_str().unwrap()));
    }
    let old = data_keys(&vault, "active").remove(0);
    let wrapped_before = wrapped(&vault, &old);
    vault.stop();
    let backup = vault.beside("backup");
    copy_all(&vault.path("data"), &backup);
    vault.serve();
    let client = vault.client(&credential);
    let erased = client.request("DELETE", &paths[0], &[], None).await.unwrap();
    assert_eq!(erased.status, 200, "{}", text(&erased));
    let link = erased.json()["erasure_certificate"].as_str().unwrap().to_owned();
    let (planned, code, said) = certificate(&vault, &client, &link).await;
    assert!(code == 0 && said.contains("planned: after"), "{said}");
    assert_eq!((&planned["status"], planned["keys"][0]["id"].to_string()), (&json!("planned"), old.clone()));
    vault.tenant("other", Mode::Test);
    let stranger = vault.application("stranger", "other", &BILLING);
    assert_eq!(stranger.get(&link).await.unwrap().status, 404);
    let reader = vault.application("reader", "acme", &["tokens:read"]);
    assert_eq!(reader.get(&link).await.unwrap().status, 403);
    assert_eq!(data_keys(&vault, "active"), std::slice::from_ref(&old), "there is time yet");

    vault.stop();
    age(&vault, 40);
    age_key(&vault, &old, 40);
    vault.serve();
    for role in ["edge", "supervisor", "keeper", "supervisor"] {
        std::thread::sleep(Duration::from_millis(250));
        if role == "supervisor" {
            vault.kill();
            vault.serve();
        } else {
            vault.kill_role(role);
        }
    }
    wait_until_empty(&mut vault, &old);
    wait_for_end_of(&vault, &old);
    let client = vault.client(&credential);
    for path in &paths[1..] {
        assert_eq!(client.get(path).await.unwrap().status, 200);
    }
    let key_store = std::fs::read_to_string(vault.path("keys/keystore.json")).unwrap();
    assert!(!key_store.contains(&wrapped_before), "the key store holds the destroyed key");
    let assessor = vault.assessor();
    let said = final_certificate(&vault, &assessor, &link).await;
    assert!(said.contains("unrecoverable     after"), "{said}");
    let events = events(&assessor).await;
    let of_old: Vec<&str> = events
        .iter()
        .filter(|event| event["target"]["kind"] == "key" && event["target"]["id"] == old)
        .map(|event| event["action"].as_str().unwrap())
        .collect();
    assert_eq!(of_old.iter().filter(|action| **action == "key.destroy").count(), 1, "{of_old:?}");
    assert!(of_old.ends_with(&["key.emptied", "key.destroy"]), "{of_old:?}");
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");

    // The backup of before, beside the key store of now: the erased card is there again, and does not open.
    std::fs::remove_dir_all(vault.path("data")).unwrap();
    copy_all(&backup, &vault.path("data"));
    vault.serve();
    let back = vault.client(&credential).get(&paths[0]).await.unwrap();
    assert!(back.status >= 500, "{}", text(&back));
}

/// `cardvault …` on this vault's configuration.
fn command(vault: &Vault, words: &[&str]) -> (i32, String) {
    run(&[words, &["--config", vault.config().to_str().unwrap()]].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_erases_each_card_once_whatever_dies_and_is_not_turned_off() {
    const POLICY: &str = "\n[retention.acme]\ndays_after_last_agreement = 1\n";
    let mut vault = Vault::start_with(|config| config + POLICY);
    vault.tenant("acme", Mode::Test);
    let credential = vault.principal(order("billing", Some("acme"), &BILLING));
    let client = vault.client(&credential);
    let mut paths = Vec::new();
    for n in 0..120 {
        let stored = store(&client, &format!("k-{n}"), &card(&numbers::volume(n), &format!("c-{n}"))).await;
        paths.push(format!("/v1/tokens/{}", stored["id"].as_str().unwrap()));
    }
    vault.stop();
    // As if they had been stored two days earlier: the vault's own clock cannot be moved.
    let aged = vault.database().execute("update cards set created = created - 172800000000", []).unwrap();
    assert_eq!(aged, 120);
    vault.serve();
    for role in ["edge", "supervisor", "edge"] {
        std::thread::sleep(Duration::from_millis(60));
        if role == "supervisor" {
            vault.kill();
            vault.serve();
        } else {
            vault.kill_role(role);
        }
    }
    let client = vault.client(&credential);
    let end = Instant::now() + PATIENCE * 3;
    for path in &paths {
        while client.get(path).await.unwrap().status != 410 {
            assert!(Instant::now() < end, "a card past its limit is kept");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    wait_for("the end of the look", || {
        let (_, said) = command(&vault, &["doctor"]);
        said.contains("retention: 0 cards of 1 tenants are past their limit").then_some(())
    });
    let events = events(&vault.assessor()).await;
    for action in ["card.erase", "card.erased"] {
        let mut of: Vec<_> = events
            .iter()
            .filter(|event| event["action"] == action)
            .map(|event| &event["target"]["id"])
            .collect();
        of.sort_unstable_by_key(|id| id.to_string());
        of.dedup();
        assert_eq!((of.len(), count_of(&events, action)), (120, 120), "{action}");
    }
    assert!(vault.plain("/metrics").contains("cardvault_retention_overdue 0"));

    let config = std::fs::read_to_string(vault.config()).unwrap();
    std::fs::write(vault.config(), config.replace(POLICY, "")).unwrap();
    let (code, said) = command(&vault, &["reload"]);
    assert!(code != 0 && said.contains("retention.acme: retention is not turned off"), "{said}");
    std::fs::write(vault.config(), config.replace("agreement = 1", "agreement = 7")).unwrap();
    let (code, said) = command(&vault, &["reload"]);
    assert_eq!(code, 0, "{said}");
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
}
