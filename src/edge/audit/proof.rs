//! The proof that one event is in the log, to be handed out and checked offline (c2sp.org/tlog-proof).
//!
//! As text: `c2sp.org/tlog-proof@v1\n`, `index N\n`, one base64 hash a line from the leaf's sibling upwards, an empty line, the
//! checkpoint's note. As JSON: the same with the leaf beside it, so that nothing else is needed but the public key.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::attest::merkle::{Hash, leaf_hash, verify_inclusion};
use crate::attest::note::{Checkpoint, VerifierKey};

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// The proof of one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The leaf: the event's canonical JSON, as a string so that not a byte changes on the way.
    pub leaf: String,
    /// Its place in the log.
    pub index: u64,
    /// The inclusion path, base64, from the leaf's sibling upwards.
    pub path: Vec<String>,
    /// The signed note of a checkpoint that covers it.
    pub checkpoint: String,
}

impl Proof {
    /// The proof from its parts.
    pub fn new(leaf: &[u8], index: u64, path: &[Hash], checkpoint: &str) -> Self {
        Self {
            leaf: String::from_utf8_lossy(leaf).into_owned(),
            index,
            path: path.iter().map(|hash| BASE64.encode(hash)).collect(),
            checkpoint: checkpoint.to_owned(),
        }
    }

    /// The `.tlog-proof` file; the leaf goes beside it.
    pub fn text(&self) -> String {
        let path: String = self.path.iter().map(|hash| format!("{hash}\n")).collect();
        format!("{FIRST_LINE}\nindex {}\n{path}\n{}", self.index, self.checkpoint)
    }

    /// Reads the text form for this leaf; `None` if it is not what [`text`](Self::text) writes.
    pub fn read_text(leaf: &[u8], text: &str) -> Option<Self> {
        let (head, checkpoint) = text.split_once("\n\n")?;
        let mut lines = head.split('\n');
        let index = lines.nth(1)?.strip_prefix("index ")?.parse().ok()?;
        let proof = Self {
            leaf: std::str::from_utf8(leaf).ok()?.to_owned(),
            index,
            path: lines.map(str::to_owned).collect(),
            checkpoint: checkpoint.to_owned(),
        };
        (proof.text() == text).then_some(proof)
    }

    /// The checkpoint under which the leaf stands at its index; `None` if the key or the path does not say so.
    pub fn verify(&self, key: &VerifierKey) -> Option<Checkpoint> {
        let checkpoint = key.open_checkpoint(&self.checkpoint).ok()?;
        let path: Option<Vec<Hash>> =
            self.path.iter().map(|hash| BASE64.decode(hash.as_bytes()).ok()?.try_into().ok()).collect();
        let leaf = leaf_hash(self.leaf.as_bytes());
        verify_inclusion(self.index, checkpoint.size, &leaf, &path?, &checkpoint.root).then_some(checkpoint)
    }
}
