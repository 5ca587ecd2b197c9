//! Refunds at a processor that wants the card for them.

use cardvault::tools::client::{Answer, Payload};
use serde_json::{Value, json};

use crate::common::{count_of, events};
use crate::desk::{Desk, VISA, behaving, refusal, sale, word};

async fn erase(desk: &Desk, token: &str, query: &str) -> Answer {
    let path = format!("/v1/tokens/{token}{query}");
    desk.client.request("DELETE", &path, &[], Payload::None).await.unwrap()
}

async fn refund(desk: &Desk, key: &str, charge: &Value, body: &Value) -> Answer {
    desk.post(&format!("/v1/charges/{}/refunds", word(charge, "id")), key, body).await
}

#[tokio::test]
async fn an_erase_says_first_which_refunds_would_need_the_card() {
    let of_card = "[op.refund]\nheader.X-Card = \"{card.last4} {card.exp_month|mm}/{card.exp_year|yy}\"";
    let mut desk = Desk::open_with(|text| text.replacen("[op.refund]", of_card, 1));
    let assessor = desk.vault.assessor();
    let token = desk.token("t-1", VISA).await;
    let paid = desk.charge("k-1", &sale(&token, "inv-1")).await.json();
    let part = refund(&desk, "k-2", &paid, &json!({"amount": 100})).await;
    assert_eq!((part.status, word(&part.json(), "status")), (201, "approved"));
    // A new expiry leaves the number that was charged.
    let patch = json!({"card": {"exp_month": 11, "exp_year": 2033}});
    let patched =
        desk.client.request("PATCH", &format!("/v1/tokens/{token}"), &[], Payload::Json(&patch)).await;
    assert_eq!(patched.unwrap().status, 200);
    let part = refund(&desk, "k-3", &paid, &json!({"amount": 100})).await;
    assert_eq!((part.status, word(&part.json(), "status")), (201, "approved"));

    let refused = erase(&desk, &token, "").await;
    assert_eq!(refusal(&refused), (409, "refunds_need_card".to_owned()));
    assert_eq!(refused.json()["destinations"], json!(["sandbox"]));
    assert_eq!(refused.json()["subject"], paid["id"]);
    assert_eq!(desk.get(&format!("/v1/tokens/{token}")).await["status"], "active");
    assert_eq!(refusal(&erase(&desk, &token, "?forgo_refunds=yes").await).0, 400);
    // Given back whole, nothing needs it any more.
    assert_eq!(refund(&desk, "k-4", &paid, &json!({})).await.status, 201);
    assert_eq!(erase(&desk, &token, "").await.status, 200);
    assert_eq!(erase(&desk, &token, "").await.status, 200);

    // Whoever means it says so; then the refund is gone.
    let token = desk.token("t-2", &behaving(1, 0)).await;
    let paid = desk.charge("k-5", &sale(&token, "inv-2")).await.json();
    assert_eq!(word(&paid, "status"), "approved", "{paid}");
    assert_eq!(refusal(&erase(&desk, &token, "").await), (409, "refunds_need_card".to_owned()));
    assert_eq!(erase(&desk, &token, "?forgo_refunds=true").await.status, 200);
    assert_eq!(refusal(&refund(&desk, "k-6", &paid, &json!({})).await), (410, "token_erased".to_owned()));
    // What goes elsewhere needs nothing.
    let token = desk.token("t-3", &behaving(2, 0)).await;
    let mut elsewhere = sale(&token, "inv-3");
    elsewhere["destination"] = "stripe_sandbox".into();
    assert_eq!(desk.charge("k-7", &elsewhere).await.json()["status"], "approved");
    assert_eq!(erase(&desk, &token, "").await.status, 200);
    // Each of the card's openings for a refund is in the log.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let all = events(&assessor).await;
    assert_eq!(count_of(&all, "refund.send"), 3);
    let opened = |event: &&Value| event["action"] == "refund.send" && event["facts"]["opening"].is_object();
    assert_eq!(all.iter().filter(opened).count(), 3);
    desk.vault.stop();
    let (code, said) = desk.vault.verify();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_refund_with_the_card_is_refused_once_its_number_changed() {
    let desk = Desk::open_with(|text| {
        text.replacen("[op.refund]", "[op.refund]\nheader.X-Card = \"{card.last4}\"", 1)
    });
    let token = desk.token("t-1", VISA).await;
    let paid = desk.charge("k-1", &sale(&token, "inv-1")).await.json();
    let patch = json!({"card": {"number": behaving(3, 0), "exp_month": 11, "exp_year": 2033}});
    let patched =
        desk.client.request("PATCH", &format!("/v1/tokens/{token}"), &[], Payload::Json(&patch)).await;
    assert_eq!(patched.unwrap().status, 200);
    let refused = refund(&desk, "k-2", &paid, &json!({})).await;
    assert_eq!(refusal(&refused), (422, "required_by_connector".to_owned()));
    assert_eq!(refused.json()["param"], "card.number");
}
