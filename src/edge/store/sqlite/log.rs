//! The audit log's part of the database: leaves, and the tree's finished tiles.

use std::ops::Range;

use rusqlite::{Connection, OptionalExtension};

use super::schema::OpenError;
use crate::attest::merkle::{Hash, leaf_hash};
use crate::clock::Time;
use crate::edge::audit::chain::{Chain, Mark, RestoreError};
use crate::edge::audit::event::EventDraft;
use crate::edge::audit::tree::{Nodes, TreeError};

/// The writer's side: the sequencer, and the statements that keep what it gives.
pub(super) struct Log {
    chain: Chain,
}

impl Log {
    /// Takes up the log where it ends.
    pub(super) fn load(conn: &Connection, node: &str) -> Result<Self, OpenError> {
        let size = size(conn)?;
        let last: Option<Vec<u8>> =
            conn.query_row(include_str!("sql/event_last.sql"), [], |row| row.get(0)).optional()?;
        let mut statement = conn.prepare(include_str!("sql/events_last_of_tenants.sql"))?;
        let of_tenants = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<Vec<u8>>, _>>()?;
        let restored = Chain::restore(node, size, last.as_deref(), of_tenants, &StoredNodes(conn));
        let chain = restored.map_err(|error| match error {
            RestoreError::Tree(TreeError::Nodes(error)) => OpenError::Database(error),
            RestoreError::Tree(TreeError::Missing | TreeError::Range) => OpenError::Corrupt("tree"),
            RestoreError::Leaf(_) => OpenError::Corrupt("leaf"),
            RestoreError::NotTheEnd => OpenError::Corrupt("end of the log, or it is another node's"),
        })?;
        Ok(Self { chain })
    }

    pub(super) fn mark(&self) -> Mark {
        self.chain.mark()
    }

    /// Back to the mark; marks of this transaction are never stale.
    pub(super) fn rollback(&mut self, mark: Mark) -> bool {
        self.chain.rollback(mark).is_ok()
    }

    pub(super) fn settle(&mut self) {
        self.chain.settle();
    }

    /// The last leaf's place; 0 in an empty log.
    pub(super) fn last_seq(&self) -> u64 {
        self.chain.size().saturating_sub(1)
    }

    pub(super) fn append(
        &mut self,
        conn: &Connection,
        drafts: &[EventDraft],
        now: Time,
    ) -> rusqlite::Result<()> {
        if drafts.is_empty() {
            return Ok(());
        }
        let mut insert = conn.prepare_cached(include_str!("sql/event_append.sql"))?;
        for draft in drafts {
            let appended = self.chain.append(draft, now);
            let tenant = draft.tenant.map(|tenant| tenant.0);
            insert.execute((to_i64(appended.seq), draft.id.bytes(), tenant, appended.leaf))?;
            for tile in appended.tiles {
                conn.prepare_cached(include_str!("sql/tile_put.sql"))?.execute((
                    tile.level,
                    to_i64(tile.index),
                    tile.hash,
                ))?;
            }
        }
        Ok(())
    }
}

/// How many leaves are stored.
pub(super) fn size(conn: &Connection) -> rusqlite::Result<u64> {
    let next: i64 =
        conn.prepare_cached(include_str!("sql/events_size.sql"))?.query_row([], |row| row.get(0))?;
    Ok(u64::try_from(next).unwrap_or(0))
}

/// The hashes of the stored log: leaves are hashed as they are read, tiles are rows.
pub(super) struct StoredNodes<'a>(pub(super) &'a Connection);

impl Nodes for StoredNodes<'_> {
    type Error = rusqlite::Error;

    fn leaf_hashes(&self, range: Range<u64>) -> rusqlite::Result<Vec<Hash>> {
        let mut statement = self.0.prepare_cached(include_str!("sql/events_leaves.sql"))?;
        let mut rows = statement.query((to_i64(range.start), to_i64(range.end)))?;
        let mut out = Vec::new();
        while let Some(row) = rows.next()? {
            out.push(leaf_hash(row.get_ref(0)?.as_blob()?));
        }
        Ok(out)
    }

    fn tiles(&self, level: u8, range: Range<u64>) -> rusqlite::Result<Vec<Hash>> {
        let mut statement = self.0.prepare_cached(include_str!("sql/tiles.sql"))?;
        let rows = statement
            .query_map((level, to_i64(range.start), to_i64(range.end)), |row| row.get::<_, Hash>(0))?;
        rows.collect()
    }
}

/// A sequence number for SQL; none reaches 2^63.
pub(super) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
