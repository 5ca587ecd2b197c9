//! The KEK: obtained by an unsealer at each start of a keeper, and taken over from by another. In this process it is wrapped only.
//!
//! A KEK lies in the key store as its root provider wrapped it. One that takes over is there, pending, before anything is wrapped under
//! it; the one before is destroyed, there and at its provider, only when the key store, on disk, holds every key under the new one and a
//! keeper goes by it. Whatever dies before, the next start finds a KEK that fits.

use std::os::fd::AsFd;
use std::time::Duration;

use super::children::Said;
use super::confine::Role;
use super::gathering::Purpose;
use super::key_store::StoredKey;
use super::key_store::custody::CustodyState;
use super::vault::Vault;
use crate::clock::{Clock, SystemClock, Time};
use crate::roots::RootProvider;
use crate::wire::control::ToKeeperControl;
use crate::wire::keys::{KeyPurpose, KeyState};
use crate::wire::unsealer::{
    FromUnsealer, KekBinding, KekSource, Obtained, ProviderFault, ProviderSettings, ToUnsealer, UnsealOrder,
};

/// How long a provider may take: a network's worst day, and far less than anybody waits.
const PROVIDER_WITHIN: Duration = Duration::from_secs(20);

/// Why there is no KEK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) fault: ProviderFault,
    /// What happened, and what to do.
    pub(super) sentence: String,
}

impl Sealed {
    pub(super) fn new(fault: ProviderFault, sentence: impl Into<String>) -> Self {
        Self { fault, sentence: sentence.into() }
    }
}

impl From<Sealed> for String {
    fn from(sealed: Sealed) -> Self {
        sealed.sentence
    }
}

/// What is to be noted once a keeper has unwrapped all keys with the KEK.
pub(super) enum Noting {
    /// Nothing.
    Nothing,
    /// A KEK that stood in the file of root keys itself is wrapped now; its id, if there is a record of it.
    Wrapped(Option<u32>, Obtained),
}

impl Vault {
    /// Has an unsealer obtain the KEK that the key store is wrapped under; the first of all is made.
    pub(super) async fn obtain_kek(&mut self) -> Result<Noting, Sealed> {
        let record = self.key_store.kek().cloned();
        let Some(record) = record else { return self.obtain_first_kek().await };
        if record.provider.as_deref() == Some("shares") {
            return if self.has_kek_at_hand() {
                Ok(Noting::Nothing)
            } else {
                Err(self.waits_for_custodians())
            };
        }
        if record.provider.is_some() {
            let from = self.source(&record)?;
            self.unseal(UnsealOrder { from, wrap: None }).await?;
            return Ok(Noting::Nothing);
        }
        let (key, version, check_value) = (record.id, record.version, Some(record.check_value));
        let from = KekSource::InFile { key, version, check_value };
        let wrap = Some((ProviderSettings::File, self.binding(key)));
        let obtained = self.unseal(UnsealOrder { from, wrap }).await?;
        Ok(Noting::Wrapped(Some(key), obtained))
    }

    /// Has the root provider open the KEK for nobody, where it needs none: what it asks for, such as a token that each use renews, must not
    /// run out while no keeper has to begin, and who reads the log learns what is wrong before one has to.
    pub(super) async fn try_root(&mut self) {
        let record =
            self.key_store.kek().filter(|kek| kek.provider.as_deref().is_some_and(|by| by != "shares"));
        // One that is at something opens the KEK itself.
        let Some(record) = record.filter(|_| self.unsealer.is_none()).cloned() else { return };
        let tried = match self.source(&record) {
            Ok(from) => self.unseal(UnsealOrder { from, wrap: None }).await.map(drop),
            Err(sealed) => Err(sealed),
        };
        self.unsealer = None;
        if let Err(Sealed { fault, sentence }) = tried {
            tracing::error!(
                fault = fault.name(),
                reason = %sentence,
                "the root provider does not open the KEK now: the vault would not come back from a restart"
            );
        }
    }

    async fn obtain_first_kek(&mut self) -> Result<Noting, Sealed> {
        let binding = self.binding(self.key_store.next_key_id());
        // A key store of the first format has keys, and no record of the KEK that stands in the file.
        if !self.key_store.keys().is_empty() {
            let from = KekSource::InFile { key: binding.key, version: 1, check_value: None };
            let wrap = Some((ProviderSettings::File, binding));
            return Ok(Noting::Wrapped(None, self.unseal(UnsealOrder { from, wrap }).await?));
        }
        if self.config.keys.provider == RootProvider::Shares {
            return Err(self.waits_for_custodians());
        }
        let provider = self.configured(self.config.keys.provider)?;
        let name = provider.name();
        let order = UnsealOrder { from: KekSource::Make, wrap: Some((provider, binding)) };
        let made = self.unseal(order).await?;
        // Before anything is wrapped under it.
        self.key_store
            .note_kek(binding.key, (&made, name), SystemClock.now(), None)
            .map_err(|error| Sealed::new(ProviderFault::Unavailable, error.to_string()))?;
        Ok(Noting::Nothing)
    }

    /// The keeper has unwrapped all keys.
    pub(super) async fn note_kek(&mut self, noting: Noting) -> Result<(), String> {
        let Noting::Wrapped(id, obtained) = noting else { return Ok(()) };
        let name = ProviderSettings::File.name();
        match id {
            Some(id) => self.key_store.move_kek(id, &obtained.wrapped, name),
            None => {
                let (id, now) = (self.key_store.next_key_id(), SystemClock.now());
                self.key_store.note_kek(id, (&obtained, name), now, None).map(drop)
            }
        }
        .map_err(|error| error.to_string())?;
        self.destroy_others().await.map_err(String::from)
    }

    pub(super) fn binding(&self, key: u32) -> KekBinding {
        KekBinding { environment: self.key_store.environment(), key }
    }

    /// How a KEK is unwrapped that its provider wrapped.
    pub(super) fn source(&self, record: &StoredKey) -> Result<KekSource, Sealed> {
        Ok(KekSource::Unwrap {
            provider: self.provider_of(record)?,
            wrapped: record.wrapped_bytes(),
            binding: self.binding(record.id),
            check_value: record.check_value.clone(),
        })
    }

    /// What wrapped this KEK, as it is configured now.
    fn provider_of(&self, record: &StoredKey) -> Result<ProviderSettings, Sealed> {
        match record.provider.as_deref() {
            Some("file") | None => Ok(ProviderSettings::File),
            Some("shares") => {
                let custody = self.key_store.custody(CustodyState::Active);
                let custody = custody.ok_or_else(|| {
                    Sealed::new(
                        ProviderFault::Malformed,
                        "the key store has no record of the ceremony whose shares wrap the KEK; restore it",
                    )
                })?;
                Ok(ProviderSettings::Shares(custody.settings()))
            }
            Some(name) => match RootProvider::from_name(name) {
                Some(provider) => self.configured(provider),
                None => Err(Sealed::new(
                    ProviderFault::Refused,
                    "the KEK is wrapped by a root provider that this version does not know; use the version that wrapped it",
                )),
            },
        }
    }

    /// A provider that needs nobody, as it is configured.
    pub(super) fn configured(&self, provider: RootProvider) -> Result<ProviderSettings, Sealed> {
        let settings = self.config.keys.settings_of(provider);
        settings.map_err(|sentence| Sealed::new(ProviderFault::Refused, sentence))
    }

    /// Starts an unsealer and waits until it has the KEK; it keeps it until it is told what to do with it, or another one is started.
    pub(super) async fn unseal(&mut self, order: UnsealOrder) -> Result<Obtained, Sealed> {
        self.begin_unseal(order).await?;
        self.await_obtained().await
    }

    /// Starts an unsealer; whatever another one had is gone.
    pub(super) async fn begin_unseal(&mut self, order: UnsealOrder) -> Result<(), Sealed> {
        let unavailable = |sentence: &str| Sealed::new(ProviderFault::Unavailable, sentence);
        let needed = order.needed();
        let files =
            needed.iter().map(|needed| self.open_needed(*needed, &order)).collect::<Result<Vec<_>, _>>()?;
        self.note_pin(needed.into_iter().zip(&files));
        let unsealer = self
            .spawn(&self.confined_for(&order))
            .map_err(|sentence| Sealed::new(ProviderFault::Unavailable, sentence))?;
        let fds: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        unsealer
            .tell(&ToUnsealer::Begin(Box::new(order)), &fds)
            .map_err(|_| unavailable("the unsealer does not listen"))?;
        self.custody.gathering = None;
        self.unsealer = Some(unsealer);
        Ok(())
    }

    /// Waits until the unsealer has the KEK.
    pub(super) async fn await_obtained(&mut self) -> Result<Obtained, Sealed> {
        self.await_unsealer(|said| match said {
            FromUnsealer::Obtained(obtained) => Some(obtained.clone()),
            FromUnsealer::Gathering { .. }
            | FromUnsealer::ShareTaken
            | FromUnsealer::ShareRefused { .. }
            | FromUnsealer::Delivered
            | FromUnsealer::Destroyed
            | FromUnsealer::Failed { .. } => None,
        })
        .await
    }

    /// Has the unsealer destroy, at the provider that has the KEK, what wrapped others.
    async fn destroy_others(&mut self) -> Result<(), Sealed> {
        self.destroy(&ToUnsealer::DestroyOthers).await
    }

    /// Has the unsealer destroy something at a provider.
    pub(super) async fn destroy(&mut self, what: &ToUnsealer) -> Result<(), Sealed> {
        let gone = || Sealed::new(ProviderFault::Unavailable, "the unsealer is gone");
        let unsealer = self.unsealer.as_ref().ok_or_else(gone)?;
        unsealer.tell(what, &[]).map_err(|_| gone())?;
        self.await_unsealer(|said| matches!(said, FromUnsealer::Destroyed).then_some(())).await
    }

    /// Waits for a word of the unsealer. One that does not come in time is none: then the unsealer ends.
    pub(super) async fn await_unsealer<T>(
        &mut self,
        pick: impl Fn(&FromUnsealer) -> Option<T>,
    ) -> Result<T, Sealed> {
        let pick = |said: &Said| match said {
            Said::Unsealer(FromUnsealer::Failed { fault, sentence }) => {
                Some(Err(Sealed::new(*fault, sentence.clone())))
            }
            Said::Unsealer(said) => pick(said).map(Ok),
            Said::Keeper(_) | Said::Edge(_) | Said::Forwarder(_) | Said::Courier(_) | Said::Gone => None,
        };
        let waiting = tokio::time::timeout(PROVIDER_WITHIN, self.await_from(Role::Unsealer, pick)).await;
        let said = match waiting {
            Ok(Ok(said)) => said,
            Ok(Err(sentence)) => Err(Sealed::new(ProviderFault::Unavailable, sentence)),
            Err(_) => {
                let sentence = "the root provider did not answer in time; it is tried again";
                Err(Sealed::new(ProviderFault::Unavailable, sentence))
            }
        };
        if let Err(sealed) = &said {
            self.pins.note(sealed.fault);
            (self.unsealer, self.custody.gathering) = (None, None);
        }
        said
    }

    /// Has the unsealer hand the KEK to the keeper, which is told so with the other end of the pair, and says whether it arrived.
    pub(super) fn hand_kek(&self, told: &ToKeeperControl) -> Result<(), String> {
        let (ours, theirs) =
            crate::wire::pair::make_pair().map_err(|_| "no socket pair could be made".to_owned())?;
        let keeper = self.keeper.as_ref().ok_or("the keeper is not running")?;
        keeper.hand(told, &theirs).map_err(|_| "the keeper does not listen".to_owned())?;
        let unsealer = self.unsealer.as_ref().ok_or("the unsealer is gone")?;
        unsealer
            .tell(&ToUnsealer::Deliver, &[ours.as_fd()])
            .map_err(|_| "the unsealer does not listen".to_owned())
    }

    /// A new KEK: all keys are wrapped under it in one write of the key store, the old one becomes `old` (retired or compromised),
    /// and then it is destroyed, at its provider as well. Where custodians' shares wrap it, they are asked for first.
    pub(super) async fn rotate_kek(&mut self, old: KeyState, actor: &str) -> Result<String, String> {
        let record = self.key_store.kek().cloned().ok_or("there is no KEK to take over from")?;
        let provider = self.provider_of(&record)?;
        if matches!(provider, ProviderSettings::Shares(_)) {
            return self.gather(Purpose::RotateKek(old)).await;
        }
        self.destroy_old_kek(SystemClock.now()).await?;
        // A provider that does not have the old root key could not destroy it either: it is another one.
        let from = self.source(&record)?;
        self.unseal(UnsealOrder { from, wrap: None }).await?;
        let id = self.key_store.reserve_key_id().map_err(|error| error.to_string())?;
        let (name, binding) = (provider.name(), self.binding(id));
        let order = UnsealOrder { from: KekSource::Make, wrap: Some((provider, binding)) };
        let made = self.unseal(order).await?;
        self.rotate_to(id, (&made, name), old, actor).await
    }

    /// Has this KEK, which an unsealer holds and its provider wrapped for this id, take over.
    pub(super) async fn rotate_to(
        &mut self,
        id: u32,
        made: (&Obtained, &str),
        old: KeyState,
        actor: &str,
    ) -> Result<String, String> {
        let (now, actor) = (SystemClock.now(), Some(actor));
        let noted = self.key_store.note_kek(id, made, now, actor);
        let next = noted.map_err(|error| error.to_string())?;
        // Nothing was ever wrapped, on disk, under one that a rotation before left half-way.
        let is_left = |key: &&StoredKey| {
            (key.purpose, key.state) == (KeyPurpose::Kek, KeyState::Pending) && key.id != next.id
        };
        let left: Vec<u32> = self.key_store.keys().iter().filter(is_left).map(|key| key.id).collect();
        for id in left {
            self.key_store.set_state(id, KeyState::Destroyed, now, actor).map_err(|e| e.to_string())?;
        }
        let keys = self.key_store.held(&self.policy).into_iter().map(|held| held.key).collect();
        let number = self.number_own_command();
        self.hand_kek(&ToKeeperControl::Rewrap { number, keys })?;
        let again = self.await_keys(number).await;
        // A keeper that waits for one that hangs goes on.
        self.unsealer = None;
        let again = again?;
        self.key_store.rewrapped(next.id, &again, (old, now), actor).map_err(|error| error.to_string())?;
        self.tell_keeper(&ToKeeperControl::UseKek)?;
        self.await_keeper_ready().await?;
        self.destroy_old_kek(now).await?;
        let destroys = RootProvider::from_name(made.1).is_some_and(RootProvider::destroys);
        let before = if destroys {
            "the KEK before it is destroyed".to_owned()
        } else {
            format!(
                "the KEK before it is out of use, and what {} wrapped of it elsewhere opens as it did",
                made.1
            )
        };
        Ok(format!("{} keys are wrapped under key {} now; {before}", again.len(), next.id))
    }

    pub(super) fn old_keks(&self) -> impl Iterator<Item = u32> {
        let is_old = |key: &&StoredKey| {
            key.purpose == KeyPurpose::Kek && matches!(key.state, KeyState::Retired | KeyState::Compromised)
        };
        self.key_store.keys().iter().filter(is_old).map(|key| key.id)
    }

    /// Destroys at the provider, as far as it can, and then in the key store, every KEK that another took over from. The one in use is
    /// unwrapped first: where it could not be, nothing is destroyed.
    pub(super) async fn destroy_old_kek(&mut self, now: Time) -> Result<(), String> {
        let old: Vec<u32> = self.old_keks().collect();
        if old.is_empty() {
            return Ok(());
        }
        let active = self.key_store.kek().cloned().ok_or("no KEK is active: nothing is destroyed")?;
        // The secret of custodians wraps all alike: there the wrapped KEK of before goes, and nothing else can.
        if active.provider.as_deref() != Some("shares") {
            let from = self.source(&active)?;
            self.unseal(UnsealOrder { from, wrap: None }).await?;
            self.destroy_others().await?;
            self.unsealer = None;
        }
        old.into_iter().try_for_each(|id| {
            self.key_store.set_state(id, KeyState::Destroyed, now, None).map_err(|error| error.to_string())
        })
    }
}
