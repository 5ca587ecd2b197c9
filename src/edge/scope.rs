//! What a principal may do: a closed list of scopes, held as bits.

/// One scope (design.md, "API").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Store a card.
    TokensCreate,
    /// Look at a card, masked.
    TokensRead,
    /// Change a card; agreements.
    TokensUpdate,
    /// Erase a card.
    TokensErase,
    /// Set and release legal holds.
    TokensHold,
    /// Charge, verify, run invoices.
    ChargesCreate,
    /// Look at charges.
    ChargesRead,
    /// Capture.
    ChargesCapture,
    /// Refund and void.
    ChargesRefund,
    /// Settle what could not be found out.
    ChargesResolve,
    /// Forward a card.
    ForwardsCreate,
    /// Look at webhook endpoints and deliveries.
    WebhooksRead,
    /// Make, change and delete webhook endpoints, rotate their secrets, replay.
    WebhooksManage,
    /// The audit log.
    AuditRead,
    /// Controls and reports.
    EvidenceRead,
    /// Shows of principals, tenants, destinations.
    AdminRead,
    /// Make, switch off and rotate principals.
    AdminPrincipals,
    /// Make and switch off tenants.
    AdminTenants,
    /// Key ceremonies and rotation.
    AdminKeys,
}

impl Scope {
    /// All of them, in the order of listings.
    pub const ALL: [Self; 19] = [
        Self::TokensCreate,
        Self::TokensRead,
        Self::TokensUpdate,
        Self::TokensErase,
        Self::TokensHold,
        Self::ChargesCreate,
        Self::ChargesRead,
        Self::ChargesCapture,
        Self::ChargesRefund,
        Self::ChargesResolve,
        Self::ForwardsCreate,
        Self::WebhooksRead,
        Self::WebhooksManage,
        Self::AuditRead,
        Self::EvidenceRead,
        Self::AdminRead,
        Self::AdminPrincipals,
        Self::AdminTenants,
        Self::AdminKeys,
    ];

    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TokensCreate => "tokens:create",
            Self::TokensRead => "tokens:read",
            Self::TokensUpdate => "tokens:update",
            Self::TokensErase => "tokens:erase",
            Self::TokensHold => "tokens:hold",
            Self::ChargesCreate => "charges:create",
            Self::ChargesRead => "charges:read",
            Self::ChargesCapture => "charges:capture",
            Self::ChargesRefund => "charges:refund",
            Self::ChargesResolve => "charges:resolve",
            Self::ForwardsCreate => "forwards:create",
            Self::WebhooksRead => "webhooks:read",
            Self::WebhooksManage => "webhooks:manage",
            Self::AuditRead => "audit:read",
            Self::EvidenceRead => "evidence:read",
            Self::AdminRead => "admin:read",
            Self::AdminPrincipals => "admin:principals",
            Self::AdminTenants => "admin:tenants",
            Self::AdminKeys => "admin:keys",
        }
    }

    /// Reads its word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    /// Whether only a person may hold it (contracts.md, "People and applications").
    pub const fn is_for_persons(self) -> bool {
        match self {
            // What the law or a court wants kept is no application's decision.
            Self::TokensHold
            | Self::AdminRead
            | Self::AdminPrincipals
            | Self::AdminTenants
            | Self::AdminKeys => true,
            Self::TokensCreate
            | Self::TokensRead
            | Self::TokensUpdate
            | Self::TokensErase
            | Self::ChargesCreate
            | Self::ChargesRead
            | Self::ChargesCapture
            | Self::ChargesRefund
            | Self::ChargesResolve
            | Self::ForwardsCreate
            | Self::WebhooksRead
            | Self::WebhooksManage
            | Self::AuditRead
            | Self::EvidenceRead => false,
        }
    }

    /// Whether its verbs work on one tenant's cards and charges, so that only a principal of a tenant can use it.
    pub const fn needs_tenant(self) -> bool {
        match self {
            Self::TokensCreate
            | Self::TokensRead
            | Self::TokensUpdate
            | Self::TokensErase
            | Self::TokensHold
            | Self::ChargesCreate
            | Self::ChargesRead
            | Self::ChargesCapture
            | Self::ChargesRefund
            | Self::ChargesResolve
            | Self::ForwardsCreate
            | Self::WebhooksRead
            | Self::WebhooksManage => true,
            Self::AuditRead
            | Self::EvidenceRead
            | Self::AdminRead
            | Self::AdminPrincipals
            | Self::AdminTenants
            | Self::AdminKeys => false,
        }
    }

    const fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u32);

impl Scopes {
    /// The scopes of these names; a name that is not known grants nothing.
    pub fn from_names(names: &[String]) -> Self {
        Self(names.iter().filter_map(|name| Scope::from_name(name)).fold(0, |bits, s| bits | s.bit()))
    }

    /// Whether `scope` is among them.
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_exactly_the_scopes_that_were_named() {
        for scope in Scope::ALL {
            let set = Scopes::from_names(&[scope.name().to_owned(), "no:such".to_owned()]);
            for other in Scope::ALL {
                assert_eq!(set.has(other), other == scope);
            }
        }
    }
}
