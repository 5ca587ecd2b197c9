//! `cardvault invoices run FILE`: hands a file of invoices to the vault, watches what becomes of them, and says so at the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Subcommand;
use comfy_table::{Cell, CellAlignment, Table, presets};
use hyper::body::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use ring::digest::{Context, SHA256};
use serde_json::Value;

use crate::edge::charge::runs::lines::{Form, LineReader};
use crate::tools::client::{Answer, Client, ClientError, Payload};
use crate::tools::terminal::{complain, say};

/// As long as a vault that was restarted may take to be there again.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Nothing but the file's size limits how long it takes to send it.
const UPLOAD_MAX: Duration = Duration::from_hours(24);
const READ_BYTES: usize = 64 << 10;
/// Pieces of the file on their way to the connection.
const PIECES_MAX: usize = 4;

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Charge the lines of a file (NDJSON, or CSV with a header), each invoice once
    Run(Args),
}

/// Which file, where to, and how.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file: one JSON object a line, or CSV if its name ends in .csv
    file: PathBuf,
    /// Where the vault listens: https://host:port
    #[arg(long)]
    url: String,
    /// The file with the credential
    #[arg(long)]
    credential_file: PathBuf,
    /// The certificate authority to trust (PEM); needed for https
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// How many lines there are, as billing counted them; by default as this file has
    #[arg(long, value_name = "N")]
    lines: Option<u32>,
    /// The sums as billing added them up: USD:123400,EUR:5; by default as this file has
    #[arg(long)]
    sum: Option<String>,
    /// Say the verdicts and charge nothing
    #[arg(long)]
    validate_only: bool,
    /// Charge again what was declined before
    #[arg(long)]
    retry_declined: bool,
    /// Charges at once at one destination
    #[arg(long, value_name = "N")]
    concurrency: Option<u16>,
    /// Charges a second at one destination, at most
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// The Idempotency-Key; by default one that follows from the file and the options, so that the same command goes on where it was
    #[arg(long)]
    key: Option<String>,
    /// Show a bar and what becomes of the lines while it goes on
    #[arg(long)]
    watch: bool,
    /// Print how the run stands at the end as one JSON object on the last line
    #[arg(long)]
    json: bool,
}

/// Ends well only if all lines ended approved or had been charged already (of a run that only validates: would be).
pub fn run(command: &Command) -> ExitCode {
    let Command::Run(args) = command;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(carry_out(args)),
        Err(error) => Err(format!("no runtime could be made: {}", error.kind())),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(sentence) => {
            complain(&format!("cardvault invoices: {sentence}"));
            ExitCode::FAILURE
        }
    }
}

async fn carry_out(args: &Args) -> Result<bool, String> {
    let client = client(args)?;
    let scanned = scan(args)?;
    let bar = Watch::new(args.watch, u64::from(scanned.lines));
    let run = upload(&client, args, &scanned, &bar).await?;
    let run = watch(&client, run, &bar).await?;
    bar.end();
    summarize(&run);
    if args.json {
        say(&run.to_string());
    }
    Ok(is_all_well(&run))
}

fn client(args: &Args) -> Result<Client, String> {
    let credential = read(&args.credential_file)?;
    let credential = String::from_utf8(credential).map_err(|_| "the credential is not text".to_owned())?;
    let ca = args.ca.as_deref().map(read).transpose()?;
    Client::new(&args.url, ca.as_deref(), Some(credential.trim())).map_err(|error| error.to_string())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| cannot_read(path, &error))
}

fn cannot_read(path: &Path, error: &std::io::Error) -> String {
    format!("{} cannot be read: {}", path.display(), error.kind())
}

/// What a file says of itself.
struct Scanned {
    form: Form,
    lines: u32,
    sums: BTreeMap<String, i64>,
    /// SHA-256 of its bytes.
    digest: Vec<u8>,
}

/// Reads the file once, to count it: what arrives is compared with that.
fn scan(args: &Args) -> Result<Scanned, String> {
    let is_csv = args.file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    let form = if is_csv { Form::Csv } else { Form::Ndjson };
    let mut file = File::open(&args.file).map_err(|error| cannot_read(&args.file, &error))?;
    let (mut reader, mut digest) = (LineReader::new(form), Context::new(&SHA256));
    let (mut lines, mut sums, mut bytes) = (0_u32, BTreeMap::new(), vec![0; READ_BYTES]);
    let mut whole = Vec::new();
    loop {
        let count = file.read(&mut bytes).map_err(|error| cannot_read(&args.file, &error))?;
        let piece = bytes.get(..count).unwrap_or_default();
        digest.update(piece);
        let read = if count == 0 { reader.end(&mut whole) } else { reader.push(piece, &mut whole) };
        read.map_err(|error| format!("{}: {error}", args.file.display()))?;
        for line in whole.drain(..) {
            lines = lines.checked_add(1).ok_or("the file has too many lines")?;
            if let Some((currency, amount)) = line.adds {
                let sum: &mut i64 = sums.entry(currency).or_default();
                *sum = sum.checked_add(amount).ok_or("the sum is too large")?;
            }
        }
        if count == 0 {
            break;
        }
    }
    if sums.is_empty() {
        return Err(format!("{} has no line with an amount and a currency", args.file.display()));
    }
    Ok(Scanned { form, lines, sums, digest: digest.finish().as_ref().to_vec() })
}

fn path(args: &Args, scanned: &Scanned) -> String {
    let sums: Vec<_> = scanned.sums.iter().map(|(currency, sum)| format!("{currency}:{sum}")).collect();
    let sums = args.sum.clone().unwrap_or_else(|| sums.join(","));
    let lines = args.lines.unwrap_or(scanned.lines);
    let mut path = format!("/v1/invoice_runs?lines={lines}&sum={sums}");
    for (name, is_set) in [("validate_only", args.validate_only), ("retry_declined", args.retry_declined)] {
        if is_set {
            path.push_str(&format!("&{name}=true"));
        }
    }
    let numbers = [("concurrency", args.concurrency.map(u32::from)), ("rate", args.rate)];
    for (name, number) in numbers.into_iter().filter_map(|(name, n)| n.map(|n| (name, n))) {
        path.push_str(&format!("&{name}={number}"));
    }
    path
}

/// Sends the file up, again and again under the same key if the line breaks: what arrived is not taken twice.
async fn upload(client: &Client, args: &Args, scanned: &Scanned, bar: &Watch) -> Result<Value, String> {
    let path = path(args, scanned);
    let key = args.key.clone().unwrap_or_else(|| {
        let mut digest = Context::new(&SHA256);
        digest.update(&scanned.digest);
        digest.update(path.as_bytes());
        let name = digest.finish().as_ref().to_vec();
        format!("file-{}", data_encoding::BASE32_NOPAD.encode(name.get(..20).unwrap_or(&name)).to_lowercase())
    });
    let kind = match scanned.form {
        Form::Csv => "text/csv; charset=utf-8",
        Form::Ndjson => "application/x-ndjson",
    };
    let headers = [("idempotency-key", key.as_str()), ("content-type", kind)];
    let client = client.with_timeout(UPLOAD_MAX);
    bar.say("sending");
    let mut lost_at: Option<Instant> = None;
    loop {
        let sent = client.upload(&path, &headers, pieces(&args.file)?).await;
        match sent {
            Ok(answer) if matches!(answer.status, 201 | 202) => {
                if answer.header("idempotent-replayed").is_some() {
                    bar.note("these lines were handed in before: this is how that run stands");
                }
                return Ok(answer.json());
            }
            Ok(answer) if !matches!(answer.status, 408 | 409 | 429 | 500..) => return Err(refused(&answer)),
            Ok(_) | Err(ClientError::Lost | ClientError::NotSent) => {}
        }
        let since = *lost_at.get_or_insert_with(Instant::now);
        if since.elapsed() > PATIENCE {
            return Err("the vault does not answer; the same command goes on where it was".to_owned());
        }
        bar.say("waiting for the vault");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The file, a piece at a time, read by a thread of its own.
fn pieces(path: &Path) -> Result<tokio::sync::mpsc::Receiver<std::io::Result<Bytes>>, String> {
    let mut file = File::open(path).map_err(|error| cannot_read(path, &error))?;
    let (tell, told) = tokio::sync::mpsc::channel(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut bytes = vec![0; READ_BYTES];
            let piece = file.read(&mut bytes).map(|count| {
                bytes.truncate(count);
                Bytes::from(bytes)
            });
            let is_end = piece.as_ref().map_or(true, Bytes::is_empty);
            if piece.as_ref().is_ok_and(Bytes::is_empty) || tell.blocking_send(piece).is_err() || is_end {
                return;
            }
        }
    });
    Ok(told)
}

fn refused(answer: &Answer) -> String {
    let body = answer.json();
    let word = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let about = body.get("param").and_then(Value::as_str).map(|param| format!(" ({param})"));
    format!(
        "the vault refused with {} {}{}: {} {}",
        answer.status,
        word("code"),
        about.unwrap_or_default(),
        word("title"),
        word("detail")
    )
}

/// Looks at the run until it is over or stands still.
async fn watch(client: &Client, mut run: Value, bar: &Watch) -> Result<Value, String> {
    let path = format!("/v1/invoice_runs/{}", word(&run, "id"));
    let mut seen = Instant::now();
    while word(&run, "state") == "running" {
        bar.show(&run);
        tokio::time::sleep(LOOK_EVERY).await;
        match client.request("GET", &path, &[], Payload::None).await {
            Ok(answer) if answer.status == 200 => {
                run = answer.json();
                seen = Instant::now();
            }
            Ok(answer) if !matches!(answer.status, 408 | 429 | 500..) => return Err(refused(&answer)),
            // The run goes on by itself, whatever becomes of the line.
            Ok(_) | Err(_) if seen.elapsed() < PATIENCE => bar.say("waiting for the vault"),
            Ok(_) | Err(_) => {
                return Err(format!("the vault does not answer; GET {path} says how the run stands"));
            }
        }
    }
    bar.show(&run);
    Ok(run)
}

fn is_all_well(run: &Value) -> bool {
    let verdicts = |name| count(run, "verdicts", name);
    let lines = run.pointer("/arrived/lines").and_then(Value::as_u64).unwrap_or(0);
    let validates = run.get("validate_only") == Some(&Value::Bool(true));
    let good = if validates { verdicts("accepted") } else { count(run, "outcomes", "approved") };
    word(run, "state") == "finished" && good + verdicts("already_charged") == lines
}

fn summarize(run: &Value) {
    let state = word(run, "state");
    let reason = run.get("reason").and_then(Value::as_str).map(|reason| format!(" ({reason})"));
    say(&format!("{} {state}{}", word(run, "id"), reason.unwrap_or_default()));
    say(&table(run).to_string());
    if state == "paused" {
        say(&format!("POST /v1/invoice_runs/{}/resume lets it go on.", word(run, "id")));
    }
    if !is_all_well(run) {
        say(&format!("GET /v1/invoice_runs/{}/results says what became of each line.", word(run, "id")));
    }
}

fn table(run: &Value) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for of in ["verdicts", "outcomes"] {
        for (name, count) in run.get(of).and_then(Value::as_object).into_iter().flatten() {
            let count = count.as_u64().unwrap_or(0);
            if count > 0 {
                let number = Cell::new(count).set_alignment(CellAlignment::Right);
                table.add_row(vec![Cell::new(of.trim_end_matches('s')), Cell::new(name), number]);
            }
        }
    }
    for lane in run.get("destinations").and_then(Value::as_array).into_iter().flatten() {
        let name = lane.get("destination").and_then(Value::as_str).unwrap_or("the destination");
        let number = |name: &str| lane.get(name).and_then(Value::as_u64).unwrap_or(0);
        let backing_off = lane.get("backing_off") == Some(&Value::Bool(true));
        let words = format!("{} of {} at once", number("under_way"), number("concurrency"));
        let words = if backing_off { format!("{words}, backing off") } else { words };
        table.add_row(vec![Cell::new("to"), Cell::new(name), Cell::new(words)]);
    }
    table
}

fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn count(run: &Value, of: &str, name: &str) -> u64 {
    run.get(of).and_then(|counts| counts.get(name)).and_then(Value::as_u64).unwrap_or(0)
}

/// A bar, and a table below it, if they are wanted.
struct Watch {
    bar: ProgressBar,
}

impl Watch {
    fn new(is_shown: bool, lines: u64) -> Self {
        let bar = if is_shown { ProgressBar::new(lines) } else { ProgressBar::hidden() };
        let style = "  {spinner} {prefix} {bar:40} {pos}/{len}  {elapsed}\n{msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        if is_shown {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self { bar }
    }

    fn say(&self, what: &'static str) {
        self.bar.set_prefix(what);
    }

    fn note(&self, sentence: &str) {
        // Where there is no terminal, there is no bar either.
        if self.bar.is_hidden() {
            complain(sentence);
        } else {
            self.bar.println(format!("  {sentence}"));
        }
    }

    fn show(&self, run: &Value) {
        let progress =
            |name: &str| run.pointer(&format!("/progress/{name}")).and_then(Value::as_u64).unwrap_or(0);
        self.bar.set_length(progress("accepted"));
        self.bar.set_position(progress("settled"));
        let rate = run.pointer("/progress/per_second").and_then(Value::as_f64).unwrap_or(0.0);
        self.bar.set_prefix("charging");
        self.bar.set_message(format!("{}\n  {rate:.0} a second, {} open", table(run), progress("open")));
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_is_well_only_if_every_line_is_paid() {
        let run = |state: &str, approved: u64, charged: u64| {
            json!({
                "state": state, "arrived": {"lines": 5}, "validate_only": false,
                "verdicts": {"accepted": approved, "already_charged": charged}, "outcomes": {"approved": approved},
            })
        };
        assert!(is_all_well(&run("finished", 3, 2)));
        assert!(is_all_well(&run("finished", 0, 5)));
        for other in [run("finished", 3, 1), run("paused", 3, 2), run("cancelled", 5, 0)] {
            assert!(!is_all_well(&other));
        }
    }
}
