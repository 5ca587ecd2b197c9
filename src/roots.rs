//! Root providers as configured (`[keys]`): which wraps the KEK, and what each has to be told. A provider may be configured without being
//! the one in use: that is how the KEK moves from one to another.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::KeysConfig;
use crate::wire::unsealer::{Pkcs11Settings, ProviderSettings};

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
}

impl RootProvider {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::File, Self::Shares, Self::Pkcs11];

    /// Its word in configuration, key store and log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Shares => "shares",
            Self::Pkcs11 => "pkcs11",
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
        paths
    }

    /// What an unsealer is told of a provider; a sentence where it is not configured, and for custodians, whose shares are no setting.
    pub fn settings_of(&self, provider: RootProvider) -> Result<ProviderSettings, String> {
        let missing = || {
            format!(
                "keys.{}: this root provider is not configured; deploy/cardvault.example.toml shows it",
                provider.name()
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
        }
    }

    /// What production is told of where the root key lies; a line for each provider that is configured.
    pub fn root_parts(&self) -> Vec<(String, String)> {
        let token = self.pkcs11.as_ref().map(|token| {
            let Pkcs11Config { module, token, pin: _, paths, environment } = token;
            let part = serde_json::json!([module, token, paths, environment]);
            ("root provider pkcs11".to_owned(), part.to_string())
        });
        token.into_iter().collect()
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
