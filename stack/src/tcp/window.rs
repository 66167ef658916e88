//! Windows: what the peer's lets out, what ours shows, and how much of the congestion window may be believed.

use super::Outcome;
use super::cc::CcEvent;
use super::conn::{Conn, ConnFlags, TimerKind};
use crate::time::{Duration, Instant};
use crate::wire::{SegmentIn, TcpFlags};

impl Conn<'_> {
    /// RFC 9293 §3.10.7.4: the window of the newest segment counts. What acknowledges more is newer too, though it be sent
    /// again and have an old sequence number: a new SND.UNA with an old window would show an edge that there never was.
    pub(super) fn take_window(&mut self, now: Instant, segment: &SegmentIn) -> Outcome {
        let hot = &mut *self.hot;
        let newer = segment.seq.after(hot.snd_wl1)
            || segment.seq == hot.snd_wl1 && segment.ack == hot.snd_wl2
            || segment.ack.after(hot.snd_wl2);
        if !newer {
            return Outcome::empty();
        }
        // RFC 7323 §2.2: the window of a SYN is never scaled.
        let scale = if segment.flags.contains(TcpFlags::SYN) { 0 } else { hot.snd_scale };
        let window = u32::from(segment.window) << scale;
        hot.snd_wl1 = hot.snd_wl1.max(segment.seq);
        hot.snd_wl2 = hot.snd_wl2.max(segment.ack);
        if window == hot.snd_wnd {
            return Outcome::empty();
        }
        let opened = hot.snd_wnd == 0;
        hot.snd_wnd = window;
        if opened {
            self.on_window_opened(now);
        }
        self.cold.probes = 0;
        if self.cold.timer == TimerKind::Persist {
            self.hot.rto_at = Instant::MAX;
        }
        Outcome::WINDOW
    }

    /// RFC 9293 §3.8.6.1: while the window was closed the peer's answers were progress enough, so that only now it has to
    /// acknowledge what waits. What was sent into the closed window was thrown away: it goes again at once, not when a timer
    /// fires that backed off while nothing could arrive.
    #[cold]
    fn on_window_opened(&mut self, now: Instant) {
        self.cold.progress_at = now;
        let backed_off = self.cold.timer == TimerKind::Retransmit && self.cold.rtt.backoff > 0;
        if backed_off && self.hot.rto_at != Instant::MAX {
            self.cold.rtt.backoff = 0;
            self.hot.rto_at = now;
        }
    }

    /// True when the peer's window takes a full segment of new data.
    pub(super) fn peer_takes_more(&self) -> bool {
        let edge = self.hot.snd_una + self.hot.snd_wnd;
        self.hot.flags.contains(ConnFlags::SHARED_WINDOW)
            || edge.saturating_distance_from(self.hot.snd_nxt) >= u32::from(self.hot.smss)
    }

    /// How much of a segment of `len` bytes at the right end of what was sent the peer's window takes; zero for nothing
    /// now. RFC 9293 §3.8.6.2.1: part of a segment goes only when nothing else is under way, or the part is large.
    pub(super) fn fit_peer_window(&self, seq: crate::seq::SeqNum, len: u16, in_flight: u32) -> u16 {
        if self.hot.flags.contains(ConnFlags::SHARED_WINDOW) {
            return len;
        }
        let edge = self.hot.snd_una + self.hot.snd_wnd;
        let room = edge.saturating_distance_from(seq);
        if room >= u32::from(len) {
            return len;
        }
        let large = room >= u32::from(self.hot.smss / 2);
        if room > 0 && (in_flight == 0 || large) { room as u16 } else { 0 }
    }

    /// RFC 7661 §4.3, or the like: remembers how much of the window the last round trip used. `flight` is what was out
    /// before the acknowledgment that is being looked at.
    #[inline]
    pub(super) fn validate_cwnd(&mut self, flight: u32) {
        let hot = &mut *self.hot;
        // A layer above that hands out no more than the window takes leaves less than a segment of it.
        let full = flight.saturating_add(u32::from(hot.smss)) >= hot.cwnd;
        let limited = full || hot.flags.contains(ConnFlags::CWND_LIMITED);
        let was_limited = hot.flags.contains(ConnFlags::CWND_WAS_LIMITED);
        if limited || hot.snd_una.at_or_after(hot.usage_end) || !was_limited && flight > hot.max_flight {
            hot.flags.set(ConnFlags::CWND_WAS_LIMITED, limited);
            hot.max_flight = flight;
            hot.usage_end = hot.snd_nxt;
        }
    }

    /// True when the window was used, so that more of it may be asked for (RFC 9438 §5.8, RFC 5681 §3.1 by way of RFC
    /// 7661): in slow start by half, else wholly.
    #[inline]
    pub(super) fn window_was_used(&self) -> bool {
        let hot = &*self.hot;
        hot.flags.intersects(ConnFlags::CWND_WAS_LIMITED | ConnFlags::LOSS)
            || hot.cwnd < self.cold.cc.ssthresh && hot.cwnd / 2 < hot.max_flight
    }

    /// RFC 5681 §4.1, gently as RFC 7661 §4.4 allows: the window halves for each timeout's time of silence, down to the
    /// initial one, and slow start may win it back.
    #[cold]
    pub(super) fn restart_after_idle(&mut self, idle: Duration) {
        if self.hot.flags.contains(ConnFlags::MODEL) {
            // The pace of the model is what it was, and paced data makes no burst.
            return;
        }
        let rto = self.cold.rtt.rto(&self.cold.config);
        let restart = self.initial_window().min(self.hot.cwnd);
        let cc = &mut self.cold.cc;
        cc.ssthresh = cc.ssthresh.max(self.hot.cwnd / 4 * 3);
        let halvings = (idle.as_micros() / rto.as_micros().max(1)).min(31);
        self.hot.cwnd = (self.hot.cwnd >> halvings).max(restart);
        self.hot.round_end = self.hot.snd_nxt;
        cc.on_event(CcEvent::Idle(idle));
    }

    /// RFC 6928 §2: ten segments, unless they are large; with another number of segments in the same proportion.
    pub(super) fn initial_window(&self) -> u32 {
        let (mss, segments) = (u32::from(self.hot.smss), u32::from(self.cold.config.initial_cwnd));
        (segments * mss).min((2 * mss).max(segments * 1_460))
    }

    /// Says how many bytes beyond `rcv_nxt` the owner takes now. The edge that the peer was shown stays. True when an
    /// acknowledgment is to be sent, which shows more.
    pub fn set_receive_space(&mut self, bytes: u32) -> bool {
        self.hot.rcv_space = bytes;
        // As the field can say it: what its scale cannot show is nothing to tell.
        let scale = u32::from(self.hot.rcv_scale);
        let edge = self.hot.rcv_nxt + (bytes.min(self.largest_window()) >> scale << scale);
        let opened = edge.saturating_distance_from(self.hot.rcv_edge);
        // RFC 9293 §3.8.6.2.2: a window update is worth a packet once it opens by two segments, or by one
        // where there was no room for one.
        let left = self.hot.rcv_edge.saturating_distance_from(self.hot.rcv_nxt);
        let mss = u32::from(self.hot.smss);
        let wide = opened >= (2 * mss).max(left / 2) && opened > 0 && left < bytes / 2;
        let from_nothing = left < mss && opened >= mss;
        if (wide || from_nothing) && self.hot.state.may_receive() {
            self.hot.flags |= ConnFlags::ACK_NOW;
        }
        self.hot.flags.contains(ConnFlags::ACK_NOW)
    }

    /// MPTCP: the window to advertise as it is; the data level keeps its edge, and the peer's window is its affair too.
    pub fn set_shared_window(&mut self, bytes: u32) {
        self.hot.flags |= ConnFlags::SHARED_WINDOW;
        self.hot.rcv_space = bytes;
    }

    /// MPTCP has fallen back: both windows are the connection's own again. The edge that the peer was shown stays.
    pub fn take_window_back(&mut self) {
        self.hot.flags.remove(ConnFlags::SHARED_WINDOW);
        self.hot.rcv_space = self.hot.rcv_edge.saturating_distance_from(self.hot.rcv_nxt);
    }

    /// The largest window that the header's field can say.
    pub(super) fn largest_window(&self) -> u32 {
        0xffff << self.hot.rcv_scale
    }

    /// The window field, and the edge that it shows the peer (RFC 9293 §3.8.6.2.2: never moved left, nor by crumbs).
    pub(super) fn window_field(&mut self) -> u16 {
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
        let mss = u32::from(hot.smss);
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
}
