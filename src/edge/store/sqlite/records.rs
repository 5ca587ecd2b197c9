//! Sealed records for those who seal them again, and the watch over the keys that they are under.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use rusqlite::{Connection, Row};

use super::codec::{self, ReadError};
use crate::card::id::{IdBytes, Token};
use crate::card::sealed::SealedCard;
use crate::card::tenant::TenantId;
use crate::edge::store::{CommitError, KeyWatch, RecordPlace, SealedRecord};
use crate::erasure::ErasureTerms;

/// The keys that are watched. Nearly always there are none, and that costs one look.
#[derive(Default)]
pub(super) struct Watched {
    any: AtomicBool,
    keys: RwLock<KeyWatch>,
    seals: AtomicU64,
    /// The newest fingerprint key that anything was stored under since the writer began, by tenant.
    newest: Mutex<HashMap<TenantId, u32>>,
}

impl Watched {
    pub(super) fn set(&self, watch: KeyWatch) {
        let any = !watch.counted.is_empty() || !watch.barred.is_empty() || !watch.moving.is_empty();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = watch;
        self.any.store(any, Ordering::SeqCst);
    }

    /// The data keys that may have sealed a card of this tenant, and the times that hold for an erasure now.
    pub(super) fn sealing_of(&self, tenant: TenantId) -> (Vec<u32>, ErasureTerms) {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let own = keys.sealing.iter().filter(|(of, _)| *of == tenant);
        (own.map(|(_, key)| *key).collect(), keys.terms)
    }

    pub(super) fn seals(&self) -> u64 {
        self.seals.load(Ordering::SeqCst)
    }

    /// Looks at a record that comes in.
    pub(super) fn take(&self, sealed: &SealedCard) -> Result<(), CommitError> {
        if !self.any.load(Ordering::SeqCst) {
            return Ok(());
        }
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        self.look_at(&keys, &sealed.key_ids())
    }

    /// Looks at the webhook keys that the secrets of an endpoint are derived from.
    pub(super) fn take_webhook_keys(&self, ids: &[u32]) -> Result<(), CommitError> {
        if !self.any.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.look_at(&self.keys.read().unwrap_or_else(PoisonError::into_inner), ids)
    }

    /// Looks at the fingerprint key of a number that comes in; false if one that took over from it was seen before.
    pub(super) fn take_fingerprint(&self, tenant: TenantId, key: u32) -> Result<bool, CommitError> {
        if self.any.load(Ordering::SeqCst) {
            self.look_at(&self.keys.read().unwrap_or_else(PoisonError::into_inner), &[key])?;
        }
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = newest.entry(tenant).or_insert(key);
        *newest = key.max(*newest);
        Ok(key == *newest)
    }

    /// Whether one number of the tenant may be found in two places.
    pub(super) fn moves(&self, tenant: TenantId) -> bool {
        self.any.load(Ordering::SeqCst)
            && self.keys.read().unwrap_or_else(PoisonError::into_inner).moving.contains(&tenant)
    }

    fn look_at(&self, keys: &KeyWatch, ids: &[u32]) -> Result<(), CommitError> {
        if ids.iter().any(|id| keys.barred.contains(id)) {
            return Err(CommitError::Unavailable("key_destroyed"));
        }
        if ids.iter().any(|id| keys.counted.contains(id)) {
            self.seals.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// Records after this place, in order; fewer than `limit` are the last of them.
pub(super) fn read(
    conn: &Connection,
    after: Option<RecordPlace>,
    limit: usize,
) -> Result<Vec<SealedRecord>, ReadError> {
    let mut records = Vec::with_capacity(limit);
    let first = Token(IdBytes([0; 18]));
    if after.is_none_or(|place| !place.is_old) {
        let token = after.map_or(first, |place| place.token);
        let mut statement = conn.prepare_cached(include_str!("sql/records_current.sql"))?;
        let mut rows = statement.query((token.bytes(), codec::to_limit(limit)))?;
        while let Some(row) = rows.next()? {
            records.push(record(row, false)?);
        }
    }
    if records.len() < limit {
        let (token, version) =
            after.filter(|place| place.is_old).map_or((first, 0), |p| (p.token, p.version));
        let mut statement = conn.prepare_cached(include_str!("sql/records_old.sql"))?;
        let mut rows = statement.query((token.bytes(), version, codec::to_limit(limit - records.len())))?;
        while let Some(row) = rows.next()? {
            records.push(record(row, true)?);
        }
    }
    Ok(records)
}

fn record(row: &Row<'_>, is_old: bool) -> Result<SealedRecord, ReadError> {
    let blob = |at: usize| row.get_ref(at)?.as_blob().map_err(rusqlite::Error::from);
    let token = Token::from_slice(blob(0)?).ok_or(ReadError::Corrupt("token"))?;
    Ok(SealedRecord {
        place: RecordPlace { is_old, token, version: row.get(2)? },
        tenant: TenantId(row.get(1)?),
        row: row.get(3)?,
        sealed: codec::decode_sealed(blob(4)?)?,
        fingerprint_key: row.get(5)?,
    })
}
