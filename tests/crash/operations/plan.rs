//! What is done, chosen by a seed: stories of one card each, one step after the other.

use crate::common::numbers::complete;

/// A destination, and with it a class of idempotency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// Stripe's wire: keys whose answers are given again.
    Replay,
    /// The plain wire, of whose keys only successes are kept.
    SuccessOnly,
    /// Worldpay's wire: the order code is ours, and unique.
    NaturalKey,
    /// Authorize.Net's wire: nothing but a duplicate window.
    None,
    /// Adyen's wire: no look-up; what becomes of a payment is told by webhook.
    Told,
}

impl Lane {
    pub(super) const ALL: [Self; 5] =
        [Self::Replay, Self::SuccessOnly, Self::NaturalKey, Self::None, Self::Told];

    /// Its destination's and connector's name.
    pub(super) const fn destination(self) -> &'static str {
        match self {
            Self::Replay => "stripe",
            Self::SuccessOnly => "success_only",
            Self::NaturalKey => "worldpay",
            Self::None => "authorize_net_json",
            Self::Told => "adyen",
        }
    }

    /// The word for its wire in the sandbox's ledger.
    pub(super) const fn wire(self) -> &'static str {
        match self {
            Self::Replay => "stripe",
            Self::SuccessOnly => "json",
            Self::NaturalKey => "worldpay",
            Self::None => "authorize_net",
            Self::Told => "adyen",
        }
    }
}

/// One operation of a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Sale {
        amount: i64,
        allow_partial: bool,
        with_cvc: bool,
    },
    Authorize {
        amount: i64,
    },
    Verify,
    /// So many hundredths of what is left.
    Capture {
        hundredths: i64,
        last: bool,
    },
    /// So many hundredths of what was captured and not given back.
    Refund {
        hundredths: i64,
    },
    Void,
    /// Another number, with this behaviour.
    Renumber {
        suffix: u32,
    },
    /// Another expiry.
    Extend {
        exp_year: u16,
    },
    Erase,
}

/// A card and what is done with it.
#[derive(Clone, Debug)]
pub(super) struct Story {
    pub(super) at: usize,
    pub(super) lane: Lane,
    pub(super) number: String,
    pub(super) steps: Vec<Step>,
}

impl Story {
    /// The story of this place in the plan of a seed.
    pub(super) fn make(seed: u64, at: usize) -> Self {
        let mut dice = Dice::new(seed, at);
        let lane = Lane::ALL[at % Lane::ALL.len()];
        let suffix = dice.suffix(lane);
        let steps = steps(&mut dice, lane);
        Self { at, lane, number: number("468738", at, suffix), steps }
    }

    /// The number that its card gets by an update.
    pub(super) fn new_number(&self, suffix: u32) -> String {
        number("468739", self.at, suffix)
    }
}

fn number(bin: &str, at: usize, suffix: u32) -> String {
    complete(&format!("{bin}{at:06}{suffix:03}"))
}

fn steps(dice: &mut Dice, lane: Lane) -> Vec<Step> {
    let amount = 1_000 + i64::try_from(dice.below(9_000)).unwrap();
    let hundredths = 10 + i64::try_from(dice.below(50)).unwrap();
    let sale = Step::Sale { amount, allow_partial: dice.below(2) == 0, with_cvc: dice.below(10) == 0 };
    let refund = Step::Refund { hundredths };
    let authorize = Step::Authorize { amount };
    let capture = Step::Capture { hundredths: 60, last: true };
    match dice.below(12) {
        0 | 1 => vec![sale],
        2 | 3 => vec![sale, refund, Step::Refund { hundredths: 100 }],
        4 => vec![authorize, capture, refund],
        5 => vec![authorize, Step::Capture { hundredths: 30, last: false }, capture, refund, refund],
        6 | 7 => vec![authorize, Step::Void],
        8 => vec![sale, Step::Renumber { suffix: dice.suffix(lane) }, sale, refund],
        9 => vec![sale, Step::Erase, refund],
        10 => {
            vec![Step::Extend { exp_year: 2035 }, sale, refund, Step::Extend { exp_year: 2036 }, Step::Erase]
        }
        _ => vec![Step::Verify, sale, Step::Erase],
    }
}

/// A seeded sequence (SplitMix64), apart for each story.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64, at: usize) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (at as u64).rotate_left(32));
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    /// What the sandbox does with a number, by the three digits before its check digit: every decline, hold, partial approval and
    /// lost answer there is; half of them are simply approved.
    fn suffix(&mut self, lane: Lane) -> u32 {
        const BEHAVIOURS: [u32; 34] = [
            900, 901, 902, 905, 920, 940, 960, 961, 962, 962, 970, 971, 971, 972, 972, 973, 974, 975, 976,
            977, 978, 979, 980, 981, 982, 983, 984, 986, 989, 990, 991, 992, 993, 994,
        ];
        match self.below(2) {
            0 => 0,
            _ if lane == Lane::NaturalKey && self.below(20) == 0 => 995,
            _ => BEHAVIOURS[self.below(BEHAVIOURS.len())],
        }
    }
}
