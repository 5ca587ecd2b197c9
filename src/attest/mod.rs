//! What keeper and audit log both compute, so that each can check the other: tree hashes and proofs, signed notes,
//! the running hash over openings, and the bytes of the keeper's statements. Pure functions, no keys kept, no I/O.
//!
//! **Opening hash**: `SHA-256(previous ‖ field(boot) ‖ field(seq) ‖ field(purpose) ‖ field(token) ‖ field(destination) ‖
//! field(event id))`, where `previous` is 32 bytes (zeros before the first opening of a boot and purpose), `field(x)` is the
//! length of x in bytes (u16, big-endian) and x, every x is the text that the audit event shows, and `seq` is in decimal
//! without zeros in front.
//!
//! **Statement bytes**: `cardvault/statement/v1\n` and then the canonical JSON (RFC 8785) of
//! `{"boot":…,"openings":[{"hash":…,"purpose":…,"seq":…},…]}`: openings sorted by purpose, hashes in lower-case hex.

pub mod json;
pub mod merkle;
pub mod note;

use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};

use crate::card::id::{EventId, Token};
use merkle::Hash;

/// The running hash before the first opening.
pub const NO_OPENING: Hash = [0; 32];
/// What the keeper signs a statement under, so that no signature over a statement is one over a note.
const STATEMENT_PREFIX: &[u8] = b"cardvault/statement/v1\n";

/// One opening of a PAN, as the running hash sees it.
#[derive(Clone, Copy, Debug)]
pub struct Opened<'a> {
    /// The keeper's boot.
    pub boot: &'a str,
    /// Counts the openings of this boot and purpose, from 1.
    pub seq: u64,
    /// Why the PAN was opened.
    pub purpose: &'a str,
    /// The card.
    pub token: Token,
    /// Where it was to go; empty for a re-seal.
    pub destination: &'a str,
    /// The event that accounts for it.
    pub event: EventId,
}

/// The running hash after an opening, from the one before it.
pub fn opening_hash(previous: &Hash, opened: &Opened<'_>) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(previous);
    let mut field = |text: &str| {
        context.update(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        context.update(text.as_bytes());
    };
    field(opened.boot);
    field(&opened.seq.to_string());
    field(opened.purpose);
    field(&opened.token.to_string());
    field(opened.destination);
    field(&opened.event.to_string());
    context.finish().as_ref().try_into().unwrap_or(NO_OPENING)
}

/// The last opening of one purpose, as a statement names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated<'a> {
    /// The purpose.
    pub purpose: &'a str,
    /// Its last sequence number; 0 for none.
    pub seq: u64,
    /// The running hash after it; [`NO_OPENING`] for none.
    pub hash: Hash,
}

/// The bytes that the keeper signs for a statement. The openings are sorted by purpose, each purpose once.
pub fn statement_bytes(boot: &str, openings: &[Stated<'_>]) -> Vec<u8> {
    let mut out = STATEMENT_PREFIX.to_vec();
    out.extend_from_slice(b"{\"boot\":");
    json::write_string(&mut out, boot);
    out.extend_from_slice(b",\"openings\":");
    json::write_list(&mut out, openings, |out, line| {
        out.extend_from_slice(b"{\"hash\":\"");
        out.extend_from_slice(HEXLOWER.encode(&line.hash).as_bytes());
        out.extend_from_slice(b"\",\"purpose\":");
        json::write_string(out, line.purpose);
        out.extend_from_slice(b",\"seq\":");
        json::write_u64(out, line.seq);
        out.push(b'}');
    });
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::id::IdBytes;

    fn first() -> Opened<'static> {
        Opened {
            boot: "b1",
            seq: 1,
            purpose: "charge",
            token: Token(IdBytes([1; 18])),
            destination: "sandbox",
            event: EventId(IdBytes([2; 18])),
        }
    }

    #[test]
    fn the_opening_hash_is_that_of_its_formula() {
        let opened = first();
        let mut bytes = vec![0; 32];
        for text in ["b1", "1", "charge", &opened.token.to_string(), "sandbox", &opened.event.to_string()] {
            bytes.extend_from_slice(&(text.len() as u16).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        assert_eq!(opening_hash(&NO_OPENING, &opened), merkle::sha256(&bytes));
    }

    #[test]
    fn every_part_of_an_opening_changes_its_hash() {
        let hash = opening_hash(&NO_OPENING, &first());
        let others = [
            opening_hash(&hash, &first()),
            opening_hash(&NO_OPENING, &Opened { boot: "b2", ..first() }),
            opening_hash(&NO_OPENING, &Opened { seq: 2, ..first() }),
            opening_hash(&NO_OPENING, &Opened { purpose: "forward", ..first() }),
            opening_hash(&NO_OPENING, &Opened { token: Token(IdBytes([3; 18])), ..first() }),
            opening_hash(&NO_OPENING, &Opened { destination: "", ..first() }),
            opening_hash(&NO_OPENING, &Opened { event: EventId(IdBytes([3; 18])), ..first() }),
        ];
        for other in others {
            assert_ne!(hash, other);
        }
    }

    #[test]
    fn a_statement_has_one_spelling() {
        let openings = [
            Stated { purpose: "charge", seq: 12, hash: [0xab; 32] },
            Stated { purpose: "reseal", seq: 0, hash: NO_OPENING },
        ];
        let (charge, reseal) = ("ab".repeat(32), "00".repeat(32));
        let expected = format!(
            "cardvault/statement/v1\n{{\"boot\":\"b1\",\"openings\":[{{\"hash\":\"{charge}\",\"purpose\":\"charge\",\"seq\":12}},\
             {{\"hash\":\"{reseal}\",\"purpose\":\"reseal\",\"seq\":0}}]}}"
        );
        assert_eq!(String::from_utf8(statement_bytes("b1", &openings)).unwrap(), expected);
        assert!(statement_bytes("b1", &[]).ends_with(br#"{"boot":"b1","openings":[]}"#));
    }
}
