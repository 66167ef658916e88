//! Reception: hand-off in order, a bounded out-of-order queue, SACK blocks (RFC 2018, RFC 2883).

use arrayvec::ArrayVec;

use super::config::SACK_MEMORY;
use super::conn::{Conn, ConnFlags};
use super::{Outcome, State};
use crate::counters::Counter;
use crate::env::Env;
use crate::frame::FrameId;
use crate::limits::COALESCED;
use crate::options::{SackBlock, SackBlocks};
use crate::ring::Ring;
use crate::segment::{RxQueue, RxSegment};
use crate::seq::SeqNum;
use crate::wire::{SegmentIn, TcpFlags};

/// Segments of at most so many bytes are copied behind their neighbour.
const SMALL: u16 = 256;

/// Most acknowledgments that one batch of segments beyond a gap is answered with, for peers that count duplicates: three
/// show the loss, the others that segments leave the network.
const MAX_ACKS_DUE: u8 = 16;

/// Segments beyond a gap, in sequence order and without overlap.
#[derive(Debug, Default)]
pub(super) struct OutOfOrder {
    ring: Ring<RxSegment>,
    /// Blocks to report, most recent first.
    blocks: ArrayVec<SackBlock, SACK_MEMORY>,
    /// So many of them, from the first, have changed since they were last reported.
    news: u8,
    /// A duplicate to report once, before all blocks.
    duplicate: Option<SackBlock>,
    /// Where the peer's FIN stands, once it was seen.
    fin_at: Option<SeqNum>,
}

impl OutOfOrder {
    /// Frames in the queue.
    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }

    /// True when nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// True when nothing waits and no FIN was seen.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        self.ring.is_empty() && self.fin_at.is_none()
    }

    /// Shows the frame of each segment.
    pub(super) fn frames(&self, visit: &mut dyn FnMut(&FrameId)) {
        self.ring.iter().for_each(|segment| visit(&segment.frame));
    }

    /// Releases everything.
    pub(super) fn clear(&mut self, env: &mut Env<'_>) {
        while let Some(segment) = self.ring.pop_front(env.rx_rings) {
            env.pool.release(segment.frame);
        }
        self.blocks.clear();
        self.news = 0;
    }

    /// True when an ACK has anything to report.
    #[inline]
    pub(super) fn has_report(&self) -> bool {
        !self.blocks.is_empty() || self.duplicate.is_some()
    }

    /// True when blocks have changed that no ACK has reported yet.
    pub(super) fn has_news(&self) -> bool {
        self.news > 0
    }

    /// The blocks of the next ACK, at most `room`: a duplicate first, with the block that it lies in behind it (RFC 2883
    /// §4), then the most recent ones. When more have changed than fit, the older of them go first and the next ACK has
    /// the others, as if each segment had been answered on its own.
    pub(super) fn take_blocks(&mut self, room: usize) -> SackBlocks {
        let mut report = SackBlocks::new();
        report.extend(self.duplicate.take());
        let around =
            report.first().and_then(|duplicate| self.blocks.iter().find(|block| holds(block, duplicate)).copied());
        report.extend(around.filter(|_| room > 1));
        let left = room.saturating_sub(report.len());
        let from = usize::from(self.news).saturating_sub(left);
        for block in self.blocks.iter().skip(from) {
            if report.len() < room.min(report.capacity()) && around != Some(*block) {
                report.push(*block);
            }
        }
        self.news = if left == 0 { self.news } else { from as u8 };
        report
    }

    fn remember(&mut self, start: SeqNum, end: SeqNum) {
        let mut merged = SackBlock { start, end };
        let mut index = 0;
        let mut news = self.news;
        self.blocks.retain(|block| {
            let apart = block.end.before(merged.start) || merged.end.before(block.start);
            if !apart {
                merged = SackBlock { start: merged.start.min(block.start), end: merged.end.max(block.end) };
                news -= u8::from(index < self.news);
            }
            index += 1;
            apart
        });
        if self.blocks.is_full() {
            self.blocks.pop();
        }
        self.blocks.insert(0, merged);
        self.news = (news + 1).min(self.blocks.len() as u8);
    }

    /// Forgets what lies before `rcv_nxt`.
    fn forget_before(&mut self, rcv_nxt: SeqNum) {
        self.blocks.retain(|block| block.end.after(rcv_nxt));
        self.news = self.news.min(self.blocks.len() as u8);
    }

    /// Puts a segment in its place, without what is there already. What is there wins: it may have been reported.
    fn insert(&mut self, mut segment: RxSegment, env: &mut Env<'_>) -> bool {
        let index = self.ring.partition_point(|held| held.seq.at_or_before(segment.seq));
        let (start, end) = (segment.seq, segment.end());
        if let Some(before) = index.checked_sub(1).and_then(|before| self.ring.get(before)) {
            let covered = before.end().saturating_distance_from(segment.seq);
            if covered > 0 {
                // RFC 2883 §4.2.1: the first run of data that was there already.
                self.duplicate = Some(SackBlock { start, end: before.end().min(end) });
            }
            if !trim_head(&mut segment, covered, env) {
                env.pool.release(segment.frame);
                return false;
            }
        }
        if self.append_small(index, &segment, env) {
            env.pool.release(segment.frame);
            return true;
        }
        // Segments that the new one covers whole give way; one that it only touches cuts its tail.
        while let Some(next) = self.ring.get(index) {
            if next.seq.before(end) {
                self.duplicate.get_or_insert(SackBlock { start: next.seq, end: next.end().min(end) });
            }
            if next.end().after(segment.end()) {
                let keep = next.seq.saturating_distance_from(segment.seq);
                trim_tail(&mut segment, keep, env);
                break;
            }
            if let Some(covered) = self.ring.remove(index, env.rx_rings) {
                env.pool.release(covered.frame);
            }
        }
        if segment.len == 0 {
            env.pool.release(segment.frame);
            return false;
        }
        self.remember(segment.seq, segment.end());
        self.ring.insert(index, segment, env.rx_rings);
        true
    }

    /// Copies a small segment behind the one before it, so that a peer that sends single bytes beyond a gap fills frames.
    fn append_small(&mut self, index: usize, segment: &RxSegment, env: &mut Env<'_>) -> bool {
        let overlaps = self.ring.get(index).is_some_and(|next| next.seq.before(segment.end()));
        if segment.len > SMALL || overlaps {
            return false;
        }
        let Some(before) = index.checked_sub(1).and_then(|before| self.ring.get_mut(before)) else { return false };
        let fits = before.end() == segment.seq && before.absorb(segment, COALESCED, env.pool);
        if fits {
            env.counters.inc(Counter::TcpCoalesced);
            self.remember(segment.seq, segment.end());
        }
        fits
    }

    /// RFC 2018 §8: the highest segment is given up to make room, and no longer reported.
    fn evict_highest(&mut self, env: &mut Env<'_>) {
        let Some(segment) = self.ring.pop_back(env.rx_rings) else { return };
        env.counters.inc(Counter::TcpReneged);
        let start = segment.seq;
        env.pool.release(segment.frame);
        for block in &mut self.blocks {
            block.end = block.end.min(start);
        }
        self.blocks.retain(|block| block.start.before(block.end));
        self.news = self.news.min(self.blocks.len() as u8);
    }
}

/// True when `block` has all of `part`.
fn holds(block: &SackBlock, part: &SackBlock) -> bool {
    block.start.at_or_before(part.start) && block.end.at_or_after(part.end)
}

/// Takes `cut` bytes off the segment's head; false when nothing is left of it.
fn trim_head(segment: &mut RxSegment, cut: u32, env: &mut Env<'_>) -> bool {
    if cut == 0 {
        return true;
    }
    if cut >= u32::from(segment.len) {
        return false;
    }
    segment.seq += cut;
    segment.offset += cut as u16;
    segment.len -= cut as u16;
    resum(segment, env);
    true
}

/// Cuts the segment after `keep` bytes.
fn trim_tail(segment: &mut RxSegment, keep: u32, env: &mut Env<'_>) {
    if keep < u32::from(segment.len) {
        segment.len = keep as u16;
        resum(segment, env);
    }
}

fn resum(segment: &mut RxSegment, env: &mut Env<'_>) {
    let start = usize::from(segment.offset);
    let bytes = env.pool.bytes(&segment.frame).get(start..start + usize::from(segment.len)).unwrap_or_default();
    segment.sum = crate::checksum::sum(bytes);
}

impl Conn<'_> {
    /// Takes the payload and FIN of an acceptable segment.
    pub(super) fn receive(
        &mut self,
        segment: &SegmentIn,
        frame: Option<FrameId>,
        out: &mut RxQueue,
        env: &mut Env<'_>,
    ) -> Outcome {
        let mut outcome = Outcome::empty();
        if !self.hot.state.may_receive() {
            // The peer has ended its direction: whatever comes is old.
            if segment.seq_len() > 0 {
                self.hot.flags |= ConnFlags::ACK_NOW;
            }
            if let Some(frame) = frame {
                env.pool.release(frame);
            }
            return outcome;
        }
        if segment.flags.contains(TcpFlags::FIN) {
            self.cold.ooo.fin_at = Some(segment.seq + u32::from(segment.payload_len));
        }
        if let Some(frame) = frame {
            outcome |= self.receive_payload(segment, frame, out, env);
        }
        if self.cold.ooo.fin_at == Some(self.hot.rcv_nxt) {
            outcome |= self.receive_fin();
        }
        outcome
    }

    fn receive_payload(
        &mut self,
        segment: &SegmentIn,
        frame: FrameId,
        out: &mut RxQueue,
        env: &mut Env<'_>,
    ) -> Outcome {
        let mut rx = RxSegment::of(segment, frame);
        let old = self.hot.rcv_nxt.saturating_distance_from(rx.seq);
        if old > 0 {
            let seen = SackBlock { start: rx.seq, end: rx.seq + old.min(u32::from(rx.len)) };
            self.cold.ooo.duplicate = Some(seen);
            self.hot.flags |= ConnFlags::ACK_NOW;
            if !trim_head(&mut rx, old, env) {
                env.counters.inc(Counter::TcpDuplicates);
                env.pool.release(rx.frame);
                return Outcome::empty();
            }
        }
        let room = self.receive_edge().saturating_distance_from(rx.seq);
        trim_tail(&mut rx, room, env);
        if rx.len == 0 {
            self.hot.flags |= ConnFlags::ACK_NOW;
            env.counters.inc(Counter::TcpOutOfWindow);
            env.pool.release(rx.frame);
            return Outcome::empty();
        }
        if rx.seq != self.hot.rcv_nxt {
            self.keep_out_of_order(rx, env);
            return Outcome::empty();
        }
        self.deliver(rx, out, env);
        Outcome::DATA
    }

    fn keep_out_of_order(&mut self, rx: RxSegment, env: &mut Env<'_>) {
        env.counters.inc(Counter::TcpOutOfOrder);
        // RFC 5681 §4.2: a segment beyond a gap is acknowledged at once.
        self.hot.flags |= ConnFlags::ACK_NOW;
        if !self.hot.flags.contains(ConnFlags::SACK) {
            self.hot.acks_due = (self.hot.acks_due + 1).min(MAX_ACKS_DUE);
        }
        let ooo = &mut self.cold.ooo;
        if ooo.len() >= usize::from(self.cold.config.max_ooo_frames) || env.pool.available() == 0 {
            if ooo.ring.back().is_some_and(|last| rx.seq.before(last.seq)) {
                ooo.evict_highest(env);
            } else {
                env.counters.inc(Counter::TcpNoBuffer);
                return env.pool.release(rx.frame);
            }
        }
        if !ooo.insert(rx, env) {
            env.counters.inc(Counter::TcpDuplicates);
        }
    }

    /// Hands `rx`, which is next in order, out, and everything that waited for it.
    #[inline]
    pub(super) fn deliver(&mut self, rx: RxSegment, out: &mut RxQueue, env: &mut Env<'_>) {
        let Self { hot, cold } = self;
        let before = hot.rcv_nxt;
        hot.rcv_nxt = rx.end();
        out.push_back(rx);
        hot.unacked = hot.unacked.saturating_add(1);
        if !cold.ooo.is_empty() {
            // RFC 5681 §4.2: a segment that fills a gap is acknowledged at once.
            hot.flags |= ConnFlags::ACK_NOW;
            if env.pool.available() == 0 {
                // What is next in order is always taken; the highest beyond the gap makes room for it.
                cold.ooo.evict_highest(env);
            }
            while cold.ooo.ring.front().is_some_and(|next| next.seq.at_or_before(hot.rcv_nxt)) {
                let Some(mut next) = cold.ooo.ring.pop_front(env.rx_rings) else { break };
                let covered = hot.rcv_nxt.saturating_distance_from(next.seq);
                if trim_head(&mut next, covered, env) {
                    hot.rcv_nxt = next.end();
                    out.push_back(next);
                } else {
                    env.pool.release(next.frame);
                }
            }
            cold.ooo.forget_before(hot.rcv_nxt);
        }
        cold.bytes_received += u64::from(hot.rcv_nxt.distance_from(before));
        // What was delivered is the owner's now; until it says otherwise the window shrinks by it.
        if !hot.flags.contains(ConnFlags::SHARED_WINDOW) {
            hot.rcv_space = hot.rcv_space.saturating_sub(hot.rcv_nxt.distance_from(before));
        }
    }

    fn receive_fin(&mut self) -> Outcome {
        let hot = &mut *self.hot;
        hot.rcv_nxt += 1;
        hot.flags |= ConnFlags::FIN_RECEIVED | ConnFlags::ACK_NOW;
        // RFC 9293 §3.10.7.4, eighth step, with erratum 8805.
        hot.state = match hot.state {
            State::Established => State::CloseWait,
            State::FinWait1 => State::Closing,
            _ => State::TimeWait,
        };
        self.cold.ooo.fin_at = None;
        Outcome::FIN
    }

    /// The last sequence number, exclusive, that is accepted.
    pub(super) fn receive_edge(&self) -> SeqNum {
        if self.hot.flags.contains(ConnFlags::SHARED_WINDOW) {
            // RFC 8684 §3.3.1: the window belongs to the data level, which checks it there.
            let shared = self.hot.rcv_nxt + self.hot.rcv_space.max(self.largest_window());
            return shared.max(self.hot.rcv_edge);
        }
        self.hot.rcv_edge
    }
}

impl Conn<'_> {
    /// Gives up the highest segment beyond a gap if it lies beyond `seq` (RFC 2018 §8). For an owner that keeps several
    /// connections within one limit.
    pub fn give_up_beyond(&mut self, seq: SeqNum, env: &mut Env<'_>) -> bool {
        let ooo = &mut self.cold.ooo;
        let beyond = ooo.ring.back().is_some_and(|last| seq.before(last.seq));
        if beyond {
            ooo.evict_highest(env);
        }
        beyond
    }

    /// A segment of old data only: the next ACK reports it (RFC 2883 §4.1).
    pub(super) fn report_duplicate(&mut self, segment: &SegmentIn) {
        let len = u32::from(segment.payload_len);
        if len > 0 {
            self.cold.ooo.duplicate = Some(SackBlock { start: segment.seq, end: segment.seq + len });
        }
    }
}

#[cfg(test)]
mod tests;
