//! A processor's answer, read: JSON, XML or a form, behind one way of looking at it.

use std::borrow::Cow;

use roxmltree::{Document, Node, ParsingOptions};
use serde_json::Value;

use super::words::words;

/// More than any answer holds; an entity bomb stops here at the latest.
const NODES_MAX: u32 = 20_000;
const PAIRS_MAX: usize = 1_000;

words! {
    /// How an answer is written.
    pub(super) enum Format {
        /// RFC 8259.
        Json = "json",
        /// XML 1.0, with or without a DOCTYPE; namespaces do not matter.
        Xml = "xml",
        /// `key=value&…`, with or without percent-encoding.
        Form = "form",
        /// `key=value`, one a line, as it stands.
        Lines = "lines",
    }
}

/// An answer's text, fit for its format: a byte order mark and white space around it are gone.
pub(super) fn text_of_body(format: Format, body: &[u8]) -> Cow<'_, str> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    let text = String::from_utf8_lossy(body);
    // Recorded answers hold characters that XML does not allow; they stand in messages, where a space does as well.
    let is_illegal = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
    if format != Format::Xml || !text.contains(|c| c == '&' || is_illegal(c)) {
        return text;
    }
    Cow::Owned(with_whole_ampersands(&text.replace(is_illegal, " ")))
}

const SECTION: (&str, &str) = ("<![CDATA[", "]]>");

/// An `&` that begins no reference, as recorded answers have it in the name of a bank, is written as it must be; not within
/// CDATA, where it means itself.
fn with_whole_ampersands(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        if let Some(start) = rest.find(SECTION.0).filter(|start| *start < at) {
            let end = rest.get(start..).and_then(|s| s.find(SECTION.1)).map_or(rest.len(), |end| start + end);
            let (section, after) = rest.split_at(end);
            out.push_str(section);
            rest = after;
            continue;
        }
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        rest = after.strip_prefix('&').unwrap_or_default();
        out.push_str(if begins_reference(rest) { "&" } else { "&amp;" });
    }
    out.push_str(rest);
    out
}

/// Whether `name;` or `#number;` stands there. No name is longer.
fn begins_reference(text: &str) -> bool {
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || b"#_-.:".contains(b);
    let length = text.bytes().take(32).take_while(is_name).count();
    length > 0 && text.as_bytes().get(length) == Some(&b';')
}

/// A whole answer.
pub(super) enum Parsed<'b> {
    Json(Value),
    Xml(Box<Document<'b>>),
    Form(Vec<(String, String)>),
}

impl<'b> Parsed<'b> {
    /// Reads it; `None` if it is not of this format, or holds nothing.
    pub(super) fn read(format: Format, text: &'b str) -> Option<Self> {
        match format {
            Format::Json => {
                let json: Value = serde_json::from_str(text).ok()?;
                (json.is_object() || json.is_array()).then_some(Self::Json(json))
            }
            Format::Xml => {
                let options =
                    ParsingOptions { allow_dtd: true, nodes_limit: NODES_MAX, ..ParsingOptions::default() };
                Document::parse_with_options(text, options).ok().map(|document| Self::Xml(Box::new(document)))
            }
            Format::Form => read_form(text).map(Self::Form),
            Format::Lines => read_lines(text).map(Self::Form),
        }
    }

    pub(super) fn tree(&self) -> Tree<'_> {
        match self {
            Self::Json(json) => Tree::Json(json),
            Self::Xml(document) => Tree::Xml(document.root()),
            Self::Form(pairs) => Tree::Form(pairs),
        }
    }
}

/// A page of a proxy is no form: every key is a plain word.
fn read_form(text: &str) -> Option<Vec<(String, String)>> {
    let pairs: Vec<(String, String)> =
        form_urlencoded::parse(text.as_bytes()).take(PAIRS_MAX).map(|(k, v)| (k.into(), v.into())).collect();
    let whole = text.contains('=') && pairs.iter().all(|(key, _)| is_key(key));
    whole.then_some(pairs)
}

/// A page of a proxy has lines that are no pairs.
fn read_lines(text: &str) -> Option<Vec<(String, String)>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(PAIRS_MAX);
    let pair = |line: &str| {
        let (key, value) = line.split_once('=')?;
        is_key(key.trim()).then(|| (key.trim().to_owned(), value.trim().to_owned()))
    };
    lines.map(pair).collect::<Option<Vec<_>>>().filter(|pairs| !pairs.is_empty())
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.[]:".contains(&b))
}

/// An answer, or a part of it.
#[derive(Clone, Copy)]
pub(super) enum Tree<'t> {
    /// There is nothing to look at.
    Nothing,
    Json(&'t Value),
    Xml(Node<'t, 't>),
    Form(&'t [(String, String)]),
}
