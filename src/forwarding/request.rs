//! A caller's request: read, checked against what its destination declares, filled.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::body::{Body, Encoding, Filled};
use super::json::{Json, Leaf};
use super::pattern::Pattern;
use super::placeholder::{Name, Slot, Text, Values};
use super::spec::{Rules, is_credential, is_never_callers};
use super::{Refused, Why};
use crate::card::stray;

const HEADER: &str = "headers";
const PATH_BYTES_MAX: usize = 1024;
const HEADER_BYTES_MAX: usize = 1024;
const HEADERS_MAX: usize = 32;

/// The body of `POST /v1/forwards`, as it came.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    /// `tok_…`.
    pub token: String,
    /// Where to, by name.
    pub destination: String,
    method: String,
    path: String,
    query: Option<Vec<(String, String)>>,
    headers: Option<Box<RawValue>>,
    body: Option<Box<RawValue>>,
    body_form: Option<Vec<(String, String)>>,
    body_xml: Option<String>,
    /// Whether only to show what would be sent.
    #[serde(default)]
    pub dry_run: bool,
}

/// A request that its destination takes.
#[derive(Clone, Debug)]
pub struct Request {
    /// HTTP method.
    pub method: String,
    /// Path below the endpoint.
    pub path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, Text)>,
    body: Option<Body>,
}

/// A filled request.
#[derive(Clone, PartialEq, Eq)]
pub struct Written {
    /// Names in lower case, in the order in which they are sent.
    pub headers: Vec<(String, String)>,
    /// The body; empty for none.
    pub body: String,
}

impl Request {
    /// Checks what came against what the destination declares.
    pub fn check(sent: Sent, rules: &Rules) -> Result<Self, Refused> {
        let Sent { method, path, query, headers, body, body_form, body_xml, .. } = sent;
        if !rules.spec.methods.contains(&method) {
            return Err(Why::NotDeclared.at("method"));
        }
        check_path(&path, rules).map_err(|why| why.at("path"))?;
        let query = query.unwrap_or_default();
        check_query(&query, rules).map_err(|why| why.at("query"))?;
        let headers = read_headers(headers.as_deref(), rules).map_err(|why| why.at(HEADER))?;
        let body = read_body(body.as_deref(), body_form, body_xml)?;
        if let Some(body) = &body {
            let at = body.encoding().member();
            let has_body = matches!(method.as_str(), "POST" | "PUT" | "PATCH");
            if !has_body {
                return Err(Why::Unfit.at(at));
            }
            if !rules.spec.bodies.contains(&body.encoding()) {
                return Err(Why::NotDeclared.at(at));
            }
            check_body(body, rules).map_err(|why| why.at(at))?;
        }
        Ok(Self { method, path, query, headers, body })
    }

    /// Path and query, as they are sent.
    pub fn path_and_query(&self) -> String {
        if self.query.is_empty() {
            return self.path.clone();
        }
        let start = format!("{}?", self.path);
        let length = start.len();
        form_urlencoded::Serializer::for_suffix(start, length).extend_pairs(&self.query).finish()
    }

    /// Fills placeholders and credentials (by name), leaf by leaf.
    pub fn fill(
        &self,
        rules: &Rules,
        values: &Values<'_>,
        credentials: &[(&str, &str)],
    ) -> Result<Written, Refused> {
        let mut headers = Vec::with_capacity(self.headers.len() + 2);
        let mut body = self.body.as_ref().map(|body| fill_body(body, rules, values)).transpose()?;
        let at = body.as_ref().map_or("body", |body| body.encoding().member());
        for (name, text) in &self.headers {
            headers.push((name.clone(), text.fill(values).ok_or(Why::Missing.at(HEADER))?));
        }
        for (name, place) in &rules.spec.credentials {
            let known = credentials.iter().find(|(known, _)| known == name);
            let value = format!("{}{}", place.prefix, known.ok_or(Why::Missing.at(HEADER))?.1);
            if let Some(header) = &place.header {
                headers.push((header.clone(), value));
            } else if let Some(leaf) = place.leaf.as_deref().and_then(Pattern::leaf)
                && let Some(body) = &mut body
            {
                let names = leaf.exact().unwrap_or_default();
                if !body.put(&names, &value) {
                    return Err(Why::Missing.at(at));
                }
            }
        }
        let encoding = body.as_ref().map(Body::encoding);
        if let Some(encoding) = encoding {
            headers.push(("content-type".to_owned(), content_type(encoding, rules)));
        }
        let body = body.map(|body| body.write()).unwrap_or_default();
        if body.len() > usize::try_from(rules.spec.body_bytes_max).unwrap_or(usize::MAX) {
            return Err(Why::TooLarge.at(at));
        }
        Ok(Written { headers, body })
    }

    /// Whether a placeholder of this name stands in it.
    pub fn needs(&self, name: Name) -> bool {
        let in_text = |text: &Text| text.slots().any(|slot| slot.name == name);
        let in_headers = self.headers.iter().any(|(_, text)| in_text(text));
        let mut in_body = false;
        if let Some(body) = &self.body {
            let seen: Result<(), Why> = body.walk(&mut |_, leaf| {
                if let Leaf::Text(text) = leaf {
                    in_body |= in_text(&Text::parse(text)?);
                }
                Ok(())
            });
            in_body |= seen.is_err();
        }
        in_headers || in_body
    }
}

fn content_type(encoding: Encoding, rules: &Rules) -> String {
    rules.spec.content_type.clone().unwrap_or_else(|| encoding.content_type().to_owned())
}

/// The path is what it looks like: no escape, no dot segment, no query.
fn check_path(path: &str, rules: &Rules) -> Result<(), Why> {
    if path.contains("{{") {
        return Err(Why::PlaceholderMisplaced);
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b);
    let rest = path.strip_prefix('/').ok_or(Why::NotDeclared)?;
    let segments: Vec<&str> = rest.split('/').collect();
    let is_plain = |segment: &&str| {
        !segment.is_empty() && *segment != "." && *segment != ".." && segment.bytes().all(plain)
    };
    if path.len() > PATH_BYTES_MAX || !segments.iter().all(is_plain) || !rules.takes_path(&segments) {
        return Err(Why::NotDeclared);
    }
    if segments.iter().any(|segment| stray::is_identifier(segment)) {
        return Err(Why::StrayNumber);
    }
    Ok(())
}

/// A query is pairs that a serializer writes, and holds no card: it stands in every log on the way.
fn check_query(query: &[(String, String)], rules: &Rules) -> Result<(), Why> {
    if query.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > PATH_BYTES_MAX {
        return Err(Why::TooLarge);
    }
    for (name, value) in query {
        if name.contains("{{") || value.contains("{{") {
            return Err(Why::PlaceholderMisplaced);
        }
        if !rules.spec.query.contains(name) {
            return Err(Why::NotDeclared);
        }
        if is_verification_code(std::slice::from_ref(name), value) {
            return Err(Why::VerificationCode);
        }
        if stray::in_free_text(value) {
            return Err(Why::StrayNumber);
        }
    }
    Ok(())
}

fn read_headers(raw: Option<&RawValue>, rules: &Rules) -> Result<Vec<(String, Text)>, Why> {
    let Some(raw) = raw else { return Ok(Vec::new()) };
    let Json::Object(members) = Json::parse(raw.get(), true)? else { return Err(Why::Malformed) };
    if members.len() > HEADERS_MAX {
        return Err(Why::TooLarge);
    }
    let mut headers: Vec<(String, Text)> = Vec::with_capacity(members.len());
    for (name, value) in members {
        let (name, Json::Text(value)) = (name.to_ascii_lowercase(), value) else {
            return Err(Why::Malformed);
        };
        if headers.iter().any(|(known, _)| *known == name) {
            return Err(Why::Duplicate);
        }
        let text = check_header(&name, &value, rules)?;
        headers.push((name, text));
    }
    Ok(headers)
}

fn check_header(name: &str, value: &str, rules: &Rules) -> Result<Text, Why> {
    let spec = &rules.spec;
    let is_ours = spec.credentials.values().any(|place| place.header.as_deref() == Some(name));
    if is_credential(name) || is_ours {
        return Err(Why::Credential);
    }
    let takes_card = spec.card_headers.iter().any(|known| known == name);
    if is_never_callers(name) || !(takes_card || spec.headers.iter().any(|known| known == name)) {
        return Err(Why::NotDeclared);
    }
    let is_plain = value.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    if !is_plain || value.trim() != value || value.len() > HEADER_BYTES_MAX {
        return Err(Why::Malformed);
    }
    if stray::is_verification_code(name, value) {
        return Err(Why::VerificationCode);
    }
    check_text(value, takes_card, false)
}

fn read_body(
    body: Option<&RawValue>,
    form: Option<Vec<(String, String)>>,
    xml: Option<String>,
) -> Result<Option<Body>, Refused> {
    match (body, form, xml) {
        (None, None, None) => Ok(None),
        (Some(raw), None, None) => {
            Json::parse(raw.get(), true).map(|json| Some(Body::Json(json))).map_err(|why| why.at("body"))
        }
        (None, Some(pairs), None) => Ok(Some(Body::Form(pairs))),
        (None, None, Some(text)) => Body::xml(&text).map(Some).map_err(|why| why.at("body_xml")),
        (Some(_), _, _) | (_, Some(_), Some(_)) => Err(Why::Unfit.at("body")),
    }
}

fn check_body(body: &Body, rules: &Rules) -> Result<(), Why> {
    let is_xml = body.encoding() == Encoding::Xml;
    let is_json = body.encoding() == Encoding::Json;
    body.walk(&mut |names, leaf| {
        if names.iter().any(|name| name.contains("{{")) {
            return Err(Why::PlaceholderMisplaced);
        }
        if names.iter().any(|name| stray::in_free_text(name)) {
            return Err(Why::StrayNumber);
        }
        // Where the keeper fills an element of the caller's, it must be there, and empty.
        let is_left_empty = is_xml && matches!(leaf, Leaf::Text(""));
        if rules.is_credential(names) {
            return if is_left_empty { Ok(()) } else { Err(Why::Credential) };
        }
        if !rules.takes_leaf(names) {
            return Err(Why::NotDeclared);
        }
        let (Leaf::Text(text) | Leaf::Raw(text)) = leaf;
        if is_verification_code(names, text) {
            return Err(Why::VerificationCode);
        }
        match leaf {
            Leaf::Raw(raw) if stray::in_free_text(raw) => Err(Why::StrayNumber),
            Leaf::Raw(_) => Ok(()),
            Leaf::Text(text) => check_text(text, rules.takes_card(names), is_json).map(drop),
        }
    })
}

/// Placeholders only where they are taken, and no card number of the caller's own around them.
fn check_text(text: &str, takes_card: bool, may_be_number: bool) -> Result<Text, Why> {
    let parsed = Text::parse(text)?;
    if parsed.has_slots() && !takes_card {
        return Err(Why::PlaceholderMisplaced);
    }
    if parsed.is_mixed_number() || (!may_be_number && parsed.slots().any(|slot| slot.numeric)) {
        return Err(Why::PlaceholderMisplaced);
    }
    if parsed.literals().any(stray::in_free_text) {
        return Err(Why::StrayNumber);
    }
    Ok(parsed)
}

/// A verification code belongs to a customer's own charge: a forward is hashed and kept, and a code must be neither. Places in a list
/// are no names; where a name says little (`value`), the one around it counts too.
fn is_verification_code(names: &[String], text: &str) -> bool {
    let mut names = names.iter().rev().filter(|name| !name.bytes().all(|b| b.is_ascii_digit()));
    let Some(last) = names.next() else { return false };
    let with_outer = names.next().map(|outer| format!("{outer} {last}"));
    stray::is_verification_code(last, text)
        || with_outer.is_some_and(|both| stray::is_verification_code(&both, text))
}

fn fill_body(body: &Body, rules: &Rules, values: &Values<'_>) -> Result<Body, Refused> {
    let at = body.encoding().member();
    body.fill(&mut |names, text| {
        let text = Text::parse(text)?;
        let filled = text.fill(values).ok_or(Why::Missing)?;
        match text.only_slot() {
            Some(slot) if slot.numeric || rules.is_number(names) => number(slot, filled),
            Some(_) | None => Ok(Filled::Text(filled)),
        }
    })
    .map_err(|why: Why| why.at(at))
}

/// The digits as a number; a mask stays a text.
fn number(slot: Slot, filled: String) -> Result<Filled, Why> {
    if filled.contains('*') {
        return Ok(Filled::Text(filled));
    }
    if !filled.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Why::Missing);
    }
    match (slot.name, filled.strip_prefix('0')) {
        (Name::Month | Name::Year, Some(rest)) if !rest.is_empty() => Ok(Filled::Number(rest.to_owned())),
        // What begins with zero is another number without it.
        (Name::Number | Name::Zip, Some(_)) => Err(Why::Missing),
        (Name::Month | Name::Year | Name::Number | Name::Zip, _) => Ok(Filled::Number(filled)),
    }
}
