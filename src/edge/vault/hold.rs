//! Legal holds: while one is set the card is not erased, whoever asks. Each has a reference of the caller's, such as a case's number,
//! or none; the card is held until the last is released. Its status stays; an erase that was asked for, before or under the hold,
//! suspends the card and takes place on release.

use super::{Error, TRIES_MAX, Vault};
use crate::card::id::Token;
use crate::clock::Time;
use crate::edge::audit::catalogue;
use crate::edge::directory::Caller;
use crate::edge::store::{CardRow, CardStatus, Change, CommitError, LegalHold, RowChange};

/// How a card stands after its hold was set or released.
#[derive(Clone, Debug)]
pub struct Hold {
    /// Its token.
    pub token: Token,
    /// Whether this call set or released one; false if it stood so before.
    pub changed: bool,
    /// Whether a hold is set.
    pub held: bool,
    /// The holds that are set.
    pub holds: Vec<LegalHold>,
    /// Where it stands.
    pub status: CardStatus,
    /// Whether it is to be erased on release.
    pub erase_asked: bool,
    /// When it was erased.
    pub erased_at: Option<Time>,
    /// When its bytes were gone from every file.
    pub scrubbed_at: Option<Time>,
}

impl Hold {
    fn of(row: &CardRow, holds: Vec<LegalHold>, changed: bool) -> Self {
        Self {
            token: row.token,
            changed,
            held: row.legal_hold,
            holds,
            status: row.status,
            erase_asked: row.erase_asked,
            erased_at: row.erased_at,
            scrubbed_at: row.scrubbed_at,
        }
    }
}

impl Vault {
    /// Sets (`held`) or releases the legal hold of this reference. Asking again says how the card stands; an erased one takes no hold.
    pub async fn set_legal_hold(
        &self,
        caller: &Caller,
        token: Token,
        held: bool,
        reference: &str,
    ) -> Result<Hold, Error> {
        let tenant = caller.tenant_id();
        for _ in 0..TRIES_MAX {
            let row = self.store.card(tenant, token).await?.ok_or(Error::TokenUnknown)?;
            if row.status == CardStatus::Erased && held {
                return Err(Error::TokenErased { scrubbed_at: row.scrubbed_at });
            }
            let holds = self.store.legal_holds(token).await?;
            if holds.iter().any(|hold| hold.reference == reference) == held {
                return Ok(Hold::of(&row, holds, false));
            }
            let others = holds.iter().any(|hold| hold.reference != reference);
            match self.store.commit(self.hold_change(caller, &row, held, (reference, others)).await?).await {
                // Erased or otherwise changed meanwhile: the next round sees how it stands.
                Err(CommitError::Conflict | CommitError::NotFound) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    let row = self.store.card(tenant, token).await?.ok_or(Error::TokenUnknown)?;
                    return Ok(Hold::of(&row, self.store.legal_holds(token).await?, true));
                }
            }
        }
        Err(CommitError::Conflict.into())
    }

    async fn hold_change(
        &self,
        caller: &Caller,
        row: &CardRow,
        held: bool,
        (reference, others): (&str, bool),
    ) -> Result<Change, Error> {
        let mut event = self.row_event(caller, catalogue::CARD_HOLD, row)?;
        let note = match (held, others) {
            (true, _) => "set",
            (false, true) => "released_one",
            (false, false) => "released",
        };
        event.facts.note = Some(note.to_owned());
        let set = RowChange::SetLegalHold {
            tenant: row.tenant,
            token: row.token,
            held,
            reference: reference.to_owned(),
            others_seen: others,
            status_seen: row.status,
            erase_asked_seen: row.erase_asked,
        };
        let mut change = Change { rows: vec![set], events: vec![event], idempotency: None };
        if held && row.status == CardStatus::Erasing {
            let mut event = self.row_event(caller, catalogue::CARD_SUSPEND, row)?;
            event.facts.note = Some("legal_hold".to_owned());
            change.events.push(event);
        } else if !held && !others && row.erase_asked {
            change.events.push(self.row_event(caller, catalogue::CARD_ERASE, row)?);
            self.end_agreements(caller, row.token, "erased", &mut change).await?;
        }
        Ok(change)
    }
}
