//! A charge as the API writes it. There is no card field in it at all.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::Serialize;

use super::Answered;
use super::machine;
use crate::card::id::{AgreementId, AttemptId, ChargeId, RunId, Token};
use crate::clock::Time;
use crate::edge::store::{
    Attempt, AttemptState, ChargeRow, ChargeStatus, DisputeRow, NetworkRule, Operation, OperationKind,
    Outbound, Retries, RetryState,
};

/// The word for a status.
pub const fn status_word(status: ChargeStatus) -> &'static str {
    match status {
        ChargeStatus::Processing => "processing",
        ChargeStatus::Pending => "pending",
        ChargeStatus::Authorized => "authorized",
        ChargeStatus::Approved => "approved",
        ChargeStatus::Declined => "declined",
        ChargeStatus::Failed => "failed",
        ChargeStatus::Unknown => "unknown",
        ChargeStatus::Voided => "voided",
        ChargeStatus::Manual => "manual",
    }
}

/// Reads the word for a status.
pub fn status_from_word(word: &str) -> Option<ChargeStatus> {
    [
        ChargeStatus::Processing,
        ChargeStatus::Pending,
        ChargeStatus::Authorized,
        ChargeStatus::Approved,
        ChargeStatus::Declined,
        ChargeStatus::Failed,
        ChargeStatus::Unknown,
        ChargeStatus::Voided,
        ChargeStatus::Manual,
    ]
    .into_iter()
    .find(|status| status_word(*status) == word)
}

/// The answer to a request about a charge, or about one of its operations: 201 when final, 202 with Location until then. `None` if
/// the charge has no such operation.
pub fn answered(charge: &ChargeRow, operation: Option<&str>) -> Option<Answered> {
    let (status, body, location) = match operation {
        None => (charge.status, charge_json(charge), format!("/v1/charges/{}", charge.id)),
        Some(id) => {
            let one = charge.operations.iter().find(|operation| operation.id == id)?;
            let location = match one.kind {
                OperationKind::Refund => format!("/v1/refunds/{id}"),
                OperationKind::Sale
                | OperationKind::Authorize
                | OperationKind::Capture
                | OperationKind::Void
                | OperationKind::Verify => format!("/v1/charges/{}", charge.id),
            };
            (one.status, operation_json(charge, one), location)
        }
    };
    let done = machine::is_final(status);
    Some(Answered {
        status: if done { 201 } else { 202 },
        location: Some(location),
        body,
        replayed: false,
        upstream_us: None,
        processor_us: None,
    })
}

/// A charge's JSON.
pub fn charge_json(charge: &ChargeRow) -> Vec<u8> {
    serde_json::to_vec(&ChargeAnswer::of(charge)).unwrap_or_default()
}

/// The JSON of a capture, refund or void.
pub fn operation_json(charge: &ChargeRow, operation: &Operation) -> Vec<u8> {
    serde_json::to_vec(&OperationAnswer::of(charge, operation)).unwrap_or_default()
}

/// What is known of whether any byte of the charge's first operation left.
fn outbound(operation: Option<&Operation>) -> Outbound {
    let last = operation.and_then(|operation| operation.attempts.last());
    last.map_or(Outbound::NotSent, |attempt| attempt.outbound)
}

/// A charge as the API writes it.
#[derive(Serialize)]
pub struct ChargeAnswer<'a> {
    #[serde(serialize_with = "display")]
    id: ChargeId,
    status: &'static str,
    #[serde(serialize_with = "display")]
    token: Token,
    amount: i64,
    currency: &'a str,
    invoice: Option<&'a str>,
    period: &'a str,
    destination: &'a str,
    initiator: &'a str,
    #[serde(serialize_with = "display_some")]
    agreement: Option<AgreementId>,
    /// The invoice run that it is of, and the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<OfRunAnswer>,
    capture: bool,
    allow_partial: bool,
    amount_authorized: i64,
    amount_captured: i64,
    amount_refunded: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount_offered: Option<i64>,
    code: Option<&'a str>,
    decline_class: Option<&'a str>,
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_rule: Option<Rule<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retries: Option<Schedule<'a>>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "display_some")]
    next_attempt_at: Option<Time>,
    outbound: Outbound,
    retryable: bool,
    processor_transaction_id: Option<&'a str>,
    network_transaction_id: Option<&'a str>,
    avs: Option<Avs<'a>>,
    attempts: Vec<AttemptAnswer<'a>>,
    captures: Vec<Part<'a>>,
    refunds: Vec<Part<'a>>,
    /// What the processor told of disputes, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    disputes: Vec<Dispute<'a>>,
    customer: Option<&'a str>,
    description: Option<&'a str>,
    metadata: &'a BTreeMap<String, String>,
    #[serde(serialize_with = "display")]
    created_at: Time,
    #[serde(serialize_with = "display")]
    updated_at: Time,
    #[serde(serialize_with = "display_some")]
    expires_at: Option<Time>,
}

#[derive(Serialize)]
struct OfRunAnswer {
    #[serde(serialize_with = "display")]
    id: RunId,
    line: u32,
}

#[derive(Serialize)]
struct Avs<'a> {
    raw: Option<&'a str>,
    zip: Option<&'a str>,
}

/// What the card network's rules say of a decline.
#[derive(Serialize)]
struct Rule<'a> {
    name: &'a str,
    retry: &'a str,
    #[serde(serialize_with = "display_some")]
    retry_after: Option<Time>,
    condition: Option<&'a str>,
}

/// The schedule of retries of a charge that asked for one.
#[derive(Serialize)]
struct Schedule<'a> {
    status: &'static str,
    /// Why it ended.
    reason: Option<&'a str>,
    /// Attempts that the schedule has made.
    made: u32,
    #[serde(serialize_with = "display")]
    until: Time,
}

/// One try of one operation.
#[derive(Serialize)]
struct AttemptAnswer<'a> {
    #[serde(serialize_with = "display")]
    id: AttemptId,
    operation: OperationKind,
    status: AttemptState,
    outbound: Outbound,
    tries: u32,
    processor_code: Option<&'a str>,
    decline_class: Option<&'a str>,
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_rule: Option<Rule<'a>>,
    /// Where it went, if the charge did not stay there.
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<&'a str>,
    error: Option<&'a str>,
    #[serde(serialize_with = "display")]
    started_at: Time,
    #[serde(serialize_with = "display_some")]
    finished_at: Option<Time>,
    upstream_ms: Option<f64>,
}

/// What a processor told of a dispute; the charge's status and amounts do not follow it.
#[derive(Serialize)]
struct Dispute<'a> {
    status: &'static str,
    amount: Option<i64>,
    code: Option<&'a str>,
    processor_transaction_id: Option<&'a str>,
    #[serde(serialize_with = "display")]
    at: Time,
}

/// A capture or refund inside its charge.
#[derive(Serialize)]
struct Part<'a> {
    id: &'a str,
    status: &'static str,
    amount: i64,
    #[serde(rename = "final", skip_serializing_if = "Option::is_none")]
    last: Option<bool>,
    /// A refund that undid a sale which was not wanted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    reversal: bool,
    code: Option<&'a str>,
    processor_transaction_id: Option<&'a str>,
    #[serde(serialize_with = "display")]
    created_at: Time,
}

/// A capture, refund or void as the API writes it.
#[derive(Serialize)]
pub struct OperationAnswer<'a> {
    id: &'a str,
    operation: OperationKind,
    #[serde(serialize_with = "display")]
    charge: ChargeId,
    status: &'static str,
    amount: i64,
    currency: &'a str,
    #[serde(rename = "final", skip_serializing_if = "Option::is_none")]
    last: Option<bool>,
    /// A refund that undid a sale which was not wanted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    reversal: bool,
    code: Option<&'a str>,
    decline_class: Option<&'a str>,
    message: Option<&'a str>,
    outbound: Outbound,
    retryable: bool,
    processor_transaction_id: Option<&'a str>,
    attempts: Vec<AttemptAnswer<'a>>,
    charge_status: &'static str,
    amount_authorized: i64,
    amount_captured: i64,
    amount_refunded: i64,
    invoice: Option<&'a str>,
    customer: Option<&'a str>,
    destination: &'a str,
    #[serde(serialize_with = "display")]
    created_at: Time,
}

impl<'a> ChargeAnswer<'a> {
    /// A charge's answer.
    pub fn of(charge: &'a ChargeRow) -> Self {
        let first = charge.operations.first();
        let last = first.and_then(|operation| operation.attempts.last());
        let attempts = charge.operations.iter();
        Self {
            id: charge.id,
            status: status_word(charge.status),
            token: charge.token,
            amount: charge.amount,
            currency: &charge.currency,
            invoice: some(&charge.invoice),
            period: &charge.period,
            destination: &charge.destination,
            initiator: &charge.initiator,
            agreement: charge.agreement,
            run: charge.run.map(|of| OfRunAnswer { id: of.id, line: of.line }),
            capture: charge.capture,
            allow_partial: charge.allow_partial,
            amount_authorized: charge.amount_authorized,
            amount_captured: charge.amount_captured,
            amount_refunded: charge.amount_refunded,
            amount_offered: charge.amount_offered,
            code: charge.code.as_deref(),
            decline_class: last.and_then(|attempt| attempt.decline_class.as_deref()),
            message: last.and_then(|attempt| attempt.message.as_deref()),
            network_rule: last.and_then(|attempt| attempt.rule.as_ref()).map(Rule::of),
            retries: charge.retries().map(Schedule::of),
            next_attempt_at: charge.retries().and_then(Schedule::next),
            outbound: outbound(first),
            retryable: is_retryable(charge.status, first),
            processor_transaction_id: last.and_then(|attempt| attempt.transaction_id.as_deref()),
            network_transaction_id: last.and_then(|attempt| attempt.network_transaction_id.as_deref()),
            avs: last.and_then(|attempt| attempt.avs.as_ref()).map(Avs::of),
            attempts: attempts.flat_map(AttemptAnswer::all).collect(),
            captures: Part::all(charge, OperationKind::Capture),
            refunds: Part::all(charge, OperationKind::Refund),
            disputes: charge.disputes.iter().map(Dispute::of).collect(),
            customer: charge.customer.as_deref(),
            description: charge.description.as_deref(),
            metadata: &charge.metadata,
            created_at: charge.created_at,
            updated_at: charge.updated_at,
            expires_at: charge.expires_at,
        }
    }

    /// The head of [`csv`](Self::csv).
    pub const CSV_HEAD: &'static str = "id,status,token,amount,currency,invoice,period,destination,initiator,amount_authorized,\
        amount_captured,amount_refunded,code,decline_class,outbound,processor_transaction_id,customer,created_at,updated_at\r\n";

    /// One line of CSV (RFC 4180).
    pub fn csv(&self) -> String {
        let outbound = serde_json::to_value(self.outbound).unwrap_or_default();
        let cells = [
            self.id.to_string(),
            self.status.to_owned(),
            self.token.to_string(),
            self.amount.to_string(),
            self.currency.to_owned(),
            self.invoice.unwrap_or_default().to_owned(),
            self.period.to_owned(),
            self.destination.to_owned(),
            self.initiator.to_owned(),
            self.amount_authorized.to_string(),
            self.amount_captured.to_string(),
            self.amount_refunded.to_string(),
            self.code.unwrap_or_default().to_owned(),
            self.decline_class.unwrap_or_default().to_owned(),
            outbound.as_str().unwrap_or_default().to_owned(),
            self.processor_transaction_id.unwrap_or_default().to_owned(),
            self.customer.unwrap_or_default().to_owned(),
            self.created_at.to_string(),
            self.updated_at.to_string(),
        ];
        csv_line(&cells)
    }
}

impl<'a> OperationAnswer<'a> {
    /// An operation's answer.
    pub fn of(charge: &'a ChargeRow, operation: &'a Operation) -> Self {
        let last = operation.attempts.last();
        Self {
            id: &operation.id,
            operation: operation.kind,
            charge: charge.id,
            status: status_word(operation.status),
            amount: operation.amount,
            currency: &charge.currency,
            last: (operation.kind == OperationKind::Capture).then_some(operation.last),
            reversal: operation.undoes,
            code: last.and_then(code_of),
            decline_class: last.and_then(|attempt| attempt.decline_class.as_deref()),
            message: last.and_then(|attempt| attempt.message.as_deref()),
            outbound: outbound(Some(operation)),
            retryable: is_retryable(operation.status, Some(operation)),
            processor_transaction_id: last.and_then(|attempt| attempt.transaction_id.as_deref()),
            attempts: AttemptAnswer::all(operation).collect(),
            charge_status: status_word(charge.status),
            amount_authorized: charge.amount_authorized,
            amount_captured: charge.amount_captured,
            amount_refunded: charge.amount_refunded,
            invoice: some(&charge.invoice),
            customer: charge.customer.as_deref(),
            destination: &charge.destination,
            created_at: operation.created_at,
        }
    }

    /// The head of [`csv`](Self::csv).
    pub const CSV_HEAD: &'static str = "id,charge,status,amount,currency,code,processor_transaction_id,invoice,customer,destination,created_at\r\n";

    /// One line of CSV (RFC 4180).
    pub fn csv(&self) -> String {
        csv_line(&[
            self.id.to_owned(),
            self.charge.to_string(),
            self.status.to_owned(),
            self.amount.to_string(),
            self.currency.to_owned(),
            self.code.unwrap_or_default().to_owned(),
            self.processor_transaction_id.unwrap_or_default().to_owned(),
            self.invoice.unwrap_or_default().to_owned(),
            self.customer.unwrap_or_default().to_owned(),
            self.destination.to_owned(),
            self.created_at.to_string(),
        ])
    }
}

impl<'a> Avs<'a> {
    fn of(avs: &'a (Option<String>, Option<String>)) -> Self {
        Self { raw: avs.0.as_deref(), zip: avs.1.as_deref() }
    }
}

impl<'a> Rule<'a> {
    fn of(rule: &'a NetworkRule) -> Self {
        Self {
            name: &rule.name,
            retry: &rule.retry,
            retry_after: rule.retry_after,
            condition: rule.condition.as_deref(),
        }
    }
}

impl<'a> Dispute<'a> {
    fn of(dispute: &'a DisputeRow) -> Self {
        Self {
            status: dispute.status.word(),
            amount: dispute.amount,
            code: dispute.code.as_deref(),
            processor_transaction_id: dispute.transaction_id.as_deref(),
            at: dispute.at,
        }
    }
}

impl<'a> Schedule<'a> {
    fn of(retries: &'a Retries) -> Self {
        let (status, reason) = match &retries.state {
            RetryState::Running => ("running", None),
            RetryState::Scheduled(_) => ("scheduled", None),
            RetryState::Waiting => ("waiting", None),
            RetryState::Ended(why) => ("ended", Some(why.as_str())),
        };
        Self { status, reason, made: retries.made, until: retries.until }
    }

    const fn next(retries: &Retries) -> Option<Time> {
        match retries.state {
            RetryState::Scheduled(at) => Some(at),
            RetryState::Running | RetryState::Waiting | RetryState::Ended(_) => None,
        }
    }
}

impl<'a> AttemptAnswer<'a> {
    fn all(operation: &'a Operation) -> impl Iterator<Item = Self> {
        let kind = operation.kind;
        operation.attempts.iter().map(move |attempt| Self {
            id: attempt.id,
            operation: kind,
            status: attempt.state,
            outbound: attempt.outbound,
            tries: attempt.tries,
            processor_code: attempt.processor_code.as_deref(),
            decline_class: attempt.decline_class.as_deref(),
            message: attempt.message.as_deref(),
            network_rule: attempt.rule.as_ref().map(Rule::of),
            destination: attempt.destination.as_deref(),
            error: attempt.error.as_deref(),
            started_at: attempt.started_at,
            finished_at: attempt.finished_at,
            upstream_ms: attempt.upstream_us.map(millis),
        })
    }
}

impl<'a> Part<'a> {
    fn all(charge: &'a ChargeRow, kind: OperationKind) -> Vec<Self> {
        let of_kind = charge.operations.iter().filter(|operation| operation.kind == kind);
        of_kind
            .map(|operation| {
                let last = operation.attempts.last();
                Self {
                    id: &operation.id,
                    status: status_word(operation.status),
                    amount: operation.amount,
                    last: (kind == OperationKind::Capture).then_some(operation.last),
                    reversal: operation.undoes,
                    code: last.and_then(code_of),
                    processor_transaction_id: last.and_then(|attempt| attempt.transaction_id.as_deref()),
                    created_at: operation.created_at,
                }
            })
            .collect()
    }
}

/// Microseconds as milliseconds with three places.
pub fn millis(micros: u64) -> f64 {
    f64::from(u32::try_from(micros).unwrap_or(u32::MAX)) / 1_000.0
}

/// Whether the same, under another key, may succeed: nothing left this house.
fn is_retryable(status: ChargeStatus, operation: Option<&Operation>) -> bool {
    status == ChargeStatus::Failed && outbound(operation) == Outbound::NotSent
}

fn code_of(attempt: &Attempt) -> Option<&str> {
    match attempt.state {
        AttemptState::Declined | AttemptState::Failed | AttemptState::Unknown | AttemptState::Manual => {
            attempt.processor_code.as_deref().or(attempt.error.as_deref())
        }
        AttemptState::Sending | AttemptState::Pending | AttemptState::Approved => None,
    }
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// A cell that a spreadsheet would run as a formula gets an apostrophe in front.
pub(super) fn csv_line(cells: &[String]) -> String {
    let mut line = String::new();
    for (at, cell) in cells.iter().enumerate() {
        if at > 0 {
            line.push(',');
        }
        let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']) && cell.parse::<i64>().is_err();
        let cell = if formula { format!("'{cell}") } else { cell.clone() };
        if cell.contains([',', '"', '\r', '\n']) {
            line.push('"');
            line.push_str(&cell.replace('"', "\"\""));
            line.push('"');
        } else {
            line.push_str(&cell);
        }
    }
    line.push_str("\r\n");
    line
}

fn display<S: serde::Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn display_some<S: serde::Serializer>(
    value: &Option<impl Display>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_quoted_where_it_must_be_and_never_a_formula() {
        let cells = ["a,b", "say \"x\"", "=1+1", "-5", "plain"].map(str::to_owned);
        assert_eq!(csv_line(&cells), "\"a,b\",\"say \"\"x\"\"\",'=1+1,-5,plain\r\n");
    }

    #[test]
    fn every_status_reads_back() {
        for word in ["processing", "pending", "authorized", "approved", "declined", "failed", "unknown"] {
            assert_eq!(status_from_word(word).map(status_word), Some(word));
        }
        assert_eq!(status_from_word("paid"), None);
    }
}
