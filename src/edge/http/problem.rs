//! Problems (RFC 9457): each error of each layer has its status, code and sentence here and nowhere else. The sentences are fixed: no
//! problem contains what a caller sent.

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::code::Code;
use crate::edge::charge;
use crate::edge::directory::Denied;
use crate::edge::keeper::KeeperError;
use crate::edge::store::{CommitError, Outbound, StoreError};
use crate::edge::vault;
use crate::edge::webhooks;
use crate::random::NoRandomness;
use crate::wire::keeper::{Refusal, RefusalCode};

/// The body of an error answer before it is written; boxed, so that a `Result` of a handler stays small.
#[derive(Clone, Debug)]
pub struct Problem(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    code: Code,
    detail: Option<&'static str>,
    param: Option<String>,
    retry_after_seconds: Option<u64>,
    outbound: Outbound,
    scrubbed_at: Option<String>,
    retry_at: Option<String>,
    subject: Option<String>,
    destinations: Vec<String>,
}

impl Problem {
    /// A problem with the sentence that its code stands for.
    pub fn of(code: Code) -> Self {
        Self(Box::new(Inner {
            code,
            detail: None,
            param: None,
            retry_after_seconds: None,
            outbound: Outbound::NotSent,
            scrubbed_at: None,
            retry_at: None,
            subject: None,
            destinations: Vec::new(),
        }))
    }

    /// A problem about one field, by our name for it.
    pub fn about(code: Code, param: impl Into<String>) -> Self {
        let mut problem = Self::of(code);
        problem.0.param = Some(param.into());
        problem
    }

    /// With a sentence of its own.
    #[must_use]
    pub fn detail(mut self, sentence: &'static str) -> Self {
        self.0.detail = Some(sentence);
        self
    }

    /// With a time after which trying again makes sense.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after_seconds = Some(seconds.max(1));
        self
    }

    /// For charges and forwards: what is known of whether bytes left.
    #[must_use]
    pub fn outbound(mut self, outbound: Outbound) -> Self {
        self.0.outbound = outbound;
        self
    }

    /// For an erased card: when its bytes were gone.
    #[must_use]
    pub fn scrubbed_at(mut self, at: Option<String>) -> Self {
        self.0.scrubbed_at = at;
        self
    }

    /// For what a network's rule forbids: from when on it may be tried.
    #[must_use]
    pub fn retry_at(mut self, at: Option<String>) -> Self {
        self.0.retry_at = at;
        self
    }

    /// With the id of the thing of ours that it is about, such as the charge that has the invoice.
    #[must_use]
    pub fn subject(mut self, id: impl Into<String>) -> Self {
        self.0.subject = Some(id.into());
        self
    }

    /// With the destinations that it is about, by name.
    #[must_use]
    pub fn destinations(mut self, names: Vec<String>) -> Self {
        self.0.destinations = names;
        self
    }

    /// The field that it is about, by our name for it.
    pub fn param(&self) -> Option<&str> {
        self.0.param.as_deref()
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The answer, with the id of the request it answers.
    pub(super) fn write(&self, request: &str) -> Response {
        let inner = &self.0;
        let spec = inner.code.spec();
        let body = Written {
            type_: format!("urn:cardvault:problem:{}", spec.name),
            title: spec.title,
            status: spec.status,
            detail: inner.detail.unwrap_or(spec.detail),
            code: spec.name,
            param: inner.param.as_deref(),
            retryable: spec.retryable,
            outbound: inner.outbound,
            scrubbed_at: inner.scrubbed_at.as_deref(),
            retry_at: inner.retry_at.as_deref(),
            subject: inner.subject.as_deref(),
            destinations: &inner.destinations,
            request_id: request,
        };
        let mut response = Response::new(Body::from(serde_json::to_vec(&body).unwrap_or_default()));
        *response.status_mut() =
            StatusCode::from_u16(spec.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = inner.retry_after_seconds.or(spec.retry_after_seconds) {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if spec.status == 401 {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[derive(Serialize)]
struct Written<'a> {
    #[serde(rename = "type")]
    type_: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<&'a str>,
    retryable: bool,
    outbound: Outbound,
    #[serde(skip_serializing_if = "Option::is_none")]
    scrubbed_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    destinations: &'a [String],
    request_id: &'a str,
}

/// The guard writes the answer, because it knows the request's id; until then the problem rides in the extensions.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() =
            StatusCode::from_u16(self.0.code.spec().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the answer of a problem that a handler gave; others pass. `Allow` stays as the router set it.
pub(super) fn written(mut response: Response, request: &str) -> (Response, Option<Code>) {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return (response, None) };
    let mut answer = problem.write(request);
    if let Some(allow) = response.headers().get(ALLOW) {
        answer.headers_mut().insert(ALLOW, allow.clone());
    }
    (answer, Some(problem.code()))
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        Self::of(match denied {
            Denied::Credential => Code::Unauthenticated,
            Denied::TenantDisabled => Code::TenantDisabled,
            Denied::Scope => Code::ScopeMissing,
            Denied::TenantRequired => Code::TenantRequired,
        })
    }
}

impl From<KeeperError> for Problem {
    fn from(error: KeeperError) -> Self {
        match error {
            KeeperError::Down => Self::of(Code::KeeperDown),
            KeeperError::Busy => Self::of(Code::Busy),
            KeeperError::Confused => Self::of(Code::Internal),
            KeeperError::Refused(refusal) | KeeperError::RefusedAfterOpening(refusal, _) => {
                Self::from(refusal)
            }
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let mut problem = Self::of(code_of(refusal.code));
        problem.0.param = refusal.param;
        problem
    }
}

const fn code_of(code: RefusalCode) -> Code {
    match code {
        RefusalCode::MalformedJson => Code::MalformedJson,
        RefusalCode::UnknownField => Code::UnknownField,
        RefusalCode::DuplicateField => Code::DuplicateField,
        RefusalCode::MissingField => Code::MissingField,
        RefusalCode::WrongType => Code::WrongType,
        RefusalCode::InvalidValue => Code::InvalidValue,
        RefusalCode::CardNumberInvalid => Code::CardNumberInvalid,
        RefusalCode::TestNumberInLive => Code::TestNumberInLive,
        RefusalCode::LiveNumberInTest => Code::LiveNumberInTest,
        RefusalCode::ExpiryInvalid => Code::ExpiryInvalid,
        RefusalCode::CardExpired => Code::CardExpired,
        RefusalCode::CvcNotAccepted => Code::CvcNotAccepted,
        RefusalCode::StrayNumber => Code::StrayNumber,
        RefusalCode::FingerprintBudget => Code::FingerprintBudget,
        RefusalCode::ZipBudget => Code::ZipBudget,
        RefusalCode::NotServing => Code::NotReady,
        RefusalCode::AmountInvalid => Code::AmountInvalid,
        RefusalCode::CurrencyInvalid => Code::CurrencyInvalid,
        RefusalCode::CardUnreadable => Code::CardUnreadable,
        RefusalCode::TenantUnknown => Code::TenantDisabled,
        RefusalCode::DestinationUnknown => Code::DestinationUnknown,
        RefusalCode::OperationUnsupported => Code::OperationUnsupported,
        RefusalCode::RequiredByConnector => Code::RequiredByConnector,
        RefusalCode::PlaceholderUnknown => Code::PlaceholderUnknown,
        RefusalCode::PlaceholderMisplaced => Code::PlaceholderMisplaced,
        RefusalCode::NotDeclared => Code::NotDeclared,
        RefusalCode::CredentialNotAccepted => Code::CredentialNotAccepted,
        RefusalCode::NothingToFill => Code::NothingToFill,
        RefusalCode::HeldGone => Code::HeldGone,
        RefusalCode::Busy => Code::Busy,
        RefusalCode::ForwarderDown => Code::ForwarderDown,
        RefusalCode::Inconsistent | RefusalCode::StatementMissing => Code::LogInconsistent,
        RefusalCode::KeyUnavailable => Code::KeyUnavailable,
        RefusalCode::Internal => Code::Internal,
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        match error {
            // Where a replay is possible the verb looks at the stored answer first; what is left is another body.
            CommitError::KeyTaken(_) => Self::of(Code::IdempotencyKeyReused),
            CommitError::DuplicateCard { token } => Self::of(Code::Conflict).subject(token.to_string()),
            CommitError::Conflict => Self::of(Code::Conflict),
            CommitError::FingerprintStale => Self::of(Code::Busy),
            CommitError::NotFound => Self::of(Code::NotFound),
            CommitError::TooMany => Self::of(Code::TooMany),
            CommitError::InvoiceInRun { run } => Self::of(Code::InFlight).subject(run.to_string()),
            CommitError::InvoiceTaken { charge } => Self::of(Code::InvoiceTaken).subject(charge.to_string()),
            CommitError::Unavailable(why) => Self::of(match why {
                "disk_full" => Code::DiskFull,
                _ => Code::StoreUnavailable,
            }),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::of(match error {
            StoreError::Unavailable(_) => Code::StoreUnavailable,
            StoreError::Corrupt(_) => Code::StoreCorrupt,
        })
    }
}

impl From<vault::Error> for Problem {
    fn from(error: vault::Error) -> Self {
        match error {
            vault::Error::Keeper(error) => Self::from(error),
            vault::Error::Commit(error) => Self::from(error),
            vault::Error::Store(error) => Self::from(error),
            vault::Error::Randomness(error) => Self::from(error),
            vault::Error::TokenUnknown => Self::of(Code::TokenNotFound),
            vault::Error::TokenErased { scrubbed_at } => {
                Self::of(Code::TokenErased).scrubbed_at(scrubbed_at.map(|at| at.to_string()))
            }
            vault::Error::TokenErasing => Self::of(Code::TokenErasing),
            vault::Error::HeldForErase => Self::of(Code::LegalHold),
            vault::Error::AgreementUnknown => Self::of(Code::AgreementNotFound),
            vault::Error::Forgotten => Self::of(Code::RecordForgotten),
            vault::Error::KeyReused => Self::of(Code::IdempotencyKeyReused),
            vault::Error::LogLagging => Self::of(Code::LogLagging),
        }
    }
}

impl From<charge::Error> for Problem {
    fn from(error: charge::Error) -> Self {
        use charge::Error;
        match error {
            Error::Keeper(error) => Self::from(error),
            Error::Commit(error) => Self::from(error),
            Error::Store(error) => Self::from(error),
            Error::Randomness(error) => Self::from(error),
            Error::TokenUnknown => Self::of(Code::TokenNotFound),
            Error::TokenErased { scrubbed_at } => {
                Self::of(Code::TokenErased).scrubbed_at(scrubbed_at.map(|at| at.to_string()))
            }
            Error::TokenErasing => Self::of(Code::TokenErasing),
            Error::TokenSuspended => Self::of(Code::TokenSuspended),
            Error::KeyReused => Self::of(Code::IdempotencyKeyReused),
            // What the other request sent is not known to this one.
            Error::InProgress => Self::of(Code::RequestInProgress).outbound(Outbound::MaybeSent),
            Error::BrokenOff => Self::of(Code::Internal).outbound(Outbound::MaybeSent),
            Error::DestinationUnknown => Self::about(Code::DestinationUnknown, "destination"),
            Error::DestinationRequired => Self::about(Code::DestinationRequired, "destination"),
            Error::VerificationUnsupported => Self::about(Code::OperationUnsupported, "destination"),
            Error::CurrencyRequired => Self::about(Code::MissingField, "currency"),
            Error::CurrencyUnsupported => Self::about(Code::CurrencyInvalid, "currency"),
            Error::LimitsUnknown => Self::of(Code::NotReady),
            Error::LimitExceeded => Self::about(Code::LimitExceeded, "amount"),
            Error::AgreementRequired => Self::about(Code::AgreementRequired, "agreement"),
            Error::NetworkForbids(forbidden) => {
                Self::about(Code::NetworkRule, "token").retry_at(forbidden.until.map(|at| at.to_string()))
            }
            Error::OperationRequired => Self::about(Code::MissingField, "operation"),
            Error::ChargeUnknown => Self::of(Code::ChargeNotFound),
            Error::Forgotten => Self::of(Code::RecordForgotten),
            Error::ForwardUnknown => Self::of(Code::ForwardNotFound),
            Error::AlreadyCharged(charge) => Self::of(Code::AlreadyCharged).subject(charge.to_string()),
            Error::InFlight(charge) => Self::of(Code::InFlight).subject(charge.to_string()),
            Error::InvoiceTaken(charge) => Self::of(Code::InvoiceTaken).subject(charge.to_string()),
            Error::RefundsNeedCard { charge, destinations } => {
                Self::of(Code::RefundsNeedCard).subject(charge.to_string()).destinations(destinations)
            }
            Error::InRun(run) => Self::of(Code::InFlight).subject(run.to_string()),
            Error::RunUnknown => Self::of(Code::RunNotFound),
            Error::RunState => Self::of(Code::RunState),
            Error::RunTotals => Self::of(Code::RunTotals),
            Error::RunHeader => Self::of(Code::RunHeader),
            Error::UploadCut => Self::of(Code::UploadCut),
            Error::UploadDiffers => Self::of(Code::UploadDiffers),
            Error::State => Self::of(Code::ChargeState),
            Error::TransactionUnknown => Self::of(Code::TransactionUnknown),
            Error::AmountTooLarge => Self::about(Code::AmountTooLarge, "amount"),
            Error::AmountInvalid => Self::about(Code::AmountInvalid, "amount"),
            Error::LogLagging => Self::of(Code::LogLagging),
        }
    }
}

impl From<webhooks::Error> for Problem {
    fn from(error: webhooks::Error) -> Self {
        use webhooks::Error;
        match error {
            Error::Keeper(error) => Self::from(error),
            Error::Commit(error) => Self::from(error),
            Error::Store(error) => Self::from(error),
            Error::Randomness(error) => Self::from(error),
            Error::EndpointUnknown => Self::of(Code::EndpointNotFound),
            Error::NoticeUnknown => Self::of(Code::NotFound),
            Error::HostNotAllowed => Self::about(Code::HostNotAllowed, "url"),
            Error::Disabled => Self::of(Code::EndpointDisabled),
            Error::KeyReused => Self::of(Code::IdempotencyKeyReused),
            Error::InProgress => Self::of(Code::RequestInProgress),
        }
    }
}

impl From<NoRandomness> for Problem {
    fn from(_: NoRandomness) -> Self {
        Self::of(Code::Internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_every_member_and_its_type_ends_in_its_code() {
        for code in Code::ALL {
            let response = Problem::about(*code, "card.number").write("req_x");
            assert_eq!(response.status().as_u16(), code.spec().status);
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        }
        let problem = Problem::about(Code::StrayNumber, "customer");
        let body = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(axum::body::to_bytes(problem.write("req_x").into_body(), 4096))
            .unwrap();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        for member in
            ["type", "title", "status", "detail", "code", "param", "retryable", "outbound", "request_id"]
        {
            assert!(value.get(member).is_some(), "{member}");
        }
        assert_eq!(value["type"], "urn:cardvault:problem:stray_number");
        assert_eq!(value["outbound"], "not_sent");
    }
}
