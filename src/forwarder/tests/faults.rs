//! What goes wrong, and what is said of it: sent, not sent, or nobody knows.

use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::server::{APPROVED, Authority, Connection, Server};
use super::{PAN, Running, destination, sale};
use crate::wire::forwarder::{Outcome, Sent, Verdict};

/// Ends the connection after these bytes.
fn then_close(bytes: &'static [u8]) -> impl Fn(&mut Connection) + Send + Sync + 'static {
    move |connection| {
        connection.read_request();
        connection.write(bytes);
        connection.close();
    }
}

fn facts(outcome: &Outcome) -> (Sent, Option<&str>, Option<(Verdict, bool)>) {
    let answer = outcome.answer.as_ref().map(|answer| (answer.verdict, answer.unknown));
    (outcome.sent, outcome.error.as_deref(), answer)
}

type Serve = Box<dyn Fn(&mut Connection) + Send + Sync>;
type Expected = (Sent, Option<&'static str>, Option<(Verdict, bool)>);

const UNKNOWN: Option<(Verdict, bool)> = Some((Verdict::Error, true));
const DONE: Option<(Verdict, bool)> = Some((Verdict::Approved, false));

fn lost(word: &'static str) -> Expected {
    (Sent::Maybe, Some(word), None)
}

fn answers() -> Vec<(&'static str, Serve, Expected)> {
    let redirect = b"HTTP/1.1 307 T\r\nlocation: /v1/payments\r\ncontent-length: 0\r\n\r\n";
    let gzip = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}";
    let short =
        b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{\"status\":\"approved\",\"id\":\"p\",\"amount\":500}";
    vec![
        ("approved", Box::new(then_close(APPROVED)), (Sent::Yes, None, DONE)),
        ("a redirect", Box::new(then_close(redirect)), (Sent::Yes, Some("redirect"), UNKNOWN)),
        ("a compressed answer", Box::new(then_close(gzip)), (Sent::Yes, Some("encoding"), UNKNOWN)),
        ("a length that is too small", Box::new(then_close(short)), (Sent::Yes, None, UNKNOWN)),
        (
            "a page of a proxy",
            Box::new(then_close(b"HTTP/1.1 502 Bad\r\ncontent-length: 4\r\n\r\n<p/>")),
            (Sent::Yes, None, UNKNOWN),
        ),
        ("an answer after a hint", Box::new(after_hints), (Sent::Yes, None, DONE)),
    ]
}

fn losses() -> Vec<(&'static str, Serve, Expected)> {
    let large = b"HTTP/1.1 200 OK\r\ncontent-length: 262145\r\n\r\n{";
    vec![
        ("nothing, then the end", Box::new(then_close(b"")), lost("closed")),
        ("half a head", Box::new(then_close(b"HTTP/1.1 200 OK\r\ncontent-le")), lost("closed")),
        ("half a body", Box::new(then_close(&APPROVED[..60])), lost("truncated")),
        (
            "half a chunk",
            Box::new(then_close(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n{\"sta")),
            lost("truncated"),
        ),
        (
            "a chunk without a length",
            Box::new(then_close(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n")),
            lost("protocol"),
        ),
        ("garbage", Box::new(then_close(b"\x00\x01\x02 hello\r\n\r\n")), lost("protocol")),
        (
            "another protocol",
            Box::new(then_close(b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")),
            lost("protocol"),
        ),
        ("a length over the limit", Box::new(then_close(large)), lost("too_large")),
        ("a body without an end", Box::new(endless_body), lost("too_large")),
        ("a head without an end", Box::new(endless_head), lost("too_large")),
        (
            "a reset",
            Box::new(|connection: &mut Connection| {
                connection.read_request();
                connection.reset();
            }),
            lost("reset"),
        ),
        (
            "silence",
            Box::new(|c: &mut Connection| drop((c.read_request(), c.read_request()))),
            lost("timeout"),
        ),
        ("a drip", Box::new(drip), lost("timeout")),
    ]
}

fn after_hints(connection: &mut Connection) {
    connection.read_request();
    connection.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\n");
    connection.write(APPROVED);
}

fn endless_body(connection: &mut Connection) {
    connection.read_request();
    connection.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    for _ in 0..300 {
        connection.write(format!("400\r\n{}\r\n", "a".repeat(1024)).as_bytes());
    }
}

fn endless_head(connection: &mut Connection) {
    connection.read_request();
    connection.write(b"HTTP/1.1 200 OK\r\n");
    for n in 0..90 {
        connection.write(format!("x{n}: {}\r\n", "a".repeat(1024)).as_bytes());
    }
}

fn drip(connection: &mut Connection) {
    connection.read_request();
    for byte in APPROVED.chunks(1) {
        connection.write(byte);
        std::thread::sleep(Duration::from_millis(40));
    }
}

/// Each server once, each request written once, whatever came back, and all within the destination's second.
fn check(table: Vec<(&'static str, Serve, Expected)>) {
    let (names, servers): (Vec<_>, Vec<_>) =
        table.into_iter().map(|(name, serve, expected)| ((name, expected), Server::start(serve))).unzip();
    let destinations = names.iter().zip(&servers).map(|((name, _), server)| server.destination(name));
    let mut running = Running::start(destinations.collect());
    let began = Instant::now();
    for (name, _) in &names {
        running.keeper.send(sale(name, PAN));
    }
    for _ in &names {
        let (id, outcome) = running.keeper.receive();
        let (name, expected) = names[id as usize - 1];
        assert_eq!(facts(&outcome), expected, "{name}");
        assert_eq!(servers[id as usize - 1].counts(), (1, 1), "{name}");
    }
    assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
}

#[test]
fn an_answer_that_came_is_an_answer_even_if_it_says_nothing() {
    check(answers());
}

#[test]
fn after_the_first_byte_nobody_knows_and_nothing_is_sent_again() {
    check(losses());
}

#[test]
fn before_the_first_byte_nothing_was_sent() {
    let never = |_: &mut Connection| {};
    let good = Server::start(never);
    let expired = Server::start_as("127.0.0.1", 2025, never);
    let elsewhere = Server::start_as("processor.example", 2040, never);
    let stranger = Authority::make();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let plain_address = plain.local_addr().unwrap();
    let talking = std::thread::spawn(move || plain.accept().unwrap().0.write_all(b"SSH-2.0-hello\r\n"));
    let at = |name: &str, address: std::net::SocketAddr, trust: &str| {
        destination(name, &format!("https://{address}"), trust)
    };
    let mut running = Running::start(vec![
        at("refused", free, &stranger.pem),
        at("stranger", good.address, &stranger.pem),
        expired.destination("expired"),
        elsewhere.destination("elsewhere"),
        at("mute", mute.local_addr().unwrap(), &stranger.pem),
        at("plain", plain_address, &stranger.pem),
        destination("nowhere", "https://nowhere.invalid", &stranger.pem),
        good.destination("good"),
    ]);
    let cases = [
        ("refused", "connect"),
        ("stranger", "tls"),
        ("expired", "tls"),
        ("elsewhere", "tls"),
        ("mute", "tls"),
        ("plain", "tls"),
        ("nowhere", "dns"),
        ("never loaded", "destination"),
    ];
    for (name, _) in cases {
        running.keeper.send(sale(name, PAN));
    }
    for _ in cases {
        let (id, outcome) = running.keeper.receive();
        let (name, word) = cases[id as usize - 1];
        assert_eq!(facts(&outcome), (Sent::Not, Some(word), None), "{name}");
        assert_eq!(outcome.upstream_us, 0);
    }
    for (name, value) in
        [("x-note", "a\r\nx-evil: b"), ("x\n", "a"), ("Host", "evil"), ("Content-Length", "1")]
    {
        let mut exchange = sale("good", PAN);
        exchange.headers.push((name.to_owned(), value.to_owned()));
        assert_eq!(facts(&running.ask(exchange)), (Sent::Not, Some("request"), None), "{name:?}");
    }
    for path in ["", "v1", "http://evil.example/", "/a b", "/a\r\nx: y"] {
        let exchange = crate::wire::forwarder::Exchange { path: path.to_owned(), ..sale("good", PAN) };
        assert_eq!(facts(&running.ask(exchange)), (Sent::Not, Some("request"), None), "{path:?}");
    }
    for server in [good, expired, elsewhere] {
        assert_eq!(server.counts().0, 0);
    }
    talking.join().unwrap().unwrap();
}
