//! What a person asks for, in the bytes that are signed.
//!
//! Canonical JSON (RFC 8785) of `{"environment","expires_at","id","parameters","v","verb"}`: the installation's environment id in hex,
//! so that no request is good at another; the instant after which it is void; its id, so that it is carried out once; what the verb
//! is told; 1; the verb. A signature is Ed25519 over `cardvault/request/v1\n` ‖ step ‖ `\n` ‖ those bytes, where step is `ask`,
//! `approve` or `reject`: who asks has not approved, and a rejection is no approval.

use data_encoding::{BASE64, HEXLOWER};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::key::{KeyFault, PersonKey, PersonPublic};
use crate::attest::json::write_value;
use crate::card::id::ApprovalId;
use crate::clock::Time;

const PREFIX: &[u8] = b"cardvault/request/v1\n";
const VERSION: u64 = 1;
/// The longest request, in bytes.
pub const REQUEST_BYTES_MAX: usize = 24 << 10;

/// What a person asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The environment id of the installation that is asked.
    pub environment: [u8; 16],
    /// What shall be done, such as `keys:destroy`.
    pub verb: String,
    /// What it shall be done to, and how.
    pub parameters: Value,
    /// Random, so that it is carried out once.
    pub id: ApprovalId,
    /// After this instant it is void.
    pub expires_at: Time,
}

/// A text is not the canonical form of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no request of this version of cardvault")]
pub struct NotCanonical;

impl Request {
    /// The canonical text.
    pub fn text(&self) -> Result<String, NotCanonical> {
        let value = json!({
            "environment": HEXLOWER.encode(&self.environment),
            "expires_at": self.expires_at.to_string(),
            "id": self.id.to_string(),
            "parameters": self.parameters,
            "v": VERSION,
            "verb": self.verb,
        });
        let mut out = Vec::new();
        let good = write_value(&mut out, &value) && out.len() <= REQUEST_BYTES_MAX;
        if good { String::from_utf8(out).map_err(|_| NotCanonical) } else { Err(NotCanonical) }
    }

    /// Reads the canonical text, and nothing else.
    pub fn read(text: &str) -> Result<Self, NotCanonical> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Members {
            environment: String,
            expires_at: String,
            id: String,
            parameters: Value,
            v: u64,
            verb: String,
        }
        if text.len() > REQUEST_BYTES_MAX {
            return Err(NotCanonical);
        }
        let read: Members = serde_json::from_str(text).map_err(|_| NotCanonical)?;
        let environment = HEXLOWER.decode(read.environment.as_bytes()).map_err(|_| NotCanonical)?;
        let request = Self {
            environment: environment.try_into().map_err(|_| NotCanonical)?,
            verb: read.verb,
            parameters: read.parameters,
            id: ApprovalId::parse(&read.id).ok_or(NotCanonical)?,
            expires_at: Time::parse(&read.expires_at).ok_or(NotCanonical)?,
        };
        if read.v == VERSION && request.text()? == text { Ok(request) } else { Err(NotCanonical) }
    }
}

/// SHA-256 (hex) of a canonical text: how the log names it.
pub fn digest_of(text: &str) -> String {
    HEXLOWER.encode(digest(&SHA256, text.as_bytes()).as_ref())
}

/// What somebody says with a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// I ask for this.
    Ask,
    /// It shall be done.
    Approve,
    /// It shall not be done.
    Reject,
}

impl Step {
    const fn word(self) -> &'static [u8] {
        match self {
            Self::Ask => b"ask",
            Self::Approve => b"approve",
            Self::Reject => b"reject",
        }
    }

    fn bytes(self, text: &str) -> Vec<u8> {
        [PREFIX, self.word(), b"\n", text.as_bytes()].concat()
    }
}

/// A person's signature over a step and a canonical text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// What is said.
    pub step: Step,
    /// By whom.
    pub by: PersonPublic,
    /// Ed25519, base64.
    pub signature: String,
}

impl Signed {
    /// Signs.
    pub fn make(key: &PersonKey, step: Step, text: &str) -> Result<Self, KeyFault> {
        let signature = BASE64.encode(&key.sign(&step.bytes(text))?);
        Ok(Self { step, by: key.public()?, signature })
    }

    /// Whether this key signed this step of this text. Whose key it is, is another question.
    pub fn is_good(&self, step: Step, text: &str) -> bool {
        let signature = BASE64.decode(self.signature.as_bytes()).unwrap_or_default();
        self.step == step && self.by.verify(&step.bytes(text), &signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::id::IdBytes;

    fn request() -> Request {
        Request {
            environment: [0xab; 16],
            verb: "keys:destroy".to_owned(),
            parameters: json!({"key": {"destroy": 7}, "a": [1, "\n"]}),
            id: ApprovalId(IdBytes([1; 18])),
            expires_at: Time::from_micros(1_700_000_000_123_456),
        }
    }

    /// Added to, never edited: whoever checks a signature later builds these bytes.
    #[test]
    fn a_request_has_one_text() {
        let text = request().text().unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"environment":"abababababababababababababababab","expires_at":"2023-11-14T22:13:20.123456Z","#,
                r#""id":"apr_02081040vg2081040vg2081040vg2081","parameters":{"a":[1,"\n"],"key":{"destroy":7}},"#,
                r#""v":1,"verb":"keys:destroy"}"#
            )
        );
        assert_eq!(Request::read(&text), Ok(request()));
        for other in [
            text.replacen("\"v\":1", "\"v\":2", 1),
            text.replacen("\"v\":1", "\"v\": 1", 1),
            text.replacen("\"v\":1", "\"v\":1,\"w\":1", 1),
            text.replacen(".123456Z", ".1234560Z", 1),
            text.replacen("\"a\":[1,\"\\n\"],", "", 1).replacen("7}", "7},\"a\":[1]", 1),
            text.replacen("[1,", "[1.5,", 1),
            format!("{text} "),
        ] {
            assert_ne!(other, text);
            assert_eq!(Request::read(&other), Err(NotCanonical), "{other}");
        }
        let long = Request { parameters: json!("x".repeat(REQUEST_BYTES_MAX)), ..request() };
        assert_eq!(long.text(), Err(NotCanonical));
    }

    #[test]
    fn a_signature_says_one_step_of_one_text() {
        let key = PersonKey::make().unwrap();
        let text = request().text().unwrap();
        for step in [Step::Ask, Step::Approve, Step::Reject] {
            let signed = Signed::make(&key, step, &text).unwrap();
            for other in [Step::Ask, Step::Approve, Step::Reject] {
                assert_eq!(signed.is_good(other, &text), step == other);
                let renamed = Signed { step: other, ..signed.clone() };
                assert_eq!(renamed.is_good(other, &text), step == other);
            }
            assert!(!signed.is_good(step, &text.replace(":7", ":8")));
            let other = Signed { by: PersonKey::make().unwrap().public().unwrap(), ..signed.clone() };
            assert!(!other.is_good(step, &text));
        }
    }
}
