//! Declines that count against the networks' limits: rows of their own, pruned when no limit reaches back to them.

use rusqlite::Connection;

use super::super::codec::ReadError;
use super::{Applying, Refusal};
use crate::card::id::{AttemptId, FingerprintId};
use crate::clock::Time;
use crate::edge::store::{Bar, DeclineRow};

/// `bar` of a number that is never to be tried again.
const NEVER: i64 = -1;
/// `bar` of a number whose customer has to agree anew.
const UNTIL_AGREED: i64 = -2;

impl Applying<'_> {
    pub(super) fn count_decline(&self, row: &DeclineRow) -> Result<(), Refusal> {
        let bar = match row.bar {
            Bar::None => None,
            Bar::Until(at) => Some(at.micros.max(0)),
            Bar::Never => Some(NEVER),
            Bar::UntilAgreed => Some(UNTIL_AGREED),
        };
        self.conn.prepare_cached(include_str!("../sql/network_decline_insert.sql"))?.execute((
            row.fingerprint.bytes(),
            &row.destination,
            row.by_merchant,
            row.attempt.bytes(),
            row.at.micros,
            bar,
        ))?;
        Ok(())
    }

    pub(super) fn prune_declines(&self, before: Time) -> Result<(), Refusal> {
        let prune = include_str!("../sql/network_declines_prune.sql");
        self.conn.prepare_cached(prune)?.execute((before.micros,))?;
        Ok(())
    }

    /// A number is gone: what was counted of it means nobody.
    pub(super) fn forget_declines(&self, fingerprint: FingerprintId) -> Result<(), Refusal> {
        let forget = include_str!("../sql/network_declines_forget.sql");
        self.conn.prepare_cached(forget)?.execute((fingerprint.bytes(),))?;
        Ok(())
    }
}

/// The declines of a number at a destination, oldest first, by who asked.
pub(in crate::edge::store::sqlite) fn declines_of(
    conn: &Connection,
    fingerprint: FingerprintId,
    destination: &str,
    by_merchant: bool,
) -> Result<Vec<DeclineRow>, ReadError> {
    let mut statement = conn.prepare_cached(include_str!("../sql/network_declines_of.sql"))?;
    let mut rows = statement.query((fingerprint.bytes(), destination, by_merchant))?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        let attempt: Vec<u8> = row.get(0)?;
        let bar: Option<i64> = row.get(2)?;
        out.push(DeclineRow {
            fingerprint,
            destination: destination.to_owned(),
            by_merchant,
            attempt: AttemptId::from_slice(&attempt).ok_or(ReadError::Corrupt("decline"))?,
            at: Time::from_micros(row.get(1)?),
            bar: match bar {
                None => Bar::None,
                Some(NEVER) => Bar::Never,
                Some(UNTIL_AGREED) => Bar::UntilAgreed,
                Some(at) => Bar::Until(Time::from_micros(at)),
            },
        });
    }
    Ok(out)
}
