//! What a principal may charge: the largest amount, and the sum of a day (UTC) by currency. The sums live in memory and start
//! anew with the process: they bound what a stolen credential can do, they are no ledger.

use std::collections::HashMap;
use std::sync::Mutex;

use super::{Error, lock};
use crate::card::id::PrincipalId;
use crate::clock::Time;
use crate::edge::directory::Principal;

const DAY_SECONDS: i64 = 86_400;

/// Sums by principal and currency, each with the day it belongs to.
#[derive(Debug, Default)]
pub(super) struct DaySums(Mutex<HashMap<(PrincipalId, String), (i64, i64)>>);

impl DaySums {
    /// Counts an amount against the principal's limits, or refuses it.
    pub(super) fn take(
        &self,
        principal: &Principal,
        amount: i64,
        currency: &str,
        now: Time,
    ) -> Result<(), Error> {
        let row = &principal.row;
        if row.charge_max.get(currency).is_some_and(|max| amount > *max) {
            return Err(Error::LimitExceeded);
        }
        let Some(day_max) = row.day_max.get(currency) else { return Ok(()) };
        let today = now.seconds().div_euclid(DAY_SECONDS);
        let mut sums = lock(&self.0);
        let (day, sum) = sums.entry((principal.id, currency.to_owned())).or_insert((today, 0));
        if *day != today {
            (*day, *sum) = (today, 0);
        }
        let with = sum.saturating_add(amount);
        if with > *day_max {
            return Err(Error::LimitExceeded);
        }
        *sum = with;
        Ok(())
    }

    /// Gives an amount back that was not charged.
    pub(super) fn give_back(&self, principal: &Principal, amount: i64, currency: &str) {
        if let Some((_, sum)) = lock(&self.0).get_mut(&(principal.id, currency.to_owned())) {
            *sum = sum.saturating_sub(amount).max(0);
        }
    }
}
