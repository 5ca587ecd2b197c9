//! The table of issuer ranges, as the supervisor read it: the keeper looks a number's first eight digits up and gives away only what
//! the range says.

use std::cmp::Ordering;

use crate::card::range::{RangeFacts, RangeRecord};

/// The table in use, and the one that is arriving.
#[derive(Default)]
pub(super) struct Ranges {
    /// Records one after another, ascending: a few megabytes for all ranges there are.
    records: Vec<u8>,
    arriving: Vec<u8>,
}

impl Ranges {
    /// Takes a part of a new table; the old one is used until the last part is there.
    pub(super) fn take(&mut self, part: &[u8], begins: bool, ends: bool) {
        if begins {
            self.arriving.clear();
        }
        self.arriving.extend_from_slice(part);
        if ends {
            self.arriving.shrink_to_fit();
            self.records = std::mem::take(&mut self.arriving);
        }
    }

    /// What the range of these eight digits says; nothing where there is none.
    pub(super) fn find(&self, first_eight: u32) -> RangeFacts {
        let (records, _) = self.records.as_chunks::<{ RangeRecord::BYTES }>();
        let side = |bytes: &[u8; RangeRecord::BYTES]| {
            let record = RangeRecord::of_bytes(*bytes);
            match (record.start > first_eight, record.end < first_eight) {
                (true, _) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => Ordering::Equal,
            }
        };
        let found = records.binary_search_by(side).ok().and_then(|at| records.get(at));
        found.map(|bytes| RangeRecord::of_bytes(*bytes).facts).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::range::Funding;
    use proptest::prelude::*;

    fn records(bounds: &[(u32, u32)]) -> Vec<u8> {
        let record = |(at, (start, end)): (usize, &(u32, u32))| {
            let funding = Some(Funding::ALL[at % 4]);
            RangeRecord { start: *start, end: *end, facts: RangeFacts { funding, ..RangeFacts::default() } }
        };
        bounds.iter().enumerate().flat_map(|pair| record(pair).to_bytes()).collect()
    }

    proptest! {
        #[test]
        fn a_number_is_found_in_its_range_and_in_no_other(
            cuts in prop::collection::btree_set(0_u32..2_000, 0..60),
            asked in 0_u32..2_000,
        ) {
            let cuts: Vec<u32> = cuts.into_iter().collect();
            let bounds: Vec<_> = cuts.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            let mut ranges = Ranges::default();
            ranges.take(&records(&bounds), true, true);
            let expected = bounds.iter().position(|(start, end)| (*start..=*end).contains(&asked));
            let expected = expected.map(|at| Funding::ALL[at % 4]);
            prop_assert_eq!(ranges.find(asked).funding, expected);
        }
    }

    #[test]
    fn a_table_is_used_when_it_is_whole() {
        let mut ranges = Ranges::default();
        let all = records(&[(10, 20), (30, 40)]);
        ranges.take(&all[..RangeRecord::BYTES], true, false);
        assert_eq!(ranges.find(15), RangeFacts::default());
        ranges.take(&all[RangeRecord::BYTES..], false, true);
        assert!(ranges.find(15).funding.is_some() && ranges.find(35).funding.is_some());
        // One that never became whole leaves nothing.
        ranges.take(&all, true, false);
        ranges.take(&records(&[(50, 60)]), true, true);
        assert!(ranges.find(15).funding.is_none() && ranges.find(55).funding.is_some());
        ranges.take(&[], true, true);
        assert_eq!(ranges.find(55), RangeFacts::default());
    }
}
