//! What is told at the end: one object for programs, a table and command lines for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

use super::compare::Comparison;
use super::job::Settled;
use super::plan;

/// Everything that was measured and compared.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Summary {
    pub(super) cards: usize,
    pub(super) invoices: usize,
    pub(super) approved: usize,
    pub(super) declined: usize,
    pub(super) failed: usize,
    /// Invoices whose final answer is another, such as `manual`.
    pub(super) other: usize,
    /// What became of the invoices by what the sandbox does with their cards.
    pub(super) outcomes: BTreeMap<String, BTreeMap<String, usize>>,
    pub(super) in_flight_at_kill: usize,
    pub(super) resolved_after_crash: usize,
    /// Invoices that were not answered finally at once.
    pub(super) needed_patience: usize,
    pub(super) doubled: usize,
    pub(super) lost: usize,
    pub(super) amounts_off: usize,
    pub(super) ledger_total: BTreeMap<String, i64>,
    pub(super) vault_total: BTreeMap<String, i64>,
    pub(super) audit_verified: bool,
    pub(super) audit_events: u64,
    pub(super) audit_cards: u64,
    pub(super) pan_found: u64,
    pub(super) files_searched: u64,
    pub(super) bytes_searched: u64,
    pub(super) added_p50_ms: Option<f64>,
    pub(super) added_p99_ms: Option<f64>,
    pub(super) restart_ms: u128,
    pub(super) seconds: f64,
    pub(super) directory: String,
}

impl Summary {
    /// Counts what became of the invoices.
    pub(super) fn take_invoices(&mut self, settled: &[Settled], killed_at: &str) {
        let count = |is: &dyn Fn(&Settled) -> bool| settled.iter().filter(|one| is(one)).count();
        self.invoices = settled.len();
        self.approved = count(&|one| one.status == "approved");
        self.declined = count(&|one| one.status == "declined");
        self.failed = count(&|one| one.status == "failed");
        self.other = self.invoices - self.approved - self.declined - self.failed;
        self.in_flight_at_kill = count(&|one| one.in_flight_at_kill);
        // Only what the vault had written down before it was killed; the rest it was asked for anew.
        self.resolved_after_crash = count(&|one| {
            one.in_flight_at_kill && has_outcome(&one.status) && one.created_at.as_str() < killed_at
        });
        for one in settled {
            let behaviour = serde_json::to_value(one.behaviour).unwrap_or_default();
            let outcomes =
                self.outcomes.entry(behaviour.as_str().unwrap_or_default().to_owned()).or_default();
            *outcomes.entry(one.status.clone()).or_insert(0) += 1;
        }
        self.needed_patience = count(&|one| one.took_patience);
        let mut added: Vec<f64> = settled.iter().filter_map(|one| one.added_ms).collect();
        added.sort_by(f64::total_cmp);
        self.added_p50_ms = percentile(&added, 50);
        self.added_p99_ms = percentile(&added, 99);
    }

    /// Takes over what the comparison gave.
    pub(super) fn take_comparison(&mut self, comparison: &Comparison) {
        self.doubled = comparison.doubled.len();
        self.lost = comparison.lost.len();
        self.amounts_off = comparison.off.len();
        self.ledger_total.clone_from(&comparison.received);
        self.vault_total.clone_from(&comparison.paid);
    }

    /// Everything that is not as it must be, each in a sentence.
    pub(super) fn faults(&self) -> Vec<String> {
        let checks = [
            (self.cards != plan::CARDS, format!("{} of {} cards were stored", self.cards, plan::CARDS)),
            (
                self.approved + self.declined + self.failed != plan::INVOICES,
                format!("not every invoice is approved, declined or failed: {} are not", self.other),
            ),
            (
                self.in_flight_at_kill < 8,
                format!("only {} charges were on their way at the kill", self.in_flight_at_kill),
            ),
            (self.resolved_after_crash < 1, "nothing was resolved after the crash".to_owned()),
            (self.doubled > 0, format!("{} invoices were charged twice", self.doubled)),
            (self.lost > 0, format!("{} invoices are approved on one side only", self.lost)),
            (
                self.amounts_off > 0,
                format!("{} invoices have another amount in the ledger", self.amounts_off),
            ),
            (!self.audit_verified, "the audit log does not verify".to_owned()),
            (self.pan_found > 0, format!("card numbers were found {} times in files", self.pan_found)),
        ];
        checks.into_iter().filter(|(wrong, _)| *wrong).map(|(_, sentence)| sentence).collect()
    }

    /// The table for people.
    pub(super) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["what happened", "", "must be"]);
        let off = self.amounts_off + self.doubled + self.lost;
        let rows = [
            ("cards stored", self.cards.to_string(), plan::CARDS.to_string()),
            ("invoices charged", self.invoices.to_string(), plan::INVOICES.to_string()),
            ("  approved", self.approved.to_string(), String::new()),
            ("  declined", self.declined.to_string(), String::new()),
            ("  failed, nothing moved", self.failed.to_string(), String::new()),
            ("on their way when the vault was killed", self.in_flight_at_kill.to_string(), "≥ 8".to_owned()),
            (
                "  resolved from what it had written down",
                self.resolved_after_crash.to_string(),
                "≥ 1".to_owned(),
            ),
            ("asked again, or answered later", self.needed_patience.to_string(), String::new()),
            ("charged twice", self.doubled.to_string(), "0".to_owned()),
            ("approved on one side only", self.lost.to_string(), "0".to_owned()),
            ("amounts that differ", self.amounts_off.to_string(), "0".to_owned()),
            ("paid, by the processor's ledger", money(&self.ledger_total), String::new()),
            (
                "paid, by the vault",
                money(&self.vault_total),
                if off == 0 { "the same".to_owned() } else { "the same as above".to_owned() },
            ),
            ("audit events verified offline", yes(self.audit_verified, self.audit_events), "all".to_owned()),
            ("  card rows held against the log", self.audit_cards.to_string(), self.cards.to_string()),
            ("card numbers in files", self.pan_found.to_string(), "0".to_owned()),
            (
                "  files searched, in every form",
                format!("{} ({:.1} MB)", self.files_searched, megabytes(self.bytes_searched)),
                String::new(),
            ),
            ("a charge beyond the processor's time, p50", milliseconds(self.added_p50_ms), String::new()),
            ("  p99", milliseconds(self.added_p99_ms), String::new()),
            ("start after the kill, until it served", format!("{} ms", self.restart_ms), String::new()),
        ];
        for (what, value, wanted) in rows {
            let value = Cell::new(value).set_alignment(CellAlignment::Right);
            table.add_row([Cell::new(what), value, Cell::new(wanted)]);
        }
        table.to_string()
    }
}

/// Where things are and what can be asked of them.
pub(super) struct Address<'a> {
    pub(super) directory: &'a Path,
    pub(super) api: &'a str,
    pub(super) sandbox: &'a str,
    pub(super) token: &'a str,
    pub(super) charge: &'a str,
}

impl Address<'_> {
    /// Command lines that can be pasted.
    pub(super) fn lines(&self) -> String {
        let Self { directory, api, sandbox, token, charge } = self;
        let program = std::env::current_exe().unwrap_or_else(|_| "cardvault".into());
        let program = program.display();
        let mut text = format!(
            "vault    {api}\nsandbox  {sandbox}\nfiles    {}\n\nTry, in another terminal:\n\n  cd {}\n",
            directory.display(),
            directory.display()
        );
        let mut curl = |about: &str, who: &str, rest: &str| {
            let bearer = format!("-H \"Authorization: Bearer $(cat credentials/{who})\"");
            let _ = write!(text, "\n  # {about}\n  {CURL} {bearer} \\\n    {rest}\n");
        };
        let store = format!(
            "-H 'Idempotency-Key: try-1' -H 'Content-Type: application/json' \\\n    -d '{{\"card\":{{\"number\":\"4242424242424242\",\
             \"exp_month\":12,\"exp_year\":2030}},\"customer\":\"me\"}}' \\\n    {api}/v1/tokens"
        );
        curl("billing stores a card", "billing", &store);
        curl("and looks at one", "billing", &format!("{api}/v1/tokens/{token}"));
        let charge = format!("{api}/v1/charges/{charge}");
        curl("invoicing looks at a charge that was on its way at the crash", "invoicing", &charge);
        curl("but may not look at cards", "invoicing", &format!("{api}/v1/tokens/{token}"));
        curl("the assessor keeps a checkpoint of the log", "assessor", &format!("{api}/v1/audit/checkpoint"));
        let _ = write!(
            text,
            "\n  # what the processor itself has written down\n  {CURL} {sandbox}/sandbox/ledger | tail -n 3\n\
             \n  # the log, verified with nothing but the public key\n  {program} audit verify audit-log.ndjson \\\n    \
             --key keys/audit.pub --at-least checkpoint\n"
        );
        text
    }
}

/// How every command line begins.
const CURL: &str = "curl -sS -w '\\n' --cacert tls/ca.pem";

fn has_outcome(status: &str) -> bool {
    matches!(status, "approved" | "declined" | "failed")
}

/// The value below which so many of a hundred lie (nearest rank), rounded to microseconds.
fn percentile(sorted: &[f64], of_hundred: usize) -> Option<f64> {
    let rank = (sorted.len() * of_hundred).div_ceil(100).saturating_sub(1);
    sorted.get(rank).map(|value| (value * 1_000.0).round() / 1_000.0)
}

fn milliseconds(value: Option<f64>) -> String {
    value.map_or_else(|| "not measured".to_owned(), |value| format!("{value:.2} ms"))
}

fn yes(holds: bool, count: u64) -> String {
    if holds { count.to_string() } else { format!("FAILED ({count})") }
}

fn megabytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1_000).unwrap_or(u32::MAX)) / 1_000.0
}

fn money(by_currency: &BTreeMap<String, i64>) -> String {
    let parts: Vec<String> = by_currency
        .iter()
        .map(|(currency, minor)| format!("{currency} {}.{:02}", minor / 100, (minor % 100).abs()))
        .collect();
    parts.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::sandbox::numbers::Behaviour;

    fn good() -> Summary {
        Summary {
            cards: plan::CARDS,
            invoices: plan::INVOICES,
            approved: 400,
            declined: 90,
            failed: 10,
            in_flight_at_kill: 8,
            resolved_after_crash: 1,
            audit_verified: true,
            ..Summary::default()
        }
    }

    #[test]
    fn each_condition_alone_makes_the_demo_fail() {
        assert_eq!(good().faults(), [""; 0]);
        let broken = [
            Summary { cards: 199, ..good() },
            Summary { approved: 399, other: 1, ..good() },
            Summary { in_flight_at_kill: 7, ..good() },
            Summary { resolved_after_crash: 0, ..good() },
            Summary { doubled: 1, ..good() },
            Summary { lost: 1, ..good() },
            Summary { amounts_off: 1, ..good() },
            Summary { audit_verified: false, ..good() },
            Summary { pan_found: 1, ..good() },
        ];
        for summary in broken {
            assert_eq!(summary.faults().len(), 1, "{summary:?}");
        }
    }

    #[test]
    fn what_was_written_down_after_the_kill_was_not_resolved_but_done_anew() {
        let one = |created_at: &str, status: &str, in_flight_at_kill| Settled {
            charge: "ch".to_owned(),
            behaviour: Behaviour::Approve,
            status: status.to_owned(),
            created_at: created_at.to_owned(),
            in_flight_at_kill,
            added_ms: Some(1.5),
            took_patience: false,
        };
        let mut summary = Summary::default();
        let settled = [
            one("2026-11-22T10:00:00.000001Z", "approved", true),
            one("2026-11-22T10:00:00.000001Z", "manual", true),
            one("2026-11-22T10:00:00.000001Z", "declined", false),
            one("2026-11-22T10:00:09.000000Z", "approved", true),
        ];
        summary.take_invoices(&settled, "2026-11-22T10:00:05.000000Z");
        assert_eq!((summary.in_flight_at_kill, summary.resolved_after_crash), (3, 1));
        assert_eq!((summary.approved, summary.declined, summary.other), (2, 1, 1));
        assert_eq!(summary.outcomes["approve"]["approved"], 2);
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (Some(100.0), Some(198.0)));
        assert_eq!((percentile(&values[..1], 99), percentile(&[], 50)), (Some(1.0), None));
    }
}
