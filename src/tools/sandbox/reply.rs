//! Answers, and what goes wrong with them on the way back.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, Sleep, sleep};

use super::ledger::Wire;
use super::numbers::Fault;

/// How much a huge answer holds, in chunks of 64 KiB.
const HUGE_CHUNKS: usize = 1024;
const DRIP: Duration = Duration::from_millis(250);
/// A connection that hangs is given up after so long.
const HANG: Duration = Duration::from_secs(600);
/// Long enough for what was sent to leave before the connection breaks.
const BREAK: Duration = Duration::from_millis(50);

/// The connection is to be closed without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("dropped as the table asks")]
pub(super) struct Dropped;

/// Bytes to send on a connection behind the answer that is on its way.
pub(super) type Tail = Arc<Mutex<Option<Vec<u8>>>>;

/// An answer as it should be.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
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
        Self { status, body: serde_json::to_vec(body).unwrap_or_default(), replayed: false }
    }

    /// The answer, with nothing wrong.
    pub(super) fn send(self) -> Response<Answer> {
        let replayed = self.replayed;
        let mut response = response(self.status, Answer::full(self.body));
        if replayed {
            response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
        }
        response
    }

    /// The answer, or what becomes of it.
    pub(super) async fn send_with(
        self,
        fault: Fault,
        wire: Wire,
        number: Option<&str>,
        tail: &Tail,
    ) -> Result<Response<Answer>, Dropped> {
        Ok(match fault {
            Fault::None | Fault::Delay => self.send(),
            Fault::Drop => return Err(Dropped),
            Fault::Hang => {
                sleep(HANG).await;
                return Err(Dropped);
            }
            Fault::Error500 => Self { replayed: self.replayed, ..internal_error(wire, None) }.send(),
            Fault::PanEcho500 => internal_error(wire, number).send(),
            Fault::Garbage => response(StatusCode::OK, Answer::full(b"\x00\xff{\"id\":<html>[[[".to_vec())),
            Fault::Empty => response(StatusCode::OK, Answer::full(Vec::new())),
            Fault::PanEcho => self.quoting(number.unwrap_or_default()),
            Fault::LengthLong => {
                let len = self.body.len() + 64;
                let mut broken = response(self.status, Answer::steps(vec![self.body], BREAK));
                broken.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(len));
                broken
            }
            Fault::LengthShort => {
                *tail.lock().unwrap_or_else(PoisonError::into_inner) = Some(forged());
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
                let mut limited =
                    error(wire, StatusCode::TOO_MANY_REQUESTS, "rate_limit", "Too many requests.").send();
                limited.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                limited
            }
            Fault::Unauthorized => {
                error(wire, StatusCode::UNAUTHORIZED, "invalid_credential", "The credential is not valid.")
                    .send()
            }
            Fault::Unavailable => {
                error(wire, StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The service is unavailable.")
                    .send()
            }
        })
    }

    /// The answer with the card number in it, in several forms.
    fn quoting(self, number: &str) -> Response<Answer> {
        let mut body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let grouped: Vec<&str> =
            number.as_bytes().chunks(4).filter_map(|group| std::str::from_utf8(group).ok()).collect();
        if let Some(object) = body.as_object_mut() {
            object.insert("message".into(), format!("Card {} was processed.", grouped.join(" ")).into());
            object.insert("account_number".into(), number.into());
            object.insert("account_base64".into(), data_encoding::BASE64.encode(number.as_bytes()).into());
            object.insert("account_hex".into(), data_encoding::HEXLOWER.encode(number.as_bytes()).into());
            object
                .insert("trace".into(), format!("card[number]={number}&dashed={}", grouped.join("-")).into());
        }
        let quoting = Self { body: serde_json::to_vec(&body).unwrap_or_default(), ..self };
        let mut response = quoting.send();
        if let Ok(value) = HeaderValue::from_str(number) {
            response.headers_mut().insert("account-number", value);
        }
        response
    }
}

fn response(status: StatusCode, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn redirect(status: StatusCode) -> Response<Answer> {
    let mut response = response(status, Answer::full(Vec::new()));
    response
        .headers_mut()
        .insert(LOCATION, HeaderValue::from_static("https://elsewhere.invalid/v1/payments"));
    response
}

/// A whole answer that nobody asked for: what a client that trusts left-over bytes would take for its next answer.
fn forged() -> Vec<u8> {
    let body = r#"{"id":"pay_forged","status":"approved","amount":1,"amount_approved":1,"code":"approved"}"#;
    let len = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}")
        .into_bytes()
}

fn internal_error(wire: Wire, number: Option<&str>) -> Reply {
    let message = number.map_or_else(
        || "An error occurred with our connection to the card network.".to_owned(),
        |number| format!("could not insert row ({number}, approved)"),
    );
    error(wire, StatusCode::INTERNAL_SERVER_ERROR, "internal_error", &message)
}

/// An error in either wire form, outside what the card decides.
pub(super) fn error(wire: Wire, status: StatusCode, code: &str, message: &str) -> Reply {
    let body = match wire {
        Wire::Json => serde_json::json!({ "error": { "code": code, "message": message } }),
        Wire::Stripe if status.is_server_error() => {
            serde_json::json!({ "error": { "type": "api_error", "message": message } })
        }
        Wire::Stripe => {
            serde_json::json!({ "error": { "type": "invalid_request_error", "code": code, "message": message } })
        }
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
