//! The key inventory (`keys/inventory.toml`): policy for each kind of key, checked at every start against what the vault does.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::wire::keys::KeyPurpose;

/// The inventory that `init` writes, and that holds where the configuration names none.
pub(super) const DEFAULT: &str = include_str!("../../keys/inventory.toml");
/// A data key seals for a whole month, and no month is longer.
const DATA_DAYS_MIN: u32 = 31;
/// The longest use that NIST SP 800-57 part 1 gives any of these keys: two years to protect, three more to process.
const CRYPTOPERIOD_DAYS_MAX: u32 = 5 * 365;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kind {
    purpose: String,
    algorithm: String,
    strength_bits: u32,
    cryptoperiod_days: u32,
}

/// How long each kind of key may protect something new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    days: BTreeMap<&'static str, u32>,
}

impl Policy {
    /// In days, from when the key was made (a data key's count from its month).
    pub fn cryptoperiod_days(&self, purpose: KeyPurpose) -> u32 {
        self.days.get(purpose.name()).copied().unwrap_or(0)
    }
}

/// The algorithm that this version uses for a kind of key and its strength in bits (NIST SP 800-57 part 1).
const fn algorithm(purpose: KeyPurpose) -> (&'static str, u32) {
    match purpose {
        KeyPurpose::Kek => ("AES-256-GCM", 256),
        KeyPurpose::Data => ("HKDF-SHA-256, AES-256-GCM", 256),
        KeyPurpose::Fingerprint | KeyPurpose::BodyMac | KeyPurpose::Pseudonym | KeyPurpose::Webhook => {
            ("HMAC-SHA-256", 256)
        }
        KeyPurpose::Checkpoint => ("Ed25519", 128),
    }
}

/// Reads the inventory and refuses what contradicts the code.
pub(super) fn load(path: Option<&Path>) -> Result<Policy, String> {
    let Some(path) = path else { return read(DEFAULT) };
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("keys.inventory {} cannot be read: {}", path.display(), error.kind()))?;
    read(&text).map_err(|fault| format!("keys.inventory {}: {fault}", path.display()))
}

fn read(text: &str) -> Result<Policy, String> {
    let kinds: BTreeMap<String, Kind> = toml::from_str(text)
        .map_err(|_| "it is not an inventory of this version; see keys/inventory.toml".to_owned())?;
    if let Some(unknown) = kinds.keys().find(|name| KeyPurpose::from_name(name).is_none()) {
        return Err(format!("[{unknown}]: the vault has no such key; remove the section"));
    }
    let days = KeyPurpose::ALL.into_iter().map(|purpose| {
        let name = purpose.name();
        let kind = kinds.get(name).ok_or_else(|| format!("[{name}] is missing; state its policy"))?;
        kind.check(purpose).map_err(|fault| format!("[{name}] {fault}"))?;
        Ok((name, kind.cryptoperiod_days))
    });
    Ok(Policy { days: days.collect::<Result<_, String>>()? })
}

impl Kind {
    fn check(&self, purpose: KeyPurpose) -> Result<(), String> {
        let (algorithm, strength) = algorithm(purpose);
        let days_min = if purpose == KeyPurpose::Data { DATA_DAYS_MIN } else { 1 };
        if self.purpose.trim().is_empty() {
            Err("purpose: say what the key is for".to_owned())
        } else if self.algorithm != algorithm {
            Err(format!("algorithm: this version uses {algorithm}"))
        } else if self.strength_bits != strength {
            Err(format!("strength_bits: this version uses {strength}"))
        } else if !(days_min..=CRYPTOPERIOD_DAYS_MAX).contains(&self.cryptoperiod_days) {
            Err(format!("cryptoperiod_days: use {days_min} to {CRYPTOPERIOD_DAYS_MAX}"))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inventory_agrees_with_the_code() {
        let policy = read(DEFAULT).unwrap();
        let days =
            [KeyPurpose::Kek, KeyPurpose::Data, KeyPurpose::Checkpoint].map(|p| policy.cryptoperiod_days(p));
        assert_eq!(days, [730, 31, 1095]);
    }

    #[test]
    fn what_contradicts_the_code_is_refused() {
        for (from, to, word) in [
            ("Ed25519", "RSA", "algorithm"),
            ("strength_bits = 256", "strength_bits = 128", "strength_bits"),
            ("cryptoperiod_days = 730", "cryptoperiod_days = 0", "cryptoperiod_days"),
            ("cryptoperiod_days = 31", "cryptoperiod_days = 30", "cryptoperiod_days"),
            ("[pseudonym]", "[pseudonyms]", "pseudonyms"),
        ] {
            let fault = read(&DEFAULT.replacen(from, to, 1)).unwrap_err();
            assert!(fault.contains(word), "{fault}");
        }
    }
}
