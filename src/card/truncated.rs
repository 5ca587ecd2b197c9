//! The truncated PAN: the one form in which a number is shown (PCI DSS 3.4.1, 3.5.1; PCI SSC FAQ 1091).

use serde::{Deserialize, Serialize};

use super::brand::Brand;
use super::range::{Country, Funding};

/// First six and last four digits; the rest was never here. Numbers shorter than 15 digits keep the last four only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TruncatedPan {
    /// The first six digits, for 15 to 19 digits.
    pub first6: Option<String>,
    /// The last four digits.
    pub last4: String,
    /// Brand by issuer range and length.
    pub brand: Brand,
    /// How the card is funded, if the operator's table of ranges says so.
    pub funding: Option<Funding>,
    /// Where it was issued, if that table says so.
    pub country: Option<Country>,
}

impl std::fmt::Display for TruncatedPan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}…{}", self.first6.as_deref().unwrap_or(""), self.last4)
    }
}
