use proptest::prelude::*;

use super::*;

/// RFC 1071 §1, word by word.
fn naive(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0, |total, pair| add(total, u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
}

#[test]
fn the_example_of_rfc_1071_sums_to_ddf2() {
    assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
}

#[test]
fn the_example_of_rfc_1624_updates_to_zero() {
    assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
}

#[test]
fn a_long_run_of_ones_does_not_overflow() {
    for len in [4096, 65_535, 200_000, 1 << 20] {
        let bytes = vec![0xff; len];
        assert_eq!(sum(&bytes), naive(&bytes), "{len} bytes");
    }
}

#[test]
fn the_pseudo_header_agrees_with_smoltcp() {
    let (src, dst) = ("10.1.2.3".parse::<IpAddr>().unwrap(), "192.0.2.254".parse::<IpAddr>().unwrap());
    let bytes = [10, 1, 2, 3, 192, 0, 2, 254, 0, 6, 0x12, 0x34];
    assert_eq!(pseudo_header(src, dst, 6, 0x1234), naive(&bytes));
    let (src, dst) = ("2001:db8::1".parse::<IpAddr>().unwrap(), "fe80::ffff:1".parse::<IpAddr>().unwrap());
    let IpAddr::V6(v6) = src else { unreachable!() };
    let mut bytes = v6.octets().to_vec();
    let IpAddr::V6(v6) = dst else { unreachable!() };
    bytes.extend(v6.octets());
    bytes.extend([0, 0, 0x12, 0x34, 0, 0, 0, 58]);
    assert_eq!(pseudo_header(src, dst, 58, 0x1234), naive(&bytes));
}

proptest! {
    #[test]
    fn every_sum_equals_the_naive_one(bytes in proptest::collection::vec(any::<u8>(), 0..2100), skip in 0usize..8) {
        let bytes = bytes.get(skip..).unwrap_or(&[]);
        prop_assert_eq!(sum(bytes), naive(bytes));
        prop_assert_eq!(sum_portable(bytes), naive(bytes));
    }

    #[test]
    fn parts_add_up_to_the_whole(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..300) {
        let at = at.min(bytes.len());
        let (head, tail) = bytes.split_at(at);
        let whole = sum(&bytes);
        prop_assert_eq!(add(sum(head), swap_if_odd(sum(tail), at)), whole);
        let head_again = sub(whole, swap_if_odd(sum(tail), at));
        prop_assert!(head_again == sum(head) || [head_again, sum(head)].iter().all(|s| matches!(s, 0 | 0xffff)));
    }

    #[test]
    fn an_update_equals_a_recomputation(mut words in proptest::collection::vec(any::<u16>(), 2..20), at in 0usize..20, new: u16) {
        let at = at % words.len();
        let total = |words: &[u16]| words.iter().fold(0, |total, &word| add(total, word));
        let check = !total(&words);
        let updated = update(check, words[at], new);
        words[at] = new;
        // What a receiver does: everything and the check add up to minus zero (or to zero when all words are zero).
        prop_assert!(matches!(add(total(&words), updated), 0xffff | 0));
    }
}
