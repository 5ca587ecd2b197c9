//! What a principal may charge: the largest amount, and the sum of a day (UTC) by currency; of one with any limit nothing in a currency
//! that has none. An amount counts from the intent on, until its charge is known to have moved nothing, on the day of its last attempt.
//! The sums live in memory; after a restart they are added up again from the charges of the day, and until that is done a principal
//! with such a limit waits. Charges of earlier days that were tried again today are looked for after that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::{Error, lock};
use crate::card::id::PrincipalId;
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::edge::App;
use crate::edge::store::{ChargeFilter, ChargeRow, ChargeStatus, OperationKind, PrincipalRow};

const DAY_SECONDS: i64 = 86_400;
/// Charges that are in memory at once while the sums are added up.
const PAGE: usize = 200;

/// The day and the sum, by principal and currency.
type Sums = HashMap<(PrincipalId, String), (i64, i64)>;

/// Sums by principal and currency; `None` until they are added up.
#[derive(Debug, Default)]
pub(super) struct DaySums(Mutex<Option<Sums>>);

/// What a charge takes of a day's sum: given back unless its intent is committed, whatever ends the request before.
#[derive(Debug)]
pub(super) struct Taken {
    sums: Arc<DaySums>,
    of: Option<(PrincipalId, String, i64, i64)>,
}

impl Taken {
    /// The charge is there: from now on its outcome decides.
    pub(super) fn keep(mut self) {
        self.of = None;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some((principal, currency, day, amount)) = self.of.take() {
            self.sums.subtract((principal, currency), day, amount);
        }
    }
}

impl DaySums {
    /// Counts a charge against the principal's limits, or refuses it.
    pub(super) fn take(self: &Arc<Self>, row: &PrincipalRow, charge: &ChargeRow) -> Result<Taken, Error> {
        let mut taken = Taken { sums: Arc::clone(self), of: None };
        if !moves_money(charge) {
            return Ok(taken);
        }
        let (amount, currency) = (charge.amount, &charge.currency);
        if is_over_the_largest(row, amount, currency) {
            return Err(Error::LimitExceeded);
        }
        let Some(day_max) = row.day_max.get(currency) else { return Ok(taken) };
        let mut sums = lock(&self.0);
        let sums = sums.as_mut().ok_or(Error::LimitsUnknown)?;
        let today = counted_on(charge);
        let (day, sum) = sums.entry((row.id, currency.clone())).or_insert((today, 0));
        if *day != today {
            (*day, *sum) = (today, 0);
        }
        let with = sum.saturating_add(amount);
        if with > *day_max {
            return Err(Error::LimitExceeded);
        }
        *sum = with;
        taken.of = Some((row.id, currency.clone(), today, amount));
        Ok(taken)
    }

    /// Counts a charge again that is tried once more, on the day of that: its decline gave the amount back.
    pub(super) fn count_again(&self, charge: &ChargeRow) {
        let Some(principal) = charge.principal.filter(|_| moves_money(charge)) else { return };
        let mut sums = lock(&self.0);
        let Some(sums) = sums.as_mut() else { return };
        add(sums, (principal, charge.currency.clone()), counted_on(charge), charge.amount);
    }

    /// Gives the amount back of a charge that moved nothing.
    pub(super) fn give_back(&self, charge: &ChargeRow) {
        let Some(principal) = charge.principal.filter(|_| moves_money(charge)) else { return };
        self.subtract((principal, charge.currency.clone()), counted_on(charge), charge.amount);
    }

    fn subtract(&self, of: (PrincipalId, String), day: i64, amount: i64) {
        let mut sums = lock(&self.0);
        let Some(sums) = sums.as_mut() else { return };
        if let Some((counted, sum)) = sums.get_mut(&of)
            && *counted == day
        {
            *sum = sum.saturating_sub(amount).max(0);
        }
    }
}

fn add(sums: &mut Sums, of: (PrincipalId, String), today: i64, amount: i64) {
    let (day, sum) = sums.entry(of).or_insert((today, 0));
    if *day < today {
        (*day, *sum) = (today, 0);
    }
    if *day == today {
        *sum = sum.saturating_add(amount);
    }
}

/// Whether no day and no sum would let a charge through: it is larger than the largest, or in a currency without a limit, of a
/// principal that has some.
pub(super) fn is_over_the_largest(row: &PrincipalRow, amount: i64, currency: &str) -> bool {
    let is_limited = !(row.charge_max.is_empty() && row.day_max.is_empty());
    let is_known = row.charge_max.contains_key(currency) || row.day_max.contains_key(currency);
    (is_limited && !is_known) || row.charge_max.get(currency).is_some_and(|max| amount > *max)
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
/// midnight UTC. Charges of earlier days that were tried again today are looked for after that, in a task of its own: they may be far
/// back, and few.
pub async fn add_up(app: &App) -> Result<(), Error> {
    let (midnight, limited) = (start_of(app.clock.now()), limited(app));
    let mut sums = Sums::new();
    for tenant in limited_tenants(app) {
        for_each(app, (tenant, midnight), |row| {
            if row.created_at >= midnight {
                count_today(&mut sums, row, (&limited, midnight));
            }
        })
        .await?;
    }
    // Nobody with a sum has charged meanwhile: `take` refuses until this is there.
    *lock(&app.charges.limits.0) = Some(sums);
    let app = Arc::clone(app);
    tokio::spawn(async move { add_retried(&app, midnight).await });
    Ok(())
}

/// Adds what charges of earlier days count, that this process did not try itself.
async fn add_retried(app: &App, midnight: Time) {
    let earliest = midnight.plus_seconds(-app.directory.charging().retries.seconds_max);
    let (mut sums, limited) = (Sums::new(), limited(app));
    for tenant in limited_tenants(app) {
        let added = for_each(app, (tenant, earliest), |row| {
            let last = row.operations.first().and_then(|first| first.attempts.last());
            let is_ours = last.is_some_and(|attempt| !app.charges.is_from_before(attempt.id.0));
            if row.created_at < midnight && !is_ours {
                count_today(&mut sums, row, (&limited, midnight));
            }
        });
        if added.await.is_err() {
            tracing::error!(code = "day_sums", "what was tried again today could not be added up");
        }
    }
    if let Some(all) = lock(&app.charges.limits.0).as_mut() {
        for (of, (day, sum)) in sums {
            add(all, of, day, sum);
        }
    }
}

/// The charges of a tenant from the newest to the first before `earliest`: their ids are as old as they are.
async fn for_each(
    app: &App,
    (tenant, earliest): (TenantId, Time),
    mut each: impl FnMut(&ChargeRow) + Send,
) -> Result<(), Error> {
    let mut after = None;
    loop {
        let page = app.store.charges(tenant, &ChargeFilter::default(), after, PAGE).await?;
        after = page.rows.last().map(|row| row.id);
        page.rows.iter().for_each(&mut each);
        if !page.more || page.rows.iter().any(|row| row.created_at < earliest) {
            return Ok(());
        }
    }
}

fn count_today(sums: &mut Sums, row: &ChargeRow, (limited, midnight): (&[PrincipalId], Time)) {
    let today = day_of(midnight);
    if let Some(principal) = row.principal.filter(|id| limited.contains(id))
        && counted_on(row) == today
        && moves_money(row)
        && !is_freed(row.status)
    {
        add(sums, (principal, row.currency.clone()), today, row.amount);
    }
}

/// Who has a day's sum.
fn limited(app: &App) -> Vec<PrincipalId> {
    let principals = app.directory.principals();
    principals.iter().filter(|p| !p.row.day_max.is_empty()).map(|p| p.id).collect()
}

fn limited_tenants(app: &App) -> std::collections::BTreeSet<TenantId> {
    let principals = app.directory.principals();
    principals.iter().filter(|p| !p.row.day_max.is_empty()).filter_map(|p| p.tenant).collect()
}

fn moves_money(charge: &ChargeRow) -> bool {
    charge.operations.first().is_some_and(|first| first.kind != OperationKind::Verify)
}

fn day_of(time: Time) -> i64 {
    time.seconds().div_euclid(DAY_SECONDS)
}

fn start_of(time: Time) -> Time {
    Time::from_micros(day_of(time).saturating_mul(DAY_SECONDS * 1_000_000))
}

/// The day on which a charge's amount counts: that of its last attempt.
fn counted_on(charge: &ChargeRow) -> i64 {
    let last = charge.operations.first().and_then(|first| first.attempts.last());
    day_of(last.map_or(charge.created_at, |attempt| attempt.started_at))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::tests;
    use super::*;
    use crate::card::id::IdBytes;
    use crate::edge::store::PrincipalKind;

    const WHO: PrincipalId = PrincipalId(IdBytes([7; 18]));
    const DAY: i64 = 20_000;

    fn row(charge_max: &[(&str, i64)], day_max: &[(&str, i64)]) -> PrincipalRow {
        let by_currency = |of: &[(&str, i64)]| {
            of.iter().map(|(c, max)| ((*c).to_owned(), *max)).collect::<BTreeMap<_, _>>()
        };
        PrincipalRow {
            id: WHO,
            name: "limited".to_owned(),
            kind: PrincipalKind::Application,
            tenant: Some(TenantId(1)),
            scopes: Vec::new(),
            credentials: Vec::new(),
            charge_max: by_currency(charge_max),
            day_max: by_currency(day_max),
            created_at: at(0),
            expires_at: None,
            disabled: false,
            destinations: Vec::new(),
        }
    }

    fn at(day: i64) -> Time {
        Time::from_micros((day * DAY_SECONDS + 60) * 1_000_000)
    }

    /// A charge of 100, made on one day and last tried on another.
    fn charge(currency: &str, (made, tried): (i64, i64)) -> ChargeRow {
        let mut charge = tests::charge(OperationKind::Sale, false);
        (charge.amount, charge.currency, charge.principal) = (100, currency.to_owned(), Some(WHO));
        charge.created_at = at(made);
        charge.operations[0].attempts.last_mut().unwrap().started_at = at(tried);
        charge
    }

    fn sums() -> Arc<DaySums> {
        Arc::new(DaySums(Mutex::new(Some(Sums::new()))))
    }

    #[test]
    fn with_any_limit_a_currency_that_has_none_is_refused() {
        let of = |row: &PrincipalRow, currency| sums().take(row, &charge(currency, (DAY, DAY))).is_ok();
        let free = row(&[], &[]);
        assert!(of(&free, "USD") && of(&free, "EUR"));
        for limited in [row(&[("USD", 100)], &[]), row(&[], &[("USD", 100)])] {
            assert!(of(&limited, "USD") && !of(&limited, "EUR"));
            let mut verified = charge("EUR", (DAY, DAY));
            verified.operations[0].kind = OperationKind::Verify;
            assert!(sums().take(&limited, &verified).is_ok(), "it moves nothing");
        }
        let both = row(&[("USD", 99)], &[("EUR", 100)]);
        assert!(!of(&both, "USD") && of(&both, "EUR") && !of(&both, "GBP"));
    }

    #[test]
    fn a_request_that_ends_before_its_charge_is_there_takes_nothing() {
        let (sums, row, charge) = (sums(), row(&[], &[("USD", 100)]), charge("USD", (DAY, DAY)));
        for _ in 0..3 {
            drop(sums.take(&row, &charge).unwrap());
        }
        sums.take(&row, &charge).unwrap().keep();
        assert!(matches!(sums.take(&row, &charge), Err(Error::LimitExceeded)));
        sums.give_back(&charge);
        sums.take(&row, &charge).unwrap().keep();
    }

    #[test]
    fn what_is_tried_again_counts_on_that_day() {
        let (sums, row) = (sums(), row(&[], &[("USD", 100)]));
        let first = charge("USD", (DAY, DAY));
        sums.take(&row, &first).unwrap().keep();
        sums.give_back(&first);
        // Nobody else has charged on that day yet.
        let again = charge("USD", (DAY, DAY + 3));
        sums.count_again(&again);
        let new = charge("USD", (DAY + 3, DAY + 3));
        assert!(matches!(sums.take(&row, &new), Err(Error::LimitExceeded)));
        sums.give_back(&again);
        sums.take(&row, &new).unwrap().keep();
        // After a restart too.
        let mut added = Sums::new();
        let midnight = start_of(at(DAY + 3));
        for row in [&first, &again, &charge("USD", (DAY + 3, DAY + 3))] {
            count_today(&mut added, row, (&[WHO], midnight));
        }
        assert_eq!(added.get(&(WHO, "USD".to_owned())), Some(&(DAY + 3, 200)));
    }
}
