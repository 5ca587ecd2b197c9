//! Sealed records: found by the key that they are under, and sealed again in their place.

use cardvault::card::fingerprint::Fingerprint;
use cardvault::card::id::AttemptId;
use cardvault::card::sealed::SealedCard;
use cardvault::edge::store::{
    Bar, CardRow, CommitError, DeclineRow, KeyWatch, OnDuplicate, Resealed, RowChange, SealedRecord, Store,
};

use crate::harness::*;

async fn records(store: &dyn Store) -> Vec<SealedRecord> {
    let (mut all, mut after): (Vec<SealedRecord>, _) = (Vec::new(), None);
    loop {
        let page = store.sealed_records(after, 2).await.unwrap();
        after = page.last().map(|record| record.place);
        let ended = page.len() < 2;
        all.extend(page);
        if ended {
            return all;
        }
    }
}

/// The same fields under another key: other bytes, as long.
fn again(sealed: &SealedCard) -> SealedCard {
    let mut again = sealed.clone();
    let fields = [Some(&mut again.pan), Some(&mut again.expiry), again.zip.as_mut()];
    for field in fields.into_iter().flatten().filter(|field| !field.envelope.is_empty()) {
        field.envelope[4] = 2;
        field.envelope.iter_mut().skip(5).for_each(|byte| *byte ^= 0x55);
    }
    again
}

fn resealed(record: &SealedRecord) -> Resealed {
    Resealed { record: record.clone(), now: again(&record.sealed), fingerprint: None }
}

pub(crate) async fn each_record_comes_once_and_is_sealed_again_in_its_place(harness: Harness) {
    let store = harness.open();
    let mut cards = Vec::new();
    for number in 1..=5 {
        let tenant = if number == 2 { TWO } else { ONE };
        cards.push(stored(&*store, make_card(tenant, Some("c1")), [number; 32]).await);
    }
    let next = CardRow { version: 2, sealed: Some(make_sealed()), ..cards[0].clone() };
    store.commit(update(&next, None)).await.unwrap();
    store.commit(erase(&cards[4])).await.unwrap();
    let found = records(&*store).await;
    // Four cards, then the version before of one of them, which has lost its number.
    assert_eq!(
        found.iter().map(|record| record.place.is_old).collect::<Vec<_>>(),
        [false, false, false, false, true]
    );
    let old = &found[4];
    assert_eq!((old.place.token, old.place.version), (cards[0].token, 1));
    assert!(old.sealed.pan.envelope.is_empty());
    assert_eq!(found.iter().filter(|record| record.tenant == TWO).count(), 1);
    let all: Vec<_> = found.iter().map(resealed).collect();
    store.commit(change(RowChange::Reseal(all))).await.unwrap();
    let after = records(&*store).await;
    let expected: Vec<_> =
        found.iter().map(|record| SealedRecord { sealed: again(&record.sealed), ..record.clone() }).collect();
    assert_eq!(after, expected);
    assert!(after.iter().all(|record| record.sealed.key_ids() == [2]));
    let read = store.card(ONE, cards[0].token).await.unwrap().unwrap();
    assert_eq!((read.version, read.sealed), (2, next.sealed.as_ref().map(again)));
    let before = store.card_version(ONE, cards[0].token, 1).await.unwrap().unwrap();
    assert!(before.sealed.is_some_and(|sealed| sealed.pan.envelope.is_empty() && sealed.key_ids() == [2]));
}

pub(crate) async fn what_changed_meanwhile_is_not_brought_back(harness: Harness) {
    let store = harness.open();
    let (updated, erased) = (
        stored(&*store, make_card(ONE, Some("c1")), [1; 32]).await,
        stored(&*store, make_card(ONE, Some("c2")), [2; 32]).await,
    );
    let untouched = stored(&*store, make_card(ONE, Some("c3")), [3; 32]).await;
    let found = records(&*store).await;
    let next = CardRow { version: 2, sealed: Some(make_sealed()), ..updated.clone() };
    store.commit(update(&next, None)).await.unwrap();
    store.commit(erase(&erased)).await.unwrap();
    // All or nothing, whichever of them it is.
    for gone in [&updated, &erased] {
        let these = found.iter().filter(|r| [gone.token, untouched.token].contains(&r.place.token));
        let refused = store.commit(change(RowChange::Reseal(these.map(resealed).collect()))).await;
        assert!(matches!(refused, Err(CommitError::Conflict)), "{refused:?}");
    }
    let read = |card: &CardRow| store.card(ONE, card.token);
    assert_eq!(read(&untouched).await.unwrap().unwrap().sealed, untouched.sealed);
    assert_eq!(read(&updated).await.unwrap().unwrap().sealed, next.sealed);
    assert_eq!(read(&erased).await.unwrap().unwrap().sealed, None);
}

pub(crate) async fn records_under_watched_keys_are_counted_or_refused(harness: Harness) {
    let store = harness.open();
    let insert = |number: u8| {
        let store = store.clone();
        async move {
            let card = make_card(ONE, None);
            store.commit(insert(&card, [number; 32], OnDuplicate::New)).await.map(|_| card)
        }
    };
    let card = insert(1).await.unwrap();
    assert_eq!(store.watched_seals(), 0);
    store.watch_keys(KeyWatch { counted: vec![1], barred: vec![7], ..KeyWatch::default() });
    insert(2).await.unwrap();
    assert_eq!(store.watched_seals(), 1);
    store.watch_keys(KeyWatch { barred: vec![1], ..KeyWatch::default() });
    let refused = insert(3).await;
    assert!(matches!(refused, Err(CommitError::Unavailable("key_destroyed"))), "{refused:?}");
    let next = CardRow { version: 2, ..card };
    let refused = store.commit(update(&next, None)).await;
    assert!(matches!(refused, Err(CommitError::Unavailable("key_destroyed"))), "{refused:?}");
    // Nor is a record sealed again under it.
    let found = records(&*store).await;
    let back = Resealed {
        record: SealedRecord { sealed: again(&found[0].sealed), ..found[0].clone() },
        now: found[0].sealed.clone(),
        fingerprint: None,
    };
    let refused = store.commit(change(RowChange::Reseal(vec![back]))).await;
    assert!(matches!(refused, Err(CommitError::Unavailable("key_destroyed"))), "{refused:?}");
    store.watch_keys(KeyWatch::default());
    insert(4).await.unwrap();
    assert_eq!(store.watched_seals(), 1);
}

pub(crate) async fn a_number_is_found_under_each_fingerprint_key_that_is_not_destroyed(harness: Harness) {
    let store = harness.open();
    let (old, new) = ([1; 32], [2; 32]);
    let moving = || Fingerprint { key: 8, hash: new, before: vec![old] };
    let put = |card: CardRow, fingerprint: Fingerprint, on_duplicate| {
        let store = store.clone();
        async move {
            let card = Box::new(card);
            store.commit(change(RowChange::InsertCard { card, fingerprint, on_duplicate })).await
        }
    };
    let first = make_card(ONE, Some("c1"));
    let made = put(first.clone(), Fingerprint::under(3, old), OnDuplicate::New).await.unwrap();
    assert_eq!(records(&*store).await[0].fingerprint_key, Some(3));
    let twice = put(make_card(ONE, Some("c1")), moving(), OnDuplicate::ReturnExisting).await;
    assert!(matches!(twice, Err(CommitError::DuplicateCard { token }) if token == first.token), "{twice:?}");
    // Another customer's card of the number has the same fingerprint id, found under the key before.
    let second = make_card(ONE, Some("c2"));
    let other = put(second.clone(), moving(), OnDuplicate::ReturnExisting).await.unwrap();
    assert_eq!(other.fingerprint, made.fingerprint);
    // Who comes with a hash of before would not find that one; another tenant has keys of its own.
    let late = put(make_card(ONE, Some("c2")), Fingerprint::under(3, old), OnDuplicate::ReturnExisting).await;
    assert!(matches!(late, Err(CommitError::FingerprintStale)), "{late:?}");
    put(make_card(TWO, Some("c2")), Fingerprint::under(4, old), OnDuplicate::New).await.unwrap();
    let next = CardRow { version: 2, ..first.clone() };
    let renumber = |card: CardRow, fingerprint| {
        change(RowChange::UpdateCard { card: Box::new(card), fingerprint: Some(fingerprint) })
    };
    let late = store.commit(renumber(next.clone(), Fingerprint::under(3, [5; 32]))).await;
    assert!(matches!(late, Err(CommitError::FingerprintStale)), "{late:?}");
    // The same number under the new key is no other number.
    let same = store.commit(renumber(next, moving())).await.unwrap();
    assert_eq!(same.fingerprint, made.fingerprint);
    // What an account updater says is not said again.
    let by_updater = CardRow { version: 3, number_by_updater: true, ..first.clone() };
    let told = store.commit(renumber(by_updater, Fingerprint::under(3, old))).await.unwrap();
    assert_eq!(told.fingerprint, made.fingerprint);
    let found = records(&*store).await;
    let record =
        |card: &CardRow| found.iter().find(|record| record.place.token == card.token).unwrap().clone();
    assert_eq!([&first, &second].map(|card| record(card).fingerprint_key), [Some(3), Some(8)]);
    let record = record(&first);
    let now = again(&record.sealed);
    let fingerprint = Some(Fingerprint::under(8, new));
    store.commit(change(RowChange::Reseal(vec![Resealed { record, now, fingerprint }]))).await.unwrap();
    let alone = Fingerprint::under(8, new);
    let twice = put(make_card(ONE, Some("c1")), alone.clone(), OnDuplicate::ReturnExisting).await;
    assert!(matches!(twice, Err(CommitError::DuplicateCard { token }) if token == first.token), "{twice:?}");
    let third = put(make_card(ONE, Some("c3")), alone.clone(), OnDuplicate::New).await.unwrap();
    assert_eq!(third.fingerprint, made.fingerprint);
    // Nothing is left where it was: with its last card the number is forgotten.
    let cards: Vec<_> = records(&*store).await.into_iter().filter(|record| record.tenant == ONE).collect();
    for record in cards.iter().filter(|record| !record.place.is_old) {
        let (tenant, token) = (ONE, record.place.token);
        store.commit(change(RowChange::EraseCard { tenant, token, held_seen: false })).await.unwrap();
    }
    let anew = put(make_card(ONE, Some("c1")), moving(), OnDuplicate::ReturnExisting).await.unwrap();
    assert_ne!(anew.fingerprint, made.fingerprint);
}

pub(crate) async fn what_was_counted_of_a_number_stays_while_it_may_be_found_in_two_places(harness: Harness) {
    let store = harness.open();
    let (old, new) = ([1; 32], [2; 32]);
    let mut cards = Vec::new();
    for fingerprint in [Fingerprint::under(3, old), Fingerprint { key: 8, hash: new, before: vec![old] }] {
        let card = make_card(ONE, None);
        let (insert, on_duplicate) = (Box::new(card.clone()), OnDuplicate::New);
        let made = store
            .commit(change(RowChange::InsertCard { card: insert, fingerprint, on_duplicate }))
            .await
            .unwrap();
        cards.push(CardRow { fingerprint: made.fingerprint.unwrap(), ..card });
    }
    let number = cards[0].fingerprint;
    assert_eq!(cards[1].fingerprint, number);
    let decline = DeclineRow {
        fingerprint: number,
        destination: "a".to_owned(),
        by_merchant: true,
        attempt: AttemptId::make(NOW).unwrap(),
        at: NOW,
        bar: Bar::Never,
    };
    store.commit(change(RowChange::CountDecline(Box::new(decline.clone())))).await.unwrap();
    store.watch_keys(KeyWatch { moving: vec![ONE], ..KeyWatch::default() });
    store.commit(erase(&cards[0])).await.unwrap();
    assert_eq!(store.declines(number, "a", true).await.unwrap(), [decline]);
    store.watch_keys(KeyWatch::default());
    store.commit(erase(&cards[1])).await.unwrap();
    assert_eq!(store.declines(number, "a", true).await.unwrap(), []);
}

pub(crate) async fn an_older_key_store_is_told_from_a_newer_one(harness: Harness) {
    let store = harness.open();
    assert_eq!(store.key_generation().await.unwrap(), None);
    for generation in [3, 3, 8] {
        store.commit(change(RowChange::KeyGeneration(generation))).await.unwrap();
        assert_eq!(store.key_generation().await.unwrap(), Some(generation));
    }
    let refused = store.commit(change(RowChange::KeyGeneration(7))).await;
    assert!(matches!(refused, Err(CommitError::Conflict)), "{refused:?}");
    assert_eq!(store.key_generation().await.unwrap(), Some(8));
}
