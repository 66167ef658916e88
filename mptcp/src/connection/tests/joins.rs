//! MP_JOIN and what can go wrong with it.

use mimbox_stack::TcpFlags;

use super::*;
use crate::option::{Join, MptcpOption, Signals, parse};

/// Runs a transfer while `meddle` sees every segment of the second path; true to let it pass.
fn with_meddled_second_path(
    seed: u64,
    mut meddle: impl FnMut(usize, &mut mimbox_stack::SegmentIn) -> bool + 'static,
) -> Pair {
    let mut pair = pair(seed, vec![rated(10), rated(10)]);
    pair.meddler = Some(Box::new(move |path, from, segment, _| if path == 1 { meddle(from, segment) } else { true }));
    exchange(&mut pair, [3_000_000, 3_000_000], MINUTE);
    pair
}

fn rated(delay_ms: u64) -> Path {
    Path { ns_per_byte: 400, ..Path::clean(delay_ms) }
}

fn joins(segment: &mimbox_stack::SegmentIn) -> Option<Join> {
    Signals::read(segment).join
}

#[test]
fn a_lost_third_ack_is_repeated() {
    let mut lost = 2;
    let mut pair = with_meddled_second_path(1, move |_, segment| {
        if matches!(joins(segment), Some(Join::Ack { .. })) && lost > 0 {
            lost -= 1;
            return false;
        }
        true
    });
    assert!(pair.counter(1, Counter::MptcpJoinAccepted) == 1, "{}", pair.status());
    close(&mut pair);
}

/// The first `lost` segments of the server on the second path do not arrive, its SYN/ACK does. Nothing may arrive there that
/// is not next in order until the client has shown, by a DSS, that it has the fourth ACK: Linux resets the subflow.
fn nothing_overtakes_the_fourth_ack(seed: u64, sizes: [u64; 2], lost: u32) {
    let mut pair = pair(seed, vec![rated(10), rated(10)]);
    pair.trace = Some(Vec::new());
    let mut left = lost;
    pair.meddler = Some(Box::new(move |path, from, segment, _| {
        let hit = path == 1 && from == 1 && !segment.flags.contains(TcpFlags::SYN) && left > 0;
        left -= u32::from(hit);
        !hit
    }));
    exchange(&mut pair, sizes, MINUTE);
    let trace = pair.trace.take().unwrap();
    let (mut first, mut dropped, mut data) = (None, 0, 0);
    for (_, from, segment) in trace.iter().filter(|(path, ..)| *path == 1) {
        match (*from, first) {
            (0, Some(_)) if Signals::read(segment).dss.is_some() => break,
            (1, None) => first = Some(segment.seq + 1),
            (1, Some(_)) if dropped < lost => dropped += 1,
            (1, Some(first)) => {
                let overtakes = segment.seq != first;
                assert!(!overtakes, "seed {seed}: {segment:?} overtakes what was lost");
                data += u32::from(segment.payload_len > 0);
            }
            _ => {}
        }
    }
    assert_eq!(dropped, lost);
    assert!(data > 0 || sizes[0] > 1_000, "seed {seed}: no data went there to prove it");
    let sent = pair.hosts[1].connection().subflow_stats().nth(1).map_or(0, |stats| stats.bytes_sent);
    assert!(sent > 50_000 || sizes[1] < 1_000_000, "seed {seed}: the second path carried {sent} bytes only");
    close(&mut pair);
}

#[test]
fn no_data_overtakes_a_fourth_ack_that_was_lost() {
    for lost in 0..6 {
        nothing_overtakes_the_fourth_ack(20 + u64::from(lost), [10, 3_000_000], lost);
        nothing_overtakes_the_fourth_ack(30 + u64::from(lost), [3_000_000, 3_000_000], lost);
    }
}

#[test]
fn no_data_is_sent_before_the_fourth_ack() {
    let mut pair = pair(2, vec![rated(10), rated(1)]);
    pair.trace = Some(Vec::new());
    let mut acks_lost = 3;
    pair.meddler = Some(Box::new(move |path, from, segment, _| {
        // The server's ACKs on the second path, its SYN/ACK left out, are lost at first.
        let fourth = path == 1 && from == 1 && !segment.flags.contains(TcpFlags::SYN);
        if fourth && acks_lost > 0 {
            acks_lost -= 1;
            return false;
        }
        true
    }));
    exchange(&mut pair, [8_000_000, 10], MINUTE);
    let trace = pair.trace.take().unwrap();
    let mut acks = 0;
    for (path, from, segment) in trace.iter().filter(|entry| entry.0 == 1) {
        acks += usize::from(*path == 1 && *from == 1 && !segment.flags.contains(TcpFlags::SYN));
        assert!(*from == 1 || segment.payload_len == 0 || acks > 3, "data before the fourth ACK arrived");
    }
    assert!(acks > 3);
    close(&mut pair);
}

/// Changes the join option of a segment by way of its bytes.
fn corrupt(segment: &mut mimbox_stack::SegmentIn, byte: usize) {
    if let Some(&at) = segment.options.mptcp.first() {
        let index = usize::from(at.start) + byte;
        segment.options.raw[index] ^= 0x40;
    }
}

#[test]
fn a_join_with_a_wrong_hmac_is_reset() {
    let mut pair = with_meddled_second_path(3, |_, segment| {
        if matches!(joins(segment), Some(Join::Ack { .. })) {
            corrupt(segment, 7);
        }
        true
    });
    assert_eq!(pair.counter(1, Counter::MptcpJoinAccepted), 0);
    assert!(pair.counter(1, Counter::MptcpJoinBadHmac) > 0);
    close(&mut pair);
}

#[test]
fn a_join_answered_with_a_wrong_hmac_is_reset_with_a_reason() {
    let mut pair = pair(4, vec![Path::clean(10), Path::clean(10)]);
    pair.trace = Some(Vec::new());
    pair.meddler = Some(Box::new(|path, from, segment, _| {
        if path == 1 && from == 1 && matches!(joins(segment), Some(Join::SynAck(_))) {
            corrupt(segment, 6);
        }
        true
    }));
    exchange(&mut pair, [200_000, 200_000], MINUTE);
    assert_eq!(pair.counter(0, Counter::MptcpJoinAccepted), 0);
    let resets = pair.trace.take().unwrap();
    let told = resets.iter().any(|(path, from, segment)| {
        *path == 1
            && *from == 0
            && Signals::read(segment).reset.is_some_and(|r| r.reason == crate::ResetReason::MptcpSpecific)
    });
    assert!(told, "the RST says why");
    close(&mut pair);
}

#[test]
fn a_join_whose_option_was_stripped_is_given_up() {
    let mut pair = with_meddled_second_path(5, |_, segment| {
        segment.options.mptcp.clear();
        true
    });
    assert_eq!(pair.counter(0, Counter::MptcpJoinAccepted) + pair.counter(1, Counter::MptcpJoinAccepted), 0);
    close(&mut pair);
}

#[test]
fn options_stripped_from_data_of_a_joined_subflow_reset_it() {
    let mut pair = with_meddled_second_path(6, |_, segment| {
        if segment.payload_len > 0 || joins(segment).is_none() {
            segment.options.mptcp.clear();
        }
        true
    });
    assert!(pair.counter(0, Counter::MptcpSubflowsDead) + pair.counter(1, Counter::MptcpSubflowsDead) > 0);
    close(&mut pair);
}

#[test]
fn further_subflows_than_allowed_are_refused() {
    let config = MptcpConfig { max_subflows: 2, ..MptcpConfig::default() };
    let mut pair = Pair::new(7, vec![Path::clean(10); 4], [MptcpConfig::default(), config]);
    exchange(&mut pair, [300_000, 300_000], MINUTE);
    assert_eq!(pair.counter(1, Counter::MptcpJoinAccepted), 1);
    close(&mut pair);
}

#[test]
fn the_c_flag_is_seen_by_the_client() {
    let config = MptcpConfig { deny_join_initial_address: true, ..MptcpConfig::default() };
    let mut pair = Pair::new(8, vec![Path::clean(10)], [MptcpConfig::default(), config]);
    exchange(&mut pair, [10, 10], MINUTE);
    assert!(pair.hosts[0].connection().peer_denies_joins());
    assert!(!pair.hosts[1].connection().peer_denies_joins());
    close(&mut pair);
}

#[test]
fn joins_and_keys_are_as_the_standard_says_on_the_wire() {
    let mut pair = pair(9, vec![Path::clean(10), Path::clean(10)]);
    pair.trace = Some(Vec::new());
    exchange(&mut pair, [100_000, 100_000], MINUTE);
    let trace = pair.trace.take().unwrap();
    let sizes = |path: usize, from: usize| -> Vec<usize> {
        let of = trace.iter().filter(|(p, f, _)| *p == path && *f == from);
        let raw = of.flat_map(|(_, _, s)| s.options.mptcp_slices().map(<[u8]>::to_vec).collect::<Vec<_>>());
        raw.filter(|raw| matches!(parse(raw), Ok(MptcpOption::Capable(_) | MptcpOption::Join(_))))
            .map(|raw| raw.len())
            .collect()
    };
    assert_eq!(sizes(0, 0), [4, 22]);
    assert_eq!(sizes(0, 1), [12]);
    assert_eq!(sizes(1, 0), [12, 24]);
    assert_eq!(sizes(1, 1), [16]);
    close(&mut pair);
}

/// A subflow whose handshake needed several tries carries data like any other.
#[test]
fn a_subflow_whose_syn_ack_was_lost_is_used() {
    let mut again = 0;
    for seed in 0..6 {
        let first = Path { ns_per_byte: 800, ..Path::clean(20) };
        let mut pair = Pair::new(seed, vec![first, Path { loss: 500, ..first }], [MptcpConfig::default(); 2]);
        pair.hosts[0].closes = false;
        pair.hosts[1].to_write = u64::MAX / 2;
        let second = |pair: &Pair| pair.hosts[1].connection.as_ref().and_then(|host| host.subflow_stats().nth(1));
        if !pair.run(SECOND * 20, |pair| second(pair).is_some_and(|second| second.open)) {
            continue;
        }
        again += pair.counter(1, Counter::TcpSynRetransmits);
        pair.paths[1].loss = 0;
        pair.run(SECOND * 5, |_| false);
        let sent = second(&pair).map_or(0, |stats| stats.bytes_sent);
        assert!(sent > 100_000, "seed {seed}: {sent} bytes on the second path: {}", pair.status());
    }
    assert!(again > 0, "no SYN+ACK was sent twice");
}
