//! No key lies anywhere but wrapped: the files of a vault, and the memory of all processes that are to have none, before and after
//! keys are taken over from, and once they are destroyed not in the keeper either. Keys are unwrapped here by what the formats say,
//! apart from the product's code.

use std::fs;
use std::path::{Path, PathBuf};

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use cardvault::card::tenant::Mode;
use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use serde_json::Value;

use crate::common::{BILLING, Vault, card, name, numbers, order, run, store};
use crate::seeker::memory_of;

/// A key in the clear, and what to call it.
struct Clear {
    name: String,
    bytes: Vec<u8>,
}

fn unwrap(key: &[u8], wrapped: &str, aad: &[u8]) -> Vec<u8> {
    let wrapped = BASE64.decode(wrapped.as_bytes()).unwrap();
    let (nonce, sealed) = wrapped.split_at(12);
    let payload = Payload { msg: sealed, aad };
    let nonce: [u8; 12] = nonce.try_into().unwrap();
    Aes256Gcm::new_from_slice(key).unwrap().decrypt(&Nonce::from(nonce), payload).unwrap()
}

/// The root key in use, the KEK, and every key that is not destroyed.
fn keys_of(vault: &Vault) -> Vec<Clear> {
    let file: Value = serde_json::from_slice(&fs::read(vault.path("keys/keystore.json")).unwrap()).unwrap();
    let environment = HEXLOWER.decode(file["environment"].as_str().unwrap().as_bytes()).unwrap();
    let keys = file["keys"].as_array().unwrap();
    let number =
        |key: &Value, field: &str| u32::try_from(key[field].as_u64().unwrap_or(0)).unwrap().to_be_bytes();
    let text = |key: &Value, field: &str| key[field].as_str().unwrap().to_owned();
    let kek = keys.iter().find(|key| key["purpose"] == "kek" && key["state"] == "active").unwrap();
    let roots = fs::read_to_string(vault.path("keys/root.key")).unwrap();
    let line =
        roots.lines().find_map(|line| line.trim().strip_prefix(&format!("root-{} ", kek["id"]))).unwrap();
    let root = BASE64.decode(line.as_bytes()).unwrap();
    let aad = [b"cardvault/kek/v1".as_slice(), &environment, &number(kek, "id")].concat();
    let opened = unwrap(&root, &text(kek, "wrapped"), &aad);
    let mut all = vec![
        Clear { name: "root key".into(), bytes: root },
        Clear { name: "kek".into(), bytes: opened.clone() },
    ];
    for key in keys.iter().filter(|key| key["purpose"] != "kek" && !text(key, "wrapped").is_empty()) {
        let aad = [
            b"cardvault/key/v1".as_slice(),
            &environment,
            &number(key, "id"),
            &number(key, "tenant"),
            &number(key, "epoch"),
            text(key, "purpose").as_bytes(),
        ]
        .concat();
        let bytes = unwrap(&opened, &text(key, "wrapped"), &aad);
        all.push(Clear { name: format!("{} key {}", text(key, "purpose"), key["id"]), bytes });
    }
    all
}

/// Where a key stands in these bytes, raw or as text.
fn find(place: &str, bytes: &[u8], keys: &[Clear], found: &mut Vec<String>) {
    let search = |needle: &[u8]| memchr::memmem::find(bytes, needle).is_some();
    for key in keys {
        let forms = [
            ("raw", key.bytes.clone()),
            ("hex", HEXLOWER.encode(&key.bytes).into_bytes()),
            ("HEX", HEXUPPER.encode(&key.bytes).into_bytes()),
            ("base64", BASE64.encode(&key.bytes).trim_end_matches('=').as_bytes().to_vec()),
        ];
        found.extend(
            forms
                .iter()
                .filter(|(_, form)| search(form))
                .map(|(form, _)| format!("{} ({form}) in {place}", key.name)),
        );
    }
}

fn files_below(directory: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, all);
        } else if path.is_file() {
            all.push(path);
        }
    }
}

/// What of these keys is in the vault's files, its log, and the memory of the processes of these roles.
fn seek(vault: &Vault, keys: &[Clear], roles: &[&str]) -> Vec<String> {
    let (mut found, mut files) = (Vec::new(), vec![vault.beside("log")]);
    files_below(&vault.path(""), &mut files);
    for file in files {
        find(file.file_name().unwrap().to_str().unwrap(), &fs::read(&file).unwrap(), keys, &mut found);
    }
    if rustix::process::geteuid().is_root() {
        for (role, pid) in vault.processes().into_iter().filter(|(role, _)| roles.contains(&role.as_str())) {
            for (_, bytes) in memory_of(pid) {
                find(&format!("the memory of the {role}"), &bytes, keys, &mut found);
            }
        }
    }
    found
}

#[tokio::test]
async fn no_key_is_left_anywhere_but_wrapped() {
    const KEYLESS: [&str; 4] = ["edge", "supervisor", "forwarder", "courier"];
    let vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let client = vault.client(&vault.principal(order("billing", Some("acme"), &BILLING)));
    let mut paths = Vec::new();
    for n in 0..3 {
        let stored = store(&client, &format!("k-{n}"), &card(&numbers::volume(n), "c")).await;
        paths.push(format!("/v1/tokens/{}", stored["id"].as_str().unwrap()));
    }
    let first = keys_of(&vault);
    assert!(first.len() > 6);
    // The search finds what is there: the file provider has its root key in its file, and only that.
    assert_eq!(seek(&vault, &first, &KEYLESS), ["root key (base64) in root.key"]);
    // The keeper has what it works with, which begins with the KEK itself; a search of its memory that misses that is none.
    let held = seek(&vault, &first, &["keeper"]);
    let has_kek = held.iter().any(|hit| hit == "kek (raw) in the memory of the keeper");
    assert!(!rustix::process::geteuid().is_root() || has_kek, "{held:?}");

    let keys = |args: &[&str]| {
        let (code, said) = run(&[&["keys", "--config", name(&vault.config())], args].concat());
        assert_eq!(code, 0, "{args:?}: {said}");
    };
    let old = first.iter().find(|key| key.name.starts_with("data")).unwrap();
    let old_id = old.name.rsplit_once(' ').unwrap().1.to_owned();
    assert_eq!(
        client
            .request("DELETE", &paths[0], &[], cardvault::tools::client::Payload::None)
            .await
            .unwrap()
            .status,
        200
    );
    keys(&["rotate", "data", "--tenant", "acme", "--watch"]);
    keys(&["destroy", &old_id]);
    keys(&["rotate", "kek"]);
    assert_eq!(client.get(&paths[1]).await.unwrap().status, 200);
    let second = keys_of(&vault);
    assert_eq!(seek(&vault, &second, &KEYLESS), ["root key (base64) in root.key"]);
    let is_gone = |key: &&Clear| second.iter().all(|now| now.bytes != key.bytes);
    let gone: Vec<Clear> = first
        .iter()
        .filter(is_gone)
        .map(|key| Clear { name: key.name.clone(), bytes: key.bytes.clone() })
        .collect();
    let names: Vec<&str> = gone.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["root key", "kek", old.name.as_str()]);
    let everybody = [KEYLESS.as_slice(), &["keeper"]].concat();
    assert_eq!(seek(&vault, &gone, &everybody), Vec::<String>::new());
}
