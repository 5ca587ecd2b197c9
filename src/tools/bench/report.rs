//! What a run came to: a table for people, one line of JSON for programs.

use std::time::Duration;

use serde::Serialize;

use super::histogram::Histogram;
use super::load::Slice;
use super::usage::Memory;
use crate::tools::terminal::say;

/// Below this many operations a second of the bare floor, the generator was the bottleneck.
pub(super) const FLOOR_PER_S_MIN: f64 = 60_000.0;

/// Slices of one kind, summed up.
#[derive(Clone, Debug, Default)]
pub(super) struct Side {
    pub(super) times: Vec<Slice>,
    /// CPU time by process, in the order of the processes.
    pub(super) cpu: Vec<Duration>,
}

impl Side {
    /// Adds a slice, and what each process used in it.
    pub(super) fn add(&mut self, slice: Slice, cpu: &[Duration]) {
        self.times.push(slice);
        self.cpu.resize(cpu.len(), Duration::ZERO);
        for (sum, used) in self.cpu.iter_mut().zip(cpu) {
            *sum += *used;
        }
    }

    fn operations(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let total = self.times.iter().map(|slice| slice.times.total()).sum::<u64>() as f64;
        total
    }

    fn per_second(&self) -> f64 {
        let time: Duration = self.times.iter().map(|slice| slice.elapsed).sum();
        if time.is_zero() { 0.0 } else { self.operations() / time.as_secs_f64() }
    }

    fn merged(&self) -> Histogram {
        let mut merged = Histogram::default();
        self.times.iter().for_each(|slice| merged.add(&slice.times));
        merged
    }

    fn failed(&self) -> u64 {
        self.times.iter().map(|slice| slice.failed).sum()
    }

    /// CPU microseconds an operation of process `at`.
    fn cpu_us(&self, at: usize) -> f64 {
        let used = self.cpu.get(at).map_or(0.0, Duration::as_secs_f64);
        round(used * 1e6 / self.operations().max(1.0))
    }
}

/// A process in the report.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ProcessLine {
    pub(super) name: String,
    cpu_us_per_op: f64,
    floor_cpu_us_per_op: f64,
    rss_mb: f64,
    pss_mb: f64,
    #[serde(skip)]
    of_vault: bool,
}

/// The line of JSON.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    op: &'static str,
    connections: usize,
    ops_per_s: f64,
    floor_per_s: f64,
    ratio: f64,
    p50_ms: f64,
    p99_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    added_p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    added_p99_ms: Option<f64>,
    floor_p50_ms: f64,
    floor_p99_ms: f64,
    rss_mb: f64,
    pss_mb: f64,
    rss_at_start_mb: f64,
    cpu_us_per_op: f64,
    generator_cpu_us_per_op: f64,
    fdatasync_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ledger_in_memory: Option<bool>,
    operations: u64,
    failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failure_status: Option<u16>,
    valid: bool,
    processes: Vec<ProcessLine>,
}

/// What a report is made of.
pub(super) struct Facts<'a> {
    pub(super) op: &'static str,
    pub(super) connections: usize,
    pub(super) vault: &'a Side,
    pub(super) floor: &'a Side,
    pub(super) added: Option<&'a Histogram>,
    /// Names and whether they are the vault's, in the order of the sides' CPU times; the generator last.
    pub(super) processes: &'a [(String, bool)],
    pub(super) memory: &'a [Memory],
    pub(super) memory_at_start: &'a [Memory],
    pub(super) fdatasync_ms: f64,
    /// Of charges: whether the sandbox's ledger lies in memory, or on the vault's disk.
    pub(super) ledger_in_memory: Option<bool>,
}

impl Report {
    pub(super) fn of(facts: &Facts<'_>) -> Self {
        let (vault, floor) = (facts.vault, facts.floor);
        let (times, floor_times) = (vault.merged(), floor.merged());
        let floor_per_s = floor.per_second();
        let processes: Vec<_> = facts
            .processes
            .iter()
            .enumerate()
            .map(|(at, (name, of_vault))| {
                let memory = facts.memory.get(at).copied().unwrap_or_default();
                ProcessLine {
                    name: name.clone(),
                    cpu_us_per_op: vault.cpu_us(at),
                    floor_cpu_us_per_op: floor.cpu_us(at),
                    rss_mb: mb(memory.rss_kib),
                    pss_mb: mb(memory.pss_kib),
                    of_vault: *of_vault,
                }
            })
            .collect();
        let of_vault = |value: fn(&ProcessLine) -> f64| {
            round(processes.iter().filter(|line| line.of_vault).map(value).sum())
        };
        let mut at_start = facts.processes.iter().zip(facts.memory_at_start);
        let at_start = at_start.by_ref().filter(|((_, of_vault), _)| *of_vault);
        let failed = vault.failed() + floor.failed();
        Self {
            op: facts.op,
            connections: facts.connections,
            ops_per_s: round(vault.per_second()),
            floor_per_s: round(floor_per_s),
            ratio: round(if floor_per_s > 0.0 { vault.per_second() / floor_per_s } else { 0.0 }),
            p50_ms: round(times.quantile_ms(0.5)),
            p99_ms: round(times.quantile_ms(0.99)),
            added_p50_ms: facts.added.map(|added| round(added.quantile_ms(0.5))),
            added_p99_ms: facts.added.map(|added| round(added.quantile_ms(0.99))),
            floor_p50_ms: round(floor_times.quantile_ms(0.5)),
            floor_p99_ms: round(floor_times.quantile_ms(0.99)),
            rss_mb: of_vault(|line| line.rss_mb),
            pss_mb: of_vault(|line| line.pss_mb),
            rss_at_start_mb: round(at_start.map(|(_, memory)| mb(memory.rss_kib)).sum()),
            cpu_us_per_op: of_vault(|line| line.cpu_us_per_op),
            generator_cpu_us_per_op: processes.last().map_or(0.0, |line| line.cpu_us_per_op),
            fdatasync_ms: round(facts.fdatasync_ms),
            ledger_in_memory: facts.ledger_in_memory,
            operations: times.total(),
            failed,
            first_failure_status: vault
                .times
                .iter()
                .chain(&floor.times)
                .find_map(|slice| slice.first_failure),
            valid: floor_per_s >= FLOOR_PER_S_MIN && failed == 0 && times.total() > 0,
            processes,
        }
    }

    /// Prints it for a person.
    pub(super) fn print(&self) {
        say(&format!(
            "{} at {} connections: {} operations, {} wrong answers",
            self.op, self.connections, self.operations, self.failed
        ));
        say(&format!(
            "  {:.0}/s   p50 {} ms   p99 {} ms   ratio to the floor {}",
            self.ops_per_s, self.p50_ms, self.p99_ms, self.ratio
        ));
        say(&format!(
            "  floor {:.0}/s   p50 {} ms   p99 {} ms",
            self.floor_per_s, self.floor_p50_ms, self.floor_p99_ms
        ));
        if let (Some(p50), Some(p99)) = (self.added_p50_ms, self.added_p99_ms) {
            say(&format!("  added to the processor's own time: p50 {p50} ms   p99 {p99} ms"));
        }
        say(&format!("  a 4 KiB write with fdatasync takes {} ms here", self.fdatasync_ms));
        match self.ledger_in_memory {
            Some(true) => say("  the processor's ledger is in memory: its disk is not the vault's"),
            Some(false) => {
                say("  the processor's ledger is on the vault's disk: each sync holds up the other's")
            }
            None => {}
        }
        say(&format!(
            "  memory of the vault: {} MB resident ({} MB at the start), {} MB by share",
            self.rss_mb, self.rss_at_start_mb, self.pss_mb
        ));
        say("  process       CPU µs/operation   (floor's slices)   resident MB   by share MB");
        for line in &self.processes {
            say(&format!(
                "  {:<12} {:>17} {:>18} {:>13} {:>13}",
                line.name, line.cpu_us_per_op, line.floor_cpu_us_per_op, line.rss_mb, line.pss_mb
            ));
        }
        if let Some(status) = self.first_failure_status {
            say(&format!(
                "  INVALID: not every request was answered well; the first other status was {status}"
            ));
        } else if !self.valid {
            say(&format!(
                "  INVALID: the floor is below {FLOOR_PER_S_MIN:.0}/s, so the generator or another program on this \
                 machine was the bottleneck"
            ));
        }
    }

    /// Prints the line of JSON.
    pub(super) fn print_json(&self) {
        say(&serde_json::to_string(self).unwrap_or_default());
    }
}

#[expect(clippy::cast_precision_loss, reason = "no process has 2^52 KiB")]
fn mb(kib: u64) -> f64 {
    round(kib as f64 / 1024.0)
}

/// To a thousandth: more is noise.
fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(operations: u64, cpu_ms: &[u64], failed: u64) -> Side {
        let mut slice = Slice { elapsed: Duration::from_secs(2), failed, ..Slice::default() };
        (0..operations).for_each(|_| slice.times.count(Duration::from_millis(4)));
        let mut side = Side::default();
        side.add(slice, &cpu_ms.iter().map(|ms| Duration::from_millis(*ms)).collect::<Vec<_>>());
        side
    }

    fn report(vault: &Side, floor: &Side) -> Report {
        Report::of(&Facts {
            op: "tokens",
            connections: 64,
            vault,
            floor,
            added: None,
            processes: &[("edge".into(), true), ("floor".into(), false), ("generator".into(), false)],
            memory: &[Memory { rss_kib: 2048, pss_kib: 1024 }; 3],
            memory_at_start: &[Memory { rss_kib: 1024, pss_kib: 512 }; 3],
            fdatasync_ms: 0.1,
            ledger_in_memory: None,
        })
    }

    #[test]
    fn figures_are_those_of_the_slices() {
        let report = report(&side(40_000, &[400, 0, 80], 0), &side(160_000, &[0, 1600, 320], 0));
        assert_eq!((report.ops_per_s, report.floor_per_s, report.ratio), (20_000.0, 80_000.0, 0.25));
        assert_eq!((report.cpu_us_per_op, report.generator_cpu_us_per_op), (10.0, 2.0));
        assert_eq!((report.rss_mb, report.pss_mb, report.rss_at_start_mb), (2.0, 1.0, 1.0));
        assert!(report.valid && (report.p99_ms - 4.0).abs() < 0.05);
    }

    #[test]
    fn a_slow_floor_or_a_wrong_answer_makes_a_run_invalid() {
        let good = side(160_000, &[1], 0);
        assert!(report(&good, &good).valid);
        assert!(!report(&good, &side(100_000, &[1], 0)).valid);
        assert!(!report(&side(100_000, &[1], 1), &good).valid);
        assert!(!report(&Side::default(), &good).valid);
    }
}
