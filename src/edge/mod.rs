//! The edge: TLS, HTTP, who may do what, charges, store, audit. It holds no keys and opens no card.

pub mod audit;
pub mod keeper;
pub mod store;
