//! `cardvault demo`: a whole vault at work, from nothing, with a crash in the middle, and the proof of what it did.
//!
//! [`place`] is where; [`vault`] makes and starts everything, by [`processes`]; [`plan`] says what is to be done; [`job`] does it over
//! the API; [`compare`] and [`evidence`] hold the outcome against ledger, log and files; [`report`] tells.

mod compare;
mod evidence;
mod job;
mod place;
mod plan;
mod processes;
mod report;
mod vault;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, block_in_place};

use self::compare::{Charge, Comparison};
use self::job::{Job, Settled, Stored, refused_unless};
use self::place::Place;
use self::plan::{BEFORE_KILL, CONCURRENCY, INVOICES, Plan};
pub use self::processes::is_alive;
use self::report::{Address, Summary};
use self::vault::{Caller, Installation};
use super::terminal::{complain, say};
use crate::clock::{Clock, SystemClock};

/// How long the charges of the kill may take to be on their way.
const UNDER_WAY_MAX: Duration = Duration::from_secs(10);
/// How long they are let go on before the kill: long enough to have reached the processor.
const BEFORE_SIGKILL: Duration = Duration::from_millis(300);
/// The most charges of one answer.
const PAGE: usize = 100;

/// A whole vault at work: stores cards, charges invoices, is killed in the middle, and proves what it did.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// End when done, instead of staying up to be tried.
    #[arg(long)]
    once: bool,
    /// Print the summary as one JSON object on the last line.
    #[arg(long)]
    json: bool,
    /// Make the vault here, in a new directory; a fresh one for temporary files otherwise.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Runs the demo. Success is: everything held.
pub fn run(args: &Args) -> ExitCode {
    match play(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(sentence) => {
            complain(&format!("cardvault demo: {sentence}"));
            ExitCode::FAILURE
        }
    }
}

fn play(args: &Args) -> Result<bool, String> {
    let place = Place::choose(args.directory.as_deref())?;
    say(&format!("cardvault demo in {}\n", place.directory.display()));
    let began = Instant::now();
    let mut installation = Installation::make(&place)?;
    tell_what_runs(&installation, began);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime could be made: {}", error.kind()))?;
    let held = runtime.block_on(async {
        let held = tokio::select! {
            held = show(args, &place, &mut installation, began) => held?,
            ended = interrupted() => {
                return ended.and(Err("it was stopped before it had finished".to_owned()));
            }
        };
        if !args.once {
            stay_up(&mut installation).await?;
        }
        Ok(held)
    });
    runtime.shutdown_background();
    held
}

fn tell_what_runs(installation: &Installation, began: Instant) {
    let roles: Vec<String> =
        installation.processes().iter().map(|(role, pid)| format!("{role} {pid}")).collect();
    done(&format!(
        "made keys, certificates, a tenant and three principals in {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    done(&format!("sandbox, a processor of its own: process {}", installation.sandbox_pid()));
    done(&format!("vault: {}", roles.join(", ")));
}

/// The demo itself; says whether everything held.
async fn show(
    args: &Args,
    place: &Place,
    installation: &mut Installation,
    began: Instant,
) -> Result<bool, String> {
    let plan = Arc::new(Plan::new());
    let mut summary = Summary { directory: place.directory.display().to_string(), ..Summary::default() };
    let with_bar = !args.json && std::io::stdout().is_terminal();

    let stored = store(installation, &plan, with_bar).await?;
    summary.cards = stored.len();
    let first_token = stored.first().map(|card| card.token.clone()).unwrap_or_default();
    let mut assessor = installation.caller("assessor")?;
    evidence::await_coverage(&mut assessor).await?;
    let kept = evidence::keep_checkpoint(&mut assessor).await?;
    done("the assessor keeps a checkpoint of the log");

    let settled = charge(installation, &plan, stored, with_bar, &mut summary).await?;
    let comparison = compare_ledgers(installation).await?;
    summary.take_comparison(&comparison);
    done(&format!("compared {} invoices with the processor's own ledger", settled.len()));
    for (what, invoices) in [("twice", &comparison.doubled), ("on one side only", &comparison.lost)] {
        for invoice in invoices {
            failed(&format!("{invoice} is charged {what}"));
        }
    }
    prove(place, &plan, &mut assessor, &kept, &mut summary).await?;
    summary.seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;

    say(&format!("\n{}\n", summary.table()));
    let faults = summary.faults();
    for fault in &faults {
        failed(fault);
    }
    if faults.is_empty() {
        say(&format!("Everything holds, after {:.1} s.\n", summary.seconds));
    }
    if !args.once {
        let charge = settled.iter().find(|one| one.in_flight_at_kill).or(settled.first());
        let (api, sandbox) = (installation.url(), installation.sandbox_url().to_owned());
        let charge = charge.map(|one| one.charge.as_str()).unwrap_or_default();
        let address = Address {
            directory: &place.directory,
            api: &api,
            sandbox: &sandbox,
            token: &first_token,
            charge,
        };
        say(&address.lines());
        say("Ctrl-C ends vault and sandbox; the files stay.");
    }
    if args.json {
        say(&serde_json::to_string(&summary).map_err(|_| "the summary cannot be written".to_owned())?);
    }
    Ok(faults.is_empty())
}

async fn store(installation: &Installation, plan: &Plan, with_bar: bool) -> Result<Vec<Stored>, String> {
    let bar = bar(with_bar, plan.cards.len(), "storing cards");
    let (counted, began) = (bar.clone(), Instant::now());
    let caller = installation.caller("billing")?;
    let stored = job::store_cards(&caller, &plan.cards, move || counted.inc(1)).await;
    bar.finish_and_clear();
    let stored = stored?;
    done(&format!("billing stored {} cards in {:.1} s", stored.len(), began.elapsed().as_secs_f64()));
    Ok(stored)
}

/// Charges everything, with the kill in the middle.
async fn charge(
    installation: &mut Installation,
    plan: &Arc<Plan>,
    stored: Vec<Stored>,
    with_bar: bool,
    summary: &mut Summary,
) -> Result<Vec<Settled>, String> {
    let bar = bar(with_bar, INVOICES, "charging invoices");
    let began = Instant::now();
    let counted = bar.clone();
    let job = Job::new(installation.caller("invoicing")?, Arc::clone(plan), stored, move |_| counted.inc(1));
    job.warm_up().await?;
    job.charge(0..BEFORE_KILL, CONCURRENCY).await?;
    let behind = BEFORE_KILL + plan.slow;
    let slow = start(&job, BEFORE_KILL..behind, plan.slow);
    let rest = start(&job, behind..INVOICES, CONCURRENCY);
    await_under_way(&job, plan.slow).await?;

    let killed_at = SystemClock.now().to_string();
    job.mark_kill();
    let count = block_in_place(|| installation.kill_vault())?;
    bar.suspend(|| done(&format!("killed the vault with SIGKILL: all {count} processes are gone")));
    let restart = block_in_place(|| installation.start_vault())?;
    summary.restart_ms = restart.as_millis();
    bar.suspend(|| done(&format!("started it again: it serves after {} ms", restart.as_millis())));

    for part in [slow, rest] {
        part.await.map_err(|_| "a part of the demo broke".to_owned())??;
    }
    bar.finish_and_clear();
    let settled = job.settled();
    summary.take_invoices(&settled, &killed_at);
    let seconds = began.elapsed().as_secs_f64();
    done(&format!("invoicing charged {} invoices in {seconds:.1} s, the crash included", settled.len()));
    Ok(settled)
}

fn start(
    job: &Arc<Job>,
    range: std::ops::Range<usize>,
    concurrency: usize,
) -> JoinHandle<Result<(), String>> {
    let job = Arc::clone(job);
    tokio::spawn(async move { job.charge(range, concurrency).await })
}

/// Waits until the slow charges are at the processor.
async fn await_under_way(job: &Job, slow: usize) -> Result<(), String> {
    let until = Instant::now() + UNDER_WAY_MAX;
    while job.in_flight() < slow {
        if Instant::now() > until {
            return Err("too few charges are on their way at once".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(BEFORE_SIGKILL).await;
    Ok(())
}

/// The vault's own list of charges against the sandbox's ledger.
async fn compare_ledgers(installation: &Installation) -> Result<Comparison, String> {
    let mut invoicing = installation.caller("invoicing")?;
    let charges = list_charges(&mut invoicing).await?;
    let answer =
        installation.sandbox_client()?.get("/sandbox/ledger").await.map_err(|error| error.to_string())?;
    if answer.status != 200 {
        return Err("the sandbox does not show its ledger".to_owned());
    }
    Ok(compare::compare(&charges, &compare::read_ledger(&answer.body)?))
}

async fn list_charges(caller: &mut Caller) -> Result<Vec<Charge>, String> {
    let client = caller.client().await?;
    let mut charges: Vec<Charge> = Vec::new();
    loop {
        let after = charges.last().map(|last| format!("&starting_after={}", last.id)).unwrap_or_default();
        let path = format!("/v1/charges?limit={PAGE}{after}");
        let answer = client.get(&path).await.map_err(|error| error.to_string())?;
        let mut page = refused_unless(&answer, &[200], "the list of charges")?;
        let data = page.get_mut("data").map(Value::take).unwrap_or_default();
        let data: Vec<Charge> =
            serde_json::from_value(data).map_err(|_| "the list of charges cannot be read".to_owned())?;
        let more = page.get("has_more").and_then(Value::as_bool) == Some(true) && !data.is_empty();
        charges.extend(data);
        if !more {
            return Ok(charges);
        }
    }
}

/// The log offline, and the search of the files.
async fn prove(
    place: &Place,
    plan: &Plan,
    assessor: &mut Caller,
    kept: &str,
    summary: &mut Summary,
) -> Result<(), String> {
    evidence::await_coverage(assessor).await?;
    let report = block_in_place(|| evidence::verify_log(place, kept))?;
    for failure in &report.failures {
        failed(&format!("audit log: {failure}"));
    }
    summary.audit_verified = report.holds();
    summary.audit_events = report.events;
    summary.audit_cards = report.cards.unwrap_or(0);
    done(&format!("verified {} events of the audit log offline", report.events));
    let searched = block_in_place(|| evidence::search(&place.directory, &plan.cards))?;
    for (file, hit) in &searched.hits {
        failed(&format!("a card number ({}) in {} at byte {}", hit.form, file.display(), hit.offset));
    }
    summary.pan_found = searched.count;
    summary.files_searched = searched.files;
    summary.bytes_searched = searched.bytes;
    done(&format!("searched {} files for {} card numbers", searched.files, plan.cards.len()));
    Ok(())
}

async fn stay_up(installation: &mut Installation) -> Result<(), String> {
    let mut stop = std::pin::pin!(interrupted());
    loop {
        tokio::select! {
            ended = &mut stop => return ended,
            () = tokio::time::sleep(Duration::from_secs(1)) => installation.check()?,
        }
    }
}

/// Ends with Ctrl-C, SIGTERM, or the terminal's end.
async fn interrupted() -> Result<(), String> {
    let on = |kind| signal(kind).map_err(|_| "signals cannot be received".to_owned());
    let mut interrupt = on(SignalKind::interrupt())?;
    let mut terminate = on(SignalKind::terminate())?;
    let mut hangup = on(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

fn bar(shown: bool, length: usize, what: &'static str) -> ProgressBar {
    if !shown {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(u64::try_from(length).unwrap_or(0));
    let style = ProgressStyle::with_template("  {spinner} {msg} {bar:40} {pos}/{len}  {elapsed}");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("━╸─"));
    }
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn done(what: &str) {
    say(&format!("  ✓ {what}"));
}

fn failed(what: &str) {
    say(&format!("  ✗ {what}"));
}
