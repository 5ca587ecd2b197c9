//! The running roles and the pairs between them: starting, handing over fresh pairs, starting again.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;

use super::approvals::Approvals;
use super::ceremony::CustodyDesk;
use super::children::{Running, Said, Word};
use super::confine::{Confinement, Role};
use super::inventory::{self, Policy};
use super::kek::Sealed;
use super::key_store::KeyStore;
use super::line::Line;
use super::people::People;
use super::reach::Reach;
use super::roots::PinsSeen;
use super::serve;
use super::settings::{self, Loaded};
use crate::card::range::RangeRecord;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Environment};
use crate::wire::control::{
    AdminAnswer, AdminCommand, CourierSettings, EdgeSettings, FromCourierControl, FromEdge,
    FromForwarderControl, FromKeeperControl, KeeperSettings, KeyStep, ToCourierControl, ToEdge,
    ToForwarderControl, ToKeeperControl,
};
use crate::wire::pair;
use crate::wire::unsealer::ProviderFault;

/// The records of a message: well under its limit.
const RANGES_PART_BYTES: usize = RangeRecord::BYTES << 16;
/// Commands of administrators are numbered from 1, the supervisor's own from here.
const OWN_COMMANDS: u64 = 1 << 63;
/// How long a role may take to say that it is ready.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(30);

/// The vault's processes, as the supervisor holds them.
pub(super) struct Vault {
    pub(super) config: Config,
    pub(super) config_path: PathBuf,
    pub(super) key_store: KeyStore,
    pub(super) people: People,
    pub(super) approvals: Approvals,
    pub(super) policy: Policy,
    destinations: Vec<Loaded>,
    /// Records of [`RangeRecord`].
    ranges: Vec<u8>,
    courier_settings: CourierSettings,
    pub(super) listeners: (TcpListener, TcpListener),
    words: mpsc::UnboundedReceiver<Word>,
    speak: mpsc::UnboundedSender<Word>,
    numbers: u64,
    pub(super) edge: Option<Running>,
    /// Whether the edge is one that says why nothing is served.
    pub(super) edge_is_sealed: bool,
    pub(super) keeper: Option<Running>,
    forwarder: Option<Running>,
    courier: Option<Running>,
    /// The one that has the KEK at hand, for as long as it is needed.
    pub(super) unsealer: Option<Running>,
    /// Which PIN a token was given, and said no to.
    pub(super) pins: PinsSeen,
    /// What is under way with custodians.
    pub(super) custody: CustodyDesk,
    /// Why there is no KEK, while there is none: nothing is served then.
    pub(super) sealed: Option<Sealed>,
    /// The public half of the checkpoint key, once the keeper has said it.
    pub(super) public_key: Option<[u8; 32]>,
    /// Answers to administrators' commands that arrived while something else was awaited.
    pub(super) answers: Vec<(u64, AdminAnswer)>,
    /// Between edge and keeper, as the edge tells of it.
    keeper_line: Line,
    /// Between keeper and forwarder, as the keeper tells of it.
    forwarder_line: Line,
    /// Between edge and courier, as the edge tells of it.
    courier_line: Line,
    /// Whether the edge accepts connections; commands without a running vault need none.
    accepts: bool,
    /// Commands that the supervisor has given the edge by itself.
    own_commands: u64,
    /// Steps towards the end of data keys that the edge has asked for.
    pub(super) due: Vec<(u32, KeyStep)>,
    /// Whether keys changed, and the keeper may not have been handed them as they stand.
    pub(super) owes_keys: bool,
    /// Counts what a role was told and did not answer: whether it was done is not known.
    pub(super) unanswered: u64,
}

impl Vault {
    /// Reads everything; nothing is started yet.
    pub(super) fn new(
        config: Config,
        config_path: PathBuf,
        listeners: (TcpListener, TcpListener),
        accepts: bool,
    ) -> Result<Self, String> {
        let policy = inventory::load(config.keys.inventory.as_deref())?;
        let key_store =
            KeyStore::open(&config.keys.key_store, &config.installation).map_err(|e| e.to_string())?;
        let people =
            People::open(&config.keys.key_store, key_store.environment()).map_err(|e| e.to_string())?;
        let approvals =
            Approvals::open(&config.keys.key_store, key_store.environment()).map_err(|e| e.to_string())?;
        settings::retention(&config, key_store.tenants().iter().map(|tenant| tenant.name.as_str()))?;
        let is_file =
            key_store.kek().is_some_and(|kek| matches!(kek.provider.as_deref(), Some("file") | None));
        if is_file && config.environment == Environment::Production {
            return Err("the KEK is wrapped by the file of root keys, which production refuses: in development, have another provider \
                        take it over with `cardvault keys move-root` or `cardvault keys ceremony`, then `cardvault keys rotate kek`"
                .to_owned());
        }
        let destinations = settings::load_destinations(&config)?;
        let ranges = settings::load_ranges(&config)?;
        let courier_settings = settings::courier(&config)?;
        let (speak, words) = mpsc::unbounded_channel();
        Ok(Self {
            config,
            config_path,
            key_store,
            people,
            approvals,
            policy,
            destinations,
            ranges,
            courier_settings,
            listeners,
            words,
            speak,
            numbers: 0,
            edge: None,
            edge_is_sealed: false,
            keeper: None,
            forwarder: None,
            courier: None,
            unsealer: None,
            custody: CustodyDesk::default(),
            pins: PinsSeen::default(),
            sealed: None,
            public_key: None,
            answers: Vec::new(),
            keeper_line: Line::default(),
            forwarder_line: Line::default(),
            courier_line: Line::default(),
            accepts,
            own_commands: 0,
            due: Vec::new(),
            owes_keys: false,
            unanswered: 0,
        })
    }

    /// Starts keeper, forwarder, courier and edge, in this order; answers when all are ready. Where there is no KEK, `sealed` says why.
    pub(super) async fn open(&mut self) -> Result<(), String> {
        if self.accepts {
            let reach = self.reach();
            // Like a KEK that is not there: people come over the socket, and nothing is served meanwhile.
            self.check_first_reach(&reach).inspect_err(|sentence| {
                let fault = ProviderFault::Unapproved;
                self.sealed = Some(Sealed { fault, sentence: sentence.clone() });
            })?;
        }
        self.start_keeper().await?;
        // Nothing works without these; the others wait until the edge has looked whether this is the newest key store.
        if self.public_key.is_none() {
            self.tend_keys().await?;
        }
        self.start_forwarder().await?;
        if self.needs_courier() {
            self.start_courier().await?;
        }
        self.end_sealed_edge().await;
        self.start_edge().await?;
        serve::tend_keys(self).await;
        // A keeper that serves one command never answers a fingerprint.
        if self.accepts {
            self.admit_keeper().await?;
        }
        Ok(())
    }

    /// The next word of a child that is still the one we started.
    pub(super) async fn next_word(&mut self) -> Option<Word> {
        loop {
            let word = self.words.recv().await?;
            if self.running(word.role).is_some_and(|running| running.number == word.number) {
                return Some(word);
            }
        }
    }

    fn running(&self, role: Role) -> Option<&Running> {
        match role {
            Role::Edge => &self.edge,
            Role::Keeper => &self.keeper,
            Role::Forwarder => &self.forwarder,
            Role::Courier => &self.courier,
            Role::Unsealer => &self.unsealer,
        }
        .as_ref()
    }

    /// Takes care of a word that nobody waits for; `Err` says which role has to be started again.
    pub(super) fn heed(&mut self, word: Word) -> Result<(), Role> {
        match word.said {
            // It ends when it has done its work; whoever waits for it finds that it did.
            Said::Gone if word.role == Role::Unsealer => {
                (self.unsealer, self.custody.gathering) = (None, None);
            }
            Said::Gone => return Err(word.role),
            Said::Keeper(FromKeeperControl::KeepCheckpoint { size, root }) => {
                self.keep_checkpoint(size, &root)
            }
            Said::Edge(FromEdge::KeeperLineEnded(pairs)) => self.keeper_line.end(pairs),
            Said::Edge(FromEdge::CourierLineEnded(pairs)) => self.courier_line.end(pairs),
            Said::Keeper(FromKeeperControl::ForwarderLineEnded(pairs)) => self.forwarder_line.end(pairs),
            Said::Edge(FromEdge::KeysEmptied(keys)) => self.note_emptied(&keys),
            Said::Edge(FromEdge::KeysDue(steps)) => self.due = steps,
            Said::Edge(FromEdge::Admin(number, answer)) => self.answers.push((number, answer)),
            Said::Keeper(FromKeeperControl::Ready { public_key, .. }) => self.public_key = public_key,
            Said::Keeper(_) | Said::Edge(_) | Said::Forwarder(_) | Said::Courier(_) | Said::Unsealer(_) => {
                if let Some(reason) = failure(&word.said) {
                    tracing::error!(role = word.role.name(), reason, "a role could not do what it was told");
                }
            }
        }
        Ok(())
    }

    /// Starts a role again that has ended, and hands the others fresh pairs to it.
    pub(super) async fn start_again(&mut self, role: Role) -> Result<(), String> {
        match role {
            Role::Edge => {
                self.edge = None;
                self.start_edge().await
            }
            Role::Unsealer => Ok(()),
            Role::Forwarder => {
                self.forwarder = None;
                self.start_forwarder().await
            }
            Role::Courier => {
                self.courier = None;
                self.start_courier().await?;
                self.pair_edge_with_courier()
            }
            Role::Keeper => {
                self.keeper = None;
                self.start_keeper().await?;
                self.admit_keeper().await?;
                self.pair_keeper_with_forwarder()?;
                self.pair_keeper_with_edge()
            }
        }
    }

    /// Makes each line again that ended though both of its ends live; one that ended with a role is made with the next.
    pub(super) fn mend(&mut self) {
        if self.keeper_line.take_end() {
            self.make_again(("edge", "keeper"), Role::Keeper, Self::pair_keeper_with_edge);
        }
        if self.forwarder_line.take_end() {
            self.make_again(("keeper", "forwarder"), Role::Forwarder, Self::pair_keeper_with_forwarder);
        }
        if self.courier_line.take_end() {
            self.make_again(("edge", "courier"), Role::Courier, Self::pair_edge_with_courier);
        }
    }

    /// Makes a line again of which one end said that it ended, unless the other one's process did.
    fn make_again(
        &mut self,
        (one, other): (&str, &str),
        role: Role,
        pair: fn(&mut Self) -> Result<(), String>,
    ) {
        let running = match role {
            Role::Edge => &mut self.edge,
            Role::Keeper => &mut self.keeper,
            Role::Forwarder => &mut self.forwarder,
            Role::Courier => &mut self.courier,
            Role::Unsealer => &mut self.unsealer,
        };
        if running.as_mut().is_none_or(Running::has_ended) {
            return;
        }
        tracing::warn!("the line between {one} and {other} ended and is made again");
        if let Err(reason) = pair(self) {
            tracing::error!(reason, "the line between {one} and {other} could not be made again");
        }
    }

    /// A number for a command that no administrator gave.
    pub(super) const fn number_own_command(&mut self) -> u64 {
        self.own_commands += 1;
        OWN_COMMANDS + self.own_commands
    }

    /// Sends a command to the edge; its answer comes as a word, by number.
    pub(super) fn command_edge(&self, number: u64, command: AdminCommand) -> Result<(), String> {
        // One that says why nothing is served has no store to ask.
        let edge = self.edge.as_ref().filter(|_| !self.edge_is_sealed).ok_or("the edge is not running")?;
        edge.tell(&ToEdge::Admin(number, command), &[]).map_err(|_| "the edge does not listen".to_owned())
    }

    /// What the configuration that runs leads to.
    fn reach(&self) -> Reach {
        Reach::of(&self.config, &self.policy, &self.destinations, &self.ranges)
    }

    /// What the configuration on disk would widen, after its digest.
    pub(super) fn preview_reload(&self) -> Result<AdminAnswer, String> {
        let config = Config::load(&self.config_path).map_err(|error| error.to_string())?;
        let destinations = settings::load_destinations(&config)?;
        let ranges = settings::load_ranges(&config)?;
        let policy = inventory::load(config.keys.inventory.as_deref())?;
        let reach = Reach::of(&config, &policy, &destinations, &ranges);
        let widens = if self.rules().two_person { reach.widens(self.approvals.reach()) } else { Vec::new() };
        Ok(AdminAnswer::Table(vec![vec![reach.sha256()], widens]))
    }

    /// Reads certificates, connectors, credentials and tenants again, and hands them on; nothing is dropped. What is wider than what two
    /// persons approved is taken only with the digest that they approved, and what they were told that it widens.
    pub(super) async fn reload(&mut self, approved: Option<(&str, &[String])>) -> Result<(), String> {
        let config = Config::load(&self.config_path).map_err(|error| error.to_string())?;
        let destinations = settings::load_destinations(&config)?;
        let ranges = settings::load_ranges(&config)?;
        let policy = inventory::load(config.keys.inventory.as_deref())?;
        let reach = Reach::of(&config, &policy, &destinations, &ranges);
        if let Some((sha256, widens)) = approved {
            if sha256 != reach.sha256() {
                return Err("the files are other than those that were approved; ask again".to_owned());
            }
            let is_kept = self.approvals.reach().is_some_and(|kept| kept.sha256() == sha256);
            if self.rules().two_person && !is_kept && widens != reach.widens(self.approvals.reach()) {
                return Err(
                    "the configuration widens other things than the request says; ask again".to_owned()
                );
            }
        }
        self.check_reach(&reach, approved.map(|(sha256, _)| sha256))?;
        let courier = settings::courier(&config)?;
        let tenants = self.key_store.tenants();
        settings::check_policies_stay(
            &self.config,
            &config,
            tenants.iter().map(|tenant| tenant.name.as_str()),
        )?;
        let mut edge = settings::edge_reload(&config, tenants, &destinations)?;
        // Whether two persons are needed is what it was at the start.
        edge.two_persons = self.rules().two_person;
        if self.sealed.is_some() {
            // Nothing runs that could be told: all of it is what the vault opens with, but for where it listens and what it is.
            (self.policy, self.destinations, self.ranges) = (policy, destinations, ranges);
            self.courier_settings = courier;
            let (environment, admin) = (self.config.environment, self.config.admin.clone());
            self.config = Config { environment, admin, ..config };
            return self.keep_reach(reach);
        }
        let new_ports = destinations.iter().flat_map(|new| &new.ports).any(|new| !self.ports().contains(new));
        // Only what can be reloaded is taken over; listeners, store and keys need a restart.
        self.config.destination = config.destination;
        self.config.forward = config.forward;
        self.config.connectors = config.connectors;
        self.config.exempt = config.exempt;
        self.config.ranges = config.ranges;
        self.config.webhooks = config.webhooks;
        self.config.erasure = config.erasure;
        self.config.retention = config.retention;
        self.config.listen.certificate = config.listen.certificate;
        self.config.listen.key = config.listen.key;
        self.destinations = destinations;
        self.tell_tenants()?;
        if self.ranges != ranges {
            self.ranges = ranges;
            self.tell_ranges().await?;
        }
        if new_ports {
            // A Landlock domain cannot be widened: a forwarder with other ports is another process.
            self.start_again(Role::Forwarder).await?;
        } else if let Some(forwarder) = &self.forwarder {
            let reload = ToForwarderControl::Reload(self.kept(false));
            forwarder.tell(&reload, &[]).map_err(|_| "the forwarder does not listen".to_owned())?;
        }
        self.reload_courier(courier).await?;
        if let Some(running) = &self.edge {
            let reload = ToEdge::Reload(Box::new(edge));
            running.tell(&reload, &[]).map_err(|_| "the edge does not listen".to_owned())?;
        }
        self.keep_reach(reach)
    }

    /// What is read counts as approved from now on: it was, or it is not wider.
    fn keep_reach(&mut self, reach: Reach) -> Result<(), String> {
        if self.rules().two_person {
            self.approvals.keep_reach(reach).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Whether what was not approved when the vault was opened last is by now.
    pub(super) fn is_approved_meanwhile(&self) -> bool {
        self.sealed.as_ref().is_some_and(|sealed| sealed.fault == ProviderFault::Unapproved)
            && self.check_reach(&self.reach(), None).is_ok()
    }

    /// A process that may reach nobody is none; and a command that needs no clients sends no webhooks.
    fn needs_courier(&self) -> bool {
        self.accepts && !self.courier_settings.hosts.is_empty()
    }

    async fn reload_courier(&mut self, settings: CourierSettings) -> Result<(), String> {
        let ports = |of: &CourierSettings| of.hosts.iter().map(|host| host.port).collect::<BTreeSet<_>>();
        let same_ports = ports(&settings).is_subset(&ports(&self.courier_settings));
        self.courier_settings = settings;
        match &self.courier {
            None if self.needs_courier() => self.start_again(Role::Courier).await,
            None => Ok(()),
            Some(courier) if same_ports => courier
                .tell(&ToCourierControl::Reload(self.courier_settings.clone()), &[])
                .map_err(|_| "the courier does not listen".to_owned()),
            Some(_) => self.start_again(Role::Courier).await,
        }
    }

    /// Tells the keeper tenants, exemptions and destinations as they were read last: a command on a tenant does not fail, half done,
    /// for a fault in a file that it is not about.
    pub(super) fn tell_tenants(&self) -> Result<(), String> {
        self.tell_keeper(&ToKeeperControl::Reload {
            tenants: self.key_store.tenants().to_vec(),
            exemptions: self.config.exempt.clone(),
            destinations: self.kept(true),
        })
    }

    /// Hands the keeper the table of ranges, in parts that fit a message, and waits until it goes by it.
    async fn tell_ranges(&mut self) -> Result<(), String> {
        let parts = self.ranges.len().div_ceil(RANGES_PART_BYTES).max(1);
        (0..parts).try_for_each(|part| {
            let rest = self.ranges.get(part * RANGES_PART_BYTES..).unwrap_or_default();
            let records = rest.get(..RANGES_PART_BYTES).unwrap_or(rest).to_vec();
            self.tell_keeper(&ToKeeperControl::Ranges { records, begins: part == 0, ends: part + 1 == parts })
        })?;
        self.await_keeper_ready().await
    }

    /// (role, process id) of what runs.
    pub(super) fn processes(&self) -> Vec<(&'static str, u32)> {
        [Role::Edge, Role::Keeper, Role::Forwarder, Role::Courier, Role::Unsealer]
            .into_iter()
            .filter_map(|role| self.running(role).map(|running| (role.name(), running.pid())))
            .collect()
    }

    /// Asks edge and forwarder to finish what is under way, waits for the edge to end, and ends all others.
    pub(super) async fn close(&mut self) {
        let grace = Duration::from_secs(self.config.limits.drain_seconds_max + 5);
        if let Some(edge) = &self.edge {
            let _ = edge.tell(&ToEdge::Stop, &[]);
        }
        self.await_edge_end(grace).await;
        if let Some(forwarder) = &self.forwarder {
            let _ = forwarder.tell(&ToForwarderControl::Stop, &[]);
        }
        (self.edge, self.edge_is_sealed) = (None, false);
        (self.keeper, self.forwarder, self.courier) = (None, None, None);
        (self.unsealer, self.custody.gathering) = (None, None);
    }

    async fn start_keeper(&mut self) -> Result<(), String> {
        // No keeper is started for a KEK that is not there.
        let noting = self.obtain_kek().await.map_err(|sealed| {
            let sentence = sealed.sentence.clone();
            self.sealed = Some(sealed);
            sentence
        })?;
        // What fails from here on is no matter of the KEK.
        self.sealed = None;
        let settings = KeeperSettings {
            environment: self.key_store.environment(),
            origin: format!("{}/{}", self.config.installation, self.config.node),
            keys: self.key_store.held(&self.policy),
            tenants: self.key_store.tenants().to_vec(),
            exemptions: self.config.exempt.clone(),
            destinations: self.kept(true),
            signed: self.key_store.signed(),
            fingerprints_per_hour_max: self.config.limits.fingerprints_per_hour_max,
            restarts_last_hour: self.key_store.keeper_starts(SystemClock.now()),
        };
        self.keeper = Some(self.spawn(&Confinement::keeper())?);
        self.forwarder_line.reset();
        self.hand_kek(&ToKeeperControl::Start(Box::new(settings)))?;
        self.await_keeper_ready().await?;
        self.note_kek(noting).await?;
        (self.unsealer, self.custody.gathering) = (None, None);
        if self.ranges.is_empty() { Ok(()) } else { self.tell_ranges().await }
    }

    /// Counts the keeper's start and lets it answer fingerprints, in this order. A start that was refused before, for its database
    /// or its configuration, has answered none and costs nothing of the budget.
    async fn admit_keeper(&mut self) -> Result<(), String> {
        self.key_store.note_keeper_start(SystemClock.now()).map_err(|error| error.to_string())?;
        self.tell_keeper(&ToKeeperControl::Serve)?;
        self.await_keeper_ready().await
    }

    /// The ports that destinations are dialed on.
    fn ports(&self) -> Vec<u16> {
        self.destinations.iter().flat_map(|loaded| loaded.ports.iter().copied()).collect()
    }

    async fn start_forwarder(&mut self) -> Result<(), String> {
        let ports = self.ports();
        let forwarder = self.spawn(&Confinement::forwarder(ports))?;
        let (ours, theirs) = pair::make_pair().map_err(|_| "no socket pair could be made".to_owned())?;
        forwarder
            .hand(&ToForwarderControl::Start(self.kept(false)), &theirs)
            .map_err(|_| "the forwarder does not listen".to_owned())?;
        self.forwarder = Some(forwarder);
        self.await_from(Role::Forwarder, |said| {
            matches!(said, Said::Forwarder(FromForwarderControl::Ready)).then_some(())
        })
        .await?;
        let keeper = self.keeper.as_ref().ok_or("the keeper is not running")?;
        self.forwarder_line.hand();
        keeper
            .hand(&ToKeeperControl::ForwarderPair, &ours)
            .map_err(|_| "the keeper does not listen".to_owned())
    }

    async fn start_courier(&mut self) -> Result<(), String> {
        let settings = self.courier_settings.clone();
        let ports = settings.hosts.iter().map(|host| host.port).collect();
        let courier = self.spawn(&Confinement::courier(ports))?;
        courier
            .tell(&ToCourierControl::Start(settings), &[])
            .map_err(|_| "the courier does not listen".to_owned())?;
        self.courier = Some(courier);
        self.await_from(Role::Courier, |said| {
            matches!(said, Said::Courier(FromCourierControl::Ready)).then_some(())
        })
        .await
    }

    async fn start_edge(&mut self) -> Result<(), String> {
        let edge = self.spawn(&Confinement::edge(self.config.store.directory.clone()))?;
        let (ours, theirs) = pair::make_pair().map_err(|_| "no socket pair could be made".to_owned())?;
        let keeper = self.keeper.as_ref().ok_or("the keeper is not running")?;
        keeper
            .hand(&ToKeeperControl::EdgePair, &ours)
            .map_err(|_| "the keeper does not listen".to_owned())?;
        let (to_courier, of_edge) =
            pair::make_pair().map_err(|_| "no socket pair could be made".to_owned())?;
        if let Some(courier) = &self.courier {
            courier
                .hand(&ToCourierControl::EdgePair, &to_courier)
                .map_err(|_| "the courier does not listen".to_owned())?;
        }
        let mut limits = self.config.limits.clone();
        if !self.accepts {
            limits.connections_max = 0;
        }
        let settings = EdgeSettings {
            installation: self.config.installation.clone(),
            node: self.config.node.clone(),
            development: self.config.environment == Environment::Development,
            database: self.config.store.directory.display().to_string(),
            limits,
            keys: self.key_store.table(&self.policy),
            reload: settings::edge_reload(&self.config, self.key_store.tenants(), &self.destinations)?,
            // A command without a running vault is no start and no stop that anybody wants to read of.
            log: if self.accepts { self.config.log.level.clone() } else { "warn".to_owned() },
        };
        let fds = [self.listeners.0.as_fd(), self.listeners.1.as_fd(), theirs.as_fd(), of_edge.as_fd()];
        edge.tell(&ToEdge::Start(Box::new(settings)), &fds)
            .map_err(|_| "the edge does not listen".to_owned())?;
        self.edge = Some(edge);
        self.keeper_line.begin();
        self.courier_line.begin();
        self.await_from(Role::Edge, |said| matches!(said, Said::Edge(FromEdge::Ready)).then_some(())).await
    }

    fn pair_keeper_with_forwarder(&mut self) -> Result<(), String> {
        let (Some(keeper), Some(forwarder)) = (&self.keeper, &self.forwarder) else { return Ok(()) };
        let (ours, theirs) = pair::make_pair().map_err(|_| "no socket pair could be made".to_owned())?;
        self.forwarder_line.hand();
        forwarder
            .hand(&ToForwarderControl::KeeperPair, &theirs)
            .and_then(|()| keeper.hand(&ToKeeperControl::ForwarderPair, &ours))
            .map_err(|_| "keeper and forwarder could not be paired".to_owned())
    }

    fn pair_edge_with_courier(&mut self) -> Result<(), String> {
        let (Some(edge), Some(courier)) = (&self.edge, &self.courier) else { return Ok(()) };
        let (ours, theirs) = pair::make_pair().map_err(|_| "no socket pair could be made".to_owned())?;
        self.courier_line.hand();
        courier
            .hand(&ToCourierControl::EdgePair, &theirs)
            .and_then(|()| edge.hand(&ToEdge::CourierPair, &ours))
            .map_err(|_| "edge and courier could not be paired".to_owned())
    }

    fn pair_keeper_with_edge(&mut self) -> Result<(), String> {
        let (Some(keeper), Some(edge)) = (&self.keeper, &self.edge) else { return Ok(()) };
        let (ours, theirs) = pair::make_pair().map_err(|_| "no socket pair could be made".to_owned())?;
        self.keeper_line.hand();
        keeper
            .hand(&ToKeeperControl::EdgePair, &ours)
            .and_then(|()| edge.hand(&ToEdge::KeeperPair, &theirs))
            .map_err(|_| "keeper and edge could not be paired".to_owned())
    }

    pub(super) async fn await_keeper_ready(&mut self) -> Result<(), String> {
        let key = self
            .await_from(Role::Keeper, |said| {
                let Some(FromKeeperControl::Ready { public_key, .. }) = said.keeper() else { return None };
                Some(*public_key)
            })
            .await?;
        self.public_key = key;
        Ok(())
    }

    /// Waits for a word of one role that `pick` takes; other words are heeded meanwhile. A role that fails, ends, or says
    /// nothing for long is an error.
    pub(super) async fn await_from<T>(
        &mut self,
        role: Role,
        pick: impl Fn(&Said) -> Option<T>,
    ) -> Result<T, String> {
        self.await_within(READY_WITHIN, role, pick).await
    }

    /// The same, for as long as this.
    pub(super) async fn await_within<T>(
        &mut self,
        limit: Duration,
        role: Role,
        pick: impl Fn(&Said) -> Option<T>,
    ) -> Result<T, String> {
        let waiting = async {
            while let Some(word) = self.next_word().await {
                if word.role == role {
                    if let Some(failure) = failure(&word.said) {
                        return Err(failure.to_owned());
                    }
                    if let Some(picked) = pick(&word.said) {
                        return Ok(picked);
                    }
                }
                // Another role that ends now is found again by whoever watches: its line stays ended.
                if let Err(ended) = self.heed(word) {
                    if ended == role {
                        self.say_gone_again(ended);
                        return Err(format!("the {} ended while it was waited for", role.name()));
                    }
                    self.say_gone_again(ended);
                }
                if role == Role::Unsealer && self.unsealer.is_none() {
                    return Err("the unsealer ended while it was waited for".to_owned());
                }
            }
            Err("the supervisor is ending".to_owned())
        };
        let awaited = tokio::time::timeout(limit, waiting).await;
        let awaited = awaited.unwrap_or_else(|_| Err(format!("the {} did not answer in time", role.name())));
        if awaited.is_err() {
            self.unanswered += 1;
        }
        awaited
    }

    fn say_gone_again(&self, role: Role) {
        let number = self.running(role).map_or(0, |running| running.number);
        let speak = self.speak.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _ = speak.send(Word { role, number, said: Said::Gone });
        });
    }

    fn keep_checkpoint(&mut self, size: u64, root: &str) {
        let root = data_encoding::HEXLOWER.decode(root.as_bytes()).ok().and_then(|root| root.try_into().ok());
        let Some(root) = root else { return };
        match self.key_store.keep_signed(size, root) {
            Ok(()) => {
                // If the keeper is gone the edge asks the next one.
                let _ = self.tell_keeper(&ToKeeperControl::CheckpointKept(size));
            }
            Err(error) => {
                tracing::error!(reason = %error, "a checkpoint could not be kept and is not signed")
            }
        }
    }

    pub(super) fn tell_keeper(&self, message: &ToKeeperControl) -> Result<(), String> {
        let keeper = self.keeper.as_ref().ok_or("the keeper is not running")?;
        keeper.tell(message, &[]).map_err(|_| "the keeper does not listen".to_owned())
    }

    pub(super) fn spawn(&mut self, confinement: &Confinement) -> Result<Running, String> {
        self.numbers += 1;
        let require_full = self.config.environment == Environment::Production;
        Running::start(self.numbers, confinement, require_full, self.speak.clone()).map_err(|error| {
            format!("the {} could not be started: {}", confinement.role.name(), error.kind())
        })
    }

    fn kept(&self, with_credentials: bool) -> Vec<crate::wire::control::Destination> {
        let one = |loaded: &Loaded| {
            let mut kept = loaded.kept.clone();
            if !with_credentials {
                kept.credentials.clear();
                kept.next_credentials.clear();
            }
            kept
        };
        self.destinations.iter().map(one).collect()
    }
}

/// What a role says it could not do.
fn failure(said: &Said) -> Option<&str> {
    match said {
        Said::Keeper(FromKeeperControl::Failed(sentence))
        | Said::Edge(FromEdge::Failed(sentence))
        | Said::Forwarder(FromForwarderControl::Failed(sentence))
        | Said::Courier(FromCourierControl::Failed(sentence)) => Some(sentence),
        Said::Keeper(_)
        | Said::Edge(_)
        | Said::Forwarder(_)
        | Said::Courier(_)
        | Said::Unsealer(_)
        | Said::Gone => None,
    }
}
