//! The plain JSON wire form.
//!
//! `POST /v1/payments`, `POST /v1/payments/{id}/captures|refunds|voids`, `GET /v1/payments/{id}` and
//! `GET /v1/payments?reference=`. Every POST carries an `Idempotency-Key`; a repetition has the first answer's fields,
//! only `processor_ms` is measured anew.

use hyper::{Method, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::book::{FollowUp, Order, Refusal, Request};
use super::index::Record;
use super::ledger::{Entry, Kind, Status, Wire};
use super::numbers::{self, Outcome, Renewed, Updater};
use super::processor::{Arrived, Operation, Performed, Sandbox};
use super::reply::{Answer, Dropped, Form, Reply, error};

const KEY_LEN_MAX: usize = 255;
const TEXT_LEN_MAX: usize = 255;

/// One request in this form.
pub(super) async fn answer(sandbox: &Sandbox, arrived: Arrived) -> Result<Response<Answer>, Dropped> {
    let path = arrived.parts.uri.path().to_owned();
    let rest = path.strip_prefix("/v1/payments").unwrap_or_default();
    let steps: Vec<&str> = rest.split('/').skip(1).collect();
    match (&arrived.parts.method, steps.as_slice()) {
        (&Method::POST, []) => create(sandbox, arrived).await,
        (&Method::POST, [id, "captures"]) => follow(sandbox, arrived, Kind::Capture, id).await,
        (&Method::POST, [id, "refunds"]) => follow(sandbox, arrived, Kind::Refund, id).await,
        (&Method::POST, [id, "voids"]) => follow(sandbox, arrived, Kind::Void, id).await,
        (&Method::GET, []) => Ok(list(sandbox, &arrived).await.send()),
        (&Method::GET, [id]) => Ok(look_up(sandbox, &arrived, id).await.send()),
        (_, _) => Ok(not_found().send()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payment {
    reference: String,
    operation: String,
    amount: i64,
    currency: String,
    card: Card,
    #[serde(default)]
    billing: Billing,
    stored_credential: Option<StoredCredential>,
    description: Option<String>,
    invoice: Option<String>,
    #[serde(default, rename = "allow_partial")]
    _allow_partial: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Card {
    number: String,
    exp_month: u8,
    exp_year: u16,
    cvc: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Billing {
    zip: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredCredential {
    #[serde(rename = "use")]
    usage: String,
    initiator: String,
    reason: Option<String>,
    network_transaction_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Later {
    reference: String,
    amount: Option<i64>,
    #[serde(default, rename = "final")]
    is_final: bool,
}

/// The field that is wrong, and what it should be.
struct Invalid(&'static str);

async fn create(sandbox: &Sandbox, arrived: Arrived) -> Result<Response<Answer>, Dropped> {
    let Ok(payment) = serde_json::from_slice::<Payment>(&arrived.body) else {
        return Ok(invalid(&Invalid("The body is not a JSON object with the fields of a payment.")).send());
    };
    let prepared =
        check_payment(&payment).and_then(|kind| Ok((kind, request(sandbox, &arrived, &payment.reference)?)));
    let (kind, request) = match prepared {
        Ok(prepared) => prepared,
        Err(wrong) => return Ok(invalid(&wrong).send()),
    };
    let expiry = (payment.card.exp_month, payment.card.exp_year);
    let number = payment.card.number;
    let order = Order {
        kind,
        amount: payment.amount,
        currency: payment.currency,
        last4: number.get(number.len().saturating_sub(4)..).unwrap_or_default().to_owned(),
        behaviour: numbers::behaviour_of(&number),
        brand: numbers::brand(&number),
        has_zip: payment.billing.zip.is_some_and(|zip| !zip.is_empty()),
        has_cvc: payment.card.cvc.is_some(),
        by_merchant: payment.stored_credential.as_ref().is_some_and(|stored| stored.initiator == "merchant"),
        invoice: payment.invoice,
        network_transaction_id: payment.stored_credential.and_then(|stored| stored.network_transaction_id),
        stripe: None,
        family: None,
    };
    let request = Request {
        window: sandbox.window(&[
            kind.word(),
            &number,
            &order.amount.to_string(),
            order.invoice.as_deref().unwrap_or_default(),
        ]),
        has_cvc: order.has_cvc,
        ..request
    };
    let renewed = order.asks_updater().then(|| numbers::renewed(order.behaviour, &number, expiry)).flatten();
    finish(sandbox, arrived, request, Operation::Place(Box::new(order)), (Some(&number), renewed)).await
}

fn check_payment(payment: &Payment) -> Result<Kind, Invalid> {
    let kind = match payment.operation.as_str() {
        "sale" => Kind::Sale,
        "authorize" => Kind::Authorize,
        "verify" => Kind::Verify,
        _ => return Err(Invalid("operation must be sale, authorize or verify.")),
    };
    let amount_fits = if kind == Kind::Verify { payment.amount == 0 } else { payment.amount > 0 };
    let number = &payment.card.number;
    let texts = [&payment.description, &payment.invoice];
    let checks = [
        (amount_fits, "amount must be a positive integer in minor units (0 to verify)."),
        (is_currency(&payment.currency), "currency must be three capital letters."),
        (
            (12..=19).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit()),
            "card.number must be 12 to 19 digits.",
        ),
        ((1..=12).contains(&payment.card.exp_month), "card.exp_month must be 1 to 12."),
        ((2000..=2100).contains(&payment.card.exp_year), "card.exp_year must have four digits."),
        (payment.card.cvc.as_deref().is_none_or(is_cvc), "card.cvc must be 3 or 4 digits."),
        (
            payment.stored_credential.as_ref().is_none_or(is_stored_credential),
            "stored_credential is not valid.",
        ),
        (texts.iter().all(|t| t.as_ref().is_none_or(|t| t.len() <= TEXT_LEN_MAX)), "A text is too long."),
    ];
    checks.iter().find(|(fits, _)| !fits).map_or(Ok(kind), |(_, wrong)| Err(Invalid(wrong)))
}

fn is_currency(code: &str) -> bool {
    code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase())
}

fn is_cvc(code: &str) -> bool {
    (3..=4).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_digit())
}

fn is_stored_credential(stored: &StoredCredential) -> bool {
    matches!(stored.usage.as_str(), "initial" | "subsequent")
        && matches!(stored.initiator.as_str(), "customer" | "merchant")
        && stored.reason.as_deref().is_none_or(|r| matches!(r, "recurring" | "unscheduled" | "installment"))
        && stored.network_transaction_id.as_deref().is_none_or(|id| (1..=64).contains(&id.len()))
}

fn request(sandbox: &Sandbox, arrived: &Arrived, reference: &str) -> Result<Request, Invalid> {
    let key = arrived.header("idempotency-key").filter(|key| (1..=KEY_LEN_MAX).contains(&key.len()));
    let Some(key) = key else {
        return Err(Invalid("The header Idempotency-Key must have 1 to 255 characters."));
    };
    if reference.is_empty() || reference.len() > TEXT_LEN_MAX {
        return Err(Invalid("reference must have 1 to 255 characters."));
    }
    Ok(Request {
        wire: Wire::Json,
        key: Some(key.to_owned()),
        digest: sandbox.digest(arrived),
        reference: reference.to_owned(),
        window: 0,
        window_s: None,
        has_cvc: false,
    })
}

async fn follow(
    sandbox: &Sandbox,
    arrived: Arrived,
    kind: Kind,
    payment: &str,
) -> Result<Response<Answer>, Dropped> {
    let Ok(later) = serde_json::from_slice::<Later>(&arrived.body) else {
        return Ok(
            invalid(&Invalid("The body is not a JSON object with the fields of this operation.")).send()
        );
    };
    let has_amount = later.amount.is_some_and(|amount| amount > 0);
    if (kind == Kind::Void) != later.amount.is_none() || (kind != Kind::Void && !has_amount) {
        return Ok(invalid(&Invalid("amount must be a positive integer, and is not for voids.")).send());
    }
    let request = match request(sandbox, &arrived, &later.reference) {
        Ok(request) => request,
        Err(wrong) => return Ok(invalid(&wrong).send()),
    };
    let follow = FollowUp {
        kind,
        payment: payment.to_owned(),
        amount: later.amount,
        is_final: later.is_final,
        metadata: serde_json::Map::new(),
    };
    finish(sandbox, arrived, request, Operation::Follow(follow), (None, None)).await
}

async fn finish(
    sandbox: &Sandbox,
    arrived: Arrived,
    request: Request,
    operation: Operation,
    (number, renewed): (Option<&str>, Option<Renewed>),
) -> Result<Response<Answer>, Dropped> {
    let performed = match sandbox.perform(&request, operation, arrived.at).await {
        Ok(performed) => performed,
        Err(refusal) => return Ok(refused(refusal).send()),
    };
    let Performed { entry, met, replayed, processor_ms } = performed;
    let status = match entry.status {
        Status::Declined => StatusCode::PAYMENT_REQUIRED,
        Status::Error => StatusCode::INTERNAL_SERVER_ERROR,
        Status::Approved | Status::Authorized | Status::Pending | Status::Voided => StatusCode::OK,
    };
    let mut told = Told::new(&entry, None, processor_ms);
    told.card_update = renewed.map(CardUpdate::of);
    let mut reply = Reply::of(status, &told);
    reply.replayed = replayed;
    reply.send_with(met, Form::Json, number, &arrived.way).await
}

async fn look_up(sandbox: &Sandbox, arrived: &Arrived, id: &str) -> Reply {
    let (record, end) = {
        let book = sandbox.book();
        (book.by_id(Wire::Json, id), book.end())
    };
    let Some(record) = record else { return not_found() };
    let Ok(()) = sandbox.until_durable(end).await else { return refused(Refusal::Broken) };
    let processor_ms = sandbox.take_time(arrived.at, std::time::Duration::ZERO).await;
    match sandbox.read(record.place).filter(|entry| entry.id == id) {
        Some(entry) => Reply::of(StatusCode::OK, &Told::new(&entry, Some(&record), processor_ms)),
        None => not_found(),
    }
}

async fn list(sandbox: &Sandbox, arrived: &Arrived) -> Reply {
    let Some(reference) = arrived.query("reference") else {
        return invalid(&Invalid("The query must name a reference."));
    };
    let (records, end) = {
        let book = sandbox.book();
        (book.by_reference(Wire::Json, &reference), book.end())
    };
    let Ok(()) = sandbox.until_durable(end).await else { return refused(Refusal::Broken) };
    let processor_ms = sandbox.take_time(arrived.at, std::time::Duration::ZERO).await;
    let found: Vec<(Entry, &Record)> = records
        .iter()
        .filter(|record| sandbox.is_searchable(record))
        .filter_map(|record| Some((sandbox.read(record.place)?, record)))
        .filter(|(entry, _)| entry.reference == reference)
        .collect();
    let data: Vec<Told<'_>> =
        found.iter().map(|(entry, record)| Told::new(entry, Some(record), processor_ms)).collect();
    Reply::json(StatusCode::OK, &serde_json::json!({ "data": data }))
}

/// A payment, or an operation on one, as this form tells it.
#[derive(Serialize)]
struct Told<'a> {
    id: &'a str,
    reference: &'a str,
    operation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<&'a str>,
    status: &'static str,
    amount: i64,
    amount_approved: i64,
    currency: &'a str,
    code: &'a str,
    message: &'a str,
    network_transaction_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avs: Option<Avs<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice_code: Option<&'a str>,
    /// Only a look-up knows what was captured and refunded since.
    #[serde(skip_serializing_if = "Option::is_none")]
    amount_captured: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount_refunded: Option<i64>,
    /// What the account updater said, to whoever may see the card.
    #[serde(skip_serializing_if = "Option::is_none")]
    card_update: Option<CardUpdate>,
    processor_ms: f64,
}

/// The account updater's word, in the letters of Visa's.
#[derive(Serialize)]
struct CardUpdate {
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<String>,
    /// `YYYY-MM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    expiry: Option<String>,
}

impl CardUpdate {
    fn of(renewed: Renewed) -> Self {
        let expiry = format!("{}-{:02}", renewed.year, renewed.month);
        match renewed.says {
            Updater::Number => Self { result: "A", number: Some(renewed.number), expiry: Some(expiry) },
            Updater::Expiry => Self { result: "E", number: None, expiry: Some(expiry) },
            Updater::Closed => Self { result: "C", number: None, expiry: None },
            Updater::Contact => Self { result: "Q", number: None, expiry: None },
        }
    }
}

#[derive(Serialize)]
struct Avs<'a> {
    zip: &'a str,
}

impl<'a> Told<'a> {
    /// As it was decided, or, with a record, as it stands now.
    fn new(entry: &'a Entry, standing: Option<&Record>, processor_ms: f64) -> Self {
        let status = standing.map_or(entry.status, Record::standing);
        let was_pending = entry.status == Status::Pending && status != Status::Pending;
        let later = numbers::row(entry.behaviour).filter(|row| row.outcome == Outcome::PendingDeclined);
        let code = match (was_pending, later) {
            (false, _) => entry.code.as_str(),
            (true, Some(row)) => row.code.as_deref().unwrap_or_default(),
            (true, None) => "approved",
        };
        let declined = (status == Status::Declined).then(|| numbers::row_of(entry.behaviour, code)).flatten();
        let message = match status {
            Status::Approved | Status::Authorized => "Approved.",
            Status::Declined => declined.and_then(|row| row.message.as_deref()).unwrap_or("Declined."),
            Status::Pending => "The outcome is not known yet.",
            Status::Voided => "Voided.",
            Status::Error => "An error occurred with our connection to the card network.",
        };
        let is_payment = entry.parent.is_none();
        Self {
            id: &entry.id,
            reference: &entry.reference,
            operation: entry.kind.word(),
            parent: entry.parent.as_deref(),
            status: status.word(),
            amount: entry.amount,
            amount_approved: standing.map_or(entry.amount_approved, |record| record.approved),
            currency: &entry.currency,
            code,
            message,
            network_transaction_id: entry.network_transaction_id.as_deref(),
            avs: entry.zip.as_deref().map(|zip| Avs { zip }),
            advice_code: declined.and_then(|row| row.advice.as_deref()),
            amount_captured: standing.filter(|_| is_payment).map(|record| record.captured),
            amount_refunded: standing.filter(|_| is_payment).map(|record| record.refunded),
            card_update: None,
            processor_ms,
        }
    }
}

fn invalid(wrong: &Invalid) -> Reply {
    error(Form::Json, StatusCode::BAD_REQUEST, "invalid_request", wrong.0)
}

fn not_found() -> Reply {
    error(Form::Json, StatusCode::NOT_FOUND, "not_found", "There is no such payment.")
}

fn refused(refusal: Refusal) -> Reply {
    let (status, code, message): (_, _, Value) = match refusal {
        Refusal::KeyInFlight => {
            (StatusCode::CONFLICT, "key_in_use", "A request with this key is being worked on.".into())
        }
        Refusal::KeyReused => {
            (StatusCode::CONFLICT, "key_reused", "This key was used with another request.".into())
        }
        Refusal::ReferenceUsed => {
            (StatusCode::CONFLICT, "reference_used", "This reference was used before.".into())
        }
        Refusal::Duplicate => {
            (StatusCode::CONFLICT, "duplicate", "The same was asked for a short while ago.".into())
        }
        Refusal::Unsettled => (StatusCode::BAD_REQUEST, "wrong_state", "It has not settled yet.".into()),
        Refusal::Unknown => return not_found(),
        Refusal::TooLarge(left) => {
            (StatusCode::BAD_REQUEST, "amount_too_large", format!("Only {left} is left.").into())
        }
        Refusal::WrongState(status) => {
            let message = format!("The payment is {} and does not allow this.", status.word());
            (StatusCode::BAD_REQUEST, "wrong_state", message.into())
        }
        Refusal::Broken => {
            (StatusCode::SERVICE_UNAVAILABLE, "ledger_broken", "The ledger cannot be written.".into())
        }
    };
    Reply::json(status, &serde_json::json!({ "error": { "code": code, "message": message } }))
}
