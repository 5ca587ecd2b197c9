//! Cards that are to be erased and wait: what needs them ends by itself, or a person has to end it. A card that waits longer than
//! anything can need it is told of, in the log and the figures, once a day until it is gone.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::App;
use super::audit::catalogue;
use super::audit::event::{Actor, EventDraft, EventOutcome, Facts, Origin, Target};
use super::store::{CardRow, Change, ChargeFilter, ChargeStatus};
use super::vault::erase_deadline;
use super::{charge, store};
use crate::card::id::{EventId, Token};
use crate::card::tenant::TenantId;
use crate::clock::Time;

const EVERY: Duration = Duration::from_hours(1);
const TOLD_AGAIN_SECONDS: i64 = 86_400;
const PAGE: usize = 200;

/// Looks for such cards every hour.
pub(super) async fn run(app: App) {
    let mut told = HashMap::new();
    loop {
        if look(&app, &mut told).await.is_err() {
            tracing::warn!(code = "erasures", "it could not be looked which cards wait to be erased");
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Tells of each card that is overdue, unless that was done within a day.
pub(super) async fn look(app: &App, told: &mut HashMap<Token, Time>) -> Result<(), charge::Error> {
    let now = app.clock.now();
    let mut overdue = 0;
    for (tenant, token) in pinned(app).await? {
        let card = app.store.card(tenant, token).await?;
        let card = card.filter(|row| erase_deadline(row).is_some_and(|deadline| deadline <= now));
        let Some(card) = card else { continue };
        overdue += 1;
        if told.get(&token).is_none_or(|at| now >= at.plus_seconds(TOLD_AGAIN_SECONDS)) {
            let change = Change { events: vec![event(&card, now)?], ..Change::default() };
            app.store.commit(change).await?;
            told.insert(token, now);
            tracing::warn!(code = "erase_overdue", token = %token, "a card waits too long to be erased");
        }
    }
    app.metrics.erasures_overdue(overdue);
    Ok(())
}

/// The cards that a charge needs: those of open charges and of open authorizations. No other card waits.
async fn pinned(app: &App) -> Result<BTreeSet<(TenantId, Token)>, store::StoreError> {
    let (mut pinned, mut after) = (BTreeSet::new(), None);
    loop {
        let page = app.store.open_charges(after, PAGE).await?;
        pinned.extend(page.iter().map(|charge| (charge.tenant, charge.token)));
        if page.len() < PAGE {
            break;
        }
        after = page.last().map(|charge| charge.id);
    }
    let authorized = ChargeFilter { status: Some(ChargeStatus::Authorized), ..ChargeFilter::default() };
    for tenant in app.directory.tenants().keys() {
        let mut after = None;
        loop {
            let page = app.store.charges(*tenant, &authorized, after, PAGE).await?;
            after = page.rows.last().map(|row| row.id);
            pinned.extend(page.rows.iter().map(|charge| (charge.tenant, charge.token)));
            if !page.more {
                break;
            }
        }
    }
    Ok(pinned)
}

fn event(card: &CardRow, now: Time) -> Result<EventDraft, crate::random::NoRandomness> {
    Ok(EventDraft {
        id: EventId::make(now)?,
        tenant: Some(card.tenant),
        actor: Actor::System("eraser".to_owned()),
        origin: Origin::default(),
        action: catalogue::CARD_ERASE_OVERDUE,
        outcome: EventOutcome::Error("erase_overdue".to_owned()),
        target: Target { kind: "card".to_owned(), id: card.token.to_string(), version: None },
        keys: Vec::new(),
        facts: Facts::default(),
    })
}
