//! Retention (PCI DSS 3.2.1): a card that no agreement keeps is erased so many days after it was last of use, as its tenant's policy
//! says. Once a day all cards that are old enough are looked through, a page at a time; each erasure is a change of its own, decided
//! once more by the writer. What dies in between leaves the rest to the next look.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::App;
use super::audit::catalogue;
use super::audit::event::{Actor, EventDraft, EventOutcome, Facts, Origin, Target};
use super::outlived::{self, Forgotten};
use super::store::{Change, CommitError, IdleCard, RowChange, StoreError};
use crate::card::id::EventId;
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::erasure::{Retention, RetentionConfig};
use crate::random::NoRandomness;
use crate::wire::control::AdminAnswer;

/// Cards of one step.
pub(super) const PAGE: usize = 256;
/// Between two steps, so that whoever waits for the store does not notice.
pub(super) const PAGE_PAUSE: Duration = Duration::from_millis(10);
/// Between two looks at whether the start is over.
const RECOVERED_LOOK: Duration = Duration::from_millis(50);
/// How often it is looked whether a look is due.
const EVERY: Duration = Duration::from_mins(1);
/// From one look through all cards to the next.
const LOOK_SECONDS: i64 = 86_400;
/// Who does it, in events.
pub(super) const ACTOR: &str = "retention";
/// Why an agreement ended that waited for its customer.
const ENDED_REASON: &str = "erased";

/// What a look through all cards came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Tenants with a policy.
    pub tenants: usize,
    /// Cards that were erased, or will be as soon as no charge needs them.
    pub erased: u64,
    /// Cards past their limit that a legal hold keeps.
    pub held: u64,
    /// Cards past their limit that could not be erased.
    pub overdue: u64,
    /// What became of charges, agreements and answers.
    pub records: Forgotten,
    /// When it ended; none before the first.
    pub ended_at: Option<Time>,
}

/// Why a card was not erased.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// Looks once a day, and soon after policies have changed.
pub(super) async fn run(app: App) {
    while !app.is_recovered() {
        tokio::time::sleep(RECOVERED_LOOK).await;
    }
    let mut looked: Option<(Time, Arc<Retention>)> = None;
    loop {
        let (now, policies) = (app.clock.now(), app.directory.retention());
        let is_due =
            looked.as_ref().is_none_or(|(at, by)| at.plus_seconds(LOOK_SECONDS) <= now || *by != policies);
        if is_due {
            match look(&app).await {
                Ok(()) => looked = Some((now, policies)),
                Err(_) => {
                    tracing::warn!(code = "retention", "cards past their retention could not be looked for")
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Looks through all cards that are old enough, and erases those that are past their limit.
pub(super) async fn look(app: &App) -> Result<(), StoreError> {
    let (now, policies) = (app.clock.now(), app.directory.retention());
    let tenants = app.directory.tenants();
    let policies: BTreeMap<TenantId, RetentionConfig> = tenants
        .iter()
        .filter_map(|(tenant, info)| Some((*tenant, policies.get(&info.name).copied()?)))
        .collect();
    let limits: BTreeMap<TenantId, Time> =
        policies.iter().map(|(tenant, policy)| (*tenant, policy.limit(now))).collect();
    let (mut report, mut after) = (Report { tenants: limits.len(), ..Report::default() }, None);
    loop {
        let page = app.store.idle_cards(&limits, after, PAGE).await?;
        for card in page.cards {
            let (Some(policy), Some(limit)) = (policies.get(&card.tenant), limits.get(&card.tenant)) else {
                continue;
            };
            if card.held {
                report.held += 1;
                continue;
            }
            match erase(app, &card, *policy, *limit).await {
                Ok(()) => report.erased += 1,
                // It was used, held or erased meanwhile.
                Err(Error::Commit(CommitError::Conflict | CommitError::NotFound)) => {}
                Err(error) => {
                    report.overdue += 1;
                    tracing::warn!(code = "retention", token = %card.token, reason = %error, "a card past its retention could not be erased");
                }
            }
        }
        after = page.after;
        if after.is_none() {
            break;
        }
        tokio::time::sleep(PAGE_PAUSE).await;
    }
    report.records = outlived::look(app, &policies, now).await?;
    report.ended_at = Some(app.clock.now());
    app.metrics.retention(&report);
    *app.retained.lock().unwrap_or_else(PoisonError::into_inner) = report;
    if report.erased > 0 {
        app.important.notify_one();
        tracing::info!(cards = report.erased, "cards past their retention were erased");
    }
    Ok(())
}

async fn erase(app: &App, card: &IdleCard, policy: RetentionConfig, limit: Time) -> Result<(), Error> {
    let mut change = Change {
        rows: vec![RowChange::EraseIdle { card: *card, before: limit }],
        events: vec![event(app, card, catalogue::CARD_ERASE, ("card", card.token.to_string()))?],
        idempotency: None,
    };
    if let Some(erased) = change.events.first_mut() {
        erased.facts.note = Some(ACTOR.to_owned());
        erased.facts.fields = policy.words();
    }
    // None lives, but one may wait for its customer to pay with another number.
    let agreements = app.store.agreements(card.tenant, card.token).await?;
    for mut row in agreements.into_iter().filter(|row| row.awaits_customer()) {
        row.ended_reason = Some(ENDED_REASON.to_owned());
        row.revision = row.revision.saturating_add(1);
        let mut ended = event(app, card, catalogue::AGREEMENT_END, ("agreement", row.id.to_string()))?;
        ended.facts.note = Some(ENDED_REASON.to_owned());
        change.events.push(ended);
        change.rows.push(RowChange::PutAgreement(Box::new(row)));
    }
    app.store.commit(change).await?;
    Ok(())
}

fn event(
    app: &App,
    card: &IdleCard,
    action: &'static str,
    (kind, id): (&str, String),
) -> Result<EventDraft, NoRandomness> {
    Ok(EventDraft {
        id: EventId::make(app.clock.now())?,
        tenant: Some(card.tenant),
        actor: Actor::System(ACTOR.to_owned()),
        origin: Origin::default(),
        action,
        outcome: EventOutcome::Ok,
        target: Target { kind: kind.to_owned(), id, version: None },
        keys: Vec::new(),
        facts: Facts::default(),
    })
}

/// What came of the last look.
pub(super) fn report(app: &App) -> AdminAnswer {
    let report = *app.retained.lock().unwrap_or_else(PoisonError::into_inner);
    let head = [
        "last run",
        "tenants",
        "erased",
        "held",
        "overdue",
        "keys overdue",
        "records erased",
        "records held",
        "records overdue",
    ];
    let line = vec![
        report.ended_at.map_or_else(String::new, |at| at.to_string()),
        report.tenants.to_string(),
        report.erased.to_string(),
        report.held.to_string(),
        report.overdue.to_string(),
        app.metrics.erased_keys_overdue_now().to_string(),
        report.records.erased.to_string(),
        report.records.held.to_string(),
        report.records.overdue.to_string(),
    ];
    AdminAnswer::Table(vec![head.map(str::to_owned).to_vec(), line])
}
