//! How long an authorization holds, by what the connector says of its processor.

use crate::card::brand::Brand;
use crate::edge::App;
use crate::edge::store::{ChargeRow, OperationKind};
use crate::wire::control::DestinationInfo;

const HOUR_SECONDS: i64 = 3_600;
/// Where the destination is gone from the configuration: what most networks grant.
const HOLD_SECONDS: i64 = 7 * 24 * HOUR_SECONDS;

/// How long a charge's authorization holds once it is approved. The card's brand is looked up only where it makes a difference.
pub(super) async fn hold_seconds(app: &App, charge: &ChargeRow) -> i64 {
    let destinations = app.directory.destinations();
    let Some(to) = destinations.iter().find(|to| to.name == charge.destination) else { return HOLD_SECONDS };
    let by_merchant = charge.initiator == "merchant" && !to.merchant_hours.is_empty();
    let is_hold = charge.operations.first().is_some_and(|first| first.kind == OperationKind::Authorize);
    let brand = if is_hold && by_merchant { brand(app, charge).await } else { None };
    seconds(to, brand)
}

fn seconds(to: &DestinationInfo, asked_by_merchant_of: Option<Brand>) -> i64 {
    let own = asked_by_merchant_of.and_then(|brand| to.merchant_hours.get(brand.name()));
    i64::from(*own.unwrap_or(&to.authorization_hours)).saturating_mul(HOUR_SECONDS)
}

/// The brand of the version that was charged.
async fn brand(app: &App, charge: &ChargeRow) -> Option<Brand> {
    let current = app.store.card(charge.tenant, charge.token).await.ok()??;
    let card = if current.version == charge.card_version {
        current
    } else {
        app.store.card_version(charge.tenant, charge.token, charge.card_version).await.ok()??
    };
    card.shown.map(|shown| shown.brand)
}
