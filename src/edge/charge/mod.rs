//! Charges: a card's number leaves for a processor only here, once for each attempt.
//!
//! - [`machine`]: status and amounts as pure functions; [`rules`]: which capture, refund or void fits.
//! - [`create`]: charges and verifications; [`follow`]: captures, refunds, voids; [`show`]: look-ups.
//! - [`send`]: the order of one attempt: prepare, one change, release, one change.
//! - [`again`]: one more attempt; [`schedule`], [`retries`]: when, and the task that makes it; [`route`]: where to, and where else.
//! - [`declines`]: what the networks allow after a decline; [`updater`]: what a processor says of the card; [`settle`]: what a person
//!   says of a charge.
//! - [`resolve`]: what to do when nobody knows; [`undo`]: to take back; [`pending`]: when the processor answers later; [`recover`]:
//!   after a restart; [`waits`]: who asked to be left alone; [`slots`]: how many at once.
//! - [`told`]: what processors tell by themselves.
//! - [`runs`]: many charges as one stream.
//! - [`answer`]: a charge as the API writes it; [`limits`]: what a principal may charge; [`terms`]: how long an authorization holds.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use super::keeper::KeeperError;
use super::store::{CommitError, StoreError};
use crate::card::id::{ChargeId, IdBytes, RunId};
use crate::clock::Time;
use crate::random::NoRandomness;

mod again;
pub mod answer;
mod create;
mod declines;
mod follow;
mod limits;
pub mod machine;
#[cfg(test)]
mod model;
mod pending;
mod recover;
mod refundable;
mod resolve;
mod retries;
mod route;
pub mod rules;
pub mod runs;
mod schedule;
mod send;
mod settle;
mod show;
mod slots;
mod terms;
#[cfg(test)]
pub(in crate::edge) mod tests;
mod told;
mod undo;
mod updater;
mod waits;

pub use create::create;
pub(in crate::edge) use create::{chargeable, wait};
pub use declines::Forbidden;
pub use follow::{Follow, follow};
pub use limits::add_up;
pub use recover::recover;
pub use refundable::check_erase;
pub use retries::{run as run_retries, stop as stop_retries, wake};
pub(in crate::edge) use send::{accounted, discard, release};
pub use settle::{settle, settle_approved};
pub(in crate::edge) use show::log_read;
pub use show::{charge, charges, refund, refunds};
pub use told::{Became, told};

/// Retries that are made at the same time: nobody waits for them, and callers come first.
const RETRIES_AT_ONCE: usize = 64;

/// How a verb on charges, runs or forwards ends otherwise than asked; in all cases nothing was sent, or what was is told by the charge
/// or forward itself.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The keeper did not do it.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The store did not commit it.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There was no randomness for an id.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// No such token, or another tenant's.
    #[error("there is no such token")]
    TokenUnknown,
    /// The card is gone.
    #[error("the card was erased")]
    TokenErased {
        /// When its bytes were gone from every file.
        scrubbed_at: Option<Time>,
    },
    /// The card is going.
    #[error("the card is being erased")]
    TokenErasing,
    /// The card is suspended.
    #[error("the card is suspended")]
    TokenSuspended,
    /// The idempotency key was used for another body.
    #[error("the idempotency key was used for another body")]
    KeyReused,
    /// A request with this key is being worked on.
    #[error("a request with this key is being worked on")]
    InProgress,
    /// No such destination for this tenant's mode.
    #[error("there is no such destination")]
    DestinationUnknown,
    /// Several destinations are possible.
    #[error("more than one destination is possible")]
    DestinationRequired,
    /// The destination's connector can verify neither with a zero amount nor with a small one.
    #[error("the destination cannot verify")]
    VerificationUnsupported,
    /// The destination verifies with a small amount, in one of several currencies.
    #[error("a verification needs a currency here")]
    CurrencyRequired,
    /// The destination verifies with a small amount, and not in this currency.
    #[error("no verification in this currency")]
    CurrencyUnsupported,
    /// The amount is over a limit of the principal.
    #[error("the amount is over a limit of the principal")]
    LimitExceeded,
    /// What the principal charged today is not added up yet.
    #[error("what was charged today is not added up yet")]
    LimitsUnknown,
    /// A merchant-initiated charge without a live agreement, or the one named is not live.
    #[error("there is no live agreement for it")]
    AgreementRequired,
    /// The card network's rules forbid the merchant to try this card now.
    #[error("the card network forbids this try")]
    NetworkForbids(Forbidden),
    /// More than one operation of the charge could be meant.
    #[error("more than one operation could be meant")]
    OperationRequired,
    /// No such charge, or another tenant's.
    #[error("there is no such charge")]
    ChargeUnknown,
    /// It was, and is older than the tenant keeps it.
    #[error("it is older than it is kept")]
    Forgotten,
    /// No such forward, or another tenant's.
    #[error("there is no such forward")]
    ForwardUnknown,
    /// The invoice is charged: same card and amount.
    #[error("the invoice is charged already")]
    AlreadyCharged(ChargeId),
    /// The invoice is being charged: same card and amount.
    #[error("the invoice is being charged")]
    InFlight(ChargeId),
    /// The invoice belongs to a charge of another card or amount.
    #[error("the invoice belongs to another charge")]
    InvoiceTaken(ChargeId),
    /// The invoice waits in a run.
    #[error("the invoice waits in a run")]
    InRun(RunId),
    /// No such run, or another tenant's.
    #[error("there is no such run")]
    RunUnknown,
    /// The run does not stand where this can be done.
    #[error("the run does not stand where this can be done")]
    RunState,
    /// The stream is not what was declared: lines, or the sum of a currency.
    #[error("the stream does not match the declared lines and sums")]
    RunTotals,
    /// The header of a CSV stream.
    #[error("the header names columns that are not known, or lacks some")]
    RunHeader,
    /// The stream broke off; what had arrived is kept.
    #[error("the stream broke off")]
    UploadCut,
    /// An upload that is to go on began with other lines than before.
    #[error("the stream differs from what arrived before")]
    UploadDiffers,
    /// The charge does not stand where this can be done.
    #[error("the charge does not stand where this can be done")]
    State,
    /// The processor's id of the payment is not known, and nothing can be done to the payment without it.
    #[error("the processor's id of the payment is not known")]
    TransactionUnknown,
    /// More than is left.
    #[error("the amount is more than is left")]
    AmountTooLarge,
    /// Not a positive amount.
    #[error("the amount is not positive")]
    AmountInvalid,
    /// The card of these charges is to be erased, and their processors take no refund without it.
    #[error("refunds need the card")]
    RefundsNeedCard {
        /// The newest of the charges.
        charge: ChargeId,
        /// Where they are, by name, sorted.
        destinations: Vec<String>,
    },
    /// The log lags, so reads stop.
    #[error("the audit log lags")]
    LogLagging,
    /// The task that did it broke off; what it had committed is taken up again.
    #[error("the work broke off")]
    BrokenOff,
}

/// How long a caller is held until the answer is 202.
#[derive(Clone, Copy, Debug)]
pub struct Hold(pub Duration);

/// An answer, ready to be written.
#[derive(Clone, Debug)]
pub struct Answered {
    /// 200, 201 or 202.
    pub status: u16,
    /// Where the thing is to be read, for 202.
    pub location: Option<String>,
    /// The body.
    pub body: Vec<u8>,
    /// Whether it was answered before.
    pub replayed: bool,
    /// What the processor took as seen from here, in microseconds.
    pub upstream_us: Option<u64>,
    /// What the processor says it took, in microseconds.
    pub processor_us: Option<u64>,
}

/// What the verbs on charges keep in memory.
#[derive(Debug)]
pub struct Charges {
    /// When this process began, in milliseconds since the epoch: older attempts are those of the one before.
    started_ms: u64,
    /// Charges that a task looks into now.
    resolving: Mutex<HashSet<ChargeId>>,
    /// Charges whose processor is asked again and again, with long waits between.
    polling: Mutex<HashSet<ChargeId>>,
    /// Attempts that the processor has given no id yet: what it tells of them by itself is found here.
    unnamed: told::Unnamed,
    /// Charges that a task tries again now.
    retrying: Mutex<HashSet<ChargeId>>,
    /// Woken when a schedule of retries has changed.
    retry_due: Notify,
    retry_slots: Semaphore,
    /// Merchants' tries that are under way.
    under_way: declines::UnderWay,
    slots: slots::Slots,
    pace: resolve::Pace,
    limits: Arc<limits::DaySums>,
    waits: waits::Waits,
    runs: runs::Runs,
}

impl Charges {
    /// Nothing under way yet; `now` tells what was made before this process.
    pub fn new(now: Time) -> Self {
        Self {
            started_ms: now.millis(),
            resolving: Mutex::default(),
            polling: Mutex::default(),
            unnamed: told::Unnamed::default(),
            retrying: Mutex::default(),
            retry_due: Notify::new(),
            retry_slots: Semaphore::new(RETRIES_AT_ONCE),
            under_way: declines::UnderWay::default(),
            slots: slots::Slots::default(),
            pace: resolve::Pace::default(),
            limits: Arc::default(),
            waits: waits::Waits::default(),
            runs: runs::Runs::default(),
        }
    }
}

impl Charges {
    /// Whether an id was made before this process: what this process has under way has a task of its own.
    pub fn is_from_before(&self, id: IdBytes) -> bool {
        id.millis() < self.started_ms
    }
}

/// A member of a set while it lives.
struct Held<T: Copy + Eq + std::hash::Hash> {
    app: super::App,
    of: fn(&Charges) -> &Mutex<HashSet<T>>,
    what: T,
}

impl<T: Copy + Eq + std::hash::Hash> Held<T> {
    /// `None` if it is there already.
    fn take(app: &super::App, of: fn(&Charges) -> &Mutex<HashSet<T>>, what: T) -> Option<Self> {
        lock(of(&app.charges)).insert(what).then(|| Self { app: Arc::clone(app), of, what })
    }
}

impl<T: Copy + Eq + std::hash::Hash> Drop for Held<T> {
    fn drop(&mut self) {
        lock((self.of)(&self.app.charges)).remove(&self.what);
    }
}

fn resolving(charges: &Charges) -> &Mutex<HashSet<ChargeId>> {
    &charges.resolving
}

fn retrying(charges: &Charges) -> &Mutex<HashSet<ChargeId>> {
    &charges.retrying
}

fn polling(charges: &Charges) -> &Mutex<HashSet<ChargeId>> {
    &charges.polling
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
