//! Answers that are cut, garbled or doubled at every byte, in every family, and what a second request learns.

use std::io::ErrorKind;

use super::family::*;
use super::*;

/// What came back of one request, and how the connection ended.
struct Back {
    bytes: Vec<u8>,
    end: Result<(), ErrorKind>,
}

impl Back {
    /// The answer, if all of it came.
    fn whole(&self) -> Option<Got> {
        let got = Got::parse(&self.bytes)?;
        let promised: usize = got.head.split("content-length: ").nth(1)?.lines().next()?.parse().ok()?;
        (got.text.len() == promised).then_some(got)
    }
}

/// Sends a request and reads until the end; where a stall is expected after so many bytes, not much longer than that.
fn exchange(sandbox: &Running, head: &str, body: &str, stalls_at: Option<usize>) -> Back {
    let mut stream = TcpStream::connect(sandbox.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "{head}\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer sk_test_one\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    // Who is reset before he has written everything may learn it by writing.
    let _ = stream.write_all(request.as_bytes());
    let (mut bytes, mut some) = (Vec::new(), [0; 4096]);
    let end = loop {
        match stream.read(&mut some) {
            Ok(0) => break Ok(()),
            Ok(n) => bytes.extend_from_slice(&some[..n]),
            Err(error) => break Err(error.kind()),
        }
        if stalls_at.is_some_and(|at| bytes.len() >= at) {
            stream.set_read_timeout(Some(Duration::from_millis(60))).unwrap();
        }
    };
    Back { bytes, end }
}

fn sale_of(family: Family, sandbox: &Running, reference: &str) -> Back {
    let (head, body) = family.sale(reference, APPROVED);
    exchange(sandbox, &head, &body, None)
}

/// One script a request, in their order.
fn script_all(sandbox: &Running, fault: &str, at: &[usize]) {
    let all: Vec<Value> =
        at.iter().map(|at| json!({ "fault": fault, "count": 1, "at": at, "operation": "sale" })).collect();
    sandbox.script(&all.into());
}

/// Every reference has exactly one charge in the ledger.
fn assert_charged_once(sandbox: &Running, family: Family, count: usize) {
    let all = sandbox.standings(family.wire());
    assert_eq!(all.len(), count, "{family:?}");
    assert!(all.iter().all(|one| one["payments"] == 1 && one["captured"] == 1000), "{family:?}");
}

fn every_cut(family: Family, fault: &str, step: usize, check: impl Fn(&Back, usize, usize)) {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    let whole = sale_of(family, &sandbox, "r00000").bytes.len();
    // Some answers say how long they took: a few bytes more or less.
    let positions: Vec<usize> = (0..=whole + 8).step_by(step).collect();
    let mut n = 0;
    for some in positions.chunks(300) {
        script_all(&sandbox, fault, some);
        for at in some {
            n += 1;
            let back = sale_of(family, &sandbox, &format!("r{n:05}"));
            check(&back, *at, whole);
        }
    }
    assert_charged_once(&sandbox, family, positions.len() + 1);
}

fn truncated(back: &Back, at: usize, whole: usize) {
    if let Some(got) = back.whole() {
        assert!(at + 8 >= whole, "{at} of {whole}: {}", got.head);
    } else {
        assert_eq!((back.bytes.len(), back.end), (at, Ok(())));
    }
}

#[test]
fn plain_answers_are_cut_at_every_byte() {
    every_cut(Family::Plain, "truncate", 1, truncated);
}

#[test]
fn adyen_answers_are_cut_at_every_byte() {
    every_cut(Family::Adyen, "truncate", 1, truncated);
}

#[test]
fn authorize_net_answers_are_cut_at_every_byte() {
    every_cut(Family::NetXml, "truncate", 1, truncated);
    every_cut(Family::NetJson, "truncate", 1, truncated);
}

#[test]
fn worldpay_answers_are_cut_at_every_byte() {
    every_cut(Family::Worldpay, "truncate", 1, truncated);
}

#[test]
fn stripe_answers_are_cut_at_every_byte() {
    every_cut(Family::Stripe, "truncate", 1, truncated);
}

#[test]
fn a_reset_is_a_reset_wherever_it_comes() {
    for family in FAMILIES {
        every_cut(family, "reset", 23, |back, at, whole| {
            if back.whole().is_none() {
                assert_eq!((back.bytes.len(), back.end), (at, Err(ErrorKind::ConnectionReset)), "{family:?}");
            } else {
                assert!(at + 8 >= whole, "{family:?} {at} of {whole}");
            }
        });
    }
}

#[test]
fn garbage_begins_where_it_is_asked_for() {
    for family in FAMILIES {
        every_cut(family, "garbage", 41, |back, at, whole| {
            let is_readable = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
            assert!(is_readable(&back.bytes[..at.min(back.bytes.len())]), "{family:?} {at}");
            assert!(at + 8 >= whole || !is_readable(&back.bytes), "{family:?} {at}");
        });
    }
}

#[test]
fn a_stalled_answer_says_nothing_more() {
    for family in FAMILIES {
        let (_directory, path) = place();
        let sandbox = Running::start(&path);
        for at in [1, 40, 200] {
            script_all(&sandbox, "stall", &[at]);
            let (head, body) = family.sale(&format!("s{at}"), APPROVED);
            let back = exchange(&sandbox, &head, &body, Some(at));
            assert_eq!(back.bytes.len(), at, "{family:?}");
            assert!(matches!(back.end, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "{family:?}");
        }
        assert_charged_once(&sandbox, family, 3);
    }
}

#[test]
fn an_answer_comes_twice() {
    for family in FAMILIES {
        let (_directory, path) = place();
        let sandbox = Running::start(&path);
        sandbox.script(&json!({ "fault": "duplicate", "count": 1 }));
        let back = sale_of(family, &sandbox, "r");
        let (first, second) = back.bytes.split_at(back.bytes.len() / 2);
        assert!(first == second && Got::parse(first).is_some(), "{family:?}");
        assert_charged_once(&sandbox, family, 1);
    }
}

#[test]
fn what_a_second_request_learns_is_the_familys_own_way() {
    for (family, learns) in [
        (Family::Plain, "replay"),
        (Family::Stripe, "replay"),
        (Family::Adyen, "replay"),
        (Family::NetXml, "11"),
        (Family::NetJson, "11"),
        (Family::Worldpay, "Duplicate Order"),
    ] {
        let (_directory, path) = place();
        let sandbox = Running::start(&path);
        for fault in ["drop", "reset", "error_500", "garbage", "empty", "unavailable"] {
            sandbox.script(&json!({ "fault": fault, "count": 1 }));
            let reference = format!("r-{fault}");
            let first = sale_of(family, &sandbox, &reference);
            assert!(first.whole().is_none_or(|got| !family.is_approved(&got)), "{family:?} {fault}");
            let second = family.send(&sandbox, &reference, APPROVED).unwrap();
            match learns {
                "replay" => assert!(second.is_replay() && family.is_approved(&second), "{family:?} {fault}"),
                "11" => assert_eq!(family.code(&second), "11", "{fault}"),
                message => assert!(second.text.contains(message), "{fault}"),
            }
        }
        assert_charged_once(&sandbox, family, 6);
    }
}

#[test]
fn the_numbers_that_mean_trouble_mean_it_in_each_family() {
    for family in FAMILIES {
        let (_directory, path) = place();
        let sandbox = Running::start(&path);
        for (n, (behaviour, status)) in [
            (Behaviour::DropCharged, None),
            (Behaviour::Error500Charged, Some(500)),
            (Behaviour::Garbage, Some(200)),
            (Behaviour::Empty, Some(200)),
            (Behaviour::PanEcho, Some(200)),
            (Behaviour::LengthLong, Some(200)),
            (Behaviour::LengthShort, Some(200)),
            (Behaviour::PlainText, Some(200)),
        ]
        .into_iter()
        .enumerate()
        {
            let (reference, pan) = (format!("r{n}"), number(0, 1, behaviour));
            let got = family.send(&sandbox, &reference, &pan);
            assert_eq!(got.as_ref().map(|got| got.status), status, "{family:?} {behaviour:?}");
            let echoes = got.is_some_and(|got| got.text.contains(&pan));
            assert_eq!(echoes, behaviour == Behaviour::PanEcho, "{family:?} {behaviour:?}");
        }
        assert_charged_once(&sandbox, family, 8);
        sandbox.advance(86_400);
        let limited = family.send(&sandbox, "limited", &number(0, 1, Behaviour::RateLimited)).unwrap();
        assert_eq!(limited.status, 429, "{family:?}");
        assert_eq!(sandbox.charged("limited"), 0, "{family:?}");
    }
}

#[test]
fn nothing_is_read_where_the_connection_is_reset_before() {
    for family in FAMILIES {
        let (_directory, path) = place();
        let sandbox = Running::start(&path);
        sandbox.script(&json!({ "fault": "reset_before", "count": 1, "skip": 1, "wire": family.wire() }));
        assert!(sale_of(family, &sandbox, "a").whole().is_some());
        let back = sale_of(family, &sandbox, "b");
        assert!(back.bytes.is_empty() && back.end.is_err(), "{family:?}");
        let met = sandbox.get("/sandbox/faults").json["met"].clone();
        assert_eq!(met, json!([{ "fault": "reset_before", "wire": family.wire(), "count": 1 }]));
        assert!(sale_of(family, &sandbox, "c").whole().is_some());
        assert_charged_once(&sandbox, family, 2);
    }
}

#[test]
fn connections_are_refused_for_a_while() {
    let (_directory, path) = place();
    let sandbox = Running::start(&path);
    sandbox.script(&json!({ "fault": "refuse", "for_ms": 2000 }));
    let start = Instant::now();
    let refused =
        || matches!(TcpStream::connect(sandbox.address), Err(e) if e.kind() == ErrorKind::ConnectionRefused);
    while !refused() {
        assert!(start.elapsed() < Duration::from_millis(1900), "it was never refused");
        std::thread::sleep(Duration::from_millis(5));
    }
    while TcpStream::connect(sandbox.address).is_err() {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Family::Plain.is_approved(&Family::Plain.send(&sandbox, "r", APPROVED).unwrap()));
    // One connection: reset as soon as it is there.
    sandbox.script(&json!({ "fault": "refuse", "count": 1 }));
    assert!(sale_of(Family::Plain, &sandbox, "x").bytes.is_empty());
    assert_eq!(sandbox.charged("x"), 0);
}

/// With every fault by chance: whoever sends the same again until he has an answer charges once.
#[test]
fn by_chance_nothing_is_doubled_and_nothing_lost_that_is_asked_for_again() {
    for (family, seed) in
        [(Family::Plain, 1_u32), (Family::Adyen, 2), (Family::Stripe, 3), (Family::Worldpay, 4)]
    {
        let (_directory, path) = place();
        let sandbox = Running::start(&path);
        sandbox.script(&json!({ "seed": seed, "per_mille": 500 }));
        let mut tries = 0;
        for n in 0..60 {
            let reference = format!("r{n}");
            let answered = (0..100).any(|_| {
                tries += 1;
                let got = sale_of(family, &sandbox, &reference).whole();
                got.is_some_and(|got| family.is_approved(&got) || got.text.contains("Duplicate Order"))
            });
            assert!(answered, "{family:?}");
        }
        // The sandbox's own verbs come over connections that are refused by chance too.
        let end = json!({ "seed": 0, "per_mille": 0 });
        assert!(
            (0..100).any(|_| sandbox.post("/sandbox/faults", "-", &end).is_some_and(|got| got.status == 200))
        );
        assert!(tries > 80, "{family:?} met {tries} tries: no fault at all");
        assert_charged_once(&sandbox, family, 60);
    }
}

/// A cut inside TLS: the record before it arrives, and what follows does not.
#[test]
fn answers_are_cut_under_tls_as_well() {
    let (directory, path) = place();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let (certificate_file, key_file) = (directory.path().join("c.pem"), directory.path().join("k.pem"));
    std::fs::write(&certificate_file, certificate.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let tls = Some((certificate_file, key_file));
    let sandbox = Running::start_as(&path, |settings| settings.tls = tls);
    let url = format!("https://localhost:{}", sandbox.address.port());
    let pem = certificate.pem();
    let client = crate::tools::client::Client::new(&url, Some(pem.as_bytes()), Some("sk_test_one")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for (n, fault) in ["reset", "truncate"].into_iter().enumerate() {
            for at in [0, 17, 120] {
                let script = json!({ "fault": fault, "count": 1, "at": at });
                assert_eq!(client.post("/sandbox/faults", "-", &script).await.unwrap().status, 200);
                let (key, body) = (format!("k{n}{at}"), sale(&format!("r{n}{at}"), APPROVED, 1000));
                let lost = client.post("/v1/payments", &key, &body).await;
                assert_eq!(lost.err(), Some(crate::tools::client::ClientError::Lost), "{fault} {at}");
                assert_eq!(client.post("/v1/payments", &key, &body).await.unwrap().status, 200);
            }
        }
        let all = client.get("/sandbox/ledger/references").await.unwrap();
        assert_eq!(String::from_utf8_lossy(&all.body).lines().count(), 6);
    });
}
