//! The verbs on tokens: store, show, change, list and erase a card, and its agreements. They know the keeper and the store,
//! neither HTTP nor SQL; every verb that changes something is one [`Change`](super::store::Change) with its event.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::audit::catalogue;
use super::audit::event::{EventDraft, EventOutcome, Facts, Target};
use super::directory::Caller;
use super::keeper::{Keeper, KeeperError};
use super::store::{CardRow, CardStatus, Change, CommitError, Store, StoreError};
use crate::card::expiry::Expiry;
use crate::card::id::{EventId, FingerprintId, Token};
use crate::card::tenant::TenantId;
use crate::card::truncated::TruncatedPan;
use crate::clock::{Clock, Time};
use crate::random::NoRandomness;
use crate::wire::keeper::{OpenExpiry, RefusalCode};

mod agreements;
mod create;
mod erase;
mod hold;
mod read;
mod update;

pub(in crate::edge) use agreements::NUMBER_FIRST;
pub use agreements::{Consent, NewAgreement, Replayable};
pub use create::Created;
pub use erase::{Erased, Erasure, erase_deadline};
pub use hold::Hold;
pub(in crate::edge) use update::overlay;

/// The destination set of cards that are created over the API; destinations belong to it unless configured otherwise.
const POLICY: u32 = 1;
/// How often a change starts again when another came first; each time the other one did succeed.
const TRIES_MAX: u32 = 8;

/// How a verb ends otherwise than asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The keeper did not do it.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The store did not commit it.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There was no randomness for an id.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// No such token, or another tenant's.
    #[error("there is no such token")]
    TokenUnknown,
    /// The card is gone.
    #[error("the card was erased")]
    TokenErased {
        /// When its bytes were gone from every file.
        scrubbed_at: Option<Time>,
    },
    /// The card is going.
    #[error("the card is being erased")]
    TokenErasing,
    /// The card's erase was asked for and waits for a legal hold: it does not become active again.
    #[error("the card is to be erased once its legal hold is released")]
    HeldForErase,
    /// No such agreement on this card.
    #[error("there is no such agreement")]
    AgreementUnknown,
    /// It was, and is older than the tenant keeps it.
    #[error("it is older than it is kept")]
    Forgotten,
    /// The idempotency key was used for another body.
    #[error("the idempotency key was used for another body")]
    KeyReused,
    /// The log lags, so reads stop.
    #[error("the audit log lags")]
    LogLagging,
}

/// The verbs, over keeper and store.
pub struct Vault {
    store: Arc<dyn Store>,
    keeper: Keeper,
    clock: Arc<dyn Clock>,
}

/// What may be shown of a card.
#[derive(Clone, Debug)]
pub struct Card {
    /// Its token.
    pub token: Token,
    /// First six, last four, brand.
    pub shown: Option<TruncatedPan>,
    /// Its expiry.
    pub expiry: Expiry,
    /// The fingerprint's id.
    pub fingerprint: FingerprintId,
    /// The caller's reference of the customer.
    pub customer: Option<String>,
    /// The caller's own words.
    pub metadata: BTreeMap<String, String>,
    /// Its version.
    pub version: u32,
    /// Where it stands.
    pub status: CardStatus,
    /// Whether a legal hold keeps it.
    pub legal_hold: bool,
    /// When it was stored.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}

impl Card {
    /// The same without taking the row.
    fn shown_of(row: &CardRow, expiry: Expiry) -> Self {
        Self {
            token: row.token,
            shown: row.shown.clone(),
            expiry,
            fingerprint: row.fingerprint,
            customer: row.customer.clone(),
            metadata: row.metadata.clone(),
            version: row.version,
            status: row.status,
            legal_hold: row.legal_hold,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }

    fn of(row: CardRow, expiry: Expiry) -> Self {
        Self {
            token: row.token,
            shown: row.shown,
            expiry,
            fingerprint: row.fingerprint,
            customer: row.customer,
            metadata: row.metadata,
            version: row.version,
            status: row.status,
            legal_hold: row.legal_hold,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

impl Vault {
    /// The verbs over these parts.
    pub fn new(store: Arc<dyn Store>, keeper: Keeper, clock: Arc<dyn Clock>) -> Self {
        Self { store, keeper, clock }
    }

    /// The row of a card that is there and not erased.
    async fn live_row(&self, tenant: TenantId, token: Token) -> Result<CardRow, Error> {
        let row = self.store.card(tenant, token).await?.ok_or(Error::TokenUnknown)?;
        match row.status {
            CardStatus::Active | CardStatus::Suspended | CardStatus::Erasing => Ok(row),
            CardStatus::Erased => Err(Error::TokenErased { scrubbed_at: row.scrubbed_at }),
        }
    }

    /// The same, for a change: a card that is going takes none.
    async fn changeable_row(&self, tenant: TenantId, token: Token) -> Result<CardRow, Error> {
        let row = self.live_row(tenant, token).await?;
        if row.status == CardStatus::Erasing { Err(Error::TokenErasing) } else { Ok(row) }
    }

    /// What may be shown of a row; the keeper opens the expiry. A row that does not open is an event.
    async fn show(&self, caller: &Caller, row: CardRow) -> Result<Card, Error> {
        match self.keeper.open_expiry(expiry_of(&row)?).await {
            Ok(expiry) => Ok(Card::of(row, expiry)),
            Err(error) => Err(self.unopened(caller, &row, error)?),
        }
    }

    /// What the keeper said of a row that it did not open. One that does not open is an event.
    fn unopened(&self, caller: &Caller, row: &CardRow, error: KeeperError) -> Result<Error, Error> {
        if is_unreadable(&error) {
            // Without the row's digest: what may be forged must not become the log's word on the row.
            let mut event = self.event(caller, catalogue::CARD_UNREADABLE, row.token)?;
            event.target.version = Some(row.version);
            event.outcome = EventOutcome::Error("card_unreadable".to_owned());
            // The refusal stands whether or not the log takes it now.
            drop(self.store.append_events(vec![event]));
        }
        Ok(error.into())
    }

    /// An event of this caller about a card.
    fn event(&self, caller: &Caller, action: &'static str, token: Token) -> Result<EventDraft, Error> {
        Ok(EventDraft {
            id: EventId::make(self.clock.now())?,
            tenant: caller.tenant.map(|(id, _)| id),
            actor: caller.actor(),
            origin: caller.origin(),
            action,
            outcome: EventOutcome::Ok,
            target: Target { kind: "card".to_owned(), id: token.to_string(), version: None },
            keys: Vec::new(),
            facts: Facts::default(),
        })
    }

    /// An event that tells a card's row as it is after a change.
    fn row_event(&self, caller: &Caller, action: &'static str, row: &CardRow) -> Result<EventDraft, Error> {
        let mut event = self.event(caller, action, row.token)?;
        event.target.version = Some(row.version);
        if let Some(sealed) = &row.sealed {
            event.keys = sealed.key_ids();
            event.facts.card_sha256 = Some(data_encoding::HEXLOWER.encode(&sealed.digest()));
        }
        Ok(event)
    }

    /// Logs reads: a person's before the answer, an application's within a second.
    async fn log_reads(&self, caller: &Caller, events: Vec<EventDraft>) -> Result<(), Error> {
        if caller.is_person() {
            self.store.commit(Change { events, ..Change::default() }).await?;
            return Ok(());
        }
        self.store.append_events(events).map_err(|_| Error::LogLagging)
    }

    /// The event of one masked read.
    fn read_event(&self, caller: &Caller, token: Token, version: u32) -> Result<EventDraft, Error> {
        let mut event = self.event(caller, catalogue::CARD_READ, token)?;
        event.target.version = Some(version);
        Ok(event)
    }
}

/// Whether the keeper says that an envelope does not open.
fn is_unreadable(error: &KeeperError) -> bool {
    matches!(error, KeeperError::Refused(refusal) if refusal.code == RefusalCode::CardUnreadable)
}

/// The question that opens a row's expiry.
fn expiry_of(row: &CardRow) -> Result<OpenExpiry, Error> {
    let sealed = row.sealed.as_ref().ok_or(StoreError::Corrupt("a live card without sealed fields"))?;
    Ok(OpenExpiry {
        tenant: row.tenant,
        token: row.token,
        policy: sealed.policy,
        sealed: sealed.expiry.clone(),
    })
}
