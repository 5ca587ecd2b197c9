//! The one writer: drains what waits into one transaction, a savepoint for each change, and answers after COMMIT.
//!
//! A batch that fails (full disk, I/O error) fails as a whole: the connection is closed, and before anything is taken again
//! it is reopened, all state is rebuilt from what is on disk, and a write is tried.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OptionalExtension};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::apply::{self, Applying, Hooks, Refusal};
use super::codec::ReadError;
use super::erasures;
use super::inbox::{Inbox, Job, Work};
use super::index::{IndexWriter, Shared};
use super::keys;
use super::log::{self, Log};
use super::read::Pool;
use super::records::Watched;
use super::schema::{self, OpenError};
use crate::card::id::{EventId, Token};
use crate::card::tenant::TenantId;
use crate::clock::{Clock, Time};
use crate::edge::audit::catalogue;
use crate::edge::audit::event::EventDraft;
use crate::edge::store::{Change, CommitError, Committed, Erasure, Grant};

/// How long a store that failed waits before it tries again.
const RETRY: Duration = Duration::from_secs(1);
/// What must fit on the disk before changes are taken again.
const PROBE_BYTES: u32 = 256 * 1024;
/// Tombstones marked as scrubbed with each commit.
const SCRUBBED_BATCH: usize = 256;

/// Where many read all the time the write-ahead log never begins again by itself; once it is so long, reads are held up for the
/// copying of its last pages.
const WAL_PAGES_CLOSE: u64 = 8_000;
/// From so many on, answers are given in the runtime.
const ANSWERS_MANY: usize = 8;

/// What writer, readers and checkpointer share.
pub(super) struct Common {
    pub(super) file: PathBuf,
    pub(super) node: String,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) inbox: Inbox,
    pub(super) index: Shared,
    pub(super) pool: Pool,
    pub(super) pages_max: Option<Arc<AtomicU32>>,
    pub(super) figures: Figures,
    /// Where those who ask run; known from the first question on.
    pub(super) runtime: OnceLock<Handle>,
    /// Woken when a commit has told webhook endpoints something.
    pub(super) told: Notify,
    /// The keys that records come under, where somebody has to know.
    pub(super) watched: Arc<Watched>,
}

impl Common {
    /// Tells each job what became of it. To wake many tasks from a thread that is not the runtime's takes a lock and often a
    /// system call for each, so the runtime is asked to do it itself.
    fn answer(&self, jobs: Vec<Job>, answers: Vec<Result<Committed, CommitError>>) {
        let are_many = jobs.len() >= ANSWERS_MANY;
        let tell = move || jobs.into_iter().zip(answers).for_each(|(job, answer)| job.answer(answer));
        match self.runtime.get().filter(|_| are_many) {
            Some(runtime) => drop(runtime.spawn(async move { tell() })),
            None => tell(),
        }
    }
}

/// Counters for [`super::StoreHealth`].
#[derive(Default)]
pub(super) struct Figures {
    pub(super) writable: AtomicBool,
    pub(super) commits: AtomicU64,
    /// Those of the commits that changed rows, and not only the log.
    pub(super) row_commits: AtomicU64,
    pub(super) changes: AtomicU64,
    pub(super) commit_micros: AtomicU64,
    pub(super) scrub_waiting: AtomicU64,
    /// Pages in the write-ahead log after the last commit.
    pub(super) wal_pages: Arc<AtomicU64>,
}

impl Figures {
    fn count(&self, done: &Done, begun: Instant) {
        let changes = done.answers.iter().filter(|answer| answer.is_ok()).count();
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.row_commits.fetch_add(u64::from(done.rows), Ordering::Release);
        self.changes.fetch_add(u64::try_from(changes).unwrap_or(0), Ordering::Relaxed);
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.commit_micros.fetch_add(micros, Ordering::Relaxed);
        self.scrub_waiting.fetch_add(done.erased, Ordering::SeqCst);
    }
}

/// The writer's thread.
pub(super) struct Writer {
    common: Arc<Common>,
    open: Option<Open>,
}

/// An open database with the state that belongs to it.
struct Open {
    conn: Connection,
    index: IndexWriter,
    log: Log,
    hooks: Hooks,
    watched: Arc<Watched>,
    /// Erased cards whose bytes are gone; their tombstones are yet to say so.
    scrubbed: Vec<Token>,
}

impl Open {
    fn new(common: &Common) -> Result<Self, OpenError> {
        let mut conn = schema::open_writer(&common.file)?;
        if let Some(pages) = &common.pages_max {
            conn.pragma_update(None, "max_page_count", pages.load(Ordering::SeqCst))?;
        }
        let pages = Arc::clone(&common.figures.wal_pages);
        conn.wal_hook(Some(move |_: &mut _, count: std::ffi::c_int| {
            pages.store(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let index = IndexWriter::load(&conn, Arc::clone(&common.index))?;
        let log = Log::load(&conn, &common.node)?;
        let waiting = index.scan(&conn, keys::scrub_prefix(), usize::MAX)?.len();
        common.figures.scrub_waiting.store(u64::try_from(waiting).unwrap_or(u64::MAX), Ordering::SeqCst);
        let hooks = Hooks::load(&conn).map_err(|error| match error {
            ReadError::Database(error) => OpenError::Database(error),
            ReadError::Corrupt(what) => OpenError::Corrupt(what),
            ReadError::NoSuchTree => OpenError::Corrupt("tree"),
        })?;
        Ok(Self { conn, index, log, hooks, watched: Arc::clone(&common.watched), scrubbed: Vec::new() })
    }
}

/// What a transaction did; to be said once it is durable.
struct Done {
    /// One for each job.
    answers: Vec<Result<Committed, CommitError>>,
    /// Whether anything but the log may have changed.
    rows: bool,
    erased: u64,
    /// Notices of webhooks.
    told: u64,
}

impl Writer {
    /// Opens the database; everything after happens in [`run`](Self::run).
    pub(super) fn open(common: Arc<Common>) -> Result<Self, OpenError> {
        let open = Some(Open::new(&common)?);
        common.figures.writable.store(true, Ordering::SeqCst);
        Ok(Self { common, open })
    }

    /// Until the store is dropped.
    pub(super) fn run(mut self) {
        let _closes = Closes(Arc::clone(&self.common));
        let mut failure = "io";
        loop {
            let idle = self.open.as_ref().is_some_and(|open| open.scrubbed.is_empty());
            let patience = if idle || self.open.is_none() { RETRY } else { Duration::ZERO };
            let mut work = self.common.inbox.take(patience);
            let stop = work.stop && work.jobs.is_empty();
            if self.open.is_none() {
                work.jobs.drain(..).for_each(|job| job.refuse(failure));
                self.common.inbox.give_back(std::mem::take(&mut work.events));
                if !stop {
                    self.reopen();
                }
            } else if let Err(error) = self.work(work) {
                failure = word(&error);
                self.fail(&error);
            }
            if stop {
                return;
            }
        }
    }

    fn fail(&mut self, error: &rusqlite::Error) {
        tracing::error!(code = ?error.sqlite_error_code(), "the store cannot write");
        self.common.figures.writable.store(false, Ordering::SeqCst);
        self.open = None;
    }

    fn reopen(&mut self) {
        std::thread::sleep(RETRY / 4);
        let Ok(open) = Open::new(&self.common) else { return };
        if open.probe().is_ok() {
            self.open = Some(open);
            self.common.figures.writable.store(true, Ordering::SeqCst);
        }
    }

    fn work(&mut self, work: Work) -> rusqlite::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let Work { jobs, events, restart, scrub, .. } = work;
        if !jobs.is_empty() || !events.is_empty() || !open.scrubbed.is_empty() {
            let begun = Instant::now();
            let done = match open.transact(&self.common, &jobs, &events) {
                Ok(done) => done,
                Err(error) => {
                    let word = word(&error);
                    self.common.figures.writable.store(false, Ordering::SeqCst);
                    jobs.into_iter().for_each(|job| job.refuse(word));
                    self.common.inbox.give_back(events);
                    return Err(error);
                }
            };
            self.common.figures.count(&done, begun);
            if done.told > 0 {
                self.common.told.notify_one();
            }
            self.common.answer(jobs, done.answers);
        }
        self.common.inbox.settle();
        if restart {
            open.checkpoint(&self.common, scrub)?;
        }
        Ok(())
    }
}

impl Open {
    /// One transaction with all jobs and events.
    ///
    /// A change that is refused before it has written anything needs no savepoint, and nearly all refusals are such. So a
    /// batch is tried without; if one change was refused half-done, all is rolled back and done again with savepoints.
    fn transact(&mut self, common: &Common, jobs: &[Job], events: &[EventDraft]) -> rusqlite::Result<Done> {
        let now = common.clock.now();
        let mark = self.log.mark();
        let marked = self.scrubbed.len().min(SCRUBBED_BATCH);
        let mut done = match self.attempt(jobs, events, now, false)? {
            Some(done) => done,
            None => {
                self.run("rollback")?;
                self.index.discard();
                self.hooks.undone(&self.conn)?;
                if !self.log.rollback(mark) {
                    return Err(rusqlite::Error::InvalidQuery);
                }
                self.attempt(jobs, events, now, true)?.ok_or(rusqlite::Error::InvalidQuery)?
            }
        };
        self.log.flush(&self.conn)?;
        self.index.flush(&self.conn)?;
        self.run("commit")?;
        self.index.committed();
        done.told = self.hooks.committed();
        self.log.settle();
        self.scrubbed.truncate(self.scrubbed.len() - marked);
        let marked = u64::try_from(marked).unwrap_or(0);
        common.figures.scrub_waiting.fetch_sub(marked, Ordering::SeqCst);
        Ok(done)
    }

    /// Everything before COMMIT; `None` if a change was refused half-done and nothing can undo it alone.
    fn attempt(
        &mut self,
        jobs: &[Job],
        events: &[EventDraft],
        now: Time,
        savepoints: bool,
    ) -> rusqlite::Result<Option<Done>> {
        self.run("begin immediate")?;
        // A change that was refused wrote nothing; to look at the rows once too often costs little.
        let rows = !jobs.is_empty() || !self.scrubbed.is_empty();
        let mut done = Done { answers: Vec::with_capacity(jobs.len()), rows, erased: 0, told: 0 };
        for job in jobs {
            match job {
                Job::Change(change, _) => {
                    let Some(answer) = self.change(change, now, savepoints, &mut done.erased)? else {
                        return Ok(None);
                    };
                    done.answers.push(answer);
                }
                Job::Checkpoint { size, note, .. } => {
                    let mut put = self.conn.prepare_cached(include_str!("sql/checkpoint_put.sql"))?;
                    put.execute((log::to_i64(*size), note))?;
                    let grant = Grant { seq: self.log.last_seq() };
                    done.answers.push(Ok(Committed { time: now, grant, fingerprint: None }));
                }
            }
        }
        self.log.append(events, now);
        self.mark_scrubbed(now)?;
        Ok(Some(done))
    }

    /// One change. The outer error is the batch's end, the inner one this change's.
    fn change(
        &mut self,
        change: &Change,
        now: Time,
        savepoints: bool,
        erased: &mut u64,
    ) -> rusqlite::Result<Option<Result<Committed, CommitError>>> {
        if savepoints {
            self.run("savepoint change")?;
        }
        let written = self.conn.total_changes();
        self.index.mark();
        let mark = self.log.mark();
        let mut applying = Applying {
            conn: &self.conn,
            index: &mut self.index,
            watched: &self.watched,
            hooks: &mut self.hooks,
            now,
            erased: 0,
            charged: None,
            said: Vec::new(),
            salt: None,
        };
        let applied = applying.apply(change);
        let (gone, salt, said) = (applying.erased, applying.salt, applying.said);
        match applied {
            Ok(fingerprint) => {
                // Before the others: whoever asked knows the last one's place by the grant.
                self.log.append(&said, now);
                self.log.append_named(&change.events, salt, now);
                if savepoints {
                    self.run("release change")?;
                }
                *erased += gone;
                let grant = Grant { seq: self.log.last_seq() };
                Ok(Some(Ok(Committed { time: now, grant, fingerprint })))
            }
            Err(Refusal::Change(error)) => {
                if savepoints {
                    self.run("rollback to change")?;
                    self.run("release change")?;
                } else if self.conn.total_changes() != written {
                    return Ok(None);
                }
                self.index.undo();
                self.hooks.undone(&self.conn)?;
                if !self.log.rollback(mark) {
                    return Err(rusqlite::Error::InvalidQuery);
                }
                Ok(Some(Err(error)))
            }
            Err(Refusal::Database(error)) => Err(error),
        }
    }

    /// Opening reads only: whether the disk takes anything again, a write of some size must show.
    fn probe(&self) -> rusqlite::Result<()> {
        self.conn.prepare_cached(include_str!("sql/probe.sql"))?.execute((PROBE_BYTES,))?;
        let row = self.conn.last_insert_rowid();
        self.conn.prepare_cached(include_str!("sql/answer_delete.sql"))?.execute((row,))?;
        Ok(())
    }

    /// Says on some tombstones that their bytes are gone.
    fn mark_scrubbed(&mut self, now: Time) -> rusqlite::Result<()> {
        let from = self.scrubbed.len().saturating_sub(SCRUBBED_BATCH);
        let some = self.scrubbed.get(from..).unwrap_or_default();
        for token in some {
            let mut put = self.conn.prepare_cached(include_str!("sql/card_scrubbed.sql"))?;
            let tenant: Option<u32> =
                put.query_row((token.bytes(), now.micros), |row| row.get(0)).optional()?;
            self.index.delete(&keys::scrub(*token));
            let place = keys::erasure(*token);
            let erasure = self.index.get(&self.conn, &place)?;
            let erasure = erasure.and_then(|bytes| erasures::decode(&bytes).ok());
            // Without randomness for its id the tombstone says it, and the certificate of the erasure does not.
            if let (Some(tenant), Some(erasure), Ok(id)) = (tenant, erasure, EventId::make(now)) {
                let event = apply::event_of(TenantId(tenant), *token, catalogue::CARD_SCRUBBED, id);
                self.log.append(&[event], now);
                self.index.put(&place, &erasures::encode(&Erasure { scrubbed: Some(id), ..erasure }));
            }
        }
        Ok(())
    }

    /// Copies the last pages into the database, so that the next commit begins the write-ahead log again; to scrub, empties
    /// it. The checkpointer has done the bulk.
    fn checkpoint(&mut self, common: &Common, scrub: bool) -> rusqlite::Result<()> {
        let mode = if scrub { "truncate" } else { "passive" };
        let pool = &common.pool;
        let long = common.figures.wal_pages.load(Ordering::Relaxed) >= WAL_PAGES_CLOSE;
        let _closed = (scrub || long).then(|| pool.close());
        pool.let_go();
        // Nobody is waited for long: no reader has more to do than one read, and the checkpointer asks again.
        self.conn.busy_timeout(Duration::from_millis(5))?;
        let sql = format!("pragma wal_checkpoint({mode})");
        let busy: i64 = self.conn.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
        self.conn.busy_timeout(Duration::from_secs(10))?;
        // What began while the last pages were copied would keep the log from beginning again.
        pool.let_go();
        if scrub && busy == 0 && self.scrubbed.is_empty() {
            let entries = self.index.scan(&self.conn, keys::scrub_prefix(), usize::MAX)?;
            let tokens = entries.iter().filter_map(|(key, _)| keys::last_id(key));
            self.scrubbed = tokens.filter_map(Token::from_slice).collect();
        }
        Ok(())
    }

    fn run(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute(())?;
        Ok(())
    }
}

/// Refuses everything once the writer's thread ends, however it ends.
struct Closes(Arc<Common>);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.figures.writable.store(false, Ordering::SeqCst);
        self.0.inbox.close();
    }
}

fn word(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "disk_full",
        Some(_) | None => "io",
    }
}
