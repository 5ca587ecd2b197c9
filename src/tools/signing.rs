//! What a person signs at the terminal (`--as KEYFILE`): a request of their own, and their word on another's.

use std::io::{IsTerminal, Write};
use std::path::Path;

use clap::Subcommand;
use data_encoding::HEXLOWER;

use super::administer::report;
use super::terminal::say;
use crate::card::id::ApprovalId;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::person::credential;
use crate::person::key::PersonKey;
use crate::person::request::{Request, Signed, Step, digest_of};
use crate::supervisor::admin::{self, AdminRequest};
use crate::supervisor::asked::ApprovalRequest;
use crate::supervisor::two_person;
use crate::supervisor::verbs::{DangerousVerb, scope_of, words};
use crate::wire::control::AdminAnswer;

/// Verbs on requests that wait for another person.
#[derive(Debug, Subcommand)]
pub enum ApprovalsCommand {
    /// List requests, and what came of them
    List,
    /// Show one: who asked, what it would do, and the text that is signed
    Show {
        /// Its id
        id: String,
    },
    /// Approve what another person asked for: it is carried out at once
    Approve {
        /// Its id
        id: String,
    },
    /// Reject what another person asked for, or withdraw what you did
    Reject {
        /// Its id
        id: String,
    },
}

/// Carries out a verb on requests.
pub fn approvals(config: &Path, signer: Option<&Path>, command: ApprovalsCommand) -> Result<(), String> {
    match command {
        ApprovalsCommand::List => {
            report(admin::ask(config, &[AdminRequest::Approvals(ApprovalRequest::List)]))
        }
        ApprovalsCommand::Show { id } => {
            let (text, answer) = show(config, id)?;
            report(Ok(vec![answer]))?;
            say(&told(&text)?);
            Ok(())
        }
        ApprovalsCommand::Approve { id } => decide(config, signer, id, Step::Approve),
        ApprovalsCommand::Reject { id } => decide(config, signer, id, Step::Reject),
    }
}

/// Asks for each of these: as the person whose key this is, or as who holds the socket.
pub fn ask(
    config: &Path,
    signer: Option<&Path>,
    requests: Vec<AdminRequest>,
) -> Result<Vec<AdminAnswer>, String> {
    let Some(file) = signer else { return admin::ask(config, &requests) };
    let key = PersonKey::read(file).map_err(|fault| fault.to_string())?;
    let (environment, seconds) = (environment(config)?, approval_seconds(config)?);
    let sign = |request: AdminRequest| {
        if scope_of(&request).is_none() { Ok(request) } else { signed(&key, environment, seconds, &request) }
    };
    let requests = requests.into_iter().map(sign).collect::<Result<Vec<_>, String>>()?;
    admin::ask(config, &requests)
}

/// As [`ask`] for what gives a principal a credential. Signed, the credential is made here, and the vault gets its SHA-256 alone:
/// it is good once the request is carried out.
pub fn ask_credential(
    config: &Path,
    signer: Option<&Path>,
    plain: AdminRequest,
    given: impl FnOnce(String) -> AdminRequest,
) -> Result<(), String> {
    if signer.is_none() {
        return report(admin::ask(config, &[plain]));
    }
    let (credential, hash) = credential::make().map_err(|error| error.to_string())?;
    report(ask(config, signer, vec![given(HEXLOWER.encode(&hash))]))?;
    say(&format!("credential, shown once, good when the request is carried out: {credential}"));
    Ok(())
}

/// Has the configuration read again; what it widens is asked for by its digest.
pub fn reload(config: &Path, signer: Option<&Path>) -> Result<(), String> {
    let request = match signer {
        None => AdminRequest::Reload,
        Some(_) => match one(admin::ask(config, &[AdminRequest::ReloadPreview]))? {
            AdminAnswer::Table(rows) => {
                let mut rows = rows.into_iter();
                let sha256 = rows.next().and_then(|row| row.into_iter().next()).unwrap_or_default();
                match rows.next().unwrap_or_default() {
                    widens if widens.is_empty() => AdminRequest::Reload,
                    widens => AdminRequest::ReloadTo { sha256, widens },
                }
            }
            AdminAnswer::Refused(sentence) => return Err(sentence),
            AdminAnswer::Done(_) | AdminAnswer::Credential { .. } => return Err(other_version()),
        },
    };
    if let AdminRequest::ReloadTo { .. } = request {
        say(&words(&request));
    }
    report(ask(config, signer, vec![request]))
}

fn decide(config: &Path, signer: Option<&Path>, id: String, step: Step) -> Result<(), String> {
    let file = signer.ok_or("whoever decides signs: add --as KEYFILE")?;
    let key = PersonKey::read(file).map_err(|fault| fault.to_string())?;
    let (text, _) = show(config, id.clone())?;
    let request = Request::read(&text).map_err(|fault| fault.to_string())?;
    if request.environment != environment(config)? || request.id.to_string() != id {
        return Err("the vault shows another request than the one that was named".to_owned());
    }
    say(&told(&text)?);
    if !agrees(if step == Step::Approve { "approve" } else { "reject" })? {
        return Err("nothing was signed".to_owned());
    }
    let signed = Signed::make(&key, step, &text).map_err(|fault| fault.to_string())?;
    report(admin::ask(config, &[AdminRequest::Approvals(ApprovalRequest::Decide { id, signed })]))
}

/// At a terminal somebody is asked once more; a program that runs this has been told to.
fn agrees(word: &str) -> Result<bool, String> {
    if !std::io::stdin().is_terminal() {
        return Ok(true);
    }
    let failed = |_| "the terminal cannot be read".to_owned();
    let mut out = std::io::stdout().lock();
    write!(out, "type {word} to sign: ").and_then(|()| out.flush()).map_err(failed)?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(failed)?;
    Ok(line.trim() == word)
}

/// What a text would do, in plain words that are made from it.
fn told(text: &str) -> Result<String, String> {
    let request = Request::read(text).map_err(|fault| fault.to_string())?;
    let asked = two_person::verb_in(&request).map_err(|refusal| refusal.to_string())?;
    let because = DangerousVerb::of(&asked).map(|verb| format!("\nneeds two persons: {}", verb.because()));
    Ok(format!(
        "{}{}\nvoid after {}, SHA-256 of what is signed {}",
        words(&asked),
        because.unwrap_or_default(),
        request.expires_at,
        digest_of(text)
    ))
}

fn show(config: &Path, id: String) -> Result<(String, AdminAnswer), String> {
    let answer = one(admin::ask(config, &[AdminRequest::Approvals(ApprovalRequest::Show(id))]))?;
    let AdminAnswer::Table(rows) = &answer else {
        return Err(if let AdminAnswer::Refused(sentence) = answer { sentence } else { other_version() });
    };
    let is_text = |row: &&Vec<String>| row.first().is_some_and(|name| name == "text");
    let text = rows.iter().find(is_text).and_then(|row| row.get(1)).cloned();
    Ok((text.ok_or_else(other_version)?, answer))
}

fn signed(
    key: &PersonKey,
    environment: [u8; 16],
    seconds: i64,
    request: &AdminRequest,
) -> Result<AdminRequest, String> {
    let now = SystemClock.now();
    let verb = scope_of(request).map(|scope| scope.name().to_owned()).unwrap_or_default();
    let request = Request {
        environment,
        verb,
        parameters: serde_json::to_value(request).map_err(|_| other_version())?,
        id: ApprovalId::make(now).map_err(|error| error.to_string())?,
        expires_at: now.plus_seconds(seconds),
    };
    let text = request.text().map_err(|_| "the request is too long".to_owned())?;
    let signed = Signed::make(key, Step::Ask, &text).map_err(|fault| fault.to_string())?;
    Ok(AdminRequest::Signed { text, signed })
}

fn environment(config: &Path) -> Result<[u8; 16], String> {
    match one(admin::ask(config, &[AdminRequest::Environment]))? {
        AdminAnswer::Done(hex) => HEXLOWER.decode(hex.as_bytes()).ok().and_then(|id| id.try_into().ok()),
        AdminAnswer::Refused(sentence) => return Err(sentence),
        AdminAnswer::Credential { .. } | AdminAnswer::Table(_) => None,
    }
    .ok_or_else(other_version)
}

fn approval_seconds(config: &Path) -> Result<i64, String> {
    Ok(Config::load(config).map_err(|error| error.to_string())?.admin.approval_seconds())
}

fn one(answers: Result<Vec<AdminAnswer>, String>) -> Result<AdminAnswer, String> {
    answers?.pop().ok_or_else(other_version)
}

fn other_version() -> String {
    "the vault's answer is of another version of cardvault".to_owned()
}
