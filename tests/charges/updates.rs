//! What an account updater says in the answer of a charge: the card is the new one from then on, its agreements stand, and what dies
//! on the way leaves it whole.

use serde_json::{Value, json};

use crate::common::numbers::complete;
use crate::common::{Vault, events, text};
use crate::desk::{Desk, behaving, refusal, sale, word};

/// Suffixes of the sandbox's numbers.
const CHANGED: u32 = 950;
const CHANGED_DECLINED: u32 = 951;
const EXPIRY: u32 = 952;
const CLOSED: u32 = 953;
const CONTACT: u32 = 954;

/// The number that the sandbox gives in the place of such a one.
fn new_number(sequence: usize) -> String {
    complete(&format!("468738{sequence:06}000"))
}

fn last4(number: &str) -> &str {
    &number[number.len() - 4..]
}

async fn card_of(desk: &Desk, token: &str) -> Value {
    desk.get(&format!("/v1/tokens/{token}")).await
}

async fn agreements_of(desk: &Desk, token: &str) -> Value {
    desk.get(&format!("/v1/tokens/{token}/agreements")).await["data"].clone()
}

/// Last four digits, expiry year and version.
fn shown(card: &Value) -> (&str, u64, u64) {
    let year = card["card"]["exp_year"].as_u64().unwrap();
    (word(&card["card"], "last4"), year, card["version"].as_u64().unwrap())
}

/// Last four digits of what the processor was asked to charge for an invoice.
fn charged(desk: &Desk, invoice: &str) -> Vec<String> {
    let ledger = desk.ledger();
    let sales = ledger.iter().filter(|e| e["invoice"] == invoice && e["kind"] == "sale");
    sales.map(|entry| word(entry, "last4").to_owned()).collect()
}

fn updates(events: &[Value]) -> Vec<&Value> {
    events.iter().filter(|e| e["action"] == "card.update").collect()
}

#[tokio::test]
async fn a_new_number_is_the_next_version_and_the_agreements_stand() {
    let mut desk = Desk::open();
    let assessor = desk.vault.assessor();
    let (old, new) = (behaving(7, CHANGED), new_number(7));
    let (token, body) = desk.merchants("renewed", &old).await;
    let before = card_of(&desk, &token).await;
    // With the customer there nobody asks the updater.
    let mut first = sale(&token, "by-customer");
    first["agreement"] = agreements_of(&desk, &token).await[0]["id"].clone();
    let by_customer = desk.charge("c-1", &first).await.json();
    assert_eq!(word(&by_customer, "status"), "approved", "{by_customer}");
    assert_eq!(shown(&card_of(&desk, &token).await), (last4(&old), 2030, 1));

    let paid = desk.charge("m-1", &body).await.json();
    assert_eq!(word(&paid, "status"), "approved", "{paid}");
    let card = card_of(&desk, &token).await;
    assert_eq!(shown(&card), (last4(&new), 2033, 2));
    assert_ne!(card["fingerprint"], before["fingerprint"]);
    assert_eq!((&card["customer"], &card["status"]), (&before["customer"], &before["status"]));
    let agreement = agreements_of(&desk, &token).await[0].clone();
    assert_eq!(word(&agreement, "status"), "active", "{agreement}");
    assert!(agreement["network_transaction_id"].is_string(), "{agreement}");
    // The next charge goes out with the new card, and under the same agreement.
    let mut later = body.clone();
    later["invoice"] = "next".into();
    let next = desk.charge("m-2", &later).await;
    assert_eq!(word(&next.json(), "status"), "approved", "{}", text(&next));
    assert_eq!(next.json()["agreement"], agreement["id"]);
    assert_eq!(charged(&desk, "renewed"), [last4(&old)]);
    assert_eq!(charged(&desk, "next"), [last4(&new)]);
    assert_eq!(shown(&card_of(&desk, &token).await).2, 2, "an approving number changes nothing");
    // An agreement that is made now is live at once: the customer's account is the one that paid.
    let second = desk.agree(&token, "second").await;
    let rows = agreements_of(&desk, &token).await;
    assert!(rows.as_array().unwrap().iter().all(|row| word(row, "status") == "active"), "{second}: {rows}");

    let log = events(&assessor).await;
    let told = updates(&log);
    assert_eq!(told.len(), 1);
    let (event, attempt) = (told[0], &paid["attempts"][0]["id"]);
    assert_eq!(event["actor"], json!({"type": "system", "id": "account_updater"}));
    assert_eq!((&event["facts"]["attempt"], word(&event["facts"], "note")), (attempt, "sandbox"), "{event}");
    assert_eq!(event["facts"]["fields"], json!(["number", "expiry"]));
    assert_eq!((word(&event["target"], "id"), &event["target"]["version"]), (token.as_str(), &2.into()));
    // A caller's own change ends them, as it always did.
    let change = json!({"card": {"number": "5555555555554444"}});
    assert_eq!(desk.patch(&token, &change).await.status, 200);
    let rows = agreements_of(&desk, &token).await;
    assert!(
        rows.as_array().unwrap().iter().all(|row| word(row, "ended_reason") == "number_changed"),
        "{rows}"
    );
    let third = desk.agree(&token, "third").await;
    let rows = agreements_of(&desk, &token).await;
    let waits = rows.as_array().unwrap().iter().find(|row| row["id"] == third.as_str()).unwrap();
    assert_eq!(word(waits, "status"), "ended", "{waits}");
    desk.vault.stop();
    let (code, said) = desk.vault.verify();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_new_expiry_is_stored_and_a_number_changes_where_it_was_charged() {
    let desk = Desk::open();
    let assessor = desk.vault.assessor();
    let (token, body) = desk.merchants("expiry", &behaving(8, EXPIRY)).await;
    let before = card_of(&desk, &token).await;
    assert_eq!(word(&desk.charge("m-1", &body).await.json(), "status"), "approved");
    let card = card_of(&desk, &token).await;
    assert_eq!(shown(&card), (last4(&behaving(8, EXPIRY)), 2033, 2));
    assert_eq!(card["fingerprint"], before["fingerprint"]);
    assert_eq!(word(&agreements_of(&desk, &token).await[0], "status"), "active");
    let log = events(&assessor).await;
    assert_eq!(updates(&log)[0]["facts"]["fields"], json!(["expiry"]));
    // A number that is on file twice changes where it was charged, and nowhere else.
    let twin = desk.token("twin", &new_number(9)).await;
    let (token, body) = desk.merchants("twice", &behaving(9, CHANGED)).await;
    assert_eq!(word(&desk.charge("m-2", &body).await.json(), "status"), "approved");
    let (card, twin) = (card_of(&desk, &token).await, card_of(&desk, &twin).await);
    assert_eq!((shown(&card).2, shown(&twin).2), (2, 1));
    assert_eq!(card["fingerprint"], twin["fingerprint"], "one number, two tokens");
}

#[tokio::test]
async fn a_closed_account_stops_what_the_merchant_charges() {
    let desk = Desk::at(Vault::start_with(|config| config + "\n[retries]\ngeneric = [\"1h\"]\n"));
    let assessor = desk.vault.assessor();
    for (at, suffix, reason) in [(1, CLOSED, "account_closed"), (2, CONTACT, "contact_cardholder")] {
        let (token, mut body) = desk.merchants(reason, &behaving(at, suffix)).await;
        body["retry"] = "schedule".into();
        let charge = desk.charge(reason, &body).await.json();
        assert_eq!(word(&charge, "status"), "declined", "{charge}");
        let agreement = agreements_of(&desk, &token).await[0].clone();
        assert_eq!((word(&agreement, "status"), word(&agreement, "ended_reason")), ("ended", reason));
        let over = |charge: &Value| word(&charge["retries"], "status") == "ended";
        let charge = desk.until(word(&charge, "id"), "over", over).await;
        assert_eq!(word(&charge["retries"], "reason"), "agreement_ended", "{charge}");
        body["invoice"] = format!("{reason}-next").into();
        let refused = desk.charge(&format!("{reason}-next"), &body).await;
        assert_eq!(refusal(&refused), (422, "agreement_required".to_owned()));
        assert_eq!(shown(&card_of(&desk, &token).await).2, 1);
        let log = events(&assessor).await;
        let ended = log.iter().filter(|e| e["action"] == "agreement.end");
        assert!(ended.into_iter().any(|e| word(&e["facts"], "note") == reason
            && e["target"]["id"] == agreement["id"]
            && e["actor"] == json!({"type": "system", "id": "account_updater"})));
    }
}

#[tokio::test]
async fn a_declined_charge_is_tried_at_once_with_the_new_card() {
    let soft = "\n[retries]\nsoft = [\"1h\"]\n";
    for (at, tries, settings) in
        [(1, true, soft.to_owned()), (2, false, format!("{soft}at_card_update = false\n"))]
    {
        let desk = Desk::at(Vault::start_with(|config| config + &settings));
        let (old, new) = (behaving(at, CHANGED_DECLINED), new_number(at));
        let (token, mut body) = desk.merchants("soon", &old).await;
        body["retry"] = "schedule".into();
        let charge = desk.charge("m-1", &body).await.json();
        assert_eq!(word(&charge, "status"), "declined", "{charge}");
        assert_eq!(shown(&card_of(&desk, &token).await), (last4(&new), 2033, 2));
        assert_eq!(word(&agreements_of(&desk, &token).await[0], "status"), "active");
        if !tries {
            assert_eq!(word(&charge["retries"], "status"), "scheduled", "{charge}");
            assert_eq!(charged(&desk, "soon"), [last4(&old)]);
            continue;
        }
        let over = |charge: &Value| word(&charge["retries"], "status") == "ended";
        let paid = desk.until(word(&charge, "id"), "over", over).await;
        assert_eq!((word(&paid, "status"), word(&paid["retries"], "reason")), ("approved", "paid"), "{paid}");
        assert_eq!((&paid["retries"]["made"], paid["attempts"].as_array().unwrap().len()), (&1.into(), 2));
        assert_eq!(charged(&desk, "soon"), [last4(&old), last4(&new)]);
        assert_eq!(desk.paid("soon").len(), 1);
    }
}

/// An update is committed with its outcome or not at all. The edge finds both with the keeper; where the keeper is gone as well, the
/// charge that nobody knows of is sent again under its key, and the processor says the same again.
#[tokio::test]
async fn whoever_dies_before_the_update_is_stored_leaves_the_card_whole() {
    let mut desk = Desk::open();
    for (at, dies) in [(1, "edge"), (2, "all")] {
        let new = new_number(at);
        let (token, body) = desk.merchants(dies, &behaving(at, CHANGED)).await;
        desk.script(&json!({ "fault": "delay", "count": 1, "operation": "sale" })).await;
        let answer = desk.charge_prefer(dies, "respond-async", &body).await;
        assert_eq!(answer.status, 202, "{}", text(&answer));
        if dies == "edge" {
            desk.vault.kill_role("edge");
        } else {
            desk.vault.kill();
            desk.vault.serve();
        }
        desk.reconnect();
        let charge = desk.settled(&answer).await;
        assert_eq!(word(&charge, "status"), "approved", "{dies}: {charge}");
        assert_eq!((desk.paid(dies).len(), charge["attempts"].as_array().unwrap().len()), (1, 1), "{dies}");
        assert_eq!(shown(&card_of(&desk, &token).await), (last4(&new), 2033, 2), "{dies}");
        assert_eq!(word(&agreements_of(&desk, &token).await[0], "status"), "active", "{dies}");
    }
    desk.vault.stop();
    let (code, said) = desk.vault.verify();
    assert_eq!(code, 0, "{said}");
}

/// A caller who changes the number while the old one is being charged is right, whatever the updater says.
#[tokio::test]
async fn a_card_that_was_changed_meanwhile_keeps_what_its_caller_gave() {
    let desk = Desk::open();
    let assessor = desk.vault.assessor();
    let (token, body) = desk.merchants("meanwhile", &behaving(1, CHANGED)).await;
    desk.script(&json!({ "fault": "delay", "count": 1, "operation": "sale" })).await;
    let answer = desk.charge_prefer("m-1", "respond-async", &body).await;
    assert_eq!(answer.status, 202, "{}", text(&answer));
    let change = json!({"card": {"number": "5555555555554444", "exp_month": 6, "exp_year": 2032}});
    assert_eq!(desk.patch(&token, &change).await.status, 200);
    assert_eq!(word(&desk.settled(&answer).await, "status"), "approved");
    assert_eq!(shown(&card_of(&desk, &token).await), ("4444", 2032, 2));
    let log = events(&assessor).await;
    let refused: Vec<_> = log.iter().filter(|e| e["action"] == "card.update_refused").collect();
    assert_eq!((refused.len(), &refused[0]["outcome"]), (1, &json!({"error": "card_changed"})));
}
