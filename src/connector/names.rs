//! The names that a template may use, each resolved to an enum when the connector is loaded, and the values behind
//! them for one request.
//!
//! Values are borrowed: nothing here copies a card number, and nothing here prints one.

use std::borrow::Cow;

use super::words::{Word, words};

/// A name in a template. What it stands for is listed in [`NAMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// Opens the card or an account: stands in bodies and headers only.
    Secret(Secret),
    /// Changed by the connector's money rules on the way.
    Money(Money),
    Plain(Plain),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secret {
    CardNumber,
    CardCvc,
    /// The nth field of the connector's `[credentials]`.
    Credential(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Money {
    Minor,
    Decimal,
    Exponent,
    Currency,
    CurrencyNumeric,
    OriginalAmount,
    PrevAmount,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain {
    CardLast4,
    CardBrand,
    CardExpMonth,
    CardExpYear,
    Zip,
    Holder,
    Line1,
    Line2,
    City,
    Region,
    Country,
    Email,
    ThreeDsVersion,
    ThreeDsEci,
    ThreeDsCavv,
    ThreeDsTransaction,
    AttemptId,
    AttemptRef,
    Use,
    Initiator,
    Reason,
    Ntid,
    Tlid,
    Previous,
    PrevTransaction,
    PrevAttempt,
    PrevRef,
    PrevNtid,
    CaptureFinal,
    AllowPartial,
    Description,
    StatementDescriptor,
    Invoice,
    Customer,
}

/// A set of names that only a condition may ask about: is any of it there?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Card,
    Billing,
    ThreeDSecure,
    StoredCredential,
}

/// What a name holds: which filters fit it and whether it may be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The card number, its verification code, a credential: no filter, no comparison.
    Secret,
    Text,
    Month,
    Year,
    /// Minor units.
    Money,
    Number,
    Flag,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// Every name, its spelling and its kind (`cred.*` apart, which each connector declares).
pub(super) const NAMES: &[(&str, Name, Kind)] = &[
    ("card.number", Name::Secret(Secret::CardNumber), Kind::Secret),
    ("card.last4", Name::Plain(Plain::CardLast4), Kind::Text),
    ("card.brand", Name::Plain(Plain::CardBrand), Kind::Text),
    ("card.exp_month", Name::Plain(Plain::CardExpMonth), Kind::Month),
    ("card.exp_year", Name::Plain(Plain::CardExpYear), Kind::Year),
    ("card.cvc", Name::Secret(Secret::CardCvc), Kind::Secret),
    ("billing.zip", Name::Plain(Plain::Zip), Kind::Text),
    ("billing.name", Name::Plain(Plain::Holder), Kind::Text),
    ("billing.line1", Name::Plain(Plain::Line1), Kind::Text),
    ("billing.line2", Name::Plain(Plain::Line2), Kind::Text),
    ("billing.city", Name::Plain(Plain::City), Kind::Text),
    ("billing.region", Name::Plain(Plain::Region), Kind::Text),
    ("billing.country", Name::Plain(Plain::Country), Kind::Text),
    ("billing.email", Name::Plain(Plain::Email), Kind::Text),
    ("three_d_secure.version", Name::Plain(Plain::ThreeDsVersion), Kind::Text),
    ("three_d_secure.eci", Name::Plain(Plain::ThreeDsEci), Kind::Text),
    ("three_d_secure.cavv", Name::Plain(Plain::ThreeDsCavv), Kind::Text),
    ("three_d_secure.ds_transaction_id", Name::Plain(Plain::ThreeDsTransaction), Kind::Text),
    ("amount.minor", Name::Money(Money::Minor), Kind::Money),
    ("amount.decimal", Name::Money(Money::Decimal), Kind::Text),
    ("amount.exponent", Name::Money(Money::Exponent), Kind::Number),
    ("amount.currency", Name::Money(Money::Currency), Kind::Text),
    ("amount.currency_numeric", Name::Money(Money::CurrencyNumeric), Kind::Text),
    ("attempt.id", Name::Plain(Plain::AttemptId), Kind::Text),
    ("attempt.ref", Name::Plain(Plain::AttemptRef), Kind::Text),
    ("stored_credential.use", Name::Plain(Plain::Use), Kind::OneOf(Use::TEXTS)),
    ("stored_credential.initiator", Name::Plain(Plain::Initiator), Kind::OneOf(Initiator::TEXTS)),
    ("stored_credential.reason", Name::Plain(Plain::Reason), Kind::OneOf(Reason::TEXTS)),
    ("stored_credential.ntid", Name::Plain(Plain::Ntid), Kind::Text),
    ("stored_credential.tlid", Name::Plain(Plain::Tlid), Kind::Text),
    ("stored_credential.original_amount", Name::Money(Money::OriginalAmount), Kind::Money),
    ("stored_credential.previous", Name::Plain(Plain::Previous), Kind::Text),
    ("prev.transaction", Name::Plain(Plain::PrevTransaction), Kind::Text),
    ("prev.amount", Name::Money(Money::PrevAmount), Kind::Money),
    ("prev.attempt", Name::Plain(Plain::PrevAttempt), Kind::Text),
    ("prev.ref", Name::Plain(Plain::PrevRef), Kind::Text),
    ("prev.ntid", Name::Plain(Plain::PrevNtid), Kind::Text),
    ("capture.final", Name::Plain(Plain::CaptureFinal), Kind::Flag),
    ("allow_partial", Name::Plain(Plain::AllowPartial), Kind::Flag),
    ("description", Name::Plain(Plain::Description), Kind::Text),
    ("statement_descriptor", Name::Plain(Plain::StatementDescriptor), Kind::Text),
    ("invoice", Name::Plain(Plain::Invoice), Kind::Text),
    ("customer", Name::Plain(Plain::Customer), Kind::Text),
];

/// The groups, as a condition spells them.
pub(super) const GROUPS: &[(&str, Group)] = &[
    ("card", Group::Card),
    ("billing", Group::Billing),
    ("three_d_secure", Group::ThreeDSecure),
    ("stored_credential", Group::StoredCredential),
];

impl Name {
    /// The name behind a spelling; `credentials` are the fields that the connector declares.
    pub(super) fn find(text: &str, credentials: &[Box<str>]) -> Option<Self> {
        if let Some(field) = text.strip_prefix("cred.") {
            let index = credentials.iter().position(|known| **known == *field)?;
            return Some(Self::Secret(Secret::Credential(index)));
        }
        NAMES.iter().find(|(spelling, ..)| *spelling == text).map(|(_, name, _)| *name)
    }

    /// What it holds.
    pub(super) fn kind(self) -> Kind {
        NAMES.iter().find(|(_, name, _)| *name == self).map_or(Kind::Secret, |(.., kind)| *kind)
    }

    /// Its spelling, for a person.
    pub(super) fn spelling(self, credentials: &[Box<str>]) -> String {
        if let Self::Secret(Secret::Credential(index)) = self {
            return format!("cred.{}", credentials.get(index).map_or("…", |field| field));
        }
        let found = NAMES.iter().find(|(_, known, _)| *known == self);
        found.map_or(String::new(), |(text, ..)| (*text).to_owned())
    }

    /// Whether it opens the card or an account.
    pub(super) const fn is_secret(self) -> bool {
        matches!(self, Self::Secret(_))
    }
}

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
