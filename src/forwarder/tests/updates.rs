//! A new number goes to the keeper alone: nothing that goes on to the edge holds it, in whatever form the processor wrote it.

use super::server::Server;
use super::{PAN, Running, sale, texts};
use crate::connector::UpdateKind;
use crate::wire::forwarder::Exchanged;

const NEW: &str = "4687380000770009";

fn ask(body: &serde_json::Value) -> Exchanged {
    let body = body.to_string();
    let server =
        Server::answering(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    let mut running = Running::start(vec![server.destination("d")]);
    running.keeper.ask_for_all(sale("d", PAN))
}

#[test]
fn a_new_number_is_for_the_keeper_and_in_no_outcome() {
    let hex = data_encoding::HEXLOWER.encode(NEW.as_bytes());
    let base64 = data_encoding::BASE64.encode(NEW.as_bytes());
    let said = ask(&serde_json::json!({
        "id": format!("pay-{NEW}"), "status": "approved", "amount": 500, "amount_approved": 500,
        "currency": "USD", "code": hex, "network_transaction_id": NEW, "advice_code": NEW,
        "message": format!("{PAN} is now 4687-3800 0077-0009, {base64}, {hex}"), "avs": { "zip": NEW },
        "card_update": { "result": "A", "number": NEW, "expiry": "2033-08" },
    }));
    let new_card = said.new_card.unwrap();
    let facts = (new_card.kind, new_card.number.as_ref().map(|n| n.as_str()), new_card.expiry);
    assert_eq!(facts, (UpdateKind::Updated, Some(NEW), Some((8, 2033))));
    let answer = said.outcome.answer.as_ref().unwrap();
    let edge = postcard::to_stdvec(&said.outcome).unwrap();
    for text in [texts(answer), format!("{said:?}", said = said.outcome), format!("{new_card:?}")] {
        for form in [NEW, "0077-0009", "0077 0009", &base64, &hex, PAN] {
            assert!(!text.contains(form), "a form of the number went on");
        }
    }
    assert!(!edge.windows(NEW.len()).any(|window| window == NEW.as_bytes()));
    assert_eq!(answer.message.as_deref(), Some("[redacted] is now [redacted], [redacted], [redacted]"));
    assert!(said.outcome.card_update.is_none(), "only the keeper says it");
}

#[test]
fn what_is_no_update_is_nothing_for_the_keeper() {
    let approved = serde_json::json!({ "id": "pay_1", "status": "approved", "amount": 500, "amount_approved": 500,
        "currency": "USD", "card_update": { "result": "V", "number": NEW } });
    assert!(ask(&approved).new_card.is_none());
    let closed = serde_json::json!({ "id": "pay_1", "status": "declined", "code": "generic_decline",
        "card_update": { "result": "C" } });
    let new_card = ask(&closed).new_card.unwrap();
    assert_eq!((new_card.kind, new_card.number.is_none()), (UpdateKind::Closed, true));
}
