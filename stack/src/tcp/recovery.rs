//! Acknowledgments, loss detection (RFC 8985), recovery (RFC 9937, RFC 6298) and the timers behind them.

use super::cc::AckEvent;
use super::config::{DUP_THRESH, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES};
use super::conn::{Conn, ConnFlags, TimerKind};
use super::send::Freed;
use super::{Outcome, State};
use crate::counters::Counter;
use crate::env::Env;
use crate::segment::TxFlags;
use crate::time::{Duration, Instant};
use crate::wire::SegmentIn;

impl Conn<'_> {
    /// Step five: what the segment acknowledges, and the window that it opens.
    pub(super) fn on_acknowledgment(&mut self, now: Instant, segment: &SegmentIn, env: &mut Env<'_>) -> Outcome {
        let mut outcome = self.take_window(segment);
        let before = self.hot.snd_una;
        let in_flight = self.in_flight_bytes();
        let mut freed = Freed::default();
        if segment.ack.after(before) {
            outcome |= Outcome::ACKED;
            freed = self.cold.ring.acknowledge(segment.ack.min(self.hot.snd_end), env);
            self.hot.snd_una = segment.ack;
            self.cold.bytes_acked += u64::from(segment.ack.distance_from(before));
            self.on_progress(now);
            if self.fin_acked() {
                self.on_fin_acked();
            }
        }
        if self.hot.flags.contains(ConnFlags::SACK) {
            for &block in &segment.options.sack {
                let sane = block.start.at_or_after(self.hot.snd_una)
                    && block.end.at_or_before(self.hot.snd_nxt)
                    && block.start.before(block.end);
                if sane {
                    self.cold.ring.sack(block, &mut freed);
                }
            }
        }
        let rtt_us = self.sample_rtt(now, &freed);
        self.advance_rack(&freed);
        let duplicate = segment.ack == before
            && segment.payload_len == 0
            && in_flight > 0
            && !outcome.contains(Outcome::WINDOW)
            && !self.hot.flags.contains(ConnFlags::SACK);
        if duplicate {
            self.on_duplicate_ack(env);
        }
        self.detect_losses(now, env);
        self.adjust_window(now, &freed, in_flight, rtt_us);
        outcome
    }

    /// RFC 9293 §3.10.7.4: the window of the newest segment counts.
    fn take_window(&mut self, segment: &SegmentIn) -> Outcome {
        let hot = &mut *self.hot;
        let newer =
            segment.seq.after(hot.snd_wl1) || segment.seq == hot.snd_wl1 && segment.ack.at_or_after(hot.snd_wl2);
        if !newer {
            return Outcome::empty();
        }
        let window = u32::from(segment.window) << hot.snd_scale;
        let changed = window != hot.snd_wnd;
        hot.snd_wnd = window;
        hot.snd_wl1 = segment.seq;
        hot.snd_wl2 = segment.ack;
        if changed {
            self.cold.probes = 0;
            if self.cold.timer == TimerKind::Persist {
                self.hot.rto_at = Instant::MAX;
            }
            return Outcome::WINDOW;
        }
        Outcome::empty()
    }

    fn on_progress(&mut self, now: Instant) {
        self.cold.progress_at = now;
        self.cold.timeouts = 0;
        self.cold.probes = 0;
        self.cold.tail_probed = false;
        self.cold.rtt.backoff = 0;
        self.hot.dup_acks = 0;
        // RFC 6298 §5.3: the timer starts anew; `arm` sets it when something is still out.
        self.hot.rto_at = Instant::MAX;
    }

    /// RFC 6298 §3 (Karn): only segments that were sent once are measured.
    fn sample_rtt(&mut self, now: Instant, freed: &Freed) -> Option<u32> {
        let sent_us = freed.sent_us.filter(|_| !freed.retransmitted)?;
        let rtt = (now.as_micros() as u32).wrapping_sub(sent_us);
        let per_round = (self.hot.cwnd / u32::from(self.hot.snd_mss.max(1)) / 2).max(1);
        self.cold.rtt.sample(rtt, now.as_millis() as u32, per_round, &self.cold.config);
        Some(rtt)
    }

    /// RFC 8985 §6.2 step 2: the latest transmission that is known to have arrived.
    fn advance_rack(&mut self, freed: &Freed) {
        if let Some((sent_us, end)) = freed.newest {
            let newer = self.cold.rack.is_none_or(|(held, held_end)| {
                let ahead = sent_us.wrapping_sub(held) as i32;
                ahead > 0 || ahead == 0 && end.after(held_end)
            });
            if newer {
                self.cold.rack = Some((sent_us, end));
            }
        }
    }

    /// RFC 5681 §3.2, for peers without SACK.
    fn on_duplicate_ack(&mut self, env: &mut Env<'_>) {
        self.hot.dup_acks = self.hot.dup_acks.saturating_add(1);
        if u32::from(self.hot.dup_acks) == DUP_THRESH && !self.in_recovery() {
            self.cold.ring.mark_lost(0);
            self.enter_recovery(env);
        }
    }

    pub(super) fn in_recovery(&self) -> bool {
        self.hot.flags.intersects(ConnFlags::RECOVERY | ConnFlags::LOSS)
    }

    /// RFC 8985 §6.2 step 5: what was sent well before something that arrived is lost.
    fn detect_losses(&mut self, now: Instant, env: &mut Env<'_>) {
        self.cold.reorder_at = Instant::MAX;
        let Some((rack_us, rack_end)) = self.cold.rack else { return };
        if self.cold.ring.sacked == 0 && !self.in_recovery() {
            return;
        }
        let now_us = now.as_micros() as u32;
        let srtt = self.cold.rtt.srtt_us.max(1);
        let window = (self.cold.rtt.min_or(srtt) / 4).min(srtt);
        let limit = srtt.saturating_add(window);
        let mut wait = 0;
        let mut found = false;
        for index in 0..self.cold.ring.sent_len() {
            let Some(segment) = self.cold.ring.get(index) else { break };
            if segment.flags.intersects(TxFlags::SACKED | TxFlags::LOST) {
                continue;
            }
            let ahead = rack_us.wrapping_sub(segment.sent_us) as i32;
            let before = ahead > 0 || ahead == 0 && segment.end().before(rack_end);
            if !before {
                if !segment.flags.contains(TxFlags::RETRANSMITTED) {
                    break;
                }
                continue;
            }
            let age = now_us.wrapping_sub(segment.sent_us);
            if age >= limit {
                self.cold.ring.mark_lost(index);
                found = true;
            } else {
                wait = wait.max(limit - age);
            }
        }
        if wait > 0 {
            self.cold.reorder_at = now + Duration::from_micros(u64::from(wait));
        }
        if found && !self.in_recovery() {
            self.enter_recovery(env);
        }
    }

    fn enter_recovery(&mut self, env: &mut Env<'_>) {
        env.counters.inc(Counter::TcpFastRetransmits);
        let mss = u32::from(self.hot.snd_mss);
        let flight = self.hot.snd_nxt.distance_from(self.hot.snd_una);
        self.cold.cc.on_loss(self.hot.cwnd, flight, mss);
        self.hot.flags |= ConnFlags::RECOVERY;
        self.cold.recovery_point = self.hot.snd_nxt;
        self.cold.prr_delivered = 0;
        self.cold.prr_out = 0;
        self.cold.recover_flight = flight.max(1);
        // One segment may go at once (RFC 9937 §6: the fast retransmit).
        self.hot.cwnd = self.in_flight_bytes() + mss;
    }

    /// The congestion window after an acknowledgment.
    fn adjust_window(&mut self, now: Instant, freed: &Freed, in_flight_before: u32, rtt_us: Option<u32>) {
        let mss = u32::from(self.hot.snd_mss);
        if self.in_recovery() && self.hot.snd_una.at_or_after(self.cold.recovery_point) {
            if self.hot.flags.contains(ConnFlags::RECOVERY) {
                self.hot.cwnd = self.cold.cc.ssthresh;
            }
            self.hot.flags.remove(ConnFlags::RECOVERY | ConnFlags::LOSS);
        }
        if freed.bytes == 0 {
            return;
        }
        if self.hot.flags.contains(ConnFlags::RECOVERY) {
            return self.proportional(freed, mss);
        }
        let round = self.hot.snd_una.at_or_after(self.cold.round_end);
        if round {
            self.cold.round_end = self.hot.snd_nxt;
        }
        // RFC 7661 §4, RFC 9438 §4.2.1: a window that was not used does not grow.
        let used = in_flight_before.saturating_add(mss) >= self.hot.cwnd
            || self.hot.cwnd < self.cold.cc.ssthresh && in_flight_before * 2 >= self.hot.cwnd;
        if used || self.hot.flags.contains(ConnFlags::LOSS) {
            let event = AckEvent { now, bytes: freed.bytes, mss, srtt_us: self.cold.rtt.srtt_us, rtt_us, round };
            self.hot.cwnd = self.cold.cc.on_ack(self.hot.cwnd, &event);
        }
    }

    /// RFC 9937 §6: what leaves the network decides what may enter it.
    fn proportional(&mut self, freed: &Freed, mss: u32) {
        let cold = &mut *self.cold;
        cold.prr_delivered = cold.prr_delivered.saturating_add(freed.bytes);
        let ssthresh = u64::from(cold.cc.ssthresh);
        let (delivered, out) = (u64::from(cold.prr_delivered), u64::from(cold.prr_out));
        let flight = u64::from(cold.recover_flight);
        let pipe = u64::from(self.in_flight_bytes());
        let send = if pipe > ssthresh {
            (delivered * ssthresh).div_ceil(flight).saturating_sub(out)
        } else {
            let bound = delivered.saturating_sub(out).max(u64::from(freed.bytes)) + u64::from(mss);
            (ssthresh - pipe).min(bound)
        };
        self.hot.cwnd = (pipe + send).min(u64::from(u32::MAX)) as u32;
    }

    /// Runs what is due.
    pub fn on_timer(&mut self, now: Instant, env: &mut Env<'_>) -> Outcome {
        let mut outcome = Outcome::empty();
        if self.hot.ack_at <= now {
            self.hot.ack_at = Instant::MAX;
            self.hot.flags |= ConnFlags::ACK_NOW;
        }
        if self.cold.reorder_at <= now {
            self.detect_losses(now, env);
        }
        if self.cold.linger_at <= now {
            self.close();
            return Outcome::CLOSED;
        }
        if self.hot.rto_at <= now {
            self.hot.rto_at = Instant::MAX;
            outcome |= self.on_retransmission_timer(now, env);
        }
        outcome |= self.on_keepalive(now, env);
        self.arm(now);
        outcome
    }

    fn on_retransmission_timer(&mut self, now: Instant, env: &mut Env<'_>) -> Outcome {
        if matches!(self.hot.state, State::SynSent | State::SynReceived) {
            if self.cold.handshake.sent > self.cold.config.syn_retries {
                return self.give_up(env);
            }
            env.counters.inc(Counter::TcpSynRetransmits);
            self.hot.flags |= ConnFlags::SYN_QUEUED;
            return Outcome::RTO;
        }
        match self.cold.timer {
            TimerKind::TailProbe => {
                env.counters.inc(Counter::TcpTailProbes);
                self.cold.tail_probed = true;
                self.hot.flags |= ConnFlags::TAIL_PROBE;
                Outcome::empty()
            }
            TimerKind::Persist => {
                // RFC 9293 §3.8.6.1: probing goes on as long as the peer answers.
                if now.since(self.cold.heard_at) > self.cold.config.user_timeout {
                    return self.give_up(env);
                }
                self.cold.probes = self.cold.probes.saturating_add(1);
                env.counters.inc(Counter::TcpZeroWindowProbes);
                self.hot.flags |= ConnFlags::PROBE;
                Outcome::empty()
            }
            TimerKind::Retransmit => self.on_timeout(now, env),
        }
    }

    /// RFC 6298 §5.4 to §5.6, RFC 5681 §3.1.
    fn on_timeout(&mut self, now: Instant, env: &mut Env<'_>) -> Outcome {
        if now.since(self.cold.progress_at) > self.cold.config.user_timeout {
            return self.give_up(env);
        }
        env.counters.inc(Counter::TcpTimeouts);
        let mss = u32::from(self.hot.snd_mss);
        let flight = self.hot.snd_nxt.distance_from(self.hot.snd_una);
        // RFC 5681 §3.1: a second timeout of the same segment does not lower the threshold again.
        if self.cold.timeouts == 0 {
            self.cold.cc.on_loss(self.hot.cwnd, flight, mss);
        }
        self.cold.timeouts = self.cold.timeouts.saturating_add(1);
        self.cold.rtt.backoff = self.cold.rtt.backoff.saturating_add(1).min(16);
        self.hot.cwnd = mss;
        self.hot.flags.remove(ConnFlags::RECOVERY);
        self.hot.flags |= ConnFlags::LOSS;
        self.cold.recovery_point = self.hot.snd_nxt;
        let reneged = self.cold.ring.get(0).is_some_and(|first| first.flags.contains(TxFlags::SACKED));
        self.cold.ring.mark_all_lost(reneged);
        if self.hot.flags.contains(ConnFlags::FIN_SENT) && !self.fin_acked() {
            self.hot.flags |= ConnFlags::FIN_LOST;
        }
        Outcome::RTO
    }

    /// The peer has not answered for too long: the connection ends, and a reset says so should it still be there.
    fn give_up(&mut self, env: &mut Env<'_>) -> Outcome {
        env.counters.inc(Counter::TcpUserTimeouts);
        self.abort(env);
        Outcome::TIMED_OUT | Outcome::CLOSED
    }

    /// RFC 9293 §3.8.4.
    fn on_keepalive(&mut self, now: Instant, env: &mut Env<'_>) -> Outcome {
        let Some(due) = self.keepalive_at() else { return Outcome::empty() };
        if due > now {
            return Outcome::empty();
        }
        if self.cold.keepalives >= KEEPALIVE_PROBES {
            return self.give_up(env);
        }
        self.cold.keepalives += 1;
        env.counters.inc(Counter::TcpKeepalives);
        self.hot.flags |= ConnFlags::PROBE;
        Outcome::empty()
    }

    fn keepalive_at(&self) -> Option<Instant> {
        let idle = self.cold.config.keepalive?;
        if !matches!(self.hot.state, State::Established | State::CloseWait | State::FinWait2)
            || !self.cold.ring.is_empty()
        {
            return None;
        }
        let probes = u64::from(self.cold.keepalives);
        Some(self.cold.heard_at + idle + KEEPALIVE_INTERVAL * probes)
    }

    /// When the connection wants [`Conn::on_timer`] called.
    pub fn next_deadline(&self) -> Option<Instant> {
        let keepalive = self.keepalive_at().unwrap_or(Instant::MAX);
        let due =
            self.hot.rto_at.min(self.hot.ack_at).min(self.cold.reorder_at).min(self.cold.linger_at).min(keepalive);
        (due < Instant::MAX).then_some(due)
    }

    /// Sets the timer at `rto_at` when it is not set and something waits for it.
    pub(super) fn arm(&mut self, now: Instant) {
        let hot = &mut *self.hot;
        let cold = &mut *self.cold;
        if hot.rto_at != Instant::MAX || !hot.state.is_synchronized() || hot.flags.contains(ConnFlags::HELD) {
            return;
        }
        let fin_out = hot.flags.contains(ConnFlags::FIN_SENT) && hot.snd_una != hot.snd_end + 1;
        if cold.ring.sent_len() > 0 || fin_out {
            let rto = cold.rtt.rto(&cold.config);
            let srtt = cold.rtt.srtt();
            let probe = srtt * 2
                + if cold.ring.sent_len() == 1 { Duration::from_millis(200) } else { Duration::from_millis(2) };
            let may_probe = srtt > Duration::ZERO
                && !cold.tail_probed
                && cold.timeouts == 0
                && cold.ring.sent_len() > 0
                && hot.flags.contains(ConnFlags::SACK)
                && !hot.flags.intersects(ConnFlags::RECOVERY | ConnFlags::LOSS)
                && probe < rto;
            cold.timer = if may_probe { TimerKind::TailProbe } else { TimerKind::Retransmit };
            hot.rto_at = now + if may_probe { probe } else { rto };
        } else if cold.ring.unsent > 0 && !hot.flags.contains(ConnFlags::SHARED_WINDOW) {
            cold.timer = TimerKind::Persist;
            let backed_off = cold.rtt.rto(&cold.config).as_micros() << cold.probes.min(12);
            let wait = Duration::from_micros(backed_off.min(cold.config.max_rto.as_micros()));
            hot.rto_at = now + wait;
        }
    }
}
