//! A caller's own request: whatever it is, it is refused or filled, and a value never changes its shape.

#![no_main]

use std::sync::LazyLock;

use cardvault::forwarding::placeholder::{Text, Values};
use cardvault::forwarding::request::{Request, Sent};
use cardvault::forwarding::spec::{ForwardSpec, Rules};
use libfuzzer_sys::fuzz_target;

/// A destination that takes almost everything.
static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let spec = serde_json::json!({
        "methods": ["GET", "POST", "PUT", "PATCH", "DELETE"],
        "paths": ["/*", "/*/*", "/*/*/*"],
        "query": ["q"],
        "bodies": ["json", "form", "xml"],
        "headers": ["x-a"],
        "card_headers": ["x-card"],
        "leaves": ["**"],
        "card_leaves": ["**"],
    });
    let spec: ForwardSpec = serde_json::from_value(spec).expect("a sound declaration");
    Rules::compile(spec).expect("a sound declaration")
});

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let fill = |number, zip| Values { number, month: "01", year: "2030", zip };
    if let Ok(leaf) = Text::parse(&text) {
        let filled = leaf.fill(&fill("4242424242424242", Some("94107")));
        assert!(leaf.has_slots() || filled.as_deref() == Some(&*text));
    }
    let Ok(sent) = serde_json::from_slice::<Sent>(data) else { return };
    let Ok(request) = Request::check(sent, &RULES) else { return };
    let plain = request.fill(&RULES, &fill("4242424242424242", Some("94107")), &[]);
    let hostile = request.fill(&RULES, &fill("4242424242424242", Some("\"<&>'=%}{,")), &[]);
    let (Ok(plain), Ok(hostile)) = (plain, hostile) else { return };
    let shape = |body: &str| {
        serde_json::from_str::<serde_json::Value>(body).ok().map(|json| json.to_string().matches(['{', '[']).count())
    };
    assert_eq!(shape(&plain.body).is_some(), shape(&hostile.body).is_some());
    assert_eq!(plain.headers.len(), hostile.headers.len());
});
