//! Charges against the sandbox: each verb, each way in which a processor can leave us without an answer, and what is refused before
//! anything is sent.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test: what fails here fails it"
)]

#[path = "../common/adyen.rs"]
mod adyen;
mod agreements;
#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "shared with other tests, which use the rest")]
mod common;
mod desk;
mod dunning;
mod keeping;
mod network;
mod refunds;
mod refusals;
mod rotation;
mod routing;
mod runs;
mod unknown;
mod updates;
mod verbs;
mod webhooks;
