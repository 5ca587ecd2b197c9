//! Keys, as supervisor, keeper and edge speak of them: what each is for, where it stands, and how it lies wrapped.

use serde::{Deserialize, Serialize};

use crate::card::id::EventId;
use crate::card::tenant::TenantId;
use crate::clock::Time;

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyPurpose {
    /// Wraps all other keys; itself wrapped by the root provider.
    Kek,
    /// Seals card fields; one for each tenant and epoch.
    Data,
    /// Keyed hash of the whole PAN.
    Fingerprint,
    /// Keyed hash of bodies, idempotency keys and rendered requests.
    BodyMac,
    /// Pseudonyms of customers in the log.
    Pseudonym,
    /// The secrets that webhooks are signed with are derived from it.
    Webhook,
    /// Ed25519 seed that signs checkpoints and statements; of the installation.
    Checkpoint,
}

impl KeyPurpose {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Kek,
        Self::Data,
        Self::Fingerprint,
        Self::BodyMac,
        Self::Pseudonym,
        Self::Webhook,
        Self::Checkpoint,
    ];

    /// Its word in bindings, listings and the inventory.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kek => "kek",
            Self::Data => "data",
            Self::Fingerprint => "fingerprint",
            Self::BodyMac => "body_mac",
            Self::Pseudonym => "pseudonym",
            Self::Webhook => "webhook",
            Self::Checkpoint => "checkpoint",
        }
    }

    /// The purpose of this word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.name() == name)
    }
}

/// Where a key stands (NIST SP 800-57 part 1, section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Made, and not in use yet: the data key of a month to come.
    Pending,
    /// In use.
    Active,
    /// Protects nothing new; opens what it protected.
    Retired,
    /// Known or feared to be known to others: protects nothing new, and what it protects is to be moved away first of all.
    Compromised,
    /// Gone; only the record of it is left.
    Destroyed,
}

impl KeyState {
    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Compromised => "compromised",
            Self::Destroyed => "destroyed",
        }
    }

    /// Whether a key may come from this state into that one; no key ever comes back.
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Pending => !matches!(next, Self::Pending | Self::Retired),
            Self::Active => matches!(next, Self::Retired | Self::Compromised),
            Self::Retired => matches!(next, Self::Compromised | Self::Destroyed),
            Self::Compromised => matches!(next, Self::Destroyed),
            Self::Destroyed => false,
        }
    }
}

/// A key to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyOrder {
    /// Its id, sequential and unique in the installation.
    pub id: u32,
    /// What it is for.
    pub purpose: KeyPurpose,
    /// Whose; none for the installation's own.
    pub tenant: Option<TenantId>,
    /// Month of sealing, as year × 12 + month − 1; zero for keys without epochs.
    pub epoch: u32,
    /// Counts the keys of this purpose, tenant and epoch, from 1.
    pub version: u32,
}

/// A key wrapped under the KEK (AES-256-GCM; environment, id, tenant, epoch and purpose as AAD).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedKey {
    /// What it is.
    pub order: KeyOrder,
    /// `nonce(12) ‖ ciphertext(32) ‖ tag(16)`.
    #[serde(with = "serde_bytes")]
    pub wrapped: Vec<u8>,
    /// Key check value: the first three bytes of HMAC-SHA-256(key, "cardvault/kcv"), hex.
    pub check_value: String,
}

/// A key with what the keeper may do with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldKey {
    /// The key; without wrapped bytes once it is destroyed.
    pub key: WrappedKey,
    /// Where it stands.
    pub state: KeyState,
    /// The end of its cryptoperiod: from then on it protects nothing new.
    pub protects_until: Time,
}

#[cfg(test)]
impl HeldKey {
    /// A key in use whose cryptoperiod never ends.
    pub const fn active(key: WrappedKey) -> Self {
        Self { key, state: KeyState::Active, protects_until: Time::from_micros(i64::MAX) }
    }
}

/// All keys as the edge knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyTable {
    /// Counts the changes of keys in this installation, so that an older key store is told from a newer one.
    pub generation: u64,
    /// The keys.
    pub keys: Vec<KeyInfo>,
}

/// A key as the edge knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// What it is.
    pub order: KeyOrder,
    /// Where it stands.
    pub state: KeyState,
    /// The end of its cryptoperiod.
    pub protects_until: Time,
    /// Whether the records under it are to be sealed again under the tenant's active key.
    pub emptying: bool,
}

/// What became of a key, for the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// The event that tells it; told twice, it is in the log once.
    pub event: EventId,
    /// Which key.
    pub order: KeyOrder,
    /// Where it stands now.
    pub state: KeyState,
    /// Whether it was made so, and did not come from another state.
    pub is_new: bool,
    /// Who asked; none for the vault itself.
    pub actor: Option<String>,
}

/// The epoch of an instant: its month, as year × 12 + month − 1.
pub fn epoch_of(now: Time) -> u32 {
    let (year, month) = now.year_month();
    u32::try_from(i32::from(year) * 12 + i32::from(month) - 1).unwrap_or(0)
}

/// The first instant of an epoch.
pub fn epoch_start(epoch: u32) -> Time {
    let first = format!("{:04}-{:02}-01T00:00:00Z", epoch / 12, epoch % 12 + 1);
    Time::parse(&first).unwrap_or(Time::from_micros(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_a_month() {
        let time = |text: &str| Time::parse(text).unwrap();
        let (first, last) = (time("2026-12-01T00:00:00Z"), time("2026-12-31T23:59:59Z"));
        assert_eq!(epoch_of(first), epoch_of(last));
        assert_eq!(epoch_start(epoch_of(last)), first);
        assert_eq!(epoch_of(last.plus_seconds(1)), epoch_of(last) + 1);
    }

    #[test]
    fn no_key_ever_comes_back() {
        use KeyState::{Active, Compromised, Destroyed, Pending, Retired};
        let order = [Pending, Active, Retired, Compromised, Destroyed];
        for (at, from) in order.into_iter().enumerate() {
            assert!(order[..=at].iter().all(|to| !from.may_become(*to)), "{}", from.name());
        }
        let of_active: Vec<_> = order.into_iter().filter(|to| Active.may_become(*to)).collect();
        assert_eq!(of_active, [Retired, Compromised]);
    }
}
