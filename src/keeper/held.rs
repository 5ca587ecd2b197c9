//! What is held between two questions of one request, for at most five seconds: a CVC, or rendered bytes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::cleartext::charge_body::PassThrough;
use super::exchanges::Outgoing;
use crate::forwarding::request::Request;

const HELD_FOR: Duration = Duration::from_secs(5);
/// More than the edge lets be under way at once.
const HELD_MAX: usize = 8192;

/// One thing that is held.
pub(in crate::keeper) enum Held {
    /// CVC and pass-through data of a charge.
    PassThrough(Box<PassThrough>),
    /// A rendered request.
    Request(Box<Outgoing>),
    /// A caller's own request, checked, not filled.
    Forward(Box<HeldForward>),
}

/// A caller's own request, and where it goes.
pub(in crate::keeper) struct HeldForward {
    /// The destination's name.
    pub(in crate::keeper) destination: String,
    /// SHA-256 of what it declared when the request was checked.
    pub(in crate::keeper) version: [u8; 32],
    /// The request.
    pub(in crate::keeper) request: Request,
}

/// All that is held.
#[derive(Default)]
pub(in crate::keeper) struct Holding {
    next: u64,
    held: HashMap<u64, (Instant, Held)>,
}

impl Holding {
    /// Holds something; `None` if too much is held already.
    pub(in crate::keeper) fn hold(&mut self, what: Held, now: Instant) -> Option<u64> {
        if self.held.len() >= HELD_MAX {
            self.sweep(now);
        }
        if self.held.len() >= HELD_MAX {
            return None;
        }
        self.next = self.next.wrapping_add(1);
        self.held.insert(self.next, (now, what));
        Some(self.next)
    }

    /// Takes it out, if it is there and not too old.
    pub(in crate::keeper) fn take(&mut self, number: u64, now: Instant) -> Option<Held> {
        let (since, what) = self.held.remove(&number)?;
        (now.duration_since(since) <= HELD_FOR).then_some(what)
    }

    /// Drops, and so wipes, what is too old.
    pub(in crate::keeper) fn sweep(&mut self, now: Instant) {
        self.held.retain(|_, (since, _)| now.duration_since(*since) <= HELD_FOR);
    }

    /// Drops everything: the edge that asked is gone.
    pub(in crate::keeper) fn clear(&mut self) {
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_longer_than_five_seconds_is_gone() {
        let mut holding = Holding::default();
        let start = Instant::now();
        let first = holding.hold(Held::PassThrough(Box::default()), start).unwrap();
        let second = holding.hold(Held::PassThrough(Box::default()), start).unwrap();
        assert!(holding.take(first, start + Duration::from_secs(5)).is_some());
        assert!(holding.take(first, start).is_none());
        assert!(holding.take(second, start + Duration::from_secs(6)).is_none());
    }
}
