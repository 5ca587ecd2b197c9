//! Destinations as the keeper has them: from the supervisor's configuration, and from nowhere else.

use std::collections::HashMap;

use secrecy::{ExposeSecret, SecretString};

use crate::card::tenant::Mode;
use crate::connector::{Connector, IdempotencyKind};
use crate::wire::control::Destination;

/// A destination with its compiled connector and its credentials.
pub(in crate::keeper) struct KeptDestination {
    /// Its name.
    pub(in crate::keeper) name: String,
    /// How to talk to it.
    pub(in crate::keeper) connector: Connector,
    /// Which tenants may use it.
    pub(in crate::keeper) mode: Mode,
    /// The destination sets it belongs to.
    pub(in crate::keeper) policies: Vec<u32>,
    /// Whether a connection that was used before may be used.
    pub(in crate::keeper) pooled: bool,
    /// Host, and port where it is not the usual one: what a signature covers.
    pub(in crate::keeper) host: String,
    /// What stands before every path.
    pub(in crate::keeper) prefix: String,
    credentials: Vec<(String, SecretString)>,
}

impl KeptDestination {
    /// The credentials, by field name.
    pub(in crate::keeper) fn credentials(&self) -> Vec<(&str, &str)> {
        self.credentials.iter().map(|(name, value)| (name.as_str(), value.expose_secret())).collect()
    }

    /// The credentials' values, which must not come back in an answer.
    pub(in crate::keeper) fn secrets(&self) -> impl Iterator<Item = String> {
        self.credentials.iter().map(|(_, value)| value.expose_secret().to_owned())
    }
}

/// Compiles all destinations; a fault names file and line, never a value.
pub(in crate::keeper) fn compile(all: Vec<Destination>) -> Result<HashMap<String, KeptDestination>, String> {
    all.into_iter()
        .map(|one| {
            let connector = Connector::parse(&one.connector, &one.connector_toml)
                .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
            let pooled = connector.idempotency().kind != IdempotencyKind::None;
            let credentials =
                one.credentials.into_iter().map(|(name, value)| (name, SecretString::from(value))).collect();
            let address = one.endpoint.split_once("://").map_or(one.endpoint.as_str(), |(_, rest)| rest);
            let (host, prefix) = address.find('/').map_or((address, ""), |slash| address.split_at(slash));
            let kept = KeptDestination {
                host: host.to_owned(),
                prefix: prefix.trim_end_matches('/').to_owned(),
                name: one.name.clone(),
                connector,
                mode: one.mode,
                policies: one.policies,
                pooled,
                credentials,
            };
            Ok((one.name, kept))
        })
        .collect()
}
