//! The verbs of the administration socket: which scope each needs of a person, which need a second person, and what each says in
//! plain words to who approves it.
//!
//! A dangerous verb of a later part (restore, a control switched off) is added here: a variant
//! of [`DangerousVerb`], its scope in [`scope_of`], its words, and a branch in [`admin`](super::admin) that does it once however often
//! it is told the same request id.

use super::admin::AdminRequest;
use super::keys::KeyRequest;
use super::people::{PersonRequest, Registration};
use crate::edge::scope::Scope;
use crate::person::scope::PersonScope;
use crate::wire::control::{HoldOrder, PrincipalOrder};
use crate::wire::resolution::{ResolveOrder, Word};

/// What nobody does alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DangerousVerb {
    /// The first two persons, each signing for both.
    PeopleFound,
    /// A person is registered, or has another key.
    PeopleChange,
    /// A principal gets a scope that only persons hold, or another credential for such scopes.
    AdminGrant,
    /// A key is destroyed.
    KeysDestroy,
    /// Another root provider wraps the KEK.
    RootMove,
    /// A destination, connector, policy, forward, webhook host or exemption is new or other, rule data is other, or a limit is wider.
    ConfigWiden,
    /// A charge is settled by hand.
    ChargeResolve,
    /// A legal hold is released.
    HoldRelease,
}

impl DangerousVerb {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::PeopleFound,
        Self::PeopleChange,
        Self::AdminGrant,
        Self::KeysDestroy,
        Self::RootMove,
        Self::ConfigWiden,
        Self::ChargeResolve,
        Self::HoldRelease,
    ];

    /// Who carries it out; the supervisor has checked both signatures before.
    pub const fn carried_out_by(self) -> &'static str {
        match self {
            Self::PeopleFound | Self::PeopleChange | Self::ConfigWiden => "supervisor",
            Self::KeysDestroy => "supervisor, keeper",
            Self::RootMove => "supervisor, unsealer",
            Self::AdminGrant | Self::ChargeResolve | Self::HoldRelease => "edge",
        }
    }

    /// Why it is dangerous.
    pub const fn because(self) -> &'static str {
        match self {
            Self::PeopleFound | Self::PeopleChange => "whoever is registered signs for others from then on",
            Self::AdminGrant => "it lets somebody administer",
            Self::RootMove => "whoever has the root key opens every copy of the key store",
            Self::KeysDestroy => "what is sealed under the key is gone",
            Self::HoldRelease => "what a court or the law wants kept may be erased then",
            Self::ChargeResolve => "it says without the processor whether money moved",
            Self::ConfigWiden => "cards may go where they could not, or limits hold back less",
        }
    }

    /// Whether a request is one of these, as far as it says so itself. Whether a rotated credential is an administrator's, the edge knows.
    pub fn of(request: &AdminRequest) -> Option<Self> {
        match request {
            AdminRequest::Person(PersonRequest::Found(_)) => Some(Self::PeopleFound),
            AdminRequest::Person(PersonRequest::Add(_) | PersonRequest::Rekey { .. }) => {
                Some(Self::PeopleChange)
            }
            AdminRequest::PrincipalAdd(order) | AdminRequest::PrincipalGrant { order, .. } => {
                grants_admin(order).then_some(Self::AdminGrant)
            }
            AdminRequest::Key(KeyRequest::Destroy(_)) => Some(Self::KeysDestroy),
            AdminRequest::Key(KeyRequest::MoveRoot(_)) => Some(Self::RootMove),
            AdminRequest::ReloadTo { .. } => Some(Self::ConfigWiden),
            AdminRequest::ChargeResolve(_) => Some(Self::ChargeResolve),
            AdminRequest::HoldRelease(_) => Some(Self::HoldRelease),
            AdminRequest::Person(PersonRequest::Disable(_) | PersonRequest::List)
            | AdminRequest::Key(
                KeyRequest::List
                | KeyRequest::Show(_)
                | KeyRequest::Rotate { .. }
                | KeyRequest::Retire(_)
                // What others know is to be out of use at once.
                | KeyRequest::Compromise(_)
                | KeyRequest::Progress,
            )
            | AdminRequest::TenantAdd { .. }
            | AdminRequest::TenantList
            | AdminRequest::TenantDisable { .. }
            | AdminRequest::PrincipalList
            | AdminRequest::PrincipalDisable { .. }
            | AdminRequest::PrincipalRotate { .. }
            | AdminRequest::PrincipalRegrant { .. }
            | AdminRequest::Reload
            | AdminRequest::ReloadPreview
            | AdminRequest::Processes
            | AdminRequest::PublicKey
            | AdminRequest::Environment
            | AdminRequest::Retention
            // Each step of a ceremony is signed by custodians, who are persons, and no step of one alone opens or moves anything.
            | AdminRequest::Custody(_)
            | AdminRequest::Approvals(_)
            | AdminRequest::Signed { .. } => None,
        }
    }
}

/// Whether a principal would get a scope that only persons hold.
fn grants_admin(order: &PrincipalOrder) -> bool {
    order.scopes.iter().filter_map(|name| Scope::from_name(name)).any(Scope::is_for_persons)
}

/// The scope that a person needs for a request; none for what only reads.
pub fn scope_of(request: &AdminRequest) -> Option<PersonScope> {
    match request {
        AdminRequest::TenantAdd { .. } | AdminRequest::TenantDisable { .. } => {
            Some(PersonScope::TenantsWrite)
        }
        AdminRequest::PrincipalAdd(_)
        | AdminRequest::PrincipalGrant { .. }
        | AdminRequest::PrincipalDisable { .. }
        | AdminRequest::PrincipalRotate { .. }
        | AdminRequest::PrincipalRegrant { .. } => Some(PersonScope::PrincipalsWrite),
        AdminRequest::Reload | AdminRequest::ReloadTo { .. } => Some(PersonScope::ConfigReload),
        AdminRequest::ChargeResolve(_) => Some(PersonScope::ChargesResolve),
        AdminRequest::HoldRelease(_) => Some(PersonScope::HoldsRelease),
        AdminRequest::Key(request) => match request {
            KeyRequest::Rotate { .. } => Some(PersonScope::KeysRotate),
            KeyRequest::Retire(_) => Some(PersonScope::KeysRetire),
            KeyRequest::Compromise(_) => Some(PersonScope::KeysCompromise),
            KeyRequest::Destroy(_) => Some(PersonScope::KeysDestroy),
            KeyRequest::MoveRoot(_) => Some(PersonScope::KeysMoveRoot),
            KeyRequest::List | KeyRequest::Show(_) | KeyRequest::Progress => None,
        },
        AdminRequest::Person(request) => match request {
            PersonRequest::Add(_)
            | PersonRequest::Found(_)
            | PersonRequest::Disable(_)
            | PersonRequest::Rekey { .. } => Some(PersonScope::PeopleWrite),
            PersonRequest::List => None,
        },
        AdminRequest::TenantList
        | AdminRequest::PrincipalList
        | AdminRequest::ReloadPreview
        | AdminRequest::Processes
        | AdminRequest::PublicKey
        | AdminRequest::Environment
        | AdminRequest::Retention
        | AdminRequest::Custody(_)
        | AdminRequest::Approvals(_)
        | AdminRequest::Signed { .. } => None,
    }
}

/// What a request would do, in plain words, for who approves it. It is made from what is signed, so it is what is signed.
pub fn words(request: &AdminRequest) -> String {
    match request {
        AdminRequest::TenantAdd { name, mode } => format!("make tenant {name}, mode {}", mode.name()),
        AdminRequest::TenantDisable { name } => format!("switch tenant {name} off"),
        AdminRequest::PrincipalAdd(order) => principal_words(order),
        AdminRequest::PrincipalGrant { order, credential_sha256 } => format!(
            "{}\n  with the credential that the requester made, SHA-256 {credential_sha256}",
            principal_words(order)
        ),
        AdminRequest::PrincipalDisable { principal } => format!("switch principal {principal} off"),
        AdminRequest::PrincipalRotate { principal, .. } => {
            format!("give principal {principal} a new credential")
        }
        AdminRequest::PrincipalRegrant { principal, overlap_seconds, credential_sha256 } => format!(
            "give principal {principal} the credential that the requester made, SHA-256 {credential_sha256}; the old one stays good \
             for {overlap_seconds} seconds"
        ),
        AdminRequest::Reload => "read the configuration again".to_owned(),
        AdminRequest::ReloadTo { sha256, widens } => {
            let lines: String = widens.iter().map(|line| format!("\n  - {}", plain(line))).collect();
            format!("take the configuration as it is on disk now, SHA-256 {sha256}:{lines}")
        }
        AdminRequest::ChargeResolve(order) => charge_words(order),
        AdminRequest::HoldRelease(order) => hold_words(order),
        AdminRequest::Key(request) => match request {
            KeyRequest::Rotate { purpose, tenant } => {
                let whose = tenant.as_ref().map(|name| format!(" of tenant {name}")).unwrap_or_default();
                format!("have another {} key{whose} take over", purpose.name())
            }
            KeyRequest::Retire(key) => format!("have key {key} protect nothing more"),
            KeyRequest::Compromise(key) => format!("say that key {key} is known to others"),
            KeyRequest::MoveRoot(to) => format!("have the root provider {} wrap the KEK", to.name()),
            KeyRequest::Destroy(key) => {
                format!(
                    "destroy key {key}: what is sealed under it opens no more, in backups neither, unless a copy of the key store from before is kept"
                )
            }
            KeyRequest::List | KeyRequest::Show(_) | KeyRequest::Progress => "look at keys".to_owned(),
        },
        AdminRequest::Person(request) => match request {
            PersonRequest::Add(new) => format!("register {}", person_words(new)),
            PersonRequest::Found(both) => {
                let lines: String = both.iter().map(|new| format!("\n  - {}", person_words(new))).collect();
                format!("register the first two persons of this installation:{lines}")
            }
            PersonRequest::Disable(person) => format!("disable person {person}"),
            PersonRequest::Rekey { person, public } => format!("give person {person} the key {public}"),
            PersonRequest::List => "look at persons".to_owned(),
        },
        AdminRequest::TenantList
        | AdminRequest::PrincipalList
        | AdminRequest::ReloadPreview
        | AdminRequest::Processes
        | AdminRequest::PublicKey
        | AdminRequest::Environment
        | AdminRequest::Retention
        | AdminRequest::Custody(_)
        | AdminRequest::Approvals(_)
        | AdminRequest::Signed { .. } => "look".to_owned(),
    }
}

fn hold_words(order: &HoldOrder) -> String {
    let which = if order.reference.is_empty() {
        "without a reference".to_owned()
    } else {
        format!("of reference {}", order.reference)
    };
    format!(
        "release the legal hold {which} of card {} of tenant {}: it is erased if that was asked for and no other holds it",
        order.token, order.tenant
    )
}

fn charge_words(order: &ResolveOrder) -> String {
    let ResolveOrder { tenant, charge, resolution } = order;
    let word = match resolution.outcome {
        Word::Approved => "approved",
        Word::Declined => "declined",
        Word::Voided => "voided",
    };
    let operation = resolution.operation.as_ref().map(|id| format!(", operation {id}")).unwrap_or_default();
    let id = resolution.processor_transaction_id.as_ref();
    let id = id.map(|id| format!(", which the processor calls {id}")).unwrap_or_default();
    format!(
        "settle charge {charge} of tenant {tenant}{operation}{id} as {word}\n  because: {}",
        plain(&resolution.reason)
    )
}

/// What a requester wrote, without what would move a terminal's cursor.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn principal_words(order: &PrincipalOrder) -> String {
    let kind = if order.person { "person" } else { "application" };
    let tenant = order.tenant.as_ref().map(|name| format!(", tenant {name}")).unwrap_or_default();
    format!("make principal {} ({kind}{tenant}) with scopes {}", order.name, order.scopes.join(" "))
}

fn person_words(new: &Registration) -> String {
    let uid = new.uid.map(|uid| format!(", uid {uid}")).unwrap_or_default();
    format!("person {}{uid}, key {}, scopes {}", new.name, new.public, new.scopes.join(" "))
}
