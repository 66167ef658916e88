use mimbox_stack::{SeqNum, TxFlags};
use proptest::prelude::*;

use super::*;
use crate::testing::{World, stream};

proptest! {
    #[test]
    fn cutting_anywhere_keeps_bytes_numbers_and_sums(len in 2_u16..300, at in 1_u16..300) {
        let at = at % (len - 1) + 1;
        let mut world = World::new(4);
        let bytes = stream(9, usize::from(len));
        let mut tail = world.rx(SeqNum(u32::MAX - 3), u64::MAX - 5, &bytes);
        let head = split_front(&mut tail, at, &mut world.pool);
        prop_assert_eq!(world.bytes(&head), &bytes[..usize::from(at)]);
        prop_assert_eq!(world.bytes(&tail), &bytes[usize::from(at)..]);
        prop_assert_eq!(tail.seq, head.end());
        prop_assert_eq!(tail.dsn, head.dsn.wrapping_add(u64::from(at)));
        world.assert_sum(&head);
        world.assert_sum(&tail);
        prop_assert_eq!(world.pool.refs(&head.frame), 2);
        world.pool.release(head.frame);
        let keep = tail.len / 2 + 1;
        keep_front(&mut tail, keep, &world.pool);
        world.assert_sum(&tail);
        world.pool.release(tail.frame);
        prop_assert_eq!(world.pool.in_use(), 0);
    }
}

#[test]
fn payload_to_be_sent_is_cut_with_its_flags() {
    let mut world = World::new(4);
    let bytes = stream(0, 101);
    let rx = world.rx(SeqNum(0), 0, &bytes);
    let mut tail = TxSegment::from_rx(rx);
    tail.dsn = 1000;
    tail.flags = TxFlags::PUSH;
    let head = split_tx_front(&mut tail, 1, &mut world.pool);
    assert_eq!((head.dsn, head.len, tail.dsn, tail.len), (1000, 1, 1001, 100));
    assert_eq!(head.flags, TxFlags::PUSH);
    assert_eq!(tail.sum % 0xffff, checksum::sum(&bytes[1..]) % 0xffff);
    world.pool.release(head.frame);
    world.pool.release(tail.frame);
    assert_eq!(world.pool.in_use(), 0);
}
