//! Charges: one row each, and the entries that lead to it. What changes is the difference of the entries before and after.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};

use super::super::codec::ReadError;
use super::super::keys::{self, Key};
use super::{Applying, Refusal, to_json};
use crate::card::id::ChargeId;
use crate::card::tenant::TenantId;
use crate::edge::store::webhooks::Notice;
use crate::edge::store::{AttemptState, CardStatus, ChargeRow, ChargeStatus, CommitError};

impl Applying<'_> {
    pub(super) fn put_charge(&mut self, charge: &ChargeRow) -> Result<(), Refusal> {
        // A new one is not looked for: if its id were taken, the insert would say so.
        let before = match charge.revision {
            1 => None,
            _ => load_charge(self.conn, charge.tenant, charge.id)?,
        };
        let revision = before.as_ref().map_or(0, |row| row.revision);
        if charge.revision != revision.saturating_add(1) {
            return Err(CommitError::Conflict.into());
        }
        if pins(charge) && before.as_ref().is_none_or(|before| begins_again(before, charge)) {
            self.check_chargeable(charge)?;
        }
        // Only the insert of a line's charge names the line: its later revisions find it marked.
        let line = match (&before, charge.run) {
            (None, Some(of)) => Some(self.mark_line(charge, of)?),
            (Some(_), _) | (None, None) => None,
        };
        let old = before.as_ref().map(entries).unwrap_or_default();
        let new = entries(charge);
        let invoice = keys::invoice(charge.tenant, &charge.invoice, &charge.period);
        if new.contains_key(&invoice) && !old.contains_key(&invoice) {
            self.check_invoice_free(&invoice, charge.id, line)?;
        }
        let put = match &before {
            None => include_str!("../sql/charge_insert.sql"),
            Some(_) => include_str!("../sql/charge_update.sql"),
        };
        self.conn.prepare_cached(put)?.execute((
            charge.tenant.0,
            charge.id.bytes(),
            charge.created_at.micros,
            status_word(charge.status),
            &charge.destination,
            to_json(charge)?,
        ))?;
        for key in old.keys().filter(|key| !new.contains_key(*key)) {
            self.index.delete(key);
        }
        for (key, value) in new.iter().filter(|(key, value)| old.get(*key) != Some(*value)) {
            self.index.put(key, value);
        }
        if works(charge.status) && before.as_ref().is_none_or(|before| before.status != charge.status) {
            self.note_use(charge.token);
        }
        if self.is_heard(charge.tenant) {
            for notice in Notice::of_charge(before.as_ref(), charge) {
                self.tell(charge.tenant, &notice)?;
            }
        }
        let pin = |row: &ChargeRow| keys::pin(row.token, row.card_version, row.id);
        if let Some(before) = before.filter(|row| old.contains_key(&pin(row)) && !new.contains_key(&pin(row)))
        {
            self.unpinned(before.token, before.card_version)?;
        }
        Ok(())
    }

    /// The writer has the last word on whether a card may still be used: it may have been suspended a moment ago.
    fn check_chargeable(&mut self, charge: &ChargeRow) -> Result<(), Refusal> {
        let card = self.card_of(charge.tenant, charge.token)?;
        match card.row.status {
            CardStatus::Erasing | CardStatus::Erased => Err(CommitError::NotFound.into()),
            CardStatus::Suspended => Err(CommitError::Conflict.into()),
            CardStatus::Active if card.row.version != charge.card_version => {
                Err(CommitError::Conflict.into())
            }
            CardStatus::Active => {
                self.charged = Some(charge.token);
                Ok(())
            }
        }
    }

    /// An invoice is free, or claimed by the line that this charge pays.
    fn check_invoice_free(&self, key: &Key, charge: ChargeId, line: Option<i64>) -> Result<(), Refusal> {
        let Some(holder) = self.index.get(self.conn, key)? else { return Ok(()) };
        match ChargeId::from_slice(&holder) {
            // It is there already, and no new one.
            Some(holder) if holder == charge => Err(CommitError::Conflict.into()),
            Some(charge) => Err(CommitError::InvoiceTaken { charge }.into()),
            None if line.is_some_and(|line| holder == line.to_be_bytes()) => Ok(()),
            None => Err(CommitError::InvoiceInRun { run: self.run_of_line(&holder)? }.into()),
        }
    }
}

/// Reads a charge of this tenant.
pub(in crate::edge::store::sqlite) fn load_charge(
    conn: &Connection,
    tenant: TenantId,
    id: ChargeId,
) -> Result<Option<ChargeRow>, ReadError> {
    let doc: Option<String> = conn
        .prepare_cached(include_str!("../sql/charge_get.sql"))?
        .query_row((tenant.0, id.bytes()), |row| row.get(0))
        .optional()?;
    doc.map(|doc| read_charge(&doc)).transpose()
}

/// Reads a charge's document.
pub(in crate::edge::store::sqlite) fn read_charge(doc: &str) -> Result<ChargeRow, ReadError> {
    serde_json::from_str(doc).map_err(|_| ReadError::Corrupt("charge"))
}

/// The word for a status in the `status` column.
pub(in crate::edge::store::sqlite) const fn status_word(status: ChargeStatus) -> &'static str {
    match status {
        ChargeStatus::Processing => "processing",
        ChargeStatus::Pending => "pending",
        ChargeStatus::Authorized => "authorized",
        ChargeStatus::Approved => "approved",
        ChargeStatus::Declined => "declined",
        ChargeStatus::Failed => "failed",
        ChargeStatus::Unknown => "unknown",
        ChargeStatus::Voided => "voided",
        ChargeStatus::Manual => "manual",
    }
}

/// Reads the word of the `status` column.
pub(in crate::edge::store::sqlite) fn status_of_word(word: &str) -> Option<ChargeStatus> {
    [
        ChargeStatus::Processing,
        ChargeStatus::Pending,
        ChargeStatus::Authorized,
        ChargeStatus::Approved,
        ChargeStatus::Declined,
        ChargeStatus::Failed,
        ChargeStatus::Unknown,
        ChargeStatus::Voided,
        ChargeStatus::Manual,
    ]
    .into_iter()
    .find(|status| status_word(*status) == word)
}

/// The index entries of a charge as it stands.
pub(super) fn entries(charge: &ChargeRow) -> BTreeMap<Key, Vec<u8>> {
    let (tenant, id) = (charge.tenant, charge.id);
    let mut out = BTreeMap::new();
    let mut lead = |key: Key| out.insert(key, Vec::new());
    if !charge.invoice.is_empty() {
        lead(keys::with_charge(keys::charges_of_invoice(tenant, &charge.invoice), id));
    }
    if let Some(customer) = &charge.customer {
        lead(keys::with_charge(keys::charges_of_customer(tenant, customer), id));
    }
    for attempt in charge.operations.iter().flat_map(|operation| &operation.attempts) {
        if let Some(transaction) = &attempt.transaction_id {
            lead(keys::with_charge(keys::charges_of_transaction(tenant, transaction), id));
        }
    }
    if needs_card_yet(charge) {
        lead(keys::with_charge(keys::charges_refunded_with(charge.token), id));
    }
    if pins(charge) {
        lead(keys::pin(charge.token, charge.card_version, id));
    }
    if is_open(charge) {
        out.insert(keys::open(id), tenant.0.to_be_bytes().to_vec());
    }
    for operation in &charge.operations {
        out.insert(keys::operation(tenant, &operation.id), id.bytes().to_vec());
    }
    if let Some(due) = charge.retry_due() {
        out.insert(keys::retry(due, id), tenant.0.to_be_bytes().to_vec());
        out.insert(keys::with_charge(keys::retries_of_card(charge.token), id), Vec::new());
    }
    if !charge.invoice.is_empty() && (holds_invoice(charge.status) || charge.retry_due().is_some()) {
        out.insert(keys::invoice(tenant, &charge.invoice, &charge.period), id.bytes().to_vec());
    }
    out
}

/// Whether the charge needs its version of the card: an unresolved attempt, or an open authorization.
fn pins(charge: &ChargeRow) -> bool {
    charge.status == ChargeStatus::Authorized || unresolved(charge)
}

/// Whether nobody and nothing waits for it any more.
pub(in crate::edge::store::sqlite) fn is_over(charge: &ChargeRow) -> bool {
    let is_settled = charge.status != ChargeStatus::Manual;
    is_settled && !pins(charge) && !is_open(charge) && charge.retry_due().is_none()
}

/// Whether a charge with this status says that the card worked.
const fn works(status: ChargeStatus) -> bool {
    match status {
        ChargeStatus::Authorized | ChargeStatus::Approved => true,
        ChargeStatus::Processing
        | ChargeStatus::Pending
        | ChargeStatus::Declined
        | ChargeStatus::Failed
        | ChargeStatus::Unknown
        | ChargeStatus::Voided
        | ChargeStatus::Manual => false,
    }
}

/// Whether it can be refunded, or may turn out so, and with the card only.
pub(in crate::edge::store::sqlite) fn needs_card_yet(charge: &ChargeRow) -> bool {
    let is_given_back =
        charge.status == ChargeStatus::Approved && charge.amount_refunded >= charge.amount_captured;
    charge.refund_needs_card && holds_invoice(charge.status) && !is_given_back
}

/// Whether what a charge began with is tried once more: that uses the card anew.
fn begins_again(before: &ChargeRow, charge: &ChargeRow) -> bool {
    let attempts = |row: &ChargeRow| row.operations.first().map_or(0, |first| first.attempts.len());
    attempts(charge) > attempts(before)
}

/// Whether somebody must still find out about it.
fn is_open(charge: &ChargeRow) -> bool {
    let waits = match charge.status {
        ChargeStatus::Processing | ChargeStatus::Pending | ChargeStatus::Unknown => true,
        ChargeStatus::Authorized
        | ChargeStatus::Approved
        | ChargeStatus::Declined
        | ChargeStatus::Failed
        | ChargeStatus::Voided
        | ChargeStatus::Manual => false,
    };
    waits || unresolved(charge)
}

fn unresolved(charge: &ChargeRow) -> bool {
    charge.operations.iter().flat_map(|operation| &operation.attempts).any(|attempt| match attempt.state {
        AttemptState::Sending | AttemptState::Unknown | AttemptState::Pending => true,
        AttemptState::Approved | AttemptState::Declined | AttemptState::Failed | AttemptState::Manual => {
            false
        }
    })
}

const fn holds_invoice(status: ChargeStatus) -> bool {
    match status {
        ChargeStatus::Declined | ChargeStatus::Failed | ChargeStatus::Voided => false,
        ChargeStatus::Processing
        | ChargeStatus::Pending
        | ChargeStatus::Authorized
        | ChargeStatus::Approved
        | ChargeStatus::Unknown
        | ChargeStatus::Manual => true,
    }
}
