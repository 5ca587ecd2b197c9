use super::*;
use crate::supervisor::inventory;
use crate::wire::keys::{KeyOrder, KeyPurpose, KeyState, WrappedKey, epoch_of};
use crate::wire::unsealer::Obtained;

const NOW: &str = "2026-11-22T00:00:00Z";

fn now() -> Time {
    Time::parse(NOW).unwrap()
}

fn wrap(order: &KeyOrder) -> WrappedKey {
    WrappedKey { order: *order, wrapped: vec![1; 60], check_value: "abcdef".into() }
}

fn kek(check_value: &str) -> Obtained {
    Obtained { check_value: check_value.into(), wrapped: vec![3; 60], issued: None }
}

/// A store with one tenant and all its keys.
fn kept() -> (KeyStore, PathBuf, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keystore.json");
    let mut store = KeyStore::create(&path, "here", "node1").unwrap();
    store.note_kek(store.next_key_id(), (&kek("0a0b0c"), "file"), now(), None).unwrap();
    store.add_tenant("shop", Mode::Live, now()).unwrap().unwrap();
    fill(&mut store, now());
    (store, path, directory)
}

fn fill(store: &mut KeyStore, now: Time) -> Vec<KeyOrder> {
    let orders = store.missing_keys(now);
    store.add_keys(&orders.iter().map(wrap).collect::<Vec<_>>(), now, Making::default()).unwrap();
    orders
}

fn states(store: &KeyStore, purpose: KeyPurpose) -> Vec<KeyState> {
    store.keys().iter().filter(|key| key.purpose == purpose).map(|key| key.state).collect()
}

#[test]
fn keys_and_tenants_are_there_after_reading_again() {
    let (mut store, path, _directory) = kept();
    assert!(store.add_tenant("shop", Mode::Test, now()).unwrap().is_none());
    let ids: Vec<_> = store.keys().iter().map(|key| key.id).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 8]);
    store.keep_signed(7, [9; 32]).unwrap();
    assert_eq!(store.keeper_starts(now()), 0);
    store.note_keeper_start(now()).unwrap();
    let mut again = KeyStore::open(&path, "here").unwrap();
    assert_eq!(again.keys(), store.keys());
    assert_eq!(again.tenants(), store.tenants());
    assert_eq!(again.signed(), (7, [9; 32]));
    again.note_keeper_start(now().plus_seconds(10)).unwrap();
    let starts = [10, 3_605, 7_200].map(|seconds| again.keeper_starts(now().plus_seconds(seconds)));
    assert_eq!(starts, [2, 1, 0]);
    assert!(again.missing_keys(now()).is_empty());
    assert_eq!(again.missing_keys(now().plus_seconds(15 * 86_400)).len(), 1);
    assert!(matches!(KeyStore::open(&path, "elsewhere"), Err(KeyStoreError::OtherInstallation(_))));
}

#[test]
fn a_store_of_format_1_gets_states_and_keeps_its_keys() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keystore.json");
    // As the version before wrote it, with a data key of a month that is over, one of this month and one of the next.
    let epoch = epoch_of(SystemClock.now());
    let key = |id: u32, purpose: &str, tenant: &str, epoch: u32| {
        format!(
            r#"{{"id":{id},"purpose":"{purpose}","tenant":{tenant},"epoch":{epoch},"wrapped":"AQE=","check_value":"abcdef"}}"#
        )
    };
    let keys = [
        key(1, "checkpoint", "null", 0),
        key(2, "data", "1", epoch - 1),
        key(3, "data", "1", epoch),
        key(4, "data", "1", epoch + 1),
        key(5, "fingerprint", "1", 0),
        key(6, "body_mac", "1", 0),
        key(7, "pseudonym", "1", 0),
    ]
    .join(",");
    let tenant = r#"{"id":1,"name":"shop","mode":"live","disabled":false,"created_at":1700000000000000}"#;
    std::fs::write(
        &path,
        format!(
            r#"{{"format":1,"environment":"{}","installation":"here","node":"node1","next_key_id":8,"next_tenant_id":2,
               "keeper_starts":[],"tenants":[{tenant}],"keys":[{keys}]}}"#,
            "ab".repeat(16)
        ),
    )
    .unwrap();
    let mut store = KeyStore::open(&path, "here").unwrap();
    assert_eq!(store.kek(), None);
    store.tend(SystemClock.now()).unwrap();
    assert_eq!(states(&store, KeyPurpose::Data), [KeyState::Retired, KeyState::Active, KeyState::Pending]);
    assert_eq!(store.key(5).unwrap().made_at, Time::from_micros(1_700_000_000_000_000));
    // What versions since have added is made, and nothing that is there.
    let missing = store.missing_keys(SystemClock.now());
    assert_eq!(
        missing.iter().map(|order| (order.id, order.purpose)).collect::<Vec<_>>(),
        [(8, KeyPurpose::Webhook)]
    );
    store.note_kek(store.next_key_id(), (&kek("0a0b0c"), "file"), SystemClock.now(), None).unwrap();
    assert_eq!(KeyStore::open(&path, "here").unwrap().keys(), store.keys());
}

#[test]
fn a_month_brings_the_next_data_key_into_use_and_retires_the_one_before() {
    let (mut store, _, _directory) = kept();
    assert_eq!(states(&store, KeyPurpose::Data), [KeyState::Active, KeyState::Pending]);
    assert!(!store.tend(now()).unwrap());
    let december = Time::parse("2026-12-01T00:00:00Z").unwrap();
    assert!(store.tend(december).unwrap());
    assert_eq!(states(&store, KeyPurpose::Data), [KeyState::Retired, KeyState::Active]);
    assert_eq!(fill(&mut store, december).len(), 1);
    assert_eq!(states(&store, KeyPurpose::Data), [KeyState::Retired, KeyState::Active, KeyState::Pending]);
}

#[test]
fn a_successor_retires_the_key_before_it_at_once() {
    let (mut store, _, _directory) = kept();
    let tenant = store.tenants()[0].id;
    let order = store.successor(KeyPurpose::Data, Some(tenant), now());
    assert_eq!((order.version, order.epoch), (2, epoch_of(now())));
    let making = Making { actor: Some("uid:0"), empties: true, compromised: None };
    store.add_keys(&[wrap(&order)], now(), making).unwrap();
    let data = states(&store, KeyPurpose::Data);
    assert_eq!(data, [KeyState::Retired, KeyState::Pending, KeyState::Active]);
    let retired = store.keys().iter().find(|key| key.purpose == KeyPurpose::Data).unwrap();
    assert_eq!(retired.history.last().unwrap().actor.as_deref(), Some("uid:0"));
    // In the same write, its records are to be sealed again.
    assert_eq!(store.keys().iter().map(|key| key.emptying).filter(|emptying| *emptying).count(), 1);
    assert!(retired.emptying);
}

#[test]
fn cryptoperiods_are_those_of_the_inventory() {
    let (store, _, _directory) = kept();
    let policy = inventory::load(None).unwrap();
    let until = |purpose: KeyPurpose| {
        store.keys().iter().find(|key| key.purpose == purpose).unwrap().protects_until(&policy).to_string()
    };
    assert_eq!(until(KeyPurpose::Data), "2026-12-23T00:00:00.000000Z");
    assert_eq!(until(KeyPurpose::Fingerprint), "2028-11-21T00:00:00.000000Z");
}

#[test]
fn a_kek_takes_over_with_all_keys_or_with_none() {
    let (mut store, path, _directory) = kept();
    let first = store.kek().unwrap().id;
    let next = store.note_kek(store.next_key_id(), (&kek("0d0e0f"), "file"), now(), Some("uid:0")).unwrap();
    assert_eq!(store.kek().unwrap().id, first);
    let policy = inventory::load(None).unwrap();
    let again: Vec<_> = store
        .held(&policy)
        .iter()
        .map(|held| WrappedKey { wrapped: vec![2; 60], ..held.key.clone() })
        .collect();
    let fewer = store.rewrapped(next.id, &again[1..], (KeyState::Retired, now()), Some("uid:0"));
    assert!(matches!(fewer, Err(KeyStoreError::NotAll)));
    assert_eq!((store.kek().unwrap().id, store.held(&policy)[1].key.wrapped.len()), (first, 60));
    assert!(store.held(&policy).iter().all(|held| held.key.wrapped == vec![1; 60]));
    store.rewrapped(next.id, &again, (KeyState::Retired, now()), Some("uid:0")).unwrap();
    let store = KeyStore::open(&path, "here").unwrap();
    assert_eq!(store.kek().unwrap().id, next.id);
    assert_eq!(store.key(first).unwrap().state, KeyState::Retired);
    assert!(store.held(&policy).iter().all(|held| held.key.wrapped == vec![2; 60]));
}

#[test]
fn a_destroyed_key_leaves_its_record_only() {
    let (mut store, path, _directory) = kept();
    let pseudonym = store.keys().iter().find(|key| key.purpose == KeyPurpose::Pseudonym).unwrap().id;
    let refused = store.set_state(pseudonym, KeyState::Destroyed, now(), None);
    assert!(matches!(refused, Err(KeyStoreError::Step { from: "active", to: "destroyed" })));
    store.set_state(pseudonym, KeyState::Compromised, now(), None).unwrap();
    // One that others know is none to go on with.
    assert_eq!(store.missing_keys(now()).len(), 1);
    store.set_state(pseudonym, KeyState::Destroyed, now(), None).unwrap();
    let key = KeyStore::open(&path, "here").unwrap().key(pseudonym).unwrap().clone();
    assert_eq!((key.state, key.wrapped.as_str(), key.history.len()), (KeyState::Destroyed, "", 3));
}

#[test]
fn what_the_log_is_to_be_told_stays_until_it_has_it() {
    let (mut store, path, _directory) = kept();
    let untold = KeyStore::open(&path, "here").unwrap().untold().to_vec();
    assert_eq!(untold.len(), store.keys().len());
    store.told(&untold[..3].iter().map(|change| change.event).collect::<Vec<_>>()).unwrap();
    assert_eq!(KeyStore::open(&path, "here").unwrap().untold(), &untold[3..]);
}

#[test]
fn what_cannot_be_written_has_not_happened() {
    let (mut store, path, directory) = kept();
    let next = store.note_kek(store.next_key_id(), (&kek("0d0e0f"), "file"), now(), None).unwrap();
    let before = (store.keys().to_vec(), store.untold().to_vec(), store.next_key_id());
    let again: Vec<_> =
        store.held(&inventory::load(None).unwrap()).into_iter().map(|held| held.key).collect();
    // Its directory is gone, as a disk may be.
    drop(directory);
    assert!(!path.exists());
    assert!(store.rewrapped(next.id, &again, (KeyState::Retired, now()), None).is_err());
    assert!(store.set_state(next.id, KeyState::Destroyed, now(), None).is_err());
    assert!(store.tend(now().plus_seconds(40 * 86_400)).is_err());
    assert!(store.add_tenant("other", Mode::Live, now()).is_err());
    assert_eq!((store.keys().to_vec(), store.untold().to_vec(), store.next_key_id()), before);
    assert_eq!(store.tenants().len(), 1);
}
