//! Which card number behaves how, read from the dated table `numbers.toml`, and numbers made to order.
//!
//! A made number: BIN (6) ‖ sequence (6) ‖ suffix (3) ‖ check digit. The BINs are private Visa ranges that were never
//! issued. Suffixes 000 to 899 approve, which leaves room for 900 million approving numbers in each.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde::Deserialize;

/// What the sandbox does with a card. The table's `does` column says the same in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// Approves.
    Approve,
    /// Declines without saying why.
    GenericDecline,
    /// Declines: do not honor.
    DoNotHonor,
    /// Declines for lack of funds (soft).
    InsufficientFunds,
    /// Declines with Mastercard advice 02 (soft).
    TryAgainLater,
    /// Declines: too often or too much (soft).
    CardVelocityExceeded,
    /// Declines: the issuer cannot be reached (soft).
    IssuerNotAvailable,
    /// Declines with Mastercard advice 25, 24 hours (soft).
    #[serde(rename = "retry_in_24_hours")]
    RetryIn24Hours,
    /// Declines with a processing error (soft).
    ProcessingError,
    /// Declines: lost (hard).
    LostCard,
    /// Declines: stolen (hard).
    StolenCard,
    /// Declines: pick up the card (hard).
    PickupCard,
    /// Declines with Mastercard advice 03 (hard).
    DoNotTryAgain,
    /// Declines with Mastercard advice 21 (hard).
    StopPaymentOrder,
    /// Declines: expired (fix the data).
    ExpiredCard,
    /// Declines: no such number (fix the data).
    IncorrectNumber,
    /// Declines if a CVC is sent (fix the data).
    IncorrectCvc,
    /// Declines with Mastercard advice 01 (fix the data).
    NewAccountInformation,
    /// Declines: the customer must authenticate.
    AuthenticationRequired,
    /// Declines: suspected fraud (risk).
    Fraudulent,
    /// Blocked by the processor's own rules (risk).
    HighestRiskLevel,
    /// Pending, approved later.
    Pending,
    /// Pending, declined later.
    PendingDeclined,
    /// Approves half of the amount.
    PartialApproval,
    /// Approves; the zip does not match.
    ZipMismatch,
    /// Approves; the zip check is unavailable.
    ZipUnavailable,
    /// Approves after two seconds.
    Delay,
    /// Charges, then closes the connection.
    DropCharged,
    /// Closes the connection without charging.
    DropUncharged,
    /// Charges, then answers 500 once.
    #[serde(rename = "error_500_charged")]
    Error500Charged,
    /// Answers 500 once without charging.
    #[serde(rename = "error_500_uncharged")]
    Error500Uncharged,
    /// Charges, then answers 500 for as long as the key lives.
    #[serde(rename = "stored_500_charged")]
    Stored500Charged,
    /// Answers 500 for as long as the key lives, without charging.
    #[serde(rename = "stored_500_uncharged")]
    Stored500Uncharged,
    /// Charges, then answers 200 with bytes that are no JSON.
    Garbage,
    /// Charges, then answers 200 with an empty body.
    Empty,
    /// Charges, then never answers.
    Hang,
    /// Approves and quotes the card number.
    PanEcho,
    /// Declines and quotes the card number.
    PanEchoDeclined,
    /// Charges, then answers 500 and quotes the card number.
    #[serde(rename = "pan_echo_500")]
    PanEcho500,
    /// Charges, then promises a longer answer than it sends.
    LengthLong,
    /// Charges, then sends a forged second answer behind the first.
    LengthShort,
    /// Charges, then answers a byte at a time.
    SlowDrip,
    /// Answers 302 to another host.
    Redirect,
    /// Answers 307 to another host.
    #[serde(rename = "redirect_307")]
    Redirect307,
    /// Charges, then answers with 64 MiB.
    Huge,
    /// Answers 429 once.
    RateLimited,
    /// Answers 503 once.
    Unavailable,
    /// Approves; the first answer to a capture is lost.
    CaptureDrop,
    /// Approves; the first answer to a refund is lost.
    RefundDrop,
    /// Approves; the first answer to a void is lost.
    VoidDrop,
    /// Approves; refunds are declined.
    RefundDeclined,
    /// Charges, then answers 200 with a line of plain text.
    PlainText,
    /// Declines, as does every number that is not in the table.
    NotATestNumber,
    /// A merchant's charge is approved with another number, which the answer tells.
    CardChanged,
    /// A merchant's charge is declined, and the answer tells another number.
    CardChangedDeclined,
    /// A merchant's charge is approved with another expiry, which the answer tells.
    ExpiryChanged,
    /// A merchant's charge is declined: the account is closed.
    AccountClosed,
    /// A merchant's charge is declined: only the cardholder knows.
    ContactCardholder,
}

/// How the card's issuer decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// Yes.
    #[default]
    Approved,
    /// No.
    Declined,
    /// Not before the customer authenticated.
    Authentication,
    /// Yes, later.
    Pending,
    /// No, later.
    PendingDeclined,
    /// Half of it.
    Partial,
}

/// What goes wrong on the way back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    /// Nothing.
    #[default]
    None,
    /// The answer takes two seconds.
    Delay,
    /// The connection closes without an answer.
    Drop,
    /// 500.
    #[serde(rename = "error_500")]
    Error500,
    /// 200, and the body is no JSON.
    Garbage,
    /// 200 without a body.
    Empty,
    /// The connection stays open without an answer.
    Hang,
    /// The answer quotes the card number.
    PanEcho,
    /// 500, quoting the card number.
    #[serde(rename = "pan_echo_500")]
    PanEcho500,
    /// Content-Length is larger than what is sent.
    LengthLong,
    /// Content-Length is smaller than what is sent.
    LengthShort,
    /// A byte at a time.
    SlowDrip,
    /// 302.
    Redirect,
    /// 307.
    #[serde(rename = "redirect_307")]
    Redirect307,
    /// 64 MiB.
    Huge,
    /// 429.
    RateLimited,
    /// 401.
    Unauthorized,
    /// 503.
    Unavailable,
    /// 200 with a line of plain text, as Worldpay answers now and then.
    PlainText,
    /// The connection is reset before anything was read of the request but its head.
    ResetBefore,
    /// The connection is reset after so many bytes of the answer; none, if it is not said.
    Reset,
    /// The connection stays open and silent after so many bytes of the answer.
    Stall,
    /// The connection is closed in order after so many bytes of the answer.
    Truncate,
    /// The same answer follows once more on the same connection.
    Duplicate,
    /// The connection is reset as soon as it was accepted.
    Refuse,
}

impl Fault {
    /// Whether nothing goes wrong.
    pub(super) fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// The word of the table, the scripts and the ledger.
    pub(super) fn word(self) -> String {
        serde_json::to_value(self).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Whether who asked knows after it what became of the request: what was done, or that nothing was.
    pub(super) fn is_decisive(self) -> bool {
        match self {
            Self::None | Self::Delay | Self::PanEcho | Self::LengthShort | Self::Duplicate => true,
            Self::RateLimited | Self::Unauthorized | Self::Refuse => true,
            Self::Drop | Self::Hang | Self::Error500 | Self::PanEcho500 | Self::Garbage | Self::Empty => {
                false
            }
            Self::LengthLong | Self::SlowDrip | Self::Huge | Self::PlainText | Self::Unavailable => false,
            Self::Redirect | Self::Redirect307 => false,
            Self::ResetBefore | Self::Reset | Self::Stall | Self::Truncate => false,
        }
    }
}

/// What the account updater says of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Updater {
    /// It has another number and expiry.
    Number,
    /// It has another expiry.
    Expiry,
    /// The account is closed.
    Closed,
    /// Only the cardholder knows.
    Contact,
}

/// A card's number and expiry as the updater knows them.
pub(super) struct Renewed {
    /// What the updater says.
    pub(super) says: Updater,
    /// The number that it has now.
    pub(super) number: String,
    /// The month of its expiry.
    pub(super) month: u8,
    /// The year of its expiry.
    pub(super) year: u16,
}

/// So many years later a renewed card expires.
const RENEWED_YEARS: u16 = 3;

/// What the updater says of a card that behaves so. Another number has the sequence of the old one and approves.
pub(super) fn renewed(behaviour: Behaviour, number: &str, (month, year): (u8, u16)) -> Option<Renewed> {
    let says = row(behaviour)?.updater?;
    let (number, year) = match says {
        Updater::Number => (approving(number), year + RENEWED_YEARS),
        Updater::Expiry => (number.to_owned(), year + RENEWED_YEARS),
        Updater::Closed | Updater::Contact => (number.to_owned(), year),
    };
    Some(Renewed { says, number, month, year })
}

/// The number with the same BIN and sequence that approves.
fn approving(number: &str) -> String {
    let mut digits = format!("{}000", number.get(..12).unwrap_or_default());
    digits.push(char::from(b'0' + check_digit(&digits)));
    digits
}

/// One row of the table.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    pub(super) name: Behaviour,
    pub(super) suffix: Option<u16>,
    #[serde(default)]
    pub(super) outcome: Outcome,
    pub(super) class: Option<String>,
    pub(super) code: Option<String>,
    /// Stripe's `error.code`, where it is not `card_declined`.
    pub(super) error_code: Option<String>,
    pub(super) iso: Option<String>,
    /// Adyen's `refusalReasonCode`.
    pub(super) adyen: Option<String>,
    /// Authorize.Net's response reason code.
    pub(super) authorize_net: Option<String>,
    /// Worldpay's `ISO8583ReturnCode`.
    pub(super) worldpay: Option<String>,
    pub(super) advice: Option<String>,
    pub(super) message: Option<String>,
    pub(super) zip: Option<String>,
    #[serde(default)]
    pub(super) fault: Fault,
    /// Whether the fault meets every request with its key, not the first alone.
    #[serde(default)]
    pub(super) lasting: bool,
    /// Whether the payment is carried out before the fault.
    #[serde(default = "yes")]
    pub(super) charges: bool,
    /// What the account updater says with a merchant's charge without a verification code; every other charge is approved without a word.
    pub(super) updater: Option<Updater>,
    /// The later operation (capture, refund, void) that meets fault and outcome, instead of the payment itself.
    pub(super) on: Option<String>,
    pub(super) does: String,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    dated: String,
    bins: Vec<String>,
    behaviour: Vec<Row>,
    cards: HashMap<String, Behaviour>,
    texts: HashMap<String, HashMap<String, String>>,
}

fn table() -> Option<&'static Table> {
    static TABLE: OnceLock<Option<Table>> = OnceLock::new();
    TABLE.get_or_init(|| toml::from_str(include_str!("numbers.toml")).ok()).as_ref()
}

/// The row of a behaviour. `None` only if the table does not parse, which a test excludes.
pub(super) fn row(behaviour: Behaviour) -> Option<&'static Row> {
    table()?.behaviour.iter().find(|row| row.name == behaviour)
}

/// The behaviour's row if its decline has this code, else the first whose decline has.
pub(super) fn row_of(behaviour: Behaviour, code: &str) -> Option<&'static Row> {
    let has_code = |row: &&Row| row.code.as_deref() == Some(code);
    row(behaviour).filter(has_code).or_else(|| table()?.behaviour.iter().find(has_code))
}

/// What a family's own code says: the families are `adyen`, `authorize_net` and `worldpay`.
pub(super) fn text_of(family: &str, code: &str) -> &'static str {
    table().and_then(|table| table.texts.get(family)?.get(code)).map_or("", String::as_str)
}

/// How this card number (digits only) behaves.
pub(super) fn behaviour_of(number: &str) -> Behaviour {
    if is_card_number(number) {
        look_up(number).unwrap_or(Behaviour::NotATestNumber)
    } else {
        Behaviour::IncorrectNumber
    }
}

fn look_up(number: &str) -> Option<Behaviour> {
    let table = table()?;
    if let Some(known) = table.cards.get(number) {
        return Some(*known);
    }
    if number.len() != 16 || !table.bins.iter().any(|bin| number.starts_with(bin.as_str())) {
        return None;
    }
    let suffix: u16 = number.get(12..15)?.parse().ok()?;
    if suffix < 900 {
        return Some(Behaviour::Approve);
    }
    table.behaviour.iter().find(|row| row.suffix == Some(suffix)).map(|row| row.name)
}

/// Every behaviour of the table, in its order.
pub fn behaviours() -> impl Iterator<Item = Behaviour> {
    table().into_iter().flat_map(|table| &table.behaviour).map(|row| row.name)
}

/// A test number that behaves so. `bin_index` (0 or 1) picks the BIN; each `sequence` gives another number: up to
/// 900,000,000 for [`Behaviour::Approve`], up to 1,000,000 for the others (larger ones wrap around).
pub fn number(bin_index: usize, sequence: u32, behaviour: Behaviour) -> String {
    let bins = table().map(|table| table.bins.as_slice()).unwrap_or_default();
    let bin = bins.get(bin_index % bins.len().max(1)).map(String::as_str).unwrap_or_default();
    let suffix = row(behaviour).and_then(|row| row.suffix).map_or((sequence / 1_000_000) % 900, u32::from);
    let mut digits = format!("{bin}{:06}{suffix:03}", sequence % 1_000_000);
    digits.push(char::from(b'0' + check_digit(&digits)));
    digits
}

/// The Luhn check digit that completes these digits (ISO/IEC 7812-1).
fn check_digit(digits: &str) -> u8 {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let digit = u32::from(digit.wrapping_sub(b'0'));
            if at.is_multiple_of(2) { digit * 2 / 10 + digit * 2 % 10 } else { digit }
        })
        .sum();
    u8::try_from((10 - sum % 10) % 10).unwrap_or(0)
}

/// Whether this is 12 to 19 digits that end in their check digit.
pub(super) fn is_card_number(number: &str) -> bool {
    (12..=19).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit())
        && number
            .split_at_checked(number.len() - 1)
            .is_some_and(|(body, check)| check.bytes().next() == Some(b'0' + check_digit(body)))
}

/// The brand, in Stripe's words.
pub(super) fn brand(number: &str) -> &'static str {
    let lead = |n: usize| number.get(..n).and_then(|s| s.parse::<u32>().ok()).unwrap_or(0);
    match (lead(2), lead(4)) {
        (34 | 37, _) => "amex",
        (36 | 38 | 39, _) | (_, 3000..=3059) => "diners",
        (_, 3528..=3589) => "jcb",
        (51..=55, _) | (_, 2221..=2720) => "mastercard",
        (60 | 64 | 65, _) => "discover",
        (62, _) => "unionpay",
        (40..=49, _) => "visa",
        (_, _) => "unknown",
    }
}

/// The whole table as JSON: each behaviour with an example number.
pub(super) fn as_json() -> serde_json::Value {
    let Some(table) = table() else { return serde_json::Value::Null };
    let rows: Vec<_> = table
        .behaviour
        .iter()
        .map(|row| {
            let mut value = serde_json::to_value(row).unwrap_or_default();
            let mut published: Vec<_> =
                table.cards.iter().filter(|(_, b)| **b == row.name).map(|(n, _)| n.clone()).collect();
            published.sort();
            if let Some(object) = value.as_object_mut() {
                object.retain(|_, v| !v.is_null());
                object.insert("example".into(), number(0, 0, row.name).into());
                object.insert("published".into(), published.into());
            }
            value
        })
        .collect();
    serde_json::json!({ "dated": table.dated, "bins": table.bins, "behaviours": rows })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_table_parses_and_every_published_number_is_one() {
        let table: Table = toml::from_str(include_str!("numbers.toml")).unwrap();
        assert!(table.cards.keys().all(|number| is_card_number(number)));
        let mut suffixes: Vec<_> = table.behaviour.iter().filter_map(|row| row.suffix).collect();
        assert!(suffixes.iter().all(|suffix| (900..1000).contains(suffix)));
        suffixes.sort_unstable();
        suffixes.dedup();
        assert_eq!(suffixes.len(), table.behaviour.len() - 1, "one suffix each, none for approve");
        for row in &table.behaviour {
            let declines =
                matches!(row.outcome, Outcome::Declined | Outcome::Authentication | Outcome::PendingDeclined);
            assert_eq!(declines, row.code.is_some() && row.class.is_some() && row.message.is_some());
            let codes =
                [("adyen", &row.adyen), ("authorize_net", &row.authorize_net), ("worldpay", &row.worldpay)];
            for (family, code) in codes {
                assert_eq!(code.is_some(), declines, "{family}");
                assert!(code.as_ref().is_none_or(|code| !text_of(family, code).is_empty()), "{family}");
            }
        }
    }

    #[test]
    fn a_renewed_card_has_another_number_that_approves_or_a_later_expiry() {
        let of = |behaviour| {
            let number = number(1, 77, behaviour);
            renewed(behaviour, &number, (8, 2030)).map(|card| (card.number != number, card.year, card.number))
        };
        for behaviour in [Behaviour::CardChanged, Behaviour::CardChangedDeclined] {
            let (is_another, year, number) = of(behaviour).unwrap();
            assert_eq!((is_another, year, behaviour_of(&number)), (true, 2033, Behaviour::Approve));
        }
        assert_eq!(of(Behaviour::ExpiryChanged).map(|(other, year, _)| (other, year)), Some((false, 2033)));
        assert_eq!(of(Behaviour::AccountClosed).map(|(other, year, _)| (other, year)), Some((false, 2030)));
        assert!(of(Behaviour::Approve).is_none());
    }

    #[test]
    fn a_million_approving_numbers_differ() {
        let numbers: std::collections::HashSet<_> =
            (999_000..1_001_000).map(|n| number(0, n, Behaviour::Approve)).collect();
        assert_eq!(numbers.len(), 2_000);
    }

    #[test]
    fn a_wrong_check_digit_is_no_card_number() {
        assert!(is_card_number("4242424242424242"));
        assert!(!is_card_number("4242424242424241"));
        assert!(!is_card_number(""));
    }

    #[test]
    fn other_numbers_are_declined() {
        assert_eq!(behaviour_of("4242424242424241"), Behaviour::IncorrectNumber);
        assert_eq!(behaviour_of("4000000000000051"), Behaviour::NotATestNumber);
    }

    #[test]
    fn brands_are_told_apart() {
        for (number, expected) in [
            ("4242424242424242", "visa"),
            ("2223003122003222", "mastercard"),
            ("378282246310005", "amex"),
            ("3056930009020004", "diners"),
            ("3566002020360505", "jcb"),
            ("6200000000000005", "unionpay"),
            ("6011111111111117", "discover"),
        ] {
            assert_eq!(brand(number), expected);
        }
    }

    proptest! {
        #[test]
        fn a_made_number_behaves_as_ordered(bin in 0_usize..2, sequence: u32, at in 0_usize..60) {
            let rows = &table().unwrap().behaviour;
            let behaviour = rows[at % rows.len()].name;
            let number = number(bin, sequence, behaviour);
            prop_assert!(is_card_number(&number));
            prop_assert_eq!(behaviour_of(&number), behaviour);
        }
    }
}
