//! Another attempt of what a charge began with: under a key of its own, with the card as it is now, at the same destination or another.
//! For the schedule of retries and for a route that moves on; both only after an attempt that certainly moved no money.

use super::create::{self, chargeable};
use super::follow::prepare_for;
use super::machine::{self, How};
use super::send::{self, By, Claim};
use super::{Error, declines, limits};
use crate::card::id::{AttemptId, EventId};
use crate::clock::Time;
use crate::edge::App;
use crate::edge::store::{AgreementRow, AttemptState, ChargeRow};

/// Prepares, commits, sends and records one more attempt at `to`. `edit` writes what else changes with it. An error says that nothing
/// was committed and nothing left; the charge after it is what `record` made of it.
pub(super) async fn attempt(
    app: &App,
    charge: &ChargeRow,
    to: &str,
    (by, claim): (&By, Option<&Claim>),
    edit: impl FnOnce(&mut ChargeRow),
) -> Result<ChargeRow, Error> {
    // Whatever the caller thinks: with an attempt that may have moved money there is no other.
    if !has_moved_nothing(charge) {
        return Err(Error::State);
    }
    let destinations = app.directory.destinations();
    let info = destinations.iter().find(|known| known.name == to).ok_or(Error::DestinationUnknown)?;
    let card = chargeable(app.store.card(charge.tenant, charge.token).await?)?;
    let agreement = live_agreement(app, charge).await?;
    let slot = match charge.initiator.as_str() {
        "merchant" => declines::enter(app, &card, to, agreement.as_ref()).await?,
        _ => None,
    };
    let now = app.clock.now();
    let (id, event) = (AttemptId::make(now)?, EventId::make(now)?);
    let mut next = with_attempt(charge, id, to, now);
    next.card_version = card.version;
    next.refund_needs_card = info.refund_needs_card;
    edit(&mut next);
    machine::restate(&mut next);
    let operation = next.operations.first().cloned().ok_or(Error::State)?;
    let by_customer = next.initiator == "customer";
    let place = (next.destination.as_str(), next.currency.as_str());
    let credential = agreement.map(|row| create::stored_credential(&row, by_customer, place, now));
    let prepare = prepare_for(app, &next, &operation, (id, event), true, credential).await?;
    let keys = prepare.sealed.as_ref().map(crate::card::sealed::SealedCard::key_ids).unwrap_or_default();
    let prepared = send::prepare(app, prepare).await?;
    let grant = send::commit_sending(app, &mut next, (id, event), &prepared, by, keys, None).await?;
    // A route that moves on has given nothing back.
    if limits::is_freed(charge.status) {
        app.charges.limits.count_again(&next);
    }
    let outcome = send::release(app, prepared.held, grant, id).await;
    let next = send::record(app, next, &outcome, How::Sent, by, claim).await;
    drop(slot);
    let openings = prepared.opening.iter().map(|_| event).collect();
    send::acknowledge(app, vec![id], openings);
    Ok(next)
}

/// Whether every attempt so far certainly moved no money, and nothing was done on top.
pub(super) fn has_moved_nothing(charge: &ChargeRow) -> bool {
    let [first] = charge.operations.as_slice() else { return false };
    let nothing = |state| matches!(state, AttemptState::Declined | AttemptState::Failed);
    first.attempts.iter().all(|attempt| nothing(attempt.state))
}

/// The charge with one more attempt, about to be sent. What went before says where it went.
pub(super) fn with_attempt(charge: &ChargeRow, id: AttemptId, to: &str, now: Time) -> ChargeRow {
    let mut next = charge.clone();
    if let Some(first) = next.operations.first_mut() {
        for attempt in &mut first.attempts {
            attempt.destination.get_or_insert_with(|| charge.destination.clone());
        }
        first.attempts.push(send::make_attempt(id, now));
    }
    to.clone_into(&mut next.destination);
    next.revision = next.revision.saturating_add(1);
    next.updated_at = next.updated_at.max(now);
    next
}

/// The agreement of a charge, as long as it may be used.
async fn live_agreement(app: &App, charge: &ChargeRow) -> Result<Option<AgreementRow>, Error> {
    let by_customer = charge.initiator == "customer";
    let Some(id) = charge.agreement else {
        return if by_customer { Ok(None) } else { Err(Error::AgreementRequired) };
    };
    let rows = app.store.agreements(charge.tenant, charge.token).await?;
    let usable = |row: &AgreementRow| row.ended_at.is_none() || (by_customer && row.awaits_customer());
    let row = rows.into_iter().find(|row| row.id == id && usable(row));
    row.map(Some).ok_or(Error::AgreementRequired)
}
