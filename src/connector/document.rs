//! A TOML document with places: sections that hand out their keys one by one and then report what nobody asked for.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Faults, suggest};

/// One key of a section, with its value and where it stands.
pub(super) struct Entry<'a> {
    pub(super) key: &'a str,
    pub(super) at: Range<usize>,
    pub(super) value: &'a Spanned<DeValue<'a>>,
}

/// One TOML table, its keys in the order of the file.
pub(super) struct Section<'a> {
    /// As an author writes it: `[op.sale]`, or `the file` for the top.
    pub(super) title: String,
    pub(super) at: Range<usize>,
    entries: Vec<Entry<'a>>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn new(title: impl Into<String>, at: Range<usize>, table: &'a DeTable<'a>) -> Self {
        Self { title: title.into(), at, entries: entries(table), known: Vec::new() }
    }

    /// The value of a key, whatever it is, taken out of what is left.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Entry<'a>> {
        self.known.push(key);
        let index = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(index))
    }

    /// What no one has taken yet, in the order of the file.
    pub(super) fn take_rest(&mut self) -> Vec<Entry<'a>> {
        std::mem::take(&mut self.entries)
    }

    pub(super) fn string(
        &mut self,
        key: &'static str,
        faults: &mut Faults<'_>,
    ) -> Option<(&'a str, Range<usize>)> {
        let entry = self.take(key)?;
        let text = string(&entry, faults)?;
        Some((text, entry.value.span()))
    }

    /// A string that must be there.
    pub(super) fn required(&mut self, key: &'static str, faults: &mut Faults<'_>) -> (&'a str, Range<usize>) {
        if !self.entries.iter().any(|entry| entry.key == key) {
            self.known.push(key);
            faults.add(&self.at, format!("{} has no `{key}`", self.title), format!("write {key} = \"…\""));
            return ("", self.at.clone());
        }
        self.string(key, faults).unwrap_or(("", self.at.clone()))
    }

    pub(super) fn number(
        &mut self,
        key: &'static str,
        faults: &mut Faults<'_>,
    ) -> Option<(u32, Range<usize>)> {
        let entry = self.take(key)?;
        number(&entry, faults).map(|n| (n, entry.value.span()))
    }

    pub(super) fn flag(&mut self, key: &'static str, faults: &mut Faults<'_>) -> bool {
        let Some(entry) = self.take(key) else { return false };
        entry.value.get_ref().as_bool().unwrap_or_else(|| {
            faults.add(
                &entry.value.span(),
                format!("`{key}` is not true or false"),
                format!("write {key} = true"),
            );
            false
        })
    }

    pub(super) fn section(&mut self, key: &'static str, faults: &mut Faults<'_>) -> Option<Section<'a>> {
        let title =
            if self.title == TOP { format!("[{key}]") } else { self.title.replace(']', &format!(".{key}]")) };
        let entry = self.take(key)?;
        section(title, &entry, faults)
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self, faults: &mut Faults<'_>) {
        for entry in &self.entries {
            let problem = format!("`{}` is not known in {}", entry.key, self.title);
            faults.add(&entry.at, problem, suggest(entry.key, self.known.iter().copied()));
        }
    }
}

/// The title of the outermost section.
pub(super) const TOP: &str = "the file";

/// A table's entries in the order of the file: the parser keeps them by name.
pub(super) fn entries<'a>(table: &'a DeTable<'a>) -> Vec<Entry<'a>> {
    let mut all: Vec<Entry<'a>> =
        table.iter().map(|(key, value)| Entry { key: key.get_ref(), at: key.span(), value }).collect();
    all.sort_by_key(|entry| entry.at.start);
    all
}

/// The value as a section of its own.
pub(super) fn section<'a>(title: String, entry: &Entry<'a>, faults: &mut Faults<'_>) -> Option<Section<'a>> {
    let Some(table) = entry.value.get_ref().as_table() else {
        faults.add(
            &entry.at,
            format!("`{}` is not a table", entry.key),
            format!("write {title} and its keys below"),
        );
        return None;
    };
    Some(Section::new(title, entry.at.clone(), table))
}

pub(super) fn string<'a>(entry: &Entry<'a>, faults: &mut Faults<'_>) -> Option<&'a str> {
    let text = entry.value.get_ref().as_str();
    if text.is_none() {
        let problem = format!("`{}` is not a string", entry.key);
        faults.add(&entry.value.span(), problem, format!("write {} = \"…\"", entry.key));
    }
    text
}

pub(super) fn number(entry: &Entry<'_>, faults: &mut Faults<'_>) -> Option<u32> {
    let integer = entry.value.get_ref().as_integer();
    let number = integer.and_then(|i| u32::from_str_radix(&i.as_str().replace('_', ""), i.radix()).ok());
    if number.is_none() {
        let problem = format!("`{}` is not a whole number from 0 to {}", entry.key, u32::MAX);
        faults.add(&entry.value.span(), problem, format!("write {} = 60", entry.key));
    }
    number
}

/// A string, or a list of strings, with the place of each.
pub(super) fn strings<'a>(
    key: &str,
    value: &'a Spanned<DeValue<'a>>,
    faults: &mut Faults<'_>,
) -> Vec<(&'a str, Range<usize>)> {
    if let Some(text) = value.get_ref().as_str() {
        return vec![(text, value.span())];
    }
    let Some(list) = value.get_ref().as_array() else {
        faults.add(
            &value.span(),
            format!("`{key}` is not a string or a list of strings"),
            format!("write {key} = [\"…\"]"),
        );
        return Vec::new();
    };
    let mut out = Vec::new();
    for item in list.iter() {
        match item.get_ref().as_str() {
            Some(text) => out.push((text, item.span())),
            None => faults.add(
                &item.span(),
                format!("`{key}` holds something that is not a string"),
                "put it in quotes",
            ),
        }
    }
    out
}
