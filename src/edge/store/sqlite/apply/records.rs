//! Records that were sealed again.

use super::super::codec;
use super::{Applying, Refusal};
use crate::edge::store::{CommitError, Resealed};

impl Applying<'_> {
    /// Puts the new bytes in the place of the old ones, if those are still there: what was updated, retired or erased meanwhile is
    /// not brought back. They are as long, so they stay where they are.
    pub(super) fn reseal(&mut self, records: &[Resealed]) -> Result<(), Refusal> {
        for Resealed { record, now, fingerprint } in records {
            self.watched.take(now)?;
            let (was, now) = (codec::encode_record(&record.sealed), codec::encode_record(now));
            let again = include_str!("../sql/sealed_again.sql");
            if self.conn.prepare_cached(again)?.execute((record.row, was, now))? != 1 {
                return Err(CommitError::Conflict.into());
            }
            if let Some(fingerprint) = fingerprint.as_ref().filter(|_| !record.place.is_old) {
                self.mark_again((record.tenant, record.place.token, record.row), fingerprint)?;
            }
        }
        Ok(())
    }
}
