//! Structural templates: a JSON tree, an XML document or a list of form pairs, compiled once. Only leaves are filled, and a
//! serializer writes each of them, so that no value can change the shape of a request.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::condition::Condition;
use super::document::{Entry, entries};
use super::fault::Faults;
use super::leaf::{Form, Known, Leaf};
use super::names::Name;
use super::render::{BODY_BYTES_USUAL, Mode, RenderError, Scope};
use super::xml::Xml;

/// No request to a payment processor is near this.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

/// What is sent after the headers.
#[derive(Debug, Clone)]
pub(super) enum Body {
    None,
    Json(Json),
    Form(Vec<Pair>),
    /// With the key of the form that it is the one field of, where it is sent so.
    Xml(Box<Xml>, Option<Box<str>>),
}

/// A JSON value with leaves to fill.
#[derive(Debug, Clone)]
pub(super) enum Json {
    Object {
        when: Option<Condition>,
        fields: Vec<Field>,
    },
    Array(Vec<Json>),
    /// The first of these that is there.
    First(Option<Condition>, Vec<Json>),
    Leaf(Option<Condition>, Leaf),
    /// A number or a truth value, as it stands in the file.
    Literal(Option<Condition>, Box<str>),
}

#[derive(Debug, Clone)]
pub(super) struct Field {
    name: Box<str>,
    /// The name as JSON writes it, with its colon.
    written: Box<[u8]>,
    value: Json,
}

/// One pair of a form or a query.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) key: Box<str>,
    pub(super) leaf: Leaf,
    pub(super) when: Option<Condition>,
}

impl Json {
    /// Compiles a TOML table; key order is kept, as some processors check it.
    pub(super) fn read(
        value: &Spanned<DeValue<'_>>,
        known: &mut Known,
        faults: &mut Faults<'_>,
    ) -> Option<Self> {
        let at = value.span();
        let leaf_is_no = |faults: &mut Faults<'_>, what: &str| {
            faults.add(&at, format!("a body cannot hold {what}"), "write it as a string");
            None
        };
        match value.get_ref() {
            DeValue::String(text) => Some(Self::Leaf(None, Leaf::read(text, &at, known, faults))),
            DeValue::Integer(number) => {
                match i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()) {
                    Ok(number) => Some(Self::Literal(None, number.to_string().into())),
                    Err(_) => leaf_is_no(faults, "a number of this size"),
                }
            }
            DeValue::Boolean(flag) => Some(Self::Literal(None, flag.to_string().into())),
            DeValue::Float(_) => leaf_is_no(faults, "a number with a point"),
            DeValue::Datetime(_) => leaf_is_no(faults, "a date"),
            DeValue::Array(list) => {
                Some(Self::Array(list.iter().filter_map(|item| Self::read(item, known, faults)).collect()))
            }
            DeValue::Table(table) => Self::read_table(table, &at, known, faults),
        }
    }

    fn read_table(
        table: &DeTable<'_>,
        at: &Range<usize>,
        known: &mut Known,
        faults: &mut Faults<'_>,
    ) -> Option<Self> {
        let (mut when, mut value, mut first, mut fields) = (None, None, None, Vec::new());
        for entry in entries(table) {
            match entry.key {
                "$when" => when = read_condition(&entry, known, faults),
                "$value" => value = Self::read(entry.value, known, faults),
                "$first" => first = Self::read(entry.value, known, faults),
                key if key.starts_with('$') => {
                    faults.add(&entry.at, format!("`{key}` is not known"), "write $when, $value or $first");
                }
                key => {
                    let mut written = serde_json::to_vec(key).unwrap_or_default();
                    written.push(b':');
                    if let Some(value) = Self::read(entry.value, known, faults) {
                        fields.push(Field { name: key.into(), written: written.into(), value });
                    }
                }
            }
        }
        match (value, first) {
            (None, Some(Self::Array(list))) if fields.is_empty() && !list.is_empty() => {
                Some(Self::First(when, list))
            }
            (_, Some(_)) => {
                faults.add(
                    at,
                    "`$first` stands beside other keys, or is not a list",
                    "write $first = [\"{?a}\", \"{?b}\"], and $when if need be",
                );
                None
            }
            (None, None) => Some(Self::Object { when, fields }),
            (Some(Self::Leaf(None, leaf)), None) if fields.is_empty() => Some(Self::Leaf(when, leaf)),
            (Some(Self::Literal(None, text)), None) if fields.is_empty() => Some(Self::Literal(when, text)),
            (Some(_), None) => {
                faults.add(
                    at,
                    "`$value` stands beside other keys, or is not a single value",
                    "write $when and $value only",
                );
                None
            }
        }
    }

    /// Writes the value; false (and nothing written) if it is to be left out.
    fn write(&self, scope: &Scope<'_>, out: &mut Vec<u8>) -> Result<bool, RenderError> {
        if out.len() > BODY_BYTES_MAX {
            return Err(RenderError::TooLarge);
        }
        match self {
            Self::Leaf(when, leaf) => {
                if !holds(when.as_ref(), scope)? {
                    return Ok(false);
                }
                let Some(text) = leaf.fill(scope)? else { return Ok(false) };
                let bare = leaf.form != Form::Text && !text.as_str().is_empty();
                if bare {
                    out.extend_from_slice(text.as_str().as_bytes());
                } else {
                    serde_json::to_writer(out, text.as_str()).map_err(|_| RenderError::TooLarge)?;
                }
                Ok(true)
            }
            Self::Literal(when, text) => {
                let there = holds(when.as_ref(), scope)?;
                if there {
                    out.extend_from_slice(text.as_bytes());
                }
                Ok(there)
            }
            Self::Array(items) => write_all(out, (b'[', b']'), items, |item, out| item.write(scope, out)),
            Self::First(when, list) => {
                if !holds(when.as_ref(), scope)? {
                    return Ok(false);
                }
                for item in list {
                    if item.write(scope, out)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Object { when, fields } => {
                if !holds(when.as_ref(), scope)? {
                    return Ok(false);
                }
                write_all(out, (b'{', b'}'), fields, |field, out| {
                    out.extend_from_slice(&field.written);
                    field.value.write(scope, out)
                })
            }
        }
    }

    fn each_name(&self, see: &mut dyn FnMut(Name)) {
        match self {
            Self::Object { when, fields } => {
                names_of(when.as_ref()).for_each(&mut *see);
                fields.iter().for_each(|field| field.value.each_name(see));
            }
            Self::Array(items) => items.iter().for_each(|item| item.each_name(see)),
            Self::First(when, items) => {
                names_of(when.as_ref()).for_each(&mut *see);
                items.iter().for_each(|item| item.each_name(see));
            }
            Self::Leaf(when, leaf) => leaf.names().chain(names_of(when.as_ref())).for_each(&mut *see),
            Self::Literal(when, _) => names_of(when.as_ref()).for_each(&mut *see),
        }
    }

    fn any_leaf(&self, is: &dyn Fn(&Leaf) -> bool) -> bool {
        match self {
            Self::Leaf(_, leaf) => is(leaf),
            Self::Literal(..) => false,
            Self::Array(items) | Self::First(_, items) => items.iter().any(|item| item.any_leaf(is)),
            Self::Object { fields, .. } => fields.iter().any(|field| field.value.any_leaf(is)),
        }
    }

    fn mark_volatile(&mut self, address: &str) -> bool {
        let Self::Object { fields, .. } = self else { return false };
        let mut found = false;
        for field in fields {
            match address.strip_prefix(&*field.name) {
                Some("") => {
                    if let Self::Leaf(_, leaf) = &mut field.value {
                        leaf.volatile = true;
                        found = true;
                    }
                }
                Some(rest) => {
                    found |= rest.strip_prefix('.').is_some_and(|rest| field.value.mark_volatile(rest))
                }
                None => {}
            }
        }
        found
    }
}

/// Writes the items that are there between two brackets; if there were items and none is there, nothing at all.
fn write_all<T>(
    out: &mut Vec<u8>,
    (open, close): (u8, u8),
    items: &[T],
    write: impl Fn(&T, &mut Vec<u8>) -> Result<bool, RenderError>,
) -> Result<bool, RenderError> {
    let start = out.len();
    out.push(open);
    let mut written = 0_usize;
    for item in items {
        let mark = out.len();
        if written > 0 {
            out.push(b',');
        }
        if write(item, out)? {
            written += 1;
        } else {
            out.truncate(mark);
        }
    }
    if written == 0 && !items.is_empty() {
        out.truncate(start);
        return Ok(false);
    }
    out.push(close);
    Ok(true)
}

/// Compiles `[["key", "leaf"], ["key", "leaf", "condition"]]`.
pub(super) fn read_pairs(entry: &Entry<'_>, known: &mut Known, faults: &mut Faults<'_>) -> Vec<Pair> {
    let Some(list) = entry.value.get_ref().as_array() else {
        let instead =
            format!("write {} = [[\"key\", \"value\"], [\"key\", \"value\", \"condition\"]]", entry.key);
        faults.add(&entry.at, format!("`{}` is not a list of pairs", entry.key), instead);
        return Vec::new();
    };
    list.iter().filter_map(|item| read_pair(item, known, faults)).collect()
}

fn read_pair(item: &Spanned<DeValue<'_>>, known: &mut Known, faults: &mut Faults<'_>) -> Option<Pair> {
    let parts: Vec<(&str, Range<usize>)> = item
        .get_ref()
        .as_array()
        .map(|list| list.iter().filter_map(|part| Some((part.get_ref().as_str()?, part.span()))).collect())
        .unwrap_or_default();
    let whole = item.get_ref().as_array().is_some_and(|list| list.iter().count() == parts.len());
    let (key, leaf, when) = match parts.as_slice() {
        [key, leaf] if whole => (key, leaf, None),
        [key, leaf, when] if whole => (key, leaf, Some(when)),
        _other => {
            faults.add(
                &item.span(),
                "a pair is not two or three strings",
                "write [\"key\", \"value\", \"condition\"]",
            );
            return None;
        }
    };
    if key.0.is_empty() || key.0.contains(['{', '}']) {
        faults.add(
            &key.1,
            "a form key is empty or holds a brace",
            "write the key as the processor spells it",
        );
    }
    Some(Pair {
        key: key.0.into(),
        leaf: Leaf::read(leaf.0, &leaf.1, known, faults),
        when: when.map(|(text, at)| Condition::read(text, at, known, faults)),
    })
}

fn read_condition(entry: &Entry<'_>, known: &mut Known, faults: &mut Faults<'_>) -> Option<Condition> {
    let text = super::document::string(entry, faults)?;
    Some(Condition::read(text, &entry.value.span(), known, faults))
}

/// The names that a condition asks about.
pub(super) fn names_of(when: Option<&Condition>) -> impl Iterator<Item = Name> + '_ {
    when.into_iter().flat_map(Condition::names)
}

pub(super) fn holds(when: Option<&Condition>, scope: &Scope<'_>) -> Result<bool, RenderError> {
    when.map_or(Ok(true), |condition| condition.holds(scope))
}

impl Body {
    /// The bytes of the body.
    pub(super) fn write(&self, scope: &Scope<'_>, out: &mut Vec<u8>) -> Result<(), RenderError> {
        match self {
            Self::None => {}
            Self::Json(json) => {
                if !json.write(scope, out)? {
                    out.extend_from_slice(b"{}");
                }
            }
            Self::Form(pairs) => write_pairs(pairs, scope, out)?,
            Self::Xml(xml, None) => xml.write(scope, out)?,
            Self::Xml(xml, Some(key)) => {
                let mut document = Zeroizing::new(Vec::with_capacity(BODY_BYTES_USUAL));
                xml.write(scope, &mut document)?;
                let text = std::str::from_utf8(&document).map_err(|_| RenderError::TooLarge)?;
                encode(key, scope.mode, out);
                out.push(b'=');
                encode(text, scope.mode, out);
            }
        }
        if out.len() > BODY_BYTES_MAX { Err(RenderError::TooLarge) } else { Ok(()) }
    }

    /// Every name in it, in leaves and in conditions.
    pub(super) fn each_name(&self, see: &mut dyn FnMut(Name)) {
        match self {
            Self::None => {}
            Self::Json(json) => json.each_name(see),
            Self::Xml(xml, _) => xml.each_name(see),
            Self::Form(pairs) => {
                for pair in pairs {
                    pair.leaf.names().chain(names_of(pair.when.as_ref())).for_each(&mut *see);
                }
            }
        }
    }

    /// Whether a leaf, written under whatever condition, is such a one.
    pub(super) fn any_leaf(&self, is: &dyn Fn(&Leaf) -> bool) -> bool {
        match self {
            Self::None => false,
            Self::Json(json) => json.any_leaf(is),
            Self::Xml(xml, _) => xml.any_leaf(is),
            Self::Form(pairs) => pairs.iter().any(|pair| is(&pair.leaf)),
        }
    }

    /// Marks the leaf at an address (`a.b`, or a form key) as volatile; false if there is none.
    pub(super) fn mark_volatile(&mut self, address: &str) -> bool {
        match self {
            Self::None => false,
            Self::Json(json) => json.mark_volatile(address),
            Self::Xml(xml, _) => xml.mark_volatile(address),
            Self::Form(pairs) => {
                let mut found = false;
                for pair in pairs.iter_mut().filter(|pair| *pair.key == *address) {
                    pair.leaf.volatile = true;
                    found = true;
                }
                found
            }
        }
    }
}

/// Writes `key=value&…`, all but unreserved characters percent-encoded: right for a form and for a query.
pub(super) fn write_pairs(pairs: &[Pair], scope: &Scope<'_>, out: &mut Vec<u8>) -> Result<(), RenderError> {
    let start = out.len();
    for pair in pairs {
        if out.len() > BODY_BYTES_MAX {
            return Err(RenderError::TooLarge);
        }
        if !holds(pair.when.as_ref(), scope)? {
            continue;
        }
        let Some(value) = pair.leaf.fill(scope)? else { continue };
        if out.len() > start {
            out.push(b'&');
        }
        encode(&pair.key, scope.mode, out);
        out.push(b'=');
        encode(value.as_str(), scope.mode, out);
    }
    Ok(())
}

fn encode(text: &str, mode: Mode, out: &mut Vec<u8>) {
    match mode {
        Mode::Send | Mode::Mac => {
            for part in percent_encoding::utf8_percent_encode(text, super::render::SEGMENT) {
                out.extend_from_slice(part.as_bytes());
            }
        }
        // Just enough to be read back, so that a person can read it at all.
        Mode::Show => {
            for c in text.chars() {
                let escaped = c.is_control() || matches!(c, '&' | '=' | '+' | '%' | ' ' | '#');
                let mut utf8 = [0_u8; 4];
                for byte in c.encode_utf8(&mut utf8).bytes() {
                    if escaped {
                        out.extend_from_slice(percent_encoding::percent_encode_byte(byte).as_bytes());
                    } else {
                        out.push(byte);
                    }
                }
            }
        }
    }
}
