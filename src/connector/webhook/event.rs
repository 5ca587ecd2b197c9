//! `[[webhook.event]]`: what a notification means. In order, the first that matches decides.

use std::ops::Range;

use super::super::decline::DeclineClass;
use super::super::document::{Entry, Section, strings};
use super::super::fault::Faults;
use super::super::op::{Op, Operation};
use super::super::path::Path;
use super::super::rules::{Outcome, Test, Verdict, read_test};
use super::super::tree::Tree;
use super::super::words::{Word, read, words};
use super::{read_path, tables};

words! {
    /// What a notification says of an operation.
    pub enum Says {
        /// Done.
        Approved = "approved",
        /// Refused.
        Declined = "declined",
        /// The processor goes on looking into it.
        Pending = "pending",
        /// What was approved did not hold after all.
        Reversed = "reversed",
        /// The cardholder disputes a payment; no money was taken back yet.
        DisputeOpened = "dispute_opened",
        /// The issuer took the money of a payment back.
        ChargedBack = "charged_back",
        /// The money that a chargeback took came back.
        ChargebackReversed = "chargeback_reversed",
        /// The issuer took the money back for a second time.
        ChargedBackAgain = "charged_back_again",
        /// Something that a person should know of and that changes no operation.
        Noted = "noted",
        /// Nothing of ours.
        Ignored = "ignored",
    }
}

/// One event, compiled: it matches when every test does.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) of: Vec<Operation>,
    tests: Vec<Test>,
    pub(super) says: Says,
    class: Option<DeclineClass>,
    message: Option<Box<str>>,
    /// Where the processor's id stands, if not where `[webhook]` says.
    pub(super) transaction: Option<Path>,
    /// The same for that of the payment.
    pub(super) original: Option<Path>,
    line_at: Range<usize>,
}

impl Event {
    pub(super) fn matches(&self, item: Tree<'_>) -> bool {
        self.tests.iter().all(|test| test.holds(item))
    }

    /// As if it were the answer to the operation.
    pub(super) fn verdict(&self) -> Verdict {
        let outcome = match self.says {
            Says::Approved => Outcome::Approved,
            Says::Declined => Outcome::Declined,
            Says::Pending => Outcome::Pending,
            Says::Reversed
            | Says::DisputeOpened
            | Says::ChargedBack
            | Says::ChargebackReversed
            | Says::ChargedBackAgain
            | Says::Noted
            | Says::Ignored => {
                return Verdict { message: self.message.clone(), ..Verdict::UNKNOWN };
            }
        };
        Verdict {
            outcome,
            unknown: false,
            class: self.class,
            message: self.message.clone(),
            ..Verdict::UNKNOWN
        }
    }

    /// Where it looks.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.tests.iter().flat_map(Test::paths).chain(&self.transaction).chain(&self.original)
    }

    /// Whether everything that the other matches has matched here before.
    fn covers(&self, later: &Self) -> bool {
        self.tests.iter().all(|test| later.tests.iter().any(|other| test.follows_from(other)))
    }
}

/// Reads all events and reports those that can never match.
pub(super) fn read_events(
    entry: Option<Entry<'_>>,
    ops: &[Op],
    at: &Range<usize>,
    faults: &mut Faults<'_>,
) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for item in entry.iter().flat_map(|entry| tables(entry.value)) {
        let Some(table) = item.get_ref().as_table() else {
            faults.add(&item.span(), "an event is not a table", "write [[webhook.event]] and its keys below");
            continue;
        };
        let section = Section::new("[[webhook.event]]", item.span(), table);
        let Some(event) = read_event(section, ops, faults) else { continue };
        if events.iter().any(|earlier| earlier.covers(&event)) {
            faults.add(
                &event.line_at,
                "this event can never match: one before it matches all that it would",
                "move it up, or take it out",
            );
        }
        events.push(event);
    }
    if !events.iter().any(|event| event.says != Says::Ignored) && faults.is_empty() {
        let instead = "write [[webhook.event]], its tests, of = [\"capture\"] and outcome = \"approved\"";
        faults.add(at, "[webhook] has no event that says anything", instead);
    }
    events
}

fn read_event(mut section: Section<'_>, ops: &[Op], faults: &mut Faults<'_>) -> Option<Event> {
    let line_at = section.at.clone();
    let (text, at) = section.required("outcome", faults);
    let says = if text.is_empty() { None } else { read::<Says>("outcome", text, &at, faults) };
    let of = read_of(&mut section, ops, faults);
    if says.is_some_and(|says| !matches!(says, Says::Ignored | Says::Noted)) && of.is_empty() {
        faults.add(
            &line_at,
            "[[webhook.event]] has no `of`",
            "write of = [\"capture\"]: what it can be about",
        );
    }
    let class = section
        .string("class", faults)
        .and_then(|(text, at)| read::<DeclineClass>("class", text, &at, faults));
    if class.is_some() && says != Some(Says::Declined) {
        faults.add(
            &line_at,
            "`class` stands with an outcome that declines nothing",
            "write outcome = \"declined\"",
        );
    }
    let message = section.string("message", faults).map(|(text, _)| text.into());
    let transaction = read_path(&mut section, "transaction", faults);
    let original = read_path(&mut section, "original", faults);
    let tests: Vec<Test> = section.take_rest().iter().filter_map(|entry| read_test(entry, faults)).collect();
    if tests.is_empty() {
        faults.add(
            &line_at,
            "an event without a test would be every event",
            "write which it is: type = \"…\"",
        );
    }
    Some(Event { of, tests, says: says?, class, message, transaction, original, line_at })
}

fn read_of(section: &mut Section<'_>, ops: &[Op], faults: &mut Faults<'_>) -> Vec<Operation> {
    let Some(entry) = section.take("of") else { return Vec::new() };
    let mut of = Vec::new();
    for (text, at) in strings("of", entry.value, faults) {
        match read::<Operation>("of", text, &at, faults) {
            Some(operation) if operation.is_lookup() => {
                faults.add(&at, "a look-up is not told of", "name the operations that send something");
            }
            Some(operation) if !ops.iter().any(|op| op.operation == operation) => {
                let problem = format!("the connector has no [op.{}] to be told of", operation.text());
                faults.add(&at, problem, "leave it out, or write the operation");
            }
            Some(operation) => of.push(operation),
            None => {}
        }
    }
    of
}
