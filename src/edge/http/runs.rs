//! `/v1/invoice_runs`: a stream of lines in, what became of them out.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use super::code::Code;
use super::export::{BrokenOff, Form as ListForm, Format, Lines, Piece, STALL_MAX};
use super::extract::{self, IdempotencyKey, OptionalBody, PathIds, Query, read_json};
use super::problem::Problem;
use super::reply;
use super::tokens::List;
use crate::card::id::RunId;
use crate::card::stray;
use crate::edge::App;
use crate::edge::charge::runs::lines::Form;
use crate::edge::charge::runs::show::{self, ResultAnswer, RunAnswer};
use crate::edge::charge::runs::{self, Chunks, Cut, Upload};
use crate::edge::directory::Caller;
use crate::edge::store::RunOptions;

/// What a run may be told.
pub(super) const CREATE_QUERY: &[&str] =
    &["lines", "sum", "validate_only", "retry_declined", "concurrency", "rate"];
/// What a list may ask for.
pub(super) const LIST_QUERY: &[&str] = &["limit", "starting_after"];
/// What a look at the lines may ask for.
pub(super) const RESULTS_QUERY: &[&str] = &["format", "from_line"];

const CONCURRENCY_DEFAULT: u16 = 64;
const CONCURRENCY_MAX: u16 = 2_000;
const RATE_MAX: u32 = 100_000;
const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 100;
/// Lines of an answer that are in memory at once, and as many again on their way.
const PAGE: usize = if cfg!(test) { 3 } else { 500 };

/// `POST /v1/invoice_runs`: takes a run in, and begins to charge it.
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    query: Query,
    request: Request,
) -> Result<Response, Problem> {
    let form = form_of(request.headers())?;
    let options = options_of(&query)?;
    let within = Duration::from_secs(app.limits.body_seconds_max);
    let mut body = Stream { body: request.into_body(), within };
    let taken = runs::upload(&app, &caller, Upload { key, options, form }, &mut body).await;
    let (run, replayed) = match taken {
        Ok(taken) => taken,
        Err(error) => {
            extract::discard(&mut body.body).await;
            return Err(error.into());
        }
    };
    let status = if run.state.is_over() { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    let mut response = reply::json(status, &RunAnswer::of(&app, &run));
    if let Ok(location) = HeaderValue::try_from(format!("/v1/invoice_runs/{}", run.id)) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(if replayed { reply::replayed(response) } else { response })
}

/// `GET /v1/invoice_runs`: lists runs, newest first.
pub(super) async fn list(State(app): State<App>, caller: Caller, query: Query) -> Result<Response, Problem> {
    let after = query.parsed("starting_after", RunId::parse)?;
    let page = show::runs(&app, &caller, after, query.limit(LIMIT_DEFAULT, LIMIT_MAX)?).await?;
    Ok(reply::json(StatusCode::OK, &List { data: page.rows, has_more: page.more }))
}

/// `GET /v1/invoice_runs/{id}`: shows how a run stands.
pub(super) async fn read(State(app): State<App>, caller: Caller, path: PathIds) -> Result<Response, Problem> {
    Ok(reply::json(StatusCode::OK, &show::run(&app, &caller, id_of(&path)?).await?))
}

/// `GET /v1/invoice_runs/{id}/results`: streams the lines and what became of them.
pub(super) async fn results(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = id_of(&path)?;
    let from = query.parsed("from_line", |text| text.parse::<u32>().ok().filter(|line| *line > 0))?;
    let form = match Format::of(&query, &headers)? {
        Format::Json => ListForm::Ndjson,
        Format::Lines(form) => form,
    };
    // What fails before the first line is a problem; later it can but break the answer off.
    show::run(&app, &caller, id).await?;
    let first = show::results(&app, &caller, id, from.unwrap_or(1), PAGE).await?;
    let (tell, told) = mpsc::channel(1);
    tokio::spawn(stream(app, caller, id, form, first, tell));
    Ok(form.answer(HttpBody::new(Lines(told)), false))
}

/// `POST /v1/invoice_runs/{id}/pause`, `…/resume` and `…/cancel`.
pub(super) fn verb(verb: runs::Verb) -> MethodRouter<App> {
    let tell = move |State(app): State<App>,
                     caller: Caller,
                     path: PathIds,
                     IdempotencyKey(key): IdempotencyKey,
                     body: OptionalBody| async move {
        nothing(&body)?;
        let told = runs::tell(&app, &caller, (id_of(&path)?, verb), (&key, &body.0)).await?;
        let response = reply::written(StatusCode::OK, told.body);
        Ok::<_, Problem>(if told.replayed { reply::replayed(response) } else { response })
    };
    on(MethodFilter::POST, tell)
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn nothing(OptionalBody(body): &OptionalBody) -> Result<(), Problem> {
    if !body.is_empty() {
        let Nothing {} = read_json(body)?;
    }
    Ok(())
}

fn id_of(path: &PathIds) -> Result<RunId, Problem> {
    RunId::parse(path.text("id")).ok_or_else(|| Problem::of(Code::RunNotFound))
}

fn form_of(headers: &HeaderMap) -> Result<Form, Problem> {
    let wrong = || Problem::of(Code::ContentType).detail("Send application/x-ndjson or text/csv, in UTF-8.");
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).ok_or_else(wrong)?;
    let mut parts = value.split(';').map(str::trim);
    let form = match parts.next().map(str::to_ascii_lowercase).as_deref() {
        Some("application/x-ndjson" | "application/ndjson") => Form::Ndjson,
        Some("text/csv") => Form::Csv,
        Some(_) | None => return Err(wrong()),
    };
    let fits = |part: &str| {
        let part = part.to_ascii_lowercase();
        part == "charset=utf-8" || part == "charset=\"utf-8\"" || part == "header=present"
    };
    if parts.all(fits) { Ok(form) } else { Err(wrong()) }
}

fn options_of(query: &Query) -> Result<RunOptions, Problem> {
    let flag = |name| {
        query.parsed(name, |word| match word {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        })
    };
    let missing = |name| Problem::about(Code::MissingField, name);
    if query.get("sum").is_some_and(stray::in_free_text) {
        return Err(Problem::about(Code::StrayNumber, "sum"));
    }
    let lines = query.parsed("lines", |text| text.parse().ok().filter(|lines| *lines > 0))?;
    let concurrency = |text: &str| text.parse().ok().filter(|n| (1..=CONCURRENCY_MAX).contains(n));
    Ok(RunOptions {
        lines: lines.ok_or_else(|| missing("lines"))?,
        sums: query.parsed("sum", sums_of)?.ok_or_else(|| missing("sum"))?,
        validate_only: flag("validate_only")?.unwrap_or(false),
        retry_declined: flag("retry_declined")?.unwrap_or(false),
        concurrency: query.parsed("concurrency", concurrency)?.unwrap_or(CONCURRENCY_DEFAULT),
        rate: query.parsed("rate", |text| text.parse().ok().filter(|n| (1..=RATE_MAX).contains(n)))?,
    })
}

/// `USD:123400,EUR:5`; each currency once.
fn sums_of(text: &str) -> Option<BTreeMap<String, i64>> {
    let mut sums = BTreeMap::new();
    for one in text.split(',') {
        let (currency, sum) = one.split_once(':')?;
        let is_currency = currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_uppercase());
        let sum = sum.parse::<i64>().ok().filter(|sum| *sum > 0 && is_currency)?;
        if sums.insert(currency.to_owned(), sum).is_some() {
            return None;
        }
    }
    Some(sums)
}

/// A request's body, a piece at a time. One that stands still for too long is as good as cut.
struct Stream {
    body: HttpBody,
    within: Duration,
}

impl Chunks for &mut Stream {
    type Chunk = Bytes;

    async fn next(&mut self) -> Result<Option<Bytes>, Cut> {
        loop {
            match tokio::time::timeout(self.within, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    // Trailers say nothing of the lines.
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Ok(None) => return Ok(None),
                Ok(Some(Err(_))) | Err(_) => return Err(Cut),
            }
        }
    }
}

async fn stream(
    app: App,
    caller: Caller,
    id: RunId,
    form: ListForm,
    mut page: Vec<ResultAnswer>,
    tell: mpsc::Sender<Piece>,
) {
    let mut piece = match form {
        ListForm::Ndjson => String::new(),
        ListForm::Csv => ResultAnswer::CSV_HEAD.to_owned(),
    };
    loop {
        piece.push_str(&form.write(page.iter(), |line| line.csv()));
        let taken = tokio::time::timeout(STALL_MAX, tell.send(Ok(std::mem::take(&mut piece)))).await;
        let Some(last) = page.last().map(ResultAnswer::number) else { return };
        if !matches!(taken, Ok(Ok(()))) || page.len() < PAGE {
            return;
        }
        page = match show::results(&app, &caller, id, last.saturating_add(1), PAGE).await {
            Ok(page) => page,
            Err(_) => {
                tracing::warn!(code = "export_broken_off", "results could not be read to their end");
                // If nobody listens any more, nobody misses it.
                drop(tell.send(Err(BrokenOff)).await);
                return;
            }
        };
    }
}
