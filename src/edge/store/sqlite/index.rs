//! The index: every key that comes at random, in one ordered map from bytes to bytes.
//!
//! ```text
//!   put ─► batch (this transaction) ─► active ─(full)─► frozen ─(merged in key order, in slices)─► table `entries`
//!             └── one row of `tail` per commit ── deleted once its generation is merged
//! ```
//! A random key in a B-tree costs a page of its own per commit; here it costs its length in a row appended to `tail`, and
//! the page only when many keys that lie together are merged. Active and frozen entries are in memory too, rebuilt from
//! `tail` at start. A crash at any point is safe: merging twice gives the same, and a deletion is an entry without value.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rusqlite::{Connection, OptionalExtension};

use super::filter::Filter;
use super::keys::{self, Key};

/// Entries of the active generation before it is frozen; two generations of about 95 bytes an entry are 12 MB.
const GENERATION_ENTRIES: usize = 65_536;

/// A layer: items by their keys.
type Map = BTreeSet<Item>;

/// One entry, ordered by its key: in one piece of memory, key length ‖ 1 if held, 0 if deleted ‖ key ‖ value (two allocations
/// and a fat pointer more for each would cost a third of the generation's length), and beside it the key's first bytes, which
/// tell nearly all keys apart without a look at that memory.
struct Item {
    head: u64,
    bytes: Box<[u8]>,
}

impl Item {
    /// Keys are shorter than 256 bytes.
    fn new(key: &[u8], value: Option<&[u8]>) -> Self {
        let held = value.unwrap_or_default();
        let mut bytes = Vec::with_capacity(2 + key.len() + held.len());
        bytes.push(u8::try_from(key.len()).unwrap_or(u8::MAX));
        bytes.push(u8::from(value.is_some()));
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(held);
        Self { head: head_of(key), bytes: bytes.into_boxed_slice() }
    }

    /// Key, and the value unless the key is deleted.
    fn parts(&self) -> (&[u8], Option<&[u8]>) {
        let Some(([key_len, held], rest)) = self.bytes.split_first_chunk::<2>() else { return (&[], None) };
        let (key, value) = rest.split_at_checked(usize::from(*key_len)).unwrap_or((rest, &[]));
        (key, (*held == 1).then_some(value))
    }

    fn value(&self) -> Option<Vec<u8>> {
        self.parts().1.map(<[u8]>::to_vec)
    }
}

/// The first eight bytes of a key, as a number of the same order; a shorter key is filled up with zeros.
fn head_of(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    head.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    u64::from_be_bytes(head)
}

/// What an item is found by.
trait Keyed {
    fn head(&self) -> u64;
    fn key(&self) -> &[u8];
}

impl Keyed for Item {
    fn head(&self) -> u64 {
        self.head
    }

    fn key(&self) -> &[u8] {
        self.parts().0
    }
}

impl Keyed for &[u8] {
    fn head(&self) -> u64 {
        head_of(self)
    }

    fn key(&self) -> &[u8] {
        self
    }
}

impl<'a> Borrow<dyn Keyed + 'a> for Item {
    fn borrow(&self) -> &(dyn Keyed + 'a) {
        self
    }
}

impl Ord for dyn Keyed + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.head().cmp(&other.head()).then_with(|| self.key().cmp(other.key()))
    }
}

impl PartialOrd for dyn Keyed + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Keyed + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for dyn Keyed + '_ {}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> Ordering {
        self.head.cmp(&other.head).then_with(|| self.key().cmp(other.key()))
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Item {}

/// An entry as found: key and value.
pub(super) type Entry = (Vec<u8>, Vec<u8>);

/// The generations that are not merged yet.
#[derive(Default)]
struct Memory {
    active: Map,
    frozen: Map,
}

/// The index's state, shared by the writer with the readers.
#[derive(Default)]
pub(super) struct InMemory {
    memory: RwLock<Memory>,
    /// What memory or table may hold.
    pub(super) filter: Filter,
}

impl InMemory {
    fn read(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle on it.
pub(super) type Shared = Arc<InMemory>;

/// Which end of a range comes first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Ascending,
    Descending,
}

/// Keys from `from` up to, without, `to`.
pub(super) struct Span {
    pub(super) from: Key,
    pub(super) to: Key,
    pub(super) order: Order,
}

impl Span {
    pub(super) fn of_prefix(prefix: Key) -> Self {
        Self { to: keys::after_prefix(&prefix), from: prefix, order: Order::Ascending }
    }
}

/// Reads a key for a reader.
pub(super) fn get(shared: &Shared, conn: &Connection, key: &[u8]) -> rusqlite::Result<Option<Vec<u8>>> {
    if !shared.filter.may_hold(key) {
        return Ok(None);
    }
    let found = {
        let memory = shared.read();
        find(&[&memory.active, &memory.frozen], key)
    };
    match found {
        Some(value) => Ok(value),
        None => get_merged(conn, key),
    }
}

/// Reads a span for a reader.
pub(super) fn scan(
    shared: &Shared,
    conn: &Connection,
    span: Span,
    limit: usize,
) -> rusqlite::Result<Vec<Entry>> {
    if !shared.filter.may_hold(&span.from) {
        return Ok(Vec::new());
    }
    let memory = shared.read();
    merge_layers(&[&memory.active, &memory.frozen], conn, span, limit)
}

/// The writer's side.
pub(super) struct IndexWriter {
    shared: Shared,
    sizes: Sizes,
    batch: Map,
    /// What the current change put, in order; it joins the batch when the next change begins.
    change: Vec<Item>,
    tail_next: i64,
    /// The first tail row of the active generation: rows before it belong to the frozen one, or are merged.
    active_from: i64,
    tail_first: i64,
    /// How many entries each row of the tail holds, from `tail_first` on.
    tail: VecDeque<usize>,
    sweep: Sweep,
    /// Entries that are to be merged or trimmed by now.
    owed: usize,
    /// If this transaction commits: what becomes of `sweep`, and how many rows of the tail are gone.
    swept: Option<(Sweep, usize)>,
}

/// How much is done at once.
#[derive(Clone, Copy)]
struct Sizes {
    /// Entries of a full generation.
    generation: usize,
    /// Entries merged or trimmed at once, at the least: a small commit that brings a few does no more than that.
    slice_min: usize,
}

impl Sizes {
    const USUAL: Self = Self { generation: GENERATION_ENTRIES, slice_min: 128 };
}

/// Entries that are swept for each one that comes in: each is merged and trimmed, and both have to end before the active
/// generation is full.
const PACE: usize = 3;

#[derive(Clone)]
enum Sweep {
    Idle,
    /// Merging the frozen generation, after this key.
    Merging(Option<Box<[u8]>>),
    /// Merged; its tail rows are being deleted.
    Trimming,
}

impl IndexWriter {
    /// Rebuilds the memory from the tail.
    pub(super) fn load(conn: &Connection, shared: Shared) -> rusqlite::Result<Self> {
        Self::load_with(conn, shared, Sizes::USUAL)
    }

    fn load_with(conn: &Connection, shared: Shared, sizes: Sizes) -> rusqlite::Result<Self> {
        let mut map = Map::new();
        let (mut first, mut next, mut tail) = (None, 1, VecDeque::new());
        let mut rows = conn.prepare(include_str!("sql/tail_all.sql"))?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            first = first.or(Some(seq));
            next = seq + 1;
            tail.push_back(decode_batch(row.get_ref(1)?.as_blob()?, &mut map));
        }
        map.iter().for_each(|item| shared.filter.add(item.parts().0));
        let (active, frozen, sweep, active_from) = if map.len() < sizes.generation / 2 {
            (map, Map::new(), Sweep::Idle, first.unwrap_or(next))
        } else {
            (Map::new(), map, Sweep::Merging(None), next)
        };
        *shared.write() = Memory { active, frozen };
        let (batch, change) = (Map::new(), Vec::new());
        let tail_first = first.unwrap_or(next);
        Ok(Self {
            shared,
            sizes,
            batch,
            change,
            tail_next: next,
            active_from,
            tail_first,
            tail,
            owed: 0,
            sweep,
            swept: None,
        })
    }

    pub(super) fn get(&self, conn: &Connection, key: &[u8]) -> rusqlite::Result<Option<Vec<u8>>> {
        if let Some(item) = self.change.iter().rev().find(|item| item.key() == key) {
            return Ok(item.value());
        }
        if let Some(item) = self.batch.get::<dyn Keyed>(&key) {
            return Ok(item.value());
        }
        get(&self.shared, conn, key)
    }

    /// The first entries of a prefix, in order of their keys.
    pub(super) fn scan(&self, conn: &Connection, prefix: Key, limit: usize) -> rusqlite::Result<Vec<Entry>> {
        if !self.shared.filter.may_hold(&prefix) {
            return Ok(Vec::new());
        }
        let mut change = Map::new();
        for (key, value) in self.change.iter().map(Item::parts) {
            change.replace(Item::new(key, value));
        }
        let memory = self.shared.read();
        let layers = [&change, &self.batch, &memory.active, &memory.frozen];
        merge_layers(&layers, conn, Span::of_prefix(prefix), limit)
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        self.set(key, Some(value));
    }

    pub(super) fn delete(&mut self, key: &[u8]) {
        self.set(key, None);
    }

    fn set(&mut self, key: &[u8], value: Option<&[u8]>) {
        if value.is_some() {
            self.shared.filter.add(key);
        }
        self.change.push(Item::new(key, value));
    }

    /// A change begins: what [`undo`](Self::undo) goes back to.
    pub(super) fn mark(&mut self) {
        for item in self.change.drain(..) {
            self.batch.replace(item);
        }
    }

    /// Takes back what was put since the mark.
    pub(super) fn undo(&mut self) {
        self.change.clear();
    }

    /// Writes the batch to the tail and moves the merge on, inside the open transaction.
    pub(super) fn flush(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        self.mark();
        let owed = self.owed();
        self.swept = match &self.sweep {
            Sweep::Merging(after) if owed >= self.sizes.slice_min => {
                Some((self.merge_slice(conn, after.as_deref(), owed)?, 0))
            }
            Sweep::Trimming if owed >= self.sizes.slice_min => Some(self.trim(conn, owed)?),
            Sweep::Idle | Sweep::Merging(_) | Sweep::Trimming => None,
        };
        if !self.batch.is_empty() {
            conn.prepare_cached(include_str!("sql/tail_append.sql"))?
                .execute((self.tail_next, encode_batch(&self.batch)))?;
        }
        Ok(())
    }

    fn owed(&self) -> usize {
        self.owed + self.batch.len() * PACE
    }

    fn merge_slice(&self, conn: &Connection, after: Option<&[u8]>, limit: usize) -> rusqlite::Result<Sweep> {
        let memory = self.shared.read();
        let from = after.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key as &dyn Keyed));
        let mut put = conn.prepare_cached(include_str!("sql/entry_put.sql"))?;
        let mut delete = conn.prepare_cached(include_str!("sql/entry_delete.sql"))?;
        let mut last = None;
        let mut merged = 0;
        for item in memory.frozen.range::<dyn Keyed, _>((from, Bound::Unbounded)).take(limit) {
            let (key, value) = item.parts();
            match value {
                Some(value) => put.execute((key, value))?,
                None => delete.execute((key,))?,
            };
            last = Some(key);
            merged += 1;
        }
        Ok(match last {
            Some(key) if merged == limit => Sweep::Merging(Some(key.into())),
            Some(_) | None => Sweep::Trimming,
        })
    }

    fn trim(&self, conn: &Connection, limit: usize) -> rusqlite::Result<(Sweep, usize)> {
        let (mut to, mut entries, mut rows) = (self.tail_first, 0, 0);
        for held in &self.tail {
            if to >= self.active_from || (rows > 0 && entries + held > limit) {
                break;
            }
            (to, entries, rows) = (to + 1, entries + held, rows + 1);
        }
        conn.prepare_cached(include_str!("sql/tail_trim.sql"))?.execute((to,))?;
        Ok((if to >= self.active_from { Sweep::Idle } else { Sweep::Trimming }, rows))
    }

    /// The transaction was rolled back before [`flush`](Self::flush).
    pub(super) fn discard(&mut self) {
        self.batch.clear();
        self.change.clear();
    }

    /// The transaction is durable: the batch becomes part of the active generation.
    pub(super) fn committed(&mut self) {
        let owed = self.owed();
        let mut memory = self.shared.write();
        if !self.batch.is_empty() {
            self.tail_next += 1;
            self.tail.push_back(self.batch.len());
            // One by one: `append` would rebuild the whole map.
            for item in std::mem::take(&mut self.batch) {
                memory.active.replace(item);
            }
        }
        self.owed = if matches!(self.sweep, Sweep::Idle) { 0 } else { owed };
        if let Some((next, trimmed)) = self.swept.take() {
            if matches!(self.sweep, Sweep::Merging(_)) && matches!(next, Sweep::Trimming) {
                memory.frozen = Map::new();
            }
            self.tail.drain(..trimmed);
            self.tail_first += i64::try_from(trimmed).unwrap_or(0);
            (self.sweep, self.owed) = (next, 0);
        }
        if memory.active.len() >= self.sizes.generation && matches!(self.sweep, Sweep::Idle) {
            memory.frozen = std::mem::take(&mut memory.active);
            self.active_from = self.tail_next;
            self.sweep = Sweep::Merging(None);
        }
    }
}

/// Newest layer first. `Some(None)`: known to be deleted.
#[expect(clippy::option_option, reason = "absent, deleted and there are three different answers")]
fn find(layers: &[&Map], key: &[u8]) -> Option<Option<Vec<u8>>> {
    layers.iter().find_map(|layer| layer.get::<dyn Keyed>(&key)).map(Item::value)
}

fn get_merged(conn: &Connection, key: &[u8]) -> rusqlite::Result<Option<Vec<u8>>> {
    conn.prepare_cached(include_str!("sql/entry_get.sql"))?.query_row((key,), |row| row.get(0)).optional()
}

/// Walks all layers and the table at once in key order; where several hold a key, the newest layer speaks.
fn merge_layers(
    layers: &[&Map],
    conn: &Connection,
    span: Span,
    limit: usize,
) -> rusqlite::Result<Vec<Entry>> {
    let mut out = Vec::new();
    if span.from >= span.to {
        return Ok(out);
    }
    let descending = span.order == Order::Descending;
    let (from, to) = (span.from.clone(), span.to.clone());
    let (from, to) = (from.as_slice(), to.as_slice());
    let bounds = (Bound::Included(&from as &dyn Keyed), Bound::Excluded(&to as &dyn Keyed));
    let mut walks: Vec<_> = layers
        .iter()
        .map(|layer| layer.range::<dyn Keyed, _>(bounds))
        .map(|mut range| (step(&mut range, descending), range))
        .collect();
    let mut table = TableWalk { rows: VecDeque::new(), span, chunk: limit.clamp(1, 256), ended: false };
    while out.len() < limit {
        table.fill(conn)?;
        let heads = walks.iter().filter_map(|(head, _)| head.map(|(key, _)| key));
        let heads = heads.chain(table.rows.front().map(|(key, _)| key.as_slice()));
        let Some(key) = (if descending { heads.max() } else { heads.min() }) else { break };
        let key = key.to_vec();
        let mut value = None;
        for (head, range) in &mut walks {
            if let Some((_, held)) = head.filter(|(found, _)| *found == key) {
                value = value.or(Some(held.map(<[u8]>::to_vec)));
                *head = step(range, descending);
            }
        }
        if let Some((_, merged)) = table.rows.pop_front_if(|(found, _)| *found == key) {
            value = value.or(Some(Some(merged)));
        }
        if let Some(Some(value)) = value {
            out.push((key, value));
        }
    }
    Ok(out)
}

type Head<'a> = Option<(&'a [u8], Option<&'a [u8]>)>;

fn step<'a>(range: &mut std::collections::btree_set::Range<'a, Item>, descending: bool) -> Head<'a> {
    let next = if descending { range.next_back() } else { range.next() };
    next.map(Item::parts)
}

/// The table's part of a walk, read in chunks.
struct TableWalk {
    rows: VecDeque<Entry>,
    span: Span,
    chunk: usize,
    ended: bool,
}

impl TableWalk {
    fn fill(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        if self.ended || !self.rows.is_empty() {
            return Ok(());
        }
        let sql = match self.span.order {
            Order::Ascending => include_str!("sql/entries_ascending.sql"),
            Order::Descending => include_str!("sql/entries_descending.sql"),
        };
        let limit = i64::try_from(self.chunk).unwrap_or(i64::MAX);
        let mut statement = conn.prepare_cached(sql)?;
        let rows = statement.query_map((&self.span.from, &self.span.to, limit), |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?))
        })?;
        for row in rows {
            self.rows.push_back(row?);
        }
        self.ended = self.rows.len() < self.chunk;
        if let Some((last, _)) = self.rows.back() {
            match self.span.order {
                Order::Ascending => {
                    self.span.from.clone_from(last);
                    self.span.from.push(0);
                }
                Order::Descending => self.span.to.clone_from(last),
            }
        }
        Ok(())
    }
}

const DELETED: u32 = u32::MAX;

/// For each entry: key length u16 ‖ value length u32 (all ones: deleted) ‖ key ‖ value, little-endian.
fn encode_batch(batch: &Map) -> Vec<u8> {
    let mut out = Vec::with_capacity(batch.len() * 80);
    for (key, value) in batch.iter().map(Item::parts) {
        let value_len = value.map_or(DELETED, |v| u32::try_from(v.len()).unwrap_or(DELETED - 1));
        out.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(&value_len.to_le_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(value.unwrap_or_default());
    }
    out
}

/// How many entries it held.
fn decode_batch(mut bytes: &[u8], into: &mut Map) -> usize {
    let mut entries = 0;
    while let Some((lengths, rest)) = bytes.split_first_chunk::<6>() {
        let [a, b, c, d, e, f] = *lengths;
        let key_len = usize::from(u16::from_le_bytes([a, b]));
        let value_len = u32::from_le_bytes([c, d, e, f]);
        let held_len =
            if value_len == DELETED { 0 } else { usize::try_from(value_len).unwrap_or(usize::MAX) };
        let Some((key, rest)) = rest.split_at_checked(key_len) else { break };
        let Some((value, rest)) = rest.split_at_checked(held_len) else { break };
        into.replace(Item::new(key, (value_len != DELETED).then_some(value)));
        (bytes, entries) = (rest, entries + 1);
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicBool;

    fn database() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("migrations/0001_first.sql")).unwrap();
        conn
    }

    /// A key that the filter knows: kind, and sixteen bytes that stand for a hash.
    fn key_of(number: u8) -> Vec<u8> {
        [&[b'F'][..], &crate::attest::merkle::sha256(&[number])[..16]].concat()
    }

    /// What a plain map would hold.
    type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    fn check(index: &IndexWriter, shared: &Shared, conn: &Connection, model: &Model, committed: bool) {
        let all = |limit| model.iter().take(limit).map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>();
        assert_eq!(index.scan(conn, vec![b'F'], usize::MAX).unwrap(), all(usize::MAX));
        assert_eq!(index.scan(conn, vec![b'F'], 3).unwrap(), all(3));
        for key in (0..40).map(key_of) {
            let of_key = |limit| {
                all(usize::MAX).into_iter().filter(|(k, _)| *k == key).take(limit).collect::<Vec<_>>()
            };
            assert_eq!(index.scan(conn, key.clone(), 2).unwrap(), of_key(2));
            assert_eq!(index.get(conn, &key).unwrap().as_ref(), model.get(&key));
        }
        if committed {
            let span = Span { order: Order::Descending, ..Span::of_prefix(vec![b'F']) };
            let mut backwards = scan(shared, conn, span, 5).unwrap();
            let expected: Vec<_> = model.iter().rev().take(5).map(|(k, v)| (k.clone(), v.clone())).collect();
            assert_eq!(std::mem::take(&mut backwards), expected);
        }
    }

    proptest! {
        // Through commits, undone changes, failed transactions and restarts at any point of a merge.
        #[test]
        fn the_index_is_a_map(
            steps in prop::collection::vec((0_u8..10, prop::collection::vec((0_u8..40, 0_u8..4), 0..12)), 1..40),
        ) {
            let (conn, shared) = (database(), Shared::default());
            shared.filter.fill(&conn, &AtomicBool::new(false)).unwrap();
            let load = || IndexWriter::load_with(&conn, Arc::clone(&shared), Sizes { generation: 20, slice_min: 2 }).unwrap();
            let (mut index, mut model) = (load(), Model::new());
            for (kind, changes) in steps {
                conn.execute_batch("begin").unwrap();
                let before = model.clone();
                for (at, (key, value)) in changes.into_iter().enumerate() {
                    let key = key_of(key);
                    index.mark();
                    let undone = kind == 7 && at % 2 == 0;
                    if value == 0 {
                        index.delete(&key);
                        if !undone { model.remove(&key); }
                    } else {
                        index.put(&key, &[value]);
                        if !undone { model.insert(key, vec![value]); }
                    }
                    if undone {
                        index.undo();
                    }
                }
                check(&index, &shared, &conn, &model, false);
                index.flush(&conn).unwrap();
                if kind == 8 {
                    // The transaction failed: everything is rebuilt.
                    conn.execute_batch("rollback").unwrap();
                    model = before;
                    index = load();
                } else {
                    conn.execute_batch("commit").unwrap();
                    index.committed();
                    if kind == 9 {
                        index = load();
                    }
                }
                check(&index, &shared, &conn, &model, true);
            }
        }
    }
}
