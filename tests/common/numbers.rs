//! Numbers made for tests: with a right check digit, in ranges that were never issued.

/// A number of the volume range of test mode.
pub(crate) fn volume(n: u64) -> String {
    complete(&format!("468738{n:09}"))
}

/// So many different numbers that share first six and last four, in a range that is nobody's: what a search for a number tries.
pub(crate) fn of_one_place(bin: &str, last_four: &str, count: usize) -> Vec<String> {
    (0..1_000_000_u32)
        .map(|middle| format!("{bin}{middle:06}{last_four}"))
        .filter(|number| luhn_sum(number.bytes().rev(), 1) == 0)
        .take(count)
        .collect()
}

/// Adds the check digit.
pub(crate) fn complete(digits: &str) -> String {
    let check = (10 - luhn_sum(digits.bytes().rev(), 0)) % 10;
    format!("{digits}{check}")
}

/// The sum modulo ten; the digit at an even place (counted from `first`) of the reversed number is doubled.
fn luhn_sum(reversed: impl Iterator<Item = u8>, first: usize) -> u32 {
    let weigh = |(at, digit): (usize, u8)| {
        let digit = u32::from(digit - b'0');
        let doubled = digit * 2;
        if (at + first).is_multiple_of(2) { doubled / 10 + doubled % 10 } else { digit }
    };
    reversed.enumerate().map(weigh).sum::<u32>() % 10
}
