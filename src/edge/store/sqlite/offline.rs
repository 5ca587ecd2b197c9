//! The log, the cards, principals and tenants of a database that no vault has open, or of a copy: for `audit export` and `audit verify`.

use std::io;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension};
use serde::de::DeserializeOwned;

use super::digests::{CardDigests, card_digests};
use super::{log, schema};
use crate::edge::audit::export::{CardState, Log, RecordKind, RecordState};
use crate::edge::store::{PrincipalRow, TenantRow};

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
        let conn = schema::open_reader(&file, schema::CACHE_KIB_ALONE).map_err(unreadable)?;
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
        log::each_leaf(&self.conn, 0..size, |leaf| each(leaf).map_err(Stopped::By)).map_err(|stopped| {
            match stopped {
                Stopped::By(error) => error,
                Stopped::Database => io::ErrorKind::InvalidData.into(),
            }
        })
    }

    fn cards(&mut self, each: &mut dyn FnMut(CardState)) -> io::Result<()> {
        for card in self.cards.take().into_iter().flatten() {
            let card = card.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            each(CardState {
                token: card.token,
                version: card.version,
                digest: card.sealed_sha256,
                status: card.status,
                held: card.legal_hold,
                erase_asked: card.erase_asked,
            });
        }
        Ok(())
    }

    fn records(&mut self, each: &mut dyn FnMut(RecordState)) -> io::Result<()> {
        for row in self.documents::<PrincipalRow>(include_str!("sql/principals_all.sql"))? {
            let (kind, id) = (RecordKind::Principal, row.id.to_string());
            each(RecordState { kind, id, digest: row.digest() });
        }
        for row in self.documents::<TenantRow>(include_str!("sql/tenants_all.sql"))? {
            let (kind, id) = (RecordKind::Tenant, row.id.to_string());
            each(RecordState { kind, id, digest: row.digest() });
        }
        Ok(())
    }
}

impl OfflineLog {
    fn documents<T: DeserializeOwned>(&self, sql: &str) -> io::Result<Vec<T>> {
        let mut statement = self.conn.prepare(sql).map_err(failed)?;
        let docs = statement.query_map([], |row| row.get::<_, String>(0)).map_err(failed)?;
        let read = |doc: String| serde_json::from_str(&doc).map_err(|_| io::ErrorKind::InvalidData.into());
        docs.map(|doc| doc.map_err(failed).and_then(read)).collect()
    }
}

/// Why the leaves were not read to their end.
enum Stopped {
    By(io::Error),
    Database,
}

impl From<rusqlite::Error> for Stopped {
    fn from(_: rusqlite::Error) -> Self {
        Self::Database
    }
}

fn failed(_: rusqlite::Error) -> io::Error {
    io::ErrorKind::InvalidData.into()
}
