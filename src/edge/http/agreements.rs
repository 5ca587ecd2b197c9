//! `/v1/tokens/{token}/agreements`: stored-credential agreements.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::code::Code;
use super::extract::{Body, IdempotencyKey, OptionalBody, PathIds, read_json};
use super::problem::Problem;
use super::reply;
use super::tokens::{List, display, display_some};
use crate::card::id::{AgreementId, Token};
use crate::card::stray;
use crate::clock::Time;
use crate::edge::App;
use crate::edge::charge;
use crate::edge::directory::Caller;
use crate::edge::store::AgreementRow;
use crate::edge::vault::{Consent, NewAgreement, Replayable};
use crate::object;

const CONSENT_BY_BYTES_MAX: usize = 255;
/// The longest network transaction id in use is Visa's with 15; others go to 36.
const NETWORK_ID_BYTES_MAX: usize = 64;
/// Mastercard's transaction link id: 22 characters, case-sensitive, `-` and `_` among them.
const LINK_ID_BYTES: usize = 22;

/// A body of `POST …/agreements`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AgreementBody {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(deserialize_with = "object::required")]
    consent: ConsentBody,
    network_transaction_id: Option<String>,
    transaction_link_id: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Recurring,
    Unscheduled,
    Installment,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsentBody {
    by: String,
    at: String,
    text_sha256: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndBody {}

/// `POST /v1/tokens/{token}/agreements`
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
    IdempotencyKey(key): IdempotencyKey,
    body: Body<AgreementBody>,
) -> Result<Response, Problem> {
    let new = body.value.check()?;
    let token = path.token()?;
    let made = app.vault.create_agreement(&caller, token, (&key, &body.bytes), new, &write).await?;
    Ok(answer(made))
}

/// `GET /v1/tokens/{token}/agreements`
pub(super) async fn list(State(app): State<App>, caller: Caller, path: PathIds) -> Result<Response, Problem> {
    let rows = app.vault.agreements(&caller, path.token()?).await?;
    let data: Vec<_> = rows.iter().map(Answer::of).collect();
    Ok(reply::json(StatusCode::OK, &List { data, has_more: false }))
}

/// `POST /v1/tokens/{token}/agreements/{agreement}/end`
pub(super) async fn end(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
    IdempotencyKey(key): IdempotencyKey,
    OptionalBody(body): OptionalBody,
) -> Result<Response, Problem> {
    if !body.is_empty() {
        let _nothing: EndBody = read_json(&body)?;
    }
    let which = (path.token()?, path.agreement()?);
    let ended = app.vault.end_agreement(&caller, which, (&key, &body), &write).await?;
    charge::wake(&app, caller.tenant_id(), which.0);
    Ok(answer(ended))
}

fn answer(made: Replayable) -> Response {
    let status = StatusCode::from_u16(made.status).unwrap_or(StatusCode::OK);
    let response = reply::written(status, made.body);
    if made.replayed { reply::replayed(response) } else { response }
}

fn write(row: &AgreementRow) -> Vec<u8> {
    serde_json::to_vec(&Answer::of(row)).unwrap_or_default()
}

impl AgreementBody {
    /// The network's identifiers are not refused for looking like card numbers: some networks' are all digits.
    fn check(&self) -> Result<NewAgreement, Problem> {
        let invalid = |param: &str| Problem::about(Code::InvalidValue, param);
        let consent = &self.consent;
        if !(1..=CONSENT_BY_BYTES_MAX).contains(&consent.by.len()) {
            return Err(invalid("consent.by"));
        }
        if stray::in_free_text(&consent.by) {
            return Err(Problem::about(Code::StrayNumber, "consent.by"));
        }
        let at = Time::parse(&consent.at).ok_or_else(|| invalid("consent.at"))?;
        let is_hash = |hash: &String| hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        if consent.text_sha256.as_ref().is_some_and(|hash| !is_hash(hash)) {
            return Err(invalid("consent.text_sha256"));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        // Mastercard fills its ids up with blanks at the end, and they are part of the id.
        let printed = |b: u8| matches!(b, b' '..=b'~');
        let is_network_id = |id: &String| {
            id.len() <= NETWORK_ID_BYTES_MAX && id.bytes().all(printed) && !id.trim().is_empty()
        };
        if self.network_transaction_id.as_ref().is_some_and(|id| !is_network_id(id)) {
            return Err(invalid("network_transaction_id"));
        }
        let is_link_id = |id: &String| id.len() == LINK_ID_BYTES && id.bytes().all(plain);
        if self.transaction_link_id.as_ref().is_some_and(|id| !is_link_id(id)) {
            return Err(invalid("transaction_link_id"));
        }
        let kind = match self.kind {
            Kind::Recurring => "recurring",
            Kind::Unscheduled => "unscheduled",
            Kind::Installment => "installment",
        };
        Ok(NewAgreement {
            kind: kind.to_owned(),
            consent: Consent { by: consent.by.clone(), at, text_sha256: consent.text_sha256.clone() },
            network_transaction_id: self.network_transaction_id.clone(),
            transaction_link_id: self.transaction_link_id.clone(),
        })
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(serialize_with = "display")]
    id: AgreementId,
    #[serde(serialize_with = "display")]
    token: Token,
    #[serde(rename = "type")]
    kind: &'a str,
    consent: ConsentAnswer<'a>,
    network_transaction_id: Option<&'a str>,
    transaction_link_id: Option<&'a str>,
    status: &'static str,
    #[serde(serialize_with = "display")]
    created_at: Time,
    #[serde(serialize_with = "display_some")]
    ended_at: Option<Time>,
    ended_reason: Option<&'a str>,
}

#[derive(Serialize)]
struct ConsentAnswer<'a> {
    by: &'a str,
    #[serde(serialize_with = "display")]
    at: Time,
    text_sha256: Option<&'a str>,
}

impl<'a> Answer<'a> {
    fn of(row: &'a AgreementRow) -> Self {
        Self {
            id: row.id,
            token: row.token,
            kind: &row.kind,
            consent: ConsentAnswer {
                by: &row.consent_by,
                at: row.consent_at,
                text_sha256: row.consent_text_sha256.as_deref(),
            },
            network_transaction_id: row.network_transaction_id.as_deref(),
            transaction_link_id: row.transaction_link_id.as_deref(),
            status: if row.ended_at.is_some() { "ended" } else { "active" },
            created_at: row.created_at,
            ended_at: row.ended_at,
            ended_reason: row.ended_reason.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(ntid: &str, tlid: &str) -> Result<NewAgreement, Code> {
        let body = format!(
            r#"{{"type":"recurring","consent":{{"by":"jane","at":"2026-11-22T10:00:00Z"}},"network_transaction_id":"{ntid}","transaction_link_id":"{tlid}"}}"#
        );
        let body: AgreementBody = read_json(body.as_bytes()).unwrap();
        body.check().map_err(|problem| problem.code())
    }

    #[test]
    fn what_a_network_calls_its_transactions_is_kept_letter_for_letter() {
        // Of digits only and with a right check digit, in small letters, filled up with blanks, ending in dashes.
        for ntid in ["378282246310005", "4242424242424242", "mcc123456", "MCC1234560115  ", " x", "0"] {
            for tlid in ["aB3-_6789012345678901Z", "4242424242424242------", "----------------------"] {
                let new = read(ntid, tlid).unwrap();
                assert_eq!(new.network_transaction_id.as_deref(), Some(ntid));
                assert_eq!(new.transaction_link_id.as_deref(), Some(tlid));
            }
        }
        let tlid = "aB3-_6789012345678901Z";
        for (ntid, tlid) in [
            ("", tlid),
            ("   ", tlid),
            ("\\n1", tlid),
            ("1", "aB3-_6789012345678901"),
            ("1", "aB3-_6789012345678901ZZ"),
            ("1", "aB3 _6789012345678901Z"),
        ] {
            assert_eq!(read(ntid, tlid).map(drop), Err(Code::InvalidValue));
        }
    }
}
