use proptest::prelude::*;

use super::*;
use crate::wire::TcpFlags;

fn out() -> Outgoing {
    Outgoing::bare(SeqNum(0), SeqNum(0), TcpFlags::ACK)
}

fn full_syn() -> Outgoing {
    let mut out = out();
    out.syn = Some(SynOptions { mss: Some(1460), window_scale: Some(7), sack_permitted: true });
    out.timestamps = Some(Timestamps { value: 1, echo: 2 });
    out
}

#[test]
fn a_full_syn_takes_twenty_bytes_and_leaves_twenty() {
    let bytes = emit(&full_syn());
    assert_eq!(bytes.as_slice(), [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 7]);
}

#[test]
fn mptcp_and_an_ipv4_destination_fit_a_syn_with_timestamps() {
    let mut out = full_syn();
    out.upper.extend([30, 4, 1, 1, 253, 10, 0x4d, 0x42, 192, 0, 2, 1, 0, 80]);
    let bytes = emit(&out);
    assert_eq!(bytes.len(), 36);
    let parsed = TcpOptions::parse(&bytes).unwrap();
    assert_eq!(parsed.mptcp_slices().collect::<Vec<_>>(), [&[30, 4, 1, 1]]);
    assert_eq!(parsed.slice(parsed.experimental.unwrap()), [253, 10, 0x4d, 0x42, 192, 0, 2, 1, 0, 80]);
}

#[test]
fn timestamps_alone_are_led_by_two_nops() {
    let mut out = out();
    out.timestamps = Some(Timestamps { value: 0x0102_0304, echo: 0x0506_0708 });
    assert_eq!(emit(&out).as_slice(), [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn upper_options_are_padded_to_a_multiple_of_four() {
    let mut out = out();
    out.timestamps = Some(Timestamps::default());
    out.upper.extend([30, 22]);
    out.upper.extend([0; 20]);
    let bytes = emit(&out);
    assert_eq!(bytes.len(), 12 + 24);
    assert_eq!(bytes[34..], [1, 1]);
}

#[test]
fn only_the_sack_blocks_that_fit_are_sent() {
    for (upper, timestamps, blocks) in [(0, false, 4), (0, true, 3), (12, true, 1), (12, false, 3), (24, true, 0)] {
        let mut out = out();
        out.timestamps = timestamps.then(Timestamps::default);
        out.upper = if upper == 0 {
            OptionBytes::new()
        } else {
            [30, upper].into_iter().chain([0; 38]).take(usize::from(upper)).collect()
        };
        out.sack = (0..4).map(|n| SackBlock { start: SeqNum(n * 10), end: SeqNum(n * 10 + 5) }).collect();
        let bytes = emit(&out);
        assert!(bytes.len() <= 40 && bytes.len().is_multiple_of(4));
        let parsed = TcpOptions::parse(&bytes).unwrap();
        assert_eq!(parsed.sack.as_slice(), &out.sack[..blocks], "{upper} bytes above, timestamps {timestamps}");
    }
}

#[test]
fn only_the_first_option_of_a_kind_counts() {
    let parsed = TcpOptions::parse(&[2, 4, 1, 0, 2, 4, 2, 0, 3, 3, 1, 3, 3, 2]).unwrap();
    assert_eq!(parsed.syn, SynOptions { mss: Some(256), window_scale: Some(1), sack_permitted: false });
}

#[test]
fn a_window_scale_above_fourteen_counts_as_fourteen() {
    assert_eq!(TcpOptions::parse(&[3, 3, 200, 0]).unwrap().syn.window_scale, Some(14));
}

#[test]
fn an_unknown_kind_is_skipped_by_its_length() {
    let parsed = TcpOptions::parse(&[99, 5, 0, 0, 0, 2, 4, 5, 0xb4]).unwrap();
    assert_eq!(parsed.syn.mss, Some(1460));
}

#[test]
fn nothing_behind_the_end_of_the_list_is_read() {
    let parsed = TcpOptions::parse(&[1, 0, 2, 0, 99, 99]).unwrap();
    assert_eq!(parsed.syn, SynOptions::default());
}

#[test]
fn malformed_lengths_are_errors() {
    for bytes in [&[2u8] as &[u8], &[2, 0], &[2, 1], &[99, 3], &[30, 41, 0], &[8, 10, 0, 0]] {
        assert_eq!(TcpOptions::parse(bytes).unwrap_err(), OptionError::Length { kind: bytes[0] });
    }
    for bytes in [&[2u8, 3, 0] as &[u8], &[3, 2], &[4, 3, 0], &[8, 6, 0, 0, 0, 0], &[5, 2], &[5, 6, 0, 0, 0, 0]] {
        let error = OptionError::KnownLength { kind: bytes[0], len: bytes[1] };
        assert_eq!(TcpOptions::parse(bytes).unwrap_err(), error);
    }
    assert_eq!(TcpOptions::parse(&[1; 41]).unwrap_err(), OptionError::TooLong);
}

#[test]
fn several_mptcp_options_are_handed_on_in_order() {
    let parsed = TcpOptions::parse(&[30, 3, 0x50, 1, 30, 4, 0x60, 9, 34, 2]).unwrap();
    assert_eq!(parsed.mptcp_slices().collect::<Vec<_>>(), [&[30u8, 3, 0x50] as &[u8], &[30, 4, 0x60, 9]]);
    assert_eq!(parsed.slice(parsed.fast_open.unwrap()), [34, 2]);
}

fn any_out() -> impl Strategy<Value = Outgoing> {
    let syn = (any::<Option<u16>>(), proptest::option::of(0u8..=14), any::<bool>())
        .prop_map(|(mss, window_scale, sack_permitted)| SynOptions { mss, window_scale, sack_permitted });
    let stamps = (any::<u32>(), any::<u32>()).prop_map(|(value, echo)| Timestamps { value, echo });
    let block = (any::<u32>(), any::<u32>()).prop_map(|(a, b)| SackBlock { start: SeqNum(a), end: SeqNum(b) });
    let upper = proptest::collection::vec(any::<u8>(), 0..=18);
    (proptest::option::of(syn), proptest::option::of(stamps), proptest::collection::vec(block, 0..=4), upper).prop_map(
        |(syn, timestamps, sack, upper)| {
            let mut out = out();
            out.syn = syn;
            out.timestamps = timestamps;
            out.sack = sack.into_iter().collect();
            if !upper.is_empty() {
                out.upper.extend([30, upper.len() as u8 + 2]);
                out.upper.extend(upper);
            }
            out
        },
    )
}

proptest! {
    #[test]
    fn what_is_emitted_parses_to_the_same(out in any_out()) {
        let bytes = emit(&out);
        prop_assert!(bytes.len() <= 40 && bytes.len().is_multiple_of(4));
        let parsed = TcpOptions::parse(&bytes).unwrap();
        prop_assert_eq!(parsed.syn, out.syn.unwrap_or_default());
        prop_assert_eq!(parsed.timestamps, out.timestamps);
        prop_assert!(out.sack.starts_with(&parsed.sack));
        let room = 40 - (bytes.len() - if parsed.sack.is_empty() { 0 } else { 4 + 8 * parsed.sack.len() });
        prop_assert_eq!(parsed.sack.len(), out.sack.len().min(room.saturating_sub(4) / 8));
        let upper: Vec<&[u8]> = parsed.mptcp_slices().collect();
        if out.upper.is_empty() { prop_assert!(upper.is_empty()) } else { prop_assert_eq!(upper, [out.upper.as_slice()]) }
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..=44)) {
        if let Ok(parsed) = TcpOptions::parse(&bytes) {
            prop_assert!(parsed.mptcp_slices().all(|option| option.len() >= 2 && option[0] == 30));
        }
    }

    #[test]
    fn plausible_bytes_are_survived(
        options in proptest::collection::vec((prop_oneof![0u8..=8, Just(30), Just(34), Just(253)], 0u8..=12), 0..8),
    ) {
        let bytes: Vec<u8> = options
            .iter()
            .flat_map(|&(kind, len)| [kind, len].into_iter().chain([7; 10]).take(usize::from(len.max(1))))
            .take(40)
            .collect();
        let _ = TcpOptions::parse(&bytes);
    }
}
