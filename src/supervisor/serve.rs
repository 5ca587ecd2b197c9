//! `cardvault serve`: the supervisor's loop.

use std::collections::HashMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FlockOperation;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::admin::{self, Asked};
use super::confine::Role;
use super::kek::Sealed;
use super::vault::Vault;
use crate::config::Config;
use crate::wire::control::AdminCommand;
use crate::wire::unsealer::ProviderFault;

/// How often keys are looked over: a new month needs new data keys.
const KEYS_EVERY: Duration = Duration::from_secs(600);
/// How often the root provider is tried while no keeper has to begin: far more often than any token of its expires.
const ROOT_EVERY: Duration = Duration::from_secs(86_400);
/// A role that ends again within this time waits longer before it is started again.
const QUIET: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Between two tries to obtain the KEK.
const UNSEAL_PAUSE_MIN: Duration = Duration::from_millis(500);
const UNSEAL_PAUSE_MAX: Duration = Duration::from_secs(20);

/// Holds the installation's lock: one supervisor, or one command that changes things, at a time.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock lives as long as the file is open")] File);

impl Lock {
    /// Takes the lock; `None` if another process holds it.
    pub fn take(config: &Config) -> Result<Option<Self>, String> {
        let path = config.keys.key_store.with_extension("lock");
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| format!("{} cannot be opened: {}", path.display(), error.kind()))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(format!("{} cannot be locked: {error}", path.display())),
        }
    }
}

/// Serves until SIGTERM or SIGINT. `port_file`, if given, gets the API's address once it is ready.
pub async fn serve(config_path: &Path, port_file: Option<&Path>) -> Result<(), String> {
    let config = Config::load(config_path).map_err(|error| error.to_string())?;
    let _lock = Lock::take(&config)?.ok_or(
        "another cardvault serves this installation, or a command is changing it; wait for it to end",
    )?;
    harden_supervisor()?;
    super::setup::check_reach(&config)?;
    let api = bind(config.listen.api, "listen.api")?;
    let metrics = bind(config.listen.metrics, "listen.metrics")?;
    let addresses = [&api, &metrics]
        .map(|listener| listener.local_addr().map_or_else(|_| String::new(), |a| a.to_string()));
    let (asked, _socket) = admin::listen(&config.admin.socket)?;
    let mut vault = Vault::new(config, config_path.to_owned(), (api, metrics), true)?;
    let mut desk = Desk::new(asked)?;
    let mut served = Served { addresses, port_file, said: false, opened: false };
    while open(&mut vault, &mut desk, &mut served).await? {
        tracing::info!(address = %served.addresses[0], "ready");
        if !vault.config.two_person() {
            tracing::warn!(
                "the two-person rule is off: this is development, and admin.two_person is not set"
            );
        }
        if !serve_opened(&mut vault, &mut desk).await {
            break;
        }
        tracing::error!("there is no KEK for another keeper: nothing is served until there is one");
        vault.close().await;
    }
    vault.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// What comes from outside: administrators' questions and signals.
struct Desk {
    asked: mpsc::Receiver<Asked>,
    waiting: Waiting,
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Desk {
    fn new(asked: mpsc::Receiver<Asked>) -> Result<Self, String> {
        let failed = |_| "signals cannot be received".to_owned();
        Ok(Self {
            asked,
            waiting: HashMap::new(),
            hangup: signal(SignalKind::hangup()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }
}

/// Where it is served, and what was said of that.
struct Served<'a> {
    addresses: [String; 2],
    port_file: Option<&'a Path>,
    said: bool,
    /// Whether it was open before.
    opened: bool,
}

impl Served<'_> {
    /// Writes the addresses, once something answers there.
    fn say(&mut self) -> Result<(), String> {
        match self.port_file.filter(|_| !std::mem::replace(&mut self.said, true)) {
            None => Ok(()),
            Some(path) => std::fs::write(path, self.addresses.join("\n"))
                .map_err(|e| format!("the port file cannot be written: {}", e.kind())),
        }
    }
}

/// Opens the vault; while there is no KEK it says why, and tries again. `false` when it is told to stop meanwhile.
async fn open(vault: &mut Vault, desk: &mut Desk, served: &mut Served<'_>) -> Result<bool, String> {
    let (mut pause, mut said) = (UNSEAL_PAUSE_MIN, None);
    loop {
        let opened = vault.open().await;
        let Err(sentence) = opened else {
            served.opened = true;
            return served.say().map(|()| true);
        };
        // Before it was ever open, what is no matter of the KEK is for the operator to set right.
        if vault.sealed.is_none() {
            if !served.opened {
                return Err(sentence);
            }
            vault.close().await;
            vault.sealed = Some(Sealed { fault: ProviderFault::Unavailable, sentence: sentence.clone() });
        }
        if said.as_ref() != Some(&sentence) {
            tracing::error!(reason = %sentence, "the vault is sealed");
            said = Some(sentence);
        }
        vault.expire_gathering();
        vault.say_sealed().await?;
        served.say()?;
        if !await_kek(vault, desk, pause).await {
            return Ok(false);
        }
        pause = (pause * 2).min(UNSEAL_PAUSE_MAX);
    }
}

/// Waits until trying again makes sense. `false` when it is told to stop.
async fn await_kek(vault: &mut Vault, desk: &mut Desk, pause: Duration) -> bool {
    let again = tokio::time::sleep(pause);
    tokio::pin!(again);
    loop {
        tokio::select! {
            () = &mut again => return true,
            word = vault.next_word() => {
                let Some(word) = word else { return false };
                if vault.heed(word) == Err(Role::Edge)
                    && let Err(sentence) = vault.say_sealed().await
                {
                    tracing::error!(reason = %sentence, "the edge could not be started again");
                }
            }
            question = desk.asked.recv() => match question {
                Some(question) => {
                    admin::answer(vault, question, &mut desk.waiting).await;
                    if vault.has_kek_at_hand() || vault.is_approved_meanwhile() {
                        return true;
                    }
                }
                None => return false,
            },
            _ = desk.hangup.recv() => tracing::error!("the vault is sealed: nothing was reloaded"),
            _ = desk.terminate.recv() => return false,
            _ = desk.interrupt.recv() => return false,
        }
    }
}

/// Serves until it is told to stop (`false`), or there is no KEK for another keeper (`true`).
async fn serve_opened(vault: &mut Vault, desk: &mut Desk) -> bool {
    let mut keys = tokio::time::interval(KEYS_EVERY);
    let mut root = tokio::time::interval_at(Instant::now() + ROOT_EVERY, ROOT_EVERY);
    let mut restarts = Restarts::default();
    loop {
        tokio::select! {
            word = vault.next_word() => {
                let Some(word) = word else { return false };
                if let Err(role) = vault.heed(word) {
                    restarts.pause(role).await;
                    start_again(vault, role).await;
                    // What this role left unanswered.
                    tend_approvals(vault).await;
                }
                vault.mend();
                take_due_steps(vault).await;
            }
            question = desk.asked.recv() => match question {
                Some(question) => admin::answer(vault, question, &mut desk.waiting).await,
                None => return false,
            },
            _ = keys.tick() => {
                vault.expire_gathering();
                tend_keys(vault).await;
                tend_approvals(vault).await;
            }
            _ = root.tick() => vault.try_root().await,
            _ = desk.hangup.recv() => {
                reload(vault, "signal").await;
                vault.try_root().await;
            }
            _ = desk.terminate.recv() => return false,
            _ = desk.interrupt.recv() => return false,
        }
        if vault.sealed.is_some() {
            // Whoever waits for the edge that is gone is told so at once.
            desk.waiting.clear();
            return true;
        }
        admin::deliver(vault, &mut desk.waiting);
    }
}

/// Reads everything again that can be; a fault leaves what runs as it is.
pub(super) async fn reload(vault: &mut Vault, actor: &str) {
    match vault.reload(None).await {
        Ok(()) => {
            tracing::info!("configuration, certificates, connectors and credentials were read again");
            let _ = vault.command_edge(0, AdminCommand::Reloaded { actor: actor.to_owned() });
        }
        Err(sentence) => tracing::error!(reason = %sentence, "nothing was reloaded"),
    }
}

/// Makes what is missing, and has the log say so.
pub(super) async fn tend_keys(vault: &mut Vault) {
    for tended in [vault.tend_keys().await, vault.tell_of_keys().await, vault.tell_of_people().await] {
        if let Err(sentence) = tended {
            tracing::error!(reason = %sentence, "keys could not be looked after");
        }
    }
}

/// Takes the steps towards the end of data keys that the edge has asked for; what fails it asks for again.
async fn take_due_steps(vault: &mut Vault) {
    if vault.due.is_empty() {
        return;
    }
    for taken in [vault.take_due_steps().await, vault.tell_of_keys().await] {
        if let Err(sentence) = taken {
            tracing::error!(reason = %sentence, "keys that may have sealed what is erased could not be looked after");
        }
    }
}

/// Voids requests that nobody approved in time, and carries out what was approved before.
async fn tend_approvals(vault: &mut Vault) {
    if let Err(sentence) = vault.tend_approvals().await {
        tracing::error!(reason = %sentence, "requests could not be looked after");
    }
}

async fn start_again(vault: &mut Vault, role: Role) {
    tracing::warn!(role = role.name(), "a role ended and is started again");
    let mut pause = Duration::from_millis(100);
    while let Err(sentence) = vault.start_again(role).await {
        // Without a KEK nothing can be started: others wait for it.
        if vault.sealed.is_some() {
            return;
        }
        tracing::error!(role = role.name(), reason = %sentence, "a role could not be started again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// How often each role has ended lately.
#[derive(Default)]
struct Restarts(HashMap<Role, (Instant, u32)>);

impl Restarts {
    /// Waits before a role is started again, longer each time it ends soon after.
    async fn pause(&mut self, role: Role) {
        let now = Instant::now();
        let (last, count) = self.0.entry(role).or_insert((now, 0));
        *count = if now.duration_since(*last) > QUIET { 0 } else { *count + 1 };
        *last = now;
        if *count > 5 {
            tokio::time::sleep((Duration::from_millis(50) * *count).min(PAUSE_MAX)).await;
        }
    }
}

/// The supervisor has credentials and wrapped keys pass through it: no core file, no ptrace, no new privileges.
pub(super) fn harden_supervisor() -> Result<(), String> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit};
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .and_then(|()| rustix::thread::set_no_new_privs(true))
        .and_then(|()| rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|error| format!("the supervisor could not give up core files and ptrace: {error}"))
}

pub(super) fn bind(address: std::net::SocketAddr, setting: &str) -> Result<TcpListener, String> {
    let listener = TcpListener::bind(address)
        .map_err(|error| format!("{setting}: the address cannot be listened on: {}", error.kind()))?;
    listener.set_nonblocking(true).map_err(|error| format!("{setting}: {}", error.kind()))?;
    Ok(listener)
}

/// A question from an administrator, and the number under which the edge answers it.
pub(super) type Waiting = HashMap<u64, Asked>;
