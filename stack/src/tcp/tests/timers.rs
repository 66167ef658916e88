//! Timers: what waits for the peer is never left without one.

use crate::tcp::harness::{FULL, PEER, Say, Solo};
use crate::tcp::*;
use crate::time::{Duration, Instant};

#[test]
fn data_without_its_timer_is_told_whatever_else_is_due() {
    let mut solo = Solo::usual();
    solo.write(10 * FULL, FULL as u16);
    let now = solo.now;
    assert_eq!(solo.end.with(|conn, _| conn.timer_fault(now)), None);
    let fault = solo.end.with(|conn, _| {
        // A delayed acknowledgment sends none of it again.
        conn.hot.ack_at = now + Duration::from_millis(1);
        conn.hot.rto_at = Instant::MAX;
        conn.timer_fault(now)
    });
    assert!(fault.is_some_and(|fault| fault.contains("is not acknowledged")));
}

#[test]
fn data_that_a_closed_window_holds_back_is_told_without_its_probe() {
    let mut solo = Solo::usual();
    solo.say(Say::ack(0).window(0));
    assert!(solo.write(2 * FULL, FULL as u16).is_empty());
    let now = solo.now;
    assert_eq!(solo.end.with(|conn, _| conn.timer_fault(now)), None);
    let fault = solo.end.with(|conn, _| {
        conn.hot.rto_at = Instant::MAX;
        conn.timer_fault(now)
    });
    assert!(fault.is_some_and(|fault| fault.contains("is not sent")));
}

#[test]
fn a_report_that_makes_the_timeout_shorter_brings_the_timer_forward() {
    // Nothing is measured yet: the first flight has the initial timeout of one second.
    let mut solo = Solo::new(TcpConfig::default(), PEER, false);
    solo.write(10 * FULL, FULL as u16);
    solo.now += Duration::from_millis(100);
    // The first segment is missing, so that the acknowledgment starts no timer anew.
    solo.say(Say::ack(0).sacking(&[(1_000, 2_000)]));
    let now = solo.now;
    let (rto, due) = solo.end.with(|conn, _| (conn.rto(), conn.hot.rto_at));
    assert_eq!(rto, Duration::from_millis(300), "100 ms and four deviations of 50 ms");
    assert!(due <= now + rto, "due in {}", due.since(now));
    assert_eq!(solo.end.with(|conn, _| conn.timer_fault(now)), None);
}
