use proptest::prelude::*;

use super::*;

#[test]
fn a_short_number_expands_to_the_nearest_one() {
    let near = Dsn(0x0000_0001_ffff_fff0);
    assert_eq!(WireDsn::Short(0xffff_fff8).expand(near), Dsn(0x0000_0001_ffff_fff8));
    assert_eq!(WireDsn::Short(0x0000_0010).expand(near), Dsn(0x0000_0002_0000_0010));
}

#[test]
fn an_old_duplicate_from_before_a_wrap_stays_old() {
    let near = Dsn(0x0000_0002_0000_0010);
    assert_eq!(WireDsn::Short(0xffff_fff0).expand(near), Dsn(0x0000_0001_ffff_fff0));
}

#[test]
fn order_survives_the_wrap_of_the_whole_space() {
    let last = Dsn(u64::MAX - 1);
    let first = last + 10;
    assert_eq!(first, Dsn(8));
    assert!(last.before(first) && first.after(last));
    assert_eq!(first.distance_from(last), 10);
    assert_eq!(last.saturating_distance_from(first), 0);
    assert_eq!(last.max(first), first);
    assert_eq!(last.min(first), last);
}

#[test]
fn a_long_number_needs_no_neighbour() {
    assert_eq!(WireDsn::Long(7).expand(Dsn(u64::MAX / 2)), Dsn(7));
}

proptest! {
    #[test]
    fn expansion_restores_every_number_within_half_the_short_space(near in any::<u64>(), ahead in any::<i32>()) {
        let full = Dsn(near.wrapping_add_signed(i64::from(ahead)));
        prop_assert_eq!(WireDsn::new(full, Width::Short).expand(Dsn(near)), full);
        prop_assert_eq!(WireDsn::new(full, Width::Long).expand(Dsn(near)), full);
    }
}
