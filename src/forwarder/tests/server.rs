//! A TLS server on a raw socket: what it does with a connection is a function of the test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

const PATIENCE: Duration = Duration::from_secs(3);

pub(super) const APPROVED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 43\r\n\r\n\
    {\"status\":\"approved\",\"id\":\"p\",\"amount\":500}";

/// A certificate authority, and what it says of the server.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
}

impl Authority {
    pub(super) fn make() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for a name, good until a year ends.
    pub(super) fn certify(&self, name: &str, year: i32) -> (String, KeyPair) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key)
    }

    fn config(&self, name: &str, year: i32) -> Arc<ServerConfig> {
        let (pem, key) = self.certify(name, year);
        let certificate = rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Arc::new(config)
    }
}

/// A connection in the server's hands.
pub(super) struct Connection {
    tls: StreamOwned<ServerConnection, TcpStream>,
    waiting: Vec<u8>,
    requests: Arc<AtomicUsize>,
    /// Which connection of the server it is, from zero.
    pub(super) number: usize,
}

impl Connection {
    /// Reads a request to its end and counts it; `None` if the client closed instead.
    pub(super) fn read_request(&mut self) -> Option<String> {
        loop {
            let text = String::from_utf8_lossy(&self.waiting).to_ascii_lowercase();
            if let Some(head) = text.find("\r\n\r\n") {
                let length = text[..head].split("content-length: ").nth(1);
                let length = length.map_or(0, |l| l.split("\r\n").next().unwrap().parse().unwrap());
                if text.len() >= head + 4 + length {
                    let request: Vec<u8> = self.waiting.drain(..head + 4 + length).collect();
                    self.requests.fetch_add(1, Ordering::SeqCst);
                    return Some(String::from_utf8(request).unwrap());
                }
            }
            let mut some = [0; 4096];
            let read = self.tls.read(&mut some).ok().filter(|read| *read > 0)?;
            self.waiting.extend_from_slice(&some[..read]);
        }
    }

    /// Writes; a client that is gone already is no fault of the server's.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        let _ = self.tls.write_all(bytes).and_then(|()| self.tls.flush());
    }

    /// Ends TLS properly.
    pub(super) fn close(&mut self) {
        self.tls.conn.send_close_notify();
        let _ = self.tls.flush();
    }

    /// Breaks the connection: the client gets a reset.
    pub(super) fn reset(&mut self) {
        rustix::net::sockopt::set_socket_linger(&self.tls.sock, Some(Duration::ZERO)).unwrap();
    }
}

/// A server that ends when dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) authority: Authority,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(serve: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        Self::start_as("127.0.0.1", 2040, serve)
    }

    /// With a certificate for a name, good until a year ends.
    pub(super) fn start_as(
        name: &str,
        year: i32,
        serve: impl Fn(&mut Connection) + Send + Sync + 'static,
    ) -> Self {
        let authority = Authority::make();
        let config = authority.config(name, year);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let stopping = Arc::new(AtomicBool::new(false));
        let (counting, counted, stop, serve) =
            (Arc::clone(&requests), Arc::clone(&connections), Arc::clone(&stopping), Arc::new(serve));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_nodelay(true).unwrap();
                let tls = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let (requests, serve) = (Arc::clone(&counting), Arc::clone(&serve));
                std::thread::spawn(move || {
                    serve(&mut Connection { tls, waiting: Vec::new(), requests, number });
                });
            }
        });
        Self { address, authority, requests, connections, stopping, thread: Some(thread) }
    }

    /// Answers each request so, on connections that stay.
    pub(super) fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |connection| {
            while connection.read_request().is_some() {
                connection.write(&answer);
            }
        })
    }

    pub(super) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(super) fn destination(&self, name: &str) -> crate::wire::control::Destination {
        super::destination(name, &self.url(), &self.authority.pem)
    }

    /// Requests that were read whole, and connections.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.requests.load(Ordering::SeqCst), self.connections.load(Ordering::SeqCst))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
