//! The certificate of an erasure: what was erased, how, and from when on no backup can bring it back; checked offline with nothing but
//! the log's public key.
//!
//! All that it says is said by events of the log, and each is there with its inclusion proof (RFC 6962) under one signed checkpoint:
//!
//! - `card.erased`: which card, when, how many rows, every data key that may have sealed it, and the times that held;
//! - `card.scrubbed`: its bytes are gone from every file of the database;
//! - `key.destroy`, for each of those keys: when, and for how many days a backup of the key store is kept.
//!
//! `unrecoverable_after` is the latest of `card.scrubbed` and, for each key, its destruction and the days that a backup of the key
//! store is kept after it. Until all of that has happened the date is the one that is planned: the erasure, the days until its keys
//! are destroyed, the days that a backup is kept. Once that is over and a key lives, there is no date.

use serde::{Deserialize, Serialize};

use super::catalogue;
use super::event::EventOutcome;
use super::proof::Proof;
use super::read::OwnedLeaf;
use crate::attest::merkle::Hash;
use crate::attest::note::{Checkpoint, VerifierKey};
use crate::card::id::Token;
use crate::clock::Time;
use crate::erasure::ErasureTerms;

/// The first line of every certificate of this form.
pub const FORMAT: &str = "cardvault-erasure-certificate/1";
const DAY_SECONDS: i64 = 86_400;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// A key lives, or bytes may be in a file: the date is the one that is planned.
    Planned,
    /// The same, and what was planned did not happen in time: there is no date.
    Overdue,
    /// All of it happened: the date holds.
    Final,
}

/// A certificate. Times are RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// [`FORMAT`].
    pub format: String,
    /// The log's public key, `name+id+key`: to be compared with the one that was published.
    pub log: String,
    /// The card's token.
    pub token: String,
    /// The number of its tenant.
    pub tenant: u32,
    /// How far it is.
    pub status: Standing,
    /// When it was erased.
    pub erased_at: String,
    /// Rows of sealed fields, of hashes of requests and of answers with it, that were overwritten.
    pub rows_removed: u64,
    /// When its bytes were gone from every file of the database.
    pub scrubbed_at: Option<String>,
    /// Every data key that may have sealed it at some time.
    pub keys: Vec<CertifiedKey>,
    /// From this instant on no backup can bring it back.
    pub unrecoverable_after: Option<String>,
    /// The events that say so.
    pub evidence: Evidence,
}

/// A data key that may have sealed the card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertifiedKey {
    /// Its id.
    pub id: u32,
    /// When it was destroyed.
    pub destroyed_at: Option<String>,
    /// For how many days a backup of the key store is kept, as the operator had declared when it was destroyed.
    pub backups_kept_days: Option<u32>,
}

/// Events and a checkpoint that covers them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The signed note.
    pub checkpoint: String,
    /// The events: `card.erased`, `card.scrubbed` if there is one, `key.destroy` of each key that is gone.
    pub events: Vec<Proven>,
}

/// An event with its place and the path from there to the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proven {
    /// The leaf: the event's canonical JSON, as a string so that not a byte changes on the way.
    pub leaf: String,
    /// Its position in the log.
    pub index: u64,
    /// The inclusion path, base64, from the leaf's sibling upwards.
    pub path: Vec<String>,
}

impl Proven {
    /// An event from its parts.
    pub fn new(leaf: &[u8], index: u64, path: &[Hash]) -> Self {
        let Proof { leaf, index, path, .. } = Proof::new(leaf, index, path, "");
        Self { leaf, index, path }
    }
}

/// Why a certificate is not to be believed; none of them quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not the JSON of one.
    #[error("this is no erasure certificate of this version")]
    Form,
    /// Another log.
    #[error("it names another log's key than the one that was given")]
    OtherLog,
    /// The signature.
    #[error("the checkpoint is not signed by the log's key, or is of another log")]
    Checkpoint,
    /// An event that is not in the log.
    #[error("event number {0} of the evidence is not in the log that the checkpoint signs")]
    Inclusion(usize),
    /// An event that is none.
    #[error("event number {0} of the evidence is no event of this log, or is not in its place")]
    Event(usize),
    /// An event of something else.
    #[error("event number {0} of the evidence is not about this erasure")]
    Unrelated(usize),
    /// The first event.
    #[error("the first event of the evidence does not tell of an erasure")]
    NoErasure,
    /// A field that is not what the events say.
    #[error("{0} is not what the events say")]
    Field(&'static str),
}

impl Certificate {
    /// The certificate that this evidence gives, whose events are in the log already; `now` says whether what is planned is overdue.
    pub fn issue(log: &VerifierKey, evidence: Evidence, now: Time) -> Result<Self, Fault> {
        let mut told = Told::read(&evidence.events)?;
        told.is_overdue = told.planned().is_none_or(|planned| planned <= now);
        Ok(told.certificate(log, evidence))
    }

    /// Reads one.
    pub fn read(bytes: &[u8]) -> Result<Self, Fault> {
        let certificate: Self = serde_json::from_slice(bytes).map_err(|_| Fault::Form)?;
        if certificate.format == FORMAT { Ok(certificate) } else { Err(Fault::Form) }
    }

    /// Checks all of it under the log's key: the checkpoint that covers the events, or everything that is wrong. Whether what was
    /// planned is overdue nobody can tell without a clock that he trusts: it is taken as it is said.
    pub fn verify(&self, log: &VerifierKey) -> Result<Checkpoint, Vec<Fault>> {
        let mut faults = Vec::new();
        if self.log != log.to_string() {
            faults.push(Fault::OtherLog);
        }
        let checkpoint = log.open_checkpoint(&self.evidence.checkpoint).ok();
        let checkpoint = checkpoint.filter(|checkpoint| checkpoint.origin == log.name());
        if checkpoint.is_none() {
            faults.push(Fault::Checkpoint);
        }
        for (at, event) in self.evidence.events.iter().enumerate() {
            let Proven { leaf, index, path } = event.clone();
            let proof = Proof { leaf, index, path, checkpoint: self.evidence.checkpoint.clone() };
            if checkpoint.is_some() && proof.verify(log).is_none() {
                faults.push(Fault::Inclusion(at + 1));
            }
        }
        match Told::read(&self.evidence.events) {
            Ok(mut told) => {
                let node = log.name().rsplit('/').next().unwrap_or_default();
                faults.extend(told.nodes.iter().position(|of| of != node).map(|at| Fault::Event(at + 1)));
                told.is_overdue = self.status == Standing::Overdue;
                faults.extend(self.differences(&told.certificate(log, self.evidence.clone())));
            }
            Err(fault) => faults.push(fault),
        }
        match checkpoint {
            Some(checkpoint) if faults.is_empty() => Ok(checkpoint),
            Some(_) | None => Err(faults),
        }
    }

    /// The fields that are not those of `other`, which the evidence gives.
    fn differences(&self, other: &Self) -> Vec<Fault> {
        [
            ("format", self.format == other.format),
            ("token", self.token == other.token),
            ("tenant", self.tenant == other.tenant),
            ("status", self.status == other.status),
            ("erased_at", self.erased_at == other.erased_at),
            ("rows_removed", self.rows_removed == other.rows_removed),
            ("scrubbed_at", self.scrubbed_at == other.scrubbed_at),
            ("keys", self.keys == other.keys),
            ("unrecoverable_after", self.unrecoverable_after == other.unrecoverable_after),
        ]
        .into_iter()
        .filter(|(_, same)| !same)
        .map(|(field, _)| Fault::Field(field))
        .collect()
    }
}

/// What the events of an erasure say.
struct Told {
    token: Token,
    tenant: u32,
    erased_at: Time,
    rows: u64,
    terms: ErasureTerms,
    scrubbed_at: Option<Time>,
    keys: Vec<(u32, Option<Gone>)>,
    /// The node of each event.
    nodes: Vec<String>,
    is_overdue: bool,
}

/// A key that was destroyed.
#[derive(Clone, Copy)]
struct Gone {
    at: Time,
    kept_days: u32,
}

impl Told {
    fn read(events: &[Proven]) -> Result<Self, Fault> {
        let read = |(at, event): (usize, &Proven)| {
            let leaf = OwnedLeaf::read(event.leaf.as_bytes()).ok();
            leaf.filter(|leaf| leaf.seq == event.index).ok_or(Fault::Event(at + 1))
        };
        let leaves: Vec<OwnedLeaf> = events.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        let (first, rest) = leaves.split_first().ok_or(Fault::NoErasure)?;
        let mut told = Self::of_erasure(first).ok_or(Fault::NoErasure)?;
        for (at, leaf) in rest.iter().enumerate() {
            told.take(leaf, first.seq).ok_or(Fault::Unrelated(at + 2))?;
        }
        told.nodes = leaves.into_iter().map(|leaf| leaf.node).collect();
        Ok(told)
    }

    fn of_erasure(leaf: &OwnedLeaf) -> Option<Self> {
        let is_one = leaf.action == catalogue::CARD_ERASED
            && leaf.outcome == EventOutcome::Ok
            && leaf.target.kind == "card"
            && !leaf.keys.is_empty();
        let (token, tenant) = (Token::parse(&leaf.target.id)?, leaf.tenant.filter(|_| is_one)?.tenant.0);
        let (rows, terms) = (leaf.facts.count?, ErasureTerms::from_words(&leaf.facts.fields)?);
        let keys = leaf.keys.iter().map(|key| (*key, None)).collect();
        let (erased_at, scrubbed_at) = (leaf.time, None);
        let (nodes, is_overdue) = (Vec::new(), false);
        Some(Self { token, tenant, erased_at, rows, terms, scrubbed_at, keys, nodes, is_overdue })
    }

    /// Takes another event; the log may have told of the end of a key just before the erasure. None if it is about something else, or says it twice.
    fn take(&mut self, leaf: &OwnedLeaf, erasure: u64) -> Option<()> {
        let tenant = leaf.tenant.map(|place| place.tenant.0);
        if leaf.outcome != EventOutcome::Ok || tenant != Some(self.tenant) {
            return None;
        }
        match leaf.action.as_str() {
            catalogue::CARD_SCRUBBED => {
                let is_new = self.scrubbed_at.is_none()
                    && leaf.seq > erasure
                    && leaf.target.id == self.token.to_string();
                self.scrubbed_at = Some(leaf.time);
                is_new.then_some(())
            }
            catalogue::KEY_DESTROY => {
                let is_it =
                    |key: &&mut (u32, Option<Gone>)| key.0.to_string() == leaf.target.id && key.1.is_none();
                let key = self.keys.iter_mut().find(is_it)?;
                let kept_days = u32::try_from(leaf.facts.count?).ok()?;
                key.1 = Some(Gone { at: leaf.time, kept_days });
                Some(())
            }
            _ => None,
        }
    }

    /// The date that is planned; none once all has happened.
    fn planned(&self) -> Option<Time> {
        let seconds = self.terms.within_seconds() + self.terms.kept_seconds();
        self.reached().is_none().then(|| self.erased_at.plus_seconds(seconds))
    }

    /// The date that holds, once all has happened.
    fn reached(&self) -> Option<Time> {
        let mut latest = self.scrubbed_at?;
        for (_, gone) in &self.keys {
            let gone = (*gone)?;
            latest = latest.max(gone.at.plus_seconds(i64::from(gone.kept_days) * DAY_SECONDS));
        }
        Some(latest)
    }

    fn certificate(&self, log: &VerifierKey, evidence: Evidence) -> Certificate {
        let (status, date) = match self.reached() {
            Some(reached) => (Standing::Final, Some(reached)),
            None if self.is_overdue => (Standing::Overdue, None),
            None => (Standing::Planned, self.planned()),
        };
        let key = |(id, gone): &(u32, Option<Gone>)| CertifiedKey {
            id: *id,
            destroyed_at: gone.map(|gone| gone.at.to_string()),
            backups_kept_days: gone.map(|gone| gone.kept_days),
        };
        Certificate {
            format: FORMAT.to_owned(),
            log: log.to_string(),
            token: self.token.to_string(),
            tenant: self.tenant,
            status,
            erased_at: self.erased_at.to_string(),
            rows_removed: self.rows,
            scrubbed_at: self.scrubbed_at.map(|time| time.to_string()),
            keys: self.keys.iter().map(key).collect(),
            unrecoverable_after: date.map(|time| time.to_string()),
            evidence,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
