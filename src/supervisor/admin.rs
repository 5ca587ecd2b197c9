//! The local administration socket (mode 0600): one line of JSON in, one line of JSON out. Whoever may open the socket is the
//! owner of the installation; the peer's uid stands in the log as who asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::asked::ApprovalRequest;
use super::ceremony::CustodyRequest;
use super::keys::KeyRequest;
use super::people::PersonRequest;
use super::serve::{self, Lock, Waiting};
use super::vault::Vault;
use crate::card::id::{ApprovalId, PrincipalId};
use crate::card::tenant::Mode;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::person::request::Signed;
use crate::wire::control::{
    AdminAnswer, AdminCommand, GivenCredential, HoldOrder, PrincipalOrder, TenantInfo,
};
use crate::wire::resolution::ResolveOrder;

/// The longest line of a request.
const LINE_BYTES_MAX: u64 = 64 << 10;
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// What an administrator may ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminRequest {
    /// A new tenant, with keys of its own.
    TenantAdd {
        /// Its name.
        name: String,
        /// Test or live.
        mode: Mode,
    },
    /// All tenants.
    TenantList,
    /// Switches a tenant off.
    TenantDisable {
        /// Its name.
        name: String,
    },
    /// A new principal; the answer shows its credential once.
    PrincipalAdd(PrincipalOrder),
    /// All principals.
    PrincipalList,
    /// Switches a principal off.
    PrincipalDisable {
        /// Name or id.
        principal: String,
    },
    /// A new credential for a principal.
    PrincipalRotate {
        /// Name or id.
        principal: String,
        /// For how long the old one stays good, in seconds.
        overlap_seconds: u64,
    },
    /// Read configuration, certificates, connectors and credentials again.
    Reload,
    /// The processes that run: role and process id.
    Processes,
    /// The public key that verifies the audit log.
    PublicKey,
    /// What retention did when it looked last, and what is overdue.
    Retention,
    /// A verb on keys.
    Key(KeyRequest),
    /// A verb on persons.
    Person(PersonRequest),
    /// A new principal with a credential that who asks has made: the vault gets its SHA-256 alone, so that it can be approved later.
    PrincipalGrant {
        /// What it shall be.
        order: PrincipalOrder,
        /// SHA-256 of the credential, hex.
        credential_sha256: String,
    },
    /// The same for a new credential of a principal.
    PrincipalRegrant {
        /// Name or id.
        principal: String,
        /// For how long the old one stays good, in seconds.
        overlap_seconds: u64,
        /// SHA-256 of the credential, hex.
        credential_sha256: String,
    },
    /// What the configuration on disk widens, a line each, after its SHA-256.
    ReloadPreview,
    /// Take the configuration on disk, though it widens what was approved.
    ReloadTo {
        /// SHA-256 of what it leads to, hex.
        sha256: String,
        /// What it widens.
        widens: Vec<String>,
    },
    /// Settle a charge by hand.
    ChargeResolve(ResolveOrder),
    /// Release a legal hold.
    HoldRelease(HoldOrder),
    /// The environment id, hex: what a person signs is for this installation alone.
    Environment,
    /// What persons asked for, and another person's word on it.
    Approvals(ApprovalRequest),
    /// Any of these, signed by a person.
    Signed {
        /// The canonical text.
        text: String,
        /// The signature.
        signed: Signed,
    },
    /// A verb on ceremonies and shares.
    Custody(CustodyRequest),
}

/// A request with its asker and where the answer goes.
pub(super) struct Asked {
    request: AdminRequest,
    actor: String,
    reply: std::sync::mpsc::SyncSender<AdminAnswer>,
}

/// Removes the socket's file when the supervisor ends.
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Opens the socket. The caller holds the installation's lock, so a file that is there is left from before.
pub(super) fn listen(path: &Path) -> Result<(mpsc::Receiver<Asked>, SocketFile), String> {
    let failed =
        |error: std::io::Error| format!("admin.socket {} cannot be made: {}", path.display(), error.kind());
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let (ask, asked) = mpsc::channel(16);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let ask = ask.clone();
            std::thread::spawn(move || converse(&stream, &ask));
        }
    });
    Ok((asked, SocketFile(path.to_owned())))
}

fn converse(stream: &UnixStream, ask: &mpsc::Sender<Asked>) {
    let uid = rustix::net::sockopt::socket_peercred(stream).map_or(u32::MAX, |peer| peer.uid.as_raw());
    let _ = stream.set_read_timeout(Some(ANSWER_WITHIN));
    let mut line = String::new();
    if BufReader::new(stream).take(LINE_BYTES_MAX).read_line(&mut line).is_err() {
        return;
    }
    let answer = match serde_json::from_str(&line) {
        Ok(request) => {
            let (reply, answer) = std::sync::mpsc::sync_channel(1);
            let asked = Asked { request, actor: format!("uid:{uid}"), reply };
            let sent = ask.blocking_send(asked).is_ok();
            let late = AdminAnswer::Refused("the vault did not answer in time; look at its log".to_owned());
            if sent { answer.recv_timeout(ANSWER_WITHIN).unwrap_or(late) } else { late }
        }
        Err(_) => AdminAnswer::Refused("this is no request of this version of cardvault".to_owned()),
    };
    let mut bytes = serde_json::to_vec(&answer).unwrap_or_default();
    bytes.push(b'\n');
    let _ = (&*stream).write_all(&bytes);
}

/// Answers a request, or hands it to the edge and notes who waits.
pub(super) async fn answer(vault: &mut Vault, asked: Asked, waiting: &mut Waiting) {
    let actor = asked.actor.clone();
    let command = match carry_out(vault, &asked.request, &actor).await {
        Ok(Next::Answer(answer)) => {
            let _ = asked.reply.send(answer);
            return;
        }
        Ok(Next::Edge(command)) => command,
        Err(sentence) => {
            let _ = asked.reply.send(AdminAnswer::Refused(sentence));
            return;
        }
    };
    let number = waiting.keys().max().copied().unwrap_or(0) + 1;
    match vault.command_edge(number, command) {
        Ok(()) => {
            waiting.insert(number, asked);
        }
        Err(sentence) => {
            let _ = asked.reply.send(AdminAnswer::Refused(sentence));
        }
    }
}

/// Hands over the answers that the edge has given.
pub(super) fn deliver(vault: &mut Vault, waiting: &mut Waiting) {
    for (number, answer) in vault.answers.drain(..) {
        if let Some(asked) = waiting.remove(&number) {
            let _ = asked.reply.send(answer);
        }
    }
}

/// What comes next of a request.
pub(super) enum Next {
    /// It is done.
    Answer(AdminAnswer),
    /// The edge has to.
    Edge(AdminCommand),
}

/// Takes a request: `through` is the local user who holds the socket.
async fn carry_out(vault: &mut Vault, request: &AdminRequest, through: &str) -> Result<Next, String> {
    if let AdminRequest::Signed { text, signed } = request {
        return vault.take_signed(text, signed, through).await;
    }
    if let AdminRequest::Approvals(request) = request {
        return vault.answer_approvals(request, through).await.map(Next::Answer);
    }
    check_open(vault, request)?;
    vault.check_unsigned(request).await?;
    perform(vault, request, through, None).await
}

/// Does what is asked for, which `actor` may. With the id of a signed request it is done once, however often it is told.
pub(super) async fn perform(
    vault: &mut Vault,
    request: &AdminRequest,
    actor: &str,
    id: Option<ApprovalId>,
) -> Result<Next, String> {
    let actor = actor.to_owned();
    let done = |sentence: &str| Ok(Next::Answer(AdminAnswer::Done(sentence.to_owned())));
    check_open(vault, request)?;
    match request {
        AdminRequest::TenantAdd { name, mode } => {
            check_name(name)?;
            // The next start would refuse a tenant without one.
            super::settings::retention(&vault.config, [name.as_str()])?;
            let tenant =
                vault.key_store.add_tenant(name, *mode, SystemClock.now()).map_err(|e| e.to_string())?;
            let tenant = tenant.ok_or("a tenant of this name is there already; choose another name")?;
            tell_tenants(vault, tenant, actor).await
        }
        AdminRequest::TenantDisable { name } => {
            let tenant = vault.key_store.disable_tenant(name).map_err(|e| e.to_string())?;
            tell_tenants(vault, tenant.ok_or("there is no tenant of this name")?, actor).await
        }
        AdminRequest::TenantList => Ok(Next::Answer(tenant_table(vault.key_store.tenants()))),
        AdminRequest::PrincipalList => Ok(Next::Edge(AdminCommand::ListPrincipals)),
        AdminRequest::PrincipalAdd(order) => add_principal(order, None, actor),
        AdminRequest::PrincipalGrant { order, credential_sha256 } => {
            add_principal(order, Some(given(credential_sha256, id)?), actor)
        }
        AdminRequest::PrincipalDisable { principal } => {
            Ok(Next::Edge(AdminCommand::DisablePrincipal { principal: principal.clone(), actor }))
        }
        AdminRequest::PrincipalRotate { principal, overlap_seconds } => {
            Ok(rotate_principal(principal, *overlap_seconds, None, actor))
        }
        AdminRequest::PrincipalRegrant { principal, overlap_seconds, credential_sha256 } => {
            let given = given(credential_sha256, id)?;
            Ok(rotate_principal(principal, *overlap_seconds, Some(given), actor))
        }
        AdminRequest::Reload => reload(vault, None, actor).await,
        AdminRequest::ReloadTo { sha256, widens } => reload(vault, Some((sha256, widens)), actor).await,
        AdminRequest::ChargeResolve(order) => resolve_charge(order, id, actor),
        AdminRequest::HoldRelease(order) => {
            Ok(Next::Edge(AdminCommand::ReleaseHold { order: order.clone(), actor }))
        }
        AdminRequest::ReloadPreview => vault.preview_reload().map(Next::Answer),
        AdminRequest::Environment => done(&data_encoding::HEXLOWER.encode(&vault.key_store.environment())),
        AdminRequest::Processes => Ok(Next::Answer(process_table(vault))),
        AdminRequest::Retention => Ok(Next::Edge(AdminCommand::RetentionReport)),
        AdminRequest::Key(KeyRequest::Progress) => Ok(Next::Edge(AdminCommand::ResealProgress)),
        AdminRequest::Key(request) => vault.answer_key(request, &actor, id).await.map(Next::Answer),
        AdminRequest::Custody(request) => vault.answer_custody(request, &actor).await.map(Next::Answer),
        AdminRequest::Person(request) => vault.answer_person(request, &actor, id).await.map(Next::Answer),
        AdminRequest::Signed { .. } | AdminRequest::Approvals(_) => {
            Err("a signed request holds one verb".to_owned())
        }
        AdminRequest::PublicKey => done(&verifier_key(vault)?),
    }
}

async fn reload(
    vault: &mut Vault,
    approved: Option<(&str, &[String])>,
    actor: String,
) -> Result<Next, String> {
    vault.reload(approved).await?;
    if vault.sealed.is_some() {
        let sentence = "the configuration was read again; the vault opens with it";
        return Ok(Next::Answer(AdminAnswer::Done(sentence.to_owned())));
    }
    // The edge answers in order: when it says this, it goes by what was read.
    Ok(Next::Edge(AdminCommand::Reloaded { actor }))
}

/// Of a vault that is sealed only this can be asked.
pub(super) fn check_open(vault: &Vault, request: &AdminRequest) -> Result<(), String> {
    let needs_no_kek = matches!(
        request,
        AdminRequest::Processes
            | AdminRequest::TenantList
            | AdminRequest::Environment
            | AdminRequest::Reload
            | AdminRequest::ReloadTo { .. }
            | AdminRequest::ReloadPreview
            | AdminRequest::Person(_)
            | AdminRequest::Custody(_)
    );
    match &vault.sealed {
        Some(sealed) if !needs_no_kek => Err(format!("the vault is sealed: {}", sealed.sentence)),
        Some(_) | None => Ok(()),
    }
}

fn process_table(vault: &Vault) -> AdminAnswer {
    let supervisor = ("supervisor", std::process::id());
    let all = std::iter::once(supervisor).chain(vault.processes());
    AdminAnswer::Table(all.map(|(role, pid)| vec![role.to_owned(), pid.to_string()]).collect())
}

fn verifier_key(vault: &Vault) -> Result<String, String> {
    let key = vault.public_key.ok_or("there is no checkpoint key yet")?;
    let origin = format!("{}/{}", vault.config.installation, vault.config.node);
    let key = crate::attest::note::VerifierKey::new(&origin, key).ok_or("the checkpoint key is none")?;
    Ok(key.to_string())
}

fn add_principal(
    order: &PrincipalOrder,
    given: Option<GivenCredential>,
    actor: String,
) -> Result<Next, String> {
    check_name(&order.name)?;
    Ok(Next::Edge(AdminCommand::AddPrincipal { order: Box::new(order.clone()), given, actor }))
}

fn resolve_charge(order: &ResolveOrder, id: Option<ApprovalId>, actor: String) -> Result<Next, String> {
    let id = match id {
        Some(id) => id,
        None => ApprovalId::make(SystemClock.now()).map_err(|error| error.to_string())?,
    };
    Ok(Next::Edge(AdminCommand::ResolveCharge { order: Box::new(order.clone()), id, actor }))
}

fn rotate_principal(
    principal: &str,
    overlap_seconds: u64,
    given: Option<GivenCredential>,
    actor: String,
) -> Next {
    let principal = principal.to_owned();
    Next::Edge(AdminCommand::RotatePrincipal { principal, overlap_seconds, given, actor })
}

/// A credential that who asked has made: a principal's by the id of the request, so that it is made once.
fn given(credential_sha256: &str, id: Option<ApprovalId>) -> Result<GivenCredential, String> {
    let hash = data_encoding::HEXLOWER.decode(credential_sha256.as_bytes()).ok();
    let hash =
        hash.and_then(|hash| hash.try_into().ok()).ok_or("give the SHA-256 of a credential, in hex")?;
    let id = id.ok_or("who makes the credential signs the request: add --as KEYFILE")?;
    Ok(GivenCredential { principal: PrincipalId(id.0), hash })
}

async fn tell_tenants(vault: &mut Vault, tenant: TenantInfo, actor: String) -> Result<Next, String> {
    serve::tend_keys(vault).await;
    vault.tell_tenants()?;
    Ok(Next::Edge(AdminCommand::PutTenant { tenant, actor }))
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = (1..=40).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if fits {
        Ok(())
    } else {
        Err("a name has 1 to 40 letters, digits, dashes, dots or underscores".to_owned())
    }
}

fn tenant_table(tenants: &[TenantInfo]) -> AdminAnswer {
    let head = ["id", "name", "mode", "status", "created"].map(str::to_owned).to_vec();
    let row = |tenant: &TenantInfo| {
        let status = if tenant.disabled { "disabled" } else { "active" };
        vec![
            tenant.id.to_string(),
            tenant.name.clone(),
            tenant.mode.name().to_owned(),
            status.to_owned(),
            tenant.created_at.to_string(),
        ]
    };
    AdminAnswer::Table(std::iter::once(head).chain(tenants.iter().map(row)).collect())
}

/// Asks the vault that serves this installation; where none does, takes the lock and starts one that serves nobody, for
/// just this command.
pub fn ask(config_path: &Path, requests: &[AdminRequest]) -> Result<Vec<AdminAnswer>, String> {
    let config = Config::load(config_path).map_err(|error| error.to_string())?;
    if let Some(lock) = Lock::take(&config)? {
        return ask_alone(&config, config_path, requests, &lock);
    }
    requests.iter().map(|request| ask_running(&config, request)).collect()
}

fn ask_running(config: &Config, request: &AdminRequest) -> Result<AdminAnswer, String> {
    let path = &config.admin.socket;
    let failed = |error: std::io::Error| {
        format!("the vault's administration socket {} does not answer: {}", path.display(), error.kind())
    };
    let mut stream = UnixStream::connect(path).map_err(failed)?;
    let mut line = serde_json::to_vec(request).map_err(|_| "the request cannot be written".to_owned())?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(failed)?;
    serde_json::from_str(&answer)
        .map_err(|_| "the vault's answer is of another version of cardvault".to_owned())
}

fn ask_alone(
    config: &Config,
    config_path: &Path,
    requests: &[AdminRequest],
    _: &Lock,
) -> Result<Vec<AdminAnswer>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime could be made: {}", error.kind()))?;
    runtime.block_on(async {
        serve::harden_supervisor()?;
        super::setup::check_reach(config)?;
        let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = (serve::bind(nowhere, "listen")?, serve::bind(nowhere, "listen")?);
        let mut vault = Vault::new(config.clone(), config_path.to_owned(), listeners, false)?;
        vault.open().await?;
        let actor = format!("uid:{}", rustix::process::getuid().as_raw());
        vault.tend_approvals().await?;
        let mut answers = Vec::new();
        for (number, request) in (1..).zip(requests) {
            let answer = match carry_out(&mut vault, request, &actor).await {
                Ok(Next::Answer(answer)) => answer,
                Ok(Next::Edge(command)) => match vault.command_edge(number, command) {
                    Ok(()) => await_edge(&mut vault, number).await?,
                    Err(sentence) => AdminAnswer::Refused(sentence),
                },
                Err(sentence) => AdminAnswer::Refused(sentence),
            };
            answers.push(answer);
        }
        vault.close().await;
        Ok(answers)
    })
}

async fn await_edge(vault: &mut Vault, number: u64) -> Result<AdminAnswer, String> {
    loop {
        if let Some(at) = vault.answers.iter().position(|(answered, _)| *answered == number) {
            return Ok(vault.answers.swap_remove(at).1);
        }
        let word = tokio::time::timeout(ANSWER_WITHIN, vault.next_word())
            .await
            .map_err(|_| "the edge did not answer in time".to_owned())?;
        if let Err(role) = word.map_or(Ok(()), |word| vault.heed(word)) {
            return Err(format!("the {} ended", role.name()));
        }
    }
}
