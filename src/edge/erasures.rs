//! Erasures: what proves one, and those that wait.
//!
//! Cards that are to be erased and wait: what needs them ends by itself, or a person has to end it. A card that waits longer than
//! anything can need it is told of, in the log and the figures, once a day until it is gone.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use data_encoding::HEXLOWER;

use super::App;
use super::audit::catalogue;
use super::audit::certificate::{Certificate, Evidence, Proven};
use super::audit::event::{Actor, EventDraft, EventOutcome, Facts, Origin, Target};
use super::audit::read::OwnedLeaf;
use super::store::{CardRow, Change, ChargeFilter, ChargeStatus};
use super::vault::erase_deadline;
use super::{charge, store};
use crate::attest::note::{Checkpoint, VerifierKey};
use crate::card::id::{EventId, Token};
use crate::card::tenant::TenantId;
use crate::clock::Time;

const EVERY: Duration = Duration::from_hours(1);
const TOLD_AGAIN_SECONDS: i64 = 86_400;
const PAGE: usize = 200;

/// Looks for such cards every hour.
pub(super) async fn run(app: App) {
    let mut told = HashMap::new();
    loop {
        if look(&app, &mut told).await.is_err() {
            tracing::warn!(code = "erasures", "it could not be looked which cards wait to be erased");
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Tells of each card that is overdue, unless that was done within a day.
pub(super) async fn look(app: &App, told: &mut HashMap<Token, Time>) -> Result<(), charge::Error> {
    let now = app.clock.now();
    let mut overdue = 0;
    for (tenant, token) in pinned(app).await? {
        let card = app.store.card(tenant, token).await?;
        let card = card.filter(|row| erase_deadline(row).is_some_and(|deadline| deadline <= now));
        let Some(card) = card else { continue };
        overdue += 1;
        if told.get(&token).is_none_or(|at| now >= at.plus_seconds(TOLD_AGAIN_SECONDS)) {
            let change = Change { events: vec![event(&card, now)?], ..Change::default() };
            app.store.commit(change).await?;
            told.insert(token, now);
            tracing::warn!(code = "erase_overdue", token = %token, "a card waits too long to be erased");
        }
    }
    app.metrics.erasures_overdue(overdue);
    Ok(())
}

/// The cards that a charge needs: those of open charges and of open authorizations. No other card waits.
async fn pinned(app: &App) -> Result<BTreeSet<(TenantId, Token)>, store::StoreError> {
    let (mut pinned, mut after) = (BTreeSet::new(), None);
    loop {
        let page = app.store.open_charges(after, PAGE).await?;
        pinned.extend(page.iter().map(|charge| (charge.tenant, charge.token)));
        if page.len() < PAGE {
            break;
        }
        after = page.last().map(|charge| charge.id);
    }
    let authorized = ChargeFilter { status: Some(ChargeStatus::Authorized), ..ChargeFilter::default() };
    for tenant in app.directory.tenants().keys() {
        let mut after = None;
        loop {
            let page = app.store.charges(*tenant, &authorized, after, PAGE).await?;
            after = page.rows.last().map(|row| row.id);
            pinned.extend(page.rows.iter().map(|charge| (charge.tenant, charge.token)));
            if !page.more {
                break;
            }
        }
    }
    Ok(pinned)
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoCertificate {
    /// No such erasure, or another tenant's.
    #[error("there is no such erasure")]
    Unknown,
    /// No signed checkpoint covers its events yet.
    #[error("no signed checkpoint covers it yet")]
    Pending,
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// What is stored of it does not fit together.
    #[error("what is stored of it does not fit together")]
    Corrupt,
}

/// The certificate of an erasure as the log proves it now; `own` is the caller's tenant, none for who may see all.
pub(super) async fn certificate(
    app: &App,
    own: Option<TenantId>,
    token: Token,
) -> Result<Certificate, NoCertificate> {
    let erasure = app.store.erasure(token).await?.ok_or(NoCertificate::Unknown)?;
    let erased = app.store.event(erasure.event).await?.ok_or(NoCertificate::Corrupt)?;
    if own.is_some() && erased.tenant != own {
        return Err(NoCertificate::Unknown);
    }
    let leaf = OwnedLeaf::read(&erased.leaf).map_err(|_| NoCertificate::Corrupt)?;
    let keys = app.store.erased_keys().await?;
    let gone = keys.iter().filter(|key| leaf.keys.contains(&key.key)).filter_map(|key| key.destroyed);
    let mut events = vec![erased];
    for id in erasure.scrubbed.into_iter().chain(gone) {
        events.push(app.store.event(id).await?.ok_or(NoCertificate::Corrupt)?);
    }
    let installation = app.store.installation().await?.ok_or(NoCertificate::Corrupt)?;
    let note = app.store.checkpoint().await?;
    let size = note.as_deref().and_then(Checkpoint::of_unverified).map_or(0, |checkpoint| checkpoint.size);
    let Some(checkpoint) = note.filter(|_| events.iter().all(|event| event.seq < size)) else {
        app.important.notify_one();
        return Err(NoCertificate::Pending);
    };
    let mut proven = Vec::with_capacity(events.len());
    for event in events {
        let path = app.store.inclusion_proof(event.seq, size).await?;
        proven.push(Proven::new(&event.leaf, event.seq, &path));
    }
    let log = HEXLOWER.decode(installation.public_key.as_bytes()).ok().and_then(|key| key.try_into().ok());
    let log =
        log.and_then(|key| VerifierKey::new(&installation.origin, key)).ok_or(NoCertificate::Corrupt)?;
    let evidence = Evidence { checkpoint, events: proven };
    Certificate::issue(&log, evidence, app.clock.now()).map_err(|_| NoCertificate::Corrupt)
}

fn event(card: &CardRow, now: Time) -> Result<EventDraft, crate::random::NoRandomness> {
    Ok(EventDraft {
        id: EventId::make(now)?,
        tenant: Some(card.tenant),
        actor: Actor::System("eraser".to_owned()),
        origin: Origin::default(),
        action: catalogue::CARD_ERASE_OVERDUE,
        outcome: EventOutcome::Error("erase_overdue".to_owned()),
        target: Target { kind: "card".to_owned(), id: card.token.to_string(), version: None },
        keys: Vec::new(),
        facts: Facts::default(),
    })
}
