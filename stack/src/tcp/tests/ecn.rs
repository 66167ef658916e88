//! Explicit congestion notification (RFC 3168).

use crate::Counter;
use crate::tcp::harness::{FULL, PEER, Say, Solo};
use crate::tcp::*;
use crate::time::Duration;
use crate::wire::{Ecn, TcpFlags};

fn solo() -> Solo {
    let offer = Offer { ecn: true, ..Offer::default() };
    let flags = TcpFlags::SYN | TcpFlags::ACK | TcpFlags::ECE;
    Solo::with_offer(TcpConfig::default(), offer, PEER, true, flags)
}

#[test]
fn new_data_is_ect_and_acknowledgments_and_retransmissions_are_not() {
    let mut solo = solo();
    let sent = solo.write(10 * FULL, FULL as u16);
    assert!(sent.iter().all(|sent| sent.ecn == Ecn::Ect0));
    solo.now += Duration::from_millis(100);
    let sent = solo.say(Say::ack(0).sacking(&[(1_000, 4_000)]));
    assert!(sent[0].retransmit && sent[0].ecn == Ecn::NotEct, "RFC 3168 §6.1.5");
    let sent = solo.say(Say::data(0, 1_000));
    assert!(sent.iter().any(|sent| sent.len == 0 && sent.ecn == Ecn::NotEct), "RFC 3168 §6.1.4");
}

#[test]
fn a_peer_that_did_not_agree_gets_no_marks() {
    let mut solo = Solo::usual();
    let sent = solo.write(FULL, FULL as u16);
    assert_eq!(sent[0].ecn, Ecn::NotEct);
    solo.say(Say { ecn: Ecn::Ce, ..Say::data(0, 100) });
    assert_eq!(solo.count(Counter::TcpMarksIn), 0);
}

#[test]
fn a_mark_is_echoed_until_the_sender_says_that_it_slowed_down() {
    let mut solo = solo();
    let sent = solo.say(Say { ecn: Ecn::Ce, ..Say::data(0, 1_000) });
    assert!(sent[0].flags.contains(TcpFlags::ECE));
    let sent = solo.say(Say::data(1_000, 1_000));
    assert!(sent[0].flags.contains(TcpFlags::ECE), "RFC 3168 §6.1.3");
    let sent = solo.say(Say::data(2_000, 1_000).flag(TcpFlags::CWR));
    assert!(!sent[0].flags.contains(TcpFlags::ECE));
}

#[test]
fn an_echo_reduces_the_window_once_a_round_trip_and_is_answered_by_cwr() {
    let mut solo = solo();
    solo.write(10 * FULL, FULL as u16);
    solo.now += Duration::from_millis(100);
    let before = solo.cwnd();
    solo.say(Say::ack(1_000).flag(TcpFlags::ECE));
    let reduced = solo.cwnd();
    assert_eq!(reduced, before * 7 / 10);
    solo.say(Say::ack(2_000).flag(TcpFlags::ECE));
    assert_eq!(solo.cwnd(), reduced, "RFC 3168 §6.1.2");
    assert_eq!(solo.count(Counter::TcpMarkReductions), 1);
    solo.write(3 * FULL, FULL as u16);
    let sent = solo.say(Say::ack(9_000));
    assert!(sent[0].flags.contains(TcpFlags::CWR));
    assert!(sent[1..].iter().all(|sent| !sent.flags.contains(TcpFlags::CWR)));
    solo.now += Duration::from_millis(100);
    solo.say(Say::ack(13_000).flag(TcpFlags::ECE));
    assert_eq!(solo.count(Counter::TcpMarkReductions), 2, "a new round trip");
}
