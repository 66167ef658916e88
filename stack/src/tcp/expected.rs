//! Header prediction: the short way of the segment that an open connection expects.
//!
//! Of the checks in RFC 9293 §3.10.7.4 none has anything to say about a segment that begins with the next byte expected,
//! has no flag but ACK and PSH, acknowledges nothing but what is out, and fits the window whole. [`Conn::expects`]
//! recognises it by a few comparisons; what is left to be done is the same as for any other, and in the same order.

use super::conn::{Conn, ConnFlags};
use super::{Outcome, State};
use crate::env::Env;
use crate::frame::FrameId;
use crate::segment::{RxQueue, RxSegment};
use crate::time::Instant;
use crate::wire::{Ecn, SegmentIn, TcpFlags};

impl Conn<'_> {
    /// True for a segment that every step of [`Conn::on_segment`] before the acknowledgment lets through.
    #[inline]
    pub(super) fn expects(&self, segment: &SegmentIn, has_frame: bool) -> bool {
        let hot = &*self.hot;
        let fresh = match segment.options.timestamps {
            Some(ts) if hot.flags.contains(ConnFlags::TIMESTAMPS) => ts.value.wrapping_sub(hot.ts_recent) as i32 >= 0,
            _ => true,
        };
        hot.state == State::Established
            && segment.flags.difference(TcpFlags::PSH) == TcpFlags::ACK
            && segment.ecn != Ecn::Ce
            && segment.seq == hot.rcv_nxt
            && segment.ack.distance_from(hot.snd_una) <= hot.snd_nxt.distance_from(hot.snd_una)
            && fresh
            && has_frame == (segment.payload_len > 0)
            && self.cold.ooo.is_quiet()
            && u32::from(segment.payload_len) <= self.receive_edge().saturating_distance_from(segment.seq)
    }

    /// Takes a segment that [`Conn::expects`] has let through.
    #[inline]
    pub(super) fn on_expected(
        &mut self,
        now: Instant,
        segment: &SegmentIn,
        frame: Option<FrameId>,
        out: &mut RxQueue,
        env: &mut Env<'_>,
    ) -> Outcome {
        self.take_timestamp(now, segment);
        self.hear(now, env);
        let mut outcome = Outcome::ACCEPTED;
        let only_data = frame.is_some() && segment.ack == self.hot.snd_una && segment.options.sack.is_empty();
        outcome |= if only_data { self.take_window(now, segment) } else { self.on_acknowledgment(now, segment, env) };
        if let Some(frame) = frame {
            self.deliver(RxSegment::of(segment, frame), out, env);
            outcome |= Outcome::DATA;
            self.measure_as_receiver(now, segment);
        }
        if self.hot.unacked > 0 || self.hot.flags.contains(ConnFlags::ACK_NOW) {
            self.schedule_ack(now);
        }
        self.arm(now);
        outcome
    }
}
