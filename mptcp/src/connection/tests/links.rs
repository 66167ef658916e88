//! Ports that lose their link: nothing waits for a timeout, and addresses are withdrawn and announced again.

use std::net::IpAddr;

use mimbox_stack::tcp::ConnId;

use super::*;

/// The server's port behind path `path` loses its link, or has it back: what a box's shard makes of that.
fn link(pair: &mut Pair, path: usize, up: bool) {
    pair.paths[path].up = up;
    let now = pair.now;
    let host = &mut pair.hosts[1];
    let id: ConnId = host.connection().subflow_ids().nth(path).expect("a subflow");
    let connection = host.connection.as_mut().unwrap();
    if up {
        connection.path_back(now, id, &mut host.conns);
    } else {
        connection.path_lost(id);
    }
}

/// The longest time that the client reads nothing in `limit`.
fn pause(pair: &mut Pair, limit: Duration) -> Duration {
    let (mut read, mut at, mut gap) = (pair.hosts[0].read, pair.now, Duration::ZERO);
    pair.run(limit, |pair| {
        if pair.hosts[0].read > read {
            gap = gap.max(pair.now.since(at));
            (read, at) = (pair.hosts[0].read, pair.now);
        }
        false
    });
    gap
}

fn download(seed: u64, bytes: u64) -> Pair {
    let rate = Path { ns_per_byte: 400, ..Path::clean(10) };
    let mut pair = pair(seed, vec![rate, rate]);
    pair.hosts[0].closes = false;
    pair.hosts[1].to_write = bytes;
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read > 1_000_000), "{}", pair.status());
    pair
}

#[test]
fn what_a_lost_link_carried_goes_elsewhere_before_any_timeout() {
    for seed in 0..10 {
        let mut pair = download(seed, 20_000_000);
        pair.wanted.clear();
        link(&mut pair, (seed % 2) as usize, false);
        let timeouts = pair.counter(1, Counter::TcpTimeouts);
        let gap = pause(&mut pair, Duration::from_millis(150));
        assert!(gap < Duration::from_millis(100), "seed {seed}: a pause of {gap}");
        assert_eq!(pair.counter(1, Counter::TcpTimeouts), timeouts, "no timer had to fire");
        assert!(pair.counter(1, Counter::MptcpReinjections) > 0);
        assert!(pair.run(MINUTE, |pair| pair.hosts[0].read == 20_000_000), "{}", pair.status());
    }
}

#[test]
fn a_link_that_is_back_is_used_at_once_however_far_its_timer_had_backed_off() {
    for seed in 0..10 {
        let mut pair = download(seed, 90_000_000);
        link(&mut pair, 0, false);
        pair.run(SECOND * 6, |_| false);
        link(&mut pair, 0, true);
        let share =
            |pair: &mut Pair| pair.hosts[1].connection().subflow_stats().next().map_or(0, |stats| stats.bytes_sent);
        let before = share(&mut pair);
        let used = pair.run(Duration::from_millis(400), |pair| share(pair) > before + 200_000);
        assert!(used, "the path is not used: {}", pair.status());
        pair.audit();
    }
}

#[test]
fn a_link_that_was_lost_while_nothing_was_sent_is_used_again() {
    let mut pair = pair(3, vec![Path::clean(10), Path::clean(30)]);
    pair.hosts[0].closes = false;
    pair.hosts[1].closes = false;
    pair.hosts[0].to_write = 1000;
    pair.hosts[1].to_write = 1000;
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read == 1000 && pair.hosts[1].read == 1000));
    pair.run(SECOND, |_| false);
    link(&mut pair, 0, false);
    pair.run(SECOND, |_| false);
    link(&mut pair, 0, true);
    let share = |pair: &mut Pair| pair.hosts[1].connection().subflow_stats().next().map_or(0, |stats| stats.bytes_sent);
    let before = share(&mut pair);
    pair.hosts[1].to_write = 2_000_000;
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read == 2_001_000), "{}", pair.status());
    assert!(share(&mut pair) > before + 1_000_000, "the faster path carries most of it");
}

#[test]
fn the_first_address_is_withdrawn_and_announced_again_under_its_id() {
    let mut pair = pair(5, vec![Path::clean(10), Path::clean(12)]);
    pair.hosts[0].closes = false;
    pair.hosts[1].closes = false;
    pair.hosts[0].to_write = 4_000_000;
    assert!(pair.run(MINUTE, |pair| pair.counter(0, Counter::MptcpJoinAccepted) == 1));
    pair.wanted.clear();
    // The client's second address is the one that stays; the server's subflows all have its first address.
    let now = pair.now;
    let host = &mut pair.hosts[0];
    host.connection.as_mut().unwrap().withdraw(now, 0, &mut host.conns, &mut host.world.env());
    // The reset of its subflow may be there first, and then there is nothing left to remove.
    assert!(pair.run(SECOND * 5, |pair| pair.counter(1, Counter::MptcpRemoveAddrIn) == 1));
    assert_eq!(pair.counter(0, Counter::MptcpRemoveAddrOut), 1);
    let host = &mut pair.hosts[0];
    let connection = host.connection.as_mut().unwrap();
    assert!(connection.initial_is_withdrawn() && connection.told_addresses().next().is_none());
    let addr = connection.local_address();
    connection.announce(0, addr, None, &mut host.world.env());
    let back = Event::PeerAnnounced { id: 0, addr, port: None };
    assert!(pair.run(SECOND * 5, |pair| pair.hosts[1].events.contains(&back)), "{}", pair.status());
    assert!(!pair.hosts[0].connection().initial_is_withdrawn());
    assert!(pair.run(MINUTE, |pair| pair.hosts[1].read == 4_000_000), "{}", pair.status());
}

#[test]
fn an_address_that_is_withdrawn_without_a_working_subflow_is_taken_back_once_there_is_one() {
    let mut pair = pair(7, vec![Path::clean(10), Path::clean(12)]);
    pair.wanted.clear();
    pair.hosts[0].closes = false;
    pair.hosts[0].to_write = 1000;
    assert!(pair.run(MINUTE, |pair| pair.hosts[1].read == 1000));
    let addr = IpAddr::from([192, 0, 2, 77]);
    let host = &mut pair.hosts[1];
    host.connection.as_mut().unwrap().announce(4, addr, None, &mut host.world.env());
    let event = Event::PeerAnnounced { id: 4, addr, port: None };
    assert!(pair.run(SECOND, |pair| pair.hosts[0].events.contains(&event)));
    link(&mut pair, 0, false);
    let now = pair.now;
    let host = &mut pair.hosts[1];
    host.connection.as_mut().unwrap().withdraw(now, 4, &mut host.conns, &mut host.world.env());
    pair.run(SECOND, |_| false);
    assert_eq!(pair.counter(1, Counter::MptcpRemoveAddrOut), 0, "there is nobody to tell");
    assert_eq!(pair.hosts[1].connection().subflow_ids().count(), 1, "the only subflow stays");
    pair.wanted.insert(1);
    let gone = Event::PeerRemoved { id: 4 };
    assert!(pair.run(SECOND * 5, |pair| pair.hosts[0].events.contains(&gone)), "{}", pair.status());
    assert_eq!(pair.counter(1, Counter::MptcpRemoveAddrOut), 1);
}
