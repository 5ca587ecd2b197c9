//! The keeper's threads and lines.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::exchanges::{Asker, Outgoing, failed};
use super::keys::KeyError;
use super::signer::Signer;
use super::state::{Later, Reply, State};
use crate::wire::control::{FromKeeperControl, ToKeeperControl};
use crate::wire::forwarder::{Exchanged, FromForwarder, Outcome, Sent, ToForwarder, Webhook};
use crate::wire::frame::{self, FrameError, FrameReader};
use crate::wire::keeper::{FromKeeper, Refusal, RefusalCode, ToKeeper};
use crate::wire::keys::{HeldKey, KeyOrder, WrappedKey};
use crate::wire::pair;
use crate::wire::reseal::Reseal;
use crate::wire::unsealer::Kek;

const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// A line to the forwarder that is gone for so long is said to be, and then again, until the supervisor has made another: one that is
/// started again has its fresh pair sooner, as a rule.
const LOST_AFTER: Duration = Duration::from_millis(250);

/// A line to another role, with a number that tells it from the ones before.
struct Line {
    generation: u64,
    stream: UnixStream,
}

/// Who waits for what a line to the forwarder took with it, and how far it came.
struct Lost {
    webhooks: Vec<Asker>,
    exchanges: Vec<(Asker, Outcome)>,
}

struct Keeper {
    state: Mutex<State>,
    edge: Mutex<Option<Line>>,
    forwarder: Mutex<Option<Line>>,
    supervisor: UnixStream,
    /// The edge's question that waits for the supervisor to keep a checkpoint.
    checkpoint_asker: Mutex<Option<Asker>>,
    /// To the thread that seals cards again.
    reseals: mpsc::Sender<(Asker, Box<Reseal>)>,
}

/// Runs the keeper until the supervisor's line ends.
pub fn run(control: UnixStream) -> Result<(), String> {
    let (settings, unsealer) = match pair::receive(&control) {
        Ok((ToKeeperControl::Start(settings), fds)) => (settings, fds.into_iter().next()),
        Ok(_) | Err(_) => return Err("the supervisor did not say how to start".to_owned()),
    };
    let kek = unsealer.map(UnixStream::from).and_then(receive_kek);
    let state = kek.ok_or_else(|| KeyError::NotHandedOver.to_string());
    let state = match state.and_then(|kek| State::new(*settings, &kek.bytes)) {
        Ok(state) => state,
        Err(sentence) => {
            let _ = pair::send(&control, &FromKeeperControl::Failed(sentence.clone()), &[]);
            return Err(sentence);
        }
    };
    let supervisor = control.try_clone().map_err(|_| "the supervisor's line cannot be shared".to_owned())?;
    let (reseals, asked) = mpsc::channel();
    let keeper = Arc::new(Keeper {
        state: Mutex::new(state),
        edge: Mutex::new(None),
        forwarder: Mutex::new(None),
        supervisor,
        checkpoint_asker: Mutex::new(None),
        reseals,
    });
    keeper.say_ready();
    let sweeper = Arc::clone(&keeper);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(SWEEP_EVERY);
            sweeper.state().holding.sweep(Instant::now());
        }
    });
    let resealer = Arc::clone(&keeper);
    std::thread::spawn(move || {
        for (asker, ask) in asked {
            resealer.reseal(asker, &ask);
        }
    });
    keeper.serve_supervisor(&control);
    Ok(())
}

impl Keeper {
    /// Reads the supervisor's line until it ends; then the process ends with it.
    fn serve_supervisor(self: &Arc<Self>, control: &UnixStream) {
        let (mut generation, mut forwarders) = (0, 0);
        while let Ok((message, fds)) = pair::receive::<ToKeeperControl>(control) {
            let stream = fds.into_iter().next().map(UnixStream::from);
            match (message, stream) {
                (ToKeeperControl::EdgePair, Some(stream)) => {
                    generation += 1;
                    self.take_edge(generation, stream);
                }
                (ToKeeperControl::ForwarderPair, Some(stream)) => {
                    generation += 1;
                    forwarders += 1;
                    self.take_forwarder(generation, forwarders, stream);
                }
                (ToKeeperControl::Reload { tenants, exemptions, destinations }, _) => {
                    let reloaded = self.state().reload(tenants, exemptions, destinations);
                    if let Err(sentence) = reloaded {
                        self.tell_supervisor(&FromKeeperControl::Failed(sentence));
                    }
                }
                (ToKeeperControl::Ranges { records, begins, ends }, _) => {
                    self.state().ranges.take(&records, begins, ends);
                    if ends {
                        self.say_ready();
                    }
                }
                (ToKeeperControl::MakeKeys { number, orders }, _) => self.make_keys(number, &orders),
                (ToKeeperControl::UseKeys(keys), _) => self.use_keys(&keys),
                (ToKeeperControl::Rewrap { number, keys }, unsealer) => {
                    let kek = unsealer.and_then(receive_kek).ok_or(KeyError::NotHandedOver);
                    let again = kek.and_then(|kek| self.state().rewrap(&kek.bytes, &keys));
                    self.tell_keys(number, again);
                }
                (ToKeeperControl::UseKek, _) => {
                    self.state().use_next_kek();
                    self.say_ready();
                }
                (ToKeeperControl::CountSeals, _) => {
                    let seals = self.state().keys.take_seals();
                    self.tell_supervisor(&FromKeeperControl::Seals(seals));
                }
                (ToKeeperControl::CheckpointKept(size), _) => self.sign(size),
                (ToKeeperControl::Serve, _) => {
                    self.state().serve();
                    self.say_ready();
                }
                (
                    ToKeeperControl::EdgePair | ToKeeperControl::ForwarderPair | ToKeeperControl::Start(_),
                    _,
                ) => {}
            }
        }
    }

    fn make_keys(&self, number: u64, orders: &[KeyOrder]) {
        let state = self.state();
        let made: Result<Vec<_>, _> = orders.iter().map(|order| state.kek.make_wrapped(*order)).collect();
        drop(state);
        self.tell_keys(number, made);
    }

    fn tell_keys(&self, number: u64, keys: Result<Vec<WrappedKey>, KeyError>) {
        self.tell_supervisor(&match keys {
            Ok(keys) => FromKeeperControl::Keys { number, keys },
            Err(error) => FromKeeperControl::Failed(error.to_string()),
        });
    }

    fn use_keys(&self, keys: &[HeldKey]) {
        let mut state = self.state();
        let State { kek, keys: ring, .. } = &mut *state;
        let used = keys.iter().try_for_each(|key| ring.put(kek, key));
        drop(state);
        match used {
            Ok(()) => self.say_ready(),
            Err(error) => self.tell_supervisor(&FromKeeperControl::Failed(error.to_string())),
        }
    }

    /// Seals cards again; a panic is one refused question.
    fn reseal(&self, asker: Asker, ask: &Reseal) {
        // An edge that is gone takes no answer, and what would be opened for it would be opened for nobody.
        if lock(&self.edge).as_ref().is_none_or(|line| line.generation != asker.generation) {
            return;
        }
        let sealed = catch_unwind(AssertUnwindSafe(|| {
            let begun = self.state().begin_reseal(ask)?;
            let cards = begun.seal(ask);
            Ok(self.state().finish_reseal(ask, cards, begun.key()))
        }));
        let answer = sealed
            .unwrap_or_else(|_| Err(Refusal::of(RefusalCode::Internal)))
            .unwrap_or_else(FromKeeper::Refused);
        self.answer_later(asker, &answer);
    }

    fn sign(&self, size: u64) {
        let mut state = self.state();
        let State { signer, keys, .. } = &mut *state;
        if !signer.waits_for(size) {
            return;
        }
        let answer = signer.kept(size, keys).map_or_else(FromKeeper::Refused, FromKeeper::Signed);
        drop(state);
        if let Some(asker) = lock(&self.checkpoint_asker).take() {
            self.answer_later(asker, &answer);
        }
    }

    fn say_ready(&self) {
        let state = self.state();
        let ready = FromKeeperControl::Ready {
            boot: state.boot().to_owned(),
            public_key: Signer::public_key(&state.keys),
        };
        drop(state);
        self.tell_supervisor(&ready);
    }

    fn tell_supervisor(&self, message: &FromKeeperControl) {
        // If the line is broken the reading thread sees it too, and ends the process.
        let _ = pair::send(&self.supervisor, message, &[]);
    }

    fn take_edge(self: &Arc<Self>, generation: u64, stream: UnixStream) {
        let Ok(reading) = stream.try_clone() else { return };
        // What an edge that is gone asked to hold, nobody will ask for again.
        self.state().holding.clear();
        *lock(&self.edge) = Some(Line { generation, stream });
        let keeper = Arc::clone(self);
        std::thread::spawn(move || keeper.serve_edge(generation, reading));
    }

    /// Answers the edge's questions; the answers to a burst leave with one write.
    fn serve_edge(self: Arc<Self>, generation: u64, stream: UnixStream) {
        let mut reader = FrameReader::new(stream);
        let mut out = Vec::with_capacity(64 << 10);
        while let Ok((id, ask)) = reader.read::<ToKeeper>() {
            if let Some(answer) = self.answer(Asker { generation, id }, ask)
                && encode_answer(id, &answer, &mut out).is_err()
            {
                break;
            }
            if !reader.has_whole() && !out.is_empty() {
                self.write_edge(generation, &out);
                out.clear();
            }
        }
        let mut edge = lock(&self.edge);
        if edge.as_ref().is_some_and(|line| line.generation == generation) {
            *edge = None;
        }
    }

    /// The answer, if there is one now. A panic is one refused question, and nothing of it is printed.
    fn answer(self: &Arc<Self>, asker: Asker, ask: ToKeeper) -> Option<FromKeeper> {
        let is_look_up = matches!(ask, ToKeeper::LookUp(_));
        let reply = catch_unwind(AssertUnwindSafe(|| self.state().answer(ask)))
            .unwrap_or(Reply::Now(FromKeeper::Refused(Refusal::of(RefusalCode::Internal))));
        match reply {
            Reply::Now(answer) => Some(answer),
            Reply::Later(Later::Exchange(outgoing)) => self.send(asker, *outgoing, is_look_up),
            Reply::Later(Later::Webhook(webhook)) => self.send_webhook(asker, webhook),
            // The thread is there for as long as the keeper is.
            Reply::Later(Later::Reseal(ask)) => {
                let _ = self.reseals.send((asker, ask));
                None
            }
            Reply::Later(Later::KeepCheckpoint(size, root)) => {
                *lock(&self.checkpoint_asker) = Some(asker);
                let root = data_encoding::HEXLOWER.encode(&root);
                self.tell_supervisor(&FromKeeperControl::KeepCheckpoint { size, root });
                None
            }
        }
    }

    /// Hands an exchange to the forwarder. A frame that was not written whole was not sent.
    fn send(&self, asker: Asker, outgoing: Outgoing, is_look_up: bool) -> Option<FromKeeper> {
        let Outgoing { exchange, charged } = outgoing;
        let attempt = exchange.attempt;
        let mut forwarder = lock(&self.forwarder);
        let number = self.state().exchanges.begin(&exchange, charged, asker, is_look_up);
        let sent = forwarder.as_mut().is_some_and(|line| {
            frame::write(&mut line.stream, number, &ToForwarder::Send(Box::new(exchange))).is_ok()
        });
        drop(forwarder);
        if sent {
            return None;
        }
        let outcome = failed(attempt, Sent::Not, "forwarder_down");
        self.state().exchanges.finish(number, &outcome)?;
        Some(FromKeeper::Outcome(Box::new(outcome)))
    }

    /// Hands a webhook to the forwarder.
    fn send_webhook(&self, asker: Asker, webhook: Box<Webhook>) -> Option<FromKeeper> {
        let mut forwarder = lock(&self.forwarder);
        let number = self.state().exchanges.begin_webhook(asker);
        let sent = forwarder.as_mut().is_some_and(|line| {
            frame::write(&mut line.stream, number, &ToForwarder::Webhook(webhook)).is_ok()
        });
        drop(forwarder);
        if sent {
            return None;
        }
        self.state().exchanges.finish_webhook(number)?;
        Some(FromKeeper::Refused(Refusal::of(RefusalCode::ForwarderDown)))
    }

    /// Takes a pair to the forwarder, of which so many were handed over with this one.
    fn take_forwarder(self: &Arc<Self>, generation: u64, pairs: u64, stream: UnixStream) {
        let Ok(reading) = stream.try_clone() else { return };
        let mut forwarder = lock(&self.forwarder);
        let lost = forwarder.replace(Line { generation, stream }).map(|_| self.lose_exchanges());
        drop(forwarder);
        lost.into_iter().for_each(|lost| self.answer_lost(lost));
        let keeper = Arc::clone(self);
        std::thread::spawn(move || {
            keeper.serve_forwarder(generation, reading);
            keeper.ask_for_forwarder(pairs);
        });
    }

    /// Reads the forwarder's line until it ends; whatever was with it then is lost.
    fn serve_forwarder(&self, generation: u64, stream: UnixStream) {
        let mut reader = FrameReader::new(stream);
        while let Ok((number, answer)) = reader.read::<FromForwarder>() {
            match answer {
                FromForwarder::Exchanged(exchanged) => self.take_outcome(number, *exchanged),
                FromForwarder::Webhook(read) => {
                    let asker = self.state().exchanges.finish_webhook(number);
                    if let Some(asker) = asker {
                        self.answer_later(asker, &FromKeeper::WebhookRead(Box::new(read)));
                    }
                }
            }
        }
        let mut forwarder = lock(&self.forwarder);
        if forwarder.as_ref().is_some_and(|line| line.generation == generation) {
            *forwarder = None;
            let lost = self.lose_exchanges();
            drop(forwarder);
            self.answer_lost(lost);
        }
    }

    /// Tells the supervisor that the line ended, until there is another one: the forwarder may live, and then nobody else would.
    fn ask_for_forwarder(&self, pairs: u64) {
        loop {
            std::thread::sleep(LOST_AFTER);
            if lock(&self.forwarder).is_some() {
                return;
            }
            self.tell_supervisor(&FromKeeperControl::ForwarderLineEnded(pairs));
        }
    }

    fn take_outcome(&self, number: u64, exchanged: Exchanged) {
        let Exchanged { mut outcome, new_card } = exchanged;
        // A panic over a processor's word on the card must not take the outcome with it.
        let arrived = AssertUnwindSafe(|| self.state().arrived(number, &mut outcome, new_card));
        let asker = catch_unwind(arrived).unwrap_or_else(|_| {
            outcome.card_update = None;
            self.state().arrived(number, &mut outcome, None)
        });
        if let Some(asker) = asker {
            self.answer_later(asker, &FromKeeper::Outcome(Box::new(outcome)));
        }
    }

    /// Takes all that was with a forwarder whose line ended. Its lock is held: what goes over the next line is not among them.
    fn lose_exchanges(&self) -> Lost {
        let exchanges = &mut self.state().exchanges;
        Lost { webhooks: exchanges.lose_webhooks(), exchanges: exchanges.lose_all() }
    }

    fn answer_lost(&self, lost: Lost) {
        for asker in lost.webhooks {
            self.answer_later(asker, &FromKeeper::Refused(Refusal::of(RefusalCode::ForwarderDown)));
        }
        for (asker, outcome) in lost.exchanges {
            self.answer_later(asker, &FromKeeper::Outcome(Box::new(outcome)));
        }
    }

    fn answer_later(&self, asker: Asker, answer: &FromKeeper) {
        let mut out = Vec::with_capacity(512);
        if encode_answer(asker.id, answer, &mut out).is_ok() {
            self.write_edge(asker.generation, &out);
        }
    }

    /// Writes to the edge that asked; one that came later did not ask.
    fn write_edge(&self, generation: u64, bytes: &[u8]) {
        let mut edge = lock(&self.edge);
        if let Some(line) = edge.as_mut().filter(|line| line.generation == generation) {
            // If it fails the edge is gone, and its reading thread sees that.
            let _ = line.stream.write_all(bytes);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Appends an answer to `out`. One that fits no frame is a refused question, and no reason to give up the line.
fn encode_answer(id: u64, answer: &FromKeeper, out: &mut Vec<u8>) -> Result<(), FrameError> {
    frame::encode(id, answer, out).or_else(|error| match error {
        FrameError::TooLarge | FrameError::Malformed => {
            frame::encode(id, &FromKeeper::Refused(Refusal::of(RefusalCode::Internal)), out)
        }
        FrameError::Closed | FrameError::Io(_) => Err(error),
    })
}

/// The KEK, from the unsealer; it ends with its end of the pair.
fn receive_kek(unsealer: UnixStream) -> Option<Kek> {
    pair::receive(&unsealer).ok().map(|(kek, _)| kek)
}

/// A lock that a caught panic does not poison: each question leaves the state whole or has not touched it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::FRAME_BYTES_MAX;

    #[test]
    fn an_answer_that_fits_no_frame_is_a_refusal_and_the_line_goes_on() {
        let mut out = Vec::new();
        let answers = [FromKeeper::Done, FromKeeper::Signed(vec![1; FRAME_BYTES_MAX]), FromKeeper::Done];
        for (id, answer) in (7..).zip(&answers) {
            encode_answer(id, answer, &mut out).unwrap();
        }
        let mut reader = FrameReader::new(&out[..]);
        assert!(matches!(reader.read(), Ok((7, FromKeeper::Done))));
        assert!(matches!(reader.read(), Ok((8, FromKeeper::Refused(_)))));
        assert!(matches!(reader.read(), Ok((9, FromKeeper::Done))));
    }
}
