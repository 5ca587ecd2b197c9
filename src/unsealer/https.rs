//! HTTPS to the one host of a root provider: one request to a connection, no redirect, no proxy, TLS 1.2 or later, an answer of bounded
//! length in bounded time.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::provider::ProviderError;
use crate::wire::unsealer::ProviderFault;

/// For all that one task asks of the host: less than the supervisor waits, so that a slow one is told from a dead unsealer.
const TASK_WITHIN: Duration = Duration::from_secs(15);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// An engine lists all of its keys at once.
const ANSWER_BYTES_MAX: usize = 1 << 20;
const TRUST_BYTES_MAX: u64 = 4 << 20;

/// A host, and what its certificate has to chain to.
pub struct Host {
    setting: &'static str,
    host: String,
    port: u16,
    authority: HeaderValue,
    prefix: String,
    tls: TlsConnector,
    runtime: Runtime,
    until: Instant,
}

/// What it answered.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body; it may hold the KEK.
    pub body: Zeroizing<Vec<u8>>,
}

impl Host {
    /// The host of an `https://` URL. `setting` is what sentences call it, such as `keys.transit`.
    pub fn new(setting: &'static str, url: &str, trust: File) -> Result<Self, ProviderError> {
        let wrong = |what: &str| ProviderError::new(ProviderFault::Refused, format!("{setting}.{what}"));
        let uri: Uri = url.parse().map_err(|_| wrong("url: this is no URL"))?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https"));
        let authority =
            authority.ok_or_else(|| wrong("url: use https://, a host, and a port if it is not 443"))?;
        let header = HeaderValue::from_str(authority.as_str()).map_err(|_| wrong("url: this is no URL"))?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| wrong("url: TLS cannot be spoken here"))?
            .with_root_certificates(
                read_trust(trust).ok_or_else(|| wrong("trust: the file holds no PEM certificates"))?,
            )
            .with_no_client_auth();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            setting,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(443),
            authority: header,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            tls: TlsConnector::from(Arc::new(config)),
            until: Instant::now() + TASK_WITHIN,
            runtime: runtime.map_err(|_| wrong("url: this process may make no connection"))?,
        })
    }

    /// Another task begins.
    pub fn begin(&mut self) {
        self.until = Instant::now() + TASK_WITHIN;
    }

    /// `host:port`, as the header says it.
    pub fn authority(&self) -> &str {
        self.authority.to_str().unwrap_or_default()
    }

    /// Sends one request, once, and reads the answer.
    pub fn ask(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, ProviderError> {
        let malformed =
            || self.unavailable("a header or path cannot be sent; look at this section and its files");
        let mut request = Request::new(Full::new(Bytes::copy_from_slice(body)));
        *request.method_mut() = method.clone();
        *request.uri_mut() = format!("{}{path}", self.prefix).parse().map_err(|_| malformed())?;
        request.headers_mut().insert(HOST, self.authority.clone());
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| malformed())?;
            request.headers_mut().insert(name, HeaderValue::from_str(value).map_err(|_| malformed())?);
        }
        self.runtime.block_on(self.exchange(request))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, ProviderError> {
        let connect = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
            let stream = stream.map_err(|error| format!("it cannot be reached: {}", error.kind()))?;
            let name = ServerName::try_from(self.host.clone()).map_err(|_| "its name is none".to_owned())?;
            let stream = self.tls.connect(name, stream).await;
            stream.map_err(|_| {
                "its certificate is not one that trust vouches for, or it speaks no TLS".to_owned()
            })
        };
        let until = tokio::time::Instant::from_std(self.until);
        let connected = tokio::time::timeout(
            CONNECT_WITHIN.min(until.duration_since(tokio::time::Instant::now())),
            connect,
        )
        .await;
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            Ok(Err(why)) => return Err(self.unavailable(&why)),
            Err(_) => return Err(self.unavailable("no connection came about in time")),
        };
        let exchange = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
            let driving = tokio::spawn(connection);
            let answer = sender.send_request(request).await.ok()?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.ok()?.to_bytes();
            driving.abort();
            Some(Answer { status, body: Zeroizing::new(body.to_vec()) })
        };
        match tokio::time::timeout_at(until, exchange).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(self.unavailable("it broke the answer off")),
            Err(_) => Err(self.unavailable("it did not answer in time")),
        }
    }

    /// The host cannot be reached, or not now.
    pub fn unavailable(&self, why: &str) -> ProviderError {
        ProviderError::new(ProviderFault::Unavailable, format!("{}: {why}", self.setting))
    }
}

fn read_trust(file: File) -> Option<RootCertStore> {
    let mut pem = Vec::new();
    file.take(TRUST_BYTES_MAX).read_to_end(&mut pem).ok()?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.ok()?).ok()?;
    }
    (!roots.is_empty()).then_some(roots)
}
