//! A frame: `length(4, LE) ‖ id(8, LE) ‖ message (postcard)`. The length counts id and message. The id is the asker's; the
//! answer carries the same, so that many may be in flight and answers may overtake each other.

use std::io::{self, Read, Write};

use postcard::ser_flavors::Size;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest frame: a reload with many connectors and certificates is the largest message there is.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Length and id.
pub const HEADER_BYTES: usize = 12;

/// Why a frame could not be written or read; the pair is of no use after it.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other end is gone.
    #[error("the other end is gone")]
    Closed,
    /// The socket failed.
    #[error("the socket failed: {}", .0.kind())]
    Io(#[from] io::Error),
    /// A frame over [`FRAME_BYTES_MAX`].
    #[error("a frame is over the limit")]
    TooLarge,
    /// Not a message of this version.
    #[error("a frame holds no message of this version")]
    Malformed,
}

/// How many bytes a message takes in a frame, next to the header.
pub fn bytes_of<M: Serialize>(message: &M) -> usize {
    // What cannot be written fits nowhere.
    postcard::serialize_with_flavor(message, Size::default()).unwrap_or(usize::MAX)
}

/// Appends one frame to `out`; if it cannot be written, `out` stays as it is.
pub fn encode<M: Serialize>(id: u64, message: &M, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&id.to_le_bytes());
    if postcard::to_io(message, &mut *out).is_err() {
        out.truncate(start);
        return Err(FrameError::Malformed);
    }
    let length = out.len().saturating_sub(start).saturating_sub(4);
    if length > FRAME_BYTES_MAX {
        out.truncate(start);
        return Err(FrameError::TooLarge);
    }
    let length = u32::try_from(length).map_err(|_| FrameError::TooLarge)?;
    if let Some(head) = out.get_mut(start..start + 4) {
        head.copy_from_slice(&length.to_le_bytes());
    }
    Ok(())
}

/// The length that a header announces, without the four bytes of the length itself.
pub fn announced(header: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(Ok(length)) = header.get(..4).map(<[u8; 4]>::try_from) else { return Ok(None) };
    let length = usize::try_from(u32::from_le_bytes(length)).map_err(|_| FrameError::TooLarge)?;
    match length {
        0..8 => Err(FrameError::Malformed),
        8..=FRAME_BYTES_MAX => Ok(Some(length)),
        _ => Err(FrameError::TooLarge),
    }
}

/// Reads id and message from a frame's bytes after the length.
pub fn decode<M: DeserializeOwned>(frame: &[u8]) -> Result<(u64, M), FrameError> {
    let (id, message) = frame.split_first_chunk::<8>().ok_or(FrameError::Malformed)?;
    let message = postcard::from_bytes(message).map_err(|_| FrameError::Malformed)?;
    Ok((u64::from_le_bytes(*id), message))
}

/// A blocking reader of frames that takes in all that has arrived with one system call, so that the answers to a burst can
/// leave with one as well.
#[derive(Debug)]
pub struct FrameReader<R> {
    from: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

const READ_BYTES: usize = 64 << 10;

impl<R: Read> FrameReader<R> {
    /// Reads frames from `from`.
    pub fn new(from: R) -> Self {
        Self { from, buffer: vec![0; READ_BYTES], start: 0, end: 0 }
    }

    /// Whether a whole frame has arrived already.
    pub fn has_whole(&self) -> bool {
        let waiting = self.buffer.get(self.start..self.end).unwrap_or(&[]);
        matches!(announced(waiting), Ok(Some(length)) if waiting.len() >= length + 4)
    }

    /// The next message; blocks until it is there. The bytes it was read from are wiped.
    pub fn read<M: DeserializeOwned>(&mut self) -> Result<(u64, M), FrameError> {
        loop {
            let waiting = self.buffer.get(self.start..self.end).unwrap_or(&[]);
            if let Some(length) = announced(waiting)?
                && let Some(frame) = waiting.get(4..4 + length)
            {
                let message = decode(frame);
                let end = self.start + 4 + length;
                if let Some(read) = self.buffer.get_mut(self.start..end) {
                    zeroize::Zeroize::zeroize(read);
                }
                self.start = end;
                return message;
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<(), FrameError> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            let kept = self.end - self.start;
            if let Some(moved) = self.buffer.get_mut(kept..self.end) {
                zeroize::Zeroize::zeroize(moved);
            }
            (self.start, self.end) = (0, kept);
        }
        if self.end == self.buffer.len() {
            let wanted = announced(&self.buffer)?.unwrap_or(0) + 4;
            self.buffer.resize(wanted.max(self.buffer.len() * 2), 0);
        }
        let free = self.buffer.get_mut(self.end..).unwrap_or_default();
        match self.from.read(free) {
            Ok(0) => Err(FrameError::Closed),
            Ok(read) => {
                self.end += read;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(FrameError::Closed),
            Err(error) => Err(FrameError::Io(error)),
        }
    }
}

/// Writes one message.
pub fn write<M: Serialize>(to: &mut impl Write, id: u64, message: &M) -> Result<(), FrameError> {
    let mut bytes = Vec::with_capacity(512);
    encode(id, message, &mut bytes)?;
    to.write_all(&bytes)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A reader that gives what it has in pieces of a fixed size.
    struct Pieces(Vec<u8>, usize, usize);
    impl Read for Pieces {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(out.len()).min(self.0.len() - self.2);
            out[..n].copy_from_slice(&self.0[self.2..self.2 + n]);
            self.2 += n;
            Ok(n)
        }
    }

    proptest! {
        #[test]
        fn frames_arrive_whole_and_in_order_however_they_are_cut(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2000), 1..20),
            piece in 1_usize..5000,
        ) {
            let mut bytes = Vec::new();
            for (id, message) in messages.iter().enumerate() {
                encode(id as u64, message, &mut bytes).unwrap();
            }
            let mut reader = FrameReader::new(Pieces(bytes, piece, 0));
            for (id, message) in messages.iter().enumerate() {
                prop_assert_eq!(reader.read::<Vec<u8>>().unwrap(), (id as u64, message.clone()));
            }
            prop_assert!(matches!(reader.read::<Vec<u8>>(), Err(FrameError::Closed)));
        }
    }

    #[test]
    fn a_frame_over_the_limit_ends_the_pair() {
        let bytes = u32::MAX.to_le_bytes().to_vec();
        let mut reader = FrameReader::new(io::Cursor::new(bytes));
        assert!(matches!(reader.read::<u8>(), Err(FrameError::TooLarge)));
    }
}
