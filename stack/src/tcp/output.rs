//! What a connection sends next: SYN, lost segments, new ones, FIN, probes, acknowledgments.

use super::config::QUICK_ACKS;
use super::conn::{Conn, ConnFlags};
use super::{Offer, State};
use crate::counters::Counter;
use crate::env::Env;
use crate::options::Timestamps;
use crate::segment::TxFlags;
use crate::seq::SeqNum;
use crate::time::Instant;
use crate::wire::{Ecn, Outgoing, PayloadOut, TcpFlags};

/// Segments after which an acknowledgment is due (RFC 9293 §3.8.6.3).
const ACK_EVERY: u8 = 2;

impl Conn<'_> {
    /// The next segment to send; call until `None`. Payload comes with a right of its own to its frame.
    pub fn poll_transmit(&mut self, now: Instant, env: &mut Env<'_>) -> Option<Outgoing> {
        let flags = self.hot.flags;
        if flags.contains(ConnFlags::RESET_QUEUED) {
            self.hot.flags.remove(ConnFlags::RESET_QUEUED);
            env.counters.inc(Counter::TcpResetsOut);
            let out = self.segment(now, self.hot.snd_nxt, TcpFlags::RST | TcpFlags::ACK);
            return Some(out);
        }
        if flags.contains(ConnFlags::HELD) || self.hot.state == State::Closed {
            return None;
        }
        if flags.contains(ConnFlags::SYN_QUEUED) {
            return Some(self.syn(now));
        }
        if !self.hot.state.is_synchronized() {
            return None;
        }
        let out = self.next_data(now, env).or_else(|| self.next_fin(now)).or_else(|| self.next_probe(now));
        let out = out.or_else(|| {
            self.hot.flags.contains(ConnFlags::ACK_NOW).then(|| self.segment(now, self.hot.snd_nxt, TcpFlags::ACK))
        });
        self.arm(now);
        out
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
        if !accepting {
            return offer.syn(self.cold.iss, now);
        }
        let mut out = self.segment(now, self.cold.iss, TcpFlags::SYN | TcpFlags::ACK);
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

    fn next_data(&mut self, now: Instant, env: &mut Env<'_>) -> Option<Outgoing> {
        if self.cold.ring.is_empty() || !self.hot.state.may_send() && self.hot.state != State::FinWait2 {
            return None;
        }
        let in_flight = self.in_flight_bytes();
        if self.hot.flags.contains(ConnFlags::TAIL_PROBE) {
            self.hot.flags.remove(ConnFlags::TAIL_PROBE);
            if let Some(out) = self.tail_probe(now, env) {
                return Some(out);
            }
        }
        if let Some(index) = self.cold.ring.next_lost(0) {
            let len = self.cold.ring.get(index).map_or(0, |segment| u32::from(segment.len));
            // RFC 6298 §5.4: with nothing in flight the earliest segment always goes.
            if in_flight > 0 && in_flight + len > self.hot.cwnd {
                return None;
            }
            return self.resend(now, index, env);
        }
        self.send_new(now, in_flight, env)
    }

    /// RFC 8985 §7.3: new data if the window takes it, else the last segment again.
    fn tail_probe(&mut self, now: Instant, env: &mut Env<'_>) -> Option<Outgoing> {
        if self.cold.ring.unsent > 0
            && let Some(out) = self.send_new(now, 0, env)
        {
            return Some(out);
        }
        let last = self.cold.ring.sent_len().checked_sub(1)?;
        self.resend(now, last, env)
    }

    fn resend(&mut self, now: Instant, index: usize, env: &mut Env<'_>) -> Option<Outgoing> {
        if !self.cold.ring.split(index, self.segment_payload(), env) {
            return None;
        }
        self.cold.ring.mark_resent(index, now.as_micros() as u32);
        self.cold.retransmits += 1;
        env.counters.inc(Counter::TcpRetransmits);
        self.data(now, index, env).map(|mut out| {
            out.retransmit = true;
            out
        })
    }

    fn send_new(&mut self, now: Instant, in_flight: u32, env: &mut Env<'_>) -> Option<Outgoing> {
        let index = self.cold.ring.sent_len();
        let segment = self.cold.ring.get(index)?;
        let (seq, len, payload) = (segment.seq, segment.len, self.segment_payload());
        let mut len = len.min(payload);
        if in_flight > 0 && in_flight + u32::from(len) > self.hot.cwnd {
            return None;
        }
        if !self.hot.flags.contains(ConnFlags::SHARED_WINDOW) {
            let edge = self.hot.snd_una + self.hot.snd_wnd;
            let room = edge.saturating_distance_from(seq);
            if room < u32::from(len) {
                // RFC 9293 §3.8.6.2.1: part of a segment goes only when nothing else is under way, or it is large.
                let worth = room > 0 && (in_flight == 0 || room >= u32::from(payload / 2));
                if !worth {
                    return None;
                }
                len = room as u16;
            }
        }
        if !self.cold.ring.split(index, len, env) {
            return None;
        }
        self.cold.ring.mark_sent(now.as_micros() as u32);
        if self.cold.ring.sent_len() == 1 {
            self.cold.progress_at = now;
        }
        self.hot.snd_nxt = self.hot.snd_nxt.max(seq + u32::from(len));
        self.data(now, index, env)
    }

    /// The segment at `index` of the send ring.
    fn data(&mut self, now: Instant, index: usize, env: &mut Env<'_>) -> Option<Outgoing> {
        let segment = self.cold.ring.get(index)?;
        let payload = PayloadOut {
            frame: env.pool.share(&segment.frame),
            offset: segment.offset,
            len: segment.len,
            sum: segment.sum,
        };
        let (seq, dsn, len) = (segment.seq, segment.dsn, u32::from(segment.len));
        let mapped = segment.flags.contains(TxFlags::MAPPED);
        let last = segment.end() == self.hot.snd_end;
        let mut flags = TcpFlags::ACK;
        flags.set(TcpFlags::PSH, last);
        if self.hot.flags.contains(ConnFlags::RECOVERY) {
            self.cold.prr_out = self.cold.prr_out.saturating_add(len);
        }
        let mut out = self.segment(now, seq, flags);
        out.payload = Some(payload);
        out.dsn = dsn;
        out.mapped = mapped;
        Some(out)
    }

    fn next_fin(&mut self, now: Instant) -> Option<Outgoing> {
        let flags = self.hot.flags;
        let again = flags.contains(ConnFlags::FIN_LOST);
        let first = flags.contains(ConnFlags::FIN_QUEUED) && !flags.contains(ConnFlags::FIN_SENT);
        if !(first && self.cold.ring.unsent == 0 || again) {
            return None;
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
        let mut out = self.segment(now, seq, TcpFlags::FIN | TcpFlags::ACK);
        out.retransmit = again;
        Some(out)
    }

    /// An ACK of old sequence space, which the peer must answer: a zero-window or keepalive probe (RFC 9293 §3.8.4).
    fn next_probe(&mut self, now: Instant) -> Option<Outgoing> {
        if !self.hot.flags.contains(ConnFlags::PROBE) {
            return None;
        }
        self.hot.flags.remove(ConnFlags::PROBE);
        Some(self.segment(now, self.hot.snd_una - 1, TcpFlags::ACK))
    }

    /// A segment with everything that every segment has; it acknowledges what there is to acknowledge.
    fn segment(&mut self, now: Instant, seq: SeqNum, flags: TcpFlags) -> Outgoing {
        let mut out = Outgoing::bare(seq, self.hot.rcv_nxt, flags);
        out.ecn = Ecn::NotEct;
        out.window = self.window_field();
        let hot = &mut *self.hot;
        if hot.flags.contains(ConnFlags::TIMESTAMPS) {
            let value = (now.as_millis() as u32).wrapping_add(hot.ts_offset);
            out.timestamps = Some(Timestamps { value, echo: hot.ts_recent });
        }
        if hot.flags.contains(ConnFlags::SACK) {
            out.sack = self.cold.ooo.take_blocks();
        }
        hot.flags.remove(ConnFlags::ACK_NOW);
        hot.unacked = 0;
        hot.ack_at = Instant::MAX;
        hot.last_ack = hot.rcv_nxt;
        out
    }

    /// The window field, and the edge that it shows the peer (RFC 9293 §3.8.6.2.2: never moved left, nor by crumbs).
    fn window_field(&mut self) -> u16 {
        let hot = &mut *self.hot;
        let scale = u32::from(hot.rcv_scale);
        let largest = 0xffff_u32 << scale;
        if hot.flags.contains(ConnFlags::SHARED_WINDOW) {
            let field = hot.rcv_space.min(largest) >> scale;
            hot.rcv_edge = hot.rcv_edge.max(hot.rcv_nxt + (field << scale));
            return field as u16;
        }
        let shown = hot.rcv_edge.saturating_distance_from(hot.rcv_nxt);
        let space = hot.rcv_space.min(largest);
        let mss = u32::from(hot.snd_mss);
        let step = mss.min(space / 2).max(1);
        let field = if space >= shown.saturating_add(step) {
            (space >> scale).max(shown.div_ceil(1 << scale))
        } else {
            shown.div_ceil(1 << scale)
        };
        let field = field.min(0xffff);
        hot.rcv_edge = hot.rcv_edge.max(hot.rcv_nxt + (field << scale));
        field as u16
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
            hot.ack_at = now + super::config::DELAYED_ACK;
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
