//! The way back: a connection that can be cut at any byte of an answer, or carry more than one, which hyper itself
//! rightly never would.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

use super::numbers::Fault;
use super::reply::HANG;

/// What is to happen to the answer that is on its way.
#[derive(Default)]
struct Ahead {
    /// Bytes to send behind it.
    tail: Option<Vec<u8>>,
    cut: Option<Cut>,
    /// So many of its bytes go unharmed.
    left: usize,
    /// What was sent of it, if it is to be sent again.
    sent: Vec<u8>,
    /// The connection ends with a reset.
    resets: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Reset,
    Close,
    Stall,
    Garble,
    Twice,
}

/// The handle by which a request's answer is harmed.
#[derive(Clone, Default)]
pub(super) struct Way(Arc<Mutex<Ahead>>);

impl Way {
    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next answer goes unharmed.
    pub(super) fn clear(&self) {
        *self.ahead() = Ahead::default();
    }

    /// These bytes follow the answer.
    pub(super) fn send_behind(&self, tail: Vec<u8>) {
        self.ahead().tail = Some(tail);
    }

    /// The connection will be reset when it is dropped.
    pub(super) fn reset(&self) {
        self.ahead().resets = true;
    }

    /// Harms the next answer, if the fault is one that does: after so many of its bytes.
    pub(super) fn harm(&self, fault: Fault, at: u32) -> bool {
        let cuts = [
            (Fault::Reset, Cut::Reset),
            (Fault::Truncate, Cut::Close),
            (Fault::Stall, Cut::Stall),
            (Fault::Garbage, Cut::Garble),
            (Fault::Duplicate, Cut::Twice),
        ];
        let Some((_, cut)) = cuts.into_iter().find(|(known, _)| *known == fault) else { return false };
        let left = usize::try_from(at).unwrap_or(usize::MAX);
        *self.ahead() = Ahead { cut: Some(cut), left, ..Ahead::default() };
        true
    }
}

/// A stream that can end with a reset.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The next close is a reset.
    fn reset_at_close(&self);
}

impl Stream for TcpStream {
    fn reset_at_close(&self) {
        let _ = self.set_zero_linger();
    }
}

impl Stream for TlsStream<TcpStream> {
    fn reset_at_close(&self) {
        self.get_ref().0.reset_at_close();
    }
}

/// A connection whose answers can be harmed.
pub(super) struct Line<S: Stream> {
    stream: S,
    way: Way,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S: Stream> Line<S> {
    /// The connection, and what will be told of its answers by `way`.
    pub(super) fn new(stream: S, way: Way) -> Self {
        Self { stream, way, stalled: None }
    }

    /// The end of an answer that is cut here.
    fn poll_cut(&mut self, cut: Cut, context: &mut Context<'_>) -> Poll<io::Error> {
        match cut {
            Cut::Close => {
                let _ = ready!(Pin::new(&mut self.stream).poll_shutdown(context));
                Poll::Ready(io::ErrorKind::BrokenPipe.into())
            }
            Cut::Stall => {
                let _ = ready!(Pin::new(&mut self.stream).poll_flush(context));
                let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(HANG)));
                ready!(stalled.as_mut().poll(context));
                Poll::Ready(io::ErrorKind::TimedOut.into())
            }
            Cut::Reset | Cut::Garble | Cut::Twice => {
                let _ = ready!(Pin::new(&mut self.stream).poll_flush(context));
                self.way.reset();
                Poll::Ready(io::ErrorKind::ConnectionReset.into())
            }
        }
    }

    fn cut_here(&self) -> Option<Cut> {
        let ahead = self.way.ahead();
        ahead.cut.filter(|cut| ahead.left == 0 && matches!(cut, Cut::Reset | Cut::Close | Cut::Stall))
    }
}

impl<S: Stream> Drop for Line<S> {
    fn drop(&mut self) {
        if self.way.ahead().resets {
            self.stream.reset_at_close();
        }
    }
}

impl<S: Stream> AsyncRead for Line<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: Stream> AsyncWrite for Line<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let line = self.get_mut();
        if let Some(cut) = line.cut_here() {
            return line.poll_cut(cut, context).map(Err);
        }
        let (cut, left) = {
            let ahead = line.way.ahead();
            (ahead.cut, ahead.left)
        };
        let garbled: Vec<u8>;
        let bytes = match cut {
            Some(Cut::Garble) if left == 0 => {
                garbled = bytes.iter().map(|byte| byte ^ 0xa5).collect();
                &garbled
            }
            Some(Cut::Reset | Cut::Close | Cut::Stall | Cut::Garble) => {
                bytes.get(..left.min(bytes.len())).unwrap_or_default()
            }
            Some(Cut::Twice) | None => bytes,
        };
        let written = ready!(Pin::new(&mut line.stream).poll_write(context, bytes))?;
        let mut ahead = line.way.ahead();
        ahead.left = ahead.left.saturating_sub(written);
        if cut == Some(Cut::Twice) {
            ahead.sent.extend_from_slice(bytes.get(..written).unwrap_or_default());
        }
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.way.ahead().cut.is_none() {
            return Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices);
        }
        let first = slices.iter().find(|slice| !slice.is_empty());
        self.poll_write(context, first.map_or(&[], |slice| slice))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// The answer's bytes have been written when hyper flushes: now comes the cut, or what follows, whole or not at all.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let line = self.get_mut();
        if let Some(cut) = line.cut_here() {
            return line.poll_cut(cut, context).map(Err);
        }
        let tail = {
            let mut ahead = line.way.ahead();
            let is_sent = !ahead.sent.is_empty();
            let again = is_sent.then(|| std::mem::take(&mut ahead.sent));
            if is_sent {
                ahead.cut = None;
            }
            again.or_else(|| ahead.tail.take())
        };
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
