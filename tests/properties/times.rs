//! Instants and expiry months.

use cardvault::card::expiry::Expiry;
use cardvault::clock::Time;
use proptest::prelude::*;

/// 1970 to 2200, in microseconds.
const INSTANTS: std::ops::Range<i64> = 0..7_258_118_400_000_000;

proptest! {
    #[test]
    fn an_instant_has_one_spelling_and_spellings_sort_like_instants(a in INSTANTS, b in INSTANTS) {
        let (a, b) = (Time::from_micros(a), Time::from_micros(b));
        prop_assert_eq!(Time::parse(&a.to_string()), Some(a));
        prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
    }

    /// Valid to the last instant of its month anywhere: UTC−12 is the last place where it ends.
    #[test]
    fn a_card_is_good_until_its_month_has_ended_everywhere(
        year in 2000_u16..2100,
        month in 1_u8..=12,
        offset in -5_000_000_000_000_i64..5_000_000_000_000,
    ) {
        let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
        let end = Time::parse(&format!("{next_year}-{next_month:02}-01T00:00:00-12:00")).unwrap();
        let expiry = Expiry { month, year };
        for at in [0, -1, 1, offset] {
            let now = Time::from_micros(end.micros + at);
            prop_assert_eq!(expiry.is_past(now), at >= 0, "{} {}", end, at);
        }
    }

    #[test]
    fn an_expiry_is_a_month_within_twenty_years(month: u16, year: u16, now in INSTANTS) {
        let now = Time::from_micros(now);
        let this_year = u16::try_from(now.year_month().0).unwrap();
        let whole = match year {
            0..=99 => this_year / 100 * 100 + year,
            other => other,
        };
        let possible = (1..=12).contains(&month) && (1000..=this_year + 20).contains(&whole) && whole <= 9999;
        let read = Expiry::new(month, year, now);
        prop_assert_eq!(read.is_ok(), possible);
        if let Ok(expiry) = read {
            prop_assert_eq!((u16::from(expiry.month), expiry.year), (month, whole));
            // It is for nobody's eyes.
            prop_assert_eq!(format!("{expiry:?}"), "Expiry(REDACTED)");
        }
    }
}
