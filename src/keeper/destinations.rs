//! Destinations as the keeper has them: from the supervisor's configuration, and from nowhere else.

use std::collections::{BTreeMap, HashMap};

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::card::tenant::Mode;
use crate::connector::{Connector, IdempotencyKind};
use crate::wire::control::Destination;
use crate::wire::forwarder::{Answer, Outcome, Verdict};

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
    /// The credentials in use, and while rotating those that come after.
    credentials: Vec<Credentials>,
    /// Which of them the next request goes out with.
    used: usize,
}

/// By field name.
type Credentials = Vec<(String, SecretString)>;

impl KeptDestination {
    /// The credentials that the next request goes out with, by field name.
    pub(in crate::keeper) fn credentials(&self) -> Vec<(&str, &str)> {
        let used = self.credentials.get(self.used).into_iter().flatten();
        used.map(|(name, value)| (name.as_str(), value.expose_secret())).collect()
    }

    /// Which those are.
    pub(in crate::keeper) fn credentials_used(&self) -> u8 {
        u8::try_from(self.used).unwrap_or(0)
    }

    /// These fields of each set of credentials.
    pub(in crate::keeper) fn sets_of(&self, fields: &[&str]) -> Vec<Vec<(String, String)>> {
        let of = |set: &Credentials| {
            let wanted = set.iter().filter(|(name, _)| fields.contains(&name.as_str()));
            wanted.map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect()
        };
        self.credentials.iter().map(of).collect()
    }

    /// The values of all credentials, which must not come back in an answer.
    pub(in crate::keeper) fn secrets(&self) -> impl Iterator<Item = String> {
        self.credentials.iter().flatten().map(|(_, value)| value.expose_secret().to_owned())
    }

    /// The processor refused these credentials: uses the others from now on. Whether there are others, and these were in use still.
    pub(in crate::keeper) fn refused(&mut self, credentials: u8) -> bool {
        let changes = self.credentials.len() > 1 && self.credentials_used() == credentials;
        if changes {
            self.used = (self.used + 1) % self.credentials.len();
        }
        changes
    }

    /// Takes over from before a reload which credentials are used, unless the files hold others now.
    pub(in crate::keeper) fn go_on_from(&mut self, before: &Self) {
        let values = |of: &Self| of.secrets().map(Zeroizing::new).collect::<Vec<_>>();
        if values(self) == values(before) && self.credentials.len() == before.credentials.len() {
            self.used = before.used;
        }
    }
}

/// Whether the answer says that the processor takes these credentials no more. Such an answer settles its own attempt as the
/// connector says; nothing is sent again for it.
pub(in crate::keeper) fn refuses_credentials(outcome: &Outcome) -> bool {
    let refused = |answer: &Answer| {
        answer.verdict == Verdict::Error && !answer.unknown && matches!(answer.http_status, 401 | 403)
    };
    outcome.answer.as_ref().is_some_and(refused)
}

/// Compiles all destinations; a fault names file and line, never a value.
pub(in crate::keeper) fn compile(all: Vec<Destination>) -> Result<HashMap<String, KeptDestination>, String> {
    all.into_iter()
        .map(|one| {
            let connector = Connector::parse(&one.connector, &one.connector_toml)
                .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
            let pooled = connector.idempotency().kind != IdempotencyKind::None;
            let address = one.endpoint.split_once("://").map_or(one.endpoint.as_str(), |(_, rest)| rest);
            let (host, prefix) = address.find('/').map_or((address, ""), |slash| address.split_at(slash));
            let secret = |all: BTreeMap<String, String>| -> Credentials {
                all.into_iter().map(|(name, value)| (name, SecretString::from(value))).collect()
            };
            let next = Some(one.next_credentials).filter(|next| !next.is_empty());
            let credentials = std::iter::once(one.credentials).chain(next).map(secret).collect();
            let kept = KeptDestination {
                host: host.to_owned(),
                prefix: prefix.trim_end_matches('/').to_owned(),
                name: one.name.clone(),
                connector,
                mode: one.mode,
                policies: one.policies,
                pooled,
                credentials,
                used: 0,
            };
            Ok((one.name, kept))
        })
        .collect()
}
