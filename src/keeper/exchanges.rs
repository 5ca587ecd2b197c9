//! What is with the forwarder, and the outcomes that no edge has acknowledged: an edge that died learns them when it is back.

use std::collections::{BTreeMap, HashMap};

use super::updates::Charged;
use crate::card::id::AttemptId;
use crate::wire::forwarder::{Exchange, Outcome, Sent};
use crate::wire::keeper::{Opened, Unacknowledged};

/// Outcomes that are remembered for an edge that does not come; the oldest ids go first.
const OUTCOMES_MAX: usize = 8192;

/// The question that waits for an exchange.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    /// Which edge asked: counts the edge pairs.
    pub(super) generation: u64,
    /// The question's id on that pair.
    pub(super) id: u64,
}

/// A request that is ready to leave, and the card that it puts to its issuer.
pub(super) struct Outgoing {
    pub(super) exchange: Exchange,
    pub(super) charged: Option<Box<Charged>>,
}

impl From<Exchange> for Outgoing {
    fn from(exchange: Exchange) -> Self {
        Self { exchange, charged: None }
    }
}

/// An exchange that is with the forwarder.
struct UnderWay {
    attempt: AttemptId,
    asker: Asker,
    is_look_up: bool,
    destination: String,
    credentials: u8,
    charged: Option<Box<Charged>>,
}

/// Exchanges under way and outcomes.
#[derive(Default)]
pub(super) struct Exchanges {
    next: u64,
    /// Who waits for a webhook that is being checked.
    webhooks: HashMap<u64, Asker>,
    under_way: HashMap<u64, UnderWay>,
    outcomes: BTreeMap<AttemptId, Outcome>,
}

impl Exchanges {
    /// Notes an exchange that goes to the forwarder now; answers with its number there.
    pub(super) fn begin(
        &mut self,
        exchange: &Exchange,
        charged: Option<Box<Charged>>,
        asker: Asker,
        is_look_up: bool,
    ) -> u64 {
        self.next = self.next.wrapping_add(1);
        let under_way = UnderWay {
            attempt: exchange.attempt,
            asker,
            is_look_up,
            destination: exchange.destination.clone(),
            credentials: exchange.credentials,
            charged,
        };
        self.under_way.insert(self.next, under_way);
        self.next
    }

    /// Notes a webhook that goes to the forwarder now; answers with its number there.
    pub(super) fn begin_webhook(&mut self, asker: Asker) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.webhooks.insert(self.next, asker);
        self.next
    }

    /// Who waits for webhook `number`.
    pub(super) fn finish_webhook(&mut self, number: u64) -> Option<Asker> {
        self.webhooks.remove(&number)
    }

    /// The forwarder is gone: whoever waits for a webhook sends it again.
    pub(super) fn lose_webhooks(&mut self) -> Vec<Asker> {
        self.webhooks.drain().map(|(_, asker)| asker).collect()
    }

    /// Where exchange `number` went, and with which of the credentials.
    pub(super) fn sent_with(&self, number: u64) -> Option<(&str, u8)> {
        self.under_way.get(&number).map(|one| (one.destination.as_str(), one.credentials))
    }

    /// The card that exchange `number` puts to its issuer; an answer speaks of it once.
    pub(super) fn take_charged(&mut self, number: u64) -> Option<Box<Charged>> {
        self.under_way.get_mut(&number)?.charged.take()
    }

    /// The forwarder's answer to exchange `number`; answers with who asked. The outcome of a verb is remembered until it is
    /// acknowledged; that of a look-up is not, it can be asked again.
    pub(super) fn finish(&mut self, number: u64, outcome: &Outcome) -> Option<Asker> {
        let UnderWay { attempt, asker, is_look_up, .. } = self.under_way.remove(&number)?;
        if !is_look_up {
            self.outcomes.insert(attempt, outcome.clone());
            while self.outcomes.len() > OUTCOMES_MAX {
                self.outcomes.pop_first();
            }
        }
        Some(asker)
    }

    /// The forwarder is gone: nobody knows how far each exchange came.
    pub(super) fn lose_all(&mut self) -> Vec<(Asker, Outcome)> {
        let lost: Vec<u64> = self.under_way.keys().copied().collect();
        lost.into_iter()
            .filter_map(|number| {
                let attempt = self.under_way.get(&number)?.attempt;
                let outcome = failed(attempt, Sent::Maybe, "forwarder_lost");
                self.finish(number, &outcome).map(|asker| (asker, outcome))
            })
            .collect()
    }

    /// Forgets outcomes that are committed.
    pub(super) fn acknowledge(&mut self, attempts: &[AttemptId]) {
        for attempt in attempts {
            self.outcomes.remove(attempt);
        }
    }

    /// What no edge has acknowledged.
    pub(super) fn unacknowledged(&self, openings: Vec<Opened>) -> Unacknowledged {
        Unacknowledged {
            outcomes: self.outcomes.values().cloned().collect(),
            under_way: self.under_way.values().map(|one| one.attempt).collect(),
            openings,
        }
    }
}

/// An outcome without an answer.
pub(super) fn failed(attempt: AttemptId, sent: Sent, error: &str) -> Outcome {
    Outcome {
        attempt,
        sent,
        answer: None,
        error: Some(error.to_owned()),
        credentials_changed: false,
        card_update: None,
        upstream_us: 0,
        forwarded: None,
    }
}
