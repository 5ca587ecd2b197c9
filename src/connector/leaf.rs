//! A leaf of a template: text with placeholders, `{name|filter}`.
//!
//! `{name}` must have a value; `{?name}` leaves the whole leaf out when it has none; `{{` and `}}` are braces. A leaf
//! that is only `{name|int}` is a number in JSON, one that is only `{name|bool}` is true or false.

use std::borrow::Cow;
use std::ops::Range;

use zeroize::Zeroizing;

use super::fault::{Faults, suggest};
use super::names::{GROUPS, Kind, Money, NAMES, Name, Secret, Signing};
use super::render::{RenderError, Scope};

/// No leaf of a real connector is near this.
const LEAF_BYTES_MAX: usize = 4096;

/// What the loader knows when it reads a leaf.
pub(super) struct Known {
    /// The fields of `[credentials]`, and where each is declared.
    pub(super) credentials: Vec<Box<str>>,
    pub(super) credentials_at: Vec<Range<usize>>,
    /// Which of them a leaf has used.
    pub(super) used: Vec<bool>,
    /// Which of them only say whose account it is, and may stand in a path.
    pub(super) public: Vec<bool>,
    /// Which outputs of steps only name a thing, and may stand in a path.
    pub(super) public_outputs: Vec<Name>,
    /// Which of them a destination may do without.
    pub(super) optional: Vec<bool>,
    /// `[map.NAME]`, and where each is declared.
    pub(super) maps: Vec<Map>,
    pub(super) maps_at: Vec<Range<usize>>,
    /// Which of them a leaf or a field has used.
    pub(super) maps_used: Vec<bool>,
    /// What the steps above give: `step.NAME.OUTPUT`.
    pub(super) outputs: Vec<(String, Name)>,
    /// Whether a leaf has written an amount in minor units.
    pub(super) writes_minor: bool,
    /// Whether one has written it as a decimal.
    pub(super) writes_decimal: bool,
}

/// A table that translates values; `*` stands for any other.
#[derive(Debug, Clone)]
pub(super) struct Map {
    pub(super) name: Box<str>,
    pub(super) pairs: Vec<(Box<str>, Box<str>)>,
    pub(super) other: Option<Box<str>>,
}

impl Map {
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(known, _)| **known == *key).map(|(_, value)| &**value);
        found.or(self.other.as_deref())
    }
}

/// One leaf, compiled.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pieces: Vec<Piece>,
    pub(super) form: Form,
    /// Differs from send to send (time, nonce): blanked before a MAC.
    pub(super) volatile: bool,
}

/// How JSON writes the leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Number,
    Bool,
}

#[derive(Debug, Clone)]
enum Piece {
    Literal(Box<str>),
    Slot(Slot),
}

#[derive(Debug, Clone)]
struct Slot {
    name: Name,
    optional: bool,
    filters: Vec<Filter>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    Int,
    /// A number of JSON, with or without a point.
    Number,
    Bool,
    TwoDigits,
    Decimal,
    Upper,
    Lower,
    Given,
    Family,
    /// What stands before the first bar of a value that is several, and after the last.
    First,
    Last,
    /// Only a value that is at least, or at most, this long.
    Min(usize),
    Max(usize),
    Map(usize),
    Trunc(usize),
    /// A moment in a form of its own.
    As(Box<str>),
}

const FILTERS: &[&str] = &[
    "int",
    "number",
    "bool",
    "yy",
    "mm",
    "decimal",
    "upper",
    "lower",
    "given",
    "family",
    "first",
    "last",
    "min N",
    "max N",
    "map NAME",
    "trunc N",
    "as %Y%m%d%H%M%S",
];

/// What may follow a `%` in the form of a moment.
const TIME_SIGNS: &[&str] = &["Y", "y", "m", "d", "j", "b", "a", "H", "M", "S", "3f", "z"];

/// Whether a form of a moment is made of known signs and of what stands between them.
fn is_time_form(form: &str) -> bool {
    let mut parts = form.split('%');
    let between = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-:,./ +".contains(&b));
    let first = parts.next().is_some_and(between);
    let mut signs = 0_usize;
    let rest = parts.all(|part| {
        signs += 1;
        TIME_SIGNS.iter().any(|sign| part.strip_prefix(sign).is_some_and(between))
    });
    first && rest && signs > 0 && form.len() <= 64
}

/// A leaf's text for one request: borrowed where it is one value, so that a card number is not copied on the way.
pub(super) enum Filled<'v> {
    Plain(Cow<'v, str>),
    Joined(Zeroizing<String>),
}

impl Filled<'_> {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Joined(text) => text,
        }
    }
}

impl Leaf {
    /// Reads a leaf; faults name the placeholder, never the text around it.
    pub(super) fn read(text: &str, at: &Range<usize>, known: &mut Known, faults: &mut Faults<'_>) -> Self {
        let mut leaf = Self { pieces: Vec::new(), form: Form::Text, volatile: false };
        if text.len() > LEAF_BYTES_MAX {
            faults.add(at, "a value is too long", format!("keep it under {LEAF_BYTES_MAX} bytes"));
            return leaf;
        }
        let mut literal = String::new();
        let mut rest = text;
        while let Some(found) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(found);
            literal.push_str(before);
            if let Some(tail) = after.strip_prefix("{{").or_else(|| after.strip_prefix("}}")) {
                literal.push_str(after.get(..1).unwrap_or_default());
                rest = tail;
                continue;
            }
            let Some((inside, tail)) = after.strip_prefix('{').and_then(|open| open.split_once('}')) else {
                faults.add(at, "a brace has no partner", "write {name}, or {{ and }} for braces themselves");
                return leaf;
            };
            if !literal.is_empty() {
                leaf.pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
            }
            if let Some(slot) = Slot::read(inside, at, known, faults) {
                known.note_amount(&slot);
                leaf.pieces.push(Piece::Slot(slot));
            }
            rest = tail;
        }
        literal.push_str(rest);
        if !literal.is_empty() || leaf.pieces.is_empty() {
            leaf.pieces.push(Piece::Literal(literal.into()));
        }
        leaf.form = leaf.find_form(at, faults);
        let is_of_this_send = leaf.names().any(Name::is_of_this_send);
        leaf.volatile = is_of_this_send;
        leaf
    }

    fn find_form(&self, at: &Range<usize>, faults: &mut Faults<'_>) -> Form {
        let last = |piece: &Piece| match piece {
            Piece::Literal(_) => None,
            Piece::Slot(slot) => slot.filters.last().cloned(),
        };
        match self.pieces.as_slice() {
            [only] if matches!(last(only), Some(Filter::Int | Filter::Number)) => Form::Number,
            [only] if last(only) == Some(Filter::Bool) => Form::Bool,
            pieces => {
                if pieces.iter().any(|piece| last(piece) == Some(Filter::Bool)) {
                    faults.add(at, "`|bool` stands beside other text", "let {name|bool} be the whole value");
                }
                Form::Text
            }
        }
    }

    /// The leaf's text; `None` if it is to be left out.
    pub(super) fn fill<'v>(&self, scope: &Scope<'v>) -> Result<Option<Filled<'v>>, RenderError> {
        if self.volatile && scope.blanks_volatile() {
            return Ok(Some(Filled::Plain(Cow::Borrowed(""))));
        }
        if let [Piece::Slot(slot)] = self.pieces.as_slice() {
            return Ok(slot.fill(scope)?.map(Filled::Plain));
        }
        let mut out = Zeroizing::new(String::with_capacity(256));
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Slot(slot) => match slot.fill(scope)? {
                    Some(value) => out.push_str(&value),
                    None => return Ok(None),
                },
            }
        }
        Ok(Some(Filled::Joined(out)))
    }

    /// Writes the leaf into a path, each value percent-encoded so that it stays within its segment.
    pub(super) fn fill_path(&self, scope: &Scope<'_>, out: &mut String) -> Result<(), RenderError> {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Slot(slot) => match slot.fill(scope)? {
                    Some(value) => {
                        out.extend(percent_encoding::utf8_percent_encode(&value, super::render::SEGMENT))
                    }
                    None => return Err(scope.missing(slot.name)),
                },
            }
        }
        Ok(())
    }

    /// Whether a value that may be missing is.
    pub(super) fn is_left_out(&self, scope: &Scope<'_>) -> Result<bool, RenderError> {
        for piece in &self.pieces {
            if let Piece::Slot(slot) = piece
                && slot.optional
                && slot.name != Name::Signing(Signing::Body)
                && slot.fill(scope)?.is_none()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What is signed: the leaf's text, with the body in its place.
    pub(super) fn fill_message(
        &self,
        scope: &Scope<'_>,
        body: &[u8],
        out: &mut Zeroizing<Vec<u8>>,
    ) -> Result<(), RenderError> {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Slot(slot) if slot.name == Name::Signing(Signing::Body) => out.extend_from_slice(body),
                Piece::Slot(slot) => {
                    out.extend_from_slice(slot.fill(scope)?.unwrap_or_default().as_bytes());
                }
            }
        }
        Ok(())
    }

    /// The leaf as a person writes it: its placeholders without their filters.
    pub(super) fn shape(&self, credentials: &[Box<str>]) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Literal(text) => text.to_string(),
            Piece::Slot(slot) => format!("{{{}}}", slot.name.spelling(credentials)),
        };
        self.pieces.iter().map(piece).collect()
    }

    /// The names in it without a value of which it cannot be written.
    pub(super) fn needed(&self) -> impl Iterator<Item = Name> + '_ {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Slot(slot) if !slot.optional => Some(slot.name),
            Piece::Slot(_) | Piece::Literal(_) => None,
        })
    }

    /// The names in it.
    pub(super) fn names(&self) -> impl Iterator<Item = Name> + '_ {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Slot(slot) => Some(slot.name),
        })
    }
}

impl Slot {
    fn read(inside: &str, at: &Range<usize>, known: &mut Known, faults: &mut Faults<'_>) -> Option<Self> {
        let mut parts = inside.split('|');
        let first = parts.next().unwrap_or_default().trim();
        let (optional, spelling) = first.strip_prefix('?').map_or((false, first), |rest| (true, rest.trim()));
        let Some(name) = known.find_name(spelling) else {
            faults.add(at, format!("`{{{spelling}}}` is not a name"), suggest_name(spelling));
            return None;
        };
        known.mark_used(name);
        let mut filters = Vec::new();
        for part in parts {
            let Some(filter) = Filter::read(part.trim(), known) else {
                let instead = format!("write one of: {} (a map needs its [map.NAME])", FILTERS.join(", "));
                faults.add(at, format!("`|{}` is not a filter", part.trim()), instead);
                return None;
            };
            if !filter.fits(name.kind(), filters.is_empty()) {
                faults.add(
                    at,
                    format!("`{spelling}` cannot take `|{}`", part.trim()),
                    filter.where_it_fits(),
                );
                return None;
            }
            filters.push(filter);
        }
        Some(Self { name, optional, filters })
    }

    fn fill<'v>(&self, scope: &Scope<'v>) -> Result<Option<Cow<'v, str>>, RenderError> {
        let Some(mut text) = scope.text(self.name, self.filters.contains(&Filter::Decimal))? else {
            return if self.optional { Ok(None) } else { Err(scope.missing(self.name)) };
        };
        for filter in &self.filters {
            text = match filter.apply(text, scope) {
                Some(next) => next,
                None => return Err(scope.unfit(self.name)),
            };
        }
        // What a filter leaves nothing of is not there.
        if text.is_empty() && self.filters.iter().any(|filter| filter.chooses()) {
            return if self.optional { Ok(None) } else { Err(scope.missing(self.name)) };
        }
        Ok(Some(text))
    }
}

impl Filter {
    fn read(text: &str, known: &mut Known) -> Option<Self> {
        match text.split_once(' ') {
            Some(("map", name)) => known.find_map(name.trim()).map(Self::Map),
            Some(("trunc", length)) => length.trim().parse().ok().filter(|n| *n > 0).map(Self::Trunc),
            Some(("min", length)) => length.trim().parse().ok().map(Self::Min),
            Some(("max", length)) => length.trim().parse().ok().map(Self::Max),
            Some(("as", form)) => {
                Some(form.trim()).filter(|form| is_time_form(form)).map(|f| Self::As(f.into()))
            }
            Some(_) => None,
            None => match text {
                "int" => Some(Self::Int),
                "number" => Some(Self::Number),
                "bool" => Some(Self::Bool),
                "yy" | "mm" => Some(Self::TwoDigits),
                "decimal" => Some(Self::Decimal),
                "upper" => Some(Self::Upper),
                "lower" => Some(Self::Lower),
                "given" => Some(Self::Given),
                "family" => Some(Self::Family),
                "first" => Some(Self::First),
                "last" => Some(Self::Last),
                _other => None,
            },
        }
    }

    /// Whether it may leave nothing.
    const fn chooses(&self) -> bool {
        matches!(self, Self::First | Self::Last | Self::Min(_) | Self::Max(_))
    }

    /// Nothing may change a secret, and each filter has values that it means something for.
    fn fits(&self, kind: Kind, first: bool) -> bool {
        match (self, kind) {
            (_, Kind::Secret) => false,
            (Self::TwoDigits, kind) => first && matches!(kind, Kind::Month | Kind::Year),
            (Self::Decimal, kind) => first && kind == Kind::Money,
            (Self::Bool, kind) => first && kind == Kind::Flag,
            (Self::Given | Self::Family, kind) => first && kind == Kind::Text,
            (Self::First | Self::Last | Self::Min(_) | Self::Max(_), kind) => kind == Kind::Text,
            (Self::As(_), kind) => first && kind == Kind::Time,
            (Self::Int | Self::Number | Self::Upper | Self::Lower | Self::Map(_) | Self::Trunc(_), _) => true,
        }
    }

    const fn where_it_fits(&self) -> &'static str {
        match self {
            Self::TwoDigits => "use `yy` on card.exp_year and `mm` on card.exp_month, before other filters",
            Self::Decimal => "use `decimal` on amounts in minor units, before other filters",
            Self::Bool => "use `bool` on capture.final or allow_partial",
            Self::Given | Self::Family => "use `given` and `family` on billing.name, before other filters",
            Self::First | Self::Last | Self::Min(_) | Self::Max(_) => "use it on a text",
            Self::As(_) => "use `as` on time, before other filters",
            Self::Int | Self::Number | Self::Upper | Self::Lower | Self::Map(_) | Self::Trunc(_) => {
                "leave the filter out: card number, verification code and credentials are sent as they are"
            }
        }
    }

    fn apply<'v>(&self, text: Cow<'v, str>, scope: &Scope<'v>) -> Option<Cow<'v, str>> {
        Some(match *self {
            Self::Number => Some(text).filter(|text| is_number(text))?,
            Self::As(ref form) => Cow::Owned(scope.time_as(form)?),
            Self::Int => Cow::Owned(text.parse::<i64>().ok()?.to_string()),
            // What is written by `decimal` came so from the scope already.
            Self::Bool | Self::Decimal => text,
            Self::TwoDigits => {
                let padded = format!("{text:0>2}");
                Cow::Owned(padded.get(padded.len().checked_sub(2)?..)?.to_owned())
            }
            // A name of one word is both: who asks for two names refuses an empty one.
            Self::Given => {
                Cow::Owned(text.trim().rsplit_once(' ').map_or(&*text, |(given, _)| given).trim().to_owned())
            }
            Self::Family => {
                Cow::Owned(text.trim().rsplit_once(' ').map_or(&*text, |(_, family)| family).to_owned())
            }
            Self::Upper => Cow::Owned(text.to_uppercase()),
            Self::Lower => Cow::Owned(text.to_lowercase()),
            Self::First => Cow::Owned(text.split('|').next().unwrap_or_default().trim().to_owned()),
            Self::Last => Cow::Owned(text.rsplit('|').next().unwrap_or_default().trim().to_owned()),
            Self::Min(length) if text.chars().count() < length => Cow::Borrowed(""),
            Self::Max(length) if text.chars().count() > length => Cow::Borrowed(""),
            Self::Min(_) | Self::Max(_) => text,
            Self::Map(index) => Cow::Owned(scope.map(index)?.get(&text)?.to_owned()),
            Self::Trunc(length) => Cow::Owned(text.chars().take(length).collect()),
        })
    }
}

impl Known {
    /// Notes how an amount is written.
    fn note_amount(&mut self, slot: &Slot) {
        let is_decimal = slot.name == Name::Money(Money::Decimal) || slot.filters.contains(&Filter::Decimal);
        self.writes_decimal |= is_decimal;
        self.writes_minor |= slot.name == Name::Money(Money::Minor) && !is_decimal;
    }

    /// The name behind a spelling.
    pub(super) fn find_name(&self, spelling: &str) -> Option<Name> {
        let output = self.outputs.iter().find(|(known, _)| known == spelling).map(|(_, name)| *name);
        output.or_else(|| Name::find(spelling, &self.credentials))
    }

    pub(super) fn mark_used(&mut self, name: Name) {
        if let Name::Secret(Secret::Credential(index)) = name
            && let Some(used) = self.used.get_mut(index)
        {
            *used = true;
        }
    }

    /// The map of a name, noting that something uses it.
    pub(super) fn find_map(&mut self, name: &str) -> Option<usize> {
        let index = self.maps.iter().position(|map| *map.name == *name)?;
        if let Some(used) = self.maps_used.get_mut(index) {
            *used = true;
        }
        Some(index)
    }
}

/// Whether JSON would take it for a number: `0`, `12`, `-1.50`.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (whole, part) = text.split_once('.').map_or((text, None), |(whole, part)| (whole, Some(part)));
    digits(whole) && (whole == "0" || !whole.starts_with('0')) && part.is_none_or(digits)
}

fn suggest_name(spelling: &str) -> String {
    if spelling.starts_with("cred.") {
        return "declare it in [credentials]".to_owned();
    }
    if spelling.starts_with("step.") {
        return "write step.NAME.OUTPUT of a [step.NAME] above with output.OUTPUT = \"path\"".to_owned();
    }
    if GROUPS.iter().any(|(group, _)| *group == spelling) {
        return "only a condition may name a group: name one of its fields".to_owned();
    }
    suggest(spelling, NAMES.iter().map(|(text, ..)| *text))
}
