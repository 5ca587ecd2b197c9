//! A forward destination over TLS: it answers by path, and remembers what it was sent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Longer than any test waits.
const HANG: Duration = Duration::from_secs(60);

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) line: String,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Arrived {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// The server; it ends when dropped.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
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
        let (arrived, stopping) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (noting, stop) = (Arc::clone(&arrived), Arc::clone(&stopping));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (config, noting, stop) = (Arc::clone(&config), Arc::clone(&noting), Arc::clone(&stop));
                std::thread::spawn(move || serve(stream.unwrap(), config, &noting, &stop));
            }
        });
        Self { address, arrived, stopping, thread: Some(thread) }
    }

    /// All that arrived whole, in order.
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, noting: &Mutex<Vec<Arrived>>, stop: &AtomicBool) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let Some(request) = read(&mut tls) else { return };
    noting.lock().unwrap().push(request.clone());
    let path = request.line.split(' ').nth(1).and_then(|path| path.split('?').next());
    let path = path.unwrap_or_default().to_owned();
    if path == "/base/v1/hang" {
        let until = std::time::Instant::now() + HANG;
        while std::time::Instant::now() < until && !stop.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
        return;
    }
    let slow = matches!(path.as_str(), "/base/v1/slow" | "/base/v1/bulky");
    if slow {
        std::thread::sleep(Duration::from_secs(3));
    }
    let _ = tls.write_all(&answer(&path, &request, noting)).and_then(|()| tls.flush());
    tls.conn.send_close_notify();
    let _ = tls.flush();
}

fn answer(path: &str, request: &Arrived, noting: &Mutex<Vec<Arrived>>) -> Vec<u8> {
    let with = |status: &str, head: &str, body: &[u8]| {
        let mut out =
            format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{head}\r\n", body.len()).into_bytes();
        out.extend_from_slice(body);
        out
    };
    let json = "content-type: application/json\r\nrequest-id: req-77\r\nx-secret: hidden\r\n";
    match path {
        "/base/v1/redirect" => with("302 Found", "location: https://127.0.0.1:1/elsewhere\r\n", b""),
        "/base/v1/large" => with("200 OK", json, &vec![b' '; 100 << 10]),
        "/base/v1/bulky" => with("200 OK", json, format!("\"{}\"", "x".repeat(240 << 10)).as_bytes()),
        "/base/v1/gzip" => with("200 OK", "content-encoding: gzip\r\n", b"\x1f\x8b\x08\x00"),
        "/base/v1/refused" => with("402 Payment Required", json, br#"{"error":"card_declined"}"#),
        // What was parked here before, in the forms that processors repeat it in.
        "/base/v1/parked" => {
            let bodies: Vec<String> = noting.lock().unwrap().iter().map(|one| one.body.clone()).collect();
            let all = bodies.join("\n");
            let hex: String = all.bytes().map(|b| format!("{b:02x}")).collect();
            let spaced: String = all.chars().map(|c| format!("{c}.")).collect();
            let body = serde_json::json!({
                "id": "4000001234567899", "parked": all, "hex": hex, "spaced": spaced,
                "number": serde_json::from_str::<serde_json::Value>("5555555555554444").unwrap(),
                "5105105105105100": true, "amount": 1250, "rate": 1.10,
            });
            with("200 OK", json, body.to_string().as_bytes())
        }
        _ => with("200 OK", json, format!("{{\"echo\":{}}}", serde_json::json!(request.body)).as_bytes()),
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
                let line = head.lines().next().unwrap_or_default().to_owned();
                return Some(Arrived { line, head, body: text[end + 4..].to_owned() });
            }
        }
        let mut some = [0; 4096];
        let read = tls.read(&mut some).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&some[..read]);
    }
}
