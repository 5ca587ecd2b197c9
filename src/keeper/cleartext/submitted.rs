//! A submitted card: read, checked, sealed, and gone.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

use super::envelope::{Place, Zip};
use super::fingerprint::derive_fingerprint;
use super::{Pan, PanError, json};
use crate::card::expiry::Expiry;
use crate::card::fingerprint::Fingerprint;
use crate::card::stray::Exempt;
use crate::card::tenant::{Mode, TenantId};
use crate::clock::Time;
use crate::keeper::keys::{KeyError, KeyRing, TenantKeys};
use crate::object;
use crate::wire::keeper::{Refusal, RefusalCode, Seal, SealAs, Sealed};

/// The longest zip, in characters; the longest postal code in use has ten.
const ZIP_CHARS_MAX: usize = 12;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default, deserialize_with = "object::optional")]
    card: Option<CardPart>,
    #[serde(default, deserialize_with = "object::optional")]
    billing: Option<BillingPart>,
    customer: Option<String>,
    #[serde(default, deserialize_with = "json::metadata")]
    metadata: Option<BTreeMap<String, String>>,
    on_duplicate: Option<String>,
    status: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CardPart {
    number: Option<Zeroizing<String>>,
    #[serde(default, deserialize_with = "json::small_number")]
    exp_month: Option<u16>,
    #[serde(default, deserialize_with = "json::small_number")]
    exp_year: Option<u16>,
    #[serde(alias = "cvv", alias = "cvv2", alias = "cid", alias = "csc", alias = "security_code")]
    cvc: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BillingPart {
    zip: Option<Zeroizing<String>>,
}

/// A submitted card, read and checked, before it is sealed.
pub(in crate::keeper) struct Submitted {
    pan: Option<Pan>,
    expiry: Option<Expiry>,
    zip: Option<Zip>,
    customer: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
    on_duplicate: Option<String>,
    status: Option<String>,
}

impl Submitted {
    /// Reads a body and checks everything that does not need a key.
    pub(in crate::keeper) fn read(
        ask: &Seal,
        mode: Mode,
        exempt: Exempt<'_>,
        now: Time,
    ) -> Result<Self, Refusal> {
        let body: Body = json::read(&ask.body)?;
        let card = body.card.unwrap_or(CardPart { number: None, exp_month: None, exp_year: None, cvc: None });
        if card.cvc.is_some() {
            return Err(Refusal::about(RefusalCode::CvcNotAccepted, "card.cvc"));
        }
        let creating = ask.seal_as != SealAs::Patch;
        json::check_identifier(body.customer.as_deref(), "customer", exempt)?;
        check_words(creating, body.on_duplicate.as_deref(), body.status.as_deref())?;
        if let Some(words) = &body.metadata {
            json::check_metadata(words)?;
        }
        let pan = card.number.map(|number| read_pan(&number, mode)).transpose()?;
        if creating && pan.is_none() {
            return Err(Refusal::about(RefusalCode::MissingField, "card.number"));
        }
        let expiry = read_expiry(card.exp_month, card.exp_year, creating, now)?;
        if expiry.is_some_and(|e| e.is_past(now)) && !ask.allow_expired {
            return Err(Refusal::about(RefusalCode::CardExpired, "card.exp_year"));
        }
        let zip = body.billing.and_then(|billing| billing.zip).map(check_zip).transpose()?;
        let (customer, metadata) = (body.customer, body.metadata);
        Ok(Self {
            pan,
            expiry,
            zip,
            customer,
            metadata,
            on_duplicate: body.on_duplicate,
            status: body.status,
        })
    }

    /// Reads what an account updater says and checks it as a submitted card is.
    pub(in crate::keeper) fn read_update(
        number: Option<&str>,
        expiry: Option<(u16, u16)>,
        mode: Mode,
        now: Time,
    ) -> Result<Self, Refusal> {
        let (month, year) = expiry.unzip();
        let expiry = read_expiry(month, year, false, now)?;
        if expiry.is_some_and(|expiry| expiry.is_past(now)) {
            return Err(Refusal::about(RefusalCode::CardExpired, "card.exp_year"));
        }
        Ok(Self {
            pan: number.map(|number| read_pan(number, mode)).transpose()?,
            expiry,
            zip: None,
            customer: None,
            metadata: None,
            on_duplicate: None,
            status: None,
        })
    }

    /// Leaves out what the card has already.
    pub(in crate::keeper) fn keep_what_is_new(&mut self, is_another_number: bool, expiry: Expiry) {
        self.pan = self.pan.take().filter(|_| is_another_number);
        self.expiry = self.expiry.filter(|new| *new != expiry);
    }

    /// Whether there is nothing of a card in it.
    pub(in crate::keeper) fn is_empty(&self) -> bool {
        self.pan.is_none() && self.expiry.is_none() && self.zip.is_none()
    }

    /// The number, for the fingerprint budget.
    pub(in crate::keeper) fn pan(&self) -> Option<&Pan> {
        self.pan.as_ref()
    }

    /// The keyed hash of the number.
    pub(in crate::keeper) fn fingerprint(&self, keys: &TenantKeys) -> Result<Option<Fingerprint>, KeyError> {
        self.pan.as_ref().map(|pan| derive_fingerprint(keys.fingerprints(), pan)).transpose()
    }

    /// Seals what was submitted, each field at the version after the one that is there. A merge leaves the number as it is.
    pub(in crate::keeper) fn seal(
        self,
        place: &Place,
        keys: &KeyRing,
        now: Time,
        (tenant, seal_as, versions): (TenantId, SealAs, [u32; 3]),
        fingerprint: Option<Fingerprint>,
    ) -> Result<Sealed, KeyError> {
        let key = keys.sealing_key(tenant, now)?;
        let [pan_version, expiry_version, zip_version] = versions.map(|version| version.saturating_add(1));
        let pan = self.pan.as_ref().filter(|_| seal_as != SealAs::Merge);
        let pseudonym_key = keys.tenant(tenant)?.pseudonym()?;
        let pseudonym = self.customer.as_ref().map(|customer| {
            let sum = pseudonym_key.sum(&[b"customer/v1", customer.as_bytes()]);
            data_encoding::HEXLOWER.encode(sum.get(..16).unwrap_or_default())
        });
        Ok(Sealed {
            shown: pan.map(Pan::truncate),
            pan: pan.map(|pan| place.seal_pan(key, pan_version, pan)).transpose()?,
            expiry: self.expiry.map(|expiry| place.seal_expiry(key, expiry_version, expiry)).transpose()?,
            zip: self.zip.map(|zip| place.seal_zip(key, zip_version, &zip)).transpose()?,
            shown_expiry: self.expiry,
            fingerprint,
            customer: self.customer,
            customer_pseudonym: pseudonym,
            metadata: self.metadata,
            on_duplicate: self.on_duplicate,
            status: self.status,
            digests: None,
        })
    }
}

/// The zip of a body that was read before; everything else of it is wiped unread.
pub(in crate::keeper) fn read_zip(body: &[u8]) -> Result<Zip, Refusal> {
    let body: Body = json::read(body)?;
    let zip = body.billing.and_then(|billing| billing.zip);
    check_zip(zip.ok_or(Refusal::about(RefusalCode::MissingField, "billing.zip"))?)
}

fn check_words(creating: bool, on_duplicate: Option<&str>, status: Option<&str>) -> Result<(), Refusal> {
    // `on_duplicate` belongs to a new card, `status` to a change.
    let misplaced = [(creating, status, "status"), (!creating, on_duplicate, "on_duplicate")];
    if misplaced.iter().any(|(wrong, word, _)| *wrong && word.is_some()) {
        return Err(Refusal::of(RefusalCode::UnknownField));
    }
    if on_duplicate.is_some_and(|word| !matches!(word, "new" | "return_existing" | "update_existing")) {
        return Err(Refusal::about(RefusalCode::InvalidValue, "on_duplicate"));
    }
    if status.is_some_and(|word| !matches!(word, "active" | "suspended")) {
        return Err(Refusal::about(RefusalCode::InvalidValue, "status"));
    }
    Ok(())
}

fn read_pan(number: &str, mode: Mode) -> Result<Pan, Refusal> {
    let refuse = |error: PanError| {
        let code = match error {
            PanError::Length | PanError::CheckDigit => RefusalCode::CardNumberInvalid,
            PanError::TestInLive => RefusalCode::TestNumberInLive,
            PanError::LiveInTest => RefusalCode::LiveNumberInTest,
        };
        Refusal::about(code, "card.number")
    };
    let pan = Pan::parse(number).map_err(refuse)?;
    pan.check_mode(mode).map_err(refuse)?;
    Ok(pan)
}

/// Month and year come together or not at all.
fn read_expiry(
    month: Option<u16>,
    year: Option<u16>,
    required: bool,
    now: Time,
) -> Result<Option<Expiry>, Refusal> {
    match (month, year) {
        (None, None) if !required => Ok(None),
        (None, _) => Err(Refusal::about(RefusalCode::MissingField, "card.exp_month")),
        (_, None) => Err(Refusal::about(RefusalCode::MissingField, "card.exp_year")),
        (Some(month), Some(year)) => Expiry::new(month, year, now).map(Some).map_err(|error| {
            let param = match error {
                crate::card::expiry::ExpiryError::Month => "card.exp_month",
                crate::card::expiry::ExpiryError::Year => "card.exp_year",
            };
            Refusal::about(RefusalCode::ExpiryInvalid, param)
        }),
    }
}

fn check_zip(zip: Zeroizing<String>) -> Result<Zip, Refusal> {
    let fits = (1..=ZIP_CHARS_MAX).contains(&zip.len())
        && zip.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b' ' | b'-'));
    if fits { Ok(zip) } else { Err(Refusal::about(RefusalCode::InvalidValue, "billing.zip")) }
}
