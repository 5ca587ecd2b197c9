//! Retention of what outlives a card: a charge is forgotten so many days after its last change, an agreement with its consent so many
//! days after it ended and its card was erased, as the tenant's policy says; then what was answered about them. Looked for with the
//! cards, once a day; each is a change of its own, decided once more by the writer.

use std::collections::BTreeMap;

use super::App;
use super::audit::catalogue;
use super::audit::event::{Actor, EventDraft, EventOutcome, Facts, Origin, Target};
use super::retention::{ACTOR, PAGE, PAGE_PAUSE};
use super::store::{Change, CommitError, KeptBy, Outlived, OutlivedPlace, RowChange, StoreError};
use crate::card::id::EventId;
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::erasure::RetentionConfig;
use crate::random::NoRandomness;

/// What a look through all records came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Forgotten {
    /// Charges, agreements and answers that are gone.
    pub erased: u64,
    /// Past their limit, and a legal hold of their card keeps them.
    pub held: u64,
    /// Past their limit, and not gone: their outcome has to be found out, or settled, first.
    pub overdue: u64,
}

/// Why a record was not forgotten.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// Looks through all records that are old enough, and forgets those that are past their limit.
pub(super) async fn look(
    app: &App,
    policies: &BTreeMap<TenantId, RetentionConfig>,
    now: Time,
) -> Result<Forgotten, StoreError> {
    let limits: BTreeMap<TenantId, Time> =
        policies.iter().filter_map(|(tenant, policy)| Some((*tenant, policy.charges_limit(now)?))).collect();
    let (mut forgotten, mut after) = (Forgotten::default(), Some(OutlivedPlace::START));
    while let Some(place) = after {
        let page = app.store.outlived(&limits, place, PAGE).await?;
        for (record, kept) in page.records {
            match kept {
                Some(KeptBy::Hold) => forgotten.held += 1,
                Some(KeptBy::Open) => forgotten.overdue += 1,
                None => match forget(app, record, (policies, &limits)).await {
                    Ok(()) => forgotten.erased += 1,
                    // It changed, was held or forgotten meanwhile.
                    Err(Error::Commit(CommitError::Conflict | CommitError::NotFound)) => {}
                    Err(error) => {
                        forgotten.overdue += 1;
                        tracing::warn!(code = "retention", reason = %error, "a record past its retention could not be erased");
                    }
                },
            }
        }
        after = page.after;
        tokio::time::sleep(PAGE_PAUSE).await;
    }
    if forgotten.erased > 0 {
        tracing::info!(records = forgotten.erased, "records past their retention were erased");
    }
    Ok(forgotten)
}

async fn forget(
    app: &App,
    record: Outlived,
    (policies, limits): (&BTreeMap<TenantId, RetentionConfig>, &BTreeMap<TenantId, Time>),
) -> Result<(), Error> {
    let told = match record {
        Outlived::Charge { tenant, id } => Some((tenant, catalogue::CHARGE_FORGET, "charge", id.to_string())),
        Outlived::Agreement { tenant, id, .. } => {
            Some((tenant, catalogue::AGREEMENT_FORGET, "agreement", id.to_string()))
        }
        // It goes with what it is about, which was told.
        Outlived::Answer { .. } => None,
    };
    let before = told.as_ref().and_then(|(tenant, ..)| limits.get(tenant)).copied();
    let mut change = Change {
        rows: vec![RowChange::Forget { record, before: before.unwrap_or(Time::from_micros(0)) }],
        ..Change::default()
    };
    if let Some((tenant, action, kind, id)) = told {
        let fields = policies.get(&tenant).map(|policy| policy.words()).unwrap_or_default();
        change.events.push(EventDraft {
            id: EventId::make(app.clock.now())?,
            tenant: Some(tenant),
            actor: Actor::System(ACTOR.to_owned()),
            origin: Origin::default(),
            action,
            outcome: EventOutcome::Ok,
            target: Target { kind: kind.to_owned(), id, version: None },
            keys: Vec::new(),
            facts: Facts { fields, ..Facts::default() },
        });
    }
    app.store.commit(change).await?;
    Ok(())
}
