//! Tenants: whose cards these are, and whether they are real.

use serde::{Deserialize, Serialize};

/// A tenant's number, unique in an installation and never used again. It is bound into every envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(pub u32);

impl std::fmt::Display for TenantId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tenant_{}", self.0)
    }
}

/// Which numbers a tenant may store. The two never meet: live refuses test numbers, test refuses all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The published test numbers and the never-issued volume range, nothing else (PCI DSS 6.5.5).
    Test,
    /// Real cards; test numbers are refused (PCI DSS 6.5.6).
    Live,
}

impl Mode {
    /// The word for it in configuration, commands and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Live => "live",
        }
    }
}
