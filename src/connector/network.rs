//! What a card network allows after a decline, as dated data: never again, not before a time, or when something has changed; and how
//! many declines of one card a merchant account may have. All of it stands in `data/networks.toml`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::decline::DeclineClass;
use super::words::{Word, words};
use crate::card::brand::Brand;

words! {
    /// Whether a declined card may be tried again.
    pub enum Retry {
        /// Not this number, under no circumstance.
        Never = "never",
        /// Not before a time.
        After = "after",
        /// Once something has changed.
        When = "when",
    }
}

words! {
    /// What must have changed before a card is tried again.
    pub enum Condition {
        /// The card's data.
        CardUpdate = "card_update",
        /// The cardholder is present.
        Customer = "customer",
    }
}

/// What a rule says of one decline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which rule: a row of the data, in our words.
    pub name: &'static str,
    /// Whether to try again.
    pub retry: Retry,
    /// How long to wait, in seconds; zero unless it says `after`.
    pub after_seconds: i64,
    /// What must change; none unless it says `when`.
    pub condition: Option<Condition>,
    /// Whether it ends the agreement as well: a new one lifts it.
    pub stops_agreement: bool,
}

/// At most so many declines in so many hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Declines that a card may have; the next try is one too many.
    pub declines: usize,
    /// In so many rolling hours.
    pub hours: u32,
}

/// Declines are counted for the longest of the limits, and a day more.
pub const COUNTED_SECONDS: i64 = 31 * 86_400;

const TEXT: &str = include_str!("data/networks.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Networks {
    pub(super) visa: Visa,
    pub(super) mastercard: Mastercard,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Visa {
    pub(super) date: String,
    pub(super) source: String,
    pub(super) category_1: Vec<String>,
    pub(super) category_2: Vec<String>,
    pub(super) category_3: Vec<String>,
    stops_agreement: Vec<String>,
    pub(super) limits: Vec<Limit>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mastercard {
    pub(super) date: String,
    pub(super) source: String,
    pub(super) never: Vec<String>,
    stops_agreement: Vec<String>,
    pub(super) when_card_changes: Vec<String>,
    pub(super) later: Vec<String>,
    pub(super) after_hours: BTreeMap<String, u32>,
    pub(super) information: Vec<String>,
    pub(super) limits: Vec<Limit>,
}

/// `None` never happens: a test reads the same text.
static NETWORKS: LazyLock<Option<Networks>> = LazyLock::new(|| read().ok());

fn read() -> Result<Networks, toml::de::Error> {
    toml::from_str(TEXT)
}

/// The tables.
pub(super) fn networks() -> Option<&'static Networks> {
    NETWORKS.as_ref()
}

/// What a processor said of a decline, as far as the networks' rules go by it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said<'a> {
    /// The network's response code; none where the processor's codes are its own.
    pub network_code: Option<&'a str>,
    /// The merchant advice code.
    pub advice: Option<&'a str>,
    /// The decline class, which the connector's table gives.
    pub class: Option<&'a str>,
}

/// The strictest rule that a decline falls under; none where nothing but the schedule and the limits bound another try.
pub fn rule(brand: Brand, said: Said<'_>) -> Option<Rule> {
    let rules = [
        by_advice(said.advice),
        by_category(said.network_code.filter(|_| brand == Brand::Visa)),
        by_class(said.class),
    ];
    rules.into_iter().flatten().max_by_key(strictness)
}

/// `never` before `when` before `after`; of two that wait, the longer.
const fn strictness(rule: &Rule) -> (u8, bool, i64) {
    let kind = match rule.retry {
        Retry::Never => 2,
        Retry::When => 1,
        Retry::After => 0,
    };
    (kind, rule.stops_agreement, rule.after_seconds)
}

const NEVER: Rule = Rule {
    name: "decline_class_hard",
    retry: Retry::Never,
    after_seconds: 0,
    condition: None,
    stops_agreement: false,
};

const fn when(name: &'static str, condition: Condition) -> Rule {
    Rule { name, retry: Retry::When, condition: Some(condition), ..NEVER }
}

/// Mastercard's advice, whatever the brand: a processor that passes one on means it.
fn by_advice(advice: Option<&str>) -> Option<Rule> {
    let (advice, tables) = (advice?, &networks()?.mastercard);
    if holds(&tables.never, advice) {
        let stops_agreement = holds(&tables.stops_agreement, advice);
        return Some(Rule { name: "mastercard_advice_never", stops_agreement, ..NEVER });
    }
    if holds(&tables.when_card_changes, advice) {
        return Some(when("mastercard_advice_new_account", Condition::CardUpdate));
    }
    let after_seconds = i64::from(*tables.after_hours.get(advice)?).saturating_mul(3_600);
    Some(Rule { name: "mastercard_advice_after", retry: Retry::After, after_seconds, ..NEVER })
}

fn by_category(code: Option<&str>) -> Option<Rule> {
    let (code, tables) = (code?, &networks()?.visa);
    let stops_agreement = holds(&tables.stops_agreement, code);
    holds(&tables.category_1, code).then_some(Rule { name: "visa_category_1", stops_agreement, ..NEVER })
}

fn by_class(class: Option<&str>) -> Option<Rule> {
    match DeclineClass::parse(class?)? {
        DeclineClass::Hard => Some(NEVER),
        DeclineClass::FixData => Some(when("decline_class_fix_data", Condition::CardUpdate)),
        DeclineClass::AuthRequired => Some(when("decline_class_auth_required", Condition::Customer)),
        DeclineClass::Soft | DeclineClass::Generic | DeclineClass::Risk | DeclineClass::Error => None,
    }
}

/// Whether a decline ends the agreement: Visa R1 and R3, as codes of the network, and Mastercard advice 03 and 21.
pub fn stops_agreement(code: Option<&str>, advice: Option<&str>) -> bool {
    networks().is_some_and(|tables| {
        code.is_some_and(|code| holds(&tables.visa.stops_agreement, code))
            || advice.is_some_and(|advice| holds(&tables.mastercard.stops_agreement, advice))
    })
}

/// The limits of a brand; none where its network publishes none.
pub fn limits(brand: Brand) -> &'static [Limit] {
    let Some(tables) = networks() else { return &[] };
    match brand {
        Brand::Visa => &tables.visa.limits,
        Brand::Mastercard | Brand::Maestro => &tables.mastercard.limits,
        Brand::Amex
        | Brand::Diners
        | Brand::Discover
        | Brand::Jcb
        | Brand::Mir
        | Brand::Unionpay
        | Brand::Unknown => &[],
    }
}

fn holds(list: &[String], code: &str) -> bool {
    list.iter().any(|known| known == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(brand: Brand, code: &str, advice: &str, class: &str) -> Option<(Retry, i64)> {
        let some = |text| Some(text).filter(|text: &&str| !text.is_empty());
        let said = Said { network_code: some(code), advice: some(advice), class: some(class) };
        rule(brand, said).map(|rule| (rule.retry, rule.after_seconds))
    }

    #[test]
    fn the_tables_are_whole_and_dated() {
        let tables = read().unwrap();
        for date in [&tables.visa.date, &tables.mastercard.date] {
            assert!(date.parse::<jiff::civil::Date>().is_ok());
        }
        assert_eq!(tables.visa.limits, [Limit { declines: 21, hours: 720 }]);
        assert_eq!(
            tables.mastercard.limits,
            [Limit { declines: 10, hours: 24 }, Limit { declines: 35, hours: 720 }]
        );
        let all = tables.visa.limits.iter().chain(&tables.mastercard.limits);
        assert!(all.map(|limit| i64::from(limit.hours) * 3_600).max().unwrap() < COUNTED_SECONDS);
    }

    #[test]
    fn each_code_says_what_the_networks_say() {
        for code in ["04", "07", "12", "14", "15", "41", "43", "46", "57", "R0", "R1", "R3"] {
            assert_eq!(of(Brand::Visa, code, "", "generic"), Some((Retry::Never, 0)), "{code}");
            assert_eq!(of(Brand::Amex, code, "", "generic"), None, "{code} is Visa's");
        }
        for (advice, hours) in [("24", 1), ("25", 24), ("26", 48), ("27", 96), ("28", 144), ("30", 240)] {
            let after = Some((Retry::After, hours * 3_600));
            assert_eq!(of(Brand::Mastercard, "", advice, "soft"), after, "{advice}");
        }
        for advice in ["03", "21"] {
            assert_eq!(of(Brand::Mastercard, "", advice, "soft"), Some((Retry::Never, 0)));
            assert!(stops_agreement(None, Some(advice)));
        }
        assert!(stops_agreement(Some("R1"), None) && stops_agreement(Some("R3"), None));
        assert!(!stops_agreement(Some("R0"), Some("02")));
        assert_eq!(of(Brand::Visa, "51", "02", "soft"), None);
        assert_eq!(of(Brand::Visa, "", "", "auth_required"), Some((Retry::When, 0)));
    }

    #[test]
    fn where_lists_disagree_the_stricter_wins() {
        assert_eq!(of(Brand::Visa, "14", "", "fix_data"), Some((Retry::Never, 0)));
        assert_eq!(of(Brand::Visa, "", "24", "hard"), Some((Retry::Never, 0)));
        assert_eq!(of(Brand::Visa, "", "24", "fix_data"), Some((Retry::When, 0)));
        assert_eq!(of(Brand::Visa, "R1", "", "hard"), Some((Retry::Never, 0)));
        let said = Said { network_code: Some("R1"), class: Some("hard"), ..Said::default() };
        assert!(rule(Brand::Visa, said).unwrap().stops_agreement, "a new agreement lifts it");
    }
}
