//! Invoice runs: many charges that are handed in as one stream of lines (contracts.md, "Invoice runs").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ChargeStatus;
use crate::card::id::{AgreementId, ChargeId, PrincipalId, RequestId, RunId, Token};
use crate::card::tenant::TenantId;
use crate::clock::Time;

/// Which line of which run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OfRun {
    /// The run.
    pub id: RunId,
    /// The line, from 1.
    pub line: u32,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Its lines are arriving, or the upload was cut and may go on.
    Uploading,
    /// Its accepted lines are being charged.
    Running,
    /// It stands still until somebody resumes it.
    Paused,
    /// Nothing is left to be done.
    Finished,
    /// Somebody ended it; what was on its way went on.
    Cancelled,
    /// Its upload was cut and not taken up again in time; nothing was charged.
    Expired,
    /// The stream did not match what was declared; nothing was charged.
    Rejected,
}

impl RunState {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Uploading => "uploading",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
        }
    }

    /// Whether nothing will be charged any more.
    pub const fn is_over(self) -> bool {
        match self {
            Self::Uploading | Self::Running | Self::Paused => false,
            Self::Finished | Self::Cancelled | Self::Expired | Self::Rejected => true,
        }
    }
}

/// What is said of a line when it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It will be charged.
    Accepted,
    /// Its invoice is paid: same card, amount and currency.
    AlreadyCharged,
    /// Its invoice is being charged, or waits in a run: same card, amount and currency.
    InFlight,
    /// Its invoice was declined before, and the run does not retry those.
    DeclinedBefore,
    /// Its invoice belongs to a charge or line of another card, amount or currency.
    Conflict,
    /// It cannot be read, or cannot be charged as it is.
    Invalid,
}

impl Verdict {
    /// All of them, in the order of the contract.
    pub const ALL: [Self; 6] = [
        Self::Accepted,
        Self::AlreadyCharged,
        Self::InFlight,
        Self::DeclinedBefore,
        Self::Conflict,
        Self::Invalid,
    ];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::AlreadyCharged => "already_charged",
            Self::InFlight => "in_flight",
            Self::DeclinedBefore => "declined_before",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
        }
    }
}

/// How a run is to be carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOptions {
    /// How many lines the stream has.
    pub lines: u32,
    /// The sum of its amounts by currency, in minor units.
    pub sums: BTreeMap<String, i64>,
    /// Say verdicts, charge nothing.
    pub validate_only: bool,
    /// Charge again what was declined before.
    pub retry_declined: bool,
    /// Charges at once at one destination.
    pub concurrency: u16,
    /// Charges a second at one destination, if that is limited.
    pub rate: Option<u32>,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRow {
    /// Its id.
    pub id: RunId,
    /// Whose.
    pub tenant: TenantId,
    /// Counts the changes of the row, from 1.
    pub revision: u32,
    /// Where it stands.
    pub state: RunState,
    /// Why it stands still, in our own words, if not somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who made it; its charges count against their limits.
    pub principal: PrincipalId,
    /// The request that made it.
    pub request: RequestId,
    /// How it is to be carried out.
    pub options: RunOptions,
    /// Lines that are kept so far.
    pub lines: u32,
    /// The sum of their amounts by currency, in minor units.
    pub sums: BTreeMap<String, i64>,
    /// How many lines have which verdict.
    pub verdicts: BTreeMap<Verdict, u32>,
    /// What became of the accepted lines, once nothing is left to be done.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outcomes: BTreeMap<String, u32>,
    /// Lines whose invoices were given back after its end; all of them, or none to give.
    pub released: u32,
    /// When it was made.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
    /// When its stream had ended properly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}

impl RunRow {
    /// Whether claimed invoices are to be given back.
    pub fn is_to_release(&self) -> bool {
        self.state.is_over() && self.released < self.lines
    }

    /// Whether the vault has something to do about it by itself.
    pub fn is_at_work(&self) -> bool {
        matches!(self.state, RunState::Uploading | RunState::Running) || self.is_to_release()
    }

    /// How many lines have this verdict.
    pub fn count(&self, verdict: Verdict) -> u32 {
        self.verdicts.get(&verdict).copied().unwrap_or(0)
    }
}

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOrder {
    /// The card.
    pub token: Token,
    /// In minor units.
    pub amount: i64,
    /// ISO 4217, upper case.
    pub currency: String,
    /// The caller's invoice.
    pub invoice: String,
    /// The caller's period; empty by default.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub period: String,
    /// Where to, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The agreement, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<AgreementId>,
    /// Whether the customer initiates it; the merchant does by default.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_customer: bool,
    /// The caller's description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// On the statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement_descriptor: Option<String>,
    /// The caller's own words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// Why a line is invalid: a code, and the field by our name for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineFault {
    /// One of the codes of problems.
    pub code: String,
    /// The field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
}

/// A line as it arrived. One that could not be read has no order; one with a fault is invalid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunLine {
    /// What it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<RunOrder>,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<LineFault>,
}

/// What became of an accepted line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineDone {
    /// It has this charge, which stands so.
    Charge(ChargeId, ChargeStatus),
    /// Nothing was sent, and why.
    Refused(String),
}

/// A line as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunLineRow {
    /// From 1.
    pub number: u32,
    /// As it arrived.
    pub line: RunLine,
    /// What was said of it.
    pub verdict: Verdict,
    /// The charge that has its invoice, if the verdict is about one.
    pub other: Option<ChargeId>,
    /// What became of it.
    pub done: Option<LineDone>,
}
