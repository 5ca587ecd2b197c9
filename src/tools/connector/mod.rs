//! `cardvault connector`: what an author of a connector runs: check a file, see a request, see what an answer means.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value;
use zeroize::Zeroizing;

use super::terminal::{complain, say};
use crate::connector::{
    Connector, Endpoint, Operation, Outcome, Rendered, Word, builtin_names, builtin_text,
};

mod input;
mod new;

/// No connector, input or answer of a processor is larger.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// What clap exits with as well: the command itself was wrong.
const USAGE: u8 = 2;

/// The verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check a connector file; prints every fault with its line and what to write instead
    Check {
        /// The connector file
        file: PathBuf,
    },
    /// Write a connector file to begin with: small, sound and full of remarks
    New {
        /// Its name: a-z, 0-9 and _; the file is NAME.toml
        name: String,
        /// How the processor is spoken to
        #[arg(long, value_parser = ["json", "form", "xml"], default_value = "json")]
        encoding: String,
    },
    /// Say what a connector does: evidence, endpoints, what happens when an answer stays away, agreements, money, declines
    Explain {
        /// A built-in connector's name, or a connector file
        #[arg(value_name = "NAME|FILE")]
        connector: PathBuf,
    },
    /// Show the request that an operation would send, with the card truncated and credentials named only
    Render {
        /// A built-in connector's name, or a connector file
        #[arg(value_name = "NAME|FILE")]
        connector: PathBuf,
        /// sale, authorize, capture, refund, void, verify or lookup
        #[arg(long, value_parser = read_operation)]
        operation: Operation,
        /// JSON with the fields of a charge and its card
        #[arg(long, value_name = "FILE")]
        input: PathBuf,
        /// Print one JSON object instead
        #[arg(long)]
        json: bool,
    },
    /// Show what an answer of the processor means, or what it tells by itself
    Map {
        /// A built-in connector's name, or a connector file
        #[arg(value_name = "NAME|FILE")]
        connector: PathBuf,
        /// sale, authorize, capture, refund, void, verify or lookup
        #[arg(long, value_parser = read_operation, required_unless_present = "webhook", requires = "status")]
        operation: Option<Operation>,
        /// The HTTP status of the answer
        #[arg(long, value_parser = clap::value_parser!(u16).range(100..=599), requires = "operation")]
        status: Option<u16>,
        /// The body is that of a webhook; its signature is not checked
        #[arg(long, conflicts_with_all = ["operation", "status", "attempt"])]
        webhook: bool,
        /// The body of the answer or webhook
        #[arg(long, value_name = "FILE")]
        body: PathBuf,
        /// The attempt that is meant, where the answer of a look-up lists several
        #[arg(long, value_name = "ID")]
        attempt: Option<String>,
    },
}

/// Runs one verb. 0: done; 1: a fault in what was read; 2: the command names something that is not there.
pub fn run(command: &Command) -> ExitCode {
    let done = match command {
        Command::Check { file } => check(file),
        Command::New { name, encoding } => new::write(Path::new("."), name, encoding),
        Command::Explain { connector } => explain(connector),
        Command::Render { connector, operation, input, json } => render(connector, *operation, input, *json),
        Command::Map { connector, operation, status, webhook: _, body, attempt } => {
            match operation.zip(*status) {
                Some(of) => map(connector, of, body, attempt.as_deref()),
                None => map_webhook(connector, body),
            }
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in &failure.lines {
                complain(line);
            }
            ExitCode::from(failure.code)
        }
    }
}

/// Why a verb did not do its work, in lines for a person.
#[derive(Debug)]
struct Failure {
    code: u8,
    lines: Vec<String>,
}

impl Failure {
    fn fault(line: impl Into<String>) -> Self {
        Self { code: 1, lines: vec![line.into()] }
    }

    fn usage(line: impl Into<String>) -> Self {
        Self { code: USAGE, lines: vec![line.into()] }
    }
}

fn read_operation(text: &str) -> Result<Operation, String> {
    Operation::parse(text).ok_or_else(|| format!("write one of: {}", Operation::TEXTS.join(", ")))
}

fn check(file: &Path) -> Result<(), Failure> {
    let connector = parse(file, &read_text(file)?)?;
    let operations: Vec<&str> = connector.operations().map(Operation::text).collect();
    let name = connector.name();
    say(&format!("{}: connector {name}, version {}, is sound", file.display(), connector.version()));
    let (evidence, source, date) = connector.evidence();
    say(&format!("evidence:    {} ({source}, {date})", evidence.text()));
    say(&format!("operations:  {}", operations.join(", ")));
    let found = connector.operations().filter(|operation| connector.lookup_for(*operation).is_some());
    let found: Vec<&str> = found.map(Operation::text).collect();
    say(&format!("looked up:   {}", if found.is_empty() { "none".to_owned() } else { found.join(", ") }));
    let fields: Vec<&str> = connector.credentials().map(|(field, _)| field).collect();
    let webhooks = if connector.has_webhook() { "signed, read" } else { "none" };
    say(&format!("webhooks:    {webhooks}"));
    say(&format!("credentials: {}", if fields.is_empty() { "none".to_owned() } else { fields.join(", ") }));
    Ok(())
}

fn explain(name: &Path) -> Result<(), Failure> {
    for (heading, lines) in find(name)?.explain() {
        for (n, line) in lines.iter().enumerate() {
            say(&format!("{:<12} {line}", if n == 0 { heading } else { "" }));
        }
    }
    Ok(())
}

fn render(name: &Path, operation: Operation, input: &Path, json: bool) -> Result<(), Failure> {
    let connector = find(name)?;
    let text = read_text(input)?;
    let read =
        input::Input::read(&text).map_err(|wrong| Failure::fault(format!("{}: {wrong}", input.display())))?;
    let shown = connector
        .render_for_show(operation, &read.values())
        .map_err(|error| Failure::fault(format!("{}: {error}; nothing would be sent", connector.name())))?;
    let base = base(connector.test().or(connector.live()));
    if json {
        let mut all = as_json(&shown, base);
        let steps = steps(&connector, &shown, base);
        let steps: Vec<Value> = steps.map(|(_, step, base)| as_json(step, base)).collect();
        if let Some(all) = all.as_object_mut().filter(|_| !steps.is_empty()) {
            all.insert("steps".to_owned(), steps.into());
        }
        say(&all.to_string());
        return Ok(());
    }
    for (name, step, base) in steps(&connector, &shown, base) {
        say(&format!("first, step {name}:"));
        say_request(step, base);
        say("");
    }
    say_request(&shown, base);
    Ok(())
}

/// The steps that go before a request, each with its name and where it goes.
fn steps<'r>(
    connector: &'r Connector,
    shown: &'r Rendered,
    usual: &'r str,
) -> impl Iterator<Item = (&'r str, &'r Rendered, &'r str)> {
    shown.steps.iter().filter_map(move |(index, step)| {
        let (name, live, test) = connector.steps().nth(*index)?;
        let own = test.or(live);
        Some((name, step, if own.is_some() { base(own) } else { usual }))
    })
}

fn say_request(shown: &Rendered, base: &str) {
    say(&format!("{} {base}{}", shown.method, shown.path_and_query));
    for (header, value) in &shown.headers {
        say(&format!("{header}: {}", **value));
    }
    if !shown.body.is_empty() {
        say("");
        say(&body_text(shown));
    }
}

fn base(endpoint: Option<&Endpoint>) -> &str {
    match endpoint {
        Some(Endpoint::Fixed(url)) => url,
        Some(Endpoint::Operator) | None => "‹endpoint›",
    }
}

/// JSON spread over lines for reading, a form as it is sent.
fn body_text(shown: &Rendered) -> String {
    let spread =
        serde_json::from_slice::<Value>(&shown.body).and_then(|json| serde_json::to_string_pretty(&json));
    spread.unwrap_or_else(|_| String::from_utf8_lossy(&shown.body).into_owned())
}

fn as_json(shown: &Rendered, base: &str) -> Value {
    let headers = shown.headers.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    let body = serde_json::from_slice::<Value>(&shown.body)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&shown.body).into_owned()));
    serde_json::json!({
        "method": shown.method,
        "url": format!("{base}{}", shown.path_and_query),
        "headers": headers.collect::<serde_json::Map<String, Value>>(),
        "body": body,
    })
}

/// One line for each notification.
fn map_webhook(name: &Path, body: &Path) -> Result<(), Failure> {
    let connector = find(name)?;
    if !connector.has_webhook() {
        return Err(Failure::usage(format!("{} has no [webhook]", connector.name())));
    }
    let told = connector.map_webhook(&read_bytes(body)?);
    let told =
        told.ok_or_else(|| Failure::fault(format!("{}: no notification of this form", body.display())))?;
    for one in &told {
        let shown =
            serde_json::to_string(one).map_err(|_| Failure::fault("the result could not be written"))?;
        say(&shown);
    }
    Ok(())
}

fn map(
    name: &Path,
    (operation, status): (Operation, u16),
    body: &Path,
    attempt: Option<&str>,
) -> Result<(), Failure> {
    let connector = find(name)?;
    let bytes = read_bytes(body)?;
    let mapped = match attempt {
        Some(attempt) => connector.map_attempt(operation, status, &bytes, &[attempt]),
        None => connector.map(operation, status, &bytes),
    };
    let mut shown =
        serde_json::to_value(&mapped).map_err(|_| Failure::fault("the result could not be written"))?;
    if let Some(shown) = shown.as_object_mut() {
        // Taken on, and the final answer comes later: one of three outcomes, and a flag beside it.
        let is_pending = mapped.outcome == Outcome::Pending;
        shown.insert("pending".to_owned(), is_pending.into());
        if is_pending {
            shown.insert("outcome".to_owned(), Outcome::Approved.text().into());
        }
        if let Some(Ok(update)) = mapped.card_update.as_ref().map(serde_json::to_value) {
            shown.insert("card_update".to_owned(), update);
        }
    }
    say(&shown.to_string());
    Ok(())
}

/// A built-in connector by its name, or a file.
fn find(name: &Path) -> Result<Connector, Failure> {
    if let Some(text) = name.to_str().and_then(builtin_text) {
        return parse(name, text);
    }
    if !name.is_file() {
        let known: Vec<&str> = builtin_names().collect();
        let line = format!("unknown connector: neither a file nor one of {}", known.join(", "));
        return Err(Failure::usage(line));
    }
    parse(name, &read_text(name)?)
}

fn parse(file: &Path, text: &str) -> Result<Connector, Failure> {
    Connector::parse(&file.display().to_string(), text)
        .map_err(|faults| Failure { code: 1, lines: faults.iter().map(ToString::to_string).collect() })
}

fn read_text(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let bytes = read_bytes(file)?;
    let text = std::str::from_utf8(&bytes).map(str::to_owned);
    text.map(Zeroizing::new).map_err(|_| Failure::fault(format!("{} is not text in UTF-8", file.display())))
}

fn read_bytes(file: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let cannot = |error: std::io::Error| Failure::usage(format!("cannot read {}: {error}", file.display()));
    let mut bytes = Zeroizing::new(Vec::new());
    let opened = std::fs::File::open(file).map_err(cannot)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::fault(format!("{} is larger than {FILE_BYTES_MAX} bytes", file.display())));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    const CHARGE: &str = r#"{"card":{"number":"4242424242424242","exp_month":"3","exp_year":30},"cvc":"737",
        "billing":{"zip":"94107"},"amount":2020,"currency":"USD","invoice":"INV-1","initiator":"merchant",
        "agreement":{"type":"recurring","network_transaction_id":"1098510912210968"}}"#;

    #[test]
    fn a_name_or_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let own =
            file(&folder, "own.toml", &builtin_text("sandbox").unwrap().replace("\"sandbox\"", "\"own\""));
        assert_eq!(find(Path::new("stripe")).unwrap().name(), "stripe");
        assert_eq!(find(&own).unwrap().name(), "own");
        let unknown = find(Path::new("nobody")).unwrap_err();
        assert_eq!(unknown.code, USAGE);
        assert!(unknown.lines[0].starts_with("unknown connector"));
        let broken = file(&folder, "broken.toml", "name = 1");
        let fault = check(&broken).unwrap_err();
        assert_eq!(fault.code, 1);
        assert!(fault.lines.len() > 3 && fault.lines.iter().all(|line| line.contains("broken.toml:1: ")));
        assert_eq!(check(&folder.path().join("none")).unwrap_err().code, USAGE);
    }

    #[test]
    fn what_a_charge_says_reaches_the_request() {
        let read = input::Input::read(CHARGE).unwrap();
        let shown =
            find(Path::new("sandbox")).unwrap().render_for_show(Operation::Sale, &read.values()).unwrap();
        let json = as_json(&shown, "‹endpoint›");
        assert_eq!(
            json["body"]["card"],
            serde_json::json!({"number": "424242…4242", "exp_month": 3, "exp_year": 2030, "cvc": "‹cvc›"})
        );
        let stored = &json["body"]["stored_credential"];
        assert_eq!(
            (&stored["use"], &stored["initiator"], &stored["reason"]),
            (&"subsequent".into(), &"merchant".into(), &"recurring".into())
        );
        assert_eq!(json["headers"]["Authorization"], "Bearer ‹secret_key›");
        assert!(body_text(&shown).contains("\n  \"amount\": 2020,\n"));
    }

    /// A request that needs others first is shown with them, each where it goes.
    #[test]
    fn steps_are_shown_before_what_they_are_for() {
        let read = input::Input::read(CHARGE).unwrap();
        let connector = find(Path::new("paypal")).unwrap();
        let shown = connector.render_for_show(Operation::Sale, &read.values()).unwrap();
        let usual = base(connector.test());
        let all: Vec<_> = steps(&connector, &shown, usual).collect();
        assert_eq!(all.len(), shown.steps.len());
        assert!(!all.is_empty());
        for (name, step, base) in all {
            let json = as_json(step, base).to_string();
            assert!(
                !name.is_empty() && json.contains("https://") && !json.contains("4242424242424242"),
                "{json}"
            );
        }
    }

    #[test]
    fn a_wrong_input_is_named_by_its_place_only() {
        let wrong = [
            CHARGE.replace("2020", "\"canary\""),
            CHARGE.replace("\"invoice\"", "\"canary\""),
            CHARGE.replace("4242424242424242", "canary"),
            CHARGE.replace("\"merchant\"", "\"canary\""),
            CHARGE.replace("\"3\"", "\"13\""),
            CHARGE.replace("\"currency\":\"USD\",", ""),
            CHARGE.replace("}}", "}canary"),
        ];
        for text in wrong {
            assert_ne!(text, CHARGE);
            let Err(said) = input::Input::read(&text) else { panic!("nobody noticed") };
            assert!(!said.contains("canary") && !said.contains("4242"), "{said}");
        }
    }

    #[test]
    fn a_file_that_is_too_large_or_no_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("large");
        std::fs::File::create(&large).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert_eq!(read_bytes(&large).unwrap_err().code, 1);
        let latin = folder.path().join("latin");
        std::fs::write(&latin, b"caf\xe9").unwrap();
        assert_eq!(read_text(&latin).unwrap_err().code, 1);
    }
}
