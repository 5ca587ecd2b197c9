//! Webhooks out: endpoints as callers manage them, and the delivery of what the store has written for them.
//!
//! ```text
//!   change ─► store: notice and deliveries in the same transaction ─► dispatch ─► keeper signs ─► courier posts ─► outcome, a change
//! ```
//! Delivered at least once, with one id; what was on its way when a process ended is posted again. Deliveries do not wait for each
//! other: an object's sequence puts them in order.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::audit::event::{Actor, EventDraft, EventOutcome, Facts, Origin, Target};
use super::keeper::KeeperError;
use super::store::{CommitError, EndpointRow, StoreError};
use crate::card::id::{EndpointId, EventId, NoticeId};
use crate::clock::Time;
use crate::random::NoRandomness;

mod dispatch;
mod expiring;
mod place;
mod verbs;

pub(super) use dispatch::run;
pub(super) use expiring::run as tell_expiring;
pub use place::{Place, place_of};
pub use verbs::{
    EndpointChange, NewEndpoint, Replay, Shown, create, delete, deliveries, endpoint, endpoint_json,
    endpoints, notice, replay, rotate, test, update,
};

/// Deliveries under way at once; a body is a few kilobytes.
const UNDER_WAY_MAX: usize = 512;

/// Why it was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The keeper did not do it.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The store did not commit it.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No randomness.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// No such endpoint of this tenant.
    #[error("there is no such endpoint")]
    EndpointUnknown,
    /// No such notice of this tenant.
    #[error("there is no such event")]
    NoticeUnknown,
    /// The URL is not on the operator's list.
    #[error("the host is not allowed")]
    HostNotAllowed,
    /// The endpoint is switched off.
    #[error("the endpoint is switched off")]
    Disabled,
    /// The idempotency key was used for another body.
    #[error("the idempotency key was used for another body")]
    KeyReused,
    /// The same request is being worked on.
    #[error("the same request is being worked on")]
    InProgress,
}

/// What is on its way.
#[derive(Debug)]
struct AtWork {
    under_way: Mutex<HashSet<(EndpointId, NoticeId)>>,
    /// Endpoints whose receivers asked to be left alone, by where they were then, and until when.
    left_alone: Mutex<HashMap<(EndpointId, String), Instant>>,
    places: Arc<Semaphore>,
    freed: Notify,
}

/// One delivery's place among those under way.
struct Going {
    at_work: Arc<AtWork>,
    of: (EndpointId, NoticeId),
    _place: OwnedSemaphorePermit,
}

impl AtWork {
    fn new() -> Self {
        Self {
            under_way: Mutex::default(),
            left_alone: Mutex::default(),
            places: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
            freed: Notify::new(),
        }
    }

    /// A place, unless there is none or this delivery is under way already.
    fn begin(self: &Arc<Self>, of: (EndpointId, NoticeId)) -> Option<Going> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let is_new = lock(&self.under_way).insert(of);
        is_new.then(|| Going { at_work: Arc::clone(self), of, _place: place })
    }

    /// Nothing goes to the endpoint for so long, unless it moves.
    fn leave_alone(&self, row: &EndpointRow, time: Duration) {
        let now = Instant::now();
        let mut left = lock(&self.left_alone);
        left.retain(|_, until| *until > now);
        left.insert((row.id, row.url.clone()), now + time);
    }

    fn is_left_alone(&self, row: &EndpointRow) -> bool {
        let left = lock(&self.left_alone);
        left.get(&(row.id, row.url.clone())).is_some_and(|until| *until > Instant::now())
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        lock(&self.at_work.under_way).remove(&self.of);
        self.at_work.freed.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An event about an endpoint.
fn event(
    (actor, origin): (Actor, Origin),
    action: &'static str,
    row: &EndpointRow,
    now: Time,
    facts: Facts,
) -> Result<EventDraft, NoRandomness> {
    Ok(EventDraft {
        id: EventId::make(now)?,
        tenant: Some(row.tenant),
        actor,
        origin,
        action,
        outcome: EventOutcome::Ok,
        target: Target {
            kind: "webhook_endpoint".to_owned(),
            id: row.id.to_string(),
            version: Some(row.revision),
        },
        keys: Vec::new(),
        facts,
    })
}
