//! Socket pairs between roles, and how a file descriptor travels over one: with the frame that speaks of it.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{self, FrameError, HEADER_BYTES};

/// At most this many descriptors travel with one message: two listeners and two pairs.
const FDS_MAX: usize = 4;

/// A connected pair; neither end survives an exec unless it is made a child's standard input.
pub fn make_pair() -> std::io::Result<(UnixStream, UnixStream)> {
    UnixStream::pair()
}

/// Writes one message with the descriptors that belong to it.
pub fn send<M: Serialize>(to: &UnixStream, message: &M, fds: &[BorrowedFd<'_>]) -> Result<(), FrameError> {
    let mut bytes = Vec::with_capacity(512);
    frame::encode(0, message, &mut bytes)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(FrameError::TooLarge);
    }
    let sent = rustix::net::sendmsg(to, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)
        .map_err(|error| FrameError::Io(error.into()))?;
    let rest = bytes.get(sent..).unwrap_or(&[]);
    (&*to).write_all(rest)?;
    Ok(())
}

/// Reads one message with its descriptors; blocks until it is there.
pub fn receive<M: DeserializeOwned>(from: &UnixStream) -> Result<(M, Vec<OwnedFd>), FrameError> {
    let mut header = [0_u8; HEADER_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let read = loop {
        match rustix::net::recvmsg(
            from,
            &mut [IoSliceMut::new(&mut header)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(message) => break message.bytes,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Err(FrameError::Closed),
            Err(error) => return Err(FrameError::Io(error.into())),
        }
    };
    if read == 0 {
        return Err(FrameError::Closed);
    }
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    (&*from).read_exact(header.get_mut(read..).unwrap_or_default())?;
    let length = frame::announced(&header)?.ok_or(FrameError::Malformed)?;
    let mut body = vec![0; length];
    let (id, message) = body.split_at_mut(8);
    id.copy_from_slice(header.get(4..).unwrap_or_default());
    (&*from).read_exact(message)?;
    let (_, message) = frame::decode(&body)?;
    Ok((message, fds))
}

/// The pair that a role finds on its standard input: its line to the supervisor.
pub fn from_stdin() -> std::io::Result<UnixStream> {
    Ok(UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_arrives_with_its_message() {
        let (a, b) = make_pair().unwrap();
        let (mut c, d) = make_pair().unwrap();
        send(&a, &"here", &[d.as_fd()]).unwrap();
        send(&a, &"alone", &[]).unwrap();
        let (word, fds): (String, _) = receive(&b).unwrap();
        assert_eq!((word.as_str(), fds.len()), ("here", 1));
        let mut end = UnixStream::from(fds.into_iter().next().unwrap());
        end.write_all(b"x").unwrap();
        let mut got = [0];
        c.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"x");
        let (word, fds): (String, _) = receive(&b).unwrap();
        assert_eq!((word.as_str(), fds.len()), ("alone", 0));
        drop(a);
        assert!(matches!(receive::<String>(&b), Err(FrameError::Closed)));
    }
}
