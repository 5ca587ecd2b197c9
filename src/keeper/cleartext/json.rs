//! Reading submitted JSON so that nothing of it is ever quoted back: serde's sentences are read here, and only our own
//! words for our own fields leave.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, Visitor};

use crate::card::stray::{self, Exempt};
use crate::object::Object;
use crate::wire::keeper::{Refusal, RefusalCode};

const METADATA_KEYS_MAX: usize = 50;
const METADATA_KEY_CHARS_MAX: usize = 40;
const METADATA_VALUE_CHARS_MAX: usize = 500;
/// The longest caller's reference.
pub(in crate::keeper) const REFERENCE_CHARS_MAX: usize = 128;

/// Our names of fields, with the path that a problem names.
const FIELDS: [(&str, &str); 33] = [
    ("card", "card"),
    ("number", "card.number"),
    ("exp_month", "card.exp_month"),
    ("exp_year", "card.exp_year"),
    ("billing", "billing"),
    ("zip", "billing.zip"),
    ("customer", "customer"),
    ("metadata", "metadata"),
    ("on_duplicate", "on_duplicate"),
    ("status", "status"),
    ("token", "token"),
    ("amount", "amount"),
    ("currency", "currency"),
    ("destination", "destination"),
    ("invoice", "invoice"),
    ("period", "period"),
    ("initiator", "initiator"),
    ("agreement", "agreement"),
    ("capture", "capture"),
    ("allow_partial", "allow_partial"),
    ("cvc", "cvc"),
    ("three_d_secure", "three_d_secure"),
    ("installments", "installments"),
    ("statement_descriptor", "statement_descriptor"),
    ("description", "description"),
    ("method", "method"),
    ("path", "path"),
    ("query", "query"),
    ("headers", "headers"),
    ("body", "body"),
    ("body_form", "body_form"),
    ("body_xml", "body_xml"),
    ("dry_run", "dry_run"),
];

/// Reads a body, or says why not without a word of it.
pub(in crate::keeper) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice::<Object<T>>(body).map(|object| object.0).map_err(|error| {
        let sentence = zeroize::Zeroizing::new(error.to_string());
        let named = FIELDS.iter().find(|(name, _)| sentence.contains(&format!("field `{name}`")));
        let code = [
            ("unknown field", RefusalCode::UnknownField),
            ("duplicate field", RefusalCode::DuplicateField),
            ("missing field", RefusalCode::MissingField),
            ("invalid type", RefusalCode::WrongType),
            ("invalid value", RefusalCode::InvalidValue),
            ("unknown variant", RefusalCode::InvalidValue),
            ("amount:", RefusalCode::AmountInvalid),
            ("metadata:", RefusalCode::InvalidValue),
        ]
        .into_iter()
        .find(|(start, _)| sentence.starts_with(start))
        .map_or(RefusalCode::MalformedJson, |(_, code)| code);
        let param = if code == RefusalCode::AmountInvalid {
            Some("amount")
        } else if sentence.starts_with("metadata:") {
            Some("metadata")
        } else if code == RefusalCode::UnknownField {
            // The caller named it: its name does not go back.
            None
        } else {
            named.map(|(_, path)| *path)
        };
        Refusal { code, param: param.map(str::to_owned) }
    })
}

/// A month or year: a number, or digits in a string.
pub(in crate::keeper) fn small_number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u16>, D::Error> {
    struct Small;
    impl Visitor<'_> for Small {
        type Value = Option<u16>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of at most four digits")
        }
        fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
            Ok(Some(u16::try_from(value).unwrap_or(u16::MAX)))
        }
        fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
            let digits = (1..=4).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
            Ok(Some(value.parse().ok().filter(|_| digits).unwrap_or(u16::MAX)))
        }
    }
    from.deserialize_any(Small)
}

/// An amount: an integer in minor units; a float, string or negative number is told apart from other faults.
pub(in crate::keeper) fn amount<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    struct Amount;
    impl Visitor<'_> for Amount {
        type Value = Option<i64>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an integer")
        }
        fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
            i64::try_from(value).map(Some).map_err(|_| E::custom("amount:"))
        }
        fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
            Err(E::custom("amount:"))
        }
        fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
            Err(E::custom("amount:"))
        }
        fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
            Err(E::custom("amount:"))
        }
    }
    from.deserialize_any(Amount)
}

/// The caller's own words: at most 50 keys of 40 characters, values of 500; no key twice.
pub(in crate::keeper) fn metadata<'de, D>(from: D) -> Result<Option<BTreeMap<String, String>>, D::Error>
where
    D: Deserializer<'de>,
{
    struct Words;
    impl<'de> Visitor<'de> for Words {
        type Value = Option<BTreeMap<String, String>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of strings")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut words = BTreeMap::new();
            while let Some((key, value)) = map.next_entry::<String, String>()? {
                let fits = (1..=METADATA_KEY_CHARS_MAX).contains(&key.chars().count())
                    && value.chars().count() <= METADATA_VALUE_CHARS_MAX
                    && words.len() < METADATA_KEYS_MAX;
                if !fits || words.insert(key, value).is_some() {
                    return Err(A::Error::custom("metadata:"));
                }
            }
            Ok(Some(words))
        }
    }
    from.deserialize_map(Words)
}

/// Refuses metadata that holds what could be a card number, or says that it is a verification code.
pub(in crate::keeper) fn check_metadata(words: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if words.iter().any(|(key, value)| stray::is_verification_code(key, value)) {
        return Err(Refusal::about(RefusalCode::CvcNotAccepted, "metadata"));
    }
    if words.iter().any(|(key, value)| stray::in_free_text(key) || stray::in_free_text(value)) {
        return Err(Refusal::about(RefusalCode::StrayNumber, "metadata"));
    }
    Ok(())
}

/// Refuses free text that is too long or holds what could be a card number.
pub(in crate::keeper) fn check_text(
    text: Option<&str>,
    param: &str,
    chars_max: usize,
) -> Result<(), Refusal> {
    let Some(text) = text else { return Ok(()) };
    if text.chars().count() > chars_max || text.chars().any(char::is_control) {
        return Err(Refusal::about(RefusalCode::InvalidValue, param));
    }
    if stray::in_free_text(text) {
        return Err(Refusal::about(RefusalCode::StrayNumber, param));
    }
    Ok(())
}

/// Refuses a typed identifier that is empty, too long, or as a whole what could be a card number and no exempt identifier.
pub(in crate::keeper) fn check_identifier(
    text: Option<&str>,
    param: &str,
    exempt: Exempt<'_>,
) -> Result<(), Refusal> {
    let Some(text) = text else { return Ok(()) };
    let fits = !text.is_empty()
        && text.chars().count() <= REFERENCE_CHARS_MAX
        && !text.chars().any(char::is_control);
    if !fits {
        return Err(Refusal::about(RefusalCode::InvalidValue, param));
    }
    if stray::is_identifier(text) && !exempt.allows(param, text) {
        return Err(Refusal::about(RefusalCode::StrayNumber, param));
    }
    Ok(())
}
