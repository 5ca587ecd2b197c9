//! What requests share: the book behind its lock, the durable file, the secret, the clock, and how long things take.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use hyper::http::request::Parts;
use ring::hmac;
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tokio::time::Instant;

use super::adyen::Told;
use super::book::{Book, Done, FollowUp, Order, Refusal, Request};
use super::faults::{Met, Occasion};
use super::index::Record;
use super::ledger::Wire;
use super::ledger::{self, Entry, Place};
use super::numbers::Fault;
use super::rules::{AllRules, Rules};
use super::server::Settings;
use super::way::Way;
use crate::clock::{Clock, SystemClock, Time};

/// So many webhooks are kept to be told and shown.
const TOLD_MAX: usize = 10_000;
const DELAY: Duration = Duration::from_secs(2);

/// Everything that requests share.
pub(super) struct Sandbox {
    book: Mutex<Book>,
    file: File,
    durable: watch::Receiver<u64>,
    secret: Option<String>,
    digest_key: hmac::Key,
    processor: Duration,
    clock_offset_s: AtomicI64,
    refuses: watch::Sender<Option<Instant>>,
    /// What Adyen's webhooks tell, oldest first, by number.
    told: Mutex<BTreeMap<u64, Told>>,
}

/// A request that has arrived whole.
pub(super) struct Arrived {
    pub(super) parts: Parts,
    pub(super) body: Bytes,
    /// When its last byte was read.
    pub(super) at: Instant,
    pub(super) way: Way,
}

impl Arrived {
    /// A header's value, if it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    /// A field of the query.
    pub(super) fn query(&self, name: &str) -> Option<String> {
        let query = self.parts.uri.query()?.as_bytes();
        form_urlencoded::parse(query).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

/// What is to be done.
pub(super) enum Operation {
    /// A new payment.
    Place(Box<Order>),
    /// A capture, refund or void.
    Follow(FollowUp),
}

/// What was done, durable and as late as the processor is slow.
pub(super) struct Performed {
    pub(super) entry: Entry,
    pub(super) met: Met,
    pub(super) replayed: bool,
    /// From the request's last byte until now, in milliseconds.
    pub(super) processor_ms: f64,
}

impl Sandbox {
    /// Opens the ledger and learns what is in it.
    pub(super) fn open(settings: &Settings, rules: Rules) -> io::Result<Self> {
        let mut book = Book::open(&settings.ledger)?;
        let lag_s = u32::try_from(settings.search_lag_s).ok();
        *book.rules() = AllRules::of(Rules { search_lag_s: rules.search_lag_s.or(lag_s), ..rules });
        let (durable, file) = book.durable();
        let secret = settings.secret.clone();
        let digest_key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_deref().unwrap_or("sandbox").as_bytes());
        Ok(Self {
            book: Mutex::new(book),
            file: file?,
            durable,
            secret,
            digest_key,
            processor: Duration::from_millis(settings.processor_ms),
            clock_offset_s: AtomicI64::new(0),
            refuses: watch::Sender::new(None),
            told: Mutex::default(),
        })
    }

    /// The sandbox's own time.
    pub(super) fn now(&self) -> Time {
        SystemClock.now().plus_seconds(self.clock_offset_s.load(Ordering::SeqCst))
    }

    /// Moves the clock on.
    pub(super) fn advance_clock(&self, seconds: i64) {
        self.clock_offset_s.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Connections are to be refused for so long.
    pub(super) fn refuse_for(&self, time: Duration) {
        self.refuses.send_replace(Some(Instant::now() + time));
    }

    /// Waits until connections are to be refused; answers until when. Each request to refuse is told once.
    pub(super) async fn is_to_refuse(&self) -> Instant {
        let mut refuses = self.refuses.subscribe();
        loop {
            // Copied out, as sending waits for whoever looks.
            let until = *refuses.borrow_and_update();
            if let Some(until) = until {
                self.refuses.send_replace(None);
                return until;
            }
            if refuses.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn events(&self) -> MutexGuard<'_, BTreeMap<u64, Told>> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in self.book().take_events() {
            let next = told.last_key_value().map_or(0, |(at, _)| at + 1);
            told.insert(next, Told::new(entry));
        }
        // The oldest go first, those that need no more care before the others.
        while told.len() > TOLD_MAX {
            let over = told.iter().find(|(_, told)| told.is_over()).map(|(at, _)| *at);
            let Some(at) = over.or_else(|| told.first_key_value().map(|(at, _)| *at)) else { break };
            told.remove(&at);
        }
        told
    }

    /// The events that somebody is to be told of now.
    pub(super) fn due_events(&self, now: Instant) -> Vec<u64> {
        self.events().iter().filter(|(_, told)| told.is_due(now)).map(|(at, _)| *at).collect()
    }

    /// Looks at an event, or changes it.
    pub(super) fn event<T>(&self, at: u64, look: impl FnOnce(&mut Told) -> T) -> Option<T> {
        self.events().get_mut(&at).map(look)
    }

    /// What was told, or is to be, oldest first.
    pub(super) fn told(&self) -> serde_json::Value {
        let data: Vec<_> = self.events().values().map(Told::shown).collect();
        serde_json::json!({ "data": data })
    }

    /// What the scripts have for this occasion.
    pub(super) fn meets(&self, occasion: Occasion, wire: Option<Wire>) -> Met {
        self.book().faults().next(occasion, wire).unwrap_or(Met::NOTHING)
    }

    /// The book, alone.
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the request carries the secret: as bearer, as the user name or the password of Basic, or as Adyen's key.
    pub(super) fn is_authentic(&self, arrived: &Arrived) -> bool {
        if let Some(key) = arrived.header("x-api-key") {
            return self.is_secret(key.as_bytes());
        }
        let Some(given) = arrived.header("authorization") else { return false };
        match given.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                self.is_secret(token.as_bytes())
            }
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("basic") => {
                let pair = data_encoding::BASE64.decode(token.as_bytes()).unwrap_or_default();
                let at = pair.iter().position(|byte| *byte == b':').unwrap_or(pair.len());
                let (user, rest) = pair.split_at(at);
                let password = rest.get(1..).unwrap_or_default();
                if password.is_empty() { self.is_secret(user) } else { self.is_secret(password) }
            }
            Some(_) | None => self.secret.is_none(),
        }
    }

    /// Whether this is the secret; without one everything is.
    pub(super) fn is_secret(&self, given: &[u8]) -> bool {
        self.secret.as_ref().is_none_or(|secret| bool::from(given.ct_eq(secret.as_bytes())))
    }

    /// Names what a duplicate of this would be. Keyed, as one part is a card number.
    pub(super) fn window(&self, parts: &[&str]) -> u64 {
        let mut context = hmac::Context::with_key(&self.digest_key);
        for part in parts {
            context.update(part.as_bytes());
            context.update(b"\n");
        }
        first_eight(context.sign().as_ref())
    }

    /// Names the request for its key: a repetition has the same digest. Keyed, as the body holds a card number.
    pub(super) fn digest(&self, arrived: &Arrived) -> u64 {
        let mut context = hmac::Context::with_key(&self.digest_key);
        context.update(arrived.parts.method.as_str().as_bytes());
        context.update(arrived.parts.uri.path().as_bytes());
        context.update(b"\n");
        context.update(&arrived.body);
        first_eight(context.sign().as_ref())
    }

    /// Does it, waits until the ledger is durable, and until the processor has taken its time.
    pub(super) async fn perform(
        &self,
        request: &Request,
        operation: Operation,
        arrived: Instant,
    ) -> Result<Performed, Refusal> {
        let held = match request.key.as_ref().filter(|_| self.book().in_force(request.wire).has_keys()) {
            Some(key) => Some(Held { sandbox: self, hash: self.book().hold(request.wire, key)? }),
            None => None,
        };
        let now = self.now();
        let done = match operation {
            Operation::Place(order) => self.book().place(request, *order, now),
            Operation::Follow(follow) => self.book().follow(request, &follow, now),
        }?;
        self.until_durable(done.place.end()).await?;
        let Done { place, entry, met, replayed } = done;
        let entry = match entry {
            Some(entry) => entry,
            None => self.read(place).ok_or(Refusal::Broken)?,
        };
        let extra = if met.fault == Fault::Delay { DELAY } else { Duration::ZERO };
        let processor_ms = self.take_time(arrived, extra).await;
        drop(held);
        Ok(Performed { entry, met, replayed, processor_ms })
    }

    /// Whether a look-up by reference sees it yet.
    pub(super) fn is_searchable(&self, record: &Record) -> bool {
        record.at_s + self.book().in_force(record.wire).search_lag_s <= self.now().seconds()
    }

    /// Waits until the processor would answer; says how long that was, in milliseconds.
    pub(super) async fn take_time(&self, arrived: Instant, extra: Duration) -> f64 {
        let takes = self.processor + extra;
        if !takes.is_zero() {
            tokio::time::sleep_until(arrived + takes).await;
        }
        (arrived.elapsed().as_secs_f64() * 1e6).round() / 1e3
    }

    /// Waits until the ledger is durable up to there.
    pub(super) async fn until_durable(&self, end: u64) -> Result<(), Refusal> {
        let mut durable = self.durable.clone();
        durable.wait_for(|durable| *durable >= end).await.map_err(|_| Refusal::Broken)?;
        Ok(())
    }

    /// The ledger up to there.
    pub(super) fn read_all(&self, end: u64) -> Option<Vec<u8>> {
        let mut all = vec![0; usize::try_from(end).ok()?];
        self.file.read_exact_at(&mut all, 0).ok()?;
        Some(all)
    }

    /// Reads a durable line.
    pub(super) fn read(&self, place: Place) -> Option<Entry> {
        ledger::read(&self.file, place)
    }
}

fn first_eight(tag: &[u8]) -> u64 {
    tag.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

/// A key that is worked on; it is free again when this is dropped, also when the caller hangs up.
struct Held<'a> {
    sandbox: &'a Sandbox,
    hash: u64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.sandbox.book().release(self.hash);
    }
}
