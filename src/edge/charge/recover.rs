//! After a restart: what arrived while no edge was there is recorded, what was being sent may have been sent, and the rest is looked
//! into.

use std::collections::HashMap;

use super::machine::{self, How};
use super::send::{self, By};
use super::{Error, create, resolve};
use crate::card::id::AttemptId;
use crate::edge::App;
use crate::edge::store::{AttemptState, ChargeRow};
use crate::wire::forwarder::Outcome;

/// More than can be in flight when a process dies.
const OPEN_MAX: usize = 100_000;
/// How often a charge is taken up again when another change came first.
const TRIES_MAX: u32 = 8;

/// Takes up what was in flight when the edge before this one ended. It returns when every outcome that the keeper has is in the log and
/// nothing is `sending` any more; what is unknown is looked into from then on. Safe to call again.
pub async fn recover(app: &App) -> Result<(), Error> {
    let waiting = app.keeper.unacknowledged().await?;
    let outcomes: HashMap<AttemptId, Outcome> =
        waiting.outcomes.into_iter().map(|outcome| (outcome.attempt, outcome)).collect();
    let open = app.store.open_charges(OPEN_MAX).await?;
    for charge in open {
        app.charges.unnamed.note(&charge);
        let charge = take_up(app, charge, &outcomes).await;
        resolve::spawn(app, charge);
    }
    // What is not open any more was committed before its acknowledgement got lost.
    let ours =
        |attempt: &AttemptId| app.charges.is_from_before(attempt.0) && !app.forwards.awaits_outcome(*attempt);
    let attempts: Vec<_> = outcomes.into_keys().filter(ours).collect();
    if !attempts.is_empty() {
        app.keeper.acknowledge(attempts, Vec::new()).await?;
    }
    Ok(())
}

async fn take_up(app: &App, mut charge: ChargeRow, outcomes: &HashMap<AttemptId, Outcome>) -> ChargeRow {
    let attempts: Vec<_> = machine::unsettled(&charge).map(|(_, attempt)| attempt.id).collect();
    for outcome in
        attempts.iter().filter(|id| app.charges.is_from_before(id.0)).filter_map(|id| outcomes.get(id))
    {
        charge = send::record(app, charge, outcome, How::Sent, &By::vault(), None).await;
    }
    for _ in 0..TRIES_MAX {
        let sending = machine::unsettled(&charge).find(|(_, a)| a.state == AttemptState::Sending);
        let Some((_, attempt)) = sending.filter(|(_, attempt)| app.charges.is_from_before(attempt.id.0))
        else {
            break;
        };
        let attempt = attempt.id;
        let Some(next) = machine::restarted(&charge, app.clock.now()) else { break };
        if send::commit_moved(app, &charge, &next, attempt).await {
            return next;
        }
        charge = create::as_it_stands(app, charge).await;
    }
    charge
}
