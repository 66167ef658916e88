use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use smoltcp::wire as other;

use super::*;
use crate::checksum;
use crate::counters::Counters;
use crate::frame::{FramePool, PoolConfig};
use crate::mem::Region;
use crate::options::SackBlock;

mod expected;
mod forwarding;
mod icmp_errors;
mod trains;

pub(super) fn pool() -> FramePool {
    FramePool::new(Region::map(16, 2048).unwrap(), PoolConfig { rx_reserve: 2 })
}

pub(super) fn link() -> LinkHeader {
    LinkHeader { src: MacAddr([2, 0, 0, 0, 0, 1]), dst: MacAddr([2, 0, 0, 0, 0, 2]), vlan: None }
}

pub(super) fn flow_v4() -> FlowKey {
    FlowKey {
        local: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2)),
        remote: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77)),
        local_port: 40_001,
        remote_port: 443,
    }
}

pub(super) fn flow_v6() -> FlowKey {
    FlowKey {
        local: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
        remote: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0xffff, 77)),
        local_port: 40_001,
        remote_port: 443,
    }
}

pub(super) fn data_out(pool: &mut FramePool, offset: u16, payload: &[u8]) -> Outgoing {
    let frame = pool.alloc().unwrap();
    pool.bytes_mut(&frame)[usize::from(offset)..][..payload.len()].copy_from_slice(payload);
    let mut out = Outgoing::bare(SeqNum(0x0102_0304), SeqNum(0xfffe_fdfc), TcpFlags::ACK | TcpFlags::PSH);
    out.window = 0x1234;
    out.timestamps = Some(crate::options::Timestamps { value: 77, echo: 88 });
    if !payload.is_empty() {
        out.payload = Some(PayloadOut { frame, offset, len: payload.len() as u16, sum: checksum::sum(payload) });
    } else {
        pool.release(frame);
    }
    out
}

/// A packet's bytes, from its Ethernet header on.
pub(super) fn packet_of(pool: &mut FramePool, flow: &FlowKey, link: &LinkHeader, out: Outgoing) -> Vec<u8> {
    let template = HeaderTemplate::new(flow, 64);
    let mut counters = Counters::default();
    let (frame, offset, len) = emit_tcp(pool, link, &template, out, 0xbeef, &mut counters).unwrap();
    let bytes = pool.bytes(&frame)[usize::from(offset)..][..usize::from(len)].to_vec();
    pool.release(frame);
    bytes
}

pub(super) fn tcp_packet(flow: &FlowKey, link: &LinkHeader, payload: &[u8]) -> Vec<u8> {
    let mut pool = pool();
    let out = data_out(&mut pool, 256, payload);
    packet_of(&mut pool, flow, link, out)
}

fn parsed_tcp(packet: &[u8], offset: u16) -> (IpInfo, SegmentIn) {
    match parse(packet, offset, Verify::All).unwrap() {
        Parsed::Tcp(info, segment) => (info, segment),
        found => panic!("not TCP: {found:?}"),
    }
}

#[test]
fn smoltcp_accepts_an_ipv4_segment() {
    let payload: Vec<u8> = (0..=254).collect();
    let packet = tcp_packet(&flow_v4(), &link(), &payload);
    let ethernet = other::EthernetFrame::new_checked(&packet[..]).unwrap();
    assert_eq!(ethernet.ethertype(), other::EthernetProtocol::Ipv4);
    let ip = other::Ipv4Packet::new_checked(ethernet.payload()).unwrap();
    assert!(ip.verify_checksum() && ip.dont_frag());
    assert_eq!((ip.hop_limit(), ip.ident(), usize::from(ip.total_len())), (64, 0xbeef, packet.len() - 14));
    let tcp = other::TcpPacket::new_checked(ip.payload()).unwrap();
    assert!(tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
    assert_eq!((tcp.src_port(), tcp.dst_port(), tcp.window_len()), (40_001, 443, 0x1234));
    assert_eq!(tcp.payload(), payload);
}

#[test]
fn smoltcp_accepts_an_ipv6_segment() {
    let packet = tcp_packet(&flow_v6(), &link(), b"seven..");
    let ethernet = other::EthernetFrame::new_checked(&packet[..]).unwrap();
    assert_eq!(ethernet.ethertype(), other::EthernetProtocol::Ipv6);
    let ip = other::Ipv6Packet::new_checked(ethernet.payload()).unwrap();
    let tcp = other::TcpPacket::new_checked(ip.payload()).unwrap();
    assert!(tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
    assert_eq!(tcp.payload(), b"seven..");
}

#[test]
fn what_is_emitted_is_parsed_to_the_same() {
    for flow in [flow_v4(), flow_v6()] {
        for vlan in [None, Some(7)] {
            let link = LinkHeader { vlan, ..link() };
            let packet = tcp_packet(&flow, &link, b"some payload!");
            let (info, segment) = parsed_tcp(&packet, 100);
            assert_eq!((info.link, info.start, usize::from(info.end)), (link, 100, 100 + packet.len()));
            assert_eq!((info.src, info.dst, info.ttl, info.fragment), (flow.local, flow.remote, 64, false));
            assert_eq!(segment.flow, flow.reversed());
            assert_eq!((segment.seq, segment.ack), (SeqNum(0x0102_0304), SeqNum(0xfffe_fdfc)));
            assert_eq!((segment.flags, segment.window), (TcpFlags::ACK | TcpFlags::PSH, 0x1234));
            assert_eq!(segment.options.timestamps.unwrap().echo, 88);
            let at = usize::from(segment.payload_offset) - 100;
            assert_eq!(&packet[at..at + usize::from(segment.payload_len)], b"some payload!");
            assert_eq!(segment.payload_sum, checksum::sum(b"some payload!"));
        }
    }
}

#[test]
fn the_padding_of_a_short_frame_is_not_payload() {
    let mut pool = pool();
    let out = Outgoing::bare(SeqNum(1), SeqNum(2), TcpFlags::ACK);
    let mut packet = packet_of(&mut pool, &flow_v4(), &link(), out);
    assert_eq!(packet.len(), 54);
    packet.resize(60, 0xaa);
    let (info, segment) = parsed_tcp(&packet, 0);
    assert_eq!((segment.payload_len, info.end, info.ip_len()), (0, 54, 40));
}

#[test]
fn the_ecn_field_travels() {
    for flow in [flow_v4(), flow_v6()] {
        for ecn in [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce] {
            let mut out = Outgoing::bare(SeqNum(1), SeqNum(2), TcpFlags::ACK);
            out.ecn = ecn;
            let packet = packet_of(&mut pool(), &flow, &link(), out);
            assert_eq!(parsed_tcp(&packet, 0).1.ecn, ecn);
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_in_the_ip_packet_is_noticed() {
    for flow in [flow_v4(), flow_v6()] {
        let packet = tcp_packet(&flow, &link(), b"payload");
        for at in 14..packet.len() {
            for bit in 0..8 {
                let mut broken = packet.clone();
                broken[at] ^= 1 << bit;
                // IPv6 has no sum over traffic class, flow label and hop limit.
                let uncovered = flow.local.is_ipv6() && (matches!(at - 14, 1..=3 | 7) || at == 14 && bit < 4);
                let found = parse(&broken, 0, Verify::All);
                assert!(uncovered || !matches!(found, Ok(Parsed::Tcp(..))), "byte {at} bit {bit}: {found:?}");
            }
        }
    }
}

#[test]
fn a_checksum_left_to_the_device_is_told_from_a_wrong_one() {
    for flow in [flow_v4(), flow_v6()] {
        let mut packet = tcp_packet(&flow, &link(), b"payload");
        let (info, segment) = parsed_tcp(&packet, 0);
        let len = u32::from(info.end - info.l4_offset);
        let partial = checksum::pseudo_header(info.src, info.dst, protocol::TCP, len).to_be_bytes();
        let at = usize::from(info.l4_offset) + 16;
        packet[at..at + 2].copy_from_slice(&partial);
        assert_eq!(parse(&packet, 0, Verify::All).unwrap_err(), Drop::TcpChecksumPartial);
        packet[at] ^= 0x40;
        assert_eq!(parse(&packet, 0, Verify::All).unwrap_err(), Drop::TcpChecksum);
        let Ok(Parsed::Tcp(_, trusted)) = parse(&packet, 0, Verify::Lengths) else { panic!("lengths are right") };
        assert_eq!(trusted.payload_sum, segment.payload_sum);
    }
}

#[test]
fn every_truncation_is_refused() {
    for flow in [flow_v4(), flow_v6()] {
        let packet = tcp_packet(&flow, &LinkHeader { vlan: Some(9), ..link() }, b"payload");
        for len in 0..packet.len() {
            assert_eq!(parse(&packet[..len], 0, Verify::All).unwrap_err(), Drop::Truncated, "{len} bytes");
        }
    }
}

#[test]
fn fragments_are_handed_on_unparsed() {
    let mut packet = tcp_packet(&flow_v4(), &link(), b"payload");
    let before = u16::from_be_bytes([packet[20], packet[21]]);
    packet[20] |= 0x20;
    let check = checksum::update(u16::from_be_bytes([packet[24], packet[25]]), before, before | 0x2000);
    packet[24..26].copy_from_slice(&check.to_be_bytes());
    let Ok(Parsed::OtherIp(info)) = parse(&packet, 0, Verify::All) else { panic!("a fragment is IP") };
    assert!(info.fragment);
}

/// The IPv6 segment of `packet` with `extension` between its headers.
fn with_extension(packet: &[u8], next: u8, extension: &[u8]) -> Vec<u8> {
    let mut longer = packet[..54].to_vec();
    longer[20] = next;
    let len = u16::from_be_bytes([packet[18], packet[19]]) + extension.len() as u16;
    longer[18..20].copy_from_slice(&len.to_be_bytes());
    longer.extend_from_slice(extension);
    longer.extend_from_slice(&packet[54..]);
    longer
}

#[test]
fn tcp_is_found_behind_extension_headers() {
    let packet = tcp_packet(&flow_v6(), &link(), b"payload");
    let options =
        [protocol::DESTINATION, 0, 1, 4, 0, 0, 0, 0, protocol::TCP, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (info, segment) = parsed_tcp(&with_extension(&packet, protocol::HOP_BY_HOP, &options), 0);
    assert_eq!((info.l4_offset, info.protocol, segment.payload_len), (54 + 24, protocol::TCP, 7));
    let atomic = [protocol::TCP, 0, 0, 0, 1, 2, 3, 4];
    assert_eq!(parsed_tcp(&with_extension(&packet, protocol::FRAGMENT, &atomic), 0).1.payload_len, 7);
    let first = [protocol::TCP, 0, 0, 1, 1, 2, 3, 4];
    let found = parse(&with_extension(&packet, protocol::FRAGMENT, &first), 0, Verify::All);
    assert!(matches!(found, Ok(Parsed::OtherIp(info)) if info.fragment));
    let endless = [protocol::DESTINATION, 0, 1, 4, 0, 0, 0, 0].repeat(9);
    let found = parse(&with_extension(&packet, protocol::DESTINATION, &endless), 0, Verify::All);
    assert_eq!(found.unwrap_err(), Drop::IpHeader);
    let beyond = [protocol::TCP, 200, 1, 4, 0, 0, 0, 0];
    let found = parse(&with_extension(&packet, protocol::DESTINATION, &beyond), 0, Verify::All);
    assert_eq!(found.unwrap_err(), Drop::IpHeader);
}

#[test]
fn impossible_addresses_are_martians() {
    for src in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
        let flow = FlowKey { local: IpAddr::from(src), ..flow_v4() };
        let packet = tcp_packet(&flow, &link(), b"");
        assert_eq!(parse(&packet, 0, Verify::All).unwrap_err(), Drop::Martian, "{flow:?}");
    }
    let packet = tcp_packet(&FlowKey { remote: IpAddr::from([224, 0, 0, 9]), ..flow_v4() }, &link(), b"");
    assert_eq!(parse(&packet, 0, Verify::All).unwrap_err(), Drop::Martian);
    let packet = tcp_packet(&flow_v4(), &LinkHeader { dst: MacAddr::BROADCAST, ..link() }, b"");
    assert_eq!(parse(&packet, 0, Verify::All).unwrap_err(), Drop::Martian);
    let packet = tcp_packet(&FlowKey { local: IpAddr::V6(Ipv6Addr::UNSPECIFIED), ..flow_v6() }, &link(), b"");
    assert_eq!(parse(&packet, 0, Verify::All).unwrap_err(), Drop::Martian);
}

#[test]
fn arp_and_unknown_types_are_told_apart() {
    let mut packet = vec![0; 60];
    packet[12..14].copy_from_slice(&ethertype::ARP.to_be_bytes());
    let Ok(Parsed::Arp(arp)) = parse(&packet, 10, Verify::All) else { panic!("this is ARP") };
    assert_eq!((arp.arp_offset, arp.end), (24, 70));
    packet[12..14].copy_from_slice(&[0x88, 0xcc]);
    assert_eq!(parse(&packet, 0, Verify::All).unwrap_err(), Drop::Ethertype);
}

#[test]
fn a_payload_is_sent_from_its_own_frame() {
    let mut pool = pool();
    let out = data_out(&mut pool, 300, b"payload");
    let index = out.payload.as_ref().unwrap().frame.index();
    let mut counters = Counters::default();
    let template = HeaderTemplate::new(&flow_v4(), 64);
    let (frame, offset, len) = emit_tcp(&mut pool, &link(), &template, out, 1, &mut counters).unwrap();
    assert_eq!((frame.index(), offset, len), (index, 300 - 66, 66 + 7));
    assert_eq!(counters.get(Counter::TxCopies), 0);
    pool.release(frame);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_payload_without_room_before_it_is_copied() {
    let mut pool = pool();
    let out = data_out(&mut pool, 65, b"payload");
    let index = out.payload.as_ref().unwrap().frame.index();
    let mut counters = Counters::default();
    let template = HeaderTemplate::new(&flow_v4(), 64);
    let (frame, offset, len) = emit_tcp(&mut pool, &link(), &template, out, 1, &mut counters).unwrap();
    assert_ne!(frame.index(), index);
    assert_eq!(counters.get(Counter::TxCopies), 1);
    assert_eq!(pool.in_use(), 1);
    let packet = pool.bytes(&frame)[usize::from(offset)..][..usize::from(len)].to_vec();
    assert_eq!(parsed_tcp(&packet, 0).1.payload_sum, checksum::sum(b"payload"));
    pool.release(frame);
}

#[test]
fn a_frame_that_is_still_being_sent_is_not_written() {
    let mut pool = pool();
    let mut out = data_out(&mut pool, 300, b"payload");
    let held = pool.share(&out.payload.as_ref().unwrap().frame);
    pool.tx_begin(&held);
    let before = pool.bytes(&held).to_vec();
    let mut counters = Counters::default();
    let template = HeaderTemplate::new(&flow_v6(), 64);
    let (frame, ..) = emit_tcp(&mut pool, &link(), &template, out, 1, &mut counters).unwrap();
    assert_ne!(frame, held);
    assert_eq!(pool.bytes(&held), before);
    pool.release(frame);
    // When no frame is free, nothing is sent and nothing leaks.
    let mut taken = Vec::new();
    while let Some(frame) = pool.alloc() {
        taken.push(frame);
    }
    out = Outgoing::bare(SeqNum(1), SeqNum(1), TcpFlags::ACK);
    out.payload = Some(PayloadOut { frame: pool.share(&held), offset: 300, len: 7, sum: 0 });
    assert_eq!(emit_tcp(&mut pool, &link(), &template, out, 1, &mut counters), None);
    assert_eq!(counters.get(Counter::TxNoFrame), 1);
    assert_eq!(pool.refs(&held), 1);
    taken.into_iter().for_each(|frame| pool.release(frame));
    pool.tx_complete(held);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn headers_never_overwrite_payload_that_another_right_may_need() {
    let mut pool = pool();
    let out = data_out(&mut pool, 300, b"0123456789");
    let whole = pool.share(&out.payload.as_ref().unwrap().frame);
    let template = HeaderTemplate::new(&flow_v4(), 64);
    let mut counters = Counters::default();
    let (frame, ..) = emit_tcp(&mut pool, &link(), &template, out, 1, &mut counters).unwrap();
    pool.release(frame);
    // Four bytes were acknowledged on the subflow; the data level still holds all ten.
    let mut out = Outgoing::bare(SeqNum(5), SeqNum(1), TcpFlags::ACK);
    out.payload = Some(PayloadOut { frame: pool.share(&whole), offset: 304, len: 6, sum: checksum::sum(b"456789") });
    let (frame, ..) = emit_tcp(&mut pool, &link(), &template, out, 1, &mut counters).unwrap();
    assert_eq!(counters.get(Counter::TxCopies), 1);
    assert_eq!(&pool.bytes(&whole)[300..310], b"0123456789");
    pool.release(frame);
    pool.release(whole);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_reset_stands_where_the_peer_expects_it() {
    let packet = tcp_packet(&flow_v4(), &link(), b"12345");
    let (_, mut segment) = parsed_tcp(&packet, 0);
    let reset = Outgoing::reset_for(&segment).unwrap();
    assert_eq!((reset.seq, reset.flags), (segment.ack, TcpFlags::RST));
    segment.flags = TcpFlags::SYN;
    let reset = Outgoing::reset_for(&segment).unwrap();
    assert_eq!((reset.seq, reset.ack), (SeqNum(0), segment.seq + 6));
    assert_eq!(reset.flags, TcpFlags::RST | TcpFlags::ACK);
    segment.flags = TcpFlags::RST;
    assert!(Outgoing::reset_for(&segment).is_none());
}

fn any_flow() -> impl Strategy<Value = FlowKey> {
    let v4 = (0x0100_0000u32..0x7f00_0000, 0x8000_0000u32..0xe000_0000)
        .prop_map(|(a, b)| (IpAddr::V4(a.into()), IpAddr::V4(b.into())));
    let v6 = (0x2000u128..0x2fff, any::<u128>(), any::<u128>()).prop_map(|(top, a, b)| {
        let global = |low: u128| IpAddr::V6((top << 112 | low >> 16).into());
        (global(a), global(b))
    });
    (prop_oneof![v4, v6], any::<u16>(), any::<u16>()).prop_map(|((local, remote), local_port, remote_port)| FlowKey {
        local,
        remote,
        local_port,
        remote_port,
    })
}

proptest! {
    #[test]
    fn every_header_round_trips(
        flow in any_flow(),
        numbers: (u32, u32, u16, u8, u16),
        vlan in proptest::option::of(1u16..4096),
        stamps: Option<(u32, u32)>,
        blocks in proptest::collection::vec((any::<u32>(), any::<u32>()), 0..=4),
        payload in proptest::collection::vec(any::<u8>(), 0..1500),
    ) {
        let (seq, ack, window, flags, ip_id) = numbers;
        let mut pool = pool();
        let mut out = data_out(&mut pool, 200, &payload);
        (out.seq, out.ack, out.window) = (SeqNum(seq), SeqNum(ack), window);
        out.flags = TcpFlags::from_bits_retain(flags);
        out.timestamps = stamps.map(|(value, echo)| crate::options::Timestamps { value, echo });
        out.sack = blocks.iter().map(|&(a, b)| SackBlock { start: SeqNum(a), end: SeqNum(b) }).collect();
        let (expected_stamps, sack) = (out.timestamps, out.sack.clone());
        let link = LinkHeader { vlan, ..link() };
        let template = HeaderTemplate::new(&flow, 33);
        let (frame, offset, len) =
            emit_tcp(&mut pool, &link, &template, out, ip_id, &mut Counters::default()).unwrap();
        let packet = &pool.bytes(&frame)[usize::from(offset)..][..usize::from(len)];
        let (info, segment) = parsed_tcp(packet, offset);
        prop_assert_eq!((info.link, info.ttl), (link, 33));
        prop_assert_eq!(segment.flow, flow.reversed());
        prop_assert_eq!((segment.seq, segment.ack), (SeqNum(seq), SeqNum(ack)));
        prop_assert_eq!((segment.window, segment.flags.bits()), (window, flags));
        prop_assert_eq!(segment.options.timestamps, expected_stamps);
        prop_assert!(sack.starts_with(&segment.options.sack));
        let at = usize::from(segment.payload_offset);
        prop_assert_eq!(&pool.bytes(&frame)[at..at + usize::from(segment.payload_len)], &payload[..]);
        pool.release(frame);
        prop_assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn any_frame_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0usize..4, offset: u16) {
        let mut bytes = bytes;
        if bytes.len() >= 24 {
            let types = [ethertype::IPV4, ethertype::IPV6, ethertype::ARP, ethertype::VLAN];
            bytes[12..14].copy_from_slice(&types[kind].to_be_bytes());
            bytes[14] = if kind == 0 { bytes[14] & 7 | 0x40 } else { 0x60 };
            bytes[16] = 0;
        }
        let _ = parse(&bytes, offset, Verify::All);
        let _ = parse(&bytes, offset, Verify::Lengths);
    }

    #[test]
    fn any_damage_to_a_good_frame_is_survived(
        damage in proptest::collection::vec((0usize..120, any::<u8>()), 1..6), cut in 0usize..120, v6: bool,
    ) {
        let mut packet = tcp_packet(&if v6 { flow_v6() } else { flow_v4() }, &link(), b"some payload");
        for (at, byte) in damage {
            if let Some(target) = packet.get_mut(at) {
                *target = byte;
            }
        }
        packet.truncate(packet.len().saturating_sub(cut / 4));
        if let Ok(Parsed::Tcp(info, segment)) = parse(&packet, 0, Verify::Lengths) {
            prop_assert!(usize::from(info.end) <= packet.len());
            prop_assert_eq!(segment.payload_offset + segment.payload_len, info.end);
        }
    }
}
