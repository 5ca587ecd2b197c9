//! Retention over a real store with a clock that is moved on.

use std::collections::BTreeMap;

use super::*;
use crate::edge::retention;
use crate::erasure::RetentionConfig;
use crate::wire::control::AdminAnswer;

const VISA: &str = "4242424242424242";
const DAY: i64 = 86_400;

/// Acme keeps cards for thirty days.
async fn start() -> Vault {
    let vault = Vault::start().await;
    let policy = RetentionConfig { days_after_last_agreement: 30, charges_days: Some(540) };
    vault.app.directory.set_retention(BTreeMap::from([("acme".to_owned(), policy)]));
    vault
}

async fn look(vault: &Vault) -> Vec<String> {
    retention::look(&vault.app).await.unwrap();
    let AdminAnswer::Table(mut rows) = retention::report(&vault.app) else { panic!() };
    // Without the time.
    rows.remove(1).split_off(1)
}

async fn status(vault: &Vault, who: &str, id: &str) -> u16 {
    vault.get(who, &format!("/v1/tokens/{id}")).await.status
}

#[tokio::test]
async fn a_card_past_its_limit_is_erased_and_the_log_says_by_which_policy() {
    let vault = start().await;
    let old = vault.create("billing", "k1", &card(VISA, "")).await.id();
    let foreign = vault.create("other", "k1", &card(VISA, "")).await.id();
    let held = vault.create("billing", "k2", &card(VISA, "")).await.id();
    let hold = format!("/v1/tokens/{held}/legal_hold");
    assert_eq!(vault.ask("person", Method::PUT, &hold).send().await.status, 200);
    vault.clock.advance_seconds(30 * DAY - 1);
    let young = vault.create("billing", "k3", &card(VISA, "")).await.id();
    assert_eq!(look(&vault).await, ["1", "0", "0", "0", "0", "0", "0", "0"]);
    vault.clock.advance_seconds(2);
    assert_eq!(look(&vault).await, ["1", "1", "1", "0", "0", "0", "0", "0"]);
    assert_eq!(status(&vault, "billing", &old).await, 410);
    for (who, id) in [("billing", &held), ("billing", &young), ("other", &foreign)] {
        assert_eq!(status(&vault, who, id).await, 200);
    }
    let events = vault.app.store.events(None, 0, 10_000).await.unwrap();
    let erased: Vec<Value> = events
        .iter()
        .map(|event| serde_json::from_slice::<Value>(&event.leaf).unwrap())
        .filter(|event| event["action"] == "card.erase")
        .collect();
    assert_eq!(erased.len(), 1);
    assert_eq!((&erased[0]["target"]["id"], &erased[0]["actor"]["id"]), (&old.into(), &"retention".into()));
    assert_eq!(
        erased[0]["facts"]["fields"],
        serde_json::json!(["days_after_last_agreement=30", "charges_days=540"])
    );
    // What was done is not done again; the hold's end lets the card go.
    assert_eq!(look(&vault).await, ["1", "0", "1", "0", "0", "0", "0", "0"]);
    assert_eq!(vault.ask("person", Method::DELETE, &hold).send().await.status, 200);
    assert_eq!(look(&vault).await, ["1", "1", "0", "0", "0", "0", "0", "0"]);
    let figures = vault.app.metrics.write(&vault.app);
    for line in ["cardvault_retention_overdue 0", "cardvault_retention_erased_total 2"] {
        assert!(figures.lines().any(|found| found == line), "{line}");
    }
}

#[tokio::test]
async fn an_agreement_keeps_a_card_and_its_end_begins_the_time() {
    let vault = start().await;
    let id = vault.create("billing", "k1", &card(VISA, "")).await.id();
    let agreements = format!("/v1/tokens/{id}/agreements");
    let body = r#"{"type":"recurring","consent":{"by":"customer","at":"2026-01-01T00:00:00Z"}}"#;
    let made = vault.ask("billing", Method::POST, &agreements).key("a1").json(body).send().await;
    assert_eq!(made.status, 201, "{}", made.text);
    vault.clock.advance_seconds(400 * DAY);
    assert_eq!(look(&vault).await[1], "0");
    let end = format!("{agreements}/{}/end", made.id());
    let ended = vault.ask("billing", Method::POST, &end).key("a2").json("{}").send().await;
    assert_eq!(ended.status, 200, "{}", ended.text);
    vault.clock.advance_seconds(29 * DAY);
    assert_eq!(look(&vault).await[1], "0");
    vault.clock.advance_seconds(2 * DAY);
    assert_eq!(look(&vault).await[1], "1");
    assert_eq!(status(&vault, "billing", &id).await, 410);
}

#[tokio::test]
async fn an_agreement_outlives_its_card_for_its_own_period() {
    let vault = start().await;
    let id = vault.create("billing", "k1", &card(VISA, "")).await.id();
    let agreements = format!("/v1/tokens/{id}/agreements");
    let body = r#"{"type":"recurring","consent":{"by":"customer","at":"2026-01-01T00:00:00Z"}}"#;
    let made = vault.ask("billing", Method::POST, &agreements).key("a1").json(body).send().await;
    let end = format!("{agreements}/{}/end", made.id());
    assert_eq!(vault.ask("billing", Method::POST, &end).key("a2").json("{}").send().await.status, 200);
    vault.clock.advance_seconds(31 * DAY);
    assert_eq!(look(&vault).await[1], "1");
    vault.clock.advance_seconds(539 * DAY);
    assert_eq!(look(&vault).await[5], "0");
    vault.clock.advance_seconds(2 * DAY);
    // The agreement, and both answers that show it.
    assert_eq!(look(&vault).await[5..], ["3", "0", "0"]);
    assert_eq!(look(&vault).await[5..], ["0", "0", "0"]);
    let forgotten: Vec<String> =
        vault.actions().await.into_iter().filter(|action| action.ends_with(".forget")).collect();
    assert_eq!(forgotten, ["agreement.forget"]);
    let figures = vault.app.metrics.write(&vault.app);
    for line in ["cardvault_retention_records_overdue 0", "cardvault_retention_records_erased_total 3"] {
        assert!(figures.lines().any(|found| found == line), "{line}");
    }
}
