//! After a restart: what arrived while no edge was there is recorded, what was being sent may have been sent, and the rest is looked
//! into.

use std::collections::{HashMap, HashSet};

use super::machine::{self, How};
use super::send::{self, By};
use super::{Error, create, resolve};
use crate::card::id::AttemptId;
use crate::edge::App;
use crate::edge::store::{AttemptState, ChargeRow};
use crate::wire::forwarder::Outcome;
use crate::wire::keeper::{KNOWN_MAX, Known};

/// More than can be in flight when a process dies.
const OPEN_MAX: usize = 100_000;
/// Charges whose outcomes are held here at once.
const PAGE: usize = 200;
/// How often a charge is taken up again when another change came first.
const TRIES_MAX: u32 = 8;

/// Takes up what was in flight when the edge before this one ended. It returns when every outcome that the keeper has is in the log and
/// nothing is `sending` any more; what is unknown is looked into from then on. Safe to call again.
pub async fn recover(app: &App) -> Result<(), Error> {
    // Listed first: what arrives later may be of a charge that the walk has passed by then.
    let mut listed: HashSet<AttemptId> = app.keeper.outcomes().await?.into_iter().collect();
    let open = app.store.open_charges(OPEN_MAX).await?;
    for page in open.chunks(PAGE) {
        let outcomes = outcomes_of(app, page, &mut listed).await?;
        for charge in page {
            app.charges.unnamed.note(charge);
            let charge = take_up(app, charge.clone(), &outcomes).await;
            resolve::spawn(app, charge);
        }
    }
    // What is not open any more was committed before its acknowledgement got lost.
    let ours =
        |attempt: &AttemptId| app.charges.is_from_before(attempt.0) && !app.forwards.awaits_outcome(*attempt);
    let attempts: Vec<_> = listed.into_iter().filter(ours).collect();
    if !attempts.is_empty() {
        app.keeper.acknowledge(attempts, Vec::new()).await?;
    }
    Ok(())
}

/// What became of the attempts of these charges that the process before this one made. What is being sent leaves the list of what may
/// be acknowledged: its outcome is on its way.
async fn outcomes_of(
    app: &App,
    charges: &[ChargeRow],
    listed: &mut HashSet<AttemptId>,
) -> Result<HashMap<AttemptId, Outcome>, Error> {
    let mut asked: Vec<AttemptId> = charges
        .iter()
        .flat_map(machine::unsettled)
        .map(|(_, attempt)| attempt.id)
        .filter(|id| app.charges.is_from_before(id.0))
        .collect();
    let mut outcomes = HashMap::new();
    while !asked.is_empty() {
        let some = asked.get(..KNOWN_MAX).unwrap_or(&asked).to_vec();
        let known = app.keeper.known(some).await?;
        for (attempt, known) in asked.drain(..known.len()).zip(known) {
            match known {
                Known::Outcome(outcome) => drop(outcomes.insert(attempt, *outcome)),
                Known::UnderWay => drop(listed.remove(&attempt)),
                Known::Nothing => {}
            }
        }
    }
    Ok(outcomes)
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
