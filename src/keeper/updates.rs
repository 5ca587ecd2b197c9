//! What an account updater says of a card: read as a submitted card is, sealed as the next version of the same token.
//!
//! It is sealed as soon as it arrives, not when the edge asks for it: the keeper knows from the request which card was charged, so a
//! new number waits nowhere in clear, and what is sealed goes with the attempt's outcome, is remembered with it until an edge has
//! acknowledged it, and is committed in one change with it. No PAN is opened for that, so there is no opening to account for.
//!
//! Invariant: the forwarder's word on a card counts for the card that this keeper sent, and for no other.

use super::cleartext::submitted::Submitted;
use super::state::{State, add_facts, unavailable};
use crate::card::expiry::Expiry;
use crate::card::id::Token;
use crate::card::tenant::TenantId;
use crate::clock::{Clock, SystemClock};
use crate::connector::UpdateKind;
use crate::wire::forwarder::NewCard;
use crate::wire::keeper::{CardUpdate, Refusal, RefusalCode, SealAs, Sealed};

/// The card that an exchange puts to its issuer.
pub(super) struct Charged {
    pub(super) tenant: TenantId,
    pub(super) token: Token,
    pub(super) policy: u32,
    /// Field versions of PAN, expiry and zip; zero for none.
    pub(super) versions: [u32; 3],
    /// Keyed hash of its number.
    pub(super) fingerprint: [u8; 32],
    pub(super) expiry: Expiry,
}

/// Why nothing of an update is sealed.
enum Refused {
    /// The processor says that there is a new number, and not which.
    NumberWithheld,
    /// It says that the expiry alone is new, with another number.
    Contradictory,
    /// It says that something is new, and what is new cannot be read.
    Missing,
    /// What is new is none, or none for this tenant.
    Card(Refusal),
}

/// The words for what a submitted card is refused for.
const WORDS: [(RefusalCode, &str); 7] = [
    (RefusalCode::CardNumberInvalid, "card_number_invalid"),
    (RefusalCode::TestNumberInLive, "test_number_in_live"),
    (RefusalCode::LiveNumberInTest, "live_number_in_test"),
    (RefusalCode::ExpiryInvalid, "expiry_invalid"),
    (RefusalCode::CardExpired, "card_expired"),
    (RefusalCode::FingerprintBudget, "fingerprint_budget"),
    (RefusalCode::NotServing, "not_serving"),
];

impl Refused {
    fn word(&self) -> &'static str {
        match self {
            Self::NumberWithheld => "number_withheld",
            Self::Contradictory => "update_contradictory",
            Self::Missing => "update_unreadable",
            Self::Card(refusal) => {
                let known = WORDS.iter().find(|(code, _)| *code == refusal.code);
                known.map_or("not_sealed", |(_, word)| word)
            }
        }
    }
}

impl State {
    /// What the updater's word means for the card that was charged; none if it tells nothing new.
    pub(super) fn read_update(&mut self, charged: &Charged, said: &NewCard) -> Option<CardUpdate> {
        let (sealed, refused) = match said.kind {
            UpdateKind::Closed | UpdateKind::Contact => (None, None),
            UpdateKind::Updated | UpdateKind::Expiry => match self.seal_update(charged, said) {
                Ok(None) => return None,
                Ok(Some(sealed)) => (Some(Box::new(sealed)), None),
                Err(refused) => (None, Some(refused.word().to_owned())),
            },
        };
        let [number, ..] = charged.versions;
        Some(CardUpdate { kind: said.kind, number, sealed, refused })
    }

    /// Seals what is new; none if nothing is.
    fn seal_update(&mut self, charged: &Charged, said: &NewCard) -> Result<Option<Sealed>, Refused> {
        self.check_serving().map_err(Refused::Card)?;
        let now = SystemClock.now();
        let mode = self.tenant(charged.tenant).map_err(Refused::Card)?.mode;
        let number = said.number.as_ref().map(|number| number.as_str());
        let mut submitted = Submitted::read_update(number, said.expiry, mode, now).map_err(Refused::Card)?;
        let no_key = |error| Refused::Card(unavailable(error));
        let keys = self.keys.tenant(charged.tenant).map_err(no_key)?;
        let fingerprint = submitted.fingerprint(keys).map_err(no_key)?;
        let is_another = fingerprint.as_ref().is_some_and(|of_it| !of_it.is_of(&charged.fingerprint));
        match said.kind {
            UpdateKind::Updated if fingerprint.is_none() => return Err(Refused::NumberWithheld),
            UpdateKind::Expiry if is_another => return Err(Refused::Contradictory),
            UpdateKind::Expiry if said.expiry.is_none() => return Err(Refused::Missing),
            UpdateKind::Updated | UpdateKind::Expiry | UpdateKind::Closed | UpdateKind::Contact => {}
        }
        submitted.keep_what_is_new(is_another, charged.expiry);
        if submitted.is_empty() {
            return Ok(None);
        }
        let fingerprint = fingerprint.filter(|_| is_another);
        if let (Some(pan), Some(of_it)) = (submitted.pan(), &fingerprint)
            && !self.budget.take(charged.tenant, pan.bin_and_last_four(), &of_it.hash, pan.is_test(), now)
        {
            return Err(Refused::Card(Refusal::of(RefusalCode::FingerprintBudget)));
        }
        let facts = submitted.pan().map(|pan| self.ranges.find(pan.first_eight())).unwrap_or_default();
        let place = self.place(charged.tenant, charged.token, charged.policy);
        let over = (charged.tenant, SealAs::Patch, charged.versions);
        let mut sealed = submitted.seal(&place, &self.keys, now, over, fingerprint).map_err(no_key)?;
        add_facts(&mut sealed, facts);
        Ok(Some(sealed))
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::super::exchanges::Asker;
    use super::super::state::{Later, Reply};
    use super::super::tests::{Keeper, TENANT, answered, keeper};
    use super::*;
    use crate::card::sealed::SealedCard;
    use crate::wire::forwarder::{Outcome, Verdict};
    use crate::wire::keeper::{Known, OpenExpiry, Prepare, ToKeeper, Verb};

    const OTHER: &str = "5555555555554444";
    const SAME: &str = "4242424242424242";

    fn new_card(kind: UpdateKind, number: Option<&str>, expiry: Option<(u16, u16)>) -> NewCard {
        NewCard { kind, number: number.map(|number| Zeroizing::new(number.to_owned())), expiry }
    }

    /// Charges a card of 12/2030 by `ask`, and hears this of it.
    fn hear(keeper: &mut Keeper, ask: &Prepare, said: NewCard) -> Outcome {
        let held = keeper.prepare(ask).unwrap().held;
        let Reply::Later(Later::Exchange(outgoing)) =
            keeper.state.answer(ToKeeper::Release { held, grant: 1 })
        else {
            panic!("not released")
        };
        let asker = Asker { generation: 1, id: 1 };
        let (exchange, charged) = (outgoing.exchange, outgoing.charged);
        let number = keeper.state.exchanges.begin(&exchange, charged, asker, false);
        let mut outcome = answered(exchange.attempt, 200, Verdict::Approved);
        // What the forwarder might say in the keeper's place is not given on.
        outcome.card_update =
            Some(Box::new(CardUpdate { kind: UpdateKind::Closed, number: 77, sealed: None, refused: None }));
        assert!(keeper.state.arrived(number, &mut outcome, Some(Box::new(said))).is_some());
        outcome
    }

    fn sale(keeper: &Keeper, sealed: &SealedCard) -> Prepare {
        let ask = keeper.sale(sealed.clone(), None);
        Prepare { destination: "sandbox".to_owned(), ..ask }
    }

    fn heard(said: NewCard) -> Option<CardUpdate> {
        let mut keeper = keeper();
        let sealed = keeper.card(2030);
        let ask = sale(&keeper, &sealed);
        hear(&mut keeper, &ask, said).card_update.map(|update| *update)
    }

    #[test]
    fn a_new_number_is_sealed_for_the_same_token_and_remembered_with_the_outcome() {
        let mut keeper = keeper();
        let sealed = keeper.card(2030);
        let ask = sale(&keeper, &sealed);
        let outcome = hear(&mut keeper, &ask, new_card(UpdateKind::Updated, Some(OTHER), Some((8, 2033))));
        let update = outcome.card_update.as_deref().unwrap();
        assert_eq!((update.kind, update.number, update.refused.as_deref()), (UpdateKind::Updated, 1, None));
        let new = update.sealed.as_deref().unwrap();
        let shown = new.shown.as_ref().unwrap();
        assert_eq!((shown.first6.as_deref(), shown.last4.as_str()), (Some("555555"), "4444"));
        assert!(new.fingerprint.is_some() && new.customer.is_none() && new.digests.is_none());
        // It opens where it belongs, at the next versions.
        let (pan, expiry) = (new.pan.clone().unwrap(), new.expiry.clone().unwrap());
        assert_eq!((pan.version, expiry.version, new.zip.is_none()), (2, 2, true));
        let token = keeper.token;
        let next = SealedCard { pan, expiry, ..sealed };
        let opened = keeper.state.open(TENANT, token, &next).unwrap();
        assert_eq!((opened.pan.truncate().last4.as_str(), opened.expiry.year), ("4444", 2033));
        let open = OpenExpiry { tenant: TENANT, token, policy: next.policy, sealed: next.expiry };
        assert!(matches!(keeper.state.answer(ToKeeper::OpenExpiry(open)), Reply::Now(_)));
        // An edge that comes after the one that asked learns all of it, and no digit of it.
        let held = keeper.state.exchanges.unacknowledged(None);
        let known = keeper.state.exchanges.known(&held);
        assert!(matches!(&known[..], [Known::Outcome(one)] if **one == outcome), "{known:?}");
        let written = postcard::to_stdvec(&known).unwrap();
        assert!(!written.windows(OTHER.len()).any(|window| window == OTHER.as_bytes()));
        assert!(!format!("{outcome:?}").contains(OTHER));
    }

    #[test]
    fn what_the_card_has_already_is_no_update() {
        let kinds = [UpdateKind::Updated, UpdateKind::Expiry];
        for kind in kinds {
            assert_eq!(heard(new_card(kind, Some(SAME), Some((12, 2030)))), None, "{kind:?}");
            let update = heard(new_card(kind, Some(SAME), Some((1, 2031)))).unwrap();
            let sealed = update.sealed.unwrap();
            assert!(sealed.pan.is_none() && sealed.shown.is_none() && sealed.fingerprint.is_none());
            assert_eq!(sealed.expiry.map(|expiry| expiry.version), Some(2), "{kind:?}");
        }
        let update = heard(new_card(UpdateKind::Updated, Some(OTHER), Some((12, 2030)))).unwrap();
        assert!(update.sealed.is_some_and(|sealed| sealed.pan.is_some() && sealed.expiry.is_none()));
        for kind in [UpdateKind::Closed, UpdateKind::Contact] {
            let update = heard(new_card(kind, None, None)).unwrap();
            assert_eq!((update.kind, update.sealed, update.refused), (kind, None, None));
        }
    }

    #[test]
    fn what_a_caller_could_not_store_is_not_stored_for_a_processor() {
        let year = u16::try_from(SystemClock.now().year_month().0).unwrap();
        for (kind, number, expiry, why) in [
            (UpdateKind::Updated, None, Some((8, 2033)), "number_withheld"),
            (UpdateKind::Updated, Some("5555555555554445"), None, "card_number_invalid"),
            (UpdateKind::Updated, Some("555555"), None, "card_number_invalid"),
            (UpdateKind::Updated, Some("a card"), None, "card_number_invalid"),
            (UpdateKind::Updated, Some("4539578763621486"), None, "live_number_in_test"),
            (UpdateKind::Updated, Some(OTHER), Some((13, 2033)), "expiry_invalid"),
            (UpdateKind::Updated, Some(OTHER), Some((8, year + 21)), "expiry_invalid"),
            (UpdateKind::Updated, Some(OTHER), Some((8, year - 1)), "card_expired"),
            (UpdateKind::Expiry, Some(OTHER), Some((8, 2033)), "update_contradictory"),
            (UpdateKind::Expiry, None, None, "update_unreadable"),
        ] {
            let update = heard(new_card(kind, number, expiry)).unwrap();
            assert_eq!((update.sealed, update.refused.as_deref()), (None, Some(why)));
        }
    }

    #[test]
    fn only_what_puts_a_card_to_its_issuer_changes_it() {
        let mut keeper = keeper();
        let sealed = keeper.card(2030);
        let said = || new_card(UpdateKind::Updated, Some(OTHER), None);
        // A refund that was sent with the card, and a connector that says nothing of updates.
        let refund = Prepare {
            verb: Verb::Refund,
            previous_transaction: Some("t".to_owned()),
            ..sale(&keeper, &sealed)
        };
        assert_eq!(hear(&mut keeper, &refund, said()).card_update, None);
        let silent = keeper.sale(sealed.clone(), None);
        assert_eq!(silent.destination, "stripe");
        assert_eq!(hear(&mut keeper, &silent, said()).card_update, None);
    }
}
