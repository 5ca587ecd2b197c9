//! The lines of a run that wait for their turn, by the destination that they name; and which lines are to be read next.
//!
//! They are read in the order of the run. A destination that stands still does not hold up the others: once it has its share in
//! memory it is left behind, and its lines are read once more when it has room. So memory is the same whatever a run holds.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::work::Todo;
use crate::edge::store::{ChargeStatus, LineDone, RunLineRow, RunRow, Verdict};

/// Lines of one destination that wait in memory, beside the rest of a page.
const WAITING_MAX: usize = 1_024;
/// A destination that takes no further page for so long is left behind.
const STANDS_STILL: Duration = Duration::from_secs(1);

/// A page of lines to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// What comes next in the run.
    Next(u32),
    /// What comes next for a destination that was left behind.
    Behind(String, u32),
}

impl Page {
    /// Its first line.
    pub(super) const fn from(&self) -> u32 {
        match self {
            Self::Next(from) | Self::Behind(_, from) => *from,
        }
    }
}

/// The lines that name one destination, or none, in the order of the run.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Todo>,
    /// It was left behind: from this line on its lines are still to be read.
    behind: Option<u32>,
}

impl Queue {
    fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }
}

/// All lines that wait.
pub(super) struct Queues {
    by_destination: HashMap<String, Queue>,
    /// The next line to be read.
    at: u32,
    lines: u32,
    /// Since when no line was read because a destination had too many waiting.
    held_up_since: Option<Instant>,
}

impl Queues {
    pub(super) fn new(run: &RunRow) -> Self {
        Self { by_destination: HashMap::new(), at: 1, lines: run.lines, held_up_since: None }
    }

    pub(super) fn wait(&mut self, todo: Todo, first: bool) {
        let name = todo.order.destination.clone().unwrap_or_default();
        let queue = self.by_destination.entry(name).or_default();
        if first {
            queue.waiting.push_front(todo);
        } else {
            queue.waiting.push_back(todo);
        }
    }

    /// All of them; and whether their lines may go to one destination only.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = (&mut Queue, bool)> {
        self.by_destination.iter_mut().map(|(name, queue)| (queue, !name.is_empty()))
    }

    /// Whether every line was read, and none waits.
    pub(super) fn is_done(&self) -> bool {
        let is_done = |queue: &Queue| queue.waiting.is_empty() && queue.behind.is_none();
        self.at > self.lines && self.by_destination.values().all(is_done)
    }

    /// Whether there are lines to be read, and room for them.
    pub(super) fn has_more(&self) -> bool {
        (self.at <= self.lines && !self.is_held_up()) || self.left_behind().is_some()
    }

    /// The pages to be read now: at most one of the run, and one for a destination that was left behind.
    pub(super) fn pages(&mut self, now: Instant) -> Vec<Page> {
        if self.at > self.lines || !self.is_held_up() {
            self.held_up_since = None;
        } else if now.duration_since(*self.held_up_since.get_or_insert(now)) >= STANDS_STILL {
            let at = self.at;
            for queue in self.by_destination.values_mut().filter(|queue| !queue.has_room()) {
                queue.behind.get_or_insert(at);
            }
        }
        let next = (self.at <= self.lines && !self.is_held_up()).then_some(Page::Next(self.at));
        next.into_iter().chain(self.left_behind()).collect()
    }

    /// Of the lines of a page those that are to be worked on now; the others were, or come with another page.
    pub(super) fn sift(&mut self, page: &Page, rows: Vec<RunLineRow>) -> Vec<RunLineRow> {
        let last = rows.last().map(|row| row.number.saturating_add(1));
        match page {
            Page::Next(_) => {
                self.at = last.unwrap_or(self.lines.saturating_add(1));
                let is_behind =
                    |row: &_| self.by_destination.get(name_of(row)).is_some_and(|q| q.behind.is_some());
                rows.into_iter().filter(|row| !(may_be_charged(row) && is_behind(row))).collect()
            }
            Page::Behind(name, _) => {
                let at = self.at;
                if let Some(queue) = self.by_destination.get_mut(name) {
                    // As far as the others: it goes on with them.
                    queue.behind = last.filter(|next| *next < at);
                }
                let is_left = |row: &_| may_be_charged(row) && name_of(row) == name;
                rows.into_iter().filter(|row| row.number < at && is_left(row)).collect()
            }
        }
    }

    /// Whether the next lines may be those of a destination that has no room for them.
    fn is_held_up(&self) -> bool {
        self.by_destination.values().any(|queue| queue.behind.is_none() && !queue.has_room())
    }

    /// The next page of the destination that was left behind and has the fewest lines waiting, if it has room.
    fn left_behind(&self) -> Option<Page> {
        let behind = self.by_destination.iter().filter(|(_, queue)| queue.has_room());
        let behind = behind.filter_map(|(name, queue)| Some((name, queue.behind?, queue.waiting.len())));
        let (name, from, _) = behind.min_by_key(|(_, _, waiting)| *waiting)?;
        Some(Page::Behind(name.clone(), from))
    }
}

fn name_of(row: &RunLineRow) -> &str {
    row.line.order.as_ref().and_then(|order| order.destination.as_deref()).unwrap_or_default()
}

/// Whether a line is to be charged and nothing was charged for it, as far as its mark says.
const fn may_be_charged(row: &RunLineRow) -> bool {
    matches!(row.verdict, Verdict::Accepted)
        && matches!(row.done, None | Some(LineDone::Charge(_, ChargeStatus::Failed)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::id::{ChargeId, IdBytes, Token};
    use crate::edge::store::{RunLine, RunOrder};

    const PAGE: usize = 256;
    const LINES: u32 = 20_000;

    fn row(number: u32, destination: &str, done: Option<ChargeStatus>) -> RunLineRow {
        let order = RunOrder {
            token: Token(IdBytes([1; 18])),
            amount: 1,
            currency: "USD".to_owned(),
            invoice: String::new(),
            period: String::new(),
            destination: Some(destination.to_owned()),
            agreement: None,
            by_customer: true,
            description: None,
            statement_descriptor: None,
            metadata: Default::default(),
        };
        RunLineRow {
            number,
            line: RunLine { order: Some(order), fault: None },
            verdict: Verdict::Accepted,
            other: None,
            done: done.map(|status| LineDone::Charge(ChargeId(IdBytes([2; 18])), status)),
        }
    }

    /// Lines 1 to 15,000 go to `down`, then three of four; line 7 was charged before, line 9 failed.
    fn page(from: u32) -> Vec<RunLineRow> {
        let numbers = (from..=LINES).take(PAGE);
        numbers
            .map(|number| {
                let is_up = number > 15_000 && number % 4 == 0;
                let done = match number {
                    7 | 15_009 => Some(ChargeStatus::Approved),
                    9 | 15_010 => Some(ChargeStatus::Failed),
                    _ => None,
                };
                row(number, if is_up { "up" } else { "down" }, done)
            })
            .collect()
    }

    #[test]
    fn one_that_stands_still_holds_up_no_other_and_each_line_is_taken_once() {
        let mut queues = Queues { by_destination: HashMap::new(), at: 1, lines: LINES, held_up_since: None };
        let (mut now, mut taken, mut up) = (Instant::now(), vec![0; LINES as usize + 1], 0);
        let (mut waiting_max, mut rounds, mut is_down) = (0, 0, true);
        while !queues.is_done() {
            rounds += 1;
            assert!(rounds < 10_000, "it ends");
            for page_asked in queues.pages(now) {
                for row in queues.sift(&page_asked, page(page_asked.from())) {
                    taken[row.number as usize] += 1;
                    if row.done.is_none() || row.number == 9 {
                        queues.wait(Todo::new(row.number, row.line.order.unwrap(), Vec::new(), 0), false);
                    }
                }
            }
            let waiting = queues.all_mut().map(|(queue, _)| queue.waiting.len()).sum::<usize>();
            waiting_max = waiting_max.max(waiting);
            for (name, queue) in &mut queues.by_destination {
                let moves = if name == "up" { 50 } else { usize::from(!is_down) * 100 };
                up +=
                    queue.waiting.drain(..moves.min(queue.waiting.len())).count() * usize::from(name == "up");
            }
            // It is up again only when the other has all of its own.
            is_down &= up < 1_250;
            now += if queues.has_more() { Duration::ZERO } else { Duration::from_millis(250) };
        }
        assert_eq!(up, 1_250);
        assert!(taken[1..].iter().all(|times| *times == 1));
        assert!(waiting_max <= 2 * (WAITING_MAX + PAGE), "{waiting_max}");
    }

    #[test]
    fn one_that_moves_is_waited_for() {
        let mut queues = Queues { by_destination: HashMap::new(), at: 1, lines: LINES, held_up_since: None };
        let mut now = Instant::now();
        while queues.at < 10_000 {
            now += Duration::from_millis(500);
            for asked in queues.pages(now) {
                assert_eq!(asked, Page::Next(queues.at));
                for row in queues.sift(&asked, page(asked.from())) {
                    queues.wait(Todo::new(row.number, row.line.order.unwrap(), Vec::new(), 0), false);
                }
            }
            for (queue, _) in queues.all_mut() {
                drop(queue.waiting.drain(..queue.waiting.len().min(200)));
            }
        }
    }
}
