//! Signs checkpoints and statements. A checkpoint is signed only if it extends the one signed last, and only after the supervisor
//! has kept its size and root: a log that was rolled back, or forked, gets no signature.

use ring::signature::{Ed25519KeyPair, KeyPair};

use super::keys::KeyRing;
use super::openings::Openings;
use crate::attest;
use crate::wire::keeper::{Refusal, RefusalCode, SignCheckpoint, Stated};

/// Remembers what was signed last.
pub(super) struct Signer {
    origin: String,
    signed: (u64, [u8; 32]),
    waiting: Option<(u64, [u8; 32])>,
}

impl Signer {
    /// A signer under this origin that signed this tree last.
    pub(super) const fn new(origin: String, signed: (u64, [u8; 32])) -> Self {
        Self { origin, signed, waiting: None }
    }

    /// The origin of its checkpoints.
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// Whether the checkpoint of this size is the one that waits; one that was asked for before it is nobody's any more.
    pub(super) fn waits_for(&self, size: u64) -> bool {
        self.waiting.is_some_and(|(waiting, _)| waiting == size)
    }

    /// The size of the tree that was signed last.
    pub(super) const fn signed_size(&self) -> u64 {
        self.signed.0
    }

    /// The Ed25519 public key, if there is a key.
    pub(super) fn public_key(keys: &KeyRing) -> Option<[u8; 32]> {
        keys.signing().ok().and_then(|pair| pair.public_key().as_ref().try_into().ok())
    }

    /// Checks that this tree extends the one signed last; it then waits for [`kept`](Self::kept).
    pub(super) fn consider(&mut self, ask: &SignCheckpoint) -> Result<(), Refusal> {
        let (size, root) = self.signed;
        if !attest::merkle::verify_consistency(size, &root, ask.size, &ask.root, &ask.consistency) {
            return Err(Refusal::of(RefusalCode::Inconsistent));
        }
        self.waiting = Some((ask.size, ask.root));
        Ok(())
    }

    /// The supervisor has kept the checkpoint of this size: signs it.
    pub(super) fn kept(&mut self, size: u64, keys: &KeyRing) -> Result<Vec<u8>, Refusal> {
        let waiting = self.waiting.take_if(|(waiting, _)| *waiting == size);
        let (_, root) = waiting.ok_or(Refusal::of(RefusalCode::Inconsistent))?;
        let pair = keys.signing().map_err(|_| Refusal::of(RefusalCode::KeyUnavailable))?;
        self.signed = (size, root);
        Ok(sign(pair, attest::note::checkpoint_text(&self.origin, size, &root).as_bytes()))
    }

    /// What was opened so far, signed.
    pub(super) fn state(&self, keys: &KeyRing, openings: &Openings) -> Result<Stated, Refusal> {
        let pair = keys.signing().map_err(|_| Refusal::of(RefusalCode::KeyUnavailable))?;
        let account = openings.state(std::time::Instant::now());
        let signature = sign(pair, &account.statement_bytes());
        Ok(Stated { boot: openings.boot().to_owned(), openings: account.lines(), signature })
    }
}

fn sign(pair: &Ed25519KeyPair, bytes: &[u8]) -> Vec<u8> {
    pair.sign(bytes).as_ref().to_vec()
}
