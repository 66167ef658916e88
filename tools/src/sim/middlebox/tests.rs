use mimbox_stack::mem::Region;
use mimbox_stack::options::MAX_OPTION_BYTES;
use mimbox_stack::wire::{self, HeaderTemplate, LinkHeader, Parsed, Verify};
use mimbox_stack::{Counters, FlowKey, FramePool, Outgoing, PoolConfig, SegmentIn, SeqNum, TcpFlags};

use super::*;

/// An MP_CAPABLE of a SYN, with an odd number of NOPs before it so that it starts at an odd offset.
const OPTIONS: [u8; 7] = [NOP, NOP, NOP, MPTCP, 4, 1, 1];
const _: () = assert!(OPTIONS.len() <= MAX_OPTION_BYTES);

fn packet(flags: TcpFlags, local_port: u16) -> Vec<u8> {
    let mut pool = FramePool::new(Region::map(8, 2048).expect("memory"), PoolConfig { rx_reserve: 0 });
    let flow = FlowKey { local: [10, 0, 0, 1].into(), remote: [10, 0, 0, 2].into(), local_port, remote_port: 80 };
    let mut out = Outgoing::bare(SeqNum(7), SeqNum(0), flags);
    out.upper.try_extend_from_slice(&OPTIONS).expect("room");
    let (link, template) = (LinkHeader::default(), HeaderTemplate::new(&flow, 64));
    let sent = wire::emit_tcp(&mut pool, &link, &template, out, 0, &mut Counters::default());
    let (frame, offset, len) = sent.expect("a frame");
    let start = usize::from(offset);
    pool.bytes(&frame)[start..start + usize::from(len)].to_vec()
}

fn segment(packet: &[u8]) -> SegmentIn {
    match wire::parse(packet, 256, Verify::All) {
        Ok(Parsed::Tcp(_, segment)) => segment,
        other => panic!("no sound TCP segment: {other:?}"),
    }
}

fn middlebox(strips: Strips, flows_ppm: u32) -> Middlebox {
    Middlebox { strips, flows_ppm, salt: 5 }
}

#[test]
fn what_is_left_is_a_sound_segment_without_the_option() {
    let mut packet = packet(TcpFlags::SYN, 1000);
    assert_eq!(segment(&packet).options.mptcp_slices().count(), 1);
    assert!(middlebox(Strips::Syns, MILLION).meddle(&mut packet));
    assert_eq!(segment(&packet).options.mptcp_slices().count(), 0);
    assert!(!middlebox(Strips::Syns, MILLION).meddle(&mut packet), "there is nothing more to take");
}

#[test]
fn only_the_segments_that_it_strips_change() {
    for (strips, flags, changes) in [
        (Strips::Syns, TcpFlags::ACK, false),
        (Strips::AllButSyns, TcpFlags::ACK, true),
        (Strips::AllButSyns, TcpFlags::SYN, false),
        (Strips::All, TcpFlags::SYN, true),
        (Strips::All, TcpFlags::ACK, true),
    ] {
        assert_eq!(middlebox(strips, MILLION).meddle(&mut packet(flags, 1000)), changes, "{strips:?} {flags:?}");
    }
}

#[test]
fn a_share_of_the_flows_is_chosen() {
    let chosen = (1000..2000).filter(|&port| middlebox(Strips::All, 300_000).meddle(&mut packet(TcpFlags::ACK, port)));
    let chosen = chosen.count();
    assert!((200..400).contains(&chosen), "{chosen} of 1000");
}
