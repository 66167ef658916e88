//! Everything at random, from a seed: paths, rates, losses, windows, schedulers, checksums, subflows that vanish.

use mimbox_stack::Rng;

use super::*;

/// Kinds of link rates, in nanoseconds a byte; zero for no limit.
const RATES: [u64; 5] = [0, 0, 100, 1000, 5000];

fn random_pair(seed: u64, dice: &mut Rng) -> Pair {
    let mut below = |n: u64| dice.below(n);
    let paths: Vec<Path> = (0..1 + below(4))
        .map(|_| Path {
            loss: below(60),
            duplicate: below(30),
            reorder: below(200),
            delay: Duration::from_millis(1 + below(80)),
            ns_per_byte: RATES[below(5) as usize],
            up: true,
        })
        .collect();
    let kinds = [SchedulerKind::LowestRtt, SchedulerKind::RoundRobin, SchedulerKind::Redundant, SchedulerKind::Blest];
    let mut config = || MptcpConfig {
        checksum: below(4) == 0,
        scheduler: kinds[below(4) as usize],
        max_reorder_frames: if below(4) == 0 { 20 } else { 4096 },
        ..MptcpConfig::default()
    };
    let configs = [config(), config()];
    let mut pair = Pair::new(seed, paths, configs);
    for host in &mut pair.hosts {
        host.to_write = 1 << below(19);
        host.space = 3000 + below(200_000) as u32;
    }
    pair.wanted.insert(0);
    pair
}

/// Paths come and go; now and then the client loses all its subflows without a word.
fn churn(pair: &mut Pair, dice: &mut Rng, sizes: [u64; 2]) {
    for _ in 0..20 {
        let path = dice.below(pair.paths.len() as u64) as usize;
        pair.paths[path].up = dice.below(3) > 0;
        let confirmed = pair.hosts.iter().all(|host| host.connection.as_ref().is_some_and(|known| known.confirmed));
        if dice.below(10) == 0 && confirmed {
            let now = pair.now;
            pair.hosts[0].lose_subflows(now);
        }
        if pair.run(Duration::from_millis(20 + dice.below(800)), |pair| pair.finished(sizes)) {
            break;
        }
    }
    for path in &mut pair.paths {
        path.up = true;
    }
}

#[test]
fn connections_at_random_lose_nothing_and_end() {
    for seed in 0..800 {
        let mut dice = Rng::from_u64(seed ^ 0x5555);
        let mut pair = random_pair(seed, &mut dice);
        let sizes = [pair.hosts[0].to_write, pair.hosts[1].to_write];
        if dice.below(2) == 0 {
            churn(&mut pair, &mut dice, sizes);
        }
        assert!(pair.run(MINUTE * 4, |pair| pair.finished(sizes)), "{}", pair.status());
        close(&mut pair);
    }
}
