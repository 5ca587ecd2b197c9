//! The fingerprint budget. Whoever knows BIN and last four has 10^5 numbers left to try, and a fingerprint answers each
//! try; so only so many different numbers of one (tenant, BIN, last four) are answered in an hour. A zip has fewer than 10^5 values
//! in most countries: of one card as many wrong ones are told to be wrong.
//!
//! Two windows of an hour are kept and counted together, so that no sixty minutes see more than the budget. Test numbers belong
//! to nobody: they are counted apart, and only to bound what a mistake can do.

use std::collections::HashMap;

use crate::card::id::Token;
use crate::card::tenant::TenantId;
use crate::clock::Time;

const WINDOW_SECONDS: i64 = 3600;
/// Answers for test numbers of one (tenant, BIN, last four) in an hour.
const TEST_ANSWERS_MAX: u32 = 100_000;
/// Cards in a window of which a wrong zip was told, so that memory stays bounded; past it no other card's zip is compared.
const ZIP_CARDS_MAX: usize = 100_000;

type Key = (TenantId, u32, u16);

#[derive(Default)]
struct Window {
    numbers: HashMap<Key, Vec<u64>>,
    test_answers: HashMap<Key, u32>,
    wrong_zips: HashMap<(TenantId, Token), Vec<u64>>,
}

/// Counts fingerprint answers, and zips that were told to be wrong.
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
        let number = short(fingerprint);
        let before = self.previous.numbers.get(&key).map_or(&[][..], Vec::as_slice);
        let numbers = self.current.numbers.entry(key).or_default();
        if numbers.contains(&number) {
            return true;
        }
        if !has_room(numbers, before, number, self.per_hour_max) {
            return false;
        }
        numbers.push(number);
        true
    }

    /// Whether a zip of which `hash` is the keyed hash may be compared with that of a card. Ask before comparing: a refusal that only
    /// a wrong zip gets would be an answer.
    pub(in crate::keeper) fn may_compare(
        &mut self,
        tenant: TenantId,
        token: Token,
        hash: &[u8; 32],
        now: Time,
    ) -> bool {
        self.turn(now);
        let card = (tenant, token);
        let before = self.previous.wrong_zips.get(&card).map_or(&[][..], Vec::as_slice);
        match self.current.wrong_zips.get(&card) {
            Some(zips) => has_room(zips, before, short(hash), self.per_hour_max),
            None if self.current.wrong_zips.len() >= ZIP_CARDS_MAX => false,
            None => has_room(&[], before, short(hash), self.per_hour_max),
        }
    }

    /// Counts a zip that was told to be wrong. The right one ends every search and costs nothing.
    pub(in crate::keeper) fn count_wrong_zip(&mut self, tenant: TenantId, token: Token, hash: &[u8; 32]) {
        let zips = self.current.wrong_zips.entry((tenant, token)).or_default();
        if !zips.contains(&short(hash)) {
            zips.push(short(hash));
        }
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

/// Enough of a keyed hash to tell a few hundred values apart.
fn short(hash: &[u8; 32]) -> u64 {
    hash.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

/// Whether a value was counted already, or one more fits.
fn has_room(current: &[u64], before: &[u64], value: u64, different_max: usize) -> bool {
    let different = current.iter().filter(|n| !before.contains(n)).count() + before.len();
    current.contains(&value) || before.contains(&value) || different < different_max
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::id::IdBytes;

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
    fn wrong_zips_are_counted_for_each_card_and_the_cards_as_well() {
        let now = Time::from_micros(0);
        let mut budget = Budget::new(2, 0, now);
        let card = |n: u32| {
            let mut bytes = [0; 18];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            Token(IdBytes(bytes))
        };
        for n in 0..2 {
            assert!(budget.may_compare(TenantId(1), card(1), &number(n), now));
            budget.count_wrong_zip(TenantId(1), card(1), &number(n));
        }
        assert!(!budget.may_compare(TenantId(1), card(1), &number(2), now));
        assert!(budget.may_compare(TenantId(1), card(1), &number(1), now));
        assert!(budget.may_compare(TenantId(1), card(2), &number(2), now));
        // An hour later the window before still counts, two hours later nothing does.
        assert!(!budget.may_compare(TenantId(1), card(1), &number(2), now.plus_seconds(3_601)));
        assert!(budget.may_compare(TenantId(1), card(1), &number(2), now.plus_seconds(7_202)));
        for n in 0..u32::try_from(ZIP_CARDS_MAX).unwrap() {
            budget.count_wrong_zip(TenantId(1), card(n), &number(0));
        }
        assert!(!budget.may_compare(TenantId(2), card(0), &number(0), now.plus_seconds(7_202)));
        assert!(budget.may_compare(TenantId(1), card(0), &number(0), now.plus_seconds(7_202)));
    }

    #[test]
    fn restarts_do_not_refill_it() {
        let now = Time::from_micros(0);
        let mut budget = Budget::new(60, 5, now);
        let answered = (0..100).filter(|n| budget.take(TenantId(1), PLACE, &number(*n), false, now)).count();
        assert_eq!(answered, 10);
    }
}
