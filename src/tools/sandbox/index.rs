//! What the sandbox keeps in memory: a few dozen bytes per payment; the rest stays in the ledger's file.
//!
//! Ids, references and keys are indexed by a 64-bit hash under a random key. The same function takes in an entry when
//! it is made and when it is read back at start, so that a restarted sandbox knows what it knew.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::BuildHasher;

use super::ledger::{Entry, Kind, Place, Status, Wire};
use super::numbers::{Behaviour, Fault};
use crate::clock::Time;

/// Authorize.Net takes a `duplicateWindow` of at most eight hours.
const WINDOW_MAX_S: i64 = 8 * 3600;
/// A pending payment is decided so long after it was made.
const PENDING_S: i64 = 5;
const NONE: u32 = u32::MAX;

/// Where a payment, or an operation on one, stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) place: Place,
    pub(super) kind: Kind,
    pub(super) wire: Wire,
    pub(super) status: Status,
    pub(super) behaviour: Behaviour,
    /// What every repetition of its key meets.
    pub(super) lasting: Fault,
    /// Nothing more will be captured.
    pub(super) closed: bool,
    /// The record before this one with the same reference.
    previous: u32,
    /// The newest operation on this payment, and the one before this on the same payment.
    newest_child: u32,
    sibling: u32,
    /// When it was made, in seconds since the Unix epoch.
    pub(super) at_s: i64,
    /// Minor units, all three.
    pub(super) approved: i64,
    pub(super) captured: i64,
    pub(super) refunded: i64,
}

impl Record {
    /// As an entry was decided, before anything followed.
    pub(super) fn decided(entry: &Entry) -> Self {
        let is_sale = entry.kind == Kind::Sale && entry.status == Status::Approved;
        Self {
            place: Place { offset: 0, len: 0 },
            kind: entry.kind,
            wire: entry.wire,
            status: entry.status,
            behaviour: entry.behaviour,
            lasting: if entry.lasting { entry.fault } else { Fault::None },
            closed: false,
            previous: NONE,
            newest_child: NONE,
            sibling: NONE,
            at_s: Time::parse(&entry.at).map_or(0, Time::seconds),
            approved: entry.amount_approved,
            captured: if is_sale { entry.amount_approved } else { 0 },
            refunded: 0,
        }
    }

    /// The status as a look-up tells it: an authorization with something captured is approved.
    pub(super) fn standing(&self) -> Status {
        if self.status == Status::Authorized && self.captured > 0 { Status::Approved } else { self.status }
    }
}

#[derive(Clone, Copy)]
struct Used {
    request: u64,
    slot: u32,
    /// Seconds since the Unix epoch, good until 2106.
    at_s: u32,
}

/// All records and the ways to find them.
#[derive(Default)]
pub(super) struct Index {
    records: Vec<Record>,
    by_id: HashMap<u64, u32>,
    by_reference: HashMap<u64, u32>,
    keys: HashMap<u64, Used>,
    /// When something was done last with this card, amount and invoice, in seconds since the Unix epoch.
    windows: HashMap<u64, i64>,
    pending: BTreeMap<u32, i64>,
    /// References under which something was tried that left a trace only.
    tried: HashSet<u64>,
    hasher: RandomState,
    last_seq: u64,
    swept_s: i64,
}

impl Index {
    /// Takes in an entry that stands there in the file.
    pub(super) fn take(&mut self, entry: &Entry, place: Place) {
        self.last_seq = self.last_seq.max(entry.seq);
        let at_s = Time::parse(&entry.at).map_or(0, Time::seconds);
        if let Some(slot) = self.slot_of(entry.wire, &entry.id) {
            self.settle(slot, entry);
            return;
        }
        let Ok(slot) = u32::try_from(self.records.len()) else { return };
        let previous = self.file_under_names(entry, slot);
        if let Some(key) = &entry.idempotency_key {
            let request = u64::from_str_radix(&entry.request, 16).unwrap_or(0);
            let used = Used { request, slot, at_s: u32::try_from(at_s).unwrap_or(0) };
            self.keys.insert(self.hash(entry.wire, key), used);
        }
        if let Some(window) = entry.window.as_deref().filter(|_| entry.status != Status::Error) {
            self.windows.insert(self.hash(entry.wire, window), at_s);
        }
        if entry.status == Status::Pending {
            self.pending.insert(slot, at_s + PENDING_S);
        }
        let sibling = self.change_parent(entry, slot);
        self.records.push(Record { place, previous, sibling, ..Record::decided(entry) });
    }

    /// Makes id and reference lead to the slot; answers with the slot that the reference led to before. A trace of
    /// something that was not done has no name to be found by.
    fn file_under_names(&mut self, entry: &Entry, slot: u32) -> u32 {
        if entry.status == Status::Error {
            if !entry.reference.is_empty() {
                self.tried.insert(self.hash(entry.wire, &entry.reference));
            }
            return NONE;
        }
        self.by_id.insert(self.hash(entry.wire, &entry.id), slot);
        if entry.reference.is_empty() {
            return NONE;
        }
        self.by_reference.insert(self.hash(entry.wire, &entry.reference), slot).unwrap_or(NONE)
    }

    /// A second entry with the same id decides what was pending.
    fn settle(&mut self, slot: u32, entry: &Entry) {
        self.pending.remove(&slot);
        if let Some(record) = self.record_mut(slot) {
            record.status = entry.status;
            record.approved = entry.amount_approved;
            if entry.kind == Kind::Sale && entry.status == Status::Approved {
                record.captured = entry.amount_approved;
            }
        }
    }

    /// Moves the parent's amounts and makes the slot its newest child; answers with the child before.
    fn change_parent(&mut self, entry: &Entry, slot: u32) -> u32 {
        let parent = entry.parent.as_deref().and_then(|parent| self.slot_of(entry.wire, parent));
        let Some(parent) = parent.filter(|_| entry.status != Status::Error) else { return NONE };
        let is_done = entry.status == Status::Approved;
        if is_done && entry.kind == Kind::Void {
            self.pending.remove(&parent);
        }
        let Some(record) = self.record_mut(parent) else { return NONE };
        match entry.kind {
            Kind::Capture if is_done => {
                record.captured += entry.amount_approved;
                record.closed |= entry.is_final;
            }
            Kind::Refund if is_done => record.refunded += entry.amount_approved,
            Kind::Void if is_done => record.status = Status::Voided,
            Kind::Capture | Kind::Refund | Kind::Void | Kind::Sale | Kind::Authorize | Kind::Verify => {}
        }
        std::mem::replace(&mut record.newest_child, slot)
    }

    fn hash(&self, wire: Wire, name: &str) -> u64 {
        self.hasher.hash_one((wire, name))
    }

    fn record_mut(&mut self, slot: u32) -> Option<&mut Record> {
        self.records.get_mut(usize::try_from(slot).ok()?)
    }

    /// The record in a slot.
    pub(super) fn record(&self, slot: u32) -> Option<&Record> {
        self.records.get(usize::try_from(slot).ok()?)
    }

    /// The slot of an id.
    pub(super) fn slot_of(&self, wire: Wire, id: &str) -> Option<u32> {
        self.by_id.get(&self.hash(wire, id)).copied()
    }

    /// The slots of a reference, newest first, at most 100.
    pub(super) fn slots_of_reference(&self, wire: Wire, reference: &str) -> Vec<u32> {
        let first = self.by_reference.get(&self.hash(wire, reference)).copied();
        std::iter::successors(first, |slot| {
            self.record(*slot).map(|record| record.previous).filter(|previous| *previous != NONE)
        })
        .take(100)
        .collect()
    }

    /// What was done to a payment, newest first, at most `limit`.
    pub(super) fn children(&self, slot: u32, limit: usize) -> Vec<Record> {
        let first = self.record(slot).map_or(NONE, |record| record.newest_child);
        let first = self.record(first);
        std::iter::successors(first, |child| self.record(child.sibling)).take(limit).copied().collect()
    }

    /// The newest operations of these kinds and of a wire form in the slots before one, newest first.
    pub(super) fn newest(
        &self,
        wire: Wire,
        kinds: &[Kind],
        before: Option<u32>,
        limit: usize,
    ) -> Vec<Record> {
        let end = before.and_then(|slot| usize::try_from(slot).ok()).unwrap_or(self.records.len());
        let is_payment = |record: &&Record| {
            record.wire == wire && kinds.contains(&record.kind) && record.status != Status::Error
        };
        self.records.iter().take(end).rev().filter(is_payment).take(limit).copied().collect()
    }

    /// What is stored under a key that is younger than this: digest of the request, and the slot of its outcome.
    pub(super) fn key(&self, wire: Wire, key: &str, now_s: i64, life_s: i64) -> Option<(u64, u32)> {
        let used = self.keys.get(&self.hash(wire, key))?;
        (now_s - i64::from(used.at_s) < life_s).then_some((used.request, used.slot))
    }

    /// Whether something was done with the same card, amount and invoice that is younger than this.
    pub(super) fn is_in_window(&self, wire: Wire, window: &str, now_s: i64, window_s: i64) -> bool {
        self.windows.get(&self.hash(wire, window)).is_some_and(|at_s| now_s - at_s < window_s)
    }

    /// Whether something was tried under this reference that left no more than a trace.
    pub(super) fn was_tried(&self, wire: Wire, reference: &str) -> bool {
        self.tried.contains(&self.hash(wire, reference))
    }

    /// A name for a key while it is worked on.
    pub(super) fn key_hash(&self, wire: Wire, key: &str) -> u64 {
        self.hash(wire, key)
    }

    /// Forgets keys that are older than this, and duplicate windows of yesterday, once an hour at most.
    pub(super) fn sweep(&mut self, now_s: i64, life_s: i64) {
        if now_s - self.swept_s > 3600 {
            self.swept_s = now_s;
            self.keys.retain(|_, used| now_s - i64::from(used.at_s) < life_s);
            self.windows.retain(|_, at_s| now_s - *at_s < WINDOW_MAX_S);
            self.keys.shrink_to(self.keys.len() * 2);
        }
    }

    /// Pending payments whose time has come.
    pub(super) fn due(&self, now_s: i64) -> Vec<u32> {
        self.pending.iter().filter(|(_, due)| **due <= now_s).map(|(slot, _)| *slot).collect()
    }

    /// The number of the newest entry.
    pub(super) fn last_seq(&self) -> u64 {
        self.last_seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payment_takes_less_than_200_bytes() {
        // A map that has just grown is seven sixteenths full and has one byte of its own per place.
        let map = |entry: usize| (entry + 1) * 16 / 7;
        let worst = size_of::<Record>() + 2 * map(size_of::<(u64, u32)>()) + map(size_of::<(u64, Used)>());
        let usual = size_of::<Record>() + worst / 2;
        assert!(usual < 200 && worst < 250, "{usual} {worst}");
    }
}
