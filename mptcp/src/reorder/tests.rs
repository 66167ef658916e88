use mimbox_stack::SeqNum;
use proptest::prelude::*;

use super::*;
use crate::testing::{World, stream};

fn put(queue: &mut ReorderQueue, world: &mut World, dsn: u64, len: usize, limit: usize) -> Inserted {
    let segment = world.rx(SeqNum(0), dsn, &stream(dsn, len));
    queue.insert(segment, limit, &mut world.env())
}

/// Takes what is ready from `rcv_nxt` on and checks it; gives the next number.
fn drain(queue: &mut ReorderQueue, world: &mut World, mut rcv_nxt: u64) -> u64 {
    while let Some(segment) = queue.pop_ready(Dsn(rcv_nxt), &mut world.env()) {
        assert_eq!(segment.dsn, rcv_nxt);
        assert_eq!(world.bytes(&segment), stream(rcv_nxt, usize::from(segment.len)));
        world.assert_sum(&segment);
        rcv_nxt = rcv_nxt.wrapping_add(u64::from(segment.len));
        world.pool.release(segment.frame);
    }
    rcv_nxt
}

#[test]
fn a_hole_holds_back_what_follows_it() {
    let (mut queue, mut world) = (ReorderQueue::default(), World::new(8));
    assert_eq!(put(&mut queue, &mut world, 100, 10, 8), Inserted::New);
    assert_eq!(put(&mut queue, &mut world, 120, 10, 8), Inserted::New);
    assert_eq!(drain(&mut queue, &mut world, 100), 110);
    assert_eq!(drain(&mut queue, &mut world, 110), 110);
    assert_eq!(put(&mut queue, &mut world, 110, 10, 8), Inserted::New);
    assert_eq!(drain(&mut queue, &mut world, 110), 130);
    assert!(queue.is_empty());
    assert_eq!((queue.bytes(), world.pool.in_use()), (0, 0));
}

#[test]
fn single_bytes_beyond_a_hole_share_frames() {
    let (mut queue, mut world) = (ReorderQueue::default(), World::new(64));
    for dsn in 101..3_000 {
        assert_eq!(put(&mut queue, &mut world, dsn, 1, 8), Inserted::New);
    }
    assert_eq!((queue.len(), queue.bytes(), world.pool.in_use()), (3, 2_899, 3));
    put(&mut queue, &mut world, 100, 1, 8);
    assert_eq!(drain(&mut queue, &mut world, 100), 3_000);
    assert_eq!(world.pool.in_use(), 0);
}

#[test]
fn a_full_queue_gives_up_its_highest_segment_for_a_lower_one() {
    let (mut queue, mut world) = (ReorderQueue::default(), World::new(8));
    put(&mut queue, &mut world, 100, 10, 2);
    put(&mut queue, &mut world, 200, 10, 2);
    assert_eq!(put(&mut queue, &mut world, 300, 10, 2), Inserted::Full);
    assert_eq!(put(&mut queue, &mut world, 150, 10, 2), Inserted::New);
    assert_eq!((queue.len(), queue.bytes(), world.pool.in_use()), (2, 20, 2));
    queue.clear(&mut world.env());
    assert_eq!((queue.bytes(), world.pool.in_use()), (0, 0));
}

#[test]
fn bytes_that_are_there_already_are_ignored() {
    let (mut queue, mut world) = (ReorderQueue::default(), World::new(8));
    put(&mut queue, &mut world, 100, 20, 8);
    assert_eq!(put(&mut queue, &mut world, 100, 20, 8), Inserted::Duplicate);
    assert_eq!(put(&mut queue, &mut world, 105, 5, 8), Inserted::Duplicate);
    assert_eq!(put(&mut queue, &mut world, 90, 40, 8), Inserted::New, "covers the one that was there");
    assert_eq!((queue.len(), queue.bytes()), (1, 40));
    assert_eq!(drain(&mut queue, &mut world, 95), 130, "what lies before the stream's next byte is dropped");
    assert_eq!(world.pool.in_use(), 0);
}

proptest! {
    #[test]
    fn any_order_with_any_overlap_gives_the_stream_once(
        base in prop_oneof![Just(1000_u64), Just(u64::MAX - 200)],
        pieces in prop::collection::vec((0_u64..400, 1_usize..60), 1..60),
    ) {
        let (mut queue, mut world) = (ReorderQueue::default(), World::new(128));
        let mut present = [false; 500];
        for &(at, len) in &pieces {
            put(&mut queue, &mut world, base.wrapping_add(at), len, 128);
            present[at as usize..at as usize + len].fill(true);
            let waiting = present.iter().filter(|&&byte| byte).count() as u64;
            prop_assert_eq!(queue.bytes(), waiting);
        }
        let ready = present.iter().take_while(|&&byte| byte).count() as u64;
        prop_assert_eq!(drain(&mut queue, &mut world, base), base.wrapping_add(ready));
        queue.clear(&mut world.env());
        prop_assert_eq!(world.pool.in_use(), 0);
    }
}
