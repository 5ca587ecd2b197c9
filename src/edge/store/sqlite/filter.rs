//! Which random keys the index may hold: a Bloom filter of 4 MB, so that a new card does not cost searches of maps and table
//! that find nothing. It knows the keys that begin with a hash (fingerprints, idempotency keys, customers, invoices); for all others it says "perhaps".
//!
//! The writer adds what it puts; what lay in the table before is read in beside it after start, and until that is done
//! the answer is always "perhaps".

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rusqlite::Connection;

use super::{keys, runs};

/// 2^25 bits: at four bits a key, one in a hundred wrong with three million keys (a million cards).
const WORDS: usize = 1 << 19;
/// Blocks read at once while filling: a short read, so that no checkpoint waits for it.
const BLOCKS_AT_ONCE: i64 = 50;

/// The filter, shared by writer, readers and the thread that fills it.
pub(super) struct Filter {
    words: Vec<AtomicU64>,
    filled: AtomicBool,
}

impl Default for Filter {
    fn default() -> Self {
        let words = std::iter::repeat_with(AtomicU64::default).take(WORDS).collect();
        Self { words, filled: AtomicBool::new(false) }
    }
}

impl Filter {
    /// Adds a key that is being put.
    pub(super) fn add(&self, key: &[u8]) {
        for bit in bits(key).into_iter().flatten() {
            if let Some(word) = self.words.get(bit >> 6) {
                word.fetch_or(1 << (bit & 63), Ordering::Relaxed);
            }
        }
    }

    /// Whether the index may hold a key that begins like this.
    pub(super) fn may_hold(&self, key: &[u8]) -> bool {
        let Some(bits) = bits(key).filter(|_| self.filled.load(Ordering::Acquire)) else { return true };
        bits.into_iter().all(|bit| {
            let word = self.words.get(bit >> 6).map_or(u64::MAX, |word| word.load(Ordering::Relaxed));
            word & (1 << (bit & 63)) != 0
        })
    }

    /// Reads in what the table holds; stops early if told to.
    pub(super) fn fill(&self, conn: &Connection, stop: &AtomicBool) -> rusqlite::Result<()> {
        let stopped = || stop.load(Ordering::SeqCst);
        runs::each_key(conn, BLOCKS_AT_ONCE, |key| self.add(key), || !stopped())?;
        if stopped() {
            return Ok(());
        }
        self.filled.store(true, Ordering::Release);
        Ok(())
    }
}

/// Four bits from the hash that the key begins with, after its kind: it is random already.
fn bits(key: &[u8]) -> Option<[usize; 4]> {
    let (kind, rest) = key.split_first()?;
    let hash = u128::from_le_bytes(*rest.first_chunk::<16>()?);
    let bit = |at: u32| usize::try_from((hash >> (at * 25)) & 0x1ff_ffff).unwrap_or(0) ^ usize::from(*kind);
    keys::HASHED.contains(kind).then(|| [bit(0), bit(1), bit(2), bit(3)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: u8, number: u64) -> Vec<u8> {
        let hash = crate::attest::merkle::sha256(&number.to_be_bytes());
        [&[kind][..], &hash[..16], b"and more"].concat()
    }

    #[test]
    fn what_was_added_is_never_denied_and_most_else_is() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("migrations/0001_first.sql")).unwrap();
        conn.execute_batch(include_str!("migrations/0005_index_runs.sql")).unwrap();
        let mut keys: Vec<_> =
            (0..12_000).flat_map(|number| [key(b'F', number), key(b'K', number)]).collect();
        keys.sort();
        let mut run = runs::RunWriter::new(1, 0, 2_000);
        keys.iter().for_each(|key| run.push(&conn, key, Some(b"")).unwrap());
        assert!(run.finish(&conn).unwrap().unwrap().blocks() > 100);
        let filter = Filter::default();
        assert!(filter.may_hold(&key(b'F', 1_000_000)), "denied before it was filled");
        filter.fill(&conn, &AtomicBool::new(false)).unwrap();
        filter.add(&key(b'I', 5));
        assert!((0..12_000).all(|number| filter.may_hold(&key(b'F', number))));
        assert!(filter.may_hold(&key(b'I', 5)) && filter.may_hold(&key(b'K', 1_000_000)));
        let wrong = (20_000..30_000).filter(|number| filter.may_hold(&key(b'F', *number))).count();
        assert!(wrong < 20, "{wrong} of 10,000");
    }
}
