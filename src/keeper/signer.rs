//! Signs checkpoints and statements. A checkpoint is signed only if its tree extends the one signed last and holds the statement
//! that the keeper just made, and only after the supervisor has kept its size and root: a log that was rolled back or forked, or
//! that leaves out what the keeper says of its openings, gets no signature.

use std::time::{Duration, Instant};

use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::Deserialize;

use super::keys::KeyRing;
use super::openings::Openings;
use crate::attest::{self, merkle};
use crate::wire::keeper::{Refusal, RefusalCode, SignCheckpoint, Stated};

/// A statement older than this says too little of what was opened since; the edge asks for it just before each checkpoint.
const STATEMENT_GOOD_FOR: Duration = Duration::from_secs(30);

/// Remembers what was signed last.
pub(super) struct Signer {
    origin: String,
    signed: (u64, [u8; 32]),
    waiting: Option<(u64, [u8; 32])>,
    /// The statement made last, until a checkpoint is considered with it: each checkpoint has one of its own.
    stated: Option<(Stated, Instant)>,
}

/// What of a leaf matters here; whatever else is wrong with one, a verifier finds.
#[derive(Deserialize)]
struct Leaf {
    facts: LeafFacts,
}

#[derive(Deserialize)]
struct LeafFacts {
    statement: LeafStatement,
}

#[derive(Deserialize)]
struct LeafStatement {
    boot: String,
    openings: Vec<LeafLine>,
    signature: String,
}

#[derive(Deserialize)]
struct LeafLine {
    purpose: String,
    seq: u64,
    hash: String,
}

impl Signer {
    /// A signer under this origin that signed this tree last.
    pub(super) const fn new(origin: String, signed: (u64, [u8; 32])) -> Self {
        Self { origin, signed, waiting: None, stated: None }
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

    /// Checks that this tree extends the one signed last and holds the last statement; it then waits for [`kept`](Self::kept).
    pub(super) fn consider(&mut self, ask: &SignCheckpoint, now: Instant) -> Result<(), Refusal> {
        let (size, root) = self.signed;
        if !merkle::verify_consistency(size, &root, ask.size, &ask.root, &ask.consistency) {
            return Err(Refusal::of(RefusalCode::Inconsistent));
        }
        let fresh = |at: &Instant| now.duration_since(*at) <= STATEMENT_GOOD_FOR;
        let stated = self.stated.take().filter(|(_, at)| fresh(at));
        if !stated.is_some_and(|(stated, _)| holds(ask, &stated)) {
            return Err(Refusal::of(RefusalCode::StatementMissing));
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

    /// What was opened so far, signed; the next checkpoint's tree must hold it.
    pub(super) fn state(
        &mut self,
        keys: &KeyRing,
        openings: &Openings,
        now: Instant,
    ) -> Result<Stated, Refusal> {
        let pair = keys.signing().map_err(|_| Refusal::of(RefusalCode::KeyUnavailable))?;
        let account = openings.state(now);
        let signature = sign(pair, &account.statement_bytes());
        let stated = Stated { boot: openings.boot().to_owned(), openings: account.lines(), signature };
        self.stated = Some((stated.clone(), now));
        Ok(stated)
    }
}

/// Whether the leaf carries this statement, and the tree this leaf.
fn holds(ask: &SignCheckpoint, stated: &Stated) -> bool {
    let proof = &ask.statement;
    let Ok(Leaf { facts: LeafFacts { statement } }) = serde_json::from_slice(&proof.leaf) else {
        return false;
    };
    let lines = statement.openings.into_iter().map(|line| (line.purpose, line.seq, line.hash));
    let found = Stated {
        boot: statement.boot,
        openings: lines.collect(),
        signature: data_encoding::BASE64.decode(statement.signature.as_bytes()).unwrap_or_default(),
    };
    let leaf = merkle::leaf_hash(&proof.leaf);
    found == *stated && merkle::verify_inclusion(proof.seq, ask.size, &leaf, &proof.path, &ask.root)
}

fn sign(pair: &Ed25519KeyPair, bytes: &[u8]) -> Vec<u8> {
    pair.sign(bytes).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::merkle::{empty_root, leaf_hash, node_hash};
    use crate::card::id::{EventId, IdBytes, Token};
    use crate::card::tenant::TenantId;
    use crate::keeper::keys::Kek;
    use crate::wire::keeper::StatementProof;
    use crate::wire::keys::{HeldKey, KeyOrder, KeyPurpose};

    /// A signer that has signed nothing yet, over an account of two openings that the log has.
    struct Desk {
        signer: Signer,
        keys: KeyRing,
        openings: Openings,
    }

    impl Desk {
        fn new(boot: &str) -> Self {
            let kek = Kek::new(&[7; 32], [1; 16]).unwrap();
            let order =
                KeyOrder { id: 1, purpose: KeyPurpose::Checkpoint, tenant: None, epoch: 0, version: 1 };
            let mut keys = KeyRing::default();
            keys.put(&kek, &HeldKey::active(kek.make_wrapped(order).unwrap())).unwrap();
            let mut openings = Openings::new(boot.to_owned());
            for event in [1, 2].map(|n| EventId(IdBytes([n; 18]))) {
                openings.count("charge", TenantId(1), Token(IdBytes([9; 18])), "sandbox", event);
                openings.acknowledge(&[event]);
            }
            Self { signer: Signer::new("dev/node1".to_owned(), (0, empty_root())), keys, openings }
        }

        fn state(&mut self, now: Instant) -> Stated {
            self.signer.state(&self.keys, &self.openings, now).unwrap()
        }
    }

    fn leaf(stated: &Stated) -> Vec<u8> {
        let lines: Vec<_> = stated
            .openings
            .iter()
            .map(|(purpose, seq, hash)| serde_json::json!({"hash": hash, "purpose": purpose, "seq": seq}))
            .collect();
        let signature = data_encoding::BASE64.encode(&stated.signature);
        let statement = serde_json::json!({"boot": stated.boot, "openings": lines, "signature": signature});
        let leaf =
            serde_json::json!({"action": "keeper.statement", "facts": {"statement": statement}, "v": 1});
        leaf.to_string().into_bytes()
    }

    /// A tree of some event and this leaf, as the first checkpoint.
    fn ask(leaf: &[u8]) -> SignCheckpoint {
        let (first, last) = (leaf_hash(b"some event"), leaf_hash(leaf));
        SignCheckpoint {
            size: 2,
            root: node_hash(&first, &last),
            consistency: Vec::new(),
            statement: StatementProof { seq: 1, leaf: leaf.to_vec(), path: vec![first] },
        }
    }

    #[test]
    fn a_tree_that_holds_the_last_statement_is_signed_once() {
        let (mut desk, now) = (Desk::new("b1"), Instant::now());
        let ask = ask(&leaf(&desk.state(now)));
        assert_eq!(desk.signer.consider(&ask, now), Ok(()));
        let signature = desk.signer.kept(2, &desk.keys).unwrap();
        let key = Signer::public_key(&desk.keys).unwrap();
        let text = attest::note::checkpoint_text("dev/node1", 2, &ask.root);
        let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key);
        assert!(public.verify(text.as_bytes(), &signature).is_ok());
        assert_eq!(desk.signer.signed_size(), 2);
        // The next checkpoint needs a statement of its own.
        let again = desk.signer.consider(&ask, now);
        assert_eq!(again, Err(Refusal::of(RefusalCode::StatementMissing)));
    }

    /// What an owned edge may show so that the count of openings stays out of the log, and when.
    type Hostile = fn(&mut Desk, Instant) -> (SignCheckpoint, Instant);

    /// Statements other than the last.
    const OTHER_STATEMENTS: [(&str, Hostile); 6] = [
        ("it never asks for one", |_, now| (ask(&leaf(&Desk::new("b1").state(now))), now)),
        ("it leaves it out", |desk, now| {
            desk.state(now);
            (ask(br#"{"action":"log.start","facts":{},"v":1}"#), now)
        }),
        ("it shows another keeper's", |desk, now| {
            desk.state(now);
            (ask(&leaf(&Desk::new("b2").state(now))), now)
        }),
        ("it shows one that counts fewer", |desk, now| {
            let mut stated = desk.state(now);
            stated.openings[0].1 = 1;
            (ask(&leaf(&stated)), now)
        }),
        ("it shows the one before", |desk, now| {
            let before = leaf(&desk.state(now));
            let event = EventId(IdBytes([3; 18]));
            desk.openings.count("charge", TenantId(1), Token(IdBytes([9; 18])), "sandbox", event);
            desk.openings.acknowledge(&[event]);
            desk.state(now);
            (ask(&before), now)
        }),
        ("it shows an old one", |desk, now| {
            let old = leaf(&desk.state(now));
            (ask(&old), now + STATEMENT_GOOD_FOR + Duration::from_millis(1))
        }),
    ];

    /// The last statement, but not as a leaf of the tree.
    const ELSEWHERE: [(&str, Hostile); 3] = [
        ("the leaf is not in the tree", |desk, now| {
            let stated = leaf(&desk.state(now));
            let mut ask = ask(b"another event");
            ask.statement.leaf = stated;
            (ask, now)
        }),
        ("the leaf stands elsewhere", |desk, now| {
            let mut ask = ask(&leaf(&desk.state(now)));
            ask.statement.seq = 0;
            (ask, now)
        }),
        ("it is somebody's words", |desk, now| {
            let words = String::from_utf8(leaf(&desk.state(now))).unwrap();
            let leaf = serde_json::json!({"facts": {"note": words}}).to_string();
            (ask(leaf.as_bytes()), now)
        }),
    ];

    #[test]
    fn a_tree_without_the_last_statement_gets_no_signature() {
        for (name, hostile) in OTHER_STATEMENTS.into_iter().chain(ELSEWHERE) {
            let mut desk = Desk::new("b1");
            let (ask, at) = hostile(&mut desk, Instant::now());
            let refused = desk.signer.consider(&ask, at);
            assert_eq!(refused, Err(Refusal::of(RefusalCode::StatementMissing)), "{name}");
            assert!(desk.signer.kept(2, &desk.keys).is_err(), "{name}");
        }
    }
}
