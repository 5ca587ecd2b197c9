//! A card's expiry month.

use serde::{Deserialize, Serialize};

use crate::clock::Time;

/// How far ahead an expiry may lie; issuers go no further.
const YEARS_AHEAD_MAX: u16 = 20;
/// A card is good to the last instant of its month anywhere, which is twelve hours after it ends in UTC.
const LAST_ZONE_SECONDS: i64 = 12 * 3600;

/// Month and four-digit year.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    /// 1 to 12.
    pub month: u8,
    /// Four digits.
    pub year: u16,
}

/// Why an expiry was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpiryError {
    /// Not a month.
    #[error("the expiry month is not 1 to 12")]
    Month,
    /// Not a year of two or four digits, or too far ahead.
    #[error("the expiry year is not a two- or four-digit year within the next 20 years")]
    Year,
}

impl Expiry {
    /// Reads a month and a two- or four-digit year, at most twenty years after `now`.
    pub fn new(month: u16, year: u16, now: Time) -> Result<Self, ExpiryError> {
        let month = u8::try_from(month).ok().filter(|m| (1..=12).contains(m)).ok_or(ExpiryError::Month)?;
        let this_year = u16::try_from(now.year_month().0).unwrap_or(0);
        let year = match year {
            0..=99 => this_year / 100 * 100 + year,
            1000..=9999 => year,
            _ => return Err(ExpiryError::Year),
        };
        if year > this_year.saturating_add(YEARS_AHEAD_MAX) {
            return Err(ExpiryError::Year);
        }
        Ok(Self { month, year })
    }

    /// Whether the month has ended everywhere (UTC−12) at `now`.
    pub fn is_past(&self, now: Time) -> bool {
        let (year, month) = now.plus_seconds(-LAST_ZONE_SECONDS).year_month();
        (i32::from(year), i32::from(month)) > (i32::from(self.year), i32::from(self.month))
    }
}

impl std::fmt::Debug for Expiry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Expiry(REDACTED)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        Time::parse(text).unwrap()
    }

    #[test]
    fn a_card_is_good_to_the_last_instant_of_its_month_anywhere() {
        let expiry = Expiry::new(11, 26, at("2026-11-22T00:00:00Z")).unwrap();
        assert_eq!(expiry.year, 2026);
        assert!(!expiry.is_past(at("2026-12-01T11:59:59Z")));
        assert!(expiry.is_past(at("2026-12-01T12:00:00Z")));
    }

    #[test]
    fn impossible_expiries_are_refused() {
        let now = at("2026-11-22T00:00:00Z");
        assert_eq!(Expiry::new(13, 2030, now), Err(ExpiryError::Month));
        assert_eq!(Expiry::new(0, 2030, now), Err(ExpiryError::Month));
        assert_eq!(Expiry::new(1, 2047, now), Err(ExpiryError::Year));
        assert_eq!(Expiry::new(1, 203, now), Err(ExpiryError::Year));
        assert!(Expiry::new(12, 2046, now).is_ok());
    }

    #[test]
    fn two_digits_are_a_year_of_this_century_within_twenty() {
        let now = at("2026-11-22T00:00:00Z");
        for (short, year) in [(26, 2026), (27, 2027), (46, 2046), (0, 2000), (25, 2025)] {
            assert_eq!(Expiry::new(6, short, now).map(|expiry| expiry.year), Ok(year));
        }
        for short in [47, 99] {
            assert_eq!(Expiry::new(6, short, now), Err(ExpiryError::Year));
        }
    }
}
