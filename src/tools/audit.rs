//! `cardvault audit export` and `cardvault audit verify`.
//!
//! Verifying needs the file and the public key, no service and no network: it is for another machine and another person.
//! Exit codes: 0 everything holds, 1 something does not (each failure on standard error, with its place), 2 nothing could be said:
//! wrong usage, or a file that cannot be read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::terminal::{complain, say};
use crate::attest::note::{Checkpoint, VerifierKey};
use crate::edge::audit::export::{Log, export};
use crate::edge::audit::verify::{Report, verify};

pub(super) const HOLDS: u8 = 0;
pub(super) const FAILS: u8 = 1;
pub(super) const UNREADABLE: u8 = 2;
/// Large enough that reading is never what a verification waits for.
const BUFFER_BYTES: usize = 1 << 20;

/// Exports the audit log, or verifies an exported one.
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Writes the log up to its newest signed checkpoint into one file.
    Export(ExportArgs),
    /// Verifies an exported log offline; says where it fails.
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    /// The vault's configuration file.
    #[arg(long, value_name = "FILE", required_unless_present = "database", conflicts_with = "database")]
    config: Option<PathBuf>,
    /// The vault's database file, or a copy of it.
    #[arg(long, value_name = "PATH")]
    database: Option<PathBuf>,
    /// The file to write; it must not exist yet.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// The exported log.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The log's public key: `name+id+key`, or a file that holds it.
    #[arg(long, value_name = "PUB")]
    key: String,
    /// A checkpoint that was kept from before: the log must still begin with what it covers.
    #[arg(long, value_name = "CHECKPOINT")]
    at_least: Option<PathBuf>,
    /// A database whose cards, principals and tenants must be those of the log.
    #[arg(long, value_name = "PATH")]
    database: Option<PathBuf>,
}

/// Where a log lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the database that this configuration file names.
    Config(PathBuf),
    /// In this database file.
    Database(PathBuf),
}

/// Opens a log for reading.
pub type OpenLog<'a> = dyn Fn(&Source) -> io::Result<Box<dyn Log>> + 'a;

/// Runs the command and gives its exit code.
pub fn run(args: &AuditArgs, open: &OpenLog<'_>) -> u8 {
    let done = match &args.verb {
        Verb::Export(args) => run_export(args, open),
        Verb::Verify(args) => run_verify(args, open),
    };
    done.unwrap_or_else(|problem| {
        complain(&problem);
        UNREADABLE
    })
}

fn run_export(args: &ExportArgs, open: &OpenLog<'_>) -> Result<u8, String> {
    let config = args.config.clone().map(Source::Config);
    let source = config.or_else(|| args.database.clone().map(Source::Database));
    let source = source.ok_or("name a configuration or a database")?;
    let mut log = open(&source).map_err(|e| format!("cannot open the log: {}", e.kind()))?;
    // An export is evidence: it never overwrites an older one, and is for its owner to hand on.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&args.out)
        .map_err(|e| format!("cannot create {}: {}", args.out.display(), e.kind()))?;
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
    let done = export(log.as_mut(), &mut out).map_err(|e| e.to_string());
    let synced = out.get_ref().sync_all().map_err(|e| format!("cannot write: {}", e.kind()));
    match done.and_then(|events| synced.map(|()| events)) {
        Ok(events) => {
            say(&format!("{events} events written to {}", args.out.display()));
            Ok(HOLDS)
        }
        Err(problem) => {
            // Half an export would only look like a log that was cut off.
            let _ = fs::remove_file(&args.out);
            Err(problem)
        }
    }
}

fn run_verify(args: &VerifyArgs, open: &OpenLog<'_>) -> Result<u8, String> {
    let key = read_key(&args.key)?;
    let kept = args.at_least.as_deref().map(|path| read_kept(path, &key)).transpose()?;
    let file = File::open(&args.file).map_err(|e| unreadable(&args.file, &e))?;
    let input = BufReader::with_capacity(BUFFER_BYTES, file);
    let report = match &args.database {
        None => verify(input, &key, kept.as_ref(), None),
        Some(path) => {
            let mut log = open(&Source::Database(path.clone())).map_err(|e| unreadable(path, &e))?;
            verify(input, &key, kept.as_ref(), Some(&mut |take| log.rows(take)))
        }
    };
    let report = report.map_err(|e| format!("cannot read what is to be verified: {}", e.kind()))?;
    tell(&report, &key, kept.as_ref());
    Ok(if report.holds() { HOLDS } else { FAILS })
}

pub(super) fn read_key(text: &str) -> Result<VerifierKey, String> {
    if let Some(key) = VerifierKey::parse(text) {
        return Ok(key);
    }
    let read = fs::read_to_string(text).map_err(|_| "the key is neither `name+id+key` nor a file")?;
    VerifierKey::parse(read.trim_end()).ok_or_else(|| "the key file holds no `name+id+key`".to_owned())
}

fn read_kept(path: &Path, key: &VerifierKey) -> Result<Checkpoint, String> {
    let note = fs::read_to_string(path).map_err(|e| unreadable(path, &e))?;
    key.open_checkpoint(&note).map_err(|e| format!("the checkpoint in {}: {e}", path.display()))
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {}", path.display(), error.kind())
}

fn tell(report: &Report, key: &VerifierKey, kept: Option<&Checkpoint>) {
    for failure in &report.failures {
        complain(&format!("FAILED  {failure}"));
    }
    let untold = report.failure_count - u64::try_from(report.failures.len()).unwrap_or(0);
    if untold > 0 {
        complain(&format!("FAILED  and {untold} more"));
    }
    say(&format!("log               {}", report.origin));
    say(&format!("events            {} from event {}", report.events, report.from));
    match &report.checkpoint {
        Some(checkpoint) => {
            say(&format!("checkpoint        {} events, signed by {}", checkpoint.size, key.name()));
        }
        None => say("checkpoint        none that the key has signed"),
    }
    if let Some(kept) = kept {
        say(&format!("kept checkpoint   {} events", kept.size));
    }
    if report.from == 0 {
        let counts = &report.openings;
        say(&format!("keeper statements {}", counts.statements));
        say(&format!(
            "openings          {}: {} stated, {} not yet stated, {} never stated (their keeper ended), {} skipped",
            counts.openings, counts.stated, counts.not_yet_stated, counts.never_stated, counts.skipped
        ));
    } else {
        say("openings          not checked: the export does not begin at event 0");
    }
    if let Some(cards) = report.cards {
        say(&format!("cards compared    {cards}"));
    }
    if let Some(records) = report.records {
        say(&format!("others compared   {records} principals and tenants"));
    }
    say(if report.holds() { "The log holds." } else { "The log does NOT hold." });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::id::{IdBytes, Token};
    use crate::edge::audit::export::{CardState, RecordState, read_checkpoint_line};
    use crate::edge::store::CardStatus;
    use clap::Parser;

    const EXPORT: &str = include_str!("../../tests/vectors/audit/export.ndjson");
    const KEY: &str = include_str!("../../tests/vectors/audit/export.vkey");

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: AuditArgs,
    }

    /// The log of the vector, and the database that belongs to it.
    struct Vector {
        rolled_back: bool,
    }

    impl Log for Vector {
        fn checkpoint(&mut self) -> io::Result<Option<String>> {
            Ok(EXPORT.lines().next_back().and_then(|line| read_checkpoint_line(line.as_bytes())))
        }

        fn leaves(&mut self, size: u64, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
            EXPORT.lines().skip(1).take(size as usize).try_for_each(|leaf| each(leaf.as_bytes()))
        }

        fn cards(&mut self, each: &mut dyn FnMut(CardState)) -> io::Result<()> {
            let row = |number: u8, version, digest: u8, status| CardState {
                token: Token(IdBytes([number; 18])),
                version,
                digest: Some([digest; 32]),
                status,
                held: false,
                erase_asked: false,
            };
            each(if self.rolled_back {
                row(1, 1, 11, CardStatus::Active)
            } else {
                row(1, 2, 21, CardStatus::Active)
            });
            each(row(2, 1, 12, CardStatus::Suspended));
            Ok(())
        }

        fn records(&mut self, _each: &mut dyn FnMut(RecordState)) -> io::Result<()> {
            Ok(())
        }
    }

    fn open(source: &Source) -> io::Result<Box<dyn Log>> {
        match source {
            Source::Config(path) | Source::Database(path) if path.ends_with("none") => {
                Err(io::ErrorKind::NotFound.into())
            }
            Source::Config(_) => Ok(Box::new(Vector { rolled_back: false })),
            Source::Database(path) => Ok(Box::new(Vector { rolled_back: path.ends_with("old") })),
        }
    }

    fn command(line: &[&str]) -> u8 {
        match Command::try_parse_from([&["audit"], line].concat()) {
            Ok(command) => run(&command.args, &open),
            Err(_) => UNREADABLE,
        }
    }

    #[test]
    fn what_is_exported_verifies_and_is_the_vector() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("log");
        let file = out.to_str().unwrap();
        assert_eq!(command(&["export", "--config", "vault.toml", "--out", file]), HOLDS);
        assert_eq!(fs::read_to_string(&out).unwrap(), EXPORT);
        assert_eq!(command(&["verify", file, "--key", KEY.trim()]), HOLDS);
        assert_eq!(command(&["verify", file, "--key", KEY.trim(), "--database", "new"]), HOLDS);
        assert_eq!(command(&["verify", file, "--key", KEY.trim(), "--database", "old"]), FAILS);
        assert_eq!(command(&["verify", file, "--key", KEY.trim(), "--database", "none"]), UNREADABLE);
        // Evidence is not overwritten.
        assert_eq!(command(&["export", "--database", "new", "--out", file]), UNREADABLE);
        assert_eq!(fs::read_to_string(&out).unwrap(), EXPORT);
    }

    #[test]
    fn a_kept_checkpoint_and_a_key_may_lie_in_files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (file, key) = (write("log", EXPORT), write("key", KEY));
        let note = Vector { rolled_back: false }.checkpoint().unwrap().unwrap();
        let kept = write("kept", &note);
        assert_eq!(command(&["verify", &file, "--key", &key, "--at-least", &kept]), HOLDS);
        let forged = write("forged", &note.replacen("\n9\n", "\n8\n", 1));
        assert_eq!(command(&["verify", &file, "--key", &key, "--at-least", &forged]), UNREADABLE);
        let edited = write("edited", &EXPORT.replacen("card.create", "card.update", 1));
        assert_eq!(command(&["verify", &edited, "--key", &key]), FAILS);
        let empty = write("empty", "");
        assert_eq!(command(&["verify", &empty, "--key", &key]), FAILS);
        assert_eq!(command(&["verify", &file, "--key", &empty]), UNREADABLE);
    }

    #[test]
    fn wrong_usage_and_missing_files_say_nothing_of_the_log() {
        assert_eq!(command(&["verify", "no-such-file", "--key", KEY.trim()]), UNREADABLE);
        assert_eq!(command(&["verify", "no-such-file"]), UNREADABLE);
        assert_eq!(command(&["export", "--out", "x"]), UNREADABLE);
        assert_eq!(command(&["export", "--config", "a", "--database", "b", "--out", "x"]), UNREADABLE);
        assert_eq!(command(&["export", "--database", "none", "--out", "x"]), UNREADABLE);
    }
}
