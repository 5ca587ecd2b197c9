//! A person's key: 32 random bytes in a file of their own (mode 0600), and its public half, which the supervisor registers.
//!
//! Signing seed (Ed25519) and X25519 secret = HKDF-SHA-256(seed; salt `cardvault/person/v1`; info `sign` and `seal`), 32 bytes each.
//! Public text = `cvper1` ‖ base32(Ed25519 public key ‖ X25519 public key ‖ check), secret text = `cvperkey1` ‖ base32(seed ‖ check),
//! lower case without padding. Check = the first 4 bytes of SHA-256(prefix ‖ the bytes before it).

use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use data_encoding::BASE32_NOPAD;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, Serializable};
use ring::digest;
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::random::{self, NoRandomness};

const PUBLIC_PREFIX: &str = "cvper1";
const SECRET_PREFIX: &str = "cvperkey1";
const CHECK_BYTES: usize = 4;
/// A key file has one key and a few lines of comment.
const FILE_BYTES_MAX: u64 = 4096;

/// Why a key was not taken. Nothing of it is quoted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// The text does not begin as a public key does.
    #[error("a person's public key begins with cvper1; `cardvault person keygen` prints it")]
    NotPublic,
    /// The check does not fit: a symbol was lost or mistyped.
    #[error("the key is damaged: copy it once more, whole")]
    Damaged,
    /// The file holds no key.
    #[error("{0} holds no person's key; make one with `cardvault person keygen`")]
    NoKey(String),
    /// Others may read the file.
    #[error(
        "{0} can be read by others: run chmod 600 on it, and make another key if somebody may have read it"
    )]
    Open(String),
    /// The file cannot be read or made.
    #[error("{0} cannot be {1}: {2}")]
    Io(String, &'static str, std::io::ErrorKind),
    /// The X25519 half is none.
    #[error("the key is of no use: make another with `cardvault person keygen`")]
    Useless,
    /// No randomness.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// The public half: what a person's signatures are checked with, and what is sealed to them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PersonPublic {
    /// Ed25519.
    pub signing: [u8; 32],
    /// X25519.
    pub sealing: [u8; 32],
}

impl PersonPublic {
    /// Reads what [`Display`](std::fmt::Display) writes, and nothing else.
    pub fn parse(text: &str) -> Result<Self, KeyFault> {
        let symbols = text.trim().strip_prefix(PUBLIC_PREFIX).ok_or(KeyFault::NotPublic)?;
        let bytes = unchecked(PUBLIC_PREFIX, symbols).ok_or(KeyFault::Damaged)?;
        let (signing, sealing) = bytes.split_at_checked(32).ok_or(KeyFault::Damaged)?;
        let part = |bytes: &[u8]| bytes.try_into().map_err(|_| KeyFault::Damaged);
        Ok(Self { signing: part(signing)?, sealing: part(sealing)? })
    }

    /// Whether this person signed these bytes.
    pub fn verify(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.signing).verify(bytes, signature).is_ok()
    }
}

impl std::fmt::Display for PersonPublic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&checked(PUBLIC_PREFIX, &[self.signing, self.sealing].concat()))
    }
}

impl std::fmt::Debug for PersonPublic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl Serialize for PersonPublic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PersonPublic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The secret half. It is in the person's own file, and in the memory of a command that the person runs.
pub struct PersonKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for PersonKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PersonKey(REDACTED)")
    }
}

impl PersonKey {
    /// A new one, random.
    pub fn make() -> Result<Self, KeyFault> {
        Ok(Self(Zeroizing::new(random::make_bytes()?)))
    }

    /// Writes a new file that only its owner reads; one that is there is left as it is.
    pub fn write(&self, path: &Path) -> Result<(), KeyFault> {
        let public = self.public()?;
        let secret = Zeroizing::new(checked(SECRET_PREFIX, self.0.as_slice()));
        let text = Zeroizing::new(format!(
            "# The key of one person: whoever has it acts as that person. Never copy it for somebody else.\n# public: {public}\n{}\n",
            secret.as_str()
        ));
        let failed = |error: std::io::Error| KeyFault::Io(path.display().to_string(), "made", error.kind());
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
    }

    /// Reads a key file that only its owner may read.
    pub fn read(path: &Path) -> Result<Self, KeyFault> {
        use std::io::Read;
        let name = || path.display().to_string();
        let failed = |error: std::io::Error| KeyFault::Io(name(), "read", error.kind());
        let file = std::fs::File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
            return Err(KeyFault::Open(name()));
        }
        let mut text = Zeroizing::new(String::new());
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix(SECRET_PREFIX));
        let bytes = Zeroizing::new(unchecked(SECRET_PREFIX, line.ok_or_else(|| KeyFault::NoKey(name()))?));
        let seed = bytes.as_ref().and_then(|bytes| bytes.as_slice().try_into().ok());
        seed.map(|seed| Self(Zeroizing::new(seed))).ok_or(KeyFault::Damaged)
    }

    /// The public half.
    pub fn public(&self) -> Result<PersonPublic, KeyFault> {
        let signing = self.pair()?.public_key().as_ref().try_into().map_err(|_| KeyFault::Useless)?;
        let secret = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(self.sealing_secret()?.as_slice());
        let sealing = X25519HkdfSha256::sk_to_pk(&secret.map_err(|_| KeyFault::Useless)?);
        Ok(PersonPublic { signing, sealing: sealing.to_bytes().into() })
    }

    /// Signs these bytes.
    pub fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, KeyFault> {
        Ok(self.pair()?.sign(bytes).as_ref().to_vec())
    }

    /// The X25519 secret: opens what was sealed to this person.
    pub fn sealing_secret(&self) -> Result<Zeroizing<[u8; 32]>, KeyFault> {
        self.derive(b"seal")
    }

    fn pair(&self) -> Result<Ed25519KeyPair, KeyFault> {
        Ed25519KeyPair::from_seed_unchecked(self.derive(b"sign")?.as_slice()).map_err(|_| KeyFault::Useless)
    }

    fn derive(&self, info: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeyFault> {
        let mut out = Zeroizing::new([0; 32]);
        let extracted = Salt::new(HKDF_SHA256, b"cardvault/person/v1").extract(self.0.as_slice());
        let filled = extracted.expand(&[info], HKDF_SHA256).and_then(|okm| okm.fill(out.as_mut_slice()));
        filled.map(|()| out).map_err(|_| KeyFault::Useless)
    }
}

/// Prefix, bytes and check, as text.
pub(super) fn checked(prefix: &str, bytes: &[u8]) -> String {
    let mut all = Zeroizing::new(bytes.to_vec());
    all.extend_from_slice(&check(prefix, bytes));
    format!("{prefix}{}", BASE32_NOPAD.encode(&all).to_ascii_lowercase())
}

/// The bytes of a text whose check fits.
pub(super) fn unchecked(prefix: &str, symbols: &str) -> Option<Vec<u8>> {
    if symbols.bytes().any(|symbol| symbol.is_ascii_uppercase()) {
        return None;
    }
    let all = Zeroizing::new(BASE32_NOPAD.decode(symbols.to_ascii_uppercase().as_bytes()).ok()?);
    let (bytes, sum) = all.split_at_checked(all.len().checked_sub(CHECK_BYTES)?)?;
    (check(prefix, bytes) == sum).then(|| bytes.to_vec())
}

fn check(prefix: &str, bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(prefix.as_bytes());
    context.update(bytes);
    let mut sum = [0; CHECK_BYTES];
    sum.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Vectors are added to, never edited: key files are kept by people for years.
    #[test]
    fn a_seed_gives_these_keys() {
        let key = PersonKey(Zeroizing::new([7; 32]));
        let public = key.public().unwrap();
        assert_eq!(public.to_string(), VECTOR);
        assert_eq!(PersonPublic::parse(VECTOR), Ok(public));
        assert_ne!(public.signing, public.sealing);
    }

    /// Computed with Python's hmac and the package `cryptography`.
    const VECTOR: &str = "cvper1sqak5ros7cnrr7ektn2vrln6prev65khhv3wxxvzse6q6c3jowoiyncnyvepjpkouqt6lhqhqyrm3ug7s6dkhlplnjrcjnf7l3ys4mhjl7tpe";

    #[test]
    fn a_key_comes_back_from_its_file_and_others_may_not_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("alice.key");
        let key = PersonKey::make().unwrap();
        key.write(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = PersonKey::read(&path).unwrap();
        assert_eq!(again.public(), key.public());
        assert!(matches!(key.write(&path), Err(KeyFault::Io(_, "made", std::io::ErrorKind::AlreadyExists))));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(PersonKey::read(&path), Err(KeyFault::Open(_))));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, text.replace("cvperkey1", "cvperkey1a")).unwrap();
        assert!(matches!(PersonKey::read(&path), Err(KeyFault::Damaged)));
        std::fs::write(&path, "# nothing\n").unwrap();
        assert!(matches!(PersonKey::read(&path), Err(KeyFault::NoKey(_))));
        assert_eq!(format!("{key:?}"), "PersonKey(REDACTED)");
    }

    #[test]
    fn every_damaged_symbol_of_a_public_key_is_found() {
        let text = PersonKey::make().unwrap().public().unwrap().to_string();
        assert!(PersonPublic::parse(&text).is_ok());
        for at in PUBLIC_PREFIX.len()..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'a' { b'b' } else { b'a' };
            let parsed = PersonPublic::parse(std::str::from_utf8(&other).unwrap());
            assert_eq!(parsed, Err(KeyFault::Damaged), "{at}");
        }
        assert_eq!(PersonPublic::parse(&text[..text.len() - 1]), Err(KeyFault::Damaged));
        assert_eq!(PersonPublic::parse(&text.to_ascii_uppercase()), Err(KeyFault::NotPublic));
        assert_eq!(PersonPublic::parse(""), Err(KeyFault::NotPublic));
    }

    #[test]
    fn a_signature_is_of_one_key_and_one_text() {
        let (key, other) = (PersonKey::make().unwrap(), PersonKey::make().unwrap());
        let signature = key.sign(b"text").unwrap();
        assert!(key.public().unwrap().verify(b"text", &signature));
        assert!(!key.public().unwrap().verify(b"texT", &signature));
        assert!(!other.public().unwrap().verify(b"text", &signature));
    }

    #[test]
    fn what_is_sealed_to_a_person_opens_with_their_secret_alone() {
        use hpke::aead::AesGcm256;
        use hpke::kdf::HkdfSha256;
        use hpke::{OpModeR, OpModeS};
        let (key, other) = (PersonKey::make().unwrap(), PersonKey::make().unwrap());
        let to = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&key.public().unwrap().sealing).unwrap();
        let mode = OpModeS::Base;
        let (encapped, sealed) = hpke::single_shot_seal::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &mode, &to, b"i", b"share", b"a",
        )
        .unwrap();
        let open = |key: &PersonKey| {
            let secret = key.sealing_secret().unwrap();
            let secret = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(secret.as_slice()).unwrap();
            let mode = OpModeR::Base;
            hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
                &mode, &secret, &encapped, b"i", &sealed, b"a",
            )
        };
        assert_eq!(open(&key).unwrap(), b"share");
        assert!(open(&other).is_err());
    }
}
