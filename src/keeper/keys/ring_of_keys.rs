//! All keys that the keeper holds, by what they are for.

use std::collections::{BTreeMap, HashMap};

use ring::signature::Ed25519KeyPair;

use super::{Dek, Kek, KeyError, Mac};
use crate::card::tenant::TenantId;
use crate::wire::control::{KeyPurpose, WrappedKey};

/// The keys of one tenant.
#[derive(Default)]
pub struct TenantKeys {
    /// Data key ids by epoch.
    epochs: BTreeMap<u32, u32>,
    fingerprint: Option<Mac>,
    body_mac: Option<Mac>,
    pseudonym: Option<Mac>,
    webhook: Option<Mac>,
}

impl TenantKeys {
    /// Keyed hash of the whole PAN.
    pub fn fingerprint(&self) -> Result<&Mac, KeyError> {
        self.fingerprint.as_ref().ok_or(KeyError::Missing)
    }

    /// Keyed hash of bodies, idempotency keys and rendered requests.
    pub fn body_mac(&self) -> Result<&Mac, KeyError> {
        self.body_mac.as_ref().ok_or(KeyError::Missing)
    }

    /// Keyed pseudonyms of customers.
    pub fn pseudonym(&self) -> Result<&Mac, KeyError> {
        self.pseudonym.as_ref().ok_or(KeyError::Missing)
    }

    /// What the secrets of webhook endpoints are derived from.
    pub fn webhook(&self) -> Result<&Mac, KeyError> {
        self.webhook.as_ref().ok_or(KeyError::Missing)
    }
}

/// All keys in use.
#[derive(Default)]
pub struct KeyRing {
    deks: HashMap<u32, Dek>,
    tenants: HashMap<TenantId, TenantKeys>,
    signing: Option<Ed25519KeyPair>,
}

impl KeyRing {
    /// Unwraps a key and takes it into use.
    pub fn add(&mut self, kek: &Kek, wrapped: &WrappedKey) -> Result<(), KeyError> {
        let bytes = kek.unwrap_key(wrapped)?;
        let order = wrapped.order;
        if order.purpose == KeyPurpose::Checkpoint {
            let pair =
                Ed25519KeyPair::from_seed_unchecked(bytes.as_slice()).map_err(|_| KeyError::DoesNotUnwrap)?;
            self.signing = Some(pair);
        } else {
            let tenant = self.tenants.entry(order.tenant.ok_or(KeyError::Missing)?).or_default();
            let mac = || Some(Mac::new(bytes.as_slice()));
            match order.purpose {
                KeyPurpose::Data => {
                    tenant.epochs.insert(order.epoch, order.id);
                    self.deks.insert(order.id, Dek::new(bytes.as_slice()));
                }
                KeyPurpose::Fingerprint => tenant.fingerprint = mac(),
                KeyPurpose::BodyMac => tenant.body_mac = mac(),
                KeyPurpose::Pseudonym => tenant.pseudonym = mac(),
                KeyPurpose::Webhook => tenant.webhook = mac(),
                KeyPurpose::Checkpoint => {}
            }
        }
        Ok(())
    }

    /// A tenant's keys.
    pub fn tenant(&self, tenant: TenantId) -> Result<&TenantKeys, KeyError> {
        self.tenants.get(&tenant).ok_or(KeyError::Missing)
    }

    /// The data key that seals in this epoch: the newest that is not of a later one.
    pub fn sealing_key(&self, tenant: TenantId, epoch: u32) -> Result<(u32, &Dek), KeyError> {
        let (_, id) = self.tenant(tenant)?.epochs.range(..=epoch).next_back().ok_or(KeyError::Missing)?;
        Ok((*id, self.deks.get(id).ok_or(KeyError::Missing)?))
    }

    /// The data key of that id; keys are never tried in turn.
    pub fn dek(&self, id: u32) -> Option<&Dek> {
        self.deks.get(&id)
    }

    /// The key that signs checkpoints and statements.
    pub fn signing(&self) -> Result<&Ed25519KeyPair, KeyError> {
        self.signing.as_ref().ok_or(KeyError::Missing)
    }
}
