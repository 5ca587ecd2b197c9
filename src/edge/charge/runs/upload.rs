//! A run's stream, from its first byte to its end. Lines are committed in batches as they arrive. An upload that was cut goes on when
//! the whole stream is sent again under the same key: what is there already is compared, not taken twice.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use super::super::send::By;
use super::super::{Error, lock};
use super::lines::{Form, LineReader};
use super::order::{self, Read};
use super::{Told, commit, event, next, runner, verbs};
use crate::card::id::RunId;
use crate::card::stray;
use crate::edge::App;
use crate::edge::audit::catalogue;
use crate::edge::charge::create;
use crate::edge::directory::Caller;
use crate::edge::http::problem::Problem;
use crate::edge::store::{
    Change, CommitError, Idempotency, RowChange, RunLine, RunOptions, RunOrder, RunRow, RunState,
    StoredAnswer, StoredIdempotency,
};
use crate::edge::working::Working;
use crate::wire::keeper::{Digest, Digested};

const ROUTE: &str = "POST /v1/invoice_runs";
/// Lines of one change, and the most that are in memory; few in tests, so that there are many.
const BATCH: usize = if cfg!(test) { 4 } else { 256 };

/// The stream broke off, or stood still for too long.
#[derive(Clone, Copy, Debug)]
pub struct Cut;

/// Where a stream's bytes come from.
pub trait Chunks: Send {
    /// Some bytes.
    type Chunk: AsRef<[u8]> + Send;

    /// The next bytes; none after the proper end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Self::Chunk>, Cut>> + Send;
}

/// What is handed in.
#[derive(Clone, Debug)]
pub struct Upload {
    /// The caller's key.
    pub key: String,
    /// How the run is to be carried out.
    pub options: RunOptions,
    /// The form of the stream.
    pub form: Form,
}

/// Takes a run in. Gives it as it stands then, and whether it had been taken in before.
pub async fn upload(
    app: &App,
    caller: &Caller,
    upload: Upload,
    mut chunks: impl Chunks,
) -> Result<(RunRow, bool), Error> {
    let body = serde_json::to_vec(&upload.options).unwrap_or_default();
    let digest =
        Digest { tenant: caller.tenant_id(), route: ROUTE.to_owned(), idempotency_key: upload.key, body };
    let digests = app.keeper.digest(digest).await?;
    let guard = Working::take(app, digests.key).ok_or(Error::InProgress)?;
    let run = find_or_make(app, caller, upload.options, &digests).await?;
    if run.state != RunState::Uploading {
        // Whoever sends it all again shall be able to read the answer.
        while chunks.next().await.map_err(|Cut| Error::UploadCut)?.is_some() {}
        let run = app.store.invoice_run(run.tenant, run.id).await?.ok_or(Error::RunUnknown)?;
        return Ok((run, true));
    }
    let arriving = Arriving::new(app, run.id);
    let mut intake = Intake::new(app, caller, run);
    let ended = intake.take(&mut chunks, upload.form).await;
    if let Err(error) = &ended
        && !matches!(error, Error::RunTotals | Error::RunHeader)
    {
        return Err(error.clone());
    }
    // In a task of its own: a caller who hangs up now leaves no run that nobody works on.
    let (app, caller, run) = (Arc::clone(app), caller.clone(), intake.run);
    let ending = tokio::spawn(async move {
        let run = end(&app, &caller, run, ended.is_ok()).await;
        drop((arriving, guard));
        ended.and(run)
    });
    Ok((ending.await.map_err(|_| Error::BrokenOff)??, false))
}

/// The stream is over: what it began.
async fn end(app: &App, caller: &Caller, run: RunRow, is_as_declared: bool) -> Result<RunRow, Error> {
    let mut run = next(app, &run);
    let action = if !is_as_declared {
        // Nothing of it is charged, and its invoices are free again.
        run.state = RunState::Rejected;
        catalogue::RUN_REJECTED
    } else if run.options.validate_only {
        run.state = RunState::Finished;
        catalogue::RUN_FINISHED
    } else {
        run.state = RunState::Running;
        catalogue::RUN_STARTED
    };
    run.started_at = is_as_declared.then_some(run.updated_at);
    run.finished_at = run.state.is_over().then_some(run.updated_at);
    let by = By { actor: caller.actor(), origin: caller.origin() };
    commit(app, &run, Told { action, by, note: None, count: Some(run.lines) }, None).await?;
    if run.state == RunState::Running {
        runner::spawn(app, run.clone());
    } else {
        verbs::spawn_release(app, &run);
    }
    Ok(run)
}

async fn find_or_make(
    app: &App,
    caller: &Caller,
    options: RunOptions,
    digests: &Digested,
) -> Result<RunRow, Error> {
    let tenant = caller.tenant_id();
    if let Some(stored) = app.store.idempotency(tenant, ROUTE, &digests.key).await? {
        return find(app, caller, stored, digests).await;
    }
    let now = app.clock.now();
    let run = RunRow {
        id: RunId::make(now)?,
        tenant,
        revision: 1,
        state: RunState::Uploading,
        reason: None,
        principal: caller.principal.id,
        request: caller.request,
        options,
        lines: 0,
        sums: BTreeMap::new(),
        verdicts: BTreeMap::new(),
        outcomes: BTreeMap::new(),
        released: 0,
        created_at: now,
        updated_at: now,
        started_at: None,
        finished_at: None,
    };
    let idempotency = Idempotency {
        tenant,
        route: ROUTE,
        key: digests.key,
        body_mac: digests.body,
        subject_token: None,
        answer: StoredAnswer::Reserved { subject: run.id.to_string() },
    };
    let by = By { actor: caller.actor(), origin: caller.origin() };
    let told = Told { action: catalogue::RUN_CREATED, by, note: None, count: Some(run.options.lines) };
    match commit(app, &run, told, Some(idempotency)).await {
        Err(Error::Commit(CommitError::KeyTaken(stored))) => find(app, caller, *stored, digests).await,
        Err(error) => Err(error),
        Ok(()) => Ok(run),
    }
}

/// The run that was made under the same key.
async fn find(
    app: &App,
    caller: &Caller,
    stored: StoredIdempotency,
    digests: &Digested,
) -> Result<RunRow, Error> {
    if stored.body_mac != Some(digests.body) {
        return Err(Error::KeyReused);
    }
    let StoredAnswer::Reserved { subject } = stored.answer else { return Err(Error::KeyReused) };
    let id = RunId::parse(&subject).ok_or(Error::RunUnknown)?;
    app.store.invoice_run(caller.tenant_id(), id).await?.ok_or(Error::RunUnknown)
}

/// A run whose stream is arriving, while it does: it does not expire.
struct Arriving(App, RunId);

impl Arriving {
    fn new(app: &App, id: RunId) -> Self {
        lock(&app.charges.runs.uploading).insert(id);
        Self(Arc::clone(app), id)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        lock(&self.0.charges.runs.uploading).remove(&self.1);
    }
}

/// What has arrived of a run.
struct Intake<'a> {
    app: &'a App,
    caller: &'a Caller,
    run: RunRow,
    /// Lines that are kept from before, and not compared yet.
    kept: u32,
    /// Lines of this stream that were compared or committed.
    taken: u32,
}

impl<'a> Intake<'a> {
    fn new(app: &'a App, caller: &'a Caller, run: RunRow) -> Self {
        Self { app, caller, kept: run.lines, taken: 0, run }
    }

    async fn take(&mut self, chunks: &mut impl Chunks, form: Form) -> Result<(), Error> {
        let (mut reader, mut waiting) = (LineReader::new(form), Vec::new());
        loop {
            let chunk = chunks.next().await;
            let is_end = matches!(chunk, Ok(None));
            let read = match &chunk {
                Ok(Some(chunk)) => reader.push(chunk.as_ref(), &mut waiting),
                Ok(None) => reader.end(&mut waiting),
                Err(Cut) => {
                    // What is whole is kept, so that the next try finds it.
                    self.take_lines(std::mem::take(&mut waiting)).await?;
                    return Err(Error::UploadCut);
                }
            };
            read.map_err(|_| Error::RunHeader)?;
            while waiting.len() >= BATCH || (is_end && !waiting.is_empty()) {
                let rest = waiting.split_off(BATCH.min(waiting.len()));
                self.take_lines(std::mem::replace(&mut waiting, rest)).await?;
            }
            if is_end {
                break;
            }
        }
        let declared = &self.run.options;
        if self.taken != self.run.lines || self.run.lines != declared.lines || self.run.sums != declared.sums
        {
            return Err(Error::RunTotals);
        }
        Ok(())
    }

    async fn take_lines(&mut self, mut lines: Vec<Read>) -> Result<(), Error> {
        let left = usize::try_from(self.kept - self.taken).unwrap_or(usize::MAX);
        let fresh = lines.split_off(left.min(lines.len()));
        self.compare(lines).await?;
        if fresh.is_empty() { Ok(()) } else { self.commit(fresh).await }
    }

    /// Lines that were sent before must be the same ones.
    async fn compare(&mut self, lines: Vec<Read>) -> Result<(), Error> {
        if lines.is_empty() {
            return Ok(());
        }
        let (id, tenant) = (self.run.id, self.run.tenant);
        let kept = self.app.store.run_lines(tenant, id, self.taken + 1, lines.len()).await?;
        for (line, kept) in lines.iter().zip(&kept) {
            let same = match (&line.line.order, &kept.line.order) {
                (None, None) => line.line.fault == kept.line.fault,
                (Some(sent), Some(kept)) => sent == kept,
                // An identifier that looks like a card number is not kept.
                (Some(sent), None) => self.stray(sent) == kept.line.fault,
                (None, Some(_)) => false,
            };
            if !same {
                return Err(Error::UploadDiffers);
            }
        }
        self.taken += u32::try_from(lines.len()).unwrap_or(u32::MAX);
        Ok(())
    }

    async fn commit(&mut self, lines: Vec<Read>) -> Result<(), Error> {
        let count = u32::try_from(lines.len()).unwrap_or(u32::MAX);
        let mut run = next(self.app, &self.run);
        run.lines = run.lines.saturating_add(count);
        if run.lines > run.options.lines {
            return Err(Error::RunTotals);
        }
        let mut checked = Vec::with_capacity(lines.len());
        for read in lines {
            if let Some((currency, amount)) = read.adds {
                let sum = run.sums.entry(currency).or_default();
                *sum = sum.checked_add(amount).ok_or(Error::RunTotals)?;
            }
            checked.push(self.check(read.line).await?);
        }
        // The sums of a stream without a word about a currency do not grow by it without end.
        if run.sums.keys().any(|currency| !run.options.sums.contains_key(currency)) {
            return Err(Error::RunTotals);
        }
        let told = Told { action: catalogue::RUN_LINES, by: self.by(), note: None, count: Some(count) };
        let change = Change {
            events: vec![event(self.app, &run, told)?],
            rows: vec![RowChange::AddRunLines { run: Box::new(run.clone()), lines: checked }],
            idempotency: None,
        };
        // Cancelled meanwhile, as nobody else uploads it.
        let is_cancelled = |error: &CommitError| matches!(error, CommitError::Conflict);
        if let Err(error) = self.app.store.commit(change).await {
            return Err(if is_cancelled(&error) { Error::RunState } else { error.into() });
        }
        self.run = self.app.store.invoice_run(run.tenant, run.id).await?.ok_or(Error::RunUnknown)?;
        (self.kept, self.taken) = (self.run.lines, self.run.lines);
        Ok(())
    }

    /// What the vault knows against a line now, though it reads well.
    async fn check(&self, line: RunLine) -> Result<RunLine, Error> {
        let Some(order) = &line.order else { return Ok(line) };
        if let Some(fault) = self.stray(order) {
            return Ok(RunLine { order: None, fault: Some(fault) });
        }
        match create::check_line(self.app, self.caller, order).await {
            Ok(()) => Ok(line),
            Err(error @ (Error::Store(_) | Error::Commit(_) | Error::Keeper(_) | Error::Randomness(_))) => {
                Err(error)
            }
            Err(error) => {
                let problem = Problem::from(error);
                let fault = order::fault(problem.code().spec().name, problem.param());
                Ok(RunLine { fault: Some(fault), ..line })
            }
        }
    }

    fn stray(&self, order: &RunOrder) -> Option<crate::edge::store::LineFault> {
        let fields = [
            ("invoice", order.invoice.as_str()),
            ("period", order.period.as_str()),
            ("destination", order.destination.as_deref().unwrap_or_default()),
        ];
        let is_stray = |(field, text): &(&str, &str)| {
            stray::is_identifier(text)
                && !self.app.directory.is_exempt(self.caller.principal.tenant, field, text)
        };
        fields.into_iter().find(is_stray).map(|(field, _)| order::fault("stray_number", Some(field)))
    }

    fn by(&self) -> By {
        By { actor: self.caller.actor(), origin: self.caller.origin() }
    }
}
