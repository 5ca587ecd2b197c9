//! The vault of the demo: made, started, killed and started again, with the people who use it.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::place::{self, Place};
use super::plan;
use super::processes::Process;
use crate::card::tenant::Mode;
use crate::supervisor::admin::{self, AdminRequest};
use crate::supervisor::setup::{self, InitArgs};
use crate::tools::client::Client;
use crate::wire::control::{AdminAnswer, PrincipalOrder};

/// The tenant's name.
pub(super) const TENANT: &str = "demo";

/// Who uses the vault: name, tenant or none, scopes.
const PRINCIPALS: [(&str, Option<&str>, &[&str]); 3] = [
    ("billing", Some(TENANT), &["tokens:create", "tokens:read", "tokens:update", "tokens:erase"]),
    (
        "invoicing",
        Some(TENANT),
        &["charges:create", "charges:read", "charges:capture", "charges:refund", "charges:resolve"],
    ),
    ("assessor", None, &["audit:read", "evidence:read"]),
];

/// Sandbox and vault. Dropping it ends both.
pub(super) struct Installation {
    place: Place,
    config: PathBuf,
    vault: Option<Process>,
    /// Behind the vault, so that it ends after it.
    sandbox: Process,
    sandbox_url: String,
    credentials: BTreeMap<&'static str, String>,
    pids: Vec<(String, u32)>,
    url: watch::Sender<Option<String>>,
    ca: Vec<u8>,
}

/// One who calls the vault, wherever it listens now.
#[derive(Clone)]
pub(super) struct Caller {
    url: watch::Receiver<Option<String>>,
    ca: Vec<u8>,
    credential: String,
    client: Option<(String, Client)>,
}

impl Installation {
    /// Makes keys, certificates and a configuration, and starts sandbox and vault. To be called outside a runtime.
    pub(super) fn make(place: &Place) -> Result<Self, String> {
        let sandbox_address = place::free_port()?;
        let made = setup::init(&InitArgs::on_free_ports(place.directory.clone(), sandbox_address))?;
        let ca_file = place.at("tls/ca.pem");
        let ca = std::fs::read(&ca_file)
            .map_err(|error| format!("{} cannot be read: {}", ca_file.display(), error.kind()))?;
        let sandbox = start_sandbox(place, &sandbox_address.to_string())?;
        let mut installation = Self {
            place: place.clone(),
            config: made.config,
            vault: None,
            sandbox,
            sandbox_url: format!("https://{sandbox_address}"),
            credentials: BTreeMap::new(),
            pids: Vec::new(),
            url: watch::channel(None).0,
            ca,
        };
        installation.keep_credential("admin", &made.credential.unwrap_or_default())?;
        installation.start_vault()?;
        installation.add_principals()?;
        Ok(installation)
    }

    /// Starts the vault; says how long it took until it served.
    pub(super) fn start_vault(&mut self) -> Result<Duration, String> {
        let began = Instant::now();
        let port_file = self.place.at("vault.port");
        let _ = std::fs::remove_file(&port_file);
        let (config, ports) = (self.config.display().to_string(), port_file.display().to_string());
        let arguments = ["serve", "--config", &config, "--port-file", &ports, "--until-stdin-closes"];
        let mut vault = Process::start("vault", &arguments, &self.place.at("vault.log"))?;
        let addresses = vault.await_lines(&port_file, 2)?;
        let api = addresses.into_iter().next().unwrap_or_default();
        self.vault = Some(vault);
        let taken = began.elapsed();
        self.pids = self.read_pids()?;
        self.url.send_replace(Some(format!("https://{api}")));
        Ok(taken)
    }

    /// Kills the supervisor with SIGKILL, and sees to it that all its processes are gone. Callers wait until it runs again.
    pub(super) fn kill_vault(&mut self) -> Result<usize, String> {
        self.url.send_replace(None);
        let others: Vec<u32> = self.pids.iter().map(|(_, pid)| *pid).collect();
        let mut vault = self.vault.take().ok_or("the vault does not run")?;
        vault.kill(&others)?;
        Ok(others.len())
    }

    /// Whether vault and sandbox still run.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let vault_ended = self.vault.as_mut().is_none_or(Process::has_ended);
        for (name, ended) in [("vault", vault_ended), ("sandbox", self.sandbox.has_ended())] {
            if ended {
                return Err(format!(
                    "the {name} ended; its log is {}",
                    self.place.text(&format!("{name}.log"))
                ));
            }
        }
        Ok(())
    }

    /// The vault's processes: role and process id.
    pub(super) fn processes(&self) -> &[(String, u32)] {
        &self.pids
    }

    /// The sandbox's process id.
    pub(super) fn sandbox_pid(&self) -> u32 {
        self.sandbox.pid()
    }

    /// Where the API listens now.
    pub(super) fn url(&self) -> String {
        self.url.borrow().clone().unwrap_or_default()
    }

    /// Where the sandbox listens.
    pub(super) fn sandbox_url(&self) -> &str {
        &self.sandbox_url
    }

    /// One who calls the vault as this principal.
    pub(super) fn caller(&self, principal: &str) -> Result<Caller, String> {
        let credential = self.credentials.get(principal).cloned();
        Ok(Caller {
            url: self.url.subscribe(),
            ca: self.ca.clone(),
            credential: credential.ok_or("there is no such principal")?,
            client: None,
        })
    }

    /// A client of the sandbox's own verbs.
    pub(super) fn sandbox_client(&self) -> Result<Client, String> {
        Client::new(&self.sandbox_url, Some(&self.ca), None).map_err(|error| error.to_string())
    }

    fn add_principals(&mut self) -> Result<(), String> {
        let tenant = AdminRequest::TenantAdd { name: TENANT.to_owned(), mode: Mode::Test };
        let mut requests = vec![tenant];
        requests.extend(PRINCIPALS.map(|(name, tenant, scopes)| {
            AdminRequest::PrincipalAdd(PrincipalOrder {
                name: name.to_owned(),
                person: tenant.is_none(),
                tenant: tenant.map(str::to_owned),
                scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
                expires_at: None,
                charge_max: BTreeMap::new(),
                day_max: BTreeMap::new(),
                destinations: Vec::new(),
            })
        }));
        let names = [TENANT].into_iter().chain(PRINCIPALS.map(|(name, _, _)| name));
        for (name, answer) in names.zip(admin::ask(&self.config, &requests)?) {
            match answer {
                AdminAnswer::Credential { credential, .. } => self.keep_credential(name, &credential)?,
                AdminAnswer::Refused(sentence) => {
                    return Err(format!("{name} could not be made: {sentence}"));
                }
                AdminAnswer::Done(_) | AdminAnswer::Table(_) => {}
            }
        }
        Ok(())
    }

    /// A credential goes to a file of its own, so that a command line can use it without showing it.
    fn keep_credential(&mut self, name: &'static str, credential: &str) -> Result<(), String> {
        let path = self.place.at("credentials").join(name);
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| writeln!(file, "{credential}"))
            .map_err(|error| format!("{} cannot be written: {}", path.display(), error.kind()))?;
        self.credentials.insert(name, credential.to_owned());
        Ok(())
    }

    fn read_pids(&self) -> Result<Vec<(String, u32)>, String> {
        let answers = admin::ask(&self.config, &[AdminRequest::Processes])?;
        let Some(AdminAnswer::Table(rows)) = answers.into_iter().next() else {
            return Err("the vault does not say which processes it has".to_owned());
        };
        let read = |row: Vec<String>| match row.as_slice() {
            [role, pid, ..] => Some((role.clone(), pid.parse().ok()?)),
            [] | [_] => None,
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }
}

fn start_sandbox(place: &Place, address: &str) -> Result<Process, String> {
    let port_file = place.at("sandbox.port");
    let wait = plan::PROCESSOR.as_millis().to_string();
    let [ledger, secret, certificate, key, ports] = [
        "sandbox-ledger.ndjson",
        "credentials/sandbox_secret_key",
        "tls/sandbox.pem",
        "tls/sandbox.key",
        "sandbox.port",
    ]
    .map(|name| place.text(name));
    let mut arguments =
        vec!["sandbox", "--listen", address, "--ledger", &ledger, "--secret-key-file", &secret];
    arguments.extend(["--certificate", &certificate, "--key", &key, "--port-file", &ports]);
    arguments.extend(["--processor-ms", &wait, "--until-stdin-closes"]);
    let mut sandbox = Process::start("sandbox", &arguments, &place.at("sandbox.log"))?;
    sandbox.await_lines(&port_file, 1)?;
    Ok(sandbox)
}

impl Caller {
    /// A client of the vault; waits while there is none to be called.
    pub(super) async fn client(&mut self) -> Result<Client, String> {
        let stopped = |_| "the demo was stopped".to_owned();
        let url = self.url.wait_for(Option::is_some).await.map_err(stopped)?.clone().unwrap_or_default();
        match &self.client {
            Some((known, client)) if *known == url => Ok(client.clone()),
            Some(_) | None => {
                let client = Client::new(&url, Some(&self.ca), Some(&self.credential))
                    .map_err(|error| error.to_string())?;
                self.client = Some((url, client.clone()));
                Ok(client)
            }
        }
    }
}
