//! What a forward destination declares: where a caller may send what, where the card may stand, what the keeper fills in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::body::Encoding;
use super::pattern::{Pattern, key_of_names};

/// Bytes of a request's body that are sent, unless the destination says otherwise; the most there may be.
const BODY_BYTES: (u32, u32) = (64 << 10, 256 << 10);
/// Bytes of an answer's body that are read, unless the destination says otherwise; the most there may be.
const ANSWER_BYTES: (u32, u32) = (64 << 10, 256 << 10);
/// Seconds that an exchange may take, unless the destination says otherwise; the most there may be.
const SECONDS: (u64, u64) = (30, 120);

/// Headers that no caller sets: those of the connection, those that say who asks, and those that the body decides.
const NEVER: [&str; 18] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];
/// Of them, those with which somebody says who asks.
const CREDENTIALS: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "set-cookie"];

/// What a destination declares. Everything that it does not declare is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardSpec {
    /// `GET`, `POST`, `PUT`, `PATCH`, `DELETE`.
    pub methods: Vec<String>,
    /// Patterns of paths below the endpoint; `*` is one segment.
    pub paths: Vec<String>,
    /// Parameters of the query that a caller may set; no placeholder ever stands in one.
    #[serde(default)]
    pub query: Vec<String>,
    /// How a body may be written.
    #[serde(default = "default_bodies")]
    pub bodies: Vec<Encoding>,
    /// The content type of a body, if otherwise than its encoding says.
    #[serde(default)]
    pub content_type: Option<String>,
    /// Headers that a caller may set.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Headers that may hold placeholders as well.
    #[serde(default)]
    pub card_headers: Vec<String>,
    /// Patterns of leaves that a caller may set.
    #[serde(default)]
    pub leaves: Vec<String>,
    /// Patterns of leaves that may hold placeholders as well.
    #[serde(default)]
    pub card_leaves: Vec<String>,
    /// Patterns of leaves that are numbers in JSON where they are nothing but a placeholder.
    #[serde(default)]
    pub numbers: Vec<String>,
    /// Where the keeper puts each credential.
    #[serde(default)]
    pub credentials: BTreeMap<String, Place>,
    /// Headers of the answer that go back.
    #[serde(default)]
    pub answer_headers: Vec<String>,
    /// Patterns of leaves of an answer in which a number that could be a card's is none. This card's number is redacted there too.
    #[serde(default)]
    pub exempt: Vec<String>,
    /// Bytes of a request's body.
    #[serde(default = "default_body_bytes")]
    pub body_bytes_max: u32,
    /// Bytes of an answer's body.
    #[serde(default = "default_answer_bytes")]
    pub answer_bytes_max: u32,
    /// Seconds that an exchange may take.
    #[serde(default = "default_seconds")]
    pub timeout_s: u64,
}

const fn default_body_bytes() -> u32 {
    BODY_BYTES.0
}

const fn default_answer_bytes() -> u32 {
    ANSWER_BYTES.0
}

const fn default_seconds() -> u64 {
    SECONDS.0
}

fn default_bodies() -> Vec<Encoding> {
    vec![Encoding::Json]
}

/// Where a credential goes: a header or a leaf, with a word in front of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Place {
    /// The header.
    pub header: Option<String>,
    /// The leaf, without `*`.
    pub leaf: Option<String>,
    /// What stands before the credential, such as `Bearer ` with its blank.
    pub prefix: String,
}

impl ForwardSpec {
    /// Everything that is wrong with it, each with what to write instead.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |wrong: bool, sentence: &str| {
            if wrong {
                faults.push(sentence.to_owned());
            }
        };
        let methods = ["GET", "POST", "PUT", "PATCH", "DELETE"];
        fault(
            self.methods.is_empty() || !self.methods.iter().all(|method| methods.contains(&method.as_str())),
            "methods: name one or more of GET, POST, PUT, PATCH, DELETE",
        );
        fault(
            self.paths.is_empty() || self.paths.iter().any(|path| Pattern::path(path).is_none()),
            "paths: name one or more, such as \"/v1/cards/*\"; each begins with a slash and has no empty segment",
        );
        fault(self.bodies.is_empty(), "bodies: name one or more of json, form, xml");
        let all = [&self.leaves, &self.card_leaves, &self.numbers, &self.exempt];
        fault(
            all.into_iter().flatten().any(|leaf| Pattern::leaf(leaf).is_none()),
            "leaves, card_leaves, numbers, exempt: write names with dots between, such as \"payment.card.*\"",
        );
        let settable: Vec<&String> = self.headers.iter().chain(&self.card_headers).collect();
        fault(
            settable.iter().any(|name| !is_header_name(name) || is_never_callers(name)),
            "headers, card_headers: lower-case names; a caller never sets credentials, cookies or what the connection and the body decide",
        );
        fault(
            self.answer_headers.iter().any(|name| !is_header_name(name) || name == "set-cookie"),
            "answer_headers: lower-case names, and no cookies",
        );
        for place in self.credentials.values() {
            let fits = match (&place.header, &place.leaf) {
                (Some(header), None) => {
                    let is_ours = is_never_callers(header) && !CREDENTIALS.contains(&header.as_str());
                    is_header_name(header) && !is_ours && settable.iter().all(|name| *name != header)
                }
                (None, Some(leaf)) => Pattern::leaf(leaf).is_some_and(|leaf| leaf.exact().is_some()),
                (Some(_), Some(_)) | (None, None) => false,
            };
            fault(
                !fits || !place.prefix.bytes().all(|b| b == b' ' || b.is_ascii_graphic()),
                "credentials: each has a header (lower case, not one that callers set) or a leaf (names with dots, no *), and a file",
            );
        }
        fault(
            self.content_type.as_ref().is_some_and(|text| !is_content_type(text)),
            "content_type: write one such as \"text/xml; charset=utf-8\"",
        );
        let within = |value: u32, (_, most): (u32, u32)| (1..=most).contains(&value);
        fault(!within(self.body_bytes_max, BODY_BYTES), "body_bytes_max: use 1 to 262144");
        fault(!within(self.answer_bytes_max, ANSWER_BYTES), "answer_bytes_max: use 1 to 262144");
        fault(!(1..=SECONDS.1).contains(&self.timeout_s), "timeout_s: use 1 to 120");
        faults
    }
}

fn is_content_type(text: &str) -> bool {
    text.contains('/') && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
}

fn is_header_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.!#$%&'*+^`|~".contains(&b);
    !name.is_empty() && name.bytes().all(plain)
}

/// Whether no caller ever sets this header; the name is in lower case.
pub(super) fn is_never_callers(name: &str) -> bool {
    NEVER.contains(&name)
}

/// Whether this header says who asks; the name is in lower case.
pub(super) fn is_credential(name: &str) -> bool {
    CREDENTIALS.contains(&name)
}

/// A declaration, compiled.
#[derive(Clone, Debug)]
pub struct Rules {
    /// As it was declared.
    pub spec: ForwardSpec,
    paths: Vec<Pattern>,
    leaves: Vec<Pattern>,
    card_leaves: Vec<Pattern>,
    numbers: Vec<Pattern>,
    exempt: Vec<Pattern>,
    credential_leaves: Vec<Pattern>,
}

impl Rules {
    /// Compiles a declaration; its faults, if there are any.
    pub fn compile(spec: ForwardSpec) -> Result<Self, String> {
        let faults = spec.faults();
        if !faults.is_empty() {
            return Err(faults.join("\n"));
        }
        let leaves = |texts: &[String]| texts.iter().filter_map(|text| Pattern::leaf(text)).collect();
        Ok(Self {
            paths: spec.paths.iter().filter_map(|path| Pattern::path(path)).collect(),
            leaves: leaves(&spec.leaves),
            card_leaves: leaves(&spec.card_leaves),
            numbers: leaves(&spec.numbers),
            exempt: leaves(&spec.exempt),
            credential_leaves: spec
                .credentials
                .values()
                .filter_map(|place| place.leaf.as_deref().and_then(Pattern::leaf))
                .collect(),
            spec,
        })
    }

    pub(super) fn takes_path(&self, segments: &[&str]) -> bool {
        self.paths.iter().any(|pattern| pattern.fits(segments))
    }

    pub(super) fn takes_leaf(&self, names: &[String]) -> bool {
        self.leaves.iter().any(|pattern| pattern.fits(names)) || self.takes_card(names)
    }

    pub(super) fn takes_card(&self, names: &[String]) -> bool {
        self.card_leaves.iter().any(|pattern| pattern.fits(names))
    }

    pub(super) fn is_number(&self, names: &[String]) -> bool {
        self.numbers.iter().any(|pattern| pattern.fits(names))
    }

    /// Whether a leaf is one that the keeper fills, or lies in it; also by a form's key that would be read so elsewhere.
    pub(super) fn is_credential(&self, names: &[String]) -> bool {
        let lies_in = |pattern: &Pattern| {
            let depth = pattern.exact().map_or(0, |exact| exact.len());
            names.get(..depth).is_some_and(|names| pattern.fits_any_case(names))
        };
        let is_odd_key = |pattern: &Pattern| {
            let key = key_of_names(&pattern.exact().unwrap_or_default()).to_ascii_lowercase();
            let [name] = names else { return false };
            name.contains('[') && name.to_ascii_lowercase().starts_with(&key)
        };
        self.credential_leaves.iter().any(|pattern| lies_in(pattern) || is_odd_key(pattern))
    }

    /// Whether a number in this leaf of an answer may look like a card's.
    pub fn is_exempt(&self, names: &[String]) -> bool {
        self.exempt.iter().any(|pattern| pattern.fits(names))
    }
}
