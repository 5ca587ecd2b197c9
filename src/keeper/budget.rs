//! The fingerprint budget. Whoever knows BIN and last four has 10^5 numbers left to try, and a fingerprint answers each
//! try; so only so many different numbers of one (tenant, BIN, last four) are answered in an hour.
//!
//! Two windows of an hour are kept and counted together, so that no sixty minutes see more than the budget. Test numbers belong
//! to nobody: they are counted apart, and only to bound what a mistake can do.

use std::collections::HashMap;

use crate::card::tenant::TenantId;
use crate::clock::Time;

const WINDOW_SECONDS: i64 = 3600;
/// Answers for test numbers of one (tenant, BIN, last four) in an hour.
const TEST_ANSWERS_MAX: u32 = 100_000;

type Key = (TenantId, u32, u16);

#[derive(Default)]
struct Window {
    numbers: HashMap<Key, Vec<u64>>,
    test_answers: HashMap<Key, u32>,
}

/// Counts fingerprint answers.
pub(in crate::keeper) struct Budget {
    per_hour_max: usize,
    started: Time,
    current: Window,
    previous: Window,
}

impl Budget {
    /// A budget of so many different numbers an hour. A keeper forgets when it ends, so each start within the last hour
    /// costs its share.
    pub(in crate::keeper) fn new(per_hour_max: u32, restarts_last_hour: u32, now: Time) -> Self {
        let share = per_hour_max / restarts_last_hour.saturating_add(1);
        let per_hour_max = usize::try_from(share.max(1)).unwrap_or(1);
        Self { per_hour_max, started: now, current: Window::default(), previous: Window::default() }
    }

    /// Counts an answer for a number of which `fingerprint` is the keyed hash; `false` if the budget is spent.
    pub(in crate::keeper) fn take(
        &mut self,
        tenant: TenantId,
        (bin, last_four): (u32, u16),
        fingerprint: &[u8; 32],
        is_test: bool,
        now: Time,
    ) -> bool {
        self.turn(now);
        let key = (tenant, bin, last_four);
        if is_test {
            let before = self.previous.test_answers.get(&key).copied().unwrap_or(0);
            let count = self.current.test_answers.entry(key).or_default();
            *count = count.saturating_add(1);
            return count.saturating_add(before) <= TEST_ANSWERS_MAX;
        }
        let short = fingerprint.iter().take(8).fold(0, |sum: u64, byte| (sum << 8) | u64::from(*byte));
        let before = self.previous.numbers.get(&key).map_or(&[][..], Vec::as_slice);
        let numbers = self.current.numbers.entry(key).or_default();
        if numbers.contains(&short) {
            return true;
        }
        if !before.contains(&short) {
            let different = numbers.iter().filter(|n| !before.contains(n)).count() + before.len();
            if different >= self.per_hour_max {
                return false;
            }
        }
        numbers.push(short);
        true
    }

    fn turn(&mut self, now: Time) {
        let age = now.seconds() - self.started.seconds();
        if age < WINDOW_SECONDS {
            return;
        }
        let last = std::mem::take(&mut self.current);
        self.previous = if age < 2 * WINDOW_SECONDS { last } else { Window::default() };
        self.started = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: (u32, u16) = (453_957, 1486);

    fn number(n: u64) -> [u8; 32] {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_be_bytes());
        hash
    }

    #[test]
    fn the_search_for_a_number_ends_at_the_budget() {
        let start = Time::from_micros(0);
        let mut budget = Budget::new(60, 0, start);
        let mut answered = 0;
        // A patient attacker: one candidate a second for three hours.
        let mut in_an_hour = Vec::new();
        for n in 0..10_800_u64 {
            let now = start.plus_seconds(i64::try_from(n).unwrap());
            if budget.take(TenantId(1), PLACE, &number(n), false, now) {
                answered += 1;
                in_an_hour.push(n);
            }
        }
        assert!(answered <= 180);
        for (at, n) in in_an_hour.iter().enumerate() {
            let later = in_an_hour[at..].iter().take_while(|m| **m < n + 3600).count();
            assert!(later <= 60, "more than the budget within an hour");
        }
    }

    #[test]
    fn the_same_number_again_costs_nothing_and_others_are_apart() {
        let now = Time::from_micros(0);
        let mut budget = Budget::new(2, 0, now);
        for _ in 0..1000 {
            assert!(budget.take(TenantId(1), PLACE, &number(1), false, now));
        }
        assert!(budget.take(TenantId(1), PLACE, &number(2), false, now));
        assert!(!budget.take(TenantId(1), PLACE, &number(3), false, now));
        assert!(budget.take(TenantId(2), PLACE, &number(3), false, now));
        assert!(budget.take(TenantId(1), (453_957, 1487), &number(3), false, now));
    }

    #[test]
    fn restarts_do_not_refill_it() {
        let now = Time::from_micros(0);
        let mut budget = Budget::new(60, 5, now);
        let answered = (0..100).filter(|n| budget.take(TenantId(1), PLACE, &number(*n), false, now)).count();
        assert_eq!(answered, 10);
    }
}
