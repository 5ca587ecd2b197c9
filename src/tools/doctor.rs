//! `cardvault doctor`: what protects each process right now, read from the kernel, not from configuration.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};

use super::terminal::say;
use crate::config::Config;
use crate::roots::RootProvider;
use crate::supervisor::admin::{self, AdminRequest};
use crate::supervisor::keys::KeyRequest;
use crate::supervisor::people::PersonRequest;
use crate::wire::control::AdminAnswer;

/// One thing that was looked at.
struct Finding {
    holds: bool,
    what: String,
}

/// Looks at the running vault and prints what it finds; `Err` if something does not hold.
pub fn run(config_path: &Path) -> Result<(), String> {
    let config = Config::load(config_path).map_err(|error| error.to_string())?;
    let mut findings = vec![look_at_kernel()];
    findings.extend(look_at_files(&config));
    for (role, pid) in processes(config_path)? {
        findings.extend(look_at_process(&role, &pid));
    }
    findings.extend(look_at_keys(config_path)?);
    findings.extend(look_at_people(&config, config_path)?);
    if config.admin.socket.exists() {
        findings.extend(look_at_retention(config_path)?);
    }
    for finding in &findings {
        say(&format!("{} {}", if finding.holds { "ok  " } else { "WEAK" }, finding.what));
    }
    let weak = findings.iter().filter(|finding| !finding.holds).count();
    if config.keys.provider == RootProvider::File {
        say("note this is a development installation: its root key lies in a file");
    }
    if weak == 0 { Ok(()) } else { Err(format!("{weak} of {} protections do not hold", findings.len())) }
}

fn processes(config_path: &Path) -> Result<Vec<(String, String)>, String> {
    let config = Config::load(config_path).map_err(|error| error.to_string())?;
    if !config.admin.socket.exists() {
        say(
            "note no vault serves this installation: start it with `cardvault serve` to see what protects its processes",
        );
        return Ok(Vec::new());
    }
    let answers = admin::ask(config_path, &[AdminRequest::Processes])?;
    let Some(AdminAnswer::Table(rows)) = answers.into_iter().next() else {
        return Err("the vault did not say which processes it runs".to_owned());
    };
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let [role, pid]: [String; 2] = row.try_into().ok()?;
            Some((role, pid))
        })
        .collect())
}

/// Keys in use whose cryptoperiod ends within thirty days, or is over, and that nothing takes over from.
fn look_at_keys(config_path: &Path) -> Result<Vec<Finding>, String> {
    let answers = admin::ask(config_path, &[AdminRequest::Key(KeyRequest::List)])?;
    let Some(AdminAnswer::Table(rows)) = answers.into_iter().next() else {
        return Err("the vault did not say which keys there are".to_owned());
    };
    let finding = |row: &Vec<String>| {
        let [id, purpose, .., note] = row.as_slice() else { return None };
        note.ends_with("rotate it")
            .then(|| Finding { holds: false, what: format!("keys: key {id} ({purpose}) {note}") })
    };
    let ending: Vec<Finding> = rows.iter().skip(1).filter_map(finding).collect();
    if ending.is_empty() {
        let what = "keys: none in use ends its cryptoperiod within thirty days".to_owned();
        return Ok(vec![Finding { holds: true, what }]);
    }
    Ok(ending)
}

/// Whether dangerous verbs need two persons, and whether there are two.
fn look_at_people(config: &Config, config_path: &Path) -> Result<Option<Finding>, String> {
    if !config.two_person() {
        say("note the two-person rule is off: one person may do what is dangerous (admin.two_person)");
        return Ok(None);
    }
    let answers = admin::ask(config_path, &[AdminRequest::Person(PersonRequest::List)])?;
    let Some(AdminAnswer::Table(rows)) = answers.into_iter().next() else {
        return Err("the vault did not say which persons are registered".to_owned());
    };
    let counting = rows.iter().filter(|row| row.last().is_some_and(|state| state == "active")).count();
    let what =
        format!("people: two persons are needed, and {counting} are registered whose signatures count");
    Ok(Some(Finding { holds: counting >= 2, what }))
}

/// Whether what is past its retention is erased, and the keys are destroyed in time that may have sealed what is erased.
fn look_at_retention(config_path: &Path) -> Result<Vec<Finding>, String> {
    let answers = admin::ask(config_path, &[AdminRequest::Retention])?;
    let rows = match answers.into_iter().next() {
        Some(AdminAnswer::Table(rows)) => rows,
        Some(_) | None => Vec::new(),
    };
    let Some([last, tenants, erased, held, overdue, keys, records @ ..]) = rows.get(1).map(Vec::as_slice)
    else {
        return Err("the vault did not say what retention did".to_owned());
    };
    let keys_in_time = Finding {
        holds: keys == "0",
        what: format!("erasure: {keys} keys that may have sealed what is erased are not destroyed in time"),
    };
    if tenants == "0" {
        say("note no tenant has a policy of retention: cards are kept until they are erased");
        return Ok(vec![keys_in_time]);
    }
    let when = if last.is_empty() { "not since the start".to_owned() } else { format!("last at {last}") };
    let what = format!(
        "retention: {overdue} cards of {tenants} tenants are past their limit and not erased; looked {when}, erased {erased}, {held} are \
         held"
    );
    let mut findings = vec![keys_in_time, Finding { holds: overdue == "0" && !last.is_empty(), what }];
    if let [erased, held, overdue] = records {
        let what = format!(
            "retention: {overdue} charges and agreements are past their limit and not erased; erased {erased} with the answers about them, \
             {held} are held"
        );
        findings.push(Finding { holds: overdue == "0", what });
    }
    Ok(findings)
}

/// Whether this kernel knows all of Landlock that the confinement asks for: it must take the ruleset as a hard requirement.
fn look_at_kernel() -> Finding {
    let taken = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V6))
        .and_then(|rules| rules.handle_access(landlock::AccessNet::from_all(ABI::V6)))
        .and_then(|rules| rules.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create);
    Finding {
        holds: taken.is_ok(),
        what: "kernel: Landlock confines files, TCP and signals (Linux 6.12 or later)".to_owned(),
    }
}

fn look_at_files(config: &Config) -> Vec<Finding> {
    let private = |what: &str, path: Option<&Path>| {
        path.map(|path| Finding {
            holds: std::fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o077 == 0),
            what: format!("files: only the owner reads the {what}"),
        })
    };
    // Where custodians hold it there is no such file, or none that matters.
    let root_key = config.keys.root_key.as_deref().filter(|_| config.keys.provider == RootProvider::File);
    let mut findings: Vec<Finding> = [
        private("root key", root_key),
        private("key store", Some(&config.keys.key_store)),
        private("database directory", Some(&config.store.directory)),
        private("TLS private key", config.listen.key.as_deref()),
    ]
    .into_iter()
    .flatten()
    .collect();
    for (name, destination) in &config.destination {
        for (field, path) in &destination.credentials {
            findings.extend(private(&format!("credential {field} of {name}"), Some(path)));
        }
    }
    findings
}

/// What the kernel says of one process. Root is needed to see all of it; what cannot be read does not hold.
fn look_at_process(role: &str, pid: &str) -> Vec<Finding> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = read("status");
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|rest| rest.trim().to_owned())
            .unwrap_or_default()
    };
    let core = read("limits");
    let core = core.lines().find(|line| line.starts_with("Max core file size")).unwrap_or_default();
    // The kernel gives the files of a process that cannot be dumped to root, whoever runs it.
    let uid = field("Uid:").split_whitespace().next().unwrap_or_default().to_owned();
    let owner = std::fs::metadata(format!("/proc/{pid}/environ")).map(|meta| meta.uid().to_string());
    let undumpable = uid == "0" || owner.is_ok_and(|owner| owner == "0" && owner != uid);
    let finding = |holds, what: String| Finding { holds, what: format!("{role} ({pid}): {what}") };
    let mut findings = vec![
        finding(field("NoNewPrivs:") == "1", "can gain no privileges (no_new_privs)".to_owned()),
        finding(
            core.split_whitespace().filter(|word| *word == "0").count() == 2,
            "leaves no core file".to_owned(),
        ),
    ];
    if role != "supervisor" {
        findings.push(finding(undumpable, "cannot be dumped or traced by its own user".to_owned()));
        findings.push(finding(field("CapEff:").bytes().all(|b| b == b'0'), "holds no capability".to_owned()));
        let root = rustix::process::geteuid().is_root();
        findings.push(finding(
            !root || uid.parse::<u32>().is_ok_and(|uid| uid >= 61_000),
            format!("runs as uid {uid}"),
        ));
        let sockets = tcp_sockets(pid);
        let expected = if role == "edge" { 2 } else { 0 };
        findings.push(finding(
            sockets == Some(expected),
            format!(
                "listens on {} TCP sockets",
                sockets.map_or_else(|| "unreadable".to_owned(), |n| n.to_string())
            ),
        ));
    }
    findings
}

/// How many of the process's descriptors are listening TCP sockets; `None` if it cannot be seen.
fn tcp_sockets(pid: &str) -> Option<usize> {
    let mut inodes = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
        if let Ok(target) = std::fs::read_link(entry.path())
            && let Some(inode) = target.to_string_lossy().strip_prefix("socket:[")
        {
            inodes.insert(inode.trim_end_matches(']').to_owned());
        }
    }
    let mut listening = 0;
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let columns: Vec<&str> = line.split_whitespace().collect();
            // Column 3 is the state, 0A is LISTEN; column 9 the inode.
            if let (Some(&"0A"), Some(inode)) = (columns.get(3), columns.get(9)) {
                listening += usize::from(inodes.contains(*inode));
            }
        }
    }
    Some(listening)
}
