//! A forward, from the caller's body to the answer; and its look-up.

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::send::{self, Claim, Draft};
use super::{Error, Made};
use crate::card::id::{AttemptId, EventId, ForwardId};
use crate::edge::App;
use crate::edge::audit::catalogue;
use crate::edge::charge::{self, Hold};
use crate::edge::directory::Caller;
use crate::edge::keeper::KeeperError;
use crate::edge::store::{
    CardRow, CommitError, ForwardRow, ForwardStatus, Outbound, StoreError, StoredAnswer, StoredIdempotency,
};
use crate::edge::working::Working;
use crate::wire::keeper::{ForwardRead, PrepareForward, ReadForward, ShowForward};

const FORWARDS: &str = "POST /v1/forwards";

/// Sends a caller's own request with a card in it, or shows what would be sent.
pub async fn create(
    app: &App,
    caller: &Caller,
    (key, body): (&str, &[u8]),
    hold: Hold,
) -> Result<Made, Error> {
    let ask = ReadForward {
        tenant: caller.tenant_id(),
        route: FORWARDS.to_owned(),
        idempotency_key: key.to_owned(),
        body: body.to_vec(),
    };
    let read = app.keeper.read_forward(ask).await?;
    let held = read.held;
    let made = begin(app, caller, *read, hold).await;
    if !matches!(made, Ok(Made::Shown(_) | Made::Forward { replayed: false, .. })) {
        let keeper = app.keeper.clone();
        // What is not used goes at once; without this it would go after five seconds.
        tokio::spawn(async move { drop(keeper.discard(held).await) });
    }
    made
}

async fn begin(app: &App, caller: &Caller, read: ForwardRead, hold: Hold) -> Result<Made, Error> {
    let tenant = caller.tenant_id();
    // The keeper knows the destination; whether this principal may send there is known here.
    if !caller.principal.may_send_to(&read.destination) {
        return Err(Error::DestinationUnknown);
    }
    let token = read.token.ok_or(Error::TokenUnknown)?;
    if read.dry_run {
        let card = charge::chargeable(app.store.card(tenant, token).await?)?;
        return show(app, caller, &card, read.held).await;
    }
    let claim = Claim { tenant, route: FORWARDS, key: read.digests.key, body_mac: read.digests.body, token };
    let guard = Working::take(app, claim.key).ok_or(Error::InProgress)?;
    if let Some(stored) = app.store.idempotency(tenant, FORWARDS, &claim.key).await? {
        return replay(app, &claim, stored).await;
    }
    let card = charge::chargeable(app.store.card(tenant, token).await?)?;
    let room = room(app, &read.destination)?;
    let draft = Draft { room, ..draft(app, caller, &card, &read)? };
    let (begun, has_begun) = oneshot::channel();
    let task = tokio::spawn(send::run(app.clone(), draft, (claim.clone(), guard), begun));
    match has_begun.await.unwrap_or(Err(Error::BrokenOff)) {
        Ok(started) => {
            let row = charge::wait(task, hold).await;
            let row = Box::new(row.unwrap_or(started));
            Ok(Made::Forward { row, replayed: false })
        }
        Err(Error::Commit(CommitError::KeyTaken(stored))) => replay(app, &claim, *stored).await,
        Err(Error::Commit(CommitError::NotFound)) => Err(Error::TokenErased { scrubbed_at: None }),
        Err(error) => Err(error),
    }
}

/// Room for the answer of a destination; one that is not known here any more has none to give.
fn room(app: &App, destination: &str) -> Result<Option<OwnedSemaphorePermit>, Error> {
    let forwards = app.directory.forwards();
    let Some(to) = forwards.iter().find(|to| to.name == destination) else { return Ok(None) };
    app.forwards.room.take(to.answer_bytes_max).map(Some).ok_or(Error::Keeper(KeeperError::Busy))
}

fn draft(app: &App, caller: &Caller, card: &CardRow, read: &ForwardRead) -> Result<Draft, Error> {
    let now = app.clock.now();
    let (id, event) = (ForwardId::make(now)?, EventId::make(now)?);
    let sealed = card.sealed.clone().ok_or(StoreError::Corrupt("an active card without sealed fields"))?;
    let keys = sealed.key_ids();
    let row = ForwardRow {
        id,
        tenant: card.tenant,
        revision: 1,
        token: card.token,
        card_version: card.version,
        destination: read.destination.clone(),
        method: read.method.clone(),
        path: read.path.clone(),
        principal: caller.principal.id,
        status: ForwardStatus::Sending,
        outbound: Outbound::MaybeSent,
        rules_version: String::new(),
        mac: String::new(),
        error: None,
        upstream_status: None,
        upstream_us: None,
        created_at: now,
        finished_at: None,
        answer: None,
    };
    let prepare = Box::new(PrepareForward {
        held: read.held,
        tenant: card.tenant,
        token: card.token,
        sealed,
        attempt: AttemptId(id.0),
        event,
    });
    Ok(Draft { row, prepare, keys, actor: caller.actor(), origin: caller.origin(), room: None })
}

/// What would be sent. It shows what a read of the card shows, and is logged as one.
async fn show(app: &App, caller: &Caller, card: &CardRow, held: u64) -> Result<Made, Error> {
    let sealed = card.sealed.as_ref().ok_or(StoreError::Corrupt("an active card without sealed fields"))?;
    let shown = card.shown.clone().ok_or(StoreError::Corrupt("an active card without its shown number"))?;
    let ask = ShowForward { held, shown, has_zip: sealed.zip.is_some(), policy: sealed.policy };
    let shown = app.keeper.show_forward(Box::new(ask)).await?;
    charge::log_read(app, caller, catalogue::CARD_READ, ("card", card.token.to_string()), None).await?;
    Ok(Made::Shown(shown))
}

/// The answer to a request that was made before: the forward as it stands.
async fn replay(app: &App, claim: &Claim, stored: StoredIdempotency) -> Result<Made, Error> {
    match stored.body_mac {
        None => return Err(Error::TokenErased { scrubbed_at: None }),
        Some(mac) if mac != claim.body_mac => return Err(Error::KeyReused),
        Some(_) => {}
    }
    match stored.answer {
        StoredAnswer::Reserved { subject } => {
            let id = ForwardId::parse(&subject).ok_or(Error::KeyReused)?;
            let row = app.store.forward(claim.tenant, id).await?.ok_or(Error::ForwardUnknown)?;
            Ok(Made::Forward { row: Box::new(row), replayed: true })
        }
        StoredAnswer::Frozen { .. } | StoredAnswer::Card { .. } | StoredAnswer::Forgotten => {
            Err(Error::KeyReused)
        }
    }
}

/// A forward of the caller's tenant.
pub async fn read(app: &App, caller: &Caller, id: &str) -> Result<ForwardRow, Error> {
    let id = ForwardId::parse(id).ok_or(Error::ForwardUnknown)?;
    let row = app.store.forward(caller.tenant_id(), id).await?.ok_or(Error::ForwardUnknown)?;
    if !caller.principal.may_send_to(&row.destination) {
        return Err(Error::ForwardUnknown);
    }
    charge::log_read(app, caller, catalogue::FORWARD_READ, ("forward", row.id.to_string()), None).await?;
    Ok(row)
}
