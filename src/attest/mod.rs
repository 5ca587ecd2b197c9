//! What keeper and audit log both compute, so that each can check the other: tree hashes and proofs, signed notes,
//! the running hash over openings, and the bytes of the keeper's statements. Pure functions, no keys kept, no I/O.
//!
//! **Opening hash**: `SHA-256(previous ‖ field(boot) ‖ field(seq) ‖ field(purpose) ‖ field(token) ‖ field(destination) ‖ field(event
//! id))`, where `previous` is 32 bytes (zeros before the first opening of a boot and purpose), `field(x)` is the length of x in
//! bytes (u16, big-endian) and x, every x is the text that the audit event shows, and `seq` is in decimal without zeros in front.
//!
//! **Statement bytes**: `cardvault/statement/v1\n` and the canonical JSON (RFC 8785) of
//! `{"boot":…,"openings":[{"hash":…,"purpose":…,"seq":…},…]}`, openings sorted by purpose, hash in lower-case hex.

pub mod merkle;
