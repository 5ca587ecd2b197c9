//! The running account of every opening: a sequence number and a hash chain for each purpose, from this boot on.

use std::collections::BTreeMap;

use crate::attest;
use crate::card::id::{EventId, Token};
use crate::card::tenant::TenantId;
use crate::wire::keeper::Opened;

/// Openings that the edge may leave unacknowledged before the keeper opens no more: an edge that never writes events is stopped.
const UNACKNOWLEDGED_MAX: usize = 8192;

/// Counts openings.
pub(in crate::keeper) struct Openings {
    boot: String,
    lines: BTreeMap<&'static str, (u64, [u8; 32])>,
    unacknowledged: BTreeMap<EventId, Opened>,
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
        let (seq, previous) = self.lines.get(purpose).copied().unwrap_or((0, [0; 32]));
        let seq = seq.saturating_add(1);
        let hash = attest::opening_hash(
            &previous,
            &attest::Opened { boot: &self.boot, seq, purpose, token, destination, event },
        );
        self.lines.insert(purpose, (seq, hash));
        let opened = Opened {
            event,
            tenant,
            boot: self.boot.clone(),
            seq,
            purpose: purpose.to_owned(),
            token,
            destination: destination.to_owned(),
            hash: data_encoding::HEXLOWER.encode(&hash),
        };
        self.unacknowledged.insert(event, opened.clone());
        opened
    }

    /// These events are in the log.
    pub(in crate::keeper) fn acknowledge(&mut self, events: &[EventId]) {
        for event in events {
            self.unacknowledged.remove(event);
        }
    }

    /// Openings whose events are not known to be in the log.
    pub(in crate::keeper) fn unacknowledged(&self) -> Vec<Opened> {
        self.unacknowledged.values().cloned().collect()
    }

    /// (purpose, last sequence number, running hash in hex), sorted by purpose.
    pub(in crate::keeper) fn lines(&self) -> Vec<(String, u64, String)> {
        let line = |(purpose, (seq, hash)): (&&str, &(u64, [u8; 32]))| {
            ((*purpose).to_owned(), *seq, data_encoding::HEXLOWER.encode(hash))
        };
        self.lines.iter().map(line).collect()
    }

    /// What a statement of the account so far covers, for its signature.
    pub(in crate::keeper) fn statement_bytes(&self) -> Vec<u8> {
        let stated = |(purpose, (seq, hash)): (&&'static str, &(u64, [u8; 32]))| attest::Stated {
            purpose,
            seq: *seq,
            hash: *hash,
        };
        attest::statement_bytes(&self.boot, &self.lines.iter().map(stated).collect::<Vec<_>>())
    }
}
