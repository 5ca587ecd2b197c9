//! Words to a person at a terminal.

use std::io::Write;

/// Prints a line on standard output; a closed output is no reason to stop.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Prints a line on standard error; a closed output is no reason to stop.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
