//! Frames and the pool that owns them (DESIGN: a `FrameId` is the right to a frame's bytes).

use crate::mem::Region;

/// A network interface as the data plane numbers it, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Default)]
pub struct PortId(pub u8);

/// The right to one frame's bytes. Neither `Clone` nor `Copy`: a second right is made by [`FramePool::share`] and every
/// right is given back by [`FramePool::release`]; one that is dropped on the floor shows in [`FramePool::in_use`].
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a frame that is not released is leaked"]
#[repr(transparent)]
pub struct FrameId(u32);

impl FrameId {
    /// The frame's number, to stand in a descriptor ring. The right is taken back by [`FrameId::from_raw`].
    pub const fn into_raw(self) -> u32 {
        self.0
    }
    /// The right that [`FrameId::into_raw`] put away. Calling it twice for one right breaks the pool's accounts.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }
    /// The frame's number, for logs and asserts.
    pub const fn index(&self) -> u32 {
        self.0
    }
}

/// A received frame: its bytes start at `offset` and run for `len`.
#[derive(Debug)]
pub struct RxFrame {
    /// The port that it came in by.
    pub port: PortId,
    /// The right to the frame.
    pub frame: FrameId,
    /// First byte of the Ethernet header in the frame.
    pub offset: u16,
    /// Length in bytes from the Ethernet header on.
    pub len: u16,
}

/// A frame to be sent. The driver gives the right back through [`FramePool::tx_complete`] once the NIC is done.
#[derive(Debug)]
pub struct TxFrame {
    /// The port that it goes out by.
    pub port: PortId,
    /// The right to the frame; its TX-pending count was raised by [`FramePool::tx_begin`].
    pub frame: FrameId,
    /// First byte of the Ethernet header in the frame.
    pub offset: u16,
    /// Length in bytes from the Ethernet header on.
    pub len: u16,
}

/// Metadata of a frame.
#[derive(Clone, Copy, Default)]
struct Meta {
    refs: u16,
    tx_pending: u16,
    /// First payload byte that headers were built in front of; zero before that.
    payload_floor: u16,
}

/// How a pool is laid out.
#[derive(Clone, Copy, Debug)]
pub struct PoolConfig {
    /// Frames that only reception and control packets may use, so that retained segments never starve the ACKs that
    /// would free them.
    pub rx_reserve: u32,
}

/// What a count of every frame of a pool found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolAudit {
    /// Frames that nobody holds.
    pub free: u32,
    /// Frames that somebody holds.
    pub held: u32,
    /// Rights to the held frames; more than `held` when some are shared.
    pub rights: u64,
    /// Frames that a TX ring may still read.
    pub tx_pending: u32,
    /// Frames that are both free and held, or neither, or free twice: always zero, or the pool's accounts are broken.
    pub broken: u32,
}

/// All frames of one shard: a free list and reference counts over a [`Region`].
pub struct FramePool {
    region: Region,
    meta: Vec<Meta>,
    free: Vec<u32>,
    rx_reserve: u32,
}

impl std::fmt::Debug for FramePool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FramePool").field("total", &self.total()).field("free", &self.free_frames()).finish()
    }
}

impl FramePool {
    /// A pool that owns every frame of `region`.
    pub fn new(region: Region, config: PoolConfig) -> Self {
        let frames = region.frames();
        Self {
            meta: vec![Meta::default(); frames as usize],
            free: (0..frames).rev().collect(),
            rx_reserve: config.rx_reserve.min(frames),
            region,
        }
    }

    /// The region under the pool.
    pub const fn region(&self) -> &Region {
        &self.region
    }

    /// Bytes of one frame.
    pub const fn frame_size(&self) -> u32 {
        self.region.frame_size()
    }

    /// Frames in all.
    pub fn total(&self) -> u32 {
        self.meta.len() as u32
    }

    /// Frames that nobody holds.
    #[inline]
    pub fn free_frames(&self) -> u32 {
        self.free.len() as u32
    }

    /// Frames that somebody holds, those in fill, TX and completion rings included.
    pub fn in_use(&self) -> u32 {
        self.total() - self.free_frames()
    }

    /// Free frames above the reserve of reception: what payload may still take.
    #[inline]
    pub fn available(&self) -> u32 {
        self.free_frames().saturating_sub(self.rx_reserve)
    }

    /// Takes a frame for payload (a split, a copy); `None` when only the reserve is left.
    pub fn alloc(&mut self) -> Option<FrameId> {
        if self.free.len() as u32 <= self.rx_reserve { None } else { self.alloc_control() }
    }

    /// Takes a frame for reception or for a packet without payload; `None` when none is left at all.
    #[inline]
    pub fn alloc_control(&mut self) -> Option<FrameId> {
        let index = self.free.pop()?;
        self.meta[index as usize] = Meta { refs: 1, ..Meta::default() };
        Some(FrameId(index))
    }

    /// A second right to the same frame.
    #[inline]
    pub fn share(&mut self, frame: &FrameId) -> FrameId {
        let meta = &mut self.meta[frame.0 as usize];
        assert!(meta.refs > 0 && meta.refs < u16::MAX, "frame {} is shared with {} rights", frame.0, meta.refs);
        meta.refs += 1;
        FrameId(frame.0)
    }

    /// Gives a right back; the last one frees the frame.
    #[allow(clippy::needless_pass_by_value, reason = "taking the token by value is what gives the right back")]
    #[inline]
    pub fn release(&mut self, frame: FrameId) {
        let meta = &mut self.meta[frame.0 as usize];
        assert!(meta.refs > 0, "frame {} is released twice", frame.0);
        meta.refs -= 1;
        if meta.refs == 0 {
            debug_assert_eq!(meta.tx_pending, 0, "frame {} is freed while the NIC reads it", frame.0);
            self.free.push(frame.0);
        }
    }

    /// How many rights to the frame there are.
    #[inline]
    pub fn refs(&self, frame: &FrameId) -> u16 {
        self.meta[frame.0 as usize].refs
    }

    /// Marks a frame as handed to a TX ring: until [`FramePool::tx_complete`] its bytes must not change.
    #[inline]
    pub fn tx_begin(&mut self, frame: &FrameId) {
        self.meta[frame.0 as usize].tx_pending += 1;
    }

    /// True while a TX ring may still read the frame.
    #[inline]
    pub fn tx_pending(&self, frame: &FrameId) -> bool {
        self.meta[frame.0 as usize].tx_pending > 0
    }

    /// Asks to build headers in front of the payload at `payload_offset`. False when that could overwrite payload that
    /// another right still needs: a segment that lost its head to a partial acknowledgment starts later in the frame
    /// than the one that the data level may still hold whole.
    #[inline]
    pub fn claim_headroom(&mut self, frame: &FrameId, payload_offset: u16) -> bool {
        let meta = &mut self.meta[frame.0 as usize];
        let free = meta.payload_floor == 0 || payload_offset <= meta.payload_floor;
        if free {
            meta.payload_floor = payload_offset;
        }
        free
    }

    /// Says that the payload from `payload_offset` on is needed whole whatever is sent first: headers are built in place in
    /// front of it, and not in front of a part of it.
    pub fn keep_payload(&mut self, frame: &FrameId, payload_offset: u16) {
        let floor = &mut self.meta[frame.0 as usize].payload_floor;
        *floor = if *floor == 0 { payload_offset } else { payload_offset.min(*floor) };
    }

    /// A second right, for the tail of the payload at `payload_offset`. The parts may be sent in any order (data that was
    /// sent again with another mapping comes first), so the head is kept: see [`FramePool::keep_payload`].
    pub fn share_tail(&mut self, frame: &FrameId, payload_offset: u16) -> FrameId {
        self.keep_payload(frame, payload_offset);
        self.share(frame)
    }

    /// Takes a frame back from a TX ring and gives that ring's right back.
    #[inline]
    pub fn tx_complete(&mut self, frame: FrameId) {
        let meta = &mut self.meta[frame.0 as usize];
        assert!(meta.tx_pending > 0, "frame {} completes but was not sent", frame.0);
        meta.tx_pending -= 1;
        self.release(frame);
    }

    /// Counts every frame. For the end of a run: `held` must equal the frames in fill, TX and completion rings.
    pub fn audit(&self) -> PoolAudit {
        let mut audit = PoolAudit { free: self.free_frames(), ..PoolAudit::default() };
        let mut on_free_list = vec![0u8; self.meta.len()];
        for &index in &self.free {
            on_free_list[index as usize] = on_free_list[index as usize].saturating_add(1);
        }
        for (meta, &listed) in self.meta.iter().zip(&on_free_list) {
            audit.held += u32::from(meta.refs > 0);
            audit.rights += u64::from(meta.refs);
            audit.tx_pending += u32::from(meta.tx_pending > 0);
            let sound = (listed == 1) == (meta.refs == 0) && listed <= 1 && meta.tx_pending <= meta.refs;
            audit.broken += u32::from(!sound);
        }
        audit
    }

    /// The frames that somebody holds, with how many rights there are to each and how many of those are in a TX ring:
    /// where to look for a leak.
    pub fn held_frames(&self) -> impl Iterator<Item = (u32, u16, u16)> + '_ {
        let held = self.meta.iter().enumerate().filter(|(_, meta)| meta.refs > 0);
        held.map(|(index, meta)| (index as u32, meta.refs, meta.tx_pending))
    }

    /// The frame's bytes.
    #[inline]
    pub fn bytes(&self, frame: &FrameId) -> &[u8] {
        self.region.frame(frame.0)
    }

    /// The frame's bytes, to write. The frame must not be TX-pending.
    #[inline]
    pub fn bytes_mut(&mut self, frame: &FrameId) -> &mut [u8] {
        debug_assert!(!self.tx_pending(frame), "frame {} is written while the NIC reads it", frame.0);
        self.region.frame_mut(frame.0)
    }

    /// Copies `len` bytes at `from_offset` of `from` to `to_offset` of `to`; the frames must differ.
    pub fn copy(&mut self, from: &FrameId, from_offset: usize, to: &FrameId, to_offset: usize, len: usize) {
        debug_assert!(!self.tx_pending(to), "frame {} is written while the NIC reads it", to.0);
        let (source, target) = self.region.two_frames(from.0, to.0);
        target[to_offset..to_offset + len].copy_from_slice(&source[from_offset..from_offset + len]);
    }

    /// Asks the CPU to fetch the cache line at `offset` of the frame.
    #[inline]
    pub fn prefetch(&self, frame: &FrameId, offset: usize) {
        self.region.prefetch(frame.0, offset);
    }
}

#[cfg(test)]
mod tests;
