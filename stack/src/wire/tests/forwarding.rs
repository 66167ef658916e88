use super::*;
use crate::options::SynOptions;

/// A SYN in a frame buffer, its Ethernet header at 40.
fn syn(flow: &FlowKey, mss: Option<u16>, shift_by_one: bool) -> (Vec<u8>, IpInfo) {
    let mut out = Outgoing::bare(SeqNum(9), SeqNum(0), TcpFlags::SYN);
    if shift_by_one {
        let [high, low] = mss.unwrap_or_default().to_be_bytes();
        out.upper.extend([1, 2, 4, high, low, 1, 1, 1]);
    } else {
        out.syn = Some(SynOptions { mss, window_scale: Some(3), sack_permitted: true });
    }
    let packet = packet_of(&mut pool(), flow, &link(), out);
    let mut frame = vec![0xee; 40];
    frame.extend_from_slice(&packet);
    frame.extend([0xee; 40]);
    let (info, _) = parsed_tcp(&packet, 40);
    (frame, info)
}

fn reparsed(frame: &[u8], info: &IpInfo) -> (IpInfo, SegmentIn) {
    parsed_tcp(&frame[usize::from(info.start)..usize::from(info.end)], info.start)
}

#[test]
fn a_hop_lowers_the_limit_and_keeps_the_sums_right() {
    for flow in [flow_v4(), flow_v6()] {
        let (mut frame, mut info) = syn(&flow, Some(1460), false);
        for ttl in (1..64).rev() {
            assert_eq!(decrement_ttl(&mut frame, &info), Hop::Alive);
            info = reparsed(&frame, &info).0;
            assert_eq!(info.ttl, ttl);
        }
        let before = frame.clone();
        assert_eq!(decrement_ttl(&mut frame, &info), Hop::Expired);
        assert_eq!(frame, before);
    }
}

#[test]
fn a_higher_mss_is_lowered_wherever_it_stands() {
    for flow in [flow_v4(), flow_v6()] {
        for odd in [false, true] {
            let (mut frame, info) = syn(&flow, Some(1460), odd);
            assert!(lower_mss(&mut frame, &info, 1436));
            assert_eq!(reparsed(&frame, &info).1.options.syn.mss, Some(1436));
        }
    }
}

#[test]
fn a_lower_or_absent_mss_stays() {
    for mss in [None, Some(536), Some(1436)] {
        let (mut frame, info) = syn(&flow_v4(), mss, false);
        let before = frame.clone();
        assert!(!lower_mss(&mut frame, &info, 1436));
        assert_eq!(frame, before);
    }
}

#[test]
fn the_mss_of_a_segment_without_syn_is_left_alone() {
    let mut out = Outgoing::bare(SeqNum(9), SeqNum(0), TcpFlags::ACK);
    out.upper.extend([2, 4, 0xff, 0xff]);
    let mut packet = packet_of(&mut pool(), &flow_v4(), &link(), out);
    let (info, _) = parsed_tcp(&packet, 0);
    assert!(!lower_mss(&mut packet, &info, 1000));
}

#[test]
fn a_packet_changes_its_link_but_nothing_else() {
    let (mut frame, info) = syn(&flow_v6(), Some(1460), false);
    let before = frame.clone();
    let onward = LinkHeader { src: MacAddr([2, 0, 0, 0, 9, 9]), dst: MacAddr([2, 0, 0, 0, 8, 8]), vlan: Some(42) };
    let (start, len) = set_link(&mut frame, &info, &onward).unwrap();
    assert_eq!((start, len), (info.start - 4, info.end - info.start + 4));
    let packet = &frame[usize::from(start)..usize::from(start + len)];
    assert_eq!(parsed_tcp(packet, start).0.link, onward);
    assert_eq!(frame[usize::from(info.ip_offset)..], before[usize::from(info.ip_offset)..]);
    assert_eq!(frame[..usize::from(start)], before[..usize::from(start)]);
}

#[test]
fn a_tag_without_room_is_refused() {
    let (frame, mut info) = syn(&flow_v4(), None, false);
    let mut frame = frame[38..].to_vec();
    (info.start, info.ip_offset, info.l4_offset, info.end) =
        (info.start - 38, info.ip_offset - 38, info.l4_offset - 38, info.end - 38);
    assert_eq!(set_link(&mut frame, &info, &LinkHeader { vlan: Some(1), ..link() }), None);
}

proptest! {
    #[test]
    fn any_options_are_survived_by_the_mss_rewriter(options in proptest::collection::vec(any::<u8>(), 0..=40), mss: u16) {
        let mut out = Outgoing::bare(SeqNum(9), SeqNum(0), TcpFlags::SYN);
        out.upper.extend(options);
        let mut packet = packet_of(&mut pool(), &flow_v4(), &link(), out);
        let Ok(Parsed::Tcp(info, before)) = parse(&packet, 0, Verify::All) else { return Ok(()) };
        let changed = lower_mss(&mut packet, &info, mss);
        let after = parsed_tcp(&packet, 0).1;
        prop_assert_eq!(changed, before.options.syn.mss.is_some_and(|was| was > mss));
        prop_assert_eq!(after.options.syn.mss, before.options.syn.mss.map(|was| was.min(mss)));
    }
}
