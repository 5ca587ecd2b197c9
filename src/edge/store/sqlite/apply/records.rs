//! Records that were sealed again.

use super::super::codec;
use super::{Applying, Refusal};
use crate::edge::store::{CommitError, Resealed};

impl Applying<'_> {
    /// Puts the new bytes in the place of the old ones, if those are still there: what was updated, retired or erased meanwhile is
    /// not brought back. They are as long, so they stay where they are.
    pub(super) fn reseal(&mut self, records: &[Resealed]) -> Result<(), Refusal> {
        let mut update = self.conn.prepare_cached(include_str!("../sql/sealed_again.sql"))?;
        for record in records {
            self.watched.take(&record.now)?;
            let (was, now) = (codec::encode_record(&record.was), codec::encode_record(&record.now));
            if update.execute((record.row, was, now))? != 1 {
                return Err(CommitError::Conflict.into());
            }
        }
        Ok(())
    }
}
