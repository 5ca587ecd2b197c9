//! A whole processor: the sandbox, under TLS.

use std::net::SocketAddr;

use super::server::Authority;
use super::{Running, destination, sale, texts};
use crate::tools::sandbox::numbers::{Behaviour, number};
use crate::tools::sandbox::{Server, Settings};
use crate::wire::forwarder::{Exchange, Sent, Verdict};

/// A sandbox that ends when dropped.
struct Sandbox {
    address: SocketAddr,
    trust: String,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Sandbox {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::make();
        let (certificate, key) = authority.certify("127.0.0.1", 2040);
        let (certificate_file, key_file) = (directory.path().join("cert"), directory.path().join("key"));
        std::fs::write(&certificate_file, certificate).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        let settings = Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            ledger: directory.path().join("ledger"),
            secret: Some("sk_test_one".to_owned()),
            processor_ms: 0,
            search_lag_s: 0,
            tls: Some((certificate_file, key_file)),
        };
        let (told, address) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::bind(&settings).await.unwrap();
                told.send(server.address().unwrap()).unwrap();
                tokio::select! {
                    () = server.serve() => {}
                    _ = stopped => {}
                }
            });
        });
        let address = address.recv_timeout(super::PATIENCE).unwrap();
        Self { address, trust: authority.pem, stop: Some(stop), thread: Some(thread), _directory: directory }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

#[test]
fn a_processor_is_understood_whatever_it_does() {
    let sandbox = Sandbox::start();
    let url = format!("https://{}", sandbox.address);
    let mut running = Running::start(vec![destination("d", &url, &sandbox.trust)]);
    let cases = [
        (Behaviour::Approve, Sent::Yes, Some((Verdict::Approved, false)), None),
        (Behaviour::InsufficientFunds, Sent::Yes, Some((Verdict::Declined, false)), Some("soft")),
        (Behaviour::StolenCard, Sent::Yes, Some((Verdict::Declined, false)), Some("hard")),
        (Behaviour::DropCharged, Sent::Maybe, None, None),
        (Behaviour::Garbage, Sent::Yes, Some((Verdict::Error, true)), None),
        (Behaviour::Hang, Sent::Maybe, None, None),
        (Behaviour::Error500Charged, Sent::Yes, Some((Verdict::Error, true)), None),
        (Behaviour::PanEcho, Sent::Yes, Some((Verdict::Approved, false)), None),
        (Behaviour::PanEcho500, Sent::Yes, Some((Verdict::Error, true)), None),
    ];
    for (sequence, (behaviour, sent, said, class)) in (1_u32..).zip(cases) {
        let pan = number(0, sequence, behaviour);
        let mut exchange = sale("d", &pan);
        exchange.headers[1].1 = format!("k{sequence}");
        let outcome = running.ask(exchange);
        assert_eq!(outcome.sent, sent, "{behaviour:?}");
        let answer = outcome.answer;
        assert_eq!(answer.as_ref().map(|a| (a.verdict, a.unknown)), said, "{behaviour:?}");
        assert_eq!(answer.as_ref().and_then(|a| a.decline_class.as_deref()), class, "{behaviour:?}");
        if let Some(answer) = answer {
            assert!(!texts(&answer).contains(&pan), "{behaviour:?}");
            assert!(said != Some((Verdict::Approved, false)) || answer.processor_us.is_some());
        }
    }
}

#[test]
fn a_look_up_finds_what_was_done() {
    let sandbox = Sandbox::start();
    let url = format!("https://{}", sandbox.address);
    let mut running = Running::start(vec![destination("d", &url, &sandbox.trust)]);
    assert_eq!(running.ask(sale("d", super::PAN)).sent, Sent::Yes);
    for (reference, verdict) in [("r", Verdict::Approved), ("other", Verdict::NotFound)] {
        let look_up = Exchange {
            look_up: true,
            method: "GET".to_owned(),
            path: format!("/v1/payments?reference={reference}"),
            body: Vec::new(),
            ..sale("d", super::PAN)
        };
        assert_eq!(running.ask(look_up).answer.unwrap().verdict, verdict);
    }
}
