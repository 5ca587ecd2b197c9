//! No value changes the shape of a request, and no answer breaks the mapping.

use proptest::prelude::*;
use serde_json::Value;

use super::super::{Billing, Card, Operation, Previous, Values, builtin};
use super::sale;

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
        let previous = Previous { transaction: Some(&id), ..Previous::default() };
        let values = Values { previous, ..sale() };
        for name in super::super::builtin_names() {
            let Ok(rendered) = builtin(name).unwrap().render(Operation::Void, &values) else {
                // Only dot segments are refused.
                prop_assert!(id == "." || id == "..");
                continue;
            };
            let path = rendered.path_and_query;
            let parts: Vec<&str> = path.split('/').collect();
            prop_assert_eq!(parts.len(), 5);
            prop_assert!(!path.contains(['?', '#', '\\']) && path.is_ascii());
            let decoded = percent_encoding::percent_decode_str(parts[3]).decode_utf8().unwrap();
            prop_assert_eq!(decoded, id.as_str());
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
        for name in super::super::builtin_names() {
            let connector = builtin(name).unwrap();
            for operation in [Operation::Sale, Operation::Lookup] {
                let mapped = connector.map(operation, status, &body);
                prop_assert!(serde_json::to_string(&mapped).is_ok());
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
