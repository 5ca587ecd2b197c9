//! How the log names customers: SHA-256 over a salt of the customer and the keyed hash that the keeper made of the reference.
//!
//! The salt is random. It is made with the first card of a customer, lies beside the sealed fields of each, and goes with the
//! last: from then on nobody links the pseudonyms in the log to the customer, not even who holds the pseudonym key and guesses
//! the reference. A customer who comes back later has another name.

use ring::digest::{Context, SHA256};

use super::super::keys;
use super::{Applying, Refusal, load_card};
use crate::card::id::Token;
use crate::edge::store::CommitError;
use crate::random::make_bytes;

/// 96 bits: nobody tries so many salts for one reference.
const SALT_BYTES: usize = 12;
/// What of the hash the log shows, in bytes.
const PSEUDONYM_BYTES: usize = 16;

/// A customer's salt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Salt([u8; SALT_BYTES]);

impl Salt {
    fn make() -> Result<Self, CommitError> {
        make_bytes().map(Self).map_err(|_| CommitError::Unavailable("randomness"))
    }

    /// A stored one; zeros are left where one was.
    pub(super) fn read(stored: Option<[u8; SALT_BYTES]>) -> Option<Self> {
        stored.filter(|bytes| *bytes != [0; SALT_BYTES]).map(Self)
    }

    pub(super) fn bytes(&self) -> &[u8; SALT_BYTES] {
        &self.0
    }

    /// The customer's name in the log, hex, from the keeper's keyed hash of the reference. One block of the hash: the parts before
    /// that hash have fixed lengths.
    pub(in super::super) fn pseudonym(&self, keyed: &str) -> String {
        let mut context = Context::new(&SHA256);
        for part in [b"customer/2".as_slice(), &self.0, keyed.as_bytes()] {
            context.update(part);
        }
        let sum = context.finish();
        data_encoding::HEXLOWER.encode(sum.as_ref().get(..PSEUDONYM_BYTES).unwrap_or_default())
    }
}

impl Applying<'_> {
    /// The salt of the customer with this mark: that of the oldest card there is, or a new one.
    pub(super) fn salt_of(&self, customer: [u8; 16]) -> Result<Salt, Refusal> {
        let oldest = self.index.scan(self.conn, keys::customer_prefix(customer), 1)?;
        let oldest = oldest.first().and_then(|(key, _)| keys::last_id(key)).and_then(Token::from_slice);
        let Some(token) = oldest else { return Ok(Salt::make()?) };
        let sealed_id = load_card(self.conn, token)?.and_then(|card| card.sealed_id);
        let Some(id) = sealed_id else { return Ok(Salt::make()?) };
        if let Some(salt) = self.sealed_marks(id)?.salt {
            return Ok(salt);
        }
        // Stored before there were salts; the next card of the customer shall find the same.
        let salt = Salt::make()?;
        self.conn.prepare_cached(include_str!("../sql/salt_put.sql"))?.execute((id, salt.bytes()))?;
        Ok(salt)
    }
}
