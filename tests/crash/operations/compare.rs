//! The vault's charges against the sandbox's ledger: each operation, to the cent.

use std::collections::{BTreeMap, HashMap, HashSet};

use cardvault::card::id::AttemptId;
use serde_json::Value;

use super::plan::Lane;

/// What the comparison gave for one lane.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) charges: usize,
    /// Payments, captures, refunds and voids that were done, as the ledger has them.
    pub(super) payments: usize,
    pub(super) captures: usize,
    pub(super) refunds: usize,
    pub(super) voids: usize,
    /// In minor units, as both sides have it.
    pub(super) captured: i64,
    pub(super) refunded: i64,
    /// Done more often than asked for.
    pub(super) doubled: Vec<String>,
    /// Done on one side only, or of other amounts.
    pub(super) lost: Vec<String>,
    /// Charges that were left to a person, or are to be.
    pub(super) manual: usize,
    /// Those of them of which the ledger does not say that nobody can learn the outcome.
    pub(super) given_up: Vec<String>,
    /// Operations of which the ledger says that nobody can learn the outcome.
    pub(super) unresolvable: HashSet<String>,
}

/// The ledger, to be looked into.
struct Ledger<'a> {
    payments: HashMap<(&'a str, &'a str), Vec<&'a Value>>,
    children: HashMap<(&'a str, &'a str), Vec<&'a Value>>,
}

fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn amount(value: &Value, name: &str) -> i64 {
    value[name].as_i64().unwrap_or_default()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// What the ledger knows, by reference and by key.
#[derive(Default)]
pub(super) struct Marks {
    /// Of what nobody can learn the outcome.
    unresolvable: HashSet<String>,
    /// What the processor did, or declined to.
    done: HashSet<String>,
}

impl Marks {
    pub(super) fn of(ledger: &[Value]) -> Self {
        let mut marks = Self::default();
        for entry in ledger {
            let names = [word(entry, "reference"), word(entry, "idempotency_key")];
            for name in names.into_iter().filter(|name| !name.is_empty()) {
                // What was turned away at the door (429, 500) it tells nobody of.
                if entry["status"] != "error" {
                    marks.done.insert(name.to_owned());
                }
                if entry["unresolvable"] == true {
                    marks.unresolvable.insert(name.to_owned());
                }
            }
        }
        marks
    }

    /// Whether nobody can learn what became of an attempt. What a processor that tells only what it did never got, or turned away, it tells
    /// nothing of, and nobody can learn that, unless it can be sent again.
    pub(super) fn has(&self, lane: Lane, attempt: &Value) -> bool {
        let id = word(attempt, "id");
        let names = [id.to_owned(), AttemptId::parse(id).unwrap().reference()];
        let never_came = lane == Lane::Told && attempt["tries"] == 1;
        names.iter().any(|name| self.unresolvable.contains(name))
            || (never_came && !names.iter().any(|name| self.done.contains(name)))
    }
}

/// Whether it is not known what became of an attempt.
pub(super) fn is_open(attempt: &Value) -> bool {
    matches!(word(attempt, "status"), "sending" | "unknown" | "pending" | "manual")
}

/// Whether the ledger says of all that is not known of a charge that nobody can learn it. What undoes a payment that nobody knows of
/// cannot be named to the processor.
fn is_explained(lane: Lane, charge: &Value, marks: &Marks) -> bool {
    let open: Vec<&Value> = list(charge, "attempts").iter().filter(|attempt| is_open(attempt)).collect();
    let is_undo = |attempt: &Value| matches!(word(attempt, "operation"), "void" | "refund");
    let is_payment_marked = open.iter().any(|attempt| !is_undo(attempt) && marks.has(lane, attempt));
    let is_one = |attempt: &&&Value| marks.has(lane, attempt) || (is_undo(attempt) && is_payment_marked);
    !open.is_empty() && open.iter().filter(|attempt| !is_one(attempt)).count() == 0
}

/// Compares both sides, lane by lane.
pub(super) fn compare(charges: &[(Lane, Value)], ledger: &[Value]) -> BTreeMap<Lane, Figures> {
    let mut index = Ledger { payments: HashMap::new(), children: HashMap::new() };
    for entry in ledger {
        let wire = word(entry, "wire");
        match entry["parent"].as_str() {
            Some(parent) => index.children.entry((wire, parent)).or_default().push(entry),
            None => index.payments.entry((wire, word(entry, "reference"))).or_default().push(entry),
        }
    }
    let mut all: BTreeMap<Lane, Figures> =
        Lane::ALL.into_iter().map(|lane| (lane, Figures::default())).collect();
    let (mut known, marks) = (HashSet::new(), Marks::of(ledger));
    for (lane, charge) in charges {
        let figures = all.get_mut(lane).unwrap();
        let payments = payments_of(charge, *lane, &index);
        known.extend(payments.iter().map(|payment| (word(payment, "wire"), word(payment, "id"))));
        one(figures, *lane, charge, &payments, (&index, &marks));
    }
    for entry in ledger {
        let lane = Lane::ALL.into_iter().find(|lane| lane.wire() == word(entry, "wire")).unwrap();
        let figures = all.get_mut(&lane).unwrap();
        if entry["unresolvable"] == true {
            figures.unresolvable.insert(word(entry, "id").to_owned());
        }
        let is_payment = entry["parent"].is_null() && moved(entry);
        if is_payment && !known.contains(&(word(entry, "wire"), word(entry, "id"))) {
            figures.lost.push(format!("a payment of nobody: {entry}"));
        }
    }
    all
}

/// Whether it was done.
fn moved(entry: &Value) -> bool {
    matches!(word(entry, "status"), "approved" | "authorized" | "voided")
}

/// The ledger's payments under the references of the charge's first operation.
fn payments_of<'a>(charge: &Value, lane: Lane, ledger: &Ledger<'a>) -> Vec<&'a Value> {
    let first = list(charge, "attempts")
        .iter()
        .filter(|attempt| matches!(word(attempt, "operation"), "sale" | "authorize" | "verify"));
    let names = first.flat_map(|attempt| {
        let id = word(attempt, "id");
        [id.to_owned(), AttemptId::parse(id).unwrap().reference()]
    });
    names
        .flat_map(|name| {
            let found = ledger
                .payments
                .iter()
                .find(|((wire, reference), _)| *wire == lane.wire() && *reference == name);
            found.map(|(_, found)| found.clone()).unwrap_or_default()
        })
        .collect()
}

fn one(
    figures: &mut Figures,
    lane: Lane,
    charge: &Value,
    payments: &[&Value],
    (ledger, marks): (&Ledger<'_>, &Marks),
) {
    figures.charges += 1;
    let children = |payment: &Value, kind: &str| -> Vec<&Value> {
        let all = ledger.children.get(&(lane.wire(), word(payment, "id")));
        let all = all.map(Vec::as_slice).unwrap_or_default();
        all.iter().copied().filter(|entry| word(entry, "kind") == kind && moved(entry)).collect()
    };
    let live: Vec<&&Value> =
        payments.iter().filter(|payment| moved(payment) && children(payment, "void").is_empty()).collect();
    let done =
        |kind: &str| -> Vec<&Value> { live.iter().flat_map(|payment| children(payment, kind)).collect() };
    let sum = |entries: &[&Value]| entries.iter().map(|entry| amount(entry, "amount_approved")).sum::<i64>();
    let (captures, refunds) = (done("capture"), done("refund"));
    let sales: Vec<&Value> = live.iter().copied().copied().filter(|p| word(p, "kind") == "sale").collect();
    let (captured, refunded) = (sum(&sales) + sum(&captures), sum(&refunds));
    figures.payments += live.len();
    figures.captures += captures.len();
    figures.refunds += refunds.len();
    figures.voids += payments.iter().map(|payment| children(payment, "void").len()).sum::<usize>();
    figures.captured += captured;
    figures.refunded += refunded;

    let about = |what: &str| format!("{what}: {charge}\n  ledger: {payments:?} {captures:?} {refunds:?}");
    let is_open = list(charge, "attempts").iter().any(is_open);
    if live.len() > 1 {
        figures.doubled.push(about("more than one payment"));
    }
    if is_open || word(charge, "status") == "manual" {
        figures.manual += 1;
        if !is_explained(lane, charge, marks) {
            figures.given_up.push(about("not known"));
        }
        return;
    }
    // What undid a part that nobody wanted is on both sides of the ledger, and in the charge as a reversal.
    let of_vault = |part: &str, counts: fn(&Value) -> bool| -> Vec<i64> {
        let parts = list(charge, part).iter().filter(|one| word(one, "status") == "approved" && counts(one));
        parts.map(|one| amount(one, "amount")).collect()
    };
    let reversed: i64 = of_vault("refunds", |refund| refund["reversal"] == true).iter().sum();
    let expected =
        (amount(charge, "amount_captured") + reversed, amount(charge, "amount_refunded") + reversed);
    if captures.len() > of_vault("captures", |_| true).len()
        || refunds.len() > of_vault("refunds", |_| true).len()
    {
        figures.doubled.push(about("an operation too many"));
    }
    let is_held = live.iter().any(|payment| word(payment, "kind") == "authorize") && captures.is_empty();
    let stands = match word(charge, "status") {
        "approved" => live.len() == 1,
        "authorized" => live.len() == 1 && is_held == captures.is_empty(),
        "declined" | "failed" | "voided" => live.is_empty() || (captured == refunded && !is_held),
        _ => false,
    };
    if !stands || (captured, refunded) != expected {
        figures.lost.push(about(&format!("captured {captured} refunded {refunded}, not {expected:?}")));
    }
}
