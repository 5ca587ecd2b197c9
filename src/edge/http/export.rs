//! Lists of charges and refunds: a page as JSON, or all of them as lines of NDJSON or CSV, streamed a page of the store at a time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;

use super::extract::Query;
use super::problem::Problem;
use super::reply;
use super::tokens::List;
use crate::card::id::ChargeId;
use crate::edge::App;
use crate::edge::charge::answer::{ChargeAnswer, OperationAnswer};
use crate::edge::charge::{self, Error};
use crate::edge::directory::Caller;
use crate::edge::store::{ChargeFilter, ChargeRow, OperationKind, Page};

const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 100;
/// Lines of an export that names a limit; one that names none has no end but the list's.
const LINES_MAX: usize = 10_000;
/// Charges that an export holds in memory at once, and as many again on their way; few in tests, so that there are many pages.
const PAGE: usize = if cfg!(test) { 3 } else { 500 };
/// A reader that takes nothing for so long is gone.
pub(super) const STALL_MAX: Duration = Duration::from_mins(1);

/// Whether an export has more lines.
const HAS_MORE: HeaderName = HeaderName::from_static("vault-has-more");

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    /// Charges, newest first.
    Charges,
    /// Refunds, those of the newest charge first.
    Refunds,
}

/// What a list shall hold.
pub(super) struct Ask {
    pub(super) what: Listed,
    pub(super) filter: ChargeFilter,
    pub(super) after: Option<ChargeId>,
}

/// A list in the form that was asked for.
pub(super) async fn list(
    app: App,
    caller: Caller,
    (query, headers): (&Query, &HeaderMap),
    ask: Ask,
) -> Result<Response, Problem> {
    let what = ask.what;
    match Format::of(query, headers)? {
        Format::Json => {
            let page = ask.page(&app, &caller, query.limit(LIMIT_DEFAULT, LIMIT_MAX)?).await?;
            Ok(what.json(&page))
        }
        Format::Lines(form) if query.get("limit").is_some() => {
            let page = ask.page(&app, &caller, query.limit(LINES_MAX, LINES_MAX)?).await?;
            let body = what.head(form).to_owned() + &what.lines(form, &page.rows);
            Ok(form.answer(Body::from(body), page.more))
        }
        Format::Lines(form) => {
            // What fails before the first line is a problem; later it can but break the answer off.
            let first = ask.page(&app, &caller, PAGE).await?;
            let (tell, told) = mpsc::channel(1);
            tokio::spawn(stream(app, caller, form, ask, first, tell));
            Ok(form.answer(Body::new(Lines(told)), false))
        }
    }
}

impl Ask {
    async fn page(&self, app: &App, caller: &Caller, limit: usize) -> Result<Page<ChargeRow>, Error> {
        match self.what {
            Listed::Charges => charge::charges(app, caller, &self.filter, self.after, limit).await,
            Listed::Refunds => charge::refunds(app, caller, &self.filter, self.after, limit).await,
        }
    }
}

/// A page that was read, or the sign that the rest is missing.
pub(super) type Piece = Result<String, BrokenOff>;

/// The rest could not be read: the connection is closed without the end of the body, so that nobody takes it for the whole.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the export broke off")]
pub(super) struct BrokenOff;

async fn stream(
    app: App,
    caller: Caller,
    form: Form,
    mut ask: Ask,
    mut page: Page<ChargeRow>,
    tell: mpsc::Sender<Piece>,
) {
    let mut piece = ask.what.head(form).to_owned();
    loop {
        piece.push_str(&ask.what.lines(form, &page.rows));
        let taken = tokio::time::timeout(STALL_MAX, tell.send(Ok(std::mem::take(&mut piece)))).await;
        if !matches!(taken, Ok(Ok(()))) || !page.more {
            return;
        }
        ask.after = page.rows.last().map(|row| row.id).or(ask.after);
        page = match ask.page(&app, &caller, PAGE).await {
            Ok(page) => page,
            Err(_) => {
                tracing::warn!(code = "export_broken_off", "an export could not be read to its end");
                // If nobody listens any more, nobody misses it.
                drop(tell.send(Err(BrokenOff)).await);
                return;
            }
        };
    }
}

/// The body of an answer whose pages come one after the other.
pub(super) struct Lines(pub(super) mpsc::Receiver<Piece>);

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(|text| Frame::data(text.into()))))
    }
}

/// The form of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Lines(Form),
}

/// The form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Ndjson,
    Csv,
}

impl Format {
    /// `?format=` wins over `Accept`.
    pub(super) fn of(query: &Query, headers: &HeaderMap) -> Result<Self, Problem> {
        let named = query.parsed("format", |word| match word {
            "json" => Some(Self::Json),
            "ndjson" => Some(Self::Lines(Form::Ndjson)),
            "csv" => Some(Self::Lines(Form::Csv)),
            _ => None,
        })?;
        let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let accepted = accept.split([',', ';']).find_map(|kind| match kind.trim() {
            "application/json" => Some(Self::Json),
            "application/x-ndjson" | "application/ndjson" => Some(Self::Lines(Form::Ndjson)),
            "text/csv" => Some(Self::Lines(Form::Csv)),
            _ => None,
        });
        Ok(named.or(accepted).unwrap_or(Self::Json))
    }
}

impl Form {
    pub(super) fn answer(self, body: Body, has_more: bool) -> Response {
        let content_type = match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
        };
        let mut response = reply::text(content_type, body);
        let more = HeaderValue::from_static(if has_more { "true" } else { "false" });
        response.headers_mut().insert(HAS_MORE, more);
        response
    }

    pub(super) fn write<T: Serialize>(
        self,
        answers: impl Iterator<Item = T>,
        csv: fn(&T) -> String,
    ) -> String {
        match self {
            Self::Ndjson => answers
                .filter_map(|answer| serde_json::to_string(&answer).ok())
                .map(|line| line + "\n")
                .collect(),
            Self::Csv => answers.map(|answer| csv(&answer)).collect(),
        }
    }
}

impl Listed {
    fn json(self, page: &Page<ChargeRow>) -> Response {
        let has_more = page.more;
        match self {
            Self::Charges => {
                let data = page.rows.iter().map(ChargeAnswer::of).collect();
                reply::json(StatusCode::OK, &List { data, has_more })
            }
            Self::Refunds => {
                let data = refunds(&page.rows).collect();
                reply::json(StatusCode::OK, &List { data, has_more })
            }
        }
    }

    const fn head(self, form: Form) -> &'static str {
        match (form, self) {
            (Form::Ndjson, _) => "",
            (Form::Csv, Self::Charges) => ChargeAnswer::CSV_HEAD,
            (Form::Csv, Self::Refunds) => OperationAnswer::CSV_HEAD,
        }
    }

    fn lines(self, form: Form, rows: &[ChargeRow]) -> String {
        match self {
            Self::Charges => form.write(rows.iter().map(ChargeAnswer::of), ChargeAnswer::csv),
            Self::Refunds => form.write(refunds(rows), OperationAnswer::csv),
        }
    }
}

fn refunds(rows: &[ChargeRow]) -> impl Iterator<Item = OperationAnswer<'_>> {
    rows.iter().flat_map(|row| {
        let all = row.operations.iter().rev().filter(|o| o.kind == OperationKind::Refund);
        all.map(move |refund| OperationAnswer::of(row, refund))
    })
}
