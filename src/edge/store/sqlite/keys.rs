//! Keys of the index: one byte that says what kind, then fixed-length parts. Hashes are cut to 16 bytes where a chance
//! match would be a mistake of one in 2^64 cards squared; fingerprints are compared whole (the rest is the value).

use ring::digest::{Context, SHA256};

use crate::card::fingerprint::Fingerprint;
use crate::card::id::{ChargeId, RunId, Token};
use crate::card::tenant::TenantId;
use crate::clock::Time;

pub(super) type Key = Vec<u8>;

#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    BodyMac = b'B',
    Customer = b'C',
    Erasure = b'E',
    Fingerprint = b'F',
    Idempotency = b'I',
    ChargeOfCustomer = b'K',
    ChargeOfInvoice = b'L',
    Open = b'N',
    Operation = b'O',
    Transaction = b'P',
    Retry = b'R',
    Scrub = b'S',
    RetryOfCard = b'T',
    Invoice = b'U',
    Unlisted = b'G',
    LastUse = b'H',
    RunInvoice = b'V',
    Pin = b'X',
    RefundedWithCard = b'Y',
}

/// First bytes of the keys that begin with a hash, and are looked for where they mostly are not.
pub(super) const HASHED: [u8; 6] = [
    Kind::Customer as u8,
    Kind::Fingerprint as u8,
    Kind::Idempotency as u8,
    Kind::Invoice as u8,
    Kind::ChargeOfInvoice as u8,
    Kind::RunInvoice as u8,
];

/// Whether a key that is deleted goes from everywhere at once: what an erasure deletes does.
pub(super) fn is_erased_at_once(key: &[u8]) -> bool {
    [Kind::BodyMac, Kind::Customer, Kind::Fingerprint, Kind::Unlisted]
        .iter()
        .any(|kind| key.first() == Some(&(*kind as u8)))
}

/// What the index knows of a fingerprint: SHA-256 over tenant and keyed hash, so that tenants never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark(pub(super) [u8; 32]);

impl Mark {
    pub(super) fn of(tenant: TenantId, fingerprint: &[u8; 32]) -> Self {
        Self(hash(&[&tenant.0.to_be_bytes(), fingerprint]))
    }

    /// Where a number that is stored may be found: under the key in use first, then under those before it.
    pub(super) fn all_of(tenant: TenantId, fingerprint: &Fingerprint) -> (Self, Vec<Self>) {
        let before = fingerprint.before.iter().map(|hash| Self::of(tenant, hash));
        (Self::of(tenant, &fingerprint.hash), before.collect())
    }

    pub(super) fn head(&self) -> [u8; 16] {
        head(&self.0)
    }

    pub(super) fn rest(&self) -> &[u8] {
        self.0.get(16..).unwrap_or_default()
    }
}

/// Sixteen bytes for a customer; zeros for the absence of one.
pub(super) fn customer_mark(tenant: TenantId, customer: Option<&str>) -> [u8; 16] {
    customer.map_or([0; 16], |c| head(&hash(&[&tenant.0.to_be_bytes(), c.as_bytes()])))
}

/// All tokens of a number: prefix of [`fingerprint`] keys.
pub(super) fn fingerprint_prefix(mark: [u8; 16]) -> Key {
    join(Kind::Fingerprint, &[&mark])
}

/// A customer's tokens of a number: prefix of [`fingerprint`] keys, oldest token first.
pub(super) fn fingerprint_customer_prefix(mark: [u8; 16], customer: [u8; 16]) -> Key {
    join(Kind::Fingerprint, &[&mark, &customer])
}

/// One live card under its fingerprint; the value is the mark's rest.
pub(super) fn fingerprint(mark: [u8; 16], customer: [u8; 16], token: Token) -> Key {
    join(Kind::Fingerprint, &[&mark, &customer, token.bytes()])
}

/// The rest of the mark of a card that waits to be erased.
pub(super) fn unlisted(token: Token) -> Key {
    join(Kind::Unlisted, &[token.bytes()])
}

pub(super) fn customer_prefix(customer: [u8; 16]) -> Key {
    join(Kind::Customer, &[&customer])
}

pub(super) fn customer(customer: [u8; 16], token: Token) -> Key {
    join(Kind::Customer, &[&customer, token.bytes()])
}

pub(super) fn idempotency(tenant: TenantId, route: &str, key: &[u8; 32]) -> Key {
    join(Kind::Idempotency, &[&head(&hash(&[&tenant.0.to_be_bytes(), key, route.as_bytes()]))])
}

pub(super) fn body_mac_prefix(token: Token) -> Key {
    join(Kind::BodyMac, &[token.bytes()])
}

pub(super) fn body_mac(token: Token, id: i64) -> Key {
    join(Kind::BodyMac, &[token.bytes(), &id.to_be_bytes()])
}

pub(super) fn scrub_prefix() -> Key {
    join(Kind::Scrub, &[])
}

pub(super) fn scrub(token: Token) -> Key {
    join(Kind::Scrub, &[token.bytes()])
}

/// When a card was used last.
pub(super) fn last_use(token: Token) -> Key {
    join(Kind::LastUse, &[token.bytes()])
}

/// Where the log tells of the erasure of a card.
pub(super) fn erasure(token: Token) -> Key {
    join(Kind::Erasure, &[token.bytes()])
}

pub(super) fn pin_prefix(token: Token) -> Key {
    join(Kind::Pin, &[token.bytes()])
}

pub(super) fn pin_version_prefix(token: Token, version: u32) -> Key {
    join(Kind::Pin, &[token.bytes(), &version.to_be_bytes()])
}

pub(super) fn pin(token: Token, version: u32, charge: ChargeId) -> Key {
    join(Kind::Pin, &[token.bytes(), &version.to_be_bytes(), charge.bytes()])
}

pub(super) fn open_prefix() -> Key {
    join(Kind::Open, &[])
}

pub(super) fn open(charge: ChargeId) -> Key {
    join(Kind::Open, &[charge.bytes()])
}

/// All schedules of retries: prefix of [`retry`] keys, soonest first.
pub(super) fn retry_prefix() -> Key {
    join(Kind::Retry, &[])
}

/// A charge whose schedule has to be looked at at this instant.
pub(super) fn retry(due: Time, charge: ChargeId) -> Key {
    join(Kind::Retry, &[&due.micros.max(0).to_be_bytes(), charge.bytes()])
}

/// The instant of a [`retry`] key.
pub(super) fn retry_due(key: &[u8]) -> Option<Time> {
    let micros = key.get(1..)?.first_chunk::<8>()?;
    Some(Time::from_micros(i64::from_be_bytes(*micros)))
}

/// The charges of a card that a schedule goes on with.
pub(super) fn retries_of_card(token: Token) -> Key {
    join(Kind::RetryOfCard, &[token.bytes()])
}

pub(super) fn operation(tenant: TenantId, operation: &str) -> Key {
    join(Kind::Operation, &[&tenant.0.to_be_bytes(), operation.as_bytes()])
}

/// The charge that holds an invoice and period.
pub(super) fn invoice(tenant: TenantId, invoice: &str, period: &str) -> Key {
    let length = u32::try_from(invoice.len()).unwrap_or(u32::MAX).to_be_bytes();
    let whole = hash(&[&tenant.0.to_be_bytes(), &length, invoice.as_bytes(), period.as_bytes()]);
    join(Kind::Invoice, &[&head(&whole)])
}

/// The line of a run that only validates, by its invoice and period.
pub(super) fn run_invoice(run: RunId, invoice: &str, period: &str) -> Key {
    let length = u32::try_from(invoice.len()).unwrap_or(u32::MAX).to_be_bytes();
    let whole = hash(&[run.bytes(), &length, invoice.as_bytes(), period.as_bytes()]);
    join(Kind::RunInvoice, &[&head(&whole)])
}

/// All charges of an invoice, whatever became of them.
pub(super) fn charges_of_invoice(tenant: TenantId, invoice: &str) -> Key {
    join(Kind::ChargeOfInvoice, &[&head(&hash(&[&tenant.0.to_be_bytes(), invoice.as_bytes()]))])
}

pub(super) fn charges_of_customer(tenant: TenantId, customer: &str) -> Key {
    join(Kind::ChargeOfCustomer, &[&head(&hash(&[&tenant.0.to_be_bytes(), customer.as_bytes()]))])
}

pub(super) fn charges_of_transaction(tenant: TenantId, transaction: &str) -> Key {
    join(Kind::Transaction, &[&head(&hash(&[&tenant.0.to_be_bytes(), transaction.as_bytes()]))])
}

/// All charges of a card that can be refunded with the card only.
pub(super) fn charges_refunded_with(token: Token) -> Key {
    join(Kind::RefundedWithCard, &[token.bytes()])
}

/// `prefix` followed by a charge's id.
pub(super) fn with_charge(mut prefix: Key, charge: ChargeId) -> Key {
    prefix.extend_from_slice(charge.bytes());
    prefix
}

/// The last 18 bytes of a key: the token or charge that it leads to.
pub(super) fn last_id(key: &[u8]) -> Option<&[u8]> {
    key.len().checked_sub(18).and_then(|at| key.get(at..))
}

/// The first key after every key that begins with `prefix`.
pub(super) fn after_prefix(prefix: &[u8]) -> Key {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

fn join(kind: Kind, parts: &[&[u8]]) -> Key {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|p| p.len()).sum::<usize>());
    key.push(kind as u8);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

fn head(hash: &[u8; 32]) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(hash) {
        *to = *from;
    }
    out
}
