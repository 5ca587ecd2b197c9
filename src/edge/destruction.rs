//! Keys that may have sealed what is erased, on their way to destruction: without them no backup brings it back.
//!
//! Which they are is in the store, written with each erasure. A look at it says what the next step of each is, and the supervisor is
//! told; what dies in between is found by the next look. The steps: where the key is in use another takes over, at half of the time
//! at the latest; live cards are sealed again; near the end of the time it is destroyed. So a backup of the cards can be restored for
//! long after it was made, though none of the first half of the time.

use std::time::Duration;

use tokio::time::timeout;

use super::App;
use super::store::{ErasedKey, StoreError};
use crate::clock::Time;
use crate::erasure::ErasureTerms;
use crate::wire::control::KeyStep;
use crate::wire::keys::{KeyInfo, KeyState};

/// Between two looks: each reads a row for each key.
const EVERY: Duration = Duration::from_mins(1);
/// From a look that found a step due to the next, at first; twice as long each time, as what fails may fail again.
const AGAIN: Duration = Duration::from_secs(5);
/// Between two looks at whether the start is over.
const RECOVERED_LOOK: Duration = Duration::from_millis(50);

/// Looks every minute, and when keys change.
pub(super) async fn run(app: App) {
    while !app.is_recovered() {
        tokio::time::sleep(RECOVERED_LOOK).await;
    }
    let mut changes = app.keys.subscribe();
    let mut again = AGAIN;
    loop {
        changes.borrow_and_update();
        let is_due = look(&app).await.unwrap_or_else(|_| {
            tracing::warn!(code = "erased_keys", "it could not be looked which keys are to be destroyed");
            true
        });
        let wait = if is_due { again } else { EVERY };
        again = if is_due { (again * 2).min(EVERY) } else { AGAIN };
        // If nobody changes keys any more, the process is ending.
        drop(timeout(wait, changes.changed()).await);
    }
}

/// Tells the supervisor what is due, and the figures what is overdue; gives whether anything is due.
async fn look(app: &App) -> Result<bool, StoreError> {
    let (now, terms) = (app.clock.now(), app.directory.erasure());
    let erased = app.store.erased_keys().await?;
    let keys = app.keys.all();
    let steps: Vec<(u32, KeyStep)> = erased
        .iter()
        .filter_map(|erased| {
            let key = keys.iter().find(|key| key.order.id == erased.key)?;
            Some((erased.key, next_step(erased, key, terms, now)?))
        })
        .collect();
    let is_late = |erased: &&ErasedKey| {
        erased.destroyed.is_none() && erased.since.plus_seconds(terms.within_seconds()) <= now
    };
    app.metrics.erased_keys_overdue(erased.iter().filter(is_late).count());
    let is_due = !steps.is_empty();
    if is_due {
        app.keys.say_due(steps);
    }
    Ok(is_due)
}

/// What is to be done now with a key under which something was erased.
fn next_step(erased: &ErasedKey, key: &KeyInfo, terms: ErasureTerms, now: Time) -> Option<KeyStep> {
    let after = |seconds: i64| now >= erased.since.plus_seconds(seconds);
    match key.state {
        KeyState::Active => after(terms.rotate_after_seconds()).then_some(KeyStep::Empty),
        KeyState::Retired | KeyState::Compromised if key.emptying => None,
        KeyState::Retired | KeyState::Compromised if erased.emptied.is_none() => Some(KeyStep::Empty),
        KeyState::Retired | KeyState::Compromised => {
            after(terms.destroy_after_seconds()).then_some(KeyStep::Destroy)
        }
        KeyState::Pending | KeyState::Destroyed => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::tenant::TenantId;
    use crate::wire::keys::{KeyOrder, KeyPurpose};

    const TERMS: ErasureTerms = ErasureTerms { destroy_within_days: 30, key_backups_kept_days: 7 };
    const SINCE: Time = Time::from_micros(1_795_000_000_000_000);

    fn key(state: KeyState, emptying: bool) -> KeyInfo {
        let tenant = Some(TenantId(1));
        let order = KeyOrder { id: 7, purpose: KeyPurpose::Data, tenant, epoch: 24_000, version: 1 };
        KeyInfo { order, state, protects_until: SINCE, emptying }
    }

    fn step(state: KeyState, emptying: bool, is_empty: bool, day: i64) -> Option<KeyStep> {
        let emptied = is_empty.then_some(SINCE);
        let erased = ErasedKey { key: 7, tenant: TenantId(1), since: SINCE, emptied, destroyed: None };
        next_step(&erased, &key(state, emptying), TERMS, SINCE.plus_seconds(day * 86_400))
    }

    #[test]
    fn a_key_in_use_is_taken_over_from_at_half_of_the_time() {
        assert_eq!(step(KeyState::Active, false, false, 14), None);
        assert_eq!(step(KeyState::Active, false, false, 15), Some(KeyStep::Empty));
        assert_eq!(step(KeyState::Pending, false, false, 40), None);
    }

    #[test]
    fn a_key_of_before_is_emptied_at_once_and_destroyed_near_the_end() {
        for state in [KeyState::Retired, KeyState::Compromised] {
            assert_eq!(step(state, false, false, 0), Some(KeyStep::Empty));
            assert_eq!(step(state, true, false, 29), None);
            assert_eq!(step(state, false, true, 27), None);
            assert_eq!(step(state, false, true, 28), Some(KeyStep::Destroy));
            // A record that was found under it after all is moved away first, however late it is.
            assert_eq!(step(state, false, false, 40), Some(KeyStep::Empty));
        }
        assert_eq!(step(KeyState::Destroyed, false, true, 40), None);
    }
}
