//! A connector file and the values of a charge: nothing in either makes the boundary panic, hang or write a request that is
//! not of its form.

#![no_main]

use cardvault::connector::{
    Amount, Billing, Card, Connector, EndpointParts, Initiator, Previous, Reason, SendMoment, StoredCredential,
    Use, Values, builtin, builtin_names,
};
use libfuzzer_sys::fuzz_target;

/// Connectors that somebody else could have written, with what those that come with the program do not use.
const OTHERS: &[&str] = &[
    include_str!("../../vectors/recorded/airwallex/connector.toml"),
    include_str!("../../vectors/recorded/commerce_hub/connector.toml"),
    include_str!("../../vectors/recorded/eway/connector.toml"),
    include_str!("../../vectors/recorded/global_collect/connector.toml"),
    include_str!("../../vectors/recorded/gp_api/connector.toml"),
    include_str!("../../vectors/recorded/heartland/connector.toml"),
    include_str!("../../vectors/recorded/moneris/connector.toml"),
    include_str!("../../vectors/recorded/nuvei/connector.toml"),
    include_str!("../../vectors/recorded/ogone/connector.toml"),
    include_str!("../../vectors/recorded/opayo/connector.toml"),
    include_str!("../../vectors/recorded/payeezy/connector.toml"),
    include_str!("../../vectors/recorded/rapyd/connector.toml"),
    include_str!("../../vectors/recorded/realex/connector.toml"),
    include_str!("../../vectors/recorded/usa_epay/connector.toml"),
];

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    let names: Vec<&str> = builtin_names().collect();
    let choice = usize::from(*choice);
    let other = choice.checked_sub(names.len()).and_then(|index| OTHERS.get(index));
    match (names.get(choice), other) {
        // One of ours, and whatever a caller may say.
        (Some(name), _) => {
            if let Some(connector) = builtin(name) {
                render(&connector, &text);
            }
        }
        (None, Some(other)) => {
            if let Ok(connector) = Connector::parse("other.toml", other) {
                render(&connector, &text);
            }
        }
        // A file of anybody's.
        (None, None) => {
            if let Ok(connector) = Connector::parse("fuzz.toml", &text) {
                render(&connector, "x < & \" ' \u{1f600} %0d%0a }} {card.number}");
            }
        }
    }
});

fn render(connector: &Connector, said: &str) {
    let credentials: Vec<(&str, &str)> = connector.credentials().map(|(field, _)| (field, "AAAA")).collect();
    let stored_credential = StoredCredential {
        usage: Use::Subsequent,
        initiator: Initiator::Merchant,
        reason: Reason::Recurring,
        ntid: Some(said),
        tlid: Some(said),
        original_amount: Some(1),
        previous: Some(said),
    };
    let values = Values {
        card: Some(Card { number: "4242424242424242", exp_month: 1, exp_year: 2030, cvc: Some("123"), brand: Some("visa") }),
        billing: Billing {
            zip: Some(said),
            name: Some(said),
            line1: Some(said),
            line2: Some(said),
            city: Some(said),
            region: Some(said),
            country: Some(said),
            email: Some(said),
        },
        amount: Some(Amount { minor: 1999, currency: "USD" }),
        attempt_id: "att_0",
        attempt_ref: "ref0",
        stored_credential: Some(stored_credential),
        credentials: &credentials,
        previous: Previous { transaction: Some(said), amount: Some(5), attempt: Some("att_1"), reference: Some("ref1"), ntid: Some(said) },
        description: Some(said),
        statement_descriptor: Some(said),
        invoice: Some(said),
        customer: Some(said),
        moment: SendMoment { unix_ms: 1_700_000_000_000, nonce: "n0nce", mark: "m0123456789" },
        endpoint: EndpointParts { host: "h.example", prefix: "" },
        ..Values::default()
    };
    for operation in connector.operations() {
        let _ = connector.render_for_mac(operation, &values);
        let _ = connector.render_for_show(operation, &values);
        let Ok(rendered) = connector.render(operation, &values) else { continue };
        assert!(rendered.path_and_query.starts_with('/'));
        for (name, value) in &rendered.headers {
            assert!(value.bytes().all(|byte| (0x20..=0x7e).contains(&byte)), "{name}");
        }
        let kind = rendered.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if kind.is_some_and(|(_, value)| value.as_str() == "application/json") {
            assert!(serde_json::from_slice::<serde_json::Value>(&rendered.body).is_ok());
        }
    }
}
