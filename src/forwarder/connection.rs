//! One connection, driven by whoever uses it: no task of its own writes behind our back, so what is known of bytes that
//! left is known for certain once the connection is dropped.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_ENCODING, HeaderMap};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustix::net::{RecvFlags, Shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::fault::Fault;
use crate::wiping::Wiping;

/// An answer's body holds no more: answers are a few kilobytes.
pub(super) const BODY_BYTES_MAX: usize = 256 << 10;
/// An answer's head holds no more; also the size of hyper's buffers.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// When the first byte of a request was handed to the kernel. It counts below TLS: what is still in a buffer of ours was
/// not written, and never will be once the connection is dropped.
#[derive(Clone, Default)]
pub(super) struct Meter(Arc<Mutex<Option<Instant>>>);

impl Meter {
    /// When a byte was first written since [`restart`](Self::restart); `None` if certainly none was.
    pub(super) fn first_write(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn restart(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn wrote(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
    }
}

/// The socket, with its meter; shared with the connection, which looks for its end before it is used again.
pub(super) struct Wire {
    tcp: Arc<TcpStream>,
    meter: Meter,
}

impl Wire {
    fn write(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp.poll_write_ready(cx))?;
            match write(&self.tcp) {
                Ok(written) => {
                    if written > 0 {
                        self.meter.wrote();
                    }
                    return Poll::Ready(Ok(written));
                }
                // Readiness was stale and is cleared now.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.tcp.poll_read_ready(cx))?;
            match self.tcp.try_read(out.initialize_unfilled()) {
                Ok(read) => {
                    out.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, |tcp| tcp.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |tcp| tcp.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(rustix::net::shutdown(&*self.tcp, Shutdown::Write).map_err(io::Error::from))
    }
}

/// With or without TLS.
pub(super) enum Stream {
    /// As the settings of a development installation may say.
    Plain(Wire),
    /// Everything else.
    Tls(Box<TlsStream<Wiping<Wire>>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_read(cx, out),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, out),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_write_vectored(cx, slices),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

type Driver = Pin<Box<http1::Connection<TokioIo<Wiping<Stream>>, Full<Bytes>>>>;

/// A connection that can carry one request at a time.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// `None` once the connection has ended.
    driver: Option<Driver>,
    tcp: Arc<TcpStream>,
    meter: Meter,
}

/// An answer, read to its end.
pub(super) struct Got {
    /// The status code.
    pub(super) status: u16,
    /// Whether the body is as it is, not compressed.
    pub(super) is_identity: bool,
    /// The head's fields.
    pub(super) headers: HeaderMap,
    /// The body.
    pub(super) body: Vec<u8>,
}

/// The two ends of a socket that was just connected: what TLS or HTTP goes over, and what a [`Connection`] keeps.
pub(super) fn wire(tcp: TcpStream) -> (Wire, Arc<TcpStream>, Meter) {
    let (tcp, meter) = (Arc::new(tcp), Meter::default());
    (Wire { tcp: Arc::clone(&tcp), meter: meter.clone() }, tcp, meter)
}

impl Connection {
    /// Speaks HTTP/1.1 over a stream.
    pub(super) async fn new(stream: Stream, tcp: Arc<TcpStream>, meter: Meter) -> Result<Self, Fault> {
        let mut builder = http1::Builder::new();
        // Always the same size, so that what is handed down to be filled, and cleared, is the whole buffer.
        builder.read_buf_exact_size(Some(HEAD_BYTES_MAX));
        let (sender, driver) =
            builder.handshake(TokioIo::new(Wiping::new(stream))).await.map_err(|_| Fault::Protocol)?;
        Ok(Self { sender, driver: Some(Box::pin(driver)), tcp, meter })
    }

    /// Tells whether anything of the last request was written; true knowledge once the connection is dropped.
    pub(super) fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// Sends a request and reads its answer, whose body holds at most `body_bytes_max`.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        body_bytes_max: usize,
    ) -> Result<Got, Fault> {
        self.meter.restart();
        if drive(&mut self.driver, self.sender.ready()).await.is_err() {
            return Err(Fault::Closed);
        }
        let response = self.sender.send_request(request);
        let response = drive(&mut self.driver, response).await.map_err(|error| head_fault(&error))?;
        self.read(response, body_bytes_max).await
    }

    async fn read(
        &mut self,
        response: Response<hyper::body::Incoming>,
        body_bytes_max: usize,
    ) -> Result<Got, Fault> {
        let (head, mut body) = response.into_parts();
        if head.status.is_informational() {
            return Err(Fault::Protocol);
        }
        let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if declared > body_bytes_max {
            return Err(Fault::TooLarge);
        }
        let mut bytes = Vec::with_capacity(declared);
        while let Some(frame) = drive(&mut self.driver, body.frame()).await {
            let frame = frame.map_err(|error| body_fault(&error))?;
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > body_bytes_max {
                    return Err(Fault::TooLarge);
                }
                bytes.extend_from_slice(&data);
            }
        }
        let mut encodings = head.headers.get_all(CONTENT_ENCODING).into_iter();
        let is_identity = encodings.all(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"));
        Ok(Got { status: head.status.as_u16(), is_identity, headers: head.headers, body: bytes })
    }

    /// Whether another request may be written: nothing was received that nobody asked for, and the other side has not
    /// ended it as far as the kernel knows.
    pub(super) fn is_usable(&mut self) -> bool {
        let Some(driver) = &mut self.driver else { return false };
        // Whoever uses the connection next polls it with a waker of his own.
        if driver.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            self.driver = None;
            return false;
        }
        let mut byte = [0];
        let peeked = rustix::net::recv(&*self.tcp, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        self.sender.is_ready() && matches!(peeked, Err(rustix::io::Errno::AGAIN))
    }
}

/// Polls the connection along with what waits for it; a connection that ended is dropped, so that who waits learns it.
async fn drive<F: Future>(driver: &mut Option<Driver>, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(output);
        }
        if let Some(running) = driver
            && running.as_mut().poll(cx).is_ready()
        {
            *driver = None;
        }
        future.as_mut().poll(cx)
    })
    .await
}

/// What went wrong before an answer's head was read.
fn head_fault(error: &hyper::Error) -> Fault {
    if error.is_parse_too_large() {
        Fault::TooLarge
    } else if error.is_parse() {
        Fault::Protocol
    } else if error.is_user() {
        Fault::Request
    } else if is_io(error, io::ErrorKind::ConnectionReset) || is_io(error, io::ErrorKind::BrokenPipe) {
        Fault::Reset
    } else if is_io(error, io::ErrorKind::InvalidData) {
        Fault::Protocol
    } else {
        Fault::Closed
    }
}

/// What went wrong within an answer's body.
fn body_fault(error: &hyper::Error) -> Fault {
    if is_io(error, io::ErrorKind::ConnectionReset) {
        Fault::Reset
    } else if error.is_parse()
        || is_io(error, io::ErrorKind::InvalidInput)
        || is_io(error, io::ErrorKind::InvalidData)
    {
        Fault::Protocol
    } else {
        Fault::Truncated
    }
}

fn is_io(error: &hyper::Error, kind: io::ErrorKind) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == kind) {
            return true;
        }
        source = error.source();
    }
    false
}
