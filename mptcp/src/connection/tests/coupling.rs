//! Coupled congestion control in whole connections.

use super::*;

const COUPLED: [Coupled; 3] = [Coupled::Lia, Coupled::Olia, Coupled::Balia];

fn with(coupled: Coupled, seed: u64, paths: Vec<Path>) -> Pair {
    let config = MptcpConfig { coupled, ..MptcpConfig::default() };
    Pair::new(seed, paths, [config; 2])
}

#[test]
fn every_algorithm_delivers_everything() {
    for coupled in COUPLED {
        for seed in 0..15 {
            let mut pair = with(coupled, seed, vec![lossy(20, 30, 5), lossy(20, 100, 50)]);
            exchange(&mut pair, [100_000, 200_000], MINUTE * 3);
            close(&mut pair);
        }
    }
}

/// Seconds that 12 MB take from the server, without anything else on the paths.
fn seconds(coupled: Coupled, paths: Vec<Path>) -> f64 {
    let mut pair = with(coupled, 4, paths);
    pair.hosts[0].closes = false;
    pair.hosts[1].to_write = 12_000_000;
    let begun = pair.now;
    assert!(pair.run(MINUTE * 2, |pair| pair.hosts[0].read == 12_000_000), "{coupled:?} {}", pair.status());
    let took = pair.now.since(begun).as_secs_f64();
    pair.audit();
    took
}

#[test]
fn two_paths_are_faster_than_the_better_one_alone_under_every_algorithm() {
    // RFC 6356 §2, goal 1. 20 Mbit/s each; alone 12 MB take 4.9 s.
    let path = Path { ns_per_byte: 400, ..Path::clean(10) };
    for coupled in COUPLED {
        let (one, two) = (seconds(coupled, vec![path]), seconds(coupled, vec![path; 2]));
        assert!(two < 0.65 * one, "{coupled:?}: {two} s over two paths, {one} s over one");
    }
}

#[test]
fn the_subflows_grow_slower_together_than_alone() {
    // Behind one long pipe that never fills nothing is lost but once: what grows is congestion avoidance alone.
    let grown = |coupled| {
        // One of the first flight that is more than a single segment, on either path.
        let mut sent = [0; 2];
        let mut pair = with(coupled, 5, vec![Path { ns_per_byte: 40, ..Path::clean(40) }; 2]);
        pair.meddler = Some(Box::new(move |path, from, segment, _| {
            let data = from == 1 && segment.payload_len > 0;
            sent[path] += u32::from(data);
            !data || sent[path] != 3
        }));
        pair.hosts[0].closes = false;
        pair.hosts[0].space = 8 << 20;
        pair.hosts[1].backlog = 4000;
        pair.hosts[1].to_write = 40_000_000;
        pair.run(SECOND * 4, |_| false);
        let windows = |pair: &mut Pair| {
            let host = &mut pair.hosts[1];
            let ids: Vec<_> = host.connection.as_ref().unwrap().subflow_ids().collect();
            ids.iter().map(|&id| host.conns.get(id).unwrap().cwnd()).sum::<u32>()
        };
        let first = windows(&mut pair);
        pair.run(SECOND * 3, |_| false);
        let second = windows(&mut pair);
        assert_eq!(pair.hosts[1].connection().subflow_ids().count(), 2);
        pair.audit();
        f64::from(second) - f64::from(first)
    };
    // NewReno's numbers are handed to neither: 3 s are 37 round trips, so two connections grow by 37 segments each.
    let both = grown(Coupled::Lia);
    assert!(both > 5.0 * 1400.0, "{both}");
    assert!(both < 2.0 * 37.0 * 1448.0 * 0.7, "{both}");
}
