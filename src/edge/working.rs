//! Requests that are being worked on: while one is, another with its idempotency key waits outside.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::App;

/// Idempotency keys (keyed hashes, with tenant and route) that this process works on now.
#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<HashSet<[u8; 32]>>);

impl Keys {
    fn lock(&self) -> MutexGuard<'_, HashSet<[u8; 32]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key that is being worked on, while it lives.
pub(super) struct Working {
    app: App,
    key: [u8; 32],
}

impl Working {
    /// `None` if it is being worked on already.
    pub(super) fn take(app: &App, key: [u8; 32]) -> Option<Self> {
        app.working.lock().insert(key).then(|| Self { app: Arc::clone(app), key })
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.app.working.lock().remove(&self.key);
    }
}
