//! The audit log: every change and every opening of a card is an event, appended in the transaction that makes it.

pub mod event;
