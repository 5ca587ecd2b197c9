//! Where a value stands in a processor's answer: `a.b[0].c` in JSON, `//x/@y` in XML, a key in a form.

use std::borrow::Cow;
use std::ops::Range;

use roxmltree::Node;
use serde_json::Value;

use super::fault::Faults;
use super::tree::{Format, Tree};

/// A path into an answer. How it is written says which format it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Path {
    /// `a.b[0].c`; in a form the whole of it is one key.
    Dotted { text: Box<str>, steps: Vec<Step> },
    /// `/a/b` from the document, `a/b` or `./a` from here, `//a/b` from anywhere below; `*` is any element, `@y` an attribute.
    Xml(XmlPath),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(Box<str>),
    Index(usize),
    /// Any value of an object or a list.
    Any,
    /// The items of a list that have this text under this key.
    With(Box<str>, Box<str>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct XmlPath {
    anywhere: bool,
    elements: Vec<Element>,
    attribute: Option<Box<str>>,
}

/// Which elements fit: by name, and by the text of an attribute or of an element within.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Element {
    name: Box<str>,
    with: Option<(Box<str>, Box<str>)>,
}

impl Element {
    /// As an author writes it.
    fn spelling(&self) -> String {
        match &self.with {
            Some((name, value)) => format!("{}[{name}={value}]", self.name),
            None => self.name.to_string(),
        }
    }
}

/// Deeper than any answer of a processor.
const STEPS_MAX: usize = 24;
const ANY_MAX: usize = 3;

impl Path {
    /// Reads a path; `$.` in front is allowed, for a key that the rule itself uses (`$.op`).
    pub(super) fn read(text: &str, at: &Range<usize>, faults: &mut Faults<'_>) -> Option<Self> {
        let text = text.strip_prefix("$.").unwrap_or(text);
        let path = if text.contains('/') || text.starts_with('@') {
            read_xml(text).map(Self::Xml)
        } else {
            read_steps(text).map(|steps| Self::Dotted { text: text.into(), steps })
        };
        if path.is_none() {
            faults.add(
                at,
                "a path is malformed",
                "write it like `error.code`, `data[0].id`, `list[type=x].id` or `//reply/@code`",
            );
        }
        path
    }

    /// Whether it can find anything in answers of this format.
    pub(super) const fn fits(&self, format: Format) -> bool {
        match self {
            Self::Dotted { .. } => matches!(format, Format::Json | Format::Form | Format::Lines),
            Self::Xml(_) => matches!(format, Format::Xml),
        }
    }

    /// Whether something is there: a value that is not null, an element, an attribute, a key.
    pub(super) fn exists(&self, tree: Tree<'_>) -> bool {
        match (self, tree) {
            (Self::Dotted { steps, .. }, Tree::Json(json)) => find(steps, json).is_some(),
            (Self::Dotted { text, .. }, Tree::Form(pairs)) => pairs.iter().any(|(key, _)| **key == **text),
            (Self::Xml(path), Tree::Xml(node)) => path.first(node, &|found| path.has(found)).is_some(),
            (Self::Dotted { .. } | Self::Xml(_), _) => false,
        }
    }

    /// The text of the first single value there that is not empty, without white space around it.
    pub(super) fn text(&self, tree: Tree<'_>) -> Option<String> {
        let text = match (self, tree) {
            (Self::Dotted { steps, .. }, Tree::Json(json)) => find(steps, json).and_then(text_of)?,
            (Self::Dotted { text, .. }, Tree::Form(pairs)) => {
                pairs.iter().find(|(key, _)| **key == **text).map(|(_, value)| value.clone())?
            }
            (Self::Xml(path), Tree::Xml(node)) => {
                let found =
                    path.first(node, &|found| path.value(found).is_some_and(|v| !v.trim().is_empty()))?;
                path.value(found)?.into_owned()
            }
            (Self::Dotted { .. } | Self::Xml(_), _) => return None,
        };
        let trimmed = text.trim();
        if trimmed.is_empty() { None } else { Some(trimmed.to_owned()) }
    }

    /// The value there as it is written, with the white space around it; empty if there is none.
    pub(super) fn written(&self, tree: Tree<'_>) -> String {
        let text = match (self, tree) {
            (Self::Dotted { steps, .. }, Tree::Json(json)) => find(steps, json).and_then(text_of),
            (Self::Dotted { text, .. }, Tree::Form(pairs)) => {
                pairs.iter().find(|(key, _)| **key == **text).map(|(_, value)| value.clone())
            }
            (Self::Dotted { .. } | Self::Xml(_), _) => None,
        };
        text.unwrap_or_default()
    }

    /// What stands there, whatever it is.
    pub(super) fn part<'t>(&self, tree: Tree<'t>) -> Option<Tree<'t>> {
        match (self, tree) {
            (Self::Dotted { steps, .. }, Tree::Json(json)) => find(steps, json).map(Tree::Json),
            (Self::Xml(path), Tree::Xml(node)) => path.first(node, &|_| true).map(Tree::Xml),
            (Self::Dotted { .. } | Self::Xml(_), _) => None,
        }
    }

    /// The path as an author writes it.
    pub(super) fn spelling(&self) -> String {
        match self {
            Self::Dotted { text, .. } => text.to_string(),
            Self::Xml(path) => {
                let start = if path.anywhere { "//" } else { "" };
                let attribute = path.attribute.as_ref().map_or(String::new(), |name| format!("/@{name}"));
                let elements: Vec<_> = path.elements.iter().map(Element::spelling).collect();
                format!("{start}{}{attribute}", elements.join("/"))
            }
        }
    }

    /// The items of the list that stands there; `None` if there is no list. In XML, the elements that fit.
    pub(super) fn items<'t>(&self, tree: Tree<'t>) -> Option<Vec<Tree<'t>>> {
        match (self, tree) {
            (Self::Dotted { steps, .. }, Tree::Json(json)) => {
                find(steps, json)?.as_array().map(|items| items.iter().map(Tree::Json).collect())
            }
            (Self::Xml(path), Tree::Xml(node)) => {
                let mut found = Vec::new();
                path.each(node, &mut |item| {
                    found.push(Tree::Xml(item));
                    false
                });
                Some(found)
            }
            (Self::Dotted { .. } | Self::Xml(_), _) => None,
        }
    }

    /// For a path that ends in `[n]`: the list, and n.
    pub(super) fn split_index(&self) -> Option<(Self, usize)> {
        let Self::Dotted { text, steps } = self else { return None };
        match steps.split_last() {
            Some((Step::Index(index), list)) => {
                Some((Self::Dotted { text: text.clone(), steps: list.to_vec() }, *index))
            }
            Some((Step::Key(_) | Step::Any | Step::With(..), _)) | None => None,
        }
    }
}

impl XmlPath {
    /// Goes over the elements that fit in the order of the document, until one is taken; answers whether one was.
    fn each<'t>(&self, from: Node<'t, 't>, take: &mut dyn FnMut(Node<'t, 't>) -> bool) -> bool {
        if self.anywhere {
            return from.descendants().any(|start| {
                start.is_element()
                    && self.elements.first().is_none_or(|element| element.fits(start))
                    && below(start, self.elements.get(1..).unwrap_or_default(), take)
            });
        }
        below(from, &self.elements, take)
    }

    fn first<'t>(&self, from: Node<'t, 't>, fits: &dyn Fn(Node<'t, 't>) -> bool) -> Option<Node<'t, 't>> {
        let mut found = None;
        self.each(from, &mut |node| {
            if fits(node) {
                found = Some(node);
            }
            found.is_some()
        });
        found
    }

    fn has(&self, node: Node<'_, '_>) -> bool {
        self.attribute.as_ref().is_none_or(|name| node.attributes().any(|a| a.name() == &**name))
    }

    fn value<'t>(&self, node: Node<'t, 't>) -> Option<Cow<'t, str>> {
        if let Some(name) = &self.attribute {
            return node.attributes().find(|a| a.name() == &**name).map(|a| Cow::Borrowed(a.value()));
        }
        let mut texts = node.children().filter(Node::is_text).filter_map(|text| text.text());
        let first = texts.next()?;
        let rest: String = texts.collect();
        Some(if rest.is_empty() { Cow::Borrowed(first) } else { Cow::Owned(format!("{first}{rest}")) })
    }
}

impl Element {
    fn fits(&self, node: Node<'_, '_>) -> bool {
        let is_named = *self.name == *"*" || node.tag_name().name() == &*self.name;
        is_named && self.with.as_ref().is_none_or(|(key, text)| has_text(node, key, text))
    }

    /// `name`, `*`, `name[@type=x]` or `name[type=x]`.
    fn read(text: &str) -> Option<Self> {
        let (name, condition) = text.find('[').map_or((text, ""), |at| text.split_at(at));
        let with = if condition.is_empty() { None } else { Some(read_with(condition)?) };
        let fits = name == "*" || is_name(name);
        let key_fits = with
            .as_ref()
            .is_none_or(|(key, _): &(Box<str>, _)| is_name(key.strip_prefix('@').unwrap_or(key)));
        (fits && key_fits).then(|| Self { name: name.into(), with })
    }
}

/// Whether an attribute (`@key`) or an element right within has this text.
fn has_text(node: Node<'_, '_>, key: &str, text: &str) -> bool {
    match key.strip_prefix('@') {
        Some(name) => node.attributes().any(|a| a.name() == name && a.value().trim() == text),
        None => node
            .children()
            .any(|child| child.tag_name().name() == key && child.text().unwrap_or_default().trim() == text),
    }
}

/// `[key=text]`.
fn read_with(text: &str) -> Option<(Box<str>, Box<str>)> {
    let (key, text) = text.strip_prefix('[')?.strip_suffix(']')?.split_once('=')?;
    let fits = |part: &str| !part.is_empty() && !part.contains(['[', ']', '{', '}', '"']);
    (fits(key) && fits(text)).then(|| (key.into(), text.into()))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

fn below<'t>(from: Node<'t, 't>, elements: &[Element], take: &mut dyn FnMut(Node<'t, 't>) -> bool) -> bool {
    match elements.split_first() {
        None => take(from),
        Some((element, rest)) => from
            .children()
            .filter(|child| child.is_element() && element.fits(*child))
            .any(|child| below(child, rest, take)),
    }
}

/// The first value there that is not null.
fn find<'j>(steps: &[Step], json: &'j Value) -> Option<&'j Value> {
    let Some((step, rest)) = steps.split_first() else { return Some(json).filter(|value| !value.is_null()) };
    match step {
        Step::Key(key) => find(rest, json.get(&**key)?),
        Step::Index(index) => find(rest, json.get(*index)?),
        Step::With(key, text) => {
            let has = |item: &&Value| item.get(&**key).and_then(text_of).is_some_and(|found| found == **text);
            json.as_array()?.iter().filter(has).find_map(|item| find(rest, item))
        }
        Step::Any => match json {
            Value::Object(object) => object.values().find_map(|value| find(rest, value)),
            Value::Array(list) => list.iter().find_map(|value| find(rest, value)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        },
    }
}

/// A string as it is, a number or a truth value as JSON writes it; nothing for what has parts.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn read_steps(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    // The whole answer, where that is a list.
    if text == "$" {
        return Some(steps);
    }
    // `$[0]` is the first of a whole answer that is a list.
    let of_whole = text.strip_prefix('$').filter(|rest| rest.starts_with('['));
    for (n, part) in of_whole.unwrap_or(text).split('.').enumerate() {
        let (key, mut indices) = part.find('[').map_or((part, ""), |at| part.split_at(at));
        let is_whole = n == 0 && of_whole.is_some() && key.is_empty();
        if !is_whole && (key.is_empty() || key.contains([']', ' ', '{', '}', '"'])) {
            return None;
        }
        if !is_whole {
            steps.push(if key == "*" { Step::Any } else { Step::Key(key.into()) });
        }
        while !indices.is_empty() {
            let end = indices.find(']')? + 1;
            let (index, rest) = indices.split_at_checked(end)?;
            steps.push(match index.strip_prefix('[')?.strip_suffix(']')?.parse() {
                Ok(index) => Step::Index(index),
                Err(_) => read_with(index).map(|(key, text)| Step::With(key, text))?,
            });
            indices = rest;
        }
    }
    // Each `*` looks at every value: a few of them are enough, and more would be slow.
    let any = steps.iter().filter(|step| matches!(step, Step::Any | Step::With(..))).count();
    (steps.len() <= STEPS_MAX && any <= ANY_MAX).then_some(steps)
}

fn read_xml(text: &str) -> Option<XmlPath> {
    let (anywhere, rest) = match text.strip_prefix("//") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("./").or_else(|| text.strip_prefix('/')).unwrap_or(text)),
    };
    let mut parts: Vec<&str> = rest.split('/').collect();
    let attribute = parts.last().and_then(|last| last.strip_prefix('@')).map(Box::from);
    if attribute.is_some() {
        parts.pop();
    }
    let elements: Vec<Element> = parts.iter().map(|part| Element::read(part)).collect::<Option<_>>()?;
    let fits = attribute.as_deref().is_none_or(is_name)
        && elements.len() <= STEPS_MAX
        && !(elements.is_empty() && attribute.is_none());
    fits.then_some(XmlPath { anywhere, elements, attribute })
}
