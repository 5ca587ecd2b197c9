//! Worldpay's wire form (WPG): XML documents on one path, with a DOCTYPE both ways. An order's code is the caller's, and
//! the natural key: a second order with it is refused, and everything else names the order by it.
//!
//! Shapes after recorded answers and copies of <https://developer.worldpay.com/docs/wpg> (looked up 2026-11-25).
//! `captureDelay="0"` on an order makes it a sale; without it an order waits for its capture. Modifications that the
//! money rules forbid are refused at once; the wording of those refusals is ours.

mod shape;

use hyper::{Method, Response, StatusCode};

use super::book::{FollowUp, Order, Refusal, Request};
use super::faults::{Met, Occasion};
use super::index::Record;
use super::ledger::{Entry, FamilyFields, Kind, Status, Wire};
use super::numbers;
use super::processor::{Arrived, Operation, Performed, Sandbox};
use super::reply::{Answer, Dropped, Form, Reply};
use super::xml::Node;
use shape::Voice;

const CODE_LEN_MAX: usize = 64;

/// Whether a path is this form's.
pub(super) fn is_path(path: &str) -> bool {
    path == "/jsp/merchant/xml/paymentService.jsp"
}

/// An error outside what the card decides.
pub(super) fn error(status: StatusCode, message: &str) -> Reply {
    Reply { status, ..Voice::new("").error("1", message) }
}

/// What one document asks for.
enum Asked {
    Perform(Box<Request>, Operation, Option<String>),
    LookUp,
}

/// One request in this form.
pub(super) async fn answer(sandbox: &Sandbox, arrived: Arrived) -> Result<Response<Answer>, Dropped> {
    let root = Node::read_xml(&arrived.body).filter(|root| root.name == "paymentService");
    let Some(root) = root.filter(|_| arrived.parts.method == Method::POST) else {
        return Ok(Voice::new("").error("2", "Invalid XML: it is no paymentService document.").send());
    };
    let voice = Voice::new(root.attribute("merchantCode"));
    let (what, code, asked) = match read(sandbox, &arrived, &root, &voice) {
        Ok(asked) => asked,
        Err(reply) => return Ok(reply.send()),
    };
    match asked {
        Asked::LookUp => {
            let met = sandbox.meets(Occasion::LookUp, Some(Wire::Worldpay));
            let end = sandbox.book().end();
            if sandbox.until_durable(end).await.is_err() {
                return Ok(refused(&voice, &code, Refusal::Broken).send());
            }
            sandbox.take_time(arrived.at, std::time::Duration::ZERO).await;
            inquire(sandbox, &voice, &code).send_with(met, Form::Worldpay, None, &arrived.way).await
        }
        Asked::Perform(request, operation, number) => {
            let (reply, met) = match sandbox.perform(&request, operation, arrived.at).await {
                Ok(Performed { entry, met, replayed, .. }) => {
                    (Reply { replayed, ..told(&voice, &entry, what, &code) }, met)
                }
                Err(refusal) => (refused(&voice, &code, refusal), Met::NOTHING),
            };
            reply.send_with(met, Form::Worldpay, number.as_deref(), &arrived.way).await
        }
    }
}

/// The words for what is asked for, as the answer repeats them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Order,
    Capture,
    Refund,
    Cancel,
    CancelOrRefund,
    Inquiry,
}

fn read(
    sandbox: &Sandbox,
    arrived: &Arrived,
    root: &Node,
    voice: &Voice,
) -> Result<(What, String, Asked), Reply> {
    let invalid = |message: &str| voice.error("5", message);
    if let Some(order) = root.at(&["submit", "order"]) {
        let code = code_of(order).ok_or_else(|| invalid("Invalid order code"))?;
        let (operation, number, has_cvc) = submit(root, order).map_err(|message| invalid(&message))?;
        let request = request(sandbox, arrived, code, &operation, number.as_deref());
        let request = Request { has_cvc, ..request };
        return Ok((What::Order, code.to_owned(), Asked::Perform(Box::new(request), operation, number)));
    }
    if let Some(modification) = root.at(&["modify", "orderModification"]) {
        let code = code_of(modification).ok_or_else(|| invalid("Invalid order code"))?;
        let unknown = || voice.order_error(code, "5", "Could not find payment for order");
        let (record, paid) = find(sandbox, code).ok_or_else(unknown)?;
        let (what, follow, reference) =
            modify(modification, &record, &paid).map_err(|message| voice.order_error(code, "5", message))?;
        let operation = Operation::Follow(follow);
        let request = request(sandbox, arrived, &reference, &operation, None);
        return Ok((what, code.to_owned(), Asked::Perform(Box::new(request), operation, None)));
    }
    if let Some(inquiry) = root.at(&["inquiry", "orderInquiry"]) {
        let code = code_of(inquiry).ok_or_else(|| invalid("Invalid order code"))?;
        return Ok((What::Inquiry, code.to_owned(), Asked::LookUp));
    }
    Err(voice.error("2", "Invalid XML: neither an order, a modification nor an inquiry."))
}

fn code_of(node: &Node) -> Option<&str> {
    let code = node.attribute("orderCode");
    let fits = |c: char| !c.is_whitespace() && !matches!(c, '<' | '"' | '\'' | '&');
    (1..=CODE_LEN_MAX).contains(&code.len()).then_some(code).filter(|code| code.chars().all(fits))
}

/// The newest payment of this order code, also one that look-ups do not see yet.
fn find(sandbox: &Sandbox, code: &str) -> Option<(Record, Entry)> {
    let records = sandbox.book().by_reference(Wire::Worldpay, code);
    let is_payment = |record: &&Record| matches!(record.kind, Kind::Sale | Kind::Authorize | Kind::Verify);
    let record = records.iter().find(is_payment).copied()?;
    let entry = sandbox.read(record.place).filter(|entry| entry.reference == code)?;
    Some((record, entry))
}

fn amount(node: &Node) -> Option<(i64, &str, &str)> {
    let value = node.attribute("value").parse().ok().filter(|value| *value >= 0)?;
    let currency = node.attribute("currencyCode");
    let exponent = node.attribute("exponent");
    let is_currency = currency.len() == 3 && currency.bytes().all(|b| b.is_ascii_uppercase());
    (is_currency && matches!(exponent, "0" | "2" | "3")).then_some((value, currency, exponent))
}

fn submit(root: &Node, order: &Node) -> Result<(Operation, Option<String>, bool), String> {
    let wrong = |what: &str| format!("XML failed validation: Invalid payment details : {what}");
    let Some((value, currency, exponent)) = order.child("amount").and_then(amount) else {
        return Err(wrong("Invalid amount"));
    };
    if order.text(&["description"]).is_empty() {
        return Err(wrong("Invalid description"));
    }
    // CARD-SSL, or a brand's own element.
    let details =
        order.child("paymentDetails").map(|details| details.children.as_slice()).unwrap_or_default();
    let Some(card) = details.iter().find(|method| method.child("cardNumber").is_some()) else {
        return Err(wrong("Invalid payment method"));
    };
    let number = card.text(&["cardNumber"]).to_owned();
    if !numbers::is_card_number(&number) {
        return Err(wrong("Card number not recognised"));
    }
    let date = card.at(&["expiryDate", "date"]).map(|date| (date.attribute("month"), date.attribute("year")));
    let month = date.and_then(|(month, _)| month.parse::<u8>().ok()).filter(|month| (1..=12).contains(month));
    let year =
        date.and_then(|(_, year)| year.parse::<u16>().ok()).filter(|year| (2000..=2100).contains(year));
    let Some((month, year)) = month.zip(year) else { return Err(wrong("Expiry date invalid")) };
    if card.text(&["cardHolderName"]).is_empty() {
        return Err(wrong("Invalid cardholder name"));
    }
    let kind = match (value, order.attribute("captureDelay")) {
        (0, _) => Kind::Verify,
        (_, "0") => Kind::Sale,
        (_, _) => Kind::Authorize,
    };
    let has_cvc = !card.text(&["cvc"]).is_empty();
    let zip = card.text(&["cardAddress", "address", "postalCode"]);
    let is_present = order.at(&["paymentDetails", "storedCredentials"]).is_none_or(|stored| {
        stored.attribute("merchantInitiatedReason").is_empty() || stored.attribute("usage") == "FIRST"
    });
    let new = Order {
        has_zip: !zip.is_empty(),
        has_cvc,
        family: Some(FamilyFields {
            merchant: root.attribute("merchantCode").to_owned(),
            brand: numbers::brand(&number).to_owned(),
            expiry: format!("{month:02}/{year}"),
            echo: exponent.to_owned(),
            cvc: has_cvc,
            present: is_present,
        }),
        ..Order::new(kind, value, currency, &number)
    };
    Ok((Operation::Place(Box::new(new)), Some(number), has_cvc))
}

fn modify(
    modification: &Node,
    record: &Record,
    paid: &Entry,
) -> Result<(What, FollowUp, String), &'static str> {
    let asked = modification.children.first().ok_or("Invalid modification")?;
    let (what, kind) = match asked.name.as_str() {
        "capture" => (What::Capture, Kind::Capture),
        "refund" => (What::Refund, Kind::Refund),
        "cancel" => (What::Cancel, Kind::Void),
        // What was captured is given back, all of it; what was not is cancelled.
        "cancelOrRefund" if record.captured > 0 => (What::CancelOrRefund, Kind::Refund),
        "cancelOrRefund" => (What::CancelOrRefund, Kind::Void),
        _ => return Err("Invalid modification"),
    };
    let amount = match asked.child("amount") {
        Some(node) => Some(amount(node).ok_or("Invalid amount")?),
        None => None,
    };
    if amount.is_some_and(|(_, currency, _)| currency != paid.currency) {
        return Err("Invalid currency");
    }
    if amount.is_none() && what == What::Refund {
        return Err("Invalid amount");
    }
    let follow = FollowUp {
        kind,
        payment: paid.id.clone(),
        amount: amount.map(|(value, ..)| value),
        is_final: false,
        metadata: serde_json::Map::new(),
    };
    Ok((what, follow, asked.attribute("reference").to_owned()))
}

fn request(
    sandbox: &Sandbox,
    arrived: &Arrived,
    reference: &str,
    operation: &Operation,
    number: Option<&str>,
) -> Request {
    let (kind, about, amount) = match operation {
        Operation::Place(order) => (order.kind, number.unwrap_or_default(), Some(order.amount)),
        Operation::Follow(follow) => (follow.kind, follow.payment.as_str(), follow.amount),
    };
    let amount = amount.map_or_else(String::new, |amount| amount.to_string());
    Request {
        wire: Wire::Worldpay,
        key: arrived.header("idempotency-key").map(str::to_owned),
        digest: sandbox.digest(arrived),
        reference: reference.to_owned(),
        window: sandbox.window(&[kind.word(), about, &amount, reference]),
        window_s: None,
        has_cvc: false,
    }
}

fn told(voice: &Voice, entry: &Entry, what: What, code: &str) -> Reply {
    if entry.status == Status::Error {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "Internal error, a system error has occurred");
    }
    if what == What::Order {
        return voice.order(entry, &Record::decided(entry), false);
    }
    if entry.status == Status::Declined {
        return voice.order_error(code, "7", "The modification was refused");
    }
    voice.received(
        match what {
            What::Capture => "capture",
            What::Refund => "refund",
            What::Cancel => "cancel",
            What::CancelOrRefund | What::Order | What::Inquiry => "void",
        },
        entry,
        code,
    )
}

fn inquire(sandbox: &Sandbox, voice: &Voice, code: &str) -> Reply {
    match find(sandbox, code).filter(|(record, _)| sandbox.is_searchable(record)) {
        Some((record, entry)) => voice.order(&entry, &record, true),
        None => voice.order_error(code, "5", "Could not find payment for order"),
    }
}

fn refused(voice: &Voice, code: &str, refusal: Refusal) -> Reply {
    let (number, message) = match refusal {
        Refusal::ReferenceUsed => ("5", "Duplicate Order"),
        Refusal::KeyInFlight => ("9", "Request in progress"),
        Refusal::KeyReused | Refusal::Duplicate => ("9", "Invalid idempotency-key"),
        Refusal::Unknown | Refusal::Unsettled => ("5", "Could not find payment for order"),
        Refusal::TooLarge(_) => ("5", "The requested amount is more than what is left of the order"),
        Refusal::WrongState(_) => ("5", "The payment does not stand so that this can be done"),
        Refusal::Broken => {
            let message = "Internal error, a system error has occurred";
            return error(StatusCode::SERVICE_UNAVAILABLE, message);
        }
    };
    voice.order_error(code, number, message)
}
