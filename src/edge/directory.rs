//! Who may call and what there is: principals, tenants and destinations, held in memory as snapshots that a request takes by
//! counting a reference, never by waiting for a writer.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::audit::event::{Actor, Origin};
use super::scope::{Scope, Scopes};
use super::store::{PrincipalKind, PrincipalRow};
use crate::card::id::{IdBytes, PrincipalId, RequestId};
use crate::card::stray::Exemptions;
use crate::card::tenant::{Mode, TenantId};
use crate::charging::Policy;
use crate::clock::Time;
use crate::erasure::{ErasureTerms, Retention};
use crate::person::credential::hash_of;
use crate::wire::control::{DestinationInfo, ForwardInfo, Limits, TenantInfo, WebhookRules};

/// A principal, ready for the fast path.
#[derive(Debug)]
pub struct Principal {
    /// Its id.
    pub id: PrincipalId,
    /// Its name, for people.
    pub name: String,
    /// A person or an application.
    pub kind: PrincipalKind,
    /// Its tenant; none for administrators and assessors.
    pub tenant: Option<TenantId>,
    /// What it may do.
    pub scopes: Scopes,
    /// Its row: limits of charges, expiry.
    pub row: PrincipalRow,
    /// How the audit log names it.
    actor: Actor,
    limiter: Arc<DefaultDirectRateLimiter>,
}

/// Somebody who proved who they are, and the request that they make.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub principal: Arc<Principal>,
    /// The request, as events name it.
    pub request: RequestId,
    /// The peer's address.
    pub ip: Option<IpAddr>,
    /// Their tenant and its mode; none for administrators and assessors.
    pub tenant: Option<(TenantId, Mode)>,
}

impl Caller {
    /// Who acts, for an event.
    pub fn actor(&self) -> Actor {
        self.principal.actor.clone()
    }

    /// From where, for an event.
    pub fn origin(&self) -> Origin {
        Origin { ip: self.ip.map(|ip| ip.to_string()), request: Some(self.request) }
    }

    /// Whether a person calls: their reads are logged before the answer.
    pub fn is_person(&self) -> bool {
        match self.principal.kind {
            PrincipalKind::Person => true,
            PrincipalKind::Application => false,
        }
    }

    /// The tenant; the routes that need one are not reached without.
    pub fn tenant_id(&self) -> TenantId {
        self.tenant.map_or(TenantId(u32::MAX), |(id, _)| id)
    }
}

/// Why a credential was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No such credential, or void, or its principal is switched off or expired.
    Credential,
    /// The principal's tenant is switched off or gone.
    TenantDisabled,
    /// The scope is not among the principal's.
    Scope,
    /// The route works on a tenant's things and the principal has none.
    TenantRequired,
}

impl Denied {
    /// The code in the event.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Credential => "unauthenticated",
            Self::TenantDisabled => "tenant_disabled",
            Self::Scope => "scope_missing",
            Self::TenantRequired => "tenant_required",
        }
    }
}

type Credentials = HashMap<[u8; 32], (Arc<Principal>, Option<Time>)>;

/// The tables.
#[derive(Debug)]
pub struct Directory {
    quota: Quota,
    credentials: RwLock<Arc<Credentials>>,
    principals: RwLock<Arc<Vec<Arc<Principal>>>>,
    tenants: RwLock<Arc<HashMap<TenantId, TenantInfo>>>,
    destinations: RwLock<Arc<Vec<DestinationInfo>>>,
    forwards: RwLock<Arc<Vec<ForwardInfo>>>,
    exemptions: RwLock<Arc<Exemptions>>,
    charging: RwLock<Arc<Policy>>,
    webhooks: RwLock<Arc<WebhookRules>>,
    erasure: RwLock<Arc<ErasureTerms>>,
    two_persons: AtomicBool,
    retention: RwLock<Arc<Retention>>,
}

impl Directory {
    /// Empty tables: nobody may call yet.
    pub fn new(limits: &Limits) -> Self {
        let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(limits.requests_per_second_max))
            .allow_burst(at_least_one(limits.requests_burst_max));
        Self {
            quota,
            credentials: RwLock::default(),
            principals: RwLock::default(),
            tenants: RwLock::default(),
            destinations: RwLock::default(),
            forwards: RwLock::default(),
            exemptions: RwLock::default(),
            charging: RwLock::default(),
            webhooks: RwLock::default(),
            erasure: RwLock::default(),
            two_persons: AtomicBool::new(false),
            retention: RwLock::default(),
        }
    }

    /// Puts all principals in place; rates already used stay used.
    pub fn set_principals(&self, rows: Vec<PrincipalRow>) {
        let before = self.principals();
        let mut credentials = Credentials::new();
        let mut principals = Vec::with_capacity(rows.len());
        for row in rows {
            let limiter = before.iter().find(|p| p.id == row.id).map_or_else(
                || Arc::new(RateLimiter::direct(self.quota)),
                |principal| Arc::clone(&principal.limiter),
            );
            let principal = Arc::new(Principal::new(row, limiter));
            for (hash, until) in &principal.row.credentials {
                credentials.insert(*hash, (Arc::clone(&principal), *until));
            }
            principals.push(principal);
        }
        replace(&self.principals, principals);
        replace(&self.credentials, credentials);
    }

    /// Puts all tenants in place.
    pub fn set_tenants(&self, tenants: Vec<TenantInfo>) {
        replace(&self.tenants, tenants.into_iter().map(|tenant| (tenant.id, tenant)).collect());
    }

    /// Puts all destinations in place.
    pub fn set_destinations(&self, destinations: Vec<DestinationInfo>) {
        replace(&self.destinations, destinations);
    }

    /// Puts all forward destinations in place.
    pub fn set_forwards(&self, forwards: Vec<ForwardInfo>) {
        replace(&self.forwards, forwards);
    }

    /// Puts all exemptions from the stray-number guard in place.
    pub fn set_exemptions(&self, exemptions: Exemptions) {
        replace(&self.exemptions, exemptions);
    }

    /// Puts retries and routes in place.
    pub fn set_charging(&self, charging: Policy) {
        replace(&self.charging, charging);
    }

    /// Puts the rules of webhooks in place.
    pub fn set_webhooks(&self, rules: WebhookRules) {
        replace(&self.webhooks, rules);
    }

    /// Puts the times of erasures in place.
    pub fn set_erasure(&self, terms: ErasureTerms) {
        replace(&self.erasure, terms);
    }

    /// Puts the policies of retention in place.
    pub fn set_retention(&self, retention: Retention) {
        replace(&self.retention, retention);
    }

    /// How long cards are kept, by the tenant's name.
    pub fn retention(&self) -> Arc<Retention> {
        snapshot(&self.retention)
    }

    /// How soon what is erased is out of every backup's reach.
    pub fn erasure(&self) -> ErasureTerms {
        *snapshot(&self.erasure)
    }

    /// Says whether what is dangerous needs two persons, whom the supervisor knows.
    pub fn set_two_persons(&self, needed: bool) {
        self.two_persons.store(needed, Ordering::Release);
    }

    /// Whether what is dangerous needs two persons, so that no principal does it alone.
    pub fn needs_two_persons(&self) -> bool {
        self.two_persons.load(Ordering::Acquire)
    }

    /// Where webhooks may go, and how they are tried again.
    pub fn webhooks(&self) -> Arc<WebhookRules> {
        snapshot(&self.webhooks)
    }

    /// How charges are tried again, and where they go.
    pub fn charging(&self) -> Arc<Policy> {
        snapshot(&self.charging)
    }

    /// Whether an identifier that looks like a card number is known to be none, for this tenant and in this field.
    pub fn is_exempt(&self, tenant: Option<TenantId>, field: &str, text: &str) -> bool {
        let tenants = snapshot(&self.tenants);
        let tenant = tenant.and_then(|id| tenants.get(&id));
        tenant.is_some_and(|tenant| snapshot(&self.exemptions).of(&tenant.name).allows(field, text))
    }

    /// All principals.
    pub fn principals(&self) -> Arc<Vec<Arc<Principal>>> {
        snapshot(&self.principals)
    }

    /// All tenants.
    pub fn tenants(&self) -> Arc<HashMap<TenantId, TenantInfo>> {
        snapshot(&self.tenants)
    }

    /// All destinations.
    pub fn destinations(&self) -> Arc<Vec<DestinationInfo>> {
        snapshot(&self.destinations)
    }

    /// All forward destinations.
    pub fn forwards(&self) -> Arc<Vec<ForwardInfo>> {
        snapshot(&self.forwards)
    }

    /// The principal behind a credential. The look-up is by SHA-256, so its time says nothing about a credential.
    pub fn authenticate(&self, credential: &[u8], now: Time) -> Result<Arc<Principal>, Denied> {
        let hash = hash_of(credential);
        let credentials = snapshot(&self.credentials);
        let (principal, until) = credentials.get(&hash).ok_or(Denied::Credential)?;
        let over = |end: Option<Time>| end.is_some_and(|end| end <= now);
        if over(*until) || over(principal.row.expires_at) || principal.row.disabled {
            return Err(Denied::Credential);
        }
        Ok(Arc::clone(principal))
    }

    /// Somebody whom the supervisor knows and whose request was approved: no principal is behind it.
    pub fn caller_for(&self, actor: Actor, tenant: (TenantId, Mode), request: RequestId) -> Caller {
        let row = PrincipalRow {
            id: PrincipalId(IdBytes([0; 18])),
            name: String::new(),
            kind: PrincipalKind::Person,
            tenant: Some(tenant.0),
            scopes: Vec::new(),
            credentials: Vec::new(),
            charge_max: BTreeMap::new(),
            day_max: BTreeMap::new(),
            created_at: Time::from_micros(0),
            expires_at: None,
            disabled: false,
            destinations: Vec::new(),
        };
        let principal = Principal { actor, ..Principal::new(row, Arc::new(RateLimiter::direct(self.quota))) };
        Caller { principal: Arc::new(principal), request, ip: None, tenant: Some(tenant) }
    }

    /// Whether a principal may use a scope, and for which tenant.
    pub fn authorize(&self, principal: &Principal, scope: Scope) -> Result<Option<(TenantId, Mode)>, Denied> {
        if !principal.scopes.has(scope) {
            return Err(Denied::Scope);
        }
        let Some(id) = principal.tenant else {
            return if scope.needs_tenant() { Err(Denied::TenantRequired) } else { Ok(None) };
        };
        match snapshot(&self.tenants).get(&id) {
            Some(tenant) if !tenant.disabled => Ok(Some((id, tenant.mode))),
            Some(_) | None => Err(Denied::TenantDisabled),
        }
    }
}

impl Principal {
    fn new(row: PrincipalRow, limiter: Arc<DefaultDirectRateLimiter>) -> Self {
        let id = row.id.to_string();
        let actor = match row.kind {
            PrincipalKind::Person => Actor::Person(id),
            PrincipalKind::Application => Actor::Application(id),
        };
        Self {
            id: row.id,
            name: row.name.clone(),
            kind: row.kind,
            tenant: row.tenant,
            scopes: Scopes::from_names(&row.scopes),
            row,
            actor,
            limiter,
        }
    }

    /// Whether it may send cards to this destination.
    pub fn may_send_to(&self, destination: &str) -> bool {
        self.row.destinations.is_empty() || self.row.destinations.iter().any(|name| name == destination)
    }

    /// Whether it holds a scope that is of use to it.
    pub fn may_use(&self, scope: Scope) -> bool {
        self.scopes.has(scope) && (self.tenant.is_some() || !scope.needs_tenant())
    }

    /// How the audit log names it.
    pub fn actor(&self) -> Actor {
        self.actor.clone()
    }

    /// Counts a request against the rate; how long to wait if there were too many.
    pub fn count_request(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
    }
}

fn snapshot<T>(table: &RwLock<Arc<T>>) -> Arc<T> {
    Arc::clone(&table.read().unwrap_or_else(PoisonError::into_inner))
}

fn replace<T>(table: &RwLock<Arc<T>>, with: T) {
    *table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(with);
}
