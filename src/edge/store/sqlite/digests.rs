//! What an offline verifier compares with the log: for each card the digest of its sealed fields as they lie here.

use std::path::Path;

use rusqlite::Connection;

use super::codec::StoredCard;
use super::schema::{self, OpenError};
use crate::card::id::Token;
use crate::edge::store::{CardStatus, StoreError};

/// Rows read at a time.
const CHUNK: usize = 1_000;

/// One card as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardDigest {
    /// Its token.
    pub token: Token,
    /// Its version.
    pub version: u32,
    /// `SealedCard::digest` of the sealed fields; `None` once erased.
    pub sealed_sha256: Option<[u8; 32]>,
    /// Where it stands.
    pub status: CardStatus,
    /// Whether a legal hold is set.
    pub legal_hold: bool,
    /// Whether it is to be erased once the hold is released.
    pub erase_asked: bool,
}

/// Every card of the database at `path`: its directory, or the file itself. Nothing is written.
pub fn card_digests(path: &Path) -> Result<CardDigests, OpenError> {
    let file = if path.is_dir() { schema::file_in(path) } else { path.to_owned() };
    let conn = schema::open_reader(&file, schema::CACHE_KIB_ALONE)?;
    schema::check(&conn)?;
    Ok(CardDigests { conn, after: None, rows: Vec::new().into_iter() })
}

/// The cards in the order of their tokens.
#[derive(Debug)]
pub struct CardDigests {
    conn: Connection,
    after: Option<Token>,
    rows: std::vec::IntoIter<CardDigest>,
}

impl Iterator for CardDigests {
    type Item = Result<CardDigest, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(row) = self.rows.next() {
            self.after = Some(row.token);
            return Some(Ok(row));
        }
        match self.read() {
            Ok(rows) => self.rows = rows.into_iter(),
            Err(error) => return Some(Err(error)),
        }
        let row = self.rows.next()?;
        self.after = Some(row.token);
        Some(Ok(row))
    }
}

impl CardDigests {
    fn read(&self) -> Result<Vec<CardDigest>, StoreError> {
        let io = |_| StoreError::Unavailable("io");
        let after = self.after.map_or_else(Vec::new, |token| token.bytes().to_vec());
        let mut statement = self.conn.prepare_cached(include_str!("sql/cards_after.sql")).map_err(io)?;
        let limit = i64::try_from(CHUNK).unwrap_or(i64::MAX);
        let mut rows = statement.query((after, limit)).map_err(io)?;
        let mut out = Vec::with_capacity(CHUNK);
        while let Some(row) = rows.next().map_err(io)? {
            let card = StoredCard::read(row)?.row;
            out.push(CardDigest {
                token: card.token,
                version: card.version,
                sealed_sha256: card.sealed.as_ref().map(|sealed| sealed.digest()),
                status: card.status,
                legal_hold: card.legal_hold,
                erase_asked: card.erase_asked,
            });
        }
        Ok(out)
    }
}
