//! No value changes the shape of a request, and no answer breaks the mapping.

use proptest::prelude::*;
use serde_json::Value;

use super::super::{Billing, Card, Operation, Outcome, Previous, SendMoment, Values, Word, builtin};
use super::{CONNECTORS, sale};

/// Names and kinds, without the values.
fn shape(json: &Value) -> String {
    match json {
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("{name}:{};", shape(value))).collect::<String>() + "}"
        }
        Value::Array(items) => items.iter().map(shape).collect::<String>() + "]",
        Value::String(_) => "text".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Null => "null".to_owned(),
    }
}

fn with<'v>(text: &'v str, number: &'v str) -> Values<'v> {
    Values {
        card: Some(Card { number, exp_month: 3, exp_year: 2030, cvc: Some(text), brand: None }),
        billing: Billing { zip: Some(text), name: Some(text), line1: Some(text), ..Billing::default() },
        description: Some(text),
        invoice: Some(text),
        ..sale()
    }
}

/// JSON built from the keys and words of both wire forms.
fn answer() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "succeeded",
        "requires_capture",
        "requires_action",
        "requires_payment_method",
        "processing",
        "canceled",
        "failed",
        "pending",
        "approved",
        "authorized",
        "declined",
        "voided",
        "error",
        "payment_intent",
        "setup_intent",
        "refund",
        "charge",
        "card_error",
        "idempotency_error",
        "sale",
        "void",
        "att_test",
        "usd",
        "JPY",
    ]);
    let leaf = prop_oneof![
        word.prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(Value::Null),
    ];
    let key = prop::sample::select(vec![
        "status",
        "object",
        "error",
        "type",
        "code",
        "decline_code",
        "data",
        "id",
        "amount",
        "amount_approved",
        "latest_charge",
        "payment_method_details",
        "card",
        "amount_authorized",
        "payment_intent",
        "operation",
        "paid",
        "currency",
        "metadata",
        "attempt",
        "has_more",
        "message",
        "amount_received",
        "processor_ms",
        "avs",
        "zip",
    ]);
    leaf.prop_recursive(5, 48, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..8).prop_map(|pairs| {
                Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_value_changes_the_shape(text in "\\PC{1,64}|[\"\\\\{}&=%+;\\r\\n\\x00/?#\\[\\]]{1,32}", number in "\\PC{1,40}") {
        let values = with(&text, &number);
        let plain = with("plain", "4242424242424242");

        let sandbox = builtin("sandbox").unwrap();
        let ours: Value = serde_json::from_slice(&sandbox.render(Operation::Sale, &values).unwrap().body).unwrap();
        let usual: Value = serde_json::from_slice(&sandbox.render(Operation::Sale, &plain).unwrap().body).unwrap();
        prop_assert_eq!(shape(&ours), shape(&usual));
        prop_assert_eq!(ours["card"]["number"].as_str(), Some(number.as_str()));
        prop_assert_eq!(ours["description"].as_str(), Some(text.as_str()));

        let stripe = builtin("stripe").unwrap();
        let sent = stripe.render(Operation::Sale, &values).unwrap();
        let ours: Vec<(String, String)> = form_urlencoded::parse(&sent.body).into_owned().collect();
        let usual = stripe.render(Operation::Sale, &plain).unwrap();
        let keys = |pairs: &[(String, String)]| pairs.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        let usual: Vec<(String, String)> = form_urlencoded::parse(&usual.body).into_owned().collect();
        prop_assert_eq!(keys(&ours), keys(&usual));
        prop_assert!(ours.contains(&("description".to_owned(), text.clone())));
    }

    #[test]
    fn no_value_leaves_its_path_segment(id in "\\PC{1,64}|[./%?#\\\\]{1,8}") {
        for (_, connector) in CONNECTORS.iter() {
            let credentials: Vec<(&str, &str)> = connector.credentials().map(|(field, _)| (field, "c3d4")).collect();
            let with = |id| Values {
                previous: Previous {
                    transaction: Some(id),
                    attempt: Some("att_p"),
                    reference: Some("ref_p"),
                    ..Previous::default()
                },
                credentials: &credentials,
                moment: SendMoment { unix_ms: 0, nonce: "n0nce", mark: "m4rk" },
                ..sale()
            };
            let usual = connector.render(Operation::Void, &with("usual")).unwrap().path_and_query;
            let usual: Vec<&str> = usual.split('/').collect();
            let place = usual.iter().position(|part| *part == "usual");
            let Ok(rendered) = connector.render(Operation::Void, &with(&id)) else {
                // Only dot segments are refused.
                prop_assert!(place.is_some() && (id == "." || id == ".."));
                continue;
            };
            let path = rendered.path_and_query;
            let parts: Vec<&str> = path.split('/').collect();
            prop_assert_eq!(parts.len(), usual.len());
            prop_assert!(!path.contains(['?', '#', '\\']) && path.is_ascii());
            if let Some(place) = place {
                let decoded = percent_encoding::percent_decode_str(parts[place]).decode_utf8().unwrap();
                prop_assert_eq!(decoded, id.as_str());
            }
        }
    }

    #[test]
    fn no_value_leaves_its_header(key in any::<String>()) {
        let values = Values { attempt_id: &key, ..sale() };
        if let Ok(rendered) = builtin("stripe").unwrap().render(Operation::Sale, &values) {
            for (_, value) in &rendered.headers {
                prop_assert!(value.bytes().all(|byte| (0x20..=0x7e).contains(&byte)));
            }
        }
    }

    #[test]
    fn no_answer_breaks_the_mapping(status in 100_u16..600, body in any::<Vec<u8>>()) {
        for (_, connector) in super::CONNECTORS.iter() {
            for operation in [Operation::Sale, Operation::Lookup] {
                let mapped = connector.map(operation, status, &body);
                prop_assert!(serde_json::to_string(&mapped).is_ok());
            }
        }
    }

    /// Answers made of the words that rules look for: whatever they say together, the facts do not contradict.
    #[test]
    fn no_answer_contradicts_itself(status in 100_u16..600, answer in answer()) {
        for (name, connector) in super::CONNECTORS.iter() {
            for operation in Operation::ALL {
                let body = answer.to_string();
                let mapped = connector.map_attempt(*operation, status, body.as_bytes(), &["att_test"]);
                prop_assert!(!mapped.unknown || mapped.outcome == Outcome::Error);
                prop_assert!(!mapped.partial || mapped.outcome == Outcome::Approved);
                prop_assert!(mapped.outcome != Outcome::NotFound || operation.is_lookup());
                prop_assert!(mapped.amount_approved.is_none() || mapped.outcome == Outcome::Approved);
                prop_assert_eq!(mapped.decline_class.is_some(), matches!(mapped.outcome, Outcome::Declined)
                    || (mapped.outcome == Outcome::Error && !mapped.unknown));
                if status < 200 || (300..400).contains(&status) || status >= 500 {
                    prop_assert!(mapped.unknown, "{} {}", name, status);
                }
                prop_assert!(mapped.message.is_none_or(|text| text.chars().count() <= 1000));
            }
        }
    }

    #[test]
    fn no_missing_line_breaks_the_loader(from in 0_usize..420, lines in 1_usize..6) {
        for name in super::super::builtin_names() {
            let text = super::super::builtin_text(name).unwrap();
            let kept = text.lines().enumerate().filter(|(n, _)| !(from..from + lines).contains(n));
            let damaged: String = kept.flat_map(|(_, line)| [line, "\n"]).collect();
            if let Err(faults) = super::super::Connector::parse("any.toml", &damaged) {
                prop_assert!(!faults.is_empty());
                prop_assert!(faults.iter().all(|fault| (1..=damaged.lines().count() + 1).contains(&fault.line)));
            }
        }
    }

    #[test]
    fn no_text_breaks_the_loader(text in "\\PC{0,400}", cut in 0_usize..4000) {
        let _ = super::super::Connector::parse("any.toml", &text);
        let whole = super::super::builtin_text("stripe").unwrap();
        let start = whole.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(0);
        let damaged = format!("{}{text}{}", &whole[..start], &whole[start..]);
        let _ = super::super::Connector::parse("any.toml", &damaged);
    }
}
