//! `cardvault bench rotate`: a data key takes over from another, and all cards are sealed again; once with nothing else to do and
//! once with charges beside it. The floor opens, seals and writes as many cards without the rest: no processes, no log, no digests.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde::Serialize;

use super::installation::{Installation, Processor};
use super::load::{Load, Slice};
use super::usage;
use super::work::{Caller, Charges, Tokens, number_of};
use crate::keeper::reseal::Rehearsal;
use crate::supervisor::admin::{self, AdminRequest};
use crate::supervisor::keys::KeyRequest;
use crate::tools::keys::progress;
use crate::tools::terminal::say;
use crate::wire::control::AdminAnswer;
use crate::wire::keys::KeyPurpose;

/// Connections by which the cards are stored, and those that charge beside.
const CONNECTIONS: usize = 64;
const CHARGING: usize = 16;
/// Milliseconds that the processor takes.
const PROCESSOR_MS: u64 = 20;
/// How long charges are measured with nothing beside them.
const ALONE: Duration = Duration::from_secs(4);
/// Charges beside the rotation are counted in slices of this length.
const SLICE: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const EMPTY_MAX: Duration = Duration::from_secs(600);
/// Cards in one transaction of the floor: as many as the vault's writer finds waiting.
const FLOOR_AT_ONCE: usize = 384;
const FLOOR_CARDS_MAX: u32 = 100_000;

/// How it is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct RotateOptions {
    /// Cards that are sealed again
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    cards: u32,
    /// Print the figures as one JSON object on the last line
    #[arg(long)]
    json: bool,
    /// A new directory to work in, which is kept; by default one that is removed
    #[arg(long)]
    directory: Option<std::path::PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    op: &'static str,
    cards: u32,
    cards_per_s: f64,
    floor_per_s: f64,
    ratio: f64,
    /// The most that all processes of the vault held together while it went on.
    rss_mb: f64,
    rss_mb_before: f64,
    charges_per_s: f64,
    charges_beside_per_s: f64,
    cards_beside_per_s: f64,
    kek_ms: f64,
}

/// Measures a rotation.
pub(super) fn measure(options: &RotateOptions) -> Result<(), String> {
    let processor = Processor { takes_ms: PROCESSOR_MS, may_keep_in_memory: true };
    let installation = Installation::start(options.directory.as_deref(), Some(processor))?;
    let tokens = store(&installation, options.cards.into())?;
    let rss_before = rss_kib(&installation);
    let floor = floor(&installation.directory, options.cards.min(FLOOR_CARDS_MAX))?;
    let (cards_per_s, rss) = rotate(&installation, |_| Ok(()))?;
    let caller = Caller { credential: installation.credential.clone(), run: "c".to_owned() };
    let mut load = Load::connect(installation.vault, &installation.ca_pem, CHARGING)?;
    let mut work = Charges::new(caller, tokens);
    let alone = per_second(&load.run(&mut work, ALONE, u64::MAX)?)?;
    let mut beside = Vec::new();
    let (cards_beside_per_s, _) = rotate(&installation, |is_over| {
        if !is_over {
            beside.push(load.run(&mut work, SLICE, u64::MAX)?);
        }
        Ok(())
    })?;
    let beside = beside.iter().map(per_second).collect::<Result<Vec<_>, _>>()?;
    let began = Instant::now();
    ask(&installation, KeyRequest::Rotate { purpose: KeyPurpose::Kek, tenant: None })?;
    let kek_ms = began.elapsed().as_secs_f64() * 1e3;
    installation.stop();
    let report = Report {
        op: "rotate",
        cards: options.cards,
        cards_per_s: round(cards_per_s),
        floor_per_s: round(floor),
        ratio: round(cards_per_s / floor),
        rss_mb: round(mb(rss)),
        rss_mb_before: round(mb(rss_before)),
        charges_per_s: round(alone),
        charges_beside_per_s: round(mean(&beside)),
        cards_beside_per_s: round(cards_beside_per_s),
        kek_ms: round(kek_ms),
    };
    report.print();
    if options.json {
        say(&serde_json::to_string(&report).unwrap_or_default());
    }
    Ok(())
}

fn store(installation: &Installation, cards: u64) -> Result<Vec<String>, String> {
    let mut load = Load::connect(installation.vault, &installation.ca_pem, CONNECTIONS)?;
    let caller = Caller { credential: installation.credential.clone(), run: "s".to_owned() };
    let mut work = Tokens::new(caller);
    work.kept = Some(Vec::new());
    let done = load.run(&mut work, Duration::MAX, cards)?;
    match done.first_failure {
        None => Ok(work.kept.unwrap_or_default()),
        Some(status) => Err(format!("cards could not be stored: the vault answered {status}")),
    }
}

/// A new data key; cards a second until nothing is left under the old one, and the most memory meanwhile. `beside` is called between
/// the looks, and once when it is over.
fn rotate(
    installation: &Installation,
    mut beside: impl FnMut(bool) -> Result<(), String>,
) -> Result<(f64, u64), String> {
    let tenant = Some("bench".to_owned());
    ask(installation, KeyRequest::Rotate { purpose: KeyPurpose::Data, tenant })?;
    let (began, mut rss) = (Instant::now(), 0);
    while began.elapsed() < EMPTY_MAX {
        rss = rss.max(rss_kib(installation));
        let now = progress(&config(installation))?.filter(|now| now.is_empty);
        beside(now.is_some())?;
        if let Some(now) = now {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            return Ok((now.per_second as f64, rss));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Err("the cards were not sealed again in ten minutes".to_owned())
}

fn ask(installation: &Installation, request: KeyRequest) -> Result<(), String> {
    match admin::ask(&config(installation), &[AdminRequest::Key(request)])?.pop() {
        Some(AdminAnswer::Refused(sentence)) => Err(sentence),
        _ => Ok(()),
    }
}

fn config(installation: &Installation) -> std::path::PathBuf {
    installation.directory.join("cardvault.toml")
}

/// Cards a second that one thread opens, seals and writes, durably, into a table of sealed fields alone.
fn floor(directory: &Path, cards: u32) -> Result<f64, String> {
    let failed = |error: rusqlite::Error| format!("the floor's table: {error}");
    let cards = Rehearsal::make((0..cards).map(number_of)).map_err(|error| error.to_string())?;
    let path = directory.join("floor.db");
    let conn = Connection::open(&path).map_err(failed)?;
    conn.execute_batch(
        "pragma journal_mode = wal; pragma synchronous = full;
         create table sealed (id integer primary key, sealed blob not null);
         begin",
    )
    .map_err(failed)?;
    for card in cards.cards() {
        let bytes = postcard::to_allocvec(card).unwrap_or_default();
        conn.prepare_cached("insert into sealed (sealed) values (?1)")
            .and_then(|mut insert| insert.execute((bytes,)))
            .map_err(failed)?;
    }
    conn.execute_batch("commit").map_err(failed)?;
    let (began, mut count) = (Instant::now(), 0_u32);
    conn.execute_batch("begin").map_err(failed)?;
    for (id, card) in (1_i64..).zip(cards.again()) {
        let bytes = postcard::to_allocvec(&card.ok_or("a card of the floor does not open")?);
        conn.prepare_cached("update sealed set sealed = ?2 where id = ?1")
            .and_then(|mut update| update.execute((id, bytes.unwrap_or_default())))
            .map_err(failed)?;
        count += 1;
        if usize::try_from(count).is_ok_and(|count| count.is_multiple_of(FLOOR_AT_ONCE)) {
            conn.execute_batch("commit; begin").map_err(failed)?;
        }
    }
    conn.execute_batch("commit").map_err(failed)?;
    let per_second = f64::from(count) / began.elapsed().as_secs_f64();
    drop(conn);
    for name in ["floor.db", "floor.db-wal", "floor.db-shm"] {
        // What cannot be removed goes with the directory.
        let _ = std::fs::remove_file(directory.join(name));
    }
    Ok(per_second)
}

fn per_second(slice: &Slice) -> Result<f64, String> {
    match slice.first_failure {
        None => {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let count = slice.times.total() as f64;
            Ok(count / slice.elapsed.as_secs_f64())
        }
        Some(status) => Err(format!("a charge was answered with {status}")),
    }
}

fn mean(of: &[f64]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let count = of.len().max(1) as f64;
    of.iter().sum::<f64>() / count
}

fn rss_kib(installation: &Installation) -> u64 {
    installation.processes.iter().map(|process| usage::memory(process.pid).rss_kib).sum()
}

fn mb(kib: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let kib = kib as f64;
    kib / 1024.0
}

fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

impl Report {
    fn print(&self) {
        say(&format!("a data key takes over, {} cards", self.cards));
        say(&format!(
            "  {:.0} cards/s   floor {:.0}/s   ratio {:.2}   {} MB at most, {} MB before",
            self.cards_per_s, self.floor_per_s, self.ratio, self.rss_mb, self.rss_mb_before
        ));
        say(&format!(
            "  beside charges: {:.0} cards/s and {:.0} charges/s, which alone are {:.0}/s",
            self.cards_beside_per_s, self.charges_beside_per_s, self.charges_per_s
        ));
        say(&format!("  a KEK takes over in {:.0} ms", self.kek_ms));
    }
}
