//! `[sign]`: a signature over a request, made with the operator's key.

use std::borrow::Cow;
use std::ops::Range;

use ring::{digest, hmac};
use zeroize::Zeroizing;

use super::document::{Section, strings};
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
        /// With padding.
        Base64 = "base64",
    }
}

/// A signature, compiled.
#[derive(Debug, Clone)]
pub(super) struct Sign {
    /// The credential that holds the key, and how.
    key: Option<(usize, KeyForm)>,
    algorithm: Algorithm,
    message: Leaf,
    writings: Vec<Writing>,
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
        let (text, at) = section.required("msg", faults);
        let message = Leaf::read(text, &at, known, faults);
        if message.names().any(|name| name == Name::Signing(Signing::Signature)) {
            faults.add(&at, "the message holds its own signature", "leave {signature} out of `msg`");
        }
        if message.names().any(|name| matches!(name, Name::Output(..))) {
            faults.add(&at, "the message holds what a step gives", "sign without it: it is filled in later");
        }
        let writings = section.take("enc").map_or(Vec::new(), |entry| {
            let list = strings("enc", entry.value, faults);
            list.iter().filter_map(|(text, at)| read::<Writing>("enc", text, at, faults)).collect()
        });
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
        Some(Self { key: key.zip(form), algorithm: algorithm?, message, writings, headers })
    }

    /// Whether the signature covers the body: then it cannot stand in it.
    pub(super) fn covers_body(&self) -> bool {
        let covers = |name| matches!(name, Name::Signing(Signing::Body | Signing::Digest));
        self.message.names().any(covers)
    }

    /// The signature of a request whose other parts are known to the scope.
    pub(super) fn make(&self, scope: &Scope<'_>, body: &[u8]) -> Result<String, RenderError> {
        if scope.mode != Mode::Send {
            return Ok("‹signature›".to_owned());
        }
        let mut message = Zeroizing::new(Vec::with_capacity(body.len() + 1024));
        self.message.fill_message(scope, body, &mut message)?;
        let mut bytes = match self.algorithm {
            Algorithm::HmacSha256 => self.mac(hmac::HMAC_SHA256, scope, &message)?,
            Algorithm::HmacSha512 => self.mac(hmac::HMAC_SHA512, scope, &message)?,
            Algorithm::HmacSha1 => self.mac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, scope, &message)?,
            Algorithm::Sha256 => hash(&digest::SHA256, &message),
            Algorithm::Sha512 => hash(&digest::SHA512, &message),
            Algorithm::Sha1 => hash(&digest::SHA1_FOR_LEGACY_USE_ONLY, &message),
        };
        for writing in &self.writings {
            bytes = match writing {
                Writing::Hex => data_encoding::HEXLOWER.encode(&bytes),
                Writing::Base64 => data_encoding::BASE64.encode(&bytes),
            }
            .into_bytes();
        }
        String::from_utf8(bytes).map_err(|_| RenderError::Unsendable("the signature".to_owned()))
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
        let key = Zeroizing::new(match form {
            KeyForm::Raw => text.as_bytes().to_vec(),
            KeyForm::Base64 => data_encoding::BASE64.decode(text.as_bytes()).map_err(|_| unfit())?,
            KeyForm::Hex => {
                data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| unfit())?
            }
        });
        Ok(hmac::sign(&hmac::Key::new(algorithm, &key), message).as_ref().to_vec())
    }
}

/// SHA-256 of a body in base64, as `Digest` headers write it (RFC 3230).
pub(super) fn body_digest(body: &[u8]) -> String {
    data_encoding::BASE64.encode(digest::digest(&digest::SHA256, body).as_ref())
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

fn find_key(field: &str, at: &Range<usize>, known: &mut Known, faults: &mut Faults<'_>) -> Option<usize> {
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
