//! Checkpoints beside the writer: a thread of its own copies the write-ahead log into the database in passing, and asks the
//! writer only for the last pages. After an erase it has the log emptied, so that sealed bytes are gone within seconds.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::schema;
use super::writer::Common;

const TICK: Duration = Duration::from_millis(50);
/// Pages in the write-ahead log (4 KiB each) before they are copied. While they are synced, commits wait for the disk too:
/// the more there are, the longer.
const WAL_PAGES_COPY: u64 = 2_000;
/// Pages left to copy that the writer may be asked for: a few milliseconds.
const WAL_PAGES_LEFT_MAX: i64 = 300;
/// Beyond this the writer must help, whatever it costs: 400 MB.
const WAL_PAGES_MAX: i64 = 100_000;
/// How soon after an erase the first try is made, and how often it is repeated; 60 s are promised.
const SCRUB_EVERY: Duration = Duration::from_millis(500);

/// A round that copied so few leaves few: while it ran, fewer came.
const ROUND_PAGES_FEW: i64 = 100;
const ROUNDS_MAX: u32 = 8;

/// Until `stop`. `database` is the file itself.
pub(super) fn run(common: &Arc<Common>, database: &File, stop: &AtomicBool) {
    let mut conn = schema::open_checkpointer(&common.file).ok();
    if let Some(conn) = &conn {
        // A filter that is not filled only costs time.
        let _unfilled = common.index.filter.fill(conn, stop).is_err();
    }
    let mut scrubbed = Instant::now();
    while !stop.load(Ordering::SeqCst) {
        std::thread::sleep(TICK);
        let figures = &common.figures;
        let scrub = figures.scrub_waiting.load(Ordering::SeqCst) > 0 && scrubbed.elapsed() >= SCRUB_EVERY;
        let long = figures.wal_pages.load(Ordering::Relaxed) >= WAL_PAGES_COPY;
        if !figures.writable.load(Ordering::SeqCst) || !(scrub || long) {
            continue;
        }
        if conn.is_none() {
            conn = schema::open_checkpointer(&common.file).ok();
        }
        let Some(open) = &conn else { continue };
        common.pool.let_go();
        match copy_and_sync(open, database) {
            Ok((pages, left)) => {
                if scrub || left <= WAL_PAGES_LEFT_MAX || pages >= WAL_PAGES_MAX {
                    common.inbox.ask(scrub);
                }
                // Only then: a log that is long all the time is no reason to wait with what is to be erased.
                if scrub {
                    scrubbed = Instant::now();
                }
            }
            Err(_) => conn = None,
        }
    }
}

/// Copies round after round until little is left: pages in the log, and about how many of them are left.
///
/// SQLite syncs the database only when the last page is copied, which is the writer's part: everybody would wait until all that
/// was copied here is on disk. So each round is synced here, beside the writer.
fn copy_and_sync(conn: &Connection, database: &File) -> rusqlite::Result<(i64, i64)> {
    let (mut before, mut round) = (0, 1);
    loop {
        let (pages, copied) = copy(conn)?;
        // If this fails, the writer's own sync fails too, and it knows what to do.
        let synced = database.sync_data().is_ok();
        let of_round = copied - before;
        if of_round <= ROUND_PAGES_FEW || round == ROUNDS_MAX || !synced {
            return Ok((pages, of_round.min(pages).max(pages - copied)));
        }
        (before, round) = (copied, round + 1);
    }
}

/// Copies what can be copied without waiting for anybody: pages in the log, and how many of them are copied.
fn copy(conn: &Connection) -> rusqlite::Result<(i64, i64)> {
    conn.prepare_cached("pragma wal_checkpoint(passive)")?.query_row([], |row| Ok((row.get(1)?, row.get(2)?)))
}
