//! What a person runs beside the service.

pub mod administer;
pub mod audit;
pub mod bench;
pub mod charges;
pub mod client;
pub mod codes;
pub mod connector;
pub mod custody;
pub mod demo;
pub mod doctor;
pub mod erase;
pub mod holds;
pub mod invoices;
pub mod keys;
pub mod person;
pub mod sandbox;
pub mod search;
pub mod signing;
pub mod terminal;
