//! Recovery: entering and leaving it, proportional rate reduction (RFC 9937), timeouts (RFC 6298, RFC 5681), and peers
//! without SACK (RFC 6582).

use super::Outcome;
use super::cc::CcEvent;
use super::config::DUP_THRESH;
use super::conn::{Conn, ConnFlags, TimerKind};
use super::send::Freed;
use super::undo::Frto;
use crate::counters::Counter;
use crate::env::Env;
use crate::segment::TxFlags;
use crate::time::Instant;
use crate::wire::SegmentIn;

/// Proportional rate reduction (RFC 9937 §6.1), in bytes.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Prr {
    delivered: u32,
    pub out: u32,
    recover_fs: u32,
}

impl Conn<'_> {
    pub(super) fn in_recovery(&self) -> bool {
        self.hot.flags.intersects(ConnFlags::RECOVERY | ConnFlags::LOSS)
    }

    /// Everything about an acknowledgment that is not the rule: SACK, losses, recovery, probes, undo. The cumulative part
    /// of it is done.
    #[cold]
    #[inline(never)]
    pub(super) fn on_irregular_ack(
        &mut self,
        now: Instant,
        segment: &SegmentIn,
        (advanced, duplicate): (bool, bool),
        freed: &mut Freed,
        env: &mut Env<'_>,
    ) {
        let dsack = if self.hot.flags.contains(ConnFlags::SACK) { self.read_dsack(segment) } else { None };
        self.cold.rack.on_ack(self.hot.snd_una);
        let mut spurious = false;
        if let Some(block) = dsack {
            self.cold.rack.on_dsack(self.hot.snd_nxt);
            spurious = self.count_dsack(block);
        }
        self.on_probe_acked(segment, dsack.map(|block| block.end), env);
        spurious |= advanced && self.in_recovery() && self.answers_the_original(segment);
        spurious |= self.hot.flags.contains(ConnFlags::LOSS) && self.step_frto(advanced, freed);
        if self.cold.frto == Frto::Second {
            // Two new segments, no more.
            freed.bytes = 0;
        }
        if spurious {
            self.undo(env);
        }
        self.leave_recovery();
        let more_lost = if self.hot.flags.contains(ConnFlags::SACK) {
            self.detect_losses(now)
        } else {
            self.on_ack_without_sack(advanced, duplicate, freed)
        };
        if more_lost && !self.in_recovery() {
            self.enter_recovery(freed, env);
        }
        if self.hot.flags.contains(ConnFlags::RECOVERY) {
            self.proportional(freed.bytes, advanced && !more_lost);
        }
        self.watch_for_reneging(now);
        self.shorten_timer(now);
    }

    /// What was reported beyond a gap may have shown that the path is faster than the timer was set for: it is not left to
    /// wait longer than the timeout of now.
    fn shorten_timer(&mut self, now: Instant) {
        let latest = now + self.cold.rtt.rto(&self.cold.config);
        let persists = self.cold.timer == TimerKind::Persist;
        if !persists && self.hot.rto_at < Instant::MAX && self.hot.rto_at > latest {
            self.hot.rto_at = latest;
        }
    }

    /// Losses of a peer without SACK, by duplicate ACKs and partial ones. True when a segment is newly given up.
    fn on_ack_without_sack(&mut self, advanced: bool, duplicate: bool, freed: &mut Freed) -> bool {
        let mss = u32::from(self.hot.smss);
        if advanced {
            // Of what was acknowledged, all but the first segment had been counted when its duplicate ACK came.
            let counted = freed.bytes.saturating_sub(mss).min(self.cold.ring.sacked);
            self.cold.ring.sacked -= counted;
            freed.bytes -= counted;
            self.hot.dup_acks = 0;
            if !self.in_recovery() {
                self.cold.ring.sacked = 0;
                return false;
            }
            // RFC 6582 §3.2 step 3, a partial acknowledgment: the next segment is lost as well.
            return self.hot.flags.contains(ConnFlags::RECOVERY) && self.cold.ring.mark_lost(0);
        }
        if !duplicate {
            return false;
        }
        self.hot.dup_acks = self.hot.dup_acks.saturating_add(1);
        // Each duplicate ACK says that a segment has left the network (RFC 5681 §3.2), but no more than there are.
        let grown = mss.min(self.in_flight_bytes().saturating_sub(mss));
        self.cold.ring.sacked += grown;
        freed.bytes += grown;
        // RFC 6582 §3.2 step 2: not for what was sent before the last recovery or timeout.
        let fresh = self.hot.snd_una.after(self.cold.recovery_point);
        u32::from(self.hot.dup_acks) == DUP_THRESH && !self.in_recovery() && fresh && self.cold.ring.mark_lost(0)
    }

    /// The slow-start threshold for what just happened, and what stood before it.
    pub(super) fn congestion(&mut self) {
        self.remember_for_undo();
        // RFC 5681 §3.2: what limited transmit sent beyond the window does not count.
        let flight = self.hot.snd_nxt.distance_from(self.hot.snd_una).min(self.hot.cwnd);
        let mss = u32::from(self.hot.smss);
        self.cold.cc.on_event(CcEvent::Congestion { cwnd: self.hot.cwnd, flight, mss });
    }

    fn enter_recovery(&mut self, freed: &Freed, env: &mut Env<'_>) {
        env.counters.inc(Counter::TcpFastRetransmits);
        // RFC 3168 §6.1.2: a window that was reduced for a mark is not reduced again for a loss in the same round trip.
        if self.hot.flags.contains(ConnFlags::ECN_REDUCED) {
            self.cold.undo = None;
        } else {
            self.congestion();
        }
        let flight = self.hot.snd_nxt.distance_from(self.hot.snd_una);
        self.hot.flags |= ConnFlags::RECOVERY;
        self.cold.recovery_point = self.hot.snd_nxt;
        // RFC 8985 §7.2: recovery finds what is lost by itself; the timeout stands behind it, not a probe.
        if self.cold.timer == TimerKind::TailProbe {
            self.hot.rto_at = Instant::MAX;
        }
        // RFC 9937 §6.1: what had arrived before does not count, what this acknowledgment brought does.
        let recover_fs = flight.saturating_sub(self.cold.ring.sacked).saturating_add(freed.bytes).max(1);
        self.cold.prr = Prr { delivered: 0, out: 0, recover_fs };
    }

    fn leave_recovery(&mut self) {
        if !self.in_recovery() || self.hot.snd_una.before(self.cold.recovery_point) {
            return;
        }
        if self.hot.flags.contains(ConnFlags::MODEL) {
            self.hot.cwnd = self.cold.cc.restored(self.hot.cwnd);
        } else if self.hot.flags.contains(ConnFlags::RECOVERY) {
            // RFC 9937 §6.4.
            self.hot.cwnd = self.cold.cc.ssthresh;
            if !self.hot.flags.contains(ConnFlags::SACK) {
                self.cold.ring.sacked = 0;
            }
        }
        self.hot.flags.remove(ConnFlags::RECOVERY | ConnFlags::LOSS);
        self.cold.frto = Frto::Off;
        self.cold.rack.on_recovered();
    }

    /// RFC 9937 §6.2: what leaves the network decides what may enter it. `safe` when the acknowledgment advances and
    /// tells of no further loss.
    fn proportional(&mut self, delivered: u32, safe: bool) {
        if delivered == 0 || self.hot.flags.contains(ConnFlags::MODEL) {
            return;
        }
        let in_flight = u64::from(self.in_flight_bytes());
        let mss = u64::from(self.hot.smss);
        let ssthresh = u64::from(self.cold.cc.ssthresh);
        let prr = &mut self.cold.prr;
        prr.delivered = prr.delivered.saturating_add(delivered);
        let (total, out) = (u64::from(prr.delivered), u64::from(prr.out));
        let mut send = if in_flight > ssthresh {
            (total * ssthresh).div_ceil(u64::from(prr.recover_fs.max(1))).saturating_sub(out)
        } else {
            let bound = total.saturating_sub(out).max(u64::from(delivered)) + if safe { mss } else { 0 };
            bound.min(ssthresh - in_flight)
        };
        if out == 0 {
            // The fast retransmit itself always goes, whole.
            send = send.max(mss);
        }
        self.hot.cwnd = (in_flight + send).min(u64::from(u32::MAX)) as u32;
    }

    /// The reordering timer fired (RFC 8985 §6.2 step 5).
    pub(super) fn on_reordering_timer(&mut self, now: Instant, env: &mut Env<'_>) {
        if !self.detect_losses(now) {
            return;
        }
        if !self.in_recovery() {
            self.enter_recovery(&Freed::default(), env);
        }
        if self.hot.flags.contains(ConnFlags::RECOVERY) {
            // No acknowledgment clocks this; one segment's worth does.
            self.proportional(u32::from(self.hot.smss), false);
        }
    }

    /// RFC 6298 §5.4 to §5.6, RFC 5681 §3.1, RFC 8985 §6.3.
    pub(super) fn on_timeout(&mut self, now: Instant, env: &mut Env<'_>) -> Outcome {
        // RFC 9293 §3.8.6.1: with a closed window the peer's answers are progress enough.
        let alive_at = if self.hot.snd_wnd == 0 { self.cold.heard_at } else { self.cold.progress_at };
        if now.since(alive_at) > self.cold.config.user_timeout {
            return self.give_up(env);
        }
        env.counters.inc(Counter::TcpTimeouts);
        let mss = u32::from(self.hot.smss);
        let flight = self.hot.snd_nxt.distance_from(self.hot.snd_una);
        // RFC 5681 §3.1: a second timeout of the same segment, or one in a recovery, does not lower the threshold again.
        let fresh = !self.in_recovery() && self.cold.timeouts == 0;
        if fresh {
            self.remember_for_undo();
            self.cold.cc.on_event(CcEvent::Timeout { cwnd: self.hot.cwnd, flight, mss });
        }
        self.cold.frto = if fresh { Frto::First } else { Frto::Off };
        self.cold.timeouts = self.cold.timeouts.saturating_add(1);
        self.cold.rtt.backoff = self.cold.rtt.backoff.saturating_add(1).min(16);
        self.cold.probe = None;
        self.hot.dup_acks = 0;
        if self.first_is_sacked() || !self.hot.flags.contains(ConnFlags::SACK) {
            self.cold.ring.forget_sacks();
        }
        self.hot.flags.remove(ConnFlags::RECOVERY);
        self.hot.flags |= ConnFlags::LOSS;
        self.cold.recovery_point = self.hot.snd_nxt;
        self.shrink_segments_on_timeout(now, env);
        self.mark_lost_on_timeout(now);
        self.hot.cwnd = self.in_flight_bytes() + mss;
        if self.hot.flags.contains(ConnFlags::FIN_SENT) && !self.fin_acked() {
            self.hot.flags |= ConnFlags::FIN_LOST;
        }
        Outcome::RTO
    }

    fn first_is_sacked(&self) -> bool {
        self.cold.ring.get(0).is_some_and(|first| first.flags.contains(TxFlags::SACKED))
    }

    /// RFC 2018 §8: a peer that acknowledges up to data that it had reported, and not that data, may have dropped it. A
    /// short while is left for an acknowledgment that is on its way; then the timeout comes early.
    fn watch_for_reneging(&mut self, now: Instant) {
        if self.cold.ring.sacked > 0 && self.first_is_sacked() {
            bring_forward(&mut self.hot.rto_at, now + self.cold.rtt.srtt().div(2).max(RENEGING_WAIT));
            self.cold.timer = super::conn::TimerKind::Retransmit;
        }
    }
}

/// The least time that is left for an acknowledgment on its way before SACKed data counts as dropped.
const RENEGING_WAIT: crate::time::Duration = crate::time::Duration::from_millis(10);

/// Moves a deadline forward, never back.
fn bring_forward(deadline: &mut Instant, at: Instant) {
    *deadline = (*deadline).min(at);
}
