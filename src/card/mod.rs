//! What anyone may know of a card: ids, brand, truncated PAN, expiry, and how the sealed fields are laid out.
//! Nothing here ever holds a whole PAN.

pub mod brand;
pub mod expiry;
pub mod fingerprint;
pub mod id;
pub mod range;
pub mod sealed;
pub mod stray;
pub mod tenant;
pub mod truncated;
