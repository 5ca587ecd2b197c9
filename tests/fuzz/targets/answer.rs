//! Whatever a processor answers: one of the outcomes, bounded fields, and never a panic.

#![no_main]

use cardvault::connector::{Connector, Operation, Word, builtin, builtin_names};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static CONNECTORS: LazyLock<Vec<Connector>> = LazyLock::new(|| builtin_names().filter_map(builtin).collect());

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
});
