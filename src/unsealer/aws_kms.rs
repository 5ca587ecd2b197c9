//! The AWS KMS provider: one symmetric KMS key wraps each KEK, with the environment id and the key id as encryption context, so that a
//! wrapped KEK opens in its place only, and CloudTrail says which.
//!
//! KMS keeps the key: an old KEK's wrapped form opens for as long as the KMS key lives and the credentials may use it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use data_encoding::{BASE64, HEXLOWER};
use hyper::Method;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::{Zeroize, Zeroizing};

use super::https::Host;
use super::provider::{ClearKek, ProviderError, RootProvider};
use super::sigv4::{self, Credentials, Signing};
use crate::clock::{Clock, SystemClock};
use crate::wire::unsealer::{AwsKmsSettings, KekBinding, ProviderFault};

const SETTING: &str = "keys.aws_kms";
const CREDENTIALS_BYTES_MAX: u64 = 16_384;
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// A KMS key, and whose requests use it.
pub struct AwsKmsProvider {
    host: Host,
    settings: AwsKmsSettings,
    credentials: Credentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Encrypted {
    ciphertext_blob: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypted {
    plaintext: String,
}

impl Drop for Decrypted {
    fn drop(&mut self) {
        self.plaintext.zeroize();
    }
}

/// What KMS says where it does not do what it is asked.
#[derive(Deserialize)]
struct Failure {
    #[serde(rename = "__type")]
    kind: String,
}

impl AwsKmsProvider {
    /// Reads the credentials.
    pub fn open(settings: &AwsKmsSettings, credentials: File, trust: File) -> Result<Self, ProviderError> {
        let url = match &settings.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => format!("https://kms.{}.amazonaws.com", settings.region),
        };
        let host = Host::new(SETTING, &url, trust)?;
        Ok(Self { host, settings: settings.clone(), credentials: read_credentials(credentials)? })
    }

    /// Has KMS do something. `body` may hold the KEK.
    fn ask<T: for<'de> Deserialize<'de>>(
        &self,
        action: &str,
        body: &Zeroizing<String>,
    ) -> Result<T, ProviderError> {
        let now = Timestamp::from_microsecond(SystemClock.now().micros).unwrap_or_default();
        let at = now.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string();
        let target = format!("TrentService.{action}");
        let mut headers = vec![
            ("content-type", CONTENT_TYPE),
            ("host", self.host.authority()),
            ("x-amz-date", at.as_str()),
            ("x-amz-target", target.as_str()),
        ];
        if let Some(session) = &self.credentials.session {
            headers.push(("x-amz-security-token", session));
        }
        let signing = Signing {
            method: "POST",
            path: "/",
            headers: &headers,
            body: body.as_bytes(),
            at: &at,
            region: &self.settings.region,
            service: "kms",
        };
        let authorization = sigv4::authorization(&self.credentials, &signing);
        let mut sent: Vec<_> = headers.iter().filter(|(name, _)| *name != "host").copied().collect();
        sent.push(("authorization", &authorization));
        let answer = self.host.ask(&Method::POST, "/", &sent, body.as_bytes())?;
        if answer.status == 200 {
            return serde_json::from_slice(&answer.body).map_err(|_| malformed());
        }
        let failure = serde_json::from_slice::<Failure>(&answer.body);
        Err(match failure {
            Ok(failure) => self.fault_of(&failure.kind),
            Err(_) if answer.status >= 500 => self.host.unavailable("it does not work as it should"),
            Err(_) => malformed(),
        })
    }

    /// What a failure means; its kind comes as `namespace#Kind`, some with `:` and a URL behind it.
    fn fault_of(&self, kind: &str) -> ProviderError {
        let refused = |why: &str| ProviderError::new(ProviderFault::Refused, format!("{SETTING}: {why}"));
        let kind = kind.rsplit('#').next().and_then(|kind| kind.split(':').next()).unwrap_or_default();
        match kind {
            "InvalidCiphertextException" | "IncorrectKeyException" => another(),
            "AccessDeniedException" => refused(
                "these credentials may not use the key; they need kms:Encrypt and kms:Decrypt on it, and nothing else",
            ),
            "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "RequestExpired"
            | "NotAuthorized" => {
                refused("it does not take these credentials, or this machine's clock is wrong")
            }
            "NotFoundException" | "InvalidArnException" => refused("there is no such key in this region"),
            // What is wrong with the request itself is so the next time.
            "ValidationException" | "SerializationException" | "UnknownOperationException" => {
                ProviderError::new(
                    ProviderFault::Malformed,
                    format!(
                        "{SETTING}: it does not understand the request; the key's name is none, or the wrapped KEK was edited"
                    ),
                )
            }
            "DisabledException" | "KMSInvalidStateException" | "InvalidKeyUsageException" => refused(
                "the key is disabled, waits for its deletion, or is of another kind; a symmetric key is needed",
            ),
            _ => self.host.unavailable("it cannot do it now"),
        }
    }

    fn context(binding: &KekBinding) -> Value {
        json!({
            "cardvault:environment": HEXLOWER.encode(&binding.environment),
            "cardvault:key": binding.key.to_string(),
        })
    }
}

impl RootProvider for AwsKmsProvider {
    fn wrap(&mut self, kek: &[u8; 32], binding: &KekBinding) -> Result<Vec<u8>, ProviderError> {
        let plaintext = Zeroizing::new(BASE64.encode(kek));
        let key = Value::from(self.settings.key.as_str());
        let body = Zeroizing::new(format!(
            "{{\"KeyId\":{key},\"EncryptionContext\":{},\"Plaintext\":\"{}\"}}",
            Self::context(binding),
            plaintext.as_str()
        ));
        let answer: Encrypted = self.ask("Encrypt", &body)?;
        BASE64.decode(answer.ciphertext_blob.as_bytes()).map_err(|_| malformed())
    }

    fn unwrap(&mut self, wrapped: &[u8], binding: &KekBinding) -> Result<ClearKek, ProviderError> {
        let body = json!({
            "KeyId": self.settings.key,
            "EncryptionContext": Self::context(binding),
            "CiphertextBlob": BASE64.encode(wrapped),
        });
        let opened: Decrypted = self.ask("Decrypt", &Zeroizing::new(body.to_string()))?;
        let bytes = Zeroizing::new(BASE64.decode(opened.plaintext.as_bytes()).map_err(|_| malformed())?);
        Ok(Box::new(Zeroizing::new(bytes.as_slice().try_into().map_err(|_| malformed())?)))
    }

    /// The KMS key wraps all of them: it cannot be taken from one.
    fn destroy_all_but(&mut self, _: [u8; 16], _: Option<u32>) -> Result<(), ProviderError> {
        Ok(())
    }
}

/// The first profile of a file as `aws configure` writes it.
fn read_credentials(file: File) -> Result<Credentials, ProviderError> {
    let refused =
        |why: String| ProviderError::new(ProviderFault::Refused, format!("{SETTING}.credentials: {why}"));
    let unreadable = |error: std::io::Error| {
        ProviderError::new(
            ProviderFault::Unavailable,
            format!("{SETTING}.credentials cannot be read: {}", error.kind()),
        )
    };
    if file.metadata().map_err(unreadable)?.mode() & 0o077 != 0 {
        return Err(refused("others may read this file; run chmod 600 on it".to_owned()));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(CREDENTIALS_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    let lines = first_profile(&text);
    let value = |name: &str| {
        let of = |line: &str| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == name).then(|| Zeroizing::new(value.trim().to_owned()))
        };
        lines.iter().copied().find_map(of)
    };
    let needed = |name: &str| value(name).ok_or_else(|| refused(format!("the file has no line {name} = …")));
    Ok(Credentials {
        access_key: needed("aws_access_key_id")?.to_string(),
        secret: needed("aws_secret_access_key")?,
        session: value("aws_session_token"),
    })
}

/// The lines of the first profile: what stands under another one belongs to other credentials.
fn first_profile(text: &str) -> Vec<&str> {
    let begins = |line: &str| line.trim_start().starts_with('[');
    let mut lines = text.lines().skip_while(|line| !begins(line) && !line.contains('='));
    let first = lines.next();
    first.into_iter().chain(lines.take_while(|line| !begins(line))).collect()
}

fn malformed() -> ProviderError {
    ProviderError::new(
        ProviderFault::Malformed,
        format!("{SETTING}: the server answered something else than KMS does"),
    )
}

fn another() -> ProviderError {
    let why = "another key, or another place, wrapped this KEK; restore the key store that belongs to the key, or name the right key";
    ProviderError::new(ProviderFault::WrongKey, format!("{SETTING}: {why}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(text: &str) -> Result<Credentials, ProviderError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        read_credentials(File::open(&path).unwrap())
    }

    #[test]
    fn the_first_profile_counts_and_no_other() {
        let own = "aws_access_key_id = AKIDOWN\naws_secret_access_key=own/+=\n";
        let other = "[other]\naws_access_key_id = ASIAOTHER\naws_secret_access_key = other\naws_session_token = lent\n";
        for text in [
            format!("# ours\n\n[default]\n{own}{other}"),
            format!("{own}\n{other}"),
            format!("[default]\nregion = x\n{own}"),
        ] {
            let read = read(&text).unwrap();
            assert_eq!((read.access_key.as_str(), read.secret.as_str()), ("AKIDOWN", "own/+="));
            assert!(read.session.is_none(), "the session is another profile's");
        }
        assert_eq!(read(other).unwrap().session.unwrap().as_str(), "lent");
        let refused = read(&format!("[default]\naws_access_key_id = A\n{other}")).err().unwrap();
        assert!(
            refused.fault == ProviderFault::Refused && refused.sentence.contains("aws_secret_access_key")
        );
    }
}
