//! Webhooks against a receiver of the test's own, over TLS: what arrives, who may see it, and what a failing receiver or a crash leaves.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test: what fails here fails it"
)]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "shared with other tests, which use the rest")]
mod common;
mod crash;
mod desk;
mod endpoints;
mod events;
mod failing;
mod keys;
mod receiver;
