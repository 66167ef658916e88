use crate::tcp::harness::{Link, Pair};
use crate::tcp::*;
use crate::time::Duration;

const CLEAN: Link = Link::clean(Duration::from_millis(10));
const BAD: Link = Link { loss: 20, duplicate: 10, reorder: 50, ..CLEAN };
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
    let link = Link { loss: 200, duplicate: 50, reorder: 100, ..Link::clean(Duration::from_millis(30)) };
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

#[test]
fn old_data_that_acknowledges_our_fin_ends_the_connection() {
    let mut pair = Pair::new(6, CLEAN, [Offer::default(); 2], 1448);
    let established =
        |ends: &[crate::tcp::harness::End; 2]| ends.iter().all(|end| end.outcome.contains(Outcome::ESTABLISHED));
    assert!(pair.run(HOUR, established));
    // Both ends send and close at once; the acknowledgments of both get lost.
    pair.ends[0].to_write = 5;
    pair.ends[1].to_write = 10;
    let (from_client, from_server) = (pair.sent_by(0), pair.sent_by(1));
    pair.deliver(0, &from_server);
    pair.deliver(1, &from_client);
    let _ = (pair.sent_by(0), pair.sent_by(1));
    assert_eq!(pair.ends[0].with(|conn, _| conn.state()), State::Closing);
    // The server's data comes again: old, but with news of the client's FIN.
    pair.run_timer(1);
    let again = pair.sent_by(1);
    assert!(!again.is_empty());
    pair.deliver(0, &again);
    assert_eq!(pair.ends[0].with(|conn, _| conn.state()), State::TimeWait);
    assert!(pair.ends[0].outcome.contains(Outcome::CLOSED), "said as with any other segment");
    assert!(pair.ends[0].with(|conn, _| conn.next_deadline()).is_some(), "TIME-WAIT ends some time");
}

#[test]
fn a_half_closed_connection_whose_peer_has_gone_ends_by_keepalive() {
    let gone = Link { loss: 1000, ..CLEAN };
    let mut pair = Pair::new(7, CLEAN, [Offer::default(); 2], 1448);
    pair.ends[0].with(|conn, _| conn.cold.config.keepalive = Some(Duration::from_secs(30)));
    pair.ends[0].to_write = 10;
    assert!(pair.run(HOUR, |ends| ends[1].fin));
    pair.run(Duration::from_secs(5), |_| false);
    assert_eq!(pair.ends[0].with(|conn, _| conn.state()), State::FinWait2);
    pair.link = gone;
    assert!(pair.run(HOUR, |ends| ends[0].outcome.contains(Outcome::TIMED_OUT)), "nothing else would end it");
}

#[test]
fn a_peer_that_goes_while_nothing_is_in_flight_is_given_up_after_the_user_timeout() {
    let mut pair = Pair::new(8, CLEAN, [Offer::default(); 2], 1448);
    pair.ends[1].with(|conn, _| {
        conn.cold.config.keepalive = Some(Duration::from_secs(2));
        conn.cold.config.user_timeout = Duration::from_secs(5);
    });
    pair.ends[0].to_write = 1_000_000;
    assert!(pair.run(HOUR, |ends| ends[1].read > 100_000));
    pair.link = Link { loss: 1000, ..CLEAN };
    assert!(
        pair.run(Duration::from_secs(8), |ends| ends[1].outcome.contains(Outcome::TIMED_OUT)),
        "idle for two seconds, unanswered for five"
    );
    let probes = pair.ends[1].counters.get(crate::Counter::TcpKeepalives);
    assert!((2..=4).contains(&probes), "{probes} probes");
}

#[test]
fn a_peer_that_answers_keepalives_is_kept() {
    let mut pair = Pair::new(9, CLEAN, [Offer::default(); 2], 1448);
    pair.ends[1].with(|conn, _| {
        conn.cold.config.keepalive = Some(Duration::from_secs(2));
        conn.cold.config.user_timeout = Duration::from_secs(5);
    });
    let lives = |ends: &[crate::tcp::harness::End; 2]| ends.iter().any(|end| end.outcome.contains(Outcome::CLOSED));
    assert!(!pair.run(Duration::from_secs(600), lives), "idle for ten minutes, and answering");
    assert!(pair.ends[1].counters.get(crate::Counter::TcpKeepalives) > 200);
}
