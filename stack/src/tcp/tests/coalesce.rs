//! Small segments do not pin frames.

use crate::Counter;
use crate::tcp::harness::{Say, Solo};
use crate::time::Duration;

#[test]
fn small_segments_behind_a_full_window_share_a_frame() {
    let mut solo = Solo::usual();
    solo.write(10_000, 1_000);
    let before = solo.end.pool.in_use();
    solo.write(900, 1);
    assert_eq!(solo.end.pool.in_use(), before + 1);
    solo.now += Duration::from_millis(100);
    let sent = solo.say(Say::ack(10_000));
    assert_eq!(sent[0].len, 900, "and go as one segment");
    solo.say(Say::ack(10_900));
    solo.finish();
}

#[test]
fn single_bytes_in_flight_are_put_together() {
    let mut solo = Solo::usual();
    let mut most = 0;
    for _ in 0..5_000 {
        solo.write(1, 1);
        most = most.max(solo.end.pool.in_use());
    }
    assert!(most <= 129, "{most} frames");
    assert!(solo.count(Counter::TcpCoalesced) > 4_000);
    // They may be lost all the same, and are sent again from where they are now.
    solo.now += Duration::from_millis(100);
    let again = solo.say(Say::ack(100));
    assert!(again.iter().all(|sent| sent.at >= 100));
    let rest = solo.wait(Duration::from_secs(2));
    assert!(!rest.is_empty());
    solo.say(Say::ack(5_000));
    assert!(solo.end.with(|conn, _| conn.all_acked()));
    solo.finish();
}

#[test]
fn what_sack_reports_of_segments_put_together_is_kept() {
    let mut solo = Solo::usual();
    for _ in 0..60 {
        solo.write(1, 1);
    }
    solo.now += Duration::from_millis(100);
    solo.say(Say::ack(0).sacking(&[(10, 30)]));
    for _ in 0..100 {
        solo.write(1, 1);
    }
    let in_flight = solo.end.with(|conn, _| conn.in_flight_bytes());
    assert!(in_flight <= 140, "{in_flight}: what is SACKed is not in flight");
    solo.say(Say::ack(160));
    assert!(solo.end.with(|conn, _| conn.all_acked()));
    assert_eq!(solo.end.with(|conn, _| conn.in_flight_bytes()), 0);
    solo.finish();
}

#[test]
fn single_bytes_beyond_a_gap_fill_frames() {
    let mut solo = Solo::usual();
    for at in 1..2_000 {
        solo.say(Say::data(at, 1));
    }
    assert!(solo.end.pool.in_use() <= 3, "{} frames", solo.end.pool.in_use());
    solo.say(Say::data(0, 1));
    assert_eq!(solo.end.read, 2_000);
    solo.finish();
}
