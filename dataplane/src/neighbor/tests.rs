use mimbox_stack::FrameId;
use mimbox_stack::PoolConfig;
use mimbox_stack::mem::Region;
use mimbox_stack::wire::{ArpInfo, Parsed, Verify, parse};
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv4Packet, Ipv4Repr};
use smoltcp::wire::{Ipv6Packet, Ipv6Repr};

use super::*;

const WAN: PortId = PortId(0);
const CORE: PortId = PortId(1);
const WAN_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const CORE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const PEER: MacAddr = MacAddr([2, 0, 0, 0, 9, 9]);
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 8, 8]);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(1_000 + millis)
}

fn config() -> NeighborConfig {
    let interface = |port, mac, addresses: &[&str]| Interface {
        port,
        mac,
        mtu: 1500,
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
    };
    let route = |prefix: &str, via: &str, port| Route { prefix: prefix.parse().unwrap(), via: Some(ip(via)), port };
    NeighborConfig {
        interfaces: vec![
            interface(WAN, WAN_MAC, &["10.0.0.1/24", "2001:db8:a::1/64"]),
            interface(CORE, CORE_MAC, &["10.9.0.1/24", "2001:db8:b::1/64"]),
        ],
        routes: vec![
            route("0.0.0.0/0", "10.9.0.254", CORE),
            route("172.16.0.0/12", "10.0.0.254", WAN),
            route("172.16.5.0/24", "10.9.0.253", CORE),
            route("::/0", "fe80::1", CORE),
        ],
        limit: 16,
    }
}

struct Bench {
    neighbors: Neighbors,
    pool: FramePool,
    counters: Counters,
}

impl Bench {
    fn new() -> Self {
        Self {
            neighbors: Neighbors::new(&config()).unwrap(),
            pool: FramePool::new(Region::map(64, 2048).unwrap(), PoolConfig { rx_reserve: 0 }),
            counters: Counters::default(),
        }
    }

    /// What is sent next, as the wire has it.
    fn sent(&mut self) -> Option<(PortId, Vec<u8>)> {
        let frame = self.neighbors.poll_transmit(&mut self.pool, &mut self.counters)?;
        let (start, end) = (usize::from(frame.offset), usize::from(frame.offset + frame.len));
        let bytes = self.pool.bytes(&frame.frame)[start..end].to_vec();
        self.pool.tx_complete(frame.frame);
        Some((frame.port, bytes))
    }

    fn hear(&mut self, now: Instant, port: PortId, frame: &[u8]) {
        match parse(frame, 0, Verify::All).unwrap() {
            Parsed::Arp(ArpInfo { link, arp_offset, end }) => {
                self.neighbors.on_arp(now, port, &link, &frame[arp_offset.into()..end.into()]);
            }
            Parsed::Ndp(info) => self.neighbors.on_ndp(now, port, &info, info.l4(frame)),
            other => panic!("{other:?} is neither ARP nor NDP"),
        }
    }

    fn held_frame(&mut self, len: u16) -> TxFrame {
        let frame = self.pool.alloc().unwrap();
        TxFrame { port: WAN, frame, offset: 64, len }
    }

    fn is_ready(&mut self, now: Instant, dst: &str) -> Option<MacAddr> {
        match self.neighbors.resolve(now, ip(dst), None) {
            Resolution::Ready(hop) => Some(hop.link.dst),
            _ => None,
        }
    }
}

fn built(link: LinkHeader, body: Body) -> Vec<u8> {
    let mut out = vec![0; packet::MAX_LEN];
    let len = Message { link, body }.build(&mut out);
    out.truncate(len);
    out
}

fn link(src: MacAddr, dst: MacAddr) -> LinkHeader {
    LinkHeader { src, dst, vlan: None }
}

fn arp_reply(mac: MacAddr, sender: &str, target: &str) -> Vec<u8> {
    built(link(mac, WAN_MAC), Body::ArpReply { sender: v4(sender), target: v4(target) })
}

fn arp_request(mac: MacAddr, sender: &str, target: &str) -> Vec<u8> {
    built(link(mac, MacAddr::BROADCAST), Body::ArpRequest { sender: v4(sender), target: v4(target) })
}

#[test]
fn an_arp_request_for_an_address_of_the_box_is_answered() {
    let mut bench = Bench::new();
    bench.hear(at(0), WAN, &arp_request(PEER, "10.0.0.7", "10.0.0.1"));
    let (port, reply) = bench.sent().unwrap();
    assert_eq!(port, WAN);
    assert_eq!((&reply[..6], &reply[6..12]), (&PEER.0[..], &WAN_MAC.0[..]));
    let seen = packet::read_arp(&reply[14..]).unwrap();
    assert!(!seen.request);
    assert_eq!((seen.sender_mac, seen.sender, seen.target), (WAN_MAC, v4("10.0.0.1"), v4("10.0.0.7")));
    assert_eq!(bench.counters.get(Counter::ArpReplies), 1);
    assert!(bench.sent().is_none());
}

#[test]
fn an_arp_request_for_the_address_of_another_port_is_answered_with_the_mac_of_the_port_that_heard_it() {
    let mut bench = Bench::new();
    bench.hear(at(0), CORE, &arp_request(PEER, "10.9.0.7", "10.0.0.1"));
    let (port, reply) = bench.sent().unwrap();
    assert_eq!((port, &reply[6..12]), (CORE, &CORE_MAC.0[..]));
}

#[test]
fn an_arp_request_for_somebody_else_is_not_answered() {
    let mut bench = Bench::new();
    bench.hear(at(0), WAN, &arp_request(PEER, "10.0.0.7", "10.0.0.8"));
    assert!(bench.sent().is_none());
    assert!(bench.neighbors.is_empty(), "nor is the asker remembered");
}

#[test]
fn whoever_asks_for_the_box_is_known_already_when_the_box_answers() {
    let mut bench = Bench::new();
    bench.hear(at(0), WAN, &arp_request(PEER, "10.0.0.7", "10.0.0.1"));
    bench.sent();
    assert_eq!(bench.is_ready(at(1), "10.0.0.7"), Some(PEER));
    let (_, probe) = bench.sent().unwrap();
    assert_eq!(&probe[..6], &PEER.0, "and is asked once, for certainty");
}

#[test]
fn an_asker_from_off_the_link_is_not_remembered() {
    let mut bench = Bench::new();
    bench.hear(at(0), WAN, &arp_request(PEER, "192.0.2.7", "10.0.0.1"));
    assert!(bench.sent().is_some());
    assert!(bench.neighbors.is_empty());
}

#[test]
fn an_unknown_neighbour_is_asked_for_and_found() {
    let mut bench = Bench::new();
    let Resolution::Pending(waiting) = bench.neighbors.resolve(at(0), ip("10.0.0.7"), None) else { panic!() };
    assert_eq!((waiting.port(), waiting.next_hop()), (WAN, ip("10.0.0.7")));
    let (port, question) = bench.sent().unwrap();
    assert_eq!((port, &question[..6]), (WAN, &MacAddr::BROADCAST.0[..]));
    let seen = packet::read_arp(&question[14..]).unwrap();
    assert!(seen.request);
    assert_eq!((seen.sender, seen.target), (v4("10.0.0.1"), v4("10.0.0.7")));
    let epoch = bench.neighbors.epoch();
    bench.hear(at(5), WAN, &arp_reply(PEER, "10.0.0.7", "10.0.0.1"));
    assert_ne!(bench.neighbors.epoch(), epoch);
    assert_eq!(
        bench.neighbors.resolve(at(6), ip("10.0.0.7"), None),
        Resolution::Ready(NextHop { port: WAN, link: link(WAN_MAC, PEER), mtu: 1500 })
    );
    assert!(bench.sent().is_none());
}

#[test]
fn packets_wait_for_the_answer_and_leave_in_order() {
    let mut bench = Bench::new();
    let Resolution::Pending(waiting) = bench.neighbors.resolve(at(0), ip("10.0.0.7"), None) else { panic!() };
    bench.sent();
    for len in [60, 61] {
        let frame = bench.held_frame(len);
        bench.neighbors.hold(waiting, frame).unwrap();
    }
    assert_eq!(bench.neighbors.frames_held(), 2);
    bench.hear(at(5), WAN, &arp_reply(PEER, "10.0.0.7", "10.0.0.1"));
    for len in [60, 61] {
        let (_, sent) = bench.sent().unwrap();
        assert_eq!((sent.len(), &sent[..6]), (len, &PEER.0[..]));
    }
    assert_eq!(bench.pool.in_use(), 0);
}

#[test]
fn no_more_packets_wait_than_the_bound_allows() {
    let mut bench = Bench::new();
    let Resolution::Pending(waiting) = bench.neighbors.resolve(at(0), ip("10.0.0.7"), None) else { panic!() };
    bench.sent();
    for _ in 0..limits::MAX_HELD_PER_NEIGHBOUR {
        let frame = bench.held_frame(60);
        bench.neighbors.hold(waiting, frame).unwrap();
    }
    let frame = bench.held_frame(60);
    let frame = bench.neighbors.hold(waiting, frame).unwrap_err();
    bench.pool.release(frame.frame);
    bench.neighbors.release_all(&mut bench.pool);
    assert_eq!(bench.pool.in_use(), 0);
}

#[test]
fn a_neighbour_is_asked_three_times_a_second_apart_and_then_given_up() {
    let mut bench = Bench::new();
    let Resolution::Pending(waiting) = bench.neighbors.resolve(at(0), ip("10.0.0.7"), None) else { panic!() };
    let frame = bench.held_frame(60);
    bench.neighbors.hold(waiting, frame).unwrap();
    let mut asked = Vec::new();
    let mut now = at(0);
    loop {
        while bench.sent().is_some() {
            asked.push(now);
        }
        let Some(next) = bench.neighbors.next_deadline() else { break };
        now = next;
        bench.neighbors.on_timer(now);
    }
    assert_eq!(asked, [at(0), at(1_000), at(2_000)]);
    assert_eq!(now, at(3_000));
    assert!(matches!(
        bench.neighbors.poll_event(),
        Some(NeighborEvent::Unreachable { port: WAN, next_hop }) if next_hop == ip("10.0.0.7")
    ));
    let Some(NeighborEvent::Undeliverable { frame, .. }) = bench.neighbors.poll_event() else { panic!() };
    bench.pool.release(frame.frame);
    assert!(bench.neighbors.poll_event().is_none());
    assert!(matches!(bench.neighbors.resolve(now, ip("10.0.0.7"), None), Resolution::Pending(_)), "asked anew");
}

#[test]
fn a_confirmed_neighbour_in_use_is_asked_again_by_unicast_after_its_time() {
    let mut bench = Bench::new();
    bench.is_ready(at(0), "10.0.0.7");
    bench.sent();
    bench.hear(at(1), WAN, &arp_reply(PEER, "10.0.0.7", "10.0.0.1"));
    let epoch = bench.neighbors.epoch();
    bench.neighbors.on_timer(at(30_001));
    assert_ne!(bench.neighbors.epoch(), epoch, "users look it up again");
    assert_eq!(bench.is_ready(at(30_002), "10.0.0.7"), Some(PEER), "and go on meanwhile");
    let (_, probe) = bench.sent().unwrap();
    assert_eq!(&probe[..6], &PEER.0);
    bench.hear(at(30_003), WAN, &arp_reply(PEER, "10.0.0.7", "10.0.0.1"));
    assert_eq!(bench.neighbors.next_deadline(), Some(at(60_003)));
}

#[test]
fn a_neighbour_that_vanished_is_forgotten_after_three_unanswered_probes() {
    let mut bench = Bench::new();
    bench.is_ready(at(0), "10.0.0.7");
    bench.hear(at(0), WAN, &arp_reply(PEER, "10.0.0.7", "10.0.0.1"));
    bench.neighbors.on_timer(at(30_000));
    assert!(bench.is_ready(at(30_000), "10.0.0.7").is_some());
    let epoch = bench.neighbors.epoch();
    for second in 31..=33 {
        bench.neighbors.on_timer(at(second * 1_000));
    }
    assert!(bench.neighbors.is_empty());
    assert_ne!(bench.neighbors.epoch(), epoch);
}

#[test]
fn a_neighbour_that_nobody_uses_is_forgotten_without_being_asked() {
    let mut bench = Bench::new();
    bench.is_ready(at(0), "10.0.0.7");
    bench.sent();
    bench.hear(at(0), WAN, &arp_reply(PEER, "10.0.0.7", "10.0.0.1"));
    while let Some(next) = bench.neighbors.next_deadline() {
        bench.neighbors.on_timer(next);
    }
    assert!(bench.neighbors.is_empty());
    assert!(bench.sent().is_none());
}

#[test]
fn an_answer_that_nobody_asked_for_is_ignored() {
    let mut bench = Bench::new();
    bench.hear(at(0), WAN, &arp_reply(PEER, "10.0.0.7", "10.0.0.1"));
    assert!(bench.neighbors.is_empty());
}

#[test]
fn a_neighbour_that_announces_a_new_address_is_followed() {
    let mut bench = Bench::new();
    bench.is_ready(at(0), "10.0.0.7");
    bench.hear(at(0), WAN, &arp_reply(PEER, "10.0.0.7", "10.0.0.1"));
    let epoch = bench.neighbors.epoch();
    bench.hear(at(1), WAN, &arp_request(OTHER, "10.0.0.7", "10.0.0.7"));
    assert_ne!(bench.neighbors.epoch(), epoch);
    assert_eq!(bench.is_ready(at(2), "10.0.0.7"), Some(OTHER));
}

#[test]
fn another_station_with_an_address_of_the_box_is_reported() {
    let mut bench = Bench::new();
    bench.hear(at(0), WAN, &arp_request(PEER, "10.0.0.1", "10.0.0.1"));
    assert!(matches!(bench.neighbors.poll_event(), Some(NeighborEvent::AddressConflict { port: WAN, mac: PEER, .. })));
    assert!(bench.sent().is_none());
}

#[test]
fn the_longest_prefix_wins_and_names_the_router() {
    let bench = Bench::new();
    let via = |dst: &str| bench.neighbors.route(ip(dst)).map(|route| (route.port, route.via));
    assert_eq!(via("10.0.0.77"), Some((WAN, None)));
    assert_eq!(via("172.16.9.9"), Some((WAN, Some(ip("10.0.0.254")))));
    assert_eq!(via("172.16.5.9"), Some((CORE, Some(ip("10.9.0.253")))));
    assert_eq!(via("8.8.8.8"), Some((CORE, Some(ip("10.9.0.254")))));
    assert_eq!(via("2001:db8:a::77"), Some((WAN, None)));
    assert_eq!(via("2001:db8:ffff::1"), Some((CORE, Some(ip("fe80::1")))));
}

#[test]
fn a_hint_beats_the_default_route_but_no_other() {
    let mut bench = Bench::new();
    let hint = Hint { port: WAN, mac: PEER, vlan: Some(7) };
    let Resolution::Ready(hop) = bench.neighbors.resolve(at(0), ip("198.51.100.5"), Some(&hint)) else { panic!() };
    assert_eq!(hop.link, LinkHeader { src: WAN_MAC, dst: PEER, vlan: Some(7) });
    let Resolution::Pending(waiting) = bench.neighbors.resolve(at(0), ip("172.16.5.9"), Some(&hint)) else { panic!() };
    assert_eq!(waiting.port(), CORE);
}

#[test]
fn the_box_and_nobody_are_no_destinations() {
    let mut bench = Bench::new();
    assert_eq!(bench.neighbors.resolve(at(0), ip("10.9.0.1"), None), Resolution::Own);
    for dst in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "10.0.0.255", "::", "::1", "ff02::1"] {
        assert_eq!(bench.neighbors.resolve(at(0), ip(dst), None), Resolution::NoRoute, "{dst}");
    }
}

#[test]
fn a_scan_of_the_link_does_not_fill_the_table() {
    let mut bench = Bench::new();
    for host in 2..18 {
        assert!(matches!(bench.neighbors.resolve(at(0), ip(&format!("10.0.0.{host}")), None), Resolution::Pending(_)));
    }
    assert_eq!(bench.neighbors.resolve(at(0), ip("10.0.0.18"), None), Resolution::Full);
    assert_eq!(bench.neighbors.len(), 16);
}

#[test]
fn a_full_table_gives_up_a_stale_neighbour_for_a_new_one() {
    let mut bench = Bench::new();
    for host in 2..18 {
        bench.hear(at(host), WAN, &arp_request(PEER, &format!("10.0.0.{host}"), "10.0.0.1"));
    }
    assert_eq!(bench.neighbors.len(), 16);
    assert!(matches!(bench.neighbors.resolve(at(99), ip("10.0.0.99"), None), Resolution::Pending(_)));
    assert_eq!(bench.neighbors.len(), 16);
    assert!(!bench.neighbors.iter().any(|(_, address, _)| address == ip("10.0.0.2")), "the oldest went");
}

#[test]
fn an_ipv6_neighbour_is_solicited_and_found() {
    let mut bench = Bench::new();
    let Resolution::Pending(_) = bench.neighbors.resolve(at(0), ip("2001:db8:a::7"), None) else { panic!() };
    let (port, question) = bench.sent().unwrap();
    assert_eq!((port, &question[..6]), (WAN, &[0x33, 0x33, 0xff, 0, 0, 7][..]));
    let Parsed::Ndp(info) = parse(&question, 0, Verify::All).unwrap() else { panic!() };
    assert_eq!((info.src, info.dst, info.ttl), (ip("2001:db8:a::1"), ip("ff02::1:ff00:7"), 255));
    assert_eq!(
        packet::read_ndp(info.l4(&question)),
        Some(NdpSeen::Solicit { target: v6("2001:db8:a::7"), mac: Some(WAN_MAC) })
    );
    let body = Body::Advertise {
        src: v6("2001:db8:a::7"),
        dst: v6("2001:db8:a::1"),
        target: v6("2001:db8:a::7"),
        solicited: true,
    };
    bench.hear(at(1), WAN, &built(link(PEER, WAN_MAC), body));
    assert_eq!(bench.is_ready(at(2), "2001:db8:a::7"), Some(PEER));
    assert!(bench.sent().is_none(), "it is confirmed");
}

#[test]
fn a_solicitation_for_an_address_of_the_box_is_answered() {
    let mut bench = Bench::new();
    let body = Body::Solicit { src: v6("fe80::7"), dst: v6("ff02::1:ff00:1"), target: v6("2001:db8:a::1") };
    bench.hear(at(0), WAN, &built(link(PEER, MacAddr([0x33, 0x33, 0xff, 0, 0, 1])), body));
    let (_, reply) = bench.sent().unwrap();
    assert_eq!(&reply[..6], &PEER.0);
    let Parsed::Ndp(info) = parse(&reply, 0, Verify::All).unwrap() else { panic!() };
    assert_eq!((info.src, info.dst, info.ttl), (ip("2001:db8:a::1"), ip("fe80::7"), 255));
    assert_eq!(
        packet::read_ndp(info.l4(&reply)),
        Some(NdpSeen::Advertise { target: v6("2001:db8:a::1"), mac: Some(WAN_MAC), solicited: true, overrides: true })
    );
    assert_eq!(bench.counters.get(Counter::NdpReplies), 1);
}

#[test]
fn whoever_checks_for_a_duplicate_of_the_boxs_address_is_told_by_multicast() {
    let mut bench = Bench::new();
    let body = Body::Solicit { src: v6("::"), dst: v6("ff02::1:ff00:1"), target: v6("2001:db8:a::1") };
    bench.hear(at(0), WAN, &built(link(PEER, MacAddr([0x33, 0x33, 0xff, 0, 0, 1])), body));
    let (_, reply) = bench.sent().unwrap();
    let Parsed::Ndp(info) = parse(&reply, 0, Verify::All).unwrap() else { panic!() };
    assert_eq!(info.dst, ip("ff02::1"));
    assert!(matches!(packet::read_ndp(info.l4(&reply)), Some(NdpSeen::Advertise { solicited: false, .. })));
}

#[test]
fn a_solicitation_from_beyond_the_link_is_ignored() {
    let mut bench = Bench::new();
    let body = Body::Solicit { src: v6("fe80::7"), dst: v6("ff02::1:ff00:1"), target: v6("2001:db8:a::1") };
    let mut frame = built(link(PEER, MacAddr([0x33, 0x33, 0xff, 0, 0, 1])), body);
    frame[14 + 7] = 64;
    let Parsed::Ndp(info) = parse(&frame, 0, Verify::All).unwrap() else { panic!() };
    bench.neighbors.on_ndp(at(0), WAN, &info, info.l4(&frame));
    assert!(bench.sent().is_none());
}

fn receive(pool: &mut FramePool, bytes: &[u8]) -> RxFrame {
    let frame: FrameId = pool.alloc().unwrap();
    pool.bytes_mut(&frame)[256..256 + bytes.len()].copy_from_slice(bytes);
    RxFrame { port: WAN, frame, offset: 256, len: bytes.len() as u16 }
}

fn ping(bench: &mut Bench, frame: &[u8]) -> Result<(), RxFrame> {
    let rx = receive(&mut bench.pool, frame);
    let bytes = &bench.pool.bytes(&rx.frame)[256..256 + frame.len()];
    let Parsed::Icmp(info) = parse(bytes, 256, Verify::All).unwrap() else { panic!("not ICMP") };
    bench.neighbors.echo(&mut bench.pool, rx, &info)
}

fn ethernet(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    [&WAN_MAC.0[..], &PEER.0, &ethertype.to_be_bytes(), packet].concat()
}

fn ping_v4(dst: &str) -> Vec<u8> {
    let icmp = Icmpv4Repr::EchoRequest { ident: 5, seq_no: 6, data: b"are you there" };
    let ip = Ipv4Repr {
        src_addr: v4("10.0.0.7"),
        dst_addr: v4(dst),
        next_header: IpProtocol::Icmp,
        payload_len: icmp.buffer_len(),
        hop_limit: 3,
    };
    let mut bytes = vec![0; 20 + icmp.buffer_len()];
    let caps = ChecksumCapabilities::default();
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
    ip.emit(&mut packet, &caps);
    icmp.emit(&mut Icmpv4Packet::new_unchecked(packet.payload_mut()), &caps);
    ethernet(0x0800, &bytes)
}

fn ping_v6(dst: &str) -> Vec<u8> {
    let icmp = Icmpv6Repr::EchoRequest { ident: 5, seq_no: 6, data: b"are you there" };
    let ip = Ipv6Repr {
        src_addr: v6("2001:db8:a::7"),
        dst_addr: v6(dst),
        next_header: IpProtocol::Icmpv6,
        payload_len: icmp.buffer_len(),
        hop_limit: 3,
    };
    let mut bytes = vec![0; 40 + icmp.buffer_len()];
    let mut packet = Ipv6Packet::new_unchecked(&mut bytes[..]);
    ip.emit(&mut packet);
    let mut icmp_packet = Icmpv6Packet::new_unchecked(packet.payload_mut());
    icmp.emit(&ip.src_addr, &ip.dst_addr, &mut icmp_packet, &ChecksumCapabilities::default());
    ethernet(0x86dd, &bytes)
}

#[test]
fn a_ping_is_answered_in_its_own_frame_with_valid_checksums() {
    for (request, reply) in [(ping_v4("10.0.0.1"), 0), (ping_v4("10.9.0.1"), 0), (ping_v6("2001:db8:a::1"), 129)] {
        let mut bench = Bench::new();
        ping(&mut bench, &request).unwrap();
        let (port, sent) = bench.sent().unwrap();
        assert_eq!((port, &sent[..6], &sent[6..12]), (WAN, &PEER.0[..], &WAN_MAC.0[..]));
        let Parsed::Icmp(info) = parse(&sent, 0, Verify::All).unwrap() else { panic!() };
        let Parsed::Icmp(asked) = parse(&request, 0, Verify::All).unwrap() else { panic!() };
        assert_eq!((info.src, info.dst, info.ttl), (asked.dst, asked.src, 64));
        assert_eq!(info.l4(&sent)[0], reply);
        assert_eq!(info.l4(&sent)[4..], asked.l4(&request)[4..]);
        assert_eq!((bench.counters.get(Counter::PingReplies), bench.pool.in_use()), (1, 0));
    }
}

#[test]
fn a_ping_to_somebody_else_is_given_back() {
    let mut bench = Bench::new();
    let rx = ping(&mut bench, &ping_v4("10.0.0.9")).unwrap_err();
    bench.pool.release(rx.frame);
}

#[test]
fn an_echo_reply_is_not_answered() {
    let mut bench = Bench::new();
    ping(&mut bench, &ping_v4("10.0.0.1")).unwrap();
    let (_, mut reply) = bench.sent().unwrap();
    let (src, dst) = (reply[26..30].to_vec(), reply[30..34].to_vec());
    reply[26..30].copy_from_slice(&dst);
    reply[30..34].copy_from_slice(&src);
    let rx = ping(&mut bench, &reply).unwrap_err();
    bench.pool.release(rx.frame);
}

#[test]
fn every_address_is_announced_on_its_link() {
    let mut bench = Bench::new();
    bench.neighbors.announce();
    let mut seen = Vec::new();
    while let Some((port, frame)) = bench.sent() {
        match parse(&frame, 0, Verify::All).unwrap() {
            Parsed::Arp(info) => {
                let arp = packet::read_arp(&frame[info.arp_offset.into()..]).unwrap();
                assert_eq!(arp.sender, arp.target);
                seen.push((port, IpAddr::V4(arp.sender)));
            }
            Parsed::Ndp(info) => seen.push((port, info.src)),
            other => panic!("{other:?}"),
        }
    }
    let all = bench.neighbors.own_addresses().map(|(address, port)| (port, address));
    assert_eq!(seen.len(), 4);
    assert!(all.into_iter().all(|own| seen.contains(&own)));
}

#[test]
fn contradictions_are_refused() {
    let with = |change: &dyn Fn(&mut NeighborConfig)| {
        let mut config = config();
        change(&mut config);
        Neighbors::new(&config).unwrap_err()
    };
    let own = |text: &str| text.parse::<Cidr>().unwrap();
    let error = with(&|config| config.interfaces[1].addresses.push(own("10.0.0.1/32")));
    assert_eq!(error, NeighborError::AddressTwice(ip("10.0.0.1")));
    let error = with(&|config| config.interfaces[1].addresses.push(own("10.0.0.128/25")));
    assert_eq!(error, NeighborError::Overlap(own("10.0.0.1/24"), own("10.0.0.128/25")));
    let error = with(&|config| config.routes.push(config.routes[0]));
    assert_eq!(error, NeighborError::RouteTwice(own("0.0.0.0/0")));
    let error = with(&|config| config.routes[0].via = Some(ip("10.7.0.1")));
    assert_eq!(error, NeighborError::OffLink { prefix: own("0.0.0.0/0"), via: ip("10.7.0.1") });
    let error = with(&|config| config.routes[0].via = Some(ip("10.9.0.1")));
    assert_eq!(error, NeighborError::ViaSelf { prefix: own("0.0.0.0/0"), via: ip("10.9.0.1") });
    let error = with(&|config| config.routes[0].port = PortId(9));
    assert_eq!(error, NeighborError::NoPort(own("0.0.0.0/0"), 9));
}

#[test]
fn a_prefix_is_read_and_shown() {
    for text in ["192.0.2.1/24", "0.0.0.0/0", "2001:db8::1/64", "::/0", "10.0.0.1/32"] {
        assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
    }
    for text in ["192.0.2.1", "192.0.2.1/33", "::/129", "x/3", "10.0.0.0/-1", ""] {
        assert!(text.parse::<Cidr>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn any_bytes_as_arp_or_ndp_do_no_harm(packet in proptest::collection::vec(any::<u8>(), 0..120), port in 0u8..3) {
        let mut bench = Bench::new();
        let header = link(PEER, WAN_MAC);
        bench.neighbors.on_arp(at(0), PortId(port), &header, &packet);
        let question = built(header, Body::Solicit { src: v6("fe80::7"), dst: v6("ff02::1:ff00:1"), target: v6("fe80::1") });
        let Ok(Parsed::Ndp(info)) = parse(&question, 0, Verify::All) else { panic!() };
        bench.neighbors.on_ndp(at(0), PortId(port), &info, &packet);
        while bench.sent().is_some() {}
        prop_assert_eq!(bench.pool.in_use(), 0);
    }

    #[test]
    fn the_route_table_agrees_with_a_linear_search(
        prefixes in proptest::collection::vec((any::<u32>(), 0u8..=32), 1..40),
        destinations in proptest::collection::vec(any::<u32>(), 1..40),
    ) {
        let mut table = RouteTable::default();
        let mut linear: Vec<Route> = Vec::new();
        for (n, (address, len)) in prefixes.iter().enumerate() {
            // Crowded into few networks, so that prefixes nest.
            let address = IpAddr::V4(Ipv4Addr::from(address & 0xc0c0_c0c0));
            let route = Route { prefix: Cidr::new(address, *len).unwrap(), via: None, port: PortId(n as u8) };
            if table.insert(route).is_ok() {
                linear.push(route);
            }
        }
        for destination in destinations {
            let destination = IpAddr::V4(Ipv4Addr::from(destination & 0xc0c0_c0c0));
            let expected = linear.iter().filter(|r| r.prefix.contains(destination)).max_by_key(|r| r.prefix.len());
            prop_assert_eq!(table.lookup(destination), expected);
        }
    }
}
