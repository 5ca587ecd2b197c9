//! Recorded traffic as data, one folder for each processor in `tests/vectors/recorded`: those that come with the program, and
//! others, whose connector lies beside its traffic. These are no connectors to charge with: they show what the language can say.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::{
    Amount, Billing, Card, Connector, EndpointParts, Initiator, Operation, Previous, Reason, Rendered,
    SendMoment, StoredCredential, Use, Values, Word, builtin,
};

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/recorded");
    let mut all: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.is_dir());
    all.sort();
    all
}

/// The connector of a folder: its own, or the one that comes with the program.
fn connector(folder: &Path) -> Connector {
    let name = folder.file_name().unwrap().to_str().unwrap();
    let own = folder.join("connector.toml");
    if !own.is_file() {
        return builtin(name).unwrap();
    }
    let text = std::fs::read_to_string(&own).unwrap();
    Connector::parse(&own.display().to_string(), &text).unwrap_or_else(|faults| {
        panic!("{}", faults.iter().map(|fault| format!("{fault}\n")).collect::<String>())
    })
}

fn cases(folder: &Path, file: &str) -> Vec<Value> {
    let path = folder.join(file);
    if !path.is_file() {
        return Vec::new();
    }
    let text = std::fs::read(&path).unwrap();
    let list: Vec<Value> =
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(!list.is_empty(), "{}", path.display());
    list
}

/// `answers.json`: case, operation, http_status, body (a text, or JSON), and what of the result is known.
#[test]
fn answers_mean_what_they_meant() {
    let (mut wrong, mut others, mut compared) = (Vec::new(), 0, 0);
    for folder in folders() {
        let connector = connector(&folder);
        others += usize::from(folder.join("connector.toml").is_file());
        for case in cases(&folder, "answers.json") {
            compared += 1;
            let operation = Operation::parse(case["operation"].as_str().unwrap()).unwrap();
            let status = u16::try_from(case["http_status"].as_u64().unwrap()).unwrap();
            let body = case["body"].as_str().map_or_else(|| case["body"].to_string(), str::to_owned);
            let mapped = connector.map_attempt(operation, status, body.as_bytes(), &["att_test", "ref_test"]);
            let mapped = serde_json::to_value(mapped).unwrap();
            let expected = case["expected"].as_object().unwrap();
            assert!(expected.contains_key("outcome") && case["source"].is_string(), "{case}");
            let usual = Value::Bool(false);
            let unknown = ("unknown".to_owned(), expected.get("unknown").unwrap_or(&usual).clone());
            for (key, theirs) in expected.iter().chain([(&unknown.0, &unknown.1)]) {
                let ours = key.split('.').fold(&mapped, |at, part| &at[part]);
                if ours != theirs {
                    let name = connector.name();
                    wrong.push(format!("{name}, {}: {key} is {ours}, not {theirs}", case["case"]));
                }
            }
        }
    }
    assert!(others >= 10 && compared >= 80, "{others} other processors, {compared} answers");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `requests.json`: case, operation, charge, credentials, and texts that the request must (`holds`) and must not (`lacks`) hold.
#[test]
fn requests_say_what_they_said() {
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for folder in folders() {
        let connector = connector(&folder);
        for case in cases(&folder, "requests.json") {
            let shown = as_text(&connector, &case);
            let texts = |key: &str| {
                let list = case[key].as_array().cloned().unwrap_or_default();
                list.into_iter().map(|text| text.as_str().unwrap().to_owned()).collect::<Vec<_>>()
            };
            let (holds, lacks) = (texts("holds"), texts("lacks"));
            assert!(!holds.is_empty(), "{case}");
            compared += holds.len();
            let missing = holds.iter().filter(|text| !shown.contains(text.as_str()));
            let present = lacks.iter().filter(|text| shown.contains(text.as_str()));
            for text in missing.chain(present) {
                wrong.push(format!("{}, {}: {text}\nin {shown}", connector.name(), case["case"]));
            }
        }
    }
    assert!(compared >= 60, "{compared}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Request and steps, one after the other, each as method and path, headers, body.
fn as_text(connector: &Connector, case: &Value) -> String {
    let charge = &case["charge"];
    let credentials: Vec<(&str, &str)> = case["credentials"]
        .as_object()
        .map(|fields| fields.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect())
        .unwrap_or_default();
    let values = Values {
        credentials: &credentials,
        moment: SendMoment {
            unix_ms: case["unix_ms"].as_i64().unwrap_or(1_670_258_885_014),
            nonce: case["nonce"].as_str().unwrap_or("0123456789abcdef0123456789abcdef"),
            mark: "MARK",
        },
        endpoint: EndpointParts { host: "api.test.example", prefix: case["prefix"].as_str().unwrap_or("") },
        ..values(charge)
    };
    let operation = Operation::parse(case["operation"].as_str().unwrap()).unwrap();
    let sent = connector
        .render(operation, &values)
        .unwrap_or_else(|error| panic!("{}, {}: {error}", connector.name(), case["case"]));
    let steps = sent.steps.iter().map(|(_, step)| step);
    let part = |sent: &Rendered| {
        let headers: String =
            sent.headers.iter().map(|(name, value)| format!("{name}: {}\n", **value)).collect();
        let body = String::from_utf8_lossy(&sent.body).into_owned();
        format!("{} {}\n{headers}\n{body}\n\n", sent.method, sent.path_and_query)
    };
    steps.chain([&sent]).map(part).collect()
}

/// What a case says of the charge; the rest is usual.
fn values(charge: &Value) -> Values<'_> {
    let text = |key: &str| charge[key].as_str();
    let (year, month) = text("expires").unwrap_or("2030-09").split_once('-').unwrap();
    let card = Card {
        number: text("number").unwrap_or("4242424242424242"),
        exp_month: month.parse().unwrap(),
        exp_year: year.parse().unwrap(),
        cvc: text("cvc"),
        brand: Some(text("brand").unwrap_or("visa")),
    };
    let stored = charge["stored"].as_array().map(|words| StoredCredential {
        usage: Use::parse(words[0].as_str().unwrap()).unwrap(),
        initiator: Initiator::parse(words[1].as_str().unwrap()).unwrap(),
        reason: Reason::parse(words[2].as_str().unwrap()).unwrap(),
        ntid: text("ntid"),
        tlid: text("tlid"),
        original_amount: None,
        previous: text("previous"),
    });
    let billing = Billing {
        zip: text("zip"),
        name: text("name"),
        line1: text("line1"),
        city: text("city"),
        country: text("country"),
        email: text("email"),
        ..Billing::default()
    };
    let amount = Amount {
        minor: charge["amount"].as_i64().unwrap_or(100),
        currency: text("currency").unwrap_or("USD"),
    };
    Values {
        card: Some(card),
        billing,
        amount: Some(amount),
        attempt_id: text("attempt").unwrap_or("att_test"),
        attempt_ref: text("ref").unwrap_or("ref_test"),
        stored_credential: stored,
        previous: Previous {
            transaction: text("transaction"),
            reference: text("prev_ref"),
            attempt: text("prev_attempt"),
            amount: charge["prev_amount"].as_i64(),
            ntid: None,
        },
        capture_final: true,
        description: text("description"),
        invoice: text("invoice"),
        ..Values::default()
    }
}

/// An answer that was cut off on the way is not read, and so approves and declines nothing.
#[test]
fn a_cut_answer_decides_nothing() {
    let mut cut = 0;
    for folder in folders() {
        let connector = connector(&folder);
        for case in cases(&folder, "answers.json") {
            let body = case["body"].as_str().map_or_else(|| case["body"].to_string(), str::to_owned);
            let operation = Operation::parse(case["operation"].as_str().unwrap()).unwrap();
            let body = body.trim_end();
            // Pairs have no end of their own: there the length that HTTP tells must do.
            if !body.starts_with(['{', '<']) || case["expected"]["unknown"] == true {
                continue;
            }
            for end in (0..body.len()).step_by(41).chain([body.len() - 1]) {
                let mapped = connector.map(operation, 200, &body.as_bytes()[..end]);
                let name = connector.name();
                assert!(mapped.unknown && mapped.transaction_id.is_none(), "{name}, {}: {end}", case["case"]);
                cut += 1;
            }
        }
    }
    assert!(cut > 500, "{cut}");
}

/// Whatever line is lost, the loader says where, or takes what is left.
#[test]
fn a_lost_line_is_found_or_not_missed() {
    for folder in folders() {
        let Ok(text) = std::fs::read_to_string(folder.join("connector.toml")) else { continue };
        let count = text.lines().count();
        for lost in (0..count).step_by(3) {
            let kept = text.lines().enumerate().filter(|(n, _)| *n != lost);
            let damaged: String = kept.flat_map(|(_, line)| [line, "\n"]).collect();
            if let Err(faults) = Connector::parse("any.toml", &damaged) {
                assert!(!faults.is_empty() && faults.iter().all(|fault| (1..=count).contains(&fault.line)));
            }
        }
    }
}
