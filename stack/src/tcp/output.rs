//! What a connection sends next: SYN, lost segments, new ones, FIN, probes, acknowledgments.

use super::config::QUICK_ACKS;
use super::conn::{Conn, ConnFlags, TimerKind};
use super::handshake::Stray;
use super::rack::Probe;
use super::undo::Frto;
use super::{Offer, State};
use crate::counters::Counter;
use crate::env::Env;
use crate::options::Timestamps;
use crate::segment::TxFlags;
use crate::seq::SeqNum;
use crate::time::Instant;
use crate::wire::{Outgoing, PayloadOut, TcpFlags};

/// Segments after which an acknowledgment is due (RFC 9293 §3.8.6.3).
const ACK_EVERY: u8 = 2;

impl Conn<'_> {
    /// The next segment to send; call until `None`. Payload comes with a right of its own to its frame.
    pub fn poll_transmit(&mut self, now: Instant, env: &mut Env<'_>) -> Option<Outgoing> {
        let mut out = Outgoing::blank();
        self.poll_transmit_into(now, &mut out, env).then_some(out)
    }

    /// [`Conn::poll_transmit`] into a place of the caller's, since a segment's description is too large to be moved about.
    /// False when there is none; `out` means nothing then.
    pub fn poll_transmit_into(&mut self, now: Instant, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        let flags = self.hot.flags;
        if flags.contains(ConnFlags::RESET_QUEUED) {
            self.hot.flags.remove(ConnFlags::RESET_QUEUED);
            env.counters.inc(Counter::TcpResetsOut);
            self.segment(now, self.hot.snd_nxt, TcpFlags::RST | TcpFlags::ACK, out);
            return true;
        }
        if flags.contains(ConnFlags::HELD) || self.hot.state == State::Closed {
            return false;
        }
        if flags.contains(ConnFlags::SYN_QUEUED) {
            *out = self.syn(now);
            return true;
        }
        if !self.hot.state.is_synchronized() {
            return self.next_stray(now, out, env);
        }
        let some = self.next_data(now, out, env)
            || self.next_fin(now, out)
            || self.next_probe(now, out)
            || self.next_ack(now, out);
        // Of several segments that leave together the last one sets the timer.
        if !some {
            self.arm(now);
            self.arm_persist(now);
        }
        some
    }

    fn next_ack(&mut self, now: Instant, out: &mut Outgoing) -> bool {
        let due = self.hot.flags.contains(ConnFlags::ACK_NOW);
        if due {
            let in_order = self.hot.flags.contains(ConnFlags::IN_ORDER);
            let seq = if in_order { self.hot.snd_una } else { self.hot.snd_nxt };
            self.segment(now, seq, TcpFlags::ACK, out);
        }
        due
    }

    /// What a handshake says to a segment that it did not take.
    fn next_stray(&mut self, now: Instant, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        match self.cold.handshake.stray.take() {
            Some(Stray::Reset(seq)) => {
                env.counters.inc(Counter::TcpResetsOut);
                *out = Outgoing::bare(seq, SeqNum(0), TcpFlags::RST);
            }
            Some(Stray::Challenge) => self.segment(now, self.hot.snd_nxt, TcpFlags::ACK, out),
            None => return false,
        }
        true
    }

    fn syn(&mut self, now: Instant) -> Outgoing {
        self.hot.flags.remove(ConnFlags::SYN_QUEUED);
        let accepting = self.hot.state == State::SynReceived;
        let handshake = &mut self.cold.handshake;
        let offer = handshake.offer;
        if handshake.sent == 0 {
            handshake.first_sent_us = now.as_micros() as u32;
        }
        handshake.sent = handshake.sent.saturating_add(1);
        // RFC 6298 §5.5: each repetition waits twice as long.
        let rto = self.cold.rtt.rto(&self.cold.config);
        self.cold.rtt.backoff = self.cold.rtt.backoff.saturating_add(1);
        self.hot.rto_at = now + rto;
        // RFC 3168 §6.1.1.1: a SYN that asks for ECN and is not answered is sent again without.
        let again = handshake.sent > 1;
        if !accepting {
            return Offer { ecn: offer.ecn && !again, ..offer }.syn(self.cold.iss, now);
        }
        let mut flags = TcpFlags::SYN | TcpFlags::ACK;
        flags.set(TcpFlags::ECE, self.hot.flags.contains(ConnFlags::ECN));
        let mut out = Outgoing::blank();
        self.segment(now, self.cold.iss, flags, &mut out);
        out.window = offer.rcv_wnd.min(0xffff) as u16;
        let mut options = offer.options();
        if let Some(peer) = &self.cold.accepting {
            // RFC 7323 §1.3, RFC 2018 §2: only what the SYN offered may be answered.
            options.window_scale = options.window_scale.filter(|_| peer.options.window_scale.is_some());
            options.sack_permitted &= peer.options.sack_permitted;
        }
        out.syn = Some(options);
        out
    }

    #[inline]
    fn next_data(&mut self, now: Instant, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        if self.cold.ring.is_empty() || !self.hot.state.may_send() && self.hot.state != State::FinWait2 {
            return false;
        }
        let in_flight = self.in_flight_bytes();
        if self.hot.flags.contains(ConnFlags::TAIL_PROBE) {
            self.hot.flags.remove(ConnFlags::TAIL_PROBE);
            if self.tail_probe(now, out, env) {
                return true;
            }
        }
        if self.must_wait(now) {
            return false;
        }
        if self.cold.ring.lost > 0 && self.cold.frto != Frto::Second {
            return self.resend_lost(now, in_flight, out, env);
        }
        self.send_new(now, in_flight, out, env)
    }

    #[cold]
    fn resend_lost(&mut self, now: Instant, in_flight: u32, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        let Some(index) = self.cold.ring.next_lost() else { return false };
        let Some(segment) = self.cold.ring.get(index) else { return false };
        // RFC 6298 §5.4: with nothing in flight the earliest segment always goes.
        let in_order = self.hot.flags.contains(ConnFlags::IN_ORDER);
        if in_flight > 0 && (in_order || in_flight + u32::from(segment.len.min(self.hot.smss)) > self.hot.cwnd) {
            return false;
        }
        // RFC 9293 §3.8.6: of what a window no longer covers that was shrunk, only the first is sent again.
        let shared = self.hot.flags.contains(ConnFlags::SHARED_WINDOW);
        if index > 0 && !shared && segment.end().after(self.hot.snd_una + self.hot.snd_wnd) {
            return false;
        }
        self.resend(now, index, out, env)
    }

    /// RFC 8985 §7.3: new data if the window takes it, else the last segment again.
    fn tail_probe(&mut self, now: Instant, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        self.hot.rto_at = Instant::MAX;
        let in_order = self.hot.flags.contains(ConnFlags::IN_ORDER) && self.cold.ring.sent_len() > 0;
        if self.cold.ring.unsent > 0 && !in_order && self.send_new(now, 0, out, env) {
            self.cold.probe = Some(Probe { end: self.hot.snd_nxt, retransmission: false, told: false });
            return true;
        }
        let Some(last) = self.cold.ring.sent_len().checked_sub(1) else { return false };
        self.cold.probe = Some(Probe { end: self.hot.snd_nxt, retransmission: true, told: false });
        self.resend(now, last, out, env)
    }

    fn resend(&mut self, now: Instant, index: usize, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        self.cold.ring.split(index, self.hot.smss, env);
        let in_flight = self.in_flight_bytes();
        self.cold.ring.mark_resent(index, now, in_flight, env);
        self.cold.retransmits += 1;
        env.counters.inc(Counter::TcpRetransmits);
        self.note_retransmission(now);
        let some = self.data(now, index, TcpFlags::ACK, out, env);
        out.retransmit = some;
        some
    }

    fn send_new(&mut self, now: Instant, in_flight: u32, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        let index = self.cold.ring.sent_len();
        let Some(segment) = self.cold.ring.get(index) else {
            self.hot.flags.remove(ConnFlags::CWND_LIMITED);
            if let Some(rates) = &mut self.cold.ring.rates {
                rates.on_app_limited(in_flight);
            }
            return false;
        };
        let (seq, whole) = (segment.seq, segment.len);
        let mut len = whole.min(self.hot.smss);
        if len < whole && self.may_probe_size(now, seq, whole) {
            len = whole;
        }
        if in_flight == 0 {
            self.begin_flight(now);
        } else if in_flight + u32::from(len) > self.hot.cwnd || self.hot.flags.contains(ConnFlags::IN_ORDER) {
            self.hot.flags |= ConnFlags::CWND_LIMITED;
            return false;
        }
        len = self.fit_peer_window(seq, len, in_flight);
        if len == 0 {
            return false;
        }
        if len < whole {
            self.cold.ring.split(index, len, env);
        }
        self.cold.ring.mark_sent(now, in_flight);
        if self.cold.timer != TimerKind::Retransmit {
            // RFC 8985 §7.2: a probe is due so long after the last data, not after the first. A window that was closed is
            // open.
            self.hot.rto_at = Instant::MAX;
        }
        self.hot.snd_nxt = self.hot.snd_nxt.max(seq + u32::from(len));
        let mut flags = TcpFlags::ACK;
        let ecn = self.mark_new_data(&mut flags);
        let some = self.data(now, index, flags, out, env);
        out.ecn = ecn;
        some
    }

    /// Nothing is in flight, and now there will be.
    fn begin_flight(&mut self, now: Instant) {
        if self.cold.ring.sent_len() > 0 {
            return;
        }
        let idle = now.since(self.cold.progress_at);
        if idle > self.cold.rtt.rto(&self.cold.config) && !self.in_recovery() {
            self.restart_after_idle(idle);
        }
        self.cold.progress_at = now;
    }

    /// The segment at `index` of the send ring.
    #[inline]
    fn data(&mut self, now: Instant, index: usize, mut flags: TcpFlags, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        let Some(segment) = self.cold.ring.get(index) else { return false };
        let payload = PayloadOut {
            frame: env.pool.share(&segment.frame),
            offset: segment.offset,
            len: segment.len,
            sum: segment.sum,
        };
        let (seq, dsn, len) = (segment.seq, segment.dsn, segment.len);
        let mapped = segment.flags.contains(TxFlags::MAPPED);
        flags.set(TcpFlags::PSH, segment.end() == self.hot.snd_end);
        if self.hot.flags.contains(ConnFlags::RECOVERY) {
            self.cold.prr.out = self.cold.prr.out.saturating_add(u32::from(len));
        }
        self.pace(now, len);
        // Full segments have no room for SACK blocks: what is to be reported goes on an ACK of its own, after the data.
        let report = self.hot.flags.contains(ConnFlags::ACK_NOW) && self.cold.ooo.has_report();
        self.header(now, seq, flags, out);
        self.hot.flags.set(ConnFlags::ACK_NOW, report);
        out.payload = Some(payload);
        out.dsn = dsn;
        out.mapped = mapped;
        true
    }

    fn next_fin(&mut self, now: Instant, out: &mut Outgoing) -> bool {
        let flags = self.hot.flags;
        let again = flags.contains(ConnFlags::FIN_LOST);
        let first = flags.contains(ConnFlags::FIN_QUEUED) && !flags.contains(ConnFlags::FIN_SENT);
        let overtakes = flags.contains(ConnFlags::IN_ORDER) && !self.cold.ring.is_empty();
        if !(first && self.cold.ring.unsent == 0 || again) || overtakes {
            return false;
        }
        self.hot.flags.remove(ConnFlags::FIN_LOST);
        if first {
            self.hot.flags |= ConnFlags::FIN_SENT;
            self.hot.state = match self.hot.state {
                State::Established => State::FinWait1,
                State::CloseWait => State::LastAck,
                other => other,
            };
            if self.cold.ring.is_empty() {
                self.cold.progress_at = now;
            }
        }
        let seq = self.hot.snd_end;
        self.hot.snd_nxt = seq + 1;
        self.segment(now, seq, TcpFlags::FIN | TcpFlags::ACK, out);
        out.retransmit = again;
        true
    }

    /// An ACK of old sequence space, which the peer must answer: a zero-window or keepalive probe (RFC 9293 §3.8.4).
    fn next_probe(&mut self, now: Instant, out: &mut Outgoing) -> bool {
        if !self.hot.flags.contains(ConnFlags::PROBE) {
            return false;
        }
        self.hot.flags.remove(ConnFlags::PROBE);
        self.segment(now, self.hot.snd_una - 1, TcpFlags::ACK, out);
        true
    }

    /// A segment without payload: it says everything there is to say of the peer's data.
    fn segment(&mut self, now: Instant, seq: SeqNum, flags: TcpFlags, out: &mut Outgoing) {
        self.header(now, seq, flags, out);
        if self.cold.ooo.has_report() || self.hot.acks_due > 0 {
            self.report(out);
        }
    }

    /// What every segment has; it acknowledges what arrived in order.
    #[inline]
    fn header(&mut self, now: Instant, seq: SeqNum, mut flags: TcpFlags, out: &mut Outgoing) {
        flags.set(TcpFlags::ECE, flags.contains(TcpFlags::ECE) || self.hot.flags.contains(ConnFlags::ECHO_MARK));
        out.begin(seq, self.hot.rcv_nxt, flags);
        out.window = self.window_field();
        let hot = &mut *self.hot;
        if hot.flags.contains(ConnFlags::TIMESTAMPS) {
            let value = (now.as_millis() as u32).wrapping_add(hot.ts_offset);
            out.timestamps = Some(Timestamps { value, echo: hot.ts_recent });
        }
        hot.flags.remove(ConnFlags::ACK_NOW);
        hot.unacked = 0;
        hot.ack_at = Instant::MAX;
        hot.last_ack = hot.rcv_nxt;
    }

    /// SACK blocks, by the room that there is (RFC 2018 §3): behind timestamps, behind those and a 64-bit DATA_ACK.
    #[cold]
    fn report(&mut self, out: &mut Outgoing) {
        if !self.hot.flags.contains(ConnFlags::SACK) {
            // RFC 5681 §4.2: an acknowledgment for each segment beyond a gap, also of those that came together.
            self.hot.acks_due = self.hot.acks_due.saturating_sub(1);
            self.hot.flags.set(ConnFlags::ACK_NOW, self.hot.acks_due > 0);
            return;
        }
        let timestamps = self.hot.flags.contains(ConnFlags::TIMESTAMPS);
        let room = match (self.hot.flags.contains(ConnFlags::SHARED_WINDOW), timestamps) {
            (false, false) => 4,
            (false, true) => 3,
            (true, false) => 2,
            (true, true) => 1,
        };
        out.sack = self.cold.ooo.take_blocks(room);
        if self.cold.ooo.has_news() {
            self.hot.flags |= ConnFlags::ACK_NOW;
        }
    }

    /// The timestamp of a segment that is sent now (RFC 7323 §5.4).
    pub(super) fn ts_value(&self, now: Instant) -> u32 {
        (now.as_millis() as u32).wrapping_add(self.hot.ts_offset)
    }

    /// Decides when what was received is acknowledged (RFC 9293 §3.8.6.3, RFC 5681 §4.2).
    pub(super) fn schedule_ack(&mut self, now: Instant) {
        let hot = &mut *self.hot;
        if hot.flags.contains(ConnFlags::ACK_NOW) {
            if !self.cold.ooo.is_empty() {
                hot.quick_acks = hot.quick_acks.max(QUICK_ACKS / 2);
            }
        } else if hot.quick_acks > 0 || hot.unacked >= ACK_EVERY {
            hot.quick_acks = hot.quick_acks.saturating_sub(1);
            hot.flags |= ConnFlags::ACK_NOW;
        } else if hot.ack_at == Instant::MAX {
            hot.ack_at = now + self.cold.config.delayed_ack;
        }
    }
}

impl Offer {
    /// The SYN that makes this offer, for a connection or for whoever sends it in a connection's place.
    pub fn syn(&self, iss: SeqNum, now: Instant) -> Outgoing {
        let mut flags = TcpFlags::SYN;
        flags.set(TcpFlags::ECE | TcpFlags::CWR, self.ecn);
        let mut out = Outgoing::bare(iss, SeqNum(0), flags);
        out.window = self.rcv_wnd.min(0xffff) as u16;
        out.syn = Some(self.options());
        out.timestamps =
            self.timestamps.map(|ts| Timestamps { value: (now.as_millis() as u32).wrapping_add(ts.offset), echo: 0 });
        out
    }
}
