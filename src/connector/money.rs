//! Money between our API and a processor: ISO 4217 minor units on our side, whatever exponent the processor uses on
//! the other.
//!
//! The exponents are data (`data/currencies.csv`); where a processor differs, its connector says so. An amount that
//! the processor's exponent or rounding limit cannot hold is refused, and nothing is sent.

use std::sync::LazyLock;

/// One currency of ISO 4217.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Currency {
    /// Three upper-case letters.
    pub code: [u8; 3],
    /// Three digits.
    pub numeric: [u8; 3],
    /// Digits after the point: 2 for USD, 0 for JPY, 3 for KWD.
    pub exponent: u8,
}

/// No more than this many digits after the point exist.
pub(super) const EXPONENT_MAX: u32 = 4;

static CURRENCIES: LazyLock<Vec<Currency>> = LazyLock::new(|| {
    let lines = include_str!("data/currencies.csv").lines();
    lines.filter(|line| !line.starts_with('#')).filter_map(read_line).collect()
});

/// The currency of a code, in upper case.
pub fn currency(code: &str) -> Option<Currency> {
    let code: [u8; 3] = code.as_bytes().try_into().ok()?;
    let index = CURRENCIES.binary_search_by_key(&code, |known| known.code).ok()?;
    CURRENCIES.get(index).copied()
}

fn read_line(line: &str) -> Option<Currency> {
    let mut fields = line.split(',');
    let code = fields.next()?.as_bytes().try_into().ok()?;
    let numeric = fields.next()?.as_bytes().try_into().ok()?;
    let exponent = fields.next()?.parse().ok()?;
    Some(Currency { code, numeric, exponent })
}

/// How a processor counts money where it differs from ISO 4217.
#[derive(Debug, Clone, Default)]
pub(super) struct MoneyRules {
    pub(super) lower_case: bool,
    pub(super) exponents: Vec<([u8; 3], u8)>,
    /// The processor's amount must be a multiple of this.
    pub(super) multiples: Vec<([u8; 3], u32)>,
    /// The smallest amounts that it takes, in ISO 4217 minor units, in the order of the file.
    pub(super) smallest: Vec<([u8; 3], i64)>,
    /// Its requests hold decimals alone: what it answers without a point is in major units too.
    pub(super) in_major: bool,
}

/// The processor's exponent or rounding limit cannot hold the amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotRepresentable;

impl MoneyRules {
    /// The exponent that the processor uses.
    pub(super) fn exponent(&self, currency: &Currency) -> u8 {
        find(&self.exponents, currency.code).unwrap_or(currency.exponent)
    }

    /// ISO 4217 minor units as the processor counts them.
    pub(super) fn to_processor(&self, minor: i64, currency: &Currency) -> Result<i64, NotRepresentable> {
        let amount = rescale(minor, currency.exponent, self.exponent(currency)).ok_or(NotRepresentable)?;
        let multiple = i64::from(find(&self.multiples, currency.code).unwrap_or(1));
        if minor < 0 || amount % multiple.max(1) != 0 {
            return Err(NotRepresentable);
        }
        Ok(amount)
    }

    /// What a processor counted, in ISO 4217 minor units; text with a point is read as major units, and text without where its requests
    /// hold decimals: some write 20.00 as 20, which as minor units would look like a hundredth of it.
    pub(super) fn to_iso(&self, text: &str, currency: Option<&str>) -> Option<i64> {
        let currency = currency.and_then(|code| self::currency(&code.to_ascii_uppercase()));
        let parts = text.split_once('.').or(self.in_major.then_some((text, "")));
        let Some((whole, part)) = parts else {
            let amount = text.parse().ok()?;
            return match currency {
                Some(known) => rescale(amount, self.exponent(&known), known.exponent),
                // Without its currency an amount means something only where no currency is an exception.
                None if self.exponents.is_empty() => Some(amount),
                None => None,
            };
        };
        let exponent = currency?.exponent;
        let digits = u8::try_from(part.len()).ok()?;
        if !part.bytes().all(|b| b.is_ascii_digit()) || !whole.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        rescale(format!("{whole}{part}").parse().ok()?, digits, exponent)
    }
}

/// Minor units as a decimal: 1234 with exponent 2 is `12.34`.
pub(super) fn decimal(minor: i64, exponent: u8) -> String {
    let digits = minor.unsigned_abs().to_string();
    let exponent = usize::from(exponent);
    let padded = format!("{digits:0>width$}", width = exponent + 1);
    let sign = if minor < 0 { "-" } else { "" };
    match padded.split_at_checked(padded.len().saturating_sub(exponent)) {
        Some((whole, part)) if !part.is_empty() => format!("{sign}{whole}.{part}"),
        Some(_) | None => format!("{sign}{padded}"),
    }
}

fn rescale(amount: i64, from: u8, to: u8) -> Option<i64> {
    let factor = 10_i64.checked_pow(u32::from(from.abs_diff(to)))?;
    if to >= from {
        return amount.checked_mul(factor);
    }
    (amount % factor == 0).then(|| amount / factor)
}

fn find<T: Copy>(table: &[([u8; 3], T)], code: [u8; 3]) -> Option<T> {
    table.iter().find(|(known, _)| *known == code).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_file_is_whole_and_sorted() {
        let lines = include_str!("data/currencies.csv").lines().filter(|l| !l.starts_with('#')).count();
        assert_eq!(CURRENCIES.len(), lines);
        assert!(lines > 150);
        assert!(CURRENCIES.is_sorted_by(|a, b| a.code < b.code));
        for known in CURRENCIES.iter() {
            assert!(
                known.code.iter().all(u8::is_ascii_uppercase) && known.numeric.iter().all(u8::is_ascii_digit)
            );
            assert!(u32::from(known.exponent) <= EXPONENT_MAX);
        }
    }

    #[test]
    fn iso_exponents() {
        let exponent = |code| currency(code).map(|c| c.exponent);
        assert_eq!(exponent("USD"), Some(2));
        assert_eq!(exponent("JPY"), Some(0));
        assert_eq!(exponent("CLP"), Some(0));
        assert_eq!(exponent("UGX"), Some(0));
        assert_eq!(exponent("ISK"), Some(0));
        assert_eq!(exponent("KWD"), Some(3));
        assert_eq!(exponent("CLF"), Some(4));
        assert_eq!(exponent("usd"), None);
        assert_eq!(exponent("XXX"), None);
    }

    #[test]
    fn decimals() {
        assert_eq!(decimal(1234, 2), "12.34");
        assert_eq!(decimal(5, 2), "0.05");
        assert_eq!(decimal(0, 3), "0.000");
        assert_eq!(decimal(500, 0), "500");
        assert_eq!(decimal(i64::MAX, 4), "922337203685477.5807");
    }

    #[test]
    fn amounts_come_back_as_they_went() {
        let rules = MoneyRules { exponents: vec![(*b"ISK", 2), (*b"MGA", 0)], ..MoneyRules::default() };
        let isk = currency("ISK").unwrap();
        let mga = currency("MGA").unwrap();
        assert_eq!(rules.to_processor(5, &isk), Ok(500));
        assert_eq!(rules.to_iso("500", Some("isk")), Some(5));
        assert_eq!(rules.to_iso("550", Some("isk")), None);
        assert_eq!(rules.to_processor(500, &mga), Ok(5));
        assert_eq!(rules.to_processor(550, &mga), Err(NotRepresentable));
        assert_eq!(rules.to_processor(-5, &isk), Err(NotRepresentable));
        assert_eq!(rules.to_processor(i64::MAX, &isk), Err(NotRepresentable));
        assert_eq!(rules.to_iso("12.34", Some("USD")), Some(1234));
        assert_eq!(rules.to_iso("12.3", Some("USD")), Some(1230));
        assert_eq!(rules.to_iso("12.345", Some("USD")), None);
        assert_eq!(rules.to_iso("500", None), None);
        let decimals = MoneyRules { in_major: true, ..MoneyRules::default() };
        for (text, currency, minor) in
            [("20", "USD", 2000), ("20.0", "USD", 2000), ("20", "JPY", 20), ("2", "KWD", 2000)]
        {
            assert_eq!(decimals.to_iso(text, Some(currency)), Some(minor), "{text} {currency}");
        }
        assert_eq!(decimals.to_iso("20", None), None);
        assert_eq!(decimals.to_iso("", Some("USD")), None);
    }
}
