//! Requests that need another before them: a token for the account, a one-time token for the card.

use std::sync::{Arc, Mutex};

use super::server::{Connection, Server};
use super::{PAN, Running, sale, texts};
use crate::connector::tests::stepped_text;
use crate::connector::{Amount, Card, Connector, Operation, SendMoment, Values};
use crate::wire::control::Destination;
use crate::wire::forwarder::{Exchange, Sent, StepRequest, Verdict};

/// A connector with a step for the account and one for the card, both where the operations go.
fn connector_text() -> String {
    stepped_text().replace("endpoint.test = \"https://access.wires.example\"\n", "")
}

const MARK: &str = "m00112233445566778899aabbccddeeff";

/// A sale as the keeper renders it: the steps beside it, and marks where their outputs belong.
fn stepped() -> Exchange {
    let connector = Connector::parse("stepped.toml", &connector_text()).unwrap();
    let values = Values {
        card: Some(Card { number: PAN, exp_month: 1, exp_year: 2030, cvc: None, brand: None }),
        amount: Some(Amount { minor: 500, currency: "USD" }),
        credentials: &[("user", "u-1"), ("key", "s3cr3t-of-ours")],
        moment: SendMoment { unix_ms: 0, nonce: "n", mark: MARK },
        ..Values::default()
    };
    let rendered = connector.render(Operation::Sale, &values).unwrap();
    let headers = |headers: Vec<(String, zeroize::Zeroizing<String>)>| {
        headers.into_iter().map(|(name, value)| (name, value.to_string())).collect()
    };
    let steps = rendered.steps.into_iter().map(|(index, step)| StepRequest {
        index,
        method: step.method.to_owned(),
        path: step.path_and_query,
        headers: headers(step.headers),
        body: step.body.to_vec(),
    });
    Exchange {
        steps: steps.collect(),
        mark: MARK.to_owned(),
        method: rendered.method.to_owned(),
        path: rendered.path_and_query,
        headers: headers(rendered.headers),
        body: rendered.body.to_vec(),
        ..sale("d", PAN)
    }
}

fn destination(server: &Server) -> Destination {
    Destination { connector: "wires".to_owned(), connector_toml: connector_text(), ..server.destination("d") }
}

type Seen = Arc<Mutex<Vec<String>>>;

/// A processor: what it answers to each path is the test's; `None` closes the connection.
fn processor(answer: impl Fn(&str, &str) -> Option<(u16, String)> + Send + Sync + 'static) -> (Server, Seen) {
    let seen = Seen::default();
    let seeing = Arc::clone(&seen);
    let server = Server::start(move |connection: &mut Connection| {
        while let Some(request) = connection.read_request() {
            let path = request.split(' ').nth(1).unwrap().to_owned();
            let answered = answer(&path, &request);
            seeing.lock().unwrap().push(request);
            let Some((status, body)) = answered else { return };
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", body.len());
            connection.write(format!("{head}{body}").as_bytes());
        }
    });
    (server, seen)
}

fn paths(seen: &Seen) -> Vec<String> {
    seen.lock().unwrap().iter().map(|request| request.split(' ').nth(1).unwrap().to_owned()).collect()
}

fn usual(path: &str, request: &str) -> Option<(u16, String)> {
    Some(match path {
        "/oauth" => (200, r#"{"access_token":"access-token-1","expires_in":600}"#.to_owned()),
        "/tokenize" => (201, r#"{"id":"card\"1"}"#.to_owned()),
        _ => {
            let message = request.to_ascii_lowercase().contains("bearer access-token-1").to_string();
            (200, format!(r#"{{"status":"ok","message":"{message} access-token-1"}}"#))
        }
    })
}

#[test]
fn a_token_is_asked_for_once_and_a_card_each_time() {
    let (server, seen) = processor(usual);
    let mut running = Running::start(vec![destination(&server)]);
    for _ in 0..3 {
        let outcome = running.ask(stepped());
        let answer = outcome.answer.unwrap();
        assert_eq!((outcome.sent, answer.verdict), (Sent::Yes, Verdict::Approved));
        // The token went out, and does not come back.
        assert!(answer.message.as_deref().unwrap().starts_with("true "), "{}", texts(&answer));
        assert!(!texts(&answer).contains("access-token-1"), "{}", texts(&answer));
    }
    assert_eq!(paths(&seen), ["/oauth", "/tokenize", "/pay", "/tokenize", "/pay", "/tokenize", "/pay"]);
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|request| !request.contains(MARK)), "a mark left");
    let pays: Vec<&String> = seen.iter().filter(|request| request.contains(" /pay ")).collect();
    assert!(pays.iter().all(|pay| pay.ends_with(r#"{"card":"card\"1","amount":500}"#) && !pay.contains(PAN)));
}

#[test]
fn a_token_that_is_not_taken_is_forgotten() {
    let (server, seen) = processor(|path, request| match path {
        "/pay" => Some((401, r#"{"error":"expired"}"#.to_owned())),
        _ => usual(path, request),
    });
    let mut running = Running::start(vec![destination(&server)]);
    for _ in 0..2 {
        let outcome = running.ask(stepped());
        assert_eq!(
            outcome.answer.map(|answer| (answer.verdict, answer.unknown)),
            Some((Verdict::Error, false))
        );
    }
    assert_eq!(paths(&seen).iter().filter(|path| *path == "/oauth").count(), 2);
}

/// A step that fails ends it: the charge itself was not sent, and the outcome says how far the card came.
#[test]
fn nothing_is_charged_after_a_step_that_failed() {
    type Answer = fn(&str, &str) -> Option<(u16, String)>;
    let rows: [(&str, Answer, Sent, Option<Verdict>); 4] = [
        ("no token", |_, _| Some((503, String::new())), Sent::Not, Some(Verdict::Error)),
        ("no answer", |_, _| None, Sent::Not, None),
        (
            "a card that is refused",
            |path, request| match path {
                "/tokenize" => Some((422, r#"{"status":"no","error":"bad_card"}"#.to_owned())),
                _ => usual(path, request),
            },
            Sent::Yes,
            Some(Verdict::Declined),
        ),
        (
            "a card that nobody answers for",
            |path, request| if path == "/tokenize" { None } else { usual(path, request) },
            Sent::Maybe,
            Some(Verdict::Error),
        ),
    ];
    for (what, answer, sent, verdict) in rows {
        let (server, seen) = processor(answer);
        let mut running = Running::start(vec![destination(&server)]);
        let outcome = running.ask(stepped());
        assert_eq!(outcome.sent, sent, "{what}");
        let told = outcome.answer.map(|answer| (answer.verdict, answer.unknown));
        assert_eq!(told, verdict.map(|verdict| (verdict, false)), "{what}");
        assert!(paths(&seen).iter().all(|path| path != "/pay"), "{what}");
    }
}
