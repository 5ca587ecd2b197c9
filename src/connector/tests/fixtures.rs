//! What answers mean: our own samples, and the recorded traffic that lies beside the project where it is present.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::{Connector, DeclineClass, Mapped, Operation, Outcome, Word, builtin};

fn stripe() -> Connector {
    builtin("stripe").unwrap()
}

fn map(operation: Operation, status: u16, body: &Value) -> Mapped {
    stripe().map(operation, status, body.to_string().as_bytes())
}

/// Each file: connector, operation, http_status, body, and the whole result.
#[test]
fn our_samples() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/connector");
    let files = json_files(&folder);
    assert!(files.len() >= 20, "only {} samples", files.len());
    for (path, sample) in files {
        let connector = builtin(sample["connector"].as_str().unwrap()).unwrap();
        let operation = Operation::parse(sample["operation"].as_str().unwrap()).unwrap();
        let status = u16::try_from(sample["http_status"].as_u64().unwrap()).unwrap();
        let body = sample["body"].as_str().map_or_else(|| sample["body"].to_string(), str::to_owned);
        let mapped = serde_json::to_value(connector.map(operation, status, body.as_bytes())).unwrap();
        assert_eq!(mapped, sample["mapped"], "{}", path.display());
    }
}

/// The folder beside the project or, in a worktree, one further up.
pub(super) fn shared() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    ["../shared/fixtures/processors", "../../shared/fixtures/processors"]
        .iter()
        .map(|folder| root.join(folder))
        .find(|folder| folder.is_dir())
}

/// Every recorded answer of a processor that we have a connector for: outcome, code, network transaction id, address check.
#[test]
fn recorded_answers_are_understood() {
    let Some(folder) = shared() else { return };
    let mut wrong = Vec::new();
    let mut compared = 0;
    for name in super::super::builtin_names().filter(|name| folder.join(name).is_dir()) {
        let connector = builtin(name).unwrap();
        for (path, fixture) in json_files(&folder.join(name)) {
            compared += 1;
            let told = differences(&connector, &fixture);
            wrong.extend(told.into_iter().map(|what| format!("{}: {what}", path.display())));
        }
    }
    assert!(compared >= 6 && wrong.is_empty(), "{compared} compared\n{}", wrong.join("\n"));
}

/// Where a connector does not say what the fixture expects.
fn differences(connector: &Connector, fixture: &Value) -> Vec<String> {
    let operation = match fixture["operation"].as_str().unwrap() {
        "refund" => Operation::Refund,
        "capture" => Operation::Capture,
        "void" => Operation::Void,
        "authorize" => Operation::Authorize,
        "verify" | "store" => Operation::Verify,
        _ => Operation::Sale,
    };
    let status = u16::try_from(fixture["http_status"].as_u64().unwrap()).unwrap();
    let mapped = connector.map(operation, status, fixture["body"].as_str().unwrap().as_bytes());
    let expected = &fixture["expected"];
    let also = fixture["expected"]["also_acceptable"].as_array().cloned().unwrap_or_default();
    // Taken on and finished later counts as taken: the final answer is another's.
    let follows = matches!(operation, Operation::Refund | Operation::Capture | Operation::Void);
    let is_taken_on = mapped.outcome == Outcome::Pending && follows;
    let outcome = if is_taken_on { Outcome::Approved } else { mapped.outcome };
    let mut wrong = Vec::new();
    if expected["outcome"] != outcome.text() && !also.contains(&Value::from(outcome.text())) {
        wrong.push(format!("outcome {} instead of {}", outcome.text(), expected["outcome"]));
    }
    if expected["unknown_outcome"].as_bool().unwrap_or(false) != mapped.unknown {
        wrong.push(format!("unknown is {}", mapped.unknown));
    }
    let mapped = serde_json::to_value(mapped).unwrap();
    let mut same = |ours: &Value, theirs: Option<&Value>, what: &str| {
        if let Some(theirs) = theirs.filter(|theirs| ours != *theirs) {
            wrong.push(format!("{what} {ours} instead of {theirs}"));
        }
    };
    same(&mapped["processor_code"], expected.get("processor_code"), "code");
    same(&mapped["network_transaction_id"], expected.get("network_transaction_id"), "network transaction id");
    same(&mapped["transaction_id"], expected.get("processor_transaction_id"), "transaction id");
    if let Some(avs) = expected.get("avs") {
        same(&mapped["avs"]["raw"], avs.get("raw"), "avs");
        same(&mapped["avs"]["zip"], avs.get("zip"), "zip");
    }
    wrong
}

fn json_files(folder: &Path) -> Vec<(PathBuf, Value)> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let read = |path: PathBuf| {
        let value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        (path, value)
    };
    paths.into_iter().map(read).collect()
}

/// Bytes that are no answer: never approved, never declined.
#[test]
fn an_unreadable_answer_is_unknown() {
    for name in super::super::builtin_names() {
        let connector = builtin(name).unwrap();
        let bodies: [&[u8]; 6] =
            [b"", b"<html>", b"\x00\xff{\"id\":<html>[[[", b"\"succeeded\"", b"true", b"{\"id\":"];
        for body in bodies {
            for status in [200, 201, 302, 500, 502, 504] {
                let mapped = connector.map(Operation::Sale, status, body);
                assert_eq!((mapped.outcome, mapped.unknown), (Outcome::Error, true), "{name} {status}");
            }
            let mapped = connector.map(Operation::Lookup, 200, body);
            assert_eq!((mapped.outcome, mapped.unknown), (Outcome::Error, true), "{name}");
        }
        for status in [401, 403, 429] {
            let mapped = connector.map(Operation::Sale, status, b"");
            assert_eq!((mapped.outcome, mapped.unknown), (Outcome::Error, false), "{name} {status}");
        }
        // An object that no rule knows.
        let mapped = connector.map(Operation::Sale, 200, b"{}");
        assert_eq!((mapped.outcome, mapped.unknown), (Outcome::Error, true), "{name}");
    }
}

/// Bodies in which no processor says that it has no such attempt, whatever their status. An empty list does say so.
const SAY_NOTHING: [&str; 16] = [
    "",
    "{}",
    "null",
    "<html>not found",
    "<html><body><h1>404 Not Found</h1></body></html>",
    "404 page not found",
    "{\"message\":\"no Route matched with those values\"}",
    "{\"error\":{}}",
    "{\"errors\":[]}",
    "{\"data\":null}",
    "{\"data\":{}}",
    "{\"data\":{\"search\":null}}",
    "<paymentService/>",
    "<txn/>",
    "a=b",
    "response=",
];

/// No answer of theirs is read as "there is no such attempt": what was not found there is a person's.
const FIND_NOTHING_NEVER: [&str; 4] = ["adyen", "bluesnap", "elavon", "orbital"];

/// A page of a proxy is no proof that an attempt was never there, at whatever processor: only an answer of its own is that says so,
/// whole, with a status that is no fault.
#[test]
fn finding_nothing_needs_an_answer_that_says_so() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/connector");
    let samples = json_files(&folder);
    for name in super::super::builtin_names() {
        let connector = builtin(name).unwrap();
        let verbs = [Operation::Sale, Operation::Capture, Operation::Refund, Operation::Void];
        let look_ups: Vec<_> = verbs.into_iter().filter_map(|verb| connector.lookup_for(verb)).collect();
        let is_nothing = |operation, status, body: &[u8]| {
            let names = ["att_test", "ref_test"];
            connector.map_attempt(operation, status, body, &names).outcome == Outcome::NotFound
        };
        for operation in &look_ups {
            for status in [200, 202, 204, 302, 400, 401, 403, 404, 410, 429, 500, 502, 503, 504] {
                for body in SAY_NOTHING {
                    let said = is_nothing(*operation, status, body.as_bytes());
                    assert!(!said, "{name} {} {status} {body}", operation.text());
                }
            }
        }
        let says_so =
            |sample: &Value| sample["connector"] == name && sample["mapped"]["outcome"] == "not_found";
        let samples: Vec<_> = samples.iter().filter(|(_, sample)| says_so(sample)).collect();
        assert_eq!(
            samples.is_empty(),
            FIND_NOTHING_NEVER.contains(&name),
            "{name}: a sample shows what says so"
        );
        for (path, sample) in samples {
            let operation = Operation::parse(sample["operation"].as_str().unwrap()).unwrap();
            let body = sample["body"].as_str().map_or_else(|| sample["body"].to_string(), str::to_owned);
            for status in [401, 403, 407, 408, 429, 500, 502, 503, 504] {
                assert!(!is_nothing(operation, status, body.as_bytes()), "{} {status}", path.display());
            }
            for end in 1..body.trim_end().len() {
                let cut = body.as_bytes().get(..end).unwrap();
                assert!(!is_nothing(operation, 200, cut), "{} cut at {end}", path.display());
            }
        }
    }
}

#[test]
fn texts_are_bounded_and_ids_are_whole() {
    let long = "x".repeat(5_000);
    let error = serde_json::json!({ "error": {
        "type": "card_error", "decline_code": long, "message": format!("a\r\nb\u{1b}[31m{long}"), "network_advice_code": long,
        "payment_intent": { "id": long },
    }});
    let mapped = map(Operation::Sale, 402, &error);
    assert_eq!(mapped.outcome, Outcome::Declined);
    assert_eq!(mapped.processor_code.unwrap().len(), 64);
    let message = mapped.message.unwrap();
    assert_eq!(message.chars().count(), 1000);
    assert!(!message.contains(['\r', '\n', '\u{1b}']));
    assert_eq!(mapped.advice_code.unwrap().len(), 32);
    assert_eq!(mapped.transaction_id, None);
}

#[test]
fn the_networks_advice_makes_a_decline_hard() {
    let declined = |advice: &str| {
        let error = serde_json::json!({ "type": "card_error", "decline_code": "insufficient_funds",
            "network_advice_code": advice });
        map(Operation::Sale, 402, &serde_json::json!({ "error": error })).decline_class
    };
    assert_eq!(declined("02"), Some(DeclineClass::Soft));
    assert_eq!(declined("03"), Some(DeclineClass::Hard));
    assert_eq!(declined("21"), Some(DeclineClass::Hard));
}

#[test]
fn a_mapped_answer_passes_a_door_unchanged() {
    let body = serde_json::json!({ "id": "pay_1", "operation": "sale", "status": "approved", "amount": 5,
        "amount_approved": 5, "currency": "USD", "avs": { "zip": "Y" }, "processor_ms": 20.25 });
    let mapped = builtin("sandbox").unwrap().map(Operation::Sale, 200, body.to_string().as_bytes());
    assert_eq!((mapped.amount_approved, mapped.processor_ms), (Some(5), Some(20.25)));
    let bytes = postcard::to_stdvec(&mapped).unwrap();
    assert!(postcard::from_bytes::<Mapped>(&bytes).unwrap() == mapped);
    assert_eq!(
        format!("{mapped:?}"),
        "Mapped { outcome: Approved, unknown: false, decline_class: None, .. }"
    );
}
