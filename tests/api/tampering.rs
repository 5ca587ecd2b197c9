//! Whoever owns the database: what is swapped or edited opens nowhere, is told to the log, and is found offline; what is erased is
//! gone from every file.

use std::fs;
use std::time::{Duration, Instant};

use cardvault::card::id::{PrincipalId, Token};
use cardvault::card::sealed::SealedCard;
use cardvault::card::tenant::Mode;
use cardvault::clock::{Clock, SystemClock};
use cardvault::tools::client::Client;
use cardvault::wire::control::PrincipalOrder;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::common::{BILLING, Vault, events, numbers, store, text};

/// The sealed fields of a card as they lie in the database.
fn sealed(database: &Connection, token: &str) -> (i64, SealedCard) {
    let token = Token::parse(token).unwrap();
    let read = "select s.id, s.sealed from cards c join sealed s on s.id = c.sealed where c.token = ?1";
    let row = database.query_row(read, [token.bytes().as_slice()], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
    });
    let (id, bytes) = row.unwrap();
    (id, postcard::from_bytes(&bytes).unwrap())
}

fn put(database: &Connection, id: i64, card: &SealedCard) {
    let bytes = postcard::to_stdvec(card).unwrap();
    assert_eq!(database.execute("update sealed set sealed = ?2 where id = ?1", (id, bytes)).unwrap(), 1);
}

/// A tenant's cards by name, and a client of the tenant.
struct Tenant {
    client: Client,
    credential: String,
    cards: Vec<(&'static str, String)>,
}

impl Tenant {
    async fn make(vault: &Vault, name: &str, cards: &[&'static str]) -> Self {
        vault.tenant(name, Mode::Test);
        let scopes: Vec<&str> = BILLING.into_iter().chain(["charges:create", "charges:read"]).collect();
        let credential = vault.principal(crate::common::order(name, Some(name), &scopes));
        let client = vault.client(&credential);
        let mut made = Vec::new();
        for (n, card) in cards.iter().enumerate() {
            let body = json!({
                "card": {"number": numbers::volume(100 + u64::try_from(n).unwrap()), "exp_month": 12, "exp_year": 2030},
                "billing": {"zip": "94103"}, "customer": card,
            });
            let token = store(&client, &format!("k-{card}"), &body).await["id"].as_str().unwrap().to_owned();
            made.push((*card, token));
        }
        Self { client, credential, cards: made }
    }

    fn card(&self, name: &str) -> &str {
        self.cards.iter().find(|(card, _)| *card == name).map(|(_, token)| token.as_str()).unwrap()
    }

    async fn charge(&self, name: &str) -> cardvault::tools::client::Answer {
        let body = json!({
            "token": self.card(name), "amount": 100, "currency": "USD", "destination": "sandbox",
            "invoice": format!("inv-{name}"), "initiator": "customer",
        });
        self.client.post("/v1/charges", &format!("charge-{name}"), &body).await.unwrap()
    }
}

/// Does to the database what an owner of it could think of.
fn tamper(database: &Connection, acme: &Tenant, other: &Tenant, before_update: &SealedCard) {
    let of = |tenant: &Tenant, name: &str| sealed(database, tenant.card(name));
    // Row for row, and tenant for tenant.
    for (a, b) in [(of(acme, "row-1"), of(acme, "row-2")), (of(acme, "tenant"), of(other, "theirs"))] {
        put(database, a.0, &b.1);
        put(database, b.0, &a.1);
    }
    // Field for field.
    let (id, mut card) = of(acme, "field");
    card.expiry.envelope = card.zip.as_ref().unwrap().envelope.clone();
    put(database, id, &card);
    // Version for version: the old expiry, called the new one.
    let (id, mut card) = of(acme, "version");
    assert_eq!((card.expiry.version, before_update.expiry.version), (2, 1));
    card.expiry.envelope = before_update.expiry.envelope.clone();
    put(database, id, &card);
    // One bit, another key, another destination set.
    let (id, mut card) = of(acme, "bit");
    *card.expiry.envelope.last_mut().unwrap() ^= 1;
    put(database, id, &card);
    let (id, mut card) = of(acme, "key");
    card.expiry.envelope[4] ^= 1;
    put(database, id, &card);
    let (id, mut card) = of(acme, "policy");
    card.policy = 2;
    put(database, id, &card);
    // Of the number alone: that is opened for a charge only.
    let (id, mut card) = of(acme, "number");
    card.pan.envelope[20] ^= 1;
    put(database, id, &card);
}

#[tokio::test]
async fn swapped_and_edited_envelopes_open_nowhere_and_are_told() {
    let mut vault = Vault::start();
    let names = ["row-1", "row-2", "tenant", "field", "version", "bit", "key", "policy", "number", "sound"];
    let mut acme = Tenant::make(&vault, "acme", &names).await;
    let mut other = Tenant::make(&vault, "other", &["theirs"]).await;
    let before_update = sealed(&vault.database(), acme.card("version")).1;
    let path = format!("/v1/tokens/{}", acme.card("version"));
    let change = json!({"card": {"exp_month": 1, "exp_year": 2031}});
    assert_eq!(acme.client.request("PATCH", &path, &[], &change).await.unwrap().status, 200);
    vault.stop();
    assert_eq!(vault.verify().0, 0);
    tamper(&vault.database(), &acme, &other, &before_update);
    let (code, said) = vault.verify();
    assert_eq!(code, 1, "{said}");
    for name in names.into_iter().filter(|name| *name != "sound") {
        assert!(said.contains(acme.card(name)), "{name} was not found: {said}");
    }
    assert!(!said.contains(acme.card("sound")));

    vault.serve();
    for tenant in [&mut acme, &mut other] {
        tenant.client = vault.client(&tenant.credential);
    }
    let unreadable = |answer: &cardvault::tools::client::Answer| {
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (500, &json!("card_unreadable")),
            "{}",
            text(answer)
        );
        assert_eq!(answer.json()["outbound"], "not_sent");
    };
    let mut refused = 0;
    for (tenant, name) in names.map(|name| (&acme, name)).into_iter().chain([(&other, "theirs")]) {
        let read = tenant.client.get(&format!("/v1/tokens/{}", tenant.card(name))).await.unwrap();
        let listed = tenant.client.get(&format!("/v1/tokens?customer={name}")).await.unwrap();
        let charged = tenant.charge(name).await;
        match name {
            "sound" => assert_eq!((read.status, listed.status, charged.status), (200, 200, 201)),
            "number" => {
                assert_eq!((read.status, listed.status), (200, 200));
                unreadable(&charged);
                refused += 1;
            }
            // Another destination set is not even opened for this destination.
            "policy" => {
                [&read, &listed].into_iter().for_each(unreadable);
                assert!(charged.status >= 400);
                refused += 2;
            }
            _ => {
                [&read, &listed, &charged].into_iter().for_each(unreadable);
                refused += 3;
            }
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let told: Vec<Value> = events(&vault.assessor()).await;
    let told: Vec<_> = told.iter().filter(|event| event["action"] == "card.unreadable").collect();
    assert_eq!(told.len(), refused);
    assert!(told.iter().any(|event| event["target"]["id"] == acme.card("number")));
    let ledger = fs::read_to_string(vault.beside("ledger.ndjson")).unwrap();
    // Only the sound card reached the processor.
    assert!(ledger.contains("inv-sound"));
    assert_eq!(ledger.matches("inv-").count(), ledger.matches("inv-sound").count());
}

#[tokio::test]
async fn a_card_row_put_back_to_an_older_state_is_found_offline() {
    let mut vault = Vault::start();
    let acme = Tenant::make(&vault, "acme", &["old", "sound"]).await;
    let before = sealed(&vault.database(), acme.card("old")).1;
    let path = format!("/v1/tokens/{}", acme.card("old"));
    let change = json!({"card": {"number": "4242424242424242"}});
    assert_eq!(acme.client.request("PATCH", &path, &[], &change).await.unwrap().status, 200);
    vault.stop();
    assert_eq!(vault.verify().0, 0);
    {
        let database = vault.database();
        let (id, _) = sealed(&database, acme.card("old"));
        put(&database, id, &before);
    }
    let (code, said) = vault.verify();
    assert_eq!(code, 1);
    assert!(said.contains(acme.card("old")) && !said.contains(acme.card("sound")), "{said}");
}

#[tokio::test]
async fn a_legal_hold_set_or_cleared_in_the_file_is_found_offline() {
    let mut vault = Vault::start();
    let acme = Tenant::make(&vault, "acme", &["held", "waits", "released", "free"]).await;
    let lawyer =
        PrincipalOrder { person: true, ..crate::common::order("lawyer", Some("acme"), &["tokens:hold"]) };
    let lawyer = vault.client(&vault.principal(lawyer));
    let hold = async |method: &str, name: &str| {
        let path = format!("/v1/tokens/{}/legal_hold", acme.card(name));
        assert_eq!(lawyer.request(method, &path, &[], None).await.unwrap().status, 200);
    };
    for name in ["held", "waits", "released"] {
        hold("PUT", name).await;
    }
    hold("DELETE", "released").await;
    let path = format!("/v1/tokens/{}", acme.card("waits"));
    assert_eq!(acme.client.request("DELETE", &path, &[], None).await.unwrap().status, 202);
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
    // The bits of a card's flags: held, and to be erased on release.
    for (name, bit) in [("held", 1), ("waits", 1), ("waits", 2), ("released", 1), ("free", 1), ("free", 2)] {
        let token = Token::parse(acme.card(name)).unwrap();
        let flip = || {
            let sql = "update cards set flags = (flags | ?2) - (flags & ?2) where token = ?1";
            assert_eq!(vault.database().execute(sql, (token.bytes().as_slice(), bit)).unwrap(), 1);
        };
        flip();
        let (code, said) = vault.verify();
        let expected =
            format!("the legal hold of card {token}, or the erase that waits for its release, is not");
        assert!(code == 1 && said.contains(&expected), "{name} {bit}: {said}");
        assert_eq!(said.matches("FAILED").count(), 1, "{said}");
        flip();
        assert_eq!(vault.verify().0, 0);
    }
}

#[tokio::test]
async fn a_principal_who_was_given_more_in_the_file_is_found_offline() {
    let mut vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    vault.principal(crate::common::order("clerk", Some("acme"), &["tokens:read"]));
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("others compared   3 principals and tenants"), "{said}");
    let edit = |database: &Connection, table: &str, name: &str, from: &str, to: &str| {
        let sql =
            format!("update {table} set doc = replace(doc, ?1, ?2) where doc like '%\"name\":\"{name}\"%'");
        assert_eq!(database.execute(&sql, (from, to)).unwrap(), 1);
    };
    let database = vault.database();
    edit(&database, "principals", "clerk", "tokens:read", "tokens:erase");
    let (code, said) = vault.verify();
    assert_eq!(code, 1);
    assert!(said.contains("the row of principal prn_") && said.contains("is not that of the log"), "{said}");
    assert_eq!(said.matches("FAILED").count(), 1, "{said}");
    edit(&database, "principals", "clerk", "tokens:erase", "tokens:read");
    assert_eq!(vault.verify().0, 0);
    // Switched off or on again behind everybody's back, and one that nobody made.
    edit(&database, "tenants", "acme", "\"disabled\":false", "\"disabled\":true");
    assert!(vault.verify().1.contains("the row of tenant tenant_1 is not that of the log"));
    edit(&database, "tenants", "acme", "\"disabled\":true", "\"disabled\":false");
    let hers: String = database
        .query_row("select doc from principals where doc like '%\"name\":\"clerk\"%'", [], |row| row.get(0))
        .unwrap();
    let forged = hers.replacen("\"clerk\"", "\"ghost\"", 1);
    let id = PrincipalId::make(SystemClock.now()).unwrap();
    let old = serde_json::from_str::<Value>(&hers).unwrap()["id"].clone();
    let forged = forged.replacen(&old.to_string(), &serde_json::to_string(&id).unwrap(), 1);
    database
        .execute("insert into principals (id, doc) values (?1, ?2)", (id.bytes().as_slice(), &forged))
        .unwrap();
    let (code, said) = vault.verify();
    assert_eq!(code, 1);
    assert!(said.contains(&format!("principal {id} of the database is not in the log")), "{said}");
}

#[tokio::test]
async fn an_orderly_stop_leaves_no_opening_unstated() {
    let mut vault = Vault::start();
    let acme = Tenant::make(&vault, "acme", &["one", "two", "three"]).await;
    for card in ["one", "two", "three"] {
        assert_eq!(acme.charge(card).await.status, 201);
    }
    // At once: half a minute later the keeper would count them unasked.
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
    let openings = said.lines().find(|line| line.starts_with("openings")).unwrap();
    assert!(openings.contains("3: 3 stated, 0 not yet stated, 0 never stated"), "{openings}");
    // All of it is signed: the log ends with the statement.
    let number = |sql| vault.database().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let (signed, written) =
        (number("select max(size) from checkpoints"), number("select sum(count) from log_segments"));
    assert_eq!(signed, written);
}

#[tokio::test]
async fn what_is_erased_is_gone_from_every_file() {
    let vault = Vault::start();
    let acme = Tenant::make(&vault, "acme", &["gone", "stays"]).await;
    let path = format!("/v1/tokens/{}", acme.card("gone"));
    // A version before the current one goes as well.
    let first = sealed(&vault.database(), acme.card("gone")).1;
    let change = json!({"card": {"exp_month": 1, "exp_year": 2031}, "billing": {"zip": "10001"}});
    assert_eq!(acme.client.request("PATCH", &path, &[], &change).await.unwrap().status, 200);
    let second = sealed(&vault.database(), acme.card("gone")).1;
    let stays = sealed(&vault.database(), acme.card("stays")).1;
    let count = |card: &SealedCard| {
        let zip = card.zip.as_ref().unwrap();
        let parts = [&card.pan.envelope, &card.expiry.envelope, &zip.envelope];
        let files = fs::read_dir(vault.path("data")).unwrap();
        let files: Vec<Vec<u8>> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
        let is_in =
            |part: &[u8]| files.iter().any(|file| file.windows(part.len()).any(|bytes| bytes == part));
        parts.into_iter().filter(|part| is_in(part)).count()
    };
    assert_eq!((count(&second), count(&stays)), (3, 3));
    let asked = Instant::now();
    let erased = acme.client.request("DELETE", &path, &[], None).await.unwrap();
    assert_eq!((erased.status, &erased.json()["status"]), (200, &json!("erased")));
    let gone = loop {
        let gone = acme.client.get(&path).await.unwrap();
        assert_eq!((gone.status, &gone.json()["code"]), (410, &json!("token_erased")));
        if gone.json()["scrubbed_at"].is_string() {
            break gone.json();
        }
        assert!(asked.elapsed() < Duration::from_secs(60), "not scrubbed within a minute");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((count(&first), count(&second), count(&stays)), (0, 0, 3));
    let again = acme.client.request("DELETE", &path, &[], None).await.unwrap();
    assert_eq!((again.status, &again.json()["scrubbed_at"]), (200, &gone["scrubbed_at"]));
}

#[tokio::test]
async fn a_suspended_card_is_kept_and_not_charged() {
    let vault = Vault::start();
    let acme = Tenant::make(&vault, "acme", &["card"]).await;
    let path = format!("/v1/tokens/{}", acme.card("card"));
    let set = async |status: &str| {
        let answer = acme.client.request("PATCH", &path, &[], &json!({"status": status})).await.unwrap();
        assert_eq!((answer.status, &answer.json()["status"]), (200, &json!(status)));
    };
    set("suspended").await;
    let refused = acme.charge("card").await;
    assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("token_suspended")));
    assert_eq!(acme.client.get(&path).await.unwrap().status, 200);
    set("active").await;
    let charged = acme.charge("card").await;
    assert_eq!((charged.status, &charged.json()["status"]), (201, &json!("approved")), "{}", text(&charged));
}
