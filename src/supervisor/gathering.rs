//! Custodians give their shares: each a registered person who signs for it, each once, until there are enough for what was asked.
//!
//! A share goes from the custodian's terminal to the unsealer, sealed to a key of this gathering; here it passes by and cannot be read.

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ceremony::{SignedRequest, told};
use super::key_store::custody::{Custodian, Custody, CustodyState};
use super::vault::Vault;
use crate::card::id::PersonId;
use crate::clock::{Clock, SystemClock, Time};
use crate::roots::RootProvider;
use crate::wire::keys::KeyState;
use crate::wire::unsealer::{
    FromUnsealer, KekSource, Obtained, ProviderFault, ProviderSettings, SharesSettings, ToUnsealer,
    UnsealOrder,
};

/// Shares do not stay in memory for longer while others are waited for.
const GATHER_SECONDS: i64 = 3600;
/// The verb that a custodian signs for giving a share.
pub const GIVE: &str = "custody:give";

/// What shares are given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To open the vault.
    Open,
    /// To have another KEK take over; the one before becomes this.
    RotateKek(KeyState),
    /// To make another secret and other shares.
    Replace,
    /// To move the KEK to another root provider.
    MoveRoot(RootProvider),
    /// To see that the shares of a rehearsal work.
    Rehearse,
}

impl Purpose {
    /// Its word, which custodians sign.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::RotateKek(_) => "rotate_kek",
            Self::Replace => "replace",
            Self::MoveRoot(_) => "move_root",
            Self::Rehearse => "rehearse",
        }
    }
}

/// Shares that are being given.
pub(super) struct Gathering {
    pub(super) purpose: Purpose,
    settings: SharesSettings,
    /// The unsealer's key of this gathering.
    public: [u8; 32],
    given: Vec<PersonId>,
    begun_at: Time,
    /// The id that the KEK is wrapped for, where one is.
    key: u32,
    /// The KEK is at hand.
    pub(super) obtained: Option<Obtained>,
}

impl Vault {
    /// Whether the KEK is at hand, so that the vault can be opened.
    pub(super) fn has_kek_at_hand(&self) -> bool {
        self.unsealer.is_some()
            && self
                .custody
                .gathering
                .as_ref()
                .is_some_and(|gathering| gathering.purpose == Purpose::Open && gathering.obtained.is_some())
    }

    /// The ceremony whose shares this is about.
    fn custody_of(&self, purpose: Purpose) -> Option<&Custody> {
        match purpose {
            Purpose::Rehearse => self.custody.rehearsal.as_ref().filter(|custody| custody.is_confirmed()),
            Purpose::Open | Purpose::RotateKek(_) | Purpose::Replace | Purpose::MoveRoot(_) => {
                self.key_store.custody(CustodyState::Active)
            }
        }
    }

    /// Begins to take shares for something, unless that is under way.
    pub(super) async fn gather(&mut self, purpose: Purpose) -> Result<String, String> {
        self.expire_gathering();
        if let Some(gathering) = &self.custody.gathering
            && self.unsealer.is_some()
        {
            return if gathering.purpose == purpose {
                Ok(waits(gathering))
            } else {
                Err(format!(
                    "shares are being given to {}; wait for that, or end it with `cardvault keys unseal --cancel`",
                    gathering.purpose.name()
                ))
            };
        }
        let none = "no ceremony's shares are in use; see `cardvault keys ceremony status`";
        let settings = self.custody_of(purpose).ok_or(none)?.settings();
        let order = self.gathering_order(purpose, &settings)?;
        let key = order.wrap.as_ref().map_or(0, |(_, binding)| binding.key);
        self.begin_unseal(order).await?;
        let public = self
            .await_unsealer(|said| match said {
                FromUnsealer::Gathering { public } => Some(*public),
                FromUnsealer::Obtained(_)
                | FromUnsealer::ShareTaken
                | FromUnsealer::ShareRefused { .. }
                | FromUnsealer::Delivered
                | FromUnsealer::Destroyed
                | FromUnsealer::Failed { .. } => None,
            })
            .await?;
        let begun_at = SystemClock.now();
        let gathering =
            Gathering { purpose, settings, public, given: Vec::new(), begun_at, key, obtained: None };
        let said = waits(&gathering);
        self.custody.gathering = Some(gathering);
        Ok(said)
    }

    fn gathering_order(
        &mut self,
        purpose: Purpose,
        settings: &SharesSettings,
    ) -> Result<UnsealOrder, String> {
        let shares = || ProviderSettings::Shares(settings.clone());
        if purpose == Purpose::Rehearse {
            // A key that nothing was ever wrapped under, wrapped for nobody.
            let wrap = Some((shares(), self.binding(0)));
            return Ok(UnsealOrder { from: KekSource::Make, wrap });
        }
        let record = self.key_store.kek().cloned().ok_or("there is no KEK yet")?;
        let from = self.source(&record)?;
        let binding = self.binding(record.id);
        Ok(match purpose {
            Purpose::Open | Purpose::Rehearse => UnsealOrder { from, wrap: None },
            Purpose::RotateKek(_) => {
                let id = self.key_store.reserve_key_id().map_err(|error| error.to_string())?;
                let wrap = Some((shares(), self.binding(id)));
                UnsealOrder { from: KekSource::Make, wrap }
            }
            Purpose::Replace => UnsealOrder { from, wrap: Some((self.new_shares()?, binding)) },
            Purpose::MoveRoot(to) => UnsealOrder { from, wrap: Some((self.configured(to)?, binding)) },
        })
    }

    /// Ends a gathering; the unsealer's memory goes with it.
    pub(super) fn cancel_gathering(&mut self) -> String {
        self.unsealer = None;
        match self.custody.gathering.take() {
            Some(_) => "the shares that were given are forgotten".to_owned(),
            None => "no shares are being given".to_owned(),
        }
    }

    /// Forgets shares that were given long ago.
    pub(super) fn expire_gathering(&mut self) {
        let oldest = SystemClock.now().plus_seconds(-GATHER_SECONDS);
        if self.custody.gathering.as_ref().is_some_and(|gathering| gathering.begun_at < oldest) {
            tracing::warn!("too few shares were given within an hour: those that were are forgotten");
            self.cancel_gathering();
        }
    }

    /// Takes a custodian's share; with the last one, what it is given for is done.
    pub(super) async fn give_share(
        &mut self,
        request: &SignedRequest,
        sealed: &[u8],
    ) -> Result<String, String> {
        self.expire_gathering();
        let (person, parameters) = self.check_signed(request, GIVE)?;
        let none = "no shares are being given; run `cardvault keys unseal` once more";
        let gathering = self.custody.gathering.as_ref().ok_or(none)?;
        let expected = json!({
            "gathering": HEXLOWER.encode(&gathering.public),
            "purpose": gathering.purpose.name(),
            "new": self.new_holders(),
            "sealed_sha256": HEXLOWER.encode(digest(&SHA256, sealed).as_ref()),
        });
        if parameters != expected {
            return Err(
                "this was signed for another gathering of shares; run `cardvault keys unseal` once more"
                    .into(),
            );
        }
        let purpose = gathering.purpose;
        let taken = self.take_share(person, sealed).await;
        let (place, failed) = match &taken {
            Ok(place) => (Some(*place), None),
            Err(_) => (None, Some("share_refused".to_owned())),
        };
        let place = place.or_else(|| self.place_of(purpose, person)).map(|place| format!("share {place}"));
        let mut event = told("share.give", person.to_string(), self.ceremony_id(purpose))?;
        (event.failed, event.note) = (failed, Some(purpose.name().to_owned()));
        event.fields = place.into_iter().collect();
        self.key_store.record(event).map_err(|error| error.to_string())?;
        let place = taken?;
        let gathering = self.custody.gathering.as_ref().ok_or(none)?;
        if gathering.given.len() < usize::from(gathering.settings.threshold) {
            return Ok(format!("share {place} is there; {}", waits(gathering)));
        }
        let obtained = self.await_obtained().await;
        let obtained = obtained.inspect_err(|_| self.custody.gathering = None)?;
        self.carry_on(purpose, obtained, &person.to_string()).await
    }

    async fn take_share(&mut self, person: PersonId, sealed: &[u8]) -> Result<u8, String> {
        let none = "no shares are being given; run `cardvault keys unseal` once more";
        let gathering = self.custody.gathering.as_ref().ok_or(none)?;
        let place = self.place_of(gathering.purpose, person).ok_or(
            "you hold no share of this ceremony; whoever holds one gives it in person, with a key of their own",
        )?;
        if gathering.given.contains(&person) {
            return Err(format!("share {place} is there already; another custodian has to give theirs"));
        }
        let unsealer = self.unsealer.as_ref().ok_or(none)?;
        unsealer
            .tell(&ToUnsealer::Share { place, sealed: sealed.to_vec() }, &[])
            .map_err(|_| none.to_owned())?;
        let said = self
            .await_unsealer(|said| match said {
                FromUnsealer::ShareTaken => Some(Ok(())),
                FromUnsealer::ShareRefused { sentence } => Some(Err(sentence.clone())),
                FromUnsealer::Gathering { .. }
                | FromUnsealer::Obtained(_)
                | FromUnsealer::Delivered
                | FromUnsealer::Destroyed
                | FromUnsealer::Failed { .. } => None,
            })
            .await?;
        said?;
        if let Some(gathering) = &mut self.custody.gathering {
            gathering.given.push(person);
        }
        Ok(place)
    }

    fn place_of(&self, purpose: Purpose, person: PersonId) -> Option<u8> {
        let is_theirs = |custodian: &&Custodian| custodian.person == person;
        self.custody_of(purpose)?.custodians.iter().find(is_theirs).map(|custodian| custodian.place)
    }

    fn ceremony_id(&self, purpose: Purpose) -> String {
        self.custody_of(purpose).map_or_else(String::new, |custody| custody.ceremony.clone())
    }

    /// All shares are there: does what they were given for.
    async fn carry_on(
        &mut self,
        purpose: Purpose,
        obtained: Obtained,
        actor: &str,
    ) -> Result<String, String> {
        if purpose == Purpose::Open {
            if let Some(gathering) = &mut self.custody.gathering {
                gathering.obtained = Some(obtained);
            }
            let ceremony = self.ceremony_id(purpose);
            let opened = told("vault.unseal", actor.to_owned(), ceremony)?;
            self.key_store.record(opened).map_err(|error| error.to_string())?;
            return Ok("enough shares are there: the vault opens".to_owned());
        }
        let done = match purpose {
            Purpose::RotateKek(old) => {
                let key = self.custody.gathering.as_ref().map_or(0, |gathering| gathering.key);
                self.rotate_to(key, (&obtained, "shares"), old, actor).await
            }
            Purpose::Replace => self.keep_issued(obtained, false, actor),
            Purpose::MoveRoot(to) => self.keep_moved(&obtained, to, actor).await,
            Purpose::Open | Purpose::Rehearse => {
                Ok("the shares of the rehearsal give its secret; nothing real was touched".to_owned())
            }
        };
        self.cancel_gathering();
        done
    }

    /// What a custodian's terminal has to know to seal and sign a share.
    pub(super) fn gathering_facts(&self) -> Value {
        let Some(gathering) = &self.custody.gathering else { return Value::Null };
        json!({
            "gathering": HEXLOWER.encode(&gathering.public),
            "purpose": gathering.purpose.name(),
            "new": self.new_holders(),
            "ceremony": HEXLOWER.encode(&gathering.settings.ceremony),
            "threshold": gathering.settings.threshold,
            "given": gathering.given.len(),
        })
    }

    /// Who is to hold the shares that are made with those that are given; null where none are made. Custodians sign it.
    fn new_holders(&self) -> Value {
        let replaces = |gathering: &Gathering| gathering.purpose == Purpose::Replace;
        if self.custody.gathering.as_ref().is_some_and(replaces) { self.pending_facts() } else { Value::Null }
    }

    /// Why the vault waits for custodians.
    pub(super) fn waits_for_custodians(&self) -> super::kek::Sealed {
        let sentence = match self.key_store.custody(CustodyState::Active) {
            Some(custody) => format!(
                "{} of {} custodians have to give their shares: cardvault keys unseal",
                custody.threshold,
                custody.custodians.len()
            ),
            None => "there is no KEK yet: register custodians (cardvault person add), then make it with them (cardvault keys ceremony)"
                .to_owned(),
        };
        super::kek::Sealed { fault: ProviderFault::Waiting, sentence }
    }
}

fn waits(gathering: &Gathering) -> String {
    format!(
        "{} of {} shares are there; each custodian gives theirs with `cardvault keys unseal`",
        gathering.given.len(),
        gathering.settings.threshold
    )
}
