//! The generator: one thread, epoll, TLS without a runtime, one request in flight on each connection. It must be lighter than what
//! it measures: requests are patched templates, and of an answer only status, length and a few marked values are read.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::histogram::Histogram;

/// Nothing at all for this long: what is measured hangs.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const EVENTS_AT_ONCE: usize = 256;
const READ_BYTES: usize = 16 << 10;

/// An answer, as much of it as the generator looks at.
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) head: &'a [u8],
    pub(super) body: &'a [u8],
    /// From the request's first byte to the answer's last.
    pub(super) took: Duration,
}

/// What is sent, and what is done with what comes back.
pub(super) trait Work {
    /// Appends the next request.
    fn request(&mut self, out: &mut Vec<u8>);
    /// Takes an answer; `false` if it is not the right one.
    fn answer(&mut self, answer: &Answer<'_>) -> bool;
    /// The warm-up is over.
    fn measure(&mut self) {}
}

/// What one slice came to.
#[derive(Clone, Debug, Default)]
pub(super) struct Slice {
    pub(super) times: Histogram,
    pub(super) elapsed: Duration,
    /// Wrong answers, with the status of the first.
    pub(super) failed: u64,
    pub(super) first_failure: Option<u16>,
}

/// Connections to one server.
pub(super) struct Load {
    poll: OwnedFd,
    lines: Vec<Line>,
}

struct Line {
    socket: TcpStream,
    tls: ClientConnection,
    answer: Vec<u8>,
    sent: Instant,
}

impl Load {
    /// Opens the connections, handshakes included.
    pub(super) fn connect(to: SocketAddr, ca_pem: &[u8], connections: usize) -> Result<Self, String> {
        let config = Arc::new(tls_config(ca_pem)?);
        let name = ServerName::from(to.ip());
        let failed = |error: std::io::Error| format!("a connection failed: {error}");
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        let mut lines = Vec::with_capacity(connections);
        for number in 0..connections {
            let mut socket = TcpStream::connect(to).map_err(failed)?;
            socket.set_nodelay(true).map_err(failed)?;
            let mut tls = ClientConnection::new(Arc::clone(&config), name.clone())
                .map_err(|_| "TLS cannot be set up".to_owned())?;
            while tls.is_handshaking() {
                tls.complete_io(&mut socket).map_err(failed)?;
            }
            socket.set_nonblocking(true).map_err(failed)?;
            let data = epoll::EventData::new_u64(u64::try_from(number).unwrap_or(u64::MAX));
            epoll::add(&poll, &socket, data, epoll::EventFlags::IN).map_err(|error| failed(error.into()))?;
            lines.push(Line { socket, tls, answer: Vec::with_capacity(READ_BYTES), sent: Instant::now() });
        }
        Ok(Self { poll, lines })
    }

    /// Sends until the time is over or `requests_max` are sent, then waits for the answers that are under way.
    pub(super) fn run(
        &mut self,
        work: &mut dyn Work,
        time: Duration,
        requests_max: u64,
    ) -> Result<Slice, String> {
        let broke = |error: std::io::Error| format!("a connection broke: {error}");
        let mut slice = Slice::default();
        let (begun, mut left, mut waiting) = (Instant::now(), requests_max, 0_usize);
        let mut request = Vec::with_capacity(2048);
        for line in &mut self.lines {
            if left == 0 {
                break;
            }
            left -= 1;
            waiting += 1;
            line.send(work, &mut request).map_err(broke)?;
        }
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        let mut bytes = vec![0; READ_BYTES];
        while waiting > 0 {
            self.wait(&mut events)?;
            let is_over = begun.elapsed() >= time;
            for event in events.drain(..) {
                let number = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
                let Some(line) = self.lines.get_mut(number) else { continue };
                if !line.receive(&mut bytes).map_err(broke)? {
                    continue;
                }
                let Some(answer) = line.take() else { continue };
                slice.times.count(answer.took);
                if !work.answer(&answer) {
                    slice.failed += 1;
                    slice.first_failure = slice.first_failure.or(Some(answer.status));
                }
                line.answer.clear();
                if is_over || left == 0 {
                    waiting -= 1;
                } else {
                    left -= 1;
                    line.send(work, &mut request).map_err(broke)?;
                }
            }
        }
        slice.elapsed = begun.elapsed();
        Ok(slice)
    }

    fn wait(&self, events: &mut Vec<epoll::Event>) -> Result<(), String> {
        let patience = rustix::time::Timespec { tv_sec: SILENCE_MAX.as_secs().cast_signed(), tv_nsec: 0 };
        let spare = rustix::buffer::spare_capacity(events);
        match epoll::wait(&self.poll, spare, Some(&patience)) {
            Ok(0) => Err(format!("no answer came for {} s", SILENCE_MAX.as_secs())),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(format!("waiting failed: {error}")),
        }
    }
}

impl Line {
    fn send(&mut self, work: &mut dyn Work, request: &mut Vec<u8>) -> std::io::Result<()> {
        request.clear();
        work.request(request);
        self.sent = Instant::now();
        self.tls.writer().write_all(request)?;
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                // Requests are small and one is in flight: the kernel's buffer is full for an instant at most.
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what has come; `true` if the answer may be whole.
    fn receive(&mut self, bytes: &mut [u8]) -> std::io::Result<bool> {
        match self.tls.read_tls(&mut self.socket) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        self.tls.process_new_packets().map_err(|_| ErrorKind::InvalidData)?;
        loop {
            match self.tls.reader().read(bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.answer.extend_from_slice(bytes.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(!self.answer.is_empty())
    }

    fn take(&self) -> Option<Answer<'_>> {
        let (status, head, body) = split(&self.answer)?;
        Some(Answer { status, head, body, took: self.sent.elapsed() })
    }
}

/// Status, head and body of an answer, once it is whole.
fn split(answer: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, rest) = answer.split_at_checked(end)?;
    let length: usize = std::str::from_utf8(value_of(head, b"content-length: ")?).ok()?.parse().ok()?;
    let body = rest.get(4..4 + length)?;
    let status = std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()?;
    Some((status, head, body))
}

/// The value of a header; `name` in lower case, as our own listener writes it, with colon and blank.
pub(super) fn value_of<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(name))
        .map(|value| value.strip_suffix(b"\r").unwrap_or(value))
}

fn tls_config(ca_pem: &[u8]) -> Result<ClientConfig, String> {
    let failed = || "the certificate authority cannot be used".to_owned();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        roots.add(certificate.map_err(|_| failed())?).map_err(|_| failed())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| failed())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_once_it_is_whole() {
        let whole =
            b"HTTP/1.1 201 Created\r\nvault-processor-ms: 20.1\r\ncontent-length: 2\r\ndate: x\r\n\r\n{}";
        for end in 0..whole.len() {
            assert!(split(&whole[..end]).is_none());
        }
        let (status, head, body) = split(whole).unwrap();
        assert_eq!((status, body), (201, b"{}".as_slice()));
        assert_eq!(value_of(head, b"vault-processor-ms: "), Some(b"20.1".as_slice()));
        assert_eq!(value_of(head, b"date: "), Some(b"x".as_slice()));
        assert_eq!(value_of(head, b"none: "), None);
    }
}
