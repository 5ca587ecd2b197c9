//! Keys of a real vault: one takes over from another while cards are read, changed and charged, and what nothing needs is destroyed.

use std::collections::BTreeMap;
use std::path::Path;

use cardvault::card::tenant::Mode;
use serde_json::{Value, json};

use crate::common::{BILLING, Vault, card, count_of, events, numbers, run, store, text, wait_for};

/// `cardvault keys …`: exit code and what it printed.
fn keys(vault: &Vault, args: &[&str]) -> (i32, String) {
    let config = vault.config();
    run(&[&["keys", "--config", config.to_str().unwrap()], args].concat())
}

/// The lines of `keys list`: id, purpose, tenant, …
fn list(vault: &Vault) -> Vec<Vec<String>> {
    let (code, said) = keys(vault, &["list"]);
    assert_eq!(code, 0, "{said}");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    said.lines().skip(1).map(words).collect()
}

/// Ids and states of the keys of this purpose.
fn states(vault: &Vault, purpose: &str) -> Vec<(String, String)> {
    let known = ["pending", "active", "retired", "compromised", "destroyed"];
    let state = |line: &Vec<String>| line.iter().find(|word| known.contains(&word.as_str())).unwrap().clone();
    list(vault).iter().filter(|line| line[1] == purpose).map(|line| (line[0].clone(), state(line))).collect()
}

/// The id of the only key of this purpose in this state.
fn id_of(vault: &Vault, purpose: &str, wanted: &str) -> String {
    let all = states(vault, purpose);
    let mut found = all.iter().filter(|(_, state)| state == wanted);
    let (id, _) = found.next().unwrap();
    assert!(found.next().is_none(), "{all:?}");
    id.clone()
}

/// Bytes of a file that must be there.
fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[tokio::test]
async fn a_data_key_takes_over_and_the_one_before_can_be_destroyed() {
    let mut vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let scopes = [BILLING.as_slice(), &["charges:create", "charges:read"]].concat();
    let client = vault.application("billing", "acme", &scopes);
    let mut cards: BTreeMap<u64, Value> = BTreeMap::new();
    for n in 0..300 {
        let body = card(&numbers::volume(n), &format!("c-{n}"));
        cards.insert(n, store(&client, &format!("k-{n}"), &body).await);
    }
    // One with a version before the current one, one that is erased.
    let path = |card: &Value| format!("/v1/tokens/{}", card["id"].as_str().unwrap());
    let change = json!({"card": {"exp_month": 1, "exp_year": 2031}});
    let changed = client.request("PATCH", &path(&cards[&7]), &[], &change).await.unwrap();
    assert_eq!(changed.status, 200, "{}", text(&changed));
    assert_eq!(client.request("DELETE", &path(&cards[&9]), &[], None).await.unwrap().status, 200);
    cards.remove(&9);

    let old = id_of(&vault, "data", "active");
    let (code, said) = keys(&vault, &["destroy", &old]);
    assert!(code != 0 && said.contains("cannot be destroyed"), "{said}");
    let (code, said) = keys(&vault, &["rotate", "data", "--tenant", "acme"]);
    assert_eq!(code, 0, "{said}");
    let new = id_of(&vault, "data", "active");
    assert_ne!(old, new);
    assert_eq!(id_of(&vault, "data", "retired"), old);
    let (code, said) = keys(&vault, &["progress", "--watch"]);
    assert!(code == 0 && said.contains("nothing is left: 300 records"), "{said}");

    // Every card reads as before, and charges; what is stored now is under the new key.
    store(&client, "late", &card(&numbers::volume(900), "c-late")).await;
    let (code, said) = keys(&vault, &["destroy", &old]);
    assert_eq!(code, 0, "{said}");
    for (n, stored) in &cards {
        let read = client.get(&path(stored)).await.unwrap();
        assert_eq!((read.status, &read.json()["card"]["last4"]), (200, &stored["card"]["last4"]), "{n}");
    }
    // What was answered before is answered from the version of then, sealed again as well.
    let again = client.post("/v1/tokens", "k-7", &card(&numbers::volume(7), "c-7")).await.unwrap();
    assert_eq!((again.status, again.json()), (201, cards[&7].clone()));
    let charge = json!({
        "token": cards[&3]["id"], "amount": 100, "currency": "USD", "invoice": "inv-1", "initiator": "customer",
        "destination": "sandbox",
    });
    let charged = client.post("/v1/charges", "ch-1", &charge).await.unwrap();
    assert_eq!((charged.status, &charged.json()["status"]), (201, &json!("approved")), "{}", text(&charged));

    let events = events(&vault.assessor()).await;
    let of_old = |event: &&Value| event["target"]["kind"] == "key" && event["target"]["id"] == old;
    let told: Vec<_> = events.iter().filter(of_old).map(|event| event["action"].as_str().unwrap()).collect();
    assert_eq!(told, ["key.create", "key.retire", "key.emptied", "key.destroy"]);
    let resealed: usize = events
        .iter()
        .filter(|event| event["action"] == "card.reseal")
        .map(|event| event["facts"]["cards"].as_array().unwrap().len())
        .sum();
    // 299 cards, and the version before of one of them.
    assert_eq!(resealed, 300);
    assert_eq!(count_of(&events, "opening.unused"), 0);
    // A start finds all of it again.
    vault.stop();
    vault.serve();
    assert_eq!(id_of(&vault, "data", "destroyed"), old);
    let client = vault.application("again", "acme", &BILLING);
    assert_eq!(client.get(&path(&cards[&0])).await.unwrap().status, 200);
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_record_that_does_not_open_keeps_its_key_and_no_other() {
    let mut vault = Vault::start();
    for tenant in ["acme", "other"] {
        vault.tenant(tenant, Mode::Test);
        let client = vault.application(&format!("billing-{tenant}"), tenant, &BILLING);
        store(&client, "k", &card(&numbers::volume(1), "c")).await;
    }
    // One bit of the envelope of one number.
    let database = vault.database();
    let (id, mut bytes): (i64, Vec<u8>) = database
        .query_row(
            "select s.id, s.sealed from cards c join sealed s on s.id = c.sealed where c.tenant = 1",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    let mut sealed: cardvault::card::sealed::SealedCard = postcard::from_bytes(&bytes).unwrap();
    *sealed.pan.envelope.last_mut().unwrap() ^= 1;
    bytes = postcard::to_stdvec(&sealed).unwrap();
    assert_eq!(database.execute("update sealed set sealed = ?2 where id = ?1", (id, bytes)).unwrap(), 1);
    for tenant in ["acme", "other"] {
        let (code, said) = keys(&vault, &["rotate", "data", "--tenant", tenant]);
        assert_eq!(code, 0, "{said}");
    }
    let old = |tenant: &str| {
        let is_it =
            |line: &&Vec<String>| line[1..3] == ["data", tenant] && line.contains(&"retired".to_owned());
        list(&vault).iter().find(is_it).cloned().unwrap()
    };
    wait_for("the other key", || (!old("other").join(" ").contains("being emptied")).then_some(()));
    let (code, said) = keys(&vault, &["destroy", &old("other")[0]]);
    assert_eq!(code, 0, "{said}");
    assert!(old("acme").join(" ").contains("being emptied"));
    wait_for("what is stuck", || {
        keys(&vault, &["progress"]).1.contains("1 records do not open").then_some(())
    });
    let (code, said) = keys(&vault, &["destroy", &old("acme")[0]]);
    assert!(code != 0 && said.contains('1'), "{said}");
    vault.stop();
}

#[tokio::test]
async fn a_kek_takes_over_at_once_and_the_one_before_opens_nothing() {
    let mut vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let client = vault.application("billing", "acme", &BILLING);
    let stored = store(&client, "k", &card(&numbers::volume(1), "c")).await;
    let (root, keystore) = (vault.path("keys/root.key"), vault.path("keys/keystore.json"));
    let (old_root, old_keystore) = (read(&root), read(&keystore));
    let (code, said) = keys(&vault, &["rotate", "kek"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(
        states(&vault, "kek").iter().map(|(_, state)| state.as_str()).collect::<Vec<_>>(),
        ["destroyed", "active"]
    );
    // Keys are made under the new one as well, and the keeper goes on without a start.
    vault.tenant("other", Mode::Test);
    store(&client, "k-2", &card(&numbers::volume(2), "c")).await;
    vault.kill_role("keeper");
    let path = format!("/v1/tokens/{}", stored["id"].as_str().unwrap());
    assert_eq!(client.get(&path).await.unwrap().status, 200);
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");

    // The root key of before does not open what is there now, nor the one of now what was there before.
    let (new_root, new_keystore) = (read(&root), read(&keystore));
    for (root_bytes, keystore_bytes) in [(&old_root, &new_keystore), (&new_root, &old_keystore)] {
        std::fs::write(&root, root_bytes).unwrap();
        std::fs::write(&keystore, keystore_bytes).unwrap();
        let (code, said) = keys(&vault, &["list"]);
        assert!(code != 0 && said.contains("keys.root_key"), "{said}");
    }
    // Both of before belong together, but not to a database that has seen others.
    std::fs::write(&root, &old_root).unwrap();
    let (code, said) = keys(&vault, &["list"]);
    assert!(code != 0 && said.contains("was rolled back"), "{said}");
    std::fs::write(&root, &new_root).unwrap();
    std::fs::write(&keystore, &new_keystore).unwrap();
    vault.serve();
    let figures = vault.plain("/metrics");
    assert!(
        figures.contains("cardvault_key_seconds_left{key=") && figures.contains("cardvault_reseal_left 0")
    );
}

#[tokio::test]
async fn a_key_that_others_know_is_replaced_first_and_emptied() {
    let vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let client = vault.application("billing", "acme", &BILLING);
    store(&client, "k", &card(&numbers::volume(1), "c")).await;
    let old = id_of(&vault, "data", "active");
    let (code, said) = keys(&vault, &["compromise", &old]);
    assert!(code == 0 && said.contains("checklist"), "{said}");
    assert_eq!(id_of(&vault, "data", "compromised"), old);
    wait_for("the old key to be empty", || keys(&vault, &["progress"]).1.contains("empty").then_some(()));
    for (args, word) in [
        (["retire", &old], "cannot be retired"),
        (["retire", "999"], "no key of this id"),
        (["show", "999"], "no key of this id"),
        (["rotate", "webhook"], "--tenant"),
        (["rotate", "body_mac"], "rotates kek, data, fingerprint, pseudonym and webhook"),
        (["rotate", "data"], "--tenant"),
    ] {
        let (code, said) = keys(&vault, &args);
        assert!(code != 0 && said.contains(word), "{args:?}: {said}");
    }
    let (code, said) = keys(&vault, &["show", &old]);
    assert!(code == 0 && said.contains("compromised (uid:"), "{said}");
    let (code, said) = keys(&vault, &["destroy", &old]);
    assert_eq!(code, 0, "{said}");
    // One that is only retired keeps its records, and they keep it.
    let retired = id_of(&vault, "data", "active");
    let (code, said) = keys(&vault, &["retire", &retired]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = keys(&vault, &["destroy", &retired]);
    assert!(code != 0 && said.contains("1 records are sealed under this key"), "{said}");
    store(&client, "k-3", &card(&numbers::volume(3), "c")).await;
    let (code, said) = keys(&vault, &["rotate", "data", "--tenant", "acme", "--watch"]);
    assert!(code == 0 && said.contains("nothing is left: 2 records"), "{said}");
    let (code, said) = keys(&vault, &["destroy", &retired]);
    assert_eq!(code, 0, "{said}");
    // A KEK that others know is replaced, and its record says why.
    let kek = id_of(&vault, "kek", "active");
    let (code, said) = keys(&vault, &["compromise", &kek]);
    assert!(code == 0 && said.contains("checklist"), "{said}");
    let (_, said) = keys(&vault, &["show", &kek]);
    assert!(said.contains("compromised (uid:") && said.contains("destroyed (the vault)"), "{said}");
    for verb in ["compromise", "destroy"] {
        let (code, said) = keys(&vault, &[verb, &kek]);
        assert!(code != 0, "{verb}: {said}");
    }
    // Pseudonyms of before stay what they are; those of now come of another key.
    let (code, said) = keys(&vault, &["rotate", "pseudonym", "--tenant", "acme"]);
    assert_eq!(code, 0, "{said}");
    store(&client, "k-2", &card(&numbers::volume(2), "c")).await;
}

/// While keys take over, numbers are stored that are there and that are not: each stays one card with one fingerprint.
#[tokio::test]
async fn a_number_stays_one_card_while_its_fingerprint_key_changes() {
    const THERE: u64 = 120;
    const AT_ONCE: usize = 64;
    let mut vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let client = vault.application("billing", "acme", &BILLING);
    let body = |n: u64| {
        let mut body = card(&numbers::volume(n), "c");
        body["on_duplicate"] = json!("return_existing");
        body
    };
    let mut known: BTreeMap<u64, (Value, Value)> = BTreeMap::new();
    for n in 0..THERE {
        let stored = store(&client, &format!("there-{n}"), &body(n)).await;
        known.insert(n, (stored["id"].clone(), stored["fingerprint"].clone()));
    }
    let first = id_of(&vault, "fingerprint", "active");
    let config = vault.config();
    let rotating = tokio::task::spawn_blocking(move || {
        let rotate = ["rotate", "fingerprint", "--tenant", "acme"];
        let args = [&["keys", "--config", config.to_str().unwrap()], rotate.as_slice()].concat();
        (0..4).map(|_| run(&args)).collect::<Vec<_>>()
    });
    let (mut rounds, mut next) = (0, THERE);
    while !rotating.is_finished() || rounds < 6 {
        // One number that is there, one that is new, each by many at once.
        for n in [rounds % THERE, next] {
            let mut tasks = tokio::task::JoinSet::new();
            for at in 0..AT_ONCE {
                let (client, body) = (client.clone(), body(n));
                let key = format!("{rounds}-{n}-{at}");
                tasks.spawn(async move { client.post("/v1/tokens", &key, &body).await.unwrap() });
            }
            for answer in tasks.join_all().await {
                assert!(matches!(answer.status, 200 | 201), "{}", text(&answer));
                let card = answer.json();
                let told = (card["id"].clone(), card["fingerprint"].clone());
                assert_eq!(*known.entry(n).or_insert_with(|| told.clone()), told, "{n}");
            }
        }
        (rounds, next) = (rounds + 1, next + 1);
    }
    for (code, said) in rotating.await.unwrap() {
        assert_eq!(code, 0, "{said}");
    }
    assert_eq!(vault.count("cards"), i64::try_from(known.len()).unwrap());
    let (code, said) = keys(&vault, &["progress", "--watch"]);
    assert!(code == 0 && said.contains("nothing is left"), "{said}");
    // Nothing needs the keys before, and what is stored is found without them.
    let before = states(&vault, "fingerprint");
    assert_eq!(before.iter().filter(|(_, state)| state == "retired").count(), 4, "{before:?}");
    for (id, _) in before.iter().filter(|(_, state)| state == "retired") {
        let (code, said) = keys(&vault, &["destroy", id]);
        assert_eq!(code, 0, "{said}");
    }
    assert!(before.iter().any(|(id, _)| *id == first));
    vault.stop();
    vault.serve();
    let client = vault.application("again", "acme", &BILLING);
    for (n, told) in &known {
        let answer = client.post("/v1/tokens", &format!("last-{n}"), &body(*n)).await.unwrap();
        let card = answer.json();
        assert_eq!(
            (answer.status, (card["id"].clone(), card["fingerprint"].clone())),
            (200, told.clone()),
            "{n}"
        );
    }
    let figures = vault.plain("/metrics");
    assert!(figures.contains("cardvault_reseal_left 0"), "{figures}");
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_kek_past_its_cryptoperiod_wraps_nothing_until_another_takes_over() {
    let mut vault = Vault::make(|config| config);
    let (inventory, keystore) = (vault.path("keys/inventory.toml"), vault.path("keys/keystore.json"));
    let text = std::fs::read_to_string(&inventory).unwrap();
    std::fs::write(&inventory, text.replacen("cryptoperiod_days = 730", "cryptoperiod_days = 1", 1)).unwrap();
    // Two days ago.
    let mut stored: Value = serde_json::from_slice(&read(&keystore)).unwrap();
    let kek = stored["keys"].as_array_mut().unwrap().iter_mut().find(|key| key["purpose"] == "kek").unwrap();
    kek["made_at"] = json!(kek["made_at"].as_i64().unwrap() - 2 * 86_400 * 1_000_000);
    std::fs::write(&keystore, stored.to_string()).unwrap();
    vault.serve();
    let (_, said) = keys(&vault, &["list"]);
    assert!(said.contains("EXPIRED: rotate it"), "{said}");
    let (code, said) = run(&["doctor", "--config", vault.config().to_str().unwrap()]);
    assert!(code != 0 && said.contains("WEAK keys: key"), "{said}");
    // Its tenant is there and has no keys, so nothing is stored for it.
    vault.tenant("acme", Mode::Test);
    let client = vault.application("billing", "acme", &BILLING);
    let refused = client.post("/v1/tokens", "k", &card(&numbers::volume(1), "c")).await.unwrap();
    assert_eq!(refused.status, 503, "{}", crate::common::text(&refused));
    let (code, said) = keys(&vault, &["rotate", "kek"]);
    assert_eq!(code, 0, "{said}");
    store(&client, "k", &card(&numbers::volume(1), "c")).await;
}
