//! Showing cards, masked.

use super::{Card, Error, Vault, expiry_of, is_unreadable};
use crate::card::id::Token;
use crate::edge::directory::Caller;
use crate::edge::store::{CardRow, Page};

impl Vault {
    /// What may be shown of a card.
    pub async fn read(&self, caller: &Caller, token: Token) -> Result<Card, Error> {
        let row = self.live_row(caller.tenant_id(), token).await?;
        let card = self.show(caller, row).await?;
        let event = self.read_event(caller, card.token, card.version)?;
        self.log_reads(caller, vec![event]).await?;
        Ok(card)
    }

    /// A customer's cards, newest first, older than `after`.
    pub async fn list(
        &self,
        caller: &Caller,
        customer: &str,
        after: Option<Token>,
        limit: usize,
    ) -> Result<Page<Card>, Error> {
        let page = self.store.cards_of_customer(caller.tenant_id(), customer, after, limit).await?;
        let opens: Result<Vec<_>, _> = page.rows.iter().map(expiry_of).collect();
        let event = |row: &CardRow| self.read_event(caller, row.token, row.version);
        let events: Result<Vec<_>, _> = page.rows.iter().map(event).collect();
        let (opens, events) = (opens?, events?);
        let expiries = match self.keeper.open_expiries(opens.into_iter()).await {
            Ok(expiries) => expiries,
            Err(error) if is_unreadable(&error) => {
                // One by one, so that the event names the card.
                for row in page.rows {
                    self.show(caller, row).await?;
                }
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        };
        if !events.is_empty() {
            self.log_reads(caller, events).await?;
        }
        let rows = page.rows.into_iter().zip(expiries).map(|(row, expiry)| Card::of(row, expiry)).collect();
        Ok(Page { rows, more: page.more })
    }
}
