//! What a person says of a charge that could not be found out: over the API, or over the administration socket where two have to.

use serde::{Deserialize, Serialize};

use crate::card::stray;

/// A reason says something, and is no letter to the processor.
const REASON_CHARS: std::ops::RangeInclusive<usize> = 3..=500;
/// No processor's id is longer.
const TRANSACTION_BYTES_MAX: usize = 255;

/// What became of it, by a person's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// It was done.
    Approved,
    /// It was not, and will not be.
    Declined,
    /// It was undone: nothing moved in the end.
    Voided,
}

/// What a person says of a charge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolution {
    /// What became of it.
    pub outcome: Word,
    /// Why they know; at least a few letters.
    pub reason: String,
    /// The processor's id of it, if they found it.
    pub processor_transaction_id: Option<String>,
    /// Which capture, refund or void it is about; the charge's own operation, or the only one that is open, if none.
    pub operation: Option<String>,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its value is none.
    Invalid(&'static str),
    /// It may hold a card number.
    Stray(&'static str),
}

impl Resolution {
    /// Whether it may be kept; `is_exempt` says whether an id that looks like a card number is known to be none.
    pub fn check(&self, is_exempt: impl Fn(&str) -> bool) -> Result<(), Fault> {
        if stray::in_free_text(&self.reason) {
            return Err(Fault::Stray("reason"));
        }
        let length = self.reason.trim().chars().count();
        if !REASON_CHARS.contains(&length) || self.reason.chars().any(char::is_control) {
            return Err(Fault::Invalid("reason"));
        }
        let param = "processor_transaction_id";
        match &self.processor_transaction_id {
            Some(id)
                if id.is_empty()
                    || id.len() > TRANSACTION_BYTES_MAX
                    || !id.bytes().all(|b| b.is_ascii_graphic()) =>
            {
                Err(Fault::Invalid(param))
            }
            Some(id) if stray::is_identifier(id) && !is_exempt(id) => Err(Fault::Stray(param)),
            Some(_) | None => Ok(()),
        }
    }
}

/// A charge to settle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveOrder {
    /// The tenant's name.
    pub tenant: String,
    /// The charge.
    pub charge: String,
    /// What is said of it.
    pub resolution: Resolution,
}
