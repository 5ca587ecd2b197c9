//! How far the configuration lets cards go and charges grow, in a form that is kept: what is wider than what two persons approved last
//! is not taken before they approve it. Narrowing needs nobody, and is what counts from then on.
//!
//! Credentials, certificates of the listener and the machine's own trust are not in it: they are rotated without asking.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::inventory::Policy;
use super::settings::Loaded;
use crate::config::Config;
use crate::wire::keys::KeyPurpose;

/// What a configuration leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// SHA-256 of each part that is wider when it is new or other, by its name.
    parts: BTreeMap<String, String>,
    /// The policies of each destination: wider with each that is new.
    policies: BTreeMap<String, BTreeSet<u32>>,
    /// Numbers that are wider when they are greater.
    limits: BTreeMap<String, u64>,
}

impl Reach {
    /// That of a configuration and the files that it names.
    pub(super) fn of(config: &Config, policy: &Policy, destinations: &[Loaded], ranges: &[u8]) -> Self {
        let mut reach = Self::default();
        for Loaded { kept, .. } in destinations {
            let name = &kept.name;
            let own = config.destination.get(name).and_then(|destination| destination.trust.as_ref());
            let own = own.or_else(|| config.forward.get(name).and_then(|forward| forward.trust.as_ref()));
            let trust = own.map_or("", |_| kept.trust_pem.as_str());
            let to = (&kept.connector, &kept.connector_toml, kept.mode, &kept.endpoint, &kept.step_endpoints);
            // What a forward takes prints all of itself, with the places of its credentials and never one of them.
            let takes = format!("{:?}", kept.forward);
            reach.parts.insert(format!("destination {name}"), digest_of(&(to, trust, takes)));
            reach.policies.insert(format!("destination {name}"), kept.policies.iter().copied().collect());
        }
        for (host, port) in config.webhooks.rules().hosts {
            reach.parts.insert(format!("webhook host {host}:{port}"), String::new());
        }
        let exempt = serde_json::to_value(&config.exempt).unwrap_or_default();
        for (tenant, patterns) in exempt.as_object().into_iter().flatten() {
            reach.parts.insert(format!("exemptions of tenant {tenant}"), digest_of(patterns));
        }
        reach.parts.insert("table of issuer ranges".to_owned(), digest_of(&ranges));
        // Longer keeps cards that should be gone, shorter erases them: either is for two.
        for (tenant, policy) in &config.retention {
            reach.parts.insert(format!("retention of tenant {tenant}"), digest_of(policy));
        }
        for (name, part) in config.keys.root_parts() {
            reach.parts.insert(name, digest_of(&part));
        }
        reach.parts.insert("times of erasure".to_owned(), digest_of(&config.erasure.terms()));
        // A policy prints all of itself.
        reach.parts.insert("retries and routes".to_owned(), digest_of(&format!("{:?}", config.charging())));
        let limits = serde_json::to_value(&config.limits).unwrap_or_default();
        for (name, limit) in limits.as_object().into_iter().flatten() {
            reach.limits.insert(format!("limits.{name}"), limit.as_u64().unwrap_or(u64::MAX));
        }
        for purpose in KeyPurpose::ALL {
            let days = u64::from(policy.cryptoperiod_days(purpose));
            reach.limits.insert(format!("cryptoperiod of {}, days", purpose.name()), days);
        }
        reach.limits.insert("admin.approval_hours".to_owned(), config.admin.approval_hours.into());
        reach
    }

    /// SHA-256 of all of it, hex: what is signed.
    pub fn sha256(&self) -> String {
        digest_of(self)
    }

    /// What is wider than before, a line each; all of it if nothing was approved yet.
    pub fn widens(&self, before: Option<&Self>) -> Vec<String> {
        let nothing = Self::default();
        let before = before.unwrap_or(&nothing);
        let mut lines = Vec::new();
        for (name, part) in &self.parts {
            match before.parts.get(name) {
                None => lines.push(format!("{name} is new")),
                Some(other) if other != part => lines.push(format!("{name} is other than approved")),
                Some(_) => {}
            }
        }
        for (name, policies) in &self.policies {
            let known = before.policies.get(name);
            let new = policies.iter().filter(|policy| !known.is_some_and(|known| known.contains(policy)));
            lines.extend(
                new.filter(|_| known.is_some()).map(|policy| format!("{name}: policy {policy} is new")),
            );
        }
        for (name, limit) in &self.limits {
            match before.limits.get(name) {
                None => lines.push(format!("{name} is {limit}")),
                Some(known) if known < limit => lines.push(format!("{name} is {limit}, and was {known}")),
                Some(_) => {}
            }
        }
        lines
    }
}

fn digest_of(what: &impl Serialize) -> String {
    HEXLOWER.encode(digest(&SHA256, &serde_json::to_vec(what).unwrap_or_default()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach() -> Reach {
        Reach {
            parts: [("destination a", "11"), ("webhook host b:443", "")]
                .map(|(name, part)| (name.to_owned(), part.to_owned()))
                .into(),
            policies: [("destination a".to_owned(), [1, 2].into())].into(),
            limits: [("limits.body_bytes_max".to_owned(), 1_024)].into(),
        }
    }

    #[test]
    fn what_is_new_other_or_greater_is_wider_and_what_is_less_is_not() {
        let before = reach();
        let wider = |change: &dyn Fn(&mut Reach)| {
            let mut after = reach();
            change(&mut after);
            (after.widens(Some(&before)), after.sha256() == before.sha256())
        };
        let none: (Vec<String>, bool) = (Vec::new(), false);
        assert_eq!(wider(&|_| ()), (Vec::new(), true));
        assert_eq!(wider(&|r| _ = r.parts.remove("destination a")), none);
        assert_eq!(wider(&|r| _ = r.limits.insert("limits.body_bytes_max".into(), 1_023)), none);
        assert_eq!(wider(&|r| _ = r.policies.insert("destination a".into(), [1].into())), none);
        let line = |line: &str| (vec![line.to_owned()], false);
        assert_eq!(
            wider(&|r| _ = r.parts.insert("destination c".into(), "1".into())),
            line("destination c is new")
        );
        assert_eq!(
            wider(&|r| _ = r.parts.insert("destination a".into(), "12".into())),
            line("destination a is other than approved")
        );
        assert_eq!(
            wider(&|r| _ = r.policies.insert("destination a".into(), [1, 2, 3].into())),
            line("destination a: policy 3 is new")
        );
        assert_eq!(
            wider(&|r| _ = r.limits.insert("limits.body_bytes_max".into(), 1_025)),
            line("limits.body_bytes_max is 1025, and was 1024")
        );
        assert_eq!(reach().widens(None).len(), 3, "where nothing was approved all of it is wider");
    }
}
