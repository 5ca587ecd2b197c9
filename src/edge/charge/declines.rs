//! What the card networks allow after a decline: each is counted by number, merchant account and who asked, in the commit of its
//! outcome; and what they forbid is not sent for a merchant.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{Error, lock};
use crate::card::brand::Brand;
use crate::card::id::FingerprintId;
use crate::clock::Time;
use crate::connector::Word;
use crate::connector::network::{self, COUNTED_SECONDS, Limit, Retry, Rule, Said};
use crate::edge::App;
use crate::edge::keeper::KeeperError;
use crate::edge::store::{
    AgreementRow, AttemptState, Bar, CardRow, ChargeRow, DeclineRow, NetworkRule, OperationKind, RowChange,
};
use crate::wire::forwarder::{Answer, Outcome};

const HOUR_SECONDS: i64 = 3_600;

/// Why a merchant may not try a card now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// From when on it may be tried; none if never, or not before the customer has agreed anew.
    pub until: Option<Time>,
}

/// How long a try waits for others of the same card that are under way, before it is told to come again.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Of the places, each with a count of its own of what has ended.
const PARTS: u64 = 64;

/// A merchant's tries that are under way, by number and destination: each may be declined, so that together they stay within the
/// limits only if no more are under way than may still be declined.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    counts: Mutex<Counts>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    under_way: HashMap<Place, usize>,
    /// How many tries have ended, by a part of their place. What was read of the declines before one ended lacks its outcome.
    ended: HashMap<u64, u64>,
}

impl Counts {
    fn ended(&mut self, place: Place) -> &mut u64 {
        self.ended.entry(place.1 % PARTS).or_default()
    }
}

/// A number at a destination, and the hash of both.
type Place = (FingerprintId, u64);

/// A try that is under way until this is dropped, when its outcome is counted.
pub(super) struct Slot {
    app: App,
    place: Place,
}

/// Why there is no slot.
enum NoSlot {
    /// As many are under way as may be.
    Full,
    /// One has ended since the declines were read: they have to be read again.
    Stale,
}

impl Slot {
    /// `ended` is how many had ended before the declines were read that leave this room.
    fn take(app: &App, place: Place, room: usize, ended: u64) -> Result<Self, NoSlot> {
        let mut counts = lock(&app.charges.under_way.counts);
        if *counts.ended(place) != ended {
            return Err(NoSlot::Stale);
        }
        let count = counts.under_way.entry(place).or_default();
        if *count >= room {
            return Err(NoSlot::Full);
        }
        *count += 1;
        Ok(Self { app: Arc::clone(app), place })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let under_way = &self.app.charges.under_way;
        let mut counts = lock(&under_way.counts);
        *counts.ended(self.place) += 1;
        if let Entry::Occupied(mut entry) = counts.under_way.entry(self.place) {
            *entry.get_mut() = entry.get().saturating_sub(1);
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        drop(counts);
        under_way.ended.notify_waiters();
    }
}

/// Refuses what the networks' rules forbid a merchant to send. While as many tries of the card are under way as may still be
/// declined, another waits for them. Gives what has to be held until the outcome is counted; nothing where no limit is known.
pub(super) async fn enter(
    app: &App,
    card: &CardRow,
    destination: &str,
    agreement: Option<&AgreementRow>,
) -> Result<Option<Slot>, Error> {
    let brand = card.shown.as_ref().map_or(Brand::Unknown, |shown| shown.brand);
    let limits = network::limits(brand);
    let agreed_at = agreement.map(|row| row.created_at);
    let place = place_of(card.fingerprint, destination);
    let began = Instant::now();
    loop {
        // Made before the count is looked at, so that no end is missed in between.
        let another_ends = app.charges.under_way.ended.notified();
        let ended = *lock(&app.charges.under_way.counts).ended(place);
        let rows = app.store.declines(card.fingerprint, destination, true).await?;
        let now = app.clock.now();
        if let Some(forbidden) = forbidden(&rows, limits, agreed_at, now) {
            return Err(Error::NetworkForbids(forbidden));
        }
        let Some(room) = room(&rows, limits, now) else { return Ok(None) };
        let left = WAIT_MAX.saturating_sub(began.elapsed());
        let may_wait = !left.is_zero();
        match Slot::take(app, place, room, ended) {
            Ok(slot) => return Ok(Some(slot)),
            Err(NoSlot::Stale) if may_wait => {}
            Err(NoSlot::Full) if may_wait && tokio::time::timeout(left, another_ends).await.is_ok() => {}
            Err(NoSlot::Stale | NoSlot::Full) => return Err(KeeperError::Busy.into()),
        }
    }
}

fn place_of(fingerprint: FingerprintId, destination: &str) -> Place {
    let mut hasher = DefaultHasher::new();
    destination.hash(&mut hasher);
    fingerprint.hash(&mut hasher);
    (fingerprint, hasher.finish())
}

/// How many more declines the limits leave; none where there are no limits.
fn room(rows: &[DeclineRow], limits: &[Limit], now: Time) -> Option<usize> {
    let left = |limit: &Limit| limit.declines.saturating_sub(within(rows, limit, now).count());
    limits.iter().map(left).min()
}

/// The declines that a limit still counts.
fn within<'a>(rows: &'a [DeclineRow], limit: &Limit, now: Time) -> impl Iterator<Item = &'a DeclineRow> {
    let seconds = i64::from(limit.hours).saturating_mul(HOUR_SECONDS);
    rows.iter().filter(move |row| row.at.plus_seconds(seconds) > now)
}

/// What is forbidden now, after these declines (oldest first); the longest of what several forbid.
fn forbidden(rows: &[DeclineRow], limits: &[Limit], agreed_at: Option<Time>, now: Time) -> Option<Forbidden> {
    let mut until = None;
    for row in rows {
        let one = match row.bar {
            Bar::None => continue,
            Bar::Until(at) => at,
            Bar::Never => return Some(Forbidden { until: None }),
            Bar::UntilAgreed if agreed_at.is_none_or(|at| at <= row.at) => {
                return Some(Forbidden { until: None });
            }
            Bar::UntilAgreed => continue,
        };
        until = until.max(Some(one).filter(|at| *at > now));
    }
    for limit in limits {
        let seconds = i64::from(limit.hours).saturating_mul(HOUR_SECONDS);
        let counted: Vec<&DeclineRow> = within(rows, limit, now).collect();
        // With this one out of the window there is room for one again.
        let first_out = counted.len().checked_sub(limit.declines).and_then(|at| counted.get(at));
        until = until.max(first_out.map(|row| row.at.plus_seconds(seconds)));
    }
    until.map(|until| Forbidden { until: Some(until) })
}

/// Says on a declined attempt what the networks' rules make of it, and gives what is counted.
pub(super) async fn note(
    app: &App,
    charge: &mut ChargeRow,
    outcome: &Outcome,
    now: Time,
) -> Option<RowChange> {
    let answer = outcome.answer.as_ref()?;
    let first = charge.operations.first()?;
    let with_card = match first.kind {
        OperationKind::Sale | OperationKind::Authorize | OperationKind::Verify => true,
        OperationKind::Capture | OperationKind::Refund | OperationKind::Void => false,
    };
    let attempt = first.attempts.iter().find(|attempt| attempt.id == outcome.attempt)?;
    // What a processor holds for review was not declined by the card's issuer.
    if !with_card || attempt.state != AttemptState::Declined || answer.held_for_review {
        return None;
    }
    let card = charged_card(app, charge).await?;
    let brand = card.shown.as_ref().map_or(Brand::Unknown, |shown| shown.brand);
    let rule = network::rule(brand, said(answer, has_network_codes(app, &charge.destination)));
    let row = DeclineRow {
        fingerprint: card.fingerprint,
        destination: charge.destination.clone(),
        by_merchant: charge.initiator == "merchant",
        attempt: outcome.attempt,
        at: now,
        bar: rule.map_or(Bar::None, |rule| bar_of(&rule, now)),
    };
    let first = charge.operations.first_mut()?;
    let attempt = first.attempts.iter_mut().find(|attempt| attempt.id == outcome.attempt)?;
    attempt.rule = rule.map(|rule| shown(&rule, now));
    Some(RowChange::CountDecline(Box::new(row)))
}

/// Whether a decline ends the agreement: Visa R1 and R3 (stop this, stop all recurring payments) where the codes are the network's,
/// Mastercard advice 03 and 21 (do not try again, cancelled) everywhere.
pub(super) fn stops_agreement(app: &App, destination: &str, answer: &Answer) -> bool {
    says_stop(answer, has_network_codes(app, destination))
}

fn says_stop(answer: &Answer, network_codes: bool) -> bool {
    let said = said(answer, network_codes);
    network::stops_agreement(said.network_code, said.advice)
}

/// Whether the codes of a destination are the network's; of one that is gone, nobody knows.
fn has_network_codes(app: &App, destination: &str) -> bool {
    app.directory.destinations().iter().any(|to| to.name == destination && to.network_codes)
}

fn said(answer: &Answer, network_codes: bool) -> Said<'_> {
    Said {
        network_code: answer.processor_code.as_deref().filter(|_| network_codes),
        advice: answer.advice_code.as_deref(),
        class: answer.decline_class.as_deref(),
    }
}

const fn bar_of(rule: &Rule, now: Time) -> Bar {
    match rule.retry {
        Retry::Never if rule.stops_agreement => Bar::UntilAgreed,
        Retry::Never => Bar::Never,
        Retry::After => Bar::Until(now.plus_seconds(rule.after_seconds)),
        // New data has another number, or is the caller's to judge.
        Retry::When => Bar::None,
    }
}

fn shown(rule: &Rule, now: Time) -> NetworkRule {
    NetworkRule {
        name: rule.name.to_owned(),
        retry: rule.retry.text().to_owned(),
        retry_after: (rule.retry == Retry::After).then(|| now.plus_seconds(rule.after_seconds)),
        condition: rule.condition.map(|condition| condition.text().to_owned()),
    }
}

/// The version of the card that was charged.
pub(super) async fn charged_card(app: &App, charge: &ChargeRow) -> Option<CardRow> {
    let current = app.store.card(charge.tenant, charge.token).await.ok()??;
    if current.version == charge.card_version {
        return Some(current);
    }
    app.store.card_version(charge.tenant, charge.token, charge.card_version).await.ok()?
}

/// Forgets what no limit reaches back to.
pub(super) async fn prune(app: &App) {
    let before = app.clock.now().plus_seconds(-COUNTED_SECONDS);
    let rows = vec![RowChange::PruneDeclines(before)];
    // What is not pruned now is pruned by the next round.
    drop(app.store.commit(crate::edge::store::Change { rows, ..Default::default() }).await);
}

#[cfg(test)]
mod tests {
    use super::super::tests::answer;
    use super::*;
    use crate::card::id::{AttemptId, IdBytes};
    use crate::wire::forwarder::Verdict;

    const NOW: Time = Time::from_micros(1_800_000_000_000_000);

    fn declined(hours_ago: i64, bar: Bar) -> DeclineRow {
        DeclineRow {
            fingerprint: FingerprintId(IdBytes([3; 18])),
            destination: "acquirer".to_owned(),
            by_merchant: true,
            attempt: AttemptId(IdBytes([4; 18])),
            at: NOW.plus_seconds(-hours_ago * HOUR_SECONDS),
            bar,
        }
    }

    fn many(count: i64, hours_apart: i64) -> Vec<DeclineRow> {
        (0..count).rev().map(|n| declined(n * hours_apart, Bar::None)).collect()
    }

    fn until(rows: &[DeclineRow], brand: Brand, hours_later: i64) -> Option<Option<i64>> {
        let now = NOW.plus_seconds(hours_later * HOUR_SECONDS);
        let hours = |at: Time| (at.seconds() - NOW.seconds()) / HOUR_SECONDS;
        forbidden(rows, network::limits(brand), None, now).map(|forbidden| forbidden.until.map(hours))
    }

    #[test]
    fn a_code_that_is_the_processors_own_ends_no_agreement() {
        let declined = |code: Option<&str>, advice: Option<&str>| Answer {
            processor_code: code.map(str::to_owned),
            advice_code: advice.map(str::to_owned),
            ..answer(Verdict::Declined)
        };
        for code in ["R1", "R3"] {
            assert!(says_stop(&declined(Some(code), None), true), "{code}");
            assert!(!says_stop(&declined(Some(code), None), false), "{code}");
        }
        for codes in [true, false] {
            assert!(says_stop(&declined(Some("R1"), Some("03")), codes));
            assert!(!says_stop(&declined(Some("51"), Some("02")), codes));
        }
    }

    #[test]
    fn mastercard_takes_ten_declines_a_day_and_thirty_five_in_thirty() {
        assert_eq!(until(&many(9, 1), Brand::Mastercard, 0), None);
        assert_eq!(until(&many(10, 1), Brand::Mastercard, 0), Some(Some(15)));
        assert_eq!(until(&many(10, 1), Brand::Mastercard, 14), Some(Some(15)));
        assert_eq!(until(&many(10, 1), Brand::Mastercard, 15), None);
        assert_eq!(until(&many(34, 12), Brand::Mastercard, 0), None);
        assert_eq!(until(&many(35, 12), Brand::Mastercard, 0), Some(Some(720 - 34 * 12)));
        assert_eq!(until(&many(35, 12), Brand::Mastercard, 720 - 34 * 12), None);
    }

    #[test]
    fn visa_takes_twenty_reattempts_in_thirty_days() {
        assert_eq!(until(&many(20, 1), Brand::Visa, 0), None, "the twentieth reattempt");
        assert_eq!(until(&many(21, 1), Brand::Visa, 0), Some(Some(700)));
        assert_eq!(until(&many(21, 1), Brand::Visa, 700), None);
        assert_eq!(until(&many(100, 1), Brand::Amex, 0), None, "no published limit");
    }

    #[test]
    fn no_more_may_be_under_way_than_may_be_declined() {
        let mastercard = network::limits(Brand::Mastercard);
        assert_eq!(room(&[], mastercard, NOW), Some(10));
        assert_eq!(room(&many(7, 1), mastercard, NOW), Some(3));
        assert_eq!(room(&many(33, 20), mastercard, NOW), Some(2), "the narrower of two");
        assert_eq!(room(&many(7, 1), network::limits(Brand::Amex), NOW), None);
    }

    #[test]
    fn what_a_decline_forbids_holds_until_its_time() {
        let day = [declined(0, Bar::Until(NOW.plus_seconds(24 * HOUR_SECONDS)))];
        assert_eq!(until(&day, Brand::Mastercard, 23), Some(Some(24)));
        assert_eq!(until(&day, Brand::Mastercard, 24), None);
        let lost = [declined(900, Bar::Never), declined(0, Bar::None)];
        assert_eq!(until(&lost, Brand::Visa, 9_000), Some(None));
        // The longest wait of several.
        let rows = [day[0].clone(), declined(0, Bar::Until(NOW.plus_seconds(HOUR_SECONDS)))];
        assert_eq!(until(&rows, Brand::Mastercard, 0), Some(Some(24)));
    }

    #[test]
    fn a_stop_ends_with_a_new_agreement_and_not_with_an_old_one() {
        let stopped = [declined(5, Bar::UntilAgreed)];
        let with = |hours_ago: i64| {
            forbidden(&stopped, &[], Some(NOW.plus_seconds(-hours_ago * HOUR_SECONDS)), NOW).is_some()
        };
        assert!(with(6) && with(5) && !with(4));
        assert!(forbidden(&stopped, &[], None, NOW).is_some());
    }
}
