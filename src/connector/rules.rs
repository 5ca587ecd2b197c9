//! `[[rule]]`: what an answer means. Ordered, first match wins; no loops and no expressions.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use super::decline::DeclineClass;
use super::document::{Entry, Section, strings};
use super::fault::{Faults, near};
use super::op::Operation;
use super::path::Path;
use super::tree::Tree;
use super::words::{read, words};

words! {
    /// What became of an operation.
    pub enum Outcome {
        /// Done.
        Approved = "approved",
        /// Refused by issuer, network or risk rules.
        Declined = "declined",
        /// Not done for another reason; with `unknown`, perhaps done.
        Error = "error",
        /// The processor answers later.
        Pending = "pending",
        /// A look-up that found no such attempt.
        NotFound = "not_found",
    }
}

/// What a rule says.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    pub(super) unknown: bool,
    pub(super) partial: bool,
    pub(super) held_for_review: bool,
    pub(super) duplicate: bool,
    pub(super) class: Option<DeclineClass>,
    /// Words for an answer that has none.
    pub(super) message: Option<Box<str>>,
}

impl Verdict {
    /// An answer that nobody can read: perhaps done.
    pub(super) const UNKNOWN: Self = Self {
        outcome: Outcome::Error,
        unknown: true,
        partial: false,
        held_for_review: false,
        duplicate: false,
        class: None,
        message: None,
    };

    pub(super) const NOT_FOUND: Self = Self { outcome: Outcome::NotFound, unknown: false, ..Self::UNKNOWN };
}

/// One rule: it matches when every test does.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// Empty: any.
    ops: Vec<Operation>,
    /// Inclusive ranges; empty: any.
    http: Vec<(u16, u16)>,
    tests: Vec<Test>,
    pub(super) verdict: Verdict,
    line_at: Range<usize>,
}

/// One test of a value in an answer.
#[derive(Debug, Clone)]
pub(super) struct Test {
    path: Path,
    check: Check,
}

#[derive(Debug, Clone, PartialEq)]
enum Check {
    /// The text is one of these.
    Is(Vec<Box<str>>),
    Exists(bool),
    /// The text begins with one of these.
    Starts(Vec<Box<str>>),
    /// The number is less than another.
    LessThan(f64),
    LessThanAt(Path),
}

impl Rule {
    pub(super) fn matches(&self, op: Operation, http: u16, tree: Tree<'_>) -> bool {
        (self.ops.is_empty() || self.ops.contains(&op))
            && (self.http.is_empty() || self.http.iter().any(|(low, high)| (*low..=*high).contains(&http)))
            && self.tests.iter().all(|test| test.holds(tree))
    }

    /// Where it looks, and for which operations (none named: all).
    pub(super) fn paths(&self) -> (impl Iterator<Item = &Path>, &[Operation]) {
        (self.tests.iter().flat_map(Test::paths), &self.ops)
    }

    /// Its place in the file.
    pub(super) const fn at(&self) -> &Range<usize> {
        &self.line_at
    }

    /// Whether it decides by operation and status alone.
    pub(super) const fn reads_no_body(&self) -> bool {
        self.tests.is_empty()
    }

    /// Whether it goes by something that the body says, and not by status or by what is missing alone.
    pub(super) fn hears_the_body(&self) -> bool {
        self.tests.iter().any(|test| !matches!(test.check, Check::Exists(false)))
    }

    /// Whether everything that the other rule matches has matched here before.
    fn covers(&self, later: &Self) -> bool {
        let ops = self.ops.is_empty()
            || (!later.ops.is_empty() && later.ops.iter().all(|op| self.ops.contains(op)));
        let within =
            |range: &(u16, u16)| self.http.iter().any(|(low, high)| *low <= range.0 && range.1 <= *high);
        let http = self.http.is_empty() || (!later.http.is_empty() && later.http.iter().all(within));
        ops && http && self.tests.iter().all(|test| later.tests.iter().any(|other| test.follows_from(other)))
    }
}

impl Test {
    pub(super) fn holds(&self, tree: Tree<'_>) -> bool {
        match &self.check {
            Check::Exists(wanted) => self.path.exists(tree) == *wanted,
            Check::Is(list) => {
                let holds = |text: &str| list.iter().any(|known| **known == *text);
                self.path.text(tree).map_or_else(|| holds("") && self.path.exists(tree), |text| holds(&text))
            }
            Check::Starts(list) => {
                self.path.text(tree).is_some_and(|text| list.iter().any(|start| text.starts_with(&**start)))
            }
            Check::LessThan(limit) => number_at(&self.path, tree).is_some_and(|n| n < *limit),
            Check::LessThanAt(other) => {
                let pair = number_at(&self.path, tree).zip(number_at(other, tree));
                pair.is_some_and(|(n, limit)| n < limit)
            }
        }
    }

    /// Where it looks.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let other = match &self.check {
            Check::LessThanAt(other) => Some(other),
            Check::Is(_) | Check::Exists(_) | Check::Starts(_) | Check::LessThan(_) => None,
        };
        std::iter::once(&self.path).chain(other)
    }

    /// Whether it holds wherever the other does.
    pub(super) fn follows_from(&self, other: &Self) -> bool {
        self.path == other.path
            && match (&self.check, &other.check) {
                (Check::Is(mine), Check::Is(theirs)) => theirs.iter().all(|text| mine.contains(text)),
                (
                    Check::Exists(true),
                    Check::Is(_) | Check::Starts(_) | Check::LessThan(_) | Check::LessThanAt(_),
                ) => true,
                (Check::Starts(mine), Check::Is(theirs) | Check::Starts(theirs)) => {
                    theirs.iter().all(|text| mine.iter().any(|start| text.starts_with(&**start)))
                }
                (mine, theirs) => mine == theirs,
            }
    }
}

fn number_at(path: &Path, tree: Tree<'_>) -> Option<f64> {
    path.text(tree)?.parse::<f64>().ok().filter(|n| n.is_finite())
}

/// Reads all rules and reports those that can never match.
pub(super) fn read_rules(entry: Option<Entry<'_>>, top: &Range<usize>, faults: &mut Faults<'_>) -> Vec<Rule> {
    let list = entry.as_ref().and_then(|entry| entry.value.get_ref().as_array());
    let mut rules: Vec<Rule> = Vec::new();
    for item in list.into_iter().flat_map(|list| list.iter()) {
        let Some(rule) = read_rule(item, faults) else { continue };
        if rules.iter().any(|earlier| earlier.covers(&rule)) {
            faults.add(
                &rule.line_at,
                "this rule can never match: a rule before it matches all that it would",
                "move it up, or take it out",
            );
        }
        rules.push(rule);
    }
    if rules.is_empty() && faults.is_empty() {
        faults.add(top, "the connector has no rule", "write [[rule]], its tests and outcome = \"approved\"");
    }
    rules
}

fn read_rule(item: &Spanned<DeValue<'_>>, faults: &mut Faults<'_>) -> Option<Rule> {
    let Some(table) = item.get_ref().as_table() else {
        faults.add(&item.span(), "a rule is not a table", "write [[rule]] and its keys below");
        return None;
    };
    let mut section = Section::new("[[rule]]", item.span(), table);
    let (text, at) = section.required("outcome", faults);
    let outcome = if text.is_empty() { None } else { read::<Outcome>("outcome", text, &at, faults) };
    let ops = read_ops(&mut section, faults);
    let only_asks = !ops.is_empty() && ops.iter().all(|op| op.is_lookup());
    if outcome == Some(Outcome::NotFound) && !only_asks {
        faults.add(&at, "only a look-up can find nothing", "write op = \"lookup\" beside it");
    }
    let http = section.take("http").map_or(Vec::new(), |entry| read_http(&entry, faults));
    let class = section
        .string("class", faults)
        .and_then(|(text, at)| read::<DeclineClass>("class", text, &at, faults));
    let verdict = Verdict {
        outcome: outcome.unwrap_or(Outcome::Error),
        unknown: section.flag("unknown", faults),
        partial: section.flag("partial", faults),
        held_for_review: section.flag("held_for_review", faults),
        duplicate: section.flag("duplicate", faults),
        class,
        message: section.string("message", faults).map(|(text, _)| text.into()),
    };
    check_flags(&verdict, &item.span(), faults);
    let entries = section.take_rest();
    let tests: Vec<Test> = entries.iter().filter_map(|entry| read_test(entry, faults)).collect();
    // Without a test that could not be read it would match more than its author meant, and hide the rules after it.
    if tests.len() < entries.len() {
        return None;
    }
    Some(Rule { ops, http, tests, verdict, line_at: item.span() })
}

fn check_flags(verdict: &Verdict, at: &Range<usize>, faults: &mut Faults<'_>) {
    let outcome = verdict.outcome;
    if verdict.unknown && outcome != Outcome::Error {
        faults.add(at, "`unknown` stands with an outcome that is known", "write outcome = \"error\"");
    }
    if verdict.partial && outcome != Outcome::Approved {
        faults.add(
            at,
            "`partial` stands with an outcome that approves nothing",
            "write outcome = \"approved\"",
        );
    }
    if verdict.class.is_some() && outcome != Outcome::Declined {
        faults.add(
            at,
            "`class` stands with an outcome that declines nothing",
            "write outcome = \"declined\"",
        );
    }
}

fn read_ops(section: &mut Section<'_>, faults: &mut Faults<'_>) -> Vec<Operation> {
    let Some(entry) = section.take("op") else { return Vec::new() };
    let list = strings("op", entry.value, faults);
    list.iter().filter_map(|(text, at)| read::<Operation>("op", text, at, faults)).collect()
}

/// Reads `402`, `"2xx"`, `"500-599"`, or a list of them.
fn read_http(entry: &Entry<'_>, faults: &mut Faults<'_>) -> Vec<(u16, u16)> {
    let items: Vec<&Spanned<DeValue<'_>>> = match entry.value.get_ref().as_array() {
        Some(list) => list.iter().collect(),
        None => vec![entry.value],
    };
    let mut out = Vec::new();
    for item in items {
        let value = item.get_ref();
        let text = value
            .as_str()
            .or_else(|| value.as_integer().map(toml::de::DeInteger::as_str))
            .unwrap_or_default();
        match read_range(text) {
            Some(range) => out.push(range),
            None => faults.add(
                &item.span(),
                "`http` is not a status",
                "write 402, \"2xx\", \"500-599\" or a list",
            ),
        }
    }
    out
}

fn read_range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok()?;
        (class.checked_mul(100)?, class.checked_mul(100)?.checked_add(99)?)
    } else if let Some((low, high)) = text.split_once('-') {
        (low.trim().parse().ok()?, high.trim().parse().ok()?)
    } else {
        let exact = text.parse().ok()?;
        (exact, exact)
    };
    (100..=599).contains(&low).then_some(())?;
    (low <= high && high <= 599).then_some((low, high))
}

/// Reads `path = value`, `{ exists = true }`, `{ starts = "D" }` or `{ lt = … }`.
pub(super) fn read_test(entry: &Entry<'_>, faults: &mut Faults<'_>) -> Option<Test> {
    let path = Path::read(entry.key, &entry.at, faults)?;
    let at = entry.value.span();
    if let Some(meant) = RULE_KEYS.iter().find(|key| near(entry.key, key)) {
        let instead = format!("write `{meant}`, or \"$.{}\" if the answer has such a key", entry.key);
        faults.add(&entry.at, format!("`{}` is not a key of a rule, but near one", entry.key), instead);
    }
    let value = entry.value.get_ref();
    if let Some(table) = value.as_table() {
        let mut section = Section::new("a test", at.clone(), table);
        let exists = section.take("exists");
        let less = section.take("lt");
        let starts = section.take("starts");
        section.finish(faults);
        let check = match (exists, less, starts) {
            (Some(exists), None, None) => exists.value.get_ref().as_bool().map(Check::Exists),
            (None, Some(less), None) => read_less(&less, faults),
            (None, None, Some(starts)) => read_starts(&starts, faults),
            _other => None,
        };
        if check.is_none() {
            let instead = "write one of { exists = true }, { starts = \"D\" } and { lt = \"other.path\" }";
            faults.add(&at, "a test says nothing, or several things", instead);
        }
        return check.map(|check| Test { path, check });
    }
    let list = read_texts(entry.value);
    if list.as_ref().is_none_or(Vec::is_empty) {
        let problem = format!("the test of `{}` is not a text, a number, true, false or a list", entry.key);
        faults.add(&at, problem, format!("write \"{}\" = \"…\"", entry.key));
    }
    list.map(|list| Test { path, check: Check::Is(list) })
}

const RULE_KEYS: &[&str] =
    &["outcome", "unknown", "partial", "held_for_review", "duplicate", "class", "message"];

/// A beginning that is empty would fit everything.
fn read_starts(entry: &Entry<'_>, faults: &mut Faults<'_>) -> Option<Check> {
    let list = strings("starts", entry.value, faults);
    let whole = !list.is_empty() && list.iter().all(|(text, _)| !text.is_empty());
    whole.then(|| Check::Starts(list.into_iter().map(|(text, _)| text.into()).collect()))
}

fn read_less(entry: &Entry<'_>, faults: &mut Faults<'_>) -> Option<Check> {
    let value = entry.value.get_ref();
    if let Some(number) = value.as_integer() {
        return number.as_str().parse().ok().map(Check::LessThan);
    }
    Path::read(value.as_str()?, &entry.value.span(), faults).map(Check::LessThanAt)
}

/// One value or a list of them, as an answer would show them.
fn read_texts(value: &Spanned<DeValue<'_>>) -> Option<Vec<Box<str>>> {
    match value.get_ref() {
        DeValue::Array(list) => {
            let texts: Option<Vec<Vec<Box<str>>>> = list.iter().map(read_texts).collect();
            Some(texts?.concat())
        }
        DeValue::String(text) => Some(vec![(**text).into()]),
        DeValue::Integer(number) => Some(vec![number.as_str().into()]),
        DeValue::Boolean(flag) => Some(vec![flag.to_string().into()]),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}
