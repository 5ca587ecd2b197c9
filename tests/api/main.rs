//! The API of a real vault: the binary serves, a client with a real credential asks over TLS.

#![cfg(test)]

#[path = "../common/mod.rs"]
mod common;

mod custody;
mod disk;
mod erasures;
mod holds;
mod keys;
mod people;
mod principals;
mod processes;
mod ranges;
mod refusals;
mod roots;
mod sealed;
mod tampering;
mod terminal;
mod tokens;
