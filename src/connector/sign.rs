//! `[sign]`: a signature over a request, made with the operator's key.

use std::borrow::Cow;
use std::ops::Range;

use ring::{digest, hmac};
use zeroize::Zeroizing;

use super::document::{Entry, Section, strings};
use super::fault::Faults;
use super::leaf::{Known, Leaf};
use super::names::{Name, Secret, Signing};
use super::op::read_headers;
use super::render::{Header, Mode, RenderError, Scope};
use super::words::{read, words};

words! {
    /// How the key is written in the operator's file.
    pub(super) enum KeyForm {
        /// As it is.
        Raw = "raw",
        /// RFC 4648, section 4.
        Base64 = "base64",
        /// RFC 4648, section 8.
        Hex = "hex",
    }
}

words! {
    /// How the message becomes a signature.
    pub(super) enum Algorithm {
        /// RFC 2104 with SHA-256.
        HmacSha256 = "hmac-sha256",
        /// RFC 2104 with SHA-512.
        HmacSha512 = "hmac-sha512",
        /// RFC 2104 with SHA-1, for what is old.
        HmacSha1 = "hmac-sha1",
        /// FIPS 180-4, no key.
        Sha256 = "sha256",
        /// FIPS 180-4, no key.
        Sha512 = "sha512",
        /// FIPS 180-4, no key, for what is old.
        Sha1 = "sha1",
    }
}

words! {
    /// How the signature is written; one after the other.
    pub(super) enum Writing {
        /// Lower-case.
        Hex = "hex",
        /// Upper-case.
        HexUpper = "hex-upper",
        /// With padding.
        Base64 = "base64",
        /// RFC 4648, section 5, with padding.
        Base64Url = "base64url",
    }
}

impl KeyForm {
    /// The bytes of a key that is written so.
    pub(super) fn bytes(self, text: &str) -> Option<Zeroizing<Vec<u8>>> {
        let bytes = match self {
            Self::Raw => Some(text.as_bytes().to_vec()),
            Self::Base64 => data_encoding::BASE64.decode(text.as_bytes()).ok(),
            Self::Hex => data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok(),
        };
        bytes.map(Zeroizing::new)
    }
}

impl Algorithm {
    /// The algorithm, if it takes a key.
    pub(super) fn keyed(self) -> Option<hmac::Algorithm> {
        match self {
            Self::HmacSha256 => Some(hmac::HMAC_SHA256),
            Self::HmacSha512 => Some(hmac::HMAC_SHA512),
            Self::HmacSha1 => Some(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            Self::Sha256 | Self::Sha512 | Self::Sha1 => None,
        }
    }
}

/// A signature, compiled.
#[derive(Debug, Clone)]
pub(super) struct Sign {
    /// The credential that holds the key, and how.
    key: Option<(usize, KeyForm)>,
    algorithm: Algorithm,
    /// One after the other; of several, one without its value is left out.
    messages: Vec<Leaf>,
    /// What is signed in a second round, with the first signature in it.
    again: Option<Leaf>,
    writings: Vec<Writing>,
    /// How the body is digested, and how that is written.
    digest: (Algorithm, Vec<Writing>),
    /// Headers that only a signed request has.
    pub(super) headers: Vec<Header>,
}

/// What is known of a request while it is signed.
#[derive(Clone, Copy, Default)]
pub(super) struct Signed<'s> {
    pub(super) method: &'s str,
    pub(super) path: &'s str,
    pub(super) digest: &'s str,
    pub(super) signature: &'s str,
}

impl Sign {
    /// Compiles one section; every fault of it is found here.
    pub(super) fn read(mut section: Section<'_>, known: &mut Known, faults: &mut Faults<'_>) -> Option<Self> {
        let (text, at) = section.required("alg", faults);
        let algorithm = if text.is_empty() { None } else { read::<Algorithm>("alg", text, &at, faults) };
        let form = section
            .string("key", faults)
            .map_or(Some(KeyForm::Raw), |(text, at)| read::<KeyForm>("key", text, &at, faults));
        let key =
            section.string("secret", faults).and_then(|(field, at)| find_key(field, &at, known, faults));
        check_key(algorithm, key.is_some(), &section.at, faults);
        let messages = read_messages(&mut section, known, faults);
        let again = section.string("again", faults).map(|(text, at)| {
            let leaf = Leaf::read(text, &at, known, faults);
            check_message(&leaf, true, &at, faults);
            leaf
        });
        let writings = read_writings("enc", section.take("enc"), faults);
        let digest = read_digest(&mut section, faults);
        if writings.is_empty() {
            faults.add(
                &section.at,
                "[sign] has no `enc`",
                "write enc = [\"base64\"]: how the signature is written",
            );
        }
        let headers =
            section.section("header", faults).map_or(Vec::new(), |s| read_headers(s, known, faults));
        section.finish(faults);
        let key = key.zip(form);
        Some(Self { key, algorithm: algorithm?, messages, again, writings, digest, headers })
    }

    /// Whether the signature covers the body: then it cannot stand in it.
    pub(super) fn covers_body(&self) -> bool {
        let covers = |name| matches!(name, Name::Signing(Signing::Body | Signing::Digest));
        self.messages.iter().chain(&self.again).flat_map(Leaf::names).any(covers)
    }

    /// The digest of a body, as its signature covers it (RFC 3230 unless the section says otherwise).
    pub(super) fn digest(&self, body: &[u8]) -> String {
        let (algorithm, writings) = &self.digest;
        let bytes = match algorithm {
            Algorithm::Sha512 | Algorithm::HmacSha512 => hash(&digest::SHA512, body),
            Algorithm::Sha1 | Algorithm::HmacSha1 => hash(&digest::SHA1_FOR_LEGACY_USE_ONLY, body),
            Algorithm::Sha256 | Algorithm::HmacSha256 => hash(&digest::SHA256, body),
        };
        written(bytes, writings)
    }

    /// The signature of a request whose other parts are known to the scope.
    pub(super) fn make(&self, scope: &Scope<'_>, body: &[u8]) -> Result<String, RenderError> {
        if scope.mode != Mode::Send {
            return Ok("‹signature›".to_owned());
        }
        let mut message = Zeroizing::new(Vec::with_capacity(body.len() + 1024));
        for part in &self.messages {
            // A single message stands as it is; of several, those without their value are not there.
            if self.messages.len() == 1 || !part.is_left_out(scope)? {
                part.fill_message(scope, body, &mut message)?;
            }
        }
        let first = written(self.bytes(scope, &message)?, &self.writings);
        let Some(again) = &self.again else { return Ok(first) };
        message.clear();
        let signed = Signed { signature: &first, ..scope.signed };
        again.fill_message(&scope.while_signing(signed), body, &mut message)?;
        Ok(written(self.bytes(scope, &message)?, &self.writings))
    }

    fn bytes(&self, scope: &Scope<'_>, message: &[u8]) -> Result<Vec<u8>, RenderError> {
        match self.algorithm {
            Algorithm::HmacSha256 => self.mac(hmac::HMAC_SHA256, scope, message),
            Algorithm::HmacSha512 => self.mac(hmac::HMAC_SHA512, scope, message),
            Algorithm::HmacSha1 => self.mac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, scope, message),
            Algorithm::Sha256 => Ok(hash(&digest::SHA256, message)),
            Algorithm::Sha512 => Ok(hash(&digest::SHA512, message)),
            Algorithm::Sha1 => Ok(hash(&digest::SHA1_FOR_LEGACY_USE_ONLY, message)),
        }
    }

    fn mac(
        &self,
        algorithm: hmac::Algorithm,
        scope: &Scope<'_>,
        message: &[u8],
    ) -> Result<Vec<u8>, RenderError> {
        let unfit = || RenderError::Unfit("the key of [sign]".to_owned());
        let (index, form) = self.key.ok_or_else(unfit)?;
        let text = scope
            .values
            .secret(Secret::Credential(index), scope.credentials)
            .ok_or_else(|| scope.missing(Name::Secret(Secret::Credential(index))))?;
        let key = form.bytes(text).ok_or_else(unfit)?;
        Ok(hmac::sign(&hmac::Key::new(algorithm, &key), message).as_ref().to_vec())
    }
}

impl Signed<'_> {
    pub(super) fn text(&self, name: Signing, host: &str) -> Option<Cow<'static, str>> {
        let text = match name {
            Signing::Host => host,
            Signing::Method => self.method,
            Signing::Path => self.path,
            Signing::Digest => self.digest,
            Signing::Signature => self.signature,
            Signing::Body => "",
        };
        (!text.is_empty()).then(|| Cow::Owned(text.to_owned()))
    }
}

fn hash(algorithm: &'static digest::Algorithm, message: &[u8]) -> Vec<u8> {
    digest::digest(algorithm, message).as_ref().to_vec()
}

/// The bytes, written in each of these ways after the other: text of ASCII from the first on.
fn written(bytes: Vec<u8>, writings: &[Writing]) -> String {
    let write = |bytes: &[u8], writing: &Writing| match writing {
        Writing::Hex => data_encoding::HEXLOWER.encode(bytes),
        Writing::HexUpper => data_encoding::HEXUPPER.encode(bytes),
        Writing::Base64 => data_encoding::BASE64.encode(bytes),
        Writing::Base64Url => data_encoding::BASE64URL.encode(bytes),
    };
    let text = writings.iter().fold(bytes, |bytes, writing| write(&bytes, writing).into_bytes());
    String::from_utf8(text).unwrap_or_default()
}

/// `msg`: a text, or a list of them.
fn read_messages(section: &mut Section<'_>, known: &mut Known, faults: &mut Faults<'_>) -> Vec<Leaf> {
    let Some(entry) = section.take("msg") else {
        faults.add(&section.at, "[sign] has no `msg`", "write msg = \"…\": what is signed");
        return Vec::new();
    };
    let mut out = Vec::new();
    for (text, at) in strings("msg", entry.value, faults) {
        let leaf = Leaf::read(text, &at, known, faults);
        check_message(&leaf, false, &at, faults);
        out.push(leaf);
    }
    if out.is_empty() {
        faults.add(&entry.at, "`msg` is empty", "write msg = \"…\": what is signed");
    }
    out
}

fn check_message(message: &Leaf, is_second: bool, at: &Range<usize>, faults: &mut Faults<'_>) {
    let holds = message.names().any(|name| name == Name::Signing(Signing::Signature));
    if holds && !is_second {
        faults.add(at, "the message holds its own signature", "leave {signature} out of `msg`");
    }
    if !holds && is_second {
        let instead = "write it like again = \"{signature}.{cred.FIELD}\"";
        faults.add(at, "the second round signs nothing of the first", instead);
    }
    if message.names().any(|name| matches!(name, Name::Output(..))) {
        faults.add(at, "the message holds what a step gives", "sign without it: it is filled in later");
    }
}

fn read_writings(key: &str, entry: Option<Entry<'_>>, faults: &mut Faults<'_>) -> Vec<Writing> {
    let list = entry.map_or(Vec::new(), |entry| strings(key, entry.value, faults));
    list.iter().filter_map(|(text, at)| read::<Writing>(key, text, at, faults)).collect()
}

fn read_digest(section: &mut Section<'_>, faults: &mut Faults<'_>) -> (Algorithm, Vec<Writing>) {
    let named = section.string("digest", faults);
    let algorithm = named.as_ref().map_or(Some(Algorithm::Sha256), |(text, at)| {
        let found = read::<Algorithm>("digest", text, at, faults);
        if matches!(found, Some(Algorithm::HmacSha256 | Algorithm::HmacSha512 | Algorithm::HmacSha1)) {
            faults.add(at, "a digest has no key", "write sha256, sha512 or sha1");
        }
        found
    });
    let writings = read_writings("digest_enc", section.take("digest_enc"), faults);
    let usual = vec![Writing::Base64];
    (algorithm.unwrap_or(Algorithm::Sha256), if writings.is_empty() { usual } else { writings })
}

pub(super) fn find_key(
    field: &str,
    at: &Range<usize>,
    known: &mut Known,
    faults: &mut Faults<'_>,
) -> Option<usize> {
    let index = known.credentials.iter().position(|known| **known == *field);
    match index {
        Some(index) => known.mark_used(Name::Secret(Secret::Credential(index))),
        None => faults.add(at, "`secret` names no credential", "declare it in [credentials]"),
    }
    index
}

fn check_key(algorithm: Option<Algorithm>, has_key: bool, at: &Range<usize>, faults: &mut Faults<'_>) {
    use Algorithm::{HmacSha1, HmacSha256, HmacSha512, Sha1, Sha256, Sha512};
    match (algorithm, has_key) {
        (Some(HmacSha256 | HmacSha512 | HmacSha1), false) => {
            faults.add(at, "an HMAC has no key", "write secret = \"FIELD\", a field of [credentials]");
        }
        (Some(Sha256 | Sha512 | Sha1), true) => {
            faults.add(
                at,
                "a plain hash takes no key",
                "write {cred.FIELD} into `msg`, and leave `secret` out",
            );
        }
        (Some(_), _) | (None, _) => {}
    }
}
