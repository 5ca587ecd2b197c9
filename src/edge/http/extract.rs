//! What a handler takes from a request. No stock extractor is used: theirs quote what they could not read, these answer with fixed
//! sentences (a number sent in the wrong place must not come back).

use std::time::Duration;

use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::code::Code;
use super::problem::Problem;
use crate::card::id::{AgreementId, EventId, Token};
use crate::card::stray;
use crate::edge::App;
use crate::edge::directory::Caller;
use crate::object::Object;

/// The header of idempotency keys.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
const PARAMETER_BYTES_MAX: usize = 512;
/// Processors repeat much of a payment in what they tell of it.
const WEBHOOK_BYTES_MAX: usize = 64 << 10;
const DISCARD_BYTES_MAX: usize = 1 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(2);

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    /// Who calls, as the guard found out; a route without a scope has no caller.
    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Problem::of(Code::Unauthenticated))
    }
}

/// The caller's key: 1 to 255 visible ASCII characters, required on POST.
#[derive(Clone, Debug)]
pub struct IdempotencyKey(pub String);

impl FromRequestParts<App> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let tenant = parts.extensions.get::<Caller>().and_then(|caller| caller.principal.tenant);
        let exempt = |key: &str| app.directory.is_exempt(tenant, "idempotency_key", key);
        idempotency_key(&parts.headers, exempt).map(Self)
    }
}

fn idempotency_key(headers: &HeaderMap, exempt: impl Fn(&str) -> bool) -> Result<String, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let value =
        values.next().ok_or_else(|| Problem::about(Code::IdempotencyKeyMissing, "Idempotency-Key"))?;
    let invalid = || Problem::about(Code::IdempotencyKeyInvalid, "Idempotency-Key");
    if values.next().is_some() {
        return Err(invalid());
    }
    let bytes = value.as_bytes();
    if !(1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&bytes.len()) || !bytes.iter().all(u8::is_ascii_graphic) {
        return Err(invalid());
    }
    let text = value.to_str().map_err(|_| invalid())?;
    if looks_like_a_card(text) && !exempt(text) {
        return Err(Problem::about(Code::StrayNumber, "Idempotency-Key"));
    }
    Ok(text.to_owned())
}

/// The bytes of a JSON body, unread: what may hold a card goes to the keeper like this.
#[derive(Debug)]
pub struct RawBody(pub Bytes);

impl FromRequest<App> for RawBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        if !is_json(&parts.headers) {
            return Err(Problem::of(Code::ContentType));
        }
        read_body(&parts.headers, body, app, app.limits.body_bytes_max).await.map(Self)
    }
}

/// A processor's webhook: headers and bytes, in whatever form it writes them.
#[derive(Debug)]
pub struct WebhookBody(pub HeaderMap, pub Bytes);

impl FromRequest<App> for WebhookBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read_body(&parts.headers, body, app, WEBHOOK_BYTES_MAX).await?;
        Ok(Self(parts.headers, bytes))
    }
}

/// A body that may be empty; without one, no content type is asked for.
#[derive(Debug)]
pub struct OptionalBody(pub Bytes);

impl FromRequest<App> for OptionalBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read_body(&parts.headers, body, app, app.limits.body_bytes_max).await?;
        if !bytes.is_empty() && !is_json(&parts.headers) {
            return Err(Problem::of(Code::ContentType));
        }
        Ok(Self(bytes))
    }
}

/// A JSON body that holds no card, read into `T`. The bytes are kept for the keeper's hash of them.
#[derive(Debug)]
pub struct Body<T> {
    /// What it says.
    pub value: T,
    /// As it came.
    pub bytes: Bytes,
}

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let RawBody(bytes) = RawBody::from_request(request, app).await?;
        Ok(Self { value: read_json(&bytes)?, bytes })
    }
}

/// Reads JSON into `T`; the problem says what kind of fault it is and, where the name is ours, which field.
pub fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice::<Object<T>>(bytes).map(|object| object.0).map_err(|error| {
        match error.classify() {
            serde_json::error::Category::Io
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof => Problem::of(Code::MalformedJson),
            serde_json::error::Category::Data => data_problem(&error.to_string()),
        }
    })
}

/// serde's message begins with the kind of fault. Only names that the type itself has (missing, twice) are taken from it: they are ours.
fn data_problem(message: &str) -> Problem {
    let our_name = || message.split('`').nth(1).unwrap_or_default().to_owned();
    if message.starts_with("missing field `") {
        Problem::about(Code::MissingField, our_name())
    } else if message.starts_with("duplicate field `") {
        Problem::about(Code::DuplicateField, our_name())
    } else if message.starts_with("unknown field `") {
        Problem::of(Code::UnknownField)
    } else if message.starts_with("invalid type: ") {
        Problem::of(Code::WrongType)
    } else {
        Problem::of(Code::InvalidValue)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(CONTENT_TYPE).map(|v| v.to_str()) else { return false };
    if value == "application/json" {
        return true;
    }
    let mut parts = value.split(';').map(str::trim);
    parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"))
        && parts.all(|part| {
            part.eq_ignore_ascii_case("charset=utf-8") || part.eq_ignore_ascii_case("charset=\"utf-8\"")
        })
}

async fn read_body(
    headers: &HeaderMap,
    mut body: HttpBody,
    app: &App,
    bytes_max: usize,
) -> Result<Bytes, Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|n| n > u64::try_from(bytes_max).unwrap_or(u64::MAX)) {
        discard(&mut body).await;
        return Err(Problem::of(Code::BodyTooLarge));
    }
    let within = Duration::from_secs(app.limits.body_seconds_max);
    match tokio::time::timeout(within, Limited::new(&mut body, bytes_max).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            discard(&mut body).await;
            Err(Problem::of(Code::BodyTooLarge))
        }
        Ok(Err(_)) => Err(Problem::of(Code::BodyTimeout)),
        Err(_) => Err(Problem::of(Code::BodyTimeout)),
    }
}

/// Reads some of what is too much: a connection that is closed on unread bytes is reset, and the answer with it.
pub(super) async fn discard(body: &mut HttpBody) {
    let mut left = DISCARD_BYTES_MAX;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    // Whoever sends more, or more slowly, may lose the answer.
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}

/// The ids in a path, by the names that the route gives them.
#[derive(Debug)]
pub struct PathIds(RawPathParams);

impl FromRequestParts<App> for PathIds {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let raw = RawPathParams::from_request_parts(parts, app).await;
        raw.map(Self).map_err(|_| Problem::of(Code::RouteUnknown))
    }
}

impl PathIds {
    /// The segment of that name, as it came; empty if the route has none.
    pub fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    /// The token of the path. What is no token is an unknown token.
    pub fn token(&self) -> Result<Token, Problem> {
        Token::parse(self.text("token")).ok_or_else(|| Problem::of(Code::TokenNotFound))
    }

    /// The agreement of the path.
    pub fn agreement(&self) -> Result<AgreementId, Problem> {
        AgreementId::parse(self.text("agreement")).ok_or_else(|| Problem::of(Code::AgreementNotFound))
    }

    /// The event of the path.
    pub fn event(&self) -> Result<EventId, Problem> {
        EventId::parse(self.text("event")).ok_or_else(|| Problem::of(Code::NotFound))
    }
}

/// The query parameters, each one of those that the route's row in the table lists, each at most once.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(&'static str, String)>);

impl FromRequestParts<App> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

impl Query {
    /// Reads a query string; names that are not in `allowed`, names twice, and values that look like cards and are not exempt are
    /// refused.
    pub(super) fn read(
        query: &str,
        allowed: &'static [&'static str],
        exempt: impl Fn(&str, &str) -> bool,
    ) -> Result<Self, Problem> {
        let mut read = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let known = allowed.iter().find(|a| **a == name);
            let name = *known.ok_or_else(|| Problem::of(Code::UnknownParameter))?;
            let invalid = value.len() > PARAMETER_BYTES_MAX || value.contains('\u{fffd}');
            if invalid || read.iter().any(|(n, _)| *n == name) {
                return Err(Problem::about(Code::InvalidParameter, name));
            }
            if looks_like_a_card(&value) && !exempt(name, &value) {
                return Err(Problem::about(Code::StrayNumber, name));
            }
            read.push((name, value.into_owned()));
        }
        Ok(Self(read))
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
    }

    /// A parameter read by `read`; what cannot be read is a problem that names it.
    pub fn parsed<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let problem = || Problem::about(Code::InvalidParameter, name);
        self.get(name).map(|value| read(value).ok_or_else(problem)).transpose()
    }

    /// `limit`: 1 to `max`, `default` if it is not there.
    pub fn limit(&self, default: usize, max: usize) -> Result<usize, Problem> {
        let read = |value: &str| value.parse().ok().filter(|n| (1..=max).contains(n));
        Ok(self.parsed("limit", read)?.unwrap_or(default))
    }
}

/// Whether a typed identifier looks like a card number; the short way out is for everything with a letter in it.
pub fn looks_like_a_card(text: &str) -> bool {
    text.len() >= 12
        && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b' ' | b'-'))
        && stray::is_identifier(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[expect(dead_code, reason = "only its reading matters")]
        name: String,
        #[expect(dead_code, reason = "only its reading matters")]
        kind: Kind,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Small,
    }

    fn quoted(problem: &Problem, body: &str) -> bool {
        let text = format!("{problem:?}");
        let digits: Vec<char> = body.chars().filter(char::is_ascii_digit).collect();
        digits.windows(6).any(|six| text.contains(&six.iter().collect::<String>()))
    }

    #[test]
    fn each_fault_of_a_body_has_its_code_and_none_is_quoted() {
        for (body, code) in [
            ("{\"name\":\"a\"", Code::MalformedJson),
            ("{\"name\":\"a\",\"kind\":\"small\"} x", Code::MalformedJson),
            ("{\"kind\":\"small\"}", Code::MissingField),
            ("{\"name\":\"a\",\"name\":\"4242424242424242\",\"kind\":\"small\"}", Code::DuplicateField),
            ("{\"4242424242424242\":1}", Code::UnknownField),
            ("{\"name\":4242424242424242,\"kind\":\"small\"}", Code::WrongType),
            ("{\"name\":\"a\",\"kind\":\"4242424242424242\"}", Code::InvalidValue),
        ] {
            let problem = read_json::<Sample>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.code(), code);
            assert!(!quoted(&problem, body));
        }
        assert!(read_json::<Sample>(b"{\"name\":\"a\",\"kind\":\"small\"}").is_ok());
    }

    proptest! {
        #[test]
        fn no_body_is_ever_quoted(digits in "[0-9]{12,19}", shape in 0..6_u8) {
            let body = match shape {
                0 => format!("{{\"{digits}\":1}}"),
                1 => format!("{{\"name\":{digits}}}"),
                2 => format!("{{\"name\":\"a\",\"kind\":\"{digits}\"}}"),
                3 => format!("[{digits}]"),
                4 => digits.clone(),
                _ => format!("{{\"name\":\"missing field `{digits}`\",\"kind\":\"unknown field `{digits}`\"}}"),
            };
            let problem = read_json::<Sample>(body.as_bytes()).unwrap_err();
            prop_assert!(!quoted(&problem, &body));
        }

        #[test]
        fn no_query_is_ever_quoted(digits in "[0-9]{12,19}") {
            for query in [format!("{digits}=1"), format!("limit={digits}&limit=1"), format!("x={digits}")] {
                let problem = Query::read(&query, &["limit"], |_, _| false).unwrap_err();
                prop_assert!(!quoted(&problem, &query));
            }
        }
    }

    #[test]
    fn a_key_is_visible_ascii_and_no_card_number() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(IDEMPOTENCY_KEY, value.parse().unwrap());
            idempotency_key(&headers, |key| key == "5555555555554444").map_err(|problem| problem.code())
        };
        assert_eq!(read("inv-1:a"), Ok("inv-1:a".to_owned()));
        assert_eq!(read(""), Err(Code::IdempotencyKeyInvalid));
        assert_eq!(read("a b"), Err(Code::IdempotencyKeyInvalid));
        assert_eq!(read(&"k".repeat(256)), Err(Code::IdempotencyKeyInvalid));
        assert_eq!(read("4242-4242-4242-4242"), Err(Code::StrayNumber));
        assert_eq!(read("5555555555554444"), Ok("5555555555554444".to_owned()));
        let none = idempotency_key(&HeaderMap::new(), |_| false).map_err(|problem| problem.code());
        assert_eq!(none, Err(Code::IdempotencyKeyMissing));
    }

    #[test]
    fn a_query_takes_known_names_once() {
        let allowed: &'static [&'static str] = &["customer", "created[gte]"];
        let query = Query::read("customer=c%201&created%5Bgte%5D=2026", allowed, |_, _| false).unwrap();
        assert_eq!(query.get("customer"), Some("c 1"));
        assert_eq!(query.get("created[gte]"), Some("2026"));
        let code = |text| Query::read(text, allowed, |_, _| false).unwrap_err().code();
        assert_eq!(code("customer=a&customer=b"), Code::InvalidParameter);
        assert_eq!(code("other=a"), Code::UnknownParameter);
        assert_eq!(code("customer=%FF"), Code::InvalidParameter);
        assert_eq!(code("customer=4242424242424242"), Code::StrayNumber);
    }
}
