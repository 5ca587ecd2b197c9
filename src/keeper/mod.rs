//! The keeper: keys and clear text. It parses submitted cards, seals, opens, renders. No network, no files; its only lines
//! are the pairs that the supervisor handed it.
//!
//! Threads: one reads the supervisor's line, one the edge's pair, one the forwarder's. They share one [`State`] behind a
//! lock, which is held for one question at a time. One more seals cards again, without the lock: there are many of them, and nobody
//! who pays waits for it. A panic in a question is caught, wiped and counted.

mod budget;
pub mod cleartext;
mod destinations;
mod exchanges;
mod forwards;
mod held;
pub mod keys;
mod openings;
mod ranges;
pub mod reseal;
mod service;
mod signer;
mod state;
#[cfg(test)]
mod tests;
mod updates;
mod webhooks;
mod zip;

pub use service::run;
