//! The answer to a forward goes back to the caller, redacted: of this card's number in whatever form, and, outside the leaves that the
//! destination declares, of every number that could be a card's. Else a number that was parked at a processor under one token
//! could be read back under another.

use std::sync::Arc;

use hyper::header::CONTENT_TYPE;

use super::connection::Got;
use super::fault::Fault;
use super::scrub::Scrubber;
use crate::forwarding::body::{Body, Encoding, Filled};
use crate::forwarding::json::{Json, Leaf};
use crate::forwarding::spec::Rules;
use crate::wire::forwarder::{FORWARDED_HEADER_BYTES_MAX, Forwarded};

/// Redacts an answer; with a fault of one that is not given back. A large answer takes a while, so it is done beside the exchanges.
pub(super) async fn read(
    rules: &Arc<Rules>,
    scrub: Vec<String>,
    got: Got,
) -> (Option<Box<Forwarded>>, Option<Fault>) {
    if !got.is_identity {
        let http_status = got.status;
        let (headers, body) = (Vec::new(), String::new());
        let bare = Forwarded { http_status, headers, is_json: false, body };
        return (Some(Box::new(bare)), Some(Fault::Encoding));
    }
    let rules = Arc::clone(rules);
    let redacted = tokio::task::spawn_blocking(move || redact(&rules, &Scrubber::new(&scrub), got)).await;
    match redacted {
        Ok(forwarded) => (Some(Box::new(forwarded)), None),
        Err(_) => (None, Some(Fault::Internal)),
    }
}

fn redact(rules: &Rules, scrubber: &Scrubber, got: Got) -> Forwarded {
    let mut headers = Vec::new();
    let wanted = rules.spec.answer_headers.iter().map(String::as_str);
    for name in [CONTENT_TYPE.as_str()].into_iter().chain(wanted) {
        let value = got.headers.get(name).map(hyper::header::HeaderValue::as_bytes);
        let is_new = headers.iter().all(|(known, _): &(String, String)| known != name);
        if let Some(value) =
            value.filter(|value| is_new && value.len() <= FORWARDED_HEADER_BYTES_MAX as usize)
        {
            let text = String::from_utf8_lossy(value).into_owned();
            headers.push((name.to_owned(), scrubber.redact(text, true)));
        }
    }
    let text = String::from_utf8_lossy(&got.body);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let is_form = headers.first().is_some_and(|(_, value)| value.starts_with(Encoding::Form.content_type()));
    let (is_json, body) = match json_of(text).map(|json| redact_json(rules, scrubber, &json)) {
        Some(Ok(body)) => (true, body),
        Some(Err(body)) => (false, body),
        None => {
            let by_leaf = redact_leaves(rules, scrubber, text, is_form);
            (false, by_leaf.unwrap_or_else(|| scrubber.redact(text.to_owned(), true)))
        }
    };
    Forwarded { http_status: got.status, headers, is_json, body }
}

fn json_of(text: &str) -> Option<Json> {
    text.trim_start().starts_with(['{', '[']).then(|| Json::parse(text, false).ok()).flatten()
}

/// The redacted JSON; as text, which it may not be any more, if a value stands across several leaves.
fn redact_json(rules: &Rules, scrubber: &Scrubber, json: &Json) -> Result<String, String> {
    let mut redact = |names: &[String], leaf: Leaf<'_>| -> Result<Json, std::convert::Infallible> {
        let strays = !rules.is_exempt(names);
        Ok(match leaf {
            Leaf::Text(text) => Json::Text(scrubber.redact(text.to_owned(), strays)),
            Leaf::Raw(raw) => {
                let clean = scrubber.redact(raw.to_owned(), strays);
                let is_clean =
                    clean == raw && digits_of(raw).is_none_or(|d| scrubber.redact(d.clone(), strays) == d);
                if is_clean { Json::Raw(raw.to_owned()) } else { Json::Text(REDACTED_NUMBER.to_owned()) }
            }
        })
    };
    let rename = |name: &str| scrubber.redact(name.to_owned(), true);
    let Ok(clean) = json.map(&mut Vec::new(), &rename, &mut redact);
    let mut text = String::new();
    clean.write(&mut text);
    let again = scrubber.redact(text.clone(), false);
    if again == text { Ok(text) } else { Err(again) }
}

/// The redacted form or XML document, if the destination declares leaves in which a number may look like a card's, and the answer is
/// one whose names hold nothing of the kind; it is written anew.
fn redact_leaves(rules: &Rules, scrubber: &Scrubber, text: &str, is_form: bool) -> Option<String> {
    if rules.spec.exempt.is_empty() {
        return None;
    }
    let body = if is_form {
        Body::Form(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    } else {
        text.trim_start().starts_with('<').then(|| Body::xml(text).ok()).flatten()?
    };
    let mut names_are_clean = true;
    let Ok(()) = body.walk(&mut |names: &[String], _| {
        names_are_clean &= names.iter().all(|name| scrubber.redact(name.clone(), true) == *name);
        Ok::<(), std::convert::Infallible>(())
    });
    let mut redact = |names: &[String], text: &str| {
        let clean = scrubber.redact(text.to_owned(), !rules.is_exempt(names));
        Ok::<Filled, std::convert::Infallible>(Filled::Text(clean))
    };
    let Ok(clean) = body.fill(&mut redact);
    names_are_clean.then(|| scrubber.redact(clean.write(), false))
}

/// What stands in place of a number that is no text.
const REDACTED_NUMBER: &str = "[redacted]";

/// The digits of a number that is written with a point or an exponent.
fn digits_of(raw: &str) -> Option<String> {
    let is_written_so = raw.contains(['.', 'e', 'E']);
    raw.parse::<f64>().ok().filter(|number| is_written_so && number.is_finite()).map(|n| format!("{n:.0}"))
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::forwarding::spec::ForwardSpec;

    const PAN: &str = "4242424242424242";
    const OTHER: &str = "5555555555554444";
    const SECRET: &str = "sk_test_one+two";

    fn rules() -> Rules {
        let spec: ForwardSpec = toml::from_str(
            "methods = [\"GET\"]\npaths = [\"/x\"]\nanswer_headers = [\"request-id\", \"content-type\"]\nexempt = [\"id\", \"items.*.id\"]",
        )
        .unwrap();
        Rules::compile(spec).unwrap()
    }

    fn answer(body: &[u8]) -> Forwarded {
        answer_as("application/json", body)
    }

    fn answer_as(content_type: &'static str, body: &[u8]) -> Forwarded {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(content_type));
        headers.insert("request-id", HeaderValue::from_static("r 5555 5555 5555 4444"));
        headers.insert("set-cookie", HeaderValue::from_static("a=b"));
        let got = Got { status: 200, is_identity: true, headers, body: body.to_vec() };
        let scrubber = Scrubber::new(&[PAN.to_owned(), "90210".to_owned(), SECRET.to_owned()]);
        redact(&rules(), &scrubber, got)
    }

    #[test]
    fn a_json_answer_is_redacted_leaf_by_leaf_and_else_goes_back_as_it_was_written() {
        for (body, clean) in [
            (
                r#"{"a": 1.10, "b": [true, null, 10000000000000000000000001], "c": "x\u00e9"}"#,
                "{\"a\":1.10,\"b\":[true,null,10000000000000000000000001],\"c\":\"xé\"}",
            ),
            (r#"{"n":4242424242424242}"#, r#"{"n":"[redacted]"}"#),
            (r#"{"n":4.242424242424242e15}"#, r#"{"n":"[redacted]"}"#),
            (r#"{"n":"4242\u0034242 4242-4242"}"#, r#"{"n":"[redacted]"}"#),
            (r#"{"n":"\uff14\uff12424242 42424242"}"#, r#"{"n":"[redacted]"}"#),
            (
                r#"{"other":5555555555554444,"s":"a 5555-5555-5555-4444 b"}"#,
                r#"{"other":"[redacted]","s":"a [redacted] b"}"#,
            ),
            (r#"{"s":"%35555555555554444"}"#, r#"{"s":"[redacted]"}"#),
            (r#"{"5555555555554444":{"4242424242424242":1}}"#, r#"{"[redacted]":{"[redacted]":1}}"#),
            // Declared: no number of others is looked for there, but this card's own is.
            (
                r#"{"id":"5555555555554444","items":[{"id":5555555555554444}]}"#,
                r#"{"id":"5555555555554444","items":[{"id":5555555555554444}]}"#,
            ),
            (r#"{"id":"4242424242424242"}"#, r#"{"id":"[redacted]"}"#),
            (
                r#"{"zip":"90210","near":"190210","k":"sk_test_one+two"}"#,
                r#"{"zip":"[redacted]","near":"190210","k":"[redacted]"}"#,
            ),
            ("\u{feff}[]", "[]"),
        ] {
            let forwarded = answer(body.as_bytes());
            assert_eq!((forwarded.body.as_str(), forwarded.is_json), (clean, true));
        }
    }

    #[test]
    fn what_is_no_json_is_redacted_as_text() {
        for (body, clean) in [
            ("n=4242424242424242&o=5555555555554444", "n=[redacted]&o=[redacted]"),
            ("<n>42424242&#52;2424242</n>", "<n>[redacted]</n>"),
            ("{\"n\":\"4242424242424242\"", "{\"n\":\"[redacted]\""),
            ("", ""),
        ] {
            let forwarded = answer(body.as_bytes());
            assert_eq!((forwarded.body.as_str(), forwarded.is_json), (clean, false));
        }
        // UTF-16, and a number that stands across several leaves.
        let wide: Vec<u8> = PAN.bytes().flat_map(|byte| [0, byte]).collect();
        assert!(!answer(&wide).body.contains("2\u{0}4"));
        let apart = answer(br#"{"n":["4242","4242","4242","4242"]}"#);
        assert_eq!((apart.body.as_str(), apart.is_json), (r#"{"n":["[redacted]"]}"#, false));
    }

    #[test]
    fn what_is_declared_in_a_form_or_a_document_may_look_like_a_number() {
        let form = b"id=5555555555554444&n=5555555555554444&own=4242424242424242&id=4242424242424242";
        let clean = "id=5555555555554444&n=%5Bredacted%5D&own=%5Bredacted%5D&id=%5Bredacted%5D";
        assert_eq!(answer_as("application/x-www-form-urlencoded", form).body, clean);
        let xml = b"<items><a><id>5555555555554444</id><n k=\"5555555555554444\">x 4242 4242 4242 4242</n></a></items>";
        let clean = "<items><a><id>5555555555554444</id><n k=\"[redacted]\">x [redacted]</n></a></items>";
        assert_eq!(answer_as("text/xml", xml).body, clean);
        // A document type, or a number in a name: text again, where nothing is exempt.
        for text in [
            "<!DOCTYPE a><items><a><id>5555555555554444</id></a></items>",
            "<items><a><id>5555555555554444</id><n5555555555554444/></a></items>",
        ] {
            assert!(!answer_as("text/xml", text.as_bytes()).body.contains(OTHER));
        }
    }

    #[test]
    fn the_headers_that_are_declared_go_back_redacted() {
        let headers = answer(b"{}").headers;
        let expected = [("content-type", "application/json"), ("request-id", "r [redacted]")];
        assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    proptest! {
        #[test]
        fn no_answer_gives_a_number_back(before in "\\PC{0,20}", key in "[a-z]{0,6}", after in "\\PC{0,20}", own in any::<bool>()) {
            let number = if own { PAN } else { OTHER };
            let text = serde_json::to_string(&format!("{before} {number} {after}")).unwrap();
            for body in [format!("{{\"x{key}\":[{text}]}}"), format!("{before}|{number}|{after}"), format!("{{\"k\":{number}}}")] {
                prop_assert!(!answer(body.as_bytes()).body.contains(number));
            }
        }
    }
}
