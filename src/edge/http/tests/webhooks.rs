//! Webhook endpoints: a request that is made again does nothing twice, whatever became of its endpoint.

use axum::http::Method;

use super::{Got, Vault};
use crate::card::id::{EndpointId, NoticeId};
use crate::card::tenant::TenantId;
use crate::clock::Clock;
use crate::edge::store::{Attempted, Change, DeliveryState, RowChange, WebhookChange};
use crate::edge::working::Working;
use crate::wire::control::WebhookRules;

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
    let nobody = format!(r#"{{"event":"{}0"}}"#, &one[..one.len() - 1]);
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
