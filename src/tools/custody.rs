//! `cardvault keys ceremony` and `cardvault keys unseal`: what a custodian does at a terminal, with a key file of their own.
//!
//! A share is in the clear here only: it is opened with the custodian's key, shown to them or written sealed, and sealed to the unsealer
//! before it leaves this process.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use data_encoding::{BASE64, HEXLOWER};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::terminal::{ask, ask_hidden, say, show_once};
use crate::card::id::ApprovalId;
use crate::clock::{Clock, SystemClock};
use crate::keeper::keys::Mac;
use crate::person::key::PersonKey;
use crate::person::request::{Request, Signed, Step, digest_of};
use crate::person::share::{
    Share, custodian_info, find_sealed, open_with, seal_to, sealed_text, unseal_info,
};
use crate::supervisor::admin::{self, AdminRequest};
use crate::supervisor::ceremony::{ACKNOWLEDGE, COLLECT, CONFIRM, CustodyRequest, FORM, SignedRequest};
use crate::supervisor::gathering::GIVE;
use crate::wire::control::AdminAnswer;

/// What is signed is to be carried out now.
const SIGNED_SECONDS: i64 = 600;
/// A share's file has a line and a few of comment.
const FILE_BYTES_MAX: u64 = 4096;
/// What a custodian types below the form.
const ACCEPT: &str = "I acknowledge";

/// Verbs of a ceremony.
#[derive(Debug, Subcommand)]
pub enum CeremonyCommand {
    /// Begin: name the custodians, who are registered persons
    Begin {
        /// How many shares open the vault
        #[arg(long, default_value_t = 3)]
        threshold: u8,
        /// A custodian, by name or id; give it once for each, five as a rule
        #[arg(long = "custodian", required = true)]
        custodians: Vec<String>,
        /// Go through all of it with a key that protects nothing
        #[arg(long)]
        rehearsal: bool,
    },
    /// Acknowledge the custodian form, as a custodian
    Acknowledge {
        /// Your key file
        #[arg(long)]
        key: PathBuf,
    },
    /// Make the secret and its shares, once all have acknowledged; where custodians hold the present one, they give their shares first
    Issue,
    /// Take your share, as a custodian
    Collect {
        /// Your key file
        #[arg(long)]
        key: PathBuf,
        /// Write the share here, sealed to your key
        #[arg(long, conflicts_with = "show", required_unless_present = "show")]
        out: Option<PathBuf>,
        /// Show the share once, on this terminal, which is wiped afterwards
        #[arg(long)]
        show: bool,
        /// Of a rehearsal
        #[arg(long)]
        rehearsal: bool,
    },
    /// Show what stands where, and who holds shares
    Status,
}

/// What `keys unseal` is told.
#[derive(Debug, Args)]
pub struct UnsealArgs {
    /// Your key file
    #[arg(long, required_unless_present = "cancel")]
    key: Option<PathBuf>,
    /// The file with your sealed share; without it you are asked for the share, which is not shown
    #[arg(long)]
    share: Option<PathBuf>,
    /// What you give your share for, if not to open the vault: rotate_kek, replace or move_root, as `keys ceremony status` says
    #[arg(long = "for", default_value = "open", value_name = "PURPOSE")]
    purpose: String,
    /// Try the shares of a rehearsal
    #[arg(long)]
    rehearsal: bool,
    /// Forget the shares that were given
    #[arg(long)]
    cancel: bool,
}

/// Carries out a verb of a ceremony.
pub fn ceremony(config: &Path, command: CeremonyCommand) -> Result<(), String> {
    match command {
        CeremonyCommand::Begin { threshold, custodians, rehearsal } => {
            say(&tell(config, CustodyRequest::Begin { threshold, custodians, rehearsal })?);
        }
        CeremonyCommand::Acknowledge { key } => acknowledge(config, &key)?,
        CeremonyCommand::Issue => say(&tell(config, CustodyRequest::Issue)?),
        CeremonyCommand::Collect { key, out, show: _, rehearsal } => {
            collect(config, &key, out.as_deref(), rehearsal)?;
        }
        CeremonyCommand::Status => {
            let facts = facts(config, CustodyRequest::Status)?;
            say(&serde_json::to_string_pretty(&facts).unwrap_or_default());
        }
    }
    Ok(())
}

fn acknowledge(config: &Path, key: &Path) -> Result<(), String> {
    let facts = facts(config, CustodyRequest::Status)?;
    let key = read_key(key)?;
    let ceremony = at(&facts, "/pending/ceremony").as_str().ok_or("no ceremony has begun")?;
    if at(&facts, "/form_sha256").as_str() != Some(&digest_of(FORM)) {
        return Err(
            "the vault has another version of the form than this command; use the vault's own".to_owned()
        );
    }
    say(FORM);
    say(&format!(
        "Ceremony {ceremony}: {} of {} shares open the vault.",
        at(&facts, "/pending/threshold"),
        at(&facts, "/pending/custodians").as_array().map_or(0, Vec::len)
    ));
    if ask(&format!("Type `{ACCEPT}` to sign this: "))?.trim() != ACCEPT {
        return Err("nothing was signed".to_owned());
    }
    let parameters = json!({"ceremony": ceremony, "form_sha256": digest_of(FORM)});
    let signed = sign(&key, &facts, ACKNOWLEDGE, parameters)?;
    say(&tell(config, CustodyRequest::Acknowledge(signed))?);
    Ok(())
}

fn collect(config: &Path, key: &Path, out: Option<&Path>, rehearsal: bool) -> Result<(), String> {
    let facts = facts(config, CustodyRequest::Status)?;
    let key = read_key(key)?;
    let of = at(&facts, if rehearsal { "/rehearsal" } else { "/issued" });
    let ceremony = at(of, "/ceremony").as_str().ok_or("no shares wait to be collected")?;
    let signed = sign(&key, &facts, COLLECT, json!({"ceremony": ceremony}))?;
    let given: Value = serde_json::from_str(&tell(config, CustodyRequest::Collect(signed))?)
        .map_err(|_| "the vault's answer is of another version of cardvault")?;
    let sealed =
        BASE64.decode(at(&given, "/sealed").as_str().unwrap_or_default().as_bytes()).unwrap_or_default();
    let share = open_share(&key, &id_of(ceremony)?, &sealed)?;
    match out {
        Some(path) => write_sealed(path, &share, &sealed)?,
        None => {
            let text = share.text();
            let shown = format!(
                "Share {} of ceremony {ceremony}. {} shares open the vault.\nKey check value of the secret: {}\n\n{}",
                share.place,
                share.threshold,
                HEXLOWER.encode(&share.secret_check),
                text.as_str()
            );
            show_once(&shown, "Press Enter once you have written it down; it is never shown again: ")?;
            // What was written down wrongly opens nothing, and there is no second look.
            let again = ask_hidden("Type it from your paper (not shown): ")?;
            let again = Share::parse(&again).map_err(|fault| format!("{fault}; collect it once more"))?;
            if again.text().as_str() != text.as_str() {
                return Err("this is another share; collect yours once more".to_owned());
            }
        }
    }
    let share_check = Mac::new(share.bytes.as_slice()).check_value();
    let parameters = json!({"ceremony": ceremony, "share_check": share_check});
    let signed = sign(&key, &facts, CONFIRM, parameters)?;
    say(&tell(config, CustodyRequest::Confirm(signed))?);
    Ok(())
}

/// Carries out `keys unseal`.
pub fn unseal(config: &Path, args: &UnsealArgs) -> Result<(), String> {
    if args.cancel {
        say(&tell(config, CustodyRequest::Cancel)?);
        return Ok(());
    }
    let key = read_key(args.key.as_deref().ok_or("--key: the path of your key file")?)?;
    let facts = facts(config, CustodyRequest::Unseal { rehearsal: args.rehearsal })?;
    let gathering = at(&facts, "/gathering");
    let ceremony = id_of(at(gathering, "/ceremony").as_str().unwrap_or_default())?;
    let purpose = at(gathering, "/purpose").as_str().unwrap_or_default();
    say(&format!(
        "Shares are given to: {purpose} ({} of {} are there)",
        at(gathering, "/given"),
        at(gathering, "/threshold")
    ));
    let wanted = if args.rehearsal { "rehearse" } else { args.purpose.as_str() };
    if purpose != wanted {
        return Err(format!(
            "shares are given to {purpose}, and you give yours to {wanted}: if you mean {purpose}, say --for {purpose}"
        ));
    }
    if let Some(new) = gathering.get("new").filter(|new| !new.is_null()) {
        say(&format!(
            "They make new shares, {} of which open the vault, for: {}",
            at(new, "/threshold"),
            at(new, "/custodians")
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        ));
    }
    let share = match &args.share {
        Some(path) => open_share(&key, &ceremony, &read_sealed(path)?)?,
        None => Share::parse(&ask_hidden("Your share (not shown): ")?).map_err(|fault| fault.to_string())?,
    };
    let public = at(gathering, "/gathering").as_str().unwrap_or_default();
    let to = HEXLOWER.decode(public.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    let to: [u8; 32] = to.ok_or("the vault's answer is of another version of cardvault")?;
    let sealed = seal_to(&to, &unseal_info(&ceremony), share.text().as_bytes());
    let sealed = sealed.map_err(|fault| fault.to_string())?;
    let parameters = json!({
        "gathering": public,
        "purpose": purpose,
        "new": at(gathering, "/new"),
        "sealed_sha256": HEXLOWER.encode(digest(&SHA256, &sealed).as_ref()),
    });
    let request = sign(&key, &facts, GIVE, parameters)?;
    say(&tell(config, CustodyRequest::Give { request, sealed: BASE64.encode(&sealed) })?);
    Ok(())
}

/// Tells the vault, and gives what it says.
fn tell(config: &Path, request: CustodyRequest) -> Result<String, String> {
    match admin::ask(config, &[AdminRequest::Custody(request)])?.pop() {
        Some(AdminAnswer::Done(said)) => Ok(said),
        Some(AdminAnswer::Refused(sentence)) => Err(sentence),
        Some(AdminAnswer::Credential { .. } | AdminAnswer::Table(_)) | None => {
            Err("the vault's answer is of another version of cardvault".to_owned())
        }
    }
}

fn facts(config: &Path, request: CustodyRequest) -> Result<Value, String> {
    serde_json::from_str(&tell(config, request)?)
        .map_err(|_| "the vault's answer is of another version of cardvault".to_owned())
}

/// What stands there, or null.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

fn read_key(path: &Path) -> Result<PersonKey, String> {
    PersonKey::read(path).map_err(|fault| fault.to_string())
}

/// What this person asks, signed, for the vault that gave these facts.
fn sign(key: &PersonKey, facts: &Value, verb: &str, parameters: Value) -> Result<SignedRequest, String> {
    let other = || "the vault's answer is of another version of cardvault".to_owned();
    let environment = HEXLOWER.decode(at(facts, "/environment").as_str().unwrap_or_default().as_bytes()).ok();
    let now = SystemClock.now();
    let request = Request {
        environment: environment.and_then(|bytes| bytes.try_into().ok()).ok_or_else(other)?,
        verb: verb.to_owned(),
        parameters,
        id: ApprovalId::make(now).map_err(|error| error.to_string())?,
        expires_at: now.plus_seconds(SIGNED_SECONDS),
    };
    let text = request.text().map_err(|error| error.to_string())?;
    let signed = Signed::make(key, Step::Ask, &text).map_err(|fault| fault.to_string())?;
    Ok(SignedRequest { text, signed })
}

fn id_of(ceremony: &str) -> Result<[u8; 16], String> {
    let bytes = HEXLOWER.decode(ceremony.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| "no shares are asked for".to_owned())
}

fn open_share(key: &PersonKey, ceremony: &[u8; 16], sealed: &[u8]) -> Result<Share, String> {
    let secret = key.sealing_secret().map_err(|fault| fault.to_string())?;
    let opened = open_with(&secret, &custodian_info(ceremony), sealed).map_err(|fault| fault.to_string())?;
    let text = std::str::from_utf8(&opened).map_err(|_| "this is no share".to_owned())?;
    Share::parse(text).map_err(|fault| fault.to_string())
}

fn read_sealed(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let failed = |error: std::io::Error| format!("{} cannot be read: {}", path.display(), error.kind());
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(failed)?;
    find_sealed(&text).map_err(|fault| format!("{}: {fault}", path.display()))
}

fn write_sealed(path: &Path, share: &Share, sealed: &[u8]) -> Result<(), String> {
    let text = format!(
        "# Share {} of ceremony {}, sealed to its custodian's key. Keep it apart from that key.\n{}\n",
        share.place,
        HEXLOWER.encode(&share.ceremony),
        sealed_text(sealed)
    );
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(|error| format!("{} cannot be made: {}", path.display(), error.kind()))
}
