//! The out-of-order queue against a naive model: one flag a byte.

use proptest::prelude::*;

use super::*;
use crate::mem::Region;
use crate::{Counters, FramePool, PoolConfig, RingPool, Rng, checksum};

/// Bytes of the stream that the model knows of.
const SPAN: usize = 600;
/// Where payload stands in a frame.
const OFFSET: u16 = 300;

struct World {
    pool: FramePool,
    rx_rings: RingPool<RxSegment>,
    tx_rings: RingPool<crate::TxSegment>,
    counters: Counters,
    rng: Rng,
}

impl World {
    fn new(frames: u32) -> Self {
        Self {
            pool: FramePool::new(Region::map(frames, 2048).expect("memory"), PoolConfig { rx_reserve: 0 }),
            rx_rings: RingPool::default(),
            tx_rings: RingPool::default(),
            counters: Counters::default(),
            rng: Rng::from_u64(1),
        }
    }

    fn env(&mut self) -> Env<'_> {
        let Self { pool, rx_rings, tx_rings, counters, rng } = self;
        Env { pool, rx_rings, tx_rings, counters, rng }
    }

    /// `len` bytes of the stream from `at` on, as they are received.
    fn segment(&mut self, base: SeqNum, at: usize, len: usize) -> RxSegment {
        let frame = self.pool.alloc().expect("a frame");
        let start = usize::from(OFFSET);
        let room = &mut self.pool.bytes_mut(&frame)[start..start + len];
        room.iter_mut().zip(at..).for_each(|(byte, place)| *byte = stream(place));
        let sum = checksum::sum(room);
        RxSegment { dsn: 0, frame, seq: base + at as u32, offset: OFFSET, len: len as u16, sum, tag: 0 }
    }
}

fn stream(place: usize) -> u8 {
    (place * 31 + place / 256) as u8
}

/// The runs of `true`, as half-open ranges.
fn runs(present: &[bool]) -> Vec<(usize, usize)> {
    let mut runs = Vec::new();
    let mut start = None;
    for (place, &there) in present.iter().chain([&false]).enumerate() {
        match (there, start) {
            (true, None) => start = Some(place),
            (false, Some(from)) => {
                runs.push((from, place));
                start = None;
            }
            _ => {}
        }
    }
    runs
}

/// The queue holds just the bytes that are `present`, each once and as it was sent.
fn check(queue: &OutOfOrder, world: &World, base: SeqNum, present: &[bool]) {
    let mut held = vec![false; SPAN];
    let mut last = 0;
    for index in 0..queue.ring.len() {
        let segment = queue.ring.get(index).expect("within its length");
        let (from, len) = (segment.seq.distance_from(base) as usize, usize::from(segment.len));
        assert!(from >= last && len > 0, "in order, without overlap, not empty");
        last = from + len;
        held[from..last].fill(true);
        let start = usize::from(segment.offset);
        let bytes = &world.pool.bytes(&segment.frame)[start..start + len];
        assert!(bytes.iter().zip(from..).all(|(&byte, place)| byte == stream(place)));
        assert_eq!(segment.sum, checksum::sum(bytes));
    }
    assert_eq!(held, present);
}

/// The blocks are the runs of what is `present`: so while there were never more runs than blocks are remembered.
fn check_blocks(queue: &OutOfOrder, base: SeqNum, present: &[bool]) {
    let runs = runs(present);
    for block in &queue.blocks {
        let block = (block.start.distance_from(base) as usize, block.end.distance_from(base) as usize);
        assert!(runs.contains(&block), "{block:?} is no run of {runs:?}");
    }
    assert_eq!(queue.blocks.len(), runs.len(), "a block for each run");
}

proptest! {
    #[test]
    fn any_pieces_in_any_order_are_kept_once(
        base in prop_oneof![Just(1_000_u32), Just(u32::MAX - 200)],
        pieces in prop::collection::vec((1_usize..500, 1_usize..90), 1..40),
    ) {
        let (base, mut queue, mut world) = (SeqNum(base), OutOfOrder::default(), World::new(64));
        let mut present = vec![false; SPAN];
        let mut remembered = true;
        for &(at, len) in &pieces {
            let segment = world.segment(base, at, len);
            let new = present[at..at + len].iter().any(|&there| !there);
            let inserted = queue.insert(segment, &mut world.env());
            present[at..at + len].fill(true);
            // One that covers several whole takes their place even when it brings nothing.
            prop_assert!(inserted || !new, "what is new is kept");
            check(&queue, &world, base, &present);
            remembered &= runs(&present).len() <= SACK_MEMORY;
            if remembered {
                check_blocks(&queue, base, &present);
            }
            prop_assert_eq!(world.pool.in_use() as usize, queue.len(), "a frame a segment");
        }
        queue.clear(&mut world.env());
        prop_assert_eq!(world.pool.in_use(), 0);
    }

    #[test]
    fn the_first_block_is_the_one_that_arrived_last(
        pieces in prop::collection::vec((1_usize..500, 1_usize..40), 1..20),
    ) {
        let (base, mut queue, mut world) = (SeqNum(7), OutOfOrder::default(), World::new(64));
        let mut present = vec![false; SPAN];
        for &(at, len) in &pieces {
            let segment = world.segment(base, at, len);
            let inserted = queue.insert(segment, &mut world.env());
            present[at..at + len].fill(true);
            if inserted {
                // RFC 2018 §4: the first block holds the segment that triggered the acknowledgment.
                let around = runs(&present).into_iter().find(|&(from, to)| from <= at && at + len <= to);
                let first = queue.blocks.first().map(|block| {
                    (block.start.distance_from(base) as usize, block.end.distance_from(base) as usize)
                });
                prop_assert_eq!(first.map(|(from, _)| around.is_some_and(|run| run.0 <= from)), Some(true));
                prop_assert!(first.is_some_and(|(from, to)| around.is_some_and(|run| run.0 <= from && to <= run.1)));
            }
        }
        queue.clear(&mut world.env());
    }
}
