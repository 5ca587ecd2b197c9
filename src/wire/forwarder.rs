//! What the keeper asks of the forwarder, and what it gets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use zeroize::Zeroizing;

use super::keeper::{CardUpdate, Verb};
use crate::card::id::AttemptId;
use crate::connector::UpdateKind;

/// However long a processor asks to be left alone: after this it is asked again.
pub const RETRY_AFTER_SECONDS_MAX: u32 = 3_600;

/// A header of an answer to a forward that is longer does not go back.
pub const FORWARDED_HEADER_BYTES_MAX: u32 = 1024;

/// A question to the forwarder.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToForwarder {
    /// Send a rendered request and map its answer.
    Send(Box<Exchange>),
    /// Check what a processor tells by itself, and map it.
    Webhook(Box<Webhook>),
}

/// An answer of the forwarder.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromForwarder {
    /// To [`ToForwarder::Send`].
    Exchanged(Box<Exchanged>),
    /// To [`ToForwarder::Webhook`].
    Webhook(WebhookRead),
}

/// What somebody sent who says to be a processor.
#[derive(Serialize, Deserialize)]
pub struct Webhook {
    /// Which, by the name of its destination.
    pub destination: String,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// The body as it came.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
    /// The credentials that it may be signed with, by field name: those in use, and those that come after.
    pub credentials: Vec<Vec<(String, String)>>,
    /// Clear values that must not come back: credentials.
    pub scrub: Vec<String>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("destination", &self.destination).finish_non_exhaustive()
    }
}

/// What a webhook said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WebhookRead {
    /// The processor sent it.
    Said {
        /// What it tells of.
        notifications: Vec<Notification>,
        /// The body that it wants to see.
        answer: String,
    },
    /// Nobody knows who sent it, or what it says: a short word of ours.
    Untrusted(String),
    /// It could not be looked at now: a short word of ours.
    Failed(String),
}

/// One thing that a processor tells of, bounded and scrubbed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// What the attempt may have been to do.
    pub of: Vec<Verb>,
    /// What it says.
    pub says: Says,
    /// The same as an answer to the attempt.
    pub answer: Answer,
    /// Our own reference: the attempt's, or that of the payment it belongs to.
    pub reference: Option<String>,
    /// The processor's id of the payment it belongs to.
    pub original: Option<String>,
    /// The amount that it names.
    pub stated: Stated,
}

/// What a notification says of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Says {
    /// What its answer says.
    Answer,
    /// What was approved did not hold.
    Reversed,
    /// Its cardholder disputes the payment.
    Disputed(Dispute),
    /// Something that a person should know of.
    Noted,
    /// Nothing of ours.
    Ignored,
}

/// How far a dispute of a payment went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dispute {
    /// No money was taken back yet.
    Opened,
    /// The issuer took the money back.
    ChargedBack,
    /// That money came back.
    Reversed,
    /// The issuer took the money back for a second time.
    ChargedBackAgain,
}

/// The amount that a notification names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stated {
    /// None.
    Nothing,
    /// In minor units, and the currency in upper case.
    Amount(i64, String),
    /// One that cannot be read.
    Unclear,
}

/// A rendered request. The forwarder has no keys, and of a card just what stands in here.
#[derive(Serialize, Deserialize)]
pub struct Exchange {
    /// Where to, by name: the forwarder dials what its own settings say.
    pub destination: String,
    /// The attempt it belongs to.
    pub attempt: AttemptId,
    /// What the attempt does; a forward does what its own request says, and the forwarder does not read this.
    pub verb: Verb,
    /// Whether this asks what became of the attempt, instead of making it.
    pub look_up: bool,
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
    /// Which of the operator's credentials stand in it: 0 for the ones in use, 1 for those that come after.
    pub credentials: u8,
    /// Clear values that must not come back: the PAN, a CVC, credentials.
    pub scrub: Vec<String>,
    /// Whether a connection that was used before may be used (class `none` takes a fresh one).
    pub pooled: bool,
    /// What goes before it, in order.
    pub steps: Vec<StepRequest>,
    /// Marks where the request holds what a step gives; empty if there is none.
    pub mark: String,
}

/// A rendered step.
#[derive(Serialize, Deserialize)]
pub struct StepRequest {
    /// Its place in the connector.
    pub index: usize,
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

/// What is known of whether bytes left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sent {
    /// Certainly not.
    Not,
    /// Perhaps.
    Maybe,
    /// Yes, and an answer came.
    Yes,
}

/// What came of an exchange.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exchanged {
    /// What became of the exchange; the keeper gives it on.
    pub outcome: Outcome,
    /// What the processor said of the card itself. It is for the keeper alone, and in a message of its own so that no outcome can carry
    /// it further.
    pub new_card: Option<Box<NewCard>>,
}

impl From<Outcome> for Exchanged {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, new_card: None }
    }
}

/// What a processor's account updater said, in clear and not checked.
#[derive(Serialize, Deserialize)]
pub struct NewCard {
    /// What it says.
    pub kind: UpdateKind,
    /// The new number.
    pub number: Option<Zeroizing<String>>,
    /// Month and year of the new expiry.
    pub expiry: Option<(u16, u16)>,
}

impl std::fmt::Debug for NewCard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewCard").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// What became of an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The attempt.
    pub attempt: AttemptId,
    /// What is known of whether bytes left.
    pub sent: Sent,
    /// The mapped answer, if one came and could be read.
    pub answer: Option<Answer>,
    /// Our own word for what went wrong: `dns`, `connect`, `tls`, `timeout`, `closed`, `too_large`, `redirect`, `protocol`, …
    pub error: Option<String>,
    /// The processor refused the operator's credentials, and there are others: the next request goes out with those. Said by the
    /// keeper.
    pub credentials_changed: bool,
    /// What the processor said of the card itself, checked and sealed. Said by the keeper.
    pub card_update: Option<Box<CardUpdate>>,
    /// From the request's first byte to the answer's last, in microseconds.
    pub upstream_us: u64,
    /// The answer to a forward, redacted; a charge has none.
    pub forwarded: Option<Box<Forwarded>>,
}

impl Answer {
    /// An answer that says this and nothing else.
    pub const fn of(verdict: Verdict, http_status: u16) -> Self {
        Self {
            verdict,
            unknown: false,
            partial: false,
            held_for_review: false,
            duplicate: false,
            http_status,
            processor_code: None,
            decline_class: None,
            message: None,
            transaction_id: None,
            network_transaction_id: None,
            transaction_link_id: None,
            avs_raw: None,
            avs_zip: None,
            advice_code: None,
            amount_approved: None,
            processor_us: None,
            retry_after_seconds: None,
        }
    }
}

impl Outcome {
    /// For how long the processor asked to be left alone, within our limit; zero if it did not.
    pub fn wait(&self) -> Duration {
        let seconds = self.answer.as_ref().and_then(|answer| answer.retry_after_seconds);
        Duration::from_secs(seconds.unwrap_or(0).min(RETRY_AFTER_SECONDS_MAX).into())
    }
}

/// The answer to a forward, bounded and redacted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarded {
    /// HTTP status.
    pub http_status: u16,
    /// The headers that the destination lets go back, and the content type.
    pub headers: Vec<(String, String)>,
    /// Whether `body` is JSON; else it is text.
    pub is_json: bool,
    /// The body.
    pub body: String,
}

/// The outcome that a connector's rules gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Done.
    Approved,
    /// The issuer or processor said no.
    Declined,
    /// The processor answers later.
    Pending,
    /// Neither: refused before it was processed, or a fault.
    Error,
    /// A look-up that found nothing.
    NotFound,
}

/// Bounded fields of a processor's answer, scrubbed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The outcome.
    pub verdict: Verdict,
    /// It says nothing about whether the money moved.
    pub unknown: bool,
    /// Approved for less than was asked.
    pub partial: bool,
    /// Approved, and held for review.
    pub held_for_review: bool,
    /// The processor had this request before.
    pub duplicate: bool,
    /// HTTP status.
    pub http_status: u16,
    /// The processor's code.
    pub processor_code: Option<String>,
    /// The decline class.
    pub decline_class: Option<String>,
    /// The processor's message.
    pub message: Option<String>,
    /// Its transaction id.
    pub transaction_id: Option<String>,
    /// The network transaction id.
    pub network_transaction_id: Option<String>,
    /// Mastercard's transaction link id.
    pub transaction_link_id: Option<String>,
    /// The address check, raw.
    pub avs_raw: Option<String>,
    /// The address check of the zip, in our word.
    pub avs_zip: Option<String>,
    /// Mastercard's advice code.
    pub advice_code: Option<String>,
    /// In minor units.
    pub amount_approved: Option<i64>,
    /// What the processor says it took, in microseconds.
    pub processor_us: Option<u64>,
    /// For so long the processor asked to be left alone (429 and 503 with `Retry-After`), in seconds.
    pub retry_after_seconds: Option<u32>,
}
