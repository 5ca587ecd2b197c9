//! What the supervisor says: start, reload, a new keeper, stop, and nothing more.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::server::{APPROVED, Server};
use super::{Keeper, PAN, Running, destination, sale};
use crate::wire::control::{Destination, FromForwarderControl, ToForwarderControl};
use crate::wire::forwarder::Sent;
use crate::wire::pair;

/// Answers after a while.
fn slow(pause_ms: u64) -> Server {
    Server::start(move |connection| {
        while connection.read_request().is_some() {
            std::thread::sleep(Duration::from_millis(pause_ms));
            connection.write(APPROVED);
        }
    })
}

type Spoil = fn(&mut Destination);

/// Waits until the server has read so many requests.
fn until_read(server: &Server, requests: usize) {
    let began = Instant::now();
    while server.counts().0 < requests {
        assert!(began.elapsed() < super::PATIENCE);
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_reload_that_fails_changes_nothing() {
    let server = Server::answering(APPROVED);
    let good = server.destination("d");
    let mut running = Running::start(vec![good.clone()]);
    let spoilt: [(&str, Spoil); 6] = [
        ("connector", |d| d.connector_toml = "name = 1".to_owned()),
        ("trust", |d| d.trust_pem = "none".to_owned()),
        ("port", |d| d.endpoint = "https://127.0.0.1:1".to_owned()),
        ("scheme", |d| d.endpoint = "ftp://127.0.0.1".to_owned()),
        ("user", |d| d.endpoint = d.endpoint.replace("//", "//user@")),
        ("query", |d| d.endpoint.push_str("/?a=b")),
    ];
    for (what, spoil) in spoilt {
        let mut bad = good.clone();
        spoil(&mut bad);
        running.tell(&ToForwarderControl::Reload(vec![bad]));
        assert!(matches!(running.hear(), FromForwarderControl::Failed(_)), "{what}");
        assert_eq!(running.ask(sale("d", PAN)).sent, Sent::Yes, "{what}");
    }
    assert_eq!(server.counts(), (6, 1));
}

#[test]
fn a_reload_keeps_connections_to_where_nothing_changed() {
    let server = Server::answering(APPROVED);
    let mut running = Running::start(vec![server.destination("d")]);
    assert_eq!(running.ask(sale("d", PAN)).sent, Sent::Yes);
    let again = |name, timeout_seconds| Destination { timeout_seconds, ..server.destination(name) };
    running.tell(&ToForwarderControl::Reload(vec![again("d", 2), again("e", 2)]));
    let began = Instant::now();
    while running.ask(sale("e", PAN)).sent != Sent::Yes {
        assert!(began.elapsed() < super::PATIENCE);
    }
    assert_eq!(server.counts(), (2, 2));
    assert_eq!(running.ask(sale("d", PAN)).sent, Sent::Yes);
    assert_eq!(server.counts(), (3, 2));
}

#[test]
fn settings_that_do_not_compile_end_the_start() {
    let (supervisor, control) = pair::make_pair().unwrap();
    let thread = std::thread::spawn(move || crate::forwarder::run(control));
    let bad = destination("d", "https://127.0.0.1:1", "no certificate");
    pair::send(&supervisor, &ToForwarderControl::Start(vec![bad]), &[]).unwrap();
    let (said, _) = pair::receive::<FromForwarderControl>(&supervisor).unwrap();
    assert!(matches!(said, FromForwarderControl::Failed(sentence) if sentence.contains("destination d")));
    assert!(thread.join().unwrap().is_err());
}

#[test]
fn a_new_keeper_is_served_and_the_old_ones_exchange_goes_on() {
    let server = slow(100);
    let mut running = Running::start(vec![server.destination("d")]);
    running.keeper.send(sale("d", PAN));
    until_read(&server, 1);
    let (keeper, theirs) = pair::make_pair().unwrap();
    let supervisor = running.supervisor.as_ref().unwrap();
    pair::send(supervisor, &ToForwarderControl::KeeperPair, &[theirs.as_fd()]).unwrap();
    drop(theirs);
    let before = std::mem::replace(&mut running.keeper, Keeper::new(keeper));
    drop(before);
    assert_eq!(running.ask(sale("d", PAN)).sent, Sent::Yes);
    assert_eq!(server.counts().0, 2);
}

#[test]
fn a_stop_finishes_what_is_under_way_and_begins_nothing() {
    let server = slow(1500);
    let patient = Destination { timeout_seconds: 60, ..server.destination("d") };
    let mut running = Running::start(vec![patient]);
    let first = running.keeper.send(sale("d", PAN));
    until_read(&server, 1);
    running.tell(&ToForwarderControl::Stop);
    // The stop comes over another line than the next request: it gets time to arrive first, on a busy machine too.
    std::thread::sleep(Duration::from_millis(500));
    running.keeper.send(sale("d", PAN));
    let mut outcomes = [running.keeper.receive(), running.keeper.receive()];
    outcomes.sort_by_key(|(id, _)| *id != first);
    let [(_, finished), (_, refused)] = outcomes;
    assert_eq!(finished.sent, Sent::Yes);
    assert_eq!((refused.sent, refused.error.as_deref()), (Sent::Not, Some("stopping")));
    running.ended().unwrap();
    assert_eq!(server.counts().0, 1);
}

#[test]
fn without_a_supervisor_it_ends_at_once() {
    for is_stopping in [false, true] {
        let server = slow(3000);
        let held = Destination { timeout_seconds: 60, ..server.destination("d") };
        let mut running = Running::start(vec![held]);
        running.keeper.send(sale("d", PAN));
        until_read(&server, 1);
        if is_stopping {
            running.tell(&ToForwarderControl::Stop);
        }
        let began = Instant::now();
        drop(running.supervisor.take());
        running.ended().unwrap();
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}

#[test]
fn a_line_that_holds_nonsense_is_closed() {
    use std::io::{Read, Write};
    let mut running = Running::start(Vec::new());
    running.keeper.stream.write_all(&[0xff; 64]).unwrap();
    let mut end = [0];
    assert_eq!(running.keeper.stream.read(&mut end).unwrap_or(0), 0);
}
