//! A line between two roles, as the supervisor counts it: so that one that ends while both ends live is made again, and once.

/// Counts the pairs of a line that one of its ends, the one that tells of their end, was handed.
#[derive(Debug, Default)]
pub(super) struct Line {
    pairs: u64,
    has_ended: bool,
}

impl Line {
    /// The end that tells is new and has this pair.
    pub(super) fn begin(&mut self) {
        *self = Self { pairs: 1, has_ended: false };
    }

    /// The end that tells is new and has no pair yet.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// A fresh pair is handed over.
    pub(super) fn hand(&mut self) {
        *self = Self { pairs: self.pairs + 1, has_ended: false };
    }

    /// So many pairs have ended. Of a pair before the last one nobody needs to be told.
    pub(super) fn end(&mut self, pairs: u64) {
        self.has_ended |= pairs == self.pairs;
    }

    /// Whether the last pair ended; says so once.
    pub(super) fn take_end(&mut self) -> bool {
        std::mem::take(&mut self.has_ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_last_pair_is_said_once_and_that_of_one_before_never() {
        let mut line = Line::default();
        line.begin();
        assert!(!line.take_end());
        line.end(1);
        assert!(line.take_end() && !line.take_end());
        line.end(1);
        line.hand();
        assert!(!line.take_end(), "it has a fresh pair");
        line.end(1);
        assert!(!line.take_end(), "that was the pair before");
        line.end(2);
        assert!(line.take_end());
        line.reset();
        line.hand();
        line.end(1);
        assert!(line.take_end());
    }
}
