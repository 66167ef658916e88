//! The send ring, which is also the scoreboard: unsent, in flight, sacked, lost, sent again.

use arrayvec::ArrayVec;

use super::cc::RateEstimator;
use crate::checksum;
use crate::env::Env;
use crate::frame::FrameId;
use crate::limits::COALESCE_FROM;
use crate::options::SackBlock;
use crate::ring::Ring;
use crate::segment::{TxFlags, TxSegment};
use crate::seq::SeqNum;
use crate::time::Instant;

/// What two segments must have in common to become one.
const STATE: TxFlags = TxFlags::SENT.union(TxFlags::SACKED).union(TxFlags::LOST).union(TxFlags::MAPPED);

/// What the peer or loss detection had to say of a segment.
const TOLD: TxFlags = TxFlags::SACKED.union(TxFlags::LOST).union(TxFlags::RETRANSMITTED);

/// Segments from `snd_una` to the end of what is queued, in sequence order.
#[derive(Debug, Default)]
pub(super) struct SendRing {
    ring: Ring<TxSegment>,
    /// Segments from the front that were sent at least once.
    sent: u32,
    /// Bytes queued and not sent.
    pub unsent: u32,
    /// Bytes that the peer reported by SACK; without SACK, what its duplicate ACKs stand for.
    pub sacked: u32,
    /// Segments that the peer reported by SACK.
    pub sacked_segments: u32,
    /// Bytes given up and not sent again yet.
    pub lost: u32,
    /// No segment before this index is lost.
    lost_hint: u32,
    /// RFC 8985 §6.2 step 3: the highest sequence number known to have arrived.
    fack: SeqNum,
    /// The blocks of the last ACK that had any: what they cover need not be looked at again.
    reported: ArrayVec<SackBlock, 4>,
    /// So many segments are put together, if they are nearly empty, when there are as many.
    compact_at: u32,
    /// Delivery rates, where a model asks for them.
    pub rates: Option<Box<RateEstimator>>,
}

/// What an acknowledgment freed.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Freed {
    /// Bytes that were not known to have arrived before.
    pub bytes: u32,
    /// When the latest segment among them that was sent only once was sent.
    pub sent_us: Option<u32>,
    /// The latest transmission that is believed to have arrived, and the segment's end.
    pub newest: Option<(u32, SeqNum)>,
    /// A segment that had been sent again is among them.
    pub retransmitted: bool,
    /// A segment that was sent only once arrived after a later one.
    pub reordered: bool,
    /// The end of the first segment among them that was sent only once.
    pub original: Option<SeqNum>,
    /// The largest payload among them.
    pub largest: u16,
    now: Instant,
    min_rtt_us: u32,
    /// How old the transmission is that the peer's timestamp echoes.
    echo_age_us: Option<u32>,
}

impl Freed {
    /// Nothing yet. `min_rtt_us` and the age of the echoed timestamp tell a retransmission that arrived from an original
    /// that only came late.
    pub(super) fn new(now: Instant, min_rtt_us: u32, echo_age_us: Option<u32>) -> Self {
        Self { now, min_rtt_us, echo_age_us, ..Self::default() }
    }

    /// What follows arrived beyond a gap: the peer's timestamp echoes what came before that (RFC 7323 §4.3), and tells nothing
    /// of these segments.
    pub(super) fn disregard_echo(&mut self) {
        self.echo_age_us = None;
    }

    #[inline]
    fn note(&mut self, segment: &TxSegment, fack: SeqNum) {
        self.largest = self.largest.max(segment.len);
        if segment.flags.contains(TxFlags::RETRANSMITTED) {
            self.retransmitted = true;
            if !self.believes(segment) {
                return;
            }
        } else {
            self.sent_us = Some(segment.sent_us);
            self.reordered |= segment.end().before(fack);
            self.original.get_or_insert(segment.end());
        }
        let newer = |held: (u32, SeqNum)| (segment.sent_us.wrapping_sub(held.0) as i32) >= 0;
        if self.newest.is_none_or(newer) {
            self.newest = Some((segment.sent_us, segment.end()));
        }
    }

    /// RFC 8985 §6.2 step 2: a retransmission that would have been faster than ever, or that the peer's timestamp does
    /// not know of, is not what arrived.
    #[cold]
    fn believes(&self, segment: &TxSegment) -> bool {
        let age = (self.now.as_micros() as u32).wrapping_sub(segment.sent_us);
        age >= self.min_rtt_us && self.echo_age_us.is_none_or(|echo| echo <= age.saturating_add(TIMESTAMP_TICK_US))
    }
}

/// Frames are short when less than this part of all is left for payload.
const SHORT_SHARE: u32 = 16;

/// Timestamps count milliseconds, and two clocks are cut off: so much they may be off.
const TIMESTAMP_TICK_US: u32 = 2_000;

impl SendRing {
    /// An empty ring of a connection that starts at `iss`.
    pub(super) fn new(iss: SeqNum, rates: Option<Box<RateEstimator>>) -> Self {
        Self { fack: iss, rates, ..Self::default() }
    }

    /// Segments in the ring.
    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }

    /// True when nothing is queued or in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Segments that were sent at least once.
    pub(super) fn sent_len(&self) -> usize {
        self.sent as usize
    }

    /// The segment at `index`.
    pub(super) fn get(&self, index: usize) -> Option<&TxSegment> {
        self.ring.get(index)
    }

    /// Queues a segment behind all others.
    pub(super) fn push(&mut self, segment: TxSegment, env: &mut Env<'_>) {
        self.unsent += u32::from(segment.len);
        self.ring.push_back(segment, env.tx_rings);
    }

    /// Queues a small segment: behind the last one that is not sent yet, in its frame, if there is room there. Where the
    /// ring is long and nearly empty, neighbours are put together. The number of frames that this saved.
    #[cold]
    pub(super) fn push_small(&mut self, segment: TxSegment, limit: u16, env: &mut Env<'_>) -> u32 {
        let unsent = self.ring.len() > self.sent as usize;
        let len = u32::from(segment.len);
        if let Some(last) = self.ring.back_mut().filter(|_| unsent)
            && last.absorb(&segment, limit, env.pool)
        {
            self.unsent += len;
            env.pool.release(segment.frame);
            return 1;
        }
        self.push(segment, env);
        let before = self.ring.len() as u32;
        if before < self.compact_at.max(COALESCE_FROM) || !self.is_thin(limit, env) {
            return 0;
        }
        self.compact(limit, env);
        let left = self.ring.len() as u32;
        self.compact_at = left + left / 4;
        before - left
    }

    /// DESIGN: a queue whose payload fills less than a quarter of its frames, or half when frames are short.
    fn is_thin(&self, limit: u16, env: &Env<'_>) -> bool {
        let bytes = self.ring.iter().map(|segment| u64::from(segment.len)).sum::<u64>();
        let room = self.ring.len() as u64 * u64::from(limit);
        let short = env.pool.available() < env.pool.total() / SHORT_SHARE;
        bytes * 4 < room || short && bytes * 2 < room
    }

    /// Puts neighbours together that fit one segment of `limit` bytes and are in the same state.
    fn compact(&mut self, limit: u16, env: &mut Env<'_>) {
        let before = self.ring.len();
        let mut held: Option<TxSegment> = None;
        let mut kept = 0;
        for _ in 0..before {
            let Some(next) = self.ring.pop_front(env.tx_rings) else { break };
            let same = held.as_ref().is_some_and(|held| (held.flags ^ next.flags).intersection(STATE).is_empty());
            if let Some(into) = held.as_mut().filter(|_| same)
                && into.absorb(&next, limit, env.pool)
            {
                if next.flags.contains(TxFlags::SENT) {
                    self.sent -= 1;
                    self.sacked_segments -= u32::from(next.flags.contains(TxFlags::SACKED));
                    if let Some(rates) = &mut self.rates {
                        rates.on_merged(kept);
                    }
                }
                env.pool.release(next.frame);
                continue;
            }
            if let Some(done) = held.replace(next) {
                self.ring.push_back(done, env.tx_rings);
            }
            kept += 1;
        }
        if let Some(done) = held {
            self.ring.push_back(done, env.tx_rings);
        }
        self.lost_hint = 0;
    }

    /// Marks the first unsent segment as sent at `now`, with `in_flight` bytes out before it.
    #[inline]
    pub(super) fn mark_sent(&mut self, now: Instant, in_flight: u32) {
        let Some(segment) = self.ring.get_mut(self.sent as usize) else { return };
        if let Some(rates) = &mut self.rates {
            rates.on_sent(now, in_flight, u32::from(segment.len));
        }
        segment.flags |= TxFlags::SENT;
        segment.sent_us = now.as_micros() as u32;
        self.unsent -= u32::from(segment.len);
        self.sent += 1;
    }

    /// Marks a segment as sent again.
    pub(super) fn mark_resent(&mut self, index: usize, now: Instant, in_flight: u32, env: &mut Env<'_>) {
        let Some(segment) = self.ring.get_mut(index) else { return };
        if let Some(rates) = &mut self.rates {
            rates.on_resent(index, now, in_flight, u32::from(segment.len));
        }
        if segment.flags.contains(TxFlags::LOST) {
            self.lost -= u32::from(segment.len);
        }
        if segment.flags.contains(TxFlags::RESUM) {
            let start = usize::from(segment.offset);
            let bytes = env.pool.bytes(&segment.frame).get(start..start + usize::from(segment.len));
            segment.sum = checksum::sum(bytes.unwrap_or_default());
        }
        segment.flags.remove(TxFlags::LOST | TxFlags::RESUM);
        segment.flags |= TxFlags::RETRANSMITTED;
        segment.retransmits = segment.retransmits.saturating_add(1);
        segment.sent_us = now.as_micros() as u32;
    }

    /// Gives up one segment in flight. True when it was not given up before.
    pub(super) fn mark_lost(&mut self, index: usize) -> bool {
        let Some(segment) = self.ring.get_mut(index) else { return false };
        if segment.flags.intersects(TxFlags::LOST | TxFlags::SACKED) {
            return false;
        }
        segment.flags |= TxFlags::LOST;
        self.lost += u32::from(segment.len);
        self.lost_hint = self.lost_hint.min(index as u32);
        if let Some(rates) = &mut self.rates {
            rates.on_lost(index, u32::from(segment.len));
        }
        true
    }

    /// Takes back that anything was lost: it was only late.
    pub(super) fn unmark_lost(&mut self) {
        for index in 0..self.sent as usize {
            if let Some(segment) = self.ring.get_mut(index) {
                segment.flags.remove(TxFlags::LOST);
            }
        }
        self.lost = 0;
    }

    /// RFC 2018 §8: the peer has given up what it had reported, so that counts as in flight again.
    pub(super) fn forget_sacks(&mut self) {
        for index in 0..self.sent as usize {
            if let Some(segment) = self.ring.get_mut(index) {
                segment.flags.remove(TxFlags::SACKED);
            }
        }
        (self.sacked, self.sacked_segments) = (0, 0);
        self.reported.clear();
    }

    /// Index of the first lost segment.
    pub(super) fn next_lost(&mut self) -> Option<usize> {
        if self.lost == 0 {
            self.lost_hint = self.sent;
            return None;
        }
        let lost = |&index: &usize| self.ring.get(index).is_some_and(|segment| segment.flags.contains(TxFlags::LOST));
        let found = (self.lost_hint as usize..self.sent as usize).find(lost);
        self.lost_hint = found.map_or(self.sent, |index| index as u32);
        found
    }

    /// Frees everything before `ack`; a segment that `ack` cuts loses its head.
    pub(super) fn acknowledge(&mut self, ack: SeqNum, freed: &mut Freed, env: &mut Env<'_>) {
        let fack = self.fack;
        let mut gone = self.acknowledge_plain(ack, freed, env);
        while let Some(front) = self.ring.front() {
            if front.end().after(ack) || self.sent == 0 {
                break;
            }
            let Some(segment) = self.ring.pop_front(env.tx_rings) else { break };
            self.sent -= 1;
            gone += 1;
            let len = u32::from(segment.len);
            if let Some(rates) = &mut self.rates {
                rates.on_acked(freed.now, len, !segment.flags.contains(TxFlags::SACKED));
            }
            if segment.flags.contains(TxFlags::SACKED) {
                self.sacked -= len;
                self.sacked_segments -= 1;
            } else {
                freed.bytes += len;
                freed.note(&segment, fack);
            }
            if segment.flags.contains(TxFlags::LOST) {
                self.lost -= len;
            }
            env.pool.release(segment.frame);
        }
        self.lost_hint = self.lost_hint.saturating_sub(gone);
        self.fack = fack.max(ack);
        if self.sent > 0 && self.ring.front().is_some_and(|front| front.seq.before(ack)) {
            self.trim_front(ack, freed, env);
        }
    }

    /// The first part of [`SendRing::acknowledge`]: segments from the front of which nothing is known but that they were sent
    /// once, which are nearly all there are. How many it freed.
    #[inline]
    fn acknowledge_plain(&mut self, ack: SeqNum, freed: &mut Freed, env: &mut Env<'_>) -> u32 {
        if self.rates.is_some() {
            return 0;
        }
        let (before, mut last) = (self.sent, None);
        while self.sent > 0
            && let Some(front) = self.ring.front()
        {
            let end = front.end();
            if end.after(ack) || front.flags.intersects(TOLD) {
                break;
            }
            freed.bytes += u32::from(front.len);
            freed.largest = freed.largest.max(front.len);
            // The order of sending: the last is the latest, and the first the first to have arrived.
            if last.is_none() {
                freed.original.get_or_insert(end);
                freed.reordered |= end.before(self.fack);
            }
            last = Some((front.sent_us, end));
            self.sent -= 1;
            if let Some(segment) = self.ring.pop_front(env.tx_rings) {
                env.pool.release(segment.frame);
            }
        }
        if let Some(newest) = last {
            freed.sent_us = Some(newest.0);
            freed.newest = Some(newest);
        }
        before - self.sent
    }

    /// The sum is left for the day when the rest is sent again: a peer that acknowledges byte by byte costs no more.
    #[cold]
    fn trim_front(&mut self, ack: SeqNum, freed: &mut Freed, env: &mut Env<'_>) {
        let Some(front) = self.ring.front_mut() else { return };
        // The data level may still hold what is cut off.
        env.pool.keep_payload(&front.frame, front.offset);
        let cut = ack.saturating_distance_from(front.seq).min(u32::from(front.len)) as u16;
        front.seq += u32::from(cut);
        front.dsn = front.dsn.wrapping_add(u64::from(cut));
        front.offset += cut;
        front.len -= cut;
        front.flags |= TxFlags::RESUM;
        if front.flags.contains(TxFlags::SACKED) {
            self.sacked -= u32::from(cut);
        } else {
            freed.bytes += u32::from(cut);
            if let Some(rates) = &mut self.rates {
                rates.on_trimmed(freed.now, u32::from(cut));
            }
        }
        if front.flags.contains(TxFlags::LOST) {
            self.lost -= u32::from(cut);
        }
    }

    /// Marks what the blocks of one acknowledgment cover as arrived.
    #[cold]
    pub(super) fn sack(&mut self, blocks: &[SackBlock], freed: &mut Freed) {
        let fack = self.fack;
        for &block in blocks {
            self.sack_block(block, fack, freed);
            self.fack = self.fack.max(block.end);
        }
        self.reported.clear();
        self.reported.extend(blocks.iter().copied().take(4));
    }

    fn sack_block(&mut self, block: SackBlock, fack: SeqNum, freed: &mut Freed) {
        // What grew since the last ACK begins where that one's block ended.
        let known = |old: &&SackBlock| old.start == block.start && old.end.at_or_before(block.end);
        let from = self.reported.iter().find(known).map_or(block.start, |old| old.end);
        let first = self.ring.partition_point(|segment| segment.end().at_or_before(from));
        for index in first..self.sent as usize {
            let Some(segment) = self.ring.get_mut(index) else { return };
            if segment.end().after(block.end) {
                return;
            }
            if segment.seq.before(block.start) || segment.flags.contains(TxFlags::SACKED) {
                continue;
            }
            let len = u32::from(segment.len);
            if segment.flags.contains(TxFlags::LOST) {
                segment.flags.remove(TxFlags::LOST);
                self.lost -= len;
            }
            segment.flags |= TxFlags::SACKED;
            self.sacked += len;
            self.sacked_segments += 1;
            if let Some(rates) = &mut self.rates {
                rates.on_sacked(index, freed.now, len);
            }
            freed.bytes += len;
            freed.note(segment, fack);
        }
    }

    /// Cuts the segment at `index` after `len` bytes; the rest becomes a segment of its own in the same frame. So a peer
    /// with a tiny segment size costs no more frames than the payload came in.
    pub(super) fn split(&mut self, index: usize, len: u16, env: &mut Env<'_>) {
        let Some(segment) = self.ring.get_mut(index) else { return };
        if len == 0 || segment.len <= len {
            return;
        }
        let start = usize::from(segment.offset);
        let bytes = env.pool.bytes(&segment.frame);
        let head_sum = checksum::sum(bytes.get(start..start + usize::from(len)).unwrap_or_default());
        let tail_sum = if segment.flags.contains(TxFlags::RESUM) {
            0
        } else {
            checksum::swap_if_odd(checksum::sub(segment.sum, head_sum), usize::from(len))
        };
        let tail = TxSegment {
            dsn: segment.dsn.wrapping_add(u64::from(len)),
            frame: env.pool.share_tail(&segment.frame, segment.offset),
            seq: segment.seq + u32::from(len),
            sent_us: segment.sent_us,
            offset: segment.offset + len,
            len: segment.len - len,
            sum: tail_sum,
            flags: segment.flags,
            retransmits: segment.retransmits,
        };
        segment.len = len;
        segment.sum = head_sum;
        segment.flags.remove(TxFlags::RESUM);
        if index < self.sent as usize {
            self.sent += 1;
            if let Some(rates) = &mut self.rates {
                rates.on_split(index);
            }
            self.sacked_segments += u32::from(segment.flags.contains(TxFlags::SACKED));
            // A reported block may cover the head whole, which it did not cover before.
            self.reported.clear();
        }
        if self.lost_hint as usize > index {
            self.lost_hint += 1;
        }
        env.counters.inc(crate::Counter::TxSplits);
        self.ring.insert(index + 1, tail, env.tx_rings);
    }

    /// Shows the frame of each segment.
    pub(super) fn frames(&self, visit: &mut dyn FnMut(&FrameId)) {
        self.ring.iter().for_each(|segment| visit(&segment.frame));
    }

    /// Releases everything.
    pub(super) fn clear(&mut self, env: &mut Env<'_>) {
        while let Some(segment) = self.ring.pop_front(env.tx_rings) {
            env.pool.release(segment.frame);
        }
        (self.sent, self.unsent, self.sacked, self.lost, self.lost_hint) = (0, 0, 0, 0, 0);
        self.sacked_segments = 0;
        if let Some(rates) = &mut self.rates {
            rates.clear();
        }
    }
}

#[cfg(test)]
mod tests;
