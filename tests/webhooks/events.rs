//! Each event arrives, signed, with what it is about; nothing that a body must not hold is in one.

use cardvault::clock::{Clock, SystemClock};
use cardvault::tools::client::Payload;
use serde_json::{Value, json};

use crate::common::{card, text};
use crate::desk::{Desk, VISA, behaving, word};
use crate::receiver::Arrived;

#[tokio::test]
async fn each_event_arrives_signed_and_in_the_order_of_its_object() {
    let desk = Desk::open("[1, 1]", "");
    let (_, secret) = desk.endpoint("/all", &["*"]).await;
    let (_, of_refunds) = desk.endpoint("/refunds", &["refund.*"]).await;

    // A card: changed, suspended, made active, with an agreement that ends, and erased in the end.
    let token = desk.token("t-1", VISA).await;
    let path = format!("/v1/tokens/{token}");
    let consent = json!({"type": "recurring", "consent": {"by": "x", "at": "2026-11-01T00:00:00Z"}});
    let agreement = desk.post(&format!("{path}/agreements"), "agr", &consent).await.json();
    let paid = desk.charge(&token, "inv-1").await;
    assert_eq!(word(&paid, "status"), "approved");
    let refund = desk.post(&format!("/v1/charges/{}/refunds", word(&paid, "id")), "rf", &json!({})).await;
    assert_eq!(refund.status, 201, "{}", text(&refund));
    let declined = desk.token("t-2", &behaving(1, 900)).await;
    assert_eq!(word(&desk.charge(&declined, "inv-2").await, "status"), "declined");
    for body in [
        json!({"card": {"exp_month": 11, "exp_year": 2033}}),
        json!({"status": "suspended"}),
        json!({"status": "active"}),
    ] {
        let answer = desk.send("PATCH", &path, &body).await;
        assert_eq!(answer.status, 200, "{}", text(&answer));
    }
    let run = invoice_run(&desk, &token).await;
    let end = format!("{path}/agreements/{}/end", word(&agreement, "id"));
    assert_eq!(desk.post(&end, "end", &json!({})).await.status, 200);
    assert_eq!(desk.send("DELETE", &path, &Value::Null).await.status, 200);
    // An answer that is lost: unknown first, then found out.
    let lost = desk.token("t-3", &behaving(2, 971)).await;
    let lost = desk.charge(&lost, "inv-3").await;

    let wanted = |kind: &str, id: &Value| (kind.to_owned(), id.as_str().unwrap().to_owned());
    let token_id = Value::from(token.as_str());
    let wanted = [
        wanted("charge.approved", &paid["id"]),
        wanted("refund.approved", &refund.json()["id"]),
        wanted("token.updated", &token_id),
        wanted("token.suspended", &token_id),
        wanted("token.erased", &token_id),
        wanted("agreement.ended", &agreement["id"]),
        wanted("run.finished", &run["id"]),
        wanted("charge.unknown", &lost["id"]),
        wanted("charge.approved", &lost["id"]),
    ];
    let told = |one: &Arrived| (one.kind(), word(&one.body()["object"], "id").to_owned());
    let all = desk
        .arrived("/all", |all| {
            let told: Vec<_> = all.iter().map(told).collect();
            wanted.iter().all(|one| told.contains(one))
                && told.iter().any(|(kind, _)| kind == "charge.declined")
        })
        .await;
    for one in &all {
        check(&desk, one, &secret).await;
    }
    // The sequence puts the events of one object in order, whichever arrived first.
    let mut of_card: Vec<_> = all.iter().map(|one| one.body()).collect();
    of_card.retain(|body| body["object"]["id"] == token_id);
    of_card.sort_by_key(|body| body["sequence"].as_u64());
    let kinds: Vec<_> = of_card.iter().map(|body| word(body, "type")).collect();
    assert_eq!(kinds, ["token.updated", "token.suspended", "token.updated", "token.erased"]);
    let numbers: Vec<_> = of_card.iter().map(|body| body["sequence"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");

    let refunds = desk.arrived("/refunds", |all| !all.is_empty()).await;
    assert!(refunds.iter().all(|one| one.kind().starts_with("refund.")));
    assert!(refunds.iter().all(|one| one.signed_with(&of_refunds) == 1 && one.signed_with(&secret) == 0));
}

/// A message is signed, fresh, whole, can be read again, and holds nothing that it must not.
async fn check(desk: &Desk, one: &Arrived, secret: &str) {
    assert_eq!((one.signed_with(secret), one.signatures()), (1, 1));
    let body = one.body();
    assert_eq!(one.id(), word(&body, "id"));
    assert!(one.id().starts_with("msg_") && one.header("content-type") == "application/json");
    let at: i64 = one.header("webhook-timestamp").parse().unwrap();
    assert!((0..120).contains(&(SystemClock.now().seconds() - at)));
    assert_eq!(body["data"]["id"], body["object"]["id"]);
    let again = desk.client.get(&format!("/v1/webhook_events/{}", one.id())).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&again.body), one.text);
    for never in [VISA, "424242", "468738", "c-secret", "secret words", "exp_month"] {
        assert!(!one.text.contains(never), "{}", one.kind());
    }
}

/// A run of one line, once it is over.
async fn invoice_run(desk: &Desk, token: &str) -> Value {
    let line = json!({
        "token": token, "amount": 300, "currency": "USD", "invoice": "run-1", "initiator": "customer",
        "destination": "sandbox",
    });
    let body = format!("{line}\n").into_bytes();
    let headers = [("idempotency-key", "run"), ("content-type", "application/x-ndjson")];
    let path = "/v1/invoice_runs?lines=1&sum=USD:300";
    let run = desk.client.request("POST", path, &headers, Payload::Bytes(&body)).await.unwrap();
    assert!(matches!(run.status, 201 | 202), "{}", text(&run));
    let path = format!("/v1/invoice_runs/{}", word(&run.json(), "id"));
    desk.until_at(&path, "finished", |run| run["state"] == "finished").await
}

#[tokio::test]
async fn a_card_that_ends_soon_is_told_of_once() {
    let mut desk = Desk::open("[1]", "");
    let (id, _) = desk.endpoint("/expiring", &["token.expiring"]).await;
    let (year, month) = SystemClock.now().year_month();
    desk.token("later", &behaving(5, 0)).await;
    // A look comes with each start; the second finds one card more, and of the first it has told.
    let mut soon = Vec::new();
    for n in 1..=2 {
        let mut body = card(&behaving(5 + n, 0), "c-1");
        body["card"]["exp_month"] = month.into();
        body["card"]["exp_year"] = year.into();
        soon.push(crate::common::store(&desk.client, &format!("soon-{n}"), &body).await["id"].clone());
        desk.vault.stop();
        desk.vault.serve();
        desk.reconnect();
        desk.arrived("/expiring", |all| all.iter().any(|one| one.body()["object"]["id"] == soon[n - 1]))
            .await;
        // What one look tells is one commit.
        let told = desk.get(&format!("/v1/webhook_endpoints/{id}/deliveries")).await;
        assert_eq!(told["data"].as_array().unwrap().len(), n, "{told}");
    }
}
