//! The language itself: what it can say, and every way to be told that a file says it wrong.
