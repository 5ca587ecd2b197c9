//! What requests share: the book behind its lock, the durable file, the secret, the clock, and how long things take.

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

use super::book::{Book, Done, FollowUp, Order, Refusal, Request};
use super::index::Record;
use super::ledger::{self, Entry, Place};
use super::numbers::Fault;
use super::reply::Tail;
use super::server::Settings;
use crate::clock::{Clock, SystemClock, Time};

const DELAY: Duration = Duration::from_secs(2);

/// Everything that requests share.
pub(super) struct Sandbox {
    book: Mutex<Book>,
    file: File,
    durable: watch::Receiver<u64>,
    secret: Option<String>,
    digest_key: hmac::Key,
    processor: Duration,
    search_lag_s: i64,
    clock_offset_s: AtomicI64,
}

/// A request that has arrived whole.
pub(super) struct Arrived {
    pub(super) parts: Parts,
    pub(super) body: Bytes,
    /// When its last byte was read.
    pub(super) at: Instant,
    pub(super) tail: Tail,
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
    pub(super) fault: Fault,
    pub(super) replayed: bool,
    /// From the request's last byte until now, in milliseconds.
    pub(super) processor_ms: f64,
}

impl Sandbox {
    /// Opens the ledger and learns what is in it.
    pub(super) fn open(settings: &Settings) -> io::Result<Self> {
        let book = Book::open(&settings.ledger)?;
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
            search_lag_s: settings.search_lag_s,
            clock_offset_s: AtomicI64::new(0),
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

    /// The fault that a script has for this look-up.
    pub(super) fn look_up_fault(&self) -> Option<Fault> {
        self.book().look_up_fault()
    }

    /// The book, alone.
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the request carries the secret, as bearer or as the user name of Basic.
    pub(super) fn is_authentic(&self, arrived: &Arrived) -> bool {
        let Some(given) = arrived.header("authorization") else { return false };
        let Some(secret) = &self.secret else { return true };
        let given = match given.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.as_bytes().to_vec(),
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("basic") => {
                let pair = data_encoding::BASE64.decode(token.as_bytes()).unwrap_or_default();
                pair.strip_suffix(b":").map(<[u8]>::to_vec).unwrap_or_default()
            }
            Some(_) | None => return false,
        };
        bool::from(given.ct_eq(secret.as_bytes()))
    }

    /// Names the request for its key: a repetition has the same digest. Keyed, as the body holds a card number.
    pub(super) fn digest(&self, arrived: &Arrived) -> u64 {
        let mut context = hmac::Context::with_key(&self.digest_key);
        context.update(arrived.parts.method.as_str().as_bytes());
        context.update(arrived.parts.uri.path().as_bytes());
        context.update(b"\n");
        context.update(&arrived.body);
        let tag = context.sign();
        tag.as_ref().iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
    }

    /// Does it, waits until the ledger is durable, and until the processor has taken its time.
    pub(super) async fn perform(
        &self,
        request: &Request,
        operation: Operation,
        arrived: Instant,
    ) -> Result<Performed, Refusal> {
        let held = match &request.key {
            Some(key) => Some(Held { sandbox: self, hash: self.book().hold(request.wire, key)? }),
            None => None,
        };
        let now = self.now();
        let done = match operation {
            Operation::Place(order) => self.book().place(request, *order, now),
            Operation::Follow(follow) => self.book().follow(request, &follow, now),
        }?;
        self.until_durable(done.place.end()).await?;
        let Done { place, entry, fault, replayed } = done;
        let entry = match entry {
            Some(entry) => entry,
            None => self.read(place).ok_or(Refusal::Broken)?,
        };
        let extra = if fault == Fault::Delay { DELAY } else { Duration::ZERO };
        let processor_ms = self.take_time(arrived, extra).await;
        drop(held);
        Ok(Performed { entry, fault, replayed, processor_ms })
    }

    /// Whether a look-up by reference sees it yet.
    pub(super) fn is_searchable(&self, record: &Record) -> bool {
        record.at_s + self.search_lag_s <= self.now().seconds()
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
