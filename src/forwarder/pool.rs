//! Connections that wait for the next request of their destination.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::connection::Connection;

/// A connection that waited longer is likely to be closed from the other side at the wrong moment.
const IDLE_MAX: Duration = Duration::from_secs(15);
/// More than these would wait for a burst that is over.
const WAITING_MAX: usize = 256;

/// The waiting connections of one target, the one that was used last on top: the others may age and go.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<(Connection, Instant)>>);

impl Pool {
    /// A connection that can carry a request now, as far as anyone can know.
    pub(super) fn take(&self) -> Option<Connection> {
        loop {
            let (mut connection, since) = self.lock().pop()?;
            if since.elapsed() < IDLE_MAX && connection.is_usable() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose last answer was read to its end, if it is of further use.
    pub(super) fn give_back(&self, mut connection: Connection) {
        if connection.is_usable() {
            let mut waiting = self.lock();
            if waiting.len() < WAITING_MAX {
                waiting.push((connection, Instant::now()));
            }
        }
    }

    /// Drops what waited too long.
    pub(super) fn sweep(&self) {
        self.lock().retain(|(_, since)| since.elapsed() < IDLE_MAX);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Connection, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
