//! Adyen's answers, as its API would write them.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::super::ledger::{Entry, FamilyFields, Status};
use super::super::numbers::{self, Renewed, Updater};
use super::super::reply::{Form, Reply};

/// `status`, `errorCode`, `message`, `errorType`.
pub(super) fn error(status: StatusCode, code: &str, message: &str, kind: &str) -> Reply {
    let body = json!({ "status": status.as_u16(), "errorCode": code, "message": message, "errorType": kind });
    Reply::text(Form::Adyen, status, written(&body))
}

/// There is no such route.
pub(super) fn not_found() -> Reply {
    error(StatusCode::NOT_FOUND, "000", "Not found", "validation")
}

fn written(body: &Value) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}

fn fields(entry: &Entry) -> FamilyFields {
    entry.family.clone().unwrap_or_default()
}

/// What a payment answers.
pub(super) fn payment(entry: &Entry, renewed: Option<&Renewed>) -> Vec<u8> {
    let fields = fields(entry);
    let row = numbers::row_of(entry.behaviour, &entry.code).filter(|_| entry.status == Status::Declined);
    let refusal = row.and_then(|row| row.adyen.as_deref());
    let result = match entry.status {
        Status::Approved | Status::Authorized if entry.amount_approved < entry.amount => {
            "PartiallyAuthorised"
        }
        Status::Approved | Status::Authorized | Status::Voided => "Authorised",
        Status::Pending => "Received",
        Status::Declined if refusal == Some("38") && fields.present => "RedirectShopper",
        Status::Declined if refusal == Some("4") => "Error",
        Status::Declined | Status::Error => "Refused",
    };
    let mut body = Map::new();
    let mut data = additional(entry, &fields, row);
    if let Some(renewed) = renewed {
        update(&mut data, renewed);
    }
    body.insert("additionalData".into(), data.into());
    body.insert("pspReference".into(), entry.id.as_str().into());
    body.insert("resultCode".into(), result.into());
    let value = if result == "PartiallyAuthorised" { entry.amount_approved } else { entry.amount };
    body.insert("amount".into(), json!({ "currency": entry.currency, "value": value }));
    body.insert("merchantReference".into(), entry.reference.as_str().into());
    if let Some(code) = refusal.filter(|_| result != "RedirectShopper") {
        body.insert("refusalReason".into(), numbers::text_of("adyen", code).into());
        body.insert("refusalReasonCode".into(), code.into());
    }
    if result == "RedirectShopper" {
        body.insert(
            "action".into(),
            json!({ "type": "redirect", "method": "GET", "paymentMethodType": "scheme",
                    "url": "https://checkoutshopper-test.adyen.com/checkoutshopper/threeDS/redirect" }),
        );
    }
    written(&Value::Object(body))
}

fn additional(entry: &Entry, fields: &FamilyFields, row: Option<&numbers::Row>) -> Map<String, Value> {
    let granted = matches!(entry.status, Status::Approved | Status::Authorized | Status::Voided);
    let is_checked = numbers::row(entry.behaviour).is_some_and(|row| row.zip.is_some());
    let (avs, avs_raw) = match entry.zip.as_deref() {
        Some("Y") => ("7 Both postal code and address match", "Y"),
        Some("N") => ("2 Neither postal code nor address match", "N"),
        // Only the table's own U says that nobody could check; else nothing was sent.
        Some(_) if is_checked => ("3 AVS unavailable", "U"),
        Some(_) | None => ("5 No AVS data provided", ""),
    };
    let mut data = Map::new();
    let mut put = |name: &str, value: &str| data.insert(name.to_owned(), value.into());
    put("paymentMethod", scheme(&fields.brand));
    put("cardSummary", &entry.last4);
    put("expiryDate", &fields.expiry);
    put("avsResult", avs);
    put("avsResultRaw", avs_raw);
    put("cvcResult", if fields.cvc { "1 Matches" } else { "0 Unknown" });
    if granted {
        put("authCode", &auth_code(entry));
    }
    if let Some(id) = &entry.network_transaction_id {
        put("networkTxReference", id);
    }
    if let Some(iso) = row.and_then(|row| row.iso.as_deref()) {
        put("refusalReasonRaw", &format!("{iso} : {}", entry.code.replace('_', " ")));
    }
    if let Some(advice) = row.and_then(|row| row.advice.as_deref()) {
        put("merchantAdviceCode", advice);
    }
    data
}

/// What the Real Time Account Updater adds: of a new number the last four digits, as an account is told that was not set up for more.
fn update(data: &mut Map<String, Value>, renewed: &Renewed) {
    let status = match renewed.says {
        Updater::Number => "CardChanged",
        Updater::Expiry => "CardExpiryChanged",
        Updater::Closed => "CloseAccount",
        Updater::Contact => "ContactCardAccountHolder",
    };
    data.insert("realtimeAccountUpdaterStatus".into(), status.into());
    let last4 = renewed.number.get(renewed.number.len().saturating_sub(4)..).unwrap_or_default();
    data.insert("cardSummary".into(), last4.into());
    data.insert("expiryDate".into(), format!("{}/{}", renewed.month, renewed.year).into());
}

/// Adyen's word for a brand.
pub(super) fn scheme(brand: &str) -> &str {
    match brand {
        "mastercard" => "mc",
        "unionpay" => "cup",
        other => other,
    }
}

/// Six digits, the same for the same payment.
fn auth_code(entry: &Entry) -> String {
    let sum = entry.id.bytes().fold(entry.seq, |sum, byte| (sum * 31 + u64::from(byte)) % 1_000_000);
    format!("{sum:06}")
}

/// What a modification answers: that it was taken note of, whatever comes of it.
pub(super) fn modification(entry: &Entry, paid: &str, what: &str) -> Vec<u8> {
    let mut body = json!({
        "merchantAccount": fields(entry).merchant, "paymentPspReference": paid, "pspReference": entry.id,
        "reference": entry.reference, "status": "received",
    });
    if let Some(body) = body.as_object_mut().filter(|_| matches!(what, "captures" | "refunds")) {
        body.insert("amount".into(), json!({ "currency": entry.currency, "value": entry.amount }));
    }
    written(&body)
}

/// The same in the classic API.
pub(super) fn classic_modification(entry: &Entry, what: &str) -> Vec<u8> {
    written(&json!({ "pspReference": entry.id, "response": format!("[{what}-received]") }))
}
