//! What can go wrong with an exchange, in closed short words: nothing of a request or an answer is ever part of one.

use crate::card::id::AttemptId;
use crate::wire::forwarder::{Outcome, Sent};

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No such destination is loaded.
    Destination,
    /// More exchanges than may be under way.
    Busy,
    /// The process is about to end.
    Stopping,
    /// The request cannot be written as HTTP.
    Request,
    /// The host has no address.
    Dns,
    /// The host has an address that is not of the public internet, and is not allowed one.
    PrivateAddress,
    /// No address took the connection.
    Connect,
    /// No TLS: no common version, or a certificate that is not trusted, not valid now, or another host's.
    Tls,
    /// The destination's time is over.
    Timeout,
    /// The other side ended the connection before an answer's head.
    Closed,
    /// The other side broke the connection.
    Reset,
    /// The connection ended within an answer's body.
    Truncated,
    /// An answer over the limit.
    TooLarge,
    /// What came is not HTTP/1.
    Protocol,
    /// The answer sends us elsewhere; nobody goes there.
    Redirect,
    /// The answer's body is encoded, though we asked for none.
    Encoding,
    /// A request that had to go before it did not give what it should.
    Step,
    /// A fault of our own, caught.
    Internal,
}

impl Fault {
    /// Its word in outcomes.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Destination => "destination",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
            Self::Request => "request",
            Self::Dns => "dns",
            Self::PrivateAddress => "private_address",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Truncated => "truncated",
            Self::TooLarge => "too_large",
            Self::Protocol => "protocol",
            Self::Redirect => "redirect",
            Self::Encoding => "encoding",
            Self::Step => "step",
            Self::Internal => "internal",
        }
    }
}

/// An outcome without an answer.
pub(super) fn failed(attempt: AttemptId, sent: Sent, fault: Fault, upstream_us: u64) -> Outcome {
    Outcome {
        attempt,
        sent,
        answer: None,
        error: Some(fault.word().to_owned()),
        credentials_changed: false,
        card_update: None,
        upstream_us,
        forwarded: None,
    }
}
