//! The processes that the demo starts. Each ends with it: they are told on the way out, and a demo that is itself killed closes
//! their standard input, which ends them too.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// How long a process may take to begin.
const START_MAX: Duration = Duration::from_secs(60);
/// How long it may take to end when asked; then it is killed.
const STOP_MAX: Duration = Duration::from_secs(10);
/// How long the children of a killed process may outlive it.
const GONE_MAX: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How much of a log stands in an error.
const LOG_TAIL_BYTES: u64 = 600;

/// This program, started again as something else.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; what it says goes behind what is in its log already.
    pub(super) fn start(name: &'static str, arguments: &[&str], log: &Path) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("the {name} could not be started: {}", error.kind());
        let file = OpenOptions::new().create(true).append(true).open(log).map_err(failed)?;
        let child = Command::new("/proc/self/exe")
            .arg0("cardvault")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(file.try_clone().map_err(failed)?)
            .stderr(file)
            // Ctrl-C at the terminal is for the demo, which ends the others in their order.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        Ok(Self { name, child, log: log.to_owned() })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has written this file with so many lines, and gives them.
    pub(super) fn await_lines(&mut self, file: &Path, count: usize) -> Result<Vec<String>, String> {
        let until = Instant::now() + START_MAX;
        loop {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if lines.len() >= count && lines.iter().all(|line| !line.is_empty()) {
                return Ok(lines);
            }
            if self.has_ended() {
                return Err(format!("the {} did not start. {}", self.name, self.last_words()));
            }
            if Instant::now() > until {
                return Err(format!("the {} took too long to start. {}", self.name, self.last_words()));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// SIGKILL: it has no time for anything. `others` are its children, which must die with it.
    pub(super) fn kill(&mut self, others: &[u32]) -> Result<(), String> {
        let failed =
            |error: std::io::Error| format!("the {} could not be killed: {}", self.name, error.kind());
        self.child.kill().map_err(failed)?;
        self.child.wait().map_err(failed)?;
        let until = Instant::now() + GONE_MAX;
        while others.iter().any(|pid| is_alive(*pid)) {
            if Instant::now() > until {
                return Err(format!("a process of the {} outlived it", self.name));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Where its log is, and how that ends.
    fn last_words(&self) -> String {
        let tail = tail_of(&self.log).unwrap_or_default();
        let tail = if tail.is_empty() { String::new() } else { format!(", which ends:\n{tail}") };
        format!("Its log is {}{tail}", self.log.display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let until = Instant::now() + STOP_MAX;
        while !self.has_ended() && Instant::now() < until {
            std::thread::sleep(LOOK_EVERY);
        }
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn tail_of(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(std::io::SeekFrom::Start(len.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// Whether a process runs; one that has ended, with all of its threads, and waits for its parent does not.
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(") ").and_then(|(_, behind)| behind.chars().next());
    match state {
        None | Some('X') => false,
        // Until its last thread is gone its files are open and its locks are held.
        Some('Z') => std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.count() > 1),
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_until_it_has_ended() {
        assert!(is_alive(std::process::id()));
        let mut child = Command::new("true").spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        // Ended and not waited for: a zombie.
        while is_alive(child.id()) {
            assert!(Instant::now() < until);
            std::thread::sleep(LOOK_EVERY);
        }
        child.wait().unwrap();
        assert!(!is_alive(child.id()));
    }
}
