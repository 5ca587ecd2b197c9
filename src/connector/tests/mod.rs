//! The connector language against the built-in connectors, recorded answers and arbitrary values.

mod fixtures;
mod json_apis;
mod language;
mod mixed_apis;
mod properties;
mod recorded;
mod requests;
mod updates;
mod vectors;
mod webhooks;
mod wires;
mod xml_apis;

use std::sync::LazyLock;

pub(crate) use wires::stepped_text;

use super::{
    Amount, Billing, Card, Connector, EndpointParts, Initiator, Reason, StoredCredential, Use, Values,
};

/// The built-in connectors, compiled once: properties ask them many times.
pub(super) static CONNECTORS: LazyLock<Vec<(&str, Connector)>> =
    LazyLock::new(|| super::builtin_names().map(|name| (name, super::builtin(name).unwrap())).collect());

/// A published test number.
pub(super) const NUMBER: &str = "4242424242424242";

/// What the built-in connectors ask an operator for.
const CREDENTIALS: &[(&str, &str)] = &[
    ("secret_key", "sk_test_canary"),
    ("basic_auth", "dXNlcjpjYW5hcnk="),
    ("merchant_account", "MerchantAccount"),
    ("merchant_account_id", "merchant_usd"),
    ("merchant_id", "m-1"),
    ("key_id", "k-1"),
    ("shared_secret", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
];

/// A plain sale of 20.20.
pub(super) fn sale<'v>() -> Values<'v> {
    Values {
        card: Some(Card { number: NUMBER, exp_month: 3, exp_year: 2030, cvc: None, brand: Some("visa") }),
        billing: Billing { zip: Some("94107"), ..Billing::default() },
        amount: Some(Amount { minor: 2020, currency: "USD" }),
        attempt_id: "att_test",
        attempt_ref: "ref_test",
        credentials: CREDENTIALS,
        endpoint: EndpointParts { host: "api.test.example", prefix: "" },
        ..Values::default()
    }
}

/// The same, charged by the merchant under an agreement.
pub(super) fn merchant<'v>() -> Values<'v> {
    let stored = StoredCredential {
        usage: Use::Subsequent,
        initiator: Initiator::Merchant,
        reason: Reason::Recurring,
        ntid: Some("1098510912210968"),
        tlid: None,
        original_amount: Some(2020),
        previous: None,
    };
    Values { stored_credential: Some(stored), ..sale() }
}
