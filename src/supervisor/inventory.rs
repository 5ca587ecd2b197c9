//! The key inventory (`keys/inventory.toml`): policy for each kind of key, checked at every start against what the vault does.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

/// Each kind of key with the algorithm that this version uses for it and its strength in bits (NIST SP 800-57 part 1).
const KINDS: [(&str, &str, u32); 7] = [
    ("kek", "AES-256-GCM", 256),
    ("data", "HKDF-SHA-256, AES-256-GCM", 256),
    ("fingerprint", "HMAC-SHA-256", 256),
    ("body_mac", "HMAC-SHA-256", 256),
    ("pseudonym", "HMAC-SHA-256", 256),
    ("webhook", "HMAC-SHA-256", 256),
    ("checkpoint", "Ed25519", 128),
];
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

/// Reads the inventory and refuses what contradicts the code.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("keys.inventory {} cannot be read: {}", path.display(), error.kind()))?;
    check_text(&text).map_err(|fault| format!("keys.inventory {}: {fault}", path.display()))
}

fn check_text(text: &str) -> Result<(), String> {
    let kinds: BTreeMap<String, Kind> = toml::from_str(text)
        .map_err(|_| "it is not an inventory of this version; see keys/inventory.toml".to_owned())?;
    if let Some(unknown) = kinds.keys().find(|name| KINDS.iter().all(|(kind, ..)| kind != &name.as_str())) {
        return Err(format!("[{unknown}]: the vault has no such key; remove the section"));
    }
    KINDS.iter().try_for_each(|(name, algorithm, strength)| {
        let kind = kinds.get(*name).ok_or_else(|| format!("[{name}] is missing; state its policy"))?;
        let fault = if kind.purpose.trim().is_empty() {
            "purpose: say what the key is for".to_owned()
        } else if kind.algorithm != *algorithm {
            format!("algorithm: this version uses {algorithm}")
        } else if kind.strength_bits != *strength {
            format!("strength_bits: this version uses {strength}")
        } else if !(1..=CRYPTOPERIOD_DAYS_MAX).contains(&kind.cryptoperiod_days) {
            format!("cryptoperiod_days: use 1 to {CRYPTOPERIOD_DAYS_MAX}")
        } else {
            return Ok(());
        };
        Err(format!("[{name}] {fault}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = include_str!("../../keys/inventory.toml");

    #[test]
    fn the_inventory_agrees_with_the_code() {
        assert_eq!(check_text(OURS), Ok(()));
    }

    #[test]
    fn what_contradicts_the_code_is_refused() {
        for (from, to, word) in [
            ("Ed25519", "RSA", "algorithm"),
            ("strength_bits = 256", "strength_bits = 128", "strength_bits"),
            ("cryptoperiod_days = 730", "cryptoperiod_days = 0", "cryptoperiod_days"),
            ("[pseudonym]", "[pseudonyms]", "pseudonyms"),
        ] {
            let fault = check_text(&OURS.replacen(from, to, 1)).unwrap_err();
            assert!(fault.contains(word), "{fault}");
        }
    }
}
