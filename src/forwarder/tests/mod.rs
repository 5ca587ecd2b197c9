//! The forwarder against real sockets: whole processors, and servers that do wrong on purpose.

mod control;
mod courier;
mod faults;
mod forwards;
mod pooling;
mod processor;
mod server;
mod steps;
mod updates;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::card::id::{AttemptId, IdBytes};
use crate::card::tenant::Mode;
use crate::connector::builtin_text;
use crate::wire::control::{Destination, FromForwarderControl, ToForwarderControl};
use crate::wire::forwarder::{Answer, Exchange, Exchanged, FromForwarder, Outcome, ToForwarder};
use crate::wire::frame::{self, FrameReader};
use crate::wire::keeper::Verb;
use crate::wire::pair;

const PATIENCE: Duration = Duration::from_secs(10);
const PAN: &str = "4242424242424242";

/// A running forwarder with a supervisor and a keeper, which are the test.
struct Running {
    supervisor: Option<UnixStream>,
    keeper: Keeper,
    thread: Option<JoinHandle<Result<(), String>>>,
}

/// The keeper's end of a pair.
struct Keeper {
    stream: UnixStream,
    reader: FrameReader<UnixStream>,
    next: u64,
}

impl Keeper {
    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let reader = FrameReader::new(stream.try_clone().unwrap());
        Self { stream, reader, next: 0 }
    }

    fn send(&mut self, exchange: Exchange) -> u64 {
        self.next += 1;
        frame::write(&mut self.stream, self.next, &ToForwarder::Send(Box::new(exchange))).unwrap();
        self.next
    }

    fn receive(&mut self) -> (u64, Outcome) {
        let (id, exchanged) = self.read();
        (id, exchanged.outcome)
    }

    fn read(&mut self) -> (u64, Exchanged) {
        let (id, answer) = self.reader.read().unwrap();
        let FromForwarder::Exchanged(exchanged) = answer else { panic!("no outcome") };
        (id, *exchanged)
    }

    fn ask(&mut self, exchange: Exchange) -> Outcome {
        self.ask_for_all(exchange).outcome
    }

    /// The answer with what is for the keeper alone.
    fn ask_for_all(&mut self, exchange: Exchange) -> Exchanged {
        let attempt = exchange.attempt;
        let id = self.send(exchange);
        let (answered, said) = self.read();
        assert_eq!((answered, said.outcome.attempt), (id, attempt));
        said
    }
}

impl Running {
    fn start(destinations: Vec<Destination>) -> Self {
        let (supervisor, control) = pair::make_pair().unwrap();
        supervisor.set_read_timeout(Some(PATIENCE)).unwrap();
        let thread = std::thread::spawn(move || crate::forwarder::run(control));
        let (keeper, theirs) = pair::make_pair().unwrap();
        pair::send(&supervisor, &ToForwarderControl::Start(destinations), &[theirs.as_fd()]).unwrap();
        let running =
            Self { supervisor: Some(supervisor), keeper: Keeper::new(keeper), thread: Some(thread) };
        assert!(matches!(running.hear(), FromForwarderControl::Ready));
        running
    }

    fn ask(&mut self, exchange: Exchange) -> Outcome {
        self.keeper.ask(exchange)
    }

    fn hear(&self) -> FromForwarderControl {
        pair::receive(self.supervisor.as_ref().unwrap()).unwrap().0
    }

    fn tell(&self, message: &ToForwarderControl) {
        pair::send(self.supervisor.as_ref().unwrap(), message, &[]).unwrap();
    }

    /// Waits until it has ended by itself.
    fn ended(&mut self) -> Result<(), String> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.supervisor.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

/// The sandbox's connector at an endpoint.
fn destination(name: &str, endpoint: &str, trust_pem: &str) -> Destination {
    Destination {
        next_credentials: Default::default(),
        name: name.to_owned(),
        connector: "sandbox".to_owned(),
        connector_toml: builtin_text("sandbox").unwrap().to_owned(),
        mode: Mode::Test,
        endpoint: endpoint.to_owned(),
        step_endpoints: std::collections::BTreeMap::new(),
        trust_pem: trust_pem.to_owned(),
        credentials: std::collections::BTreeMap::new(),
        policies: Vec::new(),
        timeout_seconds: 1,
        forward: None,
    }
}

/// A sale of 5.00 as the keeper would render it.
fn sale(destination: &str, pan: &str) -> Exchange {
    let body = serde_json::json!({
        "reference": "r", "operation": "sale", "amount": 500, "currency": "USD",
        "card": { "number": pan, "exp_month": 1, "exp_year": 2030 },
    });
    Exchange {
        credentials: 0,
        destination: destination.to_owned(),
        attempt: AttemptId(IdBytes(crate::random::make_bytes().unwrap())),
        verb: Verb::Sale,
        look_up: false,
        method: "POST".to_owned(),
        path: "/v1/payments".to_owned(),
        headers: [
            ("authorization", "Bearer sk_test_one"),
            ("idempotency-key", "k"),
            ("content-type", "application/json"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        body: body.to_string().into_bytes(),
        scrub: vec![pan.to_owned(), "sk_test_one".to_owned()],
        pooled: true,
        steps: Vec::new(),
        mark: String::new(),
    }
}

/// Every text of an answer.
fn texts(answer: &Answer) -> String {
    format!("{answer:?}")
}
