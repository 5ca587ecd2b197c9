//! The input of `connector render`: the fields of a charge, with its card, as an author writes them down.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use zeroize::Zeroizing;

use crate::clock::{Clock, SystemClock};
use crate::connector::{
    Amount, Billing, Card, EndpointParts, Initiator, Previous, Reason, SendMoment, StoredCredential,
    ThreeDSecure, Use, Values,
};

/// A charge and its card. Unknown fields are refused, so that a slip is seen.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    card: Option<CardInput>,
    #[serde(default)]
    billing: BillingInput,
    three_d_secure: Option<ThreeDSecureInput>,
    amount: Option<i64>,
    currency: Option<String>,
    cvc: Option<Secret>,
    initiator: Option<Initiator>,
    #[serde(alias = "agreement")]
    stored_credential: Option<StoredCredentialInput>,
    #[serde(default)]
    attempt: AttemptInput,
    #[serde(default, alias = "prev")]
    previous: PreviousInput,
    #[serde(default = "yes")]
    r#final: bool,
    #[serde(default)]
    allow_partial: bool,
    description: Option<String>,
    statement_descriptor: Option<String>,
    invoice: Option<String>,
    customer: Option<String>,
    // Fields of a charge that no template uses.
    #[serde(rename = "token")]
    _token: Option<serde::de::IgnoredAny>,
    #[serde(rename = "destination")]
    _destination: Option<serde::de::IgnoredAny>,
    #[serde(rename = "period")]
    _period: Option<serde::de::IgnoredAny>,
    #[serde(rename = "capture")]
    _capture: Option<serde::de::IgnoredAny>,
    #[serde(rename = "installments")]
    _installments: Option<serde::de::IgnoredAny>,
    #[serde(rename = "metadata")]
    _metadata: Option<serde::de::IgnoredAny>,
}

const fn yes() -> bool {
    true
}

/// Text that is wiped when dropped; a number is taken as its digits.
struct Secret(Zeroizing<String>);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self(Zeroizing::new(text)))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CardInput {
    number: Secret,
    #[serde(deserialize_with = "number")]
    exp_month: u16,
    #[serde(deserialize_with = "number")]
    exp_year: u16,
    cvc: Option<Secret>,
    brand: Option<String>,
}

/// A number, or text that is one: callers write both.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u16),
        Text(String),
    }
    match Either::deserialize(from)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(|_| D::Error::custom("not a number")),
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct BillingInput {
    zip: Option<String>,
    name: Option<String>,
    line1: Option<String>,
    line2: Option<String>,
    city: Option<String>,
    region: Option<String>,
    country: Option<String>,
    email: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ThreeDSecureInput {
    version: Option<String>,
    eci: Option<String>,
    cavv: Option<String>,
    ds_transaction_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredCredentialInput {
    #[serde(rename = "use")]
    usage: Option<Use>,
    initiator: Option<Initiator>,
    #[serde(alias = "type")]
    reason: Option<Reason>,
    #[serde(alias = "network_transaction_id")]
    ntid: Option<String>,
    #[serde(alias = "transaction_link_id")]
    tlid: Option<String>,
    original_amount: Option<i64>,
    previous: Option<String>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AttemptInput {
    id: String,
    #[serde(rename = "ref")]
    reference: String,
}

impl Default for AttemptInput {
    fn default() -> Self {
        Self { id: "att_example".to_owned(), reference: "example".to_owned() }
    }
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct PreviousInput {
    #[serde(alias = "transaction_id", alias = "processor_transaction_id")]
    transaction: Option<String>,
    amount: Option<i64>,
    attempt: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    #[serde(alias = "network_transaction_id")]
    ntid: Option<String>,
}

impl Input {
    /// Reads the input; what is wrong is said by its place only, as the values are a card's.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let input: Self = serde_json::from_str(text).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            match error.classify() {
                serde_json::error::Category::Data => {
                    format!("{place}: a field is unknown, missing or of the wrong type; {FIELDS}")
                }
                serde_json::error::Category::Syntax
                | serde_json::error::Category::Eof
                | serde_json::error::Category::Io => format!("{place}: this is not JSON"),
            }
        })?;
        if let Some(card) = &input.card {
            let digits = &card.number.0;
            if !(12..=19).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err("card.number is not 12 to 19 digits".to_owned());
            }
            if !(1..=12).contains(&card.exp_month) {
                return Err("card.exp_month is not 1 to 12".to_owned());
            }
        }
        if input.amount.is_some() != input.currency.is_some() {
            return Err("amount and currency must stand together".to_owned());
        }
        Ok(input)
    }

    /// The values of this input; credentials are shown by name, so none is needed.
    pub(super) fn values(&self) -> Values<'_> {
        let b = &self.billing;
        Values {
            card: self.card.as_ref().map(|card| Card {
                number: &card.number.0,
                exp_month: u8::try_from(card.exp_month).unwrap_or(0),
                exp_year: if card.exp_year < 100 { card.exp_year + 2000 } else { card.exp_year },
                cvc: card.cvc.as_ref().or(self.cvc.as_ref()).map(|cvc| cvc.0.as_str()),
                brand: card.brand.as_deref(),
            }),
            billing: Billing {
                zip: b.zip.as_deref(),
                name: b.name.as_deref(),
                line1: b.line1.as_deref(),
                line2: b.line2.as_deref(),
                city: b.city.as_deref(),
                region: b.region.as_deref(),
                country: b.country.as_deref(),
                email: b.email.as_deref(),
            },
            three_d_secure: self.three_d_secure.as_ref().map(|t| ThreeDSecure {
                version: t.version.as_deref(),
                eci: t.eci.as_deref(),
                cavv: t.cavv.as_deref(),
                ds_transaction_id: t.ds_transaction_id.as_deref(),
            }),
            amount: self
                .amount
                .zip(self.currency.as_deref())
                .map(|(minor, currency)| Amount { minor, currency }),
            attempt_id: &self.attempt.id,
            attempt_ref: &self.attempt.reference,
            stored_credential: self.stored_credential(),
            credentials: &[],
            previous: Previous {
                transaction: self.previous.transaction.as_deref(),
                amount: self.previous.amount,
                attempt: self.previous.attempt.as_deref(),
                reference: self.previous.reference.as_deref(),
                ntid: self.previous.ntid.as_deref(),
            },
            capture_final: self.r#final,
            allow_partial: self.allow_partial,
            description: self.description.as_deref(),
            statement_descriptor: self.statement_descriptor.as_deref(),
            invoice: self.invoice.as_deref(),
            customer: self.customer.as_deref(),
            moment: SendMoment {
                unix_ms: i64::try_from(SystemClock.now().millis()).unwrap_or(0),
                nonce: "‹nonce›",
                mark: "",
            },
            endpoint: EndpointParts { host: "‹host›", prefix: "" },
        }
    }

    /// What is written, and for the rest what a charge means by it: the merchant charges again what is stored.
    fn stored_credential(&self) -> Option<StoredCredential<'_>> {
        let stored = self.stored_credential.as_ref();
        let merchant = self.initiator == Some(Initiator::Merchant);
        if stored.is_none() && !merchant {
            return None;
        }
        let initiator = stored.and_then(|s| s.initiator).or(self.initiator).unwrap_or(Initiator::Merchant);
        let usual = if initiator == Initiator::Merchant { Use::Subsequent } else { Use::Initial };
        Some(StoredCredential {
            usage: stored.and_then(|s| s.usage).unwrap_or(usual),
            initiator,
            reason: stored.and_then(|s| s.reason).unwrap_or(Reason::Unscheduled),
            ntid: stored.and_then(|s| s.ntid.as_deref()),
            tlid: stored.and_then(|s| s.tlid.as_deref()),
            original_amount: stored.and_then(|s| s.original_amount),
            previous: stored.and_then(|s| s.previous.as_deref()),
        })
    }
}

const FIELDS: &str = "known are card {number, exp_month, exp_year, cvc, brand}, amount, currency, billing, three_d_secure, \
    initiator, stored_credential {use, initiator, reason, ntid, tlid, original_amount, previous}, previous {transaction, \
    amount, attempt, ref, ntid}, attempt {id, ref}, final, allow_partial, description, statement_descriptor, invoice, \
    customer";
