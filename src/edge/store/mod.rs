//! The store: sealed rows and tokens, never clear text. [`Store`] speaks the domain; each implementation is native to its
//! database. A [`Change`] is the unit that is committed: rows, the audit events that say who did it, and the
//! idempotency record, all or nothing.
//!
//! One writer per node drains waiting changes into one transaction (group commit), one savepoint per change: a constraint
//! failure undoes one change; a full disk or an I/O error fails the whole batch as [`CommitError::Unavailable`], and the
//! writer reopens and rebuilds its state. Uniqueness, dedupe and idempotency are decided by the writer, one change after
//! another, so that two racing requests cannot both win.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use tokio::sync::Notify;

use crate::card::fingerprint::Fingerprint;
use crate::card::id::{ChargeId, EndpointId, EventId, FingerprintId, NoticeId, Token};
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::edge::audit::event::EventDraft;

mod invoice_runs;
mod outlived;
mod plan;
mod records;
mod rows;
pub mod sqlite;
pub mod webhooks;

pub use self::webhooks::{
    Attempted, Delivery, DeliveryState, Due, EndpointRow, Expiring, NoticeRow, WebhookChange,
};
pub use invoice_runs::{
    LineDone, LineFault, OfRun, RunLine, RunLineRow, RunOptions, RunOrder, RunRow, RunState, Verdict,
};
pub use outlived::{KeptBy, Outlived, OutlivedPage, OutlivedPlace};
pub use plan::{Bar, DeclineRow, NetworkRule, Plan, Retries, RetryState, RouteLeft};
pub use records::{
    ErasedKey, Erasure, IdleCard, IdlePage, KeyMark, KeyWatch, LegalHold, RecordPlace, Resealed, SealedRecord,
};
pub use rows::{
    AgreementRow, Attempt, AttemptState, CardRow, CardStatus, ChargeRow, ChargeStatus, DisputeRow,
    DisputeStatus, FirstPayment, ForwardAnswer, ForwardRow, ForwardStatus, Installation, Operation,
    OperationKind, Outbound, PrincipalKind, PrincipalRow, TenantRow,
};

/// Legal holds of one card, at most: more cases than that are one.
pub const LEGAL_HOLDS_MAX: usize = 32;

/// What a store call gives back later.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What to do when the customer already has this card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDuplicate {
    /// Store it again, with a token of its own.
    #[default]
    New,
    /// Answer with the token that is there, unchanged.
    ReturnExisting,
    /// Make expiry and zip of the token that is there those of this card.
    UpdateExisting,
}

/// One row that changes.
#[derive(Clone, Debug)]
pub enum RowChange {
    /// A new card. Fails with [`CommitError::DuplicateCard`] if `on_duplicate` is not `New` and the customer (or the
    /// absence of one) already has a live token with this fingerprint. The row's `fingerprint` is a proposal: the store
    /// keeps the id that the tenant already has for this keyed hash, and says so in [`Committed::fingerprint`].
    InsertCard {
        /// The row.
        card: Box<CardRow>,
        /// The keyed hash of the whole PAN. Of one that was made before another key took over and comes after the first under that
        /// one, nothing can be told that is stored since: [`CommitError::FingerprintStale`].
        fingerprint: Fingerprint,
        /// What to do with a duplicate.
        on_duplicate: OnDuplicate,
    },
    /// The next version of a card: `card.version` must be the stored version plus one, else [`CommitError::Conflict`]. The version
    /// before stays readable by [`Store::card_version`] without its PAN envelope, and with it while an attempt pins it. Without a new
    /// fingerprint the card keeps its id; status and hold stay in any case. [`CommitError::NotFound`] for an erased card, [`CommitError::Conflict`] for one that is `erasing`.
    UpdateCard {
        /// The row as it shall be.
        card: Box<CardRow>,
        /// The keyed hash, if the number changed. As for a new card, except that a number of an account updater is taken in any case.
        fingerprint: Option<Fingerprint>,
    },
    /// Suspends or reactivates a card; its version stays. Fails with [`CommitError::NotFound`] for an erased one, with
    /// [`CommitError::Conflict`] for one that is `erasing`, and for one that shall become active although its erase waits for a
    /// legal hold.
    SetCardStatus {
        /// Whose.
        tenant: TenantId,
        /// Which.
        token: Token,
        /// Active or suspended.
        status: CardStatus,
    },
    /// Sets or releases a legal hold by its reference; version and status stay. The card is held while any hold is set. But a hold on a card that is `erasing` suspends it, and releasing
    /// the hold of a card whose erase was asked for erases it. [`CommitError::NotFound`] for an erased card,
    /// [`CommitError::Conflict`] if the card is not as it was seen: the change's events would tell of something else;
    /// [`CommitError::TooMany`] beyond [`LEGAL_HOLDS_MAX`].
    SetLegalHold {
        /// Whose.
        tenant: TenantId,
        /// Which.
        token: Token,
        /// Set, or released.
        held: bool,
        /// Whose word it is, such as a case's number; empty for a hold without a reference.
        reference: String,
        /// Whether other holds of the card were set when the change was made.
        others_seen: bool,
        /// [`CardRow::status`] when the change was made.
        status_seen: CardStatus,
        /// [`CardRow::erase_asked`] when the change was made.
        erase_asked_seen: bool,
    },
    /// Erases a card: sealed fields of all versions, fingerprint entry, body MACs, metadata and customer go; the tombstone
    /// stays, and the log gets `card.erased`, which names every key that may have sealed the card. Under a legal hold it becomes `suspended` instead, to be erased on release; the row read back says so. While an
    /// unresolved attempt or an open authorization pins the card it becomes `erasing` instead, and the store erases it when
    /// [`PutCharge`](Self::PutCharge) closes the last one. An `erasing` card matches no duplicate any more.
    EraseCard {
        /// Whose.
        tenant: TenantId,
        /// Which.
        token: Token,
        /// Whether the caller saw a hold; [`CommitError::Conflict`] if that is no longer so.
        held_seen: bool,
    },
    /// Erases a card that is idle since before an instant, as [`EraseCard`](Self::EraseCard) does. [`CommitError::Conflict`] if it is not,
    /// or a legal hold keeps it; [`CommitError::NotFound`] if there is none.
    EraseIdle {
        /// Which.
        card: IdleCard,
        /// The instant.
        before: Time,
    },
    /// Forgets what is older than its tenant keeps it. The invoice of a charge stays taken, and a replay of what was answered about it is
    /// [`StoredAnswer::Forgotten`]. [`CommitError::Conflict`] if it is not so old, or something keeps it;
    /// [`CommitError::NotFound`] if there is none.
    Forget {
        /// Which.
        record: Outlived,
        /// The instant.
        before: Time,
    },
    /// A charge as it shall be. One that belongs to a line of a run marks that line; a marked line takes another charge only after one
    /// that certainly failed, else [`CommitError::Conflict`]. `charge.revision` must be the stored one plus one, or 1 for a new one, else
    /// [`CommitError::Conflict`]. A new charge whose (tenant, invoice, period) is taken fails with
    /// [`CommitError::InvoiceTaken`]; only a charge whose status is `declined`, `failed` or `voided` frees it, unless its plan has more tries.
    /// A further attempt on what a charge began with needs an active card like a new charge. A new charge with an
    /// unresolved attempt or an open authorization needs an active card ([`CommitError::Conflict`] if it is suspended,
    /// [`CommitError::NotFound`] if it is going or gone) of which `card_version` is the current version (else `Conflict`).
    PutCharge(Box<ChargeRow>),
    /// A forward as it shall be: `forward.revision` must be the stored one plus one, or 1 for a new one, else
    /// [`CommitError::Conflict`]. A new one needs an active card ([`CommitError::Conflict`] if it is suspended,
    /// [`CommitError::NotFound`] if it is going or gone) of which `card_version` is the current version (else `Conflict`). The answer
    /// of one whose card is gone meanwhile is not kept.
    PutForward(Box<ForwardRow>),
    /// A principal as it shall be (new or changed).
    PutPrincipal(Box<PrincipalRow>),
    /// A tenant as it shall be (new or changed).
    PutTenant(TenantRow),
    /// A stored-credential agreement as it shall be (new or changed): fails with [`CommitError::Conflict`] unless its revision is the
    /// next.
    PutAgreement(Box<AgreementRow>),
    /// Changes nothing: [`CommitError::Conflict`] unless the card's number and agreements are as they were seen, since what this change
    /// does about the ones depends on the others. [`CommitError::NotFound`] for an erased card.
    SeenAgreements {
        /// Whose.
        tenant: TenantId,
        /// Which card.
        token: Token,
        /// The field version of the number.
        number: u32,
        /// How many agreements the card has, those that ended included.
        agreements: usize,
    },
    /// A decline that counts against a network's limits.
    CountDecline(Box<DeclineRow>),
    /// Forgets declines before this instant, some thousand at most; what forbids a number for good stays as long as the number.
    PruneDeclines(Time),
    /// An invoice run as it shall be: its revision must be the stored one plus one, or 1 for a new one, else [`CommitError::Conflict`].
    PutRun(Box<RunRow>),
    /// The next lines of a run that is being uploaded: `run` is the run as it shall be, with `lines` counted already; the store decides
    /// each line's verdict, claims (tenant, invoice, period) for those it accepts, and counts the verdicts itself.
    AddRunLines {
        /// The run, its next revision.
        run: Box<RunRow>,
        /// The lines, in order.
        lines: Vec<RunLine>,
    },
    /// An accepted line that cannot be charged: nothing was sent. It gives its invoice back. [`CommitError::Conflict`] if the line is
    /// marked already.
    RefuseRunLine {
        /// Which.
        of: OfRun,
        /// Whose.
        tenant: TenantId,
        /// Why, in our own words.
        code: String,
    },
    /// Accepted lines from `released` up to, without, `to` that will not be charged give their invoices back; `run` is its next
    /// revision.
    ReleaseRunLines {
        /// The run, its next revision.
        run: Box<RunRow>,
        /// The first of these lines.
        from: u32,
    },
    /// Records sealed again under another key; versions stay. [`CommitError::Conflict`] if any of them is not as it was read.
    Reseal(Vec<Resealed>),
    /// Something about webhooks.
    Webhook(WebhookChange),
    /// What became of data keys under which cards were erased.
    MarkKey(KeyMark),
    /// How far the key store has come. [`CommitError::Conflict`] if the database was used with a newer one.
    KeyGeneration(u64),
    /// Binds the database to an installation, once for good: fails with [`CommitError::Conflict`] if it is bound to another.
    BindInstallation(Box<Installation>),
}

/// Claims an idempotency key for this change, or freezes its answer.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// Whose.
    pub tenant: TenantId,
    /// Method and route, such as `POST /v1/tokens`.
    pub route: &'static str,
    /// The caller's key, as a keyed hash made in the keeper.
    pub key: [u8; 32],
    /// The keyed hash of the body; deleted when `subject_token` is erased.
    pub body_mac: [u8; 32],
    /// The card that the request is about, if any.
    pub subject_token: Option<Token>,
    /// What is to be answered when the same request comes again.
    pub answer: StoredAnswer,
}

/// What a replay answers; never a card field, those are rebuilt from the sealed version that was answered.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum StoredAnswer {
    /// This version of this card, with this HTTP status.
    Card {
        /// Which.
        token: Token,
        /// The version that was answered.
        version: u32,
        /// 200 or 201.
        status: u16,
    },
    /// Reserved with the intent: the charge or operation (by id text) is being worked on.
    Reserved {
        /// `ch_…`, `rf_…`, `op_…`.
        subject: String,
    },
    /// Frozen bytes.
    Frozen {
        /// HTTP status.
        status: u16,
        /// `Location`, if there is one.
        location: Option<String>,
        /// The body.
        #[serde(with = "serde_bytes")]
        body: Vec<u8>,
    },
    /// What was answered is older than it is kept.
    Forgotten,
}

/// An idempotency record that is already there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredIdempotency {
    /// The body's keyed hash; `None` once the card it was about is erased.
    pub body_mac: Option<[u8; 32]>,
    /// What it was answered with.
    pub answer: StoredAnswer,
}

/// The unit that the store commits, all or nothing.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Rows, in this order.
    pub rows: Vec<RowChange>,
    /// The events that say who did it, appended in this order. `facts.customer` is the keyed hash that the keeper made of the
    /// customer of the card that this change inserts or updates: the log gets a hash of it with a random salt, which the store
    /// makes with a customer's first card and destroys with the last (in a change of no such card, the log gets none).
    pub events: Vec<EventDraft>,
    /// The idempotency key that this change claims. If the key is there already, nothing is changed and the answer is
    /// [`CommitError::KeyTaken`] — except that a `Frozen` answer replaces a `Reserved` one with the same `body_mac`
    /// (or whose MAC was erased with its card in the meantime: the outcome still counts).
    pub idempotency: Option<Idempotency>,
}

/// A permission that only a commit gives: the keeper releases what it holds for this attempt against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Grant {
    /// The log's sequence number of the change's last event (of the log's last, if the change had none).
    pub seq: u64,
}

/// What a commit says.
#[derive(Clone, Debug)]
pub struct Committed {
    /// When it was committed.
    pub time: Time,
    /// The permission that this commit gives.
    pub grant: Grant,
    /// The fingerprint id under which an inserted or updated card is kept.
    pub fingerprint: Option<FingerprintId>,
}

/// Why a change was not committed; nothing of it is there.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The idempotency key is taken.
    #[error("the idempotency key is taken")]
    KeyTaken(Box<StoredIdempotency>),
    /// The customer has this card already.
    #[error("the customer has this card already")]
    DuplicateCard {
        /// The oldest live token of it.
        token: Token,
    },
    /// Another change came first.
    #[error("another change came first")]
    Conflict,
    /// No such row, or it belongs to another tenant.
    #[error("there is no such row")]
    NotFound,
    /// The invoice and period belong to another charge.
    #[error("the invoice is charged already")]
    InvoiceTaken {
        /// That charge (`ch_…`).
        charge: crate::card::id::ChargeId,
    },
    /// The invoice and period belong to a line of a run that is not charged yet.
    #[error("the invoice is in a run")]
    InvoiceInRun {
        /// That run.
        run: crate::card::id::RunId,
    },
    /// The number has to be hashed again: another fingerprint key has taken over.
    #[error("another fingerprint key has taken over")]
    FingerprintStale,
    /// The tenant has as many of these as it may.
    #[error("there are too many already")]
    TooMany,
    /// The store cannot write now; the word says why (`disk_full`, `io`, `closed`). Trying again is safe.
    #[error("the store cannot write now: {0}")]
    Unavailable(&'static str),
}

/// Why a read failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be read now.
    #[error("the store cannot be read: {0}")]
    Unavailable(&'static str),
    /// What is stored is not what this version writes.
    #[error("the store holds something this version cannot read: {0}")]
    Corrupt(&'static str),
}

/// A page of a list: the rows and where to go on.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The rows, newest first.
    pub rows: Vec<T>,
    /// Whether there are more after the last.
    pub more: bool,
}

/// Which charges to list; all conditions hold together.
#[derive(Clone, Debug, Default)]
pub struct ChargeFilter {
    /// This invoice.
    pub invoice: Option<String>,
    /// This customer.
    pub customer: Option<String>,
    /// This status.
    pub status: Option<ChargeStatus>,
    /// This destination.
    pub destination: Option<String>,
    /// This transaction id of the processor, on any attempt.
    pub processor_transaction_id: Option<String>,
    /// Created at this instant or later.
    pub created_from: Option<Time>,
    /// Created before this instant.
    pub created_before: Option<Time>,
    /// Of this card, with [`ChargeRow::refund_needs_card`], and not yet declined, failed, voided or given back whole.
    pub refunded_with_card: Option<Token>,
}

/// A leaf of the log as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place, from 0.
    pub seq: u64,
    /// Its id.
    pub id: EventId,
    /// Whose log it also belongs to.
    pub tenant: Option<TenantId>,
    /// The canonical JSON.
    pub leaf: Vec<u8>,
}

/// What the assessor and the caller may rely on is in `contracts.md`; this is what the edge needs of a database.
pub trait Store: Send + Sync + 'static {
    /// Commits a change durably (fsynced) before it answers. Many may wait at once.
    fn commit(&self, change: Change) -> Reply<'_, Result<Committed, CommitError>>;

    /// Appends events that belong to no change (masked reads, refusals). They are durable within a second; the answer does
    /// not wait. Refused (`Unavailable("event_lag")`) when the log lags by more than [`Store::event_lag_max_seconds`] or the queue is full.
    fn append_events(&self, events: Vec<EventDraft>) -> Result<(), CommitError>;

    /// How long an appended event may wait before appends (and the reads they belong to) stop, in seconds.
    fn event_lag_max_seconds(&self) -> u64 {
        10
    }

    /// A card of this tenant, in whatever status.
    fn card(&self, tenant: TenantId, token: Token) -> Reply<'_, Result<Option<CardRow>, StoreError>>;

    /// An earlier version of a card. Its PAN envelope is empty unless an attempt pins it.
    fn card_version(
        &self,
        tenant: TenantId,
        token: Token,
        version: u32,
    ) -> Reply<'_, Result<Option<CardRow>, StoreError>>;

    /// A customer's cards that are not erased (`erasing` ones included), newest first, after (older than) `after`.
    fn cards_of_customer<'a>(
        &'a self,
        tenant: TenantId,
        customer: &'a str,
        after: Option<Token>,
        limit: usize,
    ) -> Reply<'a, Result<Page<CardRow>, StoreError>>;

    /// An idempotency record.
    fn idempotency<'a>(
        &'a self,
        tenant: TenantId,
        route: &'static str,
        key: &'a [u8; 32],
    ) -> Reply<'a, Result<Option<StoredIdempotency>, StoreError>>;

    /// A charge of this tenant, by its own id or by the id of one of its operations (`rf_…`, `op_…`).
    fn charge<'a>(
        &'a self,
        tenant: TenantId,
        id: &'a str,
    ) -> Reply<'a, Result<Option<ChargeRow>, StoreError>>;

    /// Charges of this tenant, newest first, older than `after`.
    fn charges<'a>(
        &'a self,
        tenant: TenantId,
        filter: &'a ChargeFilter,
        after: Option<crate::card::id::ChargeId>,
        limit: usize,
    ) -> Reply<'a, Result<Page<ChargeRow>, StoreError>>;

    /// Charges that have an attempt which is `sending` or `unknown`, or a status that waits for the processor: oldest first, newer
    /// than `after`. Fewer than `limit` are the last of them.
    fn open_charges(
        &self,
        after: Option<crate::card::id::ChargeId>,
        limit: usize,
    ) -> Reply<'_, Result<Vec<ChargeRow>, StoreError>>;

    /// Charges whose schedule of retries has to be looked at, by when, soonest first.
    fn retries(&self, limit: usize) -> Reply<'_, Result<Vec<DueRetry>, StoreError>>;

    /// Charges of a card that a schedule of retries is to go on with.
    fn retries_of(&self, token: Token) -> Reply<'_, Result<Vec<ChargeId>, StoreError>>;

    /// The declines of a number at a destination, oldest first, by who asked.
    fn declines<'a>(
        &'a self,
        fingerprint: FingerprintId,
        destination: &'a str,
        by_merchant: bool,
    ) -> Reply<'a, Result<Vec<DeclineRow>, StoreError>>;

    /// A forward of this tenant.
    fn forward(
        &self,
        tenant: TenantId,
        id: crate::card::id::ForwardId,
    ) -> Reply<'_, Result<Option<ForwardRow>, StoreError>>;

    /// All forwards that are `sending`, without their answers.
    fn open_forwards(&self, limit: usize) -> Reply<'_, Result<Vec<ForwardRow>, StoreError>>;

    /// An invoice run of this tenant.
    fn invoice_run(
        &self,
        tenant: TenantId,
        id: crate::card::id::RunId,
    ) -> Reply<'_, Result<Option<RunRow>, StoreError>>;

    /// Invoice runs of this tenant, newest first, older than `after`.
    fn invoice_runs(
        &self,
        tenant: TenantId,
        after: Option<crate::card::id::RunId>,
        limit: usize,
    ) -> Reply<'_, Result<Page<RunRow>, StoreError>>;

    /// All invoice runs that somebody has to work on: being uploaded, running, or with invoices to give back.
    fn invoice_runs_at_work(&self) -> Reply<'_, Result<Vec<RunRow>, StoreError>>;

    /// Lines of a run from number `from` on (from 1), in order, with what became of each.
    fn run_lines(
        &self,
        tenant: TenantId,
        id: crate::card::id::RunId,
        from: u32,
        limit: usize,
    ) -> Reply<'_, Result<Vec<RunLineRow>, StoreError>>;

    /// The legal holds of a card, by their references.
    fn legal_holds(&self, token: Token) -> Reply<'_, Result<Vec<LegalHold>, StoreError>>;

    /// The agreements of a card.
    fn agreements(&self, tenant: TenantId, token: Token) -> Reply<'_, Result<Vec<AgreementRow>, StoreError>>;

    /// All principals, for the edge's own table.
    fn principals(&self) -> Reply<'_, Result<Vec<PrincipalRow>, StoreError>>;

    /// All tenants.
    fn tenants(&self) -> Reply<'_, Result<Vec<TenantRow>, StoreError>>;

    /// The installation that this database is bound to; none before the first start.
    fn installation(&self) -> Reply<'_, Result<Option<Installation>, StoreError>>;

    /// How far the key store had come that this database was used with last; none before the first use.
    fn key_generation(&self) -> Reply<'_, Result<Option<u64>, StoreError>>;

    /// Events from `from` on, in order, at most `limit`; of one tenant if named.
    fn events(
        &self,
        tenant: Option<TenantId>,
        from: u64,
        limit: usize,
    ) -> Reply<'_, Result<Vec<StoredEvent>, StoreError>>;

    /// An event by its id.
    fn event(&self, id: EventId) -> Reply<'_, Result<Option<StoredEvent>, StoreError>>;

    /// Size and root of the log as committed so far.
    fn tree_head(&self) -> Reply<'_, Result<(u64, [u8; 32]), StoreError>>;

    /// RFC 6962 inclusion path of leaf `seq` in the tree of `size` leaves.
    fn inclusion_proof(&self, seq: u64, size: u64) -> Reply<'_, Result<Vec<[u8; 32]>, StoreError>>;

    /// RFC 6962 consistency path between the trees of `old` and `new` leaves.
    fn consistency_proof(&self, old: u64, new: u64) -> Reply<'_, Result<Vec<[u8; 32]>, StoreError>>;

    /// Keeps a signed checkpoint (its note text) for the tree of `size` leaves.
    fn put_checkpoint(&self, size: u64, note: String) -> Reply<'_, Result<(), CommitError>>;

    /// The newest signed checkpoint.
    fn checkpoint(&self) -> Reply<'_, Result<Option<String>, StoreError>>;

    /// Cards of all tenants, whatever their status, in the order of their tokens.
    fn cards_after(&self, after: Option<Token>, limit: usize) -> Reply<'_, Result<Vec<CardRow>, StoreError>>;

    /// Sealed records of all tenants after this place, in order. Fewer than `limit` are the last of them.
    fn sealed_records(
        &self,
        after: Option<RecordPlace>,
        limit: usize,
    ) -> Reply<'_, Result<Vec<SealedRecord>, StoreError>>;

    /// Watches over these keys, in place of those before.
    fn watch_keys(&self, watch: KeyWatch);

    /// Cards of these tenants that are idle since before the instant of each, after this token, out of the next `limit` cards that are
    /// old enough: a bounded step, found by the order of tokens. Cards with a live agreement or a retry to come are not idle.
    fn idle_cards<'a>(
        &'a self,
        before: &'a BTreeMap<TenantId, Time>,
        after: Option<Token>,
        limit: usize,
    ) -> Reply<'a, Result<IdlePage, StoreError>>;

    /// Charges, agreements and answers that are older than the instant of their tenant, from this place on, out of the next `limit`: a
    /// bounded step.
    fn outlived<'a>(
        &'a self,
        before: &'a BTreeMap<TenantId, Time>,
        after: OutlivedPlace,
        limit: usize,
    ) -> Reply<'a, Result<OutlivedPage, StoreError>>;

    /// The data keys that may have sealed what is erased, those included that are destroyed by now.
    fn erased_keys(&self) -> Reply<'_, Result<Vec<ErasedKey>, StoreError>>;

    /// Where the log tells of the erasure of this card; none for one that is not erased.
    fn erasure(&self, token: Token) -> Reply<'_, Result<Option<Erasure>, StoreError>>;

    /// Records that were inserted under a key that was counted at that time.
    fn watched_seals(&self) -> u64;

    /// All webhook endpoints of all tenants, in the order in which they were made.
    fn webhook_endpoints(&self) -> Reply<'_, Result<Vec<EndpointRow>, StoreError>>;

    /// A webhook endpoint of this tenant.
    fn webhook_endpoint(
        &self,
        tenant: TenantId,
        id: EndpointId,
    ) -> Reply<'_, Result<Option<EndpointRow>, StoreError>>;

    /// What is due for an endpoint, what has waited longest first.
    fn webhooks_due(
        &self,
        of: (TenantId, EndpointId),
        now: Time,
        limit: usize,
    ) -> Reply<'_, Result<Vec<Due>, StoreError>>;

    /// How many deliveries wait for an endpoint, counted up to `max`.
    fn webhooks_waiting(&self, of: (TenantId, EndpointId), max: usize) -> Reply<'_, Result<u64, StoreError>>;

    /// The deliveries of an endpoint, newest first, older than `after`.
    fn webhook_deliveries(
        &self,
        of: (TenantId, EndpointId),
        state: Option<DeliveryState>,
        after: Option<NoticeId>,
        limit: usize,
    ) -> Reply<'_, Result<Page<Delivery>, StoreError>>;

    /// What was told, or is to be.
    fn webhook_notice(
        &self,
        tenant: TenantId,
        id: NoticeId,
    ) -> Reply<'_, Result<Option<NoticeRow>, StoreError>>;

    /// What was told since an instant, oldest first, later than `after`; or only what could not be delivered to the endpoint.
    fn webhook_notices_since(
        &self,
        of: (TenantId, EndpointId),
        since: (Time, bool),
        after: Option<NoticeId>,
        limit: usize,
    ) -> Reply<'_, Result<Vec<NoticeRow>, StoreError>>;

    /// Woken when a commit has told something.
    fn webhooks_told(&self) -> &Notify;

    /// What is waiting, for metrics and readiness.
    fn health(&self) -> StoreHealth;
}

/// A charge whose schedule of retries has to be looked at: when, whose, which.
pub type DueRetry = (Time, TenantId, ChargeId);

/// What is waiting in a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Whether commits are taken.
    pub writable: bool,
    /// Changes that wait for the writer.
    pub changes_waiting: u64,
    /// Age of the oldest event that is not yet durable, in milliseconds.
    pub event_lag_ms: u64,
    /// Commits so far.
    pub commits: u64,
    /// Changes committed so far.
    pub changes: u64,
    /// Sum of the time the commits took, in microseconds.
    pub commit_micros: u64,
    /// Cards erased whose bytes may still lie in the write-ahead log or free pages.
    pub scrub_waiting: u64,
}
