//! Charges: revisions, invoices, listings, and what they pin.

use cardvault::card::id::{AttemptId, ChargeId, FingerprintId, PrincipalId};
use cardvault::clock::Time;
use cardvault::edge::store::{
    Bar, CardRow, CardStatus, Change, ChargeFilter, ChargeRow, ChargeStatus, CommitError, DeclineRow,
    OnDuplicate, Operation, OperationKind, Plan, Retries, RetryState, RowChange, Store,
};

use crate::harness::*;

pub(crate) async fn a_charge_counts_its_revisions(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, Some("c1")), [7; 32]).await;
    let charge = make_charge(&card, "i1", ChargeStatus::Processing);
    let early = ChargeRow { revision: 2, ..charge.clone() };
    assert!(matches!(store.commit(put(&early)).await, Err(CommitError::Conflict)));
    store.commit(put(&charge)).await.unwrap();
    assert!(matches!(store.commit(put(&charge)).await, Err(CommitError::Conflict)));
    let mut next = moved(&charge, ChargeStatus::Approved);
    let refund =
        Operation { id: "rf_000000".into(), kind: OperationKind::Refund, ..next.operations[0].clone() };
    next.operations.push(refund);
    store.commit(put(&next)).await.unwrap();
    for id in [charge.id.to_string(), next.operations[0].id.clone(), "rf_000000".into()] {
        assert_eq!(store.charge(ONE, &id).await.unwrap(), Some(next.clone()));
        assert_eq!(store.charge(TWO, &id).await.unwrap(), None);
    }
    assert_eq!(store.charge(ONE, "rf_000001").await.unwrap(), None);
}

pub(crate) async fn an_invoice_is_claimed_once(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, Some("c1")), [7; 32]).await;
    let first = make_charge(&card, "i1", ChargeStatus::Processing);
    store.commit(put(&first)).await.unwrap();
    let taken = store.commit(put(&make_charge(&card, "i1", ChargeStatus::Processing))).await;
    let Err(CommitError::InvoiceTaken { charge }) = taken else { panic!("{taken:?}") };
    assert_eq!(charge, first.id);
    // Another period, another tenant and no invoice are no obstacle.
    let period = ChargeRow { period: "2026-11".into(), ..make_charge(&card, "i1", ChargeStatus::Processing) };
    store.commit(put(&period)).await.unwrap();
    let other = stored(&*store, make_card(TWO, None), [7; 32]).await;
    store.commit(put(&make_charge(&other, "i1", ChargeStatus::Approved))).await.unwrap();
    for _ in 0..2 {
        store.commit(put(&make_charge(&card, "", ChargeStatus::Approved))).await.unwrap();
    }
    // Only a charge that came to nothing frees it.
    let mut holder = first;
    for (status, frees) in
        [(ChargeStatus::Unknown, false), (ChargeStatus::Manual, false), (ChargeStatus::Declined, true)]
    {
        holder = moved(&holder, status);
        store.commit(put(&holder)).await.unwrap();
        let again = make_charge(&card, "i1", ChargeStatus::Processing);
        let answer = store.commit(put(&again)).await;
        assert_eq!(answer.is_ok(), frees, "{status:?}");
        if frees {
            let back = store.commit(put(&moved(&holder, ChargeStatus::Approved))).await;
            assert!(matches!(back, Err(CommitError::InvoiceTaken { charge }) if charge == again.id));
        }
    }
}

pub(crate) async fn charges_that_need_the_card_are_found_until_they_are_given_back(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, None), [7; 32]).await;
    let other = stored(&*store, make_card(ONE, None), [8; 32]).await;
    let needing = |card: &CardRow, invoice: &str, status| {
        let charge = make_charge(card, invoice, status);
        ChargeRow { refund_needs_card: true, amount_captured: 1_000, ..charge }
    };
    let charge = needing(&card, "i1", ChargeStatus::Processing);
    let without = make_charge(&card, "i2", ChargeStatus::Approved);
    let of_other = needing(&other, "i3", ChargeStatus::Approved);
    for one in [&charge, &without, &of_other, &needing(&card, "i4", ChargeStatus::Declined)] {
        store.commit(put(one)).await.unwrap();
    }
    let filter = ChargeFilter { refunded_with_card: Some(card.token), ..Default::default() };
    let found = async || walk(&*store, &filter, 10).await;
    assert_eq!(found().await, [charge.id]);
    assert!(store.charges(TWO, &filter, None, 10).await.unwrap().rows.is_empty());
    let paid = moved(&charge, ChargeStatus::Approved);
    store.commit(put(&paid)).await.unwrap();
    let part = ChargeRow { amount_refunded: 999, ..moved(&paid, ChargeStatus::Approved) };
    store.commit(put(&part)).await.unwrap();
    assert_eq!(found().await, [charge.id]);
    let whole = ChargeRow { amount_refunded: 1_000, ..moved(&part, ChargeStatus::Approved) };
    store.commit(put(&whole)).await.unwrap();
    assert!(found().await.is_empty());
}

pub(crate) async fn charges_are_found_by_every_filter(harness: Harness) {
    let store = harness.open();
    let cards = [
        stored(&*store, make_card(ONE, Some("c1")), [7; 32]).await,
        stored(&*store, make_card(ONE, Some("c2")), [8; 32]).await,
    ];
    let mut all = Vec::new();
    for number in 0..12_usize {
        let status = if number.is_multiple_of(3) { ChargeStatus::Declined } else { ChargeStatus::Approved };
        let mut charge = make_charge(&cards[number % 2], &format!("i{}", number / 2), status);
        charge.period = number.to_string();
        charge.destination = if number.is_multiple_of(4) { "sandbox".into() } else { "stripe".into() };
        charge.created_at = NOW.plus_seconds(number as i64);
        charge.operations[0].attempts[0].transaction_id = Some(format!("t{}", number / 3));
        store.commit(put(&charge)).await.unwrap();
        all.push(charge);
    }
    all.sort_by_key(|charge| std::cmp::Reverse(charge.id));
    let text = |word: &str| Some(word.to_owned());
    type Wanted = fn(&ChargeRow) -> bool;
    let filters: [(ChargeFilter, Wanted); 9] = [
        (ChargeFilter::default(), |_| true),
        (ChargeFilter { invoice: text("i3"), ..Default::default() }, |c| c.invoice == "i3"),
        (ChargeFilter { customer: text("c2"), ..Default::default() }, |c| {
            c.customer.as_deref() == Some("c2")
        }),
        (ChargeFilter { status: Some(ChargeStatus::Declined), ..Default::default() }, |c| {
            c.status == ChargeStatus::Declined
        }),
        (ChargeFilter { destination: text("stripe"), ..Default::default() }, |c| c.destination == "stripe"),
        (ChargeFilter { processor_transaction_id: text("t2"), ..Default::default() }, |c| {
            c.operations[0].attempts[0].transaction_id.as_deref() == Some("t2")
        }),
        (ChargeFilter { created_from: Some(NOW.plus_seconds(5)), ..Default::default() }, |c| {
            c.created_at >= NOW.plus_seconds(5)
        }),
        (ChargeFilter { created_before: Some(NOW.plus_seconds(5)), ..Default::default() }, |c| {
            c.created_at < NOW.plus_seconds(5)
        }),
        (
            ChargeFilter {
                customer: text("c1"),
                status: Some(ChargeStatus::Approved),
                destination: text("sandbox"),
                created_before: Some(NOW.plus_seconds(9)),
                ..Default::default()
            },
            |c| {
                c.customer.as_deref() == Some("c1")
                    && c.status == ChargeStatus::Approved
                    && c.destination == "sandbox"
                    && c.created_at < NOW.plus_seconds(9)
            },
        ),
    ];
    for (filter, wanted) in &filters {
        let expected: Vec<ChargeId> = all.iter().filter(|c| wanted(c)).map(|c| c.id).collect();
        assert!(!expected.is_empty());
        for size in [1, 2, 100] {
            assert_eq!(walk(&*store, filter, size).await, expected, "{filter:?}");
        }
        assert!(store.charges(TWO, filter, None, 10).await.unwrap().rows.is_empty());
    }
}

/// What a principal charged today is added up from the newest charge on, until one of yesterday comes.
pub(crate) async fn the_charges_of_a_day_come_before_those_of_the_day_before(harness: Harness) {
    let card = {
        let store = harness.open();
        stored(&*store, make_card(ONE, Some("c1")), [7; 32]).await
    };
    let mut of_today = Vec::new();
    let principal = PrincipalId::make(NOW).unwrap();
    // In no order, over two starts.
    for (start, hours) in [[3, 30, 1], [26, 2, 40]].into_iter().enumerate() {
        let store = harness.open();
        for ago in hours {
            let created_at = NOW.plus_seconds(-3_600 * ago);
            let mut charge = make_charge(&card, &format!("i{start}-{ago}"), ChargeStatus::Processing);
            (charge.id, charge.created_at) = (ChargeId::make(created_at).unwrap(), created_at);
            charge.principal = Some(principal);
            store.commit(put(&charge)).await.unwrap();
            let charge = moved(&charge, ChargeStatus::Approved);
            store.commit(put(&charge)).await.unwrap();
            of_today.extend((ago < 24).then_some((ago, charge)));
        }
    }
    of_today.sort_by_key(|(ago, _)| *ago);
    let store = harness.open();
    let mut seen: Vec<ChargeRow> = Vec::new();
    while seen.len() < 4 {
        let after = seen.last().map(|charge| charge.id);
        let page = store.charges(ONE, &ChargeFilter::default(), after, 2).await.unwrap();
        assert!(page.more);
        seen.extend(page.rows);
    }
    let expected: Vec<ChargeRow> = of_today.into_iter().map(|(_, charge)| charge).collect();
    assert_eq!(seen[..3], expected);
    assert!(seen[3].created_at < NOW.plus_seconds(-24 * 3_600));
}

async fn walk(store: &dyn Store, filter: &ChargeFilter, size: usize) -> Vec<ChargeId> {
    let mut seen = Vec::new();
    loop {
        let page = store.charges(ONE, filter, seen.last().copied(), size).await.unwrap();
        assert!(page.rows.len() == size || !page.more);
        seen.extend(page.rows.iter().map(|charge| charge.id));
        if !page.more {
            return seen;
        }
    }
}

pub(crate) async fn a_rare_status_is_found_behind_many_others(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, None), [7; 32]).await;
    let mut rare = Vec::new();
    for round in 0..3 {
        let charge = make_charge(&card, &format!("rare-{round}"), ChargeStatus::Manual);
        store.commit(put(&charge)).await.unwrap();
        rare.push(charge.id);
        // More than are looked at together.
        let many = (0..1_100).map(|n| make_charge(&card, &format!("i-{round}-{n}"), ChargeStatus::Approved));
        let rows = many.map(|charge| RowChange::PutCharge(Box::new(charge))).collect();
        store.commit(Change { rows, ..Change::default() }).await.unwrap();
    }
    rare.sort_unstable_by(|a, b| b.cmp(a));
    let filter = ChargeFilter { status: Some(ChargeStatus::Manual), ..ChargeFilter::default() };
    for size in [1, 2, 3, 100] {
        assert_eq!(walk(&*store, &filter, size).await, rare, "in pages of {size}");
    }
    let elsewhere = ChargeFilter { destination: Some("nowhere".to_owned()), ..ChargeFilter::default() };
    assert!(walk(&*store, &elsewhere, 10).await.is_empty());
}

pub(crate) async fn open_charges_are_those_that_wait(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, None), [7; 32]).await;
    let statuses = [
        ChargeStatus::Processing,
        ChargeStatus::Pending,
        ChargeStatus::Unknown,
        ChargeStatus::Authorized,
        ChargeStatus::Approved,
        ChargeStatus::Declined,
        ChargeStatus::Failed,
        ChargeStatus::Voided,
        ChargeStatus::Manual,
    ];
    let mut open = Vec::new();
    for (number, status) in statuses.into_iter().enumerate() {
        let charge = make_charge(&card, &format!("i{number}"), status);
        store.commit(put(&charge)).await.unwrap();
        if number < 3 {
            open.push(charge);
        }
    }
    open.sort_unstable_by_key(|charge| charge.id);
    let all = store.open_charges(None, 100).await.unwrap();
    assert_eq!(all, open);
    // In pages, each goes on after the last of the one before.
    let first = store.open_charges(None, 2).await.unwrap();
    assert_eq!(first, open[..2]);
    assert_eq!(store.open_charges(Some(first[1].id), 2).await.unwrap(), open[2..]);
    assert!(store.open_charges(Some(open[2].id), 2).await.unwrap().is_empty());
    for charge in &open {
        store.commit(put(&moved(charge, ChargeStatus::Approved))).await.unwrap();
    }
    assert!(store.open_charges(None, 100).await.unwrap().is_empty());
}

pub(crate) async fn an_attempt_pins_its_version(harness: Harness) {
    let store = harness.open();
    let first = stored(&*store, make_card(ONE, None), [7; 32]).await;
    let charge = make_charge(&first, "i1", ChargeStatus::Processing);
    let other = make_charge(&first, "i2", ChargeStatus::Authorized);
    store.commit(put(&charge)).await.unwrap();
    store.commit(put(&other)).await.unwrap();
    let second = CardRow { version: 2, sealed: Some(make_sealed()), ..first.clone() };
    store.commit(update(&second, Some([8; 32]))).await.unwrap();
    assert_eq!(store.card_version(ONE, first.token, 1).await.unwrap(), Some(first.clone()));
    store.commit(put(&moved(&charge, ChargeStatus::Approved))).await.unwrap();
    assert_eq!(store.card_version(ONE, first.token, 1).await.unwrap(), Some(first.clone()));
    store.commit(put(&moved(&other, ChargeStatus::Voided))).await.unwrap();
    let bare = store.card_version(ONE, first.token, 1).await.unwrap().unwrap().sealed.unwrap();
    assert!(bare.pan.envelope.is_empty());
    assert_eq!(Some(bare.expiry), first.sealed.map(|sealed| sealed.expiry));
}

pub(crate) async fn an_erase_waits_for_the_last_pin(harness: Harness) {
    let store = harness.open();
    let first = stored(&*store, make_card(ONE, Some("c1")), [7; 32]).await;
    let sent = make_charge(&first, "i1", ChargeStatus::Unknown);
    store.commit(put(&sent)).await.unwrap();
    let second = CardRow { version: 2, sealed: Some(make_sealed()), ..first.clone() };
    store.commit(update(&second, None)).await.unwrap();
    let held = make_charge(&second, "i2", ChargeStatus::Authorized);
    store.commit(put(&held)).await.unwrap();
    store.commit(erase(&second)).await.unwrap();
    let read = |version| store.card_version(ONE, first.token, version);
    let waiting = read(2).await.unwrap().unwrap();
    assert_eq!((waiting.status, &waiting.sealed), (CardStatus::Erasing, &second.sealed));
    assert_eq!(read(1).await.unwrap().unwrap().sealed, first.sealed);
    // No new use, and no match.
    let third = CardRow { version: 3, ..second.clone() };
    assert!(matches!(store.commit(update(&third, None)).await, Err(CommitError::Conflict)));
    let late = put(&make_charge(&second, "i3", ChargeStatus::Processing));
    assert!(matches!(store.commit(late).await, Err(CommitError::NotFound)));
    let again = make_card(ONE, Some("c1"));
    let fresh = store.commit(insert(&again, [7; 32], OnDuplicate::ReturnExisting)).await.unwrap();
    assert_eq!(fresh.fingerprint, Some(again.fingerprint));

    store.commit(put(&moved(&sent, ChargeStatus::Declined))).await.unwrap();
    assert_eq!(read(2).await.unwrap().unwrap().status, CardStatus::Erasing);
    let captured = moved(&held, ChargeStatus::Approved);
    store.commit(put(&captured)).await.unwrap();
    let gone = read(2).await.unwrap().unwrap();
    assert_eq!((gone.status, gone.sealed), (CardStatus::Erased, None));
    assert!(gone.erased_at.is_some());
    assert_eq!(read(1).await.unwrap(), None);
    // A refund needs no card.
    let refund = ChargeRow { status: ChargeStatus::Approved, ..moved(&captured, ChargeStatus::Unknown) };
    store.commit(put(&refund)).await.unwrap();
}

pub(crate) async fn a_card_that_may_not_be_used_takes_no_charge(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, None), [7; 32]).await;
    let old = ChargeRow { card_version: 2, ..make_charge(&card, "i1", ChargeStatus::Processing) };
    assert!(matches!(store.commit(put(&old)).await, Err(CommitError::Conflict)));
    let foreign = ChargeRow { tenant: TWO, ..make_charge(&card, "i1", ChargeStatus::Processing) };
    assert!(matches!(store.commit(put(&foreign)).await, Err(CommitError::NotFound)));
    let suspend = RowChange::SetCardStatus { tenant: ONE, token: card.token, status: CardStatus::Suspended };
    store.commit(change(suspend)).await.unwrap();
    let late = put(&make_charge(&card, "i1", ChargeStatus::Processing));
    assert!(matches!(store.commit(late).await, Err(CommitError::Conflict)));
}

fn scheduled(charge: &ChargeRow, state: RetryState) -> ChargeRow {
    let retries = Retries { state, made: 0, until: NOW.plus_seconds(86_400) };
    ChargeRow { plan: Some(Box::new(Plan { retries: Some(retries), route: None })), ..charge.clone() }
}

pub(crate) async fn a_schedule_of_retries_holds_the_invoice_and_is_found_when_due(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, None), [7; 32]).await;
    let (soon, late) = (NOW.plus_seconds(60), NOW.plus_seconds(90));
    let mut charges = Vec::new();
    for (invoice, due) in [("late", late), ("soon", soon)] {
        let running = scheduled(&make_charge(&card, invoice, ChargeStatus::Processing), RetryState::Running);
        store.commit(put(&running)).await.unwrap();
        let declined = scheduled(&moved(&running, ChargeStatus::Declined), RetryState::Scheduled(due));
        store.commit(put(&declined)).await.unwrap();
        charges.push(declined);
    }
    let due = |charge: &ChargeRow, at: Time| (at, ONE, charge.id);
    assert_eq!(store.retries(10).await.unwrap(), [due(&charges[1], soon), due(&charges[0], late)]);
    assert_eq!(store.retries(1).await.unwrap(), [due(&charges[1], soon)]);
    let mut of_card = store.retries_of(card.token).await.unwrap();
    of_card.sort_unstable();
    let mut ids: Vec<ChargeId> = charges.iter().map(|charge| charge.id).collect();
    ids.sort_unstable();
    assert_eq!(of_card, ids);
    let other = store.commit(put(&make_charge(&card, "soon", ChargeStatus::Processing))).await;
    assert!(matches!(other, Err(CommitError::InvoiceTaken { charge }) if charge == charges[1].id));
    // A schedule that is over lets it go.
    let mut over = scheduled(&charges[1], RetryState::Ended("stopped".into()));
    over.revision += 1;
    store.commit(put(&over)).await.unwrap();
    assert_eq!(store.retries(10).await.unwrap(), [due(&charges[0], late)]);
    assert_eq!(store.charge(ONE, &over.id.to_string()).await.unwrap(), Some(over));
    store.commit(put(&make_charge(&card, "soon", ChargeStatus::Processing))).await.unwrap();
}

pub(crate) async fn another_attempt_needs_a_card_that_may_be_used(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, None), [7; 32]).await;
    let first = make_charge(&card, "i1", ChargeStatus::Processing);
    store.commit(put(&first)).await.unwrap();
    let declined = moved(&first, ChargeStatus::Declined);
    store.commit(put(&declined)).await.unwrap();
    let mut again = declined.clone();
    again.revision += 1;
    again.status = ChargeStatus::Processing;
    again.operations[0]
        .attempts
        .push(make_charge(&card, "x", ChargeStatus::Processing).operations[0].attempts[0].clone());
    let suspend = |status| RowChange::SetCardStatus { tenant: ONE, token: card.token, status };
    store.commit(change(suspend(CardStatus::Suspended))).await.unwrap();
    assert!(matches!(store.commit(put(&again)).await, Err(CommitError::Conflict)));
    store.commit(change(suspend(CardStatus::Active))).await.unwrap();
    store.commit(put(&again)).await.unwrap();
    // While it runs the card stays; then it goes.
    store.commit(erase(&card)).await.unwrap();
    assert_eq!(store.card(ONE, card.token).await.unwrap().unwrap().status, CardStatus::Erasing);
    store.commit(put(&moved(&again, ChargeStatus::Declined))).await.unwrap();
    assert_eq!(store.card(ONE, card.token).await.unwrap().unwrap().status, CardStatus::Erased);
    let mut late = moved(&again, ChargeStatus::Declined);
    late.revision += 1;
    late.status = ChargeStatus::Processing;
    late.operations[0].attempts.push(again.operations[0].attempts[1].clone());
    assert!(matches!(store.commit(put(&late)).await, Err(CommitError::NotFound)));
}

pub(crate) async fn declines_are_counted_by_number_and_account_and_go_with_it(harness: Harness) {
    let store = harness.open();
    let cards = [
        stored(&*store, make_card(ONE, Some("c1")), [7; 32]).await,
        stored(&*store, make_card(ONE, Some("c2")), [7; 32]).await,
    ];
    assert_eq!(cards[0].fingerprint, cards[1].fingerprint, "two tokens of one number");
    let of = |fingerprint: FingerprintId, destination: &str, by_merchant, days_ago: i64, bar| DeclineRow {
        fingerprint,
        destination: destination.to_owned(),
        by_merchant,
        attempt: AttemptId::make(NOW).unwrap(),
        at: NOW.plus_seconds(-days_ago * 86_400),
        bar,
    };
    let number = cards[0].fingerprint;
    let rows = [
        of(number, "a", true, 40, Bar::Never),
        of(number, "a", true, 35, Bar::None),
        of(number, "a", true, 33, Bar::Until(NOW.plus_seconds(-86_400))),
        of(number, "a", true, 3, Bar::UntilAgreed),
        of(number, "a", true, 1, Bar::Until(NOW.plus_seconds(3_600))),
        of(number, "a", false, 1, Bar::None),
        of(number, "b", true, 1, Bar::None),
    ];
    for row in &rows {
        store.commit(change(RowChange::CountDecline(Box::new(row.clone())))).await.unwrap();
    }
    assert_eq!(store.declines(number, "a", true).await.unwrap(), rows[..5]);
    assert_eq!(store.declines(number, "a", false).await.unwrap(), rows[5..6]);
    assert_eq!(store.declines(number, "b", true).await.unwrap(), rows[6..]);
    let before = NOW.plus_seconds(-31 * 86_400);
    store.commit(change(RowChange::PruneDeclines(before))).await.unwrap();
    let kept = [rows[0].clone(), rows[3].clone(), rows[4].clone()];
    assert_eq!(store.declines(number, "a", true).await.unwrap(), kept, "what is for good stays");
    store.commit(erase(&cards[0])).await.unwrap();
    assert_eq!(store.declines(number, "a", true).await.unwrap(), kept);
    store.commit(erase(&cards[1])).await.unwrap();
    assert_eq!(store.declines(number, "a", true).await.unwrap(), []);
    assert_eq!(store.declines(number, "b", true).await.unwrap(), []);
}
