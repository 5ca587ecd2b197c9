//! What an erasure leaves behind: its event, where to find it, and the keys that have to go.

use super::super::erasures::encode;
use super::super::keys;
use super::{Applying, Refusal};
use crate::card::id::{EventId, Token};
use crate::card::tenant::TenantId;
use crate::edge::audit::catalogue;
use crate::edge::audit::event::{Actor, EventDraft, EventOutcome, Facts, Origin, Target};
use crate::edge::store::{CardRow, CommitError, Erasure, KeyMark};

/// An event of the store's own about a card.
pub(in super::super) fn event_of(
    tenant: TenantId,
    token: Token,
    action: &'static str,
    id: EventId,
) -> EventDraft {
    EventDraft {
        id,
        tenant: Some(tenant),
        actor: Actor::System("store".to_owned()),
        origin: Origin::default(),
        action,
        outcome: EventOutcome::Ok,
        target: Target { kind: "card".to_owned(), id: token.to_string(), version: None },
        keys: Vec::new(),
        facts: Facts::default(),
    }
}

impl Applying<'_> {
    /// Says in the log that so many rows of this card, as it was, are overwritten, and that every key that may have sealed it has to go.
    ///
    /// Any data key of the tenant that has sealed and is not destroyed may have: the card was sealed under one, and perhaps under
    /// another again and again, and a backup holds it as it was. So all of them count, and none has to be remembered for a card.
    pub(super) fn tell_erasure(&mut self, card: &CardRow, rows: usize) -> Result<(), Refusal> {
        let (tenant, token) = (card.tenant, card.token);
        let (mut going, terms) = self.watched.sealing_of(tenant);
        going.extend(card.sealed.iter().flat_map(|sealed| sealed.key_ids()));
        going.sort_unstable();
        going.dedup();
        for key in &going {
            let mut put = self.conn.prepare_cached(include_str!("../sql/erased_key_put.sql"))?;
            put.execute((key, tenant.0, self.now.micros))?;
        }
        let id = EventId::make(self.now).map_err(|_| CommitError::Unavailable("randomness"))?;
        let mut event = event_of(tenant, token, catalogue::CARD_ERASED, id);
        event.keys = going;
        event.facts.count = u64::try_from(rows).ok();
        event.facts.fields = terms.words();
        self.said.push(event);
        self.index.put(&keys::erasure(token), &encode(&Erasure { event: id, scrubbed: None }));
        Ok(())
    }

    pub(super) fn mark_key(&self, mark: &KeyMark) -> Result<(), Refusal> {
        let mut emptied = self.conn.prepare_cached(include_str!("../sql/erased_key_emptied.sql"))?;
        match mark {
            KeyMark::Emptied(ids) => {
                for id in ids {
                    emptied.execute((id, self.now.micros))?;
                }
            }
            KeyMark::Needed(id) => {
                emptied.execute((id, None::<i64>))?;
            }
            KeyMark::Destroyed(id, event) => {
                let mut put = self.conn.prepare_cached(include_str!("../sql/erased_key_destroyed.sql"))?;
                put.execute((id, event.bytes()))?;
            }
        }
        Ok(())
    }
}
