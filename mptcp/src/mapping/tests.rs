use proptest::prelude::*;

use super::*;
use crate::testing::{World, stream};

const ORIGIN: SeqNum = SeqNum(u32::MAX - 50);
const FIRST: Dsn = Dsn(u64::MAX - 100);

/// A mapper and what came out of it, along one line: the byte with relative number `ssn` is the stream's `FIRST + ssn - 1`.
struct Fixture {
    world: World,
    mapper: Mapper,
    now: Instant,
    next_in: u32,
    next_out: u64,
}

impl Fixture {
    fn new() -> Self {
        Self { world: World::new(256), mapper: Mapper::new(ORIGIN), now: Instant::ZERO, next_in: 1, next_out: 0 }
    }

    fn mapping(ssn: u32, len: u32) -> Mapping {
        Mapping { dsn: FIRST + u64::from(ssn - 1), start: ORIGIN + ssn, len, checksum: None, fin: false }
    }

    fn summed(ssn: u32, len: u32) -> Mapping {
        let plain = Self::mapping(ssn, len);
        let sum = checksum::sum(&stream(plain.dsn.0, len as usize));
        Mapping { checksum: Some(dss_checksum(plain.dsn, ssn, len as u16, sum)), ..plain }
    }

    fn declare(&mut self, mapping: Mapping) -> Result<(), MappingError> {
        self.mapper.insert(mapping)
    }

    /// The next `len` bytes arrive in order on the subflow.
    fn arrive(&mut self, len: usize) -> Result<(), MappingError> {
        let bytes = stream((FIRST + u64::from(self.next_in - 1)).0, len);
        self.arrive_bytes(&bytes)
    }

    fn arrive_bytes(&mut self, bytes: &[u8]) -> Result<(), MappingError> {
        let mut fresh = RxQueue::new();
        fresh.push_back(self.world.rx(ORIGIN + self.next_in, 0, bytes));
        self.next_in += bytes.len() as u32;
        let mut out = RxQueue::new();
        let outcome = self.mapper.map(self.now, &mut fresh, &mut out, &mut self.world.env());
        for segment in out {
            assert_eq!(Dsn(segment.dsn), FIRST + self.next_out);
            assert_eq!(self.world.bytes(&segment), stream(segment.dsn, usize::from(segment.len)));
            self.world.assert_sum(&segment);
            self.next_out += u64::from(segment.len);
            self.world.pool.release(segment.frame);
        }
        outcome
    }

    fn finish(mut self) {
        self.mapper.clear(&mut self.world.env());
        assert_eq!(self.world.pool.in_use(), 0);
    }
}

#[test]
fn single_bytes_of_a_summed_mapping_share_frames_until_it_is_whole() {
    let mut fixture = Fixture::new();
    fixture.declare(Fixture::summed(1, 4_000)).expect("a mapping");
    for _ in 1..4_000 {
        fixture.arrive(1).expect("a part of the mapping");
    }
    assert!(fixture.world.pool.in_use() <= 3, "{} frames", fixture.world.pool.in_use());
    assert_eq!(fixture.next_out, 0, "nothing goes on before all of it is verified");
    fixture.arrive(1).expect("the checksum matches");
    assert_eq!(fixture.next_out, 4_000);
    fixture.finish();
}

#[test]
fn the_dss_checksum_of_a_lone_data_fin_covers_the_pseudo_header_only() {
    // 0x0102 + 0x0304 + 0x0506 + 0x0708 + 0 + 0 + 1 = 0x1015, inverted.
    assert_eq!(dss_checksum(Dsn(0x0102_0304_0506_0708), 0, 1, 0), !0x1015);
}

#[test]
fn one_mapping_covers_many_segments_and_stands_on_each() {
    let mut f = Fixture::new();
    for _ in 0..3 {
        f.declare(Fixture::mapping(1, 300)).unwrap();
        f.arrive(100).unwrap();
    }
    assert_eq!(f.next_out, 300);
    f.finish();
}

#[test]
fn one_segment_may_span_many_mappings() {
    let mut f = Fixture::new();
    f.declare(Fixture::mapping(1, 33)).unwrap();
    f.declare(Fixture::mapping(34, 7)).unwrap();
    f.declare(Fixture::mapping(41, 60)).unwrap();
    f.arrive(100).unwrap();
    assert_eq!(f.next_out, 100);
    f.finish();
}

#[test]
fn data_waits_for_its_mapping() {
    let mut f = Fixture::new();
    f.declare(Fixture::mapping(1, 10)).unwrap();
    f.arrive(30).unwrap();
    assert_eq!(f.next_out, 10);
    f.declare(Fixture::mapping(11, 40)).unwrap();
    f.arrive(10).unwrap();
    assert_eq!(f.next_out, 40);
    f.finish();
}

#[test]
fn a_mapping_may_arrive_before_its_data_and_out_of_order() {
    let mut f = Fixture::new();
    f.declare(Fixture::mapping(21, 10)).unwrap();
    f.declare(Fixture::mapping(11, 10)).unwrap();
    f.declare(Fixture::mapping(1, 10)).unwrap();
    f.arrive(30).unwrap();
    assert_eq!(f.next_out, 30);
    f.finish();
}

#[test]
fn a_different_mapping_for_bytes_already_mapped_is_a_conflict() {
    let mut f = Fixture::new();
    f.declare(Fixture::mapping(1, 100)).unwrap();
    let wrong = Mapping { dsn: FIRST + 51, ..Fixture::mapping(51, 10) };
    assert_eq!(f.declare(wrong), Err(MappingError::Conflict));
    f.finish();
}

#[test]
fn a_mapping_of_old_bytes_is_ignored_whatever_it_says() {
    let mut f = Fixture::new();
    f.declare(Fixture::mapping(1, 100)).unwrap();
    f.arrive(100).unwrap();
    f.declare(Mapping { dsn: Dsn(0), ..Fixture::mapping(1, 50) }).unwrap();
    f.declare(Fixture::mapping(101, 10)).unwrap();
    f.arrive(10).unwrap();
    assert_eq!(f.next_out, 110);
    f.finish();
}

#[test]
fn a_retransmission_cut_otherwise_extends_what_is_known() {
    let mut f = Fixture::new();
    f.declare(Fixture::mapping(1, 10)).unwrap();
    f.declare(Fixture::mapping(21, 10)).unwrap();
    f.declare(Fixture::mapping(6, 30)).unwrap();
    f.declare(Fixture::mapping(31, 10)).unwrap();
    f.arrive(40).unwrap();
    assert_eq!(f.next_out, 40);
    f.finish();
}

#[test]
fn too_much_data_without_a_mapping_breaks_the_subflow() {
    let mut f = Fixture::new();
    f.world = World::new(MAX_UNMAPPED_FRAMES as u32 + 8);
    for _ in 0..MAX_UNMAPPED_FRAMES {
        f.arrive(1).unwrap();
    }
    assert_eq!(f.arrive(1), Err(MappingError::Unmapped));
    f.finish();
}

#[test]
fn data_that_later_mappings_pass_over_breaks_the_subflow() {
    let mut f = Fixture::new();
    // A middlebox joined two segments and kept the options of one.
    f.declare(Fixture::mapping(1, 100)).unwrap();
    f.arrive(200).unwrap();
    assert_eq!(f.next_out, 100);
    f.declare(Fixture::mapping(201, 100)).unwrap();
    f.arrive(99).unwrap();
    assert_eq!(f.arrive(1), Err(MappingError::Unmapped));
    f.finish();
}

#[test]
fn a_mapping_may_come_with_the_last_of_its_data() {
    let mut f = Fixture::new();
    f.declare(Fixture::mapping(201, 100)).unwrap();
    f.arrive(100).unwrap();
    f.arrive(99).unwrap();
    f.declare(Fixture::mapping(1, 200)).unwrap();
    f.arrive(1).unwrap();
    f.arrive(100).unwrap();
    assert_eq!(f.next_out, 300);
    f.finish();
}

#[test]
fn data_waits_ten_seconds_for_its_mapping() {
    let mut f = Fixture::new();
    f.arrive(16).unwrap();
    f.now = Instant::ZERO + MAX_UNMAPPED_TIME;
    f.arrive(16).unwrap();
    f.declare(Fixture::mapping(1, 32)).unwrap();
    f.arrive(16).unwrap();
    assert_eq!(f.next_out, 32);
    // The last 16 have a time of their own.
    f.now += MAX_UNMAPPED_TIME;
    f.arrive(16).unwrap();
    f.now += mimbox_stack::Duration::from_millis(1);
    assert_eq!(f.arrive(16), Err(MappingError::Unmapped));
    f.finish();
}

#[test]
fn nothing_of_a_summed_mapping_passes_before_all_of_it_verifies() {
    let mut f = Fixture::new();
    f.declare(Fixture::summed(1, 101)).unwrap();
    f.arrive(33).unwrap();
    f.arrive(33).unwrap();
    assert_eq!(f.next_out, 0);
    f.declare(Fixture::summed(102, 20)).unwrap();
    f.arrive(40).unwrap();
    assert_eq!(f.next_out, 101);
    f.arrive(15).unwrap();
    assert_eq!(f.next_out, 121);
    f.finish();
}

#[test]
fn a_changed_byte_fails_the_mapping_that_covers_it() {
    let mut f = Fixture::new();
    f.declare(Fixture::summed(1, 20)).unwrap();
    f.arrive(20).unwrap();
    f.declare(Fixture::summed(21, 20)).unwrap();
    let mut bytes = stream((FIRST + 20).0, 20);
    bytes[7] ^= 1;
    assert_eq!(f.arrive_bytes(&bytes), Err(MappingError::Checksum(FIRST + 20)));
    assert_eq!(f.next_out, 20);
    f.finish();
}

/// One segment and the mapping that comes with it, placed in one step where that will do it.
fn place(world: &mut World, mapper: &mut Mapper, mapping: Mapping, ssn: u32, bytes: &[u8]) -> (bool, String) {
    let mut segment = world.rx(ORIGIN + ssn, 0, bytes);
    let (mut fresh, mut out) = (RxQueue::new(), RxQueue::new());
    if mapper.map_next(&mapping, &mut segment) {
        return (true, told(mapper, &Ok(()), RxQueue::from([segment]), world));
    }
    fresh.push_back(segment);
    let result =
        mapper.insert(mapping).and_then(|()| mapper.map(Instant::ZERO, &mut fresh, &mut out, &mut world.env()));
    out.extend(fresh);
    (false, told(mapper, &result, out, world))
}

/// The same by the two steps.
fn place_in_two(world: &mut World, mapper: &mut Mapper, mapping: Mapping, ssn: u32, bytes: &[u8]) -> String {
    let (mut fresh, mut out) = (RxQueue::new(), RxQueue::new());
    fresh.push_back(world.rx(ORIGIN + ssn, 0, bytes));
    let result =
        mapper.insert(mapping).and_then(|()| mapper.map(Instant::ZERO, &mut fresh, &mut out, &mut world.env()));
    out.extend(fresh);
    told(mapper, &result, out, world)
}

/// What came of it and how the mapper is left, frames given back.
fn told(mapper: &Mapper, result: &Result<(), MappingError>, out: RxQueue, world: &mut World) -> String {
    let text = format!("{result:?} {out:?} {mapper:?}");
    for segment in out {
        world.pool.release(segment.frame);
    }
    text
}

#[test]
fn a_mapping_for_just_its_segment_is_placed_in_one_step() {
    for mapping in [Fixture::mapping(1, 60), Fixture::summed(1, 60), Fixture::mapping(1, 500)] {
        let (mut world, mut mapper) = (World::new(16), Mapper::new(ORIGIN));
        let (one_step, _) = place(&mut world, &mut mapper, mapping, 1, &stream(FIRST.0, 60));
        assert!(one_step);
        assert_eq!(world.pool.in_use(), 0);
    }
}

proptest! {
    #[test]
    fn one_step_does_what_two_do(
        steps in proptest::collection::vec((0u32..4, 0u32..120, 1u32..60, 0u8..4, 0u8..16), 1..30),
    ) {
        let (mut first, mut second) = (World::new(64), World::new(64));
        let (mut one, mut two) = (Mapper::new(ORIGIN), Mapper::new(ORIGIN));
        let mut ssn = 1;
        for (back, covered, len, sums, wrong) in steps {
            let start = ssn - back.saturating_sub(1).min(ssn - 1);
            let covered = if covered < 60 { ssn - start + len } else { covered };
            let mut mapping = if sums == 0 { Fixture::summed(start, covered) } else { Fixture::mapping(start, covered) };
            mapping.dsn += u64::from(wrong == 0);
            let bytes = stream((FIRST + u64::from(ssn - 1)).0, len as usize);
            let (_, told) = place(&mut first, &mut one, mapping, ssn, &bytes);
            prop_assert_eq!(told, place_in_two(&mut second, &mut two, mapping, ssn, &bytes));
            ssn += len;
        }
        one.clear(&mut first.env());
        two.clear(&mut second.env());
    }

    #[test]
    fn mappings_and_segments_cut_at_random_give_the_stream(
        maps in prop::collection::vec(1_u32..200, 1..12),
        cuts in prop::collection::vec(1_usize..150, 1..40),
        summed in any::<bool>(),
    ) {
        let mut f = Fixture::new();
        let mut ssn = 1;
        for len in maps {
            let mapping = if summed { Fixture::summed(ssn, len) } else { Fixture::mapping(ssn, len) };
            f.declare(mapping).unwrap();
            ssn += len;
        }
        let total = ssn - 1;
        for cut in cuts.into_iter().cycle() {
            let left = (total - (f.next_in - 1)) as usize;
            if left == 0 {
                break;
            }
            f.arrive(cut.min(left)).unwrap();
        }
        prop_assert_eq!(f.next_out, u64::from(total));
        f.finish();
    }
}
