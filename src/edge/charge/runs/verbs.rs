//! What people do with a run, and what the vault does with one by itself: it gives invoices back after the end, lets an upload that
//! was cut expire, and takes up at its start what the process before it left.

use std::sync::Arc;
use std::time::Duration;

use super::super::send::By;
use super::super::{Error, lock};
use super::{Told, commit, event, maker, next, runner};
use crate::card::id::RunId;
use crate::edge::App;
use crate::edge::audit::catalogue;
use crate::edge::directory::Caller;
use crate::edge::store::{Change, CommitError, RowChange, RunRow, RunState};

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

/// Does what a caller wants with a run; gives it as it is then.
pub async fn tell(app: &App, caller: &Caller, id: RunId, verb: Verb) -> Result<RunRow, Error> {
    let run = change(app, caller, id, verb).await?;
    match verb {
        Verb::Pause => {}
        Verb::Resume => runner::spawn(app, run.clone()),
        Verb::Cancel if app.charges.runs.live(id).is_none() => spawn_release(app, &run),
        Verb::Cancel => {}
    }
    Ok(run)
}

async fn change(app: &App, caller: &Caller, id: RunId, verb: Verb) -> Result<RunRow, Error> {
    for _ in 0..TRIES_MAX {
        let run = app.store.invoice_run(caller.tenant_id(), id).await?.ok_or(Error::RunUnknown)?;
        let Some(state) = verb.next(run.state)? else { return Ok(run) };
        let mut run = next(app, &run);
        (run.state, run.reason) = (state, None);
        if state.is_over() {
            run.finished_at = Some(run.updated_at);
        }
        let by = By { actor: caller.actor(), origin: caller.origin() };
        match commit(app, &run, Told { action: verb.action(), by, note: None, count: None }, None).await {
            Ok(()) => {
                if let Some(live) = app.charges.runs.live(id) {
                    live.changed.notify_one();
                }
                return Ok(run);
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
