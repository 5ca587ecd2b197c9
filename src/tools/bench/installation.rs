//! What is measured: a fresh installation from the example configuration, served as anybody would serve it, the bare floor beside
//! it, and the sandbox where charges need one.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::usage::Process;
use crate::card::tenant::Mode;
use crate::random;
use crate::supervisor::admin::{self, AdminRequest};
use crate::supervisor::role::ALLOCATOR;
use crate::wire::control::{AdminAnswer, PrincipalOrder};

const EXAMPLE: &str = include_str!("../../../deploy/cardvault.example.toml");
/// Disks on every machine where a user may make a directory.
const ROOMS: [&str; 2] = ["/var/tmp", "/tmp"];
/// Memory that looks like a disk, on Linux as a rule.
const MEMORY: &str = "/dev/shm";
/// The type of a file system that is memory (statfs(2)).
const TMPFS_MAGIC: i64 = 0x0102_1994;
const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// A vault that serves, and its floor.
pub(super) struct Installation {
    pub(super) directory: PathBuf,
    pub(super) vault: SocketAddr,
    pub(super) floor: SocketAddr,
    pub(super) ca_pem: Vec<u8>,
    pub(super) credential: String,
    /// The vault's processes.
    pub(super) processes: Vec<Process>,
    pub(super) floor_process: Process,
    pub(super) sandbox_process: Option<Process>,
    /// Where the sandbox's ledger is; the sandbox writes what it did there, and syncs it, before it answers.
    pub(super) ledger: PathBuf,
    children: Children,
}

/// A sandbox beside the vault.
#[derive(Clone, Copy, Debug)]
pub(super) struct Processor {
    /// How long it takes over a charge, in milliseconds.
    pub(super) takes_ms: u64,
    /// Whether its ledger may lie in memory. On the vault's disk each of its syncs holds up the vault's, which no processor's does.
    pub(super) may_keep_in_memory: bool,
}

/// The processes that were started here; dropping them ends them and removes the directory.
struct Children {
    serve: Option<Child>,
    others: Vec<Child>,
    remove: Option<PathBuf>,
    /// A ledger in memory, and where it goes if the directory is kept.
    ledger: Option<(PathBuf, PathBuf)>,
}

impl Installation {
    /// Makes and starts everything. A directory that was named is kept.
    pub(super) fn start(named: Option<&Path>, processor: Option<Processor>) -> Result<Self, String> {
        let directory = match named {
            Some(named) => std::path::absolute(named).map_err(|_| "the directory's name cannot be used")?,
            None => make_directory()?,
        };
        let remove = named.is_none().then(|| directory.clone());
        let mut children = Children { serve: None, others: Vec::new(), remove, ledger: None };
        let sandbox_address = free_address()?;
        make(&directory, sandbox_address)?;
        let mut ledger = directory.join("sandbox.ledger");
        if processor.is_some_and(|processor| processor.may_keep_in_memory) && is_memory(Path::new(MEMORY)) {
            let in_memory = Path::new(MEMORY).join(format!("{}.ledger", make_name()?));
            let kept = std::mem::replace(&mut ledger, in_memory);
            children.ledger = Some((ledger.clone(), kept));
        }
        let sandbox_process = match processor {
            Some(processor) => {
                let takes_ms = processor.takes_ms;
                let ends = (directory.as_path(), ledger.as_path());
                Some(start_sandbox(ends, sandbox_address, takes_ms, &mut children)?)
            }
            None => None,
        };
        let vault = serve(&directory, &mut children)?;
        let (floor, floor_process) = start_floor(&directory, &mut children)?;
        let config = directory.join("cardvault.toml");
        let credential = make_principal(&config)?;
        let processes = list_processes(&config)?;
        let ca_pem = std::fs::read(directory.join("tls/ca.pem")).map_err(|error| error.to_string())?;
        Ok(Self {
            directory,
            vault,
            floor,
            ca_pem,
            credential,
            processes,
            floor_process,
            sandbox_process,
            ledger,
            children,
        })
    }

    /// Whether the sandbox's ledger is on another disk than the vault, in memory.
    pub(super) fn ledger_is_in_memory(&self) -> bool {
        self.children.ledger.is_some()
    }

    /// Ends everything in order.
    pub(super) fn stop(self) {
        drop(self.children);
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        if let Some(mut serve) = self.serve.take() {
            if let Some(pid) = i32::try_from(serve.id()).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            let until = Instant::now() + STOP_MAX;
            while matches!(serve.try_wait(), Ok(None)) && Instant::now() < until {
                std::thread::sleep(POLL_EVERY);
            }
            end(&mut serve);
        }
        self.others.iter_mut().for_each(end);
        if let Some((ledger, kept)) = &self.ledger {
            if self.remove.is_none() {
                // The directory is kept for somebody to look at; what cannot be copied is missing there.
                let _ = std::fs::copy(ledger, kept);
            }
            let _ = std::fs::remove_file(ledger);
        }
        if let Some(directory) = &self.remove {
            // What cannot be removed is left to the owner of the machine.
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

fn end(child: &mut Child) {
    // Both fail only if it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

/// `cardvault init`, then the example configuration in place of what it wrote: paths and ports changed, nothing else.
fn make(directory: &Path, sandbox: SocketAddr) -> Result<(), String> {
    let mut init = this_program()?;
    init.arg("init").arg(directory).args(["--installation", "example"]);
    let done = init.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).trim().to_owned());
    }
    std::fs::write(directory.join("cardvault.toml"), configuration(sandbox))
        .map_err(|error| format!("the configuration cannot be written: {}", error.kind()))
}

fn configuration(sandbox: SocketAddr) -> String {
    EXAMPLE
        .replace("\"127.0.0.1:8443\"", "\"127.0.0.1:0\"")
        .replace("\"127.0.0.1:9464\"", "\"127.0.0.1:0\"")
        .replace("https://127.0.0.1:9443", &format!("https://{sandbox}"))
        .replace("#: trust = \"tls/ca.pem\"", "trust = \"tls/ca.pem\"")
}

fn serve(directory: &Path, children: &mut Children) -> Result<SocketAddr, String> {
    let ports = directory.join("ports");
    let log = std::fs::File::create(directory.join("serve.log")).map_err(|error| error.to_string())?;
    let mut command = this_program()?;
    command.arg("serve").arg("--config").arg(directory.join("cardvault.toml"));
    command.arg("--port-file").arg(&ports).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let serve = children.serve.insert(command.spawn().map_err(|error| error.to_string())?);
    let until = Instant::now() + START_MAX;
    while Instant::now() < until {
        let text = std::fs::read_to_string(&ports).unwrap_or_default();
        if let Some((api, metrics)) = text.split_once('\n')
            && metrics.parse::<SocketAddr>().is_ok()
            && let Ok(api) = api.parse()
        {
            return Ok(api);
        }
        if !matches!(serve.try_wait(), Ok(None)) {
            break;
        }
        std::thread::sleep(POLL_EVERY);
    }
    let log = std::fs::read_to_string(directory.join("serve.log")).unwrap_or_default();
    Err(format!("the vault did not start\n{}", log.trim()))
}

fn start_floor(directory: &Path, children: &mut Children) -> Result<(SocketAddr, Process), String> {
    let mut command = this_program()?;
    command.args(["bench", "floor", "--certificate"]).arg(directory.join("tls/server.pem"));
    command.arg("--key").arg(directory.join("tls/server.key"));
    // As the edge is run, or it would not be its floor.
    let mut floor = command
        .env(ALLOCATOR.0, ALLOCATOR.1)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("the floor did not start: {}", error.kind()))?;
    let process = Process { name: "floor".to_owned(), pid: floor.id() };
    let output = floor.stdout.take();
    children.others.push(floor);
    let mut line = String::new();
    let read = output.map(|output| BufReader::new(output).read_line(&mut line));
    if !matches!(read, Some(Ok(1..))) {
        return Err("the floor did not start".to_owned());
    }
    Ok((line.trim().parse().map_err(|_| "the floor has no address")?, process))
}

fn start_sandbox(
    (directory, ledger): (&Path, &Path),
    listen: SocketAddr,
    processor_ms: u64,
    children: &mut Children,
) -> Result<Process, String> {
    let port_file = directory.join("sandbox.port");
    let mut command = this_program()?;
    command.args(["sandbox", "--until-stdin-closes", "--listen"]).arg(listen.to_string());
    command.arg("--ledger").arg(ledger).arg("--port-file").arg(&port_file);
    command.arg("--secret-key-file").arg(directory.join("credentials/sandbox_secret_key"));
    command.arg("--certificate").arg(directory.join("tls/sandbox.pem"));
    command.arg("--key").arg(directory.join("tls/sandbox.key"));
    command.arg("--processor-ms").arg(processor_ms.to_string());
    let sandbox = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("the sandbox did not start: {}", error.kind()))?;
    let process = Process { name: "sandbox".to_owned(), pid: sandbox.id() };
    children.others.push(sandbox);
    let until = Instant::now() + START_MAX;
    while !port_file.exists() {
        if Instant::now() > until {
            return Err("the sandbox did not start".to_owned());
        }
        std::thread::sleep(POLL_EVERY);
    }
    Ok(process)
}

fn make_principal(config: &Path) -> Result<String, String> {
    let order = PrincipalOrder {
        name: "bench".to_owned(),
        person: false,
        tenant: Some("bench".to_owned()),
        scopes: ["tokens:create", "tokens:read", "tokens:update", "charges:create", "charges:read"]
            .map(str::to_owned)
            .to_vec(),
        expires_at: None,
        charge_max: std::collections::BTreeMap::new(),
        day_max: std::collections::BTreeMap::new(),
        destinations: Vec::new(),
    };
    let tenant = AdminRequest::TenantAdd { name: "bench".to_owned(), mode: Mode::Test };
    for answer in admin::ask(config, &[tenant, AdminRequest::PrincipalAdd(order)])? {
        match answer {
            AdminAnswer::Credential { credential, .. } => return Ok(credential),
            AdminAnswer::Refused(sentence) => return Err(sentence),
            AdminAnswer::Done(_) | AdminAnswer::Table(_) => {}
        }
    }
    Err("the vault gave no credential".to_owned())
}

/// The vault's processes, the supervisor first.
fn list_processes(config: &Path) -> Result<Vec<Process>, String> {
    let answers = admin::ask(config, &[AdminRequest::Processes])?;
    let Some(AdminAnswer::Table(rows)) = answers.into_iter().next() else {
        return Err("the vault does not tell its processes".to_owned());
    };
    let process = |row: Vec<String>| {
        let pid = row.iter().find_map(|cell| cell.parse().ok())?;
        Some(Process { name: row.into_iter().next()?, pid })
    };
    Ok(rows.into_iter().filter_map(process).collect())
}

fn make_name() -> Result<String, String> {
    let word = random::make_bytes::<5>().map_err(|error| error.to_string())?;
    Ok(format!("cardvault-bench-{}", data_encoding::BASE32_NOPAD.encode(&word).to_ascii_lowercase()))
}

fn make_directory() -> Result<PathBuf, String> {
    let name = make_name()?;
    let rooms = [std::env::temp_dir()].into_iter().chain(ROOMS.map(PathBuf::from));
    rooms
        .filter(|room| !is_memory(room) && can_be_passed(room))
        .map(|room| room.join(&name))
        .find(|directory| std::fs::DirBuilder::new().mode(0o711).create(directory).is_ok())
        .ok_or_else(|| "no directory on a disk could be made; name one with --directory".to_owned())
}

fn is_memory(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|about| about.f_type == TMPFS_MAGIC)
}

/// Started as root, the edge has a uid of its own, which must get there.
fn can_be_passed(path: &Path) -> bool {
    let open = |above: &Path| std::fs::metadata(above).is_ok_and(|about| about.mode() & 0o001 != 0);
    path.canonicalize().is_ok_and(|real| real.ancestors().all(open))
}

/// The sandbox's port stands in the configuration before the sandbox runs.
fn free_address() -> Result<SocketAddr, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("there is no free port: {}", error.kind()))
}

fn this_program() -> Result<Command, String> {
    std::env::current_exe().map(Command::new).map_err(|_| "this program does not find itself".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_and_ports_of_the_example_change() {
        let changed = configuration(SocketAddr::from(([127, 0, 0, 1], 1234)));
        let lines = EXAMPLE.lines().zip(changed.lines());
        let different: Vec<_> = lines.filter(|(a, b)| a != b).map(|(_, b)| b).collect();
        assert_eq!(
            different,
            [
                "api = \"127.0.0.1:0\"",
                "metrics = \"127.0.0.1:0\"",
                "endpoint = \"https://127.0.0.1:1234\"",
                "trust = \"tls/ca.pem\"",
            ]
        );
    }
}
