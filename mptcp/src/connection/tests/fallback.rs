//! Every way down to plain TCP, and the resets where there is none.

use mimbox_stack::TcpFlags;

use super::*;
use crate::HalfOutcome;
use crate::option::Signals;

/// One path on which options vanish from the segments that `strips` names.
fn stripped(
    seed: u64,
    sizes: [u64; 2],
    mut strips: impl FnMut(usize, &mimbox_stack::SegmentIn) -> bool + 'static,
) -> Pair {
    let mut pair = pair(seed, vec![lossy(seed % 20, seed % 30, 10), lossy(0, 0, 5)]);
    pair.meddler = Some(Box::new(move |path, from, segment, _| {
        if path == 0 && strips(from, segment) {
            segment.options.mptcp.clear();
        }
        true
    }));
    exchange(&mut pair, sizes, MINUTE * 3);
    pair
}

fn both_fell_back(pair: &mut Pair) {
    for side in 0..2 {
        assert!(pair.hosts[side].connection().has_fallen_back(), "side {side}: {}", pair.status());
        assert!(pair.hosts[side].events.iter().any(|event| matches!(event, Event::Fallback(_))));
    }
}

#[test]
fn an_option_stripped_from_the_syn_ack_falls_back() {
    for seed in 0..10 {
        let mut pair =
            stripped(seed, [100_000, 100_000], |from, segment| from == 1 && segment.flags.contains(TcpFlags::SYN));
        both_fell_back(&mut pair);
        close(&mut pair);
    }
}

#[test]
fn an_option_stripped_from_all_but_syns_falls_back() {
    for seed in 0..20 {
        let mut pair = stripped(seed, [100_000, 100_000], |_, segment| !segment.flags.contains(TcpFlags::SYN));
        both_fell_back(&mut pair);
        close(&mut pair);
    }
}

#[test]
fn options_stripped_in_one_direction_after_the_handshake_fall_back() {
    for seed in 0..20 {
        let side = (seed % 2) as usize;
        let mut pair = stripped(seed, [100_000, 100_000], move |from, segment| {
            from == side && !segment.flags.contains(TcpFlags::SYN)
        });
        both_fell_back(&mut pair);
        close(&mut pair);
    }
}

#[test]
fn a_server_that_speaks_first_falls_back_too() {
    for seed in 0..20 {
        let mut pair = stripped(seed, [0, 300_000], |_, segment| !segment.flags.contains(TcpFlags::SYN));
        both_fell_back(&mut pair);
        close(&mut pair);
    }
}

/// A middlebox that changes a byte of the payload on path 0, once there has been `after` of it.
fn meddling_with_payload(pair: &mut Pair, after: u64, times: u32) {
    let mut seen = 0;
    let mut left = times;
    pair.meddler = Some(Box::new(move |path, from, _, payload| {
        if path == 0 && from == 1 && !payload.is_empty() {
            seen += payload.len() as u64;
            if seen > after && left > 0 {
                left -= 1;
                payload[0] ^= 0xff;
            }
        }
        true
    }));
}

#[test]
fn with_several_subflows_a_changed_byte_resets_its_subflow_and_the_data_comes_by_another() {
    for seed in 0..10 {
        let checksum = MptcpConfig { checksum: true, ..MptcpConfig::default() };
        let mut pair = Pair::new(seed, vec![Path::clean(10), Path::clean(12)], [checksum; 2]);
        meddling_with_payload(&mut pair, 100_000, 1);
        exchange(&mut pair, [100_000, 600_000], MINUTE);
        assert_eq!(pair.counter(0, Counter::MptcpDssChecksumErrors), 1);
        assert_eq!(pair.counter(1, Counter::MptcpFailIn), 1);
        assert!(!pair.hosts[0].connection().has_fallen_back());
        close(&mut pair);
    }
}

#[test]
fn with_one_subflow_a_changed_byte_makes_both_fall_back() {
    let checksum = MptcpConfig { checksum: true, ..MptcpConfig::default() };
    let mut pair = Pair::new(1, vec![Path::clean(10)], [checksum; 2]);
    pair.hosts[0].tolerates = 1;
    meddling_with_payload(&mut pair, 100_000, 1);
    exchange(&mut pair, [100_000, 600_000], MINUTE);
    both_fell_back(&mut pair);
    assert_eq!(pair.counter(0, Counter::MptcpFallbackChecksum), 1);
    assert_eq!(pair.counter(1, Counter::MptcpFallbackChecksum), 1);
    close(&mut pair);
}

#[test]
fn a_checksum_failure_while_a_join_is_under_way_never_gives_data_twice() {
    let checksum = MptcpConfig { checksum: true, ..MptcpConfig::default() };
    for seed in 0..10 {
        let mut pair = Pair::new(seed, vec![Path::clean(10), Path::clean(12)], [checksum; 2]);
        // The server never hears of the join, and takes the first subflow for the only one. The last segment is changed, so
        // that only one ACK tells of it.
        let (mut passed, mut left) = (0, 1);
        pair.meddler = Some(Box::new(move |path, from, _, payload| {
            passed += if from == 0 { payload.len() } else { 0 };
            if from == 0 && left > 0 && passed >= 60_000 {
                payload[0] ^= 1;
                left -= 1;
            }
            path == 0
        }));
        // It gets everything once, the changed byte included: the client follows into plain TCP, and gives the join up.
        pair.hosts[1].tolerates = 1;
        pair.hosts[0].to_write = 60_000;
        let ended = pair.run(MINUTE * 3, |pair| pair.all_closed());
        assert!(ended, "{}", pair.status());
        assert_eq!(pair.hosts[1].read, 60_000);
        assert_eq!(pair.counter(0, Counter::MptcpFailIn), 1);
        pair.audit();
    }
}

#[test]
fn the_infinite_mapping_is_said_until_it_has_arrived() {
    let mut pair = pair(3, vec![Path::clean(10)]);
    pair.trace = Some(Vec::new());
    pair.meddler = Some(Box::new(|_, from, segment, _| {
        if from == 0 && !segment.flags.contains(TcpFlags::SYN) && segment.payload_len == 0 {
            // The client's ACKs lose their options, the one with the keys left out.
            if Signals::read(segment).capable.is_none() {
                segment.options.mptcp.clear();
            }
        }
        true
    }));
    pair.hosts[0].closes = false;
    pair.hosts[1].to_write = 300_000;
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read == 300_000), "{}", pair.status());
    let infinite = |(_, from, segment): &&(usize, usize, mimbox_stack::SegmentIn)| {
        *from == 1 && Signals::read(segment).dss.and_then(|dss| dss.mapping).is_some_and(|map| map.len == 0)
    };
    let trace = pair.trace.take().unwrap();
    let data: Vec<_> = trace.iter().filter(|(_, from, segment)| *from == 1 && segment.payload_len > 0).collect();
    let said = data.iter().filter(|segment| infinite(segment)).count();
    assert!(said > 0, "{}", pair.status());
    // It ends with the first acknowledgment that covers it: within a round trip, so the last half of the data is free of it.
    assert!(!data[data.len() / 2..].iter().any(infinite), "{said} of {} say it", data.len());
    pair.audit();
}

/// The right edges that side `from` shows on its only subflow, in the order of arrival, and the furthest byte that the
/// other side sends.
fn edges_and_sent(trace: &[(usize, usize, mimbox_stack::SegmentIn)], from: usize) -> (Vec<u32>, u32) {
    let mut edges = Vec::new();
    let mut sent = None;
    for (_, by, segment) in trace.iter().filter(|(.., segment)| !segment.flags.contains(TcpFlags::SYN)) {
        if *by == from {
            edges.push(segment.ack.0.wrapping_add(u32::from(segment.window) << 7));
        } else {
            let end = segment.seq.0.wrapping_add(u32::from(segment.payload_len));
            let furthest = *sent.get_or_insert(end);
            sent = Some(if (end.wrapping_sub(furthest) as i32) > 0 { end } else { furthest });
        }
    }
    (edges, sent.expect("something was sent"))
}

#[test]
fn after_a_fallback_both_windows_are_those_of_tcp() {
    for side in 0..2 {
        let mut pair = pair(side as u64, vec![Path::clean(10)]);
        pair.meddler = Some(Box::new(|_, _, segment, _| {
            if !segment.flags.contains(TcpFlags::SYN) {
                segment.options.mptcp.clear();
            }
            true
        }));
        pair.trace = Some(Vec::new());
        pair.hosts[1 - side].space = 1_000;
        pair.hosts[0].closes = false;
        pair.hosts[1].closes = false;
        pair.hosts[1 - side].to_write = 1;
        pair.hosts[side].to_write = 400_000;
        assert!(!pair.run(SECOND * 2, |pair| pair.hosts[1 - side].read == 400_000), "the window is small");
        both_fell_back(&mut pair);
        let (edges, sent) = edges_and_sent(pair.trace.as_deref().unwrap(), 1 - side);
        for two in edges.windows(2) {
            assert!((two[1].wrapping_sub(two[0]) as i32) >= 0, "an edge moved left by {}", two[0].wrapping_sub(two[1]));
        }
        let furthest = *edges.last().expect("edges were shown");
        assert!((furthest.wrapping_sub(sent) as i32) >= 0, "sent {} beyond the window", sent.wrapping_sub(furthest));
        // A closed window is probed as TCP probes it: by nothing that has to be taken.
        pair.hosts[1 - side].space = 0;
        pair.run(SECOND * 60, |_| false);
        assert!(pair.counter(side, Counter::TcpZeroWindowProbes) > 0, "{}", pair.status());
        pair.hosts[1 - side].space = 1 << 20;
        pair.hosts[0].closes = true;
        pair.hosts[1].closes = true;
        assert!(pair.run(MINUTE * 2, |pair| pair.hosts[1 - side].read == 400_000), "{}", pair.status());
        close(&mut pair);
    }
}

/// Which segments lose their options: of which side, and whether SYNs do.
fn stripping(side: Option<usize>) -> impl FnMut(usize, &mimbox_stack::SegmentIn) -> bool {
    move |from, segment| side.is_none_or(|side| from == side) && !segment.flags.contains(TcpFlags::SYN)
}

#[test]
fn little_data_is_enough_to_fall_back_whichever_way_options_vanish() {
    for side in [None, Some(0), Some(1)] {
        for sizes in [[0, 0], [10, 0], [0, 10], [3_000, 5], [5, 3_000], [7_000, 150_000], [150_000, 7_000]] {
            for seed in 0..8 {
                let mut pair = stripped(seed, sizes, stripping(side));
                close(&mut pair);
                for host in &pair.hosts {
                    let bad = HalfOutcome::RESET | HalfOutcome::TIMED_OUT;
                    assert!(!host.outcome.intersects(bad), "{side:?} {sizes:?} seed {seed}: {:?}", host.outcome);
                }
            }
        }
    }
}

#[test]
fn a_joined_path_without_options_is_given_up() {
    for side in [None, Some(0), Some(1)] {
        for seed in 0..10 {
            let mut pair = pair(seed, vec![lossy(seed % 20, seed % 30, 10), lossy(0, 0, 5)]);
            let mut strips = stripping(side);
            pair.meddler = Some(Box::new(move |path, from, segment, _| {
                if path == 1 && strips(from, segment) {
                    segment.options.mptcp.clear();
                }
                true
            }));
            exchange(&mut pair, [100_000, 100_000], MINUTE);
            for host in &mut pair.hosts {
                assert!(!host.connection().has_fallen_back());
            }
            close(&mut pair);
        }
    }
}

#[test]
fn a_client_whose_keys_never_arrive_falls_back_and_its_server_follows() {
    for sizes in [[0, 0], [0, 3_000]] {
        let mut pair = pair(12, vec![Path::clean(10)]);
        pair.meddler = Some(Box::new(|_, from, segment, _| {
            let keys = !segment.flags.contains(TcpFlags::SYN) && Signals::read(segment).capable.is_some();
            from == 1 || !keys
        }));
        exchange(&mut pair, sizes, MINUTE);
        both_fell_back(&mut pair);
        close(&mut pair);
    }
}

#[test]
fn data_without_a_mapping_before_a_fin_is_the_end_of_a_peer_that_fell_back() {
    for seed in 0..10 {
        let mut pair = pair(seed, vec![Path::clean(10)]);
        let (mut bytes, mut strips) = (0, false);
        // From the middle on no option passes, in either direction: the client sees acknowledgments without a DATA_ACK and
        // goes on as plain TCP, and its infinite mapping does not arrive.
        pair.meddler = Some(Box::new(move |_, from, segment, payload| {
            bytes += if from == 0 { payload.len() } else { 0 };
            strips |= bytes > 100_000;
            if strips {
                segment.options.mptcp.clear();
            }
            true
        }));
        exchange(&mut pair, [200_000, 0], SECOND * 8);
        both_fell_back(&mut pair);
        close(&mut pair);
    }
}
