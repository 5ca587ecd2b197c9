//! A card's life, as a caller sees it.

use std::collections::HashMap;

use axum::http::Method;
use tower::ServiceExt;

use super::{Vault, card};
use crate::card::id::{ChargeId, Token};
use crate::clock::Clock;
use crate::edge::admin;
use crate::edge::store::{AttemptState, Change, ChargeRow, ChargeStatus, OperationKind, RowChange};
use crate::edge::{charge, erasures};
use crate::wire::control::{AdminAnswer, AdminCommand, HoldOrder};

const VISA: &str = "4242424242424242";
const OTHER: &str = "4000056655665556";

#[tokio::test]
async fn a_card_is_stored_shown_changed_and_erased_under_one_token() {
    let vault = Vault::start().await;
    let made = vault.create("billing", "k1", &card(VISA, r#","customer":"c-1","metadata":{"a":"b"}"#)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let token = made.id();
    assert_eq!(made.body["card"]["last4"], "4242");
    assert_eq!(made.body["card"]["exp_year"], 2030);
    assert_eq!(made.body["version"], 1);
    assert!(made.body["fingerprint"].as_str().unwrap().starts_with("fp_"));
    let path = format!("/v1/tokens/{token}");
    let read = vault.get("reader", &path).await;
    assert_eq!(read.body, made.body);
    let patch = r#"{"card":{"exp_month":1,"exp_year":2031},"status":"suspended"}"#;
    let changed = vault.ask("billing", Method::PATCH, &path).json(patch).send().await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    assert_eq!(changed.body["version"], 2);
    assert_eq!(changed.body["card"]["exp_month"], 1);
    assert_eq!(changed.body["status"], "suspended");
    assert_eq!(changed.body["fingerprint"], made.body["fingerprint"]);
    let gone = vault.ask("billing", Method::DELETE, &path).send().await;
    assert_eq!((gone.status, gone.body["status"].as_str()), (200, Some("erased")), "{}", gone.text);
    assert_eq!(vault.get("billing", &path).await.code(), (410, "token_erased"));
    let again = vault.ask("billing", Method::DELETE, &path).send().await;
    assert_eq!(again.status, 200);
    let late = vault.create("billing", "k1", &card(VISA, r#","customer":"c-1","metadata":{"a":"b"}"#)).await;
    assert_eq!(late.code(), (410, "token_erased"));
    let actions = vault.actions().await;
    for action in ["card.create", "card.read", "card.update", "card.suspend", "card.erase"] {
        assert!(actions.iter().any(|a| a == action), "{action} in {actions:?}");
    }
}

#[tokio::test]
async fn a_customer_is_erased_with_all_cards_and_nobody_elses() {
    let vault = Vault::start().await;
    let mut ids = Vec::new();
    for (key, customer) in [("k1", "c-1"), ("k2", "c-1"), ("k3", "c-2")] {
        let made = vault.create("billing", key, &card(VISA, &format!(r#","customer":"{customer}""#))).await;
        ids.push(made.id());
    }
    let erase = |who, query| vault.ask(who, Method::DELETE, &format!("/v1/tokens{query}")).send();
    assert_eq!(erase("billing", "").await.code(), (422, "missing_field"));
    assert_eq!(erase("reader", "?customer=c-1").await.code(), (403, "scope_missing"));
    let none = erase("other", "?customer=c-1").await;
    assert_eq!((none.status, none.body["data"].as_array().unwrap().len()), (200, 0));
    let held = format!("/v1/tokens/{}/legal_hold", ids[0]);
    assert_eq!(vault.ask("person", Method::PUT, &held).send().await.status, 200);
    let erased = erase("billing", "?customer=c-1").await;
    // One is kept by its hold, so it is not done yet.
    assert_eq!(erased.status, 202, "{}", erased.text);
    let of = |id: &str| {
        let data = erased.body["data"].as_array().unwrap();
        data.iter().find(|card| card["id"] == id).unwrap().clone()
    };
    assert_eq!((&of(&ids[0])["code"], of(&ids[0]).get("erasure_certificate")), (&"legal_hold".into(), None));
    let link = format!("/v1/erasures/{}", ids[1]);
    assert_eq!(of(&ids[1])["erasure_certificate"], link.as_str());
    let released = vault.ask("person", Method::DELETE, &held).send().await;
    assert_eq!(released.body["erasure_certificate"], format!("/v1/erasures/{}", ids[0]).as_str());
    let again = erase("billing", "?customer=c-1").await;
    assert_eq!((again.status, again.body["data"].as_array().unwrap().len()), (200, 0));
    assert_eq!(vault.get("billing", &format!("/v1/tokens/{}", ids[2])).await.status, 200);
    let unknown = vault.get("billing", &format!("/v1/erasures/{}", ids[2])).await;
    assert_eq!(unknown.code(), (404, "erasure_not_found"));
}

/// Where two persons are needed no principal releases a hold: the supervisor says what two of them signed, as often as it has to.
#[tokio::test]
async fn where_two_are_needed_a_hold_is_released_by_their_request() {
    let vault = Vault::start().await;
    let id = vault.create("billing", "k1", &card(VISA, "")).await.id();
    let path = format!("/v1/tokens/{id}/legal_hold");
    vault.app.directory.set_two_persons(true);
    let held = vault.ask("person", Method::PUT, &path).json(r#"{"reference":"case-1"}"#).send().await;
    assert_eq!(held.status, 200, "{}", held.text);
    let refused = vault.ask("person", Method::DELETE, &format!("{path}?reference=case-1")).send().await;
    assert_eq!(refused.code(), (403, "two_persons_required"));
    let release = async |tenant: &str, token: &str| {
        let [tenant, token, reference] = [tenant, token, "case-1"].map(str::to_owned);
        let order = HoldOrder { tenant, token, reference };
        admin::carry_out(&vault.app, AdminCommand::ReleaseHold { order, actor: "per_x".to_owned() }).await
    };
    for (tenant, token) in [("globex", id.as_str()), ("nobody", id.as_str()), ("acme", "tok_none")] {
        assert!(matches!(release(tenant, token).await, AdminAnswer::Refused(_)), "{tenant} {token}");
    }
    for _ in 0..2 {
        assert!(matches!(release("acme", &id).await, AdminAnswer::Done(_)));
    }
    let events = vault.app.store.events(None, 0, 10_000).await.unwrap();
    let released = |leaf: &[u8]| {
        let leaf = String::from_utf8_lossy(leaf);
        leaf.contains("card.hold") && leaf.contains("\"released\"") && leaf.contains("per_x")
    };
    assert_eq!(events.iter().filter(|event| released(&event.leaf)).count(), 1);
}

#[tokio::test]
async fn a_card_is_held_until_the_hold_of_each_reference_is_released() {
    let vault = Vault::start().await;
    let id = vault.create("billing", "k1", &card(VISA, "")).await.id();
    let path = format!("/v1/tokens/{id}/legal_hold");
    let hold = |body: &'static str| vault.ask("person", Method::PUT, &path).json(body).send();
    let release = |query: &str| vault.ask("person", Method::DELETE, &format!("{path}{query}")).send();
    for (body, code) in [
        (r#"{"reference":""}"#, "invalid_value"),
        (r#"{"reference":"of the court"}"#, "invalid_value"),
        (r#"{"reference":"4242424242424242"}"#, "stray_number"),
        (r#"{"case":"1"}"#, "unknown_field"),
    ] {
        assert_eq!(hold(body).await.code(), (422, code));
    }
    assert_eq!(hold(r#"{"reference":"case-1"}"#).await.status, 200);
    assert_eq!(hold(r#"{"reference":"case-1"}"#).await.status, 200);
    let both = hold(r#"{"reference":"case-2"}"#).await;
    let references: Vec<_> =
        both.body["holds"].as_array().unwrap().iter().map(|hold| hold["reference"].clone()).collect();
    assert_eq!(references, ["case-1", "case-2"]);
    let erase = vault.ask("billing", Method::DELETE, &format!("/v1/tokens/{id}")).send().await;
    assert_eq!(erase.code(), (202, "legal_hold"));
    // The one without a reference was never set, and one of two is not both.
    for (query, left) in [("", 2), ("?reference=case-3", 2), ("?reference=case-1", 1)] {
        let kept = release(query).await;
        assert_eq!((kept.status, &kept.body["legal_hold"]), (200, &true.into()), "{}", kept.text);
        assert_eq!(kept.body["holds"].as_array().unwrap().len(), left);
    }
    let last = release("?reference=case-2").await;
    assert_eq!((&last.body["legal_hold"], &last.body["status"]), (&false.into(), &"erased".into()));
    let events = vault.app.store.events(None, 0, 10_000).await.unwrap();
    let notes: Vec<serde_json::Value> = events
        .iter()
        .map(|event| serde_json::from_slice::<serde_json::Value>(&event.leaf).unwrap())
        .filter(|event| event["action"] == "card.hold")
        .map(|event| event["facts"]["note"].clone())
        .collect();
    assert_eq!(notes, ["set", "set", "released_one", "released"]);
    // The references are the caller's words: the log has none of them.
    assert!(!events.iter().any(|event| String::from_utf8_lossy(&event.leaf).contains("case-")));
}

#[tokio::test]
async fn a_card_that_waits_too_long_to_be_erased_is_told_of() {
    let vault = Vault::start().await;
    let app = &vault.app;
    let id = vault.create("billing", "k1", &card(VISA, "")).await.id();
    let mut held = charge::tests::charge(OperationKind::Authorize, false);
    held.id = ChargeId::make(vault.clock.now()).unwrap();
    held.token = Token::parse(&id).unwrap();
    held.status = ChargeStatus::Authorized;
    held.operations[0].attempts[0].state = AttemptState::Approved;
    let put = async |charge: &ChargeRow| {
        let rows = vec![RowChange::PutCharge(Box::new(charge.clone()))];
        app.store.commit(Change { rows, ..Change::default() }).await.unwrap();
    };
    put(&held).await;
    let path = format!("/v1/tokens/{id}");
    let erase = || vault.ask("billing", Method::DELETE, &path).send();
    let waits = erase().await;
    assert_eq!(waits.code(), (202, "erasing"), "{}", waits.text);
    let deadline = vault.clock.now().plus_seconds(31 * 86_400).to_string();
    assert_eq!(waits.body["deadline"], deadline.as_str());
    let mut told = HashMap::new();
    let mut look = async |days: i64| {
        vault.clock.advance_seconds(days * 86_400);
        erasures::look(app, &mut told).await.unwrap();
        let figures = app.metrics.write(app);
        let line = figures.lines().find(|line| line.starts_with("cardvault_erasures_overdue")).unwrap();
        let told = vault.actions().await.iter().filter(|action| *action == "card.erase_overdue").count();
        (line.to_owned(), told)
    };
    let seen = |waiting: u8, told: usize| (format!("cardvault_erasures_overdue {waiting}"), told);
    assert_eq!(look(0).await, seen(0, 0));
    assert_eq!(look(30).await, seen(0, 0));
    assert_eq!(look(1).await, seen(1, 1));
    assert_eq!(look(0).await, seen(1, 1));
    assert_eq!(look(1).await, seen(1, 2));
    assert_eq!(erase().await.code(), (202, "erase_overdue"));
    // Whoever ends the authorization lets it go.
    held.revision += 1;
    held.status = ChargeStatus::Voided;
    put(&held).await;
    assert_eq!(look(1).await, seen(0, 2));
    let gone = erase().await;
    assert_eq!((gone.status, gone.body["status"].as_str()), (200, Some("erased")), "{}", gone.text);
    assert!(gone.body.get("deadline").is_none());
}

#[tokio::test]
async fn a_replay_answers_the_version_that_was_answered() {
    let vault = Vault::start().await;
    let body = card(VISA, "");
    let made = vault.create("billing", "k1", &body).await;
    let path = format!("/v1/tokens/{}", made.id());
    let expiry = r#"{"card":{"exp_month":1,"exp_year":2031}}"#;
    for patch in [r#"{"status":"suspended"}"#, expiry, r#"{"status":"active"}"#] {
        vault.clock.advance_seconds(1);
        assert_eq!(vault.ask("billing", Method::PATCH, &path).json(patch).send().await.status, 200);
        let hold = format!("{path}/legal_hold");
        assert_eq!(vault.ask("person", Method::PUT, &hold).send().await.status, 200);
        let replay = vault.create("billing", "k1", &body).await;
        assert_eq!((replay.status, &replay.body), (201, &made.body), "{patch}: {}", replay.text);
    }
    let replay = vault.create("billing", "k1", &body).await;
    assert_eq!(replay.head["idempotent-replayed"], "true");
    assert!(made.head.get("idempotent-replayed").is_none());
    let other = vault.create("billing", "k1", &card(OTHER, "")).await;
    assert_eq!(other.code(), (422, "idempotency_key_reused"));
    let elsewhere = vault.create("other", "k1", &body).await;
    assert_eq!(elsewhere.status, 201);
    assert_ne!(elsewhere.id(), made.id());
}

#[tokio::test]
async fn a_replay_answers_the_same_after_the_card_has_expired() {
    let vault = Vault::start().await;
    let made = vault.create("billing", "k1", &card(VISA, "")).await;
    vault.clock.advance_seconds(10 * 365 * 86_400);
    let replay = vault.create("billing", "k1", &card(VISA, "")).await;
    assert_eq!((replay.status, &replay.body), (201, &made.body), "{}", replay.text);
    assert_eq!(replay.head["idempotent-replayed"], "true");
    let other = vault.create("billing", "k1", &card(OTHER, "")).await;
    assert_eq!(other.code(), (422, "idempotency_key_reused"));
    let anew = vault.create("billing", "k2", &card(VISA, "")).await;
    assert_eq!(anew.code(), (422, "card_expired"));
}

#[tokio::test]
async fn a_duplicate_is_stored_again_returned_or_updated_as_asked() {
    let vault = Vault::start().await;
    let first = vault.create("billing", "k1", &card(VISA, r#","customer":"c-1""#)).await;
    vault.clock.advance_seconds(1);
    let again = vault.create("billing", "k2", &card(VISA, r#","customer":"c-1""#)).await;
    assert_eq!(again.status, 201);
    assert_ne!(again.id(), first.id());
    assert_eq!(again.body["fingerprint"], first.body["fingerprint"]);
    let newer = r#"{"card":{"number":"4242424242424242","exp_month":2,"exp_year":2032},"customer":"c-1","on_duplicate":"return_existing"}"#;
    let found = vault.create("billing", "k3", newer).await;
    assert_eq!((found.status, found.id()), (200, first.id()));
    assert_eq!(found.body["card"]["exp_year"], 2030);
    assert_eq!(found.body["differs"], serde_json::json!(["expiry", "zip"]));
    let replay = vault.create("billing", "k3", newer).await;
    assert_eq!(replay.body, found.body);
    let update = newer.replace("return_existing", "update_existing");
    let updated = vault.create("billing", "k4", &update).await;
    assert_eq!((updated.status, updated.id()), (200, first.id()), "{}", updated.text);
    assert_eq!(updated.body["version"], 2);
    assert_eq!(updated.body["card"]["exp_year"], 2032);
    for (key, zip, differs) in [("k6", "10001", vec![]), ("k7", "10002", vec!["zip"])] {
        let more = r#","customer":"c-1","on_duplicate":"return_existing""#;
        let body = card(VISA, more).replace("10001", zip).replace("12,", "2,").replace("2030", "2032");
        let found = vault.create("billing", key, &body).await;
        assert_eq!((found.status, &found.body["differs"]), (200, &serde_json::json!(differs)), "{zip}");
    }
    let elsewhere = vault.create("billing", "k5", &newer.replace("c-1", "c-2")).await;
    assert_eq!(elsewhere.status, 201);
}

#[tokio::test]
async fn many_creates_of_one_card_at_once_answer_with_one_token() {
    let vault = Vault::start().await;
    let body = card(VISA, r#","customer":"c-1","on_duplicate":"return_existing""#);
    let asks = (0..64).map(|n| {
        let ask = vault.ask("billing", Method::POST, "/v1/tokens").key(&format!("k{n}")).json(&body);
        let (router, request) = (vault.router.clone(), ask.request.body(ask.body).unwrap());
        tokio::spawn(async move { super::Got::of(router.oneshot(request).await.unwrap()).await })
    });
    let mut tokens = std::collections::HashSet::new();
    let mut made = 0;
    for ask in asks.collect::<Vec<_>>() {
        let got = ask.await.unwrap();
        assert!(matches!(got.status, 200 | 201), "{}", got.text);
        made += usize::from(got.status == 201);
        tokens.insert(got.id());
    }
    assert_eq!((tokens.len(), made), (1, 1));
}

#[tokio::test]
async fn a_customer_is_listed_in_pages_newest_first() {
    let vault = Vault::start().await;
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(vault.create("billing", &format!("k{n}"), &card(VISA, r#","customer":"c 1""#)).await.id());
        vault.clock.advance_seconds(1);
    }
    made.reverse();
    let mut listed = Vec::new();
    let mut path = "/v1/tokens?customer=c%201&limit=2".to_owned();
    loop {
        let page = vault.get("billing", &path).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let data = page.body["data"].as_array().unwrap();
        listed.extend(data.iter().map(|card| card["id"].as_str().unwrap().to_owned()));
        if page.body["has_more"] == false {
            break;
        }
        path = format!("/v1/tokens?customer=c%201&limit=2&starting_after={}", listed.last().unwrap());
    }
    assert_eq!(listed, made);
    let other = vault.get("other", "/v1/tokens?customer=c%201").await;
    assert_eq!(other.body["data"], serde_json::json!([]));
}

/// Whatever reference a card was stored with, its customer is found by it.
#[tokio::test]
async fn the_longest_reference_finds_its_customer() {
    let vault = Vault::start().await;
    for (n, letter) in ["a", "ä", "客", "🂡"].into_iter().enumerate() {
        let customer = letter.repeat(128);
        let made = vault
            .create("billing", &format!("k{n}"), &card(VISA, &format!(r#","customer":"{customer}""#)))
            .await;
        let encoded: String = customer.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let listed = vault.get("billing", &format!("/v1/tokens?customer={encoded}")).await;
        assert_eq!(listed.body["data"][0]["id"], made.body["id"], "{}", listed.text);
        let longer = vault.get("billing", &format!("/v1/tokens?customer={encoded}x")).await;
        assert_eq!(longer.code(), (400, "invalid_parameter"));
        let charges = vault.get("billing", &format!("/v1/charges?customer={encoded}")).await;
        assert_eq!(charges.status, 200, "{}", charges.text);
    }
}

#[tokio::test]
async fn a_person_s_read_is_in_the_log_before_the_answer() {
    let vault = Vault::start().await;
    let path = format!("/v1/tokens/{}", vault.create("billing", "k1", &card(VISA, "")).await.id());
    assert_eq!(vault.get("person", &path).await.status, 200);
    let events = vault.app.store.events(None, 0, 100).await.unwrap();
    let last: serde_json::Value = serde_json::from_slice(&events.last().unwrap().leaf).unwrap();
    assert_eq!(last["action"], "card.read");
    assert_eq!(last["actor"]["type"], "person");
    // So is a look at what is kept beside the card.
    assert_eq!(vault.get("person", &format!("{path}/agreements")).await.status, 200);
    assert_eq!(vault.actions().await.iter().filter(|action| *action == "card.read").count(), 2);
}

#[tokio::test]
async fn agreements_are_made_listed_and_ended_and_a_new_number_ends_them() {
    let vault = Vault::start().await;
    let path = format!("/v1/tokens/{}", vault.create("billing", "k1", &card(VISA, "")).await.id());
    let list = format!("{path}/agreements");
    let body = r#"{"type":"recurring","consent":{"by":"jane","at":"2026-11-22T10:00:00Z"},"network_transaction_id":"123456789012345","transaction_link_id":"aB3-_6789012345678901Z"}"#;
    let make = |key: &'static str| vault.ask("billing", Method::POST, &list).key(key).json(body).send();
    let made = make("a1").await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.body["transaction_link_id"], "aB3-_6789012345678901Z");
    let replay = make("a1").await;
    assert_eq!((replay.status, &replay.body), (201, &made.body));
    assert_eq!(replay.head["idempotent-replayed"], "true");
    let end = format!("{list}/{}/end", made.id());
    let ended = vault.ask("billing", Method::POST, &end).key("e1").send().await;
    assert_eq!((ended.status, ended.body["ended_reason"].as_str()), (200, Some("requested")));
    assert_eq!(make("a2").await.status, 201);
    let patch = format!(r#"{{"card":{{"number":"{OTHER}"}}}}"#);
    let changed = vault.ask("billing", Method::PATCH, &path).json(&patch).send().await;
    assert_eq!((changed.status, changed.body["card"]["last4"].as_str()), (200, Some("5556")));
    assert_eq!(changed.body["card"]["exp_month"], 12);
    let all = vault.get("billing", &list).await;
    let reasons: Vec<_> =
        all.body["data"].as_array().unwrap().iter().map(|a| a["ended_reason"].clone()).collect();
    assert!(reasons.iter().any(|reason| reason == "number_changed"), "{reasons:?}");
    assert!(all.body["data"].as_array().unwrap().iter().all(|a| a["status"] == "ended"));
}
