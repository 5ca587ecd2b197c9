//! The ledger read back: what became of each reference, in every wire form alike, so that a test can compare to the cent
//! what a caller believes with what a processor did.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ledger::{Entry, Kind, Status, Wire};

/// What stands under one reference of a payment. Minor units.
#[derive(Debug, Default, Serialize)]
pub(super) struct Standing {
    #[serde(skip_serializing_if = "Option::is_none")]
    wire: Option<Wire>,
    reference: String,
    invoice: Option<String>,
    currency: String,
    /// How many payments under it were approved: more than one was charged more than once.
    payments: u32,
    /// Granted, and not waiting any more.
    approved: i64,
    captured: i64,
    refunded: i64,
    voided: i64,
    /// How many of its payments are not decided yet.
    pending: u32,
    /// How many operations nobody could learn the outcome of from outside.
    unresolvable: u32,
    operations: Vec<Done>,
}

/// One operation under a reference, as it stands now.
#[derive(Debug, Serialize)]
struct Done {
    id: String,
    kind: Kind,
    status: Status,
    reference: String,
    amount: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unresolvable: bool,
}

/// Every reference, by wire form and reference; only these, if they are said.
pub(super) fn standings(ledger: &[u8], wire: Option<Wire>, reference: Option<&str>) -> Vec<Standing> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut places: BTreeMap<(usize, String), usize> = BTreeMap::new();
    for entry in ledger.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()) {
        let entry: Entry = entry;
        match places.get(&(rank(entry.wire), entry.id.clone())) {
            // A second line with the same id decides what was pending; what went wrong then stays as it was.
            Some(place) => {
                if let Some(first) = entries.get_mut(*place) {
                    let (fault, unresolvable) = (first.fault, first.unresolvable);
                    *first = Entry { fault, unresolvable, ..entry };
                }
            }
            None => {
                places.insert((rank(entry.wire), entry.id.clone()), entries.len());
                entries.push(entry);
            }
        }
    }
    let mut all: BTreeMap<(usize, String), Standing> = BTreeMap::new();
    for entry in &entries {
        let paid = match &entry.parent {
            Some(parent) => {
                places.get(&(rank(entry.wire), parent.clone())).and_then(|place| entries.get(*place))
            }
            None => Some(entry),
        };
        let named = paid.map_or("", |paid| paid.reference.as_str());
        if wire.is_some_and(|wire| wire != entry.wire) || reference.is_some_and(|only| only != named) {
            continue;
        }
        all.entry((rank(entry.wire), named.to_owned())).or_default().take(entry, named);
    }
    all.into_values().collect()
}

fn rank(wire: Wire) -> usize {
    Wire::ALL.iter().position(|one| *one == wire).unwrap_or(0)
}

impl Standing {
    fn take(&mut self, entry: &Entry, reference: &str) {
        self.wire = Some(entry.wire);
        reference.clone_into(&mut self.reference);
        entry.currency.clone_into(&mut self.currency);
        self.invoice = self.invoice.take().or_else(|| entry.invoice.clone());
        self.unresolvable += u32::from(entry.unresolvable);
        let granted = entry.amount_approved;
        match (entry.kind, entry.status) {
            (Kind::Sale, Status::Approved) => {
                self.payments += 1;
                self.approved += granted;
                self.captured += granted;
            }
            (Kind::Authorize, Status::Authorized) => {
                self.payments += 1;
                self.approved += granted;
            }
            (Kind::Sale | Kind::Authorize, Status::Pending) => self.pending += 1,
            (Kind::Capture, Status::Approved) => self.captured += granted,
            (Kind::Refund, Status::Approved) => self.refunded += granted,
            (Kind::Void, Status::Approved) => self.voided += granted,
            (_, _) => {}
        }
        self.operations.push(Done {
            id: entry.id.clone(),
            kind: entry.kind,
            status: entry.status,
            reference: entry.reference.clone(),
            amount: entry.amount,
            fault: (!entry.fault.is_none()).then(|| entry.fault.word()),
            unresolvable: entry.unresolvable,
        });
    }
}
