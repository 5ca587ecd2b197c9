//! The transit provider: the transit secrets engine of OpenBao or HashiCorp Vault. For each KEK the vault has the engine make an
//! `aes256-gcm96` key that cannot be exported or backed up in the clear, `<prefix>-<environment id>-<key id>`; it wraps with the binding as
//! associated data. A KEK is gone for good, in every copy of the key store, when its key is deleted there.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use data_encoding::{BASE64, HEXLOWER};
use hyper::Method;
use serde::Deserialize;
use serde_json::json;
use zeroize::{Zeroize, Zeroizing};

use super::https::{Answer, Host};
use super::provider::{ClearKek, ProviderError, RootProvider};
use crate::wire::unsealer::{KekBinding, ProviderFault, TransitSettings};

const SETTING: &str = "keys.transit";
/// Of the kinds of keys the one whose associated data is authenticated.
const KIND: &str = "aes256-gcm96";
const TOKEN_BYTES_MAX: u64 = 4096;

/// The engine of one mount.
pub struct TransitProvider {
    host: Host,
    settings: TransitSettings,
    token: Zeroizing<String>,
}

/// What an answer holds that is of use.
#[derive(Deserialize)]
struct Wrapper<T> {
    data: T,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: String,
}

impl Drop for Decrypted {
    fn drop(&mut self) {
        self.plaintext.zeroize();
    }
}

#[derive(Deserialize)]
struct KeyShown {
    #[serde(rename = "type")]
    kind: String,
    exportable: bool,
    allow_plaintext_backup: bool,
}

#[derive(Deserialize)]
struct Listed {
    keys: Vec<String>,
}

impl TransitProvider {
    /// Reads the token, and renews it where it can be: a vault that stands for a month shall start again.
    pub fn open(settings: &TransitSettings, token: File, trust: File) -> Result<Self, ProviderError> {
        let host = Host::new(SETTING, &settings.url, trust)?;
        let provider = Self { host, settings: settings.clone(), token: read_token(token)? };
        // One that cannot be renewed is as good as before.
        provider.ask(&Method::POST, "/v1/auth/token/renew-self", b"{}")?;
        Ok(provider)
    }

    fn ask(&self, method: &Method, path: &str, body: &[u8]) -> Result<Answer, ProviderError> {
        let mut headers = vec![("x-vault-token", self.token.as_str()), ("content-type", "application/json")];
        if let Some(namespace) = &self.settings.namespace {
            headers.push(("x-vault-namespace", namespace));
        }
        self.host.ask(method, path, &headers, body)
    }

    /// Has the engine do something; `done` says what for, where it does not.
    fn engine(&self, method: &Method, path: &str, body: &[u8], done: &str) -> Result<Answer, ProviderError> {
        let answer = self.ask(method, &format!("/v1/{}/{path}", self.settings.mount), body)?;
        checked(&self.host, answer, done)
    }

    fn prefix_of(&self, environment: [u8; 16]) -> String {
        format!("{}-{}-", self.settings.prefix, HEXLOWER.encode(&environment))
    }

    fn name_of(&self, binding: &KekBinding) -> String {
        format!("{}{}", self.prefix_of(binding.environment), binding.key)
    }

    /// The key of this name, made if it is not there; one that could be taken out is refused.
    fn make(&self, name: &str) -> Result<(), ProviderError> {
        let wanted = json!({"type": KIND, "exportable": false, "allow_plaintext_backup": false});
        let path = format!("keys/{name}");
        self.engine(&Method::POST, &path, wanted.to_string().as_bytes(), "make a key")?;
        let shown: KeyShown = read(&self.engine(&Method::GET, &path, b"", "read a key")?)?;
        if shown.kind != KIND || shown.exportable || shown.allow_plaintext_backup {
            return Err(refused(
                "the engine's key is of another kind or can be taken out of it; delete it, and let the vault make its own",
            ));
        }
        Ok(())
    }

    fn all(&self) -> Result<Vec<String>, ProviderError> {
        let answer = self.ask(&Method::GET, &format!("/v1/{}/keys?list=true", self.settings.mount), b"")?;
        match answer.status {
            200 => read::<Listed>(&answer).map(|listed| listed.keys),
            404 => Ok(Vec::new()),
            403 => Err(refused("the token may not list keys; look at its policy")),
            _ => Err(self.host.unavailable("the server is sealed, or does not work as it should")),
        }
    }
}

impl RootProvider for TransitProvider {
    fn wrap(&mut self, kek: &[u8; 32], binding: &KekBinding) -> Result<Vec<u8>, ProviderError> {
        let name = self.name_of(binding);
        self.make(&name)?;
        let plaintext = Zeroizing::new(BASE64.encode(kek));
        let body = Zeroizing::new(format!(
            "{{\"plaintext\":\"{}\",\"associated_data\":\"{}\"}}",
            plaintext.as_str(),
            BASE64.encode(&binding.aad())
        ));
        let answer = self.engine(&Method::POST, &format!("encrypt/{name}"), body.as_bytes(), "wrap")?;
        Ok(read::<Encrypted>(&answer)?.ciphertext.into_bytes())
    }

    fn unwrap(&mut self, wrapped: &[u8], binding: &KekBinding) -> Result<ClearKek, ProviderError> {
        let ciphertext = std::str::from_utf8(wrapped).map_err(|_| another())?;
        let body =
            json!({"ciphertext": ciphertext, "associated_data": BASE64.encode(&binding.aad())}).to_string();
        let path = format!("decrypt/{}", self.name_of(binding));
        let answer =
            self.ask(&Method::POST, &format!("/v1/{}/{path}", self.settings.mount), body.as_bytes())?;
        // Of what does not open, and of a key that is not there.
        if answer.status == 400 {
            return Err(another());
        }
        let opened: Decrypted = read(&checked(&self.host, answer, "unwrap")?)?;
        let bytes = Zeroizing::new(BASE64.decode(opened.plaintext.as_bytes()).map_err(|_| malformed())?);
        Ok(Box::new(Zeroizing::new(bytes.as_slice().try_into().map_err(|_| malformed())?)))
    }

    fn destroy_all_but(&mut self, environment: [u8; 16], keep: Option<u32>) -> Result<(), ProviderError> {
        self.host.begin();
        let all = self.all()?;
        let kept = keep.map(|key| self.name_of(&KekBinding { environment, key }));
        // An engine without the key in use would be the end of every card.
        if kept.as_ref().is_some_and(|kept| !all.contains(kept)) {
            return Err(another());
        }
        let prefix = self.prefix_of(environment);
        for name in all.iter().filter(|name| name.starts_with(&prefix) && kept.as_ref() != Some(name)) {
            let allowed = json!({"deletion_allowed": true}).to_string();
            self.engine(
                &Method::POST,
                &format!("keys/{name}/config"),
                allowed.as_bytes(),
                "let a key be deleted",
            )?;
            self.engine(&Method::DELETE, &format!("keys/{name}"), b"", "delete a key")?;
        }
        Ok(())
    }
}

/// An answer that says that it was done; `done` says what, where it was not.
fn checked(host: &Host, answer: Answer, done: &str) -> Result<Answer, ProviderError> {
    match answer.status {
        200..=299 => Ok(answer),
        400 => {
            Err(refused(&format!("the engine does not {done}: what it has of this name is of another kind")))
        }
        403 => {
            Err(refused(&format!("the token may not {done}; look at its policy, and whether it has expired")))
        }
        404 => Err(refused("there is no transit engine at this mount, or nothing of this name in it")),
        _ => Err(host.unavailable("the server is sealed, or does not work as it should")),
    }
}

fn read_token(file: File) -> Result<Zeroizing<String>, ProviderError> {
    let unreadable = |error: std::io::Error| {
        ProviderError::new(
            ProviderFault::Unavailable,
            format!("{SETTING}.token cannot be read: {}", error.kind()),
        )
    };
    if file.metadata().map_err(unreadable)?.mode() & 0o077 != 0 {
        return Err(ProviderError::new(
            ProviderFault::Refused,
            format!("{SETTING}.token: others may read this file; run chmod 600 on it"),
        ));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(TOKEN_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    let token = text.trim();
    // A header cannot hold a second line, which would look like an outage; OpenBao refuses an empty token by itself.
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let sentence = format!("{SETTING}.token: the file has to hold a token, in one line");
        return Err(ProviderError::new(ProviderFault::Refused, sentence));
    }
    Ok(Zeroizing::new(token.to_owned()))
}

fn read<T: for<'de> Deserialize<'de>>(answer: &Answer) -> Result<T, ProviderError> {
    serde_json::from_slice::<Wrapper<T>>(&answer.body).map(|wrapper| wrapper.data).map_err(|_| malformed())
}

fn refused(why: &str) -> ProviderError {
    ProviderError::new(ProviderFault::Refused, format!("{SETTING}: {why}"))
}

fn malformed() -> ProviderError {
    ProviderError::new(
        ProviderFault::Malformed,
        format!("{SETTING}: the server answered something else than a transit engine does"),
    )
}

fn another() -> ProviderError {
    let why = "the engine has not the key that wrapped this KEK; restore the engine's storage, or the key store that belongs to it";
    ProviderError::new(ProviderFault::WrongKey, format!("{SETTING}: {why}"))
}
