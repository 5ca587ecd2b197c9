//! Reading a connector file, section by section; every fault is found here, before anything is rendered.

use std::ops::Range;
use std::time::Duration;

use toml::de::DeTable;

use super::Connector;
use super::authorization::Authorization;
use super::decline::{DeclineTable, check_date};
use super::document::{Entry, Section, TOP, entries, number, string, strings};
use super::fault::{Fault, Faults};
use super::fields::Fields;
use super::leaf::{Known, Leaf, Map};
use super::money::{EXPONENT_MAX, MoneyRules, currency};
use super::names::{Name, Plain, Secret, Signing};
use super::op::{Op, Operation, check_header_name, read_headers, read_ops};
use super::path::Path;
use super::render::Header;
use super::rules::{Rule, read_rules};
use super::sign::Sign;
use super::step::{Step, read_steps};
use super::tree::Format;
use super::updates::Updates;
use super::webhook::Webhook;
use super::words::{Word, read, words};

/// A connector is a few hundred lines.
const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Longer than any processor takes.
const TIMEOUT_S_MAX: u32 = 180;

words! {
    /// What a connector rests on.
    pub enum Evidence {
        /// The processor's own documentation.
        Documented = "documented",
        /// Recorded traffic.
        Recorded = "recorded",
        /// It has run against the processor.
        Live = "live",
    }
}

words! {
    /// How a processor treats a second send of the same attempt.
    pub enum IdempotencyKind {
        /// The same key gives the same stored answer.
        Replay = "replay",
        /// Only successes are remembered.
        SuccessOnly = "success-only",
        /// Our reference is unique there: a second send is refused.
        NaturalKey = "natural-key",
        /// Nothing protects: never send again.
        None = "none",
    }
}

/// The idempotency of a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    /// Its class.
    pub kind: IdempotencyKind,
    /// The class of captures, refunds and voids: the same unless it is said.
    pub later: IdempotencyKind,
    /// How long a key is remembered.
    pub ttl: Option<Duration>,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `https://host[:port][/base]`, without a slash at its end.
    Fixed(Box<str>),
    /// The destination's configuration names it.
    Operator,
}

/// Parses a connector file.
pub(super) fn parse(file: &str, text: &str) -> Result<Connector, Vec<Fault>> {
    let mut faults = Faults::new(file, text);
    if text.len() > TEXT_BYTES_MAX {
        faults.add(&(0..0), "the file is too large", format!("keep it under {TEXT_BYTES_MAX} bytes"));
        return Err(faults.into_sorted());
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().unwrap_or(0..0);
        faults.add(&at, format!("this is not TOML: {}", error.message()), "write it as https://toml.io says");
    }
    if !faults.is_empty() {
        return Err(faults.into_sorted());
    }
    let top = Section::new(TOP, 0..0, table.get_ref());
    match read_file(top, text, &mut faults) {
        Some(connector) if faults.is_empty() => Ok(connector),
        Some(_) | None => Err(faults.into_sorted()),
    }
}

fn read_file(mut top: Section<'_>, text: &str, faults: &mut Faults<'_>) -> Option<Connector> {
    let at = top.at.clone();
    let name = read_name(&mut top, faults);
    let version = read_version(&mut top, faults);
    let (evidence, source, date) = read_evidence(&mut top, faults);
    let (mut known, notes) = read_known(&mut top, faults);
    let (live, test, timeout) = read_endpoint(&mut top, faults);
    let steps = top.section("step", faults);
    let steps = steps.map_or(Vec::new(), |s| read_steps(s, &mut known, read_step_endpoint, faults));
    let sign = top.section("sign", faults).and_then(|s| Sign::read(s, &mut known, faults));
    let auth = read_auth(&mut top, &mut known, faults);
    let headers = top.section("header", faults).map_or(Vec::new(), |s| read_headers(s, &mut known, faults));
    let (idempotency, key) = read_idempotency(&mut top, &mut known, faults);
    let currency = top.section("currency", faults);
    let mut money = currency.map_or(MoneyRules::default(), |s| read_currency(s, faults));
    let (settle, until, lookup_of) = read_lookup(&mut top, faults);
    let terms = top.section("authorization", faults);
    let authorization = terms.map_or(Authorization::default(), |s| Authorization::read(s, faults));
    let ops = read_operations(&mut top, &mut known, faults);
    check_lookup(&ops, settle, &at, faults);
    money.in_major = known.writes_decimal && !known.writes_minor;
    check_smallest(&money, &ops, &at, faults);
    let common: Vec<&Header> = auth.iter().chain(&headers).chain(&key).collect();
    check_headers((&auth, &headers, key.as_ref()), &ops, &at, faults);
    check_sends((&ops, &steps), sign.as_ref(), &common, faults);
    let (format, empty) = read_response(&mut top, faults);
    let (fields, updates) = read_facts(&mut top, &mut known, faults);
    let rules = read_rules(top.take("rule"), &at, faults);
    let declines = read_declines(&mut top, faults);
    check_optional(&known, faults);
    let webhook =
        top.section("webhook", faults).and_then(|s| Webhook::read(s, (format, &ops), &mut known, faults));
    top.finish(faults);
    check_paths(format, &ops, (&fields, &updates, &rules), &at, faults);
    check_step_paths(format, &steps, faults);
    check_used(&known, faults);
    let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    Some(Connector {
        name: name.into(),
        version: version?,
        evidence: evidence?,
        source: source.into(),
        date: date.into(),
        hash: hash.as_ref().try_into().ok()?,
        live,
        test,
        timeout,
        credentials: known.credentials,
        credential_notes: notes,
        optional: known.optional,
        auth,
        sign,
        steps,
        headers,
        idempotency: idempotency?,
        key,
        settle,
        until,
        lookup_of,
        authorization,
        money,
        maps: known.maps,
        ops,
        format,
        empty,
        fields,
        updates,
        rules,
        declines,
        webhook,
    })
}

fn read_declines(top: &mut Section<'_>, faults: &mut Faults<'_>) -> DeclineTable {
    let section = top.section("decline", faults);
    section.map_or(DeclineTable::default(), |section| DeclineTable::read(section, faults))
}

fn read_operations(top: &mut Section<'_>, known: &mut Known, faults: &mut Faults<'_>) -> Vec<Op> {
    match top.section("op", faults) {
        Some(section) => read_ops(section, known, faults),
        None => read_ops(Section::new("[op]", top.at.clone(), &DeTable::new()), known, faults),
    }
}

/// What is read of an answer beside its verdict.
fn read_facts(top: &mut Section<'_>, known: &mut Known, faults: &mut Faults<'_>) -> (Fields, Updates) {
    let fields = top.section("field", faults);
    let fields = fields.map_or(Fields::default(), |section| Fields::read(section, known, faults));
    let updates = top.section("card_update", faults);
    (fields, updates.map_or(Updates::default(), |section| Updates::read(section, known, faults)))
}

fn read_version(top: &mut Section<'_>, faults: &mut Faults<'_>) -> Option<u32> {
    let version = top.number("version", faults);
    if version.is_none() {
        let instead = "write version = 1, and count up when you change it";
        faults.add(&top.at.clone(), "the file has no `version`", instead);
    }
    version.map(|(version, _)| version)
}

fn read_name<'a>(top: &mut Section<'a>, faults: &mut Faults<'_>) -> &'a str {
    let (name, at) = top.required("name", faults);
    if !name.is_empty() && !is_word(name) {
        faults.add(
            &at,
            "`name` holds more than a-z, 0-9 and _, or is too long",
            "write name = \"my_processor\"",
        );
    }
    name
}

fn is_word(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    !text.is_empty() && text.len() <= 48 && text.bytes().all(plain)
}

fn read_evidence<'a>(top: &mut Section<'a>, faults: &mut Faults<'_>) -> (Option<Evidence>, &'a str, &'a str) {
    let (text, at) = top.required("evidence", faults);
    let evidence = if text.is_empty() { None } else { read("evidence", text, &at, faults) };
    let (source, _) = top.required("source", faults);
    let (date, at) = top.required("date", faults);
    check_date(date, &at, faults);
    (evidence, source, date)
}

/// A credential's note, whether it only says whose account it is, and whether a destination may do without it.
fn read_note(entry: &Entry<'_>, faults: &mut Faults<'_>) -> (Box<str>, bool, bool) {
    let Some(table) = entry.value.get_ref().as_table() else {
        return (string(entry, faults).unwrap_or_default().into(), false, false);
    };
    let mut section = Section::new(format!("`{}`", entry.key), entry.value.span(), table);
    let (note, _) = section.required("note", faults);
    let public = section.flag("public", faults);
    let optional = section.flag("optional", faults);
    section.finish(faults);
    (note.into(), public, optional)
}

/// Credentials and maps come first: leaves refer to them.
fn read_known(top: &mut Section<'_>, faults: &mut Faults<'_>) -> (Known, Vec<Box<str>>) {
    let mut known = Known {
        public_outputs: Vec::new(),
        credentials_at: Vec::new(),
        maps_at: Vec::new(),
        credentials: Vec::new(),
        used: Vec::new(),
        public: Vec::new(),
        optional: Vec::new(),
        maps: Vec::new(),
        maps_used: Vec::new(),
        outputs: Vec::new(),
        writes_minor: false,
        writes_decimal: false,
    };
    let mut notes = Vec::new();
    if let Some(mut section) = top.section("credentials", faults) {
        for entry in section.take_rest() {
            if !is_word(entry.key) {
                faults.add(
                    &entry.at,
                    "a credential's name holds more than a-z, 0-9 and _",
                    "write secret_key = \"…\"",
                );
            }
            // The text is a note; whoever pastes a credential here finds it refused in [auth], never printed.
            let (note, public, optional) = read_note(&entry, faults);
            notes.push(note);
            known.public.push(public);
            known.credentials_at.push(entry.at.clone());
            known.optional.push(optional);
            known.credentials.push(entry.key.into());
            known.used.push(false);
        }
    }
    if let Some(mut section) = top.section("map", faults) {
        for entry in section.take_rest() {
            if let Some(map) = read_map(&entry, faults) {
                known.maps.push(map);
                known.maps_at.push(entry.at.clone());
                known.maps_used.push(false);
            }
        }
    }
    (known, notes)
}

fn read_map(entry: &super::document::Entry<'_>, faults: &mut Faults<'_>) -> Option<Map> {
    let Some(table) = entry.value.get_ref().as_table() else {
        faults.add(
            &entry.at,
            "a map is not a table",
            format!("write [map.{}] and its pairs below", entry.key),
        );
        return None;
    };
    let mut map = Map { name: entry.key.into(), pairs: Vec::new(), other: None };
    for pair in entries(table) {
        let Some(value) = string(&pair, faults) else { continue };
        if pair.key == "*" {
            map.other = Some(value.into());
        } else {
            map.pairs.push((pair.key.into(), value.into()));
        }
    }
    Some(map)
}

fn read_endpoint(
    top: &mut Section<'_>,
    faults: &mut Faults<'_>,
) -> (Option<Endpoint>, Option<Endpoint>, Duration) {
    let usual = Duration::from_secs(60);
    let Some(mut section) = top.section("endpoint", faults) else {
        faults.add(
            &top.at.clone(),
            "the file has no [endpoint]",
            "write [endpoint] with live, test and timeout_s",
        );
        return (None, None, usual);
    };
    let live = section.string("live", faults).map(|(text, at)| read_url(text, &at, faults));
    let test = section.string("test", faults).map(|(text, at)| read_url(text, &at, faults));
    if live.is_none() && test.is_none() {
        faults.add(
            &section.at.clone(),
            "[endpoint] has neither `live` nor `test`",
            "write live = \"https://…\"",
        );
    }
    let timeout = section.number("timeout_s", faults);
    if let Some((_, at)) = timeout.as_ref().filter(|(s, _)| !(1..=TIMEOUT_S_MAX).contains(s)) {
        let problem = format!("`timeout_s` is not between 1 and {TIMEOUT_S_MAX}");
        faults.add(at, problem, "write the processor's own limit, like timeout_s = 60");
    }
    section.finish(faults);
    (live, test, timeout.map_or(usual, |(s, _)| Duration::from_secs(u64::from(s))))
}

/// Where a step goes, if not where the operations go.
fn read_step_endpoint(
    section: &mut Section<'_>,
    faults: &mut Faults<'_>,
) -> (Option<Endpoint>, Option<Endpoint>) {
    let Some(mut section) = section.section("endpoint", faults) else { return (None, None) };
    let mut url = |key| section.string(key, faults).map(|(text, at)| read_url(text, &at, faults));
    let both = (url("live"), url("test"));
    section.finish(faults);
    both
}

fn read_url(text: &str, at: &Range<usize>, faults: &mut Faults<'_>) -> Endpoint {
    if text == "operator" {
        return Endpoint::Operator;
    }
    let rest = text.strip_prefix("https://").unwrap_or_default();
    let (authority, base) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let (host, port) = authority.split_once(':').map_or((authority, None), |(h, p)| (h, Some(p)));
    let host_fits = host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    let is_name =
        host.contains('.') && !host.starts_with('.') && host.bytes().any(|b| b.is_ascii_alphabetic());
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|p| p > 0));
    let base_fits =
        base.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b)) && !base.contains("..");
    if !(host_fits && is_name && port_fits && base_fits) {
        let instead = "write \"https://host.example\" (port and path may follow), or \"operator\"";
        faults.add(at, "an endpoint is not an https URL with a host name", instead);
    }
    Endpoint::Fixed(text.trim_end_matches('/').into())
}

fn read_auth(top: &mut Section<'_>, known: &mut Known, faults: &mut Faults<'_>) -> Vec<Header> {
    let Some(mut section) = top.section("auth", faults) else { return Vec::new() };
    let headers = section.section("header", faults).map_or(Vec::new(), |s| read_headers(s, known, faults));
    for header in &headers {
        let opens = |name| matches!(name, Name::Secret(Secret::Credential(_)) | Name::Output(..));
        if !header.value.names().any(opens) {
            let problem =
                format!("the header `{}` of [auth] holds no credential of the operator", header.name);
            faults.add(&section.at, problem, "write {cred.NAME} where it goes, never the credential itself");
        }
    }
    section.finish(faults);
    headers
}

fn read_idempotency(
    top: &mut Section<'_>,
    known: &mut Known,
    faults: &mut Faults<'_>,
) -> (Option<Idempotency>, Option<Header>) {
    let Some(mut section) = top.section("idempotency", faults) else {
        let instead =
            "write [idempotency] and kind = \"replay\", \"success-only\", \"natural-key\" or \"none\"";
        faults.add(&top.at.clone(), "the file has no [idempotency]", instead);
        return (None, None);
    };
    let (text, at) = section.required("kind", faults);
    let kind = if text.is_empty() { None } else { read::<IdempotencyKind>("kind", text, &at, faults) };
    let later = section.string("later", faults);
    let later = later.and_then(|(text, at)| read::<IdempotencyKind>("later", text, &at, faults));
    let header = section.string("header", faults);
    let (value, value_at) = section.string("key", faults).unwrap_or(("{attempt.id}", at.clone()));
    let ttl = section.number("ttl_h", faults);
    let is_remembered = |kind| matches!(kind, Some(IdempotencyKind::Replay | IdempotencyKind::SuccessOnly));
    let remembers = is_remembered(kind) || is_remembered(later);
    if remembers && ttl.as_ref().is_none_or(|(hours, _)| *hours == 0) {
        faults.add(
            &at,
            "`ttl_h` is missing: how long does the processor remember a key?",
            "write ttl_h = 24",
        );
    }
    if is_remembered(later) && header.is_none() {
        faults.add(
            &at,
            "a class that goes by a key, and no key is sent",
            "write header = \"Idempotency-Key\"",
        );
    }
    if kind == Some(IdempotencyKind::None) && later.is_none() && header.is_some() {
        faults.add(
            &at,
            "a key is sent to a processor that ignores it",
            "leave `header` out, or change `kind`",
        );
    }
    let key = header.map(|(name, at)| {
        check_header_name(name, &at, faults);
        let leaf = Leaf::read(value, &value_at, known, faults);
        if !leaf.names().any(|name| {
            matches!(
                name,
                Name::Plain(Plain::AttemptId | Plain::AttemptRef | Plain::AttemptNumber | Plain::AttemptUuid)
            )
        }) {
            faults.add(&value_at, "the key does not hold our attempt", "write key = \"{attempt.id}\"");
        }
        if leaf.names().any(Name::is_secret) {
            faults.add(&value_at, "the key holds a secret", "write key = \"{attempt.id}\"");
        }
        Header { name: name.into(), value: leaf, base64_after: None }
    });
    section.finish(faults);
    let ttl = ttl.map(|(hours, _)| Duration::from_secs(u64::from(hours) * 3600));
    (kind.map(|kind| Idempotency { kind, later: later.unwrap_or(kind), ttl }), key)
}

/// Nobody holds more for a moment; the weakest currencies need this much.
const SMALLEST_MAX: u32 = 10_000_000;

fn read_currency(mut section: Section<'_>, faults: &mut Faults<'_>) -> MoneyRules {
    let mut rules = MoneyRules::default();
    if let Some((case, at)) = section.string("case", faults) {
        rules.lower_case = case == "lower";
        if !matches!(case, "lower" | "upper") {
            faults.add(&at, "`case` has an unknown word", "write case = \"lower\" or \"upper\"");
        }
    }
    let exponents = section.section("exponent", faults);
    for (code, value, at) in read_per_currency(exponents, faults) {
        if value > EXPONENT_MAX {
            faults.add(&at, "an exponent is too large", format!("write 0 to {EXPONENT_MAX}"));
        }
        rules.exponents.push((code, u8::try_from(value).unwrap_or(0)));
    }
    let multiples = section.section("multiple_of", faults);
    for (code, value, at) in read_per_currency(multiples, faults) {
        if value == 0 {
            faults.add(&at, "an amount cannot be a multiple of 0", "write 10 where the last digit must be 0");
        }
        rules.multiples.push((code, value));
    }
    let smallest = section.section("smallest", faults);
    for (code, value, at) in read_per_currency(smallest, faults) {
        let amount = i64::from(value);
        let fits = std::str::from_utf8(&code).ok().and_then(currency).map(|c| rules.to_processor(amount, &c));
        if value == 0 || value > SMALLEST_MAX {
            let instead = format!("write minor units, 1 to {SMALLEST_MAX}: 50 where that is 0.50");
            faults.add(&at, "a smallest amount is not one", instead);
        } else if !matches!(fits, Some(Ok(_))) {
            let instead = "write ISO 4217 minor units that `exponent` and `multiple_of` allow";
            faults.add(&at, "a smallest amount cannot be told to this processor", instead);
        }
        rules.smallest.push((code, amount));
    }
    section.finish(faults);
    rules
}

/// A verification without `[op.verify]` holds the smallest amount and releases it: both must be there.
fn check_smallest(money: &MoneyRules, ops: &[Op], at: &Range<usize>, faults: &mut Faults<'_>) {
    let op = |operation| ops.iter().find(|op| op.operation == operation);
    if money.smallest.is_empty() || op(Operation::Verify).is_some() {
        return;
    }
    let releases = op(Operation::Void).is_some_and(|void| void.undoes.contains(&Operation::Authorize));
    if op(Operation::Authorize).is_none() || !releases {
        faults.add(
            at,
            "[currency.smallest] says what a verification holds, and nothing holds and releases it",
            "write [op.authorize] and an [op.void] that undoes it, or leave it out",
        );
    }
}

fn read_per_currency(
    section: Option<Section<'_>>,
    faults: &mut Faults<'_>,
) -> Vec<([u8; 3], u32, Range<usize>)> {
    let mut out = Vec::new();
    for entry in section.map_or(Vec::new(), |mut section| section.take_rest()) {
        let Some(known) = currency(entry.key) else {
            faults.add(
                &entry.at,
                format!("`{}` is not a currency of ISO 4217", entry.key),
                "write it like USD",
            );
            continue;
        };
        if let Some(value) = number(&entry, faults) {
            out.push((known.code, value, entry.value.span()));
        }
    }
    out
}

/// `[lookup]`: how soon one is believed, and which operations' attempts `[op.lookup]` finds.
fn read_lookup(
    top: &mut Section<'_>,
    faults: &mut Faults<'_>,
) -> (Option<Duration>, Option<Duration>, Vec<Operation>) {
    let Some(mut section) = top.section("lookup", faults) else { return (None, None, Vec::new()) };
    let settle = section.number("settle_s", faults);
    let until = section.number("until_s", faults);
    if let Some((_, at)) = until.as_ref().filter(|(s, _)| settle.as_ref().is_some_and(|(from, _)| s <= from))
    {
        let instead = "write until_s = 900: how long what was sent surely stays where a look-up sees it";
        faults.add(at, "`until_s` is not after `settle_s`", instead);
    }
    if settle.is_none() {
        let instead = "write settle_s = 60: how long until a look-up surely finds what was sent";
        faults.add(&section.at.clone(), "[lookup] has no `settle_s`", instead);
    }
    let Some(entry) = section.take("of") else {
        let instead = "write of = [\"sale\", \"authorize\"]: the operations whose attempts [op.lookup] finds";
        faults.add(&section.at.clone(), "[lookup] has no `of`", instead);
        return (None, None, Vec::new());
    };
    let mut of = Vec::new();
    for (text, at) in strings("of", entry.value, faults) {
        match read::<Operation>("of", text, &at, faults) {
            Some(operation) if operation.is_lookup() => {
                faults.add(&at, "a look-up cannot be looked up", "name the operations that send something");
            }
            Some(operation) => of.push(operation),
            None => {}
        }
    }
    section.finish(faults);
    let seconds = |(seconds, _)| Duration::from_secs(u64::from(seconds));
    (settle.map(seconds), until.map(seconds), of)
}

fn check_lookup(ops: &[Op], settle: Option<Duration>, at: &Range<usize>, faults: &mut Faults<'_>) {
    let has = ops.iter().any(|op| op.operation.is_lookup());
    if has != settle.is_some() && faults.is_empty() {
        faults.add(at, "[lookup] and [op.lookup] do not stand together", "write both, or neither");
    }
}

/// A header that stands twice would be sent twice, and each server believes another one.
fn check_headers(
    (auth, headers, key): (&[Header], &[Header], Option<&Header>),
    ops: &[Op],
    at: &Range<usize>,
    faults: &mut Faults<'_>,
) {
    let alone = (Vec::new(), true);
    let of_ops = ops.iter().map(|op| (&op.headers, op.has_key()));
    for (own, has_key) in of_ops.chain([(&alone.0, alone.1)]) {
        let mut seen: Vec<String> = Vec::new();
        for header in auth.iter().chain(headers).chain(key.filter(|_| has_key)).chain(own) {
            let name = header.name.to_ascii_lowercase();
            if seen.contains(&name) {
                let problem = format!("the header `{}` would be sent twice", header.name);
                faults.add(at, problem, "leave one of them out");
            }
            seen.push(name);
        }
    }
}

/// How answers are written, and the words by which they say that a field has nothing in it.
fn read_response(top: &mut Section<'_>, faults: &mut Faults<'_>) -> (Format, Vec<Box<str>>) {
    let Some(mut section) = top.section("response", faults) else {
        faults.add(&top.at.clone(), "the file has no [response]", "write [response] and format = \"json\"");
        return (Format::Json, Vec::new());
    };
    let (text, at) = section.required("format", faults);
    let format = if text.is_empty() { None } else { read::<Format>("format", text, &at, faults) };
    let empty = section.take("empty").map_or(Vec::new(), |entry| strings("empty", entry.value, faults));
    section.finish(faults);
    (format.unwrap_or(Format::Json), empty.into_iter().map(|(text, _)| text.into()).collect())
}

/// A path that no answer of the connector could hold finds nothing, ever.
fn check_paths(
    format: Format,
    ops: &[Op],
    (fields, updates, rules): (&Fields, &Updates, &[Rule]),
    at: &Range<usize>,
    faults: &mut Faults<'_>,
) {
    let of = |op: &Op| op.format.unwrap_or(format);
    let fits = |path: &Path, ops_named: &[Operation]| {
        let named = ops.iter().filter(|op| ops_named.is_empty() || ops_named.contains(&op.operation));
        path.fits(format) && ops_named.is_empty() || named.into_iter().any(|op| path.fits(of(op)))
    };
    const WRITE: &str =
        "write JSON paths like `error.code`, XML paths like `//reply/@code`, and the key alone for a form";
    for rule in rules {
        let (mut paths, named) = rule.paths();
        if !paths.all(|path| fits(path, named)) {
            faults.add(rule.at(), "a test's path is not of the answers' format", WRITE);
        }
    }
    if !fields.paths().all(|path| fits(path, &[])) {
        faults.add(at, "a path of [field] is not of the answers' format", WRITE);
    }
    if !updates.paths().all(|path| fits(path, &[])) {
        faults.add(at, "a path of [card_update] is not of the answers' format", WRITE);
    }
    for op in ops {
        let within = op.within.iter().flat_map(|within| within.paths());
        if !op.fields.paths().chain(within).all(|path| path.fits(of(op))) {
            faults.add(
                &op.at,
                format!("a path of [op.{}] is not of its answers' format", op.operation.text()),
                WRITE,
            );
        }
    }
}

/// A step's paths, which stand beside the rules and fields of the connector.
fn check_step_paths(format: Format, steps: &[Step], faults: &mut Faults<'_>) {
    for step in steps {
        let format = step.op.format.unwrap_or(format);
        if !step.paths().all(|path| path.fits(format)) {
            faults.add(
                &step.op.at,
                format!("a path of [step.{}] is not of its answer's format", step.name),
                "write JSON paths like `access_token`, XML paths like `//token`, or `format` for this step",
            );
        }
    }
}

/// A part of a signature, or of a step, where there is none would refuse every request.
fn check_sends(
    (ops, steps): (&[Op], &[Step]),
    sign: Option<&Sign>,
    common: &[&Header],
    faults: &mut Faults<'_>,
) {
    let needs_signature = |leaf: &Leaf| leaf.needed().any(|name| name == Name::Signing(Signing::Signature));
    let names_of = |op: &Op, common: &[&Header]| {
        let mut names: Vec<(Name, bool)> = Vec::new();
        op.body.each_name(&mut |name| names.push((name, true)));
        let headers = op.headers.iter().chain(common.iter().copied()).map(|header| &header.value);
        let others = headers.chain([&op.path]).chain(op.query.iter().map(|pair| &pair.leaf));
        names.extend(others.flat_map(Leaf::names).map(|name| (name, false)));
        names
    };
    let of_ops = ops.iter().map(|op| (op, op.sign.as_ref().or(sign), None, common));
    let of_steps = steps.iter().enumerate();
    let of_steps = of_steps.map(|(index, step)| (&step.op, step.op.sign.as_ref(), Some(index), &[][..]));
    for (op, sign, step, common) in of_ops.chain(of_steps) {
        let title = step.map_or_else(
            || format!("[op.{}]", op.operation.text()),
            |index| format!("[step.{}]", steps.get(index).map_or("", |step| &*step.name)),
        );
        for (name, in_body) in names_of(op, common) {
            let problem = match name {
                Name::Signing(part) => match sign {
                    None => Some(format!("{title} names a part of a signature, and nothing is signed there")),
                    Some(_) if in_body && part != Signing::Signature => {
                        Some(format!("the body of {title} names what is known only when the body is written"))
                    }
                    // What is signed is the body without it, so the body must do without.
                    Some(sign) if in_body && sign.covers_body() && op.body.any_leaf(&needs_signature) => {
                        let problem = format!("the signature over the body of {title} stands in that body");
                        faults.add(&op.at, problem, "write {?signature}: signed is the body without it");
                        None
                    }
                    Some(_) => None,
                },
                Name::Output(index, _) => {
                    let comes_before = steps.get(index).is_some_and(|given| given.goes_before(op.operation));
                    (step.is_none() && !comes_before)
                        .then(|| format!("{title} names what a step gives that does not go before it"))
                }
                Name::Secret(_) | Name::Money(_) | Name::Plain(_) | Name::Operation | Name::Moment(_) => None,
            };
            if let Some(problem) = problem {
                faults.add(
                    &op.at,
                    problem,
                    "write [sign] with `msg` and `enc`, or the operation into the step's `before`",
                );
            }
        }
    }
}

/// A request with a credential that may be missing would fail only when it is sent.
fn check_optional(known: &Known, faults: &mut Faults<'_>) {
    let marks = known.used.iter().zip(&known.optional).zip(&known.credentials_at);
    for (field, (_, at)) in
        known.credentials.iter().zip(marks).filter(|(_, ((used, optional), _))| **used && **optional)
    {
        let problem = format!("the credential `{field}` is optional and stands in a request");
        faults.add(at, problem, "leave `optional` out; only [webhook] can do without a credential");
    }
}

/// What is declared and never used is most often a slip in the place that should use it; while other faults stand, that place
/// may be one of them.
fn check_used(known: &Known, faults: &mut Faults<'_>) {
    if !faults.is_empty() {
        return;
    }
    let credentials = known.credentials.iter().zip(&known.credentials_at).zip(&known.used);
    for ((field, at), _) in credentials.filter(|(_, used)| !**used) {
        let problem = format!("the credential `{field}` is declared and never used");
        faults.add(at, problem, format!("write {{cred.{field}}} where it goes, or take it out"));
    }
    let maps = known.maps.iter().zip(&known.maps_at).zip(&known.maps_used);
    for ((map, at), _) in maps.filter(|(_, used)| !**used) {
        let problem = format!("[map.{}] is declared and never used", map.name);
        faults.add(at, problem, "use it, or take it out");
    }
}
