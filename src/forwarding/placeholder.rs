//! Placeholders: `{{ card.number }}`, with filters behind bars: `{{ card.exp_year | yy }}`.
//!
//! | name | filters |
//! |---|---|
//! | `card.number` | `number` |
//! | `card.exp_month` | `mm` (two digits, as without a filter), `m` (no zero in front), `number` |
//! | `card.exp_year` | `yyyy` (as without a filter), `yy`, `number` |
//! | `billing.zip` | – |
//!
//! `number` makes a leaf that is nothing but the placeholder a number in JSON.

use super::Why;

/// What a placeholder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// The card number.
    Number,
    /// The month of expiry.
    Month,
    /// The year of expiry.
    Year,
    /// The billing zip.
    Zip,
}

/// One placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// What it stands for.
    pub name: Name,
    /// Short: a month without a zero in front, a year of two digits.
    pub short: bool,
    /// A number where the body can have one.
    pub numeric: bool,
}

/// A part of a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Slot(Slot),
}

/// A leaf's text, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Vec<Piece>);

/// What placeholders are filled with.
#[derive(Clone, Copy)]
pub struct Values<'a> {
    /// All digits.
    pub number: &'a str,
    /// Two digits.
    pub month: &'a str,
    /// Four digits.
    pub year: &'a str,
    /// The billing zip, if the card has one.
    pub zip: Option<&'a str>,
}

impl Text {
    /// Reads a leaf; a brace pair that opens and is no placeholder of ours is refused.
    pub fn parse(text: &str) -> Result<Self, Why> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, behind) = after.split_once("}}").ok_or(Why::PlaceholderUnknown)?;
            if !before.is_empty() {
                pieces.push(Piece::Literal(before.to_owned()));
            }
            pieces.push(Piece::Slot(Slot::parse(inside).ok_or(Why::PlaceholderUnknown)?));
            rest = behind;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    /// Whether a placeholder stands in it.
    pub fn has_slots(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Slot(_)))
    }

    /// The placeholders in it.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Slot(slot) => Some(*slot),
            Piece::Literal(_) => None,
        })
    }

    /// The placeholder that the leaf is nothing but.
    pub fn only_slot(&self) -> Option<Slot> {
        match self.0.as_slice() {
            [Piece::Slot(slot)] => Some(*slot),
            _ => None,
        }
    }

    /// Whether a placeholder asks for a number among other text, which cannot be one.
    pub fn is_mixed_number(&self) -> bool {
        self.only_slot().is_none()
            && self.0.iter().any(|piece| matches!(piece, Piece::Slot(slot) if slot.numeric))
    }

    /// The text that the caller wrote around placeholders.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Literal(text) => Some(text.as_str()),
            Piece::Slot(_) => None,
        })
    }

    /// The filled text; `None` if a value is missing.
    pub fn fill(&self, values: &Values<'_>) -> Option<String> {
        let mut filled = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => filled.push_str(text),
                Piece::Slot(slot) => filled.push_str(slot.value(values)?),
            }
        }
        Some(filled)
    }
}

impl Slot {
    fn parse(inside: &str) -> Option<Self> {
        let mut words = inside.split('|').map(str::trim);
        let name = match words.next()? {
            "card.number" => Name::Number,
            "card.exp_month" => Name::Month,
            "card.exp_year" => Name::Year,
            "billing.zip" => Name::Zip,
            _ => return None,
        };
        let mut slot = Self { name, short: false, numeric: false };
        let mut has_length = false;
        for filter in words {
            let is_length = match (name, filter) {
                (Name::Month, "mm") | (Name::Year, "yyyy") => true,
                (Name::Month, "m") | (Name::Year, "yy") => {
                    slot.short = true;
                    true
                }
                (Name::Number | Name::Month | Name::Year, "number") => false,
                _ => return None,
            };
            // Each kind of filter once: a second one would contradict the first.
            if (is_length && has_length) || slot.numeric {
                return None;
            }
            has_length |= is_length;
            slot.numeric |= !is_length;
        }
        Some(slot)
    }

    fn value<'a>(&self, values: &Values<'a>) -> Option<&'a str> {
        match self.name {
            Name::Number => Some(values.number),
            Name::Month if self.short => Some(values.month.strip_prefix('0').unwrap_or(values.month)),
            Name::Month => Some(values.month),
            Name::Year if self.short => values.year.get(2..),
            Name::Year => Some(values.year),
            Name::Zip => values.zip,
        }
    }
}
