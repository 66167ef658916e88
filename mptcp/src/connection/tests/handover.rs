//! Paths that die, come back, or are all gone for a while.

use super::*;

#[test]
fn a_path_that_goes_silent_hands_over_to_the_other() {
    for seed in 0..20 {
        let rate = Path { ns_per_byte: 400, ..Path::clean(10) };
        let mut pair = pair(seed, vec![rate, rate]);
        pair.hosts[0].closes = false;
        pair.hosts[1].to_write = 6_000_000;
        assert!(pair.run(MINUTE, |pair| pair.hosts[0].read > 1_000_000), "{}", pair.status());
        let dead = (seed % 2) as usize;
        pair.paths[dead].up = false;
        let before = pair.hosts[0].read;
        let went_on = pair.run(SECOND * 2, |pair| pair.hosts[0].read > before + 500_000);
        assert!(went_on, "stalled: {}", pair.status());
        assert!(pair.run(MINUTE, |pair| pair.hosts[0].read == 6_000_000), "{}", pair.status());
        assert!(pair.counter(1, Counter::MptcpReinjections) > 0);
        pair.paths[dead].up = true;
        pair.hosts[0].closes = true;
        close(&mut pair);
    }
}

#[test]
fn a_download_goes_on_a_timeout_and_a_round_trip_after_its_path_died() {
    let mut mattered = 0;
    for seed in 0..20 {
        // Both paths are full, and their queues short: what one of them carries does not fit through the other at once.
        let rate = |delay| Path { ns_per_byte: 400, ..Path::clean(delay) };
        let mut pair = pair(seed, vec![rate(10), rate(30)]);
        pair.hosts[0].space = 256 * 1024;
        pair.hosts[0].closes = false;
        pair.hosts[1].to_write = 20_000_000;
        assert!(pair.run(MINUTE, |pair| pair.hosts[0].read > 2_000_000 + seed * 100_000), "{}", pair.status());
        let host = &mut pair.hosts[1];
        let ids: Vec<_> = host.connection().subflow_ids().collect();
        let rto = host.conns.get(ids[0]).map(|conn| conn.rto()).expect("the first path");
        let srtt = host.conns.get(ids[1]).map(|conn| conn.srtt()).expect("the second path");
        pair.paths[0].up = false;
        let limit = rto + srtt;
        let (mut read, mut at, mut gap) = (pair.hosts[0].read, pair.now, Duration::ZERO);
        pair.run(SECOND * 2, |pair| {
            if pair.hosts[0].read > read {
                gap = gap.max(pair.now.since(at));
                (read, at) = (pair.hosts[0].read, pair.now);
            }
            false
        });
        // In some runs all that the dead path carried had just been sent again on the other, to open the peer's window.
        mattered += u32::from(gap > Duration::from_millis(150));
        assert!(gap <= limit, "seed {seed}: a pause of {gap}, with a timeout of {rto} and a round trip of {srtt}");
    }
    assert!(mattered >= 12, "in {mattered} runs only the path mattered");
}

#[test]
fn a_path_that_comes_back_is_used_again() {
    for seed in 0..10 {
        let rate = Path { ns_per_byte: 400, ..Path::clean(10) };
        let mut pair = pair(seed, vec![rate, rate]);
        pair.hosts[0].closes = false;
        pair.hosts[1].to_write = 60_000_000;
        assert!(pair.run(MINUTE, |pair| pair.hosts[0].read > 1_000_000));
        pair.paths[0].up = false;
        pair.run(SECOND * 6, |_| false);
        pair.paths[0].up = true;
        let share =
            |pair: &mut Pair| pair.hosts[1].connection().subflow_stats().next().map_or(0, |stats| stats.bytes_sent);
        let before = share(&mut pair);
        let used = pair.run(SECOND * 10, |pair| share(pair) > before + 2_000_000);
        assert!(used, "the path is not used: {}", pair.status());
        pair.audit();
    }
}

#[test]
fn an_upload_survives_the_death_of_either_path() {
    for seed in 0..20 {
        let mut pair = pair(seed, vec![lossy(5, 10, 10), lossy(5, 10, 30)]);
        pair.hosts[1].closes = false;
        pair.hosts[0].to_write = 2_000_000;
        assert!(pair.run(MINUTE, |pair| pair.hosts[1].read > 300_000));
        pair.paths[(seed % 2) as usize].up = false;
        assert!(pair.run(MINUTE, |pair| pair.hosts[1].read == 2_000_000), "{}", pair.status());
        pair.hosts[1].closes = true;
        pair.paths[(seed % 2) as usize].up = true;
        close(&mut pair);
    }
}

#[test]
fn the_only_path_dies_and_another_appears_twenty_seconds_later() {
    for seed in 0..10 {
        let mut pair = pair(seed, vec![Path::clean(10), Path { up: false, ..Path::clean(20) }]);
        pair.hosts[0].closes = false;
        pair.hosts[1].to_write = 5_000_000;
        assert!(pair.run(MINUTE, |pair| pair.hosts[0].read > 500_000));
        pair.paths[0].up = false;
        pair.run(SECOND * 20, |_| false);
        pair.paths[1].up = true;
        assert!(pair.run(SECOND * 30, |pair| pair.hosts[0].read == 5_000_000), "{}", pair.status());
        pair.hosts[0].closes = true;
        close(&mut pair);
    }
}

#[test]
fn a_connection_lives_without_subflows_and_resumes() {
    for seed in 0..10 {
        let mut pair = pair(seed, vec![Path::clean(10), Path { up: false, ..Path::clean(20) }]);
        pair.hosts[0].closes = false;
        pair.hosts[1].to_write = 5_000_000;
        assert!(pair.run(MINUTE, |pair| pair.hosts[0].read > 500_000));
        kill_subflows(&mut pair);
        pair.run(SECOND * 30, |_| false);
        assert!(!pair.hosts[0].connection().is_closed() && !pair.hosts[1].connection().is_closed());
        pair.paths[1].up = true;
        assert!(pair.run(SECOND * 20, |pair| pair.hosts[0].read == 5_000_000), "{}", pair.status());
        pair.hosts[0].closes = true;
        close(&mut pair);
    }
}

#[test]
fn a_connection_without_subflows_ends_after_a_minute() {
    let mut pair = pair(3, vec![Path::clean(10)]);
    pair.hosts[1].to_write = 5_000_000;
    assert!(pair.run(MINUTE, |pair| pair.hosts[0].read > 500_000));
    kill_subflows(&mut pair);
    pair.paths[0].up = false;
    assert!(!pair.run(SECOND * 58, |pair| pair.all_closed()));
    assert!(pair.run(SECOND * 5, |pair| pair.all_closed()));
    assert!(pair.hosts[1].outcome.contains(crate::HalfOutcome::TIMED_OUT));
    assert_eq!(pair.counter(1, Counter::MptcpNoSubflowTimeouts), 1);
    pair.audit();
}

/// Both hosts lose their subflows, as when interfaces are removed.
fn kill_subflows(pair: &mut Pair) {
    let now = pair.now;
    pair.wanted.clear();
    for host in &mut pair.hosts {
        host.lose_subflows(now);
    }
    pair.wanted.insert(pair.paths.len() - 1);
}

#[test]
fn paths_that_come_and_go_at_random_lose_nothing() {
    for seed in 0..60 {
        let mut pair = pair(seed, vec![lossy(10, 20, 5), lossy(10, 20, 25), lossy(30, 50, 60)]);
        pair.wanted.insert(0);
        pair.hosts[0].to_write = 400_000;
        pair.hosts[1].to_write = 400_000;
        let mut dice = mimbox_stack::Rng::from_u64(seed + 1000);
        for _ in 0..40 {
            let path = dice.below(3) as usize;
            pair.paths[path].up = dice.below(3) > 0;
            let pause = Duration::from_millis(50 + dice.below(500));
            if pair.run(pause, |pair| pair.finished([400_000; 2])) {
                break;
            }
        }
        for path in &mut pair.paths {
            path.up = true;
        }
        assert!(pair.run(MINUTE, |pair| pair.finished([400_000; 2])), "{}", pair.status());
        close(&mut pair);
    }
}
