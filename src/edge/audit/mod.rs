//! The audit log: every change and every opening of a card is an event, appended in the transaction that makes it.
//!
//! `event` is what callers fill in, `canonical` the bytes of a leaf and `read` the way back, `tree` the Merkle tree over the
//! leaves, `chain` the sequencer that the store's writer owns, `certificate` what the log proves of an erasure.

pub mod canonical;
pub mod cards;
pub mod catalogue;
pub mod certificate;
pub mod chain;
pub mod event;
pub mod export;
pub mod openings;
pub mod proof;
pub mod read;
pub mod records;
pub mod tree;
pub mod verify;

#[cfg(test)]
mod tests;
