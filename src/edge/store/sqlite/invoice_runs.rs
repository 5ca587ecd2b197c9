//! Invoice runs and their lines, read.

use rusqlite::{Connection, OptionalExtension, Row};

use super::apply::status_of_word;
use super::codec::ReadError;
use super::read::Readers;
use crate::card::id::{ChargeId, IdBytes, RunId};
use crate::card::tenant::TenantId;
use crate::edge::store::{LineDone, Page, RunLine, RunLineRow, RunRow, StoreError, Verdict};

/// Line n of run r has the id r << 32 | n.
pub(super) const LINE_BITS: u32 = 32;

/// The id of a line.
pub(super) const fn line_id(run_number: i64, line: u32) -> i64 {
    (run_number << LINE_BITS) | line as i64
}

/// The number of a verdict in the `verdict` column.
pub(super) const fn verdict_number(verdict: Verdict) -> i64 {
    match verdict {
        Verdict::Accepted => 1,
        Verdict::AlreadyCharged => 2,
        Verdict::InFlight => 3,
        Verdict::DeclinedBefore => 4,
        Verdict::Conflict => 5,
        Verdict::Invalid => 6,
    }
}

/// Reads a run of this tenant, and its number.
pub(super) fn load_run(
    conn: &Connection,
    tenant: TenantId,
    id: RunId,
) -> Result<Option<(i64, RunRow)>, ReadError> {
    let found: Option<(i64, String)> = conn
        .prepare_cached(include_str!("sql/invoice_run_get.sql"))?
        .query_row((tenant.0, id.bytes()), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    found.map(|(number, doc)| Ok((number, read_run(&doc)?))).transpose()
}

fn read_run(doc: &str) -> Result<RunRow, ReadError> {
    serde_json::from_str(doc).map_err(|_| ReadError::Corrupt("run"))
}

/// Reads a line's document.
pub(super) fn read_line(doc: &str) -> Result<RunLine, ReadError> {
    serde_json::from_str(doc).map_err(|_| ReadError::Corrupt("line"))
}

impl Readers {
    pub(super) fn invoice_run(&self, tenant: TenantId, id: RunId) -> Result<Option<RunRow>, StoreError> {
        self.with(|conn| Ok(load_run(conn, tenant, id)?.map(|(_, run)| run)))
    }

    pub(super) fn invoice_runs(
        &self,
        tenant: TenantId,
        after: Option<RunId>,
        limit: usize,
    ) -> Result<Page<RunRow>, StoreError> {
        self.with(|conn| {
            let before = after.unwrap_or(RunId(IdBytes([u8::MAX; 18])));
            let mut statement = conn.prepare_cached(include_str!("sql/invoice_runs_list.sql"))?;
            let limit_and_one = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
            let docs = statement.query_map((tenant.0, before.bytes(), limit_and_one), |row| row.get(0))?;
            let mut rows =
                docs.map(|doc| read_run(&doc.map(|doc: String| doc)?)).collect::<Result<Vec<_>, _>>()?;
            let more = rows.len() > limit;
            rows.truncate(limit);
            Ok(Page { rows, more })
        })
    }

    pub(super) fn run_lines(
        &self,
        tenant: TenantId,
        id: RunId,
        from: u32,
        limit: usize,
    ) -> Result<Vec<RunLineRow>, StoreError> {
        self.with(|conn| {
            let Some((number, _)) = load_run(conn, tenant, id)? else { return Ok(Vec::new()) };
            let mut statement = conn.prepare_cached(include_str!("sql/invoice_run_lines.sql"))?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut rows =
                statement.query((line_id(number, from), (number + 1) << LINE_BITS, limit, tenant.0))?;
            let mut lines = Vec::new();
            while let Some(row) = rows.next()? {
                lines.push(read_row(row)?);
            }
            Ok(lines)
        })
    }
}

/// Reads the columns of `invoice_run_lines.sql`.
fn read_row(row: &Row<'_>) -> Result<RunLineRow, ReadError> {
    let id: i64 = row.get(0)?;
    let verdict: i64 = row.get(1)?;
    let other: Option<Vec<u8>> = row.get(2)?;
    let doc: String = row.get(3)?;
    let charge: Option<Vec<u8>> = row.get(4)?;
    let refused: Option<String> = row.get(5)?;
    let status: Option<String> = row.get(6)?;
    let verdict = Verdict::ALL.into_iter().find(|one| verdict_number(*one) == verdict);
    let charge = charge.as_deref().and_then(ChargeId::from_slice);
    let done = match (charge, refused) {
        (Some(charge), _) => {
            let status = status.as_deref().and_then(status_of_word);
            Some(LineDone::Charge(charge, status.ok_or(ReadError::Corrupt("mark"))?))
        }
        (None, Some(code)) => Some(LineDone::Refused(code)),
        (None, None) => None,
    };
    Ok(RunLineRow {
        number: u32::try_from(id & i64::from(u32::MAX)).map_err(|_| ReadError::Corrupt("line"))?,
        line: read_line(&doc)?,
        verdict: verdict.ok_or(ReadError::Corrupt("verdict"))?,
        other: other.as_deref().and_then(ChargeId::from_slice),
        done,
    })
}
