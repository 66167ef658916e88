//! Segment size: ICMP, black holes, and the way back up.

use crate::Counter;
use crate::seq::SeqNum;
use crate::tcp::harness::{ISS, Link, PEER, Pair, Say, Solo, spans};
use crate::tcp::*;
use crate::time::Duration;
use crate::wire::{IcmpIn, IcmpKind};

const WIDE: crate::options::SynOptions = crate::options::SynOptions { mss: Some(1_460), ..PEER };

fn too_big(solo: &mut Solo, at: u32, mtu: u32) -> Outcome {
    let now = solo.now;
    let icmp = IcmpIn { kind: IcmpKind::TooBig, mtu, quoted_seq: SeqNum(ISS + 1 + at) };
    solo.end.with(|conn, env| conn.on_icmp(now, &icmp, env))
}

fn wide() -> Solo {
    Solo::new(TcpConfig::default(), WIDE, true)
}

#[test]
fn packet_too_big_sends_what_is_in_flight_again_in_pieces() {
    let mut solo = wide();
    solo.write(3 * 1_448, 1_448);
    let before = solo.cwnd();
    assert_eq!(too_big(&mut solo, 0, 1_400), Outcome::SEGMENT_SIZE);
    let sent = solo.poll();
    assert_eq!(spans(&sent)[..2], [(0, 1_348), (1_348, 100)]);
    assert_eq!(solo.cwnd(), before, "no sign of congestion");
    assert_eq!(solo.count(Counter::TxSplits), 3);
}

#[test]
fn packet_too_big_for_what_is_not_in_flight_is_ignored() {
    let mut solo = wide();
    solo.write(1_448, 1_448);
    assert_eq!(too_big(&mut solo, 5_000, 1_400), Outcome::empty());
    assert_eq!(solo.count(Counter::IcmpIgnored), 1, "RFC 5927 §4.1");
}

#[test]
fn packet_too_big_never_goes_below_the_smallest_mtu_nor_up() {
    let mut solo = wide();
    solo.write(1_448, 1_448);
    too_big(&mut solo, 0, 68);
    assert_eq!(solo.end.with(|conn, _| conn.sending_mss()), 536);
    too_big(&mut solo, 0, 1_400);
    assert_eq!(solo.end.with(|conn, _| conn.sending_mss()), 536);
}

#[test]
fn packet_too_big_without_a_size_goes_one_plateau_down() {
    let mut solo = wide();
    solo.write(1_448, 1_448);
    too_big(&mut solo, 0, 0);
    assert_eq!(solo.end.with(|conn, _| conn.sending_mss()), 1_452, "RFC 1191 §7.1: 1492");
}

#[test]
fn a_claim_that_acknowledged_segments_refute_waits_for_a_timeout() {
    let mut solo = wide();
    solo.write(2 * 1_448, 1_448);
    solo.now += Duration::from_millis(100);
    solo.say(Say::ack(1_448));
    solo.write(1_448, 1_448);
    too_big(&mut solo, 1_448, 600);
    assert_eq!(solo.end.with(|conn, _| conn.sending_mss()), 1_460, "RFC 5927 §7.2");
    // The route has changed indeed: nothing comes back any more.
    solo.wait(Duration::from_secs(2));
    assert_eq!(solo.end.with(|conn, _| conn.sending_mss()), 560);
}

#[test]
fn a_black_hole_is_found_by_silence() {
    let link = Link { mtu: 1_400, ..Link::clean(Duration::from_millis(10)) };
    let mut pair = Pair::new(1, link, [Offer::default(); 2], 1_448);
    pair.ends[0].to_write = 100_000;
    assert!(pair.run(Duration::from_secs(60), |ends| ends[1].read == 100_000), "RFC 4821");
    assert!(pair.ends[0].counters.get(Counter::TcpBlackHoles) >= 1);
}

#[test]
fn a_larger_size_is_tried_again_after_ten_minutes() {
    let mut solo = wide();
    solo.write(1_448, 1_448);
    too_big(&mut solo, 0, 1_400);
    solo.poll();
    solo.say(Say::ack(1_448));
    solo.wait(Duration::from_secs(599));
    assert_eq!(solo.write(1_448, 1_448)[0].len, 1_348);
    solo.now += Duration::from_millis(100);
    solo.say(Say::ack(2 * 1_448));
    solo.wait(Duration::from_secs(2));
    let sent = solo.write(2 * 1_448, 1_448);
    assert_eq!(spans(&sent)[0].1, 1_448, "one segment tries it");
    assert_eq!(spans(&sent)[1].1, 1_348, "the others do not");
    solo.now += Duration::from_millis(100);
    solo.say(Say::ack(4 * 1_448));
    assert_eq!(solo.end.with(|conn, _| conn.sending_mss()), 1_460);
}
