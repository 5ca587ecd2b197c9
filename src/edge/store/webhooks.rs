//! Webhooks: endpoints, what they are told (notices), and deliveries. What a change tells is decided here, from the rows before and after it;
//! the store writes it with the change.
//!
//! A body holds ids, states, amounts and the caller's invoice. It holds no part of a card number, and no customer, description or metadata:
//! a receiver asks for those, as the one who may read them. What is posted is kept for weeks and erased with no card.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    AgreementRow, CardRow, CardStatus, ChargeRow, ChargeStatus, DisputeRow, Operation, OperationKind,
    Outbound, RunRow,
};
use crate::card::id::{EndpointId, NoticeId, Token};
use crate::card::tenant::TenantId;
use crate::clock::Time;

/// All events, in the order of listings. `prefix.*` subscribes to all with that prefix, `*` to all.
pub const KINDS: [&str; 25] = [
    "agreement.ended",
    "charge.approved",
    "charge.authorized",
    "charge.captured",
    "charge.declined",
    "charge.disputed",
    "charge.failed",
    "charge.manual",
    "charge.pending",
    "charge.unknown",
    "charge.voided",
    "refund.approved",
    "refund.declined",
    "refund.failed",
    "refund.manual",
    "refund.pending",
    "refund.processing",
    "refund.unknown",
    "run.finished",
    "token.erased",
    "token.expiring",
    "token.suspended",
    "token.updated",
    "webhook_endpoint.disabled",
    "webhook_endpoint.test",
];

/// A webhook endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRow {
    /// Its id.
    pub id: EndpointId,
    /// Whose.
    pub tenant: TenantId,
    /// Counts the changes of the row, from 1.
    pub revision: u32,
    /// Where it is.
    pub url: String,
    /// What it is told: names of events, `prefix.*`, `*`.
    pub events: Vec<String>,
    /// The caller's own words.
    pub description: Option<String>,
    /// Whether anything is sent.
    pub enabled: bool,
    /// Why the vault switched it off, in our own words: `failing`, `gone`.
    pub disabled_reason: Option<String>,
    /// Counts its secrets, from 1.
    pub generation: u32,
    /// The webhook key that the newest secret is derived from; none in a row of a version before, which knew the tenant's first only.
    #[serde(default)]
    pub key: Option<u32>,
    /// Until when the secret before is good, too.
    pub previous_until: Option<Time>,
    /// The webhook key that the secret before is derived from, likewise.
    #[serde(default)]
    pub previous_key: Option<u32>,
    /// Since when nothing has worked.
    pub failing_since: Option<Time>,
    /// When it was made.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}

impl EndpointRow {
    /// Whether it is told of events of this name.
    pub fn wants(&self, kind: &str) -> bool {
        self.events.iter().any(|one| fits(one, kind))
    }

    /// The webhook key of the secret before, while that is good; the second is the tenant's first key, for rows of a version before.
    pub fn key_before(&self, first: u32, now: Time) -> Option<u32> {
        let both = self.generation > 1 && self.previous_until.is_some_and(|until| now < until);
        both.then(|| self.previous_key.unwrap_or(first))
    }

    /// Whether a secret that is good now is derived from this webhook key of its tenant.
    pub fn needs(&self, key: u32, is_first: bool, now: Time) -> bool {
        let first = if is_first { key } else { 0 };
        self.key.unwrap_or(first) == key || self.key_before(first, now) == Some(key)
    }
}

/// Whether a subscription takes an event of this name.
pub fn fits(subscription: &str, kind: &str) -> bool {
    match subscription.strip_suffix('*') {
        None => subscription == kind,
        Some("") => true,
        Some(prefix) => prefix.ends_with('.') && kind.starts_with(prefix),
    }
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It waits for its first or next attempt.
    Waiting,
    /// The endpoint took it.
    Delivered,
    /// It was tried as often as the schedule says.
    Failed,
}

/// A delivery as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What is told.
    pub notice: NoticeId,
    /// The event's name.
    pub kind: String,
    /// When it happened.
    pub created_at: Time,
    /// Where it stands.
    pub state: DeliveryState,
    /// The next attempt, if it waits.
    pub due: Time,
    /// Attempts so far.
    pub attempts: u32,
    /// The last attempt.
    pub last_at: Option<Time>,
    /// Its HTTP status.
    pub status: Option<u16>,
    /// Our own word for what went wrong.
    pub error: Option<String>,
    /// What the endpoint took, in microseconds.
    pub micros: Option<u64>,
}

/// What is due for an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// What is told.
    pub notice: NoticeId,
    /// Attempts so far.
    pub attempts: u32,
    /// What is posted.
    pub body: String,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempted {
    /// Whose.
    pub tenant: TenantId,
    /// Where to.
    pub endpoint: EndpointId,
    /// What was told.
    pub notice: NoticeId,
    /// Where the delivery stands now.
    pub state: DeliveryState,
    /// The next attempt, if it waits.
    pub due: Time,
    /// Attempts so far.
    pub attempts: u32,
    /// When.
    pub at: Time,
    /// HTTP status.
    pub status: Option<u16>,
    /// Our own word for what went wrong.
    pub error: Option<String>,
    /// What the endpoint took, in microseconds.
    pub micros: u64,
}

/// One row of webhooks that changes.
#[derive(Clone, Debug)]
pub enum WebhookChange {
    /// A webhook endpoint as it shall be: its revision must be the stored one plus one, or 1 for a new one, else
    /// [`Conflict`](super::CommitError::Conflict); [`TooMany`](super::CommitError::TooMany) if its tenant has as many as it may. What changes tell from then on is
    /// written with them. One that the vault switches off is told of to the others.
    Put(Box<EndpointRow>),
    /// Forgets a webhook endpoint; its deliveries go in their time.
    Delete {
        /// Whose.
        tenant: TenantId,
        /// Which.
        endpoint: EndpointId,
    },
    /// What became of an attempt to deliver; nothing happens if the delivery is gone or was settled meanwhile.
    Attempted(Box<Attempted>),
    /// Has an endpoint told once more, from the first attempt on; a notice that is gone is passed over.
    Redeliver {
        /// Whose.
        tenant: TenantId,
        /// Which endpoint.
        endpoint: EndpointId,
        /// What.
        notices: Vec<NoticeId>,
    },
    /// Tries an endpoint out.
    Test {
        /// Whose.
        tenant: TenantId,
        /// Which.
        endpoint: EndpointId,
    },
    /// Tells that cards expire soon: of those that are active and of the version that was looked at.
    TellExpiring(Vec<Expiring>),
    /// Forgets what was told before this instant, some thousand at most.
    Prune(Time),
}

/// Something that endpoints were told, or are to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeRow {
    /// Its id.
    pub id: NoticeId,
    /// The event's name.
    pub kind: String,
    /// When it happened.
    pub created_at: Time,
    /// What is posted.
    pub body: String,
}

/// What a change tells, before it has an id.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Notice {
    pub(super) kind: String,
    object: (&'static str, String),
    /// Grows with each change of the object; what comes later has the larger number.
    pub(super) sequence: u64,
    data: Value,
}

impl Notice {
    /// What is posted.
    pub(super) fn body(&self, id: NoticeId, now: Time) -> String {
        let (kind, object) = (&self.kind, &self.object);
        json!({
            "id": id.to_string(),
            "type": kind,
            "created_at": now.to_string(),
            "object": {"type": object.0, "id": object.1},
            "sequence": self.sequence,
            "data": self.data,
        })
        .to_string()
    }

    /// Of a charge and its refunds. What only begins (`processing`) tells nothing but of a refund, which somebody else asked for.
    pub(super) fn of_charge(before: Option<&ChargeRow>, charge: &ChargeRow) -> Vec<Self> {
        let mut told = Vec::new();
        let captured = before.map_or(0, |before| before.amount_captured);
        let became = before.map(|before| before.status) != Some(charge.status);
        let kind = if charge.status == ChargeStatus::Processing {
            None
        } else if became {
            Some(format!("charge.{}", word(charge.status)))
        } else {
            (charge.amount_captured > captured).then(|| "charge.captured".to_owned())
        };
        let sequence = u64::from(charge.revision);
        if let Some(kind) = kind {
            let object = ("charge", charge.id.to_string());
            told.push(Self { kind, object, sequence, data: charge_data(charge) });
        }
        if charge.disputes.len() > before.map_or(0, |before| before.disputes.len()) {
            let mut data = charge_data(charge);
            if let Some(fields) = data.as_object_mut() {
                let all = charge.disputes.iter().map(dispute_data).collect();
                fields.insert("disputes".to_owned(), all);
            }
            let object = ("charge", charge.id.to_string());
            told.push(Self { kind: "charge.disputed".to_owned(), object, sequence, data });
        }
        for refund in charge.operations.iter().filter(|one| one.kind == OperationKind::Refund && !one.undoes)
        {
            let was = before.and_then(|before| before.operations.iter().find(|one| one.id == refund.id));
            if was.map(|was| was.status) != Some(refund.status) {
                let kind = format!("refund.{}", word(refund.status));
                let object = ("refund", refund.id.clone());
                told.push(Self { kind, object, sequence, data: refund_data(charge, refund) });
            }
        }
        told
    }

    /// Of a card: its sequence is the store's.
    pub(super) fn of_card(kind: &'static str, card: &CardRow, sequence: u64) -> Self {
        let data = json!({
            "id": card.token.to_string(),
            "status": match card.status {
                CardStatus::Active => "active",
                CardStatus::Suspended => "suspended",
                CardStatus::Erasing => "erasing",
                CardStatus::Erased => "erased",
            },
            "version": card.version,
            "created_at": card.created_at.to_string(),
            "updated_at": card.updated_at.to_string(),
            "erased_at": card.erased_at.map(|at| at.to_string()),
        });
        Self { kind: kind.to_owned(), object: ("token", card.token.to_string()), sequence, data }
    }

    /// Of an agreement that has ended.
    pub(super) fn of_agreement(before: Option<&AgreementRow>, row: &AgreementRow) -> Option<Self> {
        let has_ended = |row: &AgreementRow| row.ended_at.is_some() && !row.awaits_customer();
        let (ended, waits) = (has_ended(row), row.awaits_customer());
        // One that is made to wait for its customer has not ended: it never lived.
        let news = before
            .is_some_and(|before| (ended && !has_ended(before)) || (waits && before.ended_at.is_none()));
        news.then(|| {
            let data = json!({
                "id": row.id.to_string(),
                "token": row.token.to_string(),
                "type": row.kind,
                "status": "ended",
                "created_at": row.created_at.to_string(),
                "ended_at": row.ended_at.map(|at| at.to_string()),
                "ended_reason": row.ended_reason,
            });
            let object = ("agreement", row.id.to_string());
            Self { kind: "agreement.ended".to_owned(), object, sequence: u64::from(row.revision), data }
        })
    }

    /// Of a run that is over, however it ended.
    pub(super) fn of_run(before: Option<&RunRow>, run: &RunRow) -> Option<Self> {
        let is_news = run.state.is_over() && before.is_none_or(|before| !before.state.is_over());
        is_news.then(|| {
            let verdicts: serde_json::Map<String, Value> = run
                .verdicts
                .iter()
                .map(|(verdict, count)| (verdict.word().to_owned(), json!(count)))
                .collect();
            let data = json!({
                "id": run.id.to_string(),
                "state": run.state.word(),
                "reason": run.reason,
                "validate_only": run.options.validate_only,
                "lines": run.lines,
                "sums": run.sums,
                "verdicts": verdicts,
                "outcomes": run.outcomes,
                "created_at": run.created_at.to_string(),
                "started_at": run.started_at.map(|at| at.to_string()),
                "finished_at": run.finished_at.map(|at| at.to_string()),
            });
            let object = ("invoice_run", run.id.to_string());
            Self { kind: "run.finished".to_owned(), object, sequence: u64::from(run.revision), data }
        })
    }

    /// Of an endpoint: switched off, or tried out.
    pub(super) fn of_endpoint(kind: &'static str, row: &EndpointRow) -> Self {
        let data = json!({
            "id": row.id.to_string(),
            "enabled": row.enabled,
            "disabled_reason": row.disabled_reason,
            "updated_at": row.updated_at.to_string(),
        });
        let object = ("webhook_endpoint", row.id.to_string());
        Self { kind: kind.to_owned(), object, sequence: u64::from(row.revision), data }
    }
}

const fn word(status: ChargeStatus) -> &'static str {
    match status {
        ChargeStatus::Processing => "processing",
        ChargeStatus::Pending => "pending",
        ChargeStatus::Authorized => "authorized",
        ChargeStatus::Approved => "approved",
        ChargeStatus::Declined => "declined",
        ChargeStatus::Failed => "failed",
        ChargeStatus::Unknown => "unknown",
        ChargeStatus::Voided => "voided",
        ChargeStatus::Manual => "manual",
    }
}

/// The fields of `GET /v1/charges/{id}` by the same names, less what is said in the head of this file and the attempts.
fn charge_data(charge: &ChargeRow) -> Value {
    let last = charge.operations.first().and_then(|operation| operation.attempts.last());
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "id": charge.id.to_string(),
        "status": word(charge.status),
        "token": charge.token.to_string(),
        "amount": charge.amount,
        "currency": charge.currency,
        "invoice": some(&charge.invoice),
        "period": charge.period,
        "destination": charge.destination,
        "initiator": charge.initiator,
        "agreement": charge.agreement.map(|id| id.to_string()),
        "run": charge.run.map(|of| json!({"id": of.id.to_string(), "line": of.line})),
        "capture": charge.capture,
        "amount_authorized": charge.amount_authorized,
        "amount_captured": charge.amount_captured,
        "amount_refunded": charge.amount_refunded,
        "amount_offered": charge.amount_offered,
        "code": charge.code,
        "decline_class": last.and_then(|attempt| attempt.decline_class.as_deref()),
        "outbound": last.map_or(Outbound::NotSent, |attempt| attempt.outbound),
        "processor_transaction_id": last.and_then(|attempt| attempt.transaction_id.as_deref()),
        "next_attempt_at": charge.retry_due().map(|at| at.to_string()),
        "created_at": charge.created_at.to_string(),
        "updated_at": charge.updated_at.to_string(),
        "expires_at": charge.expires_at.map(|at| at.to_string()),
    })
}

fn dispute_data(dispute: &DisputeRow) -> Value {
    json!({
        "status": dispute.status.word(),
        "amount": dispute.amount,
        "code": dispute.code,
        "processor_transaction_id": dispute.transaction_id,
        "at": dispute.at.to_string(),
    })
}

fn refund_data(charge: &ChargeRow, refund: &Operation) -> Value {
    let last = refund.attempts.last();
    json!({
        "id": refund.id,
        "charge": charge.id.to_string(),
        "token": charge.token.to_string(),
        "status": word(refund.status),
        "amount": refund.amount,
        "currency": charge.currency,
        "code": last.and_then(|attempt| attempt.processor_code.as_deref().or(attempt.error.as_deref())),
        "outbound": last.map_or(Outbound::NotSent, |attempt| attempt.outbound),
        "processor_transaction_id": last.and_then(|attempt| attempt.transaction_id.as_deref()),
        "charge_status": word(charge.status),
        "amount_captured": charge.amount_captured,
        "amount_refunded": charge.amount_refunded,
        "invoice": charge.invoice,
        "destination": charge.destination,
        "created_at": refund.created_at.to_string(),
    })
}

/// A card whose receivers are to be told that it expires soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiring {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub token: Token,
    /// The version that was looked at: of another one nothing is told.
    pub version: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::id::IdBytes;
    use crate::edge::charge::tests::charge;
    use crate::edge::store::DisputeStatus;

    #[test]
    fn a_dispute_is_told_when_it_is_news() {
        let before = charge(OperationKind::Sale, false);
        let mut disputed = before.clone();
        disputed.disputes.push(DisputeRow {
            status: DisputeStatus::ChargedBack,
            amount: Some(1_000),
            code: None,
            transaction_id: Some("dp_1".to_owned()),
            at: before.created_at,
        });
        let told = Notice::of_charge(Some(&before), &disputed);
        assert_eq!(told.iter().map(|one| one.kind.as_str()).collect::<Vec<_>>(), ["charge.disputed"]);
        assert_eq!(told[0].data["disputes"][0]["status"], "charged_back");
        assert_eq!(told[0].data["amount_captured"], before.amount_captured);
        assert!(Notice::of_charge(Some(&disputed), &disputed).is_empty());
    }

    #[test]
    fn a_subscription_takes_a_name_a_prefix_or_all() {
        for (subscription, kind, takes) in [
            ("charge.approved", "charge.approved", true),
            ("charge.approved", "charge.declined", false),
            ("charge.*", "charge.manual", true),
            ("charge.*", "refund.manual", false),
            ("*", "run.finished", true),
            ("ch*", "charge.manual", false),
        ] {
            assert_eq!(fits(subscription, kind), takes, "{subscription} {kind}");
        }
        assert!(KINDS.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_row_of_a_version_before_needs_the_tenant_s_first_key() {
        let now = Time::from_micros(1_800_000_000_000_000);
        let row = EndpointRow {
            id: EndpointId(IdBytes([1; 18])),
            tenant: TenantId(1),
            revision: 1,
            url: "https://hooks.example/".to_owned(),
            events: vec!["*".to_owned()],
            description: None,
            enabled: true,
            disabled_reason: None,
            generation: 2,
            key: Some(8),
            previous_until: None,
            previous_key: None,
            failing_since: None,
            created_at: now,
            updated_at: now,
        };
        let mut old = serde_json::to_value(&row).unwrap();
        for field in ["key", "previous_key"] {
            old.as_object_mut().unwrap().remove(field).unwrap();
        }
        let mut row: EndpointRow = serde_json::from_value(old).unwrap();
        assert!(row.needs(7, true, now) && !row.needs(8, false, now));
        // Its owner rotates the secret under the next key: the one before is needed for as long as its hours last.
        (row.key, row.previous_until, row.generation) = (Some(8), Some(now.plus_seconds(1)), 3);
        assert!(row.needs(7, true, now) && row.needs(8, false, now));
        let later = now.plus_seconds(1);
        assert!(!row.needs(7, true, later) && row.needs(8, false, later));
    }
}
