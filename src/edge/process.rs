//! The edge as a process: from its settings to ready, what the supervisor tells it, and an orderly end.

use std::net::TcpListener as StdListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::http::listener::Serving;
use super::http::tls::Tls;
use super::http::{health, routes};
use super::keeper::Keeper;
use super::store::Store;
use super::store::sqlite::{SqliteOptions, SqliteStore};
use super::{
    App, Edge, admin, attest, charge, destruction, erasures, forward, keys, reseal, retention, webhooks,
};
use crate::clock::{Clock, SystemClock};
use crate::telemetry;
use crate::wire::control::{EdgeReload, EdgeSettings, FromEdge, Limits, ToEdge};
use crate::wire::pair;

/// Two cores are the machine this is measured on; more workers would only take turns.
const WORKERS: usize = 2;
/// What is still running when everything has been told to end gets this long.
const END_TIME: Duration = Duration::from_secs(2);
/// Between two looks at whether the last openings are in the log.
const END_PAUSE: Duration = Duration::from_millis(50);
/// Between two looks at whether the start is over.
const RECOVERED_LOOK: Duration = Duration::from_millis(50);
/// The metrics listener serves scrapers on this machine.
const METRICS_CONNECTIONS_MAX: usize = 32;

/// What runs the edge until the supervisor says stop or is gone. Everything is confined before it is called.
pub fn run(
    control: UnixStream,
    settings: EdgeSettings,
    listener: StdListener,
    metrics: StdListener,
    pairs: [UnixStream; 2],
) -> Result<(), String> {
    telemetry::start(&settings.log);
    let control = Arc::new(control);
    let ended = start(&control, settings, listener, metrics, pairs);
    if let Err(sentence) = &ended {
        tracing::error!(code = "edge_failed", "the edge cannot go on");
        // If the supervisor is gone, nobody is left to be told.
        drop(pair::send(&control, &FromEdge::Failed(sentence.clone()), &[]));
    }
    ended
}

fn start(
    control: &Arc<UnixStream>,
    settings: EdgeSettings,
    listener: StdListener,
    metrics: StdListener,
    pairs: [UnixStream; 2],
) -> Result<(), String> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let options = SqliteOptions {
        directory: PathBuf::from(&settings.database),
        node: settings.node.clone(),
        clock: Arc::clone(&clock),
        pages_max: None,
    };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(options).map_err(|error| error.to_string())?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("edge")
        .enable_all()
        .build()
        .map_err(|_| "the asynchronous runtime cannot be started".to_owned())?;
    let app = Arc::new(Edge::new(Arc::clone(&store), Keeper::new(), clock, settings.limits.clone()));
    let served = runtime.block_on(serve(control, settings, app, [listener, metrics], pairs));
    runtime.shutdown_timeout(END_TIME);
    // The last owner of the store commits what is queued and ends its threads.
    drop(store);
    served
}

async fn serve(
    control: &Arc<UnixStream>,
    settings: EdgeSettings,
    app: App,
    [listener, metrics]: [StdListener; 2],
    [keeper, courier]: [UnixStream; 2],
) -> Result<(), String> {
    let broken = |_| "a line or listener that was handed over cannot be used".to_owned();
    let tls = make_tls(&settings)?;
    app.keeper.connect(keeper).map_err(broken)?;
    app.courier.connect(courier).map_err(broken)?;
    let tenants = settings.reload.tenants;
    app.directory.set_tenants(tenants.clone());
    app.directory.set_exemptions(settings.reload.exemptions);
    app.directory.set_destinations(settings.reload.destinations);
    app.directory.set_charging(settings.reload.charging);
    app.directory.set_forwards(settings.reload.forwards);
    app.directory.set_webhooks(settings.reload.webhooks);
    app.directory.set_erasure(settings.reload.erasure);
    app.directory.set_two_persons(settings.reload.two_persons);
    app.directory.set_retention(settings.reload.retention);
    if !attest::bind(&app).await.map_err(|error| error.to_string())? {
        return Err("the key store is of another environment than the database: use the two that belong together, or \
                    restore the one that is wrong"
            .to_owned());
    }
    keys::begin(&app, settings.keys).await?;
    admin::load_principals(&app).await.map_err(|error| error.to_string())?;
    attest::log_start(&app).await.map_err(|error| error.to_string())?;
    admin::settle_tenants(&app, &tenants).await?;
    let (stop, stopped) = watch::channel(false);
    let mut serving = JoinSet::new();
    let api = Serving {
        listener: into_tokio(listener).map_err(broken)?,
        router: routes::router(&app),
        tls: Some(Arc::clone(&tls)),
        limits: settings.limits.clone(),
        metrics: Arc::clone(&app.metrics),
    };
    serving.spawn(api.run(stopped.clone()));
    let figures = Serving {
        listener: into_tokio(metrics).map_err(broken)?,
        router: health::metrics_router(&app),
        tls: None,
        limits: Limits { connections_max: METRICS_CONNECTIONS_MAX, ..settings.limits },
        metrics: Arc::clone(&app.metrics),
    };
    serving.spawn(figures.run(stopped.clone()));
    let mut beside = beside(&app);
    pair::send(control, &FromEdge::Ready, &[]).map_err(|_| "the supervisor is gone".to_owned())?;
    tracing::info!(node = settings.node, "serving");
    obey(control, &app, &tls).await;
    // Both channels have a receiver: the tasks that serve.
    let _ = stop.send(true);
    while serving.join_next().await.is_some() {}
    beside.abort_all();
    attest::log_stop(&app).await;
    // Whoever exports the log of a vault that was stopped in order gets all of it, stated and signed.
    let acknowledging = async {
        // The keeper ends with the vault: what it does not state now, nobody ever will.
        while !attest::acknowledge_logged(&app).await.unwrap_or(true) {
            tokio::time::sleep(END_PAUSE).await;
        }
    };
    if tokio::time::timeout(END_TIME, acknowledging).await.is_err() {
        tracing::warn!(code = "openings", "not all openings are in the log: what was under way was cut off");
    }
    let signing = async {
        // A checkpoint that was cut off just now may still be on its way to the keeper: once more is enough.
        attest::make_checkpoint(&app).await.is_ok() || attest::make_checkpoint(&app).await.is_ok()
    };
    if !tokio::time::timeout(END_TIME, signing).await.unwrap_or(false) {
        tracing::warn!(code = "checkpoint", "the end of the log is not signed; the next start signs it");
    }
    tracing::info!("stopped");
    Ok(())
}

/// What goes on beside requests.
fn beside(app: &App) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(recover(Arc::clone(app)));
    tasks.spawn(attest::run(Arc::clone(app)));
    tasks.spawn(tend_runs(Arc::clone(app)));
    tasks.spawn(erasures::run(Arc::clone(app)));
    tasks.spawn(reseal::run(Arc::clone(app)));
    tasks.spawn(destruction::run(Arc::clone(app)));
    tasks.spawn(retention::run(Arc::clone(app)));
    tasks.spawn(webhooks::run(Arc::clone(app)));
    tasks.spawn(webhooks::tell_expiring(Arc::clone(app)));
    tasks
}

fn make_tls(settings: &EdgeSettings) -> Result<Arc<Tls>, String> {
    let reload = &settings.reload;
    if reload.key_pem.is_empty() && !settings.development {
        return Err("plain HTTP is for development only: configure a certificate and its key".to_owned());
    }
    Tls::new(&reload.certificate_pem, &reload.key_pem).map(Arc::new).map_err(|error| error.to_string())
}

fn into_tokio(listener: StdListener) -> std::io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Takes up what was in flight when the edge before this one ended.
async fn recover(app: App) {
    while charge::add_up(&app).await.is_err() {
        tracing::warn!(code = "recovery_waits", "what was charged today could not be added up yet");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    while attest::account_for_openings(&app).await.is_err() {
        tracing::warn!(code = "recovery_waits", "the keeper could not be asked what it opened");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // Before the charges: those acknowledge every outcome that nobody is known to wait for.
    while forward::recover(&app).await.is_err() {
        tracing::warn!(code = "recovery_waits", "what was being forwarded could not be taken up yet");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    while charge::recover(&app).await.is_err() {
        tracing::warn!(code = "recovery_waits", "what was in flight could not be taken up yet");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    app.set_recovered();
    charge::run_retries(app).await;
}

/// Invoice runs go on once it is known what was in flight.
async fn tend_runs(app: App) {
    while !app.is_recovered() {
        tokio::time::sleep(RECOVERED_LOOK).await;
    }
    charge::runs::take_up(app).await;
}

/// Does what the supervisor says until it says stop, or is gone.
async fn obey(control: &Arc<UnixStream>, app: &App, tls: &Tls) {
    let (tell, mut told) = mpsc::unbounded_channel();
    let reading = Arc::clone(control);
    let reader = std::thread::Builder::new().name("control".into()).spawn(move || {
        while let Ok(message) = pair::receive::<ToEdge>(&reading) {
            if tell.send(message).is_err() {
                return;
            }
        }
    });
    if reader.is_err() {
        tracing::error!(code = "no_thread", "the supervisor's line cannot be read");
        return;
    }
    // Not made anew with each message: one of them must not keep the other from coming to its end.
    let mut keeper_lost = Box::pin(app.keeper.lost());
    let mut courier_lost = Box::pin(app.courier.lost());
    let mut said = app.keys.said();
    loop {
        // Both live, or they would have been started again: only the supervisor can hand out a fresh pair.
        let ended = tokio::select! {
            told = told.recv() => Err(told),
            Some(said) = said.recv() => Ok(said),
            pairs = &mut keeper_lost => {
                keeper_lost.set(app.keeper.lost());
                Ok(FromEdge::KeeperLineEnded(pairs))
            }
            pairs = &mut courier_lost => {
                courier_lost.set(app.courier.lost());
                // Where webhooks may go nowhere there is no courier, and none is missed.
                if app.directory.webhooks().hosts.is_empty() {
                    continue;
                }
                Ok(FromEdge::CourierLineEnded(pairs))
            }
        };
        let told = match ended {
            Ok(ended) if pair::send(control, &ended, &[]).is_err() => return,
            Ok(_) => continue,
            Err(told) => told,
        };
        let Some((message, fds)) = told else { return };
        match message {
            ToEdge::Stop => return,
            ToEdge::KeeperPair => take_keeper(app, fds),
            ToEdge::CourierPair => take_courier(app, fds),
            ToEdge::Reload(reload) => take_reload(app, tls, *reload),
            ToEdge::Admin(number, command) => {
                let answer = admin::carry_out(app, command).await;
                if pair::send(control, &FromEdge::Admin(number, answer), &[]).is_err() {
                    return;
                }
            }
            // It began long ago, with a KEK.
            ToEdge::Start(_) | ToEdge::StartSealed(_) | ToEdge::Sealed(_) => {}
        }
    }
}

fn take_keeper(app: &App, fds: Vec<OwnedFd>) {
    let connected = fds.into_iter().next().map(|fd| app.keeper.connect(UnixStream::from(fd)));
    match connected {
        Some(Ok(())) => tracing::info!("a fresh line to the keeper"),
        Some(Err(_)) | None => tracing::error!(code = "keeper_pair", "the line to the keeper cannot be used"),
    }
}

fn take_courier(app: &App, fds: Vec<OwnedFd>) {
    let connected = fds.into_iter().next().map(|fd| app.courier.connect(UnixStream::from(fd)));
    match connected {
        Some(Ok(())) => tracing::info!("a fresh line to the courier"),
        Some(Err(_)) | None => {
            tracing::error!(code = "courier_pair", "the line to the courier cannot be used");
        }
    }
}

fn take_reload(app: &App, tls: &Tls, reload: EdgeReload) {
    // A certificate that does not work leaves the one in use; connections stay in any case.
    if tls.replace(&reload.certificate_pem, &reload.key_pem).is_err() {
        tracing::error!(code = "certificate", "the new certificate cannot be used; the old one stays");
    }
    app.directory.set_tenants(reload.tenants);
    app.directory.set_exemptions(reload.exemptions);
    app.directory.set_destinations(reload.destinations);
    app.directory.set_charging(reload.charging);
    app.directory.set_forwards(reload.forwards);
    app.directory.set_webhooks(reload.webhooks);
    app.directory.set_two_persons(reload.two_persons);
    app.directory.set_erasure(reload.erasure);
    app.directory.set_retention(reload.retention);
    // What is erased from now on says the times that hold now.
    keys::watch(app, &app.keys.all());
}
