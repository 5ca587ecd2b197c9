//! Legal holds: by reference, any number of them; the card is held while there is one.

use rusqlite::Connection;

use super::super::codec::{FLAG_ERASE_WANTED, FLAG_HOLD, ReadError};
use super::{Applying, Refusal};
use crate::card::id::Token;
use crate::clock::Time;
use crate::edge::store::{CardStatus, CommitError, LEGAL_HOLDS_MAX, LegalHold, RowChange};

impl Applying<'_> {
    /// A [`RowChange::SetLegalHold`].
    pub(super) fn set_legal_hold(&mut self, change: &RowChange) -> Result<(), Refusal> {
        let RowChange::SetLegalHold {
            tenant,
            token,
            held,
            reference,
            others_seen,
            status_seen,
            erase_asked_seen,
        } = change
        else {
            return Ok(());
        };
        let (token, held) = (*token, *held);
        let mut card = self.card_of(*tenant, token)?;
        if card.row.status == CardStatus::Erased {
            return Err(CommitError::NotFound.into());
        }
        let others =
            legal_holds(self.conn, token)?.iter().filter(|hold| hold.reference != *reference).count();
        let seen = (*status_seen, *erase_asked_seen, *others_seen);
        if (card.row.status, card.flags & FLAG_ERASE_WANTED != 0, others > 0) != seen {
            return Err(CommitError::Conflict.into());
        }
        if held && others >= LEGAL_HOLDS_MAX {
            return Err(CommitError::TooMany.into());
        }
        self.keep_hold(token, reference, held)?;
        let was = card.row.status;
        if !held {
            if others > 0 {
                return Ok(());
            }
            card.flags &= !FLAG_HOLD;
            if card.flags & FLAG_ERASE_WANTED != 0 {
                card.flags &= !FLAG_ERASE_WANTED;
                return self.erase_loaded(card);
            }
        } else {
            card.flags |= FLAG_HOLD;
            // A hold stops an erase that still waits; it is taken up again on release.
            if card.row.status == CardStatus::Erasing {
                self.list_fingerprint(&card)?;
                card.flags |= FLAG_ERASE_WANTED;
                card.row.status = CardStatus::Suspended;
            }
        }
        card.row.updated_at = self.now;
        self.write_card(&card)?;
        if was == card.row.status { Ok(()) } else { self.tell_of_card("token.suspended", &card.row) }
    }

    fn keep_hold(&self, token: Token, reference: &str, held: bool) -> Result<(), Refusal> {
        if held {
            let mut put = self.conn.prepare_cached(include_str!("../sql/legal_hold_put.sql"))?;
            put.execute((token.bytes(), reference, self.now.micros))?;
        } else {
            let mut delete = self.conn.prepare_cached(include_str!("../sql/legal_hold_delete.sql"))?;
            delete.execute((token.bytes(), reference))?;
        }
        Ok(())
    }
}

/// The holds of a card.
pub(in crate::edge::store::sqlite) fn legal_holds(
    conn: &Connection,
    token: Token,
) -> Result<Vec<LegalHold>, ReadError> {
    let mut of = conn.prepare_cached(include_str!("../sql/legal_holds_of.sql"))?;
    let rows = of.query_map((token.bytes(),), |row| {
        let since: Option<i64> = row.get(1)?;
        Ok(LegalHold { reference: row.get(0)?, since: since.map(Time::from_micros) })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
