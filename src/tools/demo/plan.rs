//! What the demo stores and charges: which cards, how each behaves, and which invoice is charged to which card.

use std::time::Duration;

use crate::tools::sandbox::numbers::{self, Behaviour};

/// How many cards are stored.
pub(super) const CARDS: usize = 200;
/// How many invoices are charged.
pub(super) const INVOICES: usize = 500;
/// After so many invoices the slow ones begin, and the vault is killed.
pub(super) const BEFORE_KILL: usize = 240;
/// How many charges are on their way at once.
pub(super) const CONCURRENCY: usize = 16;
/// What the sandbox takes for a charge.
pub(super) const PROCESSOR: Duration = Duration::from_millis(40);

/// Cards that make trouble, each with how many of them there are. Each gets one invoice: a processor's rules forbid to try some of
/// them again.
const TROUBLE: &[(Behaviour, usize)] = &[
    // Declined, for every reason there is.
    (Behaviour::GenericDecline, 2),
    (Behaviour::DoNotHonor, 2),
    (Behaviour::InsufficientFunds, 4),
    (Behaviour::TryAgainLater, 2),
    (Behaviour::CardVelocityExceeded, 2),
    (Behaviour::IssuerNotAvailable, 2),
    (Behaviour::RetryIn24Hours, 2),
    (Behaviour::ProcessingError, 2),
    (Behaviour::LostCard, 2),
    (Behaviour::StolenCard, 2),
    (Behaviour::PickupCard, 2),
    (Behaviour::DoNotTryAgain, 2),
    (Behaviour::StopPaymentOrder, 2),
    (Behaviour::ExpiredCard, 2),
    (Behaviour::IncorrectNumber, 2),
    (Behaviour::NewAccountInformation, 2),
    (Behaviour::AuthenticationRequired, 2),
    (Behaviour::Fraudulent, 2),
    (Behaviour::HighestRiskLevel, 2),
    // Half of the amount approved, which the vault gives back.
    (Behaviour::PartialApproval, 2),
    // The answer is lost or says nothing: only the processor knows whether money moved.
    (Behaviour::DropCharged, 4),
    (Behaviour::DropUncharged, 3),
    (Behaviour::Error500Charged, 3),
    (Behaviour::Error500Uncharged, 2),
    (Behaviour::Stored500Charged, 2),
    (Behaviour::Garbage, 1),
    (Behaviour::Empty, 1),
    (Behaviour::LengthLong, 1),
    (Behaviour::Unavailable, 1),
    // The answer quotes the card number, which must get no further.
    (Behaviour::PanEcho, 2),
    (Behaviour::PanEchoDeclined, 1),
    (Behaviour::PanEcho500, 1),
    // Refused before anything was charged.
    (Behaviour::RateLimited, 2),
    (Behaviour::Stored500Uncharged, 2),
];

/// Cards whose charges are on their way when the vault is killed: an answer after two seconds, or none.
const SLOW: &[(Behaviour, usize)] = &[(Behaviour::Delay, 12), (Behaviour::Hang, 4)];

/// A card to store.
#[derive(Clone)]
pub(super) struct PlannedCard {
    pub(super) number: String,
    pub(super) behaviour: Behaviour,
    pub(super) customer: String,
}

/// An invoice to charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Invoice {
    pub(super) name: String,
    /// Which of the cards.
    pub(super) card: usize,
    /// In minor units.
    pub(super) amount: i64,
    pub(super) currency: &'static str,
}

/// Everything that the demo does.
pub(super) struct Plan {
    pub(super) cards: Vec<PlannedCard>,
    /// In the order in which they are charged; those at [`BEFORE_KILL`] and behind it, [`Plan::slow`] of them, are slow.
    pub(super) invoices: Vec<Invoice>,
    pub(super) slow: usize,
}

impl Plan {
    pub(super) fn new() -> Self {
        let (slow, trouble) = (spread(SLOW), spread(TROUBLE));
        let approving = CARDS - slow.len() - trouble.len();
        let behaviours = [vec![Behaviour::Approve; approving], trouble.clone(), slow.clone()].concat();
        let cards = (0..).zip(behaviours).map(|(at, behaviour)| card(at, behaviour)).collect();
        // The troublesome invoices lie evenly among those that are simply paid, each card's once.
        let usual = INVOICES - slow.len();
        let mut order: Vec<usize> = Vec::with_capacity(INVOICES);
        let mut next_paid = 0;
        let mut next_trouble = 0;
        for at in 0..usual {
            if (at + 1) * trouble.len() / usual > next_trouble {
                order.push(approving + next_trouble);
                next_trouble += 1;
            } else {
                order.push(next_paid % approving);
                next_paid += 1;
            }
        }
        let behind = order.split_off(BEFORE_KILL);
        order.extend((0..slow.len()).map(|at| approving + trouble.len() + at));
        order.extend(behind);
        let invoices = (1..).zip(order).map(|(number, card)| invoice(number, card)).collect();
        Self { cards, invoices, slow: slow.len() }
    }
}

/// One of each in turn, until all are used: alike behaviours lie apart.
fn spread(counted: &[(Behaviour, usize)]) -> Vec<Behaviour> {
    let most = counted.iter().map(|(_, count)| *count).max().unwrap_or(0);
    (0..most)
        .flat_map(|round| counted.iter().filter(move |(_, count)| *count > round))
        .map(|(behaviour, _)| *behaviour)
        .collect()
}

fn card(at: u32, behaviour: Behaviour) -> PlannedCard {
    // A large odd step spreads the numbers over their range, so that their last four digits differ.
    let sequence = at.wrapping_mul(1_337_029) % 899_000_000;
    let number = numbers::number(usize::from(at.is_multiple_of(2)), sequence, behaviour);
    PlannedCard { number, behaviour, customer: format!("customer-{:03}", at + 1) }
}

fn invoice(number: usize, card: usize) -> Invoice {
    let cents = i64::try_from(number * 7_919 % 48_000).unwrap_or(0);
    let currency = if number.is_multiple_of(7) { "EUR" } else { "USD" };
    Invoice { name: format!("INV-2026-{number:04}"), card, amount: 1_999 + cents, currency }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_plan_has_its_cards_and_invoices_and_the_slow_ones_where_the_vault_is_killed() {
        let plan = Plan::new();
        let numbers: HashSet<&str> = plan.cards.iter().map(|card| card.number.as_str()).collect();
        let names: HashSet<&str> = plan.invoices.iter().map(|invoice| invoice.name.as_str()).collect();
        assert_eq!((numbers.len(), names.len()), (CARDS, INVOICES));
        assert!(plan.slow >= 12);
        for (at, invoice) in plan.invoices.iter().enumerate() {
            let is_slow = matches!(plan.cards[invoice.card].behaviour, Behaviour::Delay | Behaviour::Hang);
            assert_eq!(is_slow, (BEFORE_KILL..BEFORE_KILL + plan.slow).contains(&at), "invoice {at}");
        }
    }

    #[test]
    fn every_card_is_charged_and_only_good_ones_more_than_once() {
        let plan = Plan::new();
        for (at, card) in plan.cards.iter().enumerate() {
            let count = plan.invoices.iter().filter(|invoice| invoice.card == at).count();
            assert!(if card.behaviour == Behaviour::Approve { count >= 1 } else { count == 1 }, "card {at}");
        }
    }

    #[test]
    fn no_last_four_meets_the_budget_of_fingerprints() {
        let mut counts = std::collections::HashMap::new();
        for card in Plan::new().cards {
            *counts.entry(card.number[12..].to_owned()).or_insert(0) += 1;
        }
        assert!(counts.values().all(|count| *count < 30), "{:?}", counts.values().max());
    }
}
