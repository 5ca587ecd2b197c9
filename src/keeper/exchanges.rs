//! What is with the forwarder, and the outcomes that no edge has acknowledged: an edge that died learns them when it is back.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;

use super::updates::Charged;
use crate::card::id::AttemptId;
use crate::wire::forwarder::{Exchange, Outcome, Sent};
use crate::wire::frame;
use crate::wire::keeper::{KNOWN_BYTES_MAX, KNOWN_MAX, Known, PAGE_MAX};

/// Outcomes that are remembered for an edge that does not come.
const OUTCOMES_MAX: usize = 8192;
/// Bytes of them: of charges some 16 MiB, and of forwards twice the 64 MiB that an edge lets be on its way, as one may die and leave as
/// much to the next. Only a redaction that writes much longer what it redacts, or edges that die before they have taken it up, come past it.
const OUTCOMES_BYTES_MAX: usize = 160 << 20;
/// Our word for a forward whose answer was let go of.
const ANSWER_DROPPED: &str = "answer_dropped";

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
    kept: Outcomes,
}

/// Outcomes that no edge has acknowledged, bounded in number and bytes.
///
/// The edge refuses forwards for whose answers there would be no room. Where the bytes are too many all the same, the answers to forwards
/// go first, that of the oldest id first: its forward is told as sent and `unknown`, which it would be without us too, and is never sent
/// again. Where they are too many still, or too many in number, the oldest ids go. That loses no charge: one whose outcome is not here
/// becomes `unknown`, and its processor is asked for it.
#[derive(Default)]
struct Outcomes {
    /// With the bytes that each takes.
    all: BTreeMap<AttemptId, (Outcome, usize)>,
    /// Those that hold the answer to a forward.
    forwarded: BTreeSet<AttemptId>,
    bytes: usize,
}

impl Outcomes {
    fn insert(&mut self, attempt: AttemptId, outcome: Outcome) {
        self.remove(&attempt);
        let bytes = frame::bytes_of(&outcome);
        if outcome.forwarded.is_some() {
            self.forwarded.insert(attempt);
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.all.insert(attempt, (outcome, bytes));
        while self.bytes > OUTCOMES_BYTES_MAX
            && let Some(oldest) = self.forwarded.pop_first()
        {
            self.drop_answer(&oldest);
        }
        while self.all.len() > OUTCOMES_MAX || self.bytes > OUTCOMES_BYTES_MAX {
            let Some(oldest) = self.all.keys().next().copied() else { return };
            self.remove(&oldest);
        }
    }

    fn drop_answer(&mut self, attempt: &AttemptId) {
        let Some((outcome, bytes)) = self.all.get_mut(attempt) else { return };
        outcome.forwarded = None;
        outcome.error = Some(ANSWER_DROPPED.to_owned());
        let left = frame::bytes_of(outcome);
        self.bytes = self.bytes.saturating_sub(*bytes).saturating_add(left);
        *bytes = left;
    }

    fn remove(&mut self, attempt: &AttemptId) {
        if let Some((_, bytes)) = self.all.remove(attempt) {
            self.forwarded.remove(attempt);
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
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
            self.kept.insert(attempt, outcome.clone());
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
            self.kept.remove(attempt);
        }
    }

    /// Attempts whose outcomes no edge has acknowledged, after this one: a page of them.
    pub(super) fn unacknowledged(&self, after: Option<AttemptId>) -> Vec<AttemptId> {
        let after = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        self.kept.all.range(after).take(PAGE_MAX).map(|(attempt, _)| *attempt).collect()
    }

    /// What is known of these attempts: of the first of them, as many as an answer takes.
    pub(super) fn known(&self, attempts: &[AttemptId]) -> Vec<Known> {
        // What is only asked about may have come to its end already.
        let sending = self.under_way.values().filter(|one| !one.is_look_up);
        let under_way: HashSet<AttemptId> = sending.map(|one| one.attempt).collect();
        let mut answer = Vec::new();
        let mut all_bytes = 0_usize;
        for attempt in attempts.iter().take(KNOWN_MAX) {
            let known = match self.kept.all.get(attempt) {
                // One that is being sent once more has no last word yet.
                _ if under_way.contains(attempt) => Known::UnderWay,
                Some((outcome, bytes)) => {
                    all_bytes = all_bytes.saturating_add(*bytes);
                    if all_bytes > KNOWN_BYTES_MAX && !answer.is_empty() {
                        return answer;
                    }
                    Known::Outcome(Box::new(outcome.clone()))
                }
                None => Known::Nothing,
            };
            answer.push(known);
        }
        answer
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::id::IdBytes;
    use crate::wire::forwarder::Forwarded;
    use crate::wire::frame::FRAME_BYTES_MAX;
    use crate::wire::keeper::FromKeeper;

    fn attempt(number: u16) -> AttemptId {
        let mut bytes = [0; 18];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        AttemptId(IdBytes(bytes))
    }

    fn forward(number: u16) -> Outcome {
        let body = "x".repeat(256 << 10);
        let forwarded = Forwarded { http_status: 200, headers: Vec::new(), is_json: false, body };
        let outcome = Outcome { error: None, ..failed(attempt(number), Sent::Yes, "") };
        Outcome { forwarded: Some(Box::new(forwarded)), ..outcome }
    }

    #[test]
    fn however_much_nobody_acknowledged_each_answer_fits_a_frame() {
        let mut exchanges = Exchanges::default();
        let all: Vec<AttemptId> = (0..40).map(attempt).collect();
        (0..40).for_each(|number| exchanges.kept.insert(attempt(number), forward(number)));
        let mut left = all.clone();
        while !left.is_empty() {
            let known = exchanges.known(&left);
            assert!(known.iter().all(|known| matches!(known, Known::Outcome(_))) && !known.is_empty());
            left.drain(..known.len());
            let bytes = frame::bytes_of(&FromKeeper::Known(known));
            assert!(bytes < FRAME_BYTES_MAX / 2, "{bytes}");
        }
        assert!(matches!(
            exchanges.known(&[attempt(41), attempt(0)])[..],
            [Known::Nothing, Known::Outcome(_)]
        ));
        // The ids come in pages, and each once.
        (40..3000).for_each(|number| {
            exchanges.kept.insert(attempt(number), failed(attempt(number), Sent::Maybe, "x"))
        });
        let (mut seen, mut pages) = (Vec::new(), 0);
        loop {
            let page = exchanges.unacknowledged(seen.last().copied());
            if page.is_empty() {
                break;
            }
            pages += 1;
            seen.extend(page);
        }
        assert_eq!((pages, seen), (3, (0..3000).map(attempt).collect()));
    }

    #[test]
    fn what_is_held_is_bounded_and_the_oldest_answers_of_forwards_go_first() {
        const LAST: u16 = 700;
        let mut exchanges = Exchanges::default();
        let charge = failed(attempt(0), Sent::Maybe, "timeout");
        exchanges.kept.insert(attempt(0), charge.clone());
        (1..=LAST).for_each(|number| exchanges.kept.insert(attempt(number), forward(number)));
        assert!(exchanges.kept.bytes <= OUTCOMES_BYTES_MAX);
        let outcome = |exchanges: &Exchanges, number| match &exchanges.known(&[attempt(number)])[..] {
            [Known::Outcome(outcome)] => (**outcome).clone(),
            known => panic!("{known:?}"),
        };
        assert_eq!(outcome(&exchanges, 0), charge);
        let oldest = outcome(&exchanges, 1);
        assert_eq!(
            (oldest.sent, oldest.forwarded, oldest.error.as_deref()),
            (Sent::Yes, None, Some(ANSWER_DROPPED))
        );
        assert_eq!(outcome(&exchanges, LAST), forward(LAST));
        let sum: usize = exchanges.kept.all.values().map(|(outcome, _)| frame::bytes_of(outcome)).sum();
        assert_eq!(exchanges.kept.bytes, sum);
        let all: Vec<AttemptId> = (0..=LAST).map(attempt).collect();
        exchanges.acknowledge(&all);
        assert_eq!(
            (exchanges.kept.bytes, exchanges.kept.all.len(), exchanges.kept.forwarded.len()),
            (0, 0, 0)
        );
        (0..9000).for_each(|number| {
            exchanges.kept.insert(attempt(number), failed(attempt(number), Sent::Not, "x"))
        });
        assert_eq!(exchanges.kept.all.len(), OUTCOMES_MAX);
        assert!(matches!(
            exchanges.known(&[attempt(0), attempt(8999)])[..],
            [Known::Nothing, Known::Outcome(_)]
        ));
    }
}
