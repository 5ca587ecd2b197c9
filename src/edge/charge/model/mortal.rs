//! A store whose callers die: at a durable step that a case names, just before it or just after, the task that commits ends, and so
//! does every later one that commits for this case.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::card::id::{ChargeId, EndpointId, EventId, FingerprintId, ForwardId, NoticeId, RunId, Token};
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::edge::audit::event::EventDraft;
use crate::edge::charge::machine;
use crate::edge::store::{
    AgreementRow, AttemptState, CardRow, Change, ChargeFilter, ChargeRow, ChargeStatus, CommitError,
    Committed, DeclineRow, Delivery, DeliveryState, Due, DueRetry, EndpointRow, ErasedKey, Erasure,
    ForwardRow, IdlePage, Installation, KeyWatch, LegalHold, NoticeRow, Operation, OperationKind,
    OutlivedPage, OutlivedPlace, Page, PrincipalRow, RecordPlace, Reply, RowChange, RunLineRow, RunRow,
    SealedRecord, Store, StoreError, StoreHealth, StoredEvent, StoredIdempotency, TenantRow,
};

/// When a process dies: at which durable step of a case, and whether that step is still done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Death {
    pub(super) step: usize,
    pub(super) is_after: bool,
}

/// A change of an attempt's state, as it was committed; none is the first state.
pub(super) type Transition = (OperationKind, Option<AttemptState>, AttemptState);

/// What was committed, and what is to die where.
#[derive(Default)]
pub(super) struct Fates {
    /// Where the case of a card dies in this life.
    pub(super) deaths: BTreeMap<Token, Death>,
    /// How many durable steps a case has made in this life.
    pub(super) steps: BTreeMap<Token, usize>,
    pub(super) dead: BTreeSet<Token>,
    /// Every charge as it was committed last.
    pub(super) charges: BTreeMap<ChargeId, ChargeRow>,
    pub(super) transitions: BTreeSet<String>,
    pub(super) statuses: BTreeSet<&'static str>,
    /// Changes of charges that the store does not take, from now on.
    pub(super) refusals: usize,
    /// Rules that were broken.
    pub(super) faults: Vec<String>,
}

impl Fates {
    /// The next life: nobody is dead, and nothing counted.
    pub(super) fn begin(&mut self, deaths: BTreeMap<Token, Death>) {
        self.deaths = deaths;
        self.steps.clear();
        self.dead.clear();
    }

    /// Notes a charge that is in the database now, and holds it against the one before.
    fn note(&mut self, row: &ChargeRow) {
        self.statuses.insert(super::super::answer::status_word(row.status));
        let before = self.charges.insert(row.id, row.clone());
        let old: BTreeMap<_, _> = before
            .iter()
            .flat_map(|row| &row.operations)
            .flat_map(|operation| &operation.attempts)
            .map(|attempt| (attempt.id, attempt.state))
            .collect();
        for operation in &row.operations {
            for attempt in &operation.attempts {
                let from = old.get(&attempt.id).copied();
                if from == Some(attempt.state) {
                    continue;
                }
                if from.is_some_and(machine::is_settled) {
                    self.faults.push(format!("{:?} left {from:?}: {row:?}", operation.kind));
                }
                self.transitions.insert(transition((operation.kind, from, attempt.state)));
            }
        }
        let sums = 0 <= row.amount_refunded
            && row.amount_refunded <= row.amount_captured
            && row.amount_captured <= row.amount_authorized
            && row.amount_authorized <= row.amount.max(super::HOLD);
        if !sums {
            self.faults.push(format!("sums: {row:?}"));
        }
        let is_undo = |o: &&Operation| o.undoes || o.kind == OperationKind::Void;
        let undo = row.operations.iter().rfind(is_undo).map(|undo| undo.status);
        if undo == Some(ChargeStatus::Approved) && row.amount_captured != 0 {
            self.faults.push(format!("undone and paid: {row:?}"));
        }
        let freed =
            |status| matches!(status, ChargeStatus::Declined | ChargeStatus::Failed | ChargeStatus::Voided);
        if before.is_some_and(|before| freed(before.status) && before.status != row.status) {
            self.faults.push(format!("a charge that had moved nothing came back: {row:?}"));
        }
    }
}

/// The word for a transition.
pub(super) fn transition((kind, from, to): Transition) -> String {
    format!("{kind:?}: {} -> {to:?}", from.map_or("none".to_owned(), |from| format!("{from:?}")))
}

/// The store.
pub(super) struct Mortal {
    pub(super) inner: Arc<dyn Store>,
    pub(super) fates: Arc<Mutex<Fates>>,
}

/// Ends the task at once, without a word.
fn die() -> ! {
    std::panic::resume_unwind(Box::new("died"))
}

impl Store for Mortal {
    fn commit(&self, change: Change) -> Reply<'_, Result<Committed, CommitError>> {
        let charge = change.rows.iter().find_map(|row| {
            let RowChange::PutCharge(row) = row else { return None };
            Some((**row).clone())
        });
        let Some(charge) = charge else { return self.inner.commit(change) };
        Box::pin(async move {
            let death = {
                let mut fates = self.fates.lock().unwrap();
                if fates.refusals > 0 {
                    fates.refusals -= 1;
                    return Err(CommitError::Unavailable("io"));
                }
                let is_dead = fates.dead.contains(&charge.token);
                let step = fates.steps.entry(charge.token).or_default();
                let here = *step;
                *step += 1;
                let death = fates.deaths.get(&charge.token).copied().filter(|death| death.step == here);
                if is_dead || death.is_some_and(|death| !death.is_after) {
                    fates.dead.insert(charge.token);
                    drop(fates);
                    die();
                }
                death
            };
            let committed = self.inner.commit(change).await;
            let mut fates = self.fates.lock().unwrap();
            if committed.is_ok() {
                fates.note(&charge);
            }
            if death.is_some() {
                fates.dead.insert(charge.token);
                drop(fates);
                die();
            }
            committed
        })
    }

    fn append_events(&self, events: Vec<EventDraft>) -> Result<(), CommitError> {
        self.inner.append_events(events)
    }

    fn card(&self, tenant: TenantId, token: Token) -> Reply<'_, Result<Option<CardRow>, StoreError>> {
        self.inner.card(tenant, token)
    }

    fn card_version(
        &self,
        tenant: TenantId,
        token: Token,
        version: u32,
    ) -> Reply<'_, Result<Option<CardRow>, StoreError>> {
        self.inner.card_version(tenant, token, version)
    }

    fn cards_of_customer<'a>(
        &'a self,
        tenant: TenantId,
        customer: &'a str,
        after: Option<Token>,
        limit: usize,
    ) -> Reply<'a, Result<Page<CardRow>, StoreError>> {
        self.inner.cards_of_customer(tenant, customer, after, limit)
    }

    fn idempotency<'a>(
        &'a self,
        tenant: TenantId,
        route: &'static str,
        key: &'a [u8; 32],
    ) -> Reply<'a, Result<Option<StoredIdempotency>, StoreError>> {
        self.inner.idempotency(tenant, route, key)
    }

    fn charge<'a>(
        &'a self,
        tenant: TenantId,
        id: &'a str,
    ) -> Reply<'a, Result<Option<ChargeRow>, StoreError>> {
        self.inner.charge(tenant, id)
    }

    fn charges<'a>(
        &'a self,
        tenant: TenantId,
        filter: &'a ChargeFilter,
        after: Option<ChargeId>,
        limit: usize,
    ) -> Reply<'a, Result<Page<ChargeRow>, StoreError>> {
        self.inner.charges(tenant, filter, after, limit)
    }

    fn open_charges(
        &self,
        after: Option<ChargeId>,
        limit: usize,
    ) -> Reply<'_, Result<Vec<ChargeRow>, StoreError>> {
        // Who is dead takes up nothing: his charge is there again in the next life.
        Box::pin(async move {
            let (mut open, mut after) = (Vec::new(), after);
            while open.len() < limit {
                let page = self.inner.open_charges(after, limit).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.id);
                let fates = self.fates.lock().unwrap();
                open.extend(page.into_iter().filter(|row| !fates.dead.contains(&row.token)));
            }
            open.truncate(limit);
            Ok(open)
        })
    }

    fn retries(&self, limit: usize) -> Reply<'_, Result<Vec<DueRetry>, StoreError>> {
        self.inner.retries(limit)
    }

    fn retries_of(&self, token: Token) -> Reply<'_, Result<Vec<ChargeId>, StoreError>> {
        self.inner.retries_of(token)
    }

    fn declines<'a>(
        &'a self,
        fingerprint: FingerprintId,
        destination: &'a str,
        by_merchant: bool,
    ) -> Reply<'a, Result<Vec<DeclineRow>, StoreError>> {
        self.inner.declines(fingerprint, destination, by_merchant)
    }

    fn forward(&self, tenant: TenantId, id: ForwardId) -> Reply<'_, Result<Option<ForwardRow>, StoreError>> {
        self.inner.forward(tenant, id)
    }

    fn open_forwards(&self, limit: usize) -> Reply<'_, Result<Vec<ForwardRow>, StoreError>> {
        self.inner.open_forwards(limit)
    }

    fn invoice_run(&self, tenant: TenantId, id: RunId) -> Reply<'_, Result<Option<RunRow>, StoreError>> {
        self.inner.invoice_run(tenant, id)
    }

    fn invoice_runs(
        &self,
        tenant: TenantId,
        after: Option<RunId>,
        limit: usize,
    ) -> Reply<'_, Result<Page<RunRow>, StoreError>> {
        self.inner.invoice_runs(tenant, after, limit)
    }

    fn invoice_runs_at_work(&self) -> Reply<'_, Result<Vec<RunRow>, StoreError>> {
        self.inner.invoice_runs_at_work()
    }

    fn run_lines(
        &self,
        tenant: TenantId,
        id: RunId,
        from: u32,
        limit: usize,
    ) -> Reply<'_, Result<Vec<RunLineRow>, StoreError>> {
        self.inner.run_lines(tenant, id, from, limit)
    }

    fn agreements(&self, tenant: TenantId, token: Token) -> Reply<'_, Result<Vec<AgreementRow>, StoreError>> {
        self.inner.agreements(tenant, token)
    }

    fn principals(&self) -> Reply<'_, Result<Vec<PrincipalRow>, StoreError>> {
        self.inner.principals()
    }

    fn tenants(&self) -> Reply<'_, Result<Vec<TenantRow>, StoreError>> {
        self.inner.tenants()
    }

    fn installation(&self) -> Reply<'_, Result<Option<Installation>, StoreError>> {
        self.inner.installation()
    }

    fn key_generation(&self) -> Reply<'_, Result<Option<u64>, StoreError>> {
        self.inner.key_generation()
    }

    fn events(
        &self,
        tenant: Option<TenantId>,
        from: u64,
        limit: usize,
    ) -> Reply<'_, Result<Vec<StoredEvent>, StoreError>> {
        self.inner.events(tenant, from, limit)
    }

    fn event(&self, id: EventId) -> Reply<'_, Result<Option<StoredEvent>, StoreError>> {
        self.inner.event(id)
    }

    fn tree_head(&self) -> Reply<'_, Result<(u64, [u8; 32]), StoreError>> {
        self.inner.tree_head()
    }

    fn inclusion_proof(&self, seq: u64, size: u64) -> Reply<'_, Result<Vec<[u8; 32]>, StoreError>> {
        self.inner.inclusion_proof(seq, size)
    }

    fn consistency_proof(&self, old: u64, new: u64) -> Reply<'_, Result<Vec<[u8; 32]>, StoreError>> {
        self.inner.consistency_proof(old, new)
    }

    fn put_checkpoint(&self, size: u64, note: String) -> Reply<'_, Result<(), CommitError>> {
        self.inner.put_checkpoint(size, note)
    }

    fn checkpoint(&self) -> Reply<'_, Result<Option<String>, StoreError>> {
        self.inner.checkpoint()
    }

    fn cards_after(&self, after: Option<Token>, limit: usize) -> Reply<'_, Result<Vec<CardRow>, StoreError>> {
        self.inner.cards_after(after, limit)
    }

    fn sealed_records(
        &self,
        after: Option<RecordPlace>,
        limit: usize,
    ) -> Reply<'_, Result<Vec<SealedRecord>, StoreError>> {
        self.inner.sealed_records(after, limit)
    }

    fn legal_holds(&self, token: Token) -> Reply<'_, Result<Vec<LegalHold>, StoreError>> {
        self.inner.legal_holds(token)
    }

    fn idle_cards<'a>(
        &'a self,
        before: &'a BTreeMap<TenantId, Time>,
        after: Option<Token>,
        limit: usize,
    ) -> Reply<'a, Result<IdlePage, StoreError>> {
        self.inner.idle_cards(before, after, limit)
    }

    fn outlived<'a>(
        &'a self,
        before: &'a BTreeMap<TenantId, Time>,
        after: OutlivedPlace,
        limit: usize,
    ) -> Reply<'a, Result<OutlivedPage, StoreError>> {
        self.inner.outlived(before, after, limit)
    }

    fn erased_keys(&self) -> Reply<'_, Result<Vec<ErasedKey>, StoreError>> {
        self.inner.erased_keys()
    }

    fn erasure(&self, token: Token) -> Reply<'_, Result<Option<Erasure>, StoreError>> {
        self.inner.erasure(token)
    }

    fn watch_keys(&self, watch: KeyWatch) {
        self.inner.watch_keys(watch);
    }

    fn watched_seals(&self) -> u64 {
        self.inner.watched_seals()
    }

    fn webhook_endpoints(&self) -> Reply<'_, Result<Vec<EndpointRow>, StoreError>> {
        self.inner.webhook_endpoints()
    }

    fn webhook_endpoint(
        &self,
        tenant: TenantId,
        id: EndpointId,
    ) -> Reply<'_, Result<Option<EndpointRow>, StoreError>> {
        self.inner.webhook_endpoint(tenant, id)
    }

    fn webhooks_due(
        &self,
        of: (TenantId, EndpointId),
        now: Time,
        limit: usize,
    ) -> Reply<'_, Result<Vec<Due>, StoreError>> {
        self.inner.webhooks_due(of, now, limit)
    }

    fn webhooks_waiting(&self, of: (TenantId, EndpointId), max: usize) -> Reply<'_, Result<u64, StoreError>> {
        self.inner.webhooks_waiting(of, max)
    }

    fn webhook_deliveries(
        &self,
        of: (TenantId, EndpointId),
        state: Option<DeliveryState>,
        after: Option<NoticeId>,
        limit: usize,
    ) -> Reply<'_, Result<Page<Delivery>, StoreError>> {
        self.inner.webhook_deliveries(of, state, after, limit)
    }

    fn webhook_notice(
        &self,
        tenant: TenantId,
        id: NoticeId,
    ) -> Reply<'_, Result<Option<NoticeRow>, StoreError>> {
        self.inner.webhook_notice(tenant, id)
    }

    fn webhook_notices_since(
        &self,
        of: (TenantId, EndpointId),
        since: (Time, bool),
        after: Option<NoticeId>,
        limit: usize,
    ) -> Reply<'_, Result<Vec<NoticeRow>, StoreError>> {
        self.inner.webhook_notices_since(of, since, after, limit)
    }

    fn webhooks_told(&self) -> &Notify {
        self.inner.webhooks_told()
    }

    fn health(&self) -> StoreHealth {
        self.inner.health()
    }
}
