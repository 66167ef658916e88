//! Descriptors of TCP payload inside frames: 32 bytes each, moved instead of the payload.

use std::collections::VecDeque;

use bitflags::bitflags;

use crate::checksum;
use crate::frame::{FrameId, FramePool};
use crate::seq::SeqNum;
use crate::wire::SegmentIn;

/// Payload that was received: one contiguous run of bytes in one frame.
#[derive(Debug)]
#[must_use = "the segment holds a frame"]
pub struct RxSegment {
    /// Data sequence number of the first byte; set by MPTCP, else zero.
    pub dsn: u64,
    /// The right to the frame.
    pub frame: FrameId,
    /// Sequence number of the first byte.
    pub seq: SeqNum,
    /// First byte of the payload in the frame.
    pub offset: u16,
    /// Length in bytes; never zero.
    pub len: u16,
    /// Ones'-complement sum of the payload, folded to 16 bits, not inverted, as if it began at an even address.
    pub sum: u16,
    /// Reserved for the owner of the queue that it stands in.
    pub tag: u16,
}

bitflags! {
    /// What the scoreboard knows of a segment, and what goes with it.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct TxFlags: u8 {
        /// The peer reported it by SACK.
        const SACKED = 1;
        /// Loss detection gave it up: it is to be sent again.
        const LOST = 1 << 1;
        /// It was sent more than once.
        const RETRANSMITTED = 1 << 2;
        /// It was sent at least once.
        const SENT = 1 << 3;
        /// It has a data sequence mapping (`dsn` means something).
        const MAPPED = 1 << 4;
        /// Its head was acknowledged: `sum` is computed anew before it is sent again.
        const RESUM = 1 << 5;
        /// PSH is set on it.
        const PUSH = 1 << 6;
        /// Sent while the sender was limited by the application.
        const APP_LIMITED = 1 << 7;
    }
}

/// Payload to be sent or in flight: an entry of a send ring, which is also the scoreboard.
#[derive(Debug)]
#[must_use = "the segment holds a frame"]
pub struct TxSegment {
    /// Data sequence number of the first byte; opaque to TCP, used by MPTCP.
    pub dsn: u64,
    /// The right to the frame.
    pub frame: FrameId,
    /// Sequence number of the first byte; set by the send ring.
    pub seq: SeqNum,
    /// When it was last sent, in microseconds modulo 2^32.
    pub sent_us: u32,
    /// First byte of the payload in the frame.
    pub offset: u16,
    /// Length in bytes; never zero.
    pub len: u16,
    /// Payload sum as in [`RxSegment::sum`].
    pub sum: u16,
    /// Scoreboard flags.
    pub flags: TxFlags,
    /// How many times it was sent again, saturating.
    pub retransmits: u8,
}

const _: () = assert!(size_of::<RxSegment>() <= 32 && size_of::<TxSegment>() <= 32);

impl TxSegment {
    /// The received payload as payload to send; sequence numbers are assigned by the ring that it is pushed on.
    pub fn from_rx(rx: RxSegment) -> Self {
        Self {
            dsn: 0,
            frame: rx.frame,
            seq: SeqNum(0),
            sent_us: 0,
            offset: rx.offset,
            len: rx.len,
            sum: rx.sum,
            flags: TxFlags::empty(),
            retransmits: 0,
        }
    }

    /// Sequence number after the last byte.
    pub fn end(&self) -> SeqNum {
        self.seq + u32::from(self.len)
    }
}

impl RxSegment {
    /// The payload of a parsed segment, in its frame.
    #[inline]
    pub fn of(segment: &SegmentIn, frame: FrameId) -> Self {
        Self {
            dsn: 0,
            frame,
            seq: segment.seq,
            offset: segment.payload_offset,
            len: segment.payload_len,
            sum: segment.payload_sum,
            tag: 0,
        }
    }

    /// Sequence number after the last byte.
    #[inline]
    pub fn end(&self) -> SeqNum {
        self.seq + u32::from(self.len)
    }
}

/// The scratch queue by which one layer hands segments to the next, reused for every packet.
pub type RxQueue = VecDeque<RxSegment>;

/// True when `next` bytes more may stand behind a payload that ends at `end` of `frame`: there is room, nobody else has a
/// right to the frame, and no ring is reading it.
fn takes_behind(frame: &FrameId, end: usize, next: u16, pool: &FramePool) -> bool {
    end + usize::from(next) <= pool.frame_size() as usize && pool.refs(frame) == 1 && !pool.tx_pending(frame)
}

impl TxSegment {
    /// Copies the payload of `next`, which follows in the sequence space, behind this one's, in its frame; both together
    /// have at most `limit` bytes. False, and nothing is changed, when that cannot be done. `next` keeps its frame.
    pub fn absorb(&mut self, next: &Self, limit: u16, pool: &mut FramePool) -> bool {
        let end = usize::from(self.offset) + usize::from(self.len);
        let mapped = self.flags.contains(TxFlags::MAPPED);
        let follows = mapped == next.flags.contains(TxFlags::MAPPED)
            && (!mapped || self.dsn.wrapping_add(u64::from(self.len)) == next.dsn);
        let fits = u32::from(self.len) + u32::from(next.len) <= u32::from(limit);
        if !follows || !fits || !takes_behind(&self.frame, end, next.len, pool) {
            return false;
        }
        pool.copy(&next.frame, usize::from(next.offset), &self.frame, end, usize::from(next.len));
        self.sum = checksum::add(self.sum, checksum::swap_if_odd(next.sum, usize::from(self.len)));
        self.len += next.len;
        self.flags |= next.flags & (TxFlags::PUSH | TxFlags::RETRANSMITTED | TxFlags::RESUM | TxFlags::APP_LIMITED);
        // The later of two transmissions: whoever judges by time is not too hasty then.
        if (next.sent_us.wrapping_sub(self.sent_us) as i32) > 0 {
            self.sent_us = next.sent_us;
        }
        self.retransmits = self.retransmits.max(next.retransmits);
        true
    }
}

impl RxSegment {
    /// As [`TxSegment::absorb`], for payload that was received.
    pub fn absorb(&mut self, next: &Self, limit: u16, pool: &mut FramePool) -> bool {
        let end = usize::from(self.offset) + usize::from(self.len);
        let fits = u32::from(self.len) + u32::from(next.len) <= u32::from(limit);
        if !fits || !takes_behind(&self.frame, end, next.len, pool) {
            return false;
        }
        pool.copy(&next.frame, usize::from(next.offset), &self.frame, end, usize::from(next.len));
        self.sum = checksum::add(self.sum, checksum::swap_if_odd(next.sum, usize::from(self.len)));
        self.len += next.len;
        true
    }
}
