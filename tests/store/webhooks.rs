//! Webhooks: what a change tells, that it is there with the change or not at all, who hears it, and when it is forgotten.

use cardvault::card::id::{EndpointId, NoticeId};
use cardvault::card::tenant::TenantId;
use cardvault::edge::store::webhooks::{Attempted, DeliveryState, EndpointRow, WebhookChange};
use cardvault::edge::store::{
    Change, ChargeStatus, CommitError, OnDuplicate, OperationKind, RowChange, Store,
};

use crate::harness::{Harness, NOW, ONE, TWO, change, insert, make_card, make_charge, moved, put};

fn make_endpoint(tenant: TenantId, events: &[&str]) -> EndpointRow {
    EndpointRow {
        id: EndpointId::make(NOW).unwrap(),
        tenant,
        revision: 1,
        url: "https://hooks.example.com/".to_owned(),
        events: events.iter().map(|event| (*event).to_owned()).collect(),
        description: None,
        enabled: true,
        disabled_reason: None,
        generation: 1,
        key: Some(1),
        previous_until: None,
        previous_key: None,
        failing_since: None,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn webhook(row: WebhookChange) -> Change {
    change(RowChange::Webhook(row))
}

fn put_endpoint(row: &EndpointRow) -> Change {
    webhook(WebhookChange::Put(Box::new(row.clone())))
}

/// The names of what waits for an endpoint, oldest first, with the ids.
async fn told(store: &dyn Store, row: &EndpointRow) -> Vec<(String, NoticeId)> {
    let page = store.webhook_deliveries((row.tenant, row.id), None, None, 100).await.unwrap();
    page.rows.into_iter().rev().map(|one| (one.kind, one.notice)).collect()
}

fn names(told: &[(String, NoticeId)]) -> Vec<&str> {
    told.iter().map(|(kind, _)| kind.as_str()).collect()
}

pub(crate) async fn each_status_of_a_charge_and_its_refunds_is_told_once(harness: Harness) {
    let store = harness.open();
    let row = make_endpoint(ONE, &["*"]);
    store.commit(put_endpoint(&row)).await.unwrap();
    let card = make_card(ONE, None);
    store.commit(insert(&card, [1; 32], OnDuplicate::New)).await.unwrap();
    let mut charge = make_charge(&card, "inv-1", ChargeStatus::Processing);
    store.commit(put(&charge)).await.unwrap();
    for status in [
        ChargeStatus::Unknown,
        ChargeStatus::Unknown,
        ChargeStatus::Pending,
        ChargeStatus::Manual,
        ChargeStatus::Authorized,
        ChargeStatus::Approved,
    ] {
        charge = moved(&charge, status);
        store.commit(put(&charge)).await.unwrap();
    }
    charge = moved(&charge, ChargeStatus::Approved);
    charge.amount_captured += 1;
    store.commit(put(&charge)).await.unwrap();
    charge = moved(&charge, ChargeStatus::Approved);
    let mut refund = charge.operations[0].clone();
    refund.id = "rf_1".to_owned();
    refund.kind = OperationKind::Refund;
    refund.status = ChargeStatus::Processing;
    let mut undoing = refund.clone();
    undoing.id = "rf_2".to_owned();
    undoing.undoes = true;
    charge.operations.extend([refund, undoing]);
    store.commit(put(&charge)).await.unwrap();
    charge = moved(&charge, ChargeStatus::Approved);
    charge.operations[1].status = ChargeStatus::Declined;
    store.commit(put(&charge)).await.unwrap();
    let all = told(&*store, &row).await;
    let wanted = [
        "charge.unknown",
        "charge.pending",
        "charge.manual",
        "charge.authorized",
        "charge.approved",
        "charge.captured",
        "refund.processing",
        "refund.declined",
    ];
    assert_eq!(names(&all), wanted);
    let mut last = 0;
    for (_, id) in &all {
        let body = store.webhook_notice(ONE, *id).await.unwrap().unwrap().body;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let sequence = body["sequence"].as_u64().unwrap();
        assert!(sequence > last, "{body}");
        last = sequence;
        assert!(store.webhook_notice(TWO, *id).await.unwrap().is_none());
    }
}

pub(crate) async fn what_is_told_is_there_with_its_change_or_not_at_all(harness: Harness) {
    let store = harness.open();
    let (all, off) = (make_endpoint(ONE, &["*"]), make_endpoint(ONE, &["*"]));
    let (others, some) = (make_endpoint(TWO, &["*"]), make_endpoint(ONE, &["token.erased"]));
    for row in [&all, &EndpointRow { enabled: false, ..off.clone() }, &others, &some] {
        store.commit(put_endpoint(row)).await.unwrap();
    }
    let card = make_card(ONE, None);
    store.commit(insert(&card, [1; 32], OnDuplicate::New)).await.unwrap();
    // Refused after it has written: the charge's second invoice is taken.
    let good = make_charge(&card, "inv-1", ChargeStatus::Approved);
    store.commit(put(&good)).await.unwrap();
    let mut bad = put(&make_charge(&card, "inv-2", ChargeStatus::Approved));
    bad.rows.extend(put(&make_charge(&card, "inv-1", ChargeStatus::Approved)).rows);
    let refused = store.commit(bad).await;
    assert!(matches!(refused, Err(CommitError::InvoiceTaken { .. })), "{refused:?}");
    // An endpoint that a refused change made hears nothing.
    let ghost = make_endpoint(ONE, &["*"]);
    let mut both = put_endpoint(&ghost);
    both.rows.extend(put(&make_charge(&card, "inv-1", ChargeStatus::Approved)).rows);
    assert!(store.commit(both).await.is_err());
    store.commit(put(&make_charge(&card, "inv-3", ChargeStatus::Declined))).await.unwrap();
    drop(store);
    let store = harness.open();
    assert_eq!(names(&told(&*store, &all).await), ["charge.approved", "charge.declined"]);
    for row in [&off, &others, &some, &ghost] {
        assert!(told(&*store, row).await.is_empty(), "{row:?}");
    }
    assert_eq!(store.webhook_endpoints().await.unwrap().len(), 4);
    let stale = store.commit(put_endpoint(&all)).await;
    assert!(matches!(stale, Err(CommitError::Conflict)));
}

pub(crate) async fn a_delivery_waits_is_settled_once_and_forgotten_in_its_time(harness: Harness) {
    let store = harness.open();
    let row = make_endpoint(ONE, &["charge.*"]);
    store.commit(put_endpoint(&row)).await.unwrap();
    let card = make_card(ONE, None);
    store.commit(insert(&card, [1; 32], OnDuplicate::New)).await.unwrap();
    for n in 0..3 {
        let charge = make_charge(&card, &format!("inv-{n}"), ChargeStatus::Approved);
        store.commit(put(&charge)).await.unwrap();
    }
    let of = (ONE, row.id);
    let due = store.webhooks_due(of, NOW, 10).await.unwrap();
    assert_eq!(due.len(), 3);
    let attempted = |state, due_in: i64, at: usize| {
        webhook(WebhookChange::Attempted(Box::new(Attempted {
            tenant: ONE,
            endpoint: row.id,
            notice: due[at].notice,
            state,
            due: NOW.plus_seconds(due_in),
            attempts: 1,
            at: NOW,
            status: Some(500),
            error: None,
            micros: 7,
        })))
    };
    store.commit(attempted(DeliveryState::Waiting, 60, 0)).await.unwrap();
    store.commit(attempted(DeliveryState::Delivered, 0, 1)).await.unwrap();
    // What was settled stays so, whoever comes late.
    store.commit(attempted(DeliveryState::Failed, 0, 1)).await.unwrap();
    let ids = |due: Vec<cardvault::edge::store::Due>| due.iter().map(|d| d.notice).collect::<Vec<_>>();
    assert_eq!(ids(store.webhooks_due(of, NOW, 10).await.unwrap()), [due[2].notice]);
    let later = NOW.plus_seconds(61);
    assert_eq!(ids(store.webhooks_due(of, later, 10).await.unwrap()), [due[2].notice, due[0].notice]);
    let page = store.webhook_deliveries(of, Some(DeliveryState::Delivered), None, 10).await.unwrap();
    assert_eq!(page.rows.iter().map(|one| one.notice).collect::<Vec<_>>(), [due[1].notice]);
    let again = vec![due[1].notice, NoticeId::make(NOW).unwrap()];
    let again = WebhookChange::Redeliver { tenant: ONE, endpoint: row.id, notices: again };
    store.commit(webhook(again)).await.unwrap();
    assert_eq!(store.webhooks_due(of, NOW, 10).await.unwrap().len(), 2);
    store.commit(webhook(WebhookChange::Prune(NOW))).await.unwrap();
    assert_eq!(told(&*store, &row).await.len(), 3);
    store.commit(webhook(WebhookChange::Prune(NOW.plus_seconds(1)))).await.unwrap();
    assert!(told(&*store, &row).await.is_empty());
    assert!(store.webhook_notice(ONE, due[0].notice).await.unwrap().is_none());
    let delete = WebhookChange::Delete { tenant: TWO, endpoint: row.id };
    assert!(matches!(store.commit(webhook(delete)).await, Err(CommitError::NotFound)));
    let delete = WebhookChange::Delete { tenant: ONE, endpoint: row.id };
    store.commit(webhook(delete)).await.unwrap();
    assert!(store.webhook_endpoints().await.unwrap().is_empty());
}
