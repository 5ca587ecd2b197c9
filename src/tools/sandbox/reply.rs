//! Answers, and what goes wrong with them on the way back.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, Sleep, sleep};

use super::faults::{Met, RetryAfter};
use super::ledger::Wire;
use super::numbers::Fault;
use super::way::Way;
use super::{adyen, authorize_net, worldpay};
use crate::clock::{Clock, SystemClock};

/// How much a huge answer holds, in chunks of 64 KiB.
const HUGE_CHUNKS: usize = 1024;
const DRIP: Duration = Duration::from_millis(250);
/// A connection that hangs is given up after so long.
pub(super) const HANG: Duration = Duration::from_secs(600);
/// Long enough for what was sent to leave before the connection breaks.
const BREAK: Duration = Duration::from_millis(50);

/// The connection is to be closed without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("dropped as the table asks")]
pub(super) struct Dropped;

/// The form in which an answer is written: a wire form, where that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The plain JSON form.
    Json,
    /// Stripe's JSON.
    Stripe,
    /// Adyen's JSON.
    Adyen,
    /// Authorize.Net's XML.
    AuthorizeNetXml,
    /// Authorize.Net's JSON, behind a byte order mark.
    AuthorizeNetJson,
    /// Worldpay's XML, with a DOCTYPE.
    Worldpay,
}

impl Form {
    /// The wire form that it belongs to.
    pub(super) const fn wire(self) -> Wire {
        match self {
            Self::Json => Wire::Json,
            Self::Stripe => Wire::Stripe,
            Self::Adyen => Wire::Adyen,
            Self::AuthorizeNetXml | Self::AuthorizeNetJson => Wire::AuthorizeNet,
            Self::Worldpay => Wire::Worldpay,
        }
    }

    /// The media type of its answers.
    const fn media_type(self) -> &'static str {
        match self {
            Self::Json | Self::Stripe => "application/json",
            Self::Adyen => "application/json;charset=utf-8",
            Self::AuthorizeNetXml => "application/xml; charset=utf-8",
            Self::AuthorizeNetJson => "application/json; charset=utf-8",
            Self::Worldpay => "text/xml;charset=UTF-8",
        }
    }
}

/// An answer as it should be.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) media_type: &'static str,
    pub(super) body: Vec<u8>,
    pub(super) replayed: bool,
}

impl Reply {
    /// An answer that holds this JSON.
    pub(super) fn json(status: StatusCode, body: &Value) -> Self {
        Self::of(status, body)
    }

    /// An answer that holds this, as JSON.
    pub(super) fn of(status: StatusCode, body: &impl serde::Serialize) -> Self {
        Self::text(Form::Json, status, serde_json::to_vec(body).unwrap_or_default())
    }

    /// An answer that holds this text, of a form's media type.
    pub(super) fn text(form: Form, status: StatusCode, body: Vec<u8>) -> Self {
        Self { status, media_type: form.media_type(), body, replayed: false }
    }

    /// The answer, with nothing wrong.
    pub(super) fn send(self) -> Response<Answer> {
        let replayed = self.replayed;
        let mut response = response(self.status, Answer::full(self.body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        if replayed {
            response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
        }
        response
    }

    /// The answer, or what becomes of it.
    pub(super) async fn send_with(
        self,
        met: Met,
        form: Form,
        number: Option<&str>,
        way: &Way,
    ) -> Result<Response<Answer>, Dropped> {
        Ok(match met.fault {
            Fault::None | Fault::Delay | Fault::Refuse => self.send(),
            Fault::Drop => return Err(Dropped),
            Fault::ResetBefore => {
                way.reset();
                return Err(Dropped);
            }
            Fault::Hang => {
                sleep(HANG).await;
                return Err(Dropped);
            }
            Fault::Error500 => Self { replayed: self.replayed, ..internal_error(form, None) }.send(),
            Fault::PanEcho500 => internal_error(form, number).send(),
            Fault::Garbage if met.at.is_none() => {
                response(StatusCode::OK, Answer::full(b"\x00\xff{\"id\":<html>[[[".to_vec()))
            }
            Fault::Reset | Fault::Stall | Fault::Truncate | Fault::Garbage | Fault::Duplicate => {
                way.harm(met.fault, met.at.unwrap_or(0));
                self.send()
            }
            Fault::PlainText => plain_text(),
            Fault::Empty => response(StatusCode::OK, Answer::full(Vec::new())),
            Fault::PanEcho => self.quoting(number.unwrap_or_default()),
            Fault::LengthLong => {
                let len = self.body.len() + 64;
                let mut broken = response(self.status, Answer::steps(vec![self.body], BREAK));
                broken.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(len));
                broken
            }
            Fault::LengthShort => {
                way.send_behind(forged(form, &self));
                self.send()
            }
            Fault::SlowDrip => {
                let bytes: Vec<Vec<u8>> = self.body.iter().map(|byte| vec![*byte]).collect();
                let len = self.body.len();
                let mut slow = response(self.status, Answer::steps(bytes, DRIP));
                slow.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(len));
                slow
            }
            Fault::Redirect => redirect(StatusCode::FOUND),
            Fault::Redirect307 => redirect(StatusCode::TEMPORARY_REDIRECT),
            Fault::Huge => response(self.status, Answer::Huge { left: HUGE_CHUNKS }),
            Fault::RateLimited => {
                let limited = error(form, StatusCode::TOO_MANY_REQUESTS, "rate_limit", "Too many requests.");
                let a_second = RetryAfter { seconds: 1, date: false };
                asking_to_wait(limited.send(), Some(met.retry_after.unwrap_or(a_second)))
            }
            Fault::Unauthorized => {
                error(form, StatusCode::UNAUTHORIZED, "invalid_credential", "The credential is not valid.")
                    .send()
            }
            Fault::Unavailable => {
                let (code, sentence) = ("unavailable", "The service is unavailable.");
                let gone = error(form, StatusCode::SERVICE_UNAVAILABLE, code, sentence);
                asking_to_wait(gone.send(), met.retry_after)
            }
        })
    }

    /// The answer with the card number in it, in several forms.
    fn quoting(self, number: &str) -> Response<Answer> {
        let grouped: Vec<&str> =
            number.as_bytes().chunks(4).filter_map(|group| std::str::from_utf8(group).ok()).collect();
        let quotes = [
            ("message", format!("Card {} was processed.", grouped.join(" "))),
            ("account_number", number.to_owned()),
            ("account_base64", data_encoding::BASE64.encode(number.as_bytes())),
            ("account_hex", data_encoding::HEXLOWER.encode(number.as_bytes())),
            ("trace", format!("card[number]={number};dashed={}", grouped.join("-"))),
        ];
        let text = self.body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&self.body);
        let mut body = match serde_json::from_slice::<Value>(text) {
            Ok(Value::Object(mut object)) => {
                object.extend(quotes.into_iter().map(|(name, quote)| (name.to_owned(), quote.into())));
                serde_json::to_vec(&object).unwrap_or_default()
            }
            Ok(_) | Err(_) => {
                // XML: as elements before the last end tag.
                let text = String::from_utf8_lossy(text);
                let (start, end) = text.split_at(text.rfind("</").unwrap_or(text.len()));
                let quotes = quotes.iter().map(|(name, quote)| format!("<{name}>{quote}</{name}>"));
                format!("{start}{}{end}", quotes.collect::<String>()).into_bytes()
            }
        };
        if self.body.starts_with(BYTE_ORDER_MARK) {
            body.splice(0..0, BYTE_ORDER_MARK.iter().copied());
        }
        let mut response = Self { body, ..self }.send();
        if let Ok(value) = HeaderValue::from_str(number) {
            response.headers_mut().insert("account-number", value);
        }
        response
    }
}

/// What Authorize.Net's JSON begins with.
pub(super) const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// What Worldpay answers now and then, with a status that looks like success.
fn plain_text() -> Response<Answer> {
    let mut plain = response(StatusCode::OK, Answer::full(b"Temporary Failure, please Retry".to_vec()));
    plain.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    plain
}

fn response(status: StatusCode, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn asking_to_wait(mut answer: Response<Answer>, wait: Option<RetryAfter>) -> Response<Answer> {
    let Some(RetryAfter { seconds, date }) = wait else { return answer };
    let until = Duration::from_micros(u64::try_from(SystemClock.now().micros).unwrap_or(0))
        + Duration::from_secs(seconds.into());
    let text = if date { httpdate::fmt_http_date(UNIX_EPOCH + until) } else { seconds.to_string() };
    if let Ok(value) = HeaderValue::from_str(&text) {
        answer.headers_mut().insert(RETRY_AFTER, value);
    }
    answer
}

fn redirect(status: StatusCode) -> Response<Answer> {
    let mut response = response(status, Answer::full(Vec::new()));
    response
        .headers_mut()
        .insert(LOCATION, HeaderValue::from_static("https://elsewhere.invalid/v1/payments"));
    response
}

/// A whole answer that nobody asked for: what a client that trusts left-over bytes would take for its next answer.
fn forged(form: Form, reply: &Reply) -> Vec<u8> {
    let body = match form {
        Form::Json | Form::Stripe => {
            br#"{"id":"pay_forged","status":"approved","amount":1,"amount_approved":1,"code":"approved"}"#
                .as_slice()
        }
        Form::Adyen | Form::AuthorizeNetXml | Form::AuthorizeNetJson | Form::Worldpay => &reply.body,
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n",
        reply.media_type,
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn internal_error(form: Form, number: Option<&str>) -> Reply {
    let message = number.map_or_else(
        || "An error occurred with our connection to the card network.".to_owned(),
        |number| format!("could not insert row ({number}, approved)"),
    );
    error(form, StatusCode::INTERNAL_SERVER_ERROR, "internal_error", &message)
}

/// An error in any form, outside what the card decides.
pub(super) fn error(form: Form, status: StatusCode, code: &str, message: &str) -> Reply {
    let body = match form {
        Form::Json => serde_json::json!({ "error": { "code": code, "message": message } }),
        Form::Stripe if status.is_server_error() => {
            serde_json::json!({ "error": { "type": "api_error", "message": message } })
        }
        Form::Stripe => {
            serde_json::json!({ "error": { "type": "invalid_request_error", "code": code, "message": message } })
        }
        Form::Adyen => return adyen::error(status, code, message),
        Form::AuthorizeNetXml | Form::AuthorizeNetJson => {
            return authorize_net::error(form, status, code, message);
        }
        Form::Worldpay => return worldpay::error(status, message),
    };
    Reply::json(status, &body)
}

/// A body: whole, in steps with pauses, or huge.
pub(super) enum Answer {
    /// All at once.
    Full(Option<Bytes>),
    /// One piece, a pause, the next; a last pause before the end.
    Steps {
        /// What is left, last piece first.
        pieces: Vec<Vec<u8>>,
        /// Between two pieces.
        pause: Duration,
        /// The pause that is on.
        timer: Pin<Box<Sleep>>,
    },
    /// 64 MiB of JSON text that never ends its string.
    Huge {
        /// Chunks.
        left: usize,
    },
}

impl Answer {
    /// All at once.
    pub(super) fn full(body: Vec<u8>) -> Self {
        Self::Full((!body.is_empty()).then(|| Bytes::from(body)))
    }

    fn steps(mut pieces: Vec<Vec<u8>>, pause: Duration) -> Self {
        pieces.reverse();
        Self::Steps { pieces, pause, timer: Box::pin(sleep(Duration::ZERO)) }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Steps { pieces, pause, timer } => {
                if timer.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                timer.as_mut().reset(Instant::now() + *pause);
                Poll::Ready(pieces.pop().map(|piece| Ok(Frame::data(Bytes::from(piece)))))
            }
            Self::Huge { left: 0 } => Poll::Ready(None),
            Self::Huge { left } => {
                let chunk = if *left == HUGE_CHUNKS {
                    [b"{\"message\":\"".as_slice(), &[b'a'; 65_536]].concat()
                } else {
                    vec![b'a'; 65_536]
                };
                *left -= 1;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from(chunk)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => {
                let len = bytes.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(len).unwrap_or(u64::MAX))
            }
            Self::Steps { .. } | Self::Huge { .. } => SizeHint::default(),
        }
    }
}

/// Asks for the connection to be closed after this answer.
pub(super) fn closing(mut response: Response<Answer>) -> Response<Answer> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
