//! The audit log's part of the database: leaves in segments, and the tree's finished tiles.

use std::ops::Range;

use rusqlite::{Connection, OptionalExtension};

use super::apply::Salt;
use super::schema::OpenError;
use super::segment::{self, Length, Pending};
use crate::attest::merkle::{Hash, leaf_hash};
use crate::card::id::EventId;
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::edge::audit::chain::{self, Chain, RestoreError};
use crate::edge::audit::event::{EventDraft, Facts};
use crate::edge::audit::tree::{Nodes, Tile, TreeError};
use crate::edge::store::StoredEvent;

/// The writer's side: the sequencer, and what it gave in this transaction.
pub(super) struct Log {
    chain: Chain,
    pending: Pending,
    tiles: Vec<Tile>,
    /// The place of the first pending leaf.
    written: u64,
}

/// A place to go back to within a transaction.
pub(super) struct Mark {
    chain: chain::Mark,
    pending: Length,
    tiles: usize,
}

impl Log {
    /// Takes up the log where it ends.
    pub(super) fn load(conn: &Connection, node: &str) -> Result<Self, OpenError> {
        let written = size(conn)?;
        let last = last_leaf(conn, None)?;
        let mut statement = conn.prepare(include_str!("sql/log_tenants_last.sql"))?;
        let tenants = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<u32>, _>>()?;
        let mut of_tenants = Vec::with_capacity(tenants.len());
        for tenant in tenants {
            of_tenants.extend(last_leaf(conn, Some(TenantId(tenant)))?);
        }
        let restored = Chain::restore(node, written, last.as_deref(), of_tenants, &StoredNodes(conn));
        let chain = restored.map_err(|error| match error {
            RestoreError::Tree(TreeError::Nodes(error)) => OpenError::Database(error),
            RestoreError::Tree(TreeError::Missing | TreeError::Range) => OpenError::Corrupt("tree"),
            RestoreError::Leaf(_) => OpenError::Corrupt("leaf"),
            RestoreError::NotTheEnd => OpenError::Corrupt("end of the log, or it is another node's"),
        })?;
        Ok(Self { chain, pending: Pending::default(), tiles: Vec::new(), written })
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { chain: self.chain.mark(), pending: self.pending.length(), tiles: self.tiles.len() }
    }

    /// Back to the mark; marks of this transaction are never stale.
    pub(super) fn rollback(&mut self, mark: Mark) -> bool {
        self.pending.truncate(mark.pending);
        self.tiles.truncate(mark.tiles);
        self.chain.rollback(mark.chain).is_ok()
    }

    /// What was written is durable.
    pub(super) fn settle(&mut self) {
        self.written = self.chain.size();
        self.chain.settle();
    }

    /// The last leaf's place; 0 in an empty log.
    pub(super) fn last_seq(&self) -> u64 {
        self.chain.size().saturating_sub(1)
    }

    /// Gives the events their places; [`flush`](Self::flush) writes them.
    pub(super) fn append(&mut self, drafts: &[EventDraft], now: Time) {
        self.append_named(drafts, None, now);
    }

    /// The same for the events of a change, which name a customer by a hash with this salt: without one, not at all.
    pub(super) fn append_named(&mut self, drafts: &[EventDraft], salt: Option<Salt>, now: Time) {
        for draft in drafts {
            let appended = match &draft.facts.customer {
                None => self.chain.append(draft, now),
                Some(keyed) => {
                    let customer = salt.map(|salt| salt.pseudonym(keyed));
                    self.chain.append_with(draft, &Facts { customer, ..draft.facts.clone() }, now)
                }
            };
            self.pending.push(draft.id, draft.tenant, &appended.leaf);
            self.tiles.extend(appended.tiles);
        }
    }

    /// Writes what was appended, inside the open transaction and before its end.
    pub(super) fn flush(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        self.pending.write(conn, self.written)?;
        for tile in self.tiles.drain(..) {
            let mut put = conn.prepare_cached(include_str!("sql/tile_put.sql"))?;
            put.execute((tile.level, to_i64(tile.index), tile.hash))?;
        }
        Ok(())
    }
}

/// The last leaf of the log, or of one tenant's part of it.
fn last_leaf(conn: &Connection, of: Option<TenantId>) -> rusqlite::Result<Option<Vec<u8>>> {
    let last = |row: &rusqlite::Row<'_>| {
        let events = segment::events_of(row)?.filter(|event| of.is_none() || event.tenant == of);
        Ok(events.last().map(|event| event.leaf.to_vec()))
    };
    let found = match of {
        None => conn.query_row(include_str!("sql/segment_last.sql"), [], last),
        // From beyond every place on, which is the tenant's last segment.
        Some(tenant) => {
            conn.query_row(include_str!("sql/segments_of_tenant.sql"), (i64::MAX, tenant.0), last)
        }
    };
    Ok(found.optional()?.flatten())
}

/// How many leaves are stored.
pub(super) fn size(conn: &Connection) -> rusqlite::Result<u64> {
    let next: i64 = conn.prepare_cached(include_str!("sql/log_size.sql"))?.query_row([], |row| row.get(0))?;
    Ok(u64::try_from(next).unwrap_or(0))
}

/// Events from `from` on, in order, at most `limit`; of one tenant if named.
pub(super) fn events(
    conn: &Connection,
    tenant: Option<TenantId>,
    from: u64,
    limit: usize,
) -> rusqlite::Result<Vec<StoredEvent>> {
    let sql = match tenant {
        None => include_str!("sql/segments_from.sql"),
        Some(_) => include_str!("sql/segments_of_tenant.sql"),
    };
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = match tenant {
        None => statement.query((to_i64(from),))?,
        Some(tenant) => statement.query((to_i64(from), tenant.0))?,
    };
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        let asked = segment::events_of(row)?
            .filter(|event| event.seq >= from && (tenant.is_none() || event.tenant == tenant));
        out.extend(asked.take(limit - out.len()).map(|event| event.to_stored()));
        if out.len() >= limit {
            break;
        }
    }
    Ok(out)
}

/// An event by its id.
pub(super) fn event(conn: &Connection, id: EventId) -> rusqlite::Result<Option<StoredEvent>> {
    let mut statement = conn.prepare_cached(include_str!("sql/segments_of_id.sql"))?;
    let mut rows = statement.query((id.bytes(),))?;
    while let Some(row) = rows.next()? {
        if let Some(event) = segment::events_of(row)?.find(|event| event.id == id) {
            return Ok(Some(event.to_stored()));
        }
    }
    Ok(None)
}

/// Gives the leaves of these places, in order.
pub(super) fn each_leaf<E: From<rusqlite::Error>>(
    conn: &Connection,
    range: Range<u64>,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut statement = conn.prepare_cached(include_str!("sql/segments_from.sql"))?;
    let mut rows = statement.query((to_i64(range.start),))?;
    while let Some(row) = rows.next()? {
        for event in segment::events_of(row)? {
            if event.seq >= range.end {
                return Ok(());
            }
            if event.seq >= range.start {
                each(event.leaf)?;
            }
        }
    }
    Ok(())
}

/// The hashes of the stored log: leaves are hashed as they are read, tiles are rows.
pub(super) struct StoredNodes<'a>(pub(super) &'a Connection);

impl Nodes for StoredNodes<'_> {
    type Error = rusqlite::Error;

    fn leaf_hashes(&self, range: Range<u64>) -> rusqlite::Result<Vec<Hash>> {
        let mut out = Vec::new();
        each_leaf(self.0, range, |leaf| {
            out.push(leaf_hash(leaf));
            Ok::<_, rusqlite::Error>(())
        })?;
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::card::id::IdBytes;
    use crate::edge::audit::event::{Actor, EventOutcome, Origin, Target};

    const NOW: Time = Time::from_micros(1_700_000_000_000_000);

    pub(in crate::edge::store::sqlite) fn draft(number: u32, tenant: Option<u32>) -> EventDraft {
        let mut id = [7; 18];
        id[..4].copy_from_slice(&number.to_be_bytes());
        EventDraft {
            id: EventId(IdBytes(id)),
            tenant: tenant.map(TenantId),
            actor: Actor::System("test".into()),
            origin: Origin::default(),
            action: "card.read",
            outcome: EventOutcome::Ok,
            target: Target { kind: "card".into(), id: "x".into(), version: None },
            keys: Vec::new(),
            facts: Facts { count: Some(u64::from(number)), ..Facts::default() },
        }
    }

    fn drafts(count: u32) -> Vec<EventDraft> {
        (0..count).map(|number| draft(number, [None, Some(1), Some(2)][number as usize % 3])).collect()
    }

    fn database(migrations: &[&str]) -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        migrations.iter().for_each(|sql| conn.execute_batch(sql).unwrap());
        conn
    }

    const FIRST: [&str; 2] =
        [include_str!("migrations/0001_first.sql"), include_str!("migrations/0002_installation.sql")];
    const SEGMENTS: &str = include_str!("migrations/0003_log_segments.sql");

    /// Everything that is asked of a log, against what was appended.
    fn check(conn: &Connection, appended: &[EventDraft]) {
        let size = appended.len() as u64;
        assert_eq!(super::size(conn).unwrap(), size);
        for tenant in [None, Some(TenantId(1)), Some(TenantId(2)), Some(TenantId(3))] {
            let of = |draft: &&EventDraft| tenant.is_none() || draft.tenant == tenant;
            for from in [0, 1, 2, 255, 256, 300, size - 1, size, size + 9] {
                let skip = usize::try_from(from).unwrap().min(appended.len());
                let expected: Vec<_> = appended[skip..].iter().filter(of).map(|draft| draft.id).collect();
                for limit in [1, 3, usize::MAX] {
                    let found = events(conn, tenant, from, limit).unwrap();
                    let ids: Vec<_> = found.iter().map(|event| event.id).collect();
                    assert_eq!(ids, expected.iter().take(limit).copied().collect::<Vec<_>>());
                }
            }
        }
        for (seq, draft) in (0..).zip(appended) {
            let found = event(conn, draft.id).unwrap().unwrap();
            assert_eq!((found.seq, found.tenant), (seq, draft.tenant));
        }
        assert_eq!(event(conn, draft(1_000_000, None).id).unwrap(), None);
        assert_eq!(StoredNodes(conn).leaf_hashes(250..260).unwrap().len(), 10);
    }

    #[test]
    fn a_large_commit_is_read_back_event_by_event() {
        let conn = database(&[FIRST[0], FIRST[1], SEGMENTS]);
        let mut log = Log::load(&conn, "n1").unwrap();
        let all = drafts(700);
        for part in [&all[..1], &all[1..600], &all[600..]] {
            log.append(part, NOW);
            log.flush(&conn).unwrap();
            log.settle();
        }
        check(&conn, &all);
        let root = log.chain.root();
        assert_eq!(Log::load(&conn, "n1").unwrap().chain.root(), root);
    }

    #[test]
    fn what_was_taken_back_is_not_written() {
        let conn = database(&[FIRST[0], FIRST[1], SEGMENTS]);
        let mut log = Log::load(&conn, "n1").unwrap();
        let all = drafts(600);
        for draft in &all {
            let mark = log.mark();
            log.append(&[draft.clone(), draft.clone()], NOW);
            assert!(log.rollback(mark));
            log.append(std::slice::from_ref(draft), NOW);
        }
        log.flush(&conn).unwrap();
        log.settle();
        check(&conn, &all);
    }

    #[test]
    fn a_log_of_rows_becomes_a_log_of_segments() {
        let conn = database(&FIRST);
        let (all, mut chain) = (drafts(700), Chain::new("n1"));
        for draft in &all {
            let appended = chain.append(draft, NOW);
            let tenant = draft.tenant.map(|tenant| tenant.0);
            conn.execute(
                "insert into events (seq, id, tenant, leaf) values (?1, ?2, ?3, ?4)",
                (to_i64(appended.seq), draft.id.bytes(), tenant, appended.leaf),
            )
            .unwrap();
            for tile in appended.tiles {
                let mut put = conn.prepare_cached(include_str!("sql/tile_put.sql")).unwrap();
                put.execute((tile.level, to_i64(tile.index), tile.hash)).unwrap();
            }
        }
        conn.execute_batch(SEGMENTS).unwrap();
        check(&conn, &all);
        assert_eq!(Log::load(&conn, "n1").unwrap().chain.root(), chain.root());
    }
}
