//! `[op.NAME]`: one operation of a processor, its request as a template.

use std::ops::Range;

use super::document::{Entry, Section, strings};
use super::fault::{Faults, suggest};
use super::fields::Fields;
use super::leaf::{Known, Leaf};
use super::names::{NAMES, Name, Plain, Secret};
use super::path::Path;
use super::render::Header;
use super::rules::{Test, read_test};
use super::sign::Sign;
use super::template::{Body, Json, Pair, read_pairs};
use super::tree::Format;
use super::words::{Word, read, words};
use super::xml::Xml;

words! {
    /// What can be asked of a processor.
    pub enum Operation {
        /// Authorize and capture at once.
        Sale = "sale",
        /// Authorize; a capture follows.
        Authorize = "authorize",
        /// Capture an authorization, whole or in part.
        Capture = "capture",
        /// Pay back what was captured.
        Refund = "refund",
        /// Undo what is not settled.
        Void = "void",
        /// Check the card for no money.
        Verify = "verify",
        /// What became of an attempt, by our reference.
        Lookup = "lookup",
        /// What became of a capture, where that is asked differently.
        LookupCapture = "lookup_capture",
        /// What became of a refund.
        LookupRefund = "lookup_refund",
        /// What became of a void.
        LookupVoid = "lookup_void",
        /// What became of a verification.
        LookupVerify = "lookup_verify",
    }
}

impl Operation {
    /// Whether it only asks, and changes nothing.
    pub const fn is_lookup(self) -> bool {
        match self {
            Self::Lookup
            | Self::LookupCapture
            | Self::LookupRefund
            | Self::LookupVoid
            | Self::LookupVerify => true,
            Self::Sale | Self::Authorize | Self::Capture | Self::Refund | Self::Void | Self::Verify => false,
        }
    }

    /// Whether it puts the card to its issuer.
    pub const fn asks_issuer(self) -> bool {
        matches!(self, Self::Sale | Self::Authorize | Self::Verify)
    }
}

words! {
    /// The request method.
    pub(super) enum Method {
        /// GET.
        Get = "GET",
        /// POST.
        Post = "POST",
        /// PUT.
        Put = "PUT",
        /// PATCH.
        Patch = "PATCH",
        /// DELETE.
        Delete = "DELETE",
    }
}

words! {
    /// How the body is written.
    pub(super) enum Encoding {
        /// `application/json`.
        Json = "json",
        /// `application/x-www-form-urlencoded`.
        Form = "form",
        /// `text/xml`, or one field of a form.
        Xml = "xml",
        /// No body.
        None = "none",
    }
}

/// One operation, compiled.
#[derive(Debug, Clone)]
pub(super) struct Op {
    pub(super) operation: Operation,
    /// Its place in the file.
    pub(super) at: Range<usize>,
    pub(super) method: Method,
    pub(super) path: Leaf,
    pub(super) query: Vec<Pair>,
    pub(super) headers: Vec<Header>,
    pub(super) body: Body,
    pub(super) requires: Vec<Name>,
    /// For a look-up that answers with a list: where the found one stands in it.
    pub(super) within: Option<Within>,
    /// For a void: the operations that it can undo.
    pub(super) undoes: Vec<Operation>,
    /// For a capture: the first one ends the authorization, whatever is left of it.
    pub(super) once: bool,
    /// For a refund of a captured authorization: it names the capture.
    pub(super) of_capture: bool,
    /// How its answers are written, if not as the others'.
    pub(super) format: Option<Format>,
    /// How this operation is signed, if not as the others.
    pub(super) sign: Option<Sign>,
    /// Fields that stand elsewhere in this operation's answer.
    pub(super) fields: Fields,
}

/// Where a look-up's answer holds what was looked for.
#[derive(Debug, Clone)]
pub(super) struct Within {
    pub(super) list: Path,
    pub(super) place: Place,
    /// What the answer must say for its list to prove anything.
    pub(super) given: Vec<Test>,
    /// What it must say besides for its list to be all there is.
    pub(super) whole: Vec<Test>,
    /// What it says where it has no list, because nothing is in it.
    pub(super) nothing: Vec<Test>,
}

#[derive(Debug, Clone)]
pub(super) enum Place {
    /// At a place of the list, as the question named our reference.
    At(usize),
    /// In the item that holds our attempt at this path; `more` says that the list goes on elsewhere.
    Where { attempt: Path, more: Option<Path> },
}

impl Within {
    /// Where it looks.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let place: Vec<&Path> = match &self.place {
            Place::At(_) => Vec::new(),
            Place::Where { attempt, more } => std::iter::once(attempt).chain(more).collect(),
        };
        let tests = self.given.iter().chain(&self.whole).chain(&self.nothing);
        std::iter::once(&self.list).chain(place).chain(tests.flat_map(Test::paths))
    }
}

impl Op {
    /// The Content-Type of its body, unless the operation names its own.
    pub(super) fn content_type(&self) -> Option<&'static str> {
        let own = self.headers.iter().any(|header| header.name.eq_ignore_ascii_case("content-type"));
        match self.body {
            Body::None => None,
            Body::Json(_) | Body::Form(_) | Body::Xml(..) if own => None,
            Body::Json(_) => Some("application/json"),
            Body::Xml(_, None) => Some("text/xml"),
            Body::Form(_) | Body::Xml(_, Some(_)) => Some("application/x-www-form-urlencoded"),
        }
    }

    /// Whether it cannot be rendered without the card.
    pub(super) fn needs_card(&self) -> bool {
        self.needs(Name::is_of_card)
    }

    /// Whether it cannot be rendered without the processor's id of the transaction that it changes.
    pub(super) fn needs_transaction(&self) -> bool {
        self.needs(|name| matches!(name, Name::Plain(Plain::PrevTransaction)))
    }

    fn needs(&self, is_one: impl Fn(Name) -> bool) -> bool {
        let holds = |leaf: &Leaf| leaf.needed().any(&is_one);
        self.requires.iter().any(|name| is_one(*name))
            || holds(&self.path)
            || self.query.iter().any(|pair| holds(&pair.leaf))
            || self.headers.iter().any(|header| holds(&header.value))
            || self.body.any_leaf(&holds)
    }

    /// Whether its request carries the idempotency key: a question needs none.
    pub(super) fn has_key(&self) -> bool {
        self.method != Method::Get && !self.operation.is_lookup()
    }

    /// Compiles one section; every fault of it is found here.
    pub(super) fn read(
        operation: Operation,
        mut section: Section<'_>,
        known: &mut Known,
        faults: &mut Faults<'_>,
    ) -> Option<Self> {
        let (method_text, at) = section.required("method", faults);
        let method = if method_text.is_empty() { None } else { read("method", method_text, &at, faults) };
        let path = read_path(&mut section, known, faults);
        let query = section.take("query").map_or(Vec::new(), |entry| read_pairs(&entry, known, faults));
        for pair in &query {
            forbid_secrets(&pair.leaf, "a query", known, &section.at, faults);
        }
        let headers =
            section.section("header", faults).map_or(Vec::new(), |s| read_headers(s, known, faults));
        let mut body = read_body(&mut section, known, faults);
        if let Some(entry) = section.take("volatile") {
            for (address, at) in strings("volatile", entry.value, faults) {
                if !body.mark_volatile(address) {
                    faults.add(
                        &at,
                        "`volatile` names a leaf that the body does not have",
                        "write its key, or a.b.c",
                    );
                }
            }
        }
        let requires = read_requires(&mut section, known, faults);
        let within = read_within(operation, &mut section, faults);
        let undoes = read_undoes(operation, &mut section, faults);
        let once = operation == Operation::Capture && section.flag("once", faults);
        let of_capture = operation == Operation::Refund && section.flag("of_capture", faults);
        let sign = section.section("sign", faults).and_then(|s| Sign::read(s, known, faults));
        let format = section
            .string("format", faults)
            .and_then(|(text, at)| read::<Format>("format", text, &at, faults));
        let fields =
            section.section("field", faults).map_or(Fields::default(), |s| Fields::read(s, known, faults));
        let at = section.at.clone();
        section.finish(faults);
        Some(Self {
            operation,
            at,
            method: method?,
            path,
            query,
            headers,
            body,
            requires,
            within,
            undoes,
            once,
            of_capture,
            format,
            sign,
            fields,
        })
    }
}

fn read_path(section: &mut Section<'_>, known: &mut Known, faults: &mut Faults<'_>) -> Leaf {
    let (text, at) = section.required("path", faults);
    let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '\\' | '"' | '<' | '>' | '%');
    if !text.is_empty() && !text.starts_with('/') {
        faults.add(&at, "`path` does not begin with `/`", "write only what follows the endpoint");
    }
    // Placeholders may hold a space before a filter's argument; the text around them may not.
    if !text.chars().all(|c| allowed(c) || c == ' ') || text.starts_with("//") {
        faults.add(
            &at,
            "`path` holds a character that a path cannot",
            "put a query into query = [[\"key\", \"value\"]]",
        );
    }
    let leaf = Leaf::read(text, &at, known, faults);
    forbid_secrets(&leaf, "a path", known, &at, faults);
    leaf
}

/// Paths and queries are logged on the way: no card and no credential stands in one, unless it is public.
fn forbid_secrets(leaf: &Leaf, place: &str, known: &Known, at: &Range<usize>, faults: &mut Faults<'_>) {
    let is_public = |name: &Name| match name {
        Name::Secret(Secret::Credential(index)) => known.public.get(*index) == Some(&true),
        Name::Output(..) => known.public_outputs.contains(name),
        Name::Secret(_)
        | Name::Money(_)
        | Name::Plain(_)
        | Name::Operation
        | Name::Moment(_)
        | Name::Signing(_) => false,
    };
    for name in leaf.names().filter(|name| name.is_secret() && !is_public(name)) {
        faults.add(
            at,
            format!("`{}` stands in {place}", name.spelling(&[])),
            "put it into the body or a header; if it opens nothing, declare it as { …, public = true }",
        );
    }
}

const FRAMING: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "accept-encoding",
    "content-encoding",
];

/// Reads a table of headers.
pub(super) fn read_headers(
    mut section: Section<'_>,
    known: &mut Known,
    faults: &mut Faults<'_>,
) -> Vec<Header> {
    let mut out: Vec<Header> = Vec::new();
    for entry in section.take_rest() {
        check_header_name(entry.key, &entry.at, faults);
        if out.iter().any(|header| header.name.eq_ignore_ascii_case(entry.key)) {
            faults.add(&entry.at, "the same header stands twice", "leave one out");
        }
        let Some((text, base64_after)) = read_header_value(&entry, faults) else { continue };
        let at = entry.value.span();
        let value = Leaf::read(text, &at, known, faults);
        check_header_value(&value, text, &at, faults);
        check_header_value(&value, base64_after.unwrap_or_default(), &at, faults);
        out.push(Header { name: entry.key.into(), value, base64_after: base64_after.map(Box::from) });
    }
    out
}

/// A text, or `{ before = "Basic ", base64 = "{cred.user}:{cred.password}" }`: then what stands before it as well.
fn read_header_value<'a>(entry: &Entry<'a>, faults: &mut Faults<'_>) -> Option<(&'a str, Option<&'a str>)> {
    let Some(table) = entry.value.get_ref().as_table() else {
        return super::document::string(entry, faults).map(|text| (text, None));
    };
    let mut section = Section::new(format!("`{}`", entry.key), entry.value.span(), table);
    let (text, _) = section.required("base64", faults);
    let before = section.string("before", faults).map_or("", |(text, _)| text);
    section.finish(faults);
    Some((text, Some(before)))
}

/// A header's name must be a token, and not one that frames the message.
pub(super) fn check_header_name(name: &str, at: &Range<usize>, faults: &mut Faults<'_>) {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        faults.add(at, "this is not a header name", "write letters, digits and `-`");
    } else if FRAMING.iter().any(|framing| framing.eq_ignore_ascii_case(name)) {
        faults.add(at, format!("the header `{name}` belongs to the forwarder"), "leave it out");
    }
}

fn check_header_value(value: &Leaf, text: &str, at: &Range<usize>, faults: &mut Faults<'_>) {
    if !text.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        faults.add(at, "a header value holds a character that a header cannot", "write printable ASCII");
    }
    for name in
        value.names().filter(|name| matches!(name, Name::Secret(Secret::CardNumber | Secret::CardCvc)))
    {
        faults.add(at, format!("`{}` stands in a header", name.spelling(&[])), "put it into the body");
    }
}

fn read_body(section: &mut Section<'_>, known: &mut Known, faults: &mut Faults<'_>) -> Body {
    let (text, at) = section.required("encoding", faults);
    let encoding = if text.is_empty() { None } else { read::<Encoding>("encoding", text, &at, faults) };
    let entry = section.take("body");
    let form_field = section.string("form_field", faults);
    if let Some((_, at)) = form_field.as_ref().filter(|_| encoding != Some(Encoding::Xml)) {
        faults.add(at, "`form_field` stands without an XML body", "write encoding = \"xml\"");
    }
    match (encoding, entry) {
        (Some(Encoding::Json), Some(entry)) => {
            if entry.value.get_ref().as_table().is_none() {
                faults.add(&entry.at, "the body is not a table", "write [op.NAME.body] and its keys below");
            }
            Json::read(entry.value, known, faults).map_or(Body::None, Body::Json)
        }
        (Some(Encoding::Form), Some(entry)) => Body::Form(read_pairs(&entry, known, faults)),
        (Some(Encoding::Xml), Some(entry)) => {
            let text = super::document::string(&entry, faults);
            let xml = text.and_then(|text| Xml::read(text, &entry.value.span(), known, faults));
            xml.map_or(Body::None, |xml| Body::Xml(Box::new(xml), form_field.map(|(key, _)| key.into())))
        }
        (Some(Encoding::Json | Encoding::Form | Encoding::Xml), None) => {
            faults.add(
                &section.at,
                format!("{} has no `body`", section.title),
                "write it, or encoding = \"none\"",
            );
            Body::None
        }
        (Some(Encoding::None), Some(entry)) => {
            faults.add(
                &entry.at,
                "there is a body but the encoding is none",
                "write encoding = \"json\", \"form\" or \"xml\"",
            );
            Body::None
        }
        (Some(Encoding::None) | None, _) => Body::None,
    }
}

fn read_requires(section: &mut Section<'_>, known: &mut Known, faults: &mut Faults<'_>) -> Vec<Name> {
    let Some(entry) = section.take("requires") else { return Vec::new() };
    let mut out = Vec::new();
    for (text, at) in strings("requires", entry.value, faults) {
        match known.find_name(text).filter(|name| !name.is_of_this_send()) {
            Some(name) => out.push(name),
            None => {
                let instead = suggest(text, NAMES.iter().map(|(spelling, ..)| *spelling));
                faults.add(&at, format!("`requires` holds `{text}`, which is not a name"), instead);
            }
        }
    }
    out
}

fn read_within(operation: Operation, section: &mut Section<'_>, faults: &mut Faults<'_>) -> Option<Within> {
    let list = section.string("in", faults);
    let item = section.string("where", faults);
    let more = section.string("more", faults).and_then(|(text, at)| Path::read(text, &at, faults));
    let mut tests = |key| -> Vec<Test> {
        let entries = section.section(key, faults).map_or(Vec::new(), |mut section| section.take_rest());
        entries.iter().filter_map(|entry| read_test(entry, faults)).collect()
    };
    let (given, whole, nothing) = (tests("given"), tests("whole"), tests("nothing"));
    let Some((text, at)) = list else {
        if let Some((_, at)) = item {
            faults.add(&at, "`where` stands without `in`", "write in = \"data\": the list to look in");
        }
        return None;
    };
    let path = Path::read(text, &at, faults)?;
    if !operation.is_lookup() {
        faults.add(&at, "`in` stands outside a look-up", "leave it out: only a look-up answers with a list");
    }
    if path.fits(Format::Xml) && given.is_empty() {
        let instead = "write given = { \"//resultCode\" = \"Ok\" }: what an answer says that holds the list";
        faults.add(&at, "in XML a list that is not there looks like an empty one", instead);
    }
    if let Some((text, at)) = item {
        let attempt = Path::read(text, &at, faults)?;
        return Some(Within { list: path, place: Place::Where { attempt, more }, given, whole, nothing });
    }
    match path.split_index() {
        Some((list, index)) => Some(Within { list, place: Place::At(index), given, whole, nothing }),
        None if path.fits(Format::Xml) => {
            Some(Within { list: path, place: Place::At(0), given, whole, nothing })
        }
        None => {
            let instead = "write it like in = \"data[0]\", or add `where`";
            faults.add(&at, "`in` does not end in a place of a list", instead);
            None
        }
    }
}

fn read_undoes(operation: Operation, section: &mut Section<'_>, faults: &mut Faults<'_>) -> Vec<Operation> {
    if operation != Operation::Void {
        return Vec::new();
    }
    let Some(entry) = section.take("undoes") else { return vec![Operation::Sale, Operation::Authorize] };
    let list = strings("undoes", entry.value, faults);
    list.iter().filter_map(|(text, at)| read::<Operation>("undoes", text, at, faults)).collect()
}

/// Reads `[op]`: one section for each operation; `like` takes another's place as it is.
pub(super) fn read_ops(mut section: Section<'_>, known: &mut Known, faults: &mut Faults<'_>) -> Vec<Op> {
    let mut out: Vec<Op> = Vec::new();
    for entry in section.take_rest() {
        let Some(operation) = Operation::parse(entry.key) else {
            let instead = suggest(entry.key, Operation::TEXTS.iter().copied());
            faults.add(&entry.at, format!("`{}` is not an operation", entry.key), instead);
            continue;
        };
        let Some(mut section) = super::document::section(format!("[op.{}]", entry.key), &entry, faults)
        else {
            continue;
        };
        if let Some((model, at)) = section.string("like", faults) {
            match out.iter().find(|op| op.operation.text() == model) {
                Some(model) => out.push(Op { operation, at: section.at.clone(), ..model.clone() }),
                None => faults.add(
                    &at,
                    "`like` names no operation above it",
                    "write like = \"sale\" below [op.sale]",
                ),
            }
            section.finish(faults);
        } else {
            out.extend(Op::read(operation, section, known, faults));
        }
    }
    if out.is_empty() && faults.is_empty() {
        faults.add(&section.at, "the connector has no operation", "write [op.sale] at least");
    }
    out
}
