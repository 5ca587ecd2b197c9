//! `/v1/audit`: the log to read, its newest checkpoint, and the proof of one event. Each look at it is itself logged.

use axum::extract::State;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::code::Code;
use super::extract::{PathIds, Query};
use super::problem::Problem;
use super::reply;
use crate::attest::note::Checkpoint;
use crate::card::id::EventId;
use crate::edge::App;
use crate::edge::audit::catalogue;
use crate::edge::audit::event::{EventDraft, EventOutcome, Facts, Target};
use crate::edge::audit::proof::Proof;
use crate::edge::directory::Caller;
use crate::edge::store::{Change, StoredEvent};

/// What a list of events may ask for.
pub(super) const EVENTS_QUERY: &[&str] = &["after", "limit"];
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;
const NDJSON: &str = "application/x-ndjson";

/// `GET /v1/audit/events`: events in order, after the place `after`; a tenant's principal sees its tenant's.
pub(super) async fn events(
    State(app): State<App>,
    caller: Caller,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let after: Option<u64> = query.parsed("after", |text| text.parse().ok())?;
    let limit = query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let from = after.map_or(0, |after| after.saturating_add(1));
    let mut found = app.store.events(caller.principal.tenant, from, limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    log_look(&app, &caller, "events", Some(found.len())).await?;
    if accepts(&headers, NDJSON) {
        return Ok(reply::text(NDJSON, lines(&found)));
    }
    Ok(reply::written(StatusCode::OK, list(&found, more)))
}

/// `GET /v1/audit/checkpoint`: the newest signed checkpoint, as its note.
pub(super) async fn checkpoint(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    let note = app.store.checkpoint().await?.ok_or_else(|| Problem::of(Code::CheckpointPending))?;
    log_look(&app, &caller, "checkpoint", None).await?;
    Ok(reply::text("text/plain; charset=utf-8", note))
}

/// `GET /v1/audit/proofs/{event}`: the proof that an event stands in the log under the newest checkpoint.
pub(super) async fn proof(
    State(app): State<App>,
    caller: Caller,
    path: PathIds,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let event = app.store.event(path.event()?).await?.filter(|event| {
        let own = caller.principal.tenant;
        own.is_none() || event.tenant == own
    });
    let event = event.ok_or_else(|| Problem::of(Code::NotFound))?;
    let note = app.store.checkpoint().await?;
    let size = note.as_deref().and_then(size_of).unwrap_or(0);
    let Some(note) = note.filter(|_| event.seq < size) else {
        app.important.notify_one();
        return Err(Problem::of(Code::CheckpointPending));
    };
    let steps = app.store.inclusion_proof(event.seq, size).await?;
    log_look(&app, &caller, "proof", None).await?;
    let proof = Proof::new(&event.leaf, event.seq, &steps, &note);
    if accepts(&headers, "text/plain") {
        return Ok(reply::text("text/plain; charset=utf-8", proof.text()));
    }
    Ok(reply::json(StatusCode::OK, &proof))
}

/// The size in a note that we kept ourselves.
fn size_of(note: &str) -> Option<u64> {
    let (text, _) = note.split_once("\n\n")?;
    Checkpoint::parse(&format!("{text}\n")).map(|checkpoint| checkpoint.size)
}

fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|part| part.split(';').next().is_some_and(|name| name.trim() == kind))
}

/// One leaf a line, exactly as it was hashed.
fn lines(events: &[StoredEvent]) -> Vec<u8> {
    let mut out = Vec::with_capacity(events.iter().map(|event| event.leaf.len() + 1).sum());
    for event in events {
        out.extend_from_slice(&event.leaf);
        out.push(b'\n');
    }
    out
}

/// A JSON list of the leaves, exactly as they were hashed.
fn list(events: &[StoredEvent], more: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(events.iter().map(|event| event.leaf.len() + 1).sum::<usize>() + 64);
    out.extend_from_slice(b"{\"data\":[");
    for (at, event) in events.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&event.leaf);
    }
    out.extend_from_slice(format!("],\"has_more\":{more}}}").as_bytes());
    out
}

/// Looking at the log is an event: a person's before the answer.
pub(super) async fn log_look(
    app: &App,
    caller: &Caller,
    what: &str,
    count: Option<usize>,
) -> Result<(), Problem> {
    let event = EventDraft {
        id: EventId::make(app.clock.now())?,
        tenant: caller.principal.tenant,
        actor: caller.actor(),
        origin: caller.origin(),
        action: catalogue::LOG_READ,
        outcome: EventOutcome::Ok,
        target: Target { kind: "log".to_owned(), id: what.to_owned(), version: None },
        keys: Vec::new(),
        facts: Facts { count: count.and_then(|n| u64::try_from(n).ok()), ..Facts::default() },
    };
    if caller.is_person() {
        app.store.commit(Change { events: vec![event], ..Change::default() }).await?;
        return Ok(());
    }
    app.store.append_events(vec![event]).map_err(|_| Problem::of(Code::LogLagging))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::id::IdBytes;

    fn stored(seq: u64) -> StoredEvent {
        let leaf = format!("{{\"seq\":{seq}}}").into_bytes();
        StoredEvent { seq, id: EventId(IdBytes([0; 18])), tenant: None, leaf }
    }

    #[test]
    fn leaves_are_passed_on_byte_for_byte() {
        let events = [stored(0), stored(1)];
        assert_eq!(lines(&events), b"{\"seq\":0}\n{\"seq\":1}\n");
        assert_eq!(list(&events, true), br#"{"data":[{"seq":0},{"seq":1}],"has_more":true}"#);
        assert_eq!(list(&[], false), br#"{"data":[],"has_more":false}"#);
    }

    #[test]
    fn the_size_of_a_kept_note_is_read() {
        let text = crate::attest::note::checkpoint_text("v/n", 42, &[9; 32]);
        let note = crate::attest::note::signed_note(&text, "v/n", &[1; 32], &[2; 64]);
        assert_eq!(size_of(&note), Some(42));
        assert_eq!(size_of("nonsense"), None);
    }
}
