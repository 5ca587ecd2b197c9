//! Cards: duplicates, versions, fingerprints, erasure.

use cardvault::card::id::FingerprintId;
use cardvault::card::range::{Country, Funding};
use cardvault::card::tenant::TenantId;
use cardvault::edge::store::{
    CardRow, CardStatus, Change, CommitError, OnDuplicate, RowChange, Store, StoredAnswer,
};

use crate::harness::*;

pub(crate) async fn a_card_reads_back_as_it_was_stored(harness: Harness) {
    let store = harness.open();
    for customer in [None, Some("c1")] {
        let card = make_card(ONE, customer);
        let committed = store.commit(insert(&card, [7; 32], OnDuplicate::New)).await.unwrap();
        let kept = CardRow { fingerprint: committed.fingerprint.unwrap(), ..card.clone() };
        assert_eq!(store.card(ONE, card.token).await.unwrap(), Some(kept));
        assert_eq!(committed.time, NOW);
    }
    let card = make_card(ONE, None);
    // What a table of ranges says of a number is kept with it.
    let mut ranged = make_card(ONE, Some("c1"));
    let shown = ranged.shown.as_mut().unwrap();
    (shown.funding, shown.country) = (Some(Funding::Prepaid), Country::read(*b"DE"));
    let read = stored(&*store, ranged.clone(), [6; 32]).await;
    assert_eq!(read.shown, ranged.shown);
    let bare = CardRow { metadata: Default::default(), shown: None, ..card.clone() };
    let read = stored(&*store, bare.clone(), [8; 32]).await;
    assert_eq!(read, CardRow { fingerprint: read.fingerprint, ..bare });
    assert_eq!(store.card(ONE, make_card(ONE, None).token).await.unwrap(), None);
    // A token is never overwritten.
    let again = CardRow { sealed: Some(make_sealed()), ..card };
    let taken = store.commit(insert(&again, [9; 32], OnDuplicate::New)).await;
    assert!(matches!(taken, Err(CommitError::Conflict)));
    assert_eq!(store.card(ONE, again.token).await.unwrap(), Some(read));
}

pub(crate) async fn a_tenant_sees_only_its_own_cards(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, Some("c1")), [7; 32]).await;
    assert_eq!(store.card(TWO, card.token).await.unwrap(), None);
    assert_eq!(store.card_version(TWO, card.token, 1).await.unwrap(), None);
    assert!(store.cards_of_customer(TWO, "c1", None, 10).await.unwrap().rows.is_empty());
    let next = CardRow { version: 2, tenant: TWO, ..card.clone() };
    for foreign in [
        update(&next, None),
        erase(&next),
        change(RowChange::SetCardStatus { tenant: TWO, token: card.token, status: CardStatus::Suspended }),
        hold(&next, true),
    ] {
        assert!(matches!(store.commit(foreign).await, Err(CommitError::NotFound)));
    }
    // The same number at another tenant is another fingerprint, and no duplicate.
    let other = make_card(TWO, Some("c1"));
    let committed = store.commit(insert(&other, [7; 32], OnDuplicate::ReturnExisting)).await.unwrap();
    assert_ne!(committed.fingerprint, Some(card.fingerprint));
    assert_eq!(store.card(ONE, card.token).await.unwrap(), Some(card));
}

pub(crate) async fn a_customer_has_a_card_once_if_asked(harness: Harness) {
    let store = harness.open();
    let first = stored(&*store, make_card(ONE, Some("c1")), [7; 32]).await;
    let second = stored(&*store, make_card(ONE, Some("c1")), [7; 32]).await;
    let oldest = first.token.min(second.token);
    for on_duplicate in [OnDuplicate::ReturnExisting, OnDuplicate::UpdateExisting] {
        let again = make_card(ONE, Some("c1"));
        let refused = store.commit(insert(&again, [7; 32], on_duplicate)).await;
        let Err(CommitError::DuplicateCard { token }) = refused else { panic!("{refused:?}") };
        assert_eq!(token, oldest);
        assert_eq!(store.card(ONE, again.token).await.unwrap(), None);
    }
    // Another customer, no customer and another number are no duplicates.
    for (customer, number) in [(Some("c2"), 7), (None, 7), (Some("c1"), 8)] {
        let card = make_card(ONE, customer);
        store.commit(insert(&card, [number; 32], OnDuplicate::ReturnExisting)).await.unwrap();
    }
    let without = store.commit(insert(&make_card(ONE, None), [7; 32], OnDuplicate::ReturnExisting)).await;
    assert!(matches!(without, Err(CommitError::DuplicateCard { .. })));
    // Erased tokens never match.
    for card in [&first, &second] {
        store.commit(erase(card)).await.unwrap();
    }
    let card = make_card(ONE, Some("c1"));
    store.commit(insert(&card, [7; 32], OnDuplicate::ReturnExisting)).await.unwrap();
    // Fingerprints that differ only late are two.
    let mut late = [7; 32];
    late[31] = 8;
    let card = make_card(ONE, Some("c1"));
    store.commit(insert(&card, late, OnDuplicate::ReturnExisting)).await.unwrap();
}

pub(crate) async fn many_at_once_get_one_token(harness: Harness) {
    let store = harness.open();
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let card = make_card(ONE, Some("c1"));
                match store.commit(insert(&card, [7; 32], OnDuplicate::ReturnExisting)).await {
                    Ok(_) => card.token,
                    Err(CommitError::DuplicateCard { token }) => token,
                    Err(error) => panic!("{error}"),
                }
            })
        })
        .collect();
    let mut tokens = std::collections::HashSet::new();
    for task in tasks {
        tokens.insert(task.await.unwrap());
    }
    assert_eq!(tokens.len(), 1);
    let listed = store.cards_of_customer(ONE, "c1", None, 100).await.unwrap();
    assert_eq!(listed.rows.len(), 1);
}

pub(crate) async fn versions_count_up_and_the_old_number_goes(harness: Harness) {
    let store = harness.open();
    let first = stored(&*store, make_card(ONE, Some("c1")), [7; 32]).await;
    for wrong in [1, 3] {
        let card = CardRow { version: wrong, ..first.clone() };
        assert!(matches!(store.commit(update(&card, None)).await, Err(CommitError::Conflict)));
    }
    let mut sealed = make_sealed();
    sealed.expiry.version = 2;
    let second =
        CardRow { version: 2, sealed: Some(sealed), updated_at: NOW.plus_seconds(5), ..first.clone() };
    let committed = store.commit(update(&second, None)).await.unwrap();
    assert_eq!(committed.fingerprint, Some(first.fingerprint));
    assert_eq!(store.card(ONE, first.token).await.unwrap(), Some(second.clone()));
    assert_eq!(store.card_version(ONE, first.token, 2).await.unwrap(), Some(second));
    let old = store.card_version(ONE, first.token, 1).await.unwrap().unwrap();
    let mut expected = first.clone();
    expected.sealed.as_mut().unwrap().pan.envelope.clear();
    assert_eq!(old, expected);
    assert_eq!(store.card_version(ONE, first.token, 3).await.unwrap(), None);
    let unknown = CardRow { version: 2, ..make_card(ONE, None) };
    assert!(matches!(store.commit(update(&unknown, None)).await, Err(CommitError::NotFound)));
}

pub(crate) async fn who_changed_the_number_is_remembered(harness: Harness) {
    let store = harness.open();
    let mut card = stored(&*store, make_card(ONE, Some("c1")), [7; 32]).await;
    assert!(!card.number_by_updater);
    store.commit(hold(&card, true)).await.unwrap();
    for (by_updater, hash) in [(true, [8; 32]), (true, [9; 32]), (false, [10; 32])] {
        let version = card.version + 1;
        card = CardRow { version, sealed: Some(make_sealed()), number_by_updater: by_updater, ..card };
        let committed = store.commit(update(&card, Some(hash))).await.unwrap();
        card.fingerprint = committed.fingerprint.unwrap();
        let read = store.card(ONE, card.token).await.unwrap().unwrap();
        assert_eq!((read.number_by_updater, read.legal_hold), (by_updater, true));
    }
}

pub(crate) async fn a_number_has_one_fingerprint_id_while_a_token_lives(harness: Harness) {
    let store = harness.open();
    let first = stored(&*store, make_card(ONE, Some("c1")), [7; 32]).await;
    let second = stored(&*store, make_card(ONE, Some("c2")), [7; 32]).await;
    let other = stored(&*store, make_card(ONE, Some("c1")), [8; 32]).await;
    assert_eq!(first.fingerprint, second.fingerprint);
    assert_ne!(first.fingerprint, other.fingerprint);
    store.commit(erase(&first)).await.unwrap();
    let third = stored(&*store, make_card(ONE, None), [7; 32]).await;
    assert_eq!(third.fingerprint, second.fingerprint);
    for card in [&second, &third] {
        store.commit(erase(card)).await.unwrap();
    }
    let fourth = make_card(ONE, None);
    let committed = store.commit(insert(&fourth, [7; 32], OnDuplicate::New)).await.unwrap();
    assert_eq!(committed.fingerprint, Some(fourth.fingerprint), "the entry outlived its last token");
}

pub(crate) async fn an_update_moves_fingerprint_and_customer(harness: Harness) {
    let store = harness.open();
    let first = stored(&*store, make_card(ONE, Some("c1")), [7; 32]).await;
    let proposal = FingerprintId::make(NOW).unwrap();
    let second = CardRow {
        version: 2,
        customer: Some("c2".into()),
        fingerprint: proposal,
        sealed: Some(make_sealed()),
        ..first.clone()
    };
    let committed = store.commit(update(&second, Some([8; 32]))).await.unwrap();
    assert_eq!(committed.fingerprint, Some(proposal));
    assert!(store.cards_of_customer(ONE, "c1", None, 10).await.unwrap().rows.is_empty());
    assert_eq!(
        store.cards_of_customer(ONE, "c2", None, 10).await.unwrap().rows,
        std::slice::from_ref(&second)
    );
    let duplicate = |customer, number: u8| {
        insert(&make_card(ONE, Some(customer)), [number; 32], OnDuplicate::ReturnExisting)
    };
    assert!(matches!(store.commit(duplicate("c2", 8)).await, Err(CommitError::DuplicateCard { .. })));
    let fresh = store.commit(duplicate("c1", 7)).await.unwrap();
    assert_ne!(fresh.fingerprint, Some(first.fingerprint), "the old number's entry outlived its token");
    // The same number given again keeps its id.
    let third = CardRow { version: 3, fingerprint: FingerprintId::make(NOW).unwrap(), ..second };
    let committed = store.commit(update(&third, Some([8; 32]))).await.unwrap();
    assert_eq!(committed.fingerprint, Some(proposal));
}

pub(crate) async fn an_erased_card_leaves_a_tombstone(harness: Harness) {
    let store = harness.open();
    let first = stored(&*store, make_card(ONE, Some("c1")), [7; 32]).await;
    let second = CardRow { version: 2, sealed: Some(make_sealed()), ..first.clone() };
    store.commit(update(&second, None)).await.unwrap();
    harness.clock.advance_seconds(9);
    store.commit(erase(&second)).await.unwrap();
    let tombstone = store.card(ONE, first.token).await.unwrap().unwrap();
    assert_eq!(tombstone.status, CardStatus::Erased);
    assert_eq!(tombstone.erased_at, Some(NOW.plus_seconds(9)));
    assert_eq!((tombstone.version, tombstone.created_at), (2, NOW));
    assert!(tombstone.sealed.is_none() && tombstone.shown.is_none());
    assert!(tombstone.customer.is_none() && tombstone.metadata.is_empty());
    assert_eq!(store.card_version(ONE, first.token, 1).await.unwrap(), None);
    assert!(store.cards_of_customer(ONE, "c1", None, 10).await.unwrap().rows.is_empty());
    let third = CardRow { version: 3, ..second.clone() };
    for late in
        [erase(&second), update(&third, None), status(&second, CardStatus::Active), hold(&second, true)]
    {
        assert!(matches!(store.commit(late).await, Err(CommitError::NotFound)));
    }
    scrubbed(&*store, ONE, &second).await;
}

pub(crate) async fn a_hold_turns_an_erase_into_a_suspension(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, Some("c1")), [7; 32]).await;
    let read = async || store.card(ONE, card.token).await.unwrap().unwrap();
    store.commit(hold(&card, true)).await.unwrap();
    let held = read().await;
    assert_eq!((held.status, held.legal_hold, held.version), (CardStatus::Active, true, 1));
    // Who does not know of the hold, or of what became of the card since, changes nothing.
    assert!(matches!(store.commit(erase(&card)).await, Err(CommitError::Conflict)));
    store.commit(erase(&held)).await.unwrap();
    let kept = read().await;
    assert_eq!((kept.status, kept.legal_hold, kept.erase_asked), (CardStatus::Suspended, true, true));
    assert_eq!(kept.sealed, card.sealed);
    // It is to go: whoever asks for the card that is there is not given it, but the next one.
    let anew = make_card(ONE, Some("c1"));
    store.commit(insert(&anew, [7; 32], OnDuplicate::ReturnExisting)).await.unwrap();
    let again = store.commit(insert(&make_card(ONE, Some("c1")), [7; 32], OnDuplicate::ReturnExisting)).await;
    assert!(matches!(again, Err(CommitError::DuplicateCard { token }) if token == anew.token));
    assert!(matches!(store.commit(hold(&held, false)).await, Err(CommitError::Conflict)));
    assert!(matches!(store.commit(status(&card, CardStatus::Active)).await, Err(CommitError::Conflict)));
    // A new version changes neither hold nor status, whatever its maker last saw.
    let next = CardRow { version: 2, sealed: Some(make_sealed()), ..card.clone() };
    store.commit(update(&next, None)).await.unwrap();
    let kept = read().await;
    assert_eq!((kept.status, kept.legal_hold, kept.version), (CardStatus::Suspended, true, 2));
    // Released, the erase that was asked for takes place.
    store.commit(hold(&kept, false)).await.unwrap();
    let gone = read().await;
    assert_eq!((gone.status, gone.sealed), (CardStatus::Erased, None));
    assert_eq!((gone.legal_hold, gone.erase_asked), (false, false));
}

pub(crate) async fn a_hold_that_is_released_leaves_the_card_as_it_was(harness: Harness) {
    let store = harness.open();
    for before in [CardStatus::Active, CardStatus::Suspended] {
        let card = stored(&*store, make_card(ONE, Some("c1")), [7; 32]).await;
        store.commit(status(&card, before)).await.unwrap();
        let read = async || store.card(ONE, card.token).await.unwrap().unwrap();
        let card = read().await;
        store.commit(hold(&card, true)).await.unwrap();
        store.commit(hold(&card, false)).await.unwrap();
        let after = read().await;
        assert_eq!(after, CardRow { updated_at: after.updated_at, ..card });
    }
}

pub(crate) async fn cards_of_a_customer_come_newest_first(harness: Harness) {
    let store = harness.open();
    let mut tokens = Vec::new();
    for number in 0..7 {
        tokens.push(stored(&*store, make_card(ONE, Some("c1")), [number; 32]).await.token);
        stored(&*store, make_card(ONE, Some("c2")), [number; 32]).await;
    }
    tokens.sort_unstable_by(|a, b| b.cmp(a));
    let gone = store.card(ONE, tokens.remove(2)).await.unwrap().unwrap();
    store.commit(erase(&gone)).await.unwrap();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.cards_of_customer(ONE, "c1", after, 2).await.unwrap();
        seen.extend(page.rows.iter().map(|card| card.token));
        after = seen.last().copied();
        if !page.more {
            break;
        }
        assert_eq!(page.rows.len(), 2);
    }
    assert_eq!(seen, tokens);
}

/// Searches every file of the store for sealed bytes, with many cards around those erased so that rows have moved.
pub(crate) async fn erased_bytes_leave_every_file(harness: Harness) {
    let store = harness.open();
    let mut cards = Vec::new();
    for batch in 0..40_u8 {
        let made: Vec<_> = (0..64).map(|_| make_card(ONE, Some("c1"))).collect();
        let waits: Vec<_> = made
            .iter()
            .zip(0_u8..)
            .map(|(card, at)| {
                let mut number = [batch; 32];
                number[0] = at;
                let mut change = insert(card, number, OnDuplicate::New);
                let answer = StoredAnswer::Card { token: card.token, version: 1, status: 201 };
                let mut claim = claim(1, 1, Some(card.token), answer);
                claim.key = number;
                claim.body_mac = cardvault::random::make_bytes().unwrap();
                change.idempotency = Some(claim.clone());
                (change, claim)
            })
            .map(|(change, claim)| {
                let store = store.clone();
                tokio::spawn(async move { store.commit(change).await.map(|_| claim.body_mac) })
            })
            .collect();
        for (card, wait) in made.into_iter().zip(waits) {
            cards.push((card, wait.await.unwrap().unwrap()));
        }
    }
    // A number replaced: the old one goes as well.
    let mut gone = Vec::new();
    for (at, (card, mac)) in cards.iter().enumerate().filter(|(at, _)| at % 5 == 0) {
        let old = card.sealed.clone().unwrap();
        if at % 2 == 0 {
            let next = CardRow { version: 2, sealed: Some(make_sealed()), ..card.clone() };
            store.commit(update(&next, None)).await.unwrap();
            gone.push(next.sealed.unwrap().pan.envelope);
        }
        store.commit(erase(card)).await.unwrap();
        gone.extend([old.pan.envelope, old.expiry.envelope, mac.to_vec()]);
    }
    let last = cards.iter().map(|(card, _)| card).rev().find(|card| card.token == cards[0].0.token).unwrap();
    scrubbed(&*store, ONE, last).await;
    wait_until(|| store.health().scrub_waiting == 0).await;
    let living = &cards[1].0.sealed.as_ref().unwrap().pan.envelope;
    let mut found = false;
    for entry in std::fs::read_dir(harness.directory.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let windows: std::collections::HashSet<&[u8]> = bytes.windows(16).collect();
        found |= windows.contains(&living[8..24]);
        for secret in &gone {
            assert!(!windows.contains(&secret[8..24]), "erased bytes are still there");
        }
    }
    assert!(found, "the search finds nothing at all");
}

fn status(card: &CardRow, status: CardStatus) -> Change {
    change(RowChange::SetCardStatus { tenant: card.tenant, token: card.token, status })
}

/// Sets or releases the hold of a card that stands as this row says.
pub(crate) fn hold(card: &CardRow, held: bool) -> Change {
    change(RowChange::SetLegalHold {
        tenant: card.tenant,
        token: card.token,
        held,
        reference: String::new(),
        others_seen: false,
        status_seen: card.status,
        erase_asked_seen: card.erase_asked,
    })
}

pub(crate) async fn scrubbed(store: &dyn Store, tenant: TenantId, card: &CardRow) {
    for _ in 0..400 {
        let read = store.card(tenant, card.token).await.unwrap().unwrap();
        if read.scrubbed_at.is_some() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("not scrubbed within 20 s");
}

async fn wait_until(done: impl Fn() -> bool) {
    for _ in 0..400 {
        if done() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("not done within 20 s");
}
