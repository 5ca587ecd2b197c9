//! Connections that are used again, and never a request that is sent twice.

use std::time::{Duration, Instant};

use super::server::{APPROVED, Server};
use super::{PAN, Running, sale};
use crate::wire::forwarder::{Exchange, Sent, Verdict};

fn approved(running: &mut Running, exchange: Exchange) {
    let outcome = running.ask(exchange);
    assert_eq!((outcome.sent, outcome.error), (Sent::Yes, None));
    assert_eq!(outcome.answer.unwrap().verdict, Verdict::Approved);
    assert!(outcome.upstream_us > 0);
}

#[test]
fn a_connection_is_used_again_unless_a_fresh_one_is_asked_for() {
    for (pooled, connections) in [(true, 1), (false, 5)] {
        let server = Server::answering(APPROVED);
        let mut running = Running::start(vec![server.destination("d")]);
        for _ in 0..5 {
            approved(&mut running, Exchange { pooled, ..sale("d", PAN) });
        }
        assert_eq!(server.counts(), (5, connections));
    }
}

#[test]
fn a_connection_that_was_closed_while_it_waited_is_replaced() {
    for is_reset in [false, true] {
        let server = Server::start(move |connection| {
            connection.read_request();
            connection.write(APPROVED);
            if is_reset {
                // The answer must be there before the reset takes it away.
                std::thread::sleep(Duration::from_millis(50));
                connection.reset();
            } else {
                connection.close();
            }
        });
        let mut running = Running::start(vec![server.destination("d")]);
        for _ in 0..3 {
            approved(&mut running, sale("d", PAN));
            // The end must have arrived before the next request is sent, on a busy machine too: a race is the next test's.
            std::thread::sleep(Duration::from_millis(300));
        }
        assert_eq!(server.counts(), (3, 3));
    }
}

#[test]
fn no_request_is_sent_twice() {
    // However the closing races with the next request: what was read is what was asked, or less.
    let server = Server::start(|connection| {
        connection.read_request();
        connection.write(APPROVED);
        std::thread::sleep(Duration::from_micros(20 * connection.number as u64));
    });
    let mut running = Running::start(vec![server.destination("d")]);
    let (mut answered, mut perhaps) = (0, 0);
    for _ in 0..60 {
        match running.ask(sale("d", PAN)).sent {
            Sent::Yes => answered += 1,
            Sent::Maybe => perhaps += 1,
            Sent::Not => {}
        }
    }
    let (requests, _) = server.counts();
    assert!((answered..=answered + perhaps).contains(&requests), "{answered} {perhaps} {requests}");
}

#[test]
fn a_request_that_was_read_on_a_used_connection_is_lost_and_not_sent_again() {
    let server = Server::start(|connection| {
        connection.read_request();
        connection.write(APPROVED);
        connection.read_request();
    });
    let mut running = Running::start(vec![server.destination("d")]);
    approved(&mut running, sale("d", PAN));
    let outcome = running.ask(sale("d", PAN));
    assert_eq!((outcome.sent, outcome.error.as_deref()), (Sent::Maybe, Some("closed")));
    assert_eq!(server.counts(), (2, 1));
}

#[test]
fn an_answer_that_nobody_asked_for_answers_nothing() {
    // The second answer arrives with the first one, or while the connection waits.
    for pause_ms in [0, 30] {
        let server = Server::start(move |connection| {
            while connection.read_request().is_some() {
                let declined = b"HTTP/1.1 402 No\r\ncontent-length: 21\r\n\r\n{\"status\":\"declined\"}";
                if pause_ms == 0 {
                    connection.write(&[APPROVED, declined].concat());
                } else {
                    connection.write(APPROVED);
                    std::thread::sleep(Duration::from_millis(pause_ms));
                    connection.write(declined);
                }
            }
        });
        let mut running = Running::start(vec![server.destination("d")]);
        for _ in 0..3 {
            approved(&mut running, sale("d", PAN));
            std::thread::sleep(Duration::from_millis(60));
        }
        assert_eq!(server.counts(), (3, 3));
    }
}

#[test]
fn sixty_four_are_in_flight_at_once() {
    let server = Server::start(|connection| {
        while connection.read_request().is_some() {
            std::thread::sleep(Duration::from_millis(100));
            connection.write(APPROVED);
        }
    });
    let slow = crate::wire::control::Destination { timeout_seconds: 5, ..server.destination("d") };
    let mut running = Running::start(vec![slow]);
    let began = Instant::now();
    for _ in 0..2 {
        let mut open: std::collections::BTreeSet<u64> =
            (0..64).map(|_| running.keeper.send(sale("d", PAN))).collect();
        for _ in 0..64 {
            let (id, outcome) = running.keeper.receive();
            assert!(open.remove(&id));
            assert_eq!(outcome.sent, Sent::Yes);
        }
    }
    assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
    let (requests, connections) = server.counts();
    assert_eq!(requests, 128);
    assert!(connections <= 64, "{connections}");
}
