//! The built-in connectors against the sandbox: what one renders the other takes, and what it answers is understood.
//! They share no code, so each checks the other.

#![cfg(test)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use cardvault::connector::{
    Amount, Billing, Card, Connector, Initiator, Mapped, Operation, Outcome, Previous, Reason,
    StoredCredential, Use, Values, Word, builtin,
};
use cardvault::tools::sandbox::numbers::{Behaviour, number};
use cardvault::tools::sandbox::{Server, Settings};

/// Both connectors, each with a wire form of its own.
const NAMES: [&str; 2] = ["sandbox", "stripe"];

/// A running sandbox, and the folder of its ledger.
struct Running {
    address: SocketAddr,
    _folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

fn start() -> Running {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let settings = Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        ledger: folder.path().join("ledger"),
        secret: Some("sk_test_sandbox".to_owned()),
        processor_ms: 0,
        search_lag_s: 0,
        tls: None,
    };
    let server = runtime.block_on(Server::bind(&settings)).unwrap();
    let address = server.address().unwrap();
    runtime.spawn(server.serve());
    Running { address, _folder: folder, _runtime: runtime }
}

/// What a request may vary.
#[derive(Clone, Copy)]
struct Ask<'a> {
    operation: Operation,
    attempt: &'a str,
    card: Option<&'a str>,
    amount: i64,
    previous: Option<&'a str>,
}

fn card_ask<'a>(operation: Operation, attempt: &'a str, card: &'a str) -> Ask<'a> {
    Ask { operation, attempt, card: Some(card), amount: 2000, previous: None }
}

fn later<'a>(operation: Operation, attempt: &'a str, previous: &'a str, amount: i64) -> Ask<'a> {
    Ask { operation, attempt, card: None, amount, previous: Some(previous) }
}

/// Renders, sends and maps; `None` if no answer came.
fn exchange(running: &Running, connector: &Connector, ask: Ask<'_>) -> Option<Mapped> {
    let stored = StoredCredential {
        usage: Use::Subsequent,
        initiator: Initiator::Merchant,
        reason: Reason::Recurring,
        ntid: Some("1098510912210968"),
        tlid: None,
        original_amount: None,
        previous: None,
    };
    let values = Values {
        card: ask.card.map(|number| Card { number, exp_month: 12, exp_year: 2030, cvc: None, brand: None }),
        billing: Billing { zip: Some("94107"), ..Billing::default() },
        amount: Some(Amount { minor: ask.amount, currency: "USD" }),
        attempt_id: ask.attempt,
        attempt_ref: ask.attempt,
        stored_credential: ask.card.map(|_| stored),
        credentials: &[("secret_key", "sk_test_sandbox")],
        previous: Previous { transaction: ask.previous, ..Previous::default() },
        capture_final: true,
        ..Values::default()
    };
    let rendered = connector.render(ask.operation, &values).unwrap();
    let (status, body) = send(running.address, &rendered)?;
    Some(connector.map_attempt(ask.operation, status, &body, &[ask.attempt]))
}

fn send(address: SocketAddr, rendered: &cardvault::connector::Rendered) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut head = format!("{} {} HTTP/1.1\r\nHost: {address}\r\n", rendered.method, rendered.path_and_query);
    for (name, value) in &rendered.headers {
        head.push_str(&format!("{name}: {}\r\n", value.as_str()));
    }
    head.push_str(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n", rendered.body.len()));
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&rendered.body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let status = std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()?;
    Some((status, answer.split_off(end + 4)))
}

#[test]
fn money_goes_and_comes_back() {
    let running = start();
    for name in NAMES {
        let connector = builtin(name).unwrap();
        let ask = |ask: Ask<'_>| exchange(&running, &connector, ask).unwrap();
        let card = number(0, 1, Behaviour::Approve);

        let sale = ask(card_ask(Operation::Sale, &format!("{name}_sale"), &card));
        assert_eq!((sale.outcome, sale.amount_approved), (Outcome::Approved, Some(2000)), "{name}");
        assert!(sale.network_transaction_id.is_some(), "{name}");
        assert_eq!(sale.avs.zip.map(Word::text), Some("match"), "{name}");
        let sold = sale.transaction_id.unwrap();
        // The same attempt again is the same payment.
        let again = ask(card_ask(Operation::Sale, &format!("{name}_sale"), &card));
        assert_eq!(
            (again.outcome, again.transaction_id.as_deref()),
            (Outcome::Approved, Some(sold.as_str()))
        );

        let refund = ask(later(Operation::Refund, &format!("{name}_refund"), &sold, 700));
        assert_eq!((refund.outcome, refund.amount_approved), (Outcome::Approved, Some(700)), "{name}");
        assert_ne!(refund.transaction_id.as_deref(), Some(sold.as_str()));
        let too_much = ask(later(Operation::Refund, &format!("{name}_too_much"), &sold, 1301));
        assert_eq!((too_much.outcome, too_much.unknown), (Outcome::Error, false), "{name}");

        let held = ask(card_ask(Operation::Authorize, &format!("{name}_auth"), &card));
        assert_eq!((held.outcome, held.amount_approved), (Outcome::Approved, Some(2000)), "{name}");
        let held = held.transaction_id.unwrap();
        let capture = ask(later(Operation::Capture, &format!("{name}_capture"), &held, 1500));
        assert_eq!((capture.outcome, capture.amount_approved), (Outcome::Approved, Some(1500)), "{name}");

        let held =
            ask(card_ask(Operation::Authorize, &format!("{name}_auth2"), &card)).transaction_id.unwrap();
        let void = ask(later(Operation::Void, &format!("{name}_void"), &held, 0));
        assert_eq!((void.outcome, void.unknown), (Outcome::Approved, false), "{name}");
        let late = ask(later(Operation::Capture, &format!("{name}_late"), &held, 1500));
        assert_eq!((late.outcome, late.unknown), (Outcome::Error, false), "{name}");

        let verified =
            ask(Ask { amount: 0, ..card_ask(Operation::Verify, &format!("{name}_verify"), &card) });
        assert_eq!(verified.outcome, Outcome::Approved, "{name}");
    }
}

/// Every operation that has a look-up is found by it, and what was never sent is not.
#[test]
fn look_ups_see_what_was_sent() {
    for name in NAMES {
        let running = start();
        let connector = builtin(name).unwrap();
        let ask = |ask: Ask<'_>| exchange(&running, &connector, ask).unwrap();
        let look = |operation, attempt: &str, previous: Option<&str>| {
            let operation = connector.lookup_for(operation).unwrap();
            let found = ask(Ask { operation, attempt, card: None, amount: 2000, previous });
            (found.outcome, found.unknown)
        };
        let (found, none) = ((Outcome::Approved, false), (Outcome::NotFound, false));
        let card = number(0, 2, Behaviour::Approve);
        let sold = ask(card_ask(Operation::Sale, "l_sale", &card)).transaction_id.unwrap();
        assert_eq!(look(Operation::Sale, "l_sale", None), found, "{name}");
        assert_eq!(look(Operation::Sale, "l_never", None), none, "{name}");
        let declined = number(0, 3, Behaviour::LostCard);
        ask(card_ask(Operation::Sale, "l_declined", &declined));
        assert_eq!(look(Operation::Sale, "l_declined", None), (Outcome::Declined, false), "{name}");

        ask(later(Operation::Refund, "l_refund", &sold, 500));
        assert_eq!(look(Operation::Refund, "l_refund", Some(&sold)), found, "{name}");
        assert_eq!(look(Operation::Refund, "l_never", Some(&sold)), none, "{name}");

        let held = ask(card_ask(Operation::Authorize, "l_auth", &card)).transaction_id.unwrap();
        assert_eq!(look(Operation::Authorize, "l_auth", None), found, "{name}");
        assert_eq!(look(Operation::Capture, "l_capture", Some(&held)), none, "{name}");
        ask(later(Operation::Capture, "l_capture", &held, 2000));
        assert_eq!(look(Operation::Capture, "l_capture", Some(&held)), found, "{name}");

        let held = ask(card_ask(Operation::Authorize, "l_auth2", &card)).transaction_id.unwrap();
        assert_eq!(look(Operation::Void, "l_void", Some(&held)), none, "{name}");
        ask(later(Operation::Void, "l_void", &held, 0));
        assert_eq!(look(Operation::Void, "l_void", Some(&held)), found, "{name}");
    }
}

/// The sandbox's own table says what a retry scheme should make of each decline; both connectors come to the same.
#[test]
fn each_decline_has_the_class_of_the_table() {
    let table: toml::Table = toml::from_str(include_str!("../src/tools/sandbox/numbers.toml")).unwrap();
    let rows = table["behaviour"].as_array().unwrap();
    let running = start();
    let mut seen = 0;
    for row in rows {
        let text = |key: &str| row.get(key).and_then(toml::Value::as_str);
        let declines =
            matches!(text("outcome"), Some("declined" | "authentication")) && text("fault").is_none();
        // An updater speaks to a merchant's charge alone.
        let declines = declines && text("updater").is_none();
        let card = card_of(row);
        let (Some(class), true, Some(card)) = (text("class"), declines, card) else { continue };
        let behaviour = text("name").unwrap();
        if matches!(behaviour, "incorrect_cvc" | "refund_declined") {
            continue;
        }
        for name in NAMES {
            let connector = builtin(name).unwrap();
            let attempt = format!("{name}_{behaviour}");
            let mapped = exchange(&running, &connector, card_ask(Operation::Sale, &attempt, &card)).unwrap();
            assert_eq!(mapped.outcome, Outcome::Declined, "{attempt}");
            assert_eq!(mapped.decline_class.map(Word::text), Some(class), "{attempt}");
            assert!(mapped.processor_code.is_some() && mapped.message.is_some(), "{attempt}");
            seen += 1;
        }
    }
    assert!(seen >= 30, "only {seen}");
}

/// The row's number in the first private BIN.
fn card_of(row: &toml::Value) -> Option<String> {
    let suffix = row.get("suffix")?.as_integer()?;
    let digits = format!("468738000009{suffix:03}");
    let doubled = |(at, digit): (usize, u8)| {
        let digit = u32::from(digit - b'0');
        if at % 2 == 0 { digit * 2 / 10 + digit * 2 % 10 } else { digit }
    };
    let sum: u32 = digits.bytes().rev().enumerate().map(doubled).sum();
    Some(format!("{digits}{}", (10 - sum % 10) % 10))
}

/// Whatever goes wrong with an answer, nobody takes it for an outcome; a look-up then tells.
#[test]
fn what_goes_wrong_is_unknown_until_looked_up() {
    use Behaviour as B;
    let running = start();
    let faults = [
        (B::DropCharged, Outcome::Approved),
        (B::DropUncharged, Outcome::NotFound),
        (B::Error500Charged, Outcome::Approved),
        (B::Error500Uncharged, Outcome::NotFound),
        (B::Stored500Charged, Outcome::Approved),
        (B::Garbage, Outcome::Approved),
        (B::Empty, Outcome::Approved),
        (B::Redirect, Outcome::NotFound),
        (B::Unavailable, Outcome::NotFound),
        (B::Pending, Outcome::Pending),
        (B::PartialApproval, Outcome::Approved),
    ];
    for name in NAMES {
        let connector = builtin(name).unwrap();
        for (sequence, (behaviour, truth)) in (100_u32..).zip(faults) {
            let attempt = format!("{name}_{sequence}");
            let card = number(1, sequence, behaviour);
            let said = exchange(&running, &connector, card_ask(Operation::Sale, &attempt, &card));
            if behaviour == B::Pending {
                assert_eq!(said.unwrap().outcome, Outcome::Pending, "{attempt}");
            } else if behaviour == B::PartialApproval {
                let said = said.unwrap();
                assert_eq!((said.partial, said.amount_approved), (true, Some(1000)), "{attempt}");
            } else {
                assert!(said.is_none_or(|said| said.unknown), "{attempt} {behaviour:?}");
            }
            let look =
                Ask { operation: Operation::Lookup, card: None, ..card_ask(Operation::Lookup, &attempt, "") };
            let found = exchange(&running, &connector, look).unwrap();
            assert_eq!((found.outcome, found.unknown), (truth, false), "{attempt} {behaviour:?}");
        }
    }
}
