//! `/v1/tokens`: a card's life over the API.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::code::Code;
use super::extract::{IdempotencyKey, PathIds, Query, RawBody};
use super::problem::Problem;
use super::reply;
use crate::card::brand::Brand;
use crate::card::id::{FingerprintId, Token};
use crate::card::range::{Country, Funding};
use crate::clock::Time;
use crate::edge::App;
use crate::edge::charge;
use crate::edge::directory::Caller;
use crate::edge::store::CardStatus;
use crate::edge::vault::Card;

/// What a list may ask for.
pub(super) const LIST_QUERY: &[&str] = &["customer", "limit", "starting_after"];
const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 100;
/// As long as a stored card's may be.
const CUSTOMER_CHARS_MAX: usize = 128;

/// `POST /v1/tokens`: stores a card and answers with its token.
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    RawBody(body): RawBody,
) -> Result<Response, Problem> {
    let created = app.vault.create(&caller, &key, &body).await?;
    if created.status == 200 && !created.replayed {
        // It may have brought a new expiry.
        charge::wake(&app, caller.tenant_id(), created.card.token);
    }
    let status = StatusCode::from_u16(created.status).unwrap_or(StatusCode::OK);
    let answer = reply::json(status, &Answer::of(&created.card, created.differs.as_deref()));
    Ok(if created.replayed { reply::replayed(answer) } else { answer })
}

/// `GET /v1/tokens/{token}`: shows a card, masked.
pub(super) async fn read(State(app): State<App>, caller: Caller, path: PathIds) -> Result<Response, Problem> {
    let card = app.vault.read(&caller, path.token()?).await?;
    Ok(reply::json(StatusCode::OK, &Answer::of(&card, None)))
}

/// `PATCH /v1/tokens/{token}`: changes a card in place.
pub(super) async fn update(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
    RawBody(body): RawBody,
) -> Result<Response, Problem> {
    let card = app.vault.update(&caller, path.token()?, &body).await?;
    charge::wake(&app, caller.tenant_id(), card.token);
    Ok(reply::json(StatusCode::OK, &Answer::of(&card, None)))
}

/// `GET /v1/tokens?customer=`: lists a customer's cards, newest first.
pub(super) async fn list(State(app): State<App>, caller: Caller, query: Query) -> Result<Response, Problem> {
    let customer = customer_of(&query)?;
    let after = query.parsed("starting_after", Token::parse)?;
    let limit = query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let page = app.vault.list(&caller, &customer, after, limit).await?;
    let data: Vec<_> = page.rows.iter().map(|card| Answer::of(card, None)).collect();
    Ok(reply::json(StatusCode::OK, &List { data, has_more: page.more }))
}

/// The customer that a query names.
pub(super) fn customer_of(query: &Query) -> Result<String, Problem> {
    let fits = |text: &str| (1..=CUSTOMER_CHARS_MAX).contains(&text.chars().count()).then(|| text.to_owned());
    query.parsed("customer", fits)?.ok_or_else(|| Problem::about(Code::MissingField, "customer"))
}

/// A page of a list.
#[derive(Serialize)]
pub(super) struct List<T> {
    pub(super) data: Vec<T>,
    pub(super) has_more: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(serialize_with = "display")]
    id: Token,
    card: CardAnswer<'a>,
    #[serde(serialize_with = "display")]
    fingerprint: FingerprintId,
    customer: Option<&'a str>,
    metadata: &'a BTreeMap<String, String>,
    version: u32,
    status: CardStatus,
    /// Said only of a card that is held.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    legal_hold: bool,
    #[serde(serialize_with = "display")]
    created_at: Time,
    #[serde(serialize_with = "display")]
    updated_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    differs: Option<&'a [&'static str]>,
}

#[derive(Serialize)]
struct CardAnswer<'a> {
    brand: Option<Brand>,
    first6: Option<&'a str>,
    last4: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    funding: Option<Funding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<&'a str>,
    exp_month: u8,
    exp_year: u16,
}

impl<'a> Answer<'a> {
    fn of(card: &'a Card, differs: Option<&'a [&'static str]>) -> Self {
        let shown = card.shown.as_ref();
        Self {
            id: card.token,
            card: CardAnswer {
                brand: shown.map(|shown| shown.brand),
                first6: shown.and_then(|shown| shown.first6.as_deref()),
                last4: shown.map(|shown| shown.last4.as_str()),
                funding: shown.and_then(|shown| shown.funding),
                country: shown.and_then(|shown| shown.country.as_ref()).map(Country::as_str),
                exp_month: card.expiry.month,
                exp_year: card.expiry.year,
            },
            fingerprint: card.fingerprint,
            customer: card.customer.as_deref(),
            metadata: &card.metadata,
            version: card.version,
            status: card.status,
            legal_hold: card.legal_hold,
            created_at: card.created_at,
            updated_at: card.updated_at,
            differs,
        }
    }
}

/// Writes ids and times as their text.
pub(super) fn display<S: serde::Serializer>(
    value: &impl std::fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// The same for what may be missing.
pub(super) fn display_some<S: serde::Serializer>(
    value: &Option<impl std::fmt::Display>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}
