//! `[authorization]`: how long an authorization holds, as the processor publishes it.

use std::collections::BTreeMap;

use super::document::{Section, number};
use super::fault::{Faults, suggest};
use crate::card::brand::Brand;

/// What most networks grant where a processor says nothing.
const HOURS_DEFAULT: u32 = 7 * 24;
/// No network lets one hold longer than a month.
const HOURS_MAX: u32 = 31 * 24;

/// How long an authorization holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// In hours.
    pub hours: u32,
    /// In hours, by brand, where the merchant asked for it without the customer.
    pub merchant_hours: BTreeMap<&'static str, u32>,
}

impl Default for Authorization {
    fn default() -> Self {
        Self { hours: HOURS_DEFAULT, merchant_hours: BTreeMap::new() }
    }
}

impl Authorization {
    pub(super) fn read(mut section: Section<'_>, faults: &mut Faults<'_>) -> Self {
        let mut terms = Self::default();
        let check = |hours: u32, at: &std::ops::Range<usize>, faults: &mut Faults<'_>| {
            if !(1..=HOURS_MAX).contains(&hours) {
                faults.add(at, "no authorization holds that long", format!("write 1 to {HOURS_MAX} hours"));
            }
        };
        match section.number("hours", faults) {
            Some((hours, at)) => {
                check(hours, &at, faults);
                terms.hours = hours;
            }
            None => faults.add(&section.at, "[authorization] has no `hours`", "write hours = 168"),
        }
        for entry in section.section("merchant", faults).map_or(Vec::new(), |mut s| s.take_rest()) {
            let brand = Brand::from_name(entry.key);
            if brand == Brand::Unknown {
                let brands = Brand::ALL.iter().map(|brand| brand.name());
                faults.add(&entry.at, format!("`{}` is not a brand", entry.key), suggest(entry.key, brands));
            }
            if let Some(hours) = number(&entry, faults) {
                check(hours, &entry.at, faults);
                terms.merchant_hours.insert(brand.name(), hours);
            }
        }
        section.finish(faults);
        terms
    }
}
