//! A forward that was being sent when a process died is told as it is, and never sent again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::text;
use crate::desk::{Desk, MASTERCARD, VISA, request, word};

/// The forward when it is final.
async fn settled(desk: &Desk, id: &str) -> Value {
    let began = Instant::now();
    loop {
        let forward = desk.read(id).await.json();
        if word(&forward, "status") != "sending" {
            return forward;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{forward}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn begin(desk: &Desk, key: &str, path: &str, token: &str) -> (Value, String) {
    let mut body = request(token);
    body["path"] = path.into();
    let answer = desk.forward_prefer(key, "respond-async", &body).await;
    let forward = answer.json();
    assert_eq!((answer.status, word(&forward, "status")), (202, "sending"), "{}", text(&answer));
    assert_eq!(word(&forward, "outbound"), "maybe_sent");
    let location = answer.header("location").unwrap();
    assert_eq!(location, format!("/v1/forwards/{}", word(&forward, "id")));
    let began = Instant::now();
    while !desk.upstream.arrived().iter().any(|one| one.line.contains(path)) {
        assert!(began.elapsed() < Duration::from_secs(20), "nothing arrived");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let id = word(&forward, "id").to_owned();
    (body, id)
}

#[tokio::test]
async fn a_forward_that_was_being_sent_is_unknown_and_never_sent_again() {
    let mut desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let (body, id) = begin(&desk, "k-1", "/v1/hang", &token).await;
    desk.vault.kill();
    desk.vault.serve();
    desk.reconnect();
    let forward = settled(&desk, &id).await;
    assert_eq!((word(&forward, "status"), word(&forward, "outbound")), ("unknown", "maybe_sent"));
    // Where the forwarder is the first to die, the edge can still learn of it.
    assert!(matches!(word(&forward, "error"), "restarted" | "forwarder_lost"), "{forward}");
    let again = desk.forward("k-1", &body).await;
    assert_eq!((again.status, again.json()), (201, forward));
    assert_eq!(desk.upstream.arrived().len(), 1);
    desk.vault.stop();
    let (code, said) = desk.vault.verify();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn whichever_role_dies_the_forward_is_sent_once_and_its_outcome_is_told() {
    let mut desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    // With the edge gone the keeper still learns the answer; with another gone nobody does.
    for (role, status) in [("edge", "answered"), ("forwarder", "unknown"), ("keeper", "unknown")] {
        let before = desk.upstream.arrived().len();
        let mut body = request(&token);
        body["path"] = "/v1/slow".into();
        let answer = desk.forward_prefer(role, "respond-async", &body).await;
        assert_eq!(answer.status, 202, "{}", text(&answer));
        let id = word(&answer.json(), "id").to_owned();
        let began = Instant::now();
        while desk.upstream.arrived().len() == before {
            let stands = desk.read(&id).await.json();
            let waits = word(&stands, "status") == "sending" && began.elapsed() < Duration::from_secs(20);
            assert!(waits || desk.upstream.arrived().len() > before, "{role}: nothing arrived: {stands}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        desk.vault.kill_role(role);
        desk.reconnect();
        let forward = settled(&desk, &id).await;
        assert_eq!(word(&forward, "status"), status, "{role}: {forward}");
        let again = desk.forward(role, &body).await;
        assert_eq!(again.json(), forward, "{role}");
        assert_eq!(desk.upstream.arrived().len(), before + 1, "{role}");
    }
}

#[tokio::test]
async fn answers_of_more_than_a_message_holds_find_the_edge_that_comes_back() {
    let mut desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let body = json!({
        "token": token, "destination": "bulk", "method": "POST", "path": "/v1/bulky",
        "body": {"card": {"number": "{{ card.number }}"}},
    });
    // Of the largest answers, 17 are more than the keeper could say at once.
    let mut ids = Vec::new();
    for n in 0..24 {
        let answer = desk.forward_prefer(&format!("k-{n}"), "respond-async", &body).await;
        assert_eq!(answer.status, 202, "{}", text(&answer));
        ids.push(word(&answer.json(), "id").to_owned());
    }
    let began = Instant::now();
    while desk.upstream.arrived().len() < ids.len() {
        assert!(began.elapsed() < Duration::from_secs(20), "not all arrived");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    desk.vault.kill_role("edge");
    desk.reconnect();
    for id in &ids {
        let forward = settled(&desk, id).await;
        assert_eq!(word(&forward, "status"), "answered", "{}", word(&forward, "error"));
    }
    assert!(!desk.vault.log().contains("is made again"), "the line broke");
    // Whoever is there for the cards still is.
    desk.token("t-2", MASTERCARD).await;
    assert_eq!(desk.upstream.arrived().len(), ids.len());
}

#[tokio::test]
async fn whenever_the_vault_is_killed_no_forward_is_sent_twice() {
    let mut desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let note = |key: &str| {
        let mut body = request(&token);
        body["headers"]["x-note"] = key.into();
        body
    };
    let mut keys = Vec::new();
    for round in 0..8_u64 {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..6 {
            let key = format!("r{round}-{n}");
            let (client, body) = (desk.client.clone(), note(&key));
            keys.push(key.clone());
            tasks.spawn(async move { drop(client.post("/v1/forwards", &key, &body).await) });
        }
        tokio::time::sleep(Duration::from_millis(3 + 7 * round)).await;
        desk.vault.kill();
        tasks.abort_all();
        desk.vault.serve();
        desk.reconnect();
    }
    for key in keys {
        let arrived = |desk: &Desk| {
            desk.upstream.arrived().iter().filter(|one| one.header("x-note") == Some(&key)).count()
        };
        let before = arrived(&desk);
        assert!(before <= 1, "{key}");
        // A key that was kept answers what became of it; one that was not has sent nothing, and sends now.
        let answer = desk.forward(&key, &note(&key)).await;
        let forward = answer.json();
        assert_eq!(answer.status, 201, "{}", text(&answer));
        let after = arrived(&desk);
        if answer.header("idempotent-replayed").is_some() {
            assert_eq!(after, before, "{key}");
            // The forwarder may be the first to die: then the edge can still learn that nothing was sent.
            match word(&forward, "status") {
                "answered" => assert_eq!(after, 1, "{forward}"),
                "failed" => assert_eq!((word(&forward, "outbound"), after), ("not_sent", 0), "{forward}"),
                status => assert_eq!(status, "unknown", "{forward}"),
            }
        } else {
            assert_eq!((before, after, word(&forward, "status")), (0, 1, "answered"), "{key}");
        }
    }
    desk.vault.stop();
    let (code, said) = desk.vault.verify();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_key_that_many_use_at_once_sends_once() {
    let desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (client, body) = (desk.client.clone(), request(&token));
        tasks.spawn(async move { client.post("/v1/forwards", "k-1", &body).await.unwrap() });
    }
    let answers = tasks.join_all().await;
    assert!(answers.iter().any(|answer| answer.status == 201));
    assert!(answers.iter().all(|answer| matches!(answer.status, 201 | 409)));
    assert_eq!(desk.upstream.arrived().len(), 1);
}
