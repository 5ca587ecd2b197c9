//! What the edge knows of keys: their ids and where they stand, never a byte of one. It writes into the log what the supervisor
//! says became of them, and says whether any record needs one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

use super::App;
use super::audit::catalogue;
use super::audit::event::{Actor, EventDraft, EventOutcome, Facts, Origin, Target};
use super::reseal::Progress;
use super::store::{
    Change, CommitError, EndpointRow, KeyMark, KeyWatch, RowChange, SealedRecord, StoreError,
};
use crate::card::id::EventId;
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::erasure::ErasureTerms;
use crate::wire::control::{FromEdge, KeyStep};
use crate::wire::keys::{KeyChange, KeyInfo, KeyOrder, KeyPurpose, KeyState, KeyTable};

/// Records looked at together.
const PAGE: usize = 500;

/// The keys as the supervisor's key store has them, and how far those are that are being emptied.
#[derive(Debug)]
pub struct Keys {
    keys: watch::Sender<Arc<Vec<KeyInfo>>>,
    progress: Mutex<Progress>,
    /// Keys that no record needs, on their way to destruction: none is taken under them, also if the word of their end never comes.
    released: Mutex<BTreeSet<u32>>,
    say: mpsc::UnboundedSender<FromEdge>,
    said: Mutex<Option<mpsc::UnboundedReceiver<FromEdge>>>,
}

impl Default for Keys {
    fn default() -> Self {
        let (say, said) = mpsc::unbounded_channel();
        Self {
            keys: watch::Sender::new(Arc::default()),
            progress: Mutex::default(),
            released: Mutex::default(),
            say,
            said: Mutex::new(Some(said)),
        }
    }
}

impl Keys {
    /// Takes the keys as they stand.
    pub(super) fn set(&self, keys: Vec<KeyInfo>) {
        self.keys.send_replace(Arc::new(keys));
    }

    /// All of them.
    pub(super) fn all(&self) -> Arc<Vec<KeyInfo>> {
        Arc::clone(&self.keys.borrow())
    }

    /// The keys in use that nothing takes over from by itself.
    pub(super) fn to_be_rotated(&self) -> Vec<KeyInfo> {
        let keys = self.all();
        let of = |key: &KeyInfo| (key.order.purpose, key.order.tenant);
        let waits = |key: &KeyInfo| keys.iter().any(|o| o.state == KeyState::Pending && of(o) == of(key));
        keys.iter().filter(|key| key.state == KeyState::Active && !waits(key)).copied().collect()
    }

    /// The webhook key that a new secret of this tenant is derived from; none if there is none whose cryptoperiod lasts.
    pub(super) fn webhook_key(&self, tenant: TenantId, now: Time) -> Option<u32> {
        let keys = self.all();
        let in_use = |key: &&KeyInfo| {
            (key.order.purpose, key.order.tenant, key.state)
                == (KeyPurpose::Webhook, Some(tenant), KeyState::Active)
        };
        keys.iter().find(in_use).filter(|key| now < key.protects_until).map(|key| key.order.id)
    }

    /// The first webhook key of this tenant, which the secrets of a version before are derived from.
    pub(super) fn first_webhook_key(&self, tenant: TenantId) -> Option<u32> {
        let keys = self.all();
        let is_first = |key: &&KeyInfo| {
            (key.order.purpose, key.order.tenant) == (KeyPurpose::Webhook, Some(tenant))
                && key.order.version == 1
        };
        keys.iter().find(is_first).map(|key| key.order.id)
    }

    /// Whether this key is a webhook key.
    pub(super) fn is_webhook(&self, id: u32) -> bool {
        self.all().iter().any(|key| key.order.id == id && key.order.purpose == KeyPurpose::Webhook)
    }

    /// Whether others know this key.
    pub(super) fn is_compromised(&self, id: u32) -> bool {
        self.all().iter().any(|key| key.order.id == id && key.state == KeyState::Compromised)
    }

    /// Whether no record is taken under this key any more.
    fn is_released(&self, id: u32) -> bool {
        self.released.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    fn set_released(&self, id: u32, released: bool) {
        let mut all = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        if released {
            all.insert(id);
        } else {
            all.remove(&id);
        }
    }

    /// To wait for the next change.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Vec<KeyInfo>>> {
        self.keys.subscribe()
    }

    /// Whether these are the keys that are to be emptied.
    pub(super) fn are_emptied(&self, ids: &[u32]) -> bool {
        let keys = self.all();
        keys.iter().filter(|key| key.emptying).map(|key| key.order.id).eq(ids.iter().copied())
    }

    /// How far the keys are that are being emptied.
    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No record is left under these: the supervisor is to know.
    pub(super) fn say_emptied(&self, keys: Vec<u32>) {
        self.say(FromEdge::KeysEmptied(keys));
    }

    /// These steps are due: the supervisor is to take them.
    pub(super) fn say_due(&self, steps: Vec<(u32, KeyStep)>) {
        self.say(FromEdge::KeysDue(steps));
    }

    fn say(&self, message: FromEdge) {
        // Whoever passes it on lives as long as the edge.
        drop(self.say.send(message));
    }

    /// What the supervisor is to be told; only the first who asks gets it.
    pub(super) fn said(&self) -> mpsc::UnboundedReceiver<FromEdge> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).take();
        said.unwrap_or_else(|| mpsc::unbounded_channel().1)
    }
}

/// What the store does about records under these keys.
fn watch_over(app: &App, keys: &[KeyInfo]) -> KeyWatch {
    let of = |key: &KeyInfo| key.order.id;
    let emptying = || keys.iter().filter(|key| key.emptying);
    let moving =
        keys.iter().filter(|key| key.order.purpose == KeyPurpose::Fingerprint && was_in_use(key.state));
    let sealing = keys.iter().filter(|key| key.order.purpose == KeyPurpose::Data && has_sealed(key.state));
    KeyWatch {
        counted: emptying().map(of).collect(),
        barred: keys
            .iter()
            .filter(|key| is_gone(key) || app.keys.is_released(key.order.id))
            .map(of)
            .collect(),
        moving: moving.filter_map(|key| key.order.tenant).collect(),
        sealing: sealing.filter_map(|key| Some((key.order.tenant?, key.order.id))).collect(),
        terms: app.directory.erasure(),
    }
}

/// Has the store go by keys as they stand.
pub(super) fn watch(app: &App, keys: &[KeyInfo]) {
    app.store.watch_keys(watch_over(app, keys));
}

/// Whether a key in this state was taken over from, and is there yet.
const fn was_in_use(state: KeyState) -> bool {
    match state {
        KeyState::Retired | KeyState::Compromised => true,
        KeyState::Pending | KeyState::Active | KeyState::Destroyed => false,
    }
}

/// Whether a key is destroyed.
const fn is_gone(key: &KeyInfo) -> bool {
    matches!(key.state, KeyState::Destroyed)
}

/// Whether a data key in this state may have sealed, and can open yet.
const fn has_sealed(state: KeyState) -> bool {
    match state {
        KeyState::Active | KeyState::Retired | KeyState::Compromised => true,
        KeyState::Pending | KeyState::Destroyed => false,
    }
}

/// Takes keys as they stand: what is sealed again, what no record is taken under, and what may have sealed a card that is erased.
pub(super) fn take(app: &App, keys: Vec<KeyInfo>) {
    watch(app, &keys);
    // Whoever asks at once must not be told how far the keys before were.
    let emptying: Vec<KeyInfo> = keys.iter().filter(|key| key.emptying).copied().collect();
    if emptying.is_empty() {
        app.keys.progress().settle();
    } else {
        app.keys.progress().expect(emptying);
    }
    app.keys.set(keys);
}

/// Writes into the log what became of keys; what it has already, it does not get again.
pub(super) async fn log_changes(app: &App, changes: Vec<KeyChange>, generation: u64) -> Result<(), LogError> {
    let (mut events, mut rows) = (Vec::new(), vec![RowChange::KeyGeneration(generation)]);
    for change in changes {
        if change.state == KeyState::Destroyed {
            rows.push(RowChange::MarkKey(KeyMark::Destroyed(change.order.id, change.event)));
        }
        if app.store.event(change.event).await?.is_none() {
            events.push(event(change, app.directory.erasure()));
        }
    }
    app.store.commit(Change { rows, events, idempotency: None }).await?;
    Ok(())
}

/// Takes the keys at the start. A key store older than the one that this database was used with last was rolled back, and a key that
/// was destroyed or is known to others would be in use again (PCI DSS 3.7.7): it is refused.
pub(super) async fn begin(app: &App, table: KeyTable) -> Result<(), String> {
    let known = app.store.key_generation().await.map_err(|error| error.to_string())?;
    if known.is_some_and(|known| known > table.generation) {
        return Err(
            "the key store is older than the one that this database was used with last: it was rolled back; \
                    restore the newest one"
                .to_owned(),
        );
    }
    take(app, table.keys);
    Ok(())
}

/// Why the log did not take it.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// It could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn event(change: KeyChange, terms: ErasureTerms) -> EventDraft {
    let KeyChange { event, order, state, is_new, actor } = change;
    let action = match state {
        _ if is_new => catalogue::KEY_CREATE,
        KeyState::Pending => catalogue::KEY_CREATE,
        KeyState::Active => catalogue::KEY_ACTIVATE,
        KeyState::Retired => catalogue::KEY_RETIRE,
        KeyState::Compromised => catalogue::KEY_COMPROMISE,
        KeyState::Destroyed => catalogue::KEY_DESTROY,
    };
    let system = || Actor::System("supervisor".to_owned());
    let says_backups = order.purpose == KeyPurpose::Data && state == KeyState::Destroyed;
    let count = says_backups.then_some(u64::from(terms.key_backups_kept_days));
    EventDraft {
        id: event,
        tenant: order.tenant,
        actor: actor.map_or_else(system, Actor::Person),
        origin: Origin::default(),
        action,
        outcome: EventOutcome::Ok,
        target: Target { kind: "key".to_owned(), id: order.id.to_string(), version: Some(order.version) },
        keys: vec![order.id],
        facts: Facts { note: Some(order.purpose.name().to_owned()), count, ..Facts::default() },
    }
}

/// Notes that no record is left under these keys, in the log as well.
pub(super) async fn note_emptied(app: &App, keys: &[KeyInfo]) -> Result<(), LogError> {
    let mut events = Vec::with_capacity(keys.len());
    for key in keys {
        let id = EventId::make(app.clock.now()).map_err(|_| CommitError::Unavailable("randomness"))?;
        let (state, order) = (key.state, key.order);
        let change = KeyChange { event: id, order, state, is_new: false, actor: None };
        let actor = Actor::System("resealer".to_owned());
        events.push(EventDraft {
            action: catalogue::KEY_EMPTIED,
            actor,
            ..event(change, app.directory.erasure())
        });
    }
    let ids = keys.iter().map(|key| key.order.id).collect();
    let rows = vec![RowChange::MarkKey(KeyMark::Emptied(ids))];
    app.store.commit(Change { rows, events, idempotency: None }).await?;
    Ok(())
}

/// A record needs this key after all: it is not empty.
pub(super) async fn note_needed(app: &App, key: u32) -> Result<(), LogError> {
    let rows = vec![RowChange::MarkKey(KeyMark::Needed(key))];
    app.store.commit(Change { rows, ..Change::default() }).await?;
    Ok(())
}

/// Takes no record under this key any more, and says how many there are; if any, it was not released.
pub(super) async fn release(app: &App, key: u32) -> Result<u64, StoreError> {
    let keys = app.keys.all();
    app.keys.set_released(key, true);
    watch(app, &keys);
    let needed = count_released(app, &keys, key).await;
    if !matches!(needed, Ok(0)) {
        app.keys.set_released(key, false);
        watch(app, &app.keys.all());
    }
    needed
}

async fn count_released(app: &App, keys: &[KeyInfo], key: u32) -> Result<u64, StoreError> {
    // What the writer took before it saw that is committed within one change of this node's own.
    app.store.commit(Change::default()).await.map_err(|_| StoreError::Unavailable("io"))?;
    let released: Vec<KeyInfo> = keys.iter().filter(|known| known.order.id == key).copied().collect();
    match released.as_slice() {
        [one] if one.order.purpose == KeyPurpose::Webhook => count_endpoints(app, one.order).await,
        released => count(app, released).await,
    }
}

/// How many endpoints have a secret that is derived from this webhook key and good yet.
async fn count_endpoints(app: &App, order: KeyOrder) -> Result<u64, StoreError> {
    let now = app.clock.now();
    let rows = app.store.webhook_endpoints().await?;
    let needs =
        |row: &&EndpointRow| Some(row.tenant) == order.tenant && row.needs(order.id, order.version == 1, now);
    Ok(u64::try_from(rows.iter().filter(needs).count()).unwrap_or(u64::MAX))
}

/// Whether a record needs any of these data and fingerprint keys.
pub(super) fn needs(record: &SealedRecord, keys: &[KeyInfo]) -> bool {
    keys.iter().any(|key| {
        let KeyOrder { id, purpose, tenant, version, .. } = key.order;
        match purpose {
            KeyPurpose::Data => record.sealed.key_ids().contains(&id),
            KeyPurpose::Fingerprint if record.place.is_old => false,
            KeyPurpose::Fingerprint => match record.fingerprint_key {
                Some(under) => under == id,
                None => version == 1 && tenant == Some(record.tenant),
            },
            KeyPurpose::Kek
            | KeyPurpose::BodyMac
            | KeyPurpose::Pseudonym
            | KeyPurpose::Webhook
            | KeyPurpose::Checkpoint => false,
        }
    })
}

/// How many records need any of these keys.
pub(super) async fn count(app: &App, keys: &[KeyInfo]) -> Result<u64, StoreError> {
    let (mut left, mut after) = (0, None);
    loop {
        let page = app.store.sealed_records(after, PAGE).await?;
        let under = page.iter().filter(|record| needs(record, keys)).count();
        left += u64::try_from(under).unwrap_or(0);
        after = page.last().map(|record| record.place);
        if page.len() < PAGE {
            return Ok(left);
        }
        tokio::task::yield_now().await;
    }
}
