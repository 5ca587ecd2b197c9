//! Forward destinations: where they may be, and what of their answers goes back.

use super::server::Server;
use super::{PAN, Running, sale};
use crate::wire::control::{Destination, ForwardTo};
use crate::wire::forwarder::{Outcome, Sent};

fn destination(server: &Server, name: &str, public_only: bool) -> Destination {
    let spec = toml::from_str("methods = [\"POST\"]\npaths = [\"/v1/*\"]\nanswer_bytes_max = 64").unwrap();
    let forward = Some(Box::new(ForwardTo { spec, public_only }));
    Destination {
        connector: String::new(),
        connector_toml: String::new(),
        forward,
        ..server.destination(name)
    }
}

fn ask(answer: &str, public_only: bool) -> (Outcome, (usize, usize)) {
    let server = Server::answering(answer);
    let mut running = Running::start(vec![destination(&server, "f", public_only)]);
    let outcome = running.keeper.ask(sale("f", PAN));
    (outcome, server.counts())
}

#[test]
fn a_private_address_is_dialed_only_where_that_is_allowed() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    let (refused, counts) = ask(answer, true);
    assert_eq!(
        (refused.sent, refused.error.as_deref(), counts),
        (Sent::Not, Some("private_address"), (0, 0))
    );
    let (allowed, _) = ask(answer, false);
    assert_eq!((allowed.sent, allowed.error, allowed.answer), (Sent::Yes, None, None));
}

#[test]
fn an_answer_goes_back_redacted_or_not_at_all() {
    let with = |head: &str, body: &str| {
        format!("HTTP/1.1 402 No\r\n{head}content-length: {}\r\n\r\n{body}", body.len())
    };
    let (outcome, _) = ask(&with("content-type: text/plain\r\n", &format!("no {PAN}")), false);
    let forwarded = outcome.forwarded.unwrap();
    assert_eq!((forwarded.http_status, forwarded.body.as_str()), (402, "no [redacted]"));
    let (large, _) = ask(&with("", &" ".repeat(65)), false);
    assert_eq!((large.sent, large.error.as_deref()), (Sent::Maybe, Some("too_large")));
    let (packed, _) = ask(&with("content-encoding: br\r\n", "xx"), false);
    assert_eq!((packed.sent, packed.error.as_deref()), (Sent::Yes, Some("encoding")));
    assert_eq!(packed.forwarded.unwrap().body, "");
}
