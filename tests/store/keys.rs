//! Idempotency keys, and the small tables.

use std::collections::BTreeMap;

use cardvault::card::id::{AgreementId, PrincipalId};
use cardvault::card::tenant::Mode;
use cardvault::edge::store::{
    AgreementRow, CardRow, Change, CommitError, Installation, OnDuplicate, PrincipalKind, PrincipalRow,
    RowChange, StoredAnswer, StoredIdempotency, TenantRow,
};

use crate::harness::*;

fn card_answer(card: &CardRow, version: u32) -> StoredAnswer {
    StoredAnswer::Card { token: card.token, version, status: 201 }
}

fn frozen(body: &[u8]) -> StoredAnswer {
    StoredAnswer::Frozen { status: 201, location: Some("/v1/charges/1".into()), body: body.to_vec() }
}

fn reserved() -> StoredAnswer {
    StoredAnswer::Reserved { subject: "ch_1".into() }
}

fn only_key(idempotency: cardvault::edge::store::Idempotency) -> Change {
    Change { idempotency: Some(idempotency), ..Change::default() }
}

pub(crate) async fn a_key_is_claimed_once(harness: Harness) {
    let store = harness.open();
    let card = make_card(ONE, None);
    let mut first = insert(&card, [7; 32], OnDuplicate::New);
    first.idempotency = Some(claim(1, 1, Some(card.token), card_answer(&card, 1)));
    store.commit(first.clone()).await.unwrap();
    let kept = StoredIdempotency { body_mac: Some([1; 32]), answer: card_answer(&card, 1) };
    let read = |key: [u8; 32]| {
        let store = store.clone();
        async move { store.idempotency(ONE, "POST /v1/tokens", &key).await.unwrap() }
    };
    assert_eq!(read([1; 32]).await, Some(kept.clone()));
    assert_eq!(read([2; 32]).await, None);
    assert_eq!(store.idempotency(TWO, "POST /v1/tokens", &[1; 32]).await.unwrap(), None);
    assert_eq!(store.idempotency(ONE, "POST /v1/charges", &[1; 32]).await.unwrap(), None);
    // Whatever comes under the same key changes nothing, with the same body or another.
    for body in [1, 2] {
        let other = make_card(ONE, None);
        let mut again = insert(&other, [8; 32], OnDuplicate::New);
        again.idempotency = Some(claim(1, body, Some(other.token), card_answer(&other, 1)));
        let refused = store.commit(again).await;
        let Err(CommitError::KeyTaken(found)) = refused else { panic!("{refused:?}") };
        assert_eq!(*found, kept);
        assert_eq!(store.card(ONE, other.token).await.unwrap(), None);
    }
    let anonymous = claim(3, 3, None, frozen(b"{}"));
    store.commit(only_key(anonymous)).await.unwrap();
    assert_eq!(read([3; 32]).await.unwrap().body_mac, Some([3; 32]));
}

pub(crate) async fn a_refused_change_claims_nothing(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, Some("c1")), [7; 32]).await;
    let again = make_card(ONE, Some("c1"));
    let mut refused = insert(&again, [7; 32], OnDuplicate::ReturnExisting);
    refused.idempotency = Some(claim(1, 1, Some(again.token), card_answer(&again, 1)));
    assert!(matches!(store.commit(refused).await, Err(CommitError::DuplicateCard { .. })));
    assert_eq!(store.idempotency(ONE, "POST /v1/tokens", &[1; 32]).await.unwrap(), None);
    // A change of several rows goes in whole or not at all, index entries included.
    let other = make_card(ONE, Some("c9"));
    let mut half = insert(&other, [9; 32], OnDuplicate::New);
    let stale = CardRow { version: 7, ..card.clone() };
    half.rows.push(RowChange::UpdateCard { card: Box::new(stale), fingerprint: None });
    half.idempotency = Some(claim(2, 2, Some(other.token), card_answer(&other, 1)));
    assert!(matches!(store.commit(half).await, Err(CommitError::Conflict)));
    assert_eq!(store.card(ONE, other.token).await.unwrap(), None);
    assert!(store.cards_of_customer(ONE, "c9", None, 9).await.unwrap().rows.is_empty());
    assert_eq!(store.idempotency(ONE, "POST /v1/tokens", &[2; 32]).await.unwrap(), None);
    let fresh = make_card(ONE, Some("c9"));
    let committed = store.commit(insert(&fresh, [9; 32], OnDuplicate::ReturnExisting)).await.unwrap();
    assert_eq!(committed.fingerprint, Some(fresh.fingerprint));
}

pub(crate) async fn a_reserved_answer_freezes_once(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, None), [7; 32]).await;
    store.commit(only_key(claim(1, 1, Some(card.token), reserved()))).await.unwrap();
    let again = store.commit(only_key(claim(1, 1, Some(card.token), reserved()))).await;
    assert!(matches!(again, Err(CommitError::KeyTaken(_))));
    let other = store.commit(only_key(claim(1, 2, Some(card.token), frozen(b"no")))).await;
    assert!(matches!(other, Err(CommitError::KeyTaken(_))), "another body froze the answer");
    store.commit(only_key(claim(1, 1, Some(card.token), frozen(b"yes")))).await.unwrap();
    let late = store.commit(only_key(claim(1, 1, Some(card.token), frozen(b"late")))).await;
    let Err(CommitError::KeyTaken(found)) = late else { panic!("{late:?}") };
    assert_eq!(*found, StoredIdempotency { body_mac: Some([1; 32]), answer: frozen(b"yes") });
}

pub(crate) async fn erasing_a_card_takes_its_body_macs(harness: Harness) {
    let store = harness.open();
    let card = make_card(ONE, None);
    let mut first = insert(&card, [7; 32], OnDuplicate::New);
    first.idempotency = Some(claim(1, 1, Some(card.token), card_answer(&card, 1)));
    store.commit(first).await.unwrap();
    let next = CardRow { version: 2, sealed: Some(make_sealed()), ..card.clone() };
    let mut second = update(&next, None);
    second.idempotency = Some(claim(2, 2, Some(card.token), card_answer(&card, 2)));
    store.commit(second).await.unwrap();
    store.commit(only_key(claim(3, 3, Some(card.token), reserved()))).await.unwrap();
    let mac = |key: u8| {
        let store = store.clone();
        async move { store.idempotency(ONE, "POST /v1/tokens", &[key; 32]).await.unwrap().unwrap().body_mac }
    };
    for key in [1, 2, 3] {
        assert_eq!(mac(key).await, Some([key; 32]));
    }
    store.commit(erase(&card)).await.unwrap();
    for key in [1, 2, 3] {
        assert_eq!(mac(key).await, None);
    }
    // The outcome of what was under way is kept all the same; new claims keep no MAC.
    store.commit(only_key(claim(3, 3, Some(card.token), frozen(b"done")))).await.unwrap();
    let kept = store.idempotency(ONE, "POST /v1/tokens", &[3; 32]).await.unwrap().unwrap();
    assert_eq!(kept, StoredIdempotency { body_mac: None, answer: frozen(b"done") });
    store.commit(only_key(claim(4, 4, Some(card.token), frozen(b"gone")))).await.unwrap();
    assert_eq!(mac(4).await, None);
}

pub(crate) async fn rows_of_people_and_tenants_are_kept(harness: Harness) {
    let store = harness.open();
    let mut tenant =
        TenantRow { id: ONE, name: "shop".into(), mode: Mode::Test, disabled: false, created_at: NOW };
    store.commit(change(RowChange::PutTenant(tenant.clone()))).await.unwrap();
    let same_name = TenantRow { id: TWO, ..tenant.clone() };
    let taken = store.commit(change(RowChange::PutTenant(same_name))).await;
    assert!(matches!(taken, Err(CommitError::Conflict)));
    tenant.disabled = true;
    store.commit(change(RowChange::PutTenant(tenant.clone()))).await.unwrap();
    assert_eq!(store.tenants().await.unwrap(), [tenant]);

    let mut principal = PrincipalRow {
        id: PrincipalId::make(NOW).unwrap(),
        name: "billing".into(),
        kind: PrincipalKind::Application,
        tenant: Some(ONE),
        scopes: vec!["tokens:create".into()],
        credentials: vec![([5; 32], None), ([6; 32], Some(NOW))],
        charge_max: BTreeMap::from([("EUR".into(), 100)]),
        day_max: std::collections::BTreeMap::new(),
        created_at: NOW,
        expires_at: None,
        disabled: false,
        destinations: Vec::new(),
    };
    store.commit(change(RowChange::PutPrincipal(Box::new(principal.clone())))).await.unwrap();
    principal.credentials.pop();
    store.commit(change(RowChange::PutPrincipal(Box::new(principal.clone())))).await.unwrap();
    assert_eq!(store.principals().await.unwrap(), [principal]);

    let card = stored(&*store, make_card(ONE, None), [7; 32]).await;
    let mut agreement = AgreementRow {
        id: AgreementId::make(NOW).unwrap(),
        tenant: ONE,
        token: card.token,
        kind: "recurring".into(),
        consent_by: "customer".into(),
        consent_at: NOW,
        consent_text_sha256: None,
        network_transaction_id: Some("MixedCase-_1".into()),
        transaction_link_id: None,
        created_at: NOW,
        ended_at: None,
        ended_reason: None,
        revision: 1,
        first_payments: std::collections::BTreeMap::new(),
    };
    let foreign = AgreementRow { tenant: TWO, ..agreement.clone() };
    let refused = store.commit(change(RowChange::PutAgreement(Box::new(foreign)))).await;
    assert!(matches!(refused, Err(CommitError::NotFound)));
    store.commit(change(RowChange::PutAgreement(Box::new(agreement.clone())))).await.unwrap();
    agreement.ended_at = Some(NOW);
    // What was decided on a row that has changed since does not stand, nor does what skips one.
    for revision in [0, 1, 3] {
        let stale = AgreementRow { revision, ..agreement.clone() };
        let refused = store.commit(change(RowChange::PutAgreement(Box::new(stale)))).await;
        assert!(matches!(refused, Err(CommitError::Conflict)), "{revision}");
    }
    agreement.revision = 2;
    store.commit(change(RowChange::PutAgreement(Box::new(agreement.clone())))).await.unwrap();
    assert_eq!(store.agreements(ONE, card.token).await.unwrap(), [agreement]);
    // What depends on the number and on the agreements there are is decided anew if either changed.
    let seen = |tenant, number, agreements| {
        change(RowChange::SeenAgreements { tenant, token: card.token, number, agreements })
    };
    store.commit(seen(ONE, 1, 1)).await.unwrap();
    for stale in [seen(ONE, 2, 1), seen(ONE, 0, 1), seen(ONE, 1, 0), seen(ONE, 1, 2)] {
        assert!(matches!(store.commit(stale).await, Err(CommitError::Conflict)));
    }
    assert!(matches!(store.commit(seen(TWO, 1, 1)).await, Err(CommitError::NotFound)));
    assert!(store.agreements(TWO, card.token).await.unwrap().is_empty());
}

pub(crate) async fn a_database_is_bound_to_one_installation_for_good(harness: Harness) {
    let store = harness.open();
    assert_eq!(store.installation().await.unwrap(), None);
    let ours = Installation { environment: "00".into(), origin: "i/n".into(), public_key: "11".into() };
    let bind = |to: &Installation| store.commit(change(RowChange::BindInstallation(Box::new(to.clone()))));
    bind(&ours).await.unwrap();
    // Again is nothing new; whatever differs is another.
    bind(&ours).await.unwrap();
    let word = || "22".to_owned();
    for other in [
        Installation { environment: word(), ..ours.clone() },
        Installation { origin: word(), ..ours.clone() },
        Installation { public_key: word(), ..ours.clone() },
    ] {
        assert!(matches!(bind(&other).await, Err(CommitError::Conflict)));
    }
    assert_eq!(store.installation().await.unwrap(), Some(ours.clone()));
    drop(store);
    let store = harness.open();
    assert_eq!(store.installation().await.unwrap(), Some(ours));
    crate::log::assert_chain(&*store, 2).await;
}
