//! Refunds that need the card: whoever erases it is told first of the charges that could not be given back afterwards.

use super::{Error, rules};
use crate::card::id::{ChargeId, Token};
use crate::card::sealed::SealedCard;
use crate::edge::App;
use crate::edge::directory::Caller;
use crate::edge::keeper::KeeperError;
use crate::edge::store::{CardStatus, ChargeFilter, ChargeRow};
use crate::wire::keeper::{Refusal, RefusalCode};

const PAGE: usize = 100;

/// Fails with [`Error::RefundsNeedCard`] if a charge of the card can still be refunded and its processor takes no refund without the
/// card. A card whose erase was asked for before is not looked at again.
pub async fn check_erase(app: &App, caller: &Caller, token: Token) -> Result<(), Error> {
    let destinations = app.directory.destinations();
    if !destinations.iter().any(|to| to.refund_needs_card) {
        return Ok(());
    }
    let tenant = caller.tenant_id();
    let asked_before = |status| matches!(status, CardStatus::Erasing | CardStatus::Erased);
    let card = app.store.card(tenant, token).await?;
    if card.is_none_or(|card| card.erase_asked || asked_before(card.status)) {
        return Ok(());
    }
    let filter = ChargeFilter { refunded_with_card: Some(token), ..ChargeFilter::default() };
    let (mut newest, mut names, mut after) = (None, Vec::new(), None);
    loop {
        let page = app.store.charges(tenant, &filter, after, PAGE).await?;
        after = page.rows.last().map(|charge| charge.id);
        for charge in page.rows.iter().filter(|charge| may_be_refunded(charge) && needs_card(app, charge)) {
            newest = newest.or(Some(charge.id));
            if !names.contains(&charge.destination) {
                names.push(charge.destination.clone());
            }
        }
        if !page.more {
            break;
        }
    }
    names.sort_unstable();
    newest.map_or(Ok(()), |charge: ChargeId| Err(Error::RefundsNeedCard { charge, destinations: names }))
}

/// Something of it can be given back, now or once it is known what became of it.
fn may_be_refunded(charge: &ChargeRow) -> bool {
    use crate::edge::store::ChargeStatus::{Authorized, Manual, Pending, Processing, Unknown};
    matches!(charge.status, Processing | Pending | Unknown | Authorized | Manual)
        || rules::refund_amount(charge, None).is_ok()
}

/// Whether the charge's processor takes no refund without the card, as its connector is now.
pub(super) fn needs_card(app: &App, charge: &ChargeRow) -> bool {
    let destinations = app.directory.destinations();
    destinations.iter().any(|to| to.name == charge.destination && to.refund_needs_card)
}

/// The sealed card as it was charged. Where its expiry or zip changed since, the number is kept by the current version only; where
/// the number changed, it is gone.
pub(super) async fn sealed_card(app: &App, charge: &ChargeRow) -> Result<SealedCard, Error> {
    let charged = app.store.card_version(charge.tenant, charge.token, charge.card_version).await?;
    let charged = charged.and_then(|card| Some((card.fingerprint, card.sealed?)));
    let (number, sealed) = charged.ok_or(Error::TokenErased { scrubbed_at: None })?;
    if !sealed.pan.envelope.is_empty() {
        return Ok(sealed);
    }
    let current = app.store.card(charge.tenant, charge.token).await?;
    let current = current.and_then(|card| Some((card.fingerprint, card.sealed?.pan)));
    match current.ok_or(Error::TokenErased { scrubbed_at: None })? {
        (same, pan) if same == number => Ok(SealedCard { pan, ..sealed }),
        _ => {
            let gone = Refusal::about(RefusalCode::RequiredByConnector, "card.number");
            Err(KeeperError::Refused(gone).into())
        }
    }
}
