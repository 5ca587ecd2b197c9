//! Wipes what TLS and HTTP leave in their read buffers. Both keep one buffer for a connection's life: rustls decrypts in it, hyper
//! parses in it, and neither clears it, so the last card of a kept-alive connection (at the edge a caller's, at the forwarder one that
//! a processor quoted) would lie there until the next request. Whoever reads hands that buffer down to be filled; before it is filled
//! again, it is cleared here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose reader finds its buffer cleared of what it read before.
pub(crate) struct Wiping<S> {
    stream: S,
    /// Something was read since the buffer was last cleared. A connection always reads once more after a request, to learn of the
    /// next one, so that nothing stays for longer than the request.
    is_dirty: bool,
}

impl<S> Wiping<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, is_dirty: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wiping<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_dirty {
            // What was not initialized yet is so with zeros; only the rest may hold what was read.
            let may_hold = into.initialized().len() - into.filled().len();
            into.initialize_unfilled().get_mut(..may_hold).unwrap_or_default().fill(0);
            self.is_dirty = false;
        }
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        self.is_dirty = into.filled().len() > before;
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wiping<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_next_read_clears_what_the_last_one_left() {
        let (mut near, far) = tokio::io::duplex(64);
        let mut wiping = Wiping::new(far);
        near.write_all(b"a secret").await.unwrap();
        let mut buffer = [0; 16];
        assert_eq!(wiping.read(&mut buffer).await.unwrap(), 8);
        assert_eq!(&buffer[..8], b"a secret");
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(10), wiping.read(&mut buffer));
        assert!(waiting.await.is_err());
        assert_eq!(buffer, [0; 16]);
        near.write_all(b"more").await.unwrap();
        assert_eq!(wiping.read(&mut buffer).await.unwrap(), 4);
        assert_eq!(&buffer[..5], b"more\0");
    }

    #[tokio::test]
    async fn what_a_reader_calls_uninitialized_is_cleared_as_well() {
        let (mut near, far) = tokio::io::duplex(64);
        let mut wiping = Wiping::new(far);
        let mut memory = Vec::with_capacity(16);
        for word in [&b"a secret"[..], b"more"] {
            near.write_all(word).await.unwrap();
            let mut buffer = ReadBuf::uninit(memory.spare_capacity_mut());
            std::future::poll_fn(|context| Pin::new(&mut wiping).poll_read(context, &mut buffer))
                .await
                .unwrap();
            assert_eq!(buffer.filled(), word);
            if word == b"more" {
                assert!(
                    buffer.initialized()[4..].iter().all(|byte| *byte == 0)
                        && buffer.initialized().len() == 16
                );
            }
        }
        // A few bytes that are said to be initialized, as rustls says of all.
        near.write_all(b"end").await.unwrap();
        let mut memory = *b"an old secret...";
        let mut buffer = ReadBuf::new(&mut memory);
        buffer.set_filled(2);
        std::future::poll_fn(|context| Pin::new(&mut wiping).poll_read(context, &mut buffer)).await.unwrap();
        assert_eq!(&memory, b"anend\0\0\0\0\0\0\0\0\0\0\0");
    }
}
