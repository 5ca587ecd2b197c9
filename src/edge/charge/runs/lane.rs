//! How fast runs charge at one destination: so many at once, so many a second; halved when the processor says that it is too much,
//! and slowly up again. A lane belongs to its destination: all runs that are at work there share it, whatever their lines call it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::super::lock;
use crate::card::id::RunId;

/// The first pause after a processor said that it is too much; each that follows without a success is twice as long.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// For so long a place is kept for the run that found none.
const TURN: Duration = Duration::from_secs(1);

/// How fast a run wants to go at each destination: so many at once, and so many a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) at_once: u16,
    pub(super) rate: Option<u32>,
}

impl Pace {
    fn interval(self) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.max(1))
    }
}

/// All lanes, by destination; empty for lines that have none.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    by_destination: Mutex<HashMap<String, Lane>>,
    /// A place became free.
    pub(super) freed: Notify,
}

impl Lanes {
    /// Takes a place at the first of these destinations that makes no pause, or says from when on to ask again; never, if that is
    /// when a place becomes free.
    pub(super) fn start(
        self: &Arc<Self>,
        destinations: &[String],
        of: (RunId, Pace),
        now: Instant,
    ) -> Result<Place, Option<Instant>> {
        let mut lanes = lock(&self.by_destination);
        let mut again = None;
        for destination in destinations {
            let lane = lanes.entry(destination.clone()).or_insert_with(|| Lane::new(now));
            match lane.start(of, now) {
                Ok(()) => {
                    let destination = Some(destination.clone());
                    return Ok(Place { lanes: Arc::clone(self), destination, began: now });
                }
                Err(until) if lane.is_paused(now) => again = [again, until].into_iter().flatten().min(),
                Err(until) => return Err([again, until].into_iter().flatten().min()),
            }
        }
        Err(again)
    }

    /// How many of a run may be under way at a destination, how many of all runs are, and whether it makes a pause.
    pub(super) fn show(&self, destination: &str, pace: Pace, now: Instant) -> (usize, usize, bool) {
        let at_most = usize::from(pace.at_once.max(1));
        lock(&self.by_destination).get(destination).map_or((at_most, 0, false), |lane| {
            (lane.allowed().min(at_most), lane.under_way, lane.is_paused(now))
        })
    }
}

/// A place in a lane, given back when it goes.
#[derive(Debug)]
pub(super) struct Place {
    lanes: Arc<Lanes>,
    /// None once it was given back.
    destination: Option<String>,
    pub(super) began: Instant,
}

impl Place {
    /// Where it is.
    pub(super) fn destination(&self) -> &str {
        self.destination.as_deref().unwrap_or_default()
    }

    /// The processor answered: that it is too much, or with the wish to be left alone for so long (zero: none).
    pub(super) fn end(mut self, said: (bool, Duration), now: Instant) {
        let began = self.began;
        self.leave(|lane| lane.end(began, said, now));
    }

    fn leave(&mut self, how: impl FnOnce(&mut Lane)) {
        let Some(destination) = self.destination.take() else { return };
        if let Some(lane) = lock(&self.lanes.by_destination).get_mut(&destination) {
            how(lane);
        }
        self.lanes.freed.notify_waiters();
    }
}

impl Drop for Place {
    /// What says nothing of the processor.
    fn drop(&mut self) {
        self.leave(Lane::give_back);
    }
}

/// One destination's lane.
#[derive(Debug)]
struct Lane {
    /// The most that a run wanted.
    at_once_max: f64,
    /// How many may be under way now.
    at_once: f64,
    under_way: usize,
    /// From when on a run with a rate may start the next.
    next_start: Instant,
    pause: Duration,
    paused_until: Option<Instant>,
    /// What began before this was answered too late to count again.
    cut_at: Option<Instant>,
    /// The run that found no place gets the next one, until then.
    turn: Option<(RunId, Instant)>,
}

impl Lane {
    const fn new(now: Instant) -> Self {
        Self {
            at_once_max: 0.0,
            at_once: 0.0,
            under_way: 0,
            next_start: now,
            pause: PAUSE_FIRST,
            paused_until: None,
            cut_at: None,
            turn: None,
        }
    }

    /// Starts one, or says from when on to ask again; never, as long as as many are under way as may be.
    fn start(&mut self, (run, pace): (RunId, Pace), now: Instant) -> Result<(), Option<Instant>> {
        self.widen(pace);
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Err(Some(until));
        }
        self.paused_until = None;
        let turn = self.turn.filter(|(_, until)| *until > now);
        if let Some((_, until)) = turn.filter(|(whose, _)| *whose != run) {
            return Err(Some(until));
        }
        if self.under_way >= self.allowed().min(usize::from(pace.at_once.max(1))) {
            self.turn = Some((run, now + TURN));
            return Err(None);
        }
        if pace.rate.is_some() && self.next_start > now {
            return Err(Some(self.next_start));
        }
        // A lane that stood still does not make up for it all at once.
        self.next_start = (self.next_start + pace.interval()).max(now);
        self.under_way += 1;
        self.turn = None;
        Ok(())
    }

    /// A run that wants more than the others did so far has it, unless the processor had too much before.
    fn widen(&mut self, pace: Pace) {
        let wanted = f64::from(pace.at_once.max(1));
        if wanted > self.at_once_max {
            if self.at_once >= self.at_once_max {
                self.at_once = wanted;
            }
            self.at_once_max = wanted;
        }
    }

    /// One that began then was answered: that it is too much, or with the wish to be left alone for so long (zero: none).
    fn end(&mut self, began: Instant, (too_much, wait): (bool, Duration), now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        if !too_much && wait.is_zero() {
            self.at_once = (self.at_once + 1.0 / self.at_once.max(1.0)).min(self.at_once_max);
            self.pause = PAUSE_FIRST;
            return;
        }
        if self.cut_at.is_none_or(|cut| began >= cut) {
            self.at_once = (self.at_once / 2.0).max(1.0);
            self.paused_until = self.paused_until.max(Some(now + self.pause));
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            self.cut_at = Some(now);
        }
        // However late it is heard: it counts from the answer on.
        if !wait.is_zero() {
            self.paused_until = self.paused_until.max(Some(now + wait));
        }
    }

    /// One ended that says nothing of the processor.
    const fn give_back(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// How many may be under way now.
    fn allowed(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between one and a u16's largest"
        )]
        let allowed = self.at_once as usize;
        allowed
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::id::IdBytes;

    const ONE: RunId = RunId(IdBytes([1; 18]));
    const TWO: RunId = RunId(IdBytes([2; 18]));
    const FINE: (bool, Duration) = (false, Duration::ZERO);
    const TOO_MUCH: (bool, Duration) = (true, Duration::ZERO);

    const fn of(run: RunId, at_once: u16, rate: Option<u32>) -> (RunId, Pace) {
        (run, Pace { at_once, rate })
    }

    #[test]
    fn a_lane_is_left_alone_for_as_long_as_its_processor_asks() {
        let begun = Instant::now();
        let mut lane = Lane::new(begun);
        for _ in 0..4 {
            lane.start(of(ONE, 8, None), begun).unwrap();
        }
        let (wait, later) = (Duration::from_secs(90), begun + Duration::from_millis(10));
        lane.end(begun, (true, wait), later);
        // Of the same round: it halves no more, and the longest wait holds.
        lane.end(begun, (true, wait * 2), later);
        lane.end(begun, (false, wait), later);
        lane.end(begun, FINE, later);
        assert_eq!(lane.allowed(), 4);
        assert_eq!(lane.start(of(ONE, 8, None), later + wait), Err(Some(later + wait * 2)));
        let now = later + wait * 2;
        lane.start(of(ONE, 8, None), now).unwrap();
        // Shorter than our own pause: ours holds.
        lane.end(now, (true, Duration::from_millis(1)), now);
        assert_eq!((lane.allowed(), lane.start(of(ONE, 8, None), now)), (2, Err(Some(now + PAUSE_FIRST))));
    }

    #[test]
    fn too_much_halves_once_a_round_and_success_recovers_slowly() {
        let begun = Instant::now();
        let mut lane = Lane::new(begun);
        for _ in 0..64 {
            lane.start(of(ONE, 64, None), begun).unwrap();
        }
        assert_eq!(lane.start(of(ONE, 64, None), begun), Err(None));
        let later = begun + Duration::from_millis(10);
        // All of a round are told the same: that is one message.
        for _ in 0..64 {
            lane.end(begun, TOO_MUCH, later);
        }
        assert_eq!(lane.allowed(), 32);
        assert_eq!(lane.start(of(ONE, 64, None), later), Err(Some(later + PAUSE_FIRST)));
        let mut now = later + PAUSE_FIRST;
        lane.start(of(ONE, 64, None), now).unwrap();
        lane.end(now, TOO_MUCH, now);
        assert_eq!(
            (lane.allowed(), lane.start(of(ONE, 64, None), now)),
            (16, Err(Some(now + PAUSE_FIRST * 2)))
        );
        now += PAUSE_FIRST * 2;
        for _ in 0..16 {
            lane.start(of(ONE, 64, None), now).unwrap();
            lane.end(now, FINE, now);
        }
        assert!((16..=17).contains(&lane.allowed()), "{}", lane.allowed());
        for _ in 0..4_000 {
            lane.start(of(ONE, 64, None), now).unwrap();
            lane.end(now, FINE, now);
        }
        assert_eq!(lane.allowed(), 64);
        // However often, one is tried.
        for _ in 0..20 {
            now += PAUSE_MAX;
            lane.start(of(ONE, 64, None), now).unwrap();
            lane.end(now, TOO_MUCH, now);
        }
        assert_eq!(lane.allowed(), 1);
        assert!(lane.is_paused(now + PAUSE_MAX - PAUSE_FIRST) && !lane.is_paused(now + PAUSE_MAX));
    }

    #[test]
    fn a_rate_spreads_the_starts() {
        let begun = Instant::now();
        let mut lane = Lane::new(begun);
        let started = (0..1_000_u64)
            .filter(|ms| lane.start(of(ONE, 1_000, Some(100)), begun + Duration::from_millis(*ms)).is_ok());
        assert!((99..=102).contains(&started.count()));
        let much_later = begun + Duration::from_secs(3_600);
        let at_once = (0..100).filter(|_| lane.start(of(ONE, 1_000, Some(100)), much_later).is_ok()).count();
        assert!(at_once <= 2, "{at_once}");
    }

    #[test]
    fn two_runs_go_no_faster_than_one() {
        let begun = Instant::now();
        let (lanes, acquirer) = (Arc::new(Lanes::default()), ["acquirer".to_owned()]);
        let (one, two) = (of(ONE, 3, Some(100)), of(TWO, 3, Some(100)));
        let mut started = [0, 0];
        for ms in 0..1_000_u64 {
            let now = begun + Duration::from_millis(ms);
            for (count, run) in started.iter_mut().zip([one, two]) {
                if let Ok(place) = lanes.start(&acquirer, run, now) {
                    *count += 1;
                    place.end(FINE, now);
                }
            }
        }
        assert!((99..=102).contains(&(started[0] + started[1])), "{started:?}");
        let now = begun + Duration::from_secs(60);
        let free = of(TWO, 5, None);
        let mut places: Vec<_> = (0..9).filter_map(|_| lanes.start(&acquirer, free, now).ok()).collect();
        assert_eq!((places.len(), lanes.show("acquirer", free.1, now)), (5, (5, 5, false)));
        assert_eq!(lanes.start(&acquirer, one, now + TURN).err(), Some(None));
        assert!(lanes.start(&["other".to_owned()], one, now).is_ok(), "another destination is another lane");
        // Whose turn it is gets the place that becomes free; one that broke off leaves it, too.
        drop(places.drain(..3));
        assert!(lanes.start(&acquirer, free, now + TURN).is_err());
        assert!(lanes.start(&acquirer, one, now + TURN).is_ok());
        // What one run heard holds for the other.
        places.pop().unwrap().end(TOO_MUCH, now + TURN);
        let paused = lanes.start(&acquirer, one, now + TURN).err();
        assert_eq!(paused, Some(Some(now + TURN + PAUSE_FIRST)));
        // A route goes on to the next where the first makes a pause.
        let route = ["acquirer".to_owned(), "other".to_owned()];
        assert_eq!(lanes.start(&route, one, now + TURN).unwrap().destination(), "other");
    }
}
