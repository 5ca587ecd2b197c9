//! Forwards: a caller's own request to a forward destination, sent at most once, with the card filled in where this process never
//! sees it.
//!
//! - [`create`]: from the caller's body to the answer; `send`: the order of one forward; `answer`: as the API writes it.
//! - [`recover`]: after a restart, what was being sent has an outcome in the keeper, or is unknown for good.
//!
//! Invariant: no forward is sent twice: it is released against the grant of the one commit that made it.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::store::ForwardRow;
use crate::card::id::AttemptId;

mod answer;
mod create;
mod recover;
mod send;

pub use super::charge::Error;
pub use answer::forward_json;
pub use create::{create, read};
pub use recover::recover;

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
    /// Forwards of the process before whose outcome is waited for.
    awaited: Mutex<HashSet<AttemptId>>,
}

impl Forwards {
    /// Whether the outcome of a forward that the process before sent is waited for: nobody else may acknowledge it.
    pub fn awaits_outcome(&self, attempt: AttemptId) -> bool {
        lock(&self.awaited).contains(&attempt)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
