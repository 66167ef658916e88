//! Addresses and priorities.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mimbox_stack::{Instant, SegmentIn, TcpFlags};

use super::*;
use crate::option::Signals;

const ANNOUNCED: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77));

fn announce(pair: &mut Pair, addr: IpAddr, port: Option<u16>) {
    let host = &mut pair.hosts[1];
    let connection = host.connection.as_mut().unwrap();
    connection.announce(3, addr, port, &mut host.world.env());
}

#[test]
fn an_announced_address_is_reported_once_and_echoed() {
    for (seed, addr, port) in
        [(1, ANNOUNCED, None), (2, ANNOUNCED, Some(443)), (3, IpAddr::V6(Ipv6Addr::LOCALHOST), Some(443))]
    {
        let mut pair = pair(seed, vec![lossy(300, 0, 10)]);
        pair.hosts[0].closes = false;
        pair.hosts[0].to_write = 100;
        assert!(pair.run(MINUTE, |pair| pair.hosts[1].read == 100));
        announce(&mut pair, addr, port);
        pair.run(MINUTE, |pair| pair.counter(1, Counter::MptcpAddAddrEchoed) == 1);
        let reports = pair.hosts[0].events.iter().filter(|event| matches!(event, Event::PeerAnnounced { .. })).count();
        assert_eq!(reports, 1);
        assert!(pair.hosts[0].events.contains(&Event::PeerAnnounced { id: 3, addr, port }));
        assert_eq!(pair.counter(1, Counter::MptcpAddAddrEchoed), 1);
        pair.audit();
    }
}

#[test]
fn an_announcement_with_a_wrong_hmac_is_ignored() {
    let mut pair = pair(4, vec![Path::clean(10)]);
    pair.meddler = Some(Box::new(|_, from, segment, _| {
        if from == 1 && Signals::read(segment).add_addr.is_some() {
            let at = usize::from(segment.options.mptcp[0].start) + 5;
            segment.options.raw[at] ^= 1;
        }
        true
    }));
    pair.hosts[0].closes = false;
    pair.hosts[0].to_write = 100;
    assert!(pair.run(MINUTE, |pair| pair.hosts[1].read == 100));
    announce(&mut pair, ANNOUNCED, None);
    pair.run(MINUTE, |_| false);
    assert!(pair.counter(0, Counter::MptcpAddAddrBadHmac) > 1, "it is sent again while no echo comes");
    assert!(!pair.hosts[0].events.iter().any(|event| matches!(event, Event::PeerAnnounced { .. })));
    pair.audit();
}

#[test]
fn a_backup_subflow_carries_nothing_while_another_works() {
    let rate = Path { ns_per_byte: 400, ..Path::clean(10) };
    let mut pair = pair(5, vec![rate, rate]);
    pair.hosts[0].closes = false;
    pair.hosts[1].to_write = 20_000_000;
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read > 2_000_000));
    let host = &mut pair.hosts[0];
    let connection = host.connection.as_mut().unwrap();
    let id = connection.subflow_ids().nth(1).unwrap();
    connection.set_backup(id, true, &mut host.conns, &mut host.world.env());
    pair.run(SECOND, |_| false);
    let share = |pair: &mut Pair| pair.hosts[1].connection().subflow_stats().nth(1).map_or(0, |stats| stats.bytes_sent);
    let before = share(&mut pair);
    pair.run(SECOND, |_| false);
    assert_eq!(share(&mut pair), before);
    pair.paths[0].up = false;
    pair.run(SECOND * 3, |_| false);
    assert!(share(&mut pair) > before + 500_000, "the backup takes over");
    pair.audit();
}

#[test]
fn a_withdrawn_address_ends_its_subflows_and_nothing_is_lost() {
    let mut pair = pair(6, vec![Path::clean(10), Path::clean(12)]);
    pair.hosts[0].closes = false;
    pair.hosts[1].to_write = 3_000_000;
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read > 500_000));
    pair.wanted.clear();
    let now = pair.now;
    let host = &mut pair.hosts[0];
    let connection = host.connection.as_mut().unwrap();
    connection.withdraw(now, 1, &mut host.conns, &mut host.world.env());
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read == 3_000_000), "{}", pair.status());
    assert_eq!(pair.counter(1, Counter::MptcpRemoveAddrIn), 1);
    assert_eq!(pair.hosts[1].connection().subflow_ids().count(), 1);
    assert!(pair.hosts[1].events.contains(&Event::PeerRemoved { id: 1 }));
    pair.hosts[0].closes = true;
    close(&mut pair);
}

/// Announces as many addresses as there may be.
fn announce_all(side: usize, pair: &mut Pair) {
    let host = &mut pair.hosts[side];
    let connection = host.connection.as_mut().unwrap();
    for id in 1..=8 {
        connection.announce(id, IpAddr::from([192, 0, 2, 100 + id]), None, &mut host.world.env());
    }
}

#[test]
fn signals_that_are_due_at_once_take_two_acknowledgments_in_a_row_at_most() {
    let mut pair = pair(7, vec![Path::clean(10)]);
    pair.hosts[0].closes = false;
    pair.hosts[0].to_write = 100;
    assert!(pair.run(MINUTE, |pair| pair.hosts[1].read == 100));
    pair.run(SECOND, |_| false);
    pair.trace = Some(Vec::new());
    announce_all(1, &mut pair);
    // When each host's signals arrived that acknowledged nothing new, by rows.
    let mut rows: [Vec<(Instant, usize)>; 2] = Default::default();
    pair.run(SECOND, |pair| {
        let now = pair.now;
        for (_, from, segment) in pair.trace.as_mut().expect("a trace").drain(..) {
            assert!(segment.options.has_mptcp_signal(), "nothing else is to be said: {segment:?}");
            match rows[from].last_mut().filter(|(at, _)| now.since(*at) < Duration::from_millis(10)) {
                Some((at, count)) => (*at, *count) = (now, *count + 1),
                None => rows[from].push((now, 1)),
            }
        }
        false
    });
    assert_eq!(pair.counter(1, Counter::MptcpAddAddrEchoed), 8);
    for rows in &rows {
        assert_eq!(rows.iter().map(|row| row.1).collect::<Vec<_>>(), [2; 4], "{rows:?}");
    }
    pair.audit();
}

/// A server without SACK sends while the client announces addresses, and each of the client's ACKs for which `copied`
/// holds arrives five times.
fn fast_retransmits(copied: fn(&SegmentIn) -> bool) -> u64 {
    let rate = Path { ns_per_byte: 4_000, ..Path::clean(20) };
    let mut pair = pair(8, vec![rate]);
    pair.reshaper = Some(Box::new(move |_, from, mut segment, payload| {
        segment.options.syn.sack_permitted &= !segment.flags.contains(TcpFlags::SYN);
        let copies = if from == 0 && payload.is_empty() && copied(&segment) { 5 } else { 1 };
        vec![(segment, payload); copies]
    }));
    pair.hosts[0].closes = false;
    // Less than the link's queue holds.
    pair.hosts[0].space = 16 << 10;
    pair.hosts[1].to_write = 100_000;
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read > 20_000));
    announce_all(0, &mut pair);
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read == 100_000), "{}", pair.status());
    assert!(pair.counter(1, Counter::MptcpAddAddrIn) > 0);
    pair.counter(1, Counter::TcpFastRetransmits)
}

#[test]
fn duplicate_acknowledgments_that_carry_signals_are_no_sign_of_loss() {
    assert_eq!(fast_retransmits(|segment| segment.options.has_mptcp_signal()), 0);
    // Those that carry a DSS only are, by the same standard.
    assert!(fast_retransmits(|segment| !segment.options.has_mptcp_signal()) > 0);
}
