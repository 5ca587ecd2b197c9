//! The key store: wrapped keys, tenants and the installation's identity in one JSON file, apart from the cards. The supervisor is
//! its only reader and writer; each change is a new file, fsynced and renamed over the old one. What the log has to be told of a
//! key is written with the change, and stays until the log has it.
//!
//! [`keys`] has the keys and their states, [`custody`] who holds shares of what wraps the KEK; here are the file, the tenants and what the keeper signed.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use custody::Custody;
use keys::StoredKeyV1;

use crate::card::tenant::{Mode, TenantId};
use crate::clock::{Clock, SystemClock, Time};
use crate::random;
use crate::supervisor::durable;
use crate::wire::control::{Recorded, TenantInfo};
use crate::wire::keys::KeyChange;

pub mod custody;
mod keys;

pub use keys::{Making, Step, StoredKey};

const FORMAT: u32 = 2;
/// A keeper's start counts against the fingerprint budget for this long.
const START_COUNTS_SECONDS: i64 = 3600;

/// Why the key store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// It cannot be read or written.
    #[error("the key store {0} cannot be {1}: {2}")]
    Io(PathBuf, &'static str, std::io::ErrorKind),
    /// It is not a key store of this version.
    #[error("the key store {0} is not one that this version reads; restore it from its backup")]
    Malformed(PathBuf),
    /// The configuration names another installation.
    #[error(
        "the key store {0} belongs to another installation; use the one that was made with this configuration, or restore it"
    )]
    OtherInstallation(PathBuf),
    /// There is no key of this id.
    #[error("there is no key of this id; see `cardvault keys list`")]
    NoSuchKey,
    /// Another key has the id that a KEK was wrapped for.
    #[error("another key was made meanwhile; nothing was changed: try once more")]
    IdTaken,
    /// Not all keys came back.
    #[error("not all keys were wrapped again; nothing was changed: try once more")]
    NotAll,
    /// No key comes from the one state into the other.
    #[error("a key that is {from} cannot become {to}")]
    Step {
        /// Where it stands.
        from: &'static str,
        /// Where it should come to.
        to: &'static str,
    },
    /// There is no ceremony whose shares wait to be confirmed.
    #[error("no ceremony waits for shares to be confirmed; see `cardvault keys ceremony status`")]
    NoCeremony,
    /// Another KEK took over since the shares were made.
    #[error(
        "another KEK took over since these shares were made: they are of no use; begin again with `cardvault keys ceremony begin`"
    )]
    KekChanged,
    /// No randomness.
    #[error("the operating system's random number generator failed")]
    Randomness,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    environment: String,
    installation: String,
    node: String,
    next_key_id: u32,
    next_tenant_id: u32,
    keeper_starts: Vec<Time>,
    tenants: Vec<TenantInfo>,
    keys: Vec<StoredKey>,
    /// Counts the changes of keys, so that a key store that was rolled back is found (PCI DSS 3.7.7).
    key_generation: u64,
    /// What became of keys, until the log has it.
    untold: Vec<KeyChange>,
    /// Ceremonies, and who holds shares.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    custodies: Vec<Custody>,
    /// What was done with shares, until the log has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recorded: Vec<Recorded>,
}

/// Format 1: keys had no states yet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileV1 {
    #[expect(dead_code, reason = "read before, to tell the formats apart")]
    format: u32,
    environment: String,
    installation: String,
    node: String,
    next_key_id: u32,
    next_tenant_id: u32,
    keeper_starts: Vec<Time>,
    tenants: Vec<TenantInfo>,
    keys: Vec<StoredKeyV1>,
}

impl FileV1 {
    fn upgrade(self, now: Time) -> File {
        let first = self.tenants.iter().map(|tenant| tenant.created_at).min().unwrap_or(now);
        let since = |id: Option<TenantId>| {
            let tenant = self.tenants.iter().find(|tenant| Some(tenant.id) == id);
            tenant.map_or(first, |tenant| tenant.created_at)
        };
        let keys = self.keys.into_iter().map(|key| {
            let since = since(key.tenant());
            key.upgrade(since, now)
        });
        File {
            format: FORMAT,
            environment: self.environment,
            installation: self.installation,
            node: self.node,
            next_key_id: self.next_key_id,
            next_tenant_id: self.next_tenant_id,
            keeper_starts: self.keeper_starts,
            keys: keys.collect(),
            tenants: self.tenants,
            key_generation: 0,
            untold: Vec::new(),
            custodies: Vec::new(),
            recorded: Vec::new(),
        }
    }
}

/// What all formats have.
#[derive(Deserialize)]
struct AnyFile {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct Signed {
    size: u64,
    root: String,
}

/// The key store, as read.
pub struct KeyStore {
    path: PathBuf,
    file: File,
    signed: (u64, [u8; 32]),
}

impl KeyStore {
    /// Makes a new one, with a random environment id; the file must not be there.
    pub fn create(path: &Path, installation: &str, node: &str) -> Result<Self, KeyStoreError> {
        if path.exists() {
            return Err(KeyStoreError::Io(path.to_owned(), "made", std::io::ErrorKind::AlreadyExists));
        }
        let environment = random::make_bytes::<16>().map_err(|_| KeyStoreError::Randomness)?;
        let file = File {
            format: FORMAT,
            environment: HEXLOWER.encode(&environment),
            installation: installation.to_owned(),
            node: node.to_owned(),
            next_key_id: 1,
            next_tenant_id: 1,
            keeper_starts: Vec::new(),
            tenants: Vec::new(),
            keys: Vec::new(),
            key_generation: 0,
            untold: Vec::new(),
            custodies: Vec::new(),
            recorded: Vec::new(),
        };
        let store = Self { path: path.to_owned(), file, signed: (0, [0; 32]) };
        store.save()?;
        Ok(store)
    }

    /// Reads one, and checks that it belongs to this installation.
    pub fn open(path: &Path, installation: &str) -> Result<Self, KeyStoreError> {
        let malformed = || KeyStoreError::Malformed(path.to_owned());
        let read = |path: &Path| {
            std::fs::read(path).map_err(|e| KeyStoreError::Io(path.to_owned(), "read", e.kind()))
        };
        let bytes = read(path)?;
        let any: AnyFile = serde_json::from_slice(&bytes).map_err(|_| malformed())?;
        let file = match any.format {
            1 => serde_json::from_slice::<FileV1>(&bytes).map(|file| file.upgrade(SystemClock.now())),
            _ => serde_json::from_slice(&bytes),
        };
        let file: File = file.map_err(|_| malformed())?;
        let environment = HEXLOWER.decode(file.environment.as_bytes()).map_err(|_| malformed())?;
        if file.format != FORMAT || environment.len() != 16 {
            return Err(malformed());
        }
        if file.installation != installation {
            return Err(KeyStoreError::OtherInstallation(path.to_owned()));
        }
        let signed_path = signed_path(path);
        let signed = if signed_path.exists() {
            let signed: Signed = serde_json::from_slice(&read(&signed_path)?).map_err(|_| malformed())?;
            let root = HEXLOWER.decode(signed.root.as_bytes()).map_err(|_| malformed())?;
            (signed.size, root.try_into().map_err(|_| malformed())?)
        } else {
            (0, crate::attest::merkle::empty_root())
        };
        Ok(Self { path: path.to_owned(), file, signed })
    }

    /// The random id of the installation, bound into every AAD.
    pub fn environment(&self) -> [u8; 16] {
        HEXLOWER
            .decode(self.file.environment.as_bytes())
            .ok()
            .and_then(|e| e.try_into().ok())
            .unwrap_or_default()
    }

    /// All tenants.
    pub fn tenants(&self) -> &[TenantInfo] {
        &self.file.tenants
    }

    /// Size and root of the tree that the keeper signed last.
    pub const fn signed(&self) -> (u64, [u8; 32]) {
        self.signed
    }

    /// Remembers that this tree is about to be signed; durable when it returns.
    pub fn keep_signed(&mut self, size: u64, root: [u8; 32]) -> Result<(), KeyStoreError> {
        let signed = Signed { size, root: HEXLOWER.encode(&root) };
        write_durably(&signed_path(&self.path), &serde_json::to_vec(&signed).unwrap_or_default())?;
        self.signed = (size, root);
        Ok(())
    }

    /// How many keepers began to serve in the hour before.
    pub fn keeper_starts(&self, now: Time) -> u32 {
        let counts = |start: &&Time| is_within_the_hour(**start, now);
        u32::try_from(self.file.keeper_starts.iter().filter(counts).count()).unwrap_or(u32::MAX)
    }

    /// Notes that a keeper is about to serve; durable when it returns.
    pub fn note_keeper_start(&mut self, now: Time) -> Result<(), KeyStoreError> {
        self.change_file(|store| {
            store.file.keeper_starts.retain(|start| is_within_the_hour(*start, now));
            store.file.keeper_starts.push(now);
            Ok(())
        })
    }

    /// A tenant by its name.
    pub fn tenant(&self, name: &str) -> Option<&TenantInfo> {
        self.file.tenants.iter().find(|tenant| tenant.name == name)
    }

    /// Adds a tenant; `None` if the name is taken.
    pub fn add_tenant(
        &mut self,
        name: &str,
        mode: Mode,
        now: Time,
    ) -> Result<Option<TenantInfo>, KeyStoreError> {
        if self.tenant(name).is_some() {
            return Ok(None);
        }
        let id = TenantId(self.file.next_tenant_id);
        let tenant = TenantInfo { id, name: name.to_owned(), mode, disabled: false, created_at: now };
        self.change_file(|store| {
            store.file.next_tenant_id += 1;
            store.file.tenants.push(tenant.clone());
            Ok(())
        })?;
        Ok(Some(tenant))
    }

    /// Switches a tenant off; `None` if there is none of that name.
    pub fn disable_tenant(&mut self, name: &str) -> Result<Option<TenantInfo>, KeyStoreError> {
        if self.tenant(name).is_none() {
            return Ok(None);
        }
        self.change_file(|store| {
            let named = |tenant: &&mut TenantInfo| tenant.name == name;
            store.file.tenants.iter_mut().filter(named).for_each(|tenant| tenant.disabled = true);
            Ok(())
        })?;
        Ok(self.tenant(name).cloned())
    }

    /// Makes a change and keeps it on disk: all of it or, whatever fails, nothing of it.
    fn change_file(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<(), KeyStoreError>,
    ) -> Result<(), KeyStoreError> {
        let before = self.file.clone();
        let done = change(self).and_then(|()| self.save());
        if done.is_err() {
            self.file = before;
        }
        done
    }

    fn save(&self) -> Result<(), KeyStoreError> {
        write_durably(&self.path, &serde_json::to_vec_pretty(&self.file).unwrap_or_default())
    }
}

/// Whether a start still counts.
fn is_within_the_hour(start: Time, now: Time) -> bool {
    start > now.plus_seconds(-START_COUNTS_SECONDS) && start <= now
}

fn signed_path(path: &Path) -> PathBuf {
    path.with_extension("signed.json")
}

/// All of it or, whatever fails, nothing of it.
fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), KeyStoreError> {
    durable::write(path, bytes).map_err(|error| KeyStoreError::Io(path.to_owned(), "written", error.kind()))
}

#[cfg(test)]
mod tests;
