//! Stripe's objects and errors, as its API would answer them.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::super::index::Record;
use super::super::ledger::{Entry, Kind, Status, StripeFields};
use super::super::numbers::{self, Outcome, Row};
use super::super::reply::Reply;
use crate::clock::Time;

/// A new intent, as it was decided: the intent itself, or the card error that holds it.
pub(super) fn outcome(entry: &Entry, expand: bool) -> Reply {
    let record = Record::decided(entry);
    let intent = intent(entry, &record, expand);
    let needs_action = status(entry, &record) == "requires_action";
    match entry.status {
        Status::Approved | Status::Authorized | Status::Pending | Status::Voided => {
            Reply::json(StatusCode::OK, &intent)
        }
        Status::Declined if needs_action => Reply::json(StatusCode::OK, &intent),
        Status::Declined => {
            let mut error = card_error(entry, &record);
            let (name, method) = (object_of(entry), payment_method(entry));
            if let Some(error) = error.as_object_mut() {
                error.insert(name.into(), intent);
                error.insert("payment_method".into(), method);
            }
            Reply::json(StatusCode::PAYMENT_REQUIRED, &json!({ "error": error }))
        }
        Status::Error => Problem::internal().reply(),
    }
}

/// A payment intent or setup intent as it stands.
pub(super) fn intent(entry: &Entry, record: &Record, expand: bool) -> Value {
    if entry.kind == Kind::Verify {
        setup_intent(entry, record)
    } else {
        payment_intent(entry, record, expand)
    }
}

fn payment_intent(entry: &Entry, record: &Record, expand: bool) -> Value {
    let fields = fields(entry);
    let status = status(entry, record);
    let capturable = if status == "requires_capture" { record.approved } else { 0 };
    let charge = charge_id(entry);
    let has_charge = status != "requires_action";
    let latest_charge = match (has_charge, expand || fields.expand_charge) {
        (false, _) => Value::Null,
        (true, false) => charge.into(),
        (true, true) => self::charge(entry, record),
    };
    let error = if status == "requires_payment_method" { card_error(entry, record) } else { Value::Null };
    json!({
        "id": entry.id, "object": "payment_intent", "amount": entry.amount, "amount_capturable": capturable,
        "amount_received": record.captured, "application": null, "application_fee_amount": null,
        "automatic_payment_methods": null, "canceled_at": null, "cancellation_reason": null,
        "capture_method": if entry.kind == Kind::Authorize { "manual" } else { "automatic" },
        "client_secret": format!("{}_secret_sandbox", entry.id), "confirmation_method": "automatic",
        "created": created(entry), "currency": entry.currency, "customer": null, "description": fields.description,
        "last_payment_error": error, "latest_charge": latest_charge, "livemode": false,
        "metadata": fields.metadata, "next_action": next_action(status), "on_behalf_of": null,
        "payment_method": payment_method_id(entry),
        "payment_method_options": { "card": { "request_three_d_secure": "automatic" } },
        "payment_method_types": ["card"], "processing": null, "receipt_email": null, "review": null,
        "setup_future_usage": null, "shipping": null, "source": null, "statement_descriptor": null,
        "statement_descriptor_suffix": null, "status": status, "transfer_data": null, "transfer_group": null,
    })
}

fn setup_intent(entry: &Entry, record: &Record) -> Value {
    let fields = fields(entry);
    let status = status(entry, record);
    let error = if status == "requires_payment_method" { card_error(entry, record) } else { Value::Null };
    json!({
        "id": entry.id, "object": "setup_intent", "application": null, "cancellation_reason": null,
        "client_secret": format!("{}_secret_sandbox", entry.id), "created": created(entry), "customer": null,
        "description": fields.description, "flow_directions": null, "last_setup_error": error,
        "latest_attempt": format!("setatt_{}", bare_id(entry)), "livemode": false, "mandate": null,
        "metadata": fields.metadata, "next_action": next_action(status), "on_behalf_of": null,
        "payment_method": payment_method_id(entry),
        "payment_method_options": { "card": { "mandate_options": null, "network": null, "request_three_d_secure": "automatic" } },
        "payment_method_types": ["card"], "single_use_mandate": null, "status": status, "usage": "off_session",
    })
}

fn status(entry: &Entry, record: &Record) -> &'static str {
    let fields = fields(entry);
    match record.status {
        Status::Approved => "succeeded",
        Status::Authorized if record.captured > 0 => "succeeded",
        Status::Authorized => "requires_capture",
        Status::Pending => "processing",
        Status::Voided => "canceled",
        Status::Declined if entry.code == "authentication_required" && !fields.off_session => {
            "requires_action"
        }
        Status::Declined | Status::Error => "requires_payment_method",
    }
}

fn next_action(status: &str) -> Value {
    if status == "requires_action" {
        json!({ "type": "use_stripe_sdk", "use_stripe_sdk": { "type": "three_d_secure_redirect" } })
    } else {
        Value::Null
    }
}

/// The charge behind an intent.
fn charge(entry: &Entry, record: &Record) -> Value {
    let fields = fields(entry);
    let declined = decline_row(entry, record);
    let failed = record.status == Status::Declined;
    let status = match record.status {
        Status::Declined | Status::Error => "failed",
        Status::Pending => "pending",
        Status::Approved | Status::Authorized | Status::Voided => "succeeded",
    };
    json!({
        "id": charge_id(entry), "object": "charge", "amount": entry.amount, "amount_captured": record.captured,
        "amount_refunded": record.refunded, "balance_transaction": null,
        "captured": record.captured > 0, "created": created(entry), "currency": entry.currency, "customer": null,
        "description": fields.description, "disputed": false,
        "failure_code": declined.map(error_code), "failure_message": declined.and_then(|row| row.message.clone()),
        "livemode": false, "metadata": fields.metadata, "outcome": outcome_of(declined, failed),
        "paid": !failed && record.status != Status::Pending, "payment_intent": entry.id,
        "payment_method": payment_method_id(entry),
        "payment_method_details": { "card": card_details(entry, record.approved), "type": "card" },
        "receipt_email": null, "receipt_number": null, "refunded": record.captured > 0 && record.refunded == record.captured,
        "review": null, "status": status,
    })
}

fn outcome_of(declined: Option<&Row>, failed: bool) -> Value {
    if !failed {
        return json!({
            "advice_code": null, "network_advice_code": null, "network_decline_code": null,
            "network_status": "approved_by_network", "reason": null, "risk_level": "normal", "risk_score": 20,
            "seller_message": "Payment complete.", "type": "authorized",
        });
    }
    let blocked = declined.is_some_and(|row| row.class.as_deref() == Some("risk") && row.iso.is_none());
    json!({
        "advice_code": declined.and_then(stripe_advice),
        "network_advice_code": declined.and_then(|row| row.advice.clone()),
        "network_decline_code": declined.and_then(|row| row.iso.clone()),
        "network_status": if blocked { "not_sent_to_network" } else { "declined_by_network" },
        "reason": declined.and_then(|row| row.code.clone()),
        "risk_level": if blocked { "highest" } else { "normal" }, "risk_score": if blocked { 90 } else { 20 },
        "seller_message": "The bank did not return any further details with this decline.",
        "type": if blocked { "blocked" } else { "issuer_declined" },
    })
}

/// What was pending was approved after its entry was written: the amount is the record's.
fn card_details(entry: &Entry, approved: i64) -> Value {
    let fields = fields(entry);
    let postal = match entry.zip.as_deref() {
        Some("Y") => Some("pass"),
        Some("N") => Some("fail"),
        // Nothing was sent, or nobody could check it; only the table's own U is the second.
        Some(_) if numbers::row(entry.behaviour).is_some_and(|row| row.zip.is_some()) => Some("unavailable"),
        Some(_) | None => None,
    };
    let mut card = json!({
        "amount_authorized": approved, "authorization_code": null, "brand": fields.brand,
        "checks": {
            "address_line1_check": null, "address_postal_code_check": postal,
            "cvc_check": fields.cvc.then_some("pass"),
        },
        "country": "US", "exp_month": fields.exp_month, "exp_year": fields.exp_year,
        "extended_authorization": { "status": "disabled" }, "funding": "credit",
        "incremental_authorization": { "status": "unavailable" }, "installments": null, "last4": entry.last4,
        "mandate": null, "multicapture": { "status": "unavailable" }, "network": fields.brand,
        "network_token": { "used": false },
        "overcapture": { "maximum_amount_capturable": approved, "status": "unavailable" },
        "three_d_secure": null, "wallet": null,
    });
    // Absent on declines, as at Stripe.
    if let (Some(card), Some(id)) = (card.as_object_mut(), &entry.network_transaction_id) {
        card.insert("network_transaction_id".into(), id.as_str().into());
    }
    card
}

fn payment_method(entry: &Entry) -> Value {
    json!({ "id": payment_method_id(entry), "object": "payment_method", "card": card_details(entry, entry.amount_approved), "type": "card" })
}

/// The `error` of a decline, without the intent.
fn card_error(entry: &Entry, record: &Record) -> Value {
    let row = decline_row(entry, record);
    let code = row.map_or("card_declined", error_code);
    let mut error = Map::new();
    if code == "card_declined" || code == "authentication_required" {
        error.insert("decline_code".into(), row.and_then(|row| row.code.clone()).into());
    }
    if let Some(advice) = row.and_then(stripe_advice) {
        error.insert("advice_code".into(), advice.into());
    }
    if let Some(advice) = row.and_then(|row| row.advice.as_deref()) {
        error.insert("network_advice_code".into(), advice.into());
    }
    if let Some(iso) = row.and_then(|row| row.iso.as_deref()) {
        error.insert("network_decline_code".into(), iso.into());
    }
    error.insert("charge".into(), charge_id(entry).into());
    error.insert("code".into(), code.into());
    error.insert(
        "doc_url".into(),
        format!("https://stripe.com/docs/error-codes/{}", code.replace('_', "-")).into(),
    );
    error.insert("message".into(), row.and_then(|row| row.message.clone()).into());
    error.insert("type".into(), "card_error".into());
    Value::Object(error)
}

/// The table's row for a decline, also one that came after a pending time.
fn decline_row(entry: &Entry, record: &Record) -> Option<&'static Row> {
    if record.status != Status::Declined {
        return None;
    }
    numbers::row(entry.behaviour)
        .filter(|row| row.outcome == Outcome::PendingDeclined)
        .or_else(|| numbers::row_of(entry.behaviour, &entry.code))
}

fn error_code(row: &Row) -> &str {
    row.error_code.as_deref().unwrap_or("card_declined")
}

/// Stripe's `advice_code`. Which decline gets which is our own reading, by class.
fn stripe_advice(row: &Row) -> Option<&'static str> {
    match row.class.as_deref()? {
        "hard" => Some("do_not_try_again"),
        "fix_data" => Some("confirm_card_data"),
        "soft" => Some("try_again_later"),
        _ => None,
    }
}

/// A refund.
pub(super) fn refund(entry: &Entry) -> Value {
    let intent = entry.parent.as_deref().unwrap_or_default();
    let failed = entry.status == Status::Declined;
    let mut refund = json!({
        "id": entry.id, "object": "refund", "amount": entry.amount, "balance_transaction": null,
        "charge": intent.replacen("pi_", "ch_", 1), "created": created(entry), "currency": entry.currency,
        "metadata": fields(entry).metadata, "payment_intent": intent, "reason": null, "receipt_number": null,
        "status": if failed { "failed" } else { "succeeded" },
    });
    if let (true, Some(refund)) = (failed, refund.as_object_mut()) {
        refund.insert("failure_reason".into(), entry.code.as_str().into());
    }
    refund
}

fn fields(entry: &Entry) -> StripeFields {
    entry.stripe.clone().unwrap_or_default()
}

fn created(entry: &Entry) -> i64 {
    Time::parse(&entry.at).map_or(0, Time::seconds)
}

fn bare_id(entry: &Entry) -> &str {
    entry.id.split_once('_').map_or("", |(_, id)| id)
}

fn charge_id(entry: &Entry) -> String {
    format!("ch_{}", bare_id(entry))
}

fn payment_method_id(entry: &Entry) -> String {
    format!("pm_{}", bare_id(entry))
}

fn object_of(entry: &Entry) -> &'static str {
    if entry.kind == Kind::Verify { "setup_intent" } else { "payment_intent" }
}

/// An error that is not the card's, except the two that Stripe's own check of the expiry makes.
pub(super) struct Problem {
    status: StatusCode,
    error: Value,
}

impl Problem {
    /// The answer.
    pub(super) fn reply(&self) -> Reply {
        Reply::json(self.status, &json!({ "error": self.error }))
    }

    /// `invalid_request_error` with a code and the parameter that is wrong.
    pub(super) fn invalid(code: &str, param: &str, message: &str) -> Self {
        let error =
            json!({ "code": code, "message": message, "param": param, "type": "invalid_request_error" });
        Self { status: StatusCode::BAD_REQUEST, error }
    }

    /// A parameter is missing.
    pub(super) fn missing(param: &str) -> Self {
        Self::invalid("parameter_missing", param, &format!("Missing required param: {param}."))
    }

    /// `invalid_request_error` without a code.
    pub(super) fn plain(status: StatusCode, message: &str) -> Self {
        Self { status, error: json!({ "message": message, "type": "invalid_request_error" }) }
    }

    /// The card's data cannot be right.
    pub(super) fn card(code: &str, param: &str, message: &str) -> Self {
        let error = json!({ "code": code, "message": message, "param": param, "type": "card_error" });
        Self { status: StatusCode::PAYMENT_REQUIRED, error }
    }

    /// There is no such object.
    pub(super) fn no_such(id: &str) -> Self {
        let object = if id.starts_with("re_") { "refund" } else { "payment_intent" };
        let message = format!("No such {object}: '{id}'");
        let error = json!({ "code": "resource_missing", "message": message, "param": "intent", "type": "invalid_request_error" });
        Self { status: StatusCode::NOT_FOUND, error }
    }

    /// There is no such route.
    pub(super) fn unknown_route() -> Self {
        Self::plain(StatusCode::NOT_FOUND, "Unrecognized request URL.")
    }

    /// A request with this key is under way.
    pub(super) fn key_in_use() -> Self {
        let error = json!({
            "code": "idempotency_key_in_use",
            "doc_url": "https://stripe.com/docs/error-codes/idempotency-key-in-use",
            "message": "There is currently another in-progress request using this idempotency key. Try again later.",
            "type": "invalid_request_error",
        });
        Self { status: StatusCode::CONFLICT, error }
    }

    /// The key belongs to another request.
    pub(super) fn key_reused(key: &str) -> Self {
        let message = format!(
            "Keys for idempotent requests can only be used with the same parameters they were first used with. Try \
             using a key other than '{key}' if you meant to execute a different request."
        );
        Self {
            status: StatusCode::BAD_REQUEST,
            error: json!({ "message": message, "type": "idempotency_error" }),
        }
    }

    /// The intent does not stand so that this can be done.
    pub(super) fn unexpected_state(message: String, intent: Option<Value>) -> Self {
        let error = json!({
            "code": "payment_intent_unexpected_state",
            "doc_url": "https://stripe.com/docs/error-codes/payment-intent-unexpected-state",
            "message": message, "payment_intent": intent, "type": "invalid_request_error",
        });
        Self { status: StatusCode::BAD_REQUEST, error }
    }

    /// Stripe's own fault.
    pub(super) fn internal() -> Self {
        let message = "An unknown error occurred.";
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            error: json!({ "message": message, "type": "api_error" }),
        }
    }
}
