//! The log and the cards of a database that no vault has open, or of a copy: for `audit export` and `audit verify`.

use std::io;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::digests::{CardDigests, card_digests};
use super::schema;
use crate::edge::audit::export::{CardState, Log};

/// A database, read only.
#[derive(Debug)]
pub struct OfflineLog {
    conn: Connection,
    cards: Option<CardDigests>,
}

impl OfflineLog {
    /// Opens the database at `path`: its directory, or the file itself. Nothing is written.
    pub fn open(path: &Path) -> io::Result<Self> {
        let unreadable = |_| io::Error::from(io::ErrorKind::InvalidData);
        let file = if path.is_dir() { schema::file_in(path) } else { path.to_owned() };
        let conn = schema::open_reader(&file).map_err(unreadable)?;
        schema::check(&conn).map_err(unreadable)?;
        Ok(Self { conn, cards: Some(card_digests(&file).map_err(unreadable)?) })
    }
}

impl Log for OfflineLog {
    fn checkpoint(&mut self) -> io::Result<Option<String>> {
        self.conn
            .query_row(include_str!("sql/checkpoint_last.sql"), (), |row| row.get(0))
            .optional()
            .map_err(failed)
    }

    fn leaves(&mut self, size: u64, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let mut statement = self.conn.prepare(include_str!("sql/events_leaves.sql")).map_err(failed)?;
        let mut rows = statement.query((0, size)).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            each(row.get_ref(0).map_err(failed)?.as_bytes().map_err(|_| io::ErrorKind::InvalidData)?)?;
        }
        Ok(())
    }

    fn cards(&mut self, each: &mut dyn FnMut(CardState)) -> io::Result<()> {
        for card in self.cards.take().into_iter().flatten() {
            let card = card.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            each(CardState {
                token: card.token,
                version: card.version,
                digest: card.sealed_sha256,
                status: card.status,
            });
        }
        Ok(())
    }
}

fn failed(_: rusqlite::Error) -> io::Error {
    io::ErrorKind::InvalidData.into()
}
