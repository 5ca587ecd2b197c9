//! The primary account number.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::test_numbers;
use crate::card::brand::{Brand, luhn};
use crate::card::tenant::Mode;
use crate::card::truncated::TruncatedPan;

/// A PAN: 12 to 19 digits that pass Luhn (ISO/IEC 7812-1). Anyone in the keeper may hold one; only `cleartext` reads it.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Pan {
    /// Boxed so that a move copies a pointer, not digits.
    digits: Box<[u8; Pan::LEN_MAX]>,
    len: usize,
}

/// Why a number is none, or not one for this tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PanError {
    /// Not 12 to 19 digits.
    #[error("the card number is not 12 to 19 digits")]
    Length,
    /// The check digit is wrong.
    #[error("the card number's check digit is wrong")]
    CheckDigit,
    /// A test number in live mode.
    #[error("a published test number is not taken in live mode")]
    TestInLive,
    /// Not a test number in test mode.
    #[error("test mode takes published test numbers only")]
    LiveInTest,
}

impl Pan {
    /// The longest number.
    pub const LEN_MAX: usize = 19;
    const LEN_MIN: usize = 12;

    /// Reads digits, with nothing between them.
    pub fn parse(input: &str) -> Result<Self, PanError> {
        Self::from_digits(input.as_bytes())
    }

    /// Reads ASCII digits.
    pub(in crate::keeper::cleartext) fn from_digits(input: &[u8]) -> Result<Self, PanError> {
        let fits = (Self::LEN_MIN..=Self::LEN_MAX).contains(&input.len());
        if !fits || !input.iter().all(u8::is_ascii_digit) {
            return Err(PanError::Length);
        }
        if !luhn(input) {
            return Err(PanError::CheckDigit);
        }
        let mut digits = Box::new([0; Self::LEN_MAX]);
        for (to, from) in digits.iter_mut().zip(input) {
            *to = *from;
        }
        Ok(Self { digits, len: input.len() })
    }

    /// Checks the number against the tenant's mode; test and live never meet (PCI DSS 6.5.5, 6.5.6).
    pub fn check_mode(&self, mode: Mode) -> Result<(), PanError> {
        match (mode, self.is_test()) {
            (Mode::Test, true) | (Mode::Live, false) => Ok(()),
            (Mode::Test, false) => Err(PanError::LiveInTest),
            (Mode::Live, true) => Err(PanError::TestInLive),
        }
    }

    /// Whether it is a published test number or of the never-issued volume range.
    pub fn is_test(&self) -> bool {
        test_numbers::is_test(self.expose_digits())
    }

    /// First six (15 digits or more) and last four, and the brand.
    pub fn truncate(&self) -> TruncatedPan {
        let digits = self.expose_digits();
        let text = |part: Option<&[u8]>| part.map(|d| String::from_utf8_lossy(d).into_owned());
        TruncatedPan {
            first6: text(digits.get(..6)).filter(|_| self.len >= 15),
            last4: text(digits.last_chunk::<4>().map(<[u8; 4]>::as_slice)).unwrap_or_default(),
            brand: self.brand(),
            funding: None,
            country: None,
        }
    }

    /// The brand by issuer range and length.
    pub fn brand(&self) -> Brand {
        Brand::of(u16::try_from(self.number_of(0, 4)).unwrap_or(0), self.len)
    }

    /// The first eight digits: what a table of ranges is asked for.
    pub(in crate::keeper) fn first_eight(&self) -> u32 {
        self.number_of(0, 8)
    }

    /// (BIN of six digits, last four): what the fingerprint budget is kept by.
    pub(in crate::keeper) fn bin_and_last_four(&self) -> (u32, u16) {
        (self.number_of(0, 6), u16::try_from(self.number_of(self.len.saturating_sub(4), 4)).unwrap_or(0))
    }

    /// The digits, in ASCII. The only door out of the type.
    pub(in crate::keeper::cleartext) fn expose_digits(&self) -> &[u8] {
        self.digits.get(..self.len).unwrap_or_default()
    }

    fn number_of(&self, from: usize, count: usize) -> u32 {
        self.expose_digits()
            .iter()
            .skip(from)
            .take(count)
            .fold(0, |sum, digit| sum * 10 + u32::from(digit.wrapping_sub(b'0')))
    }
}

impl std::fmt::Debug for Pan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pan(REDACTED)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_shows_first_six_and_last_four_or_last_four_only() {
        let shown = Pan::parse("4242424242424242").unwrap().truncate();
        assert_eq!((shown.first6.as_deref(), shown.last4.as_str()), (Some("424242"), "4242"));
        assert_eq!(shown.brand, Brand::Visa);
        let diners = Pan::parse("30569309025904").unwrap().truncate();
        assert_eq!((diners.first6, diners.last4.as_str()), (None, "5904"));
    }

    #[test]
    fn the_first_six_are_shown_of_fifteen_digits_and_more() {
        for length in 12..=19 {
            let mut digits = format!("999999{}", "0".repeat(length - 6)).into_bytes();
            let last = digits.len() - 1;
            digits[last] = (b'0'..=b'9')
                .find(|digit| {
                    digits[last] = *digit;
                    luhn(&digits)
                })
                .unwrap();
            let shown = Pan::from_digits(&digits).unwrap().truncate();
            assert_eq!(shown.first6.as_deref(), (length >= 15).then_some("999999"), "{length}");
            assert_eq!(shown.last4.as_bytes(), &digits[length - 4..]);
        }
    }

    #[test]
    fn debug_says_nothing() {
        assert_eq!(format!("{:?}", Pan::parse("4242424242424242").unwrap()), "Pan(REDACTED)");
    }

    #[test]
    fn test_and_live_numbers_never_meet() {
        let test = Pan::parse("4242424242424242").unwrap();
        let volume = Pan::parse("4687380000000008").unwrap();
        let neither = Pan::parse("4539578763621486").unwrap();
        for (pan, mode, expected) in [
            (&test, Mode::Test, Ok(())),
            (&test, Mode::Live, Err(PanError::TestInLive)),
            (&volume, Mode::Test, Ok(())),
            (&volume, Mode::Live, Err(PanError::TestInLive)),
            (&neither, Mode::Live, Ok(())),
            (&neither, Mode::Test, Err(PanError::LiveInTest)),
        ] {
            assert_eq!(pan.check_mode(mode), expected);
        }
    }

    proptest! {
        #[test]
        fn nothing_but_twelve_to_nineteen_digits_is_read(text in "\\PC{0,24}") {
            if let Ok(pan) = Pan::parse(&text) {
                prop_assert_eq!(pan.expose_digits(), text.as_bytes());
                prop_assert!((12..=19).contains(&text.len()));
            }
        }
    }
}
