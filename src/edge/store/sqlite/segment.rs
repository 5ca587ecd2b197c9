//! A segment of the log: the events that were committed together, as one row.
//!
//! ```text
//!   heads   id (18) ‖ tenant (8, big-endian, ff… for none) ‖ length of the leaf (4, big-endian), for each event
//!   leaves  the leaves one after another
//! ```

use rusqlite::{Connection, Row};

use super::log::to_i64;
use super::span::OpenSpan;
use crate::card::id::{EventId, IdBytes};
use crate::card::tenant::TenantId;
use crate::edge::store::StoredEvent;

const HEAD_BYTES: usize = 30;
/// Events of one row: a row has to be read whole to give one of its events.
const EVENTS_MAX: usize = 256;
const NO_TENANT: u64 = u64::MAX;

/// Events that wait to be written, from some place of the log on.
#[derive(Default)]
pub(super) struct Pending {
    heads: Vec<u8>,
    leaves: Vec<u8>,
}

/// How much was pending.
#[derive(Clone, Copy)]
pub(super) struct Length {
    heads: usize,
    leaves: usize,
}

impl Pending {
    pub(super) fn push(&mut self, id: EventId, tenant: Option<TenantId>, leaf: &[u8]) {
        let length = u32::try_from(leaf.len()).unwrap_or(u32::MAX);
        self.heads.extend_from_slice(id.bytes());
        self.heads.extend_from_slice(&in_heads(tenant));
        self.heads.extend_from_slice(&length.to_be_bytes());
        self.leaves.extend_from_slice(leaf);
    }

    pub(super) const fn length(&self) -> Length {
        Length { heads: self.heads.len(), leaves: self.leaves.len() }
    }

    /// Forgets what was pushed since.
    pub(super) fn truncate(&mut self, to: Length) {
        self.heads.truncate(to.heads);
        self.leaves.truncate(to.leaves);
    }

    /// Writes all of it as the log's end, whose next place is `first`, and forgets it.
    pub(super) fn write(
        &mut self,
        conn: &Connection,
        mut first: u64,
        span: &mut OpenSpan,
    ) -> rusqlite::Result<()> {
        let mut append = conn.prepare_cached(include_str!("sql/segment_append.sql"))?;
        let mut rest = self.leaves.as_slice();
        for heads in self.heads.chunks(EVENTS_MAX * HEAD_BYTES).map(Heads) {
            let (mut bytes, mut count) = (0, 0);
            let (mut id_min, mut id_max) = ([u8::MAX; 18], [0; 18]);
            for head in heads.iter() {
                (id_min, id_max) = (id_min.min(head.id), id_max.max(head.id));
                (bytes, count) = (bytes + head.leaf_bytes, count + 1);
            }
            let (leaves, after) = rest.split_at_checked(bytes).unwrap_or((rest, &[]));
            let place = to_i64(first);
            append.execute((place, to_i64(count), id_min, id_max, heads.0, leaves))?;
            (first, rest) = (first + count, after);
            span.push(conn, heads, to_i64(first))?;
        }
        self.truncate(Length { heads: 0, leaves: 0 });
        Ok(())
    }
}

/// The heads of a segment's events.
#[derive(Clone, Copy)]
pub(super) struct Heads<'a>(pub(super) &'a [u8]);

impl<'a> Heads<'a> {
    pub(super) fn iter(self) -> impl Iterator<Item = Head> + use<'a> {
        self.0.chunks_exact(HEAD_BYTES).filter_map(Head::read)
    }
}

/// What stands in front for each event.
pub(super) struct Head {
    pub(super) id: [u8; 18],
    pub(super) tenant: Option<TenantId>,
    leaf_bytes: usize,
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk::<18>()?;
        let (tenant, rest) = rest.split_first_chunk::<8>()?;
        let length = u32::from_be_bytes(*rest.first_chunk::<4>()?);
        let leaf_bytes = usize::try_from(length).ok()?;
        let tenant = u32::try_from(u64::from_be_bytes(*tenant)).ok().map(TenantId);
        Some(Self { id: *id, tenant, leaf_bytes })
    }
}

/// How a tenant stands in the heads of its events.
pub(super) fn in_heads(tenant: Option<TenantId>) -> [u8; 8] {
    tenant.map_or(NO_TENANT, |tenant| u64::from(tenant.0)).to_be_bytes()
}

/// An event as it lies in its segment.
pub(super) struct Lying<'a> {
    pub(super) seq: u64,
    pub(super) id: EventId,
    pub(super) tenant: Option<TenantId>,
    pub(super) leaf: &'a [u8],
}

impl Lying<'_> {
    pub(super) fn to_stored(&self) -> StoredEvent {
        StoredEvent { seq: self.seq, id: self.id, tenant: self.tenant, leaf: self.leaf.to_vec() }
    }
}

/// The events of a row `first, heads, leaves`, in order; a row that is not whole ends early.
pub(super) fn events_of<'a>(row: &'a Row<'_>) -> rusqlite::Result<impl Iterator<Item = Lying<'a>>> {
    let first: i64 = row.get(0)?;
    let mut seq = u64::try_from(first).unwrap_or(0);
    let heads = row.get_ref(1)?.as_blob()?;
    let mut leaves = row.get_ref(2)?.as_bytes()?;
    Ok(heads.chunks_exact(HEAD_BYTES).map_while(move |bytes| {
        let head = Head::read(bytes)?;
        let (leaf, rest) = leaves.split_at_checked(head.leaf_bytes)?;
        let lying = Lying { seq, id: EventId(IdBytes(head.id)), tenant: head.tenant, leaf };
        (seq, leaves) = (seq + 1, rest);
        Some(lying)
    }))
}
