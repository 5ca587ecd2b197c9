//! What is still to be tried of a charge, as it lies in the charge's row, and what a decline leaves behind for the networks' limits.

use serde::{Deserialize, Serialize};

use crate::card::id::{AttemptId, FingerprintId};
use crate::clock::Time;

/// What is still to be tried of a charge, beyond its present attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Tries on a schedule, for a charge that asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// Where else its route leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteLeft>,
}

/// Tries on a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// Where the schedule stands.
    pub state: RetryState,
    /// Attempts that the schedule has made.
    pub made: u32,
    /// After this nothing is tried.
    pub until: Time,
}

/// Where a schedule stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryState {
    /// An attempt is under way, or its outcome is not known yet.
    Running,
    /// The next attempt is made at this instant.
    Scheduled(Time),
    /// The next attempt is made when the card, or its agreement, has been renewed.
    Waiting,
    /// Nothing more is tried; why, in our words.
    Ended(String),
}

impl Retries {
    /// When it is to be looked at; none while an attempt runs, and after the end.
    pub fn due(&self) -> Option<Time> {
        match self.state {
            RetryState::Scheduled(at) => Some(at),
            RetryState::Waiting => Some(self.until),
            RetryState::Running | RetryState::Ended(_) => None,
        }
    }
}

/// Where else a route leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteLeft {
    /// Destinations that were not tried yet, in order.
    pub destinations: Vec<String>,
    /// Whether a soft decline leads there too, and not only what certainly was not sent.
    pub after_soft_decline: bool,
}

/// What a network's rule says of a declined attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRule {
    /// Which rule, in our words.
    pub name: String,
    /// `never`, `after` or `when`.
    pub retry: String,
    /// From when on it may be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Time>,
    /// What must have changed: `card_update` or `customer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// A decline that counts against a network's limits: of one number at one merchant account, by who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclineRow {
    /// The number, whichever token it has.
    pub fingerprint: FingerprintId,
    /// The merchant account.
    pub destination: String,
    /// Whether the merchant asked, and not the customer.
    pub by_merchant: bool,
    /// Which attempt.
    pub attempt: AttemptId,
    /// When it was declined.
    pub at: Time,
    /// What it forbids.
    pub bar: Bar,
}

/// What a decline forbids of the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// Nothing.
    None,
    /// Everything before this instant.
    Until(Time),
    /// Everything, for as long as the number is kept.
    Never,
    /// Everything until the customer has agreed anew.
    UntilAgreed,
}
