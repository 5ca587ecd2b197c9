//! The edge: TLS, HTTP, who may do what, charges, store, audit. It holds no keys and opens no card.
//!
//! - [`http`]: connections, routes, problems.
//! - [`vault`]: the verbs on tokens; [`charge`]: those on charges; [`forward`]: callers' own requests with a card in them.
//! - [`store`]: what is kept; [`audit`]: what is logged.
//! - [`keeper`]: the line to the keeper; [`courier`]: that to the courier.
//! - [`webhooks`]: what callers are told without asking.
//! - [`attest`]: statements and checkpoints; `admin`: what administrators have done here.
//! - `erasures`: tells of cards that wait too long to be erased; `destruction`: has the keys go that may have sealed what is erased.
//! - `retention`: erases cards that nobody needs any more.
//! - `process`: start, the supervisor's words, stop; [`sealed`]: the edge of a vault without its KEK.
//! - [`directory`], [`scope`]: who may call, and what there is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::Notify;

use self::charge::Charges;
use self::courier::Courier;
use self::directory::Directory;
use self::forward::Forwards;
use self::keeper::Keeper;
use self::keys::Keys;
use self::metrics::Metrics;
use self::store::Store;
use self::vault::Vault;
use crate::clock::Clock;
use crate::wire::control::Limits;

mod admin;
pub mod attest;
pub mod audit;
pub mod charge;
pub mod courier;
mod destruction;
pub mod directory;
mod erasures;
pub mod forward;
pub mod http;
pub mod keeper;
pub mod keys;
pub mod metrics;
mod outlived;
mod process;
pub mod reseal;
mod retention;
pub mod scope;
pub mod sealed;
pub mod store;
pub mod vault;
pub mod webhooks;
mod working;

pub use process::run;

/// Denials that are written as events of their own in a second; what is above is counted in the next.
const DENIALS_PER_SECOND_MAX: std::num::NonZeroU32 = std::num::NonZeroU32::new(200).unwrap();

/// Webhooks of one destination that are looked at in a second: anybody may send some, and who is refused sends again.
const WEBHOOKS_PER_SECOND_MAX: std::num::NonZeroU32 = std::num::NonZeroU32::new(1000).unwrap();

/// What every handler works with.
pub struct Edge {
    /// What is kept.
    pub store: Arc<dyn Store>,
    /// The line to the keeper.
    pub keeper: Keeper,
    /// The line to the courier.
    pub courier: Courier,
    /// Keys, by their ids.
    pub keys: Keys,
    /// The verbs on tokens.
    pub vault: Vault,
    /// What the verbs on charges keep in memory.
    pub charges: Charges,
    /// What the verbs on forwards keep in memory.
    pub forwards: Forwards,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Limits of the listener.
    pub limits: Limits,
    /// Who may call, and what there is.
    pub directory: Directory,
    /// What retention did when it looked last.
    retained: Mutex<retention::Report>,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Woken by important events: a checkpoint follows within two seconds.
    pub important: Notify,
    working: working::Keys,
    denials: DefaultDirectRateLimiter,
    /// By destination: a flood at one holds up no other's. Only names that are configured come in.
    processor_webhooks: DefaultKeyedRateLimiter<String>,
    denials_unlogged: AtomicU64,
    recovered: AtomicBool,
}

/// The edge, shared by all that runs in it.
pub type App = Arc<Edge>;

impl Edge {
    /// An edge over these parts; its tables are empty.
    pub fn new(store: Arc<dyn Store>, keeper: Keeper, clock: Arc<dyn Clock>, limits: Limits) -> Self {
        Self {
            vault: Vault::new(Arc::clone(&store), keeper.clone(), Arc::clone(&clock)),
            charges: Charges::new(clock.now()),
            forwards: Forwards::default(),
            store,
            keeper,
            courier: Courier::default(),
            keys: Keys::default(),
            clock,
            directory: Directory::new(&limits),
            limits,
            retained: Mutex::default(),
            metrics: Arc::new(Metrics::new()),
            important: Notify::new(),
            working: working::Keys::default(),
            denials: RateLimiter::direct(Quota::per_second(DENIALS_PER_SECOND_MAX)),
            processor_webhooks: RateLimiter::keyed(Quota::per_second(WEBHOOKS_PER_SECOND_MAX)),
            denials_unlogged: AtomicU64::new(0),
            recovered: AtomicBool::new(false),
        }
    }

    /// Whether what was in flight when the edge started has been taken up.
    pub fn is_recovered(&self) -> bool {
        self.recovered.load(Ordering::Acquire)
    }

    /// Says that what was in flight when the edge started has been taken up.
    pub fn set_recovered(&self) {
        self.recovered.store(true, Ordering::Release);
    }
}
