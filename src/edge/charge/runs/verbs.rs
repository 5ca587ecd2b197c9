//! What people do with a run, and what the vault does with one by itself: it gives invoices back after the end, lets an upload that
//! was cut expire, and takes up at its start what the process before it left.

use std::sync::Arc;
use std::time::Duration;

use super::super::send::{By, Claim};
use super::super::{Answered, Error, create, lock};
use super::show::RunAnswer;
use super::{Told, commit, event, maker, next, runner};
use crate::card::id::RunId;
use crate::edge::App;
use crate::edge::audit::catalogue;
use crate::edge::directory::Caller;
use crate::edge::store::{Change, CommitError, Idempotency, RowChange, RunRow, RunState, StoredAnswer};
use crate::edge::working::Working;
use crate::wire::keeper::Digest;

/// An upload that was cut may go on for so long; until then its invoices are claimed.
const UPLOAD_SECONDS_MAX: i64 = 3_600;
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Lines whose invoices are given back in one change.
const RELEASE: u32 = 256;
const TRIES_MAX: u32 = 8;
const BREATH: Duration = Duration::from_millis(500);

/// What people do with a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Has it stand still; what is on its way goes on.
    Pause,
    /// Lets it go on.
    Resume,
    /// Ends it; what is on its way goes on, the other invoices are given back.
    Cancel,
}

impl Verb {
    const fn route(self) -> &'static str {
        match self {
            Self::Pause => "POST /v1/invoice_runs/{id}/pause",
            Self::Resume => "POST /v1/invoice_runs/{id}/resume",
            Self::Cancel => "POST /v1/invoice_runs/{id}/cancel",
        }
    }

    const fn action(self) -> &'static str {
        match self {
            Self::Pause => catalogue::RUN_PAUSED,
            Self::Resume => catalogue::RUN_RESUMED,
            Self::Cancel => catalogue::RUN_CANCELLED,
        }
    }

    /// The state that follows; none if it is there already.
    const fn next(self, state: RunState) -> Result<Option<RunState>, Error> {
        match (self, state) {
            (Self::Pause, RunState::Running) => Ok(Some(RunState::Paused)),
            (Self::Resume, RunState::Paused) => Ok(Some(RunState::Running)),
            (Self::Cancel, RunState::Uploading | RunState::Running | RunState::Paused) => {
                Ok(Some(RunState::Cancelled))
            }
            (Self::Pause, RunState::Paused)
            | (Self::Resume, RunState::Running)
            | (Self::Cancel, RunState::Cancelled) => Ok(None),
            (
                _,
                RunState::Uploading
                | RunState::Finished
                | RunState::Cancelled
                | RunState::Expired
                | RunState::Rejected,
            ) => Err(Error::RunState),
        }
    }
}

/// Does what a caller wants with a run; answers with it as it is then, and again so when the same request comes again.
pub async fn tell(
    app: &App,
    caller: &Caller,
    (id, verb): (RunId, Verb),
    (key, body): (&str, &[u8]),
) -> Result<Answered, Error> {
    let (tenant, route) = (caller.tenant_id(), verb.route());
    let digest = Digest {
        tenant,
        route: route.replace("{id}", &id.to_string()),
        idempotency_key: key.to_owned(),
        body: body.to_vec(),
    };
    let digests = app.keeper.digest(digest).await?;
    let _guard = Working::take(app, digests.key).ok_or(Error::InProgress)?;
    let claim =
        Claim { tenant, route, key: digests.key, body_mac: digests.body, token: None, operation: None };
    if let Some(stored) = app.store.idempotency(tenant, route, &claim.key).await? {
        return create::replay(app, &claim, stored).await;
    }
    let (run, body) = match change(app, caller, (id, verb), &claim).await {
        Err(Error::Commit(CommitError::KeyTaken(stored))) => {
            return create::replay(app, &claim, *stored).await;
        }
        changed => changed?,
    };
    match verb {
        Verb::Pause => {}
        Verb::Resume => runner::spawn(app, run.clone()),
        Verb::Cancel if app.charges.runs.live(id).is_none() => spawn_release(app, &run),
        Verb::Cancel => {}
    }
    Ok(Answered { status: 200, location: None, body, replayed: false, upstream_us: None, processor_us: None })
}

async fn change(
    app: &App,
    caller: &Caller,
    (id, verb): (RunId, Verb),
    claim: &Claim,
) -> Result<(RunRow, Vec<u8>), Error> {
    let answered = |body: &[u8]| -> Idempotency {
        claim.with(StoredAnswer::Frozen { status: 200, location: None, body: body.to_vec() })
    };
    let write = |run: &RunRow| serde_json::to_vec(&RunAnswer::of(app, run)).unwrap_or_default();
    for _ in 0..TRIES_MAX {
        let run = app.store.invoice_run(caller.tenant_id(), id).await?.ok_or(Error::RunUnknown)?;
        let Some(state) = verb.next(run.state)? else {
            let body = write(&run);
            app.store.commit(Change { idempotency: Some(answered(&body)), ..Change::default() }).await?;
            return Ok((run, body));
        };
        let mut run = next(app, &run);
        (run.state, run.reason) = (state, None);
        if state.is_over() {
            run.finished_at = Some(run.updated_at);
        }
        let by = By { actor: caller.actor(), origin: caller.origin() };
        let (told, body) = (Told { action: verb.action(), by, note: None, count: None }, write(&run));
        match commit(app, &run, told, Some(answered(&body))).await {
            Ok(()) => {
                if let Some(live) = app.charges.runs.live(id) {
                    live.changed.notify_one();
                }
                return Ok((run, body));
            }
            Err(Error::Commit(CommitError::Conflict)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(CommitError::Conflict.into())
}

/// Gives back, in a task of its own, what a run that is over had claimed and not charged.
pub(super) fn spawn_release(app: &App, run: &RunRow) {
    if run.is_to_release() {
        tokio::spawn(release(Arc::clone(app), run.clone()));
    }
}

async fn release(app: App, mut run: RunRow) {
    while run.is_to_release() {
        match release_some(&app, &run).await {
            Ok(next) => run = next,
            Err(_) => {
                tokio::time::sleep(BREATH).await;
                match app.store.invoice_run(run.tenant, run.id).await {
                    Ok(Some(row)) => run = row,
                    Ok(None) => return,
                    Err(_) => {}
                }
            }
        }
    }
}

async fn release_some(app: &App, run: &RunRow) -> Result<RunRow, Error> {
    let from = run.released;
    let mut run = next(app, run);
    run.released = from.saturating_add(RELEASE).min(run.lines);
    let count = Some(run.released - from);
    let told = Told { action: catalogue::RUN_RELEASED, by: maker(app, &run), note: None, count };
    let events = vec![event(app, &run, told)?];
    let rows = vec![RowChange::ReleaseRunLines { run: Box::new(run.clone()), from }];
    app.store.commit(Change { rows, events, idempotency: None }).await?;
    Ok(run)
}

/// Takes up what was going on when the edge before this one ended, and from then on whatever was left between two steps; lets uploads
/// that were cut expire.
pub async fn take_up(app: App) {
    loop {
        if tend(&app).await.is_err() {
            tracing::warn!(code = "runs", "it could not be looked which runs have to go on");
            tokio::time::sleep(BREATH).await;
        } else {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

async fn tend(app: &App) -> Result<(), Error> {
    for run in app.store.invoice_runs_at_work().await? {
        if run.state == RunState::Running {
            runner::spawn(app, run);
        } else if app.charges.runs.live(run.id).is_none() {
            spawn_release(app, &run);
        }
    }
    expire(app).await
}

/// Ends uploads that were cut and not taken up again in time.
pub(in crate::edge) async fn expire(app: &App) -> Result<(), Error> {
    let now = app.clock.now();
    for run in app.store.invoice_runs_at_work().await? {
        let is_arriving = lock(&app.charges.runs.uploading).contains(&run.id);
        let is_old = run.updated_at.plus_seconds(UPLOAD_SECONDS_MAX) <= now;
        if run.state != RunState::Uploading || is_arriving || !is_old {
            continue;
        }
        let mut run = next(app, &run);
        (run.state, run.finished_at) = (RunState::Expired, Some(run.updated_at));
        let told =
            Told { action: catalogue::RUN_EXPIRED, by: maker(app, &run), note: None, count: Some(run.lines) };
        commit(app, &run, told, None).await?;
        spawn_release(app, &run);
    }
    Ok(())
}
