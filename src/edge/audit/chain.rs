//! The sequencer: gives each event its place in the log. The store's single writer owns it; it lives in memory and moves only
//! with the transaction that appends the leaves.
//!
//! A batch goes `mark`, `append`…, `mark`, `append`…; a change that fails goes back to its own mark, a batch that fails to the
//! batch's, and after COMMIT `settle` forgets how to go back.

use std::collections::HashMap;

use super::canonical::{LEAF_BYTES_MAX, Leaf, TenantPlace};
use super::event::{EventDraft, Facts};
use super::read::{LeafError, OwnedLeaf};
use super::tree::{Frontier, Nodes, Tile, TreeError};
use crate::attest::merkle::{Hash, leaf_hash, sha256};
use crate::card::tenant::TenantId;
use crate::clock::Time;

/// What stands where there is no leaf before.
pub const NO_PREV: Hash = [0; 32];
/// A leaf is seldom longer, in bytes.
const LEAF_BYTES_USUAL: usize = 1024;

/// The end of a log: what the next leaf needs to know.
#[derive(Debug)]
pub struct Chain {
    node: String,
    prev: Hash,
    last_time: Time,
    frontier: Frontier,
    tenants: HashMap<TenantId, TenantHead>,
    undo: Vec<(TenantId, Option<TenantHead>)>,
    settled: u64,
}

/// The end of one tenant's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TenantHead {
    next_seq: u64,
    prev: Hash,
}

/// A leaf that was appended, to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its place, from 0.
    pub seq: u64,
    /// Its time: that of the clock, or of the leaf before if the clock went back.
    pub time: Time,
    /// The canonical JSON.
    pub leaf: Vec<u8>,
    /// Its hash in the tree.
    pub leaf_hash: Hash,
    /// The tiles that it filled; mostly none.
    pub tiles: Vec<Tile>,
}

/// A place to go back to.
#[derive(Clone, Debug)]
pub struct Mark {
    prev: Hash,
    last_time: Time,
    frontier: Frontier,
    undo_len: usize,
    settled: u64,
}

/// Why a chain could not go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mark is older than what was settled")]
pub struct StaleMark;

/// Why a chain could not be restored: what is stored is not a log's end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError<E> {
    /// The hashes could not be read.
    #[error(transparent)]
    Tree(TreeError<E>),
    /// A stored leaf is no leaf.
    #[error("a stored leaf is malformed: {0}")]
    Leaf(LeafError),
    /// The last leaf is not the last, is of another node, or its hash is not the one stored.
    #[error("the stored leaves are not the end of this log")]
    NotTheEnd,
}

impl Chain {
    /// The log of this node, still empty.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            prev: NO_PREV,
            last_time: Time::from_micros(0),
            frontier: Frontier::default(),
            tenants: HashMap::new(),
            undo: Vec::new(),
            settled: 0,
        }
    }

    /// The log as it was stored: `size` leaves, of them the last, and the last of each tenant (in any order).
    pub fn restore<N: Nodes>(
        node: impl Into<String>,
        size: u64,
        last: Option<&[u8]>,
        last_of_tenants: impl IntoIterator<Item = Vec<u8>>,
        nodes: &N,
    ) -> Result<Self, RestoreError<N::Error>> {
        let mut chain = Self::new(node);
        let Some(before) = size.checked_sub(1) else {
            return if last.is_none() { Ok(chain) } else { Err(RestoreError::NotTheEnd) };
        };
        chain.frontier = Frontier::rebuild(size, nodes).map_err(RestoreError::Tree)?;
        let last = last.ok_or(RestoreError::NotTheEnd)?;
        let leaf = OwnedLeaf::read(last).map_err(RestoreError::Leaf)?;
        let stored = nodes.leaf_hashes(before..size).map_err(|e| RestoreError::Tree(TreeError::Nodes(e)))?;
        if leaf.seq != before || leaf.node != chain.node || stored != [leaf_hash(last)] {
            return Err(RestoreError::NotTheEnd);
        }
        chain.prev = sha256(last);
        chain.last_time = leaf.time;
        for bytes in last_of_tenants {
            let leaf = OwnedLeaf::read(&bytes).map_err(RestoreError::Leaf)?;
            let place = leaf.tenant.filter(|_| leaf.seq < size).ok_or(RestoreError::NotTheEnd)?;
            chain.tenants.insert(place.tenant, TenantHead { next_seq: place.seq + 1, prev: sha256(&bytes) });
        }
        Ok(chain)
    }

    /// How many leaves there are: the place of the next.
    pub const fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root over all leaves appended so far.
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// Gives the event its place. Time never goes backwards in a log.
    pub fn append(&mut self, draft: &EventDraft, now: Time) -> Appended {
        self.append_with(draft, &draft.facts, now)
    }

    /// The same with these facts in place of the draft's own.
    pub fn append_with(&mut self, draft: &EventDraft, facts: &Facts, now: Time) -> Appended {
        let (seq, time) = (self.size(), now.max(self.last_time));
        let tenant = draft.tenant.map(|tenant| {
            let head = self.tenants.get(&tenant).copied();
            let head = head.unwrap_or(TenantHead { next_seq: 0, prev: NO_PREV });
            TenantPlace { tenant, seq: head.next_seq, prev: head.prev }
        });
        let mut leaf = Vec::with_capacity(LEAF_BYTES_USUAL);
        let write = |facts: &Facts, out: &mut Vec<u8>| {
            Leaf {
                node: &self.node,
                seq,
                prev: self.prev,
                tenant,
                time,
                id: draft.id,
                actor: &draft.actor,
                origin: &draft.origin,
                action: draft.action,
                outcome: &draft.outcome,
                target: &draft.target,
                keys: &draft.keys,
                facts,
            }
            .write(out)
        };
        write(facts, &mut leaf);
        if leaf.len() > LEAF_BYTES_MAX {
            // A leaf that no verifier reads would spoil the log for good; its words are the least of it.
            leaf.clear();
            write(&without_words(facts), &mut leaf);
        }
        let (hash, digest, mut tiles) = (leaf_hash(&leaf), sha256(&leaf), Vec::new());
        self.frontier.push(hash, |tile| tiles.push(tile));
        (self.prev, self.last_time) = (digest, time);
        if let Some(place) = tenant {
            let head = TenantHead { next_seq: place.seq + 1, prev: digest };
            self.undo.push((place.tenant, self.tenants.insert(place.tenant, head)));
        }
        Appended { seq, time, leaf, leaf_hash: hash, tiles }
    }

    /// A place to go back to until the next [`settle`](Self::settle).
    pub fn mark(&self) -> Mark {
        Mark {
            prev: self.prev,
            last_time: self.last_time,
            frontier: self.frontier.clone(),
            undo_len: self.undo.len(),
            settled: self.settled,
        }
    }

    /// Forgets everything appended since the mark. Marks taken after it are void.
    pub fn rollback(&mut self, mark: Mark) -> Result<(), StaleMark> {
        if mark.settled != self.settled || mark.undo_len > self.undo.len() {
            return Err(StaleMark);
        }
        for (tenant, head) in self.undo.drain(mark.undo_len..).rev() {
            match head {
                Some(head) => self.tenants.insert(tenant, head),
                None => self.tenants.remove(&tenant),
            };
        }
        (self.prev, self.last_time, self.frontier) = (mark.prev, mark.last_time, mark.frontier);
        Ok(())
    }

    /// What was appended is durable: it cannot be taken back any more.
    pub fn settle(&mut self) {
        self.undo.clear();
        self.settled += 1;
    }
}

fn without_words(facts: &Facts) -> Facts {
    Facts { fields: Vec::new(), note: Some("cut: the event was too long".to_owned()), ..facts.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::id::{EventId, IdBytes};
    use crate::edge::audit::event::{Actor, EventOutcome, Origin, Target};
    use crate::edge::audit::tree::tests::Kept;
    use proptest::prelude::*;

    fn draft(tenant: Option<u32>, count: u64) -> EventDraft {
        EventDraft {
            id: EventId(IdBytes([7; 18])),
            tenant: tenant.map(TenantId),
            actor: Actor::System("test".into()),
            origin: Origin::default(),
            action: "card.read",
            outcome: EventOutcome::Ok,
            target: Target { kind: "card".into(), id: "x".into(), version: None },
            keys: Vec::new(),
            facts: Facts { count: Some(count), ..Facts::default() },
        }
    }

    const NOW: Time = Time::from_micros(1_700_000_000_000_000);

    #[test]
    fn each_leaf_names_the_one_before_it_and_that_of_its_tenant() {
        let mut chain = Chain::new("n1");
        let leaves: Vec<Vec<u8>> = [Some(1), None, Some(2), Some(1)]
            .into_iter()
            .map(|tenant| chain.append(&draft(tenant, 0), NOW).leaf)
            .collect();
        let read: Vec<OwnedLeaf> = leaves.iter().map(|leaf| OwnedLeaf::read(leaf).unwrap()).collect();
        assert_eq!(read[0].prev, NO_PREV);
        assert_eq!(read[1].prev, sha256(&leaves[0]));
        assert_eq!(read[3].prev, sha256(&leaves[2]));
        assert_eq!(read[1].tenant, None);
        assert_eq!(read[2].tenant, Some(TenantPlace { tenant: TenantId(2), seq: 0, prev: NO_PREV }));
        assert_eq!(
            read[3].tenant,
            Some(TenantPlace { tenant: TenantId(1), seq: 1, prev: sha256(&leaves[0]) })
        );
    }

    #[test]
    fn time_in_the_log_never_goes_back() {
        let mut chain = Chain::new("n1");
        chain.append(&draft(None, 0), NOW);
        assert_eq!(chain.append(&draft(None, 1), NOW.plus_seconds(-60)).time, NOW);
        assert_eq!(chain.append(&draft(None, 2), NOW.plus_seconds(1)).time, NOW.plus_seconds(1));
    }

    #[test]
    fn an_event_with_too_many_words_still_makes_a_leaf() {
        let (mut long, mut chain) = (draft(None, 3), Chain::new("n1"));
        long.facts.fields = vec!["expiry".into(); 10_000];
        let leaf = OwnedLeaf::read(&chain.append(&long, NOW).leaf).unwrap();
        assert_eq!((leaf.facts.count, leaf.facts.fields.len()), (Some(3), 0));
        assert!(leaf.facts.note.is_some());
    }

    #[test]
    fn what_is_settled_cannot_be_taken_back() {
        let mut chain = Chain::new("n1");
        let mark = chain.mark();
        chain.append(&draft(None, 0), NOW);
        chain.settle();
        assert_eq!(chain.rollback(mark), Err(StaleMark));
        assert_eq!(chain.size(), 1);
    }

    #[test]
    fn only_the_end_of_this_log_restores_it() {
        let mut chain = Chain::new("n1");
        let stored: Vec<Appended> = (0..5).map(|n| chain.append(&draft(Some(1), n), NOW)).collect();
        let (kept, _) = Kept::of(stored.iter().map(|appended| appended.leaf_hash));
        let restore = |node: &str, size, last: Option<&[u8]>| {
            Chain::restore(node, size, last, [stored[4].leaf.clone()], &kept).map(|chain| chain.root())
        };
        assert_eq!(restore("n1", 5, Some(&stored[4].leaf)), Ok(chain.root()));
        assert_eq!(restore("n2", 5, Some(&stored[4].leaf)), Err(RestoreError::NotTheEnd));
        assert_eq!(restore("n1", 5, Some(&stored[3].leaf)), Err(RestoreError::NotTheEnd));
        assert_eq!(restore("n1", 5, None), Err(RestoreError::NotTheEnd));
        assert_eq!(restore("n1", 0, Some(&stored[4].leaf)), Err(RestoreError::NotTheEnd));
        assert_eq!(restore("n1", 5, Some(b"{}")), Err(RestoreError::Leaf(LeafError::Shape)));
    }

    proptest! {
        // Changes that are taken back leave no trace, and a restored chain goes on as the first would have.
        #[test]
        fn a_log_with_undone_changes_equals_one_that_never_saw_them(
            changes in prop::collection::vec((prop::collection::vec(0_u32..4, 0..4), any::<bool>()), 0..80),
        ) {
            let (mut plain, mut tried) = (Chain::new("n1"), Chain::new("n1"));
            let (mut kept, mut last, mut tenants) = (Vec::new(), None, HashMap::new());
            for (number, (events, undone)) in changes.iter().enumerate() {
                let mark = tried.mark();
                for (at, tenant) in events.iter().enumerate() {
                    let draft = draft((*tenant > 0).then_some(*tenant), (number * 10 + at) as u64);
                    let appended = tried.append(&draft, NOW);
                    if !*undone {
                        prop_assert_eq!(&plain.append(&draft, NOW), &appended);
                        kept.push(appended.leaf_hash);
                        if *tenant > 0 {
                            tenants.insert(*tenant, appended.leaf.clone());
                        }
                        last = Some(appended.leaf);
                    }
                }
                if *undone {
                    tried.rollback(mark).unwrap();
                }
                if number % 7 == 6 {
                    tried.settle();
                }
            }
            let (kept, _) = Kept::of(kept.into_iter());
            let mut restored =
                Chain::restore("n1", plain.size(), last.as_deref(), tenants.into_values(), &kept).unwrap();
            for tenant in 0..4 {
                let draft = draft((tenant > 0).then_some(tenant), 9);
                let next = plain.append(&draft, NOW);
                prop_assert_eq!(&tried.append(&draft, NOW), &next);
                prop_assert_eq!(&restored.append(&draft, NOW), &next);
            }
            prop_assert_eq!(tried.root(), plain.root());
        }
    }
}
