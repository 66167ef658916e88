//! The receiving side: what is reported, when it is acknowledged, what is kept.

use crate::Counter;
use crate::options::SynOptions;
use crate::tcp::harness::{PEER, Say, Solo};
use crate::tcp::*;
use crate::time::Duration;
use crate::wire::TcpFlags;

/// A connection past its quick ACKs, with `at` bytes received.
fn settled() -> (Solo, u32) {
    let mut solo = Solo::usual();
    for index in 0..16 {
        solo.say(Say::data(index * 100, 100));
    }
    (solo, 1_600)
}

#[test]
fn the_first_segments_are_acknowledged_at_once_and_later_ones_in_pairs() {
    let mut solo = Solo::usual();
    assert_eq!(solo.say(Say::data(0, 100)).len(), 1);
    let (mut solo, at) = settled();
    assert!(solo.say(Say::data(at, 100)).is_empty());
    assert_eq!(solo.say(Say::data(at + 100, 100)).len(), 1);
    assert!(solo.say(Say::data(at + 200, 100)).is_empty());
    let sent = solo.wait(Duration::from_millis(40));
    assert_eq!(sent.len(), 1, "the delayed acknowledgment");
    assert_eq!(sent[0].ack, i64::from(at) + 300);
}

#[test]
fn a_segment_beyond_a_gap_is_acknowledged_at_once_with_its_block_first() {
    let (mut solo, at) = settled();
    let base = i64::from(at);
    let sent = solo.say(Say::data(at + 200, 100));
    assert_eq!(sent[0].sack, [(base + 200, base + 300)]);
    let sent = solo.say(Say::data(at + 400, 100));
    assert_eq!(sent[0].sack, [(base + 400, base + 500), (base + 200, base + 300)]);
    let sent = solo.say(Say::data(at + 300, 100));
    assert_eq!(sent[0].sack, [(base + 200, base + 500)]);
    let sent = solo.say(Say::data(at, 200));
    assert_eq!((sent[0].ack, sent[0].sack.len()), (base + 500, 0));
}

#[test]
fn a_batch_with_many_holes_is_reported_by_several_acknowledgments() {
    let (mut solo, at) = settled();
    for index in 0..6 {
        solo.take(Say::data(at + 200 + index * 200, 100));
    }
    let sent = solo.poll();
    let mut blocks = sent.iter().flat_map(|sent| sent.sack.iter().copied()).collect::<Vec<_>>();
    blocks.sort_unstable();
    blocks.dedup();
    assert_eq!(blocks.len(), 6, "each changed block is reported: {sent:?}");
    assert_eq!(sent.len(), 2);
}

#[test]
fn old_data_is_reported_as_a_duplicate_once() {
    let (mut solo, at) = settled();
    let sent = solo.say(Say::data(0, 100));
    assert_eq!(sent[0].sack, [(0, 100)], "RFC 2883 §4");
    let sent = solo.say(Say::data(at, 100).flag(crate::wire::TcpFlags::PSH));
    assert!(sent.iter().all(|sent| sent.sack.is_empty()));
}

#[test]
fn a_duplicate_beyond_a_gap_is_reported_with_the_block_around_it() {
    let (mut solo, at) = settled();
    let base = i64::from(at);
    solo.say(Say::data(at + 200, 100));
    solo.say(Say::data(at + 300, 100));
    let sent = solo.say(Say::data(at + 200, 100));
    assert_eq!(sent[0].sack, [(base + 200, base + 300), (base + 200, base + 400)], "RFC 2883 §4.2.2");
    assert_eq!(solo.count(Counter::TcpDuplicates), 1);
}

#[test]
fn a_partial_duplicate_beyond_a_gap_reports_the_part() {
    let (mut solo, at) = settled();
    let base = i64::from(at);
    solo.say(Say::data(at + 200, 100));
    let sent = solo.say(Say::data(at + 250, 100));
    assert_eq!(sent[0].sack[0], (base + 250, base + 300));
    assert_eq!(sent[0].sack[1], (base + 200, base + 350));
}

#[test]
fn the_next_segment_in_order_is_always_taken() {
    let config = TcpConfig { max_ooo_frames: 4, ..TcpConfig::default() };
    let mut solo = Solo::new(config, PEER, true);
    for index in 1..20 {
        solo.say(Say::data(index * 300, 300));
    }
    assert_eq!(solo.end.with(|conn, _| conn.ooo_frames()), 4);
    solo.say(Say::data(0, 300));
    assert_eq!(solo.end.read, 1_500);
    solo.finish();
}

#[test]
fn the_highest_segment_gives_way_to_a_lower_one() {
    let config = TcpConfig { max_ooo_frames: 3, ..TcpConfig::default() };
    let mut solo = Solo::new(config, PEER, true);
    for index in [5, 6, 7] {
        solo.say(Say::data(index * 300, 300));
    }
    let sent = solo.say(Say::data(300, 300));
    assert_eq!(solo.count(Counter::TcpReneged), 1);
    assert_eq!(sent[0].sack, [(300, 600), (1_500, 2_100)], "what was given up is no longer reported");
}

#[test]
fn data_segments_never_carry_blocks_that_would_make_them_too_long() {
    let (mut solo, at) = settled();
    solo.take(Say::data(at + 200, 100));
    let sent = solo.write(1_000, 1_000);
    assert_eq!(sent[0].len, 1_000);
    assert!(sent[0].sack.is_empty());
    assert!(sent.iter().any(|sent| sent.len == 0 && !sent.sack.is_empty()), "an acknowledgment of its own follows");
}

#[test]
fn peers_without_sack_get_no_blocks() {
    let mut solo = Solo::new(TcpConfig::default(), SynOptions { sack_permitted: false, ..PEER }, true);
    let sent = solo.say(Say::data(100, 100));
    assert!(sent[0].sack.is_empty());
    assert_eq!(sent[0].ack, 0);
}

#[test]
fn peers_without_sack_get_one_acknowledgment_for_each_segment_beyond_a_gap() {
    let mut solo = Solo::new(TcpConfig::default(), SynOptions { sack_permitted: false, ..PEER }, true);
    for index in 1..6 {
        solo.take(Say::data(index * 100, 100));
    }
    let sent = solo.poll();
    assert!(sent.len() >= 3, "RFC 5681 §4.2: three duplicates show the loss, however they came: {}", sent.len());
}

#[test]
fn urgent_data_is_ordinary_data() {
    let mut solo = Solo::usual();
    solo.say(Say::data(0, 100).flag(crate::wire::TcpFlags::URG));
    assert_eq!(solo.end.read, 100);
}

#[test]
fn a_window_never_shrinks_and_opens_by_no_crumbs() {
    let mut solo = Solo::usual();
    solo.end.space = 20_000;
    let mut edge = 0;
    for index in 0..200_u32 {
        solo.end.space = 20_000_u32.saturating_sub(index * 97 % 20_000);
        let shown = |sent: &crate::tcp::harness::Sent| sent.ack + (i64::from(sent.window) << 7);
        for sent in solo.say(Say::data(index * 100, 100)) {
            assert!(shown(&sent) >= edge, "the edge moved left at {index}");
            edge = shown(&sent);
        }
    }
}

#[test]
fn a_window_that_its_scale_cannot_show_is_not_told_again_and_again() {
    let offer = Offer { window_scale: Some(10), ..Offer::default() };
    let peer = SynOptions { mss: Some(500), ..PEER };
    let mut solo = Solo::with_offer(TcpConfig::default(), offer, peer, true, TcpFlags::SYN | TcpFlags::ACK);
    // All of the window that it has shown is used up.
    solo.end.with(|conn, _| conn.hot.rcv_edge = conn.hot.rcv_nxt);
    let now = solo.now;
    // Room for more than a segment, but not for the 1024 bytes that the field counts in: nothing to tell.
    for _ in 0..10 {
        solo.end.with(|conn, _| conn.set_receive_space(700));
        let told = solo.end.with(|conn, env| conn.poll_transmit(now, env));
        assert!(told.is_none(), "{told:?}");
    }
    solo.end.with(|conn, _| conn.set_receive_space(3_000));
    let told = solo.end.with(|conn, env| conn.poll_transmit(now, env)).expect("an update");
    assert_eq!(told.window, 2);
    solo.end.with(|conn, _| conn.set_receive_space(3_000));
    assert!(solo.end.with(|conn, env| conn.poll_transmit(now, env)).is_none());
}
