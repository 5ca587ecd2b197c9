//! Receivers that are slow, broken or gone: they hold up nobody else, are tried again, and are switched off in the end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{count_of, events};
use crate::desk::{Desk, VISA, refusal, word};
use crate::receiver::Behaviour;

#[tokio::test]
async fn a_broken_receiver_holds_up_no_other_and_is_tried_as_often_as_it_is_said() {
    let desk = Desk::open("[1, 1]", "");
    let broken = [
        ("/500", Behaviour::Answer(500), Some(500), None),
        ("/redirect", Behaviour::Answer(302), Some(302), Some("redirect")),
        ("/garbage", Behaviour::Garbage, None, Some("protocol")),
        ("/close", Behaviour::Close, None, Some("closed")),
        ("/hang", Behaviour::Hang, None, Some("timeout")),
    ];
    let mut ids = Vec::new();
    for (path, behaviour, ..) in broken {
        desk.receiver.behave(path, behaviour);
        ids.push(desk.endpoint(path, &["charge.*"]).await.0);
    }
    desk.endpoint("/good", &["charge.*"]).await;
    let token = desk.token("t", VISA).await;
    let began = Instant::now();
    for n in 0..5 {
        desk.charge(&token, &format!("inv-{n}")).await;
    }
    let good = desk.arrived("/good", |all| all.len() == 5).await;
    assert!(began.elapsed() < Duration::from_secs(20), "the others held it up");
    for ((path, _, status, error), id) in broken.into_iter().zip(&ids) {
        let failed = format!("/v1/webhook_endpoints/{id}/deliveries?status=failed");
        let five = |page: &Value| page["data"].as_array().unwrap().len() == 5;
        let page = desk.until_at(&failed, "all failed", five).await;
        for delivery in page["data"].as_array().unwrap() {
            assert_eq!(delivery["attempts"], 3, "{path}: {delivery}");
            assert_eq!(delivery["response_status"], json!(status), "{path}: {delivery}");
            assert_eq!(delivery["error"], json!(error), "{path}: {delivery}");
            assert_eq!(delivery["next_attempt_at"], Value::Null);
        }
        // Each attempt carried the same id, and those of the one who took it.
        let mut arrived: Vec<_> = desk.receiver.at(path).iter().map(|one| one.id().to_owned()).collect();
        arrived.sort();
        let mut wanted: Vec<_> = good.iter().flat_map(|one| vec![one.id().to_owned(); 3]).collect();
        wanted.sort();
        assert_eq!(arrived, wanted, "{path}");
        assert!(desk.get(&format!("/v1/webhook_endpoints/{id}")).await["failing_since"].is_string());
    }
    assert!(desk.receiver.at("/elsewhere").is_empty(), "a redirect was followed");
    let figures = desk.vault.plain("/metrics");
    assert!(figures.contains("cardvault_webhooks_total{status=\"failed\"} 25"), "{figures}");
    assert!(figures.contains("cardvault_courier_connected 1"), "{figures}");
}

#[tokio::test]
async fn what_could_not_be_delivered_is_replayed_with_the_same_id() {
    let desk = Desk::open("[]", "");
    desk.receiver.behave("/down", Behaviour::Answer(503));
    let (id, secret) = desk.endpoint("/down", &["charge.*"]).await;
    let token = desk.token("t", VISA).await;
    for n in 0..3 {
        desk.charge(&token, &format!("inv-{n}")).await;
    }
    let deliveries = format!("/v1/webhook_endpoints/{id}/deliveries");
    let all_failed = |page: &Value| page["data"].as_array().unwrap().iter().all(|d| d["status"] == "failed");
    let three = |page: &Value| page["data"].as_array().unwrap().len() == 3 && all_failed(page);
    let failed = desk.until_at(&deliveries, "failed", three).await;
    // A page after the other, newest first.
    let first = desk.get(&format!("{deliveries}?limit=2")).await;
    let after = word(&first["data"][1], "event");
    let rest = desk.get(&format!("{deliveries}?limit=2&starting_after={after}")).await;
    assert_eq!((&first["has_more"], &rest["has_more"]), (&json!(true), &json!(false)));
    assert_eq!(rest["data"][0], failed["data"][2]);

    desk.receiver.behave("/down", Behaviour::Answer(204));
    let replay = format!("/v1/webhook_endpoints/{id}/replay");
    let one = word(&failed["data"][0], "event").to_owned();
    let answer = desk.post(&replay, "r-1", &json!({"event": one})).await;
    assert_eq!((answer.status, answer.json()["replayed"].as_u64()), (202, Some(1)));
    desk.until_at(&deliveries, "one delivered", |page| page["data"][0]["status"] == "delivered").await;
    let body = json!({"since": "2026-01-01T00:00:00Z", "failed_only": true});
    assert_eq!(desk.post(&replay, "r-2", &body).await.json()["replayed"], 2);
    let all = |page: &Value| page["data"].as_array().unwrap().iter().all(|d| d["status"] == "delivered");
    desk.until_at(&deliveries, "all delivered", all).await;
    let body = json!({"since": "2026-01-01T00:00:00Z"});
    assert_eq!(desk.post(&replay, "r-3", &body).await.json()["replayed"], 3);
    let arrived = desk.arrived("/down", |all| all.len() == 9).await;
    let ids: std::collections::BTreeSet<_> = arrived.iter().map(|one| one.id().to_owned()).collect();
    assert_eq!(ids.len(), 3);
    assert!(arrived.iter().all(|one| one.signed_with(&secret) == 1));
    for (body, code) in [
        (json!({"event": "msg_x"}), (422, "invalid_value")),
        (json!({}), (422, "missing_field")),
        (json!({"event": one, "since": "2026-01-01T00:00:00Z"}), (422, "invalid_value")),
        (json!({"since": "yesterday"}), (422, "invalid_value")),
        (json!({"event": format!("{}0", &one[..one.len() - 1])}), (404, "not_found")),
    ] {
        let answer = desk.post(&replay, "r-4", &body).await;
        assert_eq!(refusal(&answer), (code.0, code.1.to_owned()), "{body}");
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_for_too_long_or_is_gone_is_switched_off_and_told_of() {
    let desk = Desk::open("[1, 1, 1, 1, 1, 1, 1, 1]", "disable_after_seconds = 2");
    let assessor = desk.vault.assessor();
    desk.receiver.behave("/bad", Behaviour::Answer(500));
    desk.receiver.behave("/gone", Behaviour::Answer(410));
    let (bad, _) = desk.endpoint("/bad", &["charge.*"]).await;
    let (gone, _) = desk.endpoint("/gone", &["charge.*"]).await;
    desk.endpoint("/watch", &["webhook_endpoint.disabled"]).await;
    let token = desk.token("t", VISA).await;
    desk.charge(&token, "inv-1").await;
    for (id, reason) in [(&bad, "failing"), (&gone, "gone")] {
        let row = desk.until(id, "switched off", |row| row["enabled"] == false).await;
        assert_eq!(word(&row, "disabled_reason"), reason);
    }
    let told = desk.arrived("/watch", |all| all.len() == 2).await;
    let ids: Vec<_> = told.iter().map(|one| word(&one.body()["data"], "id").to_owned()).collect();
    assert!(ids.contains(&bad) && ids.contains(&gone));
    let log = events(&assessor).await;
    assert_eq!(count_of(&log, "webhook.disable"), 2);
    // Nothing is sent to it, and it can be neither tried nor replayed; switched on again it is told what it missed.
    desk.charge(&token, "inv-2").await;
    let replay = format!("/v1/webhook_endpoints/{bad}/replay");
    let since = json!({"since": "2026-01-01T00:00:00Z"});
    let off = (409, "webhook_endpoint_disabled".to_owned());
    assert_eq!(refusal(&desk.post(&replay, "r-1", &since).await), off);
    let test = format!("/v1/webhook_endpoints/{bad}/test");
    assert_eq!(refusal(&desk.post(&test, "r-2", &json!({})).await), off);
    let before = desk.receiver.at("/bad").len();
    desk.receiver.behave("/bad", Behaviour::Answer(200));
    let path = format!("/v1/webhook_endpoints/{bad}");
    let on = desk.send("PATCH", &path, &json!({"enabled": true})).await.json();
    assert_eq!((&on["enabled"], &on["disabled_reason"]), (&json!(true), &Value::Null));
    assert_eq!(desk.post(&replay, "r-3", &since).await.json()["replayed"], 2);
    let arrived = desk.arrived("/bad", |all| all.len() >= before + 2).await;
    assert!(arrived.iter().skip(before).any(|one| one.body()["data"]["invoice"] == "inv-2"));
}
