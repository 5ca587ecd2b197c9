//! Whatever a processor answers: one of the outcomes, bounded fields, and never a panic.

#![no_main]

use cardvault::connector::{Connector, Delivery, Operation, Word, builtin, builtin_names};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

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

static CONNECTORS: LazyLock<Vec<Connector>> = LazyLock::new(|| {
    let others = OTHERS.iter().filter_map(|text| Connector::parse("other.toml", text).ok());
    builtin_names().filter_map(builtin).chain(others).collect()
});

fuzz_target!(|data: &[u8]| {
    let [which, operation, status, more, body @ ..] = data else { return };
    let connector = CONNECTORS.get(usize::from(*which) % CONNECTORS.len());
    let operation = Operation::ALL.get(usize::from(*operation) % Operation::ALL.len());
    let (Some(connector), Some(operation)) = (connector, operation) else { return };
    let status = 100 + (u16::from(*status) * 2 + u16::from(*more & 1)) % 500;
    for mapped in [
        connector.map(*operation, status, body),
        connector.map_attempt(*operation, status, body, &["att_1", "ref1"]),
    ] {
        let bounded = |text: &Option<String>, chars| text.as_ref().is_none_or(|t| t.chars().count() <= chars);
        assert!(bounded(&mapped.processor_code, 64) && bounded(&mapped.message, 1000));
        assert!(bounded(&mapped.transaction_id, 255) && bounded(&mapped.network_transaction_id, 255));
        let is_done = mapped.outcome.text() == "approved" || mapped.outcome.text() == "pending";
        assert!(!is_done || (!body.is_empty() && !mapped.unknown));
    }
    let _ = connector.read_step(0, status, body);
    for told in connector.map_webhook(body).into_iter().flatten() {
        assert!(told.reference.is_none_or(|text| text.len() <= 255) && told.of.len() <= Operation::ALL.len());
    }
    let sets = [connector.webhook_credentials().into_iter().map(|field| (field, "00ff")).collect::<Vec<_>>()];
    let text = String::from_utf8_lossy(body).into_owned();
    let headers = [("cko-signature".to_owned(), text.clone()), ("authorization".to_owned(), text)];
    assert!(connector.read_webhook(&Delivery { headers: &headers, body, unix_s: 0 }, &sets).is_err());
});
