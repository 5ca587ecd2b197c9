//! For how long a processor, or who takes webhooks, asks to be left alone: the field `Retry-After`, as seconds or as a date, read into one bounded number.

use std::time::{Duration, SystemTime};

use hyper::header::{AsHeaderName, DATE, HeaderMap, RETRY_AFTER};

use crate::clock::{Clock, SystemClock, Time};

const TOO_MANY_REQUESTS: u16 = 429;
const UNAVAILABLE: u16 = 503;

/// What an answer says, if it is one of those that say it: so many seconds at most.
pub(super) fn seconds(status: u16, headers: &HeaderMap, max: u32) -> Option<u32> {
    seconds_at((status, headers), max, SystemClock.now())
}

fn seconds_at((status, headers): (u16, &HeaderMap), max: u32, now: Time) -> Option<u32> {
    if !matches!(status, TOO_MANY_REQUESTS | UNAVAILABLE) {
        return None;
    }
    let text = text(headers, RETRY_AFTER)?;
    let seconds = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a long time.
        text.parse().unwrap_or(u64::MAX)
    } else {
        let until = httpdate::parse_http_date(text).ok()?;
        // By its own clock, if it says what that shows: ours may differ.
        let theirs = self::text(headers, DATE).and_then(|date| httpdate::parse_http_date(date).ok());
        let now = theirs.unwrap_or_else(|| system_time(now));
        let left = until.duration_since(now).ok()?;
        left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0))
    };
    u32::try_from(seconds.min(max.into())).ok().filter(|seconds| *seconds > 0)
}

fn text(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn system_time(time: Time) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(time.micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::forwarder::RETRY_AFTER_SECONDS_MAX;

    /// 1994-11-06T08:49:07Z, half a second later.
    const NOW: Time = Time::from_micros(784_111_747_500_000);

    fn said(status: u16, fields: &[(&'static str, &'static str)]) -> Option<u32> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().unwrap());
        }
        seconds_at((status, &headers), RETRY_AFTER_SECONDS_MAX, NOW)
    }

    #[test]
    fn seconds_and_dates_are_one_bounded_number() {
        for (text, expected) in [
            ("1", Some(1)),
            (" 120 ", Some(120)),
            ("0", None),
            ("3601", Some(RETRY_AFTER_SECONDS_MAX)),
            ("99999999999999999999999", Some(RETRY_AFTER_SECONDS_MAX)),
            // The three forms of a date (RFC 9110, 5.6.7), half a minute on.
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(30)),
            ("Sun Nov  6 08:49:37 1994", Some(30)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", None),
            ("Tue, 06 Nov 2040 08:49:37 GMT", Some(RETRY_AFTER_SECONDS_MAX)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(said(429, &[("retry-after", text)]), expected, "{text}");
        }
        assert_eq!(said(503, &[("retry-after", "7")]), Some(7));
        for status in [200, 202, 301, 400, 500, 502] {
            assert_eq!(said(status, &[("retry-after", "7")]), None, "{status}");
        }
        assert_eq!(said(429, &[]), None);
    }

    #[test]
    fn a_date_counts_by_the_clock_of_whoever_wrote_it() {
        let until = ("retry-after", "Sun, 06 Nov 1994 10:00:10 GMT");
        assert_eq!(said(429, &[until, ("date", "Sun, 06 Nov 1994 10:00:00 GMT")]), Some(10));
        assert_eq!(said(429, &[until, ("date", "today")]), Some(RETRY_AFTER_SECONDS_MAX));
    }
}
