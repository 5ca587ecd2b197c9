//! What a person says of a charge that could not be found out: taken once, with a reason and an event, and only where nobody knows.

use axum::http::Method;
use serde_json::Value;

use super::{Got, Vault, card};
use crate::card::id::{ApprovalId, AttemptId, ChargeId, Token};
use crate::clock::Clock;
use crate::edge::admin;
use crate::edge::charge::tests;
use crate::edge::store::{
    AttemptState, Change, ChargeRow, ChargeStatus, Operation, OperationKind, Outbound, RowChange,
};
use crate::wire::control::{AdminAnswer, AdminCommand, DestinationInfo};
use crate::wire::resolution::{Resolution, ResolveOrder, Word};

impl Vault {
    /// A charge whose own operation stands like this.
    async fn stuck(&self, kind: OperationKind, state: AttemptState, status: ChargeStatus) -> ChargeRow {
        let now = self.clock.now();
        let mut charge = tests::charge(kind, false);
        charge.id = ChargeId::make(now).unwrap();
        charge.invoice = charge.id.to_string();
        charge.token = Token::make(now).unwrap();
        charge.status = status;
        let attempt = &mut charge.operations[0].attempts[0];
        (attempt.id, attempt.state) = (AttemptId::make(now).unwrap(), state);
        attempt.finished_at = Some(now);
        charge.operations[0].status = status;
        charge
    }

    async fn put(&self, charge: &ChargeRow) {
        let rows = vec![RowChange::PutCharge(Box::new(charge.clone()))];
        self.app.store.commit(Change { rows, ..Change::default() }).await.unwrap();
    }

    async fn resolve(&self, who: &str, charge: &ChargeRow, key: &str, body: &str) -> Got {
        let path = format!("/v1/charges/{}/resolve", charge.id);
        self.ask(who, Method::POST, &path).key(key).json(body).send().await
    }
}

const APPROVED: &str = r#"{"outcome":"approved","reason":"seen in the processor's back office","processor_transaction_id":"pay_77"}"#;

#[tokio::test]
async fn a_person_settles_a_charge_once_with_a_reason() {
    let vault = Vault::start().await;
    for (kind, outcome, status, amount) in [
        (OperationKind::Sale, "approved", "approved", 1_000),
        (OperationKind::Authorize, "approved", "authorized", 1_000),
        (OperationKind::Sale, "declined", "declined", 0),
        (OperationKind::Sale, "voided", "voided", 0),
    ] {
        let charge = vault.stuck(kind, AttemptState::Manual, ChargeStatus::Manual).await;
        vault.put(&charge).await;
        let body = APPROVED.replace("approved", outcome);
        let key = format!("k-{kind:?}-{outcome}");
        let settled = vault.resolve("person", &charge, &key, &body).await;
        assert_eq!(
            (settled.status, settled.body["status"].as_str()),
            (201, Some(status)),
            "{}",
            settled.text
        );
        assert_eq!(settled.body["amount_authorized"], amount, "{}", settled.text);
        assert_eq!(settled.body["message"], "seen in the processor's back office");
        assert_eq!(settled.body["processor_transaction_id"], "pay_77");
        assert_eq!(settled.body["expires_at"].is_string(), status == "authorized", "{}", settled.text);
        // The same again is the same answer; another word comes too late.
        let again = vault.resolve("person", &charge, &key, &body).await;
        assert_eq!((again.status, &again.text), (201, &settled.text));
        let reused = vault.resolve("person", &charge, &key, &body.replace("back", "front")).await;
        assert_eq!(reused.code(), (422, "idempotency_key_reused"));
        let late = vault.resolve("person", &charge, &format!("{key}-late"), APPROVED).await;
        assert_eq!(late.code(), (409, "charge_state"));
    }
    let actions = vault.actions().await;
    assert_eq!(actions.iter().filter(|action| *action == "charge.resolve").count(), 4);
    let events = vault.app.store.events(None, 0, 10_000).await.unwrap();
    for event in events {
        let text = String::from_utf8(event.leaf).unwrap();
        assert!(!text.contains("back office"), "what a caller wrote is in no event");
        if text.contains("\"charge.resolve\"") {
            assert!(text.contains("\"person"), "{text}");
        }
    }
}

/// Where two persons are needed no principal settles a charge: the supervisor says what two of them signed, and that counts once.
#[tokio::test]
async fn where_two_are_needed_a_charge_is_settled_by_their_request_once() {
    let vault = Vault::start().await;
    let charge = vault.stuck(OperationKind::Sale, AttemptState::Manual, ChargeStatus::Manual).await;
    vault.put(&charge).await;
    vault.app.directory.set_two_persons(true);
    let refused = vault.resolve("person", &charge, "k", APPROVED).await;
    assert_eq!(refused.code(), (403, "two_persons_required"));
    let id = ApprovalId::make(vault.clock.now()).unwrap();
    let settle = async |tenant: &str, reason: &str| {
        let resolution = Resolution {
            outcome: Word::Declined,
            reason: reason.to_owned(),
            processor_transaction_id: None,
            operation: None,
        };
        let (tenant, charge) = (tenant.to_owned(), charge.id.to_string());
        let order = Box::new(ResolveOrder { tenant, charge, resolution });
        admin::carry_out(&vault.app, AdminCommand::ResolveCharge { order, id, actor: "per_x".to_owned() })
            .await
    };
    for (tenant, reason) in [("globex", "seen"), ("nobody", "seen"), ("acme", "4242424242424242")] {
        assert!(matches!(settle(tenant, reason).await, AdminAnswer::Refused(_)), "{tenant}");
    }
    // A supervisor that could not keep the answer asks once more.
    for _ in 0..2 {
        assert!(matches!(settle("acme", "seen in the back office").await, AdminAnswer::Done(_)));
    }
    let path = format!("/v1/charges/{}", charge.id);
    assert_eq!(vault.get("person", &path).await.body["status"], "declined");
    let events = vault.app.store.events(None, 0, 10_000).await.unwrap();
    let settled = |leaf: &[u8]| String::from_utf8_lossy(leaf).contains("\"charge.resolve\"");
    let settled: Vec<_> = events.iter().filter(|event| settled(&event.leaf)).collect();
    assert_eq!(settled.len(), 1);
    assert!(String::from_utf8_lossy(&settled[0].leaf).contains("per_x"));
}

#[tokio::test]
async fn only_what_nobody_knows_can_be_settled_by_hand() {
    let vault = Vault::start().await;
    let states = [
        (AttemptState::Approved, ChargeStatus::Approved),
        (AttemptState::Declined, ChargeStatus::Declined),
        (AttemptState::Failed, ChargeStatus::Failed),
    ];
    for (state, status) in states {
        let mut charge = vault.stuck(OperationKind::Sale, state, status).await;
        charge.operations[0].attempts[0].transaction_id = Some("pay_1".to_owned());
        vault.put(&charge).await;
        let refused = vault.resolve("person", &charge, "k", APPROVED).await;
        assert_eq!(refused.code(), (409, "charge_state"), "{status:?}");
    }
    let id = vault.create("billing", "t", &card("4242424242424242", "")).await.id();
    let mut lost = vault.stuck(OperationKind::Sale, AttemptState::Unknown, ChargeStatus::Unknown).await;
    lost.token = Token::parse(&id).unwrap();
    vault.put(&lost).await;
    // It is being looked up still.
    assert_eq!(vault.resolve("person", &lost, "early", APPROVED).await.code(), (409, "charge_state"));
    // A send of it may be under way for as long as a processor is waited for.
    vault.clock.advance_seconds(149);
    assert_eq!(vault.resolve("person", &lost, "early", APPROVED).await.code(), (409, "charge_state"));
    vault.clock.advance_seconds(2);
    let settled = vault.resolve("person", &lost, "in-time", APPROVED).await;
    assert_eq!(settled.body["status"], "approved", "{}", settled.text);

    let manual = vault.stuck(OperationKind::Sale, AttemptState::Manual, ChargeStatus::Manual).await;
    vault.put(&manual).await;
    for (body, code, param) in [
        (r#"{"outcome":"approved"}"#, (422, "missing_field"), "reason"),
        (r#"{"outcome":"approved","reason":" "}"#, (422, "invalid_value"), "reason"),
        (r#"{"outcome":"paid","reason":"because"}"#, (422, "invalid_value"), ""),
        (r#"{"outcome":"approved","reason":"card 4242424242424242"}"#, (422, "stray_number"), "reason"),
        (
            r#"{"outcome":"approved","reason":"because","processor_transaction_id":"4242424242424242"}"#,
            (422, "stray_number"),
            "processor_transaction_id",
        ),
        (r#"{"outcome":"approved","reason":"because","operation":"rf_none"}"#, (409, "charge_state"), ""),
    ] {
        let refused = vault.resolve("person", &manual, "k", body).await;
        assert_eq!(refused.code(), code, "{body}");
        assert_eq!(refused.body["param"].as_str().unwrap_or_default(), param, "{body}");
    }
    assert_eq!(vault.resolve("reader", &manual, "k", APPROVED).await.code(), (403, "scope_missing"));
    assert_eq!(vault.resolve("other", &manual, "k", APPROVED).await.code(), (404, "charge_not_found"));
}

#[tokio::test]
async fn what_is_approved_by_hand_without_its_id_says_so_and_takes_it_later() {
    let vault = Vault::start().await;
    vault.app.directory.set_destinations(vec![tests::destination()]);
    let without = r#"{"outcome":"approved","reason":"seen on the statement"}"#;
    for (kind, verb) in [(OperationKind::Sale, "refunds"), (OperationKind::Authorize, "void")] {
        let charge = vault.stuck(kind, AttemptState::Manual, ChargeStatus::Manual).await;
        vault.put(&charge).await;
        let later = |key: &'static str| {
            let path = format!("/v1/charges/{}/{verb}", charge.id);
            vault.ask("person", Method::POST, &path).key(key).json("{}").send()
        };
        let settled = vault.resolve("person", &charge, "k", without).await;
        assert_eq!(settled.body["code"], "transaction_unknown", "{}", settled.text);
        assert_eq!(settled.body["attempts"][0]["error"], "transaction_unknown");
        let refused = later("later").await;
        assert_eq!(refused.code(), (409, "transaction_unknown"), "{}", refused.text);
        assert_eq!((&refused.body["param"], &refused.body["outbound"]), (&Value::Null, &"not_sent".into()));
        for body in [without, &APPROVED.replace("\"approved\"", "\"declined\"")] {
            assert_eq!(vault.resolve("person", &charge, "no", body).await.code(), (409, "charge_state"));
        }
        let added = vault.resolve("person", &charge, "id", APPROVED).await;
        assert_eq!((added.status, &added.body["code"]), (201, &Value::Null), "{}", added.text);
        assert_eq!(added.body["processor_transaction_id"], "pay_77");
        assert_eq!(added.body["message"], "seen in the processor's back office");
        assert_eq!(added.body["status"], settled.body["status"]);
        // With it the request is made; here nobody sends it.
        assert_eq!(later("later").await.code(), (503, "forwarder_down"));
        let another = APPROVED.replace("pay_77", "pay_78");
        assert_eq!(vault.resolve("person", &charge, "two", &another).await.code(), (409, "charge_state"));
    }
    // Where what is done later goes by our own reference, nothing is missing.
    let by_ours = DestinationInfo { later_needs_transaction: false, ..tests::destination() };
    vault.app.directory.set_destinations(vec![by_ours]);
    let charge = vault.stuck(OperationKind::Sale, AttemptState::Manual, ChargeStatus::Manual).await;
    vault.put(&charge).await;
    let settled = vault.resolve("person", &charge, "k", without).await;
    assert_eq!(settled.body["code"], Value::Null, "{}", settled.text);
}

#[tokio::test]
async fn a_refund_and_a_reversal_are_settled_too() {
    let vault = Vault::start().await;
    let with = |kind, state, status| {
        Operation {
            kind,
            id: format!("{}{}", if kind == OperationKind::Refund { "rf_" } else { "op_" }, "x"),
            amount: 400,
            status,
            ..tests::charge(OperationKind::Sale, false).operations[0].clone()
        }
        .with_state(state)
    };
    let mut sold = vault.stuck(OperationKind::Sale, AttemptState::Approved, ChargeStatus::Approved).await;
    (sold.amount_authorized, sold.amount_captured) = (1_000, 1_000);
    sold.operations.push(with(OperationKind::Refund, AttemptState::Manual, ChargeStatus::Manual));
    vault.put(&sold).await;
    let settled = vault.resolve("person", &sold, "k", APPROVED).await;
    assert_eq!(settled.body["amount_refunded"], 400, "{}", settled.text);
    assert_eq!(
        (&settled.body["status"], &settled.body["amount_captured"]),
        (&"approved".into(), &1_000.into())
    );

    // A part that nobody wanted, and whose void was refused: given back by hand, or kept.
    for (outcome, status, captured) in [("voided", "declined", 0), ("approved", "approved", 300)] {
        let mut offered =
            vault.stuck(OperationKind::Sale, AttemptState::Approved, ChargeStatus::Manual).await;
        offered.operations[0].status = ChargeStatus::Approved;
        (offered.amount_offered, offered.amount_authorized) = (Some(300), 300);
        offered.operations.push(with(OperationKind::Void, AttemptState::Declined, ChargeStatus::Declined));
        vault.put(&offered).await;
        let body = APPROVED.replace("approved", outcome);
        let settled = vault.resolve("person", &offered, outcome, &body).await;
        assert_eq!(settled.body["status"], status, "{}", settled.text);
        assert_eq!(settled.body["amount_captured"], captured, "{}", settled.text);
    }
}

impl Operation {
    fn with_state(mut self, state: AttemptState) -> Self {
        for attempt in &mut self.attempts {
            attempt.state = state;
            attempt.outbound = Outbound::Sent;
        }
        self
    }
}
