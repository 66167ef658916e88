//! Frames through two channels: held until they are due, and sent by the other port.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use mimbox_dataplane::Engine;
use mimbox_stack::limits::RX_HEADROOM;
use mimbox_stack::{Counters, Duration, FramePool, Instant, PortId, RxFrame, TxFrame};

use super::packet::Shape;
use super::report::Lateness;
use super::{Channel, Dice, Fate, LinkOptions, LinkTotals, Offered};
use crate::sim::draw;

/// One direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WayOptions {
    /// What the link does.
    pub(super) link: LinkOptions,
    /// Bytes that the rate counts for a packet besides those of the IP packet.
    pub(super) overhead: u16,
}

/// What went through one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WayTotals {
    /// What the model counted.
    pub(super) link: LinkTotals,
    /// Packets sent on.
    pub(super) delivered: u64,
    /// Bytes sent on, as the rate counts them.
    pub(super) delivered_bytes: u64,
    /// Packets lost while the link was cut.
    pub(super) cut: u64,
    /// Checksums that were finished for the sender.
    pub(super) finished_checksums: u64,
    /// Copies that were not made because no frame was free.
    pub(super) no_frame: u64,
}

/// A frame that is on its way.
#[derive(Debug)]
struct Pending {
    at: Instant,
    /// Tells frames apart that are due at the same instant.
    order: u64,
    bytes: u32,
    frame: TxFrame,
}

impl Ord for Pending {
    /// What is due first is the greatest, as the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pending {}

#[derive(Debug)]
struct Way {
    channel: Channel,
    overhead: u16,
    pending: BinaryHeap<Pending>,
    totals: WayTotals,
    late: Lateness,
}

/// The link as the data plane's worker drives it. Port 0 and port 1 are its ends; way 0 leads from 0 to 1.
#[derive(Debug)]
pub(super) struct LinkEngine {
    pool: FramePool,
    counters: Counters,
    ways: [Way; 2],
    order: u64,
    cut: bool,
}

impl LinkEngine {
    pub(super) fn new(pool: FramePool, options: [WayOptions; 2], seed: u64) -> Self {
        let way = |index: usize| {
            let WayOptions { link, overhead } = options[index];
            let dice = Dice::EachPacket(draw::mix(seed ^ draw::mix(index as u64)));
            Way {
                channel: Channel::new(link, dice),
                overhead,
                pending: BinaryHeap::new(),
                totals: WayTotals::default(),
                late: Lateness::default(),
            }
        };
        Self { pool, counters: Counters::default(), ways: [way(0), way(1)], order: 0, cut: false }
    }

    /// Whether all is lost at the moment.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Cuts the link, or mends it. What was on the way when it is cut is lost as well.
    pub(super) fn set_cut(&mut self, cut: bool) {
        self.cut = cut;
        if cut {
            for way in &mut self.ways {
                for pending in way.pending.drain() {
                    way.totals.cut += 1;
                    self.pool.tx_complete(pending.frame.frame);
                }
            }
        }
    }

    /// What went through a direction so far.
    pub(super) fn totals(&self, way: usize) -> WayTotals {
        let Way { channel, totals, .. } = &self.ways[way];
        WayTotals { link: *channel.totals(), ..*totals }
    }

    /// Bytes that wait for the wire, and packets on the way.
    pub(super) fn held(&self, way: usize, now: Instant) -> (u64, usize) {
        let way = &self.ways[way];
        (way.channel.waiting(now), way.pending.len())
    }

    /// How late packets left, since the last call.
    pub(super) fn take_lateness(&mut self, way: usize) -> Lateness {
        std::mem::take(&mut self.ways[way].late)
    }

    fn take(&mut self, now: Instant, received: RxFrame) {
        let RxFrame { port, frame, offset, len } = received;
        let index = usize::from(port.0 & 1);
        let way = &mut self.ways[index];
        let range = usize::from(offset)..usize::from(offset) + usize::from(len);
        let Some(bytes) = self.pool.bytes_mut(&frame).get_mut(range.clone()) else {
            return self.pool.release(frame);
        };
        let shape = Shape::of(bytes);
        if shape.finish_checksum(bytes) {
            way.totals.finished_checksums += 1;
        }
        let counted = shape.len + usize::from(way.overhead);
        let exposed = if shape.is_ip { shape.len } else { 0 };
        let fate = way.channel.offer(now, Offered { bytes: counted, carried: shape.len, exposed });
        let Fate::Passes(passage) = fate else { return self.pool.release(frame) };
        if self.cut {
            way.totals.cut += 1;
            return self.pool.release(frame);
        }
        let to = PortId(1 - index as u8);
        let bytes = counted as u32;
        if let Some(at) = passage.copy_at {
            // A copy of its own where a bit of the original changes; else the frame is sent twice.
            let copy = match passage.flip {
                None => Some((self.pool.share(&frame), offset)),
                Some(_) => copy_of(&mut self.pool, &frame, range.clone()).map(|copy| (copy, RX_HEADROOM as u16)),
            };
            match copy {
                Some((frame, offset)) => self.hold(index, at, bytes, TxFrame { port: to, frame, offset, len }),
                None => self.ways[index].totals.no_frame += 1,
            }
        }
        if let Some((byte, bit)) = passage.flip
            && let Some(byte) = self.pool.bytes_mut(&frame).get_mut(range.start + shape.start + byte)
        {
            *byte ^= 1 << bit;
        }
        self.hold(index, passage.at, bytes, TxFrame { port: to, frame, offset, len });
    }

    fn hold(&mut self, way: usize, at: Instant, bytes: u32, frame: TxFrame) {
        self.pool.tx_begin(&frame.frame);
        self.order += 1;
        self.ways[way].pending.push(Pending { at, order: self.order, bytes, frame });
    }

    /// Gives every frame back that is still held.
    pub(super) fn release_all(&mut self) -> &FramePool {
        for way in &mut self.ways {
            for pending in way.pending.drain() {
                self.pool.tx_complete(pending.frame.frame);
            }
        }
        &self.pool
    }
}

fn copy_of(
    pool: &mut FramePool,
    frame: &mimbox_stack::FrameId,
    range: std::ops::Range<usize>,
) -> Option<mimbox_stack::FrameId> {
    let copy = pool.alloc()?;
    let bytes = pool.bytes(frame).get(range).map(<[u8]>::to_vec).unwrap_or_default();
    if let Some(target) = pool.bytes_mut(&copy).get_mut(RX_HEADROOM..RX_HEADROOM + bytes.len()) {
        target.copy_from_slice(&bytes);
    }
    Some(copy)
}

impl Engine for LinkEngine {
    fn on_frames(&mut self, now: Instant, batch: &mut Vec<RxFrame>) {
        for frame in batch.drain(..) {
            self.take(now, frame);
        }
    }

    fn on_timer(&mut self, _: Instant) {}

    fn poll_transmit(&mut self, now: Instant) -> Option<TxFrame> {
        for way in &mut self.ways {
            let due = way.pending.peek().is_some_and(|next| next.at <= now);
            if due && let Some(Pending { at, bytes, frame, .. }) = way.pending.pop() {
                way.totals.delivered += 1;
                way.totals.delivered_bytes += u64::from(bytes);
                way.late.note(now.since(at));
                return Some(frame);
            }
        }
        None
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.ways.iter().filter_map(|way| way.pending.peek()).map(|next| next.at).min()
    }

    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

/// Frames for what a direction holds at most, besides those in rings. A link without a rate is taken for one of 1 Gbit/s.
pub(super) fn frames_for(options: &WayOptions) -> u64 {
    /// Bytes of a packet, on the average, that holds a place; acknowledgments are smaller but need less of the wire.
    const TYPICAL: u128 = 512;
    let LinkOptions { rate_bps, delay, queue_bytes, reorder_by, .. } = options.link;
    let rate = u128::from(rate_bps.min(1_000_000_000));
    // A copy comes up to one delay later.
    let held: Duration = delay + delay + reorder_by;
    let flying = rate * u128::from(held.as_nanos()) / 8_000_000_000;
    let waiting = u128::from(queue_bytes).min(rate / 8);
    u64::try_from((flying + waiting) / TYPICAL).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
