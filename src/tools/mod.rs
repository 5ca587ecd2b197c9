//! What a person runs beside the service: the processor sandbox, and what the tools share.

pub mod client;
pub mod sandbox;
pub mod connector;
pub mod terminal;
