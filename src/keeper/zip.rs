//! Telling whether a submitted zip is the one of a card that is there, and no more: what was submitted is compared with an envelope,
//! never an envelope with another, and only so many wrong ones an hour are told to be wrong. No number is opened.

use subtle::ConstantTimeEq;

use super::cleartext::submitted;
use super::state::{State, unavailable};
use crate::clock::{Clock, SystemClock};
use crate::wire::keeper::{CompareZip, Refusal, RefusalCode};

impl State {
    /// Whether the zip of the body is the sealed one.
    pub(super) fn compare_zip(&mut self, ask: &CompareZip) -> Result<bool, Refusal> {
        self.check_serving()?;
        self.tenant(ask.tenant)?;
        let given = submitted::read_zip(&ask.body)?;
        let mac = self.keys.tenant(ask.tenant).and_then(|keys| keys.body_mac()).map_err(unavailable)?;
        let hash = mac.sum(&[b"zip/v1", ask.token.bytes(), given.as_bytes()]);
        if !self.budget.may_compare(ask.tenant, ask.token, &hash, SystemClock.now()) {
            return Err(Refusal::about(RefusalCode::ZipBudget, "billing.zip"));
        }
        let kept = self
            .place(ask.tenant, ask.token, ask.policy)
            .open_zip(&self.keys, &ask.sealed)
            .map_err(|_| Refusal::of(RefusalCode::CardUnreadable))?;
        let equal: bool = given.as_bytes().ct_eq(kept.as_bytes()).into();
        if !equal {
            self.budget.count_wrong_zip(ask.tenant, ask.token, &hash);
        }
        Ok(equal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::id::{IdBytes, Token};
    use crate::card::sealed::SealedField;
    use crate::card::tenant::{Mode, TenantId};
    use crate::keeper::keys::Kek;
    use crate::keeper::state::Reply;
    use crate::wire::control::{KeeperSettings, TenantInfo};
    use crate::wire::keeper::{FromKeeper, Seal, SealAs, Sealed, ToKeeper};
    use crate::wire::keys::{HeldKey, KeyOrder, KeyPurpose};

    const BUDGET: u32 = 3;
    const CARD: Token = Token(IdBytes([3; 18]));
    const OTHER: Token = Token(IdBytes([4; 18]));

    fn keeper(serving: bool) -> State {
        let kek = Kek::new(&[7; 32], [9; 16]).unwrap();
        let purposes =
            [KeyPurpose::Data, KeyPurpose::Fingerprint, KeyPurpose::BodyMac, KeyPurpose::Pseudonym];
        let orders = purposes.into_iter().zip(1..).map(|(purpose, id)| KeyOrder {
            id,
            purpose,
            tenant: Some(TenantId(1)),
            epoch: 5,
            version: 1,
        });
        let tenant = TenantInfo {
            id: TenantId(1),
            name: "acme".to_owned(),
            mode: Mode::Test,
            disabled: false,
            created_at: SystemClock.now(),
        };
        let settings = KeeperSettings {
            environment: [9; 16],
            origin: "dev/node1".to_owned(),
            keys: orders.map(|order| HeldKey::active(kek.make_wrapped(order).unwrap())).collect(),
            tenants: vec![tenant],
            exemptions: Default::default(),
            destinations: Vec::new(),
            signed: (0, [0; 32]),
            fingerprints_per_hour_max: BUDGET,
            restarts_last_hour: 0,
        };
        let mut keeper = State::new(settings, &[7; 32]).unwrap();
        if serving {
            keeper.serve();
        }
        keeper
    }

    fn body(zip: &str) -> Vec<u8> {
        let card = r#"{"number":"4242424242424242","exp_month":12,"exp_year":2030}"#;
        format!(r#"{{"card":{card},"billing":{{"zip":"{zip}"}},"customer":"c-1"}}"#).into_bytes()
    }

    fn ask(keeper: &mut State, ask: ToKeeper) -> FromKeeper {
        let Reply::Now(answer) = keeper.answer(ask) else { panic!("no answer") };
        answer
    }

    fn seal(zip: &str) -> ToKeeper {
        ToKeeper::Seal(Box::new(Seal {
            seal_as: SealAs::Create,
            tenant: TenantId(1),
            token: CARD,
            policy: 1,
            versions: [0; 3],
            route: "POST /v1/tokens".to_owned(),
            idempotency_key: None,
            allow_expired: false,
            body: body(zip),
        }))
    }

    fn sealed(keeper: &mut State, zip: &str) -> Sealed {
        let answer = ask(keeper, seal(zip));
        let FromKeeper::Sealed(sealed) = answer else { panic!("{answer:?}") };
        *sealed
    }

    fn compare(
        keeper: &mut State,
        token: Token,
        sealed: &SealedField,
        zip: &str,
    ) -> Result<bool, RefusalCode> {
        let compare =
            CompareZip { tenant: TenantId(1), token, policy: 1, sealed: sealed.clone(), body: body(zip) };
        let answer = ask(keeper, ToKeeper::CompareZip(Box::new(compare)));
        if let FromKeeper::Refused(refusal) = &answer {
            return Err(refusal.code);
        }
        let FromKeeper::ZipIsEqual(equal) = answer else { panic!("{answer:?}") };
        Ok(equal)
    }

    #[test]
    fn equal_zips_are_told_from_different_ones_and_nothing_is_opened_elsewhere() {
        let mut keeper = keeper(true);
        let card = sealed(&mut keeper, "94103");
        let zip = card.zip.clone().unwrap();
        assert_eq!(compare(&mut keeper, CARD, &zip, "94103"), Ok(true));
        assert_eq!(compare(&mut keeper, CARD, &zip, "94104"), Ok(false));
        assert_eq!(compare(&mut keeper, CARD, &zip, "94103-1"), Ok(false));
        // Another card's zip, another field, another version, an edited one.
        assert_eq!(compare(&mut keeper, OTHER, &zip, "94103"), Err(RefusalCode::CardUnreadable));
        for field in [card.pan.unwrap(), card.expiry.unwrap(), SealedField { version: 2, ..zip.clone() }] {
            assert_eq!(compare(&mut keeper, CARD, &field, "94103"), Err(RefusalCode::CardUnreadable));
        }
        let mut edited = zip;
        *edited.envelope.last_mut().unwrap() ^= 1;
        assert_eq!(compare(&mut keeper, CARD, &edited, "94103"), Err(RefusalCode::CardUnreadable));
    }

    #[test]
    fn a_keeper_whose_start_is_not_counted_answers_neither_fingerprint_nor_zip() {
        let zip = sealed(&mut keeper(true), "94103").zip.unwrap();
        let mut keeper = keeper(false);
        let answer = ask(&mut keeper, seal("94103"));
        assert!(matches!(&answer, FromKeeper::Refused(r) if r.code == RefusalCode::NotServing), "{answer:?}");
        assert_eq!(compare(&mut keeper, CARD, &zip, "94103"), Err(RefusalCode::NotServing));
    }

    #[test]
    fn a_zip_cannot_be_searched_for() {
        let mut keeper = keeper(true);
        let zip = sealed(&mut keeper, "94103").zip.unwrap();
        for n in 0..BUDGET {
            assert_eq!(compare(&mut keeper, CARD, &zip, &format!("1000{n}")), Ok(false));
        }
        // The right one is refused like any other, or the refusal would tell it.
        for next in ["10007", "94103"] {
            assert_eq!(compare(&mut keeper, CARD, &zip, next), Err(RefusalCode::ZipBudget));
        }
        // What was told to be wrong may be told again.
        assert_eq!(compare(&mut keeper, CARD, &zip, "10001"), Ok(false));
    }

    #[test]
    fn a_zip_that_is_right_costs_nothing() {
        let mut keeper = keeper(true);
        let zip = sealed(&mut keeper, "94103").zip.unwrap();
        for _ in 0..10 * BUDGET {
            assert_eq!(compare(&mut keeper, CARD, &zip, "94103"), Ok(true));
        }
        assert_eq!(compare(&mut keeper, CARD, &zip, "94104"), Ok(false));
    }
}
