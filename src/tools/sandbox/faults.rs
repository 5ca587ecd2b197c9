//! Which request meets which fault, beside what its card asks for: scripts that count requests, and seeded chance.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::ledger::{Kind, Wire};
use super::numbers::Fault;

/// Chance cuts an answer after fewer bytes than two to this; each power of two is as likely, so that also a short answer
/// is rarely left whole.
const CUT_BITS_MAX: u64 = 10;

/// Which requests a script is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// This operation.
    Operation(Kind),
    /// Look-ups.
    LookUp,
    /// Webhooks.
    Webhook,
}

/// When a script is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    /// A connection was accepted.
    Connection,
    /// A request's head was read.
    Head,
    /// A new request.
    New(Kind),
    /// A repetition of a key with a stored answer.
    Repeat(Kind),
    /// A look-up.
    LookUp,
    /// A webhook is about to be told.
    Webhook,
}

/// Some requests meet this fault, whatever their card.
#[derive(Clone, Copy, Debug)]
pub(super) struct Script {
    pub(super) fault: Fault,
    /// After so many bytes of the answer.
    pub(super) at: Option<u32>,
    pub(super) charges: bool,
    /// For how long the answer asks to be left alone.
    pub(super) retry_after: Option<RetryAfter>,
    /// Whether every repetition of the key meets it too.
    pub(super) lasting: bool,
    /// Whether it meets repetitions of a key instead of new requests.
    pub(super) repeats: bool,
    pub(super) only: Option<Target>,
    pub(super) wire: Option<Wire>,
    /// So many requests pass before the first that meets it.
    pub(super) skip: u32,
    pub(super) left: u32,
}

impl Script {
    fn meets(&self, occasion: Occasion, wire: Option<Wire>) -> bool {
        let fits = match occasion {
            Occasion::Connection => self.fault == Fault::Refuse,
            Occasion::Head => self.fault == Fault::ResetBefore,
            Occasion::New(kind) => {
                is_of_an_answer(self.fault)
                    && !self.repeats
                    && self.only.is_none_or(|only| only == Target::Operation(kind))
            }
            Occasion::Repeat(kind) => {
                is_of_an_answer(self.fault)
                    && self.repeats
                    && self.only.is_none_or(|only| only == Target::Operation(kind))
            }
            Occasion::LookUp => is_of_an_answer(self.fault) && self.only == Some(Target::LookUp),
            Occasion::Webhook => self.only == Some(Target::Webhook),
        };
        fits && self.left > 0 && self.wire.is_none_or(|only| wire == Some(only))
    }
}

fn is_of_an_answer(fault: Fault) -> bool {
    !matches!(fault, Fault::Refuse | Fault::ResetBefore)
}

/// Faults by chance, the same for the same seed and the same order of requests.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chance {
    pub(super) seed: u64,
    /// How many of a thousand requests meet a fault.
    pub(super) per_mille: u16,
    #[serde(default = "every_fault")]
    pub(super) faults: Vec<Fault>,
}

/// What chance takes unless it is said: all that a network and a processor do to a single request, but nothing that
/// holds a caller until its own time is up.
fn every_fault() -> Vec<Fault> {
    vec![
        Fault::Refuse,
        Fault::ResetBefore,
        Fault::Reset,
        Fault::Truncate,
        Fault::Garbage,
        Fault::Drop,
        Fault::Error500,
        Fault::Unavailable,
        Fault::RateLimited,
        Fault::Empty,
        Fault::Duplicate,
        Fault::PlainText,
    ]
}

/// What a `Retry-After` says.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryAfter {
    pub(super) seconds: u32,
    /// As the date of that instant, by the machine's clock.
    #[serde(default)]
    pub(super) date: bool,
}

/// What a request meets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Met {
    pub(super) fault: Fault,
    pub(super) at: Option<u32>,
    pub(super) retry_after: Option<RetryAfter>,
    /// Whether the operation is carried out before it.
    pub(super) charges: bool,
    pub(super) lasting: bool,
}

impl Met {
    /// Nothing goes wrong.
    pub(super) const NOTHING: Self =
        Self { fault: Fault::None, at: None, retry_after: None, charges: true, lasting: false };
}

/// The scripts, and chance.
#[derive(Debug, Default)]
pub(super) struct Faults {
    scripts: Vec<Script>,
    chance: Option<Chance>,
    drawn: u64,
    /// How often each fault was met, by the wire form where that was known.
    met: BTreeMap<(String, Option<&'static str>), u64>,
}

impl Faults {
    /// Replaces what there was.
    pub(super) fn set(&mut self, scripts: Vec<Script>, chance: Option<Chance>) {
        (self.scripts, self.chance, self.drawn) = (scripts, chance, 0);
    }

    /// What is left of the scripts, and how often each fault was met since the sandbox started. What was reset before it
    /// was read, or refused, left no line in the ledger: it is told here alone.
    pub(super) fn as_json(&self) -> Value {
        let left: u32 = self.scripts.iter().map(|script| script.left).sum();
        let met = self
            .met
            .iter()
            .map(|((fault, wire), count)| json!({ "fault": fault, "wire": wire, "count": count }));
        json!({
            "left": left,
            "per_mille": self.chance.as_ref().map_or(0, |chance| chance.per_mille),
            "met": met.collect::<Vec<_>>(),
        })
    }

    /// What a request meets now. A script that fits counts this request.
    pub(super) fn next(&mut self, occasion: Occasion, wire: Option<Wire>) -> Option<Met> {
        let mut met = None;
        for script in self.scripts.iter_mut().filter(|script| script.meets(occasion, wire)) {
            if script.skip > 0 {
                script.skip -= 1;
            } else if met.is_none() {
                script.left -= 1;
                let Script { fault, at, retry_after, charges, lasting, .. } = *script;
                met = Some(Met { fault, at, retry_after, charges, lasting });
            }
        }
        let met = met.or_else(|| self.by_chance(occasion, wire));
        if let Some(met) = met.filter(|met| !met.fault.is_none()) {
            *self.met.entry((met.fault.word(), wire.map(Wire::word))).or_default() += 1;
        }
        met
    }

    fn by_chance(&mut self, occasion: Occasion, wire: Option<Wire>) -> Option<Met> {
        let chance = self.chance.as_ref()?;
        let fitting = |fault: &&Fault| match occasion {
            Occasion::Connection => **fault == Fault::Refuse,
            Occasion::Head => **fault == Fault::ResetBefore,
            // Only Worldpay answers with a line of text.
            Occasion::New(_) | Occasion::Repeat(_) | Occasion::LookUp => {
                is_of_an_answer(**fault) && (**fault != Fault::PlainText || wire == Some(Wire::Worldpay))
            }
            // A webhook that is told twice is the only fault of theirs that comes by chance.
            Occasion::Webhook => **fault == Fault::Duplicate,
        };
        let faults: Vec<Fault> = chance.faults.iter().filter(fitting).copied().collect();
        let (share, all) = (faults.len() as u64, chance.faults.len().max(1) as u64);
        let (seed, per_mille) = (chance.seed, u64::from(chance.per_mille));
        let mut draw = || {
            self.drawn += 1;
            mixed(seed.wrapping_add(self.drawn))
        };
        // Each place where a fault can happen takes the share of the rate that its faults are.
        if share == 0 || draw() % (1000 * all) >= per_mille * share {
            return None;
        }
        let fault = *faults.get(usize::try_from(draw() % share).ok()?)?;
        let bits = draw() % (CUT_BITS_MAX + 1);
        let at = u32::try_from(draw() % (1 << bits)).ok();
        let never_charges = matches!(fault, Fault::RateLimited | Fault::Unauthorized | Fault::Redirect);
        let charges = draw() % 2 == 0 && !never_charges;
        // A whole answer says what was done: it cannot come without it.
        let charges = charges || matches!(fault, Fault::Duplicate | Fault::Delay);
        Some(Met { fault, at, charges, ..Met::NOTHING })
    }
}

/// SplitMix64: the next number of a sequence that only its seed decides.
fn mixed(state: u64) -> u64 {
    let z = state.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(fault: Fault) -> Script {
        Script {
            fault,
            at: None,
            retry_after: None,
            charges: true,
            lasting: false,
            repeats: false,
            only: None,
            wire: None,
            skip: 0,
            left: 1,
        }
    }

    #[test]
    fn the_kth_fitting_request_meets_it_and_no_other() {
        let mut faults = Faults::default();
        let second = Script { skip: 1, wire: Some(Wire::Adyen), ..script(Fault::Reset) };
        faults.set(vec![second], None);
        let mut next = |wire| faults.next(Occasion::New(Kind::Sale), Some(wire)).map(|met| met.fault);
        assert_eq!(
            [next(Wire::Adyen), next(Wire::Json), next(Wire::Adyen)],
            [None, None, Some(Fault::Reset)]
        );
        assert_eq!(next(Wire::Adyen), None);
    }

    #[test]
    fn chance_keeps_its_rate_and_its_seed() {
        let run = |seed| {
            let mut faults = Faults::default();
            faults.set(Vec::new(), Some(Chance { seed, per_mille: 200, faults: every_fault() }));
            let each = (0..10_000).map(|_| {
                let places = [Occasion::Connection, Occasion::Head, Occasion::New(Kind::Sale)];
                places.map(|place| faults.next(place, Some(Wire::Worldpay)).map(|met| (met.fault, met.at)))
            });
            each.collect::<Vec<_>>()
        };
        let (one, again, other) = (run(1), run(1), run(2));
        assert!(one == again && one != other);
        let met = one.iter().flatten().flatten().count();
        assert!((1_800..2_200).contains(&met), "{met}");
    }

    #[test]
    fn what_says_nothing_was_done_does_nothing() {
        let mut faults = Faults::default();
        let limited = vec![Fault::RateLimited];
        faults.set(Vec::new(), Some(Chance { seed: 3, per_mille: 1000, faults: limited }));
        let met = (0..100).filter_map(|_| faults.next(Occasion::New(Kind::Sale), None));
        assert!(met.map(|met| met.charges).all(|charges| !charges));
    }
}
