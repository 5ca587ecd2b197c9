//! All keys that the keeper holds, by what they are for.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ring::signature::Ed25519KeyPair;

use super::{Dek, Kek, KeyError, Mac};
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::wire::keys::{HeldKey, KeyPurpose, KeyState, epoch_of};

/// The keys of one tenant.
#[derive(Default)]
pub struct TenantKeys {
    /// Data keys that may seal, by epoch and version: which, and until when.
    sealing: BTreeMap<(u32, u32), (u32, Time)>,
    fingerprints: FingerprintKeys,
    body_mac: Option<Mac>,
    pseudonym: Option<Mac>,
    /// Webhook keys that endpoints' secrets may be derived from, by id.
    webhooks: HashMap<u32, Mac>,
}

impl TenantKeys {
    /// Keyed hash of the whole PAN.
    pub const fn fingerprints(&self) -> &FingerprintKeys {
        &self.fingerprints
    }

    /// Keyed hash of bodies, idempotency keys and rendered requests.
    pub fn body_mac(&self) -> Result<&Mac, KeyError> {
        self.body_mac.as_ref().ok_or(KeyError::Missing)
    }

    /// Keyed pseudonyms of customers.
    pub fn pseudonym(&self) -> Result<&Mac, KeyError> {
        self.pseudonym.as_ref().ok_or(KeyError::Missing)
    }

    /// What secrets of webhook endpoints are derived from: the key of that id, unless others know it.
    pub fn webhook(&self, id: u32) -> Result<&Mac, KeyError> {
        self.webhooks.get(&id).ok_or(KeyError::Missing)
    }
}

/// The key that numbers are hashed under, and those before it that are not destroyed: what is stored may be found under any of them.
#[derive(Default)]
pub struct FingerprintKeys {
    /// By version: id, key, and whether it is in use.
    keys: BTreeMap<u32, (u32, Arc<Mac>, bool)>,
}

impl FingerprintKeys {
    /// The key in use, with its id.
    pub fn current(&self) -> Result<(u32, &Arc<Mac>), KeyError> {
        let newest = self.keys.values().next_back().filter(|(_, _, in_use)| *in_use);
        newest.map(|(id, key, _)| (*id, key)).ok_or(KeyError::Missing)
    }

    /// Those before it.
    pub fn before(&self) -> impl Iterator<Item = &Mac> {
        self.keys.values().rev().skip(1).map(|(_, key, _)| key.as_ref())
    }
}

/// All keys in use.
#[derive(Default)]
pub struct KeyRing {
    deks: HashMap<u32, Arc<Dek>>,
    tenants: HashMap<TenantId, TenantKeys>,
    signing: Option<Ed25519KeyPair>,
}

impl KeyRing {
    /// Takes a key as it stands: one that is active (or pending, for a data key whose month begins meanwhile) protects, an older one
    /// opens what it sealed, one that is destroyed is forgotten.
    pub fn put(&mut self, kek: &Kek, held: &HeldKey) -> Result<(), KeyError> {
        let order = held.key.order;
        let protects = matches!(held.state, KeyState::Pending | KeyState::Active);
        if order.purpose == KeyPurpose::Data {
            let tenant = self.tenants.entry(order.tenant.ok_or(KeyError::Missing)?).or_default();
            let place = (order.epoch, order.version);
            if protects {
                tenant.sealing.insert(place, (order.id, held.protects_until));
            } else {
                tenant.sealing.remove(&place);
            }
            if held.state == KeyState::Destroyed {
                self.deks.remove(&order.id);
            } else if let Entry::Vacant(place) = self.deks.entry(order.id) {
                let bytes = kek.unwrap_key(&held.key)?;
                place.insert(Arc::new(Dek::new(bytes.as_slice())));
            }
            return Ok(());
        }
        if order.purpose == KeyPurpose::Fingerprint {
            let tenant = self.tenants.entry(order.tenant.ok_or(KeyError::Missing)?).or_default();
            if held.state == KeyState::Destroyed {
                tenant.fingerprints.keys.remove(&order.version);
            } else {
                let key = Arc::new(Mac::new(kek.unwrap_key(&held.key)?.as_slice()));
                tenant.fingerprints.keys.insert(order.version, (order.id, key, protects));
            }
            return Ok(());
        }
        if order.purpose == KeyPurpose::Webhook {
            let tenant = self.tenants.entry(order.tenant.ok_or(KeyError::Missing)?).or_default();
            // A signature under a key that others know proves nothing: none is made.
            if matches!(held.state, KeyState::Compromised | KeyState::Destroyed) {
                tenant.webhooks.remove(&order.id);
            } else if let Entry::Vacant(place) = tenant.webhooks.entry(order.id) {
                place.insert(Mac::new(kek.unwrap_key(&held.key)?.as_slice()));
            }
            return Ok(());
        }
        if !protects {
            return Ok(());
        }
        let bytes = kek.unwrap_key(&held.key)?;
        if order.purpose == KeyPurpose::Checkpoint {
            let pair = Ed25519KeyPair::from_seed_unchecked(bytes.as_slice());
            self.signing = Some(pair.map_err(|_| KeyError::DoesNotUnwrap)?);
            return Ok(());
        }
        let tenant = self.tenants.entry(order.tenant.ok_or(KeyError::Missing)?).or_default();
        let mac = Some(Mac::new(bytes.as_slice()));
        match order.purpose {
            KeyPurpose::BodyMac => tenant.body_mac = mac,
            KeyPurpose::Pseudonym => tenant.pseudonym = mac,
            KeyPurpose::Kek
            | KeyPurpose::Data
            | KeyPurpose::Fingerprint
            | KeyPurpose::Webhook
            | KeyPurpose::Checkpoint => {}
        }
        Ok(())
    }

    /// Data keys alone, to open with them where the others are not at hand.
    pub fn of_deks(deks: impl IntoIterator<Item = (u32, Arc<Dek>)>) -> Self {
        Self { deks: deks.into_iter().collect(), ..Self::default() }
    }

    /// A tenant's keys.
    pub fn tenant(&self, tenant: TenantId) -> Result<&TenantKeys, KeyError> {
        self.tenants.get(&tenant).ok_or(KeyError::Missing)
    }

    /// The data key that seals now: the newest that is not of a later month, as long as its cryptoperiod lasts.
    pub fn sealing_key(&self, tenant: TenantId, now: Time) -> Result<(u32, &Dek), KeyError> {
        let newest = self.tenant(tenant)?.sealing.range(..=(epoch_of(now), u32::MAX)).next_back();
        let (_, (id, until)) = newest.ok_or(KeyError::Missing)?;
        if now >= *until {
            return Err(KeyError::Expired);
        }
        Ok((*id, self.dek(*id).ok_or(KeyError::Missing)?))
    }

    /// The data key of that id; keys are never tried in turn.
    pub fn dek(&self, id: u32) -> Option<&Dek> {
        self.deks.get(&id).map(AsRef::as_ref)
    }

    /// The same, to use it without the lock that guards the others.
    pub fn share_dek(&self, id: u32) -> Option<Arc<Dek>> {
        self.deks.get(&id).map(Arc::clone)
    }

    /// How many fields each data key has sealed since this was asked last.
    pub fn take_seals(&self) -> Vec<(u32, u64)> {
        let counts = self.deks.iter().map(|(id, dek)| (*id, dek.take_seals()));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// The key that signs checkpoints and statements.
    pub fn signing(&self) -> Result<&Ed25519KeyPair, KeyError> {
        self.signing.as_ref().ok_or(KeyError::Missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::keys::{KeyOrder, epoch_start};

    const TENANT: TenantId = TenantId(1);
    const MONTH: u32 = 24_322;

    fn held(kek: &Kek, id: u32, epoch: u32, version: u32, state: KeyState) -> HeldKey {
        let order = KeyOrder { id, purpose: KeyPurpose::Data, tenant: Some(TENANT), epoch, version };
        let protects_until = epoch_start(epoch).plus_seconds(31 * 86_400);
        HeldKey { key: kek.make_wrapped(order).unwrap(), state, protects_until }
    }

    fn id_at(keys: &KeyRing, now: Time) -> Result<u32, KeyError> {
        keys.sealing_key(TENANT, now).map(|(id, _)| id)
    }

    #[test]
    fn the_newest_key_of_this_month_or_before_seals() {
        let kek = Kek::new(&[7; 32], [1; 16]).unwrap();
        let (now, mut keys) = (epoch_start(MONTH), KeyRing::default());
        assert_eq!(id_at(&keys, now), Err(KeyError::Missing));
        let first = held(&kek, 1, MONTH, 1, KeyState::Active);
        keys.put(&kek, &first).unwrap();
        keys.put(&kek, &held(&kek, 2, MONTH + 1, 1, KeyState::Pending)).unwrap();
        assert_eq!((id_at(&keys, now), id_at(&keys, epoch_start(MONTH + 1))), (Ok(1), Ok(2)));
        keys.put(&kek, &held(&kek, 3, MONTH, 2, KeyState::Active)).unwrap();
        assert_eq!(id_at(&keys, now), Ok(3));
        // One that is retired seals no more and still opens; one that is destroyed does neither.
        keys.put(&kek, &HeldKey { state: KeyState::Retired, ..first.clone() }).unwrap();
        assert!(keys.dek(1).is_some());
        let mut gone = HeldKey { state: KeyState::Destroyed, ..first };
        gone.key.wrapped.clear();
        keys.put(&kek, &gone).unwrap();
        assert!(keys.dek(1).is_none());
    }

    #[test]
    fn a_key_seals_nothing_after_its_cryptoperiod() {
        let kek = Kek::new(&[7; 32], [1; 16]).unwrap();
        let mut keys = KeyRing::default();
        let key = held(&kek, 1, MONTH, 1, KeyState::Active);
        keys.put(&kek, &key).unwrap();
        assert_eq!(id_at(&keys, key.protects_until.plus_seconds(-1)), Ok(1));
        assert_eq!(id_at(&keys, key.protects_until), Err(KeyError::Expired));
        assert!(keys.dek(1).is_some());
    }

    #[test]
    fn seals_are_counted_once() {
        let kek = Kek::new(&[7; 32], [1; 16]).unwrap();
        let mut keys = KeyRing::default();
        keys.put(&kek, &held(&kek, 1, MONTH, 1, KeyState::Active)).unwrap();
        let (_, dek) = keys.sealing_key(TENANT, epoch_start(MONTH)).unwrap();
        (0..3).for_each(|_| dek.seal(b"info", &[0; 4], &mut Vec::new()).unwrap());
        assert_eq!(keys.take_seals(), [(1, 3)]);
        assert_eq!(keys.take_seals(), []);
    }
}
