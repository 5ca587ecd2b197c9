//! A real vault for one test: made by `init`, served by the binary, with the sandbox as a process of its own; all of it ends with
//! the test.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cardvault::card::tenant::Mode;
use cardvault::clock::{Clock, SystemClock};
use cardvault::supervisor::admin::{self, AdminRequest};
use cardvault::tools::client::{Answer, Client};
use cardvault::tools::demo::is_alive;
use cardvault::wire::control::{AdminAnswer, PrincipalOrder};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) mod disk;
mod lines;
pub(crate) mod numbers;

/// The binary under test.
pub(crate) const CARDVAULT: &str = env!("CARGO_BIN_EXE_cardvault");
/// Nothing of one machine takes longer, even when all tests run at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// A large log takes an unoptimised build a while.
const LOG_PATIENCE: Duration = Duration::from_secs(300);
/// What a billing system may do.
pub(crate) const BILLING: [&str; 4] = ["tokens:create", "tokens:read", "tokens:update", "tokens:erase"];

/// A running vault.
pub(crate) struct Vault {
    directory: TempDir,
    served: Option<Child>,
    sandbox: Option<Child>,
    api: String,
    metrics: String,
    ca: Vec<u8>,
    /// The database is on a disk of its own, of so many KiB.
    disk_kib: Option<u32>,
}

impl Vault {
    /// A vault in a new directory, with the settings that `init` writes.
    pub(crate) fn start() -> Self {
        Self::start_with(|config| config)
    }

    /// The same, with the configuration changed by `edit`.
    pub(crate) fn start_with(edit: impl Fn(String) -> String) -> Self {
        let mut vault = Self::make(edit);
        vault.serve();
        vault
    }

    /// An installation that is not served yet.
    pub(crate) fn make(edit: impl Fn(String) -> String) -> Self {
        Self::make_by(&[], edit)
    }

    /// The same, with more arguments for `init`.
    pub(crate) fn make_by(more: &[&str], edit: impl Fn(String) -> String) -> Self {
        let directory = tempfile::Builder::new().prefix("cardvault-test-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let at = directory.path().join("vault");
        let usual = [
            "init",
            name(&at),
            "--api",
            "127.0.0.1:0",
            "--metrics",
            "127.0.0.1:0",
            "--sandbox",
            "127.0.0.1:1",
        ];
        let (code, text) = run(&[&usual, more].concat());
        assert_eq!(code, 0, "{text}");
        let ca = fs::read(at.join("tls/ca.pem")).unwrap();
        let mut vault = Self {
            directory,
            served: None,
            sandbox: None,
            api: String::new(),
            metrics: String::new(),
            ca,
            disk_kib: None,
        };
        let port = vault.start_sandbox();
        let config = fs::read_to_string(vault.config()).unwrap();
        let config = config.replace("https://127.0.0.1:1\"", &format!("https://127.0.0.1:{port}\""));
        fs::write(vault.config(), edit(config)).unwrap();
        vault
    }

    /// The same, whose database is on a disk of so many KiB. It is mounted in a namespace of the vault's own and ends with it.
    /// `None`, and a line that says so, where this may not be done.
    pub(crate) fn start_on_disk(kib: u32, edit: impl Fn(String) -> String) -> Option<Self> {
        let may = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
        if !may.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: a disk of its own needs the right to mount one");
            return None;
        }
        let mut vault = Self::make(edit);
        vault.disk_kib = Some(kib);
        vault.serve();
        Some(vault)
    }

    /// The database's directory: on a disk of its own it is seen through the process that uses it.
    pub(crate) fn data(&self) -> PathBuf {
        let path = self.path("data");
        match self.disk_kib {
            Some(_) => Path::new("/proc")
                .join(self.supervisor().to_string())
                .join("root")
                .join(path.strip_prefix("/").unwrap()),
            None => path,
        }
    }

    /// The database as a file that SQLite can open from here: of a disk of its own a copy, as a crash now would leave it.
    fn database_file(&self) -> PathBuf {
        if self.disk_kib.is_none() {
            return self.path("data/vault.db");
        }
        let copy = self.beside(&format!("copy-{}", SystemClock.now().micros));
        fs::create_dir(&copy).unwrap();
        let edge = self.process("edge");
        signal(edge, Signal::STOP);
        for file in ["vault.db", "vault.db-wal"] {
            fs::copy(self.data().join(file), copy.join(file)).unwrap();
        }
        signal(edge, Signal::CONT);
        copy.join("vault.db")
    }

    /// Fills the database's disk to the last byte; the file that does so is given, to be deleted.
    pub(crate) fn fill_disk(&self) -> PathBuf {
        assert!(self.disk_kib.is_some(), "this disk belongs to others too");
        let path = self.data().join("filler");
        let mut file = File::create(&path).unwrap();
        for bytes in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0; bytes]).is_ok() {}
        }
        path
    }

    /// A file of the installation.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("vault").join(name)
    }

    /// A file beside the installation.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("cardvault.toml")
    }

    fn start_sandbox(&mut self) -> u16 {
        self.start_sandbox_at(0)
    }

    /// A sandbox on this port; 0 for a free one.
    pub(crate) fn start_sandbox_at(&mut self, port: u16) -> u16 {
        self.start_sandbox_with(port, &[])
    }

    /// The same, told more.
    pub(crate) fn start_sandbox_with(&mut self, port: u16, more: &[String]) -> u16 {
        let port_file = self.beside("sandbox.port");
        let mut sandbox = Command::new(CARDVAULT);
        sandbox.args(["sandbox", "--until-stdin-closes", "--listen"]);
        sandbox.arg(format!("127.0.0.1:{port}"));
        let _ = fs::remove_file(&port_file);
        for (flag, path) in [
            ("--port-file", port_file.clone()),
            ("--ledger", self.beside("ledger.ndjson")),
            ("--secret-key-file", self.path("credentials/sandbox_secret_key")),
            ("--certificate", self.path("tls/sandbox.pem")),
            ("--key", self.path("tls/sandbox.key")),
        ] {
            sandbox.arg(flag).arg(path);
        }
        sandbox.args(more);
        let log = File::create(self.beside("sandbox.log")).unwrap();
        let sandbox = sandbox.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.sandbox = Some(sandbox);
        let text = wait_for("the sandbox's port", || fs::read_to_string(&port_file).ok());
        text.trim().parse().unwrap()
    }

    /// Serves the installation; waits until it is ready.
    pub(crate) fn serve(&mut self) {
        self.serve_sealed();
        self.wait_until_ready();
    }

    /// Serves the installation; waits until it answers, ready or not.
    pub(crate) fn serve_sealed(&mut self) {
        let port_file = self.beside("ports");
        let _ = fs::remove_file(&port_file);
        let log = File::options().create(true).append(true).open(self.beside("log")).unwrap();
        let mut serve = self.server();
        serve.arg("serve").arg("--config").arg(self.config()).arg("--port-file").arg(&port_file);
        let mut child = serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let addresses = wait_for("the vault", || {
            assert!(child.try_wait().unwrap().is_none(), "the vault ended: {}", self.log());
            let text = fs::read_to_string(&port_file).ok()?;
            let (api, metrics) = text.split_once('\n')?;
            metrics.contains(':').then(|| (format!("https://{api}"), metrics.trim().to_owned()))
        });
        self.served = Some(child);
        (self.api, self.metrics) = addresses;
    }

    fn server(&self) -> Command {
        let Some(kib) = self.disk_kib else { return Command::new(CARDVAULT) };
        let mut server = Command::new("unshare");
        let data = self.path("data");
        let mount = format!(
            "cp -a '{0}' '{0}.kept' && mount -t tmpfs -o size={kib}k,mode=0700 tmpfs '{0}' && cp -a '{0}.kept/.' '{0}' && exec \"$@\"",
            name(&data)
        );
        server.args(["-m", "--propagation", "private", "sh", "-c", mount.as_str(), "sh", CARDVAULT]);
        server
    }

    /// Waits until the vault says that all of its parts are ready.
    pub(crate) fn wait_until_ready(&self) {
        wait_for("readiness", || self.plain("/readyz").starts_with("HTTP/1.1 200").then_some(()));
    }

    /// Ends the vault in order.
    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.served.take() else { return };
        signal(child.id(), Signal::TERM);
        wait_for("the vault's end", || child.try_wait().unwrap());
    }

    /// Kills the supervisor; its children die with it.
    pub(crate) fn kill(&mut self) {
        let Some(mut child) = self.served.take() else { return };
        let children = children_of(child.id());
        let _ = child.kill();
        let _ = child.wait();
        let ended = Instant::now() + PATIENCE;
        while children.iter().any(|pid| is_alive(*pid)) && Instant::now() < ended {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the sandbox: the processor is down.
    pub(crate) fn stop_sandbox(&mut self) {
        if let Some(mut sandbox) = self.sandbox.take() {
            let _ = sandbox.kill();
            let _ = sandbox.wait();
        }
    }

    /// Asks over the administration socket.
    pub(crate) fn ask(&self, request: AdminRequest) -> AdminAnswer {
        assert!(self.served.is_some(), "a vault that does not run cannot be asked from here");
        admin::ask(&self.config(), &[request]).unwrap().remove(0)
    }

    pub(crate) fn tenant(&self, name: &str, mode: Mode) {
        let answer = self.ask(AdminRequest::TenantAdd { name: name.to_owned(), mode });
        assert!(matches!(answer, AdminAnswer::Done(_)), "{answer:?}");
    }

    /// A new principal's credential.
    pub(crate) fn principal(&self, order: PrincipalOrder) -> String {
        credential_in(self.ask(AdminRequest::PrincipalAdd(order)))
    }

    /// A client of an application of this tenant.
    pub(crate) fn application(&self, name: &str, tenant: &str, scopes: &[&str]) -> Client {
        self.client(&self.principal(order(name, Some(tenant), scopes)))
    }

    /// A client of a person who reads the log.
    pub(crate) fn assessor(&self) -> Client {
        self.client(&self.principal(PrincipalOrder {
            person: true,
            ..order("assessor", None, &["audit:read", "evidence:read", "admin:read"])
        }))
    }

    /// A client with this credential.
    pub(crate) fn client(&self, credential: &str) -> Client {
        Client::new(&self.api, Some(&self.ca), Some(credential)).unwrap().with_timeout(PATIENCE)
    }

    /// `https://host:port`.
    pub(crate) fn api(&self) -> &str {
        &self.api
    }

    /// (role, process id) of all that runs.
    pub(crate) fn processes(&self) -> Vec<(String, u32)> {
        let answer = self.ask(AdminRequest::Processes);
        let AdminAnswer::Table(rows) = answer else { panic!("no table: {answer:?}") };
        rows.into_iter().map(|row| (row[0].clone(), row[1].parse().unwrap())).collect()
    }

    pub(crate) fn process(&self, role: &str) -> u32 {
        let processes = self.processes();
        processes.into_iter().find(|(name, _)| name == role).map(|(_, pid)| pid).unwrap()
    }

    /// Kills one role and waits until another process has taken its place and the vault is ready.
    pub(crate) fn kill_role(&self, role: &str) {
        let before = self.process(role);
        signal(before, Signal::KILL);
        wait_for("another process", || {
            let now = self.processes().into_iter().find(|(name, _)| name == role)?;
            (now.1 != before).then_some(())
        });
        self.wait_until_ready();
    }

    pub(crate) fn supervisor(&self) -> u32 {
        self.served.as_ref().unwrap().id()
    }

    /// What all processes have logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.beside("log")).unwrap_or_default()
    }

    /// A GET on the metrics listener: head and body.
    pub(crate) fn plain(&self, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(&self.metrics) else { return String::new() };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let asked = write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let mut text = String::new();
        if asked.is_ok() {
            let _ = stream.read_to_string(&mut text);
        }
        text
    }

    /// The database, opened beside the vault or after it.
    pub(crate) fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.database_file()).unwrap()
    }

    /// How many rows a table has.
    pub(crate) fn count(&self, table: &str) -> i64 {
        self.database().query_row(&format!("select count(*) from {table}"), [], |row| row.get(0)).unwrap()
    }

    /// Exports the log and verifies it offline against the database: exit code and all that was printed.
    pub(crate) fn verify(&self) -> (i32, String) {
        let out = self.beside(&format!("export-{}", SystemClock.now().micros));
        let database = self.database_file();
        let (code, text) = run_within(
            &["audit", "export", "--database", name(&database), "--out", name(&out)],
            LOG_PATIENCE,
        );
        assert_eq!(code, 0, "{text}");
        let key = self.path("keys/audit.pub");
        run_within(
            &["audit", "verify", name(&out), "--key", name(&key), "--database", name(&database)],
            LOG_PATIENCE,
        )
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let from = log.char_indices().rev().nth(4000).map_or(0, |(at, _)| at);
            eprintln!("the vault's log ends:\n{}", &log[from..]);
        }
        self.kill();
        self.stop_sandbox();
    }
}

/// The credential that an answer shows.
pub(crate) fn credential_in(answer: AdminAnswer) -> String {
    let AdminAnswer::Credential { credential, .. } = answer else { panic!("no credential: {answer:?}") };
    credential
}

/// What a principal is made from; an application without limits.
pub(crate) fn order(name: &str, tenant: Option<&str>, scopes: &[&str]) -> PrincipalOrder {
    PrincipalOrder {
        name: name.to_owned(),
        person: false,
        tenant: tenant.map(str::to_owned),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        expires_at: None,
        charge_max: std::collections::BTreeMap::new(),
        day_max: std::collections::BTreeMap::new(),
        destinations: Vec::new(),
    }
}

/// A body that stores this number.
pub(crate) fn card(number: &str, customer: &str) -> Value {
    json!({"card": {"number": number, "exp_month": 12, "exp_year": 2030}, "customer": customer})
}

/// Stores a card, which must work; gives the answer.
pub(crate) async fn store(client: &Client, key: &str, body: &Value) -> Value {
    let answer = client.post("/v1/tokens", key, body).await.unwrap();
    assert_eq!(answer.status, 201, "{}", text(&answer));
    answer.json()
}

/// All events from the beginning.
pub(crate) async fn events(assessor: &Client) -> Vec<Value> {
    let mut all = Vec::new();
    loop {
        let after = all.last().map_or(String::new(), |last: &Value| format!("&after={}", last["seq"]));
        let answer = assessor.get(&format!("/v1/audit/events?limit=1000{after}")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", text(&answer));
        let page = answer.json();
        all.extend(page["data"].as_array().unwrap().iter().cloned());
        if page["has_more"] != true {
            return all;
        }
    }
}

/// How many events have this action.
pub(crate) fn count_of(events: &[Value], action: &str) -> usize {
    events.iter().filter(|event| event["action"] == action).count()
}

/// An answer's body, for messages of assertions.
pub(crate) fn text(answer: &Answer) -> String {
    format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body))
}

/// Runs the binary: exit code and all that it printed. What does not end is ended, with code -1.
pub(crate) fn run(args: &[&str]) -> (i32, String) {
    run_within(args, PATIENCE)
}

fn run_within(args: &[&str], within: Duration) -> (i32, String) {
    let mut command = Command::new(CARDVAULT);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Read while it runs: a pipe holds 64 KiB, and whoever writes more waits.
    let (out, err) = (read_all(child.stdout.take().unwrap()), read_all(child.stderr.take().unwrap()));
    let end = Instant::now() + within;
    while child.try_wait().unwrap().is_none() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let status = child.wait().unwrap();
    let text = [out.join().unwrap(), err.join().unwrap()].concat();
    (status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

fn read_all(mut from: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

pub(crate) fn name(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Asks again and again, for so long that only a fault lets it end.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(there) = ask() {
            return there;
        }
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    // It may have ended already.
    let _ = kill_process(pid, signal);
}

fn children_of(pid: u32) -> Vec<u32> {
    let tasks = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    tasks.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}
