//! A hostile program inside each role's confinement: what an attacker who owns a role can still do to the others.
//!
//! This test starts itself again as a child, enters the very confinement that the role enters, and then tries. What the child
//! got away with it says in its exit code's place: one line for each attempt on standard output.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test")]

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cardvault::supervisor::confine::{self, Confinement, Role};

/// Where the child finds what to attack.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Targets {
    role: String,
    keys: PathBuf,
    database: PathBuf,
    victim: i32,
    open_port: u16,
    declared_port: u16,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("attack") => attack(&serde_json::from_str(arguments.get(2).unwrap()).unwrap()),
        Some("--list") => {
            if !arguments.iter().any(|a| a == "--ignored") {
                for role in ["edge", "keeper", "forwarder", "courier", "unsealer"] {
                    println!("an_owned_{role}_reaches_nothing_of_the_others: test");
                }
            }
        }
        _ => {
            let wanted = arguments.iter().skip(1).find(|a| a.starts_with("an_owned_"));
            for role in [Role::Edge, Role::Keeper, Role::Forwarder, Role::Courier, Role::Unsealer] {
                let name = format!("an_owned_{}_reaches_nothing_of_the_others", role.name());
                if wanted.is_none_or(|wanted| *wanted == name) {
                    hold(role);
                    println!("test {name} ... ok");
                }
            }
        }
    }
}

/// Runs the hostile program in one role's confinement and checks each attempt.
fn hold(role: Role) {
    let directory = tempfile::tempdir().unwrap();
    open_to_others(directory.path());
    let keys = directory.path().join("keys");
    let database = directory.path().join("data");
    for path in [&keys, &database] {
        std::fs::create_dir(path).unwrap();
        std::fs::write(path.join("secret"), "x").unwrap();
    }
    // File permissions alone must not be what holds: everything here is readable for everybody.
    for path in [keys.clone(), database.clone(), keys.join("secret"), database.join("secret")] {
        open_to_others(&path);
    }
    let open = TcpListener::bind("127.0.0.1:0").unwrap();
    let declared = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut victim = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
    let targets = Targets {
        role: role.name().to_owned(),
        keys,
        database,
        victim: i32::try_from(victim.id()).unwrap(),
        open_port: open.local_addr().unwrap().port(),
        declared_port: declared.local_addr().unwrap().port(),
    };
    let outcome = run_attack(&targets);
    assert!(victim.try_wait().unwrap().is_none(), "the victim is gone");
    end(&mut victim);
    let may =
        |word: &str| outcome.lines().find_map(|line| line.strip_prefix(&format!("{word} "))) == Some("yes");
    for never in [
        "read keys",
        "write keys",
        "signal",
        "ptrace",
        "read memory",
        "connect anywhere",
        "bind",
        "core",
        "gain privileges",
    ] {
        assert!(!may(never), "{} may {never}:\n{outcome}", role.name());
    }
    assert_eq!(may("read database"), role == Role::Edge, "{outcome}");
    assert_eq!(may("connect declared"), matches!(role, Role::Forwarder | Role::Courier), "{outcome}");
    assert!(may("finish"), "{outcome}");
}

fn run_attack(targets: &Targets) -> String {
    let mut child = Command::new("/proc/self/exe")
        .arg("attack")
        .arg(serde_json::to_string(targets).unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut said).unwrap();
    assert!(child.wait().unwrap().success(), "the hostile program ended early:\n{said}");
    said
}

/// Inside: confine, then try everything.
fn attack(targets: &Targets) {
    let confinement = match targets.role.as_str() {
        "edge" => Confinement::edge(targets.database.clone()),
        "keeper" => Confinement::keeper(),
        "unsealer" => Confinement::unsealer(),
        "courier" => Confinement::courier(vec![targets.declared_port]),
        _ => Confinement::forwarder(vec![targets.declared_port]),
    };
    let own_memory = std::process::id();
    let confined = confine::enter(&confinement).expect("confined");
    assert!(confined.landlock_full, "this kernel does not hold all of it");
    let try_it = |word: &str, worked: bool| println!("{word} {}", if worked { "yes" } else { "no" });
    let victim = rustix::process::Pid::from_raw(targets.victim).unwrap();
    try_it("read keys", std::fs::read(targets.keys.join("secret")).is_ok());
    try_it("write keys", std::fs::write(targets.keys.join("new"), "x").is_ok());
    try_it("read database", std::fs::read(targets.database.join("secret")).is_ok());
    try_it("signal", rustix::process::kill_process(victim, rustix::process::Signal::KILL).is_ok());
    try_it("ptrace", std::fs::read(format!("/proc/{}/environ", targets.victim)).is_ok());
    try_it("read memory", std::fs::File::open(format!("/proc/{}/mem", targets.victim)).is_ok());
    try_it("connect anywhere", TcpStream::connect(("127.0.0.1", targets.open_port)).is_ok());
    try_it("connect declared", TcpStream::connect(("127.0.0.1", targets.declared_port)).is_ok());
    try_it("bind", TcpListener::bind("127.0.0.1:0").is_ok());
    try_it("core", rustix::process::getrlimit(rustix::process::Resource::Core).maximum != Some(0));
    try_it("gain privileges", !rustix::thread::no_new_privs().unwrap());
    let dumpable = rustix::process::dumpable_behavior().unwrap();
    assert_eq!(
        dumpable,
        rustix::process::DumpableBehavior::NotDumpable,
        "process {own_memory} can be dumped"
    );

    try_it("finish", true);
}

fn open_to_others(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = if path.is_dir() { 0o777 } else { 0o666 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}
