//! JSON as a tree whose numbers keep every digit that was written: serde's own value reads them into machine types.

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Why;

/// Deeper than any request of a processor's.
const DEPTH_MAX: usize = 32;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// An object, its members in order.
    Object(Vec<(String, Json)>),
    /// A list.
    Array(Vec<Json>),
    /// A string.
    Text(String),
    /// A number, `true`, `false` or `null`, as it was written.
    Raw(String),
}

/// A value that has no parts.
#[derive(Clone, Copy, Debug)]
pub enum Leaf<'a> {
    /// A string.
    Text(&'a str),
    /// A number, `true`, `false`, `null`, or an object or list without parts.
    Raw(&'a str),
}

impl Json {
    /// Reads a value. A name twice in one object is refused if `strict`; else it stays twice.
    pub fn parse(text: &str, strict: bool) -> Result<Self, Why> {
        let raw: &RawValue = serde_json::from_str(text).map_err(|_| Why::Malformed)?;
        read(raw, strict, 0)
    }

    /// Calls `visit` for each leaf, with the names that lead to it.
    pub fn walk<E>(
        &self,
        names: &mut Vec<String>,
        visit: &mut impl FnMut(&[String], Leaf<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Object(members) if members.is_empty() => visit(names, Leaf::Raw("{}")),
            Self::Array(items) if items.is_empty() => visit(names, Leaf::Raw("[]")),
            Self::Object(members) => members.iter().try_for_each(|(name, value)| {
                names.push(name.clone());
                let done = value.walk(names, visit);
                names.pop();
                done
            }),
            Self::Array(items) => items.iter().enumerate().try_for_each(|(at, value)| {
                names.push(at.to_string());
                let done = value.walk(names, visit);
                names.pop();
                done
            }),
            Self::Text(text) => visit(names, Leaf::Text(text)),
            Self::Raw(raw) => visit(names, Leaf::Raw(raw)),
        }
    }

    /// The same tree with other leaves; names and their order stay, except as `rename` says.
    pub fn map<E>(
        &self,
        names: &mut Vec<String>,
        rename: &impl Fn(&str) -> String,
        change: &mut impl FnMut(&[String], Leaf<'_>) -> Result<Self, E>,
    ) -> Result<Self, E> {
        match self {
            Self::Object(members) => {
                let mut changed = Vec::with_capacity(members.len());
                for (name, value) in members {
                    names.push(name.clone());
                    let value = value.map(names, rename, change);
                    names.pop();
                    changed.push((rename(name), value?));
                }
                Ok(Self::Object(changed))
            }
            Self::Array(items) => {
                let mut changed = Vec::with_capacity(items.len());
                for (at, value) in items.iter().enumerate() {
                    names.push(at.to_string());
                    let value = value.map(names, rename, change);
                    names.pop();
                    changed.push(value?);
                }
                Ok(Self::Array(changed))
            }
            Self::Text(text) => change(names, Leaf::Text(text)),
            Self::Raw(raw) => change(names, Leaf::Raw(raw)),
        }
    }

    /// Puts a string at the end of these names, making the objects on the way; `false` if something else is in the way or there.
    pub fn put(&mut self, names: &[&str], value: &str) -> bool {
        let Self::Object(members) = self else { return false };
        let Some((first, rest)) = names.split_first() else { return false };
        let at = members.iter().position(|(name, _)| name == first);
        match (at.and_then(|at| members.get_mut(at)), rest.is_empty()) {
            (Some(_), true) => false,
            (Some((_, inner)), false) => inner.put(rest, value),
            (None, true) => {
                members.push(((*first).to_owned(), Self::Text(value.to_owned())));
                true
            }
            (None, false) => {
                let mut inner = Self::Object(Vec::new());
                let done = inner.put(rest, value);
                members.push(((*first).to_owned(), inner));
                done
            }
        }
    }

    /// Appends the text of the value.
    pub fn write(&self, out: &mut String) {
        match self {
            Self::Object(members) => {
                out.push('{');
                for (at, (name, value)) in members.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    write_text(name, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
            Self::Array(items) => {
                out.push('[');
                for (at, value) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    value.write(out);
                }
                out.push(']');
            }
            Self::Text(text) => write_text(text, out),
            Self::Raw(raw) => out.push_str(raw),
        }
    }
}

fn write_text(text: &str, out: &mut String) {
    // A string always has a form in JSON.
    out.push_str(&serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned()));
}

fn read(raw: &RawValue, strict: bool, depth: usize) -> Result<Json, Why> {
    if depth > DEPTH_MAX {
        return Err(Why::Malformed);
    }
    let text = raw.get().trim();
    match text.as_bytes().first() {
        Some(b'{') => {
            let members: Members<'_> = serde_json::from_str(text).map_err(|_| Why::Malformed)?;
            let mut read_members: Vec<(String, Json)> = Vec::with_capacity(members.0.len());
            let mut known = std::collections::HashSet::new();
            for (name, value) in members.0 {
                if !known.insert(name.clone()) && strict {
                    return Err(Why::Duplicate);
                }
                read_members.push((name, read(value, strict, depth + 1)?));
            }
            Ok(Json::Object(read_members))
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| Why::Malformed)?;
            items
                .into_iter()
                .map(|item| read(item, strict, depth + 1))
                .collect::<Result<_, _>>()
                .map(Json::Array)
        }
        Some(b'"') => serde_json::from_str(text).map(Json::Text).map_err(|_| Why::Malformed),
        Some(_) => Ok(Json::Raw(text.to_owned())),
        None => Err(Why::Malformed),
    }
}

/// The members of an object, also those that stand twice.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        from.deserialize_map(All).map(Self)
    }
}
