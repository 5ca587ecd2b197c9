//! The courier over its real lines: what of a receiver's answer it tells.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::PATIENCE;
use super::server::Server;
use crate::wire::control::{CourierHost, CourierSettings, FromCourierControl, ToCourierControl};
use crate::wire::courier::{Post, Posted, RETRY_AFTER_SECONDS_MAX};
use crate::wire::frame::{self, FrameReader};
use crate::wire::pair;

#[test]
fn it_tells_for_how_long_a_receiver_asks_to_be_left_alone() {
    let answers = [
        ("429 Too Many Requests", "retry-after: 90", Some(90)),
        ("503 Service Unavailable", "retry-after: 99999999999", Some(RETRY_AFTER_SECONDS_MAX)),
        (
            "503 Service Unavailable",
            "date: Sun, 06 Nov 1994 08:49:07 GMT\r\nretry-after: Sun, 06 Nov 1994 10:49:07 GMT",
            Some(7_200),
        ),
        ("503 Service Unavailable", "retry-after: soon", None),
        ("500 Internal Server Error", "retry-after: 90", None),
        ("200 OK", "retry-after: 90", None),
    ];
    let server = Server::start(move |connection| {
        while let Some(request) = connection.read_request() {
            let number: usize = request.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
            let (status, fields, _) = answers[number];
            connection
                .write(format!("HTTP/1.1 {status}\r\n{fields}\r\ncontent-length: 0\r\n\r\n").as_bytes());
        }
    });
    let (supervisor, control) = pair::make_pair().unwrap();
    supervisor.set_read_timeout(Some(PATIENCE)).unwrap();
    let thread = std::thread::spawn(move || crate::forwarder::courier::run(control));
    let (host, port) = ("127.0.0.1".to_owned(), server.address.port());
    let settings = CourierSettings {
        hosts: vec![CourierHost { name: host.clone(), port, public_only: false }],
        trust_pem: server.authority.pem.clone(),
        timeout_seconds: 5,
    };
    pair::send(&supervisor, &ToCourierControl::Start(settings), &[]).unwrap();
    let (heard, _) = pair::receive::<FromCourierControl>(&supervisor).unwrap();
    assert!(matches!(heard, FromCourierControl::Ready));
    let (mut edge, theirs) = UnixStream::pair().unwrap();
    edge.set_read_timeout(Some(PATIENCE)).unwrap();
    pair::send(&supervisor, &ToCourierControl::EdgePair, &[theirs.as_fd()]).unwrap();
    let mut reader = FrameReader::new(edge.try_clone().unwrap());
    for (number, (status, _, asked)) in (0_u64..).zip(answers) {
        let path = format!("/{number}");
        let post = Post { host: host.clone(), port, path, headers: Vec::new(), body: b"{}".to_vec() };
        frame::write(&mut edge, number, &post).unwrap();
        let (id, posted) = reader.read::<Posted>().unwrap();
        let answered = posted.status.map(|status| status.to_string());
        assert_eq!((id, answered.as_deref()), (number, status.get(..3)));
        assert_eq!((posted.error, posted.retry_after_seconds), (None, asked), "{status}");
    }
    drop(supervisor);
    thread.join().unwrap().unwrap();
}
