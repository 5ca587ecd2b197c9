//! Who holds a share of the secret that wraps the KEK: one record for each ceremony, kept for good, so that it is known who ever held what.

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};

use super::{KeyStore, KeyStoreError};
use crate::card::id::{EventId, PersonId};
use crate::clock::Time;
use crate::person::request::Signed;
use crate::wire::control::Recorded;
use crate::wire::keys::{KeyOrder, KeyPurpose, KeyState, WrappedKey};
use crate::wire::unsealer::SharesSettings;

/// Where a ceremony stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CustodyState {
    /// Shares are made, and not all custodians have confirmed theirs: nothing goes by them yet.
    Issued,
    /// The KEK is wrapped under its secret.
    Active,
    /// Another took over, or it was given up: its shares open nothing that is in use.
    Ended,
}

/// A ceremony, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custody {
    /// Its random id, hex.
    pub ceremony: String,
    /// Where it stands.
    pub state: CustodyState,
    /// How many shares give the secret back.
    pub threshold: u8,
    /// SHA-256 (hex) of the custodian form that was signed.
    pub form_sha256: String,
    /// The key check value of the secret.
    pub secret_check: String,
    /// The KEK that was wrapped, and its key check value.
    pub kek: (u32, String),
    /// The KEK under the secret, base64, until it is the one in use.
    pub wrapped: String,
    /// Who holds a share.
    pub custodians: Vec<Custodian>,
    /// When the shares were made.
    pub issued_at: Time,
}

/// Somebody who holds a share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custodian {
    /// The place of the share, from 1.
    pub place: u8,
    /// Who.
    pub person: PersonId,
    /// Their name then.
    pub name: String,
    /// The key check value of the share.
    pub share_check: String,
    /// What they signed before the share was made: the canonical request that names form and ceremony.
    pub acknowledged: Acknowledged,
    /// The share, sealed to them, base64, until they have confirmed it.
    pub sealed: String,
    /// When they confirmed that they have it.
    pub confirmed_at: Option<Time>,
}

/// A signed acknowledgement of the custodian form (PCI DSS 3.7.8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acknowledged {
    /// The canonical request.
    pub text: String,
    /// The signature over it.
    pub signed: Signed,
}

impl Custody {
    /// Its id.
    pub fn id(&self) -> [u8; 16] {
        let bytes = HEXLOWER.decode(self.ceremony.as_bytes()).ok();
        bytes.and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
    }

    /// Whether every custodian has confirmed their share.
    pub fn is_confirmed(&self) -> bool {
        self.custodians.iter().all(|custodian| custodian.confirmed_at.is_some())
    }

    /// How the unsealer knows its shares.
    pub fn settings(&self) -> SharesSettings {
        let share = |custodian: &Custodian| (custodian.place, custodian.share_check.clone());
        SharesSettings {
            ceremony: self.id(),
            threshold: self.threshold,
            secret_check: self.secret_check.clone(),
            shares: self.custodians.iter().map(share).collect(),
        }
    }

    /// Notes that this person has their share; from then on nobody else has it.
    pub fn confirm(&mut self, person: PersonId, now: Time) {
        for custodian in self.custodians.iter_mut().filter(|custodian| custodian.person == person) {
            custodian.sealed.clear();
            custodian.confirmed_at = Some(now);
        }
    }

    fn end(&mut self) {
        self.state = CustodyState::Ended;
        self.wrapped.clear();
        self.custodians.iter_mut().for_each(|custodian| custodian.sealed.clear());
    }
}

impl KeyStore {
    /// All ceremonies, oldest first.
    pub fn custodies(&self) -> &[Custody] {
        &self.file.custodies
    }

    /// The last ceremony in this state.
    pub fn custody(&self, state: CustodyState) -> Option<&Custody> {
        self.file.custodies.iter().rev().find(|custody| custody.state == state)
    }

    /// Keeps a ceremony whose shares were made just now, in place of one that nobody finished; durable when it returns.
    pub fn issue_custody(&mut self, custody: Custody, told: Vec<Recorded>) -> Result<(), KeyStoreError> {
        self.change_file(|store| {
            let is_left = |custody: &&mut Custody| custody.state == CustodyState::Issued;
            store.file.custodies.iter_mut().filter(is_left).for_each(Custody::end);
            store.file.custodies.push(custody);
            store.file.recorded.extend(told);
            Ok(())
        })
    }

    /// A custodian has their share; durable when it returns. Once all have, the KEK is the one under their secret, in the same write, and
    /// the shares of the ceremony before are of no use; gives whether that is so.
    pub fn confirm_share(
        &mut self,
        person: PersonId,
        now: Time,
        actor: &str,
        told: (Recorded, Recorded),
    ) -> Result<bool, KeyStoreError> {
        let mut is_active = false;
        self.change_file(|store| {
            let is_issued = |custody: &&mut Custody| custody.state == CustodyState::Issued;
            let issued = store.file.custodies.iter_mut().find(is_issued);
            let custody = issued.ok_or(KeyStoreError::NoCeremony)?;
            custody.confirm(person, now);
            let custody = custody.clone();
            store.file.recorded.push(told.0);
            if custody.is_confirmed() {
                store.activate(&custody, now, actor)?;
                store.file.recorded.push(told.1);
                is_active = true;
            }
            Ok(())
        })?;
        Ok(is_active)
    }

    fn activate(&mut self, custody: &Custody, now: Time, actor: &str) -> Result<(), KeyStoreError> {
        let wrapped = BASE64.decode(custody.wrapped.as_bytes()).map_err(|_| KeyStoreError::NoCeremony)?;
        let (id, check_value) = custody.kek.clone();
        match self.kek().map(|kek| (kek.id, kek.check_value.clone())) {
            Some(kek) if kek == custody.kek => {}
            // The first KEK of all, in a vault that was never open.
            None if self.file.keys.is_empty() && id == self.file.next_key_id => {
                let order = KeyOrder { id, purpose: KeyPurpose::Kek, tenant: None, epoch: 0, version: 1 };
                let key = WrappedKey { order, wrapped: Vec::new(), check_value };
                self.put(key, KeyState::Active, now, Some(actor))?;
            }
            Some(_) | None => return Err(KeyStoreError::KekChanged),
        }
        self.set_wrapped(id, &wrapped, "shares")?;
        for other in &mut self.file.custodies {
            match (other.ceremony == custody.ceremony, other.state) {
                (true, _) => {
                    other.state = CustodyState::Active;
                    other.wrapped.clear();
                }
                (false, CustodyState::Active) => other.end(),
                (false, _) => {}
            }
        }
        Ok(())
    }

    /// The KEK lies with another provider than custodians now; durable when it returns.
    pub fn end_custody(&mut self, kek: (u32, &[u8], &str), told: Recorded) -> Result<(), KeyStoreError> {
        let (id, wrapped, provider) = kek;
        self.change_file(|store| {
            store.set_wrapped(id, wrapped, provider)?;
            store.file.custodies.iter_mut().for_each(Custody::end);
            store.file.recorded.push(told);
            Ok(())
        })
    }

    /// Keeps what the log is to be told; durable when it returns.
    pub fn record(&mut self, told: Recorded) -> Result<(), KeyStoreError> {
        self.change_file(|store| {
            store.file.recorded.push(told);
            Ok(())
        })
    }

    /// What the log has not been told of ceremonies and shares.
    pub fn recorded(&self) -> &[Recorded] {
        &self.file.recorded
    }

    /// The log has these.
    pub fn forget_recorded(&mut self, events: &[EventId]) -> Result<(), KeyStoreError> {
        self.change_file(|store| {
            store.file.recorded.retain(|told| !events.contains(&told.event));
            Ok(())
        })
    }
}
