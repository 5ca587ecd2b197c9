//! The vault and the sandbox, with a destination of each class, faults by chance, and a hand that kills.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cardvault::card::tenant::Mode;
use cardvault::tools::client::Client;
use serde_json::{Value, json};
use tokio::sync::RwLock;

use super::plan::{Dice, Lane};
use crate::common::{Vault, order, text};

const ROLES: [&str; 4] = ["edge", "keeper", "forwarder", "supervisor"];
const SCOPES: [&str; 8] = [
    "tokens:create",
    "tokens:read",
    "tokens:update",
    "tokens:erase",
    "charges:create",
    "charges:read",
    "charges:capture",
    "charges:refund",
];
/// The sandbox refuses connections by chance, also of those who set it up.
const TRIES_MAX: usize = 200;
/// Every fault of the sandbox.
const FAULTS: [&str; 24] = [
    "refuse",
    "reset_before",
    "reset",
    "stall",
    "truncate",
    "garbage",
    "drop",
    "error_500",
    "unavailable",
    "rate_limited",
    "empty",
    "duplicate",
    "plain_text",
    "delay",
    "length_long",
    "length_short",
    "pan_echo",
    "pan_echo_500",
    "redirect",
    "redirect_307",
    "unauthorized",
    "hang",
    "slow_drip",
    "huge",
];
/// The key that Adyen's webhooks are signed with, in hex.
const WEBHOOK_KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";

pub(super) struct Place {
    pub(super) vault: Vault,
    pub(super) client: Arc<RwLock<Client>>,
    credential: String,
}

impl Place {
    /// A vault whose destinations are the sandbox in five wire forms, each with its own class.
    pub(super) async fn open() -> Self {
        // The processor that tells must know where, also while the vault is down.
        let api = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut vault = Vault::make(|config| with_lanes(&config, api));
        for lane in Lane::ALL {
            let directory = vault.path("connectors");
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join(format!("{}.toml", lane.destination())), connector(lane)).unwrap();
        }
        let secret = std::fs::read_to_string(vault.path("credentials/sandbox_secret_key")).unwrap();
        let basic = data_encoding::BASE64.encode(format!("shop:{}", secret.trim()).as_bytes());
        for (name, text) in [("shop", "SHOP"), ("basic", basic.as_str()), ("webhook", WEBHOOK_KEY)] {
            let path = vault.path(&format!("credentials/{name}"));
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let port = std::fs::read_to_string(vault.beside("sandbox.port")).unwrap().trim().parse().unwrap();
        let flags = [
            (
                "--adyen-webhook-url",
                format!("https://127.0.0.1:{api}/v1/webhooks/{}", Lane::Told.destination()),
            ),
            ("--adyen-webhook-ca", vault.path("tls/ca.pem").display().to_string()),
            ("--adyen-webhook-hmac-key-file", vault.path("credentials/webhook").display().to_string()),
        ];
        vault.stop_sandbox();
        vault.start_sandbox_with(port, &flags.map(|(flag, value)| [flag.to_owned(), value]).concat());
        vault.serve();
        vault.tenant("acme", Mode::Test);
        let credential = vault.principal(order("invoicing", Some("acme"), &SCOPES));
        let client = Arc::new(RwLock::new(vault.client(&credential)));
        let place = Self { vault, client, credential };
        // Look-ups lag behind; keys outlive the test, whatever the sandbox's clock is moved by.
        let rules = json!({"search_lag_s": 1, "key_ttl_s": 1_000_000_000});
        place.tell("/sandbox/rules", &rules).await;
        place.tell("/sandbox/rules", &json!({"wire": "json", "idempotency": "success_only"})).await;
        place
    }

    /// Faults of every kind, so many of a thousand requests; none with 0.
    pub(super) async fn faults(&self, seed: u64, per_mille: u16) {
        self.tell("/sandbox/faults", &json!({"seed": seed, "per_mille": per_mille, "faults": FAULTS})).await;
    }

    /// Moves the sandbox's clock past everything that settles with time.
    pub(super) async fn settle(&self) {
        self.tell("/sandbox/clock", &json!({"advance_s": 2 * 86_400})).await;
    }

    async fn tell(&self, path: &str, body: &Value) {
        let sandbox = self.sandbox();
        for _ in 0..TRIES_MAX {
            if let Ok(answer) = sandbox.post(path, "-", body).await {
                assert_eq!(answer.status, 200, "{}", text(&answer));
                return;
            }
        }
        panic!("the sandbox does not answer to {path}");
    }

    fn sandbox(&self) -> Client {
        let port = std::fs::read_to_string(self.vault.beside("sandbox.port")).unwrap();
        let ca = std::fs::read(self.vault.path("tls/ca.pem")).unwrap();
        Client::new(&format!("https://127.0.0.1:{}", port.trim()), Some(&ca), None).unwrap()
    }

    /// Kills a process, which one the dice say, whenever another part of the operations is done.
    pub(super) async fn kill(
        self,
        dice: &mut Dice,
        done: &AtomicUsize,
        at: &[usize],
        is_over: &std::sync::atomic::AtomicBool,
    ) -> (Self, Vec<&'static str>) {
        let (mut place, mut killed) = (self, Vec::new());
        for at in at {
            while done.load(Ordering::SeqCst) < *at && !is_over.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_micros(dice.below(20_000) as u64)).await;
            let role = ROLES[dice.below(ROLES.len())];
            killed.push(role);
            let mut vault = place.vault;
            vault = tokio::task::spawn_blocking(move || {
                match role {
                    "supervisor" => {
                        vault.kill();
                        vault.serve();
                    }
                    role => vault.kill_role(role),
                }
                vault
            })
            .await
            .unwrap();
            *place.client.write().await = vault.client(&place.credential);
            place = Self { vault, ..place };
        }
        (place, killed)
    }

    /// The sandbox's ledger, one entry for each id as it stands.
    pub(super) fn ledger(&self) -> Vec<Value> {
        let lines = std::fs::read_to_string(self.vault.beside("ledger.ndjson")).unwrap();
        let mut entries: Vec<Value> = Vec::new();
        let mut places = std::collections::HashMap::new();
        for line in lines.lines() {
            let mut entry: Value = serde_json::from_str(line).unwrap();
            let id = (entry["wire"].to_string(), entry["id"].to_string());
            match places.get(&id) {
                // Pending, and decided since; what had gone wrong stays as it was.
                Some(at) => {
                    let first: &mut Value = &mut entries[*at];
                    entry["unresolvable"] = first["unresolvable"].take();
                    *first = entry;
                }
                None => {
                    places.insert(id, entries.len());
                    entries.push(entry);
                }
            }
        }
        entries
    }

    /// Files that hold a whole number of the ranges that the plan uses.
    pub(super) fn files_with_numbers(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        search(&self.vault.beside(""), &mut found);
        found
    }
}

fn search(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            search(&path, found);
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes.windows(16).any(is_number)
        {
            found.push(path);
        }
    }
}

fn is_number(bytes: &[u8]) -> bool {
    (bytes.starts_with(b"468738") || bytes.starts_with(b"468739"))
        && bytes.iter().all(u8::is_ascii_digit)
        && crate::common::numbers::complete(std::str::from_utf8(&bytes[..15]).unwrap()).as_bytes() == bytes
}

/// The configuration with a destination for each lane.
fn with_lanes(config: &str, api: u16) -> String {
    let config = config.replace("api = \"127.0.0.1:0\"", &format!("api = \"127.0.0.1:{api}\""));
    let endpoint = config.lines().find(|line| line.starts_with("endpoint = ")).unwrap().to_owned();
    let mut all = format!("{config}\n[connectors]\ndirectory = \"connectors\"\n");
    for lane in Lane::ALL {
        let credentials = match lane {
            Lane::Replay | Lane::SuccessOnly => "credentials.secret_key = \"credentials/sandbox_secret_key\"",
            Lane::NaturalKey => {
                "credentials.merchant_code = \"credentials/shop\"\ncredentials.basic = \"credentials/basic\""
            }
            Lane::None => {
                "credentials.login_id = \"credentials/shop\"\n\
                 credentials.transaction_key = \"credentials/sandbox_secret_key\""
            }
            Lane::Told => {
                "credentials.basic_auth = \"credentials/basic\"\n\
                 credentials.merchant_account = \"credentials/shop\"\n\
                 credentials.webhook_hmac_key = \"credentials/webhook\""
            }
        };
        let name = lane.destination();
        all += &format!(
            "\n[destination.{name}]\nconnector = \"{name}\"\nmode = \"test\"\n{endpoint}\n\
             trust = \"tls/ca.pem\"\n{credentials}\n"
        );
    }
    all
}

/// The product's own connector, for a processor that is quicker in all it does: nobody waits a minute for an answer here.
fn connector(lane: Lane) -> String {
    let own = match lane {
        Lane::SuccessOnly => "sandbox",
        Lane::Replay | Lane::NaturalKey | Lane::None | Lane::Told => lane.destination(),
    };
    let lines = cardvault::connector::builtin_text(own).unwrap().lines().map(|line| {
        let name = line.split(' ').next().unwrap_or_default();
        match (name, lane) {
            ("timeout_s", _) => "timeout_s = 2".to_owned(),
            ("settle_s", _) => "settle_s = 2".to_owned(),
            ("name", Lane::SuccessOnly) => format!("name = \"{}\"", lane.destination()),
            ("kind", Lane::SuccessOnly) if line.starts_with("kind = \"") => {
                "kind = \"success-only\"".to_owned()
            }
            _ => line.to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}
