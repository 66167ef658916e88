//! What the unit tests share: a small world of frames and a way to make payload.

use mimbox_stack::mem::Region;
use mimbox_stack::{Counters, Env, FramePool, PoolConfig, RingPool, Rng, RxSegment, SeqNum, TxSegment, checksum};

/// Where payload starts in the frames of the tests.
pub(crate) const OFFSET: u16 = 200;

/// Everything that an `Env` borrows.
pub(crate) struct World {
    pub(crate) pool: FramePool,
    pub(crate) rx_rings: RingPool<RxSegment>,
    pub(crate) tx_rings: RingPool<TxSegment>,
    pub(crate) counters: Counters,
    pub(crate) rng: Rng,
}

impl World {
    pub(crate) fn new(frames: u32) -> Self {
        let region = Region::map(frames, 2048).expect("a region of small frames");
        Self {
            pool: FramePool::new(region, PoolConfig { rx_reserve: 0 }),
            rx_rings: RingPool::default(),
            tx_rings: RingPool::default(),
            counters: Counters::default(),
            rng: Rng::from_u64(7),
        }
    }

    pub(crate) fn env(&mut self) -> Env<'_> {
        Env {
            pool: &mut self.pool,
            rx_rings: &mut self.rx_rings,
            tx_rings: &mut self.tx_rings,
            counters: &mut self.counters,
            rng: &mut self.rng,
        }
    }

    /// A segment with payload `bytes` at sequence number `seq` and data sequence number `dsn`.
    pub(crate) fn rx(&mut self, seq: SeqNum, dsn: u64, bytes: &[u8]) -> RxSegment {
        let frame = self.pool.alloc().expect("a free frame");
        let at = usize::from(OFFSET);
        self.pool.bytes_mut(&frame)[at..at + bytes.len()].copy_from_slice(bytes);
        RxSegment { dsn, frame, seq, offset: OFFSET, len: bytes.len() as u16, sum: checksum::sum(bytes), tag: 0 }
    }

    pub(crate) fn bytes(&self, segment: &RxSegment) -> Vec<u8> {
        let at = usize::from(segment.offset);
        self.pool.bytes(&segment.frame)[at..at + usize::from(segment.len)].to_vec()
    }

    /// Checks that the cached sum is that of the bytes (both forms of zero being one).
    pub(crate) fn assert_sum(&self, segment: &RxSegment) {
        let computed = checksum::sum(&self.bytes(segment));
        assert_eq!(segment.sum % 0xffff, computed % 0xffff, "cached sum of {segment:?}");
    }
}

/// The byte that stands at `dsn` of the stream of every test.
pub(crate) fn byte_at(dsn: u64) -> u8 {
    (dsn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// `len` bytes of the stream from `dsn` on.
pub(crate) fn stream(dsn: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| byte_at(dsn.wrapping_add(i))).collect()
}
