//! The index: every key that comes at random, in one ordered map from bytes to bytes.
//!
//! ```text
//!   put ─► batch (this transaction) ─► active ─(full)─► frozen ─(written in key order, in slices)─► a run on disk
//!             └── one row of `tail` per commit ── deleted once its generation is a run      runs of a level ─► one of the next
//! ```
//! A random key in a B-tree costs a page of its own per commit, and merging many into one costs each of its pages; here a key
//! costs its length in a row appended to `tail`, and then in a block of a sorted run (a log-structured merge tree). Active and
//! frozen entries are in memory too, rebuilt from `tail` at start. A crash at any point is safe: a run that was not finished
//! is written again, and a deletion is an entry without value.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rusqlite::Connection;

use super::compact::{Compaction, Switch};
use super::filter::Filter;
use super::item::{Item, Keyed, Map, decode_batch, encode_batch};
use super::keys::{self, Key};
use super::runs::{self, LEVEL_FIRST, Run, RunWriter, Walk};

/// Entries of the active generation before it is frozen; two generations of about 120 bytes an entry are 8 MB.
const GENERATION_ENTRIES: usize = 32_768;
/// Runs of a level that are merged into one of the next.
const FANOUT: usize = 8;
/// The items of a block: two pages, with what SQLite writes beside them.
const BLOCK_BYTES: usize = 7_900;
/// How often a reader begins anew because runs that it looked at were merged meanwhile.
const TRIES_MAX: usize = 16;

/// An entry as found: key and value.
pub(super) type Entry = (Vec<u8>, Vec<u8>);

/// The generations that are not on disk yet, and what is.
#[derive(Default)]
struct Memory {
    active: Map,
    frozen: Map,
    /// The oldest first.
    runs: Arc<Vec<Arc<Run>>>,
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

/// Keys from `from` up to, without, `to`; to the end if that is empty.
#[derive(Clone)]
pub(super) struct Span {
    pub(super) from: Key,
    pub(super) to: Key,
    pub(super) order: Order,
}

impl Span {
    /// Everything.
    pub(super) const fn whole() -> Self {
        Self { from: Vec::new(), to: Vec::new(), order: Order::Ascending }
    }

    pub(super) fn is_descending(&self) -> bool {
        self.order == Order::Descending
    }

    pub(super) fn of_prefix(prefix: Key) -> Self {
        Self { to: keys::after_prefix(&prefix), from: prefix, order: Order::Ascending }
    }
}

/// Reads a key for a reader.
pub(super) fn get(shared: &Shared, conn: &Connection, key: &[u8]) -> rusqlite::Result<Option<Vec<u8>>> {
    if !shared.filter.may_hold(key) {
        return Ok(None);
    }
    again(|| {
        let (found, runs) = {
            let memory = shared.read();
            (find(&[&memory.active, &memory.frozen], key), Arc::clone(&memory.runs))
        };
        match found {
            Some(value) => Ok(value),
            None => get_written(conn, &runs, key),
        }
    })
}

/// A reader may look for a block of a run that was merged and deleted since it took the list: the list is new by then.
fn again<T>(read: impl Fn() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let mut tries = 1;
    loop {
        match read() {
            Err(rusqlite::Error::QueryReturnedNoRows) if tries < TRIES_MAX => tries += 1,
            read => return read,
        }
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
    again(|| {
        let memory = shared.read();
        merge_layers(&[&memory.active, &memory.frozen], conn, &memory.runs, &span, limit)
    })
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
    /// If this transaction commits: what becomes of the frozen generation and of the tail.
    swept: Option<Swept>,
    /// Merging runs, apart from sweeping.
    compaction: Option<Compaction>,
    /// Items that are to be merged by now.
    owed_runs: usize,
    switch: Option<Switch>,
    /// The number of the next run.
    run_next: i64,
}

/// What a slice did.
#[derive(Default)]
struct Swept {
    /// Rows of the tail that are gone.
    trimmed: usize,
    /// The frozen generation is this run now, or empty.
    written: Option<Option<Arc<Run>>>,
}

/// How much is done at once.
#[derive(Clone, Copy)]
struct Sizes {
    /// Entries of a full generation.
    generation: usize,
    /// Entries merged or trimmed at once, at the least: a small commit that brings a few does no more than that.
    slice_min: usize,
    fanout: usize,
    block_bytes: usize,
}

impl Sizes {
    const USUAL: Self =
        Self { generation: GENERATION_ENTRIES, slice_min: 128, fanout: FANOUT, block_bytes: BLOCK_BYTES };
}

/// Entries that are swept for each one that comes in: each is written and trimmed, and both have to end before the active
/// generation is full.
const PACE: usize = 3;
/// The same for runs: each entry is merged, and deleted where it was, once for each level.
const PACE_RUNS: usize = 6;

enum Sweep {
    Idle,
    /// Writing the frozen generation, after this key.
    Writing(Option<Box<[u8]>>, RunWriter),
    /// Written; its tail rows are being deleted.
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
        let all = runs::load(conn)?;
        let run_next = all.iter().map(|run| run.number).max().unwrap_or(0) + 1;
        let (active, frozen, active_from) = if map.len() < sizes.generation / 2 {
            (map, Map::new(), first.unwrap_or(next))
        } else {
            (Map::new(), map, next)
        };
        let is_idle = frozen.is_empty();
        *shared.write() = Memory { active, frozen, runs: Arc::new(all) };
        let (batch, change) = (Map::new(), Vec::new());
        let tail_first = first.unwrap_or(next);
        let mut index = Self {
            shared,
            sizes,
            batch,
            change,
            tail_next: next,
            active_from,
            tail_first,
            tail,
            owed: 0,
            sweep: Sweep::Idle,
            swept: None,
            compaction: None,
            owed_runs: 0,
            switch: None,
            run_next,
        };
        if !is_idle {
            index.sweep = Sweep::Writing(None, index.next_run());
        }
        Ok(index)
    }

    fn next_run(&mut self) -> RunWriter {
        let number = self.run_next;
        self.run_next += 1;
        RunWriter::new(number, LEVEL_FIRST, self.sizes.block_bytes)
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
        merge_layers(&layers, conn, &memory.runs, &Span::of_prefix(prefix), limit)
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

    /// Writes the batch to the tail and moves the rest on, inside the open transaction. What fails here ends this writer: another
    /// is loaded from what is on disk.
    pub(super) fn flush(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        self.mark();
        // First, so that nothing that is written after it brings an erased key back.
        self.erase_written(conn)?;
        let owed = self.owed();
        self.swept = match std::mem::replace(&mut self.sweep, Sweep::Idle) {
            Sweep::Writing(after, out) if owed >= self.sizes.slice_min => {
                Some(self.write_slice(conn, after, out, owed)?)
            }
            Sweep::Trimming if owed >= self.sizes.slice_min => Some(self.trim(conn, owed)?),
            rests @ (Sweep::Idle | Sweep::Writing(..) | Sweep::Trimming) => {
                self.sweep = rests;
                None
            }
        };
        self.merge_runs(conn)?;
        if !self.batch.is_empty() {
            conn.prepare_cached(include_str!("sql/tail_append.sql"))?
                .execute((self.tail_next, encode_batch(&self.batch)))?;
        }
        Ok(())
    }

    fn owed(&self) -> usize {
        self.owed + self.batch.len() * PACE
    }

    /// Writes some more of the frozen generation.
    fn write_slice(
        &mut self,
        conn: &Connection,
        after: Option<Box<[u8]>>,
        mut out: RunWriter,
        limit: usize,
    ) -> rusqlite::Result<Swept> {
        let shared = Arc::clone(&self.shared);
        let memory = shared.read();
        let after = after.as_deref();
        let from = after.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key as &dyn Keyed));
        let (mut last, mut count) = (None, 0);
        for item in memory.frozen.range::<dyn Keyed, _>((from, Bound::Unbounded)).take(limit) {
            let (key, value) = item.parts();
            let erased = keys::is_erased_at_once(key)
                && self.batch.get::<dyn Keyed>(&key).is_some_and(|item| item.parts().1.is_none());
            // Where there is no run, nothing is to be hidden by a deleted key.
            if !erased && (value.is_some() || !memory.runs.is_empty()) {
                out.push(conn, key, value)?;
            }
            (last, count) = (Some(key), count + 1);
        }
        match last {
            Some(key) if count == limit => {
                self.sweep = Sweep::Writing(Some(key.into()), out);
                Ok(Swept::default())
            }
            Some(_) | None => {
                self.sweep = Sweep::Trimming;
                Ok(Swept { written: Some(out.finish(conn)?), ..Swept::default() })
            }
        }
    }

    /// Merges runs of a level that has enough of them.
    fn merge_runs(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        self.owed_runs += self.batch.len() * PACE_RUNS;
        if self.owed_runs < self.sizes.slice_min * 2 {
            return Ok(());
        }
        let items = std::mem::take(&mut self.owed_runs);
        if self.compaction.is_none() {
            let runs = Arc::clone(&self.shared.read().runs);
            let begun = Compaction::begin(&runs, self.run_next, self.sizes.fanout, self.sizes.block_bytes);
            self.run_next += i64::from(begun.is_some());
            self.compaction = begun;
        }
        if let Some(compaction) = self.compaction.take() {
            (self.compaction, self.switch) = compaction.go_on(conn, items)?;
        }
        Ok(())
    }

    /// Takes what an erasure deletes out of the runs at once, and does not wait until they are merged.
    fn erase_written(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let Self { shared, batch, sweep, compaction, .. } = self;
        let memory = shared.read();
        for (key, value) in batch.iter().map(Item::parts) {
            if value.is_some() || !keys::is_erased_at_once(key) {
                continue;
            }
            for run in memory.runs.iter() {
                run.erase(conn, key, 0)?;
            }
            if let Sweep::Writing(_, out) = sweep {
                out.erase(conn, key)?;
            }
            if let Some(compaction) = compaction {
                compaction.erase(conn, key)?;
            }
        }
        Ok(())
    }

    fn trim(&mut self, conn: &Connection, limit: usize) -> rusqlite::Result<Swept> {
        let (mut to, mut entries, mut rows) = (self.tail_first, 0, 0);
        for held in &self.tail {
            if to >= self.active_from || (rows > 0 && entries + held > limit) {
                break;
            }
            (to, entries, rows) = (to + 1, entries + held, rows + 1);
        }
        conn.prepare_cached(include_str!("sql/tail_trim.sql"))?.execute((to,))?;
        self.sweep = if to >= self.active_from { Sweep::Idle } else { Sweep::Trimming };
        Ok(Swept { trimmed: rows, ..Swept::default() })
    }

    /// The transaction was rolled back before [`flush`](Self::flush).
    pub(super) fn discard(&mut self) {
        self.batch.clear();
        self.change.clear();
    }

    /// The transaction is durable: the batch becomes part of the active generation.
    pub(super) fn committed(&mut self) {
        let owed = self.owed();
        let shared = Arc::clone(&self.shared);
        let mut memory = shared.write();
        if !self.batch.is_empty() {
            self.tail_next += 1;
            self.tail.push_back(self.batch.len());
            // One by one: `append` would rebuild the whole map.
            for item in std::mem::take(&mut self.batch) {
                if item.parts().1.is_none() && keys::is_erased_at_once(item.key()) {
                    // Or it would be written yet.
                    memory.frozen.remove::<dyn Keyed>(&item.key());
                }
                memory.active.replace(item);
            }
        }
        self.owed = if matches!(self.sweep, Sweep::Idle) { 0 } else { owed };
        if let Some(swept) = self.swept.take() {
            self.owed = 0;
            if let Some(written) = swept.written {
                memory.frozen = Map::new();
                let runs = memory.runs.iter().cloned().chain(written).collect();
                memory.runs = Arc::new(runs);
            }
            self.tail.drain(..swept.trimmed);
            self.tail_first += i64::try_from(swept.trimmed).unwrap_or(0);
        }
        if let Some(Switch { gone, new }) = self.switch.take() {
            let stay = memory.runs.iter().filter(|run| !gone.contains(&run.number)).cloned();
            let mut runs: Vec<_> = stay.chain(new).collect();
            runs.sort_by_key(|run| (std::cmp::Reverse(run.level), run.number));
            memory.runs = Arc::new(runs);
        }
        if memory.active.len() >= self.sizes.generation && matches!(self.sweep, Sweep::Idle) {
            memory.frozen = std::mem::take(&mut memory.active);
            self.active_from = self.tail_next;
            self.sweep = Sweep::Writing(None, self.next_run());
        }
    }
}

/// Newest layer first. `Some(None)`: known to be deleted.
#[expect(clippy::option_option, reason = "absent, deleted and there are three different answers")]
fn find(layers: &[&Map], key: &[u8]) -> Option<Option<Vec<u8>>> {
    layers.iter().find_map(|layer| layer.get::<dyn Keyed>(&key)).map(Item::value)
}

/// The newest run that knows the key speaks.
fn get_written(conn: &Connection, runs: &[Arc<Run>], key: &[u8]) -> rusqlite::Result<Option<Vec<u8>>> {
    for run in runs.iter().rev() {
        if let Some(value) = run.get(conn, key)? {
            return Ok(value);
        }
    }
    Ok(None)
}

/// Walks all layers and runs at once in key order; where several hold a key, the newest layer, then the newest run, speaks.
fn merge_layers(
    layers: &[&Map],
    conn: &Connection,
    runs: &[Arc<Run>],
    span: &Span,
    limit: usize,
) -> rusqlite::Result<Vec<Entry>> {
    let mut out = Vec::new();
    if span.from >= span.to {
        return Ok(out);
    }
    let descending = span.is_descending();
    let (from, to) = (span.from.as_slice(), span.to.as_slice());
    let bounds = (Bound::Included(&from as &dyn Keyed), Bound::Excluded(&to as &dyn Keyed));
    let mut layers: Vec<_> = layers
        .iter()
        .map(|layer| layer.range::<dyn Keyed, _>(bounds))
        .map(|mut range| (step(&mut range, descending), range))
        .collect();
    let mut written: Vec<_> = runs.iter().rev().map(|run| Walk::new(Arc::clone(run), span.clone())).collect();
    while out.len() < limit {
        for walk in &mut written {
            walk.fill(conn)?;
        }
        let heads = layers.iter().filter_map(|(head, _)| head.map(|(key, _)| key));
        let fronts = written.iter().filter_map(|walk| walk.rows.front()).map(|(key, _)| key.as_slice());
        let heads = heads.chain(fronts);
        let Some(key) = (if descending { heads.max() } else { heads.min() }) else { break };
        let key = key.to_vec();
        let mut value = None;
        for (head, range) in &mut layers {
            if let Some((_, held)) = head.filter(|(found, _)| *found == key) {
                value = value.or(Some(held.map(<[u8]>::to_vec)));
                *head = step(range, descending);
            }
        }
        for walk in &mut written {
            if let Some((_, held)) = walk.rows.pop_front_if(|(found, _)| *found == key) {
                value = value.or(Some(held));
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicBool;

    fn database() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("migrations/0001_first.sql")).unwrap();
        conn.execute_batch(include_str!("migrations/0005_index_runs.sql")).unwrap();
        conn
    }

    /// A key that the filter knows: a kind that is erased at once or one that is not, and sixteen bytes that stand for a hash.
    fn key_of(number: u8) -> Vec<u8> {
        let kind = [b'F', b'I'][usize::from(number % 2)];
        [&[kind][..], &crate::attest::merkle::sha256(&[number])[..16]].concat()
    }

    /// What a plain map would hold.
    type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    fn check(index: &IndexWriter, shared: &Shared, conn: &Connection, model: &Model, committed: bool) {
        for kind in [b'F', b'I'] {
            let all: Vec<_> =
                model.iter().filter(|(k, _)| k[0] == kind).map(|(k, v)| (k.clone(), v.clone())).collect();
            assert_eq!(index.scan(conn, vec![kind], usize::MAX).unwrap(), all);
            assert_eq!(index.scan(conn, vec![kind], 3).unwrap(), all[..all.len().min(3)]);
            if committed {
                let span = Span { order: Order::Descending, ..Span::of_prefix(vec![kind]) };
                let expected: Vec<_> = all.iter().rev().take(5).cloned().collect();
                assert_eq!(scan(shared, conn, span, 5).unwrap(), expected);
            }
        }
        for key in (0..40).map(key_of) {
            let value = model.get(&key);
            assert_eq!(index.scan(conn, key.clone(), 2).unwrap().len(), usize::from(value.is_some()));
            assert_eq!(index.get(conn, &key).unwrap().as_ref(), value);
        }
        if committed {
            let written =
                |key: &[u8]| assert!(key[0] != b'F' || model.contains_key(key), "erased, and on disk");
            runs::each_held_key(conn, written).unwrap();
        }
    }

    #[test]
    fn what_a_table_held_is_found_in_runs() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("migrations/0001_first.sql")).unwrap();
        let tail =
            encode_batch(&Map::from([Item::new(&key_of(1), None), Item::new(&key_of(2), Some(b"new"))]));
        conn.execute(include_str!("sql/tail_append.sql"), (7, tail)).unwrap();
        for number in 0..30 {
            let entry = (key_of(number), vec![number; usize::from(number)]);
            conn.execute("insert into entries (key, value) values (?1, ?2)", entry).unwrap();
        }
        conn.execute_batch(include_str!("migrations/0005_index_runs.sql")).unwrap();
        let shared = Shared::default();
        shared.filter.fill(&conn, &AtomicBool::new(false)).unwrap();
        let sizes = Sizes { generation: 20, slice_min: 2, fanout: 2, block_bytes: 90 };
        let mut index = IndexWriter::load_with(&conn, Arc::clone(&shared), sizes).unwrap();
        let model: Model = (0..30)
            .filter(|number| *number != 1)
            .map(|n| (key_of(n), if n == 2 { b"new".to_vec() } else { vec![n; usize::from(n)] }))
            .collect();
        check(&index, &shared, &conn, &model, true);
        for round in 0..30 {
            index.put(&key_of(200), &[round]);
            index.flush(&conn).unwrap();
            index.committed();
            index.delete(&key_of(200));
            index.flush(&conn).unwrap();
            index.committed();
            check(&index, &shared, &conn, &model, true);
        }
        assert!(!shared.read().runs.is_empty());
    }

    proptest! {
        // Through commits, undone changes, failed transactions and restarts at any point of a merge.
        #[test]
        fn the_index_is_a_map(
            steps in prop::collection::vec((0_u8..10, prop::collection::vec((0_u8..40, 0_u8..4), 0..12)), 1..40),
        ) {
            let (conn, shared) = (database(), Shared::default());
            shared.filter.fill(&conn, &AtomicBool::new(false)).unwrap();
            let load = || IndexWriter::load_with(&conn, Arc::clone(&shared), Sizes { generation: 20, slice_min: 2, fanout: 2, block_bytes: 90 }).unwrap();
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
