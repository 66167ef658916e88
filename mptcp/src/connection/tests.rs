mod harness;

use harness::{Pair, Path};
use mimbox_stack::{Counter, Duration};

use crate::{Event, MptcpConfig};

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
    let closed = pair.run(MINUTE, |pair| pair.all_closed());
    assert!(closed, "{}", pair.status());
    pair.audit();
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
fn two_paths_share_a_transfer() {
    let slow = Path { ns_per_byte: 800, ..Path::clean(10) };
    let mut pair = pair(2, vec![slow, slow]);
    pair.hosts[0].to_write = 0;
    pair.hosts[0].closes = false;
    pair.hosts[1].to_write = 4_000_000;
    let done = pair.run(MINUTE, |pair| pair.hosts[0].read == 4_000_000);
    assert!(done, "{}", pair.status());
    let shares: Vec<u64> = pair.hosts[1].connection().subflow_stats().map(|stats| stats.bytes_sent).collect();
    assert!(shares.iter().all(|&share| share > 1_200_000), "{shares:?}");
}

#[test]
fn bad_paths_change_no_byte() {
    for seed in 0..40 {
        let bad = |loss, reorder, delay| Path { loss, duplicate: 10, reorder, ..Path::clean(delay) };
        let mut pair = pair(seed, vec![bad(10 + seed % 30, 30, 5), bad(20, 100, 20 + seed % 40)]);
        exchange(&mut pair, [200_000, 400_000], MINUTE * 3);
        close(&mut pair);
    }
}
