//! How the log names customers, and that the names end with the last card.

use std::collections::HashSet;

use cardvault::edge::store::{CardRow, Change, CommitError, OnDuplicate, RowChange, Store};

use crate::harness::*;

/// The keeper's keyed hash of a customer.
pub(crate) const KEYED: &str = "00112233445566778899aabbccddeeff";

/// The name that the log gives the customer of a change, which is committed.
pub(crate) async fn name(store: &dyn Store, mut change: Change, keyed: &str) -> Option<String> {
    change.events[0].facts.customer = Some(keyed.to_owned());
    let id = change.events[0].id;
    store.commit(change).await.unwrap();
    let leaf = store.event(id).await.unwrap().unwrap().leaf;
    let leaf: serde_json::Value = serde_json::from_slice(&leaf).unwrap();
    leaf["facts"]["customer"].as_str().map(str::to_owned)
}

fn new(card: &CardRow) -> Change {
    insert(card, [card.token.bytes()[17]; 32], OnDuplicate::New)
}

pub(crate) async fn a_customer_keeps_its_name_until_the_last_card_goes(harness: Harness) {
    let store = harness.open();
    let (first, second) = (make_card(ONE, Some("c1")), make_card(ONE, Some("c1")));
    let named = name(&*store, new(&first), KEYED).await.unwrap();
    assert!(named.len() == 32 && named != KEYED, "{named}");
    assert_eq!(name(&*store, new(&second), KEYED).await.as_ref(), Some(&named));
    // The same hash of another customer, or another hash of this one, is another name.
    assert_ne!(name(&*store, new(&make_card(ONE, Some("c2"))), KEYED).await.as_ref(), Some(&named));
    assert_ne!(name(&*store, new(&make_card(TWO, Some("c1"))), KEYED).await.as_ref(), Some(&named));
    // A new version keeps it, and so does what the first card leaves behind.
    let next = CardRow { version: 2, sealed: Some(make_sealed()), ..first.clone() };
    assert_eq!(name(&*store, update(&next, None), KEYED).await.as_ref(), Some(&named));
    store.commit(erase(&first)).await.unwrap();
    let third = make_card(ONE, Some("c1"));
    assert_eq!(name(&*store, new(&third), KEYED).await.as_ref(), Some(&named));
    drop(store);
    let store = harness.open();
    let fourth = make_card(ONE, Some("c1"));
    assert_eq!(name(&*store, new(&fourth), KEYED).await.as_ref(), Some(&named));
    // With the last card the name cannot be made again by anybody.
    for card in [&second, &third, &fourth] {
        store.commit(erase(card)).await.unwrap();
    }
    assert_ne!(name(&*store, new(&make_card(ONE, Some("c1"))), KEYED).await.unwrap(), named);
}

pub(crate) async fn a_card_that_moves_takes_the_name_of_its_new_customer(harness: Harness) {
    let store = harness.open();
    let (card, other) = (make_card(ONE, Some("c1")), make_card(ONE, Some("c2")));
    let (one, two) =
        (name(&*store, new(&card), KEYED).await.unwrap(), name(&*store, new(&other), KEYED).await.unwrap());
    let moved = |version, customer: Option<&str>| CardRow {
        version,
        customer: customer.map(str::to_owned),
        sealed: Some(make_sealed()),
        ..card.clone()
    };
    assert_eq!(name(&*store, update(&moved(2, Some("c2")), None), KEYED).await, Some(two));
    // The first customer has no card any more: its name is gone.
    let back = name(&*store, update(&moved(3, Some("c1")), None), KEYED).await.unwrap();
    assert_ne!(back, one);
    assert_eq!(name(&*store, new(&make_card(ONE, Some("c1"))), KEYED).await, Some(back));
}

pub(crate) async fn no_event_names_a_customer_by_the_keyed_hash(harness: Harness) {
    let store = harness.open();
    let card = make_card(ONE, None);
    assert_eq!(name(&*store, new(&card), KEYED).await, None);
    let held = RowChange::SetLegalHold {
        tenant: ONE,
        token: card.token,
        held: true,
        reference: String::new(),
        others_seen: false,
        status_seen: card.status,
        erase_asked_seen: false,
    };
    assert_eq!(name(&*store, change(held), KEYED).await, None);
}

pub(crate) async fn first_cards_at_once_agree_on_a_name(harness: Harness) {
    let store = harness.open();
    let tasks: Vec<_> = (0..64)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let on_duplicate =
                    if number % 2 == 0 { OnDuplicate::New } else { OnDuplicate::ReturnExisting };
                let mut change = insert(&make_card(ONE, Some("c1")), [number / 8; 32], on_duplicate);
                change.events[0].facts.customer = Some(KEYED.to_owned());
                match store.commit(change).await {
                    Ok(_) | Err(CommitError::DuplicateCard { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let events = store.events(None, 0, 100).await.unwrap();
    let leaf =
        |leaf: &[u8]| serde_json::from_slice::<serde_json::Value>(leaf).unwrap()["facts"]["customer"].clone();
    let names: HashSet<_> =
        events.iter().map(|event| leaf(&event.leaf).as_str().unwrap().to_owned()).collect();
    assert!(names.len() == 1 && events.len() >= 32, "{names:?} of {}", events.len());
}
