//! What the edge asks of the keeper, and what it gets. Clear text goes in with a submitted body and never comes out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::forwarder::{Outcome, WebhookRead};
use super::reseal::{Reseal, Resealed};
use crate::card::expiry::Expiry;
use crate::card::fingerprint::Fingerprint;
use crate::card::id::{AttemptId, EndpointId, EventId, Token};
use crate::card::sealed::{SealedCard, SealedField};
use crate::card::tenant::TenantId;
use crate::card::truncated::TruncatedPan;
use crate::connector::UpdateKind;

/// Openings or attempts in one page: a few hundred kilobytes at most, well below a frame.
pub const PAGE_MAX: usize = 1024;
/// Attempts that may be asked for at once.
pub const KNOWN_MAX: usize = 1024;
/// Bytes of outcomes in one answer, where more than one are asked for: a quarter of a frame. One alone is smaller than that.
pub const KNOWN_BYTES_MAX: usize = super::frame::FRAME_BYTES_MAX / 4;

/// A question to the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToKeeper {
    /// Who are you, and what did you sign last?
    Hello,
    /// Read a submitted card and seal it.
    Seal(Box<Seal>),
    /// Open an expiry, to show it.
    OpenExpiry(OpenExpiry),
    /// Is the zip of a submitted body the one that is sealed?
    CompareZip(Box<CompareZip>),
    /// Read the body of a charge or verification, and hold what must not leave.
    ReadCharge(ReadCharge),
    /// Open, render, hold the bytes, answer with their MAC.
    Prepare(Box<Prepare>),
    /// Send what is held; the grant came from the commit that recorded it.
    Release {
        /// What [`Prepared::held`] said.
        held: u64,
        /// The audit log's sequence number of the disclosure.
        grant: u64,
    },
    /// Wipe what is held.
    Discard {
        /// What is held.
        held: u64,
    },
    /// Ask the processor what became of an attempt; needs no card.
    LookUp(Box<LookUp>),
    /// Have the forwarder check and map what a processor tells by itself.
    ReadWebhook(Box<ReadWebhook>),
    /// Keyed hashes of an idempotency key and a body that holds no card.
    Digest(Digest),
    /// What was opened, signed.
    State,
    /// Sign the log's checkpoint.
    SignCheckpoint(SignCheckpoint),
    /// Openings that no edge has acknowledged, by event, after this one: a page of them.
    Openings {
        /// The last event of the page before; none for the first page.
        after: Option<EventId>,
    },
    /// Attempts whose outcomes no edge has acknowledged, after this one: a page of them, without the outcomes.
    Outcomes {
        /// The last attempt of the page before; none for the first page.
        after: Option<AttemptId>,
    },
    /// What is known of these attempts? At most [`KNOWN_MAX`].
    Known(Vec<AttemptId>),
    /// These outcomes (by attempt) and openings (by event) are in the log.
    Acknowledge {
        /// Attempts whose outcome is committed.
        outcomes: Vec<AttemptId>,
        /// Events of openings that are committed.
        openings: Vec<EventId>,
    },
    /// Read and check a caller's own request, and hold it.
    ReadForward(ReadForward),
    /// Show a request that is held, the card masked and credentials named; nothing is opened.
    ShowForward(Box<ShowForward>),
    /// Open, fill a request that is held, hold the bytes, answer with their MAC.
    PrepareForward(Box<PrepareForward>),
    /// Which of these cards end by a month?
    ExpireBy(Box<ExpireBy>),
    /// A secret of a webhook endpoint, to show it once.
    WebhookSecret(WebhookSecret),
    /// Sign what is posted to a webhook endpoint.
    SignWebhook(Box<SignWebhook>),
    /// Seal cards again under the tenant's active data key.
    Reseal(Box<Reseal>),
}

/// An answer of the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromKeeper {
    /// To [`ToKeeper::Hello`].
    Hello(Hello),
    /// To [`ToKeeper::Seal`].
    Sealed(Box<Sealed>),
    /// To [`ToKeeper::OpenExpiry`].
    Expiry(Expiry),
    /// To [`ToKeeper::CompareZip`]: whether they are equal, and no more.
    ZipIsEqual(bool),
    /// To [`ToKeeper::ReadCharge`].
    ChargeRead(Box<ChargeRead>),
    /// To [`ToKeeper::Prepare`].
    Prepared(Box<Prepared>),
    /// To [`ToKeeper::Release`] and [`ToKeeper::LookUp`].
    Outcome(Box<Outcome>),
    /// To [`ToKeeper::ReadWebhook`].
    WebhookRead(Box<WebhookRead>),
    /// To [`ToKeeper::Digest`].
    Digested(Digested),
    /// To [`ToKeeper::State`].
    Stated(Stated),
    /// To [`ToKeeper::SignCheckpoint`]: the Ed25519 signature.
    Signed(#[serde(with = "serde_bytes")] Vec<u8>),
    /// To [`ToKeeper::Openings`]: at most [`PAGE_MAX`]; none after the last.
    Openings(Vec<Opened>),
    /// To [`ToKeeper::Outcomes`]: at most [`PAGE_MAX`]; none after the last.
    Outcomes(Vec<AttemptId>),
    /// To [`ToKeeper::Known`]: of the first that were asked for, in their order, as many as [`KNOWN_BYTES_MAX`] takes; at least one.
    Known(Vec<Known>),
    /// Done, with nothing to say.
    Done,
    /// Not done.
    Refused(Refusal),
    /// To [`ToKeeper::Prepare`]: the PAN was opened, and then the request could not be rendered.
    RefusedAfterOpening(Refusal, Box<Opened>),
    /// To [`ToKeeper::ReadForward`].
    ForwardRead(Box<ForwardRead>),
    /// To [`ToKeeper::ShowForward`]: JSON.
    ForwardShown(#[serde(with = "serde_bytes")] Vec<u8>),
    /// To [`ToKeeper::ExpireBy`]: for each card whether it does, and no more; false for one that does not open.
    Expire(Vec<bool>),
    /// To [`ToKeeper::WebhookSecret`]: `whsec_…`.
    WebhookSecret(String),
    /// To [`ToKeeper::SignWebhook`]: `v1,…`, one for each secret, with blanks between.
    WebhookSigned(String),
    /// To [`ToKeeper::Reseal`].
    Resealed(Box<Resealed>),
}

/// Who the keeper is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Random, one for each start, hex.
    pub boot: String,
    /// The installation's random id, bound into every AAD.
    pub environment: [u8; 16],
    /// The name under which it signs checkpoints: `installation/node`.
    pub origin: String,
    /// Its Ed25519 public key.
    pub public_key: [u8; 32],
    /// Size of the tree it signed last.
    pub signed_size: u64,
}

/// A secret of a webhook endpoint: derived, so that it lies nowhere.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct WebhookSecret {
    /// Whose.
    pub tenant: TenantId,
    /// Which endpoint.
    pub endpoint: EndpointId,
    /// Counts the endpoint's secrets, from 1.
    pub generation: u32,
    /// The webhook key that it is derived from.
    pub key: u32,
}

/// What is posted to a webhook endpoint, to be signed.
#[derive(Clone, Serialize, Deserialize)]
pub struct SignWebhook {
    /// With the endpoint's newest secret.
    pub secret: WebhookSecret,
    /// With the one before as well, which is derived from this webhook key.
    pub before: Option<u32>,
    /// The message's id.
    pub id: String,
    /// When it is posted, in seconds since the Unix epoch.
    pub timestamp: i64,
    /// The body.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

impl std::fmt::Debug for SignWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignWebhook").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What is to be done with a submitted body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SealAs {
    /// A new card: number and expiry are required.
    Create,
    /// A change of a card that is there: each field is optional.
    Patch,
    /// A body for a new card whose expiry and zip go to a card that is there.
    Merge,
}

/// A submitted card.
#[derive(Serialize, Deserialize)]
pub struct Seal {
    /// What to do.
    pub seal_as: SealAs,
    /// Whose.
    pub tenant: TenantId,
    /// The token it is, or shall be, known by.
    pub token: Token,
    /// The destination set that is bound into the envelopes.
    pub policy: u32,
    /// Versions of PAN, expiry and zip that are there now; zero for none.
    pub versions: [u32; 3],
    /// The route, as the body MAC names it.
    pub route: String,
    /// The caller's idempotency key, if the route takes one.
    pub idempotency_key: Option<String>,
    /// Whether an expired card may be stored (imports).
    pub allow_expired: bool,
    /// The body as it came.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal")
            .field("seal_as", &self.seal_as)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// A submitted card, sealed, and what else its body said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The sealed PAN, if the body had one (and it was not a merge).
    pub pan: Option<SealedField>,
    /// The sealed expiry, if the body had one.
    pub expiry: Option<SealedField>,
    /// The sealed zip, if the body had one.
    pub zip: Option<SealedField>,
    /// What may be shown of the number, if the body had one.
    pub shown: Option<TruncatedPan>,
    /// The expiry, to answer with, if the body had one.
    pub shown_expiry: Option<Expiry>,
    /// Keyed hash of the whole PAN, if the body had one.
    pub fingerprint: Option<Fingerprint>,
    /// The caller's customer reference.
    pub customer: Option<String>,
    /// Its keyed hash, hex: the store salts it for the log.
    pub customer_pseudonym: Option<String>,
    /// The caller's own words.
    pub metadata: Option<BTreeMap<String, String>>,
    /// `new`, `return_existing` or `update_existing`.
    pub on_duplicate: Option<String>,
    /// `active` or `suspended`, in a change.
    pub status: Option<String>,
    /// The keyed hashes, if there was an idempotency key.
    pub digests: Option<Digested>,
}

/// What a processor's account updater said of the card that was charged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardUpdate {
    /// What it said.
    pub kind: UpdateKind,
    /// Field version of the number that was charged: what is new is new for that one.
    pub number: u32,
    /// What is new, sealed for the same token at the next versions of its fields; none where there is nothing to store.
    pub sealed: Option<Box<Sealed>>,
    /// Why what is new could not be sealed, in our own words.
    pub refused: Option<String>,
}

/// An expiry to open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenExpiry {
    /// Whose.
    pub tenant: TenantId,
    /// Which card.
    pub token: Token,
    /// Bound into the envelope.
    pub policy: u32,
    /// The envelope.
    pub sealed: SealedField,
}

/// Sealed expiries to compare with a month.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExpireBy {
    /// The cards.
    pub cards: Vec<OpenExpiry>,
    /// Year and month.
    pub by: (u16, u8),
}

/// A sealed zip to compare with that of a submitted body. Two sealed ones are never compared: who has only envelopes learns nothing.
#[derive(Serialize, Deserialize)]
pub struct CompareZip {
    /// Whose.
    pub tenant: TenantId,
    /// Which card.
    pub token: Token,
    /// Bound into the envelope.
    pub policy: u32,
    /// The envelope.
    pub sealed: SealedField,
    /// The body as it came, with a zip.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

impl std::fmt::Debug for CompareZip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompareZip").field("token", &self.token).finish_non_exhaustive()
    }
}

/// The body of a charge or verification.
#[derive(Serialize, Deserialize)]
pub struct ReadCharge {
    /// Whose.
    pub tenant: TenantId,
    /// The route, as the body MAC names it.
    pub route: String,
    /// Whether it is a verification.
    pub verification: bool,
    /// The caller's idempotency key.
    pub idempotency_key: String,
    /// The body as it came.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

impl std::fmt::Debug for ReadCharge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadCharge").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// What a charge's body said, less what must not leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChargeRead {
    /// CVC and pass-through data are held under this number, if there are any.
    pub held: Option<u64>,
    /// Whether a CVC is held.
    pub has_cvc: bool,
    /// Whether the body said `tok_…` rightly.
    pub token: Option<Token>,
    /// In minor units; zero for a verification.
    pub amount: i64,
    /// ISO 4217, upper case.
    pub currency: String,
    /// Where to.
    pub destination: Option<String>,
    /// The caller's invoice.
    pub invoice: Option<String>,
    /// The caller's period.
    pub period: String,
    /// Whether the customer is present (true) or the merchant charges (false).
    pub customer_initiated: bool,
    /// `agr_…`.
    pub agreement: Option<String>,
    /// Whether it is tried again on a schedule; none if the body does not say.
    pub retry: Option<bool>,
    /// Capture at once.
    pub capture: bool,
    /// Take a partial approval.
    pub allow_partial: bool,
    /// On the statement.
    pub statement_descriptor: Option<String>,
    /// The caller's description.
    pub description: Option<String>,
    /// The caller's own words.
    pub metadata: BTreeMap<String, String>,
    /// The keyed hashes.
    pub digests: Digested,
}

/// What is done at the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verb {
    /// Authorize and capture at once.
    Sale,
    /// Authorize only.
    Authorize,
    /// Capture an authorization.
    Capture,
    /// Pay back.
    Refund,
    /// Release an authorization.
    Void,
    /// Check the card.
    Verify,
}

/// The stored-credential facts of a charge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCredential {
    /// `initial` or `subsequent`.
    pub usage: String,
    /// `customer` or `merchant`.
    pub initiator: String,
    /// `recurring`, `unscheduled`, `installment`.
    pub reason: String,
    /// The initial network transaction id.
    pub network_transaction_id: Option<String>,
    /// Mastercard's transaction link id.
    pub transaction_link_id: Option<String>,
    /// The amount of the first payment, if it was in the currency of this one.
    pub original_amount: Option<i64>,
    /// This destination's own id of the first payment.
    pub previous: Option<String>,
}

/// A request to render.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prepare {
    /// CVC and pass-through data read before.
    pub held: Option<u64>,
    /// Whose.
    pub tenant: TenantId,
    /// The card.
    pub token: Token,
    /// Its sealed fields, for verbs that need the number.
    pub sealed: Option<SealedCard>,
    /// Where to, by name.
    pub destination: String,
    /// What to do.
    pub verb: Verb,
    /// The attempt; the processor's idempotency key.
    pub attempt: AttemptId,
    /// The event that will record the opening.
    pub event: EventId,
    /// In minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
    /// The caller's invoice.
    pub invoice: String,
    /// The caller's customer reference.
    pub customer: Option<String>,
    /// The caller's description.
    pub description: Option<String>,
    /// On the statement.
    pub statement_descriptor: Option<String>,
    /// Take a partial approval.
    pub allow_partial: bool,
    /// For a capture: nothing more will be captured.
    pub last: bool,
    /// Stored-credential facts.
    pub stored_credential: Option<StoredCredential>,
    /// The processor's id of the transaction that is captured, refunded or voided.
    pub previous_transaction: Option<String>,
    /// The amount of that transaction, in minor units.
    pub previous_amount: Option<i64>,
    /// The attempt that made that transaction.
    pub previous_attempt: Option<AttemptId>,
}

/// A caller's own request to a forward destination.
#[derive(Serialize, Deserialize)]
pub struct ReadForward {
    /// Whose.
    pub tenant: TenantId,
    /// The route, as the body MAC names it.
    pub route: String,
    /// The caller's idempotency key.
    pub idempotency_key: String,
    /// The body as it came.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

impl std::fmt::Debug for ReadForward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadForward").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// What a forward's body said, less what is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardRead {
    /// The request is held under this number.
    pub held: u64,
    /// Whether the body said `tok_…` rightly.
    pub token: Option<Token>,
    /// Where to, by name.
    pub destination: String,
    /// HTTP method.
    pub method: String,
    /// Path below the destination's endpoint.
    pub path: String,
    /// Whether only to show what would be sent.
    pub dry_run: bool,
    /// The keyed hashes.
    pub digests: Digested,
}

/// A request that is held, to be shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShowForward {
    /// What [`ForwardRead::held`] said.
    pub held: u64,
    /// What may be shown of the number.
    pub shown: TruncatedPan,
    /// Whether the card has a zip.
    pub has_zip: bool,
    /// The destination set that is bound into the card's envelopes.
    pub policy: u32,
}

/// A request that is held, to be filled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PrepareForward {
    /// What [`ForwardRead::held`] said.
    pub held: u64,
    /// Whose.
    pub tenant: TenantId,
    /// The card.
    pub token: Token,
    /// Its sealed fields.
    pub sealed: SealedCard,
    /// The forward, as the forwarder and the outcome name it.
    pub attempt: AttemptId,
    /// The event that will record the opening.
    pub event: EventId,
}

/// Bytes that are held, ready to leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Under this number, for at most five seconds.
    pub held: u64,
    /// Keyed hash of the rendered request, CVC, credentials and volatile leaves blanked.
    pub mac: [u8; 32],
    /// SHA-256 of the connector's text.
    pub connector_version: [u8; 32],
    /// The opening, if the PAN was opened.
    pub opening: Option<Opened>,
    /// Whether the request can never be rendered again (CVC or pass-through data).
    pub once_only: bool,
}

/// One opening, as the keeper counts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The event that records it.
    pub event: EventId,
    /// Whose card.
    pub tenant: TenantId,
    /// The keeper's boot, hex.
    pub boot: String,
    /// Counts the openings of this boot and purpose, from 1.
    pub seq: u64,
    /// `charge`, `reseal`, `forward`.
    pub purpose: String,
    /// The card.
    pub token: Token,
    /// All cards, in order, where several were opened at once; the last is `token`, and `seq` and `hash` are those after it.
    pub tokens: Vec<Token>,
    /// Where it was to go.
    pub destination: String,
    /// The running hash after it, hex.
    pub hash: String,
}

/// A question to the processor about an attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LookUp {
    /// Where, by name.
    pub destination: String,
    /// The attempt.
    pub attempt: AttemptId,
    /// What the attempt was to do.
    pub verb: Verb,
    /// The processor's id of the transaction, if it is known.
    pub transaction: Option<String>,
    /// The processor's id of the transaction before (for captures, refunds, voids).
    pub previous_transaction: Option<String>,
}

/// What somebody sent who says to be a processor: the keeper adds the credentials that it may be signed with.
#[derive(Serialize, Deserialize)]
pub struct ReadWebhook {
    /// Which, by the name of its destination.
    pub destination: String,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// The body as it came.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

impl std::fmt::Debug for ReadWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadWebhook").field("destination", &self.destination).finish_non_exhaustive()
    }
}

/// A body without a card, for its keyed hash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Digest {
    /// Whose.
    pub tenant: TenantId,
    /// The route with its path, as the MAC names it.
    pub route: String,
    /// The caller's idempotency key.
    pub idempotency_key: String,
    /// The body.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// Keyed hashes of an idempotency key and a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digested {
    /// Of the key, with tenant and route.
    pub key: [u8; 32],
    /// Of the body, with purpose, tenant, route and key; a CVC is left out.
    pub body: [u8; 32],
}

/// What the keeper opened, signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stated {
    /// Its boot, hex.
    pub boot: String,
    /// Purpose, last sequence number, running hash (hex); sorted by purpose.
    pub openings: Vec<(String, u64, String)>,
    /// Ed25519 over the statement's bytes.
    #[serde(with = "serde_bytes")]
    pub signature: Vec<u8>,
}

/// A checkpoint to sign.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignCheckpoint {
    /// Size of the tree.
    pub size: u64,
    /// Its root.
    pub root: [u8; 32],
    /// RFC 6962 consistency path from the size that was signed last.
    pub consistency: Vec<[u8; 32]>,
    /// The keeper's last statement, in this tree.
    pub statement: StatementProof,
}

/// Shows that a leaf of the tree carries the keeper's last statement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatementProof {
    /// The leaf's place.
    pub seq: u64,
    /// The leaf: canonical JSON.
    #[serde(with = "serde_bytes")]
    pub leaf: Vec<u8>,
    /// RFC 6962 inclusion path.
    pub path: Vec<[u8; 32]>,
}

/// What the keeper knows of an attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Known {
    /// What became of it.
    Outcome(Box<Outcome>),
    /// It is with the forwarder now.
    UnderWay,
    /// Nothing: it was never sent by this keeper, its outcome was acknowledged, or it was let go of.
    Nothing,
}

/// Why the keeper did not do it: a code of [`super::keeper::codes`] and the field it is about, by our name for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The code.
    pub code: RefusalCode,
    /// The field, such as `card.number`.
    pub param: Option<String>,
}

impl Refusal {
    /// A refusal that is about no single field.
    pub const fn of(code: RefusalCode) -> Self {
        Self { code, param: None }
    }

    /// A refusal about a field.
    pub fn about(code: RefusalCode, param: &str) -> Self {
        Self { code, param: Some(param.to_owned()) }
    }
}

/// The closed list of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RefusalCode {
    /// Not JSON.
    MalformedJson,
    /// A field this route does not know.
    UnknownField,
    /// A field twice.
    DuplicateField,
    /// A field that is required is not there.
    MissingField,
    /// A field of another type.
    WrongType,
    /// A field that is too long, too short, or not one of its words.
    InvalidValue,
    /// Not 12 to 19 digits, or the check digit is wrong.
    CardNumberInvalid,
    /// A test number in live mode.
    TestNumberInLive,
    /// Not a test number in test mode.
    LiveNumberInTest,
    /// Not a month, not a year, or too far ahead.
    ExpiryInvalid,
    /// The expiry is past.
    CardExpired,
    /// A card verification code where none is taken.
    CvcNotAccepted,
    /// A field that looks like a card number and must not hold one.
    StrayNumber,
    /// More different numbers of one BIN and last four than an hour may have.
    FingerprintBudget,
    /// More different zips tried on one card than an hour may have.
    ZipBudget,
    /// This keeper's start is not counted yet, so it answers no fingerprint.
    NotServing,
    /// An amount that is not a positive integer in minor units, or that the processor cannot express.
    AmountInvalid,
    /// Not a currency.
    CurrencyInvalid,
    /// The envelope does not open: edited, swapped, or of another place.
    CardUnreadable,
    /// The tenant is not known, or switched off.
    TenantUnknown,
    /// No such destination, or the card's policy or the tenant's mode forbids it.
    DestinationUnknown,
    /// The connector has no such operation.
    OperationUnsupported,
    /// The connector requires a field that is not there.
    RequiredByConnector,
    /// A placeholder that is none of ours, or is not closed.
    PlaceholderUnknown,
    /// A placeholder where the destination takes none.
    PlaceholderMisplaced,
    /// A part of a forward that its destination does not declare.
    NotDeclared,
    /// A credential of the caller's own in a forward.
    CredentialNotAccepted,
    /// Nothing to fill a placeholder or a credential's place with.
    NothingToFill,
    /// What was held is gone: it waited longer than five seconds, or the keeper restarted.
    HeldGone,
    /// Too much is held or under way.
    Busy,
    /// The forwarder is not there.
    ForwarderDown,
    /// The checkpoint does not extend what was signed last.
    Inconsistent,
    /// The tree does not hold the keeper's last statement, or that one is too old.
    StatementMissing,
    /// No key for it, or randomness failed.
    KeyUnavailable,
    /// A fault inside; it was caught, wiped and counted.
    Internal,
}
