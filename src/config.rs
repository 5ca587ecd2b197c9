//! The configuration file: TOML, unknown fields refused, secrets only as paths of files. The supervisor is its only reader.
//!
//! No error quotes the file: TOML's own sentences print the line they are about, which may hold what should not be there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::card::stray::Exemptions;
use crate::card::tenant::Mode;
use crate::charging::{self, Policy, RetriesConfig, RouteConfig};
use crate::erasure::{ErasureConfig, Retention};
use crate::forwarding::spec::{ForwardSpec, Place};
use crate::roots::{AwsKmsConfig, Pkcs11Config, RootProvider, TransitConfig};
use crate::webhooks::WebhooksConfig;
use crate::wire::control::Limits;

/// Whether development conveniences are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// Everything on one machine, keys in files.
    Development,
    /// Real cards.
    Production,
}

/// The whole file. Paths are relative to the file's own directory.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Development or production.
    pub environment: Environment,
    /// The name of the installation: the first half of the audit log's origin.
    pub installation: String,
    /// The name of this node: the second half.
    #[serde(default = "default_node")]
    pub node: String,
    /// The API listener.
    pub listen: Listen,
    /// The database.
    pub store: StoreConfig,
    /// Keys and where they are kept.
    pub keys: KeysConfig,
    /// The local administration socket.
    pub admin: AdminConfig,
    /// Limits of the API.
    #[serde(default)]
    pub limits: Limits,
    /// Logs.
    #[serde(default)]
    pub log: LogConfig,
    /// Connector files beside the built-in ones.
    #[serde(default)]
    pub connectors: ConnectorsConfig,
    /// Identifiers that look like card numbers and are none: patterns by the tenant's name and the field.
    #[serde(default)]
    pub exempt: Exemptions,
    /// The operator's table of issuer ranges.
    #[serde(default)]
    pub ranges: RangesConfig,
    /// When a declined charge is tried again.
    #[serde(default)]
    pub retries: RetriesConfig,
    /// Where charges go that name no destination.
    #[serde(default)]
    pub route: Vec<RouteConfig>,
    /// Processors that cards may be sent to, by name.
    #[serde(default)]
    pub destination: BTreeMap<String, DestinationConfig>,
    /// Where callers may send requests of their own with a card in them, by name.
    #[serde(default)]
    pub forward: BTreeMap<String, ForwardConfig>,
    /// Webhooks out.
    #[serde(default)]
    pub webhooks: WebhooksConfig,
    /// How long cards are kept, by the tenant's name.
    #[serde(default)]
    pub retention: Retention,
    /// How soon what is erased is out of every backup's reach.
    #[serde(default)]
    pub erasure: ErasureConfig,
}

fn default_node() -> String {
    "node1".to_owned()
}

/// The API listener and the metrics listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Where the API listens.
    pub api: SocketAddr,
    /// Where metrics and health listen; loopback only.
    pub metrics: SocketAddr,
    /// The certificate chain, PEM.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
    /// Plain HTTP; development only.
    #[serde(default)]
    pub plain_http: bool,
}

/// The database.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// The directory of the embedded database; nothing else is in it.
    pub directory: PathBuf,
}

/// Keys.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysConfig {
    /// Which provider gives the root key.
    pub provider: RootProvider,
    /// For `file`: a file that only its owner reads and writes, empty at first.
    pub root_key: Option<PathBuf>,
    /// The wrapped keys.
    pub key_store: PathBuf,
    /// What each key is for and how long it lives.
    pub inventory: Option<PathBuf>,
    /// For `pkcs11`: the token.
    pub pkcs11: Option<Pkcs11Config>,
    /// For `transit`: the engine.
    pub transit: Option<TransitConfig>,
    /// For `aws_kms`: the key.
    pub aws_kms: Option<AwsKmsConfig>,
}

/// The local administration socket.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// Its path; made with mode 0600.
    pub socket: PathBuf,
    /// Whether dangerous verbs need two persons in development; in production they always do.
    #[serde(default)]
    pub two_person: bool,
    /// Hours after which a request that nobody approved is void.
    #[serde(default = "default_approval_hours")]
    pub approval_hours: u32,
}

impl AdminConfig {
    /// A request is void so many seconds after it was signed.
    pub fn approval_seconds(&self) -> i64 {
        i64::from(self.approval_hours) * 3_600
    }
}

const fn default_approval_hours() -> u32 {
    24
}

/// Logs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned() }
    }
}

/// Connector files.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectorsConfig {
    /// A directory of `NAME.toml` files.
    pub directory: Option<PathBuf>,
}

/// The table of issuer ranges, which the operator has a licence for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RangesConfig {
    /// A CSV file: `range_start,range_end,brand,funding,country`.
    pub file: Option<PathBuf>,
}

/// A processor that cards may be sent to.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationConfig {
    /// The connector's name.
    pub connector: String,
    /// Which tenants may use it: `test` or `live`; it also picks the connector's endpoint.
    pub mode: Mode,
    /// Another base URL than the connector's; development only.
    pub endpoint: Option<String>,
    /// The certificates it must chain to, PEM; the machine's own if absent.
    pub trust: Option<PathBuf>,
    /// The connector's credential fields, each the path of a file.
    #[serde(default)]
    pub credentials: BTreeMap<String, PathBuf>,
    /// While rotating, the ones that come after: the same fields, or those that change. They are used once the processor refuses
    /// the others.
    #[serde(default)]
    pub next_credentials: BTreeMap<String, PathBuf>,
    /// The destination sets it belongs to; cards are bound to a set when they are stored.
    #[serde(default = "default_policies")]
    pub policies: Vec<u32>,
    /// How long an authorization holds there, if otherwise than the connector says.
    pub authorization_days: Option<u32>,
}

/// Where callers may send requests of their own with a card in them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardConfig {
    /// Base URL: scheme, host, port, path prefix. `https://`, but for development.
    pub endpoint: String,
    /// Which tenants may use it: `test` or `live`.
    pub mode: Mode,
    /// The certificates it must chain to, PEM; the machine's own if absent.
    pub trust: Option<PathBuf>,
    /// Whether its host may have a private address; development needs no leave.
    #[serde(default)]
    pub private_address: bool,
    /// The destination sets it belongs to; cards are bound to a set when they are stored.
    #[serde(default = "default_policies")]
    pub policies: Vec<u32>,
    /// What it takes; everything else is refused.
    pub takes: ForwardSpec,
    /// What the keeper fills in, by a name of the operator's.
    #[serde(default)]
    pub credentials: BTreeMap<String, ForwardCredential>,
}

/// A credential of a forward destination, and where it goes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardCredential {
    /// The path of the file that holds it.
    pub file: PathBuf,
    /// The header that it goes into.
    pub header: Option<String>,
    /// The leaf of the body that it goes into.
    pub leaf: Option<String>,
    /// What stands before it, such as `Bearer ` with its blank.
    #[serde(default)]
    pub prefix: String,
}

impl ForwardConfig {
    /// What it takes, with the places of its credentials.
    pub fn spec(&self) -> ForwardSpec {
        let place = |(name, from): (&String, &ForwardCredential)| {
            let (header, leaf, prefix) = (from.header.clone(), from.leaf.clone(), from.prefix.clone());
            (name.clone(), Place { header, leaf, prefix })
        };
        ForwardSpec { credentials: self.credentials.iter().map(place).collect(), ..self.takes.clone() }
    }

    fn faults(&self, environment: Environment) -> Vec<String> {
        let mut faults = self.spec().faults();
        if !self.takes.credentials.is_empty() {
            faults.push("takes.credentials: write [forward.NAME.credentials.…] instead".to_owned());
        }
        if environment == Environment::Production && !self.endpoint.starts_with("https://") {
            faults.push(
                "endpoint: production does not send cards over plain HTTP; use an https:// URL".to_owned(),
            );
        }
        faults
    }
}

fn default_policies() -> Vec<u32> {
    vec![DEFAULT_POLICY]
}

/// A request that a month has not approved is not wanted.
const APPROVAL_HOURS_MAX: u32 = 720;
/// The destination set that cards are bound to.
pub const DEFAULT_POLICY: u32 = 1;

/// Why a configuration was refused: one sentence each, naming the setting and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Reads a file and checks it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigError(vec![format!("{} cannot be read: {}", path.display(), error.kind())])
        })?;
        let mut config = Self::parse(&text, &path.display().to_string())?;
        config.resolve(path.parent().unwrap_or_else(|| Path::new(".")));
        let faults = config.faults();
        if faults.is_empty() { Ok(config) } else { Err(ConfigError(faults)) }
    }

    /// Reads the text; `name` is what errors call it.
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let line =
                error.span().map_or(0, |span| text.get(..span.start).unwrap_or("").matches('\n').count() + 1);
            // The first words say what kind of fault it is; what stands behind a backtick or colon is the file's.
            let what: String = error
                .message()
                .split(['`', ':', '"', ','])
                .next()
                .unwrap_or("")
                .trim()
                .chars()
                .take(60)
                .collect();
            let field = known_field(error.message());
            ConfigError(vec![format!(
                "{name}:{line}: {what}{field}; see deploy/cardvault.example.toml for every setting there is"
            )])
        })
    }

    fn resolve(&mut self, base: &Path) {
        let mut paths: Vec<&mut PathBuf> = vec![&mut self.store.directory, &mut self.admin.socket];
        paths.extend(self.listen.certificate.as_mut());
        paths.extend(self.listen.key.as_mut());
        paths.extend(self.connectors.directory.as_mut());
        paths.extend(self.ranges.file.as_mut());
        paths.extend(self.webhooks.trust.as_mut());
        for destination in self.destination.values_mut() {
            paths.extend(destination.trust.as_mut());
            paths.extend(destination.credentials.values_mut());
            paths.extend(destination.next_credentials.values_mut());
        }
        for forward in self.forward.values_mut() {
            paths.extend(forward.trust.as_mut());
            paths.extend(forward.credentials.values_mut().map(|credential| &mut credential.file));
        }
        paths.extend(self.keys.paths());
        for path in paths {
            if path.is_relative() {
                *path = base.join(&*path);
            }
        }
    }

    /// Whether dangerous verbs need two persons.
    pub fn two_person(&self) -> bool {
        self.environment == Environment::Production || self.admin.two_person
    }

    /// Everything that is wrong with the settings, each with what to do.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |wrong: bool, sentence: &str| {
            if wrong {
                faults.push(sentence.to_owned());
            }
        };
        let named = |name: &str| {
            !name.is_empty()
                && name.len() <= 40
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        fault(
            !named(&self.installation),
            "installation: use 1 to 40 letters, digits, dashes, dots or underscores",
        );
        fault(!named(&self.node), "node: use 1 to 40 letters, digits, dashes, dots or underscores");
        fault(
            !self.listen.metrics.ip().is_loopback(),
            "listen.metrics: metrics listen on a loopback address only",
        );
        fault(
            !self.listen.plain_http && (self.listen.certificate.is_none() || self.listen.key.is_none()),
            "listen: give certificate and key, the paths of two PEM files",
        );
        fault(
            !(1..=APPROVAL_HOURS_MAX).contains(&self.admin.approval_hours),
            "admin.approval_hours: use 1 to 720",
        );
        fault(
            !matches!(self.log.level.as_str(), "error" | "warn" | "info" | "debug" | "trace"),
            "log.level: use error, warn, info, debug or trace",
        );
        fault(
            self.limits.body_bytes_max > 1 << 20 || self.limits.body_bytes_max < 1024,
            "limits.body_bytes_max: use 1024 to 1048576",
        );
        fault(
            self.destination.keys().any(|name| !named(name)),
            "destination: a name has letters, digits, dashes, dots or underscores",
        );
        fault(
            self.forward.keys().any(|name| !named(name) || self.destination.contains_key(name)),
            "forward: a name has letters, digits, dashes, dots or underscores, and is no destination's",
        );
        fault(
            self.retention.keys().any(|name| !named(name)),
            "retention: a tenant's name has letters, digits, dashes, dots or underscores",
        );
        fault(
            !self.exempt.are_sound(),
            "exempt: patterns are for customer, idempotency_key, invoice, period or processor_transaction_id, with at least 6 characters that are \
             fixed and 4 that are #",
        );
        faults.extend(self.section_faults());
        faults
    }

    /// The same of the sections that know themselves what is wrong with them.
    fn section_faults(&self) -> Vec<String> {
        let mut faults = self.charging().err().unwrap_or_default();
        faults.extend(self.keys.root_faults());
        faults.extend(self.webhooks.faults());
        let in_production = self.environment == Environment::Production;
        faults
            .extend(self.retention.iter().flat_map(|(tenant, policy)| policy.faults(tenant, in_production)));
        faults.extend(self.erasure.faults(in_production));
        for (name, forward) in &self.forward {
            let of_it = forward.faults(self.environment);
            faults.extend(of_it.into_iter().map(|fault| format!("forward.{name}.{fault}")));
        }
        if self.environment == Environment::Production {
            faults.extend(self.development_conveniences());
        }
        faults
    }

    /// How charges are tried again, and where they go.
    pub fn charging(&self) -> Result<Policy, Vec<String>> {
        let modes = self.destination.iter().map(|(name, to)| (name.clone(), to.mode)).collect();
        match (self.retries.policy(), charging::routes(&self.route, &modes)) {
            (Ok(retries), Ok(routes)) => Ok(Policy { retries, routes }),
            (retries, routes) => {
                let faults = retries.err().into_iter().chain(routes.err()).flatten();
                Err(faults.collect())
            }
        }
    }

    /// What production refuses.
    fn development_conveniences(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |wrong: bool, sentence: String| {
            if wrong {
                faults.push(sentence);
            }
        };
        fault(
            self.keys.provider == RootProvider::File,
            "keys.provider: production does not take the root key from a file; use a provider that keeps it elsewhere: \"pkcs11\", \"transit\", \"aws-kms\" or \"shares\""
                .to_owned(),
        );
        fault(
            self.listen.plain_http,
            "listen.plain_http: production does not speak plain HTTP; give certificate and key instead"
                .to_owned(),
        );
        fault(
            self.listen.api.ip().is_unspecified(),
            "listen.api: production does not listen on every address; name the one that clients use"
                .to_owned(),
        );
        fault(
            matches!(self.log.level.as_str(), "debug" | "trace"),
            "log.level: production logs at error, warn or info".to_owned(),
        );
        for (name, destination) in &self.destination {
            fault(
                destination.connector == "sandbox",
                format!("destination.{name}: production has no sandbox; name a real processor's connector"),
            );
            fault(
                destination.endpoint.is_some(),
                format!(
                    "destination.{name}.endpoint: production dials the connector's own endpoint; remove this line"
                ),
            );
        }
        faults
    }
}

/// The name of a missing field, which is ours; an unknown field's name is the file's and is not repeated.
fn known_field(message: &str) -> String {
    message
        .strip_prefix("missing field `")
        .and_then(|rest| rest.split('`').next())
        .map_or_else(String::new, |field| format!(" `{field}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../deploy/cardvault.example.toml");

    #[test]
    fn the_example_holds_every_setting() {
        let config = Config::parse(EXAMPLE, "example").unwrap();
        assert!(config.faults().is_empty(), "{:?}", config.faults());
        // A setting that is commented out is not parsed: uncomment all of them and it must still be one file.
        let all: String = EXAMPLE
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line))
            .map(|line| format!("{line}\n"))
            .collect();
        let full = Config::parse(&all, "example").unwrap();
        assert_eq!(full.limits, Limits::default());
        assert!(!full.retention.is_empty() && full.erasure.key_backups_kept_days.is_some());
        assert_eq!(full.charging().unwrap().retries, RetriesConfig::default().policy().unwrap());
        assert_eq!(full.charging().unwrap().routes.len(), 1);
        assert!(full.faults().is_empty() && !full.exempt.0.is_empty());
        assert_eq!(full.webhooks.rules().retry_seconds, WebhooksConfig::default().retry_seconds);
        assert!(full.connectors.directory.is_some() && full.destination.values().any(|d| d.trust.is_some()));
        assert_eq!(full.forward["tokenizer"].spec().credentials.len(), 2);
    }

    #[test]
    fn production_refuses_each_development_convenience() {
        let text = EXAMPLE
            .replace("environment = \"development\"", "environment = \"production\"")
            .replace("api = \"127.0.0.1:8443\"", "api = \"0.0.0.0:8443\"\nplain_http = true")
            .replace("#: level = \"info\"", "level = \"trace\"");
        let faults = Config::parse(&text, "example").unwrap().faults();
        // What is wrong, and what to do.
        for (setting, advice) in [
            ("keys.provider:", "use a provider"),
            ("listen.plain_http:", "give certificate and key"),
            ("listen.api:", "name the one"),
            ("log.level:", "logs at error, warn or info"),
            ("destination.sandbox:", "name a real processor's connector"),
            ("destination.sandbox.endpoint:", "remove this line"),
            ("erasure.key_backups_kept_days:", "say for how many days"),
        ] {
            let named = |fault: &&String| fault.starts_with(setting) && fault.contains(advice);
            assert_eq!(faults.iter().filter(named).count(), 1, "{setting} in {faults:?}");
        }
        assert_eq!(faults.len(), 7, "{faults:?}");
        let development = text.replace("\"production\"", "\"development\"");
        assert_eq!(Config::parse(&development, "example").unwrap().faults(), Vec::<String>::new());
    }

    #[test]
    fn a_forward_destination_with_a_fault_is_refused_by_its_name() {
        let good = "\n[forward.x]\nendpoint = \"http://127.0.0.1:1\"\nmode = \"test\"\n[forward.x.takes]\nmethods = [\"POST\"]\n\
                    paths = [\"/v1/*\"]\n";
        let faults = |text: String| Config::parse(&text, "example").unwrap().faults();
        assert_eq!(faults(format!("{EXAMPLE}{good}")), Vec::<String>::new());
        for (wrong, starts) in [
            (good.replace("POST", "post"), "forward.x.methods:"),
            (good.replace("/v1/*", "v1"), "forward.x.paths:"),
            (good.replace("forward.x", "forward.sandbox"), "forward:"),
            (format!("{good}headers = [\"authorization\"]\n"), "forward.x.headers,"),
            (format!("{good}[forward.x.credentials.a]\nfile = \"a\"\n"), "forward.x.credentials:"),
            (
                format!("{good}[forward.x.takes.credentials.a]\nheader = \"a\"\n"),
                "forward.x.takes.credentials:",
            ),
        ] {
            let faults = faults(format!("{EXAMPLE}{wrong}"));
            assert!(faults.len() == 1 && faults[0].starts_with(starts), "{faults:?}");
        }
        let production =
            EXAMPLE.replace("environment = \"development\"", "environment = \"production\"") + good;
        assert!(faults(production).iter().any(|fault| fault.starts_with("forward.x.endpoint:")));
    }

    #[test]
    fn an_exemption_from_the_guard_is_narrow() {
        for (pattern, sound) in [("400000##########", true), ("################", false)] {
            let text = format!("{EXAMPLE}\n[exempt.acme]\ninvoice = [\"{pattern}\"]\n");
            let faults = Config::parse(&text, "example").unwrap().faults();
            assert_eq!(faults.is_empty(), sound, "{faults:?}");
            assert!(faults.iter().all(|fault| fault.starts_with("exempt:")));
        }
    }

    #[test]
    fn an_error_never_quotes_the_file() {
        for text in [
            "environment = \"4242424242424242\"",
            "x = 4242424242424242",
            "= 4242424242424242",
            "[[4242424242424242]]\n",
        ] {
            let error = Config::parse(text, "f.toml").unwrap_err().to_string();
            assert!(!error.contains("4242"), "{error}");
            assert!(error.starts_with("f.toml:"));
        }
    }
}
