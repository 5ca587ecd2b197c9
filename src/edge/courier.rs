//! The edge's line to the courier: a thread writes, another reads, answers are given out by number. A courier that does not read never
//! holds up the edge: what does not fit the queue is refused.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::wire::courier::{Post, Posted};
use crate::wire::frame::{self, FrameReader};

/// Posts that may wait to be written.
const QUEUE_MAX: usize = 256;
/// The courier answers within the time of its settings, which is at most a minute.
const ANSWER_WITHIN: Duration = Duration::from_secs(75);

/// There is no courier, it went away, or it does not answer: nobody knows whether anything was posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the courier does not answer")]
pub struct CourierDown;

/// Between two looks at whether the line is there; one that is gone at both is said to be.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The line to the courier.
#[derive(Debug, Default)]
pub struct Courier {
    link: Mutex<Option<Arc<Link>>>,
    /// How many pairs it had.
    pairs: AtomicU64,
}

type Waiting = HashMap<u64, oneshot::Sender<Posted>>;

#[derive(Debug)]
struct Link {
    last_id: AtomicU64,
    waiting: Mutex<Waiting>,
    is_open: AtomicBool,
    to: SyncSender<(u64, Post)>,
}

impl Courier {
    /// Takes a fresh pair into use; whatever waits on the one before fails when that ends.
    pub fn connect(&self, pair: UnixStream) -> std::io::Result<()> {
        let reading = pair.try_clone()?;
        let (to, queued) = sync_channel(QUEUE_MAX);
        let link = Arc::new(Link {
            last_id: AtomicU64::new(0),
            waiting: Mutex::default(),
            is_open: AtomicBool::new(true),
            to,
        });
        let listening = Arc::clone(&link);
        std::thread::Builder::new().name("to-courier".into()).spawn(move || write(pair, &queued))?;
        std::thread::Builder::new().name("from-courier".into()).spawn(move || listening.read(reading))?;
        *lock(&self.link) = Some(link);
        self.pairs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Whether there is a pair whose other end is there.
    pub fn is_connected(&self) -> bool {
        lock(&self.link).as_ref().is_some_and(|link| link.is_open.load(Ordering::SeqCst))
    }

    /// Waits until there has been no pair for a moment; says how many there were. Whoever tells the supervisor and asks again tells it
    /// again until there is one.
    pub async fn lost(&self) -> u64 {
        let mut was_lost = false;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let pairs = self.pairs.load(Ordering::SeqCst);
            let is_lost = !self.is_connected();
            if was_lost && is_lost {
                return pairs;
            }
            was_lost = is_lost;
        }
    }

    /// Has something posted.
    pub async fn post(&self, post: Post) -> Result<Posted, CourierDown> {
        let link = lock(&self.link).clone().ok_or(CourierDown)?;
        let id = link.last_id.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        lock(&link.waiting).insert(id, tell);
        let waits = Waits { link: &link, id };
        // After the entry, so that a link which closes meanwhile does not leave it waiting.
        if !link.is_open.load(Ordering::SeqCst) || link.to.try_send((id, post)).is_err() {
            return Err(CourierDown);
        }
        let answer = tokio::time::timeout(ANSWER_WITHIN, told).await;
        drop(waits);
        answer.ok().and_then(Result::ok).ok_or(CourierDown)
    }
}

/// Nobody waits any more once it is dropped, however that comes.
struct Waits<'a> {
    link: &'a Link,
    id: u64,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        lock(&self.link.waiting).remove(&self.id);
    }
}

impl Link {
    fn read(&self, from: UnixStream) {
        let mut reader = FrameReader::new(from);
        while let Ok((id, posted)) = reader.read::<Posted>() {
            if let Some(tell) = lock(&self.waiting).remove(&id) {
                // The asker may have gone away meanwhile.
                let _ = tell.send(posted);
            }
        }
        self.is_open.store(false, Ordering::SeqCst);
        lock(&self.waiting).clear();
    }
}

fn write(mut to: UnixStream, queued: &Receiver<(u64, Post)>) {
    while let Ok((id, post)) = queued.recv() {
        if frame::write(&mut to, id, &post).is_err() {
            // The reading thread learns it too.
            return;
        }
    }
    // Another pair is in use: who reads this one shall end.
    let _ = to.shutdown(std::net::Shutdown::Both);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(path: &str) -> Post {
        Post { host: "h".to_owned(), port: 443, path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    #[tokio::test]
    async fn answers_find_who_asked_and_a_courier_that_ends_leaves_nobody_waiting() {
        let courier = Courier::default();
        assert_eq!(courier.post(post("/")).await, Err(CourierDown));
        let (ours, theirs) = UnixStream::pair().unwrap();
        courier.connect(ours).unwrap();
        let other = std::thread::spawn(move || {
            let mut reader = FrameReader::new(theirs.try_clone().unwrap());
            let mut theirs = theirs;
            let asked: Vec<(u64, Post)> = (0..3).map(|_| reader.read().unwrap()).collect();
            // Two are answered, the later one first; the third never is.
            for (id, post) in asked.iter().rev().filter(|(_, post)| post.path != "/lost") {
                let status = Some(post.path.trim_start_matches('/').parse().unwrap());
                let posted = Posted { status, error: None, ..Posted::failed("") };
                frame::write(&mut theirs, *id, &posted).unwrap();
            }
        });
        let (a, b, lost) =
            tokio::join!(courier.post(post("/201")), courier.post(post("/500")), courier.post(post("/lost")));
        assert_eq!((a.unwrap().status, b.unwrap().status), (Some(201), Some(500)));
        assert_eq!(lost, Err(CourierDown));
        other.join().unwrap();
        assert!(!courier.is_connected());
    }
}
