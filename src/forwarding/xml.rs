//! XML as a tree. A document type, a processing instruction or an entity of one's own is refused; comments are left out.

use quick_xml::Reader;
use quick_xml::escape::{resolve_predefined_entity, unescape};
use quick_xml::events::{BytesStart, Event};

use super::Why;
use crate::card::stray;

/// Deeper than any request of a processor's.
const DEPTH_MAX: usize = 32;

/// An element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// With its prefix.
    name: String,
    attributes: Vec<(String, String)>,
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Element(Element),
    Text(String),
}

/// A document: its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xml {
    /// Whether it began with a declaration.
    declared: bool,
    root: Element,
}

impl Xml {
    /// Reads a document.
    pub(super) fn parse(text: &str) -> Result<Self, Why> {
        let mut reader = Reader::from_str(text);
        reader.config_mut().check_end_names = true;
        let mut open: Vec<Element> = Vec::new();
        let (mut root, mut declared) = (None, false);
        loop {
            let event = reader.read_event().map_err(|_| Why::Malformed)?;
            match event {
                Event::Decl(_) if root.is_none() && open.is_empty() && !declared => declared = true,
                Event::Start(start) if root.is_none() && open.len() < DEPTH_MAX => {
                    open.push(element(&start)?)
                }
                Event::Empty(start) if root.is_none() && open.len() < DEPTH_MAX => {
                    close(element(&start)?, &mut open, &mut root);
                }
                Event::End(_) => close(open.pop().ok_or(Why::Malformed)?, &mut open, &mut root),
                Event::Text(text) => add_text(&text.xml10_content(), &mut open)?,
                Event::CData(text) => add_text(&text.xml10_content(), &mut open)?,
                Event::GeneralRef(entity) => {
                    let char = entity.resolve_char_ref().map_err(|_| Why::Malformed)?;
                    match char {
                        Some(char) => add_text(char.encode_utf8(&mut [0; 4]), &mut open)?,
                        None => {
                            let name = entity.xml10_content();
                            let text = resolve_predefined_entity(&name).ok_or(Why::Malformed)?;
                            add_text(text, &mut open)?;
                        }
                    }
                }
                Event::Comment(_) => {}
                Event::Eof if open.is_empty() => break,
                Event::Decl(_)
                | Event::Start(_)
                | Event::Empty(_)
                | Event::PI(_)
                | Event::DocType(_)
                | Event::Eof => return Err(Why::Malformed),
            }
        }
        Ok(Self { declared, root: root.ok_or(Why::Malformed)? })
    }

    /// Calls `visit` for each text and attribute, with the names that lead to it; an attribute's name begins with `@`.
    pub(super) fn walk<E>(&self, visit: &mut impl FnMut(&[String], &str) -> Result<(), E>) -> Result<(), E> {
        self.root.walk(&mut Vec::new(), visit)
    }

    /// The same tree with other texts and values of attributes.
    pub(super) fn map<E>(
        &self,
        change: &mut impl FnMut(&[String], &str) -> Result<String, E>,
    ) -> Result<Self, E> {
        Ok(Self { declared: self.declared, root: self.root.map(&mut Vec::new(), change)? })
    }

    /// Puts a text into the one element, or attribute, of these names, which must be there and empty.
    pub(super) fn put(&mut self, names: &[&str], value: &str) -> bool {
        match names.split_first() {
            Some((first, rest)) if self.root.name == *first => self.root.put(rest, value),
            Some(_) | None => false,
        }
    }

    /// The text of the document.
    pub(super) fn write(&self, out: &mut String) {
        if self.declared {
            out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
        }
        self.root.write(out);
    }
}

fn close(element: Element, open: &mut [Element], root: &mut Option<Element>) {
    match open.last_mut() {
        Some(parent) => parent.nodes.push(Node::Element(element)),
        None => *root = Some(element),
    }
}

fn element(start: &BytesStart<'_>) -> Result<Element, Why> {
    let mut attributes: Vec<(String, String)> = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|_| Why::Malformed)?;
        let value = unescape(&attribute.value).map_err(|_| Why::Malformed)?.into_owned();
        check_chars(&value)?;
        // It is no leaf, so that nobody else looks at it.
        if is_namespace(attribute.key.as_ref()) && (value.contains("{{") || stray::in_free_text(&value)) {
            return Err(Why::Malformed);
        }
        attributes.push((checked_name(attribute.key.as_ref())?, value));
    }
    Ok(Element { name: checked_name(start.name().as_ref())?, attributes, nodes: Vec::new() })
}

/// A name that needs no escape wherever it is written.
fn checked_name(name: &str) -> Result<String, Why> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    let starts = name.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
    if starts && name.chars().all(fits) { Ok(name.to_owned()) } else { Err(Why::Malformed) }
}

fn check_chars(text: &str) -> Result<(), Why> {
    let fits = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r');
    if text.chars().all(fits) { Ok(()) } else { Err(Why::Malformed) }
}

fn add_text(text: &str, open: &mut [Element]) -> Result<(), Why> {
    check_chars(text)?;
    match open.last_mut() {
        Some(parent) => {
            // What an entity or a comment had cut into pieces is one text.
            if let Some(Node::Text(before)) = parent.nodes.last_mut() {
                before.push_str(text);
            } else {
                parent.nodes.push(Node::Text(text.to_owned()));
            }
            Ok(())
        }
        None if text.trim().is_empty() => Ok(()),
        None => Err(Why::Malformed),
    }
}

impl Element {
    /// Blanks between elements are no leaf.
    fn is_layout(&self, text: &str) -> bool {
        text.trim().is_empty() && self.nodes.iter().any(|node| matches!(node, Node::Element(_)))
    }

    fn walk<E>(
        &self,
        names: &mut Vec<String>,
        visit: &mut impl FnMut(&[String], &str) -> Result<(), E>,
    ) -> Result<(), E> {
        names.push(self.name.clone());
        for (name, value) in self.attributes.iter().filter(|(name, _)| !is_namespace(name)) {
            names.push(format!("@{name}"));
            let done = visit(names, value);
            names.pop();
            done?;
        }
        // An element without content says something too.
        if self.nodes.is_empty() {
            visit(names, "")?;
        }
        for node in &self.nodes {
            match node {
                Node::Element(element) => element.walk(names, visit)?,
                Node::Text(text) if self.is_layout(text) => {}
                Node::Text(text) => visit(names, text)?,
            }
        }
        names.pop();
        Ok(())
    }

    fn map<E>(
        &self,
        names: &mut Vec<String>,
        change: &mut impl FnMut(&[String], &str) -> Result<String, E>,
    ) -> Result<Self, E> {
        names.push(self.name.clone());
        let mut attributes = Vec::with_capacity(self.attributes.len());
        for (name, value) in &self.attributes {
            names.push(format!("@{name}"));
            let value = if is_namespace(name) { Ok(value.clone()) } else { change(names, value) };
            names.pop();
            attributes.push((name.clone(), value?));
        }
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            nodes.push(match node {
                Node::Element(element) => Node::Element(element.map(names, change)?),
                Node::Text(text) if self.is_layout(text) => Node::Text(text.clone()),
                Node::Text(text) => Node::Text(change(names, text)?),
            });
        }
        names.pop();
        Ok(Self { name: self.name.clone(), attributes, nodes })
    }

    fn put(&mut self, names: &[&str], value: &str) -> bool {
        let Some((first, rest)) = names.split_first() else {
            let is_empty =
                self.nodes.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()));
            if is_empty {
                self.nodes = vec![Node::Text(value.to_owned())];
            }
            return is_empty;
        };
        if let (Some(name), true) = (first.strip_prefix('@'), rest.is_empty()) {
            let empty = self.attributes.iter_mut().find(|(known, value)| known == name && value.is_empty());
            return empty.map(|(_, empty)| value.clone_into(empty)).is_some();
        }
        let mut inner = self.nodes.iter_mut().filter_map(|node| match node {
            Node::Element(element) if element.name == *first => Some(element),
            Node::Element(_) | Node::Text(_) => None,
        });
        // Two of the name: which of them is meant is not ours to guess.
        match (inner.next(), inner.next()) {
            (Some(element), None) => element.put(rest, value),
            (Some(_), Some(_)) | (None, _) => false,
        }
    }

    fn write(&self, out: &mut String) {
        out.push('<');
        out.push_str(&self.name);
        for (name, value) in &self.attributes {
            out.push(' ');
            out.push_str(name);
            out.push_str("=\"");
            escape(value, true, out);
            out.push('"');
        }
        if self.nodes.is_empty() {
            out.push_str("/>");
            return;
        }
        out.push('>');
        for node in &self.nodes {
            match node {
                Node::Element(element) => element.write(out),
                Node::Text(text) => escape(text, false, out),
            }
        }
        out.push_str("</");
        out.push_str(&self.name);
        out.push('>');
    }
}

/// A declaration of a namespace says what names mean, and is no leaf.
fn is_namespace(attribute: &str) -> bool {
    attribute == "xmlns" || attribute.starts_with("xmlns:")
}

fn escape(text: &str, in_attribute: bool, out: &mut String) {
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\r' => out.push_str("&#13;"),
            '\n' if in_attribute => out.push_str("&#10;"),
            '\t' if in_attribute => out.push_str("&#9;"),
            other => out.push(other),
        }
    }
}
