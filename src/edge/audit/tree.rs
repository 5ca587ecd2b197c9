//! The tree over the log's leaves (RFC 6962): what the sequencer carries to append, and how proofs are built.
//!
//! Beside the hash of each leaf the log keeps the roots of complete subtrees of height 8, 16 and 24 ("tiles"): tile
//! (level, index) covers the leaves from `index << level` to `(index + 1) << level`. So a proof over millions of leaves
//! reads at most 255 hashes at each of four levels on either side of its cut.

use std::ops::Range;

use crate::attest::merkle::{Hash, empty_root, node_hash};

/// The heights at which the roots of complete subtrees are kept.
pub const TILE_LEVELS: [u8; 3] = [8, 16, 24];

/// Where the hashes of a log lie.
pub trait Nodes {
    /// Why they could not be read.
    type Error;

    /// The hashes of these leaves, in order.
    fn leaf_hashes(&self, range: Range<u64>) -> Result<Vec<Hash>, Self::Error>;

    /// The tiles of this level (8, 16 or 24) with these indexes, in order.
    fn tiles(&self, level: u8, range: Range<u64>) -> Result<Vec<Hash>, Self::Error>;
}

/// Why a proof could not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError<E> {
    /// The hashes could not be read.
    #[error("the hashes of the log could not be read")]
    Nodes(E),
    /// Fewer or more hashes were there than were asked for.
    #[error("a hash of the log is missing")]
    Missing,
    /// There is no such leaf, or the sizes are the wrong way round.
    #[error("the tree has no such leaf or size")]
    Range,
}

/// The root of a complete subtree that an append has just filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Its height: 8, 16 or 24.
    pub level: u8,
    /// Which of this height, from the left, from 0.
    pub index: u64,
    /// Its root.
    pub hash: Hash,
}

/// What is needed to append and to name the root: the roots of the complete subtrees that make up the tree, the largest
/// first, one for each one-bit of the size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    roots: Vec<Hash>,
}

impl Frontier {
    /// From the size of a tree and its subtree roots; `None` if their number does not fit the size.
    pub fn from_roots(size: u64, roots: Vec<Hash>) -> Option<Self> {
        (usize::try_from(size.count_ones()).ok()? == roots.len()).then_some(Self { size, roots })
    }

    /// Rebuilds it for the first `size` leaves of a log.
    pub fn rebuild<N: Nodes>(size: u64, nodes: &N) -> Result<Self, TreeError<N::Error>> {
        Ok(Self { size, roots: subtree_roots(nodes, 0..size)? })
    }

    /// How many leaves the tree has.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the complete subtrees, the largest first.
    pub fn roots(&self) -> &[Hash] {
        &self.roots
    }

    /// Appends a leaf by its hash; says which tiles it filled.
    pub fn push(&mut self, leaf: Hash, mut filled: impl FnMut(Tile)) {
        let (mut hash, mut height) = (leaf, 0_u8);
        while (self.size >> height) & 1 == 1 {
            let Some(left) = self.roots.pop() else { break };
            hash = node_hash(&left, &hash);
            height += 1;
            if TILE_LEVELS.contains(&height) {
                filled(Tile { level: height, index: self.size >> height, hash });
            }
        }
        self.roots.push(hash);
        self.size += 1;
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        join(&self.roots)
    }
}

/// The inclusion path of leaf `index` in the tree of `size` leaves.
pub fn inclusion_path<N: Nodes>(nodes: &N, index: u64, size: u64) -> Result<Vec<Hash>, TreeError<N::Error>> {
    if index >= size {
        return Err(TreeError::Range);
    }
    let (mut low, mut high, mut path) = (0, size, Vec::new());
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            path.push(root_of(nodes, middle..high)?);
            high = middle;
        } else {
            path.push(root_of(nodes, low..middle)?);
            low = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The consistency path from the tree of `old` leaves to that of `new` leaves; empty from the empty tree.
pub fn consistency_path<N: Nodes>(nodes: &N, old: u64, new: u64) -> Result<Vec<Hash>, TreeError<N::Error>> {
    if old > new {
        return Err(TreeError::Range);
    }
    if old == 0 {
        return Ok(Vec::new());
    }
    let (mut low, mut high, mut path) = (0, new, Vec::new());
    while old < high {
        let middle = low + split(high - low);
        if old <= middle {
            path.push(root_of(nodes, middle..high)?);
            high = middle;
        } else {
            path.push(root_of(nodes, low..middle)?);
            low = middle;
        }
    }
    // The old tree itself is known to whoever asks; only a part of it must be named.
    if low > 0 {
        path.push(root_of(nodes, low..high)?);
    }
    path.reverse();
    Ok(path)
}

/// The largest power of two below `leaves` (at least 2): where RFC 6962 splits a tree.
const fn split(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

fn root_of<N: Nodes>(nodes: &N, range: Range<u64>) -> Result<Hash, TreeError<N::Error>> {
    Ok(join(&subtree_roots(nodes, range)?))
}

/// The roots of the complete subtrees of `range`, the largest first. The range begins where a subtree of its size may begin.
fn subtree_roots<N: Nodes>(nodes: &N, range: Range<u64>) -> Result<Vec<Hash>, TreeError<N::Error>> {
    let (mut start, mut roots) = (range.start, Vec::new());
    while start < range.end {
        let height = u8::try_from((range.end - start).ilog2()).unwrap_or(u8::MAX);
        roots.push(subtree(nodes, height, start >> height)?);
        start += 1 << height;
    }
    Ok(roots)
}

fn subtree<N: Nodes>(nodes: &N, height: u8, index: u64) -> Result<Hash, TreeError<N::Error>> {
    let level = TILE_LEVELS.into_iter().rev().find(|level| *level <= height);
    let shift = height - level.unwrap_or(0);
    let range = (index << shift)..((index + 1) << shift);
    let expected = range.end - range.start;
    let read = match level {
        Some(level) => nodes.tiles(level, range),
        None => nodes.leaf_hashes(range),
    };
    let mut hashes = read.map_err(TreeError::Nodes)?;
    if u64::try_from(hashes.len()) != Ok(expected) {
        return Err(TreeError::Missing);
    }
    while hashes.len() > 1 {
        hashes = hashes
            .chunks(2)
            .filter_map(|pair| match pair {
                [left, right] => Some(node_hash(left, right)),
                _ => None,
            })
            .collect();
    }
    hashes.first().copied().ok_or(TreeError::Missing)
}

/// Joins subtree roots from the right, as RFC 6962 does for a size that is no power of two.
fn join(roots: &[Hash]) -> Hash {
    let mut from_right = roots.iter().rev();
    let Some(last) = from_right.next() else { return empty_root() };
    from_right.fold(*last, |right, left| node_hash(left, &right))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::attest::merkle::{leaf_hash, verify_consistency, verify_inclusion};
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::collections::HashMap;
    use std::convert::Infallible;

    /// A log's hashes in memory, counting what is read.
    #[derive(Default)]
    pub(crate) struct Kept {
        pub(crate) leaves: Vec<Hash>,
        pub(crate) tiles: HashMap<(u8, u64), Hash>,
        pub(crate) read: Cell<usize>,
    }

    impl Kept {
        pub(crate) fn of(leaves: impl Iterator<Item = Hash>) -> (Self, Frontier) {
            let (mut kept, mut frontier) = (Self::default(), Frontier::default());
            for leaf in leaves {
                kept.leaves.push(leaf);
                frontier.push(leaf, |tile| {
                    assert_eq!(kept.tiles.insert((tile.level, tile.index), tile.hash), None);
                });
            }
            (kept, frontier)
        }
    }

    impl Nodes for Kept {
        type Error = Infallible;

        fn leaf_hashes(&self, range: Range<u64>) -> Result<Vec<Hash>, Infallible> {
            self.read.set(self.read.get() + (range.end - range.start) as usize);
            Ok(self.leaves[range.start as usize..range.end as usize].to_vec())
        }

        fn tiles(&self, level: u8, range: Range<u64>) -> Result<Vec<Hash>, Infallible> {
            self.read.set(self.read.get() + (range.end - range.start) as usize);
            Ok(range.map(|index| self.tiles[&(level, index)]).collect())
        }
    }

    /// RFC 6962, 2.1, word for word.
    fn naive_root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(split(leaves.len() as u64) as usize);
                node_hash(&naive_root(left), &naive_root(right))
            }
        }
    }

    /// RFC 6962, 2.1.1.
    fn naive_path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
        if leaves.len() <= 1 {
            return Vec::new();
        }
        let (left, right) = leaves.split_at(split(leaves.len() as u64) as usize);
        let (mut path, sibling) = if index < left.len() {
            (naive_path(index, left), right)
        } else {
            (naive_path(index - left.len(), right), left)
        };
        path.push(naive_root(sibling));
        path
    }

    /// RFC 6962, 2.1.2.
    fn naive_proof(old: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
        if old == leaves.len() {
            return if whole { Vec::new() } else { vec![naive_root(leaves)] };
        }
        let (left, right) = leaves.split_at(split(leaves.len() as u64) as usize);
        let (mut path, sibling) = if old <= left.len() {
            (naive_proof(old, left, whole), right)
        } else {
            (naive_proof(old - left.len(), right, false), left)
        };
        path.push(naive_root(sibling));
        path
    }

    fn numbered(count: u64) -> impl Iterator<Item = Hash> {
        (0..count).map(|n| leaf_hash(&n.to_be_bytes()))
    }

    /// The tree of certificate-transparency-go's test data, and its roots.
    const LEAVES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    #[test]
    fn roots_are_those_of_the_published_tree() {
        let mut frontier = Frontier::default();
        for (leaf, root) in LEAVES.iter().zip(ROOTS) {
            assert_eq!(HEXLOWER.encode(&frontier.root()), root);
            frontier.push(leaf_hash(&HEXLOWER.decode(leaf.as_bytes()).unwrap()), |_| {});
        }
        assert_eq!(HEXLOWER.encode(&frontier.root()), ROOTS[8]);
    }

    #[test]
    fn all_proofs_of_small_trees_are_those_of_the_rfc_and_hold() {
        for size in 0..40_u64 {
            let (kept, frontier) = Kept::of(numbered(size));
            let root = frontier.root();
            assert_eq!(root, naive_root(&kept.leaves));
            for index in 0..size {
                let path = inclusion_path(&kept, index, size).unwrap();
                assert_eq!(path, naive_path(index as usize, &kept.leaves));
                assert!(verify_inclusion(index, size, &kept.leaves[index as usize], &path, &root));
            }
            for old in 1..=size {
                let path = consistency_path(&kept, old, size).unwrap();
                assert_eq!(path, naive_proof(old as usize, &kept.leaves, true));
                let old_root = naive_root(&kept.leaves[..old as usize]);
                assert!(verify_consistency(old, &old_root, size, &root, &path));
            }
            assert!(verify_consistency(0, &empty_root(), size, &root, &[]));
            assert_eq!(inclusion_path(&kept, size, size), Err(TreeError::Range));
            assert_eq!(consistency_path(&kept, size + 1, size), Err(TreeError::Range));
        }
    }

    #[test]
    fn a_proof_over_many_leaves_reads_few_hashes() {
        let size = 200_003;
        let (kept, frontier) = Kept::of(numbered(size));
        assert_eq!(Frontier::rebuild(size, &kept).unwrap(), frontier);
        for index in [0, 1, 255, 256, 65_535, 65_536, 131_072, 199_999, size - 1] {
            kept.read.set(0);
            let path = inclusion_path(&kept, index, size).unwrap();
            assert!(kept.read.get() <= 1_100, "read {}", kept.read.get());
            assert!(verify_inclusion(index, size, &kept.leaves[index as usize], &path, &frontier.root()));
        }
        for old in [1, 256, 65_536, 65_537, 131_073, size - 1] {
            kept.read.set(0);
            let path = consistency_path(&kept, old, size).unwrap();
            assert!(kept.read.get() <= 1_100, "read {}", kept.read.get());
            let old_root = Frontier::rebuild(old, &kept).unwrap().root();
            assert!(verify_consistency(old, &old_root, size, &frontier.root(), &path));
        }
    }

    #[test]
    fn missing_hashes_make_no_proof() {
        struct Short(Kept);
        impl Nodes for Short {
            type Error = Infallible;
            fn leaf_hashes(&self, range: Range<u64>) -> Result<Vec<Hash>, Infallible> {
                let mut hashes = self.0.leaf_hashes(range)?;
                hashes.pop();
                Ok(hashes)
            }
            fn tiles(&self, level: u8, range: Range<u64>) -> Result<Vec<Hash>, Infallible> {
                self.0.tiles(level, range)
            }
        }
        let short = Short(Kept::of(numbered(10)).0);
        assert_eq!(inclusion_path(&short, 3, 10), Err(TreeError::Missing));
        assert_eq!(Frontier::rebuild(10, &short), Err(TreeError::Missing));
    }

    proptest! {
        #[test]
        fn proofs_hold_and_no_other_claim_does(size in 2_u64..700, a: u64, b: u64, bit in 0_usize..256) {
            let (kept, frontier) = Kept::of(numbered(size));
            let (index, old, root) = (a % size, b % (size - 1) + 1, frontier.root());
            prop_assert_eq!(root, naive_root(&kept.leaves));
            let leaf = kept.leaves[index as usize];
            let path = inclusion_path(&kept, index, size).unwrap();
            prop_assert!(verify_inclusion(index, size, &leaf, &path, &root));
            let flip = |hash: &Hash| { let mut other = *hash; other[bit / 8] ^= 1 << (bit % 8); other };
            prop_assert!(!verify_inclusion(index, size, &flip(&leaf), &path, &root));
            prop_assert!(!verify_inclusion(index, size, &leaf, &path, &flip(&root)));
            prop_assert!(!verify_inclusion((index + 1) % size, size, &leaf, &path, &root));
            prop_assert!(!verify_inclusion(index, size, &leaf, &path[1..], &root));
            prop_assert!(!verify_inclusion(index, size, &leaf, &[path.as_slice(), &[leaf]].concat(), &root));

            let old_root = naive_root(&kept.leaves[..old as usize]);
            let proof = consistency_path(&kept, old, size).unwrap();
            prop_assert_eq!(&proof, &naive_proof(old as usize, &kept.leaves, true));
            prop_assert!(verify_consistency(old, &old_root, size, &root, &proof));
            prop_assert!(!verify_consistency(old, &flip(&old_root), size, &root, &proof));
            prop_assert!(!verify_consistency(old, &old_root, size, &flip(&root), &proof));
            prop_assert!(!verify_consistency(size, &old_root, old, &root, &proof));
            prop_assert!(!verify_consistency(old, &old_root, size, &root, &[]));
            let at = a as usize % proof.len();
            let mut bent = proof.clone();
            bent[at] = flip(&bent[at]);
            prop_assert!(!verify_consistency(old, &old_root, size, &root, &bent));
        }

        #[test]
        fn a_frontier_comes_back_from_its_parts(size in 0_u64..3_000) {
            let (kept, frontier) = Kept::of(numbered(size));
            prop_assert_eq!(&Frontier::rebuild(size, &kept).unwrap(), &frontier);
            prop_assert_eq!(Frontier::from_roots(size, frontier.roots().to_vec()), Some(frontier.clone()));
            prop_assert_eq!(Frontier::from_roots(size + 1, frontier.roots().to_vec()).is_some(),
                (size + 1).count_ones() == size.count_ones());
        }
    }
}
