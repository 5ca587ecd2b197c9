//! The listener: TLS or plain HTTP, one task per connection, requests to the wire form that their path belongs to.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request as HttpRequest, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::faults::Occasion;
use super::ledger::Wire;
use super::numbers::Fault;
use super::processor::{Arrived, Sandbox};
use super::reply::{self, Answer, Dropped, Form, Reply};
use super::rules::Rules;
use super::way::{Line, Stream, Way};
use super::{admin, adyen, authorize_net, plain, stripe, worldpay};

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
    webhooks: Option<adyen::Webhooks>,
}

impl Server {
    /// Opens the ledger and binds the listener. Plain HTTP is for loopback only. Must be called inside a Tokio runtime.
    pub async fn bind(settings: &Settings) -> io::Result<Self> {
        Self::bind_with(settings, Rules::default(), None).await
    }

    /// The same, with rules other than each wire form's own, and with somebody who listens to Adyen's webhooks.
    pub async fn bind_with(
        settings: &Settings,
        rules: Rules,
        webhooks: Option<adyen::Webhooks>,
    ) -> io::Result<Self> {
        if settings.tls.is_none() && !settings.listen.ip().is_loopback() {
            return Err(io::Error::other("plain HTTP is for loopback only: give --certificate and --key"));
        }
        let tls = settings.tls.as_ref().map(|(certificate, key)| acceptor(certificate, key)).transpose()?;
        let sandbox = Arc::new(Sandbox::open(settings, rules)?);
        if webhooks.is_some() {
            sandbox.book().will_be_told();
        }
        let listener = TcpListener::bind(settings.listen).await?;
        Ok(Self { listener, tls, sandbox, webhooks })
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
        let Self { mut listener, tls, sandbox, webhooks } = self;
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut tasks = JoinSet::new();
        tasks.spawn(settle(Arc::clone(&sandbox)));
        if let Some(webhooks) = webhooks {
            tasks.spawn(webhooks.deliver(Arc::clone(&sandbox)));
        }
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                until = sandbox.is_to_refuse() => {
                    let Ok(again) = refuse_until(listener, until).await else { return };
                    listener = again;
                    continue;
                }
            };
            let Ok((stream, peer)) = accepted else {
                // Out of descriptors, most likely: give the others time to end.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            // The sandbox's own verbs come over connections too, and cannot be told apart yet: a fault that refuses
            // connections must not be asked for where its end has to be.
            if sandbox.meets(Occasion::Connection, None).fault == Fault::Refuse {
                stream.reset_at_close();
                continue;
            }
            let _ = stream.set_nodelay(true);
            let (sandbox, tls) = (Arc::clone(&sandbox), tls.clone());
            tasks.spawn(async move {
                connection(sandbox, tls, stream, peer).await;
                drop(place);
            });
        }
    }
}

/// Closes the listener, so that connections are refused, and opens it again at that time.
async fn refuse_until(listener: TcpListener, until: Instant) -> io::Result<TcpListener> {
    let address = listener.local_addr()?;
    drop(listener);
    tokio::time::sleep_until(until).await;
    TcpListener::bind(address).await
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

async fn exchange<S: Stream>(sandbox: Arc<Sandbox>, stream: S, peer: SocketAddr) {
    let way = Way::default();
    let line = Line::new(stream, way.clone());
    let service = service_fn(move |request| {
        let (sandbox, way) = (Arc::clone(&sandbox), way.clone());
        async move { answer(&sandbox, request, way, peer).await }
    });
    // A connection that breaks is the table's doing or the caller's: nothing to tell.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(line), service).await;
}

/// The form that a path belongs to. Authorize.Net has one path for two forms: the body tells which.
fn form_of(path: &str) -> Form {
    if path.starts_with("/v1/payments") {
        Form::Json
    } else if authorize_net::is_path(path) {
        Form::AuthorizeNetXml
    } else if worldpay::is_path(path) {
        Form::Worldpay
    } else if adyen::is_path(path) {
        Form::Adyen
    } else {
        Form::Stripe
    }
}

async fn answer(
    sandbox: &Sandbox,
    request: HttpRequest<Incoming>,
    way: Way,
    peer: SocketAddr,
) -> Result<Response<Answer>, Dropped> {
    let (parts, body) = request.into_parts();
    let is_admin = parts.uri.path().starts_with("/sandbox/");
    let form = form_of(parts.uri.path());
    way.clear();
    if !is_admin && sandbox.meets(Occasion::Head, Some(form.wire())).fault == Fault::ResetBefore {
        way.reset();
        return Err(Dropped);
    }
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        let refused =
            reply::error(form, StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large.");
        return Ok(reply::closing(refused.send()));
    };
    let arrived = Arrived { parts, body: body.to_bytes(), at: Instant::now(), way };
    if is_admin {
        return Ok(if peer.ip().is_loopback() {
            admin::answer(sandbox, &arrived).await
        } else {
            Reply::json(StatusCode::NOT_FOUND, &serde_json::json!({})).send()
        });
    }
    // Authorize.Net's credentials are in the body.
    if form.wire() != Wire::AuthorizeNet && !sandbox.is_authentic(&arrived) {
        let refused =
            reply::error(form, StatusCode::UNAUTHORIZED, "unauthorized", "Invalid API key provided.");
        return Ok(refused.send());
    }
    if arrived.parts.method == Method::GET {
        let met = sandbox.meets(Occasion::LookUp, Some(form.wire()));
        let is_harmed = (met.fault != Fault::Garbage || met.at.is_some())
            && arrived.way.harm(met.fault, met.at.unwrap_or(0));
        if !is_harmed && met.fault != Fault::None {
            let empty = Reply::json(StatusCode::OK, &serde_json::json!({}));
            return empty.send_with(met, form, None, &arrived.way).await;
        }
    }
    match form {
        Form::Json => plain::answer(sandbox, arrived).await,
        Form::Stripe => stripe::answer(sandbox, arrived).await,
        Form::Adyen => adyen::answer(sandbox, arrived).await,
        Form::AuthorizeNetXml | Form::AuthorizeNetJson => authorize_net::answer(sandbox, arrived).await,
        Form::Worldpay => worldpay::answer(sandbox, arrived).await,
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
