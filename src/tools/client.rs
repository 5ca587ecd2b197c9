//! A small HTTP/1.1 client for our own tools and tests: TLS against one given authority, pooled connections, a bearer
//! credential. It says of every failure whether the request may have arrived, and never sends one twice.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long a connection may take, TLS handshake included.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long an answer may take, if nothing else is said.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// A pooled connection that idled longer is likely to be closed from the other side at the wrong moment.
const IDLE_MAX: Duration = Duration::from_secs(15);
/// An answer's body holds no more; whole exports are read with it.
const BODY_BYTES_MAX: usize = 256 << 20;

/// The settings do not make a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The URL is not `http://host[:port]` or `https://host[:port]`.
    #[error("the base URL must be http:// or https:// and a host")]
    Url,
    /// HTTPS needs the certificate authority to trust.
    #[error("https needs a usable certificate authority in PEM")]
    Authority,
    /// The credential cannot stand in a header.
    #[error("the credential cannot stand in a header")]
    Credential,
}

/// There is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Nothing was sent: no connection, no trust, or the request cannot be written at all.
    #[error("the request was not sent")]
    NotSent,
    /// It was sent, at least in part, and no whole answer came back in time.
    #[error("the request may have arrived, and its answer is lost")]
    Lost,
}

/// What a request carries.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// No body.
    None,
    /// A JSON document, with its content type.
    Json(&'a Value),
    /// Bytes as they are; the content type is the caller's.
    Bytes(&'a [u8]),
}

impl<'a> From<&'a Value> for Payload<'a> {
    fn from(value: &'a Value) -> Self {
        Self::Json(value)
    }
}

impl<'a> From<&'a [u8]> for Payload<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<Option<&'a Value>> for Payload<'a> {
    fn from(value: Option<&'a Value>) -> Self {
        value.map_or(Self::None, Self::Json)
    }
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A header's value, if it is there and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A client of one server. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    server: Arc<Server>,
    bearer: Option<HeaderValue>,
    answer_max: Duration,
}

struct Server {
    host: String,
    port: u16,
    host_header: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

impl Client {
    /// A client of the server at `base_url` (`https://host:port`, no path), which must show a certificate of the
    /// authority in `ca_pem`.
    pub fn new(base_url: &str, ca_pem: Option<&[u8]>, bearer: Option<&str>) -> Result<Self, SetupError> {
        let url: Uri = base_url.parse().map_err(|_| SetupError::Url)?;
        let authority = url.authority().ok_or(SetupError::Url)?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let (default_port, tls) = match url.scheme_str() {
            Some("http") => (80, None),
            Some("https") => {
                let name = ServerName::try_from(host.clone()).map_err(|_| SetupError::Url)?;
                (443, Some((connector(ca_pem.ok_or(SetupError::Authority)?)?, name)))
            }
            Some(_) | None => return Err(SetupError::Url),
        };
        let host_header = HeaderValue::from_str(authority.as_str()).map_err(|_| SetupError::Url)?;
        let port = authority.port_u16().unwrap_or(default_port);
        let server = Arc::new(Server { host, port, host_header, tls, idle: Mutex::new(Vec::new()) });
        let bearer = bearer.map(credential).transpose()?;
        Ok(Self { server, bearer, answer_max: ANSWER_MAX })
    }

    /// The same client with another credential; it shares the connections.
    pub fn with_bearer(&self, bearer: &str) -> Result<Self, SetupError> {
        Ok(Self { bearer: Some(credential(bearer)?), ..self.clone() })
    }

    /// The same client, waiting so long for an answer.
    #[must_use]
    pub fn with_timeout(&self, answer_max: Duration) -> Self {
        Self { answer_max, ..self.clone() }
    }

    /// Sends a request to `path` (query included) and reads the answer. It is sent once; only a pooled connection
    /// that turns out to be broken before anything was written is replaced by a fresh one, once.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Payload<'_>>,
    ) -> Result<Answer, ClientError> {
        let request = self.prepare(method, path, headers, body.into()).ok_or(ClientError::NotSent)?;
        let request = match self.server.take_idle() {
            None => request,
            Some(sender) => match self.exchange(sender, request).await {
                Err(Failure::Unsent(request)) => *request,
                Err(Failure::Lost) => return Err(ClientError::Lost),
                Ok(answer) => return Ok(answer),
            },
        };
        let sender = timeout(CONNECT_MAX, self.server.connect()).await.ok().flatten();
        let sender = sender.ok_or(ClientError::NotSent)?;
        self.exchange(sender, request).await.map_err(|failure| match failure {
            Failure::Unsent(_) => ClientError::NotSent,
            Failure::Lost => ClientError::Lost,
        })
    }

    /// `POST path` with a body that comes a piece at a time, on a connection of its own; it ends where the pieces end, and breaks off
    /// where one cannot be had.
    pub async fn upload(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        pieces: mpsc::Receiver<std::io::Result<Bytes>>,
    ) -> Result<Answer, ClientError> {
        let request = self.prepare("POST", path, headers, Payload::None).ok_or(ClientError::NotSent)?;
        let request = request.map(|_| Pieces(pieces));
        let sender = timeout(CONNECT_MAX, self.server.connect()).await.ok().flatten();
        let mut sender: SendRequest<Pieces> = sender.ok_or(ClientError::NotSent)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|_| Failure::Lost)?;
            read(response).await
        };
        match timeout(self.answer_max, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(ClientError::Lost),
        }
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.request("GET", path, &[], Payload::None).await
    }

    /// `POST path` with JSON and an idempotency key.
    pub async fn post(&self, path: &str, key: &str, body: &Value) -> Result<Answer, ClientError> {
        self.request("POST", path, &[("idempotency-key", key)], body).await
    }

    fn prepare(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Payload<'_>,
    ) -> Option<Request<Full<Bytes>>> {
        let (bytes, is_json) = match body {
            Payload::None => (Bytes::new(), false),
            Payload::Json(value) => (Bytes::from(serde_json::to_vec(value).ok()?), true),
            Payload::Bytes(bytes) => (Bytes::copy_from_slice(bytes), false),
        };
        let mut request = Request::new(Full::new(bytes));
        *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
        *request.uri_mut() = path.parse().ok()?;
        let to = request.headers_mut();
        to.insert(HOST, self.server.host_header.clone());
        if is_json {
            to.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(bearer) = &self.bearer {
            to.insert(AUTHORIZATION, bearer.clone());
        }
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            to.insert(name, HeaderValue::from_str(value).ok()?);
        }
        Some(request)
    }

    async fn exchange(
        &self,
        mut sender: SendRequest<Full<Bytes>>,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, Failure> {
        if sender.ready().await.is_err() {
            return Err(Failure::Unsent(Box::new(request)));
        }
        let exchange = async {
            let response = match sender.try_send_request(request).await {
                Ok(response) => response,
                Err(mut error) => {
                    return Err(error.take_message().map_or(Failure::Lost, |r| Failure::Unsent(Box::new(r))));
                }
            };
            read(response).await
        };
        let answer = timeout(self.answer_max, exchange).await.unwrap_or(Err(Failure::Lost))?;
        self.server.give_back(sender);
        Ok(answer)
    }
}

/// A body that comes a piece at a time.
struct Pieces(mpsc::Receiver<std::io::Result<Bytes>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

enum Failure {
    /// Nothing of it was written.
    Unsent(Box<Request<Full<Bytes>>>),
    Lost,
}

async fn read(response: Response<Incoming>) -> Result<Answer, Failure> {
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|_| Failure::Lost)?.to_bytes();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
}

impl Server {
    /// The pooled connection that was used last: the others may age and go.
    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        idle.retain(|idle| !idle.sender.is_closed() && now - idle.since < IDLE_MAX);
        idle.pop().map(|idle| idle.sender)
    }

    fn give_back(&self, sender: SendRequest<Full<Bytes>>) {
        if !sender.is_closed() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(Idle { sender, since: Instant::now() });
        }
    }

    async fn connect<B>(&self) -> Option<SendRequest<B>>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
    {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.ok()?;
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => start(stream).await,
            Some((connector, name)) => start(connector.connect(name.clone(), stream).await.ok()?).await,
        }
    }
}

type BodyError = Box<dyn std::error::Error + Send + Sync>;

async fn start<S, B>(stream: S) -> Option<SendRequest<B>>
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    // It ends with the connection; what went wrong is told to the request that met it.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Some(sender)
}

fn credential(bearer: &str) -> Result<HeaderValue, SetupError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {bearer}")).map_err(|_| SetupError::Credential)?;
    value.set_sensitive(true);
    Ok(value)
}

fn connector(ca_pem: &[u8]) -> Result<TlsConnector, SetupError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        let certificate = certificate.map_err(|_| SetupError::Authority)?;
        roots.add(certificate).map_err(|_| SetupError::Authority)?;
    }
    if roots.is_empty() {
        return Err(SetupError::Authority);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| SetupError::Authority)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;
    use crate::tools::sandbox::{self, Settings, numbers};

    /// A server that accepts connections on a thread and hands each to `serve`, until the process ends.
    fn server(serve: impl Fn(std::net::TcpStream, usize) + Send + 'static) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let n = counted.fetch_add(1, Ordering::SeqCst);
                serve(stream.unwrap(), n);
            }
        });
        (format!("http://{address}"), count)
    }

    fn read_request(stream: &std::net::TcpStream) {
        let mut lines = BufReader::new(stream);
        let (mut line, mut len) = (String::new(), 0);
        while lines.read_line(&mut line).unwrap() > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                len = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; len];
        lines.read_exact(&mut body).unwrap();
    }

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

    #[tokio::test]
    async fn a_pooled_connection_that_broke_is_replaced() {
        // Answers one request per connection and then closes it without having said so.
        let (url, connections) = server(|mut stream, _| {
            read_request(&stream);
            stream.write_all(OK).unwrap();
        });
        let client = Client::new(&url, None, None).unwrap();
        for _ in 0..3 {
            assert_eq!(client.post("/", "k", &json!({})).await.unwrap().status, 200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(connections.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_request_that_was_read_is_lost_and_not_sent_again() {
        let (url, connections) = server(|stream, _| read_request(&stream));
        let client = Client::new(&url, None, None).unwrap();
        assert_eq!(client.post("/", "k", &json!({})).await.unwrap_err(), ClientError::Lost);
        assert_eq!(connections.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_cut_answer_is_lost() {
        let (url, _) = server(|mut stream, _| {
            read_request(&stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}").unwrap();
        });
        let client = Client::new(&url, None, None).unwrap();
        assert_eq!(client.get("/").await.unwrap_err(), ClientError::Lost);
    }

    #[tokio::test]
    async fn nobody_listening_means_not_sent() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = Client::new(&format!("http://{free}"), None, None).unwrap();
        assert_eq!(client.get("/").await.unwrap_err(), ClientError::NotSent);
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for url in ["", "ftp://host", "localhost:80"] {
            assert_eq!(Client::new(url, None, None).err(), Some(SetupError::Url), "{url}");
        }
        assert_eq!(Client::new("https://host", None, None).err(), Some(SetupError::Authority));
        assert_eq!(Client::new("https://host", Some(b"no pem"), None).err(), Some(SetupError::Authority));
        assert_eq!(Client::new("http://host", None, Some("a\nb")).err(), Some(SetupError::Credential));
    }

    /// A sandbox under TLS with a certificate of its own, which is its authority too.
    async fn under_tls() -> (tempfile::TempDir, SocketAddr, Vec<u8>) {
        let directory = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let settings = Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            ledger: directory.path().join("ledger"),
            secret: Some("sk".to_owned()),
            processor_ms: 0,
            search_lag_s: 0,
            tls: Some((certificate, key)),
        };
        let server = sandbox::Server::bind(&settings).await.unwrap();
        let address = server.address().unwrap();
        tokio::spawn(server.serve());
        (directory, address, made.cert.pem().into_bytes())
    }

    #[tokio::test]
    async fn tls_trusts_the_given_authority_alone() {
        let (_directory, address, pem) = under_tls().await;
        let url = format!("https://{address}");
        let client = Client::new(&url, Some(&pem), Some("sk")).unwrap();
        let number = numbers::number(0, 0, numbers::Behaviour::Approve);
        let body = json!({
            "reference": "r", "operation": "sale", "amount": 5, "currency": "USD",
            "card": { "number": number, "exp_month": 1, "exp_year": 2030 },
        });
        let answer = client.post("/v1/payments", "k", &body).await.unwrap();
        assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("approved")));
        assert_eq!(client.with_bearer("other").unwrap().get("/v1/payments/x").await.unwrap().status, 401);
        let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap().cert.pem();
        let stranger = Client::new(&url, Some(other.as_bytes()), Some("sk")).unwrap();
        assert_eq!(stranger.get("/v1/payments/x").await.unwrap_err(), ClientError::NotSent);
    }

    #[tokio::test]
    async fn an_answer_that_takes_too_long_is_lost() {
        let (_directory, address, pem) = under_tls().await;
        let client = Client::new(&format!("https://{address}"), Some(&pem), Some("sk")).unwrap();
        let number = numbers::number(0, 0, numbers::Behaviour::Hang);
        let body = json!({
            "reference": "r", "operation": "sale", "amount": 5, "currency": "USD",
            "card": { "number": number, "exp_month": 1, "exp_year": 2030 },
        });
        let hasty = client.with_timeout(Duration::from_millis(200));
        assert_eq!(hasty.post("/v1/payments", "k", &body).await.unwrap_err(), ClientError::Lost);
        assert_eq!(
            client.post("/v1/payments", "k", &body).await.unwrap().json()["status"],
            json!("approved")
        );
    }
}
