//! Where a value stands in a processor's answer: `a.b[0].c`.

use std::ops::Range;

use serde_json::Value;

use super::fault::Faults;

/// A path into a JSON answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(Box<str>),
    Index(usize),
}

/// Deeper than any answer of a processor.
const STEPS_MAX: usize = 24;

impl Path {
    /// Reads `a.b[0].c`; `$.` in front is allowed, for a key that the rule itself uses (`$.op`).
    pub(super) fn read(text: &str, at: &Range<usize>, faults: &mut Faults<'_>) -> Option<Self> {
        let steps = read_steps(text.strip_prefix("$.").unwrap_or(text));
        if steps.is_none() {
            faults.add(at, "a path is malformed", "write it like `error.code` or `data[0].id`");
        }
        steps.map(Self)
    }

    /// The value, unless it is null or not there.
    pub(super) fn find<'j>(&self, json: &'j Value) -> Option<&'j Value> {
        let found = self.0.iter().try_fold(json, |at, step| match step {
            Step::Key(key) => at.get(&**key),
            Step::Index(index) => at.get(*index),
        });
        found.filter(|value| !value.is_null())
    }

    /// The text of a single value that is not empty.
    pub(super) fn text(&self, json: &Value) -> Option<String> {
        self.find(json).and_then(text_of).filter(|text| !text.is_empty())
    }

    /// For a path that ends in `[n]`: the list, and n.
    pub(super) fn split_index(&self) -> Option<(Self, usize)> {
        match self.0.split_last() {
            Some((Step::Index(index), list)) => Some((Self(list.to_vec()), *index)),
            Some((Step::Key(_), _)) | None => None,
        }
    }
}

/// A string as it is, a number or a truth value as JSON writes it; nothing for what has parts.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn read_steps(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    for part in text.split('.') {
        let (key, mut indices) = part.find('[').map_or((part, ""), |at| part.split_at(at));
        if key.is_empty() || key.contains([']', ' ', '{', '}', '"']) {
            return None;
        }
        steps.push(Step::Key(key.into()));
        while !indices.is_empty() {
            let (index, rest) = indices.strip_prefix('[')?.split_once(']')?;
            steps.push(Step::Index(index.parse().ok()?));
            indices = rest;
        }
    }
    (steps.len() <= STEPS_MAX).then_some(steps)
}
