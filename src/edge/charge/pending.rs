//! What a processor answers later: it is asked for at growing intervals, for weeks if need be, whatever restarts in between. A task
//! that waits holds no more than two ids, so that many cost little.

use std::sync::Arc;
use std::time::Duration;

use super::{Held, machine, polling, resolve, send};
use crate::card::id::ChargeId;
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::edge::App;
use crate::edge::store::{Attempt, AttemptState, ChargeRow};

/// A hold for review is lifted or lapses within this, as the authorization under it does; after it a person must settle the charge.
const PENDING_SECONDS_MAX: i64 = 30 * 86_400;
const INTERVAL_MIN: Duration = Duration::from_millis(200);
pub(super) const INTERVAL_MAX: Duration = Duration::from_hours(1);
/// An answer that took so long is asked for again after an eighth of that.
const OF_ITS_AGE: i64 = 8;

/// Whether all that is open of a charge is what its processor answers later.
pub(super) fn is_all(charge: &ChargeRow) -> bool {
    !machine::needs_reversal(charge)
        && oldest(charge).is_some()
        && machine::unsettled(charge).all(|(_, attempt)| attempt.state == AttemptState::Pending)
}

/// Asks for the answer from now on, in a task of its own; one for each charge.
pub(super) fn watch(app: &App, charge: &ChargeRow) {
    let Some(since) = oldest(charge).map(|attempt| attempt.started_at) else { return };
    if let Some(held) = Held::take(app, polling, charge.id) {
        tokio::spawn(poll(Arc::clone(app), (charge.tenant, charge.id), since, held));
    }
}

fn wait(app: &App, since: Time) -> Duration {
    resolve::jittered(interval(since, app.clock.now()).min(app.charges.pace.longest_pending))
}

async fn poll(app: App, (tenant, id): (TenantId, ChargeId), since: Time, held: Held<ChargeId>) {
    let mut pause = wait(&app, since);
    loop {
        tokio::time::sleep(pause).await;
        pause = wait(&app, since);
        let charge = match app.store.charge(tenant, &id.to_string()).await {
            Ok(Some(charge)) => charge,
            Ok(None) => return,
            Err(_) => continue,
        };
        if !is_all(&charge) {
            drop(held);
            return resolve::spawn(&app, charge);
        }
        let left = app.charges.waits.left(&charge.destination);
        if !left.is_zero() {
            // A little later than it asked for, so that all that wait do not come back together.
            pause = left + resolve::jittered(INTERVAL_MIN);
            continue;
        }
        // In a box: while it waits the task is no larger for it.
        Box::pin(ask(&app, charge)).await;
    }
}

async fn ask(app: &App, charge: ChargeRow) {
    let Some(attempt) = oldest(&charge) else { return };
    let now = app.clock.now();
    if now < attempt.started_at.plus_seconds(PENDING_SECONDS_MAX) {
        return resolve::ask_pending(app, charge).await;
    }
    if let Some(next) = machine::give_up(&charge, attempt.id, now) {
        // If another change came first, the next round sees it.
        send::commit_moved(app, &charge, &next, attempt.id).await;
    }
}

fn oldest(charge: &ChargeRow) -> Option<&Attempt> {
    let pending = machine::unsettled(charge).map(|(_, attempt)| attempt);
    pending.filter(|attempt| attempt.state == AttemptState::Pending).min_by_key(|attempt| attempt.started_at)
}

fn interval(since: Time, now: Time) -> Duration {
    let micros = now.micros.saturating_sub(since.micros) / OF_ITS_AGE;
    Duration::from_micros(u64::try_from(micros).unwrap_or(0)).clamp(INTERVAL_MIN, INTERVAL_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, charge, learn, said};
    use super::*;
    use crate::edge::store::{ChargeStatus, OperationKind};
    use crate::wire::forwarder::Verdict;

    #[test]
    fn the_interval_grows_with_the_age_and_ends_at_an_hour() {
        let since = Time::from_micros(1_800_000_000_000_000);
        let after = |seconds| interval(since, since.plus_seconds(seconds)).as_secs();
        assert_eq!(interval(since, since.plus_seconds(-5)), INTERVAL_MIN);
        assert_eq!([80, 900, 8 * 3_600, PENDING_SECONDS_MAX].map(after), [10, 112, 3_600, 3_600]);
        // From the first second to the last of a month, it stays a matter of some hundred questions.
        let (mut at, mut asked) = (since, 0);
        while at < since.plus_seconds(PENDING_SECONDS_MAX) {
            at = Time::from_micros(at.micros + i64::try_from(interval(since, at).as_micros()).unwrap());
            asked += 1;
        }
        assert!((700..1_000).contains(&asked), "{asked}");
    }

    #[test]
    fn only_a_charge_that_waits_for_its_processor_is_watched() {
        let sale = charge(OperationKind::Sale, false);
        let pending = learn(&sale, &said(1, answer(Verdict::Pending)));
        assert!(is_all(&pending));
        assert!(!is_all(&sale), "being sent");
        assert!(!is_all(&learn(&sale, &said(1, answer(Verdict::NotFound)))), "unknown");
        let given_up = machine::give_up(&pending, pending.operations[0].attempts[0].id, pending.created_at);
        assert_eq!(given_up.unwrap().status, ChargeStatus::Manual);
    }
}
