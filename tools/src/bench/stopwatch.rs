//! Time of many short turns on a machine that is not ours alone.

use std::time::{Duration, Instant};

/// A turn that took so many times the median was interrupted: it says nothing of the box.
const INTERRUPTED: u64 = 8;

/// The times of the turns of one slice.
#[derive(Debug, Default)]
pub(super) struct Stopwatch {
    nanos: Vec<u64>,
}

impl Stopwatch {
    /// Runs and times one turn.
    pub(super) fn time<T>(&mut self, turn: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = turn();
        self.nanos.push(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
        result
    }

    /// What all turns took, each that was interrupted counted as the mean of the others; then starts anew.
    pub(super) fn lap(&mut self) -> Duration {
        let mut nanos = std::mem::take(&mut self.nanos);
        nanos.sort_unstable();
        let Some(&median) = nanos.get(nanos.len() / 2) else { return Duration::ZERO };
        let kept = nanos.partition_point(|&one| one <= median.saturating_mul(INTERRUPTED));
        let sum: u64 = nanos.iter().take(kept).sum();
        let mean = sum as f64 / kept.max(1) as f64;
        Duration::from_nanos((mean * nanos.len() as f64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_turn_counts_as_the_mean_of_the_others() {
        let mut watch = Stopwatch { nanos: vec![100, 200, 300, 1_000_000] };
        assert_eq!(watch.lap(), Duration::from_nanos(800));
        assert_eq!(watch.lap(), Duration::ZERO);
    }
}
