//! Reads beside the writer: a few connections, each read one short transaction, in the thread that asks.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard, TryLockError};

use rusqlite::{Connection, OptionalExtension};
use serde::de::DeserializeOwned;

use super::apply::{
    declines_of, load_card, load_charge, load_forward, load_open_forwards, needs_card_yet, read_charge,
    read_key, status_word,
};
use super::codec::{self, ReadError, StoredCard, StoredKey};
use super::index::{self, Order, Span};
use super::keys::{self, Key};
use super::log::{self, StoredNodes};
use super::schema;
use super::writer::Common;
use crate::card::id::{ChargeId, EventId, FingerprintId, ForwardId, IdBytes, Token};
use crate::card::tenant::TenantId;
use crate::edge::audit::tree::{Frontier, TreeError, consistency_path, inclusion_path};
use crate::edge::store::{
    AgreementRow, CardRow, CardStatus, ChargeFilter, ChargeRow, DeclineRow, DueRetry, ForwardRow, Page,
    StoreError, StoredEvent, StoredIdempotency,
};

/// What each connection that is kept open may cache, in KiB; as many threads read at once here. A reader takes the first that is
/// free: nearly all reads meet the large cache, and two middling ones would hold the same pages twice.
const CACHES_KIB: [i64; 4] = [8_192, 1_024, 512, 512];
/// The same of a connection that is opened for one read.
const CACHE_KIB_LEAST: i64 = 256;
/// Rows of a listing that the index leads to and that are looked at together.
const CANDIDATES: usize = 256;
/// Rows of a listing without an index that are looked at together: two or three milliseconds, in which the writer may wait.
const ROWS_AT_ONCE: usize = 1000;

/// The readers' side of the store.
pub(super) struct Readers {
    pub(super) common: Arc<Common>,
}

/// The connections, each in its place while it rests, and the gate that each read passes.
#[derive(Default)]
pub(super) struct Pool {
    places: [Mutex<Option<Reader>>; CACHES_KIB.len()],
    gate: RwLock<()>,
}

impl Pool {
    /// Ends the transactions of readers that rest: under them the write-ahead log can neither be copied whole nor begin again.
    pub(super) fn let_go(&self) {
        for mut place in self.places.iter().filter_map(unless_taken) {
            // One that fails to is closed, which ends its transaction too.
            if place.as_mut().is_some_and(|reader| reader.let_go().is_err()) {
                *place = None;
            }
        }
    }

    /// Waits for the reads that are under way, and holds up new ones for as long as the guard lives: to empty the log takes
    /// an instant without a reader, and where many read there is none.
    pub(super) fn close(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first place that nobody reads at, and what may be cached there.
    fn free_place(&self) -> Option<(MutexGuard<'_, Option<Reader>>, i64)> {
        self.places.iter().zip(CACHES_KIB).find_map(|(place, cache)| Some((unless_taken(place)?, cache)))
    }
}

fn unless_taken<T>(place: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match place.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// A connection, and what it sees.
struct Reader {
    conn: Connection,
    /// Open on the rows as they were after so many commits that changed some; `None` between transactions.
    snapshot: Option<u64>,
}

impl Reader {
    /// Begins to see the rows as they are after `commits`, unless it does already.
    fn see(&mut self, commits: u64) -> rusqlite::Result<()> {
        if self.snapshot != Some(commits) {
            self.let_go()?;
            self.conn.prepare_cached("begin")?.execute(())?;
            self.snapshot = Some(commits);
        }
        Ok(())
    }

    fn let_go(&mut self) -> rusqlite::Result<()> {
        if self.snapshot.take().is_some() {
            self.conn.prepare_cached("commit")?.execute(())?;
        }
        Ok(())
    }
}

impl Readers {
    pub(super) const fn new(common: Arc<Common>) -> Self {
        Self { common }
    }

    /// A read that may take several statements and the index; each statement sees what is committed when it begins.
    pub(super) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, ReadError>,
    ) -> Result<T, StoreError> {
        self.pass(Reader::let_go, read)
    }

    /// A read of rows alone, without the index. To begin and to end a transaction takes half as long as to read a card, so
    /// the transaction stays open until rows are changed, or the write-ahead log is to begin again. Events alone end none: with
    /// each transaction the page cache begins anew, and where many read, nearly all commits are the events of reads.
    pub(super) fn with_rows<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, ReadError>,
    ) -> Result<T, StoreError> {
        let commits = self.common.figures.row_commits.load(Ordering::Acquire);
        self.pass(|reader| reader.see(commits), read)
    }

    /// A read must not hold another: the gate might close between them.
    fn pass<T>(
        &self,
        prepare: impl FnOnce(&mut Reader) -> rusqlite::Result<()>,
        read: impl FnOnce(&Connection) -> Result<T, ReadError>,
    ) -> Result<T, StoreError> {
        let pool = &self.common.pool;
        let _open = pool.gate.read().unwrap_or_else(PoisonError::into_inner);
        let (mut place, cache) = pool.free_place().unzip();
        // Out of its place while it reads: one whose read fails, or panics, does not go back.
        let mut reader = match place.as_mut().and_then(|place| place.take()) {
            Some(reader) => reader,
            None => {
                let conn = schema::open_reader(&self.common.file, cache.unwrap_or(CACHE_KIB_LEAST))
                    .map_err(|_| StoreError::Unavailable("io"))?;
                Reader { conn, snapshot: None }
            }
        };
        prepare(&mut reader).map_err(ReadError::from)?;
        let answer = read(&reader.conn)?;
        if let Some(mut place) = place {
            *place = Some(reader);
        }
        Ok(answer)
    }

    pub(super) fn key_generation(&self) -> Result<Option<u64>, StoreError> {
        self.with(|conn| {
            let mut get = conn.prepare_cached(include_str!("sql/key_generation_get.sql"))?;
            let generation: Option<i64> = get.query_row([], |row| row.get(0)).optional()?;
            Ok(generation.and_then(|generation| u64::try_from(generation).ok()))
        })
    }

    pub(super) fn card(&self, tenant: TenantId, token: Token) -> Result<Option<CardRow>, StoreError> {
        self.with_rows(|conn| card_of(conn, tenant, token))
    }

    pub(super) fn card_version(
        &self,
        tenant: TenantId,
        token: Token,
        version: u32,
    ) -> Result<Option<CardRow>, StoreError> {
        self.with(|conn| {
            let current = card_of(conn, tenant, token)?;
            if current.as_ref().is_none_or(|card| card.version == version) {
                return Ok(current);
            }
            let mut statement = conn.prepare_cached(include_str!("sql/card_version_get.sql"))?;
            let mut rows = statement.query((token.bytes(), version))?;
            Ok(rows.next()?.map(StoredCard::read).transpose()?.map(|card| card.row))
        })
    }

    pub(super) fn cards_of_customer(
        &self,
        tenant: TenantId,
        customer: &str,
        after: Option<Token>,
        limit: usize,
    ) -> Result<Page<CardRow>, StoreError> {
        let prefix = keys::customer_prefix(keys::customer_mark(tenant, Some(customer)));
        self.page(&prefix, after.map(|token| token.0), limit, |conn, id| {
            let card = card_of(conn, tenant, Token(id))?;
            Ok(card.filter(|card| {
                card.status != CardStatus::Erased && card.customer.as_deref() == Some(customer)
            }))
        })
    }

    pub(super) fn idempotency(
        &self,
        tenant: TenantId,
        route: &str,
        key: &[u8; 32],
    ) -> Result<Option<StoredIdempotency>, StoreError> {
        self.with(|conn| {
            let key = keys::idempotency(tenant, route, key);
            let Some(bytes) = index::get(&self.common.index, conn, &key)? else { return Ok(None) };
            let stored: StoredKey = codec::decode(&bytes)?;
            Ok(Some(read_key(conn, stored)?))
        })
    }

    pub(super) fn charge(&self, tenant: TenantId, id: &str) -> Result<Option<ChargeRow>, StoreError> {
        self.with(|conn| {
            let id = match ChargeId::parse(id) {
                Some(id) => Some(id),
                None => index::get(&self.common.index, conn, &keys::operation(tenant, id))?
                    .as_deref()
                    .and_then(ChargeId::from_slice),
            };
            id.map_or(Ok(None), |id| load_charge(conn, tenant, id))
        })
    }

    /// Where no index leads, all rows of the tenant are looked at: some in each pass of the gate, and others have their turn between,
    /// in the store and in this thread.
    pub(super) async fn charges(
        &self,
        tenant: TenantId,
        filter: &ChargeFilter,
        after: Option<ChargeId>,
        limit: usize,
    ) -> Result<Page<ChargeRow>, StoreError> {
        if let Some(prefix) = leading_prefix(tenant, filter) {
            return self.page(&prefix, after.map(|id| id.0), limit, |conn, id| {
                let charge = load_charge(conn, tenant, ChargeId(id))?;
                Ok(charge.filter(|charge| matches(charge, filter)))
            });
        }
        let mut before = after.unwrap_or(ChargeId(IdBytes([u8::MAX; 18])));
        let mut rows = Vec::new();
        // One more than asked for says that there is more.
        while rows.len() <= limit {
            let wanted = limit.saturating_add(1) - rows.len();
            let (some, last) = self.with(|conn| charges_by_scan(conn, (tenant, filter), before, wanted))?;
            rows.extend(some);
            let Some(last) = last else { break };
            before = last;
            if rows.len() <= limit {
                tokio::task::yield_now().await;
            }
        }
        let more = rows.len() > limit;
        rows.truncate(limit);
        Ok(Page { rows, more })
    }

    /// A page of what the index lists under a prefix, newest first; some candidates in each pass of the gate.
    fn page<T>(
        &self,
        prefix: &[u8],
        after: Option<IdBytes>,
        limit: usize,
        read: impl Fn(&Connection, IdBytes) -> Result<Option<T>, ReadError>,
    ) -> Result<Page<T>, StoreError> {
        let mut rows = Vec::new();
        let mut to: Key = match after {
            Some(id) => prefix.iter().chain(&id.0).copied().collect(),
            None => keys::after_prefix(prefix),
        };
        loop {
            let more = self.with(|conn| {
                let span = Span { from: prefix.to_vec(), to: to.clone(), order: Order::Descending };
                let entries = index::scan(&self.common.index, conn, span, CANDIDATES.min(limit + 1))?;
                let Some((last, _)) = entries.last() else { return Ok(Some(false)) };
                to.clone_from(last);
                for (key, _) in &entries {
                    let id = keys::last_id(key).and_then(|id| id.try_into().ok()).map(IdBytes);
                    let Some(row) = read(conn, id.ok_or(ReadError::Corrupt("index"))?)? else { continue };
                    if rows.len() == limit {
                        return Ok(Some(true));
                    }
                    rows.push(row);
                }
                Ok(None)
            })?;
            if let Some(more) = more {
                return Ok(Page { rows, more });
            }
        }
    }

    pub(super) fn open_charges(
        &self,
        after: Option<ChargeId>,
        limit: usize,
    ) -> Result<Vec<ChargeRow>, StoreError> {
        let mut span = Span::of_prefix(keys::open_prefix());
        if let Some(after) = after {
            // The least key behind that one.
            span.from = keys::open(after);
            span.from.push(0);
        }
        let mut out = Vec::new();
        loop {
            let some = CANDIDATES.min(limit - out.len());
            let ended = self.with(|conn| {
                let entries = index::scan(&self.common.index, conn, span.clone(), some)?;
                for (key, tenant) in &entries {
                    let id = keys::last_id(key).and_then(ChargeId::from_slice);
                    let tenant = tenant.first_chunk::<4>().map(|bytes| TenantId(u32::from_be_bytes(*bytes)));
                    let (Some(id), Some(tenant)) = (id, tenant) else {
                        return Err(ReadError::Corrupt("index"));
                    };
                    out.extend(load_charge(conn, tenant, id)?);
                    span.from.clone_from(key);
                    span.from.push(0);
                }
                Ok(entries.len() < some)
            })?;
            if ended || out.len() >= limit {
                return Ok(out);
            }
        }
    }

    pub(super) fn retries(&self, limit: usize) -> Result<Vec<DueRetry>, StoreError> {
        self.with(|conn| {
            let span = Span::of_prefix(keys::retry_prefix());
            let entries = index::scan(&self.common.index, conn, span, limit)?;
            let read = |(key, tenant): (Key, Vec<u8>)| {
                let tenant = TenantId(u32::from_be_bytes(*tenant.first_chunk::<4>()?));
                let charge = keys::last_id(&key).and_then(ChargeId::from_slice)?;
                Some((keys::retry_due(&key)?, tenant, charge))
            };
            entries.into_iter().map(|entry| read(entry).ok_or(ReadError::Corrupt("index"))).collect()
        })
    }

    pub(super) fn retries_of(&self, token: Token) -> Result<Vec<ChargeId>, StoreError> {
        self.with(|conn| {
            let span = Span::of_prefix(keys::retries_of_card(token));
            let entries = index::scan(&self.common.index, conn, span, usize::MAX)?;
            Ok(entries
                .iter()
                .filter_map(|(key, _)| keys::last_id(key).and_then(ChargeId::from_slice))
                .collect())
        })
    }

    pub(super) fn declines(
        &self,
        fingerprint: FingerprintId,
        destination: &str,
        by_merchant: bool,
    ) -> Result<Vec<DeclineRow>, StoreError> {
        self.with_rows(|conn| declines_of(conn, fingerprint, destination, by_merchant))
    }

    pub(super) fn forward(&self, tenant: TenantId, id: ForwardId) -> Result<Option<ForwardRow>, StoreError> {
        self.with(|conn| Ok(load_forward(conn, id)?.filter(|row| row.tenant == tenant)))
    }

    pub(super) fn open_forwards(&self, limit: usize) -> Result<Vec<ForwardRow>, StoreError> {
        self.with(|conn| load_open_forwards(conn, limit))
    }

    pub(super) fn agreements(&self, tenant: TenantId, token: Token) -> Result<Vec<AgreementRow>, StoreError> {
        self.with(|conn| {
            let mut statement = conn.prepare_cached(include_str!("sql/agreements_of_card.sql"))?;
            let docs = statement.query_map((token.bytes(),), |row| row.get(0))?;
            let rows: Vec<AgreementRow> = read_docs(docs)?;
            Ok(rows.into_iter().filter(|row| row.tenant == tenant).collect())
        })
    }

    /// All rows of a table of documents.
    pub(super) fn all<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, StoreError> {
        self.with(|conn| {
            let mut statement = conn.prepare_cached(sql)?;
            let docs = statement.query_map([], |row| row.get(0))?;
            read_docs(docs)
        })
    }

    pub(super) fn events(
        &self,
        tenant: Option<TenantId>,
        from: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.with(|conn| Ok(log::events(conn, tenant, from, limit)?))
    }

    pub(super) fn event(&self, id: EventId) -> Result<Option<StoredEvent>, StoreError> {
        self.with(|conn| Ok(log::event(conn, id)?))
    }

    pub(super) fn tree_head(&self) -> Result<(u64, [u8; 32]), StoreError> {
        self.with(|conn| {
            let size = log::size(conn)?;
            Ok((size, Frontier::rebuild(size, &StoredNodes(conn)).map_err(tree_error)?.root()))
        })
    }

    pub(super) fn inclusion_proof(&self, seq: u64, size: u64) -> Result<Vec<[u8; 32]>, StoreError> {
        self.with(|conn| inclusion_path(&StoredNodes(conn), seq, size).map_err(tree_error))
    }

    pub(super) fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<[u8; 32]>, StoreError> {
        self.with(|conn| consistency_path(&StoredNodes(conn), old, new).map_err(tree_error))
    }

    pub(super) fn checkpoint(&self) -> Result<Option<String>, StoreError> {
        self.with(|conn| {
            let mut statement = conn.prepare_cached(include_str!("sql/checkpoint_last.sql"))?;
            Ok(statement.query_row([], |row| row.get(0)).optional()?)
        })
    }
}

fn card_of(conn: &Connection, tenant: TenantId, token: Token) -> Result<Option<CardRow>, ReadError> {
    Ok(load_card(conn, token)?.map(|card| card.row).filter(|card| card.tenant == tenant))
}

/// The condition that the index can lead to, if there is one: the narrowest first.
fn leading_prefix(tenant: TenantId, filter: &ChargeFilter) -> Option<Key> {
    let transaction = filter.processor_transaction_id.as_deref();
    transaction
        .map(|id| keys::charges_of_transaction(tenant, id))
        .or_else(|| filter.refunded_with_card.map(keys::charges_refunded_with))
        .or_else(|| filter.invoice.as_deref().map(|invoice| keys::charges_of_invoice(tenant, invoice)))
        .or_else(|| filter.customer.as_deref().map(|customer| keys::charges_of_customer(tenant, customer)))
}

fn matches(charge: &ChargeRow, filter: &ChargeFilter) -> bool {
    let transaction_is = |wanted: &String| {
        let mut attempts = charge.operations.iter().flat_map(|operation| &operation.attempts);
        attempts.any(|attempt| attempt.transaction_id.as_ref() == Some(wanted))
    };
    filter.invoice.as_ref().is_none_or(|wanted| charge.invoice == *wanted)
        && filter.customer.as_ref().is_none_or(|wanted| charge.customer.as_ref() == Some(wanted))
        && filter.status.is_none_or(|wanted| charge.status == wanted)
        && filter.destination.as_ref().is_none_or(|wanted| charge.destination == *wanted)
        && filter.processor_transaction_id.as_ref().is_none_or(transaction_is)
        && filter.refunded_with_card.is_none_or(|card| charge.token == card && needs_card_yet(charge))
        && filter.created_from.is_none_or(|from| charge.created_at >= from)
        && filter.created_before.is_none_or(|before| charge.created_at < before)
}

/// Those of the next rows that fit, newest first, at most as many as are wanted; and the last that was looked at, if more may follow.
fn charges_by_scan(
    conn: &Connection,
    (tenant, filter): (TenantId, &ChargeFilter),
    before: ChargeId,
    wanted: usize,
) -> Result<(Vec<ChargeRow>, Option<ChargeId>), ReadError> {
    let mut statement = conn.prepare_cached(include_str!("sql/charges_list.sql"))?;
    let mut scan = statement.query((
        tenant.0,
        before.bytes(),
        filter.status.map(status_word),
        filter.destination.as_deref(),
        filter.created_from.map(|time| time.micros),
        filter.created_before.map(|time| time.micros),
        i64::try_from(ROWS_AT_ONCE).unwrap_or(i64::MAX),
    ))?;
    let (mut rows, mut seen, mut last) = (Vec::new(), 0, before);
    while rows.len() < wanted
        && let Some(row) = scan.next()?
    {
        seen += 1;
        last = ChargeId(IdBytes(row.get(0)?));
        let doc: Option<String> = row.get(1)?;
        rows.extend(doc.map(|doc| read_charge(&doc)).transpose()?);
    }
    let may_follow = seen == ROWS_AT_ONCE || rows.len() == wanted;
    Ok((rows, may_follow.then_some(last)))
}

fn read_docs<T: DeserializeOwned>(
    docs: impl Iterator<Item = rusqlite::Result<String>>,
) -> Result<Vec<T>, ReadError> {
    docs.map(|doc| serde_json::from_str(&doc?).map_err(|_| ReadError::Corrupt("document"))).collect()
}

fn tree_error(error: TreeError<rusqlite::Error>) -> ReadError {
    match error {
        TreeError::Nodes(error) => ReadError::Database(error),
        TreeError::Missing => ReadError::Corrupt("tree"),
        TreeError::Range => ReadError::NoSuchTree,
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;
    use crate::card::tenant::Mode;
    use crate::clock::SystemClock;
    use crate::edge::store::sqlite::{SqliteOptions, SqliteStore};
    use crate::edge::store::{Change, ChargeStatus, RowChange, Store, TenantRow};

    const ROWS: u32 = 2_500;

    fn open(directory: &tempfile::TempDir) -> SqliteStore {
        let options = SqliteOptions {
            directory: directory.path().to_owned(),
            node: "n1".to_owned(),
            clock: Arc::new(SystemClock),
            pages_max: None,
        };
        SqliteStore::open(options).unwrap()
    }

    #[test]
    fn a_long_listing_lets_the_writer_in_every_thousand_rows() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        let mut conn = Connection::open(&store.common.file).unwrap();
        let rows = conn.transaction().unwrap();
        for number in 0..ROWS {
            let mut id = [0; 18];
            id[..4].copy_from_slice(&number.to_be_bytes());
            let row = (1, id, number, "approved", "sandbox", "is not read");
            let insert = "insert into charges (tenant, id, created, status, destination, doc) values (?1, ?2, ?3, ?4, ?5, ?6)";
            rows.execute(insert, row).unwrap();
        }
        rows.commit().unwrap();
        let rare = ChargeFilter { status: Some(ChargeStatus::Manual), ..ChargeFilter::default() };
        let mut listing = store.charges(TenantId(1), &rare, None, 10);
        let mut turns = 0;
        let page = loop {
            match listing.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(page) => break page.unwrap(),
                Poll::Pending => turns += 1,
            }
            assert!(store.common.pool.gate.try_write().is_ok(), "the gate is held");
        };
        assert_eq!((turns, page.rows.len(), page.more), (2, 0, false));
    }

    /// The snapshots of the connections that rest, and how many there are.
    fn snapshots(store: &SqliteStore) -> Vec<u64> {
        let places = store.common.pool.places.iter().filter_map(unless_taken);
        places.filter_map(|place| place.as_ref()?.snapshot).collect()
    }

    #[tokio::test]
    async fn events_alone_leave_readers_their_snapshot_and_rows_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        let (tenant, token) = (TenantId(1), Token(IdBytes([0; 18])));
        let commits = || store.common.figures.commits.load(Ordering::Relaxed);
        let read = async || {
            assert!(store.card(tenant, token).await.unwrap().is_none());
            snapshots(&store)
        };
        let first = read().await;
        assert_eq!(first.len(), 1);
        let before = commits();
        store.append_events(vec![log::tests::draft(1, Some(1))]).unwrap();
        while commits() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(read().await, first);
        let tenant = TenantRow {
            id: tenant,
            name: "one".into(),
            mode: Mode::Test,
            disabled: false,
            created_at: store.common.clock.now(),
        };
        let rows = vec![RowChange::PutTenant(tenant)];
        store.commit(Change { rows, ..Change::default() }).await.unwrap();
        assert!(read().await > first);
    }
}
