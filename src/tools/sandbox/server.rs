//! The listener: TLS or plain HTTP, one task per connection, requests to the wire form that their path belongs to.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request as HttpRequest, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::ledger::Wire;
use super::processor::{Arrived, Sandbox};
use super::reply::{self, Answer, Dropped, Reply, Tail};
use super::{admin, plain, stripe};

/// A request body may hold so much.
const BODY_BYTES_MAX: usize = 64 * 1024;
const CONNECTIONS_MAX: usize = 4096;

/// How a sandbox is to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The ledger's file.
    pub ledger: PathBuf,
    /// The accepted API secret; without one every credential is taken.
    pub secret: Option<String>,
    /// How long after a request's last byte it is answered, in milliseconds.
    pub processor_ms: u64,
    /// How long look-ups by reference do not see a new payment, in seconds of the sandbox's clock.
    pub search_lag_s: i64,
    /// Certificate chain and key, both PEM files; plain HTTP without.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// A listener that is bound, with everything read, ready to serve.
pub struct Server {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    sandbox: Arc<Sandbox>,
}

impl Server {
    /// Opens the ledger and binds the listener. Plain HTTP is for loopback only. Must be called inside a Tokio runtime.
    pub async fn bind(settings: &Settings) -> io::Result<Self> {
        if settings.tls.is_none() && !settings.listen.ip().is_loopback() {
            return Err(io::Error::other("plain HTTP is for loopback only: give --certificate and --key"));
        }
        let tls = settings.tls.as_ref().map(|(certificate, key)| acceptor(certificate, key)).transpose()?;
        let sandbox = Arc::new(Sandbox::open(settings)?);
        let listener = TcpListener::bind(settings.listen).await?;
        Ok(Self { listener, tls, sandbox })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Its address as a URL.
    pub fn url(&self) -> io::Result<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", self.address()?))
    }

    /// Serves until the future is dropped; connections end with it.
    pub async fn serve(self) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut tasks = JoinSet::new();
        tasks.spawn(settle(Arc::clone(&self.sandbox)));
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let Ok((stream, peer)) = self.listener.accept().await else {
                // Out of descriptors, most likely: give the others time to end.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let _ = stream.set_nodelay(true);
            let (sandbox, tls) = (Arc::clone(&self.sandbox), self.tls.clone());
            tasks.spawn(async move {
                connection(sandbox, tls, stream, peer).await;
                drop(place);
            });
        }
    }
}

/// Decides pending payments once a second, while the sandbox lives.
async fn settle(sandbox: Arc<Sandbox>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = sandbox.now();
        if sandbox.book().settle_pending(now).is_err() {
            return;
        }
    }
}

async fn connection(sandbox: Arc<Sandbox>, tls: Option<TlsAcceptor>, stream: TcpStream, peer: SocketAddr) {
    match tls {
        None => exchange(sandbox, stream, peer).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                exchange(sandbox, stream, peer).await;
            }
        }
    }
}

async fn exchange<S>(sandbox: Arc<Sandbox>, stream: S, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let tail = Tail::default();
    let line = Line { stream, tail: Arc::clone(&tail) };
    let service = service_fn(move |request| {
        let (sandbox, tail) = (Arc::clone(&sandbox), Arc::clone(&tail));
        async move { answer(&sandbox, request, tail, peer).await }
    });
    // A connection that breaks is the table's doing or the caller's: nothing to tell.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(line), service).await;
}

async fn answer(
    sandbox: &Sandbox,
    request: HttpRequest<Incoming>,
    tail: Tail,
    peer: SocketAddr,
) -> Result<Response<Answer>, Dropped> {
    let (parts, body) = request.into_parts();
    let is_plain = parts.uri.path().starts_with("/v1/payments");
    let wire = if is_plain { Wire::Json } else { Wire::Stripe };
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        let refused =
            reply::error(wire, StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large.");
        return Ok(reply::closing(refused.send()));
    };
    let arrived = Arrived { parts, body: body.to_bytes(), at: Instant::now(), tail };
    if arrived.parts.uri.path().starts_with("/sandbox/") {
        return Ok(if peer.ip().is_loopback() {
            admin::answer(sandbox, &arrived).await
        } else {
            Reply::json(StatusCode::NOT_FOUND, &serde_json::json!({})).send()
        });
    }
    if !sandbox.is_authentic(&arrived) {
        let refused =
            reply::error(wire, StatusCode::UNAUTHORIZED, "unauthorized", "Invalid API key provided.");
        return Ok(refused.send());
    }
    if arrived.parts.method == Method::GET
        && let Some(fault) = sandbox.look_up_fault()
    {
        return Reply::json(StatusCode::OK, &serde_json::json!({}))
            .send_with(fault, wire, None, &arrived.tail)
            .await;
    }
    match wire {
        Wire::Json => plain::answer(sandbox, arrived).await,
        Wire::Stripe => stripe::answer(sandbox, arrived).await,
    }
}

fn acceptor(certificate: &Path, key: &Path) -> io::Result<TlsAcceptor> {
    let bad = |_| io::Error::new(io::ErrorKind::InvalidData, "the certificate or key file is not usable PEM");
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(bad)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(bad)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A connection that can send bytes behind an answer, which hyper itself rightly never would.
struct Line<S> {
    stream: S,
    tail: Tail,
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// The answer's bytes have been written when hyper flushes: now the tail follows, whole or not at all.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let line = self.get_mut();
        let tail = line.tail.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(tail) = tail
            && let Poll::Ready(Err(error)) = Pin::new(&mut line.stream).poll_write(context, &tail)
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut line.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
