//! Webhook endpoints: a request that is made again does nothing twice, whatever became of its endpoint; and a receiver that asks to be left
//! alone is.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use axum::http::Method;

use super::{Got, Vault};
use crate::card::id::{EndpointId, NoticeId};
use crate::card::tenant::TenantId;
use crate::clock::{Clock, Time};
use crate::edge::store::{Attempted, Change, DeliveryState, RowChange, WebhookChange};
use crate::edge::webhooks;
use crate::edge::working::Working;
use crate::wire::control::WebhookRules;
use crate::wire::courier::{Post, Posted};
use crate::wire::frame::{self, FrameReader};

const NEW: &str = r#"{"url":"https://hooks.example/vault","events":["charge.*"]}"#;

impl Vault {
    async fn endpoint(&self) -> String {
        let rules =
            WebhookRules { hosts: vec![("hooks.example".to_owned(), 443)], ..WebhookRules::default() };
        self.app.directory.set_webhooks(rules);
        let made =
            self.ask("billing", Method::POST, "/v1/webhook_endpoints").key("new").json(NEW).send().await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.id()
    }

    async fn verb(&self, endpoint: &str, verb: &str, key: &str, body: &str) -> Got {
        let path = format!("/v1/webhook_endpoints/{endpoint}/{verb}");
        self.ask("billing", Method::POST, &path).key(key).json(body).send().await
    }

    async fn deliveries(&self, endpoint: &str) -> Vec<(String, String)> {
        let page = self.get("billing", &format!("/v1/webhook_endpoints/{endpoint}/deliveries")).await;
        let rows = page.body["data"].as_array().unwrap();
        let word = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap().to_owned();
        rows.iter().map(|row| (word(row, "event"), word(row, "status"))).collect()
    }

    async fn deliver(&self, endpoint: &str, notice: &str) {
        let now = self.clock.now();
        let attempted = Attempted {
            tenant: TenantId(1),
            endpoint: EndpointId::parse(endpoint).unwrap(),
            notice: NoticeId::parse(notice).unwrap(),
            state: DeliveryState::Delivered,
            due: now,
            attempts: 1,
            at: now,
            status: Some(200),
            error: None,
            micros: 1,
        };
        let rows = vec![RowChange::Webhook(WebhookChange::Attempted(Box::new(attempted)))];
        self.app.store.commit(Change { rows, ..Change::default() }).await.unwrap();
    }
}

fn is_replayed(got: &Got) -> bool {
    got.head.contains_key("idempotent-replayed")
}

#[tokio::test]
async fn a_test_or_replay_that_is_asked_for_again_is_made_once() {
    let vault = Vault::start().await;
    let id = vault.endpoint().await;
    let first = vault.verb(&id, "test", "t", "{}").await;
    assert_eq!((first.status, first.text.as_str(), is_replayed(&first)), (202, "", false));
    let again = vault.verb(&id, "test", "t", "{}").await;
    assert_eq!((again.status, again.text.as_str(), is_replayed(&again)), (202, "", true));
    let told = vault.deliveries(&id).await;
    assert_eq!(told.len(), 1);
    assert_eq!(vault.verb(&id, "test", "t-2", "{}").await.status, 202);
    assert_eq!(vault.deliveries(&id).await.len(), 2);

    let one = told[0].0.clone();
    let body = format!(r#"{{"event":"{one}"}}"#);
    let status_of_one =
        async || vault.deliveries(&id).await.into_iter().find(|(notice, _)| *notice == one).unwrap().1;
    vault.deliver(&id, &one).await;
    let first = vault.verb(&id, "replay", "r", &body).await;
    assert_eq!((first.status, first.body["replayed"].as_u64()), (202, Some(1)));
    assert_eq!(status_of_one().await, "waiting");
    vault.deliver(&id, &one).await;
    let again = vault.verb(&id, "replay", "r", &body).await;
    assert_eq!((again.status, is_replayed(&again), &again.text), (202, true, &first.text));
    assert_eq!(status_of_one().await, "delivered");
    let other = r#"{"since":"2026-01-01T00:00:00Z"}"#;
    assert_eq!(vault.verb(&id, "replay", "r", other).await.code(), (422, "idempotency_key_reused"));
    assert_eq!(vault.verb(&id, "replay", "r-2", &body).await.status, 202);
    assert_eq!(status_of_one().await, "waiting");
    let replays = vault.actions().await.iter().filter(|action| *action == "webhook.replay").count();
    assert_eq!(replays, 2);

    // A refusal is not kept, an answer is: also when the endpoint is off, or gone.
    let last = if one.ends_with('0') { '2' } else { '0' };
    let nobody = format!(r#"{{"event":"{}{last}"}}"#, &one[..one.len() - 1]);
    assert_eq!(vault.verb(&id, "replay", "r-3", &nobody).await.code(), (404, "not_found"));
    assert_eq!(vault.verb(&id, "replay", "r-3", &body).await.status, 202);
    let path = format!("/v1/webhook_endpoints/{id}");
    let off = vault.ask("billing", Method::PATCH, &path).json(r#"{"enabled":false}"#).send().await;
    assert_eq!(off.status, 200);
    assert_eq!(vault.verb(&id, "test", "t", "{}").await.status, 202);
    assert_eq!(vault.verb(&id, "test", "t-3", "{}").await.code(), (409, "webhook_endpoint_disabled"));
    assert_eq!(vault.ask("billing", Method::DELETE, &path).send().await.status, 204);
    assert_eq!(vault.verb(&id, "replay", "r", &body).await.text, first.text);
    assert_eq!(vault.verb(&id, "replay", "r-4", &body).await.code(), (404, "webhook_endpoint_not_found"));
}

#[tokio::test]
async fn a_request_whose_key_is_being_worked_on_waits_outside() {
    let vault = Vault::start().await;
    let id = vault.endpoint().await;
    let route = format!("POST /v1/webhook_endpoints/{id}/test").into_bytes();
    let key = super::digests(&[route, b"t".to_vec(), b"{}".to_vec()]).key;
    let working = Working::take(&vault.app, key).unwrap();
    let busy = vault.verb(&id, "test", "t", "{}").await;
    assert_eq!(busy.code(), (409, "request_in_progress"));
    assert!(busy.head.contains_key("retry-after"));
    assert_eq!(vault.verb(&id, "test", "t-2", "{}").await.status, 202);
    drop(working);
    assert_eq!(vault.verb(&id, "test", "t", "{}").await.status, 202);
    assert_eq!(vault.deliveries(&id).await.len(), 2);
}

/// A courier whose receiver takes what goes to `/other`, and otherwise asks to be left alone; says where it was asked to post.
fn asked_to_wait(vault: &Vault) -> Receiver<String> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    vault.app.courier.connect(ours).unwrap();
    let (tell, posts) = channel();
    std::thread::spawn(move || {
        let mut reader = FrameReader::new(theirs.try_clone().unwrap());
        while let Ok((id, post)) = reader.read::<Post>() {
            let waits = post.path != "/other";
            let status = Some(if waits { 429 } else { 200 });
            let retry_after_seconds = waits.then_some(172_800);
            let posted = Posted { status, error: None, micros: 1, retry_after_seconds };
            if tell.send(post.path).is_err() || frame::write(&mut theirs, id, &posted).is_err() {
                return;
            }
        }
    });
    posts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_asks_to_be_left_alone_is_for_all_of_its_endpoint() {
    let vault = Vault::start().await;
    let id = vault.endpoint().await;
    let rules = WebhookRules { retry_seconds: vec![1, 600], ..(*vault.app.directory.webhooks()).clone() };
    vault.app.directory.set_webhooks(rules);
    let posts = asked_to_wait(&vault);
    let dispatch = tokio::spawn(webhooks::run(Arc::clone(&vault.app)));
    let patience = Duration::from_secs(20);
    assert_eq!(vault.verb(&id, "test", "t-1", "{}").await.status, 202);
    assert_eq!(posts.recv_timeout(patience).unwrap(), "/vault");
    let deliveries = format!("/v1/webhook_endpoints/{id}/deliveries");
    let mut first = serde_json::Value::Null;
    for _ in 0..200 {
        first = vault.get("billing", &deliveries).await.body["data"][0].clone();
        if first["attempts"] == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The first wait of the schedule is a second, its longest ten minutes.
    let next = Time::parse(first["next_attempt_at"].as_str().unwrap()).unwrap();
    let now = vault.clock.now();
    assert!(next > now.plus_seconds(500) && next < now.plus_seconds(700), "{first}");
    assert_eq!((&first["response_status"], &first["status"]), (&429.into(), &"waiting".into()));
    // Another delivery waits as well, without an attempt; where the endpoint moves to nobody asked.
    assert_eq!(vault.verb(&id, "test", "t-2", "{}").await.status, 202);
    assert_eq!(posts.recv_timeout(Duration::from_millis(300)), Err(RecvTimeoutError::Timeout));
    let path = format!("/v1/webhook_endpoints/{id}");
    let moved = r#"{"url":"https://hooks.example/other"}"#;
    assert_eq!(vault.ask("billing", Method::PATCH, &path).json(moved).send().await.status, 200);
    assert_eq!(posts.recv_timeout(patience).unwrap(), "/other");
    dispatch.abort();
}

#[tokio::test]
async fn past_its_cryptoperiod_a_webhook_key_makes_no_new_secret() {
    let vault = Vault::start().await;
    let endpoint = vault.endpoint().await;
    vault.clock.advance_seconds(super::WEBHOOK_KEY_SECONDS);
    let rotated = vault.verb(&endpoint, "rotate_secret", "r-1", "{}").await;
    assert_eq!(rotated.code(), (503, "store_unavailable"));
    let next = super::webhook_keys(vault.clock.now().plus_seconds(1));
    vault.app.keys.set(next);
    let rotated = vault.verb(&endpoint, "rotate_secret", "r-1", "{}").await;
    assert_eq!(rotated.status, 200, "{}", rotated.text);
}
