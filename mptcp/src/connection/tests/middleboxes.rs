//! What middleboxes do to segments (RFC 8684 §6), and what the two ends make of it.

use mimbox_stack::options::{OptionSlice, SackBlock};
use mimbox_stack::{SegmentIn, TcpFlags};

use super::*;
use crate::ResetReason;
use crate::dsn::{Dsn, Width, WireDsn};
use crate::key::{self, Version};
use crate::option::{CapableForm, Dss, DssMapping, Join, MptcpOption, Signals};

fn rated(delay_ms: u64) -> Path {
    Path { ns_per_byte: 400, ..Path::clean(delay_ms) }
}

/// Puts other MPTCP options on a segment.
fn put(segment: &mut SegmentIn, options: &[MptcpOption]) {
    segment.options.raw.clear();
    segment.options.mptcp.clear();
    for option in options {
        let start = segment.options.raw.len();
        assert!(option.emit(&mut segment.options.raw));
        let len = (segment.options.raw.len() - start) as u8;
        segment.options.mptcp.push(OptionSlice { start: start as u8, len });
    }
}

/// A translator that moves the sequence numbers of each direction of each path.
fn renumbering(pair: &mut Pair) {
    let shift = |path: usize, from: usize| 0x9e37_79b9_u32.wrapping_mul(1 + 2 * path as u32 + from as u32);
    pair.meddler = Some(Box::new(move |path, from, segment, _| {
        segment.seq += shift(path, from);
        if segment.flags.contains(TcpFlags::ACK) {
            segment.ack = mimbox_stack::SeqNum(segment.ack.0.wrapping_sub(shift(path, 1 - from)));
        }
        for block in &mut segment.options.sack {
            let back = |seq: mimbox_stack::SeqNum| mimbox_stack::SeqNum(seq.0.wrapping_sub(shift(path, 1 - from)));
            *block = SackBlock { start: back(block.start), end: back(block.end) };
        }
        true
    }));
}

#[test]
fn renumbered_sequences_work_without_fallback() {
    for seed in 0..20 {
        let checksum = MptcpConfig { checksum: seed % 2 == 0, ..MptcpConfig::default() };
        let mut pair = Pair::new(seed, vec![lossy(20, 30, 5), lossy(20, 30, 20)], [checksum; 2]);
        renumbering(&mut pair);
        exchange(&mut pair, [200_000, 200_000], MINUTE * 3);
        for side in 0..2 {
            assert!(!pair.hosts[side].connection().has_fallen_back(), "{}", pair.status());
            assert_eq!(pair.counter(side, Counter::MptcpDssChecksumErrors), 0);
        }
        close(&mut pair);
    }
}

/// A box that cuts payloads behind `at` bytes; both pieces get the whole option.
fn splitting(pair: &mut Pair, at: usize) {
    pair.reshaper = Some(Box::new(move |_, _, segment, payload| {
        if payload.len() <= at || segment.flags.contains(TcpFlags::SYN) {
            return vec![(segment, payload)];
        }
        let mut second = segment.clone();
        second.seq += at as u32;
        let mut first = segment;
        first.flags.remove(TcpFlags::FIN);
        vec![(first, payload[..at].to_vec()), (second, payload[at..].to_vec())]
    }));
}

#[test]
fn split_segments_carry_one_mapping_in_pieces() {
    for (seed, at) in [(0, 1), (1, 100), (2, 701), (3, 1399)] {
        for checksum in [false, true] {
            let config = MptcpConfig { checksum, ..MptcpConfig::default() };
            let mut pair = Pair::new(seed, vec![lossy(10, 30, 5), lossy(10, 30, 20)], [config; 2]);
            splitting(&mut pair, at);
            exchange(&mut pair, [100_000, 150_000], MINUTE * 3);
            for side in 0..2 {
                assert!(!pair.hosts[side].connection().has_fallen_back(), "cut at {at}: {}", pair.status());
                assert_eq!(pair.counter(side, Counter::MptcpBadMapping), 0);
                assert_eq!(pair.counter(side, Counter::MptcpDssChecksumErrors), 0);
            }
            close(&mut pair);
        }
    }
}

/// A proxy on the second path that joins every second data segment of the server's with the one before, and keeps the
/// options of the first.
fn coalescing(pair: &mut Pair) {
    let mut held: Option<(SegmentIn, Vec<u8>)> = None;
    pair.reshaper = Some(Box::new(move |path, from, segment, payload| {
        if path != 1 || from != 1 || payload.is_empty() || segment.flags.intersects(TcpFlags::SYN | TcpFlags::FIN) {
            return vec![(segment, payload)];
        }
        match held.take() {
            None => {
                held = Some((segment, payload));
                Vec::new()
            }
            Some((first, mut bytes)) if first.seq + bytes.len() as u32 == segment.seq && bytes.len() < 500 => {
                bytes.extend_from_slice(&payload);
                vec![(first, bytes)]
            }
            Some(first) => vec![first, (segment, payload)],
        }
    }));
}

#[test]
fn joined_segments_lose_mappings_but_no_byte() {
    for seed in 0..10 {
        let mut pair = pair(seed, vec![rated(10), rated(12)]);
        pair.hosts[1].chunk = 400;
        coalescing(&mut pair);
        pair.hosts[0].closes = false;
        pair.hosts[1].to_write = 1_500_000;
        assert!(pair.run(MINUTE * 2, |pair| pair.hosts[0].read == 1_500_000), "{}", pair.status());
        assert!(!pair.hosts[0].connection().has_fallen_back());
        assert!(pair.counter(1, Counter::MptcpReinjections) > 0, "what lost its mapping comes by the other path");
        pair.audit();
    }
}

#[test]
fn options_that_vanish_midway_reset_their_subflow_and_the_data_comes_by_another() {
    for seed in 0..10 {
        let mut pair = pair(seed, vec![rated(10), rated(12)]);
        let mut seen = 0_u64;
        pair.trace = Some(Vec::new());
        pair.meddler = Some(Box::new(move |path, from, segment, payload| {
            seen += if path == 0 && from == 1 { payload.len() as u64 } else { 0 };
            if path == 0 && seen > 300_000 {
                segment.options.mptcp.clear();
            }
            true
        }));
        pair.hosts[0].closes = false;
        pair.hosts[1].to_write = 5_000_000;
        assert!(pair.run(MINUTE * 2, |pair| pair.hosts[0].read == 5_000_000), "{}", pair.status());
        assert!(!pair.hosts[0].connection().has_fallen_back());
        let trace = pair.trace.take().unwrap();
        let told = trace.iter().any(|(path, from, segment)| {
            let reset = Signals::read(segment).reset;
            *path == 0 && *from == 0 && reset.is_some_and(|reset| reset.reason == ResetReason::MiddleboxInterference)
        });
        assert!(told, "RFC 8684 §3.7: the RST says middlebox interference: {}", pair.status());
        pair.audit();
    }
}

#[test]
fn a_third_ack_alone_that_loses_its_option_falls_back() {
    for seed in 0..20 {
        let mut pair = pair(seed, vec![lossy(10, 10, 10)]);
        let mut acks = 0;
        pair.hosts[1].to_write = 100_000;
        pair.hosts[0].to_write = 0;
        pair.meddler = Some(Box::new(move |_, from, segment, _| {
            if from == 0 && !segment.flags.contains(TcpFlags::SYN) && acks < 1 {
                acks += 1;
                segment.options.mptcp.clear();
            }
            true
        }));
        exchange(&mut pair, [0, 100_000], MINUTE * 2);
        close(&mut pair);
    }
}

#[test]
fn first_data_that_comes_again_without_the_keys_is_taken_as_plain_tcp() {
    for seed in 0..10 {
        let mut pair = pair(seed, vec![Path::clean(10)]);
        let mut lost = 0;
        pair.meddler = Some(Box::new(move |_, from, segment, _| {
            let keys = Signals::read(segment).capable.filter(|_| from == 0 && !segment.flags.contains(TcpFlags::SYN));
            let Some(capable) = keys else { return true };
            let CapableForm::Data { sender, len, .. } = capable.form else { return false };
            lost += 1;
            // What a Linux client sends again has a mapping in the place of the keys.
            let dsn = WireDsn::new(key::derive(sender, Version::V1).idsn + 1, Width::Short);
            let mapping = Some(DssMapping { dsn, ssn: 1, len, checksum: None });
            put(segment, &[MptcpOption::Dss(Dss { data_ack: None, mapping, data_fin: false })]);
            lost > 2
        }));
        exchange(&mut pair, [20_000, 20_000], MINUTE);
        assert!(pair.hosts.iter_mut().all(|host| host.connection().has_fallen_back()), "{}", pair.status());
        close(&mut pair);
    }
}

#[test]
fn checksum_failures_on_both_paths_at_once_lose_no_byte() {
    for seed in 0..20 {
        let checksum = MptcpConfig { checksum: true, ..MptcpConfig::default() };
        let mut pair = Pair::new(seed, vec![rated(10), rated(12), rated(14)], [checksum; 2]);
        let mut left = [1, 1, 0];
        let mut seen = [0_u64; 3];
        pair.meddler = Some(Box::new(move |path, from, _, payload| {
            if from == 1 && !payload.is_empty() {
                seen[path] += payload.len() as u64;
                if seen[path] > 80_000 && left[path] > 0 {
                    left[path] -= 1;
                    payload[0] ^= 0x55;
                }
            }
            true
        }));
        exchange(&mut pair, [50_000, 1_500_000], MINUTE);
        assert_eq!(pair.counter(0, Counter::MptcpDssChecksumErrors), 2, "{}", pair.status());
        assert!(!pair.hosts[0].connection().has_fallen_back());
        close(&mut pair);
    }
}

/// A key whose first data sequence number is less than `within` before a wrap of the lower 32 bits.
fn key_before_wrap(within: u32) -> u64 {
    (0..u64::MAX).find(|&key| key::derive(key, Version::V1).idsn.0 as u32 > u32::MAX - within).unwrap()
}

#[test]
fn short_data_sequence_numbers_wrap_in_the_middle_of_a_transfer() {
    let keys = [Some(key_before_wrap(60_000)), Some(key_before_wrap(90_000))];
    for seed in 0..10 {
        let mut pair =
            Pair::with_keys(seed, vec![lossy(20, 50, 5), lossy(20, 50, 30)], [MptcpConfig::default(); 2], keys);
        exchange(&mut pair, [300_000, 300_000], MINUTE * 3);
        assert!(!pair.hosts[0].connection().has_fallen_back());
        close(&mut pair);
    }
}

#[test]
fn data_with_a_64_bit_number_is_acknowledged_with_64_bits() {
    let mut pair = pair(5, vec![Path::clean(10), Path::clean(20)]);
    pair.trace = Some(Vec::new());
    let mut last = Dsn(0);
    pair.meddler = Some(Box::new(move |_, from, segment, _| {
        // The server is made one that writes all of a DSN, as Linux does; the upper half is what its key gives.
        let signals = Signals::read(segment);
        if let (1, Some(Dss { data_ack, mapping: Some(mut mapping), data_fin })) = (from, signals.dss) {
            if last == Dsn(0) {
                last = Dsn(key::derive(server_key(), Version::V1).idsn.0);
            }
            mapping.dsn = WireDsn::Long(mapping.dsn.expand(last).0);
            put(segment, &[MptcpOption::Dss(Dss { data_ack, mapping: Some(mapping), data_fin })]);
        }
        true
    }));
    pair.hosts[1].key = Some(server_key());
    exchange(&mut pair, [1_000, 200_000], MINUTE);
    let trace = pair.trace.take().unwrap();
    let widths: Vec<bool> = trace
        .iter()
        .filter(|(_, from, _)| *from == 0)
        .filter_map(|(_, _, segment)| Signals::read(segment).dss?.data_ack)
        .map(|ack| matches!(ack, WireDsn::Long(_)))
        .collect();
    let first_long = widths.iter().position(|long| *long).unwrap();
    assert!(widths[first_long..].iter().all(|long| *long), "RFC 8684 §3.3.2: from then on all of them");
    assert!(first_long < 6, "{first_long}");
    close(&mut pair);
}

fn server_key() -> u64 {
    0x5555_6666_7777_8888
}

#[test]
fn a_join_with_the_backup_bit_carries_nothing_while_another_works() {
    let mut pair = pair(6, vec![rated(10), rated(5)]);
    pair.meddler = Some(Box::new(|path, from, segment, _| {
        // The client's MP_JOIN asks for backup.
        if path == 1 && from == 0 && matches!(Signals::read(segment).join, Some(Join::Syn(_))) {
            let at = usize::from(segment.options.mptcp[0].start) + 2;
            segment.options.raw[at] |= 1;
        }
        true
    }));
    pair.hosts[0].closes = false;
    pair.hosts[1].to_write = 2_000_000;
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read == 2_000_000));
    let stats: Vec<_> = pair.hosts[1].connection().subflow_stats().collect();
    assert_eq!(stats.len(), 2, "{}", pair.status());
    assert!(stats[1].backup && stats[1].open);
    assert_eq!(stats[1].bytes_sent, 0, "RFC 8684 §3.3.8");
    pair.audit();
}

#[test]
fn the_initiator_can_ask_for_backup_in_its_join() {
    let mut pair = pair(7, vec![rated(10), rated(5)]);
    pair.wanted.clear();
    pair.hosts[0].closes = false;
    pair.hosts[1].to_write = 1_000_000;
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read > 100_000));
    pair.wanted.insert(1);
    pair.run(Duration::from_millis(21), |pair| pair.hosts[0].connection().subflow_ids().count() == 2);
    let host = &mut pair.hosts[0];
    let connection = host.connection.as_mut().unwrap();
    let joining = connection.subflow_ids().nth(1).unwrap();
    // The SYN is on its way already; a second one would say it. MP_PRIO says it once the subflow is open.
    connection.set_backup(joining, true, &mut host.conns, &mut host.world.env());
    assert!(connection.subflows[1].signals.is_empty(), "nothing but the MP_JOIN goes before the subflow is open");
    pair.audit();
}

#[test]
fn a_join_for_another_connection_is_refused() {
    let mut pair = pair(8, vec![rated(10), rated(10)]);
    pair.meddler = Some(Box::new(|path, from, segment, _| {
        if path == 1 && from == 0 && matches!(Signals::read(segment).join, Some(Join::Syn(_))) {
            let at = usize::from(segment.options.mptcp[0].start) + 4;
            segment.options.raw[at] ^= 1;
        }
        true
    }));
    exchange(&mut pair, [500_000, 500_000], MINUTE);
    assert_eq!(pair.counter(1, Counter::MptcpJoinAccepted), 0);
    close(&mut pair);
}

#[test]
fn a_withdrawal_of_an_unknown_address_is_ignored() {
    let mut pair = pair(9, vec![rated(10), rated(10)]);
    pair.hosts[0].closes = false;
    pair.hosts[1].to_write = 2_000_000;
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read > 300_000));
    let connection = pair.hosts[0].connection.as_mut().unwrap();
    connection.subflows[0].signals.push(MptcpOption::RemoveAddr([77].into_iter().collect()));
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read == 2_000_000));
    assert_eq!(pair.counter(1, Counter::MptcpRemoveAddrIn), 1);
    assert!(!pair.hosts[1].events.iter().any(|event| matches!(event, Event::PeerRemoved { .. })));
    assert_eq!(pair.hosts[1].connection().subflow_ids().count(), 2);
    pair.audit();
}

#[test]
fn a_reset_with_any_reason_ends_its_subflow_and_nothing_else() {
    for code in 0..9 {
        let mut pair = pair(u64::from(code), vec![rated(10), rated(12)]);
        pair.trace = Some(Vec::new());
        pair.wanted.clear();
        pair.wanted.insert(1);
        pair.hosts[0].closes = false;
        pair.hosts[1].to_write = 3_000_000;
        assert!(pair.run(MINUTE, |pair| pair.hosts[0].read > 700_000));
        pair.wanted.clear();
        let reason = ResetReason::from_code(code);
        let now = pair.now;
        let host = &mut pair.hosts[0];
        let connection = host.connection.as_mut().unwrap();
        assert_eq!(connection.subflows.len(), 2);
        let with = crate::subflow::ResetWith::Nothing;
        connection.abort_subflow(now, 1, Some(reason), with, &mut host.conns, &mut host.world.env());
        assert!(pair.run(MINUTE, |pair| pair.hosts[0].read == 3_000_000), "{reason:?}: {}", pair.status());
        let trace = pair.trace.take().unwrap();
        let said = trace.iter().filter_map(|(_, from, segment)| Signals::read(segment).reset.filter(|_| *from == 0));
        assert_eq!(said.map(|reset| reset.reason).collect::<Vec<_>>(), [reason]);
        assert_eq!(pair.counter(1, Counter::MptcpTcprstIn), 1);
        assert_eq!(pair.hosts[1].connection().subflow_ids().count(), 1);
        pair.hosts[0].closes = true;
        close(&mut pair);
    }
}
