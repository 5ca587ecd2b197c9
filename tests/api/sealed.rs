//! A vault whose KEK is not at hand: it says why, serves nothing, and opens by itself once the root provider gives it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use cardvault::card::tenant::Mode;
use cardvault::unsealer::provider::unwrap_under;
use cardvault::wire::unsealer::KekBinding;
use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};

use crate::common::{BILLING, Vault, card, name, numbers, run, store, text, wait_for};

/// The word in `/readyz`, on the metrics listener.
fn sealed(vault: &Vault) -> Option<String> {
    let answer = vault.plain("/readyz");
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let body: Value = serde_json::from_str(body).ok()?;
    (head.starts_with("HTTP/1.1 503") && body["ready"] == false)
        .then(|| body["sealed"].as_str().map(str::to_owned))?
}

fn wait_until_sealed(vault: &Vault, word: &str) {
    wait_for(word, || (sealed(vault)? == word).then_some(()));
}

#[tokio::test]
async fn without_its_kek_a_vault_says_why_and_serves_nothing() {
    let mut vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let credential = vault.principal(crate::common::order("billing", Some("acme"), &BILLING));
    let stored = store(&vault.client(&credential), "k", &card(&numbers::volume(1), "c")).await;
    let path = format!("/v1/tokens/{}", stored["id"].as_str().unwrap());
    vault.stop();
    let root = vault.path("keys/root.key");
    let own = fs::read(&root).unwrap();
    let text_of = String::from_utf8(own.clone()).unwrap();
    let (line, _) = text_of.trim().rsplit_once(' ').unwrap();
    // Another root key from the first start on.
    fs::write(&root, format!("{line} {}\n", BASE64.encode(&[9; 32]))).unwrap();
    vault.serve_sealed();
    wait_until_sealed(&vault, "root_key_is_another");
    let client = vault.client(&credential);
    for asked in [
        client.get(&path).await.unwrap(),
        client.post("/v1/tokens", "k-2", &card(&numbers::volume(2), "c")).await.unwrap(),
        client.get("/v1/nothing").await.unwrap(),
    ] {
        assert_eq!((asked.status, &asked.json()["code"]), (503, &json!("sealed")), "{}", text(&asked));
        assert_eq!(asked.json()["outbound"], "not_sent");
    }
    assert_eq!(client.get("/livez").await.unwrap().status, 200);
    // No process holds a key or the database, and whoever administers is told what to do.
    let roles: Vec<String> = vault.processes().into_iter().map(|(role, _)| role).collect();
    assert!(
        !roles.iter().any(|role| ["keeper", "forwarder", "courier"].contains(&role.as_str())),
        "{roles:?}"
    );
    let (code, said) = run(&["keys", "--config", name(&vault.config()), "list"]);
    assert!(code == 1 && said.contains("sealed: keys.root_key: this is another key"), "{said}");
    // Another reason, and then the right root key: nobody has to start anything.
    fs::set_permissions(&root, fs::Permissions::from_mode(0o644)).unwrap();
    wait_until_sealed(&vault, "root_provider_refused");
    fs::set_permissions(&root, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&root, &own).unwrap();
    vault.wait_until_ready();
    assert_eq!(vault.client(&credential).get(&path).await.unwrap().status, 200);
    // A keeper that dies while the provider is down takes the others with it, until the provider is back.
    let away = vault.path("keys/away");
    fs::rename(&root, &away).unwrap();
    crate::common::signal(vault.process("keeper"), rustix::process::Signal::KILL);
    wait_until_sealed(&vault, "root_provider_unavailable");
    assert_eq!(vault.client(&credential).get(&path).await.unwrap().status, 503);
    fs::rename(&away, &root).unwrap();
    vault.wait_until_ready();
    assert_eq!(vault.client(&credential).get(&path).await.unwrap().status, 200);
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_root_key_of_a_version_before_is_taken_over_whatever_cuts_it_off() {
    let mut vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let credential = vault.principal(crate::common::order("billing", Some("acme"), &BILLING));
    let stored = store(&vault.client(&credential), "k", &card(&numbers::volume(1), "c")).await;
    let path = format!("/v1/tokens/{}", stored["id"].as_str().unwrap());
    vault.stop();
    // As versions before had it: the file holds the KEK itself, the key store only its record.
    let (root, keystore) = (vault.path("keys/root.key"), vault.path("keys/keystore.json"));
    let mut before: Value = serde_json::from_slice(&fs::read(&keystore).unwrap()).unwrap();
    let environment = HEXLOWER.decode(before["environment"].as_str().unwrap().as_bytes()).unwrap();
    let record =
        before["keys"].as_array_mut().unwrap().iter_mut().find(|key| key["purpose"] == "kek").unwrap();
    let binding = KekBinding {
        environment: environment.try_into().unwrap(),
        key: record["id"].as_u64().unwrap().try_into().unwrap(),
    };
    let wrapped = BASE64.decode(record["wrapped"].as_str().unwrap().as_bytes()).unwrap();
    let text_of = fs::read_to_string(&root).unwrap();
    let key = BASE64.decode(text_of.trim().rsplit_once(' ').unwrap().1.as_bytes()).unwrap();
    let kek = unwrap_under(&key.try_into().unwrap(), &wrapped, &binding).unwrap();
    record["wrapped"] = json!("");
    record.as_object_mut().unwrap().remove("provider");
    let legacy_line = BASE64.encode(kek.as_slice());
    fs::write(&keystore, before.to_string()).unwrap();
    // The start before was cut off after it had added its line, and in the middle of another.
    fs::write(&root, format!("{legacy_line}\n{text_of}root-7 AB")).unwrap();
    vault.serve();
    assert_eq!(vault.client(&credential).get(&path).await.unwrap().status, 200);
    let now = fs::read_to_string(&root).unwrap();
    assert!(!now.contains(&legacy_line) && now.contains("root-"), "the line of before is still there");
    let after: Value = serde_json::from_slice(&fs::read(&keystore).unwrap()).unwrap();
    let record = after["keys"].as_array().unwrap().iter().find(|key| key["purpose"] == "kek").unwrap();
    assert!(record["provider"] == "file" && !record["wrapped"].as_str().unwrap().is_empty());
    vault.stop();
    vault.serve();
    assert_eq!(vault.client(&credential).get(&path).await.unwrap().status, 200);
}
