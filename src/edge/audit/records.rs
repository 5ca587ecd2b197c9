//! Holds the database's principals and tenants against the log: the last event of each carries the digest of its row. Who writes the
//! database could otherwise give a principal another scope or credential, and nobody would be told.

use std::collections::BTreeMap;

use super::catalogue;
use super::event::EventOutcome;
use super::export::{RecordKind, RecordState};
use super::read::{OwnedLeaf, read_hash};
use crate::attest::merkle::Hash;

/// What is wrong with a row; the id is one of ours and may be named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// An event with a digest that is none.
    #[error("the event's row digest is malformed")]
    Event,
    /// The log knows it, the database does not.
    #[error("{0} {1} of the log is missing in the database")]
    Missing(RecordKind, String),
    /// The database has one that the log does not know.
    #[error("{0} {1} of the database is not in the log")]
    Extra(RecordKind, String),
    /// Scopes, credentials, limits, expiry or anything else is not what was logged.
    #[error("the row of {0} {1} is not that of the log")]
    Digest(RecordKind, String),
}

/// What the log says of all principals and tenants so far.
#[derive(Debug, Default)]
pub struct Records {
    known: BTreeMap<(RecordKind, String), Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    at: u64,
    /// None in logs of before events carried it: then only that the row is there can be said.
    digest: Option<Hash>,
}

impl Records {
    /// Takes an event of the log.
    pub fn take(&mut self, leaf: &OwnedLeaf, faults: &mut Vec<(u64, RecordFault)>) {
        let kind = match leaf.action.as_str() {
            catalogue::PRINCIPAL_CREATE | catalogue::PRINCIPAL_DISABLE | catalogue::PRINCIPAL_ROTATE => {
                RecordKind::Principal
            }
            catalogue::TENANT_CREATE | catalogue::TENANT_DISABLE => RecordKind::Tenant,
            _ => return,
        };
        if leaf.outcome != EventOutcome::Ok {
            return;
        }
        let digest = leaf.facts.row_sha256.as_deref().map(read_hash);
        if digest == Some(None) {
            faults.push((leaf.seq, RecordFault::Event));
            return;
        }
        let known = Known { at: leaf.seq, digest: digest.flatten() };
        self.known.insert((kind, leaf.target.id.clone()), known);
    }

    /// Compares a row of the database, each of which comes once; gives the last event about it and what is wrong.
    pub fn compare(&mut self, row: &RecordState) -> Option<(Option<u64>, RecordFault)> {
        match self.known.remove(&(row.kind, row.id.clone())) {
            None => Some((None, RecordFault::Extra(row.kind, row.id.clone()))),
            Some(known) if known.digest.is_some_and(|digest| digest != row.digest) => {
                Some((Some(known.at), RecordFault::Digest(row.kind, row.id.clone())))
            }
            Some(_) => None,
        }
    }

    /// Those for which no row came, by their last events.
    pub fn missing(self) -> Vec<(u64, RecordFault)> {
        let missing = |((kind, id), known): ((_, _), Known)| (known.at, RecordFault::Missing(kind, id));
        let mut missing: Vec<_> = self.known.into_iter().map(missing).collect();
        missing.sort_unstable_by_key(|(at, _)| *at);
        missing
    }
}
