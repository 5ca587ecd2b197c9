//! The edge's line to the keeper: many calls in flight over one pair, writes coalesced, answers given out by request id.
//!
//! A call appends its frame to one buffer. While few calls wait it writes the buffer itself, as a hop to another task would cost more
//! than the write; under load it wakes the writer, which takes all that has gathered with one system call. When a pair breaks, everything that waits fails as [`KeeperError::Down`]; a fresh pair ([`Keeper::connect`]) takes over.

use std::collections::HashMap;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot, watch};
use zeroize::Zeroize;

use crate::card::expiry::Expiry;
use crate::card::id::{AttemptId, EventId};
use crate::wire::forwarder::{Outcome, WebhookRead};
use crate::wire::frame::{self, FrameError};
use crate::wire::keeper::{
    ChargeRead, CompareZip, Digest, Digested, ExpireBy, ForwardRead, FromKeeper, Hello, Known, LookUp,
    OpenExpiry, Opened, Prepare, PrepareForward, Prepared, ReadCharge, ReadForward, ReadWebhook, Refusal,
    Seal, Sealed, ShowForward, SignCheckpoint, SignWebhook, Stated, ToKeeper, WebhookSecret,
};
use crate::wire::reseal::{Reseal, Resealed};

/// Calls that may wait at once; past it the edge is asking more than a keeper can ever answer in time.
const IN_FLIGHT_MAX: usize = 32_768;
/// A keeper answers in microseconds; one that has not in this time is not answering.
const ANSWER_SECONDS_MAX: u64 = 15;
/// A processor's answer takes as long as the destination's own limit, which the forwarder keeps; this is the limit above it.
pub(in crate::edge) const PROCESSOR_SECONDS_MAX: u64 = 150;
/// How long a call waits for a fresh pair while the supervisor restarts a keeper.
const PAIR_WAIT: Duration = Duration::from_secs(2);
/// A line that is gone for so long is said to be, and then again: the supervisor makes another.
const LOST_AFTER: Duration = Duration::from_millis(250);
const READ_BYTES: usize = 64 << 10;
/// While no more calls wait than these, each writes for itself.
const DIRECT_MAX: usize = 4;
/// How often calls that have waited too long are looked for: a timer for each call would cost more than the call.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Why the keeper did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KeeperError {
    /// There is no keeper, it went away, or it does not answer; what was asked may or may not have been done.
    #[error("the keeper does not answer")]
    Down,
    /// More calls are waiting than may.
    #[error("too many calls wait for the keeper")]
    Busy,
    /// It answered something else than was asked.
    #[error("the keeper's answer does not fit the question")]
    Confused,
    /// It said no, and why.
    #[error("the keeper refused")]
    Refused(Refusal),
    /// It said no after it had opened a card: the opening has to be told in the log.
    #[error("the keeper refused after it had opened a card")]
    RefusedAfterOpening(Refusal, Box<Opened>),
}

/// How much was asked, for metrics.
#[derive(Debug, Default)]
pub struct KeeperStats {
    /// Calls answered.
    pub calls: AtomicU64,
    /// Sum of their round trips, in microseconds.
    pub micros: AtomicU64,
    /// Calls that got no answer.
    pub failures: AtomicU64,
}

/// The line to the keeper; clones share it.
#[derive(Clone, Debug)]
pub struct Keeper {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    link: watch::Sender<Option<Arc<Link>>>,
    /// Pairs that were handed over, of which the last is in use, or none.
    pairs: AtomicU64,
    stats: KeeperStats,
}

impl Default for Keeper {
    fn default() -> Self {
        Self::new()
    }
}

impl Keeper {
    /// A line without a pair yet.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                link: watch::Sender::new(None),
                pairs: AtomicU64::new(0),
                stats: KeeperStats::default(),
            }),
        }
    }

    /// Takes a fresh pair into use; whatever waits on the one before fails. Call it inside the runtime.
    pub fn connect(&self, pair: StdStream) -> std::io::Result<()> {
        self.shared.pairs.fetch_add(1, Ordering::Relaxed);
        pair.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(pair)?.into_split();
        let link = Arc::new(Link { state: Mutex::default(), wake: Notify::new(), to: write });
        tokio::spawn(Arc::clone(&link).write_all());
        tokio::spawn(Arc::clone(&link).read_all(read, self.clone()));
        if let Some(old) = self.shared.link.send_replace(Some(link)) {
            old.close();
        }
        Ok(())
    }

    /// Whether there is a pair.
    pub fn is_connected(&self) -> bool {
        self.shared.link.borrow().is_some()
    }

    /// Waits until another pair than the present one is in use (a keeper that restarted has to be asked what it knows).
    pub async fn reconnected(&self) {
        let mut changes = self.shared.link.subscribe();
        changes.mark_unchanged();
        loop {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
            if changes.borrow_and_update().is_some() {
                return;
            }
        }
    }

    /// Waits until there has been no pair for a moment; says how many there were. Whoever tells the supervisor and asks again tells
    /// it again until there is one.
    pub async fn lost(&self) -> u64 {
        let mut changes = self.shared.link.subscribe();
        loop {
            if changes.wait_for(Option::is_none).await.is_err() {
                return std::future::pending().await;
            }
            // A keeper that is started again has its fresh pair sooner, as a rule.
            tokio::time::sleep(LOST_AFTER).await;
            if !self.is_connected() {
                return self.shared.pairs.load(Ordering::Relaxed);
            }
        }
    }

    /// How much was asked.
    pub fn stats(&self) -> &KeeperStats {
        &self.shared.stats
    }

    /// Who are you, and what did you sign last?
    pub async fn hello(&self) -> Result<Hello, KeeperError> {
        let FromKeeper::Hello(hello) = self.call(ToKeeper::Hello).await? else {
            return Err(KeeperError::Confused);
        };
        Ok(hello)
    }

    /// Reads a submitted card and seals it.
    pub async fn seal(&self, seal: Box<Seal>) -> Result<Box<Sealed>, KeeperError> {
        let FromKeeper::Sealed(sealed) = self.call(ToKeeper::Seal(seal)).await? else {
            return Err(KeeperError::Confused);
        };
        Ok(sealed)
    }

    /// Opens an expiry, to show it.
    pub async fn open_expiry(&self, open: OpenExpiry) -> Result<Expiry, KeeperError> {
        let FromKeeper::Expiry(expiry) = self.call(ToKeeper::OpenExpiry(open)).await? else {
            return Err(KeeperError::Confused);
        };
        Ok(expiry)
    }

    /// Opens many expiries in one go; the answers stand in the order of the questions.
    pub async fn open_expiries(
        &self,
        opens: impl Iterator<Item = OpenExpiry>,
    ) -> Result<Vec<Expiry>, KeeperError> {
        let link = self.link().await?;
        let asked: Result<Vec<_>, _> =
            opens.map(|open| link.begin(&ToKeeper::OpenExpiry(open), ANSWER_SECONDS_MAX)).collect();
        let asked = asked?;
        let mut expiries = Vec::with_capacity(asked.len());
        for answer in asked {
            let FromKeeper::Expiry(expiry) = self.finish(answer).await? else {
                return Err(KeeperError::Confused);
            };
            expiries.push(expiry);
        }
        Ok(expiries)
    }

    /// Whether the zip of a submitted body is the one that is sealed.
    pub async fn compare_zip(&self, compare: Box<CompareZip>) -> Result<bool, KeeperError> {
        let FromKeeper::ZipIsEqual(equal) = self.call(ToKeeper::CompareZip(compare)).await? else {
            return Err(KeeperError::Confused);
        };
        Ok(equal)
    }

    /// Reads the body of a charge or verification; what must not leave stays there.
    pub async fn read_charge(&self, read: ReadCharge) -> Result<Box<ChargeRead>, KeeperError> {
        let FromKeeper::ChargeRead(read) = self.call(ToKeeper::ReadCharge(read)).await? else {
            return Err(KeeperError::Confused);
        };
        Ok(read)
    }

    /// Opens, renders, holds the bytes, answers with their MAC.
    pub async fn prepare(&self, prepare: Box<Prepare>) -> Result<Box<Prepared>, KeeperError> {
        let answer = self.call(ToKeeper::Prepare(prepare)).await?;
        if let FromKeeper::RefusedAfterOpening(refusal, opened) = answer {
            return Err(KeeperError::RefusedAfterOpening(refusal, opened));
        }
        let FromKeeper::Prepared(prepared) = answer else { return Err(KeeperError::Confused) };
        Ok(prepared)
    }

    /// Reads a caller's own request; it stays there.
    pub async fn read_forward(&self, read: ReadForward) -> Result<Box<ForwardRead>, KeeperError> {
        let FromKeeper::ForwardRead(read) = self.call(ToKeeper::ReadForward(read)).await? else {
            return Err(KeeperError::Confused);
        };
        Ok(read)
    }

    /// Shows a request that is held, the card masked and credentials named: JSON.
    pub async fn show_forward(&self, show: Box<ShowForward>) -> Result<Vec<u8>, KeeperError> {
        let FromKeeper::ForwardShown(shown) = self.call(ToKeeper::ShowForward(show)).await? else {
            return Err(KeeperError::Confused);
        };
        Ok(shown)
    }

    /// Opens the card, fills a request that is held, answers with its MAC.
    pub async fn prepare_forward(&self, prepare: Box<PrepareForward>) -> Result<Box<Prepared>, KeeperError> {
        let answer = self.call(ToKeeper::PrepareForward(prepare)).await?;
        if let FromKeeper::RefusedAfterOpening(refusal, opened) = answer {
            return Err(KeeperError::RefusedAfterOpening(refusal, opened));
        }
        let FromKeeper::Prepared(prepared) = answer else { return Err(KeeperError::Confused) };
        Ok(prepared)
    }

    /// Sends what is held, against a commit's grant; waits for the processor.
    pub async fn release(&self, held: u64, grant: u64) -> Result<Box<Outcome>, KeeperError> {
        let asked = ToKeeper::Release { held, grant };
        let FromKeeper::Outcome(outcome) = self.call_within(asked, PROCESSOR_SECONDS_MAX).await? else {
            return Err(KeeperError::Confused);
        };
        Ok(outcome)
    }

    /// Wipes what is held.
    pub async fn discard(&self, held: u64) -> Result<(), KeeperError> {
        self.done(ToKeeper::Discard { held }).await
    }

    /// Asks the processor what became of an attempt; waits for it.
    pub async fn look_up(&self, ask: Box<LookUp>) -> Result<Box<Outcome>, KeeperError> {
        let asked = ToKeeper::LookUp(ask);
        let FromKeeper::Outcome(outcome) = self.call_within(asked, PROCESSOR_SECONDS_MAX).await? else {
            return Err(KeeperError::Confused);
        };
        Ok(outcome)
    }

    /// Has a webhook checked with the credentials of its destination, and mapped.
    pub async fn read_webhook(&self, ask: Box<ReadWebhook>) -> Result<Box<WebhookRead>, KeeperError> {
        let FromKeeper::WebhookRead(read) = self.call(ToKeeper::ReadWebhook(ask)).await? else {
            return Err(KeeperError::Confused);
        };
        Ok(read)
    }

    /// Keyed hashes of an idempotency key and a body that holds no card.
    pub async fn digest(&self, digest: Digest) -> Result<Digested, KeeperError> {
        let FromKeeper::Digested(digested) = self.call(ToKeeper::Digest(digest)).await? else {
            return Err(KeeperError::Confused);
        };
        Ok(digested)
    }

    /// Which of these cards end by a month; the answers stand in the order of the questions.
    pub async fn expire_by(&self, ask: Box<ExpireBy>) -> Result<Vec<bool>, KeeperError> {
        let FromKeeper::Expire(expire) = self.call(ToKeeper::ExpireBy(ask)).await? else {
            return Err(KeeperError::Confused);
        };
        Ok(expire)
    }

    /// A secret of a webhook endpoint, to show it once.
    pub async fn webhook_secret(&self, ask: WebhookSecret) -> Result<String, KeeperError> {
        let FromKeeper::WebhookSecret(secret) = self.call(ToKeeper::WebhookSecret(ask)).await? else {
            return Err(KeeperError::Confused);
        };
        Ok(secret)
    }

    /// Signs what is posted to a webhook endpoint.
    pub async fn sign_webhook(&self, ask: Box<SignWebhook>) -> Result<String, KeeperError> {
        let FromKeeper::WebhookSigned(signature) = self.call(ToKeeper::SignWebhook(ask)).await? else {
            return Err(KeeperError::Confused);
        };
        Ok(signature)
    }

    /// What was opened, signed.
    pub async fn state(&self) -> Result<Stated, KeeperError> {
        let FromKeeper::Stated(stated) = self.call(ToKeeper::State).await? else {
            return Err(KeeperError::Confused);
        };
        Ok(stated)
    }

    /// Signs the log's checkpoint: the Ed25519 signature.
    pub async fn sign_checkpoint(&self, sign: SignCheckpoint) -> Result<Vec<u8>, KeeperError> {
        let FromKeeper::Signed(signature) = self.call(ToKeeper::SignCheckpoint(sign)).await? else {
            return Err(KeeperError::Confused);
        };
        Ok(signature)
    }

    /// All openings that no edge has acknowledged; the keeper makes no more than some thousands.
    pub async fn openings(&self) -> Result<Vec<Opened>, KeeperError> {
        let mut all: Vec<Opened> = Vec::new();
        loop {
            let after = all.last().map(|opened| opened.event);
            let FromKeeper::Openings(page) = self.call(ToKeeper::Openings { after }).await? else {
                return Err(KeeperError::Confused);
            };
            if page.is_empty() {
                return Ok(all);
            }
            // Who goes on without an end would have us ask for ever.
            if page.iter().any(|opened| Some(opened.event) <= after) {
                return Err(KeeperError::Confused);
            }
            all.extend(page);
        }
    }

    /// All attempts whose outcomes no edge has acknowledged; the keeper holds no more than some thousands.
    pub async fn outcomes(&self) -> Result<Vec<AttemptId>, KeeperError> {
        let mut all: Vec<AttemptId> = Vec::new();
        loop {
            let after = all.last().copied();
            let FromKeeper::Outcomes(page) = self.call(ToKeeper::Outcomes { after }).await? else {
                return Err(KeeperError::Confused);
            };
            if page.is_empty() {
                return Ok(all);
            }
            if page.iter().any(|attempt| Some(*attempt) <= after) {
                return Err(KeeperError::Confused);
            }
            all.extend(page);
        }
    }

    /// What the keeper knows of these attempts, at most [`KNOWN_MAX`]: of the first of them, in their order, as many as an answer
    /// takes, and at least of one.
    pub async fn known(&self, attempts: Vec<AttemptId>) -> Result<Vec<Known>, KeeperError> {
        let asked = attempts.len();
        if asked == 0 {
            return Ok(Vec::new());
        }
        let FromKeeper::Known(known) = self.call(ToKeeper::Known(attempts)).await? else {
            return Err(KeeperError::Confused);
        };
        if known.is_empty() || known.len() > asked { Err(KeeperError::Confused) } else { Ok(known) }
    }

    /// Says that these outcomes and openings are in the log.
    pub async fn acknowledge(
        &self,
        outcomes: Vec<AttemptId>,
        openings: Vec<EventId>,
    ) -> Result<(), KeeperError> {
        self.done(ToKeeper::Acknowledge { outcomes, openings }).await
    }

    /// Seals cards again under the tenant's active key.
    pub async fn reseal(&self, ask: Reseal) -> Result<Resealed, KeeperError> {
        let asked = ask.cards.len();
        let FromKeeper::Resealed(resealed) = self.call(ToKeeper::Reseal(Box::new(ask))).await? else {
            return Err(KeeperError::Confused);
        };
        if resealed.cards.len() == asked { Ok(*resealed) } else { Err(KeeperError::Confused) }
    }

    async fn done(&self, message: ToKeeper) -> Result<(), KeeperError> {
        let FromKeeper::Done = self.call(message).await? else { return Err(KeeperError::Confused) };
        Ok(())
    }

    async fn call(&self, message: ToKeeper) -> Result<FromKeeper, KeeperError> {
        self.call_within(message, ANSWER_SECONDS_MAX).await
    }

    async fn call_within(&self, message: ToKeeper, seconds_max: u64) -> Result<FromKeeper, KeeperError> {
        let began = Instant::now();
        let answer = self.link().await?.begin(&message, seconds_max)?;
        drop(message);
        let answer = self.finish(answer).await;
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.shared.stats.calls.fetch_add(1, Ordering::Relaxed);
        self.shared.stats.micros.fetch_add(micros, Ordering::Relaxed);
        answer
    }

    async fn finish(&self, answer: Answer) -> Result<FromKeeper, KeeperError> {
        match answer.await {
            Ok(answer) => answer.map_err(KeeperError::Refused),
            // The pair broke, or the answer took too long.
            Err(_) => {
                self.shared.stats.failures.fetch_add(1, Ordering::Relaxed);
                Err(KeeperError::Down)
            }
        }
    }

    async fn link(&self) -> Result<Arc<Link>, KeeperError> {
        let now = self.shared.link.borrow().as_ref().map(Arc::clone);
        match now {
            Some(link) => Ok(link),
            // Boxed: each call would carry the room for what hardly any does.
            None => Box::pin(self.next_link()).await,
        }
    }

    /// Waits for a fresh pair.
    async fn next_link(&self) -> Result<Arc<Link>, KeeperError> {
        let mut changes = self.shared.link.subscribe();
        match tokio::time::timeout(PAIR_WAIT, changes.wait_for(Option::is_some)).await {
            Ok(Ok(link)) => link.as_ref().map(Arc::clone).ok_or(KeeperError::Down),
            Ok(Err(_)) | Err(_) => Err(KeeperError::Down),
        }
    }
}

type Told = Result<FromKeeper, Refusal>;
type Answer = oneshot::Receiver<Told>;

/// One pair in use.
#[derive(Debug)]
struct Link {
    state: Mutex<LinkState>,
    wake: Notify,
    to: OwnedWriteHalf,
}

/// A call that waits for its answer.
struct Waiting {
    tell: oneshot::Sender<Told>,
    until: Instant,
}

#[derive(Default)]
struct LinkState {
    last_id: u64,
    out: Vec<u8>,
    /// Somebody writes what stood in `out`; whoever comes meanwhile leaves it to him.
    writing: bool,
    waiting: HashMap<u64, Waiting>,
    closed: bool,
}

impl std::fmt::Debug for LinkState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkState").field("closed", &self.closed).finish_non_exhaustive()
    }
}

impl Link {
    fn state(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a question in the line, whose answer is waited for at most so long.
    fn begin(&self, message: &ToKeeper, seconds_max: u64) -> Result<Answer, KeeperError> {
        let (tell, answer) = oneshot::channel();
        let until = Instant::now() + Duration::from_secs(seconds_max);
        let mut state = self.state();
        if state.closed {
            return Err(KeeperError::Down);
        }
        if state.waiting.len() >= IN_FLIGHT_MAX {
            return Err(KeeperError::Busy);
        }
        state.last_id += 1;
        let id = state.last_id;
        let first = state.out.is_empty();
        frame::encode(id, message, &mut state.out).map_err(|_| KeeperError::Busy)?;
        state.waiting.insert(id, Waiting { tell, until });
        if first && !state.writing && state.waiting.len() <= DIRECT_MAX {
            self.write_directly(state);
        } else if first {
            drop(state);
            self.wake.notify_one();
        }
        Ok(answer)
    }

    /// Writes what stands in the line as far as the pair takes it at once; the rest is the writer's.
    fn write_directly(&self, mut state: MutexGuard<'_, LinkState>) {
        let mut batch = std::mem::take(&mut state.out);
        state.writing = true;
        drop(state);
        // A pair that is broken is found so by the one who reads it.
        let written = self.to.try_write(&batch).unwrap_or(0);
        let mut state = self.state();
        state.writing = false;
        let rest = batch.get(written..).unwrap_or_default();
        if !rest.is_empty() || !state.out.is_empty() {
            let late = std::mem::take(&mut state.out);
            state.out.extend_from_slice(rest);
            state.out.extend_from_slice(&late);
            self.wake.notify_one();
        }
        drop(state);
        // A submitted card may have been in these bytes.
        batch.zeroize();
    }

    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.out.zeroize();
        state.waiting.clear();
        drop(state);
        self.wake.notify_one();
    }

    async fn write_all(self: Arc<Self>) {
        let mut batch = Vec::with_capacity(READ_BYTES);
        loop {
            self.wake.notified().await;
            // Requests that are ready too put their questions in the same write.
            tokio::task::yield_now().await;
            {
                let mut state = self.state();
                if state.closed {
                    return;
                }
                if state.writing {
                    // Whoever writes wakes us when he is done.
                    continue;
                }
                state.writing = true;
                std::mem::swap(&mut batch, &mut state.out);
            }
            let written = self.write(&batch).await;
            // What lies beyond them was wiped when it was written.
            batch.as_mut_slice().zeroize();
            batch.clear();
            if written.is_err() {
                self.close();
                return;
            }
            let mut state = self.state();
            state.writing = false;
            if !state.out.is_empty() {
                self.wake.notify_one();
            }
        }
    }

    async fn write(&self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            self.to.writable().await?;
            match self.to.try_write(bytes) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn read_all(self: Arc<Self>, mut from: OwnedReadHalf, keeper: Keeper) {
        let mut bytes = Vec::with_capacity(READ_BYTES);
        let mut arrived = Vec::new();
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        loop {
            let read = tokio::select! {
                read = from.read_buf(&mut bytes) => read,
                _ = sweep.tick() => {
                    self.give_up(Instant::now());
                    continue;
                }
            };
            if !matches!(read, Ok(1..)) || take_frames(&mut bytes, &mut arrived).is_err() {
                break;
            }
            self.give_out(&mut arrived);
            bytes.reserve(READ_BYTES / 2);
        }
        self.close();
        keeper.shared.link.send_if_modified(|current| {
            let mine = current.as_ref().is_some_and(|link| Arc::ptr_eq(link, &self));
            if mine {
                *current = None;
            }
            mine
        });
    }

    /// Fails the calls that have waited too long.
    fn give_up(&self, now: Instant) {
        self.state().waiting.retain(|_, waiting| waiting.until > now);
    }

    fn give_out(&self, arrived: &mut Vec<(u64, FromKeeper)>) {
        let mut state = self.state();
        let told: Vec<_> = arrived
            .drain(..)
            .filter_map(|(id, answer)| state.waiting.remove(&id).map(|waiting| (waiting.tell, answer)))
            .collect();
        drop(state);
        for (tell, answer) in told {
            let told = if let FromKeeper::Refused(refusal) = answer { Err(refusal) } else { Ok(answer) };
            // The asker may have gone away meanwhile; then nobody wants the answer.
            drop(tell.send(told));
        }
    }
}

/// Takes all whole frames off the front of `bytes`.
fn take_frames(bytes: &mut Vec<u8>, arrived: &mut Vec<(u64, FromKeeper)>) -> Result<(), FrameError> {
    let mut start = 0;
    while let Some(waiting) = bytes.get(start..)
        && let Some(length) = frame::announced(waiting)?
        && let Some(whole) = waiting.get(4..4 + length)
    {
        arrived.push(frame::decode(whole)?);
        start += 4 + length;
    }
    bytes.drain(..start);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::id::{IdBytes, Token};
    use crate::card::sealed::SealedField;
    use crate::card::tenant::TenantId;
    use crate::wire::frame::FrameReader;
    use crate::wire::pair::make_pair;

    fn question(month: u8) -> OpenExpiry {
        let sealed = SealedField { version: 1, envelope: vec![month] };
        OpenExpiry { tenant: TenantId(1), token: Token(IdBytes([0; 18])), policy: 0, sealed }
    }

    /// A keeper that answers an expiry with the month that the envelope says, two at a time and the later first.
    fn backwards_keeper(pair: StdStream) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            let mut reader = FrameReader::new(pair.try_clone().unwrap());
            let mut held = Vec::new();
            while let Ok((id, ToKeeper::OpenExpiry(open))) = reader.read::<ToKeeper>() {
                held.push((id, open.sealed.envelope[0]));
                if held.len() == 2 {
                    for (id, month) in held.drain(..).rev() {
                        let answer = FromKeeper::Expiry(Expiry { month, year: 2030 });
                        frame::write(&mut &pair, id, &answer).unwrap();
                    }
                }
            }
        })
    }

    #[tokio::test]
    async fn each_asker_gets_its_own_answer_whatever_the_order() {
        let (ours, theirs) = make_pair().unwrap();
        let thread = backwards_keeper(theirs);
        let keeper = Keeper::new();
        keeper.connect(ours).unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for month in 0..200_u8 {
            let keeper = keeper.clone();
            tasks.spawn(async move { (month, keeper.open_expiry(question(month)).await.unwrap().month) });
        }
        while let Some(done) = tasks.join_next().await {
            let (asked, got) = done.unwrap();
            assert_eq!(asked, got);
        }
        let many = keeper.open_expiries((0..10).map(question)).await.unwrap();
        assert_eq!(many.iter().map(|e| e.month).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        drop(keeper);
        drop(thread);
    }

    #[tokio::test]
    async fn a_call_that_waits_too_long_fails_and_no_other() {
        let (ours, _silent) = make_pair().unwrap();
        let keeper = Keeper::new();
        keeper.connect(ours).unwrap();
        let link = keeper.link().await.unwrap();
        let ask = |seconds_max| link.begin(&ToKeeper::OpenExpiry(question(1)), seconds_max).unwrap();
        let (short, mut long) = (ask(5), ask(20));
        link.give_up(Instant::now() + Duration::from_secs(6));
        assert!(matches!(keeper.finish(short).await, Err(KeeperError::Down)));
        assert_eq!(long.try_recv().unwrap_err(), oneshot::error::TryRecvError::Empty);
        assert_eq!(keeper.stats().failures.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_lost_pair_fails_what_waits_and_a_fresh_one_takes_over() {
        let keeper = Keeper::new();
        let (ours, theirs) = make_pair().unwrap();
        keeper.connect(ours).unwrap();
        let waiting = tokio::spawn({
            let keeper = keeper.clone();
            async move { keeper.open_expiry(question(1)).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(theirs);
        assert!(matches!(waiting.await.unwrap(), Err(KeeperError::Down)));
        let (ours, theirs) = make_pair().unwrap();
        let thread = backwards_keeper(theirs);
        let late = tokio::spawn({
            let keeper = keeper.clone();
            async move { keeper.open_expiries([question(3), question(4)].into_iter()).await }
        });
        keeper.connect(ours).unwrap();
        assert_eq!(late.await.unwrap().unwrap().len(), 2);
        drop((keeper, thread));
    }

    #[tokio::test]
    async fn a_line_that_ended_is_said_to_have_until_there_is_another() {
        let keeper = Keeper::new();
        let said = |keeper: &Keeper| {
            let keeper = keeper.clone();
            async move { tokio::time::timeout(LOST_AFTER * 4, keeper.lost()).await.ok() }
        };
        for pairs in 1..=2 {
            let (ours, theirs) = make_pair().unwrap();
            keeper.connect(ours).unwrap();
            assert_eq!(said(&keeper).await, None);
            drop(theirs);
            assert_eq!((said(&keeper).await, said(&keeper).await), (Some(pairs), Some(pairs)));
        }
    }
}
