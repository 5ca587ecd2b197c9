//! The line to the keeper: many exchanges in flight, answers in any order, each burst read and written at once.

use std::io::{self, Read};
use std::os::unix::net::UnixStream as Blocking;
use std::sync::Arc;

use rustix::net::Shutdown;
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use zeroize::Zeroize;

use super::Forwarder;
use super::exchange;
use super::fault::{Fault, failed};
use crate::card::id::AttemptId;
use crate::wire::forwarder::{Exchange, FromForwarder, Sent, ToForwarder};
use crate::wire::frame::{self, FrameError, FrameReader};

/// So many frames are taken in before others have their turn.
const BURST_MAX: u32 = 64;
/// So many outcomes leave with one write.
const OUTCOMES_MAX: usize = 256;

/// An outcome on its way; its place among those under way is free once it is written.
struct Answered {
    id: u64,
    said: FromForwarder,
    _place: Option<OwnedSemaphorePermit>,
}

/// The duty to answer one question: whoever drops it unanswered, by a panic, has answered that nobody knows.
struct Answering {
    id: u64,
    attempt: AttemptId,
    place: Option<OwnedSemaphorePermit>,
    to: UnboundedSender<Answered>,
    is_answered: bool,
}

impl Answering {
    fn answer(mut self, said: FromForwarder) {
        self.give(said);
    }

    fn give(&mut self, said: FromForwarder) {
        self.is_answered = true;
        // If the line is gone, so is the keeper that asked.
        let _ = self.to.send(Answered { id: self.id, said, _place: self.place.take() });
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if !self.is_answered {
            self.give(failed(self.attempt, Sent::Maybe, Fault::Internal, 0).into());
        }
    }
}

/// Reads what has arrived, without waiting.
struct Arrived(Arc<UnixStream>);

impl Read for Arrived {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(out)
    }
}

/// Serves one keeper until its line ends; exchanges that are under way then go on, and nobody hears of them.
pub(super) fn serve(forwarder: &Arc<Forwarder>, stream: Blocking) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let stream = Arc::new(UnixStream::from_std(stream)?);
    let (to, answered) = mpsc::unbounded_channel();
    tokio::spawn(write(Arc::clone(&stream), answered));
    let forwarder = Arc::clone(forwarder);
    tokio::spawn(async move {
        read(&forwarder, &stream, &to).await;
        // A keeper whose line holds nonsense learns that nobody reads it any more.
        let _ = rustix::net::shutdown(&*stream, Shutdown::Read);
    });
    Ok(())
}

async fn read(forwarder: &Arc<Forwarder>, stream: &Arc<UnixStream>, to: &UnboundedSender<Answered>) {
    let mut reader = FrameReader::new(Arrived(Arc::clone(stream)));
    let mut burst = 0;
    loop {
        match reader.read::<ToForwarder>() {
            Ok((id, ToForwarder::Send(exchange))) => {
                begin(forwarder, id, *exchange, to);
                burst += 1;
                if burst % BURST_MAX == 0 {
                    tokio::task::yield_now().await;
                }
            }
            Err(FrameError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                if stream.readable().await.is_err() {
                    return;
                }
            }
            Err(FrameError::Closed | FrameError::Io(_) | FrameError::TooLarge | FrameError::Malformed) => {
                return;
            }
        }
    }
}

/// Starts an exchange, or says why it cannot be.
fn begin(forwarder: &Arc<Forwarder>, id: u64, exchange: Exchange, to: &UnboundedSender<Answered>) {
    let attempt = exchange.attempt;
    let place = forwarder.place();
    let has_place = place.is_some();
    let answering = Answering { id, attempt, place, to: to.clone(), is_answered: false };
    let refuse = |fault| failed(attempt, Sent::Not, fault, 0).into();
    if forwarder.is_stopping() {
        return answering.answer(refuse(Fault::Stopping));
    }
    if !has_place {
        return answering.answer(refuse(Fault::Busy));
    }
    let Some(route) = forwarder.route(&exchange.destination) else {
        return answering.answer(refuse(Fault::Destination));
    };
    tokio::spawn(async move {
        let said = exchange::run(&route, exchange).await;
        answering.answer(said);
    });
}

async fn write(stream: Arc<UnixStream>, mut answered: UnboundedReceiver<Answered>) {
    let mut batch = Vec::with_capacity(OUTCOMES_MAX);
    let mut out = Vec::with_capacity(64 << 10);
    while answered.recv_many(&mut batch, OUTCOMES_MAX).await > 0 {
        for one in &batch {
            // An outcome is bounded far below a frame; one that were not leaves nothing in `out`.
            let _ = frame::encode(one.id, &one.said, &mut out);
        }
        // If the line is gone, the keeper that asked is too; the rest is taken and dropped.
        let _ = write_all(&stream, &out).await;
        if batch.iter().any(|one| one.said.new_card.is_some()) {
            out.zeroize();
        }
        out.clear();
        batch.clear();
    }
}

async fn write_all(stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or(&[]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::id::IdBytes;

    #[tokio::test]
    async fn a_panic_in_an_exchange_is_an_outcome_that_nobody_knows() {
        let (to, mut answered) = mpsc::unbounded_channel();
        let attempt = AttemptId(IdBytes([7; 18]));
        let answering = Answering { id: 5, attempt, place: None, to, is_answered: false };
        let task = tokio::spawn(async move {
            let _answering = answering;
            panic!("on purpose");
        });
        assert!(task.await.unwrap_err().is_panic());
        let Answered { id, said, .. } = answered.recv().await.unwrap();
        assert_eq!((id, said.outcome), (5, failed(attempt, Sent::Maybe, Fault::Internal, 0)));
        assert!(answered.recv().await.is_none());
    }
}
