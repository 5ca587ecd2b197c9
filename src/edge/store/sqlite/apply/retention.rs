//! When a card was used last, and its erasure once that is long ago.

use super::super::keys;
use super::super::retention::{idle_since, write_use};
use super::{Applying, Refusal};
use crate::card::id::Token;
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::edge::store::{CommitError, IdleCard};

impl Applying<'_> {
    /// The card was used, and it worked.
    pub(super) fn note_use(&mut self, token: Token) {
        self.index.put(&keys::last_use(token), &write_use(self.now));
    }

    /// Erases a card that is idle since before this instant; whoever found it so may have found what is so no more.
    pub(super) fn erase_idle(&mut self, card: &IdleCard, before: Time) -> Result<(), Refusal> {
        let (tenant, token): (TenantId, Token) = (card.tenant, card.token);
        let card = self.card_of(tenant, token)?;
        let since = idle_since(self.conn, &*self.index, &card)?;
        if card.row.legal_hold || since.is_none_or(|since| since >= before) {
            return Err(CommitError::Conflict.into());
        }
        self.erase_loaded(card)
    }
}
