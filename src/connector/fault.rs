//! What is wrong with a connector file: where, what, and what to write instead.

use std::fmt;
use std::ops::Range;

/// One fault of a connector file. Printed as `FILE:LINE: what is wrong; what to write instead`.
///
/// It names keys, sections and placeholders, never the value of a leaf: somebody may have pasted a credential there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file as the caller named it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub instead: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}; {}", self.file, self.line, self.problem, self.instead)
    }
}

impl std::error::Error for Fault {}

/// Collects every fault of one file, so that an author sees them all at once.
pub(super) struct Faults<'t> {
    file: &'t str,
    text: &'t str,
    found: Vec<Fault>,
}

impl<'t> Faults<'t> {
    /// More than these help nobody, and a hostile file must not make them endless.
    const FAULTS_MAX: usize = 50;

    pub(super) const fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, found: Vec::new() }
    }

    /// Adds one fault at a place in the text.
    pub(super) fn add(&mut self, at: &Range<usize>, problem: impl Into<String>, instead: impl Into<String>) {
        if self.found.len() < Self::FAULTS_MAX {
            let before = self.text.as_bytes().iter().take(at.start);
            let line = 1 + before.filter(|byte| **byte == b'\n').count();
            self.found.push(Fault {
                file: self.file.to_owned(),
                line,
                problem: problem.into(),
                instead: instead.into(),
            });
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All of them, in the order of the file.
    pub(super) fn into_sorted(mut self) -> Vec<Fault> {
        self.found.sort_by_key(|fault| fault.line);
        self.found.dedup();
        self.found
    }
}

/// "did you mean `x`" when one of the known words is near, else the list of them.
pub(super) fn suggest<'k>(word: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
    let near = known.clone().map(|k| (distance(word, k), k)).min();
    match near {
        Some((steps, k)) if steps <= 2.max(k.len() / 4) => format!("did you mean `{k}`?"),
        Some(_) | None => format!("write one of: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// Whether a word is a slip of the other, and not the other itself.
pub(super) fn near(word: &str, other: &str) -> bool {
    (1..=2).contains(&distance(word, other)) && word.len() > 3
}

/// Levenshtein distance, on bounded words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut next = vec![i + 1];
        let pairs = row.iter().zip(row.iter().skip(1));
        for (y, (diagonal, above)) in b.iter().zip(pairs) {
            let left = next.last().copied().unwrap_or(0);
            next.push((diagonal + usize::from(x != *y)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
