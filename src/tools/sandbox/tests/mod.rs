//! The sandbox over real sockets: a server on port 0 of the test's own, a client that sees every byte.

mod adyen;
mod authorize_net;
mod classes;
mod cuts;
mod family;
mod faults;
mod stripe;
mod told;
mod updates;
mod worldpay;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::numbers::{Behaviour, number};
use super::{Class, Rules, Server, Settings, Webhooks};

const APPROVED: &str = "4242424242424242";
const PATIENCE: Duration = Duration::from_secs(10);

/// A running sandbox; it ends when dropped.
struct Running {
    address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start(ledger: &Path) -> Self {
        Self::start_as(ledger, |_| {})
    }

    fn start_as(ledger: &Path, change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_with(ledger, change, Rules::default(), None)
    }

    fn start_by(ledger: &Path, rules: Rules) -> Self {
        Self::start_with(ledger, |_| {}, rules, None)
    }

    fn start_with(
        ledger: &Path,
        change: impl FnOnce(&mut Settings),
        rules: Rules,
        webhooks: Option<Webhooks>,
    ) -> Self {
        let mut settings = Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            ledger: ledger.to_owned(),
            secret: Some("sk_test_one".to_owned()),
            processor_ms: 0,
            search_lag_s: 0,
            tls: None,
        };
        change(&mut settings);
        let (told, address) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::bind_with(&settings, rules, webhooks).await.unwrap();
                told.send(server.address().unwrap()).unwrap();
                tokio::select! {
                    () = server.serve() => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address: address.recv_timeout(PATIENCE).unwrap(), stop: Some(stop), thread: Some(thread) }
    }

    /// Sends a request on a connection of its own; everything that came back until it closed.
    fn raw(&self, head: &str, body: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let len = body.len();
        let request = format!(
            "{head}\r\nHost: sandbox\r\nConnection: close\r\nAuthorization: Bearer sk_test_one\r\n\
             Content-Length: {len}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        all
    }

    fn send(&self, head: &str, body: &str) -> Option<Got> {
        Got::parse(&self.raw(head, body))
    }

    fn post(&self, path: &str, key: &str, body: &Value) -> Option<Got> {
        self.send(&format!("POST {path} HTTP/1.1\r\nIdempotency-Key: {key}"), &body.to_string())
    }

    fn form(&self, path: &str, key: &str, pairs: &[(&str, &str)]) -> Option<Got> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        self.send(&format!("POST {path} HTTP/1.1\r\nIdempotency-Key: {key}"), &body)
    }

    /// Sets scripts of faults, or chance.
    fn script(&self, script: &Value) {
        let got = self.post("/sandbox/faults", "-", script).unwrap();
        assert_eq!(got.status, 200, "{}", got.text);
    }

    /// What became of each reference of a wire form.
    fn standings(&self, wire: &str) -> Vec<Value> {
        let got = self.get(&format!("/sandbox/ledger/references?wire={wire}"));
        assert_eq!(got.status, 200);
        got.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What became of one reference: approved, captured, refunded, voided.
    fn amounts(&self, wire: &str, reference: &str) -> [i64; 4] {
        let all = self.standings(wire);
        let one = all.iter().find(|standing| standing["reference"] == reference).unwrap();
        ["approved", "captured", "refunded", "voided"].map(|name| one[name].as_i64().unwrap())
    }

    fn get(&self, path: &str) -> Got {
        self.send(&format!("GET {path} HTTP/1.1"), "").unwrap()
    }

    fn advance(&self, seconds: u32) {
        assert_eq!(self.post("/sandbox/clock", "-", &json!({ "advance_s": seconds })).unwrap().status, 200);
    }

    fn ledger(&self) -> Vec<Value> {
        let got = self.get("/sandbox/ledger");
        got.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// How many sales or authorizations of this reference moved or hold money.
    fn charged(&self, reference: &str) -> usize {
        let is_charge = |line: &&Value| {
            line["reference"] == reference && (line["status"] == "approved" || line["status"] == "authorized")
        };
        self.ledger().iter().filter(is_charge).count()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Got {
    status: u16,
    head: String,
    text: String,
    json: Value,
}

impl Got {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let at = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..at]).to_ascii_lowercase();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let text = String::from_utf8_lossy(&bytes[at + 4..]).into_owned();
        Some(Self { status, head, json: serde_json::from_str(&text).unwrap_or_default(), text })
    }

    /// The answer without what is measured anew each time.
    fn stable(mut self) -> (u16, Value) {
        if let Some(object) = self.json.as_object_mut() {
            object.remove("processor_ms");
        }
        (self.status, self.json)
    }

    fn is_replay(&self) -> bool {
        self.head.contains("idempotent-replayed: true")
    }
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let ledger = directory.path().join("ledger.ndjson");
    (directory, ledger)
}

fn sale(reference: &str, number: &str, amount: i64) -> Value {
    payment("sale", reference, number, amount)
}

fn payment(operation: &str, reference: &str, number: &str, amount: i64) -> Value {
    json!({
        "reference": reference, "operation": operation, "amount": amount, "currency": "USD",
        "card": { "number": number, "exp_month": 12, "exp_year": 2030 }, "billing": { "zip": "10001" },
    })
}

#[test]
fn a_sale_is_approved_found_and_written_without_its_number() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let mut body = sale("inv-1", APPROVED, 1250);
    body["invoice"] = "inv-1".into();
    let got = sandbox.post("/v1/payments", "k1", &body).unwrap();
    assert_eq!(got.status, 200);
    assert_eq!(got.json["status"], "approved");
    assert_eq!(got.json["amount_approved"], 1250);
    assert_eq!(got.json["avs"]["zip"], "Y");
    assert_eq!(got.json["network_transaction_id"].as_str().unwrap().len(), 15);
    let id = got.json["id"].as_str().unwrap();
    assert_eq!(sandbox.get(&format!("/v1/payments/{id}")).json["amount_captured"], 1250);
    let listed = sandbox.get("/v1/payments?reference=inv-1");
    assert_eq!(listed.json["data"][0]["id"], id);
    assert_eq!(sandbox.get("/v1/payments?reference=inv-2").json, json!({ "data": [] }));
    assert_eq!(sandbox.get("/v1/payments/pay_none").status, 404);
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(!written.contains(APPROVED));
    let line = &sandbox.ledger()[0];
    assert_eq!(
        (&line["last4"], &line["invoice"], &line["seq"]),
        (&"4242".into(), &"inv-1".into(), &1.into())
    );
}

#[test]
fn each_class_of_decline_answers_402_with_its_code() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    for (behaviour, code) in [
        (Behaviour::LostCard, "lost_card"),
        (Behaviour::ExpiredCard, "expired_card"),
        (Behaviour::AuthenticationRequired, "authentication_required"),
        (Behaviour::InsufficientFunds, "insufficient_funds"),
        (Behaviour::GenericDecline, "generic_decline"),
        (Behaviour::Fraudulent, "fraudulent"),
        (Behaviour::NotATestNumber, "test_mode_live_card"),
    ] {
        let got = sandbox.post("/v1/payments", code, &sale(code, &number(0, 1, behaviour), 100)).unwrap();
        assert_eq!((got.status, got.json["code"].as_str()), (402, Some(code)));
        assert_eq!(got.json["amount_approved"], 0);
        assert_eq!(got.json["network_transaction_id"], Value::Null);
    }
    let never = number(1, 7, Behaviour::DoNotTryAgain);
    assert_eq!(
        sandbox.post("/v1/payments", "never", &sale("never", &never, 100)).unwrap().json["advice_code"],
        "03"
    );
}

#[test]
fn what_is_not_a_payment_is_refused_and_leaves_nothing() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let good = sale("r", APPROVED, 100);
    let mut wrong = vec![json!([]), json!({})];
    for (pointer, value) in [
        ("/amount", json!(0)),
        ("/amount", json!(1.5)),
        ("/amount", json!("100")),
        ("/currency", json!("usd")),
        ("/operation", json!("pay")),
        ("/reference", json!("")),
        ("/card/number", json!("4242")),
        ("/card/exp_month", json!(13)),
    ] {
        let mut body = good.clone();
        *body.pointer_mut(pointer).unwrap() = value;
        wrong.push(body);
    }
    for body in wrong {
        assert_eq!(sandbox.post("/v1/payments", "k", &body).unwrap().status, 400, "{body}");
    }
    assert_eq!(sandbox.send("POST /v1/payments HTTP/1.1", &good.to_string()).unwrap().status, 400);
    assert!(sandbox.ledger().is_empty());
    // None of it was stored under the key.
    assert_eq!(sandbox.post("/v1/payments", "k", &good).unwrap().status, 200);
}

#[test]
fn another_credential_is_refused_in_both_forms() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    for path in ["/v1/payments/x", "/v1/payment_intents/x"] {
        let mut stream = TcpStream::connect(sandbox.address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer sk_test_two\r\n\r\n"
        )
        .unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(Got::parse(&all).unwrap().status, 401);
    }
}

#[test]
fn a_key_replays_conflicts_and_expires() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let body = sale("r", APPROVED, 100);
    let first = sandbox.post("/v1/payments", "k", &body).unwrap();
    let again = sandbox.post("/v1/payments", "k", &body).unwrap();
    assert!(again.is_replay() && !first.is_replay());
    assert_eq!(first.clone().stable(), again.stable());
    let other = sandbox.post("/v1/payments", "k", &sale("r", APPROVED, 101)).unwrap();
    assert_eq!((other.status, other.json["error"]["code"].as_str()), (409, Some("key_reused")));
    assert_eq!(sandbox.charged("r"), 1);
    sandbox.advance(24 * 3600 - 60);
    assert!(sandbox.post("/v1/payments", "k", &body).unwrap().is_replay());
    sandbox.advance(120);
    let late = sandbox.post("/v1/payments", "k", &body).unwrap();
    assert!(!late.is_replay());
    assert_eq!(sandbox.charged("r"), 2, "after a day the same key charges again");
}

#[test]
fn a_key_in_flight_conflicts() {
    let (_directory, path) = place();
    let sandbox = Running::start_as(&path, |settings| settings.processor_ms = 400);
    let body = sale("r", APPROVED, 100);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| sandbox.post("/v1/payments", "k", &body).unwrap());
        std::thread::sleep(Duration::from_millis(150));
        let second = sandbox.post("/v1/payments", "k", &body).unwrap();
        assert_eq!((second.status, second.json["error"]["code"].as_str()), (409, Some("key_in_use")));
        let slow = slow.join().unwrap();
        assert_eq!(slow.status, 200);
        let measured = slow.json["processor_ms"].as_f64().unwrap();
        assert!((400.0..5_000.0).contains(&measured), "{measured}");
    });
}

#[test]
fn money_rules_hold_for_captures_refunds_and_voids() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let hold = sandbox.post("/v1/payments", "a", &payment("authorize", "a", APPROVED, 1000)).unwrap();
    assert_eq!(hold.json["status"], "authorized");
    let id = hold.json["id"].as_str().unwrap();
    let post = |what: &str, key: &str, body: Value| {
        sandbox.post(&format!("/v1/payments/{id}/{what}"), key, &body).unwrap()
    };
    let code = |got: &Got| got.json["error"]["code"].as_str().unwrap_or_default().to_owned();
    let early = post("refunds", "r0", json!({ "reference": "r0", "amount": 1 }));
    assert_eq!((early.status, code(&early)), (400, "wrong_state".to_owned()));
    assert_eq!(
        post("captures", "c1", json!({ "reference": "c1", "amount": 400, "final": false })).json["operation"],
        "capture"
    );
    let much = post("captures", "c2", json!({ "reference": "c2", "amount": 601, "final": true }));
    assert_eq!((much.status, code(&much)), (400, "amount_too_large".to_owned()));
    assert_eq!(
        post("captures", "c2", json!({ "reference": "c2", "amount": 500, "final": true })).status,
        200
    );
    assert_eq!(post("captures", "c3", json!({ "reference": "c3", "amount": 1, "final": false })).status, 400);
    assert_eq!(
        post("voids", "v1", json!({ "reference": "v1" })).status,
        400,
        "a captured payment is not voided"
    );
    assert_eq!(post("refunds", "r1", json!({ "reference": "r1", "amount": 900 })).json["status"], "approved");
    assert_eq!(post("refunds", "r2", json!({ "reference": "r2", "amount": 1 })).status, 400);
    let stands = sandbox.get(&format!("/v1/payments/{id}")).json;
    assert_eq!((&stands["amount_captured"], &stands["amount_refunded"]), (&900.into(), &900.into()));
    let refund = &sandbox.get("/v1/payments?reference=r1").json["data"][0];
    assert_eq!((&refund["operation"], &refund["parent"]), (&"refund".into(), &id.into()));
}

#[test]
fn an_authorization_or_a_fresh_sale_is_voided_once() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    for operation in ["sale", "authorize"] {
        let made =
            sandbox.post("/v1/payments", operation, &payment(operation, operation, APPROVED, 500)).unwrap();
        let path = format!("/v1/payments/{}", made.json["id"].as_str().unwrap());
        let void = format!("{path}/voids");
        assert_eq!(
            sandbox.post(&void, &format!("{operation}v"), &json!({ "reference": "v" })).unwrap().status,
            200
        );
        assert_eq!(sandbox.get(&path).json["status"], "voided");
        assert_eq!(
            sandbox.post(&void, &format!("{operation}w"), &json!({ "reference": "w" })).unwrap().status,
            400
        );
        let refund = json!({ "reference": "r", "amount": 1 });
        assert_eq!(
            sandbox.post(&format!("{path}/refunds"), &format!("{operation}r"), &refund).unwrap().status,
            400
        );
    }
    let old = sandbox.post("/v1/payments", "old", &sale("old", APPROVED, 500)).unwrap();
    sandbox.advance(24 * 3600 + 1);
    let void = format!("/v1/payments/{}/voids", old.json["id"].as_str().unwrap());
    assert_eq!(
        sandbox.post(&void, "oldv", &json!({ "reference": "v" })).unwrap().status,
        400,
        "it has settled"
    );
}

#[test]
fn pending_payments_are_decided_by_the_clock_and_partial_ones_at_once() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    for (behaviour, later) in [(Behaviour::Pending, "approved"), (Behaviour::PendingDeclined, "declined")] {
        let body = sale(later, &number(0, 1, behaviour), 100);
        let made = sandbox.post("/v1/payments", later, &body).unwrap();
        assert_eq!((made.status, made.json["status"].as_str()), (200, Some("pending")));
        sandbox.advance(6);
        let found = sandbox.get(&format!("/v1/payments/{}", made.json["id"].as_str().unwrap()));
        assert_eq!(found.json["status"], later);
        assert_eq!(
            sandbox.post("/v1/payments", later, &body).unwrap().json["status"],
            "pending",
            "the stored answer"
        );
    }
    assert_eq!(sandbox.charged("approved"), 1);
    let half = sandbox
        .post("/v1/payments", "p", &sale("p", &number(0, 1, Behaviour::PartialApproval), 101))
        .unwrap();
    assert_eq!((half.status, &half.json["amount_approved"]), (200, &50.into()));
}

#[test]
fn a_restarted_sandbox_knows_what_it_knew() {
    let (_directory, path) = place();
    let dropped = sale("d", &number(0, 1, Behaviour::DropCharged), 100);
    let hold = payment("authorize", "h", APPROVED, 1000);
    let (first, id) = {
        let sandbox = Running::start(&path);
        assert!(sandbox.post("/v1/payments", "d", &dropped).is_none());
        let first = sandbox.post("/v1/payments", "h", &hold).unwrap();
        let id = first.json["id"].as_str().unwrap().to_owned();
        let capture = json!({ "reference": "c", "amount": 600, "final": false });
        assert_eq!(sandbox.post(&format!("/v1/payments/{id}/captures"), "c", &capture).unwrap().status, 200);
        (first, id)
    };
    // A line cut short by a crash was never answered.
    let mut torn = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    torn.write_all(b"{\"seq\":4,\"at\":\"2026").unwrap();
    let sandbox = Running::start(&path);
    let again = sandbox.post("/v1/payments", "h", &hold).unwrap();
    assert!(again.is_replay());
    assert_eq!(first.stable(), again.stable());
    assert_eq!(sandbox.post("/v1/payments", "d", &dropped).unwrap().json["status"], "approved");
    assert_eq!(sandbox.charged("d"), 1);
    let much = json!({ "reference": "c2", "amount": 401, "final": false });
    assert_eq!(sandbox.post(&format!("/v1/payments/{id}/captures"), "c2", &much).unwrap().status, 400);
    let seqs: Vec<_> = sandbox.ledger().iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [1, 2, 3]);
}

#[test]
fn the_table_is_served_and_every_example_behaves() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let table = sandbox.get("/sandbox/numbers").json;
    assert_eq!(table["bins"], json!(["468738", "468739"]));
    let examples = table["behaviours"].as_array().unwrap();
    assert!(examples.len() > 40);
    let plain = |row: &&Value| row["fault"] == "none" && row["on"].is_null() && row["updater"].is_null();
    for row in examples.iter().filter(plain) {
        let name = row["name"].as_str().unwrap();
        let got =
            sandbox.post("/v1/payments", name, &sale(name, row["example"].as_str().unwrap(), 100)).unwrap();
        let declines =
            row["outcome"] == "declined" && name != "incorrect_cvc" || row["outcome"] == "authentication";
        assert_eq!(got.status == 402, declines, "{name}");
    }
}

#[test]
fn one_connection_carries_many_requests() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let mut stream = TcpStream::connect(sandbox.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for n in 0..50 {
        let body = sale(&format!("r{n}"), &number(0, n, Behaviour::Approve), 100).to_string();
        let request = format!(
            "POST /v1/payments HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k{n}\r\nAuthorization: Bearer sk_test_one\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut some = [0; 4096];
        let read = stream.read(&mut some).unwrap();
        assert!(some[..read].starts_with(b"HTTP/1.1 200 OK"));
    }
    assert_eq!(sandbox.ledger().len(), 50);
}

#[test]
fn many_at_once_with_one_key_charge_once() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let body = sale("r", APPROVED, 100);
    let answers: Vec<Got> = std::thread::scope(|scope| {
        let all: Vec<_> =
            (0..32).map(|_| scope.spawn(|| sandbox.post("/v1/payments", "k", &body).unwrap())).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|got| got.status == 200 || got.json["error"]["code"] == "key_in_use"));
    assert_eq!(answers.iter().filter(|got| got.status == 200 && !got.is_replay()).count(), 1);
    assert_eq!(sandbox.charged("r"), 1);
}

#[test]
fn an_edited_ledger_is_not_taken_for_one() {
    let (_directory, path) = place();
    std::fs::write(&path, "{\"seq\":1}\n").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        ledger: path,
        secret: None,
        processor_ms: 0,
        search_lag_s: 0,
        tls: None,
    };
    assert!(runtime.block_on(Server::bind(&settings)).is_err());
    let open = Settings { listen: "0.0.0.0:0".parse().unwrap(), ..settings };
    assert!(runtime.block_on(Server::bind(&open)).is_err(), "plain HTTP stays on loopback");
}

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    args: super::Args,
}

#[test]
fn the_command_writes_its_port_and_takes_its_secret_from_a_file() {
    let (directory, path) = place();
    let (port_file, secret) = (directory.path().join("port"), directory.path().join("secret"));
    std::fs::write(&secret, "sk_test_one\n").unwrap();
    let words = [
        "sandbox".as_ref(),
        "--ledger".as_ref(),
        path.as_os_str(),
        "--port-file".as_ref(),
        port_file.as_os_str(),
        "--secret-key-file".as_ref(),
        secret.as_os_str(),
    ];
    let command = <Command as clap::Parser>::parse_from(words);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let serving = tokio::spawn(super::serve(command.args));
        let start = Instant::now();
        let port: u16 = loop {
            if let Ok(text) = std::fs::read_to_string(&port_file) {
                break text.trim().parse().unwrap();
            }
            assert!(start.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let url = format!("http://127.0.0.1:{port}");
        let client = crate::tools::client::Client::new(&url, None, Some("sk_test_one")).unwrap();
        assert_eq!(client.get("/v1/payments?reference=none").await.unwrap().status, 200);
        serving.abort();
    });
}
