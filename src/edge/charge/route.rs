//! Where a charge goes that names no destination, and where it goes on to: only after an attempt that certainly was not sent, or that
//! was declined softly where the route says so. What is left of a route lies in the charge's row, so that a restart goes on with it.

use ring::digest::{Context, SHA256};

use super::send::{self, By, Claim};
use super::{Error, again, machine, resolve};
use crate::card::brand::Brand;
use crate::card::tenant::{Mode, TenantId};
use crate::edge::App;
use crate::edge::store::{AttemptState, CardRow, ChargeRow, Outbound, RouteLeft};
use crate::wire::control::DestinationInfo;
use crate::wire::keeper::ChargeRead;

/// Errors of an attempt that was not sent, and that say nothing of its destination: elsewhere they would be the same.
const OUR_OWN: [&str; 3] = ["held_gone", "refused", "busy"];

/// The destination of a charge that names none, and what is left of its route; none if no route fits.
pub(super) fn choose(
    app: &App,
    mode: Mode,
    card: &CardRow,
    read: &ChargeRead,
) -> Result<Option<(DestinationInfo, RouteLeft)>, Error> {
    let policy = app.directory.charging();
    let brand = card.shown.as_ref().map_or(Brand::Unknown, |shown| shown.brand);
    // A verification has no invoice, and its card goes the same way each time.
    let invoice = read.invoice.clone().unwrap_or_else(|| card.token.to_string());
    let point = point(card.tenant, &invoice, &read.period);
    let Some(route) = policy.route(mode, brand, (read.amount, &read.currency), point) else {
        return Ok(None);
    };
    let mut names = route.destinations.iter();
    let first = names.next().ok_or(Error::DestinationUnknown)?;
    let destinations = app.directory.destinations();
    let to = destinations.iter().find(|to| to.name == *first && to.mode == mode).cloned();
    let to = to.ok_or(Error::DestinationUnknown)?;
    let left = if route.after_not_sent { names.cloned().collect() } else { Vec::new() };
    Ok(Some((to, RouteLeft { destinations: left, after_soft_decline: route.after_soft_decline })))
}

/// A place from 0 to 99 that an invoice and period always have, so that a charge of them goes the same way again.
fn point(tenant: TenantId, invoice: &str, period: &str) -> u8 {
    let mut context = Context::new(&SHA256);
    context.update(&tenant.0.to_be_bytes());
    context.update(&u32::try_from(invoice.len()).unwrap_or(u32::MAX).to_be_bytes());
    context.update(invoice.as_bytes());
    context.update(period.as_bytes());
    let number = context.finish().as_ref().first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    u8::try_from(number % 100).unwrap_or(0)
}

/// Whether a charge goes on to the next destination of its route.
pub(super) fn goes_on(charge: &ChargeRow) -> bool {
    let left = charge.plan.as_ref().and_then(|plan| plan.route.as_ref());
    let Some(left) = left.filter(|left| !left.destinations.is_empty()) else { return false };
    let ([first], None) = (charge.operations.as_slice(), charge.amount_offered) else { return false };
    let Some(last) = first.attempts.last() else { return false };
    let its_own = |error: Option<&str>| error.is_some_and(|error| !OUR_OWN.contains(&error));
    if last.once_only {
        // What is passed through was wiped with the first send.
        return false;
    }
    match last.state {
        AttemptState::Failed => last.outbound == Outbound::NotSent && its_own(last.error.as_deref()),
        AttemptState::Declined => {
            left.after_soft_decline && last.decline_class.as_deref() == Some("soft") && last.rule.is_none()
        }
        AttemptState::Sending
        | AttemptState::Unknown
        | AttemptState::Pending
        | AttemptState::Approved
        | AttemptState::Manual => false,
    }
}

/// Tries the next destination. One that cannot be tried is passed over; what may work a little later leaves the charge as it is.
pub(super) async fn go_on(app: &App, charge: ChargeRow, claim: Option<&Claim>, over: bool) -> ChargeRow {
    let next = charge.plan.as_ref().and_then(|plan| plan.route.as_ref()?.destinations.first().cloned());
    let Some(to) = next else { return charge };
    let by = By::vault();
    match again::attempt(app, &charge, &to, (&by, claim), pass_over).await {
        Ok(next) => next,
        Err(error) if resolve::is_passing(&error) && !over => charge,
        Err(_) => {
            let Some(attempt) = charge.operations.first().and_then(|first| first.attempts.last()) else {
                return charge;
            };
            let mut next = charge.clone();
            pass_over(&mut next);
            machine::restate(&mut next);
            let now = app.clock.now();
            super::schedule::proceed(&mut next, &app.directory.charging().retries, now);
            next.revision = next.revision.saturating_add(1);
            next.updated_at = next.updated_at.max(now);
            if send::commit_moved(app, &charge, &next, attempt.id).await { next } else { charge }
        }
    }
}

/// What is left of the route without its next destination.
pub(super) fn pass_over(charge: &mut ChargeRow) {
    if let Some(left) = charge.plan.as_mut().and_then(|plan| plan.route.as_mut())
        && !left.destinations.is_empty()
    {
        left.destinations.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, charge, learn, said};
    use super::*;
    use crate::edge::store::{ChargeStatus, NetworkRule, OperationKind, Plan};
    use crate::wire::forwarder::{Answer, Outcome, Sent, Verdict};

    fn routed(after_soft_decline: bool) -> ChargeRow {
        let mut sale = charge(OperationKind::Sale, false);
        let destinations = vec!["other".to_owned()];
        sale.plan = Some(Box::new(Plan {
            retries: None,
            route: Some(RouteLeft { destinations, after_soft_decline }),
        }));
        sale
    }

    fn unsent(error: &str, sent: Sent) -> Outcome {
        Outcome { sent, answer: None, error: Some(error.to_owned()), ..said(1, answer(Verdict::Error)) }
    }

    fn declined(class: &str) -> Outcome {
        said(1, Answer { decline_class: Some(class.to_owned()), ..answer(Verdict::Declined) })
    }

    #[test]
    fn it_goes_on_only_where_nothing_was_sent_or_softly_declined() {
        for (outcome, without, with_soft) in [
            (unsent("connect", Sent::Not), true, true),
            (unsent("held_gone", Sent::Not), false, false),
            (unsent("timeout", Sent::Maybe), false, false),
            (unsent("timeout", Sent::Yes), false, false),
            (said(1, answer(Verdict::Error)), false, false),
            (said(1, answer(Verdict::NotFound)), false, false),
            (said(1, answer(Verdict::Pending)), false, false),
            (said(1, answer(Verdict::Approved)), false, false),
            (declined("soft"), false, true),
            (declined("generic"), false, false),
            (declined("hard"), false, false),
        ] {
            for (soft, goes) in [(false, without), (true, with_soft)] {
                let after = learn(&routed(soft), &outcome);
                assert_eq!(goes_on(&after), goes, "{outcome:?}");
                // Until it has gone on, the charge is not decided: it holds its invoice.
                assert_eq!(after.status == ChargeStatus::Processing, goes, "{outcome:?}");
            }
        }
    }

    #[test]
    fn the_end_of_a_route_a_rule_and_a_code_that_was_wiped_stop_it() {
        let soft = learn(&routed(true), &declined("soft"));
        let mut ruled = soft.clone();
        let rule =
            NetworkRule { name: "r".into(), retry: "after".into(), retry_after: None, condition: None };
        ruled.operations[0].attempts[0].rule = Some(rule);
        assert!(goes_on(&soft) && !goes_on(&ruled));
        let mut once = soft.clone();
        once.operations[0].attempts[0].once_only = true;
        assert!(!goes_on(&once));
        let mut over = soft;
        pass_over(&mut over);
        machine::restate(&mut over);
        assert!(!goes_on(&over) && over.status == ChargeStatus::Declined);
    }

    #[test]
    fn an_invoice_always_has_the_same_place_and_all_places_come() {
        let of = |n: u32, period: &str| point(TenantId(1), &format!("inv-{n}"), period);
        assert!((0..100).all(|n| of(n, "") == of(n, "") && of(n, "") < 100));
        assert!((0..100).any(|n| of(n, "") != of(n, "2026-11")));
        let below_thirty = (0..10_000).filter(|n| of(*n, "") < 30).count();
        assert!((2_700..3_300).contains(&below_thirty), "{below_thirty}");
    }
}
