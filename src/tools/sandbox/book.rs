//! The book: keys and their stored answers, which fault a request meets, and every entry's way into the ledger.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::path::Path;

use tokio::sync::watch;

use super::decide::{allowed, decide, make_id, make_network_transaction_id};
use super::faults::{Faults, Met, Occasion};
use super::index::{Index, Record};
use super::ledger::{Broken, Entry, FamilyFields, Kind, Ledger, Place, Status, StripeFields, Wire};
use super::numbers::{self, Behaviour, Fault, Outcome, Row};
use super::outside;
use super::rules::{AllRules, Class, InForce};
use crate::clock::Time;

/// So many events wait to be told, at most.
const EVENTS_MAX: usize = 10_000;

/// Who asks, and under which key.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) wire: Wire,
    pub(super) key: Option<String>,
    /// Keyed digest of method, path and body.
    pub(super) digest: u64,
    /// The caller's own name for what is asked for.
    pub(super) reference: String,
    /// Keyed digest of what a duplicate would be: card (or payment), amount and invoice.
    pub(super) window: u64,
    /// How long the request itself wants duplicates refused, in seconds; as the rules say without.
    pub(super) window_s: Option<i64>,
    /// Whether it carried a verification code.
    pub(super) has_cvc: bool,
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
    /// Whether the merchant asks, without the customer.
    pub(super) by_merchant: bool,
    pub(super) invoice: Option<String>,
    /// Of the payment that it follows, as the network knows it.
    pub(super) network_transaction_id: Option<String>,
    pub(super) stripe: Option<StripeFields>,
    pub(super) family: Option<FamilyFields>,
}

impl Order {
    /// A payment with this card number, nothing else known of it.
    pub(super) fn new(kind: Kind, amount: i64, currency: &str, number: &str) -> Self {
        Self {
            kind,
            amount,
            currency: currency.to_owned(),
            last4: number.get(number.len().saturating_sub(4)..).unwrap_or_default().to_owned(),
            behaviour: numbers::behaviour_of(number),
            brand: numbers::brand(number),
            has_zip: false,
            has_cvc: false,
            by_merchant: false,
            invoice: None,
            network_transaction_id: None,
            stripe: None,
            family: None,
        }
    }

    /// Whether the account updater is asked.
    pub(super) fn asks_updater(&self) -> bool {
        self.by_merchant && !self.has_cvc && self.kind != Kind::Verify
    }
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
    pub(super) met: Met,
    pub(super) replayed: bool,
}

/// Why nothing was done. None of these is stored under the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A request with this key is being worked on.
    KeyInFlight,
    /// The key was used with another request.
    KeyReused,
    /// The caller's reference was used before: it is the natural key.
    ReferenceUsed,
    /// The same card, amount and invoice came too short a while ago.
    Duplicate,
    /// There is no such payment.
    Unknown,
    /// The payment has not settled yet.
    Unsettled,
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

/// Index, ledger and the keys being worked on.
pub(super) struct Book {
    index: Index,
    ledger: Ledger,
    in_flight: HashSet<u64>,
    faults: Faults,
    rules: AllRules,
    /// What Adyen would tell by webhook, oldest first, and whether somebody listens.
    events: VecDeque<Entry>,
    is_told: bool,
}

impl Book {
    /// Opens the ledger and learns everything that is in it.
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let mut index = Index::default();
        let ledger = Ledger::open(path, |entry, place| index.take(&entry, place))?;
        let (in_flight, faults, rules, events) = Default::default();
        Ok(Self { index, ledger, in_flight, faults, rules, events, is_told: false })
    }

    /// The scripts of faults.
    pub(super) fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    /// The rules of the wire forms.
    pub(super) fn rules(&mut self) -> &mut AllRules {
        &mut self.rules
    }

    /// What holds for a wire form.
    pub(super) fn in_force(&self, wire: Wire) -> InForce {
        self.rules.in_force(wire)
    }

    /// Says that somebody listens to Adyen's webhooks.
    pub(super) fn will_be_told(&mut self) {
        self.is_told = true;
    }

    /// Takes what is to be told by webhook.
    pub(super) fn take_events(&mut self) -> VecDeque<Entry> {
        std::mem::take(&mut self.events)
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
        self.index.newest(wire, &[Kind::Sale, Kind::Authorize], before, limit)
    }

    /// The newest payments and refunds, newest first.
    pub(super) fn newest_with_refunds(&self, wire: Wire, limit: usize) -> Vec<Record> {
        self.index.newest(wire, &[Kind::Sale, Kind::Authorize, Kind::Refund], None, limit)
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
        let first = match self.replay(request, order.kind, now)? {
            Replay::Answer(place, fault) => return Ok(self.repeated(request, place, fault, order.kind)),
            Replay::Again => false,
            Replay::New => true,
        };
        let row = numbers::row(order.behaviour).filter(|row| row.on.is_none());
        let met = self.meet(request.wire, row, order.kind, first);
        let mut entry = Entry::new(request, &order, now);
        entry.id = make_id(request.wire, order.kind, now, self.index.last_seq() + 1);
        if met.charges {
            decide(&mut entry, row, &order);
            if matches!(entry.status, Status::Approved | Status::Authorized | Status::Pending) {
                entry.network_transaction_id = make_network_transaction_id(order.brand);
            }
            let zip = row.and_then(|row| row.zip.as_deref()).unwrap_or("Y");
            entry.zip = Some(if order.has_zip { zip } else { "U" }.to_owned());
        } else {
            entry.code = "not_done".to_owned();
        }
        self.write(request, entry, met)
    }

    /// Captures, refunds or voids.
    pub(super) fn follow(
        &mut self,
        request: &Request,
        follow: &FollowUp,
        now: Time,
    ) -> Result<Done, Refusal> {
        let first = match self.replay(request, follow.kind, now)? {
            Replay::Answer(place, fault) => return Ok(self.repeated(request, place, fault, follow.kind)),
            Replay::Again => false,
            Replay::New => true,
        };
        let parent = self.by_id(request.wire, &follow.payment).ok_or(Refusal::Unknown)?;
        let paid = self.ledger.read(parent.place).ok_or(Refusal::Unknown)?;
        let (amount, is_refused) = match allowed(&parent, follow, now, self.in_force(request.wire).settle_s) {
            Ok(amount) => (amount, false),
            // Adyen takes note of everything and says later, by webhook, that it could not be done.
            Err(_) if request.wire == Wire::Adyen => (follow.amount.unwrap_or(parent.approved), true),
            Err(refusal) => return Err(refusal),
        };
        let row = numbers::row(parent.behaviour).filter(|row| row.on.as_deref() == Some(follow.kind.word()));
        let met = self.meet(request.wire, row, follow.kind, first);
        let mut entry = Entry::of_follow_up(request, follow, &paid, now);
        entry.amount = amount;
        entry.id = make_id(request.wire, follow.kind, now, self.index.last_seq() + 1);
        if !met.charges {
            entry.status = Status::Error;
            entry.code = "not_done".to_owned();
        } else if is_refused {
            entry.status = Status::Declined;
            entry.code = "not_allowed".to_owned();
        } else if let Some(row) = row.filter(|row| row.outcome == Outcome::Declined) {
            entry.status = Status::Declined;
            entry.code = row.code.clone().unwrap_or_default();
        } else {
            entry.amount_approved = amount;
        }
        self.write(request, entry, met)
    }

    /// Decides what was pending long enough.
    pub(super) fn settle_pending(&mut self, now: Time) -> Result<(), Broken> {
        self.index.sweep(now.seconds(), self.rules.key_ttl_max_s());
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
            // The stored answer of the key stays the first one, and so does what went wrong with it.
            entry.idempotency_key = None;
            (entry.fault, entry.fault_at, entry.lasting, entry.unresolvable) = Default::default();
            self.append(entry)?;
        }
        Ok(())
    }

    /// What the class of the wire form makes of a request that came before.
    fn replay(&self, request: &Request, kind: Kind, now: Time) -> Result<Replay, Refusal> {
        let rules = self.in_force(request.wire);
        match rules.idempotency {
            Class::Replay | Class::SuccessOnly => {
                if let Some(replay) = self.stored(request, rules, now)? {
                    return Ok(replay);
                }
            }
            // Done to a payment, what has a name of its own can be known again, and so can what has a key.
            Class::NaturalKey => {
                if !matches!(kind, Kind::Sale | Kind::Authorize | Kind::Verify)
                    && let Some(replay) = self.stored(request, rules, now)?
                {
                    return Ok(replay);
                }
                let is_payment = matches!(kind, Kind::Sale | Kind::Authorize | Kind::Verify);
                let known = self.by_reference(request.wire, &request.reference);
                let same = |record: &Record| {
                    is_payment == matches!(record.kind, Kind::Sale | Kind::Authorize | Kind::Verify)
                };
                if !request.reference.is_empty() && known.iter().any(same) {
                    return Err(Refusal::ReferenceUsed);
                }
                // As with a key, only the first request meets its card's fault.
                if self.index.was_tried(request.wire, &request.reference) {
                    return Ok(Replay::Again);
                }
            }
            Class::None => {}
        }
        let window_s = request.window_s.unwrap_or(rules.duplicate_window_s);
        let window = format!("{:016x}", request.window);
        if request.window != 0 && self.index.is_in_window(request.wire, &window, now.seconds(), window_s) {
            return Err(Refusal::Duplicate);
        }
        Ok(Replay::New)
    }

    fn stored(&self, request: &Request, rules: InForce, now: Time) -> Result<Option<Replay>, Refusal> {
        let Some(key) = request.key.as_deref() else { return Ok(None) };
        let stored = self.index.key(request.wire, key, now.seconds(), rules.key_ttl_s);
        let stored = stored.and_then(|(digest, slot)| Some((digest, self.index.record(slot)?)));
        let Some((digest, record)) = stored else { return Ok(None) };
        let is_success = matches!(record.status, Status::Approved | Status::Authorized | Status::Pending)
            || record.status == Status::Voided;
        if rules.idempotency == Class::SuccessOnly {
            // A payment's own fault meets the first request alone here: what is not a success is not kept.
            return match (is_success, digest == request.digest) {
                (true, true) => Ok(Some(Replay::Answer(record.place, Fault::None))),
                (true, false) => Err(Refusal::KeyReused),
                (false, _) if record.status == Status::Error => Ok(Some(Replay::Again)),
                (false, _) => Ok(None),
            };
        }
        if digest != request.digest {
            return Err(Refusal::KeyReused);
        }
        // A stored 500 without a charge is an answer like any other; everything else that left no more than a trace is
        // done now.
        if record.status == Status::Error && record.lasting == Fault::None {
            return Ok(Some(Replay::Again));
        }
        Ok(Some(Replay::Answer(record.place, record.lasting)))
    }

    /// The stored answer of a key, behind the fault that a script has for repetitions.
    fn repeated(&mut self, request: &Request, place: Place, fault: Fault, kind: Kind) -> Done {
        let met = self.faults.next(Occasion::Repeat(kind), Some(request.wire));
        let met = met.unwrap_or(Met { fault, ..Met::NOTHING });
        Done { place, entry: None, met, replayed: true }
    }

    /// What a new request meets: what a script says, else what its card does.
    fn meet(&mut self, wire: Wire, row: Option<&Row>, kind: Kind, first: bool) -> Met {
        if !first {
            return Met::NOTHING;
        }
        let by_card = |row: &Row| {
            // Only a payment's own fault is kept with its key.
            let lasting = row.lasting && row.on.is_none() && row.fault != Fault::None;
            Met { fault: row.fault, charges: row.charges, lasting, ..Met::NOTHING }
        };
        let scripted = self.faults.next(Occasion::New(kind), Some(wire));
        scripted.or_else(|| row.map(by_card)).unwrap_or(Met::NOTHING)
    }

    fn write(&mut self, request: &Request, mut entry: Entry, met: Met) -> Result<Done, Refusal> {
        let rules = self.in_force(request.wire);
        // Only where duplicates are refused at all is a payment remembered for it.
        entry.window = entry.window.filter(|_| rules.duplicate_window_s > 0 || request.window_s > Some(0));
        entry.fault = met.fault;
        entry.fault_at = met.at.filter(|_| met.fault != Fault::None);
        entry.lasting = met.lasting && met.fault != Fault::None;
        entry.unresolvable = outside::is_unresolvable(
            request,
            (entry.kind, entry.status),
            met,
            rules.idempotency,
            self.is_told,
        );
        let (entry, place) = self.append(entry)?;
        Ok(Done { place, entry: Some(entry), met, replayed: false })
    }

    fn append(&mut self, mut entry: Entry) -> Result<(Entry, Place), Broken> {
        entry.seq = self.index.last_seq() + 1;
        let place = self.ledger.append(&entry)?;
        self.index.take(&entry, place);
        let is_event = entry.wire == Wire::Adyen && !matches!(entry.status, Status::Error | Status::Pending);
        if is_event {
            self.events.push_back(entry.clone());
        }
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
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
