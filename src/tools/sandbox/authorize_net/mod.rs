//! Authorize.Net's wire form: one path, XML or JSON by how the body begins, the credentials in it; status 200 whatever
//! happened. Nothing is repeated safely: the same card, amount and invoice are refused for two minutes, and what became of
//! a payment is looked up in lists, by invoice number.
//!
//! Shapes after recorded answers and copies of <https://developer.authorize.net/api/reference> (looked up 2026-11-25).
//! One capture ends an authorization. What is captured settles a day after the payment was made (by the rules'
//! `settle_s`): only then is it refunded, and no longer voided. Whatever has settled is in the one batch.

mod schema;
mod shape;

use hyper::{Method, Response, StatusCode};

use super::book::{FollowUp, Order, Refusal, Request};
use super::faults::{Met, Occasion};
use super::index::Record;
use super::ledger::{FamilyFields, Kind, Status, Wire};
use super::numbers;
use super::processor::{Arrived, Operation, Performed, Sandbox};
use super::reply::{Answer, BYTE_ORDER_MARK, Dropped, Form, Reply};
use super::xml::Node;
use shape::{Listed, Outcome};

const INVOICE_LEN_MAX: usize = 20;
const PAGE_MAX: usize = 1000;
const AMOUNT_MAX: i64 = 99_999_999_999;

/// Whether a path is this form's.
pub(super) fn is_path(path: &str) -> bool {
    path == "/xml/v1/request.api"
}

/// An error outside what the card decides.
pub(super) fn error(form: Form, status: StatusCode, code: &str, message: &str) -> Reply {
    let (code, message) = match code {
        "unauthorized" | "invalid_credential" => {
            ("E00007", "User authentication failed due to invalid authentication values.")
        }
        "rate_limit" => ("E00056", "Maximum number of concurrent calls has been exceeded."),
        "internal_error" if !message.contains('(') => {
            ("E00001", "An error occurred during processing. Please try again.")
        }
        _ => ("E00001", message),
    };
    Reply { status, ..shape::error(form, code, message) }
}

/// Why there is no ordinary answer.
enum Stop {
    Dropped,
    Reply(Reply),
}

impl From<Reply> for Stop {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

impl From<Dropped> for Stop {
    fn from(Dropped: Dropped) -> Self {
        Self::Dropped
    }
}

/// One request in this form.
pub(super) async fn answer(sandbox: &Sandbox, arrived: Arrived) -> Result<Response<Answer>, Dropped> {
    let body = arrived.body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&arrived.body);
    let is_json = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let form = if is_json { Form::AuthorizeNetJson } else { Form::AuthorizeNetXml };
    let root = if is_json { Node::read_json(body) } else { Node::read_xml(body) };
    let root = root.filter(|_| arrived.parts.method == Method::POST);
    let answered = match root {
        None => Err(shape::error(form, "E00002", "The content-type specified is not supported.").into()),
        Some(root) => choose(sandbox, &arrived, form, &root).await,
    };
    match answered {
        Ok(response) => Ok(response),
        Err(Stop::Reply(reply)) => Ok(reply.send()),
        Err(Stop::Dropped) => Err(Dropped),
    }
}

async fn choose(
    sandbox: &Sandbox,
    arrived: &Arrived,
    form: Form,
    root: &Node,
) -> Result<Response<Answer>, Stop> {
    let refuse = |code, message: &str| Stop::from(shape::error(form, code, message));
    if let Some(message) = schema::fault(root) {
        return Err(refuse("E00003", &message));
    }
    if !sandbox.is_secret(root.text(&["merchantAuthentication", "transactionKey"]).as_bytes()) {
        let message = "User authentication failed due to invalid authentication values.";
        return Err(refuse("E00007", message));
    }
    match root.name.as_str() {
        "createTransactionRequest" => transact(sandbox, arrived, form, root).await,
        "getTransactionDetailsRequest" => {
            let id = root.text(&["transId"]);
            look_up(sandbox, arrived, form, || details(sandbox, form, id)).await
        }
        "getUnsettledTransactionListRequest" | "getTransactionListRequest" => {
            let is_settled = root.name == "getTransactionListRequest";
            look_up(sandbox, arrived, form, || list(sandbox, form, root, is_settled)).await
        }
        _ => Err(refuse("E00003", "The root element is not a request of this API, or one that is not here.")),
    }
}

async fn look_up(
    sandbox: &Sandbox,
    arrived: &Arrived,
    form: Form,
    answer: impl FnOnce() -> Reply,
) -> Result<Response<Answer>, Stop> {
    let met = sandbox.meets(Occasion::LookUp, Some(Wire::AuthorizeNet));
    let end = sandbox.book().end();
    let broken = |_| error(form, StatusCode::OK, "internal_error", "");
    sandbox.until_durable(end).await.map_err(broken)?;
    sandbox.take_time(arrived.at, std::time::Duration::ZERO).await;
    Ok(answer().send_with(met, form, None, &arrived.way).await?)
}

fn details(sandbox: &Sandbox, form: Form, id: &str) -> Reply {
    let record = sandbox.book().by_id(Wire::AuthorizeNet, id);
    let found = record.and_then(|record| Some((sandbox.read(record.place)?, record)));
    match found.filter(|(entry, _)| entry.id == id && !matches!(entry.kind, Kind::Capture | Kind::Void)) {
        None => shape::error(form, "E00040", "The record cannot be found."),
        Some((entry, record)) => {
            let is_settled = is_settled(&record, sandbox.now().seconds(), settle_s(sandbox));
            shape::details(form, &Listed { entry, record, is_settled })
        }
    }
}

fn settle_s(sandbox: &Sandbox) -> i64 {
    sandbox.book().in_force(Wire::AuthorizeNet).settle_s
}

fn is_settled(record: &Record, now_s: i64, settle_s: i64) -> bool {
    now_s - record.at_s >= settle_s
}

fn list(sandbox: &Sandbox, form: Form, root: &Node, wants_settled: bool) -> Reply {
    let number = |name| root.text(&["paging", name]).parse::<usize>().ok();
    let limit = number("limit").unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
    // A page counts from one.
    let offset = number("offset").unwrap_or(1).max(1);
    let (now_s, settle_s) = (sandbox.now().seconds(), settle_s(sandbox));
    let records = sandbox.book().newest_with_refunds(Wire::AuthorizeNet, usize::MAX);
    let fits = |record: &&Record| {
        let waits = matches!(record.standing(), Status::Authorized | Status::Pending);
        (is_settled(record, now_s, settle_s) && !waits) == wants_settled && sandbox.is_searchable(record)
    };
    // Only the page itself is read from the file.
    let page = records.iter().filter(fits).skip((offset - 1).saturating_mul(limit)).take(limit);
    let page: Vec<Listed> = page
        .filter_map(|record| {
            let is_settled = is_settled(record, now_s, settle_s);
            Some(Listed { entry: sandbox.read(record.place)?, record: *record, is_settled })
        })
        .collect();
    shape::list(form, if wants_settled { "getTransactionList" } else { "getUnsettledTransactionList" }, &page)
}

async fn transact(
    sandbox: &Sandbox,
    arrived: &Arrived,
    form: Form,
    root: &Node,
) -> Result<Response<Answer>, Stop> {
    let ref_id = root.text(&["refId"]);
    let Some(asked) = root.child("transactionRequest") else {
        let message = "The element 'createTransactionRequest' has incomplete content.";
        return Err(shape::error(form, "E00003", message).into());
    };
    let refuse = |reason: &str| Stop::from(shape::transaction(form, &Outcome::refused(reason, ref_id)));
    let invoice = asked.text(&["order", "invoiceNumber"]);
    if invoice.chars().count() > INVOICE_LEN_MAX || ref_id.chars().count() > INVOICE_LEN_MAX {
        let message = "The 'AnetApi/xml/v1/schema/AnetApiSchema.xsd:invoiceNumber' element is invalid - The actual length \
                       is greater than the MaxLength value.";
        return Err(shape::error(form, "E00003", message).into());
    }
    let (operation, number) = operation(sandbox, asked, ref_id).map_err(refuse)?;
    let (kind, about, amount, has_cvc) = match &operation {
        Operation::Place(order) => {
            (order.kind, number.clone().unwrap_or_default(), Some(order.amount), order.has_cvc)
        }
        Operation::Follow(follow) => (follow.kind, follow.payment.clone(), follow.amount, false),
    };
    let amount = amount.map_or_else(String::new, |amount| amount.to_string());
    // A capture or void that comes twice finds it done; all else is told from a duplicate by what it says alone.
    let has_window = !matches!(kind, Kind::Capture | Kind::Void);
    let request = Request {
        wire: Wire::AuthorizeNet,
        key: arrived.header("idempotency-key").map(str::to_owned),
        digest: sandbox.digest(arrived),
        reference: if invoice.is_empty() { ref_id } else { invoice }.to_owned(),
        window: if has_window { sandbox.window(&[kind.word(), &about, &amount, invoice]) } else { 0 },
        window_s: setting(asked, "duplicateWindow").and_then(|text| text.parse().ok()),
        has_cvc,
    };
    let performed = sandbox.perform(&request, operation, arrived.at).await;
    let (reply, met) = match performed {
        Ok(Performed { entry, met, replayed, .. }) => {
            let mut reply = if entry.status == Status::Error {
                error(form, StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "")
            } else {
                shape::transaction(form, &Outcome::of(&entry, ref_id))
            };
            reply.replayed = replayed;
            (reply, met)
        }
        Err(refusal) => (refused(form, refusal, kind, &about, ref_id), Met::NOTHING),
    };
    Ok(reply.send_with(met, form, number.as_deref(), &arrived.way).await?)
}

/// What is asked for, or the reason code for which it is refused before anything is done.
fn operation(
    sandbox: &Sandbox,
    asked: &Node,
    ref_id: &str,
) -> Result<(Operation, Option<String>), &'static str> {
    let currency = match asked.text(&["currencyCode"]) {
        "" => "USD",
        code if code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase()) => code,
        _ => return Err("33"),
    };
    let amount = match asked.text(&["amount"]) {
        "" => None,
        text => Some(minor_units(text, currency).ok_or("5")?),
    };
    let kind = match asked.text(&["transactionType"]) {
        "authCaptureTransaction" => Kind::Sale,
        "authOnlyTransaction" if amount == Some(0) => Kind::Verify,
        "authOnlyTransaction" => Kind::Authorize,
        "priorAuthCaptureTransaction" => Kind::Capture,
        "refundTransaction" => Kind::Refund,
        "voidTransaction" => Kind::Void,
        _ => return Err("33"),
    };
    if matches!(kind, Kind::Sale | Kind::Authorize | Kind::Verify) {
        let amount = amount.filter(|amount| kind == Kind::Verify || *amount > 0).ok_or("5")?;
        return place(asked, kind, amount, currency, ref_id);
    }
    let payment = asked.text(&["refTransId"]).to_owned();
    let record = sandbox.book().by_id(Wire::AuthorizeNet, &payment).ok_or("16")?;
    let paid = sandbox.read(record.place).filter(|paid| paid.id == payment && paid.parent.is_none());
    let paid = paid.ok_or("16")?;
    if kind == Kind::Refund {
        // A refund names the card again, by its last four digits.
        let card = asked.text(&["payment", "creditCard", "cardNumber"]);
        if amount.is_none() || card.len() < 4 || !card.ends_with(&paid.last4) {
            return Err(if amount.is_none() { "5" } else { "54" });
        }
    }
    let follow = FollowUp {
        kind,
        payment,
        amount: amount.filter(|_| kind != Kind::Void),
        is_final: kind == Kind::Capture,
        metadata: serde_json::Map::new(),
    };
    Ok((Operation::Follow(follow), None))
}

fn place(
    asked: &Node,
    kind: Kind,
    amount: i64,
    currency: &str,
    ref_id: &str,
) -> Result<(Operation, Option<String>), &'static str> {
    let card = asked.at(&["payment", "creditCard"]).ok_or("33")?;
    let number = card.text(&["cardNumber"]).to_owned();
    if !numbers::is_card_number(&number) {
        return Err("6");
    }
    let expiry = expiry(card.text(&["expirationDate"])).ok_or("7")?;
    let has_cvc = !card.text(&["cardCode"]).is_empty();
    let invoice = asked.text(&["order", "invoiceNumber"]);
    let order = Order {
        has_zip: !asked.text(&["billTo", "zip"]).is_empty(),
        has_cvc,
        invoice: (!invoice.is_empty()).then(|| invoice.to_owned()),
        family: Some(FamilyFields {
            brand: numbers::brand(&number).to_owned(),
            expiry,
            echo: ref_id.to_owned(),
            cvc: has_cvc,
            ..FamilyFields::default()
        }),
        ..Order::new(kind, amount, currency, &number)
    };
    Ok((Operation::Place(Box::new(order)), Some(number)))
}

/// `MM/YYYY`, from that, `YYYY-MM`, `MMYY` or `MM/YY`.
fn expiry(text: &str) -> Option<String> {
    let (month, year) = match (text.split_once('/'), text.split_once('-')) {
        (Some((month, year)), _) | (None, Some((year, month))) => (month, year),
        (None, None) => text.split_at_checked(2)?,
    };
    let month: u8 = month.parse().ok().filter(|month| (1..=12).contains(month))?;
    let year: u16 = year.parse().ok()?;
    let year = if year < 100 { year + 2000 } else { year };
    (2000..=2100).contains(&year).then(|| format!("{month:02}/{year}"))
}

fn setting<'a>(asked: &'a Node, name: &str) -> Option<&'a str> {
    let settings = asked.child("transactionSettings")?;
    let setting = settings.children.iter().find(|setting| setting.text(&["settingName"]) == name)?;
    Some(setting.text(&["settingValue"]))
}

/// How many decimals the amounts of a currency have (ISO 4217).
pub(super) fn decimals(currency: &str) -> usize {
    match currency {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "VND"
        | "VUV" | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        _ => 2,
    }
}

/// A decimal amount in minor units; none if it is no amount or finer than the currency is.
fn minor_units(text: &str, currency: &str) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let decimals = decimals(currency);
    let is_plain = !whole.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if !is_plain || part.len() > decimals || part.contains('.') {
        return None;
    }
    format!("{whole}{part:0<decimals$}").parse().ok().filter(|amount| *amount <= AMOUNT_MAX)
}

fn refused(form: Form, refusal: Refusal, kind: Kind, about: &str, ref_id: &str) -> Reply {
    let reason = match refusal {
        Refusal::Duplicate | Refusal::ReferenceUsed | Refusal::KeyInFlight | Refusal::KeyReused => "11",
        Refusal::Unknown => "16",
        Refusal::Unsettled => "54",
        Refusal::TooLarge(_) => {
            if kind == Kind::Capture {
                "47"
            } else {
                "55"
            }
        }
        // Done already: an answer that looks like success, with a code that says so.
        Refusal::WrongState(Status::Voided) if kind == Kind::Void => {
            return shape::transaction(form, &Outcome::done_before("310", about, ref_id));
        }
        Refusal::WrongState(Status::Approved) if kind == Kind::Capture => {
            return shape::transaction(form, &Outcome::done_before("311", about, ref_id));
        }
        Refusal::WrongState(_) => {
            if kind == Kind::Refund {
                "54"
            } else {
                "16"
            }
        }
        Refusal::Broken => return error(form, StatusCode::SERVICE_UNAVAILABLE, "internal_error", ""),
    };
    shape::transaction(form, &Outcome::refused(reason, ref_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_amounts_are_read_by_their_currency() {
        for (text, currency, minor) in [
            ("1.00", "USD", Some(100)),
            ("12.3", "USD", Some(1230)),
            ("12", "USD", Some(1200)),
            ("500", "JPY", Some(500)),
            ("1.234", "KWD", Some(1234)),
            ("1.001", "USD", None),
            ("5.0", "JPY", None),
            ("-1.00", "USD", None),
            ("1e3", "USD", None),
            ("", "USD", None),
            (".5", "USD", None),
        ] {
            assert_eq!(minor_units(text, currency), minor, "{text} {currency}");
        }
    }

    #[test]
    fn expiries_are_read_in_their_four_forms() {
        for text in ["09/2027", "2027-09", "0927", "09/27"] {
            assert_eq!(expiry(text).as_deref(), Some("09/2027"));
        }
        assert_eq!([expiry("13/2027"), expiry("XXXX"), expiry("é9")], [None, None, None]);
    }
}
