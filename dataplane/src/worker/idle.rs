//! How long a worker looks for work before it sleeps: as long as work has lately come by then, else not at all.

use mimbox_stack::{Duration, Instant};

/// The share of a new observation in the average: an eighth.
const WEIGHT: u64 = 8;
/// No pause counts for more than this many times the longest look, so that a busy time is recognised after few of its
/// pauses.
const LONGEST: u64 = 8;

/// The pauses between one piece of work and the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Idle {
    /// The longest that looking is worth while: what sleeping and waking costs.
    most: Duration,
    since: Option<Instant>,
    /// The average pause.
    usual: Duration,
}

impl Idle {
    /// A worker that looks for no longer than `most`.
    pub(super) fn new(most: Duration) -> Self {
        Self { most, since: None, usual: Duration::ZERO }
    }

    /// There was work.
    pub(super) fn work(&mut self, now: Instant) {
        let Some(since) = self.since.take() else { return };
        let pause = now.since(since).as_nanos().min(self.most.as_nanos() * LONGEST);
        let usual = self.usual.as_nanos();
        self.usual = Duration::from_nanos(usual - usual / WEIGHT + pause / WEIGHT);
    }

    /// There was none; true when it is time to sleep.
    pub(super) fn nothing(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        self.usual > self.most || now.since(since) >= self.most
    }

    /// When the worker last ran out of work; `None` while it has some.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_micros(20);

    /// Lets pauses of a length follow each other, and says for how long the worker looks in the last one.
    fn looks(idle: &mut Idle, now: &mut Instant, pause: Duration, times: u32) -> Duration {
        let mut looked = Duration::ZERO;
        for _ in 0..times {
            looked = Duration::ZERO;
            let began = *now;
            while now.since(began) < pause {
                if !idle.nothing(*now) {
                    looked = now.since(began) + Duration::from_micros(1);
                }
                *now += Duration::from_micros(1);
            }
            idle.work(*now);
        }
        looked
    }

    #[test]
    fn a_worker_looks_where_work_comes_soon_and_sleeps_at_once_where_it_does_not() {
        let (mut idle, mut now) = (Idle::new(MOST), Instant::from_millis(1));
        assert_eq!(looks(&mut idle, &mut now, Duration::from_micros(10), 50), Duration::from_micros(10));
        assert_eq!(looks(&mut idle, &mut now, Duration::from_millis(1), 1), MOST, "one long pause says little");
        assert_eq!(looks(&mut idle, &mut now, Duration::from_millis(1), 5), Duration::ZERO);
        assert_eq!(looks(&mut idle, &mut now, Duration::from_micros(10), 40), Duration::from_micros(10));
    }

    #[test]
    fn a_pause_begins_once() {
        let (mut idle, now) = (Idle::new(MOST), Instant::from_millis(1));
        assert!(!idle.nothing(now) && !idle.nothing(now + Duration::from_micros(19)));
        assert!(idle.nothing(now + MOST));
        assert_eq!(idle.since(), Some(now));
        idle.work(now + MOST);
        assert_eq!(idle.since(), None);
    }
}
