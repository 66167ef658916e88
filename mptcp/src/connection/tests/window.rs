//! What a sender does when the peer's window is full, and when the peer makes a subflow backup.

use super::*;

/// Connections over `paths` whose scheduler uses all of them, however slow.
fn in_turn(seed: u64, paths: Vec<Path>) -> Pair {
    let config = MptcpConfig { scheduler: SchedulerKind::RoundRobin, ..MptcpConfig::default() };
    Pair::new(seed, paths, [config; 2])
}

/// A fast path and a slow one, to a receiver whose window is far below what the slow path holds.
fn blocked(seed: u64, slow_ms: u64) -> Pair {
    let fast = Path { ns_per_byte: 400, ..Path::clean(5) };
    let slow = Path { ns_per_byte: 4_000, ..Path::clean(slow_ms) };
    let mut pair = in_turn(seed, vec![fast, slow]);
    pair.hosts[0].closes = false;
    pair.hosts[0].space = 60_000;
    pair.hosts[1].to_write = 4_000_000;
    pair
}

#[test]
fn a_window_that_a_slow_path_keeps_full_is_freed_by_the_fast_one() {
    let mut pair = blocked(1, 150);
    let begun = pair.now;
    assert!(pair.run(MINUTE * 2, |pair| pair.hosts[0].read == 4_000_000), "{}", pair.status());
    assert!(pair.counter(1, Counter::MptcpOpportunistic) > 0);
    assert!(pair.counter(1, Counter::MptcpPenalties) > 0);
    // 60 kB in 10 ms is more than the fast path's 20 Mbit/s: alone it takes 1.6 s. Without retransmissions every window
    // would wait for the slow path's 150 ms.
    let took = pair.now.since(begun);
    assert!(took < SECOND * 4, "{took:?}");
    pair.audit();
}

#[test]
fn what_is_sent_again_for_the_window_stays_below_what_the_slow_path_carried() {
    let mut pair = blocked(2, 150);
    assert!(pair.run(MINUTE * 2, |pair| pair.hosts[0].read == 4_000_000));
    let slow: u64 = pair.hosts[1].connection().subflow_stats().nth(1).map_or(0, |stats| stats.bytes_sent);
    let again = pair.counter(1, Counter::MptcpOpportunistic) * 1400;
    assert!(again <= slow + 1400, "{again} of {slow} bytes");
    pair.audit();
}

#[test]
fn a_window_that_is_large_enough_brings_neither_retransmission_nor_penalty() {
    let mut pair = blocked(3, 40);
    pair.hosts[0].space = 4 << 20;
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read == 4_000_000));
    assert_eq!(pair.counter(1, Counter::MptcpOpportunistic), 0);
    assert_eq!(pair.counter(1, Counter::MptcpPenalties), 0);
    pair.audit();
}

#[test]
fn paths_that_are_alike_are_not_penalised_out_of_use() {
    let path = Path { ns_per_byte: 400, ..Path::clean(10) };
    let mut pair = in_turn(4, vec![path, path]);
    pair.hosts[0].closes = false;
    pair.hosts[0].space = 150_000;
    pair.hosts[1].to_write = 6_000_000;
    let begun = pair.now;
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read == 6_000_000));
    // 150 kB fill both paths for 30 ms: more than one path's 20 Mbit/s, which would take 2.4 s.
    let took = pair.now.since(begun);
    assert!(took < Duration::from_millis(1_700), "{took:?} {}", pair.status());
    pair.audit();
}

#[test]
fn data_on_a_subflow_that_becomes_backup_goes_by_another() {
    let rate = Path { ns_per_byte: 400, ..Path::clean(10) };
    let mut pair = pair(5, vec![rate, rate]);
    pair.hosts[0].closes = false;
    pair.hosts[1].to_write = 3_000_000;
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read > 500_000));
    // The client says so by the first path; the second one swallows everything from then on, but too late for a timeout
    // to notice: what is in flight there must come by the first.
    let host = &mut pair.hosts[0];
    let connection = host.connection.as_mut().unwrap();
    let id = connection.subflow_ids().nth(1).unwrap();
    connection.set_backup(id, true, &mut host.conns, &mut host.world.env());
    pair.run(Duration::from_millis(11), |_| false);
    pair.paths[1].up = false;
    let before = pair.counter(1, Counter::MptcpDataTimeouts) + pair.counter(1, Counter::TcpTimeouts);
    let read = pair.hosts[0].read;
    let went_on = pair.run(Duration::from_millis(150), |pair| pair.hosts[0].read > read + 200_000);
    assert!(went_on, "{}", pair.status());
    assert_eq!(pair.counter(1, Counter::MptcpDataTimeouts) + pair.counter(1, Counter::TcpTimeouts), before);
    assert!(pair.counter(1, Counter::MptcpReinjections) > 0);
    pair.audit();
}

/// The most frames that the sender's data level holds while `bytes` are written one by one.
fn most_frames_of_single_bytes(space: u32, bytes: u64) -> u32 {
    let mut pair = Pair::new(11, vec![Path::clean(50)], [MptcpConfig::default(); 2]);
    pair.hosts[1].chunk = 1;
    pair.hosts[1].backlog = 1_000_000;
    pair.hosts[0].space = space;
    let mut most = 0;
    for step in 1..=bytes / 10 {
        // Ten bytes every millisecond, as they come from a peer that sends each in a segment of its own.
        pair.hosts[1].to_write += 10;
        pair.hosts[1].closes = step == bytes / 10;
        pair.run(MINUTE, |pair| pair.hosts[1].to_write == 0);
        pair.run(Duration::from_millis(1), |_| false);
        most = most.max(pair.hosts[1].world.pool.in_use());
    }
    assert!(pair.run(MINUTE * 5, |pair| pair.hosts[0].read == bytes), "{}", pair.status());
    most
}

#[test]
fn single_bytes_in_flight_take_no_frame_each() {
    // 100 ms of round trip at ten bytes a millisecond are a thousand bytes in flight.
    let most = most_frames_of_single_bytes(1 << 20, 30_000);
    assert!(most < 100, "{most} frames");
}

#[test]
fn a_window_that_opens_while_the_peer_says_nothing_is_told_at_once() {
    let mut pair = pair(6, vec![Path::clean(5)]);
    pair.hosts[0].closes = false;
    pair.hosts[1].to_write = 2_000_000;
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read > 200_000));
    pair.hosts[0].space = 0;
    assert!(!pair.run(Duration::from_millis(60), |_| false));
    let (read, opened) = (pair.hosts[0].read, pair.now);
    assert!(read < 2_000_000, "the window is full");
    pair.hosts[0].space = 100_000;
    // A round trip and no more: the peer does not have to ask.
    assert!(pair.run(SECOND, |pair| pair.hosts[0].read > read));
    let took = pair.now.since(opened);
    assert!(took < Duration::from_millis(15), "{took:?}");
    pair.audit();
}
