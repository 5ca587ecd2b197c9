//! Sorted runs: the part of the index that has left memory.
//!
//! A run is a list of blocks of items in the order of their keys. It is written once and never changed, but for keys that are
//! erased; runs of a level are merged into one of the next level. What no run names (a crash left it) is deleted at start.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use super::index::Span;

/// The level of runs that are a generation each.
pub(super) const LEVEL_FIRST: i64 = 0;
const DELETED: u16 = u16::MAX;
const ITEM_HEAD_BYTES: usize = 3;

/// A key with its value; none for a deleted key.
pub(super) type Held = (Vec<u8>, Option<Vec<u8>>);

/// One run, and where its blocks begin.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) number: i64,
    pub(super) level: i64,
    firsts: Vec<Box<[u8]>>,
}

impl Run {
    /// The block that holds `key`, if the run does.
    fn block_of(&self, key: &[u8]) -> Option<usize> {
        self.firsts.partition_point(|first| **first <= *key).checked_sub(1)
    }

    pub(super) fn blocks(&self) -> usize {
        self.firsts.len()
    }

    /// What the run says of a key. `Some(None)`: that it is deleted.
    #[expect(clippy::option_option, reason = "absent, deleted and there are three different answers")]
    pub(super) fn get(&self, conn: &Connection, key: &[u8]) -> rusqlite::Result<Option<Option<Vec<u8>>>> {
        let Some(block) = self.block_of(key) else { return Ok(None) };
        let items = read_block(conn, self.number, block)?;
        let found = items_of(&items).find(|(found, _)| *found >= key).filter(|(found, _)| *found == key);
        Ok(found.map(|(_, value)| value.map(<[u8]>::to_vec)))
    }

    /// Takes a key out of its block, if it is there: what is erased must not wait for a merge. The blocks before `from` are gone.
    pub(super) fn erase(&self, conn: &Connection, key: &[u8], from: usize) -> rusqlite::Result<()> {
        match self.block_of(key).filter(|block| *block >= from) {
            Some(block) => erase_in(conn, self.number, block, key),
            None => Ok(()),
        }
    }
}

fn erase_in(conn: &Connection, run: i64, block: usize, key: &[u8]) -> rusqlite::Result<()> {
    let items = read_block(conn, run, block)?;
    if !items_of(&items).any(|(found, _)| found == key) {
        return Ok(());
    }
    let mut rest = Vec::with_capacity(items.len());
    items_of(&items).filter(|(found, _)| *found != key).for_each(|(key, value)| push(&mut rest, key, value));
    conn.prepare_cached(include_str!("sql/block_update.sql"))?.execute((id_of(run, block), rest))?;
    Ok(())
}

/// All runs, the oldest first; deletes the blocks that belong to none.
pub(super) fn load(conn: &Connection) -> rusqlite::Result<Vec<Arc<Run>>> {
    let mut statement = conn.prepare(include_str!("sql/runs_all.sql"))?;
    let read = |row: &rusqlite::Row<'_>| {
        let firsts = firsts_of(row.get_ref(2)?.as_blob()?);
        Ok(Arc::new(Run { number: row.get(0)?, level: row.get(1)?, firsts }))
    };
    let runs = statement.query_map([], read)?.collect::<Result<Vec<_>, _>>()?;
    let named: HashSet<i64> = runs.iter().map(|run| run.number).collect();
    let mut from = 0;
    loop {
        let next =
            conn.query_row(include_str!("sql/block_next.sql"), (from,), |row| row.get::<_, Option<i64>>(0))?;
        let Some(id) = next else { return Ok(runs) };
        let number = id >> 32;
        if !named.contains(&number) {
            conn.execute(include_str!("sql/blocks_delete.sql"), (id_of(number, 0), id_of(number + 1, 0)))?;
        }
        from = id_of(number + 1, 0);
    }
}

/// Gives every key on disk, a few blocks at a time; `true` goes on.
pub(super) fn each_key(
    conn: &Connection,
    blocks_at_once: i64,
    mut each: impl FnMut(&[u8]),
    goes_on: impl Fn() -> bool,
) -> rusqlite::Result<()> {
    let mut after: i64 = -1;
    while goes_on() {
        let mut statement = conn.prepare_cached(include_str!("sql/blocks_after.sql"))?;
        let mut rows = statement.query((after, blocks_at_once))?;
        let before = after;
        while let Some(row) = rows.next()? {
            after = row.get(0)?;
            items_of(row.get_ref(1)?.as_blob()?).for_each(|(key, _)| each(key));
        }
        if after == before {
            return Ok(());
        }
    }
    Ok(())
}

/// Writes a run, block after block.
pub(super) struct RunWriter {
    number: i64,
    level: i64,
    block_bytes: usize,
    firsts: Vec<Box<[u8]>>,
    first: Option<Box<[u8]>>,
    items: Vec<u8>,
}

impl RunWriter {
    pub(super) fn new(number: i64, level: i64, block_bytes: usize) -> Self {
        Self { number, level, block_bytes, firsts: Vec::new(), first: None, items: Vec::new() }
    }

    /// Appends an item; keys come in order.
    pub(super) fn push(
        &mut self,
        conn: &Connection,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> rusqlite::Result<()> {
        self.first.get_or_insert_with(|| key.into());
        push(&mut self.items, key, value);
        if self.items.len() >= self.block_bytes { self.write(conn) } else { Ok(()) }
    }

    fn write(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let Some(first) = self.first.take() else { return Ok(()) };
        let id = id_of(self.number, self.firsts.len());
        conn.prepare_cached(include_str!("sql/block_insert.sql"))?.execute((id, &self.items))?;
        self.items.clear();
        self.firsts.push(first);
        Ok(())
    }

    /// Takes an erased key out of what was written so far.
    pub(super) fn erase(&mut self, conn: &Connection, key: &[u8]) -> rusqlite::Result<()> {
        let mut rest = Vec::with_capacity(self.items.len());
        items_of(&self.items)
            .filter(|(found, _)| *found != key)
            .for_each(|(key, value)| push(&mut rest, key, value));
        self.items = rest;
        match self.firsts.partition_point(|first| **first <= *key).checked_sub(1) {
            Some(block) => erase_in(conn, self.number, block, key),
            None => Ok(()),
        }
    }

    /// Writes the rest and names the run; none if nothing was pushed.
    pub(super) fn finish(mut self, conn: &Connection) -> rusqlite::Result<Option<Arc<Run>>> {
        self.write(conn)?;
        if self.firsts.is_empty() {
            return Ok(None);
        }
        let mut firsts = Vec::new();
        for first in &self.firsts {
            firsts.push(u8::try_from(first.len()).unwrap_or(u8::MAX));
            firsts.extend_from_slice(first);
        }
        conn.prepare_cached(include_str!("sql/run_insert.sql"))?.execute((
            self.number,
            self.level,
            firsts,
        ))?;
        Ok(Some(Arc::new(Run { number: self.number, level: self.level, firsts: self.firsts })))
    }
}

/// A walk over a run's items, block after block.
pub(super) struct Walk {
    run: Arc<Run>,
    /// The next block, if there is one.
    next: Option<usize>,
    span: Span,
    pub(super) rows: VecDeque<Held>,
}

impl Walk {
    pub(super) fn new(run: Arc<Run>, span: Span) -> Self {
        let next = if span.is_descending() {
            run.firsts.partition_point(|first| **first < *span.to).checked_sub(1)
        } else {
            Some(run.block_of(&span.from).unwrap_or(0)).filter(|_| run.blocks() > 0)
        };
        Self { run, next, span, rows: VecDeque::new() }
    }

    /// A walk over all of it.
    pub(super) fn whole(run: Arc<Run>) -> Self {
        Self::new(run, Span::whole())
    }

    /// Sees to it that the next item is there, unless the walk has ended.
    pub(super) fn fill(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        while self.rows.is_empty()
            && let Some(block) = self.next
        {
            let items = read_block(conn, self.run.number, block)?;
            let (from, to) = (self.span.from.as_slice(), self.span.to.as_slice());
            let within = items_of(&items).filter(|(key, _)| *key >= from && (to.is_empty() || *key < to));
            let held = within.map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)));
            if self.span.is_descending() {
                held.for_each(|held| self.rows.push_front(held));
                let first = self.run.firsts.get(block).filter(|first| ***first > *from);
                self.next = first.and_then(|_| block.checked_sub(1));
            } else {
                self.rows.extend(held);
                let after = self.run.firsts.get(block + 1);
                self.next = after.filter(|first| to.is_empty() || ***first < *to).map(|_| block + 1);
            }
        }
        Ok(())
    }
}

/// A block's row; one that is gone was merged meanwhile.
fn read_block(conn: &Connection, run: i64, block: usize) -> rusqlite::Result<Vec<u8>> {
    let mut statement = conn.prepare_cached(include_str!("sql/block_get.sql"))?;
    let items = statement.query_row((id_of(run, block),), |row| row.get(0)).optional()?;
    items.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

/// The id of a run's block.
pub(super) fn id_of(run: i64, block: usize) -> i64 {
    run << 32 | i64::try_from(block).unwrap_or(i64::MAX)
}

fn push(items: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    let length = value.map_or(DELETED, |value| u16::try_from(value.len()).unwrap_or(DELETED - 1));
    items.push(u8::try_from(key.len()).unwrap_or(u8::MAX));
    items.extend_from_slice(&length.to_be_bytes());
    items.extend_from_slice(key);
    items.extend_from_slice(value.unwrap_or_default());
}

fn items_of(mut items: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    std::iter::from_fn(move || {
        let ([key_len, high, low], rest) = items.split_first_chunk::<ITEM_HEAD_BYTES>()?;
        let length = u16::from_be_bytes([*high, *low]);
        let (key, rest) = rest.split_at_checked(usize::from(*key_len))?;
        let held = if length == DELETED { 0 } else { usize::from(length) };
        let (value, rest) = rest.split_at_checked(held)?;
        items = rest;
        Some((key, (length != DELETED).then_some(value)))
    })
}

fn firsts_of(mut bytes: &[u8]) -> Vec<Box<[u8]>> {
    let mut firsts = Vec::new();
    while let Some((length, rest)) = bytes.split_first()
        && let Some((first, rest)) = rest.split_at_checked(usize::from(*length))
    {
        firsts.push(first.into());
        bytes = rest;
    }
    firsts
}

/// Gives every key that some block holds with a value.
#[cfg(test)]
pub(super) fn each_held_key(conn: &Connection, mut each: impl FnMut(&[u8])) -> rusqlite::Result<()> {
    let mut statement = conn.prepare_cached(include_str!("sql/blocks_after.sql"))?;
    let mut rows = statement.query((-1, i64::MAX))?;
    while let Some(row) = rows.next()? {
        let held = items_of(row.get_ref(1)?.as_blob()?).filter(|(_, value)| value.is_some());
        held.for_each(|(key, _)| each(key));
    }
    Ok(())
}
