//! `[step.NAME]`: a request that goes before others, whose answer they need: an access token, a one-time token for a card.
//!
//! The keeper renders step and request at once; where the step's output belongs, the request holds a random mark. The
//! forwarder sends the step, or still has its output, and puts that in the mark's place, escaped as the place needs it.

use std::borrow::Cow;
use std::time::Duration;

use zeroize::Zeroizing;

use super::document::{Entry, Section, number, string, strings};
use super::fault::Faults;
use super::leaf::Known;
use super::names::{Name, Secret};
use super::op::{Op, Operation};
use super::path::Path;
use super::render::SEGMENT;
use super::spec::Endpoint;
use super::template::Body;
use super::tree::{Format, Parsed, text_of_body};
use super::words::read;

/// An access token lives hours; one that is said to live longer is asked for again.
const KEEP_MAX: Duration = Duration::from_secs(24 * 3600);
/// More than any token.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;
const STEPS_MAX: usize = 4;

/// One step, compiled.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) name: Box<str>,
    pub(super) op: Op,
    /// The operations that it goes before; empty: all.
    before: Vec<Operation>,
    pub(super) live: Option<Endpoint>,
    pub(super) test: Option<Endpoint>,
    outputs: Vec<Vec<Path>>,
    expires: Option<Expires>,
}

/// For how long the outputs of a step are good.
#[derive(Debug, Clone)]
enum Expires {
    /// The answer says it here, in seconds.
    Told(Path),
    /// The processor's documents say it.
    Known(u64),
}

/// What a step gave. No `Debug`: it opens an account, or a card.
pub struct StepOutputs {
    /// In the order of the file.
    pub values: Vec<Zeroizing<String>>,
    /// How long they may be used again; `None`: for this request only.
    pub keep: Option<Duration>,
}

/// Which part of a request an output is put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Path and query.
    Path,
    /// The value of a header.
    Header,
    /// The body.
    Body,
}

impl Step {
    /// Whether it goes before this operation.
    pub(super) fn goes_before(&self, operation: Operation) -> bool {
        self.before.is_empty() || self.before.contains(&operation)
    }

    /// Whether it sends card data.
    pub(super) fn has_card(&self) -> bool {
        let mut has = false;
        self.op.body.each_name(&mut |name| has |= name.is_of_card() || name == Name::Secret(Secret::CardCvc));
        has
    }

    /// Where it looks.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let told = match &self.expires {
            Some(Expires::Told(path)) => Some(path),
            Some(Expires::Known(_)) | None => None,
        };
        self.outputs.iter().flatten().chain(told)
    }

    /// Reads the outputs of an answer; `None` if it does not hold them all.
    pub(super) fn outputs(&self, format: Format, status: u16, body: &[u8]) -> Option<StepOutputs> {
        if !(200..300).contains(&status) {
            return None;
        }
        let text = text_of_body(self.op.format.unwrap_or(format), body);
        let parsed = Parsed::read(self.op.format.unwrap_or(format), &text)?;
        let tree = parsed.tree();
        let value = |paths: &Vec<Path>| {
            let text = Zeroizing::new(paths.iter().find_map(|path| path.text(tree))?);
            let fits = text.len() <= OUTPUT_BYTES_MAX && text.bytes().all(|b| (0x20..=0x7e).contains(&b));
            fits.then_some(text)
        };
        let values: Option<Vec<_>> = self.outputs.iter().map(value).collect();
        let seconds = match &self.expires {
            Some(Expires::Told(path)) => path.text(tree).and_then(|text| text.parse::<u64>().ok()),
            Some(Expires::Known(seconds)) => Some(*seconds),
            None => None,
        };
        // Used up to a tenth of its life before it ends: clocks differ, and a request takes time.
        let keep = seconds.map(|s| Duration::from_secs(s - s / 10).min(KEEP_MAX)).filter(|d| !d.is_zero());
        Some(StepOutputs { values: values?, keep })
    }
}

/// The mark of an output.
pub(super) fn mark(mark: &str, step: usize, output: usize) -> String {
    format!("{mark}s{step}o{output}e")
}

/// Puts outputs in the place of their marks, escaped for where they stand. `body` says how the body is written.
pub(super) fn place<'t>(
    part: Part,
    body: &Body,
    text: Cow<'t, [u8]>,
    base: &str,
    outputs: &[&StepOutputs],
) -> Cow<'t, [u8]> {
    if base.is_empty() || find(&text, base.as_bytes()).is_none() {
        return text;
    }
    let mut text = text.into_owned();
    for (step, given) in outputs.iter().enumerate() {
        for (output, value) in given.values.iter().enumerate() {
            let mark = mark(base, step, output);
            while let Some(at) = find(&text, mark.as_bytes()) {
                let value = escaped(part, body, value);
                let mut next = Vec::with_capacity(text.len() + value.len());
                next.extend_from_slice(text.get(..at).unwrap_or_default());
                next.extend_from_slice(value.as_bytes());
                next.extend_from_slice(text.get(at + mark.len()..).unwrap_or_default());
                drop(Zeroizing::new(std::mem::replace(&mut text, next)));
            }
        }
    }
    Cow::Owned(text)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn escaped(part: Part, body: &Body, value: &str) -> Zeroizing<String> {
    let percent = |text: &str| percent_encoding::utf8_percent_encode(text, SEGMENT).to_string();
    let in_json = |text: &str| {
        let quoted = serde_json::Value::from(text).to_string();
        quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned()
    };
    let in_xml = |text: &str| {
        let mut out = Vec::new();
        // Printable ASCII always fits.
        let _ = super::xml::escape(text, &mut out);
        String::from_utf8(out).unwrap_or_default()
    };
    Zeroizing::new(match (part, body) {
        (Part::Header, _) | (Part::Body, Body::None) => value.to_owned(),
        (Part::Path, _) | (Part::Body, Body::Form(_)) => percent(value),
        (Part::Body, Body::Json(_)) => in_json(value),
        (Part::Body, Body::Xml(_, None)) => in_xml(value),
        (Part::Body, Body::Xml(_, Some(_))) => percent(&in_xml(value)),
    })
}

/// Reads `[step]`: in the order of the file, each may use what those above it give.
pub(super) fn read_steps(
    mut section: Section<'_>,
    known: &mut Known,
    read_endpoint: impl Fn(&mut Section<'_>, &mut Faults<'_>) -> (Option<Endpoint>, Option<Endpoint>),
    faults: &mut Faults<'_>,
) -> Vec<Step> {
    let mut out: Vec<Step> = Vec::new();
    for entry in section.take_rest() {
        let title = format!("[step.{}]", entry.key);
        let Some(mut section) = super::document::section(title, &entry, faults) else { continue };
        let at = section.at.clone();
        if out.len() == STEPS_MAX {
            faults.add(&at, "there are too many steps", format!("write {STEPS_MAX} at most"));
        }
        let before = section.take("before").map_or(Vec::new(), |entry| {
            let list = strings("before", entry.value, faults);
            list.iter().filter_map(|(text, at)| read::<Operation>("before", text, at, faults)).collect()
        });
        let (live, test) = read_endpoint(&mut section, faults);
        let expires = section.take("expires_s").and_then(|entry| read_expires(&entry, faults));
        let outputs = read_outputs(&mut section, faults);
        if outputs.is_empty() {
            faults.add(&at, "a step gives nothing", "write output.access_token = \"access_token\"");
        }
        let index = out.len();
        let Some(op) = Op::read(Operation::Lookup, section, known, faults) else { continue };
        for (output, (name, _, public)) in outputs.iter().enumerate() {
            let output = Name::Output(index, output);
            known.outputs.push((format!("step.{}.{name}", entry.key), output));
            known.public_outputs.extend(public.then_some(output));
        }
        let outputs = outputs.into_iter().map(|(_, paths, _)| paths).collect();
        out.push(Step { name: entry.key.into(), op, before, live, test, outputs, expires });
    }
    out
}

/// Seconds that the documents name, or the path of them.
fn read_expires(entry: &Entry<'_>, faults: &mut Faults<'_>) -> Option<Expires> {
    if entry.value.get_ref().as_integer().is_some() {
        return number(entry, faults).map(|seconds| Expires::Known(seconds.into()));
    }
    let text = string(entry, faults)?;
    Path::read(text, &entry.value.span(), faults).map(Expires::Told)
}

/// An output's name, its paths, and whether it only names a thing: `{ path = "id", public = true }`.
type Output<'a> = (&'a str, Vec<Path>, bool);

fn read_outputs<'a>(section: &mut Section<'a>, faults: &mut Faults<'_>) -> Vec<Output<'a>> {
    let Some(mut section) = section.section("output", faults) else { return Vec::new() };
    let entries = section.take_rest();
    let read = |entry: &Entry<'a>, faults: &mut Faults<'_>| {
        let (list, public) = match entry.value.get_ref().as_table() {
            None => (strings(entry.key, entry.value, faults), false),
            Some(table) => {
                let mut inner = Section::new(format!("`{}`", entry.key), entry.value.span(), table);
                let list = inner.take("path").map_or(Vec::new(), |e| strings("path", e.value, faults));
                let public = inner.flag("public", faults);
                inner.finish(faults);
                (list, public)
            }
        };
        let paths: Vec<Path> = list.iter().filter_map(|(text, at)| Path::read(text, at, faults)).collect();
        if paths.is_empty() {
            faults.add(&entry.at, format!("`{}` has no path", entry.key), "write it like \"access_token\"");
        }
        (entry.key, paths, public)
    };
    entries.iter().map(|entry| read(entry, faults)).collect()
}
