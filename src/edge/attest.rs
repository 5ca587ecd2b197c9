//! What keeps the log believable: the keeper's statements and signed checkpoints, openings that no event accounts for, and the
//! log's own start and end.

use std::time::Duration;

use super::App;
use super::audit::catalogue;
use super::audit::event::{
    Actor, EventDraft, EventOutcome, Facts, Opening, Origin, Statement, StatementLine, Target,
};
use super::keeper::KeeperError;
use super::store::{Change, CommitError, Installation, RowChange, StoreError};
use crate::attest::note;
use crate::card::id::EventId;
use crate::card::tenant::TenantId;
use crate::random::NoRandomness;
use crate::wire::keeper::{Hello, Opened, SignCheckpoint, Stated, StatementProof};

/// A checkpoint follows within this time when the log grew.
const EVERY: Duration = Duration::from_secs(60);
/// After an important event one follows within two seconds; those that come meanwhile share it.
const SOON: Duration = Duration::from_millis(1_000);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(2);

/// So many events back an edge looks for what it said of this keeper already; beyond, it says it again.
const LOOK_BACK: u64 = 5_000;
const EVENTS_MAX: usize = 10_000;

/// Why the log could not be attested now.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The keeper did not answer or refused.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The store did not commit.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No randomness for an id.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// The log is shorter than what was signed: it was rolled back.
    #[error("the log is shorter than what was signed")]
    RolledBack,
}

impl AttestError {
    const fn code(&self) -> &'static str {
        match self {
            Self::Keeper(_) => "keeper",
            Self::Commit(_) | Self::Store(_) => "store",
            Self::Randomness(_) => "randomness",
            Self::RolledBack => "log_rolled_back",
        }
    }
}

/// Binds a new database to its installation, before anything else is written to it; false if this one is bound to another: with
/// the keys of another environment no card would open, and two keys would share one log.
pub(super) async fn bind(app: &App) -> Result<bool, AttestError> {
    let keeper = app.keeper.hello().await?;
    if let Some(bound) = app.store.installation().await? {
        return Ok(bound == installation_of(&keeper));
    }
    if let Some(note) = app.store.checkpoint().await? {
        let key = note::VerifierKey::new(&keeper.origin, keeper.public_key);
        if key.is_none_or(|key| key.open_checkpoint(&note).is_err()) {
            return Ok(false);
        }
    }
    let bind = RowChange::BindInstallation(Box::new(installation_of(&keeper)));
    let event = system_event(app, catalogue::STORE_BIND, "edge", "store", Facts::default())?;
    app.store.commit(Change { rows: vec![bind], events: vec![event], idempotency: None }).await?;
    Ok(true)
}

fn installation_of(keeper: &Hello) -> Installation {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    Installation {
        environment: hex(&keeper.environment),
        origin: keeper.origin.clone(),
        public_key: hex(&keeper.public_key),
    }
}

/// Makes checkpoints for as long as the edge runs.
pub(super) async fn run(app: App) {
    let mut known_boot = String::new();
    loop {
        if let Err(error) = log_keeper(&app, &mut known_boot).await {
            tracing::warn!(code = error.code(), "the keeper's start could not be logged");
        }
        let wait = match make_checkpoint(&app).await {
            Ok(()) => EVERY,
            Err(error) => {
                tracing::warn!(code = error.code(), "no checkpoint could be made");
                AGAIN
            }
        };
        tokio::select! {
            () = app.important.notified() => tokio::time::sleep(SOON).await,
            () = app.keeper.reconnected() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Says in the log that a keeper started, once for each of its boots; an edge that restarts finds what the one before it wrote.
async fn log_keeper(app: &App, known_boot: &mut String) -> Result<(), AttestError> {
    let boot = app.keeper.hello().await?.boot;
    if *known_boot == boot {
        return Ok(());
    }
    let (size, _) = app.store.tree_head().await?;
    let recent = app.store.events(None, size.saturating_sub(LOOK_BACK), EVENTS_MAX).await?;
    let note = format!("\"note\":\"{boot}\"");
    let told = |leaf: &[u8]| leaf.windows(note.len()).any(|window| window == note.as_bytes());
    if !recent.iter().any(|event| told(&event.leaf)) {
        let facts = Facts { note: Some(boot.clone()), ..Facts::default() };
        app.store
            .commit(only(system_event(app, catalogue::KEEPER_STARTED, "keeper", "keeper", facts)?))
            .await?;
    }
    *known_boot = boot;
    Ok(())
}

/// Signs the log as it stands, if it grew since it was signed last: the keeper's statement goes in just before.
pub async fn make_checkpoint(app: &App) -> Result<(), AttestError> {
    let keeper = app.keeper.hello().await?;
    let (size, _) = app.store.tree_head().await?;
    if size < keeper.signed_size {
        return Err(AttestError::RolledBack);
    }
    if size == keeper.signed_size && app.store.checkpoint().await?.is_some() {
        return Ok(());
    }
    let statement = statement_of(app.keeper.state().await?);
    let facts = Facts { statement: Some(Box::new(statement)), ..Facts::default() };
    let event = system_event(app, catalogue::KEEPER_STATEMENT, "keeper", "log", facts)?;
    let seq = app.store.commit(only(event)).await?.grant.seq;
    let (size, root) = app.store.tree_head().await?;
    let consistency = app.store.consistency_proof(keeper.signed_size, size).await?;
    let statement = prove(app, seq, size).await?;
    let ask = SignCheckpoint { size, root, consistency, statement };
    let signature = app.keeper.sign_checkpoint(ask).await?;
    let signature: [u8; 64] = signature.try_into().map_err(|_| KeeperError::Confused)?;
    let text = note::checkpoint_text(&keeper.origin, size, &root);
    let note = note::signed_note(&text, &keeper.origin, &keeper.public_key, &signature);
    app.store.put_checkpoint(size, note).await?;
    app.metrics.checkpoint(size);
    tracing::debug!(size, "checkpoint");
    Ok(())
}

/// The keeper signs only a tree that holds what it stated: shows it the leaf in its place.
async fn prove(app: &App, seq: u64, size: u64) -> Result<StatementProof, AttestError> {
    let leaf = app.store.events(None, seq, 1).await?.pop();
    let leaf = leaf.filter(|event| event.seq == seq).ok_or(StoreError::Corrupt("log"))?.leaf;
    let path = app.store.inclusion_proof(seq, size).await?;
    Ok(StatementProof { seq, leaf, path })
}

fn statement_of(stated: Stated) -> Statement {
    let line = |(purpose, seq, hash)| StatementLine { purpose, seq, hash };
    Statement {
        boot: stated.boot,
        openings: stated.openings.into_iter().map(line).collect(),
        signature: data_encoding::BASE64.encode(&stated.signature),
    }
}

/// Commits an event for each opening that the keeper counted and the log does not have, then acknowledges them all.
pub async fn account_for_openings(app: &App) -> Result<(), AttestError> {
    let mut openings = app.keeper.openings().await?;
    // What this process has opened is about to be committed by the request that asked for it.
    openings.retain(|opened| app.charges.is_from_before(opened.event.0));
    if openings.is_empty() {
        return Ok(());
    }
    let ids = openings.iter().map(|opened| opened.event).collect();
    for opened in openings {
        if app.store.event(opened.event).await?.is_none() {
            app.store.commit(only(unused_event(opened))).await?;
        }
    }
    app.keeper.acknowledge(Vec::new(), ids).await?;
    app.important.notify_one();
    Ok(())
}

/// Acknowledges the openings whose events are in the log, so that the statement made next counts them; says whether that is all
/// of them.
pub(super) async fn acknowledge_logged(app: &App) -> Result<bool, AttestError> {
    let openings = app.keeper.openings().await?;
    let mut logged = Vec::new();
    for opened in &openings {
        if app.store.event(opened.event).await?.is_some() {
            logged.push(opened.event);
        }
    }
    let all = logged.len() == openings.len();
    if !logged.is_empty() {
        app.keeper.acknowledge(Vec::new(), logged).await?;
    }
    Ok(all)
}

/// The event of an opening whose card went nowhere: the edge that asked for it ended before it could commit.
pub fn unused_event(opened: Opened) -> EventDraft {
    let target = Target { kind: "card".to_owned(), id: opened.token.to_string(), version: None };
    EventDraft {
        id: opened.event,
        tenant: Some(opened.tenant),
        actor: Actor::System("keeper".to_owned()),
        origin: Origin::default(),
        action: catalogue::OPENING_UNUSED,
        outcome: EventOutcome::Ok,
        target,
        keys: Vec::new(),
        facts: Facts { opening: Some(opening_of(opened)), ..Facts::default() },
    }
}

/// An opening as an event carries it.
pub fn opening_of(opened: Opened) -> Box<Opening> {
    Box::new(Opening {
        boot: opened.boot,
        seq: opened.seq,
        purpose: opened.purpose,
        token: opened.token,
        tokens: opened.tokens,
        destination: opened.destination,
        hash: opened.hash,
    })
}

/// Says in the log that it was opened.
pub(super) async fn log_start(app: &App) -> Result<(), AttestError> {
    let event = system_event(app, catalogue::LOG_START, "edge", "log", Facts::default())?;
    app.store.commit(only(event)).await?;
    Ok(())
}

/// Says in the log that it was closed in order; the events that still wait are committed with it.
pub(super) async fn log_stop(app: &App) {
    if let Ok(event) = system_event(app, catalogue::LOG_STOP, "edge", "log", Facts::default())
        && app.store.commit(only(event)).await.is_err()
    {
        tracing::warn!(code = "store", "the end of the log could not be written");
    }
}

/// An event of the vault itself.
pub(super) fn system_event(
    app: &App,
    action: &'static str,
    actor: &str,
    kind: &str,
    facts: Facts,
) -> Result<EventDraft, NoRandomness> {
    Ok(EventDraft {
        id: EventId::make(app.clock.now())?,
        tenant: None::<TenantId>,
        actor: Actor::System(actor.to_owned()),
        origin: Origin::default(),
        action,
        outcome: EventOutcome::Ok,
        target: Target { kind: kind.to_owned(), ..Target::default() },
        keys: Vec::new(),
        facts,
    })
}

fn only(event: EventDraft) -> Change {
    Change { events: vec![event], ..Change::default() }
}
