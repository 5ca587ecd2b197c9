//! Invoice runs: many charges handed in as one stream (contracts.md, "Invoice runs").
//!
//! ```text
//! stream ─► lines, order ─► upload: batches, verdicts decided by the store ─► totals match ─► runner ─► the charge machine
//! ```
//! - [`lines`], `order`: bytes to lines, whatever the pieces; `upload`: the stream, its resumption and its end.
//! - `runner`, `work`: works the accepted lines; `queues`: which wait, and which are read next; `lane`: how fast, for each destination, over all runs.
//! - `verbs`: pause, resume, cancel, what is given back after the end, expiry.
//! - [`show`]: a run as the API writes it, and its lines.
//!
//! A line's charge is inserted together with the line's mark, in the commit of its first attempt: after a crash the marks say which
//! lines are left. Nothing else is kept about progress.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::send::By;
use super::{Error, lock};
use crate::card::id::{EventId, RunId};
use crate::edge::App;
use crate::edge::audit::event::{Actor, EventDraft, EventOutcome, Facts, Origin, Target};
use crate::edge::store::{Change, Idempotency, RowChange, RunRow};

mod lane;
pub mod lines;
mod order;
mod queues;
mod runner;
pub mod show;
mod upload;
mod verbs;
mod work;

pub use runner::Progress;
pub use upload::{Chunks, Cut, Upload, upload};
#[cfg(test)]
pub(in crate::edge) use verbs::expire;
pub use verbs::{Verb, take_up, tell};

/// What runs keep in memory.
#[derive(Debug, Default)]
pub struct Runs {
    /// Runs whose lines a task of this process charges.
    live: Mutex<HashMap<RunId, Arc<Live>>>,
    /// Runs whose stream is arriving.
    uploading: Mutex<std::collections::HashSet<RunId>>,
    /// How fast they go, at each destination.
    lanes: Arc<lane::Lanes>,
}

/// A run that a task works on.
#[derive(Debug, Default)]
struct Live {
    /// Its row changed.
    changed: Notify,
    progress: Mutex<Progress>,
}

impl Runs {
    fn live(&self, id: RunId) -> Option<Arc<Live>> {
        lock(&self.live).get(&id).map(Arc::clone)
    }
}

/// Who is behind what a run does by itself: who made it.
fn maker(app: &App, run: &RunRow) -> By {
    let principals = app.directory.principals();
    let principal = principals.iter().find(|principal| principal.id == run.principal);
    let actor = principal.map_or_else(|| Actor::System("runner".to_owned()), |principal| principal.actor());
    By { actor, origin: Origin { ip: None, request: Some(run.request) } }
}

/// What is told of a run.
struct Told {
    action: &'static str,
    by: By,
    note: Option<String>,
    count: Option<u32>,
}

fn event(app: &App, run: &RunRow, told: Told) -> Result<EventDraft, Error> {
    Ok(EventDraft {
        id: EventId::make(app.clock.now())?,
        tenant: Some(run.tenant),
        actor: told.by.actor,
        origin: told.by.origin,
        action: told.action,
        outcome: EventOutcome::Ok,
        target: Target { kind: "run".to_owned(), id: run.id.to_string(), version: Some(run.revision) },
        keys: Vec::new(),
        facts: Facts { note: told.note, count: told.count.map(u64::from), ..Facts::default() },
    })
}

/// Commits a run's next revision with its event.
async fn commit(app: &App, run: &RunRow, told: Told, idempotency: Option<Idempotency>) -> Result<(), Error> {
    let events = vec![event(app, run, told)?];
    let change = Change { rows: vec![RowChange::PutRun(Box::new(run.clone()))], events, idempotency };
    app.store.commit(change).await?;
    Ok(())
}

/// The run as its next revision.
fn next(app: &App, run: &RunRow) -> RunRow {
    let now = app.clock.now();
    RunRow { revision: run.revision.saturating_add(1), updated_at: now.max(run.updated_at), ..run.clone() }
}
