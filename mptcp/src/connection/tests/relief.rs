//! Subflows whose losses hold the others up, and those that only look as if they did.

use super::*;

/// An upload over 50 and 20 Mbit/s, 20 and 60 ms; what the second path loses, in thousandths. The sender does not look at
/// what its paths are like, and has a bounded buffer.
fn upload(seed: u64, loss: u64, ask_backup: bool) -> Pair {
    let config = MptcpConfig { ask_backup, scheduler: SchedulerKind::RoundRobin, ..MptcpConfig::default() };
    let first = Path { ns_per_byte: 160, ..Path::clean(10) };
    let second = Path { ns_per_byte: 400, loss, ..Path::clean(30) };
    let mut pair = Pair::new(seed, vec![first, second], [config; 2]);
    pair.hosts[0].backlog = 120;
    pair.hosts[0].to_write = 200_000_000;
    pair.hosts[1].closes = false;
    pair
}

fn uneven(seed: u64, loss: u64) -> Pair {
    upload(seed, loss, true)
}

fn asked(pair: &Pair) -> Vec<bool> {
    let said = |event: &Event| match event {
        Event::AskedPriority { backup, .. } => Some(*backup),
        _ => None,
    };
    pair.hosts[1].events.iter().filter_map(said).collect()
}

/// Bytes that the client has sent on its second subflow.
fn by_second(pair: &mut Pair) -> u64 {
    pair.hosts[0].connection().subflow_stats().nth(1).map_or(0, |stats| stats.bytes_sent)
}

#[test]
fn a_lossy_path_that_brings_little_becomes_backup() {
    for seed in 0..5 {
        let mut pair = uneven(seed, 20);
        assert!(pair.run(SECOND * 12, |pair| asked(pair) == [true]), "{}", pair.status());
        pair.run(SECOND * 2, |_| false);
        let (read, second) = (pair.hosts[1].read, by_second(&mut pair));
        pair.run(SECOND * 5, |_| false);
        // The first path is full, and the other idle.
        let rate = (pair.hosts[1].read - read) * 8 / 5;
        assert!(rate > 43_000_000, "seed {seed}: {rate} bit/s");
        assert_eq!(by_second(&mut pair), second, "seed {seed}");
        assert_eq!(pair.counter(0, Counter::MptcpPrioIn), 1);
    }
}

#[test]
fn the_wish_ends_as_soon_as_nothing_else_brings_anything() {
    for seed in 0..5 {
        let mut pair = uneven(seed, 20);
        assert!(pair.run(SECOND * 12, |pair| asked(pair) == [true]), "{}", pair.status());
        pair.paths[0].up = false;
        let limit = Duration::from_millis(700);
        assert!(pair.run(limit, |pair| asked(pair) == [true, false]), "{}", pair.status());
        let read = pair.hosts[1].read;
        assert!(pair.run(SECOND * 5, |pair| pair.hosts[1].read > read + 100_000), "{}", pair.status());
    }
}

#[test]
fn paths_that_lose_nothing_are_left_alone() {
    for seed in 0..5 {
        let mut pair = uneven(seed, 0);
        pair.run(SECOND * 15, |_| false);
        assert_eq!(asked(&pair), [], "{}", pair.status());
    }
}

#[test]
fn a_lossy_path_alone_is_left_alone() {
    let mut pair = uneven(1, 20);
    pair.wanted.clear();
    pair.paths[0].loss = 20;
    pair.run(SECOND * 15, |_| false);
    assert_eq!(asked(&pair), [], "{}", pair.status());
}

#[test]
fn who_does_not_want_it_does_not_ask() {
    let mut pair = upload(1, 20, false);
    pair.run(SECOND * 12, |_| false);
    assert_eq!(asked(&pair), [], "{}", pair.status());
}

#[test]
fn a_wish_that_brings_nothing_is_taken_back() {
    for seed in 0..5 {
        let mut pair = upload(seed, 20, true);
        (pair.hosts[0].closes, pair.hosts[0].to_write) = (false, 0);
        let (begin, mut given) = (pair.now, 0);
        // The application writes 10 Mbit/s, whatever the paths are like.
        let mut run = |pair: &mut Pair, time, done: fn(&Pair) -> bool| {
            pair.run(time, |pair| {
                let due = pair.now.since(begin).as_micros() * 10 / 8;
                pair.hosts[0].to_write += due - given;
                given = due;
                done(pair)
            })
        };
        let told = run(&mut pair, SECOND * 20, |pair| asked(pair) == [true, false]);
        assert!(told, "{:?} {}", asked(&pair), pair.status());
        run(&mut pair, SECOND * 12, |_| false);
        assert_eq!(asked(&pair), [true, false], "not so soon again: {}", pair.status());
    }
}
