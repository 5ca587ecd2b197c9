//! What the assessor does at the end: an export of the log verified offline, and a search of every file for every card number.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::job::{refused_unless, text_of};
use super::place::Place;
use super::plan::PlannedCard;
use super::vault::Caller;
use crate::attest::note::{Checkpoint, VerifierKey};
use crate::edge::audit::export::{Log, export};
use crate::edge::audit::verify::{Report, verify};
use crate::edge::store::sqlite::OfflineLog;
use crate::tools::client::Client;
use crate::tools::search::{Search, Searched};

/// How long a checkpoint over the newest event may take.
const CHECKPOINT_MAX: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(200);
/// The most events of one answer.
const PAGE: usize = 1_000;
const BUFFER_BYTES: usize = 1 << 20;

/// The assessor keeps a checkpoint, to hold the log to it later.
pub(super) async fn keep_checkpoint(caller: &mut Caller) -> Result<String, String> {
    let until = Instant::now() + CHECKPOINT_MAX;
    loop {
        let client = caller.client().await?;
        let answer = client.get("/v1/audit/checkpoint").await.map_err(|error| error.to_string())?;
        if answer.status == 200 {
            return Ok(String::from_utf8_lossy(&answer.body).into_owned());
        }
        if Instant::now() > until {
            return Err(refused_unless(&answer, &[], "a checkpoint").err().unwrap_or_default());
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// Waits until a checkpoint covers everything that has happened so far: until the newest event can be proved.
pub(super) async fn await_coverage(caller: &mut Caller) -> Result<(), String> {
    let client = caller.client().await?;
    let newest = newest_event(&client).await?;
    let until = Instant::now() + CHECKPOINT_MAX;
    loop {
        let path = format!("/v1/audit/proofs/{newest}");
        let answer = client.get(&path).await.map_err(|error| error.to_string())?;
        if answer.status == 200 {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(refused_unless(&answer, &[], "the proof of an event").err().unwrap_or_default());
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

async fn newest_event(client: &Client) -> Result<String, String> {
    let (mut newest, mut after) = (String::new(), None::<u64>);
    loop {
        let from = after.map(|seq| format!("&after={seq}")).unwrap_or_default();
        let path = format!("/v1/audit/events?limit={PAGE}{from}");
        let answer = client.get(&path).await.map_err(|error| error.to_string())?;
        let page = refused_unless(&answer, &[200], "the audit log")?;
        let last = page.get("data").and_then(Value::as_array).and_then(|events| events.last());
        let Some(last) = last else { break };
        newest = text_of(last, "id");
        after = last.get("seq").and_then(Value::as_u64);
        if page.get("has_more").and_then(Value::as_bool) != Some(true) || after.is_none() {
            break;
        }
    }
    if newest.is_empty() { Err("the audit log is empty".to_owned()) } else { Ok(newest) }
}

/// Exports the log and verifies the file with the public key alone, against the kept checkpoint and the rows of the database.
pub(super) fn verify_log(place: &Place, kept: &str) -> Result<Report, String> {
    let io = |what: &'static str| move |error: std::io::Error| format!("{what}: {}", error.kind());
    let file = place.at("audit-log.ndjson");
    let mut log = OfflineLog::open(&place.at("data")).map_err(io("the database cannot be read"))?;
    let out = File::create_new(&file).map_err(io("the export cannot be written"))?;
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
    export(&mut log, &mut out).map_err(|error| error.to_string())?;
    out.flush().map_err(io("the export cannot be written"))?;
    std::fs::write(place.at("checkpoint"), kept).map_err(io("the checkpoint cannot be written"))?;

    let key =
        std::fs::read_to_string(place.at("keys/audit.pub")).map_err(io("the public key cannot be read"))?;
    let key = VerifierKey::parse(key.trim_end()).ok_or("the public key cannot be read")?;
    let kept: Checkpoint =
        key.open_checkpoint(kept).map_err(|error| format!("the kept checkpoint: {error}"))?;
    let input = File::open(&file).map_err(io("the export cannot be read"))?;
    let input = BufReader::with_capacity(BUFFER_BYTES, input);
    let mut rows = OfflineLog::open(&place.at("data")).map_err(io("the database cannot be read"))?;
    verify(input, &key, Some(&kept), Some(&mut |take| rows.rows(take)))
        .map_err(io("what is to be verified cannot be read"))
}

/// Searches all files of a directory for all card numbers.
pub(super) fn search(directory: &Path, cards: &[PlannedCard]) -> Result<Searched, String> {
    let search = Search::new(cards.iter().map(|card| &card.number));
    // A search that finds nothing anywhere proves nothing: it must find each number where it is.
    let sample: String = cards.iter().map(|card| format!("{}\n", card.number)).collect();
    let expected = u64::try_from(cards.len()).unwrap_or(u64::MAX);
    if search.in_bytes(sample.as_bytes()).count < expected {
        return Err("the search does not find what it should".to_owned());
    }
    search
        .in_directory(directory)
        .map_err(|error| format!("a file under {} cannot be searched: {}", directory.display(), error.kind()))
}
