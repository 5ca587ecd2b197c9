//! The log: order, proofs, durability.

use cardvault::attest::merkle::{leaf_hash, verify_consistency, verify_inclusion};
use cardvault::edge::audit::read::OwnedLeaf;
use cardvault::edge::store::{CardRow, Change, CommitError, OnDuplicate, Store};

use crate::harness::*;

pub(crate) async fn events_are_numbered_without_gaps(harness: Harness) {
    let store = harness.open();
    let tasks: Vec<_> = (0..50_u8)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let tenant =
                    if number % 3 == 0 { None } else { Some(if number % 3 == 1 { ONE } else { TWO }) };
                let events = vec![event(tenant, "test.first"), event(None, "test.second")];
                let last = events[1].id;
                let committed = store.commit(Change { events, ..Change::default() }).await.unwrap();
                (last, committed.grant.seq)
            })
        })
        .collect();
    let mut grants = Vec::new();
    for task in tasks {
        grants.push(task.await.unwrap());
    }
    let all = store.events(None, 0, 1_000).await.unwrap();
    assert_eq!(all.iter().map(|event| event.seq).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    for (id, seq) in grants {
        assert_eq!(store.event(id).await.unwrap().unwrap().seq, seq);
    }
    assert_eq!(store.events(None, 40, 7).await.unwrap(), all[40..47]);
    let of_two = store.events(Some(TWO), 10, 1_000).await.unwrap();
    let expected: Vec<_> =
        all.iter().filter(|event| event.tenant == Some(TWO) && event.seq >= 10).cloned().collect();
    assert_eq!(of_two, expected);
    assert_eq!(store.event(event(None, "none").id).await.unwrap(), None);
    assert_chain(&*store, 100).await;
}

pub(crate) async fn refused_changes_leave_no_event(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, None), [7; 32]).await;
    let stale = CardRow { version: 5, ..card.clone() };
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let (store, stale) = (store.clone(), stale.clone());
            tokio::spawn(async move {
                if number % 2 == 0 {
                    store.commit(update(&stale, None)).await.is_ok()
                } else {
                    store.commit(insert(&make_card(TWO, None), [number; 32], OnDuplicate::New)).await.is_ok()
                }
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += u64::from(task.await.unwrap());
    }
    assert_eq!(done, 10);
    assert_chain(&*store, 1 + done).await;
}

pub(crate) async fn proofs_hold_against_the_head(harness: Harness) {
    let store = harness.open();
    let empty = store.tree_head().await.unwrap();
    assert_eq!(empty.0, 0);
    let mut heads = Vec::new();
    for _ in 0..14 {
        let events = (0..50).map(|_| event(Some(ONE), "test.leaf")).collect();
        store.commit(Change { events, ..Change::default() }).await.unwrap();
        heads.push(store.tree_head().await.unwrap());
    }
    let (size, root) = *heads.last().unwrap();
    assert_eq!(size, 700);
    for seq in [0, 1, 255, 256, 511, 512, 699] {
        let leaf = store.events(None, seq, 1).await.unwrap().remove(0).leaf;
        let path = store.inclusion_proof(seq, size).await.unwrap();
        assert!(verify_inclusion(seq, size, &leaf_hash(&leaf), &path, &root));
    }
    for (old, old_root) in &heads {
        let path = store.consistency_proof(*old, size).await.unwrap();
        assert!(verify_consistency(*old, old_root, size, &root, &path));
    }
    assert!(store.inclusion_proof(700, 700).await.is_err());
}

pub(crate) async fn appended_events_become_durable_by_themselves(harness: Harness) {
    let store = harness.open();
    for _ in 0..3 {
        store.append_events(vec![event(Some(ONE), "card.read"), event(None, "card.read")]).unwrap();
    }
    for _ in 0..100 {
        if store.tree_head().await.unwrap().0 == 6 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_chain(&*store, 6).await;
    assert_eq!(store.health().event_lag_ms, 0);
    // What is queued when the store is dropped is kept.
    store.append_events(vec![event(None, "card.read")]).unwrap();
    drop(store);
    assert_chain(&*harness.open(), 7).await;
}

pub(crate) async fn checkpoints_are_kept(harness: Harness) {
    let store = harness.open();
    assert_eq!(store.checkpoint().await.unwrap(), None);
    store.put_checkpoint(3, "three".into()).await.unwrap();
    store.put_checkpoint(9, "nine".into()).await.unwrap();
    drop(store);
    assert_eq!(harness.open().checkpoint().await.unwrap().as_deref(), Some("nine"));
}

pub(crate) async fn a_reopened_store_goes_on_where_it_was(harness: Harness) {
    let mut cards = Vec::new();
    for round in 0..4_u8 {
        let store = harness.open();
        for number in 0..40_u8 {
            let card = make_card(if number % 2 == 0 { ONE } else { TWO }, Some("c1"));
            let mut hash = [number; 32];
            hash[0] = round;
            let kept = stored(&*store, card, hash).await;
            cards.push((kept, hash));
        }
        for (card, hash) in &cards {
            assert_eq!(store.card(card.tenant, card.token).await.unwrap().as_ref(), Some(card));
            let again = make_card(card.tenant, Some("c1"));
            let refused = store.commit(insert(&again, *hash, OnDuplicate::ReturnExisting)).await;
            assert!(matches!(refused, Err(CommitError::DuplicateCard { token }) if token == card.token));
        }
        assert_chain(&*store, cards.len() as u64).await;
    }
}

/// Every leaf follows from the one before it, in the log and in its tenant's.
pub(crate) async fn assert_chain(store: &dyn Store, size: u64) {
    assert_eq!(store.tree_head().await.unwrap().0, size);
    let events = store.events(None, 0, usize::MAX).await.unwrap();
    assert_eq!(events.len() as u64, size);
    let sha256 = |bytes: &[u8]| cardvault::attest::merkle::sha256(bytes);
    let mut prev = [0; 32];
    let mut tenants = std::collections::HashMap::new();
    for (event, seq) in events.iter().zip(0..) {
        let leaf = OwnedLeaf::read(&event.leaf).unwrap();
        assert_eq!((event.seq, leaf.seq, leaf.prev, leaf.id), (seq, seq, prev, event.id));
        prev = sha256(&event.leaf);
        assert_eq!(leaf.tenant.map(|place| place.tenant), event.tenant);
        if let Some(place) = leaf.tenant {
            let (next, before) = tenants.insert(place.tenant, (place.seq + 1, prev)).unwrap_or((0, [0; 32]));
            assert_eq!((place.seq, place.prev), (next, before));
        }
    }
}
