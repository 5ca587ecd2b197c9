//! What an issuer range says of its cards, and the layout in which a table of ranges travels to the keeper and lies there. Which eight
//! digits a card has nobody outside the keeper learns.

use serde::{Deserialize, Serialize};

use super::brand::Brand;

/// How a card is funded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Funding {
    /// Paid back later, in parts if wanted.
    Credit,
    /// Paid back whole each month.
    Charge,
    /// From an account.
    Debit,
    /// From what was paid in before.
    Prepaid,
}

impl Funding {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Credit, Self::Charge, Self::Debit, Self::Prepaid];

    /// Its word in answers and in a table's file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Credit => "credit",
            Self::Charge => "charge",
            Self::Debit => "debit",
            Self::Prepaid => "prepaid",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|funding| funding.name() == name)
    }
}

/// A country of ISO 3166-1, as two capital letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Country([u8; 2]);

impl Country {
    /// Reads two capital letters.
    pub fn read(letters: [u8; 2]) -> Option<Self> {
        letters.iter().all(u8::is_ascii_uppercase).then_some(Self(letters))
    }

    /// The letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// What a range says of its cards; what it does not know is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeFacts {
    /// The brand; that of the networks' published ranges if absent.
    pub brand: Option<Brand>,
    /// How the cards are funded.
    pub funding: Option<Funding>,
    /// Where they are issued.
    pub country: Option<Country>,
}

/// One range of a table: first and last eight digits, inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeRecord {
    /// The first number.
    pub start: u32,
    /// The last number.
    pub end: u32,
    /// What it says.
    pub facts: RangeFacts,
}

impl RangeRecord {
    /// Bytes of a record: start(4) ‖ end(4) ‖ country(2, zeros: unknown) ‖ funding(1) ‖ brand(1), the numbers little-endian, funding
    /// and brand by their places from 1 in [`Funding::ALL`] and [`Brand::ALL`], 0 where unknown. A table is records, ascending.
    pub const BYTES: usize = 12;

    /// Its bytes.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let ([a, b, c, d], [e, f, g, h]) = (self.start.to_le_bytes(), self.end.to_le_bytes());
        let [i, j] = self.facts.country.map_or([0; 2], |country| country.0);
        let funding = place(&Funding::ALL, self.facts.funding.as_ref());
        let brand = place(&Brand::ALL, self.facts.brand.as_ref());
        [a, b, c, d, e, f, g, h, i, j, funding, brand]
    }

    /// The record of these bytes.
    pub fn of_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, funding, brand] = bytes;
        Self {
            start: u32::from_le_bytes([a, b, c, d]),
            end: u32::from_le_bytes([e, f, g, h]),
            facts: RangeFacts {
                brand: at(&Brand::ALL, brand),
                funding: at(&Funding::ALL, funding),
                country: Country::read([i, j]),
            },
        }
    }
}

/// The place from 1 in a list, for one byte.
pub fn place<T: PartialEq>(all: &[T], one: Option<&T>) -> u8 {
    let found = one.and_then(|one| all.iter().position(|known| known == one));
    found.and_then(|at| u8::try_from(at + 1).ok()).unwrap_or(0)
}

/// What stands at a place from 1.
pub fn at<T: Copy>(all: &[T], place: u8) -> Option<T> {
    usize::from(place).checked_sub(1).and_then(|at| all.get(at)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_it_was() {
        let brands = Brand::ALL.into_iter().map(Some).chain([None]);
        for (brand, funding) in brands.zip(Funding::ALL.into_iter().map(Some).chain([None]).cycle()) {
            let country = funding.and_then(|_| Country::read(*b"DE"));
            let facts = RangeFacts { brand, funding, country };
            let record = RangeRecord { start: 4_242_424, end: 99_999_999, facts };
            assert_eq!(RangeRecord::of_bytes(record.to_bytes()), record);
        }
        for letters in [*b"de", *b"D1", [0; 2]] {
            assert_eq!(Country::read(letters), None);
        }
    }
}
