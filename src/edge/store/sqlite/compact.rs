//! Merging the runs of a level into one of the next, a slice with each commit.

use std::collections::VecDeque;
use std::sync::Arc;

use rusqlite::Connection;

use super::runs::{self, Run, RunWriter, Walk};

/// Items that a block holds, about: what the deletion of one is counted as.
const BLOCK_ITEMS: usize = 100;

/// A merge under way. A crash forgets it: its blocks belong to no run and are deleted at start.
pub(super) enum Compaction {
    /// Items go into the new run.
    Merging {
        inputs: Vec<Arc<Run>>,
        walks: Vec<Walk>,
        out: RunWriter,
        /// No run is older: what is deleted needs no mention any more.
        is_oldest: bool,
    },
    /// The new run is named; the blocks of these are deleted, of the first from this one on.
    Deleting(VecDeque<Arc<Run>>, usize),
}

/// What becomes of the list of runs once the commit is durable.
pub(super) struct Switch {
    pub(super) gone: Vec<i64>,
    pub(super) new: Option<Arc<Run>>,
}

impl Compaction {
    /// Begins with the lowest level that has so many runs, if there is one.
    pub(super) fn begin(all: &[Arc<Run>], number: i64, fanout: usize, block_bytes: usize) -> Option<Self> {
        let count = |level: i64| all.iter().filter(|run| run.level == level).count();
        let level = all.iter().map(|run| run.level).filter(|level| count(*level) >= fanout).min()?;
        let inputs: Vec<_> = all.iter().filter(|run| run.level == level).map(Arc::clone).collect();
        let is_oldest = all.first().map(|run| run.level) == Some(level);
        let walks = inputs.iter().map(|run| Walk::whole(Arc::clone(run))).collect();
        let out = RunWriter::new(number, level + 1, block_bytes);
        Some(Self::Merging { inputs, walks, out, is_oldest })
    }

    /// Goes on for about so many items. `None` at the end; a switch once the new run is named.
    pub(super) fn go_on(
        self,
        conn: &Connection,
        items: usize,
    ) -> rusqlite::Result<(Option<Self>, Option<Switch>)> {
        match self {
            Self::Merging { inputs, mut walks, mut out, is_oldest } => {
                if merge(conn, &mut walks, &mut out, is_oldest, items)? {
                    return Ok((Some(Self::Merging { inputs, walks, out, is_oldest }), None));
                }
                let new = out.finish(conn)?;
                for run in &inputs {
                    conn.prepare_cached(include_str!("sql/run_delete.sql"))?.execute((run.number,))?;
                }
                let gone = inputs.iter().map(|run| run.number).collect();
                Ok((Some(Self::Deleting(inputs.into(), 0)), Some(Switch { gone, new })))
            }
            Self::Deleting(mut left, from) => {
                let Some(run) = left.front() else { return Ok((None, None)) };
                let until = run.blocks().min(from + (items / BLOCK_ITEMS).max(1));
                let range = (runs::id_of(run.number, from), runs::id_of(run.number, until));
                let is_gone = until == run.blocks();
                conn.prepare_cached(include_str!("sql/blocks_delete.sql"))?.execute(range)?;
                if is_gone {
                    left.pop_front();
                }
                let from = if is_gone { 0 } else { until };
                Ok(((!left.is_empty()).then_some(Self::Deleting(left, from)), None))
            }
        }
    }

    /// Takes an erased key out of what was merged or read so far; the inputs are runs like others.
    pub(super) fn erase(&mut self, conn: &Connection, key: &[u8]) -> rusqlite::Result<()> {
        match self {
            Self::Merging { walks, out, .. } => {
                walks.iter_mut().for_each(|walk| walk.rows.retain(|(found, _)| found != key));
                out.erase(conn, key)
            }
            Self::Deleting(left, from) => left
                .iter()
                .enumerate()
                .try_for_each(|(at, run)| run.erase(conn, key, if at == 0 { *from } else { 0 })),
        }
    }
}

/// Merges about so many items; `false` if there are no more. Where several runs hold a key the newest, the last, speaks.
fn merge(
    conn: &Connection,
    walks: &mut [Walk],
    out: &mut RunWriter,
    is_oldest: bool,
    items: usize,
) -> rusqlite::Result<bool> {
    for _ in 0..items {
        for walk in walks.iter_mut() {
            walk.fill(conn)?;
        }
        let Some(key) = walks.iter().filter_map(|walk| walk.rows.front()).map(|(key, _)| key).min().cloned()
        else {
            return Ok(false);
        };
        let mut newest = None;
        for walk in walks.iter_mut() {
            if let Some((_, value)) = walk.rows.pop_front_if(|(found, _)| *found == key) {
                newest = Some(value);
            }
        }
        let value = newest.flatten();
        if value.is_some() || !is_oldest {
            out.push(conn, &key, value.as_deref())?;
        }
    }
    Ok(true)
}
