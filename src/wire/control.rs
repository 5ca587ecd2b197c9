//! What the supervisor tells each role, and what a role reports. Configuration, credentials and keys travel this way only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::keeper::Verb;
use super::keys::{HeldKey, KeyChange, KeyOrder, KeyTable, WrappedKey};
use super::resolution::ResolveOrder;
use crate::card::id::{ApprovalId, EventId, PrincipalId};
use crate::card::stray::Exemptions;
use crate::card::tenant::{Mode, TenantId};
use crate::charging::Policy;
use crate::clock::Time;
use crate::erasure::{ErasureTerms, Retention};
use crate::forwarding::spec::ForwardSpec;

/// To the edge. `Start` carries the API listener, the metrics listener, the keeper pair and the courier pair; `KeeperPair` and
/// `CourierPair` a pair.
#[derive(Serialize, Deserialize)]
pub enum ToEdge {
    /// Begin.
    Start(Box<EdgeSettings>),
    /// Begin without a KEK: carries both listeners.
    StartSealed(Box<SealedSettings>),
    /// There is no KEK for another reason now.
    Sealed(String),
    /// A fresh pair to the keeper: the old keeper is gone, or the pair broke.
    KeeperPair,
    /// A fresh pair to the courier.
    CourierPair,
    /// New certificates, tenants and destinations; connections stay.
    Reload(Box<EdgeReload>),
    /// A command of an administrator, by number.
    Admin(u64, AdminCommand),
    /// Finish what is under way, then exit.
    Stop,
}

/// From the edge.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromEdge {
    /// Serving.
    Ready,
    /// An answer to [`ToEdge::Admin`].
    Admin(u64, AdminAnswer),
    /// The line to the keeper ended: of so many pairs, counted from the first, none is left.
    KeeperLineEnded(u64),
    /// The same of the line to the courier.
    CourierLineEnded(u64),
    /// No record is left under these data keys, which were to be emptied.
    KeysEmptied(Vec<u32>),
    /// Cards were erased that these data keys may have sealed: it is time for the next step towards their end. Said again until it
    /// is done.
    KeysDue(Vec<(u32, KeyStep)>),
    /// Could not start.
    Failed(String),
}

/// A step towards the end of a data key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyStep {
    /// Seal what is under it again under another, which takes over first if this one is in use.
    Empty,
    /// Destroy it: nothing is under it any more.
    Destroy,
}

/// What the edge needs to know at start.
#[derive(Clone, Serialize, Deserialize)]
pub struct EdgeSettings {
    /// The name of the installation.
    pub installation: String,
    /// The name of this node.
    pub node: String,
    /// Whether development conveniences are on.
    pub development: bool,
    /// The database directory.
    pub database: String,
    /// Limits.
    pub limits: Limits,
    /// All keys, as the key store has them.
    pub keys: KeyTable,
    /// What may change while it runs.
    pub reload: EdgeReload,
    /// The log's verbosity.
    pub log: String,
}

/// What an edge needs to know that says why nothing is served.
#[derive(Clone, Serialize, Deserialize)]
pub struct SealedSettings {
    /// Certificate chain, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM. Empty for plain HTTP (development only).
    pub key_pem: String,
    /// Limits.
    pub limits: Limits,
    /// The log's verbosity.
    pub log: String,
    /// Why there is no KEK, a word.
    pub reason: String,
}

/// What may change while the edge runs.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct EdgeReload {
    /// Certificate chain, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM. Empty for plain HTTP (development only).
    pub key_pem: String,
    /// Tenants by the supervisor's key store.
    pub tenants: Vec<TenantInfo>,
    /// Identifiers that look like card numbers and are none.
    pub exemptions: Exemptions,
    /// Destinations, as far as the edge needs to know them.
    pub destinations: Vec<DestinationInfo>,
    /// How charges are tried again, and where they go.
    pub charging: Policy,
    /// Forward destinations, as far as the edge needs to know them.
    pub forwards: Vec<ForwardInfo>,
    /// Where webhooks may go, and how they are tried again.
    pub webhooks: WebhookRules,
    /// How soon what is erased is out of every backup's reach.
    pub erasure: ErasureTerms,
    /// Whether what is dangerous needs two persons.
    pub two_persons: bool,
    /// How long cards are kept.
    pub retention: Retention,
}

/// Where webhooks may go, and how they are tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookRules {
    /// Hosts (in lower case) and ports; an endpoint elsewhere is refused.
    pub hosts: Vec<(String, u16)>,
    /// From each failed attempt to the next, in seconds; after the last the delivery has failed.
    pub retry_seconds: Vec<u64>,
    /// For how long an endpoint may fail before it is switched off, in seconds.
    pub disable_after_seconds: u64,
    /// For how long events and deliveries are kept, in seconds.
    pub keep_seconds: u64,
}

/// Limits of the API listener; the example configuration says what each is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once.
    pub connections_max: usize,
    /// Requests a second of one principal, sustained.
    pub requests_per_second_max: u32,
    /// Requests of one principal at once above the sustained rate.
    pub requests_burst_max: u32,
    /// Bytes of a request body.
    pub body_bytes_max: usize,
    /// Seconds until the request head must be there.
    pub header_seconds_max: u64,
    /// Seconds until the request body must be there.
    pub body_seconds_max: u64,
    /// Seconds that a charge may hold its caller.
    pub charge_seconds_max: u64,
    /// Seconds that a stop waits for what is under way.
    pub drain_seconds_max: u64,
    /// Different numbers of one (tenant, BIN, last four) whose fingerprint is answered in an hour.
    pub fingerprints_per_hour_max: u32,
    /// Cards sealed again in a second when a key takes over from another.
    pub reseals_per_second_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            requests_per_second_max: 100_000,
            requests_burst_max: 10_000,
            body_bytes_max: 16 << 10,
            header_seconds_max: 10,
            body_seconds_max: 10,
            charge_seconds_max: 90,
            drain_seconds_max: 20,
            fingerprints_per_hour_max: 60,
            reseals_per_second_max: 100_000,
        }
    }
}

/// A tenant, as the supervisor's key store has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantInfo {
    /// Its number.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// Test or live.
    pub mode: Mode,
    /// Whether it was switched off.
    pub disabled: bool,
    /// When it was made.
    pub created_at: Time,
}

/// A destination, as far as the edge needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationInfo {
    /// Its name.
    pub name: String,
    /// Its connector's name.
    pub connector: String,
    /// SHA-256 of the connector's text.
    pub connector_version: [u8; 32],
    /// Which tenants may use it.
    pub mode: Mode,
    /// `replay`, `success-only`, `natural-key`, `none`.
    pub idempotency: String,
    /// The same for captures, refunds and voids.
    pub idempotency_later: String,
    /// How long a key is remembered, in seconds.
    pub idempotency_seconds: u64,
    /// Whether an attempt can be looked up.
    pub can_look_up: bool,
    /// Before this, in seconds, `not found` proves nothing.
    pub settle_seconds: u64,
    /// How long its answer is waited for, in seconds: so long it may be at work on a request that was cut off.
    pub timeout_seconds: u64,
    /// Whether the codes of its answers are those of the card network, so that its rules go by them.
    pub network_codes: bool,
    /// After this, in seconds, `not found` proves nothing again: what was sent may be where no look-up sees it. None: never.
    pub until_seconds: Option<u64>,
    /// Whether a zero amount can be verified.
    pub can_verify: bool,
    /// What a verification holds where it cannot, by currency, in minor units.
    pub smallest_amounts: BTreeMap<String, i64>,
    /// What undoes a sale that is not wanted: a void, or a refund where a captured sale cannot be voided; none if nothing does.
    pub undo_sale: Option<Verb>,
    /// What undoes an authorization that is not wanted.
    pub undo_authorize: Option<Verb>,
    /// Whether the first capture ends an authorization, whatever is left of it.
    pub captures_once: bool,
    /// Whether a refund needs the card: then there is none after its erasure.
    pub refund_needs_card: bool,
    /// Whether a refund of a captured authorization names the capture, not the authorization.
    pub refunds_capture: bool,
    /// Whether a capture, refund or void needs the processor's id of the payment.
    pub later_needs_transaction: bool,
    /// Whether it takes webhooks: its connector reads them, and the operator gave the key that they are signed with.
    pub takes_webhooks: bool,
    /// How long an authorization holds, in hours.
    pub authorization_hours: u32,
    /// The same, by brand, for what the merchant asked for without the customer.
    pub merchant_hours: BTreeMap<String, u32>,
}

/// To the keeper. `EdgePair` and `ForwarderPair` carry a pair.
#[derive(Serialize, Deserialize)]
pub enum ToKeeperControl {
    /// Begin. Carries a pair to an unsealer, which hands over the KEK.
    Start(Box<KeeperSettings>),
    /// A fresh pair to an edge.
    EdgePair,
    /// A fresh pair to a forwarder.
    ForwarderPair,
    /// New destinations and tenants.
    Reload {
        /// All tenants.
        tenants: Vec<TenantInfo>,
        /// Identifiers that look like card numbers and are none.
        exemptions: Exemptions,
        /// All destinations.
        destinations: Vec<Destination>,
    },
    /// A part of a new table of issuer ranges, in the layout of [`RangeRecord`](crate::card::range::RangeRecord). It is used once its last part is there.
    Ranges {
        /// Whole records.
        #[serde(with = "serde_bytes")]
        records: Vec<u8>,
        /// Whether this is the first part.
        begins: bool,
        /// Whether it is the last.
        ends: bool,
    },
    /// Make new keys, wrap them, answer with them; they are not used before [`ToKeeperControl::UseKeys`].
    MakeKeys {
        /// Comes back with the answer.
        number: u64,
        /// Which.
        orders: Vec<KeyOrder>,
    },
    /// These keys stand so, durably: use them, or use them no more.
    UseKeys(Vec<HeldKey>),
    /// Wrap these keys under another KEK and answer with them; the KEK is not used before [`ToKeeperControl::UseKek`]. Carries a pair to
    /// an unsealer, which hands it over.
    Rewrap {
        /// Comes back with the answer.
        number: u64,
        /// All wrapped keys.
        keys: Vec<WrappedKey>,
    },
    /// What [`ToKeeperControl::Rewrap`] gave is durable: the next KEK is the KEK.
    UseKek,
    /// How often has each data key sealed?
    CountSeals,
    /// The checkpoint (size) is durable in the key store.
    CheckpointKept(u64),
    /// This start is counted, durably: answer fingerprints from now on.
    Serve,
}

/// From the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromKeeperControl {
    /// Done; to [`ToKeeperControl::Start`], [`ToKeeperControl::UseKeys`], [`ToKeeperControl::UseKek`], [`ToKeeperControl::Serve`] and
    /// the last part of [`ToKeeperControl::Ranges`].
    Ready {
        /// Random, one for each start, hex.
        boot: String,
        /// The public half of the checkpoint key, once there is one.
        public_key: Option<[u8; 32]>,
    },
    /// To [`ToKeeperControl::MakeKeys`] and [`ToKeeperControl::Rewrap`].
    Keys {
        /// That of the question.
        number: u64,
        /// The keys.
        keys: Vec<WrappedKey>,
    },
    /// To [`ToKeeperControl::CountSeals`]: data key ids, and how many fields each has sealed since it was asked last.
    Seals(Vec<(u32, u64)>),
    /// About to sign this tree: keep it first.
    KeepCheckpoint {
        /// Size.
        size: u64,
        /// Root, hex.
        root: String,
    },
    /// The line to the forwarder ended: of so many pairs, counted from the first, none is left.
    ForwarderLineEnded(u64),
    /// Could not start or carry out; the sentence names no secret.
    Failed(String),
}

/// What the keeper needs to know at start.
#[derive(Serialize, Deserialize)]
pub struct KeeperSettings {
    /// Random, made by `init`, bound into every AAD.
    pub environment: [u8; 16],
    /// The origin of checkpoints: `installation/node`.
    pub origin: String,
    /// All keys that are not destroyed.
    pub keys: Vec<HeldKey>,
    /// All tenants.
    pub tenants: Vec<TenantInfo>,
    /// Identifiers that look like card numbers and are none.
    pub exemptions: Exemptions,
    /// All destinations.
    pub destinations: Vec<Destination>,
    /// Size and root of the tree that was signed last.
    pub signed: (u64, [u8; 32]),
    /// Different numbers of one (tenant, BIN, last four) whose fingerprint is answered in an hour.
    pub fingerprints_per_hour_max: u32,
    /// Starts of a keeper within the last hour: each costs fingerprint budget.
    pub restarts_last_hour: u32,
}

/// A destination, as keeper and forwarder know it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Destination {
    /// Its name.
    pub name: String,
    /// Its connector's name.
    pub connector: String,
    /// The connector's text.
    pub connector_toml: String,
    /// Which tenants may use it.
    pub mode: Mode,
    /// Base URL: scheme, host, port, path prefix.
    pub endpoint: String,
    /// The same of each step that goes elsewhere, by the step's name.
    pub step_endpoints: BTreeMap<String, String>,
    /// PEM of the only certificates it may chain to.
    pub trust_pem: String,
    /// Credentials by field name; empty for the forwarder.
    pub credentials: BTreeMap<String, String>,
    /// Those that come after, while rotating; empty if there are none, and for the forwarder.
    pub next_credentials: BTreeMap<String, String>,
    /// Policies (destination sets) it belongs to.
    pub policies: Vec<u32>,
    /// Seconds for one exchange.
    pub timeout_seconds: u64,
    /// What callers may send there themselves; such a destination has no connector and takes no charges.
    pub forward: Option<Box<ForwardTo>>,
}

/// What a forward destination takes, and where it may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardTo {
    /// What it declares.
    pub spec: ForwardSpec,
    /// Whether only public addresses are dialed.
    pub public_only: bool,
}

/// A forward destination, as far as the edge needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardInfo {
    /// Its name.
    pub name: String,
    /// Which tenants may use it.
    pub mode: Mode,
    /// Bytes that an answer takes at most, with the headers that go back, as it arrives.
    pub answer_bytes_max: u32,
}

/// To the forwarder. `Start` and `KeeperPair` carry the keeper pair.
#[derive(Serialize, Deserialize)]
pub enum ToForwarderControl {
    /// Begin, with these destinations (without credentials).
    Start(Vec<Destination>),
    /// A fresh pair to the keeper.
    KeeperPair,
    /// New destinations on the ports that were declared at start.
    Reload(Vec<Destination>),
    /// Finish what is under way, then exit.
    Stop,
}

/// From the forwarder.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromForwarderControl {
    /// Ready.
    Ready,
    /// Could not start.
    Failed(String),
}

/// What the courier may reach.
#[derive(Clone, Serialize, Deserialize)]
pub struct CourierSettings {
    /// The hosts that it may dial.
    pub hosts: Vec<CourierHost>,
    /// PEM of the only certificates that they may chain to.
    pub trust_pem: String,
    /// Seconds for one exchange.
    pub timeout_seconds: u64,
}

/// A host that the courier may dial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CourierHost {
    /// Host name or address, in lower case.
    pub name: String,
    /// Port.
    pub port: u16,
    /// Whether it is dialed at public addresses only.
    pub public_only: bool,
}

/// To the courier. `Start` carries nothing, `EdgePair` a pair.
#[derive(Serialize, Deserialize)]
pub enum ToCourierControl {
    /// Begin.
    Start(CourierSettings),
    /// A fresh pair to an edge.
    EdgePair,
    /// Other hosts on the ports that were declared at start.
    Reload(CourierSettings),
}

/// From the courier.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromCourierControl {
    /// Ready.
    Ready,
    /// Could not start, or could not do what it was told.
    Failed(String),
}

/// A command of an administrator that the edge's store carries out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum AdminCommand {
    /// A tenant that the key store has now, or its new state; `actor` is who asked.
    PutTenant {
        /// The tenant.
        tenant: TenantInfo,
        /// Who asked.
        actor: String,
    },
    /// A new principal; the answer holds its credential, once.
    AddPrincipal {
        /// What it shall be.
        order: Box<PrincipalOrder>,
        /// The credential that who asked has made; the edge makes one if none.
        given: Option<GivenCredential>,
        /// Who asked.
        actor: String,
    },
    /// All principals.
    ListPrincipals,
    /// Whether a principal has scopes that only persons hold: `yes` or `no`.
    IsAdministrator {
        /// Name or id.
        principal: String,
    },
    /// Switches a principal off, by name or id.
    DisablePrincipal {
        /// Name or id.
        principal: String,
        /// Who asked.
        actor: String,
    },
    /// A new credential; the old one is good for a while.
    RotatePrincipal {
        /// Name or id.
        principal: String,
        /// For how long the old one stays good, in seconds.
        overlap_seconds: u64,
        /// The credential that who asked has made; the edge makes one if none.
        given: Option<GivenCredential>,
        /// Who asked.
        actor: String,
    },
    /// Keys were made or stand otherwise than before: for the log, and for what has to be sealed again.
    KeysChanged {
        /// What became of them.
        changes: Vec<KeyChange>,
        /// All keys, as they stand.
        keys: KeyTable,
    },
    /// Says whether any record needs this data key; if none does, none is taken under it any more.
    ReleaseKey {
        /// Its id.
        key: u32,
    },
    /// Settles a charge by hand.
    ResolveCharge {
        /// Which, and what is said of it.
        order: Box<ResolveOrder>,
        /// The request, so that it is done once.
        id: ApprovalId,
        /// Who asked.
        actor: String,
    },
    /// Releases a legal hold; asked again, it is released.
    ReleaseHold {
        /// Which.
        order: HoldOrder,
        /// Who asked.
        actor: String,
    },
    /// What the supervisor did, for the log; what the log has already, it does not get again.
    Record(Vec<Recorded>),
    /// How far the records are that are sealed again.
    ResealProgress,
    /// What retention did when it looked last, and what is overdue.
    RetentionReport,
    /// Configuration was read again.
    Reloaded {
        /// Who asked.
        actor: String,
    },
}

/// A credential that who asked has made, as far as the vault knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenCredential {
    /// The id of the principal that is made: that of the request, so that it is made once.
    pub principal: PrincipalId,
    /// SHA-256 of the credential.
    pub hash: [u8; 32],
}

/// A legal hold to release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldOrder {
    /// The tenant's name.
    pub tenant: String,
    /// The card's token.
    pub token: String,
    /// The hold's reference; empty for the one without.
    pub reference: String,
}

/// Something that the supervisor did and the log is to have. Kept by the supervisor until the log has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The event's id, so that it is in the log once.
    pub event: EventId,
    /// One of the catalogue's actions.
    pub action: String,
    /// Who: a person's id, or who held the socket; none for the vault itself.
    pub actor: Option<String>,
    /// What it was done to: its kind, and its id.
    pub target: (String, String),
    /// Our code of why it was refused or failed; none if it was done.
    pub failed: Option<String>,
    /// A list of our own words and ids.
    pub fields: Vec<String>,
    /// A state, a reason or a digest; never a secret.
    pub note: Option<String>,
}

/// A principal to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrincipalOrder {
    /// Its name.
    pub name: String,
    /// A person, not an application.
    pub person: bool,
    /// The tenant's name; none for administrators and assessors.
    pub tenant: Option<String>,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// After this instant it may do nothing.
    pub expires_at: Option<Time>,
    /// The largest charge by currency, in minor units. With any limit, a currency without one is refused.
    pub charge_max: BTreeMap<String, i64>,
    /// The sum of charges a day by currency, in minor units.
    pub day_max: BTreeMap<String, i64>,
    /// The destinations that it may send cards to; all of its tenant's if empty.
    pub destinations: Vec<String>,
}

/// What came of a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum AdminAnswer {
    /// Done; an id or a sentence.
    Done(String),
    /// A credential, shown once.
    Credential {
        /// The principal's id.
        principal: String,
        /// The credential.
        credential: String,
    },
    /// Lines of a table, the first its head.
    Table(Vec<Vec<String>>),
    /// Not done, and what to do.
    Refused(String),
}
