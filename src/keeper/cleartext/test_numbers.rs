//! Which numbers are for testing: a dated list, and never-issued ranges for volume.

use std::collections::HashSet;
use std::sync::LazyLock;

const LIST: &str = include_str!("test_numbers.txt");

struct TestNumbers {
    whole: HashSet<&'static [u8]>,
    ranges: Vec<(&'static [u8], usize)>,
}

static NUMBERS: LazyLock<TestNumbers> = LazyLock::new(|| {
    let lines = LIST.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (ranges, whole): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.ends_with('x'));
    TestNumbers {
        whole: whole.into_iter().map(str::as_bytes).collect(),
        ranges: ranges.into_iter().map(|r| (r.trim_end_matches('x').as_bytes(), r.len())).collect(),
    }
});

/// Whether these digits are a test number.
pub(super) fn is_test(digits: &[u8]) -> bool {
    NUMBERS.ranges.iter().any(|(prefix, length)| digits.len() == *length && digits.starts_with(prefix))
        || NUMBERS.whole.contains(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_range_is_wider_than_ten_digits_of_a_never_issued_bin() {
        assert_eq!(NUMBERS.ranges.len(), 2);
        assert!(NUMBERS.ranges.iter().all(|(prefix, length)| prefix.len() >= 6 && *length == 16));
        assert!(NUMBERS.whole.len() > 80);
    }
}
