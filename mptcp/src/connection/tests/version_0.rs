//! Version 0 (RFC 6824), both ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mimbox_stack::TcpFlags;

use super::*;
use crate::HalfOutcome;
use crate::key::Version;
use crate::option::{Join, MptcpOption, Signals, parse};

fn old() -> MptcpConfig {
    MptcpConfig { version_0: true, ..MptcpConfig::default() }
}

fn old_pair(seed: u64, paths: Vec<Path>) -> Pair {
    Pair::new(seed, paths, [old(); 2])
}

#[test]
fn bad_paths_change_no_byte() {
    let mut joins = 0;
    for seed in 0..60 {
        let checksum = MptcpConfig { checksum: seed % 3 == 0, ..old() };
        let paths = vec![lossy(10 + seed % 30, 30, 5), lossy(20, 100, 20 + seed % 40)];
        let mut pair = Pair::new(seed, paths, [checksum, old()]);
        exchange(&mut pair, [150_000, 300_000], MINUTE * 3);
        for side in 0..2 {
            assert_eq!(pair.hosts[side].connection().version(), Version::V0);
            assert!(!pair.hosts[side].connection().has_fallen_back(), "{}", pair.status());
            joins += pair.counter(side, Counter::MptcpJoinAccepted);
        }
        close(&mut pair);
    }
    assert!(joins > 60, "{joins}");
}

#[test]
fn the_handshake_has_the_sizes_of_rfc_6824() {
    let mut pair = old_pair(1, vec![Path::clean(10), Path::clean(10)]);
    pair.trace = Some(Vec::new());
    exchange(&mut pair, [100_000, 100_000], MINUTE);
    let trace = pair.trace.take().unwrap();
    let sizes = |path: usize, from: usize| -> Vec<(usize, u8)> {
        let of = trace.iter().filter(|(p, f, _)| *p == path && *f == from);
        let raw = of.flat_map(|(_, _, s)| s.options.mptcp_slices().map(<[u8]>::to_vec).collect::<Vec<_>>());
        raw.filter(|raw| matches!(parse(raw), Ok(MptcpOption::Capable(_) | MptcpOption::Join(_))))
            .map(|raw| (raw.len(), raw[2]))
            .collect()
    };
    // A pure third ACK with both keys, then data with a DSS; the subtype octet says version 0.
    assert_eq!(sizes(0, 0)[..2], [(12, 0x00), (20, 0x00)]);
    assert!(sizes(0, 0)[2..].iter().all(|&size| size == (20, 0x00)));
    assert_eq!(sizes(0, 1), [(12, 0x00)]);
    assert_eq!(sizes(1, 0), [(12, 0x10), (24, 0x10)]);
    assert_eq!(sizes(1, 1), [(16, 0x10)]);
    let with_reason = trace.iter().any(|(_, _, segment)| Signals::read(segment).reset.is_some());
    assert!(!with_reason, "version 0 has no MP_TCPRST");
    close(&mut pair);
}

#[test]
fn a_lost_third_ack_is_made_up_for_by_the_first_data() {
    for seed in 0..10 {
        let mut pair = old_pair(seed, vec![Path::clean(10)]);
        pair.meddler = Some(Box::new(|_, from, segment, _| {
            // Every segment that would carry both keys is lost: only data with its DSS gets through.
            from == 1 || segment.flags.contains(TcpFlags::SYN) || Signals::read(segment).capable.is_none()
        }));
        exchange(&mut pair, [20_000, 20_000], MINUTE);
        assert!(!pair.hosts[1].connection().has_fallen_back(), "{}", pair.status());
        close(&mut pair);
    }
}

#[test]
fn a_third_ack_without_its_option_falls_back() {
    let mut pair = old_pair(3, vec![Path::clean(10)]);
    pair.meddler = Some(Box::new(|_, from, segment, _| {
        if from == 0 && !segment.flags.contains(TcpFlags::SYN) {
            segment.options.mptcp.clear();
        }
        true
    }));
    exchange(&mut pair, [50_000, 50_000], MINUTE);
    for side in 0..2 {
        assert!(pair.hosts[side].connection().has_fallen_back(), "{}", pair.status());
    }
    close(&mut pair);
}

#[test]
fn a_third_ack_with_wrong_keys_falls_back() {
    let mut pair = old_pair(4, vec![Path::clean(10)]);
    pair.meddler = Some(Box::new(|_, from, segment, _| {
        if from == 0 && !segment.flags.contains(TcpFlags::SYN) && Signals::read(segment).capable.is_some() {
            let at = usize::from(segment.options.mptcp[0].start) + 6;
            segment.options.raw[at] ^= 1;
        }
        true
    }));
    pair.hosts[0].closes = false;
    pair.run(SECOND, |_| false);
    assert!(pair.hosts[1].connection().has_fallen_back(), "{}", pair.status());
    assert_eq!(pair.counter(1, Counter::MptcpFallbackHandshake), 1);
    pair.audit();
}

#[test]
fn an_initiator_that_is_answered_in_the_other_version_falls_back() {
    for version_0 in [false, true] {
        let config = MptcpConfig { version_0, ..MptcpConfig::default() };
        let mut pair = Pair::new(5, vec![Path::clean(10)], [config; 2]);
        pair.meddler = Some(Box::new(|_, from, segment, _| {
            if from == 1 && segment.flags.contains(TcpFlags::SYN) {
                let at = usize::from(segment.options.mptcp[0].start) + 2;
                segment.options.raw[at] ^= 1;
            }
            true
        }));
        exchange(&mut pair, [50_000, 50_000], MINUTE);
        for side in 0..2 {
            assert!(pair.hosts[side].connection().has_fallen_back(), "{}", pair.status());
        }
        close(&mut pair);
    }
}

#[test]
fn an_address_is_announced_without_signature_and_without_echo() {
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let v4 = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77));
    for (seed, addr, port) in [(6, v4, None), (7, v4, Some(443)), (8, v6, None), (9, v6, Some(443))] {
        let mut pair = old_pair(seed, vec![lossy(200, 0, 10)]);
        pair.trace = Some(Vec::new());
        pair.hosts[0].closes = false;
        pair.hosts[0].to_write = 100;
        assert!(pair.run(MINUTE, |pair| pair.hosts[1].read == 100));
        let host = &mut pair.hosts[1];
        host.connection.as_mut().unwrap().announce(3, addr, port, &mut host.world.env());
        pair.run(MINUTE, |_| false);
        let reported = Event::PeerAnnounced { id: 3, addr, port };
        assert_eq!(pair.hosts[0].events.iter().filter(|event| **event == reported).count(), 1);
        let trace = pair.trace.take().unwrap();
        let said: Vec<_> = trace.iter().filter(|(_, _, segment)| Signals::read(segment).add_addr.is_some()).collect();
        assert!(said.iter().all(|(_, from, _)| *from == 1), "nothing is echoed");
        pair.audit();
    }
}

#[test]
fn mp_prio_can_name_another_subflow_by_its_address() {
    let rate = Path { ns_per_byte: 400, ..Path::clean(10) };
    let mut pair = old_pair(10, vec![rate, rate]);
    pair.hosts[0].closes = false;
    pair.hosts[1].to_write = 20_000_000;
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read > 2_000_000));
    // On the first subflow, about the address with ID 1: the second's.
    let host = &mut pair.hosts[0];
    let connection = host.connection.as_mut().unwrap();
    connection.subflows[0].signals.push(MptcpOption::Prio { backup: true, addr_id: Some(1) });
    pair.run(SECOND, |_| false);
    let backups: Vec<bool> = pair.hosts[1].connection().subflow_stats().map(|stats| stats.backup).collect();
    assert_eq!(backups, [false, true]);
    pair.audit();
}

#[test]
fn an_abort_says_mp_fastclose_on_an_ack() {
    let mut pair = old_pair(11, vec![Path::clean(10), Path::clean(20)]);
    pair.trace = Some(Vec::new());
    pair.hosts[1].to_write = 10_000_000;
    pair.hosts[0].closes = false;
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read > 200_000));
    pair.hosts[1].abort();
    assert!(pair.run(SECOND * 2, |pair| pair.all_closed()), "{}", pair.status());
    assert!(pair.hosts[0].outcome.contains(HalfOutcome::RESET));
    let trace = pair.trace.take().unwrap();
    let on_ack = trace.iter().any(|(_, from, segment)| {
        *from == 1 && !segment.flags.contains(TcpFlags::RST) && Signals::read(segment).fastclose.is_some()
    });
    assert!(on_ack);
    pair.audit();
}

#[test]
fn a_join_with_a_wrong_code_is_reset() {
    let mut pair = old_pair(12, vec![Path::clean(10), Path::clean(10)]);
    pair.meddler = Some(Box::new(|path, _, segment, _| {
        if path == 1 && matches!(Signals::read(segment).join, Some(Join::Ack { .. })) {
            let at = usize::from(segment.options.mptcp[0].start) + 23;
            segment.options.raw[at] ^= 1;
        }
        true
    }));
    exchange(&mut pair, [3_000_000, 3_000_000], MINUTE);
    assert!(pair.counter(1, Counter::MptcpJoinBadHmac) > 0, "the last of the 160 bits counts");
    assert_eq!(pair.counter(1, Counter::MptcpJoinAccepted), 0);
    close(&mut pair);
}
