//! Adyen's wire form: Checkout's `/payments` and its modifications, and the classic `authorise`, `capture`, `refund` and
//! `cancel`. Modifications are only taken note of, and told of by webhook; there are no look-ups.
//!
//! Shapes after recorded answers and copies of <https://docs.adyen.com> (looked up 2026-11-25). What an account would be
//! set to is fixed: Checkout captures at once unless the request says otherwise, the classic API waits for a capture, and
//! many partial captures are allowed.

mod shape;
mod webhooks;

pub(super) use webhooks::Told;
pub use webhooks::Webhooks;

use hyper::header::HeaderValue;
use hyper::{Method, Response, StatusCode};
use serde_json::Value;

use super::book::{FollowUp, Order, Refusal, Request};
use super::ledger::{Entry, FamilyFields, Kind, Status, Wire};
use super::numbers::{self, Renewed};
use super::processor::{Arrived, Operation, Performed, Sandbox};
use super::reply::{Answer, Dropped, Form, Reply};

const KEY_LEN_MAX: usize = 64;
const TEXT_LEN_MAX: usize = 80;

/// Whether a path is one of this form's: `/v71/…`, `/checkout/v71/…` or `/pal/servlet/Payment/v68/…`, of any version.
pub(super) fn is_path(path: &str) -> bool {
    Api::of(path).is_some()
}

/// An error outside what the card decides.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Reply {
    let (number, kind) = match code {
        "unauthorized" | "invalid_credential" => ("000", "security"),
        "body_too_large" => ("702", "validation"),
        _ => ("000", "internal"),
    };
    shape::error(status, number, message, kind)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Api {
    Checkout,
    Classic,
}

impl Api {
    /// The API of a path, and what follows its version.
    fn of(path: &str) -> Option<(Self, &str)> {
        let (api, rest) = match path.strip_prefix("/pal/servlet/Payment/v") {
            Some(rest) => (Self::Classic, rest),
            None => (Self::Checkout, path.strip_prefix("/checkout").unwrap_or(path).strip_prefix("/v")?),
        };
        let (version, rest) = rest.split_once('/')?;
        (version.len() == 2 && version.bytes().all(|b| b.is_ascii_digit())).then_some((api, rest))
    }
}

/// One request in this form.
pub(super) async fn answer(sandbox: &Sandbox, arrived: Arrived) -> Result<Response<Answer>, Dropped> {
    let path = arrived.parts.uri.path().to_owned();
    let Some((api, rest)) = Api::of(&path).filter(|_| arrived.parts.method == Method::POST) else {
        return Ok(shape::not_found().send());
    };
    let steps: Vec<&str> = rest.split('/').collect();
    let Ok(body) = serde_json::from_slice::<Value>(&arrived.body) else {
        return Ok(invalid("702", "Required object 'paymentRequest' is not provided or not valid.").send());
    };
    let asked = match (api, steps.as_slice()) {
        (Api::Checkout, ["payments"]) | (Api::Classic, ["authorise"]) => pay(api, &body),
        (Api::Checkout, ["payments", id, what]) => modify(sandbox, what, id, &body, "amount"),
        (Api::Classic, [what]) => {
            let id = text(&body, "/originalReference");
            modify(sandbox, what, id, &body, "modificationAmount")
        }
        (_, _) => Err(shape::not_found()),
    };
    let (operation, number, has_cvc) = match asked {
        Ok(asked) => asked,
        Err(reply) => return Ok(reply.send()),
    };
    let request = match request(sandbox, &arrived, &body, &operation, number.as_deref()) {
        Ok(request) => Request { has_cvc, ..request },
        Err(reply) => return Ok(reply.send()),
    };
    let what = steps.last().copied().unwrap_or_default();
    let renewed = number.as_deref().and_then(|number| renewed(&operation, number));
    let asked = (number.as_deref(), renewed);
    finish(sandbox, &arrived, &request, operation, asked, (what, api)).await
}

/// What the Real Time Account Updater says of a card that is charged as ContAuth, without a code and not for zero.
fn renewed(operation: &Operation, number: &str) -> Option<Renewed> {
    let Operation::Place(order) = operation else { return None };
    let expiry = order.family.as_ref().and_then(|family| family.expiry.split_once('/'));
    let (month, year) = expiry.and_then(|(month, year)| month.parse().ok().zip(year.parse().ok()))?;
    order.asks_updater().then(|| numbers::renewed(order.behaviour, number, (month, year))).flatten()
}

type Asked = (Operation, Option<String>, bool);

fn text<'a>(body: &'a Value, pointer: &str) -> &'a str {
    body.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A number, also one that is written as text, as older clients do.
fn number_of(body: &Value, pointer: &str) -> Option<i64> {
    let value = body.pointer(pointer)?;
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// An amount of this name: minor units and currency.
fn amount<'a>(body: &'a Value, name: &str) -> Result<(i64, &'a str), Reply> {
    let value = number_of(body, &format!("/{name}/value")).filter(|value| *value >= 0);
    let currency = text(body, &format!("/{name}/currency"));
    match value {
        None => Err(invalid("100", "No amount specified")),
        Some(_) if currency.len() != 3 || !currency.bytes().all(|b| b.is_ascii_uppercase()) => {
            Err(invalid("138", "Unsupported currency specified"))
        }
        Some(value) => Ok((value, currency)),
    }
}

fn pay(api: Api, body: &Value) -> Result<Asked, Reply> {
    let (value, currency) = amount(body, "amount")?;
    let card = body.get(if api == Api::Checkout { "paymentMethod" } else { "card" }).unwrap_or(&Value::Null);
    let number = text(card, "/number").to_owned();
    if !numbers::is_card_number(&number) {
        return Err(invalid("101", "Invalid card number"));
    }
    let (month, year) = (number_of(card, "/expiryMonth"), number_of(card, "/expiryYear"));
    let expiry =
        month.zip(year).filter(|(month, year)| (1..=12).contains(month) && (2000..=2100).contains(year));
    let Some((month, year)) = expiry else {
        return Err(invalid("140", "Invalid expiryMonth[1..12] / expiryYear[>2000], or before now"));
    };
    let has_cvc = !text(card, "/cvc").is_empty();
    let brand = numbers::brand(&number);
    let order = Order {
        has_zip: !text(body, "/billingAddress/postalCode").is_empty(),
        has_cvc,
        by_merchant: text(body, "/shopperInteraction") == "ContAuth",
        invoice: Some(text(body, "/merchantOrderReference").to_owned()).filter(|text| !text.is_empty()),
        family: Some(FamilyFields {
            merchant: text(body, "/merchantAccount").to_owned(),
            brand: brand.to_owned(),
            expiry: format!("{month}/{year}"),
            cvc: has_cvc,
            present: text(body, "/shopperInteraction") != "ContAuth",
            ..FamilyFields::default()
        }),
        ..Order::new(kind(api, body, value), value, currency, &number)
    };
    Ok((Operation::Place(Box::new(order)), Some(number), has_cvc))
}

fn kind(api: Api, body: &Value, value: i64) -> Kind {
    let manual = body.pointer("/additionalData/manualCapture");
    let manual = manual.and_then(|manual| manual.as_bool().or_else(|| manual.as_str()?.parse().ok()));
    let delay_h = number_of(body, "/captureDelayHours");
    let waits = match (manual, delay_h) {
        (Some(manual), _) => manual,
        (None, Some(delay_h)) => delay_h > 0,
        (None, None) => api == Api::Classic,
    };
    match (value, waits) {
        (0, _) => Kind::Verify,
        (_, true) => Kind::Authorize,
        (_, false) => Kind::Sale,
    }
}

fn modify(sandbox: &Sandbox, what: &str, id: &str, body: &Value, name: &str) -> Result<Asked, Reply> {
    let unknown = || invalid("167", "Original pspReference required for this operation");
    let Some(record) = sandbox.book().by_id(Wire::Adyen, id) else { return Err(unknown()) };
    let is_payment = matches!(record.kind, Kind::Sale | Kind::Authorize | Kind::Verify);
    let Some(paid) = sandbox.read(record.place).filter(|paid| is_payment && paid.id == id) else {
        return Err(unknown());
    };
    let kind = match what {
        "captures" | "capture" => Kind::Capture,
        "refunds" | "refund" => Kind::Refund,
        "cancels" | "cancel" => Kind::Void,
        // What was captured is given back, all of it; what was not is cancelled.
        "reversals" | "cancelOrRefund" if record.captured > 0 => Kind::Refund,
        "reversals" | "cancelOrRefund" => Kind::Void,
        _ => return Err(shape::not_found()),
    };
    let has_amount = matches!(what, "captures" | "capture" | "refunds" | "refund");
    let value = if has_amount {
        let (value, currency) = amount(body, name)?;
        if value == 0 {
            return Err(invalid("137", "Invalid amount specified"));
        }
        if currency != paid.currency {
            return Err(invalid("138", "Unsupported currency specified"));
        }
        Some(value)
    } else {
        None
    };
    let follow = FollowUp {
        kind,
        payment: id.to_owned(),
        amount: value,
        is_final: false,
        metadata: serde_json::Map::new(),
    };
    Ok((Operation::Follow(follow), None, false))
}

fn request(
    sandbox: &Sandbox,
    arrived: &Arrived,
    body: &Value,
    operation: &Operation,
    number: Option<&str>,
) -> Result<Request, Reply> {
    let key = arrived.header("idempotency-key");
    if key.is_some_and(|key| key.is_empty() || key.len() > KEY_LEN_MAX) {
        return Err(invalid("701", "The idempotency key must have 1 to 64 characters"));
    }
    if text(body, "/merchantAccount").is_empty() {
        return Err(shape::error(StatusCode::FORBIDDEN, "901", "Invalid Merchant Account", "security"));
    }
    let reference = text(body, "/reference");
    let is_payment = matches!(operation, Operation::Place(_));
    if (is_payment && reference.is_empty()) || reference.len() > TEXT_LEN_MAX {
        return Err(invalid("130", "Reference Missing"));
    }
    let (kind, value, about) = match operation {
        Operation::Place(order) => (order.kind, Some(order.amount), number.unwrap_or_default()),
        Operation::Follow(follow) => (follow.kind, follow.amount, follow.payment.as_str()),
    };
    let value = value.map_or_else(String::new, |value| value.to_string());
    Ok(Request {
        wire: Wire::Adyen,
        key: key.map(str::to_owned),
        digest: sandbox.digest(arrived),
        reference: reference.to_owned(),
        window: sandbox.window(&[kind.word(), about, &value, reference]),
        window_s: None,
        has_cvc: false,
    })
}

async fn finish(
    sandbox: &Sandbox,
    arrived: &Arrived,
    request: &Request,
    operation: Operation,
    (number, renewed): (Option<&str>, Option<Renewed>),
    (what, api): (&str, Api),
) -> Result<Response<Answer>, Dropped> {
    let mut response = match sandbox.perform(request, operation, arrived.at).await {
        Err(refusal) => refused(refusal),
        Ok(Performed { entry, met, replayed, .. }) => {
            let mut reply = told(&entry, renewed.as_ref(), what, api);
            reply.replayed = replayed;
            reply.send_with(met, Form::Adyen, number, &arrived.way).await?
        }
    };
    if let Some(Ok(key)) = request.key.as_deref().map(HeaderValue::from_str) {
        response.headers_mut().insert("idempotency-key", key);
    }
    Ok(response)
}

fn told(entry: &Entry, renewed: Option<&Renewed>, what: &str, api: Api) -> Reply {
    if entry.status == Status::Error {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Unknown");
    }
    match (entry.parent.as_deref(), api) {
        (None, _) => Reply::text(Form::Adyen, StatusCode::OK, shape::payment(entry, renewed)),
        (Some(_), Api::Classic) => {
            Reply::text(Form::Adyen, StatusCode::OK, shape::classic_modification(entry, what))
        }
        (Some(paid), Api::Checkout) => {
            Reply::text(Form::Adyen, StatusCode::CREATED, shape::modification(entry, paid, what))
        }
    }
}

fn refused(refusal: Refusal) -> Response<Answer> {
    let (status, code, message) = match refusal {
        Refusal::KeyInFlight => {
            let message = "request already processed or in progress";
            let mut response = shape::error(StatusCode::CONFLICT, "704", message, "validation").send();
            response.headers_mut().insert("transient-error", HeaderValue::from_static("true"));
            return response;
        }
        Refusal::KeyReused => {
            (StatusCode::UNPROCESSABLE_ENTITY, "704", "The idempotency key was used for another request")
        }
        // Not Adyen's own: rules that were asked for.
        Refusal::ReferenceUsed | Refusal::Duplicate => {
            (StatusCode::UNPROCESSABLE_ENTITY, "129", "The sandbox was asked to refuse a duplicate")
        }
        Refusal::Unknown | Refusal::Unsettled => {
            (StatusCode::UNPROCESSABLE_ENTITY, "167", "Original pspReference required for this operation")
        }
        Refusal::TooLarge(_) | Refusal::WrongState(_) => {
            (StatusCode::UNPROCESSABLE_ENTITY, "137", "Invalid amount specified")
        }
        Refusal::Broken => {
            return error(StatusCode::SERVICE_UNAVAILABLE, "ledger_broken", "The ledger cannot be written.")
                .send();
        }
    };
    shape::error(status, code, message, "validation").send()
}

fn invalid(code: &str, message: &str) -> Reply {
    shape::error(StatusCode::UNPROCESSABLE_ENTITY, code, message, "validation")
}
