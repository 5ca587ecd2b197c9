//! The values behind a template's names, for one request.
//!
//! They are borrowed: nothing here copies a card number, and nothing here prints one.

use std::borrow::Cow;

use super::names::{Group, Plain, Secret};
use super::words::{Word, words};

words! {
    /// Whether this use of a stored credential is the one that stores it.
    pub enum Use {
        /// The first: the cardholder agrees, the network answers with its transaction id.
        Initial = "initial",
        /// A later one.
        Subsequent = "subsequent",
    }
}
words! {
    /// Who started the payment.
    pub enum Initiator {
        /// The cardholder (CIT).
        Customer = "customer",
        /// The merchant, without the cardholder (MIT).
        Merchant = "merchant",
    }
}
words! {
    /// What the agreement is for.
    pub enum Reason {
        /// Fixed intervals, no end.
        Recurring = "recurring",
        /// No fixed schedule: top-ups, usage.
        Unscheduled = "unscheduled",
        /// One purchase in parts.
        Installment = "installment",
    }
}

/// Everything one request may say, borrowed from its owners. What is `None` is not there: a leaf that needs it refuses.
///
/// Invariant: no copy of a card number, and a `Debug` that is a constant.
#[derive(Clone, Copy, Default)]
#[expect(missing_docs, reason = "each field is the template name of the same spelling")]
pub struct Values<'v> {
    pub card: Option<Card<'v>>,
    pub billing: Billing<'v>,
    pub three_d_secure: Option<ThreeDSecure<'v>>,
    /// ISO 4217 minor units; the connector converts to the exponent that its processor uses.
    pub amount: Option<Amount<'v>>,
    /// `attempt.id`, which is the idempotency key.
    pub attempt_id: &'v str,
    /// `attempt.ref`: a shorter reference of our own, for processors that take no more than 20 characters.
    pub attempt_ref: &'v str,
    pub stored_credential: Option<StoredCredential<'v>>,
    /// The operator's credentials: field and value.
    pub credentials: &'v [(&'v str, &'v str)],
    pub previous: Previous<'v>,
    /// `capture.final`: no further capture follows.
    pub capture_final: bool,
    pub allow_partial: bool,
    pub description: Option<&'v str>,
    pub statement_descriptor: Option<&'v str>,
    pub invoice: Option<&'v str>,
    pub customer: Option<&'v str>,
    /// What differs from send to send.
    pub moment: SendMoment<'v>,
    /// Where it goes: what a signature covers of that.
    pub endpoint: EndpointParts<'v>,
}

/// This one send.
#[derive(Clone, Copy, Default)]
pub struct SendMoment<'v> {
    /// Milliseconds since 1970, UTC.
    pub unix_ms: i64,
    /// 32 random characters, of letters and digits.
    pub nonce: &'v str,
    /// As many others: they mark where the forwarder fills in what a step gave, and never leave.
    pub mark: &'v str,
}

/// A destination's address in the parts that are signed.
#[derive(Clone, Copy, Default)]
pub struct EndpointParts<'v> {
    /// Host, and port where it is not the usual one.
    pub host: &'v str,
    /// What stands before every path, without a slash at its end.
    pub prefix: &'v str,
}

impl std::fmt::Debug for Values<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Values(REDACTED)")
    }
}

/// The card of a request. No `Debug`: see [`Values`].
#[derive(Clone, Copy)]
pub struct Card<'v> {
    /// The whole PAN.
    pub number: &'v str,
    /// 1–12.
    pub exp_month: u8,
    /// Four digits.
    pub exp_year: u16,
    /// The card verification code, on a first charge only.
    pub cvc: Option<&'v str>,
    /// `visa`, `mastercard`, …, where the keeper knows it.
    pub brand: Option<&'v str>,
}

/// Pass-through billing fields.
#[derive(Clone, Copy, Default)]
#[expect(missing_docs, reason = "each field is the template name of the same spelling")]
pub struct Billing<'v> {
    pub zip: Option<&'v str>,
    pub name: Option<&'v str>,
    pub line1: Option<&'v str>,
    pub line2: Option<&'v str>,
    pub city: Option<&'v str>,
    pub region: Option<&'v str>,
    pub country: Option<&'v str>,
    pub email: Option<&'v str>,
}

/// A finished authentication.
#[derive(Clone, Copy, Default)]
#[expect(missing_docs, reason = "each field is the template name of the same spelling")]
pub struct ThreeDSecure<'v> {
    pub version: Option<&'v str>,
    pub eci: Option<&'v str>,
    pub cavv: Option<&'v str>,
    pub ds_transaction_id: Option<&'v str>,
}

/// Money as our API speaks of it.
#[derive(Clone, Copy)]
pub struct Amount<'v> {
    /// ISO 4217 minor units.
    pub minor: i64,
    /// Three upper-case letters.
    pub currency: &'v str,
}

/// What the networks want to know of a card on file.
#[derive(Clone, Copy)]
pub struct StoredCredential<'v> {
    /// `stored_credential.use`.
    pub usage: Use,
    /// Who started this payment.
    pub initiator: Initiator,
    /// What the agreement is for.
    pub reason: Reason,
    /// The network transaction id of the first use.
    pub ntid: Option<&'v str>,
    /// Mastercard's transaction link id.
    pub tlid: Option<&'v str>,
    /// Of the first use, in ISO 4217 minor units of the same currency.
    pub original_amount: Option<i64>,
    /// The processor's own reference of the first use.
    pub previous: Option<&'v str>,
}

/// The transaction that is captured, refunded, voided or looked up.
#[derive(Clone, Copy, Default)]
pub struct Previous<'v> {
    /// The processor's id.
    pub transaction: Option<&'v str>,
    /// What it was for, in ISO 4217 minor units of the same currency.
    pub amount: Option<i64>,
    /// Our attempt id then.
    pub attempt: Option<&'v str>,
    /// Our short reference then.
    pub reference: Option<&'v str>,
    /// Its network transaction id.
    pub ntid: Option<&'v str>,
}

impl<'v> Values<'v> {
    /// A secret; an empty string counts as absent.
    pub(super) fn secret(&self, name: Secret, credentials: &[Box<str>]) -> Option<&'v str> {
        let text = match name {
            Secret::CardNumber => self.card.map(|card| card.number),
            Secret::CardCvc => self.card.and_then(|card| card.cvc),
            Secret::Credential(index) => {
                let field = credentials.get(index)?;
                self.credentials.iter().find(|(known, _)| **known == **field).map(|(_, value)| *value)
            }
        };
        text.filter(|text| !text.is_empty())
    }

    /// A value that is neither secret nor money; an empty string counts as absent.
    pub(super) fn plain(&self, name: Plain) -> Option<Cow<'v, str>> {
        let card = self.card.as_ref();
        let stored = self.stored_credential.as_ref();
        let text = match name {
            Plain::CardLast4 => card.and_then(|c| c.number.get(c.number.len().checked_sub(4)?..)),
            Plain::CardBrand => card.and_then(|c| c.brand),
            Plain::CardExpMonth => return card.map(|c| Cow::Owned(c.exp_month.to_string())),
            Plain::CardExpYear => return card.map(|c| Cow::Owned(c.exp_year.to_string())),
            Plain::Zip => self.billing.zip,
            Plain::Holder => self.billing.name,
            Plain::Line1 => self.billing.line1,
            Plain::Line2 => self.billing.line2,
            Plain::City => self.billing.city,
            Plain::Region => self.billing.region,
            Plain::Country => self.billing.country,
            Plain::Email => self.billing.email,
            Plain::ThreeDsVersion => self.three_d_secure.and_then(|t| t.version),
            Plain::ThreeDsEci => self.three_d_secure.and_then(|t| t.eci),
            Plain::ThreeDsCavv => self.three_d_secure.and_then(|t| t.cavv),
            Plain::ThreeDsTransaction => self.three_d_secure.and_then(|t| t.ds_transaction_id),
            Plain::AttemptId => Some(self.attempt_id),
            Plain::AttemptRef => Some(self.attempt_ref),
            Plain::AttemptNumber => return attempt_number(self.attempt_id).map(Cow::Owned),
            Plain::AttemptUuid => return uuid_of(self.attempt_id).map(Cow::Owned),
            Plain::Use => stored.map(|s| s.usage.text()),
            Plain::Initiator => stored.map(|s| s.initiator.text()),
            Plain::Reason => stored.map(|s| s.reason.text()),
            Plain::Ntid => stored.and_then(|s| s.ntid),
            Plain::Tlid => stored.and_then(|s| s.tlid),
            Plain::Previous => stored.and_then(|s| s.previous),
            Plain::PrevTransaction => self.previous.transaction,
            Plain::PrevAttempt => self.previous.attempt,
            Plain::PrevRef => self.previous.reference,
            Plain::PrevNtid => self.previous.ntid,
            Plain::CaptureFinal => Some(if self.capture_final { "true" } else { "false" }),
            Plain::AllowPartial => Some(if self.allow_partial { "true" } else { "false" }),
            Plain::Description => self.description,
            Plain::StatementDescriptor => self.statement_descriptor,
            Plain::Invoice => self.invoice,
            Plain::Customer => self.customer,
        };
        text.filter(|t| !t.is_empty()).map(Cow::Borrowed)
    }

    /// Whether anything of the group is there.
    pub(super) fn has(&self, group: Group) -> bool {
        match group {
            Group::Card => self.card.is_some(),
            Group::Billing => {
                let b = &self.billing;
                [b.zip, b.name, b.line1, b.line2, b.city, b.region, b.country, b.email]
                    .iter()
                    .any(Option::is_some)
            }
            Group::ThreeDSecure => self.three_d_secure.is_some(),
            Group::StoredCredential => self.stored_credential.is_some(),
        }
    }
}

/// `attempt.number`: sixteen digits that stand for an attempt, for processors that take digits only. The 9 in front begins no
/// card number.
pub fn attempt_number(attempt_id: &str) -> Option<String> {
    if attempt_id.is_empty() {
        return None;
    }
    let hash = ring::digest::digest(&ring::digest::SHA256, attempt_id.as_bytes());
    let bytes = hash.as_ref().get(..8)?.try_into().ok()?;
    Some(format!("9{:015}", u64::from_be_bytes(bytes) % 1_000_000_000_000_000))
}

/// `attempt.uuid`: a UUID that stands for an attempt (RFC 9562, version 8: ours to fill), for processors that take no other key.
fn uuid_of(attempt_id: &str) -> Option<String> {
    if attempt_id.is_empty() {
        return None;
    }
    let hash = ring::digest::digest(&ring::digest::SHA256, attempt_id.as_bytes());
    let number = u128::from_be_bytes(hash.as_ref().get(..16)?.try_into().ok()?);
    let marked = number & !(0xf << 76) & !(0x3 << 62) | (0x8 << 76) | (0x2 << 62);
    let hex = format!("{marked:032x}");
    let part = |from: usize, to: usize| hex.get(from..to);
    Some([part(0, 8)?, part(8, 12)?, part(12, 16)?, part(16, 20)?, part(20, 32)?].join("-"))
}
