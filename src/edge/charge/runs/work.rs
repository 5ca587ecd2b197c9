//! One line of a run, from its turn to its mark.

use std::sync::Arc;
use std::time::Duration;

use super::super::create::{self, OfLine};
use super::super::send::By;
use super::super::{Error, limits, resolve};
use crate::card::id::{ChargeId, EventId, RunId};
use crate::card::tenant::{Mode, TenantId};
use crate::edge::App;
use crate::edge::audit::catalogue;
use crate::edge::audit::event::{EventDraft, EventOutcome, Facts, Target};
use crate::edge::directory::Principal;
use crate::edge::http::problem::Problem;
use crate::edge::keeper::KeeperError;
use crate::edge::scope::Scope;
use crate::edge::store::{Change, ChargeStatus, CommitError, LineDone, OfRun, RowChange, RunOrder, RunRow};
use crate::wire::keeper::RefusalCode;

/// How often a line is tried anew because something else changed its card or invoice at that moment.
const CONFLICTS_MAX: u32 = 20;
/// How often a line is tried anew that the keeper cannot work on, while it may be able to work on others.
const FAULTS_MAX: u32 = 8;

/// A line that waits for its turn.
#[derive(Clone, Debug)]
pub(super) struct Todo {
    pub(super) line: u32,
    pub(super) order: RunOrder,
    /// Where it goes first, and where it may go instead.
    pub(super) to: Vec<String>,
    /// How often it was tried before.
    pub(super) tries: u32,
    /// What the keeper could not do about it.
    pub(super) faults: Faults,
}

/// How often the keeper had a fault with a line, and whether it worked on others meanwhile.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) count: u32,
    pub(super) others_go: bool,
}

impl Todo {
    pub(super) fn new(line: u32, order: RunOrder, to: Vec<String>, tries: u32) -> Self {
        Self { line, order, to, tries, faults: Faults::default() }
    }
}

/// How the work on a line ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ended {
    /// It has this charge, which stands so.
    Charged { id: ChargeId, status: ChargeStatus, too_much: bool, wait: Duration },
    /// It had this charge before, which stands so.
    Marked { id: ChargeId, status: ChargeStatus },
    /// It cannot be charged, and is marked so.
    Refused,
    /// Something else changed first: at once again.
    Again,
    /// Store or keeper are not there: later again.
    NotNow,
    /// The keeper has a fault with this one, maybe with this one alone: again, behind the others.
    Faulty,
    /// No line may be charged any more, for this reason.
    Stop(&'static str),
}

impl Ended {
    const fn is_failed(&self) -> bool {
        matches!(self, Self::Marked { status: ChargeStatus::Failed, .. })
    }
}

/// By whose leave a run charges.
#[derive(Clone)]
pub(super) struct Allowed {
    principal: Arc<Principal>,
    tenant: (TenantId, Mode),
}

/// Whether who made a run may still charge; the reason if not.
pub(super) fn allowed(app: &App, run: &RunRow) -> Result<Allowed, &'static str> {
    let principals = app.directory.principals();
    let principal = principals.iter().find(|principal| principal.id == run.principal);
    let is_over = |principal: &&Arc<Principal>| {
        principal.row.disabled || principal.row.expires_at.is_some_and(|end| end <= app.clock.now())
    };
    let principal = principal.filter(|one| !is_over(one)).ok_or("principal_disabled")?;
    match app.directory.authorize(principal, Scope::ChargesCreate) {
        Ok(Some(tenant)) if tenant.0 == run.tenant => {
            Ok(Allowed { principal: Arc::clone(principal), tenant })
        }
        Ok(_) => Err("principal_disabled"),
        Err(denied) => Err(denied.code()),
    }
}

/// Where a line goes first: what it names, else what its route chooses, and then the others of that. A nameless one if that cannot
/// be said; when it is charged, it is chosen anew.
pub(super) async fn destinations_of(app: &App, run: &RunRow, order: &RunOrder) -> Vec<String> {
    if let Some(name) = &order.destination {
        return vec![name.clone()];
    }
    let nameless = vec![String::new()];
    let Ok(Allowed { principal, tenant }) = allowed(app, run) else { return nameless };
    create::destinations_of_line(app, &principal, tenant, order).await.unwrap_or(nameless)
}

/// Charges a line, first at this destination of its route, or marks why not.
pub(super) async fn work(
    app: &App,
    allowed: &Allowed,
    run: RunId,
    todo: &Todo,
    (by, at): (&By, &str),
) -> Ended {
    let of = OfRun { id: run, line: todo.line };
    let Allowed { principal, tenant } = allowed;
    match create::charge_line(app, principal, *tenant, (&todo.order, of), (by, at)).await {
        Ok(OfLine { id, status, too_much, wait }) => Ended::Charged { id, status, too_much, wait },
        Err(Error::Commit(CommitError::Conflict)) if todo.tries < CONFLICTS_MAX => {
            let marked = as_marked(app, tenant.0, of).await;
            // A failed charge does not keep the line from another one.
            marked.filter(|ended| !ended.is_failed()).unwrap_or(Ended::Again)
        }
        Err(Error::LimitExceeded)
            if !limits::is_over_the_largest(&principal.row, todo.order.amount, &todo.order.currency) =>
        {
            Ended::Stop("limit_exceeded")
        }
        Err(error) if is_fault(&error) && todo.faults.count < FAULTS_MAX => Ended::Faulty,
        // With no line it works: that is not this line's fault, and somebody has to look at the keeper.
        Err(error) if is_fault(&error) && !todo.faults.others_go => Ended::Stop(name_of(error)),
        Err(error) if is_for_now(&error) && !is_fault(&error) => Ended::NotNow,
        Err(error) => refuse(app, tenant.0, of, by, name_of(error)).await,
    }
}

fn name_of(error: Error) -> &'static str {
    Problem::from(error).code().spec().name
}

/// Whether the keeper is there, and could not do what was asked about this card.
const fn is_fault(error: &Error) -> bool {
    let Error::Keeper(KeeperError::Refused(refusal) | KeeperError::RefusedAfterOpening(refusal, _)) = error
    else {
        return false;
    };
    matches!(refusal.code, RefusalCode::KeyUnavailable | RefusalCode::Internal)
}

/// The line as it is marked already, if it is.
async fn as_marked(app: &App, tenant: TenantId, of: OfRun) -> Option<Ended> {
    let row = app.store.run_lines(tenant, of.id, of.line, 1).await.ok()?.into_iter().next()?;
    match row.done.filter(|_| row.number == of.line)? {
        LineDone::Charge(id, status) => Some(Ended::Marked { id, status }),
        LineDone::Refused(_) => Some(Ended::Refused),
    }
}

/// Whether an error is of this moment, and nothing was sent.
fn is_for_now(error: &Error) -> bool {
    if let Error::Commit(error) = error {
        return matches!(error, CommitError::Unavailable(_));
    }
    matches!(error, Error::LimitsUnknown) || resolve::is_passing(error)
}

/// Marks a line that cannot be charged. One that had a charge before, which failed, ends as that one: its mark stays.
async fn refuse(app: &App, tenant: TenantId, of: OfRun, by: &By, code: &'static str) -> Ended {
    let Ok(id) = EventId::make(app.clock.now()) else { return Ended::NotNow };
    let event = EventDraft {
        id,
        tenant: Some(tenant),
        actor: by.actor.clone(),
        origin: by.origin.clone(),
        action: catalogue::RUN_LINE_REFUSED,
        outcome: EventOutcome::Denied(code.to_owned()),
        target: Target { kind: "run".to_owned(), id: of.id.to_string(), version: None },
        keys: Vec::new(),
        facts: Facts { count: Some(of.line.into()), note: Some(code.to_owned()), ..Facts::default() },
    };
    let row = RowChange::RefuseRunLine { of, tenant, code: code.to_owned() };
    match app.store.commit(Change { rows: vec![row], events: vec![event], idempotency: None }).await {
        Ok(_) => Ended::Refused,
        Err(CommitError::Conflict) => as_marked(app, tenant, of).await.unwrap_or(Ended::NotNow),
        Err(_) => Ended::NotNow,
    }
}
