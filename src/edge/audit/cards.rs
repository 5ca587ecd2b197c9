//! Holds the database's cards against the log: the last event of each card says its version, the digest of its sealed
//! fields, whether it is active, suspended or erased, and whether a legal hold keeps it from being erased.

use std::collections::HashMap;

use super::catalogue;
use super::event::EventOutcome;
use super::export::CardState;
use super::read::{OwnedLeaf, read_hash};
use crate::attest::merkle::Hash;
use crate::card::id::Token;
use crate::edge::store::CardStatus;

/// What is wrong with a card; the token is an id of ours and may be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CardFault {
    /// An event about a card that does not say enough.
    #[error("the card event carries no token, version or digest")]
    Event,
    /// The log knows the card, the database does not.
    #[error("card {0} of the log is missing in the database")]
    Missing(Token),
    /// The database has a card that the log does not know.
    #[error("card {0} of the database is not in the log")]
    Extra(Token),
    /// An older version.
    #[error("card {token} was rolled back: the database has version {found}, the log says {logged}")]
    RolledBack {
        /// Which.
        token: Token,
        /// The database's version.
        found: u32,
        /// The log's version.
        logged: u32,
    },
    /// A newer version.
    #[error("card {token} is newer than the log: the database has version {found}, the log says {logged}")]
    Newer {
        /// Which.
        token: Token,
        /// The database's version.
        found: u32,
        /// The log's version.
        logged: u32,
    },
    /// The right version with other bytes.
    #[error("the sealed fields of card {0} are not those of the log")]
    Digest(Token),
    /// Active, suspended or erased otherwise than the log says.
    #[error("the status of card {0} is not that of the log")]
    Status(Token),
    /// A legal hold set or released behind everybody's back, or the erase that waits for its release called off or asked for.
    #[error("the legal hold of card {0}, or the erase that waits for its release, is not that of the log")]
    Hold(Token),
}

/// What the log says of all cards so far.
#[derive(Debug, Default)]
pub struct Cards {
    known: HashMap<Token, Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    at: u64,
    version: u32,
    digest: Hash,
    status: Logged,
    held: bool,
    erase_asked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Logged {
    Active,
    Suspended,
    Erased,
}

impl Cards {
    /// Takes an event of the log.
    pub fn take(&mut self, leaf: &OwnedLeaf, faults: &mut Vec<(u64, CardFault)>) {
        if leaf.action == catalogue::CARD_RESEAL && leaf.outcome == EventOutcome::Ok {
            return self.take_resealed(leaf, faults);
        }
        let status = match leaf.action.as_str() {
            catalogue::CARD_CREATE | catalogue::CARD_ACTIVATE => Some(Logged::Active),
            catalogue::CARD_SUSPEND => Some(Logged::Suspended),
            catalogue::CARD_ERASE => Some(Logged::Erased),
            catalogue::CARD_UPDATE | catalogue::CARD_HOLD => None,
            _ => return,
        };
        if leaf.outcome != EventOutcome::Ok {
            return;
        }
        let digest = leaf.facts.card_sha256.as_deref().map(read_hash);
        let (Some(token), false) = (Token::parse(&leaf.target.id), digest == Some(None)) else {
            faults.push((leaf.seq, CardFault::Event));
            return;
        };
        let before = self.known.get(&token).copied();
        let version = leaf.target.version.or(before.map(|known| known.version));
        let digest = digest.flatten().or(before.map(|known| known.digest));
        let (Some(version), Some(digest), Some((held, erase_asked))) = (version, digest, hold(leaf, before))
        else {
            faults.push((leaf.seq, CardFault::Event));
            return;
        };
        let status = status.or(before.map(|known| known.status)).unwrap_or(Logged::Active);
        self.known.insert(token, Known { at: leaf.seq, version, digest, status, held, erase_asked });
    }

    /// Cards with other sealed bytes of the version that they have. Those of a version before are held against nothing.
    fn take_resealed(&mut self, leaf: &OwnedLeaf, faults: &mut Vec<(u64, CardFault)>) {
        for card in &leaf.facts.cards {
            let known = self.known.get_mut(&card.token).filter(|known| card.version <= known.version);
            match (known, read_hash(&card.sha256)) {
                (Some(known), Some(digest)) => {
                    if card.version == known.version {
                        (known.digest, known.at) = (digest, leaf.seq);
                    }
                }
                _ => faults.push((leaf.seq, CardFault::Event)),
            }
        }
    }

    /// Compares a row of the database, each of which comes once; gives the card's last event and what is wrong.
    pub fn compare(&mut self, row: &CardState) -> Option<(Option<u64>, CardFault)> {
        match self.known.remove(&row.token) {
            None => Some((None, CardFault::Extra(row.token))),
            Some(known) => difference(row, &known).map(|fault| (Some(known.at), fault)),
        }
    }

    /// The cards for which no row came, by their last events.
    pub fn missing(self) -> Vec<(u64, CardFault)> {
        let mut missing: Vec<_> =
            self.known.into_iter().map(|(token, known)| (known.at, CardFault::Missing(token))).collect();
        missing.sort_unstable_by_key(|(at, _)| *at);
        missing
    }
}

/// Whether a hold is set, and whether an erase waits for its release, after an event; `None` if the event does not say it rightly.
fn hold(leaf: &OwnedLeaf, before: Option<Known>) -> Option<(bool, bool)> {
    let (held, erase_asked) = before.map_or((false, false), |known| (known.held, known.erase_asked));
    match (leaf.action.as_str(), leaf.facts.note.as_deref()) {
        (catalogue::CARD_HOLD, Some("set")) => Some((true, erase_asked)),
        (catalogue::CARD_HOLD, Some("released")) => Some((false, erase_asked)),
        // Another one still keeps it.
        (catalogue::CARD_HOLD, Some("released_one")) => Some((held, erase_asked)),
        (catalogue::CARD_HOLD, _) => None,
        (catalogue::CARD_SUSPEND, Some("legal_hold")) => Some((held, true)),
        (catalogue::CARD_ERASE, _) => Some((held, false)),
        _ => Some((held, erase_asked)),
    }
}

fn difference(row: &CardState, known: &Known) -> Option<CardFault> {
    let (token, found, logged) = (row.token, row.version, known.version);
    let hold =
        ((row.held, row.erase_asked) != (known.held, known.erase_asked)).then_some(CardFault::Hold(token));
    let expected = match row.status {
        CardStatus::Active => Logged::Active,
        CardStatus::Suspended => Logged::Suspended,
        CardStatus::Erasing | CardStatus::Erased => Logged::Erased,
    };
    if row.status == CardStatus::Erased && known.status == Logged::Erased {
        // What is gone has no digest, and its last version does not matter any more.
        return row.digest.is_some().then_some(CardFault::Digest(token)).or(hold);
    }
    if found < logged {
        Some(CardFault::RolledBack { token, found, logged })
    } else if found > logged {
        Some(CardFault::Newer { token, found, logged })
    } else if expected != known.status {
        Some(CardFault::Status(token))
    } else if row.digest != Some(known.digest) {
        Some(CardFault::Digest(token))
    } else {
        hold
    }
}
