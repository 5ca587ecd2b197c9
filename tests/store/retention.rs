//! Cards of no use to anybody: what keeps one, and its erasure.

use std::collections::BTreeMap;

use cardvault::card::id::{AgreementId, Token};
use cardvault::clock::{Clock, Time};
use cardvault::edge::store::{
    AgreementRow, CardRow, CardStatus, ChargeStatus, CommitError, IdleCard, Plan, Retries, RetryState,
    RowChange, Store,
};

use crate::harness::*;

const DAY: i64 = 86_400;

/// All idle cards of tenant ONE, as of this instant, in pages of two.
async fn idle(store: &dyn Store, before: Time) -> Vec<IdleCard> {
    let (limits, mut found, mut after) = (BTreeMap::from([(ONE, before)]), Vec::new(), None);
    loop {
        let page = store.idle_cards(&limits, after, 2).await.unwrap();
        found.extend(page.cards);
        after = page.after;
        if after.is_none() {
            return found;
        }
    }
}

pub(crate) fn agreement(card: &CardRow) -> AgreementRow {
    AgreementRow {
        id: AgreementId::make(NOW).unwrap(),
        tenant: card.tenant,
        token: card.token,
        kind: "recurring".into(),
        consent_by: "customer".into(),
        consent_at: NOW,
        consent_text_sha256: None,
        network_transaction_id: None,
        transaction_link_id: None,
        created_at: NOW,
        ended_at: None,
        ended_reason: None,
        revision: 1,
        first_payments: BTreeMap::new(),
    }
}

pub(crate) async fn put_agreement(store: &dyn Store, row: &AgreementRow) {
    store.commit(change(RowChange::PutAgreement(Box::new(row.clone())))).await.unwrap();
}

pub(crate) fn hold(card: &CardRow) -> RowChange {
    RowChange::SetLegalHold {
        tenant: card.tenant,
        token: card.token,
        held: true,
        reference: "case-1".to_owned(),
        others_seen: false,
        status_seen: CardStatus::Active,
        erase_asked_seen: false,
    }
}

pub(crate) async fn a_card_is_idle_since_the_latest_of_creation_use_and_agreement(harness: Harness) {
    let store = harness.open();
    let mut cards = Vec::new();
    for number in 0..5 {
        cards.push(stored(&*store, make_card(ONE, Some("c")), [number; 32]).await);
    }
    let foreign = stored(&*store, make_card(TWO, None), [9; 32]).await;
    let [untouched, used, declined, agreed, ended] = &cards[..] else { panic!() };
    harness.clock.advance_seconds(10 * DAY);
    let at_ten = harness.clock.now();
    store.commit(put(&make_charge(used, "i-1", ChargeStatus::Approved))).await.unwrap();
    store.commit(put(&make_charge(declined, "i-2", ChargeStatus::Declined))).await.unwrap();
    put_agreement(&*store, &agreement(agreed)).await;
    let mut over = agreement(ended);
    put_agreement(&*store, &over).await;
    over.revision = 2;
    over.ended_at = Some(NOW.plus_seconds(4 * DAY));
    put_agreement(&*store, &over).await;

    let since = async |before: Time| {
        let found = idle(&*store, before).await;
        assert!(found.iter().all(|card| card.tenant == ONE && !card.held));
        found.into_iter().map(|card| (card.token, card.since)).collect::<BTreeMap<Token, Time>>()
    };
    let of = |list: &[(&CardRow, i64)]| -> BTreeMap<Token, Time> {
        list.iter().map(|(card, days)| (card.token, NOW.plus_seconds(days * DAY))).collect()
    };
    assert_eq!(since(NOW).await, of(&[]));
    let old = [(untouched, 0), (declined, 0)];
    assert_eq!(since(NOW.plus_seconds(1)).await, of(&old));
    assert_eq!(since(NOW.plus_seconds(4 * DAY + 1)).await, of(&[old[0], old[1], (ended, 4)]));
    // One with a live agreement is never idle.
    assert_eq!(since(at_ten.plus_seconds(1)).await, of(&[old[0], old[1], (ended, 4), (used, 10)]));
    assert_eq!(store.card(TWO, foreign.token).await.unwrap().unwrap().status, CardStatus::Active);
    drop(store);
    let store = harness.open();
    assert_eq!(idle(&*store, at_ten.plus_seconds(1)).await.len(), 4);
}

pub(crate) async fn a_card_that_a_retry_is_to_use_is_not_idle(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, None), [1; 32]).await;
    let mut charge = make_charge(&card, "i-1", ChargeStatus::Declined);
    let state = RetryState::Scheduled(NOW.plus_seconds(DAY));
    let retries = Retries { state, made: 0, until: NOW.plus_seconds(30 * DAY) };
    charge.plan = Some(Box::new(Plan { retries: Some(retries), route: None }));
    store.commit(put(&charge)).await.unwrap();
    assert_eq!(idle(&*store, NOW.plus_seconds(DAY)).await, []);
}

pub(crate) async fn what_is_idle_no_more_is_not_erased(harness: Harness) {
    let store = harness.open();
    let before = NOW.plus_seconds(5 * DAY);
    let mut cards = Vec::new();
    for number in 0..4 {
        cards.push(stored(&*store, make_card(ONE, None), [number; 32]).await);
    }
    let found = idle(&*store, before).await;
    assert_eq!(found.len(), 4);
    harness.clock.advance_seconds(6 * DAY);
    let of = |card: &CardRow| *found.iter().find(|idle| idle.token == card.token).unwrap();
    let erase_idle =
        async |card: &CardRow| store.commit(change(RowChange::EraseIdle { card: of(card), before })).await;
    // Used, agreed to, or held between the look and the erasure.
    store.commit(put(&make_charge(&cards[0], "i-1", ChargeStatus::Approved))).await.unwrap();
    put_agreement(&*store, &agreement(&cards[1])).await;
    store.commit(change(hold(&cards[2]))).await.unwrap();
    for card in &cards[..3] {
        assert!(matches!(erase_idle(card).await, Err(CommitError::Conflict)));
        assert_eq!(store.card(ONE, card.token).await.unwrap().unwrap().status, CardStatus::Active);
    }
    let left = idle(&*store, before).await;
    assert_eq!(left.iter().map(|card| (card.token, card.held)).collect::<Vec<_>>().len(), 2);
    assert!(left.iter().any(|card| card.token == cards[2].token && card.held));
    erase_idle(&cards[3]).await.unwrap();
    assert_eq!(store.card(ONE, cards[3].token).await.unwrap().unwrap().status, CardStatus::Erased);
    assert!(matches!(erase_idle(&cards[3]).await, Err(CommitError::Conflict)));
    assert!(store.erasure(cards[3].token).await.unwrap().is_some());
    let foreign = IdleCard { tenant: TWO, ..of(&cards[2]) };
    let refused = store.commit(change(RowChange::EraseIdle { card: foreign, before })).await;
    assert!(matches!(refused, Err(CommitError::NotFound)));
}
