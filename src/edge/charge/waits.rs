//! For how long destinations asked to be left alone, as far as this process knows: what asks again and again asks none of them before.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::lock;
use crate::wire::forwarder::Outcome;

/// Until when each destination asked to be left alone, by its name.
#[derive(Debug, Default)]
pub(super) struct Waits(Mutex<HashMap<String, Instant>>);

impl Waits {
    /// What came of a request to this destination. What it said before and is longer holds on.
    pub(super) fn note(&self, destination: &str, outcome: &Outcome) {
        let wait = outcome.wait();
        if wait.is_zero() {
            return;
        }
        let until = Instant::now() + wait;
        let mut waits = lock(&self.0);
        match waits.get_mut(destination) {
            Some(before) => *before = until.max(*before),
            None => drop(waits.insert(destination.to_owned(), until)),
        }
    }

    /// How long it is still to be left alone.
    pub(super) fn left(&self, destination: &str) -> Duration {
        let until = lock(&self.0).get(destination).copied();
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, said};
    use super::*;
    use crate::wire::forwarder::{Answer, RETRY_AFTER_SECONDS_MAX, Verdict};

    #[test]
    fn the_longest_wait_holds_for_its_destination_and_within_the_limit() {
        let waits = Waits::default();
        let told = |seconds| said(1, Answer { retry_after_seconds: Some(seconds), ..answer(Verdict::Error) });
        waits.note("a", &told(100));
        waits.note("a", &told(10));
        waits.note("a", &said(1, answer(Verdict::Approved)));
        let left = waits.left("a").as_secs();
        assert!((90..=100).contains(&left), "{left}");
        assert_eq!(waits.left("b"), Duration::ZERO);
        waits.note("b", &told(u32::MAX));
        assert!(waits.left("b").as_secs() <= RETRY_AFTER_SECONDS_MAX.into());
    }
}
