//! Places for what is looked into: so many at one destination, so that a processor that is down is not hammered, and one that answers
//! slowly holds up nobody who waits for another; so many in all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lock;

/// Attempts that are looked into at the same time at one destination, whatever their number.
const AT_ONE: usize = 32;
/// The same at all of them: as many as eight that stall can hold.
const AT_ALL: usize = 8 * AT_ONE;

/// Places by destination, and those of all.
#[derive(Debug)]
pub(super) struct Slots {
    at_one: usize,
    of: Mutex<HashMap<String, Arc<Semaphore>>>,
    all: Arc<Semaphore>,
}

/// A place, taken until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    _all: OwnedSemaphorePermit,
    _one: OwnedSemaphorePermit,
    /// How long it was waited for.
    pub(super) waited: Duration,
}

impl Default for Slots {
    fn default() -> Self {
        Self::new(AT_ONE, AT_ALL)
    }
}

impl Slots {
    fn new(at_one: usize, at_all: usize) -> Self {
        Self { at_one, of: Mutex::default(), all: Arc::new(Semaphore::new(at_all)) }
    }

    /// Waits for a place at a destination; `None` never comes while the process lives.
    pub(super) async fn take(&self, destination: &str) -> Option<Slot> {
        let since = Instant::now();
        let one = self.of(destination);
        // The destination's own first: whoever waits for it holds none of the places of all.
        let one = one.acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Slot { _all: all, _one: one, waited: since.elapsed() })
    }

    fn of(&self, destination: &str) -> Arc<Semaphore> {
        let mut of = lock(&self.of);
        if let Some(known) = of.get(destination) {
            return Arc::clone(known);
        }
        let made = Arc::new(Semaphore::new(self.at_one));
        of.insert(destination.to_owned(), Arc::clone(&made));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    async fn is_full(slots: &Slots, destination: &str) -> bool {
        tokio::time::timeout(SOON, slots.take(destination)).await.is_err()
    }

    #[tokio::test]
    async fn a_destination_that_stalls_holds_up_no_other() {
        let slots = Slots::new(2, 3);
        let _stalled = (slots.take("a").await.unwrap(), slots.take("a").await.unwrap());
        assert!(is_full(&slots, "a").await);
        let other = slots.take("b").await.unwrap();
        assert!(other.waited < SOON);
        assert!(is_full(&slots, "b").await, "all are taken");
        drop(other);
        assert!(!is_full(&slots, "b").await);
    }

    #[tokio::test]
    async fn a_place_tells_how_long_it_was_waited_for() {
        let slots = Arc::new(Slots::new(1, 1));
        let held = slots.take("a").await.unwrap();
        let waiting = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.take("a").await.unwrap().waited }
        });
        tokio::time::sleep(SOON).await;
        drop(held);
        assert!(waiting.await.unwrap() >= SOON / 2);
    }
}
