//! Times, counted in buckets that grow with them: constant memory, and no value is off by more than one part in 128.

use std::time::Duration;

/// Buckets of each doubling; below it every nanosecond/[`UNIT_NS`] has a bucket of its own.
const STEPS: u64 = 128;
const STEPS_LOG2: u32 = 7;
/// The finest difference that is kept, in nanoseconds.
const UNIT_NS: u64 = 100;
/// Enough doublings for more than an hour.
const BUCKETS: usize = 30 * 128;

/// Counted times.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }
}

impl Histogram {
    /// Counts a time.
    pub(super) fn count(&mut self, time: Duration) {
        let units = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) / UNIT_NS;
        if let Some(count) = self.counts.get_mut(bucket_of(units)) {
            *count += 1;
        }
        self.total += 1;
    }

    /// Counts all that `other` has counted.
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
        self.total += other.total;
    }

    /// How many were counted.
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// The time, in milliseconds, that this share of all times do not exceed; 0 if there are none.
    pub(super) fn quantile_ms(&self, share: f64) -> f64 {
        let wanted = (as_float(self.total) * share).ceil().max(1.0);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && as_float(seen) >= wanted {
                return as_float(top_of(bucket)) * as_float(UNIT_NS) / 1e6;
            }
        }
        0.0
    }
}

fn bucket_of(units: u64) -> usize {
    let doublings = (64 - units.leading_zeros()).saturating_sub(STEPS_LOG2 + 1);
    let bucket = u64::from(doublings) * STEPS + (units >> doublings);
    usize::try_from(bucket).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// The largest number of units that falls into a bucket.
fn top_of(bucket: usize) -> u64 {
    let bucket = u64::try_from(bucket).unwrap_or(u64::MAX);
    if bucket < 2 * STEPS {
        return bucket;
    }
    let doublings = bucket / STEPS - 1;
    ((bucket - doublings * STEPS + 1) << doublings) - 1
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn as_float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_time_is_kept_to_one_part_in_a_hundred(units in 1_u64..10_000_000_000) {
            let top = top_of(bucket_of(units));
            prop_assert!(top >= units && top - units <= units / 100);
        }

        #[test]
        fn quantiles_are_those_of_the_sorted_times(mut micros in prop::collection::vec(1_u64..10_000_000, 1..200), share in 0.01_f64..1.0) {
            let mut histogram = Histogram::default();
            for time in &micros {
                histogram.count(Duration::from_micros(*time));
            }
            micros.sort_unstable();
            let at = ((micros.len() as f64 * share).ceil() as usize).max(1) - 1;
            let exact = micros[at] as f64 / 1e3;
            prop_assert!((histogram.quantile_ms(share) - exact).abs() <= exact / 100.0);
        }
    }

    #[test]
    fn nothing_counted_is_zero() {
        assert_eq!(Histogram::default().quantile_ms(0.99), 0.0);
    }
}
