//! Verifies an exported log (its form is in [`super::export`]) with nothing but the file and the public key: one pass, memory flat
//! but for the cards, if those are to be compared with a database.
//!
//! Checked: each leaf is in canonical form and of this node; `seq` has no gap; `prev` and `tenant_prev` name the leaves before;
//! `tenant_seq` has no gap; time does not go back; size and root are those of the checkpoint, which the key has signed; the log
//! extends a checkpoint that the verifier kept; every keeper statement is signed, and every opening that it counts has one event.
//! An export that begins later than the first leaf says nothing of openings or rows, and takes its first `prev` on trust.

use std::collections::HashMap;
use std::io::{self, BufRead};

use super::canonical::{LEAF_BYTES_MAX, TenantPlace};
use super::cards::{CardFault, Cards};
use super::catalogue;
use super::chain::NO_PREV;
use super::export::{CHECKPOINT_START, Header, Row, Rows, read_checkpoint_line};
use super::openings::{OpeningCounts, OpeningFault, Openings};
use super::read::{LeafError, OwnedLeaf};
use super::records::{RecordFault, Records};
use super::tree::Frontier;
use crate::attest::merkle::{Hash, leaf_hash, sha256};
use crate::attest::note::{Checkpoint, NoteError, VerifierKey};
use crate::card::tenant::TenantId;
use crate::clock::Time;

/// Failures beyond these are counted, not kept: one cause may have very many.
pub const FAILURES_MAX: usize = 20;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The event's place in the log, if it is about one.
    pub seq: Option<u64>,
    /// What is wrong.
    pub fault: Fault,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.seq {
            Some(seq) => write!(f, "event {seq}: {}", self.fault),
            None => write!(f, "{}", self.fault),
        }
    }
}

/// What may be wrong with an exported log. Nothing of what is in the log is quoted but ids and numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The first line.
    #[error("the first line is not the header of an exported log")]
    Header,
    /// An event's bytes.
    #[error("{0}")]
    Leaf(LeafError),
    /// A gap, a removed or a moved event.
    #[error("here event {expected} is expected")]
    Sequence {
        /// The number that should be here.
        expected: u64,
    },
    /// Another node's event.
    #[error("the event is of another node's log")]
    Node,
    /// The event before was edited, removed or replaced.
    #[error("the event before it is not the one that it names (prev)")]
    Prev,
    /// A tenant's event is missing or moved.
    #[error("here event {expected} of this tenant is expected")]
    TenantSequence {
        /// The tenant's number that should be here.
        expected: u64,
    },
    /// The tenant's event before was edited, removed or replaced.
    #[error("the event of this tenant before it is not the one that it names (tenant_prev)")]
    TenantPrev,
    /// Time.
    #[error("it is older than the event before it")]
    Time,
    /// The file ends early.
    #[error("the file ends after {events} events without a checkpoint: it was cut off")]
    NoCheckpoint {
        /// How many there were.
        events: u64,
    },
    /// The last line.
    #[error("the last line is not a checkpoint")]
    CheckpointLine,
    /// More after the last line.
    #[error("something follows the checkpoint")]
    AfterCheckpoint,
    /// The checkpoint's signature.
    #[error("the checkpoint: {0}")]
    Note(NoteError),
    /// Another log's checkpoint.
    #[error("the checkpoint is of another log")]
    Origin,
    /// Events are missing at the end, or too many.
    #[error("the checkpoint covers {expected} events, the file ends with event number {found}")]
    Size {
        /// The checkpoint's size.
        expected: u64,
        /// Events up to the end of the file.
        found: u64,
    },
    /// Some event is not the one that was signed.
    #[error("the root over the events is not the one that the checkpoint signs: an event was changed")]
    Root,
    /// The kept checkpoint is of another log.
    #[error("the checkpoint that was kept is of another log")]
    KeptOrigin,
    /// The log is shorter than it once was.
    #[error("the log was rolled back: it has {found} events, the checkpoint that was kept covers {kept}")]
    RolledBack {
        /// The size that was kept.
        kept: u64,
        /// Events now.
        found: u64,
    },
    /// The log is not the one that was once signed.
    #[error("the first {kept} events are not those of the checkpoint that was kept: the log was rewritten")]
    Rewritten {
        /// The size that was kept.
        kept: u64,
    },
    /// The kept checkpoint lies before the export.
    #[error("the checkpoint that was kept covers {kept} events; the export begins later")]
    KeptBefore {
        /// The size that was kept.
        kept: u64,
    },
    /// An opening or a statement.
    #[error("{0}")]
    Opening(OpeningFault),
    /// A card.
    #[error("{0}")]
    Card(CardFault),
    /// A principal or tenant.
    #[error("{0}")]
    Record(RecordFault),
    /// Cards cannot be compared with a part of the log.
    #[error("an export that does not begin at event 0 cannot be compared with a database")]
    CardsOfPart,
}

/// What was verified, and what failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Whose log.
    pub origin: String,
    /// The first event of the file; openings and cards are checked only if it is 0.
    pub from: u64,
    /// Events in the file.
    pub events: u64,
    /// The checkpoint, once its signature was verified.
    pub checkpoint: Option<Checkpoint>,
    /// Openings and statements.
    pub openings: OpeningCounts,
    /// Cards compared with a database, if there was one.
    pub cards: Option<u64>,
    /// Principals and tenants compared with a database, if there was one.
    pub records: Option<u64>,
    /// The first failures.
    pub failures: Vec<Failure>,
    /// All failures.
    pub failure_count: u64,
}

impl Report {
    /// Whether everything that was checked holds.
    pub const fn holds(&self) -> bool {
        self.failure_count == 0
    }

    fn fail(&mut self, seq: Option<u64>, fault: Fault) {
        self.failure_count += 1;
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(Failure { seq, fault });
        }
    }
}

/// Verifies an exported log under this key; `kept` is a checkpoint that the verifier kept from before (its own signature verified),
/// `rows` the cards, principals and tenants of a database that must be those of the log. An error means that the file or the database could
/// not be read.
pub fn verify(
    input: impl BufRead,
    key: &VerifierKey,
    kept: Option<&Checkpoint>,
    rows: Option<&mut Rows<'_>>,
) -> io::Result<Report> {
    let mut lines = Lines { input, line: Vec::new() };
    let Some(header) = lines.next()?.and_then(Header::read) else {
        let mut report = Report::default();
        report.fail(None, Fault::Header);
        return Ok(report);
    };
    let mut pass = Pass::new(header, key, kept, rows.is_some());
    let note = loop {
        match lines.next()? {
            None => break None,
            Some(line) if line.starts_with(CHECKPOINT_START) => break Some(read_checkpoint_line(line)),
            Some(line) => pass.leaf(line),
        }
    };
    match note {
        None => pass.report.fail(None, Fault::NoCheckpoint { events: pass.report.events }),
        Some(None) => pass.report.fail(None, Fault::CheckpointLine),
        Some(Some(note)) => pass.checkpoint(&note),
    }
    if lines.next()?.is_some() {
        pass.report.fail(None, Fault::AfterCheckpoint);
    }
    pass.finish(rows)
}

/// Lines of bounded length.
struct Lines<R> {
    input: R,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// The next line without its end. A line that is too long, or has no end, comes with something behind it that no form allows.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let limit = u64::try_from(LEAF_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
        io::Read::take(&mut self.input, limit).read_until(b'\n', &mut self.line)?;
        if self.line.is_empty() {
            return Ok(None);
        }
        if self.line.pop_if(|byte| *byte == b'\n').is_none() {
            self.line.push(0);
        }
        Ok(Some(&self.line))
    }
}

/// The one pass over the leaves.
struct Pass<'a> {
    key: &'a VerifierKey,
    kept: Option<&'a Checkpoint>,
    report: Report,
    node: String,
    frontier: Frontier,
    expected: u64,
    /// SHA-256 of the leaf before; none where the export begins later.
    prev: Option<Hash>,
    time: Time,
    tenants: HashMap<TenantId, (u64, Hash)>,
    kept_root: Option<Hash>,
    openings: Openings,
    /// What a database is compared with, if there is one.
    told: Option<(Cards, Records)>,
}

impl<'a> Pass<'a> {
    fn new(header: Header, key: &'a VerifierKey, kept: Option<&'a Checkpoint>, compare: bool) -> Self {
        let from = header.frontier.size();
        let node = header.origin.rsplit_once('/').map_or("", |(_, node)| node).to_owned();
        let mut pass = Self {
            key,
            kept,
            report: Report { origin: header.origin, from, ..Report::default() },
            node,
            frontier: header.frontier,
            expected: from,
            prev: (from == 0).then_some(NO_PREV),
            time: Time::from_micros(i64::MIN),
            tenants: HashMap::new(),
            kept_root: None,
            openings: Openings::default(),
            told: compare.then(Default::default),
        };
        if compare && from > 0 {
            pass.report.fail(None, Fault::CardsOfPart);
            pass.told = None;
        }
        pass.note_kept_root();
        pass
    }

    fn leaf(&mut self, bytes: &[u8]) {
        let digest = sha256(bytes);
        match OwnedLeaf::read(bytes) {
            Err(error) => {
                self.report.fail(Some(self.expected), Fault::Leaf(error));
                self.expected += 1;
            }
            Ok(leaf) => {
                self.place(&leaf);
                if let Some(place) = leaf.tenant {
                    self.tenant(leaf.seq, &place, digest);
                }
                if self.report.from == 0 {
                    self.account(&leaf);
                }
                self.expected = leaf.seq.saturating_add(1);
                self.time = leaf.time;
            }
        }
        self.prev = Some(digest);
        self.report.events += 1;
        self.frontier.push(leaf_hash(bytes), |_| {});
        self.note_kept_root();
    }

    fn place(&mut self, leaf: &OwnedLeaf) {
        let seq = Some(leaf.seq);
        if leaf.seq != self.expected {
            self.report.fail(seq, Fault::Sequence { expected: self.expected });
        }
        if self.prev.is_some_and(|prev| prev != leaf.prev) {
            self.report.fail(seq, Fault::Prev);
        }
        if leaf.node != self.node {
            self.report.fail(seq, Fault::Node);
        }
        if leaf.time < self.time {
            self.report.fail(seq, Fault::Time);
        }
    }

    fn tenant(&mut self, seq: u64, place: &TenantPlace, digest: Hash) {
        let before = self.tenants.insert(place.tenant, (place.seq.saturating_add(1), digest));
        let before = before.or((self.report.from == 0).then_some((0, NO_PREV)));
        let Some((expected, prev)) = before else { return };
        if place.seq != expected {
            self.report.fail(Some(seq), Fault::TenantSequence { expected });
        }
        if place.prev != prev {
            self.report.fail(Some(seq), Fault::TenantPrev);
        }
    }

    /// Openings, statements, and what is compared with a database.
    fn account(&mut self, leaf: &OwnedLeaf) {
        let mut found = Vec::new();
        self.openings.tick(leaf.time);
        if let Some(opening) = &leaf.facts.opening {
            self.openings.open(leaf.seq, leaf.id, opening, &mut found);
        }
        if let Some(statement) = &leaf.facts.statement {
            self.openings.state(leaf.seq, statement, self.key, &mut found);
        }
        if leaf.action == catalogue::KEEPER_STARTED
            && let Some(boot) = &leaf.facts.note
        {
            self.openings.live(boot);
        }
        for (seq, fault) in found {
            self.report.fail(Some(seq), Fault::Opening(fault));
        }
        if let Some((cards, records)) = &mut self.told {
            let (mut of_cards, mut of_records) = (Vec::new(), Vec::new());
            cards.take(leaf, &mut of_cards);
            records.take(leaf, &mut of_records);
            for (seq, fault) in of_cards {
                self.report.fail(Some(seq), Fault::Card(fault));
            }
            for (seq, fault) in of_records {
                self.report.fail(Some(seq), Fault::Record(fault));
            }
        }
    }

    fn note_kept_root(&mut self) {
        if self.kept.is_some_and(|kept| kept.size == self.frontier.size()) {
            self.kept_root = Some(self.frontier.root());
        }
    }

    fn checkpoint(&mut self, note: &str) {
        let checkpoint = match self.key.open_checkpoint(note) {
            Ok(checkpoint) => checkpoint,
            Err(error) => return self.report.fail(None, Fault::Note(error)),
        };
        if checkpoint.origin != self.report.origin {
            self.report.fail(None, Fault::Origin);
        }
        if checkpoint.size != self.frontier.size() {
            let (expected, found) = (checkpoint.size, self.frontier.size());
            self.report.fail(None, Fault::Size { expected, found });
        } else if checkpoint.root != self.frontier.root() {
            self.report.fail(None, Fault::Root);
        }
        self.report.checkpoint = Some(checkpoint);
    }

    fn finish(mut self, rows: Option<&mut Rows<'_>>) -> io::Result<Report> {
        if let Some(kept) = self.kept {
            if kept.origin != self.report.origin {
                self.report.fail(None, Fault::KeptOrigin);
            } else if kept.size > self.frontier.size() {
                let found = self.frontier.size();
                self.report.fail(None, Fault::RolledBack { kept: kept.size, found });
            } else if kept.size < self.report.from {
                self.report.fail(None, Fault::KeptBefore { kept: kept.size });
            } else if self.kept_root != Some(kept.root) {
                self.report.fail(None, Fault::Rewritten { kept: kept.size });
            }
        }
        let mut found = Vec::new();
        self.report.openings = self.openings.finish(&mut found);
        for (seq, fault) in found {
            self.report.fail(Some(seq), Fault::Opening(fault));
        }
        let mut report = self.report;
        if let (Some(told), Some(rows)) = (self.told, rows) {
            compare(&mut report, told, rows)?;
        }
        Ok(report)
    }
}

/// Holds the rows of a database against what the log told of them.
fn compare(
    report: &mut Report,
    (mut cards, mut records): (Cards, Records),
    rows: &mut Rows<'_>,
) -> io::Result<()> {
    let (mut cards_compared, mut records_compared) = (0, 0);
    rows(&mut |row| match row {
        Row::Card(row) => {
            cards_compared += 1;
            if let Some((seq, fault)) = cards.compare(&row) {
                report.fail(seq, Fault::Card(fault));
            }
        }
        Row::Record(row) => {
            records_compared += 1;
            if let Some((seq, fault)) = records.compare(&row) {
                report.fail(seq, Fault::Record(fault));
            }
        }
    })?;
    for (seq, fault) in cards.missing() {
        report.fail(Some(seq), Fault::Card(fault));
    }
    for (seq, fault) in records.missing() {
        report.fail(Some(seq), Fault::Record(fault));
    }
    report.cards = Some(cards_compared);
    report.records = Some(records_compared);
    Ok(())
}
