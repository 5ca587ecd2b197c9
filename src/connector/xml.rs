//! An XML body: parsed once into elements, attributes and leaves; each leaf is escaped where it is written.

use std::ops::Range;

use roxmltree::{Document, Node, ParsingOptions};

use super::condition::Condition;
use super::fault::Faults;
use super::leaf::{Known, Leaf};
use super::names::Name;
use super::render::{RenderError, Scope};
use super::template::{BODY_BYTES_MAX, holds, names_of};

/// The attribute that says when an element is there.
const WHEN: &str = "v-when";

/// A document with leaves to fill.
#[derive(Debug, Clone)]
pub(super) struct Xml {
    /// Declaration and DOCTYPE, as they stand in the file.
    prolog: Box<str>,
    root: Element,
}

#[derive(Debug, Clone)]
struct Element {
    name: Box<str>,
    attributes: Vec<(Box<str>, Leaf)>,
    when: Option<Condition>,
    content: Vec<Content>,
}

#[derive(Debug, Clone)]
enum Content {
    Element(Element),
    Text(Leaf),
}

impl Xml {
    /// Compiles a document; its faults stand at the body, and say which line of it.
    pub(super) fn read(
        text: &str,
        at: &Range<usize>,
        known: &mut Known,
        faults: &mut Faults<'_>,
    ) -> Option<Self> {
        let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
        let document = match Document::parse_with_options(text, options) {
            Ok(document) => document,
            Err(error) => {
                let place = error.pos();
                let problem = format!("the body is not XML at its line {}, column {}", place.row, place.col);
                faults.add(at, problem, "close every element, quote every attribute, write & as &amp;");
                return None;
            }
        };
        let root = document.root_element();
        let prolog = text.get(..root.range().start).unwrap_or_default().trim();
        if prolog.contains(['{', '}', '[']) {
            let instead = "write placeholders in elements, and no declarations inside the DOCTYPE";
            faults.add(at, "what stands before the first element is not plain", instead);
        }
        let root = Element::read(root, text, at, known, faults)?;
        Some(Self { prolog: prolog.into(), root })
    }

    /// Writes the document.
    pub(super) fn write(&self, scope: &Scope<'_>, out: &mut Vec<u8>) -> Result<(), RenderError> {
        out.extend_from_slice(self.prolog.as_bytes());
        self.root.write(scope, out)?;
        Ok(())
    }

    /// Every name in it, in leaves and in conditions.
    pub(super) fn each_name(&self, see: &mut dyn FnMut(Name)) {
        self.root.each_name(see);
    }

    /// Whether a leaf, written under whatever condition, is such a one.
    pub(super) fn any_leaf(&self, is: &dyn Fn(&Leaf) -> bool) -> bool {
        self.root.any_leaf(is)
    }

    /// Marks the leaf at `a.b` or `a.@x`, counted from below the first element; false if there is none.
    pub(super) fn mark_volatile(&mut self, address: &str) -> bool {
        self.root.mark_volatile(address)
    }
}

impl Element {
    fn read(
        node: Node<'_, '_>,
        text: &str,
        at: &Range<usize>,
        known: &mut Known,
        faults: &mut Faults<'_>,
    ) -> Option<Self> {
        let opened = text.get(node.range().start..)?.strip_prefix('<')?;
        let name = opened.split([' ', '\t', '\n', '\r', '>', '/']).next()?;
        let mut element = Self { name: name.into(), attributes: Vec::new(), when: None, content: Vec::new() };
        let plain =
            |text: &str, known: &mut Known, faults: &mut Faults<'_>| Leaf::read(text, at, known, faults);
        for space in own_namespaces(node) {
            let name = space.name().map_or_else(|| "xmlns".to_owned(), |prefix| format!("xmlns:{prefix}"));
            element.attributes.push((name.into(), plain(space.uri(), known, faults)));
        }
        for attribute in node.attributes() {
            let name = text.get(attribute.range_qname()).unwrap_or(attribute.name());
            if name == WHEN {
                element.when = Some(Condition::read(attribute.value(), at, known, faults));
            } else {
                element.attributes.push((name.into(), plain(attribute.value(), known, faults)));
            }
        }
        for child in node.children() {
            if child.is_element() {
                element.content.extend(Self::read(child, text, at, known, faults).map(Content::Element));
            } else if let Some(text) =
                child.text().map(str::trim).filter(|t| !t.is_empty() && child.is_text())
            {
                element.content.push(Content::Text(plain(text, known, faults)));
            }
        }
        Some(element)
    }

    /// Writes the element; false (and nothing written) if it is to be left out: its condition does not hold, or it had content
    /// of which nothing is there and no attribute that says something alone.
    fn write(&self, scope: &Scope<'_>, out: &mut Vec<u8>) -> Result<bool, RenderError> {
        if out.len() > BODY_BYTES_MAX {
            return Err(RenderError::TooLarge);
        }
        if !holds(self.when.as_ref(), scope)? {
            return Ok(false);
        }
        let start = out.len();
        out.push(b'<');
        out.extend_from_slice(self.name.as_bytes());
        let mut says_something = self.content.is_empty();
        for (name, leaf) in &self.attributes {
            let Some(value) = leaf.fill(scope)? else { continue };
            out.push(b' ');
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"=\"");
            escape(value.as_str(), out)?;
            out.push(b'"');
            says_something |= !name.starts_with("xmlns");
        }
        out.push(b'>');
        let opened = out.len();
        for content in &self.content {
            says_something |= match content {
                Content::Element(element) => element.write(scope, out)?,
                Content::Text(leaf) => match leaf.fill(scope)? {
                    Some(text) => escape(text.as_str(), out).map(|()| true)?,
                    None => false,
                },
            };
        }
        if !says_something {
            out.truncate(start);
            return Ok(false);
        }
        if out.len() == opened {
            out.truncate(opened.saturating_sub(1));
            out.extend_from_slice(b"/>");
        } else {
            out.extend_from_slice(b"</");
            out.extend_from_slice(self.name.as_bytes());
            out.push(b'>');
        }
        Ok(true)
    }

    fn each_name(&self, see: &mut dyn FnMut(Name)) {
        let own = self.attributes.iter().flat_map(|(_, leaf)| leaf.names());
        own.chain(names_of(self.when.as_ref())).for_each(&mut *see);
        for content in &self.content {
            match content {
                Content::Element(element) => element.each_name(see),
                Content::Text(leaf) => leaf.names().for_each(&mut *see),
            }
        }
    }

    fn any_leaf(&self, is: &dyn Fn(&Leaf) -> bool) -> bool {
        let in_content = |content: &Content| match content {
            Content::Element(element) => element.any_leaf(is),
            Content::Text(leaf) => is(leaf),
        };
        self.attributes.iter().any(|(_, leaf)| is(leaf)) || self.content.iter().any(in_content)
    }

    fn mark_volatile(&mut self, address: &str) -> bool {
        let (first, rest) =
            address.split_once('.').map_or((address, None), |(first, rest)| (first, Some(rest)));
        if let Some(name) = first.strip_prefix('@') {
            let found = self.attributes.iter_mut().filter(|(known, _)| **known == *name);
            return rest.is_none() && found.map(|(_, leaf)| leaf.volatile = true).count() > 0;
        }
        let mut found = false;
        for content in &mut self.content {
            match (content, rest) {
                (Content::Element(element), Some(rest)) if *element.name == *first => {
                    found |= element.mark_volatile(rest);
                }
                (Content::Element(element), None) if *element.name == *first => {
                    found |= element.mark_texts_volatile();
                }
                (Content::Element(_) | Content::Text(_), _) => {}
            }
        }
        found
    }

    fn mark_texts_volatile(&mut self) -> bool {
        let mut found = false;
        for content in &mut self.content {
            if let Content::Text(leaf) = content {
                leaf.volatile = true;
                found = true;
            }
        }
        found
    }
}

/// The namespaces that this element declares and its parent does not.
fn own_namespaces<'a>(node: Node<'a, 'a>) -> Vec<&'a roxmltree::Namespace<'a>> {
    let above: Vec<_> = node.parent().map_or(Vec::new(), |parent| parent.namespaces().collect());
    node.namespaces().filter(|own| own.name() != Some("xml") && !above.contains(own)).collect()
}

/// XML 1.0, sections 2.2 and 2.4: the five characters that mean something, and those that may not be there at all.
pub(super) fn escape(text: &str, out: &mut Vec<u8>) -> Result<(), RenderError> {
    for c in text.chars() {
        let entity: &[u8] = match c {
            '&' => b"&amp;",
            '<' => b"&lt;",
            '>' => b"&gt;",
            '"' => b"&quot;",
            '\'' => b"&apos;",
            '\t' | '\n' | '\r' => b" ",
            '\u{fffe}' | '\u{ffff}' => return Err(RenderError::Unsendable("the XML body".to_owned())),
            c if c.is_control() => return Err(RenderError::Unsendable("the XML body".to_owned())),
            c => {
                let mut utf8 = [0_u8; 4];
                out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
                continue;
            }
        };
        out.extend_from_slice(entity);
    }
    Ok(())
}
