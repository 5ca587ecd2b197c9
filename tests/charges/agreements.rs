//! Agreements of a card whose number was changed.

use serde_json::{Value, json};

use crate::desk::{Desk, VISA, behaving, refusal, sale, word};

fn consent(network_transaction_id: Option<&str>) -> Value {
    json!({
        "type": "recurring", "consent": {"by": "shopper", "at": "2026-11-01T00:00:00Z"},
        "network_transaction_id": network_transaction_id,
    })
}

fn by(initiator: &str, token: &str, invoice: &str, agreement: &Value) -> Value {
    let mut body = sale(token, invoice);
    body["initiator"] = initiator.into();
    body["agreement"] = agreement["id"].clone();
    body
}

#[tokio::test]
async fn a_new_agreement_of_a_new_number_waits_for_its_customer() {
    let desk = Desk::open();
    let token = desk.token("t-1", VISA).await;
    let (card, path) = (format!("/v1/tokens/{token}"), format!("/v1/tokens/{token}/agreements"));
    // While the number is the first one, an agreement is live at once.
    let first = desk.post(&path, "a-1", &consent(Some("MCC123456"))).await.json();
    assert_eq!(word(&first, "status"), "active");
    let change = json!({"card": {"number": "5555555555554444"}});
    assert_eq!(desk.client.request("PATCH", &card, &[], &change).await.unwrap().status, 200);
    // Neither a new agreement nor the old number's network id makes the merchant's charge possible.
    for (key, id) in [("a-2", None), ("a-3", Some("MCC123456"))] {
        let made = desk.post(&path, key, &consent(id)).await;
        let agreement = made.json();
        assert_eq!((made.status, word(&agreement, "status")), (201, "ended"), "{agreement}");
        assert_eq!(word(&agreement, "ended_reason"), "number_changed");
        let refused = desk.charge(&format!("m-{key}"), &by("merchant", &token, key, &agreement)).await;
        assert_eq!(refusal(&refused), (422, "agreement_required".to_owned()));
        assert_eq!(desk.post(&path, key, &consent(id)).await.body, made.body);
    }
    let unnamed = by("merchant", &token, "inv-1", &Value::Null);
    assert_eq!(refusal(&desk.charge("m-1", &unnamed).await), (422, "agreement_required".to_owned()));
    // The customer's verification under one brings that one to life, and no other.
    let rows = desk.get(&path).await["data"].clone();
    let second = rows.as_array().unwrap().iter().find(|row| row["network_transaction_id"].is_null());
    let second = second.unwrap().clone();
    let verification = json!({"token": token, "destination": "sandbox", "agreement": second["id"]});
    let verified = desk.post("/v1/verifications", "v-1", &verification).await;
    assert_eq!((verified.status, word(&verified.json(), "status")), (201, "approved"));
    let paid = desk.charge("m-2", &by("merchant", &token, "inv-2", &second)).await.json();
    assert_eq!(word(&paid, "status"), "approved", "{paid}");
    // One whose customer paid with the new number elsewhere brings the network's word of it.
    let elsewhere = desk.post(&path, "a-4", &consent(Some("MCC777777"))).await.json();
    assert_eq!(word(&elsewhere, "status"), "active", "{elsewhere}");
}

/// Whichever of the two comes first: no agreement is live with a number that nobody has paid with.
#[tokio::test]
async fn an_agreement_that_is_made_while_the_number_changes_waits_as_well() {
    let desk = Desk::open();
    for round in 0..12 {
        let token = desk.token(&format!("t-{round}"), &behaving(round, 0)).await;
        let (card, path) = (format!("/v1/tokens/{token}"), format!("/v1/tokens/{token}/agreements"));
        let change = json!({"card": {"number": behaving(100 + round, 0)}});
        let (key, consent) = (format!("a-{round}"), consent(None));
        let (changed, made) = tokio::join!(
            desk.client.request("PATCH", &card, &[], &change),
            desk.post(&path, &key, &consent),
        );
        assert_eq!((changed.unwrap().status, made.status), (200, 201));
        let rows = desk.get(&path).await["data"].clone();
        assert_eq!((rows.as_array().unwrap().len(), word(&rows[0], "status")), (1, "ended"), "{rows}");
        assert_eq!(word(&rows[0], "ended_reason"), "number_changed");
    }
}
