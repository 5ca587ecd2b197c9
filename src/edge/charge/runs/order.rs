//! One line of a run, read and checked as far as it says by itself. What is wrong is told by a code and our own name for the field;
//! nothing of a line that looks like a card number is kept.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::card::id::{AgreementId, Token};
use crate::card::stray;
use crate::edge::store::{LineFault, RunLine, RunOrder};
use crate::object::Object;

const REFERENCE_CHARS_MAX: usize = 128;
const DESCRIPTION_CHARS_MAX: usize = 500;
const DESCRIPTOR_CHARS_MAX: usize = 22;
const METADATA_KEYS_MAX: usize = 50;
const METADATA_KEY_CHARS_MAX: usize = 40;
const METADATA_VALUE_CHARS_MAX: usize = 500;
/// From so many digits on a number may be a card's.
const DIGITS_STRAY_MIN: usize = 12;
/// Columns of a CSV stream, besides `metadata.NAME`; the first four must be there.
const COLUMNS: [&str; 10] = [
    "token",
    "amount",
    "currency",
    "invoice",
    "period",
    "destination",
    "agreement",
    "initiator",
    "description",
    "statement_descriptor",
];
const COLUMNS_REQUIRED: usize = 4;

/// A line, and what it adds to the sum of its currency, if that can be read at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The line.
    pub line: RunLine,
    /// Currency and amount in minor units.
    pub adds: Option<(String, i64)>,
}

impl Read {
    /// A line that cannot be read.
    pub(super) fn fault(code: &str, param: Option<&str>) -> Self {
        Self { line: RunLine { order: None, fault: Some(fault(code, param)) }, adds: None }
    }
}

pub(super) fn fault(code: &str, param: Option<&str>) -> LineFault {
    LineFault { code: code.to_owned(), param: param.map(str::to_owned) }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    token: String,
    #[serde(deserialize_with = "amount")]
    amount: i64,
    currency: String,
    invoice: String,
    period: Option<String>,
    destination: Option<String>,
    agreement: Option<String>,
    initiator: Option<String>,
    description: Option<String>,
    statement_descriptor: Option<String>,
    #[serde(default, deserialize_with = "metadata")]
    metadata: BTreeMap<String, String>,
}

/// What a line adds to the sums, whatever else it says.
#[derive(Deserialize)]
struct Adds {
    #[serde(deserialize_with = "amount")]
    amount: i64,
    currency: String,
}

/// Reads a line of NDJSON.
pub(super) fn read_json(line: &[u8]) -> Read {
    if holds_a_number(line) {
        return Read::fault("stray_number", None);
    }
    match serde_json::from_slice::<Object<Body>>(line) {
        Ok(body) => check(body.0),
        Err(error) => {
            let adds = serde_json::from_slice::<Object<Adds>>(line).ok();
            let adds = adds.map(|adds| (adds.0.currency, adds.0.amount)).filter(is_sound);
            Read { line: RunLine { order: None, fault: Some(json_fault(&error)) }, adds }
        }
    }
}

/// Whether a number of the line, outside of its strings, looks like a card's: such a one is refused unread, before it is an integer on
/// some stack.
fn holds_a_number(line: &[u8]) -> bool {
    let (mut in_string, mut escaped, mut from) = (false, false, None);
    for (at, byte) in line.iter().chain(b" ").enumerate() {
        match byte {
            b'0'..=b'9' if !in_string => from = from.or(Some(at)),
            _ => {
                let run = from.take().and_then(|from| line.get(from..at));
                let is_long = run.filter(|run| run.len() >= DIGITS_STRAY_MIN);
                if is_long.and_then(|run| std::str::from_utf8(run).ok()).is_some_and(stray::in_free_text) {
                    return true;
                }
            }
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ => {}
        }
    }
    false
}

/// serde's sentence begins with the kind of fault; only names of our own fields are taken from it.
fn json_fault(error: &serde_json::Error) -> LineFault {
    let sentence = error.to_string();
    let code = [
        ("unknown field", "unknown_field"),
        ("duplicate field", "duplicate_field"),
        ("missing field", "missing_field"),
        ("invalid type", "wrong_type"),
        ("amount:", "amount_invalid"),
        ("metadata:", "invalid_value"),
    ]
    .into_iter()
    .find(|(start, _)| sentence.starts_with(start))
    .map_or("malformed_json", |(_, code)| code);
    let param = match code {
        "amount_invalid" => Some("amount"),
        "invalid_value" => Some("metadata"),
        "missing_field" | "duplicate_field" => {
            COLUMNS.into_iter().find(|name| sentence.contains(&format!("field `{name}`")))
        }
        _ => None,
    };
    fault(code, param)
}

/// What each column of a CSV stream is.
#[derive(Debug)]
pub(super) struct Columns(Vec<Column>);

#[derive(Debug, PartialEq, Eq)]
enum Column {
    Field(&'static str),
    Metadata(String),
}

impl Columns {
    /// Reads a header; `None` if it names a column that is not ours, one twice, or lacks one that must be there.
    pub(super) fn read(cells: &[String]) -> Option<Self> {
        let mut columns = Vec::with_capacity(cells.len());
        for cell in cells {
            let column = match cell.strip_prefix("metadata.") {
                Some(name) if !name.is_empty() => Column::Metadata(name.to_owned()),
                Some(_) => return None,
                None => Column::Field(COLUMNS.into_iter().find(|name| name == cell)?),
            };
            if columns.contains(&column) {
                return None;
            }
            columns.push(column);
        }
        let required = COLUMNS.iter().take(COLUMNS_REQUIRED);
        let all = required.into_iter().all(|name| columns.contains(&Column::Field(name)));
        all.then_some(Self(columns))
    }
}

/// Reads a record of CSV; an empty cell is a field that is not there.
pub(super) fn read_cells(columns: &Columns, cells: Vec<String>) -> Read {
    if cells.len() != columns.0.len() {
        return Read::fault("malformed_csv", None);
    }
    let (mut body, mut wrong, mut amount_is_there) = (Body::default(), None, false);
    for (column, cell) in columns.0.iter().zip(cells).filter(|(_, cell)| !cell.is_empty()) {
        match column {
            Column::Metadata(name) => drop(body.metadata.insert(name.clone(), cell)),
            Column::Field("token") => body.token = cell,
            Column::Field("amount") => {
                amount_is_there = true;
                let digits = cell.bytes().all(|byte| byte.is_ascii_digit());
                if stray::in_free_text(&cell) {
                    return Read::fault("stray_number", Some("amount"));
                }
                match cell.parse() {
                    Ok(amount) if digits => body.amount = amount,
                    Ok(_) | Err(_) => wrong = Some(fault("amount_invalid", Some("amount"))),
                }
            }
            Column::Field("currency") => body.currency = cell,
            Column::Field("invoice") => body.invoice = cell,
            Column::Field("period") => body.period = Some(cell),
            Column::Field("destination") => body.destination = Some(cell),
            Column::Field("agreement") => body.agreement = Some(cell),
            Column::Field("initiator") => body.initiator = Some(cell),
            Column::Field("description") => body.description = Some(cell),
            Column::Field(_) => body.statement_descriptor = Some(cell),
        }
    }
    let missing = [
        ("token", body.token.is_empty()),
        ("amount", !amount_is_there),
        ("currency", body.currency.is_empty()),
        ("invoice", body.invoice.is_empty()),
    ];
    let missing = missing.into_iter().find(|(_, is_missing)| *is_missing);
    let wrong = wrong.or_else(|| missing.map(|(name, _)| fault("missing_field", Some(name))));
    match wrong {
        None => check(body),
        Some(wrong) => {
            let adds = Some((body.currency, body.amount)).filter(is_sound);
            Read { line: RunLine { order: None, fault: Some(wrong) }, adds }
        }
    }
}

/// Whether an amount and its currency may be added up.
fn is_sound((currency, amount): &(String, i64)) -> bool {
    is_currency(currency) && *amount > 0
}

fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

fn check(body: Body) -> Read {
    let adds = Some((body.currency.clone(), body.amount)).filter(is_sound);
    match order_of(body) {
        Ok(order) => Read { line: RunLine { order: Some(order), fault: None }, adds },
        Err(wrong) => Read { line: RunLine { order: None, fault: Some(wrong) }, adds },
    }
}

fn order_of(body: Body) -> Result<RunOrder, LineFault> {
    if body.amount <= 0 {
        return Err(fault("amount_invalid", Some("amount")));
    }
    if !is_currency(&body.currency) {
        return Err(fault("currency_invalid", Some("currency")));
    }
    check_identifier(&body.invoice, "invoice")?;
    body.period
        .iter()
        .filter(|period| !period.is_empty())
        .try_for_each(|it| check_identifier(it, "period"))?;
    body.destination.iter().try_for_each(|it| check_identifier(it, "destination"))?;
    check_text(body.description.as_deref(), "description", DESCRIPTION_CHARS_MAX)?;
    check_text(body.statement_descriptor.as_deref(), "statement_descriptor", DESCRIPTOR_CHARS_MAX)?;
    check_metadata(&body.metadata)?;
    let by_customer = match body.initiator.as_deref() {
        None | Some("merchant") => false,
        Some("customer") => true,
        Some(_) => return Err(fault("invalid_value", Some("initiator"))),
    };
    let agreement = match body.agreement.as_deref().map(AgreementId::parse) {
        None => None,
        Some(Some(id)) => Some(id),
        Some(None) => return Err(fault("agreement_required", Some("agreement"))),
    };
    Ok(RunOrder {
        token: Token::parse(&body.token).ok_or_else(|| fault("token_not_found", Some("token")))?,
        amount: body.amount,
        currency: body.currency,
        invoice: body.invoice,
        period: body.period.unwrap_or_default(),
        destination: body.destination,
        agreement,
        by_customer,
        description: body.description,
        statement_descriptor: body.statement_descriptor,
        metadata: body.metadata,
    })
}

/// Whether an identifier looks like a card number is asked of the tenant's exemptions, later.
fn check_identifier(text: &str, param: &str) -> Result<(), LineFault> {
    let fits =
        (1..=REFERENCE_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(fault("invalid_value", Some(param))) }
}

fn check_text(text: Option<&str>, param: &str, chars_max: usize) -> Result<(), LineFault> {
    let Some(text) = text else { return Ok(()) };
    if text.chars().count() > chars_max || text.chars().any(char::is_control) {
        return Err(fault("invalid_value", Some(param)));
    }
    if stray::in_free_text(text) { Err(fault("stray_number", Some(param))) } else { Ok(()) }
}

fn check_metadata(words: &BTreeMap<String, String>) -> Result<(), LineFault> {
    let fits = |(key, value): (&String, &String)| {
        (1..=METADATA_KEY_CHARS_MAX).contains(&key.chars().count())
            && value.chars().count() <= METADATA_VALUE_CHARS_MAX
    };
    if words.len() > METADATA_KEYS_MAX || !words.iter().all(fits) {
        return Err(fault("invalid_value", Some("metadata")));
    }
    if words.iter().any(|(key, value)| stray::is_verification_code(key, value)) {
        return Err(fault("cvc_not_accepted", Some("metadata")));
    }
    if words.iter().any(|(key, value)| stray::in_free_text(key) || stray::in_free_text(value)) {
        return Err(fault("stray_number", Some("metadata")));
    }
    Ok(())
}

/// An integer in minor units; a float, a string or a negative number is told apart from other faults.
fn amount<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    struct Amount;
    impl Visitor<'_> for Amount {
        type Value = i64;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an integer")
        }
        fn visit_u64<E: Error>(self, value: u64) -> Result<i64, E> {
            i64::try_from(value).map_err(|_| E::custom("amount:"))
        }
        fn visit_i64<E: Error>(self, _: i64) -> Result<i64, E> {
            Err(E::custom("amount:"))
        }
        fn visit_f64<E: Error>(self, _: f64) -> Result<i64, E> {
            Err(E::custom("amount:"))
        }
        fn visit_str<E: Error>(self, _: &str) -> Result<i64, E> {
            Err(E::custom("amount:"))
        }
    }
    from.deserialize_any(Amount)
}

/// An object of strings, no key twice.
fn metadata<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Words;
    impl<'de> Visitor<'de> for Words {
        type Value = BTreeMap<String, String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of strings")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut words = BTreeMap::new();
            while let Some((key, value)) = map.next_entry::<String, String>()? {
                if words.len() >= METADATA_KEYS_MAX || words.insert(key, value).is_some() {
                    return Err(A::Error::custom("metadata:"));
                }
            }
            Ok(words)
        }
    }
    from.deserialize_map(Words)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#""token":"tok_00000000v00000000v00000000v00000","invoice":"i-1","currency":"USD""#;

    fn code(line: &str) -> String {
        read_json(line.as_bytes()).line.fault.map(|fault| fault.code).unwrap_or_default()
    }

    #[test]
    fn each_fault_of_a_line_has_its_code_and_nothing_of_a_number_is_kept() {
        for (line, expected) in [
            (format!("{{{GOOD},\"amount\":1}}"), ""),
            (format!("{{{GOOD},\"amount\":1,\"agreement\":null,\"period\":\"\"}}"), ""),
            (format!("{{{GOOD}}}"), "missing_field"),
            (format!("{{{GOOD},\"amount\":1,\"amount\":1}}"), "duplicate_field"),
            (format!("{{{GOOD},\"amount\":1,\"cvc\":\"123\"}}"), "unknown_field"),
            (format!("{{{GOOD},\"amount\":1.5}}"), "amount_invalid"),
            (format!("{{{GOOD},\"amount\":\"1\"}}"), "amount_invalid"),
            (format!("{{{GOOD},\"amount\":0}}"), "amount_invalid"),
            (format!("{{{GOOD},\"amount\":-1}}"), "amount_invalid"),
            (format!("{{{GOOD},\"amount\":4242424242424242}}"), "stray_number"),
            (
                format!("{{{GOOD},\"amount\":1,\"description\":\"a \\\" 1\",\"x\":4242424242424242}}"),
                "stray_number",
            ),
            (format!("{{{GOOD},\"amount\":1,\"description\":\"4242 4242 4242 4242\"}}"), "stray_number"),
            (format!("{{{GOOD},\"amount\":1,\"metadata\":{{\"a\":\"4242424242424242\"}}}}"), "stray_number"),
            (format!("{{{GOOD},\"amount\":1,\"metadata\":{{\"cvc\":\"123\"}}}}"), "cvc_not_accepted"),
            (format!("{{{GOOD},\"amount\":1,\"metadata\":[1]}}"), "wrong_type"),
            (format!("{{{GOOD},\"amount\":1,\"initiator\":\"me\"}}"), "invalid_value"),
            (format!("{{{GOOD},\"amount\":1,\"agreement\":\"agr_1\"}}"), "agreement_required"),
            (format!("{{{},\"amount\":1}}", GOOD.replace("USD", "usd")), "currency_invalid"),
            (format!("{{{},\"amount\":1}}", GOOD.replace("tok_0", "card_")), "token_not_found"),
            ("[1]".to_owned(), "wrong_type"),
            (format!("[{GOOD}]"), "wrong_type"),
            (format!("{{{GOOD}"), "malformed_json"),
            ("{\"token\":4242424242424242}".to_owned(), "stray_number"),
            ("{\"token\":4242424242424243}".to_owned(), "wrong_type"),
        ] {
            let read = read_json(line.as_bytes());
            assert_eq!(code(&line), expected, "{line}");
            assert!(!format!("{read:?}").contains("424242"), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_invalid_still_counts_in_the_sum() {
        let line = format!("{{{GOOD},\"amount\":70,\"colour\":\"red\"}}");
        assert_eq!(read_json(line.as_bytes()).adds, Some(("USD".to_owned(), 70)));
        assert_eq!(read_json(b"{\"amount\":70}").adds, None);
    }
}
