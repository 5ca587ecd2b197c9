//! What anyone may know of a card: ids, brand, truncated PAN, expiry, and how the sealed fields are laid out.
//! Nothing here ever holds a whole PAN.

pub mod id;
