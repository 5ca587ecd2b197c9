//! A receiver of webhooks over TLS: it behaves by path, as it is told, and remembers what it took.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use data_encoding::BASE64;
use ring::hmac;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

/// What happens at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Answer(u16),
    Garbage,
    Hang,
    /// The connection ends without an answer.
    Close,
}

/// A message as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) path: String,
    pub(crate) head: String,
    pub(crate) text: String,
}

impl Arrived {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
    }

    pub(crate) fn body(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub(crate) fn kind(&self) -> String {
        self.body()["type"].as_str().unwrap().to_owned()
    }

    /// How many of its signatures are of this secret: as any library of Standard Webhooks checks them.
    pub(crate) fn signed_with(&self, secret: &str) -> usize {
        let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap().as_bytes()).unwrap();
        let signed = format!("{}.{}.{}", self.id(), self.header("webhook-timestamp"), self.text);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes());
        let wanted = format!("v1,{}", BASE64.encode(tag.as_ref()));
        self.header("webhook-signature").split(' ').filter(|one| *one == wanted).count()
    }

    pub(crate) fn signatures(&self) -> usize {
        self.header("webhook-signature").split(' ').count()
    }
}

#[derive(Default)]
struct Shared {
    arrived: Mutex<Vec<Arrived>>,
    behaves: Mutex<HashMap<String, Behaviour>>,
    stopping: AtomicBool,
}

/// The server; it ends when dropped.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// With the certificate that `init` made for the sandbox.
    pub(crate) fn start(tls: &Path) -> Self {
        let certificates = CertificateDer::pem_file_iter(tls.join("sandbox.pem")).unwrap();
        let certificates = certificates.collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(tls.join("sandbox.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let (config, shared) = (Arc::clone(&config), Arc::clone(&serving));
                std::thread::spawn(move || serve(stream.unwrap(), config, &shared));
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// From now on this happens at the path; before, all is taken.
    pub(crate) fn behave(&self, path: &str, behaviour: Behaviour) {
        self.shared.behaves.lock().unwrap().insert(path.to_owned(), behaviour);
    }

    /// All that arrived whole at a path, in order.
    pub(crate) fn at(&self, path: &str) -> Vec<Arrived> {
        let arrived = self.shared.arrived.lock().unwrap();
        arrived.iter().filter(|one| one.path == path).cloned().collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, shared: &Shared) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    while let Some(arrived) = read(&mut tls) {
        let behaves = shared.behaves.lock().unwrap().get(&arrived.path).copied();
        shared.arrived.lock().unwrap().push(arrived);
        let answer = match behaves.unwrap_or(Behaviour::Answer(200)) {
            Behaviour::Answer(302) => {
                "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n".to_owned()
            }
            Behaviour::Answer(status) => format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok"),
            Behaviour::Garbage => "\u{1}\u{2}garbage\r\n\r\n".to_owned(),
            Behaviour::Close => return,
            Behaviour::Hang => {
                let mut left = 600;
                while left > 0 && !shared.stopping.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(50));
                    left -= 1;
                }
                return;
            }
        };
        if tls.write_all(answer.as_bytes()).and_then(|()| tls.flush()).is_err() {
            return;
        }
    }
}

fn read(tls: &mut StreamOwned<ServerConnection, TcpStream>) -> Option<Arrived> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some(end) = text.find("\r\n\r\n") {
            let head = text[..end].to_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                return Some(Arrived { path, head, text: text[end + 4..].to_owned() });
            }
        }
        let mut some = [0; 4096];
        let read = tls.read(&mut some).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&some[..read]);
    }
}
