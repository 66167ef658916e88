use super::harness::{Link, Pair};
use super::*;
use crate::time::Duration;

const CLEAN: Link = Link { loss: 0, duplicate: 0, reorder: 0, delay: Duration::from_millis(10) };
const BAD: Link = Link { loss: 20, duplicate: 10, reorder: 50, delay: Duration::from_millis(10) };
const HOUR: Duration = Duration::from_secs(3600);

fn transfer(mut pair: Pair, bytes: [u64; 2]) -> Pair {
    pair.ends[0].to_write = bytes[0];
    pair.ends[1].to_write = bytes[1];
    let done = pair.run(HOUR, |ends| ends.iter().all(|end| end.outcome.contains(Outcome::CLOSED)));
    let states = [0, 1].map(|side| pair.ends[side].with(|conn, _| format!("{conn:?}")));
    assert!(done, "seed {} hangs: {states:#?}", pair.seed);
    assert_eq!((pair.ends[1].read, pair.ends[0].read), (bytes[0], bytes[1]), "seed {}", pair.seed);
    pair.audit();
    pair
}

#[test]
fn a_transfer_both_ways_over_a_clean_link_needs_no_retransmission() {
    let mut pair = transfer(Pair::new(1, CLEAN, [Offer::default(); 2], 1448), [1_000_000, 500_000]);
    for end in &mut pair.ends {
        assert_eq!(end.counters.get(crate::Counter::TcpRetransmits), 0);
        assert!(end.fin);
    }
}

#[test]
fn a_clean_transfer_is_bounded_by_slow_start_not_by_timers() {
    let pair = transfer(Pair::new(1, CLEAN, [Offer::default(); 2], 1448), [1_000_000, 1]);
    let took = pair.now.since(crate::Instant::from_millis(5_000));
    assert!(took < Duration::from_millis(400), "took {took}");
}

#[test]
fn no_byte_differs_over_links_that_lose_duplicate_and_reorder() {
    for seed in 0..150 {
        transfer(Pair::new(seed, BAD, [Offer::default(); 2], 1448), [200_000, 60_000]);
    }
}

#[test]
fn peers_without_sack_timestamps_or_scaling_recover_too() {
    let plain = Offer { sack: false, timestamps: None, window_scale: None, ..Offer::default() };
    for seed in 0..60 {
        transfer(Pair::new(seed, BAD, [plain, Offer::default()], 1448), [100_000, 30_000]);
    }
}

#[test]
fn segments_are_split_for_a_peer_with_a_small_mss() {
    let small = Offer { mss: 536, ..Offer::default() };
    for seed in 0..40 {
        transfer(Pair::new(seed, BAD, [Offer::default(), small], 1448), [80_000, 80_000]);
    }
}

#[test]
fn a_terrible_link_only_takes_longer() {
    let link = Link { loss: 200, duplicate: 50, reorder: 100, delay: Duration::from_millis(30) };
    for seed in 0..40 {
        transfer(Pair::new(seed, link, [Offer::default(); 2], 1000), [40_000, 20_000]);
    }
}

#[test]
fn a_half_closed_connection_still_carries_the_other_direction() {
    let mut pair = Pair::new(3, CLEAN, [Offer::default(); 2], 1448);
    pair.ends[0].to_write = 10;
    assert!(pair.run(HOUR, |ends| ends[1].fin), "the client's FIN arrives");
    pair.ends[1].to_write = 300_000;
    assert!(pair.run(HOUR, |ends| ends[0].fin));
    assert_eq!(pair.ends[0].read, 300_000);
}

#[test]
fn a_closed_window_is_probed_and_reopens() {
    let mut pair = Pair::new(4, CLEAN, [Offer::default(); 2], 1448);
    pair.ends[0].to_write = 400_000;
    pair.ends[1].space = 0;
    assert!(!pair.run(Duration::from_secs(600), |ends| ends[1].read == 400_000));
    assert!(pair.ends[0].counters.get(crate::Counter::TcpZeroWindowProbes) > 3);
    assert!(pair.ends[1].read <= 65_535 + 1_448);
    pair.ends[1].space = 512 * 1024;
    assert!(pair.run(HOUR, |ends| ends[1].read == 400_000), "it goes on when the window opens");
}

#[test]
fn an_aborted_connection_resets_its_peer() {
    let mut pair = Pair::new(5, CLEAN, [Offer::default(); 2], 1448);
    pair.ends[0].to_write = 100_000;
    assert!(pair.run(HOUR, |ends| ends[1].read > 20_000));
    pair.ends[1].with(|conn, env| conn.abort(env));
    assert!(pair.run(HOUR, |ends| ends[0].outcome.contains(Outcome::RESET)));
    pair.audit();
}
