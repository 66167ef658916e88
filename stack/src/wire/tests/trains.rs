//! Packets that follow another of their connection, received and sent, beside what they are without that one.

use super::*;
use crate::options::Timestamps;

/// Bytes that begin with the packet, as a frame does.
fn in_frame(packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    bytes.resize(packet.len() + 200, 0xa5);
    bytes
}

/// What a packet says by itself, and what it says as one that follows `first`.
fn follow(first: &[u8], next: &[u8], offset: u16) -> Option<SegmentIn> {
    let mut segment = SegmentIn::blank();
    parse_expected(first, offset, &mut segment, |_| Some(()))?;
    let mut head = TrainHead::default();
    if !head.begin(&in_frame(first), &segment) {
        return None;
    }
    head.follow(next, offset)?.put_in(&mut segment);
    Some(segment)
}

fn alone(packet: &[u8], offset: u16) -> SegmentIn {
    let mut segment = SegmentIn::blank();
    parse_expected(packet, offset, &mut segment, |_| Some(())).expect("the usual layout");
    segment
}

/// A data segment of `flow` with these numbers.
fn segment(pool: &mut FramePool, seq: u32, stamps: (u32, u32), upper: &[u8], payload: &[u8]) -> Outgoing {
    let mut out = data_out(pool, 256, payload);
    (out.seq, out.flags) = (SeqNum(seq), TcpFlags::ACK);
    out.timestamps = Some(Timestamps { value: stamps.0, echo: stamps.1 });
    out.upper.try_extend_from_slice(upper).unwrap();
    out
}

fn mptcp(body: &[u8]) -> Vec<u8> {
    [&[30, body.len() as u8 + 2, 0x20, 0x05], body]
        .concat()
        .into_iter()
        .enumerate()
        .map(length(body.len() + 4))
        .collect()
}

fn length(len: usize) -> impl Fn((usize, u8)) -> u8 {
    move |(at, byte)| if at == 1 { len as u8 } else { byte }
}

fn packet(flow: &FlowKey, seq: u32, stamps: (u32, u32), upper: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut pool = pool();
    let out = segment(&mut pool, seq, stamps, upper, payload);
    packet_of(&mut pool, flow, &link(), out)
}

#[test]
fn the_next_packet_of_a_connection_is_read_as_if_it_were_the_first() {
    for flow in [flow_v4(), flow_v6()] {
        for upper in [vec![], mptcp(&[1, 2, 3, 4]), mptcp(&[7; 18]), mptcp(&[7; 15])] {
            for payload in [&[][..], b"odd", &[9; 1000]] {
                let first = packet(&flow, 100, (7, 8), &upper, b"some");
                let next = packet(&flow, 104, (9, 8), &upper, payload);
                let followed = follow(&first, &next, 256).expect("it follows");
                assert_eq!(format!("{followed:?}"), format!("{:?}", alone(&next, 256)));
            }
        }
    }
}

#[test]
fn a_packet_of_another_connection_does_not_follow() {
    let first = packet(&flow_v4(), 100, (7, 8), &[], b"some");
    let other = FlowKey { remote_port: flow_v4().remote_port ^ 1, ..flow_v4() };
    assert!(follow(&first, &packet(&other, 104, (7, 8), &[], b"more"), 256).is_none());
    assert!(follow(&first, &packet(&flow_v6(), 104, (7, 8), &[], b"more"), 256).is_none());
    assert!(follow(&first, &packet(&flow_v4(), 104, (7, 8), &mptcp(&[1; 4]), b"more"), 256).is_none());
    assert!(follow(&first, &packet(&flow_v4(), 104, (7, 8), &[], b"more"), 256).is_some());
}

proptest! {
    #[test]
    fn what_follows_is_what_it_would_be_alone(
        flow in any_flow(),
        body in proptest::collection::vec(any::<u8>(), 0..=20),
        other_body in proptest::collection::vec(any::<u8>(), 0..=20),
        same_length: bool,
        seqs: (u32, u32),
        stamps: ((u32, u32), (u32, u32)),
        payload in proptest::collection::vec(any::<u8>(), 0..300),
        damage in proptest::collection::vec((0usize..140, any::<u8>()), 0..3),
        mended: bool,
        cut in 0usize..40,
    ) {
        let first = packet(&flow, seqs.0, stamps.0, &mptcp(&body), b"first");
        let mut other_body = other_body;
        if same_length {
            other_body.resize(body.len(), 3);
        }
        let mut next = packet(&flow, seqs.1, stamps.1, &mptcp(&other_body), &payload);
        for (at, byte) in damage {
            if let Some(target) = next.get_mut(at) {
                *target = byte;
            }
        }
        next.truncate(next.len().saturating_sub(cut.saturating_sub(30)));
        if mended {
            super::expected::mend(&mut next);
        }
        if let Some(followed) = follow(&first, &next, 77) {
            let (_, long) = parsed_tcp(&next, 77);
            prop_assert_eq!(format!("{followed:?}"), format!("{long:?}"));
        }
    }

    #[test]
    fn the_next_segment_of_a_train_is_built_as_if_it_were_the_first(
        flow in any_flow(),
        bodies in proptest::collection::vec(any::<u8>(), 0..=20),
        seqs: (u32, u32),
        stamps: (u32, u32),
        window: u16,
        push: (bool, bool),
        ecn: bool,
        payload in proptest::collection::vec(any::<u8>(), 1..300),
    ) {
        let mut pool = pool();
        let template = HeaderTemplate::new(&flow, 64);
        let mut counters = Counters::default();
        let upper = mptcp(&bodies);
        let next_upper: Vec<u8> = upper.iter().enumerate().map(|(at, byte)| if at < 4 { *byte } else { !byte }).collect();
        let build = |pool: &mut FramePool, seq, upper: &[u8], push| {
            let mut out = segment(pool, seq, stamps, upper, &payload);
            out.window = window;
            out.flags.set(TcpFlags::PSH, push);
            out.ecn = if ecn { Ecn::Ect0 } else { Ecn::NotEct };
            out
        };
        let mut first = build(&mut pool, seqs.0, &upper, push.0);
        let (frame, start, _) = emit_tcp_from(&mut pool, &link(), &template, &mut first, 1, &mut counters).unwrap();
        let mut image = HeaderImage::default();
        prop_assert!(image.keep(&pool, &frame, start, &first, &template) || upper.len() + 66 < 64);
        let mut next = build(&mut pool, seqs.1, &next_upper, push.1);
        let (sent, start, len) = image.emit(&mut pool, &template, &mut next, 2, &mut counters).unwrap();
        let bytes = pool.bytes(&sent)[usize::from(start)..usize::from(start) + usize::from(len)].to_vec();
        let alone = build(&mut pool, seqs.1, &next_upper, push.1);
        let (built, start, len) = emit_tcp(&mut pool, &link(), &template, alone, 2, &mut counters).unwrap();
        prop_assert_eq!(&bytes[..], &pool.bytes(&built)[usize::from(start)..usize::from(start) + usize::from(len)]);
        for frame in [frame, sent, built] {
            pool.release(frame);
        }
        prop_assert_eq!(pool.in_use(), 0);
    }
}
