//! Where webhooks may go, and how they are tried again, as configured (`[webhooks]`).

use std::path::PathBuf;

use serde::Deserialize;

use crate::wire::control::WebhookRules;
use crate::wire::courier::RETRY_AFTER_SECONDS_MAX;

const PORT_DEFAULT: u16 = 443;
const HOSTS_MAX: usize = 1_000;
const HOST_BYTES_MAX: usize = 253;
const RETRIES_MAX: usize = 20;
const DAY_SECONDS: u64 = 86_400;
const RETRY_SECONDS_MAX: u64 = RETRY_AFTER_SECONDS_MAX as u64;

/// Webhooks out: hosts, trust, times.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhooksConfig {
    /// Hosts, with a port if it is not 443.
    pub hosts: Vec<String>,
    /// More hosts, which may have a private address.
    pub private_hosts: Vec<String>,
    /// The certificates that they must chain to, PEM; the machine's own if absent.
    pub trust: Option<PathBuf>,
    /// Seconds for one delivery.
    pub timeout_seconds: u64,
    /// From each failed attempt to the next; the times that Standard Webhooks recommends by default.
    pub retry_seconds: Vec<u64>,
    /// An endpoint at which nothing has worked for so long is switched off.
    pub disable_after_seconds: u64,
    /// For how long events and deliveries are kept.
    pub keep_days: u64,
}

impl Default for WebhooksConfig {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            private_hosts: Vec::new(),
            trust: None,
            timeout_seconds: 15,
            retry_seconds: vec![5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400],
            disable_after_seconds: 5 * DAY_SECONDS,
            keep_days: 30,
        }
    }
}

/// A host cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHost;

impl WebhooksConfig {
    /// (host in lower case, port, whether it may have a private address), each once; who is on both lists may.
    pub fn all_hosts(&self) -> Result<Vec<(String, u16, bool)>, NoHost> {
        let mut all: Vec<(String, u16, bool)> = Vec::new();
        let lists = [(&self.private_hosts, true), (&self.hosts, false)];
        for (text, is_private) in lists.iter().flat_map(|(list, private)| list.iter().map(|h| (h, *private)))
        {
            let (name, port) = read_host(text).ok_or(NoHost)?;
            if !all.iter().any(|(known, of, _)| *known == name && *of == port) {
                all.push((name, port, is_private));
            }
        }
        Ok(all)
    }

    /// What the edge is told.
    pub fn rules(&self) -> WebhookRules {
        let hosts = self.all_hosts().unwrap_or_default();
        WebhookRules {
            hosts: hosts.into_iter().map(|(name, port, _)| (name, port)).collect(),
            retry_seconds: self.retry_seconds.clone(),
            disable_after_seconds: self.disable_after_seconds,
            keep_seconds: self.keep_days.saturating_mul(DAY_SECONDS),
        }
    }

    /// What is wrong with the settings, each with what to do.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |wrong: bool, sentence: &str| {
            if wrong {
                faults.push(format!("webhooks.{sentence}"));
            }
        };
        fault(
            self.all_hosts().map_or(true, |hosts| hosts.len() > HOSTS_MAX),
            "hosts: use at most 1000 of host or host:port, without scheme or path",
        );
        fault(!(1..=60).contains(&self.timeout_seconds), "timeout_seconds: use 1 to 60");
        let each = |seconds: &u64| (1..=RETRY_SECONDS_MAX).contains(seconds);
        fault(
            self.retry_seconds.len() > RETRIES_MAX || !self.retry_seconds.iter().all(each),
            "retry_seconds: use at most 20 times of 1 to 172800 seconds",
        );
        fault(self.disable_after_seconds == 0, "disable_after_seconds: use 1 or more");
        // What still waits to be tried again must not be gone, and a receiver may ask for the longest time each time.
        let longest = self.retry_seconds.iter().copied().max().unwrap_or(0);
        let times = u64::try_from(self.retry_seconds.len()).unwrap_or(u64::MAX);
        let waits = longest.saturating_mul(times).saturating_add(DAY_SECONDS);
        let keeps = self.keep_days.saturating_mul(DAY_SECONDS);
        fault(
            keeps < waits || self.keep_days > 3_650,
            "keep_days: use a day more than the longest of retry_seconds for each of them, up to 3650",
        );
        faults
    }
}

/// `host`, `host:port`, `[address]:port`.
fn read_host(text: &str) -> Option<(String, u16)> {
    let authority: axum::http::uri::Authority = text.parse().ok()?;
    let name = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    let is_sound = !text.contains('@') && !name.is_empty() && name.len() <= HOST_BYTES_MAX;
    // A port that is none would pass for no port.
    let port = match authority.as_str().strip_prefix(authority.host())? {
        "" => PORT_DEFAULT,
        _ => authority.port_u16()?,
    };
    (is_sound && name.bytes().all(is_host) && port > 0).then_some((name, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_once_each_and_faults_are_named() {
        let list = |hosts: &[&str]| hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>();
        let config = WebhooksConfig {
            hosts: list(&["Hooks.example.com", "hooks.example.com:443", "h:8443", "[::1]:9"]),
            private_hosts: list(&["h:8443"]),
            ..WebhooksConfig::default()
        };
        let all = config.all_hosts().unwrap();
        assert_eq!(
            all,
            [
                ("h".to_owned(), 8443, true),
                ("hooks.example.com".to_owned(), 443, false),
                ("::1".to_owned(), 9, false)
            ]
        );
        assert!(config.faults().is_empty(), "{:?}", config.faults());
        for host in ["https://h", "h/x", "u@h", "", "*.h", "h:99999"] {
            let config = WebhooksConfig { hosts: list(&[host]), ..WebhooksConfig::default() };
            assert_eq!(config.faults().len(), 1, "{host}");
        }
        let short = WebhooksConfig { keep_days: 3, ..WebhooksConfig::default() };
        assert!(short.faults()[0].starts_with("webhooks.keep_days"));
    }
}
