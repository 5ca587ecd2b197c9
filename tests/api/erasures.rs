//! What is erased, and the keys that may have sealed it: they are destroyed in time, whatever dies, and then no backup brings it back.

use std::path::Path;

use cardvault::card::tenant::Mode;
use serde_json::Value;

use crate::common::{BILLING, PATIENCE, Vault, card, events, numbers, order, run, store, text, wait_for};

/// Ids of data keys in this state.
fn data_keys(vault: &Vault, state: &str) -> Vec<String> {
    let (code, said) = run(&["keys", "--config", vault.config().to_str().unwrap(), "list"]);
    assert_eq!(code, 0, "{said}");
    let lines = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let is_one = |line: &Vec<&str>| line.get(1) == Some(&"data") && line.contains(&state);
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
    assert_eq!(data_keys(&vault, "active"), std::slice::from_ref(&old), "there is time yet");

    vault.stop();
    age(&vault, 40);
    vault.serve();
    for role in ["edge", "supervisor", "keeper", "supervisor"] {
        std::thread::sleep(std::time::Duration::from_millis(250));
        if role == "supervisor" {
            vault.kill();
            vault.serve();
        } else {
            vault.kill_role(role);
        }
    }
    let gone = || data_keys(&vault, "destroyed").contains(&old).then_some(());
    for _ in 0..3 {
        // Sixty cards a second and a look each minute: within one wait of the tests' patience, or a few on a busy machine.
        let end = std::time::Instant::now() + PATIENCE;
        while gone().is_none() && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
    wait_for("the old key's end", gone);
    let client = vault.client(&credential);
    for path in &paths[1..] {
        assert_eq!(client.get(path).await.unwrap().status, 200);
    }
    let key_store = std::fs::read_to_string(vault.path("keys/keystore.json")).unwrap();
    assert!(!key_store.contains(&wrapped_before), "the key store holds the destroyed key");
    let events = events(&vault.assessor()).await;
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
