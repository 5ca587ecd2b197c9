//! A run as the API writes it, and its lines with what became of them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::{Error, answer, lock};
use super::Progress;
use crate::card::id::{EventId, RunId};
use crate::edge::App;
use crate::edge::audit::catalogue;
use crate::edge::audit::event::{EventDraft, EventOutcome, Facts, Target};
use crate::edge::directory::Caller;
use crate::edge::store::{Change, ChargeRow, LineDone, Page, RunLineRow, RunRow, RunState, Verdict};

/// A run of the caller's tenant, as it is written.
pub async fn run(app: &App, caller: &Caller, id: RunId) -> Result<RunAnswer, Error> {
    let run = app.store.invoice_run(caller.tenant_id(), id).await?.ok_or(Error::RunUnknown)?;
    Ok(RunAnswer::of(app, &run))
}

/// Runs of the caller's tenant, newest first, older than `after`.
pub async fn runs(
    app: &App,
    caller: &Caller,
    after: Option<RunId>,
    limit: usize,
) -> Result<Page<RunAnswer>, Error> {
    let page = app.store.invoice_runs(caller.tenant_id(), after, limit).await?;
    Ok(Page { rows: page.rows.iter().map(|run| RunAnswer::of(app, run)).collect(), more: page.more })
}

/// Lines of a run from number `from` on, with what became of them.
pub async fn results(
    app: &App,
    caller: &Caller,
    id: RunId,
    from: u32,
    limit: usize,
) -> Result<Vec<ResultAnswer>, Error> {
    let tenant = caller.tenant_id();
    let lines = app.store.run_lines(tenant, id, from, limit).await?;
    log_read(app, caller, id, lines.len()).await?;
    let mut answers = Vec::with_capacity(lines.len());
    for line in lines {
        let charge = match &line.done {
            Some(LineDone::Charge(id, _)) => app.store.charge(tenant, &id.to_string()).await?,
            Some(LineDone::Refused(_)) | None => None,
        };
        answers.push(ResultAnswer::of(line, charge.as_ref()));
    }
    Ok(answers)
}

/// A run as the API writes it.
#[derive(Debug, Serialize)]
pub struct RunAnswer {
    id: String,
    state: &'static str,
    reason: Option<String>,
    validate_only: bool,
    retry_declined: bool,
    concurrency: u16,
    rate: Option<u32>,
    declared: Sums,
    /// What arrived.
    arrived: Sums,
    verdicts: BTreeMap<&'static str, u32>,
    progress: ProgressAnswer,
    outcomes: BTreeMap<String, u32>,
    destinations: Vec<LaneAnswer>,
    created_at: String,
    updated_at: String,
    started_at: Option<String>,
    finished_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct Sums {
    lines: u32,
    sums: BTreeMap<String, i64>,
}

#[derive(Debug, Serialize)]
struct ProgressAnswer {
    /// Lines that are to be charged.
    accepted: u32,
    /// Those that have their last outcome.
    settled: u32,
    /// Those whose charge was sent, or may have been, and that are being found out about.
    open: u32,
    under_way: u32,
    waiting: u32,
    per_second: f64,
}

#[derive(Debug, Serialize)]
struct LaneAnswer {
    destination: Option<String>,
    concurrency: u32,
    under_way: u32,
    backing_off: bool,
}

const OPEN: [&str; 3] = ["processing", "pending", "unknown"];

impl RunAnswer {
    /// A run as it stands.
    pub fn of(app: &App, run: &RunRow) -> Self {
        let live = app.charges.runs.live(run.id).map(|live| lock(&live.progress).clone());
        let live = live.filter(|_| run.state != RunState::Finished);
        let is_live = live.is_some();
        let progress = live.unwrap_or_default();
        let outcomes = if is_live { progress.outcomes.clone() } else { run.outcomes.clone() };
        Self {
            id: run.id.to_string(),
            state: run.state.word(),
            reason: run.reason.clone(),
            validate_only: run.options.validate_only,
            retry_declined: run.options.retry_declined,
            concurrency: run.options.concurrency,
            rate: run.options.rate,
            declared: Sums { lines: run.options.lines, sums: run.options.sums.clone() },
            arrived: Sums { lines: run.lines, sums: run.sums.clone() },
            verdicts: Verdict::ALL.into_iter().map(|verdict| (verdict.word(), run.count(verdict))).collect(),
            progress: ProgressAnswer::of(run, &progress, &outcomes),
            destinations: LaneAnswer::all(&progress),
            outcomes,
            created_at: run.created_at.to_string(),
            updated_at: run.updated_at.to_string(),
            started_at: run.started_at.map(|at| at.to_string()),
            finished_at: run.finished_at.map(|at| at.to_string()),
        }
    }
}

impl ProgressAnswer {
    fn of(run: &RunRow, progress: &Progress, outcomes: &BTreeMap<String, u32>) -> Self {
        let accepted = if run.options.validate_only { 0 } else { run.count(Verdict::Accepted) };
        let open: u32 = OPEN.iter().filter_map(|word| outcomes.get(*word)).sum();
        let worked_on: u32 = outcomes.values().sum();
        let waiting =
            if run.state.is_over() { 0 } else { accepted.saturating_sub(worked_on + progress.under_way) };
        Self {
            accepted,
            settled: worked_on.saturating_sub(open),
            open,
            under_way: progress.under_way,
            waiting,
            per_second: (progress.per_second * 10.0).round() / 10.0,
        }
    }
}

impl LaneAnswer {
    fn all(progress: &Progress) -> Vec<Self> {
        let lanes = progress.lanes.iter();
        lanes
            .map(|(name, (concurrency, under_way, backing_off))| Self {
                destination: (!name.is_empty()).then(|| name.clone()),
                concurrency: *concurrency,
                under_way: *under_way,
                backing_off: *backing_off,
            })
            .collect()
    }
}

/// A line and what became of it, as the API writes it.
#[derive(Debug, Serialize)]
pub struct ResultAnswer {
    line: u32,
    invoice: Option<String>,
    period: Option<String>,
    token: Option<String>,
    amount: Option<i64>,
    currency: Option<String>,
    verdict: &'static str,
    /// Of an accepted line: the status of its charge, `refused` if nothing was sent, or none yet.
    outcome: Option<&'static str>,
    code: Option<String>,
    param: Option<String>,
    decline_class: Option<String>,
    /// Its charge, or the one that has its invoice.
    charge: Option<String>,
    processor_transaction_id: Option<String>,
}

impl ResultAnswer {
    fn of(row: RunLineRow, charge: Option<&ChargeRow>) -> Self {
        let fault = row.line.fault;
        let (mut code, param) = fault.map_or((None, None), |fault| (Some(fault.code), fault.param));
        let order = row.line.order;
        let attempt = charge.and_then(|c| c.operations.first()).and_then(|first| first.attempts.last());
        let (outcome, charge_id) = match row.done {
            Some(LineDone::Charge(id, status)) => {
                code = charge.and_then(|charge| charge.code.clone());
                (Some(answer::status_word(status)), Some(id))
            }
            Some(LineDone::Refused(why)) => {
                code = Some(why);
                (Some("refused"), None)
            }
            None => (None, row.other),
        };
        Self {
            line: row.number,
            invoice: order.as_ref().map(|order| order.invoice.clone()),
            period: order.as_ref().map(|order| order.period.clone()),
            token: order.as_ref().map(|order| order.token.to_string()),
            amount: order.as_ref().map(|order| order.amount),
            currency: order.map(|order| order.currency),
            verdict: row.verdict.word(),
            outcome,
            code,
            param,
            decline_class: attempt.and_then(|attempt| attempt.decline_class.clone()),
            charge: charge_id.map(|id| id.to_string()),
            processor_transaction_id: attempt.and_then(|attempt| attempt.transaction_id.clone()),
        }
    }

    /// The number of its line.
    pub fn number(&self) -> u32 {
        self.line
    }

    /// The head of [`csv`](Self::csv).
    pub const CSV_HEAD: &'static str = "line,invoice,period,token,amount,currency,verdict,outcome,code,param,decline_class,charge,\
        processor_transaction_id\r\n";

    /// One line of CSV (RFC 4180).
    pub fn csv(&self) -> String {
        let text = |cell: &Option<String>| cell.clone().unwrap_or_default();
        answer::csv_line(&[
            self.line.to_string(),
            text(&self.invoice),
            text(&self.period),
            text(&self.token),
            self.amount.map(|amount| amount.to_string()).unwrap_or_default(),
            text(&self.currency),
            self.verdict.to_owned(),
            self.outcome.unwrap_or_default().to_owned(),
            text(&self.code),
            text(&self.param),
            text(&self.decline_class),
            text(&self.charge),
            text(&self.processor_transaction_id),
        ])
    }
}

/// Lines name cards; how a run stands says nothing of any.
async fn log_read(app: &App, caller: &Caller, id: RunId, count: usize) -> Result<(), Error> {
    let event = EventDraft {
        id: EventId::make(app.clock.now())?,
        tenant: Some(caller.tenant_id()),
        actor: caller.actor(),
        origin: caller.origin(),
        action: catalogue::RUN_READ,
        outcome: EventOutcome::Ok,
        target: Target { kind: "run".to_owned(), id: id.to_string(), version: None },
        keys: Vec::new(),
        facts: Facts { count: u64::try_from(count).ok(), ..Facts::default() },
    };
    if caller.is_person() {
        app.store.commit(Change { events: vec![event], ..Change::default() }).await?;
        return Ok(());
    }
    app.store.append_events(vec![event]).map_err(|_| Error::LogLagging)
}
