//! What a vault without its KEK answers: `/livez`, `/readyz` with the reason, and one refusal for everything else.

use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;

use super::code::Code;
use super::problem::Problem;
use super::{health, reply};
use crate::card::id::RequestId;
use crate::clock::{Clock, SystemClock};

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Why there is no KEK: one of a few words of ours.
#[derive(Clone, Debug)]
pub struct Reason(Arc<RwLock<String>>);

impl Reason {
    /// This word.
    pub fn new(word: String) -> Self {
        Self(Arc::new(RwLock::new(word)))
    }

    /// Another word from now on.
    pub fn set(&self, word: String) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = word;
    }

    fn word(&self) -> String {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Serialize)]
struct Sealed {
    ready: bool,
    sealed: String,
}

async fn readyz(State(reason): State<Reason>) -> Response {
    reply::json(StatusCode::SERVICE_UNAVAILABLE, &Sealed { ready: false, sealed: reason.word() })
}

async fn refuse() -> Response {
    let id = RequestId::make(SystemClock.now()).map_or_else(|_| String::new(), |id| id.to_string());
    let mut answer = Problem::of(Code::Sealed).write(&id);
    if let Ok(id) = HeaderValue::from_str(&id) {
        answer.headers_mut().insert(REQUEST_ID, id);
    }
    answer
}

/// The router of both listeners.
pub fn router(reason: &Reason) -> Router {
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(readyz))
        .fallback(refuse)
        .method_not_allowed_fallback(refuse)
        .with_state(reason.clone())
}
