//! Conditions: whether a leaf, an object or a pair is there, by what is known of the request. No expressions.

use std::ops::Range;

use super::fault::{Faults, suggest};
use super::leaf::Known;
use super::names::{GROUPS, Group, Kind, NAMES, Name, Secret};
use super::render::{RenderError, Scope};

/// When a leaf, object or pair is there: every term holds.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    terms: Vec<Term>,
}

#[derive(Debug, Clone)]
struct Term {
    subject: Subject,
    negated: bool,
    /// Empty: it is there (a flag: it is true).
    one_of: Vec<Box<str>>,
}

#[derive(Debug, Clone, Copy)]
enum Subject {
    Name(Name),
    Group(Group),
}

impl Condition {
    /// Reads `path`, `!path`, `path=a,b`, joined by `&`.
    pub(super) fn read(text: &str, at: &Range<usize>, known: &mut Known, faults: &mut Faults<'_>) -> Self {
        let terms = text.split('&').filter_map(|term| Term::read(term.trim(), at, known, faults)).collect();
        Self { terms }
    }

    /// The names that it asks about; groups apart.
    pub(super) fn names(&self) -> impl Iterator<Item = Name> + '_ {
        self.terms.iter().filter_map(|term| match term.subject {
            Subject::Name(name) => Some(name),
            Subject::Group(_) => None,
        })
    }

    pub(super) fn holds(&self, scope: &Scope<'_>) -> Result<bool, RenderError> {
        for term in &self.terms {
            if term.holds(scope)? == term.negated {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Term {
    fn read(text: &str, at: &Range<usize>, known: &mut Known, faults: &mut Faults<'_>) -> Option<Self> {
        let (negated, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let (spelling, list) = text.split_once('=').map_or((text, None), |(s, list)| (s, Some(list)));
        let spelling = spelling.trim();
        let one_of: Vec<Box<str>> =
            list.map_or(Vec::new(), |l| l.split(',').map(|v| v.trim().into()).collect());
        if let Some((_, group)) = GROUPS.iter().find(|(known, _)| *known == spelling) {
            if list.is_some() {
                faults.add(
                    at,
                    format!("`{spelling}` is a group and has no value"),
                    "compare one of its fields",
                );
            }
            return Some(Self { subject: Subject::Group(*group), negated, one_of });
        }
        let Some(name) = known.find_name(spelling) else {
            let names = NAMES.iter().map(|(text, ..)| *text).chain(GROUPS.iter().map(|(text, _)| *text));
            faults.add(
                at,
                format!("a condition asks for `{spelling}`, which is not a name"),
                suggest(spelling, names),
            );
            return None;
        };
        known.mark_used(name);
        let is_closed = name == Name::Secret(Secret::CardNumber) || name.is_of_this_send();
        if is_closed || (name.is_secret() && list.is_some()) {
            faults.add(at, format!("a condition may not test `{spelling}`"), "test another name");
        }
        if let Kind::OneOf(words) = name.kind() {
            for word in one_of.iter().filter(|word| !words.contains(&&***word)) {
                let problem = format!("`{spelling}` is never `{word}`");
                faults.add(at, problem, format!("write one of: {}", words.join(", ")));
            }
        }
        Some(Self { subject: Subject::Name(name), negated, one_of })
    }

    fn holds(&self, scope: &Scope<'_>) -> Result<bool, RenderError> {
        let name = match self.subject {
            Subject::Group(group) => return Ok(scope.values.has(group)),
            Subject::Name(name) => name,
        };
        if name.is_secret() {
            return scope.has(name);
        }
        let Some(text) = scope.text(name, false)? else { return Ok(false) };
        if !self.one_of.is_empty() {
            return Ok(self.one_of.iter().any(|word| **word == *text));
        }
        Ok(name.kind() != Kind::Flag || text == "true")
    }
}
