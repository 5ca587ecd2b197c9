//! ── The boundary. ── The only code in which a whole card number exists.
//!
//! In: [`Pan::parse`], from a submitted body ([`submitted`]) or an opened envelope ([`envelope`]). Out, and nothing else:
//! - a sealed field ([`envelope`]),
//! - a keyed hash ([`fingerprint`]),
//! - a [`TruncatedPan`](crate::card::truncated::TruncatedPan),
//! - a rendered request for the forwarder ([`render`], [`forward`]), which is released only against the grant of a commit.
//!
//! Invariant: no type here that holds a number or a CVC is `Clone`, `Display` or `Serialize`; its `Debug` is a constant.
//! Invariant: nothing here logs, and no error carries a value.

pub(in crate::keeper) mod charge_body;
pub(in crate::keeper) mod envelope;
pub(in crate::keeper) mod fingerprint;
pub(in crate::keeper) mod forward;
pub(in crate::keeper) mod json;
mod pan;
pub(in crate::keeper) mod render;
pub(in crate::keeper) mod submitted;
mod test_numbers;
mod verification_code;

pub use pan::{Pan, PanError};
pub use verification_code::CardVerificationCode;
