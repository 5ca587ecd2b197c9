//! Mapping: a processor's answer becomes a few bounded fields, and nothing else of it goes on.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Connector;
use super::decline::DeclineClass;
use super::fields::{Fact, ZipCheck};
use super::op::{Op, Operation, Within};
use super::rules::{Outcome, Verdict};
use super::words::Word;

/// What an answer means. What the processor did not say is `null`.
///
/// Its texts are the processor's own words, bounded but not yet scrubbed of an echoed card number: that is the
/// forwarder's, so its `Debug` prints none of them.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Mapped {
    /// What became of the operation.
    pub outcome: Outcome,
    /// Nobody can say whether it was done: look it up.
    pub unknown: bool,
    /// Approved for less than was asked.
    pub partial: bool,
    /// Approved, but a person at the processor looks at it first.
    pub held_for_review: bool,
    /// The processor had this attempt already.
    pub duplicate: bool,
    /// The processor's code, at most 64 characters.
    pub processor_code: Option<String>,
    /// For a decline or an error: what it means for the next attempt.
    pub decline_class: Option<DeclineClass>,
    /// The processor's words, at most 1,000 characters.
    pub message: Option<String>,
    /// The processor's id, whole: at most 255 characters or not at all.
    pub transaction_id: Option<String>,
    /// The network's id, whole and unchanged: at most 255 characters or not at all.
    pub network_transaction_id: Option<String>,
    /// The address check.
    pub avs: Avs,
    /// The network's advice, at most 32 characters.
    pub advice_code: Option<String>,
    /// Of an approval, in ISO 4217 minor units.
    pub amount_approved: Option<i64>,
    /// The processor's own time in milliseconds, where it says so.
    pub processor_ms: Option<f64>,
}

/// The address check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Avs {
    /// As the processor says it, at most 32 characters.
    pub raw: Option<String>,
    /// What became of the zip.
    pub zip: Option<ZipCheck>,
}

impl std::fmt::Debug for Mapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Mapped");
        out.field("outcome", &self.outcome).field("unknown", &self.unknown);
        out.field("decline_class", &self.decline_class).finish_non_exhaustive()
    }
}

const CODE_CHARS_MAX: usize = 64;
const MESSAGE_CHARS_MAX: usize = 1000;
const ID_CHARS_MAX: usize = 255;
const SHORT_CHARS_MAX: usize = 32;

/// Maps one answer. Whatever the bytes are, the result is one of the outcomes.
pub(super) fn map(
    connector: &Connector,
    operation: Operation,
    status: u16,
    body: &[u8],
    attempt: Option<&str>,
) -> Mapped {
    let op = connector.op(operation);
    let body = trim(body);
    let Some(json) = parse(body) else {
        return facts(connector, op, &unread(connector, operation, status, body), &Value::Null);
    };
    match look_within(op, status, &json, attempt) {
        Found::Here(json) => {
            let rule = connector.rules.iter().find(|rule| rule.matches(operation, status, json));
            let verdict = rule.map_or(&Verdict::UNKNOWN, |rule| &rule.verdict);
            // A redirect or an interim answer comes from something before the processor.
            let from_processor = (200..300).contains(&status) || status >= 400;
            facts(connector, op, if from_processor { verdict } else { &Verdict::UNKNOWN }, json)
        }
        Found::Nothing => facts(connector, op, &Verdict::NOT_FOUND, &Value::Null),
        Found::Unclear => facts(connector, op, &Verdict::UNKNOWN, &Value::Null),
    }
}

/// Some processors put a byte order mark before the answer, or white space around it.
fn trim(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii()
}

/// An object or a list; bytes that are not UTF-8 inside a text do not make the rest unreadable.
fn parse(body: &[u8]) -> Option<Value> {
    let read: Result<Value, _> = serde_json::from_slice(body);
    let json = match (read, String::from_utf8_lossy(body)) {
        (Ok(json), _) => json,
        (Err(_), Cow::Owned(repaired)) => serde_json::from_str(&repaired).ok()?,
        (Err(_), Cow::Borrowed(_)) => return None,
    };
    (json.is_object() || json.is_array()).then_some(json)
}

/// The verdict on an answer that is not in the declared format: by status alone, and never that something was done.
fn unread(connector: &Connector, operation: Operation, status: u16, body: &[u8]) -> Verdict {
    let by_status =
        |rule: &&super::rules::Rule| rule.reads_no_body() && rule.matches(operation, status, &Value::Null);
    let verdict = connector.rules.iter().find(by_status).map_or(&Verdict::UNKNOWN, |rule| &rule.verdict);
    let believable = match verdict.outcome {
        Outcome::Error => true,
        // An empty 404 may say so; a page of a proxy may not.
        Outcome::NotFound => body.is_empty(),
        Outcome::Approved | Outcome::Declined | Outcome::Pending => false,
    };
    if believable && !(200..300).contains(&status) { verdict.clone() } else { Verdict::UNKNOWN }
}

enum Found<'j> {
    Here(&'j Value),
    /// The list is there and whole, and does not hold it.
    Nothing,
    /// An answer of another shape, or a list that goes on elsewhere.
    Unclear,
}

/// For a look-up that answers with a list, the part that is meant.
fn look_within<'j>(op: Option<&Op>, status: u16, json: &'j Value, attempt: Option<&str>) -> Found<'j> {
    let within = op.and_then(|op| op.within.as_ref()).filter(|_| (200..300).contains(&status));
    match within {
        None => Found::Here(json),
        Some(Within::At(path)) => {
            let list =
                path.split_index().and_then(|(list, index)| Some((list.find(json)?.as_array()?, index)));
            match (path.find(json), list) {
                (Some(found), Some(_)) => Found::Here(found),
                (None, Some((list, index))) if list.len() <= index => Found::Nothing,
                (_, Some(_) | None) => Found::Unclear,
            }
        }
        Some(Within::Where { list, attempt: path, more }) => {
            let Some((items, ours)) = list.find(json).and_then(Value::as_array).zip(attempt) else {
                return Found::Unclear;
            };
            let goes_on = more
                .as_ref()
                .and_then(|more| more.find(json))
                .is_some_and(|more| *more != Value::Bool(false));
            let found = items.iter().find(|item| path.text(item).is_some_and(|text| text == ours));
            match found {
                Some(item) => Found::Here(item),
                None if goes_on => Found::Unclear,
                None => Found::Nothing,
            }
        }
    }
}

/// Reads the fields of an answer beside its verdict.
fn facts(connector: &Connector, op: Option<&Op>, verdict: &Verdict, json: &Value) -> Mapped {
    let own = op.map(|op| &op.fields);
    let text = |fact: Fact| {
        let fields = own.filter(|fields| fields.has(fact)).unwrap_or(&connector.fields);
        fields.text(fact, json, &connector.maps)
    };
    let code = text(Fact::Code).map(|t| bounded(&t, CODE_CHARS_MAX));
    let advice = text(Fact::AdviceCode).map(|t| bounded(&t, SHORT_CHARS_MAX));
    let said = text(Fact::Message).map(|t| bounded(&t, MESSAGE_CHARS_MAX));
    let decline_class = match verdict.outcome {
        Outcome::Declined => Some(
            verdict.class.unwrap_or_else(|| connector.declines.classify(code.as_deref(), advice.as_deref())),
        ),
        Outcome::Error if !verdict.unknown => Some(DeclineClass::Error),
        Outcome::Error | Outcome::Approved | Outcome::Pending | Outcome::NotFound => None,
    };
    let amount = || connector.money.to_iso(&text(Fact::AmountApproved)?, text(Fact::Currency).as_deref());
    Mapped {
        outcome: verdict.outcome,
        unknown: verdict.unknown,
        partial: verdict.partial,
        held_for_review: verdict.held_for_review,
        duplicate: verdict.duplicate,
        processor_code: code,
        decline_class,
        message: said.or_else(|| verdict.message.as_deref().map(str::to_owned)),
        transaction_id: text(Fact::TransactionId).and_then(whole),
        network_transaction_id: text(Fact::NetworkTransactionId).and_then(whole),
        avs: Avs {
            raw: text(Fact::AvsRaw).map(|t| bounded(&t, SHORT_CHARS_MAX)),
            zip: text(Fact::AvsZip).and_then(|t| ZipCheck::parse(&t)),
        },
        advice_code: advice,
        amount_approved: if verdict.outcome == Outcome::Approved { amount() } else { None },
        processor_ms: text(Fact::ProcessorMs).and_then(|t| t.parse().ok()).filter(|ms: &f64| ms.is_finite()),
    }
}

/// Cut to a length; a control character becomes a space, so that no log line or terminal is broken by it.
fn bounded(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An id is kept whole or not at all: a cut one would name nothing, or something else.
fn whole(text: String) -> Option<String> {
    let fits = text.len() <= ID_CHARS_MAX && text.chars().all(|c| !c.is_control());
    fits.then_some(text)
}
