//! How fast a run charges at one destination: so many at once, so many a second; halved when the processor says that it is too much,
//! and slowly up again.

use std::time::{Duration, Instant};

/// The first pause after a processor said that it is too much; each that follows without a success is twice as long.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// One destination's lane.
#[derive(Debug)]
pub(super) struct Lane {
    at_once_max: f64,
    /// How many may be under way now.
    at_once: f64,
    under_way: usize,
    /// Between two starts, if the rate is limited.
    interval: Duration,
    next_start: Instant,
    pause: Duration,
    paused_until: Option<Instant>,
    /// What began before this was answered too late to count again.
    cut_at: Option<Instant>,
}

impl Lane {
    pub(super) fn new(at_once_max: u16, rate: Option<u32>, now: Instant) -> Self {
        let at_once_max = f64::from(at_once_max.max(1));
        let interval = rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.max(1));
        Self {
            at_once_max,
            at_once: at_once_max,
            under_way: 0,
            interval,
            next_start: now,
            pause: PAUSE_FIRST,
            paused_until: None,
            cut_at: None,
        }
    }

    /// Starts one, or says from when on to ask again; never, as long as as many are under way as may be.
    pub(super) fn start(&mut self, now: Instant) -> Result<(), Option<Instant>> {
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Err(Some(until));
        }
        self.paused_until = None;
        if self.under_way >= self.allowed() {
            return Err(None);
        }
        if self.next_start > now {
            return Err(Some(self.next_start));
        }
        // A lane that stood still does not make up for it all at once.
        self.next_start = (self.next_start + self.interval).max(now);
        self.under_way += 1;
        Ok(())
    }

    /// One that began then was answered: that it is too much, or with the wish to be left alone for so long (zero: none).
    pub(super) fn end(&mut self, began: Instant, (too_much, wait): (bool, Duration), now: Instant) {
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
    pub(super) const fn give_back(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// How many may be under way now.
    pub(super) fn allowed(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between one and a u16's largest"
        )]
        let allowed = self.at_once as usize;
        allowed
    }

    pub(super) const fn under_way(&self) -> usize {
        self.under_way
    }

    pub(super) fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: (bool, Duration) = (false, Duration::ZERO);
    const TOO_MUCH: (bool, Duration) = (true, Duration::ZERO);

    #[test]
    fn a_lane_is_left_alone_for_as_long_as_its_processor_asks() {
        let begun = Instant::now();
        let mut lane = Lane::new(8, None, begun);
        for _ in 0..4 {
            lane.start(begun).unwrap();
        }
        let (wait, later) = (Duration::from_secs(90), begun + Duration::from_millis(10));
        lane.end(begun, (true, wait), later);
        // Of the same round: it halves no more, and the longest wait holds.
        lane.end(begun, (true, wait * 2), later);
        lane.end(begun, (false, wait), later);
        lane.end(begun, FINE, later);
        assert_eq!(lane.allowed(), 4);
        assert_eq!(lane.start(later + wait), Err(Some(later + wait * 2)));
        let now = later + wait * 2;
        lane.start(now).unwrap();
        // Shorter than our own pause: ours holds.
        lane.end(now, (true, Duration::from_millis(1)), now);
        assert_eq!((lane.allowed(), lane.start(now)), (2, Err(Some(now + PAUSE_FIRST))));
    }

    #[test]
    fn too_much_halves_once_a_round_and_success_recovers_slowly() {
        let begun = Instant::now();
        let mut lane = Lane::new(64, None, begun);
        for _ in 0..64 {
            lane.start(begun).unwrap();
        }
        assert_eq!(lane.start(begun), Err(None));
        let later = begun + Duration::from_millis(10);
        // All of a round are told the same: that is one message.
        for _ in 0..64 {
            lane.end(begun, TOO_MUCH, later);
        }
        assert_eq!(lane.allowed(), 32);
        assert_eq!(lane.start(later), Err(Some(later + PAUSE_FIRST)));
        let mut now = later + PAUSE_FIRST;
        lane.start(now).unwrap();
        lane.end(now, TOO_MUCH, now);
        assert_eq!((lane.allowed(), lane.start(now)), (16, Err(Some(now + PAUSE_FIRST * 2))));
        now += PAUSE_FIRST * 2;
        for _ in 0..16 {
            lane.start(now).unwrap();
            lane.end(now, FINE, now);
        }
        assert!((16..=17).contains(&lane.allowed()), "{}", lane.allowed());
        for _ in 0..4_000 {
            lane.start(now).unwrap();
            lane.end(now, FINE, now);
        }
        assert_eq!(lane.allowed(), 64);
        // However often, one is tried.
        for _ in 0..20 {
            now += PAUSE_MAX;
            lane.start(now).unwrap();
            lane.end(now, TOO_MUCH, now);
        }
        assert_eq!(lane.allowed(), 1);
        assert!(lane.is_paused(now + PAUSE_MAX - PAUSE_FIRST) && !lane.is_paused(now + PAUSE_MAX));
    }

    #[test]
    fn a_rate_spreads_the_starts() {
        let begun = Instant::now();
        let mut lane = Lane::new(1_000, Some(100), begun);
        let started = (0..1_000_u64).filter(|ms| lane.start(begun + Duration::from_millis(*ms)).is_ok());
        assert!((99..=102).contains(&started.count()));
        let much_later = begun + Duration::from_secs(3_600);
        let at_once = (0..100).filter(|_| lane.start(much_later).is_ok()).count();
        assert!(at_once <= 2, "{at_once}");
    }
}
