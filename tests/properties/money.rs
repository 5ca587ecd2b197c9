//! Money on its way to a processor: the amount that was asked for, exactly, or a refusal before anything is rendered.

use cardvault::connector::{Amount, Billing, Card, Connector, Operation, Values, builtin};
use proptest::prelude::*;

/// A currency, and what Stripe is sent for so many minor units of ISO 4217: its list of zero-decimal and three-decimal
/// currencies and of its exceptions (contracts.md names JPY, KWD, ISK, CLP, UGX).
type Rule = fn(i64) -> Option<i64>;
const STRIPE: [(&str, Rule); 8] = [
    ("USD", Some),
    ("EUR", Some),
    ("JPY", Some),
    ("CLP", Some),
    // Three decimals, and the last is nought.
    ("KWD", |minor| (minor % 10 == 0).then_some(minor)),
    // No decimals, sent with two.
    ("ISK", |minor| minor.checked_mul(100)),
    ("UGX", |minor| minor.checked_mul(100)),
    // Two decimals in ISO 4217, none here.
    ("MGA", |minor| (minor % 100 == 0).then_some(minor / 100)),
];

/// The amount that a rendered sale tells; none if it was refused.
fn rendered(connector: &Connector, minor: i64, currency: &str) -> Option<i64> {
    let values = Values {
        card: Some(Card {
            number: "4242424242424242",
            exp_month: 12,
            exp_year: 2030,
            cvc: None,
            brand: None,
        }),
        billing: Billing { zip: Some("94107"), ..Billing::default() },
        amount: Some(Amount { minor, currency }),
        attempt_id: "att_1",
        attempt_ref: "att_1",
        credentials: &[("secret_key", "sk_test_sandbox")],
        capture_final: true,
        ..Values::default()
    };
    let rendered = connector.render(Operation::Sale, &values).ok()?;
    let body = std::str::from_utf8(&rendered.body).unwrap();
    let amount = body.split('&').find_map(|pair| pair.strip_prefix("amount=")).expect("no amount");
    Some(amount.parse().expect("the amount is no integer"))
}

fn amounts() -> impl Strategy<Value = i64> {
    prop_oneof![1_i64..100_000, (1_i64..1_000_000).prop_map(|n| n * 100), 1_i64..=i64::MAX]
}

proptest! {
    #[test]
    fn an_amount_is_rendered_exactly_or_refused(minor in amounts(), at in 0..STRIPE.len()) {
        let stripe = builtin("stripe").unwrap();
        let (currency, rule) = STRIPE[at];
        prop_assert_eq!(rendered(&stripe, minor, currency), rule(minor), "{}", currency);
        // What is checked before the card is opened is what is decided when it is rendered, again and again.
        let checked = stripe.check_amount(minor, currency).is_ok();
        prop_assert_eq!(checked, rule(minor).is_some(), "{}", currency);
        prop_assert_eq!(stripe.check_amount(minor, currency).is_ok(), checked);
    }

    #[test]
    fn no_negative_amount_and_no_unknown_currency_is_taken(minor in amounts(), code in "[A-Za-z]{0,4}") {
        for name in ["stripe", "sandbox"] {
            let connector = builtin(name).unwrap();
            prop_assert!(connector.check_amount(-minor, "USD").is_err());
            let known = cardvault::connector::currency(&code).is_some();
            if !known {
                prop_assert!(connector.check_amount(minor, &code).is_err(), "{}", code);
            }
        }
    }
}
