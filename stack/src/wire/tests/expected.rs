//! The short way of a packet beside the long one.

use super::*;
use crate::options::Timestamps;

/// A packet with `upper` behind its timestamps, if it has those.
fn packet(flow: &FlowKey, link: &LinkHeader, stamps: Option<Timestamps>, upper: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut pool = pool();
    let mut out = data_out(&mut pool, 256, payload);
    out.timestamps = stamps;
    out.upper.try_extend_from_slice(upper).unwrap();
    packet_of(&mut pool, flow, link, out)
}

/// An MPTCP option with this body.
fn mptcp(body: &[u8]) -> Vec<u8> {
    [&[30, body.len() as u8 + 2], body].concat()
}

/// What the short way makes of a packet, in a place that held something else before.
fn short(packet: &[u8], offset: u16) -> Option<(LinkHeader, SegmentIn)> {
    let before = packet_with_everything();
    let (_, mut segment) = parsed_tcp(&before, 0);
    let (link, flow) = parse_expected(packet, offset, &mut segment, |flow| Some(*flow))?;
    assert_eq!(flow, segment.flow);
    Some((link, segment))
}

fn packet_with_everything() -> Vec<u8> {
    let mut pool = pool();
    let mut out = data_out(&mut pool, 256, b"before");
    out.sack.push(SackBlock { start: SeqNum(1), end: SeqNum(2) });
    out.upper.try_extend_from_slice(&mptcp(&[0x20, 1, 2, 3, 4, 5])).unwrap();
    packet_of(&mut pool, &flow_v6(), &link(), out)
}

#[test]
fn data_and_acknowledgments_of_an_open_connection_go_the_short_way() {
    let stamps = Some(Timestamps { value: 7, echo: 8 });
    for flow in [flow_v4(), flow_v6()] {
        for upper in [vec![], mptcp(&[0x20, 1, 2, 3, 4, 5]), mptcp(&[0x20; 20])] {
            for payload in [&[][..], b"some", &[7; 1000]] {
                let packet = packet(&flow, &link(), stamps, &upper, payload);
                let (link, segment) = short(&packet, 256).expect("the usual layout");
                let (info, long) = parsed_tcp(&packet, 256);
                assert_eq!(link, info.link);
                assert_eq!(format!("{segment:?}"), format!("{long:?}"));
            }
        }
        assert!(short(&packet(&flow, &link(), None, &[], b"bare"), 256).is_some());
    }
}

#[test]
fn a_packet_of_which_nobody_knows_is_not_summed() {
    let mut packet = packet(&flow_v4(), &link(), Some(Timestamps { value: 7, echo: 8 }), &[], &[7; 1000]);
    let mut asked = None;
    let mut ask = |packet: &[u8], answer: Option<()>| {
        parse_expected(packet, 256, &mut SegmentIn::blank(), |flow| {
            asked = Some(*flow);
            answer
        })
    };
    assert!(ask(&packet, Some(())).is_some());
    assert!(ask(&packet, None).is_none(), "nobody knows of it");
    *packet.last_mut().unwrap() ^= 1;
    assert!(ask(&packet, Some(())).is_none(), "its checksum is wrong");
    assert_eq!(asked, Some(flow_v4().reversed()));
}

proptest! {
    #[test]
    fn the_short_way_finds_what_the_long_one_finds(
        flow in any_flow(),
        vlan in proptest::option::of(1u16..4096),
        stamps: Option<(u32, u32)>,
        body in proptest::collection::vec(any::<u8>(), 0..=24),
        payload in proptest::collection::vec(any::<u8>(), 0..300),
        damage in proptest::collection::vec((0usize..140, any::<u8>()), 0..3),
        mended: bool,
        cut in 0usize..40,
    ) {
        let stamps = stamps.map(|(value, echo)| Timestamps { value, echo });
        let link = LinkHeader { vlan: vlan.filter(|vlan| vlan.is_multiple_of(4)), ..link() };
        let mut packet = packet(&flow, &link, stamps, &mptcp(&body), &payload);
        for (at, byte) in damage {
            if let Some(target) = packet.get_mut(at) {
                *target = byte;
            }
        }
        packet.truncate(packet.len().saturating_sub(cut.saturating_sub(30)));
        if mended {
            mend(&mut packet);
        }
        if let Some((link, segment)) = short(&packet, 77) {
            let (info, long) = parsed_tcp(&packet, 77);
            prop_assert_eq!(link, info.link);
            prop_assert_eq!(format!("{segment:?}"), format!("{long:?}"));
        }
    }
}

/// Gives an untagged packet the checksums that its bytes should have, so that what was damaged gets past them.
pub(super) fn mend(packet: &mut [u8]) {
    let v4 = packet.get(12..14) == Some(&[8, 0]);
    let ip = if v4 { IPV4 } else { IPV6 };
    let Some((head, l4)) = packet.split_at_mut_checked(14 + ip) else { return };
    if l4.len() < 20 {
        return;
    }
    let (addresses, len) = (if v4 { 26..34 } else { 22..54 }, l4.len() as u64);
    if v4 {
        head[24..26].fill(0);
        let check = !checksum::sum(&head[14..]);
        head[24..26].copy_from_slice(&check.to_be_bytes());
    }
    l4[16..18].fill(0);
    let pseudo = u64::from(checksum::sum(&head[addresses])) + 6 + len;
    let check = !checksum::fold(pseudo + u64::from(checksum::sum(l4)));
    l4[16..18].copy_from_slice(&check.to_be_bytes());
}

const IPV4: usize = 20;
const IPV6: usize = 40;
