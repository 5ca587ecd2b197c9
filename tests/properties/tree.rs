//! The log's tree, against the definitions of RFC 6962, 2.1, written down as they stand there: every proof that the definitions
//! give is taken, and whatever differs in one bit is not.

use cardvault::attest::merkle::{Hash, sha256, verify_consistency, verify_inclusion};
use cardvault::edge::audit::tree::Frontier;
use proptest::prelude::*;

/// All sizes up to here are tried with all positions.
const SIZES_TRIED: u64 = 48;

fn leaves(size: u64) -> Vec<Vec<u8>> {
    (0..size).map(|n| format!("leaf {n}").into_bytes()).collect()
}

/// The largest power of two smaller than `size`.
fn split(size: usize) -> usize {
    size.next_power_of_two() / 2
}

fn hash_leaf(leaf: &[u8]) -> Hash {
    sha256(&[&[0], leaf].concat())
}

/// MTH(D[n]).
fn root(leaves: &[Vec<u8>]) -> Hash {
    match leaves {
        [] => sha256(&[]),
        [leaf] => hash_leaf(leaf),
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            sha256(&[&[1][..], &root(left), &root(right)].concat())
        }
    }
}

/// PATH(m, D[n]).
fn path(index: usize, leaves: &[Vec<u8>]) -> Vec<Hash> {
    if leaves.len() < 2 {
        return Vec::new();
    }
    let k = split(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut path, other) =
        if index < k { (path(index, left), root(right)) } else { (path(index - k, right), root(left)) };
    path.push(other);
    path
}

/// SUBPROOF(m, D[n], b).
fn subproof(old: usize, leaves: &[Vec<u8>], complete: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if complete { Vec::new() } else { vec![root(leaves)] };
    }
    let k = split(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut proof, other) = if old <= k {
        (subproof(old, left, complete), root(right))
    } else {
        (subproof(old - k, right, false), root(left))
    };
    proof.push(other);
    proof
}

fn consistency(old: usize, leaves: &[Vec<u8>]) -> Vec<Hash> {
    if old == 0 { Vec::new() } else { subproof(old, leaves, true) }
}

fn flipped(hash: &Hash, bit: usize) -> Hash {
    let mut hash = *hash;
    hash[bit / 8 % 32] ^= 1 << (bit % 8);
    hash
}

/// The path with one bit of one node changed, a node left out, doubled, or added.
fn spoilt(path: &[Hash], at: usize, bit: usize) -> Vec<Vec<Hash>> {
    let mut all = vec![[path, &[[7; 32]]].concat(), [&[[7; 32]], path].concat()];
    if !path.is_empty() {
        let at = at % path.len();
        let (mut edited, mut cut, mut doubled) = (path.to_vec(), path.to_vec(), path.to_vec());
        edited[at] = flipped(&path[at], bit);
        cut.remove(at);
        doubled.insert(at, path[at]);
        all.extend([edited, cut, doubled]);
    }
    all
}

#[test]
fn every_leaf_of_every_small_tree_is_proved_and_every_tree_extends_those_before() {
    let mut frontier = Frontier::default();
    let all = leaves(SIZES_TRIED);
    for size in 0..=all.len() {
        let (tree, n) = (&all[..size], size as u64);
        let root_now = root(tree);
        assert_eq!((frontier.size(), frontier.root()), (n, root_now));
        for (index, leaf) in tree.iter().enumerate() {
            let path = path(index, tree);
            assert!(verify_inclusion(index as u64, n, &hash_leaf(leaf), &path, &root_now), "{index} {size}");
        }
        for old in 0..=size {
            let proof = consistency(old, tree);
            let old_root = root(&all[..old]);
            assert!(verify_consistency(old as u64, &old_root, n, &root_now, &proof), "{old} {size}");
        }
        if let Some(leaf) = all.get(size) {
            frontier.push(hash_leaf(leaf), |_| {});
        }
    }
}

proptest! {
    #[test]
    fn whatever_differs_from_an_inclusion_proof_is_none(
        size in 1_u64..300, index: u64, other: u64, at: usize, bit in 0_usize..256,
    ) {
        let (all, index, other) = (leaves(size), index % size, other % size);
        let (n, leaf) = (index as usize, hash_leaf(&all[index as usize]));
        let (path, root) = (path(n, &all), root(&all));
        prop_assert!(verify_inclusion(index, size, &leaf, &path, &root));
        prop_assert!(!verify_inclusion(index, size, &flipped(&leaf, bit), &path, &root));
        prop_assert!(!verify_inclusion(index, size, &leaf, &path, &flipped(&root, bit)));
        prop_assert!(!verify_inclusion(size, size, &leaf, &path, &root));
        if other != index {
            prop_assert!(!verify_inclusion(other, size, &leaf, &path, &root));
        }
        for path in spoilt(&path, at, bit) {
            prop_assert!(!verify_inclusion(index, size, &leaf, &path, &root));
        }
    }

    #[test]
    fn whatever_differs_from_a_consistency_proof_is_none(
        size in 1_u64..300, old: u64, at: usize, bit in 0_usize..256,
    ) {
        let (all, old) = (leaves(size), old % size + 1);
        let (proof, old_root, new_root) = (consistency(old as usize, &all), root(&all[..old as usize]), root(&all));
        prop_assert!(verify_consistency(old, &old_root, size, &new_root, &proof));
        prop_assert!(!verify_consistency(old, &flipped(&old_root, bit), size, &new_root, &proof));
        prop_assert!(!verify_consistency(old, &old_root, size, &flipped(&new_root, bit), &proof));
        for proof in spoilt(&proof, at, bit) {
            prop_assert!(!verify_consistency(old, &old_root, size, &new_root, &proof));
        }
        // A log that was rolled back, or whose past was rewritten, extends nothing.
        if old < size {
            prop_assert!(!verify_consistency(size, &new_root, old, &old_root, &proof));
            let mut rewritten = all.clone();
            rewritten[at % old as usize] = b"another".to_vec();
            let proof = consistency(old as usize, &rewritten);
            prop_assert!(!verify_consistency(old, &old_root, size, &root(&rewritten), &proof));
        }
    }
}
