//! How the window grows, and when it does not.

use crate::tcp::harness::{FULL, PEER, Say, Solo};
use crate::tcp::*;
use crate::time::Duration;

const RTT: Duration = Duration::from_millis(100);

#[test]
fn a_window_that_is_not_used_does_not_grow() {
    let mut solo = Solo::usual();
    let before = solo.cwnd();
    for round in 0..50 {
        solo.write(FULL, FULL as u16);
        solo.now += RTT;
        solo.say(Say::ack((round + 1) * FULL));
    }
    assert_eq!(solo.cwnd(), before, "RFC 7661");
}

#[test]
fn a_window_that_is_used_doubles_in_slow_start() {
    let mut solo = Solo::usual();
    solo.write(200 * FULL, FULL as u16);
    let before = solo.cwnd();
    solo.now += RTT;
    for ack in 1..=10 {
        solo.say(Say::ack(ack * FULL));
    }
    assert_eq!(solo.cwnd(), 2 * before);
}

#[test]
fn silence_makes_the_window_small_again() {
    let mut solo = Solo::usual();
    let mut acked = 0;
    solo.write(150 * FULL, FULL as u16);
    for _ in 0..4 {
        solo.now += RTT;
        let flight = solo.end.with(|conn, _| conn.in_flight_bytes());
        for _ in 0..flight / FULL {
            acked += FULL;
            solo.say(Say::ack(acked));
        }
    }
    let large = solo.cwnd();
    assert!(large >= 80 * FULL, "{large}");
    assert!(solo.end.with(|conn, _| conn.all_acked()));
    solo.wait(Duration::from_secs(30));
    let sent = solo.write(100 * FULL, FULL as u16);
    assert_eq!(solo.cwnd(), 10 * FULL, "RFC 5681 §4.1");
    assert_eq!(sent.len(), 10);
    assert!(solo.end.with(|conn, _| conn.ssthresh()) >= large / 4 * 3);
}

#[test]
fn paced_data_leaves_over_the_round_trip() {
    let mut solo = Solo::new(TcpConfig { pacing: true, ..TcpConfig::default() }, PEER, true);
    let first = solo.write(10 * FULL, FULL as u16).len();
    assert!(first < 10, "not all of it at once: {first}");
    let later = solo.wait(Duration::from_millis(60));
    assert_eq!(first + later.len(), 10, "twice the window in a round trip");
    solo.finish();
}

#[test]
fn the_initial_window_of_large_segments_is_small() {
    let jumbo = crate::options::SynOptions { mss: Some(8_960), ..PEER };
    let mut solo = Solo::new(TcpConfig { mtu: 9_000, ..TcpConfig::default() }, jumbo, true);
    let mss = solo.end.with(|conn, _| u32::from(conn.segment_payload()));
    assert_eq!(solo.cwnd(), 2 * mss, "RFC 6928 §2");
}
