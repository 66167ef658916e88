//! The send ring, which is also the scoreboard: unsent, in flight, sacked, lost, sent again.

use crate::env::Env;
use crate::options::SackBlock;
use crate::ring::Ring;
use crate::segment::{TxFlags, TxSegment};
use crate::seq::SeqNum;

/// Segments from `snd_una` to the end of what is queued, in sequence order.
#[derive(Debug, Default)]
pub(super) struct SendRing {
    ring: Ring<TxSegment>,
    /// Segments from the front that were sent at least once.
    sent: u32,
    /// Bytes queued and not sent.
    pub unsent: u32,
    /// Bytes that the peer reported by SACK.
    pub sacked: u32,
    /// Bytes given up and not sent again yet.
    pub lost: u32,
}

/// What an acknowledgment freed.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Freed {
    /// Bytes that were not known to have arrived before.
    pub bytes: u32,
    /// When the latest segment among them was sent, unless it was sent more than once.
    pub sent_us: Option<u32>,
    /// The latest transmission among all of them, retransmissions included, and the segment's end.
    pub newest: Option<(u32, SeqNum)>,
    /// A segment that had been sent again is among them.
    pub retransmitted: bool,
}

impl Freed {
    fn note(&mut self, segment: &TxSegment) {
        let again = segment.flags.contains(TxFlags::RETRANSMITTED);
        self.retransmitted |= again;
        if !again {
            self.sent_us = Some(segment.sent_us);
        }
        let newer = |held: (u32, SeqNum)| (segment.sent_us.wrapping_sub(held.0) as i32) >= 0;
        if self.newest.is_none_or(newer) {
            self.newest = Some((segment.sent_us, segment.end()));
        }
    }
}

impl SendRing {
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

    /// Marks the first unsent segment as sent at `now_us`.
    pub(super) fn mark_sent(&mut self, now_us: u32) {
        let Some(segment) = self.ring.get_mut(self.sent as usize) else { return };
        segment.flags |= TxFlags::SENT;
        segment.sent_us = now_us;
        self.unsent -= u32::from(segment.len);
        self.sent += 1;
    }

    /// Marks a lost segment as sent again.
    pub(super) fn mark_resent(&mut self, index: usize, now_us: u32) {
        let Some(segment) = self.ring.get_mut(index) else { return };
        if segment.flags.contains(TxFlags::LOST) {
            self.lost -= u32::from(segment.len);
        }
        segment.flags.remove(TxFlags::LOST);
        segment.flags |= TxFlags::RETRANSMITTED;
        segment.retransmits = segment.retransmits.saturating_add(1);
        segment.sent_us = now_us;
    }

    /// Gives up one segment in flight.
    pub(super) fn mark_lost(&mut self, index: usize) {
        let Some(segment) = self.ring.get_mut(index) else { return };
        if !segment.flags.intersects(TxFlags::LOST | TxFlags::SACKED) {
            segment.flags |= TxFlags::LOST;
            self.lost += u32::from(segment.len);
        }
    }

    /// RFC 6298 §5.4 and RFC 2018 §5.1: after a timeout everything in flight counts as lost, what was reported by SACK
    /// included when `forget_sack` (the first hole did not fill although it was there: the peer may have reneged).
    pub(super) fn mark_all_lost(&mut self, forget_sack: bool) {
        for index in 0..self.sent as usize {
            if forget_sack
                && let Some(segment) = self.ring.get_mut(index)
                && segment.flags.contains(TxFlags::SACKED)
            {
                segment.flags.remove(TxFlags::SACKED);
                self.sacked -= u32::from(segment.len);
            }
            self.mark_lost(index);
        }
    }

    /// Index of the first lost segment from `from` on.
    pub(super) fn next_lost(&self, from: usize) -> Option<usize> {
        if self.lost == 0 {
            return None;
        }
        (from..self.sent as usize)
            .find(|&index| self.ring.get(index).is_some_and(|segment| segment.flags.contains(TxFlags::LOST)))
    }

    /// Frees everything before `ack`; a segment that `ack` cuts loses its head.
    pub(super) fn acknowledge(&mut self, ack: SeqNum, env: &mut Env<'_>) -> Freed {
        let mut freed = Freed::default();
        while let Some(front) = self.ring.front_mut() {
            if front.end().after(ack) || self.sent == 0 {
                break;
            }
            let Some(segment) = self.ring.pop_front(env.tx_rings) else { break };
            self.sent -= 1;
            let len = u32::from(segment.len);
            if segment.flags.contains(TxFlags::SACKED) {
                self.sacked -= len;
            } else {
                freed.bytes += len;
                freed.note(&segment);
            }
            if segment.flags.contains(TxFlags::LOST) {
                self.lost -= len;
            }
            env.pool.release(segment.frame);
        }
        self.trim_front(ack, env, &mut freed);
        freed
    }

    fn trim_front(&mut self, ack: SeqNum, env: &mut Env<'_>, freed: &mut Freed) {
        if self.sent == 0 {
            return;
        }
        let Some(front) = self.ring.front_mut() else { return };
        let cut = ack.saturating_distance_from(front.seq).min(u32::from(front.len)) as u16;
        if cut == 0 {
            return;
        }
        front.seq += u32::from(cut);
        front.dsn = front.dsn.wrapping_add(u64::from(cut));
        front.offset += cut;
        front.len -= cut;
        let (start, end) = (usize::from(front.offset), usize::from(front.offset) + usize::from(front.len));
        front.sum = crate::checksum::sum(env.pool.bytes(&front.frame).get(start..end).unwrap_or_default());
        if front.flags.contains(TxFlags::SACKED) {
            self.sacked -= u32::from(cut);
        } else {
            freed.bytes += u32::from(cut);
        }
        if front.flags.contains(TxFlags::LOST) {
            self.lost -= u32::from(cut);
        }
    }

    /// Marks what `block` covers as arrived.
    pub(super) fn sack(&mut self, block: SackBlock, freed: &mut Freed) {
        let first = self.ring.partition_point(|segment| segment.seq.before(block.start));
        for index in first..self.sent as usize {
            let Some(segment) = self.ring.get_mut(index) else { return };
            if segment.end().after(block.end) {
                return;
            }
            if segment.flags.contains(TxFlags::SACKED) {
                continue;
            }
            let len = u32::from(segment.len);
            if segment.flags.contains(TxFlags::LOST) {
                segment.flags.remove(TxFlags::LOST);
                self.lost -= len;
            }
            segment.flags |= TxFlags::SACKED;
            self.sacked += len;
            freed.bytes += len;
            freed.note(segment);
        }
    }

    /// Cuts the segment at `index` after `len` bytes; the rest becomes a segment of its own in a frame of its own.
    /// False when no frame is free.
    pub(super) fn split(&mut self, index: usize, len: u16, env: &mut Env<'_>) -> bool {
        let Some(segment) = self.ring.get(index) else { return false };
        if len == 0 || segment.len <= len {
            return true;
        }
        let Some(frame) = env.pool.alloc() else { return false };
        let (offset, rest) = (crate::limits::PAYLOAD_OFFSET, segment.len - len);
        let from = usize::from(segment.offset) + usize::from(len);
        env.pool.copy(&segment.frame, from, &frame, offset, usize::from(rest));
        let bytes = env.pool.bytes(&frame).get(offset..offset + usize::from(rest)).unwrap_or_default();
        let tail = TxSegment {
            dsn: segment.dsn.wrapping_add(u64::from(len)),
            frame,
            seq: segment.seq + u32::from(len),
            sent_us: segment.sent_us,
            offset: offset as u16,
            len: rest,
            sum: crate::checksum::sum(bytes),
            flags: segment.flags,
            retransmits: segment.retransmits,
        };
        let start = usize::from(segment.offset);
        let head = env.pool.bytes(&segment.frame).get(start..start + usize::from(len)).unwrap_or_default();
        let head_sum = crate::checksum::sum(head);
        if let Some(segment) = self.ring.get_mut(index) {
            segment.len = len;
            segment.sum = head_sum;
        }
        if index < self.sent as usize {
            self.sent += 1;
        }
        env.counters.inc(crate::Counter::TxSplits);
        self.ring.insert(index + 1, tail, env.tx_rings);
        true
    }

    /// Releases everything.
    pub(super) fn clear(&mut self, env: &mut Env<'_>) {
        while let Some(segment) = self.ring.pop_front(env.tx_rings) {
            env.pool.release(segment.frame);
        }
        (self.sent, self.unsent, self.sacked, self.lost) = (0, 0, 0, 0);
    }
}
