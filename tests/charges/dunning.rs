//! Retries on a schedule: a new attempt under a new key on the same charge, for as long as the schedule and the networks allow.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::{Vault, count_of, events, text};
use crate::desk::{Desk, VISA, behaving, refusal, sale, word};

fn open(retries: &str) -> Desk {
    let settings = format!("\n[retries]\n{retries}\n");
    Desk::at(Vault::start_with(|config| config + &settings))
}

fn is_over(charge: &Value) -> bool {
    word(&charge["retries"], "status") == "ended"
}

fn keys_of(desk: &Desk, invoice: &str) -> BTreeSet<String> {
    let ledger = desk.ledger();
    let of_it = ledger.iter().filter(|entry| entry["invoice"] == invoice && entry["kind"] == "sale");
    of_it.map(|entry| word(entry, "idempotency_key").to_owned()).collect()
}

#[tokio::test]
async fn a_soft_decline_is_tried_again_on_its_schedule() {
    let desk = open("soft = [\"1s\", \"2s\"]");
    let (_, mut body) = desk.merchants("poor", &behaving(1, 902)).await;
    body["retry"] = "schedule".into();
    let first = desk.charge("k-1", &body).await;
    let charge = first.json();
    assert_eq!((first.status, word(&charge, "status")), (201, "declined"), "{charge}");
    assert_eq!((word(&charge["retries"], "status"), &charge["retries"]["made"]), ("scheduled", &0.into()));
    assert!(charge["next_attempt_at"].is_string(), "{charge}");
    // The invoice is claimed for as long as the schedule runs.
    let other = desk.charge("k-2", &body).await;
    assert_eq!(refusal(&other), (409, "in_flight".to_owned()));
    let over = desk.until(word(&charge, "id"), "over", is_over).await;
    assert_eq!((word(&over["retries"], "reason"), &over["retries"]["made"]), ("schedule_over", &2.into()));
    let attempts = over["attempts"].as_array().unwrap();
    let ids: BTreeSet<String> = attempts.iter().map(|attempt| word(attempt, "id").to_owned()).collect();
    assert_eq!((attempts.len(), over["next_attempt_at"].is_null()), (3, true), "{over}");
    assert_eq!(keys_of(&desk, "poor"), ids, "each attempt has a key of its own");
    // What was answered first is what is replayed; and the invoice is free again.
    assert_eq!(desk.charge("k-1", &body).await.body, first.body);
    assert_eq!(desk.charge("k-3", &body).await.status, 201);
}

#[tokio::test]
async fn a_new_card_is_tried_at_once_and_its_customer_is_asked_first() {
    let desk = open("soft = [\"1h\"]");
    let (token, mut body) = desk.merchants("renewed", &behaving(1, 902)).await;
    body["retry"] = "schedule".into();
    let charge = desk.charge("k-1", &body).await.json();
    let id = word(&charge, "id").to_owned();
    let agreement = word(&charge, "agreement").to_owned();
    // A new number ends the agreement: only the customer brings it back.
    let number = json!({"card": {"number": VISA, "exp_month": 12, "exp_year": 2031}});
    assert_eq!(desk.patch(&token, &number).await.status, 200);
    desk.until(&id, "waiting", |charge| word(&charge["retries"], "status") == "waiting").await;
    assert!(desk.paid("renewed").is_empty());
    let verification = json!({"token": token, "destination": "sandbox", "agreement": agreement});
    let verified = desk.post("/v1/verifications", "v-1", &verification).await;
    assert_eq!(verified.json()["status"], "approved", "{}", text(&verified));
    let paid = desk.until(&id, "over", is_over).await;
    assert_eq!((word(&paid, "status"), word(&paid["retries"], "reason")), ("approved", "paid"), "{paid}");
    assert_eq!((desk.paid("renewed").len(), paid["attempts"].as_array().unwrap().len()), (1, 2));
    assert_eq!(paid["amount_captured"], 1250);
}

#[tokio::test]
async fn wrong_data_waits_for_a_card_update_and_a_hard_decline_for_nothing() {
    let mut desk = open("default = \"schedule\"\nsoft = [\"1s\"]");
    let (token, body) = desk.merchants("expired", &behaving(1, 920)).await;
    let charge = desk.charge("k-1", &body).await.json();
    assert_eq!(word(&charge["retries"], "status"), "waiting", "{charge}");
    assert!(charge["next_attempt_at"].is_null());
    let expiry = json!({"card": {"exp_month": 6, "exp_year": 2032}});
    assert_eq!(desk.patch(&token, &expiry).await.status, 200);
    let twice = |charge: &Value| {
        charge["attempts"].as_array().unwrap().len() == 2 && !charge["network_rule"].is_null()
    };
    let again = desk.until(word(&charge, "id"), "tried again", twice).await;
    assert_eq!(
        (word(&again["retries"], "status"), word(&again, "status")),
        ("waiting", "declined"),
        "{again}"
    );
    // What changes nothing of the card moves nothing.
    assert_eq!(desk.patch(&token, &json!({"metadata": {"a": "b"}})).await.status, 200);
    for (suffix, reason) in [(910, "network_rule"), (930, "customer_needed"), (940, "risk")] {
        let key = format!("hard-{suffix}");
        let (_, body) = desk.merchants(&key, &behaving(2, suffix)).await;
        let charge = desk.charge(&key, &body).await.json();
        assert_eq!(
            (word(&charge["retries"], "status"), word(&charge["retries"], "reason")),
            ("ended", reason)
        );
    }
    // A schedule is the merchant's: with the customer there is none, whatever the default.
    let mut by_customer = sale(&token, "by-customer");
    assert!(desk.charge("c-1", &by_customer).await.json().get("retries").is_none());
    by_customer["invoice"] = "by-customer-2".into();
    by_customer["retry"] = "schedule".into();
    let refused = desk.charge("c-2", &by_customer).await;
    assert_eq!(
        (refusal(&refused), word(&refused.json(), "param")),
        ((422, "invalid_value".to_owned()), "retry")
    );
    let (_, mut body) = desk.merchants("not-this-one", &behaving(3, 902)).await;
    body["retry"] = "none".into();
    assert!(desk.charge("n-1", &body).await.json().get("retries").is_none());
    let still = desk.get(&format!("/v1/charges/{}", word(&charge, "id"))).await;
    assert_eq!(still["attempts"].as_array().unwrap().len(), 2);
    desk.vault.stop();
    let (code, said) = desk.vault.verify();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_schedule_is_stopped_by_hand_and_by_what_takes_the_card_away() {
    // Long before it would be due.
    let desk = open("soft = [\"1h\"]");
    let assessor = desk.vault.assessor();
    let mut ids = Vec::new();
    for (at, name) in ["stopped", "suspended", "erased", "ended"].into_iter().enumerate() {
        let (token, mut body) = desk.merchants(name, &behaving(at, 902)).await;
        body["retry"] = "schedule".into();
        let charge = desk.charge(name, &body).await.json();
        assert_eq!(word(&charge["retries"], "status"), "scheduled", "{charge}");
        ids.push((word(&charge, "id").to_owned(), token, word(&charge, "agreement").to_owned()));
    }
    let delete = async |path: &str| desk.client.request("DELETE", path, &[], None).await.unwrap();
    let retries = format!("/v1/charges/{}/retries", ids[0].0);
    for _ in 0..2 {
        let stopped = delete(&retries).await;
        assert_eq!((stopped.status, word(&stopped.json()["retries"], "reason")), (200, "stopped"));
        assert!(stopped.json()["next_attempt_at"].is_null());
    }
    assert_eq!(desk.patch(&ids[1].1, &json!({"status": "suspended"})).await.status, 200);
    assert_eq!(delete(&format!("/v1/tokens/{}", ids[2].1)).await.status, 200);
    let end = format!("/v1/tokens/{}/agreements/{}/end", ids[3].1, ids[3].2);
    assert_eq!(desk.post(&end, "end", &json!({})).await.status, 200);
    for ((id, ..), reason) in
        ids.iter().zip(["stopped", "token_suspended", "token_erased", "agreement_ended"])
    {
        let over = desk.until(id, "over", is_over).await;
        assert_eq!(word(&over["retries"], "reason"), reason, "{over}");
        assert_eq!(over["attempts"].as_array().unwrap().len(), 1, "{over}");
    }
    assert_eq!(count_of(&events(&assessor).await, "charge.retry"), 4);
    let plain = desk.charge("plain", &sale(&desk.token("t-plain", VISA).await, "plain")).await.json();
    let none = delete(&format!("/v1/charges/{}/retries", word(&plain, "id"))).await;
    assert_eq!(refusal(&none), (409, "charge_state".to_owned()));
    let reader = desk.vault.application("reader", "acme", &["charges:read"]);
    let refused = reader.request("DELETE", &retries, &[], None).await.unwrap();
    assert_eq!(refusal(&refused), (403, "scope_missing".to_owned()));
}

#[tokio::test]
async fn a_schedule_outlives_the_vault() {
    let mut desk = open("soft = [\"2s\"]");
    let (token, mut body) = desk.merchants("survivor", &behaving(1, 902)).await;
    body["retry"] = "schedule".into();
    let charge = desk.charge("k-1", &body).await.json();
    let (_, mut expired) = desk.merchants("expired", &behaving(2, 920)).await;
    expired["retry"] = "schedule".into();
    let waiting = desk.charge("k-2", &expired).await.json();
    assert_eq!(word(&waiting["retries"], "status"), "waiting", "{waiting}");
    desk.vault.kill();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    desk.vault.serve();
    desk.reconnect();
    let over = desk.until(word(&charge, "id"), "over", is_over).await;
    assert_eq!((word(&over["retries"], "reason"), &over["retries"]["made"]), ("schedule_over", &1.into()));
    assert_eq!(keys_of(&desk, "survivor").len(), 2);
    let still = desk.get(&format!("/v1/charges/{}", word(&waiting, "id"))).await;
    assert_eq!(word(&still["retries"], "status"), "waiting", "{still} {token}");
}
