//! Forwards: a caller's own request to a forward destination, sent at most once, with the card filled in where this process never
//! sees it.
//!
//! - [`create`]: from the caller's body to the answer; `send`: the order of one forward; `answer`: as the API writes it.
//! - [`recover`]: after a restart, what was being sent has an outcome in the keeper, or is unknown for good.
//!
//! Invariant: no forward is sent twice: it is released against the grant of the one commit that made it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::App;
use super::keeper::KeeperError;
use super::store::ForwardRow;
use crate::card::id::{AttemptId, EventId};

mod answer;
mod create;
mod recover;
pub(in crate::edge) mod room;
mod send;

pub use super::charge::Error;
pub use answer::forward_json;
pub use create::{create, read};
pub use recover::recover;

/// A keeper that is gone for longer has forgotten what it held.
const ACKNOWLEDGE_MAX: u32 = 600;
/// Between two tries to acknowledge an outcome.
const ACKNOWLEDGE_AGAIN: Duration = Duration::from_millis(500);

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
    /// For answers that the keeper may come to hold.
    pub(in crate::edge) room: room::Room,
    /// Forwards of the process before whose outcome is waited for.
    awaited: Mutex<HashSet<AttemptId>>,
}

impl Forwards {
    /// Whether the outcome of a forward that the process before sent is waited for: nobody else may acknowledge it.
    pub fn awaits_outcome(&self, attempt: AttemptId) -> bool {
        lock(&self.awaited).contains(&attempt)
    }
}

/// Tells the keeper what is recorded, until it has heard it: what it holds takes room. A forward is sent once, so that no later outcome of
/// it can be meant. Then lets go of that room.
fn acknowledge(app: &App, attempt: AttemptId, openings: Vec<EventId>, room: Option<OwnedSemaphorePermit>) {
    let app = Arc::clone(app);
    tokio::spawn(async move {
        for _ in 0..ACKNOWLEDGE_MAX {
            let told = app.keeper.acknowledge(vec![attempt], openings.clone()).await;
            if !matches!(told, Err(KeeperError::Down | KeeperError::Busy)) {
                break;
            }
            tokio::time::sleep(ACKNOWLEDGE_AGAIN).await;
        }
        drop(room);
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
