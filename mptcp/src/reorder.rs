//! The data-level out-of-order queue: payload that arrived on one subflow before what precedes it on another.

use mimbox_stack::limits::{COALESCED, SMALL_SEGMENT};
use mimbox_stack::{Counter, Env, FrameId, Ring, RxSegment};

use crate::dsn::Dsn;
use crate::pieces;

/// What became of a segment that was put into the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Inserted {
    /// At least some of its bytes are new.
    New,
    /// All its bytes were there already; its frame is released.
    Duplicate,
    /// The queue is full and everything in it comes earlier; its frame is released.
    Full,
}

/// Segments in order of their data sequence numbers, without overlap.
#[derive(Debug, Default)]
pub(crate) struct ReorderQueue {
    queue: Ring<RxSegment>,
    bytes: u64,
}

/// Data sequence number after the last byte.
pub(crate) fn end(segment: &RxSegment) -> Dsn {
    Dsn(segment.dsn) + u64::from(segment.len)
}

impl ReorderQueue {
    /// Segments that wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Bytes that wait.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// True when nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Puts a segment into the queue, of at most `limit` entries.
    ///
    /// RFC 8684 §3.3.1: the data that came first is what is delivered; later data for the same sequence space is ignored.
    pub(crate) fn insert(&mut self, mut segment: RxSegment, limit: usize, env: &mut Env<'_>) -> Inserted {
        let start = Dsn(segment.dsn);
        let at = match self.queue.back() {
            Some(last) if start.at_or_after(end(last)) => self.queue.len(),
            Some(_) => self.queue.partition_point(|entry| Dsn(entry.dsn).at_or_before(start)),
            None => 0,
        };
        if let Some(before) = at.checked_sub(1).and_then(|index| self.queue.get(index)) {
            let overlap = end(before).saturating_distance_from(start);
            if overlap >= u64::from(segment.len) {
                env.pool.release(segment.frame);
                return Inserted::Duplicate;
            }
            if overlap > 0 {
                pieces::trim_front(&mut segment, overlap as u16, env.pool);
            }
        }
        while let Some(after) = self.queue.get(at) {
            let overlap = end(&segment).saturating_distance_from(Dsn(after.dsn));
            if overlap == 0 {
                break;
            }
            if end(after).after(end(&segment)) {
                let keep = u64::from(segment.len) - overlap;
                if keep == 0 {
                    env.pool.release(segment.frame);
                    return Inserted::Duplicate;
                }
                pieces::keep_front(&mut segment, keep as u16, env.pool);
                break;
            }
            self.take(at, env);
        }
        if segment.len < SMALL_SEGMENT
            && let Some(before) = at.checked_sub(1).and_then(|index| self.queue.get_mut(index))
            && end(before) == Dsn(segment.dsn)
            && before.absorb(&segment, COALESCED, env.pool)
        {
            env.counters.inc(Counter::TcpCoalesced);
            self.bytes += u64::from(segment.len);
            env.pool.release(segment.frame);
            return Inserted::New;
        }
        if self.queue.len() >= limit && !self.evict_after(at, env) {
            env.pool.release(segment.frame);
            return Inserted::Full;
        }
        self.bytes += u64::from(segment.len);
        self.queue.insert(at, segment, env.rx_rings);
        Inserted::New
    }

    /// Removes entry `at` and releases its frame.
    fn take(&mut self, at: usize, env: &mut Env<'_>) {
        if let Some(covered) = self.queue.remove(at, env.rx_rings) {
            self.bytes -= u64::from(covered.len);
            env.pool.release(covered.frame);
        }
    }

    /// Makes room for an entry at index `at` by giving up the highest one; false when that would be the new one itself.
    fn evict_after(&mut self, at: usize, env: &mut Env<'_>) -> bool {
        // RFC 8684 §3.3.2: what is not DATA_ACKed may be dropped though its subflow has acknowledged it; the peer
        // keeps it.
        if at >= self.queue.len() {
            return false;
        }
        self.take(self.queue.len() - 1, env);
        true
    }

    /// Takes the first segment when it continues the stream at `rcv_nxt`; what lies before `rcv_nxt` is dropped.
    pub(crate) fn pop_ready(&mut self, rcv_nxt: Dsn, env: &mut Env<'_>) -> Option<RxSegment> {
        loop {
            let first = self.queue.front()?;
            if Dsn(first.dsn).after(rcv_nxt) {
                return None;
            }
            let old = rcv_nxt.distance_from(Dsn(first.dsn));
            let mut first = self.queue.pop_front(env.rx_rings)?;
            self.bytes -= u64::from(first.len);
            if old >= u64::from(first.len) {
                env.pool.release(first.frame);
                continue;
            }
            if old > 0 {
                pieces::trim_front(&mut first, old as u16, env.pool);
            }
            return Some(first);
        }
    }

    /// Shows the frame of each segment.
    pub(crate) fn frames(&self, visit: &mut dyn FnMut(&FrameId)) {
        self.queue.iter().for_each(|segment| visit(&segment.frame));
    }

    /// Releases every frame.
    pub(crate) fn clear(&mut self, env: &mut Env<'_>) {
        while let Some(segment) = self.queue.pop_front(env.rx_rings) {
            env.pool.release(segment.frame);
        }
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests;
