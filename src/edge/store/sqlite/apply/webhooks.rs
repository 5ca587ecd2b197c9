//! What a change tells, written with it; endpoints and deliveries. For a tenant without endpoints nothing is read or written.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};

use super::super::codec::ReadError;
use super::super::webhooks::{load_endpoint, read_endpoint, state_number};
use super::{Applying, Refusal, to_json};
use crate::card::id::{EndpointId, NoticeId};
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::edge::store::webhooks::{Attempted, EndpointRow, Expiring, Notice, WebhookChange};
use crate::edge::store::{CardRow, CardStatus, CommitError};

/// Notices that one pruning takes away: more would hold up what waits behind it.
const PRUNED_MAX: u32 = 2_000;
/// Endpoints of a tenant.
const ENDPOINTS_MAX: usize = 20;

/// The endpoints as the writer keeps them in memory, by tenant: number and row.
#[derive(Default)]
pub(in crate::edge::store::sqlite) struct Hooks {
    of: HashMap<TenantId, Vec<(i64, EndpointRow)>>,
    /// Endpoints changed in this transaction: memory is read again if it is undone.
    touched: bool,
    /// What was told in this transaction.
    pub(in crate::edge::store::sqlite) told: u64,
}

impl Hooks {
    /// Reads them all.
    pub(in crate::edge::store::sqlite) fn load(conn: &Connection) -> Result<Self, ReadError> {
        let mut statement = conn.prepare_cached(include_str!("../sql/webhook_endpoints_all.sql"))?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
        let mut of: HashMap<_, Vec<_>> = HashMap::new();
        for row in rows {
            let (number, doc) = row?;
            let endpoint = read_endpoint(&doc)?;
            of.entry(endpoint.tenant).or_default().push((number, endpoint));
        }
        Ok(Self { of, touched: false, told: 0 })
    }

    /// Something of this transaction was undone.
    pub(in crate::edge::store::sqlite) fn undone(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        // What was told stays counted: to look for nothing costs little.
        if self.touched { self.reload(conn) } else { Ok(()) }
    }

    /// The transaction is durable; gives how much was told in it.
    pub(in crate::edge::store::sqlite) fn committed(&mut self) -> u64 {
        self.touched = false;
        std::mem::take(&mut self.told)
    }

    fn reload(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        // A row that cannot be read stops the batch, as it would stop a start.
        let loaded = Self::load(conn).map_err(|error| match error {
            ReadError::Database(error) => error,
            ReadError::Corrupt(_) | ReadError::NoSuchTree => rusqlite::Error::InvalidQuery,
        })?;
        self.of = loaded.of;
        Ok(())
    }
}

impl Applying<'_> {
    /// Whether the tenant has an endpoint; asked before anything is made to be told.
    pub(super) fn is_heard(&self, tenant: TenantId) -> bool {
        self.hooks.of.contains_key(&tenant)
    }

    /// Writes a notice and its deliveries, if any endpoint wants it. One that is switched off gets none, but it can be replayed.
    pub(super) fn tell(&mut self, tenant: TenantId, notice: &Notice) -> Result<(), Refusal> {
        let Some(hooks) = self.hooks.of.get(&tenant) else { return Ok(()) };
        let wanting = || hooks.iter().filter(|(_, endpoint)| endpoint.wants(&notice.kind));
        if wanting().next().is_none() {
            return Ok(());
        }
        let id = NoticeId::make(self.now).map_err(|_| CommitError::Unavailable("randomness"))?;
        self.conn.prepare_cached(include_str!("../sql/webhook_notice_insert.sql"))?.execute((
            tenant.0,
            id.bytes(),
            self.now.micros,
            &notice.kind,
            notice.body(id, self.now),
        ))?;
        let number = self.conn.last_insert_rowid();
        for (endpoint, _) in wanting().filter(|(_, endpoint)| endpoint.enabled) {
            self.conn.prepare_cached(include_str!("../sql/webhook_delivery_insert.sql"))?.execute((
                number,
                endpoint,
                self.now.micros,
            ))?;
        }
        self.hooks.told += 1;
        Ok(())
    }

    /// Tells of a card; its sequence is counted here, as most changes of a card change no version.
    pub(super) fn tell_of_card(&mut self, kind: &'static str, card: &CardRow) -> Result<(), Refusal> {
        if !self.is_heard(card.tenant) {
            return Ok(());
        }
        let sequence: i64 = self
            .conn
            .prepare_cached(include_str!("../sql/webhook_sequence_next.sql"))?
            .query_row((card.token.bytes(),), |row| row.get(0))?;
        let sequence = u64::try_from(sequence).unwrap_or(0);
        self.tell(card.tenant, &Notice::of_card(kind, card, sequence))
    }

    /// Tells that a card expires soon, unless it has changed since it was looked at.
    fn tell_expiring(&mut self, of: Expiring) -> Result<(), Refusal> {
        let card = self.card_of(of.tenant, of.token)?.row;
        if card.version != of.version || card.status != CardStatus::Active || !self.is_heard(of.tenant) {
            return Ok(());
        }
        let mut put = self.conn.prepare_cached(include_str!("../sql/webhook_expiring_put.sql"))?;
        let is_news = put.execute((of.token.bytes(), of.version))? == 1;
        drop(put);
        if is_news { self.tell_of_card("token.expiring", &card) } else { Ok(()) }
    }

    pub(super) fn apply_webhook(&mut self, change: &WebhookChange) -> Result<(), Refusal> {
        match change {
            WebhookChange::Put(row) => self.put_endpoint(row),
            WebhookChange::Delete { tenant, endpoint } => self.delete_endpoint(*tenant, *endpoint),
            WebhookChange::Attempted(of) => self.put_attempted(of),
            WebhookChange::Redeliver { tenant, endpoint, notices } => {
                self.redeliver((*tenant, *endpoint), notices)
            }
            WebhookChange::Test { tenant, endpoint } => self.tell_test(*tenant, *endpoint),
            WebhookChange::TellExpiring(cards) => cards.iter().try_for_each(|of| self.tell_expiring(*of)),
            WebhookChange::Prune(before) => self.prune_webhooks(*before),
        }
    }

    fn put_endpoint(&mut self, row: &EndpointRow) -> Result<(), Refusal> {
        let before = load_endpoint(self.conn, row.tenant, row.id)?.map(|(_, before)| before);
        if row.revision != before.as_ref().map_or(0, |before| before.revision).saturating_add(1) {
            return Err(CommitError::Conflict.into());
        }
        let count = self.hooks.of.get(&row.tenant).map_or(0, Vec::len);
        if before.is_none() && count >= ENDPOINTS_MAX {
            return Err(CommitError::TooMany.into());
        }
        let before_it = row.previous_key.filter(|_| row.previous_until.is_some_and(|until| self.now < until));
        let needed: Vec<u32> = row.key.into_iter().chain(before_it).collect();
        self.watched.take_webhook_keys(&needed)?;
        let put = match before {
            None => include_str!("../sql/webhook_endpoint_insert.sql"),
            Some(_) => include_str!("../sql/webhook_endpoint_update.sql"),
        };
        self.conn.prepare_cached(put)?.execute((row.tenant.0, row.id.bytes(), to_json(row)?))?;
        self.hooks.touched = true;
        self.hooks.reload(self.conn)?;
        let was_switched_off = before.is_some_and(|before| before.enabled) && row.disabled_reason.is_some();
        if was_switched_off && !row.enabled {
            self.tell(row.tenant, &Notice::of_endpoint("webhook_endpoint.disabled", row))?;
        }
        Ok(())
    }

    /// Its deliveries are no longer looked at, and go in their time.
    fn delete_endpoint(&mut self, tenant: TenantId, id: EndpointId) -> Result<(), Refusal> {
        let deleted = self
            .conn
            .prepare_cached(include_str!("../sql/webhook_endpoint_delete.sql"))?
            .execute((tenant.0, id.bytes()))?;
        if deleted == 0 {
            return Err(CommitError::NotFound.into());
        }
        self.hooks.touched = true;
        self.hooks.reload(self.conn)?;
        Ok(())
    }

    /// What became of an attempt. A delivery that is gone, or was settled meanwhile, stays as it is.
    fn put_attempted(&self, of: &Attempted) -> Result<(), Refusal> {
        self.conn.prepare_cached(include_str!("../sql/webhook_delivery_update.sql"))?.execute((
            of.tenant.0,
            of.endpoint.bytes(),
            of.notice.bytes(),
            state_number(of.state),
            of.due.micros,
            of.attempts,
            of.at.micros,
            of.status,
            &of.error,
            i64::try_from(of.micros).unwrap_or(i64::MAX),
        ))?;
        Ok(())
    }

    /// Has notices delivered to an endpoint once more, from the first attempt on.
    fn redeliver(
        &mut self,
        (tenant, endpoint): (TenantId, EndpointId),
        notices: &[NoticeId],
    ) -> Result<(), Refusal> {
        let number: Option<i64> = self
            .conn
            .prepare_cached(include_str!("../sql/webhook_endpoint_number.sql"))?
            .query_row((tenant.0, endpoint.bytes()), |row| row.get(0))
            .optional()?;
        let number = number.ok_or(CommitError::NotFound)?;
        let mut put = self.conn.prepare_cached(include_str!("../sql/webhook_redeliver.sql"))?;
        for notice in notices {
            put.execute((tenant.0, notice.bytes(), number, self.now.micros))?;
        }
        self.hooks.told += 1;
        Ok(())
    }

    /// Tries an endpoint out: it alone is told, whatever it subscribes to.
    fn tell_test(&mut self, tenant: TenantId, endpoint: EndpointId) -> Result<(), Refusal> {
        let (number, row) = load_endpoint(self.conn, tenant, endpoint)?.ok_or(CommitError::NotFound)?;
        let id = NoticeId::make(self.now).map_err(|_| CommitError::Unavailable("randomness"))?;
        let notice = Notice::of_endpoint("webhook_endpoint.test", &row);
        self.conn.prepare_cached(include_str!("../sql/webhook_notice_insert.sql"))?.execute((
            tenant.0,
            id.bytes(),
            self.now.micros,
            &notice.kind,
            notice.body(id, self.now),
        ))?;
        self.conn.prepare_cached(include_str!("../sql/webhook_delivery_insert.sql"))?.execute((
            self.conn.last_insert_rowid(),
            number,
            self.now.micros,
        ))?;
        self.hooks.told += 1;
        Ok(())
    }

    /// Forgets notices of before this instant, some thousand at most, and their deliveries.
    fn prune_webhooks(&self, before: Time) -> Result<(), Refusal> {
        let last: Option<i64> = self
            .conn
            .prepare_cached(include_str!("../sql/webhook_notices_old.sql"))?
            .query_row((before.micros, PRUNED_MAX), |row| row.get(0))?;
        if let Some(last) = last {
            self.conn
                .prepare_cached(include_str!("../sql/webhook_deliveries_prune.sql"))?
                .execute((last,))?;
            self.conn.prepare_cached(include_str!("../sql/webhook_notices_prune.sql"))?.execute((last,))?;
        }
        Ok(())
    }
}
