//! What processes use, as the kernel counts it, and what the disk takes.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Writes timed to learn what the disk takes.
const SYNCS: usize = 200;
const PAGE_BYTES: usize = 4096;

/// A process with a name for people.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) name: String,
    pub(super) pid: u32,
}

/// CPU time used so far, user and system, all threads.
pub(super) fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let ticks = ticks_of(&stat).unwrap_or(0);
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_micros(ticks.saturating_mul(1_000_000 / per_second))
}

/// The command's name may hold anything, blanks and brackets too: fields are counted after its last bracket.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Memory of a process in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Pages that are there, shared ones counted whole.
    pub(super) rss_kib: u64,
    /// The same, shared ones counted by share; 0 if the kernel does not tell.
    pub(super) pss_kib: u64,
}

/// What a process holds now.
pub(super) fn memory(pid: u32) -> Memory {
    let text = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    Memory { rss_kib: kib_of(&text("status"), "VmRSS:"), pss_kib: kib_of(&text("smaps_rollup"), "Pss:") }
}

fn kib_of(text: &str, label: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The median time of a 4 KiB write and its fdatasync in this directory, in milliseconds.
pub(super) fn fdatasync_ms(directory: &Path) -> std::io::Result<f64> {
    let path = directory.join("sync.probe");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&[0x5a; PAGE_BYTES])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    drop(file);
    std::fs::remove_file(&path)?;
    times.sort_unstable();
    Ok(times.get(SYNCS / 2).map_or(0.0, Duration::as_secs_f64) * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_found_behind_any_name() {
        let stat = "7 (a ) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 120 30 0 0 20 0 1 0 5 6 7";
        assert_eq!(ticks_of(stat), Some(150));
        assert_eq!(ticks_of("nothing"), None);
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let pid = std::process::id();
        let begun = Instant::now();
        while cpu_time(pid) < Duration::from_millis(20) && begun.elapsed() < Duration::from_secs(20) {}
        assert!(cpu_time(pid) >= Duration::from_millis(20));
        assert!(memory(pid).rss_kib > 100);
    }

    #[test]
    fn a_disk_takes_time() {
        let directory = tempfile::tempdir().unwrap();
        assert!(fdatasync_ms(directory.path()).unwrap() > 0.0);
        assert!(!directory.path().join("sync.probe").exists());
    }
}
