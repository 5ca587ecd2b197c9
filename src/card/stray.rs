//! The stray-number guard: card numbers in places that must not hold any (PCI DSS 12.10.7).
//!
//! Free text is strict: any run of 12 to 19 digits, single spaces or dashes between them allowed, that passes Luhn and lies in a
//! brand's range and length is refused, wherever in the text it begins. Typed identifiers (invoice, customer, processor
//! ids) are refused only when the whole identifier, separators removed, is such a number: a longer or letter-prefixed
//! identifier is none.

use super::brand::{Brand, luhn};

const DIGITS_MIN: usize = 12;
const DIGITS_MAX: usize = 19;

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

    #[test]
    fn an_identifier_is_refused_only_as_a_whole() {
        assert!(is_identifier("4242 4242 4242 4242"));
        assert!(!is_identifier("inv4242424242424242"));
        assert!(!is_identifier("42424242424242424242"));
    }
}
