//! Forwards against a destination of the test's own: what is sent, what is refused, what comes back, and what a crash leaves.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test: what fails here fails it"
)]

mod answers;
#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "shared with other tests, which use the rest")]
mod common;
mod crash;
mod desk;
mod refusals;
mod sending;
mod upstream;
