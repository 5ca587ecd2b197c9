//! The card networks' rules after a decline: shown on the charge, and a hard guard for what the merchant charges.

use cardvault::clock::Time;
use serde_json::json;

use crate::common::{run, text};
use crate::desk::{Desk, behaving, refusal, sale, word};

#[tokio::test]
async fn what_the_network_forbids_is_not_sent_for_a_merchant() {
    let mut desk = Desk::open();
    let lost = behaving(1, 910);
    let (token, body) = desk.merchants("lost", &lost).await;
    let first = desk.charge("k-1", &body).await.json();
    assert_eq!((word(&first, "status"), word(&first, "decline_class")), ("declined", "hard"));
    assert_eq!(word(&first["network_rule"], "retry"), "never", "{first}");
    let sent = desk.ledger().len();
    let mut second = body.clone();
    second["invoice"] = "lost-2".into();
    let refused = desk.charge("k-2", &second).await;
    assert_eq!(refusal(&refused), (422, "network_rule".to_owned()), "{}", text(&refused));
    assert_eq!((word(&refused.json(), "outbound"), &refused.json()["retry_at"]), ("not_sent", &json!(null)));
    // The number is what is meant: another token of it is no way around.
    let (_, of_another) = desk.merchants("lost-again", &lost).await;
    assert_eq!(refusal(&desk.charge("k-3", &of_another).await), (422, "network_rule".to_owned()));
    assert_eq!(desk.ledger().len(), sent);
    // Another merchant account, and the customer's own try, have counters of their own.
    let mut elsewhere = second.clone();
    elsewhere["destination"] = "stripe_sandbox".into();
    assert_eq!(desk.charge("k-4", &elsewhere).await.status, 201);
    assert_eq!(desk.charge("k-5", &sale(&token, "by-customer")).await.status, 201);
    // It is not forgotten.
    desk.vault.kill();
    desk.vault.serve();
    desk.reconnect();
    assert_eq!(refusal(&desk.charge("k-6", &second).await), (422, "network_rule".to_owned()));
}

#[tokio::test]
async fn a_time_before_which_nothing_is_tried_is_said() {
    let desk = Desk::open();
    let (_, mut body) = desk.merchants("later", &behaving(1, 906)).await;
    let first = desk.charge("k-1", &body).await.json();
    let rule = &first["network_rule"];
    assert_eq!((word(rule, "retry"), word(&first, "decline_class")), ("after", "soft"), "{first}");
    let at = Time::parse(word(rule, "retry_after")).unwrap();
    let finished = Time::parse(word(&first["attempts"][0], "finished_at")).unwrap();
    assert_eq!(at, finished.plus_seconds(86_400));
    body["invoice"] = "later-2".into();
    let refused = desk.charge("k-2", &body).await;
    assert_eq!(refusal(&refused), (422, "network_rule".to_owned()));
    assert_eq!(word(&refused.json(), "retry_at"), at.to_string());
}

#[tokio::test]
async fn a_stop_ends_the_agreement_until_the_customer_agrees_anew() {
    let desk = Desk::open();
    let (token, mut body) = desk.merchants("stop", &behaving(1, 913)).await;
    assert_eq!(word(&desk.charge("k-1", &body).await.json()["network_rule"], "retry"), "never");
    let listed = desk.get(&format!("/v1/tokens/{token}/agreements")).await;
    assert_eq!(word(&listed["data"][0], "ended_reason"), "network_stop", "{listed}");
    body["invoice"] = "stop-2".into();
    assert_eq!(refusal(&desk.charge("k-2", &body).await), (422, "agreement_required".to_owned()));
    let new = desk.agree(&token, "another").await;
    body["agreement"] = new.into();
    let sent = desk.charge("k-3", &body).await;
    assert_eq!((sent.status, word(&sent.json(), "status")), (201, "declined"), "{}", text(&sent));
}

#[tokio::test]
async fn twenty_reattempts_of_a_visa_card_are_the_most() {
    let desk = Desk::open();
    let (_, mut body) = desk.merchants("often", &behaving(1, 902)).await;
    for n in 0..21 {
        body["invoice"] = format!("often-{n}").into();
        let charge = desk.charge(&format!("k-{n}"), &body).await;
        assert_eq!((charge.status, word(&charge.json(), "status")), (201, "declined"), "{n}");
    }
    body["invoice"] = "once-too-often".into();
    let refused = desk.charge("k-last", &body).await;
    assert_eq!(refusal(&refused), (422, "network_rule".to_owned()));
    assert!(Time::parse(word(&refused.json(), "retry_at")).is_some(), "{}", text(&refused));
}

/// A customer with many invoices in one run: what is under way may be declined as well.
#[tokio::test]
async fn many_at_once_stay_within_the_limit_too() {
    let desk = Desk::open();
    let (_, body) = desk.merchants("run", &behaving(1, 902)).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..40 {
        let (client, mut body) = (desk.client.clone(), body.clone());
        body["invoice"] = format!("run-{n}").into();
        tasks.spawn(async move { client.post("/v1/charges", &format!("k-{n}"), &body).await.unwrap() });
    }
    let answers = tasks.join_all().await;
    let refused = answers.iter().filter(|answer| answer.status == 422).count();
    let declined = answers.iter().filter(|answer| answer.status == 201).count();
    let other = answers.iter().find(|answer| !matches!(answer.status, 201 | 422)).map(text);
    assert_eq!((declined, refused), (21, 19), "{other:?}");
    assert_eq!(desk.ledger().iter().filter(|entry| entry["kind"] == "sale").count(), 21);
    // A good card takes them all.
    let (_, body) = desk.merchants("good", &behaving(2, 0)).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..40 {
        let (client, mut body) = (desk.client.clone(), body.clone());
        body["invoice"] = format!("good-{n}").into();
        tasks.spawn(async move { client.post("/v1/charges", &format!("g-{n}"), &body).await.unwrap() });
    }
    for answer in tasks.join_all().await {
        assert_eq!((answer.status, word(&answer.json(), "status")), (201, "approved"), "{}", text(&answer));
    }
}

#[test]
fn the_code_table_is_printed_from_the_data() {
    let (code, said) = run(&["codes", "--list", "mastercard_advice"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.lines().any(|line| line.contains("25") && line.contains("after 24 h")), "{said}");
    let (code, said) = run(&["codes", "--json"]);
    assert_eq!(code, 0);
    let lines: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(
        lines.len() > 100 && lines.iter().all(|line| line["source"].as_str().is_some_and(|s| s.len() > 5))
    );
    let (code, said) = run(&["codes", "--list", "nobody"]);
    assert!(code == 1 && said.contains("iso8583"), "{said}");
}
