//! The rows that the store keeps, as the rest of the edge sees them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::OfRun;
use super::plan::{NetworkRule, Plan, Retries};
use crate::attest::merkle;
use crate::card::id::{AgreementId, AttemptId, ChargeId, FingerprintId, ForwardId, PrincipalId, Token};
use crate::card::sealed::SealedCard;
use crate::card::tenant::{Mode, TenantId};
use crate::card::truncated::TruncatedPan;
use crate::clock::Time;

/// Where a card stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CardStatus {
    /// May be charged and forwarded.
    Active,
    /// Kept, never charged or forwarded.
    Suspended,
    /// To be erased when the last attempt or authorization that needs it closes; no new use.
    Erasing,
    /// Gone; the tombstone remains.
    Erased,
}

/// A card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardRow {
    /// Its token.
    pub token: Token,
    /// Whose.
    pub tenant: TenantId,
    /// The caller's reference of the customer; not sealed.
    pub customer: Option<String>,
    /// The caller's own words; not sealed.
    pub metadata: BTreeMap<String, String>,
    /// First six, last four, brand; `None` once erased.
    pub shown: Option<TruncatedPan>,
    /// The fingerprint's id.
    pub fingerprint: FingerprintId,
    /// The sealed fields; `None` once erased.
    pub sealed: Option<SealedCard>,
    /// Counts the changes of the card, from 1.
    pub version: u32,
    /// Where it stands.
    pub status: CardStatus,
    /// Whether a legal hold keeps it.
    pub legal_hold: bool,
    /// Whether it is to be erased when the hold is released.
    pub erase_asked: bool,
    /// Whether its number has changed, and each time by an account updater's word: the customer's agreements stand.
    pub number_by_updater: bool,
    /// When it was stored.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
    /// When it was erased.
    pub erased_at: Option<Time>,
    /// When its sealed bytes were gone from database, write-ahead log and free pages.
    pub scrubbed_at: Option<Time>,
}

/// Where a charge stands (contracts.md, "Charges").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChargeStatus {
    /// An attempt is under way.
    Processing,
    /// The processor answers later.
    Pending,
    /// Authorized, not captured.
    Authorized,
    /// Paid, or verified.
    Approved,
    /// The issuer or processor said no.
    Declined,
    /// Not sent, or refused before it was processed.
    Failed,
    /// Nobody here knows yet; it is being found out.
    Unknown,
    /// Authorized once, and released.
    Voided,
    /// Could not be found out; a person must settle it.
    Manual,
}

/// What is known of whether bytes left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outbound {
    /// Certainly not.
    NotSent,
    /// Perhaps.
    MaybeSent,
    /// Yes, and an answer came.
    Sent,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Authorize and capture at once.
    Sale,
    /// Authorize only.
    Authorize,
    /// Capture an authorization, or part of it.
    Capture,
    /// Pay back.
    Refund,
    /// Release an authorization.
    Void,
    /// A zero amount, or the smallest plus void.
    Verify,
}

/// Where an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// Durable before the first byte leaves.
    Sending,
    /// Sent or perhaps sent, without an answer that settles it.
    Unknown,
    /// The processor will answer later.
    Pending,
    /// Done.
    Approved,
    /// The issuer or processor said no.
    Declined,
    /// Certainly not done: not sent, or refused before it was processed.
    Failed,
    /// Could not be found out.
    Manual,
}

/// One try of one operation at a processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its id; the idempotency key that the processor sees.
    pub id: AttemptId,
    /// Where it stands.
    pub state: AttemptState,
    /// What is known of whether bytes left.
    pub outbound: Outbound,
    /// Version of the connector that rendered it, hex.
    pub connector_version: String,
    /// Keyed hash of the rendered request, hex: a resend must give the same.
    pub mac: String,
    /// Whether the request held a CVC or pass-through data: it can never be rendered again.
    pub once_only: bool,
    /// When it became `sending`.
    pub started_at: Time,
    /// When its outcome was learnt.
    pub finished_at: Option<Time>,
    /// How often it was sent or looked up.
    pub tries: u32,
    /// When it was last about to be sent again: `not found` counts from the last send, not the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resent_at: Option<Time>,
    /// The processor's code.
    pub processor_code: Option<String>,
    /// The decline class.
    pub decline_class: Option<String>,
    /// The processor's message.
    pub message: Option<String>,
    /// The processor's transaction id.
    pub transaction_id: Option<String>,
    /// The network transaction id.
    pub network_transaction_id: Option<String>,
    /// The processor's address check: raw code and our word for the zip.
    pub avs: Option<(Option<String>, Option<String>)>,
    /// Our own code where no processor spoke: `connect_refused`, `timeout`, `tls`, …
    pub error: Option<String>,
    /// What the processor took, as seen from here, in microseconds.
    pub upstream_us: Option<u64>,
    /// What the card network's rules say of the decline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<NetworkRule>,
    /// Where it went, once another attempt of the charge went elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
}

/// A sale, authorization, capture, refund, void or verification, with its attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// `rf_…` for refunds, `op_…` otherwise.
    pub id: String,
    /// What it does.
    pub kind: OperationKind,
    /// In minor units.
    pub amount: i64,
    /// For a capture: nothing more will be captured.
    pub last: bool,
    /// For a void or refund: no caller asked for it, it undoes a payment that is not wanted or not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undoes: bool,
    /// Where it stands, in the words of a charge.
    pub status: ChargeStatus,
    /// When it was asked for.
    pub created_at: Time,
    /// Its tries, oldest first.
    pub attempts: Vec<Attempt>,
}

/// A charge with all its operations: one row, so that it changes as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChargeRow {
    /// Its id.
    pub id: ChargeId,
    /// Whose.
    pub tenant: TenantId,
    /// Counts the changes of the row, from 1.
    pub revision: u32,
    /// The card.
    pub token: Token,
    /// The version of the card that is charged.
    pub card_version: u32,
    /// The caller's customer reference at that time.
    pub customer: Option<String>,
    /// Where to.
    pub destination: String,
    /// In minor units.
    pub amount: i64,
    /// ISO 4217, upper case.
    pub currency: String,
    /// The caller's invoice; empty for a verification without one (which claims none).
    pub invoice: String,
    /// The caller's period; empty by default.
    pub period: String,
    /// `customer` or `merchant`.
    pub initiator: String,
    /// Who charged; it counts against their sum of the day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<PrincipalId>,
    /// The line of an invoice run that it pays, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<OfRun>,
    /// The agreement, if any.
    pub agreement: Option<AgreementId>,
    /// Capture at once.
    pub capture: bool,
    /// Take a partial approval.
    pub allow_partial: bool,
    /// The caller's description.
    pub description: Option<String>,
    /// What stands on the cardholder's statement; kept so that a second send has the same bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement_descriptor: Option<String>,
    /// The caller's own words.
    pub metadata: BTreeMap<String, String>,
    /// Where it stands.
    pub status: ChargeStatus,
    /// A code that explains the status: a decline's processor code, `partial_approval`, …
    pub code: Option<String>,
    /// What was offered when a partial approval was reversed, in minor units.
    pub amount_offered: Option<i64>,
    /// In minor units.
    pub amount_authorized: i64,
    /// In minor units.
    pub amount_captured: i64,
    /// In minor units.
    pub amount_refunded: i64,
    /// When it was asked for.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
    /// When an authorization lapses.
    pub expires_at: Option<Time>,
    /// Whether the destination's connector refunded with the card only when this was charged: then such charges of a card are listed
    /// (see [`ChargeFilter::refunded_with_card`](super::ChargeFilter::refunded_with_card)).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refund_needs_card: bool,
    /// The operations, oldest first.
    pub operations: Vec<Operation>,
    /// What its processor told of disputes, in the order in which it did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disputes: Vec<DisputeRow>,
    /// What is still to be tried: boxed, as few charges have more than one attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Box<Plan>>,
}

/// What a processor told of a dispute of a charge. Status and amounts of the charge do not follow it: that money moves between the
/// processor and the merchant's account, and was no operation of the vault's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisputeRow {
    /// How far it went.
    pub status: DisputeStatus,
    /// What it is about, in minor units of the charge's currency; none where another currency or none was named.
    pub amount: Option<i64>,
    /// The processor's word for why.
    pub code: Option<String>,
    /// The processor's id of it.
    pub transaction_id: Option<String>,
    /// When it was told.
    pub at: Time,
}

/// How far a dispute went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisputeStatus {
    /// The cardholder disputes the charge; no money was taken back yet.
    Opened,
    /// The issuer took the money back.
    ChargedBack,
    /// That money came back.
    Reversed,
    /// The issuer took the money back for a second time.
    ChargedBackAgain,
}

impl DisputeStatus {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::ChargedBack => "charged_back",
            Self::Reversed => "reversed",
            Self::ChargedBackAgain => "charged_back_again",
        }
    }
}

impl ChargeRow {
    /// The schedule of retries, if the charge asked for one.
    pub fn retries(&self) -> Option<&Retries> {
        self.plan.as_ref()?.retries.as_ref()
    }

    /// The same, to be changed.
    pub fn retries_mut(&mut self) -> Option<&mut Retries> {
        self.plan.as_mut()?.retries.as_mut()
    }

    /// When the schedule of retries has to be looked at.
    pub fn retry_due(&self) -> Option<Time> {
        self.retries()?.due()
    }
}

/// Where a forward stands. All but the first are final: nobody can ask what became of a request that is the caller's own, and it is
/// never sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForwardStatus {
    /// Durable before the first byte leaves.
    Sending,
    /// An answer came, whatever it says.
    Answered,
    /// Certainly not sent.
    Failed,
    /// Sent or perhaps sent, and no answer came that could be given back.
    Unknown,
}

/// A caller's own request to a forward destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardRow {
    /// Its id.
    pub id: ForwardId,
    /// Whose.
    pub tenant: TenantId,
    /// Counts the changes of the row, from 1.
    pub revision: u32,
    /// The card.
    pub token: Token,
    /// The version of the card that is sent.
    pub card_version: u32,
    /// Where to.
    pub destination: String,
    /// HTTP method.
    pub method: String,
    /// Path below the destination's endpoint.
    pub path: String,
    /// Who asked.
    pub principal: PrincipalId,
    /// Where it stands.
    pub status: ForwardStatus,
    /// What is known of whether bytes left.
    pub outbound: Outbound,
    /// SHA-256 of what the destination declared, hex.
    pub rules_version: String,
    /// Keyed hash of the rendered request, hex.
    pub mac: String,
    /// Our own word where no answer could be given back.
    pub error: Option<String>,
    /// HTTP status of the answer.
    pub upstream_status: Option<u16>,
    /// What the destination took, as seen from here, in microseconds.
    pub upstream_us: Option<u64>,
    /// When it was asked for.
    pub created_at: Time,
    /// When its outcome was learnt.
    pub finished_at: Option<Time>,
    /// The answer; it goes when the card is erased. Kept beside the row, not in it.
    #[serde(skip)]
    pub answer: Option<ForwardAnswer>,
}

/// What a forward destination answered, redacted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardAnswer {
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// Whether `body` is JSON; else it is text.
    pub is_json: bool,
    /// The body.
    pub body: String,
}

/// A person or an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// A human being.
    Person,
    /// A program.
    Application,
}

/// Somebody who may call the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrincipalRow {
    /// Its id.
    pub id: PrincipalId,
    /// Its name, for people.
    pub name: String,
    /// A person or an application.
    pub kind: PrincipalKind,
    /// The tenant; none for administrators and assessors.
    pub tenant: Option<TenantId>,
    /// What it may do.
    pub scopes: Vec<String>,
    /// SHA-256 of each credential with the time after which it is void; two while rotating.
    pub credentials: Vec<([u8; 32], Option<Time>)>,
    /// The largest charge by currency, in minor units.
    pub charge_max: BTreeMap<String, i64>,
    /// The sum of charges a day by currency, in minor units.
    pub day_max: BTreeMap<String, i64>,
    /// When it was made.
    pub created_at: Time,
    /// After this instant it may do nothing.
    pub expires_at: Option<Time>,
    /// Whether it was switched off.
    pub disabled: bool,
    /// The destinations that it may send cards to; all of its tenant's if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<String>,
}

/// A tenant, as the edge knows it; its keys and mode are the supervisor's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantRow {
    /// Its number.
    pub id: TenantId,
    /// Its name, unique.
    pub name: String,
    /// Test or live.
    pub mode: Mode,
    /// Whether it was switched off.
    pub disabled: bool,
    /// When it was made.
    pub created_at: Time,
}

impl PrincipalRow {
    /// SHA-256 of the row's JSON: what the events about it carry, so that an edited row is found.
    pub fn digest(&self) -> [u8; 32] {
        digest_of(self)
    }
}

impl TenantRow {
    /// SHA-256 of the row's JSON: what the events about it carry, so that an edited row is found.
    pub fn digest(&self) -> [u8; 32] {
        digest_of(self)
    }
}

/// A field that is added later must leave no trace while it is empty, or the rows of before would seem edited.
fn digest_of(row: &impl Serialize) -> [u8; 32] {
    merkle::sha256(&serde_json::to_vec(row).unwrap_or_default())
}

/// A stored-credential agreement (contracts.md, "The first charge and its agreement").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgreementRow {
    /// Its id.
    pub id: AgreementId,
    /// Whose.
    pub tenant: TenantId,
    /// The card.
    pub token: Token,
    /// `recurring`, `unscheduled`, `installment`.
    pub kind: String,
    /// Who consented, in the caller's words.
    pub consent_by: String,
    /// When.
    pub consent_at: Time,
    /// SHA-256 (hex) of the text that was consented to.
    pub consent_text_sha256: Option<String>,
    /// The initial network transaction id, as it was given.
    pub network_transaction_id: Option<String>,
    /// Mastercard's transaction link id, as it was given.
    pub transaction_link_id: Option<String>,
    /// When it was made.
    pub created_at: Time,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Why it ended: `requested`, `number_changed`, `erased`, `network_stop`, `account_closed`, `contact_cardholder`.
    pub ended_reason: Option<String>,
    /// Counts its changes, from 1: what was decided on an older one is decided anew.
    #[serde(default)]
    pub revision: u32,
    /// The customer's first payment under it, by destination: some processors want their own reference of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub first_payments: BTreeMap<String, FirstPayment>,
}

/// The customer's first payment under an agreement at one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstPayment {
    /// The processor's id of it.
    pub transaction_id: String,
    /// In minor units.
    pub amount: i64,
    /// Three upper-case letters.
    pub currency: String,
}

impl AgreementRow {
    /// Why a change of the number ends an agreement.
    pub const NUMBER_CHANGED: &'static str = "number_changed";

    /// Whether it ended with a change of the number: it is live again once the customer has paid or verified with the new one.
    pub fn awaits_customer(&self) -> bool {
        self.ended_at.is_some() && self.ended_reason.as_deref() == Some(Self::NUMBER_CHANGED)
    }
}

/// Which installation a database belongs to: written once, when its log is opened first, and compared at every start. Without it
/// a database whose log was never signed could not tell its own keys from another environment's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installation {
    /// The random environment id that is bound into every AAD, hex.
    pub environment: String,
    /// The origin of the log's checkpoints: `installation/node`.
    pub origin: String,
    /// The Ed25519 public key that signs the log, hex.
    pub public_key: String,
}
