//! The vault as processes: what is killed comes back, what is reloaded drops nothing, what must not run does not.

use std::fs;
use std::time::Duration;

use cardvault::card::tenant::Mode;
use cardvault::supervisor::admin::AdminRequest;
use cardvault::tools::client::Payload;
use cardvault::wire::control::{AdminAnswer, PrincipalOrder};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::{
    BILLING, Vault, card, count_of, credential_in, events, name, numbers, order, run, signal, store, text,
    wait_for,
};

#[tokio::test]
async fn what_was_acknowledged_is_there_whichever_process_is_killed() {
    let mut vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let credential = vault.principal(order("billing", Some("acme"), &BILLING));
    let mut made: Vec<Value> = Vec::new();
    for (n, role) in ["edge", "keeper", "forwarder", "supervisor"].into_iter().enumerate() {
        let client = vault.client(&credential);
        let number = numbers::volume(u64::try_from(n).unwrap());
        made.push(store(&client, &format!("k-{n}"), &card(&number, "c-1")).await);
        if role == "supervisor" {
            vault.kill();
            vault.serve();
        } else {
            vault.kill_role(role);
        }
        let client = vault.client(&credential);
        for card in &made {
            let path = format!("/v1/tokens/{}", card["id"].as_str().unwrap());
            let read = client.get(&path).await.unwrap();
            assert_eq!((read.status, &read.json()), (200, card), "after the {role} was killed");
        }
        // The same key still answers with the same card.
        let again = client.post("/v1/tokens", &format!("k-{n}"), &card(&number, "c-1")).await.unwrap();
        assert_eq!((again.status, &again.json()), (201, &made[n]));
    }
    vault.stop();
    let (code, said) = vault.verify();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_line_that_breaks_while_both_ends_live_is_made_again() {
    let vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let scopes: Vec<&str> = BILLING.into_iter().chain(["charges:create", "charges:read"]).collect();
    let client = vault.application("billing", "acme", &scopes);
    let made_again = |line: &str| vault.log().matches(&format!("{line} ended and is made again")).count();
    store(&client, "k-0", &card("4242424242424242", "c-1")).await;
    let before = vault.processes();
    for n in 1..=3 {
        if !vault.break_line_of("edge") {
            return;
        }
        wait_for("a fresh line", || (made_again("edge and keeper") >= n).then_some(()));
        vault.wait_until_ready();
        store(&client, &format!("k-{n}"), &card(&numbers::volume(n.try_into().unwrap()), "c-1")).await;
    }
    // The other side of the keeper, each time with a charge that its processor answers after two seconds.
    let charge = async |invoice: &str, number: &str, wait: &str| {
        let token = store(&client, invoice, &card(number, "c-1")).await["id"].clone();
        let sale = json!({
            "token": token, "amount": 1250, "currency": "USD", "invoice": invoice, "initiator": "customer",
            "destination": "sandbox",
        });
        let head = [("idempotency-key", invoice), ("prefer", wait)];
        let answer = client.request("POST", "/v1/charges", &head, &sale).await.unwrap();
        assert!(matches!(answer.status, 201 | 202), "{}", text(&answer));
        answer.json()
    };
    let mut slow = Vec::new();
    for n in 1..=2 {
        let number = numbers::complete(&format!("468738{n:06}970"));
        slow.push(charge(&format!("slow-{n}"), &number, "respond-async").await);
        // It has left: what becomes of it is known to the processor alone.
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(vault.break_line_of("forwarder"));
        wait_for("a fresh line", || (made_again("keeper and forwarder") >= n).then_some(()));
        let next = charge(&format!("next-{n}"), &numbers::volume(10 + n as u64), "wait=20").await;
        assert_eq!(next["status"], "approved", "{next}");
    }
    for charge in slow {
        let path = format!("/v1/charges/{}", charge["id"].as_str().unwrap());
        let mut now = charge;
        for _ in 0..600 {
            if now["status"] == "approved" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            now = client.get(&path).await.unwrap().json();
        }
        let attempt = &now["attempts"][0];
        assert_eq!((&now["status"], &attempt["status"]), (&json!("approved"), &json!("approved")), "{now}");
    }
    let ledger = fs::read_to_string(vault.beside("ledger.ndjson")).unwrap();
    let sales = ledger.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut sold: Vec<_> = sales.map(|sale| sale["invoice"].as_str().unwrap().to_owned()).collect();
    sold.sort();
    assert_eq!(sold, ["next-1", "next-2", "slow-1", "slow-2"]);
    assert_eq!(vault.processes(), before);
    assert_eq!([made_again("edge and keeper"), made_again("keeper and forwarder")], [3, 2]);
    assert_eq!(made_again("edge and courier"), 0);
}

#[tokio::test]
async fn a_reload_takes_new_certificates_and_drops_no_connection() {
    let vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let client = vault.application("billing", "acme", &BILLING);
    store(&client, "k-1", &card("4242424242424242", "c-1")).await;
    let keeper = vault.process("keeper");
    // What the sandbox shows is signed by the same authority, for the same names.
    for end in ["pem", "key"] {
        fs::copy(vault.path(&format!("tls/sandbox.{end}")), vault.path(&format!("tls/server.{end}")))
            .unwrap();
    }
    fs::write(vault.path("credentials/sandbox_secret_key"), "sk_test_another").unwrap();
    let before = vault.log().matches("were read again").count();
    signal(vault.supervisor(), Signal::HUP);
    wait_for("the reload", || (vault.log().matches("were read again").count() > before).then_some(()));
    let connections = || {
        let metrics = vault.plain("/metrics");
        metrics.lines().find(|line| line.starts_with("cardvault_connections")).map(str::to_owned)
    };
    let open = connections();
    // The pooled connection of before.
    store(&client, "k-2", &card("4242424242424242", "c-1")).await;
    assert_eq!(connections(), open);
    // A new connection meets the new certificate.
    let fresh = vault.client(&vault.principal(order("another", Some("acme"), &BILLING)));
    store(&fresh, "k-3", &card("4242424242424242", "c-1")).await;
    assert_eq!(vault.process("keeper"), keeper);

    // What does not work leaves what is in use.
    fs::write(vault.path("tls/server.pem"), "no certificate").unwrap();
    let refused = vault.ask(AdminRequest::Reload);
    assert!(
        matches!(&refused, AdminAnswer::Refused(why) if why.contains("listen.certificate")),
        "{refused:?}"
    );
    store(&fresh, "k-4", &card("4242424242424242", "c-1")).await;
}

#[tokio::test]
async fn credentials_rotate_with_an_overlap_and_end_at_once_when_disabled() {
    let vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let old = vault.principal(order("billing", Some("acme"), &BILLING));
    let rotate = |overlap_seconds| {
        let request = AdminRequest::PrincipalRotate { principal: "billing".to_owned(), overlap_seconds };
        credential_in(vault.ask(request))
    };
    let status =
        async |credential: &str| vault.client(credential).get("/v1/tokens?customer=c").await.unwrap().status;
    let new = rotate(60);
    assert_eq!((status(&old).await, status(&new).await), (200, 200));
    let newest = rotate(0);
    assert_eq!((status(&old).await, status(&new).await, status(&newest).await), (401, 401, 200));
    vault.ask(AdminRequest::PrincipalDisable { principal: "billing".to_owned() });
    assert_eq!(status(&newest).await, 401);
}

#[tokio::test]
async fn reads_are_in_the_log_within_a_second_and_a_persons_before_the_answer() {
    let vault = Vault::start();
    vault.tenant("acme", Mode::Test);
    let (client, assessor) = (vault.application("billing", "acme", &BILLING), vault.assessor());
    let person =
        vault.principal(PrincipalOrder { person: true, ..order("pat", Some("acme"), &["tokens:read"]) });
    let person = vault.client(&person);
    let id = store(&client, "k-1", &card("4242424242424242", "c-1")).await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/tokens/{id}");
    let reads = |events: &[Value], kind: &str| {
        let of = |event: &&Value| event["action"] == "card.read" && event["actor"]["type"] == kind;
        events.iter().filter(of).count()
    };
    let all = events(&assessor).await;
    assert_eq!((reads(&all, "person"), reads(&all, "application")), (0, 0));
    person.get(&path).await.unwrap();
    // Straight from the database, as it was when the answer came.
    let leaves = vault.database();
    let written: i64 = leaves
        .query_row("select count(*) from log_segments where leaves like '%card.read%'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(written, 1);
    client.get(&path).await.unwrap();
    client.get("/v1/tokens?customer=c-1").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let all = events(&assessor).await;
    assert_eq!((reads(&all, "person"), reads(&all, "application")), (1, 2));
    let read = all.iter().find(|event| event["action"] == "card.read").unwrap();
    assert_eq!(read["target"]["id"], id.as_str());
    // The customer's name is not in the log, nor is a tenant's event another tenant's.
    assert!(!serde_json::to_string(&all).unwrap().contains("\"c-1\""));
    vault.tenant("other", Mode::Test);
    let stranger = vault.client(
        &vault
            .principal(PrincipalOrder { person: true, ..order("stranger", Some("other"), &["audit:read"]) }),
    );
    assert_eq!(count_of(&events(&stranger).await, "card.create"), 0);
}

#[tokio::test]
async fn what_belongs_to_another_installation_or_is_unsafe_does_not_start() {
    let mut vault = Vault::make(|config| config);
    let other = Vault::make(|config| config);
    let config = vault.config();
    let serve = || run(&["serve", "--config", name(&config)]);
    // A vault whose root key is another waits for the right one; a command does not.
    let list = || run(&["keys", "--config", name(&config), "list"]);
    let refused = |said: (i32, String), word: &str| {
        assert_eq!(said.0, 1, "{}", said.1);
        assert!(said.1.contains(word), "{word}: {}", said.1);
    };
    // Of another environment: the same names, other keys.
    let keep = |name: &str| (vault.path(name), fs::read(vault.path(name)).unwrap());
    let (store_file, own_store) = keep("keys/keystore.json");
    fs::copy(other.path("keys/keystore.json"), &store_file).unwrap();
    refused(list(), "restore the key store");
    let (root, own_root) = keep("keys/root.key");
    fs::copy(other.path("keys/root.key"), &root).unwrap();
    let log = || {
        let count = |table| vault.count(table);
        ["log_segments", "installation", "principals", "checkpoints"].map(count)
    };
    let before = log();
    refused(serve(), "another environment");
    assert_eq!(log(), before, "something was written into another environment's database");
    // It is found without anything that the log's key has signed, too.
    let signed: (i64, String) = vault
        .database()
        .query_row("select size, note from checkpoints", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    vault.database().execute("delete from checkpoints", []).unwrap();
    refused(serve(), "another environment");
    assert_eq!(log(), [before[0], before[1], before[2], 0]);
    vault.database().execute("insert into checkpoints (size, note) values (?1, ?2)", signed).unwrap();
    fs::write(&store_file, own_store).unwrap();
    refused(list(), "restore the key store");
    fs::write(&root, own_root).unwrap();

    let (_, text) = keep("cardvault.toml");
    let text = String::from_utf8(text).unwrap();
    for (from, to, word) in [
        ("environment = \"development\"", "environment = \"production\"", "keys.provider"),
        ("environment = \"development\"", "environment = \"production\"", "destination.sandbox"),
        (
            "environment = \"development\"",
            "environment = \"production\"",
            "destination.stripe_sandbox.endpoint",
        ),
        ("[store]", "[store]\nsurprise = \"4242424242424242\"", "unknown field"),
        ("installation = \"dev\"", "installation = \"elsewhere\"", "another installation"),
    ] {
        fs::write(&config, text.replacen(from, to, 1)).unwrap();
        let said = serve();
        assert!(!said.1.contains("4242424"), "{}", said.1);
        refused(said, word);
    }
    let plain = text.replacen("environment = \"development\"", "environment = \"production\"", 1);
    fs::write(&config, plain.replacen("[listen]", "[listen]\nplain_http = true", 1)).unwrap();
    refused(serve(), "listen.plain_http");
    fs::write(&config, &text).unwrap();
    // As it was, it serves; a second supervisor does not.
    vault.serve();
    refused(serve(), "another cardvault serves this installation");
}

#[tokio::test]
async fn a_start_that_is_refused_costs_nothing_of_the_fingerprint_budget() {
    let mut vault = Vault::make(|config| config);
    let other = Vault::make(|config| config);
    let (config, store_file) = (vault.config(), vault.path("keys/keystore.json"));
    let starts = || {
        let text = fs::read_to_string(&store_file).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["keeper_starts"].as_array().unwrap().len()
    };
    let refused = |word: &str| {
        let (code, said) = run(&["serve", "--config", name(&config)]);
        assert!(code == 1 && said.contains(word), "{word}: {said}");
        assert_eq!(starts(), 0, "{word}");
    };
    // A certificate that is none, another database.
    let own = fs::read(vault.path("tls/server.pem")).unwrap();
    fs::write(vault.path("tls/server.pem"), b"none").unwrap();
    refused("certificate");
    fs::write(vault.path("tls/server.pem"), own).unwrap();
    fs::rename(vault.path("data"), vault.path("own")).unwrap();
    fs::rename(other.path("data"), vault.path("data")).unwrap();
    refused("another environment");
    fs::rename(vault.path("data"), other.path("data")).unwrap();
    fs::rename(vault.path("own"), vault.path("data")).unwrap();
    vault.serve();
    assert_eq!(starts(), 1);
    vault.kill_role("keeper");
    assert_eq!(starts(), 2);
    // An edge that dies brings no new keeper.
    vault.kill_role("edge");
    assert_eq!(starts(), 2);
}

#[tokio::test]
async fn a_body_that_does_not_come_and_too_many_requests_are_bounded() {
    let vault = Vault::start_with(|config| {
        format!("{config}\n[limits]\nrequests_per_second_max = 5\nrequests_burst_max = 10\n")
    });
    vault.tenant("acme", Mode::Test);
    let client = vault.application("billing", "acme", &BILLING);
    let mut limited = 0;
    for _ in 0..30 {
        let answer = client.request("GET", "/v1/tokens?customer=c", &[], Payload::None).await.unwrap();
        if answer.status == 429 {
            assert_eq!(answer.json()["code"], "rate_limited", "{}", text(&answer));
            assert!(answer.header("retry-after").is_some());
            limited += 1;
        }
    }
    assert!((10..=20).contains(&limited), "{limited} of 30");
    // Another principal has a rate of its own.
    let other = vault.application("other", "acme", &BILLING);
    store(&other, "k-1", &card("4242424242424242", "c-1")).await;
    assert_eq!(json!(vault.plain("/livez").starts_with("HTTP/1.1 200")), json!(true));
}
