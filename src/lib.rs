//! cardvault keeps payment cards for a company that must not: sealed at rest, answered with a token, forwarded
//! to payment processors, shown to nobody.
//!
//! # Map
//! One binary; each role is a process of its own, and code lives in the folder of the process it runs in.
//! - [`attest`]: what keeper and audit log both compute: tree hashes, signed notes, statements of openings.
//! - [`card`]: what anyone may know of a card: ids, brand, truncated PAN, expiry, the sealed layout.
//! - [`edge`]: TLS, HTTP, who may do what, charges, store, audit. Holds no keys, opens no card.
//! - [`tools`]: what a person runs beside the service: the processor sandbox.
//! - [`connector`]: the declarative language that says how to talk to one processor, and the connectors in it.
//! - [`tools`]: what a person runs.

pub mod attest;
pub mod card;
pub mod clock;
pub mod edge;
pub mod random;
pub mod wire;
pub mod connector;
pub mod random;
pub mod tools;
