//! What administrators have the edge do, over the supervisor's local socket: tenants, principals and their credentials, and what
//! the supervisor did that the log has to know.

use data_encoding::HEXLOWER;

use super::App;
use super::audit::catalogue;
use super::audit::event::{Actor, EventDraft, EventOutcome, Facts, Origin, Target};
use super::charge;
use super::keys;
use super::retention;
use super::scope::Scope;
use super::store::{Change, CommitError, PrincipalKind, PrincipalRow, RowChange, StoreError, TenantRow};
use super::vault;
use crate::card::id::{ApprovalId, EventId, PrincipalId, RequestId, Token};
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::person::credential;
use crate::random::NoRandomness;
use crate::wire::control::{
    AdminAnswer, AdminCommand, GivenCredential, HoldOrder, PrincipalOrder, Recorded, TenantInfo,
};
use crate::wire::keys::{KeyChange, KeyTable};
use crate::wire::resolution::ResolveOrder;

const NAME_BYTES_MAX: usize = 64;
/// An old credential may overlap a new one for a week; who needs longer has not rotated.
const OVERLAP_SECONDS_MAX: u64 = 7 * 24 * 3600;

/// Why a command was not carried out; each sentence says what to do.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the store did not take it: {0}")]
    Commit(#[from] CommitError),
    #[error("the store cannot be read: {0}")]
    Store(#[from] StoreError),
    #[error("the log did not take it: {0}")]
    Log(#[from] keys::LogError),
    #[error("{0}")]
    Randomness(#[from] NoRandomness),
    #[error("use 1 to 64 letters, digits, '-', '_', '.' or '@' for a name")]
    Name,
    #[error("there is a principal of this name; take another, or rotate or disable that one")]
    NameTaken,
    #[error("name at least one scope")]
    NoScope,
    #[error("unknown scope; the scopes are: {}", scope_names())]
    ScopeUnknown,
    #[error("admin scopes and tokens:hold are for persons only: add --person")]
    ScopeForPersons,
    #[error("these scopes work on a tenant's cards: name the tenant")]
    TenantMissing,
    #[error("there is no such tenant, or it is disabled; see `cardvault tenant list`")]
    TenantUnknown,
    #[error("there is no such destination; see the configuration")]
    DestinationUnknown,
    #[error("the expiry is past")]
    Expired,
    #[error("limits are positive amounts by three-letter currency")]
    Limits,
    #[error("there is no such principal; see `cardvault principal list`")]
    PrincipalUnknown,
    #[error("the principal is disabled; add a new one")]
    PrincipalDisabled,
    #[error(
        "{0} records are sealed under this key: rotate the tenant's data key, and see `cardvault keys progress`"
    )]
    KeyNeeded(u64),
    #[error(
        "{0} webhook endpoints have a secret of this key: their owners rotate it (`POST /v1/webhook_endpoints/…/rotate_secret`), \
         and a secret before counts until its hours are over"
    )]
    WebhookKeyNeeded(u64),
    #[error("the hold was not released: {0}")]
    Hold(#[from] vault::Error),
    #[error("there is no such card")]
    TokenUnknown,
    #[error("the charge was not settled: {0}")]
    Charge(#[from] charge::Error),
    #[error(
        "give a reason of 3 to 500 letters, without a card number, and the processor's id of the payment or none"
    )]
    Resolution,
    #[error("the log has no such action")]
    ActionUnknown,
    #[error("an old credential may stay good for at most 7 days")]
    Overlap,
}

fn scope_names() -> String {
    Scope::ALL.map(Scope::name).join(" ")
}

/// Carries a command out.
pub(super) async fn carry_out(app: &App, command: AdminCommand) -> AdminAnswer {
    let done = match command {
        AdminCommand::PutTenant { tenant, actor } => put_tenant(app, tenant, Actor::Person(actor)).await,
        AdminCommand::AddPrincipal { order, given, actor } => add_principal(app, *order, given, actor).await,
        AdminCommand::ListPrincipals => Ok(list_principals(app)),
        AdminCommand::DisablePrincipal { principal, actor } => disable(app, &principal, actor).await,
        AdminCommand::IsAdministrator { principal } => is_administrator(app, &principal),
        AdminCommand::RotatePrincipal { principal, overlap_seconds, given, actor } => {
            rotate(app, &principal, (overlap_seconds, given), actor).await
        }
        AdminCommand::KeysChanged { changes, keys } => keys_changed(app, changes, keys).await,
        AdminCommand::ResolveCharge { order, id, actor } => resolve(app, *order, id, actor).await,
        AdminCommand::ReleaseHold { order, actor } => release_hold(app, order, actor).await,
        AdminCommand::Record(recorded) => record(app, recorded).await,
        AdminCommand::ReleaseKey { key } => release_key(app, key).await,
        AdminCommand::ResealProgress => Ok(app.keys.progress().table()),
        AdminCommand::RetentionReport => Ok(retention::report(app)),
        AdminCommand::Reloaded { actor } => reloaded(app, actor).await,
    };
    app.important.notify_one();
    done.unwrap_or_else(|refusal| AdminAnswer::Refused(refusal.to_string()))
}

/// Brings the table of principals to what the store has.
pub(super) async fn load_principals(app: &App) -> Result<(), StoreError> {
    app.directory.set_principals(app.store.principals().await?);
    Ok(())
}

/// Writes into store and log what the key store has of tenants and they have not: a command may have broken off between the two.
pub(super) async fn settle_tenants(app: &App, tenants: &[TenantInfo]) -> Result<(), String> {
    let rows = app.store.tenants().await.map_err(|error| error.to_string())?;
    let is_told =
        |tenant: &TenantInfo| rows.iter().any(|row| row.id == tenant.id && row.disabled == tenant.disabled);
    for tenant in tenants.iter().filter(|tenant| !is_told(tenant)) {
        let actor = Actor::System("supervisor".to_owned());
        put_tenant(app, tenant.clone(), actor).await.map_err(|refusal| refusal.to_string())?;
    }
    Ok(())
}

async fn put_tenant(app: &App, tenant: TenantInfo, actor: Actor) -> Result<AdminAnswer, Refusal> {
    let action = if tenant.disabled { catalogue::TENANT_DISABLE } else { catalogue::TENANT_CREATE };
    let mut event = event(app, action, String::new(), "tenant", tenant.id.to_string())?;
    event.actor = actor;
    event.tenant = Some(tenant.id);
    event.facts.note = Some(tenant.mode.name().to_owned());
    let row = TenantRow {
        id: tenant.id,
        name: tenant.name.clone(),
        mode: tenant.mode,
        disabled: tenant.disabled,
        created_at: tenant.created_at,
    };
    event.facts.row_sha256 = Some(HEXLOWER.encode(&row.digest()));
    commit(app, RowChange::PutTenant(row), event).await?;
    let name = tenant.name.clone();
    let mut tenants: Vec<_> = app.directory.tenants().values().cloned().collect();
    tenants.retain(|other| other.id != tenant.id);
    tenants.push(tenant);
    app.directory.set_tenants(tenants);
    Ok(AdminAnswer::Done(name))
}

async fn add_principal(
    app: &App,
    order: PrincipalOrder,
    given: Option<GivenCredential>,
    actor: String,
) -> Result<AdminAnswer, Refusal> {
    let now = app.clock.now();
    let is_there = |given: &&GivenCredential| {
        app.directory.principals().iter().any(|principal| principal.id == given.principal)
    };
    if let Some(given) = given.as_ref().filter(is_there) {
        return Ok(AdminAnswer::Done(given.principal.to_string()));
    }
    let tenant = check(app, &order, now)?;
    let (principal, hash, credential) = match given {
        Some(given) => (given.principal, given.hash, None),
        None => {
            let (credential, hash) = credential::make()?;
            (PrincipalId::make(now)?, hash, Some(credential))
        }
    };
    let row = PrincipalRow {
        id: principal,
        name: order.name,
        kind: if order.person { PrincipalKind::Person } else { PrincipalKind::Application },
        tenant,
        scopes: order.scopes,
        credentials: vec![(hash, None)],
        charge_max: order.charge_max,
        day_max: order.day_max,
        created_at: now,
        expires_at: order.expires_at,
        disabled: false,
        destinations: order.destinations,
    };
    let id = row.id.to_string();
    let mut event = event(app, catalogue::PRINCIPAL_CREATE, actor, "principal", id.clone())?;
    event.tenant = tenant;
    event.facts.fields = row.scopes.clone();
    put_principal(app, row, event).await?;
    load_principals(app).await?;
    Ok(shown(id, credential))
}

/// A credential that the edge has made is shown once; one that was given is known to who gave it.
fn shown(principal: String, credential: Option<String>) -> AdminAnswer {
    match credential {
        Some(credential) => AdminAnswer::Credential { principal, credential },
        None => AdminAnswer::Done(principal),
    }
}

fn is_administrator(app: &App, principal: &str) -> Result<AdminAnswer, Refusal> {
    let row = find(app, principal)?;
    let is_one = row.scopes.iter().filter_map(|name| Scope::from_name(name)).any(Scope::is_for_persons);
    Ok(AdminAnswer::Done(if is_one { "yes" } else { "no" }.to_owned()))
}

/// Checks an order; gives its tenant.
fn check(app: &App, order: &PrincipalOrder, now: Time) -> Result<Option<TenantId>, Refusal> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@');
    if !(1..=NAME_BYTES_MAX).contains(&order.name.len()) || !order.name.bytes().all(plain) {
        return Err(Refusal::Name);
    }
    if app.directory.principals().iter().any(|p| p.name == order.name && !p.row.disabled) {
        return Err(Refusal::NameTaken);
    }
    let scopes: Option<Vec<_>> = order.scopes.iter().map(|name| Scope::from_name(name)).collect();
    let scopes = scopes.ok_or(Refusal::ScopeUnknown)?;
    if scopes.is_empty() {
        return Err(Refusal::NoScope);
    }
    if !order.person && scopes.iter().any(|scope| scope.is_for_persons()) {
        return Err(Refusal::ScopeForPersons);
    }
    if order.expires_at.is_some_and(|at| at <= now) {
        return Err(Refusal::Expired);
    }
    let good = |(currency, amount): (&String, &i64)| {
        *amount > 0 && currency.len() == 3 && currency.bytes().all(|b| b.is_ascii_uppercase())
    };
    if !order.charge_max.iter().chain(&order.day_max).all(good) {
        return Err(Refusal::Limits);
    }
    let known = |name: &String| {
        app.directory.destinations().iter().any(|to| to.name == *name)
            || app.directory.forwards().iter().any(|to| to.name == *name)
    };
    if !order.destinations.iter().all(known) {
        return Err(Refusal::DestinationUnknown);
    }
    match &order.tenant {
        None if scopes.iter().any(|scope| scope.needs_tenant()) => Err(Refusal::TenantMissing),
        None => Ok(None),
        Some(name) => {
            let tenants = app.directory.tenants();
            let tenant = tenants.values().find(|tenant| tenant.name == *name && !tenant.disabled);
            tenant.map(|tenant| Some(tenant.id)).ok_or(Refusal::TenantUnknown)
        }
    }
}

fn list_principals(app: &App) -> AdminAnswer {
    let head = ["id", "name", "kind", "tenant", "scopes", "expires", "state"].map(str::to_owned).to_vec();
    let tenants = app.directory.tenants();
    let line = |row: &PrincipalRow| {
        let kind = match row.kind {
            PrincipalKind::Person => "person",
            PrincipalKind::Application => "application",
        };
        let tenant = row.tenant.and_then(|id| tenants.get(&id)).map_or("", |tenant| &tenant.name);
        let expires = row.expires_at.map(|at| at.to_string()).unwrap_or_default();
        let state = if row.disabled { "disabled" } else { "active" };
        let (id, scopes) = (row.id.to_string(), row.scopes.join(" "));
        vec![id, row.name.clone(), kind.to_owned(), tenant.to_owned(), scopes, expires, state.to_owned()]
    };
    let lines = app.directory.principals();
    AdminAnswer::Table(std::iter::once(head).chain(lines.iter().map(|p| line(&p.row))).collect())
}

fn find(app: &App, name_or_id: &str) -> Result<PrincipalRow, Refusal> {
    let principals = app.directory.principals();
    let id = PrincipalId::parse(name_or_id);
    let found = principals
        .iter()
        .filter(|p| Some(p.id) == id || p.name == name_or_id)
        .min_by_key(|principal| principal.row.disabled);
    found.map(|principal| principal.row.clone()).ok_or(Refusal::PrincipalUnknown)
}

async fn disable(app: &App, principal: &str, actor: String) -> Result<AdminAnswer, Refusal> {
    let mut row = find(app, principal)?;
    row.disabled = true;
    row.credentials.clear();
    let id = row.id.to_string();
    let mut event = event(app, catalogue::PRINCIPAL_DISABLE, actor, "principal", id.clone())?;
    event.tenant = row.tenant;
    put_principal(app, row, event).await?;
    load_principals(app).await?;
    Ok(AdminAnswer::Done(id))
}

/// Gives a principal a new credential; the newest old one stays good for the overlap.
async fn rotate(
    app: &App,
    principal: &str,
    (overlap_seconds, given): (u64, Option<GivenCredential>),
    actor: String,
) -> Result<AdminAnswer, Refusal> {
    if overlap_seconds > OVERLAP_SECONDS_MAX {
        return Err(Refusal::Overlap);
    }
    let mut row = find(app, principal)?;
    if row.disabled {
        return Err(Refusal::PrincipalDisabled);
    }
    let end = app.clock.now().plus_seconds(i64::try_from(overlap_seconds).unwrap_or(0));
    let (credential, hash) = match given {
        Some(given) if row.credentials.iter().any(|(known, _)| *known == given.hash) => {
            return Ok(AdminAnswer::Done(row.id.to_string()));
        }
        Some(given) => (None, given.hash),
        None => credential::make().map(|(credential, hash)| (Some(credential), hash))?,
    };
    let before = row.credentials.drain(..).next_back();
    row.credentials.extend(before.map(|(old, until)| (old, Some(until.map_or(end, |until| until.min(end))))));
    row.credentials.push((hash, None));
    let id = row.id.to_string();
    let mut event = event(app, catalogue::PRINCIPAL_ROTATE, actor, "principal", id.clone())?;
    event.tenant = row.tenant;
    put_principal(app, row, event).await?;
    load_principals(app).await?;
    Ok(shown(id, credential))
}

async fn keys_changed(app: &App, changes: Vec<KeyChange>, all: KeyTable) -> Result<AdminAnswer, Refusal> {
    // An erasure that comes after the end of a key was told must not wait for it once more.
    keys::watch(app, &all.keys);
    keys::log_changes(app, changes, all.generation).await?;
    keys::take(app, all.keys);
    Ok(AdminAnswer::Done(String::new()))
}

/// Writes into the log what the supervisor did; what it has already, it does not get again.
async fn record(app: &App, recorded: Vec<Recorded>) -> Result<AdminAnswer, Refusal> {
    let mut events = Vec::new();
    for told in recorded {
        if app.store.event(told.event).await?.is_some() {
            continue;
        }
        let action = catalogue::find(&told.action).ok_or(Refusal::ActionUnknown)?.name;
        let system = || Actor::System("supervisor".to_owned());
        let (kind, id) = told.target;
        events.push(EventDraft {
            id: told.event,
            tenant: None,
            actor: told.actor.map_or_else(system, Actor::Person),
            origin: Origin::default(),
            action,
            outcome: told.failed.map_or(EventOutcome::Ok, EventOutcome::Error),
            target: Target { kind, id, version: None },
            keys: Vec::new(),
            facts: Facts { fields: told.fields, note: told.note, ..Facts::default() },
        });
    }
    app.store.commit(Change { events, ..Change::default() }).await?;
    Ok(AdminAnswer::Done(String::new()))
}

async fn release_key(app: &App, key: u32) -> Result<AdminAnswer, Refusal> {
    match keys::release(app, key).await? {
        0 => Ok(AdminAnswer::Done(String::new())),
        needed => {
            keys::note_needed(app, key).await?;
            let is_webhook = app.keys.is_webhook(key);
            Err(if is_webhook { Refusal::WebhookKeyNeeded(needed) } else { Refusal::KeyNeeded(needed) })
        }
    }
}

/// Releases a legal hold as a person says, and another approved.
async fn release_hold(app: &App, order: HoldOrder, actor: String) -> Result<AdminAnswer, Refusal> {
    let tenants = app.directory.tenants();
    let tenant = tenants.values().find(|tenant| tenant.name == order.tenant);
    let tenant = tenant.map(|tenant| (tenant.id, tenant.mode)).ok_or(Refusal::TenantUnknown)?;
    let token = Token::parse(&order.token).ok_or(Refusal::TokenUnknown)?;
    let caller = app.directory.caller_for(Actor::Person(actor), tenant, RequestId::make(app.clock.now())?);
    let hold = app.vault.set_legal_hold(&caller, token, false, &order.reference).await?;
    charge::wake(app, tenant.0, hold.token);
    Ok(AdminAnswer::Done(release_said(token, hold.changed, hold.holds.len())))
}

/// What a release came to; the command may be carried out once more, after the hold was released.
fn release_said(token: Token, changed: bool, left: usize) -> String {
    let did = match changed {
        true => format!("the legal hold of {token} is released"),
        false => format!("{token} has no legal hold of this reference"),
    };
    match left {
        0 => did,
        left => format!("{did}; it is held yet, by {left} of other references"),
    }
}

/// Settles a charge as a person says, and another approved.
async fn resolve(
    app: &App,
    order: ResolveOrder,
    id: ApprovalId,
    actor: String,
) -> Result<AdminAnswer, Refusal> {
    let tenants = app.directory.tenants();
    let tenant = tenants.values().find(|tenant| tenant.name == order.tenant);
    let tenant = tenant.map(|tenant| tenant.id).ok_or(Refusal::TenantUnknown)?;
    let exempt = |id: &str| app.directory.is_exempt(Some(tenant), "processor_transaction_id", id);
    order.resolution.check(exempt).map_err(|_| Refusal::Resolution)?;
    let by = (tenant, Actor::Person(actor));
    charge::settle_approved(app, by, &order.charge, &id.to_string(), &order.resolution).await?;
    Ok(AdminAnswer::Done(format!("{} is settled", order.charge)))
}

async fn reloaded(app: &App, actor: String) -> Result<AdminAnswer, Refusal> {
    let event = event(app, catalogue::CONFIG_RELOAD, actor, "configuration", String::new())?;
    app.store.commit(Change { events: vec![event], ..Change::default() }).await?;
    Ok(AdminAnswer::Done(
        "configuration, certificates, connectors and credentials were read again".to_owned(),
    ))
}

/// Commits a principal's row with its event, which tells the row's digest.
async fn put_principal(app: &App, row: PrincipalRow, mut event: EventDraft) -> Result<(), CommitError> {
    event.facts.row_sha256 = Some(HEXLOWER.encode(&row.digest()));
    commit(app, RowChange::PutPrincipal(Box::new(row)), event).await
}

async fn commit(app: &App, row: RowChange, event: EventDraft) -> Result<(), CommitError> {
    app.store.commit(Change { rows: vec![row], events: vec![event], idempotency: None }).await.map(drop)
}

fn event(
    app: &App,
    action: &'static str,
    actor: String,
    kind: &str,
    id: String,
) -> Result<EventDraft, NoRandomness> {
    Ok(EventDraft {
        id: EventId::make(app.clock.now())?,
        tenant: None,
        actor: Actor::Person(actor),
        origin: Origin::default(),
        action,
        outcome: EventOutcome::Ok,
        target: Target { kind: kind.to_owned(), id, version: None },
        keys: Vec::new(),
        facts: Facts::default(),
    })
}
