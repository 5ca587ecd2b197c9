//! Stripe's wire form: form-encoded requests with bracket names, Stripe's objects and errors in answer.
//!
//! Payment intents are created and confirmed in one request with raw card data, as a vault does it; what Stripe offers
//! beside that is not here.
//! Shapes after recorded answers and copies of <https://docs.stripe.com/api> (looked up 2026-11-22); the wording of
//! messages, and the codes of refused refunds and captures, are approximate: no program should read them.

mod shape;

use std::collections::HashMap;

use hyper::header::HeaderValue;
use hyper::{Method, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::book::{FollowUp, Order, Refusal, Request};
use super::index::Record;
use super::ledger::{Entry, Kind, Status, StripeFields, Wire};
use super::numbers;
use super::processor::{Arrived, Operation, Performed, Sandbox};
use super::reply::{Answer, Dropped, Form as ReplyForm, Reply};
use shape::Problem;

const LIST_MAX: usize = 100;
/// Stripe takes at most eight digits.
const AMOUNT_MAX: i64 = 99_999_999;

/// One request in this form.
pub(super) async fn answer(sandbox: &Sandbox, arrived: Arrived) -> Result<Response<Answer>, Dropped> {
    let path = arrived.parts.uri.path().to_owned();
    let steps: Vec<&str> = path.strip_prefix("/v1/").unwrap_or_default().split('/').collect();
    let answered = match (&arrived.parts.method, steps.as_slice()) {
        (&Method::POST, ["payment_intents"]) => create(sandbox, &arrived, false).await,
        (&Method::POST, ["setup_intents"]) => create(sandbox, &arrived, true).await,
        (&Method::POST, ["payment_intents", id, "capture"]) => capture(sandbox, &arrived, id).await,
        (&Method::POST, ["payment_intents" | "setup_intents", id, "cancel"]) => {
            follow(sandbox, &arrived, Kind::Void, id, None).await
        }
        (&Method::POST, ["refunds"]) => refund(sandbox, &arrived).await,
        (&Method::GET, ["payment_intents"]) => list(sandbox, &arrived, None).await,
        (&Method::GET, ["refunds"]) => refunds(sandbox, &arrived).await,
        (&Method::GET, ["payment_intents", "search"]) => search(sandbox, &arrived).await,
        (&Method::GET, ["payment_intents" | "setup_intents" | "refunds", id]) => {
            retrieve(sandbox, &arrived, id).await
        }
        (_, _) => Err(Problem::unknown_route().into()),
    };
    let mut response = match answered {
        Ok(response) => response,
        Err(Stop::Dropped) => return Err(Dropped),
        Err(Stop::Problem(problem)) => problem.reply().send(),
    };
    let id = crate::card::id::RequestId::make(sandbox.now()).map(|id| id.to_string()).unwrap_or_default();
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("request-id", id);
    }
    Ok(response)
}

/// Why there is no ordinary answer.
enum Stop {
    Dropped,
    Problem(Box<Problem>),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

impl From<Dropped> for Stop {
    fn from(Dropped: Dropped) -> Self {
        Self::Dropped
    }
}

type Answered = Result<Response<Answer>, Stop>;

/// The fields of a form.
struct Form(HashMap<String, String>);

impl Form {
    fn read(body: &[u8]) -> Self {
        Self(form_urlencoded::parse(body).into_owned().collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn need(&self, name: &'static str) -> Result<&str, Problem> {
        self.get(name).ok_or_else(|| Problem::missing(name))
    }

    fn amount(&self, name: &'static str) -> Result<Option<i64>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let amount = text.parse::<i64>().ok().filter(|amount| (1..=AMOUNT_MAX).contains(amount));
        amount
            .map(Some)
            .ok_or_else(|| Problem::invalid("parameter_invalid_integer", name, "Invalid positive integer"))
    }

    fn metadata(&self) -> Map<String, Value> {
        let mut pairs: Vec<_> = self
            .0
            .iter()
            .filter_map(|(name, value)| {
                let key = name.strip_prefix("metadata[")?.strip_suffix(']')?;
                Some((key.to_owned(), Value::from(value.as_str())))
            })
            .collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.into_iter().collect()
    }

    fn expands(&self, what: &str) -> bool {
        self.0.iter().any(|(name, value)| name.starts_with("expand[") && value.starts_with(what))
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.get(name) == Some(value)
    }
}

fn request(sandbox: &Sandbox, arrived: &Arrived, form: &Form) -> Result<Request, Problem> {
    let key = arrived.header("idempotency-key");
    if key.is_some_and(|key| key.is_empty() || key.len() > 255) {
        return Err(Problem::plain(StatusCode::BAD_REQUEST, "Idempotency keys have 1 to 255 characters."));
    }
    Ok(Request {
        wire: Wire::Stripe,
        key: key.map(str::to_owned),
        digest: sandbox.digest(arrived),
        reference: form.get("metadata[attempt]").unwrap_or_default().to_owned(),
        window: 0,
        window_s: None,
        has_cvc: form.get("payment_method_data[card][cvc]").is_some(),
    })
}

async fn create(sandbox: &Sandbox, arrived: &Arrived, is_setup: bool) -> Answered {
    let form = Form::read(&arrived.body);
    let (order, number) = order(sandbox, &form, is_setup)?;
    let amount = order.amount.to_string();
    let invoice = order.invoice.clone().unwrap_or_default();
    let window = sandbox.window(&[order.kind.word(), &number, &amount, &invoice]);
    let request = Request { window, ..request(sandbox, arrived, &form)? };
    let expand = form.expands("latest_charge");
    finish(sandbox, arrived, &request, Operation::Place(Box::new(order)), Some(&number), expand).await
}

fn order(sandbox: &Sandbox, form: &Form, is_setup: bool) -> Result<(Order, String), Problem> {
    let amount =
        if is_setup { 0 } else { form.amount("amount")?.ok_or_else(|| Problem::missing("amount"))? };
    let currency = if is_setup { "usd" } else { form.need("currency")? };
    if currency.len() != 3 || !currency.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Err(Problem::invalid("parameter_invalid", "currency", "Invalid currency."));
    }
    let kind = match (is_setup, form.get("capture_method")) {
        (true, _) => Kind::Verify,
        (false, Some("manual")) => Kind::Authorize,
        (false, None | Some("automatic" | "automatic_async")) => Kind::Sale,
        (false, Some(_)) => {
            return Err(Problem::invalid("parameter_unknown", "capture_method", "Invalid capture_method."));
        }
    };
    if !form.has("confirm", "true") {
        return Err(Problem::invalid(
            "parameter_missing",
            "confirm",
            "The sandbox confirms at once: send confirm=true.",
        ));
    }
    let number = form.need("payment_method_data[card][number]")?.to_owned();
    let (exp_month, exp_year) = expiry(sandbox, form)?;
    let brand = numbers::brand(&number);
    let fields = StripeFields {
        metadata: form.metadata(),
        description: form.get("description").map(str::to_owned),
        brand: brand.to_owned(),
        exp_month,
        exp_year,
        cvc: form.get("payment_method_data[card][cvc]").is_some(),
        off_session: form.has("off_session", "true"),
        expand_charge: form.expands("latest_charge"),
    };
    let zip = "payment_method_data[billing_details][address][postal_code]";
    let network_id = "payment_method_options[card][mit_exemption][network_transaction_id]";
    let order = Order {
        kind,
        amount,
        currency: currency.to_ascii_lowercase(),
        last4: number.get(number.len().saturating_sub(4)..).unwrap_or_default().to_owned(),
        behaviour: numbers::behaviour_of(&number),
        brand,
        has_zip: form.get(zip).is_some(),
        has_cvc: fields.cvc,
        by_merchant: false,
        invoice: form.get("metadata[invoice]").map(str::to_owned),
        network_transaction_id: form.get(network_id).map(str::to_owned),
        stripe: Some(fields),
        family: None,
    };
    Ok((order, number))
}

/// Stripe itself refuses a month that is over, before any issuer is asked.
fn expiry(sandbox: &Sandbox, form: &Form) -> Result<(u8, u16), Problem> {
    let month = form.need("payment_method_data[card][exp_month]")?.parse::<u8>().unwrap_or(0);
    let year = form.need("payment_method_data[card][exp_year]")?.parse::<u16>().unwrap_or(0);
    let year = if year < 100 { year + 2000 } else { year };
    let (this_year, this_month) = sandbox.now().year_month();
    let (this_year, this_month) =
        (u16::try_from(this_year).unwrap_or(0), u8::try_from(this_month).unwrap_or(0));
    if !(1..=12).contains(&month) {
        return Err(Problem::card(
            "invalid_expiry_month",
            "exp_month",
            "Your card's expiration month is invalid.",
        ));
    }
    if year < this_year || year > this_year + 50 {
        return Err(Problem::card(
            "invalid_expiry_year",
            "exp_year",
            "Your card's expiration year is invalid.",
        ));
    }
    if year == this_year && month < this_month {
        return Err(Problem::card(
            "invalid_expiry_month",
            "exp_month",
            "Your card's expiration month is invalid.",
        ));
    }
    Ok((month, year))
}

async fn capture(sandbox: &Sandbox, arrived: &Arrived, id: &str) -> Answered {
    let amount = Form::read(&arrived.body).amount("amount_to_capture")?;
    follow(sandbox, arrived, Kind::Capture, id, amount).await
}

async fn refund(sandbox: &Sandbox, arrived: &Arrived) -> Answered {
    let form = Form::read(&arrived.body);
    let named = form.get("payment_intent").map(str::to_owned);
    let charged =
        form.get("charge").and_then(|charge| charge.strip_prefix("ch_")).map(|id| format!("pi_{id}"));
    let Some(id) = named.or(charged) else { return Err(Problem::missing("payment_intent").into()) };
    follow(sandbox, arrived, Kind::Refund, &id, form.amount("amount")?).await
}

async fn follow(sandbox: &Sandbox, arrived: &Arrived, kind: Kind, id: &str, amount: Option<i64>) -> Answered {
    let form = Form::read(&arrived.body);
    let request = request(sandbox, arrived, &form)?;
    let follow = FollowUp {
        kind,
        payment: id.to_owned(),
        amount,
        // One capture ends an authorization at Stripe, unless multicapture was asked for.
        is_final: kind == Kind::Capture,
        metadata: form.metadata(),
    };
    let expand = form.expands("latest_charge");
    finish(sandbox, arrived, &request, Operation::Follow(follow), None, expand).await
}

async fn finish(
    sandbox: &Sandbox,
    arrived: &Arrived,
    request: &Request,
    operation: Operation,
    number: Option<&str>,
    expand: bool,
) -> Answered {
    let about = match &operation {
        Operation::Follow(follow) => Some((follow.kind, follow.payment.clone())),
        Operation::Place(_) => None,
    };
    let performed = match sandbox.perform(request, operation, arrived.at).await {
        Ok(performed) => performed,
        Err(refusal) => return Err(refused(sandbox, refusal, request, about.as_ref()).into()),
    };
    let Performed { entry, met, replayed, processor_ms } = performed;
    let mut reply = told(sandbox, &entry, expand).ok_or_else(Problem::internal)?;
    reply.replayed = replayed;
    let mut response = reply.send_with(met, ReplyForm::Stripe, number, &arrived.way).await?;
    if let Ok(value) = HeaderValue::from_str(&processor_ms.to_string()) {
        response.headers_mut().insert("processor-ms", value);
    }
    Ok(response)
}

/// What an operation answers: the intent as it was decided, the refund, or the intent that was changed.
fn told(sandbox: &Sandbox, entry: &Entry, expand: bool) -> Option<Reply> {
    if entry.status == Status::Error {
        return Some(Problem::internal().reply());
    }
    Some(match entry.kind {
        Kind::Refund => Reply::json(StatusCode::OK, &shape::refund(entry)),
        Kind::Sale | Kind::Authorize | Kind::Verify => shape::outcome(entry, expand),
        Kind::Capture | Kind::Void => {
            let (paid, mut record) = find(sandbox, entry.parent.as_deref()?)?;
            // A repetition tells how it stood after this operation, not after later ones.
            record.refunded = 0;
            Reply::json(StatusCode::OK, &shape::intent(&paid, &record, expand))
        }
    })
}

fn find(sandbox: &Sandbox, id: &str) -> Option<(Entry, Record)> {
    let record = sandbox.book().by_id(Wire::Stripe, id)?;
    let entry = sandbox.read(record.place).filter(|entry| entry.id == id)?;
    Some((entry, record))
}

async fn retrieve(sandbox: &Sandbox, arrived: &Arrived, id: &str) -> Answered {
    let end = sandbox.book().end();
    sandbox.until_durable(end).await.map_err(|_| Problem::internal())?;
    sandbox.take_time(arrived.at, std::time::Duration::ZERO).await;
    let Some((entry, record)) = find(sandbox, id) else { return Err(Problem::no_such(id).into()) };
    let expand =
        Form::read(arrived.parts.uri.query().unwrap_or_default().as_bytes()).expands("latest_charge");
    let body = if entry.kind == Kind::Refund {
        shape::refund(&entry)
    } else {
        shape::intent(&entry, &record, expand)
    };
    Ok(Reply::json(StatusCode::OK, &body).send())
}

/// `query=metadata['attempt']:'…'`. New payments are not found before the search lag is over, as at Stripe.
async fn search(sandbox: &Sandbox, arrived: &Arrived) -> Answered {
    let query = arrived.query("query").unwrap_or_default().replace('"', "'");
    let attempt = query.strip_prefix("metadata['attempt']:'").and_then(|rest| rest.strip_suffix('\''));
    let Some(attempt) = attempt else {
        return Err(Problem::invalid(
            "parameter_invalid",
            "query",
            "Only metadata['attempt']:'…' can be searched.",
        )
        .into());
    };
    list(sandbox, arrived, Some(attempt)).await
}

async fn list(sandbox: &Sandbox, arrived: &Arrived, attempt: Option<&str>) -> Answered {
    let form = Form::read(arrived.parts.uri.query().unwrap_or_default().as_bytes());
    let limit = form.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(10).clamp(1, LIST_MAX);
    let (records, end) = {
        let book = sandbox.book();
        let records = match attempt {
            Some(attempt) => book.by_reference(Wire::Stripe, attempt),
            None => book.newest(Wire::Stripe, form.get("starting_after"), limit + 1),
        };
        (records, book.end())
    };
    sandbox.until_durable(end).await.map_err(|_| Problem::internal())?;
    sandbox.take_time(arrived.at, std::time::Duration::ZERO).await;
    let oldest = form.get("created[gte]").and_then(|at| at.parse::<i64>().ok()).unwrap_or(0);
    let found: Vec<(Entry, Record)> = records
        .into_iter()
        .filter(|record| matches!(record.kind, Kind::Sale | Kind::Authorize) && record.at_s >= oldest)
        .filter(|record| attempt.is_none() || sandbox.is_searchable(record))
        .filter_map(|record| Some((sandbox.read(record.place)?, record)))
        .filter(|(entry, _)| attempt.is_none_or(|attempt| entry.reference == attempt))
        .collect();
    let expand = form.expands("data.latest_charge");
    let data: Vec<Value> =
        found.iter().take(limit).map(|(entry, record)| shape::intent(entry, record, expand)).collect();
    let (object, url) = match attempt {
        Some(_) => ("search_result", "/v1/payment_intents/search"),
        None => ("list", "/v1/payment_intents"),
    };
    let has_more = found.len() > limit;
    let body = json!({ "object": object, "url": url, "has_more": has_more, "data": data });
    Ok(Reply::json(StatusCode::OK, &body).send())
}

/// The refunds of one intent.
async fn refunds(sandbox: &Sandbox, arrived: &Arrived) -> Answered {
    let id = arrived.query("payment_intent").ok_or_else(|| Problem::missing("payment_intent"))?;
    let (records, end) = {
        let book = sandbox.book();
        (book.children(Wire::Stripe, &id, LIST_MAX), book.end())
    };
    sandbox.until_durable(end).await.map_err(|_| Problem::internal())?;
    sandbox.take_time(arrived.at, std::time::Duration::ZERO).await;
    let is_refund = |record: &&Record| record.kind == Kind::Refund;
    let found = records.iter().filter(is_refund).filter_map(|record| sandbox.read(record.place));
    let data: Vec<Value> = found.map(|entry| shape::refund(&entry)).collect();
    let body = json!({ "object": "list", "url": "/v1/refunds", "has_more": false, "data": data });
    Ok(Reply::json(StatusCode::OK, &body).send())
}

fn refused(
    sandbox: &Sandbox,
    refusal: Refusal,
    request: &Request,
    about: Option<&(Kind, String)>,
) -> Problem {
    let payment = about.map(|(_, id)| id.as_str()).unwrap_or_default();
    match refusal {
        Refusal::KeyInFlight => Problem::key_in_use(),
        Refusal::KeyReused => Problem::key_reused(request.key.as_deref().unwrap_or_default()),
        Refusal::Unknown => Problem::no_such(payment),
        Refusal::Broken => Problem::internal(),
        // Not Stripe's own: rules that were asked for.
        Refusal::ReferenceUsed | Refusal::Duplicate | Refusal::Unsettled => {
            Problem::plain(StatusCode::CONFLICT, "The sandbox was asked to refuse a duplicate.")
        }
        Refusal::TooLarge(left) => match about {
            Some((Kind::Refund, _)) if left == 0 => {
                Problem::invalid("charge_already_refunded", "amount", "The charge has already been refunded.")
            }
            Some((Kind::Refund, _)) => Problem::invalid(
                "amount_too_large",
                "amount",
                "The refund's amount is greater than the unrefunded amount on the charge.",
            ),
            Some(_) | None => Problem::invalid(
                "amount_too_large",
                "amount_to_capture",
                "The amount to capture is greater than the amount that can be captured.",
            ),
        },
        Refusal::WrongState(status) => wrong_state(sandbox, status, about),
    }
}

fn wrong_state(sandbox: &Sandbox, status: Status, about: Option<&(Kind, String)>) -> Problem {
    let found = about.and_then(|(_, id)| find(sandbox, id));
    let intent = found.map(|(entry, record)| shape::intent(&entry, &record, false));
    let word =
        intent.as_ref().and_then(|intent| intent["status"].as_str()).unwrap_or(status.word()).to_owned();
    let message = match about.map(|(kind, _)| *kind) {
        Some(Kind::Refund) => {
            return Problem::invalid(
                "charge_not_captured",
                "payment_intent",
                "This PaymentIntent has no charge that could be refunded.",
            );
        }
        Some(Kind::Capture) => format!(
            "This PaymentIntent could not be captured because it has a status of {word}. Only a PaymentIntent with one \
             of the following statuses may be captured: requires_capture."
        ),
        Some(Kind::Sale | Kind::Authorize | Kind::Verify | Kind::Void) | None => format!(
            "You cannot cancel this PaymentIntent because it has a status of {word}. Only a PaymentIntent with one of \
             the following statuses may be canceled: requires_payment_method, requires_capture, requires_confirmation, \
             requires_action."
        ),
    };
    Problem::unexpected_state(message, intent)
}
