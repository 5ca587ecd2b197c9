//! Spans of the log: for each so many segments, what ids and which tenants' events they hold. The segments behind the last span are
//! looked through, so that a commit writes its segment and nothing beside it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use rusqlite::Connection;

use super::segment::{Head, Heads};
use crate::card::id::EventId;
use crate::card::tenant::TenantId;

/// Segments of a span. Who looks for an event of one tenant looks through as many; a migration names the number too.
const SEGMENTS: u32 = 64;

/// A span that is not full yet.
pub(super) struct OpenSpan {
    first: i64,
    segments: u32,
    id_min: [u8; 18],
    id_max: [u8; 18],
    tenants: BTreeSet<TenantId>,
}

impl OpenSpan {
    /// From this place on.
    const fn at(first: i64) -> Self {
        Self { first, segments: 0, id_min: [u8::MAX; 18], id_max: [0; 18], tenants: BTreeSet::new() }
    }

    /// What is behind the last span.
    pub(super) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let mut span = Self::at(end(conn)?);
        let mut statement = conn.prepare(include_str!("sql/segments_from.sql"))?;
        let mut rows = statement.query((span.first,))?;
        while let Some(row) = rows.next()? {
            // Where nothing is behind the last span, its last segment is what is given.
            if row.get::<_, i64>(0)? >= span.first {
                span.take(Heads(row.get_ref(1)?.as_blob()?));
            }
        }
        Ok(span)
    }

    fn take(&mut self, heads: Heads<'_>) {
        self.segments += 1;
        for Head { id, tenant, .. } in heads.iter() {
            (self.id_min, self.id_max) = (self.id_min.min(id), self.id_max.max(id));
            self.tenants.extend(tenant);
        }
    }

    /// Takes in the segment that ends before `next`; writes the span if it is full, and begins another.
    pub(super) fn push(&mut self, conn: &Connection, heads: Heads<'_>, next: i64) -> rusqlite::Result<()> {
        self.take(heads);
        if self.segments < SEGMENTS {
            return Ok(());
        }
        let Self { first, id_min, id_max, tenants, .. } = std::mem::replace(self, Self::at(next));
        conn.prepare_cached(include_str!("sql/span_append.sql"))?.execute((first, next, id_min, id_max))?;
        for tenant in tenants {
            conn.prepare_cached(include_str!("sql/span_tenant.sql"))?.execute((tenant.0, first))?;
        }
        Ok(())
    }
}

/// Where the last span ends.
pub(super) fn end(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached(include_str!("sql/spans_end.sql"))?.query_row([], |row| row.get(0))
}

/// Places of the log, from the first up to, without, the second, where segments are to be looked through.
pub(super) type Places = (i64, i64);

/// Where an event with this id can be.
pub(super) fn of_id(conn: &Connection, id: EventId) -> rusqlite::Result<Vec<Places>> {
    let mut statement = conn.prepare_cached(include_str!("sql/spans_of_id.sql"))?;
    let spans = statement.query_map((id.bytes(),), |row| Ok((row.get(0)?, row.get(1)?)))?;
    spans.chain([Ok((end(conn)?, i64::MAX))]).collect()
}

/// Gives the places, in order, where events of a tenant from `from` on can be, until told that it is enough.
pub(super) fn each_of_tenant(
    conn: &Connection,
    tenant: TenantId,
    from: i64,
    mut each: impl FnMut(Places) -> rusqlite::Result<ControlFlow<()>>,
) -> rusqlite::Result<()> {
    let mut statement = conn.prepare_cached(include_str!("sql/spans_of_tenant.sql"))?;
    // A span that is written between the two looks belongs to the first of them, not to what lies behind all spans.
    let mut behind = end(conn)?;
    let spans = statement.query_map((tenant.0, from), |row| Ok((row.get(0)?, row.get(1)?)))?;
    for places in spans {
        let places: Places = places?;
        behind = behind.max(places.1);
        if each(places)?.is_break() {
            return Ok(());
        }
    }
    each((behind, i64::MAX)).map(drop)
}

/// The last span of each tenant, by its first place.
pub(super) fn last_of_tenants(conn: &Connection) -> rusqlite::Result<Vec<(TenantId, i64)>> {
    let mut statement = conn.prepare(include_str!("sql/spans_last_of_tenants.sql"))?;
    statement.query_map([], |row| Ok((TenantId(row.get(0)?), row.get(1)?)))?.collect()
}
