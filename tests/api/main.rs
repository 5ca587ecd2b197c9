//! The API of a real vault: the binary serves, a client with a real credential asks over TLS.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::too_many_lines,
    clippy::print_stderr,
    reason = "a test: what fails here fails it, and tables are long"
)]

#[path = "../common/mod.rs"]
mod common;

mod processes;
mod refusals;
mod tokens;
