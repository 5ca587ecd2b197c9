//! The supervisor: the only reader of configuration, connectors, credentials and key store. It starts the other roles,
//! hands each what it may know, starts again what ends, and takes commands on the local administration socket.
//!
//! - [`confine`]: what each role gives up before its first message.
//! - [`key_store`]: wrapped keys, tenants, identity.
//! - [`people`]: the registered persons, whose signatures count; [`two_person`], [`approvals`] and [`verbs`]: what nobody does alone.
//! - [`reach`]: what the configuration lets out, and what of it is wider than what was approved.
//! - [`settings`]: configuration and files, turned into what each role is told.
//! - `ranges`: the operator's table of issuer ranges.
//! - [`vault`]: the running roles and their pairs; `kek`: the unsealer's tasks; `roots`: the KEK moves to another root provider; `sealed`: a vault without its KEK.
//! - [`ceremony`]: a secret shared among custodians; [`gathering`]: how they give their shares.
//! - [`admin`]: the local socket and the commands that come over it.
//! - [`setup`]: `cardvault init`.

pub mod admin;
pub mod approvals;
pub mod asked;
pub mod ceremony;
mod children;
pub mod confine;
mod durable;
pub mod gathering;
mod inventory;
mod kek;
pub mod key_store;
pub mod keys;
mod line;
pub mod people;
mod ranges;
pub mod reach;
pub mod role;
mod roots;
mod sealed;
pub mod serve;
pub mod settings;
pub mod setup;
pub mod two_person;
mod vault;
pub mod verbs;
