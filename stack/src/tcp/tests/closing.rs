//! Opening and closing from both sides at once, and TIME-WAIT.

use crate::tcp::harness::{Link, Pair, Say, Solo};
use crate::tcp::*;
use crate::time::{Duration, Instant};
use crate::wire::TcpFlags;

#[test]
fn both_ends_may_open_at_once() {
    let mut pair = Pair::simultaneous(1, Link::clean(Duration::from_millis(10)));
    pair.ends[0].to_write = 5_000;
    pair.ends[1].to_write = 70_000;
    let done = |ends: &[crate::tcp::harness::End; 2]| ends.iter().all(|end| end.outcome.contains(Outcome::CLOSED));
    assert!(pair.run(Duration::from_secs(300), done), "RFC 9293 §3.5");
    assert_eq!((pair.ends[1].read, pair.ends[0].read), (5_000, 70_000));
    for end in &pair.ends {
        assert!(end.outcome.contains(Outcome::ESTABLISHED));
    }
    pair.audit();
}

#[test]
fn both_ends_may_close_at_once() {
    let mut solo = Solo::usual();
    solo.end.with(|conn, _| conn.shutdown());
    let sent = solo.poll();
    assert!(sent[0].flags.contains(TcpFlags::FIN));
    solo.say(Say::data(0, 0).flag(TcpFlags::FIN));
    assert_eq!(solo.end.with(|conn, _| conn.state()), State::Closing);
    let outcome = solo.take(Say { at: 1, ..Say::ack(1) });
    assert!(outcome.contains(Outcome::CLOSED));
    assert_eq!(solo.end.with(|conn, _| conn.state()), State::TimeWait);
}

#[test]
fn a_window_in_a_syn_and_ack_is_not_scaled() {
    let mut pair = Pair::new(1, Link::clean(Duration::from_millis(10)), [Offer::default(); 2], 1_448);
    assert!(pair.run(Duration::from_secs(1), |ends| ends[0].outcome.contains(Outcome::ESTABLISHED)));
    assert_eq!(pair.ends[0].with(|conn, _| conn.peer_window()), 65_535, "RFC 7323 §2.2");
}

#[test]
fn a_half_closed_peer_that_is_silent_is_asked_and_then_given_up() {
    let mut solo = Solo::usual();
    solo.end.with(|conn, _| conn.shutdown());
    solo.poll();
    solo.say(Say::ack(1));
    assert_eq!(solo.end.with(|conn, _| conn.state()), State::FinWait2);
    let probes = solo.wait(Duration::from_secs(200));
    assert!(!probes.is_empty());
    solo.say(Say::ack(1));
    solo.wait(Duration::from_secs(1_500));
    assert!(solo.end.outcome.contains(Outcome::TIMED_OUT));
}

fn resting(timestamps: bool) -> TimeWaitRecord {
    let mut solo = Solo::new(TcpConfig::default(), crate::tcp::harness::PEER, timestamps);
    solo.say(Say::data(0, 100));
    solo.end.with(|conn, _| conn.time_wait_record(Instant::ZERO))
}

/// A SYN `ahead` sequence numbers beyond the last, with a timestamp or none.
fn syn(ahead: u32, value: Option<u32>) -> crate::wire::SegmentIn {
    let solo = &mut Solo::usual();
    let mut segment = solo.segment(&Say::data(100 + ahead, 0));
    segment.flags = TcpFlags::SYN;
    segment.options.timestamps = value.map(|value| crate::options::Timestamps { value, echo: 0 });
    segment
}

#[test]
fn time_wait_gives_way_as_rfc_6191_says() {
    let (with, without) = (resting(true), resting(false));
    let last = 10_000;
    assert!(with.gives_way_to(&syn(0, Some(last + 1))), "a newer timestamp");
    assert!(!with.gives_way_to(&syn(50, Some(last - 1))), "an older one, whatever the sequence number");
    assert!(with.gives_way_to(&syn(50, Some(last))), "the same, and a higher sequence number");
    assert!(!with.gives_way_to(&syn(0, Some(last))));
    assert!(with.gives_way_to(&syn(50, None)), "none, and a higher sequence number");
    assert!(!with.gives_way_to(&syn(0, None)));
    assert!(without.gives_way_to(&syn(0, Some(1))), "timestamps are new");
    assert!(without.gives_way_to(&syn(50, None)));
    assert!(!without.gives_way_to(&syn(0, None)));
}
