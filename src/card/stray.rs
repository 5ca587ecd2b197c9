//! The stray-number guard: card numbers in places that must not hold any (PCI DSS 12.10.7).
//!
//! Free text is strict: any run of 12 to 19 digits, single spaces or dashes between them allowed, that passes Luhn and lies in a
//! brand's range and length is refused, wherever in the text it begins. Typed identifiers (invoice, customer, processor
//! ids) are refused only when the whole identifier, separators removed, is such a number: a longer or letter-prefixed
//! identifier is none. A tenant whose identifiers are such numbers by chance has a pattern of its own that exempts them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::brand::{Brand, luhn};

const DIGITS_MIN: usize = 12;
const DIGITS_MAX: usize = 19;

/// What callers, networks and processors call a verification code, in small letters and without separators; a name that ends like
/// this is one too.
const CODE_NAMES: [&str; 21] = [
    "cvc",
    "cvc2",
    "cvv",
    "cvv2",
    "cvd",
    "cvd2",
    "cvn",
    "cvn2",
    "ccv",
    "ccv2",
    "csc",
    "cav2",
    "cardcid",
    "cardcode",
    "securitycode",
    "secval",
    "securityvalue",
    "cardverification",
    "verificationvalue",
    "cardvalidation",
    "validationvalue",
];
/// Too short to be the end of a name: `cid` may be somebody's customer.
const CODE_NAMES_WHOLE: [&str; 1] = ["cid"];
/// What may follow such a name: Moneris says `cvd_value`, Vantiv `cardValidationNum`.
const CODE_ENDINGS: [&str; 7] = ["", "code", "number", "num", "no", "value", "val"];

/// Whether free text holds what could be a card number.
pub fn in_free_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut start = 0;
    while start < bytes.len() {
        if !bytes.get(start).is_some_and(u8::is_ascii_digit) {
            start += 1;
            continue;
        }
        let (digits, end) = run_from(bytes, start);
        if digits.len() >= DIGITS_MIN && any_number_in(&digits) {
            return true;
        }
        start = end;
    }
    false
}

/// Whether a typed identifier is, as a whole, what could be a card number.
pub fn is_identifier(text: &str) -> bool {
    let digits: Vec<u8> = text.bytes().filter(|b| !matches!(b, b' ' | b'-')).collect();
    digits.iter().all(u8::is_ascii_digit) && is_number(&digits)
}

/// Whether a pair of a caller's own words says that it is a verification code: such a code must not be kept (PCI DSS 3.3.1.2), nor
/// be covered by a keyed hash that is.
pub fn is_verification_code(key: &str, value: &str) -> bool {
    let value = value.trim();
    let is_like_one = (3..=4).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
    is_like_one && names_verification_code(key)
}

fn names_verification_code(key: &str) -> bool {
    let name: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
    let name = name.to_ascii_lowercase();
    CODE_ENDINGS
        .iter()
        .filter_map(|ending| name.strip_suffix(ending))
        .any(|name| CODE_NAMES_WHOLE.contains(&name) || CODE_NAMES.iter().any(|code| name.ends_with(code)))
}

/// Patterns that exempt identifiers from the guard: by the tenant's name and the field. In a pattern `#` stands for one digit, any
/// other character for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exemptions(pub BTreeMap<String, BTreeMap<String, Vec<String>>>);

/// What one tenant's identifiers may look like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exempt<'a>(Option<&'a BTreeMap<String, Vec<String>>>);

impl Exemptions {
    /// The fields that may be exempt: typed identifiers, never free text.
    pub const FIELDS: [&'static str; 5] =
        ["customer", "idempotency_key", "invoice", "period", "processor_transaction_id"];
    /// So much of a pattern is fixed: fewer characters would let all cards of an issuer through.
    const FIXED_MIN: usize = 6;
    /// So much of a pattern is open: with less it would be a number, where no number belongs.
    const OPEN_MIN: usize = 4;

    /// What this tenant's identifiers may look like.
    pub fn of(&self, tenant: &str) -> Exempt<'_> {
        Exempt(self.0.get(tenant))
    }

    /// Whether every field is one of ours and every pattern narrow enough.
    pub fn are_sound(&self) -> bool {
        let is_sound = |pattern: &String| {
            let open = pattern.chars().filter(|c| *c == '#').count();
            open >= Self::OPEN_MIN && pattern.chars().count() >= open + Self::FIXED_MIN
        };
        self.0
            .values()
            .flatten()
            .all(|(field, patterns)| Self::FIELDS.contains(&field.as_str()) && patterns.iter().all(is_sound))
    }
}

impl Exempt<'_> {
    /// Whether an identifier is exempt in this field.
    pub fn allows(&self, field: &str, text: &str) -> bool {
        let patterns = self.0.and_then(|fields| fields.get(field));
        patterns.is_some_and(|patterns| patterns.iter().any(|pattern| fits(pattern, text)))
    }
}

fn fits(pattern: &str, text: &str) -> bool {
    let is_same = |(p, t): (char, char)| if p == '#' { t.is_ascii_digit() } else { p == t };
    pattern.chars().count() == text.chars().count() && pattern.chars().zip(text.chars()).all(is_same)
}

/// The digits from `start` on, single separators skipped, and where the run ends.
fn run_from(bytes: &[u8], start: usize) -> (Vec<u8>, usize) {
    let mut digits = Vec::new();
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        let next_is_digit = bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
        match byte {
            b'0'..=b'9' => digits.push(*byte),
            b' ' | b'-' if next_is_digit => {}
            _ => break,
        }
        at += 1;
    }
    (digits, at)
}

/// Whether a number stands anywhere in a run; a run that is longer than a card number may begin or end with one.
fn any_number_in(digits: &[u8]) -> bool {
    (DIGITS_MIN..=DIGITS_MAX.min(digits.len())).any(|length| digits.windows(length).any(is_number))
}

fn is_number(digits: &[u8]) -> bool {
    (DIGITS_MIN..=DIGITS_MAX).contains(&digits.len())
        && luhn(digits)
        && Brand::of(first_four(digits), digits.len()) != Brand::Unknown
}

fn first_four(digits: &[u8]) -> u16 {
    digits.iter().take(4).fold(0, |sum, digit| sum * 10 + u16::from(digit.wrapping_sub(b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_in_free_text_however_they_are_spaced() {
        for text in [
            "4242424242424242",
            "card 4242 4242 4242 4242, thanks",
            "4242-4242-4242-4242",
            "x378282246310005x",
            "ref 99 4242424242424242",
        ] {
            assert!(in_free_text(text));
        }
    }

    #[test]
    fn other_numbers_are_let_through() {
        for text in
            ["", "invoice 2026-11-22", "4242424242424241", "9242424242424242", "12345678901", "order 1 2 3"]
        {
            assert!(!in_free_text(text));
            assert!(!is_identifier(text));
        }
    }

    fn exemptions(field: &str, pattern: &str) -> Exemptions {
        let fields = BTreeMap::from([(field.to_owned(), vec![pattern.to_owned()])]);
        Exemptions(BTreeMap::from([("acme".to_owned(), fields)]))
    }

    #[test]
    fn a_pattern_exempts_what_fits_it_in_one_field_of_one_tenant() {
        let all = exemptions("invoice", "424242-####-######");
        let fitting = "424242-4242-424242";
        assert!(all.are_sound() && is_identifier(fitting));
        assert!(all.of("acme").allows("invoice", fitting));
        for other in
            ["424242-4242-42424", "424242-4242-4242424", "4242424242424242", "424243-4242-424242", ""]
        {
            assert!(!all.of("acme").allows("invoice", other));
        }
        assert!(!all.of("acme").allows("customer", fitting));
        assert!(!all.of("globex").allows("invoice", fitting));
        assert!(!Exempt::default().allows("invoice", fitting));
    }

    #[test]
    fn a_pattern_is_neither_a_whole_issuer_nor_a_number() {
        for (field, pattern) in [
            ("invoice", "################"),
            ("invoice", "42424###########"),
            ("invoice", "4242424242424###"),
            ("invoice", ""),
            ("metadata", "424242##########"),
            ("description", "424242##########"),
        ] {
            assert!(!exemptions(field, pattern).are_sound());
        }
        assert!(exemptions("customer", "424242##########").are_sound());
    }

    #[test]
    fn an_identifier_is_refused_only_as_a_whole() {
        assert!(is_identifier("4242 4242 4242 4242"));
        assert!(!is_identifier("inv4242424242424242"));
        assert!(!is_identifier("42424242424242424242"));
    }

    #[test]
    fn a_verification_code_is_known_by_any_of_its_names() {
        for name in [
            "cvc",
            "CVV2",
            "cvd",
            "cvn",
            "csc",
            "cid",
            "card_cid",
            "CID",
            "cav2",
            "card-code",
            "cardCode",
            "card_cvc",
            "securityCode",
            "security code",
            "security-code",
            "verification_value",
            "verificationValue",
            "CardSecVal",
            "cardValidationNum",
            "cvd_value",
            "cvv_number",
            "cvcCode",
            "card_verification_code",
        ] {
            assert!(is_verification_code(name, "123") && is_verification_code(name, " 1234 "), "{name}");
            for other in ["", "12", "12345", "12a", "plan"] {
                assert!(!is_verification_code(name, other), "{name}");
            }
        }
        for name in ["", "order", "plan", "acid", "customer_cid", "code", "number", "value", "postal_code"] {
            assert!(!is_verification_code(name, "123"), "{name}");
        }
    }
}
