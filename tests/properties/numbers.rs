//! Card numbers: what is taken for one, what never is, and what of one is shown.

use cardvault::card::id::{
    AgreementId, AttemptId, ChargeId, EventId, FingerprintId, IdBytes, OperationId, PrincipalId, RefundId,
    RequestId, Token,
};
use cardvault::card::stray::{in_free_text, is_identifier};
use cardvault::card::tenant::Mode;
use cardvault::keeper::cleartext::{Pan, PanError};
use proptest::prelude::*;

/// First digits and lengths of the networks, as each publishes them.
const ISSUED: [(u64, u64, usize); 9] = [
    (4000, 4999, 16),
    (5100, 5599, 16),
    (2221, 2720, 16),
    (3400, 3499, 15),
    (3700, 3799, 15),
    (6011, 6011, 16),
    (3528, 3589, 16),
    (3600, 3699, 14),
    (6200, 6299, 19),
];

/// The digit that makes the sum of ISO/IEC 7812-1, annex B, a multiple of ten.
fn check_digit(digits: &str) -> u32 {
    let weigh = |(at, digit): (usize, char)| {
        let digit = digit.to_digit(10).unwrap();
        if at % 2 == 1 { digit } else { digit * 2 / 10 + digit * 2 % 10 }
    };
    let sum: u32 = digits.chars().rev().enumerate().map(weigh).sum();
    (10 - sum % 10) % 10
}

/// A number of some network with a right check digit.
fn number() -> impl Strategy<Value = String> {
    (0..ISSUED.len(), any::<u64>(), any::<u64>()).prop_map(|(at, first, rest)| {
        let (from, to, length) = ISSUED[at];
        let first = from + first % (to - from + 1);
        let rest = format!("{rest:020}");
        let body = format!("{first}{}", &rest[rest.len() - (length - 5)..]);
        format!("{body}{}", check_digit(&body))
    })
}

/// Digits with the chosen separators between them.
fn spaced(number: &str, separators: &[Option<char>]) -> String {
    let mut out = String::new();
    for (at, digit) in number.chars().enumerate() {
        out.push(digit);
        if let Some(Some(separator)) = separators.get(at).filter(|_| at + 1 < number.len()) {
            out.push(*separator);
        }
    }
    out
}

proptest! {
    #[test]
    fn no_id_is_ever_taken_for_a_card_number(bytes: [u8; 18], zeros in 0_usize..=18) {
        // Bits that are mostly zero give the longest runs of digits.
        let mut bytes = bytes;
        bytes[..zeros].fill(0);
        let id = IdBytes(bytes);
        let texts = [
            Token(id).to_string(), ChargeId(id).to_string(), OperationId(id).to_string(),
            RefundId(id).to_string(), AttemptId(id).to_string(), EventId(id).to_string(),
            RequestId(id).to_string(), AgreementId(id).to_string(), PrincipalId(id).to_string(),
            FingerprintId(id).to_string(),
        ];
        for text in &texts {
            prop_assert!(!in_free_text(text) && !is_identifier(text), "{}", text);
            prop_assert!(Pan::parse(text).is_err());
        }
        for joined in [texts.join(" "), texts.join("-"), texts.concat()] {
            prop_assert!(!in_free_text(&joined), "{}", joined);
        }
    }

    #[test]
    fn a_number_is_found_wherever_it_stands_in_free_text(
        number in number(),
        separators in prop::collection::vec(prop::option::of(prop::sample::select(vec![' ', '-'])), 19),
        before in "[a-zA-Z .,:#]{0,12}",
        after in "[a-zA-Z .,:#]{0,12}",
    ) {
        for number in [spaced(&number, &separators), number] {
            let text = format!("{before}{number}{after}");
            prop_assert!(in_free_text(&text));
        }
    }

    #[test]
    fn what_has_no_twelve_digits_together_is_let_through(text in "([0-9]{0,11}[a-zA-Z/.:_é]){0,8}[0-9]{0,11}") {
        prop_assert!(!in_free_text(&text));
        prop_assert!(!is_identifier(&text));
    }

    #[test]
    fn an_identifier_is_refused_as_a_whole_only(
        number in number(),
        separators in prop::collection::vec(prop::option::of(prop::sample::select(vec![' ', '-'])), 19),
        letter in "[a-zA-Z]",
        more in "[0-9]{6,12}",
        step in 1_u32..10,
    ) {
        prop_assert!(is_identifier(&number));
        prop_assert!(is_identifier(&spaced(&number, &separators)));
        // The way out that the problem names.
        prop_assert!(!is_identifier(&format!("{letter}{number}")), "the letter prefix does not help");
        let longer = format!("{number}{more}");
        prop_assert!(!is_identifier(&longer), "20 digits and more are no card number");
        let (body, check) = number.split_at(number.len() - 1);
        let wrong = (check.parse::<u32>().unwrap() + step) % 10;
        let wrong = format!("{body}{wrong}");
        prop_assert!(!is_identifier(&wrong));
        prop_assert_eq!(Pan::parse(&wrong).err(), Some(PanError::CheckDigit));
        // Nobody issues numbers that begin with 9.
        let nobody = format!("9{}", &body[1..]);
        let nobody = format!("{nobody}{}", check_digit(&nobody));
        prop_assert!(!is_identifier(&nobody));
    }

    #[test]
    fn two_neighbours_that_change_places_are_found(number in number(), at in 0_usize..18) {
        let mut digits: Vec<char> = number.chars().collect();
        let at = at % (digits.len() - 1);
        let pair = [digits[at], digits[at + 1]];
        // The one exchange that the check digit cannot see.
        prop_assume!(pair[0] != pair[1] && pair != ['0', '9'] && pair != ['9', '0']);
        digits.swap(at, at + 1);
        let swapped: String = digits.into_iter().collect();
        prop_assert_eq!(Pan::parse(&swapped).err(), Some(PanError::CheckDigit));
    }

    #[test]
    fn first_six_and_last_four_are_shown_and_never_more(number in number()) {
        let pan = Pan::parse(&number).unwrap();
        let shown = pan.truncate();
        prop_assert_eq!(&shown.last4, &number[number.len() - 4..]);
        let first6 = (number.len() >= 15).then(|| &number[..6]);
        prop_assert_eq!(shown.first6.as_deref(), first6);
        let everything = format!("{:?} {:?} {}", pan, shown, serde_json::to_string(&shown).unwrap());
        for run in number.as_bytes().windows(7) {
            prop_assert!(!everything.contains(std::str::from_utf8(run).unwrap()));
        }
    }

    #[test]
    fn a_number_is_for_tests_or_for_real_and_never_both(number in number(), volume in 0_u64..1_000_000_000) {
        let modes = |number: &str| {
            let pan = Pan::parse(number).unwrap();
            (pan.check_mode(Mode::Test).is_ok(), pan.check_mode(Mode::Live).is_ok())
        };
        let (test, live) = modes(&number);
        prop_assert_ne!(test, live);
        for bin in ["468738", "468739"] {
            let body = format!("{bin}{volume:09}");
            prop_assert_eq!(modes(&format!("{body}{}", check_digit(&body))), (true, false));
        }
    }
}
