//! Invoice runs: a line's verdict is decided here, one change after another, so that of two lines for one invoice one is accepted.

use rusqlite::OptionalExtension;

use super::super::codec::ReadError;
use super::super::invoice_runs::{LINE_BITS, line_id, load_run, read_line, verdict_number};
use super::super::keys::{self, Key};
use super::{Applying, Refusal, load_charge, to_json};
use crate::card::id::{ChargeId, RunId};
use crate::card::tenant::TenantId;
use crate::edge::store::webhooks::Notice;
use crate::edge::store::{
    ChargeRow, ChargeStatus, CommitError, OfRun, RunLine, RunOrder, RunRow, RunState, Verdict,
};

impl Applying<'_> {
    pub(super) fn put_run(&mut self, run: &RunRow) -> Result<(), Refusal> {
        let before = load_run(self.conn, run.tenant, run.id)?;
        let revision = before.as_ref().map_or(0, |(_, row)| row.revision);
        if run.revision != revision.saturating_add(1) {
            return Err(CommitError::Conflict.into());
        }
        self.write_run(run, before.is_none())?;
        if self.is_heard(run.tenant)
            && let Some(notice) = Notice::of_run(before.as_ref().map(|(_, row)| row), run)
        {
            self.tell(run.tenant, &notice)?;
        }
        Ok(())
    }

    fn write_run(&self, run: &RunRow, is_new: bool) -> Result<(), Refusal> {
        let put = if is_new {
            include_str!("../sql/invoice_run_insert.sql")
        } else {
            include_str!("../sql/invoice_run_update.sql")
        };
        self.conn.prepare_cached(put)?.execute((
            run.tenant.0,
            run.id.bytes(),
            run.is_at_work(),
            to_json(run)?,
        ))?;
        Ok(())
    }

    /// The stored run, if `next` is its next revision.
    fn before_of(&self, next: &RunRow) -> Result<(i64, RunRow), Refusal> {
        let before = load_run(self.conn, next.tenant, next.id)?.ok_or(CommitError::NotFound)?;
        if next.revision != before.1.revision.saturating_add(1) {
            return Err(CommitError::Conflict.into());
        }
        Ok(before)
    }

    pub(super) fn add_run_lines(&mut self, run: &RunRow, lines: &[RunLine]) -> Result<(), Refusal> {
        let (number, before) = self.before_of(run)?;
        let count = u32::try_from(lines.len()).unwrap_or(u32::MAX);
        if before.state != RunState::Uploading || before.lines.checked_add(count) != Some(run.lines) {
            return Err(CommitError::Conflict.into());
        }
        let mut next = RunRow { verdicts: before.verdicts, ..run.clone() };
        for (line, at) in lines.iter().zip(before.lines + 1..) {
            let id = line_id(number, at);
            let (verdict, other) = self.verdict(&next, line, id)?;
            *next.verdicts.entry(verdict).or_default() += 1;
            self.conn.prepare_cached(include_str!("../sql/invoice_run_line_insert.sql"))?.execute((
                id,
                verdict_number(verdict),
                other,
                to_json(line)?,
            ))?;
        }
        self.write_run(&next, false)
    }

    /// What is said of a line, and what has its invoice; claims the invoice of one that is accepted.
    fn verdict(
        &mut self,
        run: &RunRow,
        line: &RunLine,
        id: i64,
    ) -> Result<(Verdict, Option<Vec<u8>>), Refusal> {
        let Some(order) = line.order.as_ref().filter(|_| line.fault.is_none()) else {
            return Ok((Verdict::Invalid, None));
        };
        let key = keys::invoice(run.tenant, &order.invoice, &order.period);
        let own = claim_key(run, order);
        let holder = match self.index.get(self.conn, &key)? {
            Some(holder) => Some(holder),
            None if own == key => None,
            None => self.index.get(self.conn, &own)?,
        };
        if let Some(holder) = holder {
            return Ok((self.verdict_against(run.tenant, order, &holder)?, Some(holder)));
        }
        if !run.options.retry_declined
            && let Some(declined) = self.last_declined(run.tenant, order)?
        {
            return Ok((Verdict::DeclinedBefore, Some(declined.bytes().to_vec())));
        }
        self.index.put(&own, &id.to_be_bytes());
        Ok((Verdict::Accepted, None))
    }

    fn verdict_against(&self, tenant: TenantId, order: &RunOrder, holder: &[u8]) -> Result<Verdict, Refusal> {
        let Some(id) = ChargeId::from_slice(holder) else {
            let same = self.line_of(holder)?.is_some_and(|other| {
                (other.token, other.amount, &other.currency) == (order.token, order.amount, &order.currency)
            });
            return Ok(if same { Verdict::InFlight } else { Verdict::Conflict });
        };
        let charge = load_charge(self.conn, tenant, id)?.ok_or(ReadError::Corrupt("invoice"))?;
        let same =
            (charge.token, charge.amount, &charge.currency) == (order.token, order.amount, &order.currency);
        Ok(match charge.status {
            _ if !same => Verdict::Conflict,
            ChargeStatus::Approved | ChargeStatus::Authorized => Verdict::AlreadyCharged,
            ChargeStatus::Processing
            | ChargeStatus::Pending
            | ChargeStatus::Unknown
            | ChargeStatus::Manual
            | ChargeStatus::Declined
            | ChargeStatus::Failed
            | ChargeStatus::Voided => Verdict::InFlight,
        })
    }

    /// The order of the line whose id is the value of an invoice's entry.
    fn line_of(&self, holder: &[u8]) -> Result<Option<RunOrder>, Refusal> {
        let id = i64::from_be_bytes(holder.try_into().map_err(|_| ReadError::Corrupt("invoice"))?);
        let doc: Option<String> = self
            .conn
            .prepare_cached(include_str!("../sql/invoice_run_line_get.sql"))?
            .query_row((id,), |row| row.get(0))
            .optional()?;
        Ok(doc.map(|doc| read_line(&doc)).transpose()?.and_then(|line| line.order))
    }

    /// The invoice's newest charge, if it was declined.
    fn last_declined(&self, tenant: TenantId, order: &RunOrder) -> Result<Option<ChargeId>, Refusal> {
        let prefix = keys::charges_of_invoice(tenant, &order.invoice);
        let entries = self.index.scan(self.conn, prefix, usize::MAX)?;
        for (key, _) in entries.iter().rev() {
            let id = keys::last_id(key).and_then(ChargeId::from_slice);
            let id = id.ok_or(ReadError::Corrupt("index"))?;
            let charge = load_charge(self.conn, tenant, id)?;
            let of_period = charge.filter(|c| c.period == order.period && c.invoice == order.invoice);
            if let Some(charge) = of_period {
                return Ok((charge.status == ChargeStatus::Declined).then_some(id));
            }
        }
        Ok(None)
    }

    /// Marks the line that a new charge pays. A marked one is charged again only where its charge certainly did nothing.
    pub(super) fn mark_line(&mut self, charge: &ChargeRow, of: OfRun) -> Result<i64, Refusal> {
        let number: Option<i64> = self
            .conn
            .prepare_cached(include_str!("../sql/invoice_run_number.sql"))?
            .query_row((charge.tenant.0, of.id.bytes()), |row| row.get(0))
            .optional()?;
        let id = line_id(number.ok_or(CommitError::NotFound)?, of.line);
        let marked: Option<Option<Vec<u8>>> = self
            .conn
            .prepare_cached(include_str!("../sql/invoice_run_mark_get.sql"))?
            .query_row((id,), |row| row.get(0))
            .optional()?;
        match marked {
            None => {
                let put = include_str!("../sql/invoice_run_mark_put.sql");
                self.conn.prepare_cached(put)?.execute((id, charge.id.bytes(), None::<String>))?;
            }
            Some(before) => {
                let before = before.as_deref().and_then(ChargeId::from_slice);
                let before = before.map(|id| load_charge(self.conn, charge.tenant, id)).transpose()?;
                if before.flatten().is_none_or(|before| before.status != ChargeStatus::Failed) {
                    return Err(CommitError::Conflict.into());
                }
                let put = include_str!("../sql/invoice_run_mark_move.sql");
                self.conn.prepare_cached(put)?.execute((id, charge.id.bytes()))?;
            }
        }
        Ok(id)
    }

    /// The run of the line that holds an invoice.
    pub(super) fn run_of_line(&self, holder: &[u8]) -> Result<RunId, Refusal> {
        let id = i64::from_be_bytes(holder.try_into().map_err(|_| ReadError::Corrupt("invoice"))?);
        let run: Vec<u8> = self
            .conn
            .prepare_cached(include_str!("../sql/invoice_run_of_number.sql"))?
            .query_row((id >> LINE_BITS,), |row| row.get(0))?;
        Ok(RunId::from_slice(&run).ok_or(ReadError::Corrupt("run"))?)
    }

    pub(super) fn refuse_run_line(&mut self, of: OfRun, tenant: TenantId, code: &str) -> Result<(), Refusal> {
        let (number, run) = load_run(self.conn, tenant, of.id)?.ok_or(CommitError::NotFound)?;
        let id = line_id(number, of.line);
        let put = include_str!("../sql/invoice_run_mark_put.sql");
        self.conn.prepare_cached(put)?.execute((id, None::<Vec<u8>>, code))?;
        if let Some(order) = self.line_of(&id.to_be_bytes())? {
            self.release(&claim_key(&run, &order), id)?;
        }
        Ok(())
    }

    pub(super) fn release_run_lines(&mut self, run: &RunRow, from: u32) -> Result<(), Refusal> {
        let (number, before) = self.before_of(run)?;
        if before.released != from {
            return Err(CommitError::Conflict.into());
        }
        let lines: Vec<(i64, String)> = {
            let mut some = self.conn.prepare_cached(include_str!("../sql/invoice_run_lines_unmarked.sql"))?;
            let span = (line_id(number, from + 1), line_id(number, run.released + 1));
            let rows = some.query_map(span, |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect::<Result<_, _>>()?
        };
        for (id, doc) in lines {
            if let Some(order) = read_line(&doc)?.order {
                self.release(&claim_key(run, &order), id)?;
            }
        }
        self.write_run(run, false)
    }

    fn release(&mut self, key: &Key, line: i64) -> Result<(), Refusal> {
        if self.index.get(self.conn, key)?.is_some_and(|holder| holder == line.to_be_bytes()) {
            self.index.delete(key);
        }
        Ok(())
    }
}

/// Where a run claims an invoice: one that only validates keeps its claims to itself.
fn claim_key(run: &RunRow, order: &RunOrder) -> Key {
    if run.options.validate_only {
        keys::run_invoice(run.id, &order.invoice, &order.period)
    } else {
        keys::invoice(run.tenant, &order.invoice, &order.period)
    }
}
