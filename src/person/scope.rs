//! What a registered person may ask the supervisor for: one scope for each verb that changes something.

/// A scope of a person. Reading needs none: it needs the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PersonScope {
    /// Have another key take over.
    KeysRotate,
    /// Say that a key protects nothing more.
    KeysRetire,
    /// Say that a key is known to others.
    KeysCompromise,
    /// Destroy a key.
    KeysDestroy,
    /// Have another root provider wrap the KEK.
    KeysMoveRoot,
    /// Make and switch off tenants.
    TenantsWrite,
    /// Make, switch off and rotate principals.
    PrincipalsWrite,
    /// Register and disable persons.
    PeopleWrite,
    /// Have the configuration read again: destinations, connectors, policies, limits, rule data.
    ConfigReload,
    /// Settle a charge whose outcome could not be found out.
    ChargesResolve,
    /// Release a legal hold.
    HoldsRelease,
}

impl PersonScope {
    /// All of them, in the order of listings.
    pub const ALL: [Self; 11] = [
        Self::KeysRotate,
        Self::KeysRetire,
        Self::KeysCompromise,
        Self::KeysDestroy,
        Self::KeysMoveRoot,
        Self::TenantsWrite,
        Self::PrincipalsWrite,
        Self::PeopleWrite,
        Self::ConfigReload,
        Self::ChargesResolve,
        Self::HoldsRelease,
    ];

    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeysRotate => "keys:rotate",
            Self::KeysRetire => "keys:retire",
            Self::KeysCompromise => "keys:compromise",
            Self::KeysDestroy => "keys:destroy",
            Self::KeysMoveRoot => "keys:move_root",
            Self::TenantsWrite => "tenants:write",
            Self::PrincipalsWrite => "principals:write",
            Self::PeopleWrite => "people:write",
            Self::ConfigReload => "config:reload",
            Self::ChargesResolve => "charges:resolve",
            Self::HoldsRelease => "holds:release",
        }
    }

    /// Reads its word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    /// The words of all, in the order of listings.
    pub fn names() -> Vec<String> {
        Self::ALL.map(|scope| scope.name().to_owned()).to_vec()
    }
}
