//! The edge of a vault without its KEK: it says that it lives and why it is not ready, and answers everything else with a refusal. It has
//! no database, no keeper and no courier; once there is a KEK the supervisor ends it and starts the edge that serves.

use std::net::TcpListener as StdListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::http::listener::Serving;
use super::http::sealed::{Reason, router};
use super::http::tls::Tls;
use super::metrics::Metrics;
use crate::telemetry;
use crate::wire::control::{FromEdge, SealedSettings, ToEdge};
use crate::wire::pair;

/// Runs it until the supervisor says stop or is gone.
pub fn run(control: UnixStream, settings: SealedSettings, listeners: [StdListener; 2]) -> Result<(), String> {
    telemetry::start(&settings.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("edge")
        .enable_all()
        .build()
        .map_err(|_| "the asynchronous runtime cannot be started".to_owned())?;
    let served = runtime.block_on(serve(&control, settings, listeners));
    if let Err(sentence) = &served {
        // If the supervisor is gone, nobody is left to be told.
        drop(pair::send(&control, &FromEdge::Failed(sentence.clone()), &[]));
    }
    served
}

async fn serve(
    control: &UnixStream,
    settings: SealedSettings,
    listeners: [StdListener; 2],
) -> Result<(), String> {
    let broken = |_| "a listener that was handed over cannot be used".to_owned();
    let tls = Tls::new(&settings.certificate_pem, &settings.key_pem).map_err(|error| error.to_string())?;
    let reason = Reason::new(settings.reason);
    let metrics = Arc::new(Metrics::new());
    let (stop, stopped) = watch::channel(false);
    let mut serving = JoinSet::new();
    for (listener, tls) in listeners.into_iter().zip([Some(Arc::new(tls)), None]) {
        listener.set_nonblocking(true).map_err(broken)?;
        let one = Serving {
            listener: TcpListener::from_std(listener).map_err(broken)?,
            router: router(&reason),
            tls,
            limits: settings.limits.clone(),
            metrics: Arc::clone(&metrics),
        };
        serving.spawn(one.run(stopped.clone()));
    }
    pair::send(control, &FromEdge::Ready, &[]).map_err(|_| "the supervisor is gone".to_owned())?;
    let line = control.try_clone().map_err(|_| "the supervisor's line cannot be shared".to_owned())?;
    let obeying = tokio::task::spawn_blocking(move || {
        while let Ok((message, _)) = pair::receive::<ToEdge>(&line) {
            match message {
                ToEdge::Sealed(why) => reason.set(why),
                ToEdge::Stop => return,
                // Those are for an edge that serves.
                ToEdge::Start(_)
                | ToEdge::StartSealed(_)
                | ToEdge::KeeperPair
                | ToEdge::CourierPair
                | ToEdge::Reload(_)
                | ToEdge::Admin(..) => {}
            }
        }
    });
    let _ = obeying.await;
    let _ = stop.send(true);
    while serving.join_next().await.is_some() {}
    Ok(())
}
