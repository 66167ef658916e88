use proptest::prelude::*;

use super::*;

/// A position in a stream that never wraps, and the sequence number that stands for it.
fn at(start: u32, position: u64) -> SeqNum {
    SeqNum(start.wrapping_add(position as u32))
}

proptest! {
    #[test]
    fn order_is_that_of_the_stream_within_half_the_space(
        start: u32,
        base in 0_u64..1 << 40,
        ahead in 0_u64..1 << 31,
    ) {
        let (one, other) = (at(start, base), at(start, base + ahead));
        prop_assert_eq!(one.before(other), ahead > 0);
        prop_assert_eq!(other.after(one), ahead > 0);
        prop_assert!(one.at_or_before(other) && other.at_or_after(one));
        prop_assert_eq!(one.max(other), other);
        prop_assert_eq!(one.min(other), one);
        prop_assert_eq!(u64::from(other.distance_from(one)), ahead);
        prop_assert_eq!(u64::from(other.saturating_distance_from(one)), ahead);
        prop_assert_eq!(one.saturating_distance_from(other), 0);
    }

    #[test]
    fn a_number_is_neither_before_nor_after_itself(n: u32) {
        let n = SeqNum(n);
        prop_assert!(!n.before(n) && !n.after(n) && n.at_or_before(n) && n.at_or_after(n));
    }

    #[test]
    fn going_forward_and_back_comes_home(n: u32, step: u32) {
        let mut there = SeqNum(n) + step;
        prop_assert_eq!(there - step, SeqNum(n));
        prop_assert_eq!(there.distance_from(SeqNum(n)), step);
        there += u32::MAX - step;
        there += 1;
        prop_assert_eq!(there, SeqNum(n), "2^32 in all");
    }
}
