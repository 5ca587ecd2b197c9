//! What the cases need: a store in a directory of its own, and rows to put into it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use cardvault::card::brand::Brand;
use cardvault::card::fingerprint::Fingerprint;
use cardvault::card::id::{
    AttemptId, ChargeId, EventId, FingerprintId, IdBytes, PrincipalId, RequestId, Token,
};
use cardvault::card::sealed::{SealedCard, SealedField};
use cardvault::card::tenant::TenantId;
use cardvault::card::truncated::TruncatedPan;
use cardvault::clock::{Clock, ManualClock, Time};
use cardvault::edge::audit::event::{Actor, EventDraft, EventOutcome, Facts, Origin, Target};
use cardvault::edge::store::sqlite::{SqliteOptions, SqliteStore};
use cardvault::edge::store::{
    Attempt, AttemptState, CardRow, CardStatus, Change, ChargeRow, ChargeStatus, Idempotency, OnDuplicate,
    Operation, OperationKind, Outbound, RowChange, Store, StoredAnswer,
};
use cardvault::random::make_bytes;

pub(crate) const NOW: Time = Time::from_micros(1_795_000_000_000_000);
pub(crate) const ONE: TenantId = TenantId(1);
pub(crate) const TWO: TenantId = TenantId(2);

pub(crate) type Open = fn(&Path, Arc<dyn Clock>) -> Arc<dyn Store>;

pub(crate) fn open_sqlite(directory: &Path, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
    let directory = directory.to_owned();
    let options = SqliteOptions { directory, node: "n1".into(), clock, pages_max: None };
    Arc::new(SqliteStore::open(options).unwrap())
}

/// A store in a directory of its own.
pub(crate) struct Harness {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) clock: ManualClock,
    open: Open,
}

impl Harness {
    pub(crate) fn new(open: Open) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), clock: ManualClock::at(NOW), open }
    }

    /// Opens it; the one before must have been dropped.
    pub(crate) fn open(&self) -> Arc<dyn Store> {
        (self.open)(self.directory.path(), Arc::new(self.clock.clone()))
    }
}

pub(crate) fn make_sealed() -> SealedCard {
    let field = |length: usize| {
        let mut envelope = vec![1, 0, 0, 0, 1];
        while envelope.len() < length {
            envelope.extend(make_bytes::<16>().unwrap());
        }
        envelope.truncate(length);
        SealedField { version: 1, envelope }
    };
    SealedCard { policy: 0, pan: field(53), expiry: field(37), zip: Some(field(49)) }
}

pub(crate) fn make_card(tenant: TenantId, customer: Option<&str>) -> CardRow {
    CardRow {
        token: Token::make(NOW).unwrap(),
        tenant,
        customer: customer.map(str::to_owned),
        metadata: BTreeMap::from([("plan".to_owned(), "gold".to_owned())]),
        shown: Some(TruncatedPan {
            first6: Some("424242".into()),
            last4: "4242".into(),
            brand: Brand::Visa,
            funding: None,
            country: None,
        }),
        fingerprint: FingerprintId::make(NOW).unwrap(),
        sealed: Some(make_sealed()),
        version: 1,
        status: CardStatus::Active,
        legal_hold: false,
        erase_asked: false,
        number_by_updater: false,
        created_at: NOW,
        updated_at: NOW,
        erased_at: None,
        scrubbed_at: None,
    }
}

/// The key that numbers are hashed under here; sealed fields are under key 1.
const FINGERPRINT_KEY: u32 = 900;

/// The change that stores this card under this fingerprint.
pub(crate) fn insert(card: &CardRow, fingerprint: [u8; 32], on_duplicate: OnDuplicate) -> Change {
    let fingerprint = Fingerprint::under(FINGERPRINT_KEY, fingerprint);
    Change {
        rows: vec![RowChange::InsertCard { card: Box::new(card.clone()), fingerprint, on_duplicate }],
        events: vec![event(Some(card.tenant), "card.create")],
        idempotency: None,
    }
}

/// The change that makes this card the next version.
pub(crate) fn update(card: &CardRow, fingerprint: Option<[u8; 32]>) -> Change {
    let fingerprint = fingerprint.map(|hash| Fingerprint::under(FINGERPRINT_KEY, hash));
    change(RowChange::UpdateCard { card: Box::new(card.clone()), fingerprint })
}

pub(crate) fn change(row: RowChange) -> Change {
    Change { rows: vec![row], events: vec![event(None, "test.change")], idempotency: None }
}

pub(crate) fn erase(card: &CardRow) -> Change {
    change(RowChange::EraseCard { tenant: card.tenant, token: card.token, held_seen: card.legal_hold })
}

pub(crate) fn put(charge: &ChargeRow) -> Change {
    change(RowChange::PutCharge(Box::new(charge.clone())))
}

pub(crate) fn event(tenant: Option<TenantId>, action: &'static str) -> EventDraft {
    EventDraft {
        id: EventId::make(NOW).unwrap(),
        tenant,
        actor: Actor::Application("prn_test".into()),
        origin: Origin { ip: Some("127.0.0.1".into()), request: Some(RequestId::make(NOW).unwrap()) },
        action,
        outcome: EventOutcome::Ok,
        target: Target { kind: "card".into(), id: "tok_test".into(), version: Some(1) },
        keys: vec![1],
        facts: Facts::default(),
    }
}

pub(crate) fn claim(key: u8, body: u8, subject: Option<Token>, answer: StoredAnswer) -> Idempotency {
    Idempotency {
        tenant: ONE,
        route: "POST /v1/tokens",
        key: [key; 32],
        body_mac: [body; 32],
        subject_token: subject,
        answer,
    }
}

/// Stores a card under a fingerprint and gives it as it is kept.
pub(crate) async fn stored(store: &dyn Store, card: CardRow, fingerprint: [u8; 32]) -> CardRow {
    store.commit(insert(&card, fingerprint, OnDuplicate::New)).await.unwrap();
    store.card(card.tenant, card.token).await.unwrap().unwrap()
}

pub(crate) fn make_charge(card: &CardRow, invoice: &str, status: ChargeStatus) -> ChargeRow {
    let state = state_of(status);
    ChargeRow {
        id: ChargeId::make(NOW).unwrap(),
        tenant: card.tenant,
        revision: 1,
        token: card.token,
        card_version: card.version,
        customer: card.customer.clone(),
        destination: "sandbox".into(),
        amount: 1_000,
        currency: "EUR".into(),
        invoice: invoice.into(),
        period: String::new(),
        initiator: "merchant".into(),
        principal: Some(PrincipalId::make(NOW).unwrap()),
        run: None,
        agreement: None,
        capture: true,
        allow_partial: false,
        description: None,
        metadata: BTreeMap::new(),
        status,
        code: None,
        amount_offered: None,
        statement_descriptor: None,
        amount_authorized: 0,
        amount_captured: 0,
        amount_refunded: 0,
        created_at: NOW,
        updated_at: NOW,
        expires_at: None,
        refund_needs_card: false,
        operations: vec![Operation {
            id: format!("op_{}", IdBytes::make(NOW).unwrap().encode()),
            kind: OperationKind::Sale,
            amount: 1_000,
            last: false,
            undoes: false,
            status,
            created_at: NOW,
            attempts: vec![Attempt {
                id: AttemptId::make(NOW).unwrap(),
                state,
                outbound: Outbound::MaybeSent,
                connector_version: "00".into(),
                mac: "00".into(),
                once_only: false,
                started_at: NOW,
                finished_at: None,
                tries: 1,
                processor_code: None,
                decline_class: None,
                message: None,
                transaction_id: None,
                network_transaction_id: None,
                avs: None,
                error: None,
                upstream_us: None,
                rule: None,
                destination: None,
                resent_at: None,
            }],
        }],
        disputes: Vec::new(),
        plan: None,
    }
}

/// Where the last attempt of a charge with this status stands.
fn state_of(status: ChargeStatus) -> AttemptState {
    match status {
        ChargeStatus::Processing => AttemptState::Sending,
        ChargeStatus::Pending => AttemptState::Pending,
        ChargeStatus::Unknown => AttemptState::Unknown,
        ChargeStatus::Declined => AttemptState::Declined,
        ChargeStatus::Failed => AttemptState::Failed,
        ChargeStatus::Manual => AttemptState::Manual,
        ChargeStatus::Authorized | ChargeStatus::Approved | ChargeStatus::Voided => AttemptState::Approved,
    }
}

/// The charge as its next revision with this status.
pub(crate) fn moved(charge: &ChargeRow, status: ChargeStatus) -> ChargeRow {
    let mut next = charge.clone();
    next.revision += 1;
    next.status = status;
    for operation in &mut next.operations {
        operation.status = status;
        for attempt in &mut operation.attempts {
            attempt.state = state_of(status);
        }
    }
    next
}
