//! Which charges, agreements and answers are older than their tenants keep them. The same rules find them and, in the writer, forget
//! them.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};
use serde::Deserialize;

use super::apply::{is_over, load_card, read_charge};
use super::codec::{self, ReadError};
use super::read::Readers;
use crate::card::id::{AgreementId, ChargeId, Token};
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::edge::store::{
    AgreementRow, CardStatus, ChargeRow, KeptBy, Outlived, OutlivedPage, OutlivedPlace, StoreError,
    StoredAnswer,
};

/// Rows lie in the order in which they were stored, a moment after they were made, and a clock may be set.
const SLACK_SECONDS: i64 = 86_400;

type Limits = BTreeMap<TenantId, Time>;

/// Whether a charge has not changed since before this instant, and what keeps it nevertheless.
pub(super) fn charge_outlived(
    conn: &Connection,
    charge: &ChargeRow,
    before: Time,
) -> Result<Option<Option<KeptBy>>, ReadError> {
    if charge.updated_at >= before {
        return Ok(None);
    }
    if !is_over(charge) {
        return Ok(Some(Some(KeptBy::Open)));
    }
    Ok(Some(hold_of(conn, charge.token)?))
}

/// The same of an agreement: it outlives its card, and ended before.
pub(super) fn agreement_outlived(
    conn: &Connection,
    row: &AgreementRow,
    before: Time,
) -> Result<Option<Option<KeptBy>>, ReadError> {
    if row.ended_at.is_none_or(|ended| ended >= before) {
        return Ok(None);
    }
    let card = load_card(conn, row.token)?;
    let is_gone = card.as_ref().is_none_or(|card| {
        card.row.status == CardStatus::Erased && card.row.erased_at.is_some_and(|erased| erased < before)
    });
    Ok(is_gone.then_some(None))
}

fn hold_of(conn: &Connection, token: Token) -> Result<Option<KeptBy>, ReadError> {
    let is_held = load_card(conn, token)?.is_some_and(|card| card.row.legal_hold);
    Ok(is_held.then_some(KeptBy::Hold))
}

/// Whether the charge or agreement that an answer is about is gone; `false` for what is about neither.
pub(super) fn answer_outlived(conn: &Connection, answer: &[u8]) -> Result<bool, ReadError> {
    let StoredAnswer::Frozen { body, .. } = codec::decode(answer)? else { return Ok(false) };
    Ok(match About::read(&body) {
        Some(About::Charge(id)) => {
            !is_there(conn, include_str!("sql/outlived_charge_is_there.sql"), id.bytes())?
        }
        Some(About::Agreement(token, id)) => {
            let mut get = conn.prepare_cached(include_str!("sql/agreement_get.sql"))?;
            get.query_row((token.bytes(), id.bytes()), |_| Ok(())).optional()?.is_none()
        }
        None => false,
    })
}

fn is_there(conn: &Connection, sql: &str, id: &[u8; 18]) -> rusqlite::Result<bool> {
    conn.prepare_cached(sql)?.query_row((id,), |row| row.get(0))
}

/// What an answer is about.
enum About {
    Charge(ChargeId),
    Agreement(Token, AgreementId),
}

/// The answers about a charge, one of its operations, and an agreement, as far as they name it.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    id: &'a str,
    #[serde(borrow, default)]
    charge: Option<&'a str>,
    #[serde(borrow, default)]
    token: Option<&'a str>,
}

impl About {
    fn read(body: &[u8]) -> Option<Self> {
        let named: Named<'_> = serde_json::from_slice(body).ok()?;
        let charge = ChargeId::parse(named.charge.unwrap_or(named.id));
        charge
            .map(Self::Charge)
            .or_else(|| Some(Self::Agreement(Token::parse(named.token?)?, AgreementId::parse(named.id)?)))
    }
}

impl Readers {
    pub(super) fn outlived(
        &self,
        before: &Limits,
        after: OutlivedPlace,
        limit: usize,
    ) -> Result<OutlivedPage, StoreError> {
        let Some(latest) = before.values().max() else { return Ok(OutlivedPage::default()) };
        let latest = latest.plus_seconds(SLACK_SECONDS);
        self.with_rows(|conn| match after {
            OutlivedPlace::Charges(row) => charges(conn, (before, latest), row, limit),
            OutlivedPlace::Agreements(place) => agreements(conn, (before, latest), place, limit),
            OutlivedPlace::Answers(row) => answers(conn, row, limit),
        })
    }
}

fn charges(
    conn: &Connection,
    (before, latest): (&Limits, Time),
    after: i64,
    limit: usize,
) -> Result<OutlivedPage, ReadError> {
    let mut page = OutlivedPage::default();
    let mut read = conn.prepare_cached(include_str!("sql/outlived_charges.sql"))?;
    let mut rows = read.query((after, codec::to_limit(limit)))?;
    let (mut seen, mut is_young) = (0, false);
    while let Some(row) = rows.next()? {
        seen += 1;
        page.after = Some(OutlivedPlace::Charges(row.get(0)?));
        let (tenant, created) = (TenantId(row.get(1)?), Time::from_micros(row.get(2)?));
        is_young = created >= latest;
        let Some(before) = before.get(&tenant).filter(|before| created < **before) else { continue };
        let charge = read_charge(row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?)?;
        let outlived = charge_outlived(conn, &charge, *before)?;
        page.records.extend(outlived.map(|kept| (Outlived::Charge { tenant, id: charge.id }, kept)));
    }
    if seen < limit || is_young {
        page.after = Some(OutlivedPlace::Agreements(None));
    }
    Ok(page)
}

fn agreements(
    conn: &Connection,
    (before, latest): (&Limits, Time),
    after: Option<(Token, AgreementId)>,
    limit: usize,
) -> Result<OutlivedPage, ReadError> {
    let mut page = OutlivedPage::default();
    let mut read = conn.prepare_cached(include_str!("sql/outlived_agreements.sql"))?;
    let after = after.map_or(([0; 18], [0; 18]), |(token, id)| (*token.bytes(), *id.bytes()));
    let mut rows = read.query((after.0, after.1, codec::to_limit(limit)))?;
    let (mut seen, mut is_young) = (0, false);
    while let Some(row) = rows.next()? {
        seen += 1;
        let doc = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        let row: AgreementRow = serde_json::from_str(doc).map_err(|_| ReadError::Corrupt("agreement"))?;
        page.after = Some(OutlivedPlace::Agreements(Some((row.token, row.id))));
        is_young = row.token.0.millis() >= latest.millis();
        let Some(before) = before.get(&row.tenant) else { continue };
        let (tenant, token, id) = (row.tenant, row.token, row.id);
        let outlived = agreement_outlived(conn, &row, *before)?;
        page.records.extend(outlived.map(|kept| (Outlived::Agreement { tenant, token, id }, kept)));
    }
    if seen < limit || is_young {
        page.after = Some(OutlivedPlace::Answers(0));
    }
    Ok(page)
}

fn answers(conn: &Connection, after: i64, limit: usize) -> Result<OutlivedPage, ReadError> {
    let mut page = OutlivedPage::default();
    let mut read = conn.prepare_cached(include_str!("sql/outlived_answers.sql"))?;
    let mut rows = read.query((after, codec::to_limit(limit)))?;
    let mut seen = 0;
    while let Some(row) = rows.next()? {
        let number = row.get(0)?;
        (seen, page.after) = (seen + 1, Some(OutlivedPlace::Answers(number)));
        if answer_outlived(conn, row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)? {
            page.records.push((Outlived::Answer { row: number }, None));
        }
    }
    if seen < limit {
        page.after = None;
    }
    Ok(page)
}
