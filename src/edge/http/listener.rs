//! Connections: an accept loop with a cap, a time limit on handshake and request head, small buffers, and an orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::Service;

use super::guard::Peer;
use super::tls::Tls;
use crate::edge::metrics::Metrics;
use crate::wiping::Wiping;
use crate::wire::control::Limits;

/// The least that hyper takes; a head that does not fit is refused, and less of what passes by stays in buffers.
const BUFFER_BYTES_MAX: usize = 8192;
/// Accepting fails while descriptors are short; a breath lets some come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a listener serves.
pub struct Serving {
    /// Where connections come from.
    pub listener: TcpListener,
    /// What answers them.
    pub router: Router,
    /// TLS, or none for plain HTTP on loopback.
    pub tls: Option<Arc<Tls>>,
    /// Limits.
    pub limits: Limits,
    /// Figures.
    pub metrics: Arc<Metrics>,
}

impl Serving {
    /// Serves until `stop` says so, then lets what is under way finish, for at most the drain limit.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let graceful = GracefulShutdown::new();
        let permits = Arc::new(Semaphore::new(self.limits.connections_max));
        let drain = Duration::from_secs(self.limits.drain_seconds_max);
        let listener = self.listener;
        let connections = Arc::new(Connections {
            router: self.router,
            tls: self.tls,
            head_time: Duration::from_secs(self.limits.header_seconds_max),
            metrics: self.metrics,
        });
        loop {
            // At the cap, new connections wait in the kernel's queue.
            let accepting = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                (permit, listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                accepted = accepting => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let Ok(permit) = permit else { break };
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let connection = Arc::clone(&connections).serve(stream, peer, graceful.watcher());
            tokio::spawn(async move {
                connection.await;
                drop(permit);
            });
        }
        drop(listener);
        if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
            tracing::warn!(code = "drain_timeout", "connections were cut at the end of the drain time");
        }
    }
}

struct Connections {
    router: Router,
    tls: Option<Arc<Tls>>,
    head_time: Duration,
    metrics: Arc<Metrics>,
}

impl Connections {
    async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, watcher: Watcher) {
        let _counted = self.metrics.connection();
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let Some(config) = self.tls.as_ref().and_then(|tls| tls.current()) else {
            return self.exchange(stream, peer, watcher).await;
        };
        let handshake = TlsAcceptor::from(config).accept(Wiping::new(stream));
        match tokio::time::timeout(self.head_time, handshake).await {
            Ok(Ok(stream)) => self.exchange(stream, peer, watcher).await,
            Ok(Err(_)) | Err(_) => self.metrics.handshake_failed(),
        }
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        peer: SocketAddr,
        watcher: Watcher,
    ) {
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            self.router.clone().call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_time)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(Wiping::new(stream)), service);
        // A connection that breaks is the peer's affair; what it asked for is settled by its own rules.
        drop(watcher.watch(connection).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A listener that serves one slow and one quick route without TLS, how to stop it, and its end.
    async fn start(limits: Limits) -> (SocketAddr, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let slow = || async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            "slow"
        };
        let router = Router::new().route("/quick", get(|| async { "quick" })).route("/slow", get(slow));
        let serving = Serving { listener, router, tls: None, limits, metrics: Arc::new(Metrics::new()) };
        let (stop, stopped) = watch::channel(false);
        (address, stop, tokio::spawn(serving.run(stopped)))
    }

    async fn ask(address: SocketAddr, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Whatever arrives until the peer closes or `within` is over.
    async fn read(stream: &mut TcpStream, within: Duration) -> String {
        let mut bytes = Vec::new();
        let _ = tokio::time::timeout(within, stream.read_to_end(&mut bytes)).await;
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test]
    async fn a_stop_lets_what_is_under_way_finish_and_takes_nothing_new() {
        let (address, stop, ended) = start(Limits::default()).await;
        let mut idle = ask(address, "/quick").await;
        let mut busy = ask(address, "/slow").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.send(true).unwrap();
        assert!(read(&mut busy, Duration::from_secs(5)).await.ends_with("slow"));
        assert!(read(&mut idle, Duration::from_secs(5)).await.ends_with("quick"));
        tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn past_the_cap_connections_wait_their_turn() {
        let limits = Limits { connections_max: 1, ..Limits::default() };
        let (address, _stop, _ended) = start(limits).await;
        let mut first = ask(address, "/quick").await;
        assert!(read(&mut first, Duration::from_millis(200)).await.ends_with("quick"));
        let mut second = ask(address, "/quick").await;
        assert_eq!(read(&mut second, Duration::from_millis(200)).await, "");
        drop(first);
        assert!(read(&mut second, Duration::from_secs(2)).await.ends_with("quick"));
    }

    #[tokio::test]
    async fn a_head_that_dawdles_or_does_not_fit_ends_the_connection() {
        let limits = Limits { header_seconds_max: 1, ..Limits::default() };
        let (address, _stop, _ended) = start(limits).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /quick HTTP/1.1\r\nhost:").await.unwrap();
        let began = std::time::Instant::now();
        assert!(!read(&mut slow, Duration::from_secs(5)).await.contains("200 OK"));
        assert!(began.elapsed() < Duration::from_secs(4));
        let mut large = TcpStream::connect(address).await.unwrap();
        let head = format!("GET /quick HTTP/1.1\r\nx: {}\r\n\r\n", "4242424242424242".repeat(1_000));
        let _ = large.write_all(head.as_bytes()).await;
        let answer = read(&mut large, Duration::from_secs(2)).await;
        assert!(!answer.contains("200 OK") && !answer.contains("4242424"));
    }
}
