use super::*;

const KINDS: [IcmpKind; 8] = [
    IcmpKind::NetUnreachable,
    IcmpKind::HostUnreachable,
    IcmpKind::ProtocolUnreachable,
    IcmpKind::PortUnreachable,
    IcmpKind::Prohibited,
    IcmpKind::TooBig,
    IcmpKind::TimeExceeded,
    IcmpKind::ParameterProblem,
];

fn router(flow: &FlowKey) -> IpAddr {
    if flow.local.is_ipv4() { IpAddr::from([203, 0, 113, 1]) } else { IpAddr::from([0x2001, 0xdb8, 9, 0, 0, 0, 0, 1]) }
}

/// The error that `flow`'s router sends about `quoted`, as a packet.
fn error_packet(flow: &FlowKey, kind: IcmpKind, quoted: &[u8]) -> Vec<u8> {
    let mut pool = pool();
    let mut counters = Counters::default();
    let out = IcmpOut { src: router(flow), dst: flow.local, kind, mtu: 1400, quoted };
    let (frame, offset, len) = emit_icmp_error(&mut pool, &link(), &out, 5, &mut counters).unwrap();
    assert_eq!(counters.get(Counter::IcmpSent), 1);
    let packet = pool.bytes(&frame)[usize::from(offset)..][..usize::from(len)].to_vec();
    pool.release(frame);
    packet
}

fn icmp_info(packet: &[u8]) -> IpInfo {
    match parse(packet, 0, Verify::All).unwrap() {
        Parsed::Icmp(info) => info,
        found => panic!("not ICMP: {found:?}"),
    }
}

#[test]
fn every_error_round_trips_and_names_its_segment() {
    for flow in [flow_v4(), flow_v6()] {
        let segment = tcp_packet(&flow, &link(), b"payload");
        for kind in KINDS {
            let packet = error_packet(&flow, kind, &segment[14..]);
            let error = parse_icmp_error(&packet, &icmp_info(&packet)).unwrap();
            let mtu = if kind == IcmpKind::TooBig { 1400 } else { 0 };
            let icmp = IcmpIn { kind, mtu, quoted_seq: SeqNum(0x0102_0304) };
            assert_eq!(error, IcmpError { flow, icmp });
        }
    }
}

#[test]
fn smoltcp_reads_the_errors() {
    let segment = tcp_packet(&flow_v4(), &link(), &[7; 1200]);
    let packet = error_packet(&flow_v4(), IcmpKind::HostUnreachable, &segment[14..]);
    let ip = other::Ipv4Packet::new_checked(&packet[14..]).unwrap();
    // RFC 1812 §4.3.2.3: at most 576 bytes.
    assert_eq!((ip.total_len(), ip.verify_checksum()), (576, true));
    let icmp = other::Icmpv4Packet::new_checked(ip.payload()).unwrap();
    assert!(icmp.verify_checksum());
    assert_eq!(icmp.msg_type(), other::Icmpv4Message::DstUnreachable);
    let segment = tcp_packet(&flow_v6(), &link(), &[7; 1400]);
    let packet = error_packet(&flow_v6(), IcmpKind::TooBig, &segment[14..]);
    let ip = other::Ipv6Packet::new_checked(&packet[14..]).unwrap();
    assert_eq!(ip.total_len(), 1280);
    let icmp = other::Icmpv6Packet::new_checked(ip.payload()).unwrap();
    assert!(icmp.verify_checksum(&ip.src_addr(), &ip.dst_addr()));
    assert_eq!((icmp.msg_type(), icmp.pkt_too_big_mtu()), (other::Icmpv6Message::PktTooBig, 1400));
}

#[test]
fn a_rebuilt_quotation_names_the_syn_of_the_client() {
    for flow in [flow_v4(), flow_v6()] {
        // The box received the SYN on the mirror of the client's flow.
        let quoted = quote(&flow.reversed(), SeqNum(4711), TcpFlags::SYN);
        let packet = error_packet(&flow, IcmpKind::PortUnreachable, &quoted);
        let error = parse_icmp_error(&packet, &icmp_info(&packet)).unwrap();
        assert_eq!((error.flow, error.icmp.quoted_seq), (flow, SeqNum(4711)));
        let mut whole = vec![0; 12];
        whole.extend(if flow.local.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 }.to_be_bytes());
        whole.extend(&quoted);
        let (_, segment) = parsed_tcp(&whole, 0);
        assert_eq!((segment.seq, segment.flags), (SeqNum(4711), TcpFlags::SYN));
    }
}

#[test]
fn a_quotation_of_eight_bytes_is_enough_and_fewer_are_not() {
    for (flow, ip_len) in [(flow_v4(), 20), (flow_v6(), 40)] {
        let segment = tcp_packet(&flow, &link(), b"");
        for cut in 0..12 {
            let packet = error_packet(&flow, IcmpKind::TimeExceeded, &segment[14..14 + ip_len + cut]);
            assert_eq!(parse_icmp_error(&packet, &icmp_info(&packet)).is_some(), cut >= 8, "{cut} bytes");
        }
    }
}

#[test]
fn what_is_no_error_about_a_segment_is_passed_over() {
    let segment = tcp_packet(&flow_v4(), &link(), b"");
    let packet = error_packet(&flow_v4(), IcmpKind::TooBig, &segment[14..]);
    let info = icmp_info(&packet);
    for (at, value, why) in
        [(34, 8, "echo request"), (34, 4, "source quench"), (42 + 9, 17, "UDP"), (42 + 7, 1, "fragment")]
    {
        let mut changed = packet.clone();
        changed[at] = value;
        assert_eq!(parse_icmp_error(&changed, &info), None, "{why}");
    }
}

#[test]
fn a_damaged_message_is_dropped() {
    for flow in [flow_v4(), flow_v6()] {
        let segment = tcp_packet(&flow, &link(), b"");
        let mut packet = error_packet(&flow, IcmpKind::TooBig, &segment[14..]);
        let last = packet.len() - 1;
        packet[last] ^= 1;
        assert_eq!(parse(&packet, 0, Verify::All).unwrap_err(), Drop::Icmp);
    }
}

#[test]
fn neighbour_discovery_is_told_from_errors() {
    let segment = tcp_packet(&flow_v6(), &link(), b"");
    let mut packet = error_packet(&flow_v6(), IcmpKind::TooBig, &segment[14..]);
    packet[54] = 135;
    assert!(matches!(parse(&packet, 0, Verify::Lengths), Ok(Parsed::Ndp(_))));
}

#[test]
fn errors_never_answer_errors_or_crowds() {
    let segment = tcp_packet(&flow_v4(), &link(), b"");
    let (info, _) = parsed_tcp(&segment, 0);
    assert!(may_answer_with_icmp(&segment, &info, IcmpKind::TimeExceeded));
    let crowd = IpInfo { link: LinkHeader { dst: MacAddr::BROADCAST, ..link() }, ..info };
    assert!(!may_answer_with_icmp(&segment, &crowd, IcmpKind::TimeExceeded));
    let crowd = IpInfo { dst: IpAddr::from([255, 255, 255, 255]), ..info };
    assert!(!may_answer_with_icmp(&segment, &crowd, IcmpKind::TimeExceeded));
    let mut fragment = segment.clone();
    fragment[21] = 3;
    assert!(!may_answer_with_icmp(&fragment, &info, IcmpKind::TimeExceeded));
    for flow in [flow_v4(), flow_v6()] {
        let mut packet = error_packet(&flow, IcmpKind::TooBig, &tcp_packet(&flow, &link(), b"")[14..]);
        let info = icmp_info(&packet);
        assert!(!may_answer_with_icmp(&packet, &info, IcmpKind::TimeExceeded));
        packet[usize::from(info.l4_offset)] = if flow.local.is_ipv4() { 8 } else { 128 };
        assert!(may_answer_with_icmp(&packet, &info, IcmpKind::TimeExceeded), "an echo request may be answered");
    }
}

#[test]
fn only_too_big_answers_an_ipv6_multicast() {
    let segment = tcp_packet(&flow_v6(), &link(), b"");
    let (info, _) = parsed_tcp(&segment, 0);
    let info = IpInfo { dst: IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 1]), ..info };
    assert!(may_answer_with_icmp(&segment, &info, IcmpKind::TooBig));
    assert!(!may_answer_with_icmp(&segment, &info, IcmpKind::TimeExceeded));
}

#[test]
fn an_error_between_two_families_is_not_built() {
    let mut pool = pool();
    let out = IcmpOut { src: flow_v4().local, dst: flow_v6().local, kind: IcmpKind::TimeExceeded, mtu: 0, quoted: &[] };
    assert_eq!(emit_icmp_error(&mut pool, &link(), &out, 0, &mut Counters::default()), None);
    assert_eq!(pool.in_use(), 0);
}

proptest! {
    #[test]
    fn any_quotation_is_survived(quoted in proptest::collection::vec(any::<u8>(), 0..120), v6: bool, version: bool) {
        let mut quoted = quoted;
        if let Some(first) = quoted.first_mut().filter(|_| version) {
            *first = if v6 { 0x60 } else { *first & 0x0f | 0x40 };
        }
        let flow = if v6 { flow_v6() } else { flow_v4() };
        let packet = error_packet(&flow, IcmpKind::TooBig, &quoted);
        let info = icmp_info(&packet);
        let _ = parse_icmp_error(&packet, &info);
        let _ = may_answer_with_icmp(&packet, &info, IcmpKind::TooBig);
    }
}
