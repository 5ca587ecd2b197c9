//! `[card_update]`: what an account updater says of the card itself, in the answer of a charge.
//!
//! A new number is the one value of an answer that goes on whole and is no processor's word: it is for the vault alone, so that its
//! type shows none of it, whoever prints or writes a [`Mapped`](super::Mapped).

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use toml::Spanned;
use toml::de::DeValue;
use zeroize::Zeroizing;

use super::document::{Entry, Section};
use super::fault::Faults;
use super::fields::{Source, read_sources};
use super::leaf::{Known, Map};
use super::path::Path;
use super::tree::Tree;
use super::words::{Word, words};

/// More than any number or expiry has.
const TEXT_BYTES_MAX: usize = 64;

words! {
    /// What an account updater says of a card.
    pub enum UpdateKind {
        /// It has another number.
        Updated = "updated",
        /// It has another expiry.
        Expiry = "expiry",
        /// The account is closed.
        Closed = "closed",
        /// Only the cardholder knows.
        Contact = "contact",
    }
}

/// What an answer says of the card itself. Written, it says whether there is a number and an expiry, never which.
#[derive(Clone, PartialEq)]
pub struct CardUpdate {
    /// What it says.
    pub kind: UpdateKind,
    /// The new number as it stands there, without blanks and dashes; not checked.
    pub number: Option<Zeroizing<String>>,
    /// Month and year of the new expiry as they stand there; not checked.
    pub expiry: Option<(u16, u16)>,
}

impl Serialize for CardUpdate {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut told = to.serialize_struct("CardUpdate", 3)?;
        told.serialize_field("kind", &self.kind)?;
        told.serialize_field("number", &self.number.is_some())?;
        told.serialize_field("expiry", &self.expiry.is_some())?;
        told.end()
    }
}

impl std::fmt::Debug for CardUpdate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CardUpdate").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Where an answer says it.
#[derive(Debug, Clone, Default)]
pub(super) struct Updates {
    kind: Vec<Source>,
    number: Vec<Source>,
    expiry: Expiry,
}

/// How an expiry stands there.
#[derive(Debug, Clone, Default)]
enum Expiry {
    /// It does not.
    #[default]
    None,
    /// Month and year in one text.
    Whole(Vec<Source>, Form),
    /// Month and year apart.
    Apart(Vec<Source>, Vec<Source>),
}

/// How month and year are written in one text.
#[derive(Debug, Clone, Default)]
struct Form(Vec<Piece>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// Two digits; one where no digit follows.
    Month,
    /// So many digits.
    Year(usize),
    /// Two digits that do not matter.
    Day,
    /// Itself.
    Exact(char),
}

impl Updates {
    pub(super) fn read(mut section: Section<'_>, known: &mut Known, faults: &mut Faults<'_>) -> Self {
        let kind = take(&mut section, "kind", known, faults);
        if let Some((sources, value)) = &kind {
            check_kinds(sources, value, known, faults);
        }
        let number = take(&mut section, "number", known, faults);
        let month = take(&mut section, "exp_month", known, faults);
        let year = take(&mut section, "exp_year", known, faults);
        let whole = take(&mut section, "expiry", known, faults);
        let form = section.string("expiry_form", faults);
        let at = section.at.clone();
        let expiry = match (whole, form, month, year) {
            (None, None, None, None) => Expiry::None,
            (Some((whole, _)), Some((form, at)), None, None) => {
                Expiry::Whole(whole, Form::read(form, &at, faults))
            }
            (None, None, Some((month, _)), Some((year, _))) => Expiry::Apart(month, year),
            (Some((_, value)), None, None, None) => {
                let instead =
                    "write expiry_form = \"MM/YY\", \"MMYY\", \"YYYY-MM\" or as it is written there";
                faults.add(&value.span(), "`expiry` has no `expiry_form`", instead);
                Expiry::None
            }
            (_, _, _, _) => {
                let instead = "write `expiry` and `expiry_form`, or `exp_month` and `exp_year`";
                faults.add(&at, "[card_update] does not say where both month and year stand", instead);
                Expiry::None
            }
        };
        let sources = |part: Option<(Vec<Source>, _)>| part.map_or(Vec::new(), |(sources, _)| sources);
        let out = Self { kind: sources(kind), number: sources(number), expiry };
        if out.is_empty() && faults.is_empty() {
            let instead = "write number = \"…\", expiry = \"…\" or kind = { path = \"…\", map = \"NAME\" }";
            faults.add(&at, "[card_update] says nothing", instead);
        }
        section.finish(faults);
        out
    }

    /// Whether the connector says nothing of updates.
    pub(super) fn is_empty(&self) -> bool {
        self.kind.is_empty() && self.number.is_empty() && matches!(self.expiry, Expiry::None)
    }

    /// What it looks for, in our words.
    pub(super) fn explain(&self) -> Vec<String> {
        let parts = [
            (!self.kind.is_empty(), "what the updater says (updated, expiry, closed, contact)"),
            (!self.number.is_empty(), "a new number, which goes into the vault and nowhere else"),
            (!matches!(self.expiry, Expiry::None), "a new expiry"),
        ];
        parts.into_iter().filter(|(is_there, _)| *is_there).map(|(_, text)| text.to_owned()).collect()
    }

    /// Where it looks.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let (one, other): (&[Source], &[Source]) = match &self.expiry {
            Expiry::None => (&[], &[]),
            Expiry::Whole(whole, _) => (whole, &[]),
            Expiry::Apart(month, year) => (month, year),
        };
        let all = self.kind.iter().chain(&self.number).chain(one).chain(other);
        all.flat_map(Source::paths)
    }

    /// What an answer says; nothing where it does not say what has changed. Where `kind` is declared, it alone says that something has:
    /// processors that repeat the card in each answer do so without a word of the updater.
    pub(super) fn find(&self, tree: Tree<'_>, (maps, empty): (&[Map], &[Box<str>])) -> Option<CardUpdate> {
        if self.is_empty() {
            return None;
        }
        let text = |sources: &[Source]| sources.iter().find_map(|source| source.text(tree, maps, empty));
        let number = text(&self.number).and_then(only_digits);
        let expiry = match &self.expiry {
            Expiry::None => None,
            Expiry::Whole(whole, form) => text(whole).and_then(|text| form.find(&text)),
            Expiry::Apart(month, year) => digits(text(month)).zip(digits(text(year))),
        };
        let kind = if self.kind.is_empty() {
            let by_value = if number.is_some() { UpdateKind::Updated } else { UpdateKind::Expiry };
            (number.is_some() || expiry.is_some()).then_some(by_value)?
        } else {
            UpdateKind::parse(&text(&self.kind)?)?
        };
        Some(CardUpdate { kind, number, expiry })
    }
}

/// The sources of a key, and its value.
fn take<'a>(
    section: &mut Section<'a>,
    key: &'static str,
    known: &mut Known,
    faults: &mut Faults<'_>,
) -> Option<(Vec<Source>, &'a Spanned<DeValue<'a>>)> {
    let entry: Entry<'a> = section.take(key)?;
    Some((read_sources(&entry, known, faults), entry.value))
}

/// The word must be one of ours, whatever the processor's is.
fn check_kinds(sources: &[Source], value: &Spanned<DeValue<'_>>, known: &Known, faults: &mut Faults<'_>) {
    for source in sources {
        let Some(map) = source.map().and_then(|index| known.maps.get(index)) else {
            faults.add(&value.span(), "`kind` has no map", "write kind = { path = \"…\", map = \"NAME\" }");
            return;
        };
        let results = map.pairs.iter().map(|(_, value)| value).chain(map.other.as_ref());
        for wrong in results.filter(|value| UpdateKind::parse(value).is_none()) {
            let problem =
                format!("[map.{}] gives `{wrong}`, which an account updater does not say", map.name);
            let instead =
                format!("write one of: {}; leave out what changes nothing", UpdateKind::TEXTS.join(", "));
            faults.add(&value.span(), problem, instead);
        }
    }
}

/// A number as people group it; what holds anything else is given on as it is, and is none.
fn only_digits(text: String) -> Option<Zeroizing<String>> {
    let text = Zeroizing::new(text);
    let digits: Zeroizing<String> =
        Zeroizing::new(text.chars().filter(|c| !matches!(c, ' ' | '-')).take(TEXT_BYTES_MAX).collect());
    (!digits.is_empty()).then_some(digits)
}

fn digits(text: Option<String>) -> Option<u16> {
    text?.parse().ok()
}

impl Form {
    /// Reads `MM`, `YY` or `YYYY`, `DD`, and whatever stands between.
    fn read(text: &str, at: &std::ops::Range<usize>, faults: &mut Faults<'_>) -> Self {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let words =
                [("YYYY", Piece::Year(4)), ("YY", Piece::Year(2)), ("MM", Piece::Month), ("DD", Piece::Day)];
            let word = words.into_iter().find(|(word, _)| rest.starts_with(word));
            let (length, piece) =
                word.map_or((first.len_utf8(), Piece::Exact(first)), |(word, piece)| (word.len(), piece));
            pieces.push(piece);
            rest = rest.get(length..).unwrap_or_default();
        }
        let count = |wanted: fn(&Piece) -> bool| pieces.iter().filter(|piece| wanted(piece)).count();
        let months = count(|piece| *piece == Piece::Month);
        let years = count(|piece| matches!(piece, Piece::Year(_)));
        let is_plain = |piece: &Piece| matches!(piece, Piece::Exact(c) if c.is_ascii_alphanumeric());
        if months != 1 || years != 1 || pieces.iter().any(is_plain) {
            let instead = "write it with MM, YY or YYYY, DD for a day that does not matter, and marks: \"MM/YY\", \"YYYY-MM\"";
            faults.add(at, "`expiry_form` does not say how an expiry is written", instead);
        }
        Self(pieces)
    }

    /// Month and year of a text that is written so, and of no other.
    fn find(&self, text: &str) -> Option<(u16, u16)> {
        let (mut month, mut year) = (None, None);
        let mut rest = text.trim();
        for piece in &self.0 {
            let leading = rest.bytes().take_while(u8::is_ascii_digit).count();
            let length = match piece {
                Piece::Exact(mark) => {
                    rest = rest.strip_prefix(*mark)?;
                    continue;
                }
                Piece::Year(digits) => *digits,
                Piece::Month | Piece::Day => leading.clamp(1, 2),
            };
            let (value, after) = rest.split_at_checked(length).filter(|_| length <= leading)?;
            match piece {
                Piece::Month => month = value.parse().ok(),
                Piece::Year(_) => year = value.parse().ok(),
                Piece::Day | Piece::Exact(_) => {}
            }
            rest = after;
        }
        if rest.is_empty() { month.zip(year) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_read_as_its_form_says_and_no_otherwise() {
        let find = |form: &str, text: &str| {
            let mut faults = Faults::new("test", form);
            let form = Form::read(form, &(0..1), &mut faults);
            assert!(faults.is_empty());
            form.find(text)
        };
        for (form, text) in [("MM/YY", "03/31"), ("MM/YY", "3/31"), ("MMYY", "0331"), ("YYMM", "3103")] {
            assert_eq!(find(form, text), Some((3, 31)), "{form}");
        }
        for (form, text) in [
            ("MM/YYYY", "3/2031"),
            ("YYYY-MM", "2031-03"),
            ("YYYYMM", "203103"),
            ("YYYY-MM-DD", "2031-03-31"),
            ("MM YYYY", " 03 2031 "),
        ] {
            assert_eq!(find(form, text), Some((3, 2031)), "{form}");
        }
        for (form, text) in [
            ("MM/YY", "0331"),
            ("MM/YY", "03/2031"),
            ("MMYY", "331"),
            ("YYYY-MM", "31-03"),
            ("MMYY", ""),
            ("MMYY", "ab31"),
            ("MM/YY", "/31"),
        ] {
            assert_eq!(find(form, text), None, "{form} {text}");
        }
    }

    #[test]
    fn a_form_without_month_or_year_is_a_fault() {
        for form in ["MM", "YY", "", "MM/YY/YYYY", "M/YY", "MMYYx"] {
            let mut faults = Faults::new("test", "x");
            Form::read(form, &(0..1), &mut faults);
            assert!(!faults.is_empty(), "{form}");
        }
    }
}
