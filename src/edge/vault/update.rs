//! Changing a card in place: expiry, zip, number, customer, metadata, status. The PAN is never opened for it: what is new is sealed,
//! what is not stays as it lies.

use super::create::versions_of;
use super::{Card, Error, TRIES_MAX, Vault};
use crate::card::id::{FingerprintId, Token};
use crate::edge::audit::catalogue;
use crate::edge::audit::event::EventDraft;
use crate::edge::directory::Caller;
use crate::edge::keeper::KeeperError;
use crate::edge::store::{AgreementRow, CardRow, CardStatus, Change, CommitError, RowChange, StoreError};
use crate::wire::keeper::{Seal, SealAs, Sealed};

const ROUTE: &str = "PATCH /v1/tokens/{token}";

impl Vault {
    /// Changes a card; the body goes to the keeper unopened.
    pub async fn update(&self, caller: &Caller, token: Token, body: &[u8]) -> Result<Card, Error> {
        let tenant = caller.tenant_id();
        for _ in 0..TRIES_MAX {
            let row = self.changeable_row(tenant, token).await?;
            let policy = row.sealed.as_ref().map(|sealed| sealed.policy);
            let policy = policy.ok_or(StoreError::Corrupt("a live card without sealed fields"))?;
            let seal = Seal {
                seal_as: SealAs::Patch,
                tenant,
                token,
                policy,
                versions: versions_of(&row),
                route: ROUTE.to_owned(),
                idempotency_key: None,
                allow_expired: false,
                body: body.to_vec(),
            };
            let patch = *self.keeper.seal(Box::new(seal)).await?;
            match self.apply(caller, row, patch).await {
                Err(Error::Commit(CommitError::Conflict | CommitError::FingerprintStale)) => {}
                Err(Error::Commit(CommitError::NotFound)) => return Err(Error::TokenUnknown),
                settled => return settled,
            }
        }
        Err(CommitError::Conflict.into())
    }

    async fn apply(&self, caller: &Caller, mut row: CardRow, mut patch: Sealed) -> Result<Card, Error> {
        let (shown_expiry, fingerprint) = (patch.shown_expiry, patch.fingerprint.take());
        let pseudonym = patch.customer_pseudonym.clone();
        let status_before = row.status;
        let renumbered = patch.pan.is_some();
        let number_before = row.sealed.as_ref().map_or(0, |sealed| sealed.pan.version);
        let fields = overlay(&mut row, patch)?;
        let restated = row.status != status_before;
        if restated && row.erase_asked {
            return Err(Error::HeldForErase);
        }
        if fields.is_empty() && !restated {
            let event = self.read_event(caller, row.token, row.version)?;
            let card = self.show(caller, row).await?;
            self.log_reads(caller, vec![event]).await?;
            return Ok(card);
        }
        let mut change = Change::default();
        row.updated_at = self.clock.now();
        if !fields.is_empty() {
            row.version += 1;
            if renumbered {
                row.fingerprint = FingerprintId::make(row.updated_at)?;
                row.number_by_updater = false;
            }
            let mut event = self.row_event(caller, catalogue::CARD_UPDATE, &row)?;
            event.facts.fields = fields.iter().map(|field| (*field).to_owned()).collect();
            event.facts.customer = pseudonym;
            change.events.push(event);
            change.rows.push(RowChange::UpdateCard { card: Box::new(row.clone()), fingerprint });
        }
        if restated {
            let (tenant, token, status) = (row.tenant, row.token, row.status);
            change.rows.push(RowChange::SetCardStatus { tenant, token, status });
            change.events.push(self.status_event(caller, &row)?);
        }
        if renumbered {
            let agreements =
                self.end_agreements(caller, row.token, AgreementRow::NUMBER_CHANGED, &mut change).await?;
            // One that is made in this moment would be live with a number that its customer has not paid with.
            let (tenant, token) = (row.tenant, row.token);
            let seen = RowChange::SeenAgreements { tenant, token, number: number_before, agreements };
            change.rows.insert(0, seen);
        }
        let committed = self.store.commit(change).await?;
        row.fingerprint = committed.fingerprint.unwrap_or(row.fingerprint);
        match shown_expiry {
            Some(expiry) => Ok(Card::of(row, expiry)),
            None => self.show(caller, row).await,
        }
    }

    fn status_event(&self, caller: &Caller, row: &CardRow) -> Result<EventDraft, Error> {
        let action = match row.status {
            CardStatus::Active => catalogue::CARD_ACTIVATE,
            CardStatus::Suspended | CardStatus::Erasing | CardStatus::Erased => catalogue::CARD_SUSPEND,
        };
        self.row_event(caller, action, row)
    }
}

/// Puts what is new over the row and says which fields, in our words; the status is not among them.
pub(in crate::edge) fn overlay(row: &mut CardRow, patch: Sealed) -> Result<Vec<&'static str>, Error> {
    let mut fields = Vec::new();
    let sealed = row.sealed.as_mut().ok_or(StoreError::Corrupt("a live card without sealed fields"))?;
    if let Some(pan) = patch.pan {
        sealed.pan = pan;
        row.shown = Some(patch.shown.ok_or(KeeperError::Confused)?);
        fields.push("number");
    }
    if let Some(expiry) = patch.expiry {
        sealed.expiry = expiry;
        fields.push("expiry");
    }
    if let Some(zip) = patch.zip {
        sealed.zip = Some(zip);
        fields.push("zip");
    }
    if patch.customer.is_some() && patch.customer != row.customer {
        row.customer = patch.customer;
        fields.push("customer");
    }
    if let Some(metadata) = patch.metadata.filter(|metadata| *metadata != row.metadata) {
        row.metadata = metadata;
        fields.push("metadata");
    }
    match patch.status.as_deref() {
        None => {}
        Some("active") => row.status = CardStatus::Active,
        Some("suspended") => row.status = CardStatus::Suspended,
        Some(_) => return Err(KeeperError::Confused.into()),
    }
    Ok(fields)
}
