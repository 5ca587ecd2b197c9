//! Since when a card is of no use to anybody: what retention goes by. The same rule finds cards and, in the writer, erases them.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};

use super::codec::{self, FLAG_ERASE_WANTED, ReadError, StoredCard};
use super::index::{self, Span};
use super::keys::{self, Key};
use super::read::Readers;
use crate::card::id::{IdBytes, Token};
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::edge::store::{AgreementRow, CardStatus, IdleCard, IdlePage, StoreError};

/// A token is made a moment before its card is stored, and a clock may be set: cards made so long after are looked at as well.
const SLACK_SECONDS: i64 = 86_400;

/// The index, to the reader or to the writer.
pub(super) trait Entries {
    fn value(&self, conn: &Connection, key: &Key) -> rusqlite::Result<Option<Vec<u8>>>;
    fn has_any(&self, conn: &Connection, prefix: Key) -> rusqlite::Result<bool>;
}

impl Entries for index::Shared {
    fn value(&self, conn: &Connection, key: &Key) -> rusqlite::Result<Option<Vec<u8>>> {
        index::get(self, conn, key)
    }

    fn has_any(&self, conn: &Connection, prefix: Key) -> rusqlite::Result<bool> {
        Ok(!index::scan(self, conn, Span::of_prefix(prefix), 1)?.is_empty())
    }
}

impl Entries for index::IndexWriter {
    fn value(&self, conn: &Connection, key: &Key) -> rusqlite::Result<Option<Vec<u8>>> {
        self.get(conn, key)
    }

    fn has_any(&self, conn: &Connection, prefix: Key) -> rusqlite::Result<bool> {
        Ok(!self.scan(conn, prefix, 1)?.is_empty())
    }
}

/// The latest of a card's creation, its last use, and the end of its last agreement. None while an agreement lives, while a retry is
/// to use it, and of one that is erased or is to be.
pub(super) fn idle_since(
    conn: &Connection,
    index: &impl Entries,
    card: &StoredCard,
) -> Result<Option<Time>, ReadError> {
    let token = card.row.token;
    let is_going = match card.row.status {
        CardStatus::Active | CardStatus::Suspended => card.flags & FLAG_ERASE_WANTED != 0,
        CardStatus::Erasing | CardStatus::Erased => true,
    };
    if is_going || index.has_any(conn, keys::retries_of_card(token))? {
        return Ok(None);
    }
    let used = match index.value(conn, &keys::last_use(token))? {
        Some(bytes) => Some(read_use(&bytes)?),
        None => uses_of_before(conn)?,
    };
    let mut since = used.map_or(card.row.created_at, |used| used.max(card.row.created_at));
    let mut agreements = conn.prepare_cached(include_str!("sql/agreements_of_card.sql"))?;
    let mut rows = agreements.query((token.bytes(),))?;
    while let Some(row) = rows.next()? {
        let doc = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        let agreement: AgreementRow =
            serde_json::from_str(doc).map_err(|_| ReadError::Corrupt("agreement"))?;
        match agreement.ended_at {
            Some(ended) => since = since.max(ended),
            None => return Ok(None),
        }
    }
    Ok(Some(since))
}

/// The entry of a card's last use.
pub(super) fn write_use(at: Time) -> [u8; 8] {
    at.micros.to_be_bytes()
}

fn read_use(bytes: &[u8]) -> Result<Time, ReadError> {
    let micros = bytes.try_into().map_err(|_| ReadError::Corrupt("last use"))?;
    Ok(Time::from_micros(i64::from_be_bytes(micros)))
}

fn uses_of_before(conn: &Connection) -> Result<Option<Time>, ReadError> {
    let mut get = conn.prepare_cached(include_str!("sql/retention_uses.sql"))?;
    let uses: Option<i64> = get.query_row([], |row| row.get(0)).optional()?.flatten();
    Ok(uses.map(Time::from_micros))
}

impl Readers {
    pub(super) fn idle_cards(
        &self,
        before: &BTreeMap<TenantId, Time>,
        after: Option<Token>,
        limit: usize,
    ) -> Result<IdlePage, StoreError> {
        let Some(latest) = before.values().max() else { return Ok(IdlePage::default()) };
        let (from, until) = (after.map_or([0; 18], |token| *token.bytes()), bound(*latest));
        self.with(|conn| {
            let mut cards = conn.prepare_cached(include_str!("sql/cards_made_until.sql"))?;
            let mut rows = cards.query((from, until, codec::to_limit(limit)))?;
            let (mut page, mut seen) = (IdlePage::default(), 0);
            while let Some(row) = rows.next()? {
                let card = StoredCard::read(row)?;
                let (tenant, token) = (card.row.tenant, card.row.token);
                (seen, page.after) = (seen + 1, Some(token));
                let Some(before) = before.get(&tenant).filter(|before| card.row.created_at < **before) else {
                    continue;
                };
                let since = idle_since(conn, &self.common.index, &card)?.filter(|since| since < before);
                let held = card.row.legal_hold;
                page.cards.extend(since.map(|since| IdleCard { tenant, token, since, held }));
            }
            if seen < limit {
                page.after = None;
            }
            Ok(page)
        })
    }
}

/// Behind every token that was made before this instant.
fn bound(time: Time) -> [u8; 18] {
    let mut bytes = [0; 18];
    let millis = time.plus_seconds(SLACK_SECONDS).millis().to_be_bytes();
    bytes.iter_mut().zip(millis.iter().skip(2)).for_each(|(to, from)| *to = *from);
    IdBytes(bytes).0
}
