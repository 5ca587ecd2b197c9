//! Erasures: of a card, of all cards of a customer, and their certificates (`/v1/erasures`).

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::code::Code;
use super::extract::{PathIds, Query};
use super::log;
use super::problem::Problem;
use super::reply;
use super::tokens::{List, customer_of, display, display_some};
use crate::card::id::Token;
use crate::clock::Time;
use crate::edge::App;
use crate::edge::directory::Caller;
use crate::edge::erasures::{self, NoCertificate};
use crate::edge::store::CardStatus;
use crate::edge::vault::{Erased, Erasure};
use crate::edge::{charge, store};

/// What an erase may say.
pub(super) const ERASE_QUERY: &[&str] = &["forgo_refunds"];
/// The same of all cards of a customer.
pub(super) const CUSTOMER_QUERY: &[&str] = &["customer", "forgo_refunds", "starting_after"];
/// Cards of a customer that one request erases at most.
const CARDS_MAX: usize = 100;

/// `DELETE /v1/tokens/{token}`: erases a card; says first if charges cannot be refunded afterwards.
pub(super) async fn erase(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
    query: Query,
) -> Result<Response, Problem> {
    let token = path.token()?;
    if !forgoes_refunds(&query)? {
        charge::check_erase(&app, &caller, token).await?;
    }
    let erased = erase_one(&app, &caller, token).await?;
    let status = if erased.status == CardStatus::Erased { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(reply::json(status, &erased))
}

/// `DELETE /v1/tokens?customer=`: erases a customer's cards, newest first. If charges of one cannot be refunded afterwards, none is
/// erased.
pub(super) async fn erase_customer(
    State(app): State<App>,
    caller: Caller,
    query: Query,
) -> Result<Response, Problem> {
    let customer = customer_of(&query)?;
    let after = query.parsed("starting_after", Token::parse)?;
    let page = app.store.cards_of_customer(caller.tenant_id(), &customer, after, CARDS_MAX).await?;
    if !forgoes_refunds(&query)? {
        for card in &page.rows {
            charge::check_erase(&app, &caller, card.token).await?;
        }
    }
    let mut data = Vec::with_capacity(page.rows.len());
    for card in &page.rows {
        data.push(erase_one(&app, &caller, card.token).await?);
    }
    let all_gone = !page.more && data.iter().all(|erased| erased.status == CardStatus::Erased);
    let status = if all_gone { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(reply::json(status, &List { data, has_more: page.more }))
}

/// `GET /v1/erasures/{token}`: the certificate of an erasure, with what proves it.
pub(super) async fn certificate(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
) -> Result<Response, Problem> {
    let certificate = erasures::certificate(&app, caller.principal.tenant, path.token()?).await?;
    log::log_look(&app, &caller, "erasure", None).await?;
    Ok(reply::json(StatusCode::OK, &certificate))
}

fn forgoes_refunds(query: &Query) -> Result<bool, Problem> {
    Ok(query.parsed("forgo_refunds", |text| (text == "true").then_some(()))?.is_some())
}

async fn erase_one(app: &App, caller: &Caller, token: Token) -> Result<ErasedAnswer, Problem> {
    let erased = app.vault.erase(caller, token).await?;
    charge::wake(app, caller.tenant_id(), erased.token);
    app.important.notify_one();
    Ok(ErasedAnswer::of(erased, link(app, token).await?))
}

/// Where the certificate of an erasure is; none while the card waits, and of one that was erased before there were certificates.
pub(super) async fn link(app: &App, token: Token) -> Result<Option<String>, store::StoreError> {
    Ok(app.store.erasure(token).await?.map(|_| format!("/v1/erasures/{token}")))
}

impl From<NoCertificate> for Problem {
    fn from(why: NoCertificate) -> Self {
        match why {
            NoCertificate::Unknown => Self::of(Code::ErasureNotFound),
            NoCertificate::Pending => Self::of(Code::CheckpointPending),
            NoCertificate::Store(error) => error.into(),
            NoCertificate::Corrupt => store::StoreError::Corrupt("erasure").into(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct ErasedAnswer {
    #[serde(serialize_with = "display")]
    id: Token,
    status: CardStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(serialize_with = "display_some")]
    erased_at: Option<Time>,
    #[serde(serialize_with = "display_some")]
    scrubbed_at: Option<Time>,
    /// Said only of a card that waits: what keeps it should have ended by then.
    #[serde(serialize_with = "display_some", skip_serializing_if = "Option::is_none")]
    deadline: Option<Time>,
    /// Where its certificate is, once it is erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    erasure_certificate: Option<String>,
}

impl ErasedAnswer {
    fn of(erased: Erased, erasure_certificate: Option<String>) -> Self {
        let code = match erased.erasure {
            Erasure::Done => None,
            Erasure::Held => Some("legal_hold"),
            Erasure::Waiting => Some("erasing"),
            Erasure::Overdue => Some("erase_overdue"),
        };
        Self {
            id: erased.token,
            status: erased.status,
            code,
            erased_at: erased.erased_at,
            scrubbed_at: erased.scrubbed_at,
            deadline: erased.deadline,
            erasure_certificate,
        }
    }
}
