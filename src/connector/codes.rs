//! The one table of codes, made from the dated data: what each says of a decline, and whether the card may be tried again.

use super::network::{self, Limit, Retry, Rule, Said};
use super::words::Word;
use super::{builtin, builtin_names, decline};
use crate::card::brand::Brand;

/// One code of one list.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CodeLine {
    /// Whose code: `visa`, `mastercard_advice`, `iso8583`, or a connector's name.
    pub list: String,
    /// The code.
    pub code: String,
    /// What it means for the next attempt: a decline class, or the network's category.
    pub class: String,
    /// `never`, `after 24 h`, `when card_update`, … ; empty where the schedule alone decides.
    pub retry: String,
    /// As of when the list stands.
    pub date: String,
    /// Where it is from.
    pub source: String,
}

/// Every code there is: the networks' rules, the shared tables, the connectors that come with the program.
pub fn all() -> Vec<CodeLine> {
    let mut out = of_networks();
    for (name, table) in decline::shared() {
        out.extend(of_table(name, table, name == "mastercard_advice"));
    }
    for name in builtin_names() {
        if let Some(connector) = builtin(name) {
            out.extend(of_table(name, &connector.declines, false));
        }
    }
    out
}

fn of_table(name: &str, table: &decline::DeclineTable, advice: bool) -> Vec<CodeLine> {
    let (date, source) = table.evidence();
    let line = |(code, class): (&str, decline::DeclineClass)| {
        let said =
            Said { advice: Some(code).filter(|_| advice), class: Some(class.text()), ..Said::default() };
        CodeLine {
            list: name.to_owned(),
            code: code.to_owned(),
            class: class.text().to_owned(),
            retry: network::rule(Brand::Unknown, said).map(says).unwrap_or_default(),
            date: date.to_owned(),
            source: source.to_owned(),
        }
    };
    table.codes().map(line).collect()
}

fn of_networks() -> Vec<CodeLine> {
    let Some(tables) = network::networks() else { return Vec::new() };
    let (visa, mastercard) = (&tables.visa, &tables.mastercard);
    let line = |list: &str, code: &str, class: String, retry: String, of: (&str, &str)| CodeLine {
        list: list.to_owned(),
        code: code.to_owned(),
        class,
        retry,
        date: of.0.to_owned(),
        source: of.1.to_owned(),
    };
    let of_visa = (visa.date.as_str(), visa.source.as_str());
    let mut out = Vec::new();
    for (category, codes) in [(1, &visa.category_1), (2, &visa.category_2), (3, &visa.category_3)] {
        for code in codes {
            let said = Said { network_code: Some(code), ..Said::default() };
            let retry = network::rule(Brand::Visa, said).map(says).unwrap_or_default();
            out.push(line("visa", code, format!("category_{category}"), retry, of_visa));
        }
    }
    out.extend(
        visa.limits.iter().map(|limit| line("visa", "(any)", "limit".to_owned(), most(limit), of_visa)),
    );
    let of_mastercard = (mastercard.date.as_str(), mastercard.source.as_str());
    let plain = mastercard.later.iter().map(|code| (code, "later"));
    for (code, class) in plain.chain(mastercard.information.iter().map(|code| (code, "information"))) {
        out.push(line("mastercard", code, class.to_owned(), String::new(), of_mastercard));
    }
    let limits = mastercard.limits.iter();
    out.extend(
        limits.map(|limit| line("mastercard", "(any)", "limit".to_owned(), most(limit), of_mastercard)),
    );
    out
}

fn most(limit: &Limit) -> String {
    format!("not after {} declines in {} h", limit.declines, limit.hours)
}

fn says(rule: Rule) -> String {
    match (rule.retry, rule.condition) {
        (Retry::Never, _) if rule.stops_agreement => "never; ends the agreement".to_owned(),
        (Retry::Never, _) => "never".to_owned(),
        (Retry::After, _) => format!("after {} h", rule.after_seconds / 3_600),
        (Retry::When, Some(condition)) => format!("when {}", condition.text()),
        (Retry::When, None) => "when something changed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_is_in_the_table_and_dated() {
        let all = all();
        let says = |list: &str, code: &str| {
            let line = all.iter().find(|line| line.list == list && line.code == code);
            line.map(|line| (line.class.as_str(), line.retry.as_str()))
        };
        assert_eq!(says("visa", "R1"), Some(("category_1", "never; ends the agreement")));
        assert_eq!(says("visa", "51"), Some(("category_2", "")));
        assert_eq!(says("mastercard_advice", "25"), Some(("soft", "after 24 h")));
        assert_eq!(says("mastercard_advice", "03"), Some(("hard", "never; ends the agreement")));
        assert_eq!(says("iso8583", "54"), Some(("fix_data", "when card_update")));
        assert_eq!(says("stripe", "lost_card"), Some(("hard", "never")));
        assert!(
            all.iter().all(|line| line.date.parse::<jiff::civil::Date>().is_ok() && !line.source.is_empty())
        );
    }
}
