//! Card brands by issuer range and length, as data: which numbers could be a card at all.

use serde::{Deserialize, Serialize};

/// The brand printed on a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Brand {
    /// American Express.
    Amex,
    /// Diners Club.
    Diners,
    /// Discover.
    Discover,
    /// JCB.
    Jcb,
    /// Maestro.
    Maestro,
    /// Mastercard.
    Mastercard,
    /// Mir.
    Mir,
    /// UnionPay.
    Unionpay,
    /// Visa.
    Visa,
    /// In no range that this table knows.
    Unknown,
}

impl Brand {
    /// All that the table knows.
    pub const ALL: [Self; 9] = [
        Self::Amex,
        Self::Diners,
        Self::Discover,
        Self::Jcb,
        Self::Maestro,
        Self::Mastercard,
        Self::Mir,
        Self::Unionpay,
        Self::Visa,
    ];

    /// Its word in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amex => "amex",
            Self::Diners => "diners",
            Self::Discover => "discover",
            Self::Jcb => "jcb",
            Self::Maestro => "maestro",
            Self::Mastercard => "mastercard",
            Self::Mir => "mir",
            Self::Unionpay => "unionpay",
            Self::Visa => "visa",
            Self::Unknown => "unknown",
        }
    }

    /// The brand of that name; [`Brand::Unknown`] for any other word.
    pub fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|brand| brand.name() == name).unwrap_or(Self::Unknown)
    }

    /// The brand whose range holds the number that begins with these four digits, if `length` digits is a length it issues.
    pub fn of(first_four: u16, length: usize) -> Self {
        RANGES
            .iter()
            .find(|r| (r.from..=r.to).contains(&first_four) && r.lengths.contains(&length))
            .map_or(Self::Unknown, |r| r.brand)
    }
}

struct Range {
    brand: Brand,
    from: u16,
    to: u16,
    lengths: std::ops::RangeInclusive<usize>,
}

const fn range(brand: Brand, from: u16, to: u16, lengths: std::ops::RangeInclusive<usize>) -> Range {
    Range { brand, from, to, lengths }
}

/// First four digits, inclusive; the networks' published ranges as of November 2026. Narrow ranges stand before wide ones.
const RANGES: [Range; 24] = [
    range(Brand::Amex, 3400, 3499, 15..=15),
    range(Brand::Amex, 3700, 3799, 15..=15),
    range(Brand::Diners, 3000, 3059, 14..=19),
    range(Brand::Diners, 3095, 3095, 14..=19),
    range(Brand::Diners, 3600, 3699, 14..=19),
    range(Brand::Diners, 3800, 3999, 14..=19),
    range(Brand::Jcb, 3528, 3589, 16..=19),
    range(Brand::Visa, 4000, 4999, 13..=13),
    range(Brand::Visa, 4000, 4999, 16..=16),
    range(Brand::Visa, 4000, 4999, 19..=19),
    range(Brand::Mastercard, 5100, 5599, 16..=16),
    range(Brand::Mastercard, 2221, 2720, 16..=16),
    range(Brand::Mir, 2200, 2204, 16..=19),
    range(Brand::Discover, 6011, 6011, 16..=19),
    range(Brand::Discover, 6440, 6599, 16..=19),
    range(Brand::Unionpay, 6200, 6299, 16..=19),
    range(Brand::Unionpay, 8100, 8171, 16..=19),
    range(Brand::Maestro, 5000, 5099, 12..=19),
    range(Brand::Maestro, 5600, 5899, 12..=19),
    range(Brand::Maestro, 6000, 6010, 12..=19),
    range(Brand::Maestro, 6012, 6199, 12..=19),
    range(Brand::Maestro, 6300, 6439, 12..=19),
    range(Brand::Maestro, 6600, 6759, 12..=19),
    range(Brand::Maestro, 6760, 6999, 12..=19),
];

/// Whether these ASCII digits pass the Luhn check (ISO/IEC 7812-1, annex B).
pub fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let value = u32::from(digit.wrapping_sub(b'0'));
            match (at % 2, value) {
                (0, v) => v,
                (_, v) if v > 4 => v * 2 - 9,
                (_, v) => v * 2,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_lengths_tell_the_brand() {
        for (first, length, brand) in [
            (4242, 16, Brand::Visa),
            (4242, 15, Brand::Unknown),
            (5555, 16, Brand::Mastercard),
            (2223, 16, Brand::Mastercard),
            (3782, 15, Brand::Amex),
            (3056, 14, Brand::Diners),
            (6011, 16, Brand::Discover),
            (3566, 16, Brand::Jcb),
            (6200, 19, Brand::Unionpay),
            (9999, 16, Brand::Unknown),
        ] {
            assert_eq!(Brand::of(first, length), brand);
            assert_eq!(Brand::from_name(brand.name()), brand);
        }
    }

    #[test]
    fn luhn_finds_each_wrong_digit() {
        let good = *b"4242424242424242";
        assert!(luhn(&good));
        for at in 0..good.len() {
            let mut bad = good;
            bad[at] = if bad[at] == b'9' { b'0' } else { bad[at] + 1 };
            assert!(!luhn(&bad));
        }
    }
}
