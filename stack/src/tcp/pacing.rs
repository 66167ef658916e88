//! Pacing: data leaves at a rate, not in bursts of a whole window.

use super::conn::{Conn, ConnFlags};
use crate::time::{Duration, Instant};

/// Timers tick by the millisecond and fire up to one tick late. So much of what was missed may be caught up with, and so
/// far ahead of its time may a segment leave.
const CREDIT: Duration = Duration::from_millis(2);

impl Conn<'_> {
    /// True when the next data has to wait for its time.
    #[inline]
    pub(super) fn must_wait(&mut self, now: Instant) -> bool {
        if !self.hot.flags.contains(ConnFlags::PACED) {
            return false;
        }
        let wait = self.hot.pace_at > now;
        self.hot.flags.set(ConnFlags::PACE_WAITS, wait);
        wait
    }

    /// `bytes` have left.
    #[inline]
    pub(super) fn pace(&mut self, now: Instant, bytes: u16) {
        if self.hot.flags.contains(ConnFlags::PACED) {
            self.take_pace(now, bytes);
        }
    }

    fn take_pace(&mut self, now: Instant, bytes: u16) {
        let rate = self.cold.cc.pacing_rate(self.hot.cwnd, self.cold.rtt.srtt_us());
        let gap = ((u64::from(bytes) + OVERHEAD) * 1_000_000_000).checked_div(rate).unwrap_or(0);
        self.hot.pace_at = self.hot.pace_at.max(now - CREDIT) + Duration::from_nanos(gap);
    }
}

/// Header bytes of a segment on an Ethernet link, which take their time as well.
const OVERHEAD: u64 = 66;
