//! Which subflow carries the next data.
//!
//! Every scheduler keeps to three rules: a subflow gets no more than its congestion window leaves room for (so that what
//! waits on it unsent, and with it the reordering at the peer, stays small); one that the peer wants as backup gets data
//! only when there is no other (RFC 8684 §3.3.8); a stale one only when all are.

use arrayvec::ArrayVec;
use mimbox_stack::Duration;

use crate::limits::MAX_SUBFLOWS;

/// The schedulers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SchedulerKind {
    /// The subflow with the lowest RTT that has room. For bulk transfers and bonding: the default.
    #[default]
    LowestRtt,
    /// One segment each in turn. For paths that are alike, and for tests.
    RoundRobin,
    /// Every segment on every subflow that has room. For little data that must arrive soon whatever path fails.
    Redundant,
    /// As the lowest RTT, but data stays off a slow subflow when the faster one would have it delivered earlier and the
    /// slow one would fill the window meanwhile (BLEST). For paths whose RTTs differ much and small windows.
    Blest,
}

/// A subflow as a scheduler sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    /// Its place among the connection's subflows.
    pub(crate) index: usize,
    /// Its holder bit.
    pub(crate) holder: u32,
    /// Smoothed RTT.
    pub(crate) srtt: Duration,
    /// Bytes that it takes now.
    pub(crate) space: u32,
    /// Its congestion window.
    pub(crate) cwnd: u32,
    /// Bytes that stand on it, in flight or unsent.
    pub(crate) queued: u32,
    /// Nothing is in flight or unsent: it takes one segment whatever its window.
    pub(crate) idle: bool,
}

impl Candidate {
    fn takes(&self, len: u32) -> bool {
        self.space >= len || self.idle
    }

    /// Books `len` bytes that were put on it.
    pub(crate) fn book(&mut self, len: u32) {
        self.space = self.space.saturating_sub(len);
        self.queued = self.queued.saturating_add(len);
        self.idle = false;
    }
}

/// The subflows that may carry data now.
pub(crate) type Candidates = ArrayVec<Candidate, MAX_SUBFLOWS>;

/// What a scheduler remembers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scheduler {
    pub(crate) kind: SchedulerKind,
    /// The subflow after which round-robin goes on.
    last: usize,
}

impl Scheduler {
    pub(crate) const fn new(kind: SchedulerKind) -> Self {
        Self { kind, last: 0 }
    }

    /// The place in `candidates` of the one for `len` bytes of new data, while `window` bytes of the peer's window are
    /// free; `None` to wait.
    pub(crate) fn pick(&mut self, candidates: &Candidates, len: u32, window: u64) -> Option<usize> {
        match self.kind {
            SchedulerKind::LowestRtt | SchedulerKind::Redundant => lowest_rtt(candidates, len, 0),
            SchedulerKind::RoundRobin => self.next_in_turn(candidates, len),
            SchedulerKind::Blest => blest(candidates, len, window),
        }
    }

    fn next_in_turn(&mut self, candidates: &Candidates, len: u32) -> Option<usize> {
        let count = candidates.len();
        let start = candidates.iter().position(|candidate| candidate.index > self.last).unwrap_or(0);
        let at = (0..count).map(|step| (start + step) % count).find(|&at| candidates[at].takes(len))?;
        self.last = candidates[at].index;
        Some(at)
    }
}

/// The candidate with the lowest RTT that takes `len` bytes and holds none of `holders`.
pub(crate) fn lowest_rtt(candidates: &Candidates, len: u32, holders: u32) -> Option<usize> {
    candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| candidate.takes(len) && candidate.holder & holders == 0)
        .min_by_key(|(_, candidate)| candidate.srtt)
        .map(|(at, _)| at)
}

/// BLEST (Ferlin et al., "BLEST: Blocking Estimation-based MPTCP Scheduler", 2016): while a segment crosses the slow path
/// the fast one could send so many bytes; if those no longer fit in the window beside what the slow path holds, the slow
/// path would block the fast one, and the segment waits for it.
fn blest(candidates: &Candidates, len: u32, window: u64) -> Option<usize> {
    let best = lowest_rtt(candidates, len, 0)?;
    let fastest = candidates.iter().min_by_key(|candidate| candidate.srtt)?;
    let slow = candidates.get(best)?;
    if slow.index == fastest.index {
        return Some(best);
    }
    let fast_rtt = fastest.srtt.as_micros().max(1);
    let rounds = slow.srtt.as_micros().div_ceil(fast_rtt).max(1);
    // The fast path's window grows by a segment each of its rounds.
    let fast_bytes = u64::from(fastest.cwnd)
        .saturating_mul(rounds)
        .saturating_add(u64::from(len).saturating_mul(rounds.saturating_mul(rounds - 1) / 2));
    let left = window.saturating_sub(u64::from(slow.queued) + u64::from(len));
    (fast_bytes <= left).then_some(best)
}

#[cfg(test)]
mod tests;
