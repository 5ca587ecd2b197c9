//! After a restart: what arrived while no edge was there is recorded, what was being sent may have been sent, and the rest is looked
//! into.

use std::collections::{HashMap, HashSet};

use super::machine::{self, How};
use super::send::{self, By};
use super::{Error, resolve};
use crate::card::id::AttemptId;
use crate::edge::App;
use crate::edge::store::{Attempt, AttemptState, ChargeRow, CommitError};
use crate::wire::forwarder::Outcome;
use crate::wire::keeper::{KNOWN_MAX, Known};

/// Charges that are held here at once, with what became of them. Tests are to see more than one page.
const PAGE: usize = if cfg!(test) { 20 } else { 200 };
/// How often a charge is taken up again when another change came first.
const TRIES_MAX: u32 = 8;

/// Takes up what was in flight when the edge before this one ended. It returns when every outcome that the keeper has is in the log and
/// nothing is `sending` any more; what is unknown is looked into from then on. Safe to call again, and after an error it must be.
pub async fn recover(app: &App) -> Result<(), Error> {
    // Listed first: what arrives later may be of a charge that the walk has passed by then.
    let mut listed: HashSet<AttemptId> = app.keeper.outcomes().await?.into_iter().collect();
    let (mut after, mut failed) = (None, None);
    loop {
        let page = app.store.open_charges(after, PAGE).await?;
        let is_last = page.len() < PAGE;
        after = page.last().map(|charge| charge.id);
        let outcomes = outcomes_of(app, &page, &mut listed).await?;
        for charge in page {
            app.charges.unnamed.note(&charge);
            match take_up(app, charge, &outcomes).await {
                Ok(charge) => resolve::spawn(app, charge),
                // The others need not wait for what this one waits for.
                Err(error) => failed = Some(error),
            }
        }
        // What is opened while this runs is newer, and has a task of its own.
        if is_last {
            break;
        }
    }
    // Nothing is acknowledged before all is taken up: whoever repeats this asks for it again.
    failed.map_or(Ok(()), Err)?;
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

/// Records what is known of a charge, and has nothing of it `sending` any more.
async fn take_up(
    app: &App,
    mut charge: ChargeRow,
    outcomes: &HashMap<AttemptId, Outcome>,
) -> Result<ChargeRow, Error> {
    let is_from_before = |attempt: &Attempt| app.charges.is_from_before(attempt.id.0);
    let attempts: Vec<_> =
        machine::unsettled(&charge).filter(|(_, one)| is_from_before(one)).map(|(_, one)| one.id).collect();
    for outcome in attempts.iter().filter_map(|id| outcomes.get(id)) {
        charge = send::record(app, charge, outcome, How::Sent, &By::vault(), None).await;
    }
    let mut tries = 0;
    loop {
        let sending = machine::unsettled(&charge).find(|(_, one)| one.state == AttemptState::Sending);
        let Some((_, attempt)) = sending.filter(|(_, attempt)| is_from_before(attempt)) else {
            return Ok(charge);
        };
        let attempt = attempt.id;
        let Some(next) = machine::restarted(&charge, app.clock.now()) else { return Ok(charge) };
        match send::try_moved(app, (&charge, &next), attempt, &By::vault()).await {
            Ok(()) => return Ok(next),
            Err(Error::Commit(CommitError::Conflict)) if tries < TRIES_MAX => {
                tries += 1;
                let stored = app.store.charge(charge.tenant, &charge.id.to_string()).await?;
                charge = stored.ok_or(Error::ChargeUnknown)?;
            }
            Err(error) => return Err(error),
        }
    }
}
