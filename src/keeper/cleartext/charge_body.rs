//! The body of a charge or verification. A CVC and the pass-through fields stay here, held for the one request; the rest
//! goes back to the edge.

use std::collections::BTreeMap;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::{CardVerificationCode, json};
use crate::card::id::Token;
use crate::card::stray::Exempt;
use crate::keeper::keys::TenantKeys;
use crate::object;
use crate::wire::keeper::{ChargeRead, Digested, ReadCharge, Refusal, RefusalCode};

const DESCRIPTION_CHARS_MAX: usize = 500;
const DESCRIPTOR_CHARS_MAX: usize = 22;
const PASS_THROUGH_CHARS_MAX: usize = 200;
/// Twenty bytes as hex.
const CAVV_HEX: usize = 40;

type Secret = Option<Zeroizing<String>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    token: String,
    #[serde(default, deserialize_with = "json::amount")]
    amount: Option<i64>,
    currency: Option<String>,
    destination: Option<String>,
    invoice: Option<String>,
    period: Option<String>,
    initiator: Option<String>,
    agreement: Option<String>,
    retry: Option<String>,
    capture: Option<bool>,
    allow_partial: Option<bool>,
    cvc: Secret,
    #[serde(default, deserialize_with = "object::optional")]
    three_d_secure: Option<ThreeDSecure>,
    #[serde(default, deserialize_with = "object::optional")]
    billing: Option<Billing>,
    installments: Option<u16>,
    statement_descriptor: Option<String>,
    description: Option<String>,
    #[serde(default, deserialize_with = "json::metadata")]
    metadata: Option<BTreeMap<String, String>>,
}

/// The result of a 3-D Secure authentication, passed through and kept nowhere.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(in crate::keeper) struct ThreeDSecure {
    /// Protocol version.
    pub(in crate::keeper) version: Secret,
    /// Electronic commerce indicator.
    pub(in crate::keeper) eci: Secret,
    /// Cardholder authentication verification value.
    pub(in crate::keeper) cavv: Secret,
    /// Directory server transaction id.
    pub(in crate::keeper) ds_transaction_id: Secret,
}

/// A billing address, passed through and kept nowhere.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(in crate::keeper) struct Billing {
    /// The cardholder's name.
    pub(in crate::keeper) name: Secret,
    /// Street.
    pub(in crate::keeper) line1: Secret,
    /// Street, second line.
    pub(in crate::keeper) line2: Secret,
    /// City.
    pub(in crate::keeper) city: Secret,
    /// Region.
    pub(in crate::keeper) region: Secret,
    /// ISO 3166-1 alpha-2.
    pub(in crate::keeper) country: Secret,
    /// E-mail.
    pub(in crate::keeper) email: Secret,
}

/// What stays in the keeper for the one request.
#[derive(Default)]
pub(in crate::keeper) struct PassThrough {
    /// The card verification code.
    pub(in crate::keeper) cvc: Option<CardVerificationCode>,
    /// Passed through.
    pub(in crate::keeper) three_d_secure: ThreeDSecure,
    /// Passed through.
    pub(in crate::keeper) billing: Billing,
}

/// Reads a charge's body. The second value is there if something must be held.
pub(in crate::keeper) fn read_charge(
    ask: &ReadCharge,
    keys: &TenantKeys,
    exempt: Exempt<'_>,
) -> Result<(ChargeRead, Option<PassThrough>), Refusal> {
    let internal = |_| Refusal::of(RefusalCode::KeyUnavailable);
    let body: Body = json::read(&ask.body)?;
    let mac = keys.body_mac().map_err(internal)?;
    let digests = Digested {
        key: mac.sum(&[b"idempotency/v1", ask.route.as_bytes(), ask.idempotency_key.as_bytes()]),
        body: mac.sum(&[
            b"body/v1",
            ask.route.as_bytes(),
            ask.idempotency_key.as_bytes(),
            &body_without_cvc(&ask.body)?,
        ]),
    };
    let customer_initiated = read_initiator(&body, ask.verification)?;
    check(&body, ask.verification)?;
    check_words(&body, exempt)?;
    let retry = read_retry(&body, customer_initiated)?;
    let token = Token::parse(&body.token);
    let holds = body.cvc.is_some() || body.three_d_secure.is_some() || body.billing.is_some();
    let cvc = body
        .cvc
        .map(|cvc| {
            let taken = if customer_initiated { CardVerificationCode::parse(&cvc) } else { None };
            let code =
                if customer_initiated { RefusalCode::InvalidValue } else { RefusalCode::CvcNotAccepted };
            taken.ok_or_else(|| Refusal::about(code, "cvc"))
        })
        .transpose()?;
    let read = ChargeRead {
        held: None,
        has_cvc: cvc.is_some(),
        token,
        amount: body.amount.unwrap_or(0),
        currency: body.currency.unwrap_or_default(),
        destination: body.destination,
        invoice: body.invoice,
        period: body.period.unwrap_or_default(),
        customer_initiated,
        agreement: body.agreement,
        retry,
        capture: body.capture.unwrap_or(true),
        allow_partial: body.allow_partial.unwrap_or(false),
        statement_descriptor: body.statement_descriptor,
        description: body.description,
        metadata: body.metadata.unwrap_or_default(),
        digests,
    };
    let held = PassThrough {
        cvc,
        three_d_secure: body.three_d_secure.unwrap_or_default(),
        billing: body.billing.unwrap_or_default(),
    };
    Ok((read, holds.then_some(held)))
}

/// The body with its `cvc` member left out, so that no keyed hash covers a CVC. Only a body that has one pays for it.
fn body_without_cvc(body: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let mut value: BTreeMap<String, &serde_json::value::RawValue> =
        serde_json::from_slice(body).map_err(|_| Refusal::of(RefusalCode::MalformedJson))?;
    if value.remove("cvc").is_none() {
        return Ok(Zeroizing::new(body.to_vec()));
    }
    serde_json::to_vec(&value).map(Zeroizing::new).map_err(|_| Refusal::of(RefusalCode::MalformedJson))
}

/// Whether the customer is present; a verification is made by the customer unless it says otherwise.
fn read_initiator(body: &Body, verification: bool) -> Result<bool, Refusal> {
    match body.initiator.as_deref() {
        Some("customer") => Ok(true),
        Some("merchant") => Ok(false),
        Some(_) => Err(Refusal::about(RefusalCode::InvalidValue, "initiator")),
        None if verification => Ok(true),
        None => Err(Refusal::about(RefusalCode::MissingField, "initiator")),
    }
}

/// Whether to try again on a schedule. Without the customer only the merchant can, so a customer's charge has none.
fn read_retry(body: &Body, customer_initiated: bool) -> Result<Option<bool>, Refusal> {
    match body.retry.as_deref() {
        None => Ok(None),
        Some("none") => Ok(Some(false)),
        Some("schedule") if !customer_initiated => Ok(Some(true)),
        Some(_) => Err(Refusal::about(RefusalCode::InvalidValue, "retry")),
    }
}

fn check(body: &Body, verification: bool) -> Result<(), Refusal> {
    let currency = body.currency.as_deref();
    if currency.is_some_and(|c| c.len() != 3 || !c.bytes().all(|b| b.is_ascii_uppercase())) {
        return Err(Refusal::about(RefusalCode::CurrencyInvalid, "currency"));
    }
    if !verification {
        for (missing, param) in [
            (body.amount.is_none(), "amount"),
            (currency.is_none(), "currency"),
            (body.invoice.is_none(), "invoice"),
        ] {
            if missing {
                return Err(Refusal::about(RefusalCode::MissingField, param));
            }
        }
        if body.amount.is_some_and(|amount| amount <= 0) {
            return Err(Refusal::about(RefusalCode::AmountInvalid, "amount"));
        }
    } else if is_of_a_charge(body) {
        return Err(Refusal::of(RefusalCode::UnknownField));
    }
    if body.installments.is_some_and(|n| n > 1) {
        return Err(Refusal::about(RefusalCode::InvalidValue, "installments"));
    }
    Ok(())
}

/// Whether a body says what a verification does not have: it moves no money and belongs to no invoice.
const fn is_of_a_charge(body: &Body) -> bool {
    body.amount.is_some()
        || body.invoice.is_some()
        || body.period.is_some()
        || body.retry.is_some()
        || body.capture.is_some()
        || body.allow_partial.is_some()
        || body.installments.is_some()
        || body.statement_descriptor.is_some()
}

fn check_words(body: &Body, exempt: Exempt<'_>) -> Result<(), Refusal> {
    json::check_identifier(body.destination.as_deref(), "destination", exempt)?;
    json::check_identifier(body.invoice.as_deref(), "invoice", exempt)?;
    json::check_identifier(body.period.as_deref().filter(|p| !p.is_empty()), "period", exempt)?;
    json::check_text(body.statement_descriptor.as_deref(), "statement_descriptor", DESCRIPTOR_CHARS_MAX)?;
    json::check_text(body.description.as_deref(), "description", DESCRIPTION_CHARS_MAX)?;
    check_pass_through(body)?;
    body.metadata.as_ref().map_or(Ok(()), json::check_metadata)
}

/// What is passed through goes to the processor as it is: no card number hides in it. Values of the 3-D Secure server's own making
/// are no text where they have their form, and a number by chance there is none.
fn check_pass_through(body: &Body) -> Result<(), Refusal> {
    if let Some(billing) = &body.billing {
        let Billing { name, line1, line2, city, region, country, email } = billing;
        for (value, param) in [
            (name, "billing.name"),
            (line1, "billing.line1"),
            (line2, "billing.line2"),
            (city, "billing.city"),
            (region, "billing.region"),
            (country, "billing.country"),
            (email, "billing.email"),
        ] {
            check_passed(value, param)?;
        }
    }
    let Some(ThreeDSecure { version, eci, cavv, ds_transaction_id }) = &body.three_d_secure else {
        return Ok(());
    };
    check_passed(version, "three_d_secure.version")?;
    check_passed(eci, "three_d_secure.eci")?;
    if !cavv.as_ref().is_some_and(|cavv| is_hex(cavv, CAVV_HEX)) {
        check_passed(cavv, "three_d_secure.cavv")?;
    }
    if !ds_transaction_id.as_ref().is_some_and(|id| is_uuid(id)) {
        check_passed(ds_transaction_id, "three_d_secure.ds_transaction_id")?;
    }
    Ok(())
}

fn check_passed(value: &Secret, param: &str) -> Result<(), Refusal> {
    json::check_text(value.as_ref().map(|value| value.as_str()), param, PASS_THROUGH_CHARS_MAX)
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_uuid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.split('-').all(|part| is_hex(part, part.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(more: &str) -> Option<String> {
        let body = format!("{{\"token\":\"\",{more}}}");
        let body: Body = serde_json::from_str(&body).unwrap();
        let refusal = check_pass_through(&body).err()?;
        assert!(matches!(refusal.code, RefusalCode::StrayNumber | RefusalCode::InvalidValue));
        refusal.param
    }

    #[test]
    fn what_is_passed_through_holds_no_card_number() {
        for param in [
            "billing.name",
            "billing.line1",
            "billing.line2",
            "billing.city",
            "billing.region",
            "billing.country",
            "billing.email",
            "three_d_secure.version",
            "three_d_secure.eci",
            "three_d_secure.cavv",
            "three_d_secure.ds_transaction_id",
        ] {
            let (object, field) = param.split_once('.').unwrap();
            for value in ["4242424242424242", "c/o 4242 4242-4242 4242", "a\\nb"] {
                let body = format!("\"{object}\":{{\"{field}\":\"{value}\"}}");
                assert_eq!(refused(&body).as_deref(), Some(param));
            }
            for value in ["12 Main Street", "05", "AAABBIIFmAAAAAAAAAAAAAAAAAA="] {
                assert_eq!(refused(&format!("\"{object}\":{{\"{field}\":\"{value}\"}}")), None, "{param}");
            }
        }
    }

    #[test]
    fn what_a_directory_server_made_is_no_text() {
        // Each holds, by chance, digits that a card number could have.
        for (field, value) in [
            ("cavv", "0042424242424242420000000000000000000000"),
            ("ds_transaction_id", "42424242-4242-4242-8a3b-0123456789ab"),
        ] {
            assert!(crate::card::stray::in_free_text(value));
            assert_eq!(refused(&format!("\"three_d_secure\":{{\"{field}\":\"{value}\"}}")), None, "{field}");
        }
    }
}
