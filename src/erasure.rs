//! How long cards are kept (`[retention.TENANT]`), and how soon what is erased is out of every backup's reach (`[erasure]`), as
//! configured.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::Time;

/// A year: who needs longer to destroy a key has no policy.
const DAYS_MAX: u32 = 366;
/// Ten years: no business reason lasts longer than that without an agreement.
const RETENTION_DAYS_MAX: u32 = 3_653;
const DAY_SECONDS: i64 = 86_400;
const DESTROY_WITHIN: &str = "destroy_within_days=";
const KEY_BACKUPS_KEPT: &str = "key_backups_kept_days=";
/// What is kept back of the time to destroy a key, at most: for a vault that stood still on the last day.
const SPARE_SECONDS_MAX: i64 = 2 * DAY_SECONDS;

/// Erasure: times in days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ErasureConfig {
    /// From an erasure to the destruction of every key that may have sealed the card.
    pub destroy_within_days: u32,
    /// For how long the operator keeps a backup of the key store; none if that was not declared.
    pub key_backups_kept_days: Option<u32>,
}

impl Default for ErasureConfig {
    fn default() -> Self {
        Self { destroy_within_days: 30, key_backups_kept_days: None }
    }
}

impl ErasureConfig {
    /// What is wrong with it, each with what to do.
    pub fn faults(&self, in_production: bool) -> Vec<String> {
        let mut faults = Vec::new();
        if !(1..=DAYS_MAX).contains(&self.destroy_within_days) {
            faults.push(format!("erasure.destroy_within_days: use 1 to {DAYS_MAX}"));
        }
        match self.key_backups_kept_days {
            Some(days) if days > 10 * DAYS_MAX => {
                faults.push(format!("erasure.key_backups_kept_days: use 0 to {}", 10 * DAYS_MAX));
            }
            None if in_production => faults.push(
                "erasure.key_backups_kept_days: say for how many days a backup of the key store is kept (0 if there are none); erasure \
                 certificates count with it"
                    .to_owned(),
            ),
            Some(_) | None => {}
        }
        faults
    }

    /// What the edge is told.
    pub fn terms(&self) -> ErasureTerms {
        ErasureTerms {
            destroy_within_days: self.destroy_within_days,
            key_backups_kept_days: self.key_backups_kept_days.unwrap_or(0),
        }
    }
}

/// How long a tenant's cards are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// A card is kept while an agreement lives, and for so many days after the latest of: the end of its last agreement, its last use
    /// that worked, its creation.
    pub days_after_last_agreement: u32,
    /// A charge is kept for so many days after its last change, and an agreement with its consent for so many days after it ended and its
    /// card was erased; for ever, if that was not declared, which development alone takes.
    #[serde(default)]
    pub charges_days: Option<u32>,
}

impl RetentionConfig {
    /// What is wrong with the policy of this tenant, each with what to do.
    pub fn faults(self, tenant: &str, in_production: bool) -> Vec<String> {
        let fits = |days: &u32| (1..=RETENTION_DAYS_MAX).contains(days);
        let mut faults = Vec::new();
        if !fits(&self.days_after_last_agreement) {
            faults
                .push(format!("retention.{tenant}.days_after_last_agreement: use 1 to {RETENTION_DAYS_MAX}"));
        }
        match self.charges_days {
            Some(days) if !fits(&days) => {
                faults.push(format!("retention.{tenant}.charges_days: use 1 to {RETENTION_DAYS_MAX}"));
            }
            None if in_production => faults.push(format!(
                "retention.{tenant}.charges_days: say for how many days charges, agreements and consent are kept, longer than refunds and \
                 disputes take"
            )),
            Some(_) | None => {}
        }
        faults
    }

    /// From this instant back a card that is idle is past its limit.
    pub fn limit(self, now: Time) -> Time {
        now.plus_seconds(-i64::from(self.days_after_last_agreement) * DAY_SECONDS)
    }

    /// From this instant back a charge that did not change is past its limit; none if it has no limit.
    pub fn charges_limit(self, now: Time) -> Option<Time> {
        self.charges_days.map(|days| now.plus_seconds(-i64::from(days) * DAY_SECONDS))
    }

    /// As an event says it.
    pub fn words(self) -> Vec<String> {
        let cards = format!("days_after_last_agreement={}", self.days_after_last_agreement);
        let charges = self.charges_days.map(|days| format!("charges_days={days}"));
        std::iter::once(cards).chain(charges).collect()
    }
}

/// How long cards are kept, by the tenant's name.
pub type Retention = BTreeMap<String, RetentionConfig>;

/// The first of these tenants that has no policy.
pub fn without_policy<'a>(
    retention: &Retention,
    tenants: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    tenants.into_iter().find(|name| !retention.contains_key(*name))
}

/// The times that hold for an erasure, in days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureTerms {
    /// From an erasure to the destruction of every key that may have sealed the card.
    pub destroy_within_days: u32,
    /// For how long a backup of the key store is kept, as the operator declared.
    pub key_backups_kept_days: u32,
}

impl Default for ErasureTerms {
    fn default() -> Self {
        ErasureConfig::default().terms()
    }
}

impl ErasureTerms {
    /// Seconds from the first erasure under a key until another takes over from it, if the month has not ended before: half of the
    /// time, so that a backup of the cards from after the take-over is there long before the key goes.
    pub const fn rotate_after_seconds(self) -> i64 {
        self.within_seconds() / 2
    }

    /// Seconds from the first erasure under a key until it is destroyed.
    pub const fn destroy_after_seconds(self) -> i64 {
        let spare = self.within_seconds() / 4;
        self.within_seconds() - if spare < SPARE_SECONDS_MAX { spare } else { SPARE_SECONDS_MAX }
    }

    /// Seconds from the first erasure under a key by which it is to be destroyed.
    pub const fn within_seconds(self) -> i64 {
        self.destroy_within_days as i64 * DAY_SECONDS
    }

    /// As the event of an erasure says them.
    pub fn words(self) -> Vec<String> {
        vec![
            format!("{DESTROY_WITHIN}{}", self.destroy_within_days),
            format!("{KEY_BACKUPS_KEPT}{}", self.key_backups_kept_days),
        ]
    }

    /// Reads [`words`](Self::words), and nothing else.
    pub fn from_words(words: &[String]) -> Option<Self> {
        let [destroy, kept] = words else { return None };
        let terms = Self {
            destroy_within_days: destroy.strip_prefix(DESTROY_WITHIN)?.parse().ok()?,
            key_backups_kept_days: kept.strip_prefix(KEY_BACKUPS_KEPT)?.parse().ok()?,
        };
        (terms.words() == words).then_some(terms)
    }

    /// Seconds for which a backup of the key store is kept.
    pub const fn kept_seconds(self) -> i64 {
        self.key_backups_kept_days as i64 * DAY_SECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_its_time_within_the_whole() {
        for days in [1, 2, 30, 60, DAYS_MAX] {
            let terms = ErasureTerms { destroy_within_days: days, key_backups_kept_days: 0 };
            let (rotate, destroy) = (terms.rotate_after_seconds(), terms.destroy_after_seconds());
            assert!(0 < rotate && rotate < destroy && destroy < terms.within_seconds(), "{days}");
        }
    }

    #[test]
    fn times_that_say_nothing_are_refused() {
        let faults = |destroy, kept, production| {
            ErasureConfig { destroy_within_days: destroy, key_backups_kept_days: kept }.faults(production)
        };
        assert_eq!(faults(30, None, false), Vec::<String>::new());
        assert_eq!(faults(30, Some(0), true), Vec::<String>::new());
        for (destroy, kept, production, setting) in [
            (0, None, false, "erasure.destroy_within_days:"),
            (DAYS_MAX + 1, None, false, "erasure.destroy_within_days:"),
            (30, Some(99_999), false, "erasure.key_backups_kept_days:"),
            (30, None, true, "erasure.key_backups_kept_days:"),
        ] {
            let faults = faults(destroy, kept, production);
            assert!(faults.len() == 1 && faults[0].starts_with(setting), "{faults:?}");
        }
    }

    #[test]
    fn production_says_how_long_charges_are_kept() {
        let faults = |cards, charges, production| {
            let policy = RetentionConfig { days_after_last_agreement: cards, charges_days: charges };
            policy.faults("acme", production)
        };
        assert_eq!(faults(30, None, false), Vec::<String>::new());
        assert_eq!(faults(30, Some(540), true), Vec::<String>::new());
        for (cards, charges, production, setting) in [
            (0, Some(540), true, "retention.acme.days_after_last_agreement:"),
            (30, None, true, "retention.acme.charges_days: say"),
            (30, Some(0), false, "retention.acme.charges_days: use"),
            (30, Some(RETENTION_DAYS_MAX + 1), true, "retention.acme.charges_days: use"),
        ] {
            let faults = faults(cards, charges, production);
            assert!(faults.len() == 1 && faults[0].starts_with(setting), "{faults:?}");
        }
    }
}
