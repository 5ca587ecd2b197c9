//! Cards sealed again under the tenant's active data key: opened under the key that they name, sealed under the one that seals now.
//!
//! While a fingerprint key takes over from another, each number is hashed anew as well. Which key that is the keeper says; the edge says which cards. The cipher's work is done without the lock on [`State`], with the
//! few keys that it takes; what was opened is counted under the lock again before anybody is answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::cleartext::Pan;
use super::cleartext::envelope::Place;
use super::cleartext::fingerprint::hash;
use super::keys::{Dek, KeyError, KeyRing, Mac};
use super::state::{State, unavailable};
use crate::card::expiry::Expiry;
use crate::card::fingerprint::Fingerprint;
use crate::card::id::Token;
use crate::card::sealed::{Field, SealedCard};
use crate::card::tenant::TenantId;
use crate::clock::{Clock, SystemClock};
use crate::random;
use crate::wire::keeper::{FromKeeper, Refusal, RefusalCode};
use crate::wire::reseal::{RESEAL_MAX, Reseal, Resealed, ResealedCard};

/// What sealing again takes of [`State`].
pub(super) struct Resealing {
    environment: [u8; 16],
    /// The keys that the cards are under, and the one that seals.
    keys: KeyRing,
    /// Its id.
    key: u32,
    dek: Arc<Dek>,
    /// The key that numbers are hashed under anew, where there is one before it.
    fingerprint: Option<(u32, Arc<Mac>)>,
}

impl State {
    /// Takes the keys that these cards need.
    pub(super) fn begin_reseal(&self, ask: &Reseal) -> Result<Resealing, Refusal> {
        if ask.cards.len() > RESEAL_MAX || !self.openings.may_open(ask.event) {
            return Err(Refusal::of(RefusalCode::Busy));
        }
        let (key, _) = self.keys.sealing_key(ask.tenant, SystemClock.now()).map_err(unavailable)?;
        let dek = self.keys.share_dek(key).ok_or(Refusal::of(RefusalCode::KeyUnavailable))?;
        let ids = ask.cards.iter().flat_map(|(_, card)| card.key_ids());
        let deks: BTreeMap<u32, _> = ids.filter_map(|id| Some((id, self.keys.share_dek(id)?))).collect();
        let fingerprints = self.keys.tenant(ask.tenant).map_err(unavailable)?.fingerprints();
        let succeeds = fingerprints.before().next().is_some();
        let fingerprint = fingerprints.current().ok().filter(|_| succeeds);
        let fingerprint = fingerprint.map(|(id, key)| (id, Arc::clone(key)));
        let keys = KeyRing::of_deks(deks);
        Ok(Resealing { environment: self.environment(), keys, key, dek, fingerprint })
    }

    /// Counts what was opened.
    pub(super) fn finish_reseal(
        &mut self,
        ask: &Reseal,
        cards: Vec<Option<ResealedCard>>,
        key: u32,
    ) -> FromKeeper {
        let number_opened = |((token, before), after): (&(Token, SealedCard), &Option<ResealedCard>)| {
            let after = after.as_ref();
            let opened =
                after.is_some_and(|card| card.sealed.pan != before.pan || card.fingerprint.is_some());
            opened.then_some(*token)
        };
        let tokens: Vec<Token> = ask.cards.iter().zip(&cards).filter_map(number_opened).collect();
        let opened = self.openings.count_batch("reseal", ask.tenant, &tokens, ask.event);
        FromKeeper::Resealed(Box::new(Resealed { key, cards, opened }))
    }
}

impl Resealing {
    /// The key that seals.
    pub(super) const fn key(&self) -> u32 {
        self.key
    }

    /// Each card sealed again; none for one that does not open.
    pub(super) fn seal(&self, ask: &Reseal) -> Vec<Option<ResealedCard>> {
        ask.cards.iter().map(|(token, card)| self.one(ask.tenant, *token, card)).collect()
    }

    /// All fields of a card under the key that seals. A version whose number is gone has none to open.
    fn one(&self, tenant: TenantId, token: Token, card: &SealedCard) -> Option<ResealedCard> {
        let place = Place { environment: self.environment, tenant, token, policy: card.policy };
        let again =
            |field, sealed| place.reseal(&self.keys, (self.key, self.dek.as_ref()), field, sealed).ok();
        // The number last: what fails before has not opened it.
        let expiry = again(Field::Expiry, &card.expiry)?;
        let zip = match &card.zip {
            Some(zip) => Some(again(Field::Zip, zip)?),
            None => None,
        };
        let (pan, fingerprint) = match &self.fingerprint {
            _ if card.pan.envelope.is_empty() => (card.pan.clone(), None),
            None => (again(Field::Pan, &card.pan)?, None),
            Some((id, key)) => {
                let pan = place.open_pan(&self.keys, &card.pan).ok()?;
                let of_it = Fingerprint::under(*id, hash(key, &pan));
                (again(Field::Pan, &card.pan)?, Some(of_it))
            }
        };
        Some(ResealedCard { sealed: SealedCard { policy: card.policy, pan, expiry, zip }, fingerprint })
    }
}

/// Cards in memory that are sealed again: what the cipher's work takes without anything around it, for `cardvault bench rotate`.
pub struct Rehearsal {
    resealing: Resealing,
    tenant: TenantId,
    cards: Vec<(Token, SealedCard)>,
}

impl Rehearsal {
    /// A card for each of these numbers, under the first of two keys.
    pub fn make(numbers: impl Iterator<Item = String>) -> Result<Self, KeyError> {
        let (tenant, environment, now) = (TenantId(1), [0; 16], SystemClock.now());
        let make_dek = || random::make_bytes::<32>().map(|key| Arc::new(Dek::new(&key)));
        let (first, second) = (make_dek()?, make_dek()?);
        let card = |number: String| {
            let (token, key) = (Token::make(now)?, (1, first.as_ref()));
            let place = Place { environment, tenant, token, policy: 1 };
            let pan = Pan::parse(&Zeroizing::new(number)).map_err(|_| KeyError::Missing)?;
            let card = SealedCard {
                policy: 1,
                pan: place.seal_pan(key, 1, &pan)?,
                expiry: place.seal_expiry(key, 1, Expiry { month: 12, year: 2030 })?,
                zip: Some(place.seal_zip(key, 1, "94103")?),
            };
            Ok((token, card))
        };
        let cards = numbers.map(card).collect::<Result<_, KeyError>>()?;
        let keys = KeyRing::of_deks([(1, Arc::clone(&first)), (2, Arc::clone(&second))]);
        let resealing = Resealing { environment, keys, key: 2, dek: second, fingerprint: None };
        Ok(Self { resealing, tenant, cards })
    }

    /// The cards as they were sealed first.
    pub fn cards(&self) -> impl Iterator<Item = &SealedCard> {
        self.cards.iter().map(|(_, card)| card)
    }

    /// Each card sealed again under the second key, in order; none if one does not open.
    pub fn again(&self) -> impl Iterator<Item = Option<SealedCard>> {
        let again = |(token, card): &(Token, SealedCard)| self.resealing.one(self.tenant, *token, card);
        self.cards.iter().map(move |card| Some(again(card)?.sealed))
    }
}
