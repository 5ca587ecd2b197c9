//! `[field]`: where each fact stands in a processor's answer.

use std::ops::Range;

use serde_json::Value;

use super::document::{Section, strings};
use super::fault::{Faults, suggest};
use super::leaf::{Known, Map};
use super::path::Path;
use super::words::{Word, words};

words! {
    /// A fact that a connector reads from an answer.
    pub(super) enum Fact {
        /// The processor's answer code.
        Code = "code",
        /// Its words for a person.
        Message = "message",
        /// The processor's id of the transaction.
        TransactionId = "transaction_id",
        /// The card network's id of the transaction.
        NetworkTransactionId = "network_transaction_id",
        /// The address check as the processor says it.
        AvsRaw = "avs_raw",
        /// The result of the zip check, mapped to [`ZipCheck`].
        AvsZip = "avs_zip",
        /// Mastercard's merchant advice code, or the processor's word for it.
        AdviceCode = "advice_code",
        /// What was approved.
        AmountApproved = "amount_approved",
        /// The currency of that amount.
        Currency = "currency",
        /// How long the processor itself took, in milliseconds.
        ProcessorMs = "processor_ms",
    }
}

words! {
    /// What became of the zip check.
    pub enum ZipCheck {
        /// The issuer has this zip.
        Match = "match",
        /// The issuer has another.
        NoMatch = "no_match",
        /// A zip was sent and nobody looked.
        NotChecked = "not_checked",
        /// The issuer cannot check.
        Unavailable = "unavailable",
    }
}

/// The facts of a connector, or of one of its operations.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(Vec<Field>);

#[derive(Debug, Clone)]
struct Field {
    fact: Fact,
    /// The first that is there counts.
    paths: Vec<Path>,
    map: Option<usize>,
}

impl Fields {
    pub(super) fn read(mut section: Section<'_>, known: &mut Known, faults: &mut Faults<'_>) -> Self {
        let mut out = Vec::new();
        for entry in section.take_rest() {
            let Some(fact) = Fact::parse(entry.key) else {
                let problem = format!("`{}` is not a field", entry.key);
                faults.add(&entry.at, problem, suggest(entry.key, Fact::TEXTS.iter().copied()));
                continue;
            };
            let at = entry.value.span();
            let (list, map) = match entry.value.get_ref().as_table() {
                None => (strings(entry.key, entry.value, faults), None),
                Some(table) => {
                    let mut inner = Section::new(format!("`{}`", entry.key), at.clone(), table);
                    let list = inner.take("path").map_or(Vec::new(), |e| strings("path", e.value, faults));
                    let map =
                        inner.string("map", faults).and_then(|(name, at)| find_map(name, &at, known, faults));
                    inner.finish(faults);
                    (list, map)
                }
            };
            if fact == Fact::AvsZip {
                check_zip_map(map, known, &at, faults);
            }
            let paths: Vec<Path> =
                list.iter().filter_map(|(text, at)| Path::read(text, at, faults)).collect();
            if list.is_empty() {
                faults.add(&at, format!("`{}` has no path", entry.key), "write it like \"error.code\"");
            }
            out.push(Field { fact, paths, map });
        }
        Self(out)
    }

    /// Whether it says where this fact stands.
    pub(super) fn has(&self, fact: Fact) -> bool {
        self.0.iter().any(|field| field.fact == fact)
    }

    /// The fact in this answer.
    pub(super) fn text(&self, fact: Fact, json: &Value, maps: &[Map]) -> Option<String> {
        let field = self.0.iter().find(|field| field.fact == fact)?;
        let text = field.paths.iter().find_map(|path| path.text(json))?;
        match field.map {
            None => Some(text),
            Some(index) => maps.get(index)?.get(&text).map(str::to_owned),
        }
    }
}

fn find_map(name: &str, at: &Range<usize>, known: &mut Known, faults: &mut Faults<'_>) -> Option<usize> {
    let found = known.find_map(name);
    if found.is_none() {
        faults.add(at, "there is no such map", format!("write [map.{name}] and its pairs"));
    }
    found
}

fn check_zip_map(map: Option<usize>, known: &Known, at: &Range<usize>, faults: &mut Faults<'_>) {
    let Some(map) = map.and_then(|index| known.maps.get(index)) else {
        faults.add(at, "`avs_zip` has no map", "write avs_zip = { path = \"…\", map = \"NAME\" }");
        return;
    };
    let results = map.pairs.iter().map(|(_, value)| value).chain(map.other.as_ref());
    for wrong in results.filter(|value| ZipCheck::parse(value).is_none()) {
        let problem = format!("[map.{}] gives `{wrong}`, which is not a result of a zip check", map.name);
        faults.add(at, problem, format!("write one of: {}", ZipCheck::TEXTS.join(", ")));
    }
}
