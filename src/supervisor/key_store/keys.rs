//! The keys in the key store: what each is, where it stands, and how it came there.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::{KeyStore, KeyStoreError};
use crate::card::id::EventId;
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::supervisor::inventory::Policy;
use crate::wire::keys::{
    HeldKey, KeyChange, KeyInfo, KeyOrder, KeyPurpose, KeyState, KeyTable, WrappedKey, epoch_of, epoch_start,
};
use crate::wire::unsealer::Obtained;

/// What a tenant has one key for.
const SINGLE: [KeyPurpose; 4] =
    [KeyPurpose::Fingerprint, KeyPurpose::BodyMac, KeyPurpose::Pseudonym, KeyPurpose::Webhook];
const DAY_SECONDS: i64 = 86_400;

/// A key, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredKey {
    /// Its id.
    pub id: u32,
    /// What it is for.
    pub purpose: KeyPurpose,
    /// Whose; none for the installation's own.
    pub tenant: Option<TenantId>,
    /// Month of sealing; zero for keys without epochs.
    pub epoch: u32,
    /// Counts the keys of this purpose, tenant and epoch, from 1.
    pub version: u32,
    /// Where it stands.
    pub state: KeyState,
    /// When it was made.
    pub made_at: Time,
    /// How many fields it has sealed, as far as the keeper has told; data keys only.
    pub seals: u64,
    /// Whether the records under it are to be sealed again under the tenant's active key.
    pub emptying: bool,
    /// The wrapped key, base64; of a KEK as its root provider wrapped it. Empty once it is destroyed.
    pub wrapped: String,
    /// Of a KEK: who wrapped it. None for other keys, and where it stands in the file of root keys itself, as versions before had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Its check value.
    pub check_value: String,
    /// The states that it has had, oldest first.
    pub history: Vec<Step>,
}

/// A state that a key came into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Which.
    pub state: KeyState,
    /// When.
    pub at: Time,
    /// Who asked; none for the vault itself.
    pub actor: Option<String>,
}

/// A key as format 1 had it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredKeyV1 {
    id: u32,
    purpose: KeyPurpose,
    tenant: Option<TenantId>,
    epoch: u32,
    wrapped: String,
    check_value: String,
}

impl StoredKeyV1 {
    pub(super) const fn tenant(&self) -> Option<TenantId> {
        self.tenant
    }

    /// As it is stored now; `since` is when its tenant (or the first of all) was made.
    pub(super) fn upgrade(self, since: Time, now: Time) -> StoredKey {
        let made_at = if self.epoch > 0 { epoch_start(self.epoch).max(since) } else { since };
        let state = if made_at > now { KeyState::Pending } else { KeyState::Active };
        let made_at = made_at.min(now);
        let Self { id, purpose, tenant, epoch, wrapped, check_value } = self;
        let history = vec![Step { state, at: made_at, actor: None }];
        let (version, seals, emptying) = (1, 0, false);
        StoredKey {
            id,
            purpose,
            tenant,
            epoch,
            version,
            state,
            made_at,
            seals,
            emptying,
            wrapped,
            provider: None,
            check_value,
            history,
        }
    }
}

impl StoredKey {
    /// What it is.
    pub const fn order(&self) -> KeyOrder {
        let Self { id, purpose, tenant, epoch, version, .. } = *self;
        KeyOrder { id, purpose, tenant, epoch, version }
    }

    /// The end of its cryptoperiod: counted from its month for a data key, else from when it was made.
    pub fn protects_until(&self, policy: &Policy) -> Time {
        let from = if self.epoch > 0 { epoch_start(self.epoch).max(self.made_at) } else { self.made_at };
        from.plus_seconds(i64::from(policy.cryptoperiod_days(self.purpose)) * DAY_SECONDS)
    }

    /// The key and how the keeper may use it.
    pub fn held(&self, policy: &Policy) -> HeldKey {
        HeldKey { key: self.wrapped_key(), state: self.state, protects_until: self.protects_until(policy) }
    }

    fn wrapped_key(&self) -> WrappedKey {
        WrappedKey {
            order: self.order(),
            wrapped: self.wrapped_bytes(),
            check_value: self.check_value.clone(),
        }
    }

    /// The wrapped bytes.
    pub fn wrapped_bytes(&self) -> Vec<u8> {
        BASE64.decode(self.wrapped.as_bytes()).unwrap_or_default()
    }

    /// Whether it is wrapped under the KEK: not the KEK itself, and not a key that is destroyed.
    fn is_wrapped(&self) -> bool {
        self.purpose != KeyPurpose::Kek && self.state != KeyState::Destroyed
    }

    fn become_(&mut self, state: KeyState, at: Time, actor: Option<&str>) {
        self.state = state;
        self.history.push(Step { state, at, actor: actor.map(str::to_owned) });
        if state == KeyState::Destroyed {
            self.wrapped.clear();
            self.emptying = false;
        }
    }
}

/// Whether records name the key that they are under, so that they can be moved to another.
const fn is_named_by_records(purpose: KeyPurpose) -> bool {
    matches!(purpose, KeyPurpose::Data | KeyPurpose::Fingerprint)
}

/// For what keys are made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Making<'a> {
    /// Who asked; none for the vault itself.
    pub actor: Option<&'a str>,
    /// Whether the records under the tenant's data keys of before are to be sealed again.
    pub empties: bool,
    /// The key that is replaced because others know it.
    pub compromised: Option<u32>,
}

impl KeyStore {
    /// All keys, in the order in which they were made.
    pub fn keys(&self) -> &[StoredKey] {
        &self.file.keys
    }

    /// A key by its id.
    pub fn key(&self, id: u32) -> Option<&StoredKey> {
        self.file.keys.iter().find(|key| key.id == id)
    }

    /// The keys that the keeper holds: those that are wrapped and not destroyed.
    pub fn held(&self, policy: &Policy) -> Vec<HeldKey> {
        self.file.keys.iter().filter(|key| key.is_wrapped()).map(|key| key.held(policy)).collect()
    }

    /// The same with those that were destroyed a short while ago, which the keeper may hold yet.
    pub fn handed(&self, policy: &Policy, now: Time) -> Vec<HeldKey> {
        let lately = now.plus_seconds(-DAY_SECONDS);
        let is_handed = |key: &&StoredKey| {
            let was_there = key.history.last().is_some_and(|step| step.at >= lately);
            key.is_wrapped() || (key.purpose != KeyPurpose::Kek && was_there)
        };
        self.file.keys.iter().filter(is_handed).map(|key| key.held(policy)).collect()
    }

    /// All keys as the edge knows them.
    pub fn table(&self, policy: &Policy) -> KeyTable {
        let info = |key: &StoredKey| KeyInfo {
            order: key.order(),
            state: key.state,
            protects_until: key.protects_until(policy),
            emptying: key.emptying,
        };
        KeyTable { generation: self.file.key_generation, keys: self.file.keys.iter().map(info).collect() }
    }

    /// The id of the key that is made next.
    pub const fn next_key_id(&self) -> u32 {
        self.file.next_key_id
    }

    /// What the log has not been told yet.
    pub fn untold(&self) -> &[KeyChange] {
        &self.file.untold
    }

    /// The log has these.
    pub fn told(&mut self, events: &[EventId]) -> Result<(), KeyStoreError> {
        if !self.file.untold.iter().any(|change| events.contains(&change.event)) {
            return Ok(());
        }
        self.change_file(|store| {
            store.file.untold.retain(|change| !events.contains(&change.event));
            Ok(())
        })
    }

    /// The KEK that wraps: the newest that is active. There is none in a key store of format 1 until [`note_kek`](Self::note_kek).
    pub fn kek(&self) -> Option<&StoredKey> {
        self.file
            .keys
            .iter()
            .rev()
            .find(|key| key.purpose == KeyPurpose::Kek && key.state == KeyState::Active)
    }

    /// Takes an id for a KEK that is to be wrapped for it, however long that takes and whatever keys are made meanwhile; durable when
    /// it returns.
    pub fn reserve_key_id(&mut self) -> Result<u32, KeyStoreError> {
        let id = self.file.next_key_id;
        self.change_file(|store| {
            store.file.next_key_id = id.saturating_add(1);
            Ok(())
        })?;
        Ok(id)
    }

    /// Keeps a KEK as its provider wrapped it for this id, pending until [`rewrapped`](Self::rewrapped), or active if it is the first.
    pub fn note_kek(
        &mut self,
        id: u32,
        (kek, provider): (&Obtained, &str),
        now: Time,
        actor: Option<&str>,
    ) -> Result<KeyOrder, KeyStoreError> {
        if self.key(id).is_some() {
            return Err(KeyStoreError::IdTaken);
        }
        let version = self.next_version(KeyPurpose::Kek, None, 0);
        let order = KeyOrder { id, purpose: KeyPurpose::Kek, tenant: None, epoch: 0, version };
        let state = if version == 1 { KeyState::Active } else { KeyState::Pending };
        let key = WrappedKey { order, wrapped: Vec::new(), check_value: kek.check_value.clone() };
        self.change_file(|store| {
            store.put(key, state, now, actor)?;
            store.set_wrapped(id, &kek.wrapped, provider)
        })?;
        Ok(order)
    }

    /// The same KEK, wrapped by another provider, or by the first at all; durable when it returns.
    pub fn move_kek(&mut self, id: u32, wrapped: &[u8], provider: &str) -> Result<(), KeyStoreError> {
        self.change_file(|store| store.set_wrapped(id, wrapped, provider))
    }

    pub(super) fn set_wrapped(
        &mut self,
        id: u32,
        wrapped: &[u8],
        provider: &str,
    ) -> Result<(), KeyStoreError> {
        let key = self.file.keys.iter_mut().find(|key| key.id == id).ok_or(KeyStoreError::NoSuchKey)?;
        key.wrapped = BASE64.encode(wrapped);
        key.provider = Some(provider.to_owned());
        self.file.key_generation += 1;
        Ok(())
    }

    /// Takes all keys as they are wrapped under the pending KEK, which is the active one from now on; the one before becomes `old`,
    /// and destroyed once its provider has destroyed it ([`set_state`](Self::set_state)). One write: either all keys are under one KEK
    /// or all under the other, and fewer than all are refused.
    pub fn rewrapped(
        &mut self,
        kek: u32,
        keys: &[WrappedKey],
        (old, now): (KeyState, Time),
        actor: Option<&str>,
    ) -> Result<(), KeyStoreError> {
        let before: Vec<u32> = self.active(KeyPurpose::Kek, None).map(|key| key.id).collect();
        self.change_file(|store| {
            let mut again: BTreeMap<u32, &WrappedKey> = keys.iter().map(|key| (key.order.id, key)).collect();
            for key in store.file.keys.iter_mut().filter(|key| key.is_wrapped()) {
                let wrapped = again.remove(&key.id).ok_or(KeyStoreError::NotAll)?;
                key.wrapped = BASE64.encode(&wrapped.wrapped);
            }
            if !again.is_empty() {
                return Err(KeyStoreError::NotAll);
            }
            store.change(kek, KeyState::Active, now, actor)?;
            before.into_iter().try_for_each(|id| store.change(id, old, now, actor))
        })
    }

    /// What keys are missing in this month: the checkpoint key, and for each tenant a data key of this and the next
    /// month and one key for each other purpose.
    pub fn missing_keys(&self, now: Time) -> Vec<KeyOrder> {
        let epoch = epoch_of(now);
        let mut wanted = vec![(KeyPurpose::Checkpoint, None, 0)];
        for tenant in self.file.tenants.iter().map(|tenant| Some(tenant.id)) {
            wanted.extend([epoch, epoch + 1].map(|epoch| (KeyPurpose::Data, tenant, epoch)));
            wanted.extend(SINGLE.map(|purpose| (purpose, tenant, 0)));
        }
        // A key that is known to others is none to go on with.
        let usable = |key: &StoredKey| matches!(key.state, KeyState::Pending | KeyState::Active);
        let there = |(purpose, tenant, epoch): &(KeyPurpose, Option<TenantId>, u32)| {
            let same = |key: &&StoredKey| (key.purpose, key.tenant, key.epoch) == (*purpose, *tenant, *epoch);
            self.file.keys.iter().filter(same).any(usable)
        };
        wanted
            .into_iter()
            .filter(|order| !there(order))
            .zip(self.file.next_key_id..)
            .map(|((purpose, tenant, epoch), id)| {
                let version = self.next_version(purpose, tenant, epoch);
                KeyOrder { id, purpose, tenant, epoch, version }
            })
            .collect()
    }

    /// The order of a key that takes over from the active one of this purpose and tenant.
    pub fn successor(&self, purpose: KeyPurpose, tenant: Option<TenantId>, now: Time) -> KeyOrder {
        let epoch = if purpose == KeyPurpose::Data { epoch_of(now) } else { 0 };
        let version = self.next_version(purpose, tenant, epoch);
        KeyOrder { id: self.file.next_key_id, purpose, tenant, epoch, version }
    }

    fn next_version(&self, purpose: KeyPurpose, tenant: Option<TenantId>, epoch: u32) -> u32 {
        let same = |key: &&StoredKey| (key.purpose, key.tenant, key.epoch) == (purpose, tenant, epoch);
        self.file.keys.iter().filter(same).map(|key| key.version).max().unwrap_or(0) + 1
    }

    fn active(&self, purpose: KeyPurpose, tenant: Option<TenantId>) -> impl Iterator<Item = &StoredKey> {
        let active = move |key: &&StoredKey| {
            (key.purpose, key.tenant, key.state) == (purpose, tenant, KeyState::Active)
        };
        self.file.keys.iter().filter(active)
    }

    /// Takes keys that the keeper made; durable when it returns. They are pending until their month has begun, else active.
    pub fn add_keys(
        &mut self,
        keys: &[WrappedKey],
        now: Time,
        making: Making<'_>,
    ) -> Result<(), KeyStoreError> {
        let Making { actor, empties, compromised } = making;
        self.change_file(|store| {
            for key in keys {
                let state =
                    if key.order.epoch > epoch_of(now) { KeyState::Pending } else { KeyState::Active };
                store.put(key.clone(), state, now, actor)?;
            }
            store.settle_states(now, actor)?;
            if let Some(id) = compromised {
                store.change(id, KeyState::Compromised, now, actor)?;
            }
            if empties {
                let of: Vec<_> = keys.iter().map(|key| (key.order.purpose, key.order.tenant)).collect();
                let behind = |key: &&mut StoredKey| {
                    is_named_by_records(key.purpose)
                        && of.contains(&(key.purpose, key.tenant))
                        && matches!(key.state, KeyState::Retired | KeyState::Compromised)
                };
                store.file.keys.iter_mut().filter(behind).for_each(|key| key.emptying = true);
            }
            Ok(())
        })
    }

    /// A key that was retired before is known to others; durable when it returns.
    pub fn compromise(&mut self, id: u32, now: Time, actor: &str) -> Result<(), KeyStoreError> {
        self.change_file(|store| {
            store.change(id, KeyState::Compromised, now, Some(actor))?;
            let is_it = |key: &&mut StoredKey| key.id == id && is_named_by_records(key.purpose);
            store.file.keys.iter_mut().filter(is_it).for_each(|key| key.emptying = true);
            Ok(())
        })
    }

    /// Brings the states to what the calendar says: a data key whose month has begun is active, and of the active keys of a purpose
    /// and tenant all but the newest are retired. Gives whether anything changed; durable when it returns.
    pub fn tend(&mut self, now: Time) -> Result<bool, KeyStoreError> {
        if !self.is_behind(now) {
            return Ok(false);
        }
        self.change_file(|store| store.settle_states(now, None))?;
        Ok(true)
    }

    /// Whether the calendar asks for any change of state.
    fn is_behind(&self, now: Time) -> bool {
        !self.begun(now).is_empty() || !self.over().is_empty()
    }

    /// Data keys that are pending although their month has begun.
    fn begun(&self, now: Time) -> Vec<u32> {
        let epoch = epoch_of(now);
        let begun = |key: &&StoredKey| {
            key.purpose == KeyPurpose::Data && key.state == KeyState::Pending && key.epoch <= epoch
        };
        self.file.keys.iter().filter(begun).map(|key| key.id).collect()
    }

    /// Keys that are active although a newer one of their purpose and tenant is.
    fn over(&self) -> Vec<u32> {
        let mut newest = BTreeMap::new();
        let active = |key: &&StoredKey| key.state == KeyState::Active && key.purpose != KeyPurpose::Kek;
        for key in self.file.keys.iter().filter(active) {
            let known = newest.entry((key.purpose, key.tenant)).or_insert((key.epoch, key.version));
            *known = (*known).max((key.epoch, key.version));
        }
        let is_over = |key: &&StoredKey| {
            newest.get(&(key.purpose, key.tenant)).is_some_and(|newest| (key.epoch, key.version) < *newest)
        };
        self.file.keys.iter().filter(active).filter(is_over).map(|key| key.id).collect()
    }

    fn settle_states(&mut self, now: Time, actor: Option<&str>) -> Result<(), KeyStoreError> {
        for id in self.begun(now) {
            self.change(id, KeyState::Active, now, None)?;
        }
        for id in self.over() {
            self.change(id, KeyState::Retired, now, actor)?;
        }
        Ok(())
    }

    /// Says where a key stands from now on; durable when it returns. A step that no key may make is refused.
    pub fn set_state(
        &mut self,
        id: u32,
        state: KeyState,
        now: Time,
        actor: Option<&str>,
    ) -> Result<(), KeyStoreError> {
        self.change_file(|store| store.change(id, state, now, actor))
    }

    /// Has the records under these keys sealed again, or no more; durable when it returns.
    pub fn set_emptying(&mut self, ids: &[u32], emptying: bool) -> Result<(), KeyStoreError> {
        let these = |key: &&mut StoredKey| ids.contains(&key.id) && key.state != KeyState::Destroyed;
        self.change_file(|store| {
            store.file.keys.iter_mut().filter(these).for_each(|key| key.emptying = emptying);
            Ok(())
        })
    }

    /// Adds what data keys have sealed; durable when it returns.
    pub fn count_seals(&mut self, seals: &[(u32, u64)]) -> Result<(), KeyStoreError> {
        if seals.is_empty() {
            return Ok(());
        }
        self.change_file(|store| {
            for (id, count) in seals {
                if let Some(key) = store.file.keys.iter_mut().find(|key| key.id == *id) {
                    key.seals = key.seals.saturating_add(*count);
                }
            }
            Ok(())
        })
    }

    pub(super) fn put(
        &mut self,
        key: WrappedKey,
        state: KeyState,
        now: Time,
        actor: Option<&str>,
    ) -> Result<(), KeyStoreError> {
        let KeyOrder { id, purpose, tenant, epoch, version } = key.order;
        self.file.next_key_id = self.file.next_key_id.max(id.saturating_add(1));
        self.file.keys.push(StoredKey {
            id,
            purpose,
            tenant,
            epoch,
            version,
            state,
            made_at: now,
            seals: 0,
            emptying: false,
            wrapped: BASE64.encode(&key.wrapped),
            provider: None,
            check_value: key.check_value,
            history: vec![Step { state, at: now, actor: actor.map(str::to_owned) }],
        });
        self.tell((key.order, state, true), now, actor)
    }

    fn change(
        &mut self,
        id: u32,
        state: KeyState,
        now: Time,
        actor: Option<&str>,
    ) -> Result<(), KeyStoreError> {
        let key = self.file.keys.iter_mut().find(|key| key.id == id).ok_or(KeyStoreError::NoSuchKey)?;
        if !key.state.may_become(state) {
            return Err(KeyStoreError::Step { from: key.state.name(), to: state.name() });
        }
        key.become_(state, now, actor);
        let order = key.order();
        self.tell((order, state, false), now, actor)
    }

    fn tell(
        &mut self,
        (order, state, is_new): (KeyOrder, KeyState, bool),
        now: Time,
        actor: Option<&str>,
    ) -> Result<(), KeyStoreError> {
        let event = EventId::make(now).map_err(|_| KeyStoreError::Randomness)?;
        self.file.key_generation += 1;
        self.file.untold.push(KeyChange { event, order, state, is_new, actor: actor.map(str::to_owned) });
        Ok(())
    }
}
