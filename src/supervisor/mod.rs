//! The supervisor.

pub mod confine;
