mod coupling;
mod ends;
mod fallback;
mod handover;
mod harness;
mod joins;
mod links;
mod middleboxes;
mod relief;
mod signals;
mod stress;
mod version_0;
mod window;

use harness::{Pair, Path};
use mimbox_stack::{Counter, Duration};

use crate::{Coupled, Event, MptcpConfig, SchedulerKind};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn pair(seed: u64, paths: Vec<Path>) -> Pair {
    Pair::new(seed, paths, [MptcpConfig::default(); 2])
}

/// Both sides write, close and read everything.
fn exchange(pair: &mut Pair, sizes: [u64; 2], limit: Duration) {
    pair.hosts[0].to_write = sizes[0];
    pair.hosts[1].to_write = sizes[1];
    let done = pair.run(limit, |pair| pair.finished(sizes));
    assert!(done, "{}", pair.status());
}

fn close(pair: &mut Pair) {
    let closed = pair.run(MINUTE * 3, |pair| pair.all_closed());
    assert!(closed, "{}", pair.status());
    pair.audit();
}

fn lossy(loss: u64, reorder: u64, delay_ms: u64) -> Path {
    Path { loss, duplicate: 10, reorder, ..Path::clean(delay_ms) }
}

#[test]
fn one_path_carries_both_directions_and_closes() {
    let mut pair = pair(1, vec![Path::clean(10)]);
    exchange(&mut pair, [100_000, 300_000], MINUTE);
    close(&mut pair);
    assert_eq!(pair.counter(0, Counter::MptcpCapableAccepted), 1);
    assert_eq!(pair.counter(1, Counter::MptcpCapableAccepted), 1);
    assert!(pair.hosts[0].events.contains(&Event::Closed));
}

#[test]
fn a_connection_without_any_data_closes() {
    for seed in 0..30 {
        let mut pair = pair(seed, vec![lossy(seed * 10, 0, 10), Path::clean(20)]);
        exchange(&mut pair, [0, 0], MINUTE * 3);
        close(&mut pair);
    }
}

#[test]
fn two_paths_share_a_transfer() {
    let slow = Path { ns_per_byte: 800, ..Path::clean(10) };
    let mut pair = pair(2, vec![slow, slow]);
    pair.hosts[0].closes = false;
    pair.hosts[1].to_write = 4_000_000;
    let done = pair.run(MINUTE, |pair| pair.hosts[0].read == 4_000_000);
    assert!(done, "{}", pair.status());
    let shares: Vec<u64> = pair.hosts[1].connection().subflow_stats().map(|stats| stats.bytes_sent).collect();
    assert!(shares.iter().all(|&share| share > 1_200_000), "{shares:?}");
}

#[test]
fn bad_paths_change_no_byte() {
    for seed in 0..150 {
        let paths = vec![lossy(10 + seed % 30, 30, 5), lossy(20, 100, 20 + seed % 40)];
        let mut pair = pair(seed, paths);
        exchange(&mut pair, [150_000, 300_000], MINUTE * 3);
        close(&mut pair);
    }
}

#[test]
fn checksums_change_nothing_but_the_options() {
    for seed in 0..60 {
        let checksum = MptcpConfig { checksum: true, ..MptcpConfig::default() };
        let configs =
            if seed % 2 == 0 { [checksum, MptcpConfig::default()] } else { [MptcpConfig::default(), checksum] };
        let mut pair = Pair::new(seed, vec![lossy(10, 30, 5), lossy(20, 100, 30)], configs);
        exchange(&mut pair, [150_000, 150_000], MINUTE * 3);
        for side in 0..2 {
            assert!(pair.hosts[side].connection().uses_checksums());
            assert_eq!(pair.counter(side, Counter::MptcpDssChecksumErrors), 0);
        }
        close(&mut pair);
    }
}

#[test]
fn every_scheduler_delivers_everything() {
    let kinds = [SchedulerKind::LowestRtt, SchedulerKind::RoundRobin, SchedulerKind::Redundant, SchedulerKind::Blest];
    for scheduler in kinds {
        for seed in 0..20 {
            let config = MptcpConfig { scheduler, ..MptcpConfig::default() };
            let mut pair = Pair::new(seed, vec![lossy(20, 30, 5), lossy(20, 100, 50)], [config; 2]);
            exchange(&mut pair, [100_000, 200_000], MINUTE * 3);
            close(&mut pair);
        }
    }
}

#[test]
fn a_slow_reader_stops_the_sender_and_nothing_is_lost() {
    for seed in 0..20 {
        let mut pair = pair(seed, vec![lossy(10, 10, 5), lossy(10, 10, 20)]);
        pair.hosts[0].space = 0;
        pair.hosts[1].to_write = 500_000;
        pair.hosts[0].closes = false;
        let early = pair.run(SECOND * 20, |pair| pair.hosts[0].read > 400_000);
        assert!(!early, "the window was closed");
        pair.hosts[0].space = 4_000;
        pair.run(SECOND * 5, |_| false);
        pair.hosts[0].space = 1 << 20;
        let done = pair.run(MINUTE * 2, |pair| pair.hosts[0].read == 500_000);
        assert!(done, "{}", pair.status());
        pair.hosts[0].closes = true;
        close(&mut pair);
    }
}

#[test]
fn the_advertised_edge_never_moves_left() {
    let mut pair = pair(5, vec![lossy(10, 30, 5), lossy(10, 50, 30)]);
    pair.trace = Some(Vec::new());
    pair.hosts[0].space = 50_000;
    exchange(&mut pair, [10, 600_000], MINUTE * 2);
    let trace = pair.trace.take().unwrap();
    let mut edges = 0_u64;
    let mut highest = None;
    for (_, from, segment) in trace {
        let signals = crate::option::Signals::read(&segment);
        let Some(crate::WireDsn::Short(ack)) = signals.dss.and_then(|dss| dss.data_ack) else { continue };
        if from != 0 || segment.flags.contains(mimbox_stack::TcpFlags::SYN) {
            continue;
        }
        // In the order of arrival acknowledgments may be old, but no edge for the same DATA_ACK may be less than before.
        let edge = ack.wrapping_add(u32::from(segment.window) << 7);
        let (best_ack, best_edge) = *highest.get_or_insert((ack, edge));
        if (ack.wrapping_sub(best_ack) as i32) > 0 {
            assert!((edge.wrapping_sub(best_edge) as i32) >= 0, "edge moved left by {}", best_edge.wrapping_sub(edge));
            highest = Some((ack, edge));
            edges += 1;
        }
    }
    assert!(edges > 10, "{edges}");
    close(&mut pair);
}
