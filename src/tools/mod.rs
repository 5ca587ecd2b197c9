//! What a person runs beside the service.

pub mod client;
pub mod connector;
pub mod sandbox;
pub mod audit;
pub mod terminal;
