//! How rows lie in the tables: compact, each kind with one writer and one reader.

use std::collections::BTreeMap;

use rusqlite::Row;
use serde::{Deserialize, Serialize};

use crate::card::brand::Brand;
use crate::card::id::{FingerprintId, IdBytes, Token};
use crate::card::range::{self, Country, Funding};
use crate::card::sealed::{Field, OVERHEAD_BYTES, SealedCard};
use crate::card::tenant::TenantId;
use crate::card::truncated::TruncatedPan;
use crate::clock::Time;
use crate::edge::store::{CardRow, CardStatus, StoreError, StoredAnswer};

/// In `cards.flags`: a legal hold keeps it.
pub(super) const FLAG_HOLD: i64 = 1;
/// In `cards.flags`: to be erased when the hold is released.
pub(super) const FLAG_ERASE_WANTED: i64 = 2;
/// In `cards.flags`: the number has changed, and each time by an account updater's word.
pub(super) const FLAG_NUMBER_BY_UPDATER: i64 = 4;

/// What stands where a fingerprint id was, once the card is erased.
pub(super) const NO_FINGERPRINT: FingerprintId = FingerprintId(IdBytes([0; 18]));

/// A row of `cards`, and the sealed fields it points to.
#[derive(Clone, Debug)]
pub(super) struct StoredCard {
    pub(super) row: CardRow,
    pub(super) sealed_id: Option<i64>,
    pub(super) flags: i64,
}

impl StoredCard {
    /// Reads the columns of `card_get.sql`.
    pub(super) fn read(row: &Row<'_>) -> Result<Self, ReadError> {
        let created: i64 = row.get(6)?;
        let (details, ranged) = decode_details(row.get_ref(10)?.as_blob().map_err(rusqlite::Error::from)?)?;
        let sealed = match row.get_ref(11)?.as_blob_or_null().map_err(rusqlite::Error::from)? {
            Some(bytes) => Some(decode_sealed(bytes)?),
            None => None,
        };
        let flags: i64 = row.get(4)?;
        Ok(Self {
            row: CardRow {
                token: Token::from_slice(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)
                    .ok_or(ReadError::Corrupt("token"))?,
                tenant: TenantId(row.get(1)?),
                customer: details.customer,
                metadata: details.metadata,
                shown: details.shown.map(|shown| shown.into_truncated(ranged)),
                fingerprint: details.fingerprint,
                sealed,
                version: row.get(3)?,
                status: status_of(row.get(2)?)?,
                legal_hold: flags & FLAG_HOLD != 0,
                erase_asked: flags & FLAG_ERASE_WANTED != 0,
                number_by_updater: flags & FLAG_NUMBER_BY_UPDATER != 0,
                created_at: Time::from_micros(created),
                updated_at: Time::from_micros(created.saturating_add(row.get::<_, i64>(7)?)),
                erased_at: row.get::<_, Option<i64>>(8)?.map(Time::from_micros),
                scrubbed_at: row.get::<_, Option<i64>>(9)?.map(Time::from_micros),
            },
            sealed_id: row.get(5)?,
            flags,
        })
    }
}

/// Why a row could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
    #[error("corrupt: {0}")]
    Corrupt(&'static str),
    #[error("the log has no such leaf or size")]
    NoSuchTree,
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Database(_) => Self::Unavailable("io"),
            ReadError::Corrupt(what) => Self::Corrupt(what),
            ReadError::NoSuchTree => Self::Unavailable("no_such_tree"),
        }
    }
}

/// The `details` column of `cards` and `card_versions`.
#[derive(Serialize, Deserialize)]
struct Details {
    customer: Option<String>,
    metadata: BTreeMap<String, String>,
    shown: Option<Shown>,
    fingerprint: FingerprintId,
}

#[derive(Serialize, Deserialize)]
struct Shown {
    first6: Option<String>,
    last4: String,
    brand: u8,
}

impl Shown {
    fn of(pan: &TruncatedPan) -> Self {
        Self { first6: pan.first6.clone(), last4: pan.last4.clone(), brand: brand_code(pan.brand) }
    }

    fn into_truncated(self, ranged: Ranged) -> TruncatedPan {
        let brand = brand_of(self.brand);
        let (funding, country) = (range::at(&Funding::ALL, ranged.funding), Country::read(ranged.country));
        TruncatedPan { first6: self.first6, last4: self.last4, brand, funding, country }
    }
}

/// What a table of ranges said of the card; written behind the details, and only if it said something, so that rows of before read
/// as they did and others are no longer than they were.
#[derive(Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ranged {
    funding: u8,
    country: [u8; 2],
}

impl Ranged {
    fn of(pan: &TruncatedPan) -> Self {
        let letters = pan.country.as_ref().and_then(|country| country.as_str().as_bytes().try_into().ok());
        Self {
            funding: range::place(&Funding::ALL, pan.funding.as_ref()),
            country: letters.unwrap_or_default(),
        }
    }
}

fn decode_details(bytes: &[u8]) -> Result<(Details, Ranged), ReadError> {
    let corrupt = |_| ReadError::Corrupt("encoding");
    let (details, rest) = postcard::take_from_bytes(bytes).map_err(corrupt)?;
    let ranged =
        if rest.is_empty() { Ranged::default() } else { postcard::from_bytes(rest).map_err(corrupt)? };
    Ok((details, ranged))
}

/// The `details` of a card.
pub(super) fn encode_details(card: &CardRow) -> Vec<u8> {
    let mut details = encode(&Details {
        customer: card.customer.clone(),
        metadata: card.metadata.clone(),
        shown: card.shown.as_ref().map(Shown::of),
        fingerprint: card.fingerprint,
    });
    if let Some(ranged) = card.shown.as_ref().map(Ranged::of).filter(|ranged| *ranged != Ranged::default()) {
        details.extend(encode(&ranged));
    }
    details
}

/// Sealed fields for the `sealed` column.
pub(super) fn encode_sealed(sealed: &SealedCard) -> Vec<u8> {
    encode(sealed)
}

/// The bytes of a record as they lie in the table: zeros stand for a number that is gone.
pub(super) fn encode_record(sealed: &SealedCard) -> Vec<u8> {
    if !sealed.pan.envelope.is_empty() {
        return encode(sealed);
    }
    let mut sealed = sealed.clone();
    sealed.pan.envelope.resize(OVERHEAD_BYTES + Field::Pan.padded_bytes(), 0);
    encode(&sealed)
}

/// A `limit` of SQL.
pub(super) fn to_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The same bytes with zeros for the PAN's envelope: an update of the same length stays where it is.
pub(super) fn without_pan(sealed: &SealedCard) -> Vec<u8> {
    let mut sealed = sealed.clone();
    sealed.pan.envelope.fill(0);
    encode(&sealed)
}

pub(super) fn decode_sealed(bytes: &[u8]) -> Result<SealedCard, ReadError> {
    let mut sealed: SealedCard = decode(bytes)?;
    if sealed.pan.envelope.iter().all(|byte| *byte == 0) {
        sealed.pan.envelope.clear();
    }
    Ok(sealed)
}

/// The number that stands for a status in SQL.
pub(super) const fn status_code(status: CardStatus) -> i64 {
    match status {
        CardStatus::Active => 1,
        CardStatus::Suspended => 2,
        CardStatus::Erasing => 3,
        CardStatus::Erased => 4,
    }
}

fn status_of(code: i64) -> Result<CardStatus, ReadError> {
    [CardStatus::Active, CardStatus::Suspended, CardStatus::Erasing, CardStatus::Erased]
        .into_iter()
        .find(|status| status_code(*status) == code)
        .ok_or(ReadError::Corrupt("status"))
}

const fn brand_code(brand: Brand) -> u8 {
    match brand {
        Brand::Unknown => 0,
        Brand::Amex => 1,
        Brand::Diners => 2,
        Brand::Discover => 3,
        Brand::Jcb => 4,
        Brand::Maestro => 5,
        Brand::Mastercard => 6,
        Brand::Mir => 7,
        Brand::Unionpay => 8,
        Brand::Visa => 9,
    }
}

const BRANDS: [Brand; 9] = [
    Brand::Amex,
    Brand::Diners,
    Brand::Discover,
    Brand::Jcb,
    Brand::Maestro,
    Brand::Mastercard,
    Brand::Mir,
    Brand::Unionpay,
    Brand::Visa,
];

fn brand_of(code: u8) -> Brand {
    BRANDS.into_iter().find(|brand| brand_code(*brand) == code).unwrap_or(Brand::Unknown)
}

/// The value of an idempotency entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredKey {
    pub(super) mac: MacPlace,
    pub(super) answer: AnswerPlace,
}

/// Where a body MAC lies.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum MacPlace {
    /// Here: the request is about no card.
    Here([u8; 32]),
    /// Beside the sealed fields of the card that the answer names: the request made it.
    WithCard,
    /// A row of `body_macs`.
    Row(i64),
    /// The card was erased before the answer was frozen.
    Gone,
}

/// Where an answer lies.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum AnswerPlace {
    Card {
        token: Token,
        version: u32,
        status: u16,
    },
    Reserved {
        subject: String,
    },
    /// A row of `answers`: bodies are too long for the index's memory.
    Row(i64),
}

/// Bytes of a value of ours; serialising it into memory cannot fail.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap_or_default()
}

/// Reads what [`encode`] wrote.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ReadError> {
    postcard::from_bytes(bytes).map_err(|_| ReadError::Corrupt("encoding"))
}

/// The stored form of a frozen answer.
pub(super) fn encode_answer(answer: &StoredAnswer) -> Vec<u8> {
    encode(answer)
}
