//! Forwards: a caller's own request, checked against what its destination declares, and filled leaf by leaf.
//!
//! ```text
//! spec (what a destination takes) ─┐
//! the caller's JSON ─► request ────┴─► checked ─► fill (card, credentials) ─► a request, written by a serializer
//!                        └─► body: json | form | xml, a tree of leaves     └─► masked, for a dry run
//! ```
//! - [`spec`]: methods, paths, headers and leaves that a destination declares; everything else is refused.
//! - [`placeholder`]: `{{ card.number }}` in a leaf; [`pattern`]: which leaf or path is meant.
//! - [`body`], [`json`], `xml`: a body as a tree; text is never pasted into text.
//! - [`request`]: reading, checking and filling.
//!
//! It is pure: no file, no network, no clock, nothing printed, and no error carries what the caller sent.
//! Invariant: a value never changes the shape of a request (`no_value_changes_the_shape_of_a_body`).

pub mod body;
pub mod json;
pub mod pattern;
pub mod placeholder;
pub mod request;
pub mod spec;
#[cfg(test)]
mod tests;
mod xml;

/// Why a forward is refused, and which part of the request it is about, by our name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {why}")]
pub struct Refused {
    /// What is wrong.
    pub why: Why,
    /// `method`, `path`, `query`, `headers`, `body`, `body_form`, `body_xml`.
    pub at: &'static str,
}

/// What is wrong with a part of a forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The destination does not declare it.
    #[error("the destination does not declare it")]
    NotDeclared,
    /// There is no such placeholder or filter, or its braces are not closed.
    #[error("there is no such placeholder")]
    PlaceholderUnknown,
    /// A placeholder where the destination takes none.
    #[error("no placeholder may stand here")]
    PlaceholderMisplaced,
    /// A credential of the caller's own.
    #[error("a credential of the caller's own")]
    Credential,
    /// What could be a card number.
    #[error("it may not hold a card number")]
    StrayNumber,
    /// What says that it is a card verification code.
    #[error("it may not hold a card verification code")]
    VerificationCode,
    /// Not well-formed, or with what is not taken (a document type, a name twice, too deep).
    #[error("it is not well-formed")]
    Malformed,
    /// A name twice in one object.
    #[error("a name stands there twice")]
    Duplicate,
    /// More than one body, or one where the method has none.
    #[error("the body does not fit")]
    Unfit,
    /// Over the destination's limit.
    #[error("it is over the destination's limit")]
    TooLarge,
    /// A placeholder has no value for this card, or a leaf that the keeper fills is not there.
    #[error("there is nothing to fill it with")]
    Missing,
}

impl Why {
    /// A refusal about a part of the request.
    pub const fn at(self, at: &'static str) -> Refused {
        Refused { why: self, at }
    }
}
