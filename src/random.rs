//! Random bytes from the operating system, drawn in blocks: one system call per draw would cost more than the
//! seal that needs it.

use std::cell::RefCell;

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroize;

const BLOCK_BYTES: usize = 2048;

struct Block {
    bytes: Box<[u8; BLOCK_BYTES]>,
    used: usize,
}

thread_local! {
    static BLOCK: RefCell<Block> = RefCell::new(Block { bytes: Box::new([0; BLOCK_BYTES]), used: BLOCK_BYTES });
}

/// The operating system gave no random bytes; nothing safe can be done without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system's random number generator failed")]
pub struct NoRandomness;

/// `N` fresh random bytes (N at most a few hundred). Each byte is handed out once and wiped from the block.
pub fn make_bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    BLOCK.with_borrow_mut(|block| {
        if block.used + N > BLOCK_BYTES {
            SystemRandom::new().fill(block.bytes.as_mut_slice()).map_err(|_| NoRandomness)?;
            block.used = 0;
        }
        let mut out = [0; N];
        let taken = block.bytes.get_mut(block.used..block.used + N).ok_or(NoRandomness)?;
        out.copy_from_slice(taken);
        taken.zeroize();
        block.used += N;
        Ok(out)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_are_handed_out_twice() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1_000 {
            assert!(seen.insert(make_bytes::<16>().unwrap()));
        }
    }
}
