//! The KEK: read at each start of a keeper, and taken over from by another.
//!
//! The root key's file has both while one takes over. The old one is erased there only when the key store, on disk, holds every key
//! under the new one and a keeper goes by it; whatever dies before, the next start finds a KEK that fits.

use secrecy::ExposeSecret;

use super::key_store::StoredKey;
use super::root::RootFile;
use super::vault::Vault;
use crate::clock::{Clock, SystemClock, Time};
use crate::keeper::keys::Mac;
use crate::wire::control::ToKeeperControl;
use crate::wire::keys::{KeyPurpose, KeyState};

/// The KEK, as it is handed to a keeper.
pub(super) struct Unsealed {
    pub(super) kek: Vec<u8>,
    /// Its check value, where the key store has no record of it yet: to be noted once a keeper has unwrapped all keys with it.
    pub(super) unknown: Option<String>,
}

impl Vault {
    /// The KEK that the key store is wrapped under.
    pub(super) fn read_kek(&self) -> Result<Unsealed, String> {
        let file = self.root_file()?;
        let Some(record) = self.key_store.kek() else {
            let first = file.kek(0, 1)?.expose_secret().to_vec();
            let unknown = Some(Mac::new(&first).check_value());
            return Ok(Unsealed { kek: first, unknown });
        };
        let kek = file.kek(record.id, record.version)?.expose_secret();
        if Mac::new(kek).check_value() != record.check_value {
            return Err(
                "keys.root_key: this is another key than the key store is wrapped under; restore the \
                        root key, or restore the key store that belongs to it"
                    .to_owned(),
            );
        }
        Ok(Unsealed { kek: kek.to_vec(), unknown: None })
    }

    /// The keeper has unwrapped all keys with a KEK of which there was no record.
    pub(super) fn note_first_kek(&mut self, check_value: String) -> Result<(), String> {
        let noted = self.key_store.note_kek(check_value, SystemClock.now(), None);
        noted.map(drop).map_err(|error| error.to_string())
    }

    fn root_file(&self) -> Result<RootFile, String> {
        let path = self.config.keys.root_key.as_deref();
        RootFile::read(path.ok_or("keys.root_key: the file provider needs it")?)
    }

    /// A new KEK: all keys are wrapped under it in one write of the key store, the old one becomes `old` (retired or compromised),
    /// and then it is destroyed at its provider.
    pub(super) async fn rotate_kek(&mut self, old: KeyState, actor: &str) -> Result<String, String> {
        let path = self.config.keys.root_key.clone().ok_or("keys.root_key: the file provider needs it")?;
        self.destroy_old_kek(SystemClock.now())?;
        let mut file = self.root_file()?;
        let (now, actor) = (SystemClock.now(), Some(actor));
        // Nothing was ever wrapped, on disk, under one that a rotation before left half-way.
        let is_left = |key: &&StoredKey| key.purpose == KeyPurpose::Kek && key.state == KeyState::Pending;
        let left: Vec<u32> = self.key_store.keys().iter().filter(is_left).map(|key| key.id).collect();
        for id in left {
            self.key_store.set_state(id, KeyState::Destroyed, now, actor).map_err(|e| e.to_string())?;
        }
        let id = self.key_store.next_key_id();
        file.make(id)?;
        let kek = file.kek(id, 0)?.expose_secret().to_vec();
        file.write(&path)?;
        let noted = self.key_store.note_kek(Mac::new(&kek).check_value(), now, actor);
        let next = noted.map_err(|error| error.to_string())?;
        let keys = self.key_store.held(&self.policy).into_iter().map(|held| held.key).collect();
        let number = self.number_own_command();
        self.tell_keeper(&ToKeeperControl::Rewrap { number, kek, keys })?;
        let again = self.await_keys(number).await?;
        self.key_store.rewrapped(next.id, &again, (old, now), actor).map_err(|error| error.to_string())?;
        self.tell_keeper(&ToKeeperControl::UseKek)?;
        self.await_keeper_ready().await?;
        self.destroy_old_kek(now)?;
        Ok(format!(
            "{} keys are wrapped under key {} now; the KEK before it is destroyed",
            again.len(),
            next.id
        ))
    }

    /// Destroys at the provider, and then in the record, every KEK that another took over from.
    pub(super) fn destroy_old_kek(&mut self, now: Time) -> Result<(), String> {
        let is_old = |key: &&StoredKey| {
            key.purpose == KeyPurpose::Kek && matches!(key.state, KeyState::Retired | KeyState::Compromised)
        };
        let old: Vec<u32> = self.key_store.keys().iter().filter(is_old).map(|key| key.id).collect();
        let (Some(path), false) = (self.config.keys.root_key.clone(), old.is_empty()) else { return Ok(()) };
        let active = self.key_store.kek().ok_or("no KEK is active: nothing is destroyed")?;
        let mut file = RootFile::read(&path)?;
        // A file without the KEK in use would be the end of every card.
        if Mac::new(file.kek(active.id, active.version)?.expose_secret()).check_value() != active.check_value
        {
            return Err(
                "keys.root_key: the KEK in use is not the one of its record; nothing is destroyed".to_owned()
            );
        }
        file.keep_only(active.id, active.version);
        file.write(&path)?;
        old.into_iter().try_for_each(|id| {
            self.key_store.set_state(id, KeyState::Destroyed, now, None).map_err(|error| error.to_string())
        })
    }
}
