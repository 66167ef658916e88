//! A segment arrives (RFC 9293 §3.10.7).

use super::conn::{Conn, ConnFlags};
use super::handshake::{PeerSyn, Stray, SynSeen};
use super::{Outcome, State};
use crate::counters::Counter;
use crate::env::Env;
use crate::frame::FrameId;
use crate::segment::RxQueue;
use crate::time::Instant;
use crate::wire::{Ecn, IcmpIn, IcmpKind, SegmentIn, TcpFlags};

/// Timestamps older than this say nothing any more (RFC 7323 §5.5).
const PAWS_IDLE: crate::time::Duration = crate::time::Duration::from_secs(24 * 24 * 3600);

impl Conn<'_> {
    /// Takes a segment. In-order payload goes to `out`; the frame is kept, handed on or released.
    pub fn on_segment(
        &mut self,
        now: Instant,
        segment: &SegmentIn,
        frame: Option<FrameId>,
        out: &mut RxQueue,
        env: &mut Env<'_>,
    ) -> Outcome {
        if self.expects(segment, frame.is_some()) {
            return self.on_expected(now, segment, frame, out, env);
        }
        self.on_any_segment(now, segment, frame, out, env)
    }

    #[inline(never)]
    fn on_any_segment(
        &mut self,
        now: Instant,
        segment: &SegmentIn,
        frame: Option<FrameId>,
        out: &mut RxQueue,
        env: &mut Env<'_>,
    ) -> Outcome {
        let was = self.hot.state;
        let checked = match self.hot.state {
            State::Closed => Err(Outcome::empty()),
            State::SynSent => self.check_syn_sent(now, segment, env),
            _ => self.check(now, segment, env),
        };
        let mut outcome = match checked {
            Ok(outcome) => outcome,
            Err(outcome) => {
                if let Some(frame) = frame {
                    env.pool.release(frame);
                }
                // Outside the window, too, an acknowledgment may be what the end of the connection waited for.
                return if self.hot.state == was { outcome } else { outcome | self.closing_outcome(now) };
            }
        };
        outcome |= Outcome::ACCEPTED;
        self.hear(now, env);
        let marked = segment.ecn == Ecn::Ce || segment.flags.contains(TcpFlags::CWR);
        if marked && self.hot.flags.contains(ConnFlags::ECN) && !segment.flags.contains(TcpFlags::SYN) {
            self.receive_ecn(segment, env);
        }
        outcome |= self.on_acknowledgment(now, segment, env);
        if segment.seq_len() > 0 && !segment.flags.contains(TcpFlags::SYN) || frame.is_some() {
            outcome |= self.receive(segment, frame, out, env);
        }
        if outcome.contains(Outcome::DATA) {
            self.measure_as_receiver(now, segment);
        }
        if self.hot.unacked > 0 || self.hot.flags.contains(ConnFlags::ACK_NOW) {
            self.schedule_ack(now);
        }
        if self.hot.state != was {
            outcome |= self.closing_outcome(now);
        }
        self.arm(now);
        outcome
    }

    /// Steps one to four: sequence number, timestamps, RST, SYN. `Err` ends the segment's life.
    fn check(&mut self, now: Instant, segment: &SegmentIn, env: &mut Env<'_>) -> Result<Outcome, Outcome> {
        let hot = &mut *self.hot;
        let handshake = hot.state == State::SynReceived;
        if segment.flags.contains(TcpFlags::SYN)
            && segment.seq == self.cold.irs
            && !segment.flags.contains(TcpFlags::RST)
        {
            return self.on_repeated_syn(now, segment, env);
        }
        // RFC 7323 §5.3: PAWS, before the sequence number is looked at; a reset is exempt.
        if hot.flags.contains(ConnFlags::TIMESTAMPS)
            && let Some(ts) = segment.options.timestamps
            && (ts.value.wrapping_sub(hot.ts_recent) as i32) < 0
            && now.since(self.cold.ts_recent_at) < PAWS_IDLE
            && !segment.flags.contains(TcpFlags::RST)
        {
            env.counters.inc(Counter::TcpPaws);
            self.challenge(now, env);
            return Err(Outcome::empty());
        }
        if !self.is_acceptable(segment) {
            env.counters.inc(Counter::TcpOutOfWindow);
            if segment.flags.contains(TcpFlags::RST) {
                return Err(Outcome::empty());
            }
            return Err(self.answer_unacceptable(now, segment, env));
        }
        if segment.flags.contains(TcpFlags::RST) {
            return Err(self.on_reset(now, segment, env));
        }
        if segment.flags.contains(TcpFlags::SYN) {
            // RFC 5961 §4.2: whatever its sequence number, a SYN is challenged.
            self.challenge(now, env);
            return Err(Outcome::empty());
        }
        if !segment.flags.contains(TcpFlags::ACK) {
            return Err(Outcome::empty());
        }
        if handshake {
            let outcome = self.on_third_ack(now, segment)?;
            self.take_timestamp(now, segment);
            return Ok(outcome);
        }
        // RFC 5961 §5.2: an ACK of what was never sent, or of what lies too far back, is challenged.
        let hot = &*self.hot;
        let oldest = hot.snd_una - hot.snd_wnd.max(1 << 16);
        if segment.ack.after(hot.snd_nxt) || segment.ack.before(oldest) {
            self.challenge(now, env);
            return Err(Outcome::empty());
        }
        self.take_timestamp(now, segment);
        Ok(Outcome::empty())
    }

    /// RFC 9293 §3.10.7.4, table 6.
    fn is_acceptable(&self, segment: &SegmentIn) -> bool {
        let (start, len) = (segment.seq, segment.seq_len());
        let (nxt, edge) = (self.hot.rcv_nxt, self.receive_edge());
        if len == 0 {
            return start == nxt || start.at_or_after(nxt) && start.at_or_before(edge);
        }
        let last = start + (len - 1);
        // A segment of old data only is a duplicate, which the receiver reports and answers; a FIN right at a closed
        // window takes no room.
        last.at_or_after(nxt) && start.before(edge) || segment.payload_len == 0 && start == nxt
    }

    /// Old data is acknowledged again; with data in flight elsewhere nothing else is due (RFC 9293 §3.10.7.4).
    fn answer_unacceptable(&mut self, now: Instant, segment: &SegmentIn, env: &mut Env<'_>) -> Outcome {
        let mut outcome = Outcome::empty();
        if segment.seq_len() > 0 || segment.seq + 1 == self.hot.rcv_nxt {
            if (segment.seq + segment.seq_len()).at_or_before(self.hot.rcv_nxt) {
                env.counters.inc(Counter::TcpDuplicates);
                self.report_duplicate(segment);
            }
            self.hot.flags |= ConnFlags::ACK_NOW;
        } else {
            self.challenge(now, env);
        }
        let news = segment.ack.distance_from(self.hot.snd_una);
        let valid = segment.flags.contains(TcpFlags::ACK) && news <= self.hot.snd_nxt.distance_from(self.hot.snd_una);
        if valid && self.hot.state.is_synchronized() {
            // RFC 1122 §4.2.3.6: whoever probes our closed window is there, and need not be asked.
            self.hear(now, env);
            if news > 0 {
                // RFC 9293 §3.10.7.4: with a zero window valid ACKs are still taken.
                outcome |= self.on_acknowledgment(now, segment, env);
            }
        }
        self.schedule_ack(now);
        self.arm(now);
        outcome
    }

    /// RFC 7323 §4.3: the timestamp of the segment that spans the last ACK is echoed. §5.5: what is older than 24 days says
    /// nothing any more.
    #[inline]
    pub(super) fn take_timestamp(&mut self, now: Instant, segment: &SegmentIn) {
        let hot = &mut *self.hot;
        if hot.flags.contains(ConnFlags::TIMESTAMPS)
            && let Some(ts) = segment.options.timestamps
            && segment.seq.at_or_before(hot.last_ack)
            && ((ts.value.wrapping_sub(hot.ts_recent) as i32) >= 0 || now.since(self.cold.ts_recent_at) >= PAWS_IDLE)
        {
            hot.ts_recent = ts.value;
            self.cold.ts_recent_at = now;
        }
    }

    /// In-order data arrived: how long ago was what it answers?
    #[inline]
    pub(super) fn measure_as_receiver(&mut self, now: Instant, segment: &SegmentIn) {
        if self.hot.flags.contains(ConnFlags::TIMESTAMPS) {
            if let Some(ts) = segment.options.timestamps {
                let value = self.ts_value(now);
                self.cold.receiver_rtt.on_echo(ts.echo, value);
            }
        } else {
            let now_us = now.as_micros() as u32;
            self.cold.receiver_rtt.on_edge(self.hot.rcv_nxt, self.hot.rcv_edge, now_us);
        }
    }

    /// The peer's SYN or SYN+ACK again: our answer to it was lost.
    fn on_repeated_syn(&mut self, now: Instant, segment: &SegmentIn, env: &mut Env<'_>) -> Result<Outcome, Outcome> {
        if self.hot.state == State::SynReceived && !segment.flags.contains(TcpFlags::ACK) {
            self.hot.flags |= ConnFlags::SYN_QUEUED;
            return Err(Outcome::DUPLICATE_SYN);
        }
        if self.hot.state == State::SynReceived {
            // Simultaneous open: the SYN+ACK acknowledges our SYN (RFC 9293 §3.5).
            return self.on_third_ack(now, segment);
        }
        self.challenge(now, env);
        Err(Outcome::DUPLICATE_SYN)
    }

    fn on_third_ack(&mut self, now: Instant, segment: &SegmentIn) -> Result<Outcome, Outcome> {
        // RFC 9293 §3.10.7.4, fifth step: only our SYN is there to be acknowledged.
        if segment.ack != self.cold.iss + 1 {
            self.cold.handshake.stray = Some(Stray::Reset(segment.ack));
            return Err(Outcome::empty());
        }
        self.hot.state = State::Established;
        self.on_handshake_done(now, segment);
        Ok(Outcome::ESTABLISHED)
    }

    fn on_handshake_done(&mut self, now: Instant, segment: &SegmentIn) {
        self.hot.snd_una = self.cold.iss + 1;
        self.hot.flags.remove(ConnFlags::SYN_QUEUED);
        self.hot.snd_wl1 = segment.seq - 1;
        if self.cold.handshake.sent == 1 {
            let now_us = now.as_micros() as u32;
            let rtt = now_us.wrapping_sub(self.cold.handshake.first_sent_us);
            self.cold.rtt.sample(rtt, now.as_millis() as u32, 1, &self.cold.config);
        } else {
            // RFC 5681 §3.1, RFC 6928 §2: after a SYN that was lost the first window is one segment.
            self.hot.cwnd = u32::from(self.hot.smss);
            self.cold.rtt.after_lost_syn();
        }
        self.cold.rtt.backoff = 0;
        self.cold.timeouts = 0;
        self.cold.accepting = None;
        self.hot.rto_at = Instant::MAX;
        self.cold.progress_at = now;
    }

    /// RFC 9293 §3.10.7.3, with erratum 8167.
    fn check_syn_sent(&mut self, now: Instant, segment: &SegmentIn, env: &mut Env<'_>) -> Result<Outcome, Outcome> {
        let acks = segment.flags.contains(TcpFlags::ACK);
        if acks && segment.ack != self.cold.iss + 1 {
            // RFC 9293 §3.10.7.3, first step: an old connection's peer is told that it is over.
            if !segment.flags.contains(TcpFlags::RST) {
                self.cold.handshake.stray = Some(Stray::Reset(segment.ack));
            }
            return Err(Outcome::empty());
        }
        if segment.flags.contains(TcpFlags::RST) {
            if !acks {
                return Err(Outcome::empty());
            }
            env.counters.inc(Counter::TcpResetsIn);
            self.release(env);
            self.hot.flags = ConnFlags::empty();
            self.close();
            return Err(Outcome::ACCEPTED | Outcome::RESET | Outcome::CLOSED);
        }
        if !segment.flags.contains(TcpFlags::SYN) {
            return Err(Outcome::empty());
        }
        let peer = SynSeen::of(segment);
        if acks {
            self.take_peer_syn(now, &peer, PeerSyn::SynAck);
            self.hot.state = State::Established;
            self.hot.flags |= ConnFlags::ACK_NOW;
            self.on_handshake_done(now, segment);
            return Ok(Outcome::ESTABLISHED);
        }
        // Simultaneous open: answer with SYN+ACK of our own.
        self.take_peer_syn(now, &peer, PeerSyn::Syn);
        self.cold.accepting = Some(peer);
        self.hot.state = State::SynReceived;
        self.hot.flags |= ConnFlags::SYN_QUEUED;
        Err(Outcome::empty())
    }

    /// Takes an ICMP error that quotes a segment of this connection (RFC 5927 §4, RFC 1191, RFC 8201).
    pub fn on_icmp(&mut self, now: Instant, icmp: &IcmpIn, env: &mut Env<'_>) -> Outcome {
        let seq = icmp.quoted_seq;
        let in_flight = seq.at_or_after(self.hot.snd_una) && seq.before(self.hot.snd_nxt)
            || self.hot.state == State::SynSent && seq == self.cold.iss;
        if !in_flight {
            env.counters.inc(Counter::IcmpIgnored);
            return Outcome::empty();
        }
        match icmp.kind {
            IcmpKind::TooBig => self.on_too_big(now, icmp.mtu, env),
            // RFC 1122 §4.2.3.9: soft errors do not end an established connection.
            _ if self.hot.state == State::SynSent => {
                self.close();
                self.hot.flags = ConnFlags::empty();
                Outcome::UNREACHABLE | Outcome::CLOSED
            }
            _ => Outcome::UNREACHABLE,
        }
    }
}
