//! The key store: wrapped keys, tenants and the installation's identity in one JSON file, apart from the cards. The supervisor is
//! its only reader and writer; each change is a new file, fsynced and renamed over the old one.

use std::io::Write;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};

use crate::card::tenant::{Mode, TenantId};
use crate::clock::Time;
use crate::random;
use crate::wire::control::{KeyOrder, KeyPurpose, TenantInfo, WrappedKey};

const FORMAT: u32 = 1;
/// A keeper's start counts against the fingerprint budget for this long.
const START_COUNTS_SECONDS: i64 = 3600;

/// What a tenant has one key for.
const SINGLE: [KeyPurpose; 4] =
    [KeyPurpose::Fingerprint, KeyPurpose::BodyMac, KeyPurpose::Pseudonym, KeyPurpose::Webhook];

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
    /// No randomness.
    #[error("the operating system's random number generator failed")]
    Randomness,
}

#[derive(Serialize, Deserialize)]
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
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    id: u32,
    purpose: KeyPurpose,
    tenant: Option<TenantId>,
    epoch: u32,
    wrapped: String,
    check_value: String,
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
        let file: File = serde_json::from_slice(&read(path)?).map_err(|_| malformed())?;
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
        self.file.keeper_starts.retain(|start| is_within_the_hour(*start, now));
        self.file.keeper_starts.push(now);
        self.save()
    }

    /// All wrapped keys.
    pub fn keys(&self) -> Vec<WrappedKey> {
        let wrapped = |key: &StoredKey| {
            let order = KeyOrder { id: key.id, purpose: key.purpose, tenant: key.tenant, epoch: key.epoch };
            let wrapped = BASE64.decode(key.wrapped.as_bytes()).unwrap_or_default();
            WrappedKey { order, wrapped, check_value: key.check_value.clone() }
        };
        self.file.keys.iter().map(wrapped).collect()
    }

    /// What keys are missing in this month: the checkpoint key, and for each tenant a data key of this and the next
    /// month and one key for each other purpose.
    pub fn missing_keys(&self, now: Time) -> Vec<KeyOrder> {
        let (year, month) = now.year_month();
        let epoch = u32::try_from(i32::from(year) * 12 + i32::from(month) - 1).unwrap_or(0);
        let mut wanted = vec![(KeyPurpose::Checkpoint, None, 0)];
        for tenant in self.file.tenants.iter().map(|tenant| Some(tenant.id)) {
            wanted.extend([epoch, epoch + 1].map(|epoch| (KeyPurpose::Data, tenant, epoch)));
            wanted.extend(SINGLE.map(|purpose| (purpose, tenant, 0)));
        }
        let there = |(purpose, tenant, epoch): &(KeyPurpose, Option<TenantId>, u32)| {
            self.file
                .keys
                .iter()
                .any(|key| (key.purpose, key.tenant, key.epoch) == (*purpose, *tenant, *epoch))
        };
        wanted
            .into_iter()
            .filter(|order| !there(order))
            .zip(self.file.next_key_id..)
            .map(|((purpose, tenant, epoch), id)| KeyOrder { id, purpose, tenant, epoch })
            .collect()
    }

    /// Takes keys that the keeper made; durable when it returns.
    pub fn add_keys(&mut self, keys: &[WrappedKey]) -> Result<(), KeyStoreError> {
        for key in keys {
            let KeyOrder { id, purpose, tenant, epoch } = key.order;
            self.file.next_key_id = self.file.next_key_id.max(id.saturating_add(1));
            let wrapped = BASE64.encode(&key.wrapped);
            let check_value = key.check_value.clone();
            self.file.keys.push(StoredKey { id, purpose, tenant, epoch, wrapped, check_value });
        }
        self.save()
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
        self.file.next_tenant_id += 1;
        self.file.tenants.push(tenant.clone());
        self.save()?;
        Ok(Some(tenant))
    }

    /// Switches a tenant off; `None` if there is none of that name.
    pub fn disable_tenant(&mut self, name: &str) -> Result<Option<TenantInfo>, KeyStoreError> {
        let Some(tenant) = self.file.tenants.iter_mut().find(|tenant| tenant.name == name) else {
            return Ok(None);
        };
        tenant.disabled = true;
        let tenant = tenant.clone();
        self.save()?;
        Ok(Some(tenant))
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

/// Writes a new file beside the old one, fsyncs it, renames it over, and fsyncs the directory.
fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), KeyStoreError> {
    let write = || {
        use std::os::unix::fs::OpenOptionsExt;
        let new = path.with_extension("new");
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |directory| std::fs::File::open(directory)?.sync_all())
    };
    write().map_err(|error: std::io::Error| KeyStoreError::Io(path.to_owned(), "written", error.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_store_from_before_webhooks_gets_that_key_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keystore.json");
        let now = Time::parse("2026-11-22T00:00:00Z").unwrap();
        let mut store = KeyStore::create(&path, "here", "node1").unwrap();
        let tenant = store.add_tenant("shop", Mode::Live, now).unwrap().unwrap();
        let before = store.missing_keys(now).into_iter().filter(|o| o.purpose != KeyPurpose::Webhook);
        let wrap = |order| WrappedKey { order, wrapped: vec![1; 60], check_value: "abcdef".into() };
        let before: Vec<_> = before.map(wrap).collect();
        store.add_keys(&before).unwrap();
        let missing = KeyStore::open(&path, "here").unwrap().missing_keys(now);
        let asked: Vec<_> = missing.iter().map(|order| (order.purpose, order.tenant)).collect();
        assert_eq!(asked, [(KeyPurpose::Webhook, Some(tenant.id))]);
        assert!(before.iter().all(|key| key.order.id < missing[0].id));
    }

    #[test]
    fn keys_and_tenants_are_there_after_reading_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keystore.json");
        let now = Time::parse("2026-11-22T00:00:00Z").unwrap();
        let mut store = KeyStore::create(&path, "here", "node1").unwrap();
        assert_eq!(store.missing_keys(now).len(), 1);
        let tenant = store.add_tenant("shop", Mode::Test, now).unwrap().unwrap();
        assert!(store.add_tenant("shop", Mode::Test, now).unwrap().is_none());
        let orders = store.missing_keys(now);
        assert_eq!(orders.iter().map(|order| order.id).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
        let keys: Vec<_> = orders
            .iter()
            .map(|order| WrappedKey { order: *order, wrapped: vec![1; 60], check_value: "abcdef".into() })
            .collect();
        store.add_keys(&keys).unwrap();
        store.keep_signed(7, [9; 32]).unwrap();
        assert_eq!(store.keeper_starts(now), 0);
        store.note_keeper_start(now).unwrap();
        let mut again = KeyStore::open(&path, "here").unwrap();
        assert_eq!(again.keys(), keys);
        assert_eq!(again.tenants(), [tenant]);
        assert_eq!(again.signed(), (7, [9; 32]));
        again.note_keeper_start(now.plus_seconds(10)).unwrap();
        assert_eq!(
            [10, 3_605, 7_200].map(|seconds| again.keeper_starts(now.plus_seconds(seconds))),
            [2, 1, 0]
        );
        assert!(again.missing_keys(now).is_empty());
        assert_eq!(again.missing_keys(now.plus_seconds(15 * 86_400)).len(), 1);
        assert!(matches!(KeyStore::open(&path, "elsewhere"), Err(KeyStoreError::OtherInstallation(_))));
    }
}
