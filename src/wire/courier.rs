//! What the edge asks of the courier: to post a body that holds no card to a host of the operator's list.

use serde::{Deserialize, Serialize};

/// A request. The courier picks the host from its own list; a host that is not on it is refused.
#[derive(Clone, Serialize, Deserialize)]
pub struct Post {
    /// Host name or address, in lower case.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Post").field("host", &self.host).finish_non_exhaustive()
    }
}

/// Seconds of a [`Posted::retry_after_seconds`] at most: the longest time that a schedule may have between two attempts.
pub const RETRY_AFTER_SECONDS_MAX: u32 = 172_800;

/// What became of it. Of the answer only its status and a wish to be left alone are told: its head and body are read and dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posted {
    /// HTTP status, if an answer came.
    pub status: Option<u16>,
    /// Our own word for what went wrong: `dns`, `private_address`, `connect`, `tls`, `timeout`, `redirect`, `host`, …
    pub error: Option<String>,
    /// From the first byte written to the end of the answer, in microseconds.
    pub micros: u64,
    /// For how long the receiver asks to be left alone (`Retry-After` of a 429 or 503).
    pub retry_after_seconds: Option<u32>,
}

impl Posted {
    /// Without an answer, for this reason.
    pub fn failed(word: &str) -> Self {
        Self { status: None, error: Some(word.to_owned()), micros: 0, retry_after_seconds: None }
    }
}
