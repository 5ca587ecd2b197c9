//! Configuration and the files that it names, read and turned into what each role is told.

use std::collections::BTreeMap;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::{ranges, setup};
use crate::card::tenant::Mode;
use crate::config::{Config, DestinationConfig, Environment, ForwardConfig};
use crate::connector::{self, Connector, Endpoint, Operation, Word};
use crate::erasure::{self, Retention};
use crate::wire::control::{
    CourierHost, CourierSettings, Destination, DestinationInfo, EdgeReload, ForwardInfo, ForwardTo,
    TenantInfo,
};
use crate::wire::forwarder::FORWARDED_HEADER_BYTES_MAX;
use crate::wire::keeper::Verb;

/// Where Debian and most others keep the machine's trusted certificates.
const MACHINE_TRUST: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// A destination as every role but the caller's needs it.
pub(super) struct Loaded {
    pub(super) kept: Destination,
    pub(super) info: Info,
    pub(super) ports: Vec<u16>,
}

/// What the edge is told of a destination.
pub(super) enum Info {
    /// One that is charged through its connector.
    Charged(Box<DestinationInfo>),
    /// One that callers send their own requests to.
    Forward(ForwardInfo),
}

/// Reads connectors, credentials and trust of all destinations. The sentences name settings and files, never their content.
pub(super) fn load_destinations(config: &Config) -> Result<Vec<Loaded>, String> {
    let charged = config.destination.iter().map(|(name, destination)| {
        load_destination(config, name, destination).map_err(|fault| format!("destination.{name}: {fault}"))
    });
    let forwards = config.forward.iter().map(|(name, forward)| {
        load_forward(config, name, forward).map_err(|fault| format!("forward.{name}: {fault}"))
    });
    charged.chain(forwards).collect()
}

/// A forward destination: its declaration was checked with the configuration.
fn load_forward(config: &Config, name: &str, from: &ForwardConfig) -> Result<Loaded, String> {
    let endpoint = checked_endpoint(config, from.endpoint.clone())?;
    let spec = from.spec();
    let credentials = from.credentials.iter().map(|(field, credential)| {
        let text = Zeroizing::new(read(&credential.file)?);
        let value = text.trim();
        let is_plain = !value.is_empty() && value.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        if is_plain {
            return Ok((field.clone(), value.to_owned()));
        }
        Err(format!("credentials.{field}: the file holds no line of visible characters"))
    });
    // The content type goes back as well.
    let headers = u32::try_from(spec.answer_headers.len() + 1).unwrap_or(u32::MAX);
    let head_bytes_max = headers.saturating_mul(FORWARDED_HEADER_BYTES_MAX);
    let info = ForwardInfo {
        name: name.to_owned(),
        mode: from.mode,
        answer_bytes_max: spec.answer_bytes_max.saturating_add(head_bytes_max),
    };
    let kept = Destination {
        name: name.to_owned(),
        connector: String::new(),
        connector_toml: String::new(),
        mode: from.mode,
        trust_pem: trust(config, from.trust.as_deref())?,
        credentials: credentials.collect::<Result<_, String>>()?,
        next_credentials: BTreeMap::new(),
        step_endpoints: BTreeMap::new(),
        policies: from.policies.clone(),
        timeout_seconds: spec.timeout_s,
        forward: Some(Box::new(ForwardTo {
            spec,
            public_only: config.environment == Environment::Production && !from.private_address,
        })),
        endpoint,
    };
    let ports = vec![port_of(&kept.endpoint)?];
    Ok(Loaded { kept, info: Info::Forward(info), ports })
}

fn port_of(endpoint: &str) -> Result<u16, String> {
    let url: axum::http::Uri = endpoint.parse().map_err(|_| "endpoint: not a URL".to_owned())?;
    Ok(url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 }))
}

fn load_destination(config: &Config, name: &str, from: &DestinationConfig) -> Result<Loaded, String> {
    let (file, text) = connector_text(config, &from.connector)?;
    let connector = Connector::parse(&file, &text)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let endpoint = endpoint(config, from, &connector)?;
    let step_endpoints = step_endpoints(from, &connector);
    let ports: Result<Vec<u16>, String> =
        std::iter::once(&endpoint).chain(step_endpoints.values()).map(|url| port_of(url)).collect();
    let terms = connector.authorization();
    let (authorization_hours, merchant_hours) = match from.authorization_days {
        Some(days) => (days.saturating_mul(24), BTreeMap::new()),
        None => {
            let by_brand = terms.merchant_hours.iter();
            (terms.hours, by_brand.map(|(brand, hours)| ((*brand).to_owned(), *hours)).collect())
        }
    };
    let info = DestinationInfo {
        name: name.to_owned(),
        connector: connector.name().to_owned(),
        connector_version: *connector.version_hash(),
        mode: from.mode,
        idempotency: connector.idempotency().kind.text().to_owned(),
        idempotency_later: connector.idempotency().later.text().to_owned(),
        idempotency_seconds: connector.idempotency().ttl.map_or(0, |ttl| ttl.as_secs()),
        can_look_up: connector.operations().any(|op| op == Operation::Lookup),
        settle_seconds: connector.settle().map_or(0, |settle| settle.as_secs()),
        timeout_seconds: connector.timeout().as_secs(),
        network_codes: connector.has_network_codes(),
        until_seconds: connector.until().map(|until| until.as_secs()),
        can_verify: connector.operations().any(|op| op == Operation::Verify),
        smallest_amounts: connector.smallest_amounts().map(|(code, n)| (code.to_owned(), n)).collect(),
        undo_sale: undo(&connector, Operation::Sale),
        undo_authorize: undo(&connector, Operation::Authorize),
        captures_once: connector.captures_once(),
        refund_needs_card: connector.refund_needs_card(),
        refunds_capture: connector.refunds_capture(),
        later_needs_transaction: connector.later_needs_transaction(),
        takes_webhooks: takes_webhooks(from, &connector),
        authorization_hours,
        merchant_hours,
    };
    let kept = Destination {
        name: name.to_owned(),
        connector: from.connector.clone(),
        connector_toml: text,
        mode: from.mode,
        endpoint,
        step_endpoints,
        trust_pem: trust(config, from.trust.as_deref())?,
        credentials: credentials(from, &connector)?,
        next_credentials: next_credentials(from, &connector)?,
        policies: from.policies.clone(),
        timeout_seconds: connector.timeout().as_secs(),
        forward: None,
    };
    Ok(Loaded { kept, info: Info::Charged(Box::new(info)), ports: ports? })
}

/// Where steps go that do not go where the operations go; a destination with an endpoint of its own takes them all.
fn step_endpoints(from: &DestinationConfig, connector: &Connector) -> BTreeMap<String, String> {
    let steps = connector.steps().filter(|_| from.endpoint.is_none());
    steps
        .filter_map(|(name, live, test)| {
            let own = match from.mode {
                Mode::Test => test,
                Mode::Live => live,
            };
            match own {
                Some(Endpoint::Fixed(url)) => Some((name.to_owned(), url.to_string())),
                Some(Endpoint::Operator) | None => None,
            }
        })
        .collect()
}

/// What the courier may reach. Without hosts it needs no trust.
pub(super) fn courier(config: &Config) -> Result<CourierSettings, String> {
    let webhooks = &config.webhooks;
    let hosts = webhooks.all_hosts().map_err(|_| "webhooks: a host cannot be read".to_owned())?;
    let trust_pem = if hosts.is_empty() {
        String::new()
    } else {
        trust(config, webhooks.trust.as_deref()).map_err(|fault| format!("webhooks.{fault}"))?
    };
    let in_production = config.environment == Environment::Production;
    let hosts = hosts.into_iter().map(|(name, port, is_private)| CourierHost {
        name,
        port,
        public_only: in_production && !is_private,
    });
    Ok(CourierSettings { hosts: hosts.collect(), trust_pem, timeout_seconds: webhooks.timeout_seconds })
}

/// The table of issuer ranges, packed; empty if the operator has none.
pub(super) fn load_ranges(config: &Config) -> Result<Vec<u8>, String> {
    config.ranges.file.as_deref().map_or(Ok(Vec::new()), ranges::load)
}

fn undo(connector: &Connector, operation: Operation) -> Option<Verb> {
    connector
        .undo_for(operation)
        .map(|undo| if undo == Operation::Refund { Verb::Refund } else { Verb::Void })
}

fn connector_text(config: &Config, name: &str) -> Result<(String, String), String> {
    let own = config.connectors.directory.as_ref().map(|directory| directory.join(format!("{name}.toml")));
    if let Some(path) = own.filter(|path| path.exists()) {
        return Ok((path.display().to_string(), read(&path)?));
    }
    connector::builtin_text(name).map(|text| (format!("{name}.toml"), text.to_owned())).ok_or_else(|| {
        "connector: there is none of this name; see `cardvault connector` for those there are".to_owned()
    })
}

fn endpoint(config: &Config, from: &DestinationConfig, connector: &Connector) -> Result<String, String> {
    let own = match from.mode {
        Mode::Test => connector.test(),
        Mode::Live => connector.live(),
    };
    let endpoint = from
        .endpoint
        .clone()
        .or_else(|| match own {
            Some(Endpoint::Fixed(url)) => Some(url.to_string()),
            Some(Endpoint::Operator) | None => None,
        })
        .ok_or_else(|| "endpoint: the connector has none for this mode; give one".to_owned())?;
    checked_endpoint(config, endpoint)
}

fn checked_endpoint(config: &Config, endpoint: String) -> Result<String, String> {
    let plain = endpoint.starts_with("http://");
    if !plain && !endpoint.starts_with("https://") {
        return Err("endpoint: use an https:// URL".to_owned());
    }
    if plain && config.environment == Environment::Production {
        return Err("endpoint: production does not send cards over plain HTTP; use https://".to_owned());
    }
    Ok(endpoint)
}

/// This machine's trusted certificates.
pub(super) fn machine_trust<'a>() -> Option<&'a Path> {
    MACHINE_TRUST.iter().map(Path::new).find(|path| path.exists())
}

fn trust(config: &Config, own: Option<&Path>) -> Result<String, String> {
    let path = own.or_else(machine_trust);
    let path =
        path.ok_or_else(|| "trust: this machine has no certificates of its own; give a PEM file".to_owned())?;
    let text = read(path)?;
    let readable = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    match readable {
        Ok(certificates) if is_refused(config, &certificates) => Err(
            "trust: production trusts no development authority; give the certificates that the processor names".to_owned(),
        ),
        Ok(certificates) if !certificates.is_empty() => Ok(text),
        Ok(_) | Err(_) => Err("trust: the file holds no PEM certificates".to_owned()),
    }
}

fn credentials(from: &DestinationConfig, connector: &Connector) -> Result<BTreeMap<String, String>, String> {
    let wanted: Vec<&str> = connector.credentials().map(|(field, _)| field).collect();
    if let Some(unknown) = from.credentials.keys().find(|field| !wanted.contains(&field.as_str())) {
        return Err(format!(
            "credentials.{unknown}: the connector has no such field; it has {}",
            wanted.join(", ")
        ));
    }
    let given = wanted
        .into_iter()
        .filter(|field| from.credentials.contains_key(*field) || !connector.is_optional(field))
        .map(|field| {
            let path = from.credentials.get(field).ok_or_else(|| {
                format!("credentials.{field}: the connector needs it; give the path of a file")
            })?;
            credential(field, path)
        });
    let given: BTreeMap<String, String> = given.collect::<Result<_, String>>()?;
    check_webhook_key(&given, connector, "credentials")?;
    Ok(given)
}

/// Whether webhooks can be checked: the key that they are signed with is there.
fn takes_webhooks(from: &DestinationConfig, connector: &Connector) -> bool {
    connector.webhook_secret().is_some_and(|field| from.credentials.contains_key(field))
}

/// A key that cannot be read would refuse every webhook, and nobody would know why.
fn check_webhook_key(
    given: &BTreeMap<String, String>,
    connector: &Connector,
    setting: &str,
) -> Result<(), String> {
    let Some((field, key)) = connector.webhook_secret().and_then(|field| given.get_key_value(field)) else {
        return Ok(());
    };
    if connector.is_webhook_secret(key) {
        return Ok(());
    }
    Err(format!(
        "{setting}.{field}: the file does not hold a key as the connector's `key` of [webhook.verify] says"
    ))
}

/// What comes after the credentials in use, whole; empty where nothing does.
fn next_credentials(
    from: &DestinationConfig,
    connector: &Connector,
) -> Result<BTreeMap<String, String>, String> {
    let known = |field: &str| connector.credentials().any(|(known, _)| known == field);
    if let Some(unknown) = from.next_credentials.keys().find(|field| !known(field)) {
        return Err(format!(
            "next_credentials.{unknown}: the connector has no such field; use those of credentials"
        ));
    }
    if from.next_credentials.is_empty() {
        return Ok(BTreeMap::new());
    }
    // A field that does not change is that of the credentials in use.
    let files = from.credentials.iter().chain(&from.next_credentials);
    let next = files.map(|(field, path)| credential(field, path)).collect::<Result<BTreeMap<_, _>, _>>()?;
    check_webhook_key(&next, connector, "next_credentials")?;
    Ok(next)
}

fn credential(field: &str, path: &Path) -> Result<(String, String), String> {
    let text = Zeroizing::new(read(path)?);
    Ok((field.to_owned(), text.trim().to_owned()))
}

/// Whether one of the certificates is of the authority that `init` makes for one machine, and production is no place for it.
fn is_refused(config: &Config, certificates: &[CertificateDer<'_>]) -> bool {
    let name = setup::DEVELOPMENT_NAME.as_bytes();
    let is_ours = |der: &CertificateDer<'_>| der.windows(name.len()).any(|part| part == name);
    config.environment == Environment::Production && certificates.iter().any(is_ours)
}

/// What the edge may learn again while it runs: certificates, tenants, destinations.
pub(super) fn edge_reload(
    config: &Config,
    tenants: &[TenantInfo],
    destinations: &[Loaded],
) -> Result<EdgeReload, String> {
    let (mut certificate_pem, mut key_pem) = (String::new(), String::new());
    if !config.listen.plain_http
        && let (Some(certificate), Some(key)) = (&config.listen.certificate, &config.listen.key)
    {
        certificate_pem = read(certificate).map_err(|fault| format!("listen.certificate: {fault}"))?;
        key_pem = read(key).map_err(|fault| format!("listen.key: {fault}"))?;
        let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.unwrap_or_default();
        if chain.is_empty() {
            return Err("listen.certificate: the file holds no PEM certificates".to_owned());
        }
        if is_refused(config, &chain) {
            return Err("listen.certificate: production does not show the development certificate; give one of an authority that \
                        clients trust"
                .to_owned());
        }
        PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|_| "listen.key: the file holds no PEM private key".to_owned())?;
    }
    let charging = config.charging().map_err(|faults| faults.join("\n"))?;
    let mut forwards = Vec::new();
    let mut charged = Vec::with_capacity(destinations.len());
    for loaded in destinations {
        match &loaded.info {
            Info::Charged(info) => charged.push(DestinationInfo::clone(info)),
            Info::Forward(info) => forwards.push(info.clone()),
        }
    }
    Ok(EdgeReload {
        charging,
        certificate_pem,
        key_pem,
        tenants: tenants.to_vec(),
        exemptions: config.exempt.clone(),
        destinations: charged,
        forwards,
        webhooks: config.webhooks.rules(),
        erasure: config.erasure.terms(),
        two_persons: config.two_person(),
        retention: retention(config, tenants.iter().map(|tenant| tenant.name.as_str()))?,
    })
}

/// How long cards are kept. In production each of these tenants has a policy: a tenant's cards would be kept for ever without one.
pub(super) fn retention<'a>(
    config: &Config,
    tenants: impl IntoIterator<Item = &'a str>,
) -> Result<Retention, String> {
    let lacks = erasure::without_policy(&config.retention, tenants);
    match lacks.filter(|_| config.environment == Environment::Production) {
        Some(name) => Err(format!(
            "retention.{name}: production keeps no tenant's cards without a policy; write [retention.{name}] with \
             days_after_last_agreement and charges_days"
        )),
        None => Ok(config.retention.clone()),
    }
}

/// What a reload may not do: drop a policy that is in force.
pub(super) fn check_policies_stay<'a>(
    now: &Config,
    next: &Config,
    tenants: impl IntoIterator<Item = &'a str>,
) -> Result<(), String> {
    let in_force = tenants.into_iter().filter(|name| now.retention.contains_key(*name));
    erasure::without_policy(&next.retention, in_force).map_or(Ok(()), |name| {
        Err(format!(
            "retention.{name}: retention is not turned off while the vault runs; write the section again"
        ))
    })
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path)
        .map_err(|error| format!("{} cannot be read: {}", path.display(), error.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_next_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["key", "new"] {
            std::fs::write(path(name), format!("sk_{name}\n")).unwrap();
        }
        let config = Config::parse(include_str!("../../deploy/cardvault.example.toml"), "example").unwrap();
        let mut from = config.destination.values().next().unwrap().clone();
        let text = connector::builtin_text("sandbox").unwrap();
        let two =
            text.replacen("[auth]", "account = \"which\"\n[auth]\nheader.X-Account = \"{cred.account}\"", 1);
        let connector = Connector::parse("two.toml", &two).unwrap();
        from.credentials =
            BTreeMap::from(["secret_key", "account"].map(|field| (field.to_owned(), path("key"))));
        assert_eq!(next_credentials(&from, &connector), Ok(BTreeMap::new()));
        from.next_credentials = BTreeMap::from([("secret_key".to_owned(), path("new"))]);
        let next = next_credentials(&from, &connector).unwrap();
        assert_eq!((next["secret_key"].as_str(), next["account"].as_str()), ("sk_new", "sk_key"));
        from.next_credentials.insert("secret_key".to_owned(), path("missing"));
        assert!(next_credentials(&from, &connector).unwrap_err().contains("cannot be read"));
        from.next_credentials = BTreeMap::from([("key".to_owned(), path("new"))]);
        let refused = next_credentials(&from, &connector).unwrap_err();
        assert!(refused.starts_with("next_credentials.key:"), "{refused}");
    }

    #[test]
    fn a_destination_takes_webhooks_once_it_has_their_key() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::parse(include_str!("../../deploy/cardvault.example.toml"), "example").unwrap();
        let mut from = config.destination.values().next().unwrap().clone();
        let adyen = connector::builtin("adyen").unwrap();
        let mut give = |field: &str, text: &str| {
            let path = directory.path().join(field);
            std::fs::write(&path, text).unwrap();
            from.credentials.insert(field.to_owned(), path);
            from.clone()
        };
        give("basic_auth", "dXNlcjpwYXNz");
        let mut without = give("merchant_account", "TestMerchant");
        without.credentials.remove("secret_key");
        assert_eq!(credentials(&without, &adyen).unwrap().len(), 2);
        assert!(!takes_webhooks(&without, &adyen));
        let mut with = give("webhook_hmac_key", "00ff\n");
        with.credentials.remove("secret_key");
        assert_eq!(credentials(&with, &adyen).unwrap()["webhook_hmac_key"], "00ff");
        assert!(takes_webhooks(&with, &adyen));
        for wrong in ["not hex", ""] {
            let mut with = give("webhook_hmac_key", wrong);
            with.credentials.remove("secret_key");
            let refused = credentials(&with, &adyen).unwrap_err();
            assert!(
                refused.starts_with("credentials.webhook_hmac_key: the file does not hold a key"),
                "{refused}"
            );
        }
        let mut lacking = without;
        lacking.credentials.remove("merchant_account");
        assert!(credentials(&lacking, &adyen).unwrap_err().contains("the connector needs it"));
    }

    #[test]
    fn every_tenant_in_production_has_a_policy_of_retention_and_none_is_dropped() {
        let text = include_str!("../../deploy/cardvault.example.toml");
        let mut config = Config::parse(text, "example").unwrap();
        let mut with = config.clone();
        let policy = erasure::RetentionConfig { days_after_last_agreement: 9, charges_days: Some(540) };
        with.retention.insert("acme".to_owned(), policy);
        // Development may do without; what is in force stays, of a tenant that there is.
        assert!(retention(&config, ["acme"]).is_ok());
        let refused = check_policies_stay(&with, &config, ["other", "acme"]).unwrap_err();
        assert!(refused.starts_with("retention.acme:"), "{refused}");
        assert_eq!(check_policies_stay(&with, &config, ["other"]), Ok(()));
        assert_eq!(check_policies_stay(&config, &with, ["acme"]), Ok(()));
        for config in [&mut config, &mut with] {
            config.environment = Environment::Production;
        }
        let refused = retention(&config, ["acme"]).unwrap_err();
        assert!(refused.starts_with("retention.acme: production"), "{refused}");
        assert!(retention(&config, []).is_ok() && retention(&with, ["acme"]).is_ok());
        assert!(retention(&with, ["acme", "other"]).unwrap_err().starts_with("retention.other:"));
        let tenant = TenantInfo {
            id: crate::card::tenant::TenantId(1),
            name: "other".to_owned(),
            mode: Mode::Live,
            disabled: true,
            created_at: crate::clock::Time::from_micros(0),
        };
        // Where the edge is told, too: at each start and reload.
        with.listen.plain_http = true;
        let refused = edge_reload(&with, &[tenant], &[]).err().unwrap();
        assert!(refused.starts_with("retention.other:"), "{refused}");
    }

    #[test]
    fn production_takes_no_development_certificate() {
        let directory = tempfile::tempdir().unwrap();
        setup::make_certificates(directory.path()).unwrap();
        let text = include_str!("../../deploy/cardvault.example.toml");
        let mut config = Config::parse(text, "example").unwrap();
        config.listen.certificate = Some(directory.path().join("server.pem"));
        config.listen.key = Some(directory.path().join("server.key"));
        let mut destination = config.destination.values().next().unwrap().clone();
        destination.trust = Some(directory.path().join("ca.pem"));
        assert!(
            edge_reload(&config, &[], &[]).is_ok() && trust(&config, destination.trust.as_deref()).is_ok()
        );
        config.environment = Environment::Production;
        let refused = edge_reload(&config, &[], &[]).err().unwrap();
        assert!(refused.starts_with("listen.certificate: production"), "{refused}");
        let refused = trust(&config, destination.trust.as_deref()).unwrap_err();
        assert!(refused.starts_with("trust: production"), "{refused}");
        // One of another authority is taken.
        let other = rcgen::generate_simple_self_signed(vec!["vault.example".to_owned()]).unwrap();
        for (name, text) in
            [("server.pem", other.cert.pem()), ("server.key", other.signing_key.serialize_pem())]
        {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        destination.trust = Some(directory.path().join("server.pem"));
        assert!(
            edge_reload(&config, &[], &[]).is_ok() && trust(&config, destination.trust.as_deref()).is_ok()
        );
    }
}
