//! `cardvault erase verify`: checks the certificate of an erasure offline, with nothing but the certificate and the log's public key.
//!
//! Exit codes are those of `cardvault audit verify`: 0 everything holds, 1 something does not, 2 nothing could be said: wrong usage, a
//! file that cannot be read, or no key to say whose log it is.

use std::fs;
use std::path::PathBuf;

use super::audit::{FAILS, HOLDS, UNREADABLE, read_key, unreadable};
use super::terminal::{complain, say};
use crate::attest::note::{Checkpoint, VerifierKey};
use crate::edge::audit::certificate::{Certificate, Fault, Standing};

/// Erasures and what proves them.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Verifies the certificate of an erasure offline; says what holds and what does not
    Verify(VerifyArgs),
}

/// What to verify.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// The certificate, as `GET /v1/erasures/TOKEN` gave it
    #[arg(value_name = "CERT")]
    certificate: PathBuf,
    /// The log's public key: `name+id+key`, or a file that holds it
    #[arg(long, value_name = "VERIFIER")]
    key: Option<String>,
}

/// Runs the command and gives its exit code.
pub fn run(command: &Command) -> u8 {
    let Command::Verify(args) = command;
    verify(args).unwrap_or_else(|problem| {
        complain(&problem);
        UNREADABLE
    })
}

fn verify(args: &VerifyArgs) -> Result<u8, String> {
    let key = args.key.as_deref().map(read_key).transpose()?;
    let bytes = fs::read(&args.certificate).map_err(|error| unreadable(&args.certificate, &error))?;
    let certificate = match Certificate::read(&bytes) {
        Ok(certificate) => certificate,
        Err(fault) => return Ok(refuse(&[fault])),
    };
    let own = VerifierKey::parse(&certificate.log);
    let Some(by) = key.as_ref().or(own.as_ref()) else { return Ok(refuse(&[Fault::OtherLog])) };
    match certificate.verify(by) {
        Err(faults) => Ok(refuse(&faults)),
        Ok(checkpoint) => {
            tell(&certificate, &checkpoint);
            if key.is_some() {
                say("The certificate holds.");
                return Ok(HOLDS);
            }
            Err(format!(
                "The certificate agrees with itself, and nothing more: anybody can sign under a key of his own. Ask for the log's \
                 public key, and give it with --key; the certificate names {by}"
            ))
        }
    }
}

fn refuse(faults: &[Fault]) -> u8 {
    for fault in faults {
        complain(&format!("FAILED  {fault}"));
    }
    say("The certificate does NOT hold.");
    FAILS
}

/// All of it comes from events that are in the log.
fn tell(certificate: &Certificate, checkpoint: &Checkpoint) {
    say(&format!("log               {}, signed at {} events", checkpoint.origin, checkpoint.size));
    say(&format!("card              {} of tenant {}", certificate.token, certificate.tenant));
    let position = certificate.evidence.events.first().map_or(0, |event| event.index);
    let rows = certificate.rows_removed;
    say(&format!("erased            {} (event {position}): {rows} rows overwritten", certificate.erased_at));
    match &certificate.scrubbed_at {
        Some(at) => say(&format!("gone from files   {at}")),
        None => say("gone from files   not yet"),
    }
    for key in &certificate.keys {
        let id = key.id.to_string();
        match (&key.destroyed_at, key.backups_kept_days) {
            (Some(at), Some(days)) => {
                say(&format!("key {id:<14}destroyed {at}; backups of the key store are kept {days} days"));
            }
            _ => say(&format!("key {id:<14}not destroyed yet")),
        }
    }
    let date = certificate.unrecoverable_after.as_deref().unwrap_or("no date");
    say(&match certificate.status {
        Standing::Final => format!("unrecoverable     after {date}"),
        Standing::Planned => {
            format!("unrecoverable     planned: after {date}; ask for the certificate again then")
        }
        Standing::Overdue => "unrecoverable     NOT, and later than was planned: a key lives".to_owned(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::audit::certificate::tests::{key, whole};

    fn run_on(bytes: &[u8], key: Option<String>) -> u8 {
        let dir = tempfile::tempdir().unwrap();
        let certificate = dir.path().join("certificate");
        fs::write(&certificate, bytes).unwrap();
        run(&Command::Verify(VerifyArgs { certificate, key }))
    }

    #[test]
    fn a_certificate_holds_under_the_logs_own_key_only() {
        let bytes = serde_json::to_vec_pretty(&whole()).unwrap();
        assert_eq!(run_on(&bytes, Some(key().to_string())), HOLDS);
        // Without the key nobody can say whose log it is.
        assert_eq!(run_on(&bytes, None), UNREADABLE);
        let other = VerifierKey::new(key().name(), [1; 32]).unwrap();
        assert_eq!(run_on(&bytes, Some(other.to_string())), FAILS);
        let text = String::from_utf8(bytes).unwrap();
        let edited = text.replace("\"rows_removed\": 2", "\"rows_removed\": 3");
        assert_ne!(edited, text);
        for key in [None, Some(key().to_string())] {
            assert_eq!(run_on(edited.as_bytes(), key), FAILS);
        }
    }

    #[test]
    fn what_is_no_certificate_is_not_taken_for_one() {
        assert_eq!(run_on(b"{}", Some(key().to_string())), FAILS);
        assert_eq!(run_on(b"{}", Some("no-key".to_owned())), UNREADABLE);
        let nowhere = VerifyArgs { certificate: PathBuf::from("/nowhere"), key: Some(key().to_string()) };
        assert_eq!(run(&Command::Verify(nowhere)), UNREADABLE);
    }
}
