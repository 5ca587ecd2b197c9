//! The order of one forward: the keeper opens and fills; one change makes forward, key and disclosure durable; the keeper releases against
//! its grant; one change records what became of it. It runs in a task of its own, so that a caller who hangs up stops nothing.

use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Error, acknowledge};
use crate::card::id::{AttemptId, EventId, Token};
use crate::card::tenant::TenantId;
use crate::edge::App;
use crate::edge::attest::opening_of;
use crate::edge::audit::catalogue;
use crate::edge::audit::event::{Actor, EventDraft, EventOutcome, Facts, Origin, Target};
use crate::edge::charge;
use crate::edge::store::{
    Change, CommitError, ForwardAnswer, ForwardRow, ForwardStatus, Idempotency, Outbound, RowChange,
    StoredAnswer,
};
use crate::edge::working::Working;
use crate::wire::forwarder::{Outcome, Sent};
use crate::wire::keeper::{PrepareForward, Prepared};

/// Between two tries to commit an outcome that the store does not take.
const COMMIT_AGAIN: Duration = Duration::from_millis(500);

/// The idempotency key of a request, and the card that it is about.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) tenant: TenantId,
    pub(super) route: &'static str,
    pub(super) key: [u8; 32],
    pub(super) body_mac: [u8; 32],
    pub(super) token: Token,
}

/// A forward before it is prepared.
pub(super) struct Draft {
    pub(super) row: ForwardRow,
    pub(super) prepare: Box<PrepareForward>,
    pub(super) keys: Vec<u32>,
    pub(super) actor: Actor,
    pub(super) origin: Origin,
    /// For its answer, until the keeper need not hold that any more.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// Prepares, commits, sends, records. `begun` hears of the first change.
pub(super) async fn run(
    app: App,
    draft: Draft,
    (claim, guard): (Claim, Working),
    begun: oneshot::Sender<Result<ForwardRow, Error>>,
) -> Option<ForwardRow> {
    let Draft { mut row, prepare, keys, actor, origin, room } = draft;
    let (attempt, event) = (prepare.attempt, prepare.event);
    let of = (row.tenant, row.token, attempt);
    let prepared = charge::accounted(&app, of, app.keeper.prepare_forward(prepare).await).await;
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            // Whoever asks again at once finds nobody at work.
            drop(guard);
            drop(begun.send(Err(error)));
            return None;
        }
    };
    let by = (actor.clone(), origin.clone());
    let grant = match commit_sending(&app, &mut row, (event, keys), &prepared, by, &claim).await {
        Ok(grant) => grant,
        Err(error) => {
            charge::discard(&app, *prepared).await;
            drop(guard);
            drop(begun.send(Err(error.into())));
            return None;
        }
    };
    // Who asked may have hung up; the forward goes on.
    drop(begun.send(Ok(row.clone())));
    let outcome = charge::release(&app, prepared.held, grant, attempt).await;
    let row = record(&app, row, &outcome, (actor, origin)).await;
    acknowledge(&app, attempt, vec![event], room);
    drop(guard);
    Some(row)
}

/// The first change: forward, reservation, disclosure. Gives the grant.
async fn commit_sending(
    app: &App,
    row: &mut ForwardRow,
    (event, keys): (EventId, Vec<u32>),
    prepared: &Prepared,
    (actor, origin): (Actor, Origin),
    claim: &Claim,
) -> Result<u64, CommitError> {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    row.mac = hex(&prepared.mac);
    row.rules_version = hex(&prepared.connector_version);
    let event = EventDraft {
        id: event,
        tenant: Some(row.tenant),
        actor,
        origin,
        action: catalogue::FORWARD_SEND,
        outcome: EventOutcome::Ok,
        target: target(row),
        keys,
        facts: Facts { opening: prepared.opening.clone().map(opening_of), ..Facts::default() },
    };
    let change = Change {
        rows: vec![RowChange::PutForward(Box::new(row.clone()))],
        events: vec![event],
        idempotency: Some(Idempotency {
            tenant: claim.tenant,
            route: claim.route,
            key: claim.key,
            body_mac: claim.body_mac,
            subject_token: Some(claim.token),
            answer: StoredAnswer::Reserved { subject: row.id.to_string() },
        }),
    };
    app.store.commit(change).await.map(|committed| committed.grant.seq)
}

/// The second change: what was learnt and its event. It is tried until it is in: an outcome is never dropped. Gives the forward as it is
/// then.
pub(super) async fn record(
    app: &App,
    mut row: ForwardRow,
    outcome: &Outcome,
    (actor, origin): (Actor, Origin),
) -> ForwardRow {
    while row.status == ForwardStatus::Sending {
        let next = finished(&row, outcome, app.clock.now());
        let Ok(id) = EventId::make(app.clock.now()) else {
            tokio::time::sleep(COMMIT_AGAIN).await;
            continue;
        };
        let event = EventDraft {
            id,
            tenant: Some(next.tenant),
            actor: actor.clone(),
            origin: origin.clone(),
            action: catalogue::FORWARD_OUTCOME,
            outcome: match next.status {
                ForwardStatus::Sending | ForwardStatus::Answered => EventOutcome::Ok,
                ForwardStatus::Failed | ForwardStatus::Unknown => {
                    EventOutcome::Error(status_word(next.status).to_owned())
                }
            },
            target: target(&next),
            keys: Vec::new(),
            facts: Facts { note: Some(status_word(next.status).to_owned()), ..Facts::default() },
        };
        let change = Change {
            rows: vec![RowChange::PutForward(Box::new(next.clone()))],
            events: vec![event],
            idempotency: None,
        };
        match app.store.commit(change).await {
            Ok(_) => {
                app.metrics.forward(status_word(next.status));
                return next;
            }
            Err(error) => {
                if !matches!(error, CommitError::Conflict) {
                    tracing::warn!(
                        code = "outcome_waits",
                        "what became of a forward could not be committed yet"
                    );
                    tokio::time::sleep(COMMIT_AGAIN).await;
                }
                if let Ok(Some(stored)) = app.store.forward(row.tenant, row.id).await {
                    row = stored;
                }
            }
        }
    }
    row
}

/// The forward with what was learnt.
fn finished(row: &ForwardRow, outcome: &Outcome, now: crate::clock::Time) -> ForwardRow {
    let answer = outcome.forwarded.as_deref();
    let (status, outbound) = match outcome.sent {
        Sent::Not => (ForwardStatus::Failed, Outbound::NotSent),
        Sent::Maybe => (ForwardStatus::Unknown, Outbound::MaybeSent),
        Sent::Yes if answer.is_some() && outcome.error.is_none() => (ForwardStatus::Answered, Outbound::Sent),
        Sent::Yes => (ForwardStatus::Unknown, Outbound::Sent),
    };
    let given = answer.filter(|_| status == ForwardStatus::Answered);
    ForwardRow {
        revision: row.revision.saturating_add(1),
        status,
        outbound,
        error: outcome.error.clone(),
        upstream_status: answer.map(|answer| answer.http_status),
        upstream_us: Some(outcome.upstream_us).filter(|us| *us > 0),
        finished_at: Some(now),
        answer: given.map(|answer| ForwardAnswer {
            headers: answer.headers.clone(),
            is_json: answer.is_json,
            body: answer.body.clone(),
        }),
        ..row.clone()
    }
}

/// An outcome that says that nobody knows.
pub(super) fn lost(attempt: AttemptId) -> Outcome {
    Outcome {
        attempt,
        sent: Sent::Maybe,
        answer: None,
        error: Some("restarted".to_owned()),
        credentials_changed: false,
        card_update: None,
        upstream_us: 0,
        forwarded: None,
    }
}

/// The word for a status.
pub(super) const fn status_word(status: ForwardStatus) -> &'static str {
    match status {
        ForwardStatus::Sending => "sending",
        ForwardStatus::Answered => "answered",
        ForwardStatus::Failed => "failed",
        ForwardStatus::Unknown => "unknown",
    }
}

fn target(row: &ForwardRow) -> Target {
    Target { kind: "forward".to_owned(), id: row.id.to_string(), version: Some(row.revision) }
}
