use mimbox_stack::mem::Region;
use mimbox_stack::options::{MAX_OPTION_BYTES, SackBlock};
use mimbox_stack::wire::{self, HeaderTemplate, LinkHeader, Parsed, Verify};
use mimbox_stack::{Counters, FlowKey, FramePool, Outgoing, PayloadOut, PoolConfig, SegmentIn, SeqNum, TcpFlags};

use super::*;

/// An MP_CAPABLE of a SYN, with an odd number of NOPs before it so that it starts at an odd offset.
const OPTIONS: [u8; 7] = [NOP, NOP, NOP, MPTCP, 4, 1, 1];
const _: () = assert!(OPTIONS.len() <= MAX_OPTION_BYTES);

/// A segment of the client's with an MPTCP option.
fn segment_out(flags: TcpFlags, local_port: u16, seq: u32, payload: &[u8]) -> Packet {
    let mut pool = FramePool::new(Region::map(8, 2048).expect("memory"), PoolConfig { rx_reserve: 0 });
    let flow = FlowKey { local: [10, 0, 0, 1].into(), remote: [10, 0, 0, 2].into(), local_port, remote_port: 80 };
    let mut out = Outgoing::bare(SeqNum(seq), SeqNum(77), flags);
    out.upper.try_extend_from_slice(&OPTIONS).expect("room");
    if !payload.is_empty() {
        let frame = pool.alloc().expect("a frame");
        pool.bytes_mut(&frame)[400..400 + payload.len()].copy_from_slice(payload);
        let (len, sum) = (payload.len() as u16, checksum::sum(payload));
        out.payload = Some(PayloadOut { frame, offset: 400, len, sum });
    } else if flags == TcpFlags::ACK {
        out.sack = [SackBlock { start: SeqNum(100), end: SeqNum(200) }].into_iter().collect();
    }
    let (link, template) = (LinkHeader::default(), HeaderTemplate::new(&flow, 64));
    let sent = wire::emit_tcp(&mut pool, &link, &template, out, 0, &mut Counters::default());
    let (frame, offset, len) = sent.expect("a frame");
    let start = usize::from(offset);
    pool.bytes(&frame)[start..start + usize::from(len)].to_vec()
}

fn packet(flags: TcpFlags, local_port: u16) -> Packet {
    segment_out(flags, local_port, 7, &[])
}

/// The segment in a packet whose checks are right, and its payload.
fn segment(packet: &[u8]) -> (SegmentIn, Vec<u8>) {
    match wire::parse(packet, 0, Verify::All) {
        Ok(Parsed::Tcp(_, segment)) => {
            let start = usize::from(segment.payload_offset);
            let payload = packet[start..start + usize::from(segment.payload_len)].to_vec();
            (segment, payload)
        }
        other => panic!("no sound TCP segment: {other:?}"),
    }
}

fn meddler(does: Does, flows_ppm: u32, way: Way) -> Meddler {
    Meddler::new(Middlebox { does, flows_ppm, salt: 5 }, way)
}

/// What comes out for one packet.
fn through(meddler: &mut Meddler, packet: Packet) -> Vec<Packet> {
    let mut out = Vec::new();
    meddler.meddle(Instant::ZERO, packet, &mut Packets::default(), &mut |_, packet| out.push(packet));
    out
}

fn has_option(packet: &[u8]) -> bool {
    segment(packet).0.options.mptcp_slices().count() == 1
}

#[test]
fn what_is_left_is_a_sound_segment_without_the_option() {
    let mut strips = meddler(Does::Strips(Strips::Syns), MILLION, Way::There);
    let out = through(&mut strips, packet(TcpFlags::SYN, 1000));
    assert!(!has_option(&out[0]));
    through(&mut strips, out[0].clone());
    assert_eq!(strips.stripped, 1, "there is nothing more to take");
}

#[test]
fn only_the_segments_that_it_strips_change() {
    for (strips, flags, payload, changes) in [
        (Strips::Syns, TcpFlags::ACK, 0, false),
        (Strips::AllButSyns, TcpFlags::ACK, 0, true),
        (Strips::AllButSyns, TcpFlags::SYN, 0, false),
        (Strips::Data, TcpFlags::ACK, 0, false),
        (Strips::Data, TcpFlags::ACK, 9, true),
        (Strips::All, TcpFlags::SYN, 0, true),
        (Strips::All, TcpFlags::ACK, 0, true),
    ] {
        let mut meddler = meddler(Does::Strips(strips), MILLION, Way::There);
        let out = through(&mut meddler, segment_out(flags, 1000, 7, &vec![1; payload]));
        assert_eq!(!has_option(&out[0]), changes, "{strips:?} {flags:?}");
    }
}

#[test]
fn a_third_ack_is_stripped_once() {
    let mut strips = meddler(Does::Strips(Strips::ThirdAcks), MILLION, Way::There);
    let left: Vec<bool> = [TcpFlags::SYN, TcpFlags::ACK, TcpFlags::ACK]
        .into_iter()
        .map(|flags| has_option(&through(&mut strips, packet(flags, 1000))[0]))
        .collect();
    assert_eq!(left, [true, false, true]);
}

#[test]
fn a_share_of_the_flows_is_chosen() {
    let mut strips = meddler(Does::Strips(Strips::All), 300_000, Way::There);
    for port in 1000..2000 {
        through(&mut strips, packet(TcpFlags::ACK, port));
    }
    assert!((200..400).contains(&strips.stripped), "{} of 1000", strips.stripped);
}

#[test]
fn payload_is_changed_at_the_same_places_however_it_is_cut() {
    let payload: Vec<u8> = (0..1400_u32).map(|at| at as u8).collect();
    let mut changes = meddler(Does::Changes { ppm: MILLION }, MILLION, Way::There);
    let first = BLOCK - 700;
    let same = through(&mut changes, segment_out(TcpFlags::ACK, 1000, first, &payload));
    assert_eq!(segment(&same[0]).1, payload, "no SYN with an option of MPTCP was seen");
    through(&mut changes, packet(TcpFlags::SYN, 1000));
    let whole = through(&mut changes, segment_out(TcpFlags::ACK, 1000, first, &payload));
    let mut parts = Vec::new();
    for (at, part) in payload.chunks(100).enumerate() {
        let packet = segment_out(TcpFlags::ACK, 1000, first + 100 * at as u32, part);
        parts.extend(segment(&through(&mut changes, packet)[0]).1);
    }
    let different: Vec<usize> = (0..1400).filter(|&at| parts[at] != payload[at]).collect();
    assert_eq!(different, [699]);
    assert_eq!(segment(&whole[0]).1, parts);
}

#[test]
fn numbers_are_shifted_there_and_back() {
    let mut there = meddler(Does::Renumbers, MILLION, Way::There);
    let out = segment(&through(&mut there, packet(TcpFlags::ACK, 1000))[0]).0;
    let (own, other) = (out.seq - 7, SeqNum(77) - out.ack.0);
    assert!(own.0 != 0 && other.0 != 0 && own != other);
    assert_eq!(out.options.sack[0].start, SeqNum(100) - other.0);
    assert_eq!(out.options.sack[0].end, SeqNum(200) - other.0);
    // The same packet as if it came the other way: the shifts change places.
    let mut back = meddler(Does::Renumbers, MILLION, Way::Back);
    let out = segment(&through(&mut back, packet(TcpFlags::ACK, 1000))[0]).0;
    assert_eq!((out.seq, out.ack), (SeqNum(7) + other.0, SeqNum(77) - own.0));
    let syn = segment(&through(&mut there, packet(TcpFlags::SYN, 1000))[0]).0;
    assert_eq!(syn.seq, SeqNum(7) + own.0, "a SYN acknowledges nothing");
}

#[test]
fn pieces_have_the_options_of_the_whole_and_the_last_its_end() {
    let payload: Vec<u8> = (0..250).collect();
    let mut cuts = meddler(Does::Cuts { bytes: 100 }, MILLION, Way::There);
    let whole = segment_out(TcpFlags::ACK | TcpFlags::FIN | TcpFlags::PSH, 1000, 7, &payload);
    let pieces: Vec<_> = through(&mut cuts, whole).iter().map(|piece| segment(piece)).collect();
    assert_eq!(pieces.iter().map(|piece| piece.0.seq).collect::<Vec<_>>(), [SeqNum(7), SeqNum(107), SeqNum(207)]);
    assert_eq!(pieces.iter().flat_map(|piece| piece.1.clone()).collect::<Vec<_>>(), payload);
    assert!(pieces.iter().all(|piece| piece.0.options.mptcp_slices().count() == 1));
    let ends: Vec<bool> = pieces.iter().map(|piece| piece.0.flags.contains(TcpFlags::FIN)).collect();
    assert_eq!(ends, [false, false, true]);
}

#[test]
fn what_is_held_back_is_joined_with_what_follows_or_let_go() {
    let mut joins = meddler(Does::Joins { ppm: MILLION }, MILLION, Way::There);
    assert!(through(&mut joins, segment_out(TcpFlags::ACK, 1000, 7, &[1; 40])).is_empty());
    assert_eq!(joins.takes_up(), Some(Instant::ZERO + HOLD));
    assert_eq!(joins.takes_up(), None, "said once");
    let out = through(&mut joins, segment_out(TcpFlags::ACK, 1000, 47, &[2; 60]));
    let [(joined, payload)] = &out.iter().map(|packet| segment(packet)).collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!((joined.seq, payload.len()), (SeqNum(7), 100));
    assert_eq!(joined.options.mptcp_slices().count(), 1);
    // What does not follow goes after it, and nothing waits for longer than it should.
    assert!(through(&mut joins, segment_out(TcpFlags::ACK, 1000, 107, &[3; 10])).is_empty());
    assert_eq!(through(&mut joins, packet(TcpFlags::ACK, 1000)).len(), 2);
    assert!(through(&mut joins, segment_out(TcpFlags::ACK, 1000, 117, &[3; 10])).is_empty());
    assert!(joins.let_go(Instant::ZERO).is_none());
    assert!(joins.let_go(Instant::ZERO + HOLD).is_some());
}
