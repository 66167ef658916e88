//! Packet trains: segments of one connection that differ from the one before in their numbers and payload only.
//!
//! What the segment before has made sure of holds for the next as well, so each costs what is its own and no more. The verbs
//! here do what [`Conn::poll_transmit_into`] does with such a segment; for any other they leave everything as it is and say
//! so.

use super::State;
use super::conn::{Conn, ConnFlags};
use crate::env::Env;
use crate::segment::TxFlags;
use crate::time::Instant;
use crate::wire::{Ecn, Outgoing, PayloadOut, SegmentIn, TcpFlags};

/// With one of these what is sent next is not simply new data.
const TURNS: ConnFlags = ConnFlags::RESET_QUEUED
    .union(ConnFlags::HELD)
    .union(ConnFlags::SYN_QUEUED)
    .union(ConnFlags::TAIL_PROBE)
    .union(ConnFlags::RECOVERY)
    .union(ConnFlags::LOSS)
    .union(ConnFlags::PACED)
    .union(ConnFlags::MODEL)
    .union(ConnFlags::CWR_DUE)
    .union(ConnFlags::ECHO_MARK)
    .union(ConnFlags::IN_ORDER)
    .union(ConnFlags::ACK_NOW);

impl Conn<'_> {
    /// True for a data segment of a train that [`Conn::take_train`] may take. The segment before it in the train was accepted
    /// at the same time and had the same acknowledgment number, window and timestamps. Whatever came in between has not made
    /// those timestamps old (RFC 7323 §5.3): it lies beyond the last ACK that was sent, and so moves TS.Recent no more.
    #[inline]
    pub fn takes_train(&self, segment: &SegmentIn) -> bool {
        let hot = &*self.hot;
        hot.state == State::Established
            && segment.seq == hot.rcv_nxt
            && segment.ack == hot.snd_una
            && segment.ecn != Ecn::Ce
            && self.cold.ooo.is_quiet()
            && u32::from(segment.payload_len) <= self.receive_edge().saturating_distance_from(segment.seq)
            && segment.seq.after(hot.snd_wl1)
            && segment.ack == hot.snd_wl2
            && u32::from(segment.window) << hot.snd_scale == hot.snd_wnd
    }

    /// Takes the payload of a segment for which [`Conn::takes_train`] is true.
    #[inline]
    pub fn take_train(&mut self, now: Instant, segment: &SegmentIn) {
        let Self { hot, cold } = self;
        let len = u32::from(segment.payload_len);
        hot.snd_wl1 = segment.seq;
        hot.rcv_nxt = segment.seq + len;
        hot.unacked = hot.unacked.saturating_add(1);
        cold.bytes_received += u64::from(len);
        if !hot.flags.contains(ConnFlags::SHARED_WINDOW) {
            hot.rcv_space = hot.rcv_space.saturating_sub(len);
        }
        self.measure_as_receiver(now, segment);
        if !self.hot.flags.contains(ConnFlags::ACK_NOW) {
            self.schedule_ack(now);
        }
    }

    /// The next segment of a train. `out` still is what this connection sent last, at the same time and as new data, but
    /// for its payload, which was taken; nothing else has happened to the connection since. False when the next segment is
    /// another kind, or there is none: [`Conn::poll_transmit_into`] tells, and `out` is as it was.
    #[inline]
    pub fn poll_train(&mut self, now: Instant, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        if self.hot.flags.intersects(TURNS) || self.cold.ring.lost > 0 || out.flags.contains(TcpFlags::CWR) {
            return false;
        }
        let in_flight = self.in_flight_bytes();
        let Some(segment) = self.cold.ring.get(self.cold.ring.sent_len()) else { return false };
        let (seq, len) = (segment.seq, segment.len);
        let fits = len <= self.hot.smss
            && in_flight > 0
            && in_flight + u32::from(len) <= self.hot.cwnd
            && self.fit_peer_window(seq, len, in_flight) == len
            && segment.flags.contains(TxFlags::MAPPED) == out.mapped;
        if !fits {
            return false;
        }
        let end = segment.end();
        out.payload =
            Some(PayloadOut { frame: env.pool.share(&segment.frame), offset: segment.offset, len, sum: segment.sum });
        out.seq = seq;
        out.dsn = segment.dsn;
        out.flags.set(TcpFlags::PSH, end == self.hot.snd_end);
        self.cold.ring.mark_sent(now, in_flight);
        self.hot.snd_nxt = self.hot.snd_nxt.max(end);
        true
    }
}
