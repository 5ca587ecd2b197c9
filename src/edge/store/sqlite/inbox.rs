//! What waits for the writer: changes, events that belong to none, and requests of the scrubber.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Time;
use crate::edge::audit::event::EventDraft;
use crate::edge::store::{Change, CommitError, Committed};

/// Changes in one transaction at most: more would make the first wait for the last.
const BATCH_JOBS_MAX: usize = 512;
/// Events that may wait; at some 700 bytes each, 14 MB.
const EVENTS_MAX: usize = 20_000;
/// As many events wake the writer; fewer wait for company. With each commit the readers' page caches begin anew.
const EVENTS_WAKE: usize = 2_000;
/// Fewer events wait this long, well within the promised second.
const EVENTS_WAIT: Duration = Duration::from_millis(200);

/// One thing to commit, and who waits for it.
pub(super) enum Job {
    Change(Box<Change>, oneshot::Sender<Result<Committed, CommitError>>),
    Checkpoint { size: u64, note: String, reply: oneshot::Sender<Result<(), CommitError>> },
}

impl Job {
    /// Says what became of it.
    pub(super) fn answer(self, answer: Result<Committed, CommitError>) {
        // Whoever no longer waits needs no answer.
        match self {
            Self::Change(_, reply) => drop(reply.send(answer)),
            Self::Checkpoint { reply, .. } => drop(reply.send(answer.map(drop))),
        }
    }

    /// Answers that it was not committed.
    pub(super) fn refuse(self, word: &'static str) {
        self.answer(Err(CommitError::Unavailable(word)));
    }
}

/// What the writer takes at once.
#[derive(Default)]
pub(super) struct Work {
    pub(super) jobs: Vec<Job>,
    pub(super) events: Vec<EventDraft>,
    /// Finish the checkpoint, so that the write-ahead log begins again.
    pub(super) restart: bool,
    /// Empty the write-ahead log and say which cards are gone from disk.
    pub(super) scrub: bool,
    /// Nothing more will come.
    pub(super) stop: bool,
}

#[derive(Default)]
struct Waiting {
    work: Work,
    /// When the oldest event that is not durable came.
    oldest_event: Option<Time>,
    /// The same for events that the writer has taken.
    oldest_taken: Option<Time>,
    closed: bool,
}

/// The queue in front of the writer.
#[derive(Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

impl Inbox {
    /// Queues a job; gives it back if the writer is gone.
    pub(super) fn push(&self, job: Job) -> Result<(), Job> {
        let mut waiting = self.lock();
        if waiting.closed || waiting.work.stop {
            return Err(job);
        }
        waiting.work.jobs.push(job);
        if waiting.work.jobs.len() == 1 {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Queues events unless the log lags.
    pub(super) fn push_events(
        &self,
        events: Vec<EventDraft>,
        now: Time,
        lag_max_seconds: u64,
    ) -> Result<(), CommitError> {
        let mut waiting = self.lock();
        if waiting.closed || waiting.work.stop {
            return Err(CommitError::Unavailable("closed"));
        }
        let lags = lag_ms(&waiting, now) > lag_max_seconds.saturating_mul(1_000);
        if lags || waiting.work.events.len().saturating_add(events.len()) > EVENTS_MAX {
            return Err(CommitError::Unavailable("event_lag"));
        }
        let before = waiting.work.events.len();
        waiting.work.events.extend(events);
        waiting.oldest_event = waiting.oldest_event.or(Some(now));
        if before == 0 || (before < EVENTS_WAKE && waiting.work.events.len() >= EVENTS_WAKE) {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Asks the writer to finish a checkpoint (and to scrub).
    pub(super) fn ask(&self, scrub: bool) {
        let mut waiting = self.lock();
        waiting.work.restart = true;
        waiting.work.scrub |= scrub;
        self.wake.notify_one();
    }

    /// Nothing more will come; what is queued is still committed.
    pub(super) fn stop(&self) {
        self.lock().work.stop = true;
        self.wake.notify_one();
    }

    /// Waits for work, at most `patience`.
    pub(super) fn take(&self, patience: Duration) -> Work {
        let mut waiting = self.lock();
        let urgent = |work: &Work| {
            !work.jobs.is_empty() || work.restart || work.stop || work.events.len() >= EVENTS_WAKE
        };
        let mut waited = false;
        while !urgent(&waiting.work) && !waited {
            let some_events = !waiting.work.events.is_empty();
            let limit = if some_events { EVENTS_WAIT.min(patience) } else { patience };
            let (next, timeout) =
                self.wake.wait_timeout(waiting, limit).unwrap_or_else(PoisonError::into_inner);
            waiting = next;
            // The first event starts the shorter wait.
            waited = timeout.timed_out() || (some_events && !urgent(&waiting.work));
        }
        let mut work = std::mem::take(&mut waiting.work);
        if work.jobs.len() > BATCH_JOBS_MAX {
            waiting.work.jobs = work.jobs.split_off(BATCH_JOBS_MAX);
        }
        waiting.work.stop = work.stop;
        waiting.oldest_taken = waiting.oldest_event.take();
        work
    }

    /// What was taken is durable.
    pub(super) fn settle(&self) {
        self.lock().oldest_taken = None;
    }

    /// Events that could not be written wait again, before those that came since.
    pub(super) fn give_back(&self, mut events: Vec<EventDraft>) {
        let mut waiting = self.lock();
        events.append(&mut waiting.work.events);
        waiting.work.events = events;
        waiting.oldest_event = waiting.oldest_taken.take().or(waiting.oldest_event);
    }

    /// The writer is gone: refuses what waits and what comes.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        let jobs = std::mem::take(&mut waiting.work.jobs);
        drop(waiting);
        jobs.into_iter().for_each(|job| job.refuse("closed"));
    }

    /// Changes that wait, and the age of the oldest event that is not durable, in milliseconds.
    pub(super) fn lag(&self, now: Time) -> (u64, u64) {
        let waiting = self.lock();
        (u64::try_from(waiting.work.jobs.len()).unwrap_or(u64::MAX), lag_ms(&waiting, now))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lag_ms(waiting: &Waiting, now: Time) -> u64 {
    let oldest = waiting.oldest_taken.or(waiting.oldest_event);
    oldest.map_or(0, |then| now.millis().saturating_sub(then.millis()))
}
