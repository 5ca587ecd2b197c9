//! Time, behind one seam: everything that asks what time it is asks a [`Clock`], so that tests can move it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// `9999-12-30T21:59:59.999999Z`, a second before the calendar's end: past it its own printing decides.
const TEXT_MICROS_MAX: i64 = 253_402_207_199_999_999;
/// The length of that.
const TEXT_LEN: usize = 27;

/// An instant in UTC, to the microsecond; printed as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Time {
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub micros: i64,
}

impl Time {
    /// The instant that many microseconds after the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self { micros }
    }

    /// Milliseconds since the Unix epoch; zero before it.
    pub fn millis(self) -> u64 {
        u64::try_from(self.micros / 1_000).unwrap_or(0)
    }

    /// Whole seconds since the Unix epoch.
    pub const fn seconds(self) -> i64 {
        self.micros.div_euclid(1_000_000)
    }

    /// This instant, later by `seconds` (earlier if negative).
    #[must_use]
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self { micros: self.micros.saturating_add(seconds.saturating_mul(1_000_000)) }
    }

    /// The calendar month in UTC: (year, month 1–12).
    pub fn year_month(self) -> (i16, i8) {
        let date = self.timestamp().to_zoned(jiff::tz::TimeZone::UTC).date();
        (date.year(), date.month())
    }

    /// Reads an RFC 3339 instant.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|t| Self { micros: t.as_microsecond() })
    }

    /// What the calendar prints, some ten times faster, for an instant from 1970 to 9999: each answer and each event has some.
    fn text(self) -> Option<[u8; TEXT_LEN]> {
        let micros = u64::try_from(self.micros).ok().filter(|_| self.micros <= TEXT_MICROS_MAX)?;
        let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
        let (year, month, day) = civil(seconds / 86_400);
        let of_day = seconds % 86_400;
        let mut text = [0; TEXT_LEN];
        let mut rest = text.iter_mut();
        for (value, width, then) in [
            (year, 4, b'-'),
            (month, 2, b'-'),
            (day, 2, b'T'),
            (of_day / 3_600, 2, b':'),
            (of_day / 60 % 60, 2, b':'),
            (of_day % 60, 2, b'.'),
            (micros, 6, b'Z'),
        ] {
            let mut place = 10_u64.pow(width);
            for to in rest.by_ref().take(usize::try_from(width).ok()?) {
                place /= 10;
                *to = b'0' + u8::try_from(value / place % 10).ok()?;
            }
            *rest.next()? = then;
        }
        Some(text)
    }

    fn timestamp(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.micros).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.text() {
            Some(text) => f.write_str(std::str::from_utf8(&text).unwrap_or_default()),
            None => write!(f, "{:.6}", self.timestamp()),
        }
    }
}

/// The Gregorian date of a day since 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms").
const fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The present instant.
    fn now(&self) -> Time;
}

/// The machine's own clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Time {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Time::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// A clock that moves only when told to.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that stands at `time`.
    pub fn at(time: Time) -> Self {
        Self(Arc::new(AtomicI64::new(time.micros)))
    }

    /// Moves the clock on by `seconds`.
    pub fn advance_seconds(&self, seconds: i64) {
        self.0.fetch_add(seconds.saturating_mul(1_000_000), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        Time::from_micros(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_instant_is_printed_as_the_calendar_prints_it(micros in -1_000_000_000..=TEXT_MICROS_MAX + 9) {
            let time = Time::from_micros(micros);
            prop_assert_eq!(time.to_string(), format!("{:.6}", time.timestamp()));
        }
    }

    #[test]
    fn the_ends_of_the_calendar_are_printed_too() {
        for micros in [i64::MIN, -1, 0, TEXT_MICROS_MAX, TEXT_MICROS_MAX + 1, i64::MAX] {
            let time = Time::from_micros(micros);
            assert_eq!(time.to_string(), format!("{:.6}", time.timestamp()));
        }
    }

    #[test]
    fn an_instant_prints_as_rfc_3339_and_reads_back() {
        let time = Time::from_micros(1_700_000_000_123_456);
        assert_eq!(time.to_string(), "2023-11-14T22:13:20.123456Z");
        assert_eq!(Time::parse(&time.to_string()), Some(time));
    }

    #[test]
    fn months_turn_over_at_midnight_utc() {
        let before = Time::parse("2026-11-30T23:59:59.999999Z").unwrap();
        assert_eq!(before.year_month(), (2026, 11));
        assert_eq!(before.plus_seconds(1).year_month(), (2026, 12));
    }
}
