//! What is older than its tenant keeps it goes. The invoice of a charge stays taken: it is never charged again.

use rusqlite::OptionalExtension;

use super::super::codec::{self, ReadError};
use super::super::keys;
use super::super::outlived::{agreement_outlived, answer_outlived, charge_outlived};
use super::charges::{entries, load_charge};
use super::{Applying, Refusal};
use crate::card::id::{AgreementId, ChargeId, Token};
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::edge::store::{AgreementRow, CommitError, KeptBy, Outlived, StoredAnswer};

impl Applying<'_> {
    /// Forgets a record; whoever found it may have found what is so no more.
    pub(super) fn forget(&mut self, record: Outlived, before: Time) -> Result<(), Refusal> {
        match record {
            Outlived::Charge { tenant, id } => self.forget_charge((tenant, id), before),
            Outlived::Agreement { tenant, token, id } => self.forget_agreement((tenant, token, id), before),
            Outlived::Answer { row } => self.forget_answer(row),
        }
    }

    fn forget_charge(&mut self, (tenant, id): (TenantId, ChargeId), before: Time) -> Result<(), Refusal> {
        let charge = load_charge(self.conn, tenant, id)?.ok_or(CommitError::NotFound)?;
        may_go(charge_outlived(self.conn, &charge, before)?)?;
        let invoice = keys::invoice(tenant, &charge.invoice, &charge.period);
        for key in entries(&charge).keys().filter(|key| **key != invoice) {
            self.index.delete(key);
        }
        let mut delete = self.conn.prepare_cached(include_str!("../sql/charge_delete.sql"))?;
        delete.execute((tenant.0, id.bytes()))?;
        Ok(())
    }

    fn forget_agreement(
        &mut self,
        (tenant, token, id): (TenantId, Token, AgreementId),
        before: Time,
    ) -> Result<(), Refusal> {
        let place = (token.bytes(), id.bytes());
        let mut get = self.conn.prepare_cached(include_str!("../sql/agreement_get.sql"))?;
        let doc: Option<String> = get.query_row(place, |row| row.get(0)).optional()?;
        let row: AgreementRow = serde_json::from_str(&doc.ok_or(CommitError::NotFound)?)
            .map_err(|_| ReadError::Corrupt("agreement"))?;
        if row.tenant != tenant {
            return Err(CommitError::NotFound.into());
        }
        may_go(agreement_outlived(self.conn, &row, before)?)?;
        self.conn.prepare_cached(include_str!("../sql/agreement_delete.sql"))?.execute(place)?;
        Ok(())
    }

    /// The key stays taken, so that the request is not carried out anew.
    fn forget_answer(&self, row: i64) -> Result<(), Refusal> {
        let mut get = self.conn.prepare_cached(include_str!("../sql/answer_get.sql"))?;
        let answer: Option<Vec<u8>> = get.query_row((row,), |row| row.get(0)).optional()?;
        if !answer_outlived(self.conn, &answer.ok_or(CommitError::NotFound)?)? {
            return Err(CommitError::Conflict.into());
        }
        let forgotten = codec::encode_answer(&StoredAnswer::Forgotten);
        self.conn.prepare_cached(include_str!("../sql/answer_put.sql"))?.execute((row, forgotten))?;
        Ok(())
    }
}

fn may_go(outlived: Option<Option<KeptBy>>) -> Result<(), CommitError> {
    if outlived == Some(None) { Ok(()) } else { Err(CommitError::Conflict) }
}
