//! The forwarder: TLS out to the loaded destinations only. No keys.
//!
//! It takes rendered requests from the keeper, sends each at most once to the endpoint that the settings name, and answers
//! with the mapped, scrubbed fields, or with a short word and the truth about whether bytes left. What a processor tells by
//! itself it checks and maps alike.
//!
//! ```text
//! supervisor ─► mod (start, reload, stop)      keeper ◄─► line ─► exchange ─► pool | dial ─► connection
//!                 └─► routes (destinations)           │    ├─► steps └─► answer | forward ─► scrub
//!                                                     └─► webhook ─► scrub
//! ```
//! [`courier`] is a process beside it that has the same code for dialing and exchanges, other hosts, and no cards.
//!
//! Invariant: it dials what `routes` holds and nothing else; no redirect is followed, no proxy is read.

mod answer;
mod connection;
pub mod courier;
mod dial;
mod exchange;
mod fault;
mod forward;
mod line;
mod pool;
mod retry_after;
mod routes;
mod scrub;
mod steps;
#[cfg(test)]
mod tests;
mod webhook;

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::wire::control::{Destination, FromForwarderControl, ToForwarderControl};
use crate::wire::pair;
use routes::{Route, Routes};

/// Exchanges under way at once.
const EXCHANGES_MAX: u32 = 4096;
/// How long a stop waits for what is under way: as long as the edge waits for its callers.
const DRAIN_MAX: Duration = Duration::from_secs(20);
/// How often connections that waited too long are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// What all exchanges share.
struct Forwarder {
    routes: Mutex<Arc<Routes>>,
    /// The ports that this process was allowed at its start, by the kernel for good.
    ports: BTreeSet<u16>,
    places: Arc<Semaphore>,
    stopping: AtomicBool,
}

/// What the supervisor said, once it concerns the runtime.
enum Told {
    /// Serve this keeper.
    Keeper(UnixStream),
    /// Finish what is under way.
    Stop,
}

/// Runs the forwarder until the supervisor says stop or its line ends; the process is confined already.
pub fn run(control: UnixStream) -> Result<(), String> {
    let (destinations, fds) = match pair::receive(&control) {
        Ok((ToForwarderControl::Start(destinations), fds)) => (destinations, fds),
        Ok(_) | Err(_) => return Err("the supervisor did not say how to start".to_owned()),
    };
    let forwarder = Forwarder::new(destinations).inspect_err(|sentence| {
        let _ = pair::send(&control, &FromForwarderControl::Failed(sentence.clone()), &[]);
    })?;
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime cannot be started: {}", error.kind()))?;
    let (tell, told) = mpsc::unbounded_channel();
    for keeper in fds {
        let _ = tell.send(Told::Keeper(UnixStream::from(keeper)));
    }
    let forwarder = Arc::new(forwarder);
    let listening = Arc::clone(&forwarder);
    pair::send(&control, &FromForwarderControl::Ready, &[])
        .map_err(|_| "the supervisor's line is broken".to_owned())?;
    // It ends with the line; nobody waits for it.
    std::thread::spawn(move || listening.listen(&control, &tell));
    runtime.block_on(forwarder.serve(told));
    // A resolver that hangs must not keep the process.
    runtime.shutdown_background();
    Ok(())
}

impl Forwarder {
    fn new(destinations: Vec<Destination>) -> Result<Self, String> {
        let routes = Routes::compile(destinations, &Routes::default())?;
        Ok(Self {
            ports: routes.ports(),
            routes: Mutex::new(Arc::new(routes)),
            places: Arc::new(Semaphore::new(EXCHANGES_MAX as usize)),
            stopping: AtomicBool::new(false),
        })
    }

    /// Reads the supervisor's line until it ends; what it drops then ends [`serve`](Self::serve).
    fn listen(&self, control: &UnixStream, tell: &UnboundedSender<Told>) {
        while let Ok((message, fds)) = pair::receive::<ToForwarderControl>(control) {
            let told = match message {
                ToForwarderControl::Start(_) => None,
                ToForwarderControl::KeeperPair => {
                    fds.into_iter().next().map(|fd| Told::Keeper(UnixStream::from(fd)))
                }
                ToForwarderControl::Reload(destinations) => {
                    if let Err(sentence) = self.reload(destinations) {
                        let _ = pair::send(control, &FromForwarderControl::Failed(sentence), &[]);
                    }
                    None
                }
                ToForwarderControl::Stop => Some(Told::Stop),
            };
            if told.is_some_and(|told| tell.send(told).is_err()) {
                break;
            }
        }
    }

    /// Takes new destinations, all or none; exchanges under way go on as they began.
    fn reload(&self, destinations: Vec<Destination>) -> Result<(), String> {
        let before = Arc::clone(&self.routes());
        let routes = Routes::compile(destinations, &before)?;
        if let Some(port) = routes.ports().difference(&self.ports).next() {
            return Err(format!(
                "a destination is on port {port}, and the forwarder may dial only the ports it was started with; \
                 restart the forwarder"
            ));
        }
        *self.routes() = Arc::new(routes);
        Ok(())
    }

    async fn serve(self: &Arc<Self>, mut told: UnboundedReceiver<Told>) {
        let sweeping = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                let routes = Arc::clone(&sweeping.routes());
                routes.sweep();
            }
        });
        while let Some(message) = told.recv().await {
            match message {
                // A pair that cannot be served is closed, and the keeper sees that.
                Told::Keeper(stream) => drop(line::serve(self, stream)),
                Told::Stop => {
                    self.stopping.store(true, Ordering::Relaxed);
                    return self.drain(told).await;
                }
            }
        }
    }

    /// Waits until every outcome is written, the time is over, or the supervisor is gone.
    async fn drain(&self, mut told: UnboundedReceiver<Told>) {
        let supervisor_gone = async { while told.recv().await.is_some() {} };
        tokio::select! {
            _ = tokio::time::timeout(DRAIN_MAX, self.places.acquire_many(EXCHANGES_MAX)) => {}
            () = supervisor_gone => {}
        }
    }

    /// A place among the exchanges under way, if there is one.
    fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn route(&self, name: &str) -> Option<Arc<Route>> {
        self.routes().get(name).map(Arc::clone)
    }

    fn routes(&self) -> MutexGuard<'_, Arc<Routes>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every exchange may need a socket; most systems start a process with 1,024 descriptors and let it have more.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    // With the old limit it works as well, up to that many.
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
