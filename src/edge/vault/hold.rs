//! Legal holds: while one is set the card is not erased, whoever asks. Its status stays; an erase that was asked for, before or
//! under the hold, suspends the card and takes place on release.

use super::{Error, TRIES_MAX, Vault};
use crate::card::id::Token;
use crate::clock::Time;
use crate::edge::audit::catalogue;
use crate::edge::directory::Caller;
use crate::edge::store::{CardRow, CardStatus, Change, CommitError, RowChange};

/// How a card stands after its hold was set or released.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    /// Its token.
    pub token: Token,
    /// Whether a hold is set.
    pub held: bool,
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
    fn of(row: &CardRow) -> Self {
        Self {
            token: row.token,
            held: row.legal_hold,
            status: row.status,
            erase_asked: row.erase_asked,
            erased_at: row.erased_at,
            scrubbed_at: row.scrubbed_at,
        }
    }
}

impl Vault {
    /// Sets (`held`) or releases a legal hold. Asking again says how the card stands; an erased one takes no hold.
    pub async fn set_legal_hold(&self, caller: &Caller, token: Token, held: bool) -> Result<Hold, Error> {
        let tenant = caller.tenant_id();
        for _ in 0..TRIES_MAX {
            let row = self.store.card(tenant, token).await?.ok_or(Error::TokenUnknown)?;
            if row.status == CardStatus::Erased && held {
                return Err(Error::TokenErased { scrubbed_at: row.scrubbed_at });
            }
            if row.legal_hold == held {
                return Ok(Hold::of(&row));
            }
            match self.store.commit(self.hold_change(caller, &row, held).await?).await {
                // Erased or otherwise changed meanwhile: the next round sees how it stands.
                Err(CommitError::Conflict | CommitError::NotFound) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    let row = self.store.card(tenant, token).await?.ok_or(Error::TokenUnknown)?;
                    return Ok(Hold::of(&row));
                }
            }
        }
        Err(CommitError::Conflict.into())
    }

    async fn hold_change(&self, caller: &Caller, row: &CardRow, held: bool) -> Result<Change, Error> {
        let mut event = self.row_event(caller, catalogue::CARD_HOLD, row)?;
        event.facts.note = Some(if held { "set" } else { "released" }.to_owned());
        let set = RowChange::SetLegalHold {
            tenant: row.tenant,
            token: row.token,
            held,
            status_seen: row.status,
            erase_asked_seen: row.erase_asked,
        };
        let mut change = Change { rows: vec![set], events: vec![event], idempotency: None };
        if held && row.status == CardStatus::Erasing {
            let mut event = self.row_event(caller, catalogue::CARD_SUSPEND, row)?;
            event.facts.note = Some("legal_hold".to_owned());
            change.events.push(event);
        } else if !held && row.erase_asked {
            change.events.push(self.row_event(caller, catalogue::CARD_ERASE, row)?);
            self.end_agreements(caller, row.token, "erased", &mut change).await?;
        }
        Ok(change)
    }
}
