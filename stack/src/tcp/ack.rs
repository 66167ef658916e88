//! What an acknowledgment says (RFC 9293 §3.10.7.4, fifth step): what it frees, how long that took, how far the window
//! may grow.

use super::Outcome;
use super::cc::{AckEvent, ModelAck};
use super::conn::{Conn, ConnFlags};
use super::send::Freed;
use crate::env::Env;
use crate::time::Instant;
use crate::wire::{SegmentIn, TcpFlags};

/// With one of these nothing about an acknowledgment is the rule.
const IRREGULAR: ConnFlags = ConnFlags::RECOVERY.union(ConnFlags::LOSS).union(ConnFlags::ECN_REDUCED);

impl Conn<'_> {
    /// Step five: what the segment acknowledges, and the window that it opens.
    pub(super) fn on_acknowledgment(&mut self, now: Instant, segment: &SegmentIn, env: &mut Env<'_>) -> Outcome {
        let mut outcome = self.take_window(now, segment);
        let before = self.hot.snd_una;
        let advanced = segment.ack.after(before);
        // RFC 3168 §6.1.1: on a SYN+ACK the flag agrees to ECN and says nothing of marks.
        let marks = segment.flags & (TcpFlags::ECE | TcpFlags::SYN);
        let echo = marks == TcpFlags::ECE && self.hot.flags.contains(ConnFlags::ECN);
        // RFC 5681 §2: a duplicate acknowledgment.
        let duplicate = segment.ack == before
            && segment.seq_len() == 0
            && self.cold.ring.sent_len() > 0
            && !outcome.contains(Outcome::WINDOW)
            && !self.signals_only(segment);
        if !advanced && !duplicate && !echo && segment.options.sack.is_empty() {
            return outcome;
        }
        let in_flight = self.in_flight_bytes();
        let now_us = now.as_micros() as u32;
        let min_rtt = self.cold.rtt.min_or(0);
        let mut freed = Freed::new(now, min_rtt, self.echo_age_us(now, segment));
        if advanced {
            outcome |= Outcome::ACKED;
            self.acknowledge(now, segment, &mut freed, env);
        }
        if !segment.options.sack.is_empty() && self.hot.flags.contains(ConnFlags::SACK) {
            self.take_sack(segment, &mut freed);
        }
        let rtt_us = self.sample_rtt(now, now_us, segment, advanced, &freed);
        self.cold.rack.advance(now_us, &freed);
        self.validate_cwnd(in_flight);
        let irregular = duplicate
            || echo
            || freed.reordered
            || self.cold.ring.sacked > 0
            || self.cold.probe.is_some()
            || !segment.options.sack.is_empty()
            || self.hot.flags.intersects(IRREGULAR);
        let recovering = self.hot.flags.contains(ConnFlags::RECOVERY);
        if irregular {
            self.on_irregular_ack(now, segment, (advanced, duplicate), &mut freed, env);
            self.on_congestion_echo(segment, echo, env);
        }
        if freed.largest > self.hot.largest_acked {
            self.on_larger_acked(freed.largest);
        }
        if self.hot.flags.contains(ConnFlags::MODEL) {
            self.follow_model(now, rtt_us);
            return outcome;
        }
        // RFC 5681 §3.1: the window grows by what is acknowledged in order; where reordering is usual, by what arrives.
        let forward = advanced || self.cold.rack.reordering_seen && freed.bytes > 0;
        // RFC 6582 §3.2, RFC 9937 §6.4: the acknowledgment that ends recovery sets the window, and no more.
        if forward && !echo && !recovering && !self.hot.flags.contains(ConnFlags::RECOVERY) {
            self.grow(now, freed.bytes, rtt_us);
        }
        outcome
    }

    /// RFC 8684 §3, §4: a duplicate acknowledgment with an option of Multipath TCP, a DSS excepted, is no sign of a loss.
    fn signals_only(&self, segment: &SegmentIn) -> bool {
        self.hot.flags.contains(ConnFlags::SHARED_WINDOW) && segment.options.has_mptcp_signal()
    }

    fn acknowledge(&mut self, now: Instant, segment: &SegmentIn, freed: &mut Freed, env: &mut Env<'_>) {
        let before = self.hot.snd_una;
        self.cold.ring.acknowledge(segment.ack.min(self.hot.snd_end), freed, env);
        self.hot.snd_una = segment.ack;
        self.cold.bytes_acked += u64::from(segment.ack.distance_from(before));
        self.cold.progress_at = now;
        self.cold.timeouts = 0;
        self.cold.probes = 0;
        // RFC 6298 §5.3: the timer starts anew; `arm` sets it when something is still out.
        self.hot.rto_at = Instant::MAX;
        if self.fin_acked() {
            self.on_fin_acked();
        }
    }

    #[cold]
    fn take_sack(&mut self, segment: &SegmentIn, freed: &mut Freed) {
        let (una, nxt) = (self.hot.snd_una, self.hot.snd_nxt);
        let mut blocks = segment.options.sack.clone();
        blocks.retain(|block| {
            block.start.at_or_after(una) && block.end.at_or_before(nxt) && block.start.before(block.end)
        });
        freed.disregard_echo();
        self.cold.ring.sack(&blocks, freed);
    }

    /// How long ago the segment was sent whose timestamp the peer echoes.
    fn echo_age_us(&self, now: Instant, segment: &SegmentIn) -> Option<u32> {
        // Only retransmissions are in doubt.
        if !self.in_recovery() && self.cold.probe.is_none() {
            return None;
        }
        let ts = segment.options.timestamps.filter(|ts| ts.echo != 0)?;
        let age_ms = self.ts_value(now).wrapping_sub(ts.echo);
        self.hot.flags.contains(ConnFlags::TIMESTAMPS).then_some(age_ms.saturating_mul(1_000))
    }

    /// RFC 6298 §3 (Karn): only segments that were sent once are measured by their own time.
    fn sample_rtt(
        &mut self,
        now: Instant,
        now_us: u32,
        segment: &SegmentIn,
        advanced: bool,
        freed: &Freed,
    ) -> Option<u32> {
        match freed.sent_us {
            Some(sent_us) if !freed.retransmitted => {
                let rtt = now_us.wrapping_sub(sent_us);
                let per_round = (self.hot.cwnd / (2 * u32::from(self.hot.smss))).max(1);
                self.cold.rtt.sample(rtt, now.as_millis() as u32, per_round, &self.cold.config);
                Some(rtt)
            }
            // RFC 7323 §4.1: an echo is a measurement only where the acknowledgment advances; it is of what filled a gap, or
            // came before one (§4.3), and beside a report of what lies beyond it can be of any age.
            _ if freed.retransmitted && advanced => {
                self.sample_rtt_by_timestamp(now, segment);
                None
            }
            _ => None,
        }
    }

    /// RFC 7323 §4.1: timestamps tell which of several transmissions is acknowledged, to the millisecond.
    #[cold]
    fn sample_rtt_by_timestamp(&mut self, now: Instant, segment: &SegmentIn) {
        if let Some(ts) = segment.options.timestamps.filter(|ts| ts.echo != 0)
            && self.hot.flags.contains(ConnFlags::TIMESTAMPS)
        {
            let age_ms = self.ts_value(now).wrapping_sub(ts.echo);
            if age_ms <= self.cold.config.max_rto.as_millis() as u32 {
                self.cold.rtt.sample((age_ms + 1) * 1_000, now.as_millis() as u32, 1, &self.cold.config);
            }
        }
    }

    /// The window after an acknowledgment, by the model of the path.
    #[inline(never)]
    fn follow_model(&mut self, now: Instant, rtt_us: Option<u32>) {
        let in_flight = self.in_flight_bytes();
        let (min_rtt, probing_rtt) = self.cold.cc.model_rtt();
        let Some(rates) = &mut self.cold.ring.rates else { return };
        if probing_rtt {
            rates.on_app_limited(in_flight);
        }
        let ack = ModelAck {
            now,
            sample: rates.sample(min_rtt),
            delivered: rates.delivered,
            in_flight,
            mss: u32::from(self.hot.smss),
            rtt_us,
            cwnd_limited: self.hot.flags.contains(ConnFlags::CWND_WAS_LIMITED),
            recovering: self.in_recovery(),
        };
        self.hot.cwnd = self.cold.cc.on_model_ack(self.hot.cwnd, &ack);
    }

    /// The window after an acknowledgment of `bytes`.
    fn grow(&mut self, now: Instant, bytes: u32, rtt_us: Option<u32>) {
        let round = self.hot.snd_una.at_or_after(self.hot.round_end);
        if round {
            self.hot.round_end = self.hot.snd_nxt;
        }
        if !self.window_was_used() {
            return;
        }
        let event = AckEvent {
            now,
            bytes,
            mss: u32::from(self.hot.smss),
            srtt_us: self.cold.rtt.srtt_us(),
            rtt_us,
            round,
            paced: self.hot.flags.contains(ConnFlags::PACED),
        };
        self.hot.cwnd = self.cold.cc.on_ack(self.hot.cwnd, &event);
    }
}
