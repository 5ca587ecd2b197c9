//! Forwards: a caller's own request to a forward destination, sent at most once, with the card filled in where this process never
//! sees it.
//!
//! - [`create`]: from the caller's body to the answer; `send`: the order of one forward; `answer`: as the API writes it.
//! - [`recover`]: after a restart, what was being sent has an outcome in the keeper, or is unknown for good.
//!
//! Invariant: no forward is sent twice: it is released against the grant of the one commit that made it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::App;
use super::charge;
use super::keeper::KeeperError;
use super::store::{CommitError, ForwardRow, StoreError};
use crate::card::id::AttemptId;
use crate::clock::Time;
use crate::random::NoRandomness;

mod answer;
mod create;
mod recover;
mod send;

pub use answer::forward_json;
pub use create::{create, read};
pub use recover::recover;

/// How a verb on forwards ends otherwise than asked; in all cases nothing was sent, or what was is told by the forward itself.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The keeper did not do it.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The store did not commit it.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There was no randomness for an id.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// It could not be prepared.
    #[error(transparent)]
    Prepare(#[from] charge::Error),
    /// No such token, or another tenant's.
    #[error("there is no such token")]
    TokenUnknown,
    /// The card is gone.
    #[error("the card was erased")]
    TokenErased {
        /// When its bytes were gone from every file.
        scrubbed_at: Option<Time>,
    },
    /// The card is going.
    #[error("the card is being erased")]
    TokenErasing,
    /// The card is suspended.
    #[error("the card is suspended")]
    TokenSuspended,
    /// The idempotency key was used for another body.
    #[error("the idempotency key was used for another body")]
    KeyReused,
    /// A request with this key is being worked on.
    #[error("a request with this key is being worked on")]
    InProgress,
    /// No such forward destination for this tenant's mode, or the principal may not send there.
    #[error("there is no such destination")]
    DestinationUnknown,
    /// No such forward, or another tenant's.
    #[error("there is no such forward")]
    ForwardUnknown,
    /// The log lags, so reads stop.
    #[error("the audit log lags")]
    LogLagging,
    /// The task that did it broke off; the forward says what became of it.
    #[error("the work broke off")]
    BrokenOff,
}

/// What a request for a forward is answered with.
#[derive(Clone, Debug)]
pub enum Made {
    /// What would be sent: JSON.
    Shown(Vec<u8>),
    /// The forward as it stands.
    Forward {
        /// It.
        row: Box<ForwardRow>,
        /// Whether it was answered before.
        replayed: bool,
    },
}

/// What the verbs on forwards keep in memory.
#[derive(Debug, Default)]
pub struct Forwards {
    /// Idempotency keys (keyed hashes, with tenant and route) that this process works on now.
    working: Mutex<HashSet<[u8; 32]>>,
    /// Forwards of the process before whose outcome is waited for.
    awaited: Mutex<HashSet<AttemptId>>,
}

impl Forwards {
    /// Whether the outcome of a forward that the process before sent is waited for: nobody else may acknowledge it.
    pub fn awaits_outcome(&self, attempt: AttemptId) -> bool {
        lock(&self.awaited).contains(&attempt)
    }
}

/// A key that is being worked on, while it lives.
struct Working {
    app: App,
    key: [u8; 32],
}

impl Working {
    /// `None` if it is being worked on already.
    fn take(app: &App, key: [u8; 32]) -> Option<Self> {
        lock(&app.forwards.working).insert(key).then(|| Self { app: Arc::clone(app), key })
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        lock(&self.app.forwards.working).remove(&self.key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
