//! Why a card was declined, in seven classes, as dated data: a table in the connector, over one that all share.

use std::ops::Range;
use std::sync::LazyLock;

use toml::de::DeTable;

use super::document::{Section, TOP, strings};
use super::fault::Faults;
use super::words::{Word, words};

words! {
    /// What a decline means for the next attempt.
    pub enum DeclineClass {
        /// Never again with this card.
        Hard = "hard",
        /// After the card's data has changed.
        FixData = "fix_data",
        /// With the cardholder present.
        AuthRequired = "auth_required",
        /// On a schedule.
        Soft = "soft",
        /// On a schedule, few times: the issuer gives no reason.
        Generic = "generic",
        /// Never automatically.
        Risk = "risk",
        /// Not a decline: configuration, validation, a fault.
        Error = "error",
    }
}

/// Codes and their classes.
#[derive(Debug, Clone, Default)]
pub(super) struct DeclineTable {
    codes: Vec<(Box<str>, DeclineClass)>,
    /// The shared table that fills the rest, and the date and source of the list.
    shared: Option<&'static str>,
    date: Box<str>,
    source: Box<str>,
}

const SHARED_TEXT: &str = include_str!("data/declines.toml");

/// The shared tables, by name.
static SHARED: LazyLock<Vec<(String, DeclineTable)>> = LazyLock::new(|| read_shared().unwrap_or_default());

/// The shared table of Mastercard's merchant advice codes.
const ADVICE: &str = "mastercard_advice";
/// The shared table of response codes as the networks send them.
const ISO: &str = "iso8583";

fn read_shared() -> Result<Vec<(String, DeclineTable)>, Vec<super::fault::Fault>> {
    let mut faults = Faults::new("declines.toml", SHARED_TEXT);
    let (table, _) = DeTable::parse_recoverable(SHARED_TEXT);
    let mut top = Section::new(TOP, table.span(), table.get_ref());
    let mut out = Vec::new();
    for entry in top.take_rest() {
        if let Some(section) = super::document::section(format!("[{}]", entry.key), &entry, &mut faults) {
            out.push((entry.key.to_owned(), DeclineTable::read(section, &mut faults)));
        }
    }
    if faults.is_empty() { Ok(out) } else { Err(faults.into_sorted()) }
}

impl DeclineTable {
    /// Reads `[decline]`: for each class a list of codes, with the date and source of the list, and the shared table
    /// that fills the rest.
    pub(super) fn read(mut section: Section<'_>, faults: &mut Faults<'_>) -> Self {
        let (date, at) = section.required("date", faults);
        check_date(date, &at, faults);
        let (source, _) = section.required("source", faults);
        let mut out = Self { date: date.into(), source: source.into(), ..Self::default() };
        for class in DeclineClass::ALL {
            let Some(entry) = section.take(class.text()) else { continue };
            for (code, at) in strings(class.text(), entry.value, faults) {
                if out.get(code).is_some() {
                    faults.add(&at, format!("the code `{code}` stands in two classes"), "leave it in one");
                }
                out.codes.push((code.into(), *class));
            }
        }
        if let Some((name, at)) = section.string("table", faults) {
            match SHARED.iter().find(|(known, _)| known == name) {
                Some((name, shared)) => {
                    let more: Vec<_> =
                        shared.codes.iter().filter(|(code, _)| out.get(code).is_none()).cloned().collect();
                    out.codes.extend(more);
                    out.shared = Some(name);
                }
                None => faults.add(&at, "there is no such shared table", "write table = \"iso8583\""),
            }
        }
        section.finish(faults);
        out
    }

    /// How many codes each class has; none for a class without.
    pub(super) fn counts(&self) -> impl Iterator<Item = (DeclineClass, usize)> + '_ {
        let count = |class: &DeclineClass| self.codes.iter().filter(|(_, of)| of == class).count();
        DeclineClass::ALL.iter().map(move |class| (*class, count(class))).filter(|(_, count)| *count > 0)
    }

    pub(super) fn get(&self, code: &str) -> Option<DeclineClass> {
        self.codes.iter().find(|(known, _)| **known == *code).map(|(_, class)| *class)
    }

    /// Whether the codes are those that the network sends, and not the processor's own words or numbers.
    pub(super) fn is_of_the_network(&self) -> bool {
        self.shared == Some(ISO)
    }

    /// Every code with its class, in the order of the file.
    pub(super) fn codes(&self) -> impl Iterator<Item = (&str, DeclineClass)> {
        self.codes.iter().map(|(code, class)| (&**code, *class))
    }

    /// As of when the list stands, and where it is from.
    pub(super) fn evidence(&self) -> (&str, &str) {
        (&self.date, &self.source)
    }

    /// The class of a decline; where code and the network's advice disagree, the stricter wins.
    pub(super) fn classify(&self, code: Option<&str>, advice: Option<&str>) -> DeclineClass {
        let advised = advice.and_then(|advice| self.advice(advice));
        if advised == Some(DeclineClass::Hard) {
            return DeclineClass::Hard;
        }
        code.and_then(|code| self.get(code)).or(advised).unwrap_or(DeclineClass::Generic)
    }

    fn advice(&self, advice: &str) -> Option<DeclineClass> {
        SHARED
            .iter()
            .find(|(name, _)| name == ADVICE)
            .and_then(|(_, table)| table.get(advice))
            .or(self.get(advice))
    }
}

/// The tables that connectors share, by name.
pub(super) fn shared() -> impl Iterator<Item = (&'static str, &'static DeclineTable)> {
    SHARED.iter().map(|(name, table)| (name.as_str(), table))
}

/// A date of a list must be one.
pub(super) fn check_date(text: &str, at: &Range<usize>, faults: &mut Faults<'_>) {
    if !text.is_empty() && text.parse::<jiff::civil::Date>().is_err() {
        faults.add(at, "`date` is not a date", "write it like 2026-11-22, in quotes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shared_tables_are_whole() {
        let shared = read_shared().unwrap();
        let names: Vec<&str> = shared.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [ISO, ADVICE]);
        assert_eq!(shared[0].1.get("R1"), Some(DeclineClass::Hard));
        assert_eq!(shared[0].1.get("51"), Some(DeclineClass::Soft));
        assert_eq!(shared[1].1.get("21"), Some(DeclineClass::Hard));
    }

    #[test]
    fn the_stricter_of_code_and_advice_wins() {
        let codes = vec![("51".into(), DeclineClass::Soft), ("04".into(), DeclineClass::Hard)];
        let table = DeclineTable { codes, ..DeclineTable::default() };
        assert_eq!(table.classify(Some("51"), None), DeclineClass::Soft);
        assert_eq!(table.classify(Some("51"), Some("03")), DeclineClass::Hard);
        assert_eq!(table.classify(Some("04"), Some("02")), DeclineClass::Hard);
        assert_eq!(table.classify(Some("never seen"), Some("01")), DeclineClass::FixData);
        assert_eq!(table.classify(Some("never seen"), None), DeclineClass::Generic);
    }
}
