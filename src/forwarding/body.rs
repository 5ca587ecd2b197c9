//! The body of a forward: JSON, a form, or XML, as leaves with names that lead to them.

use serde::{Deserialize, Serialize};

use super::Why;
use super::json::{Json, Leaf};
use super::pattern::{key_of_names, names_of_key};
pub use super::xml::Xml;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// `body`.
    Json,
    /// `body_form`.
    Form,
    /// `body_xml`.
    Xml,
}

impl Encoding {
    /// The member of the request that has it.
    pub const fn member(self) -> &'static str {
        match self {
            Self::Json => "body",
            Self::Form => "body_form",
            Self::Xml => "body_xml",
        }
    }

    /// Its content type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Form => "application/x-www-form-urlencoded",
            Self::Xml => "application/xml",
        }
    }
}

/// A body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A JSON value.
    Json(Json),
    /// Pairs in order.
    Form(Vec<(String, String)>),
    /// A document.
    Xml(Xml),
}

/// What a leaf becomes.
pub enum Filled {
    /// A text.
    Text(String),
    /// A number in JSON, the digits of it elsewhere.
    Number(String),
}

impl Body {
    /// Reads an XML document.
    pub fn xml(text: &str) -> Result<Self, Why> {
        Xml::parse(text).map(Self::Xml)
    }

    /// How it is written.
    pub const fn encoding(&self) -> Encoding {
        match self {
            Self::Json(_) => Encoding::Json,
            Self::Form(_) => Encoding::Form,
            Self::Xml(_) => Encoding::Xml,
        }
    }

    /// Calls `visit` for each leaf, with the names that lead to it.
    pub fn walk<E>(&self, visit: &mut impl FnMut(&[String], Leaf<'_>) -> Result<(), E>) -> Result<(), E> {
        match self {
            Self::Json(json) => json.walk(&mut Vec::new(), visit),
            Self::Form(pairs) => {
                pairs.iter().try_for_each(|(key, value)| visit(&names_of_key(key), Leaf::Text(value)))
            }
            Self::Xml(xml) => xml.walk(&mut |names, text| visit(names, Leaf::Text(text))),
        }
    }

    /// The same body with its texts filled; what is no text stays as it was written.
    pub fn fill<E>(&self, fill: &mut impl FnMut(&[String], &str) -> Result<Filled, E>) -> Result<Self, E> {
        let digits = |filled| match filled {
            Filled::Text(text) | Filled::Number(text) => text,
        };
        match self {
            Self::Json(json) => {
                let mut change = |names: &[String], leaf: Leaf<'_>| match leaf {
                    Leaf::Raw(raw) => Ok(Json::Raw(raw.to_owned())),
                    Leaf::Text(text) => fill(names, text).map(|filled| match filled {
                        Filled::Text(text) => Json::Text(text),
                        Filled::Number(number) => Json::Raw(number),
                    }),
                };
                json.map(&mut Vec::new(), &str::to_owned, &mut change).map(Self::Json)
            }
            Self::Form(pairs) => {
                let mut change = |(key, value): &(String, String)| {
                    fill(&names_of_key(key), value).map(|filled| (key.clone(), digits(filled)))
                };
                pairs.iter().map(&mut change).collect::<Result<_, _>>().map(Self::Form)
            }
            Self::Xml(xml) => xml.map(&mut |names, text| fill(names, text).map(digits)).map(Self::Xml),
        }
    }

    /// Puts a text of the keeper's at the end of these names; `false` if that cannot be.
    pub fn put(&mut self, names: &[&str], value: &str) -> bool {
        match self {
            Self::Json(json) => json.put(names, value),
            Self::Form(pairs) => {
                let key = key_of_names(names);
                let is_free = pairs.iter().all(|(known, _)| *known != key);
                if is_free {
                    pairs.push((key, value.to_owned()));
                }
                is_free
            }
            Self::Xml(xml) => xml.put(names, value),
        }
    }

    /// The bytes that are sent.
    pub fn write(&self) -> String {
        let mut out = String::new();
        match self {
            Self::Json(json) => json.write(&mut out),
            Self::Form(pairs) => {
                out = form_urlencoded::Serializer::new(out).extend_pairs(pairs).finish();
            }
            Self::Xml(xml) => xml.write(&mut out),
        }
        out
    }
}
