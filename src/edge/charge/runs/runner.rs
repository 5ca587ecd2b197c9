//! Works the accepted lines of a run through the charge machine. It begins at the first line each time: what is marked is counted,
//! what is not is charged, so that a restart needs to know nothing.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::super::send::By;
use super::super::{Error, answer, lock, machine};
use super::lane::{Lanes, Pace, Place};
use super::queues::Queues;
use super::work::{self, Ended, Faults, Todo};
use super::{Live, Told, commit, maker, next, verbs};
use crate::card::id::{ChargeId, RunId};
use crate::edge::App;
use crate::edge::audit::catalogue;
use crate::edge::store::{
    ChargeStatus, LineDone, Outbound, RunLineRow, RunOrder, RunRow, RunState, StoreError, Verdict,
};

/// Lines that are read at once.
const PAGE: usize = 256;
/// Between two looks at what is open, and at whether the run may go on.
const TICK: Duration = Duration::from_millis(250);
/// Charges without an outcome that are looked at in one tick.
const OPEN_LOOKS: usize = 100;
/// The rate is that of so many ticks.
const RATE_TICKS: usize = 20;
/// After a fault of our own (store, keeper) nothing is begun for so long.
const BREATH: Duration = Duration::from_millis(500);
/// How often a line is charged anew after its charge certainly did nothing: refused as too much, or not sent.
const TRIES_MAX: u32 = 8;

/// How far a run is, as seen by the task that works on it.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// What became of the lines that were worked on: statuses of charges, and `refused`.
    pub outcomes: BTreeMap<String, u32>,
    /// Lines that are being charged now.
    pub under_way: u32,
    /// Lines worked on a second, over the last seconds.
    pub per_second: f64,
    /// By destination (empty where there is none): how many may be under way, how many of all runs are, and whether it makes a
    /// pause.
    pub lanes: BTreeMap<String, (u32, u32, bool)>,
}

/// Works on a run in a task of its own; one for each run.
pub(super) fn spawn(app: &App, run: RunRow) {
    let live = Arc::new(Live::default());
    match lock(&app.charges.runs.live).entry(run.id) {
        Entry::Occupied(other) => return other.get().changed.notify_one(),
        Entry::Vacant(free) => drop(free.insert(Arc::clone(&live))),
    }
    tokio::spawn(work_on(Arc::clone(app), run, live));
}

async fn work_on(app: App, run: RunRow, live: Arc<Live>) {
    let (tenant, id) = (run.tenant, run.id);
    let mut runner = Runner::new(&app, run, live);
    runner.work().await;
    let outcomes = runner.outcomes();
    drop(runner);
    keep_outcomes(&app, (tenant, id), &outcomes).await;
    lock(&app.charges.runs.live).remove(&id);
    // Whoever resumed it a moment ago found a task that was about to end.
    match app.store.invoice_run(tenant, id).await {
        Ok(Some(run)) if run.state == RunState::Running => spawn(&app, run),
        Ok(Some(run)) => verbs::spawn_release(&app, &run),
        Ok(None) | Err(_) => {}
    }
}

/// A run that stands still shows what had become of its lines. Nothing is decided by it, so no event tells of it.
async fn keep_outcomes(
    app: &App,
    (tenant, id): (crate::card::tenant::TenantId, RunId),
    outcomes: &BTreeMap<String, u32>,
) {
    let Ok(Some(run)) = app.store.invoice_run(tenant, id).await else { return };
    if matches!(run.state, RunState::Paused | RunState::Cancelled) {
        let run = RunRow { outcomes: outcomes.clone(), ..next(app, &run) };
        let row = crate::edge::store::RowChange::PutRun(Box::new(run));
        let change = crate::edge::store::Change { rows: vec![row], ..Default::default() };
        // If something else changed it meanwhile, it shows what it showed before.
        drop(app.store.commit(change).await);
    }
}

struct Runner<'a> {
    app: &'a App,
    run: RunRow,
    live: Arc<Live>,
    by: By,
    queues: Queues,
    lanes: Arc<Lanes>,
    /// Where its lines went so far.
    destinations: BTreeSet<String>,
    tasks: JoinSet<(Todo, Place, Ended)>,
    /// Lines with their last outcome.
    settled: BTreeMap<String, u32>,
    /// Charges whose outcome is not known yet, and how each stood when last looked at.
    open: VecDeque<(ChargeId, ChargeStatus)>,
    done: u32,
    /// How many were done at the last ticks.
    ticks: VecDeque<(Instant, u32)>,
    not_before: Instant,
    /// When a line was last worked on to its charge.
    last_charged: Option<Instant>,
    /// No line is begun any more.
    is_ending: bool,
}

impl<'a> Runner<'a> {
    fn new(app: &'a App, run: RunRow, live: Arc<Live>) -> Self {
        Self {
            by: maker(app, &run),
            queues: Queues::new(&run),
            lanes: Arc::clone(&app.charges.runs.lanes),
            destinations: BTreeSet::new(),
            app,
            run,
            live,
            tasks: JoinSet::new(),
            settled: BTreeMap::new(),
            open: VecDeque::new(),
            done: 0,
            ticks: VecDeque::new(),
            not_before: Instant::now(),
            last_charged: None,
            is_ending: false,
        }
    }

    async fn work(&mut self) {
        let mut next_tick = Instant::now();
        loop {
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                self.tick().await;
            }
            if !self.is_ending && self.read_on().await.is_err() {
                self.not_before = Instant::now() + BREATH;
            }
            let wake = self.begin_some().unwrap_or(next_tick).min(next_tick);
            let wake = if self.has_more() { Instant::now() } else { wake };
            if self.tasks.is_empty() {
                if self.is_ending {
                    return;
                }
                if self.is_done() && self.finish().await {
                    return;
                }
                if self.has_more() {
                    // All that was read had been worked on before.
                    tokio::task::yield_now().await;
                    continue;
                }
            }
            let (live, lanes) = (Arc::clone(&self.live), Arc::clone(&self.lanes));
            tokio::select! {
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    self.take(ended).await;
                    while let Some(ended) = self.tasks.try_join_next() {
                        self.take(ended).await;
                    }
                }
                () = live.changed.notified() => next_tick = Instant::now(),
                // Of another run, maybe, where all places were taken.
                () = lanes.freed.notified() => {}
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    /// Whether lines are to be read now.
    fn has_more(&self) -> bool {
        !self.is_ending && self.queues.has_more() && Instant::now() >= self.not_before
    }

    fn is_done(&self) -> bool {
        self.queues.is_done() && self.tasks.is_empty() && self.open.is_empty()
    }

    /// Reads some more lines: a page or two, so that what is under way is heard between them.
    async fn read_on(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        let pages = if now >= self.not_before { self.queues.pages(now) } else { Vec::new() };
        for page in pages {
            let rows = self.app.store.run_lines(self.run.tenant, self.run.id, page.from(), PAGE).await?;
            for row in self.queues.sift(&page, rows) {
                self.take_row(row).await;
            }
        }
        Ok(())
    }

    async fn take_row(&mut self, row: RunLineRow) {
        let again = match &row.done {
            Some(LineDone::Charge(id, ChargeStatus::Failed)) => self.was_not_sent(*id).await,
            Some(LineDone::Charge(..) | LineDone::Refused(_)) | None => false,
        };
        match (row.verdict, row.done, row.line.order) {
            (Verdict::Accepted, Some(_), Some(order)) if again => {
                self.wait_new(row.number, order, 1).await;
            }
            (Verdict::Accepted, Some(LineDone::Charge(id, status)), _) => self.charged(id, status),
            (Verdict::Accepted, Some(LineDone::Refused(_)), _) => self.settle("refused"),
            (Verdict::Accepted, None, Some(order)) => {
                self.wait_new(row.number, order, 0).await;
            }
            (Verdict::Accepted, None, None)
            | (
                Verdict::AlreadyCharged
                | Verdict::InFlight
                | Verdict::DeclinedBefore
                | Verdict::Conflict
                | Verdict::Invalid,
                _,
                _,
            ) => {}
        }
    }

    async fn wait_new(&mut self, line: u32, order: RunOrder, tries: u32) {
        let to = work::destinations_of(self.app, &self.run, &order).await;
        if let Some(first) = to.first().filter(|first| !self.destinations.contains(*first)) {
            self.destinations.insert(first.clone());
        }
        self.queues.wait(Todo::new(line, order, to, tries), false);
    }

    const fn pace(&self) -> Pace {
        Pace { at_once: self.run.options.concurrency, rate: self.run.options.rate }
    }

    /// Whether nothing of a failed charge had left.
    async fn was_not_sent(&self, id: ChargeId) -> bool {
        let charge = self.app.store.charge(self.run.tenant, &id.to_string()).await.ok().flatten();
        let attempts = charge.iter().flat_map(|charge| &charge.operations).flat_map(|o| &o.attempts);
        attempts.last().is_some_and(|attempt| attempt.outbound == Outbound::NotSent)
    }

    /// Begins what may be begun; gives when it makes sense to ask again.
    fn begin_some(&mut self) -> Option<Instant> {
        let now = Instant::now();
        if self.is_ending {
            return None;
        }
        if self.not_before > now {
            return Some(self.not_before);
        }
        let mut wake: Option<Instant> = None;
        let Ok(allowed) = work::allowed(self.app, &self.run) else { return None };
        let of = (self.run.id, self.pace());
        // Destinations that take no more now.
        let mut full = BTreeSet::new();
        for (queue, is_of_one) in self.queues.all_mut() {
            let mut at = 0;
            while let Some(todo) = queue.waiting.get(at) {
                if full.contains(&todo.to) {
                    if is_of_one {
                        break;
                    }
                    at += 1;
                    continue;
                }
                match self.lanes.start(&todo.to, of, now) {
                    Ok(place) => {
                        if !self.destinations.contains(place.destination()) {
                            self.destinations.insert(place.destination().to_owned());
                        }
                        let Some(todo) = queue.waiting.remove(at) else { break };
                        let (app, by, allowed) = (Arc::clone(self.app), self.by.clone(), allowed.clone());
                        let id = self.run.id;
                        self.tasks.spawn(async move {
                            let ended =
                                work::work(&app, &allowed, id, &todo, (&by, place.destination())).await;
                            (todo, place, ended)
                        });
                    }
                    Err(until) => {
                        full.insert(todo.to.clone());
                        wake = [wake, until].into_iter().flatten().min();
                    }
                }
            }
        }
        wake
    }

    async fn take(&mut self, ended: Result<(Todo, Place, Ended), tokio::task::JoinError>) {
        // A line whose task broke is found by the next start: its mark says how far it came.
        let Ok((todo, place, ended)) = ended else {
            tracing::error!(code = "run_line", "the work on a line of a run broke off");
            return self.stand_still("internal").await;
        };
        let now = Instant::now();
        let began = place.began;
        if let Ended::Charged { too_much, wait, .. } = &ended {
            self.last_charged = Some(now);
            place.end((*too_much, *wait), now);
        } else {
            drop(place);
        }
        match ended {
            Ended::Charged { too_much: true, status: ChargeStatus::Failed, .. } if todo.tries < TRIES_MAX => {
                // Behind the others: if it is this line alone that meets it, it holds up none.
                self.queues.wait(Todo { tries: todo.tries + 1, ..todo }, false);
            }
            Ended::Charged { id, status, .. } | Ended::Marked { id, status } => self.charged(id, status),
            Ended::Refused => self.settle("refused"),
            Ended::Again => self.queues.wait(Todo { tries: todo.tries + 1, ..todo }, true),
            Ended::NotNow => {
                self.not_before = now + BREATH;
                self.queues.wait(todo, true);
            }
            Ended::Faulty => {
                let others_go = self.last_charged.is_some_and(|at| at >= began);
                if !others_go {
                    self.not_before = now + BREATH;
                }
                let others_go = others_go || todo.faults.others_go;
                let faults = Faults { count: todo.faults.count.saturating_add(1), others_go };
                self.queues.wait(Todo { faults, ..todo }, false);
            }
            Ended::Stop(reason) => {
                // Should the run go on, the line has all its tries again.
                let todo = Todo { faults: Faults::default(), ..todo };
                self.queues.wait(todo, true);
                self.stand_still(reason).await;
            }
        }
    }

    fn charged(&mut self, id: ChargeId, status: ChargeStatus) {
        self.done += 1;
        if machine::is_final(status) {
            *self.settled.entry(answer::status_word(status).to_owned()).or_default() += 1;
        } else {
            self.open.push_back((id, status));
        }
    }

    fn settle(&mut self, word: &str) {
        self.done += 1;
        *self.settled.entry(word.to_owned()).or_default() += 1;
    }

    /// Looks at what is open, at whether the run goes on, and says how far it is.
    async fn tick(&mut self) {
        for _ in 0..OPEN_LOOKS.min(self.open.len()) {
            let Some((id, status)) = self.open.pop_front() else { break };
            match self.app.store.charge(self.run.tenant, &id.to_string()).await {
                Ok(Some(charge)) => {
                    self.done -= 1;
                    self.charged(id, charge.status);
                }
                Ok(None) | Err(_) => self.open.push_back((id, status)),
            }
        }
        if let Ok(Some(run)) = self.app.store.invoice_run(self.run.tenant, self.run.id).await {
            self.is_ending |= run.state != RunState::Running;
            if run.state == RunState::Running && self.tasks.is_empty() {
                self.is_ending = false;
            }
            self.run = run;
        }
        if !self.is_ending
            && let Err(reason) = work::allowed(self.app, &self.run)
        {
            self.stand_still(reason).await;
        }
        self.tell();
    }

    fn tell(&mut self) {
        let now = Instant::now();
        self.ticks.push_back((now, self.done));
        if self.ticks.len() > RATE_TICKS {
            self.ticks.pop_front();
        }
        let per_second = self.ticks.front().map_or(0.0, |(then, done)| {
            let seconds = now.duration_since(*then).as_secs_f64();
            if seconds > 0.0 { f64::from(self.done.saturating_sub(*done)) / seconds } else { 0.0 }
        });
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let lanes = self.destinations.iter().map(|name| {
            let (allowed, under_way, is_paused) = self.lanes.show(name, self.pace(), now);
            (name.clone(), (small(allowed), small(under_way), is_paused))
        });
        *lock(&self.live.progress) = Progress {
            outcomes: self.outcomes(),
            under_way: small(self.tasks.len()),
            per_second,
            lanes: lanes.collect(),
        };
    }

    fn outcomes(&self) -> BTreeMap<String, u32> {
        let mut outcomes = self.settled.clone();
        for (_, status) in &self.open {
            *outcomes.entry(answer::status_word(*status).to_owned()).or_default() += 1;
        }
        outcomes
    }

    /// Pauses the run by itself.
    async fn stand_still(&mut self, reason: &'static str) {
        if self.is_ending {
            return;
        }
        self.is_ending = true;
        let mut run = next(self.app, &self.run);
        (run.state, run.reason) = (RunState::Paused, Some(reason.to_owned()));
        run.outcomes = self.outcomes();
        self.tell();
        let told = Told {
            action: catalogue::RUN_PAUSED,
            by: By { actor: super::Actor::System("runner".to_owned()), ..self.by.clone() },
            note: Some(reason.to_owned()),
            count: None,
        };
        // What cannot be written now is tried again with the next line that meets the same.
        match commit(self.app, &run, told, None).await {
            Ok(()) => self.run = run,
            Err(_) => self.is_ending = false,
        }
    }

    /// Nothing is left to be done. `false` if that could not be written down yet.
    async fn finish(&mut self) -> bool {
        let mut run = next(self.app, &self.run);
        run.state = RunState::Finished;
        run.outcomes = self.outcomes();
        run.finished_at = Some(run.updated_at);
        // Each accepted line has its mark, so no invoice is claimed by a line any more.
        run.released = run.lines;
        let told =
            Told { action: catalogue::RUN_FINISHED, by: self.by.clone(), note: None, count: Some(run.lines) };
        let done: Result<(), Error> = commit(self.app, &run, told, None).await;
        if done.is_err() {
            tokio::time::sleep(BREATH).await;
        }
        done.is_ok()
    }
}
