//! `token.expiring`: a card that ends in this month or the next. The expiry is sealed, so the keeper is asked, in pages, and says of each
//! card only whether it is so. The store tells of each version of a card once.

use std::time::Duration;

use super::super::App;
use super::super::store::{CardStatus, Change, Expiring, RowChange, WebhookChange};
use super::Error;
use crate::wire::keeper::{ExpireBy, OpenExpiry};

/// Cards of one question.
const PAGE: usize = 200;
/// Between two pages, so that whoever waits for the keeper does not notice.
const PAGE_PAUSE: Duration = Duration::from_millis(20);
/// Between two looks at whether the start is over.
const RECOVERED_LOOK: Duration = Duration::from_millis(50);
/// How often it is looked whether a look is due.
const EVERY: Duration = Duration::from_mins(1);
/// From one look through all cards to the next.
const LOOK_SECONDS: i64 = 86_400;
const KIND: &str = "token.expiring";

/// Looks through the cards once a day, and soon after the first endpoint wants to know.
pub(in crate::edge) async fn run(app: App) {
    while !app.is_recovered() {
        tokio::time::sleep(RECOVERED_LOOK).await;
    }
    let mut looked = None;
    loop {
        let now = app.clock.now();
        let is_due = looked.is_none_or(|at: crate::clock::Time| at.plus_seconds(LOOK_SECONDS) <= now);
        if is_due {
            match look(&app).await {
                Ok(true) => looked = Some(now),
                // Nobody wants to know.
                Ok(false) => {}
                Err(_) => tracing::warn!(code = "expiring", "it could not be looked which cards expire"),
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Tells of all cards that expire soon; false if no endpoint wants to know.
pub(super) async fn look(app: &App) -> Result<bool, Error> {
    let endpoints = app.store.webhook_endpoints().await?;
    let is_wanted = |tenant| endpoints.iter().any(|row| row.tenant == tenant && row.wants(KIND));
    if !endpoints.iter().any(|row| row.wants(KIND)) {
        return Ok(false);
    }
    let (year, month) = app.clock.now().year_month();
    let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    let by = (u16::try_from(year).unwrap_or(u16::MAX), u8::try_from(month).unwrap_or(12));
    let mut after = None;
    loop {
        let cards = app.store.cards_after(after, PAGE).await?;
        let Some(last) = cards.last() else { return Ok(true) };
        after = Some(last.token);
        let cards = cards.into_iter().filter(|card| card.status == CardStatus::Active);
        let asked: Vec<_> = cards
            .filter(|card| is_wanted(card.tenant))
            .filter_map(|card| {
                let sealed = card.sealed?;
                let (tenant, token, version) = (card.tenant, card.token, card.version);
                let open = OpenExpiry { tenant, token, policy: sealed.policy, sealed: sealed.expiry };
                Some((open, Expiring { tenant, token, version }))
            })
            .collect();
        let (opens, of): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
        if !opens.is_empty() {
            let expire = app.keeper.expire_by(Box::new(ExpireBy { cards: opens, by })).await?;
            let expiring: Vec<_> =
                of.into_iter().zip(expire).filter(|(_, expires)| *expires).map(|(of, _)| of).collect();
            for some in expiring.chunks(PAGE / 4) {
                let rows = vec![RowChange::Webhook(WebhookChange::TellExpiring(some.to_vec()))];
                app.store.commit(Change { rows, ..Change::default() }).await?;
            }
        }
        tokio::time::sleep(PAGE_PAUSE).await;
    }
}
