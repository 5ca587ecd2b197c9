//! `/v1/tokens/{token}/legal_hold`: legal holds of a card, each with a reference of the caller's, or one without.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::code::Code;
use super::erasures;
use super::extract::{OptionalBody, PathIds, Query, looks_like_a_card, read_json};
use super::problem::Problem;
use super::reply;
use super::tokens::{display, display_some};
use crate::card::id::Token;
use crate::clock::Time;
use crate::edge::App;
use crate::edge::charge;
use crate::edge::directory::Caller;
use crate::edge::store::{CardStatus, LegalHold};

/// What a release may say.
pub(super) const RELEASE_QUERY: &[&str] = &["reference"];
const REFERENCE_BYTES_MAX: usize = 64;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct HoldBody {
    reference: Option<String>,
}

/// `PUT /v1/tokens/{token}/legal_hold`: sets a legal hold.
pub(super) async fn hold(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
    OptionalBody(body): OptionalBody,
) -> Result<Response, Problem> {
    let asked = if body.is_empty() { HoldBody::default() } else { read_json(&body)? };
    let reference = match asked.reference {
        None => String::new(),
        Some(text) if looks_like_a_card(&text) => return Err(Problem::about(Code::StrayNumber, "reference")),
        Some(text) if is_reference(&text) => text,
        Some(_) => return Err(Problem::about(Code::InvalidValue, "reference")),
    };
    set_legal_hold(&app, &caller, path.token()?, true, &reference).await
}

/// `DELETE /v1/tokens/{token}/legal_hold`: releases it; a card whose erase was asked for is erased once no other holds it.
pub(super) async fn release(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
    query: Query,
) -> Result<Response, Problem> {
    if app.directory.needs_two_persons() {
        return Err(Problem::of(Code::TwoPersonsRequired));
    }
    let reference = query.parsed("reference", |text| is_reference(text).then(|| text.to_owned()))?;
    set_legal_hold(&app, &caller, path.token()?, false, &reference.unwrap_or_default()).await
}

/// Letters, digits and a few signs: an identifier, no text.
fn is_reference(text: &str) -> bool {
    (1..=REFERENCE_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:".contains(&b))
}

async fn set_legal_hold(
    app: &App,
    caller: &Caller,
    token: Token,
    held: bool,
    reference: &str,
) -> Result<Response, Problem> {
    let hold = app.vault.set_legal_hold(caller, token, held, reference).await?;
    app.important.notify_one();
    charge::wake(app, caller.tenant_id(), hold.token);
    let body = HoldAnswer {
        id: hold.token,
        legal_hold: hold.held,
        holds: hold.holds.iter().map(HoldOf::of).collect(),
        status: hold.status,
        erase_asked: hold.erase_asked,
        erased_at: hold.erased_at,
        scrubbed_at: hold.scrubbed_at,
        erasure_certificate: erasures::link(app, token).await?,
    };
    Ok(reply::json(StatusCode::OK, &body))
}

#[derive(Serialize)]
struct HoldAnswer<'a> {
    #[serde(serialize_with = "display")]
    id: Token,
    legal_hold: bool,
    holds: Vec<HoldOf<'a>>,
    status: CardStatus,
    erase_asked: bool,
    #[serde(serialize_with = "display_some")]
    erased_at: Option<Time>,
    #[serde(serialize_with = "display_some")]
    scrubbed_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    erasure_certificate: Option<String>,
}

/// A hold, without a reference where it has none.
#[derive(Serialize)]
struct HoldOf<'a> {
    reference: Option<&'a str>,
    #[serde(serialize_with = "display_some")]
    since: Option<Time>,
}

impl<'a> HoldOf<'a> {
    fn of(hold: &'a LegalHold) -> Self {
        let reference = hold.reference.as_str();
        Self { reference: (!reference.is_empty()).then_some(reference), since: hold.since }
    }
}
