//! Charges, agreements and answers that are older than their tenants keep them: what is found, and what goes.

use std::collections::{BTreeMap, BTreeSet};

use cardvault::card::id::AgreementId;
use cardvault::clock::{Clock, Time};
use cardvault::edge::store::{
    AgreementRow, CardRow, ChargeFilter, ChargeRow, ChargeStatus, CommitError, KeptBy, Outlived,
    OutlivedPlace, RowChange, Store, StoredAnswer,
};

use crate::harness::*;
use crate::retention::{agreement, hold, put_agreement};

const DAY: i64 = 86_400;

/// All records of tenant ONE that are older than this instant, in pages of two.
async fn outlived(store: &dyn Store, before: Time) -> BTreeSet<(Outlived, Option<KeptBy>)> {
    let limits = BTreeMap::from([(ONE, before)]);
    let (mut found, mut after) = (BTreeSet::new(), Some(OutlivedPlace::START));
    while let Some(place) = after {
        let page = store.outlived(&limits, place, 2).await.unwrap();
        for record in page.records {
            assert!(found.insert(record), "given twice");
        }
        after = page.after;
    }
    found
}

async fn forget(store: &dyn Store, record: Outlived, before: Time) -> Result<(), CommitError> {
    store.commit(change(RowChange::Forget { record, before })).await.map(drop)
}

fn of_charge(charge: &ChargeRow) -> Outlived {
    Outlived::Charge { tenant: charge.tenant, id: charge.id }
}

fn of_agreement(row: &AgreementRow) -> Outlived {
    Outlived::Agreement { tenant: row.tenant, token: row.token, id: row.id }
}

/// A charge that is put, with its answer frozen under a key.
async fn charged(store: &dyn Store, card: &CardRow, (invoice, key): (&str, u8)) -> ChargeRow {
    let charge = make_charge(card, invoice, ChargeStatus::Approved);
    let body = format!(r#"{{"id":"{}","status":"approved","token":"{}"}}"#, charge.id, charge.token);
    let answer = StoredAnswer::Frozen { status: 201, location: None, body: body.into_bytes() };
    let mut change = put(&charge);
    change.idempotency = Some(claim(key, key, None, answer));
    store.commit(change).await.unwrap();
    charge
}

pub(crate) async fn what_is_older_than_it_is_kept_is_found(harness: Harness) {
    let store = harness.open();
    let (card, held) = (make_card(ONE, Some("c")), make_card(ONE, None));
    let card = stored(&*store, card, [1; 32]).await;
    let held = stored(&*store, held, [2; 32]).await;
    let foreign = stored(&*store, make_card(TWO, None), [3; 32]).await;
    let mut charges = Vec::new();
    let statuses =
        [ChargeStatus::Approved, ChargeStatus::Declined, ChargeStatus::Manual, ChargeStatus::Unknown];
    for (number, status) in statuses.into_iter().enumerate() {
        let charge = make_charge(&card, &format!("i-{number}"), status);
        store.commit(put(&charge)).await.unwrap();
        charges.push(charge);
    }
    let of_held = make_charge(&held, "i-8", ChargeStatus::Approved);
    store.commit(put(&of_held)).await.unwrap();
    store.commit(change(hold(&held))).await.unwrap();
    store.commit(put(&make_charge(&foreign, "i-9", ChargeStatus::Approved))).await.unwrap();
    let live = agreement(&card);
    let mut ended = AgreementRow { id: AgreementId::make(NOW).unwrap(), ..agreement(&card) };
    for row in [&live, &ended] {
        put_agreement(&*store, row).await;
    }
    (ended.revision, ended.ended_at) = (2, Some(NOW));
    put_agreement(&*store, &ended).await;

    assert_eq!(outlived(&*store, NOW).await, BTreeSet::new());
    let later = NOW.plus_seconds(1);
    let mut expected = BTreeSet::from([
        (of_charge(&charges[0]), None),
        (of_charge(&charges[1]), None),
        (of_charge(&charges[2]), Some(KeptBy::Open)),
        (of_charge(&charges[3]), Some(KeptBy::Open)),
        (of_charge(&of_held), Some(KeptBy::Hold)),
    ]);
    assert_eq!(outlived(&*store, later).await, expected);
    for kept in [&charges[2], &charges[3], &of_held] {
        assert!(matches!(forget(&*store, of_charge(kept), later).await, Err(CommitError::Conflict)));
    }
    // An agreement outlives its card, and no charge may need the card any more.
    assert!(matches!(forget(&*store, of_agreement(&ended), later).await, Err(CommitError::Conflict)));
    let settled = moved(&charges[3], ChargeStatus::Declined);
    store.commit(put(&settled)).await.unwrap();
    harness.clock.advance_seconds(DAY);
    store.commit(erase(&card)).await.unwrap();
    assert_eq!(outlived(&*store, later).await.len(), 5, "the card was there a moment ago");
    let later = harness.clock.now().plus_seconds(1);
    expected.remove(&(of_charge(&charges[3]), Some(KeptBy::Open)));
    expected.extend([(of_charge(&charges[3]), None), (of_agreement(&ended), None)]);
    let found = outlived(&*store, later).await;
    assert!(found.is_superset(&expected), "{found:?}");
    assert!(!found.contains(&(of_agreement(&live), None)));
    forget(&*store, of_agreement(&ended), later).await.unwrap();
    assert!(matches!(forget(&*store, of_agreement(&ended), later).await, Err(CommitError::NotFound)));
    assert_eq!(store.agreements(ONE, card.token).await.unwrap(), [live]);
}

pub(crate) async fn an_invoice_that_was_charged_stays_taken(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, Some("c")), [1; 32]).await;
    let first = charged(&*store, &card, ("i-1", 1)).await;
    let second = charged(&*store, &card, ("i-2", 2)).await;
    let later = NOW.plus_seconds(1);
    let both = BTreeSet::from([(of_charge(&first), None), (of_charge(&second), None)]);
    assert_eq!(outlived(&*store, later).await, both);
    let foreign = Outlived::Charge { tenant: TWO, id: first.id };
    assert!(matches!(forget(&*store, foreign, later).await, Err(CommitError::NotFound)));
    forget(&*store, of_charge(&first), later).await.unwrap();

    let lists = async |filter: ChargeFilter| store.charges(ONE, &filter, None, 9).await.unwrap().rows.len();
    assert_eq!(store.charge(ONE, &first.id.to_string()).await.unwrap(), None);
    assert_eq!(store.charge(ONE, &first.operations[0].id).await.unwrap(), None);
    assert_eq!(lists(ChargeFilter::default()).await, 1);
    assert_eq!(lists(ChargeFilter { invoice: Some("i-1".into()), ..ChargeFilter::default() }).await, 0);
    assert_eq!(lists(ChargeFilter { customer: Some("c".into()), ..ChargeFilter::default() }).await, 1);
    let again = store.commit(put(&make_charge(&card, "i-1", ChargeStatus::Approved))).await;
    assert!(matches!(again, Err(CommitError::InvoiceTaken { charge }) if charge == first.id), "{again:?}");

    // What was answered about it goes as well, and nothing else.
    let found = outlived(&*store, later).await;
    let answers: Vec<Outlived> = found.into_iter().map(|(record, _)| record).collect();
    let [Outlived::Charge { id, .. }, answer @ Outlived::Answer { .. }] = answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!(id, second.id);
    forget(&*store, answer, later).await.unwrap();
    assert!(matches!(forget(&*store, answer, later).await, Err(CommitError::Conflict)));
    drop(store);
    let store = harness.open();
    let kept = async |key: u8| store.idempotency(ONE, "POST /v1/tokens", &[key; 32]).await.unwrap().unwrap();
    assert_eq!((kept(1).await.answer, kept(1).await.body_mac), (StoredAnswer::Forgotten, Some([1; 32])));
    assert!(matches!(kept(2).await.answer, StoredAnswer::Frozen { .. }));
    assert_eq!(outlived(&*store, later).await, BTreeSet::from([(of_charge(&second), None)]));
}
