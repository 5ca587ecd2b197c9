//! The names that a template may use, each resolved to an enum when the connector is loaded.

use super::op::Operation;
use super::values::{Initiator, Reason, Use};
use super::words::Word;

/// A name in a template. What it stands for is listed in [`NAMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// Opens the card or an account: stands in bodies and headers only.
    Secret(Secret),
    /// Changed by the connector's money rules on the way.
    Money(Money),
    Plain(Plain),
    /// The operation that is rendered.
    Operation,
    /// Of this one send: blanked before a MAC.
    Moment(Moment),
    /// Known only while a request is signed: stands in a signature's section.
    Signing(Signing),
    /// What the nth step gave, its nth output: filled in by the forwarder, which asked for it.
    Output(usize, usize),
}

/// What differs from send to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// `Wed, 25 Nov 2026 12:00:00 GMT` (RFC 9110, section 5.6.7).
    Date,
    /// `2026-11-25T12:00:00Z`.
    Time,
    /// Seconds since 1970.
    Timestamp,
    /// Milliseconds since 1970.
    TimestampMs,
    /// 32 random characters.
    Nonce,
}

/// The parts of a request that a signature covers, and the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signing {
    /// Host, and port where it is not the usual one.
    Host,
    /// `POST`.
    Method,
    /// Path and query.
    Path,
    /// The body as it is sent.
    Body,
    /// SHA-256 of the body in base64.
    Digest,
    Signature,
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
    AttemptNumber,
    AttemptUuid,
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
    /// A moment, which may be written in several ways.
    Time,
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
    ("date", Name::Moment(Moment::Date), Kind::Text),
    ("time", Name::Moment(Moment::Time), Kind::Time),
    ("timestamp", Name::Moment(Moment::Timestamp), Kind::Number),
    ("timestamp_ms", Name::Moment(Moment::TimestampMs), Kind::Number),
    ("nonce", Name::Moment(Moment::Nonce), Kind::Text),
    ("host", Name::Signing(Signing::Host), Kind::Text),
    ("method", Name::Signing(Signing::Method), Kind::Text),
    ("path", Name::Signing(Signing::Path), Kind::Text),
    ("body", Name::Signing(Signing::Body), Kind::Secret),
    ("digest", Name::Signing(Signing::Digest), Kind::Text),
    ("signature", Name::Signing(Signing::Signature), Kind::Text),
    ("operation", Name::Operation, Kind::OneOf(Operation::TEXTS)),
    ("attempt.id", Name::Plain(Plain::AttemptId), Kind::Text),
    ("attempt.ref", Name::Plain(Plain::AttemptRef), Kind::Text),
    ("attempt.number", Name::Plain(Plain::AttemptNumber), Kind::Text),
    ("attempt.uuid", Name::Plain(Plain::AttemptUuid), Kind::Text),
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
        if matches!(self, Self::Output(..)) {
            return "step.…".to_owned();
        }
        let found = NAMES.iter().find(|(_, known, _)| *known == self);
        found.map_or(String::new(), |(text, ..)| (*text).to_owned())
    }

    /// Whether only a stored card can give it.
    pub(super) const fn is_of_card(self) -> bool {
        matches!(
            self,
            Self::Secret(Secret::CardNumber)
                | Self::Plain(
                    Plain::CardLast4
                        | Plain::CardBrand
                        | Plain::CardExpMonth
                        | Plain::CardExpYear
                        | Plain::Zip
                )
        )
    }

    /// Whether it opens the card or an account.
    pub(super) const fn is_secret(self) -> bool {
        matches!(self, Self::Secret(_) | Self::Output(..))
    }

    /// Whether it differs from send to send.
    pub(super) const fn is_of_this_send(self) -> bool {
        matches!(self, Self::Moment(_) | Self::Signing(_) | Self::Output(..))
    }
}
