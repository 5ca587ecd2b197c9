//! An entry of the index in memory, and the order of entries.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// A layer: items by their keys.
pub(super) type Map = BTreeSet<Item>;

/// One entry, ordered by its key: in one piece of memory, key length ‖ 1 if held, 0 if deleted ‖ key ‖ value (two allocations
/// and a fat pointer more for each would cost a third of the generation's length), and beside it the key's first bytes, which
/// tell nearly all keys apart without a look at that memory.
pub(super) struct Item {
    head: u64,
    bytes: Box<[u8]>,
}

impl Item {
    /// Keys are shorter than 256 bytes.
    pub(super) fn new(key: &[u8], value: Option<&[u8]>) -> Self {
        let held = value.unwrap_or_default();
        let mut bytes = Vec::with_capacity(2 + key.len() + held.len());
        bytes.push(u8::try_from(key.len()).unwrap_or(u8::MAX));
        bytes.push(u8::from(value.is_some()));
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(held);
        Self { head: head_of(key), bytes: bytes.into_boxed_slice() }
    }

    /// Key, and the value unless the key is deleted.
    pub(super) fn parts(&self) -> (&[u8], Option<&[u8]>) {
        let Some(([key_len, held], rest)) = self.bytes.split_first_chunk::<2>() else { return (&[], None) };
        let (key, value) = rest.split_at_checked(usize::from(*key_len)).unwrap_or((rest, &[]));
        (key, (*held == 1).then_some(value))
    }

    pub(super) fn value(&self) -> Option<Vec<u8>> {
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
pub(super) trait Keyed {
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

const DELETED: u32 = u32::MAX;

/// For each entry: key length u16 ‖ value length u32 (all ones: deleted) ‖ key ‖ value, little-endian.
pub(super) fn encode_batch(batch: &Map) -> Vec<u8> {
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
pub(super) fn decode_batch(mut bytes: &[u8], into: &mut Map) -> usize {
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
