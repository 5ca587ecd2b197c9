//! What an erasure leaves behind: its events, and the keys that have to go.

use cardvault::card::id::{EventId, Token};
use cardvault::card::tenant::TenantId;
use cardvault::edge::audit::read::OwnedLeaf;
use cardvault::edge::store::{ChargeStatus, ErasedKey, KeyMark, KeyWatch, RowChange, Store};
use cardvault::erasure::ErasureTerms;

use crate::harness::*;

const TERMS: ErasureTerms = ErasureTerms { destroy_within_days: 20, key_backups_kept_days: 9 };

fn watch(sealing: &[(TenantId, u32)]) -> KeyWatch {
    KeyWatch { sealing: sealing.to_vec(), terms: TERMS, ..KeyWatch::default() }
}

fn to_go(key: u32, since: i64) -> ErasedKey {
    ErasedKey { key, tenant: ONE, since: NOW.plus_seconds(since), emptied: None, destroyed: None }
}

async fn leaf(store: &dyn Store, id: EventId) -> OwnedLeaf {
    OwnedLeaf::read(&store.event(id).await.unwrap().unwrap().leaf).unwrap()
}

async fn erasure_of(store: &dyn Store, token: Token) -> OwnedLeaf {
    leaf(store, store.erasure(token).await.unwrap().unwrap().event).await
}

pub(crate) async fn an_erasure_names_each_key_that_may_have_sealed_the_card(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, Some("c")), [1; 32]).await;
    let other = stored(&*store, make_card(ONE, None), [2; 32]).await;
    store.watch_keys(watch(&[(ONE, 3), (ONE, 4), (TWO, 5)]));
    assert_eq!(store.erasure(card.token).await.unwrap(), None);
    assert_eq!(store.erased_keys().await.unwrap(), []);
    store.commit(erase(&card)).await.unwrap();
    let told = erasure_of(&*store, card.token).await;
    // Its envelope is under key 1; 3 and 4 may have sealed it at some time, and 5 is another tenant's.
    assert_eq!((told.action.as_str(), &told.keys), ("card.erased", &vec![1, 3, 4]));
    assert_eq!((told.target.id, told.facts.count), (card.token.to_string(), Some(1)));
    assert_eq!(ErasureTerms::from_words(&told.facts.fields), Some(TERMS));
    assert_eq!((told.tenant.unwrap().tenant, told.time), (ONE, NOW));
    assert_eq!(store.erased_keys().await.unwrap(), [to_go(1, 0), to_go(3, 0), to_go(4, 0)]);
    // One that comes later does not put a key off.
    harness.clock.advance_seconds(60);
    store.watch_keys(watch(&[(ONE, 4), (ONE, 6)]));
    store.commit(erase(&other)).await.unwrap();
    let all = [to_go(1, 0), to_go(3, 0), to_go(4, 0), to_go(6, 60)];
    assert_eq!(store.erased_keys().await.unwrap(), all);
    drop(store);
    let store = harness.open();
    assert_eq!(store.erased_keys().await.unwrap(), all);
    assert_eq!(erasure_of(&*store, other.token).await.keys, [1, 4, 6]);
}

pub(crate) async fn an_erasure_that_waited_is_told_when_it_takes_place(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, Some("c")), [1; 32]).await;
    let charge = make_charge(&card, "i-1", ChargeStatus::Authorized);
    store.commit(put(&charge)).await.unwrap();
    store.commit(erase(&card)).await.unwrap();
    assert_eq!(store.erasure(card.token).await.unwrap(), None);
    let closed = store.commit(put(&moved(&charge, ChargeStatus::Voided))).await.unwrap();
    let told = erasure_of(&*store, card.token).await;
    // The place that the commit gave is still that of the event that came with it.
    assert_eq!((told.action.as_str(), told.seq + 1), ("card.erased", closed.grant.seq));
}

pub(crate) async fn that_erased_bytes_are_gone_is_told_as_well(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, Some("c")), [1; 32]).await;
    store.commit(erase(&card)).await.unwrap();
    let mut scrubbed = None;
    for _ in 0..600 {
        scrubbed = store.erasure(card.token).await.unwrap().unwrap().scrubbed;
        if scrubbed.is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let told = leaf(&*store, scrubbed.unwrap()).await;
    assert_eq!((told.action.as_str(), told.target.id), ("card.scrubbed", card.token.to_string()));
    assert!(told.seq > erasure_of(&*store, card.token).await.seq);
    crate::log::assert_chain(&*store, told.seq + 1).await;
}

pub(crate) async fn what_becomes_of_a_key_is_kept(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, None), [1; 32]).await;
    store.commit(erase(&card)).await.unwrap();
    let mark = async |mark| {
        store.commit(change(RowChange::MarkKey(mark))).await.unwrap();
        store.erased_keys().await.unwrap()
    };
    harness.clock.advance_seconds(5);
    // Key 9 never sealed what is erased.
    let empty = ErasedKey { emptied: Some(NOW.plus_seconds(5)), ..to_go(1, 0) };
    assert_eq!(mark(KeyMark::Emptied(vec![1, 9])).await, std::slice::from_ref(&empty));
    assert_eq!(mark(KeyMark::Needed(1)).await, [to_go(1, 0)]);
    mark(KeyMark::Emptied(vec![1])).await;
    let event = EventId::make(NOW).unwrap();
    assert_eq!(mark(KeyMark::Destroyed(1, event)).await, [ErasedKey { destroyed: Some(event), ..empty }]);
}
