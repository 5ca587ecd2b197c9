//! What an account updater said with an outcome: a new number or expiry is stored in the change of that outcome, all or nothing with
//! it; a closed account ends the card's agreements, as the networks' advice does.
//!
//! The token stays, its version is the next; agreements and network ids stand, since the customer's consent is to the account and not to
//! a number. The keeper sealed what is new over the version that was charged: a card that changed since keeps what it has, and whoever
//! changed it is right. If a process dies before that one change, outcome and update are both still with the keeper; if the keeper dies
//! too, the card is as it was, and the processor says the same with the next charge.

use super::schedule;
use crate::card::fingerprint::Fingerprint;
use crate::card::id::{EventId, FingerprintId};
use crate::charging::RetryPolicy;
use crate::clock::Time;
use crate::connector::UpdateKind;
use crate::edge::App;
use crate::edge::audit::catalogue;
use crate::edge::audit::event::{Actor, EventDraft, EventOutcome, Facts, Origin, Target};
use crate::edge::store::{AgreementRow, AttemptState, CardRow, CardStatus, Change, ChargeRow, RowChange};
use crate::edge::vault;
use crate::random::NoRandomness;
use crate::wire::forwarder::Outcome;
use crate::wire::keeper::{CardUpdate, Sealed};

/// What becomes of an updater's word.
pub(super) enum Update {
    /// The card as it shall be, its number's keyed hash if that is new, and which fields are.
    Store(Box<CardRow>, Option<Fingerprint>, Vec<&'static str>),
    /// These agreements end, for this reason.
    Stop(Vec<AgreementRow>, &'static str),
    /// Nothing is stored, and why.
    Refuse(String),
}

/// What an outcome's word on the card means for the card as it is now; none if it changes nothing.
pub(super) async fn read(app: &App, charge: &ChargeRow, outcome: &Outcome) -> Option<Update> {
    let said = outcome.card_update.as_deref()?;
    let first = charge.operations.first()?;
    let state = first.attempts.iter().find(|attempt| attempt.id == outcome.attempt)?.state;
    let answered = matches!(state, AttemptState::Approved | AttemptState::Declined | AttemptState::Pending);
    match (said.kind, &said.sealed) {
        _ if !answered => None,
        (UpdateKind::Closed, _) if state == AttemptState::Declined => {
            stop(app, charge, "account_closed").await
        }
        (UpdateKind::Contact, _) if state == AttemptState::Declined => {
            stop(app, charge, "contact_cardholder").await
        }
        // Whoever pays with it has an account.
        (UpdateKind::Closed | UpdateKind::Contact, _) => None,
        (UpdateKind::Updated | UpdateKind::Expiry, None) => said.refused.clone().map(Update::Refuse),
        (UpdateKind::Updated | UpdateKind::Expiry, Some(sealed)) => {
            let card = app.store.card(charge.tenant, charge.token).await.ok()??;
            match card.status {
                CardStatus::Active | CardStatus::Suspended => {
                    Some(next_version(card, said, sealed, app.clock.now()))
                }
                CardStatus::Erasing | CardStatus::Erased => None,
            }
        }
    }
}

async fn stop(app: &App, charge: &ChargeRow, why: &'static str) -> Option<Update> {
    let mut rows = app.store.agreements(charge.tenant, charge.token).await.ok()?;
    rows.retain(|row| row.ended_at.is_none());
    (!rows.is_empty()).then_some(Update::Stop(rows, why))
}

/// The card with what is new, if it is still the one that was charged.
fn next_version(mut card: CardRow, said: &CardUpdate, sealed: &Sealed, now: Time) -> Update {
    let Some(before) = &card.sealed else { return Update::Refuse("card_changed".to_owned()) };
    let follows = |new: Option<u32>, old: u32| new.is_none_or(|new| new == old.saturating_add(1));
    let is_same = before.pan.version == said.number
        && follows(sealed.pan.as_ref().map(|pan| pan.version), before.pan.version)
        && follows(sealed.expiry.as_ref().map(|expiry| expiry.version), before.expiry.version);
    if !is_same {
        return Update::Refuse("card_changed".to_owned());
    }
    let is_first = before.pan.version == vault::NUMBER_FIRST;
    let renumbered = sealed.pan.is_some();
    let (Ok(fields), Ok(fingerprint)) = (vault::overlay(&mut card, sealed.clone()), FingerprintId::make(now))
    else {
        return Update::Refuse("not_sealed".to_owned());
    };
    card.version = card.version.saturating_add(1);
    card.updated_at = now;
    if renumbered {
        card.fingerprint = fingerprint;
        card.number_by_updater = is_first || card.number_by_updater;
    }
    Update::Store(Box::new(card), sealed.fingerprint.clone(), fields)
}

impl Update {
    /// Whether the card is another then.
    pub(super) const fn changes_card(&self) -> bool {
        matches!(self, Self::Store(..))
    }

    /// Whether it ends agreements.
    pub(super) const fn stops(&self) -> bool {
        matches!(self, Self::Stop(..))
    }

    /// Adds it to the change of the outcome.
    pub(super) fn add_to(
        &self,
        app: &App,
        charge: &ChargeRow,
        outcome: &Outcome,
        change: &mut Change,
    ) -> Result<(), NoRandomness> {
        let now = app.clock.now();
        let mut event = EventDraft {
            id: EventId::make(now)?,
            tenant: Some(charge.tenant),
            actor: Actor::System("account_updater".to_owned()),
            origin: Origin::default(),
            action: catalogue::CARD_UPDATE,
            outcome: EventOutcome::Ok,
            target: Target { kind: "card".to_owned(), id: charge.token.to_string(), version: None },
            keys: Vec::new(),
            facts: Facts {
                attempt: Some(outcome.attempt),
                note: Some(charge.destination.clone()),
                ..Facts::default()
            },
        };
        match self {
            Self::Store(card, fingerprint, fields) => {
                event.target.version = Some(card.version);
                event.facts.fields = fields.iter().map(|field| (*field).to_owned()).collect();
                if let Some(sealed) = &card.sealed {
                    event.keys = sealed.key_ids();
                    event.facts.card_sha256 = Some(data_encoding::HEXLOWER.encode(&sealed.digest()));
                }
                change.events.push(event);
                change
                    .rows
                    .push(RowChange::UpdateCard { card: card.clone(), fingerprint: fingerprint.clone() });
            }
            Self::Refuse(why) => {
                event.action = catalogue::CARD_UPDATE_REFUSED;
                event.outcome = EventOutcome::Error(why.clone());
                change.events.push(event);
            }
            Self::Stop(rows, why) => {
                event.action = catalogue::AGREEMENT_END;
                event.facts.note = Some((*why).to_owned());
                for row in rows {
                    let target =
                        Target { kind: "agreement".to_owned(), id: row.id.to_string(), version: None };
                    change.events.push(EventDraft { id: EventId::make(now)?, target, ..event.clone() });
                    change.rows.push(RowChange::PutAgreement(Box::new(AgreementRow {
                        ended_at: Some(now),
                        ended_reason: Some((*why).to_owned()),
                        revision: row.revision.saturating_add(1),
                        ..row.clone()
                    })));
                }
            }
        }
        Ok(())
    }
}

/// The schedule of a charge after its outcome, and after what that said of the card.
pub(super) fn proceed(charge: &mut ChargeRow, update: Option<&Update>, policy: &RetryPolicy, now: Time) {
    schedule::proceed(charge, policy, now);
    if update.is_some_and(Update::changes_card) {
        schedule::at_new_card(charge, policy, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::expiry::Expiry;
    use crate::card::id::{IdBytes, Token};
    use crate::card::sealed::{SealedCard, SealedField};
    use crate::card::tenant::TenantId;

    const NOW: Time = Time::from_micros(1_800_000_000_000_000);

    fn field(version: u32) -> SealedField {
        SealedField { version, envelope: vec![1; 53] }
    }

    fn card(number: u32, expiry: u32) -> CardRow {
        CardRow {
            token: Token(IdBytes([1; 18])),
            tenant: TenantId(1),
            customer: None,
            metadata: std::collections::BTreeMap::new(),
            shown: None,
            fingerprint: FingerprintId(IdBytes([2; 18])),
            sealed: Some(SealedCard { policy: 1, pan: field(number), expiry: field(expiry), zip: None }),
            version: 7,
            status: CardStatus::Active,
            legal_hold: false,
            erase_asked: false,
            number_by_updater: false,
            created_at: NOW,
            updated_at: NOW,
            erased_at: None,
            scrubbed_at: None,
        }
    }

    /// What a keeper says that charged a card of these field versions.
    fn said(number: u32, expiry: u32, with_number: bool) -> CardUpdate {
        let pan = crate::card::truncated::TruncatedPan {
            first6: None,
            last4: "0008".to_owned(),
            brand: crate::card::brand::Brand::Visa,
            funding: None,
            country: None,
        };
        CardUpdate {
            kind: if with_number { UpdateKind::Updated } else { UpdateKind::Expiry },
            number,
            sealed: Some(Box::new(Sealed {
                pan: with_number.then(|| field(number + 1)),
                expiry: Some(field(expiry + 1)),
                zip: None,
                shown: with_number.then_some(pan),
                shown_expiry: Some(Expiry { month: 1, year: 2031 }),
                fingerprint: with_number.then(|| Fingerprint::under(2, [9; 32])),
                customer: None,
                customer_pseudonym: None,
                metadata: None,
                on_duplicate: None,
                status: None,
                digests: None,
            })),
            refused: None,
        }
    }

    fn next(card: CardRow, said: &CardUpdate) -> Result<CardRow, String> {
        match next_version(card, said, said.sealed.as_ref().unwrap(), NOW) {
            Update::Store(card, ..) => Ok(*card),
            Update::Refuse(why) => Err(why),
            Update::Stop(..) => Err("stops".to_owned()),
        }
    }

    #[test]
    fn an_update_is_stored_over_the_version_that_was_charged_and_no_other() {
        let stored = next(card(1, 1), &said(1, 1, true)).unwrap();
        let sealed = stored.sealed.unwrap();
        assert_eq!((stored.version, sealed.pan.version, sealed.expiry.version), (8, 2, 2));
        assert_eq!((stored.shown.unwrap().last4.as_str(), stored.number_by_updater), ("0008", true));
        assert_ne!(stored.fingerprint, FingerprintId(IdBytes([2; 18])));
        // A caller changed the number, or the expiry, while it was charged.
        for (now, with_number) in
            [(card(2, 1), true), (card(1, 2), true), (card(2, 1), false), (card(1, 2), false)]
        {
            assert_eq!(next(now, &said(1, 1, with_number)), Err("card_changed".to_owned()));
        }
        let stored = next(card(1, 3), &said(1, 3, false)).unwrap();
        assert_eq!((stored.sealed.unwrap().pan.version, stored.number_by_updater), (1, false));
        assert_eq!(stored.fingerprint, FingerprintId(IdBytes([2; 18])));
    }

    #[test]
    fn a_number_that_a_caller_changed_once_stays_so() {
        let stored = next(card(2, 1), &said(2, 1, true)).unwrap();
        assert!(!stored.number_by_updater);
        let by_updater = CardRow { number_by_updater: true, ..card(2, 1) };
        assert!(next(by_updater, &said(2, 1, true)).unwrap().number_by_updater);
    }
}
