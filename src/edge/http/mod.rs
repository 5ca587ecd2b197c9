//! HTTP: the accept loop, the routes as a table, extractors that quote nothing, problems.
//!
//! - [`routes`]: the table; [`openapi`] describes it.
//! - [`guard`]: what stands before and after every handler.
//! - [`extract`], [`reply`]: what a handler takes and gives.
//! - [`problem`], [`code`]: the one place where an error gets its status.
//! - `tokens`, `agreements`, `runs`, …: one file per resource.
//! - [`listener`], [`tls`]: connections.

mod admin;
mod agreements;
mod charges;
pub mod code;
mod erasures;
mod export;
pub mod extract;
mod forwards;
pub mod guard;
pub mod health;
mod holds;
pub mod listener;
mod log;
pub mod openapi;
pub mod problem;
mod processor_webhooks;
pub mod reply;
pub mod routes;
mod runs;
pub mod sealed;
pub mod tls;
mod tokens;
mod webhooks;

#[cfg(test)]
mod tests;
