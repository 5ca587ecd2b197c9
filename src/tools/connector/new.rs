//! `cardvault connector new`: a file to begin with, which is sound as it stands.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use super::{Failure, USAGE};
use crate::tools::terminal::say;

/// What every connector needs, with a remark where an author must decide.
const HEAD: &str = include_str!("new/head.toml");
const TAIL: &str = include_str!("new/tail.toml");
const JSON: &str = include_str!("new/json.toml");
const FORM: &str = include_str!("new/form.toml");
const XML: &str = include_str!("new/xml.toml");

/// Writes `NAME.toml` in a folder; a file that is there stays.
pub(super) fn write(folder: &Path, name: &str, encoding: &str) -> Result<(), Failure> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if name.is_empty() || name.len() > 48 || !name.bytes().all(fits) {
        return Err(Failure::usage("a connector's name is a-z, 0-9 and _, like my_processor"));
    }
    let path = folder.join(format!("{name}.toml"));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(|error| Failure {
        code: USAGE,
        lines: vec![format!("{}: {}; choose another name or folder", path.display(), error.kind())],
    })?;
    file.write_all(text(name, encoding).as_bytes())
        .map_err(|error| Failure::fault(format!("{}: {}", path.display(), error.kind())))?;
    say(&format!("{} is a sound connector for a processor that does not exist. Next:", path.display()));
    say(
        "1. put the processor's own names in the place of those that are there; the remarks say what to look up",
    );
    say(&format!("2. cardvault connector check {name}.toml     after each change"));
    say(&format!("3. cardvault connector render {name}.toml --operation sale --input charge.json"));
    say(&format!("4. cardvault connector map {name}.toml --operation sale --status 200 --body answer"));
    say(&format!("5. cardvault connector explain {name}.toml   before you rely on it"));
    Ok(())
}

fn text(name: &str, encoding: &str) -> String {
    let middle = match encoding {
        "form" => FORM,
        "xml" => XML,
        _json => JSON,
    };
    format!("{HEAD}{middle}{TAIL}").replace("my_processor", name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::{Connector, Operation, Outcome};

    #[test]
    fn what_it_writes_is_sound_and_is_not_overwritten() {
        for encoding in ["json", "form", "xml"] {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), "acme_pay", encoding).unwrap();
            let path = folder.path().join("acme_pay.toml");
            let text = std::fs::read_to_string(&path).unwrap();
            let connector = Connector::parse("acme_pay.toml", &text).unwrap_or_else(|faults| {
                panic!("{encoding}: {}", faults.iter().map(|fault| format!("{fault}\n")).collect::<String>())
            });
            assert_eq!(connector.name(), "acme_pay");
            let answer: &[u8] = match encoding {
                "xml" => b"<reply><status>APPROVED</status><id>t</id></reply>",
                "form" => b"status=APPROVED&id=t",
                _json => br#"{"status":"APPROVED","id":"t"}"#,
            };
            let mapped = connector.map(Operation::Sale, 200, answer);
            assert_eq!((mapped.outcome, mapped.transaction_id.as_deref()), (Outcome::Approved, Some("t")));
            assert_eq!(write(folder.path(), "acme_pay", encoding).unwrap_err().code, USAGE);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        for wrong in ["", "A", "../x", "a-b"] {
            assert!(write(Path::new("/nonexistent"), wrong, "json").unwrap_err().lines[0].contains("a-z"));
        }
    }
}
