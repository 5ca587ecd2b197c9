//! The card verification code: sensitive authentication data. It has no sealed form, so keeping it cannot be written
//! (PCI DSS 3.3.1.2).

use zeroize::{Zeroize, ZeroizeOnDrop};

/// A CVC of three or four digits, for one request, wiped on every outcome.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct CardVerificationCode(Box<[u8; 4]>, usize);

impl CardVerificationCode {
    /// Reads three or four digits.
    pub fn parse(input: &str) -> Option<Self> {
        let mut digits = Box::new([0; 4]);
        let bytes = input.as_bytes();
        if !(3..=4).contains(&bytes.len()) || !bytes.iter().all(u8::is_ascii_digit) {
            return None;
        }
        for (to, from) in digits.iter_mut().zip(bytes) {
            *to = *from;
        }
        Some(Self(digits, bytes.len()))
    }

    /// The digits, in ASCII.
    pub(in crate::keeper::cleartext) fn expose_digits(&self) -> &[u8] {
        self.0.get(..self.1).unwrap_or_default()
    }
}

impl std::fmt::Debug for CardVerificationCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CardVerificationCode(REDACTED)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_or_four_digits_and_nothing_else() {
        assert!(CardVerificationCode::parse("123").is_some());
        assert!(CardVerificationCode::parse("1234").is_some());
        for no in ["", "12", "12345", "12a"] {
            assert!(CardVerificationCode::parse(no).is_none());
        }
        assert_eq!(
            format!("{:?}", CardVerificationCode::parse("123").unwrap()),
            "CardVerificationCode(REDACTED)"
        );
    }
}
