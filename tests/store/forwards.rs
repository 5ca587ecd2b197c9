//! Forwards: revisions, cards that may not be used, what is open, and answers that go with their card.

use cardvault::card::id::{ForwardId, PrincipalId};
use cardvault::edge::store::{
    CardRow, CardStatus, CommitError, ForwardAnswer, ForwardRow, ForwardStatus, OnDuplicate, Outbound,
    RowChange,
};

use crate::harness::{Harness, NOW, ONE, TWO, change, erase, insert, make_card};

const ANSWER: &str = "an answer that nobody would write by chance 71c3";

pub(crate) fn make_forward(card: &CardRow) -> ForwardRow {
    ForwardRow {
        id: ForwardId::make(NOW).unwrap(),
        tenant: card.tenant,
        revision: 1,
        token: card.token,
        card_version: card.version,
        destination: "shop".to_owned(),
        method: "POST".to_owned(),
        path: "/v1/cards".to_owned(),
        principal: PrincipalId::make(NOW).unwrap(),
        status: ForwardStatus::Sending,
        outbound: Outbound::MaybeSent,
        rules_version: "00".to_owned(),
        mac: "11".to_owned(),
        error: None,
        upstream_status: None,
        upstream_us: None,
        created_at: NOW,
        finished_at: None,
        answer: None,
    }
}

fn answered(row: &ForwardRow, body: &str) -> ForwardRow {
    ForwardRow {
        revision: row.revision + 1,
        status: ForwardStatus::Answered,
        outbound: Outbound::Sent,
        upstream_status: Some(200),
        finished_at: Some(NOW),
        answer: Some(ForwardAnswer { headers: Vec::new(), is_json: false, body: body.to_owned() }),
        ..row.clone()
    }
}

pub(crate) fn put(row: &ForwardRow) -> cardvault::edge::store::Change {
    change(RowChange::PutForward(Box::new(row.clone())))
}

pub(crate) async fn a_forward_counts_its_revisions_and_is_the_tenants_own(harness: Harness) {
    let store = harness.open();
    let card = make_card(ONE, None);
    store.commit(insert(&card, [1; 32], OnDuplicate::New)).await.unwrap();
    let row = make_forward(&card);
    store.commit(put(&row)).await.unwrap();
    assert_eq!(store.forward(ONE, row.id).await.unwrap(), Some(row.clone()));
    assert_eq!(store.forward(TWO, row.id).await.unwrap(), None);
    assert!(matches!(store.commit(put(&row)).await, Err(CommitError::Conflict)));
    assert_eq!(store.open_forwards(10).await.unwrap(), vec![row.clone()]);
    // An empty answer is an answer.
    let done = answered(&row, "");
    store.commit(put(&done)).await.unwrap();
    assert!(matches!(store.commit(put(&done)).await, Err(CommitError::Conflict)));
    assert!(store.open_forwards(10).await.unwrap().is_empty());
    drop(store);
    assert_eq!(harness.open().forward(ONE, row.id).await.unwrap(), Some(done));
}

pub(crate) async fn a_card_that_may_not_be_used_takes_no_forward(harness: Harness) {
    let store = harness.open();
    let card = make_card(ONE, None);
    store.commit(insert(&card, [1; 32], OnDuplicate::New)).await.unwrap();
    let unknown = make_forward(&make_card(ONE, None));
    assert!(matches!(store.commit(put(&unknown)).await, Err(CommitError::NotFound)));
    let older = ForwardRow { card_version: 2, ..make_forward(&card) };
    assert!(matches!(store.commit(put(&older)).await, Err(CommitError::Conflict)));
    let status = CardStatus::Suspended;
    let suspend = RowChange::SetCardStatus { tenant: ONE, token: card.token, status };
    store.commit(change(suspend)).await.unwrap();
    assert!(matches!(store.commit(put(&make_forward(&card))).await, Err(CommitError::Conflict)));
    store.commit(erase(&card)).await.unwrap();
    assert!(matches!(store.commit(put(&make_forward(&card))).await, Err(CommitError::NotFound)));
}

pub(crate) async fn the_answer_of_a_forward_goes_with_its_card(harness: Harness) {
    let store = harness.open();
    let (card, other) = (make_card(ONE, None), make_card(ONE, None));
    store.commit(insert(&card, [1; 32], OnDuplicate::New)).await.unwrap();
    store.commit(insert(&other, [2; 32], OnDuplicate::New)).await.unwrap();
    let (first, late, kept) = (make_forward(&card), make_forward(&card), make_forward(&other));
    for row in [&first, &late, &kept] {
        store.commit(put(row)).await.unwrap();
    }
    store.commit(put(&answered(&first, ANSWER))).await.unwrap();
    store.commit(put(&answered(&kept, "kept"))).await.unwrap();
    store.commit(erase(&card)).await.unwrap();
    // What comes after the card is gone is told, and its answer is not kept.
    store.commit(put(&answered(&late, ANSWER))).await.unwrap();
    for row in [&first, &late] {
        let bare = ForwardRow { answer: None, ..answered(row, "") };
        assert_eq!(store.forward(ONE, row.id).await.unwrap(), Some(bare));
    }
    assert_eq!(store.forward(ONE, kept.id).await.unwrap(), Some(answered(&kept, "kept")));
    let ended = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let files = std::fs::read_dir(harness.directory.path()).unwrap();
        let bytes: Vec<u8> = files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
        if !bytes.windows(ANSWER.len()).any(|window| window == ANSWER.as_bytes()) {
            return;
        }
        assert!(std::time::Instant::now() < ended, "the answer is still in a file");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
