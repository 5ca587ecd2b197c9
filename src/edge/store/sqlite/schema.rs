//! Opening the database: pragmas, and migrations that are applied once and never edited.
//!
//! Each migration is recorded with its SHA-256. A database with a migration that this program does not know, or whose text
//! has changed since, is refused: guessing what a newer version meant could lose a card.

use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

const FILE_NAME: &str = "vault.db";
/// `card`, so that `file` and a person can tell the database from any other.
const APPLICATION_ID: i32 = 0x6361_7264;
const MIGRATIONS: [(&str, &str); 17] = [
    ("0001_first", include_str!("migrations/0001_first.sql")),
    ("0002_installation", include_str!("migrations/0002_installation.sql")),
    ("0003_log_segments", include_str!("migrations/0003_log_segments.sql")),
    ("0004_charges_with_rowid", include_str!("migrations/0004_charges_with_rowid.sql")),
    ("0005_index_runs", include_str!("migrations/0005_index_runs.sql")),
    ("0006_customer_salts", include_str!("migrations/0006_customer_salts.sql")),
    ("0007_network_declines", include_str!("migrations/0007_network_declines.sql")),
    ("0008_forwards", include_str!("migrations/0008_forwards.sql")),
    ("0009_invoice_runs", include_str!("migrations/0009_invoice_runs.sql")),
    ("0010_webhooks", include_str!("migrations/0010_webhooks.sql")),
    ("0011_log_spans", include_str!("migrations/0011_log_spans.sql")),
    ("0012_key_generation", include_str!("migrations/0012_key_generation.sql")),
    ("0013_fingerprint_keys", include_str!("migrations/0013_fingerprint_keys.sql")),
    ("0014_erased_keys", include_str!("migrations/0014_erased_keys.sql")),
    ("0015_retention", include_str!("migrations/0015_retention.sql")),
    ("0016_legal_holds", include_str!("migrations/0016_legal_holds.sql")),
    ("0017_marks_of_old_versions", include_str!("migrations/0017_marks_of_old_versions.sql")),
];
const STATEMENTS_CACHED: usize = 64;
/// What the writer may cache: it writes at the right edge of its tables, so more would hold pages that it has done with.
const WRITER_CACHE_KIB: i64 = 4_096;
/// What a reader that is the only one may cache.
pub(super) const CACHE_KIB_ALONE: i64 = 2_048;

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database itself failed.
    #[error("the database did not open: {0}")]
    Database(#[from] rusqlite::Error),
    /// The file is some other program's database.
    #[error("this file is a database of another program")]
    Foreign,
    /// Written by a newer version.
    #[error(
        "the database has schema version {found}, this program knows versions up to {known}: use the newer program"
    )]
    UnknownSchema {
        /// The version of the database.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// A migration that was applied is not the one in this program.
    #[error("migration {0} was changed after it was applied: use the program that wrote this database")]
    ChangedMigration(String),
    /// What is stored cannot be read back.
    #[error("the store holds something this version cannot read: {0}")]
    Corrupt(&'static str),
    /// A thread could not be started, or the file not opened beside the database.
    #[error("the store did not start: {0}")]
    Thread(#[from] std::io::Error),
}

/// The database file in this directory.
pub(super) fn file_in(directory: &Path) -> PathBuf {
    directory.join(FILE_NAME)
}

/// Opens for writing: creates the file and brings the schema up to date.
pub(super) fn open_writer(file: &Path) -> Result<Connection, OpenError> {
    let mut conn = Connection::open_with_flags(
        file,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.pragma_update(None, "page_size", 4096)?;
    conn.busy_timeout(std::time::Duration::from_secs(10))?;
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(OpenError::Corrupt("journal mode"));
    }
    set_pragmas(&conn, WRITER_CACHE_KIB)?;
    migrate(&mut conn)?;
    Ok(conn)
}

/// Opens for checkpoints beside the writer.
pub(super) fn open_checkpointer(file: &Path) -> Result<Connection, OpenError> {
    let conn = open_existing(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    set_pragmas(&conn, 256)?;
    Ok(conn)
}

/// Opens for reading.
pub(super) fn open_reader(file: &Path, cache_kib: i64) -> Result<Connection, OpenError> {
    let conn = open_existing(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    set_pragmas(&conn, cache_kib)?;
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

fn open_existing(file: &Path, flags: OpenFlags) -> Result<Connection, OpenError> {
    let conn = Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(std::time::Duration::from_secs(10))?;
    Ok(conn)
}

fn set_pragmas(conn: &Connection, cache_kib: i64) -> Result<(), OpenError> {
    conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    // Without it a statement is planned again whenever a bound value might suggest another plan: each time, here.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "secure_delete", true)?;
    conn.pragma_update(None, "temp_store", "memory")?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "cache_size", -cache_kib)?;
    // A checkpoint inside a commit would make everybody in the batch wait for it.
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(())
}

/// Refuses a database that this program does not know to the letter; gives its schema version.
pub(super) fn check(conn: &Connection) -> Result<i64, OpenError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(0);
    let found: i64 =
        conn.query_row("select coalesce(max(number), 0) from migrations", [], |row| row.get(0))?;
    if found > known {
        return Err(OpenError::UnknownSchema { found, known });
    }
    for (number, (name, sql)) in (1_i64..=found).zip(MIGRATIONS) {
        let applied: Vec<u8> =
            conn.query_row("select sha256 from migrations where number = ?1", [number], |row| row.get(0))?;
        if applied != digest(&SHA256, sql.as_bytes()).as_ref() {
            return Err(OpenError::ChangedMigration(name.to_owned()));
        }
    }
    Ok(found)
}

fn migrate(conn: &mut Connection) -> Result<(), OpenError> {
    let application: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = conn.query_row("select count(*) from sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION_ID && tables > 0 {
        return Err(OpenError::Foreign);
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch(include_str!("sql/migrations_table.sql"))?;
    let found = check(&tx)?;
    for (number, (name, sql)) in (1_i64..).zip(MIGRATIONS).filter(|(number, _)| *number > found) {
        let sum = digest(&SHA256, sql.as_bytes());
        tx.execute_batch(sql)?;
        tx.execute(
            "insert into migrations (number, name, sha256) values (?1, ?2, ?3)",
            (number, name, sum.as_ref()),
        )?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.commit()?;
    Ok(())
}
