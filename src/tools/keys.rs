//! `cardvault keys`: what there is of keys, and how one takes over from another.

use std::path::Path;
use std::time::Duration;

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};

use super::administer::report;
use super::custody::{self, CeremonyCommand, UnsealArgs};
use super::signing;
use super::terminal::say;
use crate::roots::RootProvider;
use crate::supervisor::admin::{self, AdminRequest};
use crate::supervisor::keys::KeyRequest;
use crate::wire::control::AdminAnswer;
use crate::wire::keys::KeyPurpose;

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Verbs on keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// List keys: what each is for, where it stands, and until when it protects
    List,
    /// Show all that is known of a key
    Show {
        /// Its id
        key: u32,
    },
    /// Have another key take over: kek, data, fingerprint or pseudonym
    Rotate {
        /// What the key is for
        #[arg(value_parser = purpose)]
        purpose: KeyPurpose,
        /// Whose, by name; the KEK is the installation's
        #[arg(long)]
        tenant: Option<String>,
        /// Wait until all cards are sealed under the new key, with a progress bar
        #[arg(long)]
        watch: bool,
    },
    /// Say that a key that is not in use protects nothing more
    Retire {
        /// Its id
        key: u32,
    },
    /// Say that a key is known to others, or may be: another takes over at once
    Compromise {
        /// Its id
        key: u32,
    },
    /// Destroy a key for good; refused while a record needs it
    Destroy {
        /// Its id
        key: u32,
    },
    /// Make a secret with custodians that wraps the KEK: nobody of them opens the vault alone
    #[command(subcommand)]
    Ceremony(CeremonyCommand),
    /// Give your share, as a custodian
    Unseal(UnsealArgs),
    /// Have another root provider wrap the KEK; custodians take it over with `ceremony`
    MoveRoot {
        /// The provider, which is configured beside the one in use
        #[arg(long)]
        to: RootProvider,
    },
    /// Show how far the cards are that are sealed again
    Progress {
        /// Wait until they all are, with a progress bar
        #[arg(long)]
        watch: bool,
    },
}

/// Carries out a verb on keys.
pub fn run(config: &Path, signer: Option<&Path>, command: KeysCommand) -> Result<(), String> {
    let (request, watches) = match command {
        KeysCommand::Ceremony(command) => return custody::ceremony(config, command),
        KeysCommand::Unseal(args) => return custody::unseal(config, &args),
        KeysCommand::MoveRoot { to } => (AdminRequest::Key(KeyRequest::MoveRoot(to)), false),
        KeysCommand::List => (AdminRequest::Key(KeyRequest::List), false),
        KeysCommand::Show { key } => (AdminRequest::Key(KeyRequest::Show(key)), false),
        KeysCommand::Rotate { purpose, tenant, watch } => {
            (AdminRequest::Key(KeyRequest::Rotate { purpose, tenant }), watch)
        }
        KeysCommand::Retire { key } => (AdminRequest::Key(KeyRequest::Retire(key)), false),
        KeysCommand::Compromise { key } => (AdminRequest::Key(KeyRequest::Compromise(key)), false),
        KeysCommand::Destroy { key } => (AdminRequest::Key(KeyRequest::Destroy(key)), false),
        KeysCommand::Progress { watch } => (AdminRequest::Key(KeyRequest::Progress), watch),
    };
    report(signing::ask(config, signer, vec![request]))?;
    if watches { watch(config) } else { Ok(()) }
}

fn purpose(word: &str) -> Result<KeyPurpose, String> {
    KeyPurpose::from_name(word).ok_or_else(|| "use kek, data, fingerprint or pseudonym".to_owned())
}

/// How far the cards are that are sealed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Records that are left under the old keys.
    pub left: u64,
    /// Records that there were when it began.
    pub of: u64,
    /// Records a second.
    pub per_second: u64,
    /// Whether a look found nothing more.
    pub is_empty: bool,
}

/// Asks the vault how far it is; none if no key has been emptied since it started.
pub fn progress(config: &Path) -> Result<Option<Progress>, String> {
    let answer = admin::ask(config, &[AdminRequest::Key(KeyRequest::Progress)])?.pop();
    let rows = match answer {
        Some(AdminAnswer::Table(rows)) => rows,
        Some(AdminAnswer::Refused(sentence)) => return Err(sentence),
        Some(AdminAnswer::Done(_) | AdminAnswer::Credential { .. }) | None => Vec::new(),
    };
    let Some(row) = rows.get(1) else { return Ok(None) };
    let number = |at: usize| row.get(at).and_then(|text| text.parse().ok()).unwrap_or(0);
    let is_empty = row.last().is_some_and(|state| state == "empty");
    Ok(Some(Progress { left: number(1), of: number(2), per_second: number(3), is_empty }))
}

/// Shows a bar until nothing is left. The vault goes on without anybody who looks.
fn watch(config: &Path) -> Result<(), String> {
    let bar = ProgressBar::new(0);
    let style = "{bar:30} {pos} of {len} records, {msg}";
    bar.set_style(ProgressStyle::with_template(style).map_err(|_| "the bar cannot be drawn".to_owned())?);
    loop {
        let Some(now) = progress(config)? else {
            bar.finish_and_clear();
            say("no key is being emptied");
            return Ok(());
        };
        bar.set_length(now.of);
        bar.set_position(now.of.saturating_sub(now.left));
        let seconds = now.left.checked_div(now.per_second).unwrap_or(0);
        bar.set_message(format!("{} a second, {seconds} seconds left", now.per_second));
        if now.is_empty {
            bar.finish_and_clear();
            say(&format!(
                "nothing is left: {} records were sealed again, {} a second",
                now.of, now.per_second
            ));
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
