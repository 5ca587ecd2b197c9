//! Endpoints, deliveries and what is told, read.

use rusqlite::{Connection, OptionalExtension, Row};

use super::codec::{ReadError, StoredCard};
use super::read::Readers;
use crate::card::id::{EndpointId, NoticeId, Token};
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::edge::store::webhooks::{Delivery, DeliveryState, Due, EndpointRow, NoticeRow};
use crate::edge::store::{CardRow, Page, StoreError};

/// The number of a state in the `state` column.
pub(super) const fn state_number(state: DeliveryState) -> i64 {
    match state {
        DeliveryState::Waiting => 0,
        DeliveryState::Delivered => 1,
        DeliveryState::Failed => 2,
    }
}

fn state_of(number: i64) -> Option<DeliveryState> {
    [DeliveryState::Waiting, DeliveryState::Delivered, DeliveryState::Failed]
        .into_iter()
        .find(|state| state_number(*state) == number)
}

/// Reads an endpoint's document.
pub(super) fn read_endpoint(doc: &str) -> Result<EndpointRow, ReadError> {
    serde_json::from_str(doc).map_err(|_| ReadError::Corrupt("webhook_endpoint"))
}

/// An endpoint of this tenant, and its number.
pub(super) fn load_endpoint(
    conn: &Connection,
    tenant: TenantId,
    id: EndpointId,
) -> Result<Option<(i64, EndpointRow)>, ReadError> {
    let found: Option<(i64, String)> = conn
        .prepare_cached(include_str!("sql/webhook_endpoint_get.sql"))?
        .query_row((tenant.0, id.bytes()), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    found.map(|(number, doc)| Ok((number, read_endpoint(&doc)?))).transpose()
}

/// The place of a notice of this tenant in the order of notices.
fn number_of(conn: &Connection, tenant: TenantId, id: NoticeId) -> Result<Option<i64>, ReadError> {
    let mut statement = conn.prepare_cached(include_str!("sql/webhook_notice_number.sql"))?;
    Ok(statement.query_row((tenant.0, id.bytes()), |row| row.get(0)).optional()?)
}

impl Readers {
    pub(super) fn cards_after(&self, after: Option<Token>, limit: usize) -> Result<Vec<CardRow>, StoreError> {
        self.with(|conn| {
            let mut statement = conn.prepare_cached(include_str!("sql/cards_after.sql"))?;
            let after = after.map_or(Vec::new(), |token| token.bytes().to_vec());
            let mut rows = statement.query((after, to_i64(limit)))?;
            let mut cards = Vec::new();
            while let Some(row) = rows.next()? {
                cards.push(StoredCard::read(row)?.row);
            }
            Ok(cards)
        })
    }

    pub(super) fn webhook_endpoints(&self) -> Result<Vec<EndpointRow>, StoreError> {
        self.with(|conn| {
            let mut statement = conn.prepare_cached(include_str!("sql/webhook_endpoints_all.sql"))?;
            let docs = statement.query_map([], |row| row.get::<_, String>(1))?;
            docs.map(|doc| read_endpoint(&doc?)).collect()
        })
    }

    pub(super) fn webhook_endpoint(
        &self,
        tenant: TenantId,
        id: EndpointId,
    ) -> Result<Option<EndpointRow>, StoreError> {
        self.with(|conn| Ok(load_endpoint(conn, tenant, id)?.map(|(_, row)| row)))
    }

    pub(super) fn webhooks_due(
        &self,
        (tenant, id): (TenantId, EndpointId),
        now: Time,
        limit: usize,
    ) -> Result<Vec<Due>, StoreError> {
        self.with(|conn| {
            let Some((number, _)) = load_endpoint(conn, tenant, id)? else { return Ok(Vec::new()) };
            let mut statement = conn.prepare_cached(include_str!("sql/webhook_due.sql"))?;
            let mut rows = statement.query((number, now.micros, to_i64(limit)))?;
            let mut due = Vec::new();
            while let Some(row) = rows.next()? {
                due.push(Due { notice: notice_id(row)?, attempts: row.get(1)?, body: row.get(2)? });
            }
            Ok(due)
        })
    }

    pub(super) fn webhooks_waiting(
        &self,
        (tenant, id): (TenantId, EndpointId),
        max: usize,
    ) -> Result<u64, StoreError> {
        self.with(|conn| {
            let Some((number, _)) = load_endpoint(conn, tenant, id)? else { return Ok(0) };
            let mut statement = conn.prepare_cached(include_str!("sql/webhook_waiting.sql"))?;
            let count: i64 = statement.query_row((number, to_i64(max)), |row| row.get(0))?;
            Ok(u64::try_from(count).unwrap_or(0))
        })
    }

    pub(super) fn webhook_deliveries(
        &self,
        (tenant, id): (TenantId, EndpointId),
        state: Option<DeliveryState>,
        after: Option<NoticeId>,
        limit: usize,
    ) -> Result<Page<Delivery>, StoreError> {
        self.with(|conn| {
            let none = Page { rows: Vec::new(), more: false };
            let Some((number, _)) = load_endpoint(conn, tenant, id)? else { return Ok(none) };
            let before = match after {
                None => i64::MAX,
                Some(after) => match number_of(conn, tenant, after)? {
                    Some(number) => number,
                    None => return Ok(none),
                },
            };
            let mut statement = conn.prepare_cached(include_str!("sql/webhook_deliveries_list.sql"))?;
            let limit_and_one = to_i64(limit).saturating_add(1);
            let mut rows = statement.query((number, before, state.map(state_number), limit_and_one))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(read_delivery(row)?);
            }
            let more = found.len() > limit;
            found.truncate(limit);
            Ok(Page { rows: found, more })
        })
    }

    pub(super) fn webhook_notice(
        &self,
        tenant: TenantId,
        id: NoticeId,
    ) -> Result<Option<NoticeRow>, StoreError> {
        self.with(|conn| {
            let mut statement = conn.prepare_cached(include_str!("sql/webhook_notice_get.sql"))?;
            let mut rows = statement.query((tenant.0, id.bytes()))?;
            rows.next()?.map(read_notice).transpose()
        })
    }

    pub(super) fn webhook_notices_since(
        &self,
        (tenant, id): (TenantId, EndpointId),
        (since, failed_only): (Time, bool),
        after: Option<NoticeId>,
        limit: usize,
    ) -> Result<Vec<NoticeRow>, StoreError> {
        self.with(|conn| {
            let Some((number, _)) = load_endpoint(conn, tenant, id)? else { return Ok(Vec::new()) };
            let from = after.map(|after| number_of(conn, tenant, after)).transpose()?.flatten().unwrap_or(0);
            let mut statement = conn.prepare_cached(include_str!("sql/webhook_notices_since.sql"))?;
            let of = (tenant.0, number, from, since.micros, failed_only, to_i64(limit));
            let mut rows = statement.query(of)?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(read_notice(row)?);
            }
            Ok(found)
        })
    }
}

fn to_i64(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The first column.
fn notice_id(row: &Row<'_>) -> Result<NoticeId, ReadError> {
    let id: Vec<u8> = row.get(0)?;
    NoticeId::from_slice(&id).ok_or(ReadError::Corrupt("webhook_notice"))
}

/// Reads the columns of `webhook_notice_get.sql`.
fn read_notice(row: &Row<'_>) -> Result<NoticeRow, ReadError> {
    Ok(NoticeRow {
        id: notice_id(row)?,
        kind: row.get(1)?,
        created_at: Time::from_micros(row.get(2)?),
        body: row.get(3)?,
    })
}

/// Reads the columns of `webhook_deliveries_list.sql`.
fn read_delivery(row: &Row<'_>) -> Result<Delivery, ReadError> {
    let micros: Option<i64> = row.get(9)?;
    Ok(Delivery {
        notice: notice_id(row)?,
        kind: row.get(1)?,
        created_at: Time::from_micros(row.get(2)?),
        state: state_of(row.get(3)?).ok_or(ReadError::Corrupt("webhook_delivery"))?,
        due: Time::from_micros(row.get(4)?),
        attempts: row.get(5)?,
        last_at: row.get::<_, Option<i64>>(6)?.map(Time::from_micros),
        status: row.get(7)?,
        error: row.get(8)?,
        micros: micros.and_then(|micros| u64::try_from(micros).ok()),
    })
}
