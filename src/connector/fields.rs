//! `[field]`: where each fact stands in a processor's answer.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use super::document::{Entry, Section, strings};
use super::fault::{Faults, suggest};
use super::leaf::{Known, Map};
use super::path::Path;
use super::tree::Tree;
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
        /// Mastercard's transaction link id.
        TransactionLinkId = "transaction_link_id",
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
        /// The issuer does not take part in the check.
        NotSupported = "not_supported",
    }
}

/// The facts of a connector, or of one of its operations.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(Vec<Field>);

#[derive(Debug, Clone)]
struct Field {
    fact: Fact,
    /// The first that is there counts.
    sources: Vec<Source>,
}

/// One place of a fact, and how it is read there.
#[derive(Debug, Clone, Default)]
pub(super) struct Source {
    /// The first that is there counts; with `join`, all of them.
    paths: Vec<Path>,
    /// Only what stands before this text counts.
    before: Option<Box<str>>,
    /// Only what stands after this text counts.
    after: Option<Box<str>>,
    /// A value without those texts does not count.
    bounded: bool,
    /// All values, with this between them.
    join: Option<Box<str>>,
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
            let field = Field { fact, sources: read_sources(&entry, known, faults) };
            if fact == Fact::AvsZip {
                for source in &field.sources {
                    check_zip_map(source.map, known, &entry.value.span(), faults);
                }
            }
            out.push(field);
        }
        Self(out)
    }

    /// Whether it says where this fact stands.
    pub(super) fn has(&self, fact: Fact) -> bool {
        self.0.iter().any(|field| field.fact == fact)
    }

    /// Where it looks.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().flat_map(|field| &field.sources).flat_map(Source::paths)
    }

    /// Where it looks for these facts.
    pub(super) fn paths_of(&self, facts: [Fact; 2]) -> impl Iterator<Item = &Path> {
        let of = self.0.iter().filter(move |field| facts.contains(&field.fact));
        of.flat_map(|field| &field.sources).flat_map(|source| &source.paths)
    }

    /// The fact in this answer.
    pub(super) fn text(
        &self,
        fact: Fact,
        tree: Tree<'_>,
        (maps, empty): (&[Map], &[Box<str>]),
    ) -> Option<String> {
        let field = self.0.iter().find(|field| field.fact == fact)?;
        field.sources.iter().find_map(|source| source.text(tree, maps, empty))
    }
}

/// Reads a path, a list of paths, a table with them, or a list of all that.
pub(super) fn read_sources(entry: &Entry<'_>, known: &mut Known, faults: &mut Faults<'_>) -> Vec<Source> {
    let sources = match entry.value.get_ref().as_array() {
        Some(list) if list.iter().any(|item| item.get_ref().as_table().is_some()) => {
            list.iter().map(|item| Source::read(entry.key, item, known, faults)).collect()
        }
        Some(_) | None => vec![Source::read(entry.key, entry.value, known, faults)],
    };
    if sources.iter().any(|source| source.paths.is_empty()) {
        let problem = format!("`{}` has no path", entry.key);
        faults.add(&entry.value.span(), problem, "write it like \"error.code\"");
    }
    sources
}

impl Source {
    /// Where it looks.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter()
    }

    /// The table that translates it.
    pub(super) const fn map(&self) -> Option<usize> {
        self.map
    }

    /// Reads a path, a list of paths, or `{ path, before, after, bounded, join, map }`.
    fn read(key: &str, value: &Spanned<DeValue<'_>>, known: &mut Known, faults: &mut Faults<'_>) -> Self {
        let mut out = Self::default();
        let list = match value.get_ref().as_table() {
            None => strings(key, value, faults),
            Some(table) => {
                let mut inner = Section::new(format!("`{key}`"), value.span(), table);
                let list = inner.take("path").map_or(Vec::new(), |e| strings("path", e.value, faults));
                let mut text = |key| inner.string(key, faults).map(|(text, _)| Box::from(text));
                (out.before, out.after, out.join) = (text("before"), text("after"), text("join"));
                out.bounded = inner.flag("bounded", faults);
                out.map =
                    inner.string("map", faults).and_then(|(name, at)| find_map(name, &at, known, faults));
                inner.finish(faults);
                list
            }
        };
        if out.bounded && out.before.is_none() && out.after.is_none() {
            faults.add(
                &value.span(),
                "`bounded` stands without a text",
                "write before = \"…\" or after = \"…\"",
            );
        }
        out.paths = list.iter().filter_map(|(text, at)| Path::read(text, at, faults)).collect();
        out
    }

    pub(super) fn text(&self, tree: Tree<'_>, maps: &[Map], empty: &[Box<str>]) -> Option<String> {
        let is_there = |text: &String| !empty.iter().any(|word| **word == **text);
        let texts = self.paths.iter().filter_map(|path| path.text(tree)).filter(is_there);
        let mut values = texts.filter_map(|text| self.cut(&text));
        let text = match &self.join {
            Some(between) => Some(values.collect::<Vec<_>>().join(between)).filter(|text| !text.is_empty()),
            None => values.next(),
        }?;
        match self.map {
            None => Some(text),
            Some(index) => maps.get(index)?.get(&text).map(str::to_owned),
        }
    }

    /// What stands before and after the texts that bound it; a value without them is whole, or does not count.
    fn cut(&self, text: &str) -> Option<String> {
        let whole = |text| if self.bounded { None } else { Some(text) };
        let text = match &self.before {
            Some(end) => text.split_once(&**end).map(|(text, _)| text).or_else(|| whole(text))?,
            None => text,
        };
        let text = match &self.after {
            Some(start) => text.split_once(&**start).map(|(_, text)| text).or_else(|| whole(text))?,
            None => text,
        };
        let text = text.trim();
        if text.is_empty() { None } else { Some(text.to_owned()) }
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
