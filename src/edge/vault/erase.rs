//! Erasing a card: gone at once for every caller; a legal hold or an open attempt makes it wait.

use super::{Error, TRIES_MAX, Vault};
use crate::card::id::Token;
use crate::clock::Time;
use crate::edge::audit::catalogue;
use crate::edge::directory::Caller;
use crate::edge::store::{CardRow, CardStatus, Change, CommitError, RowChange};

/// No network lets an authorization live longer, and no processor's answer is awaited longer: a card that still waits to be erased
/// then waits for a person.
const WAIT_SECONDS_MAX: i64 = 31 * 86_400;

/// What an erasure came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erasure {
    /// Gone.
    Done,
    /// Suspended: a legal hold keeps it until released.
    Held,
    /// No new use; an attempt or authorization still needs it.
    Waiting,
    /// The same, for longer than anything can need it.
    Overdue,
}

/// A card that was erased, or will be.
#[derive(Clone, Copy, Debug)]
pub struct Erased {
    /// Its token.
    pub token: Token,
    /// What it came to.
    pub erasure: Erasure,
    /// Where it stands.
    pub status: CardStatus,
    /// When it was erased.
    pub erased_at: Option<Time>,
    /// When its bytes were gone from every file.
    pub scrubbed_at: Option<Time>,
    /// Until when it may wait.
    pub deadline: Option<Time>,
}

/// Until when a card may wait to be erased; none if it does not wait.
pub fn erase_deadline(row: &CardRow) -> Option<Time> {
    match row.status {
        CardStatus::Erasing => Some(row.updated_at.plus_seconds(WAIT_SECONDS_MAX)),
        CardStatus::Active | CardStatus::Suspended | CardStatus::Erased => None,
    }
}

impl Erased {
    fn of(row: &CardRow, erasure: Erasure) -> Self {
        Self {
            token: row.token,
            erasure,
            status: row.status,
            erased_at: row.erased_at,
            scrubbed_at: row.scrubbed_at,
            deadline: erase_deadline(row),
        }
    }

    fn of_waiting(row: &CardRow, now: Time) -> Self {
        let is_over = erase_deadline(row).is_some_and(|deadline| deadline <= now);
        Self::of(row, if is_over { Erasure::Overdue } else { Erasure::Waiting })
    }
}

impl Vault {
    /// Erases a card. Asking again says how it stands.
    pub async fn erase(&self, caller: &Caller, token: Token) -> Result<Erased, Error> {
        let tenant = caller.tenant_id();
        for _ in 0..TRIES_MAX {
            let row = self.store.card(tenant, token).await?.ok_or(Error::TokenUnknown)?;
            let settled = match row.status {
                CardStatus::Erased => return Ok(Erased::of(&row, Erasure::Done)),
                CardStatus::Erasing => return Ok(Erased::of_waiting(&row, self.clock.now())),
                CardStatus::Active | CardStatus::Suspended if row.legal_hold => {
                    self.erase_later(caller, row).await
                }
                CardStatus::Active | CardStatus::Suspended => self.erase_row(caller, &row).await,
            };
            match settled {
                // Erased or otherwise changed meanwhile: the next round sees how it stands.
                Err(Error::Commit(CommitError::Conflict | CommitError::NotFound)) => {}
                settled => return settled,
            }
        }
        Err(CommitError::Conflict.into())
    }

    async fn erase_row(&self, caller: &Caller, row: &CardRow) -> Result<Erased, Error> {
        let (tenant, token) = (row.tenant, row.token);
        let mut change = Change {
            rows: vec![RowChange::EraseCard { tenant, token, held_seen: false }],
            events: vec![self.row_event(caller, catalogue::CARD_ERASE, row)?],
            idempotency: None,
        };
        self.end_agreements(caller, token, "erased", &mut change).await?;
        self.store.commit(change).await?;
        let row = self.store.card(tenant, token).await?.ok_or(Error::TokenUnknown)?;
        let erasure = match row.status {
            CardStatus::Erased => Erasure::Done,
            CardStatus::Erasing | CardStatus::Active | CardStatus::Suspended => Erasure::Waiting,
        };
        Ok(Erased::of(&row, erasure))
    }

    /// Under a legal hold the card is only suspended; the release of the hold erases it.
    async fn erase_later(&self, caller: &Caller, mut row: CardRow) -> Result<Erased, Error> {
        if !row.erase_asked {
            row.status = CardStatus::Suspended;
            let ask = RowChange::EraseCard { tenant: row.tenant, token: row.token, held_seen: true };
            let mut event = self.row_event(caller, catalogue::CARD_SUSPEND, &row)?;
            event.facts.note = Some("legal_hold".to_owned());
            self.store.commit(Change { rows: vec![ask], events: vec![event], idempotency: None }).await?;
        }
        Ok(Erased::of(&row, Erasure::Held))
    }
}
