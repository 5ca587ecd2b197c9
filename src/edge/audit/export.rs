//! An exported log: one file that a verifier needs beside the public key.
//!
//! Lines end in `\n`, and nothing follows the last:
//! 1. the header, canonical JSON: `{"cardvault_audit_export":1,"from":0,"origin":"installation/node"}`. If `from` is not 0 the
//!    export begins at that leaf, and `"frontier":[hex,…]` (after `from`) gives the roots of the complete subtrees before it,
//!    the largest first;
//! 2. each leaf, the raw bytes of the log, in order;
//! 3. the checkpoint over all leaves up to here, canonical JSON: `{"checkpoint":"<signed note>"}`.

use std::io::{self, Write};

use data_encoding::HEXLOWER;
use serde::Deserialize;

use super::read::read_hash;
use super::tree::Frontier;
use crate::attest::json;
use crate::attest::note::Checkpoint;
use crate::card::id::Token;
use crate::edge::store::CardStatus;

/// The version of the format.
const FORMAT: u64 = 1;

/// A log as a tool reads it, wherever it lies.
pub trait Log {
    /// The newest signed checkpoint, as a note; none if nothing was signed yet.
    fn checkpoint(&mut self) -> io::Result<Option<String>>;

    /// Gives the first `size` leaves in order.
    fn leaves(&mut self, size: u64, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>;

    /// Gives every card of the database, in any order.
    fn cards(&mut self, each: &mut dyn FnMut(CardState)) -> io::Result<()>;

    /// Gives every principal and tenant of the database, in any order.
    fn records(&mut self, each: &mut dyn FnMut(RecordState)) -> io::Result<()>;

    /// All that is compared with the log.
    fn rows(&mut self, each: &mut dyn FnMut(Row)) -> io::Result<()> {
        self.cards(&mut |card| each(Row::Card(card)))?;
        self.records(&mut |record| each(Row::Record(record)))
    }
}

/// Gives every row of a database that can be compared, in any order, to the function that it is handed.
pub type Rows<'a> = dyn FnMut(&mut dyn FnMut(Row)) -> io::Result<()> + 'a;

/// What the database says, to be compared with the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// A card.
    Card(CardState),
    /// A principal or tenant.
    Record(RecordState),
}

/// What the database says of a principal or tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordState {
    /// Which of the two.
    pub kind: RecordKind,
    /// Its id, as events name it.
    pub id: String,
    /// SHA-256 of its row.
    pub digest: [u8; 32],
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// Somebody who may call the API.
    Principal,
    /// A tenant.
    Tenant,
}

impl std::fmt::Display for RecordKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Principal => "principal",
            Self::Tenant => "tenant",
        })
    }
}

/// What the database says of a card, to be compared with the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CardState {
    /// The card.
    pub token: Token,
    /// Its version.
    pub version: u32,
    /// SHA-256 of its sealed fields; none once erased.
    pub digest: Option<[u8; 32]>,
    /// Where it stands.
    pub status: CardStatus,
    /// Whether a legal hold is set.
    pub held: bool,
    /// Whether it is to be erased once the hold is released.
    pub erase_asked: bool,
}

/// Why a log could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It could not be read, or the file could not be written.
    #[error("the log could not be read or the file not written: {}", .0.kind())]
    Io(#[from] io::Error),
    /// No checkpoint was signed yet: there is nothing to prove.
    #[error("no checkpoint was signed yet; the vault signs one within a minute of its first event")]
    NoCheckpoint,
    /// What is kept as a checkpoint is none.
    #[error("the stored checkpoint is malformed")]
    Checkpoint,
    /// The log is shorter than its checkpoint.
    #[error("the log has fewer events than its checkpoint covers")]
    Short,
}

/// Exports a log up to its newest checkpoint; says how many leaves that are.
pub fn export(log: &mut dyn Log, out: &mut dyn Write) -> Result<u64, ExportError> {
    let note = log.checkpoint()?.ok_or(ExportError::NoCheckpoint)?;
    let checkpoint = Checkpoint::of_unverified(&note).ok_or(ExportError::Checkpoint)?;
    let header = Header { origin: checkpoint.origin, frontier: Frontier::default() };
    header.write(out)?;
    let mut count = 0;
    log.leaves(checkpoint.size, &mut |leaf| {
        count += 1;
        out.write_all(leaf)?;
        out.write_all(b"\n")
    })?;
    if count != checkpoint.size {
        return Err(ExportError::Short);
    }
    out.write_all(&checkpoint_line(&note))?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(count)
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose log: `installation/node`.
    pub origin: String,
    /// The tree before the first leaf of the export; empty for an export from the beginning.
    pub frontier: Frontier,
}

impl Header {
    /// Writes the line.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.line())?;
        out.write_all(b"\n")
    }

    /// Reads the line, without its end; `None` if it is not exactly what [`write`](Self::write) writes.
    pub fn read(line: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Text {
            cardvault_audit_export: u64,
            from: u64,
            #[serde(default)]
            frontier: Vec<String>,
            origin: String,
        }
        let text: Text = serde_json::from_slice(line).ok()?;
        let roots: Option<Vec<_>> = text.frontier.iter().map(|root| read_hash(root)).collect();
        let header = Self { origin: text.origin, frontier: Frontier::from_roots(text.from, roots?)? };
        (text.cardvault_audit_export == FORMAT && header.line() == line).then_some(header)
    }

    fn line(&self) -> Vec<u8> {
        let mut out = b"{\"cardvault_audit_export\":".to_vec();
        json::write_u64(&mut out, FORMAT);
        out.extend_from_slice(b",\"from\":");
        json::write_u64(&mut out, self.frontier.size());
        if !self.frontier.roots().is_empty() {
            out.extend_from_slice(b",\"frontier\":");
            json::write_list(&mut out, self.frontier.roots(), |out, root| {
                json::write_string(out, &HEXLOWER.encode(root));
            });
        }
        out.extend_from_slice(b",\"origin\":");
        json::write_string(&mut out, &self.origin);
        out.push(b'}');
        out
    }
}

/// What the last line begins with; no leaf does.
pub const CHECKPOINT_START: &[u8] = b"{\"checkpoint\":";

/// The last line, without its end.
pub fn checkpoint_line(note: &str) -> Vec<u8> {
    let mut out = CHECKPOINT_START.to_vec();
    json::write_string(&mut out, note);
    out.push(b'}');
    out
}

/// The note of the last line; `None` if it is not exactly what [`checkpoint_line`] writes.
pub fn read_checkpoint_line(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Text {
        checkpoint: String,
    }
    let text: Text = serde_json::from_slice(line).ok()?;
    (checkpoint_line(&text.checkpoint) == line).then_some(text.checkpoint)
}
