//! Root providers as configured (`[keys]`): which wraps the KEK, and what each has to be told. A provider may be configured without being
//! the one in use: that is how the KEK moves from one to another.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::KeysConfig;
use crate::wire::unsealer::{AwsKmsSettings, Pkcs11Settings, ProviderSettings, TransitSettings};

/// Where the root key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum RootProvider {
    /// A file beside the vault; development only.
    File,
    /// Custodians, of whom so many give their shares at every start of a keeper.
    Shares,
    /// A key in a token that does not give it away: an HSM, or SoftHSM.
    Pkcs11,
    /// A key in the transit engine of an OpenBao or HashiCorp Vault server.
    Transit,
    /// A key of AWS KMS.
    #[serde(rename = "aws-kms")]
    AwsKms,
}

impl RootProvider {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::File, Self::Shares, Self::Pkcs11, Self::Transit, Self::AwsKms];

    /// Its word in configuration, key store and log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Shares => "shares",
            Self::Pkcs11 => "pkcs11",
            Self::Transit => "transit",
            Self::AwsKms => "aws-kms",
        }
    }

    /// Whether what wrapped a KEK is destroyed there once another has taken over, so that no copy of the key store from before opens.
    pub const fn destroys(self) -> bool {
        match self {
            Self::File | Self::Pkcs11 | Self::Transit => true,
            // A secret in people's hands, and a key that KMS keeps, are the same for all KEKs.
            Self::Shares | Self::AwsKms => false,
        }
    }

    /// Reads its word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.name() == name)
    }
}

/// A PKCS #11 token (`[keys.pkcs11]`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11Config {
    /// The vendor's library.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// A file that only its owner reads, with the PIN of the token's user.
    pub pin: PathBuf,
    /// Files and directories that the library reads and writes, such as where it keeps its tokens.
    #[serde(default)]
    pub paths: Vec<PathBuf>,
    /// Environment variables that the library wants, such as `SOFTHSM2_CONF`.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// The transit engine of an OpenBao or HashiCorp Vault server (`[keys.transit]`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransitConfig {
    /// `https://host:port`.
    pub url: String,
    /// A file that only its owner reads, with a token that may use the engine.
    pub token: PathBuf,
    /// The certificates that the server must chain to, PEM; the machine's own if absent.
    pub trust: Option<PathBuf>,
    /// Where the engine is mounted.
    #[serde(default = "default_mount")]
    pub mount: String,
    /// The namespace that the mount is in.
    pub namespace: Option<String>,
    /// What the names of its keys begin with.
    #[serde(default = "default_prefix")]
    pub prefix: String,
}

fn default_mount() -> String {
    "transit".to_owned()
}

fn default_prefix() -> String {
    "cardvault".to_owned()
}

/// A symmetric key of AWS KMS (`[keys.aws_kms]`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsKmsConfig {
    /// The region.
    pub region: String,
    /// The key's id, ARN or alias.
    pub key: String,
    /// A file that only its owner reads, as `aws configure` writes it; its first profile counts.
    pub credentials: PathBuf,
    /// Another URL than the region's, such as a VPC endpoint's.
    pub endpoint: Option<String>,
    /// The certificates that it must chain to, PEM; the machine's own if absent.
    pub trust: Option<PathBuf>,
}

/// Host and port of an `https://` URL; none for anything else.
pub fn https_port(url: &str) -> Option<u16> {
    let rest = url.strip_prefix("https://")?;
    let authority = rest.split('/').next().filter(|authority| !authority.is_empty())?;
    match authority.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => port.parse().ok(),
        Some(_) | None => Some(443),
    }
}

impl KeysConfig {
    /// What is wrong with the root providers, each with what to do.
    pub fn root_faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |wrong: bool, sentence: &str| {
            if wrong {
                faults.push(sentence.to_owned());
            }
        };
        fault(
            self.provider == RootProvider::File && self.root_key.is_none(),
            "keys.root_key: the file provider needs the path of the root key",
        );
        fault(
            self.provider == RootProvider::Pkcs11 && self.pkcs11.is_none(),
            "keys.pkcs11: the provider needs the section [keys.pkcs11]; deploy/cardvault.example.toml shows it",
        );
        let is_word = |text: &str| !text.is_empty() && !text.contains('\0');
        fault(
            self.pkcs11.as_ref().is_some_and(|token| {
                !is_word(&token.token)
                    || token
                        .environment
                        .iter()
                        .any(|(name, value)| !is_word(name) || name.contains('=') || value.contains('\0'))
            }),
            "keys.pkcs11: a token's label and names of environment variables are not empty",
        );
        fault(
            self.provider == RootProvider::Transit && self.transit.is_none(),
            "keys.transit: the provider needs the section [keys.transit]; deploy/cardvault.example.toml shows it",
        );
        fault(
            self.provider == RootProvider::AwsKms && self.aws_kms.is_none(),
            "keys.aws_kms: the provider needs the section [keys.aws_kms]; deploy/cardvault.example.toml shows it",
        );
        let is_name = |text: &str, more: &[u8]| {
            !text.is_empty()
                && text.len() <= 200
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b) || more.contains(&b))
        };
        let urls = self.transit.iter().map(|engine| &engine.url);
        let urls = urls.chain(self.aws_kms.iter().filter_map(|kms| kms.endpoint.as_ref()));
        fault(
            urls.into_iter().any(|url| https_port(url).is_none()),
            "keys: the URL of a root provider is https://, a host, and a port if it is not 443",
        );
        fault(
            self.transit.as_ref().is_some_and(|engine| {
                let namespace = engine.namespace.as_ref();
                !is_name(&engine.mount, b"/")
                    || !is_name(&engine.prefix, b"")
                    || namespace.is_some_and(|namespace| !is_name(namespace, b"/"))
            }),
            "keys.transit: mount, namespace and prefix have letters, digits, dashes, dots or underscores",
        );
        fault(
            self.aws_kms.as_ref().is_some_and(|kms| !is_name(&kms.region, b"") || !is_name(&kms.key, b":/")),
            "keys.aws_kms: region and key are those that AWS shows",
        );
        faults
    }

    /// All paths of the section.
    pub fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = vec![&mut self.key_store];
        paths.extend(self.inventory.as_mut());
        paths.extend(self.root_key.as_mut());
        if let Some(token) = &mut self.pkcs11 {
            paths.extend([&mut token.module, &mut token.pin]);
            paths.extend(&mut token.paths);
        }
        if let Some(engine) = &mut self.transit {
            paths.push(&mut engine.token);
            paths.extend(&mut engine.trust);
        }
        if let Some(kms) = &mut self.aws_kms {
            paths.push(&mut kms.credentials);
            paths.extend(&mut kms.trust);
        }
        paths
    }

    /// What an unsealer is told of a provider; a sentence where it is not configured, and for custodians, whose shares are no setting.
    pub fn settings_of(&self, provider: RootProvider) -> Result<ProviderSettings, String> {
        let missing = || {
            format!(
                "keys.{}: this root provider is not configured; deploy/cardvault.example.toml shows it",
                provider.name().replace('-', "_")
            )
        };
        match provider {
            RootProvider::File => self.root_key.as_ref().map(|_| ProviderSettings::File).ok_or_else(missing),
            RootProvider::Shares => {
                Err("custodians take the KEK over with `cardvault keys ceremony`".to_owned())
            }
            RootProvider::Pkcs11 => {
                let token = self.pkcs11.as_ref().ok_or_else(missing)?;
                let module = token.module.to_str().ok_or("keys.pkcs11.module: the path is no text")?;
                Ok(ProviderSettings::Pkcs11(Pkcs11Settings {
                    module: module.to_owned(),
                    token: token.token.clone(),
                }))
            }
            RootProvider::Transit => {
                let engine = self.transit.as_ref().ok_or_else(missing)?;
                Ok(ProviderSettings::Transit(TransitSettings {
                    url: engine.url.clone(),
                    mount: engine.mount.clone(),
                    namespace: engine.namespace.clone(),
                    prefix: engine.prefix.clone(),
                }))
            }
            RootProvider::AwsKms => {
                let kms = self.aws_kms.as_ref().ok_or_else(missing)?;
                Ok(ProviderSettings::AwsKms(AwsKmsSettings {
                    region: kms.region.clone(),
                    key: kms.key.clone(),
                    endpoint: kms.endpoint.clone(),
                }))
            }
        }
    }

    /// What production is told of where the root key lies; a line for each provider that is configured.
    pub fn root_parts(&self) -> Vec<(String, String)> {
        let token = self.pkcs11.as_ref().map(|token| {
            let Pkcs11Config { module, token, pin: _, paths, environment } = token;
            let part = serde_json::json!([module, token, paths, environment]);
            ("root provider pkcs11".to_owned(), part.to_string())
        });
        let engine = self.transit.as_ref().map(|engine| {
            let TransitConfig { url, token: _, trust, mount, namespace, prefix } = engine;
            let part = serde_json::json!([url, trust, mount, namespace, prefix]);
            ("root provider transit".to_owned(), part.to_string())
        });
        let kms = self.aws_kms.as_ref().map(|kms| {
            let AwsKmsConfig { region, key, credentials: _, endpoint, trust } = kms;
            let part = serde_json::json!([region, key, endpoint, trust]);
            ("root provider aws_kms".to_owned(), part.to_string())
        });
        token.into_iter().chain(engine).chain(kms).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    const EXAMPLE: &str = include_str!("../deploy/cardvault.example.toml");

    #[test]
    fn a_provider_without_its_section_is_refused_and_says_so() {
        let pkcs11 = EXAMPLE.replace("provider = \"file\"", "provider = \"pkcs11\"");
        let section = |token: &str| {
            format!("[keys.pkcs11]\nmodule = \"m.so\"\ntoken = \"{token}\"\npin = \"pin\"\n\n[admin]")
        };
        for (text, setting) in [
            (pkcs11.clone(), "keys.pkcs11: the provider needs"),
            (pkcs11.replace("[admin]", &section("")), "keys.pkcs11: a token's label"),
            (EXAMPLE.replace("root_key =", "# root_key ="), "keys.root_key:"),
        ] {
            let faults = Config::parse(&text, "example").unwrap().keys.root_faults();
            assert!(faults.len() == 1 && faults[0].starts_with(setting), "{faults:?}");
        }
        let good = pkcs11.replace("[admin]", &section("a"));
        assert_eq!(Config::parse(&good, "example").unwrap().keys.root_faults(), Vec::<String>::new());
    }
}
