//! The line to the keeper: many exchanges in flight, answers in any order, each burst read and written at once.

use std::io::{self, Read};
use std::os::unix::net::UnixStream as Blocking;
use std::sync::Arc;

use rustix::net::Shutdown;
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use zeroize::Zeroize;

use super::fault::{Fault, failed};
use super::{Forwarder, exchange, webhook};
use crate::wire::forwarder::{Exchange, FromForwarder, Outcome, Sent, ToForwarder, Webhook, WebhookRead};
use crate::wire::frame::{self, FrameError, FrameReader};

/// So many frames are taken in before others have their turn.
const BURST_MAX: u32 = 64;
/// So many outcomes leave with one write.
const OUTCOMES_MAX: usize = 256;

/// An answer on its way; its place among those under way is free once it is written.
struct Answered {
    id: u64,
    answer: FromForwarder,
    _place: Option<OwnedSemaphorePermit>,
}

impl Answered {
    /// Whether it holds a number in clear.
    fn is_clear(&self) -> bool {
        match &self.answer {
            FromForwarder::Exchanged(exchanged) => exchanged.new_card.is_some(),
            FromForwarder::Webhook(_) => false,
        }
    }
}

/// The duty to answer one question: whoever drops it unanswered, by a panic, has answered that nobody knows.
struct Answering {
    id: u64,
    /// The answer in case that nobody gives one.
    nobody: Option<FromForwarder>,
    place: Option<OwnedSemaphorePermit>,
    to: UnboundedSender<Answered>,
}

impl Answering {
    fn answer(mut self, answer: FromForwarder) {
        self.nobody = None;
        self.give(answer);
    }

    fn give(&mut self, answer: FromForwarder) {
        // If the line is gone, so is the keeper that asked.
        let _ = self.to.send(Answered { id: self.id, answer, _place: self.place.take() });
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(answer) = self.nobody.take() {
            self.give(answer);
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
            Ok((id, ToForwarder::Webhook(webhook))) => begin_webhook(forwarder, id, webhook, to),
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
    let exchanged = |outcome: Outcome| FromForwarder::Exchanged(Box::new(outcome.into()));
    let nobody = exchanged(failed(attempt, Sent::Maybe, Fault::Internal, 0));
    let answering = Answering { id, nobody: Some(nobody), place, to: to.clone() };
    let refuse = |fault| exchanged(failed(attempt, Sent::Not, fault, 0));
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
        let exchanged = exchange::run(&route, exchange).await;
        answering.answer(FromForwarder::Exchanged(Box::new(exchanged)));
    });
}

/// Checks a webhook in a task of its own, so that a fault in it is an answer.
fn begin_webhook(forwarder: &Arc<Forwarder>, id: u64, webhook: Box<Webhook>, to: &UnboundedSender<Answered>) {
    let failed = |fault: Fault| FromForwarder::Webhook(WebhookRead::Failed(fault.word().to_owned()));
    let place = forwarder.place();
    let has_place = place.is_some();
    let answering = Answering { id, nobody: Some(failed(Fault::Internal)), place, to: to.clone() };
    if !has_place {
        return answering.answer(failed(Fault::Busy));
    }
    let route = forwarder.route(&webhook.destination);
    tokio::spawn(async move {
        let read = webhook::read(route.as_deref(), &webhook);
        answering.answer(FromForwarder::Webhook(read));
    });
}

async fn write(stream: Arc<UnixStream>, mut answered: UnboundedReceiver<Answered>) {
    let mut batch = Vec::with_capacity(OUTCOMES_MAX);
    let mut out = Vec::with_capacity(64 << 10);
    while answered.recv_many(&mut batch, OUTCOMES_MAX).await > 0 {
        for one in &batch {
            // An answer is bounded far below a frame; one that were not leaves nothing in `out`.
            let _ = frame::encode(one.id, &one.answer, &mut out);
        }
        // If the line is gone, the keeper that asked is too; the rest is taken and dropped.
        let _ = write_all(&stream, &out).await;
        if batch.iter().any(Answered::is_clear) {
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
    use crate::card::id::{AttemptId, IdBytes};

    #[tokio::test]
    async fn a_panic_in_an_exchange_is_an_outcome_that_nobody_knows() {
        let (to, mut answered) = mpsc::unbounded_channel();
        let attempt = AttemptId(IdBytes([7; 18]));
        let outcome = failed(attempt, Sent::Maybe, Fault::Internal, 0);
        let nobody = FromForwarder::Exchanged(Box::new(outcome.into()));
        let answering = Answering { id: 5, nobody: Some(nobody), place: None, to };
        let task = tokio::spawn(async move {
            let _answering = answering;
            panic!("on purpose");
        });
        assert!(task.await.unwrap_err().is_panic());
        let Answered { id, answer, .. } = answered.recv().await.unwrap();
        let FromForwarder::Exchanged(exchanged) = answer else { panic!("no outcome") };
        assert_eq!((id, exchanged.outcome), (5, failed(attempt, Sent::Maybe, Fault::Internal, 0)));
        assert!(answered.recv().await.is_none());
    }
}
