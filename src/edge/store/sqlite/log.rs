//! The audit log's part of the database: leaves in segments, and the tree's finished tiles.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

use rusqlite::{Connection, OptionalExtension, Row};

use super::apply::Salt;
use super::schema::OpenError;
use super::segment::{self, Length, Lying, Pending};
use super::span::{self, OpenSpan, Places};
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
    span: OpenSpan,
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
        let last = last_leaf(conn)?;
        let of_tenants = last_leaves_of_tenants(conn)?.into_values();
        let restored = Chain::restore(node, written, last.as_deref(), of_tenants, &StoredNodes(conn));
        let chain = restored.map_err(|error| match error {
            RestoreError::Tree(TreeError::Nodes(error)) => OpenError::Database(error),
            RestoreError::Tree(TreeError::Missing | TreeError::Range) => OpenError::Corrupt("tree"),
            RestoreError::Leaf(_) => OpenError::Corrupt("leaf"),
            RestoreError::NotTheEnd => OpenError::Corrupt("end of the log, or it is another node's"),
        })?;
        let span = OpenSpan::load(conn)?;
        Ok(Self { chain, pending: Pending::default(), span, tiles: Vec::new(), written })
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
        self.pending.write(conn, self.written, &mut self.span)?;
        for tile in self.tiles.drain(..) {
            let mut put = conn.prepare_cached(include_str!("sql/tile_put.sql"))?;
            put.execute((tile.level, to_i64(tile.index), tile.hash))?;
        }
        Ok(())
    }
}

/// The last leaf of the log.
fn last_leaf(conn: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    let last = |row: &rusqlite::Row<'_>| Ok(segment::events_of(row)?.last().map(|event| event.leaf.to_vec()));
    Ok(conn.query_row(include_str!("sql/segment_last.sql"), [], last).optional()?.flatten())
}

/// The last leaf of each tenant's part of the log.
fn last_leaves_of_tenants(conn: &Connection) -> rusqlite::Result<BTreeMap<TenantId, Vec<u8>>> {
    let end = span::end(conn)?;
    let mut last = BTreeMap::new();
    for (tenant, first) in span::last_of_tenants(conn)? {
        let mut statement = conn.prepare_cached(include_str!("sql/segments_of_tenant_back.sql"))?;
        let mut rows = statement.query((segment::in_heads(Some(tenant)), first, end))?;
        while let Some(row) = rows.next()? {
            let of_tenant = segment::events_of(row)?.filter(|event| event.tenant == Some(tenant));
            if let Some(event) = of_tenant.last() {
                last.insert(tenant, event.leaf.to_vec());
                break;
            }
        }
    }
    each_row(conn, end, |row| {
        for event in segment::events_of(row)? {
            last.extend(event.tenant.map(|tenant| (tenant, event.leaf.to_vec())));
        }
        Ok::<_, rusqlite::Error>(ControlFlow::Continue(()))
    })?;
    Ok(last)
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
    let mut out = Vec::new();
    let mut take = |event: Lying<'_>| {
        if event.seq >= from && out.len() < limit {
            out.push(event.to_stored());
        }
        if out.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    match tenant {
        None => {
            let each =
                |row: &Row<'_>| segment::events_of(row).map(|mut events| events.try_for_each(&mut take));
            each_row(conn, to_i64(from), each)?;
        }
        Some(tenant) => span::each_of_tenant(conn, tenant, to_i64(from), |places| {
            each_of_tenant(conn, tenant, (places, from), &mut take)
        })?,
    }
    Ok(out)
}

/// Gives the events of a tenant at these places, in order: those of the segment that holds `from`, and of what follows it.
fn each_of_tenant(
    conn: &Connection,
    tenant: TenantId,
    ((first, next), from): (Places, u64),
    mut each: impl FnMut(Lying<'_>) -> ControlFlow<()>,
) -> rusqlite::Result<ControlFlow<()>> {
    let mut statement = conn.prepare_cached(include_str!("sql/segments_of_tenant.sql"))?;
    let mut rows = statement.query((segment::in_heads(Some(tenant)), first, next, to_i64(from)))?;
    while let Some(row) = rows.next()? {
        let mut events = segment::events_of(row)?.filter(|event| event.tenant == Some(tenant));
        if events.try_for_each(&mut each).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// An event by its id.
pub(super) fn event(conn: &Connection, id: EventId) -> rusqlite::Result<Option<StoredEvent>> {
    let mut statement = conn.prepare_cached(include_str!("sql/segments_of_id.sql"))?;
    for (first, next) in span::of_id(conn, id)? {
        let mut rows = statement.query((id.bytes(), first, next))?;
        while let Some(row) = rows.next()? {
            if let Some(event) = segment::events_of(row)?.find(|event| event.id == id) {
                return Ok(Some(event.to_stored()));
            }
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
    each_row(conn, to_i64(range.start), |row| {
        for event in segment::events_of(row)? {
            if event.seq >= range.end {
                return Ok(ControlFlow::Break(()));
            }
            if event.seq >= range.start {
                each(event.leaf)?;
            }
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// Gives the segments from the one that holds this place on.
fn each_row<E: From<rusqlite::Error>>(
    conn: &Connection,
    from: i64,
    mut each: impl FnMut(&Row<'_>) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    let mut statement = conn.prepare_cached(include_str!("sql/segments_from.sql"))?;
    let mut rows = statement.query((from,))?;
    while let Some(row) = rows.next()? {
        if each(row)?.is_break() {
            break;
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
    const SPANS: &str = include_str!("migrations/0011_log_spans.sql");

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
        let hashes = StoredNodes(conn).leaf_hashes(size.saturating_sub(10)..size).unwrap();
        assert_eq!(hashes.len() as u64, size.min(10));
    }

    #[test]
    fn a_large_commit_is_read_back_event_by_event() {
        let conn = database(&[FIRST[0], FIRST[1], SEGMENTS, SPANS]);
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
        let conn = database(&[FIRST[0], FIRST[1], SEGMENTS, SPANS]);
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
        conn.execute_batch(SPANS).unwrap();
        check(&conn, &all);
        assert_eq!(Log::load(&conn, "n1").unwrap().chain.root(), chain.root());
        // Ten whole spans, and an event or two of each tenant behind them.
        assert_eq!(spans(&conn), (0..10).map(|span| (span * 64, span * 64 + 64, 3)).collect::<Vec<_>>());
    }

    /// The first place of each span, the one behind it, and in how many of their tenants' lists it is; the installation is none.
    fn spans(conn: &Connection) -> Vec<(i64, i64, i64)> {
        let sql = "select first, next, 1 + (select count(*) from log_span_tenants t where t.first = s.first) from log_spans s";
        let mut statement = conn.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn spans_are_written_when_they_are_full_wherever_the_store_is_opened() {
        let conn = database(&[FIRST[0], FIRST[1], SEGMENTS, SPANS]);
        let all = drafts(600);
        let (mut log, mut at) = (Log::load(&conn, "n1").unwrap(), 0);
        // Three events a segment, so that each has every tenant; a span is full after the 64th and after the 128th.
        for (number, part) in (1..).zip(all.chunks(3)) {
            log.append(part, NOW);
            log.flush(&conn).unwrap();
            log.settle();
            at += part.len();
            assert_eq!(spans(&conn).len(), number / 64);
            if [1, 63, 64, 65, 127, 128].contains(&number) {
                check(&conn, &all[..at]);
                let root = log.chain.root();
                log = Log::load(&conn, "n1").unwrap();
                assert_eq!(log.chain.root(), root);
            }
        }
        check(&conn, &all);
        assert_eq!(spans(&conn), [(0, 192, 3), (192, 384, 3), (384, 576, 3)]);
    }

    #[test]
    fn a_tenant_that_was_quiet_for_long_goes_on_where_it_was() {
        let conn = database(&[FIRST[0], FIRST[1], SEGMENTS, SPANS]);
        let mut log = Log::load(&conn, "n1").unwrap();
        let all: Vec<_> =
            (0..300).map(|number| draft(number, Some(if number == 9 { 2 } else { 1 }))).collect();
        for part in &all {
            log.append(std::slice::from_ref(part), NOW);
            log.flush(&conn).unwrap();
            log.settle();
        }
        check(&conn, &all);
        let mut again = Log::load(&conn, "n1").unwrap();
        let (next, expected) = (draft(300, Some(2)), draft(300, Some(2)));
        assert_eq!(again.chain.append(&next, NOW), log.chain.append(&expected, NOW));
    }
}
