//! A processor's answer becomes a few bounded, scrubbed fields.

use super::connection::Got;
use super::fault::Fault;
use super::retry_after;
use super::scrub::{Field, Scrubber};
use crate::connector::{CardUpdate, Connector, Mapped, Operation, Outcome, Word};
use crate::wire::forwarder::{Answer, Exchange, NewCard, RETRY_AFTER_SECONDS_MAX, Verdict};
use crate::wire::keeper::Verb;

/// Where the connector cuts a text; a card number may have been cut with it.
const MESSAGE_CHARS_MAX: usize = 1000;
const CODE_CHARS_MAX: usize = 64;
const SHORT_CHARS_MAX: usize = 32;

/// What an answer says.
pub(super) struct Said {
    /// What goes on to the edge.
    pub(super) answer: Answer,
    /// What goes to the keeper and no further.
    pub(super) new_card: Option<Box<NewCard>>,
    /// Where it says nothing of what was done.
    pub(super) fault: Option<Fault>,
}

/// Maps an answer.
pub(super) fn read(connector: &Connector, exchange: &Exchange, got: Got) -> Said {
    let retry_after_seconds = retry_after::seconds(got.status, &got.headers, RETRY_AFTER_SECONDS_MAX);
    let said = read_body(connector, exchange, got);
    Said { answer: Answer { retry_after_seconds, ..said.answer }, ..said }
}

fn read_body(connector: &Connector, exchange: &Exchange, got: Got) -> Said {
    let nothing = |fault| Said { answer: unknown(got.status), new_card: None, fault: Some(fault) };
    if (300..400).contains(&got.status) {
        return nothing(Fault::Redirect);
    }
    if !got.is_identity {
        return nothing(Fault::Encoding);
    }
    let verb = operation(exchange.verb);
    let mut mapped = match connector.lookup_for(verb).filter(|_| exchange.look_up) {
        Some(look_up) => {
            let (id, reference) = (exchange.attempt.to_string(), exchange.attempt.reference());
            connector.map_attempt(look_up, got.status, &got.body, &[&id, &reference])
        }
        None => connector.map(verb, got.status, &got.body),
    };
    // The body goes before the scrubbed texts come: the least of it is in memory at any time.
    let status = got.status;
    drop(got);
    let new_card = mapped.card_update.take().map(new_card);
    // The new number is as little for the edge as the one that was sent, wherever the processor repeats it.
    let scrubber = match new_card.as_ref().and_then(|card| card.number.as_ref()) {
        Some(number) => Scrubber::new(&[exchange.scrub.as_slice(), &[number.to_string()]].concat()),
        None => Scrubber::new(&exchange.scrub),
    };
    Said { answer: scrubbed(mapped, status, &scrubber), new_card, fault: None }
}

fn new_card(update: CardUpdate) -> Box<NewCard> {
    Box::new(NewCard { kind: update.kind, number: update.number, expiry: update.expiry })
}

/// The connector's operation that an exchange carries out.
pub(super) fn operation_of(connector: &Connector, exchange: &Exchange) -> Operation {
    let verb = operation(exchange.verb);
    connector.lookup_for(verb).filter(|_| exchange.look_up).unwrap_or(verb)
}

/// A step's answer that does not hold what it should.
pub(super) fn of_a_step(mapped: Mapped, got: &Got, scrub: &[String]) -> Answer {
    let retry_after_seconds = retry_after::seconds(got.status, &got.headers, RETRY_AFTER_SECONDS_MAX);
    Answer { retry_after_seconds, ..scrubbed(mapped, got.status, &Scrubber::new(scrub)) }
}

/// Certainly nothing was charged, and nobody said why.
pub(super) fn not_charged() -> Answer {
    Answer::of(Verdict::Error, 0)
}

const fn operation(verb: Verb) -> Operation {
    match verb {
        Verb::Sale => Operation::Sale,
        Verb::Authorize => Operation::Authorize,
        Verb::Capture => Operation::Capture,
        Verb::Refund => Operation::Refund,
        Verb::Void => Operation::Void,
        Verb::Verify => Operation::Verify,
    }
}

/// The verb that an operation carries out; a look-up carries out none.
pub(super) const fn verb(operation: Operation) -> Option<Verb> {
    match operation {
        Operation::Sale => Some(Verb::Sale),
        Operation::Authorize => Some(Verb::Authorize),
        Operation::Capture => Some(Verb::Capture),
        Operation::Refund => Some(Verb::Refund),
        Operation::Void => Some(Verb::Void),
        Operation::Verify => Some(Verb::Verify),
        Operation::Lookup
        | Operation::LookupCapture
        | Operation::LookupRefund
        | Operation::LookupVoid
        | Operation::LookupVerify => None,
    }
}

const fn verdict(outcome: Outcome) -> Verdict {
    match outcome {
        Outcome::Approved => Verdict::Approved,
        Outcome::Declined => Verdict::Declined,
        Outcome::Pending => Verdict::Pending,
        Outcome::Error => Verdict::Error,
        Outcome::NotFound => Verdict::NotFound,
    }
}

/// An answer that was not read: perhaps done.
fn unknown(http_status: u16) -> Answer {
    Answer { unknown: true, ..Answer::of(Verdict::Error, http_status) }
}

/// Bounded fields without a clear value.
pub(super) fn scrubbed(mapped: Mapped, http_status: u16, scrubber: &Scrubber) -> Answer {
    let text = |text: Option<String>, field| text.map(|text| scrubber.clean(text, field));
    Answer {
        verdict: verdict(mapped.outcome),
        unknown: mapped.unknown,
        partial: mapped.partial,
        held_for_review: mapped.held_for_review,
        duplicate: mapped.duplicate,
        http_status,
        processor_code: text(mapped.processor_code, Field::Code { chars_max: CODE_CHARS_MAX }),
        decline_class: mapped.decline_class.map(|class| class.text().to_owned()),
        message: text(mapped.message, Field::Message { chars_max: MESSAGE_CHARS_MAX }),
        transaction_id: text(mapped.transaction_id, Field::Id),
        network_transaction_id: text(mapped.network_transaction_id, Field::Id),
        transaction_link_id: text(mapped.transaction_link_id, Field::Id),
        avs_raw: text(mapped.avs.raw, Field::Code { chars_max: CODE_CHARS_MAX }),
        avs_zip: mapped.avs.zip.map(|zip| zip.text().to_owned()),
        advice_code: text(mapped.advice_code, Field::Code { chars_max: SHORT_CHARS_MAX }),
        amount_approved: mapped.amount_approved,
        processor_us: mapped.processor_ms.and_then(microseconds),
        retry_after_seconds: None,
    }
}

fn microseconds(ms: f64) -> Option<u64> {
    std::time::Duration::try_from_secs_f64(ms / 1000.0)
        .ok()
        .and_then(|time| u64::try_from(time.as_micros()).ok())
}
