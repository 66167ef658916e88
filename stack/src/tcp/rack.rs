//! RACK-TLP (RFC 8985): losses found by time, with a window for reordering that learns, and a probe for lost tails.

use super::Outcome;
use super::config::{DUP_THRESH, MAX_PEER_ACK_DELAY};
use super::conn::{Conn, ConnFlags};
use super::send::Freed;
use crate::counters::Counter;
use crate::env::Env;
use crate::segment::TxFlags;
use crate::seq::SeqNum;
use crate::time::{Duration, Instant};
use crate::wire::SegmentIn;

/// RFC 8985 §6.2 step 4: recoveries without a DSACK after which the reordering window is as small as at first.
const REO_WND_PERSIST: u8 = 16;
/// What a probe waits beyond two round trips when more than one segment is out: a tick or two of coarse timers.
const PROBE_SLACK: Duration = Duration::from_millis(2);

/// What RACK knows of a connection (RFC 8985 §5.2).
#[derive(Clone, Copy, Debug)]
pub(super) struct Rack {
    /// The latest transmission known to have arrived: when it was sent, its end.
    newest: Option<(u32, SeqNum)>,
    /// Its RTT in microseconds.
    rtt_us: u32,
    /// A segment that was sent only once arrived after a later one.
    pub reordering_seen: bool,
    /// The reordering window in quarters of the least RTT.
    reo_wnd_mult: u8,
    /// Recoveries until `reo_wnd_mult` is one again.
    reo_wnd_persist: u8,
    /// A DSACK was counted; further ones count once this is acknowledged.
    dsack_round: Option<SeqNum>,
}

impl Default for Rack {
    fn default() -> Self {
        Self { newest: None, rtt_us: 0, reordering_seen: false, reo_wnd_mult: 1, reo_wnd_persist: 0, dsack_round: None }
    }
}

impl Rack {
    /// RFC 8985 §6.2 steps 2 and 3.
    #[inline]
    pub(super) fn advance(&mut self, now_us: u32, freed: &Freed) {
        self.reordering_seen |= freed.reordered;
        let Some((sent_us, end)) = freed.newest else { return };
        if self.newest.is_none_or(|held| sent_after((sent_us, end), held)) {
            self.newest = Some((sent_us, end));
            self.rtt_us = now_us.wrapping_sub(sent_us);
        }
    }

    /// RFC 8985 §6.2 step 4, the part that a DSACK drives: one that comes says that we were too hasty.
    pub(super) fn on_dsack(&mut self, snd_nxt: SeqNum) {
        if self.dsack_round.is_none() {
            self.dsack_round = Some(snd_nxt);
            self.reo_wnd_mult = self.reo_wnd_mult.saturating_add(1);
            self.reo_wnd_persist = REO_WND_PERSIST;
        }
    }

    pub(super) fn on_ack(&mut self, snd_una: SeqNum) {
        if self.dsack_round.is_some_and(|round| snd_una.at_or_after(round)) {
            self.dsack_round = None;
        }
    }

    /// A recovery has ended.
    pub(super) fn on_recovered(&mut self) {
        self.reo_wnd_persist = self.reo_wnd_persist.saturating_sub(1);
        if self.reo_wnd_persist == 0 {
            self.reo_wnd_mult = 1;
        }
    }
}

/// RFC 8985 §6.2: true when `a` was sent after `b`, each a time and a segment's end.
fn sent_after(a: (u32, SeqNum), b: (u32, SeqNum)) -> bool {
    let ahead = a.0.wrapping_sub(b.0) as i32;
    ahead > 0 || ahead == 0 && a.1.after(b.1)
}

/// A tail loss probe that is out (RFC 8985 §7.2).
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// `snd_nxt` when it was sent.
    pub end: SeqNum,
    /// It was data sent again, not new data.
    pub retransmission: bool,
    /// The layer above was told that nothing has answered.
    pub told: bool,
}

impl Conn<'_> {
    /// The reordering window in microseconds (RFC 8985 §6.2 step 4).
    fn reo_wnd_us(&self) -> u32 {
        let rack = &self.cold.rack;
        let srtt = self.cold.rtt.srtt_us();
        let certain = self.in_recovery() || self.cold.ring.sacked_segments >= DUP_THRESH;
        if !rack.reordering_seen && certain {
            return 0;
        }
        (self.cold.rtt.min_or(srtt) / 4).saturating_mul(u32::from(rack.reo_wnd_mult)).min(srtt)
    }

    /// RFC 8985 §6.2 step 5: what was sent well before something that arrived is lost. True when more is lost than before.
    pub(super) fn detect_losses(&mut self, now: Instant) -> bool {
        self.cold.reorder_at = Instant::MAX;
        if !self.hot.flags.contains(ConnFlags::SACK) {
            return false;
        }
        let Some(newest) = self.cold.rack.newest else { return false };
        let now_us = now.as_micros() as u32;
        let limit = self.cold.rack.rtt_us.saturating_add(self.reo_wnd_us());
        let mut wait = None;
        let mut found = false;
        for index in 0..self.cold.ring.sent_len() {
            let Some(segment) = self.cold.ring.get(index) else { break };
            if segment.flags.intersects(TxFlags::SACKED | TxFlags::LOST) {
                continue;
            }
            if !sent_after(newest, (segment.sent_us, segment.end())) {
                if segment.flags.contains(TxFlags::RETRANSMITTED) {
                    continue;
                }
                // First transmissions stand in the order of their sending.
                break;
            }
            let age = now_us.wrapping_sub(segment.sent_us);
            if age >= limit {
                found |= self.cold.ring.mark_lost(index);
            } else {
                wait = wait.max(Some(limit - age));
            }
        }
        if let Some(wait) = wait {
            self.cold.reorder_at = now + Duration::from_micros(u64::from(wait));
        }
        found
    }

    /// RFC 8985 §6.3: on a retransmission timeout the first segment is lost, and of the others those that are as old as
    /// reordering would allow; what was sent a moment ago is not.
    pub(super) fn mark_lost_on_timeout(&mut self, now: Instant) {
        let now_us = now.as_micros() as u32;
        let sack = self.hot.flags.contains(ConnFlags::SACK);
        let limit = self.cold.rack.rtt_us.saturating_add(self.reo_wnd_us());
        self.cold.ring.mark_lost(0);
        for index in 1..self.cold.ring.sent_len() {
            let Some(segment) = self.cold.ring.get(index) else { break };
            if !sack || now_us.wrapping_sub(segment.sent_us) >= limit {
                self.cold.ring.mark_lost(index);
            }
        }
    }

    /// How long after `now` the next tail loss probe is due, if one may be sent at all (RFC 8985 §7.2).
    pub(super) fn probe_timeout(&self, now: Instant) -> Option<Duration> {
        let (hot, cold) = (&*self.hot, &*self.cold);
        let srtt = cold.rtt.srtt();
        let may = hot.flags.contains(ConnFlags::SACK)
            && !hot.flags.intersects(ConnFlags::RECOVERY | ConnFlags::LOSS)
            && cold.probe.is_none()
            && cold.ring.sent_len() > 0
            && cold.ring.sacked == 0
            && cold.timeouts == 0
            && srtt > Duration::ZERO;
        let slack = if cold.ring.sent_len() == 1 { MAX_PEER_ACK_DELAY } else { PROBE_SLACK };
        let rto = cold.rtt.rto(&cold.config);
        // RFC 8985 §7.2: no later than the timeout would come that the probe is to avoid.
        let left = (cold.progress_at + rto).since(now);
        let latest = if left > Duration::ZERO { left } else { rto };
        may.then(|| (srtt * 2 + slack).min(latest))
    }

    /// When a subflow counts as silent whose probe nothing has answered: where the timeout would have come that the probe
    /// put off. RFC 8985 §7.3 gives the probe a whole timeout for its answer before anything else is sent again; data that
    /// another subflow can take does not wait for that (RFC 8684 §3.3.6).
    pub(super) fn silent_at(&self) -> Instant {
        let waits = self.hot.flags.contains(ConnFlags::SHARED_WINDOW)
            && self.cold.probe.is_some_and(|probe| !probe.told)
            && self.cold.ring.sacked == 0
            && !self.in_recovery();
        if waits { self.cold.progress_at + self.cold.rtt.rto(&self.cold.config) } else { Instant::MAX }
    }

    pub(super) fn on_silence(&mut self) -> Outcome {
        if let Some(probe) = &mut self.cold.probe {
            probe.told = true;
        }
        Outcome::SILENT
    }

    /// RFC 8985 §7.4.2: a probe that repaired the only loss hides it from everything else; the window still shrinks for
    /// it. `dsack_end` is the end of what the acknowledgment reports as received twice.
    pub(super) fn on_probe_acked(&mut self, segment: &SegmentIn, dsack_end: Option<SeqNum>, env: &mut Env<'_>) {
        let Some(probe) = self.cold.probe else { return };
        if segment.ack.before(probe.end) {
            return;
        }
        if !probe.retransmission || dsack_end == Some(probe.end) {
            self.cold.probe = None;
        } else if segment.ack.after(probe.end) {
            self.cold.probe = None;
            if !self.in_recovery() {
                env.counters.inc(Counter::TcpFastRetransmits);
                self.congestion();
                self.hot.cwnd = self.hot.cwnd.min(self.cold.cc.ssthresh);
            }
        } else if segment.ack == self.hot.snd_una && segment.options.sack.is_empty() && segment.payload_len == 0 {
            // A duplicate ACK without SACK: the probe arrived beside the original.
            self.cold.probe = None;
        }
    }
}
