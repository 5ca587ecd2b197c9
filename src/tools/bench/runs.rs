//! `cardvault bench run`: one invoice run of many lines at the sandbox, by `POST /v1/invoice_runs` as anybody would hand it in; the
//! first and last tenth of it timed apart, and the sandbox's ledger compared with it at the end.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::installation::{Installation, Processor};
use super::load::Load;
use super::usage;
use super::work::{Agreements, Caller, Tokens};
use crate::tools::client::{Answer, Client};
use crate::tools::terminal::say;

/// Cards that the lines go over.
const CARDS_MAX: u64 = 20_000;
/// Connections by which the cards are stored.
const CONNECTIONS: usize = 64;
const AMOUNT: u64 = 1_999;
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Nothing moves for so long: what is measured hangs.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const UPLOAD_MAX: Duration = Duration::from_hours(2);
const PIECE_BYTES: usize = 64 << 10;

/// How a run is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct RunOptions {
    /// Lines of the run
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(10..=10_000_000))]
    lines: u32,
    /// Charges at once; by default 128, and 1000 where the processor takes its time
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=2000))]
    connections: Option<u16>,
    /// Milliseconds that the processor takes over a charge
    #[arg(long, default_value_t = 0)]
    processor_ms: u64,
    /// Print the figures as one JSON object on the last line
    #[arg(long)]
    json: bool,
    /// A new directory to work in, which is kept; by default one that is removed
    #[arg(long)]
    directory: Option<PathBuf>,
}

impl RunOptions {
    const fn in_flight(&self) -> u16 {
        match (self.connections, self.processor_ms) {
            (Some(given), _) => given,
            (None, 0) => 128,
            (None, _) => 1000,
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    op: &'static str,
    lines: u32,
    in_flight: u16,
    processor_ms: u64,
    charges_per_s: f64,
    first_tenth_per_s: f64,
    last_tenth_per_s: f64,
    doubled: u64,
    lost: u64,
    /// The most that all processes of the vault held together while it went on.
    rss_mb: f64,
    upload_lines_per_s: f64,
    vault_cpu_us_per_charge: f64,
    sandbox_cpu_us_per_charge: f64,
}

/// Measures a run. What was doubled or lost is an error.
pub(super) fn measure(options: &RunOptions) -> Result<(), String> {
    // What is compared in the end has to be durable when it is answered, and it may be long.
    let processor = Processor { takes_ms: options.processor_ms, may_keep_in_memory: false };
    let installation = Installation::start(options.directory.as_deref(), Some(processor))?;
    let tokens = store(&installation, u64::from(options.lines).min(CARDS_MAX))?;
    let file = installation.directory.join("invoices.ndjson");
    write_lines(&file, &tokens, options.lines).map_err(|error| format!("the lines: {}", error.kind()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|_| "no runtime could be made".to_owned())?;
    let report = runtime.block_on(carry_out(options, &installation, &file))?;
    installation.stop();
    report.print();
    if options.json {
        say(&serde_json::to_string(&report).unwrap_or_default());
    }
    let wrong = report.doubled + report.lost;
    if wrong == 0 { Ok(()) } else { Err(format!("{wrong} lines were doubled or lost")) }
}

/// Stores cards, each with an agreement to charge it later.
fn store(installation: &Installation, cards: u64) -> Result<Vec<String>, String> {
    let mut load = Load::connect(installation.vault, &installation.ca_pem, CONNECTIONS)?;
    let caller = |run: &str| Caller { credential: installation.credential.clone(), run: run.to_owned() };
    let mut work = Tokens::new(caller("s"));
    work.kept = Some(Vec::new());
    let done = load.run(&mut work, Duration::MAX, cards)?;
    let tokens = work.kept.unwrap_or_default();
    let agreed = load.run(&mut Agreements::new(caller("a"), tokens.clone()), Duration::MAX, cards)?;
    match done.first_failure.or(agreed.first_failure) {
        None => Ok(tokens),
        Some(status) => Err(format!("cards could not be stored: the vault answered {status}")),
    }
}

fn write_lines(path: &Path, tokens: &[String], lines: u32) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for (n, token) in (0..lines).zip(tokens.iter().cycle()) {
        writeln!(
            file,
            r#"{{"token":"{token}","amount":{AMOUNT},"currency":"USD","invoice":"invoice-{n:09}","destination":"sandbox"}}"#
        )?;
    }
    file.flush()
}

async fn carry_out(options: &RunOptions, installation: &Installation, file: &Path) -> Result<Report, String> {
    let (url, credential) = (format!("https://{}", installation.vault), &installation.credential);
    let client = Client::new(&url, Some(&installation.ca_pem), Some(credential));
    let client = client.map_err(|error| error.to_string())?;
    let (began, lines) = (Instant::now(), options.lines);
    let run = upload(&client, options, file).await?;
    let uploaded = began.elapsed();
    let cpu = || {
        let sum = |processes: &[usage::Process]| -> Duration {
            processes.iter().map(|process| usage::cpu_time(process.pid)).sum()
        };
        (sum(&installation.processes), sum(installation.sandbox_process.as_slice()))
    };
    let before = cpu();
    let id = text(&run, "id");
    let mut pace = Pace::new(lines);
    let (mut rss_kib, mut moved) = (0, Instant::now());
    let run = loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let answer =
            client.get(&format!("/v1/invoice_runs/{id}")).await.map_err(|error| error.to_string())?;
        let run = good(&answer, 200)?;
        let settled = run.pointer("/progress/settled").and_then(Value::as_u64).unwrap_or(0);
        if pace.saw(settled, Instant::now()) {
            moved = Instant::now();
        }
        rss_kib = rss_kib.max(installation.processes.iter().map(|p| usage::memory(p.pid).rss_kib).sum());
        match text(&run, "state").as_str() {
            "running" if moved.elapsed() < SILENCE_MAX => {}
            "running" => return Err("the run stands still".to_owned()),
            "finished" => break run,
            state => return Err(format!("the run is {state}: {run}")),
        }
    };
    let after = cpu();
    let approved = run.pointer("/outcomes/approved").and_then(Value::as_u64).unwrap_or(0);
    let (doubled, missing) = compare(&installation.ledger, lines)
        .map_err(|error| format!("the sandbox's ledger cannot be read: {}", error.kind()))?;
    let per_charge = |used: Duration| round(used.as_secs_f64() * 1e6 / f64::from(lines));
    Ok(Report {
        op: "run",
        lines,
        in_flight: options.in_flight(),
        processor_ms: options.processor_ms,
        charges_per_s: pace.per_second(0, 10),
        first_tenth_per_s: pace.per_second(0, 1),
        last_tenth_per_s: pace.per_second(9, 10),
        doubled,
        lost: missing.max(u64::from(lines).saturating_sub(approved)),
        rss_mb: rss_mb(rss_kib),
        upload_lines_per_s: round(f64::from(lines) / uploaded.as_secs_f64()),
        vault_cpu_us_per_charge: per_charge(after.0.saturating_sub(before.0)),
        sandbox_cpu_us_per_charge: per_charge(after.1.saturating_sub(before.1)),
    })
}

async fn upload(client: &Client, options: &RunOptions, file: &Path) -> Result<Value, String> {
    let sum = u64::from(options.lines) * AMOUNT;
    let (lines, in_flight) = (options.lines, options.in_flight());
    let path = format!("/v1/invoice_runs?lines={lines}&sum=USD:{sum}&concurrency={in_flight}");
    let mut file = File::open(file).map_err(|error| format!("the lines: {}", error.kind()))?;
    let (tell, told) = tokio::sync::mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut bytes = vec![0; PIECE_BYTES];
            let Ok(count) = file.read(&mut bytes) else { return };
            bytes.truncate(count);
            if count == 0 || tell.blocking_send(Ok(Bytes::from(bytes))).is_err() {
                return;
            }
        }
    });
    let headers = [("idempotency-key", "bench"), ("content-type", "application/x-ndjson")];
    let answer = client.with_timeout(UPLOAD_MAX).upload(&path, &headers, told).await;
    good(&answer.map_err(|error| error.to_string())?, 202)
}

fn good(answer: &Answer, status: u16) -> Result<Value, String> {
    if answer.status == status {
        return Ok(answer.json());
    }
    Err(format!("the vault answered {} {}", answer.status, text(&answer.json(), "code")))
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Lines that the ledger sold more than once, and those that it did not sell.
fn compare(ledger: &Path, lines: u32) -> std::io::Result<(u64, u64)> {
    let mut sold = vec![0_u8; usize::try_from(lines).unwrap_or(0)];
    for entry in BufReader::new(File::open(ledger)?).lines() {
        let entry: Value = serde_json::from_str(&entry?)?;
        let is_sale = text(&entry, "kind") == "sale" && text(&entry, "status") == "approved";
        let number = text(&entry, "invoice");
        let number = number.strip_prefix("invoice-").and_then(|number| number.parse::<usize>().ok());
        if let Some(count) = number.filter(|_| is_sale).and_then(|number| sold.get_mut(number)) {
            *count = count.saturating_add(1);
        }
    }
    let count = |is: fn(u8) -> bool| {
        u64::try_from(sold.iter().filter(|count| is(**count)).count()).unwrap_or(u64::MAX)
    };
    Ok((count(|count| count > 1), count(|count| count == 0)))
}

/// When each tenth was done.
struct Pace {
    lines: u64,
    /// The last look: when, and how many were done.
    last: (Instant, u64),
    /// When so many tenths were done, from none on.
    tenths: Vec<Instant>,
}

impl Pace {
    fn new(lines: u32) -> Self {
        let now = Instant::now();
        Self { lines: lines.into(), last: (now, 0), tenths: vec![now] }
    }

    /// So many are done now; whether that is more than before. Between two looks the pace is taken as even.
    fn saw(&mut self, done: u64, now: Instant) -> bool {
        let (then, before) = self.last;
        if done <= before {
            return false;
        }
        while self.tenths.len() <= 10 {
            let mark = self.lines * u64::try_from(self.tenths.len()).unwrap_or(10) / 10;
            if done < mark {
                break;
            }
            #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
            let part = (mark - before) as f64 / (done - before) as f64;
            self.tenths.push(then + (now - then).mul_f64(part.clamp(0.0, 1.0)));
        }
        self.last = (now, done);
        true
    }

    /// Lines a second between two tenths.
    fn per_second(&self, from: usize, to: usize) -> f64 {
        let (Some(from_at), Some(to_at)) = (self.tenths.get(from), self.tenths.get(to)) else { return 0.0 };
        let seconds = to_at.duration_since(*from_at).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let lines = self.lines as f64 * (to - from) as f64 / 10.0;
        if seconds > 0.0 { round(lines / seconds) } else { 0.0 }
    }
}

impl Report {
    fn print(&self) {
        say(&format!(
            "run of {} lines, {} at once, the processor takes {} ms",
            self.lines, self.in_flight, self.processor_ms
        ));
        say(&format!(
            "  {:.0} charges/s   first tenth {:.0}/s   last tenth {:.0}/s   handed in at {:.0} lines/s",
            self.charges_per_s, self.first_tenth_per_s, self.last_tenth_per_s, self.upload_lines_per_s
        ));
        say(&format!("  doubled {}   lost {}   {} MB at most", self.doubled, self.lost, self.rss_mb));
        say(&format!(
            "  CPU a charge: vault {} µs, sandbox {} µs",
            self.vault_cpu_us_per_charge, self.sandbox_cpu_us_per_charge
        ));
    }
}

fn rss_mb(kib: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let mb = kib as f64 / 1024.0;
    round(mb)
}

fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenths_are_timed_between_the_looks() {
        let mut pace = Pace::new(100);
        let begun = pace.last.0;
        let after = |ms| begun + Duration::from_millis(ms);
        assert!(pace.saw(20, after(200)));
        assert!(!pace.saw(20, after(300)));
        assert!(pace.saw(100, after(1_100)));
        assert!((pace.per_second(0, 1) - 100.0).abs() < 0.1);
        assert!((pace.per_second(9, 10) - 88.9).abs() < 0.2, "{}", pace.per_second(9, 10));
        assert!((pace.per_second(0, 10) - 90.9).abs() < 0.1);
    }

    #[test]
    fn the_ledger_tells_what_was_doubled_and_lost() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let sale = |n: u32, status: &str| {
            format!("{{\"kind\":\"sale\",\"status\":\"{status}\",\"invoice\":\"invoice-{n:09}\"}}\n")
        };
        let text =
            [sale(0, "approved"), sale(1, "approved"), sale(1, "approved"), sale(2, "declined")].concat();
        std::fs::write(file.path(), text).unwrap();
        assert_eq!(compare(file.path(), 4).unwrap(), (1, 2));
    }
}
