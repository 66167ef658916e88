//! Losses: found, repaired, and paid for.

use crate::Counter;
use crate::options::SynOptions;
use crate::tcp::harness::{FULL, PEER, Say, Solo, spans};
use crate::tcp::*;
use crate::time::Duration;

const RTT: Duration = Duration::from_millis(100);

/// Sends ten full segments and lets a round trip pass.
fn ten_out(solo: &mut Solo) {
    let sent = solo.write(10 * FULL, FULL as u16);
    assert_eq!(sent.len(), 10, "the initial window (RFC 6928)");
    solo.now += RTT;
}

#[test]
fn three_segments_sacked_above_a_hole_send_it_again_at_once() {
    let mut solo = Solo::usual();
    ten_out(&mut solo);
    assert!(solo.say(Say::ack(0).sacking(&[(1_000, 2_000)])).is_empty());
    assert!(solo.say(Say::ack(0).sacking(&[(1_000, 3_000)])).is_empty());
    let sent = solo.say(Say::ack(0).sacking(&[(1_000, 4_000)]));
    assert_eq!(spans(&sent), [(0, 1_000)]);
    assert!(sent[0].retransmit);
    solo.finish();
}

#[test]
fn a_lost_retransmission_is_found_by_time() {
    let mut solo = Solo::usual();
    ten_out(&mut solo);
    solo.say(Say::ack(0).sacking(&[(1_000, 4_000)]));
    // A round trip later everything sent after the retransmission is there, but not the retransmission.
    solo.write(10 * FULL, FULL as u16);
    solo.now += RTT;
    let mut again = Vec::new();
    for end in 5..=10 {
        again.extend(solo.say(Say::ack(0).sacking(&[(1_000, end * 1_000)])));
    }
    let new_at = spans(&again).into_iter().filter(|span| span.0 >= 10_000).collect::<Vec<_>>();
    assert!(!new_at.is_empty(), "new data goes out meanwhile: {:?}", spans(&again));
    solo.now += RTT;
    let sent = solo.say(Say::ack(0).sacking(&[(1_000, 11_000)]));
    assert!(spans(&sent).contains(&(0, 1_000)), "sent again a second time: {:?}", spans(&sent));
    assert_eq!(solo.count(Counter::TcpTimeouts), 0);
}

#[test]
fn recovery_sends_in_proportion_and_ends_at_the_threshold() {
    let mut solo = Solo::new(TcpConfig { cc: CcKind::NewReno, ..TcpConfig::default() }, PEER, true);
    ten_out(&mut solo);
    solo.write(90 * FULL, FULL as u16);
    let before = solo.cwnd();
    assert_eq!(before, 10_000);
    // The first is lost, the others arrive one by one.
    let mut sent = 0;
    for end in 2..=10 {
        sent += solo.say(Say::ack(0).sacking(&[(1_000, end * 1_000)])).len();
    }
    // Half the window is the aim: of nine deliveries four or five let something out.
    assert!((4..=6).contains(&sent), "sent {sent}");
    solo.now += RTT;
    solo.say(Say::ack(10_000));
    assert_eq!(solo.cwnd(), 5_000, "RFC 9937 §6.4");
}

#[test]
fn reordering_that_was_seen_delays_the_verdict() {
    let mut solo = Solo::usual();
    ten_out(&mut solo);
    // The first segment is overtaken by the second, and arrives.
    solo.say(Say::ack(0).sacking(&[(1_000, 2_000)]));
    solo.say(Say::ack(2_000));
    assert_eq!(solo.count(Counter::TcpRetransmits), 0);
    // From now on three SACKed segments prove nothing before a quarter of the least RTT has passed.
    let sent = solo.say(Say::ack(2_000).sacking(&[(3_000, 7_000)]));
    assert!(sent.iter().all(|sent| !sent.retransmit), "{:?}", spans(&sent));
    let sent = solo.wait(Duration::from_millis(30));
    assert_eq!(sent.iter().filter(|sent| sent.retransmit).map(|sent| sent.at).collect::<Vec<_>>(), [2_000]);
    assert_eq!(solo.count(Counter::TcpTimeouts), 0);
}

#[test]
fn a_lost_tail_is_probed_after_two_round_trips() {
    let mut solo = Solo::usual();
    ten_out(&mut solo);
    solo.say(Say::ack(7_000));
    let sent = solo.wait(Duration::from_millis(210));
    assert_eq!(spans(&sent), [(9_000, 1_000)], "the last segment is the probe");
    assert_eq!(solo.count(Counter::TcpTailProbes), 1);
    solo.now += RTT;
    // The probe is SACKed: what lies before it is lost.
    let sent = solo.say(Say::ack(7_000).sacking(&[(9_000, 10_000)]));
    assert!(spans(&sent).contains(&(7_000, 1_000)), "{:?}", spans(&sent));
    assert_eq!(solo.count(Counter::TcpTimeouts), 0);
}

#[test]
fn a_probe_that_repairs_the_only_loss_still_costs() {
    let mut solo = Solo::new(TcpConfig { cc: CcKind::NewReno, ..TcpConfig::default() }, PEER, true);
    ten_out(&mut solo);
    solo.say(Say::ack(9_000));
    solo.now += Duration::from_millis(10);
    let before = solo.cwnd();
    let sent = solo.wait(Duration::from_millis(700));
    assert!(spans(&sent).contains(&(9_000, 1_000)));
    solo.write(1_000, 1_000);
    solo.now += RTT;
    solo.say(Say::ack(11_000));
    assert!(solo.cwnd() < before, "RFC 8985 §7.4.2");
}

#[test]
fn new_data_is_the_probe_when_there_is_some() {
    let mut solo = Solo::usual();
    solo.write(3 * FULL, FULL as u16);
    solo.now += RTT;
    // The window closes to what is in flight and then opens without an acknowledgment of anything.
    solo.say(Say::ack(1_000));
    assert!(solo.wait(Duration::from_millis(150)).is_empty());
    solo.say(Say::ack(2_000));
    assert!(!solo.end.with(|conn, _| conn.all_acked()));
}

#[test]
fn a_timeout_sends_one_segment_and_backs_off() {
    let mut solo = Solo::new(TcpConfig::default(), SynOptions { sack_permitted: false, ..PEER }, true);
    ten_out(&mut solo);
    let sent = solo.wait(Duration::from_millis(400));
    assert_eq!(spans(&sent), [(0, 1_000)]);
    assert_eq!(solo.cwnd(), 1_000, "RFC 5681 §3.1: the loss window");
    // The timeout was some 300 ms: it fires again 600 ms later, and not before another 1.2 s.
    assert_eq!(spans(&solo.wait(Duration::from_millis(600))), [(0, 1_000)]);
    assert!(solo.wait(Duration::from_millis(900)).is_empty());
}

#[test]
fn a_timeout_gives_up_only_what_is_old() {
    let mut solo = Solo::usual();
    solo.write(2 * FULL, FULL as u16);
    // Tail probes go first; then time for the timeout of what was sent long ago.
    let first = solo.wait(Duration::from_millis(800));
    assert!(!first.is_empty());
    assert!(solo.count(Counter::TcpTimeouts) >= 1);
    solo.finish();
}

#[test]
fn without_sack_three_duplicate_acknowledgments_send_the_first_again() {
    let mut solo = Solo::new(TcpConfig::default(), SynOptions { sack_permitted: false, ..PEER }, false);
    ten_out(&mut solo);
    solo.say(Say::ack(1_000));
    solo.write(30 * FULL, FULL as u16);
    // RFC 3042: each of the first two lets one new segment out.
    let first = solo.say(Say::ack(1_000));
    let second = solo.say(Say::ack(1_000));
    assert_eq!((first.len(), second.len()), (1, 1));
    assert!(!first[0].retransmit && !second[0].retransmit);
    let third = solo.say(Say::ack(1_000));
    assert_eq!(third.first().map(|sent| (sent.at, sent.retransmit)), Some((1_000, true)));
}

#[test]
fn without_sack_a_partial_acknowledgment_sends_the_next_hole() {
    let mut solo = Solo::new(TcpConfig::default(), SynOptions { sack_permitted: false, ..PEER }, false);
    ten_out(&mut solo);
    // The first only opens the window.
    for _ in 0..4 {
        solo.say(Say::ack(0));
    }
    solo.now += RTT;
    let sent = solo.say(Say::ack(4_000));
    assert_eq!(sent.iter().filter(|sent| sent.retransmit).map(|sent| sent.at).collect::<Vec<_>>(), [4_000]);
    solo.now += RTT;
    solo.say(Say::ack(10_000));
    assert!(!solo.end.with(|conn, _| conn.in_recovery()));
    assert_eq!(solo.end.with(|conn, _| conn.in_flight_bytes()), 0);
}

#[test]
fn a_peer_that_drops_what_it_reported_gets_it_again() {
    let mut solo = Solo::usual();
    ten_out(&mut solo);
    solo.say(Say::ack(0).sacking(&[(1_000, 10_000)]));
    // The hole is filled, yet the acknowledgment stops where the SACKed data begins: the peer has dropped it.
    solo.now += RTT;
    solo.say(Say::ack(1_000));
    let sent = solo.wait(Duration::from_millis(60));
    assert_eq!(sent.first().map(|sent| sent.at), Some(1_000), "RFC 2018 §8: without waiting a whole timeout");
    solo.now += RTT;
    solo.say(Say::ack(10_000));
    assert!(solo.end.with(|conn, _| conn.all_acked()));
    solo.finish();
}

#[test]
fn acknowledgments_of_single_bytes_open_the_window_by_bytes() {
    let mut solo = Solo::usual();
    ten_out(&mut solo);
    let before = solo.cwnd();
    for ack in 1..=1_000 {
        solo.say(Say::ack(ack));
    }
    assert!(solo.cwnd() <= before + 1_000, "RFC 3465: {} after {before}", solo.cwnd());
}

#[test]
fn an_acknowledgment_of_what_was_never_sent_is_challenged() {
    let mut solo = Solo::usual();
    ten_out(&mut solo);
    let before = solo.cwnd();
    let sent = solo.say(Say::ack(50_000));
    assert_eq!(solo.count(Counter::TcpChallengeAcks), 1);
    assert_eq!(sent.len(), 1);
    assert_eq!(solo.cwnd(), before);
}

#[test]
fn a_closed_window_never_ends_a_connection_whose_peer_answers() {
    let mut solo = Solo::usual();
    solo.say(Say::ack(0).window(0));
    solo.write(5 * FULL, FULL as u16);
    let mut probes = 0;
    for _ in 0..60 {
        probes += solo.wait(Duration::from_secs(10)).len();
        solo.say(Say::ack(0).window(0));
    }
    assert!(probes > 10, "{probes} probes in ten minutes");
    assert!(!solo.end.outcome.contains(Outcome::TIMED_OUT));
    let sent = solo.say(Say::ack(0));
    assert_eq!(sent.len(), 5);
}

#[test]
fn a_peer_that_shrinks_its_window_to_nothing_keeps_its_connection() {
    let mut solo = Solo::usual();
    ten_out(&mut solo);
    for _ in 0..60 {
        solo.say(Say::ack(0).window(0));
        solo.wait(Duration::from_secs(10));
    }
    assert!(!solo.end.outcome.contains(Outcome::TIMED_OUT), "it answers");
    let retransmits = solo.count(Counter::TcpRetransmits);
    assert!(retransmits < 80, "only the first segment is tried: {retransmits}");
    solo.say(Say::ack(10_000));
    assert!(solo.end.with(|conn, _| conn.all_acked()));
}

#[test]
fn a_window_that_opens_after_minutes_is_used_at_once_and_not_too_late() {
    let mut solo = Solo::usual();
    ten_out(&mut solo);
    // Its window shrinks to nothing with all of it under way, for ten minutes.
    for _ in 0..60 {
        solo.say(Say::ack(0).window(0));
        solo.wait(Duration::from_secs(10));
    }
    let sent = solo.say(Say::ack(0));
    let sent = if sent.is_empty() { solo.wait(Duration::from_millis(1)) } else { sent };
    assert_eq!(spans(&sent).first().map(|span| span.0), Some(0), "sent again when it can arrive");
    // From now on the peer has as long as any other to acknowledge it.
    solo.wait(Duration::from_secs(100));
    assert!(!solo.end.outcome.contains(Outcome::TIMED_OUT));
    solo.wait(Duration::from_secs(200));
    assert!(solo.end.outcome.contains(Outcome::TIMED_OUT));
}

#[test]
fn a_window_counts_with_what_it_acknowledges_though_the_segment_be_an_old_one() {
    let mut solo = Solo::usual();
    ten_out(&mut solo);
    // New data of the peer's, with a window of ten segments; then old data again, which acknowledges five of them and says
    // that five are left: the edge stays.
    solo.say(Say::data(500, 100).window(10));
    solo.say(Say { ack: 5_000, ..Say::data(0, 500) }.window(5));
    solo.say(Say { ack: 10_000, ..Say::data(0, 500) }.window(0));
    let sent = solo.write(5 * FULL, FULL as u16);
    assert!(sent.is_empty(), "beyond the edge: {:?}", spans(&sent));
}

#[test]
fn a_peer_that_never_answers_is_given_up() {
    let mut solo = Solo::usual();
    ten_out(&mut solo);
    solo.wait(Duration::from_secs(400));
    assert!(solo.end.outcome.contains(Outcome::TIMED_OUT));
}

#[test]
fn what_is_cut_for_a_tiny_segment_size_costs_no_frames() {
    let tiny = SynOptions { mss: Some(48), ..PEER };
    let mut solo = Solo::new(TcpConfig { initial_cwnd: 100, ..TcpConfig::default() }, tiny, true);
    let sent = solo.write(3_000, 1_000);
    assert!(sent.len() > 60 && sent.iter().all(|sent| sent.len <= 36), "{}", sent.len());
    assert_eq!(solo.end.pool.in_use(), 3);
    solo.now += RTT;
    solo.say(Say::ack(3_000));
    solo.finish();
}

#[test]
fn what_is_lost_takes_the_room_in_the_window_before_an_owner_does() {
    let mut solo = Solo::usual();
    ten_out(&mut solo);
    assert_eq!(spans(&solo.wait(Duration::from_secs(1))).last(), Some(&(0, 1_000)), "a timeout");
    let lost = solo.end.with(|conn, _| conn.cold.ring.lost);
    assert!(lost >= 8 * FULL, "{lost} bytes lost");
    // Before the next segment is built, MPTCP asks how much the subflow takes.
    solo.take(Say::ack(1_000));
    let (cwnd, space) = solo.end.with(|conn, _| (conn.cwnd(), conn.cwnd_space()));
    assert!(cwnd >= FULL, "{cwnd}");
    assert_eq!(space, 0, "all of {cwnd} bytes is for what is lost");
    assert!(solo.poll().iter().all(|sent| sent.retransmit));
    solo.finish();
}
