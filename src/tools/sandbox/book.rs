//! The book: keys and their stored answers, which fault a request meets, and every entry's way into the ledger.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;

use tokio::sync::watch;

use super::decide::{allowed, decide, make_id, make_network_transaction_id};
use super::index::{Index, Record};
use super::ledger::{Broken, Entry, Kind, Ledger, Place, Status, StripeFields, Wire};
use super::numbers::{self, Behaviour, Fault, Outcome, Row};
use crate::clock::Time;

/// Who asks, and under which key.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) wire: Wire,
    pub(super) key: Option<String>,
    /// Keyed digest of method, path and body.
    pub(super) digest: u64,
    /// The caller's own name for what is asked for.
    pub(super) reference: String,
}

/// A new payment, as far as the decision needs it. The card number is used and forgotten.
#[derive(Clone)]
pub(super) struct Order {
    pub(super) kind: Kind,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) last4: String,
    pub(super) behaviour: Behaviour,
    pub(super) brand: &'static str,
    pub(super) has_zip: bool,
    pub(super) has_cvc: bool,
    pub(super) invoice: Option<String>,
    pub(super) stripe: Option<StripeFields>,
}

/// Something done to a payment.
#[derive(Clone, Debug)]
pub(super) struct FollowUp {
    pub(super) kind: Kind,
    pub(super) payment: String,
    /// In minor units; all that is left if it is not said.
    pub(super) amount: Option<i64>,
    pub(super) is_final: bool,
    pub(super) metadata: serde_json::Map<String, serde_json::Value>,
}

/// What was decided; it may be told once the ledger is durable up to `end`.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) place: Place,
    /// `None` if it stands in the file alone, being a repetition.
    pub(super) entry: Option<Entry>,
    pub(super) fault: Fault,
    pub(super) replayed: bool,
}

/// Why nothing was done. None of these is stored under the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A request with this key is being worked on.
    KeyInFlight,
    /// The key was used with another request.
    KeyReused,
    /// There is no such payment.
    Unknown,
    /// More than is left, in minor units.
    TooLarge(i64),
    /// The payment does not stand so that this can be done.
    WrongState(Status),
    /// The ledger cannot be written.
    Broken,
}

impl From<Broken> for Refusal {
    fn from(Broken: Broken) -> Self {
        Self::Broken
    }
}

/// Which requests a script is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// This operation.
    Operation(Kind),
    /// Look-ups.
    LookUp,
}

/// The next requests meet this fault, whatever their card.
#[derive(Clone, Copy, Debug)]
pub(super) struct Script {
    pub(super) fault: Fault,
    pub(super) charges: bool,
    /// Whether it meets repetitions of a key instead of new requests.
    pub(super) repeats: bool,
    pub(super) only: Option<Target>,
    pub(super) left: u32,
}

impl Script {
    fn meets(&self, kind: Kind) -> bool {
        self.left > 0 && self.only.is_none_or(|only| only == Target::Operation(kind))
    }
}

/// Index, ledger and the keys being worked on.
pub(super) struct Book {
    index: Index,
    ledger: Ledger,
    in_flight: HashSet<u64>,
    script: Option<Script>,
}

impl Book {
    /// Opens the ledger and learns everything that is in it.
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let mut index = Index::default();
        let ledger = Ledger::open(path, |entry, place| index.take(&entry, place))?;
        Ok(Self { index, ledger, in_flight: HashSet::new(), script: None })
    }

    /// Sets the script of faults; `None` ends it.
    pub(super) fn set_script(&mut self, script: Option<Script>) {
        self.script = script;
    }

    /// How far the ledger is durable, and a handle to read it.
    pub(super) fn durable(&self) -> (watch::Receiver<u64>, std::io::Result<File>) {
        (self.ledger.durable(), self.ledger.reader())
    }

    /// The end of everything written so far.
    pub(super) fn end(&self) -> u64 {
        self.ledger.end()
    }

    /// The records of an id.
    pub(super) fn by_id(&self, wire: Wire, id: &str) -> Option<Record> {
        self.index.record(self.index.slot_of(wire, id)?).copied()
    }

    /// The records of a reference, newest first.
    pub(super) fn by_reference(&self, wire: Wire, reference: &str) -> Vec<Record> {
        let slots = self.index.slots_of_reference(wire, reference);
        slots.iter().filter_map(|slot| self.index.record(*slot)).copied().collect()
    }

    /// What was done to a payment, newest first.
    pub(super) fn children(&self, wire: Wire, id: &str, limit: usize) -> Vec<Record> {
        self.index.slot_of(wire, id).map(|slot| self.index.children(slot, limit)).unwrap_or_default()
    }

    /// The newest payments, newest first; only those before a certain one, if its id is given.
    pub(super) fn newest(&self, wire: Wire, before: Option<&str>, limit: usize) -> Vec<Record> {
        let before = before.map(|id| self.index.slot_of(wire, id).unwrap_or(0));
        self.index.newest_payments(wire, before, limit)
    }

    /// The fault that the script has for a look-up; it is used up by this.
    pub(super) fn look_up_fault(&mut self) -> Option<Fault> {
        let script =
            self.script.as_mut().filter(|script| script.only == Some(Target::LookUp) && script.left > 0)?;
        script.left -= 1;
        Some(script.fault)
    }

    /// Marks a key as worked on, until [`release`](Self::release).
    pub(super) fn hold(&mut self, wire: Wire, key: &str) -> Result<u64, Refusal> {
        let hash = self.index.key_hash(wire, key);
        if self.in_flight.insert(hash) { Ok(hash) } else { Err(Refusal::KeyInFlight) }
    }

    /// The key is no longer worked on.
    pub(super) fn release(&mut self, hash: u64) {
        self.in_flight.remove(&hash);
    }

    /// Decides a new payment.
    pub(super) fn place(&mut self, request: &Request, order: Order, now: Time) -> Result<Done, Refusal> {
        let first = match self.replay(request, now)? {
            Replay::Answer(place, fault) => return Ok(self.repeated(place, fault, order.kind)),
            Replay::Again => false,
            Replay::New => true,
        };
        let row = numbers::row(order.behaviour).filter(|row| row.on.is_none());
        let (fault, charges) = self.fault(row, order.kind, first);
        let mut entry = Entry::new(request, &order, now);
        if charges {
            decide(&mut entry, row, &order);
            entry.id = make_id(request.wire, order.kind, now);
            if matches!(entry.status, Status::Approved | Status::Authorized | Status::Pending) {
                entry.network_transaction_id = make_network_transaction_id(order.brand);
            }
            let zip = row.and_then(|row| row.zip.as_deref()).unwrap_or("Y");
            entry.zip = Some(if order.has_zip { zip } else { "U" }.to_owned());
        } else {
            entry.id = make_id(request.wire, order.kind, now);
            entry.code = "not_done".to_owned();
        }
        self.write(entry, fault)
    }

    /// Captures, refunds or voids.
    pub(super) fn follow(
        &mut self,
        request: &Request,
        follow: &FollowUp,
        now: Time,
    ) -> Result<Done, Refusal> {
        let first = match self.replay(request, now)? {
            Replay::Answer(place, fault) => return Ok(self.repeated(place, fault, follow.kind)),
            Replay::Again => false,
            Replay::New => true,
        };
        let parent = self.by_id(request.wire, &follow.payment).ok_or(Refusal::Unknown)?;
        let amount = allowed(&parent, follow, now)?;
        let paid = self.ledger.read(parent.place).ok_or(Refusal::Unknown)?;
        let row = numbers::row(parent.behaviour).filter(|row| row.on.as_deref() == Some(follow.kind.word()));
        let (fault, charges) = self.fault(row, follow.kind, first);
        let mut entry = Entry::of_follow_up(request, follow, &paid, now);
        entry.amount = amount;
        entry.id = make_id(request.wire, follow.kind, now);
        if !charges {
            entry.status = Status::Error;
            entry.code = "not_done".to_owned();
        } else if let Some(row) = row.filter(|row| row.outcome == Outcome::Declined) {
            entry.status = Status::Declined;
            entry.code = row.code.clone().unwrap_or_default();
        } else {
            entry.amount_approved = amount;
        }
        self.write(entry, fault)
    }

    /// Decides what was pending long enough.
    pub(super) fn settle_pending(&mut self, now: Time) -> Result<(), Broken> {
        self.index.sweep(now.seconds());
        for slot in self.index.due(now.seconds()) {
            let Some(record) = self.index.record(slot).copied() else { continue };
            // A line that is not down yet is read at the next turn.
            if *self.ledger.durable().borrow() < record.place.end() {
                continue;
            }
            let Some(mut entry) = self.ledger.read(record.place) else { continue };
            let row = numbers::row(entry.behaviour);
            if let Some(row) = row.filter(|row| row.outcome == Outcome::PendingDeclined) {
                entry.status = Status::Declined;
                entry.code = row.code.clone().unwrap_or_default();
            } else {
                entry.status =
                    if entry.kind == Kind::Authorize { Status::Authorized } else { Status::Approved };
                entry.code = "approved".to_owned();
                entry.amount_approved = entry.amount;
            }
            entry.at = now.to_string();
            // The stored answer of the key stays the first one.
            entry.idempotency_key = None;
            self.append(entry)?;
        }
        Ok(())
    }

    fn replay(&self, request: &Request, now: Time) -> Result<Replay, Refusal> {
        let Some(key) = request.key.as_deref() else { return Ok(Replay::New) };
        let Some((digest, slot)) = self.index.key(request.wire, key, now.seconds()) else {
            return Ok(Replay::New);
        };
        if digest != request.digest {
            return Err(Refusal::KeyReused);
        }
        let Some(record) = self.index.record(slot) else { return Ok(Replay::New) };
        let is_payment = matches!(record.kind, Kind::Sale | Kind::Authorize | Kind::Verify);
        let lasting =
            numbers::row(record.behaviour).filter(|row| is_payment && row.lasting && row.on.is_none());
        // A stored 500 without a charge is an answer like any other; everything else that left no more than a trace
        // is done now.
        if record.status == Status::Error && lasting.is_none_or(|row| row.charges) {
            return Ok(Replay::Again);
        }
        let fault = lasting.map_or(Fault::None, |row| row.fault);
        Ok(Replay::Answer(record.place, fault))
    }

    /// The stored answer of a key, behind the fault that the script has for repetitions.
    fn repeated(&mut self, place: Place, fault: Fault, kind: Kind) -> Done {
        let script = self.script.as_mut().filter(|script| script.repeats && script.meets(kind));
        let fault = script.map_or(fault, |script| {
            script.left -= 1;
            script.fault
        });
        Done { place, entry: None, fault, replayed: true }
    }

    /// The fault that this request meets, and whether the operation is carried out before it.
    fn fault(&mut self, row: Option<&Row>, kind: Kind, first: bool) -> (Fault, bool) {
        if !first {
            return (Fault::None, true);
        }
        if let Some(script) = self.script.as_mut()
            && !script.repeats
            && script.meets(kind)
        {
            script.left -= 1;
            return (script.fault, script.charges);
        }
        row.map_or((Fault::None, true), |row| (row.fault, row.charges))
    }

    fn write(&mut self, entry: Entry, fault: Fault) -> Result<Done, Refusal> {
        let (entry, place) = self.append(entry)?;
        Ok(Done { place, entry: Some(entry), fault, replayed: false })
    }

    fn append(&mut self, mut entry: Entry) -> Result<(Entry, Place), Broken> {
        entry.seq = self.index.last_seq() + 1;
        let place = self.ledger.append(&entry)?;
        self.index.take(&entry, place);
        Ok((entry, place))
    }
}

enum Replay {
    /// A new key, or none.
    New,
    /// The key is known, but nothing was done under it: do it now, without the fault.
    Again,
    /// The stored answer stands there, and meets this fault every time.
    Answer(Place, Fault),
}
