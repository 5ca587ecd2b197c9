//! What a principal may charge: the largest amount, and the sum of a day (UTC) by currency. An amount counts from the intent on, until
//! its charge is known to have moved nothing. The sums live in memory; after a restart they are added up again from the charges of the
//! day, and until that is done a principal with such a limit waits.

use std::collections::HashMap;
use std::sync::Mutex;

use super::{Error, lock};
use crate::card::id::PrincipalId;
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::edge::App;
use crate::edge::directory::Principal;
use crate::edge::store::{ChargeFilter, ChargeRow, ChargeStatus, OperationKind};

const DAY_SECONDS: i64 = 86_400;
/// Charges that are in memory at once while the sums are added up.
const PAGE: usize = 200;

/// The day and the sum, by principal and currency.
type Sums = HashMap<(PrincipalId, String), (i64, i64)>;

/// Sums by principal and currency; `None` until they are added up.
#[derive(Debug, Default)]
pub(super) struct DaySums(Mutex<Option<Sums>>);

impl DaySums {
    /// Counts a charge against the principal's limits, or refuses it.
    pub(super) fn take(&self, principal: &Principal, charge: &ChargeRow) -> Result<(), Error> {
        if !moves_money(charge) {
            return Ok(());
        }
        let (row, amount, currency) = (&principal.row, charge.amount, &charge.currency);
        if row.charge_max.get(currency).is_some_and(|max| amount > *max) {
            return Err(Error::LimitExceeded);
        }
        let Some(day_max) = row.day_max.get(currency) else { return Ok(()) };
        let mut sums = lock(&self.0);
        let sums = sums.as_mut().ok_or(Error::LimitsUnknown)?;
        let today = day_of(charge.created_at);
        let (day, sum) = sums.entry((principal.id, currency.clone())).or_insert((today, 0));
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

    /// Counts a charge again that is tried once more on the day it was made: its decline gave the amount back.
    pub(super) fn count_again(&self, charge: &ChargeRow) {
        let Some(principal) = charge.principal.filter(|_| moves_money(charge)) else { return };
        let mut sums = lock(&self.0);
        let Some(sums) = sums.as_mut() else { return };
        if let Some((day, sum)) = sums.get_mut(&(principal, charge.currency.clone()))
            && *day == day_of(charge.created_at)
        {
            *sum = sum.saturating_add(charge.amount);
        }
    }

    /// Gives the amount back of a charge that moved nothing.
    pub(super) fn give_back(&self, charge: &ChargeRow) {
        let Some(principal) = charge.principal.filter(|_| moves_money(charge)) else { return };
        let mut sums = lock(&self.0);
        let Some(sums) = sums.as_mut() else { return };
        if let Some((day, sum)) = sums.get_mut(&(principal, charge.currency.clone()))
            && *day == day_of(charge.created_at)
        {
            *sum = sum.saturating_sub(charge.amount).max(0);
        }
    }
}

/// Whether a status says that a charge moved nothing, for good.
pub(super) const fn is_freed(status: ChargeStatus) -> bool {
    match status {
        ChargeStatus::Declined | ChargeStatus::Failed | ChargeStatus::Voided => true,
        ChargeStatus::Processing
        | ChargeStatus::Pending
        | ChargeStatus::Authorized
        | ChargeStatus::Approved
        | ChargeStatus::Unknown
        | ChargeStatus::Manual => false,
    }
}

/// Adds up what today's charges count. Only the tenants of principals with a sum are looked at, a page at a time, newest first, until
/// midnight UTC.
pub async fn add_up(app: &App) -> Result<(), Error> {
    let today = day_of(app.clock.now());
    let principals = app.directory.principals();
    let limited = |id: PrincipalId| principals.iter().any(|p| p.id == id && !p.row.day_max.is_empty());
    let mut tenants: Vec<TenantId> =
        principals.iter().filter(|p| limited(p.id)).filter_map(|p| p.tenant).collect();
    tenants.sort_unstable();
    tenants.dedup();
    let mut sums = Sums::new();
    for tenant in tenants {
        let mut after = None;
        loop {
            let page = app.store.charges(tenant, &ChargeFilter::default(), after, PAGE).await?;
            after = page.rows.last().map(|row| row.id);
            // Their ids are as old as they are: behind the first of yesterday there is none of today.
            let older = page.rows.iter().any(|row| day_of(row.created_at) < today);
            for row in page.rows.iter().filter(|row| day_of(row.created_at) == today) {
                if let Some(principal) = row.principal.filter(|id| limited(*id))
                    && moves_money(row)
                    && !is_freed(row.status)
                {
                    let (_, sum) = sums.entry((principal, row.currency.clone())).or_insert((today, 0));
                    *sum = sum.saturating_add(row.amount);
                }
            }
            if older || !page.more {
                break;
            }
        }
    }
    // Nobody with a sum has charged meanwhile: `take` refuses until this is there.
    *lock(&app.charges.limits.0) = Some(sums);
    Ok(())
}

fn moves_money(charge: &ChargeRow) -> bool {
    charge.operations.first().is_some_and(|first| first.kind != OperationKind::Verify)
}

fn day_of(time: Time) -> i64 {
    time.seconds().div_euclid(DAY_SECONDS)
}
