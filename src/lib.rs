//! cardvault keeps payment cards for a company that must not: sealed at rest, answered with a token, forwarded
//! to payment processors, shown to nobody.
//!
//! # Map
//! One binary; each role is a process of its own, and code lives in the folder of the process it runs in.
//! - [`supervisor`]: starts and watches the others; the only reader of configuration, credentials, root key, key store.
//! - [`edge`]: TLS, HTTP, who may do what, charges, store, audit. Holds no keys, opens no card.
//! - [`keeper`]: keys and clear text. No network, no files.
//! - [`forwarder`]: TLS out to the loaded destinations only. No keys.
//! - [`tools`]: what a person runs beside the service: sandbox, demo, bench, connector and audit verbs.
//!
//! Shared by them, and free of secrets of their own:
//! - [`card`]: what anyone may know of a card: ids, brand, truncated PAN, expiry, the sealed layout.
//! - [`wire`]: the doors between roles: messages and framing.
//! - [`connector`]: the declarative language that says how to talk to one processor, and the connectors in it.
//! - [`attest`]: what keeper and audit log both compute: tree hashes, signed notes, statements of openings.
//! - [`config`], [`clock`], [`object`], [`random`], [`telemetry`].
//! - [`tools`]: what a person runs beside the service: the processor sandbox.
//! - [`tools`]: what a person runs beside the service.

pub mod attest;
pub mod card;
pub mod clock;
pub mod config;
pub mod connector;
pub mod edge;
pub mod forwarder;
pub mod keeper;
pub mod object;
pub mod random;
pub mod supervisor;
pub mod telemetry;
pub mod tools;
pub mod wire;
