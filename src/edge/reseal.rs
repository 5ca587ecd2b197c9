//! Cards sealed again under the key that took over, beside everything else: whatever dies in the middle, what is left is found by
//! looking, since each record names its key.
//!
//! A pass goes over all records in their order. Those under a key that is being emptied go to the keeper in batches and come back
//! sealed under the tenant's active key; new bytes, digests and the openings are committed together. Passes are made until one finds
//! nothing and no record came in late (sealed before the key was retired, committed after). A record that does not open keeps the keys
//! that it is under, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::App;
use super::attest::{opening_of, unused_event};
use super::audit::catalogue;
use super::audit::event::{Actor, CardFacts, EventDraft, EventOutcome, Facts, Origin, Target};
use super::keeper::KeeperError;
use super::keys;
use super::store::{Change, CommitError, Resealed, RowChange, SealedRecord, StoreError};
use crate::card::id::EventId;
use crate::card::tenant::TenantId;
use crate::random::NoRandomness;
use crate::wire::control::AdminAnswer;
use crate::wire::keeper;
use crate::wire::keys::KeyInfo;
use crate::wire::reseal::{RESEAL_MAX, Reseal};

/// Records looked at together.
const PAGE: usize = 512;
/// Batches on their way at once: one at the keeper, one at the store, one that waits.
const BATCHES_AT_ONCE: usize = 3;
/// After a failure, and between two times that the supervisor is told the same.
const AGAIN: Duration = Duration::from_secs(5);
/// Between two looks at whether the start is over.
const RECOVERED_LOOK: Duration = Duration::from_millis(50);
/// After a pass that left only what does not open: somebody has to look at it.
const STUCK: Duration = Duration::from_secs(600);

/// How far the keys are that are being emptied.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The keys.
    keys: Vec<KeyInfo>,
    /// Records under them when it was counted.
    total: u64,
    /// Of these, records that are under another key now.
    done: u64,
    /// Records that do not open, in the last pass.
    unreadable: u64,
    /// When the pass began, and when it ended.
    began: Option<Instant>,
    ended: Option<Instant>,
    /// Whether nothing is left.
    finished: bool,
}

/// Why a batch was not sealed again; nothing of it is changed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] keys::LogError),
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    #[error("a batch was given up")]
    GivenUp,
}

/// What became of records.
#[derive(Clone, Debug, Default)]
struct Tally {
    done: u64,
    /// Changed by somebody else meanwhile.
    missed: u64,
    unreadable: u64,
    /// The keys that what does not open is under.
    stuck: BTreeSet<u32>,
}

/// What passes came to.
enum Passed {
    /// Other keys are to be emptied now.
    Changed,
    /// No record is left under these keys, when so many had come in late.
    Empty(Vec<u32>, u64),
    /// What does not open is left under some; of the others the supervisor was told.
    Stuck,
}

/// Empties keys for as long as the edge runs.
pub(super) async fn run(app: App) {
    // What the edge before this one had opened is told once, and by the recovery.
    while !app.is_recovered() {
        tokio::time::sleep(RECOVERED_LOOK).await;
    }
    let mut changes = app.keys.subscribe();
    // What was found empty, and how many records had come in late by then.
    let mut found: Option<(Vec<u32>, u64)> = None;
    loop {
        let emptying: Vec<KeyInfo> =
            changes.borrow_and_update().iter().filter(|k| k.emptying).copied().collect();
        let ids: Vec<u32> = emptying.iter().map(|key| key.order.id).collect();
        let wait = if emptying.is_empty() {
            app.keys.progress().settle();
            None
        } else if found == Some((ids.clone(), app.store.watched_seals())) {
            // The supervisor could not note it, or its answer was lost.
            app.keys.say_emptied(ids);
            Some(AGAIN)
        } else {
            match empty(&app, &emptying).await {
                Ok(Passed::Changed) => None,
                Ok(Passed::Empty(ids, late)) => {
                    found = Some((ids, late));
                    Some(AGAIN)
                }
                Ok(Passed::Stuck) => Some(STUCK),
                Err(error) => {
                    tracing::warn!(code = "reseal", reason = %error, "cards could not be sealed again; it goes on in a moment");
                    Some(AGAIN)
                }
            }
        };
        let changed = async {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        match wait {
            None => changed.await,
            Some(wait) => drop(tokio::time::timeout(wait, changed).await),
        }
    }
}

/// Passes until nothing is left but what cannot be sealed again.
async fn empty(app: &App, emptying: &[KeyInfo]) -> Result<Passed, Error> {
    let ids: Vec<u32> = emptying.iter().map(|key| key.order.id).collect();
    // Nothing is on its way now: what a batch before opened and did not tell, it will tell no more.
    account_for_reseals(app).await?;
    let total = keys::count(app, emptying).await?;
    let began = Some(Instant::now());
    *app.keys.progress() = Progress { keys: emptying.to_vec(), total, began, ..Progress::default() };
    loop {
        let late = app.store.watched_seals();
        let tally = pass(app, emptying, &ids).await?;
        if !app.keys.are_emptied(&ids) {
            // Others are to be emptied now, and it begins anew; or none, and what was said of these before holds.
            if !app.keys.all().iter().any(|key| key.emptying) {
                app.keys.progress().settle();
            }
            return Ok(Passed::Changed);
        }
        app.keys.progress().unreadable = tally.unreadable;
        if tally.done + tally.missed == 0 && app.store.watched_seals() == late {
            let (stuck, empty): (Vec<KeyInfo>, Vec<KeyInfo>) =
                emptying.iter().partition(|key| tally.stuck.contains(&key.order.id));
            let empty = note(app, &empty).await?;
            if stuck.is_empty() {
                app.keys.progress().settle();
                tracing::info!(
                    keys = ids.len(),
                    records = total,
                    "nothing is left under the keys that were to be emptied"
                );
                return Ok(Passed::Empty(empty, late));
            }
            tracing::error!(
                code = "reseal",
                records = tally.unreadable,
                "records that do not open stay under a key that is to be emptied"
            );
            return Ok(Passed::Stuck);
        }
    }
}

/// No record is left under these keys: the log says so, and the supervisor is told.
async fn note(app: &App, empty: &[KeyInfo]) -> Result<Vec<u32>, Error> {
    let ids: Vec<u32> = empty.iter().map(|key| key.order.id).collect();
    if !ids.is_empty() {
        // Of an edge that died a batch may have been at work until after this one had asked what was opened.
        account_for_reseals(app).await?;
        keys::note_emptied(app, empty).await?;
        app.keys.say_emptied(ids.clone());
    }
    Ok(ids)
}

/// Goes over all records once.
async fn pass(app: &App, emptying: &[KeyInfo], ids: &[u32]) -> Result<Tally, Error> {
    let (mut tally, mut after, mut batches) = (Tally::default(), None, JoinSet::new());
    let mut fault = None;
    let mut pace = Pace::new(app.limits.reseals_per_second_max);
    loop {
        let page = match app.store.sealed_records(after, PAGE).await {
            Ok(page) => page,
            Err(error) => {
                fault = Some(error.into());
                break;
            }
        };
        after = page.last().map(|record| record.place);
        let ended = page.len() < PAGE || !app.keys.are_emptied(ids);
        let due = page.into_iter().filter(|record| keys::needs(record, emptying));
        for (tenant, batch) in into_batches(due) {
            while batches.len() >= BATCHES_AT_ONCE {
                join(app, &mut batches, &mut tally, &mut fault).await;
            }
            pace.wait(batch.len()).await;
            let app = App::clone(app);
            batches.spawn(async move { reseal(&app, tenant, batch).await });
        }
        if ended || fault.is_some() {
            break;
        }
        tokio::task::yield_now().await;
    }
    // None is cut off: what it opened, it also tells.
    while !batches.is_empty() {
        join(app, &mut batches, &mut tally, &mut fault).await;
    }
    fault.map_or(Ok(tally), Err)
}

/// Records by tenant, in batches that the keeper takes.
fn into_batches(records: impl Iterator<Item = SealedRecord>) -> Vec<(TenantId, Vec<SealedRecord>)> {
    let mut by_tenant: BTreeMap<TenantId, Vec<SealedRecord>> = BTreeMap::new();
    records.for_each(|record| by_tenant.entry(record.tenant).or_default().push(record));
    let batches = by_tenant.into_iter().flat_map(|(tenant, mut records)| {
        let mut batches = Vec::new();
        while records.len() > RESEAL_MAX {
            let rest = records.split_off(RESEAL_MAX);
            batches.push((tenant, std::mem::replace(&mut records, rest)));
        }
        batches.push((tenant, records));
        batches
    });
    batches.collect()
}

async fn join(
    app: &App,
    batches: &mut JoinSet<Result<Tally, Error>>,
    tally: &mut Tally,
    fault: &mut Option<Error>,
) {
    match batches.join_next().await {
        Some(Ok(Ok(done))) => {
            tally.done += done.done;
            tally.missed += done.missed;
            tally.unreadable += done.unreadable;
            tally.stuck.extend(done.stuck);
            app.keys.progress().done += done.done;
        }
        Some(Ok(Err(error))) => *fault = Some(error),
        // It panicked, and has said so.
        Some(Err(_)) => *fault = Some(Error::GivenUp),
        None => {}
    }
}

/// Writes into the log what was opened to be sealed again and is in no event, because its batch failed.
async fn account_for_reseals(app: &App) -> Result<(), Error> {
    let mut openings = app.keeper.openings().await?;
    openings.retain(|opened| opened.purpose == "reseal");
    let ids: Vec<EventId> = openings.iter().map(|opened| opened.event).collect();
    for opened in openings {
        if app.store.event(opened.event).await?.is_none() {
            let events = vec![unused_event(opened)];
            app.store.commit(Change { events, ..Change::default() }).await?;
        }
    }
    if !ids.is_empty() {
        app.keeper.acknowledge(Vec::new(), ids).await?;
    }
    Ok(())
}

/// One batch: sealed again by the keeper, committed with its event. Records that changed meanwhile are left for the next pass, and
/// the event tells of the openings alone.
async fn reseal(app: &App, tenant: TenantId, records: Vec<SealedRecord>) -> Result<Tally, Error> {
    let event = EventId::make(app.clock.now())?;
    let cards = records.iter().map(|record| (record.place.token, record.sealed.clone())).collect();
    let answer = app.keeper.reseal(Reseal { tenant, event, cards }).await?;
    let (mut changed, mut cards, mut tally) = (Vec::new(), Vec::new(), Tally::default());
    let (mut old_keys, mut new_keys) = (Vec::new(), vec![answer.key]);
    for (record, now) in records.into_iter().zip(answer.cards) {
        let Some(now) = now else {
            tally.unreadable += 1;
            let all = app.keys.all();
            let under = all.iter().filter(|key| keys::needs(&record, std::slice::from_ref(key)));
            tally.stuck.extend(under.map(|key| key.order.id));
            continue;
        };
        old_keys.extend(record.sealed.key_ids());
        old_keys.extend(record.fingerprint_key);
        new_keys.extend(now.fingerprint.as_ref().map(|of_it| of_it.key));
        cards.push(CardFacts {
            sha256: data_encoding::HEXLOWER.encode(&now.sealed.digest()),
            token: record.place.token,
            version: record.place.version,
        });
        changed.push(Resealed { record, now: now.sealed, fingerprint: now.fingerprint });
    }
    let count = u64::try_from(changed.len()).unwrap_or(0);
    if changed.is_empty() {
        return Ok(tally);
    }
    let opened = answer.opened;
    let draft = draft(event, tenant, answer.key, between(old_keys, new_keys), cards, opened.clone());
    let change =
        Change { rows: vec![RowChange::Reseal(changed)], events: vec![draft.clone()], idempotency: None };
    match app.store.commit(change).await {
        Ok(_) => tally.done += count,
        Err(CommitError::Conflict) => {
            tally.missed += count;
            if opened.is_some() {
                let facts = Facts { cards: Vec::new(), ..draft.facts };
                let outcome = EventOutcome::Error("conflict".to_owned());
                let alone = EventDraft { facts, outcome, ..draft };
                app.store.commit(Change { events: vec![alone], ..Change::default() }).await?;
            }
        }
        Err(error) => return Err(error.into()),
    }
    if opened.is_some() {
        app.keeper.acknowledge(Vec::new(), vec![event]).await?;
    }
    Ok(tally)
}

/// The keys that cards were under, each once, and then those that they are under.
fn between(mut old: Vec<u32>, mut new: Vec<u32>) -> Vec<u32> {
    new.dedup();
    old.sort_unstable();
    old.dedup();
    old.retain(|key| !new.contains(key));
    old.extend(new);
    old
}

fn draft(
    id: EventId,
    tenant: TenantId,
    key: u32,
    keys: Vec<u32>,
    cards: Vec<CardFacts>,
    opened: Option<keeper::Opened>,
) -> EventDraft {
    EventDraft {
        id,
        tenant: Some(tenant),
        actor: Actor::System("resealer".to_owned()),
        origin: Origin::default(),
        action: catalogue::CARD_RESEAL,
        outcome: EventOutcome::Ok,
        target: Target { kind: "key".to_owned(), id: key.to_string(), version: None },
        keys,
        facts: Facts { cards, opening: opened.map(opening_of), ..Facts::default() },
    }
}

/// Holds a stream of records to so many a second.
struct Pace {
    per_second_max: u32,
    began: Instant,
    passed: u64,
}

impl Pace {
    fn new(per_second_max: u32) -> Self {
        Self { per_second_max: per_second_max.max(1), began: Instant::now(), passed: 0 }
    }

    async fn wait(&mut self, records: usize) {
        let due =
            Duration::from_micros(self.passed.saturating_mul(1_000_000) / u64::from(self.per_second_max));
        self.passed += u64::try_from(records).unwrap_or(0);
        let ahead = due.saturating_sub(self.began.elapsed());
        if ahead > Duration::from_millis(1) {
            tokio::time::sleep(ahead).await;
        }
    }
}

impl Progress {
    /// These keys are to be emptied; if they are not those that are at present, it is not known yet how much there is to do.
    pub(super) fn expect(&mut self, keys: Vec<KeyInfo>) {
        let ids = |keys: &[KeyInfo]| keys.iter().map(|key| key.order.id).collect::<Vec<_>>();
        if ids(&self.keys) != ids(&keys) {
            *self = Self { keys, ..Self::default() };
        }
    }

    /// No key is to be emptied any more: the supervisor has heard that these are empty, or they are destroyed.
    pub(super) fn settle(&mut self) {
        if !self.keys.is_empty() {
            self.finished = true;
            self.ended.get_or_insert_with(Instant::now);
        }
    }

    /// Records that are left under the keys that are being emptied.
    pub(super) const fn left(&self) -> u64 {
        if self.finished { 0 } else { self.total.saturating_sub(self.done) }
    }

    /// A line for the keys that are being emptied, or were emptied last.
    pub(super) fn table(&self) -> AdminAnswer {
        let head = ["keys", "left", "of", "per second", "seconds left", "state"].map(str::to_owned).to_vec();
        let mut lines = vec![head];
        if !self.keys.is_empty() {
            let ids: Vec<String> = self.keys.iter().map(|key| key.order.id.to_string()).collect();
            let now = self.ended.unwrap_or_else(Instant::now);
            let seconds = self.began.map_or(0.0, |began| now.duration_since(began).as_secs_f64());
            let rate = if seconds > 0.0 { (as_f64(self.done) / seconds).round() } else { 0.0 };
            let left = self.left();
            let estimate = if rate > 0.0 { format!("{:.0}", as_f64(left) / rate) } else { String::new() };
            let state = match (self.finished, self.unreadable) {
                (true, _) => "empty".to_owned(),
                (false, 0) => "being emptied".to_owned(),
                (false, unreadable) => format!("{unreadable} records do not open"),
            };
            lines.push(vec![
                ids.join(","),
                left.to_string(),
                self.total.to_string(),
                format!("{rate:.0}"),
                estimate,
                state,
            ]);
        }
        AdminAnswer::Table(lines)
    }
}

/// Counts are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "shown, not reckoned with")]
const fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::tenant::TenantId;
    use crate::clock::Time;
    use crate::wire::keys::{KeyOrder, KeyPurpose, KeyState};

    fn state(progress: &Progress) -> Option<String> {
        let AdminAnswer::Table(rows) = progress.table() else { return None };
        rows.get(1)?.last().cloned()
    }

    #[test]
    fn what_is_to_be_emptied_no_more_is_empty() {
        let tenant = Some(TenantId(1));
        let order = KeyOrder { id: 3, purpose: KeyPurpose::Data, tenant, epoch: 24_000, version: 1 };
        let protects_until = Time::from_micros(0);
        let key = KeyInfo { order, state: KeyState::Retired, protects_until, emptying: true };
        let mut progress = Progress::default();
        progress.settle();
        assert_eq!(state(&progress), None);
        progress.expect(vec![key]);
        assert_eq!(state(&progress).as_deref(), Some("being emptied"));
        progress.settle();
        assert_eq!((state(&progress).as_deref(), progress.left()), (Some("empty"), 0));
        // The next change of keys begins anew.
        progress.expect(vec![KeyInfo { order: KeyOrder { id: 4, ..order }, ..key }]);
        assert_eq!(state(&progress).as_deref(), Some("being emptied"));
    }
}
