//! When a charge is tried again: pure, from what became of its last attempt. The networks' rules bound the configured delays.

use crate::charging::RetryPolicy;
use crate::clock::Time;
use crate::connector::network::{Condition, Retry};
use crate::connector::{DeclineClass, Word};
use crate::edge::store::{Attempt, AttemptState, ChargeRow, ChargeStatus, Outbound, Retries, RetryState};

/// After so long a scheduled attempt that certainly was not sent is made again.
const UNSENT_SECONDS: i64 = 15 * 60;

/// A schedule for a charge that begins now.
pub(super) const fn begin(policy: &RetryPolicy, now: Time) -> Retries {
    Retries { state: RetryState::Running, made: 0, until: now.plus_seconds(policy.seconds_max) }
}

/// Takes the schedule on after an outcome; while one runs, nothing is decided.
pub(super) fn proceed(charge: &mut ChargeRow, policy: &RetryPolicy, now: Time) {
    let status = charge.status;
    let attempt = charge.operations.first().and_then(|first| first.attempts.last()).cloned();
    let Some(retries) = charge.retries_mut().filter(|retries| retries.state == RetryState::Running) else {
        return;
    };
    let state = match (status, attempt) {
        (ChargeStatus::Approved | ChargeStatus::Authorized, _) => ended("paid"),
        (ChargeStatus::Voided, _) => ended("voided"),
        (ChargeStatus::Declined, Some(attempt)) if attempt.state == AttemptState::Declined => {
            after_decline(&attempt, retries, policy, now)
        }
        (ChargeStatus::Declined, _) => ended("partial_approval"),
        (ChargeStatus::Failed, Some(attempt)) if retries.made > 0 && is_undone(&attempt) => {
            at(now.plus_seconds(UNSENT_SECONDS), retries.until)
        }
        (ChargeStatus::Failed, _) => ended("failed"),
        (
            ChargeStatus::Processing | ChargeStatus::Pending | ChargeStatus::Unknown | ChargeStatus::Manual,
            _,
        ) => return,
    };
    retries.state = state;
}

/// Whether an attempt certainly did nothing, and that says nothing of the card.
fn is_undone(attempt: &Attempt) -> bool {
    attempt.outbound == Outbound::NotSent || attempt.error.as_deref() == Some("not_found")
}

fn after_decline(attempt: &Attempt, retries: &Retries, policy: &RetryPolicy, now: Time) -> RetryState {
    let rule = attempt.rule.as_ref();
    let retry = rule.and_then(|rule| Retry::parse(&rule.retry));
    let condition = rule.and_then(|rule| Condition::parse(rule.condition.as_deref()?));
    let class = attempt.decline_class.as_deref().and_then(DeclineClass::parse);
    match (retry, condition) {
        // Not this number; but another is what it waits for.
        (Some(Retry::Never), _) if class == Some(DeclineClass::FixData) && policy.at_card_update => {
            return RetryState::Waiting;
        }
        (Some(Retry::Never), _) => return ended("network_rule"),
        (Some(Retry::When), Some(Condition::CardUpdate)) if policy.at_card_update => {
            return RetryState::Waiting;
        }
        (Some(Retry::When), Some(Condition::CardUpdate)) => return ended("card_update_needed"),
        (Some(Retry::When), _) => return ended("customer_needed"),
        (Some(Retry::After) | None, _) => {}
    }
    let delays = match class.unwrap_or(DeclineClass::Generic) {
        DeclineClass::Soft => &policy.soft_seconds,
        DeclineClass::Generic => &policy.generic_seconds,
        DeclineClass::Risk => return ended("risk"),
        DeclineClass::Error => return ended("error"),
        DeclineClass::Hard => return ended("network_rule"),
        DeclineClass::FixData => return ended("card_update_needed"),
        DeclineClass::AuthRequired => return ended("customer_needed"),
    };
    let step = usize::try_from(retries.made).unwrap_or(usize::MAX);
    let Some(delay) = delays.get(step) else { return ended("schedule_over") };
    let wanted = now.plus_seconds(*delay);
    let allowed = rule.and_then(|rule| rule.retry_after).unwrap_or(wanted);
    at(wanted.max(allowed), retries.until)
}

/// The card that was declined is another now, by the word of its processor: it is tried at once, if so configured. Such a try counts as
/// one of the schedule's, so that a processor that names a new number with each decline is not asked for ever.
pub(super) fn at_new_card(charge: &mut ChargeRow, policy: &RetryPolicy, now: Time) {
    let is_declined = charge.status == ChargeStatus::Declined;
    let Some(retries) = charge.retries_mut().filter(|_| is_declined && policy.at_card_update) else { return };
    let waits = match &retries.state {
        RetryState::Scheduled(_) | RetryState::Waiting => true,
        // Of the number that was declined this is true, and of the delays.
        RetryState::Ended(why) => {
            matches!(why.as_str(), "network_rule" | "card_update_needed" | "schedule_over")
        }
        RetryState::Running => false,
    };
    let tries_max = policy.soft_seconds.len().max(policy.generic_seconds.len()).max(1);
    let is_left = usize::try_from(retries.made).is_ok_and(|made| made < tries_max);
    if waits {
        retries.state = if is_left { at(now, retries.until) } else { ended("schedule_over") };
    }
}

/// A schedule whose next attempt is made then; past its end there is none.
pub(super) fn at(due: Time, until: Time) -> RetryState {
    if due > until { ended("schedule_over") } else { RetryState::Scheduled(due) }
}

/// A schedule that is over.
pub(super) fn ended(why: &str) -> RetryState {
    RetryState::Ended(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, charge, learn, said};
    use super::*;
    use crate::charging::RetriesConfig;
    use crate::edge::store::{NetworkRule, OperationKind, Plan};
    use crate::wire::forwarder::{Answer, Verdict};

    const DAY: i64 = 86_400;
    const NOW: Time = Time::from_micros(1_800_000_000_000_000);

    fn plan(policy: &RetryPolicy, now: Time) -> Plan {
        Plan { retries: Some(begin(policy, now)), route: None }
    }

    fn after(class: &str, rule: Option<NetworkRule>, made: u32) -> RetryState {
        let policy = RetriesConfig::default().policy().unwrap();
        let mut sale = charge(OperationKind::Sale, false);
        sale.plan = Some(Box::new(plan(&policy, NOW)));
        let declined = Answer { decline_class: Some(class.to_owned()), ..answer(Verdict::Declined) };
        let mut sale = learn(&sale, &said(1, declined));
        sale.operations[0].attempts[0].rule = rule;
        sale.retries_mut().unwrap().made = made;
        proceed(&mut sale, &policy, NOW);
        sale.retries().unwrap().state.clone()
    }

    fn rule(retry: Retry, hours: i64, condition: Option<Condition>) -> Option<NetworkRule> {
        Some(NetworkRule {
            name: "rule".to_owned(),
            retry: retry.text().to_owned(),
            retry_after: (hours > 0).then(|| NOW.plus_seconds(hours * 3_600)),
            condition: condition.map(|condition| condition.text().to_owned()),
        })
    }

    fn scheduled(days: i64) -> RetryState {
        RetryState::Scheduled(NOW.plus_seconds(days * DAY))
    }

    #[test]
    fn each_class_has_its_schedule() {
        for (made, days) in [(0, 1), (1, 3), (2, 5), (3, 7)] {
            assert_eq!(after("soft", None, made), scheduled(days));
        }
        assert_eq!(after("soft", None, 4), ended("schedule_over"));
        assert_eq!(after("generic", None, 0), scheduled(2));
        assert_eq!(after("generic", None, 2), ended("schedule_over"));
        for (class, why) in [("risk", "risk"), ("error", "error"), ("hard", "network_rule")] {
            assert_eq!(after(class, None, 0), ended(why), "{class}");
        }
    }

    #[test]
    fn the_networks_rules_bound_the_schedule() {
        assert_eq!(after("soft", rule(Retry::Never, 0, None), 0), ended("network_rule"));
        assert_eq!(after("soft", rule(Retry::After, 1, None), 0), scheduled(1));
        assert_eq!(after("soft", rule(Retry::After, 240, None), 0), scheduled(10));
        // Behind the end of the schedule.
        assert_eq!(after("soft", rule(Retry::After, 31 * 24, None), 0), ended("schedule_over"));
        let card = rule(Retry::When, 0, Some(Condition::CardUpdate));
        assert_eq!(after("fix_data", card, 0), RetryState::Waiting);
        assert_eq!(after("fix_data", rule(Retry::Never, 0, None), 0), RetryState::Waiting, "another number");
        let customer = rule(Retry::When, 0, Some(Condition::Customer));
        assert_eq!(after("auth_required", customer, 0), ended("customer_needed"));
    }

    #[test]
    fn a_new_card_is_tried_at_once_and_no_more_often_than_the_schedule_says() {
        let policy = RetriesConfig::default().policy().unwrap();
        let at_once = |class: &str, rule: Option<NetworkRule>, made: u32, policy: &RetryPolicy| {
            let mut sale = charge(OperationKind::Sale, false);
            sale.plan = Some(Box::new(plan(policy, NOW)));
            let declined = Answer { decline_class: Some(class.to_owned()), ..answer(Verdict::Declined) };
            let mut sale = learn(&sale, &said(1, declined));
            sale.operations[0].attempts[0].rule = rule;
            sale.retries_mut().unwrap().made = made;
            proceed(&mut sale, policy, NOW);
            at_new_card(&mut sale, policy, NOW);
            sale.retries().unwrap().state.clone()
        };
        for class in ["soft", "generic", "fix_data", "hard"] {
            assert_eq!(at_once(class, None, 0, &policy), scheduled(0), "{class}");
            assert_eq!(at_once(class, None, 4, &policy), ended("schedule_over"), "{class}");
        }
        let card = rule(Retry::When, 0, Some(Condition::CardUpdate));
        assert_eq!(at_once("fix_data", card.clone(), 3, &policy), scheduled(0));
        assert_eq!(at_once("fix_data", card, 4, &policy), ended("schedule_over"), "not for ever");
        for (class, why) in [("risk", "risk"), ("error", "error"), ("auth_required", "customer_needed")] {
            assert_eq!(at_once(class, None, 0, &policy), ended(why), "{class}");
        }
        let patient = RetryPolicy { at_card_update: false, ..policy };
        assert_eq!(at_once("soft", None, 0, &patient), scheduled(1));
    }

    #[test]
    fn a_charge_that_is_paid_or_not_decided_has_no_next_attempt() {
        let policy = RetriesConfig::default().policy().unwrap();
        let mut sale = charge(OperationKind::Sale, false);
        sale.plan = Some(Box::new(plan(&policy, NOW)));
        for (verdict, state) in [
            (Verdict::Approved, ended("paid")),
            (Verdict::Pending, RetryState::Running),
            (Verdict::NotFound, RetryState::Running),
            (Verdict::Error, ended("failed")),
        ] {
            let mut after = learn(&sale, &said(1, answer(verdict)));
            proceed(&mut after, &policy, NOW);
            assert_eq!(after.retries().unwrap().state, state, "{verdict:?}");
        }
    }
}
