//! Forwards: one row each, the answer in a table of its own, which goes with the card.

use rusqlite::{Connection, OptionalExtension};

use super::super::codec::{self, ReadError};
use super::{Applying, Refusal, to_json};
use crate::card::id::ForwardId;
use crate::edge::store::{CardStatus, CommitError, ForwardAnswer, ForwardRow, ForwardStatus};

/// In front of each answer: an empty one would else be the zeros that an erasure leaves.
const THERE: u8 = 1;

impl Applying<'_> {
    pub(super) fn put_forward(&mut self, forward: &ForwardRow) -> Result<(), Refusal> {
        let before = match forward.revision {
            1 => None,
            _ => load_forward(self.conn, forward.id)?.filter(|row| row.tenant == forward.tenant),
        };
        if forward.revision != before.as_ref().map_or(0, |row| row.revision).saturating_add(1) {
            return Err(CommitError::Conflict.into());
        }
        let card = self.card_of(forward.tenant, forward.token)?.row;
        if before.is_none() {
            // The writer has the last word on whether a card may still be used: it may have been suspended a moment ago.
            match card.status {
                CardStatus::Erasing | CardStatus::Erased => return Err(CommitError::NotFound.into()),
                CardStatus::Active if card.version == forward.card_version => {}
                CardStatus::Active | CardStatus::Suspended => return Err(CommitError::Conflict.into()),
            }
            self.charged = Some(forward.token);
        }
        let kept = forward.answer.as_ref().filter(|_| card.status != CardStatus::Erased);
        let answer = match kept {
            Some(answer) => {
                self.conn
                    .prepare_cached(include_str!("../sql/forward_answer_insert.sql"))?
                    .execute((codec::encode(&(THERE, answer)),))?;
                Some(self.conn.last_insert_rowid())
            }
            None => None,
        };
        if forward.status == ForwardStatus::Answered && card.status != CardStatus::Erased {
            self.note_use(forward.token);
        }
        let put = match before {
            None => include_str!("../sql/forward_insert.sql"),
            Some(_) => include_str!("../sql/forward_update.sql"),
        };
        self.conn.prepare_cached(put)?.execute((
            forward.id.bytes(),
            forward.tenant.0,
            forward.token.bytes(),
            forward.status == ForwardStatus::Sending,
            answer,
            to_json(forward)?,
        ))?;
        Ok(())
    }
}

/// Reads a forward with its answer.
pub(in crate::edge::store::sqlite) fn load_forward(
    conn: &Connection,
    id: ForwardId,
) -> Result<Option<ForwardRow>, ReadError> {
    let found: Option<(String, Option<Vec<u8>>)> = conn
        .prepare_cached(include_str!("../sql/forward_get.sql"))?
        .query_row((id.bytes(),), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((doc, answer)) = found else { return Ok(None) };
    let mut row = read(&doc)?;
    // Zeros are what an erasure leaves.
    let answer = answer.filter(|bytes| bytes.iter().any(|byte| *byte != 0));
    let answer = answer.map(|bytes| codec::decode::<(u8, ForwardAnswer)>(&bytes)).transpose()?;
    row.answer = answer.map(|(_, answer)| answer);
    Ok(Some(row))
}

/// Reads the forwards that are being sent.
pub(in crate::edge::store::sqlite) fn load_open_forwards(
    conn: &Connection,
    limit: usize,
) -> Result<Vec<ForwardRow>, ReadError> {
    let mut statement = conn.prepare_cached(include_str!("../sql/forwards_open.sql"))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let docs = statement.query_map((limit,), |row| row.get::<_, String>(0))?;
    docs.map(|doc| read(&doc?)).collect()
}

fn read(doc: &str) -> Result<ForwardRow, ReadError> {
    serde_json::from_str(doc).map_err(|_| ReadError::Corrupt("forward"))
}
