//! The store on embedded SQLite.
//!
//! ```text
//!   commit ──► inbox ──► writer: one transaction for all that wait ──► answers after COMMIT
//!                          │  cards, sealed, charges, segments of the log: rows at the right edge
//!                          └─ index: random keys, tail first, then sorted runs, written and merged in slices
//!   card, list, … ──► readers: short reads beside the writer, in the caller's thread
//!   scrubber: checkpoints beside the writer; after an erase the write-ahead log is emptied
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, oneshot};

use super::{
    AgreementRow, CardRow, Change, ChargeFilter, ChargeRow, CommitError, Committed, DeclineRow, Delivery,
    DeliveryState, Due, DueRetry, EndpointRow, ErasedKey, Erasure, ForwardRow, IdlePage, Installation,
    KeyWatch, LegalHold, NoticeRow, OutlivedPage, OutlivedPlace, Page, PrincipalRow, RecordPlace, Reply,
    RunLineRow, RunRow, SealedRecord, Store, StoreError, StoreHealth, StoredEvent, StoredIdempotency,
    TenantRow,
};
use crate::card::id::{ChargeId, EndpointId, EventId, FingerprintId, ForwardId, NoticeId, RunId, Token};
use crate::card::tenant::TenantId;
use crate::clock::Clock;
use crate::clock::Time;
use crate::edge::audit::event::EventDraft;

mod apply;
mod codec;
mod compact;
mod digests;
mod erasures;
mod filter;
mod inbox;
mod index;
mod invoice_runs;
mod item;
mod keys;
mod log;
mod offline;
mod outlived;
mod read;
mod records;
mod retention;
mod runs;
mod schema;
mod scrub;
mod segment;
mod span;
mod webhooks;
mod writer;

pub use digests::{CardDigest, CardDigests, card_digests};
pub use offline::OfflineLog;
pub use schema::OpenError;

use apply::legal_holds;
use inbox::{Inbox, Job};
use read::Readers;
use writer::{Common, Figures, Writer};

/// Changes that may wait for the writer; more callers wait in line before they are queued.
const QUEUE_MAX: usize = 4_096;

/// Where and how to open a store.
#[derive(Clone)]
pub struct SqliteOptions {
    /// The directory of the database; nothing outside it is opened.
    pub directory: PathBuf,
    /// The name of this node, which every event of its log carries.
    pub node: String,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// The largest size of the database, in pages of 4 KiB; read each time the database is (re)opened.
    pub pages_max: Option<Arc<AtomicU32>>,
}

/// The store on SQLite. Dropping it commits what is queued and ends its threads.
pub struct SqliteStore {
    common: Arc<Common>,
    readers: Readers,
    slots: Semaphore,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// For the scrubber's syncs. To close any descriptor of the file gives up all locks that this process has on it (fcntl(2)),
    /// SQLite's too, so it is the last thing that goes.
    _database: Arc<File>,
}

impl SqliteStore {
    /// Opens the database of a directory, creating it if there is none, and starts the threads.
    pub fn open(options: SqliteOptions) -> Result<Self, OpenError> {
        let common = Arc::new(Common {
            file: schema::file_in(&options.directory),
            node: options.node,
            clock: options.clock,
            inbox: Inbox::default(),
            index: index::Shared::default(),
            pool: read::Pool::default(),
            pages_max: options.pages_max,
            figures: Figures::default(),
            runtime: OnceLock::new(),
            told: Notify::new(),
            watched: Arc::default(),
        });
        let writer = Writer::open(Arc::clone(&common))?;
        let readers = Readers::new(Arc::clone(&common));
        let database = Arc::new(File::options().read(true).write(true).open(&common.file)?);
        let stop = Arc::new(AtomicBool::new(false));
        let mut store = Self {
            common: Arc::clone(&common),
            readers,
            slots: Semaphore::new(QUEUE_MAX),
            stop: Arc::clone(&stop),
            threads: Vec::new(),
            _database: Arc::clone(&database),
        };
        let writer = std::thread::Builder::new().name("store-writer".into()).spawn(|| writer.run())?;
        store.threads.push(writer);
        let scrubber = std::thread::Builder::new()
            .name("store-scrubber".into())
            .spawn(move || scrub::run(&common, &database, &stop))?;
        store.threads.push(scrubber);
        Ok(store)
    }

    /// Queues a job and waits for its answer.
    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, CommitError>>) -> Job,
    ) -> Result<T, CommitError> {
        let _slot = self.slots.acquire().await.map_err(|_| CommitError::Unavailable("closed"))?;
        let (reply, answer) = oneshot::channel();
        if self.common.runtime.get().is_none()
            && let Ok(runtime) = Handle::try_current()
        {
            // Whoever else came first said the same.
            drop(self.common.runtime.set(runtime));
        }
        if self.common.inbox.push(job(reply)).is_err() {
            return Err(CommitError::Unavailable("closed"));
        }
        answer.await.unwrap_or(Err(CommitError::Unavailable("closed")))
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.common.inbox.stop();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so already.
            drop(thread.join());
        }
    }
}

/// An answer that is there already: point reads take microseconds, less than handing them to another thread.
fn ready<'a, T: Send + 'a>(answer: T) -> Reply<'a, T> {
    Box::pin(std::future::ready(answer))
}

impl Store for SqliteStore {
    fn commit(&self, change: Change) -> Reply<'_, Result<Committed, CommitError>> {
        Box::pin(self.ask(|reply| Job::Change(Box::new(change), reply)))
    }

    fn append_events(&self, events: Vec<EventDraft>) -> Result<(), CommitError> {
        let now = self.common.clock.now();
        self.common.inbox.push_events(events, now, self.event_lag_max_seconds())
    }

    fn card(&self, tenant: TenantId, token: Token) -> Reply<'_, Result<Option<CardRow>, StoreError>> {
        ready(self.readers.card(tenant, token))
    }

    fn card_version(
        &self,
        tenant: TenantId,
        token: Token,
        version: u32,
    ) -> Reply<'_, Result<Option<CardRow>, StoreError>> {
        ready(self.readers.card_version(tenant, token, version))
    }

    fn cards_of_customer<'a>(
        &'a self,
        tenant: TenantId,
        customer: &'a str,
        after: Option<Token>,
        limit: usize,
    ) -> Reply<'a, Result<Page<CardRow>, StoreError>> {
        ready(self.readers.cards_of_customer(tenant, customer, after, limit))
    }

    fn idempotency<'a>(
        &'a self,
        tenant: TenantId,
        route: &'static str,
        key: &'a [u8; 32],
    ) -> Reply<'a, Result<Option<StoredIdempotency>, StoreError>> {
        ready(self.readers.idempotency(tenant, route, key))
    }

    fn charge<'a>(
        &'a self,
        tenant: TenantId,
        id: &'a str,
    ) -> Reply<'a, Result<Option<ChargeRow>, StoreError>> {
        ready(self.readers.charge(tenant, id))
    }

    fn charges<'a>(
        &'a self,
        tenant: TenantId,
        filter: &'a ChargeFilter,
        after: Option<ChargeId>,
        limit: usize,
    ) -> Reply<'a, Result<Page<ChargeRow>, StoreError>> {
        Box::pin(self.readers.charges(tenant, filter, after, limit))
    }

    fn open_charges(
        &self,
        after: Option<ChargeId>,
        limit: usize,
    ) -> Reply<'_, Result<Vec<ChargeRow>, StoreError>> {
        ready(self.readers.open_charges(after, limit))
    }

    fn retries(&self, limit: usize) -> Reply<'_, Result<Vec<DueRetry>, StoreError>> {
        ready(self.readers.retries(limit))
    }

    fn retries_of(&self, token: Token) -> Reply<'_, Result<Vec<ChargeId>, StoreError>> {
        ready(self.readers.retries_of(token))
    }

    fn declines<'a>(
        &'a self,
        fingerprint: FingerprintId,
        destination: &'a str,
        by_merchant: bool,
    ) -> Reply<'a, Result<Vec<DeclineRow>, StoreError>> {
        ready(self.readers.declines(fingerprint, destination, by_merchant))
    }

    fn forward(&self, tenant: TenantId, id: ForwardId) -> Reply<'_, Result<Option<ForwardRow>, StoreError>> {
        ready(self.readers.forward(tenant, id))
    }

    fn open_forwards(&self, limit: usize) -> Reply<'_, Result<Vec<ForwardRow>, StoreError>> {
        ready(self.readers.open_forwards(limit))
    }

    fn invoice_run(&self, tenant: TenantId, id: RunId) -> Reply<'_, Result<Option<RunRow>, StoreError>> {
        ready(self.readers.invoice_run(tenant, id))
    }

    fn invoice_runs(
        &self,
        tenant: TenantId,
        after: Option<RunId>,
        limit: usize,
    ) -> Reply<'_, Result<Page<RunRow>, StoreError>> {
        ready(self.readers.invoice_runs(tenant, after, limit))
    }

    fn invoice_runs_at_work(&self) -> Reply<'_, Result<Vec<RunRow>, StoreError>> {
        ready(self.readers.all(include_str!("sql/invoice_runs_at_work.sql")))
    }

    fn run_lines(
        &self,
        tenant: TenantId,
        id: RunId,
        from: u32,
        limit: usize,
    ) -> Reply<'_, Result<Vec<RunLineRow>, StoreError>> {
        ready(self.readers.run_lines(tenant, id, from, limit))
    }

    fn agreements(&self, tenant: TenantId, token: Token) -> Reply<'_, Result<Vec<AgreementRow>, StoreError>> {
        ready(self.readers.agreements(tenant, token))
    }

    fn principals(&self) -> Reply<'_, Result<Vec<PrincipalRow>, StoreError>> {
        ready(self.readers.all(include_str!("sql/principals_all.sql")))
    }

    fn tenants(&self) -> Reply<'_, Result<Vec<TenantRow>, StoreError>> {
        ready(self.readers.all(include_str!("sql/tenants_all.sql")))
    }

    fn installation(&self) -> Reply<'_, Result<Option<Installation>, StoreError>> {
        ready(self.readers.all(include_str!("sql/installation_get.sql")).map(|rows| rows.into_iter().next()))
    }

    fn key_generation(&self) -> Reply<'_, Result<Option<u64>, StoreError>> {
        ready(self.readers.key_generation())
    }

    fn events(
        &self,
        tenant: Option<TenantId>,
        from: u64,
        limit: usize,
    ) -> Reply<'_, Result<Vec<StoredEvent>, StoreError>> {
        ready(self.readers.events(tenant, from, limit))
    }

    fn event(&self, id: EventId) -> Reply<'_, Result<Option<StoredEvent>, StoreError>> {
        ready(self.readers.event(id))
    }

    fn tree_head(&self) -> Reply<'_, Result<(u64, [u8; 32]), StoreError>> {
        ready(self.readers.tree_head())
    }

    fn inclusion_proof(&self, seq: u64, size: u64) -> Reply<'_, Result<Vec<[u8; 32]>, StoreError>> {
        ready(self.readers.inclusion_proof(seq, size))
    }

    fn consistency_proof(&self, old: u64, new: u64) -> Reply<'_, Result<Vec<[u8; 32]>, StoreError>> {
        ready(self.readers.consistency_proof(old, new))
    }

    fn put_checkpoint(&self, size: u64, note: String) -> Reply<'_, Result<(), CommitError>> {
        Box::pin(self.ask(move |reply| Job::Checkpoint { size, note, reply }))
    }

    fn checkpoint(&self) -> Reply<'_, Result<Option<String>, StoreError>> {
        ready(self.readers.checkpoint())
    }

    fn cards_after(&self, after: Option<Token>, limit: usize) -> Reply<'_, Result<Vec<CardRow>, StoreError>> {
        ready(self.readers.cards_after(after, limit))
    }

    fn sealed_records(
        &self,
        after: Option<RecordPlace>,
        limit: usize,
    ) -> Reply<'_, Result<Vec<SealedRecord>, StoreError>> {
        ready(self.readers.with_rows(|conn| records::read(conn, after, limit)))
    }

    fn legal_holds(&self, token: Token) -> Reply<'_, Result<Vec<LegalHold>, StoreError>> {
        ready(self.readers.with_rows(|conn| legal_holds(conn, token)))
    }

    fn idle_cards<'a>(
        &'a self,
        before: &'a BTreeMap<TenantId, Time>,
        after: Option<Token>,
        limit: usize,
    ) -> Reply<'a, Result<IdlePage, StoreError>> {
        ready(self.readers.idle_cards(before, after, limit))
    }

    fn outlived<'a>(
        &'a self,
        before: &'a BTreeMap<TenantId, Time>,
        after: OutlivedPlace,
        limit: usize,
    ) -> Reply<'a, Result<OutlivedPage, StoreError>> {
        ready(self.readers.outlived(before, after, limit))
    }

    fn erased_keys(&self) -> Reply<'_, Result<Vec<ErasedKey>, StoreError>> {
        ready(self.readers.erased_keys())
    }

    fn erasure(&self, token: Token) -> Reply<'_, Result<Option<Erasure>, StoreError>> {
        ready(self.readers.erasure(token))
    }

    fn watch_keys(&self, watch: KeyWatch) {
        self.common.watched.set(watch);
    }

    fn watched_seals(&self) -> u64 {
        self.common.watched.seals()
    }

    fn webhook_endpoints(&self) -> Reply<'_, Result<Vec<EndpointRow>, StoreError>> {
        ready(self.readers.webhook_endpoints())
    }

    fn webhook_endpoint(
        &self,
        tenant: TenantId,
        id: EndpointId,
    ) -> Reply<'_, Result<Option<EndpointRow>, StoreError>> {
        ready(self.readers.webhook_endpoint(tenant, id))
    }

    fn webhooks_due(
        &self,
        of: (TenantId, EndpointId),
        now: Time,
        limit: usize,
    ) -> Reply<'_, Result<Vec<Due>, StoreError>> {
        ready(self.readers.webhooks_due(of, now, limit))
    }

    fn webhooks_waiting(&self, of: (TenantId, EndpointId), max: usize) -> Reply<'_, Result<u64, StoreError>> {
        ready(self.readers.webhooks_waiting(of, max))
    }

    fn webhook_deliveries(
        &self,
        of: (TenantId, EndpointId),
        state: Option<DeliveryState>,
        after: Option<NoticeId>,
        limit: usize,
    ) -> Reply<'_, Result<Page<Delivery>, StoreError>> {
        ready(self.readers.webhook_deliveries(of, state, after, limit))
    }

    fn webhook_notice(
        &self,
        tenant: TenantId,
        id: NoticeId,
    ) -> Reply<'_, Result<Option<NoticeRow>, StoreError>> {
        ready(self.readers.webhook_notice(tenant, id))
    }

    fn webhook_notices_since(
        &self,
        of: (TenantId, EndpointId),
        since: (Time, bool),
        after: Option<NoticeId>,
        limit: usize,
    ) -> Reply<'_, Result<Vec<NoticeRow>, StoreError>> {
        ready(self.readers.webhook_notices_since(of, since, after, limit))
    }

    fn webhooks_told(&self) -> &Notify {
        &self.common.told
    }

    fn health(&self) -> StoreHealth {
        let figures = &self.common.figures;
        let (changes_waiting, event_lag_ms) = self.common.inbox.lag(self.common.clock.now());
        StoreHealth {
            writable: figures.writable.load(Ordering::SeqCst),
            changes_waiting,
            event_lag_ms,
            commits: figures.commits.load(Ordering::Relaxed),
            changes: figures.changes.load(Ordering::Relaxed),
            commit_micros: figures.commit_micros.load(Ordering::Relaxed),
            scrub_waiting: figures.scrub_waiting.load(Ordering::SeqCst),
        }
    }
}
