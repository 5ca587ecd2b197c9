//! Erasures, read back: where the log tells of one, and which keys have to go.

use rusqlite::{Connection, Row};

use super::codec::ReadError;
use super::index;
use super::keys;
use super::read::Readers;
use crate::card::id::{EventId, Token};
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::edge::store::{ErasedKey, Erasure, StoreError};

/// An id's bytes.
const ID_BYTES: usize = 18;

/// The entry of an erasure: the id of its event, and behind it that of the event that says that the bytes are gone.
pub(super) fn encode(erasure: &Erasure) -> Vec<u8> {
    let mut bytes = erasure.event.bytes().to_vec();
    bytes.extend(erasure.scrubbed.iter().flat_map(|event| event.bytes()));
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<Erasure, ReadError> {
    let corrupt = ReadError::Corrupt("erasure");
    let Some((event, rest)) = bytes.split_at_checked(ID_BYTES) else { return Err(corrupt) };
    let Some(event) = EventId::from_slice(event) else { return Err(corrupt) };
    let scrubbed = if rest.is_empty() { None } else { Some(EventId::from_slice(rest).ok_or(corrupt)?) };
    Ok(Erasure { event, scrubbed })
}

impl Readers {
    pub(super) fn erased_keys(&self) -> Result<Vec<ErasedKey>, StoreError> {
        self.with(|conn: &Connection| {
            let mut all = conn.prepare_cached(include_str!("sql/erased_keys_all.sql"))?;
            let mut rows = all.query([])?;
            let mut keys = Vec::new();
            while let Some(row) = rows.next()? {
                keys.push(erased_key(row)?);
            }
            Ok(keys)
        })
    }

    pub(super) fn erasure(&self, token: Token) -> Result<Option<Erasure>, StoreError> {
        self.with(|conn| {
            let entry = index::get(&self.common.index, conn, &keys::erasure(token))?;
            entry.as_deref().map(decode).transpose()
        })
    }
}

fn erased_key(row: &Row<'_>) -> Result<ErasedKey, ReadError> {
    let destroyed: Option<Vec<u8>> = row.get(4)?;
    let event = |bytes: Vec<u8>| EventId::from_slice(&bytes).ok_or(ReadError::Corrupt("erased key"));
    Ok(ErasedKey {
        key: row.get(0)?,
        tenant: TenantId(row.get(1)?),
        since: Time::from_micros(row.get(2)?),
        emptied: row.get::<_, Option<i64>>(3)?.map(Time::from_micros),
        destroyed: destroyed.map(event).transpose()?,
    })
}
