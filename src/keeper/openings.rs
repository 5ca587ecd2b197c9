//! The running account of every opening: a sequence number and a hash chain for each purpose, from this boot on.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

use crate::attest;
use crate::card::id::{EventId, Token};
use crate::card::tenant::TenantId;
use crate::wire::keeper::{Opened, PAGE_MAX};

/// Openings that the edge may leave unacknowledged before the keeper opens no more: an edge that never writes events is stopped.
const UNACKNOWLEDGED_MAX: usize = 8192;

/// How long an edge may take, if need be through a restart, until the event of an opening is in the log. A statement counts an
/// opening once it is acknowledged or older than this: sooner, and an honest log would lack an event that is still on its way
/// (or that a crash has overtaken); never, and an edge that acknowledges nothing could hide what it had opened.
const ACCOUNTED_WITHIN: Duration = Duration::from_secs(30);

/// Counts openings.
pub(in crate::keeper) struct Openings {
    boot: String,
    lines: BTreeMap<&'static str, (u64, [u8; 32])>,
    unacknowledged: BTreeMap<EventId, Unacknowledged>,
}

struct Unacknowledged {
    opened: Opened,
    purpose: &'static str,
    /// The line before it.
    before: (u64, [u8; 32]),
    at: Instant,
}

impl Openings {
    /// An account that starts at zero.
    pub(in crate::keeper) fn new(boot: String) -> Self {
        Self { boot, lines: BTreeMap::new(), unacknowledged: BTreeMap::new() }
    }

    /// The boot, hex.
    pub(in crate::keeper) fn boot(&self) -> &str {
        &self.boot
    }

    /// Whether another opening may be made, and this event has not been used for one.
    pub(in crate::keeper) fn may_open(&self, event: EventId) -> bool {
        self.unacknowledged.len() < UNACKNOWLEDGED_MAX && !self.unacknowledged.contains_key(&event)
    }

    /// Counts an opening.
    pub(in crate::keeper) fn count(
        &mut self,
        purpose: &'static str,
        tenant: TenantId,
        token: Token,
        destination: &str,
        event: EventId,
    ) -> Opened {
        self.chain(purpose, tenant, (token, &[]), destination, event)
    }

    /// Counts the openings of several cards that one event records; none if there is none.
    pub(in crate::keeper) fn count_batch(
        &mut self,
        purpose: &'static str,
        tenant: TenantId,
        tokens: &[Token],
        event: EventId,
    ) -> Option<Opened> {
        let last = *tokens.last()?;
        Some(self.chain(purpose, tenant, (last, tokens), "", event))
    }

    fn chain(
        &mut self,
        purpose: &'static str,
        tenant: TenantId,
        (token, tokens): (Token, &[Token]),
        destination: &str,
        event: EventId,
    ) -> Opened {
        let before = self.lines.get(purpose).copied().unwrap_or((0, [0; 32]));
        let (mut seq, mut hash) = before;
        for token in if tokens.is_empty() { std::slice::from_ref(&token) } else { tokens } {
            seq = seq.saturating_add(1);
            let opened = attest::Opened { boot: &self.boot, seq, purpose, token: *token, destination, event };
            hash = attest::opening_hash(&hash, &opened);
        }
        self.lines.insert(purpose, (seq, hash));
        let opened = Opened {
            event,
            tenant,
            boot: self.boot.clone(),
            seq,
            purpose: purpose.to_owned(),
            token,
            tokens: tokens.to_vec(),
            destination: destination.to_owned(),
            hash: data_encoding::HEXLOWER.encode(&hash),
        };
        let unacknowledged = Unacknowledged { opened: opened.clone(), purpose, before, at: Instant::now() };
        self.unacknowledged.insert(event, unacknowledged);
        opened
    }

    /// These events are in the log.
    pub(in crate::keeper) fn acknowledge(&mut self, events: &[EventId]) {
        for event in events {
            self.unacknowledged.remove(event);
        }
    }

    /// Openings whose events are not known to be in the log, by event, after this one: a page of them.
    pub(in crate::keeper) fn unacknowledged(&self, after: Option<EventId>) -> Vec<Opened> {
        let after = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let waiting = self.unacknowledged.range(after).take(PAGE_MAX);
        waiting.map(|(_, waiting)| waiting.opened.clone()).collect()
    }

    /// The account that a statement makes at this instant, so that lines and signed bytes are of the same moment.
    pub(in crate::keeper) fn state(&self, now: Instant) -> Account<'_> {
        let mut lines = self.lines.clone();
        for waiting in self.unacknowledged.values() {
            let before = waiting.before;
            if now.duration_since(waiting.at) < ACCOUNTED_WITHIN
                && let Some(line) = lines.get_mut(waiting.purpose)
                && before.0 < line.0
            {
                *line = before;
            }
        }
        Account { boot: &self.boot, lines }
    }
}

/// What a statement says: of each purpose the openings up to the first that is still on its way to the log.
pub(in crate::keeper) struct Account<'a> {
    boot: &'a str,
    lines: BTreeMap<&'static str, (u64, [u8; 32])>,
}

impl Account<'_> {
    /// (purpose, last sequence number, running hash in hex), sorted by purpose.
    pub(in crate::keeper) fn lines(&self) -> Vec<(String, u64, String)> {
        let line = |(purpose, (seq, hash)): (&&str, &(u64, [u8; 32]))| {
            ((*purpose).to_owned(), *seq, data_encoding::HEXLOWER.encode(hash))
        };
        self.lines.iter().map(line).collect()
    }

    /// The bytes that are signed.
    pub(in crate::keeper) fn statement_bytes(&self) -> Vec<u8> {
        let stated = |(purpose, (seq, hash)): (&&'static str, &(u64, [u8; 32]))| attest::Stated {
            purpose,
            seq: *seq,
            hash: *hash,
        };
        attest::statement_bytes(self.boot, &self.lines.iter().map(stated).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::id::IdBytes;

    fn event(number: u8) -> EventId {
        EventId(IdBytes([number; 18]))
    }

    #[test]
    fn a_statement_counts_what_is_in_the_log_or_should_long_have_been() {
        let mut openings = Openings::new("b1".to_owned());
        let opened: Vec<Opened> = (1..=3)
            .map(|n| openings.count("charge", TenantId(1), Token(IdBytes([9; 18])), "sandbox", event(n)))
            .collect();
        let seconds = |seconds| Instant::now() + Duration::from_secs(seconds);
        let line = |openings: &Openings, after: u64| openings.state(seconds(after)).lines();
        let counted = |seq: u64| ("charge".to_owned(), seq, opened[seq as usize - 1].hash.clone());
        assert_eq!(line(&openings, 0), [("charge".to_owned(), 0, "0".repeat(64))]);
        // The third is in the log, but the chain shows it only through the second.
        openings.acknowledge(&[event(1), event(3)]);
        assert_eq!(line(&openings, 0), [counted(1)]);
        assert_eq!(line(&openings, 31), [counted(3)]);
        openings.acknowledge(&[event(2)]);
        assert_eq!(line(&openings, 0), [counted(3)]);
    }

    #[test]
    fn several_cards_of_one_event_are_so_many_openings() {
        let token = |n: u8| Token(IdBytes([n; 18]));
        let (mut one_by_one, mut at_once) = (Openings::new("b1".to_owned()), Openings::new("b1".to_owned()));
        let each = [1, 2, 3].map(|n| one_by_one.count("reseal", TenantId(1), token(n), "", event(9)));
        assert!(at_once.count_batch("reseal", TenantId(1), &[], event(9)).is_none());
        let all = at_once.count_batch("reseal", TenantId(1), &[1, 2, 3].map(token), event(9)).unwrap();
        assert_eq!((all.seq, &all.hash, all.token), (3, &each[2].hash, token(3)));
        // Until its event is in the log a statement counts none of them, and then all.
        let seq = |openings: &Openings| openings.state(Instant::now()).lines()[0].1;
        assert_eq!(seq(&at_once), 0);
        at_once.acknowledge(&[event(9)]);
        assert_eq!(seq(&at_once), 3);
    }
}
