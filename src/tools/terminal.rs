//! Words to a person at a terminal.

use std::io::{BufRead, IsTerminal, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// A line that a person types is no longer.
const LINE_BYTES_MAX: u64 = 4096;

/// Asks for a line on standard input.
pub fn ask(prompt: &str) -> Result<Zeroizing<String>, String> {
    use std::io::Read;
    let _ = write!(std::io::stderr().lock(), "{prompt}");
    let _ = std::io::stderr().flush();
    let mut line = Zeroizing::new(String::new());
    let read = std::io::stdin().lock().take(LINE_BYTES_MAX).read_line(&mut line);
    match read {
        Ok(bytes) if bytes > 0 => Ok(line),
        Ok(_) | Err(_) => Err("nothing was typed".to_owned()),
    }
}

/// Asks for a line that the terminal does not show. Where standard input is no terminal it is read as it comes.
pub fn ask_hidden(prompt: &str) -> Result<Zeroizing<String>, String> {
    let hidden = Without::begin(LocalModes::ECHO);
    let line = ask(prompt);
    if hidden.is_some() {
        complain("");
    }
    line
}

/// A terminal without some of what it does; it does so again when this is dropped.
struct Without(Termios);

impl Without {
    fn begin(modes: LocalModes) -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut changed = before.clone();
        changed.local_modes.remove(modes);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &changed).ok()?;
        Some(Self(before))
    }
}

impl Drop for Without {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// Shows something once, on a screen of its own that is wiped when the person says that they have it. Until then no key ends or stops
/// this process, which would leave it on the screen.
pub fn show_once(text: &str, prompt: &str) -> Result<(), String> {
    let mut out = std::io::stdout();
    if !out.is_terminal() || !std::io::stdin().is_terminal() {
        return Err("this is shown on a terminal only; use --out for a file that is sealed".to_owned());
    }
    let failed = |_| "the terminal cannot be written to".to_owned();
    let signals = Without::begin(LocalModes::ISIG);
    // The alternate screen has no history to scroll back to.
    write!(out, "\x1b[?1049h\x1b[2J\x1b[H{text}\n\n").map_err(failed)?;
    out.flush().map_err(failed)?;
    let asked = ask(prompt);
    let _ = write!(out, "\x1b[2J\x1b[3J\x1b[H\x1b[?1049l");
    let _ = out.flush();
    drop(signals);
    asked.map(drop)
}

/// Prints a line on standard output; a closed output is no reason to stop.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Prints a line on standard error; a closed output is no reason to stop.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
