//! Invoice runs: verdicts, one charge for each line, and what is given back.

use std::collections::BTreeMap;

use cardvault::card::id::{PrincipalId, RequestId, RunId, Token};
use cardvault::card::tenant::TenantId;
use cardvault::edge::store::{
    CardRow, Change, ChargeRow, ChargeStatus, CommitError, LineDone, LineFault, OfRun, RowChange, RunLine,
    RunOptions, RunOrder, RunRow, RunState, Store, Verdict,
};

use crate::harness::*;

fn make_run(tenant: TenantId) -> RunRow {
    RunRow {
        id: RunId::make(NOW).unwrap(),
        tenant,
        revision: 1,
        state: RunState::Uploading,
        reason: None,
        principal: PrincipalId::make(NOW).unwrap(),
        request: RequestId::make(NOW).unwrap(),
        options: RunOptions { lines: 9, concurrency: 1, ..RunOptions::default() },
        lines: 0,
        sums: BTreeMap::new(),
        verdicts: BTreeMap::new(),
        outcomes: BTreeMap::new(),
        released: 0,
        created_at: NOW,
        updated_at: NOW,
        started_at: None,
        finished_at: None,
    }
}

fn line(token: Token, invoice: &str, amount: i64) -> RunLine {
    let order = RunOrder {
        token,
        amount,
        currency: "EUR".into(),
        invoice: invoice.into(),
        period: String::new(),
        destination: None,
        agreement: None,
        by_customer: false,
        description: None,
        statement_descriptor: None,
        metadata: BTreeMap::new(),
    };
    RunLine { order: Some(order), fault: None }
}

/// A charge as the lines have it.
fn charge(card: &CardRow, invoice: &str, status: ChargeStatus) -> ChargeRow {
    ChargeRow { amount: 100, ..make_charge(card, invoice, status) }
}

async fn begin(store: &dyn Store, run: RunRow) -> RunRow {
    store.commit(change(RowChange::PutRun(Box::new(run.clone())))).await.unwrap();
    run
}

fn adding(run: &RunRow, lines: Vec<RunLine>) -> Change {
    let mut run = RunRow { revision: run.revision + 1, ..run.clone() };
    run.lines += u32::try_from(lines.len()).unwrap();
    change(RowChange::AddRunLines { run: Box::new(run), lines })
}

async fn add(store: &dyn Store, run: &RunRow, lines: Vec<RunLine>) -> RunRow {
    store.commit(adding(run, lines)).await.unwrap();
    store.invoice_run(run.tenant, run.id).await.unwrap().unwrap()
}

async fn verdicts(store: &dyn Store, run: &RunRow) -> Vec<Verdict> {
    let lines = store.run_lines(run.tenant, run.id, 1, 100).await.unwrap();
    assert!(lines.iter().map(|line| line.number).eq(1..=run.lines));
    lines.iter().map(|line| line.verdict).collect()
}

pub(crate) async fn a_line_for_an_invoice_is_accepted_once(harness: Harness) {
    use Verdict::{Accepted, AlreadyCharged, Conflict, DeclinedBefore, InFlight, Invalid};
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, None), [7; 32]).await;
    let token = card.token;
    let paid = charge(&card, "paid", ChargeStatus::Approved);
    let open = charge(&card, "open", ChargeStatus::Unknown);
    let declined = charge(&card, "declined", ChargeStatus::Declined);
    for charge in [&paid, &open, &declined, &charge(&card, "failed", ChargeStatus::Failed)] {
        store.commit(put(charge)).await.unwrap();
    }
    let run = begin(&*store, make_run(ONE)).await;
    let fault = LineFault { code: "missing_field".into(), param: Some("amount".into()) };
    let lines = vec![
        line(token, "new", 100),
        line(token, "new", 100),
        line(token, "new", 101),
        line(token, "paid", 100),
        line(token, "paid", 99),
        line(token, "open", 100),
        line(token, "declined", 100),
        line(token, "failed", 100),
        RunLine { order: None, fault: Some(fault) },
    ];
    let run = add(&*store, &run, lines.clone()).await;
    let first =
        [Accepted, InFlight, Conflict, AlreadyCharged, Conflict, InFlight, DeclinedBefore, Accepted, Invalid];
    assert_eq!(verdicts(&*store, &run).await, first);
    assert_eq!((run.count(Accepted), run.count(Conflict), run.lines), (2, 2, 9));
    let rows = store.run_lines(ONE, run.id, 4, 4).await.unwrap();
    let others: Vec<_> = rows.iter().map(|row| row.other).collect();
    assert_eq!(others, [Some(paid.id), Some(paid.id), Some(open.id), Some(declined.id)]);
    assert!(rows.iter().zip(&lines[3..]).all(|(row, line)| row.line == *line && row.done.is_none()));
    // Another run, another tenant, and a charge of its own meet the claims.
    let mut other = make_run(ONE);
    other.options.retry_declined = true;
    let other = begin(&*store, other).await;
    let other = add(&*store, &other, vec![line(token, "new", 100), line(token, "declined", 100)]).await;
    assert_eq!(verdicts(&*store, &other).await, [InFlight, Accepted]);
    let foreign = begin(&*store, make_run(TWO)).await;
    let foreign = add(&*store, &foreign, vec![line(token, "new", 100), line(token, "paid", 100)]).await;
    assert_eq!(verdicts(&*store, &foreign).await, [Accepted, Accepted]);
    let single = store.commit(put(&charge(&card, "new", ChargeStatus::Processing))).await;
    assert!(matches!(single, Err(CommitError::InvoiceInRun { run: id }) if id == run.id), "{single:?}");
    assert_eq!(store.invoice_run(TWO, run.id).await.unwrap(), None);
    assert!(store.run_lines(TWO, run.id, 1, 10).await.unwrap().is_empty());
}

pub(crate) async fn a_run_that_validates_claims_nothing(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, None), [7; 32]).await;
    let mut run = make_run(ONE);
    run.options.validate_only = true;
    let run = begin(&*store, run).await;
    let lines = vec![line(card.token, "new", 100), line(card.token, "new", 100)];
    let run = add(&*store, &run, lines).await;
    assert_eq!(verdicts(&*store, &run).await, [Verdict::Accepted, Verdict::InFlight]);
    store.commit(put(&charge(&card, "new", ChargeStatus::Approved))).await.unwrap();
}

pub(crate) async fn a_line_has_one_charge_whatever_comes_back(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, None), [7; 32]).await;
    let run = begin(&*store, make_run(ONE)).await;
    let run = add(&*store, &run, vec![line(card.token, "i-1", 100), line(card.token, "i-2", 100)]).await;
    let of = |line| Some(OfRun { id: run.id, line });
    let first = ChargeRow { run: of(1), ..charge(&card, "i-1", ChargeStatus::Processing) };
    store.commit(put(&first)).await.unwrap();
    let again = || ChargeRow { run: of(1), ..charge(&card, "i-1", ChargeStatus::Processing) };
    for status in [ChargeStatus::Processing, ChargeStatus::Unknown, ChargeStatus::Declined] {
        assert!(matches!(store.commit(put(&again())).await, Err(CommitError::Conflict)), "{status:?}");
    }
    let declined = moved(&first, ChargeStatus::Declined);
    store.commit(put(&declined)).await.unwrap();
    // The invoice is free, and still the line had its charge.
    assert!(matches!(store.commit(put(&again())).await, Err(CommitError::Conflict)));
    let second = ChargeRow { run: of(2), ..charge(&card, "i-2", ChargeStatus::Processing) };
    store.commit(put(&second)).await.unwrap();
    store.commit(put(&moved(&second, ChargeStatus::Failed))).await.unwrap();
    let retried = ChargeRow { run: of(2), ..charge(&card, "i-2", ChargeStatus::Processing) };
    store.commit(put(&retried)).await.unwrap();
    assert!(matches!(
        store.commit(put(&ChargeRow { run: of(2), ..charge(&card, "i-2", ChargeStatus::Processing) })).await,
        Err(CommitError::Conflict)
    ));
    let of_none = Some(OfRun { id: RunId::make(NOW).unwrap(), line: 1 });
    let lost = ChargeRow { run: of_none, ..charge(&card, "i-3", ChargeStatus::Processing) };
    assert!(matches!(store.commit(put(&lost)).await, Err(CommitError::NotFound)));
    drop(store);
    let store = harness.open();
    let done: Vec<_> =
        store.run_lines(ONE, run.id, 1, 9).await.unwrap().into_iter().map(|line| line.done).collect();
    let expected = [
        Some(LineDone::Charge(first.id, ChargeStatus::Declined)),
        Some(LineDone::Charge(retried.id, ChargeStatus::Processing)),
    ];
    assert_eq!(done, expected);
}

pub(crate) async fn lines_that_are_not_charged_give_their_invoices_back(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, None), [7; 32]).await;
    let run = begin(&*store, make_run(ONE)).await;
    let lines = (1..=4).map(|n| line(card.token, &format!("i-{n}"), 100)).collect();
    let run = add(&*store, &run, lines).await;
    let of = |line| OfRun { id: run.id, line };
    let free = |n: u32| put(&charge(&card, &format!("i-{n}"), ChargeStatus::Approved));
    let refuse =
        |line| change(RowChange::RefuseRunLine { of: of(line), tenant: ONE, code: "token_suspended".into() });
    store.commit(refuse(1)).await.unwrap();
    assert!(matches!(store.commit(refuse(1)).await, Err(CommitError::Conflict)));
    store.commit(free(1)).await.unwrap();
    let paid = ChargeRow { run: Some(of(2)), ..charge(&card, "i-2", ChargeStatus::Approved) };
    store.commit(put(&paid)).await.unwrap();
    assert!(matches!(store.commit(refuse(2)).await, Err(CommitError::Conflict)));
    assert!(matches!(store.commit(free(3)).await, Err(CommitError::InvoiceInRun { .. })));
    let mut over = RunRow { revision: run.revision + 1, state: RunState::Cancelled, ..run.clone() };
    store.commit(change(RowChange::PutRun(Box::new(over.clone())))).await.unwrap();
    assert_eq!(store.invoice_runs_at_work().await.unwrap(), [over.clone()]);
    over.revision += 1;
    over.released = 3;
    let release = RowChange::ReleaseRunLines { run: Box::new(over.clone()), from: 0 };
    store.commit(change(release.clone())).await.unwrap();
    assert!(matches!(store.commit(change(release)).await, Err(CommitError::Conflict)));
    store.commit(free(3)).await.unwrap();
    assert!(
        matches!(store.commit(free(2)).await, Err(CommitError::InvoiceTaken { charge }) if charge == paid.id)
    );
    assert!(matches!(store.commit(free(4)).await, Err(CommitError::InvoiceInRun { .. })));
    over.revision += 1;
    over.released = 4;
    store.commit(change(RowChange::ReleaseRunLines { run: Box::new(over), from: 3 })).await.unwrap();
    store.commit(free(4)).await.unwrap();
    assert!(store.invoice_runs_at_work().await.unwrap().is_empty());
}

pub(crate) async fn a_run_counts_its_revisions(harness: Harness) {
    let store = harness.open();
    let card = stored(&*store, make_card(ONE, None), [7; 32]).await;
    let run = begin(&*store, make_run(ONE)).await;
    let again = change(RowChange::PutRun(Box::new(run.clone())));
    assert!(matches!(store.commit(again).await, Err(CommitError::Conflict)));
    let one = || vec![line(card.token, "i-1", 100)];
    let late = adding(&run, one());
    let run = add(&*store, &run, one()).await;
    assert!(matches!(store.commit(late).await, Err(CommitError::Conflict)));
    let running = RunRow { revision: run.revision + 1, state: RunState::Running, ..run.clone() };
    store.commit(change(RowChange::PutRun(Box::new(running.clone())))).await.unwrap();
    // Lines come while it is being uploaded, and not after.
    assert!(matches!(store.commit(adding(&running, one())).await, Err(CommitError::Conflict)));
    let newer = begin(&*store, make_run(ONE)).await;
    let page = store.invoice_runs(ONE, None, 1).await.unwrap();
    assert!(page.more && page.rows.len() == 1);
    let mut both = [running.id, newer.id];
    both.sort_unstable();
    assert_eq!(page.rows[0].id, both[1]);
    let rest = store.invoice_runs(ONE, Some(both[1]), 5).await.unwrap();
    assert_eq!((rest.rows[0].id, rest.more), (both[0], false));
}
