//! The only clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use mimbox_stack::{Duration, Instant};

/// Where the worker's time comes from.
pub trait Clock {
    /// The time now. It never goes back.
    fn now(&self) -> Instant;
}

/// The operating system's monotonic clock, counted from when it was started. Copies of one clock agree.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock {
    started: std::time::Instant,
    started_unix_nanos: u64,
}

impl MonotonicClock {
    /// A clock that begins now, at one second, so that "a little earlier" has a value too.
    pub fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            started: std::time::Instant::now(),
            started_unix_nanos: u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// The time of day at `at`, in nanoseconds since 1970, as it was set when the clock was started.
    pub fn unix_nanos(&self, at: Instant) -> u64 {
        self.started_unix_nanos.saturating_add(at.since(Self::FIRST).as_nanos())
    }

    const FIRST: Instant = Instant::from_millis(1_000);
}

impl Clock for MonotonicClock {
    fn now(&self) -> Instant {
        Self::FIRST + Duration::from_nanos(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// A clock that stands still until it is told to go on, for tests and replays. Clones share one time.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that stands at `at`.
    pub fn new(at: Instant) -> Self {
        Self(Arc::new(AtomicU64::new(at.as_nanos())))
    }
    /// Moves the clock forward by `by`.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos(), Ordering::Relaxed);
    }
    /// Moves the clock to `at` unless it is later already.
    pub fn advance_to(&self, at: Instant) {
        self.0.fetch_max(at.as_nanos(), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests;
