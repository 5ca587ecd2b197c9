//! Confinement: what each role gives up before its first message.
//!
//! | role | files | TCP | signals, ptrace |
//! |---|---|---|---|
//! | edge | the database directory | accepts on what it was handed; binds and connects nowhere | its own domain only |
//! | keeper | nothing | nothing | its own domain only |
//! | forwarder | the resolver's files, reading | connects to declared ports; binds nowhere | its own domain only |
//! | courier | the resolver's files, reading | connects to the ports of its hosts; binds nowhere | its own domain only |
//! | unsealer | what it was handed open; for a token its library and where that keeps tokens, for a host the resolver's files | connects to the port of its provider's host; binds nowhere | its own domain only |
//!
//! All of them: no_new_privs, not dumpable, no core file, killed with the supervisor (where a vendor's library runs, soon after it); started as root, a uid of its own.
//! Landlock is per thread and inherited, so it is entered before any thread is started.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, Scope,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{Gid, Uid};

/// The Landlock version that the product is written against: files (1–3), TCP (4), signals and abstract sockets (6).
const WANTED: ABI = ABI::V6;

/// A process of the vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Role {
    /// TLS, HTTP, store, audit.
    Edge,
    /// Keys and clear text.
    Keeper,
    /// TLS out, with cards.
    Forwarder,
    /// TLS out, without.
    Courier,
    /// Runs a root provider.
    Unsealer,
}

impl Role {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Keeper => "keeper",
            Self::Forwarder => "forwarder",
            Self::Courier => "courier",
            Self::Unsealer => "unsealer",
        }
    }

    /// The uid it takes when the vault is started as root: a fixed range that no account uses.
    pub const fn uid(self) -> u32 {
        match self {
            Self::Edge => 61_841,
            Self::Keeper => 61_842,
            Self::Forwarder => 61_843,
            Self::Courier => 61_844,
            Self::Unsealer => 61_845,
        }
    }
}

/// What one process may keep.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Confinement {
    /// The role.
    pub role: Role,
    /// Directories and files that it may read and write.
    #[arg(long)]
    pub directory: Vec<PathBuf>,
    /// Files and directories that it may read.
    #[arg(long)]
    pub read: Vec<PathBuf>,
    /// TCP ports that it may connect to.
    #[arg(long)]
    pub port: Vec<u16>,
    /// It is not killed with the supervisor, but finishes what it does and ends.
    #[arg(long)]
    pub finishes: bool,
    /// Environment variables that it is started with.
    #[arg(skip)]
    pub environment: Vec<(String, String)>,
}

impl Confinement {
    /// What the edge keeps.
    pub fn edge(directory: PathBuf) -> Self {
        Self { directory: vec![directory], ..Self::nothing(Role::Edge) }
    }

    const fn nothing(role: Role) -> Self {
        Self {
            role,
            directory: Vec::new(),
            read: Vec::new(),
            port: Vec::new(),
            finishes: false,
            environment: Vec::new(),
        }
    }

    /// What an edge keeps that has nothing to serve: the listeners that it is handed.
    pub const fn sealed_edge() -> Self {
        Self::nothing(Role::Edge)
    }

    /// What the keeper keeps: nothing.
    pub const fn keeper() -> Self {
        Self::nothing(Role::Keeper)
    }

    /// What the forwarder keeps: what the resolver reads, and the ports of its destinations.
    pub fn forwarder(ports: Vec<u16>) -> Self {
        Self::dialing(Role::Forwarder, ports)
    }

    /// What the courier keeps: what the resolver reads, and the ports of its hosts.
    pub fn courier(ports: Vec<u16>) -> Self {
        Self::dialing(Role::Courier, ports)
    }

    /// What the unsealer keeps: nothing but what it is handed open.
    pub const fn unsealer() -> Self {
        Self::nothing(Role::Unsealer)
    }

    /// The same with the way to a root provider's host.
    pub fn with_host(mut self, port: u16) -> Self {
        let dialing = Self::dialing(self.role, vec![port]);
        self.read.extend(dialing.read);
        self.port.extend(dialing.port);
        self
    }

    /// The same with what a root provider's library needs: to be loaded, its own files, and its environment.
    pub fn with_library(
        mut self,
        module: &Path,
        paths: &[PathBuf],
        environment: Vec<(String, String)>,
    ) -> Self {
        let libraries = LIBRARY_FILES.iter().map(PathBuf::from).chain([module.to_owned()]);
        self.read.extend(libraries.filter(|path| path.exists()));
        self.directory.extend(paths.iter().filter(|path| path.exists()).cloned());
        self.environment.extend(environment);
        // SoftHSM, for one, rewrites a token at each login, in place: killed then, it loses the token.
        self.finishes = true;
        self
    }

    fn dialing(role: Role, mut ports: Vec<u16>) -> Self {
        ports.sort_unstable();
        ports.dedup();
        let read = RESOLVER_FILES.iter().map(PathBuf::from).filter(|path| path.exists()).collect();
        Self { read, port: ports, ..Self::nothing(role) }
    }

    /// The arguments that say this on a command line.
    pub fn to_args(&self) -> Vec<std::ffi::OsString> {
        let mut args = vec![self.role.name().into()];
        let mut add = |flag: &str, value: std::ffi::OsString| args.extend([flag.into(), value]);
        self.directory.iter().for_each(|path| add("--directory", path.into()));
        self.read.iter().for_each(|path| add("--read", path.into()));
        self.port.iter().for_each(|port| add("--port", port.to_string().into()));
        args.extend(self.finishes.then(|| "--finishes".into()));
        args
    }
}

/// What glibc's resolver opens.
const RESOLVER_FILES: [&str; 8] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ld.so.cache",
    "/lib",
];

/// What a vendor's library is loaded from, with the libraries that it needs itself.
const LIBRARY_FILES: [&str; 6] =
    ["/lib", "/lib64", "/usr/lib", "/etc/ld.so.cache", "/etc/ssl/openssl.cnf", "/dev/urandom"];

/// What the kernel granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confined {
    /// Whether Landlock holds all that was asked for.
    pub landlock_full: bool,
    /// Whether the process runs under a uid of its own.
    pub own_uid: bool,
}

/// Confinement that could not be entered; the process must not go on.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// A system call failed.
    #[error("confinement failed at {0}: {1}")]
    Call(&'static str, std::io::Error),
    /// Landlock refused the rules.
    #[error("confinement failed: Landlock refused the rules")]
    Landlock,
}

/// Confines the calling process for good. Call it before any thread is started.
pub fn enter(what: &Confinement) -> Result<Confined, ConfineError> {
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|error| ConfineError::Call("setrlimit", error.into()))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let own_uid = take_own_uid(what.role)?;
    rustix::thread::set_no_new_privs(true)
        .map_err(|error| ConfineError::Call("no_new_privs", error.into()))?;
    if !what.finishes {
        // After the uid: a change of uid forgets it.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| ConfineError::Call("pdeathsig", error.into()))?;
    }
    let landlock_full = restrict(what)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| ConfineError::Call("dumpable", error.into()))?;
    Ok(Confined { landlock_full, own_uid })
}

fn take_own_uid(role: Role) -> Result<bool, ConfineError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(false);
    }
    let (uid, gid) = (Uid::from_raw(role.uid()), Gid::from_raw(role.uid()));
    let failed = |call| move |error: rustix::io::Errno| ConfineError::Call(call, error.into());
    rustix::thread::set_thread_groups(&[]).map_err(failed("setgroups"))?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed("setresgid"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed("setresuid"))?;
    Ok(true)
}

fn restrict(what: &Confinement) -> Result<bool, ConfineError> {
    let refused = |_| ConfineError::Landlock;
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(WANTED)))
        .and_then(|rules| rules.scope(Scope::from_all(WANTED)))
        .and_then(Ruleset::create)
        .map_err(refused)?;
    let rules = what
        .directory
        .iter()
        .try_fold(rules, |rules, path| allow(rules, path, AccessFs::from_all(WANTED)))?;
    let rules =
        what.read.iter().try_fold(rules, |rules, path| allow(rules, path, AccessFs::from_read(WANTED)))?;
    let rules = what
        .port
        .iter()
        .try_fold(rules, |rules, port| rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp)))
        .map_err(refused)?;
    let status = rules.restrict_self().map_err(refused)?;
    Ok(matches!(status.landlock, LandlockStatus::Available { .. })
        && status.ruleset == landlock::RulesetStatus::FullyEnforced)
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: landlock::BitFlags<AccessFs>,
) -> Result<RulesetCreated, ConfineError> {
    let file = PathFd::new(path).map_err(|_| ConfineError::Landlock)?;
    // A file takes no rights that only directories have.
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(WANTED) };
    rules.add_rule(PathBeneath::new(file, access)).map_err(|_| ConfineError::Landlock)
}
