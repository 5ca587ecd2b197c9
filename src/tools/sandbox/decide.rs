//! What the issuer decides, and what the money rules allow.

use super::book::{FollowUp, Order, Refusal, Request};
use super::index::Record;
use super::ledger::{Entry, Kind, Status, StripeFields, Wire};
use super::numbers::{Behaviour, Fault, Outcome, Row};
use crate::card::id::IdBytes;
use crate::clock::Time;
use crate::random;

impl Entry {
    /// A new payment, before anything is decided: a trace.
    pub(super) fn new(request: &Request, order: &Order, now: Time) -> Self {
        Self {
            seq: 0,
            at: now.to_string(),
            id: String::new(),
            kind: order.kind,
            reference: request.reference.clone(),
            idempotency_key: request.key.clone(),
            amount: order.amount,
            amount_approved: 0,
            currency: order.currency.clone(),
            status: Status::Error,
            code: String::new(),
            parent: None,
            invoice: order.invoice.clone(),
            last4: order.last4.clone(),
            wire: request.wire,
            behaviour: order.behaviour,
            request: format!("{:016x}", request.digest),
            network_transaction_id: None,
            named_network_transaction_id: order.network_transaction_id.clone(),
            zip: None,
            is_final: false,
            stripe: order.stripe.clone(),
            family: order.family.clone(),
            window: window(request),
            fault: Fault::None,
            fault_at: None,
            lasting: false,
            unresolvable: false,
        }
    }

    /// Something done to a payment, before its amount is known.
    pub(super) fn of_follow_up(request: &Request, follow: &FollowUp, paid: &Self, now: Time) -> Self {
        let stripe = paid.stripe.clone().map(|stripe| StripeFields {
            metadata: if follow.kind == Kind::Refund { follow.metadata.clone() } else { stripe.metadata },
            ..stripe
        });
        Self {
            seq: 0,
            at: now.to_string(),
            id: String::new(),
            kind: follow.kind,
            reference: request.reference.clone(),
            idempotency_key: request.key.clone(),
            amount: 0,
            amount_approved: 0,
            currency: paid.currency.clone(),
            status: Status::Approved,
            code: "approved".to_owned(),
            parent: Some(paid.id.clone()),
            invoice: paid.invoice.clone(),
            last4: paid.last4.clone(),
            wire: request.wire,
            behaviour: paid.behaviour,
            request: format!("{:016x}", request.digest),
            network_transaction_id: None,
            named_network_transaction_id: None,
            zip: None,
            is_final: follow.is_final,
            stripe,
            family: paid.family.clone(),
            window: window(request),
            fault: Fault::None,
            fault_at: None,
            lasting: false,
            unresolvable: false,
        }
    }
}

fn window(request: &Request) -> Option<String> {
    (request.window != 0).then(|| format!("{:016x}", request.window))
}

/// Fills in status, code and the amount that the issuer grants.
pub(super) fn decide(entry: &mut Entry, row: Option<&Row>, order: &Order) {
    let mut outcome = row.map_or(Outcome::Approved, |row| row.outcome);
    if order.behaviour == Behaviour::IncorrectCvc && !order.has_cvc {
        outcome = Outcome::Approved;
    }
    if row.is_some_and(|row| row.updater.is_some()) && !order.asks_updater() {
        outcome = Outcome::Approved;
    }
    let granted = if order.kind == Kind::Authorize { Status::Authorized } else { Status::Approved };
    let (status, code, approved) = match outcome {
        Outcome::Approved => (granted, "approved", order.amount),
        Outcome::Partial => (granted, "partial_approval", (order.amount / 2).max(order.amount.min(1))),
        Outcome::Pending | Outcome::PendingDeclined => (Status::Pending, "pending", 0),
        Outcome::Declined | Outcome::Authentication => {
            (Status::Declined, row.and_then(|row| row.code.as_deref()).unwrap_or("generic_decline"), 0)
        }
    };
    entry.status = status;
    entry.code = code.to_owned();
    entry.amount_approved = approved;
}

/// The amount that a follow-up moves, or why it cannot. A payment settles so many seconds after it was made.
pub(super) fn allowed(parent: &Record, follow: &FollowUp, now: Time, settle_s: i64) -> Result<i64, Refusal> {
    let is_settled = now.seconds() - parent.at_s >= settle_s;
    let wrong = Refusal::WrongState(parent.standing());
    let left = match follow.kind {
        Kind::Capture => {
            let open = parent.status == Status::Authorized && !parent.closed;
            if open { parent.approved - parent.captured } else { return Err(wrong) }
        }
        Kind::Refund => {
            let paid = parent.captured > 0 && parent.status != Status::Voided;
            if paid && parent.wire == Wire::AuthorizeNet && !is_settled {
                return Err(Refusal::Unsettled);
            }
            if paid { parent.captured - parent.refunded } else { return Err(wrong) }
        }
        Kind::Void => return if can_void(parent, is_settled) { Ok(parent.approved) } else { Err(wrong) },
        Kind::Sale | Kind::Authorize | Kind::Verify => return Err(wrong),
    };
    let amount = follow.amount.unwrap_or(left);
    if amount > left || amount <= 0 { Err(Refusal::TooLarge(left)) } else { Ok(amount) }
}

/// An authorization with nothing captured can be voided; in the plain form also a sale that has not settled, at
/// Authorize.Net everything that has not, at Stripe an intent that never succeeded.
fn can_void(parent: &Record, is_settled: bool) -> bool {
    match (parent.wire, parent.kind, parent.status) {
        (Wire::AuthorizeNet, Kind::Sale | Kind::Authorize, Status::Approved | Status::Authorized) => {
            parent.refunded == 0 && (!is_settled || parent.captured == 0)
        }
        (_, Kind::Authorize, Status::Authorized) => parent.captured == 0,
        (Wire::Json, Kind::Sale, Status::Approved) => parent.refunded == 0 && !is_settled,
        (
            Wire::Json | Wire::Adyen | Wire::AuthorizeNet | Wire::Worldpay,
            Kind::Sale | Kind::Authorize,
            Status::Pending,
        )
        | (Wire::Stripe, Kind::Sale | Kind::Authorize | Kind::Verify, Status::Declined) => true,
        (_, _, _) => false,
    }
}

/// A fresh id as the wire form has them: with a prefix that names the kind at Stripe and in the plain form, 16 capital
/// letters and digits at Adyen, eleven digits at Authorize.Net. At Worldpay it is the sandbox's own; callers name orders.
pub(super) fn make_id(wire: Wire, kind: Kind, now: Time, seq: u64) -> String {
    let prefix = match (wire, kind) {
        (Wire::Json, Kind::Sale | Kind::Authorize | Kind::Verify) => "pay_",
        (Wire::Json | Wire::Stripe, Kind::Capture) => "cap_",
        (Wire::Json, Kind::Refund) => "ref_",
        (Wire::Json | Wire::Stripe, Kind::Void) => "void_",
        (Wire::Stripe, Kind::Sale | Kind::Authorize) => "pi_",
        (Wire::Stripe, Kind::Verify) => "seti_",
        (Wire::Stripe, Kind::Refund) => "re_",
        (Wire::Worldpay, _) => "wpg_",
        (Wire::AuthorizeNet, _) => return (60_000_000_000 + seq % 10_000_000_000).to_string(),
        (Wire::Adyen, _) => {
            let random = random::make_bytes::<10>().unwrap_or_default();
            return data_encoding::BASE32.encode(&random);
        }
    };
    // Without randomness an id of the instant still tells payments apart, as there is one decider.
    let id = IdBytes::make(now).map_or_else(|_| format!("{:x}", now.micros), |bytes| bytes.encode());
    format!("{prefix}{id}")
}

/// As the brands make them: 15 digits, at Mastercard nine letters and digits and a date.
pub(super) fn make_network_transaction_id(brand: &str) -> Option<String> {
    let random = u64::from_le_bytes(random::make_bytes::<8>().ok()?);
    Some(match brand {
        "mastercard" => format!("MCC{:06}{:02}{:02}", random % 1_000_000, random % 12 + 1, random % 28 + 1),
        _ => format!("{:015}", random % 1_000_000_000_000_000),
    })
}
