//! How each wire form keeps its callers from paying twice, and how late it knows things: the rules that can be chosen.

use serde::{Deserialize, Serialize};

use super::ledger::Wire;

const DAY_S: i64 = 24 * 3600;

/// What makes a repetition of a request harmless, if anything does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Class {
    /// An idempotency key: the first answer is stored, a 5xx too where it lasts, and given again.
    Replay,
    /// An idempotency key: only a success is stored; after a decline or an error the same key does it anew.
    SuccessOnly,
    /// The caller's own reference: a second one is refused, never answered again.
    NaturalKey,
    /// Nothing, but for a duplicate window where there is one.
    None,
}

/// What is said otherwise than by default; in seconds of the sandbox's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// What makes a repetition harmless.
    pub idempotency: Option<Class>,
    /// How long a key's stored answer lives.
    pub key_ttl_s: Option<u32>,
    /// How long the same card, amount and invoice are refused as a duplicate; 0 for never.
    pub duplicate_window_s: Option<u32>,
    /// How long look-ups by reference do not see a payment.
    pub search_lag_s: Option<u32>,
    /// When a payment settles: Authorize.Net refunds only later, and a sale can be voided only sooner.
    pub settle_s: Option<u32>,
}

impl Rules {
    /// These, and where they say nothing the others.
    fn or(self, others: Self) -> Self {
        Self {
            idempotency: self.idempotency.or(others.idempotency),
            key_ttl_s: self.key_ttl_s.or(others.key_ttl_s),
            duplicate_window_s: self.duplicate_window_s.or(others.duplicate_window_s),
            search_lag_s: self.search_lag_s.or(others.search_lag_s),
            settle_s: self.settle_s.or(others.settle_s),
        }
    }
}

/// The rules of one wire form, each of them said.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct InForce {
    pub(super) idempotency: Class,
    pub(super) key_ttl_s: i64,
    pub(super) duplicate_window_s: i64,
    pub(super) search_lag_s: i64,
    pub(super) settle_s: i64,
}

impl InForce {
    /// Whether the header with the key means anything.
    pub(super) fn has_keys(&self) -> bool {
        matches!(self.idempotency, Class::Replay | Class::SuccessOnly)
    }
}

/// The rules of all wire forms.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AllRules([Rules; Wire::ALL.len()]);

impl AllRules {
    /// The same for every wire form.
    pub(super) fn of(rules: Rules) -> Self {
        Self([rules; Wire::ALL.len()])
    }

    /// Changes what is said, of one wire form or of all.
    pub(super) fn change(&mut self, wire: Option<Wire>, rules: Rules) {
        for (one, old) in Wire::ALL.iter().zip(&mut self.0) {
            if wire.is_none_or(|wire| wire == *one) {
                *old = rules.or(*old);
            }
        }
    }

    /// What holds for a wire form.
    pub(super) fn in_force(&self, wire: Wire) -> InForce {
        let said = Wire::ALL.iter().zip(&self.0).find(|(one, _)| **one == wire).map(|(_, rules)| *rules);
        let said = said.unwrap_or_default();
        let seconds = |said: Option<u32>, default: i64| said.map_or(default, i64::from);
        // Adyen keeps keys for 31 days at least; Worldpay knows an order by its code, and Authorize.Net refuses the same
        // card, amount and invoice for two minutes.
        let (class, ttl_s, window_s) = match wire {
            Wire::Json | Wire::Stripe => (Class::Replay, DAY_S, 0),
            Wire::Adyen => (Class::Replay, 31 * DAY_S, 0),
            Wire::AuthorizeNet => (Class::None, DAY_S, 120),
            Wire::Worldpay => (Class::NaturalKey, DAY_S, 0),
        };
        InForce {
            idempotency: said.idempotency.unwrap_or(class),
            key_ttl_s: seconds(said.key_ttl_s, ttl_s),
            duplicate_window_s: seconds(said.duplicate_window_s, window_s),
            search_lag_s: seconds(said.search_lag_s, 0),
            settle_s: seconds(said.settle_s, DAY_S),
        }
    }

    /// The longest life of a key.
    pub(super) fn key_ttl_max_s(&self) -> i64 {
        Wire::ALL.iter().map(|wire| self.in_force(*wire).key_ttl_s).max().unwrap_or(DAY_S)
    }
}
