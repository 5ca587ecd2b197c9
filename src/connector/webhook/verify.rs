//! `[webhook.verify]`: what proves that the processor sent a webhook: an HMAC over values of each notification, or over the whole body
//! with its signature in a header. Compared in constant time, with each key that may have made it.

use std::ops::Range;

use ring::hmac;

use super::super::document::{Section, string, strings};
use super::super::fault::Faults;
use super::super::leaf::Known;
use super::super::names::{Name, Secret};
use super::super::path::Path;
use super::super::sign::{Algorithm, KeyForm, Writing, find_key};
use super::super::tree::Tree;
use super::super::words::{read, words};
use super::{CredentialSets, Delivery};

/// More parts than any signature's header has.
const PARTS_MAX: usize = 32;
/// A day: who repeats a webhook signs it anew.
const TOLERANCE_S_MAX: u32 = 86_400;
const TEXT_BYTES_MAX: usize = 1024;

words! {
    /// Why a webhook is not believed.
    pub enum Untrusted {
        /// It has no signature, or none in the form that it should have.
        Unsigned = "unsigned",
        /// The signature is not over this by a key of ours.
        Signature = "signature",
        /// It was signed too long ago, or in the future.
        Time = "time",
        /// A header that it must have is missing or another.
        Header = "header",
        /// It is signed, or could not be looked at, and holds no notification.
        Unreadable = "unreadable",
    }
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(Box<str>),
    /// The body as it came.
    Body,
    /// The seconds since 1970 that stand with the signature.
    Time,
    /// A value of the notification, as it is written there; empty if it is not there.
    Item(Path),
    /// The nth credential.
    Credential(usize),
}

/// Where the signature stands.
#[derive(Debug, Clone)]
enum Place {
    /// In the notification.
    Item(Path),
    Header {
        name: Box<str>,
        part: Option<Box<str>>,
        time: Option<(Box<str>, u32)>,
    },
}

/// The rule, compiled.
#[derive(Debug, Clone)]
pub(super) struct Verify {
    secret: usize,
    form: KeyForm,
    algorithm: hmac::Algorithm,
    message: Vec<Piece>,
    writings: Vec<Writing>,
    place: Place,
}

/// A header that a webhook must have where the operator gave its credential.
#[derive(Debug, Clone)]
pub(super) struct Required {
    name: Box<str>,
    value: Vec<Piece>,
}

impl Verify {
    pub(super) fn read(mut section: Section<'_>, known: &mut Known, faults: &mut Faults<'_>) -> Option<Self> {
        let at = section.at.clone();
        let (text, alg_at) = section.required("alg", faults);
        let algorithm = if text.is_empty() { None } else { read::<Algorithm>("alg", text, &alg_at, faults) };
        let keyed = algorithm.and_then(Algorithm::keyed);
        if algorithm.is_some() && keyed.is_none() {
            faults.add(&alg_at, "a hash without a key proves nothing", "write alg = \"hmac-sha256\"");
        }
        let form = section
            .string("key", faults)
            .map_or(Some(KeyForm::Raw), |(text, at)| read::<KeyForm>("key", text, &at, faults));
        let (field, field_at) = section.required("secret", faults);
        let secret = if field.is_empty() { None } else { find_key(field, &field_at, known, faults) };
        let (text, msg_at) = section.required("msg", faults);
        let message = read_pieces(text, &msg_at, known, faults);
        if message.iter().any(|piece| matches!(piece, Piece::Credential(_))) {
            faults.add(&msg_at, "the message holds a credential", "name the key in `secret`");
        }
        let writings = section.take("enc").map_or(Vec::new(), |entry| {
            let list = strings("enc", entry.value, faults);
            list.iter().filter_map(|(text, at)| read::<Writing>("enc", text, at, faults)).collect()
        });
        if writings.is_empty() {
            let instead = "write enc = [\"base64\"]: how the signature is written";
            faults.add(&at, "[webhook.verify] has no `enc`", instead);
        }
        let place = read_place(&mut section, faults);
        section.finish(faults);
        let verify =
            Self { secret: secret?, form: form?, algorithm: keyed?, message, writings, place: place? };
        verify.check(&msg_at, faults);
        Some(verify)
    }

    /// What is signed must fit to where the signature stands.
    fn check(&self, at: &Range<usize>, faults: &mut Faults<'_>) {
        let has = |wanted: &Piece| self.message.contains(wanted);
        match &self.place {
            Place::Item(_) if has(&Piece::Body) || has(&Piece::Time) => {
                let instead = "write the values of the notification, {item.PATH}";
                faults.add(at, "a signature within the body cannot cover all of it", instead);
            }
            Place::Item(_) => {}
            Place::Header { .. } if !has(&Piece::Body) => {
                let instead = "write {body}: else a body could be changed under its signature";
                faults.add(at, "`msg` does not hold the body", instead);
            }
            Place::Header { time, .. } if time.is_some() != has(&Piece::Time) => {
                let instead = "write {time} into `msg`, `time` and `tolerance_s` beside it, or none of them";
                faults.add(at, "the time of a signature is either checked or signed", instead);
            }
            Place::Header { .. } => {}
        }
    }

    /// For a person.
    pub(super) fn explain(&self) -> String {
        match &self.place {
            Place::Item(path) => format!("each signed in itself ({})", path.spelling()),
            Place::Header { name, time: None, .. } => format!("signed as a whole, in the header {name}"),
            Place::Header { name, time: Some((_, seconds)), .. } => {
                format!("signed as a whole, in the header {name}, not longer ago than {seconds} s")
            }
        }
    }

    pub(super) const fn secret(&self) -> usize {
        self.secret
    }

    pub(super) fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.message.iter()
    }

    /// Where it looks.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let signed = self.message.iter().filter_map(|piece| match piece {
            Piece::Item(path) => Some(path),
            Piece::Literal(_) | Piece::Body | Piece::Time | Piece::Credential(_) => None,
        });
        let own = match &self.place {
            Place::Item(path) => Some(path),
            Place::Header { .. } => None,
        };
        signed.chain(own)
    }

    /// Whether what stands there is signed.
    pub(super) fn covers(&self, path: &Path) -> bool {
        self.message.iter().any(|piece| match piece {
            Piece::Body => true,
            Piece::Item(signed) => signed == path,
            Piece::Literal(_) | Piece::Time | Piece::Credential(_) => false,
        })
    }

    /// Whether a key is written as it should be.
    pub(super) fn is_key(&self, text: &str) -> bool {
        self.form.bytes(text).is_some_and(|bytes| !bytes.is_empty())
    }

    /// The keys that may have signed.
    pub(super) fn keys(&self, sets: &CredentialSets<'_>, fields: &[Box<str>]) -> Vec<hmac::Key> {
        let texts = sets.iter().filter_map(|set| credential(set, fields, self.secret));
        let bytes = texts.filter_map(|text| self.form.bytes(text)).filter(|bytes| !bytes.is_empty());
        bytes.map(|bytes| hmac::Key::new(self.algorithm, &bytes)).collect()
    }

    /// Checks a signature over the whole body; one within each notification is checked there.
    pub(super) fn check_whole(&self, delivery: &Delivery<'_>, keys: &[hmac::Key]) -> Result<(), Untrusted> {
        let Place::Header { name, part, time } = &self.place else { return Ok(()) };
        let header = the_one(delivery.headers, name).ok_or(Untrusted::Unsigned)?;
        let parts = || header.split(',').take(PARTS_MAX).filter_map(|pair| pair.trim().split_once('='));
        let mut signed_at = "";
        if let Some((key, tolerance_s)) = time {
            signed_at = parts().find(|(k, _)| *k == &**key).map(|(_, v)| v).ok_or(Untrusted::Unsigned)?;
            let seconds: i64 = signed_at.parse().map_err(|_| Untrusted::Unsigned)?;
            if delivery.unix_s.saturating_sub(seconds).unsigned_abs() > u64::from(*tolerance_s) {
                return Err(Untrusted::Time);
            }
        }
        let signatures: Vec<&str> = match part {
            Some(part) => parts().filter(|(k, _)| *k == &**part).map(|(_, v)| v).collect(),
            None => vec![header.trim()],
        };
        self.check_any(&self.message(delivery.body, signed_at, Tree::Nothing), &signatures, keys)
    }

    /// Checks the signature within a notification; one over the whole body was checked before.
    pub(super) fn check_item(&self, item: Tree<'_>, keys: &[hmac::Key]) -> Result<(), Untrusted> {
        let Place::Item(path) = &self.place else { return Ok(()) };
        let signature = path.text(item).ok_or(Untrusted::Unsigned)?;
        self.check_any(&self.message(&[], "", item), &[&signature], keys)
    }

    fn message(&self, body: &[u8], time: &str, item: Tree<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(body.len() + 256);
        for piece in &self.message {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Body => out.extend_from_slice(body),
                Piece::Time => out.extend_from_slice(time.as_bytes()),
                Piece::Item(path) => out.extend_from_slice(path.written(item).as_bytes()),
                Piece::Credential(_) => {}
            }
        }
        out
    }

    fn check_any(&self, message: &[u8], signatures: &[&str], keys: &[hmac::Key]) -> Result<(), Untrusted> {
        let tags: Vec<Vec<u8>> = signatures.iter().filter_map(|text| self.decode(text)).collect();
        if tags.is_empty() {
            return Err(Untrusted::Unsigned);
        }
        let fits = |key: &hmac::Key| tags.iter().any(|tag| hmac::verify(key, message, tag).is_ok());
        if keys.iter().any(fits) { Ok(()) } else { Err(Untrusted::Signature) }
    }

    /// The bytes of a signature that is written.
    fn decode(&self, text: &str) -> Option<Vec<u8>> {
        let mut bytes = text.as_bytes().to_vec();
        for writing in self.writings.iter().rev() {
            bytes = match writing {
                Writing::Hex | Writing::HexUpper => data_encoding::HEXLOWER_PERMISSIVE.decode(&bytes).ok()?,
                Writing::Base64Url => data_encoding::BASE64URL.decode(&bytes).ok()?,
                Writing::Base64 => data_encoding::BASE64.decode(&bytes).ok()?,
            };
        }
        Some(bytes)
    }
}

impl Required {
    /// The credential that it is made from.
    pub(super) fn credential(&self) -> Option<usize> {
        self.value.iter().find_map(|piece| match piece {
            Piece::Credential(index) => Some(*index),
            Piece::Literal(_) | Piece::Body | Piece::Time | Piece::Item(_) => None,
        })
    }

    /// The value that it must have, if the operator gave the credential.
    fn wanted(&self, set: &[(&str, &str)], fields: &[Box<str>]) -> Option<String> {
        let piece = |piece: &Piece| match piece {
            Piece::Literal(text) => Some(text.to_string()),
            Piece::Credential(index) => credential(set, fields, *index).map(str::to_owned),
            Piece::Body | Piece::Time | Piece::Item(_) => None,
        };
        self.value.iter().map(piece).collect()
    }
}

/// Reads `[webhook.require]`: headers and what they hold.
pub(super) fn read_required(
    mut section: Section<'_>,
    known: &mut Known,
    faults: &mut Faults<'_>,
) -> Vec<Required> {
    let mut out = Vec::new();
    for entry in section.take_rest() {
        let Some(text) = string(&entry, faults) else { continue };
        let value = read_pieces(text, &entry.value.span(), known, faults);
        let credentials = value.iter().filter(|piece| matches!(piece, Piece::Credential(_))).count();
        let plain = value.iter().all(|piece| matches!(piece, Piece::Literal(_) | Piece::Credential(_)));
        if credentials != 1 || !plain {
            let instead = "write Authorization = \"Basic {cred.FIELD}\"";
            faults.add(&entry.at, "a header that is required does not hold one credential", instead);
        }
        out.push(Required { name: entry.key.into(), value });
    }
    out
}

/// Whether every required header is there, as one of the credential sets has it; a set without the credential asks for none.
pub(super) fn check_required(
    required: &[Required],
    headers: &[(String, String)],
    sets: &CredentialSets<'_>,
    fields: &[Box<str>],
) -> Result<(), Untrusted> {
    for one in required {
        let wanted: Vec<String> = sets.iter().filter_map(|set| one.wanted(set, fields)).collect();
        let given = the_one(headers, &one.name).unwrap_or_default();
        let fits = |wanted: &String| is_equal(wanted.as_bytes(), given.as_bytes());
        if !wanted.is_empty() && !wanted.iter().any(fits) {
            return Err(Untrusted::Header);
        }
    }
    Ok(())
}

/// In a time that does not tell where they differ: what is compared are hashes.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"cardvault/webhook/header");
    hmac::verify(&key, a, hmac::sign(&key, b).as_ref()).is_ok()
}

fn credential<'c>(set: &[(&'c str, &'c str)], fields: &[Box<str>], index: usize) -> Option<&'c str> {
    let field = fields.get(index)?;
    set.iter().find(|(name, _)| *name == &**field).map(|(_, value)| *value)
}

/// The value of a header that is there once.
fn the_one<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    let mut all = headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
    let first = all.next()?;
    all.next().is_none().then_some(first.1.as_str())
}

fn read_place(section: &mut Section<'_>, faults: &mut Faults<'_>) -> Option<Place> {
    let at = section.at.clone();
    let signature = section.string("signature", faults);
    let header = section.string("header", faults);
    let part = section.string("part", faults).map(|(text, _)| Box::from(text));
    let time = section.string("time", faults).map(|(text, _)| Box::from(text));
    let tolerance = section.number("tolerance_s", faults);
    if let Some((_, at)) = tolerance.as_ref().filter(|(s, _)| !(1..=TOLERANCE_S_MAX).contains(s)) {
        let problem = format!("`tolerance_s` is not between 1 and {TOLERANCE_S_MAX}");
        faults.add(at, problem, "write tolerance_s = 300");
    }
    if time.is_some() != tolerance.is_some() {
        let instead = "write time = \"t\" and tolerance_s = 300, or neither";
        faults.add(&at, "`time` and `tolerance_s` do not stand together", instead);
    }
    match (signature, header) {
        (Some((path, path_at)), None) if part.is_none() && time.is_none() => {
            Path::read(path, &path_at, faults).map(Place::Item)
        }
        (None, Some((name, _))) => {
            let time = time.zip(tolerance.map(|(seconds, _)| seconds));
            Some(Place::Header { name: name.into(), part, time })
        }
        (Some(_), _) | (None, None) => {
            let instead = "write signature = \"…\", its path in a notification, or header = \"…\" (and `part`, `time` there)";
            faults.add(&at, "[webhook.verify] does not say where the signature is", instead);
            None
        }
    }
}

/// Reads `{body}`, `{time}`, `{item.PATH}` and `{cred.FIELD}` with text between; `{{` and `}}` are braces.
fn read_pieces(text: &str, at: &Range<usize>, known: &mut Known, faults: &mut Faults<'_>) -> Vec<Piece> {
    let mut out = Vec::new();
    if text.len() > TEXT_BYTES_MAX {
        faults.add(at, "a value is too long", format!("keep it under {TEXT_BYTES_MAX} bytes"));
        return out;
    }
    let mut literal = String::new();
    let mut rest = text;
    while let Some(found) = rest.find(['{', '}']) {
        let (before, after) = rest.split_at(found);
        literal.push_str(before);
        if let Some(tail) = after.strip_prefix("{{").or_else(|| after.strip_prefix("}}")) {
            literal.push_str(after.get(..1).unwrap_or_default());
            rest = tail;
            continue;
        }
        let Some((inside, tail)) = after.strip_prefix('{').and_then(|open| open.split_once('}')) else {
            faults.add(at, "a brace has no partner", "write {body}, or {{ and }} for braces themselves");
            return out;
        };
        if !literal.is_empty() {
            out.push(Piece::Literal(std::mem::take(&mut literal).into()));
        }
        out.extend(read_piece(inside, at, known, faults));
        rest = tail;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        out.push(Piece::Literal(literal.into()));
    }
    out
}

fn read_piece(inside: &str, at: &Range<usize>, known: &mut Known, faults: &mut Faults<'_>) -> Option<Piece> {
    if let Some(path) = inside.strip_prefix("item.") {
        return Path::read(path, at, faults).map(Piece::Item);
    }
    match (inside, Name::find(inside, &known.credentials)) {
        ("body", _) => Some(Piece::Body),
        ("time", _) => Some(Piece::Time),
        (_, Some(name @ Name::Secret(Secret::Credential(index)))) => {
            known.mark_used(name);
            Some(Piece::Credential(index))
        }
        (_, Some(_) | None) => {
            faults.add(
                at,
                format!("`{{{inside}}}` is not known here"),
                "write {body}, {time}, {item.PATH} or {cred.FIELD}",
            );
            None
        }
    }
}
