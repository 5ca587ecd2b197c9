//! Signed notes and checkpoints in the C2SP forms (c2sp.org/signed-note, c2sp.org/tlog-checkpoint).
//!
//! A note is its text, an empty line, and signature lines `— name base64(key id(4) ‖ signature)`. A checkpoint's text is
//! `origin\nsize\nbase64(root)\n`; the origin is `installation/node`, there are no extension lines. The key id is
//! `SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key)[:4]`; a verifier key is written `name+hex(key id)+base64(0x01 ‖ public key)`.

use data_encoding::{BASE64, HEXLOWER};
use ring::signature::{ED25519, UnparsedPublicKey};

use super::merkle::{Hash, sha256};

/// The signature type of plain Ed25519.
const ED25519_TYPE: u8 = 1;
/// C2SP wants at least 16 accepted.
const SIGNATURES_MAX: usize = 64;

/// Size and root of a log at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose log: `installation/node`.
    pub origin: String,
    /// How many leaves.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// Why a note is not to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not the form of a signed note.
    #[error("not a signed note")]
    Form,
    /// No signature line of this key.
    #[error("not signed by this key")]
    NotSigned,
    /// A signature line of this key, but the signature is not its.
    #[error("the signature of this key is wrong")]
    Signature,
    /// A good note, but not of a checkpoint.
    #[error("not a checkpoint")]
    NotCheckpoint,
}

/// The text of a checkpoint: the bytes to sign.
pub fn checkpoint_text(origin: &str, size: u64, root: &Hash) -> String {
    format!("{origin}\n{size}\n{}\n", BASE64.encode(root))
}

/// The note of a text that this key has signed.
pub fn signed_note(text: &str, name: &str, public_key: &[u8; 32], signature: &[u8; 64]) -> String {
    let mut line = key_id(name, public_key).to_vec();
    line.extend_from_slice(signature);
    format!("{text}\n— {name} {}\n", BASE64.encode(&line))
}

/// The id of an Ed25519 key under this name.
pub fn key_id(name: &str, public_key: &[u8; 32]) -> [u8; 4] {
    let mut bytes = name.as_bytes().to_vec();
    bytes.extend_from_slice(&[b'\n', ED25519_TYPE]);
    bytes.extend_from_slice(public_key);
    let [a, b, c, d, ..] = sha256(&bytes);
    [a, b, c, d]
}

impl Checkpoint {
    /// Reads the text of a checkpoint.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let checkpoint = Self {
            origin: origin.to_owned(),
            size: size.parse().ok()?,
            root: BASE64.decode(root.as_bytes()).ok()?.try_into().ok()?,
        };
        // One spelling only: no sign, no zeros in front, no extension lines.
        let again = checkpoint_text(origin, checkpoint.size, &checkpoint.root);
        (again == text && !origin.is_empty()).then_some(checkpoint)
    }
}

impl Checkpoint {
    /// What a note claims, without looking at its signatures: enough to know what to export, never to believe.
    pub fn of_unverified(note: &str) -> Option<Self> {
        note.rfind("\n\n").and_then(|at| note.get(..=at)).and_then(Self::parse)
    }
}

/// A key that notes and statements are verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    public_key: [u8; 32],
}

impl VerifierKey {
    /// The key under this name; `None` if no key may have the name.
    pub fn new(name: &str, public_key: [u8; 32]) -> Option<Self> {
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
        (!name.is_empty() && !name.contains(bad)).then(|| Self { name: name.to_owned(), public_key })
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.split_once('+')?;
        let (id, key) = rest.split_once('+')?;
        let (kind, public_key) =
            BASE64.decode(key.as_bytes()).ok()?.split_first().map(|(k, p)| (*k, p.to_vec()))?;
        let key = Self::new(name, public_key.try_into().ok()?)?;
        (kind == ED25519_TYPE && HEXLOWER.encode(&key.id()) == id).then_some(key)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id.
    pub fn id(&self) -> [u8; 4] {
        key_id(&self.name, &self.public_key)
    }

    /// Whether this key has signed these bytes.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public_key).verify(message, signature).is_ok()
    }

    /// The text of a note that this key has signed. Signatures of other keys are not looked at.
    pub fn open<'a>(&self, note: &'a str) -> Result<&'a str, NoteError> {
        if note.chars().any(|c| c.is_ascii_control() && c != '\n') {
            return Err(NoteError::Form);
        }
        let at = note.rfind("\n\n").ok_or(NoteError::Form)?;
        let (text, lines) = (note.get(..=at), note.get(at + 2..));
        let (Some(text), Some(lines)) = (text, lines) else { return Err(NoteError::Form) };
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Form)?;
        let mut signed = false;
        for (count, line) in lines.split('\n').enumerate() {
            let (name, encoded) =
                line.strip_prefix("— ").and_then(|line| line.split_once(' ')).ok_or(NoteError::Form)?;
            let decoded = BASE64.decode(encoded.as_bytes()).map_err(|_| NoteError::Form)?;
            let (id, signature) = decoded.split_at_checked(4).ok_or(NoteError::Form)?;
            if count >= SIGNATURES_MAX || name.is_empty() {
                return Err(NoteError::Form);
            }
            if name == self.name && id == self.id() {
                if !self.verifies(text.as_bytes(), signature) {
                    return Err(NoteError::Signature);
                }
                signed = true;
            }
        }
        if signed { Ok(text) } else { Err(NoteError::NotSigned) }
    }

    /// The checkpoint in a note that this key has signed.
    pub fn open_checkpoint(&self, note: &str) -> Result<Checkpoint, NoteError> {
        Checkpoint::parse(self.open(note)?).ok_or(NoteError::NotCheckpoint)
    }
}

impl std::fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut typed = vec![ED25519_TYPE];
        typed.extend_from_slice(&self.public_key);
        write!(f, "{}+{}+{}", self.name, HEXLOWER.encode(&self.id()), BASE64.encode(&typed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    fn pair() -> (Ed25519KeyPair, VerifierKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public_key = pair.public_key().as_ref().try_into().unwrap();
        (pair, VerifierKey::new("vault.example/n1", public_key).unwrap())
    }

    fn note() -> (String, VerifierKey) {
        let (pair, key) = pair();
        let text = checkpoint_text("vault.example/n1", 42, &[9; 32]);
        let signature = pair.sign(text.as_bytes()).as_ref().try_into().unwrap();
        (signed_note(&text, key.name(), &key.public_key, &signature), key)
    }

    /// The note, key and text of the Go module `golang.org/x/mod/sumdb/note`.
    #[test]
    fn the_published_note_opens_under_its_key() {
        let key =
            VerifierKey::parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").unwrap();
        let text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let note = format!(
            "{text}\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
        );
        assert_eq!(key.open(&note), Ok(text));
        assert_eq!(key.to_string(), "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW");
        assert_eq!(key.open_checkpoint(&note), Err(NoteError::NotCheckpoint));
    }

    #[test]
    fn a_checkpoint_opens_and_says_what_was_signed() {
        let (note, key) = note();
        let expected = Checkpoint { origin: "vault.example/n1".into(), size: 42, root: [9; 32] };
        assert_eq!(key.open_checkpoint(&note), Ok(expected.clone()));
        let witnessed = format!("{note}— witness.example {}\n", BASE64.encode(&[1; 76]));
        assert_eq!(key.open_checkpoint(&witnessed), Ok(expected));
        assert_eq!(VerifierKey::parse(&key.to_string()), Some(key));
    }

    #[test]
    fn another_key_or_name_opens_nothing() {
        let (note, key) = note();
        let renamed = VerifierKey::new("vault.example/n2", key.public_key).unwrap();
        assert_eq!(renamed.open(&note), Err(NoteError::NotSigned));
        let other = VerifierKey::new("vault.example/n1", [1; 32]).unwrap();
        assert_eq!(other.open(&note), Err(NoteError::NotSigned));
        assert_eq!(VerifierKey::new("two words", [1; 32]), None);
        assert_eq!(VerifierKey::new("a+b", [1; 32]), None);
    }

    #[test]
    fn a_checkpoint_has_one_spelling() {
        let root = BASE64.encode(&[0; 32]);
        assert!(Checkpoint::parse(&format!("a/b\n0\n{root}\n")).is_some());
        for text in [
            format!("a/b\n00\n{root}\n"),
            format!("a/b\n+0\n{root}\n"),
            format!("a/b\n0\n{root}"),
            format!("a/b\n0\n{root}\nmore\n"),
            format!("\n0\n{root}\n"),
            "a/b\n0\nAAAA\n".to_owned(),
        ] {
            assert_eq!(Checkpoint::parse(&text), None);
        }
    }

    proptest! {
        #[test]
        fn no_byte_of_a_note_can_be_changed(at: prop::sample::Index, to: u8) {
            let (note, key) = note();
            let mut bytes = note.clone().into_bytes();
            let at = at.index(bytes.len());
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            if let Ok(edited) = String::from_utf8(bytes) {
                prop_assert!(key.open(&edited).is_err());
            }
        }
    }
}
