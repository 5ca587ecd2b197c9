//! A person's key, what a person asks for and signs, and what a person may ask for. It names no role: a person signs at a terminal,
//! the supervisor checks it, and a share of a key is sealed to it.
//!
//! - [`credential`]: what a principal shows to the API.
//! - [`key`]: the key file and its public half.
//! - [`request`]: what is signed, byte for byte.
//! - [`scope`]: the closed list of what persons may do.

pub mod credential;
pub mod key;
pub mod request;
pub mod scope;
pub mod share;
