//! Requests and answers as elements: what XML and Authorize.Net's JSON both say.

use std::borrow::Cow;

use serde_json::Value;

/// An element: attributes, text, children in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) name: String,
    attributes: Vec<(String, String)>,
    text: String,
    pub(super) children: Vec<Node>,
}

impl Node {
    /// Reads an XML document; a DOCTYPE may stand in front.
    pub(super) fn read_xml(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        let document = roxmltree::Document::parse_with_options(text, options).ok()?;
        Some(Self::of(document.root_element(), DEPTH_MAX))
    }

    fn of(element: roxmltree::Node<'_, '_>, depth: usize) -> Self {
        let deeper = depth.saturating_sub(1);
        let elements = element.children().filter(roxmltree::Node::is_element).filter(|_| depth > 0);
        let pairs = element.attributes();
        Self {
            name: element.tag_name().name().to_owned(),
            attributes: pairs.map(|pair| (pair.name().to_owned(), pair.value().to_owned())).collect(),
            text: element.text().unwrap_or_default().trim().to_owned(),
            children: elements.map(|child| Self::of(child, deeper)).collect(),
        }
    }

    /// Reads a JSON object with one member, the root; arrays are repeated elements.
    pub(super) fn read_json(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let object = value.as_object().filter(|object| object.len() == 1)?;
        object.iter().next().map(|(name, value)| Self::of_json(name, value))
    }

    fn of_json(name: &str, value: &Value) -> Self {
        let mut node = Self { name: name.to_owned(), ..Self::default() };
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    if let Value::Array(all) = value {
                        node.children.extend(all.iter().map(|one| Self::of_json(name, one)));
                    } else {
                        node.children.push(Self::of_json(name, value));
                    }
                }
            }
            Value::String(text) => text.clone_into(&mut node.text),
            Value::Number(_) | Value::Bool(_) => node.text = value.to_string(),
            Value::Array(_) | Value::Null => {}
        }
        node
    }

    /// The first child of this name.
    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The element at the end of a path of names.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, name| node.child(name))
    }

    /// The text at the end of a path of names; empty if there is none.
    pub(super) fn text(&self, path: &[&str]) -> &str {
        self.at(path).map_or("", |node| node.text.as_str())
    }

    /// An attribute; empty if there is none.
    pub(super) fn attribute(&self, name: &str) -> &str {
        self.attributes.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
    }
}

/// Elements deeper than this are not read.
const DEPTH_MAX: usize = 32;

/// Text as it may stand between tags and in attributes.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) && !text.chars().any(|c| c.is_control()) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            // XML 1.0 has no way to write the others.
            c if c.is_control() && !matches!(c, '\t' | '\n' | '\r') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// `<name>text</name>`, or `<name/>`.
pub(super) fn element(name: &str, text: &str) -> String {
    if text.is_empty() { format!("<{name}/>") } else { format!("<{name}>{}</{name}>", escaped(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn xml_and_json_say_the_same() {
        let xml = b"<?xml version=\"1.0\"?><!DOCTYPE a SYSTEM \"x\"><a xmlns=\"n\"><b>1</b><c><d> x </d></c><b/></a>";
        let json = br#"{"a":{"b":"1","c":{"d":"x"},"b2":""}}"#;
        let (mut xml, json) = (Node::read_xml(xml).unwrap(), Node::read_json(json).unwrap());
        xml.children[2].name = "b2".to_owned();
        assert_eq!(xml, json);
    }

    #[test]
    fn an_entity_bomb_is_not_read() {
        let mut bomb = String::from("<!DOCTYPE a [<!ENTITY x0 \"xxxxxxxxxx\">");
        for n in 1..12 {
            let more = format!("&x{};", n - 1).repeat(10);
            bomb.push_str(&format!("<!ENTITY x{n} \"{more}\">"));
        }
        bomb.push_str("]><a>&x11;</a>");
        assert_eq!(Node::read_xml(bomb.as_bytes()), None);
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_read_back(text in "[ -~éß€]*") {
            let text = text.trim().to_owned();
            let read = Node::read_xml(element("a", &text).as_bytes()).unwrap();
            prop_assert_eq!(read.text(&[]), text);
        }
    }
}
